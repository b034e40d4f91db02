"""Rows and entries at the edges: zeros, subnormal and huge numbers, invalid numbers, eps.

Values are compared with those of reference.py, with the same bound on all tiers. test_messages.py tests the messages.
"""

import functools
import itertools
import math

import numpy as np
import pytest
from support import measures
from support.measures import EPS_MEASURES, MEASURES, PAIR_MEASURES, SYMMETRIC, entropy

import fastkl

slow = pytest.mark.slow
dtypes = pytest.mark.parametrize("dtype", ["f8", "f4"])
# All measures; the distance is the root of a divergence from the same passes, so that sweeps of it are slow.
ALL = [pytest.param(x, marks=slow) if x is fastkl.js_distance else x for x in MEASURES]
every_measure = pytest.mark.parametrize("measure", ALL)


def least(dtype):
    """The smallest positive number."""
    return float(np.finfo(dtype).smallest_subnormal)


def numbers(dtype):
    """Probabilities from one end of the dtype to the other."""
    about, power = np.finfo(dtype), 300 if dtype == "f8" else 30
    small = [least(dtype), float(about.tiny), 10.0**-power, float(about.eps)]
    return [0.0, -0.0, *small, 0.5, 1.0, 2.0, 10.0**power, float(about.max)]


def refused(dtype):
    """Numbers that are not probabilities."""
    return [np.inf, -np.inf, np.nan, -np.nan, -1.0, -least(dtype)]


@functools.cache
def grid(dtype):
    """Every pair of a row p and a row q."""
    both = np.array(list(itertools.product([*numbers(dtype), np.inf, np.nan, -1.0, -least(dtype)], repeat=4)), dtype)
    return both[:, :2], both[:, 2:]


def are_valid(measure, dtype, normalize):
    """Which pairs of the grid are distributions."""
    rows = np.stack(grid(dtype)[: 1 if measure is entropy else 2])
    with np.errstate(over="ignore", invalid="ignore"):
        total = rows.sum(axis=-1, dtype=float)
        right = total > 0 if normalize else np.abs(total - 1) <= math.sqrt(np.finfo(dtype).eps)
        return np.all(right & np.all((rows >= 0) & (rows < np.inf), axis=-1), axis=0)


def truth(measure, dtype):
    """The right values where the grid's rows are weights. They do not depend on the order of entries, nor on -0."""
    valid = are_valid(measure, dtype, normalize=True)
    p, q = (rows[valid].astype(float) + 0.0 for rows in grid(dtype))
    flip = p[:, 0] > p[:, 1]
    p[flip], q[flip] = p[flip, ::-1], q[flip, ::-1]
    distinct, places = np.unique(p if measure is entropy else np.hstack((p, q)), axis=0, return_inverse=True)
    return measures.exact(measure, distinct[:, :2], distinct[:, -2:])[places.ravel()]


@pytest.mark.parametrize("n", [2, 3, 4, 5, 9, 129, 161, 201, 321])
@pytest.mark.parametrize("dtype", ["f8", "f4"])
@pytest.mark.parametrize("measure", PAIR_MEASURES)
def test_rows_beside_extreme_neighbours_have_their_bits(tier, measure, dtype, n):
    """Every third row is plain; zeros, negative zeros, small and large numbers, and sums of 1 stand around it."""
    rng, about = np.random.default_rng(n), np.finfo(dtype)
    p, q = rng.random((2, 51, n)).astype(dtype) + about.eps
    q[1::6, 0], q[2::6, -1], p[4::6, 0], q[5::6, -1] = 0, -0.0, about.smallest_subnormal, about.smallest_subnormal
    p[5::6], q[4::12] = p[5::6] * about.dtype.type(1e30), p[4::12]
    apart = 1.0009 + 0.004 * rng.standard_normal(q[::6].shape)
    q[::6] = p[::6] * apart  # sums that are near have a form of their own
    p[7::9], q[7::9] = (x[7::9] / x[7::9].sum(1, keepdims=True) for x in (p, q))
    among = measure(p, q, normalize=True)
    alone = np.concatenate([measure(p[i : i + 1], q[i : i + 1], normalize=True) for i in range(len(p))])
    measures.assert_same_bits(among, alone)


