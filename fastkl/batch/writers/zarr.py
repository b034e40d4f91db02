"""Results as Zarr: an array, or a group with an array for each field, in a new folder. Needs zarr 2.18 or later, or 3.

With several models, there is an array or a group for each model.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, Final

import numpy as np
import zarr

from ...call import Array
from ..files import naming
from ..output import Write
from ..readers.source import Source, quietly
from ..readers.zarr import boxes
from . import column, columns

CHUNK: Final = 1 << 17  # values in a chunk


def writer(p: Source, keys: Sequence[str], dtype: np.dtype[Any], shape: tuple[int, ...]) -> Write:
    """The function that writes values; it needs nothing of the input."""

    def write(path: Path, parts: Iterator[Array]) -> None:
        with naming(path):
            for names in columns(dtype):
                for group in accumulate(names[:-1], Path.joinpath, initial=path) if names else ():
                    zarr.open_group(os.path.abspath(group), mode="a")
            arrays = {names: _create(path.joinpath(*names), x, shape) for names, x in columns(dtype).items()}
            start = 0
            for values in parts:
                for names, array in arrays.items():
                    _fill(array, start, column(values, names))
                start += len(values)

    return write


def _fill(array: Any, start: int, values: Array) -> None:
    """Put values into the array, in row order from the entry `start` on."""
    at = 0
    for box in boxes(start, start + len(values), array.shape):
        lengths = [len(range(*part.indices(n))) for part, n in zip(box, array.shape, strict=True)]
        count = math.prod(lengths)
        array[box] = values[at : at + count].reshape(lengths)
        at += count


def _create(path: Path, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Any:
    """A new array, in chunks of about CHUNK values in row order. A chunk that is lost later is read as NaN, not as 0."""
    chunks: list[int] = []
    room = CHUNK
    for length in reversed(shape):
        chunks.insert(0, max(1, min(length, room)))
        room //= max(1, length)
    fill = False if dtype.kind == "b" else math.nan
    with quietly():
        return zarr.create(shape, chunks=tuple(chunks), dtype=dtype, store=os.path.abspath(path), fill_value=fill)
