"""Rows that are hard for the measures: named generators of pairs (p, q), which give rows for a dtype, a shape and a seed.

A generator takes a random generator and the shape and dtype of two matrices, and returns these in that dtype or in float64.
Every row has finite non-negative entries and, in the dtype, a positive sum. Knows nothing of the measures' values.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Array = np.ndarray[Any, Any]
    Random = np.random.Generator
    Shape = tuple[int, int]
    Pair = tuple[Array, Array]
    Generator = Callable[[Random, Shape, np.dtype[Any]], Pair]

# The number of rows of each width in a batch. The core has 32 lanes, works on chunks of 256 entries and cuts wide rows into
# pieces of 65536.
WIDTHS = {1: 8, 2: 8, 3: 8, 31: 8, 32: 8, 33: 8, 255: 2, 256: 2, 257: 2, 1000: 1}
WIDE = {65535: 1, 65536: 1, 65537: 1}

GENERATORS: dict[str, Generator] = {}

# The generators whose wide rows test something that narrow ones do not, and whose reference is fast.
WIDE_GENERATORS = ("close", "spread", "lopsided", "zeros", "counts", "proportional")


def _generator(function: Generator) -> Generator:
    GENERATORS[function.__name__] = function
    return function


class Rows(NamedTuple):
    """Two matrices, and the call that makes them."""

    p: Array
    q: Array
    source: str

    def describe(self, i: int) -> str:
        """The text of row i in a message."""
        start = ", ".join(
            f"{name} = [{', '.join(map(str, row[i, :3]))}, ...]" for name, row in zip("pq", self[:2], strict=True)
        )
        return f"row {i} of {self.source}: {start}"


def make(name: str, dtype: str, shape: Shape, seed: int) -> Rows:
    """The rows of the named generator, which depend on the arguments alone."""
    kind = np.dtype(dtype)
    rng = np.random.default_rng([seed, *shape, kind.itemsize, zlib.crc32(name.encode())])
    p, q = GENERATORS[name](rng, shape, kind)
    return Rows(p.astype(kind), q.astype(kind), f"rows.make({name!r}, {dtype!r}, {shape}, seed={seed})")


def batches(name: str, dtype: str, widths: dict[int, int], seed: int = 0) -> Iterator[Rows]:
    """Rows of the named generator, of every width."""
    for n, count in widths.items():
        yield make(name, dtype, (count, n), seed)


# Parts of the generators -------------------------------------------------------------------------------------------------


def _unit(weights: Array, dtype: np.dtype[Any]) -> Array:
    """Rows that sum to 1 before they are rounded to the dtype."""
    return (weights / weights.sum(axis=-1, keepdims=True)).astype(dtype)


def _softmax(rng: Random, shape: Shape) -> Array:
    """Rows between nearly uniform and peaked ones, with a largest entry of 1."""
    logits = rng.standard_normal(shape) * rng.choice([0.1, 1, 3, 8], (shape[0], 1))
    return np.exp(logits - logits.max(axis=-1, keepdims=True))


def _per_row(rng: Random, shape: Shape, low: float, high: float) -> Array:
    """A number for each row, from 10^low to 10^high."""
    return 10 ** rng.uniform(low, high, (shape[0], 1))


def _differences(rng: Random, shape: Shape, dtype: np.dtype[Any]) -> Array:
    """Relative differences between a tenth and a few units in the last place."""
    return _per_row(rng, shape, -6.5 if dtype == np.float32 else -15, -1) * rng.standard_normal(shape).clip(-5, 5)


def _decades(dtype: np.dtype[Any]) -> int:
    """The number of decades above and below 1 in which numbers, their ratios and long sums of them are normal."""
    return 18 if dtype == np.float32 else 150


def _either(rng: Random, shape: Shape, share: float = 0.5) -> Array:
    """True for that share of the rows."""
    return rng.random((shape[0], 1)) < share


def _one_column(rng: Random, shape: Shape) -> Array:
    """True for one entry of each row."""
    return np.arange(shape[1]) == rng.integers(shape[1], size=(shape[0], 1))


# The generators ----------------------------------------------------------------------------------------------------------


@_generator
def apart(rng: Random, shape: Shape, dtype: np.dtype[Any]) -> Pair:
    """Unrelated distributions."""
    return _unit(_softmax(rng, shape), dtype), _unit(_softmax(rng, shape), dtype)


@_generator
def close(rng: Random, shape: Shape, dtype: np.dtype[Any]) -> Pair:
    """Distributions with relative differences down to 1e-15."""
    p = _softmax(rng, shape)
    return _unit(p, dtype), _unit(p * (1 + _differences(rng, shape, dtype)), dtype)


@_generator
def slack(rng: Random, shape: Shape, dtype: np.dtype[Any]) -> Pair:
    """The same, with sums that differ from 1 by up to 0.9 of the tolerance."""
    tolerance = 0.9 * float(np.sqrt(np.finfo(dtype).eps))
    p, q = (x.astype(float) * (1 + tolerance * rng.uniform(-1, 1, (shape[0], 1))) for x in close(rng, shape, dtype))
    return p, q


@_generator
def mismatched(rng: Random, shape: Shape, dtype: np.dtype[Any]) -> Pair:
    """Sums that differ about as much as the entries do, which is where scaling one row becomes necessary."""
    p, differences = _softmax(rng, shape), _differences(rng, shape, dtype)
    size = np.abs(differences).max(axis=-1, keepdims=True)
    return p, p * (1 + differences + size * rng.uniform(-0.9, 0.9, (shape[0], 1)))


@_generator
def one_unit(rng: Random, shape: Shape, dtype: np.dtype[Any]) -> Pair:
    """Some entries, or only one, a unit in the last place apart, the others equal."""
    p = _unit(_softmax(rng, shape), dtype)
    moved = (rng.random(shape) < rng.choice([0, 0.1, 0.9], (shape[0], 1))) | _one_column(rng, shape)
    return p, np.where(moved, np.nextafter(p, rng.choice([0, 2], shape).astype(dtype)), p)


@_generator
def exchanged(rng: Random, shape: Shape, dtype: np.dtype[Any]) -> Pair:
    """Two entries exchanged, the others equal: the sums agree, and D comes from one ratio and its inverse.

    The ratio is near 1, 4/3, 3/2 or 2 times a power of two: between 4/3 and 3/2 the reduction's k changes.
    """
    p = _softmax(rng, shape).astype(dtype)
    nearly = 1 + rng.choice([-1, 0, 1], shape[0]) * 10 ** rng.uniform(-16, -1, shape[0])
    ratio = rng.choice([1, 4 / 3, 3 / 2, 2], shape[0]) * nearly * 2.0 ** rng.integers(-3, 4, shape[0])
    p[:, 0] *= 10 ** rng.uniform(-12, 0, shape[0])
    p[:, -1] = p[:, 0] * ratio
    q = p.copy()
    q[:, [0, -1]] = p[:, [-1, 0]]
    return p, q


@_generator
def switching(rng: Random, shape: Shape, dtype: np.dtype[Any]) -> Pair:
    """Every ratio is near 2/3, 3/4, 4/3 or 3/2 times a power of two, or between two of them."""
    p = _softmax(rng, shape)
    nearly = 1 + rng.choice([-1, 1], shape) * 10 ** rng.uniform(-16, -1, shape)
    return p, p * nearly * rng.choice([2 / 3, 3 / 4, 4 / 3, 3 / 2], shape) * 2.0 ** rng.integers(-2, 3, shape)


@_generator
def balanced(rng: Random, shape: Shape, dtype: np.dtype[Any]) -> Pair:
    """As `switching`, with sums that agree exactly, nearly or up to a factor: cases of the first and the rescaled pass."""
    p, q = switching(rng, shape, dtype)
    p += 0.25 * p.mean(axis=1, keepdims=True)
    off = rng.choice([0, 1e-9, 0.01, 0.1], shape[0]) * rng.standard_normal(shape[0])
    q[:, -1] = np.abs(p.sum(axis=1) - q[:, :-1].sum(axis=1)) * (1 + off)
    return p, q * np.where(rng.random(shape[0]) < 0.5, 1, rng.uniform(0.3, 3, shape[0]))[:, np.newaxis]


@_generator
def ratios(rng: Random, shape: Shape, dtype: np.dtype[Any]) -> Pair:
    """Weights with ratios from 1e-300 to 1e300, or from a smaller range."""
    most = _decades(dtype) * rng.choice([0.1, 0.4, 1], (shape[0], 1))
    return 10 ** (rng.uniform(-1, 1, shape) * most), 10 ** (rng.uniform(-1, 1, shape) * most)


@_generator
def outliers(rng: Random, shape: Shape, dtype: np.dtype[Any]) -> Pair:
    """Distributions with some extremely small entries."""
    most = 2 * _decades(dtype) * rng.choice([0.4, 1], (shape[0], 1))
    p, q = (_softmax(rng, shape) for _ in range(2))
    kept = _one_column(rng, shape)
    for rows in (p, q):
        rows *= np.where((rng.random(shape) < 0.1) & ~kept, 10 ** (rng.uniform(-1, 0, shape) * most), 1)
    return _unit(p, dtype), _unit(q, dtype)


@_generator
def spread(rng: Random, shape: Shape, dtype: np.dtype[Any]) -> Pair:
    """One large equal entry, and small ones that differ: D is far below the rounding errors of the sums."""
    p = _softmax(rng, shape) * _per_row(rng, shape, -10 if dtype == np.float32 else -30, 0)
    q = p * np.where(_either(rng, shape), 1 + _differences(rng, shape, dtype), 2)
    large = _one_column(rng, shape)
    return np.where(large, 1, p), np.where(large, 1, q)


@_generator
def lopsided(rng: Random, shape: Shape, dtype: np.dtype[Any]) -> Pair:
    """Large D, and sums that differ by orders of magnitude."""
    p = _softmax(rng, shape)
    q = _softmax(rng, shape) * np.where(p > 1e-3, _per_row(rng, shape, -16 if dtype == np.float32 else -100, 0), 1)
    return p * _per_row(rng, shape, -8, 8), q


@_generator
def powers(rng: Random, shape: Shape, dtype: np.dtype[Any]) -> Pair:
    """Powers of two, and their neighbours."""
    p, q = (2.0 ** rng.integers(-20, 1, shape).astype(dtype) for _ in range(2))
    return p, np.where(rng.random(shape) < 0.3, np.nextafter(q, rng.choice([0, 2], shape).astype(dtype)), q)


@_generator
def uniform(rng: Random, shape: Shape, dtype: np.dtype[Any]) -> Pair:
    """Uniform rows against themselves with one entry larger by a unit, or against other rows."""
    p = np.full(shape, 1 / shape[1], dtype)
    q = np.where(_one_column(rng, shape), np.nextafter(p, dtype.type(2)), p)
    return p, np.where(_either(rng, shape), q, _unit(_softmax(rng, shape), dtype))


@_generator
def peaked(rng: Random, shape: Shape, dtype: np.dtype[Any]) -> Pair:
    """Nearly one-hot rows, with H near 0."""
    p, q = (_softmax(rng, shape) * _per_row(rng, shape, -20, 0) for _ in range(2))
    q = np.where(_either(rng, shape), p, q) * rng.uniform(0.9, 1.1, shape)
    top = _one_column(rng, shape)
    return np.where(top, 1, p), np.where(top, 1, q)


@_generator
def absorbed(rng: Random, shape: Shape, dtype: np.dtype[Any]) -> Pair:
    """One entry, and others that each lose almost half a unit, in the same direction, when they are added to it."""
    unit = float(np.finfo(dtype).eps)
    p, q = (unit * (rng.integers(0, 3, shape) + rng.uniform(0.4, 0.5, (shape[0], 1))) for _ in range(2))
    top = np.arange(shape[1]) == 0
    return np.where(top, 1, p), np.where(top, 1, q)


@_generator
def absorbed_terms(rng: Random, shape: Shape, dtype: np.dtype[Any]) -> Pair:
    """The same for the terms of D: a large one, and others p log(p/2p) + p that each lose almost half of its unit."""
    a = rng.uniform(0.5, 1, (shape[0], 1))
    large = a * np.log(a / (1 - a)) - (2 * a - 1)
    unit = float(np.finfo(dtype).eps) * 2.0 ** np.floor(np.log2(large))
    p = unit / (1 - np.log(2)) * (rng.integers(0, 3, shape) + rng.uniform(0.4, 0.5, (shape[0], 1)))
    column = np.arange(shape[1])
    return np.choose(np.minimum(column, 2), [a, 1 - a, p]), np.choose(np.minimum(column, 2), [1 - a, a, 2 * p])


@_generator
def one_hot(rng: Random, shape: Shape, dtype: np.dtype[Any]) -> Pair:
    """Labels against themselves, smoothed labels or predictions."""
    p = _one_column(rng, shape).astype(dtype)
    q = np.where(_either(rng, shape), _unit(0.9 * p + 0.1 / shape[1], dtype), _unit(_softmax(rng, shape) + 1e-30, dtype))
    return p, np.where(_either(rng, shape, 0.2), p, q)


@_generator
def ordered(rng: Random, shape: Shape, dtype: np.dtype[Any]) -> Pair:
    """Zipf's law with different powers, largest entries first or last."""
    rank = 1 + np.arange(shape[1], dtype=float)
    p, q = (_unit(rank ** -rng.uniform(0.5, 3, (shape[0], 1)), dtype) for _ in range(2))
    return (p, q) if rng.random() < 0.5 else (p[:, ::-1], q[:, ::-1])


