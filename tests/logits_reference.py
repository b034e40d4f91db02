"""What the measures of softmax rows are: by definition, a row at a time, and the same numbers sooner for many rows.

As reference.py is for probabilities: the functions named as fastkl's follow the definitions with mpmath and are the
authority, `evaluate` answers in double-double arithmetic and by definition where that is not provably enough, and `error`
counts in the unit that bounds are stated in. An operand holds logits, or probabilities, whose logarithms are taken. Knows
nothing of fastkl.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import reference
from double_double import LN2, DoubleDouble, exp, expanded_log, log_ratio, reduced_exp, reduced_log
from mpmath import mp, mpf

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Array = np.ndarray[Any, Any]
    Row = Sequence[float]
    Pair = tuple[bool, bool]

BOTH = (True, True)

# D and JS are found with so many digits, and again with the next number if fewer than ENOUGH could be left of them. What
# is then below 10^-LEAST is nothing to a double.
DIGITS = (60, 500)
ENOUGH = 30
LEAST = 400


def _size(*rows: Row) -> int:
    """The number of digits before the point, at most: of logits, and of the logarithms of probabilities."""
    return 5 + max(math.ceil(math.log10(1 + abs(float(x)))) for row in rows for x in row if math.isfinite(x))


def _logarithms(row: Row, logits: bool, temperature: float) -> list[mpf]:
    """Of the row's probabilities, exactly but for the working precision; -inf of zero."""
    if logits:
        found = [mpf(float(x)) / mpf(temperature) if x > -math.inf else mp.ninf for x in row]
    else:
        found = [mp.log(mpf(float(x))) if x else mp.ninf for x in row]
    most = max(found)
    log_sum = most + mp.log(mp.fsum(mp.exp(x - most) for x in found if x > mp.ninf))
    return [x - log_sum if x > mp.ninf else x for x in found]


def cross_entropy(p: Row, q: Row, from_logits: Pair = BOTH, temperature: float = 1.0) -> mpf:
    """H(x, y) = -sum of x log y."""
    with mp.workdps(DIGITS[0] + _size(p, q) + math.ceil(abs(math.log10(temperature)))):
        x, y = (_logarithms(row, logits, temperature) for row, logits in zip((p, q), from_logits, strict=True))
        pairs = [(a, b) for a, b in zip(x, y, strict=True) if a > mp.ninf]
        return -mp.fsum(mp.exp(a) * b for a, b in pairs) if all(b > mp.ninf for _, b in pairs) else mp.inf


def entropy(p: Row, from_logits: Pair = BOTH, temperature: float = 1.0) -> mpf:
    """H(x) = H(x, x)."""
    return cross_entropy(p, p, (from_logits[0], from_logits[0]), temperature)


def _divergence(
    of: Callable[[Sequence[mpf], Sequence[mpf]], mpf], p: Row, q: Row, from_logits: Pair, temperature: float
) -> mpf:
    """The divergence of the rows' logarithms, with as many digits as it takes."""
    for digits in DIGITS:
        with mp.workdps(digits + _size(p, q) + math.ceil(abs(math.log10(temperature)))):
            x, y = (_logarithms(row, logits, temperature) for row, logits in zip((p, q), from_logits, strict=True))
            value = of(x, y)
            if value > mpf(10) ** (ENOUGH - digits):
                return value
    return value if value > mpf(10) ** -LEAST else mpf(0)


def kl_divergence(p: Row, q: Row, from_logits: Pair = BOTH, temperature: float = 1.0) -> mpf:
    """D(x || y) = sum of x log(x/y)."""

    def divergence(x: Sequence[mpf], y: Sequence[mpf]) -> mpf:
        pairs = [(a, b) for a, b in zip(x, y, strict=True) if a > mp.ninf]
        return mp.fsum(mp.exp(a) * (a - b) for a, b in pairs) if all(b > mp.ninf for _, b in pairs) else mp.inf

    return _divergence(divergence, p, q, from_logits, temperature)


