"""Data frames and columns: pandas, polars and Arrow."""

import sys

import numpy as np
import pytest
from support.checks import assert_allocates_less, assert_close, assert_invalid, assert_refused, assert_same, distributions
from support.containers import BAD, FILL, NEGATIVE, P, Q, arrow_array, arrow_chunks, pandas_blocks, pandas_frame, recorded

import fastkl

kl, entropy = fastkl.kl_divergence, fastkl.entropy


@pytest.mark.parametrize("name", ["pandas", "polars"])
def test_errors_in_a_series_beside_a_data_frame(name):
    """A series is the same row for all, along either axis: its index has one number."""
    library = pytest.importorskip(name)
    column = library.Series(BAD[3])
    assert_invalid("q[4]", NEGATIVE, kl, library.DataFrame(P), column)
    assert_invalid("q[4]", NEGATIVE, kl, library.DataFrame(P.T), column, axis=0)
    assert_invalid("p[4]", NEGATIVE, kl, column, library.DataFrame(P.T), axis=0)


def labelled(values, make=pandas_frame):
    return make(values).set_axis([f"row {i}" for i in range(len(values))]).set_axis(list("abcdefg"), axis=1)


def test_pandas_labels_of_the_result():
    p, q = labelled(P), labelled(Q)
    for pair in (p, q), (p, Q), (P, q), (p, q.iloc[0]), (p.iloc[0], q), (p, q.iloc[:1]), (p.iloc[:1], q):
        result = kl(*pair)
        assert result.index.equals(p.index)
        assert result.name is None
        kept = kl(*pair, keepdims=True)
        assert kept.shape == (5, 1)
        assert kept.index.equals(p.index)
        assert_same(kept[0], result)


@pytest.mark.parametrize("make", [pandas_frame, pandas_blocks])
def test_pandas_axis_0(make):
    """A series is a distribution along either axis."""
    p, q = labelled(P, make), labelled(Q, make)
    expected = kl(P, Q, axis=0, normalize=True)
    for pair in (p, q), (p, Q), (P, q):
        result = kl(*pair, axis=0, normalize=True)
        assert result.index.equals(p.columns)
        assert_close(result, expected)
    kept = kl(p, q, axis=-2, normalize=True, keepdims=True)
    assert kept.columns.equals(p.columns)
    assert_close(kept, expected[np.newaxis])
    result = kl(p, q["c"], axis=0, normalize=True)
    assert result["c"] == kl(P[:, 2], Q[:, 2], normalize=True)
    assert_close(result, kl(P, Q[:, 2:3], axis=0, normalize=True))


def test_pandas_series_give_a_number():
    p, q = labelled(P).iloc[0], labelled(Q).iloc[0]
    result = kl(p, q)
    assert type(result) is np.float64
    assert result == kl(P[0], Q[0])
    assert entropy(p.astype("Float64")) == entropy(P[0])
    assert kl(p, q, keepdims=True).shape == (1,)


def test_pandas_labels_must_agree():
    p, q = labelled(P), labelled(Q)
    swapped = q[list("acbdefg")]
    advice = "reindex or reorder one, or pass one of them as a NumPy array to compare by position"
    for which, differ, other, axis in (
        ("distributions'", "'b' and 'c' at position 1", swapped, -1),
        ("distributions'", "'b' and 'c' at position 1", swapped.iloc[0], -1),
        ("distributions'", "7 and 6 of them", q.drop(columns="a"), -1),
        ("other", "'row 0' and 'row 4' at position 0", q[::-1], -1),
        ("other", "5 and 4 of them", q[:4], -1),
        ("distributions'", "5 and 4 of them", q[:4], 0),
    ):
        message = f"p and q have different labels along the {which} axis, {differ}: {advice}"
        assert_refused(ValueError, message, kl, p, other, axis=axis)
    assert_close(kl(p, swapped[list("abcdefg")]), kl(P, Q))
    assert_close(kl(p, swapped.to_numpy(), normalize=True), kl(P, swapped.to_numpy(), normalize=True))


