"""The text of every error. The index in a message is the one that shows the value in the user's operand."""

import inspect
from functools import partial
from itertools import product

import numpy as np
import pytest
from support.checks import ENTRY, MASKED, SUM, assert_invalid, assert_refused, with_entry
from support.measures import EPS_MEASURES, PAIR_MEASURES

import fastkl
from fastkl import InvalidRowError
from fastkl.call import BFLOAT16

MEASURES = [fastkl.entropy, *PAIR_MEASURES]
PAIRS = [*PAIR_MEASURES, fastkl.compare]
HALF = [0.5, 0.5]

ACCEPTED = "normalize=True accepts counts and weights"
POSITIVE = "rows must have a positive sum"
NLL = "class labels go to fastkl.nll"
LOGIT = "logits must be finite or -inf"
NO_LOGIT = "has no finite entry: a row of logits must have one"
DTYPES = "must be float64, float32, float16, bfloat16, bool or an integer dtype"

# The kernels find the row, and whether its entries or its sum are wrong.
on_every_tier = pytest.mark.usefixtures("tier")


def uniform(*shape, axis=-1, dtype=float):
    return np.full(shape, 1 / shape[axis], dtype)


def operands_of(measure):
    """Valid operands, with labels where the function takes any."""
    rows = {"p": [HALF], "q": [HALF], "labels": [0]}
    return [rows[name] for name in inspect.signature(measure).parameters if name in rows]


def assert_row_refused(detail, bad, good, **keywords):
    """Assert the message of every function that may have `bad` as p or as q: `detail` follows the operand's name."""
    index, end, problem = detail.rpartition("]")
    assert_invalid(f"p{index}{end}", problem, fastkl.entropy, bad, **keywords)
    labels = np.zeros(np.delete(np.shape(bad), keywords.get("axis", -1)), int)
    assert_invalid(f"q{index}{end}", problem, fastkl.nll, labels, bad, **keywords)
    for measure in PAIRS:
        assert_invalid(f"p{index}{end}", problem, measure, bad, good, **keywords)
        assert_invalid(f"q{index}{end}", problem, measure, good, bad, **keywords)


GOOD, RAW, LOGITS = uniform(5, 4), {"normalize": True}, {"from_logits": True}
STRIDED = with_entry((3, 4), -1, uniform(6, 10))
WIDE, NEGATIVE = uniform(140_000), np.array([[1, 0], [3, -2]])
MASKS = with_entry(3, -np.inf, np.zeros((5, 4)))
OVERFLOWING = np.array([1.5e308, *[0.0] * 99_999, 1.5e308])

# The message after the operand's name, the invalid operand, a valid one beside it, and the keywords.
INVALID = [
    (f"[1234, 7] = -0.1: {ENTRY}", with_entry((1234, 7), -0.1, uniform(2000, 10)), uniform(2000, 10), {}),
    (f"[12] sums to 0.97: {SUM}", with_entry((12, 3), 0.07, uniform(2000, 10)), uniform(2000, 10), {}),
    # An entry counts before its row's sum, and the first row before the first column.
    (f"[0, 3] = -1.0: {ENTRY}", [[5, 5, 5, -1.0]], GOOD[:1], {}),
    (f"[1, 2] = nan: {ENTRY}", with_entry(([1, 1, 4], [3, 2, 0]), [-1, np.nan, -3], GOOD), GOOD, {}),
    (f"[3] sums to 0.75: {SUM}", with_entry((3, 1), 0, GOOD), GOOD, {}),
    # Sums: of nothing, beside a much larger one, and those that overflow.
    (f" sums to 0: {SUM}", np.zeros(2), HALF, {}),
    (f"[1] sums to 0: {SUM}", np.array([HALF, [0, 0]]), HALF, {}),
    (f" sums to 0: {POSITIVE}", np.zeros(2), HALF, RAW),
    (f"[1] sums to 0: {POSITIVE}", np.array([HALF, [0, 0]]), HALF, RAW),
    (f" sums to 1e+30: {SUM}", [5e29, 5e29], HALF, {}),
    (f" sums to inf: {SUM}", OVERFLOWING[[0, -1]], HALF, {}),
    (f" sums to inf: {SUM}", OVERFLOWING, uniform(100_001), {}),
    # The index is the one into the operand as it came.
    (f"[2, 5] = -1.0: {ENTRY}", STRIDED[::-1, ::-1], uniform(6, 10), RAW),
    (f"[4, 3] = -1.0: {ENTRY}", STRIDED.T, uniform(10, 6), {"axis": 0, **RAW}),
    (f"[0, 3] = -1.0: {ENTRY}", STRIDED.T[4:], uniform(6, 6), {"axis": 0, **RAW}),
    *((f"[{i}] = inf: {ENTRY}", with_entry(i, np.inf, WIDE), WIDE, {}) for i in (0, 65_535, 65_536)),
    (f"[1, 139999] = inf: {ENTRY}", with_entry((1, -1), np.inf, np.array([WIDE, WIDE])), WIDE, {}),
    *((f"[1, 1] = -2: {ENTRY}", NEGATIVE.astype(f"i{n}"), HALF, raw) for n in (1, 2, 4, 8) for raw in ({}, RAW)),
    (f"[3] {NO_LOGIT}", MASKS, np.zeros((5, 4)), LOGITS),
    (f" {NO_LOGIT}", MASKS[3], np.zeros(4), LOGITS),
    (f"[:, 3] {NO_LOGIT}", MASKS.T, np.zeros((4, 5)), {"axis": 0, **LOGITS}),
]


