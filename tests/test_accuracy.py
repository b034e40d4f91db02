"""The measures agree with the reference on every tier; the reference is right; these tests notice errors."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import reference
import rows
from double_double import DoubleDouble
from hypothesis import given
from hypothesis import strategies as st
from mpmath import mp

import fastkl

if TYPE_CHECKING:
    Array = np.ndarray[Any, Any]

MEASURES = {measure: getattr(fastkl, measure) for measure in reference.DEFINITIONS}

dtypes = pytest.mark.parametrize("dtype", ["float64", "float32"])
generators = pytest.mark.parametrize("generator", rows.GENERATORS)
measures = pytest.mark.parametrize("measure", MEASURES)


@functools.cache
def _known(generator: str, dtype: str, wide: bool) -> list[tuple[str, rows.Rows, DoubleDouble]]:
    """Return the right values of all measures of a generator's rows, computed once for all tiers."""
    batches = list(rows.batches(generator, dtype, rows.WIDE if wide else rows.WIDTHS))
    return [
        (measure, batch, reference.evaluate(measure, *_operands(measure, batch)))
        for measure in MEASURES
        for batch in batches
    ]


def _operands(measure: str, batch: rows.Rows) -> tuple[Array, ...]:
    return reference.operands(measure, batch.p, batch.q)


def _check(measure: str, batch: rows.Rows, values: Array, exact: DoubleDouble) -> None:
    errors = reference.error(measure, values, exact)
    i = int(np.argmax(errors))
    assert errors[i] <= reference.BOUND[measure], (
        f"{measure} is {values[i]!r}, should be {exact.high[i]!r}: off by {errors[i]:.3g} eps; {batch.describe(i)}"
    )
    assert not np.any(np.signbit(values)), f"{measure} is -0.0 in a row of {batch.source}"


@generators
@dtypes
def test_values(tier: str, dtype: str, generator: str) -> None:
    for measure, batch, exact in _known(generator, dtype, wide=False):
        values = MEASURES[measure](*_operands(measure, batch), normalize=True)
        assert values.dtype == dtype
        _check(measure, batch, values, exact)


@pytest.mark.parametrize("generator", rows.WIDE_GENERATORS)
@dtypes
def test_values_of_wide_rows(tier: str, dtype: str, generator: str) -> None:
    for measure, batch, exact in _known(generator, dtype, wide=True):
        operands = _operands(measure, batch)
        _check(measure, batch, MEASURES[measure](*operands, normalize=True), exact)
        interleaved = (np.repeat(x, 2, axis=0).copy("F") for x in operands)
        values = MEASURES[measure](*interleaved, normalize=True)
        _check(measure, batch, values[:1], exact)
        assert values[0] == values[1]


@functools.cache
def _many_balanced(dtype: str, n: int) -> tuple[rows.Rows, DoubleDouble]:
    batch = rows.make("balanced", dtype, (20_000, n), seed=n)
    return batch, reference.evaluate("kl_divergence", batch.p, batch.q)


@pytest.mark.parametrize("n", [2, 3, 5])
@dtypes
def test_divergences_whose_terms_cancel_most(tier: str, dtype: str, n: int) -> None:
    """Large errors are rare, one in thousands of rows."""
    batch, exact = _many_balanced(dtype, n)
    _check("kl_divergence", batch, fastkl.kl_divergence(batch.p, batch.q, normalize=True), exact)


def test_rounding_is_not_one_sided_in_long_columns(tier: str) -> None:
    """Additions of the same float are all rounded to one side while the sum keeps its exponent."""
    n = 2_000_000
    p = np.full((2, n), 1.7, np.float32, order="F")
    values = fastkl.entropy(p, normalize=True)
    assert np.all(np.abs(values - np.log(n)) <= reference.BOUND["entropy"] * np.finfo(np.float32).eps * (np.log(n) + 0.5))


@pytest.mark.parametrize("measure", ["js_divergence", "js_distance"])
@generators
@dtypes
def test_symmetric_measures_have_the_same_bits(tier: str, dtype: str, generator: str, measure: str) -> None:
    for batch in rows.batches(generator, dtype, rows.WIDTHS):
        for p in (batch.p, batch.p.astype(float)):
            for a, b in ((p, batch.q), *((p[i], batch.q[i]) for i in range(len(p)))):
                values = [MEASURES[measure](*pair, normalize=True) for pair in ((a, b), (b, a))]
                assert values[0].tobytes() == values[1].tobytes(), batch.source


@generators
@dtypes
def test_equal_rows_do_not_diverge(tier: str, dtype: str, generator: str) -> None:
    for batch in rows.batches(generator, dtype, rows.WIDTHS):
        for p in batch[:2]:
            for q in (p.copy(), p.astype(float)):
                for measure in (fastkl.kl_divergence, fastkl.js_divergence, fastkl.js_distance):
                    values = measure(p, q, normalize=True)
                    assert np.all((values == 0) & ~np.signbit(values)), batch.source


@measures
@dtypes
def test_checking_the_sums_changes_no_value(tier: str, dtype: str, measure: str) -> None:
    for batch in rows.batches("slack", dtype, rows.WIDTHS):
        operands = _operands(measure, batch)
        checked, unchecked = (MEASURES[measure](*operands, normalize=normalize) for normalize in (False, True))
        assert checked.tobytes() == unchecked.tobytes(), batch.source