def test_pandas_frame_of_one_block_is_viewed(monkeypatch):
    p, blocks = pandas_frame(P), pandas_blocks(P)
    requests = recorded(monkeypatch)
    for axis in -1, -2:
        entropy(p, axis=axis, normalize=True)
        assert np.shares_memory(requests.pop().p, p.to_numpy())
        assert not requests
    assert not np.shares_memory(blocks.to_numpy(), blocks.to_numpy())


@pytest.mark.parametrize("axis", [0, 1])
def test_pandas_mixed_dtypes(axis):
    """A row has a dtype that can hold all its entries."""
    pd = pytest.importorskip("pandas")
    counts = np.random.default_rng(10).integers(1, 100, (3000, 5))
    kinds = ["int8", "float32", "bool", "Float64", "UInt16"]
    mixed = pd.DataFrame({name: pd.Series(column).astype(name) for name, column in zip(kinds, counts.T, strict=True)})
    values = counts.astype(float)
    values[:, 2] = 1
    for pair, expected in ((mixed, values), (values, values)), ((values[::-1], mixed), (values[::-1], values)):
        assert_close(kl(*pair, normalize=True, axis=axis), kl(*expected, normalize=True, axis=axis))
    single = mixed[["int8", "float32", "bool"]]
    assert kl(single, single, normalize=True).dtype == "float32"


@pytest.mark.parametrize("dtype", ["Float64", "double[pyarrow]", "Int64"])
def test_pandas_missing_values(dtype):
    pd = pytest.importorskip("pandas")
    if "pyarrow" in dtype:
        pytest.importorskip("pyarrow")
    whole = pd.DataFrame(np.ones((5, 3)), dtype=dtype)
    assert_same(entropy(whole, normalize=True), entropy(np.ones((5, 3)), normalize=True))
    whole.iloc[3, 1] = pd.NA
    assert_refused(ValueError, f"p[3, 1] is missing: {FILL}", entropy, whole, normalize=True)
    assert_refused(ValueError, f"q[3, 0] is missing: {FILL}", kl, np.ones(5), whole[1], normalize=True)
    whole.iloc[3, 1] = 0
    assert entropy(whole, base=2, normalize=True)[3] == 1


def test_polars_frames():
    pl = pytest.importorskip("polars")
    p, q = (pl.DataFrame(x, schema=list("abcdefg")) for x in (P, Q))
    assert kl(p, q, keepdims=True).shape == (5, 1)
    one_row = kl(p, q, axis=0, normalize=True)
    assert one_row.columns == p.columns
    assert_close(one_row, kl(P, Q, axis=0, normalize=True)[np.newaxis])
    assert_close(kl(p, q["c"], axis=0, normalize=True), kl(P, Q[:, 2:3], axis=0, normalize=True)[np.newaxis])
    assert_close(kl(p, pl.Series(Q[0])), kl(P, Q[0]))
    message = "p and q have different labels along the distributions' axis, 'a' and 'b' at position 0: select..."
    assert_refused(ValueError, message, kl, p, q.select(list("bacdefg")))


def test_polars_series():
    pl = pytest.importorskip("polars")
    p, q = pl.Series("p", P), pl.Series("q", Q)
    result = kl(p, q)
    assert result.name == "p"
    assert result.dtype == pl.Float64
    assert kl(P, q).name == "q"
    assert kl(p, q, keepdims=True).dtype == pl.Array(pl.Float64, 1)
    one, other = pl.Series(P[0]), pl.Series(Q[0])
    assert type(kl(one, other)) is np.float64
    kept = kl(one, other, keepdims=True)
    assert isinstance(kept, pl.Series)
    assert_close(kept, kl(P[0], Q[0], keepdims=True))
    deep, bits = distributions(11, (2, 3, 4)), P > 0.1
    assert_close(entropy(pl.Series(deep)), entropy(deep))
    assert_close(entropy(pl.Series(bits), normalize=True), entropy(bits, normalize=True))


