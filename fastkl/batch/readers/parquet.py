"""Parquet: a column of a file, or of all files in a folder. Needs pyarrow.

Files are read, not mapped, a few pages at a time, because a row group may be larger than memory. What headers say of sizes
and positions is checked by parquet_headers.py before pyarrow uses it.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Generator, Sequence
from contextlib import closing
from itertools import accumulate
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa

from ...call import Array
from ..formats import FORMATS
from .parquet_files import check_column, choose_column, column_type, opened
from .parquet_headers import check_pages
from .source import Source, Stamp, first_line

_BATCH: Final = 1 << 22  # bytes of rows that are decoded at once
_MOST_VALUES: Final = 1 << 62  # in a column: a larger number is damage
_SAMPLE: Final = 1000  # rows by which the size of other columns is estimated


class _File(NamedTuple):
    """One of the files, and its range among the rows of all files."""

    path: Path
    rows: range
    groups: list[int]  # the number of rows of each row group


class ParquetSource(Source):
    """A column of lists of numbers, or of numbers, of a file or of a folder's files in the order of their names."""

    path: Path
    sequential = True

    def __init__(self, name: str, path: Path, column: str | None) -> None:
        self.name, self.path, self._folder = name, path, path.is_dir()
        self.stamps: list[Stamp] = []
        self._files: list[_File] = []
        self.column, kind = "", None
        start = 0
        for file in self._list():
            self.stamps.append(Stamp(name, file))
            with opened(file) as (_, footer, parquet):
                self.column = column = choose_column(name if not start else str(file), parquet.schema_arrow, column)
                type_ = parquet.schema_arrow.field(column).type
                own = column_type(name, file, type_)
                kind = kind or own
                if own != kind:
                    raise ValueError(f"{file}: column {column!r} has type {type_}: must have that of {self._files[0].path}")
                groups = [group.rows for group in footer.groups]
            stop = start + sum(groups)
            if stop * (own[2] or 1) >= _MOST_VALUES:  # rows, and the length of their lists
                raise ValueError(f"{file}: its footer is damaged: it says that there are {sum(groups)} rows")
            self._files.append(_File(file, range(start, stop), groups))
            start = stop
        assert kind is not None
        dtype, self._lists, width = kind
        if self._lists and width is None:
            width = self._first_length()
        super().__init__(name, (start,) if width is None else (start, width), dtype)
        self._width = 1 if width is None else width  # entries of one row of the column
        self._arrays: Generator[Array] | None = None
        self._row = 0  # of the column, which is read next
        self._rest = np.empty((0, self._width), self.dtype)

    def _list(self) -> list[Path]:
        """The files, in order."""
        if not self._folder:
            return [self.path]
        entries = sorted(x for x in os.listdir(self.path) if not x.startswith(("_", ".")))
        for entry in entries:
            if (self.path / entry).is_dir():
                raise ValueError(f"{self.name}: has the folder {entry} in it: name a folder of files, or one of them")
        files = [self.path / entry for entry in entries if entry.endswith(FORMATS["parquet"].suffixes)]
        if not files:
            raise ValueError(f"{self.name}: is a folder without a .parquet file, and no Zarr array")
        return files

    def _first_length(self) -> int:
        """The length of the first list, which all lists must have."""
        for file in self._files:
            if file.rows:
                with closing(self.batches(file, 0, 1)) as batches:
                    lists = next(batch.column(self.column) for batch in batches if len(batch))
                self._refuse_nulls(file, 0, lists)
                return int(lists.value_lengths()[0].as_py())
        raise ValueError(
            f"{self.name}: has no rows to take the length of its lists from: must have fixed-size lists, or rows"
        )

    def read(self, start: int, stop: int, buffer: Array | None = None) -> Array:
        """The rows. Row groups before the first of them are skipped, unless reading goes on where it ended."""
        each = self.width // self._width  # rows of the column in a row: several where a column is one distribution
        start, stop = start * each, stop * each
        if self._arrays is None or start != self._row:
            self.close()
            self._arrays, self._row = self._from(start), start
        values = np.empty((stop - start, self._width), self.dtype)
        while self._row < stop:
            if not len(self._rest):
                self._rest = next(self._arrays)
            count = min(stop - self._row, len(self._rest))
            values[self._row - start :][:count] = self._rest[:count]
            self._rest, self._row = self._rest[count:], self._row + count
        return values.reshape(-1, self.width)

    def _from(self, start: int) -> Generator[Array]:
        """The rows of the column from `start` on, a batch at a time."""
        step = max(1, _BATCH // (self._width * self.dtype.itemsize))
        for file in self._files:
            if not file.rows or file.rows.stop <= start:
                continue
            group = bisect_right([*accumulate(file.groups)], start - file.rows.start)
            row = sum(file.groups[:group])  # counts from the file's first
            with closing(self.batches(file, group, step)) as batches:
                for batch in batches:
                    skipped = max(0, min(start - file.rows.start - row, len(batch)))
                    if skipped < len(batch):
                        yield self._values(file, row + skipped, batch.column(self.column).slice(skipped))
                    row += len(batch)

    def batches(self, file: _File, first: int, rows: int, columns: Sequence[str] = ()) -> Generator[Any]:
        """Batches of the columns, of at most that many rows, from the row group `first` on."""
        names = list(columns or [self.column])
        row = sum(file.groups[:first])
        with opened(file.path) as (raw, footer, parquet):
            try:
                for i, group in enumerate(footer.groups[first:], first):
                    for chunk in group.chunks:
                        if any(f"{chunk.path}.".startswith(f"{name}.") for name in names):
                            check_pages(raw, chunk)
                    for batch in parquet.iter_batches(rows, row_groups=[i], columns=names, use_threads=False):
                        batch.validate(full=True)  # the code below relies on its lengths
                        yield batch
                        row += len(batch)
                    if row != sum(file.groups[: i + 1]):
                        raise ValueError(f"row group {i} ends before its {group.rows} rows do")
            except Exception as error:  # pyarrow does not document what a damaged file raises
                self.check(file.rows.start + row)  # a change explains more than damage
                place = self._place(file, row)
                raise ValueError(f"{file.path}: is damaged in {place} or after it: {first_line(error)}") from None

    def _values(self, file: _File, row: int, lists: Any) -> Array:
        """Lists or numbers, from `row` of the file on, as an array."""
        self._refuse_nulls(file, row, lists)
        numbers = lists = getattr(lists, "storage", lists)  # of tensors
        if self._lists:
            if not pa.types.is_fixed_size_list(lists.type):
                lengths = lists.value_lengths().to_numpy()
                wrong = np.flatnonzero(lengths != self._width)
                if len(wrong):
                    raise ValueError(
                        f"{file.path}: {self._place(file, row + int(wrong[0]))} has {lengths[wrong[0]]} entries: "
                        f"must have {self._width}, as the first row has"
                    )
            numbers = lists.flatten()
            self._refuse_nulls(file, row, numbers, self._width)
        values: Array = numbers.to_numpy(zero_copy_only=not pa.types.is_boolean(numbers.type))
        return values.reshape(len(lists), self._width)

    def _refuse_nulls(self, file: _File, row: int, values: Any, entries: int = 0) -> None:
        """Raise ValueError for a null among rows, or among entries, of which each row has that many."""
        if values.null_count:
            at, entry = divmod(values.is_null().index(True).as_py(), entries or 1)
            where = self._place(file, row + at) + " is null" + (f" in entry {entry}" if entries else "")
            raise ValueError(f"{file.path}: {where}: fill missing values, or leave their rows out")

    def _place(self, file: _File, row: int) -> str:
        """A row of a file, as messages name it."""
        return f"row {row}" + (f" (row {file.rows.start + row} of all)" if self._folder else "")

    def check(self, row: int, thorough: bool = False) -> None:
        """Compare the files' sizes and times, and the names of the files in a folder."""
        super().check(row)
        if self._folder and self._list() != [file.path for file in self._files]:
            raise ValueError(f"{self.name}: was changed while it was read, at row {row}: it had other files")

    def identity(self) -> dict[str, Any]:
        return super().identity() | {"column": self.column, "names": [file.path.name for file in self._files]}

    def close(self) -> None:
        if self._arrays is not None:
            self._arrays.close()
        self._arrays, self._rest = None, self._rest[:0]

    def fields(self, names: Sequence[str]) -> tuple[list[Any], int]:
        """The fields of other columns, of which all files must have the types, and the estimated bytes of a row of them."""
        fields: dict[str, Any] = {}
        for file in self._files:
            with opened(file.path) as (_, _, parquet):
                schema = parquet.schema_arrow
            for name in names:
                check_column(str(file.path), schema, name)
                own = schema.field(name).remove_metadata()
                first = fields.setdefault(name, own)
                if own.type != first.type:
                    raise ValueError(
                        f"{file.path}: column {name!r} has type {own.type}: must have type {first.type}, "
                        f"as in {self._files[0].path}"
                    )
        with closing(self.tables(names, _SAMPLE)) as tables:
            sample = next(tables, None)
        return [*fields.values()], 1 if not sample else max(1, sample.nbytes // len(sample))

    def tables(self, names: Sequence[str], rows: int) -> Generator[Any]:
        """Tables of other columns, of at most that many rows, from the first row on."""
        for file in self._files:
            with closing(self.batches(file, 0, rows, names)) as batches:
                for batch in batches:
                    yield pa.Table.from_batches([batch]).select(list(names))