@on_every_tier
@pytest.mark.parametrize(("detail", "bad", "good", "keywords"), INVALID, ids=[case[0][:25] for case in INVALID])
def test_invalid_rows(detail, bad, good, keywords):
    assert_row_refused(detail, bad, good, **keywords)


@on_every_tier
@pytest.mark.parametrize(
    ("value", "shown"),
    [(-0.1, "-0.1"), (np.nan, "nan"), (-np.nan, "nan"), (np.inf, "inf"), (-np.inf, "-inf"), (-1e30, "-1e+30")],
)
@pytest.mark.parametrize("dtype", ["f8", "f4", "e", ">f8", "<f4"])
def test_values_are_shown_as_they_print(dtype, value, shown):
    if dtype != "e":
        bad, good = with_entry((1, 2), value, uniform(3, 4, dtype=dtype)), uniform(3, 4)
        for keywords in {}, RAW:
            assert_row_refused(f"[1, 2] = {shown}: {ENTRY}", bad, good, **keywords)
    if not value < 0:
        bad, good = with_entry((1, 7), value, np.zeros((3, 9), dtype)), np.zeros((3, 9))
        assert_row_refused(f"[1, 7] = {shown}: {LOGIT}", bad, good, **LOGITS)
        assert_row_refused(f"[7, 1] = {shown}: {LOGIT}", bad.T, good.T, axis=0, **LOGITS)
        assert_row_refused(f"[7] = {shown}: {LOGIT}", bad[1], good, **LOGITS)


@on_every_tier
def test_tolerance_is_that_of_the_dtype():
    """And the sum is shown with so many digits that it differs from 1."""
    for dtype, shown, tolerance in (
        ("f8", "1.00000002", "1.5e-08"),
        ("f8", "0.99999998", "1.5e-08"),
        ("f4", "1.0625", "0.00035"),
        ("i4", "2", "1.5e-08"),
        ("?", "2", "1.5e-08"),
    ):
        row = np.array([0.5, float(shown) - 0.5] if dtype[0] == "f" else [1, 1], dtype)
        message = f" sums to {shown}: rows must sum to 1 within {tolerance} ({ACCEPTED}"
        assert_refused(InvalidRowError, f"p{message})", fastkl.entropy, row)
        for measure in PAIRS:
            labels = f"; {NLL}" if measure is fastkl.cross_entropy and dtype == "i4" else ""
            assert_refused(InvalidRowError, f"p{message}{labels})", measure, row, HALF)
            assert_refused(InvalidRowError, f"q{message})", measure, HALF, row)


