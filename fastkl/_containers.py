"""Other libraries' containers: their values as NumPy arrays, without a copy, and results in kind.

Imports none of these libraries: where one of their objects is met, the user has. One adapter a library, listed at the end;
it calls `_rows.evaluate` again, with arrays. Knows nothing of measures, kernels, or what makes a row valid.
"""

from __future__ import annotations

import functools
import math
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, SupportsIndex, TypeAlias

import numpy as np

from . import _pieces, _rows
from ._pieces import Pieces

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ._pieces import Call
    from ._rows import Array, Index

    # (call, operands, axis, out, keepdims): what comes out is the user's result. `call` has all other arguments.
    Adapter: TypeAlias = Callable[[Call, tuple[Any, ...], SupportsIndex, Any, bool], Any]

_FILL: Final = "fill missing values, or leave their rows out, before the call"
_CPU: Final = (1, 3, 11)  # DLPack's devices whose memory this process can read: CPU, and pinned for CUDA, for ROCm


def find(operands: tuple[Any, ...]) -> Adapter | None:
    """The adapter for the operands; None where all are NumPy's affair."""
    found: list[tuple[str, Adapter]] = []
    for name, operand in zip("pq", operands, strict=False):
        library, adapter = _library(operand)
        if isinstance(adapter, str):
            raise TypeError(f"{name} is a {_kind(operand)}: {adapter}")
        if adapter is not None:
            found.append((library, adapter))
    if len(found) == 2 and found[0] != found[1]:
        p, q = map(_kind, operands)
        raise TypeError(f"p is a {p} and q a {q}: must be of one library, or NumPy arrays")
    return found[0][1] if found else None


def with_labels(adapter: Adapter, operands: tuple[Any, ...], what: str) -> Adapter:
    """The adapter for a comparison, or for labels as p: refused where rows have names of their own or stand in pieces."""
    if adapter is _dask:
        return functools.partial(_dask, labelled=what == "labels")
    if adapter not in _OF_ARRAYS:
        kind = next(_kind(x) for x in operands if _own(x))
        raise TypeError(f"{what} with a {kind}: pass NumPy arrays, as its to_numpy() gives them")
    return adapter


def are_labels(p: Any, q: Any) -> bool:
    """Whether p is of an integer dtype, with one axis fewer than q."""
    if isinstance(p, (int, list, tuple)):
        p = np.asarray(p)
    return "int" in str(getattr(p, "dtype", "")).lower() and _ndim(p) == _ndim(q) - 1


def _ndim(operand: Any) -> int:
    return _polars_ndim(operand) if not hasattr(operand, "ndim") and hasattr(operand, "dtype") else np.ndim(operand)


def _library(operand: Any) -> tuple[str, Adapter | str | None]:
    """Whose the operand is, and the entry in the list below, if any."""
    cls: Any = type(operand)
    return _library_of_class(cls)


@functools.lru_cache
def _library_of_class(cls: type) -> tuple[str, Adapter | str | None]:
    for base in cls.__mro__:
        library = base.__module__.partition(".")[0]
        if library == "numpy":
            return library, None
        entry = _ADAPTERS.get((library, base.__name__))
        if entry is not None:
            return library.removesuffix("lib"), entry  # jaxlib has the arrays of jax
    library = cls.__module__.partition(".")[0]
    if hasattr(cls, "__array_namespace__") or hasattr(cls, "__dlpack__"):
        return library, _array_api
    if (hasattr(cls, "__arrow_c_array__") or hasattr(cls, "__arrow_c_stream__")) and not hasattr(cls, "__array__"):
        return "pyarrow", _arrow
    return library, None


def _own(operand: Any) -> bool:
    """Whether it is of a library that has an adapter."""
    return _library(operand)[1] is not None


def _named(operands: tuple[Any, ...]) -> Iterator[tuple[str, Any]]:
    return zip("pq", operands, strict=False)


def _kind(operand: Any) -> str:
    return f"{type(operand).__module__.partition('.')[0]}.{type(operand).__name__}"


