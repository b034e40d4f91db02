"""The memory that calls use besides their operands and their result: the most bytes at any time, for every kind of input.

    python tests/footprint.py        prints a JSON object: name: [NumPy's and Python's bytes, the process's, the result's]

The first number is tracemalloc's. The second is the rise of the process's peak resident size, which includes what C
allocates and what is mapped; only Linux reports it, elsewhere it is 0. A case is called once before it is measured, so that
threads have their stacks and a file's pages are in memory. Of high peaks the least of three counts, because Linux's count
of pages lags by some dozens on each processor. Set MALLOC_MMAP_THRESHOLD_ before the start, so that glibc returns every
large block at once: a later case could use a block that was freed, and its peak would not rise.
"""

from __future__ import annotations

import array
import contextlib
import itertools
import json
import mmap
import sys
import tempfile
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from inputs import BFLOATS, Exporter
from measures import PAIR_MEASURES

import fastkl

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Array = np.ndarray[Any, Any]
    Call = Callable[[], Any]

# 16 MB of doubles: a copy of it, converted or not, is above the limit in any dtype.
ROWS, N = 2048, 1024
DTYPES = [np.dtype(char) for char in "?bBhHiIqQdfe"] + list(dict.fromkeys(BFLOATS))
RAW: dict[str, Any] = {"normalize": True, "threads": 2}


def ones(shape: tuple[int, ...], dtype: np.dtype[Any], order: Any = "C") -> Array:
    """A matrix of ones, of any dtype that a row may have."""
    if dtype not in BFLOATS:
        return np.ones(shape, dtype, order)
    return np.full(shape, 0x3F80, np.dtype(np.uint16).newbyteorder(dtype.byteorder), order).view(dtype)


def layouts(dtype: np.dtype[Any]) -> Iterator[tuple[str, Array]]:
    """The matrix in every order, with every kind of stride and alignment."""
    yield "C order", ones((ROWS, N), dtype)
    yield "Fortran order", ones((ROWS, N), dtype, "F")
    yield "every second column", ones((ROWS, 2 * N), dtype)[:, ::2]
    yield "every second row, backwards", ones((2 * ROWS, N), dtype)[::-2, ::-1]
    yield "misaligned", np.ndarray((ROWS, N), dtype, b"\0" + ones((ROWS, N), dtype).tobytes(), 1)
    if dtype.itemsize > 1 and dtype.kind != "V":
        yield "foreign byte order", ones((ROWS, N), dtype.newbyteorder("S"))
        yield "foreign byte order, Fortran", ones((ROWS, N), dtype.newbyteorder("S"), "F")


def cases() -> Iterator[tuple[str, Call, int]]:
    """Names of cases, their calls, and the bytes that they may return, or must copy of an operand that `out` overlaps."""
    measures = itertools.cycle(PAIR_MEASURES)
    for dtype in DTYPES:
        for name, p in layouts(dtype):
            measure, result = next(measures), ROWS * (4 if dtype in BFLOATS or dtype.char in "fe" else 8)
            name = f"{measure.__name__}, {'bfloat16' if dtype in BFLOATS else dtype} in {name}"
            yield name, lambda measure=measure, p=p: measure(p, p[:1], **RAW), result
            yield f"{name}, axis 0", lambda measure=measure, p=p: measure(p[:, :1], p, axis=0, **RAW), N * 8
    yield from cases_of_out()
    yield from cases_of_containers()
    yield from cases_of_shapes()
    yield from cases_of_logits()


def cases_of_out() -> Iterator[tuple[str, Call, int]]:
    p, q = np.ones((ROWS, N)), np.ones((ROWS, N))
    for char in "d", "f", "e", "g", ">d", ">f", "<d", "<f":
        out = np.empty(ROWS, char)
        yield f"out of dtype {char}", lambda out=out: fastkl.kl_divergence(p, q, out=out, **RAW), out.nbytes
    yield "out strided", lambda: fastkl.kl_divergence(p, q, out=np.empty((ROWS, 3))[::-1, 1], **RAW), ROWS * 24

    def overlapping(out: Array) -> None:
        fastkl.kl_divergence(p, q, out=out, **RAW)
        out[...] = 1

    for name, out in ("p's first rows", p.reshape(-1)[:ROWS]), ("q's column", q[:, 5]):
        yield f"out is {name}", lambda out=out: overlapping(out), ROWS * 8


def cases_of_containers() -> Iterator[tuple[str, Call, int]]:
    p, q = np.ones((ROWS, N)), np.ones(N)
    q.flags.writeable = False
    flat = array.array("d", bytes(8)) * (ROWS * N)
    flat[0] = 1.0
    masked = np.ma.array(p, mask=False)
    yield "memoryview", lambda: fastkl.kl_divergence(memoryview(p), q, **RAW), ROWS * 8
    yield "__array__", lambda: fastkl.kl_divergence(Exporter(p), q, **RAW), ROWS * 8
    yield "array.array", lambda: fastkl.entropy(flat, **RAW), 8
    yield "masked array without a mask", lambda: fastkl.js_divergence(np.ma.array(p, copy=False), q, **RAW), ROWS * 8
    yield "masked array with an empty mask", lambda: fastkl.entropy(masked, **RAW), ROWS * 8
    yield "matrix", lambda: fastkl.js_divergence(p.view(np.matrix), q, **RAW), ROWS * 8
    for dtype in np.dtype("d"), np.dtype(">f4"):
        with tempfile.TemporaryFile() as file:
            file.write(ones((ROWS, N), dtype).tobytes())
            file.flush()
            mapped = np.memmap(file, dtype, "r", shape=(ROWS, N))
        yield f"memmap of {dtype}", lambda mapped=mapped: fastkl.cross_entropy(mapped, q, **RAW), ROWS * 8