def test_integers_in_cross_entropy_that_could_be_labels():
    labels, q = np.array([[2, 0]]), uniform(1, 2)
    hint = f"{SUM[:-1]}; {NLL})"
    shapes = "p has shape (3,) and q has shape (3, 2): must have the same length along axis -1, not 3 and 2"
    for message, p, keywords in (
        (f"p[0] sums to 2: {hint}", labels, {}),
        (f"p sums to 2: {hint}", labels[0], {}),
        (f"p sums to 0: {POSITIVE} ({NLL})", [0, 0], RAW),
        (f"p sums to 0: {POSITIVE} ({NLL})", np.zeros(2, np.uint8), RAW),
        (f"p[0] sums to 2: {SUM}", labels.astype(float), {}),
    ):
        assert_refused(InvalidRowError, message, fastkl.cross_entropy, p, q, **keywords)
    assert_refused(ValueError, f"{shapes}; {NLL}", fastkl.cross_entropy, [0, 1, 0], uniform(3, 2))
    assert_refused(ValueError, shapes, fastkl.kl_divergence, [0, 1, 0], uniform(3, 2))
    assert_refused(InvalidRowError, f"p[0] sums to 2: {SUM}", fastkl.kl_divergence, labels, q)


def test_the_sum_in_a_message_is_that_before_clipping():
    for measure in EPS_MEASURES:
        assert_refused(InvalidRowError, f"q sums to 0.9: {SUM}", measure, HALF, [0.9, 0], eps=0.1)


@on_every_tier
def test_the_first_row_counts_then_p():
    p, q = with_entry((3, 1), -1, GOOD), with_entry((2, 0), -2, GOOD)
    nan, zeros = with_entry((1, 2), np.nan, np.zeros((5, 4))), np.zeros(2)
    for measure in PAIRS:
        assert_refused(InvalidRowError, f"q[2, 0] = -2.0: {ENTRY}", measure, p, q)
        assert_refused(InvalidRowError, f"p[2, 0] = -2.0: {ENTRY}", measure, q, p)
        assert_refused(InvalidRowError, f"p[3, 1] = -1.0: {ENTRY}", measure, p, p)
        assert_refused(InvalidRowError, f"p sums to 0: {POSITIVE}", measure, zeros, zeros, normalize=True)
        assert_refused(InvalidRowError, f"p[1, 2] = nan: {LOGIT}", measure, nan, nan, from_logits=True)


@pytest.mark.parametrize("ndim", [1, 2, 3, 4])
def test_the_index_is_the_users_for_any_axis(ndim):
    shape = (3, 4, 5, 6)[:ndim]
    rng = np.random.default_rng(1)
    for axis in range(-ndim, ndim):
        good = uniform(*shape, axis=axis)
        for at in (tuple(int(rng.integers(n)) for n in shape) for _ in range(3)):
            rows = with_entry(at, -0.25, good)
            place = f"[{', '.join(map(str, at))}]"
            assert_row_refused(f"{place} = -0.25: {ENTRY}", rows, good, axis=axis)

            rows = with_entry(at, 9 + 1 / shape[axis], good)
            index = [":" if i == axis % ndim else str(at[i]) for i in range(ndim)]
            if axis in (-1, ndim - 1):
                index.pop()
            place = f"[{', '.join(index)}]" if index else ""
            assert_row_refused(f"{place} sums to 10: {SUM}", rows, good, axis=axis)
            assert eval(f"p{place}", {"p": rows}).sum() == pytest.approx(10)


