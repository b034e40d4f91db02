"""`compare`: every field is the result of the function that gives it alone; ties, ignored labels and containers.

Other tests say whether those functions are right. Where a function and a field come from different sums, they may differ by
the sum of both documented bounds. test_logits_calls has layouts, shapes, threads and invalid rows.
"""

import itertools
import sys

import numpy as np
import pytest
from support.logits import DTYPES, HOSTILE, drawn, operands
from support.logits_reference import OF_LOGITS
from support.measures import assert_same_bits
from support.processes import python

import fastkl

on_every_tier = pytest.mark.usefixtures("tier")
each_dtype = pytest.mark.parametrize("dtype", DTYPES)
each_kind = pytest.mark.parametrize("from_logits", list(OF_LOGITS), ids=str)


def alone(p, q, labels=None, from_logits=False, **keywords):
    """Each field from a call of its own, with a temperature where there are logits."""
    ignored = {"ignore_index": keywords.pop("ignore_index", None)}
    temperature = {"temperature": keywords.pop("temperature", 1.0)}
    of_p, of_q = ({**keywords, "from_logits": x, **(temperature if x else {})} for x in OF_LOGITS[from_logits])
    both, swapped = {**keywords, **temperature}, {"p": "q", "q": "p"}.get(from_logits, from_logits)
    return {
        "entropy_p": fastkl.entropy(p, **of_p),
        "entropy_q": fastkl.entropy(q, **of_q),
        "cross_entropy": fastkl.cross_entropy(p, q, from_logits=from_logits, **both),
        "kl": fastkl.kl_divergence(p, q, from_logits=from_logits, **both),
        "reverse_kl": fastkl.kl_divergence(q, p, from_logits=swapped, **both),
        "js": fastkl.js_divergence(p, q, from_logits=from_logits, **both),
        "nll_p": None if labels is None else fastkl.nll(labels, p, **of_p, **ignored),
        "nll_q": None if labels is None else fastkl.nll(labels, q, **of_q, **ignored),
    }


def slack(field, expected, from_logits, eps):
    """Both bounds together."""
    units = 32 if from_logits else 6 if field == "js" else 4
    value = np.abs(np.where(np.isfinite(expected[field]), expected[field], 0))
    if field in ("kl", "reverse_kl", "js"):
        mixed = 64 * np.finfo(float).eps * np.sqrt(value) if from_logits in ("p", "q") else 0
        return 2 * (units * eps * np.maximum(value, 1e-14 if from_logits else 0) + mixed)
    entropies = 2 * (units * eps * value + 4 * eps)
    return entropies + slack("kl", expected, from_logits, eps) if field == "cross_entropy" else entropies


def compared(p, q, labels=None, fields=None, from_logits=False, **keywords):
    """What `compare` returns, of which all fields, or those named, are asserted to be as alone."""
    result = fastkl.compare(p, q, labels, from_logits=from_logits, **keywords)
    expected = alone(p, q, labels, from_logits, **keywords)
    for field in fields or expected:
        value, right = getattr(result, field), expected[field]
        if right is None:
            assert value is None
            continue
        assert value.shape == right.shape, field
        most = slack(field, expected, from_logits, float(np.finfo(result.kl.dtype).eps))
        with np.errstate(invalid="ignore"):
            near = (np.abs(value - right) <= most) | (value == right) | (np.isnan(value) & np.isnan(right))
        assert np.all(near), f"{field}: {value}, alone {right}"
    return result


def assert_argmax(result, p, q, source=""):
    np.testing.assert_array_equal(result.same_argmax, p.argmax(axis=-1) == q.argmax(axis=-1), f"{source}")


