"""Values of logits and labels against the reference, on every tier; the reference is right, and errors are noticed."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, NamedTuple

import logit_rows
import logits_reference
import numpy as np
import pytest
import reference
from double_double import DoubleDouble, exp
from mpmath import mp

import fastkl

if TYPE_CHECKING:
    Array = np.ndarray[Any, Any]

MEASURES = {measure: getattr(fastkl, measure) for measure in logits_reference.DEFINITIONS}

# The measures of every batch; the reference of the widest rows takes longest, so that only some are checked.
CHECKED = tuple(name for name in MEASURES if name != "js_distance")  # which is made from js_divergence
CHECKED_OF_WIDEST = {"close": ("kl_divergence", "js_divergence"), "masked": ("cross_entropy", "kl_divergence")}

TEMPERATURES = (1.0, 0.5, 3.0, 0.7)

dtypes = pytest.mark.parametrize("dtype", logit_rows.FORMATS)
generators = pytest.mark.parametrize("generator", logit_rows.GENERATORS)


class Known(NamedTuple):
    """The exact values of a measure, or of labels, for some rows."""

    measure: str
    rows: logit_rows.Rows
    temperature: float
    exact: DoubleDouble


def _known_of(batch: logit_rows.Rows, temperature: float, measures: tuple[str, ...]) -> list[Known]:
    found = [
        Known(m, batch, temperature, logits_reference.evaluate(m, *_operands(m, batch), temperature=temperature))
        for m in measures
    ]
    with np.errstate(invalid="ignore"):
        roots = [k._replace(measure="js_distance", exact=k.exact.sqrt()) for k in found if k.measure == "js_divergence"]
    return found + roots


@functools.cache
def _known(generator: str, dtype: str) -> list[Known]:
    """Measures of rows of all widths, computed once for all tiers."""
    sizes = [(logit_rows.WIDTHS, CHECKED)]
    if generator in logit_rows.WIDE_GENERATORS:
        sizes.append((logit_rows.WIDE, CHECKED))
    if generator in CHECKED_OF_WIDEST:
        sizes.append((logit_rows.WIDEST, CHECKED_OF_WIDEST[generator]))
    batches = [(batch, m) for widths, m in sizes for batch in logit_rows.batches(generator, dtype, widths)]
    first = list(logit_rows.GENERATORS).index(generator)
    return [
        known
        for i, (batch, measures) in enumerate(batches)
        for known in _known_of(batch, TEMPERATURES[(first + i) % len(TEMPERATURES)], measures)
    ]


def _operands(measure: str, batch: logit_rows.Rows) -> tuple[Array, ...]:
    return reference.operands(measure, batch.p, batch.q)


def _check(known: Known, values: Array, from_logits: tuple[bool, bool] = logits_reference.BOTH) -> None:
    measure, batch, temperature, exact = known
    errors = logits_reference.error(measure, values, exact, from_logits)
    i = int(np.argmax(errors))
    assert errors[i] <= logits_reference.BOUND[measure], (
        f"{measure} is {values[i]!r}, should be {exact.high[i]!r}: off by {errors[i]:.3g} eps; "
        f"from_logits={from_logits}, temperature={temperature}, {batch.describe(i)}"
    )
    assert not np.any(np.signbit(values)), f"{measure} is -0.0 in a row of {batch.source}"


@generators
@dtypes
def test_values(tier: str, dtype: str, generator: str) -> None:
    given = logit_rows.FORMATS[dtype].given
    for known in _known(generator, dtype):
        operands = map(given, _operands(known.measure, known.rows))
        values = MEASURES[known.measure](*operands, from_logits=True, temperature=known.temperature)
        assert values.dtype == ("float64" if dtype == "float64" else "float32")
        _check(known, values)


def test_rows_are_many_and_of_all_sizes() -> None:
    """Otherwise the test above says little."""
    for dtype in logit_rows.FORMATS:
        known = [known for generator in logit_rows.GENERATORS for known in _known(generator, dtype)]
        divergences = [k for k in known if k.measure == "kl_divergence"]
        d = np.concatenate([k.exact.high for k in divergences])
        assert len(d) >= 5000
        assert {k.rows.p.shape[1] for k in divergences} >= {*logit_rows.WIDTHS, *logit_rows.WIDE, *logit_rows.WIDEST}
        assert np.sum(np.isinf(d)) >= 10
        edges = np.array([1e-30, 1e-14, 1e-10, 1e-6, 1e-2, 1, 100, 1e4, 1e5])
        assert np.all(np.histogram(d, edges)[0] >= 10), f"{dtype}: {np.histogram(d, edges)}"


# Comparisons and labels --------------------------------------------------------------------------------------------------


@generators
@dtypes
def test_comparisons(tier: str, dtype: str, generator: str) -> None:
    """`compare` has the same values from one read, among them the divergence of q from p."""
    given = logit_rows.FORMATS[dtype].given
    fields = {"entropy": "entropy_p", "kl_divergence": "kl", "js_divergence": "js", "cross_entropy": "cross_entropy"}
    comparisons: dict[str, fastkl.measures.Comparison] = {}
    for known in _known(generator, dtype):
        batch, temperature = known.rows, known.temperature
        if batch.source not in comparisons:
            comparisons[batch.source] = fastkl.compare(
                given(batch.p), given(batch.q), from_logits=True, temperature=temperature
            )
        if known.measure in fields:
            _check(known, getattr(comparisons[batch.source], fields[known.measure]))


@functools.cache
def _known_swapped(generator: str, dtype: str) -> list[tuple[Known, Known]]:
    found = []
    for batch in logit_rows.batches(generator, dtype, {2: 8, 17: 8, 100: 4, 1025: 1}, seed=2):
        swapped = logit_rows.Rows(batch.q, batch.p, f"the reverse of {batch.source}")
        divergence = logits_reference.evaluate("kl_divergence", batch.q, batch.p, temperature=0.7)
        entropy = logits_reference.evaluate("entropy", batch.q, temperature=0.7)
        found.append((Known("kl_divergence", swapped, 0.7, divergence), Known("entropy", swapped, 0.7, entropy)))
    return found


@generators
@dtypes
def test_comparisons_of_q(tier: str, dtype: str, generator: str) -> None:
    given = logit_rows.FORMATS[dtype].given
    for divergence, entropy in _known_swapped(generator, dtype):
        q, p = map(given, divergence.rows[:2])
        found = fastkl.compare(p, q, from_logits=True, temperature=0.7)
        _check(divergence, found.reverse_kl)
        _check(entropy, found.entropy_q)


@functools.cache
def _known_nll(generator: str, dtype: str) -> list[tuple[logit_rows.Rows, Array, DoubleDouble]]:
    found = []
    for batch in logit_rows.batches(generator, dtype, {1: 2, 2: 30, 7: 30, 17: 30, 100: 10, 1025: 2, 3000: 1}, seed=3):
        labels = np.random.default_rng(len(batch.source)).integers(batch.q.shape[1], size=len(batch.q))
        labels[::2] = batch.q[::2].argmax(axis=1)
        found.append((batch, labels, logits_reference.losses(batch.q, labels, temperature=3.0)))
    return found


@generators
@dtypes
def test_nll(tier: str, dtype: str, generator: str) -> None:
    given = logit_rows.FORMATS[dtype].given
    for batch, labels, exact in _known_nll(generator, dtype):
        values = fastkl.nll(labels, given(batch.q), from_logits=True, temperature=3.0)
        _check(Known("cross_entropy", batch, 3.0, exact), values)
        found = fastkl.compare(given(batch.p), given(batch.q), labels, from_logits=True, temperature=3.0)
        _check(Known("cross_entropy", batch, 3.0, exact), found.nll_q)


# Logits beside probabilities ---------------------------------------------------------------------------------------------


@functools.cache
def _known_mixed(generator: str, dtype: str, logits_of: int) -> list[Known]:
    found = []
    for batch in logit_rows.batches(generator, dtype, {2: 8, 3: 8, 17: 8, 100: 2, 1025: 1}, seed=1):
        logits = batch[:2]
        most = logits[1 - logits_of].max(axis=1, keepdims=True)
        with np.errstate(over="ignore", under="ignore"):
            weights = logit_rows.FORMATS[dtype].rounded(np.exp((logits[1 - logits_of] - most) / 0.7))
        pair = (logits[0], weights) if logits_of == 0 else (weights, logits[1])
        rows = logit_rows.Rows(*pair, f"one of them as probabilities: {batch.source}")
        for measure in ("cross_entropy", "kl_divergence", "js_divergence"):
            exact = logits_reference.evaluate(measure, *pair, (logits_of == 0, logits_of == 1), 0.7)
            found.append(Known(measure, rows, 0.7, exact))
    return found


@pytest.mark.parametrize("logits_of", [0, 1], ids=["p", "q"])
@pytest.mark.parametrize("generator", [g for g in logit_rows.GENERATORS if g not in logit_rows.SLOW_GENERATORS])
@dtypes
def test_values_of_logits_beside_probabilities(tier: str, dtype: str, generator: str, logits_of: int) -> None:
    given, kinds = logit_rows.FORMATS[dtype].given, (logits_of == 0, logits_of == 1)
    from_logits = ("p", "q")[logits_of]
    for known in _known_mixed(generator, dtype, logits_of):
        operands = map(given, known.rows[:2])
        values = MEASURES[known.measure](*operands, from_logits=from_logits, temperature=0.7, normalize=True)
        _check(known, values, kinds)


# Values that are 0 --------------------------------------------------------------------------------------------------------


@generators
@dtypes
def test_equal_rows_do_not_diverge(tier: str, dtype: str, generator: str) -> None:
    given = logit_rows.FORMATS[dtype].given
    for batch in logit_rows.batches(generator, dtype, logit_rows.WIDTHS, seed=4):
        for rows in batch[:2]:
            for q in (given(rows), rows):
                for measure in (fastkl.kl_divergence, fastkl.js_divergence, fastkl.js_distance):
                    values = measure(given(rows), q, from_logits=True, temperature=0.7)
                    assert np.all((values == 0) & ~np.signbit(values)), f"{measure.__name__}: {batch.source}"


@generators
@dtypes
def test_js_divergence_is_symmetric_to_the_bit(tier: str, dtype: str, generator: str) -> None:
    given = logit_rows.FORMATS[dtype].given
    for batch in logit_rows.batches(generator, dtype, {2: 8, 17: 8, 100: 4, 1025: 1}, seed=7):
        p, q = map(given, batch[:2])
        values = [fastkl.js_divergence(*pair, from_logits=True) for pair in ((p, q), (q, p))]
        assert values[0].tobytes() == values[1].tobytes(), batch.source


@functools.cache
def _known_constants(dtype: str, temperature: float) -> list[tuple[Array, Array, dict[str, Array]]]:
    """Rows and the same rows with a constant added, exactly on a coarse grid, or rounded; their divergences."""
    form, found = logit_rows.FORMATS[dtype], []
    rng = np.random.default_rng(5)
    for n in (2, 3, 17, 100, 1025, 3000):
        coarse = rng.integers(-32, 33, (8, n)) / 4
        constant = rng.integers(-16, 17, (8, 1)) * 2.0
        nothing = dict.fromkeys(("kl_divergence", "js_divergence"), np.zeros(8))
        found.append((coarse, coarse + constant, nothing))
        if n < 1000:
            fine = form.rounded(8 * rng.standard_normal((8, n)))
            rounded = form.rounded(fine + constant)
            exact = {m: logits_reference.evaluate(m, fine, rounded, temperature=temperature).high for m in nothing}
            found.append((fine, rounded, exact))
    return found


@pytest.mark.parametrize("temperature", TEMPERATURES)
@dtypes
def test_a_constant_is_no_divergence(tier: str, dtype: str, temperature: float) -> None:
    given = logit_rows.FORMATS[dtype].given
    for p, q, exact in _known_constants(dtype, temperature):
        for measure, divergence in exact.items():
            values = MEASURES[measure](given(p), given(q), from_logits=True, temperature=temperature)
            small = 4 * np.finfo(values.dtype).eps
            assert np.all((values >= 0) & (values <= divergence + small)), f"{measure}: {values}, n = {p.shape[1]}"


# The reference, and errors that are noticed ------------------------------------------------------------------------------


def test_exponential() -> None:
    rng = np.random.default_rng(0)
    high = np.concatenate([rng.uniform(-600, 600, 200), rng.uniform(-1, 1, 100), 10 ** rng.uniform(-30, 0, 50), [0.0]])
    x = DoubleDouble(high, high * 2.0**-54 * rng.uniform(-1, 1, len(high)))
    found = exp(x)
    for i in range(len(high)):
        with mp.workdps(60):
            exact = mp.exp(mp.mpf(float(x.high[i])) + float(x.low[i]))
            off = abs(mp.mpf(float(found.high[i])) + float(found.low[i]) - exact) / exact
            assert off <= max(1, abs(high[i])) * 2.0**-101
    assert exp(DoubleDouble.of(np.array([-np.inf, -1e9]))).high.tolist() == [0, 0]


def test_definitions() -> None:
    """Logits that are logarithms of probabilities have the values that reference.py has for these."""
    infinity = np.inf
    assert logits_reference.entropy([3.0, 3.0, -infinity]) == pytest.approx(float(mp.log(2)))
    assert logits_reference.kl_divergence([1.0, 2.0], [101.0, 102.0]) == 0
    assert logits_reference.kl_divergence([1.0, 2.0], [1.0, -infinity]) == mp.inf
    assert logits_reference.cross_entropy([0.0, -infinity], [5.0, -infinity]) == 0
    assert logits_reference.js_divergence([0.0, -infinity], [-infinity, 0.0]) == pytest.approx(float(mp.log(2)))
    p, q = [0.5, 0.25, 0.25], [0.125, 0.375, 0.5]
    for measure, definition in logits_reference.DEFINITIONS.items():
        operands = reference.operands(measure, p, q)
        expected = reference.DEFINITIONS[measure](*operands)
        from_logits = definition(*(2 * np.log(x) for x in operands), temperature=2.0)
        assert mp.almosteq(expected, from_logits, rel_eps=2.0**-48)
        assert mp.almosteq(expected, definition(*operands, from_logits=(False, False)), rel_eps=2.0**-150)


@pytest.mark.parametrize(
    ("kinds", "temperature"),
    [((True, True), 1.0), ((True, True), 0.7), ((False, True), 0.7), ((True, False), 0.7)],
    ids=["logits", "tempered", "p", "q"],
)
@pytest.mark.parametrize("generator", [g for g in logit_rows.GENERATORS if g not in logit_rows.SLOW_GENERATORS])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_fast_reference(dtype: str, generator: str, temperature: float, kinds: tuple[bool, bool]) -> None:
    for batch in logit_rows.batches(generator, dtype, {2: 2, 20: 1}, seed=6):
        with np.errstate(under="ignore"):
            pair = [
                x if logits else np.exp(x - x.max(axis=1, keepdims=True))
                for x, logits in zip(batch[:2], kinds, strict=True)
            ]
        for measure, definition in logits_reference.DEFINITIONS.items():
            operands = reference.operands(measure, *pair)
            found = logits_reference.evaluate(measure, *operands, from_logits=kinds, temperature=temperature)
            for i in range(len(batch.p)):
                rows = (operand[i] for operand in operands)
                exact = definition(*rows, from_logits=kinds, temperature=temperature)
                with mp.workdps(60):
                    off = abs(mp.mpf(float(found.high[i])) + float(found.low[i]) - exact)
                    # A logarithm of a probability is wrong by 2^-90, which its difference to a logit may be, too.
                    free = 2.0**-65 * (abs(exact) + reference.OFFSET[measure]) + mp.mpf(2) ** -1074
                    if not all(kinds):
                        free += 2.0**-85 * (1 if measure == "js_distance" else mp.sqrt(exact))
                assert off <= free or exact == mp.inf == found.high[i], f"{measure}: {batch.describe(i)}"


@dtypes
def test_exchanged_operands_are_noticed(dtype: str) -> None:
    batch = logit_rows.make("far", dtype, (8, 33), seed=0)
    exact = logits_reference.evaluate("kl_divergence", *batch[:2])
    values = fastkl.kl_divergence(*map(logit_rows.FORMATS[dtype].given, batch[1::-1]), from_logits=True)
    assert np.all(logits_reference.error("kl_divergence", values, exact) > logits_reference.BOUND["kl_divergence"])


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_errors_of_the_plain_formula_are_noticed(dtype: str) -> None:
    batch = logit_rows.make("close", dtype, (32, 257), seed=0)
    p, q = (x.astype(dtype) - np.log(np.exp(x.astype(dtype)).sum(axis=1, keepdims=True)) for x in batch[:2])
    values = (np.exp(p) * (p - q)).sum(axis=1)
    errors = logits_reference.error("kl_divergence", values, logits_reference.evaluate("kl_divergence", *batch[:2]))
    assert np.median(errors) > logits_reference.BOUND["kl_divergence"]
