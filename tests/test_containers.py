"""Other libraries' containers: a call gives the values of the same call with NumPy arrays, in a container of the same kind.

Each test skips where its library is missing. These tests do not check that values are right, but that they are NumPy's: bit
for bit where the kernels read rows of the same layout, else to within rounding. Memory must be read where it is.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import tempfile
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from measures import MEASURES, PAIR_MEASURES

import fastkl
from fastkl import call

if TYPE_CHECKING:
    from collections.abc import Callable

    Array = np.ndarray[Any, Any]

kl = fastkl.kl_divergence
ENTRY = "probabilities must be finite and non-negative"
FILL = "fill missing values, or leave their rows out, before the call"


def rows(seed: int, shape: tuple[int, ...] = (5, 7), dtype: Any = float, axis: int = -1) -> Array:
    weights = np.random.default_rng(seed).random(shape)
    return (weights / weights.sum(axis=axis, keepdims=True)).astype(dtype)


def with_entry(at: Any, value: float, operand: Array) -> Array:
    copy = operand.copy()
    copy[at] = value
    return copy


P, Q = rows(1), rows(2)
BAD = with_entry((3, 4), -1, P)


def assert_values(result: Any, expected: Any) -> None:
    """Assert that the result has the expected dtype, shape and bits."""
    np.testing.assert_array_equal(np.asarray(result), np.asarray(expected), strict=True)


def assert_close(result: Any, expected: Array) -> None:
    """Assert equality to within rounding, for rows that the kernels read in another layout.

    Both results are right to 4 eps D, or to 4 eps H + 2 eps with H above 1/2.
    """
    result = np.asarray(result)
    np.testing.assert_allclose(result, expected, rtol=16 * np.finfo(expected.dtype).eps, atol=0, strict=True)


def assert_refused(error: type[Exception], message: str, call: Callable[..., Any], *args: Any, **keywords: Any) -> None:
    with pytest.raises(error) as caught:
        call(*args, **keywords)
    assert str(caught.value) == message


def assert_invalid(place: str, problem: str, call: Callable[..., Any], *args: Any, **keywords: Any) -> None:
    """Assert that the call raises an InvalidRowError with a place such as "q[3, :, 1]" in its message and its fields."""
    with pytest.raises(fastkl.InvalidRowError) as caught:
        call(*args, **keywords)
    error = caught.value
    assert str(error) == f"{place}{problem}"
    operand, _, index = place.removesuffix("]").partition("[")
    parts = index.split(", ") if index else []
    assert error.operand == operand
    assert error.index == tuple(slice(None) if part == ":" else int(part) for part in parts)


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The requests that have reached `call.run`, where all operands are NumPy's."""
    received: list[Any] = []
    run = call.run

    def record(request: Any) -> Any:
        received.append(request)
        return run(request)

    monkeypatch.setattr(call, "run", record)
    return received


def peak(call: Callable[[], Any]) -> int:
    """The most bytes that Python and NumPy hold during a call, less what they held before."""
    call()  # imports and caches
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


# ---- NumPy alone ---------------------------------------------------------------------------------------------------------

LIBRARIES = ["torch", "pandas", "xarray", "pyarrow", "polars", "jax", "dask", "scipy", "ml_dtypes", "array_api_compat"]


def run(source: str) -> None:
    """Run the source in a new process with the fastkl that is tested here, outside of a checkout that may not be built."""
    environment = {**os.environ, "PYTHONPATH": str(Path(fastkl.__file__).resolve().parents[1])}
    subprocess.run([sys.executable, "-c", source], check=True, cwd=tempfile.gettempdir(), env=environment)


def test_no_library_is_imported() -> None:
    """For NumPy arrays, fastkl's own package for other libraries is not imported either."""
    run(
        "import fastkl, numpy as np, sys\n"
        "p = np.full((2, 2), 0.5); fastkl.kl_divergence(p, p)\n"
        "assert 'fastkl.containers' not in sys.modules\n"
        "fastkl.kl_divergence([0.5, 0.5], p)\n"
        f"assert not {set(LIBRARIES)} & sys.modules.keys()"
    )


def test_pandas_frames_import_no_other_library() -> None:
    pytest.importorskip("pandas")
    run(
        "import sys, numpy as np, pandas, fastkl\n"
        "frame = pandas.DataFrame(np.full((2, 2), 0.5))\n"
        "assert type(fastkl.entropy(frame)) is pandas.Series\n"
        f"assert not {set(LIBRARIES) - {'pandas', 'pyarrow', 'scipy'}} & sys.modules.keys()"
    )


class Subclass(np.ndarray[Any, Any]):
    """A subclass of NumPy's array."""


def test_subclasses_of_ndarray_give_ndarrays() -> None:
    assert type(kl(P.view(Subclass), Q)) is np.ndarray
    assert type(kl(np.ma.array(P), Q)) is np.ndarray
    assert type(kl(list(P), tuple(Q))) is np.ndarray


# ---- every container -----------------------------------------------------------------------------------------------------


def torch_tensor(values: Array) -> Any:
    return pytest.importorskip("torch").from_numpy(values)


def pandas_frame(values: Array) -> Any:
    return pytest.importorskip("pandas").DataFrame(values)


def pandas_blocks(values: Array) -> Any:
    """A frame with a block of memory for each column."""
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(values)
    return pd.DataFrame({name: frame[name].copy() for name in frame}, copy=False)


def pandas_nullable(values: Array) -> Any:
    return pandas_frame(values).astype("Float64")


def polars_frame(values: Array) -> Any:
    return pytest.importorskip("polars").DataFrame(values)


def polars_series(values: Array) -> Any:
    return pytest.importorskip("polars").Series("name", values)


def polars_chunks(values: Array) -> Any:
    pl = pytest.importorskip("polars")
    return pl.concat([pl.Series("name", values[:3]), pl.Series("name", values[3:])], rechunk=False)


def arrow_array(values: Array) -> Any:
    pa = pytest.importorskip("pyarrow")
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])


def arrow_tensors(values: Array) -> Any:
    tensors = pytest.importorskip("pyarrow").FixedShapeTensorArray
    return tensors.from_numpy_ndarray(np.concatenate([values, values[:1] if len(values) else P]))[: len(values)]


def arrow_chunks(values: Array) -> Any:
    array = arrow_array(values)
    return pytest.importorskip("pyarrow").chunked_array([array[:2], array[2:2], array[2:]])


def xarray_array(values: Array) -> Any:
    return pytest.importorskip("xarray").DataArray(values)


def dask_array(values: Array) -> Any:
    return pytest.importorskip("dask.array").from_array(values, chunks=(2, 3))


def strict_array(values: Array) -> Any:
    return pytest.importorskip("array_api_strict").asarray(values)


def jax_array(values: Array) -> Any:
    jnp = pytest.importorskip("jax.numpy")
    return jnp.asarray(values)


# A function that makes a container of a matrix, and the class of a result with one axis. JAX, which has no float64 by
# default, has tests of its own.
CONTAINERS: dict[str, tuple[Callable[[Array], Any], str]] = {
    "torch": (torch_tensor, "Tensor"),
    "pandas": (pandas_frame, "Series"),
    "pandas, many blocks": (pandas_blocks, "Series"),
    "pandas, nullable": (pandas_nullable, "Series"),
    "polars frame": (polars_frame, "Series"),
    "polars series": (polars_series, "Series"),
    "polars chunks": (polars_chunks, "Series"),
    "arrow": (arrow_array, "DoubleArray"),
    "arrow tensors": (arrow_tensors, "DoubleArray"),
    "arrow chunks": (arrow_chunks, "ChunkedArray"),
    "xarray": (xarray_array, "DataArray"),
    "dask": (dask_array, "Array"),
    "array API": (strict_array, "Array"),
}
each_container = pytest.mark.parametrize(("make", "kind"), CONTAINERS.values(), ids=CONTAINERS)


