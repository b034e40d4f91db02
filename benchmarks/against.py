"""The time of this build against that of another checkout: `python benchmarks/against.py OTHER_CHECKOUT [TURNS [NAME]]`.

Both are compiled in place. Every case has two worker processes, which share the operands, keep one build's module loaded
each and time the same call in alternation, 15 turns by default. Prints the ratio of the medians of each case, this build's
time divided by the other's, and the median of all ratios. A case beyond 1.03 is repeated three times, with new workers, and
the median counts. NAME limits the run to the cases whose text contains it. Needs 8 GB and a system with fork.
"""

from __future__ import annotations

import multiprocessing
import statistics
import sys
import time
from dataclasses import replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cases import COUNTS, DTYPES, FULL, HALVES, MEASURES, Array, Case, operands

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection

HERE = Path(__file__).parents[1]
TURN_SECONDS = 0.02
PAUSE_SECONDS = 0.005  # as in measuring.py, which is not imported because it loads this build
MOST = 1.03
REPEATS = 3
INPUTS = [
    Case(measure, dtype, threads=threads)
    for measure in (*MEASURES, "js_divergence")
    for dtype in (*HALVES, *COUNTS, *DTYPES)
    for threads in (1, 2)
    if dtype not in DTYPES or measure == "js_divergence"
]
CASES = [*FULL, *INPUTS, *(Case("compare", dtype) for dtype in DTYPES)]
LOGITS = {"kl": "kl_divergence", "labels": "nll", "entropy": "entropy", "compare": "compare"}


def call_of(fastkl: Any, case: Case, data: tuple[Array, ...]) -> Callable[[], Any]:
    """Return the call of the case, with one build's functions."""
    name, _, logits = case.measure.partition("_from_")
    name = LOGITS[name] if logits else name
    if name == "nll" and not hasattr(fastkl, name):  # a checkout from before nll
        name = "cross_entropy"
    keywords: dict[str, Any] = {"threads": case.threads}
    keywords |= {"from_logits": True} if logits else {"normalize": case.dtype in (*HALVES, *COUNTS)}
    if case.layout == "axis0":
        data, keywords = tuple(x.T for x in data), keywords | {"axis": 0}
    return partial(getattr(fastkl, name), *data, **keywords)


def work(connection: Connection, checkout: Path, case: Case, data: tuple[Array, ...]) -> None:
    """Time the case on request with one build; a repeated short call fills a turn."""
    sys.path.insert(0, str(checkout))
    import fastkl

    assert Path(fastkl.__file__).is_relative_to(checkout), f"{fastkl.__file__} is not in {checkout}"
    call = call_of(fastkl, case, data)
    call()
    start = time.perf_counter()
    call()
    repeats = max(1, round(TURN_SECONDS / (time.perf_counter() - start)))
    while connection.recv():
        time.sleep(PAUSE_SECONDS)
        start = time.perf_counter()
        for _ in range(repeats):
            call()
        connection.send((time.perf_counter() - start) / repeats)


def ratio(other: Path, case: Case, data: tuple[Array, ...], turns: int) -> float:
    """Return the ratio of this build's median time to the other's, of turns in alternation."""
    context = multiprocessing.get_context("fork")
    ends, workers = [], []
    for checkout in HERE, other:
        end, its_end = context.Pipe()
        workers.append(context.Process(target=work, args=(its_end, checkout, case, data), daemon=True))
        workers[-1].start()
        its_end.close()  # so that recv fails, and does not wait, if the worker has died
        ends.append(end)
    times: list[list[float]] = [[], []]
    for turn in range(1 + turns):
        for i in (0, 1) if turn % 2 else (1, 0):
            ends[i].send(True)
            times[i].append(ends[i].recv())
    for end, worker in zip(ends, workers, strict=True):
        end.send(False)
        worker.join()
    return statistics.median(times[0][1:]) / statistics.median(times[1][1:])  # the first turn warms up


def main() -> None:
    """Print the ratios."""
    other, turns = Path(sys.argv[1]).resolve(), int(sys.argv[2]) if len(sys.argv) > 2 else 15
    wanted = [case for case in CASES if len(sys.argv) < 4 or sys.argv[3] in str(case)]
    ratios = {}
    for _, group in groupby(wanted, key=lambda case: replace(case, threads=1)):
        cases = list(group)
        data = operands(cases[0])
        for case in cases:
            found = [ratio(other, case, data, turns)]
            if found[0] > MOST:
                found = [ratio(other, case, data, turns) for _ in range(REPEATS)]
            ratios[case] = statistics.median(found)
            print(f"{ratios[case]:.3f}  {case}", *(f"{x:.3f}" for x in found if len(found) > 1), flush=True)
        del data
    found = list(ratios.values())
    beyond = sum(x > MOST for x in found)
    print(f"{len(found)} cases: median {statistics.median(found):.3f}, largest {max(found):.3f}, {beyond} beyond {MOST}")


if __name__ == "__main__":
    main()
