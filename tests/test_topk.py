"""Top-k rows: values by definition beside full rows and beside each other, every form and layout, what is refused."""

import itertools
import pickle

import numpy as np
import pytest
from mpmath import mp, mpf
from support import topk
from support.checks import assert_allocates_less, assert_refused, assert_same
from support.measures import on_every_tier

import fastkl
from fastkl import TopK

each_measure = pytest.mark.parametrize("measure", topk.MEASURES)
Q = np.array([[0.5, 0.25, 0.125, 0.125], [0.125, 0.125, 0.25, 0.5]])
TOP = TopK([[0, 2], [3, 1]], [[0.5, 0.25], [0.25, 0.5]])


def call(measure, *operands, **keywords):
    return getattr(fastkl, measure)(*operands, **keywords)


def assert_right(measure, value, expected, **of_bound):
    """The value is within the documented bound of what is right."""
    if mp.isinf(expected) or np.isinf(value):
        assert value == expected, (measure, value, expected)
        return
    off = abs(mpf(float(value)) - expected)
    assert off <= topk.bound(measure, expected, value.dtype, **of_bound), (measure, value, expected, of_bound)


def check_rows(seed, n, k, rows=5, measures=4):
    """Compare all forms of a TopK, and of q, with the definition; of so many measures each."""
    rng = np.random.default_rng(seed)
    dtype = rng.choice(["f8", "f4"])
    p_logits, q_logits, columns = topk.drawn(rng, n, k, rows, dtype)
    p, q = topk.softmax(p_logits), topk.softmax(q_logits)
    values, tail = np.take_along_axis(p, columns, -1), topk.others(p, columns)
    logs = np.log(values.astype(float)).astype(dtype)
    tops = [
        (TopK(columns, values, tail), values, tail, False),
        (TopK(columns, values), values, None, False),
        (TopK(columns, logs, tail, log_probs=True), logs, tail, True),
    ]
    for top, held, bucket, log_probs in tops:
        for logits, temperature in [(False, 1.0), (True, rng.choice([1.0, 0.7, 3.0]))]:
            weights = [
                topk.of_full(row, at, logits, temperature)
                for row, at in zip(q_logits if logits else q, columns, strict=True)
            ]
            for measure in rng.permutation(topk.MEASURES)[:measures]:
                operand, form = (q_logits, "q") if logits else (q, False)
                got = call(measure, top, operand, from_logits=form, temperature=temperature, normalize=bucket is not None)
                for i in range(rows):
                    left = 0 if n == k else None  # if no tail is given
                    of_p = topk.of_top(held[i], left if bucket is None else bucket[i], log_probs)
                    of_bound = {"logarithms": logits or log_probs, "tail_is_left": bucket is None}
                    assert_right(measure, got[i], topk.right(measure, of_p, weights[i]), **of_bound)


@pytest.mark.parametrize(("n", "k"), [(2, 1), (5, 2), (17, 5), (130, 64), (600, 256), (5000, 20)])
def test_values_are_those_of_coarser_rows(n, k, tier):
    check_rows(n, n, k)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(24))
def test_many_values_are_those_of_coarser_rows(seed):
    """At least 5,000 rows, of each of which six values are compared."""
    rng = np.random.default_rng(seed)
    for n, rows in [(3, 20), (17, 40), (130, 80), (1000, 60), (33_000, 8), (131_072, 1)]:
        check_rows(1000 * seed + n, n, min(n, int(rng.choice([1, 2, 5, 20, 64, 256]))), rows, 1)


@pytest.mark.parametrize(("dtype", "share"), [("f8", 1e-12), ("f8", 1e-28), ("f4", 1e-4), ("f4", 1e-15)])
def test_the_smallest_tails_keep_their_digits(dtype, share):
    """1 - (the sum of the few) would have few digits of it or none, as would the sum of all less the few."""
    rng = np.random.default_rng(0)
    q = np.concatenate([rng.random((20, 4)), share * rng.random((20, 3000))], axis=1)
    q = (q / q.sum(axis=1, keepdims=True)).astype(dtype)
    values = np.array([[0.3, 0.2, 0.2, 0.2]], dtype)
    top = TopK([[0, 1, 2, 3]], values, [0.1])
    right = [topk.right("kl_divergence", topk.of_top(values[0], 0.1), topk.of_full(row, [0, 1, 2, 3])) for row in q]
    for found in on_every_tier(lambda: fastkl.kl_divergence(top, q)).values():
        for value, expected in zip(found, right, strict=True):
            assert_right("kl_divergence", value, expected)


