"""The memory that calls use besides their operands and their result: the most bytes at any time, for every kind of input.

    python -m support.footprint 1      prints a JSON object: name: [NumPy's and Python's bytes, the process's, allowed ones]
    python -m support.footprint 11     does so for one in 11 of the cases that take long

The first number is tracemalloc's. The second is the rise of the process's peak resident size, which includes what C
allocates and what is mapped; only Linux reports it, elsewhere it is 0. A case is called once before it is measured, so that
threads have their stacks and a file's pages are in memory. Set MALLOC_MMAP_THRESHOLD_ before the start, so that glibc
returns every large block at once: a later case could use a block that was freed, and its peak would not rise.
"""

import array
import contextlib
import itertools
import json
import mmap
import sys
import tracemalloc
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import fastkl
from support.inputs import BFLOATS, Exporter, mapped
from support.measures import PAIR_MEASURES

Call = Callable[[], Any]

# 16 MB of doubles: a copy of it, converted or not, has 2 MB in any dtype.
ROWS, N = 2048, 1024
# What any call may allocate: Python's objects, of some 10 kB, and what NumPy converts at a time.
LITTLE = 1 << 16
# Linux's count of resident pages lags by up to 32 pages on each processor: here on two, before a call and after it.
LAG = 2 * 2 * 32 * 4096
DTYPES = [np.dtype(char) for char in "?bBhHiIqQdfe"] + list(dict.fromkeys(BFLOATS))
CONVERTED = 2 * 8 * 32_768  # for two blocks of doubles on their way to an `out` of another dtype
RAW = {"normalize": True, "threads": 2}


def ones(shape, dtype, order="C"):
    """A matrix of ones, of any dtype that a row may have."""
    if dtype in BFLOATS:
        return np.full(shape, 0x3F80, np.uint16, order).view(dtype)
    return np.ones(shape, dtype, order)


def layouts(dtype):
    """The matrix in every order, with every kind of stride and alignment."""
    yield "C order", ones((ROWS, N), dtype)
    yield "Fortran order", ones((ROWS, N), dtype, "F")
    yield "every second column", ones((ROWS, 2 * N), dtype)[:, ::2]
    yield "every second row, backwards", ones((2 * ROWS, N), dtype)[::-2, ::-1]
    yield "misaligned", np.ndarray((ROWS, N), dtype, b"\0" + ones((ROWS, N), dtype).tobytes(), 1)
    yield "packed records", np.ones((ROWS, N), [("before", "i1"), ("own", dtype)])["own"]
    if dtype.itemsize > 1 and dtype.kind != "V":
        yield "foreign byte order", ones((ROWS, N), dtype.newbyteorder("S"))
        yield "foreign byte order, Fortran", ones((ROWS, N), dtype.newbyteorder("S"), "F")


def cases():
    """Names of cases, their calls, and the bytes that they may allocate beside LITTLE: of a result, above all."""
    measures = itertools.cycle(PAIR_MEASURES)
    for dtype in DTYPES:
        for name, p in layouts(dtype):
            measure, result = next(measures), ROWS * (4 if dtype in BFLOATS or dtype.char in "fe" else 8)
            name = f"{measure.__name__}, {'bfloat16' if dtype in BFLOATS else dtype} in {name}"
            yield name, partial(measure, p, p[:1], **RAW), result
            yield f"{name}, axis 0", partial(measure, p[:, :1], p, axis=0, **RAW), N * 8
    yield from cases_of_shapes()
    yield from cases_of_logits()


def cases_of_out():
    """Calls that write to an `out`, and one that is refused."""
    p, q = np.ones((ROWS, N)), np.ones((ROWS, N))
    for char in "d", "f", "e", "g", ">d", ">f", "<d", "<f":
        yield f"out of dtype {char}", partial(fastkl.kl_divergence, p, q, out=np.empty(ROWS, char), **RAW), 0
    yield "out strided", partial(fastkl.kl_divergence, p, q, out=np.empty((ROWS, 3))[::-1, 1], **RAW), 0

    def overlapping(out):
        fastkl.kl_divergence(p, q, out=out, **RAW)
        out[...] = 1

    yield "out is p's first rows", partial(overlapping, p.reshape(-1)[:ROWS]), ROWS * 8
    yield "out is q's column", partial(overlapping, q[:, 5]), ROWS * 8
    ends_in_nan = np.append(np.ones(ROWS * N), np.nan)

    def refused():
        with contextlib.suppress(ValueError):
            fastkl.entropy(ends_in_nan, **RAW)

    yield "a wide row that is refused", refused, 3 * 65_536  # masks of the entries that are searched at a time


def cases_of_containers():
    p, q = np.ones((ROWS, N)), np.ones(N)
    q.flags.writeable = False
    flat = array.array("d", bytes(8)) * (ROWS * N)
    flat[0] = 1.0
    yield "memoryview", partial(fastkl.kl_divergence, memoryview(p), q, **RAW), ROWS * 8
    yield "__array__", partial(fastkl.kl_divergence, Exporter(p), q, **RAW), ROWS * 8
    yield "array.array", partial(fastkl.entropy, flat, **RAW), 8
    yield "masked array without a mask", partial(fastkl.js_divergence, np.ma.array(p, copy=False), q, **RAW), ROWS * 8
    yield "masked array with an empty mask", partial(fastkl.entropy, np.ma.array(p, mask=False), **RAW), ROWS * 8
    yield "matrix", partial(fastkl.js_divergence, p.view(np.matrix), q, **RAW), ROWS * 8
    for dtype in np.dtype("d"), np.dtype(">f4"):
        mapping = mapped(ones((ROWS, N), dtype))
        yield f"memmap of {dtype}", partial(fastkl.cross_entropy, mapping, q, **RAW), ROWS * 8


