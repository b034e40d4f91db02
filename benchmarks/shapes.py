"""Speed goals of the shapes that users have: `python benchmarks/shapes.py [LINE ...]`, all lines by default.

Short rows, logits, masks, counts, labels, comparisons and top-k rows, each as a ratio of medians of calls in turn, in one
thread unless a line says otherwise, and out of cache. bars.py has the goals of long rows. Needs 4 GB.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache, partial
from typing import Any

import bars
import numpy as np
import reading
from bars import Result
from cases import COUNTS, DTYPES, MEASURES, Array
from machine import cycles
from measuring import Call, seconds
from peers import PEERS

import fastkl

ENTRIES = 10_000_000
WIDTHS = (2, 5, 10, 20, 50, 129, 200, 300)
JUDGED = (10, 1000, 32_000)
# The least share of the rate at n = 1000, by dtype, in the order of WIDTHS.
SHARES = {
    "float64": (0.30, 0.45, 0.50, 0.50, 0.65, 0.80, 0.80, 0.80),
    "float32": (0.10, 0.25, 0.35, 0.40, 0.60, 0.75, 0.75, 0.75),
}
# How many times as fast as torch, by the width.
TORCH = {
    "kl_divergence": {2: 8, 5: 8, 10: 8, 20: 3, 50: 3, 100: 3},
    "nll": {2: 3, 5: 3, 10: 3, 20: 1.4, 50: 1.7, 100: 1.5},
    "entropy": {2: 4, 5: 4, 10: 4, 20: 2, 50: 2.5, 100: 3},
}


# The names of torch's calls in peers.py.
OF_TORCH = {"kl_divergence": "kl_from_logits", "nll": "labels_from_logits", "entropy": "entropy_from_logits"}


def rows_of(n: int) -> int:
    """Return the number of rows of n columns that are out of cache."""
    return max(8, ENTRIES // n)


@lru_cache(2)
def weights(n: int, dtype: str = "float64", seed: int = 1) -> tuple[Array, Array]:
    """Return positive weights."""
    rng = np.random.default_rng(seed)
    p, q = (rng.random((rows_of(n), n), np.float32).astype(dtype) + np.float32(1e-7) for _ in range(2))
    return p, 3 * q


@lru_cache(2)
def probabilities(n: int, dtype: str = "float64") -> tuple[Array, Array]:
    """Return rows that sum to 1."""
    p, q = weights(n, dtype)
    return p / p.sum(1, keepdims=True), q / q.sum(1, keepdims=True)


@lru_cache(2)
def logits(n: int, dtype: str = "float32", apart: float = 0.25) -> tuple[Array, Array]:
    """Return logits of two models, which differ by some `apart`."""
    rng = np.random.default_rng(1)
    p, noise = (rng.standard_normal((rows_of(n), n), np.float32) for _ in range(2))
    return (4 * p).astype(dtype), (4 * p + apart * noise).astype(dtype)


def masked(n: int, apart: float, both: bool) -> tuple[Array, Array]:
    """Return logits of which a tenth is masked, in q or in both, but never a whole row."""
    p, q = (x.copy() for x in logits(n, "float32", apart))
    mask = np.random.default_rng(2).random(p.shape, np.float32) < 0.1
    mask[:, 0] = False
    q[mask] = -np.inf
    if both:
        p[mask] = -np.inf
    return p, q


def note(took: float, n: int, threads: int = 1) -> str:
    """Return the time of a row and the cycles of an entry."""
    per_entry = cycles(took, rows_of(n) * n, threads)
    return f"{took / rows_of(n) * 1e9:.1f} ns a row" + (f", {per_entry:.2f} cycles an entry" if per_entry else "")


def call(measure: str, *operands: Array, threads: int = 1, **keywords: Any) -> Call:
    """Return a call of a measure."""
    return partial(getattr(fastkl, measure), *operands, threads=threads, **keywords)


def labels_of(matrix: Array) -> Array:
    """Return a label for each row."""
    return np.random.default_rng(3).integers(matrix.shape[1], size=len(matrix))


def only(measure: str, p: Array, q: Array) -> tuple[Array, ...]:
    """Return the operands that the measure has."""
    return (p,) if measure == "entropy" else (labels_of(p), q) if measure == "nll" else (p, q)


def short() -> Iterator[Result]:
    """Compare entries a second of short rows of probabilities with those at n = 1000."""
    for dtype in DTYPES:
        for measure in MEASURES:
            calls = {str(n): call(measure, *only(measure, *probabilities(n, dtype))) for n in (*WIDTHS, 1000)}
            times = seconds(calls)
            for n, goal in zip(WIDTHS, SHARES[dtype], strict=True):
                share = times["1000"] / times[str(n)] * (rows_of(n) * n) / (rows_of(1000) * 1000)
                spent = note(times[str(n)], n)
                yield Result(f"{measure}, {dtype}, n = {n}, of n = 1000", share, goal, note=spent)


def torch() -> Iterator[Result]:
    """Compare float32 logits with torch, one thread each."""
    functions = next(peer for peer in PEERS if peer.name == "torch").functions(1)
    for measure, goals in TORCH.items():
        if OF_TORCH[measure] not in functions:
            raise LookupError("torch is not installed")
        for n, goal in goals.items():
            operands = only(measure, *logits(n))
            ours = call(measure, *operands, from_logits=True)
            times = seconds({"ours": ours, "torch": partial(functions[OF_TORCH[measure]], *operands)})
            spent = note(times["ours"], n)
            yield Result(
                f"{measure} of float32 logits, n = {n}, of torch", times["torch"] / times["ours"], goal, "x", note=spent
            )


def _of_reading(measure: str, dtype: str, n: int, goal: float, threads: int) -> Result:
    operands = only(measure, *logits(n, dtype))
    reader = reading.reader(tuple(x for x in operands if x.ndim == 2), threads)
    if reader is None:
        raise LookupError(reading.PROBLEM)
    times = seconds({"ours": call(measure, *operands, from_logits=True, threads=threads), "reading": reader})
    spent = note(times["ours"], n, threads)
    what = f"{measure} of {dtype} logits, {rows_of(n)} x {n}, {threads} threads, of reading"
    return Result(what, times["reading"] / times["ours"], goal, note=spent)


def logits_of_reading() -> Iterator[Result]:
    """Compare long rows of logits with reading, one and two threads."""
    for n in 1000, 32_000:
        for measure, goal in (("kl_divergence", 0.60), ("nll", 0.60), ("entropy", 0.50)):
            yield _of_reading(measure, "float32", n, goal, 1)
    for n in 1000, 131_072:
        for dtype, goal in (("float32", 0.60), ("float64", 0.55)):
            yield _of_reading("kl_divergence", dtype, n, goal, 2)
        yield _of_reading("nll", "float32", n, 0.65, 2)


def masks() -> Iterator[Result]:
    """Compare masked logits with the same without masks: a tenth masked in q, and in both."""
    for n in 10, 1000, 131_072:
        for measure in "kl_divergence", "cross_entropy", "js_divergence", "compare":
            for apart in 3, 0.001:
                data = {"none": logits(n, "float32", apart), "q": masked(n, apart, False), "both": masked(n, apart, True)}
                times = seconds({name: call(measure, *operands, from_logits=True) for name, operands in data.items()})
                for name, goal in (("q", 1.2), ("both", 1.3)):
                    what = f"{measure} of logits, n = {n}, some {apart} apart, {name} masked, time of no masks"
                    yield Result(what, times[name] / times["none"], goal if apart == 3 else 2, "x", most=True)


KINDS = {
    "probabilities": (probabilities, {}, 2.0, 3.5),
    "logits": (logits, {"from_logits": True}, 2.5, 3.0),
    "rows whose sums differ": (weights, {"normalize": True}, 3.0, None),
}


def js_and_compare() -> Iterator[Result]:
    """Compare the times of JS and of `compare` with that of KL."""
    for n in JUDGED:
        for dtype in DTYPES:
            for kind, (data, keywords, js, compare) in KINDS.items():
                operands = data(n, dtype)
                names = ("kl_divergence", "js_divergence", *(("compare",) if compare else ()))
                times = seconds({name: call(name, *operands, **keywords) for name in names})
                spent = f"KL {note(times['kl_divergence'], n)}"
                for name, goal in (("js_divergence", js), ("compare", compare)):
                    if goal:
                        what = f"{name} of {kind}, {dtype}, n = {n}, time of KL"
                        yield Result(what, times[name] / times["kl_divergence"], goal, "x", True, spent)


def counts() -> Iterator[Result]:
    """Compare counts with float64 probabilities of the same shape."""
    for n in 10, 1000:
        for measure in *MEASURES, "js_divergence":
            floats = only(measure, *probabilities(n))
            integers = [1 + np.floor(98 * x / x.max()) for x in weights(n)]
            calls = {
                name: call(measure, *only(measure, *(x.astype(name) for x in integers)), normalize=True) for name in COUNTS
            }
            times = seconds({"float64": call(measure, *floats)} | calls)
            spent = f"float64 {note(times['float64'], n)}"
            for name in COUNTS:
                what = f"{measure} of {name}, n = {n}, time of float64"
                yield Result(what, times[name] / times["float64"], 1.7, "x", True, spent)


def zeros() -> Iterator[Result]:
    """Compare rows with half of p's entries zero and a tenth of q's with rows without zeros."""
    for n in 10, 1000:
        for dtype in DTYPES:
            p, q = probabilities(n, dtype)
            rng = np.random.default_rng(4)
            gone = rng.random(p.shape, np.float32) < 0.5
            gone[:, 0] = False
            sparse = [x.copy() for x in (p, q)]
            sparse[0][gone] = 0
            sparse[1][gone & (rng.random(p.shape, np.float32) < 0.2)] = 0
            sparse = [x / x.sum(1, keepdims=True) for x in sparse]
            times = seconds({"full": call("kl_divergence", p, q), "sparse": call("kl_divergence", *sparse)})
            yield Result(f"kl_divergence, {dtype}, n = {n}, with zeros, rate without", times["full"] / times["sparse"], 0.9)


def labels() -> Iterator[Result]:
    """Compare the losses of labels of probabilities with H of the same rows."""
    for n in 10, 1000:
        for dtype in DTYPES:
            p, _ = probabilities(n, dtype)
            times = seconds({"nll": call("nll", labels_of(p), p), "h": call("entropy", p)})
            yield Result(f"nll of probabilities, {dtype}, n = {n}, time of H", times["nll"] / times["h"], 1.0, "x", True)


def numpy_topk(indices: Array, values: Array, q: Array, from_logits: bool) -> Array:
    """Return D of top-k rows, as NumPy's functions give it: others are summed in a copy without the k."""
    weights = np.exp(q - q.max(1, keepdims=True)) if from_logits else q
    total = weights.sum(1)
    others = weights.copy()
    np.put_along_axis(others, indices, 0, 1)
    few, rest, tail = np.take_along_axis(weights, indices, 1) / total[:, None], others.sum(1) / total, 1 - values.sum(1)
    return (values * np.log(values / few)).sum(1) + tail * np.log(tail / rest)


