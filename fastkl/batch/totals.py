"""Moments and sums of products. They add up without an error, in any order."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


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
