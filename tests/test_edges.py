"""Rows and entries at the edges, on every tier: zeros, subnormal and huge numbers, invalid numbers, eps.

Values are compared with those of reference.py, with the same bound on all tiers. test_messages.py tests the messages.
"""

from __future__ import annotations

import functools
import itertools
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import reference
from measures import EPS_MEASURES, MEASURES, PAIR_MEASURES, entropy

import fastkl

if TYPE_CHECKING:
    from collections.abc import Callable

    Array = np.ndarray[Any, Any]

pytestmark = pytest.mark.usefixtures("tier")

DTYPES = ["f8", "f4"]
MODES = ["raise", "nan", "ignore"]


def least(dtype: str) -> float:
    """Return the smallest positive number."""
    return float(np.finfo(dtype).smallest_subnormal)


def numbers(dtype: str) -> list[float]:
    """Return probabilities from one end of the dtype to the other."""
    about, power = np.finfo(dtype), 300 if dtype == "f8" else 30
    small = [least(dtype), float(about.tiny), 10.0**-power, float(about.eps)]
    return [0.0, -0.0, *small, 0.5, 1.0, 2.0, 10.0**power, float(about.max)]


def refused(dtype: str) -> list[float]:
    """Return numbers that are not probabilities."""
    return [np.inf, -np.inf, np.nan, -np.nan, -1.0, -least(dtype)]


def assert_same_bits(result: Array, expected: Array) -> None:
    unsigned = f"u{expected.itemsize}"
    assert result.dtype == expected.dtype
    np.testing.assert_array_equal(result.view(unsigned), expected.view(unsigned))


def exact(measure: Callable[..., Any], p: Array, q: Array) -> reference.DoubleDouble:
    return reference.evaluate(measure.__name__, p, p if measure is entropy else q)


def assert_right(measure: Callable[..., Any], result: Array, p: Array, q: Array) -> None:
    error = reference.error(measure.__name__, result, exact(measure, p, q))
    worst = error.argmax()
    bound = reference.BOUND[measure.__name__]
    assert error[worst] <= bound, f"{result[worst]} is {error[worst]} off for p = {p[worst]}, q = {q[worst]}"


# ---- every pair of two-entry rows of special numbers ----


@functools.cache
def grid(dtype: str) -> tuple[Array, Array]:
    """Return every pair of a row p and a row q."""
    both = np.array(list(itertools.product([*numbers(dtype), np.inf, np.nan, -1.0, -least(dtype)], repeat=4)), dtype)
    return both[:, :2], both[:, 2:]


def is_distribution(rows: Array, normalize: bool) -> Array:
    with np.errstate(over="ignore", invalid="ignore"):
        total = rows.sum(axis=-1, dtype=float)
        right = total > 0 if normalize else np.abs(total - 1) <= math.sqrt(np.finfo(rows.dtype).eps)
        return right & np.all((rows >= 0) & (rows < np.inf), axis=-1)


def is_valid(measure: Callable[..., Any], dtype: str, normalize: bool) -> Array:
    p, q = grid(dtype)
    return is_distribution(p, normalize) & (measure is entropy or is_distribution(q, normalize))


@functools.cache
def truth(measure: Callable[..., Any], dtype: str) -> reference.DoubleDouble:
    """Return the right values where the grid's rows are weights. They do not depend on the order of entries, nor on -0."""
    valid = is_valid(measure, dtype, normalize=True)
    p, q = (rows[valid].astype(float) + 0.0 for rows in grid(dtype))
    flip = p[:, 0] > p[:, 1]
    p[flip], q[flip] = p[flip, ::-1], q[flip, ::-1]
    distinct, places = np.unique(p if measure is entropy else np.hstack((p, q)), axis=0, return_inverse=True)
    return exact(measure, distinct[:, :2], distinct[:, -2:])[places.ravel()]


def meaning(measure: Callable[..., Any], a: float, b: float) -> tuple[float, float]:
    """Return the least and the largest possible value of the rows [a, 1] and [b, 1]; NaN and NaN if one is invalid."""
    if not (0 <= a < math.inf and (measure is entropy or 0 <= b < math.inf)):
        return math.nan, math.nan
    if measure is entropy or measure in (fastkl.js_divergence, fastkl.js_distance):
        bits = 0 if measure is not entropy and a == b else 1
        return 0, math.log(2) ** (0.5 if measure is fastkl.js_distance else 1) * bits
    if a > 0 == b and measure in EPS_MEASURES:
        return math.inf, math.inf
    return 0, 0 if measure is not fastkl.cross_entropy and a == b else 1500  # less than twice the log of the largest number


