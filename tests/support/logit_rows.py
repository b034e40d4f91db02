"""Logits that are hard on the measures: named generators of pairs (p, q), and what they give for dtype, shape and seed.

As rows.py is for probabilities. A generator returns float64, which is then rounded to a dtype: the matrices stay float64
with that dtype's values, which inputs.encoded brings into the dtype. Knows nothing of the measures' values.
"""

import zlib

import numpy as np

from fastkl.call import BFLOAT16
from support import rows

# How many rows of each width make a batch. The core has 8 to 64 lanes, four entries to a lane in a group, 1024 to a chunk.
WIDTHS = {1: 8, 2: 55, 3: 55, 7: 55, 16: 55, 17: 55, 64: 15, 65: 15, 100: 15, 1000: 1, 1023: 1, 1024: 1, 1025: 1, 3000: 1}
FEW = {1: 1, 2: 5, 7: 5, 17: 5, 64: 1, 65: 1, 1025: 1}  # for the default run
WIDE = {20_000: 1}
WIDEST = {131_072: 1}

# Those whose wide rows say something that narrow ones do not.
WIDE_GENERATORS = ("apart", "shifted", "faint")

DTYPES = {"float64": np.dtype("f8"), "float32": np.dtype("f4"), "float16": np.dtype("f2"), "bfloat16": BFLOAT16}


def rounded(values, dtype):
    """The nearest numbers of the dtype, in float64."""
    if dtype != BFLOAT16:
        return values.astype(dtype).astype(float)
    bits = values.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32).astype(float)


class Draw(rows.Draw):
    """Random parts of logits, for matrices of a shape and a dtype."""

    @property
    def eps(self):
        """The relative spacing of the dtype's numbers."""
        return 2.0**-7 if self.dtype == BFLOAT16 else float(np.finfo(self.dtype).eps)

    @property
    def most(self):
        """Nearly the dtype's largest number."""
        return {8: 1e300, 4: 1e30, 2: 1e30 if self.dtype == BFLOAT16 else 6e4}[self.dtype.itemsize]

    def logits(self):
        """From nearly uniform rows to peaked ones."""
        return self.rng.standard_normal(self.shape) * self.rng.choice([0.01, 1, 4, 20], (self.shape[0], 1))

    def noise(self):
        """Differences: what they make of D goes from 1e-14, or what the dtype can hold, to 1."""
        return self.per_row(max(-7, np.log10(self.eps)), 0) * self.rng.standard_normal(self.shape)

    def some(self):
        """True at none, few, half or nearly all of the places in a row, never at all."""
        return (self.rng.random(self.shape) < self.rng.choice([0.01, 0.5, 0.98], (self.shape[0], 1))) & ~self.one_column()


def apart(draw):
    """Unrelated rows."""
    return draw.logits(), draw.logits()


def far(draw):
    """D up to 1e4 and beyond."""
    return draw.logits() * draw.per_row(-2, 1), draw.logits() * draw.per_row(1, 3)


def close(draw):
    """Small differences everywhere."""
    p = draw.logits()
    return p, p + draw.noise()


def sparse(draw):
    """Differences in one place, or in a few."""
    p = draw.logits()
    return p, p + np.where(draw.one_column() | (draw.rng.random(draw.shape) < 0.05), draw.noise(), 0)


def one_unit(draw):
    """Some entries, or only one, a unit in the last place apart, the others equal."""
    p = rounded(draw.logits(), draw.dtype)
    moved = (draw.rng.random(draw.shape) < draw.rng.choice([0, 0.1, 0.9], (draw.shape[0], 1))) | draw.one_column()
    return p, np.where(moved, p * (1 + draw.eps), p)


def quantised(draw):
    """The same on a grid."""
    p, step = draw.logits(), draw.per_row(-4, 0)
    return p, np.rint(p / step) * step


def shifted(draw):
    """A constant between them, of either sign, and small differences: where the mean must be subtracted exactly."""
    p = draw.logits()
    constant = draw.rng.choice([-1, 1], (draw.shape[0], 1)) * draw.per_row(-2, 4)
    return p, p + constant + np.where(draw.either(), draw.noise(), 0)


def both_shifted(draw):
    """All logits far from zero, where they are coarse, and near or far from each other."""
    p, constant = draw.logits(), draw.rng.choice([-1, 1], (draw.shape[0], 1)) * draw.per_row(1, 4)
    return p + constant, np.where(draw.either(), p + draw.noise(), draw.logits()) + constant


def log_probabilities(draw):
    """Logits whose softmax they are the logarithms of."""
    p = draw.logits()
    q = np.where(draw.either(), p + draw.noise(), draw.logits())
    p, q = (x - x.max(axis=-1, keepdims=True) for x in (p, q))
    p, q = (x - np.log(np.exp(x).sum(axis=-1, keepdims=True)) for x in (p, q))
    return p, q


def peaked(draw):
    """One entry that has nearly all the weight, the same in both or not."""
    p, height = draw.logits().clip(-10, 10), draw.per_row(0.5, 2.5)
    q, top = np.where(draw.either(), p + draw.noise(), draw.logits()), draw.one_column()
    return p + height * top, q + height * np.where(draw.either(0.7), top, draw.one_column())


