"""The summary of a stream against the definitions, in any order and grouping; and values that it refuses.

The definitions are computed here in fractions and with `np.quantile`; the bounds are those of Summary's docstring.
"""

import copy
import math
import pickle
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastkl.batch import bins, summary
from fastkl.batch.bins import Bins
from fastkl.batch.summary import Summary

EPS = Fraction(2) ** -52
MAX = float(np.finfo(np.float64).max)
TINY = 5e-324
GROUP = 1 << 17  # values that are counted together
LEVELS = ["0.001", "0.01", "0.05", "0.25", "0.5", "0.75", "0.95", "0.99", "0.999"]
KEYS = ["rows", "ignored", "mean", "stderr", "std", "min", "max", "max_row", "quantiles", "cvar95"]
KEYS += ["infinite", "first_infinite_rows", "invalid", "first_invalid_rows", "worst"]

ANY = st.floats() | st.sampled_from([0.0, -0.0, 1.0, math.inf, -math.inf, math.nan, TINY, MAX, -MAX])
ORDINARY = st.floats(0.25, 4) | st.floats(-4, -0.25) | st.just(0.0)
PARTS = st.lists(st.lists(ANY, max_size=30), max_size=6)


@pytest.fixture
def small(monkeypatch):
    """Blocks and bins so small that a few values fill many."""
    monkeypatch.setattr(summary, "BLOCK", 8)
    monkeypatch.setattr(bins, "MOST", 16)


def summarised(*parts, first_row=None):
    made = Summary()
    for values in parts:
        made.update(values, first_row)
    return made


def same(some, others, apart=()):
    """Whether two results are equal except for these keys; nan equals nan."""
    return repr(some | dict.fromkeys(apart)) == repr(others | dict.fromkeys(apart))


def same_bins(one, other):
    return all(np.array_equal(a, b) for a, b in zip(one._bins, other._bins, strict=True))


