"""Results in other formats than .npy: a module for each, with a function `writer`, found by the output's suffix."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .. import formats
from ..output import Write
from ..readers import Source


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
