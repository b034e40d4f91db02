"""fastkl.compat.sklearn against scikit-learn's log_loss: values, warnings, errors and the documented differences."""

import tracemalloc
import warnings
from math import inf, nan

import numpy as np
import pytest
from mpmath import mp
from support.compat import EPS, both, both_raise, difference, original, quietly

import fastkl
from fastkl.compat.sklearn import log_loss, mean_poisson_deviance

LABELS = [1, 0, 0, 1]
ROWS = [[0.1, 0.9], [0.9, 0.1], [0.8, 0.2], [0.35, 0.65]]
FIRST = [1.0, 2.0, 0.5, 3.0]
DOUBLE = EPS[np.dtype(float)]

INDICATORS = [[1, 1], [1, 0], [0, 0], [0, 1]]
TARGETS = [
    *(LABELS, tuple(LABELS), [True, False, False, True], [1.0, 0.0, 0.0, 1.0], [2**60, 0, 0, 2**60]),
    *(np.array(LABELS, "u1"), np.array(LABELS)[:, np.newaxis], ["b", "a", "a", "b"]),
    *(np.array(["yes", "no", "no", "yes"]), np.array(["b", "a", "a", "b"], object)),
    *([[0, 1], [1, 0], [1, 0], [0, 1]], [[-1, 2], [2, -1], [-1, -1], [2, 2]]),
    *(INDICATORS, np.array(INDICATORS, bool), np.array(INDICATORS, float).tolist()),
]


@pytest.mark.parametrize("true", TARGETS, ids=str)
def test_losses_are_scikit_learns(true):
    matrix = np.array(ROWS)
    for q in ROWS, matrix[:, 1:], matrix[:, 1], [[0, 1], [1, 0]] * 2, matrix.astype(str):
        for weight in {}, {"sample_weight": FIRST}:
            for normalize in {}, {"normalize": np.False_ if weight else False}:
                ours, theirs = both(log_loss, true, q, **weight, **normalize)
                assert type(ours) is float
                # Four rows, of at most two logarithms, two roundings each, and the complement of a column.
                assert ours == pytest.approx(theirs, abs=16 * DOUBLE, rel=16 * DOUBLE)


@pytest.mark.parametrize("classes", [2, 3, 50])
def test_losses_of_many_rows(classes):
    rng = np.random.default_rng(classes)
    q = rng.random((1000, classes)) ** 20
    q[rng.random(q.shape) < 0.2] = 0
    q[:, 0] += 1e-9
    q /= q.sum(axis=1, keepdims=True)
    true = rng.integers(0, classes, len(q))
    for targets, keywords in (true, {}), (true % 2, {"labels": np.arange(classes)}):
        # Means of 1000 losses, summed pairwise, each of which has an error of 2 eps in both.
        np.testing.assert_allclose(*both(log_loss, targets, q, **keywords), rtol=14 * EPS[q.dtype])


def test_integers_of_any_range():
    """Labels that are counted, that are sorted, and at the ends of their dtypes."""
    rng = np.random.default_rng(5)
    q = rng.dirichlet(np.ones(3), 60)
    which = np.arange(60) % 3
    for dtype in "?", "i1", "u1", "i2", "u4", "i8", "u8", ">i4":
        low, high = (0, 1) if dtype == "?" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
        for values in [low, high], [low, low + 1, high], [high - 2, high - 1, high], [low, low + 1, low + 2]:
            values = np.unique(np.array(values, dtype))
            if len(values) > 1:
                true, rows = values[which % len(values)], q[:, : len(values)] / q[:, : len(values)].sum(1, keepdims=True)
                for keywords in {}, {"labels": values}:
                    ours, theirs = both(log_loss, true, rows, **keywords)
                    assert ours == pytest.approx(theirs, rel=16 * DOUBLE)
    assert log_loss([5, 7], q[:2], labels=[5, 6, 7]) == pytest.approx(original(log_loss)([5, 7], q[:2], labels=[5, 6, 7]))


