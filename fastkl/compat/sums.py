"""Sums of p log(p/q) and of p log(p/q) - p + q by the kernels, with SciPy's axes and dtypes.

Small calls with arrays go straight to the kernels, because SciPy's take a microsecond or two.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_tuple

from .._kernels import sum_plain
from ..call import Array, Request, run
from .arrays import BLOCK, broadcast_small, unmasked

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["sum_of_terms"]

_PART = 1 << 12  # entries of a row in a part: the kernels have SciPy's values for all rows that are no longer than some


def sum_of_terms(measure: str, p: Any, q: Any, axis: int | Sequence[int] | None, keepdims: bool) -> Any:
    """The sums of the terms of "rel_entr_sum" or "kl_div_sum" along the axes."""
    x = p if type(p) is np.ndarray else unmasked("p", p)
    y = q if type(q) is np.ndarray else unmasked("q", q)
    if x.shape != y.shape and not _is_any_number(p, q, x, y):
        x, y = broadcast_small(x, y)
    result = sum_plain(measure, x, y, axis)  # None if it is not as simple as that
    if result is None:
        result = sum_plain(measure, *_rows_last_small(x, y, axis))
    if result is None:
        return _sum_along_axes(measure, p, q, x, y, axis, keepdims)
    if not keepdims:
        return result
    shape = [1] * x.ndim if axis is None else list(x.shape)
    for i in (axis,) if isinstance(axis, int) else axis or ():
        shape[i] = 1
    return np.asarray(result).reshape(shape)


def _rows_last_small(x: Array, y: Array, axis: Any) -> tuple[Array, Array, Any]:
    """The operands, if they are small, with several axes that are added joined into a last one, and the number of that."""
    ndim = x.ndim
    if x.shape != y.shape or x.size > BLOCK or ndim < 2:
        return x, y, axis
    if axis is None:
        return x.reshape(-1), y.reshape(-1), -1
    if type(axis) is not tuple or not axis or not x.size:
        return x, y, axis
    order, shape = [*range(ndim)], [*x.shape, -1]
    for i in sorted(axis, reverse=True):
        if type(i) is not int or not 0 <= i < ndim or order[i] != i:
            return x, y, axis
        order.append(order.pop(i))
        del shape[i]
    return x.transpose(order).reshape(shape), y.transpose(order).reshape(shape), -1


def _is_any_number(p: Any, q: Any, x: Array, y: Array) -> bool:
    """Whether one of p and q is a Python number, which takes the dtype of the other operand, and that is not float64."""
    return (type(p) in (int, float) and y.dtype.char != "d") or (type(q) in (int, float) and x.dtype.char != "d")


def _result_dtype(p: Any, q: Any, x: Array, y: Array) -> type[np.floating[Any]]:
    """Float32 if it holds all values of both dtypes.

    A Python number takes the dtype of the other operand, and a Python float makes an integer dtype float64.
    """
    numbers = [number for number in (p, q) if type(number) in (int, float)]
    dtypes = [array.dtype for array, given in ((x, p), (y, q)) if type(given) not in (int, float)]
    narrow = dtypes and all(np.can_cast(np.result_type(dtype, *numbers), np.float32) for dtype in dtypes)
    return np.float32 if narrow else np.float64


def _sum_along_axes(measure: str, p: Any, q: Any, x: Array, y: Array, axis: Any, keepdims: bool) -> Any:
    """The sums of any operands, along any axes: along one by the kernels, and of these sums along the others."""
    for name, array in ("p", x), ("q", y):
        if not np.can_cast(array.dtype, np.float64) and array.dtype.kind not in "iu":
            raise TypeError(
                f"{name} has dtype {array.dtype}: must be float64, float32, float16, bfloat16, bool or an integer dtype"
            )
    x, y = np.atleast_1d(x), np.atleast_1d(y)
    try:
        shape = np.broadcast_shapes(x.shape, y.shape)
    except ValueError:
        raise ValueError(f"Array shapes are incompatible for broadcasting: {x.shape}, {y.shape}") from None
    axes = tuple(range(len(shape))) if axis is None else normalize_axis_tuple(axis, len(shape), "axis")
    dtype = _result_dtype(p, q, x, y)
    x, y = np.broadcast_to(x, shape), np.broadcast_to(y, shape)
    kept = [i for i in range(len(shape)) if i not in axes]
    # The axis with the smallest strides comes last, and nothing is copied.
    added = sorted(axes, key=lambda i: (shape[i] > 1, -abs(x.strides[i]) - abs(y.strides[i])))
    x, y = (a.transpose(kept + added) if axes else a[..., np.newaxis] for a in (x, y))
    values = _sums_of_rows(measure, x, y)
    values = np.asarray(values.sum(tuple(range(len(kept), values.ndim)))).astype(dtype)
    return np.expand_dims(values, axes) if keepdims else values[()]


def _sums_of_rows(measure: str, x: Array, y: Array) -> Array:
    """The sums along the last axis in float64. Long rows are cut into parts, whose sums are added."""
    length = x.shape[-1]
    if length > 2 * _PART:
        whole = length // _PART * _PART
        parts = [a[..., :whole].reshape(*a.shape[:-1], whole // _PART, _PART) for a in (x, y)]
        sums: Array = _sums_of_rows(measure, *parts).sum(-1)
        return sums + _sums_of_rows(measure, x[..., whole:], y[..., whole:]) if whole < length else sums
    values: Array = np.zeros(x.shape[:-1])
    if x.size:
        request = Request(measure, x, y)
        request.set_rows(-1, True, "nan")
        request.set_result(values, False)
        run(request)
    return values