def _array(name: str, values: Any) -> Array:
    """The values as an array of the dtype that they came in, as which bfloat16 is known again."""
    _rows._operand(name, values)  # refuses what cannot be read
    return np.asarray(values)


def _null(name: str, flat: int, shape: tuple[int, ...]) -> ValueError:
    """What is said of a missing value, the `flat`-th in an operand of that shape."""
    index = ", ".join(str(int(i)) for i in np.unravel_index(flat, shape))
    return ValueError(f"{name}[{index}] is null: {_FILL}")


# ---- arrays ----------------------------------------------------------------------------------------------------------


def _arrays(view: Callable[[str, Any], Array], wrap: Callable[[Array, Any], Any]) -> Adapter:
    """For a library whose containers are arrays: `wrap` makes a result one, of the kind of an operand."""

    def adapter(call: Call, operands: tuple[Any, ...], axis: SupportsIndex, out: Any, keepdims: bool) -> Any:
        views = tuple(view(name, x) if _own(x) else x for name, x in _named(operands))
        if out is not None:
            call(views, axis=axis, out=view("out", out) if _own(out) else out, keepdims=keepdims)
            return out
        result = call(views, axis=axis, out=None, keepdims=keepdims)
        return wrap(np.asarray(result), next(x for x in operands if _own(x)))

    return adapter


def _torch_view(name: str, tensor: Any) -> Array:
    torch = sys.modules["torch"]
    if not isinstance(tensor, torch.Tensor):
        raise TypeError(f"{name} is a {_kind(tensor)}: must be a tensor or a NumPy array")
    if tensor.layout != torch.strided or tensor.is_nested:
        layout = "nested" if tensor.is_nested else tensor.layout
        raise TypeError(f"{name} is a tensor of layout {layout}: must be dense (to_dense() makes it so)")
    if tensor.device.type != "cpu":
        raise TypeError(f"{name} is a tensor on device {tensor.device}: must be on the CPU ({name}.cpu() copies it there)")
    if tensor.requires_grad:
        raise TypeError(f"{name} requires grad: fastkl computes no gradients; {name}.detach() is accepted")
    if tensor.dtype == torch.bfloat16 and not tensor.is_neg():
        bits: Array = tensor.view(torch.int16).numpy()
        return bits.view(_rows.BFLOAT16)
    try:
        array: Array = tensor.numpy()
    except (TypeError, RuntimeError) as error:  # quantised, 8-bit floats, lazily conjugated or negated, fake
        raise TypeError(f"{name} is a tensor of {tensor.dtype}, which is no NumPy array: {error}") from None
    return array


def _torch_wrap(result: Array, _: Any) -> Any:
    return sys.modules["torch"].from_numpy(result)


def _jax_view(name: str, array: Any) -> Array:
    """Of a tracer, JAX says itself why it has no values."""
    if not isinstance(array, sys.modules["jax"].core.Tracer):
        platforms = {device.platform for device in array.devices()}
        if platforms != {"cpu"}:
            raise TypeError(f"{name} is an array on {', '.join(sorted(platforms))}: must be on the CPU (jax.device_put)")
    return np.asarray(array)


def _jax_wrap(result: Array, _: Any) -> Any:
    return sys.modules["jax"].numpy.asarray(result)


def _array_api_view(name: str, array: Any) -> Array:
    """By DLPack, on which array libraries agree."""
    if not hasattr(array, "__dlpack__"):
        return np.asarray(array)
    if array.__dlpack_device__()[0] not in _CPU:
        where = getattr(array, "device", array.__dlpack_device__())
        raise TypeError(f"{name} is a {_kind(array)} on device {where}: must be on the CPU")
    try:
        return np.from_dlpack(array)
    except (BufferError, RuntimeError) as error:  # what DLPack has no word for: read-only memory, some dtypes
        if not hasattr(array, "__array__") and not hasattr(array, "__buffer__"):
            raise TypeError(f"{name} is a {_kind(array)}, which is no NumPy array: {error}") from None
        return np.asarray(array)


