"""`fastkl.score` and `fastkl score`: values, summaries, output of the command, exit status; threads and clusters.

The formats have files of their own: test_batch_npy.py, test_batch_formats.py; checkpoints and output test_batch_output.py.
"""

import contextlib
import inspect
import json
import math
import os
import re
import signal
import socket
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support.batch_files import npy, refused, small_parts
from support.batch_runs import SPEED, call_after, interrupt, local_cluster, without_speed
from support.processes import INSTALLED, python

import fastkl
from fastkl import _kernels
from fastkl.__main__ import main
from fastkl.batch import cluster, operands
from fastkl.batch.readers import open_source

ROWS, WIDTH = 500, 12
_in_small_parts = small_parts(21 * WIDTH * 8, 4 * WIDTH * 8)  # 21 rows and 4 rows
FIELDS = fastkl.Comparison._fields
KEYS = {
    "rows",
    "ignored",
    "mean",
    "stderr",
    "min",
    "max",
    "max_row",
    "quantiles",
    "infinite",
    "invalid",
    "first_invalid_rows",
}
KEYS |= {*SPEED}


def logits(seed):
    return np.random.default_rng(seed).normal(size=(ROWS, WIDTH))


def rows(seed):
    weights = np.exp(logits(seed))
    return weights / weights.sum(-1, keepdims=True)


def counts(seed):
    return np.random.default_rng(seed).integers(1, 99, (ROWS, WIDTH))


def labels():
    return np.random.default_rng(9).integers(0, WIDTH, ROWS)


def strict(text):
    """The object of strict JSON: without the constants that only Python's reader accepts."""
    return json.loads(text, parse_constant=pytest.fail)


MEASURES = {"kl": fastkl.kl_divergence, "ce": fastkl.cross_entropy, "js": fastkl.js_divergence}
MEASURES |= {name: getattr(fastkl, name) for name in _kernels.MEASURES if getattr(fastkl, name) not in MEASURES.values()}
OPTIONS = {"base": 2, "eps": 0.01, "alpha": 0.5}
KINDS = {"probabilities": (rows, {}), "counts": (counts, {"normalize": True}), "logits": (logits, {"from_logits": True})}
CASES = [(name, kind) for name in MEASURES for kind in KINDS if (name, kind) != ("generalized_kl", "logits")]


def taken(function, options):
    """Those of the options that the function takes."""
    return {name: value for name, value in options.items() if name in inspect.signature(function).parameters}


@pytest.mark.parametrize(("measure", "kind"), CASES)
def test_values_are_those_of_the_measures(measure, kind):
    function, (make, options) = MEASURES[measure], KINDS[kind]
    options = taken(function, OPTIONS | options)
    arrays = [make(1)] if measure == "entropy" else [make(1), make(2)]
    files = npy(**dict(zip("pq", arrays, strict=False)))
    expected = function(*arrays, **options)
    for threads in 1, 2, 7:
        result = fastkl.score(*files, measure=measure, out="out.npy", threads=threads, **options)
        np.testing.assert_array_equal(np.load("out.npy"), expected)
        assert (result["rows"], result["max"], result["max_row"]) == (ROWS, expected.max(), expected.argmax())
        assert result["mean"] == pytest.approx(expected.mean(), rel=1e-12)


@pytest.mark.parametrize("alpha", ["0.5", "1", "inf"])
def test_the_order_is_an_option_of_the_command(alpha, capsys):
    p, q = npy(p=rows(1), q=rows(2))
    assert main(["score", p, q, "--measure", "renyi_divergence", "--alpha", alpha, "--out", "out.npy"]) == 0
    np.testing.assert_array_equal(np.load("out.npy"), fastkl.renyi_divergence(rows(1), rows(2), float(alpha)))
    assert "values in       nats\n" in capsys.readouterr().out


@pytest.mark.parametrize("measure", ["hellinger_distance", "total_variation", "chi2_divergence"])
def test_values_without_a_logarithm_have_no_unit(measure, capsys):
    assert main(["score", *npy(p=rows(1), q=rows(2)), "--measure", measure, "--report", "report.html"]) == 0
    assert "values in" not in capsys.readouterr().out
    page = Path("report.html").read_text(encoding="utf-8")
    assert measure in page
    assert "in nats" not in page


