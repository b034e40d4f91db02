"""What is said of a stream of values: moments, quantiles, extremes, a histogram, and the rows worth a look.

Knows nothing of files, of measures, or of how the values came to be. Takes any number of values in bounded memory.
"""

from __future__ import annotations

import math
import operator
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Final, NamedTuple, SupportsIndex

import numpy as np

from .totals import Bins, Moments

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]
    Integers = NDArray[np.int64]

QUANTILES: Final = ("0.01", "0.05", "0.25", "0.5", "0.75", "0.95", "0.99")
NAMED: Final = 10  # rows: the worst, the first infinite, the first invalid

_BLOCK: Final = 1 << 17  # values counted together: their temporaries stay in the second cache or near it
_WIDE: Final = 100  # values are spread over a logarithmic axis when the largest is more times the smallest
_quiet: Final = np.errstate(all="ignore")  # NaN, infinity and the ends of the floats are nothing to warn of


class Histogram(NamedTuple):
    """Finite values, counted between edges.

    A bin holds its lower edge, the last one its upper edge, too. One value, however often, makes one bin between two equal
    edges; no value at all makes no edges. The counts and `zeros` add up to the number of finite values.
    """

    edges: Floats
    counts: Integers
    logarithmic: bool  # the edges' ratios are equal, not their differences
    zeros: int  # values of 0, when they are in no bin, as the edges are logarithmic


