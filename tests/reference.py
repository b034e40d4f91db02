"""References for the measures: by definition for one row, and faster for many rows.

The functions with fastkl's names follow the definitions with mpmath; these are the truth. `evaluate` computes every row of
a matrix in double-double arithmetic, and by definition where that is not provably enough. `error` measures how far results
are from it, in the unit of the documented bounds. Knows nothing of fastkl.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from double_double import LN2, DoubleDouble, expanded_log, log_ratio, reduced_log
from mpmath import mp, mpf

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Array = np.ndarray[Any, Any]
    Row = Sequence[float]

# If two rows of doubles are not proportional, two of their quotients p_i/q_i differ. They are quotients of 53-bit integers
# and powers of two, so they differ by 2^-106 at least, and x_i = y_i (1 + d) with |d| > 2^-108 for some i. D is a sum of
# terms >= 0 (phi in ../README.md), so it exceeds y_i d^2/3 > 10^-66 y_i, and JS exceeds y_i d^2/9: less is zero. As
# |log(x/y)| < 10^4, 90 digits and those between a row's sum and its smallest entry leave 20 to any D.
DIGITS = 90
ZERO_DIGITS = 66


def _spread(*rows: Row) -> int:
    """An upper bound of the number of digits between a row's sum and its smallest positive entry."""
    positive = [[float(x) for x in row if float(x) > 0] for row in rows]
    return math.ceil(max(math.log10(max(row)) - math.log10(min(row)) + math.log10(len(row)) for row in positive))


def _distribution(row: Row) -> list[mpf]:
    entries = [x if isinstance(x, mpf) else mpf(float(x)) for x in row]
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


def js_divergence(p: Row, q: Row) -> mpf:
    """Half of D(x || m) + D(y || m), m = (x + y) / 2."""
    spread = _spread(p, q)
    with mp.workdps(DIGITS + spread):
        x, y = _distribution(p), _distribution(q)
        value = mp.fsum(a * mp.log(2 * a / (a + b)) for a, b in [*zip(x, y, strict=True), *zip(y, x, strict=True)] if a) / 2
        return value if value > mpf(10) ** -(ZERO_DIGITS + spread) else mpf(0)


def js_distance(p: Row, q: Row) -> mpf:
    """The square root of JS."""
    divergence = js_divergence(p, q)
    with mp.workdps(DIGITS):
        return mp.sqrt(divergence)


DEFINITIONS: dict[str, Callable[..., mpf]] = {
    each.__name__: each for each in (entropy, cross_entropy, kl_divergence, js_divergence, js_distance)
}


def operands(measure: str, p: Any, q: Any) -> tuple[Any, ...]:
    """Those of p and q that the measure takes."""
    return (p,) if measure == "entropy" else (p, q)


# Many rows at once -------------------------------------------------------------------------------------------------------
#
# Everything below has relative errors of at most 2^-90, or 2^-90 of a nat for H near 0: at most some forty operations with
# errors of 15 u^2 = 2^-102 follow each other, and only the checked subtractions cancel, and Q - q in the logarithm of an
# entry near 1. That is 2^-38 eps. A row is computed by definition if double-double numbers could overflow or be subnormal
# in it (entries below SMALLEST times the largest one), or if a checked subtraction left less than 1/MOST_CANCELLATION.

SMALLEST = 2.0**-500
MOST_CANCELLATION = 2.0**20

# Entries in one NumPy operation: so many that its fixed cost is small, so few that they stay in cache.
BLOCK = 1 << 13


def _fast_cross_entropy(p: Array, q: Array) -> DoubleDouble:
    """(Sum of p log(Q/q)) / P: every term is >= 0."""
    total = DoubleDouble.of(q).sum()
    total = DoubleDouble(total.high[:, np.newaxis], total.low[:, np.newaxis])
    y = DoubleDouble.where((p > 0) & (q > 0), DoubleDouble.of(q), total)
    return (DoubleDouble.of(p) * log_ratio(total, y)).sum() / DoubleDouble.of(p).sum()


