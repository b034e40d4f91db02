"""Values of logits and labels against the reference, on every tier; the reference is right, and errors are noticed."""

import functools
import itertools
from functools import partial

import numpy as np
import pytest
from mpmath import mp
from support import logit_rows, logits_reference, reference
from support.double_double import DoubleDouble, exp
from support.inputs import encoded
from support.logits import DIVERGENCES, assert_near, call, drawn, right
from support.logits_reference import BOTH
from support.measures import on_every_tier

import fastkl

# What `compare` returns, by the measure and the operands of each field.
FIELDS = {
    "entropy_p": ("entropy", "p"),
    "cross_entropy": ("cross_entropy", "pq"),
    "kl": ("kl_divergence", "pq"),
    "js": ("js_divergence", "pq"),
    "entropy_q": ("entropy", "q"),
    "reverse_kl": ("kl_divergence", "qp"),
}

# The reference of the widest rows takes longest, so that only some fields of some rows are checked.
WIDEST = {"close": ("kl", "js"), "masked": ("cross_entropy", "kl")}

TEMPERATURES = (1.0, 0.5, 3.0, 0.7)

slow = pytest.mark.slow
each_size = pytest.mark.parametrize("many", [False, pytest.param(True, marks=slow)], ids=["few", "many"])
each_generator = pytest.mark.parametrize("generator", logit_rows.GENERATORS)
each_quick_generator = pytest.mark.parametrize("generator", logit_rows.QUICK_GENERATORS)


@functools.cache
def _known(generator, dtype, many):
    """Rows of all widths, labels, a temperature, and the values of fields, which are computed once."""
    sizes = [(logit_rows.WIDTHS if many else logit_rows.FEW, tuple(FIELDS)[: 4 if many else 6])]
    if many and generator in logit_rows.WIDE_GENERATORS:
        sizes.append((logit_rows.WIDE, tuple(FIELDS)[:4]))
    if many and generator in WIDEST:
        sizes.append((logit_rows.WIDEST, WIDEST[generator]))
    batches = [(batch, fields) for widths, fields in sizes for batch in logit_rows.batches(generator, dtype, widths)]
    first, known = list(logit_rows.GENERATORS).index(generator), []
    for i, (batch, fields) in enumerate(batches, first):
        temperature, exact = TEMPERATURES[i % len(TEMPERATURES)], {}
        for field in fields:
            measure, names = FIELDS[field]
            operands = (getattr(batch, name) for name in names)
            exact[field] = logits_reference.evaluate(measure, *operands, temperature=temperature)
        labels = drawn(i, batch.q.shape[1], len(batch.q))
        labels[::2] = batch.q[::2].argmax(axis=1)
        exact["nll_q"] = logits_reference.losses(batch.q, labels, temperature=temperature)
        known.append((batch, labels, temperature, exact))
    return known


def assert_known(known, dtype):
    """Each field is right by a call of its own and in `compare`, and JS is symmetric to the bit."""
    (p, q, source), labels, temperature, exact = known
    rows, keywords = {"p": encoded(p, dtype), "q": encoded(q, dtype)}, {"temperature": temperature}
    compared = fastkl.compare(rows["p"], rows["q"], labels, from_logits=True, **keywords)
    for field, wanted in exact.items():
        measure, names = FIELDS.get(field, ("cross_entropy", "q"))
        operands = [rows[name] for name in names]
        if field == "nll_q":
            values = fastkl.nll(labels, *operands, from_logits=True, **keywords)
        else:
            values = call(measure, operands[0], operands[-1], **keywords)
        assert values.dtype == ("f8" if dtype == "f8" else "f4")
        for found, caller in (values, measure), (getattr(compared, field), "compare"):
            assert_near(measure, found, wanted, source=f"{field} by {caller} at {temperature} of {source}")
        if field == "js":
            assert call(measure, *operands[::-1], **keywords).tobytes() == values.tobytes(), source
            with np.errstate(invalid="ignore"):
                assert_near("js_distance", call("js_distance", *operands, **keywords), wanted.sqrt(), source=source)


@each_size
@each_generator
def test_values(generator, many):
    for name, dtype in logit_rows.DTYPES.items():
        for known in _known(generator, name, many):
            on_every_tier(partial(assert_known, known, dtype))