def units(x):
    """The number in units of the smallest float: sums of integers are faster than those of fractions."""
    numerator, denominator = x.as_integer_ratio()
    return numerator * (2**1074 // denominator)


def check_moments(result, values):
    """Assert the bounds of mean and stderr, and one subnormal number for the rounding of a subnormal result."""
    exact = [units(x) for x in values]
    n, total, distances = len(exact), sum(exact), Fraction(0)
    for start in range(0, n, GROUP):
        group = exact[start : start + GROUP]
        of_group = sum(group)
        distances += Fraction(sum(abs(len(group) * x - of_group) for x in group), len(group))
    bound = EPS * Fraction(abs(total), n) + 16 * EPS * distances / n + 1
    assert abs(units(result["mean"]) - Fraction(total, n)) <= bound
    assert min(values) <= result["mean"] <= max(values)
    for key, divisor in ("stderr", n * (n - 1)), ("std", n - 1):
        if n < 2:
            assert math.isnan(result[key])
        elif not math.isinf(result[key]):
            square = Fraction(sum((n * x - total) ** 2 for x in exact), n**2 * divisor)
            got = units(result[key])
            assert max(got - 1, 0) ** 2 <= square * (1 + 18 * EPS) ** 2
            assert (got + 1) ** 2 >= square * (1 - 18 * EPS) ** 2
        else:
            assert max(map(abs, values)) > MAX / 2


@given(PARTS)
def test_small_data_are_summarised_exactly(parts):
    result = summarised(*parts).result()
    values = [float(x) for part in parts for x in part]
    numbers = [x for x in values if not math.isnan(x)]
    finite = [x for x in values if math.isfinite(x)]

    assert list(result) == KEYS
    assert result["rows"] == len(values)
    for key, is_one in ("infinite", math.isinf), ("invalid", math.isnan):
        rows = [i for i, x in enumerate(values) if is_one(x)]
        assert (result[key], result[f"first_{key}_rows"]) == (len(rows), rows[:10])
    worst = sorted(((x, i) for i, x in enumerate(values) if not math.isnan(x)), key=lambda at: (-at[0], at[1]))[:10]
    assert result["worst"] == [{"row": i, "value": x} for x, i in worst]
    extremes = [result[key] for key in ("min", "max", "max_row")]
    assert extremes == [min(numbers), max(numbers), worst[0][1]] if numbers else repr(extremes) == "[nan, nan, None]"

    assert list(result["quantiles"]) == LEVELS
    if finite:
        check_moments(result, finite)
        ordered = sorted(finite)
        for level, got in result["quantiles"].items():
            rank = float(level) * (len(finite) - 1)
            a, b = (Fraction(ordered[i]) for i in (math.floor(rank), math.ceil(rank)))
            # Two products and a sum, each of which is off by at most half an eps of the larger end.
            assert abs(Fraction(got) - (a + (b - a) * Fraction(rank % 1))) <= 2 * EPS * max(abs(a), abs(b)) + Fraction(TINY)
            assert a <= got <= b
        largest = [Fraction(x) for x in ordered[-math.ceil(len(ordered) / 20) :]]
        size = max(map(abs, largest))
        assert abs(Fraction(result["cvar95"]) - sum(largest) / len(largest)) <= 2 * EPS * size + Fraction(TINY)
    else:
        assert all(
            math.isnan(x)
            for x in [*(result[key] for key in ("mean", "stderr", "std", "cvar95")), *result["quantiles"].values()]
        )


def test_results_are_plain_python_values():
    result = summarised(np.array([0.5, math.nan, math.inf, 0.25], np.float32)).result()
    assert [type(result[key]) for key in KEYS] == [
        *[int] * 2,
        *[float] * 5,
        *[int, dict, float],
        *[int, list] * 2,
        list,
    ]
    assert {type(x) for x in result["quantiles"].values()} == {float}
    assert {type(x) for x in result["first_infinite_rows"] + result["first_invalid_rows"]} == {int}
    assert {(type(x["row"]), type(x["value"])) for x in result["worst"]} == {(int, float)}


@pytest.mark.parametrize("n", [1, 2, 3, 131_073])
@pytest.mark.parametrize("x", [0.1, 0.0, -7e300, MAX, TINY])
def test_equal_values(x, n):
    result = summarised(np.full(n, x)).result()
    assert [result["mean"], result["cvar95"], *result["quantiles"].values()] == [x] * 11
    spread = {result["std"], result["stderr"]}
    assert spread == {0} if n > 1 else all(map(math.isnan, spread))
    assert [at["row"] for at in result["worst"]] == list(range(min(n, 10)))


def test_zeros_of_either_sign_are_one_value():
    made = summarised([-0.0, 0.0, -0.0])
    assert repr(made.result()["worst"][0]["value"]) == repr(made.result()["min"]) == repr(made.result()["mean"]) == "0.0"
    assert made.histogram().counts.tolist() == [3]


LIMITS = [[MAX, -MAX], [MAX] * 5 + [-MAX], [MAX, MAX / 2, 1.0, 0.0], [TINY, 3 * TINY, 7 * TINY], [1e-200, 2e-200, 4e-200]]
LIMITS += [[1e200, -1e200, 1e-300, 5.0], [1.0] * 999 + [math.nextafter(1, 2)], [1e16, 1.0, -1e16]]


@pytest.mark.parametrize("values", LIMITS, ids=range(len(LIMITS)))
def test_smallest_and_largest_floats(values):
    with np.errstate(all="raise"):
        made = summarised(values)
        result = made.result()
        made.merge(pickle.loads(pickle.dumps(made)))
        counted = made.histogram()
    check_moments(result, values)
    assert result["stderr"] > 0
    assert counted.counts.sum() + counted.zeros == 2 * len(values)


@pytest.mark.parametrize("spread", [1.0, 1e-9])
def test_moments_of_many_groups(spread):
    values = 1 + spread * np.random.default_rng(3).standard_exponential(300_000)
    check_moments(summarised(*np.array_split(values, 23)).result(), values.tolist())


@pytest.mark.parametrize("updates", [False, True])
@given(parts=PARTS, random=st.randoms(use_true_random=False))
@pytest.mark.usefixtures("small")
def test_order_changes_nothing(updates, parts, random):
    """Parts are merged in any order and grouping. Some are updates, which may change the last digits of mean and stderr."""
    starts = np.cumsum([0, *map(len, parts)]).tolist()

    def joined():
        made = [Summary()]
        for at in random.sample(range(len(parts)), len(parts)):
            if updates and random.random() < 0.5:
                random.choice(made).update(parts[at], starts[at])
            else:
                made.append(summarised(parts[at], first_row=starts[at]))
        while len(made) > 1:
            random.shuffle(made)
            last = made.pop()
            made[-1].merge(last)
        return made[0]

    first, second = joined(), joined()
    assert same(first.result(), second.result(), ("mean", "stderr", "std") if updates else ())
    assert same_bins(first, second)
    assert repr(first.histogram(5)) == repr(second.histogram(5))
    finite = [Fraction(x) for part in parts for x in part if math.isfinite(x)]
    if finite:
        # Whatever the groups, the values' mean distance from their means is at most twice their mean magnitude.
        bound = 33 * EPS * sum(map(abs, finite)) / len(finite) + Fraction(TINY)
        for made in first, second:
            assert abs(Fraction(made.result()["mean"]) - sum(finite) / len(finite)) <= bound


def ordinal(x):
    """The number of floats from zero up to x; those from -0.0 down to x are counted from -1."""
    magnitude = int(np.float64(abs(x)).view(np.int64))
    return magnitude if math.copysign(1, x + 0.0) > 0 else -1 - magnitude


@given(st.lists(ANY, max_size=120))
@pytest.mark.usefixtures("small")
def test_bins_depend_on_the_values_alone(values):
    made = summarised(values)
    made.result()
    ordinals = [ordinal(x) for x in values if math.isfinite(x)]
    cut = next(k for k in range(64) if len({x >> k for x in ordinals}) <= bins.MOST)
    expected = {}
    for x in sorted(ordinals):
        expected[x >> cut] = expected.get(x >> cut, 0) + 1
    found = made._bins
    assert (found.cut, dict(zip(found.keys.tolist(), found.counts.tolist(), strict=True))) == (cut, expected)
    assert found.keys.tolist() == list(expected)


def test_bins_where_numpy_counts_in_32_bits(monkeypatch):
    """As NumPy does on 32-bit machines, where np.intp is np.int32."""
    bincount, flatnonzero = np.bincount, np.flatnonzero
    monkeypatch.setattr(np, "bincount", lambda x: bincount(x).astype(np.int32))
    monkeypatch.setattr(np, "flatnonzero", lambda x: flatnonzero(x).astype(np.int32))
    made = Bins.of(np.array([1.0, math.nextafter(1, 2), 1.0]), 0)
    assert (made.keys.dtype, made.counts.dtype) == (np.int64, np.int64)
    assert (made.keys.tolist(), made.counts.tolist()) == ([ordinal(1.0), ordinal(1.0) + 1], [2, 1])


def check_quantiles(made, values):
    """Assert that the quantiles differ from NumPy's by no more than the bits left out allow."""
    result, cut = made.result(), made._bins.cut
    ordered = np.sort(values)
    for level, got in result["quantiles"].items():
        rank = float(level) * (len(ordered) - 1)
        below, above = ordered[math.floor(rank)], ordered[math.ceil(rank)]
        # The last term is for the roundings of the interpolation.
        bound = max(abs(below), abs(above)) * (2.0 ** (cut - 53) + 2 * float(EPS)) + 2.0 ** max(cut - 1074, -1074)
        assert abs(got - (below + (above - below) * (rank % 1))) <= bound
        assert ordered[0] <= got <= ordered[-1]
    largest = ordered[-math.ceil(len(ordered) / 20) :]
    # Each value is as near as a quantile, and the mean of them is rounded.
    bound = np.abs(largest).mean() * (2.0 ** (cut - 53) + 4 * float(EPS)) + 2.0 ** max(cut - 1074, -1074)
    assert abs(result["cvar95"] - math.fsum(largest / len(largest))) <= bound


@given(st.lists(ORDINARY, min_size=1, max_size=120))
@pytest.mark.usefixtures("small")
def test_quantiles_of_few_bins(values):
    made = summarised(values)
    check_quantiles(made, values)
    binades = {math.frexp(x)[1] if x > 0 else -math.frexp(x)[1] - 100 * (x < 0) for x in values}
    assert 2.0 ** (made._bins.cut - 53) <= len(binades) / bins.MOST or made._bins.cut == 0


LARGE = {
    "exponential": lambda random, n: random.standard_exponential(n),
    "many decades": lambda random, n: 10 ** random.uniform(-250, 250, n),
    "both signs": lambda random, n: random.standard_normal(n),
    "subnormal": lambda random, n: random.integers(0, 1 << 40, n) * TINY,
    "mostly zero": lambda random, n: random.standard_exponential(n) * (random.random(n) < 0.4),
    "float32": lambda random, n: random.standard_exponential(n).astype(np.float32).astype(np.float64),
}


@pytest.mark.parametrize("shape", LARGE)
def test_quantiles_of_large_data(shape):
    values = LARGE[shape](np.random.default_rng(4), 200_000)
    made = summarised(values)
    check_quantiles(made, values)
    assert made._bins.cut > 0
    assert len(made._bins.keys) <= 65_536
    binades = len(np.unique(np.stack([np.sign(values), np.maximum(np.frexp(values)[1], -1021)]), axis=1).T)
    assert 2.0 ** (made._bins.cut - 53) < binades / 65_536
    if shape == "mostly zero":
        assert made.result()["quantiles"]["0.5"] == 0
    other = Summary()
    for part in np.array_split(values, 3)[::-1]:
        other.merge(summarised(part))
    assert same_bins(made, other)


def test_65536_different_values_have_bins_of_their_own():
    values = np.random.default_rng(5).permutation(np.arange(1, 65_537) / 7)
    made = summarised(values, values, values)
    expected = np.quantile(np.repeat(values, 3), [float(x) for x in LEVELS])
    np.testing.assert_allclose(list(made.result()["quantiles"].values()), expected, rtol=2 * float(EPS), atol=0)
    assert made._bins.cut == 0
    made.update([0.1])
    made.result()
    assert made._bins.cut > 0


ACCEPTED = [[True, False, True], np.float32(0.25), 3, [], np.empty((0, 3))]
ACCEPTED += [np.array([[3, 1], [2, 2]], np.int8), np.array([[3, 1], [2, 2]], np.uint64, order="F")]
ACCEPTED += [np.array([[3, 1], [2, 2]], np.float16).T, np.array([1.5, 2.5, 3.5], np.longdouble)]
ACCEPTED += [np.array([1.5, 2.5, 3.5], np.dtype("f4").newbyteorder())[::-1]]


@pytest.mark.parametrize("values", ACCEPTED, ids=range(len(ACCEPTED)))
def test_anything_numpy_makes_an_array_of_is_accepted(values):
    made = summarised(values)
    array = np.asarray(values, np.float64).ravel()
    worst = made.result()["worst"]
    assert made.result()["rows"] == array.size
    assert [array[at["row"]] for at in worst] == [at["value"] for at in worst] == sorted(array, reverse=True)


def test_floats_of_other_lengths():
    """A long double beyond float64 is infinite."""
    result = summarised(np.array([1, np.finfo(np.longdouble).max])).result()
    assert result["infinite"] == (np.finfo(np.longdouble).max > MAX)
    ml_dtypes = pytest.importorskip("ml_dtypes")
    assert summarised(np.array([0.5, math.inf, 1.5], ml_dtypes.bfloat16)).result()["mean"] == 1


REFUSED = [[1j], ["1"], [None], [b"1"], np.zeros(2, "f8,f8")]
REFUSED += [np.array(["2020"], "M8[D]"), np.array([3], "m8[s]")]


@pytest.mark.parametrize("values", REFUSED, ids=range(len(REFUSED)))
def test_other_dtypes_are_refused(values):
    with pytest.raises(TypeError, match=r"^values has dtype .*; a float, integer or bool dtype is wanted$"):
        Summary().update(values)


def test_arguments_are_checked():
    made = Summary()
    with pytest.raises(ValueError, match=r"^first_row=-1: the number of a row is wanted, 0 or more$"):
        made.update([1.0], -1)
    with pytest.raises(TypeError, match="float"):
        made.update([1.0], 1.5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^other is a dict; a Summary is wanted$"):
        made.merge({})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^bins=0: a positive number is wanted$"):
        made.histogram(0)
    with pytest.raises(TypeError, match=r"^values has masked entries"):
        made.update(np.ma.masked_invalid([1.0, math.nan]))
    assert made.result()["rows"] == 0
    assert summarised(np.ma.array([1.0, 2.0])).result()["rows"] == 2


def test_values_are_copied_and_not_changed():
    values = np.array([-0.0, 3.0, math.nan])
    made = summarised(values)
    values[:] = 9
    assert made.result()["max"] == 3
    assert repr(values.tolist()) == "[9.0, 9.0, 9.0]"


def test_rows_go_on_after_the_highest_seen():
    made = summarised([1.0, 2.0])
    made.update([5.0], first_row=np.int64(100))
    made.update([7.0], first_row=50)
    made.update([6.0])
    made.update([], first_row=10**6)
    made.merge(summarised([9.0], first_row=300))
    made.update([8.0])
    made.merge(summarised([0.0], first_row=200))
    made.update([4.0])
    rows = {at["value"]: at["row"] for at in made.result()["worst"]}
    assert rows == {1: 0, 2: 1, 5: 100, 7: 50, 6: 101, 9: 300, 8: 301, 0: 200, 4: 302}


def test_rows_of_any_size():
    result = summarised([math.inf, math.nan, 1.0], first_row=2**70).result()
    assert (result["first_infinite_rows"], result["first_invalid_rows"]) == ([2**70], [2**70 + 1])
    assert result["worst"][1]["row"] == 2**70 + 2


@pytest.mark.usefixtures("small")
def test_first_rows_are_named_in_any_order_of_arrival():
    made = summarised([math.nan] * 30 + [math.inf] * 30, first_row=500)
    made.update([math.inf, math.nan] * 3, 10)
    result = made.result()
    assert result["first_infinite_rows"] == [10, 12, 14, *range(530, 537)]
    assert result["first_invalid_rows"] == [11, 13, 15, *range(500, 507)]
    assert (result["infinite"], result["invalid"]) == (33, 33)


@pytest.mark.parametrize("order", ["rising", "falling", "level", "saw"])
def test_worst_rows_of_several_blocks(order):
    at = np.arange(300_000)
    values = {"rising": at, "falling": -at, "level": 0 * at, "saw": at % 20_000}[order].astype(np.float64)
    expected = np.lexsort([at, -values])[:10].tolist()
    made = summarised(values[150_000:], first_row=150_000)
    made.update(values[:150_000], 0)
    assert [x["row"] for x in made.result()["worst"]] == expected


@given(PARTS)
@pytest.mark.usefixtures("small")
def test_copies_and_merged_summaries_are_independent(parts):
    made, merged = summarised(*parts), Summary()
    merged.merge(made)
    twins = [merged, pickle.loads(pickle.dumps(made)), copy.copy(made), copy.deepcopy(made)]
    before = made.result()
    for twin in twins:
        assert same(twin.result(), before)
        twin.update([1.0, math.nan, math.inf])
        assert twin.result()["rows"] == before["rows"] + 3
    assert same(made.result(), before)
    made.merge(made)
    assert made.result()["rows"] == 2 * before["rows"]
    assert merged.result()["rows"] == before["rows"] + 3


def test_pickles_and_memory_are_small():
    assert len(pickle.dumps(Summary())) < 1 << 12
    made = summarised(*[np.random.default_rng(6).random(200_000)] * 3)
    arrays = [made._waiting, made._bins.keys, made._bins.counts]
    assert sum(x.nbytes if x.base is None else x.base.nbytes for x in arrays) <= 2 << 20
    assert len(pickle.dumps(made)) < 1 << 20 | 1 << 12


random = np.random.default_rng(7)
HISTOGRAMS = {  # values, and whether the axis is logarithmic
    "linear": (random.standard_normal(3000), False),
    "positive": (random.uniform(1, 99, 3000), False),
    "two decades and more": ([1.0, 100.1, 3.0], True),
    "two decades": ([1.0, 100.0, 3.0], False),
    "with zeros": (np.concatenate([np.zeros(70), 10 ** random.uniform(-9, 1, 3000)]), True),
    "zeros and one value": ([0.0, 2.0], False),
    "zero and near": ([0.0, 2.0, 1.0], False),
    "negative and wide": ([-1.0, 1e-9, 5.0], False),
    "neighbours": ([1.0, math.nextafter(1, 2), math.nextafter(1, 2)], False),
    "every float": ([TINY, 1.0, MAX], True),
    "widest": ([-MAX, 1.0, MAX], False),
    "many": (random.standard_exponential(200_000), True),
}


@pytest.mark.parametrize(("values", "logarithmic"), HISTOGRAMS.values(), ids=HISTOGRAMS)
@pytest.mark.parametrize("bins", [1, 7, 60])
def test_histogram(values, logarithmic, bins):
    values = np.array(values)
    made = summarised(np.concatenate([values, [math.nan, math.inf]]))
    got = made.histogram(bins)
    assert got.logarithmic == logarithmic
    assert got.zeros == (np.sum(values == 0) if logarithmic else 0)
    inside = values[values > 0] if logarithmic else values
    assert got.counts.sum() == len(inside)
    assert (got.edges[0], got.edges[-1]) == (inside.min(), inside.max())
    assert (got.edges[1:] > got.edges[:-1]).all()
    assert len(got.counts) == len(got.edges) - 1 <= bins
    if len(values) < 10_000:
        assert got.counts.tolist() == np.histogram(inside, got.edges)[0].tolist()
        if len(got.counts) == bins:
            steps = np.diff(np.log(got.edges) if logarithmic else got.edges / 4)
            np.testing.assert_allclose(steps, steps.mean(), rtol=1e-9)
    else:
        # Only a value nearer to an edge than to the middle of its bin can be on the edge's other side.
        slack = 2.0 ** (made._bins.cut - 53)
        near = [np.sum(np.abs(inside - edge) <= slack * inside) for edge in got.edges[1:]]
        shift = np.abs(np.cumsum(got.counts) - np.cumsum(np.histogram(inside, got.edges)[0]))
        assert (shift <= near).all()


@pytest.mark.parametrize(("values", "edges", "counts"), [([3.0, 3.0], [3.0, 3.0], [2]), ([math.inf, math.nan], [], [])])
def test_histogram_of_one_value_and_of_none(values, edges, counts):
    got = summarised(values).histogram()
    assert (got.edges.tolist(), got.counts.tolist(), got.logarithmic, got.zeros) == (edges, counts, False, 0)


LOSSES = st.floats(0, 1e9) | st.sampled_from([math.inf, math.nan])


@given(st.lists(st.tuples(LOSSES, st.booleans()), max_size=40), st.integers(0, 2**70))
def test_ignored_values_are_left_out(small, pairs, first_row):
    """The statistics are those of the others, whose rows keep their numbers."""
    made, kept = Summary(), Summary()
    made.update([value for value, _ in pairs], first_row, ignored=[ignores for _, ignores in pairs])
    for i, (value, ignores) in enumerate(pairs):
        if not ignores:
            kept.update([value], first_row + i)
    found, right = made.result(), kept.result()
    assert (found["rows"], found["ignored"]) == (len(pairs), len(pairs) - right["rows"])
    assert same(found, right, {"rows", "ignored", "mean", "stderr", "std"})
    assert found["mean"] == pytest.approx(right["mean"], rel=1e-12, nan_ok=True)
    both = Summary()
    both.merge(made)
    assert same(both.result(), found)


@pytest.mark.parametrize("ignored", [[True], [0, 1], [[True, False]]])
def test_wrong_ignored(ignored):
    with pytest.raises(ValueError, match=r"^ignored has shape"):
        Summary().update([1.0, 2.0], ignored=ignored)