@each_container
@pytest.mark.parametrize("measure", MEASURES)
def test_values_and_kind(measure: Callable[..., Any], make: Callable[[Array], Any], kind: str) -> None:
    expected = measure(P, Q, base=2)
    p, q = make(P), make(Q)
    for pair in (p, q), (p, Q), (p, Q.tolist()):
        result = measure(*pair, base=2)
        assert type(result).__module__.partition(".")[0] == type(p).__module__.partition(".")[0]
        assert type(result).__name__ == kind
        assert_close(result, expected)


@each_container
@pytest.mark.parametrize("measure", PAIR_MEASURES)
def test_a_numpy_array_as_p(measure: Callable[..., Any], make: Callable[[Array], Any], kind: str) -> None:
    result = measure(P, make(Q), base=2)
    assert type(result).__name__ == kind
    assert_close(result, measure(P, Q, base=2))


@each_container
def test_one_row_for_all(make: Callable[[Array], Any], kind: str) -> None:
    for pair, expected in ((make(P), Q[0]), kl(P, Q[0])), ((Q[0], make(P)), kl(Q[0], P)), ((make(P), Q[:1]), kl(P, Q[0])):
        result = kl(*pair)
        assert type(result).__name__ == kind
        assert_close(result, expected)


SUM = "rows must sum to 1 within 1.5e-08 (normalize=True accepts counts and weights)"


@each_container
def test_errors_have_the_index_in_the_users_operand(make: Callable[[Array], Any], kind: str) -> None:
    """The index counts from the start of the operand, not of a chunk or a block; it is 0 where the operand is broadcast."""

    def values(*operands: Any, **keywords: Any) -> Any:
        return np.asarray(kl(*operands, **keywords))  # at the latest here, dask computes

    assert_invalid("p[3, 4]", f" = -1.0: {ENTRY}", values, make(BAD), Q)
    assert_invalid("q[3, 4]", f" = -1.0: {ENTRY}", values, make(P), make(BAD))
    assert_invalid("q[3, 4]", f" = -1.0: {ENTRY}", values, make(P), BAD)
    assert_invalid("q[0, 4]", f" = -1.0: {ENTRY}", values, make(P), BAD[3:4])
    assert_invalid("q[4]", f" = -1.0: {ENTRY}", values, make(P), BAD[3])
    assert_invalid("p[4]", f" sums to 1.5: {SUM}", values, make(with_entry((4, 0), P[4, 0] + 0.5, P)), Q)
    assert np.isnan(values(make(BAD), Q, invalid="nan")).tolist() == [False, False, False, True, False]


AXIS_0 = {name: of for name, of in CONTAINERS.items() if name not in ("polars chunks", "arrow chunks")}


@pytest.mark.parametrize(("make", "kind"), AXIS_0.values(), ids=AXIS_0)
def test_errors_along_axis_0_have_the_column(make: Callable[[Array], Any], kind: str) -> None:
    """A dask array has several blocks of columns here."""

    def values(*operands: Any, **keywords: Any) -> Any:
        return np.asarray(kl(*operands, axis=0, **keywords))

    p, q = rows(28, (5, 7), axis=0), rows(29, (5, 7), axis=0)
    bad = with_entry((2, 5), -1, p)
    assert_invalid("p[2, 5]", f" = -1.0: {ENTRY}", values, make(bad), q)
    assert_invalid("q[2, 5]", f" = -1.0: {ENTRY}", values, make(p), make(bad))
    assert_invalid("q[2, 0]", f" = -1.0: {ENTRY}", values, make(p), bad[:, 5:6])
    long = with_entry((0, 5), p[0, 5] + 0.5, p)
    assert_invalid("p[:, 5]", f" sums to 1.5: {SUM}", values, make(long), make(q))
    assert_invalid("q[:, 5]", f" sums to 1.5: {SUM}", values, p, make(long))
    assert_invalid("q[:, 0]", f" sums to 1.5: {SUM}", values, make(p), long[:, 5:6])


@each_container
def test_arguments_are_checked(make: Callable[[Array], Any], kind: str) -> None:
    p = make(P)
    one_of = (ValueError, TypeError)
    for keywords in {"base": -1}, {"threads": 0}, {"invalid": "?"}, {"axis": 2}, {"axis": "x"}, {"eps": 2}, {"out": "x"}:
        with pytest.raises(one_of, match="must be"):
            kl(p, Q, **keywords)
    for q in Q[:4], Q[:, :6], rows(3, (4, 1, 7))[:, :, :3], [["x"] * 7] * 5, 1.0:
        with pytest.raises(one_of):
            kl(p, q)


@each_container
def test_no_rows(make: Callable[[Array], Any], kind: str) -> None:
    result = kl(make(P[:0]), Q[0])
    assert type(result).__name__ == kind
    assert np.asarray(result).shape == (0,)


@each_container
def test_out_is_an_array(make: Callable[[Array], Any], kind: str) -> None:
    out = np.full(5, np.nan, "f4")
    if kind == "Array" and make is dask_array:
        assert_refused(
            TypeError, "out: must be None for dask arrays, whose values are computed later", kl, make(P), Q, out=out
        )
        return
    assert kl(make(P), make(Q), out=out) is out
    assert_close(out, kl(P, Q, out=np.empty(5, "f4")))
    kept = np.full((5, 1), np.nan)
    assert kl(make(P), make(Q), out=kept, keepdims=True) is kept
    assert_close(kept[:, 0], kl(P, Q))
    assert_refused(ValueError, "out has shape (4,): must be (5,)", kl, make(P), Q, out=out[:4])


def test_operands_of_two_libraries_are_refused() -> None:
    frame, tensor = pandas_frame(P), torch_tensor(Q)
    wanted = "must be of one library, or NumPy arrays"
    assert_refused(TypeError, f"p is a pandas.DataFrame and q a torch.Tensor: {wanted}", kl, frame, tensor)
    assert_refused(TypeError, f"p is a torch.Tensor and q a pandas.DataFrame: {wanted}", kl, tensor, frame)


def test_sparse_matrices_are_refused() -> None:
    sparse = pytest.importorskip("scipy.sparse")
    for kind in sparse.csr_matrix, sparse.coo_array:
        message = f"is a scipy.{kind.__name__}: sparse matrices are not supported; toarray() makes it dense"
        assert_refused(TypeError, f"p {message}", fastkl.entropy, kind(P))
        assert_refused(TypeError, f"q {message}", kl, P, kind(P))


@pytest.mark.parametrize("make", [pandas_blocks, polars_frame])
def test_errors_in_later_pieces_of_a_data_frame(make: Callable[[Array], Any]) -> None:
    """A frame of many blocks of memory is read some rows or columns at a time."""
    for axis, shape, at in (-1, (20_000, 50), (15_000, 3)), (0, (20_000, 50), (15_000, 43)):
        p = rows(30, shape, axis=axis)
        row = (15_000,) if axis == -1 else (slice(None), 43)
        assert_invalid(f"p[{at[0]}, {at[1]}]", f" = -1.0: {ENTRY}", fastkl.entropy, make(with_entry(at, -1, p)), axis=axis)
        with pytest.raises(fastkl.InvalidRowError) as caught:
            fastkl.entropy(make(with_entry(at, p[at] + 0.5, p)), axis=axis)
        assert (caught.value.index, caught.value.reason) == (row, "sum")


