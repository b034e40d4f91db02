"""Rows of logits: masks, any finite size, temperatures, logits beside probabilities; the same bits in every layout.

softmax.py has the right values, and the bounds are the documented ones. test_messages has the messages of errors, and
test_labels has the labels.
"""

from __future__ import annotations

import functools
import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import softmax
from hypothesis import given
from hypothesis import strategies as st
from inputs import BFLOATS, decoded, encoded
from measures import MEASURES, PAIR_MEASURES, entropy
from mpmath import mpf

import fastkl

if TYPE_CHECKING:
    from collections.abc import Callable

    Array = np.ndarray[Any, Any]
    Measure = Callable[..., Any]

pytestmark = pytest.mark.usefixtures("tier")

DTYPES = ["f8", "f4"]
SMALL = [np.dtype("e"), BFLOATS[-1]]
MASK = -np.inf

# The core makes passes over chunks of 1024 entries, in groups of four a lane: widths about both, and one of a wide row.
WIDTHS = [1, 2, 3, 7, 31, 32, 33, 64, 127, 128, 129, 1000, 1023, 1024, 1025, 2048, 3001]


def call(measure: Measure, p: Any, q: Any, from_logits: Any = True, **keywords: Any) -> Any:
    """A measure; the entropy needs only to know whether p holds logits."""
    if measure is entropy:
        from_logits = softmax.OF_LOGITS[from_logits][0]
    return measure(p, q, from_logits=from_logits, **keywords)


@functools.lru_cache(maxsize=4096)
def _right(measure: str, p: tuple[float, ...], q: tuple[float, ...], temperature: float, eps: float, flags: Any) -> mpf:
    return softmax.DEFINITIONS[measure](
        softmax.distribution(p, flags[0], temperature), softmax.distribution(q, flags[1], temperature, eps)
    )


def right(measure: Measure, p: Array, q: Array, temperature: float = 1.0, eps: float = 0.0, from_logits: Any = True) -> mpf:
    """The right value for two rows."""
    flags = softmax.OF_LOGITS[from_logits]
    rows = (tuple(np.asarray(x, float).tolist()) for x in (p, q))
    return _right(measure.__name__, *rows, temperature, eps, flags)


def assert_near(measure: Measure, result: Any, expected: mpf, mixed: bool = False, told: str = "") -> None:
    about = np.finfo(result.dtype)
    told = f"{measure.__name__} is {result!r}, not {expected}; {told}"
    assert result >= 0, told
    if np.isinf(result) or expected == np.inf:
        assert np.isinf(result), told
        assert expected >= float(about.max), told
        return
    bound = softmax.allowed(measure.__name__, expected, float(about.eps), float(about.smallest_subnormal), mixed)
    assert abs(mpf(float(result)) - expected) <= bound, told


def assert_right(measure: Measure, p: Any, q: Any, **keywords: Any) -> None:
    flags = keywords.get("from_logits", True)
    mixed = flags in ("p", "q") or keywords.get("eps", 0) > 0
    told = f"p = {p!r}, q = {q!r}, {keywords}"
    assert_near(measure, call(measure, p, q, **keywords), right(measure, p, q, **keywords), mixed, told)


def assert_same_bits(result: Any, expected: Any) -> None:
    result, expected = np.asarray(result), np.asarray(expected)
    assert (result.dtype, result.shape) == (expected.dtype, expected.shape)
    assert result.tobytes() == expected.tobytes()


def normal(seed: int, shape: tuple[int, ...], dtype: Any = "f8", size: float = 3) -> Array:
    return encoded(np.random.default_rng(seed).standard_normal(shape) * size, np.dtype(dtype))


# ---- masks ----

