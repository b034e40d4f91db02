"""NumPy's .npy files, and the header that members of .npz archives have, too. Needs nothing but NumPy.

Pickled objects are refused.
"""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import IO, Any, Final

import numpy as np

from ...call import Array
from .flat import FlatSource, check_shape, short
from .source import damage, quietly

# By version, the bytes of the header's length, and what parses it. Version 3.0 is 2.0 with other names of fields, which no
# file that is read here has.
_VERSIONS: Final = {
    (1, 0): (2, np.lib.format.read_array_header_1_0),
    (2, 0): (4, np.lib.format.read_array_header_2_0),
    (3, 0): (4, np.lib.format.read_array_header_2_0),
}
_MOST_HEADER: Final = 10_000  # NumPy's own limit: a longer one could exhaust the parser
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
    check_shape(f"{name}: its header", shape, dtype)
    wanted = offset + math.prod(shape) * dtype.itemsize
    if wanted > size:
        row_bytes = dtype.itemsize * math.prod(shape[-1:])
        where = "" if fortran else f" in row {(size - offset) // row_bytes}"
        raise ValueError(
            f"{name}: is truncated{where}: shape {short(shape)} of {dtype} takes {wanted} bytes, the file has {size}"
        )
    if wanted < size:
        raise ValueError(
            f"{name}: has {size - wanted} bytes after its {wanted} of shape {short(shape)} and {dtype}: "
            "is it still being written, or does it hold several arrays?"
        )
    return shape, fortran, dtype, offset


class NpySource(FlatSource):
    """A .npy file."""

    def __init__(self, name: str, path: Path, member: str | None, unpacked: IO[bytes] | None = None) -> None:
        if member is not None:
            raise ValueError(f"{name}: a .npy file has no members")
        super().__init__(name, path, unpacked)
        # Axes of length 1 have no order. In Fortran order, the file holds the columns of a matrix, which has a row for
        # each index of the first axis: the entries at all other indices, of which the first changes fastest.
        self._axes = [n for n in self.shape[:-1] if n != 1] + [self.shape[-1]]
        self._columns = self._fortran and len(self._axes) > 1
        if self._columns:
            self.chunk_rows = max(1, math.prod(self._axes[1:-1]))
            self.small_reads = False  # each column is read on its own, and must be worth that

    def read_header(self, name: str, file: IO[bytes], size: int) -> tuple[tuple[int, ...], np.dtype[Any]]:
        shape, self._fortran, dtype, self.offset = read_header(name, file, size)
        return shape, dtype

    def read(self, start: int, stop: int, buffer: Array | None = None) -> Array:
        return self._read_columns(start, stop) if self._columns else super().read(start, stop, buffer)

    def _read_columns(self, start: int, stop: int) -> Array:
        """The rows, from the part of each column that has them; of an array of two axes, a view of these parts."""
        length, *others = self._axes
        each = math.prod(others) // self.width  # rows for each index of the first axis
        first, last = start // each, -(-stop // each)
        columns = np.empty((math.prod(others), last - first), self.dtype)
        for j, column in enumerate(columns):
            self.fill(column, self.offset + (j * length + first) * self.dtype.itemsize, start)
        rows = columns.reshape(*others[::-1], last - first).T
        return rows.reshape(-1, self.width)[start - first * each : stop - first * each]

    def place(self, row: int) -> tuple[int, int] | None:
        return None if self._columns else super().place(row)

    def identity(self) -> dict[str, Any]:
        return super().identity() | {"fortran": self._columns}