def js_divergence(p: Row, q: Row, from_logits: Pair = BOTH, temperature: float = 1.0) -> mpf:
    """Half of D(x || m) + D(y || m), m = (x + y) / 2."""

    def divergence(x: Sequence[mpf], y: Sequence[mpf]) -> mpf:
        pairs = [
            (a, mp.log((mp.exp(a) + mp.exp(b)) / 2))
            for a, b in [*zip(x, y, strict=True), *zip(y, x, strict=True)]
            if a > mp.ninf
        ]
        return mp.fsum(mp.exp(a) * (a - m) for a, m in pairs) / 2

    return _divergence(divergence, p, q, from_logits, temperature)


def js_distance(p: Row, q: Row, from_logits: Pair = BOTH, temperature: float = 1.0) -> mpf:
    """The square root of JS."""
    divergence = js_divergence(p, q, from_logits, temperature)
    with mp.workdps(DIGITS[0]):
        return mp.sqrt(divergence)


def _of_probabilities(definition: Callable[..., mpf]) -> Callable[..., mpf]:
    """The definition of reference.py, of the rows' probabilities."""

    def measure(p: Row, q: Row, from_logits: Pair = BOTH, temperature: float = 1.0) -> mpf:
        def of(x: Sequence[mpf], y: Sequence[mpf]) -> mpf:
            return definition(*([mp.exp(a) for a in row] for row in (x, y)))

        return _divergence(of, p, q, from_logits, temperature)

    return measure


DEFINITIONS: dict[str, Callable[..., mpf]] = {
    name: _of_probabilities(definition) for name, definition in reference.DEFINITIONS.items()
} | {
    "entropy": entropy,
    "cross_entropy": cross_entropy,
    "kl_divergence": kl_divergence,
    "js_divergence": js_divergence,
    "js_distance": js_distance,
}


# Many rows at once -------------------------------------------------------------------------------------------------------
#
# All below is right to 2^-65, H near 0 to 2^-65 of a nat, for the reasons given at each place and those of reference.py.
# A difference of doubles is exact, and one of double-doubles right to 3 u^2 of itself: so logits are subtracted from each
# other before anything else, if only a temperature divides them. Of small weights, products and low parts can underflow:
# that takes less than 2^-900, times the logits' size, from a sum. A row is left to the definition if that could matter, if
# logits, of which exponentials make errors of 2^-103 times their size, are beyond LARGEST, or probabilities below SMALLEST.

LARGEST = 2.0**32
SMALLEST = 2.0**-500
LEAST_DIVERGENCE = 1e-200

# Above, a logarithm of a sum by itself is exact enough to be D.
PLAIN = 2.0**-6

# Below e^-FAINT of another, a weight does not change JS, but by FAINT of its own size.
FAINT = 500.0


class _Operand:
    """Many rows: where there is probability, and how much, as logarithms; those of logits times `scale`, if given."""

    def __init__(self, rows: Array, logits: bool, scale: DoubleDouble | None) -> None:
        self.on = rows > -np.inf if logits else rows > 0
        finite = np.where(self.on, rows, 0 if logits else 1)
        if logits:
            self.x = DoubleDouble.of(finite) if scale is None else DoubleDouble.of(finite) * scale
            self.right = np.all(np.abs(finite) < LARGEST, axis=-1)
        else:
            self.x = log_ratio(DoubleDouble.of(finite), DoubleDouble.of(np.ones_like(finite)))
            self.right = np.all(finite >= SMALLEST, axis=-1)

    def top(self, where: Array | None = None) -> DoubleDouble:
        """The largest of each row."""
        on = self.on if where is None else where
        return _at(self.x, np.argmax(np.where(on, self.x.high, -np.inf), axis=-1))


def _at(x: DoubleDouble, column: Array) -> DoubleDouble:
    """One entry of each row, as a column."""
    index = column[:, np.newaxis]
    return DoubleDouble(np.take_along_axis(x.high, index, -1), np.take_along_axis(x.low, index, -1))


def _column(x: DoubleDouble) -> DoubleDouble:
    return x[:, np.newaxis]


def _only(where: Array, x: DoubleDouble) -> DoubleDouble:
    return DoubleDouble.where(where, x, DoubleDouble.of(np.zeros_like(x.high)))


def _log(x: DoubleDouble) -> DoubleDouble:
    return log_ratio(x, DoubleDouble.of(np.ones_like(x.high)))


