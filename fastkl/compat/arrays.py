"""What the functions share: operands without masked entries, rows along the last axis, and sums of terms in blocks.

Knows none of the functions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..call import Array

if TYPE_CHECKING:
    from collections.abc import Callable

# Entries in one NumPy operation: so many that its fixed cost is small, so few that they stay in cache.
BLOCK = 1 << 13


def unmasked(name: str, values: Any) -> Array:
    """The values as an array."""
    if isinstance(values, np.ma.MaskedArray) and np.ma.is_masked(values):
        raise TypeError(f"{name} has masked entries: fill them, or leave them out, before the call")
    return np.asarray(values)


def rows_last(x: Array, axis: Any) -> Array | None:
    """The rows along `axis` in the last axis, and the other axes in order; None if that is not simple.

    The axis None makes one row of all entries. At most a block of entries is copied.
    """
    ndim = x.ndim
    if axis is None:
        return x if ndim == 1 else x.reshape(-1) if x.flags.c_contiguous or x.size <= BLOCK else None
    if type(axis) is int and -ndim <= axis < ndim:
        if axis in (-1, ndim - 1):
            return x
        order = [*range(ndim)]
        order.append(order.pop(axis))
        return x.transpose(order)
    return None


def broadcast_small(x: Array, y: Array) -> tuple[Array, Array]:
    """The arrays, one of them copied to the shape of the other if that is how they broadcast, and they are small."""
    wider, other = (x, y) if x.ndim >= y.ndim else (y, x)
    if wider.size <= BLOCK:
        copy = np.empty(wider.shape, other.dtype)
        try:
            copy[...] = other
        except ValueError:
            return x, y
        return (x, copy) if wider is x else (copy, y)
    return x, y


@np.errstate(all="ignore")
def add_terms(terms: Callable[[Array, Array], Array], x: Array, y: Array, axis: int | None) -> Array:
    """The sums of terms(x, y) in float64 along the axis: those of two halves, until a half fits into a block.

    The arrays have the same shape. The axis is -1, or None to add all terms.
    """
    if x.size <= BLOCK:
        return np.asarray(terms(x.astype(float, copy=False), y.astype(float, copy=False)).sum(axis))
    cut = next(i for i, length in enumerate(x.shape) if length > 1)  # of the first axes, to leave rows whole
    middle = x.shape[cut] // 2
    halves = [(*(slice(None),) * cut, half) for half in (slice(middle), slice(middle, None))]
    first, second = (add_terms(terms, x[half], y[half], axis) for half in halves)
    return first + second if axis is None or cut == x.ndim - 1 else np.concatenate([first, second], cut)
