"""What the measures are: by definition, a row at a time, and the same numbers sooner for many rows.

`entropy`, `cross_entropy` and `kl_divergence` follow the definitions with mpmath and are the authority. `evaluate` answers
for every row of a matrix in double-double arithmetic, and by definition where that is not provably enough. `error` says how
far results are from it, in the unit that bounds are stated in. Knows nothing of fastkl.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from double_double import DoubleDouble, expanded_log, log_ratio, reduced_log
from mpmath import mp, mpf

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Array = np.ndarray[Any, Any]
    Row = Sequence[float]

# If two rows of doubles are not proportional, two of their quotients p_i/q_i differ. They are quotients of 53-bit integers
# and powers of two, so they differ by 2^-106 at least, and x_i = y_i (1 + d) with |d| > 2^-108 for some i. D is a sum of
# terms >= 0 (phi in ../README.md), so it exceeds y_i d^2/3 > 10^-66 y_i: less is zero. As |log(x/y)| < 10^4, 90 digits and
# those between a row's sum and its smallest entry leave 20 to any D.
DIGITS = 90
ZERO_DIGITS = 66


def _spread(*rows: Row) -> int:
    """The number of digits between a row's sum and its smallest positive entry, at most."""
    positive = [[float(x) for x in row if x > 0] for row in rows]
    return math.ceil(max(math.log10(max(row)) - math.log10(min(row)) + math.log10(len(row)) for row in positive))


def _distribution(row: Row) -> list[mpf]:
    entries = [mpf(float(x)) for x in row]
    total = mp.fsum(entries)
    return [x / total for x in entries]


def entropy(p: Row) -> mpf:
    """H(x) = -sum of x log x."""
    with mp.workdps(DIGITS + _spread(p)):
        return -mp.fsum(x * mp.log(x) for x in _distribution(p) if x)


def cross_entropy(p: Row, q: Row) -> mpf:
    """H(x, y) = -sum of x log y."""
    with mp.workdps(DIGITS + _spread(p, q)):
        pairs = [(x, y) for x, y in zip(_distribution(p), _distribution(q), strict=True) if x]
        return -mp.fsum(x * mp.log(y) for x, y in pairs) if all(y for _, y in pairs) else mp.inf


def kl_divergence(p: Row, q: Row) -> mpf:
    """D(x || y) = sum of x log(x/y)."""
    spread = _spread(p, q)
    with mp.workdps(DIGITS + spread):
        pairs = [(x, y) for x, y in zip(_distribution(p), _distribution(q), strict=True) if x]
        if not all(y for _, y in pairs):
            return mp.inf
        value = mp.fsum(x * mp.log(x / y) for x, y in pairs)
        return value if value > mpf(10) ** -(ZERO_DIGITS + spread) else mpf(0)


DEFINITIONS: dict[str, Callable[..., mpf]] = {
    "entropy": entropy,
    "cross_entropy": cross_entropy,
    "kl_divergence": kl_divergence,
}


def operands(measure: str, p: Any, q: Any) -> tuple[Any, ...]:
    """Those of p and q that the measure is one of."""
    return (p,) if measure == "entropy" else (p, q)


# Many rows at once -------------------------------------------------------------------------------------------------------
#
# All below is right to 2^-90, H near 0 to 2^-90 of a nat: some forty operations with errors of 15 u^2 = 2^-102 at most
# follow each other, and nothing cancels but what is checked, and Q - q in the logarithm of an entry near 1. That is 2^-38
# eps. A row is left to the definition if double-double could overflow or be subnormal in it (entries SMALLEST times the
# largest one), or if the subtraction that is checked left less than 1/MOST_CANCELLATION.

SMALLEST = 2.0**-500
MOST_CANCELLATION = 2.0**20

# Entries worked on together: enough for NumPy to be quick, few enough for the caches.
BLOCK = 1 << 13


def _fast_cross_entropy(p: Array, q: Array) -> DoubleDouble:
    """(Sum of p log(Q/q)) / P: every term is >= 0."""
    total = DoubleDouble.of(q).sum()
    total = DoubleDouble(total.high[:, np.newaxis], total.low[:, np.newaxis])
    y = DoubleDouble.where((p > 0) & (q > 0), DoubleDouble.of(q), total)
    return (DoubleDouble.of(p) * log_ratio(total, y)).sum() / DoubleDouble.of(p).sum()