def test_the_fields_and_their_order():
    fields = "entropy_p", "entropy_q", "cross_entropy", "kl", "reverse_kl", "js"
    fields += "total_variation", "same_argmax", "nll_p", "nll_q"
    assert fastkl.Comparison._fields == fields
    result = fastkl.compare([[0.5, 0.5]], [[0.25, 0.75]])
    assert isinstance(result, fastkl.Comparison)
    assert result.nll_p is result.nll_q is None
    assert [type(value) for value in result[:8]] == [np.ndarray] * 8
    assert [value.dtype for value in result[:8]] == [np.dtype("f8")] * 7 + [np.dtype("?")]
    labelled = fastkl.compare([[0.5, 0.5]], [[0.25, 0.75]], [1], base=2)
    assert labelled.nll_p == [1]
    np.testing.assert_allclose(labelled.nll_q, [np.log2(4 / 3)], rtol=8 * np.finfo(float).eps)
    row = fastkl.compare([2.0, 1.0, -1.0], [2.0, 1.25, -1.0], 2, from_logits=True)
    assert [type(value) for value in row] == [np.float64] * 7 + [np.bool] + [np.float64] * 2


@on_every_tier
@each_dtype
@each_kind
def test_each_field_is_as_alone(from_logits, dtype):
    """D of logits has the bits of that alone."""
    for n, masks in itertools.product([1, 2, 7, 33, 127, 1000, 1025, 2500], [False, True]):
        p, q = operands(n, (15, n), dtype, from_logits, masks and n > 1)
        temperature = 1.0 if from_logits is False else (1.0, 0.5, 3.0)[(n + masks) % 3]
        keywords = {"from_logits": from_logits, "temperature": temperature}
        result = compared(p, q, drawn(n, n, 15), **keywords)
        assert_argmax(result, p, q, n)
        assert_same_bits(fastkl.compare(p, q, **keywords)[:7], result[:7])
        if from_logits is True:
            assert_same_bits(result.kl, fastkl.kl_divergence(p, q, **keywords))


@on_every_tier
@each_dtype
@pytest.mark.parametrize("n", [2, 9, 128, 129, 1000])
def test_a_row_of_probabilities_beside_extreme_neighbours(dtype, n):
    """It has the bits that it has alone, in either order, and those of its own measures within both bounds."""
    draw = np.random.default_rng(n)
    p, q = (draw.random((24, n)) + 1e-3 for _ in range(2))
    q[1] = p[1]
    q[2] = p[2] * (1 + 1e-6 * draw.standard_normal(n))
    q[3] = p[3] * np.exp(draw.uniform(0.2, 0.4, n))
    p[4, 0] = q[5, -1] = 0
    p[6] *= 1e9
    p[7], q[8] = p[7] ** 50, q[8] ** 50
    p[9], q[10] = np.identity(n)[0], np.identity(n)[-1]
    p[11, 1:], q[12, 1:] = np.finfo(dtype).tiny, np.finfo(dtype).smallest_subnormal
    p[13] *= 2.0**-140
    p[14, -1] = q[15, 0] = -0.0
    p[16], q[16] = p[16] * 3, q[16] * 1e4
    for i, apart, factor in (17, 1, 1e-4), (18, 1e-2, 1e-4), (19, 1e-3, 1e-5), (20, 0.3, 2e-4):  # sums that nearly agree
        q[i] = p[i] * np.exp(apart * draw.standard_normal(n))
        q[i] *= (1 + factor) * p[i].sum() / q[i].sum()
    p, q = p.astype(dtype), q.astype(dtype)
    labels = draw.integers(0, n, len(p))
    for rows in (p, q), tuple(map(np.asfortranarray, (p, q))):
        result = compared(*rows, labels, normalize=True)
        assert_argmax(result, p, q)
        assert result.kl[1] == result.reverse_kl[1] == result.js[1] == 0
        for i in range(len(p)) if rows[0] is p else ():
            alone_here = fastkl.compare(p[i : i + 1], q[i : i + 1], labels[i : i + 1], normalize=True)
            assert_same_bits(tuple(x[i : i + 1] for x in result), tuple(alone_here))