@pytest.mark.parametrize(
    ("p_shape", "q_shape", "axis", "at", "row"),
    [
        ((5, 7), (7,), -1, (3,), ""),
        ((5, 7), (1, 7), -1, (0, 3), "[0]"),
        ((5, 7), (5, 7), 0, (3, 4), "[:, 4]"),
        ((7, 5), (7, 1), 0, (3, 0), "[:, 0]"),
        ((2, 7, 5), (7, 5), -2, (3, 4), "[:, 4]"),
        ((2, 7, 5), (7, 1), -2, (3, 0), "[:, 0]"),
        ((4, 1, 7), (3, 7), -1, (2, 6), "[2]"),
        ((4, 1, 7), (1, 3, 7), -1, (0, 2, 6), "[0, 2]"),
        ((1, 7), (2, 4, 1, 7), -1, (1, 2, 0, 6), "[1, 2, 0]"),
        ((3, 1, 7), (3, 5, 7), 0, (2, 4, 6), "[:, 4, 6]"),
    ],
)
def test_the_index_in_a_broadcast_operand(p_shape, q_shape, axis, at, row):
    """It is the user's, not one into the broadcast shape."""
    p, q = uniform(*p_shape, axis=axis), uniform(*q_shape, axis=axis)
    assert_row_refused(f"[{', '.join(map(str, at))}] = -0.25: {ENTRY}", with_entry(at, -0.25, q), p, axis=axis)
    assert_row_refused(f"{row} sums to 3: {SUM}", with_entry(at, 2 + q[at], q), p, axis=axis)


def test_messages_for_one_operand_of_logits():
    logits, probabilities = np.zeros((3, 4)), uniform(3, 4)
    bad, far = with_entry((2, 1), -0.5, probabilities), with_entry((2, 1), 1.25, probabilities)
    for measure, (first, second) in product(PAIRS, ("pq", "qp")):
        of_logits = partial(measure, from_logits=first)
        for place, problem, operands in (
            (f"{first}[2, 1]", f" = nan: {LOGIT}", {first: with_entry((2, 1), np.nan, logits), second: probabilities}),
            (f"{second}[2, 1]", f" = -0.5: {ENTRY}", {first: logits, second: bad}),
            (f"{second}[2]", f" sums to 2: {SUM}", {first: logits, second: far}),
        ):
            assert_invalid(place, problem, of_logits, operands["p"], operands["q"])


@on_every_tier
def test_invalid_labels():
    q, cube = uniform(8, 1000), np.full((2, 3, 4), 1 / 4)
    of_four = with_entry((1, 2), 4, np.zeros((2, 3), int))
    cases = [
        (f"labels[5] = {label}: labels must be in 0..999", with_entry(5, label, np.zeros(8, int)), q, keywords)
        for label in (1000, -1, 2**40, -(2**63))
        for keywords in ({}, LOGITS, RAW)
    ]
    cases += [
        (f"labels[0] = {2**64 - 1}: labels must be in 0..999", np.full(8, 2**64 - 1, np.uint64), q, {}),
        ("labels = 1000: labels must be in 0..999", 1000, q[0], {}),
        ("labels[0] = -7: labels must be in 0..999", [-7], q, {}),
        ("labels[1, 2] = 4: labels must be in 0..3", of_four, cube, {}),
        ("labels[1, 2] = 4: labels must be in 0..3", of_four, np.moveaxis(cube, -1, 0), {"axis": 0}),
        ("labels[0, 2] = 9: labels must be in 0..3", [[0, 0, 9]], cube, {}),
        ("labels[2] = 9: labels must be in 0..3", [0, 0, 9], cube, {}),
        ("labels = 9: labels must be in 0..3", 9, cube[0, 0], {}),
    ]
    for message, labels, rows, keywords in cases:
        assert_refused(InvalidRowError, message, fastkl.nll, labels, rows, **keywords)
        assert_refused(InvalidRowError, message, fastkl.compare, rows, rows, labels, **keywords)
    # A row that is repeated for all labels is first examined where a label is not ignored.
    keywords = {"ignore_index": -100, **LOGITS}
    assert_refused(InvalidRowError, f"q[0, 1] = nan: {LOGIT}", fastkl.nll, [-100, 0], [[0, np.nan]], **keywords)


def test_labels_that_do_not_fit():
    cube = np.full((2, 3, 2), 0.5)
    room = "of the rows, or broadcast with it"
    integers = "must be an integer dtype"
    cases = [(TypeError, f"dtype {np.dtype(x)}: {integers}", np.zeros(2, x)) for x in ("f8", "f4", "?", "e", BFLOAT16)]
    cases += [(TypeError, f"dtype {np.dtype(x)}: {DTYPES}", np.zeros(2, x)) for x in ("U1", "c16", "O", "M8[s]")]
    for shape in (2,), (2, 2), (2, 4), (3, 2), (5, 2, 4), (2, 3, 2):
        rows = (2, 3) if len(shape) < 3 else (1, 2, 3)
        cases.append((ValueError, f"shape {shape}: must have the shape {rows} {room}", np.zeros(shape, int)))
    for error, problem, labels in cases:
        assert_refused(error, f"labels has {problem}", fastkl.compare, cube, cube, labels)
        assert_refused(error, f"labels has {problem}", fastkl.nll, labels, cube)


