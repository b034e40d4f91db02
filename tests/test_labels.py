"""Negative log-likelihood of labels: values by definition and by torch, ignored rows, smoothing and invalid labels."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import softmax
from inputs import BFLOATS, decoded, encoded
from mpmath import mp, mpf

import fastkl

Array = np.ndarray[Any, Any]

pytestmark = pytest.mark.usefixtures("tier")

DTYPES = ["f8", "f4"]
INTEGERS = [np.dtype(char) for char in "bBhHiIqQ"]
MASK = -np.inf


def loss(labels: Any, q: Any, **keywords: Any) -> Any:
    return fastkl.nll(labels, q, from_logits=True, **keywords)


def assert_same_bits(result: Any, expected: Any) -> None:
    result, expected = np.asarray(result), np.asarray(expected)
    assert (result.dtype, result.shape) == (expected.dtype, expected.shape)
    assert result.tobytes() == expected.tobytes()


def assert_near(result: Any, expected: Any, case: str = "") -> None:
    """The documented bound of a cross-entropy from logits."""
    dtype, message = np.finfo(result.dtype), f"{result!r}, not {expected}; {case}"
    assert result >= 0, message
    if np.isinf(result) or expected == np.inf:
        assert np.isinf(result), message
        assert expected >= float(dtype.max), message
        return
    bound = softmax.allowed("cross_entropy", expected, float(dtype.eps), 0.0)
    assert abs(mpf(float(result)) - expected) <= bound, message


def logits(seed: int, shape: tuple[int, ...], dtype: Any = "f8", size: float = 4) -> Array:
    return encoded(np.random.default_rng(seed).standard_normal(shape) * size, np.dtype(dtype))


def drawn(seed: int, n: int, shape: Any, dtype: Any = "i8") -> Array:
    return np.random.default_rng(seed).integers(0, n, shape).astype(dtype)


def by_definition(labels: Array, q: Array, smoothing: float = 0.0, temperature: float = 1.0) -> Array:
    """The definition in float64, for logits of a size that loses no digits."""
    x = decoded(q) / temperature
    with np.errstate(divide="ignore"):
        logs = x - np.log(np.exp(x).sum(axis=-1, keepdims=True))
    own = np.take_along_axis(logs, labels[..., np.newaxis].astype(int), -1)[..., 0]
    return -(1 - smoothing) * own - smoothing * logs.mean(axis=-1)


# ---- values ----

ROWS = [
    [0.0, 1.0, -2.0, 0.5],
    [100.0, 99.0, 101.0, -100.0],
    [0.0, -40.0, -80.0, -120.0],
    [0.0, -700.0, -800.0, -1e4],
    [1e30, 0.0, -1e30, 1.0],
    [MASK, 0.0, 3.0, MASK],
    [5.0, MASK, MASK, MASK],
    [3e38, 3e38, -3e38, 0.0],
]
ROWS_OF_DOUBLES = [[1e300, 0.0, -1e300, 1.0], [4e307, -4e307, 0.0, 4e307]]


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize(
    ("dtype", "row"), [(dtype, row) for dtype in DTYPES for row in ROWS + ROWS_OF_DOUBLES * (dtype == "f8")]
)
def test_any_logits_by_definition(dtype: str, row: Any, smoothing: float) -> None:
    """A masked label gives inf. With smoothing, any mask gives inf, as each entry has a weight. `wide` has three chunks."""
    q = np.array(row, dtype)
    wide = np.full(2500, MASK, dtype)
    wide[[0, 1023, 1024, 2499]] = q
    for temperature in 1.0, 0.25, 10.0:
        distribution = softmax.distribution(q, True, temperature)
        for label in range(4):
            expected = softmax.loss(distribution, label, smoothing)
            assert_near(
                loss(label, q, label_smoothing=smoothing, temperature=temperature), expected, f"{label=} {temperature=}"
            )
            place = [0, 1023, 1024, 2499][label]
            expected = expected if smoothing == 0 else mpf("inf")
            assert_near(loss(place, wide, label_smoothing=smoothing, temperature=temperature), expected, f"wide {label=}")


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("dtype", [*DTYPES, "e", BFLOATS[-1]], ids=str)
def test_many_rows(dtype: Any, smoothing: float) -> None:
    """NumPy's float64 has an error of a few eps of the largest logarithm."""
    for rows, n in (300, 10), (40, 127), (9, 1000), (3, 3000):
        q, labels = logits(n, (rows, n), dtype), drawn(n, n, rows)
        result = loss(labels, q, label_smoothing=smoothing)
        assert result.dtype == ("f8" if dtype == "f8" else "f4")
        eps = np.finfo(result.dtype).eps
        right = by_definition(labels, q, smoothing)
        assert np.all(np.abs(result - right) <= 32 * eps * right + 4 * eps + 64 * np.finfo(float).eps * 32)
        for temperature in 0.5, 3.0:
            right = by_definition(labels, q, smoothing, temperature)
            result = loss(labels, q, label_smoothing=smoothing, temperature=temperature)
            assert np.all(np.abs(result - right) <= 32 * eps * right + 4 * eps + 64 * np.finfo(float).eps * 64)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("dtype", DTYPES)