@on_every_tier
@pytest.mark.parametrize("n", [3, 100, 1000])
@pytest.mark.parametrize("dtype", ["i8", "u8", ">i8", ">u8"])
def test_integers_that_are_the_same_double_are_not_the_same(dtype, n):
    """The largest entries are exact. An int64 counts beside a row of floats, and below zero, too."""
    for large in 2**53, 2**62, np.iinfo(dtype).max - 1:
        rows = np.zeros((2, n), dtype)
        rows[0, -2:], rows[1, -2:] = (large, large + 1), (large + 1, large)
        for keywords in {"normalize": True}, {"from_logits": True}:
            for order in np.ascontiguousarray, np.asfortranarray:
                p, q = order(rows[[0, 0, 1]]), order(rows[[0, 1, 0]])
                assert fastkl.compare(p, q, **keywords).same_argmax.tolist() == [True, False, False]
            assert fastkl.compare(rows, rows.astype(float), **keywords).same_argmax.tolist() == [False, True]
    lowest = np.full((1, n), np.iinfo("i8").min)
    assert fastkl.compare(lowest, lowest + (np.arange(n) == 1), from_logits=True).same_argmax.tolist() == [False]


@on_every_tier
@pytest.mark.parametrize("times", [1, 50, pytest.param(900, marks=pytest.mark.slow)])
@each_dtype
def test_rows_of_which_the_common_pass_is_not_accepted(dtype, times):
    for pair, temperature in itertools.product(HOSTILE[dtype], [1.0, 3.0]):
        p, q = (np.tile(np.array(x, dtype), (len(x), times)) for x in pair)
        assert_argmax(compared(p, q, np.arange(len(p)), from_logits=True, temperature=temperature), p, q, pair)


@on_every_tier
@each_dtype
def test_values_that_are_much_less_than_the_divergence(dtype):
    """Where p has little weight, q has next to none: D is 0.001 to 1, while the other divergences are below 1e-18."""
    draw = np.random.default_rng(1)
    x = draw.uniform(*((43, 63) if dtype == "f4" else (60, 300)), 300)
    far, zero = np.exp(x) * draw.uniform(0.001, 1, x.size), np.zeros_like(x)
    p, q = np.stack([zero, x, x - 1], 1).astype(dtype), np.stack([-far, zero, zero - 1], 1).astype(dtype)
    result = compared(p, q, from_logits=True)
    assert result.kl.min() > 5e-4
    assert result.reverse_kl.max() < 1e-18


@on_every_tier
@each_kind
def test_cross_entropy_of_float32_beside_float64_is_that_alone(from_logits):
    """That is float64, and H(p) + D is too only if H(p) is."""
    p, q = operands(9, (50, 40), "f8", from_logits)
    result = compared(p.astype("f4"), q, fields=["cross_entropy"], from_logits=from_logits, normalize=True)
    assert result.cross_entropy.dtype == result.kl.dtype == float


@on_every_tier
@pytest.mark.parametrize("other", [[156.84e9, 0.0], [0.5, 0.25], [0.25, 0.75]])
def test_a_rough_sum_of_float16_is_accepted(other):
    """1.0003 is as near to 1 as float16 needs to be, beside logits and beside float64."""
    rough, exact = np.array([[0.4539, 0.5464]], "e"), np.array([other])
    fields = ["kl", "reverse_kl", "js"]
    for p, q, from_logits in (rough, exact, "q"), (exact, rough, "p"):
        if sum(other) == 1:
            compared(p, q, fields=fields)
        else:
            compared(p, q, fields=["cross_entropy", *fields], from_logits=from_logits)