def test_errors_in_a_series_beside_a_data_frame() -> None:
    """A series is the same row for all, along either axis: its index has one number."""
    for make, series in (pandas_frame, "pandas"), (polars_frame, "polars"):
        column = pytest.importorskip(series).Series(BAD[3])
        assert_invalid("q[4]", f" = -1.0: {ENTRY}", kl, make(P), column)
        assert_invalid("q[4]", f" = -1.0: {ENTRY}", kl, make(P.T), column, axis=0)
        assert_invalid("p[4]", f" = -1.0: {ENTRY}", kl, column, make(P.T), axis=0)


# ---- torch ---------------------------------------------------------------------------------------------------------------


def test_torch_memory_is_shared() -> None:
    torch = pytest.importorskip("torch")
    p = torch.from_numpy(rows(4, (2000, 100)))
    assert peak(lambda: fastkl.entropy(p)) < p.nbytes / 20
    assert peak(lambda: fastkl.entropy(p.T, axis=0)) < p.nbytes / 20
    result = kl(p, p)
    assert result.numpy().base is not None  # the tensor is a view of a NumPy array
    scalar = kl(p[0], p[1])
    assert scalar.shape == ()
    assert type(scalar) is torch.Tensor


def test_torch_bfloat16_is_viewed(requests: list[Any]) -> None:
    """NumPy reads the bits where they are."""
    torch = pytest.importorskip("torch")
    tensor = torch.tensor([[1.0, 2.0, 3.0], [0.5, 0.25, 0.0]], dtype=torch.bfloat16)[:, ::2]
    fastkl.entropy(tensor, normalize=True)
    view = requests[0].p
    assert view.dtype == call.BFLOAT16
    assert view.ctypes.data == tensor.data_ptr()
    assert view["bfloat16"].tolist() == [[0x3F80, 0x4040], [0x3F00, 0]]


@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_torch_axis_and_strides(axis: int, keepdims: bool) -> None:
    p, q = rows(5, (4, 6, 8), axis=axis), rows(6, (4, 6, 8), axis=axis)
    tensors = [torch_tensor(x).permute(2, 0, 1).contiguous().permute(1, 2, 0) for x in (p, q)]
    assert_close(kl(*tensors, axis=axis, keepdims=keepdims), kl(p, q, axis=axis, keepdims=keepdims))


def test_torch_out() -> None:
    torch = pytest.importorskip("torch")
    p, q = torch_tensor(P), torch_tensor(Q)
    for dtype in torch.float64, torch.float32, torch.float16:
        whole = torch.zeros(5, 2, dtype=dtype)
        out = whole[:, 1]
        assert kl(p, q, out=out) is out
        assert_values(whole[:, 1], kl(P, Q, out=np.empty(5, str(dtype).removeprefix("torch."))))
        assert not whole[:, 0].any()
    assert kl(P, q, out=(out := torch.empty(5, 1)), keepdims=True) is out
    assert_refused(ValueError, "out has shape (4,): must be (5,)", kl, p, q, out=torch.empty(4))
    assert_refused(TypeError, "out is a Tensor: must be an array", kl, P, Q, out=torch.empty(5))
    with pytest.raises(TypeError, match=r"^out requires grad"):
        kl(p, q, out=torch.empty(5, requires_grad=True))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_torch_half(dtype: str) -> None:
    """A float32 holds every float16 and bfloat16: the result is that of the same values in float32, for any strides."""
    torch = pytest.importorskip("torch")
    p = torch_tensor(rows(7, (6, 40))).to(getattr(torch, dtype))
    q = torch_tensor(rows(8, (6, 80))).to(getattr(torch, dtype))[:, ::2]
    result = kl(p, q, normalize=True)
    assert result.dtype == torch.float32
    assert_close(result, kl(p.float().numpy(), q.float().numpy(), normalize=True))
    assert kl(p[0], p[0]) == 0


def test_torch_refusals() -> None:
    torch = pytest.importorskip("torch")
    p = torch_tensor(P.copy())
    assert_refused(
        TypeError,
        "p requires grad: fastkl computes no gradients; p.detach() is accepted",
        kl,
        p.clone().requires_grad_(),
        Q,
    )
    assert_values(kl(torch.nn.Parameter(p).detach(), Q), kl(P, Q))
    message = "q is a tensor on device meta: must be on the CPU (q.cpu() copies it there)"
    assert_refused(TypeError, message, kl, P, torch.empty(5, 7, device="meta"))
    message = "p is a tensor of layout torch.sparse_coo: must be dense (to_dense() makes it so)"
    assert_refused(TypeError, message, kl, p.to_sparse(), Q)
    for other in p.to(torch.float8_e4m3fn), torch.complex(p, -p).conj(), torch.complex(p, -p).conj().imag:
        with pytest.raises(TypeError, match=rf"^p is a tensor of {other.dtype}, which is no NumPy array: "):
            kl(other, Q)
    with pytest.raises(TypeError, match=r"^p has dtype complex128: "):
        kl(torch.complex(p, p), Q)


# ---- pandas --------------------------------------------------------------------------------------------------------------


def labelled(values: Array) -> Any:
    pd = pytest.importorskip("pandas")
    return pd.DataFrame(values, index=[f"row {i}" for i in range(len(values))], columns=list("abcdefg"))


def test_pandas_labels_of_the_result() -> None:
    p, q = labelled(P), labelled(Q)
    for pair in (p, q), (p, Q), (P, q), (p, q.iloc[0]), (p.iloc[0], q), (p, q.iloc[:1]), (p.iloc[:1], q):
        result = kl(*pair)
        assert result.index.equals(p.index)
        assert result.name is None
        kept = kl(*pair, keepdims=True)
        assert kept.shape == (5, 1)
        assert kept.index.equals(p.index)
        assert_values(kept[0], result)


@pytest.mark.parametrize("make", [labelled, lambda x: pandas_blocks(x).set_axis(list("abcdefg"), axis=1)])
def test_pandas_axis_0(make: Callable[[Array], Any]) -> None:
    """A series is a distribution along either axis."""
    p, q = make(P), make(Q)
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


def test_pandas_series_give_a_number() -> None:
    p, q = labelled(P).iloc[0], labelled(Q).iloc[0]
    result = kl(p, q)
    assert type(result) is np.float64
    assert result == kl(P[0], Q[0])
    assert fastkl.entropy(p.astype("Float64")) == fastkl.entropy(P[0])
    assert kl(p, q, keepdims=True).shape == (1,)


def test_pandas_labels_must_agree() -> None:
    p, q = labelled(P), labelled(Q)
    advice = "reindex or reorder one, or pass one of them as a NumPy array to compare by position"
    columns, index = (f"p and q have different labels along the {which} axis, " for which in ("distributions'", "other"))
    swapped = q[list("acbdefg")]
    assert_refused(ValueError, f"{columns}'b' and 'c' at position 1: {advice}", kl, p, swapped)
    assert_refused(ValueError, f"{columns}'b' and 'c' at position 1: {advice}", kl, p, swapped.iloc[0])
    assert_refused(ValueError, f"{columns}7 and 6 of them: {advice}", kl, p, q.drop(columns="a"))
    assert_refused(ValueError, f"{index}'row 0' and 'row 4' at position 0: {advice}", kl, p, q[::-1])
    assert_refused(ValueError, f"{index}5 and 4 of them: {advice}", kl, p, q[:4])
    assert_refused(ValueError, f"{columns}5 and 4 of them: {advice}", kl, p, q[:4], axis=0)
    assert_close(kl(p, swapped[list("abcdefg")]), kl(P, Q))
    assert_close(kl(p, swapped.to_numpy(), normalize=True), kl(P, swapped.to_numpy(), normalize=True))


def test_pandas_frame_of_one_block_is_viewed(requests: list[Any]) -> None:
    p = pandas_frame(P)
    for axis in -1, -2:
        fastkl.entropy(p, axis=axis, normalize=True)
        assert np.shares_memory(requests.pop().p, p.to_numpy())
        assert not requests