# The name, what is wanted, and what is not: values of a right type and of a wrong one.
ARGUMENTS = [
    ("base", "None or a finite number above 1",
     [0, -2, 1, 1.0, True, 0.0, 0.5, np.nextafter(1, 0), 5e-324, np.inf, np.nan, -np.inf, 10**400],
     ["e", "2", b"2", 2j, [2], (), {}, np.array([2.0, 3.0])]),
    ("eps", "a number with 0 <= eps < 1",
     [-1e-9, 1, 1.5, True, np.inf, np.nan, -np.inf, 10**400], [None, "tiny", "0.1", 0.1j, [0.1], {}]),
    ("threads", "None or a positive integer",
     [0, -1, -(2**70), True, False], [1.0, "2", [1], np.nan, np.array([1, 2])]),
    ("invalid", "'raise', 'nan' or 'ignore'",
     ["", "RAISE", None, 0, True, ["raise"], ("nan",), {}, np.array(["raise", "nan"])], []),
    ("axis", "an integer", [], [None, 1.0, "0", (0,), [0, 1], np.array([0, 1])]),
    ("temperature", "a positive finite number",
     [0, 0.0, -0.0, -1, np.inf, -np.inf, np.nan, 10**400, False],
     ["x", "1", b"1", None, 1j, [1.0, 2.0], (), {}, np.array([1, 1])]),
    ("label_smoothing", "a number with 0 <= label_smoothing <= 1",
     [2, -0.1, 1.0000001, np.nan, np.inf, -np.inf, 10**400], ["x", "0.1", None, 1j, [0.1, 0.2], {}]),
    ("ignore_index", "None or an integer", [], [1.5, "1", int, [1], np.array([1, 2]), 1j]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "wanted", "values", "others"), ARGUMENTS)
def test_arguments(name, wanted, values, others):
    having = [x for x in (*MEASURES, fastkl.compare, fastkl.nll) if name in inspect.signature(x).parameters]
    assert len(having) >= 2 or name == "label_smoothing"
    cases = [(ValueError, value) for value in values] + [(TypeError, value) for value in others]
    for measure, (error, value) in product(having, cases):
        for more in ({}, LOGITS) if name == "temperature" else [{}]:
            message = f"{name}={value!r}: must be {wanted}"
            assert_refused(error, message, measure, *operands_of(measure), **{name: value, **more})


def test_arguments_that_are_allowed():
    for base in 10, 1.5, np.nextafter(1, 2), np.float32(2), np.int8(3), 1e300:
        assert fastkl.kl_divergence(HALF, [1, 0], base=base) == np.inf
    for threads in 1, np.int64(3), 2**31, 2**70, None:
        assert fastkl.entropy(HALF, threads=threads, base=2) == 1
    for eps in 0, False, 0.999, np.float32(0.5), 5e-324:
        assert fastkl.kl_divergence(HALF, HALF, eps=eps) == 0
    for measure in (*MEASURES, fastkl.compare):
        for temperature in 1, True, np.float32(1), 1.0:
            measure(*operands_of(measure), temperature=temperature)
    for smoothing in 0, 1, True, np.float32(0.5), 5e-324:
        assert fastkl.nll([0], [HALF], label_smoothing=smoothing, base=2) == [1]
    assert fastkl.nll([0], [[0.0, -np.inf]], from_logits=np.True_) == [0]
    for ignored in -100, np.int8(-1), 2**70, True:
        assert fastkl.nll([0], [HALF], ignore_index=ignored, base=2) == [1]


def test_arguments_without_what_they_are_for():
    message = "temperature=2.0: must be 1 where no operand holds logits"
    for measure in (*MEASURES, fastkl.compare):
        assert_refused(ValueError, message, measure, *operands_of(measure), temperature=2.0)
    assert_refused(ValueError, "ignore_index=-100: only with labels", fastkl.compare, HALF, HALF, ignore_index=-100)