def test_the_measure_of_numbers_as_they_are_is_in_nats(capsys):
    """Rows of zeros are valid, as in the function."""
    p, q = counts(1), counts(2)
    p[3] = 0
    assert main(["score", *npy(p=p, q=q), "--measure", "generalized_kl", "--out", "out.npy"]) == 0
    np.testing.assert_array_equal(np.load("out.npy"), fastkl.generalized_kl(p, q))
    assert "values in       nats\n" in capsys.readouterr().out


@pytest.mark.parametrize("with_labels", [False, True])
def test_comparison(with_labels):
    p, q, right = logits(1), logits(2), labels()
    files = npy(p=p, q=q, right=right)[: 2 + with_labels]
    result = fastkl.score(*files, measure=None if with_labels else "compare", from_logits=True, out="out.npy")
    expected = fastkl.compare(p, q, right if with_labels else None, from_logits=True)
    out = np.load("out.npy")
    assert out.dtype.names == FIELDS[: None if with_labels else 8]
    for name in out.dtype.names:
        np.testing.assert_array_equal(out[name], getattr(expected, name), err_msg=name)
        assert result[name]["mean"] == pytest.approx(getattr(expected, name).mean(), rel=1e-12)
        assert result[name].keys() >= KEYS
    assert out["same_argmax"].dtype == bool
    assert result["top1_agreement"] == pytest.approx(expected.same_argmax.mean())
    assert ("perplexity_p" in result) == with_labels


def test_agreement_is_that_of_valid_rows():
    rows = np.array([[0.25, 0.75], [-1, 2], [0.5, 0.5], [np.nan, 1]])
    npy(p=rows, q=rows, r=rows[1::2])
    result = fastkl.score("p.npy", "q.npy", measure="compare", invalid="nan")
    assert (result["top1_agreement"], result["same_argmax"]["invalid"]) == (1, 2)
    assert np.isnan(fastkl.score("r.npy", "r.npy", measure="compare", invalid="nan")["top1_agreement"])


@pytest.mark.parametrize("measure", ["nll", "compare"])
@pytest.mark.parametrize("threads", [1, 3])
def test_ignored_labels_have_no_part_in_means(measure, threads, capsys):
    """Their losses are 0 in the file of values. The other fields of a comparison have all rows."""
    right = labels()
    right[::3] = -100
    kept, operands = right != -100, {"p": logits(1)} | ({"q": logits(2)} if measure == "compare" else {})
    npy(right=right, **operands)
    paths = [f"{name}.npy" for name in operands]
    keywords = {"labels": "right.npy", "measure": measure, "from_logits": True, "threads": threads, "ignore_index": -100}
    result = fastkl.score(*paths, **keywords, out="out.npy")
    losses = {f"nll_{name}": fastkl.nll(right[kept], x[kept], from_logits=True) for name, x in operands.items()}
    for name, expected in losses.items():
        found = result if measure == "nll" else result[name]
        values = np.load("out.npy") if measure == "nll" else np.load("out.npy")[name]
        assert found["mean"] == pytest.approx(expected.mean(), rel=1e-12)
        assert found["stderr"] == pytest.approx(expected.std(ddof=1) / len(expected) ** 0.5, rel=1e-12)
        assert (found["rows"], found["ignored"]) == (ROWS, ROWS - kept.sum())
        assert (values[~kept] == 0).all()
        assert found["max_row"] == np.flatnonzero(kept)[expected.argmax()]
    if measure == "compare":
        assert result["perplexity_q"] == pytest.approx(np.exp(losses["nll_q"].mean()))
        assert (result["kl"]["ignored"], result["nll_increase"]["ignored"]) == (0, ROWS - kept.sum())
    command_line = ["score", *paths, "--labels", "right.npy", "--measure", measure, "--from-logits"]
    assert main([*command_line, "--ignore-index", "-100", "--json"]) == 0
    assert strict(capsys.readouterr().out)["rows"] == ROWS