def test_arrow_slices_and_chunks():
    pa = pytest.importorskip("pyarrow")
    p, q = arrow_array(P), arrow_array(Q)
    assert_same(kl(p[2:], q[2:]), kl(P, Q)[2:])
    nulls = pa.array([[1, 0], None, [0, None], [1, 0]], pa.list_(pa.float64(), 2))
    assert_same(entropy(nulls[3:]), np.zeros(1))
    other = pa.chunked_array([q[:1], q[1:4], q[4:]])
    result = kl(arrow_chunks(P), other)
    assert type(result) is pa.ChunkedArray
    assert_close(result, kl(P, Q))
    assert type(kl(p, other)) is pa.DoubleArray
    assert_close(entropy(other.combine_chunks(), axis=0, normalize=True), entropy(Q, axis=0, normalize=True))


def test_arrow_types():
    pa = pytest.importorskip("pyarrow")
    assert kl(arrow_array(P), Q, keepdims=True).type == pa.list_(pa.float64(), 1)
    assert type(kl(pa.array(P[0]), pa.array(Q[0]))) is np.float64
    assert kl(arrow_array(P.astype("f4")), Q.astype("f4")).type == pa.float32()
    deep = distributions(13, (2, 3, 4))
    lists = pa.FixedSizeListArray.from_arrays(arrow_array(deep.reshape(6, 4)), 3)
    for column in pa.FixedShapeTensorArray.from_numpy_ndarray(deep), lists:
        assert entropy(column).to_pylist() == entropy(deep).tolist()
    bits = np.random.default_rng(14).random((70_000, 9)) < 0.9
    assert_close(entropy(arrow_array(bits)[3:], normalize=True), entropy(bits[3:], normalize=True))
    bits[60_000] = False
    zero = " sums to 0: rows must have a positive sum"
    assert_invalid("p[59997]", zero, entropy, arrow_array(bits)[3:], normalize=True)
    chunks = pa.chunked_array([arrow_array(bits[:50_001]), arrow_array(bits[50_001:])])
    assert_invalid("p[60000]", zero, entropy, chunks, normalize=True)
    counts = np.arange(1, 36).reshape(5, 7)
    assert_close(entropy(arrow_array(counts), normalize=True), entropy(counts, normalize=True))


class Exporter:
    """An array of another library, which can only export Arrow data."""

    def __init__(self, array):
        self.array = array

    def __arrow_c_array__(self, requested_schema=None):
        return self.array.__arrow_c_array__(requested_schema)


class StreamExporter:
    """The same in chunks."""

    def __arrow_c_stream__(self, requested_schema=None):
        return arrow_chunks(P).__arrow_c_stream__(requested_schema)


def test_arrow_exporters(monkeypatch):
    p = Exporter(arrow_array(P))
    assert type(kl(p, Q)).__name__ == "DoubleArray"
    assert_close(kl(p, arrow_array(Q)), kl(P, Q))
    assert_close(kl(StreamExporter(), Q), kl(P, Q))
    monkeypatch.delitem(sys.modules, "pyarrow")
    message = f"p is a {__name__}.Exporter, which exports Arrow data: import pyarrow first..."
    assert_refused(TypeError, message, kl, p, Q)


def test_pyarrow_allocates_nothing():
    pa = pytest.importorskip("pyarrow")
    values = distributions(15, (20_000, 50))
    array = arrow_array(values)
    chunks = pa.chunked_array([array[:3], array[3:9000], array[9000:]])
    before, pool = pa.total_allocated_bytes(), pa.default_memory_pool()
    highest = pool.max_memory()
    for p in array, chunks:
        entropy(p)
    assert pool.max_memory() <= max(highest, before + values.nbytes / 20)
    bits = arrow_array(values > 0.01)
    assert_allocates_less(values.size / 2, lambda: entropy(bits, normalize=True))  # of the bytes that they would fill
