"""The measures, all with the same call: measure(p, q, **keywords); and assertions on their values."""

import functools
from inspect import signature

import numpy as np

import fastkl
from fastkl import _kernels
from support import reference


def entropy(p, _, **keywords):
    """The entropy of p, in the form of a measure of pairs."""
    return fastkl.entropy(p, **keywords)


def function(name):
    """The measure of this name in reference.DEFINITIONS, which is that of its function unless it has keywords."""
    definition = reference.DEFINITIONS[name]
    if name == "entropy":
        return entropy
    found = getattr(fastkl, definition.function)
    if definition.keywords:
        found = functools.partial(found, **definition.keywords)
        found.__name__ = name
    return found


def accepted(measure, **keywords):
    """Those of the keywords that the measure takes; the entropy does not name its own."""
    parameters = signature(fastkl.entropy if measure is entropy else measure).parameters
    return {name: value for name, value in keywords.items() if name in parameters}


# Every measure, with each choice of its keywords; one of each function; and those of distributions. Those with eps are
# infinite where q = 0 < p.
EVERY = [function(name) for name in reference.DEFINITIONS]
_FIRST = {definition.function: name for name, definition in [*reference.DEFINITIONS.items()][::-1]}
ONE_EACH = [x for x in EVERY if x.__name__ in _FIRST.values()]
MEASURES = [x for x in ONE_EACH if accepted(x, normalize=True)]
PAIR_MEASURES = [x for x in MEASURES if x is not entropy]
EPS_MEASURES = [x for x in PAIR_MEASURES if accepted(x, eps=0)]
DIVERGENCES = [x for x in MEASURES if not reference.DEFINITIONS[x.__name__].offset]
SYMMETRIC = [x for x in EVERY if reference.DEFINITIONS[x.__name__].symmetric]


def on_every_tier(compute):
    """What the function returns on each SIMD tier: for tests of which the expected value takes long to compute."""
    before, results = _kernels.tier_in_use(), {}
    try:
        for tier in _kernels.tiers():
            _kernels.use_tier(tier)
            results[tier] = compute()
    finally:
        _kernels.use_tier(before)
    return results


def clipped(measure, p, q, eps):
    """The rows in float64, which eps clips where the measure says so."""
    clips = reference.DEFINITIONS[measure.__name__].clips
    return [np.maximum(x.astype(float), eps if name in clips else 0) for name, x in zip("pq", (p, q), strict=True)]


def exact(measure, p, q, eps=0.0):
    """The right value of every row of weights, clipped by eps."""
    pair = clipped(measure, p, q, eps)
    return reference.evaluate(measure.__name__, *reference.operands(measure.__name__, *pair))


def assert_right(measure, values, p, q, right, source="", eps=0.0):
    """The error of each value is within the documented bound, and none is -0."""
    bounds = reference.DEFINITIONS[measure.__name__].bounds(*clipped(measure, p, q, eps))
    errors = reference.error(measure.__name__, values, right)
    i = (errors / bounds).argmax()
    with np.printoptions(threshold=6):
        assert np.all(errors <= bounds), (
            f"{measure.__name__} is {values[i]!r}: off by {errors[i]:.3g} eps; row {i}, p = {p[i]}, q = {q[i]}; {source}"
        )
    assert not np.any(np.signbit(values)), f"{measure.__name__} is -0.0 in a row; {source}"


def assert_right_everywhere(measure, p, q, right=None, source="", **keywords):
    """The values of rows, normalised by default, are right on every tier. Each tier's are returned."""
    right = exact(measure, p, q) if right is None else right
    keywords = accepted(measure, normalize=True) | keywords
    values = on_every_tier(lambda: measure(p, q, **keywords))
    for tier, found in values.items():
        assert_right(measure, found, p, q, right, f"{source}, {tier}", keywords.get("eps", 0))
    return values.values()


def assert_same_bits(values, expected, source=""):
    """The dtype, the shape and the bits are the same, of arrays or of each of several."""
    for value, wanted in zip(values, expected, strict=True) if isinstance(expected, tuple) else [(values, expected)]:
        assert (value.dtype, value.shape) == (wanted.dtype, wanted.shape), source
        if value.tobytes() != wanted.tobytes():
            np.testing.assert_array_equal(
                *(np.asarray(x).view(f"u{x.itemsize}") for x in (value, wanted)), err_msg=f"{source}"
            )