def _array_api_wrap(result: Array, like: Any) -> Any:
    if not hasattr(like, "__array_namespace__"):
        return result[()]
    return like.__array_namespace__().asarray(result, device=like.device)


_torch: Final = _arrays(_torch_view, _torch_wrap)
_jax: Final = _arrays(_jax_view, _jax_wrap)
_array_api: Final = _arrays(_array_api_view, _array_api_wrap)


# ---- columns whose entries are rows ----------------------------------------------------------------------------------


def _columns(view: Callable[[str, Any], Array | Pieces], wrap: Callable[[Array, Any], Any]) -> Adapter:
    """For a library whose containers are columns: of numbers, or of lists of one length."""

    def adapter(call: Call, operands: tuple[Any, ...], axis: SupportsIndex, out: Any, keepdims: bool) -> Any:
        views = tuple(view(name, x) if _own(x) else x for name, x in _named(operands))
        result = _pieces.evaluate(call, views, axis, out, keepdims)
        if out is not None or np.ndim(result) == 0:
            return result
        return wrap(result, next(x for x in operands if _own(x)))

    return adapter


def _chunks(shape: tuple[int, ...], chunks: list[Array | Pieces]) -> Array | Pieces:
    """The chunks of a column of that shape, as one operand."""
    if len(chunks) == 1:
        return chunks[0]
    if len(shape) == 1:  # one row, which the kernels want whole
        return np.concatenate([chunk for chunk in chunks if isinstance(chunk, np.ndarray)])
    starts = np.cumsum([0, *(chunk.shape[0] for chunk in chunks)]).tolist()
    ends = [
        start + end
        for start, chunk in zip(starts, chunks, strict=False)
        for end in (chunk.ends if isinstance(chunk, Pieces) else [chunk.shape[0]])
    ]

    def get(start: int, stop: int) -> Array:
        i = int(np.searchsorted(starts, start, side="right")) - 1
        chunk, start, stop = chunks[i], start - starts[i], stop - starts[i]
        return chunk.get(start, stop) if isinstance(chunk, Pieces) else chunk[start:stop]

    return Pieces(shape, 0, ends or [0], get)


def _arrow_view(name: str, column: Any) -> Array | Pieces:
    pa = sys.modules.get("pyarrow")
    if pa is None:
        raise TypeError(
            f"{name} is a {_kind(column)}, which hands over Arrow data: import pyarrow first, or pass a NumPy array"
        )
    if not isinstance(column, (pa.Array, pa.ChunkedArray)):
        column = pa.array(column) if hasattr(column, "__arrow_c_array__") else pa.chunked_array(column)
    kind = column.type
    shape: tuple[int, ...] = (len(column),)
    if isinstance(kind, pa.FixedShapeTensorType) and list(kind.permutation or []) == sorted(kind.permutation or []):
        shape, kind = (*shape, *kind.shape), kind.value_type
    while pa.types.is_fixed_size_list(kind):
        shape, kind = (*shape, kind.list_size), kind.value_type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        wanted = "must be a list of fixed size (cast it to pyarrow.list_(value_type, n))"
        raise TypeError(f"{name} has type {column.type}: {wanted}")
    if not (pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind)):
        raise TypeError(f"{name} has type {column.type}: must be numbers, or lists of fixed size of numbers")
    if not len(column):
        return np.empty(shape, kind.to_pandas_dtype())
    chunks = [chunk for chunk in getattr(column, "chunks", [column]) if len(chunk)]
    starts = np.cumsum([0, *map(len, chunks)]).tolist()
    return _chunks(shape, [_arrow_chunk(name, *chunk, shape) for chunk in zip(chunks, starts, strict=False)])


