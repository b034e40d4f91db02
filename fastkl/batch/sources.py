"""Rows from files: what a reader of a format promises, and which reader a name asks for.

Knows nothing of what is computed from the rows. A format is a module beside this one, with a subclass of `Source`.
"""

from __future__ import annotations

import contextlib
import math
import os
import uuid
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

import numpy as np

from .. import _rows

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .._rows import Array

_MAGIC: Final = {b"\x93NUMPY": "npy", b"PK": "npz", b"PAR1": "parquet"}
_SUFFIXES: Final = {".npy": "npy", ".npz": "npz", ".parquet": "parquet", ".pq": "parquet"}
_ZARR: Final = ("zarr.json", ".zarray", ".zgroup")


class Source(ABC):
    """The rows of an array of shape (..., width), in row order. Instances of a format say how they are best read.

    Reading gives what was in the file, or raises: OSError where the system does not give the bytes, ValueError where they
    are not what they should be. The message begins with `name`.
    """

    name: str  # as the user wrote it
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    labels: bool = False  # whether an entry is a row: else the last axis is the distributions'
    together: int = 1  # rows that the format keeps in one piece: it is best to read whole ones
    in_blocks: ClassVar[bool] = False  # whether few rows at a time, into a buffer, are as quick as many
    ordered: ClassVar[bool] = False  # whether only one thread may read, and parts after each other are quicker

    def __init__(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        if not shape:
            raise ValueError(f"{name} holds a single number: must have at least one axis")
        if not shape[-1]:
            raise ValueError(f"{name} has shape {shape}: its last axis, that of the distributions, must not be empty")
        if dtype == np.dtype("V2"):
            dtype = _rows.BFLOAT16  # what np.save makes of the bfloat16 of ml_dtypes; nothing else has this form
        _rows._operand(name, np.empty(0, dtype))
        self.name, self.shape, self.dtype = name, shape, dtype

    @property
    def leading(self) -> tuple[int, ...]:
        """The shape that the rows make up."""
        return self.shape if self.labels else self.shape[:-1]

    @property
    def rows(self) -> int:
        """How many there are."""
        return math.prod(self.leading)

    @property
    def width(self) -> int:
        """Entries in a row."""
        return 1 if self.labels else self.shape[-1]

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return self.width * self.dtype.itemsize

    def index(self, row: int) -> tuple[int, ...]:
        """Where the row stands in the array."""
        return tuple(int(i) for i in np.unravel_index(row, self.leading))

    @abstractmethod
    def read(self, start: int, stop: int, buffer: Array | None = None) -> Array:
        """Rows as an array of shape (stop - start, width), which may stand in the buffer, of that many rows or more."""

    @abstractmethod
    def check(self, row: int, thorough: bool = False) -> None:
        """ValueError if the file is not as it was when it was opened; `row` is where reading has come to.

        Quick, for it is asked after each part, unless it is to be thorough.
        """

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """What tells the file from others and from itself after a change, as JSON has it."""

    @abstractmethod
    def files(self) -> Iterator[Path]:
        """All that is read, none of which may be written to."""

    def close(self) -> None:  # noqa: B027 - some have nothing to do
        """Nothing more will be read."""


class ArraySource(Source):
    """An array in memory."""

    in_blocks = True

    def __init__(self, name: str, values: Any) -> None:
        _rows._operand(name, values)  # refuses what np.asarray would lose
        self._values = np.asarray(values)
        super().__init__(name, self._values.shape, self._values.dtype)

    def read(self, start: int, stop: int, buffer: Array | None = None) -> Array:
        """A view."""
        return self._values.reshape(-1, self.width)[start:stop]

    def check(self, row: int, thorough: bool = False) -> None:
        """It is the caller's."""

    def identity(self) -> dict[str, Any]:
        """Another one each time: whether it is the same array after an interruption, nobody knows."""
        return {"array": str(uuid.uuid4())}

    def files(self) -> Iterator[Path]:
        """None."""
        return iter(())


class OneRow(Source):
    """The only row of another source, read once: it is what every range of rows reads."""

    in_blocks = True

    def __init__(self, source: Source) -> None:
        super().__init__(source.name, source.shape, source.dtype)
        self.labels, self.source, self._row = source.labels, source, source.read(0, 1)

    def index(self, row: int) -> tuple[int, ...]:
        """That of the row, whichever is asked for."""
        return super().index(0)

    def read(self, start: int, stop: int, buffer: Array | None = None) -> Array:
        """The row, of shape (1, width): it broadcasts."""
        return self._row

    def check(self, row: int, thorough: bool = False) -> None:
        """As the source does."""
        self.source.check(row, thorough)

    def identity(self) -> dict[str, Any]:
        """The source's."""
        return self.source.identity()

    def files(self) -> Iterator[Path]:
        """The source's."""
        return self.source.files()

    def close(self) -> None:
        """Close the source."""
        self.source.close()


def open_source(name: str, source: Any) -> Source:
    """A reader for what the argument `name` has: a path, with a member's name after a colon, or an array."""
    if isinstance(source, Source):
        return source
    if not isinstance(source, (str, os.PathLike)):
        return ArraySource(name, source)
    text = os.fspath(source)
    path, member = _split(text)
    kind = _kind(path)
    # Only the format that is asked for is imported, for most need a library.
    if kind == "npy":
        from .npy import NpySource

        if member is not None:
            raise ValueError(f"{text}: a .npy file has no members")
        return NpySource(text, path)
    if kind == "npz":
        from .npy import NpzSource

        return NpzSource(text, path, member)
    if kind == "parquet":
        from .parquet import ParquetSource

        return ParquetSource(text, path, member)
    from .zarr_arrays import ZarrSource

    return ZarrSource(text, path, member)


def _split(text: str) -> tuple[Path, str | None]:
    """The path, and the name after the last colon if the path is not all of it."""
    if not os.path.exists(text):
        path, colon, member = text.rpartition(":")
        if colon and os.path.exists(path):
            return Path(path), member
        raise FileNotFoundError(2, os.strerror(2), text)
    return Path(text), None


def _kind(path: Path) -> str:
    if path.is_dir():
        return "zarr" if path.suffix == ".zarr" or any((path / file).exists() for file in _ZARR) else "parquet"
    if not path.is_file():
        raise ValueError(f"{path}: must be a file or a folder; a pipe cannot be read twice")
    kind = _SUFFIXES.get(path.suffix)
    if kind is None:
        with path.open("rb") as file:
            start = file.read(8)
        kind = next((kind for magic, kind in _MAGIC.items() if start.startswith(magic)), None)
    if kind is None:
        raise ValueError(f"{path}: is none of .npy, .npz, Parquet and Zarr")
    return kind


class Stamp:
    """What a file's size and time were; says when they no longer are, or when its name has become another file's.

    A file that was only removed is still whole for who has it open.
    """

    def __init__(self, name: str, path: Path, status: os.stat_result) -> None:
        self._name, self._path, self._was = name, path, status

    def check(self, row: int, status: os.stat_result | None = None) -> None:
        """ValueError if the file, of that status if it is open, is not as it was."""
        with contextlib.suppress(FileNotFoundError):
            self._compare(row, self._path.stat())
        if status is not None:
            self._compare(row, status)

    def _compare(self, row: int, status: os.stat_result) -> None:
        was, what = self._was, ""
        if status.st_ino != was.st_ino:
            what = "another file has its name"
        elif status.st_size != was.st_size:
            what = f"it had {was.st_size} bytes and has {status.st_size}"
        elif status.st_mtime_ns != was.st_mtime_ns:
            what = f"its time is another by {(status.st_mtime_ns - was.st_mtime_ns) / 1e9:.3g} s"
        if what:
            raise ValueError(f"{self._name}: {self._path.name} was changed while it was read, at row {row}: {what}")

    def identity(self) -> dict[str, Any]:
        """Size and time, for a checkpoint."""
        return {"size": self._was.st_size, "mtime_ns": self._was.st_mtime_ns}


def first_line(error: Exception) -> str:
    """What an error of a library says, short enough for a line."""
    lines = str(error).splitlines()
    return lines[0][:200] if lines else type(error).__name__
