"""Makes small wrong versions of fastkl, one at a time in a temporary folder, and lists those that no test notices.

    python tests/hardening/mutants.py core --tier avx2            # 200 mutants of the C maths
    python tests/hardening/mutants.py facade --number 300 --seed 1
    python tests/hardening/mutants.py core --only fallback_rows.c --number 0      # all of one file

Exits with 1 if one survives. A seed gives the same mutants of the same sources, spread over the files in proportion to
their possible changes. C is compiled for one tier, at -O1 and without OpenMP; a mutant with unchanged machine code does not
count. The tests are collected and run once without a mutant. Then each mutant has a forked process, in which its functions
replace the original ones: the tests that killed a mutant before come first, then the quickest; of Python only those that
run the line. In Python, code outside of functions is not changed. Needs Linux, a C compiler, NumPy, Cython and the packages
that the tests need.
"""

from __future__ import annotations

import argparse
import ast
import ctypes
import gc
import inspect
import math
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
import types
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]

NUMERIC = ["edges", "logits", "labels", "compare", "accuracy", "logits_accuracy", "constants", "arrays"]
FACADE = ["messages", "arrays", "labels", "compare", "containers", "build"]
BATCH = ["summary", "batch", "batch_output", "batch_npy", "batch_formats", "report"]

# The files that are changed, the tests that should notice, and those that are left out: they are slow, or of other code.
SETS: dict[str, tuple[list[str], list[str], str]] = {
    "core": (
        [
            f"fastkl/_core/{name}"
            for name in (
                *("fallback_rows.c", "fallback_logits.c", "fastkl.h", "operands.h", "sums.h"),
                *(path.name for path in sorted((ROOT / "fastkl/_core").glob("*.inc.h"))),
            )
        ],
        NUMERIC,
        "not torch and not scipy and not threads and not many_entries and not allocate and not fast_reference "
        "and not filled_in_blocks",
    ),
    "facade": (
        [
            *(f"fastkl/{name}.py" for name in ("call", "measures", "_build")),
            *(str(path.relative_to(ROOT)) for path in sorted((ROOT / "fastkl/containers").glob("*.py"))),
        ],
        FACADE,
        "not from_source and not thread_limits and not allocate and not fork and not many_entries",
    ),
    "batch": ([f"fastkl/batch/{name}.py" for name in ("summary", "totals", "histogram")], BATCH, "not kill and not giga"),
}


class Mutant(NamedTuple):
    """A change of a file's bytes from `start` to `end`."""

    path: str
    start: int
    end: int
    new: str
    line: int
    lines: tuple[int, int]
    what: str


# Mutants of C ---------------------------------------------------------------------------------------------------------

OPERATORS = {
    " + ": " - ", " - ": " + ", " * ": " / ", " / ": " * ", " < ": " <= ", " <= ": " < ", " > ": " >= ", " >= ": " > ",
    " == ": " != ", " != ": " == ", " && ": " || ", " || ": " && ", " & ": " | ", " | ": " & ", " += ": " -= ",
    " |= ": " = ", " ? ": " && 0 ? ", "++": "--", " << ": " >> ", " >> ": " << ",
}  # fmt: skip
OPERATOR = re.compile("|".join(re.escape(x) for x in sorted(OPERATORS, key=len, reverse=True)))
STATEMENT = re.compile(
    r"^ +(?!(?:return|case|default|else|const|static|typedef|#|NAME\(\w+\) \w+ =|"
    r"[\w()]+ (?:\*|const |\w+ =|\w+;|\w+,|\w+\[))\b)"
    r"(?:\*?[\w>.\[\]()&-]+ (?:[+|]?=) [^;{}]*|[\w()]+\([^;{}]*\)|break|continue);$",
    re.MULTILINE,
)
NUMBER = re.compile(r"(?<![\w.])(?:0x1(?:\.[0-9a-f]+)?p[+-]?\d+f?|\d+\.\d+|\d+(?:e\d+)?)(?![\w.])")
SWAP = re.compile(
    r"(?<![\w.>])(?:p|q|a|b|p_\w+|q_\w+|\w+_p|\w+_q)(?!\w)|(?<=[.>])(?:p|q|p_\w+|q_\w+)(?!\w)|\b(?:high|low|most|least)\b"
)
# How the names of constants and thresholds begin: no other macro is changed.
THRESHOLDS = (
    "APART|BEYOND|COMPARABLE|D_BY_JS|E_|EXCESS|FACTOR|FAR |FASTKL_LN2|HEADROOM|LEAST|LN2|LOG|LOST|MAX_|MIN_|MISMATCH|"
    "MOST_LOST|NEGLIGIBLE|RESCALED|ROUNDER|SMALL|SUM_|TERM_|TINY|T_"
)
OTHERS = {"p": "q", "q": "p", "a": "b", "b": "a", "high": "low", "low": "high", "most": "least", "least": "most"}