def test_perplexity():
    """It does not depend on the base, and an infinite loss makes it infinite."""
    q, right = logits(2), labels()
    files = npy(p=logits(1), q=q, right=right)
    nats, bits = (fastkl.score(*files, from_logits=True, base=base) for base in (None, 2))
    for name in "pq":
        perplexity = math.exp(nats[f"nll_{name}"]["mean"])
        assert [x[f"perplexity_{name}"] for x in (nats, bits)] == pytest.approx([perplexity] * 2)
    assert nats["nll_increase"]["mean"] == pytest.approx(math.log(nats["perplexity_q"] / nats["perplexity_p"]))
    q[3, right[3]] = -np.inf
    npy(q=q)
    result = fastkl.score(*files, from_logits=True)
    assert result["perplexity_q"] == math.inf > result["perplexity_p"]


def test_integers_are_weights_for_a_cross_entropy():
    q, right = rows(2), np.eye(WIDTH, dtype=int)[labels()]
    fastkl.score(*npy(right=right, q=q), measure="ce", out="out.npy")
    np.testing.assert_array_equal(np.load("out.npy"), fastkl.cross_entropy(right, q))
    files, message = npy(right=np.arange(WIDTH), q=q), r"^right\.npy: p sums to .*class labels go to fastkl\.nll"
    refused(message, *files, measure="ce", error=fastkl.InvalidRowError)


def test_options_are_passed_to_the_measure():
    """One operand is an array here."""
    weights = np.random.default_rng(1).integers(0, 9, (2, ROWS, WIDTH))
    of_weights = {"normalize": True, "eps": 1e-3, "base": 10}
    of_logits = {"from_logits": True, "temperature": 3}
    for (p, q), options in (weights, of_weights), ((logits(1), logits(2)), of_logits), ((rows(1), rows(2)), {}):
        assert fastkl.score(p, *npy(q=q), out="out.npy", **options)["rows"] == ROWS
        np.testing.assert_array_equal(np.load("out.npy"), fastkl.kl_divergence(p, q, **options))


@pytest.mark.parametrize("threads", [1, 3])
def test_invalid_rows(threads):
    p = rows(1)
    p[[77, 300]] *= 2
    p[401, 5] = -0.25
    files = npy(p=p, q=rows(2))
    refused(r"^p\.npy: p\[77\] sums to 2: rows must sum to 1", *files, threads=threads)
    result = fastkl.score(*files, threads=threads, invalid="nan")
    assert (result["invalid"], result["first_invalid_rows"]) == (3, [77, 300, 401])


def test_messages_name_the_place_in_the_file():
    q = rows(2).reshape(5, 100, WIDTH)
    q[3, 42, 7] = np.nan
    refused(r"^q\.npy: q\[3, 42, 7\] = nan: probabilities must be finite", *npy(p=rows(1).reshape(q.shape), q=q))
    right = labels()
    right[33] = WIDTH
    a, b, bad = npy(a=logits(1), b=logits(2), right=right)
    message = rf"^right\.npy: labels\[33\] = {WIDTH}: labels must be in 0\.\.{WIDTH - 1}"
    refused(message, b, labels=bad, measure="nll", from_logits=True)
    refused(message, a, b, bad, from_logits=True)
    refused(r"^one\.npy: q\[0, 1\] = -1\.0", *npy(p=rows(1), one=[[2.0, -1.0, *[0.0] * 10]]))


def test_index_of_a_row_beyond_numpys_largest_array():
    source = open_source("p", np.ones((2, 3, 1)))
    assert [source.index(row) for row in range(6)] == [*np.ndindex(2, 3)]
    source.leading, source.rows = (2**40, 2**40), 2**80
    assert source.index(2**79 + 5) == (2**39, 5)


def test_rows_that_no_array_can_hold_are_refused(monkeypatch):
    """As those of 2 GB are on 32-bit machines; the entries of labels are rows of their own."""
    files = npy(p=logits(1), labels=np.zeros(ROWS, np.int8))
    monkeypatch.setattr(operands, "MOST", WIDTH * 8)
    fastkl.score(files[0], labels=files[1], measure="nll", from_logits=True)
    monkeypatch.setattr(operands, "MOST", WIDTH * 8 - 1)
    refused(r"^p\.npy: has rows of 96 bytes: must have at most 95 on this machine", files[0], from_logits=True)


