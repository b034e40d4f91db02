"""Operands in pieces: there is an array for each range along an axis, but none of the whole. They are evaluated by pieces.

This module knows nothing of what such operands are made of, nor of what is computed.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from .. import call
from ..call import Array, Request
from .operands import Run, as_array, by_name, located, of_shape

# A piece that must be copied has this many bytes, to stay in cache. Each piece costs a call: where so many bytes are few
# slices, a piece has this many slices, but is never more than this part of the operand.
_BYTES: Final = 1 << 18
_SLICES: Final = 1024
_PARTS: Final = 64


class Pieces(NamedTuple):
    """An operand that is cut along `axis`, which is not the distribution axis."""

    shape: tuple[int, ...]
    axis: int
    ends: Sequence[int]  # no piece goes beyond one of these; in ascending order, the last is the axis' length
    get: Callable[[int, int], Array]  # the piece from a start to a stop


def even_ends(length: int, slice_bytes: int) -> list[int]:
    """Ends for an axis of that length, where each piece is a copy and a slice has that many bytes."""
    step = max(1, _BYTES // max(1, slice_bytes), min(_SLICES, length // _PARTS))
    return [*range(step, length, step), length]


def run(request: Request, run: Run) -> Any:
    """What `run` gives for a request whose operands may be in pieces, which are joined if it is not `call.run`."""
    operands = {name: _whole(x) for name, x in by_name(request).items()}
    cuts = {x.axis - len(x.shape) for x in operands.values() if isinstance(x, Pieces)}
    if run is not call.run:
        operands, cuts = {name: _joined(x) for name, x in operands.items()}, set()
    if not cuts:
        return run(request.replace(**operands))

    operands = {name: x if isinstance(x, Pieces) else as_array(name, x) for name, x in operands.items()}
    shapes = [of_shape(x.shape) for x in operands.values()]
    ndim = max(x.ndim for x in shapes)
    last = call.check_axis(request.axis, ndim)
    cut = cuts.pop()
    if cuts or cut + ndim == last:
        raise ValueError(f"axis={request.axis}: an operand is in chunks along this axis: combine them before the call")
    leading = call.align(shapes[0], shapes[1] if len(shapes) == 2 else None, last, ndim)[2]
    out = None if request.out is None else call.check_out(request.out, last - ndim, leading, request.keepdims)

    # The values are collected before `out` is written to, because that may overlap an operand.
    place = cut + ndim - (cut + ndim > last)  # of the cut axis, in the result
    values: list[Array] = []
    start = 0
    for stop in sorted({end for x in operands.values() if isinstance(x, Pieces) for end in x.ends}):
        parts = {name: _part(x, cut, start, stop) for name, x in operands.items()}
        # The starts hold for a broadcast operand, too: a row of it that is invalid is found in the first piece.
        starts = {name: [start if axis == cut else 0 for axis in range(-len(x.shape), 0)] for name, x in operands.items()}
        into = None if out is None else np.empty((*leading[:place], stop - start, *leading[place + 1 :]), out.dtype)
        with located(starts, {}):
            values.append(call.run(request.replace(**parts, axis=last - ndim, out=into, keepdims=False)))
        start = stop
    result = np.concatenate(values, axis=place)
    if out is not None:
        np.copyto(out, result)
        return request.out
    return np.expand_dims(result, last) if request.keepdims else result


def _whole(operand: Any) -> Any:
    """The operand, as an array if it has one piece."""
    if isinstance(operand, Pieces) and len(operand.ends) == 1:
        return operand.get(0, operand.ends[0])
    return operand


def _joined(operand: Any) -> Any:
    """The operand as one array, if it is in pieces."""
    if not isinstance(operand, Pieces):
        return operand
    starts = [0, *operand.ends]
    return np.concatenate([operand.get(*ends) for ends in itertools.pairwise(starts)], axis=operand.axis)


def _part(operand: Array | Pieces, cut: int, start: int, stop: int) -> Array:
    """The range of the operand along the axis `cut`, counted from the end; all of it where it is broadcast."""
    if isinstance(operand, Pieces):
        return operand.get(start, stop)
    if operand.ndim < -cut or operand.shape[cut] == 1:
        return operand
    index: Any = (..., slice(start, stop), *(slice(None),) * (-cut - 1))
    return np.asarray(operand[index])
