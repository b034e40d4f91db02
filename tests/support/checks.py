"""What tests of calls share: distributions, the texts of messages, and assertions on results, errors and memory."""

import tracemalloc

import numpy as np
import pytest

import fastkl

ENTRY = "probabilities must be finite and non-negative"
SUM = "rows must sum to 1 within 1.5e-08 (normalize=True accepts counts and weights)"
MASKED = "has masked entries: fill them, or leave them out, before the call"


def distributions(seed, shape=(5, 7), dtype=float, axis=-1):
    """Random distributions along the axis."""
    weights = np.random.default_rng(seed).random(shape)
    return (weights / weights.sum(axis=axis, keepdims=True)).astype(dtype)


def with_entry(at, value, operand):
    """A copy of the operand in which the entry has another value."""
    copy = operand.copy()
    copy[at] = value
    return copy


def assert_same(result, expected, name=""):
    """Assert that the result has the expected dtype, shape and bits. No result here is -0.0."""
    np.testing.assert_array_equal(np.asarray(result), np.asarray(expected), name, strict=True)


def assert_close(result, expected, name=""):
    """Assert equal dtypes and shapes, and that both are right: strides may change the order of addition, and with it bits.

    The bounds are 4 eps D for a D and 4 eps H + 2 eps for an H, and every H here is above 1/2: at most 16 eps apart.
    """
    result, expected = np.asarray(result), np.asarray(expected)
    rtol = 16 * np.finfo(expected.dtype).eps
    np.testing.assert_allclose(result, expected, rtol=rtol, atol=0, err_msg=name, strict=True)


def assert_refused(error, message, call, *args, **keywords):
    """Assert that the call raises that error with that message, where an ellipsis stands for words of another library."""
    with pytest.raises(error) as caught:
        call(*args, **keywords)
    assert type(caught.value) is error
    begun = message.removesuffix("...")
    text = str(caught.value)
    assert (text if begun == message else text[: len(begun)]) == begun


def assert_invalid(place, problem, call, *args, **keywords):
    """Assert that the call raises an InvalidRowError with a place such as "q[3, :, 1]" in its message and its fields."""
    with pytest.raises(fastkl.InvalidRowError) as caught:
        call(*args, **keywords)
    error = caught.value
    assert str(error) == f"{place}{problem}"
    operand, _, index = place.removesuffix("]").partition("[")
    parts = index.split(", ") if index else []
    assert error.operand == operand
    assert error.index == tuple(slice(None) if part == ":" else int(part) for part in parts)


def assert_allocates_less(limit, call):
    """Assert that Python and NumPy hold fewer bytes during a call than that, beside what they held before.

    A first call is not measured, because it may import modules. The least of three peaks counts, because other threads
    allocate, too: pytest-xdist's receives the numbers of some thousand tests at a time.
    """
    call()
    for _ in range(3):
        tracemalloc.start()
        try:
            call()
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        if peak < limit:
            return
    raise AssertionError(f"{peak} bytes, not less than {limit:.0f}")