@every_measure
@dtypes
def test_pairs_of_special_numbers(dtype, measure):
    """A valid row has the right value and the same bits in every mode, also among invalid ones, which are refused."""
    p, q = grid(dtype)
    weights, right = are_valid(measure, dtype, normalize=True), truth(measure, dtype)
    default_eps = {"eps": 0.0} if measure in EPS_MEASURES else {}
    for normalize in False, True:
        valid = are_valid(measure, dtype, normalize)

        def in_every_mode(valid=valid, normalize=normalize):
            result = measure(p, q, normalize=normalize, invalid="nan")
            np.testing.assert_array_equal(np.isnan(result), ~valid)
            ignored = measure(p, q, normalize=normalize, invalid="ignore", **default_eps)
            measures.assert_same_bits(ignored[valid], result[valid])
            measures.assert_same_bits(measure(p[valid], q[valid], normalize=normalize), result[valid])
            for i in np.flatnonzero(~valid)[::499]:
                with pytest.raises(ValueError, match=r"probabilities must be|rows must"):
                    measure(p[i], q[i], normalize=normalize)
            return result[valid]

        for tier, values in measures.on_every_tier(in_every_mode).items():
            measures.assert_right(measure, values, p[valid], q[valid], right[valid[weights]], tier)


@pytest.mark.parametrize("dtype", ["f2", "bfloat16"])
def test_special_numbers_of_half_precision_are_their_values(tier, dtype):
    about = np.finfo(dtype) if dtype == "f2" else pytest.importorskip("ml_dtypes").finfo(dtype)
    special = [0, -0.0, 0.5, 1, 2, about.smallest_subnormal, about.tiny, about.eps, about.max, np.inf, np.nan, -1]
    pairs = np.array(list(itertools.product(map(float, special), repeat=2)))
    p, q = (np.stack([x, np.ones_like(x)], axis=1).astype(about.dtype) for x in pairs.T)
    for measure in MEASURES:
        singles = measure(p.astype("f4"), q.astype("f4"), normalize=True, invalid="nan")
        np.testing.assert_array_equal(measure(p, q, normalize=True, invalid="nan"), singles)


# The kernels have three ways through a matrix: row after row, with a rest that does not fill the lanes; groups of short
# rows; groups of interleaved rows.
WIDE = 1100
FORMS = {"wide rows": (WIDE, "C"), "short rows": (21, "C"), "columns": (101, "F")}
forms = pytest.mark.parametrize("form", FORMS)


def anywhere(special, others, dtype, form):
    """A matrix with a special entry in each row, at the end of the last. 17 is prime to the number of lanes."""
    n, order = FORMS[form]
    columns = [*(17 * i % n for i in range(70)), n - 1]
    rows = np.full((len(columns), n), others, dtype, order)
    rows[range(len(columns)), columns] = special
    return rows


# The reference takes long by definition, which it follows where doubles are far apart.
@pytest.mark.parametrize("far", [False, pytest.param(True, marks=slow)])
@forms
@dtypes
@every_measure
def test_a_special_entry_in_any_column(measure, dtype, form, far):
    tiny, most = float(np.finfo(dtype).tiny), float(np.finfo(dtype).max)
    pairs = [*itertools.product([0.0, least(dtype), 1.0, most], repeat=2), (tiny, tiny / 2)]
    pairs += [(0.0, -0.0), (-0.0, 0.0), (-0.0, -0.0), (1.0, -0.0), (-0.0, 1.0)]
    for special_p, special_q in (pair for pair in pairs if far == any(x not in (0, 1) for x in pair)):
        p, q = anywhere(special_p, 3.0, dtype, form), anywhere(special_q, 5.0, dtype, form)
        measures.assert_right_everywhere(measure, p, q, measures.exact(measure, p[:1], q[:1]))


@forms
@dtypes
def test_an_invalid_entry_in_any_column(tier, dtype, form):
    """Which eps does not hide."""
    for bad, measure in itertools.product(refused(dtype), MEASURES):
        pairs = [(bad, 1.0), (bad, 0.0), (bad, bad), (1.0, bad), (0.0, bad)]
        for special_p, special_q in pairs[:3] if measure is entropy else pairs:
            p, q = anywhere(special_p, 3.0, dtype, form), anywhere(special_q, 5.0, dtype, form)
            for keywords in ({}, {"eps": 0.5}) if measure in EPS_MEASURES else [{}]:
                values = measure(p, q, normalize=True, invalid="nan", **keywords)
                assert np.isnan(values).all(), f"p = {special_p}, q = {special_q}, {keywords}"


