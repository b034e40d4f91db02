"""Negative log-likelihood of labels: values by definition, ignored rows, smoothing and labels of any kind.

test_logits_calls has layouts, axes, threads, `out` and invalid rows.
"""

import itertools
from functools import partial
from math import fsum

import numpy as np
import pytest
from mpmath import mp, mpf
from support import logits_reference, reference
from support.double_double import DoubleDouble
from support.inputs import BFLOATS, decoded
from support.logits import DTYPES, MASK, assert_near, drawn, normal
from support.measures import assert_same_bits, on_every_tier

import fastkl

each_dtype = pytest.mark.parametrize("dtype", DTYPES)
each_smoothing = pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])


def loss(labels, q, **keywords):
    return fastkl.nll(labels, q, from_logits=True, **keywords)


def assert_loss(expected, label, q, **keywords):
    """The loss is within the documented bound of a cross-entropy from logits, on every tier."""
    exact = DoubleDouble.rounded(expected)[np.newaxis]
    for tier, value in on_every_tier(partial(fastkl.nll, label, q, **keywords)).items():
        assert_near("cross_entropy", value, exact, source=(tier, q, label, keywords))


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


@each_smoothing
@each_dtype
def test_any_logits_by_definition(dtype, smoothing):
    """A masked label gives inf. With smoothing, any mask gives inf, as each entry has a weight. `wide` has three chunks."""
    places = [0, 1023, 1024, 2499]
    for row, temperature in itertools.product(ROWS + ROWS_OF_DOUBLES * (dtype == "f8"), [1.0, 0.25, 10.0]):
        q, wide = np.array(row, dtype), np.full(2500, MASK, dtype)
        wide[places] = q
        keywords = {"from_logits": True, "label_smoothing": smoothing, "temperature": temperature}
        for label, place in enumerate(places):
            expected = reference.loss(q, label, smoothing, from_logits=(False, True), temperature=temperature)
            assert_loss(expected, label, q, **keywords)
            assert_loss(mp.inf if smoothing else expected, place, wide, **keywords)


@each_smoothing
@pytest.mark.parametrize("dtype", [*DTYPES, "e", BFLOATS[-1]], ids=str)
def test_many_rows(dtype, smoothing):
    for rows, n, temperature in (300, 10, 1.0), (60, 10, 0.5), (40, 127, 3.0), (9, 1000, 1.0), (3, 3000, 0.5):
        q, labels = normal(n, (rows, n), dtype), drawn(n, n, rows)
        exact = logits_reference.losses(decoded(q), labels, True, temperature, smoothing)
        compute = partial(loss, labels, q, label_smoothing=smoothing, temperature=temperature)
        for tier, result in on_every_tier(compute).items():
            assert result.dtype == ("f8" if dtype == "f8" else "f4")
            assert_near("cross_entropy", result, exact, source=(q.shape, temperature, tier))


@pytest.mark.parametrize("dtype", [np.dtype(char) for char in "bBhHiIqQ"], ids=str)
def test_labels_of_any_integer_dtype(dtype):
    q, labels = normal(10, (40, 100), "f4"), drawn(11, 100, 40)
    expected, both_expected = loss(labels, q), fastkl.compare(q, q, labels, from_logits=True)[-2:]
    for given in (
        labels.astype(dtype),
        labels.astype(dtype.newbyteorder("S")),
        np.repeat(labels, 3).astype(dtype)[::3],
        labels[::-1].astype(dtype)[::-1],
        np.frombuffer(b"\xff" + labels.astype(dtype).tobytes(), dtype, offset=1),
    ):
        assert_same_bits(loss(given, q), expected)
        assert_same_bits(fastkl.compare(q, q, given, from_logits=True)[-2:], both_expected)
    assert_same_bits(loss(labels.tolist(), q), expected)


def test_the_dtype_of_the_result_is_that_of_q():
    for dtype, result in ("f8", "f8"), ("f4", "f4"), ("e", "f4"), ("i4", "f8"):
        q = normal(12, (3, 4)).astype(dtype)
        assert loss([0, 1, 2], q).dtype == result
        assert loss(np.uint64(3), q[0]).dtype == result
        assert loss(np.array([0, 1, 2], "i1"), q).dtype == result
    assert fastkl.nll([0, 1, 2], np.eye(3, 4, dtype=bool)).dtype == float