def test_pandas_memory() -> None:
    """A frame of one block of memory is read where it is, any other a piece at a time."""
    pd = pytest.importorskip("pandas")
    p = pd.DataFrame(rows(9, (20_000, 50)))
    size = p.to_numpy().nbytes
    assert peak(lambda: fastkl.entropy(p)) < size / 20
    assert peak(lambda: fastkl.entropy(p, axis=0, normalize=True)) < size / 20
    blocks = pandas_blocks(p.to_numpy())
    assert not np.shares_memory(blocks.to_numpy(), blocks.to_numpy())
    assert peak(lambda: fastkl.entropy(blocks)) < size / 8
    assert peak(lambda: fastkl.entropy(blocks, axis=0, normalize=True)) < size / 8
    assert_close(fastkl.entropy(blocks), fastkl.entropy(p.to_numpy()))


@pytest.mark.parametrize("axis", [0, 1])
def test_pandas_mixed_dtypes(axis: int) -> None:
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
def test_pandas_missing_values(dtype: str) -> None:
    pd = pytest.importorskip("pandas")
    if "pyarrow" in dtype:
        pytest.importorskip("pyarrow")
    whole = pd.DataFrame(np.ones((5, 3)), dtype=dtype)
    assert_values(fastkl.entropy(whole, normalize=True), fastkl.entropy(np.ones((5, 3)), normalize=True))
    whole.iloc[3, 1] = pd.NA
    assert_refused(ValueError, f"p[3, 1] is missing: {FILL}", fastkl.entropy, whole, normalize=True)
    assert_refused(ValueError, f"q[3, 0] is missing: {FILL}", kl, np.ones(5), whole[1], normalize=True)
    whole.iloc[3, 1] = 0
    assert fastkl.entropy(whole, base=2, normalize=True)[3] == 1


def test_pandas_refusals() -> None:
    pd = pytest.importorskip("pandas")
    wanted = "must be floating, integer or bool"
    for dtype in "object", "category", "str", "datetime64[ns]":
        frame = labelled(P).assign(a=pd.Series([1] * 5, index=labelled(P).index).astype(dtype))
        assert_refused(TypeError, f"p has a column of dtype {frame['a'].dtype}: {wanted}", fastkl.entropy, frame)
    assert_refused(
        ValueError,
        "the result has shape (2, 5): must have at most one axis beside data frames",
        kl, labelled(P), np.stack([Q, Q]),
    )  # fmt: skip


# ---- polars --------------------------------------------------------------------------------------------------------------


def test_polars_frames() -> None:
    pl = pytest.importorskip("polars")
    p, q = (pl.DataFrame(x, schema=list("abcdefg")) for x in (P, Q))
    assert kl(p, q, keepdims=True).shape == (5, 1)
    one_row = kl(p, q, axis=0, normalize=True)
    assert one_row.columns == p.columns
    assert_close(one_row, kl(P, Q, axis=0, normalize=True)[np.newaxis])
    assert_close(kl(p, q["c"], axis=0, normalize=True), kl(P, Q[:, 2:3], axis=0, normalize=True)[np.newaxis])
    assert_close(kl(p, pl.Series(Q[0])), kl(P, Q[0]))
    with pytest.raises(
        ValueError, match="different labels along the distributions' axis, 'a' and 'b' at position 0: select"
    ):
        kl(p, q.select(list("bacdefg")))
    assert_refused(TypeError, "p is a polars.LazyFrame: call its collect() first", kl, p.lazy(), q)
    wanted = "must be floating, integer or bool"
    assert_refused(TypeError, f"q['a'] has dtype String: {wanted}", kl, p, q.with_columns(a=pl.lit("x")))
    null = q.with_columns(b=pl.when(pl.col("a") == Q[2, 0]).then(None).otherwise(pl.col("b")))
    assert_refused(ValueError, f"q[2, 'b'] is null: {FILL}", kl, p, null)


def test_polars_series() -> None:
    pl = pytest.importorskip("polars")
    p, q = pl.Series("p", P), pl.Series("q", Q)
    result = kl(p, q)
    assert result.name == "p"
    assert result.dtype == pl.Float64
    assert kl(P, q).name == "q"
    assert kl(p, q, keepdims=True).dtype == pl.Array(pl.Float64, 1)
    assert type(kl(pl.Series(P[0]), pl.Series(Q[0]))) is np.float64
    kept = kl(pl.Series(P[0]), pl.Series(Q[0]), keepdims=True)
    assert isinstance(kept, pl.Series)
    assert_close(kept, kl(P[0], Q[0], keepdims=True))
    deep = rows(11, (2, 3, 4))
    assert_close(fastkl.entropy(pl.Series(deep)), fastkl.entropy(deep))
    bits = P > 0.1
    assert_close(fastkl.entropy(pl.Series(bits), normalize=True), fastkl.entropy(bits, normalize=True))
    pair = pl.Array(pl.Float64, 2)
    assert_refused(ValueError, f"p[1, 0] is null: {FILL}", fastkl.entropy, pl.Series([[1, 0], [None, 1]], dtype=pair))
    assert_refused(ValueError, f"p[1] is null: {FILL}", fastkl.entropy, pl.Series([[1, 0], None], dtype=pair))
    chunks = pl.concat([pl.Series([[1, 0]] * 2, dtype=pair), pl.Series([[1, None]], dtype=pair)], rechunk=False)
    assert_refused(ValueError, f"p[2, 1] is null: {FILL}", fastkl.entropy, chunks)
    wanted = "must be an Array (cast it to polars.Array(inner, n))"
    assert_refused(TypeError, f"p has dtype List(Float64): {wanted}", fastkl.entropy, pl.Series([[1.0]]))
    assert_refused(TypeError, "p has dtype String: must be numbers, or an Array of numbers", kl, pl.Series(["a"]), q)
    with pytest.raises(ValueError, match=r"^axis=0: an operand is in chunks along this axis"):
        fastkl.entropy(polars_chunks(P), axis=0)


def test_polars_memory() -> None:
    """Python's tracemalloc counts NumPy's copies, but not the memory of polars."""
    values = rows(12, (20_000, 50))
    assert peak(lambda: fastkl.entropy(polars_series(values))) < values.nbytes / 20
    series, chunks, frame = polars_series(values), polars_chunks(values), polars_frame(values)
    for p, part in (series, 20), (chunks, 20), (frame, 8):
        assert peak(lambda p=p: fastkl.entropy(p)) < values.nbytes / part
    assert peak(lambda: fastkl.entropy(frame, axis=0, normalize=True)) < values.nbytes / 8


# ---- Arrow ---------------------------------------------------------------------------------------------------------------


def test_arrow_slices_and_chunks() -> None:
    p, q = arrow_array(P), arrow_array(Q)
    assert_values(kl(p[2:], q[2:]), kl(P, Q)[2:])
    pa = pytest.importorskip("pyarrow")
    other = pa.chunked_array([q[:1], q[1:4], q[4:]])
    result = kl(arrow_chunks(P), other)
    assert type(result) is pa.ChunkedArray
    assert_close(result, kl(P, Q))
    assert type(kl(p, other)) is pa.DoubleArray
    with pytest.raises(ValueError, match=r"^axis=0: an operand is in chunks along this axis"):
        fastkl.entropy(other, axis=0)
    assert_close(fastkl.entropy(other.combine_chunks(), axis=0, normalize=True), fastkl.entropy(Q, axis=0, normalize=True))


