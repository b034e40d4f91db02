"""The project's speed goals, each as a ratio within one run: `python benchmarks/bars.py [LINE ...]`, all lines by default.

Prints each goal and the measured ratio of medians of calls in turn, and exits with 0 even if a goal is missed. With
FASTKL_SIMD=avx2 `large` has goals of its own. `again` is the noise: the same call, measured twice. Needs 4 to 8 GB.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import reading
from cases import COUNTS, DTYPES, HALVES, LOGITS, MEASURES, Array, Case, operands
from machine import cycles, machine
from measuring import READING, Bench, Call, peak_memory, seconds
from peers import AGAIN, FASTKL, PEERS, missing

import fastkl

LARGE = Case()
IN_CACHE = Case(rows=100, threads=1)
BY_NAME = {peer.name: peer for peer in PEERS}

# The least share of the speed of reading, by tier, measure and dtype.
LARGE_GOALS = {
    "avx512": {
        ("kl_divergence", "float64"): 0.90,
        ("kl_divergence", "float32"): 0.85,
        ("cross_entropy", "float64"): 0.90,
        ("cross_entropy", "float32"): 0.85,
        ("entropy", "float64"): 0.85,
        ("entropy", "float32"): 0.70,
    },
    "avx2": dict.fromkeys(((measure, dtype) for measure in MEASURES for dtype in DTYPES), 0.60),
}
SMALL_CALLS = 200


class Result(NamedTuple):
    """One measured figure. `goal` is None where there is none; `most` says that less is better."""

    what: str
    measured: float | None
    goal: float | None
    unit: str = ""
    most: bool = False
    note: str = ""

    def __str__(self) -> str:
        held = "-"
        if self.goal is not None and self.measured is not None:
            held = "held" if (self.measured <= self.goal if self.most else self.measured >= self.goal) else "MISSED"
        measured = "unknown" if self.measured is None else f"{self.measured:.3f}{self.unit}"
        goal = "none" if self.goal is None else f"{'<=' if self.most else '>='} {self.goal:.2f}{self.unit}"
        return f"{self.what:75} {goal:>12} {measured:>12}  {held:6}  {self.note}"


Line = Callable[[], Iterator[Result]]


def call(bench: Bench, name: str = FASTKL) -> Call:
    """Return a contender's call, which must exist."""
    found = bench.call(BY_NAME[name])
    if found is None:
        raise LookupError(f"{name} does not compute {bench.case}. {'; '.join(missing())}")
    return found


def ratio(times: dict[str, float], other: str, ours: str = FASTKL) -> float | None:
    """Return how many times as fast as the other fastkl is."""
    return times[other] / times[ours] if other in times else None


def speed_of(case: Case, took: float) -> str:
    """Return a note of the entries a second, and of the cycles that an entry takes."""
    per_entry = cycles(took, case.entries, case.threads)
    return f"{case.entries / took / 1e9:.2f} Gelem/s" + (f", {per_entry:.2f} cycles an entry" if per_entry else "")


def noise(times: dict[str, float]) -> str:
    """Return a note of the same call's time, measured again."""
    return f"again {times[AGAIN] / times[FASTKL]:.3f}"


def beside_reading(bench: Bench, **others: Call) -> dict[str, float]:
    """Return the times of fastkl twice, of reading if it can be measured, and of others."""
    reader = bench.reader()
    calls = {FASTKL: call(bench), AGAIN: call(bench, AGAIN)} | others
    return seconds(({READING: reader} if reader else {}) | calls)


# The lines ---------------------------------------------------------------------------------------------------------------


def _shares(case: Case) -> Iterator[Result]:
    """Measure the share of reading of each measure of the same data, with 1 and 2 threads."""
    data = operands(case)
    for measure in MEASURES:
        goal = LARGE_GOALS.get(fastkl.build_info()["simd"], {}).get((measure, case.dtype))
        for threads in 1, 2:
            bench = Bench(replace(case, measure=measure, threads=threads), data[:1] if measure == "entropy" else data)
            times = beside_reading(bench)
            speed = f"{speed_of(case, times[FASTKL])}, {noise(times)}"
            yield Result(f"{bench.case}, of reading", ratio(times, READING), goal, note=speed)