def _blank(match: re.Match[str]) -> str:
    return re.sub(r"[^\n]", " ", match[0])


def _code(path: str, text: str) -> str:
    """Return C without comments, strings, and lines that compute nothing; every other character keeps its position."""
    text = re.sub(r"/\*.*?\*/", _blank, text, flags=re.DOTALL)
    text = re.sub(r'"[^"\n]*"', _blank, text)
    text = re.sub(rf"^#(?!define (?:{THRESHOLDS}))(?:.*\\\n)*.*$", _blank, text, flags=re.M)
    if path.endswith("real.inc.h"):  # all constants
        return text
    declarations = r"^.*(?:PREFETCH|prefetch|ahead|FASTKL_INLINE|FASTKL_NOINLINE|^static|^typedef|^extern).*$"
    text = re.sub(declarations, _blank, text, flags=re.M)
    return re.sub(r"^typedef struct.*?^}", _blank, text, flags=re.M | re.DOTALL)


def _of_c(path: str, text: str) -> list[Mutant]:
    code, found = _code(path, text), []

    def add(start: int, end: int, new: str) -> None:
        first, line = text.rfind("\n", 0, start) + 1, text.count("\n", 0, start) + 1
        last = text.find("\n", end)
        after = text[first:start] + new + text[end:last]
        found.append(Mutant(path, start, end, new, line, (line, line), after.strip()))

    for match in OPERATOR.finditer(code):
        if not code[code.rfind("\n", 0, match.start()) + 1 : match.start()].lstrip().startswith("#"):
            add(*match.span(), OPERATORS[match[0]])
    for match in STATEMENT.finditer(code):
        indent = len(match[0]) - len(match[0].lstrip())
        add(match.start() + indent, match.end(), "(void)0;")
    for match in NUMBER.finditer(code):
        digits = match[0]
        if digits.startswith("0x1p"):
            new = re.sub(r"p([+-]?\d+)", lambda m: f"p{int(m[1]) + 8}", digits)
        elif digits.startswith("0x"):
            new = re.sub(r"([0-9a-f])p", lambda m: f"{(int(m[1], 16) + 4) % 16:x}p", digits)
        elif "." in digits:
            new = str(float(digits) * 1.5)
        else:
            new = str(int(float(digits)) + 1)
        add(*match.span(), new)
    for match in SWAP.finditer(code):
        if re.match(
            r"const|double|REAL|ptrdiff_t|source|row|fastkl_operand|NAME\(loose\)",
            code[: match.start()].split()[-1] if match.start() else "",
        ):
            continue  # a declaration
        name = match[0]
        new = OTHERS.get(name) or re.sub(r"^[pq]_", lambda m: {"p_": "q_", "q_": "p_"}[m[0]], name)
        new = new if new != name else re.sub(r"_[pq]$", lambda m: {"_p": "_q", "_q": "_p"}[m[0]], name)
        if re.search(rf"(?<!\w){new}(?!\w)", code):
            add(*match.span(), new)
    return found


# Mutants of Python ----------------------------------------------------------------------------------------------------

COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.FloorDiv: ast.Mult, ast.Div: ast.Mult, ast.Mod: ast.Add,
    ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
}  # fmt: skip