def test_arrow_types() -> None:
    pa = pytest.importorskip("pyarrow")
    assert kl(arrow_array(P), Q, keepdims=True).type == pa.list_(pa.float64(), 1)
    assert type(kl(pa.array(P[0]), pa.array(Q[0]))) is np.float64
    assert kl(arrow_array(P.astype("f4")), Q.astype("f4")).type == pa.float32()
    deep = rows(13, (2, 3, 4))
    assert fastkl.entropy(arrow_tensors(deep)).to_pylist() == fastkl.entropy(deep).tolist()
    lists = pa.FixedSizeListArray.from_arrays(arrow_array(deep.reshape(6, 4)), 3)
    assert fastkl.entropy(lists).to_pylist() == fastkl.entropy(deep).tolist()
    bits = np.random.default_rng(14).random((70_000, 9)) < 0.9
    assert_close(fastkl.entropy(arrow_array(bits)[3:], normalize=True), fastkl.entropy(bits[3:], normalize=True))
    bits[60_000] = False
    zero = " sums to 0: rows must have a positive sum"
    assert_invalid("p[59997]", zero, fastkl.entropy, arrow_array(bits)[3:], normalize=True)
    chunks = pa.chunked_array([arrow_array(bits[:50_001]), arrow_array(bits[50_001:])])
    assert_invalid("p[60000]", zero, fastkl.entropy, chunks, normalize=True)
    counts = np.arange(1, 36).reshape(5, 7)
    assert_close(fastkl.entropy(arrow_array(counts), normalize=True), fastkl.entropy(counts, normalize=True))


def test_arrow_refusals() -> None:
    pa = pytest.importorskip("pyarrow")
    wanted = "must be a list of fixed size (cast it to pyarrow.list_(value_type, n))"
    assert_refused(TypeError, f"p has type list<item: double>: {wanted}", fastkl.entropy, pa.array(P.tolist()))
    wanted = "must be numbers, or lists of fixed size of numbers"
    assert_refused(TypeError, f"p has type string: {wanted}", fastkl.entropy, pa.array(["a"]))
    for table in pa.table({"p": arrow_array(P)}), pa.record_batch({"p": arrow_array(P)}):
        with pytest.raises(TypeError, match=r"^q is a pyarrow\.\w+: pass one of its columns"):
            kl(P, table)
    pair = pa.list_(pa.float64(), 2)
    array = pa.array([[1, 0], None, [0, None], [1, 0]], pair)
    assert_refused(ValueError, f"p[1] is null: {FILL}", fastkl.entropy, array)
    assert_refused(ValueError, f"p[0, 1] is null: {FILL}", fastkl.entropy, array[2:])
    assert_refused(
        ValueError, f"p[2, 1] is null: {FILL}", fastkl.entropy, pa.chunked_array([array[3:], array[:1], array[2:]])
    )
    assert_refused(ValueError, f"q[1] is null: {FILL}", kl, [0.5, 0.5], pa.array([1.0, None]))
    assert_values(fastkl.entropy(array[3:]), np.zeros(1))


class Exporter:
    """An array of another library, which can only export Arrow data."""

    def __init__(self, array: Any) -> None:
        self.array = array

    def __arrow_c_array__(self, requested_schema: Any = None) -> Any:
        return self.array.__arrow_c_array__(requested_schema)


class StreamExporter:
    """The same in chunks."""

    def __init__(self, array: Any) -> None:
        self.array = array

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        return self.array.__arrow_c_stream__(requested_schema)


def test_arrow_exporters(monkeypatch: pytest.MonkeyPatch) -> None:
    assert type(kl(Exporter(arrow_array(P)), Q)).__name__ == "DoubleArray"
    assert_close(kl(Exporter(arrow_array(P)), arrow_array(Q)), kl(P, Q))
    assert_close(kl(StreamExporter(arrow_chunks(P)), Q), kl(P, Q))
    monkeypatch.delitem(sys.modules, "pyarrow")
    with pytest.raises(TypeError, match=r"^p is a \w+\.Exporter, which exports Arrow data: import pyarrow first"):
        kl(Exporter(None), Q)


def test_arrow_memory() -> None:
    """Values are read where they are: pyarrow allocates nothing, and NumPy only results and lists of chunks."""
    pa = pytest.importorskip("pyarrow")
    values = rows(15, (20_000, 50))
    array = arrow_array(values)
    chunks = pa.chunked_array([array[:3], array[3:9000], array[9000:]])
    before = pa.total_allocated_bytes()
    pool = pa.default_memory_pool()
    highest = pool.max_memory()
    for p in array, chunks:
        assert peak(lambda p=p: fastkl.entropy(p)) < values.nbytes / 20
    assert pool.max_memory() <= max(highest, before + values.nbytes / 20)
    bits = arrow_array(values > 0.01)
    assert peak(lambda: fastkl.entropy(bits, normalize=True)) < values.size / 2  # of the bytes that they would fill


# ---- JAX -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("measure", MEASURES)
def test_jax(measure: Callable[..., Any]) -> None:
    jax = pytest.importorskip("jax")
    p, q = jax_array(P.astype("f4")), jax_array(Q.astype("f4"))
    result = measure(p, q)
    assert isinstance(result, jax.Array)
    assert_values(result, measure(np.asarray(p), np.asarray(q)))
    assert measure(p, Q).dtype == jax.numpy.asarray(np.float64(1)).dtype  # JAX decides whether it has float64
    assert measure(p[0], q[0]).shape == ()
    assert_invalid("p[3, 4]", f" = -1.0: {ENTRY}", measure, jax_array(BAD.astype("f4")), q)
    for traced, args in (measure, (p, q)), (lambda p: measure(p, q), (p,)):
        with pytest.raises(jax.errors.TracerArrayConversionError):
            jax.jit(traced)(*args)


def test_jax_reads_in_place() -> None:
    p = jax_array(rows(16, (2000, 100), "f4"))
    assert peak(lambda: fastkl.entropy(p)) < p.nbytes / 20


def test_jax_bfloat16() -> None:
    jnp = pytest.importorskip("jax.numpy")
    p = jax_array(rows(17, (3, 50), "f4")).astype("bfloat16")
    result = fastkl.entropy(p, normalize=True)
    assert result.dtype == jnp.float32
    assert_close(result, fastkl.entropy(np.asarray(p.astype("f4")), normalize=True))


# ---- any array API -------------------------------------------------------------------------------------------------------


def test_array_api() -> None:
    xp = pytest.importorskip("array_api_strict")
    p = xp.asarray(P, device=xp.Device("device1"))
    result = fastkl.entropy(p, keepdims=True)
    assert result.device == p.device
    assert result.dtype == xp.float64
    assert fastkl.entropy(p[0, :]).shape == ()
    assert_close(fastkl.entropy(xp.asarray(P > 0.1), normalize=True), fastkl.entropy(P > 0.1, normalize=True))
    read_only = P.copy()
    read_only.flags.writeable = False
    assert_close(fastkl.entropy(xp.asarray(read_only, copy=False)), fastkl.entropy(P))
    large = xp.asarray(rows(18, (2000, 100)))
    assert peak(lambda: fastkl.entropy(large)) < 2000 * 100 * 8 / 20


class Foreign:
    """An object that has DLPack and nothing else."""

    def __init__(self, device: int) -> None:
        self.device = device

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device, 0

    def __dlpack__(self, **keywords: Any) -> Any:
        return P.__dlpack__(**keywords)


def test_dlpack_alone() -> None:
    result = fastkl.entropy(Foreign(1))
    assert type(result) is np.ndarray
    assert_values(result, fastkl.entropy(P))
    with pytest.raises(TypeError, match=r"^q is a \w+\.Foreign on device 2: must be on the CPU$"):
        kl(P, Foreign(2))


class Unexported(Foreign):
    """An object whose dtype DLPack cannot express."""

    def __dlpack__(self, **keywords: Any) -> Any:
        raise BufferError("no such dtype")


