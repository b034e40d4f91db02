"""What the functions share: operands without masked entries, and sums of terms in blocks. Knows none of the functions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..call import Array

if TYPE_CHECKING:
    from collections.abc import Callable

_BLOCK = 1 << 13  # entries in one NumPy operation: so many that its fixed cost is small, so few that they stay in cache


def unmasked(name: str, values: Any) -> Array:
    """The values as an array."""
    if np.ma.is_masked(values):
        raise TypeError(f"{name} has masked entries: fill them, or leave them out, before the call")
    return np.asarray(values)


@np.errstate(all="ignore")
def add_terms(terms: Callable[[Array, Array], Array], x: Array, y: Array, axis: int | None) -> Array:
    """The sums of terms(x, y) in float64 along the axis: those of two halves, until a half fits into a block.

    The arrays have the same shape. The axis is -1, or None to add all terms.
    """
    if x.size <= _BLOCK:
        return np.asarray(terms(x.astype(float, copy=False), y.astype(float, copy=False)).sum(axis))
    cut = next(i for i, length in enumerate(x.shape) if length > 1)  # of the first axes, to leave rows whole
    middle = x.shape[cut] // 2
    halves = [(*(slice(None),) * cut, half) for half in (slice(middle), slice(middle, None))]
    first, second = (add_terms(terms, x[half], y[half], axis) for half in halves)
    return first + second if axis is None or cut == x.ndim - 1 else np.concatenate([first, second], cut)