def _changed(node: ast.AST) -> list[ast.AST]:
    """Return the nodes that may replace a node."""
    if isinstance(node, ast.Compare):
        return [ast.Compare(node.left, [COMPARISONS[type(node.ops[0])](), *node.ops[1:]], node.comparators)]
    if isinstance(node, ast.BoolOp):
        return [ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values), *node.values[:1]]
    if (
        isinstance(node, ast.BinOp)
        and type(node.op) in ARITHMETIC
        and not (isinstance(node.left, (ast.Constant, ast.JoinedStr)) and isinstance(getattr(node.left, "value", ""), str))
    ):
        return [ast.BinOp(node.left, ARITHMETIC[type(node.op)](), node.right)]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.Not, ast.USub)):
        return [node.operand]
    if isinstance(node, ast.Constant) and isinstance(node.value, bool):
        return [ast.Constant(not node.value)]
    if isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
        return [ast.Constant(node.value + 1)]
    if isinstance(node, ast.IfExp):
        return [ast.IfExp(node.test, node.orelse, node.body)]
    if isinstance(node, ast.Call):
        plain = len(node.args) > 1 and not any(isinstance(x, ast.Starred) for x in node.args[:2])
        kept = [ast.Call(node.func, [node.args[1], node.args[0], *node.args[2:]], node.keywords)] if plain else []
        return kept + ([ast.Call(node.func, node.args, node.keywords[:-1])] if node.keywords else [])
    return []


def _of_python(path: str, text: str) -> list[Mutant]:
    found: list[Mutant] = []
    starts = [0]
    for line in text.encode().splitlines(keepends=True):
        starts.append(starts[-1] + len(line))

    def add(node: Any, new: str) -> None:
        start, end = starts[node.lineno - 1] + node.col_offset, starts[node.end_lineno - 1] + node.end_col_offset
        old = text.encode()[start:end].decode()
        what = " ".join(f"{old}  ->  {new}".split())
        found.append(Mutant(path, start, end, new, node.lineno, (node.lineno, node.end_lineno), what))

    def visit(node: Any) -> None:
        if isinstance(node, (ast.JoinedStr, ast.Import, ast.ImportFrom)):
            return
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        if isinstance(node, (ast.If, ast.While)):
            add(node.test, f"(not ({ast.unparse(node.test)}))")
        text_alone = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if text_alone:
            return
        if isinstance(node, (ast.Expr, ast.AugAssign, ast.Raise, ast.Break, ast.Continue)):
            add(node, "pass")
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], (ast.Attribute, ast.Subscript)):
            add(node, "pass")
        if isinstance(node, ast.Return) and node.value is not None and ast.unparse(node.value) != "None":
            add(node, "return None")
        for new in _changed(node):
            add(node, f"({ast.unparse(ast.fix_missing_locations(new))})")
        for name, value in ast.iter_fields(node):
            if name in ("annotation", "returns", "decorator_list") or (isinstance(node, ast.Raise) and name == "exc"):
                continue
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    visit(child)

    visit(ast.parse(text))
    return found


def candidates(path: str) -> list[Mutant]:
    text = (ROOT / path).read_text()
    return _of_python(path, text) if path.endswith(".py") else _of_c(path, text)


def chosen(paths: list[str], number: int, seed: int) -> list[Mutant]:
    """Return so many mutants, from each file in proportion."""
    found = {path: candidates(path) for path in paths}
    everything = sum(map(len, found.values()))
    share = min(1.0, number / everything) if number else 1.0
    draw, result = random.Random(seed), []
    for of_file in found.values():
        result += draw.sample(of_file, round(share * len(of_file)))
    return result


# Builds ---------------------------------------------------------------------------------------------------------------


