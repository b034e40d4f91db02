"""Data frames and series of pandas and polars. A series is one row, for every row of a frame."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import numpy as np

from .. import call
from ..call import Array, Request
from . import arrow, pieces
from .operands import FILL, Run, as_array, by_name, located, refused
from .pieces import Pieces


class _Library(NamedTuple):
    """What an adapter must know of a library of data frames. `names` are those of rows or columns."""

    names: Callable[[Any], tuple[Any, ...]]  # of each axis, None where it has none; () for what is not of the library
    view: Callable[[str, Any, int], Any]  # (name, operand, axis): pieces, if any, are not along the axis
    wrap: Callable[[Array, int, bool, Any], Any]  # (result, axis, keepdims, names of the result)
    advice: str  # what to do about names that differ


def _run(request: Request, run: Run, library: _Library) -> Any:
    """What an adapter does."""
    operands = by_name(request)
    names = {name: library.names(x) for name, x in operands.items()}
    operands = {name: x if names[name] else as_array(name, x) for name, x in operands.items()}
    ndim = max(len(names[name]) or x.ndim for name, x in operands.items())
    last = call.check_axis(request.axis, ndim) - ndim
    if last < -2:
        raise ValueError(f"axis={request.axis}: must be one of the two axes of a data frame")
    along = [own[0 if len(own) == 1 else last] if own else None for own in names.values()]
    other = [own[-3 - last] if len(own) == 2 else None for own in names.values()]
    lengths = [None if own is None else len(own) for own in other]
    _check("the distributions' axis", library.advice, *along)
    if 1 not in lengths or lengths[0] == lengths[-1]:
        _check("the other axis", library.advice, *other)

    views = {name: library.view(name, x, last) if names[name] else x for name, x in operands.items()}
    columns = [name for name, own in names.items() if len(own) == 1 and last == -2]
    views |= {name: views[name][:, None] for name in columns}  # a series is a distribution along this axis, too
    out, keepdims = request.out, request.keepdims
    with located({}, dict.fromkeys(columns, (0,))):
        result = pieces.run(request.replace(**views, axis=last, keepdims=keepdims and out is not None), run)
    if out is not None:
        return out
    if np.ndim(result) > 1:
        raise ValueError(f"the result has shape {result.shape}: must have at most one axis beside data frames")
    rows = len(result) if np.ndim(result) else None
    return library.wrap(result, last, keepdims, next((x for x in other if x is not None and len(x) == rows), None))


def _check(where: str, advice: str, p: Any, q: Any = None) -> None:
    """Raise where p and q have different names along an axis."""
    if p is None or q is None or p.equals(q):
        return
    if len(p) != len(q):
        differ = f"{len(p)} and {len(q)} of them"
    else:
        i = next((i for i, (a, b) in enumerate(zip(p, q, strict=True)) if a != b), 0)
        differ = f"{p[i]!r} and {q[i]!r} at position {i}"
    raise ValueError(f"p and q have different labels along {where}, {differ}: {advice}")


def _pandas_names(operand: Any) -> tuple[Any, ...]:
    pd = sys.modules["pandas"]
    return tuple(operand.axes) if isinstance(operand, (pd.Series, pd.DataFrame)) else ()


def _pandas_view(name: str, values: Any, axis: int) -> Array | Pieces:
    frame = values if values.ndim == 2 else values.to_frame()
    kinds = {dtype: getattr(dtype, "numpy_dtype", dtype) for dtype in frame.dtypes.unique()}
    for dtype, kind in kinds.items():
        if not isinstance(kind, np.dtype) or kind.kind not in "fiub":
            raise TypeError(f"{name} has a column of dtype {dtype}: must be floating, integer or bool")
        if kind is not dtype:
            _no_missing(name, frame, dtype)
    common = np.result_type(*kinds.values()) if kinds else np.dtype(float)
    first = frame.iloc[:1]
    one_block = len(kinds) == 1 and np.shares_memory(first.to_numpy(dtype=common), first.to_numpy(dtype=common))
    if values.ndim == 1 or one_block:
        return np.asarray(values.to_numpy(dtype=common))
    return _in_pieces(frame.shape, frame.iloc, axis, common, lambda part: part.to_numpy(dtype=common))


def _in_pieces(shape: tuple[int, int], at: Any, axis: int, dtype: np.dtype[Any], view: Callable[[Any], Array]) -> Pieces:
    """A frame, cut along the axis that is not the distributions'. `at` slices it, `view` is the array of a part."""

    def get(start: int, stop: int) -> Array:
        return view(at[start:stop] if axis == -1 else at[:, start:stop])

    cut = -1 - axis
    return Pieces(shape, cut, pieces.even_ends(shape[cut], shape[1 - cut] * dtype.itemsize), get)


