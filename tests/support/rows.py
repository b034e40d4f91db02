"""Rows that are hard for the measures: named generators of pairs (p, q), which give rows for a dtype, a shape and a seed.

A generator draws two matrices of a shape and a dtype, and returns these in that dtype or in float64. Every row has finite
non-negative entries and, in the dtype, a positive sum. Knows nothing of the measures' values.
"""

import zlib
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]

# The number of rows of each width in a batch. The core has 32 lanes, works on chunks of 256 entries and cuts wide rows into
# pieces of 65536.
WIDTHS = {1: 8, 2: 8, 3: 8, 4: 8, 5: 8, 32: 8, 33: 8, 128: 2, 129: 2, 193: 9, 255: 2, 256: 2, 257: 2, 321: 9, 1000: 1}
FEW_WIDTHS = {2: 8, 3: 8, 33: 8, 257: 2}
WIDE = [65535, 65536, 65537]

# The generators whose wide rows test something that narrow ones do not, and whose reference is fast.
WIDE_GENERATORS = ("close", "spread", "lopsided", "zeros", "counts", "proportional")


class Rows(NamedTuple):
    """Two matrices, and the call that makes them."""

    p: Array
    q: Array
    source: str


class Draw(NamedTuple):
    """Random parts of rows, for matrices of a shape and a dtype."""

    rng: np.random.Generator
    shape: tuple[int, int]
    dtype: np.dtype[Any]

    def unit(self, weights):
        """Rows that sum to 1 before they are rounded to the dtype."""
        return (weights / weights.sum(axis=-1, keepdims=True)).astype(self.dtype)

    def softmax(self):
        """Rows between nearly uniform and peaked ones, with a largest entry of 1."""
        logits = self.rng.standard_normal(self.shape) * self.rng.choice([0.1, 1, 3, 8], (self.shape[0], 1))
        return np.exp(logits - logits.max(axis=-1, keepdims=True))

    def per_row(self, low, high):
        """A number for each row, from 10^low to 10^high."""
        return 10 ** self.rng.uniform(low, high, (self.shape[0], 1))

    def differences(self):
        """Relative differences between a tenth and a few units in the last place."""
        least = -6.5 if self.dtype == np.float32 else -15
        return self.per_row(least, -1) * self.rng.standard_normal(self.shape).clip(-5, 5)

    def decades(self):
        """The number of decades above and below 1 in which numbers, their ratios and long sums of them are normal."""
        return 18 if self.dtype == np.float32 else 150

    def either(self, share=0.5):
        """True for that share of the rows."""
        return self.rng.random((self.shape[0], 1)) < share

    def one_column(self):
        """True for one entry of each row."""
        return np.arange(self.shape[1]) == self.rng.integers(self.shape[1], size=(self.shape[0], 1))

    def neighbours(self, rows):
        """Numbers a unit in the last place below or above."""
        return np.nextafter(rows, self.rng.choice([0, 2], self.shape).astype(self.dtype))


def apart(draw):
    """Unrelated distributions."""
    return draw.unit(draw.softmax()), draw.unit(draw.softmax())


def close(draw):
    """Distributions with relative differences down to 1e-15."""
    p = draw.softmax()
    return draw.unit(p), draw.unit(p * (1 + draw.differences()))


def slack(draw):
    """The same, with sums that differ from 1 by up to 0.9 of the tolerance."""
    off = [0.9 * float(np.sqrt(np.finfo(draw.dtype).eps)) * draw.rng.uniform(-1, 1, (draw.shape[0], 1)) for _ in "pq"]
    p, q = close(draw)
    return p.astype(float) * (1 + off[0]), q.astype(float) * (1 + off[1])


def mismatched(draw):
    """Sums that differ about as much as the entries do, which is where scaling one row becomes necessary."""
    p, differences = draw.softmax(), draw.differences()
    size = np.abs(differences).max(axis=-1, keepdims=True)
    return p, p * (1 + differences + size * draw.rng.uniform(-0.9, 0.9, (draw.shape[0], 1)))


def one_unit(draw):
    """Some entries, or only one, a unit in the last place apart, the others equal."""
    p = draw.unit(draw.softmax())
    moved = (draw.rng.random(draw.shape) < draw.rng.choice([0, 0.1, 0.9], (draw.shape[0], 1))) | draw.one_column()
    return p, np.where(moved, draw.neighbours(p), p)