def large() -> Iterator[Result]:
    """Compare all measures, 100,000 x 1000, 1 and 2 threads, with reading."""
    for dtype in DTYPES:
        yield from _shares(replace(LARGE, dtype=dtype))


def wide_rows() -> Iterator[Result]:
    """Do the same for 4,000 x 131,072 float32."""
    yield from _shares(replace(LARGE, dtype="float32", rows=4_000, columns=131_072))


def in_cache_numkong() -> Iterator[Result]:
    """Compare KL and CE in cache with NumKong's KL, and the errors of both."""
    for dtype in DTYPES:
        rival_bench = Bench(replace(IN_CACHE, dtype=dtype))
        rival = call(rival_bench, "numkong")
        theirs = rival_bench.answers(rival()).error_eps
        for measure in "kl_divergence", "cross_entropy":
            bench = Bench(replace(IN_CACHE, dtype=dtype, measure=measure), rival_bench.operands)
            ours = bench.answers(call(bench)()).error_eps
            times = beside_reading(bench, numkong=rival)
            note = f"worst error in eps {ours:.2f}, NumKong's KL {theirs:.3g}, {noise(times)}"
            yield Result(f"{bench.case}, of NumKong's KL", ratio(times, "numkong"), 1.0, note=note)


def in_cache_log() -> Iterator[Result]:
    """Compare KL in cache with MKL's log alone: as MKL chooses it, and the kernel for fastkl's tier."""
    for dtype, goal in (("float64", 0.85), ("float32", 0.65)):
        bench = Bench(replace(IN_CACHE, dtype=dtype))
        for name in "mkl log alone", "mkl log kernel":
            times = beside_reading(bench, log=call(bench, name))
            speed = f"{speed_of(bench.case, times['log'])}, {noise(times)}"
            yield Result(f"{bench.case}, of {name}", ratio(times, "log"), goal, note=speed)


def short_rows() -> Iterator[Result]:
    """Compare 5,000,000 x 10 and 1,000,000 x 50 with reading and NumPy."""
    for rows, columns in ((5_000_000, 10), (1_000_000, 50)):
        for dtype in DTYPES:
            bench = Bench(replace(LARGE, dtype=dtype, rows=rows, columns=columns))
            times = beside_reading(bench, numpy=call(bench, "numpy"))
            yield Result(f"{bench.case}, of reading", ratio(times, READING), 0.50, note=noise(times))
            yield Result(f"{bench.case}, of NumPy", ratio(times, "numpy"), 8.0, "x")


def _against(bench: Bench, base: Case, goal: float, what: str) -> Result:
    """Return the rate of a case, divided by that of another."""
    times = seconds({FASTKL: call(bench), AGAIN: call(bench), "base": call(Bench(base))})
    measured = bench.case.entries / times[FASTKL] / (base.entries / times["base"])
    return Result(f"{bench.case}, {what}", measured, goal, note=noise(times))


def inputs() -> Iterator[Result]:
    """Compare half precision and counts with float32, in entries, not bytes, a second."""
    for measure in *MEASURES, "js_divergence":
        for threads in 1, 2:
            base = replace(LARGE, measure=measure, threads=threads, dtype="float32")
            function: Callable[..., Any] = partial(getattr(fastkl, measure), normalize=True, threads=threads)
            single = partial(function, *operands(base))
            for dtype in *HALVES, *COUNTS:
                case = replace(base, dtype=dtype)
                ours = partial(function, *operands(case))
                times = seconds({FASTKL: ours, AGAIN: ours, "float32": single})
                speed = f"{speed_of(case, times[FASTKL])}, {noise(times)}"
                yield Result(f"{case}, of float32", ratio(times, "float32"), 1.0 if dtype in HALVES else 0.5, note=speed)


def one_row() -> Iterator[Result]:
    """Compare one row of 100,000,000 with many rows."""
    for dtype in DTYPES:
        case = replace(LARGE, dtype=dtype)
        yield _against(Bench(replace(case, rows=1, columns=case.entries)), case, 0.9, "of many rows")