def phi(a: DoubleDouble, b: DoubleDouble, d: DoubleDouble) -> DoubleDouble:
    """For positive a and b, a log(a/b) - d, d = a - b. Where they are close, 2 a s - d is s d."""
    k, s, tail = reduced_log(a, b, d)
    return DoubleDouble.where(k == 0, s * d + a * tail, a * expanded_log(k, s, tail) - d)


def _nearly_equal_sums(p: Array, q: Array) -> tuple[DoubleDouble, DoubleDouble, DoubleDouble, DoubleDouble]:
    """p, c q, P, and the t in c Q = P (1 - t). As c is P/Q rounded, c q is exact; |t| < 2^-50."""
    x, p_sum = DoubleDouble.of(p), DoubleDouble.of(p).sum()
    y = DoubleDouble.product(q, (p_sum.high / DoubleDouble.of(q).sum().high)[:, np.newaxis])
    return x, y, p_sum, (x - y).sum() / p_sum


def _fast_kl_divergence(p: Array, q: Array) -> tuple[DoubleDouble, Array]:
    """(Sum of phi(p, c q) - phi(P, c Q)) / P, and whether it did not cancel."""
    x, y, p_sum, t = _nearly_equal_sums(p, q)
    both, one = (p > 0) & (q > 0), DoubleDouble.of(np.ones_like(p))
    a, b = DoubleDouble.where(both, x, one), DoubleDouble.where(both, y, one)
    terms = DoubleDouble.where(both, phi(a, b, a - b), y).sum()
    # phi(P, P (1 - t)) = P (t^2/2 + t^3/3 + ...)
    left = terms - p_sum * t * t * (DoubleDouble.of(np.full_like(t.high, 0.5)) + DoubleDouble.of(t.high / 3))
    return left / p_sum, terms.high <= MOST_CANCELLATION * left.high


def _fast_js_divergence(p: Array, q: Array) -> tuple[DoubleDouble, Array]:
    """(Sum of phi(p, m) + phi(c q, m) - phi(P, M) - phi(c Q, M)) / (P + c Q), m and M the means of p and c q, P and c Q.

    So x and y weigh P / (P + c Q) = 1/2 + t/4 + ... and 1/2 - t/4 - ..., which is t/4 (D(x || m) - D(y || m)) too much.
    """
    x, y, p_sum, t = _nearly_equal_sums(p, q)
    both, one, half = (p > 0) & (q > 0), DoubleDouble.of(np.ones_like(p)), DoubleDouble.of(np.full_like(p, 0.5))
    a, b = DoubleDouble.where(both, x, one), DoubleDouble.where(both, y, one)
    mean, e = (a + b) * half, (a - b) * half
    alone = (x + y) * half
    # Where one of them is zero, m is half of the other: phi(z, z/2) = z (ln 2 - 1/2), phi(0, z/2) = z/2.
    of_x, of_y = (
        DoubleDouble.where(both, phi(own, mean, d), DoubleDouble.where(z.high > 0, z * (LN2 - half), alone)).sum()
        for z, own, d in ((x, a, e), (y, b, -e))
    )
    # phi(P, M) + phi(Q, M) = M (u^2 + u^4/6 + ...), with u = (P - Q) / (P + Q) and M = (P + Q) / 2 for the Q here.
    two = DoubleDouble.of(np.full_like(t.high, 2))
    u = t / (two - t)
    both_sums = p_sum * (two - t)
    terms = of_x + of_y
    left = terms - both_sums / two * u * u * (
        DoubleDouble.of(np.ones_like(t.high)) + u * u / DoubleDouble.of(np.full_like(t.high, 6))
    )
    too_much = t * (of_x - of_y) / (p_sum + p_sum + p_sum + p_sum)
    return left / both_sums - too_much, terms.high <= MOST_CANCELLATION * left.high


