"""Moments, sums of products, and counts of equal values in bins. They add up without an error, in any order."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

MOST: Final = 1 << 16  # bins
_NEAR: Final = 1 << 19  # keys no further apart than this are counted in an array, which is faster than sorting them
_MAGNITUDE: Final = np.int64(2**63 - 1)  # the bits of a float64 except its sign


class Moments(NamedTuple):
    """The number of values, their sum and the sum of their squares: as fractions, which add without an error."""

    n: int
    total: Fraction
    squares: Fraction

    @classmethod
    def of(cls, values: Floats, size: float) -> Moments:
        """The moments of finite values, at least one; `size` is the largest magnitude.

        The values are scaled by a power of two to below 1, so that neither they nor their squares overflow, and no square
        that matters underflows. Then their rounded mean is subtracted. The sums below are therefore small, or, where values
        differ by roundings only, sums of small integers and exact. The bounds in Summary's docstring come from a
        subtraction, a square, and NumPy's pairwise sum of up to 2^17 numbers: 16 in each of eight lanes, their 3 folds and
        10 levels of halves, 28 roundings in succession.
        """
        rest, centre, unit = _centred(values, size)
        n, total, squares = len(rest), Fraction(float(rest.sum())), Fraction(float((rest * rest).sum()))
        return cls(n, (n * centre + total) * unit, (squares + (2 * total + n * centre) * centre) * unit**2)

    def plus(self, other: Moments) -> Moments:
        """The moments of both."""
        return Moments(self.n + other.n, self.total + other.total, self.squares + other.squares)

    def mean(self, low: float, high: float) -> float:
        """The mean, rounded, and not outside the smallest and the largest value."""
        return float(min(max(self.total / self.n, Fraction(low)), Fraction(high))) if self.n else math.nan

    @property
    def scatter(self) -> Fraction:
        """The sum of the squares of the values' distances from their mean."""
        return max(self.squares - self.total**2 / self.n, Fraction(0))

    def std(self) -> float:
        """The standard deviation of the sample."""
        return _root(self.scatter / (self.n - 1)) if self.n > 1 else math.nan

    def stderr(self) -> float:
        """The standard error of the mean."""
        return _root(self.scatter / (self.n * (self.n - 1))) if self.n > 1 else math.nan


class Products(NamedTuple):
    """The moments of two values of each row, and the sum of their products."""

    x: Moments
    y: Moments
    products: Fraction

    @classmethod
    def of(cls, x: Floats, y: Floats) -> Products:
        """Those of finite values, of at least one row. The products are summed as the squares of `Moments.of` are."""
        sizes = [float(np.abs(values).max()) for values in (x, y)]
        (a, of_a, unit), (b, of_b, other) = map(_centred, (x, y), sizes)
        sums = [Fraction(float(values.sum())) for values in (a * b, a, b)]
        products = sums[0] + of_a * sums[2] + of_b * sums[1] + len(a) * of_a * of_b
        return cls(Moments.of(x, sizes[0]), Moments.of(y, sizes[1]), products * unit * other)

    def plus(self, other: Products) -> Products:
        """Those of both."""
        return Products(self.x.plus(other.x), self.y.plus(other.y), self.products + other.products)

    def correlation(self) -> float:
        """Pearson's correlation, right to 60 eps; NaN where one of the values is always the same."""
        if self.x.n < 2 or not (scatters := self.x.scatter * self.y.scatter):
            return math.nan
        common = self.products - self.x.total * self.y.total / self.x.n
        return math.copysign(min(1.0, _root(common**2 / scatters)), common)


def _centred(values: Floats, size: float) -> tuple[Floats, Fraction, Fraction]:
    """The values in a unit that makes them smaller than 1, less their rounded mean; that mean; the unit."""
    exponent = max(math.frexp(size)[1], -1022)
    rest = values * 2.0**-exponent
    mean = float(rest.mean())
    rest -= mean
    return rest, Fraction(mean), Fraction(2) ** exponent


def _root(square: Fraction) -> float:
    """The square root. It is taken near 1, where nothing overflows or underflows."""
    exponent = (square.numerator.bit_length() - square.denominator.bit_length()) // 2
    root = math.sqrt(square / Fraction(4) ** exponent)
    return float(np.ldexp(root, exponent))


class Bins(NamedTuple):
    """How often values occur: their keys are integers of the same order, without the lowest `cut` bits.

    The cut is always the smallest that leaves at most `MOST` different keys. More values have more keys, and keys with a
    larger cut follow from those with a smaller one: therefore the order of the values does not matter.
    """

    cut: int
    keys: Integers  # ascending
    counts: Integers

    @classmethod
    def of(cls, values: Floats, cut: int) -> Bins:
        """The bins of finite values, at least one. There may be more than `MOST`."""
        keys = _ordered(values.view(np.int64)) >> cut
        first = int(keys.min())
        if int(keys.max()) - first < _NEAR:
            # NumPy takes and returns np.intp here, which has 32 bits on some machines.
            counts = np.bincount((keys - first).astype(np.intp)).astype(np.int64)
            keys = np.flatnonzero(counts).astype(np.int64)
            return cls(cut, keys + first, counts[keys])
        keys.sort()
        return cls(cut, *_united(keys, np.ones(len(keys), np.int64)))

    def plus(self, other: Bins) -> Bins:
        """The bins of both, at most `MOST`."""
        cut = max(self.cut, other.cut)
        keys = np.concatenate([self.keys >> (cut - self.cut), other.keys >> (cut - other.cut)])
        counts = np.concatenate([self.counts, other.counts])
        order = np.argsort(keys, kind="stable")  # timsort finds the two runs
        keys, counts = _united(keys[order], counts[order])
        if len(keys) > MOST:
            # Two neighbours become one key when the highest bit in which they differ is cut off. The bit below it is
            # cleared, so that no rounding gives another power of two.
            apart = (keys[1:] ^ keys[:-1]).view(np.uint64)
            highest = np.frexp((apart & ~(apart >> np.uint64(1))).astype(np.float64))[1]
            bits = int(np.partition(highest, len(highest) - MOST)[len(highest) - MOST])
            cut += bits
            keys, counts = _united(keys >> bits, counts)
        return Bins(cut, keys, counts)

    def values(self, low: float, high: float, places: Any = slice(None)) -> Floats:
        """The middles of all bins or of some, clipped to the extremes; that of the bin which holds 0 is 0."""
        keys = self.keys[places]
        bits = (keys << self.cut) + (1 << self.cut >> 1)
        return np.clip(_ordered(np.where(keys == 0, 0, bits)).view(np.float64), low, high)


def _ordered(bits: Integers) -> Integers:
    """Bits of floats as integers of the same order, and back.

    The magnitudes of negative floats are counted down from -1, so that a bin of them mirrors a positive bin, in one binade.
    """
    return bits ^ ((bits >> 63) & _MAGNITUDE)


def _united(keys: Integers, counts: Integers) -> tuple[Integers, Integers]:
    """Each of the ascending keys once, with the sum of its counts."""
    starts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]])) if len(keys) else keys
    before = np.concatenate([[0], np.cumsum(counts)])
    return keys[starts], np.diff(before[np.append(starts, len(keys))])
