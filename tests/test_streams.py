"""The command's streams: closed, full, in another encoding. It ends with its own status, and its output is there."""

import os
import subprocess
import sys

import numpy as np
import pytest
from support.processes import INSTALLED, posix

import fastkl
from fastkl.batch import job


def status_of(tmp_path, arguments, redirection="", options=(), **environment):
    """The exit status of `fastkl` with the arguments, and what it printed."""
    command = [sys.executable, *options, "-m", "fastkl", *arguments]
    line = f'exec "$@" {redirection}'
    run = subprocess.run(
        ["sh", "-c", line, "sh", *command],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(INSTALLED)} | environment,
        capture_output=True,
    )
    return run.returncode, run.stdout, run.stderr


@pytest.fixture
def score(tmp_path):
    """The arguments of a run whose output is o.npy, and of one that fails."""
    np.save(tmp_path / "p.npy", np.full((5, 2), 0.5))
    np.save(tmp_path / "bad.npy", np.full((5, 2), 0.4))
    return lambda q="p.npy": ["score", "p.npy", q, "--out", "o.npy"]


full = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="only Linux has /dev/full")
slow = pytest.mark.slow
REDIRECTIONS = [
    "2>&-",
    "<&- >&- 2>&-",
    *(pytest.param(x, marks=[full, slow]) for x in (">&-", "2>/dev/null", "2>/dev/full")),
]


@posix
@pytest.mark.parametrize("redirection", REDIRECTIONS)
def test_status_is_that_of_the_work(redirection, score, tmp_path):
    assert status_of(tmp_path, score(), redirection)[0] == 0
    assert (np.load(tmp_path / "o.npy") == 0).all()
    assert status_of(tmp_path, score("bad.npy"), redirection)[0] == 1
    assert status_of(tmp_path, ["nothing"], redirection)[0] == 2


@posix
@full
def test_full_standard_output(score, tmp_path):
    """The summary is lost, which is an error; the values are not."""
    status, _, errors = status_of(tmp_path, score(), ">/dev/full")
    assert (status, errors.count(b"\n")) == (1, 1)
    assert (np.load(tmp_path / "o.npy") == 0).all()
    assert status_of(tmp_path, ["--help"], ">/dev/full") == (0, b"", b"")


@posix
@pytest.mark.parametrize(
    "encoding", ["ascii", *(pytest.param(x, marks=slow) for x in ("latin-1", "cp437:strict", "utf-16"))]
)
def test_any_encoding(encoding, score, tmp_path):
    for arguments in score(), ["info"]:
        assert status_of(tmp_path, arguments, PYTHONIOENCODING=encoding)[0] == 0


@posix
def test_legacy_locale_and_no_docstrings(score, tmp_path):
    legacy = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    assert status_of(tmp_path, score(), **legacy)[0] == 0
    os.remove(tmp_path / "o.npy")
    assert status_of(tmp_path, score(), options=["-OO"])[0] == 0


@posix
@pytest.mark.skipif(sys.platform == "darwin", reason="names of files are text there")
def test_names_that_are_no_text(score, tmp_path):
    name = os.fsdecode(b"n\xff.npy")
    os.rename(tmp_path / "bad.npy", tmp_path / name)
    arguments = ["score", name, name, "--normalize", "--json", "--out", f"{name}.npy", "--report", f"{name}.html"]
    assert status_of(tmp_path, arguments)[0] == 0
    assert len(np.load(tmp_path / f"{name}.npy")) == 5
    status, _, errors = status_of(tmp_path, score(name))
    assert (status, errors[:9]) == (1, b"fastkl: n")


def test_output_is_in_place_before_a_report_fails(score, tmp_path, monkeypatch):
    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(job, "html", fail)
    score()
    with pytest.raises(KeyboardInterrupt) as caught:
        fastkl.score("p.npy", "p.npy", out="o.npy", report="r.html")
    assert caught.value.args == ()  # there is nothing to resume
    assert sorted(x.name for x in tmp_path.iterdir()) == ["bad.npy", "o.npy", "p.npy"]


@pytest.mark.parametrize("loss", [710, 800, 1e5, 1e300, 1.7e308])
def test_perplexity_beyond_floats(loss):
    p = np.array([[0, loss]] * 4, float)
    result = fastkl.score(p, p, np.zeros(4, int), from_logits=True)
    assert (result["perplexity_p"], result["nll_p"]["mean"]) == (np.inf, loss)