class Core:
    """The core in the temporary folder: compiled as one tier, and again where a mutant makes a difference."""

    def __init__(self, folder: Path, tier: str) -> None:
        self.folder, self.tier, self.objects = folder, tier, folder / "objects"
        self.objects.mkdir()
        self.library = folder / "mutant.so"
        core = folder / "fastkl/_core"
        # One tier, in a table that can be written to. Without always_inline: compiling would take four times as long.
        other = "|".join({"avx512", "avx2", "baseline"} - {tier})
        self.edit(core / "tables.c", rf"^ +&fastkl_tier_(?:{other}),\n", "")
        for name in "tables.c", "fastkl.h":
            self.edit(core / name, r"const fastkl_tier \*const fastkl_tiers", "const fastkl_tier *fastkl_tiers")
        self.edit(core / "compiler.h", r"(?<=FASTKL_INLINE) static inline __attribute__\(\(always_inline\)\)", " static")
        flags = "-O1 -g0 -w -std=c11 -fPIC -fno-math-errno -fno-trapping-math -ffp-contract=off"
        includes = [folder / "fastkl", core, np.get_include(), sysconfig.get_paths()["include"]]
        self.command = [os.environ.get("CC", "cc"), *flags.split(), *(f"-I{path}" for path in includes)]
        kernels = self.objects / "_kernels.c"
        directives = [
            "language_level=3",
            "boundscheck=False",
            "wraparound=False",
            "cdivision=True",
            "initializedcheck=False",
        ]
        options = [part for directive in directives for part in ("-X", directive)]
        cython = [sys.executable, "-m", "cython", *options, "-o", kernels, folder / "fastkl/_kernels.pyx"]
        subprocess.run(cython, check=True, stdout=subprocess.DEVNULL)
        self.sources = [x for x in sorted(core.glob("*.c")) if not x.stem.startswith("tier_") or x.stem == f"tier_{tier}"]
        for source in [kernels, *self.sources]:
            self.compile(source)
        self.sound = {path: path.read_bytes() for path in self.objects.glob("*.o")}
        self.module = folder / f"fastkl/_kernels{sysconfig.get_config_var('EXT_SUFFIX')}"
        self.link(self.module, sorted(self.sound))

    @staticmethod
    def edit(path: Path, pattern: str, new: str) -> None:
        text, count = re.subn(pattern, new, path.read_text(), flags=re.M)
        assert count, f"{path.name} has nothing like {pattern}"
        path.write_text(text)

    def compile(self, source: Path) -> bytes:
        to = self.objects / f"{source.stem}.o"
        subprocess.run([*self.command, "-c", source, "-o", to], check=True, stderr=subprocess.DEVNULL, timeout=300)
        return to.read_bytes()

    def link(self, to: Path, objects: list[Path]) -> None:
        to.unlink(missing_ok=True)
        subprocess.run([self.command[0], "-shared", "-Wl,-Bsymbolic", "-o", to, *objects, "-lm", "-lpthread"], check=True)

    def prepare(self, mutant: Mutant, text: bytes) -> str:
        """Compile and link the sources that depend on the file; return why it is not a mutant to be tested, or nothing."""
        path = self.folder / mutant.path
        before = path.read_bytes()
        assert before == (ROOT / mutant.path).read_bytes() or path.name == "fastkl.h"
        path.write_bytes(text if path.name != "fastkl.h" else text.replace(b"*const fastkl_tiers", b"*fastkl_tiers"))
        try:
            sources = [
                x for x in self.sources if x == path or (path.suffix == ".h" and x.stem.startswith(("tier_", "fallback_")))
            ]
            sources = self.sources if path.name == "fastkl.h" else sources
            compiled = {self.objects / f"{x.stem}.o": self.compile(x) for x in sources}
            if compiled.items() <= self.sound.items():
                return SAME
            self.link(self.library, sorted(x for x in self.sound if x.stem != "_kernels"))
        except subprocess.CalledProcessError:
            return "does not compile"
        finally:
            path.write_bytes(before)
            for name, content in self.sound.items():
                name.write_bytes(content)
        return ""

    def take_over(self, mutant: Mutant, text: bytes) -> None:
        from fastkl import _kernels

        tiers = (ctypes.c_void_p * 1).in_dll(ctypes.CDLL(str(self.module)), "fastkl_tiers")
        tiers[0] = ctypes.addressof(ctypes.c_char.in_dll(ctypes.CDLL(str(self.library)), f"fastkl_tier_{self.tier}"))
        _kernels.use_tier(self.tier)


