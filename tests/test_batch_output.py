"""Results on the way to their file: kills, power cuts, full disks, Ctrl-C; and names that are in use.

tests/support/batch_runs.py interrupts the runs. With --slow there are more crashes, and at night all.
"""

import io
import json
import os
import random
import signal
import zlib
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import numpy as np
import pytest
from support.batch_runs import PART_ROWS, call_after, in_small_parts, interrupt, output_of, run, start, without_speed
from support.processes import NIGHT, posix

import fastkl
from fastkl.batch import output, score

PARTS, DONE = 48, 5  # of a complete run, and of one that stopped
ROWS = PARTS * PART_ROWS - 7
P, Q, OUT, PARTIAL, CHECKPOINT = map(Path, ("p.npy", "q.npy", "out.npy", "out.npy.partial", "out.npy.checkpoint"))
ARGUMENTS = ("p.npy", "q.npy", "--out", "out.npy", "--json", "--threads=2")
HEADER = 128  # bytes before the values
slow, stopped = pytest.mark.slow, pytest.mark.usefixtures("_stopped")


@pytest.fixture(autouse=True)
def _inputs(tmp_path, monkeypatch):
    """Files are named without their folder."""
    monkeypatch.chdir(tmp_path)
    rows = np.random.default_rng(1).random((2, ROWS, 4))
    for path, x in zip((P, Q), rows / rows.sum(axis=-1, keepdims=True), strict=True):
        np.save(path, x)


def started(parts, *more):
    """A process that waits, because it has written that many parts."""
    child = start("run", json.dumps({"pause": parts}), *ARGUMENTS, *more)
    assert child.stdout is not None
    for line in child.stdout:
        if int(line) == parts:
            return child
    raise AssertionError(child.communicate()[1])


def ended(child, said=""):
    output, errors = child.communicate(said)
    return child.returncode, output.splitlines(), errors.splitlines()


def scored(*more, **options):
    """Score the files; with options of batch_runs.run, in another process."""
    if options:
        return ended(start("run", json.dumps(options), *ARGUMENTS, *more))
    said, errors = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(said), redirect_stderr(errors):
        status = run({}, [*ARGUMENTS, *more], patch.setattr)
    return status, said.getvalue().splitlines(), errors.getvalue().splitlines()


@pytest.fixture
def _stopped(_inputs, monkeypatch):
    """A run stopped after some parts."""
    with monkeypatch.context() as patch:
        call_after(DONE, interrupt, patch.setattr)
        assert scored()[0] == 130


def expected():
    """The file of an uninterrupted run."""
    file = io.BytesIO()
    np.save(file, fastkl.kl_divergence(np.load(P), np.load(Q)))
    return file.getvalue()


def check_complete(result, parts=PARTS):
    """Assert that a run ended well after that many parts, with the files and the summary of an uninterrupted run."""
    status, said, errors = result
    assert (status, errors, len(said)) == (0, [], parts + 1)
    with pytest.MonkeyPatch.context() as patch:
        in_small_parts(patch.setattr)
        summary = json.loads(json.dumps(without_speed(score(P, Q))))
    assert OUT.read_bytes() == expected()
    assert without_speed(json.loads(said[-1])) == summary
    assert not [*Path().glob("out.npy.*")]


def safe_rows():
    """The number of rows that the checkpoint counts."""
    return json.loads(CHECKPOINT.read_text().splitlines()[0])["rows"]


@posix
@pytest.mark.parametrize("share", [200, pytest.param(1 if NIGHT else 25, marks=slow)])
def test_run_can_die_before_any_system_call(share):
    """Also with the losses of a power cut. Each run is killed, killed again while it resumes, and resumed."""
    report = json.loads(output_of("crashes", share))
    assert not report["failures"], "\n".join(report["failures"][:10])
    assert min(report["calls"].values()) > 30
    assert len(report["calls"]) == 8


@posix
def test_ctrl_c_says_how_many_rows_are_safe():
    child = started(9)
    child.send_signal(signal.SIGINT)
    status, _, errors = ended(child)
    assert status == 130
    assert errors == [f"fastkl: out.npy: {9 * PART_ROWS} of {ROWS} rows are safe: resume goes on after them"]
    assert safe_rows() == 9 * PART_ROWS
    check_complete(scored("--resume"), PARTS - 9)


def test_old_result_stays_while_runs_are_killed():
    OUT.write_bytes(b"old")
    for parts in 9, 1, 5:
        child = started(parts, "--resume")
        child.kill()
        child.communicate()
        assert OUT.read_bytes() == b"old"
    check_complete(scored("--resume"), PARTS - 9 - 1 - 5)


@stopped
@pytest.mark.parametrize(("missing", "options"), [(CHECKPOINT, []), (PARTIAL, ["--resume"])])
def test_one_file_without_the_other_is_written_again(missing, options):
    """A kill between moving the file and removing the checkpoint leaves the latter."""
    missing.unlink()
    check_complete(scored(*options))


