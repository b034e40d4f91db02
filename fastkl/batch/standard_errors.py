"""Standard errors of means: of rows that belong to clusters, such as the tokens of a document; of differences of models.

Rows of one cluster are correlated, so that the deviation of rows divided by the root of their number is too small. With S_c
the sum of the n_c values of cluster c, N the number of all values, m = (sum of all S_c)/N and C clusters, the variance of m
is

    C/(C - 1) * sum over c of (S_c - n_c m)^2 / N^2

which is the estimator of Liang and Zeger (Biometrika 73, 1986, p. 13) for a mean, with the factor C/(C - 1) for few
clusters that Cameron and Miller give (Journal of Human Resources 50, 2015, p. 317). If every row is a cluster of
its own, it is the usual one. Knows nothing of what the values mean.
"""

from __future__ import annotations

import math
import sys
from fractions import Fraction
from typing import Any

import numpy as np

from ..call import Array
from .totals import Floats, Integers, Moments


class Clusters:
    """Gives clusters consecutive numbers, in the order of their first rows."""

    def __init__(self) -> None:
        self._numbers: dict[int, int] = {}

    def number(self, names: Array) -> Integers:
        """The number of each row's cluster, from the integers that name the clusters."""
        different, places = np.unique(names, return_inverse=True)
        numbers = [self._numbers.setdefault(name, len(self._numbers)) for name in different.tolist()]
        return np.array(numbers, np.int64)[places.reshape(-1)]


class ClusterSums:
    """The sum and the number of the finite values of each cluster: 16 bytes a cluster."""

    def __init__(self) -> None:
        self._sums, self._counts = np.zeros(0), np.zeros(0, np.int64)

    def update(self, values: Floats, clusters: Integers) -> None:
        """Add values of rows, with the numbers of their clusters."""
        finite = np.isfinite(values)
        values, clusters = values[finite], clusters[finite]
        room = int(clusters.max(initial=-1)) + 1 - len(self._sums)
        if room > 0:
            room = max(room, len(self._sums))  # twice as many, so that few copies are made
            self._sums = np.append(self._sums, np.zeros(room))
            self._counts = np.append(self._counts, np.zeros(room, np.int64))
        np.add.at(self._sums, clusters, values)
        np.add.at(self._counts, clusters, 1)

    def result(self) -> dict[str, Any]:
        """The standard error of the mean of all values, and the number of clusters that have one."""
        some = self._counts > 0
        sums, counts, n = self._sums[some], self._counts[some], int(some.sum())
        if n < 2:
            return {"stderr": math.nan, "clusters": n}
        total = int(counts.sum())
        rest = sums - counts * (math.fsum(sums) / total)
        size = float(np.abs(rest).max()) or 1.0  # so that no square overflows
        return {"stderr": size / total * math.sqrt(n / (n - 1) * math.fsum((rest / size) ** 2)), "clusters": n}


class Mean:
    """The mean of finite values of rows, and its standard error, in less memory than a Summary."""

    def __init__(self, clustered: bool) -> None:
        self._moments = Moments(0, Fraction(0), Fraction(0))
        self._sums = ClusterSums() if clustered else None

    def update(self, values: Floats, clusters: Integers | None) -> None:
        """Add values of rows, at most 2^17, and the numbers of their clusters if there are any."""
        size = float(np.maximum(values.max(initial=-math.inf), -values.min(initial=math.inf)))
        finite = values if math.isfinite(size) else values[np.isfinite(values)]  # most often, all are
        if len(finite):
            size = size if math.isfinite(size) else float(np.abs(finite).max())
            self._moments = self._moments.plus(Moments.of(finite, size))
        if self._sums is not None and clusters is not None:
            self._sums.update(values, clusters)

    def result(self) -> dict[str, Any]:
        """The number of finite values, their mean and its standard error."""
        mean = self._moments.mean(-sys.float_info.max, sys.float_info.max)
        errors = {"stderr": self._moments.stderr()} if self._sums is None else self._sums.result()
        return {"rows": self._moments.n, "mean": mean} | errors