def _no_missing(name: str, frame: Any, dtype: Any) -> None:
    """Raise for a missing value in the columns of a dtype that is not NumPy's, where it is a NaN like any other."""
    for j in np.flatnonzero(frame.dtypes == dtype):
        column = frame.iloc[:, j]
        if column.hasnans:
            raise ValueError(f"{name}[{int(column.isna().argmax())}, {j}] is missing: {FILL}")


def _pandas_wrap(result: Array, axis: int, keepdims: bool, names: Any) -> Any:
    pd = sys.modules["pandas"]
    if not np.ndim(result):
        return pd.Series([result]) if keepdims else result
    if not keepdims:
        return pd.Series(result, index=names, copy=False)
    if axis == -1:
        return pd.DataFrame(result[:, np.newaxis], index=names, copy=False)
    return pd.DataFrame(result[np.newaxis], columns=names, copy=False)


def _polars_names(operand: Any) -> tuple[Any, ...]:
    pl = sys.modules["polars"]
    if isinstance(operand, pl.DataFrame):
        return None, pl.Series(operand.columns)
    return (None, *(None for _ in getattr(operand.dtype, "shape", ()))) if isinstance(operand, pl.Series) else ()


def _polars_view(name: str, values: Any, axis: int) -> Array | Pieces:
    pl = sys.modules["polars"]
    if isinstance(values, pl.Series):
        return arrow.polars_view(name, values)
    for column in values.iter_columns():
        if not (column.dtype == pl.Boolean or column.dtype.is_float() or column.dtype.is_integer()):
            raise TypeError(f"{name}[{column.name!r}] has dtype {column.dtype}: must be floating, integer or bool")
        if column.has_nulls():
            raise ValueError(f"{name}[{column.is_null().arg_max()}, {column.name!r}] is null: {FILL}")
    for column in values.iter_columns():
        with refused(f"{name}[{column.name!r}] has dtype {column.dtype}"):  # integers of 128 bits
            column[:1].to_numpy()
    common = values[:0].to_numpy().dtype
    return _in_pieces(values.shape, values, axis, common, lambda part: part.to_numpy().astype(common, copy=False))


def _polars_wrap(result: Array, axis: int, keepdims: bool, names: Any) -> Any:
    """As polars reduces: along rows to a series, along columns to a frame of one row."""
    pl = sys.modules["polars"]
    if axis == -2:
        return pl.DataFrame(result[np.newaxis], schema=None if names is None else list(names), orient="row")
    return pl.DataFrame({"": result}) if keepdims else pl.Series(result)


_REORDER: Final = "reorder one, or pass one of them as a NumPy array to compare by position"
_PANDAS: Final = _Library(_pandas_names, _pandas_view, _pandas_wrap, f"reindex or {_REORDER}")
_POLARS: Final = _Library(_polars_names, _polars_view, _polars_wrap, f"select the same columns: {_REORDER}")


def pandas(request: Request, run: Run) -> Any:
    """A series, or with keepdims a frame, with the names of the rows; a NumPy number for one row."""
    return _run(request, run, _PANDAS)


def polars(request: Request, run: Run) -> Any:
    """A series for data frames, or along columns a frame; for series alone what `arrow.polars_series` returns."""
    if any(isinstance(x, sys.modules["polars"].DataFrame) for x in by_name(request).values()):
        return _run(request, run, _POLARS)
    return arrow.polars_series(request, run)