def _arrow_chunk(name: str, array: Any, start: int, shape: tuple[int, ...]) -> Array | Pieces:
    """The values of a chunk, which begins at the index `start` of a column of that shape."""
    rows, types = len(array), sys.modules["pyarrow"].types
    array = getattr(array, "storage", array)  # of an extension type
    for depth in range(1, len(shape) + 1):
        lists = types.is_fixed_size_list(array.type)
        if array.null_count:
            level = shape[:depth] if lists else shape
            raise _null(name, start * math.prod(level[1:]) + array.is_null().index(True).as_py(), level)
        if not lists:
            break
        array = array.flatten()
    if not types.is_boolean(array.type):
        return np.asarray(array.to_numpy(zero_copy_only=True)).reshape(rows, *shape[1:])

    def get(start: int, stop: int) -> Array:  # bits become bytes
        part = array.slice(start * n, (stop - start) * n)
        return np.asarray(part.to_numpy(zero_copy_only=False)).reshape(stop - start, *shape[1:])

    n = math.prod(shape[1:])
    return get(0, rows) if len(shape) == 1 else Pieces((rows, *shape[1:]), 0, _pieces.even_ends(rows, n), get)


def _arrow_wrap(result: Array, like: Any) -> Any:
    pa = sys.modules["pyarrow"]
    array = pa.array(result.ravel())
    for length in reversed(result.shape[1:]):
        array = pa.FixedSizeListArray.from_arrays(array, length)
    return pa.chunked_array([array]) if isinstance(like, pa.ChunkedArray) else array


def _polars_column(name: str, column: Any) -> Array | Pieces:
    pl = sys.modules["polars"]
    kind = column.dtype
    shape: tuple[int, ...] = (len(column),)
    if isinstance(kind, pl.Array):
        shape = (*shape, *kind.shape)
    while isinstance(kind, pl.Array):
        kind = kind.inner
    if isinstance(kind, pl.List):
        raise TypeError(f"{name} has dtype {column.dtype}: must be an Array (cast it to polars.Array(inner, n))")
    bits = kind == pl.Boolean
    if not (bits or kind.is_float() or kind.is_integer()):
        raise TypeError(f"{name} has dtype {column.dtype}: must be numbers, or an Array of numbers")
    chunks, start = [], 0
    for chunk in column.get_chunks():
        chunks.append(_polars_chunk(name, chunk, start, shape, bits))
        start += len(chunk)
    return _chunks(shape, chunks)


def _polars_chunk(name: str, chunk: Any, start: int, shape: tuple[int, ...], bits: bool) -> Array | Pieces:
    """As _arrow_chunk."""
    if not bits and not chunk.has_nulls():
        try:
            return np.asarray(chunk.to_numpy(allow_copy=False))
        except RuntimeError:  # nulls further in, which it would have to copy
            pass
    values = chunk
    for depth in range(1, len(shape) + 1):
        if values.null_count():
            raise _null(name, start * math.prod(shape[1:depth]) + values.is_null().arg_max(), shape[:depth])
        values = values.explode() if depth < len(shape) else values
    rows = len(chunk)

    def get(start: int, stop: int) -> Array:
        return np.asarray(chunk[start:stop].to_numpy())

    n = math.prod(shape[1:])
    return get(0, rows) if len(shape) == 1 else Pieces((rows, *shape[1:]), 0, _pieces.even_ends(rows, 8 * n), get)


def _polars_column_wrap(result: Array, like: Any) -> Any:
    return sys.modules["polars"].Series(like.name, result)


_arrow: Final = _columns(_arrow_view, _arrow_wrap)
_polars_columns: Final = _columns(_polars_column, _polars_column_wrap)