class UnexportedArray(Unexported):
    """The same with `__array__`, by which NumPy can read it."""

    def __array__(self, dtype: Any = None, copy: Any = None) -> Array:
        return np.array(P, dtype)


def test_array_protocol_is_used_where_dlpack_fails() -> None:
    with pytest.raises(TypeError, match=r"^p is a \w+\.Unexported, which is no NumPy array: no such dtype$"):
        fastkl.entropy(Unexported(1))
    assert_values(fastkl.entropy(UnexportedArray(1)), fastkl.entropy(P))


# ---- dask ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keepdims", [False, True])
def test_dask_is_lazy(keepdims: bool) -> None:
    """Dtype, shape and chunks are known before a block is computed, which would raise here."""
    da = pytest.importorskip("dask.array")

    def fail(*_: Any) -> Any:
        raise RuntimeError("computed")

    p = da.map_blocks(fail, dtype="f4", chunks=((2, 3), (4, 3)), meta=np.empty((0, 0), "f4"))
    for q, dtype in (p, "f4"), (Q, "f8"), (da.from_array(Q, chunks=(1, 7)), "f8"), (Q[0].astype("f4"), "f4"):
        result = kl(p, q, keepdims=keepdims)
        assert type(result) is da.Array
        assert result.dtype == dtype
        assert result._meta.dtype == dtype
        assert result.shape == ((5, 1) if keepdims else (5,))
        with pytest.raises(RuntimeError, match=r"^computed$"):
            result.compute()


@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("axis", [-1, 0, 1, 2])
@pytest.mark.parametrize(
    ("p_shape", "q_shape"),
    [((4, 6, 8), (4, 6, 8)), ((4, 6, 8), (1, 6, 8)), ((1, 6, 8), (4, 6, 8)), ((6, 8), (4, 6, 8)), ((4, 6, 8), (6, 8))],
)
def test_dask_axis_and_broadcasting(p_shape: Any, q_shape: Any, axis: int, keepdims: bool) -> None:
    da = pytest.importorskip("dask.array")
    p, q = rows(19, p_shape), rows(20, q_shape)
    if axis == 0 and p_shape != q_shape:
        p, q = np.broadcast_arrays(p, q)
    expected = kl(p, q, axis=axis, normalize=True, keepdims=keepdims)
    for pair in (
        (da.from_array(p, chunks=3), da.from_array(q, chunks=2)),
        (da.from_array(p, chunks=-1), q),
        (p, da.from_array(q)),
    ):
        result = kl(*pair, axis=axis, normalize=True, keepdims=keepdims)
        assert result.shape == expected.shape
        assert_close(result.compute(), expected)


@pytest.mark.parametrize(("threads", "used"), [(None, 1), (2, 2)])
def test_dask_blocks_have_a_thread_each(threads: int | None, used: int, requests: list[Any]) -> None:
    result = fastkl.entropy(dask_array(P), threads=threads)
    requests.clear()
    result.compute(scheduler="sync")
    assert [request.threads for request in requests] == [used] * 3


def test_dask_rows() -> None:
    da = pytest.importorskip("dask.array")
    p = da.from_array(P[0], chunks=3)
    assert kl(p, Q[0]).ndim == 0
    assert kl(p, Q[0]).compute() == kl(P[0], Q[0])
    unknown = dask_array(P)[dask_array(P)[:, 0] >= 0]
    assert_close(fastkl.entropy(unknown).compute(), fastkl.entropy(P))
    assert kl(dask_array(P[:0]), Q[:1]).chunks == ((0,),)
    assert_refused(
        ValueError,
        "p has shape (5, 7) and q has shape (4, 7): all axes except axis -1 must broadcast",
        kl, dask_array(P), dask_array(Q)[:4],
    )  # fmt: skip
    with pytest.raises(ValueError, match="compute_chunk_sizes"):  # dask's own error
        kl(unknown, Q)
    columns = dask_array(P)[:, dask_array(P)[0] >= 0]
    message = "q has an unknown length along axis -1: call its compute_chunk_sizes() first"
    assert_refused(ValueError, message, kl, P, columns)
    assert_close(kl(P, columns.compute_chunk_sizes()).compute(), kl(P, P))


LABELS = np.array([0, 6, -100, 3, 2])
SCORES, OTHER_SCORES = (np.random.default_rng(seed).standard_normal((5, 7)) for seed in (24, 25))
LABELLED: list[dict[str, Any]] = [
    {"from_logits": True, "ignore_index": -100},
    {"from_logits": True, "ignore_index": -100, "label_smoothing": 0.1, "temperature": 2.0, "base": 2},
    {"normalize": True, "ignore_index": -100, "eps": 1e-9},
]
each_chunking = pytest.mark.parametrize("chunks", [((2, 3), 3), ((5,), 2), ((1, 4), 5), ((3, 2), (1, 3, 1))], ids=str)


def assert_fields(result: Any, expected: Any) -> None:
    """Assert that the fields are dask arrays of the same bits as the expected arrays, or None where those are None."""
    import dask
    import dask.array as da

    assert type(result) is fastkl.Comparison
    (computed,) = dask.compute(result)
    for field, lazy, value, right in zip(fastkl.Comparison._fields, result, computed, expected, strict=True):
        if right is None:
            assert lazy is None, field
        else:
            assert type(lazy) is da.Array, field
            assert (lazy.dtype, lazy.shape) == (right.dtype, right.shape), field
            assert_values(value, right)


@each_chunking
@pytest.mark.parametrize("keywords", LABELLED, ids=str)
def test_dask_labels(keywords: dict[str, Any], chunks: Any) -> None:
    """Rows, columns and labels may have chunks of different lengths."""
    da = pytest.importorskip("dask.array")
    q = (SCORES if "from_logits" in keywords else SCORES**2).astype("f4")
    rows, labels = da.from_array(q, chunks=(chunks[0], 4)), da.from_array(LABELS, chunks=(chunks[1],))
    expected = fastkl.nll(LABELS, q, **keywords)
    for pair in (labels, rows), (labels, q), (LABELS, rows), (LABELS.tolist(), rows), (labels.astype("i2"), rows):
        result = fastkl.nll(*pair, **keywords)
        assert type(result) is da.Array
        assert (result.dtype, result.shape) == ("f4", (5,))
        assert_values(result.compute(), expected)


@each_chunking
@pytest.mark.parametrize("from_logits", [True, "q"], ids=str)
def test_dask_compare(from_logits: Any, chunks: Any) -> None:
    da = pytest.importorskip("dask.array")
    p, q = (SCORES if from_logits is True else P).astype("f4"), OTHER_SCORES.astype("f4")
    if from_logits is True:
        p[4] = q[4]
    lazy = (
        da.from_array(p, chunks=(chunks[0], 3)),
        da.from_array(q, chunks=(2, 7)),
        da.from_array(LABELS, chunks=(chunks[1],)),
    )
    keywords = {"from_logits": from_logits, "base": 2}
    for labels in None, LABELS, LABELS.tolist(), lazy[2]:
        options = {**keywords, "ignore_index": None if labels is None else -100}
        expected = fastkl.compare(p, q, None if labels is None else LABELS, **options)
        for pair in lazy[:2], (p, lazy[1]), (lazy[0], q):
            assert_fields(fastkl.compare(*pair, labels, **options), expected)


