"""InvalidRowError: its fields say which entry or row of which operand is invalid and why, in the user's own operand.

The texts of the messages are tested in test_messages.py.
"""

from __future__ import annotations

import copy
import pickle
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from measures import MEASURES, PAIR_MEASURES, entropy

import fastkl
from fastkl import InvalidRowError

if TYPE_CHECKING:
    from collections.abc import Callable

    Array = np.ndarray[Any, Any]

pytestmark = pytest.mark.usefixtures("tier")

ROWS = slice(None)


def invalid(call: Callable[..., Any], *operands: Any, **keywords: Any) -> InvalidRowError:
    """The error of a call."""
    with pytest.raises(InvalidRowError) as caught:
        call(*operands, **keywords)
    return caught.value


def fields(error: InvalidRowError) -> tuple[str, tuple[Any, ...], str]:
    assert all(type(i) in (int, slice) for i in error.index)
    return error.operand, error.index, error.reason


def uniform(*shape: int, axis: int = -1) -> Array:
    return np.full(shape, 1 / shape[axis])


def changed(operand: Array, at: Any, value: float) -> Array:
    operand = operand.copy()
    operand[at] = value
    return operand


@pytest.mark.parametrize(
    ("value", "reason"), [(-0.5, "negative"), (np.nan, "not finite"), (np.inf, "not finite"), (-np.inf, "not finite")]
)
@pytest.mark.parametrize("measure", PAIR_MEASURES)
def test_an_invalid_entry(measure: Callable[..., Any], value: float, reason: str) -> None:
    good = uniform(5, 9)
    bad = changed(good, (3, 7), value)
    assert fields(invalid(measure, bad, good)) == ("p", (3, 7), reason)
    assert fields(invalid(measure, good, bad)) == ("q", (3, 7), reason)
    assert fields(invalid(measure, good[0], bad)) == ("q", (3, 7), reason)
    assert fields(invalid(measure, good, bad[3])) == ("q", (7,), reason)
    assert fields(invalid(fastkl.entropy, bad)) == ("p", (3, 7), reason)
    assert fields(invalid(fastkl.nll, [0] * 5, bad)) == ("q", (3, 7), reason)


@pytest.mark.parametrize("measure", PAIR_MEASURES)
def test_an_invalid_sum(measure: Callable[..., Any]) -> None:
    good = uniform(5, 9)
    bad = changed(good, (3, 7), 2)
    assert fields(invalid(measure, bad, good)) == ("p", (3,), "sum")
    assert fields(invalid(measure, good, bad)) == ("q", (3,), "sum")
    assert fields(invalid(measure, good, bad[3])) == ("q", (), "sum")
    assert fields(invalid(measure, good.T, bad.T, axis=0)) == ("q", (ROWS, 3), "sum")
    assert fields(invalid(measure, good, 0 * good, normalize=True)) == ("q", (0,), "sum")
    assert fields(invalid(fastkl.nll, [0] * 5, bad)) == ("q", (3,), "sum")


@pytest.mark.parametrize("measure", [*PAIR_MEASURES, fastkl.compare])
def test_invalid_logits(measure: Callable[..., Any]) -> None:
    good = np.zeros((5, 9))
    masks = changed(good, 3, -np.inf)
    for value in np.nan, np.inf:
        bad = changed(good, (3, 7), value)
        assert fields(invalid(measure, good, bad, from_logits=True)) == ("q", (3, 7), "not finite")
        assert fields(invalid(measure, bad, uniform(5, 9), from_logits="p")) == ("p", (3, 7), "not finite")
    assert fields(invalid(measure, masks, good, from_logits=True)) == ("p", (3,), "no finite logit")
    assert fields(invalid(measure, good.T, masks.T, from_logits=True, axis=0)) == ("q", (ROWS, 3), "no finite logit")
    assert fields(invalid(fastkl.nll, [0] * 5, masks, from_logits=True)) == ("q", (3,), "no finite logit")


@pytest.mark.parametrize("label", [-1, 9, 2**40])
def test_an_invalid_label(label: int) -> None:
    q = uniform(2, 5, 9)
    labels = changed(np.zeros((2, 5), int), (1, 3), label)
    for call in fastkl.nll, lambda labels, q: fastkl.compare(q, q, labels):
        assert fields(invalid(call, labels, q)) == ("labels", (1, 3), "label")
        assert fields(invalid(call, labels[1], q)) == ("labels", (3,), "label")
        assert fields(invalid(call, label, q[0, 0])) == ("labels", (), "label")


