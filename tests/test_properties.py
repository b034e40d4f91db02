"""Properties of the measures for any distributions, tested with hypothesis on every tier.

The tests use the documented bounds alone: with eps that of the result's dtype, a D is at most 4 eps D from its exact value,
an H or H(p, q) 4 eps H + 2 eps, and a JS 6 eps JS. Where an exact value is the sum of others, the computed values therefore
differ from that by at most the sum of all their bounds. `close` allows one eps more because the test's own additions and
products have errors of half an eps each, and because it takes the bounds of computed instead of exact values. Weights are
whole numbers where a test adds or multiplies them, so that the test is exact.

Where a property is an inequality, or joins measures with different bounds, `interval` has the ends between which a computed
value and its documented bound leave the exact one; the property must be possible in these.
"""

import functools
import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from support import reference
from support.measures import DIVERGENCES, EVERY, accepted

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
def test_merging_columns_raises_no_entropy(pair, at):
    for row in pair:
        fewer, more = entropy(np.append(row[:at], row[at:].sum())), entropy(row)
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


# Inequalities and identities between measures ----------------------------------------------------------------------------

ALL = {measure.__name__: measure for measure in EVERY}
RENYI = {ALL[name].keywords["alpha"]: name for name in ALL if name.startswith("renyi_divergence")}
ORDERS = sorted(RENYI)


def needs(*names):
    return pytest.mark.skipif(not {*names} <= {*ALL}, reason="fastkl does not have this measure")


def interval(name, p, q):
    """The least and the largest number that the exact value may be.

    Where a value computed from x is off by at most b eps x, x is at most b eps / (1 - b eps) of the computed value from it.
    """
    definition = reference.DEFINITIONS[name]
    value = ALL[name](p, q, **accepted(ALL[name], normalize=True))
    about, value = np.finfo(value.dtype), float(value)
    if math.isinf(value):
        return float(about.max), math.inf
    eps = float(about.eps)
    share = float(np.max(definition.bounds(p[np.newaxis], q[np.newaxis]))) * eps
    off = share / (1 - share) * (value + definition.offset) if share < 1 else math.inf
    off += 1e-280 if definition.root else float(about.smallest_subnormal)
    if definition.near is not None and value <= 2 * eps**definition.near:
        off += eps**definition.near
    return max(value - off, 0.0), value + off


# What the tests' own few operations on doubles add.
ROUNDED = 1 + 2.0**-49


def may_be_equal(one, other):
    """Whether two intervals meet."""
    return one[0] <= other[1] * ROUNDED and other[0] <= one[1] * ROUNDED


@given(pairs())
def test_divergences_are_in_their_ranges(pair):
    """From 0, which equal rows have, to 1 or to infinity, which takes an entry that a row lacks."""
    p, q = pair
    lacks, alone = bool(np.any((p > 0) & (q == 0))), bool(np.any((p == 0) & (q > 0)))
    apart = not np.any((p > 0) & (q > 0))
    infinite = {"kl_divergence": lacks, "chi2_divergence": lacks, "jeffreys_divergence": lacks or alone}
    infinite |= {RENYI[alpha]: lacks if alpha > 1 else apart for alpha in ORDERS}
    for measure in DIVERGENCES:
        name, value = measure.__name__, measure(p, q, normalize=True)
        about = np.finfo(value.dtype)
        assert value >= 0
        assert not np.signbit(value)
        if infinite.get(name, False) or value < about.max:  # a large value may be infinite
            assert np.isinf(value) == infinite.get(name, False), name
        if name in ("total_variation", "hellinger_distance"):
            assert value <= 1
            assert not apart or value >= 1 - 8 * about.eps
        assert measure(p, p.copy(), normalize=True) == 0


@needs("total_variation")
@given(pairs())
def test_pinsker(pair):
    """D is at least twice the squared total variation."""
    assert 2 * interval("total_variation", *pair)[0] ** 2 <= interval("kl_divergence", *pair)[1] * ROUNDED