@slow
def test_rows_are_many_and_of_all_sizes():
    """Otherwise the test above says little."""
    for dtype in logit_rows.DTYPES:
        known = [known for generator in logit_rows.GENERATORS for known in _known(generator, dtype, True)]
        d = np.concatenate([exact["kl"].high for *_, exact in known])
        assert len(d) >= 5000
        assert {rows.p.shape[1] for rows, *_ in known} >= {*logit_rows.WIDTHS, *logit_rows.WIDE, *logit_rows.WIDEST}
        assert np.sum(np.isinf(d)) >= 10
        edges = np.array([1e-30, 1e-14, 1e-10, 1e-6, 1e-2, 1, 100, 1e4, 1e5])
        assert np.all(np.histogram(d, edges)[0] >= 10), f"{dtype}: {np.histogram(d, edges)}"


@each_size
@each_quick_generator
def test_values_of_logits_beside_probabilities(generator, many):
    widths = {2: 8, 3: 8, 17: 8, 100: 2, 1025: 1} if many else {3: 3, 17: 3}
    for (name, dtype), from_logits in itertools.product(logit_rows.DTYPES.items(), "pq"):
        for j, (*pair, source) in enumerate(logit_rows.batches(generator, name, widths, seed=1), len(name)):
            i, temperature = "qp".index(from_logits), TEMPERATURES[j % len(TEMPERATURES)]
            with np.errstate(over="ignore", under="ignore"):
                weights = np.exp((pair[i] - pair[i].max(axis=1, keepdims=True)) / temperature)
            pair[i] = logit_rows.rounded(weights, dtype)
            rows = [encoded(x, dtype) for x in pair]
            for measure in "cross_entropy", "kl_divergence", "js_divergence":
                exact = right(measure, *pair, from_logits, temperature=temperature)
                found = on_every_tier(partial(call, measure, *rows, from_logits, temperature=temperature, normalize=True))
                for tier, values in found.items():
                    assert_near(measure, values, exact, mixed=True, source=f"{source}, {from_logits} of logits, {tier}")


# Values that are 0 --------------------------------------------------------------------------------------------------------


@each_size
@each_generator
def test_equal_rows_do_not_diverge(tier, generator, many):
    widths = logit_rows.WIDTHS | dict.fromkeys((31, 32, 33, 64, 127, 128, 129, 2048, 3001), 3)
    for i, (name, dtype) in enumerate(logit_rows.DTYPES.items()):
        for batch in logit_rows.batches(generator, name, widths if many else logit_rows.FEW, seed=4):
            for j, rows in enumerate(batch[:2]):
                p, temperature = encoded(rows, dtype), (1.0, 0.1, 3.0, 0.7)[(i + j) % 4]
                for q in p.copy(), rows:
                    for measure in DIVERGENCES:
                        values = call(measure, p, q, temperature=temperature)
                        assert np.all((values == 0) & ~np.signbit(values)), f"{measure}: {batch.source}"


def _constants(dtype, n):
    """Rows and the same rows with a constant added, exactly on a coarse grid, or rounded."""
    rng = np.random.default_rng(5)
    coarse, constant = rng.integers(-32, 33, (8, n)) / 4, rng.integers(-16, 17, (8, 1)) * 2.0
    yield coarse, coarse + constant
    if dtype.itemsize > 2:  # whole numbers up to 2^13 are exact
        yield np.rint(coarse), np.rint(coarse) + np.array([[1, -7, 100, 1000, -4096, 777, -31, 2]]).T
    if n < 1000:
        fine = logit_rows.rounded(8 * rng.standard_normal((8, n)), dtype)
        yield fine, logit_rows.rounded(fine + constant, dtype)


@each_size
@pytest.mark.parametrize("temperature", [*TEMPERATURES, 0.1])
def test_a_constant_is_no_divergence(temperature, many):
    """Four eps is for divergences: the distance is a root."""
    few, more = (1, 3, 17, 1025), (2, 7, 31, 32, 33, 64, 100, 127, 128, 129, 1000, 1023, 1024, 2048, 3001)
    for dtype, n in itertools.product(logit_rows.DTYPES.values(), more if many else few):
        for (p, q), measure in itertools.product(_constants(dtype, n), DIVERGENCES):
            exact = right(measure, p, q, temperature=temperature).high
            compute = partial(call, measure, encoded(p, dtype), encoded(q, dtype), temperature=temperature)
            for tier, values in on_every_tier(compute).items():
                power = 2 if measure == "js_distance" else 1
                most = exact**power + 4 * np.finfo(values.dtype).eps
                assert np.all((values >= 0) & (values**power <= most)), f"{measure}: {values}, {n=}, {tier}"