WRONG = ["yes", "", "P", "pq", b"p", None, 1, 0, (True,), (True, False), [False, True], (True, False, True), (1, 0),
         ("p", "q"), [], {}, 1.0]  # fmt: skip


@pytest.mark.parametrize("value", [*WRONG, "p", "q"], ids=repr)
def test_from_logits(value):
    error = ValueError if isinstance(value, str) else TypeError
    for measure in PAIRS if value not in ("p", "q") else []:
        message = f"from_logits={value!r}: must be False, True, 'p' or 'q'"
        assert_refused(error, message, measure, HALF, HALF, from_logits=value)
    for call in partial(fastkl.entropy, HALF), partial(fastkl.nll, 0, HALF):
        assert_refused(error, f"from_logits={value!r}: must be a bool", call, from_logits=value)


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
def test_shapes_that_do_not_fit(p_shape, q_shape, axis, reason):
    message = f"p has shape {p_shape} and q has shape {q_shape}: {reason}"
    for measure in PAIRS:
        assert_refused(ValueError, message, measure, np.ones(p_shape), np.ones(q_shape), axis=axis)


def test_axis_out_of_range():
    cube = uniform(2, 3, 4)
    for axis in 3, -4, 2**70:
        message = f"axis={axis}: must be in -3..2 for operands with 3 axes"
        assert_refused(np.exceptions.AxisError, message, fastkl.entropy, cube, axis=axis)
        for measure in PAIRS:
            assert_refused(np.exceptions.AxisError, message, measure, cube, cube, axis=axis)
            assert_refused(np.exceptions.AxisError, message, measure, uniform(4), cube, axis=axis)


@pytest.mark.parametrize(("shape", "axis"), [((0,), 0), ((3, 0), 1), ((0, 3), 0), ((2, 0, 3), 1), ((1, 0), -1)])
def test_an_empty_distribution_axis(shape, axis):
    nothing = np.empty(shape)
    from_the_end = axis if axis < 0 else axis - len(shape)
    message = f"p has shape {shape}: the distribution axis, axis {from_the_end}, must not be empty"
    assert_refused(ValueError, message, fastkl.entropy, nothing, axis=axis)
    for measure in PAIRS:
        assert_refused(ValueError, message, measure, nothing, nothing, axis=axis)


def test_out():
    p = uniform(5, 7)
    outs = [
        (ValueError, "has shape (4,): must be (5,)", np.empty(4), {}),
        (ValueError, "has shape (5, 1): must be (5,)", np.empty((5, 1)), {}),
        (ValueError, "has shape (): must be (5,)", np.empty(()), {}),
        (ValueError, "has shape (5,): must be (5, 1)", np.empty(5), {"keepdims": True}),
        (ValueError, "has shape (7, 1): must be (1, 7)", np.empty((7, 1)), {"keepdims": True, "axis": 0}),
        (ValueError, "is read-only: must be writeable", np.broadcast_to(np.float64(0), 5), {}),
    ]
    for out in np.ma.zeros(5), [0.0] * 5, 0.0, np.float64(0), "out", True:
        outs.append((TypeError, f"is a {type(out).__name__}: must be an array", out, {}))
    for dtype in "i8", "u1", "?", "c16", "O", "U3", "M8[s]", [("x", "f8")]:
        outs.append((TypeError, f"has dtype {np.dtype(dtype)}: must be a floating dtype", np.empty(5, dtype), {}))
    for error, message, out, keywords in outs:
        assert_refused(error, f"out {message}", fastkl.entropy, p, out=out, **keywords)
        assert_refused(error, f"out {message}", fastkl.kl_divergence, p, p, out=out, **keywords)
    assert_refused(ValueError, "out has shape (1,): must be ()", fastkl.entropy, HALF, out=np.empty(1))