def exchanged(draw):
    """Two entries exchanged, the others equal: the sums agree, and D comes from one ratio and its inverse.

    The ratio is near 1, 4/3, 3/2 or 2 times a power of two: between 4/3 and 3/2 the reduction's k changes.
    """
    p, rng, rows = draw.softmax().astype(draw.dtype), draw.rng, draw.shape[0]
    nearly = 1 + rng.choice([-1, 0, 1], rows) * 10 ** rng.uniform(-16, -1, rows)
    p[:, 0] *= 10 ** rng.uniform(-12, 0, rows)
    p[:, -1] = p[:, 0] * rng.choice([1, 4 / 3, 3 / 2, 2], rows) * nearly * 2.0 ** rng.integers(-3, 4, rows)
    q = p.copy()
    q[:, [0, -1]] = p[:, [-1, 0]]
    return p, q


def switching(draw):
    """Every ratio is near 2/3, 3/4, 4/3 or 3/2 times a power of two, or between two of them."""
    p, rng, shape = draw.softmax(), draw.rng, draw.shape
    nearly = 1 + rng.choice([-1, 1], shape) * 10 ** rng.uniform(-16, -1, shape)
    return p, p * nearly * rng.choice([2 / 3, 3 / 4, 4 / 3, 3 / 2], shape) * 2.0 ** rng.integers(-2, 3, shape)


def balanced(draw):
    """As `switching`, with sums that agree exactly, nearly or up to a factor: cases of the first and the rescaled pass."""
    p, q = switching(draw)
    rng, rows = draw.rng, draw.shape[0]
    p += 0.25 * p.mean(axis=1, keepdims=True)
    off = rng.choice([0, 1e-9, 0.01, 0.1], rows) * rng.standard_normal(rows)
    q[:, -1] = np.abs(p.sum(axis=1) - q[:, :-1].sum(axis=1)) * (1 + off)
    return p, q * np.where(rng.random(rows) < 0.5, 1, rng.uniform(0.3, 3, rows))[:, np.newaxis]


def ratios(draw):
    """Weights with ratios from 1e-300 to 1e300, or from a smaller range."""
    most = draw.decades() * draw.rng.choice([0.1, 0.4, 1], (draw.shape[0], 1))
    return 10 ** (draw.rng.uniform(-1, 1, draw.shape) * most), 10 ** (draw.rng.uniform(-1, 1, draw.shape) * most)


def outliers(draw):
    """Distributions with some extremely small entries."""
    most = 2 * draw.decades() * draw.rng.choice([0.4, 1], (draw.shape[0], 1))
    p, q, kept = draw.softmax(), draw.softmax(), draw.one_column()
    for rows in p, q:
        small = (draw.rng.random(draw.shape) < 0.1) & ~kept
        rows *= np.where(small, 10 ** (draw.rng.uniform(-1, 0, draw.shape) * most), 1)
    return draw.unit(p), draw.unit(q)


def spread(draw):
    """One large equal entry, and small ones that differ: D is far below the rounding errors of the sums."""
    p = draw.softmax() * draw.per_row(-10 if draw.dtype == np.float32 else -30, 0)
    q = p * np.where(draw.either(), 1 + draw.differences(), 2)
    large = draw.one_column()
    return np.where(large, 1, p), np.where(large, 1, q)


def lopsided(draw):
    """Large D, and sums that differ by orders of magnitude."""
    p, least = draw.softmax(), -16 if draw.dtype == np.float32 else -100
    return p * draw.per_row(-8, 8), draw.softmax() * np.where(p > 1e-3, draw.per_row(least, 0), 1)


def powers(draw):
    """Powers of two, and their neighbours."""
    p, q = (2.0 ** draw.rng.integers(-20, 1, draw.shape).astype(draw.dtype) for _ in range(2))
    return p, np.where(draw.rng.random(draw.shape) < 0.3, draw.neighbours(q), q)


def peaked(draw):
    """Nearly one-hot rows, with H near 0."""
    p, q = (draw.softmax() * draw.per_row(-20, 0) for _ in range(2))
    q = np.where(draw.either(), p, q) * draw.rng.uniform(0.9, 1.1, draw.shape)
    top = draw.one_column()
    return np.where(top, 1, p), np.where(top, 1, q)


