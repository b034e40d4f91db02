"""`compare`: every field is the result of the function that gives it alone; ties, labels, shapes and containers.

Other tests say whether those functions are right. Where a function and a field come from different sums, they may differ by
the sum of both documented bounds.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import softmax

import fastkl

Array = np.ndarray[Any, Any]

pytestmark = pytest.mark.usefixtures("tier")

DTYPES = ["f8", "f4"]
MASK = -np.inf
FIELDS = ["entropy_p", "entropy_q", "cross_entropy", "kl", "reverse_kl", "js", "same_argmax", "nll_p", "nll_q"]
LOGITS: list[Any] = [True, False, "p", "q"]


def assert_same_bits(result: Any, expected: Any) -> None:
    result, expected = np.asarray(result), np.asarray(expected)
    assert (result.dtype, result.shape) == (expected.dtype, expected.shape)
    assert result.tobytes() == expected.tobytes()


def operands(seed: int, shape: tuple[int, ...], dtype: Any, from_logits: Any, masks: bool = True) -> list[Array]:
    """Logits or probabilities; in each fifth row, p has a mask or a zero where q has none."""
    rows = list(np.random.default_rng(seed).standard_normal((2, *shape)) * 4)
    if masks:
        rows[0][::5, ..., 0] = MASK
    for i, logits in enumerate(softmax.OF_LOGITS[from_logits]):
        if not logits:
            weights = np.exp(rows[i] - rows[i].max(axis=-1, keepdims=True))
            rows[i] = weights / weights.sum(axis=-1, keepdims=True)
    return [row.astype(dtype) for row in rows]


def alone(p: Any, q: Any, labels: Any = None, from_logits: Any = False, **keywords: Any) -> dict[str, Any]:
    """Each field from a call of its own, with a temperature where there are logits."""
    flags = softmax.OF_LOGITS[from_logits]
    ignored = {"ignore_index": keywords.pop("ignore_index")} if "ignore_index" in keywords else {}
    temperature = {"temperature": keywords.pop("temperature", 1.0)}
    own = [{**keywords, "from_logits": flag, **(temperature if flag else {})} for flag in flags]
    exchanged = {"p": "q", "q": "p"}.get(from_logits, from_logits)
    both, reverse = ({**keywords, "from_logits": which, **temperature} for which in (from_logits, exchanged))
    return {
        "entropy_p": fastkl.entropy(p, **own[0]),
        "entropy_q": fastkl.entropy(q, **own[1]),
        "cross_entropy": fastkl.cross_entropy(p, q, **both),
        "kl": fastkl.kl_divergence(p, q, **both),
        "reverse_kl": fastkl.kl_divergence(q, p, **reverse),
        "js": fastkl.js_divergence(p, q, **both),
        "nll_p": None if labels is None else fastkl.nll(labels, p, **own[0], **ignored),
        "nll_q": None if labels is None else fastkl.nll(labels, q, **own[1], **ignored),
    }


def slack(field: str, expected: dict[str, Any], from_logits: Any, eps: float) -> Any:
    """Both bounds together."""
    value = np.abs(np.where(np.isfinite(expected[field]), expected[field], 0))
    if field in ("kl", "reverse_kl", "js"):
        mixed = 64 * np.finfo(float).eps * np.sqrt(value) if from_logits in ("p", "q") else 0
        return 2 * (32 * eps * np.maximum(value, 1e-14) + mixed)
    entropies = 2 * (32 * eps * value + 4 * eps)
    return entropies + slack("kl", expected, from_logits, eps) if field == "cross_entropy" else entropies


def assert_as_alone(result: Any, expected: dict[str, Any], from_logits: Any) -> None:
    eps = float(np.finfo(result.kl.dtype).eps)
    for field, right in expected.items():
        value = getattr(result, field)
        if right is None:
            assert value is None
            continue
        assert value.shape == right.shape, field
        np.testing.assert_array_equal(np.isnan(value), np.isnan(right), field)
        np.testing.assert_array_equal(np.isinf(value), np.isinf(right), field)
        finite = np.isfinite(right)
        error = np.where(finite, np.abs(np.where(finite, value, 0) - np.where(finite, right, 0)), 0)
        assert np.all(error <= slack(field, expected, from_logits, eps)), f"{field}: {value}, alone {right}"


# ---- fields ----


def test_the_fields_and_their_order() -> None:
    assert list(fastkl.Comparison._fields) == FIELDS
    result = fastkl.compare([[0.5, 0.5]], [[0.25, 0.75]])
    assert isinstance(result, fastkl.Comparison)
    assert result.nll_p is result.nll_q is None
    assert [type(value) for value in result[:7]] == [np.ndarray] * 7
    assert [value.dtype for value in result[:7]] == [np.dtype("f8")] * 6 + [np.dtype("?")]
    labelled = fastkl.compare([[0.5, 0.5]], [[0.25, 0.75]], [1], base=2)
    assert labelled.nll_p == [1]
    np.testing.assert_allclose(labelled.nll_q, [np.log2(4 / 3)], rtol=8 * np.finfo(float).eps)


@pytest.mark.parametrize("masks", [False, True])
@pytest.mark.parametrize("n", [1, 2, 7, 33, 127, 1000, 1025, 2500])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("from_logits", LOGITS, ids=str)
def test_each_field_is_as_alone(from_logits: Any, dtype: str, n: int, masks: bool) -> None:
    p, q = operands(n, (15, n), dtype, from_logits, masks and n > 1)
    labels = np.random.default_rng(n).integers(0, n, 15)
    temperatures = [1.0] if from_logits is False else [1.0, 0.5, 3.0]
    for temperature in temperatures:
        keywords = {"from_logits": from_logits, "temperature": temperature}
        result = fastkl.compare(p, q, labels, **keywords)
        assert_as_alone(result, alone(p, q, labels, **keywords), from_logits)
        np.testing.assert_array_equal(result.same_argmax, p.argmax(axis=-1) == q.argmax(axis=-1))
        without = fastkl.compare(p, q, **keywords)
        for field in FIELDS[:7]:
            assert_same_bits(getattr(without, field), getattr(result, field))


@pytest.mark.parametrize("n", [1, 2, 7, 33, 1000, 2500])
@pytest.mark.parametrize("dtype", DTYPES)
def test_divergence_of_logits_has_the_bits_of_that_alone(dtype: str, n: int) -> None:
    for temperature in 1.0, 3.0:
        p, q = operands(n, (50, n), dtype, True, n > 1)
        result = fastkl.compare(p, q, from_logits=True, temperature=temperature)
        assert_same_bits(result.kl, fastkl.kl_divergence(p, q, from_logits=True, temperature=temperature))


HOSTILE = [
    ([0.0, 1.0, 2.0], [0.0, 1.0, 2.0]),
    ([0.0, 1.0, 2.0], [100.0, 101.0, 102.0]),
    ([0.0, MASK, 2.0], [0.0, 1.0, MASK]),
    ([0.0, MASK, 2.0], [0.0, MASK, 1.0]),
    ([0.0, MASK, MASK], [MASK, MASK, 1.0]),
    ([1e30, 0.0, -1e30], [0.0, 1e30, 0.0]),
    ([1e30, 0.0, -1e30], [1e30, 0.0, -1e30]),
    ([0.0, -700.0, -1e4], [0.0, -800.0, -1e4]),
    ([0.0, -100.0, -200.0], [-200.0, -100.0, 0.0]),
    ([0.0, -40.0, -200.0], [0.0, -41.0, -900.0]),
    ([3e38, -3e38, 0.0], [-3e38, 3e38, 0.0]),
]


@pytest.mark.parametrize("times", [1, 50, 900])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("p", "q"), HOSTILE)
def test_rows_of_which_the_common_pass_is_not_accepted(p: Any, q: Any, dtype: str, times: int) -> None:
    p, q = (np.tile(np.array(x, dtype), times)[np.newaxis] for x in (p, q))
    for temperature, label in itertools.product([1.0, 3.0], range(3)):
        keywords = {"from_logits": True, "temperature": temperature}
        result = fastkl.compare(p, q, [label], **keywords)
        assert_as_alone(result, alone(p, q, [label], **keywords), True)
        assert result.same_argmax == (p.argmax() == q.argmax())


@pytest.mark.parametrize("dtype", DTYPES)
def test_values_that_are_much_less_than_the_divergence(dtype: str) -> None:
    """Where p has little weight, q has next to none: D is 0.001 to 1, while the other divergences are below 1e-18."""
    draw = np.random.default_rng(1)
    x = draw.uniform(*((43, 63) if dtype == "f4" else (60, 300)), 300)
    far, zero = np.exp(x) * draw.uniform(0.001, 1, x.size), np.zeros_like(x)
    p, q = np.stack([zero, x, x - 1], 1).astype(dtype), np.stack([-far, zero, zero - 1], 1).astype(dtype)
    result = fastkl.compare(p, q, from_logits=True)
    assert result.kl.min() > 5e-4
    assert result.reverse_kl.max() < 1e-18
    assert_as_alone(result, alone(p, q, from_logits=True), True)


@pytest.mark.parametrize("from_logits", [False, True, "p", "q"], ids=str)
def test_cross_entropy_of_float32_beside_float64_is_that_alone(from_logits: Any) -> None:
    """That is float64, and H(p) + D is too only if H(p) is."""
    p, q = operands(9, (50, 40), "f8", from_logits)
    p = p.astype("f4")
    keywords: dict[str, Any] = {"from_logits": from_logits, "normalize": True}
    expected = {"cross_entropy": fastkl.cross_entropy(p, q, **keywords), "kl": fastkl.kl_divergence(p, q, **keywords)}
    error = np.abs(fastkl.compare(p, q, **keywords).cross_entropy - expected["cross_entropy"])
    assert np.all(error <= slack("cross_entropy", expected, from_logits, 2.0**-52))


@pytest.mark.parametrize("logits", [[156.84e9, 0.0], [0.5, 0.25]])
def test_a_rough_sum_of_float16_is_accepted_beside_logits(logits: list[float]) -> None:
    rough, exact = np.array([[0.4539, 0.5464]], "e"), np.array([logits])  # 1.0003, as near to 1 as float16 needs to be
    for p, q, from_logits in [(rough, exact, "q"), (exact, rough, "p")]:
        result = fastkl.compare(p, q, from_logits=from_logits)
        expected = alone(p, q, from_logits=from_logits)
        pairs = {field: expected[field] for field in ("cross_entropy", "kl", "reverse_kl", "js")}
        assert_as_alone(result, pairs, from_logits)


def test_entropies_of_probabilities_beside_logits() -> None:
    """They are those alone, whatever the probabilities are multiplied by."""
    p, q = operands(5, (30, 20), "f8", "p")
    q[:, 0] = 50
    for weight in 1.0, 1e6, 1e190:
        result = fastkl.compare(p, q * weight, from_logits="p", normalize=True)
        swapped = fastkl.compare(q * weight, p, from_logits="q", normalize=True)
        expected = fastkl.entropy(q * weight, normalize=True)
        assert_same_bits(result.entropy_q, expected)
        assert_same_bits(swapped.entropy_p, expected)


def test_base_and_normalize() -> None:
    counts = np.array([[3, 1, 0], [1, 1, 2]]), np.array([[1, 1, 2], [1, 1, 2]])
    keywords = {"base": 2, "normalize": True}
    result = fastkl.compare(*counts, [0, 2], **keywords)
    assert_as_alone(result, alone(*counts, [0, 2], **keywords), False)
    assert result.kl[1] == result.js[1] == 0
    assert result.same_argmax.tolist() == [False, True]
    with pytest.raises(ValueError, match=r"^p\[0\] sums to 4: rows must sum to 1"):
        fastkl.compare(*counts)
    with pytest.raises(ValueError, match=r"^q\[0\] sums to 4: rows must sum to 1"):
        fastkl.compare(np.full((2, 3), 1 / 3), counts[1])


# ---- argmax ----


@pytest.mark.parametrize("from_logits", LOGITS, ids=str)
@pytest.mark.parametrize("dtype", ["f8", "f4", "e"])
def test_the_largest_entry_in_any_place(from_logits: Any, dtype: str) -> None:
    for n in 1, 5, 40, 256:  # of the last, the middle is where vectors begin
        p = np.identity(n, dtype)
        q = np.full((1, n), 0.5, dtype)
        q[0, n // 2] = 1
        expected = np.arange(n) == n // 2
        np.testing.assert_array_equal(fastkl.compare(p, q, from_logits=from_logits, normalize=True).same_argmax, expected)


def test_a_rough_sum_of_float16_is_accepted_beside_float64() -> None:
    rough, exact = (
        np.array([[0.4539, 0.5464]], "e"),
        np.array([[0.25, 0.75]]),
    )  # 1.0003, as near to 1 as float16 needs to be
    for p, q in (rough, exact), (exact, rough):
        expected = alone(p, q)
        assert_as_alone(fastkl.compare(p, q), {field: expected[field] for field in ("kl", "reverse_kl", "js")}, False)


def test_argmax_of_probabilities_that_differ_in_the_last_digit() -> None:
    """Their logarithms may be the same number."""
    for larger in np.random.default_rng(3).random(50) / 4 + 0.25:
        q = np.array([[np.nextafter(larger, 0), larger, 0.125]])
        result = fastkl.compare(np.array([[0.0, 1.0, 0.5]]), q, from_logits="p", normalize=True)
        assert result.same_argmax.all(), larger


@pytest.mark.parametrize("dtype", [*DTYPES, "e", "i4", "u1"])
@pytest.mark.parametrize("from_logits", LOGITS, ids=str)
def test_the_first_of_equal_entries_is_the_argmax(from_logits: Any, dtype: str) -> None:
    """There are few numbers, so that equal ones are in one group, in one chunk, and in different chunks."""
    for n in 2, 5, 130, 1030, 3000:
        p, q = (np.random.default_rng(seed).integers(1, 4, (40, n)).astype(dtype) for seed in (n, n + 1))
        p[::3] = 1
        p[::3, n // 2] = p[::3, -1] = 3
        q[::6] = p[::6]
        result = fastkl.compare(p, q, from_logits=from_logits, normalize=True)
        expected = p.argmax(axis=-1) == q.argmax(axis=-1)
        assert expected[::6].all()
        np.testing.assert_array_equal(result.same_argmax, expected)


def test_argmax_of_logits_whose_softmax_is_the_same() -> None:
    p = np.array([[0.0, 1e-300], [1e300, np.nextafter(1e300, np.inf)], [1.0, 1 + 2e-16], [-0.0, 0.0]])
    q = np.array([[0.0, 1.0]] * 3 + [[0.0, -1.0]])
    for rows in p, p[:, ::-1]:
        result = fastkl.compare(rows, q, from_logits=True)
        np.testing.assert_array_equal(result.same_argmax, rows.argmax(axis=-1) == q.argmax(axis=-1))


# ---- invalid rows, labels ----


@pytest.mark.parametrize("from_logits", LOGITS, ids=str)
def test_an_invalid_row_is_nan_in_all_fields(from_logits: Any) -> None:
    p, q = operands(3, (8, 6), "f8", from_logits)
    labels = np.arange(8) % 6
    expected = fastkl.compare(p, q, labels, from_logits=from_logits)
    p[2, 3], q[4, 1], labels[6] = np.nan, np.inf, 6
    result = fastkl.compare(p, q, labels, from_logits=from_logits, invalid="nan")
    good = [0, 1, 3, 5, 7]
    for field in FIELDS:
        value = getattr(result, field)
        assert_same_bits(value[good], getattr(expected, field)[good])
        if field == "same_argmax":
            assert not value[[2, 4, 6]].any()
        else:
            assert np.isnan(value[[2, 4, 6]]).all(), field
    ignored = fastkl.compare(p, q, labels, from_logits=from_logits, invalid="ignore")
    for field in FIELDS:
        assert_same_bits(getattr(ignored, field)[good], getattr(expected, field)[good])
    with pytest.raises(ValueError, match=r"p\[2, 3\] = nan: (logits|probabilities) must be"):
        fastkl.compare(p, q, labels, from_logits=from_logits)
    with pytest.raises(ValueError, match=r"q\[1, 1\] = inf: (logits|probabilities) must be"):
        fastkl.compare(p[3:], q[3:], labels[3:], from_logits=from_logits)
    with pytest.raises(ValueError, match=r"^labels\[1\] = 6: labels must be in 0\.\.5$"):
        fastkl.compare(p[5:], q[5:], labels[5:], from_logits=from_logits)


@pytest.mark.parametrize("from_logits", LOGITS, ids=str)
def test_an_ignored_label_costs_nothing(from_logits: Any) -> None:
    """The row is compared like others, and so it must be valid."""
    p, q = operands(4, (6, 9), "f4", from_logits)
    labels = np.array([0, -100, 3, -100, 8, 1], "i2")
    result = fastkl.compare(p, q, labels, from_logits=from_logits, ignore_index=-100)
    assert_as_alone(result, alone(p, q, labels, from_logits, ignore_index=-100), from_logits)
    assert not result.nll_p[[1, 3]].any()
    assert not result.nll_q[[1, 3]].any()
    for field in FIELDS[:7]:
        assert_same_bits(getattr(result, field), getattr(fastkl.compare(p, q, from_logits=from_logits), field))
    p[1, 2] = np.nan
    with pytest.raises(ValueError, match=r"p\[1, 2\] = nan: (logits|probabilities) must be"):
        fastkl.compare(p, q, labels, from_logits=from_logits, ignore_index=-100)


@pytest.mark.parametrize("dtype", ["u1", ">i2", "i4", "u8", ">u8"])
def test_labels_of_any_integer_dtype(dtype: str) -> None:
    p, q = operands(5, (6, 9), "f4", True)
    labels = np.array([0, 1, 8, 3, 4, 5])
    expected = fastkl.compare(p, q, labels, from_logits=True)
    result = fastkl.compare(p, q, labels.astype(dtype), from_logits=True)
    assert_same_bits(result.nll_p, expected.nll_p)
    assert_same_bits(result.nll_q, expected.nll_q)


# ---- shapes ----


def test_axis_and_keepdims() -> None:
    p, q = operands(6, (3, 4, 5), "f8", True, masks=False)
    for axis in 0, 1, 2, -1, -2, -3:
        rows = [np.moveaxis(x, axis, -1).copy() for x in (p, q)]
        labels = np.random.default_rng(axis + 3).integers(0, rows[0].shape[-1], rows[0].shape[:-1])
        expected = fastkl.compare(*rows, labels, from_logits=True)
        result = fastkl.compare(p, q, labels, axis=axis, from_logits=True)
        kept = fastkl.compare(p, q, labels, axis=axis, from_logits=True, keepdims=True)
        for field in FIELDS:
            assert_same_bits(getattr(result, field), getattr(expected, field))
            assert_same_bits(getattr(kept, field), np.expand_dims(getattr(expected, field), axis))


def test_one_pair_of_rows_gives_scalars() -> None:
    p, q = [2.0, 1.0, -1.0], [2.0, 1.25, -1.0]
    result = fastkl.compare(p, q, 2, from_logits=True)
    assert [type(value) for value in result] == [np.float64] * 6 + [np.bool] + [np.float64] * 2
    rows = fastkl.compare([p], [q], [2], from_logits=True)
    for field in FIELDS:
        assert_same_bits(getattr(result, field), getattr(rows, field)[0])
    kept = fastkl.compare(p, q, from_logits=True, keepdims=True)
    assert kept.kl.shape == kept.same_argmax.shape == (1,)


def test_broadcasting() -> None:
    p, q = operands(7, (4, 5, 6), "f8", True)
    labels = np.random.default_rng(8).integers(0, 6, (4, 5))
    for other, its_labels in (q[0], labels), (q[:, :1], labels[:1]), (q[0, 0], labels[0, 0]), (q[:1, :1], labels[:, :1]):
        whole = np.broadcast_to(other, p.shape).copy(), np.broadcast_to(its_labels, (4, 5)).copy()
        expected = fastkl.compare(p, *whole, from_logits=True)
        result = fastkl.compare(p, other, its_labels, from_logits=True)
        swapped, swapped_expected = (fastkl.compare(x, p, y, from_logits=True) for x, y in ((other, its_labels), whole))
        for field in FIELDS:
            assert_same_bits(getattr(result, field), getattr(expected, field))
            assert_same_bits(getattr(swapped, field), getattr(swapped_expected, field))
    nothing = fastkl.compare(np.empty((0, 3)), np.empty((0, 3)), np.empty(0, int))
    assert [value.shape for value in nothing] == [(0,)] * 9


@pytest.mark.parametrize("from_logits", LOGITS, ids=str)
def test_place_strides_and_threads_do_not_change_a_value(from_logits: Any) -> None:
    """Only rows of logits can have other strides: those of probabilities decide on the order of addition."""
    for dtype, n in itertools.product(DTYPES, [6, 130, 1500]):
        p, q = operands(9, (60, n), dtype, from_logits)
        labels = np.random.default_rng(10).integers(0, n, 60)
        expected = fastkl.compare(p, q, labels, from_logits=from_logits, threads=1)
        others = [fastkl.compare(p, q, labels, from_logits=from_logits, threads=threads) for threads in (2, 3, 7)]
        reversed_rows = fastkl.compare(p[::-1], q[::-1], labels[::-1], from_logits=from_logits)
        others.append(fastkl.Comparison(*(value[::-1] for value in reversed_rows)))
        if from_logits is not False:
            foreign, backwards = p.astype(p.dtype.newbyteorder("S")), q[:, ::-1].copy()[:, ::-1]
            others.append(fastkl.compare(foreign, np.repeat(q, 3, axis=1)[:, ::3], labels, from_logits=from_logits))
            others.append(fastkl.compare(np.asfortranarray(p), backwards, labels, from_logits=from_logits))
        for result in others:
            for field in FIELDS:
                assert_same_bits(np.ascontiguousarray(getattr(result, field)), getattr(expected, field))


# ---- containers ----


@pytest.mark.parametrize("from_logits", [True, False])
def test_tensors_of_torch(from_logits: bool) -> None:
    torch = pytest.importorskip("torch")
    p, q = operands(11, (7, 12), "f4", from_logits)
    labels = np.arange(7)
    expected = fastkl.compare(p, q, labels, from_logits=from_logits)
    for its_labels in labels, torch.from_numpy(labels):
        result = fastkl.compare(torch.from_numpy(p), torch.from_numpy(q), its_labels, from_logits=from_logits)
        assert isinstance(result, fastkl.Comparison)
        for field in FIELDS:
            assert isinstance(getattr(result, field), torch.Tensor), field
            assert_same_bits(getattr(result, field).numpy(), getattr(expected, field))
    kept = fastkl.compare(torch.from_numpy(p), torch.from_numpy(q), from_logits=from_logits, keepdims=True)
    assert kept.kl.shape == kept.same_argmax.shape == (7, 1)
    half = fastkl.compare(torch.from_numpy(p).bfloat16(), torch.from_numpy(q).half(), from_logits=True)
    assert half.kl.dtype == torch.float32


def test_data_frames_are_refused() -> None:
    pandas = pytest.importorskip("pandas")
    rows = np.full((3, 2), 0.5)
    frame = pandas.DataFrame(rows)
    for name, p, q in ("p", frame, frame), ("p", frame, rows), ("q", rows, frame):
        message = rf"^{name} is a pandas\.DataFrame: compare takes NumPy arrays, as its to_numpy\(\)"
        with pytest.raises(TypeError, match=message):
            fastkl.compare(p, q)
    with pytest.raises(TypeError, match=r"^q is a pandas\.DataFrame: nll takes NumPy arrays"):
        fastkl.nll(np.zeros(3, int), frame)
    with pytest.raises(TypeError, match=r"^labels is a pandas\.Series: nll takes NumPy arrays"):
        fastkl.nll(pandas.Series([0, 1, 1]), rows)
