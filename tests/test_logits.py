"""Values of rows of logits: masks, logits and temperatures of any size, logits beside probabilities, and eps.

The bounds are the documented ones. test_logits_accuracy has many rows of every kind, and test_logits_calls has layouts,
dtypes and invalid rows.
"""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpmath import mp
from support.double_double import DoubleDouble
from support.inputs import BFLOATS, encoded
from support.logits import (
    DIVERGENCES,
    DTYPES,
    HOSTILE,
    MASK,
    MEASURES,
    assert_right,
    call,
    normal,
    operands,
    right,
)
from support.logits_reference import OF_LOGITS
from support.measures import assert_same_bits, function

import fastkl

slow = pytest.mark.slow
on_each_tier = pytest.mark.usefixtures("tier")
each_measure = pytest.mark.parametrize("measure", MEASURES)
each_pair_measure = pytest.mark.parametrize("measure", MEASURES[1:])
each_dtype = pytest.mark.parametrize("dtype", DTYPES)


@on_each_tier
@each_dtype
def test_a_mask_in_q_where_p_has_weight(dtype):
    """However little: -1e4 is one e^-10000th of the others. Jensen-Shannon stays finite."""
    for at, weight in itertools.product([0, 1, 31, 128, 1023, 1024, 2047, 2500], [0.0, -80.0, -120.0, -800.0, -1e4]):
        p, q = np.zeros((2, 2501), dtype)
        p[at], q[at] = weight, MASK
        assert fastkl.kl_divergence(p, q, from_logits=True) == np.inf, at
        assert fastkl.cross_entropy(p, q, from_logits=True) == np.inf, at
        assert np.isfinite(fastkl.kl_divergence(q, p, from_logits=True)), at
        assert 0 <= fastkl.js_divergence(p, q, from_logits=True) <= np.log(2), at
        p[at] = MASK
        assert fastkl.kl_divergence(p, q, from_logits=True) == 0, at


@on_each_tier
@each_dtype
@pytest.mark.parametrize("measure", ["kl_divergence", "cross_entropy"])
def test_a_mask_ends_a_row_that_is_valid(measure, dtype):
    """What is invalid, or q's only finite logit, may be in another chunk. Rows beside have the bits they have alone."""
    for at, other in itertools.permutations([0, 70, 1023, 1024, 2500], 2):
        p, q = normal(at, (2, 3, 2501), dtype)
        q[1, at] = MASK
        for x, bad, name in (p, np.nan, "p"), (p, np.inf, "p"), (q, np.nan, "q"), (q, np.inf, "q"):
            good, x[1, other] = x[1, other], bad
            with pytest.raises(ValueError, match=rf"^{name}\[1, {other}\]"):
                call(measure, p, q)
            x[1, other] = good
        found = call(measure, p, q)
        assert found[1] == np.inf
        assert_same_bits(found[::2], call(measure, p[::2], q[::2]))
        q[1] = MASK
        with pytest.raises(ValueError, match=r"^q\[1\] has no finite entry"):
            call(measure, p, q)
        q[1, other] = 1
        assert call(measure, p, q)[1] == np.inf


@pytest.mark.parametrize("depth", [60.0, 67.0, 600.0, 617.0])
@each_dtype
@each_measure
def test_what_fills_up_a_chunk_adds_nothing(measure, dtype, depth):
    """Even if the first logits of the rows are far apart."""
    for n in 5, 40, 1030:
        p, q = normal(n, (2, n), dtype, 1)
        p[0] -= np.array(depth, dtype)
        assert_right(measure, p, q)
        assert_right(measure, q, p)


