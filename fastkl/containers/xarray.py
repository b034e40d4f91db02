"""DataArrays of xarray, in dask chunks or not. Dimensions meet by name; xarray itself combines coordinates."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from .. import call
from ..call import Request
from . import dask
from .operands import Run, as_array, by_name, located


def run(request: Request, run: Run) -> Any:
    """A DataArray of the results. The axis is one of the first DataArray's."""
    xr, da = sys.modules["xarray"], sys.modules.get("dask.array")
    operands = by_name(request)
    like = next(x for x in operands.values() if isinstance(x, xr.DataArray))
    for name, x in operands.items():
        if isinstance(x, xr.DataArray) and not x.ndim:
            raise ValueError(f"{name} is the number {x.values[()]}: must have at least one axis")
    dim = like.dims[call.check_axis(request.axis, like.ndim)]
    arrays, dims = {}, {}  # dims: a name for each axis that the user's operand has
    for name, x in operands.items():
        own = isinstance(x, xr.DataArray)
        arrays[name] = x if own else _with_dims_of(like, name, as_array(name, x))
        dims[name] = x.dims if own else like.dims[like.ndim - np.ndim(x) :]
        if dim not in arrays[name].dims:
            raise ValueError(f"{name} has dimensions {arrays[name].dims}: must have {dim!r}, which holds the distributions")

    try:
        xr.align(*arrays.values(), join="exact", copy=False)
    except ValueError as error:
        raise ValueError(f"{' and '.join(arrays)}: {error}") from None

    # p is evaluated as it is, q with p's dimensions last, in p's order.
    p, q = next(iter(arrays.values())), list(arrays.values())[-1]
    extra = [d for d in q.dims if d not in p.dims]
    order = [*extra, *p.dims]
    views, axes = {}, {}
    for name, x in arrays.items():
        own_order = order[next(i for i, d in enumerate(order) if d in x.dims) :]
        views[name] = x.variable.transpose(*(d for d in own_order if d in x.dims)).data[
            tuple(slice(None) if d in x.dims else None for d in own_order)
        ]
        axes[name] = [own_order.index(d) if d in x.dims else None for d in dims[name]]
    last = p.dims.index(dim) - p.ndim
    request = request.replace(**views, axis=last)
    k = len(extra)  # the dimensions that q alone has come first in the views, and last in the result

    def evaluate(request: Request) -> Any:
        if da is not None and any(isinstance(x, da.Array) for x in views.values()):
            return dask.run(request, run, axes)
        with located({}, axes):
            return run(request)

    out = request.out
    if out is not None:
        if k and isinstance(out, np.ndarray) and out.ndim == len(order) - (not request.keepdims):
            request = request.replace(out=out.transpose(*range(out.ndim - k, out.ndim), *range(out.ndim - k)))
        evaluate(request)
        return out

    def compute(*_: Any) -> Any:
        values = evaluate(request.replace(keepdims=False))
        return values.transpose(*range(k, values.ndim), *range(k)) if k else values

    dims_of_rows = [[dim]] * len(arrays)
    result = xr.apply_ufunc(compute, *arrays.values(), input_core_dims=dims_of_rows, join="exact", dask="allowed")
    return result.expand_dims(dim, p.dims.index(dim)) if request.keepdims else result


def _with_dims_of(like: Any, name: str, array: Any) -> Any:
    """An array without names has the last of the dimensions, where it is not broadcast."""
    if array.ndim > like.ndim:
        raise ValueError(f"{name} has shape {array.shape}: must have no more axes than the dimensions {like.dims}")
    dims = like.dims[like.ndim - array.ndim :]
    kept = [d for d, n in zip(dims, array.shape, strict=True) if n != 1 or like.sizes[d] == 1]
    return type(like)(array[tuple(slice(None) if d in kept else 0 for d in dims)], dims=kept)
