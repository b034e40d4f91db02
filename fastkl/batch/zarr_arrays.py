"""Zarr: arrays in local folders, in chunks, of Zarr 2 or 3; and results as such. Needs zarr 2.18 or later, or 3.

A chunk that is missing is the fill value, so says the format: only a walk over all files tells that one has gone.
"""

from __future__ import annotations

import json
import math
import os
import warnings
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from .sources import Source, Stamp, first_line

try:
    import zarr
except ImportError:
    raise ImportError("Zarr arrays need zarr: pip install 'fastkl[zarr]'") from None

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .._rows import Array

_METADATA: Final = ("zarr.json", ".zarray")
_GROUPS: Final = ("zarr.json", ".zgroup")
_MOST_METADATA: Final = 1 << 24  # bytes: that of a single array is a few hundred
_MOST_CHUNK: Final = 1 << 28  # bytes, decompressed: every thread holds one, and its rows
_CODECS: Final = ("codecs", "filters", "compressor")  # the keys under which metadata has them
_CHUNK: Final = 1 << 17  # values in a chunk that is written
_BLOSC: Final = 16  # bytes of the header of what Blosc compressed; the last four are the length of all of it


if hasattr(zarr.storage, "LocalStore"):

    class _Store(zarr.storage.LocalStore):  # type: ignore[misc]
        """A folder, with a look at its chunks before codecs see them."""

        blosc = False  # whether all that is read from now on are chunks that Blosc made

        async def get(self, key: str, *args: Any, **keywords: Any) -> Any:
            data = await super().get(key, *args, **keywords)
            if self.blosc and data is not None:
                _check_blosc(key, data[:_BLOSC].to_bytes(), len(data))
            return data

    def _store(folder: Path) -> _Store:
        return _Store(os.path.abspath(folder), read_only=True)

else:  # zarr 2

    class _Store(zarr.storage.DirectoryStore):  # type: ignore[misc,no-redef]
        """A folder, with a look at its chunks before codecs see them."""

        blosc = False

        def __getitem__(self, key: str) -> Any:
            data = super().__getitem__(key)
            if self.blosc:
                _check_blosc(key, data[:_BLOSC], len(data))
            return data

    def _store(folder: Path) -> _Store:
        return _Store(os.path.abspath(folder))


def _check_blosc(key: str, header: bytes, size: int) -> None:
    """Blosc believes its header's length, and would read what stands in memory after a chunk that is shorter."""
    length = int.from_bytes(header[12:], "little")
    if length != size or size < _BLOSC:
        raise ValueError(f"chunk {key} has {size} bytes, and says that it has {length}")