@forms
@dtypes
def test_generalized_kl_takes_rows_as_they_are(tier, dtype, form):
    """Rows of zeros are valid, and no sum is wrong; an invalid entry is."""
    zeros, some = anywhere(0.0, 0.0, dtype, form), anywhere(0.0, 3.0, dtype, form)
    assert np.all(fastkl.generalized_kl(zeros, zeros) == 0)
    assert np.all(fastkl.generalized_kl(some, zeros) == np.inf)
    np.testing.assert_array_equal(fastkl.generalized_kl(zeros, some), some.sum(axis=1))
    special = [0.0, -0.0, least(dtype), float(np.finfo(dtype).tiny), 1.0, float(np.finfo(dtype).max) / 1e4]
    for special_p, special_q in itertools.product(special, repeat=2):
        p, q = anywhere(special_p, 3.0, dtype, form), anywhere(special_q, 5.0, dtype, form)
        values = fastkl.generalized_kl(p, q)
        measures.assert_right(fastkl.generalized_kl, values, p, q, measures.exact(fastkl.generalized_kl, p[:1], q[:1]))
        clipped = fastkl.generalized_kl(p, q, eps=0.5)
        right = measures.exact(fastkl.generalized_kl, p[:1], q[:1], 0.5)
        measures.assert_right(fastkl.generalized_kl, clipped, p, q, right, eps=0.5)
    for bad in refused(dtype):
        for pair in (anywhere(bad, 3.0, dtype, form), some), (some, anywhere(bad, 5.0, dtype, form)):
            for invalid in "nan", "ignore":
                assert np.isnan(fastkl.generalized_kl(*pair, invalid=invalid)).all()
            with pytest.raises(fastkl.InvalidRowError, match=r"^[pq]\[0, 0\] = "):
                fastkl.generalized_kl(*pair)


def off_by(amount, n, dtype):
    weights = np.arange(1, n + 1)
    return (weights * ((1 + amount) / weights.sum())).astype(dtype)


@pytest.mark.parametrize("n", [1, 2, 31, WIDE])
@dtypes
def test_rows_without_weight(tier, dtype, n):
    good = np.full(n, 1 / n, dtype)
    for row, measure in itertools.product((np.full(n, value, dtype) for value in (0.0, -0.0, math.nan)), MEASURES):
        for pair in [(row, good)] if measure is entropy else [(row, good), (good, row), (row, row)]:
            for normalize in False, True:
                assert np.isnan(measure(*pair, normalize=normalize, invalid="nan"))
                with pytest.raises(ValueError, match=r"sums to 0|= nan"):
                    measure(*pair, normalize=normalize)


@dtypes
def test_one_entry(dtype):
    p = np.array([[x] for x in numbers(dtype) if x], dtype)
    for measure in MEASURES:
        measures.assert_right_everywhere(measure, p, p[::-1])


@dtypes
def test_the_least_numbers_in_different_places(dtype):
    """A quarter of one, times a logarithm, is rounded to 0, but its root is not, nor is the sum of a row of them."""
    for n in 3, 41, 501:
        p, q = np.zeros((2, 5, n), dtype)
        p[:, 0] = q[:, 0] = 1
        p[:, 1::2] = q[:, 2::2] = least(dtype)
        for measure in SYMMETRIC:
            measures.assert_right_everywhere(measure, p, q)


@pytest.mark.parametrize("n", [2, WIDE, 66_000])
@dtypes
def test_a_sum_just_within_and_just_beyond_the_tolerance(tier, dtype, n):
    """A row within the tolerance counts as the distribution to which it is proportional."""
    good = off_by(0, n, dtype)[::-1].copy()
    for sign, measure in itertools.product((-1, 1), MEASURES):
        tolerance = sign * math.sqrt(np.finfo(dtype).eps)
        within, beyond = (off_by(share * tolerance, n, dtype) for share in (0.98, 1.02))
        p, q = np.array([within, good]), np.array([good, within])
        values = measure(p, q)
        assert np.all(values > 0)
        measures.assert_same_bits(measure(p, q, normalize=True), values)
        if n <= WIDE:
            measures.assert_right(measure, values, p, q, measures.exact(measure, p, q))
        for pair in [(beyond, good)] if measure is entropy else [(beyond, good), (good, beyond)]:
            with pytest.raises(ValueError, match="sums to"):
                measure(*pair)
            assert np.isnan(measure(*pair, invalid="nan"))
            for accepts in {"normalize": True}, {"invalid": "ignore"}:
                assert measure(*pair, **accepts) > 0