LOSS = {"measure": "nll", "labels": "right.npy"}
WRONG = [
    (ValueError, "measure='mse': must be one of kl, ce, js, entropy, nll, compare", {"measure": "mse"}),
    (ValueError, "q: must be left out for entropy", {"measure": "entropy"}),
    (ValueError, "q: must be given for kl", {"q": None}),
    (ValueError, "labels: only for measure nll or compare", {"labels": "right.npy", "measure": "kl"}),
    (ValueError, "labels: must be given for nll", {"measure": "nll", "q": None}),
    (ValueError, "q: must be left out for nll", LOSS),
    (ValueError, "from_logits='p': must be a bool", LOSS | {"q": None, "from_logits": "p"}),
    (TypeError, "p.npy has dtype float64: labels must be of an integer dtype", {"labels": "p.npy"}),
    (ValueError, r"p.npy has shape \(500, 12\) and thin.npy has shape \(500, 3\): must have the same", {"q": "thin.npy"}),
    (ValueError, r"short.npy has rows of shape \(7,\), and p.npy \(500,\): must be the same", {"q": "short.npy"}),
    (TypeError, "words.npy has dtype .U1: must be float64", {"q": "words.npy"}),
    (FileNotFoundError, "missing.npy", {"q": "missing.npy"}),
    (ValueError, "base=1: must be None or a finite number above 1", {"base": 1}),
    (ValueError, "temperature=2: must be 1 where no operand holds logits", {"temperature": 2}),
    (ValueError, "eps=2: must be", {"eps": 2}),
    (ValueError, "eps=0.1: only for measure kl, ce, nll, .* or generalized_kl$", {"eps": 0.1, "measure": "js"}),
    (ValueError, "eps=0.1: only for measure", {"eps": 0.1, "measure": "total_variation"}),
    (ValueError, "base=2: only for measure kl, ce, js, entropy, nll,", {"base": 2, "measure": "chi2_divergence"}),
    (ValueError, "base=2: only for measure", {"base": 2, "measure": "generalized_kl"}),
    (ValueError, "normalize=True: only for measure kl", {"normalize": True, "measure": "generalized_kl"}),
    (ValueError, "from_logits='q': only for measure kl", {"from_logits": "q", "measure": "generalized_kl"}),
    (ValueError, "temperature=2: only for measure kl", {"temperature": 2, "measure": "generalized_kl"}),
    (ValueError, "ignore_index=0: only for measure nll or compare", {"ignore_index": 0, "measure": "hellinger_distance"}),
    (ValueError, "ignore_index=0: only with labels", {"ignore_index": 0, "measure": "compare"}),
    (ValueError, "alpha=2: only for measure renyi_divergence$", {"alpha": 2}),
    (ValueError, "alpha: must be given for renyi_divergence", {"measure": "renyi_divergence"}),
    (ValueError, "alpha=0: must be a positive number or inf", {"measure": "renyi_divergence", "alpha": 0}),
    (TypeError, "alpha='2': must be a positive number or inf", {"measure": "renyi_divergence", "alpha": "2"}),
    (ValueError, "from_logits='yes': must be False, True, 'p' or 'q'", {"from_logits": "yes"}),
    (ValueError, "invalid='drop': must be", {"invalid": "drop"}),
    (ValueError, "threads=0: must be None or a positive integer", {"threads": 0}),
    (ValueError, "resume: only with out", {"resume": True}),
    (ValueError, "keys: only with out", {"keys": ["id"]}),
    (ValueError, r"out is out\.csv: must end in \.npy, \.parquet or \.zarr", {"out": "out.csv"}),
    (ValueError, r"keys: only for Parquet, and out is out\.npy", {"out": "out.npy", "keys": ["id"]}),
]


@pytest.mark.parametrize(("error", "message", "arguments"), WRONG)
def test_wrong_arguments(error, message, arguments, tmp_path):
    """They are refused before a row is read and before anything is written."""
    npy(p=rows(1), q=rows(2), right=labels(), thin=rows(1)[:, :3], short=rows(1)[:7], words=np.full((ROWS, WIDTH), "a"))
    before = sorted(tmp_path.iterdir())
    refused(message, **{"p": "p.npy", "q": "q.npy", **arguments}, error=error)
    assert sorted(tmp_path.iterdir()) == before


