"""fastkl.compat.scipy against SciPy's functions: values, dtypes, shapes, axes, errors and the documented differences."""

import re
import tracemalloc
from itertools import product
from math import inf, nan

import numpy as np
import pytest
from mpmath import mp
from support.compat import EPS, assert_same, both, both_raise, difference, kinds, original, quietly, weights

from fastkl.compat.scipy import entropy, jensenshannon, kl_div_sum, rel_entr_sum


def assert_close(ours, theirs, atol):
    """Equal in type, dtype and shape, and in value to `atol`."""
    assert (type(ours), ours.dtype, np.shape(ours)) == (type(theirs), theirs.dtype, np.shape(theirs))
    with np.errstate(invalid="ignore"):
        assert np.all((np.abs(ours - theirs) <= atol) | (ours == theirs))


def absolute_terms(p, q, axis):
    """The sum of |x log(x/y)| and |x log x| over every row, and 2: the number that rounding errors are relative to.

    A relative error of d in each x and y changes x log x by at most d (|x log x| + x), and x log(x/y) by at most
    d (|x log(x/y)| + 2x).
    """
    x, y = (a.astype(float) / a.sum(axis=axis, keepdims=True, dtype=float) for a in (p, q))
    with np.errstate(all="ignore"):
        each = np.where(x > 0, np.abs(x * np.log(x)) + np.where(y > 0, np.abs(x * np.log(x / y)), 0), 0)
    return each.sum(axis=axis) + 2


@pytest.mark.parametrize("axis", [0, 1, -1, (0, 2), (2, 0), (-1, 1), None], ids=str)
@kinds
def test_values_are_scipys(kind, axis):
    """To SciPy's error, which is n ε for each of three sums of n entries and 4 ε for an entry, and fastkl's own 4 ε."""
    for dtype in "f8", "f4":
        p, q = weights(kind, (7, 5, 30), dtype)
        n = np.size(p) // np.size(p.sum(axis=axis))
        atol = (3 * n + 8) * EPS[p.dtype] * absolute_terms(p, q, axis)
        for keepdims in False, True:
            keywords = {"axis": axis, "keepdims": keepdims}
            most = atol.reshape(np.shape(p.sum(**keywords)))
            for operands in (p,), (p, q):
                assert_close(*both(entropy, *operands, base=2, **keywords), most / np.log(2))
        # SciPy's m is half a sum, so that no |x log(x/m)| exceeds x log 2 + |x log x|. It gives NaN for less than 0.
        ours, theirs = both(jensenshannon, p, q, axis=axis)
        assert_close(ours**2, np.nan_to_num(theirs) ** 2, 2 * atol)
        for function in rel_entr_sum, kl_div_sum:
            # A term of kl_div is a difference of three.
            each = np.abs(original(rel_entr_sum)(p.astype(float), q, ())) + (p + q if function is kl_div_sum else 0)
            assert_close(*both(function, p, q, axis), (n + 16) * EPS[p.dtype] * each.sum(axis))


@difference("nearly equal distributions")
def test_nearly_equal_distributions():
    wide, d = np.random.default_rng(1).random((2, 50, 20))
    for p, q in (wide, wide * (1 + 1e-13 * d)), (wide.astype("f4"), (wide * (1 + 1e-5 * d)).astype("f4")):
        exact = entropy(p, q, axis=1)
        theirs = original(entropy)(p, q, axis=1)
        assert np.any(theirs < 0) | np.any(np.abs(theirs - exact) > exact / 2)
        assert np.isnan(quietly(original(jensenshannon), p, q, axis=1)).any()


@difference("float32 and float16")
def test_narrow_floats_are_rounded_once():
    for dtype in np.float32, np.float16:
        p, q = (x.astype(dtype) for x in weights("random", (50, 30)))
        wide = p.astype(float), q.astype(float)
        for function, count in (entropy, 1), (entropy, 2), (jensenshannon, 2), (rel_entr_sum, 2), (kl_div_sum, 2):
            ours, theirs = both(function, *(p, q)[:count], axis=1)
            exact = function(*wide[:count], axis=1)
            assert ours.dtype == theirs.dtype == np.float32
            # fastkl's bound is 4 eps of a divergence, and 8 of a sum that is not normalised.
            rtol = 4 if function in (entropy, jensenshannon) else 8
            np.testing.assert_allclose(ours, exact, rtol=rtol * EPS[ours.dtype], atol=0)
            assert np.abs(theirs - exact).max() > np.abs(ours - exact).max()
    assert entropy(np.array([-4e4, -4e4], np.float16)) == np.float32(np.log(2))  # their sum is no float16


