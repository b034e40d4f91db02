"""Results in other formats than .npy: a module for each, with a function `writer`, found by the output's suffix."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...call import Array
from .. import formats
from ..output import Write
from ..readers import Source


def columns(dtype: np.dtype[Any]) -> dict[tuple[str, ...], np.dtype[Any]]:
    """The dtypes of the columns of values, by the names of the fields that lead to them: of a model, of a comparison."""
    fields = [(name, dtype[name]) for name in dtype.names or ()]
    return {(name, *rest): x for name, field in fields for rest, x in columns(field).items()} or {(): dtype}


def column(values: Array, names: tuple[str, ...]) -> Array:
    """The column with those names."""
    for name in names:
        values = values[name]
    return values


def find(path: Path, p: Source, keys: Sequence[str], dtype: np.dtype[Any], shape: tuple[int, ...]) -> Write | None:
    """The function that writes the values in the format of the path; None for .npy, the format of a draft."""
    kind = formats.of_name(path.name)
    if keys and kind != "parquet":
        raise ValueError(f"keys: only for Parquet, and out is {path}")
    if kind == "npy":
        return None
    if kind is None or not formats.FORMATS[kind].writes:
        raise ValueError(f"out is {path}: must end in .npy, .parquet or .zarr")
    write: Write = formats.load(__name__, kind).writer(p, keys, dtype, shape)
    return write