def _almost_half_units(draw, unit):
    """Numbers that each lose almost half a unit, in the same direction, when they are added to one with that unit."""
    return unit * (draw.rng.integers(0, 3, draw.shape) + draw.rng.uniform(0.4, 0.5, (draw.shape[0], 1)))


def absorbed(draw):
    """One entry, and others that lose almost half a unit of it each when they are added to it."""
    p, q = (_almost_half_units(draw, float(np.finfo(draw.dtype).eps)) for _ in range(2))
    top = np.arange(draw.shape[1]) == 0
    return np.where(top, 1, p), np.where(top, 1, q)


def absorbed_terms(draw):
    """The same for the terms of D: a large one, and others p log(p/2p) + p."""
    a = draw.rng.uniform(0.5, 1, (draw.shape[0], 1))
    large = a * np.log(a / (1 - a)) - (2 * a - 1)
    unit = float(np.finfo(draw.dtype).eps) * 2.0 ** np.floor(np.log2(large))
    p, column = _almost_half_units(draw, unit / (1 - np.log(2))), np.minimum(np.arange(draw.shape[1]), 2)
    return np.choose(column, [a, 1 - a, p]), np.choose(column, [1 - a, a, 2 * p])


def one_hot(draw):
    """Labels against themselves, smoothed labels or predictions."""
    p = draw.one_column().astype(draw.dtype)
    q = np.where(draw.either(), draw.unit(0.9 * p + 0.1 / draw.shape[1]), draw.unit(draw.softmax() + 1e-30))
    return p, np.where(draw.either(0.2), p, q)


def ordered(draw):
    """Zipf's law with different powers, largest entries first or last."""
    rank = 1 + np.arange(draw.shape[1], dtype=float)
    p, q = (draw.unit(rank ** -draw.rng.uniform(0.5, 3, (draw.shape[0], 1))) for _ in range(2))
    return (p, q) if draw.rng.random() < 0.5 else (p[:, ::-1], q[:, ::-1])


def weights(draw):
    """Sums near 1, so that the logarithms of sums and of entries have the same and opposite signs."""
    p, q = draw.softmax(), draw.softmax()
    q = np.where(draw.either(0.3), p * (1 + draw.differences()), q)
    p, q = (rows / rows.sum(axis=-1, keepdims=True) * draw.per_row(-3, 3) for rows in (p, q))
    return p, q


def counts(draw):
    """Counts with different sums, and zeros in p where the counts are small."""
    p = draw.rng.poisson(draw.softmax() * draw.per_row(0, 6)) + draw.one_column()
    return p, p * draw.rng.integers(1, 100, (draw.shape[0], 1)) + draw.rng.integers(0, 3, draw.shape) + 1


def proportional_exactly(draw):
    """Multiples of each other by a power of two or a whole number, with D = 0."""
    p = draw.rng.integers(1, 1 << 12, draw.shape).astype(float)
    power = 2.0 ** draw.rng.integers(-30, 30, (draw.shape[0], 1))
    return p, p * np.where(draw.either(), power, draw.rng.integers(1, 1000, (draw.shape[0], 1)))


def proportional(draw):
    """Rounded multiples of each other, with D of the order of eps^2."""
    p = draw.softmax().astype(draw.dtype).astype(float)
    return p, p * draw.per_row(-3, 3)