MASKED = {
    "in p": ([0.5, MASK, 1.0, MASK], [0.0, 1.0, 2.0, 3.0]),
    "in both": ([0.5, MASK, 1.0, 2.0], [0.0, MASK, 2.0, 3.0]),
    "more in p": ([0.5, MASK, 1.0, MASK], [0.0, MASK, 2.0, 3.0]),
    "in q": ([0.5, 0.0, 1.0, 2.0], [0.0, MASK, 2.0, 3.0]),
    "in either, equal numbers": ([0.0, MASK, 0.0], [0.0, 0.0, MASK]),
    "in either": ([0.5, MASK, 1.0, 2.0], [0.0, 3.0, MASK, 3.0]),
    "all but one in p": ([MASK, MASK, 1.0, MASK], [0.0, 1.0, 2.0, 3.0]),
    "all but one in q": ([0.5, 0.0, 1.0, 2.0], [MASK, MASK, 2.0, MASK]),
    "all but the same one": ([MASK, MASK, 1.0, MASK], [MASK, MASK, -7.0, MASK]),
    "all but another": ([MASK, MASK, 1.0, MASK], [MASK, 5.0, MASK, MASK]),
    "q where its weight underflows": ([0.0, -1e4, 1.0, 2.0], [0.0, MASK, 2.0, 3.0]),
    "q where its weight underflows in any type": ([0.0, -1e30, 1.0, 2.0], [0.0, MASK, 2.0, 3.0]),
    "q where its weight underflows in float32": ([0.0, -150.0, 1.0, 2.0], [0.0, MASK, 2.0, 3.0]),
    "p at q's largest, 700 above": ([0.0, MASK], [-700.0, 0.0]),
    "p at q's largest, 800 above": ([0.0, MASK], [-800.0, 0.0]),
    "p at q's largest, 1100 above": ([0.0, MASK], [-1100.0, 0.0]),
    "p at q's largest, 10000 above": ([MASK, 0.0, -166.0], [1e4, -745.0, -1.0]),
    "q where p is small": ([-1000.0, 0.0, -50.0], [0.0, -20.0, MASK]),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", MASKED)
@pytest.mark.parametrize("measure", MEASURES)
def test_masks(measure: Measure, case: str, dtype: str) -> None:
    assert_right(measure, *(np.array(x, dtype) for x in MASKED[case]))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("at", [0, 1, 31, 128, 1023, 1024, 2047, 2500])
def test_a_mask_in_q_where_p_has_weight(at: int, dtype: str) -> None:
    """However little: -1e4 is one e^-10000th of the others. Jensen-Shannon stays finite."""
    for weight in 0.0, -80.0, -120.0, -800.0, -1e4:
        p, q = np.zeros((2, 2501), dtype)
        p[at], q[at] = weight, MASK
        assert fastkl.kl_divergence(p, q, from_logits=True) == np.inf
        assert fastkl.cross_entropy(p, q, from_logits=True) == np.inf
        assert np.isfinite(fastkl.kl_divergence(q, p, from_logits=True))
        assert 0 <= fastkl.js_divergence(p, q, from_logits=True) <= np.log(2)
        p[at] = MASK
        assert fastkl.kl_divergence(p, q, from_logits=True) == 0


@pytest.mark.parametrize("times", [1, 30, 900])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("measure", [fastkl.js_divergence, fastkl.js_distance])
def test_masks_leave_jensen_shannon_between_its_ends(measure: Measure, dtype: str, times: int) -> None:
    """However far the rows' logits are apart. Repeated, entries leave it as it is."""
    rows = [0.0, 1.0, 2.0], [0.0, 1.0, MASK], [0.0, MASK, 2.0], [MASK, 0.5, 0.25]
    for (a, b), constant in itertools.product(itertools.permutations(rows, 2), [0.0, 50.0, 1000.0]):
        p, q = np.array(a, dtype), np.array(b, dtype) + np.array(constant, dtype)
        expected = right(measure, p, q)
        assert_near(measure, call(measure, np.tile(p, times), np.tile(q, times)), expected, told=f"{p} {q}")
        probabilities = np.tile([float(x.value / times) for x in softmax.distribution(p)], times)
        result = call(measure, probabilities, np.tile(q, times), from_logits="q")
        assert_near(measure, result, expected, mixed=True, told=f"softmax of {p}, {q}")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("far", [0, -700, -1000])
def test_jensen_shannon_of_chunks_that_one_row_masks(far: float, dtype: str) -> None:
    p, q = np.array([0.5, 1.5, MASK], dtype) + far, np.array([MASK, -1.0, 0.0], dtype) + far
    expected = right(fastkl.js_divergence, p, q)
    for places in [0, 1500, 1501], [1500, 1501, 0], [2500, 0, 1], [2500, 2501, 1500]:
        wide_p, wide_q = np.full((2, 3001), MASK, dtype)
        wide_p[places], wide_q[places] = p, q
        assert_near(fastkl.js_divergence, fastkl.js_divergence(wide_p, wide_q, from_logits=True), expected)
        assert_near(fastkl.js_divergence, fastkl.js_divergence(wide_q, wide_p, from_logits=True), expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("measure", MEASURES)
def test_chunks_of_masks(measure: Measure, dtype: str) -> None:
    """Three or more chunks, of which one has an entry that is not masked: alone, it is as if it were the row."""
    p, q = np.array([0.5, 1.5, -2.0], dtype), np.array([1.0, -1.0, 0.0], dtype)
    expected = right(measure, p, q)
    for places in [0, 1, 2], [1500, 1501, 1502], [2998, 2999, 3000], [0, 1500, 3000]:
        for far in 0, -700, -1000:  # whose exponentials are less than an underflowing weight counts as beside 1
            wide_p, wide_q = np.full((2, 3001), MASK, dtype)
            wide_p[places], wide_q[places] = p + far, q + far
            assert_near(measure, call(measure, wide_p, wide_q), expected)
            assert_near(measure, call(measure, np.where(wide_p > MASK, p[0], MASK), wide_q), right(measure, p * 0, q))


# ---- any size ----

SIZES = [
    ([1.0, 0.0], [0.0, 1.0]),
    ([1e20, 0.0], [0.0, 100.0]),
    ([0.0, -1e20], [0.0, 100.0]),
    ([1e30, 0.0, -1e30], [0.0, 1e30, 1e30]),
    ([1e30, 1e30, -1e30], [1e30, -1e30, 1e30]),
    ([1e30, -2.0, 1.0], [43.0, -2.0, 1.0]),
    ([90.0, 0.0, 377.0, -1.0, 3e38], [-1100.0, -700.0, 90.0, -700.0, -700.0]),
    ([0.0, -10000.0], [0.0, -9999.0]),
    ([0.0, -80.0], [0.0, -81.0]),
    ([0.0, -90.0], [0.0, -91.0]),
    ([0.0, -700.0], [0.0, -701.0]),
    ([0.0, -20.0], [1.7e38, -3.4e38]),
    ([0.0, -1e4], [77.0, -6.5]),
    ([-105.0, -745.0], [0.0, -745.0]),
    ([1e30, 1.0, 2.0], [1e30, 2.0, 1.0]),
    ([1e-30, 0.0, -1e-40], [0.0, 1e-38, 1.0]),
    ([-80.0, -700.0, -1e4, -1e30], [-80.0, -700.0, -1e4, -1e30]),
    ([0.0, 88.0, -88.0, 104.0], [104.0, 88.0, 0.0, -104.0]),
    ([0.0, 709.0, -709.0, 745.0], [745.0, 709.0, 0.0, -745.0]),
]
SIZES_OF_DOUBLES = [
    ([1e300, 0.0, -1e300], [0.0, 1e300, 1e300]),
    ([1e300, 1e300, -1e300], [1e300, -1e300, 1e300]),
    ([4e307, -4e307, 0.0], [4e307, -4e307, 1e300]),
    ([4e307, -4e307], [-4e307, 4e307]),
    ([0.0, -20.0], [4e307, -4e307]),
    ([8e307, -0.5, -1100.0], [-1e30, 1.0, -1.0]),
    ([0.0, 5e291], [0.0, 5.0]),
    ([0.0, 5e291, 5e291], [0.0, 5.0, 5.0001]),
    ([0.0, 0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0, 4.4e307]),
]


@pytest.mark.parametrize("temperature", [1.0, 0.5, 3.0])
@pytest.mark.parametrize(
    ("dtype", "p", "q"), [(dtype, *pair) for dtype in DTYPES for pair in SIZES + SIZES_OF_DOUBLES * (dtype == "f8")]
)
@pytest.mark.parametrize("measure", MEASURES)
def test_finite_logits_of_any_size(measure: Measure, p: Any, q: Any, dtype: str, temperature: float) -> None:
    assert_right(measure, np.array(p, dtype), np.array(q, dtype), temperature=temperature)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("measure", MEASURES)
def test_one_logit_so_large_that_a_difference_rounds_the_other(measure: Measure, dtype: str) -> None:
    for near in 31.75, 300.0, 690.0, -690.0, 1000.0:
        for far in 2.0 ** np.arange(15, 127, 7):
            both = [near, near - 1]
            for a, b in ([near], [far]), ([near], [-far]), ([*both, 3.0], [far, far, -far]), (both, [-far, -far]):
                p, q = np.array(a, dtype), np.array(b, dtype)
                assert_right(measure, p, q)
                assert_right(measure, q, p)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_chunks_of_q_without_weight_where_p_has_some(dtype: str) -> None:
    near, far, n = -1000.0, -4000.0, 1024
    p, q = np.zeros(2 * n, dtype), np.repeat([near, far], n).astype(dtype)
    for row in q, q[::-1]:
        value = fastkl.cross_entropy(p, row, from_logits=True)
        assert abs(value - (np.log(n) + (near - far) / 2)) <= (32 * value + 4) * np.finfo(dtype).eps


@pytest.mark.parametrize(("seed", "apart"), [(98, 40.0), (186, -40.0), (206, -40.0)])
def test_a_mean_difference_that_is_larger_than_the_divergence(seed: int, apart: float) -> None:
    """All weights of p are the same, and so are the signs of what is added up: roundings do not cancel."""
    q = (np.random.default_rng(seed).integers(0, 256, 513) - 128) / 32
    assert_right(fastkl.kl_divergence, np.full(513, apart), q)


@pytest.mark.parametrize("measure", [fastkl.kl_divergence, fastkl.js_divergence, fastkl.js_distance])
def test_inexact_differences_by_a_temperature_out_of_range(measure: Measure) -> None:
    """All of the divergence is in what rounding takes from q - p, and took from q."""
    draw = np.random.default_rng(5)
    for n, power in itertools.product([2, 33], [-950, 950]):
        p = draw.standard_normal(n)
        assert_right(measure, np.ldexp(p, power), np.ldexp(p + 1e8, power), temperature=2.0**power)


def test_logits_far_from_the_logarithms_of_probabilities() -> None:
    for weight in 1e-291, 1e100, 1e290, 1e291, 1e300:
        for far in 1e3, 1e15, 1e19, 1e30, 1e300:
            p, q = np.array([weight, weight]), np.array([far, far])
            assert fastkl.kl_divergence(p, q, from_logits="q", normalize=True) == 0
            assert fastkl.kl_divergence(q, p, from_logits="p", normalize=True) == 0


@pytest.mark.parametrize("measure", PAIR_MEASURES)
def test_small_probabilities_beside_logits_that_are_large(measure: Measure) -> None:
    """The exponentials of their logarithms, rounded, would be wrong by hundreds of units in the last place."""
    for n, small in itertools.product([3, 1030], [1e-20, 1.1e-35, 7e-100, 3e-250, 1e-300]):
        p = np.full(n, small)
        p[n // 2] = 1
        q = normal(n, (n,)) / small
        q[n // 2] = 0
        assert_right(measure, p, -np.abs(q), from_logits="q")


@pytest.mark.parametrize("weight", [5e-324, 1e-100, 1e9, 1e168, 1.7e308])
@pytest.mark.parametrize("measure", PAIR_MEASURES)
def test_probabilities_of_any_sum_beside_logits(measure: Measure, weight: float) -> None:
    """Their logarithms are of hundreds, and rounded as such would be wrong by 1e-13."""
    random = np.random.default_rng(7)
    for n in 2, 31:
        counts = np.append(random.random(n - 1), 1)
        small = np.where(random.random(n) < 0.5, counts * 1e-290, counts)
        for whole in np.floor(counts * 8) / 8, counts, small:
            probabilities = whole * weight
            for logits in normal(n, (n,)), np.where(np.arange(n) == n - 1, 1e6, MASK), np.log(whole + 1e-9) + 5:
                operands = (logits, probabilities), (probabilities, logits)
                for (p, q), flags in zip(operands, ["p", "q"], strict=True):
                    result = call(measure, p, q, flags, normalize=True)
                    told = f"{p=} {q=}"
                    assert_near(measure, result, right(measure, p, q, from_logits=flags), mixed=True, told=told)


@pytest.mark.parametrize("dtype", [*SMALL, np.dtype("f4"), np.dtype("f8")], ids=str)
@pytest.mark.parametrize("measure", MEASURES)
def test_the_largest_logits_of_a_dtype(measure: Measure, dtype: np.dtype[Any]) -> None:
    most = 65504.0 if dtype.char == "e" else 2.0**127 * 1.9921875 if dtype in BFLOATS else float(np.finfo(dtype).max)
    for a, b in ([most, 0.0], [0.0, 1.0]), ([most, most], [-most, -most]), ([-most, 1.0], [-most, 2.0]):
        p, q = (encoded(np.array(x), dtype) for x in (a, b))
        expected = right(measure, decoded(p), decoded(q))
        assert_near(measure, call(measure, p, q), expected, told=f"{dtype} {a} {b}")


@pytest.mark.parametrize("measure", [fastkl.cross_entropy, fastkl.kl_divergence])
def test_a_finite_logit_is_no_mask_where_a_difference_overflows(measure: Measure) -> None:
    most = np.finfo("f8").max
    for largest in most, 1e300, 2.0**969:
        p, q = np.array([largest, -most, 0.0]), np.array([largest, -np.inf, 0.0])
        assert measure(p, q, from_logits=True) == np.inf
        assert measure(p, p, from_logits=True) == 0
        assert fastkl.compare(q, p, from_logits=True).reverse_kl == np.inf
        assert fastkl.nll([1], p[np.newaxis], from_logits=True) > 1e300


@pytest.mark.parametrize("temperature", [5e-324, 1e-300, 1e-40, 1e-3, 1e3, 1e40, 1e300, 1.7e308])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("measure", MEASURES)
def test_temperatures_of_any_size(measure: Measure, dtype: str, temperature: float) -> None:
    rows = [0.0, 1.0, -2.0], [3.0, 3.0, MASK], [1e30, -1e30, 7.0], [0.25, 0.5, 0.5]
    for a, b in itertools.product(rows, repeat=2):
        assert_right(measure, np.array(a, dtype), np.array(b, dtype), temperature=temperature)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("measure", MEASURES)
def test_differences_that_are_finite_only_by_a_temperature(measure: Measure, dtype: str) -> None:
    most = float(np.finfo(dtype).max)
    rows = [-most, most, 7.0], [most, -most, -most], [most, most, -0.5 * most], [0.5, 0.25, 0.25]
    for temperature in most, most / 8, most / 700, most / 1e8:
        for a, b in itertools.product(rows, repeat=2):
            p, q = np.array(a, dtype), np.array(b, dtype)
            assert_right(measure, p, q, temperature=temperature)
            if measure is not entropy and b is rows[-1]:
                assert_right(measure, p, q, from_logits="p", temperature=temperature)
                assert_right(measure, q, p, from_logits="q", temperature=temperature)


@pytest.mark.parametrize("measure", MEASURES)
def test_a_finite_logit_is_no_mask_where_a_temperature_overflows(measure: Measure) -> None:
    """Where such logits have no weight, they add nothing, although their differences overflow."""
    most = np.finfo("f8").max
    p = np.array([0.0, 10.0, -50.0, -most])
    for near in -3.4e38, -10.25, -6.0, -4.5:
        q = np.array([4.25, 14.25, -45.75, near])
        assert_right(measure, p, q, temperature=0.01)
        assert_right(measure, q, p, temperature=0.01)
    if measure is not entropy:
        probabilities = np.array([0.5, 0.25, 0.25, 0.0])
        assert_right(measure, p, probabilities, from_logits="p", temperature=0.01)
        assert_right(measure, probabilities, p, from_logits="q", temperature=0.01)


@pytest.mark.parametrize("temperature", [5e-324, 1e-300, 1e300, 1e306, 1.7e308])
@pytest.mark.parametrize("dtype", DTYPES)
def test_temperatures_of_any_size_in_wide_rows(dtype: str, temperature: float) -> None:
    for n in WIDTHS:
        p = np.full(n, 7, dtype)
        assert_near(
            entropy, call(entropy, p, p, temperature=temperature), softmax.entropy(softmax.uniform(n)), told=f"{n=}"
        )
        for measure in PAIR_MEASURES[1:]:
            assert call(measure, p, p, temperature=temperature) == 0
            assert call(measure, p, p.copy(), temperature=temperature) == 0


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("measure", [entropy, fastkl.cross_entropy])
def test_many_entries_whose_sums_in_lanes_are_not_accepted(measure: Measure, dtype: str) -> None:
    """The bound does not depend on the row's width."""
    row = [0.0, -1085.0, -1786.0]
    for times in 100, 700, 5000:
        p = np.tile(np.array(row, dtype), times)
        assert_near(measure, call(measure, p, p), softmax.entropy(softmax.uniform(times)), told=f"{times=}")


# ---- nearly nothing ----


@pytest.mark.parametrize("dtype", [*SMALL, np.dtype("f4"), np.dtype("f8")], ids=str)
@pytest.mark.parametrize("measure", PAIR_MEASURES[1:])
def test_equal_rows_are_exactly_nothing_apart(measure: Measure, dtype: np.dtype[Any]) -> None:
    for n in WIDTHS:
        for size, temperature in (0.1, 1.0), (3, 1.0), (50, 3.0), (500, 0.1):
            p = normal(n, (3, n), dtype, size)
            np.testing.assert_array_equal(call(measure, p, p.copy(), temperature=temperature), 0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("measure", PAIR_MEASURES[1:])
def test_rows_that_a_constant_sets_apart(measure: Measure, dtype: str) -> None:
    """Whole numbers, so that adding it is exact. Four eps is for divergences: the distance is a root."""
    for n, constant, temperature in itertools.product(WIDTHS, [1, -7, 100, 1000, -4096], [1.0, 3.0, 0.1]):
        p = np.round(normal(n, (2, n), dtype))
        apart = call(measure, p, p + p.dtype.type(constant), temperature=temperature)
        eps = np.finfo(dtype).eps
        apart = apart**2 if measure is fastkl.js_distance else apart
        assert np.all((apart >= 0) & (apart <= 4 * eps)), f"{n=} {constant=} {temperature=}: {apart}"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("measure", PAIR_MEASURES[1:])
def test_small_divergences(measure: Measure, dtype: str) -> None:
    p = normal(5, (24, 9), dtype)
    for i, exponent in enumerate(np.linspace(-14 if dtype == "f8" else -6, 0, 24)):
        q = (p[i] + 10**exponent * normal(i, (9,))).astype(dtype)
        for temperature in 1.0, 0.7:
            assert_right(measure, p[i], q, temperature=temperature)
            assert_right(measure, p[i], q + 100, temperature=temperature)


# ---- any rows ----


@st.composite
def hostile(draw: st.DrawFn, most: int = 6) -> tuple[Array, Array, float]:
    """Two rows of any logits, near each other or not, and a temperature."""
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    width = 8 * dtype.itemsize
    about = float(np.finfo(dtype).max) / 4
    logit = st.one_of(
        st.floats(-30, 30, width=32),
        st.floats(-2000, 2000, width=32),
        st.floats(-about, about, width=width),
        st.sampled_from([MASK, 0.0, -0.0, 1.0, 1e4, -1e4, 1e30, -1e30]),
    )
    n = draw(st.integers(1, most))
    p = np.array(draw(st.lists(logit, min_size=n, max_size=n)), dtype)
    q = np.array(draw(st.lists(logit, min_size=n, max_size=n)), dtype)
    near = draw(st.sampled_from([None, None, 1, 1e-3, 1e-6]))
    if near is not None:
        q = np.where(np.isfinite(p), p + (np.arange(n) * near).astype(dtype), q).astype(dtype)
    for row in p, q:
        if not np.isfinite(row).any():
            row[draw(st.integers(0, n - 1))] = draw(st.floats(-100, 100, width=32))
    return p, q, draw(st.sampled_from([1.0, 1.0, 0.3, 7.0, 1e-30, 1e30]))


@given(hostile())
def test_any_rows_by_definition(rows: tuple[Array, Array, float]) -> None:
    p, q, temperature = rows
    for measure in MEASURES:
        assert_right(measure, p, q, temperature=temperature)


@given(hostile(), st.integers(1, 1500), st.integers(0, 2**32 - 1))
def test_any_wide_rows_are_no_nan_and_not_negative(rows: tuple[Array, Array, float], times: int, seed: int) -> None:
    """Repeated entries leave divergences as they are, and add a logarithm to entropies, in any order."""
    p, q, temperature = rows
    order = np.random.default_rng(seed).permutation(times * len(p))
    wide_p, wide_q = (np.tile(x, times)[order] for x in (p, q))
    masked = bool(np.any((p > MASK) & (q == MASK)))
    values = {measure.__name__: float(call(measure, wide_p, wide_q, temperature=temperature)) for measure in MEASURES}
    assert not any(np.isnan(x) or x < 0 for x in values.values()), values
    assert values["js_divergence"] <= np.log(p.dtype.type(2)), values
    assert np.isfinite(values["entropy"]), values
    assert not masked or values["kl_divergence"] == values["cross_entropy"] == np.inf, values
    for measure in PAIR_MEASURES[1:]:
        expected = right(measure, p, q, temperature=temperature)
        assert_near(measure, call(measure, wide_p, wide_q, temperature=temperature), expected, told=f"{times} of {p}, {q}")
        assert call(measure, wide_p, wide_p.copy(), temperature=temperature) == 0


# ---- logits beside probabilities ----


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("measure", PAIR_MEASURES)
def test_one_operand_of_probabilities(measure: Measure, dtype: str) -> None:
    rows = normal(1, (6, 5), dtype)
    rows[4, 2] = MASK
    with np.errstate(under="ignore"):
        weights = np.exp(normal(2, (6, 5)))
    weights[5, 1] = 0
    probabilities = (weights / weights.sum(axis=-1, keepdims=True)).astype(dtype)
    for i, temperature in itertools.product(range(6), [1.0, 0.5, 3.0]):
        assert_right(measure, probabilities[i], rows[i], from_logits="q", temperature=temperature)
        assert_right(measure, rows[i], probabilities[i], from_logits="p", temperature=temperature)


@pytest.mark.parametrize("measure", PAIR_MEASURES)
def test_only_probabilities_have_to_sum_to_1(measure: Measure) -> None:
    """With normalize, they need not."""
    rows, counts = normal(3, (4, 6)) + 50, np.arange(24).reshape(4, 6) + 1
    for p, q, flags in (rows, counts, "p"), (counts, rows, "q"):
        with pytest.raises(
            ValueError, match=rf"^{'q' if flags == 'p' else 'p'}\[0\] sums to 21: rows must sum to 1 within"
        ):
            measure(p, q, from_logits=flags)
        value = measure(p, q, from_logits=flags, normalize=True)
        for i in range(4):
            assert_near(measure, value[i], right(measure, p[i], q[i], from_logits=flags), mixed=True)
    assert_same_bits(measure(rows, rows + 1, from_logits=True), measure(rows, rows + 1, from_logits=True, normalize=True))


@pytest.mark.parametrize("n", [3, 1000, 2500])
@pytest.mark.parametrize("dtype", DTYPES)
def test_an_entry_that_q_lacks_is_infinite_beside_probabilities(dtype: str, n: int) -> None:
    """The entry may be in any chunk."""
    uniform = np.full(n, 1 / n, dtype)
    for at in 0, n // 2, n - 1:
        masked, zero = np.zeros((2, n), dtype)
        masked[at], zero[:] = MASK, np.where(np.arange(n) == at, 0, 1 / (n - 1))
        for p, q, flags in (uniform, masked, "q"), (np.zeros(n, dtype), zero, "p"):
            assert fastkl.kl_divergence(p, q, from_logits=flags) == np.inf
            assert fastkl.cross_entropy(p, q, from_logits=flags) == np.inf
            assert 0 < fastkl.js_divergence(p, q, from_logits=flags) < 0.2
            assert 0 < fastkl.kl_divergence(q, p, from_logits="q" if flags == "p" else "p") < np.inf


@pytest.mark.parametrize("measure", PAIR_MEASURES)
def test_from_logits_is_false_by_default(measure: Measure) -> None:
    for n in 3, 1000, 2500:
        p, q = (x / x.sum(axis=-1, keepdims=True) for x in np.random.default_rng(n).random((2, 4, n)))
        p[:, 0] = 0
        p /= p.sum(axis=-1, keepdims=True)
        for pair in (p, q), (q, p):
            assert_same_bits(measure(*pair, from_logits=False), measure(*pair))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("measure", MEASURES)
def test_log_probabilities_are_logits(measure: Measure, dtype: str) -> None:
    """A rounded logarithm moves its probability by half an eps of it at most: divergences of such rows as are far apart."""
    p, q = (x / x.sum(axis=-1, keepdims=True) for x in np.random.default_rng(4).random((2, 5, 40)) + 0.01)
    logs = [np.log(x).astype(dtype) for x in (p, q)]
    for i in range(5):
        assert_right(measure, logs[0][i], logs[1][i])
    eps = float(np.finfo(dtype).eps)
    np.testing.assert_allclose(call(measure, *logs), measure(p, q), rtol=0, atol=64 * eps)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("measure", [fastkl.cross_entropy, fastkl.kl_divergence])
def test_eps_clips_the_softmax_of_q(measure: Measure, dtype: str) -> None:
    p, q = normal(6, (5, 7), dtype), normal(7, (5, 7), dtype, 10)
    q[1, 3] = q[2, :6] = MASK
    q[3, 0], q[4] = 1e30, -1e30
    for i, eps, temperature in itertools.product(range(5), [1e-300, 1e-9, 0.01, 0.5], [1.0, 4.0]):
        assert_right(measure, p[i], q[i], eps=eps, temperature=temperature)
        assert np.isfinite(call(measure, p[i], q[i], eps=eps, temperature=temperature))
    probabilities = np.full(7, 1 / 7)
    for i in range(5):
        assert_right(measure, probabilities, q[i], eps=0.01, from_logits="q")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("constant", [-1000.0, 777.0, 1000.0])
def test_eps_is_as_exact_for_logits_far_from_zero(constant: float, dtype: str) -> None:
    p, q = np.array([0.03, 0.0, -0.03], dtype), np.array([0.0, -900.0, -901.0], dtype) + np.array(constant, dtype)
    for eps in 0.3, 0.5, 0.9:
        assert_right(fastkl.kl_divergence, p, q, eps=eps)


# ---- invalid rows ----


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bad", [np.nan, -np.nan, np.inf])
@pytest.mark.parametrize("measure", MEASURES)
def test_an_invalid_logit_in_any_place(measure: Measure, bad: float, dtype: str) -> None:
    """Also among masks, and in rows that are read a step at a time."""
    for n in 1, 2, 33, 1025, 3001:
        for at, filler in itertools.product({0, n // 2, n - 1, max(n - 2, 0)}, [0.0, MASK, 1e30]):
            good = np.arange(n).astype(dtype) % 7
            row = np.full(n, filler, dtype)
            row[at] = bad
            spread = np.full((n, 2), 1, dtype)
            spread[:, 0] = row
            for p, q in (row, good), (good, row), (row, row), (spread[:, 0], good), (good, spread[::-1, 0]):
                if measure is entropy and p is good:
                    continue
                assert np.isnan(call(measure, p, q, invalid="nan")), f"{n=} {at=} {filler=}"
                with pytest.raises(ValueError, match=r"logits must be finite or -inf$"):
                    call(measure, p, q)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [1, 2, 33, 1025, 3001])
@pytest.mark.parametrize("measure", MEASURES)
def test_a_row_of_masks_alone(measure: Measure, n: int, dtype: str) -> None:
    masks, good = np.full(n, MASK, dtype), np.zeros(n, dtype)
    for p, q in (masks, good), (good, masks), (masks, masks):
        if measure is entropy and p is good:
            continue
        assert np.isnan(call(measure, p, q, invalid="nan"))
        with pytest.raises(ValueError, match=r"^[pq] has no finite entry: a row of logits must have one$"):
            call(measure, p, q)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n", [3, 40, 1100])
@pytest.mark.parametrize("measure", MEASURES)
def test_invalid_rows_leave_the_others_alone(measure: Measure, n: int, dtype: str) -> None:
    p, q = normal(8, (2, 30, n), dtype)
    q[7, 1], p[9, 2] = MASK, 1e30
    expected = call(measure, p, q)
    spoilt_p, spoilt_q = p.copy(), q.copy()
    spoilt_p[3, 1], spoilt_p[12], spoilt_p[29, n - 1] = np.nan, MASK, np.inf
    spoilt_q[3], spoilt_q[20, 0] = MASK, np.inf
    bad = [3, 12, 29] if measure is entropy else [3, 12, 20, 29]
    good = np.setdiff1d(np.arange(30), bad)
    value = call(measure, spoilt_p, spoilt_q, invalid="nan")
    np.testing.assert_array_equal(np.flatnonzero(np.isnan(value)), bad)
    assert_same_bits(value[good], expected[good])
    assert_same_bits(call(measure, spoilt_p, spoilt_q, invalid="ignore")[good], expected[good])
    assert_same_bits(call(measure, p, q, invalid="ignore"), expected)


# ---- keywords ----


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("measure", MEASURES)
def test_base_keepdims_and_axis(measure: Measure, dtype: str) -> None:
    p, q = normal(9, (2, 3, 40, 5), dtype)
    expected = call(measure, *(np.moveaxis(x, 1, -1).copy() for x in (p, q)))
    assert_same_bits(call(measure, p, q, axis=1), expected)
    assert_same_bits(call(measure, p, q, axis=-2, keepdims=True), expected[:, np.newaxis])
    bits = expected / (np.sqrt(np.log(2)) if measure is fastkl.js_distance else np.log(2))
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(call(measure, p, q, axis=1, base=2), bits, rtol=4 * eps, atol=0)
    scalar = call(measure, p[0, :, 0], q[0, :, 0])
    assert isinstance(scalar, np.floating)
    assert_same_bits(scalar, expected[0, 0])


@pytest.mark.parametrize("out", ["d", "f", "e", "g", ">f8", ">f4"])
@pytest.mark.parametrize("measure", MEASURES)
def test_out(measure: Measure, out: str) -> None:
    p, q = normal(10, (2, 50, 30))
    values = call(measure, p, q)
    filled = np.full((50, 3), 7.0).astype(out)
    view = filled[::-1, 1]
    assert call(measure, p, q, out=view) is view
    np.testing.assert_array_equal(view, values.astype(out))
    assert np.all(filled[:, ::2] == 7)
    single = p.astype("f4"), q.astype("f4")
    wide = call(measure, *single, out=np.empty(50))
    assert_same_bits(wide.astype("f4"), call(measure, *single))


@pytest.mark.parametrize("measure", MEASURES)
def test_out_may_overlap(measure: Measure) -> None:
    source = normal(11, (30, 30))
    for i in 0, 17, 29:
        p, q = source.copy(), source[::-1].copy()
        expected = call(measure, p, q)
        call(measure, p, q, out=p[i])
        assert_same_bits(p[i], expected)
        p, q = source.copy(), source[::-1].copy()
        column = (q if measure is not entropy else p)[:, i]
        call(measure, p, q, out=column)
        assert_same_bits(column.copy(), expected)


@pytest.mark.parametrize("measure", PAIR_MEASURES)
def test_broadcasting(measure: Measure) -> None:
    p, q = normal(12, (4, 5, 70)), normal(13, (70,))
    expected = np.array([[call(measure, row, q) for row in rows] for rows in p])
    for other in q, q[np.newaxis], np.broadcast_to(q, p.shape), np.broadcast_to(q, (5, 70)):
        assert_same_bits(call(measure, p, other), expected)
    swapped = np.array([[call(measure, q, row) for row in rows] for rows in p])
    assert_same_bits(call(measure, q, p), swapped)
    assert call(measure, p[:, :1], p[0]).shape == (4, 5)
    constant = np.broadcast_to(np.float64(3), (5, 70))
    assert_same_bits(call(measure, p, constant), call(measure, p, constant.copy()))
    assert call(measure, np.empty((0, 7)), q[:7]).shape == (0,)


# ---- where a row stands ----

FLAGS: list[Any] = [True, "p", "q"]


def operands(seed: int, shape: tuple[int, ...], dtype: Any, flags: Any) -> list[Array]:
    """Logits, with masks in p and in some rows' q, or probabilities."""
    rows = [normal(seed, shape, dtype), normal(seed + 1, shape, dtype)]
    rows[0][..., ::5] = MASK
    rows[1][::3, ..., -1] = MASK
    for i, logits in enumerate(softmax.OF_LOGITS[flags]):
        if not logits:
            weights = np.exp(rows[i].astype(float))
            rows[i] = (weights / weights.sum(axis=-1, keepdims=True)).astype(dtype)
    return rows


def strided(a: Array, *steps: int) -> Array:
    """The same entries in memory that holds others between them; a negative step stands backwards."""
    index = tuple(slice(None, None, step) for step in steps)
    around = np.empty([length * abs(step) for length, step in zip(a.shape, steps, strict=True)], a.dtype)
    around.view(np.uint8)[...] = 0xFF  # of all floats, a NaN
    around[index] = a
    return around[index]


LAYOUTS: dict[str, Callable[[Array], Array]] = {
    "Fortran order": np.asfortranarray,
    "reversed columns": lambda a: strided(a, 1, -1),
    "reversed rows": lambda a: strided(a, -1, 1),
    "every third column": lambda a: strided(a, 1, 3),
    "every second row, backwards both ways": lambda a: strided(a, -2, -1),
    "misaligned": lambda a: np.frombuffer(b"\xff" + a.tobytes(), a.dtype, offset=1).reshape(a.shape),
    "foreign byte order": lambda a: a.astype(a.dtype.newbyteorder("S")),
}


@pytest.mark.parametrize("flags", FLAGS, ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_strides_do_not_change_a_value(layout: str, dtype: str, flags: Any) -> None:
    """To the bit: widths of less than a group, of chunks, and of chunks and a rest."""
    for n, temperature in (5, 1.0), (100, 1.0), (1024, 3.0), (2500, 1.0):
        pair = operands(n, (7, n), dtype, flags)
        for measure in PAIR_MEASURES if flags == "q" else MEASURES:
            expected = call(measure, *pair, from_logits=flags, temperature=temperature)
            laid = [LAYOUTS[layout](x) for x in pair]
            for p, q in laid, (laid[0], pair[1]), (pair[0], laid[1]):
                assert_same_bits(call(measure, p, q, from_logits=flags, temperature=temperature), expected)


@pytest.mark.parametrize("flags", FLAGS, ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("measure", MEASURES)
def test_place_and_neighbours_do_not_change_a_value(measure: Measure, dtype: str, flags: Any) -> None:
    p, q = operands(20, (40, 37), dtype, flags)
    expected = call(measure, p, q, from_logits=flags)
    alone = np.array([call(measure, *pair, from_logits=flags) for pair in zip(p, q, strict=True)])
    assert_same_bits(expected, alone)
    order = np.random.default_rng(0).permutation(40)
    assert_same_bits(call(measure, p[order], q[order], from_logits=flags), expected[order])
    assert_same_bits(call(measure, p.T, q.T, axis=0, from_logits=flags), expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("measure", MEASURES)
def test_alignment_does_not_change_a_value(measure: Measure, dtype: str) -> None:
    for n in 37, 1300:
        pair = operands(n, (2, n), dtype, True)
        expected = call(measure, *pair)
        for offset in range(64):
            moved = []
            for x, start in zip(pair, (offset, (7 * offset) % 64), strict=True):
                memory = np.empty(x.nbytes + 128, np.uint8)
                start += -memory.ctypes.data % 64
                moved.append(np.ndarray(x.shape, x.dtype, memory, start))
                moved[-1][...] = x
            assert_same_bits(call(measure, *moved), expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("measure", MEASURES)
def test_threads_do_not_change_a_value(measure: Measure, dtype: str) -> None:
    for shape in (1001, 37), (13, 2500), (2, 70_000):
        pair = operands(shape[1], shape, dtype, True)
        expected = call(measure, *pair, threads=1)
        for threads in 2, 3, 7:
            assert_same_bits(call(measure, *pair, threads=threads), expected)


# ---- dtypes ----


@pytest.mark.parametrize("dtype", [np.dtype(char) for char in "bBhHiIqQ?"], ids=str)
@pytest.mark.parametrize("measure", MEASURES)
def test_integers_and_bools_are_logits_like_floats(measure: Measure, dtype: np.dtype[Any]) -> None:
    p, q = (np.random.default_rng(seed).integers(0, 2 if dtype.char == "?" else 9, (4, 33)) for seed in (30, 31))
    expected = call(measure, p.astype("f8"), q.astype("f8"))
    assert_same_bits(call(measure, p.astype(dtype), q.astype(dtype)), expected)
    swapped = dtype.newbyteorder("S")
    assert_same_bits(call(measure, p.astype(swapped), q.astype(swapped)), expected)
    assert call(measure, p.astype(dtype), q.astype("f4")).dtype == np.dtype("f8")


@pytest.mark.parametrize("dtype", SMALL, ids=str)
@pytest.mark.parametrize("measure", MEASURES)
def test_small_floats(measure: Measure, dtype: np.dtype[Any]) -> None:
    """Their numbers are float32's, and so is the result."""
    for n in 5, 128, 2500:
        p, q = normal(n, (3, n), dtype), normal(n + 1, (3, n), dtype)
        p[1, :3] = encoded(np.full(3, MASK), dtype)
        expected = call(measure, decoded(p).astype("f4"), decoded(q).astype("f4"))
        for temperature, value in (1.0, expected), (2.0, None):
            if value is None:
                value = call(measure, decoded(p).astype("f4"), decoded(q).astype("f4"), temperature=temperature)
            assert_same_bits(call(measure, p, q, temperature=temperature), value)
        assert_same_bits(call(measure, strided(p, -2, 1), q), expected)
        for i in range(3) if n < 10 else []:
            assert_near(measure, call(measure, p[i], q[i]), right(measure, decoded(p[i]), decoded(q[i])))


def test_mixed_dtypes() -> None:
    p, q = normal(40, (3, 9), "f4"), normal(41, (3, 9))
    for measure in PAIR_MEASURES:
        value = call(measure, p, q)
        assert value.dtype == float
        for i in range(3):
            assert_near(measure, value[i], right(measure, p[i], q[i]))