@difference("weights whose sum overflows")
def test_sums_that_overflow():
    huge = [1.5e308, 0.5e308, 1e308]
    assert_same(entropy(huge), entropy([3, 1, 2]))
    assert_same(entropy(huge, [1, 1, 1]), entropy([3, 1, 2], [1, 1, 1]))
    with pytest.warns(RuntimeWarning, match="overflow"):
        assert original(entropy)(huge) == 0


STRANGE = [[1, 2, 4], [0, 0, 0], [-1, -2, -4], [1, -2, 4], [-1, 1, 0], [nan, 1, 2], [nan, -1, 2], [1, inf, 2], [-inf, 1, 2]]


@difference("rows that have no answer")
@pytest.mark.parametrize("row", [*STRANGE, [1, -0.0, 1]], ids=str)
def test_rows_without_an_answer(row):
    row, good = np.array(row, float), [0.5, 0.25, 0.25]
    for other in [1.0, 2.0, 4.0], [0.0, 0.0, 0.0], [1.0, -1.0, 3.0], [nan, 1.0, 2.0], [1.0, inf, 2.0]:
        for base in None, 2, 0.5:
            assert_same(*both(entropy, row, base=base))
            for p, q in (row, other), (other, row), (row, good):
                assert_same(*both(entropy, p, q, base=base))
                # Where the two rows are equal, SciPy's sum rounds to another value than 0.
                if not (base == 0.5 or np.array_equal(np.abs(p), np.abs(q))):
                    assert_same(*both(jensenshannon, p, q, base=base))
        # The other row has its usual value.
        values = entropy([good, row], [good, other], axis=1)
        assert values[0] == 0
        assert_same(values[1], entropy(row, other))


VALUES = [0.0, -0.0, 1.0, -1.0, inf, -inf, nan, 5e-324, 1e-310, 1e-200, 1e200, 1.7e308, 1.5, 2.0, 0.7, 1 + 2.0**-52]


def test_entries_of_rel_entr():
    for p in VALUES:
        for q in VALUES:
            assert_same(*both(rel_entr_sum, [p], [q]))
    assert_same(*both(rel_entr_sum, [1, 1], [inf, 0]))  # inf - inf


def exact_terms(p, q, function):
    """The terms of a row of positive numbers, to 50 digits."""
    with mp.workdps(50):
        pairs = [(mp.mpf(float(a)), mp.mpf(float(b))) for a, b in zip(p, q, strict=True)]
        return [a * mp.log(a / b) - (0 if function is rel_entr_sum else a - b) for a, b in pairs]


@difference("`kl_div` of entries that nearly agree, or whose quotient overflows or underflows")
def test_entries_of_kl_div():
    eps = EPS[np.dtype(float)]
    for p in VALUES:
        for q in VALUES:
            ours, theirs = quietly(both, kl_div_sum, [p], [q])
            if not (p > 0 and q > 0 and p + q < inf):
                assert_same(ours, theirs)
                continue
            assert ours == pytest.approx(float(exact_terms([p], [q], kl_div_sum)[0]), abs=5e-324, rel=8 * eps)
            with np.errstate(over="ignore"):
                ratio = np.float64(p) / q
            if 1e-307 < ratio < 0.5 or 2 <= ratio < inf:
                assert_same(ours, theirs)
    assert quietly(original(kl_div_sum), [1e-200], [1e200]) == -inf
    assert original(kl_div_sum)([1.0], [1 + 2.0**-52]) == 0 < kl_div_sum([1.0], [1 + 2.0**-52])


@pytest.mark.usefixtures("tier")
def test_sums_are_accurate():
    """Of rows that the kernels accept, and of those for which the difference of two sums would lose digits."""
    rng = np.random.default_rng(7)
    for dtype in np.float64, np.float32:
        p, d = rng.random((2, 60, 40)).astype(dtype)
        for q in p * (1 + d), p * dtype(1e3), p * (1 + dtype(1e-6) * d), p**8 * dtype(1e6), p[:, ::-1] * 30, p[::-1]:
            for function, order in product((rel_entr_sum, kl_div_sum), "CF"):
                result = function(np.asarray(p, order=order), np.asarray(q, dtype, order=order), axis=1)
                assert result.dtype == dtype
                for i in range(0, len(p), 7):
                    terms = exact_terms(p[i], q[i], function)
                    most = 16 * EPS[p.dtype] * float(mp.fsum(map(abs, terms)))
                    assert abs(float(mp.fsum(terms) - float(result[i]))) <= most