@pytest.mark.parametrize("dtype", ["f8", "f4", "f2", "bfloat16"])
@pytest.mark.parametrize("measure", MEASURES)
def test_special_numbers_mean_the_same_in_every_dtype(measure: Callable[..., Any], dtype: str) -> None:
    if dtype == "bfloat16":
        dtype = pytest.importorskip("ml_dtypes").bfloat16
    about = np.finfo(dtype) if isinstance(dtype, str) else pytest.importorskip("ml_dtypes").finfo(dtype)
    numbers = [about.smallest_subnormal, about.tiny, about.eps, about.max]
    numbers = [float(x) for x in (0, -0.0, 0.5, 1, 2, *numbers, np.inf, np.nan, -1)]
    pairs = list(itertools.product(numbers, repeat=2))
    p, q = (np.array([[pair[i], 1] for pair in pairs]).astype(dtype) for i in range(2))
    least, most = np.array([meaning(measure, *pair) for pair in pairs]).T
    result = measure(p, q, normalize=True, invalid="nan")
    np.testing.assert_array_equal(np.isnan(result), np.isnan(least))
    valid = ~np.isnan(least)
    one_more = np.nextafter(most.astype(result.dtype), np.inf)  # for log 2, rounded
    assert np.all((result[valid] >= least[valid]) & (result[valid] <= one_more[valid] * (most[valid] > 0)))


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("measure", MEASURES)
def test_pairs_of_special_numbers(measure: Callable[..., Any], dtype: str, normalize: bool) -> None:
    p, q = grid(dtype)
    valid, weights = is_valid(measure, dtype, normalize), is_valid(measure, dtype, normalize=True)
    result = measure(p, q, normalize=normalize, invalid="nan")
    np.testing.assert_array_equal(np.isnan(result), ~valid)
    error = reference.error(measure.__name__, result[valid], truth(measure, dtype)[valid[weights]])
    worst = error.argmax()
    bound = reference.BOUND[measure.__name__]
    assert error[worst] <= bound, (
        f"{np.count_nonzero(error > bound)} rows are wrong: {result[valid][worst]} is {error[worst]} off"
        f" for p = {p[valid][worst]}, q = {q[valid][worst]}"
    )


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("measure", MEASURES)
def test_a_valid_row_gives_the_same_bits_in_every_mode(measure: Callable[..., Any], dtype: str, normalize: bool) -> None:
    """The same holds of valid rows among invalid ones."""
    p, q = grid(dtype)
    valid = is_valid(measure, dtype, normalize)
    expected = measure(p[valid], q[valid], normalize=normalize, invalid="raise")
    for mode in "nan", "ignore":
        assert_same_bits(measure(p, q, normalize=normalize, invalid=mode)[valid], expected)
        assert_same_bits(measure(p[valid], q[valid], normalize=normalize, invalid=mode), expected)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_that_are_not_distributions_are_refused(dtype: str, normalize: bool) -> None:
    good = np.array([0.5, 0.5], dtype)
    for row in np.array(list(itertools.product([*numbers(dtype), *refused(dtype)], repeat=2)), dtype):
        calls = [(measure, pair) for measure in PAIR_MEASURES for pair in ((row, good), (good, row))]
        for measure, pair in [(entropy, (row, good)), *calls]:
            if is_distribution(row, normalize):
                assert not np.isnan(measure(*pair, normalize=normalize))
            else:
                with pytest.raises(ValueError, match=r"probabilities must be|rows must"):
                    measure(*pair, normalize=normalize)
                assert np.isnan(measure(*pair, normalize=normalize, invalid="nan"))


# ---- one special entry, anywhere in a row ----

# The kernels have three ways through a matrix: row after row, with a rest that does not fill the lanes; groups of short
# rows; groups of interleaved rows.
WIDE = 1100
FORMS = {"wide rows": (WIDE, "C"), "short rows": (21, "C"), "columns": (101, "F")}


def anywhere(special: float, others: float, dtype: str, form: str) -> Array:
    """Return a matrix with a special entry in each row, at the end of the last. 17 is prime to the number of lanes."""
    n, order = FORMS[form]
    columns = [*(17 * i % n for i in range(70)), n - 1]
    rows = np.full((len(columns), n), others, dtype, order)
    rows[range(len(columns)), columns] = special
    return rows


