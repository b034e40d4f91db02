"""The measures, all with the same call: measure(p, q, **keywords); and assertions on their values."""

from inspect import signature

import numpy as np

import fastkl
from fastkl import _kernels
from support import reference


def entropy(p, _, **keywords):
    """The entropy of p, in the form of a measure of pairs."""
    return fastkl.entropy(p, **keywords)


PAIR_MEASURES = [getattr(fastkl, name) for name in reference.DEFINITIONS if name != "entropy"]
MEASURES = [entropy, *PAIR_MEASURES]
EPS_MEASURES = [x for x in PAIR_MEASURES if "eps" in signature(x).parameters]  # which are also infinite where q = 0 < p


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


def exact(measure, p, q):
    """The right value of every row."""
    return reference.evaluate(measure.__name__, *reference.operands(measure.__name__, p, q))


def assert_right(measure, values, p, q, right, source=""):
    """The error of each value is within the documented bound, and none is -0."""
    errors = reference.error(measure.__name__, values, right)
    i = errors.argmax()
    with np.printoptions(threshold=6):
        assert errors[i] <= reference.BOUND[measure.__name__], (
            f"{measure.__name__} is {values[i]!r}: off by {errors[i]:.3g} eps; row {i}, p = {p[i]}, q = {q[i]}; {source}"
        )
    assert not np.any(np.signbit(values)), f"{measure.__name__} is -0.0 in a row; {source}"


def assert_right_everywhere(measure, p, q, right=None, source="", **keywords):
    """The values of rows, normalised by default, are right on every tier. Each tier's are returned."""
    right = exact(measure, p, q) if right is None else right
    values = on_every_tier(lambda: measure(p, q, **{"normalize": True, **keywords}))
    for tier, found in values.items():
        assert_right(measure, found, p, q, right, f"{source}, {tier}")
    return values.values()


def assert_same_bits(values, expected, source=""):
    """The dtype, the shape and the bits are the same, of arrays or of each of several."""
    for value, wanted in zip(values, expected, strict=True) if isinstance(expected, tuple) else [(values, expected)]:
        assert (value.dtype, value.shape) == (wanted.dtype, wanted.shape), source
        if value.tobytes() != wanted.tobytes():
            np.testing.assert_array_equal(
                *(np.asarray(x).view(f"u{x.itemsize}") for x in (value, wanted)), err_msg=f"{source}"
            )
