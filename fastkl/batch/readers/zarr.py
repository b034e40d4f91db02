"""Zarr arrays in local folders, of the formats 2 and 3. Needs zarr 2.18 or later, or 3.

In this format a missing chunk means the fill value. Only a walk over all files shows that a chunk was removed.
"""

from __future__ import annotations

import base64
import contextlib
import json
import math
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import zarr

from ...call import Array
from .source import Source, Stamp, choose, damage, first_line, quietly

_MOST_METADATA: Final = 1 << 24  # bytes: those of a single array are a few hundred
_MOST_CHUNK: Final = 1 << 28  # bytes, decompressed: every thread holds a chunk, and its rows
_MOST_COORDINATES: Final = 1 << 22  # names along an axis that are compared
_BLOSC: Final = 16  # bytes of the header that Blosc writes; the last four are the length of the chunk


if hasattr(zarr.storage, "LocalStore"):

    class _Store(zarr.storage.LocalStore):  # type: ignore[misc]  # zarr is untyped here
        """A folder, whose chunks are checked before codecs read them."""

        blosc = False  # whether everything that is read from now on is a chunk that Blosc made

        async def get(self, key: str, *args: Any, **keywords: Any) -> Any:
            data = await super().get(key, *args, **keywords)
            if self.blosc and data is not None:
                _check_blosc(key, data[:_BLOSC].to_bytes(), len(data))
            return data

    _READ: dict[str, Any] = {"read_only": True}

else:  # zarr 2

    class _Store(zarr.storage.DirectoryStore):  # type: ignore[misc,no-redef]  # of zarr 2, in place of the one above
        """A folder, whose chunks are checked before codecs read them."""

        blosc = False

        def __getitem__(self, key: str) -> Any:
            data = super().__getitem__(key)
            if self.blosc:
                _check_blosc(key, data[:_BLOSC], len(data))
            return data

    _READ = {}


def _check_blosc(key: str, header: bytes, size: int) -> None:
    """Refuse a chunk shorter than its header says: Blosc would read the memory behind it."""
    length = int.from_bytes(header[12:], "little")
    if length != size or size < _BLOSC:
        raise ValueError(f"chunk {key} has {size} bytes, and says that it has {length}")


