"""Arrays of dask: each block of rows is a task that calls `call.run`. Building the graph computes nothing.

Labels are an array like the others here, with an axis of length 1 where the distribution axis is, so that their chunks and
those of rows meet.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Mapping, Sequence
from types import FrameType
from typing import Any, Final

import numpy as np

from .. import call
from ..call import Array, Request
from .operands import Run, as_array, by_name, located, of_shape


def run(request: Request, run: Run, axes: Mapping[str, Sequence[int | None]] | None = None) -> Any:
    """A dask array of the results. `axes` is that of `located`, where the operands are views already.

    If `run` is not `call.run`, all blocks are computed, and it gets the arrays.
    """
    da = sys.modules["dask.array"]
    if request.out is not None:
        raise TypeError("out: must be None for dask arrays, whose values are computed later")
    given = request
    named = {n: x if isinstance(x, da.Array) else da.asarray(as_array(n, x)) for n, x in by_name(request).items()}
    labels = named.pop("labels", None)
    ndim = max(x.ndim + (x is labels) for x in (*named.values(), labels) if x is not None)
    axis = call.check_axis(request.axis, ndim)
    last = axis - ndim
    for name, x in named.items():
        if x.ndim >= -last and np.isnan(x.shape[last]):
            raise ValueError(f"{name} has an unknown length along axis {last}: call its compute_chunk_sizes() first")
    shapes = [of_shape(x.shape) for x in named.values()]
    leading = call.align(shapes[0], shapes[1] if len(shapes) == 2 else None, axis, ndim, next(iter(named)))[2]
    added: tuple[int, ...] = ()
    if labels is not None:
        call.align_labels(of_shape(labels.shape), axis, ndim, leading)
        added = (*[i for i in range(ndim) if i != axis][: ndim - 1 - labels.ndim], axis)
        named["labels"] = labels[tuple(np.newaxis if i in added else slice(None) for i in range(ndim))]
    request = request.replace(p=None, q=None, labels=None, axis=last)
    block = functools.partial(_block, names=tuple(named), added=added, axes=axes or {})
    probe = block(request.replace(normalize=True), *(_no_rows(name, x, last) for name, x in named.items()))

    if run is not call.run:
        return run(given.replace(**{name: np.asarray(x) for name, x in by_name(given).items()}))

    arrays = [x.rechunk({x.ndim + last: -1}) if x.ndim >= -last else x for x in named.values()]
    _, arrays = da.core.unify_chunks(*(part for x in arrays for part in (x, range(ndim - x.ndim, ndim))))
    chunks = [max((x.chunks[i] for x in arrays if x.ndim >= -i), key=lambda own: sum(own) != 1) for i in range(-ndim, 0)]
    chunks[last : last + 1 or None] = [(1,)] if request.keepdims else []
    compare = request.measure == "compare"
    if request.threads is None:
        request = request.replace(threads=1)  # because each block has a thread of dask's
    return da.map_blocks(
        functools.partial(block, request),
        *arrays,
        dtype=probe.dtype,
        chunks=(probe.shape[:1], *chunks) if compare else tuple(chunks),
        drop_axis=[] if request.keepdims else [axis],
        new_axis=[0] if compare else None,
        meta=np.empty((0,) * np.ndim(probe), probe.dtype),
        token="fastkl",
    )


# Where dask finds out the dtype of a user's function, by calling it with zeros or ones.
_INFERENCE: Final = {("dask.array.core", "apply_infer_dtype"), ("dask.dataframe.dask_expr._expr", "emulate")}


def infers_dtype() -> bool:
    """Whether this is a call with rows that dask has made up, which need not be distributions: only its dtype counts."""
    frame: FrameType | None = inspect.currentframe()
    while frame is not None:
        if (frame.f_globals.get("__name__"), frame.f_code.co_name) in _INFERENCE:
            return True
        frame = frame.f_back
    return False


def _no_rows(name: str, array: Any, axis: int) -> Array:
    """An array of the same dtype and length along the axis, with no rows; if there is no other axis, with a row of ones.

    Labels, which have length 1 along the axis, are zeros.
    """
    shape = [n if n == 1 or i - array.ndim == axis else 0 for i, n in enumerate(array.shape)]
    return np.broadcast_to((np.zeros if name == "labels" else np.ones)((), array.dtype), shape)


def _block(
    request: Request,
    *blocks: Any,
    names: tuple[str, ...],
    added: tuple[int, ...],
    axes: Mapping[str, Sequence[int | None]],
    block_info: Any = None,
) -> Any:
    """The results for one block of each array. That of the labels has axes of length 1, which were added."""
    named = dict(zip(names, blocks, strict=True))
    if "labels" in named:
        named["labels"] = named["labels"].squeeze(added)
    places = {name: block_info[i]["array-location"] for i, name in enumerate(names)} if block_info else {}
    if any(np.isnan(place).any() for place in places.values()):
        places = {}  # chunks of unknown lengths: an error has the index in the block
    starts = {
        name: [int(start) for i, (start, _) in enumerate(place) if name != "labels" or i not in added]
        for name, place in places.items()
    }
    with located(starts, axes):
        return call.run(request.replace(**named))
