"""Every dtype of every library: a row's value, or a TypeError or ValueError that begins with the operand's name."""

import numpy as np
import pytest

import fastkl

ROWS = [[1, 1, 2], [2, 1, 1]]
CODES = {**{code: code for code in "?bBhHiIlLqQefdgFDGOSU"}, "M": "M8[s]", "m": "m8[s]", "V": "V8"}


def arrays(make):
    """Arrays of every dtype of NumPy and of ml_dtypes, in both byte orders, as `make` takes them."""
    dtypes = {code: np.dtype(name) for code, name in CODES.items()}
    ml_dtypes = pytest.importorskip("ml_dtypes")
    types = {name: value for name, value in vars(ml_dtypes).items() if isinstance(value, type)}
    dtypes |= {name: np.dtype(x) for name, x in types.items() if issubclass(x, np.generic)}
    for name, dtype in dtypes.items():
        for order in "=", "S":
            ordered = dtype.newbyteorder(order)
            yield f"{name} {order}", lambda ordered=ordered: make(np.array(ROWS).astype(ordered))


def numpy():
    yield from arrays(lambda x: x)


def xarray():
    xr = pytest.importorskip("xarray")
    yield from arrays(lambda x: xr.DataArray(x, dims=("row", "entry")))
    yield "number", lambda: xr.DataArray(3.0)


def dask():
    da = pytest.importorskip("dask.array")
    yield from arrays(lambda x: da.from_array(x, chunks=(1, 3)))


def torch():
    torch = pytest.importorskip("torch")
    for name, dtype in vars(torch).items():
        if isinstance(dtype, torch.dtype):
            yield name, lambda dtype=dtype: torch.tensor(ROWS).to(dtype)
    t = torch.tensor(ROWS, dtype=torch.double)
    yield "conjugate", lambda: torch.complex(t, t).conj()
    yield "negative bit", lambda: torch.complex(t, -t).conj().imag
    yield "quantised", lambda: torch.quantize_per_tensor(t.float(), 1.0, 0, torch.qint8)
    yield "without memory", lambda: t.to("meta")
    for layout in torch.sparse_coo, torch.sparse_csr:
        yield str(layout), lambda layout=layout: t.to_sparse(layout=layout)
    yield "nested", lambda: torch.nested.nested_tensor(list(t))


def jax():
    jax = pytest.importorskip("jax")
    for name in dir(jax.numpy):
        if isinstance(dtype := getattr(jax.numpy, name), type(jax.numpy.float32)):
            yield name, lambda dtype=dtype: jax.numpy.asarray(ROWS, dtype=dtype)
    yield "keys", lambda: jax.random.split(jax.random.key(0), 2)


def pandas():
    pd, pa = pytest.importorskip("pandas"), pytest.importorskip("pyarrow")
    names = "Int8 Int64 UInt16 UInt64 Float32 Float64 boolean string category datetime64[ns] timedelta64[ns] period[D]"
    dtypes = [*CODES.values(), *names.split(), "Sparse[float]", "Sparse[int]", "datetime64[ns, UTC]", "interval"]
    for dtype in [*dtypes, *map(pd.ArrowDtype, arrow_types(pa))]:
        yield f"frame {dtype}", lambda dtype=dtype: pd.DataFrame(ROWS).astype(dtype)
        yield f"series {dtype}", lambda dtype=dtype: pd.Series(ROWS[0]).astype(dtype)
        yield f"two {dtype}", lambda dtype=dtype: pd.DataFrame(ROWS).astype({0: float, 1: dtype})


def polars():
    pl = pytest.importorskip("polars")
    dtypes = {name: x for name, x in vars(pl).items() if isinstance(x, type) and issubclass(x, pl.DataType)}
    dtypes |= {"Decimal": pl.Decimal(20, 2), "Enum": pl.Enum(["1", "2"]), "List": pl.List(pl.Int64)}
    for name, dtype in dtypes.items():
        yield f"frame {name}", lambda dtype=dtype: pl.DataFrame(ROWS, orient="row").cast(dtype)
        yield f"series {name}", lambda dtype=dtype: pl.Series(ROWS[0]).cast(dtype)
        yield f"array {name}", lambda dtype=dtype: pl.Series(ROWS, dtype=pl.Array(pl.Int64, 3)).cast(pl.Array(dtype, 3))
    yield "objects", lambda: pl.DataFrame({"a": [object(), object()]})
    yield "structs", lambda: pl.DataFrame({"a": [{"x": 1}, {"x": 2}]})