def test_sums_of_strange_rows():
    """Rows of every length and layout get SciPy's values, beside rows that are valid."""
    rng = np.random.default_rng(8)
    for shape in (40, 3), (9, 300), (3, 20_000), (2, 140_000):
        p, q = rng.random((2, *shape))
        q[1] *= 1e4  # loses digits in the difference of two sums
        p[0, ::2], q[0, ::3] = 0, inf
        p[-1, -1], q[-1, 0] = -1, inf
        for x, y in (p, q), (q, p), (np.asfortranarray(p), q), (p.astype("f4"), q.astype("f4")), (p[:, ::-2], q[:, ::-2]):
            for axis in 0, 1, None:
                for function in rel_entr_sum, kl_div_sum:
                    ours, theirs = quietly(both, function, x, y, axis)
                    # Adding n terms one after the other has an error of at most n eps.
                    rtol = 1e-12 if x.dtype == float else 1e-3
                    np.testing.assert_allclose(ours, theirs, rtol=rtol, atol=rtol * x.size, strict=True)


def test_one_pass_needs_no_copy():
    p, q = weights("random", (400, 3000))
    for x, y, axis in (p, q, 1), (p, q, None), (p[:, ::2], q[:, ::2], None), (p.T, q.T, (0, 1)), (p, q[:1], 0):
        for function in rel_entr_sum, kl_div_sum:
            tracemalloc.start()
            function(x, y, axis)
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            assert peak < x.nbytes / 10


def test_long_sums_of_rel_entr():
    """Blocks, along the rows and along one row, change rounding errors alone. log2 n is below 20."""
    p, q = weights("random", (3, 40_001))
    each = original(rel_entr_sum)(p, q, ())
    for axis in 0, 1, None:
        atol = 28 * EPS[p.dtype] * np.abs(each).sum(axis).max()
        np.testing.assert_allclose(rel_entr_sum(p, q, axis), each.sum(axis), rtol=0, atol=atol)
    column, row = p[:, :1], q[0]
    close = {"rtol": 16 * EPS[p.dtype], "atol": 0}
    np.testing.assert_allclose(
        rel_entr_sum(column, row, axis=0), rel_entr_sum(*np.broadcast_arrays(column, row), 0), **close
    )


DTYPES = ["?", "i1", "u1", "i2", "u2", "i4", "u8", "f2", "f4", "f8", ">f4", ">f8", "number"]


@pytest.mark.parametrize("first", DTYPES)
def test_dtypes_are_scipys(first):
    for second in DTYPES:
        p, q = (3.0 if d == "number" else np.array([1, 1, 1], d) for d in (first, second))
        calls = [both(entropy, p), both(entropy, p, q), both(rel_entr_sum, p, q), both(kl_div_sum, p, q)]
        if np.shape(p) == np.shape(q):
            p, q = np.asarray(p), np.asarray(q)
            for x, y in (p, q), (np.atleast_2d(p), np.atleast_2d(q)):
                for base in None, 2:
                    calls += [both(jensenshannon, x, y, base, keepdims=keepdims) for keepdims in (False, True)]
        assert all(ours.dtype == theirs.dtype for ours, theirs in calls), (second, calls)