def _log1p(x: DoubleDouble) -> DoubleDouble:
    one = DoubleDouble.of(np.ones_like(x.high))
    return expanded_log(*reduced_log(one + x, one, x))


def _fast_cross_entropy(p: _Operand, q: _Operand, scale: DoubleDouble) -> DoubleDouble:
    """The logarithm of the sum of e^y, less E[y], of logits y whose largest is 0: all terms are >= 0."""
    weight = _only(p.on, exp((p.x - p.top()) * scale))
    y = (q.x - q.top()) * scale
    total = _only(q.on, exp(y)).sum()
    return _log(total) - (weight * _only(q.on, y)).sum() / weight.sum()


def _fast_divergence(p: _Operand, q: _Operand, scale: DoubleDouble, js: bool) -> tuple[DoubleDouble, Array]:
    """D, or JS, and where it is right.

    With x = log(q/p), but for what all have in common, and its mean under p nearly 0, log E[e^x] = log1p(E[x] + E[psi(x)]),
    and D is that less E[x]. An error that all x share changes nothing in D: so no exact mean is needed, if E[x] is known.
    """
    both, p_alone = p.on & q.on, p.on & ~q.on
    p_top, centre = p.top(), _at(q.x - p.x, np.argmax(np.where(both, p.x.high, -np.inf), axis=-1))
    weight = _only(p.on, exp((p.x - p_top) * scale))
    x = _only(both, ((q.x - p.x) - centre) * scale)
    of_both, of_p = _only(both, weight).sum(), weight.sum()
    mean = _only(of_both.high > 0, (weight * x).sum() / of_both)
    x = _only(both, x - _column(mean))
    rest = _only(of_both.high > 0, (weight * x).sum() / of_both)
    # Of q's weights, the logarithms, counted from where those of p and x are.
    y = ((q.x - p_top) - centre) * scale - _column(mean)
    most = DoubleDouble.of(np.where(q.on, y.high, -np.inf).max(axis=-1))
    share = _only(q.on, exp(y - _column(most)))
    plain = most + _log(share.sum()) - _log(of_p)
    k, _, psi = reduced_exp(DoubleDouble(x.high.clip(-1000, 1000), np.where(np.abs(x.high) < 1000, x.low, 0)))
    q_weight = share * _column(exp(most))
    terms = DoubleDouble.where(k == 0, weight * psi, q_weight - weight - weight * x)
    excess = DoubleDouble.where(both, terms, q_weight)
    small = (plain.high < PLAIN) & ~np.any(p_alone, axis=-1)
    log_mean = DoubleDouble.where(small, _log1p(_only(p.on | q.on, excess).sum() / of_p + rest), plain)
    equal = np.all((x.high == 0) & (p.on == q.on), axis=-1)
    if js:
        value = _fast_js(weight / _column(of_p), share / _column(share.sum()), x - _column(log_mean), both, p_alone)
    else:
        value = log_mean - rest
    return value, (value.high > LEAST_DIVERGENCE) | equal


def _fast_js(p: DoubleDouble, q: DoubleDouble, quotient: DoubleDouble, both: Array, p_alone: Array) -> DoubleDouble:
    """Half of the sum of phi(p, m) + phi(q, m), by the larger of both in each place, of which the other is e^t.

    An error that all t share changes JS by a share as small, for JS has its least near where the sums agree.
    """
    one, half = DoubleDouble.of(np.ones_like(p.high)), DoubleDouble.of(np.full_like(p.high, 0.5))
    t = DoubleDouble.where(quotient.high > 0, -quotient, quotient)
    t = DoubleDouble.where(both & (t.high > -FAINT), t, DoubleDouble.of(np.full_like(t.high, -FAINT)))
    k, r, psi = reduced_exp(t)
    smaller = (one + (r + psi)).scaled(k)
    d = DoubleDouble.where(k == 0, r + psi, smaller - one) * half
    mean = one + d
    larger = DoubleDouble.where(quotient.high > 0, q, p)
    terms = larger * (reference.phi(one, mean, -d) + reference.phi(smaller, mean, d))
    alone = LN2 * DoubleDouble.where(p_alone, p, q)
    return (DoubleDouble.where(both, terms, alone) * half).sum()


