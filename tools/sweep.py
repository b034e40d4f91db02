"""Calls of every kind on memory that ends where the operands end, under tools that watch memory and threads.

    python tools/sweep.py 1000           calls 0 to 999, on every tier of this machine
    python tools/sweep.py 1000 4         the same by four Python threads at once, which share operands

Each operand has a block of memory of its own, beyond which AddressSanitizer and valgrind report a read. Of the values, only
the shapes are tested here.
"""

import os
import random
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

import fastkl
from fastkl import _kernels
from fastkl.call import BFLOAT16

Array = np.ndarray[Any, Any]

DTYPES = [np.dtype(char) for char in "dfe?bBhHiIqQ"] + [BFLOAT16, np.dtype(">f8"), np.dtype(">f4"), np.dtype(">i4")]
MEASURES = [getattr(fastkl, name) for name in fastkl.measures.__all__ if name not in ("Comparison", "compare", "nll")]
# Near the numbers of lanes, of lanes in groups of four, of entries in a chunk and, rarely, in a piece of a row.
LENGTHS = [*range(1, 36), 63, 64, 65, 100, 127, 129, 255, 257, 513, 1023, 1025, 2049]
WIDE = [65_535, 65_537, 131_073]
ROWS = [1, 2, 3, 4, 5, 7, 8, 9, 15, 17, 31, 33, 64, 67, 513]


def ending(pick: random.Random, rows: int, n: int, dtype: np.dtype[Any]) -> Array:
    """Return rows of numbers in a block without a byte before the first entry or after the last, except for alignment."""
    size, step = dtype.itemsize, pick.choice([1, 1, 1, 2, 3])
    by_column = pick.random() < 0.3
    strides = (size * step, size * step * rows) if by_column else (size * step * n, size * step)
    offset = pick.choice([0, 0, 0, 1, 4])
    block = np.zeros(offset + ((rows * n - 1) * step + 1) * size, np.uint8)
    view = np.ndarray((rows, n), dtype, block.data, offset, strides)
    source = np.random.default_rng(pick.getrandbits(32))
    drawn = source.integers(0, 2 if dtype.kind == "b" else pick.choice([2, 100]), (rows, n))
    drawn[:, pick.randrange(n)] = 1
    view[...] = (0x3F80 * (drawn > 0)).astype(np.uint16).view(BFLOAT16) if dtype == BFLOAT16 else drawn
    return view[:: pick.choice([1, -1]), :: pick.choice([1, -1])]


def call(number: int, threads: int | None) -> None:
    """Make the call of this number."""
    pick = random.Random(number)
    rare = pick.random() < 0.01
    n, rows = (pick.choice(WIDE), pick.choice([1, 2])) if rare else (pick.choice(LENGTHS), pick.choice(ROWS))
    p, q = ending(pick, rows, n, pick.choice(DTYPES)), ending(pick, pick.choice([1, rows]), n, pick.choice(DTYPES))
    keywords: dict[str, Any] = {"threads": threads or pick.choice([1, 2, 3]), "invalid": "nan"}
    kind = pick.choice(["rows", "rows", "rows", "eps", "logits", "labels", "compare", "refused"])
    floats = [x if x.dtype.kind in "fV" else x.astype(pick.choice("dfe")) for x in (p, q)]
    labels = np.array([pick.randrange(n) for _ in range(rows)], pick.choice("bhiq" if n < 128 else "iq"))
    if kind == "labels":
        result = fastkl.nll(labels, floats[0], from_logits=True, label_smoothing=number % 2 / 10, **keywords)
    elif kind == "compare":
        result = fastkl.compare(floats[0], floats[1], labels, from_logits=True, **keywords)[0]
    elif kind == "refused":
        try:
            fastkl.kl_divergence(p, q, threads=keywords["threads"])
        except ValueError:
            return
        result = np.zeros(rows)
    else:
        measure = pick.choice(MEASURES if kind != "eps" else [fastkl.cross_entropy, fastkl.kl_divergence])
        keywords.update({"from_logits": True} if kind == "logits" else {"normalize": True})
        keywords.update({"eps": 1e-9} if kind == "eps" else {})
        operands = floats if kind == "logits" else [p, q]
        out = np.ndarray((rows,), pick.choice("df"), np.zeros(8 * rows + 1, np.uint8).data, pick.choice([0, 1]))
        result = measure(*operands[: 1 if measure is fastkl.entropy else 2], out=out, **keywords)
    assert result.shape == (rows,)


def shared(count: int, python_threads: int) -> None:
    """Make calls from Python threads at once, on the same operands and on their own."""
    source = np.random.default_rng(0)
    (p, q), wide = source.random((2, 300, 700)), source.random((2, 140_000))
    invalid = np.where(source.random((300, 1)) < 0.3, -1, p)
    expected = fastkl.kl_divergence(p, q, normalize=True, threads=1)

    def work(first: int) -> None:
        for number in range(first, first + count):
            call(number, 2)
            if number % 20 == 0:
                result = fastkl.kl_divergence(p, q, normalize=True, threads=3)
                assert (result == expected).all()
                fastkl.kl_divergence(invalid, q, normalize=True, threads=3, invalid="nan")
                fastkl.js_divergence(wide[:1], wide[1:], normalize=True, threads=3)

    with ThreadPoolExecutor(python_threads) as pool:
        for done in [pool.submit(work, count * i // 2) for i in range(python_threads)]:
            done.result()


def main(count: int, python_threads: int = 0) -> None:
    """Make the calls, on every tier or on that of FASTKL_SIMD."""
    tiers = [os.environ["FASTKL_SIMD"]] if "FASTKL_SIMD" in os.environ else _kernels.tiers()
    for tier in tiers:
        _kernels.use_tier(tier)
        if python_threads:
            shared(count, python_threads)
        else:
            for number in range(count):
                call(number, None)
    print(f"{count} calls, {python_threads or 1} Python threads, {', '.join(tiers)}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