def neighbouring_fractions(draw):
    """Rows of a and b against c and d with a d - b c = 1, the most nearly proportional rows of whole numbers."""
    bits = int(np.finfo(draw.dtype).nmant)
    p, q = np.ones(draw.shape), np.ones(draw.shape)
    for p_row, q_row in zip(p, q, strict=True):
        b = int(draw.rng.integers(1 << (bits - 1), 1 << bits)) | 1
        a = b + 2 ** int(draw.rng.integers(1, bits - 1))
        d = pow(a, -1, b)
        p_row[:], q_row[:] = np.resize([a, b], len(p_row)), np.resize([(a * d - 1) // b, d], len(p_row))
    return p, q


def zeros(draw):
    """Zeros in p, in both, or in either; in the last case, D is mostly inf."""
    rng, shape = draw.rng, draw.shape
    p, q = (close if rng.random() < 0.5 else apart)(draw)
    kept = draw.one_column()
    gone = (rng.random(shape) < rng.choice([0.01, 0.5, 0.99], (shape[0], 1))) & ~kept
    stray = (rng.random(shape) < 0.5 / shape[1]) & ~kept
    kind = rng.integers(3, size=(shape[0], 1))
    p, q = np.where(gone, 0, p), np.where((gone & (kind == 1)) | (stray & (kind == 2)), 0, q)
    return np.where(kept, np.maximum(p, 1e-6), p), np.where(kept, np.maximum(q, 1e-6), q)


def subnormal_entries(draw):
    """Distributions with some subnormal entries."""
    least = float(np.finfo(draw.dtype).smallest_subnormal)
    p, q, kept = draw.softmax(), draw.softmax(), draw.one_column()
    for rows in p, q:
        small = (draw.rng.random(draw.shape) < 0.2) & ~kept
        np.copyto(rows, draw.rng.integers(1, 1 << 22, draw.shape) * least, where=small)
    return p, q


def subnormal_rows(draw):
    """Rows of subnormal entries, close or apart, against each other or against their multiples."""
    least = float(np.finfo(draw.dtype).smallest_subnormal)
    p, q = (draw.rng.integers(1, 1 << 20, draw.shape) for _ in range(2))
    q = np.where(draw.either(), p + draw.rng.integers(0, 2, draw.shape), q)
    return p * least, q * np.where(draw.either(), least, 1)


def next_to_nothing(draw):
    """Equal rows with equal sums, except for entries whose terms of D are smaller than any number of the dtype."""
    p = draw.softmax().astype(draw.dtype)
    small = np.floor(draw.per_row(-1, 9)) + draw.rng.integers(0, 2, draw.shape)
    small *= float(np.finfo(draw.dtype).smallest_subnormal)
    np.copyto(p, small, where=~draw.one_column(), casting="same_kind")
    q = p.copy()
    for row in q:
        row[row < row.max()] = row[row < row.max()][::-1]
    return p, q


def tiny(draw):
    """Normal entries that are so small that their differences are subnormal."""
    scale = float(np.finfo(draw.dtype).tiny) * 2.0 ** draw.rng.integers(5, 40, (draw.shape[0], 1))
    p, q = close(draw)
    return p.astype(float) * scale, q.astype(float) * scale


def huge(draw):
    """Weights whose sum overflows."""
    p, q = (x.astype(float) / x.max(axis=-1, keepdims=True) for x in (close if draw.rng.random() < 0.5 else apart)(draw))
    most = float(np.finfo(draw.dtype).max) * draw.rng.uniform(0.5, 0.999, (draw.shape[0], 1))
    return p * most, q * most


def unequal_scales(draw):
    """Close or proportional rows, with sums that differ as much as the dtype allows."""
    p, q = (x.astype(float) for x in close(draw))
    scales = [draw.per_row(-draw.decades(), draw.decades()) for _ in "pq"]
    return p * scales[0], np.where(draw.either(), q, p) * scales[1]


GENERATORS = {
    generator.__name__: generator
    for generator in (
        *(apart, close, slack, mismatched, one_unit, exchanged, switching, balanced, ratios, outliers, spread, lopsided),
        *(powers, peaked, absorbed, absorbed_terms, one_hot, ordered, weights, counts, proportional_exactly),
        *(proportional, neighbouring_fractions, zeros, subnormal_entries, subnormal_rows),
        *(next_to_nothing, tiny, huge, unequal_scales),
    )
}


def make(name, dtype, shape, seed):
    """The rows of the named generator, which depend on the arguments alone."""
    kind = np.dtype(dtype)
    rng = np.random.default_rng([seed, *shape, kind.itemsize, zlib.crc32(name.encode())])
    p, q = GENERATORS[name](Draw(rng, shape, kind))
    return Rows(p.astype(kind), q.astype(kind), f"rows.make({name!r}, {dtype!r}, {shape}, seed={seed})")


def batches(name, dtype, widths, seed=0):
    """Rows of the named generator, of every width."""
    for n, count in widths.items():
        yield make(name, dtype, (count, n), seed)
