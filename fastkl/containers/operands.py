"""What adapters share: the operands of a request by name, and where in them an error is when only views were evaluated."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np

from .. import call
from ..call import Array, Request

# What an adapter does with a request whose operands are NumPy arrays: `call.run`, or what `arrays` of this package needs.
Run = Callable[[Request], Any]

FILL: Final = "fill missing values, or leave their rows out, before the call"


def by_name(request: Request) -> dict[str, Any]:
    """The operands that the request has, p before q before labels."""
    named = {"p": request.p, "q": request.q, "labels": request.labels}
    return {name: operand for name, operand in named.items() if operand is not None}


def kind(operand: Any) -> str:
    """The library and the class of an operand, for messages."""
    return f"{type(operand).__module__.partition('.')[0]}.{type(operand).__name__}"


def as_array(name: str, values: Any) -> Array:
    """The values as an array of the dtype that they came in, by which `call.run` still knows bfloat16."""
    call.read_operand(name, values)  # raises for what cannot be read
    return np.asarray(values)


def of_shape(shape: Sequence[float]) -> Array:
    """An array of that shape, for checks that need no values. An unknown length, NaN, is 1 in it, which fits all."""
    return np.broadcast_to(np.float64(), [1 if np.isnan(n) else int(n) for n in shape])


@contextlib.contextmanager
def refused(what: str) -> Iterator[None]:
    """A context in which an error of another library, whichever it is, becomes a TypeError that begins with `what`."""
    try:
        yield
    except (KeyboardInterrupt, MemoryError, SystemExit):
        raise
    except BaseException as error:  # polars' panics are no Exceptions
        raise TypeError(f"{what}, which is no NumPy array: {str(error) or type(error).__name__}") from None


def null(name: str, flat: int, shape: tuple[int, ...]) -> ValueError:
    """The error for a missing value at the flat index `flat` of an operand of that shape."""
    index = ", ".join(str(int(i)) for i in np.unravel_index(flat, shape))
    return ValueError(f"{name}[{index}] is null: {FILL}")


@contextlib.contextmanager
def located(starts: Mapping[str, Sequence[int]], axes: Mapping[str, Sequence[int | None]]) -> Iterator[None]:
    """A context in which an InvalidRowError about a view gets the index in the operand that the user passed.

    The view begins at `starts[name]`, an index along each of its axes, or at 0. `axes[name]` has an entry for each axis of
    the operand: the view's axis, or None where the view lacks it, because the operand has length 1 there.
    """
    try:
        yield
    except call.InvalidRowError as error:
        first = starts.get(error.operand, (0,) * len(error.index))
        index = [i if isinstance(i, slice) else i + start for i, start in zip(error.index, first, strict=False)]
        own = axes.get(error.operand, range(len(index)))
        row = slice(None)  # an error's index may end before the axis of a row
        at = (0 if axis is None else index[axis] if axis < len(index) else row for axis in own)
        raise error.at(tuple(at)) from None
