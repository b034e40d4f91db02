"""Counts of equal values in bins, which add up without an error in any order, and the quantiles that follow from them."""

from __future__ import annotations

import math
from typing import Any, Final, NamedTuple

import numpy as np

from .totals import Floats, Integers

MOST: Final = 1 << 16  # bins
_NEAR: Final = 1 << 19  # keys no further apart than this are counted in an array, which is faster than sorting them
_MAGNITUDE: Final = np.int64(2**63 - 1)  # the bits of a float64 except its sign


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

    def quantile(self, level: float, low: float, high: float) -> float:
        """Interpolated between the values of two ranks as `np.quantile` does, but without overflow; NaN without values.

        As for `values`, `low` and `high` are the extremes.
        """
        ends = np.cumsum(self.counts)
        if not len(ends):
            return math.nan
        last = int(ends[-1]) - 1
        rank = level * last
        below = math.floor(rank)
        share = rank - below
        places = np.searchsorted(ends, [below, min(below + 1, last)], side="right")
        a, b = self.values(low, high, places).tolist()
        return float(min(max((1 - share) * a + share * b, a), b))

    def mean_of_largest(self, one_of: int, low: float, high: float) -> float:
        """The mean of the largest values, one of so many, rounded up; NaN without values."""
        if not len(self.counts):
            return math.nan
        most = -(-int(self.counts.sum()) // one_of)
        counts = self.counts[::-1]
        taken = np.clip(most - (np.cumsum(counts) - counts), 0, counts)
        places = np.flatnonzero(taken)
        values = self.values(low, high)[::-1][places]  # descending
        exponent = math.frexp(max(abs(values[0]), abs(values[-1])))[1]  # so that no product overflows
        mean = math.fsum((np.ldexp(values, -exponent) * taken[places]).tolist()) / most
        return float(min(max(np.ldexp(mean, exponent), values[-1]), values[0]))


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
