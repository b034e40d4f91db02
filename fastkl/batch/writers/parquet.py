"""Results as Parquet: a column for each field, after the key columns of the input. Needs pyarrow.

With several models, the columns are named MODEL or MODEL.FIELD.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import repeat
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
from pyarrow import parquet as pq

from ...call import Array
from ..files import naming
from ..output import Write
from ..readers.parquet import ParquetSource
from ..readers.source import Source, first_line
from . import column, columns

VALUE: Final = "value"  # the column of a result that has no fields
GROUP: Final = 1 << 16  # rows of a row group
GROUP_BYTES: Final = 1 << 26  # bytes of keys in a row group, at most, if all rows are as large as the first


def writer(p: Source, keys: Sequence[str], dtype: np.dtype[Any], shape: tuple[int, ...]) -> Write:
    """The function that writes values beside the columns of p that are keys."""
    rows = math.prod(shape)
    paths = {".".join(names) or VALUE: names for names in columns(dtype)}
    names = tuple(paths)
    fields: list[Any] = []
    group = GROUP
    if keys:
        if not isinstance(p, ParquetSource):
            raise ValueError(f"keys: only where p is Parquet, and {p.name} is not")
        if len(p.leading) != 1 or p.rows != rows:
            raise ValueError(f"keys: {p.name} has {p.rows} rows, and the result {rows}: must be as many")
        for key in keys:
            if key in names or list(keys).count(key) > 1:
                raise ValueError(f"keys: {key!r} would be the name of two columns; the values are in {', '.join(names)}")
        fields, size = p.fields(keys)
        group = max(1, min(group, GROUP_BYTES // size))
    kinds = map(pa.from_numpy_dtype, columns(dtype).values())
    schema = pa.schema([*fields, *map(pa.field, names, kinds)])

    def write(path: Path, parts: Iterator[Array]) -> None:
        tables = (
            pa.table({name: np.ascontiguousarray(column(part, names)) for name, names in paths.items()}) for part in parts
        )
        beside = _regrouped(p.tables(keys, group), group) if isinstance(p, ParquetSource) and keys else repeat(pa.table({}))
        try:
            with naming(path), path.open("xb") as file, pq.ParquetWriter(file, schema, write_page_checksum=True) as new:
                for table in _regrouped(tables, group):
                    columns = [*next(beside).columns, *table.columns]
                    new.write_table(pa.table(columns, schema=schema).combine_chunks(), row_group_size=group)
        except pa.ArrowException as error:
            raise OSError(f"{path}: cannot be written: {first_line(error)}") from None
        p.check(rows)

    return write


def _regrouped(tables: Iterable[Any], rows: int) -> Iterator[Any]:
    """The same rows in tables of that many rows each; the last may have fewer."""
    rest = None
    for table in tables:
        rest = table if rest is None else pa.concat_tables([rest, table])
        while len(rest) >= rows:
            yield rest.slice(0, rows)
            rest = rest.slice(rows)
    if rest is not None and len(rest):
        yield rest