def fortran() -> Iterator[Result]:
    """Compare Fortran order and axis=0 with C order, and measure the memory that they need."""
    for layout in "F", "axis0":
        for dtype in DTYPES:
            base = replace(LARGE, dtype=dtype)
            bench = Bench(replace(base, layout=layout))
            yield _against(bench, base, 0.6, "of C order")
            peak = peak_memory(call(bench))
            share = None if peak is None else peak / bench.bytes
            yield Result(f"{bench.case}, memory beyond the result", share, 0.01, " inputs", most=True)


def broadcast() -> Iterator[Result]:
    """Compare one q for all p and one p for all q with two matrices."""
    for layout in "one_q", "one_p":
        for dtype in DTYPES:
            base = replace(LARGE, dtype=dtype)
            yield _against(Bench(replace(base, layout=layout)), base, 1.1, "of two matrices")


def zeros() -> Iterator[Result]:
    """Compare rows with half of p's entries zero and a tenth of q's with rows without zeros."""
    for dtype in DTYPES:
        base = replace(LARGE, dtype=dtype)
        yield _against(Bench(replace(base, layout="zeros")), base, 0.9, "of no zeros")


def invalid() -> Iterator[Result]:
    """Compare the times of invalid="raise" and "ignore"."""
    for case in LARGE, IN_CACHE:
        for dtype in DTYPES:
            bench = Bench(replace(case, dtype=dtype))
            function: Callable[..., Any] = call(bench)
            modes = {mode: partial(function, invalid=mode) for mode in ("raise", "ignore")}
            times = seconds({FASTKL: modes["raise"], AGAIN: modes["raise"], "ignore": modes["ignore"]})
            yield Result(f"{bench.case}, time of ignore", times[FASTKL] / times["ignore"], 1.03, "x", True, noise(times))


def threads() -> Iterator[Result]:
    """Compare 2 threads with 1, out of cache."""
    for measure in MEASURES:
        for dtype in DTYPES:
            two = Bench(replace(LARGE, measure=measure, dtype=dtype))
            one = Bench(replace(two.case, threads=1), two.operands)
            readers = {name: reader for name, bench in (("r1", one), ("r2", two)) if (reader := bench.reader())}
            times = seconds({FASTKL: call(two), AGAIN: call(two), "one": call(one)} | readers)
            note = f"reading {times['r1'] / times['r2']:.2f}x, " if len(readers) == 2 else ""
            gain = times["one"] / times[FASTKL]
            yield Result(f"{two.case}, of 1 thread", gain, 1.85, "x", note=note + noise(times))


def _compared(bench: Bench, **keywords: Any) -> Result:
    """Return the time of a comparison with labels, divided by that of D alone."""
    labels = np.arange(bench.case.rows) % bench.case.columns
    compare = partial(fastkl.compare, *bench.operands, labels, threads=bench.case.threads, **keywords)
    times = seconds({FASTKL: call(bench), AGAIN: call(bench, AGAIN), "compare": compare})
    what = f"compare, {bench.case}, time of KL alone"
    return Result(what, times["compare"] / times[FASTKL], 2.5, "x", most=True, note=noise(times))


def _logits(case: Case, goal: float) -> Iterator[Result]:
    """Measure KL, the loss of labels and the comparison of the same logits; then the comparison of probabilities."""
    bench = Bench(replace(case, measure="kl_from_logits"))
    # In float64 its temporaries would need most of a machine's memory.
    rival = bench.call(BY_NAME["torch"]) if case.dtype == "float32" else None
    times = beside_reading(bench, **({"torch": rival} if rival else {}))
    speed = f"{speed_of(case, times[FASTKL])}, {noise(times)}"
    yield Result(f"{bench.case}, of reading", ratio(times, READING), goal, note=speed)
    if rival:
        yield Result(f"{bench.case}, of torch's two calls", ratio(times, "torch"), 10, "x")
    yield _compared(bench, from_logits=True)
    labels = np.random.default_rng(1).integers(case.columns, size=case.rows)
    bench = Bench(replace(case, measure="labels_from_logits"), (labels, bench.operands[1]))
    times = beside_reading(bench)
    yield Result(f"{bench.case}, of reading", ratio(times, READING), 0.60, note=noise(times))
    del bench
    yield _compared(Bench(case))