@pytest.mark.parametrize("dtype", ["f8", "f4"])
def test_rows_that_the_kernel_refuses(dtype):
    """An entry above 1 whose row sums to 1 within the tolerance, and sums at and beyond it, of the label or of another."""
    eps = EPS[np.dtype(dtype)]
    q = np.full((6, 3), 1 / 3, dtype)
    for row, outcome in (
        ([1 + 2 * eps, 0, 0], ValueError),
        ([0, 1 + 2 * eps, 0], ValueError),
        ([0, 1, -eps], ValueError),
        ([0, 1, nan], ValueError),
        ([0, 1, 2 * np.sqrt(eps)], UserWarning),
        ([0, 1, np.sqrt(eps) / 2], None),
        ([0, 1, 0], None),
    ):
        rows = np.concatenate([q, np.array([row], dtype)])
        for function in log_loss, original(log_loss):
            if outcome is ValueError:
                with pytest.raises(ValueError, match=r"."):
                    function([0, 1, 2, 0, 1, 2, 0], rows)
            else:
                with warnings.catch_warnings(record=True) as caught:
                    warnings.simplefilter("always")
                    function([0, 1, 2, 0, 1, 2, 0], rows)
                assert [warning.category for warning in caught] == [outcome] * (outcome is not None)


def test_warnings_of_log_loss():
    for true, q, keywords, category in (
        (LABELS, [[0.1, 0.8], *ROWS[1:]], {}, UserWarning),
        (LABELS, np.array(ROWS, "f2") * np.float16(0.75), {}, UserWarning),
        (LABELS, ROWS, {"labels": [1, 0]}, UserWarning),
        (LABELS, None, {"y_pred": ROWS}, FutureWarning),
    ):
        values = []
        for function in log_loss, original(log_loss):
            with pytest.warns(category) as caught:
                values.append(function(true, *([] if q is None else [q]), **keywords))
            assert [warning.category for warning in caught] == [category]
        np.testing.assert_allclose(*values, rtol=16 * EPS[np.asarray(ROWS if q is None else q).dtype])


@pytest.mark.parametrize("dtype", ["f8", "f4", "f2"])
def test_sums_within_the_tolerance(dtype):
    """The sum of a row may differ from 1 by the root of its dtype's eps and 1e-8: both warn of the same rows."""
    off = float(np.sqrt(EPS[np.dtype(dtype)])) + 1e-8
    for factor in 0.9, 1.2:
        q = np.array([[0.5, 0.5 - factor * off], [0.5, 0.5]], dtype)
        for function in log_loss, original(log_loss):
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                function([0, 1], q)
            assert len(caught) == (factor > 1)


def test_errors_of_log_loss():
    for true in (
        *("abcd", 1, None, LABELS[:3], [1] * 4, [0.5, 1, 0, 1], [0.5, 1, 1, 0.5], [nan, 1, 0, 1], [None, 1, 0, 1]),
        *([1j, 1, 0, 1], [1, "a", "a", 1], [b"a", b"b", b"b", b"a"], [0, 1, 2, 1], [[[1]], [[0]], [[0]], [[1]]]),
        *([[0, 1], [2, 0], [1, 0], [0, 3]], np.array([["a", "b"]] * 4), [[0, 1, 0]] * 4),
    ):
        both_raise(log_loss, true, ROWS)
    for q in 0.5, "abc", [ROWS], np.ones((4, 0)), [[1], [0.5, 0.5], [1], [1]], np.array(ROWS) + 0j:
        both_raise(log_loss, LABELS, q)
    for entries in [nan, 1], [inf, 1], [-0.1, 0.9], [0.1, 1.1]:
        both_raise(log_loss, LABELS, [entries, *ROWS[1:]])
    for weight in 2.0, [1, 2], [[1]] * 4, [0] * 4, [1, -1, 1, -1], [1, nan, 1, 1], [1j] * 4:
        both_raise(log_loss, LABELS, ROWS, sample_weight=weight)
    for labels in [0, 1, 1], [0, 2], ["a", "b"], [0, 1, 2], [], 3, [0, 0.5, 1]:
        both_raise(log_loss, LABELS, ROWS, labels=labels)
    # The last two have labels that print alike.
    for true, labels in ([[0, 1]] * 4, [0, 1]), ([1] * 4, [1]), ([0, 1], ["0", "1"]), (["0", "1"], [0, 1]):
        both_raise(log_loss, true, ROWS[: len(true)], labels=labels)
    for keywords in {}, {"y_pred": None}, {"y_pred": "abc"}:
        both_raise(log_loss, LABELS, **keywords)
    both_raise(log_loss, LABELS, ROWS, y_pred=ROWS)
    both_raise(log_loss, LABELS, ROWS, normalize=1)
    both_raise(log_loss, LABELS, ROWS, True)
    both_raise(log_loss, [0, 1, 2, 1], [0.5] * 4)  # too many for one column
    for arguments in ({0, 1}, ROWS[:2]), ([], []), ([], np.ones((0, 2))):
        both_raise(log_loss, *arguments)
    with pytest.raises(ValueError, match=r"^y_true has 0, which is not one of the labels"):
        log_loss(range(50), np.full((50, 50), 0.02), labels=sorted(map(str, range(50))))  # They print alike.