# ---- data frames -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Frames:
    """What has to be known of a library of data frames. A series of it is one row, for every row of a frame."""

    view: Callable[[str, Any, int], Any]  # (name, operand, axis): if it has to be cut, not along the axis
    labels: Callable[[Any], tuple[Any, ...]]  # of each axis; None where it has none
    wrap: Callable[[Array, int, bool, Any], Any]  # (result, axis, keepdims, labels of the result)
    advice: str  # what to do about labels that differ

    def __call__(self, call: Call, operands: tuple[Any, ...], axis: SupportsIndex, out: Any, keepdims: bool) -> Any:
        """The adapter."""
        ndim = max(len(self.labels(x)) if _own(x) else np.ndim(x) for x in operands)
        last = _rows._axis(axis, ndim) - ndim
        labels = [self.labels(x) if _own(x) else () for x in operands]
        along = [x[0 if len(x) == 1 else last] if x else None for x in labels]
        other = [x[-3 - last] if len(x) == 2 else None for x in labels]
        lengths = [None if x is None else len(x) for x in other]
        self._check("the distributions' axis", *along)
        if 1 not in lengths or lengths[0] == lengths[-1]:
            self._check("the other axis", *other)

        views = tuple(self.view(name, x, last) if _own(x) else x for name, x in _named(operands))
        if last == -2:  # a series is a distribution along this axis, too
            views = tuple(x[:, None] if len(has) == 1 else x for x, has in zip(views, labels, strict=True))
        result = _pieces.evaluate(call, views, last, out, keepdims and out is not None)
        if out is not None:
            return out
        if np.ndim(result) > 1:
            raise ValueError(f"the result has shape {result.shape}: must have at most one axis beside data frames")
        rows = len(result) if np.ndim(result) else None
        return self.wrap(result, last, keepdims, next((x for x in other if x is not None and len(x) == rows), None))

    def _check(self, where: str, p: Any, q: Any = None) -> None:
        """Refuse to compare what has different labels."""
        if p is None or q is None or p.equals(q):
            return
        if len(p) != len(q):
            differ = f"{len(p)} and {len(q)} of them"
        else:
            i = next((i for i, (a, b) in enumerate(zip(p, q, strict=True)) if a != b), 0)
            differ = f"{p[i]!r} and {q[i]!r} at position {i}"
        raise ValueError(f"p and q have different labels along {where}, {differ}: {self.advice}")


def _pandas_view(name: str, values: Any, axis: int) -> Array | Pieces:
    frame = values if values.ndim == 2 else values.to_frame()
    kinds = {dtype: getattr(dtype, "numpy_dtype", dtype) for dtype in frame.dtypes.unique()}
    for dtype, kind in kinds.items():
        if not isinstance(kind, np.dtype) or kind.kind not in "fiub":
            raise TypeError(f"{name} has a column of dtype {dtype}: must be floating, integer or bool")
        if kind is not dtype:
            _no_missing(name, frame, dtype)
    common = np.result_type(*kinds.values()) if kinds else np.dtype(float)
    if values.ndim == 1:
        return np.asarray(values.to_numpy(dtype=common))
    first = frame.iloc[:1]
    if len(kinds) == 1 and np.shares_memory(first.to_numpy(dtype=common), first.to_numpy(dtype=common)):  # one block
        return np.asarray(frame.to_numpy(dtype=common))

    def get(start: int, stop: int) -> Array:
        part = frame.iloc[start:stop] if axis == -1 else frame.iloc[:, start:stop]
        return np.asarray(part.to_numpy(dtype=common))

    cut = -1 - axis
    return Pieces(frame.shape, cut, _pieces.even_ends(frame.shape[cut], frame.shape[1 - cut] * common.itemsize), get)


def _no_missing(name: str, frame: Any, dtype: Any) -> None:
    """Refuse a missing value in the columns of that dtype: where NumPy has one, it is a NaN like others."""
    for j in np.flatnonzero(frame.dtypes == dtype):
        column = frame.iloc[:, j]
        if column.hasnans:
            raise ValueError(f"{name}[{int(column.isna().argmax())}, {j}] is missing: {_FILL}")


def _pandas_labels(values: Any) -> tuple[Any, ...]:
    return tuple(values.axes)


def _pandas_wrap(result: Array, axis: int, keepdims: bool, labels: Any) -> Any:
    pd = sys.modules["pandas"]
    if not np.ndim(result):
        return pd.Series([result]) if keepdims else result
    if not keepdims:
        return pd.Series(result, index=labels, copy=False)
    if axis == -1:
        return pd.DataFrame(result[:, np.newaxis], index=labels, copy=False)
    return pd.DataFrame(result[np.newaxis], columns=labels, copy=False)