def test_out_is_unchanged_by_a_call_with_invalid_arguments():
    out = np.full(1, 7.0)
    for keywords in {"axis": 2}, {"base": -1}, {"eps": -1}, {"invalid": "?"}, {"threads": 0}, {"keepdims": True}:
        with pytest.raises(ValueError, match="must be"):
            fastkl.kl_divergence([HALF], [HALF], out=out, **keywords)
    assert out == 7


def assert_operand_refused(error, problem, values):
    """Assert the message of every measure about `values` as p and as q."""
    assert_refused(error, f"p {problem}", fastkl.entropy, values)
    for measure in PAIRS:
        assert_refused(error, f"p {problem}", measure, values, HALF)
        assert_refused(error, f"p {problem}", measure, values, values)
        assert_refused(error, f"q {problem}", measure, HALF, values)


@pytest.mark.parametrize(
    "values",
    [
        *(np.zeros(2, kind) for kind in ("c8", "c16", "O", "U", "S3", "M8[Y]", "m8[s]", "V8", "V0", ">c16")),
        *(np.zeros(2, kind) for kind in ["g"] if np.dtype("g") != np.dtype("d")),
        *(np.zeros(2, kind) for kind in ([("a", "f8"), ("b", "i4")], [("bfloat16", "i2")], [("bfloat16", "u2", (2,))])),
        np.rec.array([(0.5, 0.5)], names=("a", "b")),
        np.array(["0.5", "0.5"], np.dtypes.StringDType()),
        *([0.5, 0.5j], ["0.5", "0.5"], [0.5, None], [2**70, 1], "text", {0.5: 1}, {0.5}, object(), np.mean, None),
        (x for x in HALF),
    ],
    ids=lambda values: f"{type(values).__name__} {getattr(values, 'dtype', '')}",
)
def test_dtypes(values):
    assert_operand_refused(TypeError, f"has dtype {np.asarray(values).dtype}: {DTYPES}", values)


@pytest.mark.parametrize(("value", "shown"), [(1.0, "1.0"), (1, "1"), (True, "True"), (np.float32(0.5), "0.5")])
def test_numbers(value, shown):
    for given in value, np.array(value):
        assert_operand_refused(ValueError, f"is the number {shown}: must have at least one axis", given)


def test_masked_arrays():
    for masked in (
        np.ma.array(HALF, mask=[False, True]),
        np.ma.masked,
        np.ma.masked_all((3, 2), "f4"),
        np.ma.array(np.ones((3, 2), ">i4"), mask=np.eye(3, 2)).T,
        np.ma.array(HALF, mask=True, hard_mask=True),
        np.ma.array(np.zeros(3, "i4,i4"), mask=[(False, True)] * 3),
    ):
        assert_operand_refused(TypeError, MASKED, masked)
    assert fastkl.entropy(np.ma.array(HALF, mask=[False, False]), base=2) == 1


@pytest.mark.parametrize("ragged", [[[0.5, 0.5], [1.0]], [0.5, [0.5]], [HALF, [[0.5], [0.5]]]])
def test_ragged_lists(ragged):
    with pytest.raises(ValueError, match="inhomogeneous") as caught:
        np.asarray(ragged)
    assert_operand_refused(ValueError, f"is not an array of numbers: {caught.value}", ragged)


NONSENSE = [None, "x", b"x", "", [], [[]], [None], [[None]], [()], {}, object(), 1j, [1j], ..., slice(3), np.nan, -1,
            [-1], [[-1, 2]], [np.nan], [[np.inf, 1]], [0, 0], np.empty((1, 0)), np.array(1), [[1], [1, 2]], 10**400,
            [10**400], np.zeros((1,) * 64), type, int, [[[]]], np.ma.masked, np.array([]), np.array("x")]  # fmt: skip


def test_nonsense_is_refused():
    calls = [(measure, *pair) for measure in PAIR_MEASURES for pair in product(NONSENSE, NONSENSE)]
    for a in NONSENSE:
        calls += [(fastkl.entropy, a), (fastkl.kl_divergence, a, HALF), (fastkl.kl_divergence, HALF, a)]
        calls.append((partial(fastkl.cross_entropy, normalize=True), a, a))
    for measure, *operands in calls:
        with pytest.raises((TypeError, ValueError)):
            measure(*operands)