# The reference, and errors that are noticed ------------------------------------------------------------------------------


def test_exponential():
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


def test_definitions():
    """Logits that are logarithms of probabilities have the values of these, in either operand."""
    infinity = np.inf
    assert reference.entropy([3.0, 3.0, -infinity], from_logits=BOTH) == pytest.approx(float(mp.log(2)))
    assert reference.kl_divergence([1.0, 2.0], [101.0, 102.0], BOTH) == 0
    assert reference.kl_divergence([1.0, 2.0], [1.0, -infinity], BOTH) == mp.inf
    assert reference.cross_entropy([0.0, -infinity], [5.0, -infinity], BOTH) == 0
    assert reference.js_divergence([0.0, -infinity], [-infinity, 0.0], BOTH) == pytest.approx(float(mp.log(2)))
    assert reference.loss([0.25, 0.75], 0, 0.5) == pytest.approx(-0.75 * np.log(0.25) - 0.25 * np.log(0.75))
    assert reference.kl_divergence([0.5, 0.5], [0.0, 0.5], eps=0.5) == 0
    assert reference.kl_divergence([0.5, 0.5], [-infinity, 0.0], (False, True), eps=1.0) == 0
    p, q = [0.5, 0.25, 0.25], [0.125, 0.375, 0.5]
    logs = [2 * np.log(x) for x in (p, q)]
    for measure, definition in logits_reference.DEFINITIONS.items():
        expected = definition(*reference.operands(measure, p, q))
        for kinds in BOTH, (True, False), (False, True):
            rows = (x if logits else y for x, y, logits in zip(logs, (p, q), kinds, strict=True))
            found = definition(*reference.operands(measure, *rows), from_logits=kinds, temperature=2.0)
            assert mp.almosteq(expected, found, rel_eps=2.0**-48)


@pytest.mark.parametrize(
    ("kinds", "temperature"), [(BOTH, 1.0), (BOTH, 0.7), ((False, True), 0.7), ((True, False), 0.7)], ids=str
)
@each_size
@each_quick_generator
def test_fast_reference(generator, many, temperature, kinds):
    for dtype in ("float64", "float32") if many else ("float64",):
        for batch in logit_rows.batches(generator, dtype, {2: 2, 20: 1} if many else {7: 1}, seed=6):
            with np.errstate(under="ignore"):
                pair = [x if k else np.exp(x - x.max(axis=1, keepdims=True)) for x, k in zip(batch[:2], kinds, strict=True)]
            for measure, definition in logits_reference.DEFINITIONS.items():
                operands = reference.operands(measure, *pair)
                found = logits_reference.evaluate(measure, *operands, from_logits=kinds, temperature=temperature)
                for i in range(len(batch.p)):
                    rows = (operand[i] for operand in operands)
                    exact = definition(*rows, from_logits=kinds, temperature=temperature)
                    with mp.workdps(60):
                        off = abs(mp.mpf(float(found.high[i])) + float(found.low[i]) - exact)
                        free = 2.0**-65 * (abs(exact) + definition.offset) + mp.mpf(2) ** -1074
                        if definition is reference.total_variation:
                            free += 2.0**-97  # as weights are rounded
                        else:
                            free += 2.0**-85 * (1 if definition.root else mp.sqrt(exact))
                    right = off <= free or (found.high[i] == np.inf and exact > np.finfo(float).max)
                    assert right, f"{measure} of row {i} of {batch.source}"


@pytest.mark.parametrize("name", logit_rows.DTYPES)
def test_wrong_values_are_noticed(name):
    """Those of exchanged operands, and those of the plain formula for close rows."""
    p, q, _ = logit_rows.make("far", name, (8, 33), seed=0)
    values = call("kl_divergence", *(encoded(x, logit_rows.DTYPES[name]) for x in (q, p)))
    assert np.all(logits_reference.error("kl_divergence", values, right("kl_divergence", p, q)) > 32)
    if name in ("float64", "float32"):
        rows = logit_rows.make("close", name, (32, 257), seed=0)[:2]
        p, q = (x.astype(name) - np.log(np.exp(x.astype(name)).sum(axis=1, keepdims=True)) for x in rows)
        errors = logits_reference.error("kl_divergence", (np.exp(p) * (p - q)).sum(axis=1), right("kl_divergence", *rows))
        assert np.median(errors) > 32
