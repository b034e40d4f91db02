"""Counts the packed and the scalar floating-point instructions of each SIMD tier: whether a compiler vectorises the maths.

    CC=clang python tools/packed_instructions.py          compiles the tiers with the flags of setup.py and Python
    python tools/packed_instructions.py OBJECT...         counts in object files: build/temp*/fastkl/_core/tier_*.o

CFLAGS and OBJDUMP are heeded: CC=aarch64-linux-gnu-gcc OBJDUMP=aarch64-linux-gnu-objdump. It ends with 1 if packed ones are
a smaller share of a tier than LEAST. clang warns of each loop that it was told to vectorise and does not. With GCC, the
functions with most scalar instructions tell where to look; -fopt-info-vec-missed says why. Needs binutils or LLVM.

Where GCC vectorises all loops over lanes, 0.77 to 0.87 are packed (GCC 12 and 16, all tiers but the baseline of x86-64);
the rest is what finishes a row. LEAST is nine tenths of the smallest of these. A compiler that makes no vectors of two
doubles has 0.41 in the tiers of 128 bits. In the baseline of x86-64, which has no fma, GCC 12 has 0.51 and GCC 16 0.48, of
which the bound is nine tenths: they do not vectorise loops that call the function, in the passes for temperatures and in
the rescaled ones. clang calls it for each lane.
"""

import ast
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1]
LEAST = 0.69
LEAST_GCC_WITHOUT_FMA = 0.43
SHOWN = 4  # functions
LINE = re.compile(r"(?:[0-9a-f]+ <(?P<function>.+)>:|\s*[0-9a-f]+:\s+(?P<name>\S+)(?:\s+(?P<operands>.*))?)$")
X86 = re.compile(r"v?(add|sub|mul|div|min|max|sqrt|fn?m(add|sub)(132|213|231))(p|s)[sd]")
ARM = re.compile(r"f(add|sub|n?mul|div|sqrt|(min|max)(nm)?|ml[as]|n?m(add|sub))(\.[24][sd])?")


def count(path: Path) -> tuple[Counter[str], Counter[str]]:
    """Return the packed and the scalar instructions of each function in an object file."""
    command = [os.environ.get("OBJDUMP", "objdump"), "-d", "--no-show-raw-insn", str(path)]
    listing = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    counts: tuple[Counter[str], Counter[str]] = Counter(), Counter()
    function = ""
    for match in map(LINE.match, listing.splitlines()):
        if match and match["function"]:
            function = match["function"]
        elif match and (x86 := X86.fullmatch(match["name"])):
            counts[x86[4] == "s"][function] += 1
        elif match and (arm := ARM.fullmatch(match["name"])):
            counts[not (arm[5] or (match["operands"] or "").startswith("v"))][function] += 1
    return counts


def compile_tiers(folder: str) -> list[Path]:
    """Compile each tier's file with the flags in setup.py."""
    tree = ast.parse(ROOT.joinpath("setup.py").read_text())
    values = {ast.unparse(node.targets[0]): node.value for node in tree.body if isinstance(node, ast.Assign)}
    flags = ast.literal_eval(values["FLAGS"])["unix"]
    command = [*os.environ.get("CC", "cc").split(), *flags, "-fwrapv", "-fPIC", f"-I{ROOT / 'fastkl'}"]
    command += os.environ.get("CFLAGS", "").split()
    objects = []
    for source in sorted(ROOT.glob("fastkl/_core/tier_*.c")):
        objects.append(Path(folder, source.with_suffix(".o").name))
        subprocess.run([*command, "-c", str(source), "-o", str(objects[-1])], check=True)
    return objects


def main() -> int:
    """Print the counts of each tier; 1 if there are none, or too few packed ones."""
    counted, few = 0, False
    with tempfile.TemporaryDirectory() as folder:
        for path in [Path(name) for name in sys.argv[1:]] or compile_tiers(folder):
            packed, scalar = count(path)
            if not packed and not scalar:
                continue  # a tier of another architecture
            share = packed.total() / (packed.total() + scalar.total())
            counted += 1
            content = path.read_bytes()
            without_fma = b"GCC: (" in content and path.stem == "tier_baseline" and b"neon" not in content
            least = LEAST_GCC_WITHOUT_FMA if without_fma else LEAST
            few |= share < least
            print(f"{path.stem}: {packed.total()} packed, {scalar.total()} scalar; {share:.2f}, at least {least}")
            print("   scalar:", ", ".join(f"{name} {number}" for name, number in scalar.most_common(SHOWN)))
    return int(few or not counted)


if __name__ == "__main__":
    sys.exit(main())