def topk() -> Iterator[Result]:
    """Compare D of top-k rows with NumPy, of logits, and with reading q, of probabilities; two threads."""
    rows, n, k = 4000, 32_000, 64
    rng = np.random.default_rng(5)
    logits = 2 * rng.standard_normal((rows, n), np.float32)
    noisy = logits + rng.standard_normal((rows, n), np.float32) / 4
    probabilities = np.exp(logits)
    probabilities /= probabilities.sum(1, keepdims=True)
    indices = np.argpartition(-noisy, k, 1)[:, :k]
    values = np.take_along_axis(probabilities, indices, 1)
    top = fastkl.TopK(indices, values)
    for q, from_logits in (noisy, True), (probabilities, False):
        calls = {
            "ours": partial(fastkl.kl_divergence, top, q, from_logits="q" if from_logits else False, threads=2),
            "NumPy": partial(numpy_topk, indices, values, q, from_logits),
        }
        if reader := reading.reader((q,), 2):
            calls["reading"] = reader
        times = seconds(calls)
        what = f"kl_divergence of a TopK, {rows} x {n}, k = {k}, {'logits' if from_logits else 'probabilities'}"
        yield Result(f"{what}, of NumPy", times["NumPy"] / times["ours"], 8 if from_logits else None, "x")
        if "reading" in times:
            yield Result(f"{what}, of reading", times["reading"] / times["ours"], None if from_logits else 0.7)


LINES: dict[str, bars.Line] = {
    line.__name__: line for line in (short, torch, logits_of_reading, masks, js_and_compare, counts, zeros, labels, topk)
}

if __name__ == "__main__":
    bars.main(LINES, __doc__)