@pytest.mark.parametrize("measure", ["kl_divergence", "js_divergence", "total_variation"])
def test_nearly_equal_rows_keep_their_digits(measure):
    """Results are so small that the rounding of q's tail shows in them, and its square."""
    q = np.random.default_rng(7).dirichlet(np.ones(1000), 20)
    columns, tail = np.zeros((20, 1), int), topk.others(q, np.zeros((20, 1), int))
    values = q[:, :1] * (1 + 1e-11)
    got = call(measure, TopK(columns, values, tail), q)
    for value, row, few, rest in zip(got, q, values, tail, strict=True):
        assert_right(measure, value, topk.right(measure, topk.of_top(few, rest), topk.of_full(row, [0])))


@each_measure
@pytest.mark.parametrize("n", [1, 7, 300])
def test_all_categories_give_the_full_measure(measure, n):
    rng = np.random.default_rng(n)
    p, q = rng.dirichlet(np.ones(n), 4), rng.dirichlet(np.ones(n), 4)
    columns = np.argsort(rng.random((4, n)))
    rows = np.take_along_axis(p, columns, -1)
    for operand, form in [(q, False), (np.log(q), "q")]:
        expected = call(measure, p, operand, from_logits=form, normalize=True)
        for tail in (0, None):
            got = call(measure, TopK(columns, rows, tail), operand, from_logits=form)
            np.testing.assert_allclose(got, expected, rtol=64 * 2.0**-52, atol=4 * 2.0**-52)
    logs = TopK(columns, np.log(rows), 0, log_probs=True)
    expected = call(measure, np.log(p), np.log(q), from_logits=True)
    np.testing.assert_allclose(call(measure, logs, np.log(q), from_logits=True), expected, rtol=64 * 2.0**-52, atol=1e-28)


@pytest.mark.parametrize("measure", ["kl_divergence", "js_divergence", "total_variation"])
def test_equal_coarser_rows_give_zero(measure):
    """The tail is what the kernel rounds the sum of the others to."""
    rng = np.random.default_rng(1)
    q = rng.dirichlet(np.ones(999), 20)
    columns = np.argsort(-q)[:, :9]
    top = TopK(columns, np.take_along_axis(q, columns, -1), topk.others(q, columns))
    assert_same(call(measure, top, q), np.zeros(20))
    assert_same(call(measure, top, top), np.zeros(20))


@pytest.mark.parametrize("measure", ["kl_divergence", "js_divergence", "total_variation"])
def test_more_categories_never_make_less_of_a_divergence(measure):
    rng = np.random.default_rng(2)
    p, q = rng.dirichlet(np.ones(50), 9), rng.dirichlet(np.ones(50), 9)
    columns = np.argsort(-p)
    before = np.zeros(9)
    for k in [1, 2, 5, 20, 49]:
        top = TopK(columns[:, :k], np.take_along_axis(p, columns, -1)[:, :k])
        value = call(measure, top, q)
        assert (value >= before * (1 - 1e-13)).all()
        before = value
    assert (call(measure, p, q, normalize=True) >= before * (1 - 1e-13)).all()


def test_an_empty_bucket_of_q_is_infinitely_far_from_a_full_one():
    q = np.array([[0.5, 0.5, 0.0, 0.0]])
    assert fastkl.kl_divergence(TopK([[0, 1]], [[0.5, 0.25]]), q) == np.inf
    assert fastkl.kl_divergence(TopK([[0, 1]], [[0.5, 0.5]]), q) == 0
    assert fastkl.kl_divergence(TopK([[0, 1]], [[0.5, 0.25]]), [[0.0, 0.0, -np.inf, -np.inf]], from_logits="q") == np.inf
    assert fastkl.kl_divergence(TopK([[0, 1]], [[0.5, 0.25]]), q, eps=1e-3) < np.inf


# ---- two TopKs --------------------------------------------------------------------------------------------------------


