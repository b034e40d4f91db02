"""Names and files of results: which names are refused, how a small file is replaced, and how errors name a file."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

PARTIAL, CHECKPOINT, NEW = ".partial", ".checkpoint", ".new"  # endings of the names beside the final one
FLAGS: Final = os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


def beside(path: Path, end: str) -> Path:
    """The path with the ending after its name."""
    return path.with_name(path.name + end)


def _names(path: Path) -> list[Path]:
    return [path, *(beside(path, end) for end in (PARTIAL, CHECKPOINT, NEW, CHECKPOINT + NEW))]


def check_place(path: Path, inputs: Sequence[Path] = (), *, folder: bool = False) -> None:
    """Refuse a name that belongs to what a result must not replace: a link, a folder, or an input.

    No name beside it may belong to an input, either.
    """
    if path.is_symlink():
        raise OSError(f"{path}: is a link: a result never follows one")
    if not path.parent.is_dir():
        raise FileNotFoundError(2, os.strerror(2), str(path.parent))
    for file in inputs:
        if file.is_dir() and path.resolve().is_relative_to(file.resolve()):
            raise OSError(f"{path}: is in the input {file}: a result would be taken for a part of it")
    if path.exists():
        if folder:
            raise FileExistsError(17, os.strerror(17), str(path))
        if not path.is_file():
            raise OSError(f"{path}: is no regular file")
    for place in _names(path):
        if place.exists():
            for file in inputs:
                if place.samefile(file) or file.resolve().is_relative_to(place.resolve()):
                    raise OSError(f"{place}: is an input: a result never overwrites one")


def check_apart(path: Path, other: Path) -> None:
    """Refuse two results that need the same name."""
    names, others = ({os.path.normcase(x) for x in _names(each.parent.resolve() / each.name)} for each in (path, other))
    if names & others:
        raise ValueError(f"{other}: is {path}, or a file beside it that is needed on the way")


def replace(path: Path, data: bytes) -> None:
    """Replace a small file as a whole."""
    new = beside(path, NEW)
    with naming(path):
        try:
            new.unlink(missing_ok=True)  # never written to: it may be a link, or have another name
            with open(os.open(new, os.O_WRONLY | os.O_EXCL | FLAGS, 0o666), "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(new, path)
        except OSError:
            with contextlib.suppress(OSError):
                new.unlink(missing_ok=True)
            raise


def remove(path: Path) -> None:
    """Remove the file or folder that an interrupted run may have left."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Write a file, or the names in a folder, to the disk."""
    folder = path.is_dir()
    if folder and os.name == "nt":
        return  # folders cannot be opened there
    fd = os.open(path, os.O_RDONLY if folder else os.O_RDWR)  # Windows syncs only what may be written
    try:
        with contextlib.suppress(OSError) if folder else naming(path):  # not all file systems sync folders
            os.fsync(fd)
    finally:
        os.close(fd)


@contextlib.contextmanager
def naming(path: Path | str) -> Iterator[None]:
    """Add the file's name to an error of the system."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from None