@pytest.mark.parametrize("policy", ["propagate", "omit", "raise"])
def test_nan_and_masks(policy):
    rng = np.random.default_rng(3)
    p, q = rng.random((2, 6, 40, 5))
    p[rng.random(p.shape) < 0.1] = nan
    q[rng.random(q.shape) < 0.1] = nan
    p[0, :, 0] = nan
    p[1, :, 0] = 0
    p_mask, q_mask = rng.random((2, *p.shape)) < 0.2
    p_mask[2, :, 0] = True
    masked_p, masked_q = np.ma.array(p, mask=p_mask), np.ma.array(q, mask=q_mask)
    clean = np.ma.array(p, mask=p_mask | np.isnan(p))
    cases = [(p,), (masked_p,), (clean,)]
    cases += [(p, q), (p, masked_q), (masked_p, masked_q), (clean, q[0, :, :1])]
    cases += [tuple(x[5, :, 1] for x in case if x.ndim == 3) for case in cases]
    for case in cases:
        for axis in (1, None) if case[-1].size == p.size else (case[0].ndim // 2,):
            keywords = {"axis": axis, "nan_policy": policy, "keepdims": True}
            try:
                theirs = quietly(original(entropy), *case, **keywords)
            except ValueError:
                with pytest.raises(ValueError, match="nan values"):
                    entropy(*case, **keywords)
            else:
                ours = entropy(*case, **keywords)
                assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
                # SciPy's error, as above: rows have at most 200 entries, and their terms sum to at most 8.
                np.testing.assert_allclose(ours, theirs, rtol=0, atol=608 * EPS[p.dtype] * 10)


SHAPES = [((3,), (2, 1), -1), ((3,), (2, 1), 0), ((4, 1, 3), (5, 1), 1), ((3, 2), (6,), None), ((3,), (1, 1), None)]
EMPTY = [((), (3,), 0), ((0,), (0,), 0), ((3, 0), (3, 0), 1), ((3, 0), (3, 0), 0), ((3, 0), (1, 0), None)]


def test_an_operand_of_other_shape():
    close = {"rtol": 1e-13, "atol": 1e-15, "strict": True}
    for p, q, axis in SHAPES + EMPTY:
        x, y = np.random.default_rng(4).random(p), np.random.default_rng(5).random(q)
        np.testing.assert_allclose(*both(entropy, x, y, axis=axis), **close)
        np.testing.assert_allclose(*both(entropy, x), **close)
        if axis is not None:
            np.testing.assert_allclose(*both(rel_entr_sum, x, y, axis), **close)
            np.testing.assert_allclose(*both(kl_div_sum, x, y, axis, keepdims=True), **close)
    for x in 3.0, [], np.zeros((0, 3)):
        for keepdims in False, True:
            assert np.shape(entropy(x, keepdims=keepdims)) == np.shape(original(entropy)(x, keepdims=keepdims))


@pytest.mark.parametrize("base", [1, 0.3, inf, nan, 3, 10.0, True])
def test_bases(base):
    p, q = [[1, 2, 0], [2, 1, 3]], [[1, 1, 1], [1, 5, 3]]
    for x, y in (p, q), (p[0], q[0]):
        assert_same(*quietly(both, entropy, x, base=base))
        assert_same(*quietly(both, entropy, x, y, base))
        np.testing.assert_allclose(*quietly(both, jensenshannon, x, y, base), rtol=1e-14, strict=True)


@difference("masked entries, except in `entropy`")
def test_masked_operands_are_refused():
    masked, plain = np.ma.array([1.0, 2.0, 3.0], mask=[0, 0, 1]), [1.0, 2.0, 3.0]
    for function in jensenshannon, rel_entr_sum, kl_div_sum:
        for name, p, q in ("p", masked, plain), ("q", plain, masked):
            with pytest.raises(TypeError, match=rf"^{name} has masked entries"):
                function(p, q)
        assert function(np.ma.array(plain), [3, 2, 1]) == function(plain, [3, 2, 1])
    assert original(jensenshannon)(masked, plain) == 0 == original(rel_entr_sum)(masked, plain)
    assert_same(*both(entropy, masked, [2, 1, 5]))


@difference("`jensenshannon` of rows of different lengths")
def test_rows_of_different_lengths():
    for p, q, keywords in (
        ([1.0, 2.0, 3.0], [1.0], {}),
        (np.ones((2, 3)), np.ones((2, 1)), {"axis": 1}),
        (np.ones((2, 3)), np.ones(3), {"axis": 0}),
        (np.ones((2, 3)), np.ones((1, 3)), {"axis": None}),
    ):
        with pytest.raises(ValueError, match="must have the same lengths"):
            jensenshannon(p, q, **keywords)
        assert np.all(np.isfinite(original(jensenshannon)(p, q, **keywords)))


@difference("`entropy(…, axis=())`")
def test_no_axis():
    p = [[1.0, 2.0], [3.0, 4.0]]
    np.testing.assert_array_equal(entropy(p, axis=()), np.zeros((2, 2)))
    np.testing.assert_allclose(*both(rel_entr_sum, p, 1.0, axis=()), rtol=8 * EPS[np.dtype(float)])
    assert original(entropy)(p, axis=()) == original(entropy)(p, axis=None)


@difference("messages")
def test_errors():
    p, other = np.ones((2, 3)), np.ones((3, 3))
    objects, complexes = p.astype(object), p.astype(complex)
    for keywords in {"base": 0}, {"base": -2}, {"base": "2"}, {"nan_policy": "drop"}:
        both_raise(entropy, p, **keywords)
    for axis in 2, (0, 0), 1.0:
        both_raise(entropy, p, axis=axis)
    both_raise(entropy, p * nan, nan_policy="raise")
    for x in complexes, p.astype(np.clongdouble), objects, p.astype(str):
        both_raise(entropy, x)
    for arguments in (p, other), (p, np.ones((4, 2)), None, None), (), (p, p, 2, 0, "omit"):
        both_raise(entropy, *arguments)
    for arguments in (p, other), (p, p, "2"), (objects, p), (p, complexes), (p, p, 2, 0):
        both_raise(jensenshannon, *arguments)
    both_raise(jensenshannon, p, p, axis=2)
    for arguments in (p, other, 0), (p, p, 2), (objects, p, 0), (p, complexes, 0):
        for function in rel_entr_sum, kl_div_sum:
            assert re.search(r"p has|q has|axis|broadcast", both_raise(function, *arguments))