def _polars_view(name: str, values: Any, axis: int) -> Array | Pieces:
    pl = sys.modules["polars"]
    if isinstance(values, pl.Series):
        return _polars_column(name, values)
    for column in values.iter_columns():
        if not (column.dtype == pl.Boolean or column.dtype.is_float() or column.dtype.is_integer()):
            raise TypeError(f"{name}[{column.name!r}] has dtype {column.dtype}: must be floating, integer or bool")
        if column.has_nulls():
            place = f"{name}[{column.is_null().arg_max()}, {column.name!r}]"
            raise ValueError(f"{place} is null: {_FILL}")
    cut = -1 - axis
    common = values[:0].to_numpy().dtype

    def get(start: int, stop: int) -> Array:
        part = values[start:stop] if axis == -1 else values[:, start:stop]
        return np.asarray(part.to_numpy().astype(common, copy=False))

    return Pieces(values.shape, cut, _pieces.even_ends(values.shape[cut], values.shape[1 - cut] * common.itemsize), get)


def _polars_labels(values: Any) -> tuple[Any, ...]:
    pl = sys.modules["polars"]
    return (None, pl.Series(values.columns)) if isinstance(values, pl.DataFrame) else (None,) * _polars_ndim(values)


def _polars_ndim(column: Any) -> int:
    return 1 + len(getattr(column.dtype, "shape", ()))


def _polars_wrap(result: Array, axis: int, keepdims: bool, labels: Any) -> Any:
    """As polars reduces: along rows to a series, along columns to a frame of one row."""
    pl = sys.modules["polars"]
    if axis == -2:
        return pl.DataFrame(result[np.newaxis], schema=None if labels is None else list(labels), orient="row")
    return pl.DataFrame({"": result}) if keepdims else pl.Series(result)


_REORDER: Final = "reorder one, or pass one of them as a NumPy array to compare by position"
_pandas: Final = _Frames(_pandas_view, _pandas_labels, _pandas_wrap, f"reindex or {_REORDER}")
_polars_frames: Final = _Frames(_polars_view, _polars_labels, _polars_wrap, f"select the same columns: {_REORDER}")


def _polars(call: Call, operands: tuple[Any, ...], axis: SupportsIndex, out: Any, keepdims: bool) -> Any:
    frames = any(isinstance(x, sys.modules["polars"].DataFrame) for x in operands)
    return (_polars_frames if frames else _polars_columns)(call, operands, axis, out, keepdims)


# ---- lazy arrays, labelled arrays ------------------------------------------------------------------------------------


def _dask(
    call: Call, operands: tuple[Any, ...], axis: SupportsIndex, out: Any, keepdims: bool, labelled: bool = False
) -> Any:
    """A new dask array. Nothing is computed but the dtype of its values.

    Labels are p, if `labelled`, or a comparison's. They become an operand like others by an axis of length 1 where the
    distributions' is, so that chunks of rows and labels meet.
    """
    da = sys.modules["dask.array"]
    if out is not None:
        raise TypeError("out: must be None for dask arrays, whose values are computed later")
    softmax = call.keywords["softmax"]
    given = dict(_named(operands))
    if softmax.labels is not None:
        given["labels"] = softmax.labels
    named = {name: x if isinstance(x, da.Array) else da.asarray(_array(name, x)) for name, x in given.items()}
    labels = named.pop("p" if labelled else "labels", None)
    ndim = max(x.ndim for x in named.values())
    last = _rows._axis(axis, ndim) - ndim
    for name, x in named.items():
        if x.ndim >= -last and np.isnan(x.shape[last]):
            raise ValueError(f"{name} has an unknown length along axis {last}: call its compute_chunk_sizes() first")
    shapes = [_any_values(x) for x in named.values()]
    leading = _rows._align(shapes[0], shapes[1] if len(shapes) == 2 else None, last + ndim, ndim, next(iter(named)))[2]
    added: tuple[int, ...] = ()
    if labels is not None:
        _rows._align_labels(_any_values(labels), labelled, last + ndim, ndim, leading)
        others = [i for i in range(ndim) if i != last + ndim]
        added = (*others[: ndim - 1 - labels.ndim], last + ndim)
        named["labels"] = labels[tuple(np.newaxis if i in added else slice(None) for i in range(ndim))]
        call = functools.partial(call, softmax=softmax._replace(labels=None))
    block = functools.partial(_dask_block, names=tuple(named), added=added, axis=last, keepdims=keepdims)
    probe = block(functools.partial(call, normalize=True), *(_no_rows(name, x, last) for name, x in named.items()))

    arrays = [x.rechunk({x.ndim + last: -1}) if x.ndim >= -last else x for x in named.values()]
    _, arrays = da.core.unify_chunks(*(part for x in arrays for part in (x, range(ndim - x.ndim, ndim))))
    chunks = [max((x.chunks[i] for x in arrays if x.ndim >= -i), key=lambda own: sum(own) != 1) for i in range(-ndim, 0)]
    chunks[last : last + 1 or None] = [(1,)] if keepdims else []
    if call.keywords["threads"] is None:
        call = functools.partial(call, threads=1)  # for the blocks have a thread each
    return da.map_blocks(
        functools.partial(block, call),
        *arrays,
        dtype=probe.dtype,
        chunks=(probe.shape[:1], *chunks) if softmax.compare else tuple(chunks),
        drop_axis=[] if keepdims else [last + ndim],
        new_axis=[0] if softmax.compare else None,
        meta=np.empty((0,) * np.ndim(probe), probe.dtype),
        token="fastkl",
    )