def test_the_package_has_score_and_summary():
    assert {"score", "Summary"} <= set(dir(fastkl))
    with pytest.raises(AttributeError, match="no attribute 'scores'"):
        fastkl.scores  # noqa: B018


def test_import_leaves_batch_alone():
    """Programs that only compute do not wait for it."""
    python("import sys, fastkl; assert not [name for name in sys.modules if name.startswith('fastkl.batch')]")


def test_json_and_text(capsys):
    p, q = rows(1), rows(2)
    p[[3, *range(100, 120)]] = 2
    q[5] = np.eye(WIDTH)[0]
    arguments = ["score", *npy(p=p, q=q), "--invalid", "nan", "--base", "2"]
    assert main([*arguments, "--json"]) == 0
    printed = capsys.readouterr()
    assert (printed.err, printed.out.count("\n")) == ("", 1)
    result = strict(printed.out)
    assert result.keys() >= KEYS
    expected = fastkl.kl_divergence(p, q, invalid="nan", base=2)
    finite = expected[np.isfinite(expected)]
    assert result["rows"] == ROWS
    assert result["mean"] == pytest.approx(finite.mean())
    levels = ("0.001", "0.01", "0.05", "0.25", "0.5", "0.75", "0.95", "0.99", "0.999")
    assert result["quantiles"] == pytest.approx({level: np.quantile(finite, float(level)) for level in levels})
    assert result["min"] == finite.min()
    assert (result["max"], result["max_row"], result["infinite"]) == (None, 5, 1)
    assert (result["invalid"], result["first_invalid_rows"]) == (21, [3, *range(100, 109)])
    assert result["rows_per_second"] == pytest.approx(ROWS / result["seconds"])
    assert result["bytes_per_second"] == pytest.approx(ROWS * 2 * WIDTH * 8 / result["seconds"])

    assert main(arguments) == 0
    lines = {line[2:18].strip(): line[18:] for line in capsys.readouterr().out.splitlines()}
    assert lines["mean"].startswith(f"{finite.mean():.6g} ± ")
    assert lines["infinite"] == "1 rows: 5"
    assert lines["invalid"] == "21 rows: 3, 100, 101, 102, 103, 104, 105, 106, 107, 108, ..."
    assert lines["min, max"].endswith("inf in row 5")
    assert lines["values in"] == "bits"


def test_output_of_a_comparison(capsys):
    p, q, right = npy(p=logits(1), q=logits(2), right=labels())
    arguments = ["score", p, q, "--labels", right, "--from-logits"]
    assert main([*arguments, "--json"]) == 0
    result = strict(capsys.readouterr().out)
    assert all(result[name].keys() >= KEYS for name in FIELDS)
    assert result.keys() >= {"rows", *SPEED, "top1_agreement", "perplexity_p", "perplexity_q"}
    assert main(arguments) == 0
    text = capsys.readouterr().out
    assert [line.split()[0] for line in text.splitlines()[1:12]] == [*FIELDS, "nll_increase"]
    assert "perplexity of p" in text
    assert "same argmax" in text


RENYI = "p.npy q.npy --measure renyi_divergence"
ERRORS = ["missing.npy q.npy", "p.npy q.npy --base 1", "p.npy", "bad.npy q.npy", "p.npy words.npy"]
ERRORS += ["p.npy q.npy --alpha 2", RENYI, f"{RENYI} --alpha 0"]


@pytest.mark.parametrize("arguments", ERRORS)
def test_errors_are_one_line(arguments, capsys):
    npy(p=rows(1), q=rows(2), bad=-rows(1), words=np.full((ROWS, WIDTH), "a"))
    assert main(["score", *arguments.split()]) == 1
    printed = capsys.readouterr()
    assert (printed.out, printed.err[:8], printed.err.count("\n")) == ("", "fastkl: ", 1)


def test_interruption_is_one_line(monkeypatch, capsys):
    """Where rows are safe, the line says so instead: test_batch_output.py."""
    monkeypatch.setattr("fastkl.batch.job.open_operands", interrupt)
    assert main(["score", "p.npy", "q.npy"]) == 130
    assert capsys.readouterr().err == "fastkl: interrupted\n"