@_generator
def weights(rng: Random, shape: Shape, dtype: np.dtype[Any]) -> Pair:
    """Sums near 1, so that the logarithms of sums and of entries have the same and opposite signs."""
    p, q = (_softmax(rng, shape) for _ in range(2))
    q = np.where(_either(rng, shape, 0.3), p * (1 + _differences(rng, shape, dtype)), q)
    p, q = (rows / rows.sum(axis=-1, keepdims=True) * _per_row(rng, shape, -3, 3) for rows in (p, q))
    return p, q


@_generator
def counts(rng: Random, shape: Shape, dtype: np.dtype[Any]) -> Pair:
    """Counts with different sums, and zeros in p where the counts are small."""
    p = rng.poisson(_softmax(rng, shape) * _per_row(rng, shape, 0, 6)) + _one_column(rng, shape)
    return p, p * rng.integers(1, 100, (shape[0], 1)) + rng.integers(0, 3, shape) + 1


@_generator
def proportional_exactly(rng: Random, shape: Shape, dtype: np.dtype[Any]) -> Pair:
    """Multiples of each other by a power of two or a whole number, with D = 0."""
    p = rng.integers(1, 1 << 12, shape).astype(float)
    power = 2.0 ** rng.integers(-30, 30, (shape[0], 1))
    return p, p * np.where(_either(rng, shape), power, rng.integers(1, 1000, (shape[0], 1)))