def _fast(measure: str, p: Array, q: Array) -> tuple[DoubleDouble, Array]:
    """The measure of every row, and whether its value is right."""
    # Powers of two bring the largest entries to [1/2, 1).
    x, y = (np.ldexp(rows, -np.frexp(rows.max(axis=-1, keepdims=True))[1]) for rows in (p, q))
    right = np.all(((x >= SMALLEST) | (p == 0)) & ((y >= SMALLEST) | (q == 0)), axis=-1)
    infinite = np.any((p > 0) & (q == 0), axis=-1)
    if measure == "kl_divergence":
        finite, held = _fast_kl_divergence(x, y)
        right &= held | infinite
    elif measure.startswith("js"):
        finite, held = _fast_js_divergence(x, y)
        return finite, right & held
    elif measure in ("entropy", "cross_entropy"):
        finite = _fast_cross_entropy(x, y)
    else:
        return DoubleDouble.of(np.zeros(len(p))), np.zeros(len(p), bool)
    return DoubleDouble.where(infinite, DoubleDouble.of(np.full(len(p), np.inf)), finite), right | infinite


def evaluate(measure: str, p: Array, q: Array | None = None) -> DoubleDouble:
    """The measure of every row of the matrices."""
    p, q = p.astype(float), (p if q is None else q).astype(float)
    step = max(1, BLOCK // p.shape[-1])
    high, low = np.empty(len(p)), np.empty(len(p))
    for start in range(0, len(p), step):
        block = slice(start, start + step)
        with np.errstate(all="ignore"):  # for rows that double-double cannot compute
            value, right = _fast(measure, p[block], q[block])
            if measure == "js_distance":
                value = value.sqrt()
        high[block], low[block] = value.high, value.low
        for i in start + np.flatnonzero(~right):
            exact = DoubleDouble.rounded(DEFINITIONS[measure](*operands(measure, p[i], q[i])))
            high[i], low[i] = exact.high, exact.low
    return DoubleDouble(high, low)


# The documented bounds: the error of D and of the root of JS is at most 4 eps of them, that of JS, and of any other
# f-divergence, 6 eps, that of H and the cross-entropy 4 eps H + 2 eps. All terms of D are >= 0, but the logarithm of a sum
# near 1 has the absolute error of the sum, however small H is. JS is nearly a sum of squares of differences. Where a row
# has been scaled, these are rounded twice, each time by half an eps, which the square doubles; 2 eps more come from the
# rest of a term, 1.5 from sums and quotient.
BOUND = dict.fromkeys(DEFINITIONS, 6) | dict.fromkeys(("entropy", "cross_entropy", "kl_divergence", "js_distance"), 4)
OFFSET = dict.fromkeys(DEFINITIONS, 0.0) | {"entropy": 0.5, "cross_entropy": 0.5}


def error(measure: str, values: Array, exact: DoubleDouble, unit: Array | None = None) -> Array:
    """The errors of the values, in eps (|exact| + OFFSET), eps being that of their dtype; inf for one that is NaN or < 0.

    Another `unit` takes the place of |exact| + OFFSET. An error of half the smallest number of the dtype counts as none,
    because the value has to be rounded to it, and so does that of `exact`. So do errors of distances whose squares
    double-double cannot hold with all digits, if the rows are scaled to a largest entry of 1.
    """
    dtype = np.finfo(values.dtype)
    with np.errstate(all="ignore"):
        off = np.abs((values - exact.high) - exact.low)
        errors = off / (np.abs(exact.high) + OFFSET[measure] if unit is None else unit) / float(dtype.eps)
    free = 1e-280 if measure == "js_distance" else 2.0**-1074
    right = (off <= max(float(dtype.smallest_subnormal) / 2, free)) | (np.isinf(values) & (values == exact.high))
    return np.where(values < 0, np.inf, np.where(right, 0, np.nan_to_num(errors, nan=np.inf, posinf=np.inf)))