def logits() -> Iterator[Result]:
    """Measure logits and labels, 2,000 x 131,072 and 200,000 x 1000, 2 threads, and the memory for a row of 4,000,000."""
    for rows, columns in ((2_000, 131_072), (200_000, 1000)):
        for dtype, goal in (("float32", 0.60), ("float64", 0.55)):
            yield from _logits(replace(LARGE, dtype=dtype, rows=rows, columns=columns), goal)
    for measure in LOGITS:
        for dtype in DTYPES:
            bench = Bench(Case(measure, dtype, rows=1, columns=4_000_000))
            peak = peak_memory(call(bench))
            megabytes = None if peak is None else peak / 1e6
            yield Result(f"{bench.case}, memory beyond the result", megabytes, 4.0, " MB", most=True)


@contextmanager
def a_busy_core() -> Iterator[None]:
    """Run another process that uses one core all the time."""
    child = subprocess.Popen([sys.executable, "-c", "print(flush=True)\nwhile True: pass"], stdout=subprocess.PIPE)
    try:
        assert child.stdout is not None
        child.stdout.readline()  # it runs
        yield
    finally:
        child.kill()
        child.communicate()


def busy() -> Iterator[Result]:
    """Compare 200 small calls with the default threads beside a process that keeps one core busy with the same alone."""

    def calls(p: Array, q: Array) -> None:
        for _ in range(SMALL_CALLS):
            fastkl.kl_divergence(p, q)

    for rows in 10, 100, 1000:
        case = replace(LARGE, rows=rows)
        batch = partial(calls, *operands(case))
        alone = seconds({FASTKL: batch, AGAIN: batch})
        with a_busy_core():
            beside = seconds({FASTKL: batch})
        note = f"{alone[FASTKL] * 1e3:.1f} ms alone, {noise(alone)}"
        yield Result(f"{SMALL_CALLS} calls, {case}, time of alone", beside[FASTKL] / alone[FASTKL], 3.0, "x", True, note)


def files() -> Iterator[Result]:
    """Compare `fastkl.score` of a pair of .npy files in the page cache with the measure of the same arrays in memory."""
    for measure, name, from_logits in (("kl", "kl_divergence", False), ("kl", "kl_divergence", True)):
        for dtype in DTYPES:
            case = replace(LARGE, rows=250_000, dtype=dtype)
            arrays = operands(case)
            with tempfile.TemporaryDirectory() as folder:
                paths = [Path(folder) / f"{name}.npy" for name in "pq"]
                for path, array in zip(paths, arrays, strict=True):
                    np.save(path, array)
                out = np.empty(case.rows, dtype)
                in_memory = partial(getattr(fastkl, name), *arrays, from_logits=from_logits, out=out)
                score = partial(fastkl.score, *paths, measure=measure, from_logits=from_logits)
                times = seconds({FASTKL: score, AGAIN: score, "memory": in_memory})
            speed = sum(array.nbytes for array in arrays) / times[FASTKL] / 1e9
            what = f"{name}{' of logits' if from_logits else ''}, {case}, rate of memory"
            yield Result(what, times["memory"] / times[FASTKL], 0.70, "x", note=f"{speed:.1f} GB/s, {noise(times)}")


LINES: dict[str, Line] = {
    line.__name__: line
    for line in (
        large,
        in_cache_numkong,
        in_cache_log,
        short_rows,
        inputs,
        one_row,
        wide_rows,
        fortran,
        broadcast,
        zeros,
        invalid,
        threads,
        logits,
        busy,
        files,
    )
}


def main(lines: dict[str, Line], about: str | None) -> None:
    """Measure the lines that the command line names, or all."""
    described = "\n".join(f"  {name:18}{line.__doc__}" for name, line in lines.items())
    parser = argparse.ArgumentParser(
        description=f"{about}\nlines:\n{described}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("lines", nargs="*", metavar="LINE", help="a line to measure")
    wanted = parser.parse_args().lines or list(lines)
    if unknown := set(wanted) - set(lines):
        parser.error(f"no line {', '.join(sorted(unknown))}; there are {', '.join(lines)}")
    print(textwrap.fill(machine(), 124), *filter(None, [reading.PROBLEM]), sep="\n")
    for name in wanted:
        print(f"\n{name}: {lines[name].__doc__}")
        try:
            for result in lines[name]():
                print(result, flush=True)
        except LookupError as error:
            print(f"not measured: {error}")


if __name__ == "__main__":
    main(LINES, __doc__)