@needs("total_variation", "hellinger_distance")
@given(pairs())
def test_hellinger_and_total_variation_bound_each_other(pair):
    """H^2 <= TV <= sqrt(2) H."""
    hellinger, variation = (interval(name, *pair) for name in ("hellinger_distance", "total_variation"))
    assert hellinger[0] ** 2 <= variation[1] * ROUNDED
    assert variation[0] <= math.sqrt(2) * hellinger[1] * ROUNDED


@needs("chi2_divergence")
@given(pairs())
def test_chi_squared_bounds_the_divergence(pair):
    """D <= log(1 + chi2), which is also Rényi's divergence of order 2."""
    chi2 = [math.log1p(end) for end in interval("chi2_divergence", *pair)]
    assert interval("kl_divergence", *pair)[0] <= chi2[1] * ROUNDED
    if 2.0 in RENYI and chi2[1] < 80:  # the largest float32 is e^88.7
        assert may_be_equal(interval(RENYI[2.0], *pair), chi2)


@pytest.mark.skipif(not ORDERS, reason="fastkl does not have this measure")
@given(pairs())
def test_renyi_divergences_rise_with_their_order(pair):
    """That of order 1 is D."""
    orders = [*(x for x in ORDERS if x < 1), 1, *(x for x in ORDERS if x > 1)]
    values = [interval(RENYI.get(order, "kl_divergence"), *pair) for order in orders]
    for i, lower in enumerate(values):
        for higher in values[i + 1 :]:
            assert lower[0] <= higher[1] * ROUNDED


@pytest.mark.skipif(0.5 not in RENYI or "hellinger_distance" not in ALL, reason="fastkl does not have this measure")
@given(pairs())
def test_renyi_of_order_one_half_is_of_hellinger(pair):
    """It is -2 log(1 - H^2). Near 1, the distance has few digits of 1 - H^2."""
    low, high = (x**2 for x in interval("hellinger_distance", *pair))
    ends = -2 * math.log1p(-low / ROUNDED), -2 * math.log1p(-high * ROUNDED) if high * ROUNDED < 1 else math.inf
    assert may_be_equal(interval(RENYI[0.5], *pair), ends)


@needs("jeffreys_divergence")
@given(pairs())
def test_jeffreys_is_the_sum_of_both_divergences(pair):
    """The errors of the three add up: at most 8 eps of the sum, and 4 eps of each part."""
    ways = interval("kl_divergence", *pair), interval("kl_divergence", *pair[::-1])
    assert may_be_equal(interval("jeffreys_divergence", *pair), [sum(ends) for ends in zip(*ways, strict=True)])


@needs("generalized_kl")
@given(counts())
def test_generalized_kl_is_that_of_sums_and_of_distributions(pair):
    """It is P D + P log(P/Q) - P + Q, all parts of which are >= 0, and the last is that of the two sums."""
    p, q = pair
    sums = interval("generalized_kl", *(x.sum(keepdims=True) for x in pair))
    whole = [float(p.sum()) * d + last for d, last in zip(interval("kl_divergence", *pair), sums, strict=True)]
    assert may_be_equal(interval("generalized_kl", *pair), whole)
    assert fastkl.generalized_kl(0 * p, q) == float(q.sum())
    assert fastkl.generalized_kl(p * 2, q * 2) == 2 * fastkl.generalized_kl(p, q)


@given(counts(n=20), st.integers(1, 19))
def test_merging_columns_raises_no_divergence(pair, at):
    merged = [np.append(row[:at], row[at:].sum()) for row in pair]
    for measure in DIVERGENCES:
        assert interval(measure.__name__, *merged)[0] <= interval(measure.__name__, *pair)[1]
    if "generalized_kl" in ALL:
        assert interval("generalized_kl", *merged)[0] <= interval("generalized_kl", *pair)[1]


@pytest.mark.parametrize("name", [name for name in ("js_distance", "hellinger_distance", "total_variation") if name in ALL])
@given(pair=counts(n=7), seed=st.integers(0, 2**9))
def test_distances_are_metrics(name, pair, seed):
    p, q = pair
    between = np.random.default_rng(seed).integers(1, 100, 7).astype(p.dtype)
    (direct, _), *ways = (interval(name, a, b) for a, b in ((p, q), (p, between), (between, q)))
    assert direct <= sum(end for _, end in ways) * ROUNDED