@pytest.mark.parametrize("measure", ["cross_entropy", "kl_divergence"])
@pytest.mark.parametrize("generator", ["apart", "outliers", "zeros", "one_hot"])
@dtypes
def test_values_with_eps(tier: str, dtype: str, generator: str, measure: str) -> None:
    for batch in rows.batches(generator, dtype, rows.WIDTHS):
        for eps in (1e-300, 1e-12, 0.1):
            exact = reference.evaluate(measure, batch.p, np.maximum(batch.q.astype(float), eps))
            _check(measure, batch, MEASURES[measure](batch.p, batch.q, normalize=True, eps=eps), exact)


@pytest.mark.parametrize("measure", ["cross_entropy", "kl_divergence"])
@pytest.mark.parametrize(("p_dtype", "q_dtype"), [("float32", "float64"), ("int32", "float32"), ("uint16", "int64")])
def test_values_of_mixed_dtypes(tier: str, p_dtype: str, q_dtype: str, measure: str) -> None:
    for batch in rows.batches("counts", "float32", rows.WIDTHS):
        p, q = (batch.p % 65536).astype(p_dtype), batch.q.astype(q_dtype)
        values = MEASURES[measure](p, q, normalize=True)
        assert values.dtype == np.float64
        _check(measure, batch, values, reference.evaluate(measure, p, q))


def _entries(width: int) -> st.SearchStrategy[Any]:
    numbers = st.floats(0, allow_infinity=False, allow_nan=False, width=width)
    pairs = st.tuples(numbers, numbers) | numbers.map(lambda x: (x, x))
    return st.lists(pairs, min_size=1, max_size=40).filter(lambda row: all(any(x) for x in zip(*row, strict=True)))


@pytest.mark.parametrize("width", [64, 32])
@given(data=st.data())
def test_any_row(tier: str, width: int, data: st.DataObject) -> None:
    pairs = np.array(data.draw(_entries(width)), f"float{width}")
    batch = rows.Rows(pairs[np.newaxis, :, 0], pairs[np.newaxis, :, 1], "hypothesis")
    for measure, function in MEASURES.items():
        operands = _operands(measure, batch)
        _check(measure, batch, function(*operands, normalize=True), reference.evaluate(measure, *operands))


# The reference, and the errors that these tests notice --------------------------------------------------------------------


def test_definitions() -> None:
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
        for value, expected in known:
            assert mp.almosteq(value, expected, abs_eps=mp.mpf(10) ** -55)
    assert reference.kl_divergence(half, [0.0, 1.0]) == reference.cross_entropy(half, [0.0, 1.0]) == mp.inf
    # phi(1, 1 + eps) + phi(1, 1) = eps^2/2 and half of its square as the sums differ: D = eps^2/8 for two such entries.
    eps = mp.mpf(2) ** -52
    assert mp.almosteq(reference.kl_divergence([1.0, 1.0], [1.0, 1 + 2.0**-52]), eps**2 / 8, rel_eps=2 * eps)


@generators
@dtypes
def test_fast_reference(dtype: str, generator: str) -> None:
    for batch in rows.batches(generator, dtype, {2: 4, 33: 2}, seed=1):
        for measure, definition in reference.DEFINITIONS.items():
            operands = _operands(measure, batch)
            found = reference.evaluate(measure, *operands)
            for i in range(len(batch.p)):
                exact = definition(*(operand[i] for operand in operands))
                with mp.workdps(60):
                    off = abs(mp.mpf(float(found.high[i])) + float(found.low[i]) - exact)
                    free = 2.0**-70 * (abs(exact) + reference.OFFSET[measure]) + mp.mpf(2) ** -1074
                assert off <= free or exact == mp.inf == found.high[i], f"{measure}: {batch.describe(i)}"


@pytest.mark.parametrize("measure", ["cross_entropy", "kl_divergence"])
@dtypes
def test_exchanged_operands_are_noticed(dtype: str, measure: str) -> None:
    batch = rows.make("apart", dtype, (8, 33), seed=0)
    exact = reference.evaluate(measure, batch.p, batch.q)
    assert np.all(reference.error(measure, MEASURES[measure](batch.q, batch.p), exact) > reference.BOUND[measure])


@dtypes
def test_the_plain_formula_is_noticed(dtype: str) -> None:
    batch = rows.make("close", dtype, (32, 257), seed=0)
    p, q = batch[:2]
    errors = reference.error("kl_divergence", (p * np.log(p / q)).sum(axis=1), reference.evaluate("kl_divergence", p, q))
    assert np.median(errors) > reference.BOUND["kl_divergence"]


@measures
@dtypes
def test_error_is_measured_in_units(dtype: str, measure: str) -> None:
    one, eps = np.ones(1, dtype), float(np.finfo(dtype).eps)
    exact = DoubleDouble.of(np.ones(1))
    unit = 1 + reference.OFFSET[measure]
    assert reference.error(measure, one, exact) == 0
    assert reference.error(measure, one, DoubleDouble(exact.high, exact.low + eps / 4)) == 0.25 / unit
    assert reference.error(measure, np.nextafter(one, one + 1), exact) == 1 / unit
    for wrong in (-one, one * np.nan, one * np.inf):
        assert reference.error(measure, wrong, exact) == np.inf
    infinite = DoubleDouble(one.astype(float) * np.inf, exact.low)
    assert reference.error(measure, one * np.float32(np.inf), infinite) == 0
    assert reference.error(measure, one, infinite) == np.inf
