"""`fastkl.score` and `fastkl score`: values, summaries, output of the command, exit status; threads and clusters.

The formats have files of their own: test_batch_npy.py, test_batch_formats.py; checkpoints and output test_batch_output.py.
"""

from __future__ import annotations

import json
import math
import os
import re
import signal
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastkl
from fastkl import _kernels
from fastkl.__main__ import main
from fastkl.batch import cluster, operands, workers

ROWS, WIDTH = 500, 12
FIELDS = fastkl.Comparison._fields
KEYS = {"rows", "mean", "stderr", "min", "max", "max_row", "quantiles", "infinite", "invalid", "first_invalid_rows"}
SPEED = {"seconds", "rows_per_second", "bytes_per_second"}


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Parts of 21 rows, blocks of 4; files are named without their folder."""
    monkeypatch.setattr(operands, "PART", 21 * WIDTH * 8)
    monkeypatch.setattr(workers, "BLOCK", 4 * WIDTH * 8)
    monkeypatch.chdir(tmp_path)


def logits(seed: int, shape: tuple[int, ...] = (ROWS, WIDTH)) -> Any:
    return np.random.default_rng(seed).normal(size=shape)


def rows(seed: int) -> Any:
    weights = np.exp(logits(seed))
    return weights / weights.sum(-1, keepdims=True)


def labels() -> Any:
    return np.random.default_rng(9).integers(0, WIDTH, ROWS)


def save(**arrays: Any) -> list[str]:
    for name, array in arrays.items():
        np.save(f"{name}.npy", array)
    return [f"{name}.npy" for name in arrays]


def strict(text: str) -> Any:
    """The object of strict JSON: without the constants that only Python's reader accepts."""

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    return json.loads(text, parse_constant=refuse)


# Values

MEASURES = {"kl": fastkl.kl_divergence, "ce": fastkl.cross_entropy, "js": fastkl.js_divergence}
MEASURES |= {name: getattr(fastkl, name) for name in _kernels.MEASURES if getattr(fastkl, name) not in MEASURES.values()}


@pytest.mark.parametrize("threads", [1, 2, 7])
@pytest.mark.parametrize(("measure", "function"), MEASURES.items())
@pytest.mark.parametrize("from_logits", [False, True])
def test_values_are_those_of_the_measures(tier: str, measure: str, function: Any, from_logits: bool, threads: int) -> None:
    make = logits if from_logits else rows
    arrays = [make(1)] if measure == "entropy" else [make(1), make(2)]
    files = save(**dict(zip("pq", arrays, strict=False)))
    result = fastkl.score(*files, measure=measure, from_logits=from_logits, base=2, out="out.npy", threads=threads)
    expected = function(*arrays, from_logits=from_logits, base=2)
    np.testing.assert_array_equal(np.load("out.npy"), expected)
    assert result["rows"] == ROWS
    assert result["max"] == expected.max()
    assert result["max_row"] == expected.argmax()
    assert result["mean"] == pytest.approx(expected.mean(), rel=1e-12)


@pytest.mark.parametrize("with_labels", [False, True])
def test_comparison(tier: str, with_labels: bool) -> None:
    p, q, right = logits(1), logits(2), labels()
    files = save(p=p, q=q, right=right)[: 2 + with_labels]
    result = fastkl.score(*files, measure=None if with_labels else "compare", from_logits=True, out="out.npy")
    expected = fastkl.compare(p, q, right if with_labels else None, from_logits=True)
    out = np.load("out.npy")
    assert out.dtype.names == FIELDS[: None if with_labels else 7]
    for name in out.dtype.names:
        np.testing.assert_array_equal(out[name], getattr(expected, name), err_msg=name)
        assert result[name]["mean"] == pytest.approx(getattr(expected, name).mean(), rel=1e-12)
        assert result[name].keys() >= KEYS | SPEED
    assert out["same_argmax"].dtype == bool
    assert result["top1_agreement"] == pytest.approx(expected.same_argmax.mean())
    if with_labels:
        assert result["perplexity_p"] == pytest.approx(np.exp(expected.nll_p.mean()))
        assert result["perplexity_q"] == pytest.approx(np.exp(expected.nll_q.mean()))
        ratio = result["perplexity_q"] / result["perplexity_p"]
        assert result["nll_increase"]["mean"] == pytest.approx(math.log(ratio))
    else:
        assert "perplexity_p" not in result