@pytest.mark.parametrize("label", [2, np.int64(2), np.uint8(2), np.array(2), np.array(2, ">u8")], ids=repr)
def test_one_row_and_one_label_give_a_scalar(label):
    q = np.array([0.5, 0.25, 0.25])
    result = fastkl.nll(label, q, base=2)
    assert isinstance(result, np.float64)
    assert result == 2


def test_labels_may_have_more_axes_than_the_rows():
    q, labels = normal(24, (5, 6)), drawn(25, 6, (4, 5))
    assert_same_bits(loss(labels, q), np.array([[loss(labels[i, j], q[j]) for j in range(5)] for i in range(4)]))
    assert_same_bits(loss(labels[0], q[0]), loss(labels[0], np.repeat(q[:1], 5, axis=0)))
    assert loss([[1]], q[0]).shape == (1, 1)


@each_smoothing
@each_dtype
def test_labels_of_probabilities(dtype, smoothing):
    weights = np.random.default_rng(21).random((12, 8)) ** 6
    weights[2, 3] = 0
    q = (weights / weights.sum(axis=-1, keepdims=True)).astype(dtype)
    for i, label in itertools.product(range(12), range(8)):
        assert_loss(reference.loss(q[i], label, smoothing), label, q[i], label_smoothing=smoothing)


@pytest.mark.usefixtures("tier")
@each_dtype
def test_losses_of_rows_of_probabilities(dtype):
    """Of any width, and with the same bits alone as beside rows that are computed in another way."""
    rng = np.random.default_rng(22)
    eps = np.finfo(dtype).eps
    for n in 1, 2, 7, 16, 17, 33, 256, 257, 1000:
        q, labels = rng.random((70, n)) ** 8 + 1e-9, rng.integers(n, size=70)
        q[::9] *= 1e-25
        q[1::9, 1:] = 0
        q[2::9, 0] = 1e9
        q, labels[4::9] = q.astype(dtype), -1
        for kind in np.int64, np.int32, np.int16:
            values = fastkl.nll(labels.astype(kind), q, normalize=True, ignore_index=-1)
            alone = [fastkl.nll(labels[i : i + 1], q[i : i + 1], normalize=True, ignore_index=-1) for i in range(70)]
            assert_same_bits(values, np.concatenate(alone))
        right = [0 if y < 0 else -mp.log(mpf(float(row[y])) / fsum(row)) for row, y in zip(q, labels, strict=True)]
        for value, wanted in zip(values, right, strict=True):
            assert value == wanted or abs(value - wanted) <= 4 * eps * (wanted + 0.5)


@pytest.mark.usefixtures("tier")
@pytest.mark.parametrize("entry", [5e-324, 2e-319, 1e-308, 2.0**-900, 1e-200])
def test_subnormal_probabilities_are_not_zero(entry):
    row, largest = np.array([[0.5, entry, 0.5]]), np.array([[1e308, entry]])
    expected = -float(mp.log(mpf(entry)))
    of_largest = expected + float(mp.log(mpf(1e308)))
    for result, wanted in (
        (fastkl.nll([1], row), expected),
        (fastkl.compare(row, row, [1]).nll_q, expected),
        (fastkl.nll([1], largest, normalize=True), of_largest),
        (fastkl.cross_entropy([[-np.inf, 1.0]], largest, from_logits="p", normalize=True), of_largest),
        (fastkl.nll([1], np.array([[1e308, 0.0]]), normalize=True, eps=entry), of_largest),
    ):
        np.testing.assert_allclose(result, wanted, rtol=32 * 2.0**-52)


def test_rows_of_counts_are_normalised():
    counts = np.array([[1, 2, 5], [0, 4, 4]])
    for q in counts, counts.astype("f4"), counts * 1e300:
        result = fastkl.nll([2, 1], q, normalize=True, base=2)
        np.testing.assert_allclose(result, [np.log2(8 / 5), 1], rtol=4 * np.finfo(result.dtype).eps)
        assert fastkl.nll([0, 0], q, normalize=True)[1] == np.inf


