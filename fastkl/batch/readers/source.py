"""What every reader provides: the rows of an array, in row order; arrays in memory; how a change of a file is detected.

Knows nothing of formats, and nothing of what is computed from the rows.
"""

from __future__ import annotations

import contextlib
import math
import os
import threading
import uuid
import warnings
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from ..._kernels import Stop
from ...call import BFLOAT16, Array, read_operand


class Source(ABC):
    """The rows of an array of shape (..., width), in row order. Each reader states how it is read best.

    Reading returns what the file holds, or raises: OSError where the system does not deliver the bytes, ValueError where
    they are damaged or were changed. Messages begin with `name`.
    """

    path: Path | None = None  # the file or folder; None for an array
    stamps: Sequence[Stamp] = ()  # of the files that are read
    chunk_rows = 1  # rows that the format stores in one piece; a part of whole pieces decodes each only once
    is_plain = True  # whether rows are of numbers, as the measures take them
    small_reads = False  # whether reading few rows at a time, into a buffer, is as fast as reading many
    stop: Stop | None = None  # set when the run has ended: a long read then ends with CancelledError
    log_probabilities = False  # whether rows are logarithms of probabilities, whatever the options say
    sequential = False  # whether only one thread may read, and reads fastest from each part to the next

    def __init__(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        if not shape:
            raise ValueError(f"{name} holds a single number: must have at least one axis")
        if dtype == np.dtype("V2"):
            dtype = BFLOAT16  # np.save writes the bfloat16 of ml_dtypes as V2, and no other dtype
        read_operand(name, np.empty(0, dtype))
        self.name = name  # as the user wrote it
        self.shape, self.dtype = shape, dtype
        self.entry_dtype = dtype  # which counts for the dtype of the result
        self.set_labels(False)
        self._single: Array | None = None

    def set_labels(self, are_labels: bool) -> None:
        """Say whether every entry is a row, or the distributions are along the last axis."""
        self.are_labels = are_labels
        self.leading = self.shape if are_labels else self.shape[:-1]  # the shape of the array of rows
        self.rows = math.prod(self.leading)
        self.width = 1 if are_labels else self.shape[-1]  # the number of entries in a row
        self.row_bytes = self.width * self.dtype.itemsize

    def index(self, row: int) -> tuple[int, ...]:
        """The index of a row in the array; a single row serves as every row."""
        row, places = row if self.rows > 1 else 0, list[int]()
        for length in reversed(self.leading):  # np.unravel_index has limits that files do not have
            row, place = divmod(row, length)
            places.insert(0, place)
        return tuple(places)

    @abstractmethod
    def read(self, start: int, stop: int, buffer: Array | None = None) -> Array:
        """Rows as an array of shape (stop - start, width), in the buffer if there is one and the reader can use it."""

    def hold_single_row(self) -> None:
        """Read a source of one row now, so that it can serve as every row."""
        if self.rows == 1:
            self._single = self.read(0, 1)
            self.small_reads, self.sequential, self.chunk_rows = True, False, 1

    def get(self, start: int, stop: int, buffer: Array | None = None) -> Array:
        """The rows as `read` returns them, or the single row, of shape (1, width), which broadcasts."""
        return self.read(start, stop, buffer) if self._single is None else self._single

    def coordinate(self, axis: int) -> Array | None:
        """The names of the indices along an axis, counted from the end; None if the format or the array has none."""
        return None

    def tokens(self) -> Iterator[Array]:
        """The text of which the rows are the distributions, in parts; nothing if the file does not have it."""
        return iter(())

    def note(self) -> dict[str, Any]:
        """What has to be known of how rows were read, at the end of a run: how many `rows`, and a `text`; or nothing."""
        return {}

    def place(self, row: int) -> tuple[int, int] | None:
        """The number of an open file, and where the row begins there; None if rows do not follow each other in one."""
        return None

    def check(self, row: int, thorough: bool = False) -> None:
        """Raise ValueError if a file was changed since it was opened; reading has reached `row`.

        It is called after every part, and must therefore be fast unless it is `thorough`.
        """
        for stamp in self.stamps:
            stamp.check(row)

    def identity(self) -> dict[str, Any]:
        """What distinguishes the input from others, and from itself after a change; JSON can hold it."""
        return {"shape": list(self.shape), "dtype": self.dtype.str, "files": [stamp.identity() for stamp in self.stamps]}

    def operand(self) -> Any:
        """What `open_source` opens the same rows from in another process, whatever its current folder is."""
        if self.path is None:
            raise TypeError(f"{self.name} is an array: workers read files")
        return os.path.abspath(self.name)

    @property
    def paths(self) -> list[Path]:
        """Every file and folder that is read. No result may be written there."""
        return [] if self.path is None else [self.path, *(stamp.path for stamp in self.stamps)]

    def close(self) -> None:  # noqa: B027 - not every reader has something to close
        """Close what is open; nothing is read afterwards."""


class ArraySource(Source):
    """An array in memory. It has no files, so nothing is checked for changes."""

    small_reads = True

    def __init__(self, name: str, values: Any) -> None:
        read_operand(name, values)  # refuses masked entries, which np.asarray would lose
        self._values = np.asarray(values)
        super().__init__(name, self._values.shape, self._values.dtype)

    def read(self, start: int, stop: int, buffer: Array | None = None) -> Array:
        return self._values.reshape(-1, self.width)[start:stop]

    def identity(self) -> dict[str, Any]:
        """A new identity for each run: after an interruption, nothing proves that an array is the same."""
        return {"array": str(uuid.uuid4())}


class Stamp:
    """The size and time of a file when it was opened, against which later ones are compared.

    A file that was only removed is still complete for a process that has it open.
    """

    def __init__(self, name: str, path: Path, file: IO[bytes] | None = None) -> None:
        self._name, self.path, self._file = name, path, file  # the file, if it stays open
        self._was = path.stat() if file is None else os.fstat(file.fileno())
        self.size = self._was.st_size

    def check(self, row: int) -> None:
        """Raise ValueError if the file was changed, or if its name has become another file's."""
        with contextlib.suppress(FileNotFoundError):
            self._compare(row, self.path.stat())
        if self._file is not None:
            self._compare(row, os.fstat(self._file.fileno()))

    def _compare(self, row: int, status: os.stat_result) -> None:
        was, what = self._was, ""
        if status.st_ino != was.st_ino:
            what = "another file has its name"
        elif status.st_size != was.st_size:
            what = f"it had {was.st_size} bytes and has {status.st_size}"
        elif status.st_mtime_ns != was.st_mtime_ns:
            what = f"its time differs by {(status.st_mtime_ns - was.st_mtime_ns) / 1e9:.3g} s"
        if what:
            raise ValueError(f"{self._name}: {self.path.name} was changed while it was read, at row {row}: {what}")

    def identity(self) -> dict[str, Any]:
        """Size and time, as a checkpoint holds them."""
        return {"size": self.size, "mtime_ns": self._was.st_mtime_ns}


_filters = threading.Lock()


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Ignore a library's warnings.

    The filters belong to the process. If two threads changed them at once, one could restore those of the other for ever.
    """
    with _filters, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def first_line(error: Exception) -> str:
    """The message of a library's error, short enough for one line."""
    return (str(error) or type(error).__name__).splitlines()[0][:200]


@contextlib.contextmanager
def damage(what: str, errors: type[Exception] | tuple[type[Exception], ...] = Exception) -> Iterator[None]:
    """Raise a library's errors as ValueError: all, because libraries do not document which ones damaged files cause."""
    try:
        yield
    except errors as error:
        raise ValueError(f"{what}: {first_line(error)}") from None


def choose(name: str, what: str, names: Collection[str], wanted: str | None) -> str:
    """The one of the names that is wanted, or the only one."""
    if wanted is None and len(names) == 1:
        return next(iter(names))
    if wanted is None or wanted not in names:
        raise ValueError(f"{name}: name one of its {what} after a colon: it has {listed(names)}")
    return wanted


def listed(names: Collection[str]) -> str:
    """The first of the names, as messages list them."""
    return ", ".join(map(repr, [*names][:20])) + (", ..." if len(names) > 20 else "") if names else "none"
