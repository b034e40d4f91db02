"""`fastkl demo`: fastkl and NumPy on a matrix that is nearly all zeros, which is made from Python's own library.

A row is a module, a column is a pair of bytes, and an entry is how often the module has the one byte just before the other.
Owns the reading, the comparison and the printed page. Uses the measures by their public names alone. Every figure on the
page is measured while the command runs.
"""

from __future__ import annotations

import os
import platform
from collections import Counter
from contextlib import nullcontext, suppress
from decimal import Context, Decimal, localcontext
from functools import cache
from importlib import import_module
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

import fastkl

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

PAIRS: Final = 1 << 16
SHORTEST: Final = 1024  # bytes; a shorter module has too few pairs
# These folders are not part of the library. `encodings` is left out because it has a hundred versions of one module.
LEFT_OUT: Final = frozenset({"site-packages", "dist-packages", "test", "tests", "idle_test", "encodings"})

OURS: Final = "fastkl.kl_divergence(p, q)"
USUAL: Final = (
    "(p * np.log(p/q)).sum(1)",
    "np.where(p > 0, p * np.log(p/q), 0).sum(1)",
    "(p * np.log(np.where(p > 0, p/q, 1))).sum(1)",
)
SCIPY: Final = "scipy.stats.entropy(p, q, axis=1)"

RUNS: Final = 3
LISTED: Final = 6  # modules at either end of the ranking
WRONG: Final = 1e-3  # relative error, far above what rounding does in any dtype

EXACT: Final = Context(prec=50)
HEAD: Final = Context(prec=3)
# A divergence below this is 0 with the rounding errors of 50 digits: different distributions in float64 are further apart.
NEXT_TO_NOTHING: Final = 1e-40
# The series of 2 atanh(s)/s in s squared, the highest power first. The next term is less than 1e-47: with a number and its
# first three digits, s is less than 0.0025.
ATANH: Final = tuple(EXACT.divide(2, 2 * k + 1) for k in reversed(range(9)))


def run(library: Path, most: int) -> None:
    """Print the page for the `most` largest modules below the folder `library`."""
    modules = read_modules(library)
    if not modules:
        raise FileNotFoundError(f"no Python sources to read in {library} (--library names another folder)")
    names = list(modules)[:most]
    p = np.empty((len(names), PAIRS))
    whole = np.zeros(PAIRS)
    for row, data in enumerate(modules.values()):
        counts = count_pairs(data)
        whole += counts
        if row < len(p):
            p[row] = counts
    p /= p.sum(1, keepdims=True)
    q = (whole / whole.sum())[np.newaxis]

    info = fastkl.build_info()
    versions = f"NumPy {np.__version__}, Python {platform.python_version()}"
    print(f"fastkl {fastkl.__version__} ({info['simd']}, threads: {info['threads']}), {versions}")
    print(f"\nThe {len(p)} largest of {len(modules)} modules in {fitted(str(library), 60)}")
    print(f"(without {', '.join(sorted(LEFT_OUT))}, files under {SHORTEST} bytes)")
    print(f"p: how often each of the {PAIRS:,} pairs of bytes occurs in a module; {np.mean(p == 0):.1%} of it is zeros")
    print("q: the same for all the modules together")
    print_ranking(names, p, q, [len(modules[name]) for name in names])

    single = p.astype(np.float32)
    print(f"\n\nEvery module against the library: {len(p)} rows x {PAIRS:,} columns, median of {RUNS} runs\n")
    print_line("", "ms", "rows/s", "GB/s", "NaN", "below 0", "wrong", "worst")
    for x in (p, single):
        print_comparison(f"{x.dtype}", x, q.astype(x.dtype), RUNS)

    print("\n\nEvery module against its own copy, stored in half the bits and normalised again\n")
    print_line("", "", "", "", "NaN", "below 0", "wrong", "worst")
    for x, stored in ((p, np.dtype(np.float32)), (single, np.dtype(np.float16))):
        copy: Array = x.astype(stored).astype(x.dtype)
        copy /= copy.sum(1, keepdims=True, dtype=np.float64)
        print_comparison(f"{x.dtype}, stored as {stored}", x, copy)

    print(f"\nwrong: neither NaN nor below 0, but off by more than {WRONG:.1%}; worst: the largest relative error.")
    print(f"The truth is the divergence of p/sum(p) from q/sum(q) in decimal arithmetic with {EXACT.prec} digits.")


def read_modules(library: Path) -> dict[str, bytes]:
    """The readable modules below a folder by their paths, the largest first."""
    modules = {}
    for folder, folders, files in os.walk(library):
        folders[:] = set(folders) - LEFT_OUT
        for path in (Path(folder, file) for file in files if file.endswith(".py")):
            with suppress(OSError):
                modules[path.relative_to(library).as_posix()] = path.read_bytes()
    names = sorted(modules, key=lambda name: (-len(modules[name]), name))
    return {name: modules[name] for name in names if len(modules[name]) >= SHORTEST}


def count_pairs(data: bytes) -> NDArray[np.intp]:
    """How often each pair of neighbouring bytes occurs: entry 256 a + b counts a just before b."""
    octets = np.frombuffer(data, np.uint8).astype(np.intp)
    return np.bincount(256 * octets[:-1] + octets[1:], minlength=PAIRS)