def test_perplexity_does_not_depend_on_the_base() -> None:
    files = save(p=logits(1), q=logits(2), right=labels())
    nats, bits = (fastkl.score(*files, from_logits=True, base=base)["perplexity_q"] for base in (None, 2))
    assert bits == pytest.approx(nats)


def test_infinite_loss_gives_infinite_perplexity() -> None:
    q, right = logits(2), labels()
    q[3, right[3]] = -np.inf
    result = fastkl.score(*save(p=logits(1), q=q, right=right), from_logits=True)
    assert result["perplexity_q"] == math.inf > result["perplexity_p"]


def test_loss_of_labels(tier: str) -> None:
    p, right = logits(2), labels()
    files = save(p=p, right=right)
    fastkl.score(files[0], labels=files[1], measure="nll", from_logits=True, out="out.npy")
    np.testing.assert_array_equal(np.load("out.npy"), fastkl.nll(right, p, from_logits=True))


def test_integers_are_weights_for_a_cross_entropy() -> None:
    q = rows(2)
    with pytest.raises(fastkl.InvalidRowError, match=r"^right\.npy: p sums to .*class labels go to fastkl\.nll"):
        fastkl.score(*save(right=np.arange(WIDTH), q=q), measure="ce")
    files = save(p=np.eye(WIDTH, dtype=int)[labels()], q=q)
    fastkl.score(*files, measure="ce", out="out.npy")
    np.testing.assert_array_equal(np.load("out.npy"), fastkl.cross_entropy(np.eye(WIDTH, dtype=int)[labels()], q))


@pytest.mark.parametrize("names", ["pr", "rp"])
def test_one_row_serves_all_rows(names: str) -> None:
    arrays = {"p": rows(1), "r": rows(2)[:1]}
    fastkl.score(*save(**{name: arrays[name] for name in names}), out="out.npy")
    np.testing.assert_array_equal(np.load("out.npy"), fastkl.kl_divergence(*(arrays[name] for name in names)))


def test_leading_axes_are_kept() -> None:
    p, q = (rows(seed).reshape(20, 25, WIDTH) for seed in (1, 2))
    fastkl.score(*save(p=p, q=q), out="out.npy")
    np.testing.assert_array_equal(np.load("out.npy"), fastkl.kl_divergence(p, q))


def test_single_row() -> None:
    p, q = rows(1)[0], rows(2)[0]
    fastkl.score(*save(p=p, q=q), out="out.npy")
    assert np.load("out.npy") == fastkl.kl_divergence(p, q)


def test_no_rows() -> None:
    result = fastkl.score(*save(p=np.empty((0, 3)), q=np.empty((0, 3))), out="out.npy")
    assert result["rows"] == 0
    assert math.isnan(result["mean"])
    assert np.load("out.npy").shape == (0,)


def test_arrays_can_be_operands(tmp_path: Path) -> None:
    p, q = rows(1), rows(2)
    result = fastkl.score(p, save(q=q)[0], out=tmp_path / "out.npy")
    np.testing.assert_array_equal(np.load("out.npy"), fastkl.kl_divergence(p, q))
    assert result["rows"] == ROWS


def test_options_are_passed_to_the_measure() -> None:
    p, q = (np.random.default_rng(seed).integers(0, 9, (ROWS, WIDTH)) for seed in (1, 2))
    fastkl.score(*save(p=p, q=q), normalize=True, eps=1e-3, base=10, out="out.npy")
    np.testing.assert_array_equal(np.load("out.npy"), fastkl.kl_divergence(p, q, normalize=True, eps=1e-3, base=10))
    a, b = logits(1), logits(2)
    fastkl.score(*save(a=a, b=b), from_logits=True, temperature=3, out="out.npy")
    np.testing.assert_array_equal(np.load("out.npy"), fastkl.kl_divergence(a, b, from_logits=True, temperature=3))


@pytest.mark.parametrize("threads", [1, 3])
def test_invalid_rows(threads: int) -> None:
    p = rows(1)
    p[[77, 300]] *= 2
    p[401, 5] = -0.25
    files = save(p=p, q=rows(2))
    with pytest.raises(ValueError, match=r"^p\.npy: p\[77\] sums to 2: rows must sum to 1"):
        fastkl.score(*files, threads=threads)
    result = fastkl.score(*files, threads=threads, invalid="nan")
    assert (result["invalid"], result["first_invalid_rows"]) == (3, [77, 300, 401])


