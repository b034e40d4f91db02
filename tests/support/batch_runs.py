"""Runs `fastkl score` in processes of its own: in small parts, and interrupted. The tests of fastkl.batch start it.

    python -m support.batch_runs run '{"pause": 3}' P Q --out ...   one run; `run` describes the options
    python -m support.batch_runs crashes SHARE                      a run killed before each system call, then resumed
    python -m support.batch_runs many                               the runs that standard input lists, all in this process

Knows nothing of right results, except in `crashes`, where they are those of an uninterrupted run.
"""

import contextlib
import io
import itertools
import json
import os
import random
import re
import shutil
import signal
import stat
import subprocess
import sys
import traceback
import warnings
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

import fastkl
from fastkl.__main__ import main
from fastkl.batch import operands, output, workers, writers

PART_ROWS = 64  # rows of 4 doubles; the bytes of a part and of a block are set accordingly
SPEED = ("seconds", "rows_per_second", "bytes_per_second")


def start(mode, *arguments):
    """A process of this program, with the fastkl that is tested."""
    from support.processes import program  # it needs pytest, for which the process itself need not wait

    command, environment = program("batch_runs")
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    environment["OPENBLAS_NUM_THREADS"] = "1"
    return subprocess.Popen([*command, mode, *map(str, arguments)], **pipes, text=True, env=environment)


def output_of(mode, *arguments, said=""):
    """The standard output of a process of this program, which must not fail."""
    child = start(mode, *arguments)
    output, errors = child.communicate(said)
    assert (child.returncode, errors) == (0, "")
    return output


def in_small_parts(change=setattr):
    """Parts of a few rows, blocks of fewer, and a checkpoint after each part."""
    change(operands, "PART", PART_ROWS * 32)
    change(workers, "BLOCK", 480)
    change(workers, "PYTHON_BLOCK", 480)
    change(output, "SECONDS", 0)
    change(output, "SHARE", 0)


def after_each_part(do, change):
    """Call a function with the number of each part when it is written, from 1 on."""
    append, numbers = output.Draft.append, itertools.count(1)

    def append_and_do(draft, values):
        append(draft, values)
        do(next(numbers))

    change(output.Draft, "append", append_and_do)


def call_after(parts, do, change):
    """Call a function when that many parts are written."""
    after_each_part(lambda part: do() if part == parts else None, change)


def interrupt(*_):
    raise KeyboardInterrupt


def local_cluster(**keywords):
    """A Dask cluster of one worker in this process, at any free port, because several tests may run at once."""
    from distributed import LocalCluster

    port = {"dashboard_address": None, "scheduler_kwargs": {"dashboard_address": "127.0.0.1:0"}}
    return LocalCluster(**{"n_workers": 1, "processes": False, "silence_logs": 50} | port | keywords)


def without_speed(x):
    """A summary without the times, which differ between runs."""
    return {key: without_speed(value) for key, value in x.items() if key not in SPEED} if isinstance(x, dict) else x


def peak():
    """The peak memory of this process in bytes. Except on Linux, it includes that before it became this program."""
    if sys.platform == "win32":
        return 0
    import resource

    status = Path("/proc/self/status")
    if status.exists():
        return int(re.search(r"VmHWM:\s+(\d+) kB", status.read_text())[1]) * 1024  # type: ignore[index]
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def run(options, arguments, change=setattr):
    """Print the number of each part when it is written, then the summary; the exit status. `change` sets attributes.

    Options: `pause` after that many parts, until a line arrives on standard input; `largest` size of a file in bytes;
    `no_reserve`: the system cannot reserve space; `large`: parts and checkpoints as users have them; `peak`: a last line
    with the peak resident size.
    """
    if not options.get("large"):
        in_small_parts(change)
    if options.get("no_reserve") and hasattr(os, "posix_fallocate"):
        del os.posix_fallocate
    if "largest" in options:
        import resource

        fastkl.build_info()  # at its first use, LLVM's OpenMP creates a file
        resource.setrlimit(resource.RLIMIT_FSIZE, (options["largest"], options["largest"]))

    def tell(part):
        print(part, flush=True)
        if part == options.get("pause"):
            sys.stdin.readline()

    after_each_part(tell, change)
    status = main(["score", *arguments])
    if options.get("peak"):
        print(peak())
    return status


CHANGING = ("open", "write", "fsync", "replace", "ftruncate", "posix_fallocate")
OUT = Path("out", "out.npy")
MOST = 1 << 20  # bytes: more than any file has


class Crash(NamedTuple):
    """A kind of crash: whether the result has another format than a draft, and what a power cut loses.

    `data`: whether bytes that were not synced are lost. `names`: the share of the names made, moved or removed since their
    folder was synced that are as before.
    """

    anew: bool
    data: bool
    names: float