@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("axis", [-1, 0, 1, 2])
def test_dask_labels_axis_and_broadcasting(axis: int, keepdims: bool) -> None:
    da = pytest.importorskip("dask.array")
    draw = np.random.default_rng(26)
    p, q = draw.standard_normal((2, 4, 6, 8))
    keywords = {"axis": axis, "keepdims": keepdims, "from_logits": True}
    rows, others = da.from_array(p, chunks=3), da.from_array(q, chunks=(2, 6, 5))
    a, b = np.delete(p.shape, axis)
    for shape in [(a, b), (1, b), (a, 1), (b,), (1,), ()]:
        labels = draw.integers(0, p.shape[axis], shape)
        chunked = da.from_array(labels, chunks=2)
        if len(shape) == 2:
            result = fastkl.nll(chunked, rows, **keywords)
            assert_values(result.compute(), fastkl.nll(labels, p, **keywords))
        assert_fields(fastkl.compare(rows, others, chunked, **keywords), fastkl.compare(p, q, labels, **keywords))
    labels = draw.integers(0, p.shape[axis], (2, a, b))
    if axis < 0:  # Labels with more axes than the rows give every axis another number.
        chunked = da.from_array(labels, chunks=(1, 2, 2))
        assert_fields(fastkl.compare(rows, others, chunked, **keywords), fastkl.compare(p, q, labels, **keywords))
    for one in draw.standard_normal((1, 6, 8)), draw.standard_normal((4, 1, 8)):  # one row for all labels along an axis
        labels, rows = draw.integers(0, 8, (4, 6)), np.moveaxis(one, -1, axis)
        expected = fastkl.nll(labels, rows, **keywords)
        result = fastkl.nll(da.from_array(labels, chunks=(3, 2)), da.from_array(rows, chunks=2), **keywords)
        assert result.shape == expected.shape
        assert_values(result.compute(), expected)


def test_dask_errors_have_the_index_in_the_whole_array() -> None:
    da = pytest.importorskip("dask.array")
    draw = np.random.default_rng(27)
    p = draw.standard_normal((4, 6, 8))
    rows = da.from_array(p, chunks=(3, 2, 5))
    wanted = "labels must be in 0..7"

    def losses(labels: Any, chunks: Any = 2) -> Any:
        return fastkl.nll(da.from_array(labels, chunks=chunks), rows, from_logits=True).compute()

    def compare(p: Any, q: Any, labels: Any, axis: int = -1) -> Any:
        return fastkl.compare(p, q, labels, from_logits=True, axis=axis).kl.compute()

    labels = with_entry((3, 5), 1000, draw.integers(0, 8, (4, 6)))
    for chunks in 2, 6, (1, 4):
        assert_invalid("labels[3, 5]", f" = 1000: {wanted}", losses, labels, chunks)
    assert_invalid("labels[0, 5]", f" = 1000: {wanted}", losses, labels[3:])
    assert_invalid("labels[3, 5]", f" = 1000: {wanted}", compare, rows, p, labels)
    assert_invalid("labels[5]", f" = 1000: {wanted}", compare, p, rows, da.from_array(labels[3], chunks=4))
    assert_invalid("labels[3, 0]", f" = 1000: {wanted}", compare, rows, p, labels[:, 5:])
    assert_invalid("labels[0]", f" = 8: {wanted}", compare, rows, p, [8])
    assert_invalid("labels", f" = 8: {wanted}", compare, rows, p, 8)
    transposed = np.moveaxis(p, -1, 1), np.moveaxis(rows, -1, 1)
    assert_invalid("labels[3, 5]", f" = 1000: {wanted}", compare, *transposed, labels, 1)
    bad = with_entry((2, 4, 6), np.nan, p)
    entry = " = nan: logits must be finite or -inf"
    assert_invalid("p[2, 4, 6]", entry, compare, bad, rows, labels[0])
    assert_invalid("q[2, 4, 6]", entry, compare, rows, bad, labels[0])
    assert_invalid("q[2, 6, 4]", entry, compare, transposed[1], np.moveaxis(bad, -1, 1), None, 1)
    lazy = da.from_array(bad, chunks=(2, 3, 4))
    assert_invalid("q[2, 4, 6]", entry, fastkl.nll(labels % 8, lazy, from_logits=True).compute)
    masked = np.moveaxis(with_entry((2, 4), -np.inf, p), -1, 1)
    entropy = fastkl.entropy(da.from_array(masked, chunks=(3, 8, 3)), from_logits=True, axis=1)
    assert_invalid("p[2, :, 4]", " has no finite entry: a row of logits must have one", entropy.compute)
    divergence = fastkl.compare(rows, lazy, from_logits=True, invalid="nan").kl
    assert np.argwhere(np.isnan(divergence.compute())).tolist() == [[2, 4]]


def test_dask_errors_come_back_from_other_processes() -> None:
    with pytest.raises(fastkl.InvalidRowError) as caught:
        kl(dask_array(BAD), Q).compute(scheduler="processes", num_workers=1)
    assert (caught.value.operand, caught.value.index, caught.value.reason) == ("p", (3, 4), "negative")


def test_dask_labels_and_compare_are_lazy() -> None:
    """Dtypes, shapes and chunks are known before a block is computed, which would raise here."""
    da = pytest.importorskip("dask.array")

    def fail(*_: Any) -> Any:
        raise RuntimeError("computed")

    p = da.map_blocks(fail, dtype="f4", chunks=((2, 3), (4, 3)), meta=np.empty((0, 0), "f4"))
    labels = da.map_blocks(fail, dtype="i8", chunks=((3, 2),), meta=np.empty(0, "i8"))
    lazy = [
        fastkl.nll(labels, p),
        fastkl.nll(labels, Q.astype("f4")),
        fastkl.nll(LABELS, p),
        *fastkl.compare(p, Q.astype("f4"), labels),
        *fastkl.compare(p, p)[:7],
    ]
    for result in lazy:
        assert result.shape == (5,)
        assert result.dtype in ("f4", "?")
        with pytest.raises(RuntimeError, match=r"^computed$"):
            result.compute()
    assert lazy[0].chunks == lazy[3].chunks == ((2, 1, 2),)


def test_dask_compare_reads_each_block_once(requests: list[Any]) -> None:
    """One call for a block computes all fields, on one thread."""
    dask = pytest.importorskip("dask")
    result = fastkl.compare(dask_array(P), Q, [0, 1, 2, 3, 4])
    requests.clear()
    dask.compute(*result, scheduler="sync")
    assert sorted((request.p.shape, request.threads) for request in requests) == [((1, 7), 1), ((2, 7), 1), ((2, 7), 1)]


def test_dask_labels_of_one_row_no_rows_and_unknown_rows() -> None:
    da = pytest.importorskip("dask.array")
    row, label = da.from_array(SCORES[0], chunks=3), da.from_array(np.array(2))
    expected = fastkl.compare(SCORES[0], SCORES[1], 2, from_logits=True)
    for own in 2, np.uint8(2), label:
        result = fastkl.nll(own, row, from_logits=True)
        assert result.ndim == 0
        assert result.compute() == expected.nll_p
        assert fastkl.nll(own, row, from_logits=True, keepdims=True).shape == (1,)
        fields = fastkl.compare(row, SCORES[1], own, from_logits=True)
        assert [field.ndim for field in fields] == [0] * 9
        assert [field.compute() for field in fields] == list(expected)

    none = fastkl.compare(dask_array(P[:0]), Q[:1], LABELS[:0])
    assert_fields(none, fastkl.compare(P[:0], Q[:1], LABELS[:0]))
    assert fastkl.nll(LABELS[:0], dask_array(P[:0])).compute().shape == (0,)

    one = fastkl.nll(np.zeros(1, int), da.ones((1, 1)))
    assert one.compute().tolist() == [0]

    rows, labels = da.from_array(SCORES, chunks=(2, 3)), da.from_array(LABELS, chunks=2)
    known = labels != -100
    expected = fastkl.compare(SCORES[LABELS != -100], OTHER_SCORES[0], LABELS[LABELS != -100], from_logits=True)
    losses = fastkl.nll(labels[known], rows[known], from_logits=True)
    assert np.isnan(losses.shape[0])
    assert_values(losses.compute(), expected.nll_p)
    fields = fastkl.compare(rows[known], OTHER_SCORES[0], labels[known], from_logits=True)
    assert_values(fields.kl.compute(), expected.kl)
    assert_values(fields.nll_q.compute(), expected.nll_q)


