"""The measures agree with the reference on every tier; the reference is right; these tests notice errors."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpmath import mp
from support import reference, rows
from support.double_double import DoubleDouble
from support.measures import (
    DIVERGENCES,
    EPS_MEASURES,
    EVERY,
    ONE_EACH,
    SYMMETRIC,
    accepted,
    assert_right_everywhere,
    assert_same_bits,
    exact,
)

import fastkl

slow = pytest.mark.slow
dtypes = pytest.mark.parametrize("dtype", ["float64", "float32"])
WIDTHS = [pytest.param(rows.FEW_WIDTHS, id="few"), pytest.param(rows.WIDTHS, id="all", marks=slow)]
some_widths = pytest.mark.parametrize("widths", WIDTHS)


@some_widths
@pytest.mark.parametrize("generator", rows.GENERATORS)
@dtypes
def test_values(dtype, generator, widths):
    for p, q, source in rows.batches(generator, dtype, widths):
        for measure in EVERY:
            for values in assert_right_everywhere(measure, p, q, source=source):
                assert values.dtype == dtype


@pytest.mark.parametrize(
    ("generator", "n"),
    [("slack", 65537), *(pytest.param(name, n, marks=slow) for name in rows.WIDE_GENERATORS for n in rows.WIDE)],
)
@dtypes
def test_values_of_wide_rows(dtype, generator, n):
    """Alone, in pieces that threads share, and interleaved with others."""
    p, q, source = rows.make(generator, dtype, (1, n), seed=0)
    two_p, two_q = (np.repeat(x, 2, axis=0).copy("F") for x in (p, q))
    for measure in ONE_EACH:
        right = exact(measure, p, q)
        assert_right_everywhere(measure, p, q, right, source, threads=1)
        assert_right_everywhere(measure, p, q, right, f"{source}, in two pieces", threads=2)
        for values in assert_right_everywhere(measure, two_p, two_q, right, f"{source}, interleaved", threads=1):
            assert values[0] == values[1]


@pytest.mark.parametrize("n", [2, 3, 5])
@dtypes
def test_divergences_whose_terms_cancel_most(dtype, n):
    """Large errors are rare, one in thousands of rows."""
    p, q, source = rows.make("balanced", dtype, (20_000, n), seed=n)
    assert_right_everywhere(fastkl.kl_divergence, p, q, source=source)


def test_rounding_is_not_one_sided_in_long_columns(tier):
    """Additions of the same float are all rounded to one side while the sum keeps its exponent."""
    n = 2_000_000
    p = np.full((2, n), 1.7, np.float32, order="F")
    values = fastkl.entropy(p, normalize=True)
    assert np.all(np.abs(values - np.log(n)) <= reference.entropy.bound * np.finfo(np.float32).eps * (np.log(n) + 0.5))


@some_widths
@dtypes
def test_exchanged_and_equal_rows(tier, dtype, widths):
    """The symmetric measures of exchanged ones have the same bits, and divergences of equal ones are 0."""
    for p, q, source in itertools.chain(*(rows.batches(generator, dtype, widths) for generator in rows.GENERATORS)):
        for a, b in (p, q), (p.astype(float), q), *zip(p, q, strict=True):
            for measure in SYMMETRIC:
                assert measure(a, b, normalize=True).tobytes() == measure(b, a, normalize=True).tobytes(), source
        for row, measure in itertools.product((p, q), DIVERGENCES):
            for same in row.copy(), row.astype(float):
                values = measure(row, same, normalize=True)
                assert np.all((values == 0) & ~np.signbit(values)), source


@some_widths
@dtypes
def test_renyi_divergences_of_order_1_and_infinity(tier, dtype, widths):
    """The first is KL, to the bit; the other is a logarithm of one ratio, which is right to 4 eps where that is near 1."""
    infinite, generators = reference.renyi(np.inf), ("close", "ratios", "zeros")
    for p, q, source in itertools.chain(*(rows.batches(generator, dtype, widths) for generator in generators)):
        kl = fastkl.kl_divergence(p, q, normalize=True)
        assert_same_bits(fastkl.renyi_divergence(p, q, 1, normalize=True), kl, source)
        values, eps = fastkl.renyi_divergence(p, q, np.inf, normalize=True), float(np.finfo(dtype).eps)
        right = np.array([float(infinite(*pair)) for pair in zip(p, q, strict=True)])
        with np.errstate(invalid="ignore"):
            near = np.abs(values - right) <= eps * (infinite.bound * right + 4)
        assert np.all(near | (values == right)), source
        assert np.all(values >= 0), source
        assert np.all(fastkl.renyi_divergence(p, p.copy(), np.inf, normalize=True) == 0), source


@slow
@pytest.mark.parametrize("generator", ["apart", "outliers", "zeros", "one_hot"])
@dtypes
def test_values_with_eps(dtype, generator):
    for p, q, source in rows.batches(generator, dtype, rows.WIDTHS):
        for eps, measure in itertools.product((1e-300, 1e-12, 0.1), EPS_MEASURES):
            right = exact(measure, p, q, eps)
            assert_right_everywhere(measure, p, q, right, source, eps=eps)


def entries(width):
    numbers = st.floats(0, allow_infinity=False, allow_nan=False, width=width)
    pairs = st.tuples(numbers, numbers) | numbers.map(lambda x: (x, x))
    return st.lists(pairs, min_size=1, max_size=40).filter(lambda row: all(any(x) for x in zip(*row, strict=True)))


@pytest.mark.parametrize("width", [64, 32])
@given(data=st.data())
def test_any_row(width, data):
    pairs = np.array(data.draw(entries(width)), f"float{width}")
    for measure in EVERY:
        assert_right_everywhere(measure, pairs[np.newaxis, :, 0], pairs[np.newaxis, :, 1])


@pytest.mark.parametrize("n", [2, 5, 40])
def test_values_near_the_largest_number(n):
    """The divergence times the sum of p is infinite before the divergence is."""
    rng = np.random.default_rng(27)
    p, q = rng.random((2, 50, n)) + 0.5
    x, largest = p[:, 0] / p.sum(axis=1), np.finfo("f8").max
    q[:, 0] = x / largest * x * q[:, 1:].sum(axis=1) * np.linspace(0.9, 1.5, 50)
    right = exact(fastkl.chi2_divergence, p, q)
    assert 1 < np.isinf(right.high).sum() < 49
    assert_right_everywhere(fastkl.chi2_divergence, p, q, right)


COUNT_ROWS = [
    lambda rng, n: rng.integers(0, 100, n),
    lambda rng, n: rng.integers(1, 100, n),
    lambda rng, n: rng.integers(0, 2, n),
    lambda rng, n: 3 * rng.integers(1, 30, n) // (1 + rng.integers(0, 30)),
    lambda rng, n: np.full(n, rng.integers(1, 9)),
    lambda rng, n: (np.arange(n) == rng.integers(n)).astype(int),
]


@pytest.mark.parametrize("dtype", ["int64", "int32", "uint8"])
def test_counts(dtype):
    """Of short rows and of long ones; of sums whose product a double holds, and of larger ones; the same bits alone."""
    rng = np.random.default_rng(0)
    for n in 1, 2, 10, 128, 129, 1000:
        p, q = (np.stack([make(rng, n) for make in rng.permutation(COUNT_ROWS * 3)]) for _ in range(2))
        q[::4], q[1::4] = np.maximum(q, 1)[::4], np.maximum(p, 1)[1::4]
        scale = 10 ** rng.integers(13, size=(len(p), 1)) if dtype == "int64" else 1
        p, q = ((x + (x.sum(1, keepdims=True) == 0)).astype(dtype) for x in (p * scale, q))
        for measure in ONE_EACH:
            assert_right_everywhere(measure, p, q, source=f"n = {n}")
            assert_right_everywhere(measure, p.copy("F"), q.copy("F"), source=f"n = {n}, interleaved")
            any_sum = accepted(measure, normalize=True)
            values = measure(p, q, **any_sum)
            for i in range(0, len(p), 5):
                assert_same_bits(values[i : i + 1], measure(p[i : i + 1], q[i : i + 1], **any_sum))
            repeated = np.broadcast_to(q[0], q.shape)
            assert_same_bits(measure(p, repeated, **any_sum), measure(p, repeated.copy(), **any_sum))
            if measure in SYMMETRIC:
                assert_same_bits(values, measure(q, p, **any_sum))


# The reference, and the errors that these tests notice --------------------------------------------------------------------


def test_definitions():
    half, quarter = [0.5, 0.5], [0.25, 0.75]
    third = [3.0, 3.0, 3.0]
    with mp.workdps(60):
        known = [
            (reference.entropy(third), mp.log(3)),
            (reference.entropy([0.0, 2.0]), 0),
            (reference.entropy(quarter), mp.log(4) - mp.mpf(3) / 4 * mp.log(3)),
            (reference.cross_entropy(half, quarter), mp.log(4) - mp.log(3) / 2),
            (reference.cross_entropy([0.0, 1.0], [0.0, 1.0]), 0),
            (reference.kl_divergence(half, quarter), mp.log(2) - mp.log(3) / 2),
            (reference.kl_divergence(quarter, half), 3 * mp.log(3) / 4 - mp.log(2)),
            (reference.kl_divergence(third, [7.0, 7.0, 7.0]), 0),
        ]
        known += [
            (reference.hellinger_distance([1.0, 1.0], [1.0, 0.0]), mp.sqrt(1 - 1 / mp.sqrt(2))),
            (reference.hellinger_distance([0.0, 1.0], [1.0, 0.0]), 1),
            (reference.total_variation(half, quarter), mp.mpf(1) / 4),
            (reference.total_variation([0.0, 3.0], [1.0, 0.0]), 1),
            (reference.chi2_divergence(half, quarter), mp.mpf(1) / 3),
            (reference.chi2_divergence([0.0, 2.0, 0.0], [1.0, 1.0, 0.0]), 1),
            (reference.jeffreys_divergence(half, quarter), mp.log(3) / 4),
            (reference.jeffreys_divergence([0.0, 1.0], [1.0, 1.0], eps=1.0), 0),
            (reference.generalized_kl([1.0, 0.0, 4.0], [2.0, 3.0, 4.0]), 4 - mp.log(2)),
            (reference.generalized_kl([0.0, 0.0], [0.0, 0.5]), 0.5),
            (reference.generalized_kl([0.0, 0.0], [0.0, 0.0]), 0),
            (reference.renyi(2.0)(half, quarter), mp.log(mp.mpf(4) / 3)),
            (reference.renyi(0.5)(half, [0.0, 1.0]), mp.log(2)),
            (reference.renyi(mp.inf)(half, quarter), mp.log(2)),
            (reference.renyi(1.0)(half, quarter), mp.log(2) - mp.log(3) / 2),
        ]
        for value, expected in known:
            assert mp.almosteq(value, expected, abs_eps=mp.mpf(10) ** -55)
    infinite = ["kl_divergence", "cross_entropy", "jeffreys_divergence", "chi2_divergence", "generalized_kl"]
    for name in [*infinite, "renyi_divergence(2.0)", "renyi_divergence(1.000000001)"]:
        assert reference.DEFINITIONS[name](half, [0.0, 1.0]) == mp.inf
    assert reference.jeffreys_divergence([0.0, 1.0], half) == reference.renyi(0.5)([1.0, 0.0], [0.0, 1.0]) == mp.inf
    # phi(1, 1 + eps) + phi(1, 1) = eps^2/2 and half of its square as the sums differ: D = eps^2/8 for two such entries.
    eps = mp.mpf(2) ** -52
    assert mp.almosteq(reference.kl_divergence([1.0, 1.0], [1.0, 1 + 2.0**-52]), eps**2 / 8, rel_eps=2 * eps)


@pytest.mark.parametrize("dtype", ["float64", pytest.param("float32", marks=slow)])
def test_fast_reference(dtype):
    for generator in rows.GENERATORS:
        for p, q, source in rows.batches(generator, dtype, {2: 4, 33: 2}, seed=1):
            for measure, definition in reference.DEFINITIONS.items():
                operands = reference.operands(measure, p, q)
                found = reference.evaluate(measure, *operands)
                for i in range(len(p)):
                    right = definition(*(operand[i] for operand in operands))
                    with mp.workdps(60):
                        off = abs(mp.mpf(float(found.high[i])) + float(found.low[i]) - right)
                        free = 2.0**-70 * (abs(right) + definition.offset) + mp.mpf(2) ** -1074
                    same = off <= free or (found.high[i] == np.inf and right > np.finfo(float).max)
                    assert same, f"{measure} of row {i} of {source}"


@dtypes
def test_wrong_values_are_noticed(dtype):
    """Those of exchanged operands, and those of the plain formula for close rows."""
    p, q, _ = rows.make("apart", dtype, (8, 33), seed=0)
    for measure in fastkl.cross_entropy, fastkl.kl_divergence:
        name = measure.__name__
        assert np.all(reference.error(name, measure(q, p), exact(measure, p, q)) > reference.DEFINITIONS[name].bound)
    p, q, _ = rows.make("close", dtype, (32, 257), seed=0)
    errors = reference.error("kl_divergence", (p * np.log(p / q)).sum(axis=1), exact(fastkl.kl_divergence, p, q))
    assert np.median(errors) > reference.kl_divergence.bound
    with pytest.raises(AssertionError, match="off by"):
        assert_right_everywhere(fastkl.kl_divergence, p, q, exact(fastkl.kl_divergence, q, p))


@dtypes
def test_error_is_measured_in_units(dtype):
    one, eps = np.ones(1, dtype), float(np.finfo(dtype).eps)
    right = DoubleDouble.of(np.ones(1))
    infinite = DoubleDouble(one.astype(float) * np.inf, right.low)
    for measure, definition in reference.DEFINITIONS.items():
        unit = 1 + definition.offset
        assert reference.error(measure, one, right) == 0
        assert reference.error(measure, one, DoubleDouble(right.high, right.low + eps / 4)) == 0.25 / unit
        assert reference.error(measure, np.nextafter(one, one + 1), right) == 1 / unit
        for wrong in (-one, one * np.nan, one * np.inf):
            assert reference.error(measure, wrong, right) == np.inf
        assert reference.error(measure, one * np.float32(np.inf), infinite) == 0
        assert reference.error(measure, one, infinite) == np.inf
