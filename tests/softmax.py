"""The measures of logits and labels by definition, a row at a time, with mpmath. Knows nothing of fastkl.

A row of logits x stands for softmax(x / temperature). A distribution is a list of probabilities with their logarithms,
because the logarithm of a probability that is zero in any sum may still count. The divergences are sums of terms that are
never negative, so that the digits below are enough, however small a divergence is. Equal rows leave less than LEAST.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import reference
from mpmath import mp, mpf

if TYPE_CHECKING:
    from collections.abc import Callable

# The terms of a D have an error of at most the square of a rounded logarithm; the smallest D of interest is 10^-324. A
# logarithm below MIN_LOG is that of a probability so small that the largest double times it is less than such a D.
DIGITS = 200
LEAST = 60 - 2 * DIGITS
MIN_LOG = -1500


class Entry(NamedTuple):
    """A probability and its logarithm, -inf of none."""

    value: mpf
    log: mpf


Row = list[Entry]


def _exp(logarithm: mpf) -> mpf:
    return mp.exp(logarithm) if logarithm > MIN_LOG else mpf(0)


def _normalized(logs: list[mpf]) -> list[mpf]:
    most = max(logs)
    total = most + mp.log(mp.fsum(_exp(x - most) for x in logs))
    return [x - total for x in logs]


def distribution(row: Any, logits: bool = True, temperature: float = 1.0, eps: float = 0.0) -> Row:
    """The distribution that a row stands for. Eps clips the softmax, or the probabilities as they are given."""
    with mp.workdps(DIGITS):
        numbers = [mpf(float(x)) for x in row]
        if logits:
            logs = _normalized([x / mpf(float(temperature)) for x in numbers])
        else:
            logs = [mp.log(x) if x else -mp.inf for x in numbers]
        if eps:
            logs = [max(x, mp.log(mpf(float(eps)))) for x in logs]
        return [Entry(_exp(x), x) for x in _normalized(logs)]


def uniform(n: int) -> Row:
    with mp.workdps(DIGITS):
        return [Entry(1 / mpf(n), -mp.log(n))] * n


def entropy(p: Row, _: Row | None = None) -> mpf:
    return cross_entropy(p, p)


def cross_entropy(p: Row, q: Row) -> mpf:
    with mp.workdps(DIGITS):
        if any(x.log > -mp.inf and y.log == -mp.inf for x, y in zip(p, q, strict=True)):
            return mp.inf
        return -mp.fsum(x.value * y.log for x, y in zip(p, q, strict=True) if x.value)


def _divergence(p: Row, q: Row) -> mpf:
    if any(x.log > -mp.inf and y.log == -mp.inf for x, y in zip(p, q, strict=True)):
        return mp.inf
    terms = [x.value * (x.log - y.log) if x.value else 0 for x, y in zip(p, q, strict=True)]
    value = mp.fsum(term - (x.value - y.value) for term, x, y in zip(terms, p, q, strict=True))
    return value if value > mpf(10) ** LEAST else mpf(0)


def kl_divergence(p: Row, q: Row) -> mpf:
    with mp.workdps(DIGITS):
        return _divergence(p, q)


def js_divergence(p: Row, q: Row) -> mpf:
    with mp.workdps(DIGITS):
        sums = [x.value + y.value for x, y in zip(p, q, strict=True)]
        middle = [Entry(x / 2, mp.log(x / 2) if x else max(a.log, b.log)) for x, a, b in zip(sums, p, q, strict=True)]
        return (_divergence(p, middle) + _divergence(q, middle)) / 2


def js_distance(p: Row, q: Row) -> mpf:
    value = js_divergence(p, q)
    with mp.workdps(DIGITS):
        return mp.sqrt(value)


def loss(q: Row, label: int, smoothing: float = 0.0) -> mpf:
    """-log q[label], of which label smoothing spreads a share over all entries."""
    with mp.workdps(DIGITS):
        share = mpf(float(smoothing))
        weights = [(i == label) * (1 - share) + share / len(q) for i in range(len(q))]
        return -mp.fsum(weight * x.log for weight, x in zip(weights, q, strict=True) if weight)


# Which of p and q hold logits, for each value of from_logits.
OF_LOGITS: dict[Any, tuple[bool, bool]] = {
    True: (True, True),
    False: (False, False),
    "p": (True, False),
    "q": (False, True),
}


def _of_probabilities(definition: Callable[..., mpf]) -> Callable[..., mpf]:
    """The definition of reference.py, for a measure that needs no logarithm of a probability that is 0 to it."""
    return lambda p, q: definition([x.value for x in p], [x.value for x in q])


DEFINITIONS: dict[str, Callable[..., mpf]] = {
    name: _of_probabilities(definition) for name, definition in reference.DEFINITIONS.items()
} | {
    "entropy": entropy,
    "cross_entropy": cross_entropy,
    "kl_divergence": kl_divergence,
    "js_divergence": js_divergence,
    "js_distance": js_distance,
}


def allowed(measure: str, right: mpf, eps: float, least: float, mixed: bool = False) -> mpf:
    """How far a result may be from the right value, as documented; eps and least are those of the result's dtype.

    `mixed` says that one operand holds logits and one probabilities, whose logarithms are rounded to float64.
    """
    with mp.workdps(DIGITS):
        if measure in ("entropy", "cross_entropy"):
            return 32 * eps * right + 4 * eps
        divergence = right**2 if measure == "js_distance" else right
        bound = 32 * eps * max(divergence, mpf(10) ** -14) + least
        if mixed:
            bound += 64 * mpf(2) ** -52 * mp.sqrt(divergence)
        if measure == "js_distance":  # the bound is that of its square
            bound = min(bound / right, mp.sqrt(bound)) if right else mp.sqrt(bound)
        return bound