@difference("clipping to [ε, 1 - ε]")
@pytest.mark.parametrize("dtype", ["f8", "f4", "f2"])
def test_clipping(dtype):
    eps = EPS[np.dtype(dtype)]
    q = np.array([[0, 1], [1, 0]], dtype)
    for rows in q, q[:, 1]:
        assert log_loss([0, 1], rows) == pytest.approx(-np.log(eps), abs=0, rel=4 * DOUBLE)
        assert log_loss([1, 0], rows) == pytest.approx(-np.log1p(-eps), abs=0, rel=4 * DOUBLE)
        # scikit-learn computes in the dtype, in which a logarithm near 0 has an error of eps.
        assert log_loss([0, 1], rows) == pytest.approx(original(log_loss)([0, 1], rows), abs=0, rel=4 * eps)
        assert log_loss([1, 0], rows) == pytest.approx(original(log_loss)([1, 0], rows), abs=eps)
    if dtype == "f8":
        assert np.isinf(fastkl.nll([0, 1], q)).all()
        assert np.isinf(fastkl.cross_entropy([[1.0, 0], [0, 1]], q)).all()


@difference("probabilities in float32 and float16")
@difference("one column of probabilities")
@pytest.mark.parametrize("dtype", ["f4", "f2"])
def test_narrow_probabilities_and_columns(dtype):
    rng = np.random.default_rng(6)
    q = rng.dirichlet(np.ones(10), 3000).astype(dtype).clip(EPS[np.dtype(dtype)], 1)
    true = np.arange(len(q)) % 10
    column = (rng.random(1000) / 100).astype(dtype).clip(EPS[np.dtype(dtype)], 1)
    first = np.arange(len(column)) == 0
    for labels, rows, taken in (
        (true, q, [mp.mpf(float(x)) for x in q[np.arange(len(q)), true]]),
        (first, column, [mp.mpf(float(column[0])), *(1 - mp.mpf(float(x)) for x in column[1:])]),
    ):
        exact = float(-mp.fsum(map(mp.log, taken)) / len(taken))
        assert log_loss(labels, rows) == pytest.approx(exact, abs=0, rel=16 * DOUBLE)
        assert original(log_loss)(labels, rows) != pytest.approx(exact, abs=0, rel=1e-9)


@difference("masked probabilities, numbers or weights")
def test_masked_probabilities():
    masked = np.ma.array(ROWS, mask=np.eye(4, 2))
    with pytest.raises(TypeError, match=r"^y_proba has masked entries"):
        log_loss(LABELS, masked)
    with pytest.raises(TypeError, match=r"^sample_weight has masked entries"):
        log_loss(LABELS, ROWS, sample_weight=masked[:, 0])
    assert original(log_loss)(LABELS, masked) == original(log_loss)(LABELS, ROWS)


@difference("a list of lists of one label each")
def test_a_list_of_lists():
    true = [[label] for label in LABELS]
    assert log_loss(true, ROWS) == log_loss(np.array(true), ROWS) == log_loss(LABELS, ROWS)
    with pytest.raises(TypeError):
        original(log_loss)(true, ROWS)


@difference("`labels` as a matrix")
def test_labels_as_a_matrix():
    with pytest.raises(ValueError, match=r"^labels has shape \(1, 2\)"):
        log_loss(LABELS, ROWS, labels=[[0, 1]])
    assert original(log_loss)(LABELS, ROWS, labels=[[0, 1]]) > 0


# mean_poisson_deviance ---------------------------------------------------------------------------------------------------

TRUE, PREDICTED, WEIGHTS = [2, 0, 1, 4], [0.5, 0.5, 2.0, 2.0], [1.0, 2.0, 0.5, -0.25]


@pytest.mark.parametrize("true", ["i8", "u1", "f8", "f4", "f2", "?", "list", "column"])
def test_deviances_are_scikit_learns(true):
    for predicted in "f8", "f4", "f2", "i4", "list", "column", "str":
        arguments = []
        for values, kind in (TRUE, true), (np.array(PREDICTED) + 0.5, predicted):
            array = np.array(values, "f8" if kind in ("list", "column", "str") else kind)
            array = array.tolist() if kind == "list" else array.astype(str) if kind == "str" else array
            arguments.append(array[:, np.newaxis] if kind == "column" else array)
        for weight in {}, {"sample_weight": WEIGHTS}, {"sample_weight": np.array(WEIGHTS, "f4")}:
            ours, theirs = quietly(both, mean_poisson_deviance, *arguments, **weight)
            assert type(ours) is float
            eps = max(EPS.get(np.asarray(a).dtype, DOUBLE) for a in (*arguments, *weight.values()))
            assert ours == pytest.approx(theirs, rel=64 * eps)


