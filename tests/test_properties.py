"""Properties of the measures for any distributions, tested with hypothesis on every tier.

The tests use the documented bounds alone: with eps that of the result's dtype, a D is at most 4 eps D from its exact value,
an H or H(p, q) 4 eps H + 2 eps, and a JS 6 eps JS. Where an exact value is the sum of others, the computed values therefore
differ from that by at most the sum of all their bounds. `close` allows one eps more because the test's own additions and
products have errors of half an eps each, and because it takes the bounds of computed instead of exact values. Weights are
whole numbers where a test adds or multiplies them, so that the test is exact.
"""

import functools
import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import fastkl

pytestmark = pytest.mark.usefixtures("tier")

DTYPES = st.sampled_from(["f8", "f4"])

kl = functools.partial(fastkl.kl_divergence, normalize=True)
cross = functools.partial(fastkl.cross_entropy, normalize=True)
entropy = functools.partial(fastkl.entropy, normalize=True)
js = functools.partial(fastkl.js_divergence, normalize=True)
distance = functools.partial(fastkl.js_distance, normalize=True)


def close(result, *parts, offset=0, bound=4):
    """Whether the result is the sum of the parts, each of which has an error of at most `bound` eps |x| + `offset` eps.

    The error is at most half of the smallest number where that is more; a test multiplies it by at most 7.
    """
    values = [float(x) for x in (result, *parts)]
    total = sum(values[1:])
    dtype = max((np.finfo(np.asarray(x).dtype) for x in (result, *parts)), key=lambda dtype: dtype.eps)
    eps, least = float(dtype.eps), float(dtype.smallest_subnormal)
    slack = sum(eps * ((bound + 1) * abs(x) + offset) + 4 * least for x in values)
    return values[0] == total if math.isinf(slack) else abs(values[0] - total) <= slack


close_jensen_shannon = functools.partial(close, bound=6)
close_entropy = functools.partial(close, offset=2)


def assert_close(pair, other, unit=1, **keywords):
    """All measures of a pair of rows, the Jensen-Shannon ones aside, agree with those of the other times the unit."""
    assert close(kl(*pair), kl(*other, **keywords) * unit)
    assert close_entropy(cross(*pair), cross(*other, **keywords) * unit)
    assert close_entropy(entropy(pair[0]), entropy(other[0], **keywords) * unit)


@st.composite
def pairs(draw):
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
def counts(draw, least=0, n=None):
    """Two rows of whole numbers that are so small that sums of 40 and products of two are exact."""
    dtype = np.dtype(draw(DTYPES))
    most = 2**20 if dtype == "f8" else 2**9
    n = draw(st.integers(1, 20)) if n is None else n
    p, q = draw(hnp.arrays(dtype, (2, n), elements=st.integers(least, most)))
    assume(p.any() and q.any())
    return p, q


@given(pairs())
def test_values_are_in_their_ranges(pair):
    """None is negative, zeros in q alone make one infinite, and Jensen-Shannon ones lie between 0 and 1 in base 2."""
    p, q = pair
    values = kl(p, q), cross(p, q), entropy(p)
    lacks = bool(np.any((p > 0) & (q == 0)))
    assert [bool(np.isinf(x)) for x in values] == [lacks, lacks, False]
    assert all(x >= 0 for x in values)
    assert 0 <= js(p, q) <= np.log(p.dtype.type(2))
    assert 0 <= js(p, q, base=2) <= 1
    assert 0 <= distance(p, q, base=2) <= 1
    if not np.any((p > 0) & (q > 0)):
        assert close_jensen_shannon(js(p, q, base=2), 1.0)
        assert close(distance(p, q, base=2), 1.0)


@given(counts(n=7), st.integers(0, 2**9))
def test_the_distance_is_a_metric(pair, seed):
    p, q = pair
    between = np.random.default_rng(seed).integers(1, 100, 7).astype(p.dtype)
    distances = [float(distance(a, b)) for a, b in ((p, q), (p, between), (between, q))]
    assert distances[0] <= (distances[1] + distances[2]) * (1 + 8 * float(np.finfo(p.dtype).eps))


@given(counts(least=1))
def test_jensen_shannon_is_the_mean_divergence_from_the_mean(pair):
    """The rows have equal sums, so that their mean is exact."""
    p, q = (np.concatenate((row, other[::-1])) for row, other in (pair, pair[::-1]))
    assert close_jensen_shannon(2 * js(p, q), kl(p, p + q), kl(q, p + q))


@given(pairs())
def test_divergence_is_cross_entropy_less_entropy(pair):
    """Which for equal rows are the same."""
    p, q = pair
    # As H(p, q) = D + H(p), no infinity is subtracted. The bound of D is smaller than the one that close_entropy uses.
    assert close_entropy(cross(p, q), kl(p, q), entropy(p))
    for row in pair:
        assert close_entropy(cross(row, row), entropy(row))