@on_every_tier
def test_entropies_of_probabilities_beside_logits():
    """They are those alone, whatever the probabilities are multiplied by."""
    p, q = operands(5, (30, 20), "f8", "p")
    q[:, 0] = 50
    for weight in 1.0, 1e6, 1e190:
        expected = fastkl.entropy(q * weight, normalize=True)
        assert_same_bits(fastkl.compare(p, q * weight, from_logits="p", normalize=True).entropy_q, expected)
        assert_same_bits(fastkl.compare(q * weight, p, from_logits="q", normalize=True).entropy_p, expected)


def test_base_and_normalize():
    counts = np.array([[3, 1, 0], [1, 1, 2]]), np.array([[1, 1, 2], [1, 1, 2]])
    result = compared(*counts, [0, 2], base=2, normalize=True)
    assert result.kl[1] == result.js[1] == 0
    assert result.same_argmax.tolist() == [False, True]


@on_every_tier
@each_kind
def test_an_ignored_label_costs_nothing(from_logits):
    """The row is compared like others, and so it must be valid."""
    p, q = operands(4, (6, 9), "f4", from_logits)
    labels = np.array([0, -100, 3, -100, 8, 1], "i2")
    result = compared(p, q, labels, from_logits=from_logits, ignore_index=-100)
    assert not result.nll_p[[1, 3]].any()
    assert not result.nll_q[[1, 3]].any()
    assert_same_bits(result[:7], fastkl.compare(p, q, from_logits=from_logits)[:7])
    p[1, 2] = np.nan
    with pytest.raises(ValueError, match=r"p\[1, 2\] = nan: (logits|probabilities) must be"):
        fastkl.compare(p, q, labels, from_logits=from_logits, ignore_index=-100)


@each_kind
def test_an_error_names_the_first_invalid_row(from_logits):
    p, q = operands(3, (8, 6), "f8", from_logits)
    labels = np.arange(8) % 6
    p[2, 3], q[4, 1], labels[6] = np.nan, np.inf, 6
    for first, message in (0, r"^p\[2, 3\] = nan: "), (3, r"^q\[1, 1\] = inf: "), (5, r"^labels\[1\] = 6: "):
        with pytest.raises(ValueError, match=message + r"(logits|probabilities|labels) must be"):
            fastkl.compare(p[first:], q[first:], labels[first:], from_logits=from_logits)


