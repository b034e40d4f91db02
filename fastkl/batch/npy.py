"""NumPy's own files: .npy, and the members of .npz. Needs nothing but NumPy.

Files are read, not mapped: a mapped file that someone shortens ends the process (SIGBUS). Pickled objects are refused.
"""

from __future__ import annotations

import contextlib
import io
import lzma
import math
import os
import threading
import warnings
import zipfile
import zlib
from typing import IO, TYPE_CHECKING, Any, Final

import numpy as np

from .sources import Source, Stamp, first_line

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .._rows import Array

_LENGTH_BYTES: Final = {(1, 0): 2, (2, 0): 4}  # of the header's length; version 3.0 is for the names of fields
_DAMAGE: Final = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError)  # what decompression raises
_MOST_DEFLATED: Final = 1032  # bytes that deflate can make of one: 258 by each 2 bits
_AHEAD: Final = 1 << 25  # bytes that the system is asked to read ahead: what two threads read next
_MOST_HEADER: Final = 10_000  # NumPy's own limit: a longer one could exhaust the parser
_MOST_AXES, _MOST_BYTES = 64, 2**63 - 1  # NumPy's, too; an axis of length 0 does not count
_RAW: Final = np.dtype("V2")  # what np.save makes of the bfloat16 of ml_dtypes


def read_header(name: str, file: IO[bytes], size: int) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """Shape, whether in Fortran order, dtype, and where the data begins; all checked against the file's size."""
    try:
        version = np.lib.format.read_magic(file)
    except ValueError:
        raise ValueError(f"{name}: is no .npy file: it does not begin as one") from None
    if version not in _LENGTH_BYTES:
        raise ValueError(f"{name}: is a .npy file of version {version[0]}.{version[1]}: must be 1.0 or 2.0")
    width = _LENGTH_BYTES[version]
    length = int.from_bytes(file.read(width), "little")
    offset = 8 + width + length
    if offset > size:
        raise ValueError(f"{name}: is truncated in its header, which ends at byte {offset}: the file has {size}")
    if length > _MOST_HEADER:
        raise ValueError(f"{name}: its header is damaged: it has {length} bytes, {_MOST_HEADER} at most make sense")
    text = file.read(length)
    read = np.lib.format.read_array_header_1_0 if width == 2 else np.lib.format.read_array_header_2_0
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the parser, on damaged text
            shape, fortran, dtype = read(io.BytesIO(length.to_bytes(width, "little") + text))
    except Exception as error:  # which ones a parser can end in is not documented
        raise ValueError(f"{name}: its header is damaged: {first_line(error)}") from None
    if dtype.hasobject:
        raise TypeError(f"{name}: holds pickled objects, which are never read: must hold numbers")
    if dtype.subdtype is not None or (dtype == _RAW and b">V2" in text):  # NumPy forgets that a bfloat16 was big-endian
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
    """What an error tells of a shape that may come of damage; not all integers can be printed."""
    lengths = [repr(n) if n.bit_length() < 64 else "a huge number" for n in shape[:4]]
    return f"({', '.join(lengths)}{',' if len(shape) == 1 else ', ...' if len(shape) > 4 else ''})"


