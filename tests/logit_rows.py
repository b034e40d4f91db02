"""Logits that are hard on the measures: named generators of pairs (p, q), and what they give for dtype, shape and seed.

As rows.py is for probabilities. A generator returns float64, which is then rounded to a dtype: the matrices stay float64
with that dtype's values, until `given` has them as what fastkl is called with. Knows nothing of the measures' values.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from rows import Rows

from fastkl.call import BFLOAT16

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Array = np.ndarray[Any, Any]
    Random = np.random.Generator
    Shape = tuple[int, int]
    Pair = tuple[Array, Array]
    Generator = Callable[[Random, Shape, "Format"], Pair]

# How many rows of each width make a batch. The core has 8 to 64 lanes, four entries to a lane in a group, 1024 to a chunk.
WIDTHS = {1: 8, 2: 55, 3: 55, 7: 55, 16: 55, 17: 55, 100: 15, 1000: 1, 1023: 1, 1024: 1, 1025: 1, 3000: 1}
WIDE = {20_000: 1}
WIDEST = {131_072: 1}

GENERATORS: dict[str, Generator] = {}

# Those whose wide rows say something that narrow ones do not.
WIDE_GENERATORS = ("apart", "shifted", "faint")


class Format(NamedTuple):
    """What the generators want to know of a dtype: its relative spacing, and its largest number, or one near it."""

    name: str
    eps: float
    most: float

    def rounded(self, values: Array) -> Array:
        """The nearest numbers of the dtype."""
        if self.name == "bfloat16":
            bits = values.astype(np.float32).view(np.uint32)
            return ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32).astype(float)
        return values.astype(self.name).astype(float)

    def given(self, values: Array) -> Array:
        """Numbers of the dtype, in it; those of bfloat16 are the upper halves of float32."""
        if self.name == "bfloat16":
            return (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16).view(BFLOAT16)
        return values.astype(self.name)


FORMATS = {
    "float64": Format("float64", 2.0**-52, 1e300),
    "float32": Format("float32", 2.0**-23, 1e30),
    "float16": Format("float16", 2.0**-10, 6e4),
    "bfloat16": Format("bfloat16", 2.0**-7, 1e30),
}


def make(name: str, dtype: str, shape: Shape, seed: int) -> Rows:
    """The rows of the named generator: always the same for the same arguments."""
    form = FORMATS[dtype]
    rng = np.random.default_rng([seed, *shape, zlib.crc32(dtype.encode()), zlib.crc32(name.encode())])
    p, q = map(form.rounded, GENERATORS[name](rng, shape, form))
    return Rows(p, q, f"logit_rows.make({name!r}, {dtype!r}, {shape}, seed={seed})")


def batches(name: str, dtype: str, widths: dict[int, int], seed: int = 0) -> Iterator[Rows]:
    """Rows of the named generator, of every width; few and narrow ones, where the reference is slow."""
    for n, count in widths.items():
        if name not in SLOW_GENERATORS or n <= 7:
            yield make(name, dtype, (count if name not in SLOW_GENERATORS else min(count, 4), n), seed)


def _generator(function: Generator) -> Generator:
    GENERATORS[function.__name__] = function
    return function


# What they are made of ---------------------------------------------------------------------------------------------------


def _logits(rng: Random, shape: Shape) -> Array:
    """From nearly uniform rows to peaked ones."""
    return rng.standard_normal(shape) * rng.choice([0.01, 1, 4, 20], (shape[0], 1))


def _per_row(rng: Random, shape: Shape, low: float, high: float) -> Array:
    """A number for each row, from 10^low to 10^high."""
    return 10 ** rng.uniform(low, high, (shape[0], 1))


def _noise(rng: Random, shape: Shape, form: Format) -> Array:
    """Differences: what they make of D goes from 1e-14, or what the dtype can hold, to 1."""
    return _per_row(rng, shape, max(-7, np.log10(form.eps)), 0) * rng.standard_normal(shape)


def _either(rng: Random, shape: Shape, share: float = 0.5) -> Array:
    """True for that share of the rows."""
    return rng.random((shape[0], 1)) < share


def _one_column(rng: Random, shape: Shape) -> Array:
    """True at one place in each row."""
    return np.arange(shape[1]) == rng.integers(shape[1], size=(shape[0], 1))


def _some(rng: Random, shape: Shape) -> Array:
    """True at none, few, half or nearly all of the places in a row, never at all."""
    return (rng.random(shape) < rng.choice([0.01, 0.5, 0.98], (shape[0], 1))) & ~_one_column(rng, shape)


# The generators ----------------------------------------------------------------------------------------------------------


@_generator
def apart(rng: Random, shape: Shape, form: Format) -> Pair:
    """Unrelated rows."""
    return _logits(rng, shape), _logits(rng, shape)


@_generator
def far(rng: Random, shape: Shape, form: Format) -> Pair:
    """D up to 1e4 and beyond."""
    return _logits(rng, shape) * _per_row(rng, shape, -2, 1), _logits(rng, shape) * _per_row(rng, shape, 1, 3)


@_generator
def close(rng: Random, shape: Shape, form: Format) -> Pair:
    """Small differences everywhere."""
    p = _logits(rng, shape)
    return p, p + _noise(rng, shape, form)


@_generator
def sparse(rng: Random, shape: Shape, form: Format) -> Pair:
    """Differences in one place, or in a few."""
    p = _logits(rng, shape)
    return p, p + np.where(_one_column(rng, shape) | (rng.random(shape) < 0.05), _noise(rng, shape, form), 0)


@_generator
def one_unit(rng: Random, shape: Shape, form: Format) -> Pair:
    """Some entries, or only one, a unit in the last place apart, the others equal."""
    p = form.rounded(_logits(rng, shape))
    moved = (rng.random(shape) < rng.choice([0, 0.1, 0.9], (shape[0], 1))) | _one_column(rng, shape)
    return p, np.where(moved, p * (1 + form.eps), p)


@_generator
def quantised(rng: Random, shape: Shape, form: Format) -> Pair:
    """The same on a grid."""
    p, step = _logits(rng, shape), _per_row(rng, shape, -4, 0)
    return p, np.rint(p / step) * step


@_generator
def shifted(rng: Random, shape: Shape, form: Format) -> Pair:
    """A constant between them, of either sign, and small differences: where the mean must be subtracted exactly."""
    p = _logits(rng, shape)
    constant = rng.choice([-1, 1], (shape[0], 1)) * _per_row(rng, shape, -2, 4)
    return p, p + constant + np.where(_either(rng, shape), _noise(rng, shape, form), 0)


@_generator
def both_shifted(rng: Random, shape: Shape, form: Format) -> Pair:
    """All logits far from zero, where they are coarse, and near or far from each other."""
    p, constant = _logits(rng, shape), rng.choice([-1, 1], (shape[0], 1)) * _per_row(rng, shape, 1, 4)
    return p + constant, np.where(_either(rng, shape), p + _noise(rng, shape, form), _logits(rng, shape)) + constant


@_generator
def log_probabilities(rng: Random, shape: Shape, form: Format) -> Pair:
    """Logits whose softmax they are the logarithms of."""
    p = _logits(rng, shape)
    q = np.where(_either(rng, shape), p + _noise(rng, shape, form), _logits(rng, shape))
    p, q = (x - x.max(axis=-1, keepdims=True) for x in (p, q))
    p, q = (x - np.log(np.exp(x).sum(axis=-1, keepdims=True)) for x in (p, q))
    return p, q


@_generator
def peaked(rng: Random, shape: Shape, form: Format) -> Pair:
    """One entry that has nearly all the weight, the same in both or not."""
    p, height = _logits(rng, shape).clip(-10, 10), _per_row(rng, shape, 0.5, 2.5)
    q, top = np.where(_either(rng, shape), p + _noise(rng, shape, form), _logits(rng, shape)), _one_column(rng, shape)
    return p + height * top, q + height * np.where(_either(rng, shape, 0.7), top, _one_column(rng, shape))


@_generator
def flat(rng: Random, shape: Shape, form: Format) -> Pair:
    """Nearly uniform rows around any number."""
    size, centre = _per_row(rng, shape, -8, -1), rng.choice([0, 1, -30], (shape[0], 1))
    return size * rng.standard_normal(shape) + centre, size * rng.standard_normal(shape) + centre


@_generator
def faint(rng: Random, shape: Shape, form: Format) -> Pair:
    """Differences only where the weight is from e^-5 to e^-120."""
    p = _logits(rng, shape).clip(-3, 3)
    low = (rng.random(shape) < 0.5) & ~_one_column(rng, shape)
    p -= low * _per_row(rng, shape, 0.7, 2.05)
    return p, p + low * rng.choice([1, 10], (shape[0], 1)) * _noise(rng, shape, form)


@_generator
def revealed(rng: Random, shape: Shape, form: Format) -> Pair:
    """What is faint in one row has weight in the other: terms of D that neither row shows alone."""
    p, depth = _logits(rng, shape).clip(-3, 3), _per_row(rng, shape, 0.7, 3)
    low = (rng.random(shape) < rng.choice([0.1, 0.5], (shape[0], 1))) & ~_one_column(rng, shape)
    q = _logits(rng, shape).clip(-3, 3)
    return (p - low * depth, q) if rng.random() < 0.5 else (p, q - low * depth)


@_generator
def stepped(rng: Random, shape: Shape, form: Format) -> Pair:
    """Logits that rise along the row: every chunk outweighs those before; or fall."""
    slope = rng.choice([-1, 1], (shape[0], 1)) * _per_row(rng, shape, 0, 3) * np.linspace(0, 1, shape[1])
    p = _logits(rng, shape).clip(-5, 5)
    return p + slope, np.where(_either(rng, shape), p + _noise(rng, shape, form), _logits(rng, shape)) + slope


@_generator
def exchanged(rng: Random, shape: Shape, form: Format) -> Pair:
    """Two entries exchanged, the others equal."""
    p = _logits(rng, shape)
    p[:, -1] = p[:, 0] + rng.choice([-1, 1], shape[0]) * 10 ** rng.uniform(-6, 2, shape[0])
    q = p.copy()
    q[:, [0, -1]] = p[:, [-1, 0]]
    return p, q


@_generator
def masked(rng: Random, shape: Shape, form: Format) -> Pair:
    """-inf in p, or in both; in either, D is mostly infinite. Near, apart or far."""
    p = _logits(rng, shape)
    q = np.where(_either(rng, shape), p + _noise(rng, shape, form), _logits(rng, shape))
    q = np.where(_either(rng, shape, 0.2), q * _per_row(rng, shape, 0, 3), q)
    gone, kind = _some(rng, shape), rng.integers(4, size=(shape[0], 1))
    stray = (rng.random(shape) < 2 / shape[1]) & (p < p.max(axis=-1, keepdims=True))
    kept = np.argmin(gone, axis=-1)[:, np.newaxis] == np.arange(shape[1])
    return np.where(gone, -np.inf, p), np.where((gone & (kind > 1)) | (stray & ~kept & (kind == 3)), -np.inf, q)


@_generator
def masked_finitely(rng: Random, shape: Shape, form: Format) -> Pair:
    """Logits of -1e9 for masks, or the least of the dtype, in p, in both, or in either."""
    p, q = close(rng, shape, form)
    least, kind = max(-1e9, -form.most), rng.integers(4, size=(shape[0], 1))
    gone = _some(rng, shape)
    return np.where(gone & (kind != 1), least, p), np.where(gone & (kind != 0), least, np.where(kind == 3, q[::-1], q))


@_generator
def huge(rng: Random, shape: Shape, form: Format) -> Pair:
    """Logits as large as the dtype's, of either sign, or all of one."""
    p = rng.choice([-1, 1], shape) * form.most * rng.choice([1, 0.5, 1e-20], shape)
    q = rng.choice([-1, 1], shape) * form.most * rng.choice([1, 0.5, 1e-20], shape)
    kind = rng.integers(3, size=(shape[0], 1))
    near = form.most / 4 + _noise(rng, shape, form)
    return np.where(kind == 2, near, p), np.where(kind == 0, p, np.where(kind == 1, q, near + _noise(rng, shape, form)))


# Those whose reference is slow.
SLOW_GENERATORS = ("huge",)