def test_messages_name_the_place_in_the_file() -> None:
    q = rows(2).reshape(5, 100, WIDTH)
    q[3, 42, 7] = np.nan
    with pytest.raises(ValueError, match=r"^q\.npy: q\[3, 42, 7\] = nan: probabilities must be finite"):
        fastkl.score(*save(p=rows(1).reshape(q.shape), q=q))
    right = labels()
    right[33] = WIDTH
    with pytest.raises(ValueError, match=rf"^right\.npy: labels\[33\] = {WIDTH}: labels must be in 0\.\.{WIDTH - 1}"):
        fastkl.score(save(b=logits(2))[0], labels=save(right=right)[0], measure="nll", from_logits=True)
    with pytest.raises(ValueError, match=rf"^right\.npy: labels\[33\] = {WIDTH}"):
        fastkl.score(*save(a=logits(1), b=logits(2), right=right), from_logits=True)
    with pytest.raises(ValueError, match=r"^one\.npy: q\[0, 1\] = -1\.0"):
        fastkl.score(*save(p=rows(1), one=[[2.0, -1.0, *[0.0] * 10]]))


# Arguments


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"measure": "mse"}, ValueError, "measure='mse': must be one of kl, ce, js, entropy, nll, compare"),
        ({"measure": "entropy"}, ValueError, "q: must be left out for entropy"),
        ({"q": None}, ValueError, "q: must be given for kl"),
        ({"labels": "right.npy", "measure": "kl"}, ValueError, "labels: only for measure compare or nll"),
        ({"measure": "nll", "q": None}, ValueError, "labels: must be given for nll"),
        ({"measure": "nll", "labels": "right.npy"}, ValueError, "q: must be left out for nll"),
        (
            {"measure": "nll", "q": None, "labels": "right.npy", "from_logits": "p"},
            ValueError,
            "from_logits='p': must be a bool",
        ),
        ({"labels": "p.npy"}, TypeError, "p.npy has dtype float64: labels must be of an integer dtype"),
        (
            {"q": "narrow.npy"},
            ValueError,
            r"p.npy has shape \(500, 12\) and narrow.npy has shape \(500, 3\): must have the same",
        ),
        ({"q": "short.npy"}, ValueError, r"short.npy has rows of shape \(7,\), and p.npy \(500,\): must be the same"),
        ({"q": "words.npy"}, TypeError, "words.npy has dtype <U1: must be float64"),
        ({"q": "missing.npy"}, FileNotFoundError, "missing.npy"),
        ({"base": 1}, ValueError, "base=1: must be None or a finite number above 1"),
        ({"temperature": 2}, ValueError, "temperature=2: must be 1 where no operand holds logits"),
        ({"eps": 2}, ValueError, "eps=2: must be"),
        ({"eps": 0.1, "measure": "js"}, ValueError, "eps=0.1: only for measure kl, ce or nll"),
        ({"from_logits": "yes"}, ValueError, "from_logits='yes': must be False, True, 'p' or 'q'"),
        ({"invalid": "drop"}, ValueError, "invalid='drop': must be"),
        ({"threads": 0}, ValueError, "threads=0: must be None or a positive integer"),
        ({"resume": True}, ValueError, "resume: only with out"),
        ({"keys": ["id"]}, ValueError, "keys: only with out"),
        ({"out": "out.csv"}, ValueError, r"out is out\.csv: must end in \.npy, \.parquet or \.zarr"),
        ({"out": "out.npy", "keys": ["id"]}, ValueError, r"keys: only for Parquet, and out is out\.npy"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], error: type[Exception], message: str, tmp_path: Path) -> None:
    """They are refused before a row is read and before anything is written."""
    save(p=rows(1), q=rows(2), right=labels(), narrow=rows(1)[:, :3], short=rows(1)[:7], words=np.full((ROWS, WIDTH), "a"))
    before = sorted(tmp_path.iterdir())
    with pytest.raises(error, match=message):
        fastkl.score(**{"p": "p.npy", "q": "q.npy", **arguments})
    assert sorted(tmp_path.iterdir()) == before


def test_the_package_has_score_and_summary() -> None:
    assert {"score", "Summary"} <= set(dir(fastkl))
    with pytest.raises(AttributeError, match="no attribute 'scores'"):
        fastkl.scores  # noqa: B018