@posix
@pytest.mark.parametrize("no_reserve", [False, True])
def test_too_small_disk(no_reserve):
    """It is an error at the start where the system can reserve space, else when it is full: the safe rows are kept."""
    status, said, errors = scored(largest=9000, no_reserve=no_reserve)
    assert (status, errors) == (1, ["fastkl: out.npy.partial: File too large"])
    assert not OUT.exists()
    parts = (9000 - HEADER) // (8 * PART_ROWS)
    if hasattr(os, "posix_fallocate") and not no_reserve:
        assert not PARTIAL.exists()
        parts = 0
    assert len(said) == parts
    check_complete(scored("--resume"), PARTS - parts)


@posix
def test_disk_without_room_for_a_checkpoint():
    for path in P, Q:
        np.save(path, np.load(path)[:3])
    status, _, errors = scored(largest=200)
    assert (status, errors) == (1, ["fastkl: out.npy.checkpoint: File too large"])
    assert not [*Path().glob("out*")]
    check_complete(scored(), 1)


@posix
def test_folder_that_is_missing_or_not_writable_is_named():
    with pytest.raises(FileNotFoundError) as caught:
        score(P, Q, out=Path("nowhere", "out.npy"))
    assert caught.value.filename == "nowhere"
    folder = Path("locked")
    folder.mkdir(mode=0o500)
    if os.access(folder, os.W_OK):  # the superuser may write there, but not to /sys
        folder = Path("/sys")
    with pytest.raises(OSError, match=r"denied|not permitted|Read-only") as denied:
        score(P, Q, out=folder / "out.npy")
    assert denied.value.filename == str(folder / "out.npy.partial")


def refused(message, error=OSError, **options):
    """Assert that a call raises, and neither writes nor removes a file."""

    def there():
        return {str(x): b"" if x.is_dir() or not x.exists() else x.read_bytes() for x in sorted(Path().rglob("*"))}

    before = there()
    with pytest.raises(error, match=message):
        score(**{"p": P, "q": Q, "out": OUT, **options})
    assert there() == before


ENDS = ["", ".partial", ".checkpoint", ".new", ".checkpoint.new"]
LINK, INPUT = "is a link: a result never follows one", "is an input: a result never overwrites one"
IN_USE = {
    "link": (lambda name: os.symlink(Path("elsewhere").absolute(), name), LINK),
    "dangling link": (lambda name: os.symlink("nowhere", name), LINK),
    "link to an input": (lambda name: os.symlink("q.npy", name), f"{LINK}|{INPUT}"),
    "other name of an input": (lambda name: os.link("q.npy", name), INPUT),
    "folder": (os.mkdir, "is no regular file"),
}


@posix
@pytest.mark.parametrize("end", ENDS[:3])
@pytest.mark.parametrize("use", IN_USE)
def test_names_in_use_are_refused(end, use):
    Path("elsewhere").write_bytes(b"precious")
    make, message = IN_USE[use]
    make(f"out.npy{end}")
    refused(rf"out\.npy{end}: ({message})")


@posix
def test_files_with_other_names_are_refused():
    os.symlink(".", "link")
    refused(r"link/q\.npy: is an input", out=Path("link", "q.npy"))
    PARTIAL.write_bytes(b"of a backup, say")
    os.link(PARTIAL, "backup")
    refused(r"out\.npy\.partial: has another name")


@posix
def test_link_with_the_name_of_a_new_checkpoint():
    Path("elsewhere").write_bytes(b"precious")
    os.symlink("elsewhere", "out.npy.checkpoint.new")
    check_complete(scored())
    assert Path("elsewhere").read_bytes() == b"precious"


@pytest.mark.parametrize("end", ENDS)
def test_names_beside_the_result_must_be_free(end):
    """No report and no input may have one of them."""
    refused("or a file beside it", ValueError, report=Path(os.getcwd(), ".", f"out.npy{end}"))
    q = Q.rename(f"out.npy{end}")
    for result in {"out": OUT}, {"out": None, "report": OUT}:
        refused(rf"out\.npy{end}: {INPUT}", q=q, **result)


@posix
def test_second_run_with_the_same_name_is_refused():
    child = started(DONE)
    for resume in False, True:
        refused(r"out\.npy\.partial: another run is writing it", resume=resume)
    check_complete(ended(child, "\n"), PARTS - DONE)


@posix
def test_result_of_a_run_that_just_ended_is_kept(monkeypatch):
    """The other run ends between opening and locking the partial file, which is then the result."""
    flock = output.fcntl.flock

    def late(fd, operation):
        os.write(fd, b"complete")
        PARTIAL.rename(OUT)
        flock(fd, operation)

    monkeypatch.setattr(output.fcntl, "flock", late)
    with pytest.raises(OSError, match="another run is writing it"):
        score(P, Q, out=OUT)
    assert OUT.read_bytes() == b"complete"