def arrow_types(pa):
    simple = (
        "int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64 bool_ string binary date32 date64 null"
    )
    types = [getattr(pa, name)() for name in simple.split()]
    return [*types, pa.decimal128(10, 2), pa.decimal256(40, 2), pa.timestamp("us"), pa.duration("s"), pa.time32("s")]


def pyarrow():
    pa = pytest.importorskip("pyarrow")
    entries = pa.array(np.ravel(ROWS))
    for kind in arrow_types(pa):
        yield f"row {kind}", lambda kind=kind: entries[:3].cast(kind)
        yield f"rows {kind}", lambda kind=kind: pa.FixedSizeListArray.from_arrays(entries.cast(kind), 3)
        yield f"dictionary {kind}", lambda kind=kind: entries[:3].cast(kind).dictionary_encode()
        yield f"lists {kind}", lambda kind=kind: pa.array(ROWS).cast(pa.list_(kind))
    yield "booleans of a byte", lambda: pa.array(ROWS[0], pa.int8()).cast(pa.bool8())
    yield "extension", lambda: pa.ExtensionArray.from_storage(pa.opaque(pa.int64(), "x", "y"), entries[:3])


class Raises:
    """An object of another library whose conversion fails."""

    def __init__(self, error):
        self.error = error

    def __array__(self, *_, **__):
        raise self.error


class RaisesInExchange(Raises):
    """The same of DLPack."""

    def __dlpack_device__(self):
        raise self.error

    __dlpack__ = __dlpack_device__


def objects():
    for error in (RuntimeError("no"), AssertionError("no"), KeyError("no"), NotImplementedError(), BufferError("no")):
        yield f"array {error!r}", lambda error=error: Raises(error)
        yield f"exchange {error!r}", lambda error=error: RaisesInExchange(error)
    for x in ({1: 2}, {1, 2}, b"text", 1j, [[1], [1, 2]], [[None]], [["a"]]):
        yield repr(x), lambda x=x: x


# What is called, and how the message about the operand begins.
CALLS = [
    (lambda x: fastkl.entropy(x, normalize=True), ("p",)),
    (lambda x: fastkl.kl_divergence(np.array(ROWS), x, normalize=True), ("q", "p has shape", "p and q have")),
    (lambda x: fastkl.nll(x, np.ones((2, 3, 3)), normalize=True), ("labels", "q is")),
    (lambda x: fastkl.score(x, measure="entropy", normalize=True), ("p",)),
    (lambda x: fastkl.score(x, measure="nll", labels=[0, 1], normalize=True), ("p", "labels")),
]


def refusal(call, operand):
    """The message about an operand that is refused."""
    try:
        call(operand)
    except (TypeError, ValueError) as error:
        return str(error)
    return None


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("library", [numpy, torch, jax, pandas, polars, pyarrow, xarray, dask, objects])
def test_every_dtype_is_read_or_refused_by_name(library):
    made = 0
    for label, make in library():
        try:
            operand = make()
        except Exception:  # the library has no such array
            continue
        made += 1
        for call, start in CALLS:
            said = refusal(call, operand)
            assert said is None or said.startswith(start), label
    assert made >= 10


def test_tensors_of_transforms_are_refused_by_name():
    torch = pytest.importorskip("torch")
    for dtype in torch.float32, torch.bfloat16, torch.int64:
        with pytest.raises(TypeError, match=r"^p is a tensor of"):
            torch.vmap(fastkl.entropy)(torch.tensor(ROWS, dtype=dtype))


def test_lazy_signs_are_resolved():
    torch = pytest.importorskip("torch")
    for dtype in torch.complex64, torch.complex128:
        rows = torch.complex(*(torch.tensor(ROWS, dtype=dtype).real,) * 2)
        lazy = torch.complex(rows.real, -rows.real).conj().imag
        assert lazy.is_neg()
        assert torch.equal(fastkl.entropy(lazy, normalize=True), fastkl.entropy(rows.real.contiguous(), normalize=True))
