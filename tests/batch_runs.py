"""Runs `fastkl score` in processes of its own: in small parts, and interrupted. The tests of fastkl.batch start it.

    python tests/batch_runs.py run '{"pause": 3}' P Q --out ...   one run; `run` describes the options
    python tests/batch_runs.py crashes FOLDER                     a run killed before each of its system calls, then resumed
    python tests/batch_runs.py many FOLDER                        the runs of FOLDER/runs.json, all in this process

Knows nothing of right results, except in `crashes`, where they are those of an uninterrupted run.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import shutil
import signal
import stat
import sys
import traceback
import warnings
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

import fastkl
from fastkl.__main__ import main
from fastkl.batch import operands, output, workers, writers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Array = np.ndarray[Any, Any]

PART_ROWS = 64  # rows of 4 doubles; the bytes of a part and of a block are set accordingly
SPEED = ("seconds", "rows_per_second", "bytes_per_second")


def in_small_parts() -> None:
    """Parts of a few rows, blocks of fewer, and a checkpoint after each part."""
    operands.PART, workers.BLOCK = PART_ROWS * 32, 480  # type: ignore[misc]
    output.SECONDS = output.SHARE = 0  # type: ignore[misc,assignment]


def without_speed(x: Any) -> Any:
    """A summary without the times, which differ between runs."""
    return {key: without_speed(value) for key, value in x.items() if key not in SPEED} if isinstance(x, dict) else x


# ---- one run ----


def run(options: dict[str, Any], arguments: list[str]) -> int:
    """Print the number of each part when it is written, then the summary; the exit status.

    Options: `pause` after that many parts, until a line arrives on standard input; `largest` size of a file in bytes;
    `no_reserve`: the system cannot reserve space; `large`: parts and checkpoints as users have them; `peak`: a last line
    with the peak resident size.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background processes ignore SIGINT
    if not options.get("large"):
        in_small_parts()
    if options.get("no_reserve") and hasattr(os, "posix_fallocate"):
        del os.posix_fallocate
    if "largest" in options:
        import resource

        fastkl.build_info()  # at its first use, LLVM's OpenMP creates a file
        resource.setrlimit(resource.RLIMIT_FSIZE, (options["largest"], options["largest"]))
    append, parts = output.Draft.append, 0

    def append_and_print(draft: output.Draft, values: Array) -> None:
        nonlocal parts
        append(draft, values)
        parts += 1
        print(parts, flush=True)
        if parts == options.get("pause"):
            sys.stdin.readline()

    output.Draft.append = append_and_print  # type: ignore[method-assign]
    status = main(["score", *arguments])
    if options.get("peak"):
        from damaged_files import peak  # not on Windows

        print(peak())
    return status


# ---- killed before each system call ----

CHANGING = ("open", "write", "fsync", "replace", "ftruncate", "posix_fallocate")


