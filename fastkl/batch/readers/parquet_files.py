"""Parquet files, opened with what their footers allow; their columns, found by name and checked by type."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
import pyarrow as pa
from pyarrow import parquet as pq

from .parquet_headers import Footer, read_footer
from .source import choose, damage, listed

_BUFFER: Final = 1 << 20  # bytes of a column that are read at once
_FEWEST: Final = 1000  # entries that every list in a footer may have, however short the footer is


@contextmanager
def opened(path: Path) -> Iterator[tuple[IO[bytes], Footer, Any]]:
    """The file as bytes, its footer, and the file as pyarrow reads it.

    Sizes in the footer are limited by the footer's own, so that damage cannot demand much memory.
    """
    with path.open("rb") as file:
        footer = read_footer(str(path), file)
        with damage(f"{path}: its footer is damaged"):
            parquet = pq.ParquetFile(
                pa.OSFile(str(path)),
                pre_buffer=False,
                buffer_size=_BUFFER,
                # No string in the footer is longer than the footer, and an entry of a list takes 4 bytes or more.
                thrift_string_size_limit=max(1, footer.size),
                thrift_container_size_limit=max(_FEWEST, footer.size // 4),
                page_checksum_verification=True,
            )
        try:
            with damage(f"{path}: its schema is damaged"):
                str(parquet.schema_arrow)  # raises for names that are not text
            yield file, footer, parquet
        finally:
            parquet.close(force=True)


def choose_column(name: str, schema: Any, column: str | None) -> str:
    """The column of that name, or without a name the only column of lists, or the only column."""
    if column is not None:
        check_column(name, schema, column)
        return column
    lists = [field.name for field in schema if _is_list(field.type)]
    return choose(name, "columns", lists if len(lists) == 1 else schema.names, None)


def check_column(name: str, schema: Any, column: str) -> None:
    """Raise ValueError unless the schema has exactly one column of that name."""
    count = schema.names.count(column)
    if count != 1:
        what = f"{count} columns" if count else "no column"
        raise ValueError(f"{name}: has {what} {column!r}: it has {listed(schema.names)}")


def column_type(name: str, path: Path, column: Any) -> tuple[np.dtype[Any], bool, int | None]:
    """The dtype of a column of numbers or of lists of numbers, whether it has lists, and their length if the type says it.

    TypeError for any other column.
    """
    kind, lists = _storage_type(column), _is_list(column)
    numbers = kind.value_type if lists else kind
    if not (pa.types.is_floating(numbers) or pa.types.is_integer(numbers) or pa.types.is_boolean(numbers)):
        raise TypeError(f"{name}: {path.name} has a column of type {column}: must be lists of numbers, or numbers")
    width = kind.list_size if pa.types.is_fixed_size_list(kind) else None
    return np.dtype(numbers.to_pandas_dtype()), lists, width


def _storage_type(kind: Any) -> Any:
    """The lists that a column of tensors of one axis is stored as. Any other type is its own."""
    return kind.storage_type if isinstance(kind, pa.FixedShapeTensorType) and len(kind.shape) == 1 else kind


def _is_list(kind: Any) -> bool:
    kind = _storage_type(kind)
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))