@stopped
def test_resuming_needs_the_option_and_the_same_job():
    message = f"a run stopped after {DONE * PART_ROWS} of {ROWS} rows: resume it, or delete this file"
    refused(message, FileExistsError)
    others = [{"base": 2}, {"measure": "js"}, {"normalize": True}]
    for options in *others, {"from_logits": np.True_, "temperature": np.float64(2)}:
        refused(f"is of another job: .*{next(iter(options))}", ValueError, resume=True, **options)


def test_resuming_needs_the_same_order(monkeypatch):
    """For a Rényi divergence."""
    arguments = ["--measure", "renyi_divergence", "--alpha", "2"]
    with monkeypatch.context() as patch:
        call_after(DONE, interrupt, patch.setattr)
        assert scored(*arguments)[0] == 130
    refused("is of another job: .*alpha", ValueError, resume=True, measure="renyi_divergence", alpha=3)
    assert scored(*arguments, "--resume")[0] == 0
    np.testing.assert_array_equal(np.load(OUT), fastkl.renyi_divergence(np.load(P), np.load(Q), 2))


def reshape():
    """Save the inputs in another shape, with the same size and time."""
    for path in P, Q:
        before = path.stat().st_mtime_ns
        np.save(path, np.load(path)[None])
        os.utime(path, ns=(1, before))


INPUTS = {
    "touched": lambda: os.utime(Q, ns=(1, Q.stat().st_mtime_ns + 1)),
    "shortened": lambda: np.save(Q, np.load(Q)[:1]),
    "reshaped": reshape,
    "swapped": lambda: (P.rename("x"), Q.rename(P), Path("x").rename(Q)),
}


@stopped
@pytest.mark.parametrize("change", INPUTS)
def test_checkpoint_of_other_inputs_is_refused(change):
    INPUTS[change]()
    refused("is of another job", ValueError, resume=True)


def damages(data):
    yield from (b"", b"\n", b"{}", data[:-20], data[: len(data) // 2], data * 2, b"[" * 9999, b"\xff" * 99)
    for known in [[], {}, {"rows": 1}, {"format": 9, "rows": 64}, 7, "text"]:
        text = json.dumps(known).encode()
        yield text + b"\n%08x\n" % zlib.crc32(text)
    pick = random.Random(1)
    for _ in range(200):
        place, flip = pick.randrange(len(data) - 1), 1 << pick.randrange(8)
        damaged = data[:place] + bytes([data[place] ^ flip]) + data[place + 1 :]
        if damaged.lower() != data.lower():  # not only the case of a digit of the checksum
            yield damaged


@stopped
def test_damaged_checkpoint_is_refused():
    data = CHECKPOINT.read_bytes()
    for damaged in damages(data):
        CHECKPOINT.write_bytes(damaged)
        refused("is damaged, or of another version of fastkl: delete it to start anew", ValueError, resume=True)
    CHECKPOINT.write_bytes(data)
    check_complete(scored("--resume"), PARTS - DONE)


@stopped
@pytest.mark.parametrize("place", [3, 100, HEADER, HEADER + 8 * DONE * PART_ROWS - 1])
def test_partial_file_unlike_its_checkpoint_is_refused(place):
    """It is shorter, or its header or values differ."""
    data = bytearray(PARTIAL.read_bytes())
    shorter = data[:place]
    data[place] ^= 1
    for held in shorter, data:
        PARTIAL.write_bytes(held)
        refused("does not hold what its checkpoint says: delete both to start anew", ValueError, resume=True)


@stopped
def test_bytes_after_the_safe_rows_do_not_matter():
    safe = PARTIAL.read_bytes()[: HEADER + 8 * DONE * PART_ROWS]
    PARTIAL.write_bytes(safe + b"other" * 2 * ROWS)
    check_complete(scored("--resume"), PARTS - DONE)


@pytest.mark.parametrize("parts", [0, 30])
def test_error_keeps_the_safe_rows(monkeypatch, parts):
    """Also before a checkpoint is due. Without such rows, no file is left."""
    in_small_parts(monkeypatch.setattr)
    monkeypatch.setattr(output, "SECONDS", 1e9)
    x = np.load(P)
    x[parts * PART_ROWS] = np.nan
    np.save(P, x)
    with pytest.raises(ValueError, match=f"p\\[{parts * PART_ROWS}, 0\\]"):
        score(P, Q, out=OUT, threads=1)
    assert sorted(Path().glob("out*")) == ([CHECKPOINT, PARTIAL] if parts else [])
    assert not parts or safe_rows() == parts * PART_ROWS


@posix
def test_input_removed_while_it_is_read_is_complete(monkeypatch):
    kept = Q.read_bytes()
    call_after(6, Q.unlink, monkeypatch.setattr)
    result = scored()
    Q.write_bytes(kept)
    check_complete(result)
