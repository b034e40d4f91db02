"""A result on its way to its file: nothing stands under the final name before all of it does.

Values are written beside it, as `NAME.partial`, in row order; `NAME.checkpoint` says how many of them are safe, and what
they were computed from. Complete, they are moved to the final name, or written anew in another format and then moved.
Whenever the process or the machine stops, these files are as they were before a step or after it:

    1. nothing, or a partial file without a checkpoint: the next run begins at the first row
    2. a partial file and a checkpoint: the next run goes on, if it is asked to; more rows are written before it says so
    3. a checkpoint that says all, without a partial file: that has been moved, and the next run begins anew

Knows nothing of what the values are, and nothing of how they are computed.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import math
import os
import shutil
import time
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

try:
    import fcntl
except ImportError:  # Windows has none; there, two runs with one name are the user's affair
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from .._rows import Array
    from .sources import Source

    # Writes the values, in parts, to a new file or folder, given its path, the parts, their dtype and the rows' shape.
    Write = Callable[[Path, Iterator[Array], np.dtype[Any], tuple[int, ...]], None]

_SECONDS: Final = 1.0  # between checkpoints: what a kill can cost
_SHARE: Final = 20  # and at least so many times what the last one took
_READ: Final = 1 << 22  # bytes of values that are read at once
_FLAGS: Final = os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_PARTIAL, _CHECKPOINT, _NEW = ".partial", ".checkpoint", ".new"  # names beside the final one
_BESIDE: Final = (_PARTIAL, _CHECKPOINT, _NEW, _CHECKPOINT + _NEW)
_NO_ROOM: Final = (errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC))


def check_place(path: Path, inputs: list[Path], *, folder: bool = False) -> None:
    """Refuse a name under which something stands that must not be replaced: a link, a folder, or an input.

    No input may have one of the names beside it, either.
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
    for place in (path, *(_beside(path, end) for end in _BESIDE)):
        if place.exists():
            for file in inputs:
                if place.samefile(file) or file.resolve().is_relative_to(place.resolve()):
                    raise OSError(f"{place}: is an input: a result never overwrites one")


def check_apart(path: Path, other: Path) -> None:
    """Refuse two results that need the same name."""

    def names(path: Path) -> set[str]:
        path = path.parent.resolve() / path.name
        return {os.path.normcase(place) for place in (path, *(_beside(path, end) for end in _BESIDE))}

    if names(path) & names(other):
        raise ValueError(f"{other}: is {path}, or a file beside it that is needed on the way")


def _beside(path: Path, end: str) -> Path:
    return path.with_name(path.name + end)


def writer(
    path: Path, inputs: list[Path], p: Source, keys: Sequence[str], dtype: np.dtype[Any], shape: tuple[int, ...]
) -> Write | None:
    """What writes values as the name's format has them; None for .npy, in which a draft is. Refuses a name in use."""
    check_place(path, inputs, folder=path.suffix == ".zarr")
    if keys and path.suffix not in (".parquet", ".pq"):
        raise ValueError(f"keys: only for Parquet, and out is {path}")
    if path.suffix == ".npy":
        return None
    if path.suffix in (".parquet", ".pq"):
        from .parquet import writer as parquet_writer

        return parquet_writer(p, keys, dtype, math.prod(shape))
    if path.suffix == ".zarr":
        from .zarr_arrays import write

        return write
    raise ValueError(f"out is {path}: must end in .npy, .parquet or .zarr")