def print_ranking(names: list[str], p: Array, q: Array, sizes: list[int]) -> None:
    """Print the modules with the smallest and with the largest divergence from the library."""
    divergence = fastkl.kl_divergence(p, q, base=2)
    entropy = fastkl.entropy(p, base=2)
    order = np.argsort(divergence, kind="stable")
    for title, rows in (("Most typical", order[:LISTED]), ("Least typical", order[LISTED:][-LISTED:])):
        if not len(rows):
            break
        print(f"\n{title:<50}{'D(p || q), bits':>16}{'entropy, bits':>16}{'bytes':>12}")
        for row in rows:
            print(f"  {fitted(names[row], 46):<48}{divergence[row]:>16.3f}{entropy[row]:>16.3f}{sizes[row]:>12,}")


def print_comparison(title: str, p: Array, q: Array, runs: int = 0) -> None:
    """Print a line for each expression of the divergences of p from q; with its speed, if `runs` is positive."""
    truth = np.array([true_divergence(*rows) for rows in zip(p, np.broadcast_to(q, p.shape), strict=True)])
    print(f"{title}: median D {np.median(truth):.1e} nats")
    results = evaluate(p, q, max(runs, 1))
    for expression in (OURS, *USUAL, SCIPY):
        if expression not in results:
            print_line(expression, "not installed")
            continue
        answer, seconds = results[expression]
        speed = [f"{1e3 * seconds:.1f}", f"{len(p) / seconds:,.0f}", f"{p.nbytes / seconds / 1e9:.2f}"]
        *numbers, worst = judge(answer, truth)
        cells = [*(speed if runs else [""] * 3), *map(str, numbers), "-" if np.isnan(worst) else f"{worst:.0e}"]
        print_line(expression, *cells)


def evaluate(p: Array, q: Array, runs: int) -> dict[str, tuple[Array, float]]:
    """The values and the median time of every expression. The runs alternate, so that changes of load affect all."""
    names: dict[str, Any] = {"np": np, "fastkl": fastkl, "p": p, "q": q}
    expressions = [OURS, *USUAL]
    with suppress(ImportError):
        import_module("scipy.stats")
        names["scipy"] = import_module("scipy")
        expressions.append(SCIPY)
    # The text that is printed is the text that is evaluated.
    codes = {expression: compile(expression, "<demo>", "eval") for expression in expressions}
    answers: dict[str, Array] = {}
    seconds: dict[str, list[float]] = {expression: [] for expression in codes}
    for _ in range(runs):
        for expression, code in codes.items():
            with nullcontext() if expression == OURS else np.errstate(all="ignore"):
                start = perf_counter()
                answers[expression] = eval(code, names)
                seconds[expression].append(perf_counter() - start)
    return {expression: (answer, median(seconds[expression])) for expression, answer in answers.items()}


class Verdict(NamedTuple):
    """How many values are NaN, negative or otherwise wrong, and the largest relative error of those that are not NaN."""

    nan: int
    negative: int
    wrong: int
    worst: float


def judge(answer: Array, truth: Array) -> Verdict:
    """Compare the values with the true ones."""
    got = answer.astype(np.float64)
    with np.errstate(all="ignore"):
        error = np.where(got == truth, 0.0, abs(got - truth) / truth)
    nan, negative = np.isnan(got), got < 0
    wrong = ~(nan | negative | (error <= WRONG))
    return Verdict(int(nan.sum()), int(negative.sum()), int(wrong.sum()), float(np.fmax.reduce(error)))


def true_divergence(p: Array, q: Array) -> float:
    """D(p || q) of one row in nats, by the definition, of p/Σp and q/Σq."""
    held = p > 0
    with localcontext(EXACT):
        # Equal entries are counted first, because a row has few different numbers.
        totals = [Counter(row[row > 0].tolist()) for row in (p, q)]
        total_p, total_q = (sum((times * Decimal(x) for x, times in total.items()), Decimal(0)) for total in totals)
        pairs = Counter(zip(p[held].tolist(), q[held].tolist(), strict=True))
        terms = (times * Decimal(x) * (logarithm(x) - logarithm(y)) for (x, y), times in pairs.items())
        divergence = sum(terms, Decimal(0)) / total_p + (total_q / total_p).ln()
    return float(divergence) if divergence > NEXT_TO_NOTHING else 0.0


logarithm_of_head = cache(EXACT.ln)


@cache
def logarithm(x: float) -> Decimal:
    """ln(x) with the digits of EXACT, faster than Decimal.ln, which is used for the first three digits of x alone."""
    number = Decimal(x)
    head = HEAD.plus(number)
    with localcontext(EXACT):
        s = (number - head) / (number + head) if x else number
        series = Decimal(0)
        for coefficient in ATANH:
            series = series * (s * s) + coefficient
        return logarithm_of_head(head) + s * series


def print_line(first: str, *others: str) -> None:
    """Print a line of a table."""
    widths = (8, 8, 7, 6, 9, 7, 8)
    print(f"  {first:<45}" + "".join(f"{other:>{width}}" for other, width in zip(others, widths, strict=False)))


def fitted(text: str, width: int) -> str:
    """The text in plain ASCII, cut at its start to at most `width` letters."""
    plain = text.encode("ascii", "backslashreplace").decode()
    return plain if len(plain) <= width else "..." + plain[3 - width :]