class ZarrSource(Source):
    """A Zarr array in a folder, or one of a group in a folder. Several threads may read it at once."""

    def __init__(self, name: str, path: Path, member: str | None) -> None:
        self._path = path
        self._folder = folder = _find(name, path, member)
        metadata, blosc = _metadata(name, path, folder)
        self._stamp = Stamp(name, metadata, metadata.stat())
        self._walked = self._walk()
        self._array = _open(name, folder, blosc)
        try:
            shape = tuple(int(length) for length in self._array.shape)
            chunks = tuple(int(length) for length in self._array.chunks)
            dtype = np.dtype(self._array.dtype)
        except Exception as error:  # zarr has no list of what damaged metadata can end in
            raise ValueError(f"{name}: {metadata.name} is damaged: {first_line(error)}") from None
        if (
            len(chunks) != len(shape)
            or min(shape, default=0) < 0
            or min(chunks, default=1) < 1
            or math.prod(shape) >= 2**62
        ):
            raise ValueError(f"{name}: {metadata.name} is damaged: it has the shape {shape} in chunks of {chunks}")
        super().__init__(name, shape, dtype)
        size = math.prod(chunks) * dtype.itemsize
        if size > _MOST_CHUNK:
            raise ValueError(
                f"{name}: its chunks, of shape {chunks}, take {size} bytes each when they are read: "
                f"rewrite it in chunks of at most {_MOST_CHUNK}"
            )
        self._chunks = chunks
        self.together = min(_rows_of_chunk(shape[:-1], chunks[:-1]), max(1, _MOST_CHUNK // max(1, self.row_bytes)))

    def read(self, start: int, stop: int, buffer: Array | None = None) -> Array:
        """The rows, in as few pieces as their place in the array has."""
        if self.labels:
            return self._piece(tuple(_boxes(start, stop, self.shape)), start, stop)
        boxes = tuple((*box, slice(None)) for box in _boxes(start, stop, self.shape[:-1]))
        return self._piece(boxes, start, stop)

    def _piece(self, boxes: tuple[tuple[slice, ...], ...], start: int, stop: int) -> Array:
        try:
            pieces = [np.asarray(self._array[box]).reshape(-1, self.width) for box in boxes]
        except Exception as error:  # of codecs, any
            self.check(start, thorough=True)  # that it was changed says more
            raise ValueError(f"{self.name}: is damaged in rows {start} to {stop - 1}: {first_line(error)}") from None
        return pieces[0] if len(pieces) == 1 else np.concatenate([np.empty((0, self.width), self.dtype), *pieces])

    def check(self, row: int, thorough: bool = False) -> None:
        """By the metadata's size and time; thoroughly, also by those of all files."""
        self._stamp.check(row)
        if thorough:
            walked = self._walk()
            if walked != self._walked:
                was, now = (f"{x['files']} files of {x['bytes']} bytes" for x in (self._walked, walked))
                raise ValueError(
                    f"{self.name}: was changed while it was read, before row {row}: it had {was} and has {now}"
                )

    def _walk(self) -> dict[str, int]:
        """The number of files, and their sizes and times added up; the latest time."""
        files = size = times = latest = 0
        for folder, _, names in os.walk(self._folder, onerror=_raise):
            for name in names:
                status = os.stat(os.path.join(folder, name))
                files, size = files + 1, size + status.st_size
                times, latest = times + status.st_mtime_ns, max(latest, status.st_mtime_ns)
        return {"files": files, "bytes": size, "mtimes_ns": times, "latest_ns": latest}

    def identity(self) -> dict[str, Any]:
        """Metadata, and the walk."""
        form = {"shape": list(self.shape), "chunks": list(self._chunks), "dtype": self.dtype.str}
        return self._walked | form | {"metadata": self._stamp.identity()}

    def files(self) -> Iterator[Path]:
        """The folder, with all that is in it."""
        yield self._path


def write(path: Path, parts: Iterator[Array], dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
    """An array of the values, or a group with an array a field, in a new folder, in zarr's own format."""
    try:
        if not dtype.names:
            arrays = {"": _create(path, dtype, shape)}
        else:
            zarr.open_group(os.path.abspath(path), mode="w-")
            arrays = {name: _create(path / name, dtype[name], shape) for name in dtype.names}
        start = 0
        for values in parts:
            for name, array in arrays.items():
                _fill(array, start, values[name] if name else values)
            start += len(values)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), error.filename or str(path)) from None


def _fill(array: Any, start: int, values: Array) -> None:
    """Put values into the array, in row order from the entry `start` on."""
    at = 0
    for box in _boxes(start, start + len(values), array.shape):
        lengths = [len(range(*part.indices(n))) for part, n in zip(box, array.shape, strict=True)]
        count = math.prod(lengths)
        array[box] = values[at : at + count].reshape(lengths)
        at += count


def _create(path: Path, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Any:
    """A chunk that got lost would be read as NaN, not as 0."""
    fill = False if dtype.kind == "b" else math.nan
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return zarr.create(shape, chunks=_chunks(shape), dtype=dtype, store=os.path.abspath(path), fill_value=fill)


def _chunks(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Values that follow each other in row order, about `_CHUNK` of them."""
    chunks, room = [], _CHUNK
    for length in reversed(shape):
        chunks.append(max(1, min(length, room)))
        room //= max(1, length)
    return tuple(reversed(chunks))


def _boxes(start: int, stop: int, shape: tuple[int, ...]) -> Iterator[tuple[slice, ...]]:
    """The entries from `start` to `stop` of an array of that shape, in row order, as slices of it."""
    if not shape:
        yield ()
        return
    inner = math.prod(shape[1:])
    while start < stop:
        i, at = divmod(start, inner)
        whole = 0 if at else (stop - start) // inner
        if whole:
            end = start + whole * inner
            yield (slice(i, i + whole), *(slice(0, length) for length in shape[1:]))
        else:
            end = min(stop, (i + 1) * inner)
            yield from ((slice(i, i + 1), *box) for box in _boxes(at, end - i * inner, shape[1:]))
        start = end


def _rows_of_chunk(leading: tuple[int, ...], chunks: tuple[int, ...]) -> int:
    """How many rows that follow each other have chunks of their own."""
    for k, chunk in enumerate(chunks):
        if chunk > 1:
            return min(chunk, max(1, leading[k])) * math.prod(leading[k + 1 :])
    return 1


def _find(name: str, path: Path, member: str | None) -> Path:
    """The folder of the array that is asked for, or of the only one."""
    folder = path if member is None else path / member
    if folder.is_dir() and _is_array(folder):
        return folder
    arrays = [x for x in _arrays(path) if x != path]
    if member is None and len(arrays) == 1:
        return arrays[0]
    names = [x.relative_to(path).as_posix() for x in arrays]
    few = ", ".join(map(repr, names[:20])) + (", ..." if len(names) > 20 else "") if names else "none"
    raise ValueError(f"{name}: name one of its arrays after a colon: it has {few}")


def _arrays(path: Path) -> list[Path]:
    """All arrays in a group and in the groups in it, in the order of their names."""
    found = []
    for folder, folders, _ in os.walk(path):
        here = path / os.path.relpath(folder, path)
        folders.sort()
        if _is_array(here):
            found.append(here)
            folders.clear()  # these hold chunks
    return found


def _is_array(folder: Path) -> bool:
    """Whether metadata does not say that it is a group's. What is damaged is an array's, of which that is said later."""
    if (folder / ".zarray").is_file():
        return True
    file = folder / "zarr.json"
    try:
        return file.is_file() and _json(str(folder), file).get("node_type") != "group"
    except ValueError:
        return True


def _metadata(name: str, path: Path, folder: Path) -> tuple[Path, bool]:
    """The array's metadata, and whether Blosc comes last. Refuses codecs that would run what a file tells them to."""
    for group in folder.parents[: len(folder.relative_to(path).parts)]:
        for entry in _GROUPS:
            if (group / entry).is_file():
                _json(name, group / entry)
    files = [folder / entry for entry in _METADATA if (folder / entry).is_file()]
    last: list[Any] = []
    for file in files:
        metadata = _json(name, file)
        codecs = [metadata.get(key) for key in _CODECS]
        if any("pickle" in text for text in _strings(codecs)):
            raise TypeError(f"{name}: holds pickled objects, which are never read: must hold numbers")
        new, _, compressor = codecs
        last.append(new[-1] if isinstance(new, list) and new else compressor)
    return files[0], any(isinstance(x, dict) and str(x.get("name", x.get("id"))).endswith("blosc") for x in last)


def _json(name: str, file: Path) -> dict[str, Any]:
    size = file.stat().st_size
    if size > _MOST_METADATA:
        raise ValueError(f"{name}: {file.name} has {size} bytes: metadata has at most {_MOST_METADATA}")
    try:
        metadata = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name}: {file.name} is damaged: {first_line(error)}") from None
    if not isinstance(metadata, dict):
        raise ValueError(f"{name}: {file.name} is damaged: it must hold an object")
    return metadata


def _strings(x: Any) -> Iterator[str]:
    if isinstance(x, str):
        yield x.lower()
    for part in x.values() if isinstance(x, dict) else x if isinstance(x, list) else ():
        yield from _strings(part)


def _open(name: str, folder: Path, blosc: bool) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of damaged metadata
            store = _store(folder)
            array = zarr.open_array(store, mode="r")
    except Exception as error:  # see ZarrSource
        raise ValueError(f"{name}: is no Zarr array that can be read: {first_line(error)}") from None
    store.blosc = blosc
    return array


def _raise(error: OSError) -> None:
    raise error
