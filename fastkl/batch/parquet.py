"""Parquet: a column of a file, or of the files of a folder, and results beside the input's key columns. Needs pyarrow.

Files are read, not mapped, a few pages at a time: a row group may be larger than memory. What headers say of sizes and
places is checked by parquet_headers.py before pyarrow makes anything of it.
"""

from __future__ import annotations

import os
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from .parquet_headers import Footer, check_pages, read_footer
from .sources import OneRow, Source, Stamp, first_line

try:
    import pyarrow as pa
    from pyarrow import parquet as pq
except ImportError:
    raise ImportError("Parquet files need pyarrow: pip install 'fastkl[parquet]'") from None

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Sequence

    from .._rows import Array
    from .output import Write

VALUE: Final = "value"  # the column of a result, where it has no fields with names of their own
_SUFFIXES: Final = (".parquet", ".pq")
_BATCH: Final = 1 << 22  # bytes of rows that are decoded at once
_BUFFER: Final = 1 << 20  # bytes of a column that are read at once
_GROUP: Final = 1 << 16  # rows of a row group that is written
_GROUP_BYTES: Final = 1 << 26  # and no more than so many bytes of keys, of average rows
_MOST_VALUES: Final = 1 << 62  # in a column: more are damage
_SAMPLE: Final = 1000  # rows of keys by which the others are judged
_FEWEST: Final = 1000  # entries that any list in a footer may have, however short the footer
_FILL: Final = "fill missing values, or leave their rows out"


class _Column(NamedTuple):
    """What a column holds."""

    dtype: np.dtype[Any]
    width: int | None  # of its lists, if their type says so
    lists: bool


class _File(NamedTuple):
    """One of the files, and which of all rows are its own."""

    path: Path
    stamp: Stamp
    rows: range
    groups: list[int]  # rows of each row group


