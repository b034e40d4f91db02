"""What a summary adds up: moments, and bins of equal values. Both add without an error, in any order.

Knows nothing of rows, of infinity or of NaN: the values here are finite.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Integers = NDArray[np.int64]

MOST: Final = 1 << 16  # bins
_NEAR: Final = 1 << 19  # keys no further apart than this are counted in an array of their own, sooner than they are sorted
_MAGNITUDE: Final = np.int64(2**63 - 1)  # the bits of a float64 but its sign


class Moments(NamedTuple):
    """The number of values, their sum and the sum of their squares: as fractions, which add without an error."""

    n: int
    total: Fraction
    squares: Fraction

    @classmethod
    def of(cls, values: Floats, size: float) -> Moments:
        """Those of finite values, of which there is at least one; `size` is the largest magnitude.

        Scaled by a power of two, below 1, neither they nor their squares overflow, nor do squares that matter underflow.
        Then they are centred, on their mean but for its rounding. That leaves the sums below small, or, where the values
        differ by roundings only, makes them sums of small integers and exact. The bounds in Summary's docstring are of a
        subtraction, a square, and NumPy's pairwise sum of up to 2^17 numbers: 16 in each of eight lanes, their 3 folds and
        10 levels of halves, 28 roundings in turn.
        """
        exponent = max(math.frexp(size)[1], -1022)
        rest = values * 2.0**-exponent
        mean = float(rest.mean())
        rest -= mean
        centre = Fraction(mean)
        n, total, squares = len(rest), Fraction(float(rest.sum())), Fraction(float((rest * rest).sum()))
        unit = Fraction(2) ** exponent
        return cls(n, (n * centre + total) * unit, (squares + (2 * total + n * centre) * centre) * unit**2)

    def plus(self, other: Moments) -> Moments:
        """Those of both."""
        return Moments(self.n + other.n, self.total + other.total, self.squares + other.squares)

    def mean(self, low: float, high: float) -> float:
        """The mean, which is between the smallest and the largest value also after rounding."""
        return float(min(max(self.total / self.n, Fraction(low)), Fraction(high))) if self.n else math.nan

    def stderr(self) -> float:
        """The standard error of the mean."""
        if self.n < 2:
            return math.nan
        square = max(self.squares - self.total**2 / self.n, Fraction(0)) / (self.n * (self.n - 1))
        # Near 1, where neither the square nor its root can overflow or underflow; the root is no larger than the values.
        exponent = (square.numerator.bit_length() - square.denominator.bit_length()) // 2
        root = math.sqrt(square / Fraction(4) ** exponent)
        return float(np.ldexp(root, exponent))


class Bins(NamedTuple):
    """How often values occur: the values as keys, which are integers of the same order, without their lowest `cut` bits.

    The cut is always the smallest that leaves no more than `MOST` different keys. More values have more keys, and a larger
    cut is made of a smaller one: so it does not matter in which order they come.
    """

    cut: int
    keys: Integers  # ascending
    counts: Integers

    @classmethod
    def of(cls, values: Floats, cut: int) -> Bins:
        """Those of finite values, of which there is at least one. There may be more than `MOST`."""
        keys = _turned(values.view(np.int64)) >> cut
        first = int(keys.min())
        if int(keys.max()) - first < _NEAR:
            counts = np.bincount(keys - first)
            keys = np.flatnonzero(counts)
            return cls(cut, keys + first, counts[keys])
        keys.sort()
        return cls(cut, *_united(keys, np.ones(len(keys), np.int64)))

    def plus(self, other: Bins) -> Bins:
        """Those of both, no more than `MOST`."""
        cut = max(self.cut, other.cut)
        keys = np.concatenate([self.keys >> (cut - self.cut), other.keys >> (cut - other.cut)])
        counts = np.concatenate([self.counts, other.counts])
        order = np.argsort(keys, kind="stable")  # timsort finds the two runs
        keys, counts = _united(keys[order], counts[order])
        if len(keys) > MOST:
            # Neighbours become one key with the highest bit in which they differ. The next bit is cleared if that one is
            # set, so that no rounding makes it another power of two.
            apart = (keys[1:] ^ keys[:-1]).view(np.uint64)
            highest = np.frexp((apart & ~(apart >> np.uint64(1))).astype(np.float64))[1]
            more = int(np.partition(highest, len(highest) - MOST)[len(highest) - MOST])
            cut += more
            keys, counts = _united(keys >> more, counts)
        return Bins(cut, keys, counts)

    def values(self, low: float, high: float, places: Any = slice(None)) -> Floats:
        """The middles of all bins or of some, no further out than the extremes; 0 is that of the bin that holds it."""
        keys = self.keys[places]
        bits = (keys << self.cut) + (1 << self.cut >> 1)
        return np.clip(_turned(np.where(keys == 0, 0, bits)).view(np.float64), low, high)


def _turned(bits: Integers) -> Integers:
    """Bits of floats as integers of the same order, and back.

    A float is a sign and a magnitude; the magnitudes of the negative ones are counted down from -1, so that a bin of
    theirs is the mirror image of a positive one, and in one binade.
    """
    return bits ^ ((bits >> 63) & _MAGNITUDE)


def _united(keys: Integers, counts: Integers) -> tuple[Integers, Integers]:
    """The keys, each once, and its counts added up; of keys in ascending order."""
    starts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]])) if len(keys) else keys
    before = np.concatenate([[0], np.cumsum(counts)])
    return keys[starts], np.diff(before[np.append(starts, len(keys))])
