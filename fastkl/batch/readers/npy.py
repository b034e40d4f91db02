"""NumPy's .npy files, and the header that members of .npz archives have, too. Needs nothing but NumPy.

Files are read, not mapped: if a mapped file is shortened, the process ends (SIGBUS). Pickled objects are refused.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import threading
from concurrent.futures import CancelledError
from pathlib import Path
from typing import IO, Any, Final

import numpy as np

from ...call import Array
from ..files import naming
from .source import Source, Stamp, damage, quietly

# By version, the bytes of the header's length, and what parses it. Version 3.0 is 2.0 with other names of fields, which no
# file that is read here has.
_VERSIONS: Final = {
    (1, 0): (2, np.lib.format.read_array_header_1_0),
    (2, 0): (4, np.lib.format.read_array_header_2_0),
    (3, 0): (4, np.lib.format.read_array_header_2_0),
}
_AHEAD: Final = 1 << 25  # bytes that the system reads ahead: those that two threads read next
_ONCE: Final = 1 << 25  # bytes of one read, of which each takes some milliseconds
_MOST_HEADER: Final = 10_000  # NumPy's own limit: a longer one could exhaust the parser
_MOST_AXES, _MOST_BYTES = 64, 2**63 - 1  # NumPy's limits; an axis of length 0 does not count
_RAW: Final = np.dtype("V2")  # np.save writes the bfloat16 of ml_dtypes so


def read_header(name: str, file: IO[bytes], size: int) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """Shape, whether in Fortran order, dtype, and where the data begins; all are checked against the file's size."""
    try:
        version = np.lib.format.read_magic(file)
    except ValueError:
        raise ValueError(f"{name}: is no .npy file: it does not begin as one") from None
    if version not in _VERSIONS:
        raise ValueError(f"{name}: is a .npy file of version {version[0]}.{version[1]}: must be 1.0, 2.0 or 3.0")
    width, read = _VERSIONS[version]
    length = int.from_bytes(file.read(width), "little")
    offset = 8 + width + length
    if offset > size:
        raise ValueError(f"{name}: is truncated in its header, which ends at byte {offset}: the file has {size}")
    if length > _MOST_HEADER:
        raise ValueError(f"{name}: its header is damaged: it has {length} bytes, more than {_MOST_HEADER}")
    text = file.read(length)
    with damage(f"{name}: its header is damaged"), quietly():  # the parser warns of damaged text
        shape, fortran, dtype = read(io.BytesIO(length.to_bytes(width, "little") + text))
    if dtype.hasobject:
        raise TypeError(f"{name}: holds pickled objects, which are never read: must hold numbers")
    if dtype.subdtype is not None or (dtype == _RAW and b">V2" in text):  # NumPy drops the byte order of V2
        raise TypeError(f"{name}: is of {'big-endian bfloat16' if dtype == _RAW else dtype}, which is never read")
    if any(type(n) is not int or n < 0 for n in shape):
        raise ValueError(f"{name}: its header has the shape {_short(shape)}: must be of non-negative integers")
    if len(shape) > _MOST_AXES or math.prod(filter(None, shape)) * dtype.itemsize > _MOST_BYTES:
        raise ValueError(f"{name}: its header has the shape {_short(shape)}: NumPy has no such arrays")
    wanted = offset + math.prod(shape) * dtype.itemsize
    if wanted > size:
        row_bytes = dtype.itemsize * math.prod(shape[-1:])
        where = "" if fortran else f" in row {(size - offset) // row_bytes}"
        raise ValueError(
            f"{name}: is truncated{where}: shape {_short(shape)} of {dtype} takes {wanted} bytes, the file has {size}"
        )
    if wanted < size:
        raise ValueError(
            f"{name}: has {size - wanted} bytes after its {wanted} of shape {_short(shape)} and {dtype}: "
            "is it still being written, or does it hold several arrays?"
        )
    return shape, fortran, dtype, offset


def _short(shape: tuple[int, ...]) -> str:
    """A shape for a message; a damaged one may have many lengths, and integers too large to be printed."""
    lengths = [repr(n) if n.bit_length() < 64 else "a huge number" for n in shape[:4]]
    return f"({', '.join(lengths)}{',' if len(shape) == 1 else ', ...' if len(shape) > 4 else ''})"


class NpySource(Source):
    """A .npy file."""

    small_reads = True

    def __init__(self, name: str, path: Path, member: str | None, unpacked: IO[bytes] | None = None) -> None:
        if member is not None:
            raise ValueError(f"{name}: a .npy file has no members")
        self.path = path
        self._file: Any = path.open("rb", buffering=0) if unpacked is None else unpacked
        try:
            if unpacked is None:
                self.stamps = [Stamp(name, path, self._file)]
            with naming(name):
                size = os.fstat(self._file.fileno()).st_size
                shape, fortran, dtype, self._offset = read_header(name, self._file, size)
            super().__init__(name, shape, dtype)
            # Axes of length 1 have no order. In Fortran order, the file holds the columns of a matrix, which has a row for
            # each index of the first axis: the entries at all other indices, of which the first changes fastest.
            self._axes = [n for n in shape[:-1] if n != 1] + [shape[-1]]
            self._columns = fortran and len(self._axes) > 1
            if self._columns:
                self.chunk_rows = max(1, math.prod(self._axes[1:-1]))
                self.small_reads = False  # each column is read on its own, and must be worth that
        except BaseException:
            self._file.close()
            raise
        self._lock = threading.Lock()  # for systems that cannot read at a given position

    def read(self, start: int, stop: int, buffer: Array | None = None) -> Array:
        if self._columns:
            return self._read_columns(start, stop)
        count = stop - start
        values = np.empty((count, self.width), self.dtype) if buffer is None else buffer[:count]
        self._fill(values, self._offset + start * self.row_bytes, start)
        return values

    def _read_columns(self, start: int, stop: int) -> Array:
        """The rows, from the part of each column that has them; of an array of two axes, a view of these parts."""
        length, *others = self._axes
        each = math.prod(others) // self.width  # rows for each index of the first axis
        first, last = start // each, -(-stop // each)
        columns = np.empty((math.prod(others), last - first), self.dtype)
        for j, column in enumerate(columns):
            self._fill(column, self._offset + (j * length + first) * self.dtype.itemsize, start)
        rows = columns.reshape(*others[::-1], last - first).T
        return rows.reshape(-1, self.width)[start - first * each : stop - first * each]

    def place(self, row: int) -> tuple[int, int] | None:
        return None if self._columns else (self._file.fileno(), self._offset + row * self.row_bytes)

    def _fill(self, values: Array, position: int, row: int) -> None:
        """Fill the array from a position in the file; one read may deliver fewer bytes than were requested."""
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

    def identity(self) -> dict[str, Any]:
        return super().identity() | {"fortran": self._columns, "offset": self._offset}

    def close(self) -> None:
        self._file.close()