class Disk:
    """Kills the process before one of its system calls, and undoes what was not synced, as a power cut does.

    With `lose_data`, bytes that were not synced become zeros. `lose_names` is the share of the names moved or removed since
    their folder was synced that return to where they were.
    """

    def __init__(self, kill_before: int, lose_data: bool, lose_names: float, attic: Path) -> None:
        self._left, self._lose_data, self._lose_names, self._attic = kill_before, lose_data, lose_names, attic
        self._pick = random.Random(kill_before)
        self.calls = 0
        self._files: dict[int, int] = {}  # inode: a second descriptor
        self._unsynced: dict[int, list[tuple[int, int]]] = {}  # inode: places and lengths
        self._undo: list[Callable[[], None]] = []
        self._call = {name: getattr(os, name) for name in CHANGING if hasattr(os, name)} | {"unlink": Path.unlink}
        for name in self._call:
            owner: Any = Path if name == "unlink" else os
            setattr(owner, name, self._counted(getattr(self, f"_{name}", self._call[name])))

    def _counted(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **keywords: Any) -> Any:
            if not self._left:
                self._cut()
            self._left -= 1
            self.calls += 1
            return call(*arguments, **keywords)

        return counted

    def _cut(self) -> None:
        for inode, places in self._unsynced.items() if self._lose_data else ():
            fd = self._files[inode]
            for place, length in places:
                os.pwrite(fd, bytes(max(0, min(length, os.fstat(fd).st_size - place))), place)
        for undo in reversed(self._undo):
            if self._pick.random() < self._lose_names:
                with contextlib.suppress(FileNotFoundError):  # depends on another one, which was not undone
                    undo()
        os.kill(os.getpid(), signal.SIGKILL)

    def _open(self, path: Any, flags: int, mode: int = 0o777) -> int:
        new = flags & os.O_CREAT and not os.path.exists(path)
        fd: int = self._call["open"](path, flags, mode)
        inode = os.fstat(fd).st_ino
        if flags & os.O_CREAT and inode not in self._files:
            self._files[inode] = os.dup(fd)
            # The writes of a file object are not counted here: all of a new file. A draft is written by os.write.
            self._unsynced[inode] = [(0, 1 << 20)] if flags & os.O_EXCL else []
        if new:
            self._undo.append(lambda: self._call["unlink"](Path(path)))
        return fd

    def _write(self, fd: int, data: memoryview) -> int:
        """Write half of the data, which the system may do, too."""
        place = os.lseek(fd, 0, os.SEEK_CUR)
        count: int = self._call["write"](fd, data[: (len(data) + 1) // 2])
        self._unsynced[os.fstat(fd).st_ino].append((place, count))
        return count

    def _fsync(self, fd: int) -> None:
        self._call["fsync"](fd)
        status = os.fstat(fd)
        if stat.S_ISDIR(status.st_mode):
            self._undo.clear()
        self._unsynced[status.st_ino] = []

    def _keep(self, path: Path) -> Callable[[], None]:
        """A function that restores the file that has the name now."""
        if not os.path.exists(path):
            return lambda: None
        kept = self._attic / f"{os.getpid()}{self._left}"
        os.link(path, kept)
        return lambda: self._call["replace"](kept, path)

    def _replace(self, old: Path, new: Path) -> None:
        restore = self._keep(new)

        def undo() -> None:
            self._call["replace"](new, old)
            restore()

        self._call["replace"](old, new)
        self._undo.append(undo)

    def _unlink(self, path: Path, missing_ok: bool = False) -> None:
        restore = self._keep(path)
        self._call["unlink"](path, missing_ok)
        self._undo.append(restore)


def another_format(dtype: np.dtype[Any], shape: tuple[int, ...], path: Path, parts: Iterator[Array]) -> None:
    """Stands for the other formats, in which the values are written again."""
    fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    data = memoryview(repr((dtype, shape)).encode() + b"".join(part.tobytes() for part in parts))
    while data:
        data = data[os.write(fd, data) :]
    os.close(fd)


def crashes(folder: Path, share: int) -> dict[str, Any]:
    """Failures and numbers of system calls, of every `share`-th case and of those that move the result."""
    in_small_parts()
    rows = np.random.default_rng(1).random((2, 3 * PART_ROWS - 7, 4))
    for name, x in zip("pq", rows / rows.sum(axis=-1, keepdims=True), strict=True):
        np.save(folder / f"{name}.npy", x)
    failures, calls = [], {}
    number = 0
    for anew in False, True:
        for lose_data, lose_names in (False, 0.0), (True, 0.0), (False, 1.0), (True, 0.5):
            case = Crash(folder, anew, lose_data, lose_names)
            expected = case.undisturbed()
            moving = int((folder / "calls").read_text()) - 5
            kill_before, died = 0, True
            while died:
                if number % share == 0 or kill_before >= moving:
                    died, failure = case.judge(kill_before, expected)
                    if failure:
                        failures.append(f"{case} before call {kill_before}: {failure}")
                kill_before += 1
                number += 1
            calls[str(case)] = kill_before
    return {"failures": failures, "calls": calls}


class Crash(NamedTuple):
    """A kind of crash: whether the result has another format than a draft, and what is lost."""

    folder: Path
    anew: bool
    lose_data: bool
    lose_names: float

    def judge(self, kill_before: int, expected: tuple[bytes, Any]) -> tuple[bool, str]:
        """Whether a run was killed before that call, and the failure then or when it was killed again and resumed."""
        out = self.new_folder() / "out.npy"
        old = b"as it was before" if kill_before % 2 else None
        if old:
            out.write_bytes(old)
        died = None
        for before in kill_before, random.Random(kill_before).randrange(kill_before + 1), -1:
            killed, summary = self.run(out, before)
            died = killed if died is None else died
            there = out.read_bytes() if out.exists() else None
            if there not in (old, expected[0]):
                return died, "the final name holds another file"
        found = sorted(os.listdir(out.parent))
        if (there, summary) != expected or found != [out.name]:
            return (
                died,
                f"resumed, it gave {summary}, {'the same' if there == expected[0] else 'other'} values, and {found}",
            )
        return died, ""

    def undisturbed(self) -> tuple[bytes, Any]:
        """The result, and the summary."""
        out = self.new_folder() / "out.npy"
        _, summary = self.run(out, -1)
        return out.read_bytes(), summary

    def new_folder(self) -> Path:
        """A folder for the result; another one holds the files that a power cut restores."""
        for name in "out", "attic":
            shutil.rmtree(self.folder / name, ignore_errors=True)
            (self.folder / name).mkdir()
        return self.folder / "out"

    def run(self, out: Path, kill_before: int) -> tuple[bool, Any]:
        """Whether it was killed, and the summary."""
        said = self.folder / "said"
        pid = os.fork()
        if not pid:
            status = 99
            try:
                for fd, path in (1, said), (2, self.folder / "errors"):
                    os.dup2(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC), fd)
                if self.anew:
                    writers.find = lambda *arguments: partial(another_format, *arguments[3:])
                disk = Disk(kill_before, self.lose_data, self.lose_names, self.folder / "attic")
                p, q = (str(self.folder / name) for name in ("p.npy", "q.npy"))
                status = main(["score", p, q, "--threads=1", "--json", "--resume", "--out", str(out)])
                (self.folder / "calls").write_text(str(disk.calls))
                sys.stdout.flush()
            finally:
                os._exit(status)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if status == -signal.SIGKILL:
            return True, None
        if status:
            return False, (self.folder / "errors").read_text()
        return False, without_speed(json.loads(said.read_text()))


# ---- many runs ----


def many(folder: Path) -> dict[str, Any]:
    """Exit status and standard error of each run, with a limit of 500 MB; the peak of all."""
    if sys.platform == "linux":
        import resource

        now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + 500_000_000, now + 500_000_000))
    results = []
    for arguments in json.loads((folder / "runs.json").read_text()):
        errors = io.StringIO()
        with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("always")
            try:
                status = main(["score", *arguments])
            except BaseException:
                status, _ = -1, traceback.print_exc()
        results.append([status, errors.getvalue()])
    most = 0
    if sys.platform != "win32":
        from damaged_files import peak

        most = peak()
    return {"results": results, "peak": most}


if __name__ == "__main__":
    if sys.argv[1] == "run":
        sys.exit(run(json.loads(sys.argv[2]), sys.argv[3:]))
    json.dump(
        crashes(Path(sys.argv[2]), int(sys.argv[3])) if sys.argv[1] == "crashes" else many(Path(sys.argv[2])), sys.stdout
    )