def flat(draw):
    """Nearly uniform rows around any number."""
    size, centre = draw.per_row(-8, -1), draw.rng.choice([0, 1, -30], (draw.shape[0], 1))
    return size * draw.rng.standard_normal(draw.shape) + centre, size * draw.rng.standard_normal(draw.shape) + centre


def faint(draw):
    """Differences only where the weight is from e^-5 to e^-120."""
    p = draw.logits().clip(-3, 3)
    low = (draw.rng.random(draw.shape) < 0.5) & ~draw.one_column()
    p -= low * draw.per_row(0.7, 2.05)
    return p, p + low * draw.rng.choice([1, 10], (draw.shape[0], 1)) * draw.noise()


def revealed(draw):
    """What is faint in one row has weight in the other: terms of D that neither row shows alone."""
    p, depth = draw.logits().clip(-3, 3), draw.per_row(0.7, 3)
    low = (draw.rng.random(draw.shape) < draw.rng.choice([0.1, 0.5], (draw.shape[0], 1))) & ~draw.one_column()
    q = draw.logits().clip(-3, 3)
    return (p - low * depth, q) if draw.rng.random() < 0.5 else (p, q - low * depth)


def stepped(draw):
    """Logits that rise along the row: every chunk outweighs those before; or fall."""
    slope = draw.rng.choice([-1, 1], (draw.shape[0], 1)) * draw.per_row(0, 3) * np.linspace(0, 1, draw.shape[1])
    p = draw.logits().clip(-5, 5)
    return p + slope, np.where(draw.either(), p + draw.noise(), draw.logits()) + slope


def exchanged(draw):
    """Two entries exchanged, the others equal."""
    p = draw.logits()
    p[:, -1] = p[:, 0] + draw.rng.choice([-1, 1], draw.shape[0]) * 10 ** draw.rng.uniform(-6, 2, draw.shape[0])
    q = p.copy()
    q[:, [0, -1]] = p[:, [-1, 0]]
    return p, q


def masked(draw):
    """-inf in p, or in both; in either, D is mostly infinite. Near, apart or far."""
    p = draw.logits()
    q = np.where(draw.either(), p + draw.noise(), draw.logits())
    q = np.where(draw.either(0.2), q * draw.per_row(0, 3), q)
    gone, kind = draw.some(), draw.rng.integers(4, size=(draw.shape[0], 1))
    stray = (draw.rng.random(draw.shape) < 2 / draw.shape[1]) & (p < p.max(axis=-1, keepdims=True))
    kept = np.argmin(gone, axis=-1)[:, np.newaxis] == np.arange(draw.shape[1])
    return np.where(gone, -np.inf, p), np.where((gone & (kind > 1)) | (stray & ~kept & (kind == 3)), -np.inf, q)


def masked_finitely(draw):
    """Logits of -1e9 for masks, or the least of the dtype, in p, in both, or in either."""
    p, q = close(draw)
    least, kind = max(-1e9, -draw.most), draw.rng.integers(4, size=(draw.shape[0], 1))
    gone = draw.some()
    return np.where(gone & (kind != 1), least, p), np.where(gone & (kind != 0), least, np.where(kind == 3, q[::-1], q))


def huge(draw):
    """Logits as large as the dtype's, of either sign, or all of one."""
    p = draw.rng.choice([-1, 1], draw.shape) * draw.most * draw.rng.choice([1, 0.5, 1e-20], draw.shape)
    q = draw.rng.choice([-1, 1], draw.shape) * draw.most * draw.rng.choice([1, 0.5, 1e-20], draw.shape)
    kind = draw.rng.integers(3, size=(draw.shape[0], 1))
    near = draw.most / 4 + draw.noise()
    return np.where(kind == 2, near, p), np.where(kind == 0, p, np.where(kind == 1, q, near + draw.noise()))


GENERATORS = {
    generator.__name__: generator
    for generator in (
        *(apart, far, close, sparse, one_unit, quantised, shifted, both_shifted, log_probabilities),
        *(peaked, flat, faint, revealed, stepped, exchanged, masked, masked_finitely, huge),
    )
}
QUICK_GENERATORS = [name for name in GENERATORS if name != "huge"]  # whose reference is quick


def make(name, dtype, shape, seed):
    """The rows of the named generator, which depend on the arguments alone."""
    rng = np.random.default_rng([seed, *shape, zlib.crc32(dtype.encode()), zlib.crc32(name.encode())])
    p, q = (rounded(x, DTYPES[dtype]) for x in GENERATORS[name](Draw(rng, shape, DTYPES[dtype])))
    return rows.Rows(p, q, f"logit_rows.make({name!r}, {dtype!r}, {shape}, seed={seed})")


def batches(name, dtype, widths, seed=0):
    """Rows of the named generator, of every width; few and narrow ones, where the reference is slow."""
    for n, count in widths.items():
        if name in QUICK_GENERATORS or n <= 7:
            yield make(name, dtype, (count if name in QUICK_GENERATORS else min(count, 4), n), seed)
