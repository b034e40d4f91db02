"""What Parquet's headers say of sizes and places, read without pyarrow, which believes them.

For a page that says it has 2 GB, it clears as much memory, wherever the file ends; of columns whose statistics are damaged
it cannot be asked where they are without ending the process. The headers are structs of Thrift's compact protocol:
parquet.thrift in github.com/apache/parquet-format has the numbers of the fields, thrift-compact-protocol.md in
github.com/apache/thrift the protocol. Knows nothing of what the pages hold.
"""

from __future__ import annotations

import os
from typing import IO, Any, Final, NamedTuple

from .sources import first_line

_MAGIC: Final = b"PAR1"
_TAIL: Final = 8  # bytes at a file's end: the footer's length, and the magic
_PEEK: Final = 512  # bytes in which a page's header most likely ends
_MOST_HEADER: Final = 1 << 24  # bytes: pyarrow's own limit
_SLACK: Final = 100  # bytes that pages may have beyond their chunk: of a dictionary's header, which some writers forgot
_DEEPEST: Final = 64  # structs and lists in each other; the footer needs less than 10


class Chunk(NamedTuple):
    """A column in a row group: its name, with those of what is in it, and where its pages are."""

    path: str
    start: int
    size: int
    unpacked: int


class Group(NamedTuple):
    """A row group."""

    rows: int
    chunks: list[Chunk]


class Footer(NamedTuple):
    """What is at a file's end; `size` is its own."""

    size: int
    groups: list[Group]


def read_footer(name: str, file: IO[bytes]) -> Footer:
    """The footer, of which all sizes and places are possible ones; ValueError if they are not."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _TAIL))
    tail = file.read(_TAIL)
    length = int.from_bytes(tail[:4], "little")
    if size < len(_MAGIC) + _TAIL or tail[4:] != _MAGIC:
        raise ValueError(f"{name}: is no Parquet file, or is truncated: it does not end as one")
    end = size - _TAIL - length
    if end < len(_MAGIC):
        raise ValueError(f"{name}: its footer says that it is {length} bytes long, and the file has {size}")
    file.seek(end)
    try:
        fields = _Reader(file.read(length)).struct()
        groups = [Group(group[3], [_chunk(chunk[3], end) for chunk in group[1]]) for group in fields[4]]
        rows = [group.rows for group in groups]
        if min(rows, default=0) < 0 or sum(rows) != fields[3]:
            raise ValueError(f"its row groups have {rows[:20]} rows, and all of it {fields[3]}")
    except EOFError:
        raise ValueError(f"{name}: its footer is damaged: it does not end") from None
    except Exception as error:  # a field may be missing, or of any type
        raise ValueError(f"{name}: its footer is damaged: {first_line(error)}") from None
    return Footer(length, groups)


def _chunk(fields: dict[int, Any], end: int) -> Chunk:
    path = ".".join(part.decode("utf-8", "replace") for part in fields[3])
    data, dictionary = fields[9], fields.get(11, 0)
    start = min((x for x in (data, dictionary) if x), default=len(_MAGIC))  # 0 is none: of a dictionary, or of any row
    unpacked, size = fields[6], fields[7]
    if start < len(_MAGIC) or size < 0 or unpacked < 0 or start + size > end:
        raise ValueError(f"column {path!r} is at {start} to {start + size}, not before {end}")
    return Chunk(path, start, size, unpacked)


def check_pages(file: IO[bytes], chunk: Chunk) -> None:
    """ValueError if a page says that it is larger than the chunk that it is in."""
    place, end = chunk.start, chunk.start + chunk.size
    while place < end:
        fields, length = _page(file, place)
        unpacked, size = fields.get(2), fields.get(3)
        left = end - place - length + _SLACK
        if (
            type(unpacked) is not int
            or type(size) is not int
            or not 0 <= size <= left
            or not 0 <= unpacked <= chunk.unpacked
        ):
            raise ValueError(
                f"the page at {place} of column {chunk.path!r} says that it is {size} bytes long, {unpacked} unpacked"
            )
        place += length + size


def _page(file: IO[bytes], place: int) -> tuple[dict[int, Any], int]:
    """A page's header, and how long it is."""
    length = _PEEK
    while True:
        file.seek(place)
        data = file.read(length)
        reader = _Reader(data)
        try:
            return reader.struct(), reader.place
        except EOFError:
            if len(data) < length or length > _MOST_HEADER:
                raise ValueError(f"the page header at {place} does not end") from None
            length *= 8


class _Reader:
    """Values of the protocol, one after the other. EOFError where the data ends before they do."""

    def __init__(self, data: bytes) -> None:
        self._data, self.place, self._depth = data, 0, 0

    def struct(self) -> dict[int, Any]:
        """Values by their fields' numbers."""
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
        if kind == 7:
            return self._bytes(8)
        if kind == 8:
            return self._bytes(self._unsigned())
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
        if count > len(self._data) - self.place:  # each takes a byte at least
            raise EOFError
        return [self._value(head & 15) for _ in range(count)]

    def _bytes(self, count: int) -> bytes:
        found = self._data[self.place : self.place + count]
        if len(found) < count:
            raise EOFError
        self.place += count
        return found

    def _unsigned(self) -> int:
        value = shift = 0
        while True:
            byte = self._bytes(1)[0]
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7
            if shift > 63:
                raise ValueError("it has a number of more than 64 bits")

    def _integer(self) -> int:
        value = self._unsigned()
        return (value >> 1) ^ -(value & 1)
