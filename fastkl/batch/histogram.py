"""A histogram of values that occur with known counts, on a linear or a logarithmic axis."""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np

from .totals import Floats, Integers

_WIDE: Final = 100  # the axis is logarithmic if the largest value is more than this many times the smallest


class Histogram(NamedTuple):
    """Finite values, counted between edges.

    A bin includes its lower edge; the last bin also includes its upper edge. If all values are equal, there is one bin
    between two equal edges; without values there are no edges. Counts and `zeros` add up to the number of finite values.
    """

    edges: Floats  # ascending
    counts: Integers  # the number of values in each bin
    logarithmic: bool  # whether the ratios of the edges are equal, not their differences
    zeros: int  # the number of values of 0, if the edges are logarithmic: no bin includes these


def count(values: Floats, counts: Integers, low: float, high: float, bins: int) -> Histogram:
    """The histogram of values between `low` and `high` which occur that many times."""
    if not len(values):
        return Histogram(np.empty(0), np.empty(0, np.int64), False, 0)
    zeros = 0
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
