"""Top-k rows: indices, values and tails of as many sources as one source, whose rows become a TopK for each block."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from ...call import Array
from .source import Source

_MOST: Final = 2**31 - 1  # bytes of an entry: NumPy has no larger dtypes


class TopKFiles(NamedTuple):
    """The fields of a TopK, each a path or an array."""

    indices: str | os.PathLike[str] | Array
    values: Any
    tail: Any = None
    log_probs: bool = False


class TopKSource(Source):
    """A row has one entry, of a dtype with the fields `indices`, `values` or `log_probs`, and `tail`, if that is given."""

    is_plain = False

    def __init__(self, indices: Source, values: Source, tail: Source | None, log_probs: bool) -> None:
        if indices.dtype.kind not in "iu":
            raise TypeError(f"{indices.name} has dtype {indices.dtype}: indices must be of an integer dtype")
        if indices.shape != values.shape:
            shapes = f"{indices.name} has shape {indices.shape} and {values.name} has shape {values.shape}"
            raise ValueError(f"{shapes}: indices and values must have the same")
        if not values.width:
            raise ValueError(f"{values.name} has shape {values.shape}: must have at least one category in the last axis")
        self._parts = {"indices": indices, "log_probs" if log_probs else "values": values}
        if tail is not None:
            tail.set_labels(True)
            if tail.leading != values.leading:
                wanted = f"must have a tail for each row, {values.leading}"
                raise ValueError(f"{tail.name} has shape {tail.shape}: {wanted}")
            self._parts["tail"] = tail
        # Of all parts, because a row can be invalid for what each of them has.
        self.name = f"{indices.name} with {values.name}" + (f" and {tail.name}" if tail is not None else "")
        self.shape, self.entry_dtype = (*values.leading, 1), values.dtype
        if (size := sum(x.row_bytes for x in self._parts.values())) > _MOST:
            raise ValueError(f"{self.name}: has rows of {size} bytes: must have at most {_MOST}")
        self.dtype = np.dtype([(name, x.dtype, (x.width,)) for name, x in self._parts.items()])
        self.set_labels(False)
        self._single = None
        sources = self._parts.values()
        self.small_reads, self.sequential = all(x.small_reads for x in sources), any(x.sequential for x in sources)
        self.chunk_rows = max(x.chunk_rows for x in sources)

    def read(self, start: int, stop: int, buffer: Array | None = None) -> Array:
        rows = np.empty((stop - start, 1), self.dtype) if buffer is None else buffer[: stop - start]
        for name, x in self._parts.items():
            x.stop = self.stop
            rows[name][:, 0] = x.get(start, stop)
        return rows

    def check(self, row: int, thorough: bool = False) -> None:
        for x in self._parts.values():
            x.check(row, thorough)

    def identity(self) -> dict[str, Any]:
        return {name: x.identity() for name, x in self._parts.items()}

    def operand(self) -> TopKFiles:
        indices, values, *tail = (x.operand() for x in self._parts.values())
        return TopKFiles(indices, values, tail[0] if tail else None, "log_probs" in self._parts)

    @property
    def paths(self) -> list[Path]:
        return [path for x in self._parts.values() for path in x.paths]

    def close(self) -> None:
        for x in self._parts.values():
            x.close()
