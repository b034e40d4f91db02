"""Lazy arrays of dask, and xarray's arrays with their named dimensions."""

import pickle
from itertools import product

import numpy as np
import pytest
from support.checks import SUM, assert_close, assert_invalid, assert_same, distributions, with_entry
from support.containers import BAD, NEGATIVE, P, Q, dask_array, recorded

import fastkl

kl, nll, compare = fastkl.kl_divergence, fastkl.nll, fastkl.compare


LABELS = np.array([0, 6, -100, 3, 2])
SCORES, OTHER_SCORES = (np.random.default_rng(seed).standard_normal((5, 7)) for seed in (24, 25))
# Chunks of the rows and of the labels.
each_chunking = pytest.mark.parametrize("chunks", [((2, 3), 3), ((5,), 2), ((1, 4), 5), ((3, 2), (1, 3, 1))], ids=str)


def chunked(values, chunks=2):
    return pytest.importorskip("dask.array").from_array(values, chunks=chunks)


def assert_lazy(result, expected):
    """Assert a dask array of the bits of the expected one, or a comparison of such, with None where that has None."""
    da = pytest.importorskip("dask.array")
    if type(expected) is fastkl.Comparison:
        assert type(result) is fastkl.Comparison
    else:
        result, expected = [result], [expected]
    for lazy, value, right in zip(result, *da.compute(result), expected, strict=True):
        if right is None:
            assert lazy is None
        else:
            assert type(lazy) is da.Array
            assert (lazy.dtype, lazy.shape) == (right.dtype, right.shape)
            assert_same(value, right)


def test_dask_is_lazy():
    """Dtypes, shapes and chunks are known before a block is computed, which would raise here."""
    da = pytest.importorskip("dask.array")

    def fail(*_):
        raise RuntimeError("computed")

    p = da.map_blocks(fail, dtype="f4", chunks=((2, 3), (4, 3)), meta=np.empty((0, 0), "f4"))
    labels = da.map_blocks(fail, dtype="i8", chunks=((3, 2),), meta=np.empty(0, "i8"))
    single, double = Q.astype("f4"), chunked(Q, (1, 7))
    expected = [(nll(*pair), "f4", (5,)) for pair in ((labels, p), (labels, single), (LABELS, p))]
    for keepdims, shape in (False, (5,)), (True, (5, 1)):
        for q, dtype in (p, "f4"), (Q, "f8"), (double, "f8"), (single[0], "f4"):
            expected.append((kl(p, q, keepdims=keepdims), dtype, shape))
    for comparison in compare(p, single, labels), compare(p, p):
        fields = (field for field in comparison if field is not None)
        expected += [(field, "?" if field is comparison.same_argmax else "f4", (5,)) for field in fields]
    for result, dtype, shape in expected:
        assert type(result) is da.Array
        assert result.dtype == result._meta.dtype == dtype
        assert result.shape == shape
        with pytest.raises(RuntimeError, match=r"^computed$"):
            result.compute()
    assert expected[0][0].chunks == compare(p, single, labels).kl.chunks == ((2, 1, 2),)


SHAPES = [((4, 6, 8), (4, 6, 8)), ((4, 6, 8), (1, 6, 8)), ((1, 6, 8), (4, 6, 8)), ((6, 8), (4, 6, 8)), ((4, 6, 8), (6, 8))]


each_axis = pytest.mark.parametrize(("axis", "keepdims"), list(product([-1, 0, 1, 2], [False, True])))


@each_axis
def test_dask_axis_and_broadcasting(axis, keepdims):
    keywords = {"axis": axis, "normalize": True, "keepdims": keepdims}
    for p_shape, q_shape in SHAPES:
        p, q = distributions(19, p_shape), distributions(20, q_shape)
        if axis == 0:
            p, q = np.broadcast_arrays(p, q)
        expected = kl(p, q, **keywords)
        for pair in (chunked(p, 3), chunked(q)), (chunked(p, -1), q), (p, chunked(q, "auto")):
            result = kl(*pair, **keywords)
            assert result.shape == expected.shape
            assert_close(result.compute(), expected)


def test_dask_blocks_have_a_thread_each(monkeypatch):
    """One call for a block computes all fields of a comparison."""
    dask = pytest.importorskip("dask")
    requests = recorded(monkeypatch)
    for result, threads, count in (
        (fastkl.entropy(dask_array(P)), 1, 3),
        (fastkl.entropy(dask_array(P), threads=2), 2, 3),
        (compare(dask_array(P), Q, [0, 1, 2, 3, 4]), 1, 3),
    ):
        requests.clear()
        dask.compute(result, scheduler="sync")
        assert [request.threads for request in requests] == [threads] * count
    assert sorted(request.p.shape for request in requests) == [(1, 7), (2, 7), (2, 7)]


