"""Calls with logits and the assertions on their values, which logits_reference.py has."""

import functools

import numpy as np

import fastkl
from support import logits_reference, reference
from support.double_double import DoubleDouble
from support.inputs import encoded
from support.logits_reference import OF_LOGITS
from support.measures import EVERY, accepted, function, on_every_tier

MASK = -np.inf
DTYPES = ["f8", "f4"]
MEASURES = [measure.__name__ for measure in EVERY if accepted(measure, from_logits=True)]
DIVERGENCES = [name for name in MEASURES if not reference.DEFINITIONS[name].offset]

# Up to so many entries, the definition takes less time than double-double arithmetic.
FEW = 48

# Pairs of rows whose values are hard to compute, for each dtype: first masks, then logits of any size.
_MASKS_AND_SIZES = [
    # In p, in both, in q, or in either.
    ([0.5, MASK, 1.0, MASK], [0.0, 1.0, 2.0, 3.0]),
    ([0.5, MASK, 1.0, 2.0], [0.0, MASK, 2.0, 3.0]),
    ([0.5, MASK, 1.0, MASK], [0.0, MASK, 2.0, 3.0]),
    ([0.5, 0.0, 1.0, 2.0], [0.0, MASK, 2.0, 3.0]),
    ([0.0, MASK, 0.0], [0.0, 0.0, MASK]),
    ([0.5, MASK, 1.0, 2.0], [0.0, 3.0, MASK, 3.0]),
    # All but one, the same or another.
    ([MASK, MASK, 1.0, MASK], [0.0, 1.0, 2.0, 3.0]),
    ([0.5, 0.0, 1.0, 2.0], [MASK, MASK, 2.0, MASK]),
    ([MASK, MASK, 1.0, MASK], [MASK, MASK, -7.0, MASK]),
    ([MASK, MASK, 1.0, MASK], [MASK, 5.0, MASK, MASK]),
    # In q, where the weight underflows, in any type or in float32.
    ([0.0, -1e4, 1.0, 2.0], [0.0, MASK, 2.0, 3.0]),
    ([0.0, -1e30, 1.0, 2.0], [0.0, MASK, 2.0, 3.0]),
    ([0.0, -150.0, 1.0, 2.0], [0.0, MASK, 2.0, 3.0]),
    # In p at q's largest, hundreds and thousands above the others; in q, where p is small.
    ([0.0, MASK], [-700.0, 0.0]),
    ([0.0, MASK], [-800.0, 0.0]),
    ([0.0, MASK], [-1100.0, 0.0]),
    ([MASK, 0.0, -166.0], [1e4, -745.0, -1.0]),
    ([-1000.0, 0.0, -50.0], [0.0, -20.0, MASK]),
    # Any size.
    ([1.0, 0.0], [0.0, 1.0]),
    ([1e20, 0.0], [0.0, 100.0]),
    ([0.0, -1e20], [0.0, 100.0]),
    ([1e30, 0.0, -1e30], [0.0, 1e30, 1e30]),
    ([1e30, 1e30, -1e30], [1e30, -1e30, 1e30]),
    ([1e30, -2.0, 1.0], [43.0, -2.0, 1.0]),
    ([90.0, 0.0, 377.0, -1.0, 3e38], [-1100.0, -700.0, 90.0, -700.0, -700.0]),
    ([0.0, -10000.0], [0.0, -9999.0]),
    ([0.0, -80.0], [0.0, -81.0]),
    ([0.0, -90.0], [0.0, -91.0]),
    ([0.0, -700.0], [0.0, -701.0]),
    ([0.0, -20.0], [1.7e38, -3.4e38]),
    ([0.0, -1e4], [77.0, -6.5]),
    ([-105.0, -745.0], [0.0, -745.0]),
    ([1e30, 1.0, 2.0], [1e30, 2.0, 1.0]),
    ([1e-30, 0.0, -1e-40], [0.0, 1e-38, 1.0]),
    ([-80.0, -700.0, -1e4, -1e30], [-80.0, -700.0, -1e4, -1e30]),
    ([0.0, 88.0, -88.0, 104.0], [104.0, 88.0, 0.0, -104.0]),
    ([0.0, 709.0, -709.0, 745.0], [745.0, 709.0, 0.0, -745.0]),
]
HOSTILE = {
    "f4": _MASKS_AND_SIZES,
    "f8": [
        *_MASKS_AND_SIZES,
        ([1e300, 0.0, -1e300], [0.0, 1e300, 1e300]),
        ([1e300, 1e300, -1e300], [1e300, -1e300, 1e300]),
        ([4e307, -4e307, 0.0], [4e307, -4e307, 1e300]),
        ([4e307, -4e307], [-4e307, 4e307]),
        ([0.0, -20.0], [4e307, -4e307]),
        ([8e307, -0.5, -1100.0], [-1e30, 1.0, -1.0]),
        ([0.0, 5e291], [0.0, 5.0]),
        ([0.0, 5e291, 5e291], [0.0, 5.0, 5.0001]),
        ([0.0, 0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0, 4.4e307]),
        # A weight that is multiplied by so much shows what rounding takes from 1/3.
        ([0.0, -1900.0], [0.0, -1e300]),
    ],
}