@pytest.mark.parametrize("far", [-900.0, 300.0, 900.0])
@each_dtype
@each_measure
def test_small_values_of_logits_far_from_zero(measure, dtype, far):
    """What a multiple of ln 2 lacks would show in the logarithm of a sum of weights."""
    for n in 3, 100, 1030:
        p, q = normal(n, (2, n), dtype, 1) - np.array(12, dtype)
        p[n // 2] = q[n // 2] = 0
        assert_right(measure, p + np.array(far, dtype), q + np.array(far, dtype))


@pytest.mark.parametrize("n", [100, 1100, 2200])
@each_dtype
@each_measure
def test_references_that_are_far_off(measure, dtype, n):
    """The first logits of a chunk, and the chunks before, are far below the largest; others underflow, or are masked."""
    rise = np.linspace(0, 1, n)
    for height, masked in itertools.product([30, 100, 400, 900], [False, True]):
        p, q = normal(height, (2, n), dtype) + np.array(rise * height, dtype)
        if masked:
            p[::7] = q[::7] = q[3] = MASK
            p[3] = MASK
        for step in 1, -1:
            assert_right(measure, p[::step].copy(), q[::step].copy())


@each_dtype
@pytest.mark.parametrize("measure", DIVERGENCES[1:])
def test_masks_leave_jensen_shannon_between_its_ends(measure, dtype):
    """However far the rows' logits are apart. Repeated, entries leave it as it is."""
    rows = [0.0, 1.0, 2.0], [0.0, 1.0, MASK], [0.0, MASK, 2.0], [MASK, 0.5, 0.25]
    for (a, b), constant in itertools.product(itertools.permutations(rows, 2), [0.0, 50.0, 1000.0]):
        p, q = np.array(a, dtype), np.array(b, dtype) + np.array(constant, dtype)
        weights = np.exp(p.astype(float))
        for times in 1, 30, 900:
            repeated = np.tile(q, times)
            assert_right(measure, np.tile(p, times), repeated, right(measure, p, q))
            exact = right(measure, weights, q, "q")
            assert_right(measure, np.tile(weights, times), repeated, exact, from_logits="q", normalize=True)


@each_dtype
@each_measure
def test_three_entries_among_masks(measure, dtype):
    """Wherever they are in three chunks, they are as if they were the row; also where their exponentials underflow."""
    pairs = ([0.5, 1.5, -2.0], [1.0, -1.0, 0.0]), ([0.5, 0.5, 0.5], [1.0, -1.0, 0.0])
    pairs += ([0.5, 1.5, MASK], [MASK, -1.0, 0.0]), ([MASK, -1.0, 0.0], [0.5, 1.5, MASK])
    in_one = [0, 1, 2], [1500, 1501, 1502], [2998, 2999, 3000]
    for places in *in_one, [0, 1500, 3000], [0, 1500, 1501], [1500, 1501, 0], [2500, 0, 1], [2500, 2501, 1500]:
        for pair, far in itertools.product(pairs, [0, -700, -1000]):
            rows = np.full((2, 3001), MASK, dtype)
            rows[:, places] = np.array(pair, dtype) + np.array(far, dtype)
            assert_right(measure, *rows, right(measure, *rows[:, places]))


@each_dtype
@each_measure
def test_masks_and_logits_of_any_size(measure, dtype):
    for pair, temperature in itertools.product(HOSTILE[dtype], [1.0, 0.5, 3.0]):
        assert_right(measure, *(np.array(x, dtype) for x in pair), temperature=temperature)


@pytest.mark.parametrize("step", [28, pytest.param(7, marks=slow)])
@each_dtype
@each_measure
def test_a_logit_so_large_that_a_difference_rounds_the_other(measure, dtype, step):
    for near, far in itertools.product([31.75, 300.0, 690.0, -690.0, 1000.0], 2.0 ** np.arange(15, 127, step)):
        both = [near, near - 1]
        for a, b in ([near], [far]), ([near], [-far]), ([*both, 3.0], [far, far, -far]), (both, [-far, -far]):
            p, q = np.array(a, dtype), np.array(b, dtype)
            assert_right(measure, p, q)
            assert_right(measure, q, p)


@each_dtype
def test_chunks_of_q_without_weight_where_p_has_some(dtype):
    p, q = np.zeros(2048, dtype), np.repeat([-1000.0, -4000.0], 1024).astype(dtype)
    for row in q, q[::-1]:
        assert_right("cross_entropy", p, row)


@pytest.mark.parametrize(("seed", "apart"), [(98, 40.0), (186, -40.0), (206, -40.0)])
def test_a_mean_difference_larger_than_the_divergence(seed, apart):
    """All weights of p are the same, and so are the signs of what is added up: roundings do not cancel."""
    q = (np.random.default_rng(seed).integers(0, 256, 513) - 128) / 32
    assert_right("kl_divergence", np.full(513, apart), q)


@pytest.mark.parametrize("measure", DIVERGENCES)
def test_inexact_differences_by_a_temperature_out_of_range(measure):
    """All of the divergence is in what rounding takes from q - p, and took from q."""
    draw = np.random.default_rng(5)
    for n, power in itertools.product([2, 33], [-950, 950]):
        p = draw.standard_normal(n)
        assert_right(measure, np.ldexp(p, power), np.ldexp(p + 1e8, power), temperature=2.0**power)


@on_each_tier
def test_logits_far_from_the_logarithms_of_probabilities():
    for weight, far in itertools.product([1e-291, 1e100, 1e290, 1e291, 1e300], [1e3, 1e15, 1e19, 1e30, 1e300]):
        p, q = np.array([weight, weight]), np.array([far, far])
        assert fastkl.kl_divergence(p, q, from_logits="q", normalize=True) == 0
        assert fastkl.kl_divergence(q, p, from_logits="p", normalize=True) == 0


@pytest.mark.parametrize("n", [3, pytest.param(1030, marks=slow)])
@each_pair_measure
def test_small_probabilities_beside_logits_that_are_large(measure, n):
    """The exponentials of their logarithms, rounded, would be wrong by hundreds of units in the last place."""
    for small in 1e-20, 1.1e-35, 7e-100, 3e-250, 1e-300:
        p = np.full(n, small)
        p[n // 2] = 1
        q = normal(n, (n,)) / small
        q[n // 2] = 0
        assert_right(measure, p, -np.abs(q), from_logits="q")


@pytest.mark.parametrize("n", [2, pytest.param(31, marks=slow)])
@pytest.mark.parametrize("weight", [5e-324, 1e-100, 1e9, 1e168, 1.7e308])
@each_pair_measure
def test_probabilities_of_any_sum_beside_logits(measure, weight, n):
    """Their logarithms are of hundreds, and rounded as such would be wrong by 1e-13."""
    random = np.random.default_rng(7)
    counts = np.append(random.random(n - 1), 1)
    small = np.where(random.random(n) < 0.5, counts * 1e-290, counts)
    for whole in np.floor(counts * 8) / 8, counts, small:
        probabilities = whole * weight
        for logits in normal(n, (n,)), np.where(np.arange(n) == n - 1, 1e6, MASK), np.log(whole + 1e-9) + 5:
            for p, q, flags in (logits, probabilities, "p"), (probabilities, logits, "q"):
                assert_right(measure, p, q, right(measure, p, q, flags), from_logits=flags, normalize=True)


@pytest.mark.parametrize("dtype", [np.dtype("e"), BFLOATS[-1], np.dtype("f4"), np.dtype("f8")], ids=str)
@each_measure
def test_the_largest_logits_of_a_dtype(measure, dtype):
    most = 2.0**127 * 1.9921875 if dtype in BFLOATS else float(np.finfo(dtype).max)
    for rows in ([most, 0.0], [0.0, 1.0]), ([most, most], [-most, -most]), ([-most, 1.0], [-most, 2.0]):
        assert_right(measure, *(encoded(np.array(x), dtype) for x in rows), right(measure, *rows))


@on_each_tier
@pytest.mark.parametrize("measure", ["cross_entropy", "kl_divergence"])
def test_no_finite_logit_is_a_mask_where_a_difference_overflows(measure):
    most = np.finfo("f8").max
    for largest in most, 1e300, 2.0**969:
        p, q = np.array([largest, -most, 0.0]), np.array([largest, -np.inf, 0.0])
        assert call(measure, p, q) == np.inf
        assert call(measure, p, p) == 0
        assert fastkl.compare(q, p, from_logits=True).reverse_kl == np.inf
        assert fastkl.nll([1], p[np.newaxis], from_logits=True) > 1e300


TEMPERATURES = [5e-324, 1e-40, 1e3, 1e300, *(pytest.param(x, marks=slow) for x in (1e-300, 1e-3, 1e40, 1.7e308))]


@pytest.mark.parametrize("temperature", TEMPERATURES)
@each_dtype
@each_measure
def test_temperatures_of_any_size(measure, dtype, temperature):
    rows = [0.0, 1.0, -2.0], [3.0, 3.0, MASK], [1e30, -1e30, 7.0], [0.25, 0.5, 0.5]
    for pair in itertools.product(rows, repeat=2):
        assert_right(measure, *(np.array(x, dtype) for x in pair), temperature=temperature)
    for n in 1, 2, 31, 33, 128, 1023, 1025, 3001:
        p = np.full(n, 7, dtype)
        uniform = DoubleDouble.rounded(mp.log(n) if measure in MEASURES[:2] else mp.zero)
        for q in p, p.copy():
            assert_right(measure, p, q, uniform[np.newaxis], temperature=temperature)


@pytest.mark.parametrize("part", [1, 700, pytest.param(8, marks=slow), pytest.param(1e8, marks=slow)])
@each_dtype
@each_measure
def test_differences_finite_only_by_a_temperature(measure, dtype, part):
    most = float(np.finfo(dtype).max)
    rows = [np.array(x, dtype) for x in ([-most, most, 7], [most, -most, -most], [most, most, -0.5 * most])]
    probabilities = np.array([0.5, 0.25, 0.25], dtype)
    for p, q in itertools.product([*rows, probabilities], repeat=2):
        assert_right(measure, p, q, temperature=most / part)
    for p in [*rows, probabilities] if measure != "entropy" else []:
        assert_right(measure, p, probabilities, from_logits="p", temperature=most / part)
        assert_right(measure, probabilities, p, from_logits="q", temperature=most / part)


@each_measure
def test_no_finite_logit_is_a_mask_where_a_temperature_overflows(measure):
    """Where such logits have no weight, they add nothing, although their differences overflow."""
    p = np.array([0.0, 10.0, -50.0, -np.finfo("f8").max])
    for near in -3.4e38, -10.25, -6.0, -4.5:
        q = np.array([4.25, 14.25, -45.75, near])
        assert_right(measure, p, q, temperature=0.01)
        assert_right(measure, q, p, temperature=0.01)
    if measure != "entropy":
        probabilities = np.array([0.5, 0.25, 0.25, 0.0])
        assert_right(measure, p, probabilities, from_logits="p", temperature=0.01)
        assert_right(measure, probabilities, p, from_logits="q", temperature=0.01)


@each_dtype
@pytest.mark.parametrize("measure", MEASURES[:2])
def test_many_entries_whose_sums_in_lanes_are_not_accepted(measure, dtype):
    """The bound does not depend on the row's width."""
    for times in 100, 700, 5000:
        p = np.tile(np.array([0.0, -1085.0, -1786.0], dtype), times)
        assert_right(measure, p, p, DoubleDouble.rounded(mp.log(times))[np.newaxis])


@pytest.mark.parametrize("dtype", ["f4", pytest.param("f8", marks=slow)])
@each_measure
def test_rows_of_several_pieces(measure, dtype):
    """Repeated entries leave divergences as they are, and add a logarithm to H; masks in both operands change nothing."""
    ends = [0, 65_535, 65_536, 131_071, 131_072, 131_080]
    times = (ends[-1] - 5) // 107
    order = np.random.default_rng(5).permutation(np.tile(np.arange(107), times))
    added = DoubleDouble.rounded(mp.log(times) if measure in MEASURES[:2] else mp.zero)
    p, q = normal(4, (2, 107), dtype)
    for pair in (p, q), (p, p + q / 1000), (p - 4000, q + 2000):
        wide = np.full((2, ends[-1] + 1), MASK, dtype)
        wide[:, np.delete(np.arange(ends[-1] + 1), ends)] = np.array(pair)[:, order]
        assert_right(measure, *wide, right(measure, *pair) + added, threads=2)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_piece_a_little_below_the_first_counts(threads):
    """Also where its first logits are so far below that they are no reference for the others."""
    row = np.zeros(3 * 65_536, "f4")
    row[65_536:] = -1
    row[65_536 : 65_536 + 256] = -900
    entries = np.array([65_536, 2 * 65_536 - 256])
    weights = entries * np.exp([0.0, -1.0])
    entropy = np.log(weights.sum()) + weights[1] / weights.sum()
    assert call("entropy", row, None, threads=threads) == pytest.approx(entropy, rel=32 * 2**-23)


@pytest.mark.parametrize("threads", [1, 2])
def test_an_invalid_piece_before_a_masked_one(threads):
    """Such a mask makes a valid row's divergence infinite."""
    p, q = normal(7, (2, 3 * 65_536), "f4")
    q[65_536 + 5] = MASK
    assert call("kl_divergence", p, q, threads=threads) == np.inf
    p[9] = np.nan
    with pytest.raises(fastkl.InvalidRowError, match=r"^p\[9\] = nan"):
        call("kl_divergence", p, q, threads=threads)


@st.composite
def hostile(draw, most=6):
    """Two rows of any logits, near each other or not, and a temperature."""
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    about = float(np.finfo(dtype).max) / 4
    logit = st.one_of(
        st.floats(-30, 30, width=32),
        st.floats(-2000, 2000, width=32),
        st.floats(-about, about, width=8 * dtype.itemsize),
        st.sampled_from([MASK, 0.0, -0.0, 1.0, 1e4, -1e4, 1e30, -1e30]),
    )
    n = draw(st.integers(1, most))
    p, q = (np.array(draw(st.lists(logit, min_size=n, max_size=n)), dtype) for _ in range(2))
    near = draw(st.sampled_from([None, None, 1, 1e-3, 1e-6]))
    if near is not None:
        q = np.where(np.isfinite(p), p + (np.arange(n) * near).astype(dtype), q).astype(dtype)
    for row in p, q:
        if not np.isfinite(row).any():
            row[draw(st.integers(0, n - 1))] = draw(st.floats(-100, 100, width=32))
    return p, q, draw(st.sampled_from([1.0, 1.0, 0.3, 7.0, 1e-30, 1e30]))


@given(hostile())
def test_any_rows_by_definition(rows):
    for measure in MEASURES:
        assert_right(measure, *rows[:2], temperature=rows[2])


@on_each_tier
@given(hostile(), st.integers(1, 1500), st.integers(0, 2**32 - 1))
def test_any_wide_rows(rows, times, seed):
    """None is NaN or negative. Repeated entries leave divergences as they are, and add a logarithm to H, in any order."""
    p, q, temperature = rows
    order = np.random.default_rng(seed).permutation(times * len(p))
    wide_p, wide_q = (np.tile(x, times)[order] for x in (p, q))
    values = {measure: float(call(measure, wide_p, wide_q, temperature=temperature)) for measure in MEASURES}
    assert not any(np.isnan(x) or x < 0 for x in values.values()), values
    assert values["js_divergence"] <= np.log(p.dtype.type(2)), values
    assert np.isfinite(values["entropy"]), values
    masked = np.any((p > MASK) & (q == MASK))
    assert not masked or values["kl_divergence"] == values["cross_entropy"] == np.inf, values
    for measure in DIVERGENCES:
        exact = right(measure, p, q, temperature=temperature)
        assert_right(measure, wide_p, wide_q, exact, temperature=temperature)
        assert call(measure, wide_p, wide_p.copy(), temperature=temperature) == 0


@each_dtype
@each_measure
def test_logarithms_of_probabilities_have_their_values(measure, dtype):
    """As logits of both operands, or of one beside probabilities, whose rows sum to 1 without normalize."""
    rows = operands(8, (20, 33), dtype, False)
    with np.errstate(divide="ignore"):
        logarithms = [np.log(x) for x in rows]
    expected = DoubleDouble.of(call(measure, *rows, False).astype(float))
    for from_logits, kinds in OF_LOGITS.items():
        pair = (logs if logits else x for x, logs, logits in zip(rows, logarithms, kinds, strict=True))
        assert_right(measure, *pair, expected, from_logits=from_logits)


@on_each_tier
@each_pair_measure
def test_only_probabilities_have_to_sum_to_1(measure):
    """With normalize, they need not."""
    rows, counts = normal(3, (4, 6)) + 50, np.arange(24).reshape(4, 6) + 1
    for p, q, flags, name in (rows, counts, "p", "q"), (counts, rows, "q", "p"):
        with pytest.raises(ValueError, match=rf"^{name}\[0\] sums to 21: rows must sum to 1 within"):
            call(measure, p, q, flags)
        assert_right(measure, p, q, right(measure, p, q, flags), from_logits=flags, normalize=True)
    assert np.array_equal(call(measure, rows, rows + 1), call(measure, rows, rows + 1, normalize=True))


@on_each_tier
@each_dtype
def test_an_entry_that_q_lacks_is_infinite_beside_probabilities(dtype):
    """The entry may be in any chunk."""
    for n, place in itertools.product([3, 1000, 2500], [0, 1, 2]):
        at = (0, n // 2, n - 1)[place]
        uniform, zero = np.full(n, 1 / n, dtype), np.where(np.arange(n) == at, 0, 1 / (n - 1)).astype(dtype)
        masked = np.where(zero == 0, MASK, 0).astype(dtype)
        for p, q, flags, reverse in (uniform, masked, "q", "p"), (np.zeros(n, dtype), zero, "p", "q"):
            assert fastkl.kl_divergence(p, q, from_logits=flags) == np.inf, (n, at)
            assert fastkl.cross_entropy(p, q, from_logits=flags) == np.inf, (n, at)
            assert 0 < fastkl.js_divergence(p, q, from_logits=flags) < 0.2, (n, at)
            assert 0 < fastkl.kl_divergence(q, p, from_logits=reverse) < np.inf, (n, at)


@each_measure
def test_from_logits_is_false_by_default(measure):
    compute, rows = function(measure), operands(3, (4, 1000), "f8", False)
    assert_same_bits(compute(*rows), compute(*rows, from_logits=False))


@each_dtype
@pytest.mark.parametrize("measure", ["cross_entropy", "kl_divergence"])
def test_eps_clips_the_softmax_of_q(measure, dtype):
    p, q = normal(6, (5, 7), dtype), normal(7, (5, 7), dtype, 10)
    q[1, 3] = q[2, :6] = MASK
    q[3, 0], q[4] = 1e30, -1e30
    for eps, temperature in itertools.product([1e-300, 1e-9, 0.01, 0.5], [1.0, 4.0]):
        assert_right(measure, p, q, eps=eps, temperature=temperature)
        assert np.isfinite(call(measure, p, q, eps=eps, temperature=temperature)).all()
    assert_right(measure, np.full((5, 7), 1 / 7), q, eps=0.01, from_logits="q")
    for far, eps in itertools.product([-1000.0, 777.0, 1000.0], [0.3, 0.5, 0.9]):
        p, q = np.array([0.03, 0.0, -0.03], dtype), np.array([0.0, -900.0, -901.0], dtype) + np.array(far, dtype)
        assert_right(measure, p, q, eps=eps)
