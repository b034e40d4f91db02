"""The file formats: how a file of each is recognised, and which modules read and write it.

A format is a line here and a module of its name in readers/, and one in writers/ if results can be written in it.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any, Final, NamedTuple


class Format(NamedTuple):
    """How a format is recognised, and what its module needs."""

    reader: str  # the class in the module readers/NAME.py, or a function that chooses one
    suffixes: tuple[str, ...]
    magic: bytes = b""  # the first bytes of a file, where a format has the same in all files
    markers: tuple[str, ...] = ()  # files that only a folder of this format has; none: the format is a file
    needs: str = ""  # what a user reads if the library is missing
    writes: bool = False  # whether writers/ has a module for it
    labels: str = ""  # the member with the labels of the rows, if every file has them


FORMATS: Final = {
    "npy": Format("NpySource", (".npy",), b"\x93NUMPY"),
    "npz": Format("NpzSource", (".npz",), b"PK"),
    "parquet": Format("ParquetSource", (".parquet", ".pq"), b"PAR1", needs="Parquet files need pyarrow", writes=True),
    "zarr": Format("ZarrSource", (".zarr",), b"", ("zarr.json", ".zarray", ".zgroup"), "Zarr arrays need zarr", True),
    "safetensors": Format("SafetensorsSource", (".safetensors", ".safetensors.index.json")),
    "kld": Format("open_kld", (".kld",), b"_logits_", labels="labels"),
}


def of_path(path: Path) -> str:
    """The name of the format of a file or folder that exists; ValueError if there is none."""
    if path.is_dir():
        folders = ((name, form) for name, form in FORMATS.items() if form.markers)
        marked = (
            name for name, form in folders if path.suffix in form.suffixes or any((path / x).exists() for x in form.markers)
        )
        return next(marked, "parquet")  # whose folders have no markers
    if not path.is_file():
        raise ValueError(f"{path}: must be a file or a folder; a pipe cannot be read twice")
    name = of_name(path.name)
    if name is None or FORMATS[name].markers:
        with path.open("rb") as file:
            start = file.read(8)
        name = next((name for name, form in FORMATS.items() if form.magic and start.startswith(form.magic)), None)
    if name is None:
        raise ValueError(f"{path}: is none of .npy, .npz, Parquet, Zarr, .safetensors and .kld")
    return name


def of_name(file: str) -> str | None:
    """The name of the format of which a file's name has a suffix, or None."""
    return next((name for name, form in FORMATS.items() if file.endswith(form.suffixes)), None)


def load(package: str, name: str) -> Any:
    """The format's module in the package. It is imported here, when it is first used, because most need a library."""
    try:
        return import_module(f"{package}.{name}")
    except ImportError:
        if not FORMATS[name].needs:
            raise
        raise ImportError(f"{FORMATS[name].needs}: pip install 'fastkl[{name}]'") from None
