"""Properties of the measures for any distributions, tested with hypothesis on every tier.

The tests use the documented bounds alone: with eps that of the result's dtype, a D is at most 4 eps D from its exact value,
an H or H(p, q) 4 eps H + 2 eps, and a JS 6 eps JS. Where an exact value is the sum of others, the computed values therefore
differ from that by at most the sum of all their bounds. `close` allows one eps more because the test's own additions and
products have errors of half an eps each, and because it takes the bounds of computed instead of exact values. Weights are
whole numbers where a test adds or multiplies them, so that the test is exact.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import fastkl

Array = np.ndarray[Any, Any]
Pair = tuple[Array, Array]

pytestmark = pytest.mark.usefixtures("tier")

DTYPES = st.sampled_from(["f8", "f4"])


def kl(p: Array, q: Array, **keywords: Any) -> Any:
    return fastkl.kl_divergence(p, q, normalize=True, **keywords)


def cross(p: Array, q: Array, **keywords: Any) -> Any:
    return fastkl.cross_entropy(p, q, normalize=True, **keywords)


def entropy(p: Array, **keywords: Any) -> Any:
    return fastkl.entropy(p, normalize=True, **keywords)


def js(p: Array, q: Array, **keywords: Any) -> Any:
    return fastkl.js_divergence(p, q, normalize=True, **keywords)


def close(result: Any, *parts: Any, offset: float, bound: float = 4) -> bool:
    """Whether the result is the sum of the parts, each of which has an error of at most `bound` eps |x| + `offset` eps.

    The error is at most half of the smallest number where that is more; a test multiplies it by at most 7.
    """
    values = [float(x) for x in (result, *parts)]
    total = sum(values[1:])
    eps, least = (
        max(float(getattr(np.finfo(np.asarray(x).dtype), name)) for x in (result, *parts))
        for name in ("eps", "smallest_subnormal")
    )
    slack = sum(eps * ((bound + 1) * abs(x) + offset) + 4 * least for x in values)
    return values[0] == total if math.isinf(slack) else abs(values[0] - total) <= slack


def close_divergence(result: Any, *parts: Any) -> bool:
    return close(result, *parts, offset=0)


def close_jensen_shannon(result: Any, *parts: Any) -> bool:
    return close(result, *parts, offset=0, bound=6)


def close_entropy(result: Any, *parts: Any) -> bool:
    return close(result, *parts, offset=2)


@st.composite
def pairs(draw: st.DrawFn) -> Pair:
    """Two rows of weights with zeros and with sums that differ more or less, either unrelated or nearly the same.

    Hypothesis chooses up to 8 entries itself; wider rows, which fill whole chunks, are random.
    """
    dtype = np.dtype(draw(DTYPES))
    n = draw(st.integers(1, 8) | st.integers(9, 1500))
    apart = draw(st.sampled_from([1, 10, 50]))
    nearness = draw(st.sampled_from([None, *range(-40, 0)]))
    if n <= 8:
        weights = st.just(0.0) | st.floats(2.0**-apart, 2.0**apart, width=8 * dtype.itemsize)
        p, q = draw(hnp.arrays(dtype, (2, n), elements=weights))
    else:
        rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
        p, q = (rng.random((2, n)) * 2 ** rng.uniform(-apart, apart, (2, n))).astype(dtype)
        p[rng.random(n) < draw(st.sampled_from([0, 0.1, 0.9]))] = 0
        q[rng.random(n) < draw(st.sampled_from([0, 0.1]))] = 0
    if nearness is not None:
        q = (p + p * 2.0**nearness * np.cos(np.arange(n))).astype(dtype)
    assume(p.any() and q.any())
    return p, q


@st.composite
def counts(draw: st.DrawFn, least: int = 0, n: int | None = None) -> Pair:
    """Two rows of whole numbers that are so small that sums of 40 and products of two are exact."""
    dtype = np.dtype(draw(DTYPES))
    most = 2**20 if dtype == "f8" else 2**9
    n = draw(st.integers(1, 20)) if n is None else n
    p, q = draw(hnp.arrays(dtype, (2, n), elements=st.integers(least, most)))
    assume(p.any() and q.any())
    return p, q


# ---- never negative, zero where equal ----


@given(pairs())
def test_values_are_not_negative_and_infinite_by_zeros_in_q_only(pair: Pair) -> None:
    p, q = pair
    values = kl(p, q), cross(p, q), entropy(p)
    lacks = bool(np.any((p > 0) & (q == 0)))
    assert [bool(np.isinf(x)) for x in values] == [lacks, lacks, False]
    assert all(x >= 0 for x in values)


@given(pairs())
def test_jensen_shannon_lies_between_zero_and_log_2(pair: Pair) -> None:
    p, q = pair
    assert 0 <= js(p, q) <= np.log(p.dtype.type(2))
    assert 0 <= js(p, q, base=2) <= 1
    assert 0 <= fastkl.js_distance(p, q, normalize=True, base=2) <= 1
    if not np.any((p > 0) & (q > 0)):
        assert close(js(p, q, base=2), 1.0, offset=0, bound=6)
        assert close(fastkl.js_distance(p, q, normalize=True, base=2), 1.0, offset=0)


@given(pairs(), st.sampled_from([None, 2, 10, 1.5]))
def test_equal_rows_have_a_divergence_of_exactly_zero(pair: Pair, base: float | None) -> None:
    for row in pair:
        assert kl(row, row.copy(), base=base) == 0
        assert kl(np.array([row, row[::-1]]), np.array([row, row[::-1]]), base=base).tolist() == [0, 0]


# ---- relations between the measures ----


@given(pairs())
def test_the_distance_is_the_root_of_the_divergence(pair: Pair) -> None:
    """Where the square is not too small for the dtype."""
    p, q = pair
    distance, divergence = fastkl.js_distance(p, q, normalize=True), js(p, q)
    if divergence > 2 * np.finfo(divergence.dtype).smallest_normal:
        assert close_jensen_shannon(float(distance) ** 2, divergence, np.zeros(1, divergence.dtype)[0])
    assert (distance == 0) <= (divergence == 0)


@given(counts(n=7), st.integers(0, 2**9))
def test_the_distance_is_a_metric(pair: Pair, seed: int) -> None:
    p, q = pair
    between = np.random.default_rng(seed).integers(1, 100, 7).astype(p.dtype)
    distances = [float(fastkl.js_distance(a, b, normalize=True)) for a, b in ((p, q), (p, between), (between, q))]
    assert distances[0] <= (distances[1] + distances[2]) * (1 + 8 * float(np.finfo(p.dtype).eps))


@given(counts(least=1))
def test_jensen_shannon_is_the_mean_divergence_from_the_mean(pair: Pair) -> None:
    """The rows have equal sums, so that their mean is exact."""
    p, q = (np.concatenate((row, other[::-1])) for row, other in (pair, pair[::-1]))
    assert close_jensen_shannon(2 * js(p, q), kl(p, p + q), kl(q, p + q))


@given(pairs())
def test_divergence_is_cross_entropy_less_entropy(pair: Pair) -> None:
    p, q = pair
    # As H(p, q) = D + H(p), no infinity is subtracted. The bound of D is smaller than the one that close_entropy uses.
    assert close_entropy(cross(p, q), kl(p, q), entropy(p))


@given(pairs())
def test_cross_entropy_of_a_row_with_itself_is_its_entropy(pair: Pair) -> None:
    for row in pair:
        assert close_entropy(cross(row, row), entropy(row))


@given(pairs())
def test_the_uniform_distribution(pair: Pair) -> None:
    """Its cross-entropy is log n, the maximum of an entropy; a divergence from it is the difference to that maximum."""
    for p in pair:
        uniform = np.ones_like(p)
        assert close_entropy(cross(p, uniform), math.log(len(p)))
        assert close_entropy(math.log(len(p)), kl(p, uniform), entropy(p))
        most = math.log(np.count_nonzero(p))
        assert entropy(p) <= most or close_entropy(entropy(p), most)


# ---- changes that do not change a value ----


@given(pairs(), st.integers(0, 2**32 - 1))
def test_the_order_of_the_columns_does_not_matter(pair: Pair, seed: int) -> None:
    p, q = pair
    order = np.random.default_rng(seed).permutation(len(p))
    assert close_divergence(kl(p[order], q[order]), kl(p, q))
    assert close_entropy(cross(p[order], q[order]), cross(p, q))
    assert close_entropy(entropy(p[order]), entropy(p))


@given(pairs(), st.integers(1, 600), st.booleans())
def test_columns_of_zeros_do_not_matter(pair: Pair, more: int, before: bool) -> None:
    p, q = pair
    p_wide, q_wide = (np.pad(row, (more, 0) if before else (0, more)) for row in pair)
    assert close_divergence(kl(p_wide, q_wide), kl(p, q))
    assert close_entropy(cross(p_wide, q_wide), cross(p, q))
    assert close_entropy(entropy(p_wide), entropy(p))


@given(pairs(), st.integers(-30, 30))
def test_a_common_power_of_two_does_not_change_a_divergence(pair: Pair, power: int) -> None:
    """The weights are float64, because float32 sums that are far from 1 are computed in double."""
    p, q = (row.astype(float) for row in pair)
    scale = 2.0**power
    assert kl(scale * p, scale * q) == kl(p, q)


@given(pairs(), st.integers(-20, 20), st.integers(-20, 20))
def test_the_weights_of_a_row_may_have_any_sum(pair: Pair, p_power: int, q_power: int) -> None:
    p, q = pair
    p_scaled, q_scaled = p * p.dtype.type(2.0**p_power), q * q.dtype.type(2.0**q_power)
    assert close_divergence(kl(p_scaled, q_scaled), kl(p, q))
    assert close_entropy(cross(p_scaled, q_scaled), cross(p, q))
    assert close_entropy(entropy(p_scaled), entropy(p))


@given(pairs(), st.floats(1, 1e3, exclude_min=True))
def test_base_changes_the_unit_only(pair: Pair, base: float) -> None:
    """Converted back to nats, a value has the errors of a division and a multiplication in addition."""
    assume(abs(math.log(base)) > 1e-3)
    p, q = pair
    unit = math.log(base)
    assert close_divergence(kl(p, q), kl(p, q, base=base) * unit)
    assert close_entropy(cross(p, q), cross(p, q, base=base) * unit)
    assert close_entropy(entropy(p), entropy(p, base=base) * unit)
    assert kl(p, q, base=math.e) == kl(p, q)


# ---- products and sums of distributions ----


@given(st.integers(1, 6).flatmap(lambda n: st.tuples(counts(n=n), counts())))
def test_measures_of_independent_pairs_add_up(both: tuple[Pair, Pair]) -> None:
    """By the chain rule, each of D, H and H(p, q) of a product distribution is the sum of those of the factors."""
    (p, q), (r, s) = both
    pr, qs = np.outer(p, r).ravel(), np.outer(q, s).ravel()
    assume(pr.dtype == p.dtype == r.dtype)
    assert close_divergence(kl(pr, qs), kl(p, q), kl(r, s))
    assert close_entropy(cross(pr, qs), cross(p, q), cross(r, s))
    assert close_entropy(entropy(pr), entropy(p), entropy(r))


@given(counts(), st.data())
def test_merging_columns_never_raises_a_divergence_or_an_entropy(pair: Pair, data: st.DataObject) -> None:
    p, q = pair
    assume(len(p) > 1)
    at = data.draw(st.integers(1, len(p) - 1))
    p_merged, q_merged = (np.append(row[:at], row[at:].sum()) for row in pair)
    fewer, more = kl(p_merged, q_merged), kl(p, q)
    assert fewer <= more or close_divergence(fewer, more)
    fewer, more = entropy(p_merged), entropy(p)
    assert fewer <= more or close_entropy(fewer, more)


@given(counts(least=1), st.data())
def test_merging_columns_in_proportion_keeps_the_divergence(pair: Pair, data: st.DataObject) -> None:
    """A column that is divided among several in the same proportions adds no information."""
    p, q = pair
    shares = np.array(data.draw(st.lists(st.integers(1, 2**6), min_size=1, max_size=8)), p.dtype)
    p_dealt, q_dealt = (np.append(row[:-1] * shares.sum(), row[-1] * shares) for row in pair)
    assert close_divergence(kl(p_dealt, q_dealt), kl(p, q))


@given(counts(n=8), st.integers(1, 7))
def test_chain_rule(pair: Pair, at: int) -> None:
    """D of two rows is that of the masses of the two halves, plus the D of each half times its mass in p."""
    p, q = (row.astype(float) for row in pair)
    halves = np.s_[:at], np.s_[at:]
    masses_p, masses_q = (np.array([row[half].sum() for half in halves]) for row in (p, q))
    assume(masses_p.all() and masses_q.all())
    inner = [kl(p[half], q[half]) * (mass / p.sum()) for half, mass in zip(halves, masses_p, strict=True)]
    assert close_divergence(kl(p, q), kl(masses_p, masses_q), *inner)


@given(counts())
def test_pinsker(pair: Pair) -> None:
    """D is at least half the squared total variation. Its three roundings here are 2 eps, D's bound is 4 eps."""
    p, q = (row.astype(float) for row in pair)
    variation = np.abs(p * q.sum() - q * p.sum()).sum() / (p.sum() * q.sum())
    assert kl(p, q) >= 0.5 * variation**2 * (1 - 6 * np.finfo(float).eps)