def cases_of_shapes():
    p, q = np.ones((1500, 1, 4)), np.ones((1000, 4))
    for measure in PAIR_MEASURES:
        name = f"{measure.__name__}, both broadcast"
        yield name, partial(measure, p, q, **RAW), 1500 * 1000 * 8
        yield f"{name}, axis 0", partial(measure, p.T, q.T[..., None], axis=0, **RAW), 1500 * 1000 * 8
    same = np.broadcast_to(np.ones(N), (ROWS, N))
    yield "strides of zero", partial(fastkl.js_divergence, same, same[:, ::-1], **RAW), ROWS * 8
    wide = np.ones(ROWS * N)
    yield "one wide row", partial(fastkl.js_divergence, wide, wide, **RAW), 8
    yield "one wide row, backwards", partial(fastkl.kl_divergence, wide[::-1], wide, **RAW), 8
    narrow = wide.reshape(-1, 2)
    yield "many rows", partial(fastkl.js_divergence, narrow, narrow[::-1], **RAW), ROWS * N // 2 * 8
    short = wide.reshape(-1, 4).astype("f4")
    for char in "e", ">f":
        out = np.empty(len(short), char)
        yield f"many rows, out of dtype {char}", partial(fastkl.entropy, short, out=out, **RAW), CONVERTED
    yield "eps", partial(fastkl.kl_divergence, wide, wide, eps=0.5, **RAW), 8
    yield "rows that are invalid", partial(fastkl.entropy, -narrow, invalid="nan", **RAW), ROWS * N // 2 * 8


def cases_of_logits():
    """Rows much wider than any cache, some of them converted, and rows for which the first pass is not accepted."""
    n = 4_000_000
    for dtype in np.dtype("d"), np.dtype("f"), np.dtype("e"), BFLOATS[-1], np.dtype(">f"):
        p, q = (ones((1, n), dtype) for _ in range(2))
        name = "bfloat16" if dtype in BFLOATS else str(dtype)
        for measure in PAIR_MEASURES:
            yield f"{measure.__name__} of logits, {name}", partial(measure, p, q, from_logits=True), 8
        yield f"entropy of logits, {name}", partial(fastkl.entropy, p, from_logits=True, temperature=2.0), 8
        yield f"labels, {name}", partial(fastkl.nll, [7], q, from_logits=True, label_smoothing=0.1), 8
        yield f"compare, {name}", partial(fastkl.compare, p, q, [7], from_logits=True), 72
    far = np.zeros((1, n))
    far[0, ::2], far[0, 1] = -1e30, 1e30
    zeros = np.zeros((1, n))
    yield "logits far apart", partial(fastkl.compare, far, zeros, from_logits=True, temperature=0.5), 72
    halves = np.full((1, n), 0.5)
    yield "logits and probabilities", partial(fastkl.kl_divergence, far, halves, from_logits="p", normalize=True), 8
    yield "logits and eps", partial(fastkl.kl_divergence, zeros, far, from_logits=True, eps=1e-9), 8
    many = zeros[:, : n // 4].reshape(-1, 4)
    yield "many rows of logits", partial(fastkl.kl_divergence, many, many, from_logits=True), len(many) * 8
    labels, out = np.zeros(len(many), ">i2"), np.empty(len(many), "e")
    yield "many labels", partial(fastkl.nll, labels, many, from_logits=True, out=out), CONVERTED
    fields = len(fastkl.Comparison._fields) * 8 + 1  # same_argmax is a double before it is a bool
    yield "many rows compared", partial(fastkl.compare, many, many, labels, from_logits=True), len(many) * fields


def measured(call):
    """The most bytes that Python and NumPy held for the call, and the least that the process's peak rose in three calls."""
    status, reset = Path("/proc/self/status"), Path("/proc/self/clear_refs")

    def field(name):
        lines = status.read_text().splitlines()
        return int(next(line for line in lines if line.startswith(name)).split()[1]) * 1024

    call()
    least = sys.maxsize
    for _ in range(3):
        tracemalloc.start()
        before = field("VmRSS") if reset.exists() and reset.write_text("5") else 0
        call()
        least = min(least, field("VmHWM") - before if before else 0)
        traced = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        if least <= LAG:
            break
    return traced, least


def main(step):
    """Measure two cases whose footprint is known, those that are quick, and one in `step` of the others."""
    p = np.ones((ROWS, N))
    zeros = bytes(p.nbytes)
    footprints = {
        "a copy": (*measured(p.copy), 0),
        "a mapping": (*measured(lambda: mmap.mmap(-1, len(zeros)).write(zeros)), 0),
    }
    others = itertools.islice(cases(), 0, None, step)
    for name, call, allowed in itertools.chain(cases_of_out(), cases_of_containers(), others):
        footprints[name] = (*measured(call), allowed)
    json.dump(footprints, sys.stdout)


if __name__ == "__main__":
    main(int(sys.argv[1]))
