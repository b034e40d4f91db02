"""Sources of one open file: bytes from a position in it, and arrays whose rows follow each other in it.

Files are read, not mapped: if a mapped file is shortened, the process ends (SIGBUS). Knows nothing of headers.
"""

from __future__ import annotations

import contextlib
import math
import os
import threading
from abc import abstractmethod
from concurrent.futures import CancelledError
from pathlib import Path
from typing import IO, Any, Final

import numpy as np

from ...call import Array
from ..files import naming
from .source import Source, Stamp

_AHEAD: Final = 1 << 25  # bytes that the system reads ahead: those that two threads read next
_ONCE: Final = 1 << 25  # bytes of one read, of which each takes some milliseconds
_MOST_AXES, _MOST_BYTES = 64, 2**63 - 1  # NumPy's limits; an axis of length 0 does not count


class FileSource(Source):
    """An array in a file that stays open. Several threads may read it at once."""

    path: Path

    def __init__(self, name: str, path: Path, file: IO[bytes] | None = None) -> None:
        self.path = path
        self._file: Any = path.open("rb", buffering=0) if file is None else file
        self._lock = threading.Lock()  # for systems that cannot read at a given position
        try:
            if file is None:
                self.stamps = [Stamp(name, path, self._file)]
            with naming(name):
                size = os.fstat(self._file.fileno()).st_size
                shape, dtype = self.read_header(name, self._file, size)
            super().__init__(name, shape, dtype)
        except BaseException:
            self._file.close()
            raise

    @abstractmethod
    def read_header(self, name: str, file: IO[bytes], size: int) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """Shape and dtype, checked against the file's size. What else the header says is kept for reading."""

    def fill(self, values: Array, position: int, row: int) -> None:
        """Fill the array from a position in the file, where `row` is; one read may deliver fewer bytes than requested."""
        view = values.reshape(-1).view(np.uint8).data
        while view:
            if self.stop is not None and self.stop.is_set():
                raise CancelledError
            try:
                count = self._read(view[:_ONCE], position)
            except OSError as error:
                raise OSError(error.errno, f"{error.strerror}, in row {row}", self.name) from None
            if not count:
                self.check(row)
                raise ValueError(f"{self.name}: ends before row {row} does")
            view, position = view[count:], position + count

    def _read(self, view: memoryview, position: int) -> int:
        """The number of bytes that were read. If they come from the disk, the system reads on ahead of them."""
        if not hasattr(os, "preadv"):
            with self._lock:
                self._file.seek(position)
                return self._file.readinto(view) or 0
        file = self._file.fileno()
        if hasattr(os, "RWF_NOWAIT"):
            with contextlib.suppress(OSError):  # the data is not in memory, or this file system cannot tell
                return os.preadv(file, [view], position, os.RWF_NOWAIT)
            with contextlib.suppress(OSError):  # only advice
                os.posix_fadvise(file, position, _AHEAD, os.POSIX_FADV_WILLNEED)
        return os.preadv(file, [view], position)

    def close(self) -> None:
        self._file.close()


class FlatSource(FileSource):
    """An array in C order, of which a file has the bytes from `offset` on."""

    small_reads = True
    offset: int  # set by read_header

    def read(self, start: int, stop: int, buffer: Array | None = None) -> Array:
        count = stop - start
        values = np.empty((count, self.width), self.dtype) if buffer is None else buffer[:count]
        self.fill(values, self.offset + start * self.row_bytes, start)
        return values

    def place(self, row: int) -> tuple[int, int] | None:
        return self._file.fileno(), self.offset + row * self.row_bytes

    def identity(self) -> dict[str, Any]:
        return super().identity() | {"offset": self.offset}


def check_shape(name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """Raise ValueError for the shape of a header if NumPy has no such arrays."""
    if any(type(n) is not int or n < 0 for n in shape):
        raise ValueError(f"{name} has the shape {short(shape)}: must be of non-negative integers")
    if len(shape) > _MOST_AXES or math.prod(filter(None, shape)) * dtype.itemsize > _MOST_BYTES:
        raise ValueError(f"{name} has the shape {short(shape)}: NumPy has no such arrays")


def short(shape: tuple[int, ...]) -> str:
    """A shape for a message; a damaged one may have many lengths, and integers too large to be printed."""
    lengths = [repr(n) if type(n) is not int or n.bit_length() < 64 else "a huge number" for n in shape[:4]]
    return f"({', '.join(lengths)}{',' if len(shape) == 1 else ', ...' if len(shape) > 4 else ''})"
