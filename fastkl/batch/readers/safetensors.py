"""Tensors of .safetensors files, and of the files that a `model.safetensors.index.json` lists. Needs nothing but NumPy.

A file is the length of a header in 8 bytes, the header in JSON, which has dtype, shape and place of each tensor, and the
tensors' bytes in C order: https://huggingface.co/docs/safetensors (version 0.8). The header is checked here, because the
library maps files, and its NumPy side has no bfloat16.
"""

from __future__ import annotations

import json
import math
import os
import sys
from pathlib import Path
from typing import IO, Any, Final

import numpy as np

from ..files import naming
from .flat import FlatSource, check_shape, short
from .source import Stamp, choose, damage

_MOST_HEADER: Final = 100_000_000  # bytes: the format's limit
_SHOWN: Final = 100  # characters of a name in a message
_FLOATS: Final = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "V2"}  # V2: as .npy files have bfloat16
_INTEGERS: Final = {f"{kind}{8 * size}": f"<{kind.lower()}{size}" for kind in "IU" for size in (8, 4, 2, 1)}
_DTYPES: Final = {code: np.dtype(x) for code, x in (_FLOATS | _INTEGERS | {"BOOL": "?"}).items()}


class SafetensorsSource(FlatSource):
    """A tensor of a file, or of the files of an index."""

    def __init__(self, name: str, path: Path, member: str | None) -> None:
        self._member, index = member, None
        if path.suffix == ".json":
            index = Stamp(name, path)
            path = self._find(name, path, index.size)
        super().__init__(name, path)
        if index is not None:
            self.stamps = [index, *self.stamps]

    def _find(self, name: str, path: Path, size: int) -> Path:
        """The file of the tensor of that name, or of the only one, according to the index."""
        if size > _MOST_HEADER:
            raise ValueError(f"{name}: has {size} bytes: an index has at most {_MOST_HEADER}")
        with damage(f"{name}: is no index of .safetensors files"):
            files = _parse(path.read_bytes())["weight_map"]
            if not isinstance(files, dict):
                raise ValueError("weight_map is no object")
        self._member = choose(name, "tensors", files, self._member)
        file = files[self._member]
        if not isinstance(file, str) or not file or Path(file).name != file:
            raise ValueError(
                f"{name}: has {str(file)[:_SHOWN]!r} as the file of {self._member!r}: must be a name in the same folder"
            )
        shard = path.with_name(file)
        with naming(f"{name}: {file[:_SHOWN]!r}"):
            if not shard.is_file():
                raise FileNotFoundError(2, os.strerror(2))
        return shard

    def read_header(self, name: str, file: IO[bytes], size: int) -> tuple[tuple[int, ...], np.dtype[Any]]:
        length = int.from_bytes(file.read(8), "little")
        begin = 8 + length
        if size < 8 or begin > size:
            raise ValueError(f"{name}: is truncated in its header, which ends at byte {begin}: {self.path.name} has {size}")
        if length > _MOST_HEADER:
            raise ValueError(f"{name}: its header is damaged: it has {length} bytes, more than {_MOST_HEADER}")
        with damage(f"{name}: its header is damaged"):
            tensors = _parse(file.read(length))
        tensors.pop("__metadata__", None)
        end = begin + _check(name, tensors)
        if end != size:
            what = "is truncated" if end > size else "has more bytes than its tensors"
            raise ValueError(f"{name}: {what}, which end at byte {end}: {self.path.name} has {size}")
        tensor = tensors[choose(name, "tensors", tensors, self._member)]
        if tensor["dtype"] not in _DTYPES:
            raise TypeError(f"{name} has dtype {tensor['dtype']!r}: must be one of {', '.join(_DTYPES)}")
        self.offset = begin + tensor["data_offsets"][0]
        return tuple(tensor["shape"]), _DTYPES[tensor["dtype"]]


def _parse(text: bytes) -> dict[str, Any]:
    """The object that is written in JSON; ValueError for anything else, and for two values of one name."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        values = dict(pairs)
        if len(values) < len(pairs):
            names = [name for name, _ in pairs]
            raise ValueError(f"it has {next(name for name in names if names.count(name) > 1)!r} twice")
        return values

    parsed = json.loads(text.decode(), object_pairs_hook=unique)
    if not isinstance(parsed, dict):
        raise ValueError("it is no object")
    return parsed


def _check(name: str, tensors: dict[str, Any]) -> int:
    """Where the last tensor ends. Each must have the entries that every tensor has, and begin where another ends.

    The size of a tensor of another dtype than those that are read is not checked: later versions may have more.
    """
    places = []
    for key, tensor in tensors.items():
        what = f"{name}: its header is damaged: {key[:_SHOWN]!r}"
        try:
            code, shape, (start, stop) = tensor["dtype"], tensor["shape"], tensor["data_offsets"]
        except (KeyError, TypeError, ValueError):
            raise ValueError(f"{what} must have dtype, shape and two data_offsets") from None
        if not (isinstance(code, str) and isinstance(shape, list) and type(start) is type(stop) is int):
            raise ValueError(f"{what} must have a name as dtype, a list as shape and integers as data_offsets")
        if not 0 <= start <= stop <= sys.maxsize:
            raise ValueError(f"{what} has data_offsets that are no place in a file")
        dtype = _DTYPES.get(code)
        check_shape(what, tuple(shape), dtype or np.dtype("V1"))
        if dtype is not None and math.prod(shape) * dtype.itemsize != stop - start:
            raise ValueError(f"{what} has {stop - start} bytes, which are not {short(tuple(shape))} of {code}")
        places.append((start, stop, key))
    end = 0
    for start, stop, key in sorted(places):
        if start != end:
            raise ValueError(
                f"{name}: its header is damaged: {key[:_SHOWN]!r} begins at {start}, the tensor before it ends at {end}"
            )
        end = stop
    return end