class Summary:
    """Mean, quantiles, extremes and the rows worth a look, of values that come in blocks.

    A block of any size at a time goes in with `update`; summaries of parts are put together with `merge`, in any order.
    However many the values, a summary takes 2 MB at most, and 1 MB when it is pickled.

    Notes
    -----
    With ε = 2.2e-16, and the values counted in groups of 131,072 or fewer, in the order in which they came:

    - **mean**: at most ε |mean| + 16 ε D from the exact value, D being the values' mean distance from the mean of their
      group. For values that are not negative, D is at most twice the mean. A group is centred before it is summed; sums of
      groups are added as fractions, without an error. So the order of merges changes nothing, but how the values were
      grouped may change the last digits.
    - **stderr**: at most 18 ε stderr from the exact value.
    - **quantiles**: those of `np.quantile`, exact but for the rounding of the interpolation, of up to 65,536 different
      values. Of more, values are counted in as many bins: floats without their lowest bits, and once more bins are needed,
      one more bit is left out. A quantile is interpolated between the middles of the bins that hold the two values of the
      ranks next to it. With k bits left out, these are right to a relative 2^(k - 53), and that is less than B / 65,536 for
      values in B binades (from a power of two to the next; each sign has its own). Values below 2.3e-308 are right to
      2^(k - 1074). 0 stays 0.
    - **all else** is exact. That, and the quantiles, depend on the values and their rows alone: the order of updates and
      merges changes nothing.

    To let the bins of a quantile sketch collapse evenly, and as often as memory asks for it, is the idea of UDDSketch
    (I. Epicoco et al., IEEE Access 8, 2020). Its bins are logarithmic. Bits that are cut off need no logarithm, and keep
    small data exact.

    Examples
    --------
    >>> import fastkl
    >>> summary = fastkl.Summary()
    >>> summary.update([0.5, 0.25, float("inf")])
    >>> summary.update([float("nan"), 1.5])
    >>> result = summary.result()
    >>> result["rows"], result["mean"], result["max"], result["max_row"]
    (5, 0.75, inf, 2)
    >>> result["quantiles"]["0.5"], result["first_invalid_rows"]
    (0.5, [3])
    >>> result["worst"][1]
    {'row': 4, 'value': 1.5}

    Parts of a whole, say from several workers, give the rows that they had:

    >>> other = fastkl.Summary()
    >>> other.update([2.0, 0.0], first_row=1000)
    >>> summary.merge(other)
    >>> result = summary.result()
    >>> result["rows"], result["mean"], result["worst"][1]
    (7, 0.85, {'row': 1000, 'value': 2.0})
    """

    def __init__(self) -> None:
        self._rows = 0
        self._next_row = 0
        self._infinite = 0
        self._invalid = 0
        self._infinite_rows: list[int] = []
        self._invalid_rows: list[int] = []
        self._worst: list[tuple[float, int]] = []  # values and rows, the worst first
        self._least = math.nan  # of all values but NaN
        self._low, self._high = math.inf, -math.inf  # of the finite values
        self._moments = Moments(0, Fraction(0), Fraction(0))
        self._bins = Bins(0, np.empty(0, np.int64), np.empty(0, np.int64))
        self._make_room()

    def _make_room(self) -> None:
        """Have an empty place for values that are yet to be counted, of rows that follow each other."""
        self._waiting = np.empty(_BLOCK)
        self._waits = self._first_waiting = 0

    @_quiet
    def update(self, values: ArrayLike, first_row: SupportsIndex | None = None) -> None:
        """Take in the values of rows that follow each other.

        Parameters
        ----------
        values : array_like
            Of a float dtype, bool or an integer dtype; any shape, read in C order. They are counted as float64. NaN is an
            invalid row, inf or -inf an infinite one.
        first_row : int, optional
            The number of the first value's row, not negative. None goes on after the highest row seen so far, from 0.

        Raises
        ------
        TypeError
            For another dtype, or masked entries.
        ValueError
            For a negative `first_row`.
        """
        if isinstance(values, np.ma.MaskedArray) and np.ma.is_masked(values):
            raise TypeError("values has masked entries, which have no value; fill them, with NaN for an invalid row")
        array = np.asarray(values)
        if not np.can_cast(array.dtype, np.float64, "same_kind"):
            raise TypeError(f"values has dtype {array.dtype}; a float, integer or bool dtype is wanted")
        row = self._next_row if first_row is None else operator.index(first_row)
        if row < 0:
            raise ValueError(f"first_row={row}: the number of a row is wanted, 0 or more")
        array = array.reshape(-1)
        if not array.size:
            return
        if row != self._first_waiting + self._waits:
            self._count()
            self._first_waiting = row
        while array.size:
            taken = array[: _BLOCK - self._waits]
            self._waiting[self._waits : self._waits + taken.size] = taken
            self._waits += taken.size
            array = array[taken.size :]
            if self._waits == _BLOCK:
                self._count()
        self._next_row = max(self._next_row, self._first_waiting + self._waits)

    @_quiet
    def merge(self, other: Summary) -> None:
        """Take in all that another summary has seen. Its rows keep their numbers; it stays as it is.

        Raises
        ------
        TypeError
            For what is no Summary.
        """
        if not isinstance(other, Summary):
            raise TypeError(f"other is a {type(other).__name__}; a Summary is wanted")
        self._count()
        other._count()
        self._rows += other._rows
        self._next_row = max(self._next_row, other._next_row)
        self._infinite += other._infinite
        self._invalid += other._invalid
        self._infinite_rows = _first(self._infinite_rows, other._infinite_rows)
        self._invalid_rows = _first(self._invalid_rows, other._invalid_rows)
        self._worst = _worst(self._worst, other._worst)
        self._least = float(np.fmin(self._least, other._least))
        self._low, self._high = min(self._low, other._low), max(self._high, other._high)
        self._moments = self._moments.plus(other._moments)
        self._bins = self._bins.plus(other._bins)

    @_quiet
    def result(self) -> dict[str, Any]:
        """What there is to say of all values so far, in plain Python numbers.

        Returns
        -------
        dict
            `rows`, their number; `mean` and `stderr` (of the mean: the sample's standard deviation, divided by √n) of the
            finite values; `min` and `max` of all but NaN, and `max_row`; `quantiles` of the finite values, a dict with
            the keys "0.01", "0.05", "0.25", "0.5", "0.75", "0.95", "0.99"; `infinite`, how many, and
            `first_infinite_rows`, up to ten; `invalid` and `first_invalid_rows`; `worst`, up to ten {"row", "value"}, the
            largest value first, of equal ones the first row first. What does not exist is nan, but `max_row` None: the
            mean and the quantiles without a finite value, the stderr without two, the extremes without any but NaN.
        """
        self._count()
        worst = [{"row": row, "value": value} for value, row in self._worst]
        greatest, row = self._worst[0] if self._worst else (math.nan, None)
        return {
            "rows": self._rows,
            "mean": self._moments.mean(self._low, self._high),
            "stderr": self._moments.stderr(),
            "min": self._least,
            "max": greatest,
            "max_row": row,
            "quantiles": {level: self._quantile(float(level)) for level in QUANTILES},
            "infinite": self._infinite,
            "first_infinite_rows": [*self._infinite_rows],
            "invalid": self._invalid,
            "first_invalid_rows": [*self._invalid_rows],
            "worst": worst,
        }

    @_quiet
    def histogram(self, bins: int = 60) -> Histogram:
        """Count the finite values between edges from the smallest to the largest.

        The edges are logarithmic if no value is negative and the largest is more than 100 times the smallest positive one.

        Parameters
        ----------
        bins : int, default 60
            How many, at least 1. There are fewer where so many different edges do not exist.

        Returns
        -------
        Histogram
            A named tuple of `edges`, `counts`, `logarithmic` and `zeros`. A value near an edge, as near as the quantiles'
            accuracy, may be counted on its other side.
        """
        if operator.index(bins) < 1:
            raise ValueError(f"bins={bins}: a positive number is wanted")
        self._count()
        counts, values = self._bins.counts, self._bins.values(self._low, self._high)
        if not len(values):
            return Histogram(np.empty(0), np.empty(0, np.int64), False, 0)
        low, high, zeros = self._low, self._high, 0
        positive = values > 0
        smallest = float(np.min(values, initial=math.inf, where=positive))
        share = np.linspace(0, 1, bins + 1)
        if logarithmic := low >= 0 and high / _WIDE > smallest:
            zeros = int(counts[~positive].sum())
            counts, values = counts[positive], values[positive]
            low = low or smallest
            edges = np.exp((1 - share) * math.log(low) + share * math.log(high))
        else:
            edges = (1 - share) * low + share * high
        edges[[0, -1]] = low, high
        edges = np.unique(np.clip(edges, low, high))
        if len(edges) == 1:
            edges = np.repeat(edges, 2)
        place = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, len(edges) - 2)
        inside = np.zeros(len(edges) - 1, np.int64)
        np.add.at(inside, place, counts)
        return Histogram(edges, inside, logarithmic, zeros)

    def _count(self) -> None:
        """Take in the waiting values."""
        if not self._waits:
            return
        row, values = self._first_waiting, self._waiting[: self._waits]
        self._first_waiting, self._waits = row + self._waits, 0
        values += 0.0  # -0.0 + 0.0 is 0.0: they are one value
        self._rows += len(values)
        self._least = float(np.fmin(self._least, np.fmin.reduce(values)))
        floor = self._worst[-1][0] if len(self._worst) == NAMED else -math.inf
        large = _largest(values, np.flatnonzero(values >= floor))
        self._worst = _worst(self._worst, [(float(values[i]), row + i) for i in large.tolist()])

        finite = np.isfinite(values)
        if not finite.all():
            infinite, invalid = np.flatnonzero(np.isinf(values)), np.flatnonzero(np.isnan(values))
            self._infinite += len(infinite)
            self._invalid += len(invalid)
            self._infinite_rows = _first(self._infinite_rows, (row + infinite[:NAMED].astype(object)).tolist())
            self._invalid_rows = _first(self._invalid_rows, (row + invalid[:NAMED].astype(object)).tolist())
            values = values[finite]
        if len(values):
            low, high = float(values.min()), float(values.max())
            self._low, self._high = min(self._low, low), max(self._high, high)
            self._moments = self._moments.plus(Moments.of(values, max(-low, high)))
            self._bins = self._bins.plus(Bins.of(values, self._bins.cut))

    def _quantile(self, level: float) -> float:
        """Interpolate between the values of two ranks as `np.quantile` does, but without overflow."""
        if not self._moments.n:
            return math.nan
        rank = level * (self._moments.n - 1)
        below = math.floor(rank)
        share = rank - below
        ends = np.cumsum(self._bins.counts)
        places = np.searchsorted(ends, [below, min(below + 1, self._moments.n - 1)], side="right")
        a, b = self._bins.values(self._low, self._high, places).tolist()
        return float(min(max((1 - share) * a + share * b, a), b))

    @_quiet
    def __getstate__(self) -> dict[str, Any]:
        self._count()
        return {name: value for name, value in vars(self).items() if name not in ("_waiting", "_waits", "_first_waiting")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._make_room()


def _largest(values: Floats, candidates: NDArray[np.intp]) -> NDArray[np.intp]:
    """Where the largest of the candidates are; of equal ones, the first."""
    if len(candidates) <= NAMED:
        return candidates
    among = values[candidates]
    least = np.partition(among, -NAMED)[-NAMED]
    above = np.flatnonzero(among > least)
    level = np.flatnonzero(among == least)[: NAMED - len(above)]
    largest: NDArray[np.intp] = candidates[np.concatenate([above, level])]
    return largest


def _worst(some: list[tuple[float, int]], others: list[tuple[float, int]]) -> list[tuple[float, int]]:
    return sorted([*some, *others], key=lambda at: (-at[0], at[1]))[:NAMED]


def _first(some: list[int], others: list[int]) -> list[int]:
    return sorted([*some, *others])[:NAMED]