@given(pairs())
def test_the_uniform_distribution(pair):
    """Its cross-entropy is log n, the maximum of an entropy; a divergence from it is the difference to that maximum."""
    for p in pair:
        uniform = np.ones_like(p)
        assert close_entropy(cross(p, uniform), math.log(len(p)))
        assert close_entropy(math.log(len(p)), kl(p, uniform), entropy(p))
        most = math.log(np.count_nonzero(p))
        assert entropy(p) <= most or close_entropy(entropy(p), most)


@given(pairs(), st.integers(0, 2**32 - 1))
def test_the_order_of_the_columns_and_zeros_do_not_matter(pair, seed):
    rng = np.random.default_rng(seed)
    order, zeros = rng.permutation(len(pair[0])), rng.integers(600, size=2)
    assert_close((pair[0][order], pair[1][order]), pair)
    assert_close((np.pad(pair[0], zeros), np.pad(pair[1], zeros)), pair)


@given(pairs(), st.integers(-20, 20), st.integers(-20, 20))
def test_the_weights_of_a_row_may_have_any_sum(pair, p_power, q_power):
    """A common power of two changes no bit of float64 weights: float32 sums that are far from 1 are computed in double."""
    p, q = pair
    assert_close((p * p.dtype.type(2.0**p_power), q * q.dtype.type(2.0**q_power)), pair)
    p, q, scale = p.astype(float), q.astype(float), 2.0 ** (p_power + q_power)
    assert kl(scale * p, scale * q) == kl(p, q)


@given(pairs(), st.floats(1, 1e3, exclude_min=True))
def test_base_changes_the_unit_only(pair, base):
    """Converted back to nats, a value has the errors of a division and a multiplication in addition; 0 remains 0."""
    assume(abs(math.log(base)) > 1e-3)
    assert_close(pair, pair, math.log(base), base=base)
    assert kl(*pair, base=math.e) == kl(*pair)
    for row in pair:
        assert [measure(row, row.copy(), base=base) for measure in (kl, js, distance)] == [0, 0, 0]


@given(st.integers(1, 6).flatmap(lambda n: st.tuples(counts(n=n), counts())))
def test_measures_of_independent_pairs_add_up(both):
    """By the chain rule, each of D, H and H(p, q) of a product distribution is the sum of those of the factors."""
    (p, q), (r, s) = both
    pr, qs = np.outer(p, r).ravel(), np.outer(q, s).ravel()
    assume(pr.dtype == p.dtype == r.dtype)
    assert close(kl(pr, qs), kl(p, q), kl(r, s))
    assert close_entropy(cross(pr, qs), cross(p, q), cross(r, s))
    assert close_entropy(entropy(pr), entropy(p), entropy(r))


@given(counts(n=20), st.integers(1, 19))
def test_merging_columns_never_raises_a_divergence_or_an_entropy(pair, at):
    p, q = pair
    p_merged, q_merged = (np.append(row[:at], row[at:].sum()) for row in pair)
    fewer, more = kl(p_merged, q_merged), kl(p, q)
    assert fewer <= more or close(fewer, more)
    fewer, more = entropy(p_merged), entropy(p)
    assert fewer <= more or close_entropy(fewer, more)


@given(counts(least=1), st.lists(st.integers(1, 2**6), min_size=1, max_size=8))
def test_merging_columns_in_proportion_keeps_the_divergence(pair, shares):
    """A column that is divided among several in the same proportions adds no information."""
    parts = np.array(shares, pair[0].dtype)
    assert close(kl(*(np.append(row[:-1] * parts.sum(), row[-1] * parts) for row in pair)), kl(*pair))


@given(counts(n=8), st.integers(1, 7))
def test_chain_rule(pair, at):
    """D of two rows is that of the masses of the two halves, plus the D of each half times its mass in p."""
    p, q = (row.astype(float) for row in pair)
    halves = np.s_[:at], np.s_[at:]
    masses_p, masses_q = (np.array([row[half].sum() for half in halves]) for row in (p, q))
    assume(masses_p.all() and masses_q.all())
    inner = [kl(p[half], q[half]) * (mass / p.sum()) for half, mass in zip(halves, masses_p, strict=True)]
    assert close(kl(p, q), kl(masses_p, masses_q), *inner)


@given(counts())
def test_pinsker(pair):
    """D is at least half the squared total variation. Its three roundings here are 2 eps, D's bound is 4 eps."""
    p, q = (row.astype(float) for row in pair)
    variation = np.abs(p * q.sum() - q * p.sum()).sum() / (p.sum() * q.sum())
    assert kl(p, q) >= 0.5 * variation**2 * (1 - 6 * np.finfo(float).eps)