class Disk:
    """Kills the process before one of its system calls, after the losses of the crash."""

    def __init__(self, crash, kill_before):
        self._crash, self._left, self.calls = crash, kill_before, 0
        self._pick = random.Random(kill_before)
        self._files = {}  # inode: a descriptor, so that the inode is not used again
        self._names = {}
        self._changes = []  # of names since their folder was synced; 0: the name was removed
        self._call = {name: getattr(os, name) for name in CHANGING if hasattr(os, name)} | {"unlink": Path.unlink}
        self._look()
        self._synced = {inode: os.pread(fd, MOST, 0) for inode, fd in self._files.items()}
        self._synced_names, self._changes = self._names, []
        for name in self._call:
            owner = Path if name == "unlink" else os
            setattr(owner, name, self._counted(getattr(self, f"_{name}", self._call[name])))

    def _counted(self, call):
        def counted(*arguments, **keywords):
            self._look()
            if not self._left:
                self._cut()
            self._left -= 1
            self.calls += 1
            return call(*arguments, **keywords)

        return counted

    def _look(self):
        """Note the names that the last call changed."""
        before, self._names = self._names, {path: path.stat().st_ino for path in OUT.parent.iterdir()}
        self._changes += [dict.fromkeys(before.keys() - self._names, 0) | dict(self._names.items() - before.items())]
        for path, inode in self._names.items():
            if inode not in self._files:
                self._files[inode] = self._call["open"](path, os.O_RDONLY)

    def _cut(self):
        names = dict(self._synced_names)
        for change in self._changes:
            names |= change if self._pick.random() >= self._crash.names else {}
        held = {path: self._held(inode) for path, inode in names.items() if inode}
        for path in self._names:
            os.unlink(path)
        for path, data in held.items():
            path.write_bytes(data)
        os.kill(os.getpid(), signal.SIGKILL)

    def _held(self, inode):
        """What a file holds after the crash."""
        data = os.pread(self._files[inode], MOST, 0)
        return self._synced.get(inode, b"")[: len(data)].ljust(len(data), b"\0") if self._crash.data else data

    def _write(self, fd, data):
        """Write half of the data, which the system may do, too."""
        return self._call["write"](fd, data[: (len(data) + 1) // 2])

    def _fsync(self, fd):
        self._call["fsync"](fd)
        status = os.fstat(fd)
        if stat.S_ISDIR(status.st_mode):
            self._synced_names, self._changes = self._names, []
        else:
            self._synced[status.st_ino] = os.pread(self._files[status.st_ino], MOST, 0)


def another_format(dtype, shape, path, parts):
    """Stands for the other formats, in which the values are written again."""
    fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    data = memoryview(repr((dtype, shape)).encode() + b"".join(part.tobytes() for part in parts))
    while data:
        data = data[os.write(fd, data) :]
    os.close(fd)


def crashes(share):
    """Failures and numbers of system calls, of every `share`-th case and of those that move the result."""
    in_small_parts()
    rows = np.random.default_rng(1).random((2, 3 * PART_ROWS - 7, 4))
    for name, x in zip("pq", rows / rows.sum(axis=-1, keepdims=True), strict=True):
        np.save(f"{name}.npy", x)
    failures, calls, numbers = [], {}, itertools.count()
    for anew, losses in itertools.product((False, True), [(False, 0.0), (True, 0.0), (False, 1.0), (True, 0.5)]):
        crash = Crash(anew, *losses)
        OUT.parent.mkdir(exist_ok=True)
        _, *expected = run_on_disk(crash, -1)
        moving = int(Path("calls").read_text()) - 5
        for kill_before in itertools.count():
            if next(numbers) % share == 0 or kill_before >= moving:
                died, failure = judge(crash, kill_before, expected)
                failures += [f"{crash} before call {kill_before}: {failure}"] if failure else []
                if not died:
                    break
        calls[str(crash)] = kill_before
    return {"failures": failures, "calls": calls}


def judge(crash, kill_before, expected):
    """Whether a run was killed before that call, and the failure then or when it was killed again and resumed."""
    shutil.rmtree(OUT.parent)
    OUT.parent.mkdir()
    old = b"as it was before" if kill_before % 2 else None
    if old:
        OUT.write_bytes(old)
    kills, pick = [], random.Random(kill_before)
    again = pick.randrange(pick.choice([12, kill_before + 1]))  # often at the first calls, where a run begins anew
    for before in kill_before, again, -1:
        killed, there, summary = run_on_disk(crash, before)
        kills.append(killed)
        if there not in (old, expected[0]):
            return kills[0], "the final name holds another file"
    found = os.listdir(OUT.parent)
    if [there, summary] != expected or found != [OUT.name]:
        same = "the same" if there == expected[0] else "other"
        return kills[0], f"resumed, it gave {summary}, {same} values, and {found}"
    return kills[0], ""


def run_on_disk(crash, kill_before):
    """Whether it was killed, the result, and the summary."""
    pid = os.fork()
    if not pid:
        status = 99
        try:
            for fd, path in (1, "said"), (2, "errors"):
                os.dup2(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC), fd)
            if crash.anew:
                writers.find = lambda *arguments: partial(another_format, *arguments[3:])
            disk = Disk(crash, kill_before)
            status = main(["score", "p.npy", "q.npy", "--threads=1", "--json", "--resume", "--out", str(OUT)])
            Path("calls").write_text(str(disk.calls))
            sys.stdout.flush()
        finally:
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    there = OUT.read_bytes() if OUT.exists() else None
    if status:
        return status == -signal.SIGKILL, there, Path("errors").read_text()
    return False, there, without_speed(json.loads(Path("said").read_text()))


def many(runs):
    """Exit status and standard error of each run, all in one process with a limit of 500 MB; and the peak."""
    return json.loads(output_of("many", said=json.dumps(runs)))


def run_many(runs):
    if sys.platform == "linux":
        import resource

        now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + 500_000_000, now + 500_000_000))
    return {"results": [scored(arguments) for arguments in runs], "peak": peak()}


def scored(arguments):
    """Exit status and standard error of the command, with all warnings; -1 and the traceback of an error that it raises."""
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("always")
        try:
            status = main(["score", *arguments])
        except BaseException:
            status, _ = -1, traceback.print_exc()
    return status, errors.getvalue()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background processes ignore SIGINT
    mode, *arguments = sys.argv[1:]
    if mode == "run":
        sys.exit(run(json.loads(arguments[0]), arguments[1:]))
    report = crashes(int(arguments[0])) if mode == "crashes" else run_many(json.load(sys.stdin))
    json.dump(report, sys.stdout)