def special_pairs(dtype: str) -> list[tuple[float, float]]:
    tiny, most = float(np.finfo(dtype).tiny), float(np.finfo(dtype).max)
    some = itertools.product([0.0, least(dtype), 1.0, most], repeat=2)
    return [*some, (tiny, tiny / 2), (0.0, -0.0), (-0.0, 0.0), (-0.0, -0.0), (1.0, -0.0), (-0.0, 1.0)]


@functools.cache
def truth_anywhere(measure: Callable[..., Any], dtype: str, form: str, p: float, q: float) -> reference.DoubleDouble:
    """Return the right value of a row of the matrices, which is that of all their rows."""
    return exact(measure, anywhere(p, 3.0, dtype, form)[:1], anywhere(q, 5.0, dtype, form)[:1])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("measure", MEASURES)
def test_a_special_entry_in_any_column(measure: Callable[..., Any], dtype: str, form: str) -> None:
    for special_p, special_q in special_pairs(dtype):
        p, q = anywhere(special_p, 3.0, dtype, form), anywhere(special_q, 5.0, dtype, form)
        right = truth_anywhere(measure, dtype, form, special_p, 0.0 if measure is entropy else special_q)
        error = reference.error(measure.__name__, measure(p, q, normalize=True), right)
        assert error.max() <= reference.BOUND[measure.__name__], f"row {error.argmax()}, p = {special_p}, q = {special_q}"


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("measure", MEASURES)
def test_an_invalid_entry_in_any_column(measure: Callable[..., Any], dtype: str, form: str) -> None:
    for bad in refused(dtype):
        pairs = [(bad, 1.0), (bad, 0.0), (bad, bad)]
        for special_p, special_q in pairs if measure is entropy else [*pairs, (1.0, bad), (0.0, bad)]:
            p, q = anywhere(special_p, 3.0, dtype, form), anywhere(special_q, 5.0, dtype, form)
            assert np.isnan(measure(p, q, normalize=True, invalid="nan")).all(), f"p = {special_p}, q = {special_q}"


def distributions(seed: int, dtype: str, form: str) -> tuple[Array, Array]:
    """Return thirty pairs of rows, with some zeros in q."""
    n, order = FORMS[form]
    p, q = np.random.default_rng(seed).random((2, 30, n))
    q[p < 0.2] = 0
    q[::5] += 0.1
    return tuple(np.array(x / x.sum(axis=-1, keepdims=True), dtype, order=order) for x in (p, q))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("measure", MEASURES)
def test_valid_rows_among_invalid_ones(measure: Callable[..., Any], dtype: str, form: str) -> None:
    p, q = distributions(1, dtype, form)
    expected = measure(p, q)
    for bad in refused(dtype):
        bad_p, bad_q = p.copy("K"), q.copy("K")
        bad_p[1::3, 20] = bad
        bad_q[2::6, -1] = bad
        bad_p[5::6] = 0.5
        for mode in "nan", "ignore":
            assert_same_bits(measure(bad_p, bad_q, invalid=mode)[::3], expected[::3])
        bad_rows = np.isnan(measure(bad_p, bad_q, invalid="nan"))
        np.testing.assert_array_equal(bad_rows[1::3], True)
        np.testing.assert_array_equal(bad_rows[5::6], True)


# ---- zeros ----


@pytest.mark.parametrize("zero", [0.0, -0.0])
@pytest.mark.parametrize("dtype", DTYPES)
def test_zeros(dtype: str, zero: float) -> None:
    half, one = np.array([0.5, zero, 0.5], dtype), np.array([zero, 1, zero], dtype)
    for mode in MODES:
        assert fastkl.entropy(one, invalid=mode) == 0
        assert fastkl.entropy(half, base=2, invalid=mode) == 1
        for base in None, 2, 10:
            assert fastkl.kl_divergence(half, one, base=base, invalid=mode) == math.inf
            assert fastkl.cross_entropy(half, one, base=base, invalid=mode) == math.inf
        assert fastkl.kl_divergence(one, one, invalid=mode) == 0
        assert fastkl.kl_divergence(half, half, invalid=mode) == 0
        assert fastkl.cross_entropy(one, one, invalid=mode) == 0
        assert fastkl.cross_entropy(half, half, base=2, invalid=mode) == 1
        assert fastkl.kl_divergence(one, np.array([0.25, 0.5, 0.25], dtype), base=2, invalid=mode) == 1