def _any_values(array: Any) -> Array:
    """An array of that shape, for checks that need no values. An unknown length is 1, which fits all."""
    return np.broadcast_to(np.float64(), [1 if np.isnan(n) else n for n in array.shape])


def _no_rows(name: str, array: Any, axis: int) -> Array:
    """An array of the same dtype and length along the axis, with no rows; if there is no other axis, with a row of ones.

    Of labels, which have length 1 along the axis, the least.
    """
    shape = [n if n == 1 or i - array.ndim == axis else 0 for i, n in enumerate(array.shape)]
    return np.broadcast_to((np.zeros if name == "labels" else np.ones)((), array.dtype), shape)


def _dask_block(
    call: Call,
    *blocks: Any,
    names: tuple[str, ...],
    added: tuple[int, ...],
    axis: int,
    keepdims: bool,
    block_info: Any = None,
) -> Any:
    """The call for one block of each array; the labels' has been added axes of length 1."""
    named = dict(zip(names, blocks, strict=True))
    places = [block_info[i]["array-location"] for i in range(len(blocks))] if block_info else []
    if places and not np.isnan(np.concatenate(places)).any():
        starts = {name: [int(start) for start, _ in place] for name, place in zip(names, places, strict=True)}
        if "labels" in starts:
            starts["labels"] = [start for i, start in enumerate(starts["labels"]) if i not in added]
        call = _pieces.call_at(call, starts)
    labels = named.pop("labels", None)
    operands = tuple(named.values())
    if labels is not None:
        softmax, labels = call.keywords["softmax"], labels.squeeze(added)
        if softmax.compare:
            call = functools.partial(call, softmax=softmax._replace(labels=labels))
        else:
            operands = (labels, *operands)
    return call(operands, axis=axis, out=None, keepdims=keepdims)


