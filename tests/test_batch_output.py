"""Results on the way to their file: kills, power cuts, full disks, Ctrl-C; and names that are in use.

tests/batch_runs.py interrupts the runs. With HYPOTHESIS_PROFILE=night there are 50 kills, and all crashes.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from batch_runs import PART_ROWS, without_speed
from hypothesis import settings

import fastkl
from fastkl.batch import operands, output, score

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Array = np.ndarray[Any, Any]

NIGHT = settings.default.max_examples > 100
PARTS = 48
posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals, limits, locks or names")


def start(mode: str, *arguments: Any) -> subprocess.Popen[str]:
    """A process of tests/batch_runs.py, with this fastkl."""
    path = os.pathsep.join([str(Path(fastkl.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, str(Path(__file__).with_name("batch_runs.py")), mode, *map(str, arguments)]
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1"},
    )


class Pair:
    """Two files of rows, and the result of an uninterrupted run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.p, self.q, self.out = (folder / f"{name}.npy" for name in ("p", "q", "out"))
        self.partial, self.checkpoint = (folder / f"out.npy.{end}" for end in ("partial", "checkpoint"))
        rows = np.random.default_rng(1).random((2, PARTS * PART_ROWS - 7, 4))
        for path, x in zip((self.p, self.q), rows / rows.sum(axis=-1, keepdims=True), strict=True):
            np.save(path, x)
        self.values = fastkl.kl_divergence(np.load(self.p), np.load(self.q))
        self.summary: Any = None

    def start(self, *arguments: Any, **options: Any) -> subprocess.Popen[str]:
        """Score the files, with those options of batch_runs.run."""
        return start("run", json.dumps(options), self.p, self.q, "--out", self.out, "--json", "--threads=2", *arguments)

    def run(self, *arguments: Any, **options: Any) -> tuple[int, list[str], list[str]]:
        """The exit status, and the lines of standard output and of standard error."""
        child = self.start(*arguments, **options)
        said, errors = child.communicate()
        return child.returncode, said.splitlines(), errors.splitlines()

    def stopped(self, parts: int = 5) -> int:
        """The number of safe rows, after a run is killed when it has written that many parts."""
        child = self.start(pause=parts)
        wait_for(child, parts)
        child.kill()
        child.communicate()
        assert not self.out.exists()
        return parts * PART_ROWS

    def check_complete(self, result: tuple[int, list[str], list[str]], parts: int = PARTS) -> None:
        """Assert that a run ended well after that many parts, with the files of an uninterrupted run."""
        status, said, errors = result
        assert (status, errors, len(said)) == (0, [], parts + 1)
        expected = self.folder / "expected"
        if self.summary is None:
            np.save(expected, self.values)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(operands, "PART", PART_ROWS * 32)
                self.summary = json.loads(json.dumps(without_speed(score(self.p, self.q))))
        assert self.out.read_bytes() == expected.with_suffix(".npy").read_bytes()
        assert without_speed(json.loads(said[-1])) == self.summary
        assert not list(self.folder.glob("out.npy.*"))


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return Pair(tmp_path)


def wait_for(child: subprocess.Popen[str], parts: int) -> None:
    """Return when the child has written that many parts."""
    assert child.stdout is not None
    for line in child.stdout:
        if int(line) == parts:
            return
    raise AssertionError(child.communicate()[1])


# ---- kills ----


