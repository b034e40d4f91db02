"""fastkl beside the NumPy expression on one large matrix pair: time, in alternation, and memory beyond the result.

python benchmarks/speed.py [--rows 100000] [--columns 1000] [--threads 2] [--repeats 7]
"""

from __future__ import annotations

import argparse
import statistics
import time
import tracemalloc
from collections.abc import Callable

import numpy as np

import fastkl


def distributions(rows: int, columns: int, dtype: str, seed: int) -> np.ndarray:
    """Random positive rows that sum to 1, made in place: the matrices are large."""
    p = np.random.default_rng(seed).random((rows, columns), dtype)
    p += np.finfo(dtype).eps
    p /= p.sum(1, keepdims=True)
    return p


def seconds(functions: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median time of each function, all in turn, so that a machine whose speed drifts slows all alike."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for turn in range(repeats + 1):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            if turn:  # the first turn warms caches, pages and threads
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def peak(function: Callable[[], np.ndarray]) -> int:
    """Bytes allocated through NumPy and Python during a call, beyond its result."""
    tracemalloc.start()
    result = function()
    size = tracemalloc.get_traced_memory()[1] - result.nbytes
    tracemalloc.stop()
    return size


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in ("rows", 100_000), ("columns", 1000), ("threads", 2), ("repeats", 7):
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args()
    threads = args.threads
    print(f"{args.rows:,} x {args.columns:,}, {threads} threads, median of {args.repeats}; {fastkl.build_info()}")
    print(f"{'':44}{'ms':>8}{'GB/s':>8}{'ratio':>8}  bytes beyond the result")
    for dtype in "float64", "float32":
        p, q = (distributions(args.rows, args.columns, dtype, seed) for seed in (1, 2))
        functions = {
            "(p * np.log(p / q)).sum(1)": lambda p=p, q=q: (p * np.log(p / q)).sum(1),
            "fastkl.kl_divergence(p, q)": lambda p=p, q=q: fastkl.kl_divergence(p, q, threads=threads),
            "fastkl.cross_entropy(p, q)": lambda p=p, q=q: fastkl.cross_entropy(p, q, threads=threads),
            "fastkl.entropy(p)": lambda p=p: fastkl.entropy(p, threads=threads),
        }
        times = seconds(functions, args.repeats)
        numpy_time = next(iter(times.values()))
        for name, function in functions.items():
            size = p.nbytes if "entropy(p)" in name else p.nbytes + q.nbytes
            took = times[name]
            row = f"{dtype} {name:36}{took * 1e3:8.1f}{size / took / 1e9:8.2f}{numpy_time / took:7.1f}x  {peak(function):,}"
            print(row)


if __name__ == "__main__":
    main()