def call(measure, p, q, from_logits=True, **keywords):
    """A measure by its name; the entropy needs only to know whether p holds logits."""
    if measure == "entropy":
        return fastkl.entropy(p, from_logits=OF_LOGITS[from_logits][0], **keywords)
    return function(measure)(p, q, from_logits=from_logits, **keywords)


@functools.cache
def _right(measure, p, q, shape, **of_logits):
    rows = [np.frombuffer(x).reshape(shape) for x in reference.operands(measure, p, q)]
    if rows[0].size > FEW:
        return logits_reference.evaluate(measure, *rows, **of_logits)
    definition = reference.DEFINITIONS[measure]
    found = [DoubleDouble.rounded(definition(*row, **of_logits)) for row in zip(*rows, strict=True)]
    return DoubleDouble(np.array([x.high for x in found]), np.array([x.low for x in found]))


def right(measure, p, q, from_logits=True, **keywords):
    """The right values for rows, or for one, which are computed once."""
    rows = [np.atleast_2d(np.asarray(x, float)) for x in (p, q)]
    return _right(measure, *(x.tobytes() for x in rows), rows[0].shape, from_logits=OF_LOGITS[from_logits], **keywords)


def assert_near(measure, values, exact, mixed=False, source=""):
    """Within the documented bound; `mixed` says that logarithms of probabilities are rounded."""
    values = np.atleast_1d(values)
    errors = logits_reference.error(measure, values, exact, mixed)
    i = int(np.argmax(errors))
    assert errors[i] <= reference.DEFINITIONS[measure].logits_bound, (
        f"{measure} is {values[i]!r}, should be {exact.high[i]!r}: off by {errors[i]:.3g} eps; row {i} of {source}"
    )
    assert not np.any(np.signbit(values)), f"{measure} is -0.0 in a row of {source}"


def assert_right(measure, p, q, exact=None, **keywords):
    """A call's values, of rows or of one, are right on every tier, or near those that are given."""
    mixed = keywords.get("from_logits", True) in ("p", "q") or keywords.get("eps", 0) > 0
    exact = right(measure, p, q, **keywords) if exact is None else exact
    for tier, values in on_every_tier(functools.partial(call, measure, p, q, **keywords)).items():
        assert_near(measure, values, exact, mixed, (tier, keywords, p, q))


def drawn(seed, n, shape):
    """Labels in rows of n entries."""
    return np.random.default_rng(seed).integers(0, n, shape)


def normal(seed, shape, dtype="f8", size=3):
    return encoded(np.random.default_rng(seed).standard_normal(shape) * size, np.dtype(dtype))


def operands(seed, shape, dtype, from_logits=True, masks=True):
    """Logits, or probabilities: with `masks`, p has some, or zeros, where q has none, and q has some in each third row."""
    rows = list(np.random.default_rng(seed).standard_normal((2, *shape)) * 4)
    if masks:
        rows[0][::5, ..., ::5] = rows[1][::3, ..., -1] = MASK
    for i, logits in enumerate(OF_LOGITS[from_logits]):
        if not logits:
            weights = np.exp(rows[i] - rows[i].max(axis=-1, keepdims=True))
            rows[i] = weights / weights.sum(axis=-1, keepdims=True)
    return [row.astype(dtype) for row in rows]