class ZarrSource(Source):
    """A Zarr array in a folder, or one of a group in a folder. Several threads may read it at once."""

    path: Path

    def __init__(self, name: str, path: Path, member: str | None) -> None:
        self.path, self._folder = path, _find(name, path, member)
        metadata, blosc = _metadata(name, path, self._folder)
        self.stamps = [Stamp(name, metadata)]
        self._walked = self._walk()
        with damage(f"{name}: is no Zarr array that can be read"), quietly():  # zarr warns of damaged metadata
            store = _Store(os.path.abspath(self._folder), **_READ)
            self._array = zarr.open_array(store, mode="r")
        store.blosc = blosc
        with damage(f"{name}: {metadata.name} is damaged"):
            shape = tuple(int(length) for length in self._array.shape)
            chunks = tuple(int(length) for length in self._array.chunks)
            dtype = np.dtype(self._array.dtype)
        possible = len(chunks) == len(shape) and min(shape, default=0) >= 0 and min(chunks, default=1) >= 1
        if not possible or math.prod(shape) >= 2**62:
            raise ValueError(f"{name}: {metadata.name} is damaged: it has the shape {shape} in chunks of {chunks}")
        super().__init__(name, shape, dtype)
        attributes, self._dimensions = _attributes(name, self._folder)
        _check_encoding(name, attributes, dtype)
        size = math.prod(chunks) * dtype.itemsize
        if size > _MOST_CHUNK:
            raise ValueError(
                f"{name}: its chunks, of shape {chunks}, take {size} bytes each when they are read: "
                f"rewrite it in chunks of at most {_MOST_CHUNK}"
            )
        self._chunks = chunks
        self.chunk_rows = min(_rows_of_chunk(shape[:-1], chunks[:-1]), max(1, _MOST_CHUNK // max(1, self.row_bytes)))

    def read(self, start: int, stop: int, buffer: Array | None = None) -> Array:
        """The rows, read as the smallest number of boxes."""
        own = () if self.are_labels else (slice(None),)
        try:
            arrays = (self._array[(*box, *own)] for box in boxes(start, stop, self.leading))
            pieces = [np.asarray(x).reshape(-1, self.width) for x in arrays]
        except Exception as error:  # codecs raise exceptions of any type
            self.check(start, thorough=True)  # a change explains more than damage
            raise ValueError(f"{self.name}: is damaged in rows {start} to {stop - 1}: {first_line(error)}") from None
        return pieces[0] if len(pieces) == 1 else np.concatenate([np.empty((0, self.width), self.dtype), *pieces])

    def coordinate(self, axis: int) -> Array | None:
        if len(self._dimensions) != len(self.shape) or not isinstance(dimension := self._dimensions[axis], str):
            return None
        folder = self._folder.parent / dimension
        if folder == self._folder or folder.parent != self._folder.parent or not _is_array(folder):
            return None
        _metadata(self.name, self.path, folder)
        with damage(f"{self.name}: its coordinate {dimension} cannot be read"), quietly():
            array = zarr.open_array(_Store(os.path.abspath(folder), **_READ), mode="r")
            if array.shape != (self.shape[axis],) or array.shape[0] > _MOST_COORDINATES:
                return None
            return np.asarray(array[...])

    def check(self, row: int, thorough: bool = False) -> None:
        """Compare the size and time of the metadata; if thorough, those of all files."""
        super().check(row)
        if thorough and (walked := self._walk()) != self._walked:
            was, now = (f"{x['files']} files of {x['bytes']} bytes" for x in (self._walked, walked))
            raise ValueError(f"{self.name}: was changed while it was read, before row {row}: it had {was} and has {now}")

    def _walk(self) -> dict[str, int]:
        """The number of files, the sums of their sizes and times, and the latest time."""
        files = size = times = latest = 0
        for folder, _, names in os.walk(self._folder, onerror=_raise):
            for name in names:
                status = os.stat(os.path.join(folder, name))
                files, size = files + 1, size + status.st_size
                times, latest = times + status.st_mtime_ns, max(latest, status.st_mtime_ns)
        return {"files": files, "bytes": size, "mtimes_ns": times, "latest_ns": latest}

    def identity(self) -> dict[str, Any]:
        return super().identity() | {"chunks": list(self._chunks), "walked": self._walked}


def boxes(start: int, stop: int, shape: tuple[int, ...]) -> Iterator[tuple[slice, ...]]:
    """Slices of an array of that shape which hold the entries from `start` to `stop`, in row order."""
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
            yield from ((slice(i, i + 1), *box) for box in boxes(at, end - i * inner, shape[1:]))
        start = end


def _rows_of_chunk(leading: tuple[int, ...], chunks: tuple[int, ...]) -> int:
    """The number of consecutive rows that share a chunk, and share it with no other rows."""
    for k, chunk in enumerate(chunks):
        if chunk > 1:
            return min(chunk, max(1, leading[k])) * math.prod(leading[k + 1 :])
    return 1


def _find(name: str, path: Path, member: str | None) -> Path:
    """The folder of the array of that name, or of the only one."""
    folder = path if member is None else path / member
    if folder.is_dir() and _is_array(folder):
        return folder
    names = []  # of all arrays in the group and in the groups in it
    for place, folders, _ in os.walk(path):
        folders.sort()
        if _is_array(Path(place)):
            names.append(Path(place).relative_to(path).as_posix())
            folders.clear()  # these hold chunks
    names = [x for x in names if x != "."]
    if member is None and len(names) > 1:  # coordinates go with another array
        names = [x for x in names if _attributes(name, path / x)[1] != [(path / x).name]] or names
    return path / choose(name, "arrays", names, member)


def _is_array(folder: Path) -> bool:
    """Whether there is metadata, and not a group's. Damaged metadata counts as an array's, whose reader refuses it."""
    if (folder / ".zarray").is_file():
        return True
    file = folder / "zarr.json"
    try:
        return file.is_file() and _json(str(folder), file).get("node_type") != "group"
    except ValueError:
        return True


def _metadata(name: str, path: Path, folder: Path) -> tuple[Path, bool]:
    """The array's metadata, and whether Blosc is the last codec. Codecs that unpickle are refused: they run code."""
    for group in folder.parents[: len(folder.relative_to(path).parts)]:
        for entry in ("zarr.json", ".zgroup"):
            if (group / entry).is_file():
                _json(name, group / entry)
    files = [folder / entry for entry in ("zarr.json", ".zarray") if (folder / entry).is_file()]
    last: list[Any] = []
    for file in files:
        metadata = _json(name, file)
        codecs = [metadata.get(key) for key in ("codecs", "filters", "compressor")]
        if "pickle" in json.dumps(codecs).lower():
            raise TypeError(f"{name}: holds pickled objects, which are never read: must hold numbers")
        new, _, compressor = codecs
        last.append(new[-1] if isinstance(new, list) and new else compressor)
    return files[0], any(isinstance(x, dict) and str(x.get("name", x.get("id"))).endswith("blosc") for x in last)


def _json(name: str, file: Path) -> dict[str, Any]:
    size = file.stat().st_size
    if size > _MOST_METADATA:
        raise ValueError(f"{name}: {file.name} has {size} bytes: metadata has at most {_MOST_METADATA}")
    text = file.read_bytes()
    with damage(f"{name}: {file.name} is damaged"):
        metadata = json.loads(text)
    if not isinstance(metadata, dict):
        raise ValueError(f"{name}: {file.name} is damaged: it must hold an object")
    return metadata


def _attributes(name: str, folder: Path) -> tuple[dict[str, Any], list[Any]]:
    """The attributes of an array, and the names of its dimensions, as xarray writes them.

    In format 2, xarray writes _FillValue as the fill value, which Zarr itself takes for what missing chunks hold.
    """
    if (file := folder / "zarr.json").is_file():
        metadata = _json(name, file)
        attributes, dimensions = metadata.get("attributes"), metadata.get("dimension_names")
    else:
        attributes = _json(name, file) if (file := folder / ".zattrs").is_file() else {}
        dimensions = attributes.get("_ARRAY_DIMENSIONS")
        if dimensions is not None:
            attributes = {"_FillValue": _json(name, folder / ".zarray").get("fill_value") or None} | attributes
    return attributes if isinstance(attributes, dict) else {}, dimensions if isinstance(dimensions, list) else []


def _check_encoding(name: str, attributes: dict[str, Any], dtype: np.dtype[Any]) -> None:
    """Refuse attributes by which the stored numbers stand for others, or for none: the conventions of CF."""
    plain = {"scale_factor": (1,), "add_offset": (0,), "_Unsigned": (str(dtype.kind == "u").lower(),)}
    for key in "scale_factor", "add_offset", "_Unsigned", "_FillValue", "missing_value", "units":
        value = attributes.get(key)
        if key == "units" and " since " not in str(value):  # others name what is counted, this makes times
            continue
        if value is not None and value not in plain.get(key, ()) and not _is_nan(value):
            raise ValueError(
                f"{name}: has the attribute {key} = {value!r}, so that its numbers stand for others: "
                "pass what xarray reads, or write that without an encoding (drop_encoding)"
            )


def _is_nan(value: Any) -> bool:
    """Whether it is NaN, as a number, or as format 3 writes it: the bytes of a double in base 64."""
    if isinstance(value, str):
        with contextlib.suppress(ValueError, struct.error):
            value = value if value == "NaN" else struct.unpack("<d", base64.b64decode(value, validate=True))[0]
    return value == "NaN" or (isinstance(value, float) and math.isnan(value))


def _raise(error: OSError) -> None:
    raise error
