"""Calls with one thread beside four busy Python threads: `python benchmarks/busy_threads.py [TRIES [SECONDS]]`.

TRIES is 20 and SECONDS, the time of one call alone, is 2 by default. Calls alone and beside the threads are made in turn.
Prints both medians and their ratio, and exits with 1 if the ratio is larger than 1.5, the limit for two processors. The
busy threads compete for these, and for the GIL, which a call takes to poll signals.
"""

from __future__ import annotations

import statistics
import sys
import time
from contextlib import contextmanager
from threading import Event, Thread
from typing import TYPE_CHECKING

import numpy as np

import fastkl

if TYPE_CHECKING:
    from collections.abc import Iterator

THREADS = 4
MOST = 1.5
COLUMNS = 1000


@contextmanager
def busy_threads() -> Iterator[None]:
    """Run threads that execute Python bytecode without a pause."""
    stop = Event()

    def spin() -> None:
        while not stop.is_set():
            pass

    threads = [Thread(target=spin) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def seconds(rows: int) -> float:
    """Return the time of one call with one thread on so many rows, which are one row in memory."""
    p, q = (np.broadcast_to(x, (rows, COLUMNS)) for x in np.random.default_rng(0).random((2, COLUMNS)))
    start = time.perf_counter()
    fastkl.kl_divergence(p, q, normalize=True, threads=1)
    return time.perf_counter() - start


def main() -> int:
    """Print both medians and their ratio; return 1 if it is too large."""
    tries = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    wanted = float(sys.argv[2]) if len(sys.argv) > 2 else 2.0
    seconds(10_000)  # warms up
    rows = round(wanted / seconds(10_000) * 10_000)
    alone, beside = [], []
    for _ in range(tries):
        alone.append(seconds(rows))
        with busy_threads():
            beside.append(seconds(rows))
    first, second = statistics.median(alone), statistics.median(beside)
    times = f"{first:.3f} s alone, {second:.3f} s beside {THREADS} busy threads"
    print(f"{rows} x {COLUMNS}: {times}, ratio {second / first:.2f}")
    return int(second / first > MOST)


if __name__ == "__main__":
    sys.exit(main())