def test_values_are_torchs(dtype: str, smoothing: float) -> None:
    """Torch adds n float32 numbers in float32: its own error is at most n eps times the largest logarithm."""
    torch = pytest.importorskip("torch")
    for rows, n in (200, 10), (20, 1000):
        q, labels = logits(n + 1, (rows, n), dtype), drawn(n, n, rows)
        labels[::7] = 3
        expected = torch.nn.functional.cross_entropy(
            torch.from_numpy(q), torch.from_numpy(labels), reduction="none", ignore_index=3, label_smoothing=smoothing
        ).numpy()
        result = loss(labels, q, ignore_index=3, label_smoothing=smoothing)
        np.testing.assert_allclose(result, expected, rtol=0, atol=n * np.finfo(dtype).eps * 40)
        np.testing.assert_array_equal(result[labels == 3], 0)
        tensors = loss(torch.from_numpy(labels), torch.from_numpy(q), ignore_index=3, label_smoothing=smoothing)
        assert isinstance(tensors, torch.Tensor)
        assert_same_bits(tensors.numpy(), result)


@pytest.mark.parametrize("dtype", DTYPES)
def test_masks_have_torchs_values(dtype: str) -> None:
    torch = pytest.importorskip("torch")
    q, labels = logits(5, (50, 12), dtype), drawn(6, 12, 50)
    q[np.random.default_rng(7).random(q.shape) < 0.3] = MASK
    q[:, 5] = 0
    for smoothing in 0.0, 0.1:
        expected = torch.nn.functional.cross_entropy(
            torch.from_numpy(q), torch.from_numpy(labels), reduction="none", label_smoothing=smoothing
        ).numpy()
        result = loss(labels, q, label_smoothing=smoothing)
        np.testing.assert_array_equal(np.isinf(result), np.isinf(expected))
        np.testing.assert_allclose(result, expected, rtol=0, atol=12 * np.finfo(dtype).eps * 40)


def test_base() -> None:
    q, labels = logits(8, (20, 9)), drawn(9, 9, 20)
    np.testing.assert_allclose(loss(labels, q, base=2), loss(labels, q) / np.log(2), rtol=4 * np.finfo(float).eps)