@_generator
def proportional(rng: Random, shape: Shape, dtype: np.dtype[Any]) -> Pair:
    """Rounded multiples of each other, with D of the order of eps^2."""
    p = _softmax(rng, shape).astype(dtype).astype(float)
    return p, p * _per_row(rng, shape, -3, 3)


@_generator
def proportional_nearly(rng: Random, shape: Shape, dtype: np.dtype[Any]) -> Pair:
    """Multiples of each other with small relative differences."""
    p, q = (x.astype(float) for x in close(rng, shape, dtype))
    return p, q * _per_row(rng, shape, -3, 3)


@_generator
def neighbouring_fractions(rng: Random, shape: Shape, dtype: np.dtype[Any]) -> Pair:
    """Rows of a and b against c and d with a d - b c = 1, the most nearly proportional rows of whole numbers."""
    bits = int(np.finfo(dtype).nmant)
    p, q = np.ones(shape), np.ones(shape)
    for i in range(shape[0]):
        b = int(rng.integers(1 << (bits - 1), 1 << bits)) | 1
        a = b + 2 ** int(rng.integers(1, bits - 1))
        d = pow(a, -1, b)
        p[i], q[i] = np.resize([a, b], shape[1]), np.resize([(a * d - 1) // b, d], shape[1])
    return p, q


@_generator
def zeros(rng: Random, shape: Shape, dtype: np.dtype[Any]) -> Pair:
    """Zeros in p, in both, or in either; in the last case, D is mostly inf."""
    p, q = (close if rng.random() < 0.5 else apart)(rng, shape, dtype)
    kept = _one_column(rng, shape)
    gone = (rng.random(shape) < rng.choice([0.01, 0.5, 0.99], (shape[0], 1))) & ~kept
    stray = (rng.random(shape) < 0.5 / shape[1]) & ~kept
    kind = rng.integers(3, size=(shape[0], 1))
    p, q = np.where(gone, 0, p), np.where((gone & (kind == 1)) | (stray & (kind == 2)), 0, q)
    return np.where(kept, np.maximum(p, 1e-6), p), np.where(kept, np.maximum(q, 1e-6), q)


@_generator
def subnormal_entries(rng: Random, shape: Shape, dtype: np.dtype[Any]) -> Pair:
    """Distributions with some subnormal entries."""
    least = float(np.finfo(dtype).smallest_subnormal)
    p, q = (_softmax(rng, shape) for _ in range(2))
    kept = _one_column(rng, shape)
    for rows in (p, q):
        np.copyto(rows, rng.integers(1, 1 << 22, shape) * least, where=(rng.random(shape) < 0.2) & ~kept)
    return p, q


@_generator
def subnormal_rows(rng: Random, shape: Shape, dtype: np.dtype[Any]) -> Pair:
    """Rows of subnormal entries, close or apart, against each other or against their multiples."""
    least = float(np.finfo(dtype).smallest_subnormal)
    p, q = (rng.integers(1, 1 << 20, shape) for _ in range(2))
    q = np.where(_either(rng, shape), p + rng.integers(0, 2, shape), q)
    return p * least, q * np.where(_either(rng, shape), least, 1)


@_generator
def next_to_nothing(rng: Random, shape: Shape, dtype: np.dtype[Any]) -> Pair:
    """Equal rows with equal sums, except for entries whose terms of D are smaller than any number of the dtype."""
    p = _softmax(rng, shape).astype(dtype)
    units = np.floor(_per_row(rng, shape, -1, 9)) + rng.integers(0, 2, shape)
    np.copyto(p, units * float(np.finfo(dtype).smallest_subnormal), where=~_one_column(rng, shape), casting="same_kind")
    q = p.copy()
    for row in q:
        small = row < row.max()
        row[small] = row[small][::-1]
    return p, q


@_generator
def tiny(rng: Random, shape: Shape, dtype: np.dtype[Any]) -> Pair:
    """Normal entries that are so small that their differences are subnormal."""
    scale = float(np.finfo(dtype).tiny) * 2.0 ** rng.integers(5, 40, (shape[0], 1))
    p, q = (x.astype(float) * scale for x in close(rng, shape, dtype))
    return p, q


@_generator
def huge(rng: Random, shape: Shape, dtype: np.dtype[Any]) -> Pair:
    """Weights whose sum overflows."""
    p, q = (x.astype(float) for x in (close if rng.random() < 0.5 else apart)(rng, shape, dtype))
    most = float(np.finfo(dtype).max) * rng.uniform(0.5, 0.999, (shape[0], 1))
    return p / p.max(axis=-1, keepdims=True) * most, q / q.max(axis=-1, keepdims=True) * most


@_generator
def unequal_scales(rng: Random, shape: Shape, dtype: np.dtype[Any]) -> Pair:
    """Close or proportional rows, with sums that differ as much as the dtype allows."""
    p, q = (x.astype(float) for x in close(rng, shape, dtype))
    most = _decades(dtype)
    q = np.where(_either(rng, shape), q, p)
    return p * _per_row(rng, shape, -most, most), q * _per_row(rng, shape, -most, most)