@each_dtype
def test_labels_of_rows_of_many_pieces(dtype):
    """Every entry of a row counts once, at the ends of its pieces too: a piece has 65,536 entries."""
    q = np.random.default_rng(23).integers(1, 900, 2 * 65_536 + 7).astype(dtype)
    for label in 0, 65_535, 65_536, len(q) - 1:
        with mp.workdps(30):
            expected = mp.log(mpf(int(q.astype(int).sum())) / int(q[label]))
        assert_loss(expected, label, q, normalize=True)


@each_dtype
def test_eps(dtype):
    weights = np.array([[0.5, 0.5, 0.0], [0.25, 0.75, 0.0]], dtype)
    rows = np.array([[0.0, 3.0, MASK], [0.0, -50.0, -1e30]], dtype)
    for eps, smoothing, i, label in itertools.product([1e-300, 1e-9, 0.3], [0.0, 0.1], range(2), range(3)):
        keywords = {"eps": eps, "label_smoothing": smoothing}
        assert_loss(reference.loss(weights[i], label, smoothing, eps=eps), label, weights[i], **keywords)
        expected = reference.loss(rows[i], label, smoothing, from_logits=(False, True), temperature=2.0, eps=eps)
        assert_loss(expected, label, rows[i], from_logits=True, temperature=2.0, **keywords)


def test_integers_in_cross_entropy_are_weights():
    """With fewer axes than q, too: they broadcast. There are no keywords for labels."""
    q = np.array([[0.5, 0.25, 0.25], [0.25, 0.25, 0.5]])
    assert fastkl.cross_entropy([[2, 1, 1]], q[:1], normalize=True, base=2) == [1.5]
    assert fastkl.cross_entropy([2, 1, 1], q, normalize=True, base=2).tolist() == [1.5, 1.75]
    assert fastkl.cross_entropy([0, 1, 0], q, base=2).tolist() == [2, 2]
    assert fastkl.cross_entropy(np.array([0, 1, 0]), q[0], base=2) == 2
    assert fastkl.cross_entropy(np.array([True, False, False]), q[0], base=2) == 1
    for keyword in "ignore_index", "label_smoothing":
        with pytest.raises(TypeError, match=keyword):
            fastkl.cross_entropy([0.5, 0.5], [0.5, 0.5], **{keyword: 0})


@pytest.mark.usefixtures("tier")
@pytest.mark.parametrize("from_logits", [True, False])
def test_an_ignored_row_is_not_examined(from_logits):
    q = np.full((5, 4), 0.25)
    q[1], q[3] = np.nan, -np.inf
    labels = np.array([0, -100, 1, -100, 2])
    keywords = {"from_logits": from_logits, "base": 2}
    np.testing.assert_array_equal(fastkl.nll(labels, q, ignore_index=-100, **keywords), [2, 0, 2, 0, 2])
    again = fastkl.nll(labels, q, ignore_index=-100, label_smoothing=0.5, invalid="nan", **keywords)
    np.testing.assert_array_equal(again, [2, 0, 2, 0, 2])
    with pytest.raises(ValueError, match=r"^labels\[1\] = -100: labels must be in 0\.\.3$"):
        fastkl.nll(labels, q, **keywords)


@pytest.mark.parametrize(
    ("dtype", "ignored"), [("u1", 255), ("i1", -1), ("i8", -(2**63)), ("u8", 2**62), ("i2", 0), ("u2", 3)]
)
def test_any_label_can_be_ignored(dtype, ignored):
    q = np.full((3, 4), 0.25)
    labels = np.array([1, ignored, 2], dtype)
    np.testing.assert_array_equal(fastkl.nll(labels, q, ignore_index=ignored, base=2), [2, 0, 2])
    for other in -7, 2**70, -(2**70), 77:
        np.testing.assert_array_equal(fastkl.nll([1, 2, 3], q, ignore_index=other, base=2), 2)


def test_labels_of_uint64_are_not_read_as_int64():
    """2^64 - 100 has the bits of -100, and 2^63 has those of the smallest int64."""
    q = np.full(4, 0.25)
    for label in 2**64 - 100, 2**64 - 1, 2**63, 2**64 - 2**63 + 1:
        for ignored in -100, -1, -(2**63), None, 2**63 - 1:
            with pytest.raises(ValueError, match=rf"^labels = {label}: labels must be in 0\.\.3$"):
                fastkl.nll(np.uint64(label), q, ignore_index=ignored)
            assert np.isnan(fastkl.nll(np.uint64(label), q, ignore_index=ignored, invalid="nan"))