class ParquetSource(Source):
    """A column of a file, or of a folder's files in the order of their names: lists of numbers, or numbers."""

    ordered = True

    def __init__(self, name: str, path: Path, column: str | None) -> None:
        self.name, self._path, self._folder = name, path, path.is_dir()
        self._files: list[_File] = []
        self.column, kind = "", None
        start = 0
        for file in self._list(name):
            stamp = Stamp(name, file, file.stat())
            with _opened(file) as opened:
                schema = _schema(file, opened)
                self.column = column = _choose(name if not start else str(file), schema, column)
                own = _kind(name, file, schema.field(column).type)
                kind = own if kind is None else kind
                if own != kind:
                    raise ValueError(
                        f"{file}: column {column!r} has type {schema.field(column).type}: "
                        f"must have that of {self._files[0].path}"
                    )
                groups = [group.rows for group in opened.footer.groups]
                stop = start + sum(groups)
                if stop * (own.width or 1) >= _MOST_VALUES:
                    raise ValueError(f"{file}: its footer is damaged: it says that there are {sum(groups)} rows")
                self._files.append(_File(file, stamp, range(start, stop), groups))
                start = stop
        assert kind is not None
        self._rows, self._width, self._lists, self.dtype = start, 1, kind.lists, kind.dtype
        width = self._first_length(name) if kind.lists and kind.width is None else kind.width
        super().__init__(name, (start,) if width is None else (start, width), kind.dtype)
        self._width = 1 if width is None else width  # entries of a row of the column, whatever makes a row here
        self._arrays: Iterator[Array] | None = None
        self._row = 0  # where it stands, in rows of the column
        self._rest = np.empty((0, self._width), self.dtype)

    def _list(self, name: str) -> list[Path]:
        """The files, in order."""
        if not self._folder:
            return [self._path]
        entries = sorted(x for x in os.listdir(self._path) if not x.startswith(("_", ".")))
        for entry in entries:
            if (self._path / entry).is_dir():
                raise ValueError(f"{name}: has the folder {entry} in it: name a folder of files, or one of them")
        files = [self._path / entry for entry in entries if entry.endswith(_SUFFIXES)]
        if not files:
            raise ValueError(f"{name}: is a folder without a .parquet file, and no Zarr array")
        return files

    def _first_length(self, name: str) -> int:
        """The length of the first list, which is that of all."""
        for file in self._files:
            if file.rows:
                with _opened(file.path) as opened, closing(self._batches(file, opened, 0, 1)) as batches:
                    lists = next((batch.column(self.column) for batch in batches if len(batch)), None)
                if lists is None:
                    raise ValueError(f"{file.path}: ends before row 0 does")
                self._refuse_nulls(file, 0, lists)
                return int(lists.value_lengths()[0].as_py())
        raise ValueError(
            f"{name}: has no rows, of which to see how long its lists are: must be lists of fixed size, or have rows"
        )

    def read(self, start: int, stop: int, buffer: Array | None = None) -> Array:
        """The rows, after those read before, or from anywhere: then the row groups before them are left out."""
        each = self.width // self._width  # rows of the column in a row: all, of numbers that are one distribution
        start, stop = start * each, stop * each
        if self._arrays is None or start != self._row:
            self._leave()
            self._arrays, self._row = self._from(start), start
        values = np.empty((stop - start, self._width), self.dtype)
        while self._row < stop:
            if not len(self._rest):
                self._rest = next(self._arrays)
            count = min(stop - self._row, len(self._rest))
            values[self._row - start :][:count] = self._rest[:count]
            self._rest, self._row = self._rest[count:], self._row + count
        return values.reshape(-1, self.width)

    def _from(self, start: int) -> Iterator[Array]:
        """The rows from `start` on, a batch at a time."""
        step = max(1, _BATCH // (self._width * self.dtype.itemsize))
        for file in self._files:
            if not file.rows or file.rows.stop <= start:
                continue
            group, row = 0, 0  # row: in the file
            while file.rows.start + row + file.groups[group] <= start:
                row += file.groups[group]
                group += 1
            with _opened(file.path) as opened, closing(self._batches(file, opened, group, step)) as batches:
                for batch in batches:
                    skipped = max(0, min(start - file.rows.start - row, len(batch)))
                    if skipped < len(batch):
                        yield self._values(file, row + skipped, batch.column(self.column).slice(skipped))
                    row += len(batch)

    def _batches(self, file: _File, opened: _Opened, first: int, rows: int, columns: Sequence[str] = ()) -> Generator[Any]:
        """So many rows of the columns at a time, at most, from a row group on."""
        names = list(columns or [self.column])
        row = sum(file.groups[:first])
        try:
            for i, group in enumerate(opened.footer.groups[first:], first):
                for chunk in group.chunks:
                    if any(f"{chunk.path}.".startswith(f"{name}.") for name in names):
                        check_pages(opened.file, chunk)
                for batch in opened.parquet.iter_batches(rows, row_groups=[i], columns=names, use_threads=False):
                    batch.validate(full=True)  # what follows trusts its lengths
                    yield batch
                    row += len(batch)
                if row != sum(file.groups[: i + 1]):
                    raise ValueError(f"row group {i} ends before its {group.rows} rows do")
        except Exception as error:  # pyarrow has no list of what a damaged file can end in
            self.check(file.rows.start + row)  # that it was changed says more
            raise ValueError(
                f"{file.path}: is damaged in {self._place(file, row)} or after it: {first_line(error)}"
            ) from None

    def _values(self, file: _File, row: int, lists: Any) -> Array:
        """Rows of the file from `row` on as an array."""
        self._refuse_nulls(file, row, lists)
        numbers = lists
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
            if numbers.null_count:
                at, entry = divmod(numbers.is_null().index(True).as_py(), self._width)
                raise ValueError(f"{file.path}: {self._place(file, row + at)} is null in entry {entry}: {_FILL}")
        values: Array = numbers.to_numpy(zero_copy_only=not pa.types.is_boolean(numbers.type))
        return values.reshape(len(lists), self._width)

    def _refuse_nulls(self, file: _File, row: int, lists: Any) -> None:
        if lists.null_count:
            raise ValueError(
                f"{file.path}: {self._place(file, row + lists.is_null().index(True).as_py())} is null: {_FILL}"
            )

    def _place(self, file: _File, row: int) -> str:
        """A row of a file, in words."""
        return f"row {row}" + (f" (row {file.rows.start + row} of all)" if self._folder else "")

    def _leave(self) -> None:
        """Close the file that is being read."""
        if self._arrays is not None:
            self._arrays.close()  # type: ignore[attr-defined]  # a generator
        self._arrays, self._rest = None, self._rest[:0]

    def check(self, row: int, thorough: bool = False) -> None:
        """By the files' sizes and times, and the folder's list of them."""
        for file in self._files:
            file.stamp.check(row)
        if self._folder and self._list(self.name) != [file.path for file in self._files]:
            raise ValueError(f"{self.name}: was changed while it was read, at row {row}: it had other files")

    def identity(self) -> dict[str, Any]:
        """Every file's name, size and time; the column."""
        files = [{"name": file.path.name} | file.stamp.identity() for file in self._files]
        return {"column": self.column, "shape": list(self.shape), "dtype": self.dtype.str, "files": files}

    def files(self) -> Iterator[Path]:
        """The file, or the folder with all that is in it."""
        yield self._path
        yield from (file.path for file in self._files if self._folder)

    def close(self) -> None:
        """Close the file that is being read."""
        self._leave()

    def fields(self, names: Sequence[str]) -> tuple[list[Any], int]:
        """Other columns, which all files must have with one type, and how many bytes a row of them has, about."""
        fields: list[Any] = []
        for file in self._files:
            with _opened(file.path) as opened:
                schema = _schema(file.path, opened)
            for name in names:
                _check_there(str(file.path), schema, name)
            own = [schema.field(name).remove_metadata() for name in names]
            fields = fields or own
            for first, other in zip(fields, own, strict=True):
                if other.type != first.type:
                    raise ValueError(
                        f"{file.path}: column {other.name!r} has type {other.type}: must have type {first.type}, "
                        f"as in {self._files[0].path}"
                    )
        with closing(self.tables(names, _SAMPLE)) as tables:
            sample = next(tables, None)
        return fields, 1 if not sample else max(1, sample.nbytes // len(sample))

    def tables(self, names: Sequence[str], rows: int) -> Generator[Any]:
        """Other columns from the first row on, so many rows at a time, at most."""
        for file in self._files:
            with _opened(file.path) as opened, closing(self._batches(file, opened, 0, rows, names)) as batches:
                for batch in batches:
                    yield pa.Table.from_batches([batch]).select(list(names))


def writer(p: Source, keys: Sequence[str], dtype: np.dtype[Any], rows: int) -> Write:
    """What writes `rows` values as Parquet: a column a field, or one named `value`, after those of p that are keys."""
    names = dtype.names or (VALUE,)
    fields: list[Any] = []
    group = _GROUP
    source = p.source if isinstance(p, OneRow) else p
    if keys:
        if not isinstance(source, ParquetSource):
            raise ValueError(f"keys: only where p is Parquet, and {p.name} is not")
        if len(source.leading) != 1 or source.rows != rows:
            raise ValueError(f"keys: {p.name} has {source.rows} rows, and the result {rows}: must be as many")
        for key in keys:
            if key in names or list(keys).count(key) > 1:
                raise ValueError(f"keys: {key!r} would be the name of two columns; the values are in {', '.join(names)}")
        fields, size = source.fields(keys)
        group = max(1, min(group, _GROUP_BYTES // size))
    schema = pa.schema([*fields, *(pa.field(name, _arrow(dtype[name] if dtype.names else dtype)) for name in names)])

    def write(path: Path, parts: Iterator[Array], dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
        values = _regrouped((_table(names, part) for part in parts), group)
        beside = _regrouped(source.tables(keys, group), group) if isinstance(source, ParquetSource) and keys else None
        try:
            with path.open("xb") as file, pq.ParquetWriter(file, schema, write_page_checksum=True) as new:
                for table in values:
                    columns = table.columns
                    if beside is not None:
                        columns = [*next(beside).columns, *columns]
                    new.write_table(pa.table(columns, schema=schema).combine_chunks(), row_group_size=group)
        except pa.ArrowException as error:
            raise OSError(f"{path}: cannot be written: {first_line(error)}") from None
        except OSError as error:
            raise OSError(error.errno, error.strerror or str(error), error.filename or str(path)) from None
        p.check(rows)

    return write


def _arrow(dtype: np.dtype[Any]) -> Any:
    return pa.from_numpy_dtype(dtype)


def _table(names: Sequence[str], values: Array) -> Any:
    columns = [np.ascontiguousarray(values[name]) for name in names] if values.dtype.names else [values]
    return pa.table([pa.array(column) for column in columns], names=list(names))


def _regrouped(tables: Iterable[Any], rows: int) -> Iterator[Any]:
    """The same rows, so many in every table but the last."""
    rest = None
    for table in tables:
        rest = table if rest is None else pa.concat_tables([rest, table])
        while len(rest) >= rows:
            yield rest.slice(0, rows)
            rest = rest.slice(rows)
    if rest is not None and len(rest):
        yield rest


class _Opened(NamedTuple):
    """A file: as bytes, as pyarrow has it, and its footer."""

    file: IO[bytes]
    parquet: Any
    footer: Footer


@contextmanager
def _opened(path: Path) -> Iterator[_Opened]:
    """The file. Sizes in the footer are limited by its own size, so that no damage asks for memory."""
    with path.open("rb") as file:
        footer = read_footer(str(path), file)
        try:
            parquet = pq.ParquetFile(
                pa.OSFile(str(path)),
                pre_buffer=False,
                buffer_size=_BUFFER,
                # A string in the footer is no longer than that, and what a list there has takes 4 bytes each, or more.
                thrift_string_size_limit=max(1, footer.size),
                thrift_container_size_limit=max(_FEWEST, footer.size // 4),
                page_checksum_verification=True,
            )
        except Exception as error:  # see _batches
            raise ValueError(f"{path}: its footer is damaged: {first_line(error)}") from None
        try:
            yield _Opened(file, parquet, footer)
        finally:
            parquet.close(force=True)


def _schema(path: Path, opened: _Opened) -> Any:
    try:
        schema = opened.parquet.schema_arrow
        str(schema)  # raises for names that are no text
    except Exception as error:
        raise ValueError(f"{path}: its schema is damaged: {first_line(error)}") from None
    return schema


def _choose(name: str, schema: Any, column: str | None) -> str:
    """The column that is asked for, or the only one that it can be."""
    if column is not None:
        _check_there(name, schema, column)
        return column
    names = schema.names
    lists = [field.name for field in schema if _is_list(field.type)]
    for only in (lists, names):
        if len(only) == 1:
            return str(only[0])
    raise ValueError(f"{name}: name one of its columns after a colon: it has {_few(names)}")


def _check_there(name: str, schema: Any, column: str) -> None:
    count = schema.names.count(column)
    if count != 1:
        what = f"{count} columns" if count else "no column"
        raise ValueError(f"{name}: has {what} {column!r}: it has {_few(schema.names)}")


def _few(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:20])) + (", ..." if len(names) > 20 else "") if names else "none"


def _is_list(kind: Any) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _kind(name: str, path: Path, kind: Any) -> _Column:
    lists = _is_list(kind)
    numbers = kind.value_type if lists else kind
    if not (pa.types.is_floating(numbers) or pa.types.is_integer(numbers) or pa.types.is_boolean(numbers)):
        raise TypeError(f"{name}: {path.name} has a column of type {kind}: must be lists of numbers, or numbers")
    width = kind.list_size if pa.types.is_fixed_size_list(kind) else None
    return _Column(np.dtype(numbers.to_pandas_dtype()), width, lists)