class Draft:
    """Values on their way to `path`. A context manager: leaving it keeps what is there for another run to resume."""

    def __init__(
        self,
        path: Path,
        dtype: np.dtype[Any],
        shape: tuple[int, ...],
        job: dict[str, Any],
        inputs: list[Path],
        resume: bool,
    ) -> None:
        self._path, self.dtype, self._shape = path, dtype, shape
        self._job = json.loads(json.dumps(job, default=np.generic.item))  # as the checkpoint gives it back
        self._partial, self._checkpoint = _beside(path, _PARTIAL), _beside(path, _CHECKPOINT)
        for place in (self._partial, self._checkpoint):
            check_place(place, inputs)
        header = _header(dtype, shape)
        self._offset, self._total = len(header), math.prod(shape)
        self._due = time.monotonic() + _SECONDS
        # Rows that are written, and the check sum of the file up to there: in one place, so that Ctrl-C cannot part them.
        self._written = (0, zlib.crc32(header))
        self._safe = 0  # rows that the checkpoint knows of
        self._worthless = False  # whether there is nothing to resume
        self._fd = self._open()
        try:
            if self._checkpoint.exists() and os.fstat(self._fd).st_size:
                self._resume(resume)
            else:
                self._begin(header)
            self._reserve()
        except BaseException:
            self.close()
            raise

    @property
    def rows(self) -> int:
        """How many are written."""
        return self._written[0]

    def _open(self) -> int:
        """The partial file, which no other run writes."""
        fd = os.open(self._partial, os.O_RDWR | _FLAGS, 0o666)
        try:
            self._lock(fd)
            if os.fstat(fd).st_nlink > 1:
                raise OSError(f"{self._partial}: has another name, under which it would be written to as well")
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _lock(self, fd: int) -> None:
        """Held as long as the file is open, by this process alone."""
        busy = OSError(f"{self._partial}: another run is writing it")
        if fcntl is not None:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise busy from None
            except OSError:
                pass  # a file system without locks: two runs with one name are the user's affair there, too
            # Who held the lock may have moved the file to the final name, or removed it, after it was opened here.
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(fd), os.lstat(self._partial)):
                    return
            raise busy

    def _resume(self, asked: bool) -> None:
        """Take up what the checkpoint says is safe; an error if it is of another job, or if nobody asked for it."""
        try:
            text, seal = self._checkpoint.read_bytes().splitlines()
            if int(seal, 16) != zlib.crc32(text):
                raise ValueError
            known = json.loads(text)
            rows, checksum, job = known["rows"], known["checksum"], known["job"]
        except (ValueError, KeyError, TypeError):
            raise ValueError(
                f"{self._checkpoint}: is damaged, or of another version of fastkl: delete it to start anew"
            ) from None
        if not asked:
            raise FileExistsError(
                f"{self._checkpoint}: a run stopped after {rows} of {self._total} rows: resume it, or delete this file to "
                "start anew"
            )
        if different := difference(job, self._job):
            raise ValueError(f"{self._checkpoint}: is of another job: {different}; delete it to start anew")
        if self._checksum(self._place(rows)) != checksum:
            raise ValueError(f"{self._partial}: does not hold what its checkpoint says: delete both to start anew")
        self._written, self._safe = (rows, checksum), rows

    def _begin(self, header: bytes) -> None:
        """Start with no rows."""
        self._worthless = True
        if self._checkpoint.exists():
            # It must have gone before there is a partial file again, after a power cut, too.
            self._checkpoint.unlink()
            _sync(self._path.parent)
        with _naming(self._partial):
            os.ftruncate(self._fd, 0)
        self._write(header, 0)

    def _reserve(self) -> None:
        """Take the room now, where the system can: a disk that is too small says so at the start, not at the end.

        Where the file system cannot, the C library writes a byte to each of its blocks, which is slower but little beside
        the inputs, or refuses (musl, ZFS): then a full disk is seen once it is full, and costs no more than the time.
        """
        if hasattr(os, "posix_fallocate"):
            try:
                os.posix_fallocate(self._fd, 0, self._place(self._total))
            except OSError as error:
                if error.errno in _NO_ROOM:
                    raise OSError(error.errno, error.strerror, str(self._partial)) from None

    def _place(self, rows: int) -> int:
        return self._offset + rows * self.dtype.itemsize

    def append(self, values: Array) -> None:
        """Write the next rows' values, and now and then a checkpoint."""
        rows, checksum = self._written
        data = values.tobytes()
        self._write(data, self._place(rows))
        self._written = (rows + len(values), zlib.crc32(data, checksum))
        if time.monotonic() >= self._due:
            self.save()

    def _write(self, data: bytes, place: int) -> None:
        view = memoryview(data)
        with _naming(self._partial):
            os.lseek(self._fd, place, os.SEEK_SET)
            while view:
                view = view[os.write(self._fd, view) :]

    def save(self) -> None:
        """Make what is written safe, and say so in the checkpoint."""
        rows, checksum = self._written
        if rows == self._safe:
            return
        start = time.monotonic()
        with _naming(self._partial):
            os.fsync(self._fd)
        text = json.dumps({"rows": rows, "checksum": checksum, "job": self._job}).encode()
        replace(self._checkpoint, b"%b\n%08x\n" % (text, zlib.crc32(text)))
        self._safe, self._worthless = rows, False
        now = time.monotonic()
        self._due = now + max(_SECONDS, _SHARE * (now - start))

    def read(self, rows: range) -> Array:
        """Values that have been written."""
        values = np.empty(len(rows), self.dtype)
        view = values.view(np.uint8).data
        with _naming(self._partial):
            os.lseek(self._fd, self._place(rows.start), os.SEEK_SET)
            while view:
                data = os.read(self._fd, len(view))
                if not data:
                    raise ValueError(f"{self._partial}: was shortened by another program")
                view[: len(data)] = data
                view = view[len(data) :]
        return values

    def _checksum(self, end: int) -> int | None:
        """Of the file up to there; None if it ends before."""
        checksum = 0
        with _naming(self._partial):
            os.lseek(self._fd, 0, os.SEEK_SET)
            while end:
                data = os.read(self._fd, min(end, _READ))
                if not data:
                    return None
                checksum, end = zlib.crc32(data, checksum), end - len(data)
        return checksum

    def _parts(self) -> Iterator[Array]:
        step = max(1, _READ // self.dtype.itemsize)
        return (self.read(range(start, min(start + step, self.rows))) for start in range(0, self.rows, step))

    def finish(self, write: Write | None) -> None:
        """Move the values to their name, as they are or as `write` writes them; then nothing else is left."""
        self.save()
        self._worthless = False
        with _naming(self._partial):
            os.ftruncate(self._fd, self._place(self._total))  # another program may have appended to it
            os.fsync(self._fd)
        complete = self._partial
        if write is not None:
            complete = _beside(self._path, _NEW)
            remove(complete)
            try:
                write(complete, self._parts(), self.dtype, self._shape)
            except BaseException:
                remove(complete)  # on a full disk, room for the next try
                raise
            for place in (*complete.rglob("*"), complete):
                _sync(place)
        self._let_go()
        os.replace(complete, self._path)
        self._checkpoint.unlink(missing_ok=True)
        if write is not None:
            self._partial.unlink()
        _sync(self._path.parent)

    def close(self) -> None:
        """Keep what is there, if it is worth it."""
        self._let_go()
        if self._worthless:
            self._partial.unlink(missing_ok=True)
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _let_go(self) -> None:
        """Windows moves and removes no open file. Elsewhere it stays open, for that keeps others from it."""
        if os.name == "nt" and self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Draft:
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        try:
            if error is not None and self._fd >= 0:
                with contextlib.suppress(OSError):  # the first error is the one to tell
                    self.save()
            if isinstance(error, KeyboardInterrupt) and self._safe:
                error.args = (f"{self._path}: {self._safe} of {self._total} rows are safe: resume goes on after them",)
        finally:
            self.close()


def replace(path: Path, data: bytes) -> None:
    """Put a small file in its place, whole."""
    new = _beside(path, _NEW)
    with _naming(path):
        try:
            new.unlink(missing_ok=True)  # never written to: it may be a link, or have another name
            with open(os.open(new, os.O_WRONLY | os.O_EXCL | _FLAGS, 0o666), "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(new, path)
        except OSError:
            with contextlib.suppress(OSError):
                new.unlink(missing_ok=True)
            raise


def remove(path: Path) -> None:
    """Take away what an interrupted run may have left under a name of ours."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _header(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    """A .npy file's, as np.save writes it."""
    file = io.BytesIO()
    descr: Any = np.lib.format.dtype_to_descr(dtype)
    np.lib.format.write_array_header_1_0(file, {"descr": descr, "fortran_order": False, "shape": shape})
    return file.getvalue()


def difference(old: Any, new: Any, name: str = "the job") -> str:
    """The first thing that differs; nothing if all is the same."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = [*old, *(key for key in new if key not in old)]
        differences = (difference(old.get(key), new.get(key), f"{key} of {name}") for key in keys)
        return next(filter(None, differences), "")
    return "" if old == new else f"{name} was {old!r} and is {new!r}"


def _sync(path: Path) -> None:
    """Have the disk hold a file, or the names in a folder."""
    folder = path.is_dir()
    if folder and os.name == "nt":
        return  # folders cannot be opened there
    fd = os.open(path, os.O_RDONLY if folder else os.O_RDWR)  # Windows syncs only what may be written
    try:
        with contextlib.suppress(OSError) if folder else _naming(path):  # not all file systems sync folders
            os.fsync(fd)
    finally:
        os.close(fd)


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Have an error of the system name the file."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
