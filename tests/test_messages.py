"""The text of every error. The index in a message is the one that shows the value in the user's operand."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from measures import EPS_MEASURES, PAIR_MEASURES

import fastkl
from fastkl import InvalidRowError
from fastkl.call import BFLOAT16

if TYPE_CHECKING:
    from collections.abc import Callable

    Array = np.ndarray[Any, Any]

MEASURES = [fastkl.entropy, *PAIR_MEASURES]
HALF = [0.5, 0.5]

ENTRY = "probabilities must be finite and non-negative"
SUM = "rows must sum to 1 within 1.5e-08 (normalize=True accepts counts and weights)"
POSITIVE = "rows must have a positive sum"
NLL = "class labels go to fastkl.nll"
LOGIT = "logits must be finite or -inf"
NO_LOGIT = "has no finite entry: a row of logits must have one"
DTYPES = "must be float64, float32, float16, bfloat16, bool or an integer dtype"


def assert_refused(error: type[Exception], message: str, call: Callable[..., Any], *args: Any, **keywords: Any) -> None:
    with pytest.raises(error) as caught:
        call(*args, **keywords)
    assert type(caught.value) is error
    assert str(caught.value) == message


def uniform(*shape: int, axis: int = -1, dtype: Any = float) -> Array:
    return np.full(shape, 1 / shape[axis], dtype)


def with_entry(at: Any, value: float, operand: Array) -> Array:
    copy = operand.copy()
    copy[at] = value
    return copy


# ---- rows that are not distributions ----

# The kernels find the row, and whether its entries or its sum are wrong.
on_every_tier = pytest.mark.usefixtures("tier")


@on_every_tier
def test_examples_of_the_specification() -> None:
    p, q = uniform(2000, 10), uniform(2000, 10)
    for measure in PAIR_MEASURES:
        assert_refused(InvalidRowError, f"p[1234, 7] = -0.1: {ENTRY}", measure, with_entry((1234, 7), -0.1, p), q)
        assert_refused(InvalidRowError, f"q[12] sums to 0.97: {SUM}", measure, p, with_entry((12, 3), 0.07, q))
    assert_refused(InvalidRowError, f"p[1234, 7] = -0.1: {ENTRY}", fastkl.entropy, with_entry((1234, 7), -0.1, p))


@on_every_tier
@pytest.mark.parametrize(
    ("value", "shown"),
    [(-0.1, "-0.1"), (np.nan, "nan"), (-np.nan, "nan"), (np.inf, "inf"), (-np.inf, "-inf"), (-1e30, "-1e+30")],
)
@pytest.mark.parametrize("dtype", ["f8", "f4", ">f8", "<f4"])
def test_values_are_shown_as_they_print(dtype: str, value: float, shown: str) -> None:
    bad, good = with_entry((1, 2), value, uniform(3, 4, dtype=dtype)), uniform(3, 4)
    for keywords in {}, {"normalize": True}:
        assert_refused(InvalidRowError, f"p[1, 2] = {shown}: {ENTRY}", fastkl.entropy, bad, **keywords)
        for measure in PAIR_MEASURES:
            assert_refused(InvalidRowError, f"p[1, 2] = {shown}: {ENTRY}", measure, bad, good, **keywords)
            assert_refused(InvalidRowError, f"q[1, 2] = {shown}: {ENTRY}", measure, good, bad, **keywords)


@on_every_tier
@pytest.mark.parametrize("dtype", ["i1", "i2", "i4", "i8"])
def test_negative_integers(dtype: str) -> None:
    counts = np.array([[1, 0], [3, -2]], dtype)
    for normalize in False, True:
        assert_refused(InvalidRowError, f"p[1, 1] = -2: {ENTRY}", fastkl.entropy, counts, normalize=normalize)


@on_every_tier
def test_tolerance_is_that_of_the_dtype() -> None:
    """And the sum is shown with so many digits that it differs from 1."""
    accepted = "normalize=True accepts counts and weights"
    for dtype, shown, tolerance in (
        ("f8", "1.00000002", "1.5e-08"),
        ("f8", "0.99999998", "1.5e-08"),
        ("f4", "1.0625", "0.00035"),
        ("i4", "2", "1.5e-08"),
        ("?", "2", "1.5e-08"),
    ):
        row = np.array([0.5, float(shown) - 0.5] if dtype[0] == "f" else [1, 1], dtype)
        message = f" sums to {shown}: rows must sum to 1 within {tolerance} ({accepted}"
        assert_refused(InvalidRowError, f"p{message})", fastkl.entropy, row)
        for measure in PAIR_MEASURES:
            labels = f"; {NLL}" if measure is fastkl.cross_entropy and dtype == "i4" else ""
            assert_refused(InvalidRowError, f"p{message}{labels})", measure, row, HALF)
            assert_refused(InvalidRowError, f"q{message})", measure, HALF, row)


@on_every_tier
def test_integers_in_cross_entropy_that_could_be_labels() -> None:
    labels, q = np.array([[2, 0]]), uniform(1, 2)
    message = f"p[0] sums to 2: {SUM[:-1]}; {NLL})"
    assert_refused(InvalidRowError, message, fastkl.cross_entropy, labels, q)
    assert_refused(InvalidRowError, f"p sums to 2: {SUM[:-1]}; {NLL})", fastkl.cross_entropy, labels[0], q)
    for zeros in [0, 0], np.zeros(2, np.uint8):
        message = f"p sums to 0: {POSITIVE} ({NLL})"
        assert_refused(InvalidRowError, message, fastkl.cross_entropy, zeros, q, normalize=True)
    message = f"must have the same length along axis -1, not 3 and 2; {NLL}"
    assert_refused(
        ValueError, f"p has shape (3,) and q has shape (3, 2): {message}", fastkl.cross_entropy, [0, 1, 0], uniform(3, 2)
    )
    # Other measures and dtypes do not hint at labels.
    assert_refused(InvalidRowError, f"p[0] sums to 2: {SUM}", fastkl.kl_divergence, labels, q)
    assert_refused(InvalidRowError, f"p[0] sums to 2: {SUM}", fastkl.cross_entropy, labels.astype(float), q)


@on_every_tier
def test_a_sum_of_zero() -> None:
    zeros = np.zeros(2)
    for rows, place in (zeros, "p"), (np.array([HALF, zeros]), "p[1]"):
        assert_refused(InvalidRowError, f"{place} sums to 0: {SUM}", fastkl.entropy, rows)
        assert_refused(InvalidRowError, f"{place} sums to 0: {POSITIVE}", fastkl.entropy, rows, normalize=True)
    for measure in PAIR_MEASURES:
        assert_refused(InvalidRowError, f"q sums to 0: {POSITIVE}", measure, HALF, zeros, normalize=True)
        assert_refused(InvalidRowError, f"p sums to 0: {POSITIVE}", measure, zeros, zeros, normalize=True)


@on_every_tier
def test_a_sum_beside_a_much_larger_one() -> None:
    for measure in PAIR_MEASURES:
        assert_refused(InvalidRowError, f"q sums to 1e+30: {SUM}", measure, HALF, [5e29, 5e29])
        assert_refused(InvalidRowError, f"p sums to 1e+30: {SUM}", measure, [5e29, 5e29], HALF)


@on_every_tier
@pytest.mark.parametrize("apart", [1, 100_000])
def test_a_sum_that_overflows(apart: int) -> None:
    row = np.zeros(apart + 1)
    row[[0, -1]] = 1.5e308
    assert_refused(InvalidRowError, f"p sums to inf: {SUM}", fastkl.entropy, row)


@on_every_tier
def test_the_sum_in_a_message_is_that_before_clipping() -> None:
    for measure in EPS_MEASURES:
        assert_refused(InvalidRowError, f"q sums to 0.9: {SUM}", measure, HALF, [0.9, 0], eps=0.1)


@on_every_tier
def test_the_first_row_counts_then_p_then_the_first_column() -> None:
    good = uniform(5, 4)
    p, q = with_entry((3, 1), -1, good), with_entry((2, 0), -2, good)
    for measure in PAIR_MEASURES:
        assert_refused(InvalidRowError, f"q[2, 0] = -2.0: {ENTRY}", measure, p, q)
        assert_refused(InvalidRowError, f"p[2, 0] = -2.0: {ENTRY}", measure, q, p)
        assert_refused(InvalidRowError, f"p[3, 1] = -1.0: {ENTRY}", measure, p, p)
        assert_refused(InvalidRowError, f"p[3] sums to 0.75: {SUM}", measure, with_entry((3, 1), 0, good), good)
    p = with_entry(([1, 1, 4], [3, 2, 0]), [-1, np.nan, -3], good)
    assert_refused(InvalidRowError, f"p[1, 2] = nan: {ENTRY}", fastkl.entropy, p)


@on_every_tier
def test_an_entry_counts_before_its_rows_sum() -> None:
    assert_refused(InvalidRowError, f"p[0, 3] = -1.0: {ENTRY}", fastkl.entropy, [[5, 5, 5, -1.0]])


@on_every_tier
@pytest.mark.parametrize("column", [0, 65_535, 65_536, 199_999])
def test_any_column_of_a_wide_row(column: int) -> None:
    row = with_entry(column, np.inf, uniform(200_000))
    assert_refused(InvalidRowError, f"p[{column}] = inf: {ENTRY}", fastkl.entropy, row)
    assert_refused(InvalidRowError, f"p[1, {column}] = inf: {ENTRY}", fastkl.entropy, np.array([uniform(200_000), row]))


@on_every_tier
@pytest.mark.parametrize("ndim", [1, 2, 3, 4])
def test_the_index_is_the_users_for_any_axis(ndim: int) -> None:
    shape = (3, 4, 5, 6)[:ndim]
    rng = np.random.default_rng(1)
    for axis in range(-ndim, ndim):
        for at in (tuple(int(rng.integers(n)) for n in shape) for _ in range(3)):
            rows = with_entry(at, -0.25, uniform(*shape, axis=axis))
            place = f"p[{', '.join(map(str, at))}]"
            assert_refused(InvalidRowError, f"{place} = -0.25: {ENTRY}", fastkl.entropy, rows, axis=axis)
            assert eval(place, {"p": rows}) == -0.25

            rows = with_entry(at, 9 + 1 / shape[axis], uniform(*shape, axis=axis))
            index = [":" if i == axis % ndim else str(at[i]) for i in range(ndim)]
            if axis in (-1, ndim - 1):
                index.pop()
            place = f"p[{', '.join(index)}]" if index else "p"
            assert_refused(InvalidRowError, f"{place} sums to 10: {SUM}", fastkl.entropy, rows, axis=axis)
            assert eval(place, {"p": rows}).sum() == pytest.approx(10)


@on_every_tier
@pytest.mark.parametrize(
    ("p_shape", "q_shape", "axis", "at", "place", "row"),
    [
        ((5, 7), (7,), -1, 3, "[3]", ""),
        ((5, 7), (1, 7), -1, (0, 3), "[0, 3]", "[0]"),
        ((5, 7), (5, 7), 0, (3, 4), "[3, 4]", "[:, 4]"),
        ((7, 5), (7, 1), 0, (3, 0), "[3, 0]", "[:, 0]"),
        ((2, 7, 5), (7, 5), -2, (3, 4), "[3, 4]", "[:, 4]"),
        ((2, 7, 5), (7, 1), -2, (3, 0), "[3, 0]", "[:, 0]"),
        ((4, 1, 7), (3, 7), -1, (2, 6), "[2, 6]", "[2]"),
        ((4, 1, 7), (1, 3, 7), -1, (0, 2, 6), "[0, 2, 6]", "[0, 2]"),
        ((1, 7), (2, 4, 1, 7), -1, (1, 2, 0, 6), "[1, 2, 0, 6]", "[1, 2, 0]"),
        ((3, 1, 7), (3, 5, 7), 0, (2, 4, 6), "[2, 4, 6]", "[:, 4, 6]"),
    ],
)
def test_the_index_is_the_users_for_a_broadcast_operand(
    p_shape: Any, q_shape: Any, axis: int, at: Any, place: str, row: str
) -> None:
    """Not one into the broadcast shape."""
    p, q = uniform(*p_shape, axis=axis), uniform(*q_shape, axis=axis)
    for measure in PAIR_MEASURES:
        bad = with_entry(at, -0.25, q)
        assert_refused(InvalidRowError, f"q{place} = -0.25: {ENTRY}", measure, p, bad, axis=axis)
        assert_refused(InvalidRowError, f"p{place} = -0.25: {ENTRY}", measure, bad, p, axis=axis)
        bad = with_entry(at, 2 + q[at], q)
        assert_refused(InvalidRowError, f"q{row} sums to 3: {SUM}", measure, p, bad, axis=axis)
        assert_refused(InvalidRowError, f"p{row} sums to 3: {SUM}", measure, bad, p, axis=axis)


@on_every_tier
def test_strided_operands_are_indexed_as_they_came() -> None:
    rows = with_entry((3, 4), -1, uniform(6, 10))
    assert_refused(InvalidRowError, f"p[2, 5] = -1.0: {ENTRY}", fastkl.entropy, rows[::-1, ::-1], normalize=True)
    assert_refused(InvalidRowError, f"p[4, 3] = -1.0: {ENTRY}", fastkl.entropy, rows.T, normalize=True, axis=0)
    assert_refused(InvalidRowError, f"p[0, 3] = -1.0: {ENTRY}", fastkl.entropy, rows.T[4:], axis=0, normalize=True)


# ---- logits and labels ----


@on_every_tier
@pytest.mark.parametrize(("value", "shown"), [(np.nan, "nan"), (-np.nan, "nan"), (np.inf, "inf")])
@pytest.mark.parametrize("dtype", ["f8", "f4", "e", ">f8", "<f4"])
def test_invalid_logits(dtype: str, value: float, shown: str) -> None:
    bad, good = with_entry((1, 7), value, np.zeros((3, 9), dtype)), np.zeros((3, 9))
    logits: dict[str, Any] = {"from_logits": True}
    assert_refused(InvalidRowError, f"p[1, 7] = {shown}: {LOGIT}", fastkl.entropy, bad, **logits)
    for measure in (*PAIR_MEASURES, fastkl.compare):
        assert_refused(InvalidRowError, f"p[1, 7] = {shown}: {LOGIT}", measure, bad, good, **logits)
        assert_refused(InvalidRowError, f"q[1, 7] = {shown}: {LOGIT}", measure, good, bad, **logits)
        assert_refused(InvalidRowError, f"p[1, 7] = {shown}: {LOGIT}", measure, bad, bad, **logits)
        assert_refused(InvalidRowError, f"q[7, 1] = {shown}: {LOGIT}", measure, good.T, bad.T, axis=0, **logits)
        assert_refused(InvalidRowError, f"q[7] = {shown}: {LOGIT}", measure, good, bad[1], **logits)
    labels = np.zeros(3, int)
    assert_refused(InvalidRowError, f"q[1, 7] = {shown}: {LOGIT}", fastkl.nll, labels, bad, **logits)


@on_every_tier
def test_logits_without_a_finite_entry() -> None:
    good = np.zeros((5, 4))
    masks = with_entry(3, -np.inf, good)
    logits: dict[str, Any] = {"from_logits": True}
    assert_refused(InvalidRowError, f"p[3] {NO_LOGIT}", fastkl.entropy, masks, **logits)
    assert_refused(InvalidRowError, f"p {NO_LOGIT}", fastkl.entropy, masks[3], **logits)
    for measure in (*PAIR_MEASURES, fastkl.compare):
        assert_refused(InvalidRowError, f"p[3] {NO_LOGIT}", measure, masks, good, **logits)
        assert_refused(InvalidRowError, f"q[3] {NO_LOGIT}", measure, good, masks, **logits)
        assert_refused(InvalidRowError, f"q[:, 3] {NO_LOGIT}", measure, good.T, masks.T, axis=0, **logits)
    assert_refused(InvalidRowError, f"q[3] {NO_LOGIT}", fastkl.nll, np.zeros(5, int), masks, **logits)


@on_every_tier
def test_messages_for_one_operand_of_logits() -> None:
    logits, probabilities = np.zeros((3, 4)), uniform(3, 4)
    bad_logits, bad = with_entry((2, 1), np.nan, logits), with_entry((2, 1), -0.5, probabilities)
    far = with_entry((2, 1), 1.25, probabilities)
    for measure in (*PAIR_MEASURES, fastkl.compare):
        for p, q, name, message in (
            (bad_logits, probabilities, "p[2, 1] = nan", LOGIT),
            (logits, bad, "q[2, 1] = -0.5", ENTRY),
            (logits, far, "q[2] sums to 2", SUM),
        ):
            assert_refused(InvalidRowError, f"{name}: {message}", measure, p, q, from_logits="p")
            swapped = name.translate(str.maketrans("pq", "qp"))
            assert_refused(InvalidRowError, f"{swapped}: {message}", measure, q, p, from_logits="q")


@on_every_tier
def test_invalid_labels() -> None:
    q = uniform(8, 1000)
    zeros = np.zeros(8, int)
    for keywords in {}, {"from_logits": True}, {"normalize": True}:
        for label in 1000, -1, 2**40, -(2**63):
            message = f"labels[5] = {label}: labels must be in 0..999"
            assert_refused(InvalidRowError, message, fastkl.nll, with_entry(5, label, zeros), q, **keywords)
            assert_refused(InvalidRowError, message, fastkl.compare, q, q, with_entry(5, label, zeros), **keywords)
    message = "labels must be in 0..999"
    of_uint64 = np.full(8, 2**64 - 1, np.uint64)
    assert_refused(InvalidRowError, f"labels[0] = {2**64 - 1}: {message}", fastkl.nll, of_uint64, q)
    assert_refused(InvalidRowError, f"labels = 1000: {message}", fastkl.nll, 1000, q[0])
    assert_refused(InvalidRowError, f"labels[0] = -7: {message}", fastkl.nll, [-7], q)
    cube = np.full((2, 3, 4), 1 / 4)
    message = "labels[1, 2] = 4: labels must be in 0..3"
    assert_refused(InvalidRowError, message, fastkl.nll, with_entry((1, 2), 4, np.zeros((2, 3), int)), cube)
    transposed = np.moveaxis(cube, -1, 0)
    assert_refused(InvalidRowError, message, fastkl.nll, with_entry((1, 2), 4, np.zeros((2, 3), int)), transposed, axis=0)
    message = "labels[0, 2] = 9: labels must be in 0..3"
    assert_refused(InvalidRowError, message, fastkl.nll, [[0, 0, 9]], cube)
    assert_refused(InvalidRowError, "labels[2] = 9: labels must be in 0..3", fastkl.compare, cube, cube, [0, 0, 9])
    assert_refused(InvalidRowError, "labels = 9: labels must be in 0..3", fastkl.nll, 9, cube[0, 0])


# ---- arguments ----


@pytest.mark.parametrize(
    "value",
    ["yes", "", "P", "pq", b"p", None, 1, 0, (True,), (True, False), [False, True], (True, False, True), (1, 0), ("p", "q"),
     [], {}, 1.0],
    ids=repr,
)  # fmt: skip
def test_from_logits(value: Any) -> None:
    error = ValueError if isinstance(value, str) else TypeError
    pair = f"from_logits={value!r}: must be False, True, 'p' or 'q'"
    for measure in (*PAIR_MEASURES, fastkl.compare):
        assert_refused(error, pair, measure, HALF, HALF, from_logits=value)
    one = f"from_logits={value!r}: must be a bool"
    assert_refused(error, one, fastkl.entropy, HALF, from_logits=value)
    assert_refused(error, one, fastkl.nll, 0, HALF, from_logits=value)


@pytest.mark.parametrize("name", ["p", "q"])
def test_entropy_and_nll_have_one_operand_of_logits(name: str) -> None:
    message = f"from_logits={name!r}: must be a bool"
    assert_refused(ValueError, message, fastkl.entropy, HALF, from_logits=name)
    assert_refused(ValueError, message, fastkl.nll, [0], [HALF], from_logits=name)


@on_every_tier
def test_from_logits_names_an_operand() -> None:
    logits, rows = np.array([[0.0, -np.inf], [1.0, 1.0]]), np.array([[1.0, 0.0], [0.5, 0.5]])
    for measure in PAIR_MEASURES:
        both = measure(rows, rows)
        np.testing.assert_array_equal(measure(logits, rows, from_logits="p"), both)
        np.testing.assert_array_equal(measure(rows, logits, from_logits="q"), both)
        np.testing.assert_array_equal(measure(logits, logits, from_logits=True), both)
    for flag in True, np.True_:
        assert fastkl.nll([0], [[0.0, -np.inf]], from_logits=flag) == [0]


@pytest.mark.parametrize("measure", [*MEASURES, fastkl.compare])
def test_temperature(measure: Any) -> None:
    operands = [HALF] * (1 if measure is fastkl.entropy else 2)
    for value in 0, 0.0, -0.0, -1, np.inf, -np.inf, np.nan, 10**400, False:
        message = f"temperature={value!r}: must be a positive finite number"
        assert_refused(ValueError, message, measure, *operands, from_logits=True, temperature=value)
    for value in "x", "1", b"1", None, 1j, [1.0, 2.0], (), {}:
        message = f"temperature={value!r}: must be a positive finite number"
        assert_refused(TypeError, message, measure, *operands, from_logits=True, temperature=value)
        assert_refused(TypeError, message, measure, *operands, temperature=value)
    message = "temperature=array([1, 1]): must be a positive finite number"
    assert_refused(TypeError, message, measure, *operands, temperature=np.array([1, 1]))
    message = "temperature=2.0: must be 1 where no operand holds logits"
    assert_refused(ValueError, message, measure, *operands, temperature=2.0)
    for value in 1, True, np.float32(1), 1.0:
        measure(*operands, temperature=value)


def test_label_smoothing() -> None:
    wanted = "must be a number with 0 <= label_smoothing <= 1"
    for value in 2, -0.1, 1.0000001, np.nan, np.inf, -np.inf, 10**400:
        assert_refused(ValueError, f"label_smoothing={value!r}: {wanted}", fastkl.nll, [0], [HALF], label_smoothing=value)
    for value in "x", "0.1", None, 1j, [0.1, 0.2], {}:
        assert_refused(TypeError, f"label_smoothing={value!r}: {wanted}", fastkl.nll, [0], [HALF], label_smoothing=value)
    for value in 0, 1, True, np.float32(0.5), 5e-324:
        assert fastkl.nll([0], [HALF], label_smoothing=value, base=2) == [1]


def test_ignore_index() -> None:
    for value in 1.5, "1", None.__class__, [1], np.array([1, 2]), 1j:
        message = f"ignore_index={value!r}: must be None or an integer"
        assert_refused(TypeError, message, fastkl.nll, [0], [HALF], ignore_index=value)
        assert_refused(TypeError, message, fastkl.compare, [HALF], [HALF], [0], ignore_index=value)
    for value in -100, np.int8(-1), 2**70, True:
        assert fastkl.nll([0], [HALF], ignore_index=value, base=2) == [1]


def test_ignore_index_without_labels_to_compare() -> None:
    assert_refused(ValueError, "ignore_index=-100: only with labels", fastkl.compare, HALF, HALF, ignore_index=-100)


@pytest.mark.parametrize("dtype", ["f8", "f4", "?", "e", BFLOAT16], ids=str)
def test_labels_of_another_dtype_than_integers(dtype: Any) -> None:
    labels = np.zeros(2, dtype)
    rows = [HALF, HALF]
    message = f"labels has dtype {labels.dtype}: must be an integer dtype"
    assert_refused(TypeError, message, fastkl.compare, rows, rows, labels)
    assert_refused(TypeError, message, fastkl.nll, labels, rows)


def test_labels_of_a_dtype_that_is_not_read() -> None:
    for labels in ["a", "b"], np.zeros(2, "c16"), np.zeros(2, "M8[s]"), [None, 1]:
        message = f"labels has dtype {np.asarray(labels).dtype}: {DTYPES}"
        assert_refused(TypeError, message, fastkl.compare, [HALF] * 2, [HALF] * 2, labels)
        assert_refused(TypeError, message, fastkl.nll, labels, [HALF] * 2)


@pytest.mark.parametrize("shape", [(2,), (2, 2), (2, 4), (3, 2), (5, 2, 4), (2, 3, 2)])
def test_labels_that_do_not_fit(shape: tuple[int, ...]) -> None:
    cube, labels = np.full((2, 3, 2), 0.5), np.zeros(shape, int)
    rows = (2, 3) if len(shape) < 3 else (1, 2, 3)
    message = f"labels has shape {shape}: must have the shape {rows} of the rows, or broadcast with it"
    assert_refused(ValueError, message, fastkl.compare, cube, cube, labels)
    assert_refused(ValueError, message, fastkl.nll, labels, cube)


@pytest.mark.parametrize(
    ("p_shape", "q_shape", "axis", "reason"),
    [
        ((5, 7), (5, 8), -1, "must have the same length along axis -1, not 7 and 8"),
        ((5, 7), (5, 1), -1, "must have the same length along axis -1, not 7 and 1"),
        ((5, 7), (1,), -1, "must have the same length along axis -1, not 7 and 1"),
        ((5, 7), (6, 7), 0, "must have the same length along axis -2, not 5 and 6"),
        ((5, 7), (5,), 0, "must have the same length along axis -2, not 5 and 1"),
        ((5, 7), (0,), -1, "must have the same length along axis -1, not 7 and 0"),
        ((5, 7), (6, 7), -1, "all axes except axis -1 must broadcast"),
        ((5, 7), (5, 6), 0, "all axes except axis -2 must broadcast"),
        ((2, 5, 7), (3, 1, 7), 2, "all axes except axis -1 must broadcast"),
        ((5, 7), (0, 7), -1, "all axes except axis -1 must broadcast"),
    ],
)
@pytest.mark.parametrize("measure", PAIR_MEASURES)
def test_shapes_that_do_not_fit(measure: Any, p_shape: Any, q_shape: Any, axis: int, reason: str) -> None:
    p, q = np.ones(p_shape), np.ones(q_shape)
    assert_refused(ValueError, f"p has shape {p_shape} and q has shape {q_shape}: {reason}", measure, p, q, axis=axis)


@pytest.mark.parametrize("measure", MEASURES)
def test_axis(measure: Any) -> None:
    operands = [uniform(2, 3, 4)] * (1 if measure is fastkl.entropy else 2)
    for axis in 3, -4, 2**70:
        message = f"axis={axis}: must be in -3..2 for operands with 3 axes"
        assert_refused(np.exceptions.AxisError, message, measure, *operands, axis=axis)
    for axis in None, 1.0, "0", (0,), [0, 1], np.array([0, 1]):
        assert_refused(TypeError, f"axis={axis!r}: must be an integer", measure, *operands, axis=axis)
    if len(operands) == 2:
        message = "axis=-4: must be in -3..2 for operands with 3 axes"
        assert_refused(np.exceptions.AxisError, message, measure, uniform(4), operands[1], axis=-4)


@pytest.mark.parametrize(("shape", "axis"), [((0,), 0), ((3, 0), 1), ((0, 3), 0), ((2, 0, 3), 1), ((0, 0), -1)])
def test_an_empty_distribution_axis(shape: tuple[int, ...], axis: int) -> None:
    nothing = np.empty(shape)
    from_the_end = axis if axis < 0 else axis - len(shape)
    message = f"p has shape {shape}: the distribution axis, axis {from_the_end}, must not be empty"
    assert_refused(ValueError, message, fastkl.entropy, nothing, axis=axis)
    for measure in PAIR_MEASURES:
        assert_refused(ValueError, message, measure, nothing, nothing, axis=axis)


WANTED = {
    "base": "None or a finite number above 1",
    "eps": "a number with 0 <= eps < 1",
    "threads": "None or a positive integer",
    "invalid": "'raise', 'nan' or 'ignore'",
}
UNWANTED = [
    ("base", ValueError, [0, -2, 1, 1.0, True, 0.0, 0.5, np.nextafter(1, 0), 5e-324, np.inf, np.nan, -np.inf, 10**400]),
    ("base", TypeError, ["e", "2", b"2", 2j, [2], (), {}, np.array([2.0, 3.0])]),
    ("eps", ValueError, [-1e-9, 1, 1.5, True, np.inf, np.nan, -np.inf, 10**400]),
    ("eps", TypeError, [None, "tiny", "0.1", 0.1j, [0.1], {}]),
    ("threads", ValueError, [0, -1, -(2**70), True, False]),
    ("threads", TypeError, [1.0, "2", [1], np.nan, np.array([1, 2])]),
    ("invalid", ValueError, ["", "RAISE", None, 0, True, ["raise"], ("nan",), {}, np.array(["raise", "nan"])]),
]


@pytest.mark.parametrize(
    ("name", "error", "value"),
    [(name, error, value) for name, error, values in UNWANTED for value in values],
    ids=lambda part: getattr(part, "__name__", str(part)[:15]),
)
def test_arguments(name: str, error: type[Exception], value: Any) -> None:
    for measure in MEASURES if name != "eps" else EPS_MEASURES:
        operands = [HALF] * (1 if measure is fastkl.entropy else 2)
        assert_refused(error, f"{name}={value!r}: must be {WANTED[name]}", measure, *operands, **{name: value})
    labelled = {"base": fastkl.compare, "eps": fastkl.nll}.get(name, fastkl.nll)
    operands = [[HALF], [HALF], [0]] if labelled is fastkl.compare else [[0], [HALF]]
    assert_refused(error, f"{name}={value!r}: must be {WANTED[name]}", labelled, *operands, **{name: value})


def test_arguments_that_are_allowed() -> None:
    for base in 10, 1.5, np.nextafter(1, 2), np.float32(2), np.int8(3), 1e300:
        assert fastkl.kl_divergence(HALF, [1, 0], base=base) == np.inf
    for threads in 1, np.int64(3), 2**31, 2**70, None:
        assert fastkl.entropy(HALF, threads=threads, base=2) == 1
    for eps in 0, False, 0.999, np.float32(0.5), 5e-324:
        assert fastkl.kl_divergence(HALF, HALF, eps=eps) == 0


def test_out() -> None:
    p = uniform(5, 7)
    out_of = {
        "out has shape (4,): must be (5,)": (np.empty(4), {}),
        "out has shape (5, 1): must be (5,)": (np.empty((5, 1)), {}),
        "out has shape (): must be (5,)": (np.empty(()), {}),
        "out has shape (5,): must be (5, 1)": (np.empty(5), {"keepdims": True}),
        "out has shape (7, 1): must be (1, 7)": (np.empty((7, 1)), {"keepdims": True, "axis": 0}),
        "out is read-only: must be writeable": (np.broadcast_to(np.float64(0), 5), {}),
    }
    for message, (out, keywords) in out_of.items():
        assert_refused(ValueError, message, fastkl.entropy, p, out=out, **keywords)
        assert_refused(ValueError, message, fastkl.kl_divergence, p, p, out=out, **keywords)
    assert_refused(ValueError, "out has shape (1,): must be ()", fastkl.entropy, HALF, out=np.empty(1))
    for out, kind in (
        (np.ma.zeros(5), "MaskedArray"),
        ([0.0] * 5, "list"),
        (0.0, "float"),
        (np.float64(0), "float64"),
        ("out", "str"),
        (True, "bool"),
    ):
        assert_refused(TypeError, f"out is a {kind}: must be an array", fastkl.entropy, p, out=out)
    for dtype in "i8", "u1", "?", "c16", "O", "U3", "M8[s]", [("x", "f8")]:
        out = np.empty(5, dtype)
        assert_refused(TypeError, f"out has dtype {out.dtype}: must be a floating dtype", fastkl.entropy, p, out=out)


def test_out_is_unchanged_by_a_call_with_invalid_arguments() -> None:
    out = np.full(1, 7.0)
    for keywords in {"axis": 2}, {"base": -1}, {"eps": -1}, {"invalid": "?"}, {"threads": 0}, {"keepdims": True}:
        with pytest.raises(ValueError, match="must be"):
            fastkl.kl_divergence([HALF], [HALF], out=out, **keywords)
    assert out == 7


# ---- operands ----


@pytest.mark.parametrize(
    "values",
    [
        np.array([0.5, 0.5], "c8"),
        np.array([0.5, 0.5], "c16"),
        np.array([0.5, 0.5], "O"),
        np.array([0.5, 0.5], "U"),
        np.array([b"0.5", b"0.5"]),
        np.array(["2020", "2021"], "M8[Y]"),
        np.array([1, 2], "m8[s]"),
        np.zeros(2, [("a", "f8"), ("b", "i4")]),
        np.zeros(2, "V8"),
        np.zeros(2, "V0"),
        np.zeros(2, [("bfloat16", "i2")]),
        np.zeros(2, [("bfloat16", "u2", (2,))]),
        np.rec.array([(0.5, 0.5)], names=("a", "b")),
        np.array(["0.5", "0.5"], np.dtypes.StringDType()),
        np.array(HALF, ">c16"),
        [0.5, 0.5j],
        ["0.5", "0.5"],
        [0.5, None],
        [2**70, 1],
        "text",
        {0.5: 1},
        {0.5},
        object(),
        np.mean,
        (x for x in HALF),
        None,
    ],
    ids=lambda values: f"{type(values).__name__} {getattr(values, 'dtype', '')}",
)
def test_dtypes(values: Any) -> None:
    message = f"has dtype {np.asarray(values).dtype}: {DTYPES}"
    assert_refused(TypeError, f"p {message}", fastkl.entropy, values)
    for measure in PAIR_MEASURES:
        assert_refused(TypeError, f"p {message}", measure, values, HALF)
        assert_refused(TypeError, f"p {message}", measure, values, values)
        assert_refused(TypeError, f"q {message}", measure, HALF, values)


@pytest.mark.skipif(np.dtype("g") == np.dtype("d"), reason="long double is double here")
def test_longdouble() -> None:
    values = np.array(HALF, "g")
    assert_refused(TypeError, f"q has dtype {values.dtype}: {DTYPES}", fastkl.kl_divergence, HALF, values)


@pytest.mark.parametrize(("value", "shown"), [(1.0, "1.0"), (1, "1"), (True, "True"), (np.float32(0.5), "0.5")])
def test_numbers(value: Any, shown: str) -> None:
    for given in value, np.array(value):
        assert_refused(ValueError, f"p is the number {shown}: must have at least one axis", fastkl.entropy, given)
        for measure in PAIR_MEASURES:
            assert_refused(ValueError, f"q is the number {shown}: must have at least one axis", measure, HALF, given)


def test_masked_arrays() -> None:
    masked, whole = np.ma.array(HALF, mask=[False, True]), np.ma.array(HALF, mask=[False, False])
    message = "has masked entries: fill them, or leave them out, before the call"
    assert_refused(TypeError, f"p {message}", fastkl.entropy, masked)
    assert_refused(TypeError, f"p {message}", fastkl.entropy, np.ma.masked)
    assert_refused(TypeError, f"p {message}", fastkl.entropy, np.ma.masked_all((3, 2), "f4"))
    assert_refused(TypeError, f"p {message}", fastkl.entropy, np.ma.array(np.ones((3, 2), ">i4"), mask=np.eye(3, 2)).T)
    assert_refused(TypeError, f"p {message}", fastkl.entropy, np.ma.array(HALF, mask=True, hard_mask=True))
    for measure in PAIR_MEASURES:
        assert_refused(TypeError, f"p {message}", measure, masked, whole)
        assert_refused(TypeError, f"q {message}", measure, whole, masked)
    assert fastkl.entropy(whole, base=2) == 1


@pytest.mark.parametrize("ragged", [[[0.5, 0.5], [1.0]], [0.5, [0.5]], [HALF, [[0.5], [0.5]]]])
def test_ragged_lists(ragged: Any) -> None:
    try:
        np.asarray(ragged)
    except ValueError as error:
        reason = str(error)
    assert_refused(ValueError, f"p is not an array of numbers: {reason}", fastkl.entropy, ragged)
    for measure in PAIR_MEASURES:
        assert_refused(ValueError, f"q is not an array of numbers: {reason}", measure, HALF, ragged)


# ---- anything else ----

NONSENSE = [None, "x", b"x", "", [], [[]], [None], [[None]], [()], {}, object(), 1j, [1j], ..., slice(3), np.nan, -1,
            [-1], [[-1, 2]], [np.nan], [[np.inf, 1]], [0, 0], np.empty((0, 0)), np.array(1), [[1], [1, 2]], 10**400,
            [10**400], np.zeros((1,) * 64), type, int, [[[]]], np.ma.masked, np.array([]), np.array("x")]  # fmt: skip


def test_nonsense_is_refused() -> None:
    for measure, a, b in itertools.product(PAIR_MEASURES, NONSENSE, NONSENSE):
        with pytest.raises((TypeError, ValueError)):
            measure(a, b)
    for a in NONSENSE:
        for call in (
            lambda a: fastkl.entropy(a),
            lambda a: fastkl.kl_divergence(a, HALF),
            lambda a: fastkl.kl_divergence(HALF, a),
            lambda a: fastkl.cross_entropy(a, a, normalize=True, invalid="raise"),
        ):
            with pytest.raises((TypeError, ValueError)):
                call(a)
