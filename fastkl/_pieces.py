"""Operands in pieces: no array as a whole, but one for each range along an axis. They are evaluated piece by piece.

Knows nothing of what such operands are made of, nor of what is computed.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, SupportsIndex

import numpy as np

from . import _rows

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ._rows import Array, Index, Locate

    Call = partial[Any]  # `_rows.evaluate`, all arguments given but operands, axis, out and keepdims

# A piece that has to be copied has so many bytes, to stay in cache. Cutting costs something: where that many bytes are few
# slices, so many slices are cut together, but never more than that part of the operand.
_BYTES = 1 << 18
_SLICES = 1024
_PARTS = 64


class Pieces(NamedTuple):
    """An operand that is cut along `axis`, which is not the distributions'."""

    shape: tuple[int, ...]
    axis: int
    ends: Sequence[int]  # no piece goes beyond one of these; in ascending order, the last is the axis' length
    get: Callable[[int, int], Array]  # the piece from a start to a stop


def even_ends(length: int, slice_bytes: int) -> list[int]:
    """Ends for an axis of that length, where each piece is a copy and a slice takes so many bytes."""
    step = max(1, _BYTES // max(1, slice_bytes), min(_SLICES, length // _PARTS))
    return [*range(step, length, step), length]


def evaluate(call: Call, operands: tuple[Any, ...], axis: SupportsIndex, out: Any, keepdims: bool) -> Any:
    """What the call gives for the operands, any of which may be in pieces."""
    operands = tuple(_whole(x) for x in operands)
    cuts = {x.axis - len(x.shape) for x in operands if isinstance(x, Pieces)}
    if not cuts:
        return call(operands, axis=axis, out=out, keepdims=keepdims)

    operands = tuple(x if isinstance(x, (Pieces, np.ndarray)) else np.asarray(x) for x in operands)
    shapes = [np.broadcast_to(np.float64(), x.shape) for x in operands]  # for checks that need no values
    ndim = max(x.ndim for x in shapes)
    last = _rows._axis(axis, ndim)
    cut = cuts.pop()
    if cuts or cut + ndim == last:
        raise ValueError(f"axis={axis}: an operand is in chunks along this axis: combine them before the call")
    leading = _rows._align(shapes[0], shapes[1] if len(shapes) == 2 else None, last, ndim)[2]
    target = None if out is None else _rows._out(out, last, leading, keepdims)

    # The values are collected before `out` is written to, for that may overlap an operand.
    place = cut + ndim - (cut + ndim > last)  # of the cut axis, in the result
    values: list[Array] = []
    start = 0
    for stop in sorted({end for x in operands if isinstance(x, Pieces) for end in x.ends}):
        parts = tuple(_part(x, cut, start, stop) for x in operands)
        # This is true of a broadcast operand, too, in the first piece; if it is refused at all, it is there.
        starts = {
            name: [start if axis == cut else 0 for axis in range(-len(x.shape), 0)]
            for name, x in zip("pq", operands, strict=False)
        }
        shape = (*leading[:place], stop - start, *leading[place + 1 :])
        into = None if target is None else np.empty(shape, target.dtype)
        values.append(call_at(call, starts)(parts, axis=last - ndim, out=into, keepdims=False))
        start = stop
    result = np.concatenate(values, axis=place)
    if target is not None:
        np.copyto(target, result)
        return out
    return np.expand_dims(result, last) if keepdims else result


def call_at(call: Call, starts: Mapping[str, Sequence[int]]) -> Call:
    """The same call for parts of the operands, which begin at the index `starts[name]` of the whole."""

    def locate(name: str, index: Index) -> Index:
        return [i if isinstance(i, str) else i + start for i, start in zip(index, starts[name], strict=True)]

    return relocated(call, locate)


def relocated(call: Call, locate: Locate) -> Call:
    """The same call for views of the operands, in messages of which an index is to be put through `locate`."""
    outer: Locate | None = call.keywords["locate"]
    return partial(call, locate=locate if outer is None else lambda name, index: outer(name, locate(name, index)))


def _whole(operand: Any) -> Any:
    """The operand, as an array if it has one piece."""
    if isinstance(operand, Pieces) and len(operand.ends) == 1:
        return operand.get(0, operand.ends[0])
    return operand


def _part(operand: Array | Pieces, cut: int, start: int, stop: int) -> Array:
    """The range of the operand along the axis `cut`, counted from the end; all of it where it is broadcast."""
    if isinstance(operand, Pieces):
        return operand.get(start, stop)
    if operand.ndim < -cut or operand.shape[cut] == 1:
        return operand
    index: Any = (..., slice(start, stop), *(slice(None),) * (-cut - 1))
    part: Array = operand[index]
    return part
