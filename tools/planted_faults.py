"""Plants one fault after the other in copies of the sources, and says by which test the default test run finds each.

    python tools/planted_faults.py                       the run without a fault, which has to pass, and with each of them
    python tools/planted_faults.py --list                their names, kinds and files
    python tools/planted_faults.py label-n short-read    these alone
    python tools/planted_faults.py --tests tests/test_edges.py tests/test_logits.py

Exits with 1 if one is not found. Works in copies of what git has staged or committed; ccache is used where it is installed.
Needs x86-64 with AVX2, GCC, and what the tests need; a fault that names a library is left out where that is missing.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parents[1]

# NAME: KIND, FILE[, needs LIBRARY], and the change as in a diff. The text that is replaced occurs once in its file. Some
# faults show in one tier alone (baseline, AVX2), which is the kind "skipped tier". None is the same program, or ends none.
TABLE = """
mismatch-added: sign, fastkl/_core/finish.inc.h
- non_negative(sum.term - mismatch) / sum.weight, accepted
+ non_negative(sum.term + mismatch) / sum.weight, accepted
axis-of-an-error: sign, fastkl/call.py
- cut = len(own) + 1 + axis
+ cut = len(own) + 1 - axis
squares: sign, fastkl/batch/totals.py
- (2 * total + n * centre) * centre
+ (2 * total - n * centre) * centre
label-n: bound, fastkl/_core/nll.inc.h
- label < 0 || label >= n
+ label < 0 || label > n
eps-of-one: bound, fastkl/call.py
- lambda x: 0 <= x < 1,
+ lambda x: 0 <= x <= 1,
all-bins: bound, fastkl/batch/bins.py
- if len(keys) > MOST:
+ if len(keys) >= MOST:
digits-of-a-coefficient: constant, fastkl/_core/real.inc.h
- C(0x1.2492497cf3d14p-2)
+ C(0x1.2492479cf3d14p-2)
device-number: constant, fastkl/containers/arrays.py
- _CPU: Final = (1, 3, 11)
+ _CPU: Final = (1, 2, 11)
exponent-of-p: swapped operand, fastkl/_core/logits_values.inc.h
- q = ldexp(1, now->q_exponent - both.q_exponent)
+ q = ldexp(1, now->q_exponent - both.p_exponent)
tolerance-of-q: swapped operand, fastkl/_kernels.pyx
- or q is None else q_kind.tolerance
+ or q is None else p_kind.tolerance
increase-of-loss: swapped operand, fastkl/batch/results.py
- values["nll_q"].astype(float) - values["nll_p"]
+ values["nll_p"].astype(float) - values["nll_q"]
reduction-without-fma: skipped tier, fastkl/_core/exponential.inc.h
- (x - k * LN2_HEAD) - k * LN2_REST
+ x - k * (LN2_HEAD + LN2_REST)
bytes-of-avx2: skipped tier, fastkl/_core/compiler.h
- _mm256_cvtepi32_pd(_mm_cvtepu8_epi32(
+ _mm256_cvtepi32_pd(_mm_cvtepi8_epi32(
no-avx2: skipped tier, fastkl/_core/tables.c
- &fastkl_tier_avx2,
+
zeros-in-the-last-column: lost tail, fastkl/_core/accumulate.inc.h
- const ptrdiff_t all = count + (p.left > 0);
+ const ptrdiff_t all = count;
last-block-of-columns: lost tail, fastkl/_blocks.pxi
- (call.run.length + call.missing + call.block_rows - 1)
+ (call.run.length + call.block_rows - 1)
last-piece: lost tail, fastkl/containers/pieces.py, needs pandas
- [*range(step, length, step), length]
+ [*range(step, length + 1, step)]
short-read: lost tail, fastkl/batch/readers/npy.py
- while view:
+ if view:
label-of-the-first-row: wrong index, fastkl/_core/compare.inc.h
- label = moved(labels, k, 0);
+ label = moved(labels, 0, 0);
entry-of-a-wide-row: wrong index, fastkl/call.py
- error(start + int(bad[0]), reason
+ error(int(bad[0]), reason
row-of-a-part: wrong index, fastkl/batch/workers.py
- x.index(first + row)
+ x.index(row)
negative-q: missing check, fastkl/_core/fold.inc.h
- entry_bits |= lanes->p_bits[j] | NAME(bits)(lanes->least_q[j]);
+ entry_bits |= lanes->p_bits[j];
unexported: missing check, fastkl/containers/arrays.py
- except (BufferError, RuntimeError) as error:
+ except RuntimeError as error:
checksum-of-a-draft: missing check, fastkl/batch/output.py
- if (size, actual) != (end, checksum):
+ if size != end:
"""
ENTRY = re.compile(
    r"^(?P<name>\S+): (?P<kind>[\w ]+), (?P<file>\S+?)(?:, needs (?P<library>\w+))?\n- (?P<old>.+)\n\+ ?(?P<new>.*)\n", re.M
)


def plant(fault: re.Match[str], folder: Path) -> None:
    """Change the file in the folder, and build there in place where that is not Python."""
    path = folder / fault["file"]
    text = path.read_text("utf-8")
    if text.count(fault["old"]) != 1:
        sys.exit(f"{fault['name']}: {fault['file']} has {text.count(fault['old'])} times, not once: {fault['old']}")
    path.write_text(text.replace(fault["old"], fault["new"]), "utf-8")
    if path.suffix != ".py":
        build(folder)


def build(folder: Path) -> None:
    cache = {"CC": f"ccache {sysconfig.get_config_var('CC')}"} if shutil.which("ccache") else {}
    command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    subprocess.run(command, cwd=folder, env={**cache, **os.environ}, check=True)


def first_failure(folder: Path, tests: list[str]) -> str:
    """Return the first test that fails, or nothing."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    ran = subprocess.run(command, cwd=folder, env=environment, text=True, capture_output=True, check=False)
    failed = re.search(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", ran.stdout, re.MULTILINE)
    if ran.returncode > 0 and not failed:
        sys.exit(f"pytest ended with {ran.returncode}:\n{ran.stdout[-3000:]}{ran.stderr[-3000:]}")
    return failed[1] if failed else f"signal {-ran.returncode}" if ran.returncode else ""


def main() -> None:
    faults = {fault["name"]: fault for fault in ENTRY.finditer(TABLE)}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="the faults to try, by default all")
    parser.add_argument("--list", action="store_true", help="print the faults")
    parser.add_argument("--tests", nargs="+", default=[], metavar="PATH", help="the arguments of pytest, by default none")
    given = parser.parse_args()
    if given.list:
        return print(*(f"{x['kind']:<16}{x['name']:<29}{x['file']}" for x in faults.values()), sep="\n")
    if unknown := set(given.names) - faults.keys():
        parser.error(f"no fault is called {', '.join(unknown)}")
    not_found = []
    with tempfile.TemporaryDirectory() as work:
        sound, planted = Path(work, "sound"), Path(work, "planted")
        subprocess.run(["git", "-C", ROOT, "checkout-index", "--all", f"--prefix={sound}/"], check=True)
        build(sound)
        if failed := first_failure(sound, given.tests):
            sys.exit(f"without a fault, {failed} fails")
        for name in given.names or faults:
            start, fault = time.monotonic(), faults[name]
            shutil.copytree(sound, planted)
            plant(fault, planted)
            missing = fault["library"] and not find_spec(fault["library"])
            test = "LEFT OUT" if missing else first_failure(planted, given.tests)
            not_found += [name] * (not test)
            seconds = time.monotonic() - start
            print(f"{name} ({fault['kind']}): {test or 'NOT FOUND'}, {seconds:.0f} s", flush=True)
            shutil.rmtree(planted)
    sys.exit(f"not found: {', '.join(not_found)}" if not_found else None)


if __name__ == "__main__":
    main()