# ---- labels ----


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_labels_of_any_integer_dtype(dtype: np.dtype[Any]) -> None:
    q, labels = logits(10, (40, 100), "f4"), drawn(11, 100, 40)
    expected = loss(labels, q)
    assert expected.dtype == np.float32
    for given in (
        labels.astype(dtype),
        labels.astype(dtype.newbyteorder("S")),
        np.repeat(labels, 3).astype(dtype)[::3],
        labels[::-1].astype(dtype)[::-1],
        np.frombuffer(b"\xff" + labels.astype(dtype).tobytes(), dtype, offset=1),
    ):
        assert_same_bits(loss(given, q), expected)
        assert_same_bits(loss(given, q.astype("f8")).dtype, np.dtype("f8"))
    assert_same_bits(loss(labels.tolist(), q), expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_dtype_of_the_result_is_that_of_q(dtype: str) -> None:
    q = logits(12, (3, 4), dtype)
    assert loss([0, 1, 2], q).dtype == dtype
    assert loss(np.uint64(3), q[0]).dtype == dtype
    assert loss(np.array([0, 1, 2], "i1"), q.astype("i4")).dtype == float
    assert fastkl.nll([0, 1, 2], np.eye(3, 4, dtype=bool)).dtype == float
    assert loss(np.array([0, 1, 2]), q.astype("e")).dtype == np.float32


@pytest.mark.parametrize("label", [2, np.int64(2), np.uint8(2), np.array(2), np.array(2, ">u8")], ids=repr)
def test_one_row_and_one_label_give_a_scalar(label: Any) -> None:
    q = np.array([0.5, 0.25, 0.25])
    result = fastkl.nll(label, q, base=2)
    assert isinstance(result, np.float64)
    assert result == 2
    assert isinstance(fastkl.nll(label, q.tolist()), np.float64)
    assert fastkl.nll(label, q, keepdims=True).shape == (1,)


def test_labels_broadcast() -> None:
    q, labels = logits(13, (4, 5, 6)), drawn(14, 6, (4, 5))
    expected = np.array([[loss(labels[i, j], q[i, j]) for j in range(5)] for i in range(4)])
    assert_same_bits(loss(labels, q), expected)
    assert_same_bits(loss(labels, q, keepdims=True), expected[..., np.newaxis])
    assert_same_bits(loss(labels[:, :1], q), loss(np.repeat(labels[:, :1], 5, axis=1), q))
    assert_same_bits(loss(labels[:1], q), loss(np.repeat(labels[:1], 4, axis=0), q))
    assert_same_bits(loss(labels, q[:1]), loss(labels, np.repeat(q[:1], 4, axis=0)))
    assert_same_bits(loss(np.broadcast_to(labels[0, 0], (4, 5)), q), loss(np.full((4, 5), labels[0, 0]), q))
    assert_same_bits(
        loss(labels, np.broadcast_to(q[0, 0], q.shape)), loss(labels, np.broadcast_to(q[0, 0], q.shape).copy())
    )
    assert loss(np.empty((0, 5), int), q[:0]).shape == (0, 5)


def test_labels_may_have_more_axes_than_the_rows() -> None:
    q, labels = logits(24, (5, 6)), drawn(25, 6, (4, 5))
    assert_same_bits(loss(labels, q), loss(labels, np.repeat(q[np.newaxis], 4, axis=0)))
    assert_same_bits(loss(labels[0], q[0]), loss(labels[0], np.repeat(q[:1], 5, axis=0)))
    assert loss([[1]], q[0]).shape == (1, 1)


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -2, -3])
def test_axis(axis: int) -> None:
    q = logits(15, (4, 5, 6))
    rows = np.moveaxis(q, axis, -1).copy()
    labels = drawn(16, rows.shape[-1], rows.shape[:-1])
    expected = loss(labels, rows)
    assert_same_bits(loss(labels, q, axis=axis), expected)
    assert_same_bits(loss(labels, q, axis=axis, keepdims=True), np.expand_dims(expected, axis))
    assert_same_bits(loss(np.asfortranarray(labels), np.asfortranarray(q), axis=axis), expected)


def test_position_layout_and_threads_do_not_change_a_bit() -> None:
    for dtype, n in itertools.product(DTYPES, [7, 300, 2500]):
        q, labels = logits(17, (200, n), dtype), drawn(18, n, 200)
        expected = loss(labels, q, threads=1)
        for threads in 2, 3, 7:
            assert_same_bits(loss(labels, q, threads=threads), expected)
        wide = np.full((200, 3 * n), np.nan, dtype)
        wide[:, 1::3] = q
        for given in q[:, ::-1].copy()[:, ::-1], np.asfortranarray(q), wide[:, 1::3], q.astype(q.dtype.newbyteorder("S")):
            assert_same_bits(loss(labels, given), expected)
        assert_same_bits(loss(labels[::-1], q[::-1]), expected[::-1].copy())
        out = np.empty(200)
        assert loss(labels, q, out=out) is out
        assert_same_bits(out.astype(dtype), expected)
        assert_same_bits(loss(labels, q, out=np.empty(200, ">f4")).astype("f4"), expected.astype("f4"))


def test_out_may_overlap_the_operands() -> None:
    q, labels = logits(19, (12, 12)), drawn(20, 12, 12)
    expected = loss(labels, q)
    for column in 0, 5, 11:
        given = q.copy()
        loss(labels, given, out=given[:, column])
        assert_same_bits(given[:, column].copy(), expected)
    shared = np.empty(12)
    shared.view("i8")[...] = labels
    assert_same_bits(loss(shared.view("i8"), q, out=shared), expected)


# ---- probabilities ----


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("dtype", DTYPES)
def test_labels_of_probabilities(dtype: str, smoothing: float) -> None:
    weights = np.random.default_rng(21).random((12, 8)) ** 6
    weights[2, 3] = 0
    q = (weights / weights.sum(axis=-1, keepdims=True)).astype(dtype)
    for i, label in itertools.product(range(12), range(8)):
        expected = softmax.loss(softmax.distribution(q[i], False), label, smoothing)
        assert_near(fastkl.nll(label, q[i], label_smoothing=smoothing), expected, f"{i=} {label=}")