def test_dask_rows():
    p = chunked(P[0], 3)
    assert_lazy(kl(p, Q[0]), kl(P[0], Q[0]))
    unknown = dask_array(P)[dask_array(P)[:, 0] >= 0]
    assert_close(fastkl.entropy(unknown).compute(), fastkl.entropy(P))
    assert kl(dask_array(P[:0]), Q[:1]).chunks == ((0,),)
    with pytest.raises(ValueError, match="compute_chunk_sizes"):  # dask's own error
        kl(unknown, Q)
    columns = dask_array(P)[:, dask_array(P)[0] >= 0]
    assert_close(kl(P, columns.compute_chunk_sizes()).compute(), kl(P, P))


@each_chunking
@pytest.mark.parametrize("from_logits", [True, False])
def test_dask_labels(from_logits, chunks):
    """Rows, columns and labels may have chunks of different lengths."""
    logits = {"from_logits": True, "label_smoothing": 0.1, "temperature": 2.0, "base": 2}
    keywords = logits if from_logits else {"normalize": True, "eps": 1e-9}
    q = (SCORES if from_logits else SCORES**2).astype("f4")
    rows, labels = chunked(q, (chunks[0], 4)), chunked(LABELS, (chunks[1],))
    expected = nll(LABELS, q, ignore_index=-100, **keywords)
    for pair in (labels, rows), (labels, q), (LABELS, rows), (LABELS.tolist(), rows), (labels.astype("i2"), rows):
        assert_lazy(nll(*pair, ignore_index=-100, **keywords), expected)


@each_chunking
@pytest.mark.parametrize("from_logits", [True, "q"], ids=str)
def test_dask_compare(from_logits, chunks):
    p, q = (SCORES if from_logits is True else P).astype("f4"), OTHER_SCORES.astype("f4")
    if from_logits is True:
        p[4] = q[4]
    lazy_p, lazy_q, lazy_labels = chunked(p, (chunks[0], 3)), chunked(q, (2, 7)), chunked(LABELS, (chunks[1],))
    for labels in None, LABELS, LABELS.tolist(), lazy_labels:
        options = {"from_logits": from_logits, "base": 2, "ignore_index": None if labels is None else -100}
        expected = compare(p, q, None if labels is None else LABELS, **options)
        for pair in (lazy_p, lazy_q), (p, lazy_q), (lazy_p, q):
            assert_lazy(compare(*pair, labels, **options), expected)


@each_axis
def test_dask_labels_axis_and_broadcasting(axis, keepdims):
    draw = np.random.default_rng(26)
    p, q = draw.standard_normal((2, 4, 6, 8))
    keywords = {"axis": axis, "keepdims": keepdims, "from_logits": True}
    rows, others = chunked(p, 3), chunked(q, (2, 6, 5))
    a, b = np.delete(p.shape, axis)
    for shape in [(a, b), (1, b), (a, 1), (b,), (1,), (), (2, a, b)]:
        labels = draw.integers(0, p.shape[axis], shape)
        lazy = chunked(labels, (1, 2, 2) if len(shape) == 3 else 2)
        if len(shape) == 2:
            assert_lazy(nll(lazy, rows, **keywords), nll(labels, p, **keywords))
        if len(shape) < 3 or axis < 0:  # Labels with more axes than the rows give every axis another number.
            assert_lazy(compare(rows, others, lazy, **keywords), compare(p, q, labels, **keywords))
    for one in draw.standard_normal((1, 6, 8)), draw.standard_normal((4, 1, 8)):  # one row for all labels along an axis
        labels, rows = draw.integers(0, 8, (4, 6)), np.moveaxis(one, -1, axis)
        assert_lazy(nll(chunked(labels, (3, 2)), chunked(rows), **keywords), nll(labels, rows, **keywords))