@pytest.mark.parametrize("value", [0.0, -0.0, math.nan])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [1, 2, 31, WIDE])
def test_rows_without_weight(n: int, dtype: str, value: float) -> None:
    row, good = np.full(n, value, dtype), np.full(n, 1 / n, dtype)
    for measure in MEASURES:
        for pair in [(row, good)] if measure is entropy else [(row, good), (good, row), (row, row)]:
            for normalize in False, True:
                assert np.isnan(measure(*pair, normalize=normalize, invalid="nan"))
                with pytest.raises(ValueError, match=r"sums to 0|= nan"):
                    measure(*pair, normalize=normalize)


@pytest.mark.parametrize("dtype", DTYPES)
def test_one_entry(dtype: str) -> None:
    p = np.array([[x] for x in numbers(dtype) if x], dtype)
    for measure in MEASURES:
        assert_right(measure, measure(p, p[::-1], normalize=True), p, p[::-1])


# ---- sums ----


def off_by(amount: float, n: int, dtype: str) -> Array:
    weights = np.arange(1, n + 1)
    return (weights * ((1 + amount) / weights.sum())).astype(dtype)


@pytest.mark.parametrize("n", [3, 41, 501])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("measure", [fastkl.js_divergence, fastkl.js_distance])
def test_the_least_numbers_in_different_places(measure: Callable[..., Any], dtype: str, n: int) -> None:
    """A quarter of one, times a logarithm, is rounded to 0, but its root is not, nor is the sum of a row of them."""
    p = np.zeros((5, n), dtype)
    q = np.zeros((5, n), dtype)
    p[:, 0] = q[:, 0] = 1
    p[:, 1::2] = q[:, 2::2] = least(dtype)
    assert_right(measure, measure(p, q, normalize=True), p, q)


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("n", [2, WIDE, 66_000])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_sum_just_within_and_just_beyond_the_tolerance(dtype: str, n: int, sign: int) -> None:
    """A row within the tolerance counts as the distribution to which it is proportional."""
    tolerance = sign * math.sqrt(np.finfo(dtype).eps)
    within, beyond = (off_by(share * tolerance, n, dtype) for share in (0.98, 1.02))
    good = off_by(0, n, dtype)[::-1].copy()
    for measure in MEASURES:
        for pair in (within, good), (good, within):
            assert measure(*pair) > 0
            if n <= WIDE:
                assert_right(measure, np.array([measure(*pair)]), *(row[np.newaxis] for row in pair))
        for pair in [(beyond, good)] if measure is entropy else [(beyond, good), (good, beyond)]:
            with pytest.raises(ValueError, match="sums to"):
                measure(*pair)
            assert np.isnan(measure(*pair, invalid="nan"))
            for accepts in {"normalize": True}, {"invalid": "ignore"}:
                assert measure(*pair, **accepts) > 0


def test_each_operand_has_the_tolerance_of_its_own_dtype() -> None:
    for measure in PAIR_MEASURES:
        for wide in "f8", "i4", "u1":
            exact = np.array([1, 0], wide)
            assert measure(exact, off_by(1e-4, 2, "f4")) > 0
            assert measure(off_by(1e-4, 2, "f4"), exact) > 0
        for off in off_by(1e-4, 2, "f8"), np.array([1, 1]), np.array([True, True]), np.array([0, 0], "u1"):
            with pytest.raises(ValueError, match="q sums to"):
                measure(off_by(1e-4, 2, "f4"), off)
            with pytest.raises(ValueError, match="p sums to"):
                measure(off, off_by(1e-4, 2, "f4"))


@pytest.mark.parametrize("dtype", ["f2", "f4"])
def test_p_is_named_where_both_sums_are_wrong(dtype: str) -> None:
    """Even where q's sum is so large that p's, a difference in float32, loses all digits and may seem to be 1."""
    p = np.full(8, (1 - 1.2 * math.sqrt(np.finfo(dtype).eps)) / 8, dtype)
    for size in np.logspace(0, 4.8, 400):
        q = np.array([size, size, 0, 0.5, size / 3, size, size / 7, 0], dtype)
        for measure in PAIR_MEASURES:
            with pytest.raises(ValueError, match=r"^p sums to"):
                measure(p, q)


