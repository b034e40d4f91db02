"""Members of NumPy's .npz archives. They are compressed or not, and can only be read from the beginning to the end."""

from __future__ import annotations

import contextlib
import lzma
import math
import tempfile
import zipfile
import zlib
from pathlib import Path
from typing import Any, Final

import numpy as np

from ...call import Array
from ..files import naming
from .npy import NpySource, read_header
from .source import Source, Stamp, choose, damage

_DAMAGE: Final = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError)  # what decompression raises
_MOST_DEFLATED: Final = 1032  # bytes that one byte of deflate can hold: 258 for 2 bits
_SKIPPED: Final = 1 << 20  # bytes that are skipped at once


class NpzSource(Source):
    """A member of a .npz archive."""

    sequential = True

    path: Path
    _unpacked: NpySource | None = None  # a member that cannot be read from the beginning to the end

    def __init__(self, name: str, path: Path, member: str | None) -> None:
        self.path = path
        self._raw = path.open("rb")
        try:
            stamp = Stamp(name, path, self._raw)
            self.stamps = [stamp]
            with damage(f"{name}: is no .npz archive"):
                self._archive = zipfile.ZipFile(self._raw)
            self._info = self._find(name, member, stamp.size)
            self._restart(name)
            with damage(f"{name}: its header is damaged", _DAMAGE):
                shape, fortran, dtype, self._offset = read_header(name, self._file, self._info.file_size)
            super().__init__(name, shape, dtype)
            self._row = 0  # the next row of the open member
            if fortran and len(shape) > 1:
                self._unpacked = self._unpack()
        except BaseException:
            self._raw.close()
            raise

    def _find(self, name: str, member: str | None, size: int) -> zipfile.ZipInfo:
        """The member of that name, or the only one, if its sizes are possible."""
        infos = self._archive.infolist()
        members = {info.filename.removesuffix(".npy"): info for info in infos}
        info = members[choose(name, "members", members, member)]
        packed, unpacked = info.compress_size, info.file_size
        most = {zipfile.ZIP_STORED: packed, zipfile.ZIP_DEFLATED: _MOST_DEFLATED * packed}.get(info.compress_type, math.inf)
        if packed > size or unpacked > most:
            raise ValueError(f"{name}: is damaged: {unpacked} bytes cannot be {packed} of the {size} in the file")
        # Of two members at one offset, some versions of zipfile only warn, and others say nothing.
        place = range(info.header_offset, info.header_offset + packed)
        if sum(other.header_offset in place for other in infos) > 1:
            raise ValueError(
                f"{name}: is damaged: another member begins in the bytes {place.start} to {place.stop - 1} of this"
            )
        return info

    def _restart(self, name: str) -> None:
        with damage(f"{name}: cannot be read"):
            self._file: Any = self._archive.open(self._info)

    def _unpack(self) -> NpySource:
        """The member as a file of its own, without a name: in Fortran order, the entries of a row are far apart."""
        self._restart(self.name)
        with contextlib.ExitStack() as stack:
            with naming(f"{self.name}, unpacked to {tempfile.gettempdir()}"):
                file = stack.enter_context(tempfile.TemporaryFile(buffering=0))
                for start in range(0, self._info.file_size, _SKIPPED):
                    part = memoryview(bytearray(min(_SKIPPED, self._info.file_size - start)))
                    self._fill(part, max(0, start - self._offset) // max(1, self.row_bytes))
                    file.write(part)
                file.seek(0)
            source = NpySource(self.name, self.path, None, file)
            stack.pop_all()
        self.sequential, self.small_reads, self.chunk_rows = False, source.small_reads, source.chunk_rows
        return source

    def set_labels(self, are_labels: bool) -> None:
        super().set_labels(are_labels)
        if self._unpacked is not None:
            self._unpacked.set_labels(are_labels)

    def read(self, start: int, stop: int, buffer: Array | None = None) -> Array:
        """The rows; for a row before the last one read, reading begins again."""
        if self._unpacked is not None:
            return self._unpacked.read(start, stop, buffer)
        if start < self._row:
            self._file.close()
            self._restart(self.name)
            self._row = 0
            self._fill(memoryview(bytearray(self._offset)), 0)
        while self._row < start:
            self._next(min(start, self._row + max(1, _SKIPPED // self.row_bytes)))
        return self._next(stop)

    def _next(self, stop: int) -> Array:
        values = np.empty((stop - self._row, self.width), self.dtype)
        self._fill(values.reshape(-1).view(np.uint8).data, self._row)
        self._row = stop
        return values

    def _fill(self, view: memoryview, row: int) -> None:
        with damage(f"{self.name}: is damaged in row {row} or after it", _DAMAGE):
            count = self._file.readinto(view)  # fills it, unless the member ends
        if count < len(view):
            raise ValueError(f"{self.name}: ends before row {row} does")

    def identity(self) -> dict[str, Any]:
        return super().identity() | {"member": self._info.filename, "crc": self._info.CRC}

    def close(self) -> None:
        if self._unpacked is not None:
            self._unpacked.close()
        self._file.close()
        self._archive.close()
        self._raw.close()