class NpySource(Source):
    """A .npy file."""

    in_blocks = True

    def __init__(self, name: str, path: Path) -> None:
        self._path = path
        self._file = path.open("rb", buffering=0)
        try:
            status = os.fstat(self._file.fileno())
            self._stamp = Stamp(name, path, status)
            try:
                shape, fortran, dtype, self._offset = read_header(name, self._file, status.st_size)
            except OSError as error:
                raise OSError(error.errno, error.strerror, name) from None
            super().__init__(name, shape, dtype)
            self._columns = fortran and len(shape) > 1
            if self._columns:
                if len(shape) > 2:
                    raise ValueError(f"{name}: holds {len(shape)} axes in Fortran order: save np.ascontiguousarray of it")
                self.in_blocks = False  # type: ignore[misc]  # a column's part should be worth a read of its own
        except BaseException:
            self._file.close()
            raise
        self._lock = threading.Lock()  # for systems that cannot read at a place

    def read(self, start: int, stop: int, buffer: Array | None = None) -> Array:
        """The rows, in the buffer; those of a file in Fortran order as a view of columns."""
        count, itemsize = stop - start, self.dtype.itemsize
        if self._columns:
            columns = np.empty((self.width, count), self.dtype)
            for j in range(self.width):
                self._fill(columns[j], self._offset + (j * self.rows + start) * itemsize, start)
            return columns.T
        values = np.empty((count, self.width), self.dtype) if buffer is None else buffer[:count]
        self._fill(values, self._offset + start * self.row_bytes, start)
        return values

    def _fill(self, values: Array, place: int, row: int) -> None:
        """Bytes from a place in the file; reads may give fewer than asked for."""
        view = values.reshape(-1).view(np.uint8).data
        while view:
            try:
                count = self._read(view, place)
            except OSError as error:
                raise OSError(error.errno, f"{error.strerror}, in row {row}", self.name) from None
            if not count:
                self.check(row)
                raise ValueError(f"{self.name}: ends before row {row} does")
            view, place = view[count:], place + count

    def _read(self, view: memoryview, place: int) -> int:
        """How many bytes were read. Where the system has to go to the disk, it is to go on to what is wanted next."""
        if not hasattr(os, "preadv"):
            with self._lock:
                self._file.seek(place)
                return self._file.readinto(view) or 0
        file = self._file.fileno()
        if hasattr(os, "RWF_NOWAIT"):
            with contextlib.suppress(OSError):  # it is not in memory, or this file system cannot tell
                return os.preadv(file, [view], place, os.RWF_NOWAIT)
            with contextlib.suppress(OSError):  # it is but advice
                os.posix_fadvise(file, place, _AHEAD, os.POSIX_FADV_WILLNEED)
        return os.preadv(file, [view], place)

    def check(self, row: int, thorough: bool = False) -> None:
        """By size and time of the open file, and by its name."""
        self._stamp.check(row, os.fstat(self._file.fileno()))

    def identity(self) -> dict[str, Any]:
        """Size, time and header."""
        header = {"shape": list(self.shape), "dtype": self.dtype.str, "fortran": self._columns, "offset": self._offset}
        return self._stamp.identity() | header

    def files(self) -> Iterator[Path]:
        """The one."""
        yield self._path

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class NpzSource(Source):
    """A member of a .npz archive, which is read from its beginning to its end."""

    ordered = True

    def __init__(self, name: str, path: Path, member: str | None) -> None:
        self._path = path
        raw = path.open("rb")
        try:
            status = os.fstat(raw.fileno())
            self._stamp = Stamp(name, path, status)
            self._raw, self._archive = raw, _archive(name, raw)
            self._info = self._find(name, member, status.st_size)
            self._restart(name)
            shape, fortran, dtype, self._offset = self._header(name)
            super().__init__(name, shape, dtype)
            if fortran and len(shape) > 1:
                raise ValueError(f"{name}: is in Fortran order, which an archive cannot be read in: save it as a .npy file")
        except BaseException:
            raw.close()
            raise
        self._row = 0  # where the file stands

    def _find(self, name: str, member: str | None, size: int) -> zipfile.ZipInfo:
        """The member that is asked for, or the only one. Its sizes have to be possible."""
        members = {info.filename.removesuffix(".npy"): info for info in self._archive.infolist()}
        if member is None and len(members) == 1:
            member = next(iter(members))
        if member is None or member not in members:
            few = ", ".join(map(repr, list(members)[:20])) + (", ..." if len(members) > 20 else "")
            raise ValueError(f"{name}: name one of its members after a colon: it has {few or 'none'}")
        info = members[member]
        packed, unpacked = info.compress_size, info.file_size
        most = {zipfile.ZIP_STORED: packed, zipfile.ZIP_DEFLATED: _MOST_DEFLATED * packed}.get(info.compress_type, math.inf)
        if packed > size or unpacked > most:
            raise ValueError(f"{name}: is damaged: {unpacked} bytes cannot be {packed} of the {size} in the file")
        return info

    def _restart(self, name: str) -> None:
        try:
            self._file: Any = self._archive.open(self._info)
        except Exception as error:  # see _archive
            raise ValueError(f"{name}: cannot be read: {first_line(error)}") from None

    def _header(self, name: str) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
        try:
            return read_header(name, self._file, self._info.file_size)
        except _DAMAGE as error:
            raise ValueError(f"{name}: its header is damaged: {first_line(error)}") from None

    def read(self, start: int, stop: int, buffer: Array | None = None) -> Array:
        """The rows; going back begins anew."""
        if start < self._row:
            self._file.close()
            self._restart(self.name)
            self._row = 0
            self._take(memoryview(bytearray(self._offset)), 0)
        while self._row < start:
            self._next(min(start, self._row + max(1, (1 << 20) // self.row_bytes)))
        return self._next(stop)

    def _next(self, stop: int) -> Array:
        values = np.empty((stop - self._row, self.width), self.dtype)
        self._take(values.reshape(-1).view(np.uint8).data, self._row)
        self._row = stop
        return values

    def _take(self, view: memoryview, row: int) -> None:
        while view:
            try:
                count = self._file.readinto(view)
            except _DAMAGE as error:
                raise ValueError(f"{self.name}: is damaged in row {row} or after it: {first_line(error)}") from None
            if not count:
                raise ValueError(f"{self.name}: ends before row {row} does")
            view = view[count:]

    def check(self, row: int, thorough: bool = False) -> None:
        """By size and time of the open archive."""
        self._stamp.check(row, os.fstat(self._raw.fileno()))

    def identity(self) -> dict[str, Any]:
        """Size and time of the archive, the header and the check sum of the member."""
        header = {"shape": list(self.shape), "dtype": self.dtype.str, "crc": self._info.CRC}
        return self._stamp.identity() | {"member": self._info.filename} | header

    def files(self) -> Iterator[Path]:
        """The archive."""
        yield self._path

    def close(self) -> None:
        """Close the archive."""
        self._file.close()
        self._archive.close()
        self._raw.close()


def _archive(name: str, raw: IO[bytes]) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(raw)
    except Exception as error:  # which ones a damaged archive can end in is not documented
        raise ValueError(f"{name}: is no .npz archive: {first_line(error)}") from None