@pytest.mark.parametrize("entry", [5e-324, 2e-319, 1e-308, 2.0**-900, 1e-200])
def test_subnormal_probabilities_are_not_zero(entry: float) -> None:
    row = np.array([[0.5, entry, 0.5]])
    expected = -float(mp.log(mpf(entry)))
    for result in fastkl.nll([1], row), fastkl.compare(row, row, [1]).nll_q:
        np.testing.assert_allclose(result, expected, rtol=32 * 2.0**-52)
    largest = np.array([[1e308, entry]])
    expected += float(mp.log(mpf(1e308)))
    np.testing.assert_allclose(fastkl.nll([1], largest, normalize=True), expected, rtol=32 * 2.0**-52)
    mixed = fastkl.cross_entropy([[-np.inf, 1.0]], largest, from_logits="p", normalize=True)
    np.testing.assert_allclose(mixed, expected, rtol=32 * 2.0**-52)
    nothing = np.array([[1e308, 0.0]])
    expected = float(mp.log(mpf(1e308)) - mp.log(mpf(entry)))
    np.testing.assert_allclose(fastkl.nll([1], nothing, normalize=True, eps=entry), expected, rtol=32 * 2.0**-52)


def test_rows_of_counts_are_normalised() -> None:
    counts = np.array([[1, 2, 5], [0, 4, 4]])
    for q in counts, counts.astype("f4"), counts * 1e300:
        result = fastkl.nll([2, 1], q, normalize=True, base=2)
        np.testing.assert_allclose(result, [np.log2(8 / 5), 1], rtol=4 * np.finfo(result.dtype).eps)
        assert fastkl.nll([0, 0], q, normalize=True)[1] == np.inf
    with pytest.raises(ValueError, match=r"^q\[0\] sums to 8: rows must sum to 1"):
        fastkl.nll([2, 1], counts)


@pytest.mark.parametrize("dtype", DTYPES)
def test_labels_of_rows_of_many_pieces(dtype: str) -> None:
    """Every entry of a row counts once, at the ends of its pieces too: a piece has 65,536 entries."""
    row = np.random.default_rng(23).integers(1, 900, 2 * 65_536 + 7)
    q = row.astype(dtype)
    for label in 0, 65_535, 65_536, len(row) - 1:
        with mp.workdps(30):
            expected = mp.log(mpf(int(row.sum())) / int(row[label]))
        assert_near(fastkl.nll(label, q, normalize=True), expected, f"{label=}")


@pytest.mark.parametrize("dtype", DTYPES)
def test_eps(dtype: str) -> None:
    q = np.array([[0.5, 0.5, 0.0], [0.25, 0.75, 0.0]], dtype)
    rows = np.array([[0.0, 3.0, MASK], [0.0, -50.0, -1e30]], dtype)
    for eps, smoothing, i, label in itertools.product([1e-300, 1e-9, 0.3], [0.0, 0.1], range(2), range(3)):
        keywords = {"eps": eps, "label_smoothing": smoothing}
        expected = softmax.loss(softmax.distribution(q[i], False, 1.0, eps), label, smoothing)
        assert_near(fastkl.nll(label, q[i], **keywords), expected, f"{keywords} {q[i]} {label}")
        expected = softmax.loss(softmax.distribution(rows[i], True, 2.0, eps), label, smoothing)
        assert_near(loss(label, rows[i], temperature=2.0, **keywords), expected, f"{keywords} {rows[i]} {label}")


def test_integers_in_cross_entropy_are_weights() -> None:
    """With fewer axes than q, too: they broadcast."""
    q = np.array([[0.5, 0.25, 0.25], [0.25, 0.25, 0.5]])
    assert fastkl.cross_entropy([[2, 1, 1]], q[:1], normalize=True, base=2) == [1.5]
    assert fastkl.cross_entropy([2, 1, 1], q, normalize=True, base=2).tolist() == [1.5, 1.75]
    assert fastkl.cross_entropy([0, 1, 0], q, base=2).tolist() == [2, 2]
    assert fastkl.cross_entropy(np.array([0, 1, 0]), q[0], base=2) == 2
    assert fastkl.cross_entropy(np.array([True, False, False]), q[0], base=2) == 1
    with pytest.raises(ValueError, match=r"^p has shape \(1,\) and q has shape \(2, 3\)"):
        fastkl.cross_entropy([0.0], q)


def test_cross_entropy_names_nll_where_p_could_be_labels() -> None:
    q = np.full((4, 3), 1 / 3)
    with pytest.raises(ValueError, match=r"^p has shape \(4,\) and q has shape \(4, 3\): .*class labels go to fastkl\.nll"):
        fastkl.cross_entropy([0, 1, 2, 0], q)
    with pytest.raises(ValueError, match=r"^p sums to 3: .*class labels go to fastkl\.nll"):
        fastkl.cross_entropy([0, 1, 2], q[:3])
    with pytest.raises(ValueError, match=r"^p has shape \(\)|^p is the number 1"):
        fastkl.cross_entropy(1, q[0])