def test_report():
    p, q, right = npy(p=logits(1), q=logits(2), right=labels())
    assert main(["score", p, q, "--labels", right, "--from-logits", "--report", "report.html"]) == 0
    page = Path("report.html").read_text(encoding="utf-8")
    for text in ("p.npy", "right.npy", "nll_increase", "<svg", "perplexity of q"):
        assert text in page
    fastkl.score(*npy(p=rows(1), q=rows(2)), base=2, report="report.html")
    page = Path("report.html").read_text(encoding="utf-8")
    assert re.search(r"<h2[^>]*>\s*kl\b", page)
    assert "in bits" in page


def command(p, q):
    """Arguments of a process that scores files, with this fastkl."""
    return {"args": [sys.executable, "-m", "fastkl", "score", *map(os.path.abspath, (p, q))], "cwd": INSTALLED}


def test_no_bar_when_piped():
    done = subprocess.run(**command(*npy(p=rows(1), q=rows(2))), capture_output=True, text=True, check=True)
    assert done.stderr == ""


def test_bar_on_a_terminal():
    pytest.importorskip("tqdm")
    fcntl, termios = pytest.importorskip("fcntl"), pytest.importorskip("termios")
    terminal, end = os.openpty()
    fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack("4H", 24, 100, 0, 0))  # rows, columns
    with subprocess.Popen(**command(*npy(p=rows(1), q=rows(2))), stdout=subprocess.PIPE, stderr=end) as child:
        os.close(end)
        drawn = b""
        with contextlib.suppress(OSError):  # a terminal reports so that it has no writer left
            while data := os.read(terminal, 4096):
                drawn += data
        os.close(terminal)
        assert child.wait() == 0
    assert b"0.00/500 rows" in drawn
    assert drawn.endswith(b"\r")


@pytest.mark.slow
def test_cluster_survives_a_killed_worker(monkeypatch):
    """Of two processes, the one with the most tasks dies, and the result is still complete."""
    distributed = pytest.importorskip("distributed")
    monkeypatch.setattr(cluster, "TASK", 2)
    p, q, right = logits(1), logits(2), labels()
    files = npy(p=p, q=q, right=right)
    fastkl.score(*files, from_logits=True, out="threads.npy")
    killed = []

    with (
        local_cluster(n_workers=2, threads_per_worker=1, processes=True) as local,
        distributed.Client(local) as client,
    ):

        def kill_one():
            busy = max(client.processing().items(), key=lambda item: len(item[1]))[0]
            killed.append(client.run(os.getpid, workers=[busy])[busy])
            os.kill(killed[0], signal.SIGKILL)

        call_after(12, kill_one, monkeypatch.setattr)  # parts of 24
        result = fastkl.score(*files, from_logits=True, out="cluster.npy", dask=client)
    assert killed
    assert Path("cluster.npy").read_bytes() == Path("threads.npy").read_bytes()
    assert result["rows"] == ROWS


def test_new_cluster_gives_the_same_result(capsys):
    """It takes any free port: it does not warn where that of Dask's dashboard is in use."""
    pytest.importorskip("distributed")
    arguments = ["score", *npy(p=rows(1), q=rows(2)), "--measure", "renyi_divergence", "--alpha", "2", "--json", "--out"]
    assert main([*arguments, "a.npy"]) == 0
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # another program has it
            stack.enter_context(socket.create_server(("", 8787)))
        assert main([*arguments, "b.npy", "--threads", "1", "--dask"]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert Path("a.npy").read_bytes() == Path("b.npy").read_bytes()
    one, other = (without_speed(strict(line)) for line in printed.out.splitlines())
    assert one == other


def test_errors_of_cluster_workers_are_raised():
    pytest.importorskip("distributed")
    p = rows(1)
    p[321] = 2
    files = npy(p=p, q=rows(2))
    with local_cluster() as local:
        refused(r"p\.npy: p\[321\] sums to", *files, dask=local.scheduler_address)
        refused("p is an array: workers read files", rows(1), "q.npy", dask=local.scheduler_address, error=TypeError)


def test_without_distributed(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    message = r"a Dask cluster needs dask and distributed: pip install 'fastkl\[dask\]'"
    refused(message, *npy(p=rows(1), q=rows(2)), dask="", error=ImportError)