def test_dask_errors_have_the_index_in_the_whole_array():
    draw = np.random.default_rng(27)
    p = draw.standard_normal((4, 6, 8))
    rows = chunked(p, (3, 2, 5))
    wanted, entry = "labels must be in 0..7", " = nan: logits must be finite or -inf"

    def losses(labels, chunks=2):
        return nll(chunked(labels, chunks), rows, from_logits=True).compute()

    def divergence(p, q, labels, axis=-1):
        return compare(p, q, labels, from_logits=True, axis=axis).kl.compute()

    labels = with_entry((3, 5), 1000, draw.integers(0, 8, (4, 6)))
    moved, moved_rows = np.moveaxis(p, -1, 1), np.moveaxis(rows, -1, 1)
    bad = with_entry((2, 4, 6), np.nan, p)
    lazy = chunked(bad, (2, 3, 4))
    for place, problem, measure, *operands in (
        *(("labels[3, 5]", f" = 1000: {wanted}", losses, labels, chunks) for chunks in (2, 6, (1, 4))),
        ("labels[0, 5]", f" = 1000: {wanted}", losses, labels[3:]),
        ("labels[3, 5]", f" = 1000: {wanted}", divergence, rows, p, labels),
        ("labels[5]", f" = 1000: {wanted}", divergence, p, rows, chunked(labels[3], 4)),
        ("labels[3, 0]", f" = 1000: {wanted}", divergence, rows, p, labels[:, 5:]),
        ("labels[0]", f" = 8: {wanted}", divergence, rows, p, [8]),
        ("labels", f" = 8: {wanted}", divergence, rows, p, 8),
        ("labels[3, 5]", f" = 1000: {wanted}", divergence, moved, moved_rows, labels, 1),
        ("p[2, 4, 6]", entry, divergence, bad, rows, labels[0]),
        ("q[2, 4, 6]", entry, divergence, rows, bad, labels[0]),
        ("q[2, 6, 4]", entry, divergence, moved_rows, np.moveaxis(bad, -1, 1), None, 1),
        ("q[2, 4, 6]", entry, nll(labels % 8, lazy, from_logits=True).compute),
    ):
        assert_invalid(place, problem, measure, *operands)
    masked = np.moveaxis(with_entry((2, 4), -np.inf, p), -1, 1)
    entropy = fastkl.entropy(chunked(masked, (3, 8, 3)), from_logits=True, axis=1)
    assert_invalid("p[2, :, 4]", " has no finite entry: a row of logits must have one", entropy.compute)
    values = compare(rows, lazy, from_logits=True, invalid="nan").kl.compute()
    assert np.argwhere(np.isnan(values)).tolist() == [[2, 4]]


def test_dask_errors_come_back_from_other_processes():
    result = kl(dask_array(BAD), Q)
    assert_invalid("p[3, 4]", NEGATIVE, result.compute, scheduler="processes", num_workers=1)


def test_dask_results_go_to_other_processes():
    """dask.distributed pickles the graph. No block's task may hold all labels."""
    da = pytest.importorskip("dask.array")
    labels = np.zeros(5000, int)
    graph = compare(da.ones((5000, 1), chunks=100), [1.0], chunked(labels, 100)).kl.__dask_graph__()
    assert max(len(pickle.dumps(task)) for key, task in graph.items() if key[0].startswith("fastkl")) < labels.nbytes / 10
    result = compare(dask_array(P), Q, [0, 1, 2, 3, 4])
    assert_lazy(pickle.loads(pickle.dumps(result)), compare(P, Q, [0, 1, 2, 3, 4]))


def test_dask_labels_of_one_row_and_of_no_rows():
    da = pytest.importorskip("dask.array")
    row, label = chunked(SCORES[0], 3), chunked(np.array(2))
    expected = compare(SCORES[0], SCORES[1], 2, from_logits=True)
    for own in 2, np.uint8(2), label:
        assert_lazy(nll(own, row, from_logits=True), expected.nll_p)
        assert nll(own, row, from_logits=True, keepdims=True).shape == (1,)
        assert_lazy(compare(row, SCORES[1], own, from_logits=True), expected)
    none = P[:0], Q[:1], LABELS[:0]
    assert_lazy(compare(dask_array(none[0]), *none[1:]), compare(*none))
    assert_lazy(nll(LABELS[:0], dask_array(P[:0])), np.zeros(0))
    assert_lazy(nll(np.zeros(1, int), da.ones((1, 1))), np.zeros(1))


def test_dask_labels_of_an_unknown_number_of_rows():
    rows, labels = chunked(SCORES, (2, 3)), chunked(LABELS)
    known, few = labels != -100, LABELS != -100
    expected = compare(SCORES[few], OTHER_SCORES[0], LABELS[few], from_logits=True)
    losses = nll(labels[known], rows[known], from_logits=True)
    assert np.isnan(losses.shape[0])
    assert_same(losses.compute(), expected.nll_p)
    fields = compare(rows[known], OTHER_SCORES[0], labels[known], from_logits=True)
    assert_same(fields.kl.compute(), expected.kl)
    assert_same(fields.nll_q.compute(), expected.nll_q)


def named(values, *dims, **coords):
    return pytest.importorskip("xarray").DataArray(values, dims=dims, coords=coords)


def test_xarray_dimensions_meet_by_name():
    p, q = named(P, "t", "c", t=[3, 1, 4, 1.5, 9], at="here"), named(Q, "t", "c")
    for other in q, q.T:
        result = kl(p, other)
        assert result.dims == ("t",)
        assert result.coords.keys() == {"t", "at"}
        assert_close(result, kl(P, Q))
    assert_close(kl(p.T, q, axis=0), kl(P, Q))
    assert kl(p.T, q, axis=0, keepdims=True).dims == ("c", "t")
    kept = kl(p, q, keepdims=True)
    assert kept.dims == ("t", "c")
    assert kept.shape == (5, 1)
    models = distributions(21, (2, 7, 3), axis=1)
    expected = kl(P[:, np.newaxis, np.newaxis], np.moveaxis(models, 1, -1))
    q = named(models, "model", "c", "seed")
    result = kl(p, q)
    assert result.dims == ("t", "model", "seed")
    assert_close(result, expected)
    assert_close(kl(p, q, out=np.empty((5, 2, 3))), expected)
    assert kl(p[0], q).dims == ("model", "seed")
    assert kl(q, p, axis=1).dims == ("model", "seed", "t")
    assert kl(p[0], p[1]).dims == ()