def cases_of_shapes() -> Iterator[tuple[str, Call, int]]:
    p, q = np.ones((1500, 1, 4)), np.ones((1000, 4))
    for measure in PAIR_MEASURES:
        name = measure.__name__
        yield f"{name}, both broadcast", lambda measure=measure: measure(p, q, **RAW), 1500 * 1000 * 8
        yield (
            f"{name}, both broadcast, axis 0",
            lambda measure=measure: measure(p.T, q.T[..., None], axis=0, **RAW),
            12 * 10**6,
        )
    same = np.broadcast_to(np.ones(N), (ROWS, N))
    yield "strides of zero", lambda: fastkl.js_divergence(same, same[:, ::-1], **RAW), ROWS * 8
    wide = np.ones(ROWS * N)
    yield "one wide row", lambda: fastkl.js_divergence(wide, wide, **RAW), 8
    yield "one wide row, backwards", lambda: fastkl.kl_divergence(wide[::-1], wide, **RAW), 8
    narrow = wide.reshape(-1, 2)
    yield "many rows", lambda: fastkl.js_divergence(narrow, narrow[::-1], **RAW), ROWS * N // 2 * 8
    short = wide.reshape(-1, 4).astype("f4")
    for char in "e", ">f":
        out = np.empty(len(short), char)
        yield f"many rows, out of dtype {char}", lambda out=out: fastkl.entropy(short, out=out, **RAW), out.nbytes
    yield "eps", lambda: fastkl.kl_divergence(wide, wide, eps=0.5, **RAW), 8

    negative = -narrow
    yield "rows that are invalid", lambda: fastkl.entropy(negative, invalid="nan", **RAW), ROWS * N // 2 * 8
    ends_in_nan = np.append(wide, np.nan)

    def refused() -> None:
        with contextlib.suppress(ValueError):
            fastkl.entropy(ends_in_nan, **RAW)

    yield "a wide row that is refused", refused, 0


def cases_of_logits() -> Iterator[tuple[str, Call, int]]:
    """Rows much wider than any cache, some of them converted, and rows for which the first pass is not accepted."""
    n = 4_000_000
    for dtype in np.dtype("d"), np.dtype("f"), np.dtype("e"), BFLOATS[-1], np.dtype(">f"):
        p, q = (ones((1, n), dtype) for _ in range(2))
        name = "bfloat16" if dtype in BFLOATS else str(dtype)
        for measure in PAIR_MEASURES:
            yield f"{measure.__name__} of logits, {name}", lambda m=measure, p=p, q=q: m(p, q, from_logits=True), 8
        yield f"entropy of logits, {name}", lambda p=p: fastkl.entropy(p, from_logits=True, temperature=2.0), 8
        keywords: dict[str, Any] = {"from_logits": True, "label_smoothing": 0.1}
        yield f"labels, {name}", lambda q=q, keywords=keywords: fastkl.nll([7], q, **keywords), 8
        yield f"compare, {name}", lambda p=p, q=q: fastkl.compare(p, q, [7], from_logits=True), 72
    far = np.zeros((1, n))
    far[0, ::2], far[0, 1] = -1e30, 1e30
    zeros = np.zeros((1, n))
    yield "logits far apart", lambda: fastkl.compare(far, zeros, from_logits=True, temperature=0.5), 72
    halves = np.full((1, n), 0.5)
    mixed: dict[str, Any] = {"from_logits": "p", "normalize": True}
    yield "logits and probabilities", lambda: fastkl.kl_divergence(far, halves, **mixed), 8
    yield "logits and eps", lambda: fastkl.kl_divergence(zeros, far, from_logits=True, eps=1e-9), 8
    many = zeros[:, : n // 4].reshape(-1, 4)
    yield "many rows of logits", lambda: fastkl.kl_divergence(many, many, from_logits=True), len(many) * 8
    labels = np.zeros(len(many), ">i2")
    out = np.empty(len(many), "e")
    yield "many labels", lambda: fastkl.nll(labels, many, from_logits=True, out=out), out.nbytes
    yield "many rows compared", lambda: fastkl.compare(many, many, labels, from_logits=True), len(many) * (9 * 8 + 1)


def once(call: Call) -> tuple[int, int]:
    """The most bytes that Python and NumPy held for the call, and how far the process's peak rose, in bytes."""
    status, reset = Path("/proc/self/status"), Path("/proc/self/clear_refs")

    def field(name: str) -> int:
        lines = status.read_text().splitlines()
        return int(next(line for line in lines if line.startswith(name)).split()[1]) * 1024

    tracemalloc.start()
    before = field("VmRSS") if reset.exists() and reset.write_text("5") else 0
    call()
    risen = field("VmHWM") - before if before else 0
    traced = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return traced, risen


def measured(call: Call) -> tuple[int, int]:
    """The same, repeated up to twice while the rise is large."""
    call()
    traced, risen = once(call)
    for _ in range(2):
        if risen > 500_000:
            risen = min(risen, once(call)[1])
    return traced, risen


def main() -> None:
    """Measure every case, and first two cases whose footprint is known."""
    p = np.ones((ROWS, N))
    zeros = bytes(p.nbytes)
    footprints = {
        "a copy": (*measured(p.copy), 0),
        "a mapping": (*measured(lambda: mmap.mmap(-1, len(zeros)).write(zeros)), 0),
    }
    for name, call, result in cases():
        footprints[name] = (*measured(call), result)
    json.dump(footprints, sys.stdout)


if __name__ == "__main__":
    main()
