"""A result on the way to its file: the final name stays as it was until the result is complete.

Values are written beside it, to `NAME.partial`, in row order; `NAME.checkpoint` says how many of them are safe, and which
inputs and options they were computed from. A complete result is moved to the final name, or first written again in another
format. When the process or the machine stops, these files are in one of three states:

    1. nothing, or a partial file without a checkpoint: the next run begins at the first row
    2. a partial file and a checkpoint: the next run can resume; rows after the safe ones are written again
    3. a checkpoint of all rows without a partial file: the result was moved, and the next run begins at the first row

Knows nothing of what the values mean, or how they are computed.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import math
import os
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np

from ..call import Array
from .files import CHECKPOINT, FLAGS, NEW, PARTIAL, beside, check_place, naming, remove, replace, sync

try:
    import fcntl
except ImportError:  # Windows has none; there, users must not start two runs with one name
    fcntl = None  # type: ignore[assignment]  # a module elsewhere; Windows has none

# Writes the values, in parts, to a new file or folder, given its path and the parts.
Write = Callable[[Path, Iterator[Array]], None]

SECONDS: Final = 1.0  # between checkpoints: the computing time that a kill can cost
SHARE: Final = 20  # checkpoints are also at least this many times the duration of the last one apart
READ: Final = 1 << 22  # bytes of values that are read at once
_NO_ROOM: Final = (errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC))


class Draft:
    """The values on the way to `path`. A context manager: leaving it keeps the files, so that another run can resume."""

    def __init__(self, path: Path, dtype: np.dtype[Any], shape: tuple[int, ...], job: dict[str, Any], resume: bool) -> None:
        self._path, self._dtype, self._job = path, dtype, job
        self._partial, self._checkpoint = beside(path, PARTIAL), beside(path, CHECKPOINT)
        for place in (self._partial, self._checkpoint):
            check_place(place)
        header = _header(dtype, shape)
        self._offset, self._total = len(header), math.prod(shape)
        self._due = time.monotonic() + SECONDS
        # The number of rows that are written, and the checksum of the file up to there: one assignment changes both, so
        # that Ctrl-C cannot separate them.
        self._written = (0, zlib.crc32(header))
        self._safe = 0  # rows that the checkpoint counts
        self._worthless = False  # whether there is nothing to resume
        self._finished = False
        self._file = os.fdopen(os.open(self._partial, os.O_RDWR | FLAGS, 0o666), "r+b", buffering=0)
        self._fd = self._file.fileno()
        try:
            self._lock()
            if os.fstat(self._fd).st_nlink > 1:
                raise OSError(f"{self._partial}: has another name, under which it would be written to as well")
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
        """The number of rows that are written."""
        return self._written[0]

    def _lock(self) -> None:
        """Lock the partial file for this process, as long as it is open."""
        busy = OSError(f"{self._partial}: another run is writing it")
        if fcntl is not None:
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise busy from None
            except OSError:
                pass  # a file system without locks: there, too, users must not start two runs with one name
            # The process that held the lock may have moved or removed the file after it was opened here.
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(self._fd), os.lstat(self._partial)):
                    return
            raise busy

    def _resume(self, allowed: bool) -> None:
        """Resume after the safe rows; an error if the checkpoint is of another job, or if resuming is not allowed."""
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
        if not allowed:
            raise FileExistsError(
                f"{self._checkpoint}: a run stopped after {rows} of {self._total} rows: resume it, or delete this file to "
                "start anew"
            )
        if different := difference(job, self._job):
            raise ValueError(f"{self._checkpoint}: is of another job: {different}; delete it to start anew")
        end, size, actual = self._place(rows), 0, 0
        for data in self._read(0, end):
            size, actual = size + len(data), zlib.crc32(data, actual)
        if (size, actual) != (end, checksum):
            raise ValueError(f"{self._partial}: does not hold what its checkpoint says: delete both to start anew")
        self._written, self._safe = (rows, checksum), rows

    def _begin(self, header: bytes) -> None:
        """Begin at the first row."""
        self._worthless = True
        if self._checkpoint.exists():
            # The checkpoint must be gone before the partial file is written again, also after a power cut.
            self._checkpoint.unlink()
            sync(self._path.parent)
        with naming(self._partial):
            os.ftruncate(self._fd, 0)
        self._write(header, 0)

    def _reserve(self) -> None:
        """Reserve the space for all rows, where the system can: then a full disk is an error at the start, not at the end.

        Where the file system cannot, the C library writes a byte to each block, which takes little time beside reading the
        inputs, or refuses (musl, ZFS): then a full disk is an error when it is full, and costs only time.
        """
        if hasattr(os, "posix_fallocate"):
            try:
                os.posix_fallocate(self._fd, 0, self._place(self._total))
            except OSError as error:
                if error.errno in _NO_ROOM:
                    raise OSError(error.errno, error.strerror, str(self._partial)) from None

    def _place(self, rows: int) -> int:
        return self._offset + rows * self._dtype.itemsize

    def append(self, values: Array) -> None:
        """Write the values of the next rows, and a checkpoint if one is due."""
        rows, checksum = self._written
        data = values.tobytes()
        self._write(data, self._place(rows))
        self._written = (rows + len(values), zlib.crc32(data, checksum))
        if time.monotonic() >= self._due:
            self.save()

    def _write(self, data: bytes, place: int) -> None:
        view = memoryview(data)
        with naming(self._partial):
            os.lseek(self._fd, place, os.SEEK_SET)
            while view:
                view = view[os.write(self._fd, view) :]

    def save(self) -> None:
        """Write everything to the disk, then the checkpoint that says so."""
        rows, checksum = self._written
        if rows == self._safe:
            return
        start = time.monotonic()
        with naming(self._partial):
            os.fsync(self._fd)
        text = json.dumps({"rows": rows, "checksum": checksum, "job": self._job}).encode()
        replace(self._checkpoint, b"%b\n%08x\n" % (text, zlib.crc32(text)))
        self._safe, self._worthless = rows, False
        now = time.monotonic()
        self._due = now + max(SECONDS, SHARE * (now - start))

    def read(self, rows: range) -> Array:
        """Values that were written."""
        data = bytearray().join(self._read(self._place(rows.start), self._place(rows.stop)))
        if len(data) < len(rows) * self._dtype.itemsize:
            raise ValueError(f"{self._partial}: was shortened by another program")
        return np.frombuffer(data, self._dtype)

    def _read(self, start: int, end: int) -> Iterator[bytes]:
        """The bytes between two places, in pieces; fewer if the file ends before."""
        with naming(self._partial):
            os.lseek(self._fd, start, os.SEEK_SET)
            while data := os.read(self._fd, min(end - start, READ)):
                yield data
                start += len(data)

    def finish(self, write: Write | None) -> None:
        """Move the result to its name, as it is or as `write` writes it, and remove the other files."""
        self.save()
        self._worthless = False
        with naming(self._partial):
            os.ftruncate(self._fd, self._place(self._total))  # another program may have appended to it
            os.fsync(self._fd)
        complete = self._partial
        if write is not None:
            complete = beside(self._path, NEW)
            remove(complete)
            step = max(1, READ // self._dtype.itemsize)
            parts = (range(start, min(start + step, self.rows)) for start in range(0, self.rows, step))
            try:
                write(complete, map(self.read, parts))
            except BaseException:
                remove(complete)  # on a full disk, room for the next try
                raise
            for place in (*complete.rglob("*"), complete):
                sync(place)
        if os.name == "nt":  # where an open file cannot be moved; elsewhere it stays open, and with it the lock
            self._file.close()
        os.replace(complete, self._path)
        self._checkpoint.unlink(missing_ok=True)
        if write is not None:
            self._partial.unlink()
        self._finished = True
        sync(self._path.parent)

    def close(self) -> None:
        """Close the file; remove it if it holds nothing to resume."""
        if os.name == "nt":
            self._file.close()
        if self._worthless:
            self._partial.unlink(missing_ok=True)
        self._file.close()

    def __enter__(self) -> Draft:
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        try:
            if error is not None and not self._finished:
                with contextlib.suppress(OSError):  # the first error is reported
                    self.save()
            if isinstance(error, KeyboardInterrupt) and self._safe and not self._finished:
                error.args = (f"{self._path}: {self._safe} of {self._total} rows are safe: resume goes on after them",)
        finally:
            self.close()


def _header(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    """The header of a .npy file: in version 1.0 of the format, or in 3.0 if names of fields need it."""
    descr: Any = np.lib.format.dtype_to_descr(dtype)
    fields: Any = {"descr": descr, "fortran_order": False, "shape": shape}
    file = io.BytesIO()
    try:
        np.lib.format.write_array_header_1_0(file, fields)
    except (
        ValueError
    ):  # names of other letters than Latin-1 has, or more than 64 kB of them; NumPy's writer of 3.0 is private
        text = repr(fields).encode()
        text += b" " * (-(12 + len(text) + 1) % 64) + b"\n"
        return np.lib.format.magic(3, 0) + len(text).to_bytes(4, "little") + text
    return file.getvalue()


def difference(old: Any, new: Any, name: str = "the job") -> str:
    """A description of the first difference; empty if there is none."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = [*old, *(key for key in new if key not in old)]
        differences = (difference(old.get(key), new.get(key), f"{key} of {name}") for key in keys)
        return next(filter(None, differences), "")
    return "" if old == new else f"{name} was {old!r} and is {new!r}"