@pytest.mark.parametrize("dtype", ["f8", "f4"])
@difference("deviances of numbers that nearly agree, and of float32 and float16")
def test_deviances_are_accurate(dtype):
    rng = np.random.default_rng(3)
    eps = EPS[np.dtype(dtype)]
    for n in 5, 1000:
        y = rng.random(n).astype(dtype)
        weight = rng.random(n)
        for m in y * (1 + 1e3 * eps * rng.random(n)), 1e3 * rng.random(n), rng.random(n) + 0.5:
            m = m.astype(dtype)
            with mp.workdps(50):
                pairs = [(mp.mpf(float(a)), mp.mpf(float(b))) for a, b in zip(y, m, strict=True)]
                each = [2 * (a * mp.log(a / b) - a + b) for a, b in pairs]
                exact = float(mp.fsum(each) / n)
                weighted = float(mp.fsum(a * mp.mpf(float(w)) for a, w in zip(each, weight, strict=True)))
            # A sum of n positive products has an error of n eps of float64 at most.
            assert mean_poisson_deviance(y, m) == pytest.approx(exact, abs=0, rel=8 * eps)
            ours = mean_poisson_deviance(y, m, sample_weight=weight)
            assert ours == pytest.approx(weighted / weight.sum(), abs=0, rel=8 * eps + n * DOUBLE)
        near = (y * (1 + 1e3 * eps)).astype(dtype)
        assert mean_poisson_deviance(y, y) == 0 < mean_poisson_deviance(y, near)
    theirs = original(mean_poisson_deviance)(y, near)
    assert theirs != pytest.approx(mean_poisson_deviance(y, near), abs=0, rel=1e-3)


def test_deviances_of_many_numbers():
    """Parts of a call with weights, and one row without."""
    rng = np.random.default_rng(4)
    y, m, weight = rng.poisson(3, 300_001), rng.random(300_001) * 5 + 0.1, rng.random(300_001)
    for keywords in {}, {"sample_weight": weight}:
        np.testing.assert_allclose(*both(mean_poisson_deviance, y, m, **keywords), rtol=1e-12)


def test_errors_of_mean_poisson_deviance():
    for true, predicted in (
        *((TRUE, PREDICTED[:3]), ([], []), (3, 2), (TRUE, None), ("abcd", PREDICTED), (TRUE, "abcd"), ({1}, {2})),
        *((np.array(3.0), np.array(2.0)), ([[1, 2]], [[1, 2]]), ([[1, 2]], [1]), ([[[1]]], [[[1]]]), ([1j], [1])),
        *(([1], [1j]), ([-1, 1], [1, 1]), ([1, 1], [1, 0]), ([0, 0], [1, 0]), ([0, 1], [-1, 1]), ([nan, 1], [1, 1])),
        *(([1, 1], [1, nan]), ([inf, 1], [1, 1]), ([1, 1], [inf, 1]), ([0, 1], [inf, 1]), (["a", "b"], [1, 1])),
    ):
        both_raise(mean_poisson_deviance, true, predicted)
    for weight in 2.0, [1, 2], [[1]] * 4, [0] * 4, [1, -1, 1, -1], [1, nan, 1, 1], [1j] * 4:
        both_raise(mean_poisson_deviance, TRUE, PREDICTED, sample_weight=weight)
    both_raise(mean_poisson_deviance, TRUE, PREDICTED, [1.0] * 4)
    both_raise(mean_poisson_deviance, TRUE)
    with pytest.raises(ValueError, match=r"^y_pred has an entry 0.0, at 1: must be finite and above 0"):
        mean_poisson_deviance([1, 0], [1.0, 0.0])
    for name, true, predicted in (
        ("y_true", np.ma.array(TRUE, mask=[0, 0, 1, 0]), PREDICTED),
        (
            "y_pred",
            TRUE,
            np.ma.array(PREDICTED, mask=[0, 0, 1, 0]),
        ),
    ):
        with pytest.raises(TypeError, match=rf"^{name} has masked entries"):
            mean_poisson_deviance(true, predicted)


def test_deviances_need_no_copy():
    y, m, weight = np.random.default_rng(4).random((3, 4_000_000))
    for keywords in {}, {"sample_weight": weight}:
        tracemalloc.start()
        mean_poisson_deviance(y, m, **keywords)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < y.nbytes / 4