@on_every_tier
@each_kind
def test_the_largest_entry_in_any_place(from_logits):
    for dtype, n in itertools.product(["f8", "f4", "e"], [1, 5, 40, 256]):  # of the last, the middle is where vectors begin
        p, q = np.identity(n, dtype), np.full((1, n), 0.5, dtype)
        q[0, n // 2] = 1
        assert_argmax(fastkl.compare(p, q, from_logits=from_logits, normalize=True), p, q, (dtype, n))


@on_every_tier
@each_dtype
def test_the_largest_entry_in_another_piece(dtype):
    """Rows are cut into pieces of 2^16 columns."""
    p, q = np.full((2, 2, 2**16 + 40), 0.25, dtype)
    p[:, 5] = q[0, 5] = 1
    p[:, -3] = q[:, -7] = 0.5
    assert_argmax(fastkl.compare(p, q, normalize=True), p, q)


@on_every_tier
def test_argmax_of_probabilities_that_differ_in_the_last_digit():
    """Their logarithms may be the same number."""
    for larger in np.random.default_rng(3).random(50) / 4 + 0.25:
        q = np.array([[np.nextafter(larger, 0), larger, 0.125]])
        result = fastkl.compare(np.array([[0.0, 1.0, 0.5]]), q, from_logits="p", normalize=True)
        assert result.same_argmax.all(), larger


@on_every_tier
@each_kind
def test_the_first_of_equal_entries_is_the_argmax(from_logits):
    """There are few numbers, so that equal ones are in one group, in one chunk, and in different chunks."""
    for dtype, n in itertools.product([*DTYPES, "e", "i4", "u1"], [2, 5, 130, 1030, 3000]):
        p, q = (np.random.default_rng(seed).integers(1, 4, (40, n)).astype(dtype) for seed in (n, n + 1))
        p[::3] = 1
        p[::3, n // 2] = p[::3, -1] = 3
        q[::6] = p[::6]
        assert_argmax(fastkl.compare(p, q, from_logits=from_logits, normalize=True), p, q, (dtype, n))


@on_every_tier
def test_argmax_of_logits_whose_softmax_is_the_same():
    p = np.array([[0.0, 1e-300], [1e300, np.nextafter(1e300, np.inf)], [1.0, 1 + 2e-16], [-0.0, 0.0]])
    q = np.array([[0.0, 1.0]] * 3 + [[0.0, -1.0]])
    for rows in p, p[:, ::-1]:
        assert_argmax(fastkl.compare(rows, q, from_logits=True), rows, q)


@pytest.mark.parametrize("from_logits", [True, False])
def test_tensors_of_torch(from_logits):
    torch = pytest.importorskip("torch")
    p, q = operands(11, (7, 12), "f4", from_logits)
    labels, tensors = np.arange(7), [torch.from_numpy(x) for x in (p, q)]
    expected = fastkl.compare(p, q, labels, from_logits=from_logits)
    for its_labels in labels, torch.from_numpy(labels):
        result = fastkl.compare(*tensors, its_labels, from_logits=from_logits)
        assert isinstance(result, fastkl.Comparison)
        assert all(isinstance(value, torch.Tensor) for value in result)
        assert_same_bits(tuple(value.numpy() for value in result), tuple(expected))
        losses = fastkl.nll(its_labels, tensors[1], from_logits=from_logits)
        assert_same_bits(losses.numpy(), fastkl.nll(labels, q, from_logits=from_logits))
    kept = fastkl.compare(*tensors, from_logits=from_logits, keepdims=True)
    assert kept.kl.shape == kept.same_argmax.shape == (7, 1)
    assert fastkl.compare(tensors[0].bfloat16(), tensors[1].half(), from_logits=True).kl.dtype == torch.float32


def test_data_frames_are_refused():
    pandas = pytest.importorskip("pandas")
    rows, labels = np.full((3, 2), 0.5), np.zeros(3, int)
    frame = pandas.DataFrame(rows)
    for name, p, q in ("p", frame, frame), ("p", frame, rows), ("q", rows, frame):
        message = rf"^{name} is a pandas\.DataFrame: compare takes NumPy arrays, as its to_numpy\(\)"
        with pytest.raises(TypeError, match=message):
            fastkl.compare(p, q)
    for its_labels in labels, [0, 1, 1]:
        with pytest.raises(TypeError, match=r"^q is a pandas\.DataFrame: nll takes NumPy arrays"):
            fastkl.nll(its_labels, frame)
    with pytest.raises(TypeError, match=r"^labels is a pandas\.Series: nll takes NumPy arrays"):
        fastkl.nll(pandas.Series(labels), rows)


@pytest.mark.skipif(sys.platform != "linux", reason="memory that must not be read is made by Linux's mprotect")
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_nothing_is_read_behind_rows_of_negative_entries(dtype):
    """No entry is the largest of them. The rows end where memory that must not be read begins."""
    code = f"""
import mmap
page = mmap.PAGESIZE
memory = mmap.mmap(-1, 257 * page)
rows = np.frombuffer(memory, "{dtype}", 256 * page // np.dtype("{dtype}").itemsize).reshape(-1, 4096)
rows[...] = -1 - np.random.default_rng(0).random(rows.shape)
address = ctypes.addressof(ctypes.c_char.from_buffer(memory)) + 256 * page
assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(address), page, 0) == 0
for invalid in "nan", "raise":
    try:
        print(np.isnan(fastkl.compare(rows, rows[::-1], invalid=invalid, normalize=True).kl).all())
    except fastkl.InvalidRowError as error:
        print(error.index)
"""
    assert python(code).split("\n")[:2] == ["True", "(0, 0)"]