@pytest.mark.parametrize("keyword", ["ignore_index", "label_smoothing"])
def test_arguments_of_labels_belong_to_nll(keyword: str) -> None:
    with pytest.raises(TypeError, match=keyword):
        fastkl.cross_entropy([0.5, 0.5], [0.5, 0.5], **{keyword: 0})


# ---- ignored, invalid ----


@pytest.mark.parametrize("from_logits", [True, False])
def test_an_ignored_row_is_not_examined(from_logits: bool) -> None:
    q = np.full((5, 4), 0.25)
    q[1], q[3] = np.nan, -np.inf
    labels = np.array([0, -100, 1, -100, 2])
    result = fastkl.nll(labels, q, ignore_index=-100, from_logits=from_logits, base=2)
    np.testing.assert_array_equal(result, [2, 0, 2, 0, 2])
    with pytest.raises(ValueError, match=r"^labels\[1\] = -100: labels must be in 0\.\.3$"):
        fastkl.nll(labels, q, from_logits=from_logits)
    again = fastkl.nll(labels, q, ignore_index=-100, from_logits=from_logits, base=2, label_smoothing=0.5, invalid="nan")
    np.testing.assert_array_equal(again, result)


@pytest.mark.parametrize(
    ("dtype", "ignored"), [("u1", 255), ("i1", -1), ("i8", -(2**63)), ("u8", 2**62), ("i2", 0), ("u2", 3)]
)
def test_any_label_can_be_ignored(dtype: str, ignored: int) -> None:
    q = np.full((3, 4), 0.25)
    labels = np.array([1, ignored, 2], dtype)
    np.testing.assert_array_equal(fastkl.nll(labels, q, ignore_index=ignored, base=2), [2, 0, 2])
    for other in -7, 2**70, -(2**70), 77:
        np.testing.assert_array_equal(fastkl.nll([1, 2, 3], q, ignore_index=other, base=2), 2)


def test_labels_of_uint64_are_not_read_as_int64() -> None:
    """2^64 - 100 has the bits of -100, and 2^63 has those of the smallest int64."""
    q = np.full(4, 0.25)
    for label in 2**64 - 100, 2**64 - 1, 2**63, 2**64 - 2**63 + 1:
        for ignored in -100, -1, -(2**63), None, 2**63 - 1:
            with pytest.raises(ValueError, match=rf"^labels = {label}: labels must be in 0\.\.3$"):
                fastkl.nll(np.uint64(label), q, ignore_index=ignored)
            assert np.isnan(fastkl.nll(np.uint64(label), q, ignore_index=ignored, invalid="nan"))


@pytest.mark.parametrize("dtype", DTYPES)
def test_an_invalid_row_does_not_change_the_others(dtype: str) -> None:
    for n in 5, 100, 2500:
        q, labels = logits(22, (40, n), dtype), drawn(23, n, 40)
        expected = loss(labels, q)
        q[3, n - 1], q[11], q[12, 0] = np.nan, MASK, np.inf
        labels[20], labels[21] = n, -1
        bad = [3, 11, 12, 20, 21]
        good = np.setdiff1d(np.arange(40), bad)
        result = loss(labels, q, invalid="nan")
        np.testing.assert_array_equal(np.flatnonzero(np.isnan(result)), bad)
        assert_same_bits(result[good], expected[good])
        assert_same_bits(loss(labels, q, invalid="ignore")[good], expected[good])
        assert np.isnan(loss(labels, q, invalid="ignore")[[20, 21]]).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_logit_is_checked(dtype: str, bad: float) -> None:
    """Also a logit that the result does not depend on."""
    for n, filler in itertools.product([2, 33, 1025, 3001], [0.0, MASK, 1e30]):
        for at in {0, n // 2, n - 1}:
            q = np.full(n, filler, dtype)
            q[0 if at else 1] = 1
            q[at] = bad
            for label in {0, n // 2, n - 1}:
                assert np.isnan(loss(label, q, invalid="nan")), f"{n=} {at=} {label=} {filler=}"
                with pytest.raises(ValueError, match=rf"^q\[{at}\] = {bad}: logits must be finite or -inf$"):
                    loss(label, q)


def test_a_list_of_labels_beside_rows_of_another_library() -> None:
    pandas = pytest.importorskip("pandas")
    with pytest.raises(TypeError, match=r"^q is a pandas\.DataFrame: nll takes NumPy arrays"):
        fastkl.nll([0, 1], pandas.DataFrame([[0.5, 0.5], [0.25, 0.75]]))
