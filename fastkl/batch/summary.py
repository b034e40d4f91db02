"""The summary of a stream of values, in bounded memory. Knows nothing of files or measures."""

from __future__ import annotations

import math
import operator
from fractions import Fraction
from typing import Any, Final, SupportsIndex

import numpy as np
from numpy.typing import ArrayLike

from .bins import Bins
from .histogram import Histogram, count
from .totals import Moments

QUANTILES: Final = ("0.001", "0.01", "0.05", "0.25", "0.5", "0.75", "0.95", "0.99", "0.999")
TAIL: Final = 20  # one value of so many is among the largest, whose mean is "cvar95"
NAMED: Final = 10  # rows that a result names: the first infinite, the first invalid, and unless told otherwise the worst
BLOCK: Final = 1 << 17  # values counted together: their temporaries stay in the second cache or near it
_BUFFER: Final = ("_waiting", "_left_out", "_waits", "_first_waiting")
_quiet: Final = np.errstate(all="ignore")  # NaN, infinity and overflow are expected here


class Summary:
    """Mean, deviation, quantiles, extremes and the worst rows of values that arrive in blocks of any size.

    `update` adds a block, and `merge` adds the summary of another part, in any order. A summary of any number of values
    takes 2 MB at most, and 1 MB when it is pickled.

    Parameters
    ----------
    worst : int, default 10
        How many of the largest values `result` names with their rows, at least 1.

    See Also
    --------
    score : The summary of the values of files.

    Notes
    -----
    With ε = 2.2e-16, and values counted in groups of at most 131,072 in the order of their arrival:

    - **mean**: at most ε |mean| + 16 ε D from the exact value, where D is the values' mean distance from the mean of their
      group. For values that are not negative, D is at most twice the mean. A group is centred before it is summed; sums of
      groups are added as fractions, without an error. Therefore the order of merges changes nothing, but the grouping may
      change the last digits.
    - **std, stderr**: at most 18 ε of themselves from the exact value.
    - **quantiles**: those of `np.quantile`, exact except for the rounding of the interpolation, of up to 65,536 different
      values. If there are more, values are counted in that many bins, of floats without their lowest bits; when more bins
      are needed, one more bit is left out. A quantile is interpolated between the middles of the bins that hold the values
      of the two nearest ranks. With k bits left out, these are right to a relative 2^(k - 53). That is below B / 65,536 for
      values in B binades (from a power of two to the next, for each sign). Values below 2.3e-308 are right to 2^(k - 1074).
      0 stays 0.
    - **cvar95**: the mean of the largest values, each as accurate as a quantile; the mean itself is rounded by 2 ε.
    - **everything else** is exact, and depends on the values and their rows alone, as the quantiles do.

    Bins that collapse evenly when memory runs out are the idea of UDDSketch [1]_, whose bins are logarithmic. Cutting off
    bits needs no logarithm, and keeps small data exact.

    References
    ----------
    .. [1] I. Epicoco et al., "UDDSketch: accurate tracking of quantiles in data streams", IEEE Access 8, 2020.

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
    """

    def __init__(self, worst: int = NAMED) -> None:
        if operator.index(worst) < 1:
            raise ValueError(f"worst={worst}: a positive number is wanted")
        self._most = worst
        self._next_row = 0
        # How many values are not finite, and the first rows of them.
        self._rare: dict[str, tuple[int, list[int]]] = {"infinite": (0, []), "invalid": (0, [])}
        self._ignored = 0
        self._worst: list[tuple[float, int]] = []  # values and rows, the worst first
        self._least = math.nan  # of all values except NaN
        self._low, self._high = math.inf, -math.inf  # of the finite values
        self._moments = Moments(0, Fraction(0), Fraction(0))
        self._bins = Bins(0, np.empty(0, np.int64), np.empty(0, np.int64))
        self._make_room()

    def _make_room(self) -> None:
        """Make an empty buffer for values of consecutive rows, which are counted later."""
        self._waiting, self._left_out = np.empty(BLOCK), np.zeros(BLOCK, bool)
        self._waits = self._first_waiting = 0

    @_quiet
    def update(
        self, values: ArrayLike, first_row: SupportsIndex | None = None, *, ignored: ArrayLike | None = None
    ) -> None:
        """Add the values of consecutive rows.

        A block may have any size; blocks may come in any order.

        Parameters
        ----------
        values : array_like
            Of a float, bool or integer dtype and any shape, read in C order and counted as float64. NaN means an invalid
            row, inf or -inf an infinite one.
        first_row : int, optional
            The number of the first value's row, not negative. None means the row after the highest one so far, at first 0.
        ignored : array_like of bool, optional
            For each value whether it is left out of all statistics, as the losses of ignored labels are. It is counted.

        Raises
        ------
        TypeError
            For other dtypes and masked entries.
        ValueError
            For a negative `first_row`, and for an `ignored` of another shape than that of the values.

        See Also
        --------
        merge : Add another summary.

        Examples
        --------
        >>> import fastkl
        >>> summary = fastkl.Summary()
        >>> summary.update([2.0, 0.0], first_row=1000)
        >>> summary.result()["max_row"]
        1000
        """
        if isinstance(values, np.ma.MaskedArray) and np.ma.is_masked(values):
            raise TypeError("values has masked entries, which have no value; fill them, with NaN for an invalid row")
        array = np.asarray(values)
        if not np.can_cast(array.dtype, np.float64, "same_kind"):
            raise TypeError(f"values has dtype {array.dtype}; a float, integer or bool dtype is wanted")
        row = self._next_row if first_row is None else operator.index(first_row)
        if row < 0:
            raise ValueError(f"first_row={row}: the number of a row is wanted, 0 or more")
        left_out = np.zeros(array.shape, bool) if ignored is None else np.asarray(ignored)
        if left_out.shape != array.shape or (left_out.size and left_out.dtype != bool):
            wanted = f"bools of shape {array.shape} are wanted"
            raise ValueError(f"ignored has shape {left_out.shape} and dtype {left_out.dtype}; {wanted}")
        array, left_out = array.reshape(-1), left_out.reshape(-1)
        if not array.size:
            return
        if row != self._first_waiting + self._waits:
            self._count()
            self._first_waiting = row
        while array.size:
            taken = array[: BLOCK - self._waits]
            place = slice(self._waits, self._waits + taken.size)
            self._waiting[place], self._left_out[place] = taken, left_out[: taken.size]
            self._waits += taken.size
            array, left_out = array[taken.size :], left_out[taken.size :]
            if self._waits == BLOCK:
                self._count()
        self._next_row = max(self._next_row, self._first_waiting + self._waits)

    @_quiet
    def merge(self, other: Summary) -> None:
        """Add another summary.

        Its rows keep their numbers, and it is not changed.

        Parameters
        ----------
        other : Summary
            The summary of other rows, from another process, say.

        Raises
        ------
        TypeError
            If `other` is not a Summary.

        See Also
        --------
        update : Add values.

        Examples
        --------
        >>> import fastkl
        >>> summary, other = fastkl.Summary(), fastkl.Summary()
        >>> summary.update([0.5, 1.5])
        >>> other.update([2.0], first_row=1000)
        >>> summary.merge(other)
        >>> summary.result()["worst"]
        [{'row': 1000, 'value': 2.0}, {'row': 1, 'value': 1.5}, {'row': 0, 'value': 0.5}]
        """
        if not isinstance(other, Summary):
            raise TypeError(f"other is a {type(other).__name__}; a Summary is wanted")
        self._count()
        other._count()
        self._next_row = max(self._next_row, other._next_row)
        for kind, rare in other._rare.items():
            self._add_rare(kind, *rare)
        self._ignored += other._ignored
        self._name(other._worst)
        self._least = float(np.fmin(self._least, other._least))
        self._low, self._high = min(self._low, other._low), max(self._high, other._high)
        self._moments = self._moments.plus(other._moments)
        self._bins = self._bins.plus(other._bins)

    @_quiet
    def result(self) -> dict[str, Any]:
        """The statistics of all values so far.

        They are plain Python numbers, which JSON can hold except for nan and inf.

        Returns
        -------
        dict
            `rows`, the number of values; `ignored`, how many of them are left out of what follows; `mean`, `std` and
            `stderr` of the finite values: the standard deviation of the sample, with n - 1, and that divided by √n; `min`
            and `max` of all values except NaN, and `max_row`; `quantiles` of the finite values, a dict with the keys
            "0.001", "0.01", "0.05", "0.25", "0.5", "0.75", "0.95", "0.99", "0.999"; `cvar95`, the mean of the largest 5 %
            of the n finite values: of n/20 of them, rounded up (the conditional value at risk, or expected shortfall);
            `infinite`, the number of infinite values, and `first_infinite_rows`, up to ten; `invalid` and
            `first_invalid_rows`; `worst`, {"row", "value"} of ten values or of as many as the summary was made for, the
            largest value first, of equal ones the first row first. What does not exist is nan (`max_row`: None): mean,
            quantiles and cvar95 without a finite value, std and stderr with fewer than two, extremes of NaN alone.

        See Also
        --------
        histogram : The counts of the finite values.

        Examples
        --------
        >>> import fastkl
        >>> summary = fastkl.Summary()
        >>> summary.update([1.0, 2.0, 6.0])
        >>> summary.result()["mean"], summary.result()["quantiles"]["0.5"]
        (3.0, 2.0)
        """
        self._count()
        greatest, row = self._worst[0] if self._worst else (math.nan, None)
        (infinite, infinite_rows), (invalid, invalid_rows) = self._rare.values()
        extremes = self._low, self._high
        return {
            "rows": self._moments.n + infinite + invalid + self._ignored,
            "ignored": self._ignored,
            "mean": self._moments.mean(*extremes),
            "stderr": self._moments.stderr(),
            "std": self._moments.std(),
            "min": self._least,
            "max": greatest,
            "max_row": row,
            "quantiles": {level: self._bins.quantile(float(level), *extremes) for level in QUANTILES},
            "cvar95": self._bins.mean_of_largest(TAIL, *extremes),
            "infinite": infinite,
            "first_infinite_rows": [*infinite_rows],
            "invalid": invalid,
            "first_invalid_rows": [*invalid_rows],
            "worst": [{"row": row, "value": value} for value, row in self._worst],
        }

    @_quiet
    def histogram(self, bins: int = 60) -> Histogram:
        """The finite values, counted between edges from the smallest to the largest.

        The edges are logarithmic if no value is negative and the largest is more than 100 times the smallest positive one.

        Parameters
        ----------
        bins : int, default 60
            The number of bins, at least 1. There are fewer if so many different edges do not exist.

        Returns
        -------
        Histogram
            A named tuple of `edges`, `counts`, `logarithmic` and `zeros`, the number of zeros beside logarithmic edges. A
            value as near to an edge as the accuracy of the quantiles may be counted on its other side.

        Raises
        ------
        ValueError
            If `bins` is not positive.

        See Also
        --------
        result : The statistics.

        Examples
        --------
        >>> import fastkl
        >>> summary = fastkl.Summary()
        >>> summary.update([1.0, 2.0, 6.0])
        >>> summary.histogram(2).counts
        array([2, 1])
        """
        if operator.index(bins) < 1:
            raise ValueError(f"bins={bins}: a positive number is wanted")
        self._count()
        values = self._bins.values(self._low, self._high)
        return count(values, self._bins.counts, self._low, self._high, bins)

    def _count(self) -> None:
        """Count the values in the buffer."""
        if not self._waits:
            return
        values, left_out = self._waiting[: self._waits], self._left_out[: self._waits]
        row, places = self._first_waiting, np.flatnonzero(~left_out)
        self._first_waiting, self._waits = row + self._waits, 0
        self._ignored += len(values) - len(places)
        if not len(places):
            return
        values = values[places]
        values += 0.0  # -0.0 + 0.0 is 0.0: they are one value
        self._least = float(np.fmin(self._least, np.fmin.reduce(values)))
        floor = self._worst[-1][0] if len(self._worst) == self._most else -math.inf
        large = np.flatnonzero(values >= floor)
        if len(large) > self._most:
            large = large[values[large] >= np.partition(values[large], -self._most)[-self._most]]
            large = large[np.argsort(-values[large], kind="stable")[: self._most]]  # of equal values, the first
        self._name([(float(values[i]), row + int(places[i])) for i in large.tolist()])

        finite = np.isfinite(values)
        if not finite.all():
            for kind, which in (("infinite", np.isinf(values)), ("invalid", np.isnan(values))):
                here = places[which]
                self._add_rare(kind, len(here), [row + place for place in here[:NAMED].tolist()])
            values = values[finite]
        if len(values):
            low, high = float(values.min()), float(values.max())
            self._low, self._high = min(self._low, low), max(self._high, high)
            self._moments = self._moments.plus(Moments.of(values, max(-low, high)))
            self._bins = self._bins.plus(Bins.of(values, self._bins.cut))

    def _name(self, others: list[tuple[float, int]]) -> None:
        """Keep the largest of the values that are known and of others, with their rows."""
        self._worst = sorted([*self._worst, *others], key=lambda at: (-at[0], at[1]))[: self._most]

    def _add_rare(self, kind: str, count: int, rows: list[int]) -> None:
        known, first = self._rare[kind]
        self._rare = self._rare | {kind: (known + count, sorted([*first, *rows])[:NAMED])}  # copies share the old one

    @_quiet
    def __getstate__(self) -> dict[str, Any]:
        self._count()
        return {name: value for name, value in vars(self).items() if name not in _BUFFER}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._make_room()