def test_import_leaves_batch_alone() -> None:
    """Programs that only compute do not wait for it."""
    script = "import sys, fastkl; assert not [name for name in sys.modules if name.startswith('fastkl.batch')]"
    subprocess.run([sys.executable, "-c", script], check=True)


# The command


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    p, q = rows(1), rows(2)
    p[4] = 2
    q[5] = np.eye(WIDTH)[0]
    files = save(p=p, q=q)
    assert main(["score", *files, "--invalid", "nan", "--json"]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert printed.out.count("\n") == 1
    result = strict(printed.out)
    assert result.keys() >= KEYS | SPEED
    expected = fastkl.kl_divergence(p, q, invalid="nan")
    finite = expected[np.isfinite(expected)]
    assert result["rows"] == ROWS
    assert result["mean"] == pytest.approx(finite.mean())
    assert result["quantiles"] == pytest.approx(
        {name: np.quantile(finite, float(name)) for name in ("0.01", "0.05", "0.25", "0.5", "0.75", "0.95", "0.99")}
    )
    assert result["min"] == finite.min()
    assert (result["max"], result["max_row"], result["infinite"]) == (None, 5, 1)
    assert (result["invalid"], result["first_invalid_rows"]) == (1, [4])
    assert result["rows_per_second"] == pytest.approx(ROWS / result["seconds"])
    assert result["bytes_per_second"] == pytest.approx(ROWS * 2 * WIDTH * 8 / result["seconds"])


def test_json_of_a_comparison(capsys: pytest.CaptureFixture[str]) -> None:
    p, q, right = save(p=logits(1), q=logits(2), right=labels())
    assert main(["score", p, q, "--labels", right, "--from-logits", "--json"]) == 0
    result = strict(capsys.readouterr().out)
    assert [name for name in FIELDS if result[name].keys() >= KEYS | SPEED] == list(FIELDS)
    assert result.keys() >= SPEED | {"rows", "top1_agreement", "perplexity_p", "perplexity_q"}


def test_text(capsys: pytest.CaptureFixture[str]) -> None:
    p, q = rows(1), rows(2)
    p[[3, *range(100, 120)]] = 2
    q[5] = np.eye(WIDTH)[0]
    assert main(["score", *save(p=p, q=q), "--invalid", "nan", "--base", "2"]) == 0
    text = capsys.readouterr().out
    lines = {line[2:18].strip(): line[18:] for line in text.splitlines()}
    assert lines["mean"].startswith(f"{np.nanmean(np.delete(fastkl.kl_divergence(p, q, invalid='nan', base=2), 5)):.6g} ± ")
    assert lines["infinite"] == "1 rows: 5"
    assert lines["invalid"] == "21 rows: 3, 100, 101, 102, 103, 104, 105, 106, 107, 108, ..."
    assert lines["min, max"].endswith("inf in row 5")
    assert lines["values in"] == "bits"


def test_text_of_a_comparison(capsys: pytest.CaptureFixture[str]) -> None:
    p, q, right = save(p=logits(1), q=logits(2), right=labels())
    assert main(["score", p, q, "--labels", right, "--from-logits"]) == 0
    text = capsys.readouterr().out
    names = [line.split()[0] for line in text.splitlines()[1:11]]
    assert names == [*FIELDS, "nll_increase"]
    assert "perplexity of p" in text
    assert "same argmax" in text


@pytest.mark.parametrize(
    "arguments",
    [["missing.npy", "q.npy"], ["p.npy", "q.npy", "--base", "1"], ["p.npy"], ["bad.npy", "q.npy"], ["p.npy", "words.npy"]],
)
def test_errors_are_one_line(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    save(p=rows(1), q=rows(2), bad=-rows(1), words=np.full((ROWS, WIDTH), "a"))
    assert main(["score", *arguments]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("fastkl: ")
    assert printed.err.count("\n") == 1


def test_interruption_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Where rows are safe, the line says so instead: test_batch_output.py."""

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("fastkl.batch.job.open_operands", interrupted)
    assert main(["score", "p.npy", "q.npy"]) == 130
    assert capsys.readouterr().err == "fastkl: interrupted\n"


def test_report(capsys: pytest.CaptureFixture[str]) -> None:
    p, q, right = save(p=logits(1), q=logits(2), right=labels())
    assert main(["score", p, q, "--labels", right, "--from-logits", "--report", "report.html"]) == 0
    page = Path("report.html").read_text(encoding="utf-8")
    for text in ("p.npy", "right.npy", "nll_increase", "<svg", "perplexity of q"):
        assert text in page


def test_report_of_one_field() -> None:
    fastkl.score(*save(p=rows(1), q=rows(2)), base=2, report="report.html")
    page = Path("report.html").read_text(encoding="utf-8")
    assert re.search(r"<h2[^>]*>\s*kl\b", page)
    assert "in bits" in page


def test_report_never_replaces_an_input() -> None:
    files = save(p=rows(1), q=rows(2))
    with pytest.raises(OSError, match=r"^q\.npy: is an input"):
        fastkl.score(*files, report="q.npy")


def test_no_bar_when_piped() -> None:
    files = save(p=rows(1), q=rows(2))
    done = subprocess.run([sys.executable, "-m", "fastkl", "score", *files], capture_output=True, text=True, check=True)
    assert done.stderr == ""


def test_bar_on_a_terminal() -> None:
    pytest.importorskip("tqdm")
    fcntl, termios = pytest.importorskip("fcntl"), pytest.importorskip("termios")
    files = save(p=rows(1), q=rows(2))
    terminal, end = os.openpty()
    fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack("4H", 24, 100, 0, 0))  # rows, columns
    command = [sys.executable, "-m", "fastkl", "score", *files]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=end) as child:
        os.close(end)
        drawn = b""
        try:
            while data := os.read(terminal, 4096):
                drawn += data
        except OSError:  # a terminal reports so that it has no writer left
            pass
        finally:
            os.close(terminal)
        assert child.wait() == 0
    assert b"0.00/500 rows" in drawn
    assert drawn.endswith(b"\r")


# Clusters


@pytest.fixture
def distributed() -> Any:
    return pytest.importorskip("distributed")


def test_cluster_survives_a_killed_worker(distributed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two processes, the one with the most tasks dies, and the result is still complete."""
    monkeypatch.setattr(cluster, "TASK", 2)
    p, q, right = logits(1), logits(2), labels()
    files = save(p=p, q=q, right=right)
    fastkl.score(*files, from_logits=True, out="threads.npy")
    killed = []

    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=50) as local,
        distributed.Client(local) as client,
    ):
        append = fastkl.batch.output.Draft.append

        def append_and_kill(draft: Any, values: Any) -> None:
            append(draft, values)
            if draft.rows >= ROWS // 2 and not killed:
                busy = max(client.processing().items(), key=lambda item: len(item[1]))[0]
                pid = client.run(os.getpid, workers=[busy])[busy]
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)

        monkeypatch.setattr(fastkl.batch.output.Draft, "append", append_and_kill)
        result = fastkl.score(*files, from_logits=True, out="cluster.npy", dask=client)
    assert killed
    assert Path("cluster.npy").read_bytes() == Path("threads.npy").read_bytes()
    assert result["rows"] == ROWS


