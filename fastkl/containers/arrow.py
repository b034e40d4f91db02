"""Columns whose entries are numbers or lists of one length: pyarrow's, and the series of polars."""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from ..call import Array, Request
from . import pieces
from .operands import Run, by_name, kind, null, refused
from .pieces import Pieces


def _run(
    request: Request,
    run: Run,
    own: Callable[[Any], bool],
    view: Callable[[str, Any], Array | Pieces],
    wrap: Callable[[Array, Any], Any],
) -> Any:
    """What an adapter does. `own` tells its library's columns; `wrap` makes a result one, of the kind of an operand."""
    columns = {name: x for name, x in by_name(request).items() if own(x)}
    result = pieces.run(request.replace(**{name: view(name, x) for name, x in columns.items()}), run)
    if request.out is not None or np.ndim(result) == 0:
        return result
    return wrap(result, next(iter(columns.values())))


def _joined(shape: tuple[int, ...], chunks: list[Any], view: Callable[[Any, int], Pieces]) -> Array | Pieces:
    """A column of that shape as one operand, from a view of every chunk and of the index where the chunk begins."""
    starts = np.cumsum([0, *map(len, chunks[:-1])]).tolist()
    views = [view(*chunk) for chunk in zip(chunks, starts, strict=True)]
    if len(shape) == 1:  # one row, which the kernels need as a whole
        arrays = [view.get(0, len(chunk)) for view, chunk in zip(views, chunks, strict=True)]
        return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)

    def get(start: int, stop: int) -> Array:
        i = int(np.searchsorted(starts, start, side="right")) - 1
        return views[i].get(start - starts[i], stop - starts[i])

    ends = [start + end for start, view in zip(starts, views, strict=True) for end in view.ends]
    return Pieces(shape, 0, ends, get)


def is_column(cls: type) -> bool:
    """Whether objects of a class export Arrow data, and are no arrays besides."""
    exports = hasattr(cls, "__arrow_c_array__") or hasattr(cls, "__arrow_c_stream__")
    return exports and not hasattr(cls, "__array__")


def pyarrow(request: Request, run: Run) -> Any:
    """A pyarrow array, chunked if the first column is; a NumPy number for one row."""
    return _run(request, run, _is_arrow, _arrow_view, _arrow_wrap)


def _is_arrow(operand: Any) -> bool:
    pa = sys.modules.get("pyarrow")
    return is_column(type(operand)) or (pa is not None and isinstance(operand, (pa.Array, pa.ChunkedArray)))


def _arrow_view(name: str, column: Any) -> Array | Pieces:
    pa = sys.modules.get("pyarrow")
    if pa is None:
        advice = "import pyarrow first, or pass a NumPy array"
        raise TypeError(f"{name} is a {kind(column)}, which exports Arrow data: {advice}")
    if not isinstance(column, (pa.Array, pa.ChunkedArray)):
        column = pa.array(column) if hasattr(column, "__arrow_c_array__") else pa.chunked_array(column)
    inner = column.type
    shape: tuple[int, ...] = (len(column),)
    if isinstance(inner, pa.FixedShapeTensorType) and list(inner.permutation or []) == sorted(inner.permutation or []):
        shape, inner = (*shape, *inner.shape), inner.value_type
    while pa.types.is_fixed_size_list(inner):
        shape, inner = (*shape, inner.list_size), inner.value_type
    if pa.types.is_list(inner) or pa.types.is_large_list(inner):
        wanted = "must be a list of fixed size (cast it to pyarrow.list_(value_type, n))"
        raise TypeError(f"{name} has type {column.type}: {wanted}")
    if not (pa.types.is_floating(inner) or pa.types.is_integer(inner) or pa.types.is_boolean(inner)):
        raise TypeError(f"{name} has type {column.type}: must be numbers, or lists of fixed size of numbers")
    if not len(column):
        return np.empty(shape, inner.to_pandas_dtype())
    chunks = [chunk for chunk in getattr(column, "chunks", [column]) if len(chunk)]
    return _joined(shape, chunks, functools.partial(_arrow_chunk, name, shape))


def _arrow_chunk(name: str, shape: tuple[int, ...], array: Any, start: int) -> Pieces:
    """The values of a chunk that begins at the index `start` of a column of that shape."""
    rows, types = len(array), sys.modules["pyarrow"].types
    array = getattr(array, "storage", array)  # of an extension type
    for depth in range(1, len(shape) + 1):
        lists = types.is_fixed_size_list(array.type)
        if array.null_count:
            level = shape[:depth] if lists else shape
            raise null(name, start * math.prod(level[1:]) + array.is_null().index(True).as_py(), level)
        if not lists:
            break
        array = array.flatten()
    n, bits = math.prod(shape[1:]), types.is_boolean(array.type)

    def get(start: int, stop: int) -> Array:  # bits become bytes
        part = array.slice(start * n, (stop - start) * n)
        return np.asarray(part.to_numpy(zero_copy_only=not bits)).reshape(stop - start, *shape[1:])

    return Pieces((rows, *shape[1:]), 0, pieces.even_ends(rows, n) if bits else [rows], get)


def _arrow_wrap(result: Array, like: Any) -> Any:
    pa = sys.modules["pyarrow"]
    array = pa.array(result.ravel())
    for length in reversed(result.shape[1:]):
        array = pa.FixedSizeListArray.from_arrays(array, length)
    return pa.chunked_array([array]) if isinstance(like, pa.ChunkedArray) else array


def polars_series(request: Request, run: Run) -> Any:
    """A series of polars, with the name of the first series; a NumPy number for one row."""
    series = sys.modules["polars"].Series
    return _run(request, run, lambda x: isinstance(x, series), polars_view, lambda result, like: series(like.name, result))


def polars_view(name: str, column: Any) -> Array | Pieces:
    """The values of a series."""
    pl = sys.modules["polars"]
    inner = column.dtype
    shape: tuple[int, ...] = (len(column), *getattr(inner, "shape", ()))
    while isinstance(inner, pl.Array):
        inner = inner.inner
    if isinstance(inner, pl.List):
        raise TypeError(f"{name} has dtype {column.dtype}: must be an Array (cast it to polars.Array(inner, n))")
    if not (inner == pl.Boolean or inner.is_float() or inner.is_integer()):
        raise TypeError(f"{name} has dtype {column.dtype}: must be numbers, or an Array of numbers")
    with refused(f"{name} has dtype {column.dtype}"):  # integers of 128 bits
        pl.Series([], dtype=inner).to_numpy()
    return _joined(shape, column.get_chunks(), functools.partial(_polars_chunk, name, shape))


def _polars_chunk(name: str, shape: tuple[int, ...], chunk: Any, start: int) -> Pieces:
    """The values of a chunk that begins at the index `start` of a series of that shape."""
    rows, ends = len(chunk), [len(chunk)]
    try:
        chunk.to_numpy(allow_copy=False)
    except RuntimeError:  # bits or nulls, perhaps further in
        values = chunk
        for depth in range(1, len(shape) + 1):
            if values.null_count():
                raise null(name, start * math.prod(shape[1:depth]) + values.is_null().arg_max(), shape[:depth]) from None
            values = values.explode() if depth < len(shape) else values
        ends = pieces.even_ends(rows, 8 * math.prod(shape[1:]))
    return Pieces((rows, *shape[1:]), 0, ends, lambda start, stop: np.asarray(chunk[start:stop].to_numpy()))