def test_run_killed_many_times_gives_the_same_result(pair: Pair) -> None:
    pick = random.Random(1)
    signals = [signal.SIGTERM] if sys.platform == "win32" else [signal.SIGKILL, signal.SIGKILL, signal.SIGINT]
    kills = rounds = 0
    np.save(pair.folder / "expected", pair.values)
    while kills < (50 if NIGHT else 6) or rounds < 1:
        child = pair.start("--resume")
        assert child.stdout is not None
        parts = pick.randrange(1, PARTS // 3)
        for line in child.stdout:
            if line.startswith("{"):
                break
            parts -= 1
            if not parts:
                child.send_signal(pick.choice(signals))
                kills += 1
                break
        child.communicate()
        if child.returncode == 0 and not pair.checkpoint.exists():
            rounds += 1
            pair.out.unlink()
        else:
            assert not pair.out.exists() or pair.out.read_bytes() == (pair.folder / "expected.npy").read_bytes()
    result = pair.run("--resume")
    pair.check_complete(result, len(result[1]) - 1)


@posix
def test_run_can_die_before_any_system_call(tmp_path: Path) -> None:
    """Also with the losses of a power cut. Each run is killed, killed again while it resumes, and resumed."""
    child = start("crashes", tmp_path, 1 if NIGHT else 25)
    report, errors = child.communicate()
    assert child.returncode == 0, errors
    report = json.loads(report)
    assert not report["failures"], "\n".join(report["failures"][:10])
    assert min(report["calls"].values()) > 30
    assert len(report["calls"]) == 8


@posix
def test_ctrl_c_says_how_many_rows_are_safe(pair: Pair) -> None:
    child = pair.start(pause=9)
    wait_for(child, 9)
    child.send_signal(signal.SIGINT)
    errors = child.communicate()[1]
    rows = 9 * PART_ROWS
    assert child.returncode == 130
    assert errors == f"fastkl: {pair.out}: {rows} of {len(pair.values)} rows are safe: resume goes on after them\n"
    assert json.loads(pair.checkpoint.read_text().splitlines()[0])["rows"] == rows
    pair.check_complete(pair.run("--resume"), PARTS - 9)


def test_old_result_stays_until_the_new_one_is_complete(pair: Pair) -> None:
    pair.out.write_bytes(b"old")
    child = pair.start(pause=5)
    wait_for(child, 5)
    child.kill()
    child.communicate()
    assert pair.out.read_bytes() == b"old"
    pair.check_complete(pair.run("--resume"), PARTS - 5)


def test_partial_file_without_checkpoint_is_written_again(pair: Pair) -> None:
    pair.stopped()
    pair.checkpoint.unlink()
    pair.check_complete(pair.run())


def test_checkpoint_without_partial_file_is_ignored(pair: Pair) -> None:
    """A kill between moving the file and removing the checkpoint leaves this state."""
    pair.stopped()
    pair.partial.unlink()
    pair.check_complete(pair.run("--resume"))


# ---- disks ----


@posix
def test_too_small_disk_is_an_error_at_the_start(pair: Pair) -> None:
    """Where the system can reserve space; on macOS the error comes when the disk is full."""
    status, said, errors = pair.run(largest=9000)
    assert (status, errors) == (1, [f"fastkl: {pair.partial}: File too large"])
    assert not pair.out.exists()
    if hasattr(os, "posix_fallocate"):
        assert not said
        assert not pair.partial.exists()
    parts = (9000 - 128) // (8 * PART_ROWS) if pair.checkpoint.exists() else 0
    pair.check_complete(pair.run("--resume"), PARTS - parts)


@posix
def test_full_disk_keeps_the_safe_rows(pair: Pair) -> None:
    status, said, errors = pair.run(largest=9000, no_reserve=True)
    assert (status, errors) == (1, [f"fastkl: {pair.partial}: File too large"])
    parts = (9000 - 128) // (8 * PART_ROWS)
    assert len(said) == parts
    assert not pair.out.exists()
    pair.check_complete(pair.run("--resume"), PARTS - parts)


@posix
def test_disk_without_room_for_a_checkpoint(pair: Pair) -> None:
    np.save(pair.p, np.load(pair.p)[:3])
    np.save(pair.q, np.load(pair.q)[:3])
    pair.values = pair.values[:3]
    status, _, errors = pair.run(largest=200)
    assert (status, errors) == (1, [f"fastkl: {pair.checkpoint}: File too large"])
    assert not list(pair.folder.glob("out*"))
    pair.check_complete(pair.run(), 1)


@posix
def test_folder_that_is_not_writable(pair: Pair) -> None:
    folder = pair.folder / "locked"
    folder.mkdir(mode=0o500)
    if os.access(folder, os.W_OK):  # the superuser may write there, but not to /sys
        folder = Path("/sys")
    with pytest.raises(OSError, match=r"denied|not permitted|Read-only") as caught:
        score(pair.p, pair.q, out=folder / "out.npy")
    assert caught.value.filename == str(folder / "out.npy.partial")


# ---- names in use ----


def refused(pair: Pair, message: str, error: type[Exception] = OSError, **options: Any) -> None:
    """Assert that a call raises, and neither writes nor removes a file."""

    def there() -> dict[str, bytes]:
        return {str(x): b"" if x.is_dir() or not x.exists() else x.read_bytes() for x in sorted(pair.folder.rglob("*"))}

    before = there()
    with pytest.raises(error, match=message):
        score(pair.p, pair.q, **{"out": pair.out, **options})
    assert there() == before


@posix
@pytest.mark.parametrize("end", ["", ".partial", ".checkpoint"])
@pytest.mark.parametrize("target", ["q.npy", "elsewhere", "nowhere"])
def test_links_are_not_followed(pair: Pair, end: str, target: str) -> None:
    (pair.folder / "elsewhere").write_bytes(b"precious")
    (pair.folder / f"out.npy{end}").symlink_to(pair.folder / target)
    refused(pair, rf"out\.npy{end}: is (a link: a result never follows one|an input: a result never overwrites one)")


@posix
def test_link_with_the_name_of_a_new_checkpoint(pair: Pair) -> None:
    (pair.folder / "elsewhere").write_bytes(b"precious")
    (pair.folder / "out.npy.checkpoint.new").symlink_to(pair.folder / "elsewhere")
    pair.check_complete(pair.run())
    assert (pair.folder / "elsewhere").read_bytes() == b"precious"


@pytest.mark.parametrize("end", ["", ".partial", ".checkpoint"])
def test_folders_are_not_replaced(pair: Pair, end: str) -> None:
    (pair.folder / f"out.npy{end}").mkdir()
    refused(pair, rf"out\.npy{end}: is no regular file")


@pytest.mark.parametrize("end", ["", ".partial", ".checkpoint", ".new", ".checkpoint.new"])
@pytest.mark.parametrize("argument", ["out", "report"])
def test_names_beside_the_result_must_not_be_inputs(pair: Pair, end: str, argument: str) -> None:
    pair.q = pair.q.rename(pair.folder / f"out.npy{end}")
    refused(pair, rf"out\.npy{end}: is an input: a result never overwrites one", **{"out": None, argument: pair.out})


@posix
@pytest.mark.parametrize("end", ["", ".partial", ".checkpoint.new"])
def test_input_is_recognised_by_another_name(pair: Pair, end: str) -> None:
    os.link(pair.q, pair.folder / f"out.npy{end}")
    refused(pair, rf"out\.npy{end}: is an input: a result never overwrites one")


@posix
def test_input_is_recognised_through_a_linked_folder(pair: Pair) -> None:
    (pair.folder / "link").symlink_to(pair.folder)
    refused(pair, r"link/q\.npy: is an input", out=pair.folder / "link" / "q.npy")


@posix
def test_partial_file_with_another_name_is_refused(pair: Pair) -> None:
    pair.partial.write_bytes(b"of a backup, say")
    os.link(pair.partial, pair.folder / "backup")
    refused(pair, r"out\.npy\.partial: has another name")


@pytest.mark.parametrize("end", ["", ".partial", ".checkpoint", ".new", ".checkpoint.new"])
def test_report_needs_a_name_of_its_own(pair: Pair, end: str) -> None:
    refused(pair, "or a file beside it", ValueError, report=pair.folder / "." / f"out.npy{end}")


def test_missing_folder_is_named(pair: Pair) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        score(pair.p, pair.q, out=pair.folder / "nowhere" / "out.npy")
    assert caught.value.filename == str(pair.folder / "nowhere")


# ---- two runs ----


@posix
@pytest.mark.parametrize("resume", [False, True])
def test_second_run_with_the_same_name_is_refused(pair: Pair, resume: bool) -> None:
    child = pair.start(pause=5)
    wait_for(child, 5)
    refused(pair, r"out\.npy\.partial: another run is writing it", resume=resume)
    said, errors = child.communicate("\n")
    pair.check_complete((child.returncode, ["before"] * 5 + said.splitlines(), errors.splitlines()))


@posix
def test_result_of_a_run_that_just_ended_is_kept(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other run ends between opening and locking the partial file, which is then the result."""
    flock = output.fcntl.flock

    def late(fd: int, operation: int) -> None:
        os.write(fd, b"complete")
        pair.partial.rename(pair.out)
        flock(fd, operation)

    monkeypatch.setattr(output.fcntl, "flock", late)
    with pytest.raises(OSError, match="another run is writing it"):
        score(pair.p, pair.q, out=pair.out)
    assert pair.out.read_bytes() == b"complete"


# ---- checkpoints ----


def test_resuming_needs_the_option(pair: Pair) -> None:
    rows = pair.stopped()
    refused(pair, f"a run stopped after {rows} of {len(pair.values)} rows: resume it, or delete this file", FileExistsError)


OTHERS: dict[str, dict[str, Any]] = {
    "base": {"base": 2},
    "measure": {"measure": "js"},
    "normalize": {"normalize": True},
    "from_logits": {"from_logits": np.True_, "temperature": np.float64(2)},
}


@pytest.mark.parametrize("name", OTHERS)
def test_checkpoint_of_other_options_is_refused(pair: Pair, name: str) -> None:
    pair.stopped()
    refused(pair, f"is of another job: .*{name}", ValueError, resume=True, **OTHERS[name])


def touched(pair: Pair) -> None:
    os.utime(pair.q, ns=(1, pair.q.stat().st_mtime_ns + 1))


def grown(pair: Pair) -> None:
    np.save(pair.q, np.load(pair.q)[:1])


def reshaped(pair: Pair) -> None:
    """Save the inputs in another shape, with the same size and time."""
    for path in pair.p, pair.q:
        before = path.stat().st_mtime_ns
        np.save(path, np.load(path)[None])
        os.utime(path, ns=(1, before))


@pytest.mark.parametrize("change", [touched, grown, reshaped])
def test_checkpoint_of_other_inputs_is_refused(pair: Pair, change: Callable[[Pair], None]) -> None:
    pair.stopped()
    change(pair)
    refused(pair, "is of another job", ValueError, resume=True)


def test_checkpoint_of_swapped_inputs_is_refused(pair: Pair) -> None:
    pair.stopped()
    pair.p, pair.q = pair.q, pair.p
    refused(pair, "is of another job", ValueError, resume=True)


def damages(data: bytes) -> Iterator[bytes]:
    yield from (b"", b"\n", b"{}", data[:-20], data[: len(data) // 2], data * 2, b"[" * 9999, b"\xff" * 99)
    for known in [[], {}, {"rows": 1}, {"format": 9, "rows": 64}, 7, "text"]:
        text = json.dumps(known).encode()
        yield text + b"\n%08x\n" % zlib.crc32(text)
    pick = random.Random(1)
    for _ in range(200):
        place, flip = pick.randrange(len(data) - 1), 1 << pick.randrange(8)
        damaged = data[:place] + bytes([data[place] ^ flip]) + data[place + 1 :]
        if (
            damaged.swapcase() != data.swapcase() and damaged.lower() != data.lower()
        ):  # not only the case of a digit of the checksum
            yield damaged


def test_damaged_checkpoint_is_refused(pair: Pair) -> None:
    pair.stopped()
    data = pair.checkpoint.read_bytes()
    for damaged in damages(data):
        pair.checkpoint.write_bytes(damaged)
        refused(pair, "is damaged, or of another version of fastkl: delete it to start anew", ValueError, resume=True)
    pair.checkpoint.write_bytes(data)
    pair.check_complete(pair.run("--resume"), PARTS - 5)


@pytest.mark.parametrize("place", [3, 100, 128, 128 + 8 * 5 * PART_ROWS - 1])
def test_partial_file_unlike_its_checkpoint_is_refused(pair: Pair, place: int) -> None:
    """Its header or values differ, or it is shorter."""
    pair.stopped()
    data = bytearray(pair.partial.read_bytes())
    pair.partial.write_bytes(data[:place])
    refused(pair, "does not hold what its checkpoint says: delete both to start anew", ValueError, resume=True)
    data[place] ^= 1
    pair.partial.write_bytes(data)
    refused(pair, "does not hold what its checkpoint says: delete both to start anew", ValueError, resume=True)


def test_bytes_after_the_safe_rows_do_not_matter(pair: Pair) -> None:
    rows = pair.stopped()
    data = pair.partial.read_bytes()[: 128 + 8 * rows]
    pair.partial.write_bytes(data + b"other" * 2 * len(pair.values))
    pair.check_complete(pair.run("--resume"), PARTS - 5)


def test_error_in_the_first_part_leaves_no_file(pair: Pair) -> None:
    x = np.load(pair.p)
    x[3] = np.nan
    np.save(pair.p, x)
    status, _, errors = pair.run()
    assert status == 1
    assert len(errors) == 1
    assert not list(pair.folder.glob("out.npy*"))


def test_later_error_keeps_the_safe_rows(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also before a checkpoint is due."""
    monkeypatch.setattr(operands, "PART", PART_ROWS * 32)
    monkeypatch.setattr(output, "SECONDS", 1e9)
    x = np.load(pair.p)
    x[30 * PART_ROWS] = np.nan
    np.save(pair.p, x)
    with pytest.raises(ValueError, match=f"p\\[{30 * PART_ROWS}, 0\\]"):
        score(pair.p, pair.q, out=pair.out, threads=1)
    assert json.loads(pair.checkpoint.read_text().splitlines()[0])["rows"] == 30 * PART_ROWS


# ---- inputs that change ----


def in_place(path: Path, place: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(place)
        file.write(data)
    os.utime(path, ns=(1, path.stat().st_mtime_ns + 1))  # a coarse clock may show no change


def replaced(path: Path) -> None:
    shutil.copy(path, path.with_name("copy"))
    path.with_name("copy").replace(path)


CHANGES: dict[str, Callable[[Path], None]] = {
    "truncated": lambda path: os.truncate(path, 30 * 32 * PART_ROWS),
    "emptied": lambda path: os.truncate(path, 0),
    "grown": lambda path: os.truncate(path, path.stat().st_size + 1),
    "edited": lambda path: in_place(path, 2000, b"\0"),
    "made invalid": lambda path: in_place(path, 40 * 32 * PART_ROWS, b"\xff" * 32),
    "replaced": replaced,
}


@posix
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("which", ["p", "q"])
def test_input_that_changes_ends_the_run(pair: Pair, change: str, which: str) -> None:
    child = pair.start(pause=6)
    wait_for(child, 6)
    CHANGES[change](pair.folder / f"{which}.npy")
    errors = child.communicate("\n")[1]
    assert child.returncode == 1
    message, _, row = errors.partition(", at row ")
    assert message == f"fastkl: {pair.folder / which}.npy: {which}.npy was changed while it was read"
    assert 6 * PART_ROWS <= int(row.partition(":")[0]) <= len(pair.values)
    assert errors.count("\n") == 1
    assert not pair.out.exists()
    assert json.loads(pair.checkpoint.read_text().splitlines()[0])["rows"] >= 6 * PART_ROWS
    status, _, refused = pair.run("--resume")
    assert status == 1
    assert len(refused) == 1


@posix
def test_input_removed_while_it_is_read_is_complete(pair: Pair) -> None:
    child = pair.start(pause=6)
    wait_for(child, 6)
    kept = pair.q.read_bytes()
    pair.q.unlink()
    said, errors = child.communicate("\n")
    assert (child.returncode, errors) == (0, "")
    pair.q.write_bytes(kept)
    pair.check_complete((0, ["before"] * 6 + said.splitlines(), []))