def test_new_cluster_gives_the_same_result(distributed: Any, capsys: pytest.CaptureFixture[str]) -> None:
    p, q = save(p=rows(1), q=rows(2))
    assert main(["score", p, q, "--out", "a.npy", "--json"]) == 0
    assert main(["score", p, q, "--out", "b.npy", "--json", "--threads", "1", "--dask"]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert Path("a.npy").read_bytes() == Path("b.npy").read_bytes()
    one, other = ({k: v for k, v in strict(line).items() if k not in SPEED} for line in printed.out.splitlines())
    assert one == other


def test_errors_of_cluster_workers_are_raised(distributed: Any) -> None:
    p = rows(1)
    p[321] = 2
    files = save(p=p, q=rows(2))
    with distributed.LocalCluster(n_workers=1, dashboard_address=None, silence_logs=50, processes=False) as local:
        with pytest.raises(ValueError, match=r"p\.npy: p\[321\] sums to"):
            fastkl.score(*files, dask=local.scheduler_address)
        with pytest.raises(TypeError, match="p is an array: workers read files"):
            fastkl.score(rows(1), "q.npy", dask=local.scheduler_address)


def test_without_distributed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ImportError, match=r"a Dask cluster needs dask and distributed: pip install 'fastkl\[dask\]'"):
        fastkl.score(*save(p=rows(1), q=rows(2)), dask="")