def test_each_operand_has_the_tolerance_of_its_own_dtype(tier):
    near = off_by(1e-4, 2, "f4")
    for measure in PAIR_MEASURES:
        for one in (np.array([1, 0], dtype) for dtype in ("f8", "i4", "u1")):
            assert measure(one, near) > 0
            assert measure(near, one) > 0
        for off in off_by(1e-4, 2, "f8"), np.array([1, 1]), np.array([True, True]), np.array([0, 0], "u1"):
            with pytest.raises(ValueError, match="q sums to"):
                measure(near, off)
            with pytest.raises(ValueError, match="p sums to"):
                measure(off, near)


@pytest.mark.parametrize("dtype", ["f2", "f4"])
def test_p_is_named_where_both_sums_are_wrong(tier, dtype):
    """Even where q's sum is so large that p's, a difference in float32, loses all digits and may seem to be 1."""
    p = np.full(8, (1 - 1.2 * math.sqrt(np.finfo(dtype).eps)) / 8, dtype)
    for size in np.logspace(0, 4.8, 400):
        q = np.array([size, size, 0, 0.5, size / 3, size, size / 7, 0], dtype)
        for measure in PAIR_MEASURES:
            with pytest.raises(ValueError, match=r"^p sums to"):
                measure(p, q)


@pytest.mark.parametrize("n", [1, 2, 31, WIDE])
@dtypes
def test_rows_at_either_end_of_the_range(dtype, n):
    """Sums overflow or consist of subnormal numbers, on one side or on both."""
    most, few = float(np.finfo(dtype).max), least(dtype)
    shape = np.random.default_rng(2).random((2, n))
    small, large = (10 * few * (1 + 9 * shape)).astype(dtype), (most * shape).astype(dtype)
    p = np.vstack((large[0], small[0], large[0], small[0], large[0], np.full(n, most), np.full(n, few)))
    q = np.vstack((large[1], small[1], small[1], large[1], large[0] / 2, np.full(n, few), np.full(n, most)))
    for measure in MEASURES:
        for a, b in (p, q), (q, p):
            right = measures.exact(measure, a, b)
            ways = {}, {"invalid": "nan"}, {"invalid": "ignore", "normalize": False}
            alike = [measures.assert_right_everywhere(measure, a, b, right, **keywords) for keywords in ways]
            for expected, *others in zip(*alike, strict=True):
                for values in others:
                    measures.assert_same_bits(values, expected)
        with pytest.raises(ValueError, match="sums to"):
            measure(p, q)


@forms
@dtypes
def test_eps_clips_q_before_it_is_normalised(dtype, form):
    n, _ = FORMS[form]
    p, q = np.random.default_rng(3).random((2, 12, n))
    q[p < 0.2] = 0
    q[6:] = np.roll(np.sort(q[6:]), 7, axis=-1)
    q[-1] = np.arange(n) == 7
    p, q = ((x / x.sum(axis=-1, keepdims=True)).astype(dtype) for x in (p, q))
    wide_p, counts = p.astype("f8"), (1000 * q).astype("i4")
    for measure, eps in itertools.product(EPS_MEASURES, (1e-50, 1e-12, 0.01, 0.75)):
        right = measures.exact(measure, p, q, eps)
        for order in "C", "F":
            rows = np.array(p, order=order), np.array(q, order=order)
            measures.assert_right_everywhere(measure, *rows, right, f"{order}, eps = {eps}", normalize=False, eps=eps)
        right = measures.exact(measure, p, counts, eps)
        measures.assert_right_everywhere(measure, wide_p, counts, right, f"counts, eps = {eps}", eps=eps)


@dtypes
def test_the_sum_of_q_is_checked_before_it_is_clipped(tier, dtype):
    p, good, *others = np.array([[0.5, 0.25, 0.25], [0.98, 0.01, 0.01], [0.9, 0.05, 0], [0.5, 0, 0], [-1, 1, 1]], dtype)
    for measure in EPS_MEASURES:
        assert measure(p, good, eps=0.5) < math.inf
        for q, start in zip(others, (r" sums to 0\.9[45]", r" sums to 0\.5:", r"\[0\] = -1\.0:"), strict=True):
            with pytest.raises(ValueError, match=f"^q{start}"):
                measure(p, q, eps=0.05)
            assert np.isnan(measure(p, q, eps=0.05, invalid="nan"))


def test_eps_and_the_sum_of_a_wide_q(tier):
    n = 300_000
    for eps in 1e-3, 0.3, 0.9:
        p = q = np.full(n, 1 / n)
        assert fastkl.cross_entropy(p, q, eps=eps) == pytest.approx(math.log(n), rel=1e-14)
        q = q.copy()
        q[0] += 1e-7
        with pytest.raises(ValueError, match=r"^q sums to 1\.0000001:"):
            fastkl.kl_divergence(p, q, eps=eps)