def _fast(measure: str, p: Array, q: Array, from_logits: Pair, temperature: float) -> tuple[DoubleDouble, Array]:
    """The measure of every row, and which of the values are right."""
    one, divisor = DoubleDouble.of(np.float64(1)), DoubleDouble.of(np.float64(temperature))
    inverse = one / divisor
    alike = all(from_logits)
    x, y = (_Operand(rows, logits, None if alike else inverse) for rows, logits in zip((p, q), from_logits, strict=True))
    scale = inverse if alike else one
    right = x.right & y.right & (LARGEST**-1 < temperature < LARGEST)
    if measure.startswith("js"):
        value, held = _fast_divergence(x, y, scale, js=True)
        return value, right & held & np.isfinite(value.high)
    if measure == "kl_divergence":
        value, held = _fast_divergence(x, y, scale, js=False)
    elif measure in ("entropy", "cross_entropy"):
        value, held = _fast_cross_entropy(x, y, scale), right
    else:
        return DoubleDouble.of(np.zeros(len(p))), np.zeros(len(p), bool)
    infinite = np.any(x.on & ~y.on, axis=-1)
    value = DoubleDouble.where(infinite, DoubleDouble.of(np.full(len(p), np.inf)), value)
    return value, infinite | (right & held & np.isfinite(value.high))


def evaluate(
    measure: str, p: Array, q: Array | None = None, from_logits: Pair = BOTH, temperature: float = 1.0
) -> DoubleDouble:
    """The measure of every row of the matrices."""
    if q is None:
        q, from_logits = p, (from_logits[0], from_logits[0])
    p, q = p.astype(float), q.astype(float)
    step = max(1, reference.BLOCK // p.shape[-1])
    high, low = np.empty(len(p)), np.empty(len(p))
    for start in range(0, len(p), step):
        block = slice(start, start + step)
        with np.errstate(all="ignore"):  # rows that double-double is not made for
            value, right = _fast(measure, p[block], q[block], from_logits, temperature)
            if measure == "js_distance":
                value = value.sqrt()
        high[block], low[block] = value.high, value.low
        for i in start + np.flatnonzero(~right):
            rows = reference.operands(measure, p[i], q[i])
            exact = DoubleDouble.rounded(DEFINITIONS[measure](*rows, from_logits=from_logits, temperature=temperature))
            high[i], low[i] = exact.high, exact.low
    return DoubleDouble(high, low)


def losses(q: Array, labels: Array, logits: bool = True, temperature: float = 1.0) -> DoubleDouble:
    """-log q[label] of every row: the cross-entropy of rows that are certain of their label."""
    certain = np.arange(q.shape[-1]) == labels[:, np.newaxis]
    return evaluate("cross_entropy", certain, q, (False, logits), temperature)


# What fastkl promises: D and JS are off by 32 eps of them at most, down to 1e-14, and by no more below; by 4 eps where they
# are nothing to a float. If the logarithms of one operand's probabilities are rounded, by 64 of double's eps times the
# root more. The root of JS is off by what its square may be. H and the cross-entropy by 32 eps H + 4 eps.
BOUND = dict.fromkeys(DEFINITIONS, 32)
LEAST_PROMISED = 1e-14
NOTHING = 2.0**-149


def error(measure: str, values: Array, exact: DoubleDouble, from_logits: Pair = BOTH) -> Array:
    """As reference.error: to be compared with BOUND."""
    if measure in ("entropy", "cross_entropy"):
        return reference.error(measure, values, exact, np.abs(exact.high) + 4 / 32)
    divergence = exact.high**2 if measure == "js_distance" else exact.high
    unit = np.where(divergence < NOTHING, 4 / 32, np.maximum(divergence, LEAST_PROMISED))
    if not all(from_logits):
        share = 64 * float(np.finfo(float).eps) / float(np.finfo(values.dtype).eps) / 32
        unit = unit + share * np.sqrt(divergence)
    if measure == "js_distance":  # (value + exact) (value - exact) is what the squares differ by
        unit = unit / np.maximum(values.astype(float) + exact.high, NOTHING)
    return reference.error(measure, values, exact, unit)