@pytest.mark.parametrize("ndim", [1, 2, 3, 4])
@pytest.mark.parametrize("measure", MEASURES)
def test_the_index_selects_the_entry_or_the_row(measure: Callable[..., Any], ndim: int) -> None:
    """In the operand as the user passed it, along any axis and for any strides."""
    shape = (3, 4, 5, 6)[:ndim]
    rng = np.random.default_rng(ndim)
    for axis in range(-ndim, ndim):
        good = uniform(*shape, axis=axis)
        at = tuple(int(rng.integers(n)) for n in shape)
        for bad in changed(good, at, -0.25), np.asfortranarray(changed(good, at, -0.25)), changed(good, at, -0.25)[::-1]:
            error = invalid(measure, bad, good, axis=axis)
            assert error.reason == "negative"
            assert bad[error.index] == -0.25
            row = 3 * bad * (bad > 0)
            error = invalid(measure, row, good, axis=axis)
            assert error.reason == "sum"
            assert row[error.index].shape == (shape[axis],)
            if measure is not entropy:
                error = invalid(measure, good, bad, axis=axis)
                assert error.operand == "q"
                assert bad[error.index] == -0.25


@pytest.mark.parametrize(
    ("shape", "other", "axis", "at", "entry", "row"),
    [
        ((1, 7), (5, 7), -1, (0, 3), (0, 3), (0,)),
        ((7,), (2, 5, 7), -1, (3,), (3,), ()),
        ((4, 1, 7), (3, 7), -1, (2, 0, 6), (2, 0, 6), (2, 0)),
        ((7, 1), (7, 5), 0, (3, 0), (3, 0), (ROWS, 0)),
        ((7, 5), (2, 7, 5), -2, (3, 4), (3, 4), (ROWS, 4)),
        ((3, 1, 7), (3, 5, 7), 0, (2, 0, 6), (2, 0, 6), (ROWS, 0, 6)),
    ],
)
def test_the_index_of_a_broadcast_operand(shape: Any, other: Any, axis: int, at: Any, entry: Any, row: Any) -> None:
    """It is 0 on a broadcast axis, and axes that the operand does not have are left out."""
    good = uniform(*other, axis=axis)
    rows = uniform(*shape, axis=axis)
    for measure in PAIR_MEASURES:
        for operands in (lambda x: (x, good)), (lambda x: (good, x)):
            assert invalid(measure, *operands(changed(rows, at, -1)), axis=axis).index == entry
            assert invalid(measure, *operands(changed(rows, at, 2)), axis=axis).index == row


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_the_first_row_is_reported_for_any_number_of_threads(threads: int) -> None:
    p = uniform(20_000, 50)
    for columns in p, np.asfortranarray(p):
        bad = columns.copy(order="K")
        bad[7777, 3] = bad[7778:, 1] = bad[19_999, 0] = np.nan
        assert fields(invalid(fastkl.entropy, bad, threads=threads)) == ("p", (7777, 3), "not finite")


def test_it_is_a_value_error() -> None:
    assert issubclass(InvalidRowError, ValueError)
    with pytest.raises(ValueError, match=r"^p\[1\] = -0\.5"):
        fastkl.entropy([1.5, -0.5])


@pytest.mark.parametrize(
    "error",
    [
        invalid(fastkl.entropy, [[0.5, 0.5], [1.5, -0.5]]),
        invalid(fastkl.entropy, np.ones((3, 2, 4)), axis=1).at((ROWS, 3), "file.npy: "),
        invalid(fastkl.nll, 7, [0.5, 0.5]),
    ],
    ids=str,
)
@pytest.mark.parametrize(
    "duplicate",
    [
        copy.copy,
        copy.deepcopy,
        *(lambda x, i=i: pickle.loads(pickle.dumps(x, i)) for i in range(pickle.HIGHEST_PROTOCOL + 1)),
    ],
)
def test_it_pickles_and_copies(error: InvalidRowError, duplicate: Callable[[InvalidRowError], InvalidRowError]) -> None:
    other = duplicate(error)
    assert type(other) is InvalidRowError
    assert other is not error
    assert fields(other) == fields(error)
    assert str(other) == str(error)


def test_the_message_follows_the_index() -> None:
    error = invalid(fastkl.kl_divergence, [[0.5, 0.5], [1.5, -0.5]], [0.5, 0.5])
    moved = error.at((12, 1), "scores.npy: ")
    assert str(moved) == "scores.npy: " + str(error).replace("p[1, 1]", "p[12, 1]")
    assert fields(moved) == ("p", (12, 1), "negative")
    assert str(moved.at((13, 1))).startswith("scores.npy: p[13, 1] = -0.5")
    assert error.at((3, ROWS, ROWS)).index == (3,)
    assert error.at((ROWS, 3, ROWS)).index == (ROWS, 3)
