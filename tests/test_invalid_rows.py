"""InvalidRowError: its fields say which entry or row of which operand is invalid and why, in the user's own operand.

test_messages.py has the texts, and the index on each axis and in broadcast operands.
"""

import copy
import itertools
import pickle

import numpy as np
import pytest
from support.measures import MEASURES, PAIR_MEASURES, entropy

import fastkl
from fastkl import InvalidRowError

ROWS = slice(None)


def invalid(call, *operands, **keywords):
    """The error of a call."""
    with pytest.raises(InvalidRowError) as caught:
        call(*operands, **keywords)
    assert all(type(i) in (int, slice) for i in caught.value.index)
    return caught.value


def fields(error):
    return error.operand, error.index, error.reason


def changed(operand, at, value):
    operand = operand.copy()
    operand[at] = value
    return operand


UNIFORM, ZEROS = np.full((5, 8), 1 / 8), np.zeros((5, 8))


@pytest.mark.parametrize(
    ("good", "at", "value", "reason", "keywords"),
    [
        (UNIFORM, (3, 7), -0.5, "negative", {}),
        *((UNIFORM, (3, 7), value, "not finite", {}) for value in (np.nan, np.inf, -np.inf)),
        *((ZEROS, (3, 7), value, "not finite", {"from_logits": True}) for value in (np.nan, np.inf)),
        (UNIFORM, (3,), 0.5, "sum", {}),
        (UNIFORM, (3,), 0, "sum", {"normalize": True}),
        (ZEROS, (3,), -np.inf, "no finite logit", {"from_logits": True}),
    ],
)
def test_an_invalid_row(good, at, value, reason, keywords):
    bad, entry = changed(good, at, value), at[1:]
    for measure in [*PAIR_MEASURES, fastkl.compare]:
        assert fields(invalid(measure, bad, good, **keywords)) == ("p", at, reason)
        assert fields(invalid(measure, good[0], bad, **keywords)) == ("q", at, reason)
        assert fields(invalid(measure, good, bad[3], **keywords)) == ("q", entry, reason)
        assert fields(invalid(measure, good.T, bad.T, axis=0, **keywords)) == ("q", (*(entry or [ROWS]), 3), reason)
        if "from_logits" in keywords:
            assert fields(invalid(measure, bad, UNIFORM, from_logits="p")) == ("p", at, reason)
    assert fields(invalid(fastkl.entropy, bad, **keywords)) == ("p", at, reason)
    assert fields(invalid(fastkl.nll, [0] * 5, bad, **keywords)) == ("q", at, reason)


def test_an_invalid_label():
    for label in -1, 8, 2**40:
        labels = changed(np.zeros((2, 5), int), (1, 3), label)
        for call in fastkl.nll, lambda labels, q: fastkl.compare(q, q, labels):
            assert fields(invalid(call, labels, np.array([UNIFORM, UNIFORM]))) == ("labels", (1, 3), "label")
            assert fields(invalid(call, label, UNIFORM[0])) == ("labels", (), "label")


@pytest.mark.parametrize("ndim", [1, 2, 3, 4])
def test_the_index_selects_the_entry_or_the_row(ndim):
    """For any strides of the operand."""
    shape = (3, 4, 5, 6)[:ndim]
    for axis, (value, reason) in itertools.product(range(ndim), [(-0.25, "negative"), (10, "sum")]):
        good = np.full(shape, 1 / shape[axis])
        bad = changed(good, tuple(2 * n // 3 for n in shape), value)
        for rows, measure in itertools.product((bad, np.asfortranarray(bad), bad[::-1]), MEASURES):
            for operands in [(rows, good)] if measure is entropy else [(rows, good), (good, rows)]:
                error = invalid(measure, *operands, axis=axis)
                assert (error.operand, error.reason) == ("p" if operands[0] is rows else "q", reason)
                selected = rows[error.index]
                assert selected == value if reason == "negative" else selected.shape == (shape[axis],) and value in selected


def test_it_is_a_value_error_that_pickles_and_copies():
    assert issubclass(InvalidRowError, ValueError)
    for error in (
        invalid(fastkl.entropy, [[0.5, 0.5], [1.5, -0.5]]),
        invalid(fastkl.entropy, np.ones((3, 2, 4)), axis=1).at((ROWS, 3), "file.npy: "),
        invalid(fastkl.nll, 7, [0.5, 0.5]),
    ):
        pickles = [pickle.loads(pickle.dumps(error, protocol)) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)]
        for other in copy.copy(error), copy.deepcopy(error), *pickles:
            assert type(other) is InvalidRowError
            assert other is not error
            assert (fields(other), str(other)) == (fields(error), str(error))


def test_the_message_follows_the_index():
    error = invalid(fastkl.kl_divergence, [[0.5, 0.5], [1.5, -0.5]], [0.5, 0.5])
    moved = error.at((12, 1), "scores.npy: ")
    assert str(moved) == "scores.npy: " + str(error).replace("p[1, 1]", "p[12, 1]")
    assert fields(moved) == ("p", (12, 1), "negative")
    assert str(moved.at((13, 1))).startswith("scores.npy: p[13, 1] = -0.5")
    assert error.at((3, ROWS, ROWS)).index == (3,)
    assert error.at((ROWS, 3, ROWS)).index == (ROWS, 3)
