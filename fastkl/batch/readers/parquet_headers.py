"""Sizes and positions in Parquet's headers, read and checked without pyarrow, which does not check them.

For a page that claims 2 GB, pyarrow clears 2 GB of memory, wherever the file ends; where the statistics of a column are
damaged, a query for the column's position ends the process. The headers are structs of Thrift's compact protocol:
parquet.thrift in github.com/apache/parquet-format has the numbers of the fields, thrift-compact-protocol.md in
github.com/apache/thrift the protocol. Knows nothing of what the pages hold.
"""

from __future__ import annotations

import os
from typing import IO, Any, Final, NamedTuple

from .source import damage

_MAGIC: Final = b"PAR1"
_TAIL: Final = 8  # bytes at a file's end: the footer's length, and the magic
_MOST_HEADER: Final = 1 << 24  # bytes of a page's header: pyarrow's own limit
_SLACK: Final = 100  # bytes that pages may extend beyond their chunk: some writers did not count a dictionary's header
_DEEPEST: Final = 64  # nested structs and lists; the footer needs less than 10


class Chunk(NamedTuple):
    """A column in a row group: its name, with those of nested fields, and the position and size of its pages."""

    path: str
    start: int
    size: int
    unpacked: int


class Group(NamedTuple):
    """A row group."""

    rows: int
    chunks: list[Chunk]


class Footer(NamedTuple):
    """The footer of a file; `size` is its own length."""

    size: int
    groups: list[Group]


def read_footer(name: str, file: IO[bytes]) -> Footer:
    """The footer; ValueError if a size or position in it is impossible."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _TAIL))
    tail = file.read(_TAIL)
    length = int.from_bytes(tail[:4], "little")
    if size < len(_MAGIC) + _TAIL or tail[4:] != _MAGIC:
        raise ValueError(f"{name}: is no Parquet file, or is truncated: it does not end as one")
    end = size - _TAIL - length
    if end < len(_MAGIC):
        raise ValueError(f"{name}: its footer says that it is {length} bytes long, and the file has {size}")
    with damage(f"{name}: its footer is damaged"):  # a field may be missing, or have any type
        fields = _Reader(file, end, length).struct()
        groups = [Group(group[3], [_chunk(chunk[3], end) for chunk in group[1]]) for group in fields[4]]
        rows = [group.rows for group in groups]
        if min(rows, default=0) < 0 or sum(rows) != fields[3]:
            raise ValueError(f"its row groups have {rows[:20]} rows, and all of it {fields[3]}")
    return Footer(length, groups)


def _chunk(fields: dict[int, Any], end: int) -> Chunk:
    path = ".".join(part.decode("utf-8", "replace") for part in fields[3])
    data, dictionary = fields[9], fields.get(11, 0)
    start = min((x for x in (data, dictionary) if x), default=len(_MAGIC))  # 0: no dictionary, or no row
    unpacked, size = fields[6], fields[7]
    if start < len(_MAGIC) or size < 0 or unpacked < 0 or start + size > end:
        raise ValueError(f"column {path!r} is at {start} to {start + size}, not before {end}")
    return Chunk(path, start, size, unpacked)


def check_pages(file: IO[bytes], chunk: Chunk) -> None:
    """Raise ValueError if a page claims to be larger than its chunk."""
    position, end = chunk.start, chunk.start + chunk.size
    while position < end:
        fields, length = page_header(file, position)
        unpacked: Any = fields.get(2)  # as the size, it may be missing or have another type
        size: Any = fields.get(3)
        limits = ((unpacked, chunk.unpacked), (size, end - position - length + _SLACK))
        if not all(type(x) is int and 0 <= x <= most for x, most in limits):
            raise ValueError(
                f"the page at {position} of column {chunk.path!r} says that it is {size} bytes long, {unpacked} unpacked"
            )
        position += length + size


def page_header(file: IO[bytes], position: int) -> tuple[dict[int, Any], int]:
    """The header of the page at that position, and its length."""
    try:
        return _Reader(file, position, _MOST_HEADER).struct(), file.tell() - position
    except EOFError:
        raise ValueError(f"the page header at {position} does not end") from None


class _Reader:
    """Reads the values of the protocol one after the other; EOFError after `most` bytes, and where the file ends."""

    def __init__(self, file: IO[bytes], start: int, most: int) -> None:
        file.seek(start)
        self._file, self._left, self._depth = file, most, 0

    def struct(self) -> dict[int, Any]:
        """The values, by the numbers of their fields."""
        fields: dict[int, Any] = {}
        number = 0
        while head := self._bytes(1)[0]:
            number = number + (head >> 4) if head >> 4 else self._integer()
            kind = head & 15
            fields[number] = kind == 1 if kind in (1, 2) else self._value(kind)
        return fields

    def _value(self, kind: int) -> Any:
        if kind in (1, 2, 3):  # a bool here is one in a list
            return self._bytes(1)[0]
        if kind in (4, 5, 6):
            return self._integer()
        if kind in (7, 8):
            return self._bytes(8 if kind == 7 else self._unsigned())
        if kind not in (9, 10, 12):
            raise ValueError(f"no field is of type {kind}")
        self._depth += 1
        if self._depth > _DEEPEST:
            raise ValueError(f"it is more than {_DEEPEST} deep")
        value = self.struct() if kind == 12 else self._list()
        self._depth -= 1
        return value

    def _list(self) -> list[Any]:
        head = self._bytes(1)[0]
        count = head >> 4 if head >> 4 < 15 else self._unsigned()
        if count > self._left:  # each takes a byte at least
            raise EOFError("it does not end")
        return [self._value(head & 15) for _ in range(count)]

    def _bytes(self, count: int) -> bytes:
        self._left -= count
        found = self._file.read(count) if self._left >= 0 else b""
        if len(found) < count:
            raise EOFError("it does not end")
        return found

    def _unsigned(self) -> int:
        value = 0
        for shift in range(0, 64, 7):
            byte = self._bytes(1)[0]
            value |= (byte & 127) << shift
            if byte < 128:
                return value
        raise ValueError("it has a number of more than 64 bits")

    def _integer(self) -> int:
        value = self._unsigned()
        return (value >> 1) ^ -(value & 1)