@pytest.mark.parametrize("n", [2, 31, WIDE])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("measure", MEASURES)
def test_rows_at_either_end_of_the_range(measure: Callable[..., Any], dtype: str, n: int) -> None:
    """Sums overflow or consist of subnormal numbers, on one side or on both."""
    most, few = float(np.finfo(dtype).max), least(dtype)
    shape = np.random.default_rng(2).random((2, n))
    small, large = (10 * few * (1 + 9 * shape)).astype(dtype), (most * shape).astype(dtype)
    p = np.vstack((large[0], small[0], large[0], small[0], large[0], np.full(n, most), np.full(n, few)))
    q = np.vstack((large[1], small[1], small[1], large[1], large[0] / 2, np.full(n, few), np.full(n, most)))
    result = measure(p, q, normalize=True)
    assert_right(measure, result, p, q)
    assert_right(measure, measure(q, p, normalize=True), q, p)
    assert_same_bits(measure(p, q, normalize=True, invalid="nan"), result)
    assert_same_bits(measure(p, q, invalid="ignore"), result)
    with pytest.raises(ValueError, match="sums to"):
        measure(p, q)


# ---- eps ----


@pytest.mark.parametrize("eps", [1e-50, 1e-12, 0.01, 0.75])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("measure", EPS_MEASURES)
def test_eps_clips_q_before_it_is_normalised(measure: Callable[..., Any], dtype: str, form: str, eps: float) -> None:
    p, q = (x[::5] for x in distributions(3, dtype, form))
    p, q = np.vstack((p, p)), np.vstack((q, np.roll(np.sort(q), 7, axis=-1)))
    q[-1] = np.arange(len(q[-1])) == 7
    for order in "C", "F":
        result = measure(np.array(p, order=order), np.array(q, order=order), eps=eps)
        assert_right(measure, result, p, np.maximum(q.astype(float), eps))
    counts = (1000 * q).astype("i4")
    result = measure(p.astype("f8"), counts, eps=eps, normalize=True)
    assert_right(measure, result, p, np.maximum(counts, eps))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("measure", EPS_MEASURES)
def test_the_default_eps_changes_nothing(measure: Callable[..., Any], dtype: str) -> None:
    p, q = grid(dtype)
    unasked = measure(p, q, normalize=True, invalid="nan")
    assert_same_bits(measure(p, q, eps=0.0, normalize=True, invalid="nan"), unasked)
    assert np.isinf(unasked).any()
    assert measure(np.array([0.5, 0.5], dtype), np.array([1, 0], dtype), eps=0) == math.inf


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("measure", EPS_MEASURES)
def test_the_sum_of_q_is_checked_before_it_is_clipped(measure: Callable[..., Any], dtype: str) -> None:
    p = np.array([0.5, 0.25, 0.25], dtype)
    assert measure(p, np.array([0.98, 0.01, 0.01], dtype), eps=0.5) < math.inf
    for q in np.array([0.9, 0.05, 0], dtype), np.array([0.5, 0, 0], dtype):
        with pytest.raises(ValueError, match=r"^q sums to 0\.(9[45]|5)"):
            measure(p, q, eps=0.05)
        assert np.isnan(measure(p, q, eps=0.05, invalid="nan"))


@pytest.mark.parametrize("eps", [1e-3, 0.3, 0.9])
def test_eps_and_the_sum_of_a_wide_q(eps: float) -> None:
    n = 1_000_000
    q = np.full(n, 1 / n)
    assert fastkl.cross_entropy(q, q, eps=eps) == pytest.approx(math.log(n), rel=1e-14)
    q[0] += 1e-7
    with pytest.raises(ValueError, match=r"^q sums to 1\.0000001:"):
        fastkl.kl_divergence(np.full(n, 1 / n), q, eps=eps)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("measure", EPS_MEASURES)
def test_eps_does_not_hide_an_invalid_entry(measure: Callable[..., Any], dtype: str) -> None:
    for bad in refused(dtype):
        for form in FORMS:
            p, q = anywhere(3, 3, dtype, form), anywhere(bad, 5, dtype, form)
            assert np.isnan(measure(p, q, eps=0.5, normalize=True, invalid="nan")).all()
        with pytest.raises(ValueError, match=r"^q\[0, 0\] = "):
            measure(p, q, eps=0.5, normalize=True)