@each_measure
@pytest.mark.parametrize("logs", [*itertools.product([False, True], repeat=2)])
def test_two_topks_by_definition(measure, logs):
    rng = np.random.default_rng(3)
    for k, other in [(1, 1), (3, 5), (8, 8), (20, 2)]:
        rows = [topk.softmax(rng.normal(size=(4, 25)) * 3) for _ in range(2)]
        columns = [
            np.argsort(-x + rng.normal(size=x.shape) * 0.02)[:, :size] for x, size in zip(rows, [k, other], strict=True)
        ]
        values = [np.take_along_axis(x, at, -1) for x, at in zip(rows, columns, strict=True)]
        held = [np.log(x) if log else x for x, log in zip(values, logs, strict=True)]
        tails = [topk.others(x, at) for x, at in zip(rows, columns, strict=True)]
        got = call(measure, *map(TopK, columns, held, tails, logs))
        for i in range(4):
            weights = [topk.of_top(x[i], tail[i], log) for x, tail, log in zip(held, tails, logs, strict=True)]
            expected = topk.right(measure, *topk.of_both(columns[0][i], weights[0], columns[1][i], weights[1]))
            assert_right(measure, got[i], expected, logarithms=any(logs))


def test_topks_without_a_common_category_compare_buckets_of_all():
    assert fastkl.kl_divergence(TopK([0], [0.5]), TopK([1], [0.75])) == 0
    assert fastkl.kl_divergence(TopK([0, 1], [0.5, 0.25]), TopK([1, 5], [0.75, 0.25])) == pytest.approx(
        fastkl.kl_divergence([0.25, 0.75], [0.75, 0.25]), rel=1e-15
    )


# ---- forms and layouts ------------------------------------------------------------------------------------------------

DTYPES = ["f8", "f4", "f2", ">f8", ">f4", "i8", "u1", "?"]


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_is_read_as_its_numbers(dtype):
    rng = np.random.default_rng(4)
    numbers = np.minimum(rng.integers(0, 9, (6, 700)), 1 if dtype == "?" else 9) / (
        1 if np.dtype(dtype).kind in "iu?b" else 4096
    )
    q = numbers.astype(dtype)
    columns = np.argsort(-numbers)[:, :7]
    top = TopK(columns.astype("u8"), np.take_along_axis(q, columns, -1), topk.others(numbers, columns))
    as_double = TopK(columns, top.values.astype(float), top.tail)
    expected = fastkl.js_divergence(as_double, numbers[::-1].astype(float), normalize=True)
    got = fastkl.js_divergence(top, q[::-1], normalize=True)
    assert got.dtype == ("f8" if np.dtype(dtype).kind not in "f" or np.dtype(dtype).itemsize == 8 else "f4")
    np.testing.assert_allclose(got, expected, rtol=8 * np.finfo(got.dtype).eps)


def test_layouts_threads_and_broadcasting_change_no_bit():
    rng = np.random.default_rng(5)
    q = rng.dirichlet(np.ones(3000), (2, 3, 4))
    columns = np.argsort(-q)[..., :8]
    values = np.take_along_axis(q, columns, -1)[..., ::-1]
    top = TopK(columns, values)
    expected = fastkl.kl_divergence(top, q)
    apart = np.full((2, 3, 4, 6000), 7.0)
    apart[..., ::2] = q
    views = [np.asfortranarray(q), apart[..., ::2], q[..., ::-1].copy()[..., ::-1], q.astype(">f8")]
    for view, threads in itertools.product(views, [1, 2, None]):
        assert_same(fastkl.kl_divergence(top, view, threads=threads), expected)
    flipped = TopK(columns[::-1, ..., ::2][::-1], np.asfortranarray(values)[..., ::2])
    assert_same(
        fastkl.kl_divergence(flipped, q), fastkl.kl_divergence(TopK(columns[..., ::2].copy(), values[..., ::2].copy()), q)
    )
    assert_same(
        fastkl.kl_divergence(TopK(columns, values), q[0, 0, 0]),
        np.vectorize(lambda i, j, k: fastkl.kl_divergence(TopK(columns[i, j, k], values[i, j, k]), q[0, 0, 0]))(
            *np.indices((2, 3, 4))
        ),
    )
    one = TopK(columns[0, 0, 0], values[0, 0, 0])
    assert isinstance(fastkl.kl_divergence(one, q[0, 0, 0]), np.float64)
    assert_same(fastkl.kl_divergence(one, q)[0, 0, 0], expected[0, 0, 0])