def _xarray(call: Call, operands: tuple[Any, ...], axis: SupportsIndex, out: Any, keepdims: bool) -> Any:
    """Dimensions meet by name; `axis` is one of p's. The library sees to coordinates, attributes and names."""
    xr = sys.modules["xarray"]
    like = next(x for x in operands if _own(x))
    dim = like.dims[_rows._axis(axis, like.ndim)]
    arrays = [x if _own(x) else _with_dims_of(like, name, x) for name, x in _named(operands)]
    for name, x in _named(tuple(arrays)):
        if dim not in x.dims:
            raise ValueError(f"{name} has dimensions {x.dims}: must have {dim!r}, which holds the distributions")

    # p is evaluated as it is, others with its dimensions last, in its order.
    p = arrays[0]
    extra = [d for d in arrays[-1].dims if d not in p.dims]
    order = [*extra, *p.dims]
    views, dims = zip(*(_transposed(x, order) for x in arrays), strict=True)
    own_dims = dict(_named(tuple(x.dims if _own(x) else like.dims[like.ndim - np.ndim(x) :] for x in operands)))
    view_dims = dict(_named(dims))

    def locate(name: str, index: Index) -> Index:
        at = dict(zip(view_dims[name], index, strict=True))
        return [at.get(d, 0) for d in own_dims[name]]

    call = _pieces.relocated(call, locate)
    last = p.dims.index(dim) - p.ndim
    k = len(extra)  # the dimensions that q alone has come first in the views, and last in the result
    if out is not None:
        xr.align(*arrays, join="exact", copy=False)
        fits = isinstance(out, np.ndarray) and out.ndim == len(order) - (not keepdims)
        turned = out.transpose(*range(out.ndim - k, out.ndim), *range(out.ndim - k)) if k and fits else out
        call(views, axis=last, out=turned, keepdims=keepdims)
        return out

    def compute(*_: Any) -> Any:
        values = call(views, axis=last, out=None, keepdims=False)
        return values.transpose(*range(k, values.ndim), *range(k)) if k else values

    result = xr.apply_ufunc(compute, *arrays, input_core_dims=[[dim]] * len(arrays), join="exact", dask="allowed")
    return result.expand_dims(dim, p.dims.index(dim)) if keepdims else result


def _with_dims_of(like: Any, name: str, values: Any) -> Any:
    """An array without names has the last of the dimensions, where it is not broadcast."""
    array = _array(name, values)
    if array.ndim > like.ndim:
        raise ValueError(f"{name} has shape {array.shape}: must have no more axes than the dimensions {like.dims}")
    dims = like.dims[like.ndim - array.ndim :]
    kept = [d for d, n in zip(dims, array.shape, strict=True) if n != 1 or like.sizes[d] == 1]
    return type(like)(array[tuple(slice(None) if d in kept else 0 for d in dims)], dims=kept)


def _transposed(array: Any, order: list[Any]) -> tuple[Any, list[Any]]:
    """A view whose axes are dimensions in that order, of length 1 where the array lacks one, and these dimensions."""
    first = next(i for i, d in enumerate(order) if d in array.dims)
    values = array.variable.transpose(*(d for d in order if d in array.dims)).data
    return values[tuple(slice(None) if d in array.dims else None for d in order[first:])], order[first:]


# ---- the list --------------------------------------------------------------------------------------------------------

_COLUMN: Final = "pass one of its columns, of a fixed-size list type, or its to_pandas()"
_SPARSE: Final = "sparse matrices are not supported; toarray() makes it dense"

# By library and name of a class, be it a base. A string says what to do instead, where there is no adapter.
_ADAPTERS: Final[dict[tuple[str, str], Adapter | str]] = {
    ("torch", "Tensor"): _torch,
    ("jaxlib", "ArrayImpl"): _jax,
    ("jax", "Tracer"): _jax,
    ("pyarrow", "Array"): _arrow,
    ("pyarrow", "ChunkedArray"): _arrow,
    ("pyarrow", "Table"): _COLUMN,
    ("pyarrow", "RecordBatch"): _COLUMN,
    ("polars", "Series"): _polars,
    ("polars", "DataFrame"): _polars,
    ("polars", "LazyFrame"): "call its collect() first",
    ("pandas", "Series"): _pandas,
    ("pandas", "DataFrame"): _pandas,
    ("dask", "Array"): _dask,
    ("dask", "FrameBase"): "pass its to_dask_array(lengths=True)",
    ("xarray", "DataArray"): _xarray,
    ("xarray", "Dataset"): "pass one of its variables, a DataArray",
    ("scipy", "spmatrix"): _SPARSE,
    ("scipy", "sparray"): _SPARSE,
}

# Those whose containers are arrays.
_OF_ARRAYS: Final = (_torch, _jax, _array_api)