class Functions:
    """The modules in the temporary folder: their functions get new code."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def prepare(self, mutant: Mutant, text: bytes) -> str:
        codes = [self.codes(x, mutant.path) for x in (text, (ROOT / mutant.path).read_bytes())]
        same = all(found[name][1:] == codes[1][name][1:] for found in codes for name in found)
        return SAME if same else ""

    def codes(self, text: bytes, path: str) -> dict[str, Any]:
        found: dict[str, Any] = {}

        def enter(code: Any, name: str, kept: bool) -> None:
            for inner in code.co_consts:
                if isinstance(inner, types.CodeType):
                    full = f"{name}.{inner.co_name}"
                    while full in found:
                        full += "'"
                    # Code that runs at import only: bodies of classes, comprehensions outside of functions.
                    once = not kept and (
                        not inner.co_flags & inspect.CO_OPTIMIZED or inner.co_name.endswith(("comp>", "genexpr>"))
                    )
                    if not once:
                        found[full] = (
                            inner,
                            inner.co_code,
                            [x for x in inner.co_consts if not isinstance(x, types.CodeType)],
                            inner.co_names,
                        )
                    enter(inner, full, not once)

        enter(compile(text, str(self.folder / path), "exec", dont_inherit=True), "", kept=False)
        return found

    def take_over(self, mutant: Mutant, text: bytes) -> None:
        sound, new = (self.codes(x, mutant.path) for x in ((ROOT / mutant.path).read_bytes(), text))
        names = {(code[0].co_name, code[0].co_firstlineno, code[0].co_varnames): name for name, code in sound.items()}
        for function in [x for x in gc.get_objects() if type(x) is types.FunctionType]:
            code = function.__code__
            if code.co_filename == str(self.folder / mutant.path):
                function.__code__ = new[names[code.co_name, code.co_firstlineno, code.co_varnames]][0]


# Tests ----------------------------------------------------------------------------------------------------------------

SAME = "leaves the code unchanged"
BROKEN = "this script:"  # begins an error that is not the mutant's


class Judge:
    """A plugin of pytest that runs the collected tests without a mutant, then with each."""

    def __init__(
        self,
        mutants: list[Mutant],
        changed: Core | Functions,
        traced: tuple[str, ...],
        out: Any,
        ends: float,
        patience: float,
    ) -> None:
        self.mutants, self.changed, self.traced, self.out, self.ends = mutants, changed, traced, out, ends
        self.patience = patience  # of processor time
        self.seconds: dict[str, float] = {}
        self.lines: dict[str, set[tuple[str, int]]] = {}
        self.killers: Counter[str] = Counter()
        self.failed = ""
        self.survivors = 0
        self.now: set[tuple[str, int]] = set()

    def say(self, text: str) -> None:
        print(text, file=self.out, flush=True)

    def pytest_runtest_logreport(self, report: Any) -> None:
        self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0.0) + report.duration
        if report.failed:
            self.failed = report.nodeid

    def run(self, item: Any) -> bool:
        """Return whether the test passes."""
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=None)
        return not self.failed

    def trace(self, frame: Any, event: str, arg: object) -> Any:
        return self.trace_lines if frame.f_code.co_filename.endswith(self.traced) else None

    def trace_lines(self, frame: Any, event: str, arg: object) -> Any:
        self.now.add((frame.f_code.co_filename, frame.f_lineno))
        return self.trace_lines

    def pytest_runtestloop(self, session: Any) -> bool:
        if session.testsfailed:
            self.say("the tests cannot be collected")
            return True
        for item in session.items:
            self.now = self.lines.setdefault(item.nodeid, set())
            sys.settrace(self.trace if self.traced else None)
            passed = self.run(item)
            sys.settrace(None)
            if not passed:
                self.say(f"{self.failed} fails without a mutant")
                self.survivors = 1
                return True
        total = sum(self.seconds.values())
        self.say(f"{len(self.mutants)} mutants; {len(session.items)} tests, which take {total:.0f} s the first time")
        self.judge(session.items)
        return True

    def judge(self, items: list[Any]) -> None:
        told: dict[str, Counter[str]] = {}
        for mutant in self.mutants:
            if time.monotonic() > self.ends:
                self.say("no more time")
                break
            sound = (ROOT / mutant.path).read_bytes()
            text = sound[: mutant.start] + mutant.new.encode() + sound[mutant.end :]
            answer = self.changed.prepare(mutant, text)
            if not answer:
                killer = self.killer(mutant, text, items)
                self.killers[killer] += 1
                answer = f"killed by {killer}" if killer else "SURVIVES"
            told.setdefault(mutant.path, Counter())[answer.split()[0]] += 1
            self.say(f"{mutant.path}:{mutant.line}: {mutant.what}\n    {answer}")
        for path, counts in [*sorted(told.items()), ("all", sum(told.values(), Counter()))]:
            said = {"killed": "killed", "SURVIVES": "survive", "leaves": "leave the code unchanged"}
            self.say(f"{path}: " + ", ".join(f"{counts[word]} {text}" for word, text in said.items()))
            self.survivors = counts["SURVIVES"]

    def killer(self, mutant: Mutant, text: bytes, items: list[Any]) -> str:
        """Return the test that fails; '' if none does."""
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            try:
                self.in_child(mutant, text, items, writer)
            except BaseException as error:
                os.write(writer, f"{BROKEN} {error!r}".encode())
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader) as answer:
            killer = answer.read()
        _, ended = os.waitpid(child, 0)
        if killer.startswith(BROKEN):
            raise RuntimeError(killer)
        if os.WIFSIGNALED(ended):
            return "a time limit" if os.WTERMSIG(ended) == signal.SIGALRM else "a crash"
        return killer

    def in_child(self, mutant: Mutant, text: bytes, items: list[Any], writer: int) -> None:
        if self.traced:
            path = str(self.changed.folder / mutant.path)
            wanted = {(path, line) for line in range(mutant.lines[0], mutant.lines[1] + 1)}
            items = [x for x in items if wanted & self.lines[x.nodeid]]
        self.changed.take_over(mutant, text)
        for item in sorted(items, key=lambda x: (-self.killers[x.nodeid], self.seconds[x.nodeid])):
            if time.process_time() > self.patience:
                return
            signal.alarm(10 + 5 * math.ceil(self.seconds[item.nodeid]))  # ends endless loops
            if not self.run(item):
                os.write(writer, self.failed.encode())
                return


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=SETS)
    parser.add_argument("--number", type=int, default=200, help="how many mutants; 0: all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", metavar="NAME", default="", help="only of files whose name contains this")
    parser.add_argument("--tier", choices=["baseline", "avx2"], default="baseline")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no mutant after so many")
    parser.add_argument(
        "--patience", type=float, default=float("inf"), help="seconds of tests after which a mutant survives"
    )
    parser.add_argument("--list", action="store_true", help="show the mutants; run nothing")
    options = parser.parse_args()
    paths, names, without = SETS[options.what]
    mutants = chosen([x for x in paths if options.only in x], options.number, options.seed)
    random.Random(options.seed).shuffle(mutants)
    if options.list:
        for mutant in mutants:
            print(f"{mutant.path}:{mutant.line}: {mutant.what}")
        return 0
    ends = time.monotonic() + 60 * options.minutes
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        for part in ("fastkl", "tests"):
            shutil.copytree(
                ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__", ".hypothesis", "_kernels.c")
            )
        for part in ("pyproject.toml", "README.md"):
            shutil.copy(ROOT / part, folder)
        changed = Core(folder, options.tier) if options.what == "core" else Functions(folder)
        sys.path[:0] = [name, f"{name}/tests"]
        sys.dont_write_bytecode = True
        os.chdir(folder)
        with os.fdopen(os.dup(1), "w") as out:
            silence = os.open(os.devnull, os.O_WRONLY)
            os.dup2(silence, 1)
            judge = Judge(mutants, changed, () if options.what == "core" else tuple(paths), out, ends, options.patience)
            quiet = ["-x", "-q", "--assert=plain", "-p", "no:cacheprovider", "-p", "no:faulthandler", "--hypothesis-seed=0"]
            pytest.main([*quiet, "-k", without, *(f"tests/test_{x}.py" for x in names)], plugins=[judge])
    return bool(judge.survivors)


if __name__ == "__main__":
    sys.exit(main())