def test_no_layout_is_copied_as_a_whole():
    q = np.asfortranarray(np.random.default_rng(6).dirichlet(np.ones(400), 10_000))
    top = TopK(np.zeros((10_000, 1), int), q[:, :1])
    assert_allocates_less(q.nbytes // 4, lambda: fastkl.kl_divergence(top, q))


def test_many_rows_are_evaluated_in_blocks(monkeypatch):
    monkeypatch.setattr("fastkl.coarse_rows._ENTRIES", 64)
    expected = np.tile(fastkl.kl_divergence(TOP, Q), 50)
    many = TopK(np.tile(TOP.indices, (50, 1)), np.tile(TOP.values, (50, 1)))
    assert_same(fastkl.kl_divergence(many, np.tile(Q, (50, 1))), expected)
    many.indices[70, 1] = many.indices[70, 0]
    assert_refused(
        fastkl.InvalidRowError,
        "p[70, 1] has the index 0 again: the indices of a row must differ",
        fastkl.kl_divergence,
        many,
        np.tile(Q, (50, 1)),
    )


def test_results_have_bases_and_places_like_all():
    expected = fastkl.kl_divergence(TOP, Q)
    np.testing.assert_allclose(fastkl.kl_divergence(TOP, Q, base=2), expected / np.log(2), rtol=1e-15)
    assert_same(fastkl.kl_divergence(TOP, Q, keepdims=True), expected[:, np.newaxis])
    out = np.empty((2, 1), np.float16)
    assert fastkl.kl_divergence(TOP, Q, keepdims=True, out=out) is out
    assert_same(out[:, 0], expected.astype(np.float16))
    overlapping = Q.copy()
    assert_same(fastkl.kl_divergence(TOP, overlapping, out=overlapping[:, 0]), expected)
    assert fastkl.kl_divergence(TopK(np.zeros((0, 2), int), np.zeros((0, 2))), np.zeros((0, 4))).shape == (0,)


def test_weights_are_normalised_together():
    top = TopK([[0, 2]], [[4, 2]], [2])
    assert_same(fastkl.kl_divergence(top, 8 * Q[:1], normalize=True), fastkl.kl_divergence(TOP, Q)[:1])


def test_sizes_beyond_the_passes():
    """Sums that overflow, logits far from 0, and temperatures beyond what the passes take."""
    top = TopK([[0, 2]], [[0.5, 0.25]])
    expected = fastkl.kl_divergence(TOP, Q)[0]
    assert fastkl.kl_divergence(top, Q[:1] * 2.0 * 1.7e308, normalize=True) == pytest.approx(expected, rel=1e-15)
    one = TopK([[2]], [[0.25]])
    large = fastkl.kl_divergence(one, Q[:1] * 2.0 * 1.7e308, normalize=True)
    assert large == pytest.approx(fastkl.kl_divergence(one, Q[:1])[0], rel=1e-15)
    assert fastkl.kl_divergence(top, Q[:1] * 2.0**-1060, normalize=True) == pytest.approx(expected, rel=1e-15)
    logs = np.log(Q[:1])
    for centre in [1e6, -1e6]:
        assert fastkl.kl_divergence(top, logs + centre, from_logits="q") == pytest.approx(expected, rel=1e-9)
    for temperature in [1e300, 1e-300]:
        scaled = logs * temperature
        assert fastkl.kl_divergence(top, scaled, from_logits="q", temperature=temperature) == pytest.approx(
            expected, rel=1e-13
        )
    far = np.array([[0.0, -1e4, -3e4, -2e4]])
    assert fastkl.kl_divergence(top, far, from_logits="q") == pytest.approx(0.25 * 3e4 + 0.25 * 1e4, rel=1e-3)
    extreme = np.array([[1e308, -1e308, 0.0, 0.0]])
    assert fastkl.kl_divergence(top, extreme, from_logits="q", temperature=1e304) == pytest.approx(0.5 * 1e4, rel=1e-3)


def test_a_topk_pickles():
    top = pickle.loads(pickle.dumps(TOP))
    assert_same(fastkl.kl_divergence(top, Q), fastkl.kl_divergence(TOP, Q))
    assert repr(TOP) == "TopK of shape (2, 2)"


def test_torch_tensors_give_tensors():
    torch = pytest.importorskip("torch")
    top = TopK(torch.tensor(TOP.indices), torch.tensor(TOP.values), torch.tensor([0.25, 0.25]))
    got = fastkl.kl_divergence(top, torch.tensor(Q))
    assert_same(got.numpy(), fastkl.kl_divergence(TOP, Q))
    short = torch.tensor(Q).to(torch.bfloat16)
    assert_same(fastkl.kl_divergence(TopK(torch.tensor(TOP.indices), short[:, :2]), short).dtype, torch.float32)


# ---- what is refused --------------------------------------------------------------------------------------------------

INVALID = [
    (TopK([[0, 1], [1, 4]], TOP.values), Q, "p[1, 1]", "index", " has the index 4: indices must be in 0..3"),
    (TopK([[0, 1], [-1, 4]], TOP.values), Q, "p[1, 0]", "index", " has the index -1: indices must be in 0..3"),
    (TopK([[2, 2], [1, 3]], TOP.values), Q, "p[0, 1]", "index", " has the index 2 again: the indices of a row must differ"),
    (
        TopK(np.array([[0, 2**64 - 1]], "u8"), TOP.values[:1]),
        Q,
        "p[0, 1]",
        "index",
        f" has the index {2**64 - 1}: indices must be in 0..3",
    ),
    (TopK([[0, 1]], [[0.5, -0.1]]), Q, "p[0, 1]", "negative", " = -0.1: probabilities must be finite and non-negative"),
    (TopK([[0, 1]], [[np.nan, 0.1]]), Q, "p[0, 0]", "not finite", " = nan: probabilities must be finite and non-negative"),
    (
        TopK([[0, 1]], [[np.inf, -1.0]], log_probs=True),
        Q,
        "p[0, 0]",
        "not finite",
        " = inf: log-probabilities must be finite or -inf",
    ),
    (TopK([[0, 1]], [[0.5, 0.25]], [-0.25]), Q, "p[0]", "negative", " has the tail -0.25: must be finite and non-negative"),
    (
        TopK([[0, 1]], [[0.5, 0.75]]),
        Q,
        "p[0]",
        "sum",
        " sums to 1.25 with its tail: must be at most 1 within 1.5e-08 where no tail is given",
    ),
    (
        TopK([[0, 1]], [[0.5, 0.25]], 0.5),
        Q,
        "p[0]",
        "sum",
        " sums to 1.25 with its tail: must be 1 within 1.5e-08 (normalize=True accepts counts and weights)",
    ),
    (
        TOP,
        np.array([[0.5, 0.25, -0.125, 0.375]] * 2),
        "q[0, 2]",
        "negative",
        " = -0.125: probabilities must be finite and non-negative",
    ),
    (
        TOP,
        np.array([Q[0], [0.5, 0.5, np.nan, 0]]),
        "q[1, 2]",
        "not finite",
        " = nan: probabilities must be finite and non-negative",
    ),
    (
        TOP,
        np.array([Q[0], Q[0] / 2]),
        "q[1]",
        "sum",
        " sums to 0.5: rows must sum to 1 within 1.5e-08 (normalize=True accepts counts and weights)",
    ),
    (
        TOP,
        TopK([[0, 1], [2, 2]], TOP.values),
        "q[1, 1]",
        "index",
        " has the index 2 again: the indices of a row must differ",
    ),
]


@pytest.mark.parametrize(("top", "q", "place", "reason", "problem"), INVALID)
def test_invalid_rows_are_named(top, q, place, reason, problem):
    with pytest.raises(fastkl.InvalidRowError) as caught:
        fastkl.kl_divergence(top, q)
    assert str(caught.value) == place + problem
    assert (caught.value.operand, caught.value.reason) == (place[0], reason)
    rows = fastkl.kl_divergence(top, q, invalid="nan")
    assert np.isnan(rows[caught.value.index[0]])


@pytest.mark.parametrize(
    ("logits", "place"), [([0, np.nan, 0, 0], "q[0, 1]"), ([np.inf, 0, 0, 0], "q[0, 0]"), ([-np.inf] * 4, "q[0]")]
)
def test_invalid_logits_are_named(logits, place):
    for columns in ([[0, 1]], [[2, 3]]):
        with pytest.raises(fastkl.InvalidRowError) as caught:
            fastkl.kl_divergence(TopK(columns, [[0.5, 0.25]]), [logits], from_logits="q")
        assert str(caught.value).startswith(place)
        assert np.isnan(fastkl.kl_divergence(TopK(columns, [[0.5, 0.25]]), [logits], from_logits="q", invalid="nan"))
    with pytest.raises(fastkl.InvalidRowError):
        fastkl.kl_divergence(TopK([[0, 1]], [[0.5, 0.25]]), [logits], from_logits="q", temperature=1e300)


def test_only_a_sum_within_the_tolerance_leaves_an_empty_bucket():
    full = [0.5, 0.5 + 1e-9]
    assert fastkl.kl_divergence(TopK([0, 1], full), [0.5, 0.5, 0.0]) < 1e-15
    assert np.isnan(fastkl.kl_divergence(TopK([0, 1], [0.5, 0.6]), [0.5, 0.5, 0.0], invalid="nan"))
    assert fastkl.kl_divergence(TopK([0, 1], [0.5, 0.6]), [0.5, 0.5, 0.0], invalid="ignore") < 0.1
    with pytest.raises(fastkl.InvalidRowError):
        fastkl.kl_divergence(TopK([0, 1], [5, 6]), [0.5, 0.5, 0.0], normalize=True)


REFUSED = [
    (TypeError, "entropy takes no TopK: only ...", lambda: fastkl.entropy(TOP)),
    (TypeError, "compare takes no TopK: only ...", lambda: fastkl.compare(TOP, Q)),
    (TypeError, "nll takes no TopK: only ...", lambda: fastkl.nll([0, 1], TOP)),
    (TypeError, "js_distance takes no TopK: only ...", lambda: fastkl.js_distance(TOP, Q)),
    (TypeError, "renyi_divergence takes no TopK: only ...", lambda: fastkl.renyi_divergence(TOP, Q, 2)),
    (TypeError, "q is a TopK and p is none: a TopK q is taken beside a TopK p only", lambda: fastkl.kl_divergence(Q, TOP)),
    (ValueError, "axis=0: must be the last one with a TopK, ...", lambda: fastkl.kl_divergence(TOP, Q, axis=0)),
    (
        ValueError,
        "from_logits='p': p is a TopK, which has log_probs; ...",
        lambda: fastkl.kl_divergence(TOP, Q, from_logits="p"),
    ),
    (
        ValueError,
        "from_logits=True: must be False beside a TopK, ...",
        lambda: fastkl.kl_divergence(TOP, TOP, from_logits=True),
    ),
    (
        ValueError,
        "temperature=2.0: must be 1 where no operand holds logits",
        lambda: fastkl.kl_divergence(TOP, Q, temperature=2.0),
    ),
    (ValueError, "p has shape (2, 2) and q has shape (3, 4): ...", lambda: fastkl.kl_divergence(TOP, np.ones((3, 4)) / 4)),
    (ValueError, "q has shape (2, 0): ...", lambda: fastkl.kl_divergence(TOP, np.ones((2, 0)))),
    (ValueError, "indices has shape (2,) and values has shape (3,): ...", lambda: TopK([0, 1], [0.1, 0.2, 0.3])),
    (ValueError, "indices has shape (1, 0) and values has shape (1, 0): ...", lambda: TopK(np.ones((1, 0), int), [[]])),
    (
        ValueError,
        "tail has shape (3,): must have the shape (2,) of the rows, ...",
        lambda: TopK(TOP.indices, TOP.values, [0, 0, 0]),
    ),
    (TypeError, "indices has dtype float64: must be an integer dtype", lambda: TopK([0.0], [1.0])),
    (TypeError, "values has dtype complex128: ...", lambda: TopK([0], [1j])),
    (TypeError, "log_probs=1: must be a bool", lambda: TopK([0], [1.0], None, 1)),
    (ValueError, "out has shape (3,): must be (2,)", lambda: fastkl.kl_divergence(TOP, Q, out=np.empty(3))),
]


@pytest.mark.parametrize(("error", "message", "refused"), REFUSED)
def test_what_makes_no_sense_is_refused(error, message, refused):
    assert_refused(error, message, refused)