def _phi(a: DoubleDouble, b: DoubleDouble) -> DoubleDouble:
    """For positive a and b, a log(a/b) - (a - b). Where they are close, 2 a s - (a - b) is s (a - b)."""
    k, s, tail = reduced_log(a, b)
    d = a - b
    return DoubleDouble.where(k == 0, s * d + a * tail, a * expanded_log(k, s, tail) - d)


def _fast_kl_divergence(p: Array, q: Array) -> tuple[DoubleDouble, Array]:
    """(Sum of phi(p, c q) - phi(P, c Q)) / P, and where that did not cancel. c is P/Q rounded, so that c q is exact."""
    p_sum = DoubleDouble.of(p).sum()
    c = p_sum.high / DoubleDouble.of(q).sum().high
    x, y = DoubleDouble.of(p), DoubleDouble.product(q, c[:, np.newaxis])
    both, one = (p > 0) & (q > 0), DoubleDouble.of(np.ones_like(p))
    terms = DoubleDouble.where(both, _phi(DoubleDouble.where(both, x, one), DoubleDouble.where(both, y, one)), y).sum()
    # phi(P, P - d) = P (t^2/2 + t^3/3 + ...) with t = d/P, and |t| < 2^-50: P, Q and c are rounded once.
    t = (x - y).sum() / p_sum
    left = terms - p_sum * t * t * (DoubleDouble.of(np.full_like(c, 0.5)) + DoubleDouble.of(t.high / 3))
    return left / p_sum, terms.high <= MOST_CANCELLATION * left.high


def _fast(measure: str, p: Array, q: Array) -> tuple[DoubleDouble, Array]:
    """The measure of every row, and which of the values are right."""
    # Powers of two bring the largest entries to [1/2, 1).
    x, y = (np.ldexp(rows, -np.frexp(rows.max(axis=-1, keepdims=True))[1]) for rows in (p, q))
    right = np.all(((x >= SMALLEST) | (p == 0)) & ((y >= SMALLEST) | (q == 0)), axis=-1)
    infinite = np.any((p > 0) & (q == 0), axis=-1)
    if measure == "kl_divergence":
        finite, held = _fast_kl_divergence(x, y)
        right &= held | infinite
    else:
        finite = _fast_cross_entropy(x, y)
    return DoubleDouble.where(infinite, DoubleDouble.of(np.full(len(p), np.inf)), finite), right | infinite


def evaluate(measure: str, p: Array, q: Array | None = None) -> DoubleDouble:
    """The measure of every row of the matrices."""
    p, q = p.astype(float), (p if q is None else q).astype(float)
    step = max(1, BLOCK // p.shape[-1])
    high, low = np.empty(len(p)), np.empty(len(p))
    for start in range(0, len(p), step):
        block = slice(start, start + step)
        with np.errstate(all="ignore"):  # rows that double-double is not made for
            value, right = _fast(measure, p[block], q[block])
        high[block], low[block] = value.high, value.low
        for i in start + np.flatnonzero(~right):
            exact = DoubleDouble.rounded(DEFINITIONS[measure](*operands(measure, p[i], q[i])))
            high[i], low[i] = exact.high, exact.low
    return DoubleDouble(high, low)


# What fastkl promises and the README quotes: D is off by 4 eps D at most, H and the cross-entropy by 4 eps H + 2 eps. All
# terms of D are >= 0, but the logarithm of a sum near 1 is as wrong as the sum, whatever is left of H.
BOUND = 4
OFFSET = {"entropy": 0.5, "cross_entropy": 0.5, "kl_divergence": 0.0}


def error(measure: str, values: Array, exact: DoubleDouble) -> Array:
    """How far the values are off, in eps (|exact| + OFFSET), eps being that of their dtype; inf for one that is NaN or < 0.

    Half of the smallest number is free, for a value that must be rounded to it, and the same for `exact`.
    """
    dtype = np.finfo(values.dtype)
    with np.errstate(all="ignore"):
        off = np.abs((values - exact.high) - exact.low)
        errors = off / (np.abs(exact.high) + OFFSET[measure]) / float(dtype.eps)
    right = (off <= max(float(dtype.smallest_subnormal) / 2, 2.0**-1074)) | (np.isinf(values) & (values == exact.high))
    return np.where(values < 0, np.inf, np.where(right, 0, np.nan_to_num(errors, nan=np.inf, posinf=np.inf)))