def test_dask_labels_are_checked_before_any_work() -> None:
    da = pytest.importorskip("dask.array")
    p = dask_array(P)
    for shape, wanted in ((4,), (5,)), ((5, 4), (1, 5)), ((1, 5, 4), (1, 1, 5)):
        message = f"labels has shape {shape}: must have the shape {wanted} of the rows, or broadcast with it"
        assert_refused(ValueError, message, fastkl.compare, p, Q, da.zeros(shape, dtype=int))
    assert_refused(
        ValueError,
        "labels has shape (4,): must have the shape (5,) of the rows, or broadcast with it",
        fastkl.nll, da.from_array(LABELS[:4]), p,
    )  # fmt: skip
    assert_refused(TypeError, "labels has dtype float64: must be an integer dtype", fastkl.compare, p, Q, da.zeros(5))
    masked = np.ma.array(LABELS, mask=LABELS < 0)
    message = "has masked entries: fill them, or leave them out, before the call"
    assert_refused(TypeError, f"labels {message}", fastkl.compare, p, Q, masked)
    assert_refused(TypeError, f"labels {message}", fastkl.nll, masked, p)
    pairs = np.ma.array(np.zeros(3, "i4,i4"), mask=[(False, True)] * 3)
    assert_refused(TypeError, f"p {message}", fastkl.entropy, pairs)
    out = np.empty(5)
    message = "out: must be None for dask arrays, whose values are computed later"
    assert_refused(TypeError, message, fastkl.nll, da.from_array(LABELS), P, out=out)
    message = "q has shape (5, 0): the distribution axis, axis -1, must not be empty"
    assert_refused(ValueError, message, fastkl.nll, LABELS, da.zeros((5, 0)))


def test_dask_results_go_to_other_processes() -> None:
    """dask.distributed pickles the graph. No block's task may hold all labels."""
    da = pytest.importorskip("dask.array")
    labels = np.zeros(5000, int)
    graph = fastkl.compare(da.ones((5000, 1), chunks=100), [1.0], da.from_array(labels, chunks=100)).kl.__dask_graph__()
    assert max(len(pickle.dumps(task)) for key, task in graph.items() if key[0].startswith("fastkl")) < labels.nbytes / 10
    result = fastkl.compare(dask_array(P), Q, [0, 1, 2, 3, 4])
    assert_fields(pickle.loads(pickle.dumps(result)), fastkl.compare(P, Q, [0, 1, 2, 3, 4]))


@pytest.mark.parametrize("make", [dask_array, xarray_array])
def test_bfloat16_beside_libraries_without_it(make: Callable[[Array], Any]) -> None:
    half = Q.astype(pytest.importorskip("ml_dtypes").bfloat16)
    for pair, expected in ((make(P), half), kl(P, half)), ((half, make(P)), kl(half, P)):
        assert_close(kl(*pair), expected)


def test_dask_frames_are_refused() -> None:
    pd = pytest.importorskip("pandas")
    dd = pytest.importorskip("dask.dataframe")
    frame = dd.from_pandas(pd.DataFrame(P), npartitions=2)
    with pytest.raises(TypeError, match=r"^p is a dask\.DataFrame: pass its to_dask_array\(lengths=True\)$"):
        fastkl.entropy(frame)
    assert_close(fastkl.entropy(frame.to_dask_array(lengths=True)).compute(), fastkl.entropy(P))


# ---- xarray --------------------------------------------------------------------------------------------------------------


def named(values: Array, *dims: str, **coords: Any) -> Any:
    return pytest.importorskip("xarray").DataArray(values, dims=dims, coords=coords)


def test_xarray_dimensions_meet_by_name() -> None:
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
    models = rows(21, (2, 7, 3), axis=1)
    expected = kl(P[:, np.newaxis, np.newaxis], np.moveaxis(models, 1, -1))
    q = named(models, "model", "c", "seed")
    result = kl(p, q)
    assert result.dims == ("t", "model", "seed")
    assert_close(result, expected)
    assert_close(kl(p, q, out=np.empty((5, 2, 3))), expected)
    assert kl(p[0], q).dims == ("model", "seed")
    assert kl(q, p, axis=1).dims == ("model", "seed", "t")
    assert kl(p[0], p[1]).dims == ()


def test_xarray_errors_have_the_operands_own_dimensions() -> None:
    """In the operand's own order, without the dimensions that it lacks, and 0 where it has length 1."""
    p, values = named(P, "t", "c"), rows(22, (2, 7, 5), axis=1)
    bad = named(with_entry((1, 4, 2), -1, values), "m", "c", "t")
    long = named(with_entry((1, 0, 2), values[1, 0, 2] + 0.5, values), "m", "c", "t")
    entry, total = f" = -1.0: {ENTRY}", f" sums to 1.5: {SUM}"
    assert_invalid("q[1, 4, 2]", entry, kl, p, bad)
    assert_invalid("p[1, 4, 2]", entry, kl, bad, p, axis=1)
    assert_invalid("q[1, :, 2]", total, kl, p, long)
    assert_invalid("p[3, 4]", entry, kl, named(BAD, "t", "c"), named(values, "m", "c", "t"))
    assert_invalid("q[4, 3]", entry, kl, p, named(BAD.T, "c", "t"))
    assert_invalid("q[4]", entry, kl, named(values, "m", "c", "t"), named(BAD[3], "c"), axis=1)
    assert_invalid("q[4, 0]", entry, kl, named(values, "m", "c", "t"), BAD[3][:, np.newaxis], axis=1)
    assert_invalid("q[1, 4, 2]", entry, kl, p, bad, out=np.empty((5, 2)))
    pytest.importorskip("dask")
    assert_invalid("q[1, 4, 2]", entry, kl(p, bad.chunk(m=1, t=2)).compute)
    assert_invalid("q[1, :, 2]", total, kl(p, long.chunk(m=1, t=2)).compute)
    assert_invalid("q[4, 0]", entry, kl(named(values, "m", "c", "t").chunk(t=2), BAD[3][:, np.newaxis], axis=1).compute)


def test_xarray_refusals() -> None:
    xr = pytest.importorskip("xarray")
    p = named(P, "t", "c", t=np.arange(5))
    with pytest.raises(ValueError, match="cannot align"):
        kl(p, p[::-1])
    with pytest.raises(ValueError, match="cannot align"):
        kl(p, p[:3])
    with pytest.raises(ValueError, match="cannot align"):
        kl(p, p[::-1], out=np.empty(5))
    assert_refused(
        ValueError, "q has dimensions ('t', 'd'): must have 'c', which holds the distributions", kl, p, p.rename(c="d")
    )
    assert_refused(
        ValueError,
        "q has shape (1, 5, 7): must have no more axes than the dimensions ('t', 'c')",
        kl, p, Q[np.newaxis],
    )  # fmt: skip
    with pytest.raises(TypeError, match=r"^p is a xarray\.Dataset: pass one of its variables, a DataArray$"):
        kl(xr.Dataset({"p": p}), Q)


def test_xarray_stays_lazy_and_reads_in_place() -> None:
    pytest.importorskip("dask.array")
    p = named(P, "t", "c")
    result = kl(p.chunk(t=2), p.chunk(c=3))
    assert result.chunks == ((2, 2, 1),)
    assert_values(result.compute(), np.zeros(5))
    large = named(rows(23, (2000, 100)), "t", "c")
    assert peak(lambda: fastkl.entropy(large)) < large.nbytes / 8
    assert peak(lambda: fastkl.entropy(large.T, axis=0)) < large.nbytes / 8