def test_xarray_errors_have_the_operands_own_dimensions():
    """In the operand's own order, without the dimensions that it lacks, and 0 where it has length 1."""
    p, values = named(P, "t", "c"), distributions(22, (2, 7, 5), axis=1)
    q, bad = named(values, "m", "c", "t"), named(with_entry((1, 4, 2), -1, values), "m", "c", "t")
    long = named(with_entry((1, 0, 2), values[1, 0, 2] + 0.5, values), "m", "c", "t")
    total = f" sums to 1.5: {SUM}"
    column = BAD[3][:, np.newaxis]
    assert_invalid("q[1, 4, 2]", NEGATIVE, kl, p, bad)
    assert_invalid("p[1, 4, 2]", NEGATIVE, kl, bad, p, axis=1)
    assert_invalid("q[1, :, 2]", total, kl, p, long)
    assert_invalid("p[3, 4]", NEGATIVE, kl, named(BAD, "t", "c"), q)
    assert_invalid("q[4, 3]", NEGATIVE, kl, p, named(BAD.T, "c", "t"))
    assert_invalid("q[4]", NEGATIVE, kl, q, named(BAD[3], "c"), axis=1)
    assert_invalid("q[4, 0]", NEGATIVE, kl, q, column, axis=1)
    assert_invalid("q[1, 4, 2]", NEGATIVE, kl, p, bad, out=np.empty((5, 2)))
    pytest.importorskip("dask")
    assert_invalid("q[1, 4, 2]", NEGATIVE, kl(p, bad.chunk(m=1, t=2)).compute)
    assert_invalid("q[1, :, 2]", total, kl(p, long.chunk(m=1, t=2)).compute)
    assert_invalid("q[4, 0]", NEGATIVE, kl(q.chunk(t=2), column, axis=1).compute)


def test_xarray_coordinates_must_agree():
    p = named(P, "t", "c", t=np.arange(5))
    for q, out in (p[::-1], None), (p[:3], None), (p[::-1], np.empty(5)):
        with pytest.raises(ValueError, match="cannot align"):
            kl(p, q, out=out)


def test_xarray_stays_lazy():
    pytest.importorskip("dask.array")
    p = named(P, "t", "c")
    result = kl(p.chunk(t=2), p.chunk(c=3))
    assert result.chunks == ((2, 2, 1),)
    assert_same(result.compute(), np.zeros(5))


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize(
    "function",
    [
        fastkl.entropy,
        lambda block: kl(block, block[:, ::-1]),
        lambda block: fastkl.js_distance(block, block[:, ::-1]),
        lambda block: nll(np.zeros(len(block), int), block),
        lambda block: compare(block, block).entropy_p,
        lambda block: fastkl.entropy(block, axis=0),
    ],
)
def test_dask_finds_the_dtype_of_a_function(function, dtype):
    """It calls the function with blocks that it made up, of sizes 0 and 1, and of zeros."""
    rows = np.full((6, 6), 0.1, dtype) + 0.4 * np.eye(6, dtype=dtype)  # distributions along both axes
    found = chunked(rows, (6, 6)).map_blocks(function, drop_axis=1)
    assert found.dtype == function(rows).dtype
    assert_same(found.compute(), function(rows))


def test_dask_finds_the_dtype_of_frames():
    dd, pd = pytest.importorskip("dask.dataframe"), pytest.importorskip("pandas")
    found = dd.from_pandas(pd.DataFrame(P), npartitions=2).map_partitions(fastkl.entropy)
    assert found.dtype == float
    assert_same(found.compute().to_numpy(), fastkl.entropy(P))


def test_made_up_rows_are_invalid_elsewhere():
    pytest.importorskip("dask.array")
    with pytest.raises(fastkl.InvalidRowError):
        fastkl.entropy([[0.0]])


@pytest.mark.parametrize("shape", [(0, 0), (3, 0, 0), (0, 3, 0)])
def test_no_rows_of_no_length(shape):
    none = np.empty(shape, "f4")
    assert fastkl.entropy(none).shape == shape[:-1]
    assert kl(none, none).dtype == np.float32
    assert compare(none, none).js.shape == shape[:-1]
    assert fastkl.score(none, none)["rows"] == 0
