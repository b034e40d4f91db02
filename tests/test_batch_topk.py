"""Top-k rows in files: values of `fastkl score` are those of a TopK, in any format and any parts; what is refused.

Damaged files of theirs are in test_batch_formats.py, with those of the formats.
"""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from support.batch_files import FORMATS, grow, npy, refused, rewrite, small_parts
from support.batch_runs import call_after, interrupt, local_cluster, without_speed
from support.checks import assert_same
from support.measures import assert_same_bits

import fastkl
from fastkl.__main__ import main
from fastkl.batch import score, workers
from fastkl.batch.readers import TopKFiles

_in_small_parts = small_parts(21 * 12 * 8, 4 * 12 * 8)
RNG = np.random.default_rng(0)
P, Q = RNG.dirichlet(np.ones(12), 500), RNG.dirichlet(np.ones(12), 500)
IDS, OTHER_IDS = np.argsort(-P)[:, :3].astype("u2"), np.argsort(-Q)[:, :5]
VALUES, OTHER_VALUES = np.take_along_axis(P, IDS.astype(int), -1), np.take_along_axis(Q, OTHER_IDS, -1)
TAIL = 1 - VALUES.sum(-1)
FILES = {
    "q": Q,
    "ids": IDS,
    "values": VALUES,
    "tail": TAIL,
    "logs": np.log(VALUES),
    "ids2": OTHER_IDS,
    "values2": OTHER_VALUES,
}


@pytest.fixture(autouse=True)
def _files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    npy(**FILES)
    np.savez_compressed("all.npz", **FILES)


def scored(*arguments):
    assert main(["score", *arguments, "--out", "out.npy"]) == 0
    return np.load("out.npy")


RUNS = {
    "q.npy --topk-ids ids.npy --topk-values values.npy": fastkl.kl_divergence(fastkl.TopK(IDS, VALUES), Q),
    "q.npy --topk-ids ids.npy --topk-values values.npy --topk-tail tail.npy": fastkl.kl_divergence(
        fastkl.TopK(IDS, VALUES, TAIL), Q
    ),
    "all.npz:q --topk-ids all.npz:ids --topk-values all.npz:logs --topk-log-probs --measure js": fastkl.js_divergence(
        fastkl.TopK(IDS, np.log(VALUES), log_probs=True), Q
    ),
    "q.npy --topk-ids ids.npy --topk-values values.npy --from-logits": fastkl.kl_divergence(
        fastkl.TopK(IDS, VALUES), Q, from_logits=True
    ),
    "--topk-ids ids.npy ids2.npy --topk-values values.npy values2.npy": fastkl.kl_divergence(
        fastkl.TopK(IDS, VALUES), fastkl.TopK(OTHER_IDS, OTHER_VALUES)
    ),
}


@pytest.mark.parametrize("arguments", RUNS)
def test_values_are_those_of_a_topk(arguments):
    assert_same(scored(*arguments.split()), RUNS[arguments])


NEEDS = {"parquet": "pyarrow", "zarr": "zarr"}


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("threads", [3, pytest.param(1, marks=pytest.mark.slow)])
def test_values_from_any_format(kind, threads):
    pytest.importorskip(NEEDS.get(kind.split()[0], "numpy"))
    p = TopKFiles(FORMATS[kind]("i", IDS), FORMATS[kind]("v", VALUES.astype("f4")), "tail.npy")
    score(p, FORMATS[kind]("qs", Q), out="out.npy", threads=threads)
    assert_same_bits(np.load("out.npy"), fastkl.kl_divergence(fastkl.TopK(IDS, VALUES.astype("f4"), TAIL), Q))


def test_arrays_and_a_single_row_are_taken():
    top = fastkl.TopK(IDS, VALUES, TAIL)
    fastkl.score(top, "q.npy", out="a.npy", measure="total_variation")
    assert_same(np.load("a.npy"), fastkl.total_variation(top, Q))
    fastkl.score(fastkl.TopK(IDS[:1], VALUES[:1]), Q, out="b.npy")
    assert_same(np.load("b.npy"), fastkl.kl_divergence(fastkl.TopK(IDS[:1], VALUES[:1]), Q))
    fastkl.score(top, Q[:1], out="c.npy")
    assert_same(np.load("c.npy"), fastkl.kl_divergence(top, Q[:1]))


def test_a_wrong_index_is_named_with_its_file(capsys):
    wrong = IDS.copy()
    wrong[321, 1] = 12
    npy(wrong=wrong)
    arguments = ["score", "q.npy", "--topk-ids", "wrong.npy", "--topk-values", "values.npy"]
    assert main(arguments) == 1
    assert capsys.readouterr().err == (
        "fastkl: wrong.npy with values.npy: p[321, 1] has the index 12: indices must be in 0..11\n"
    )
    assert main([*arguments, "--invalid", "nan", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["invalid"], result["first_invalid_rows"]) == (1, [321])


TOP = "q.npy --topk-ids ids.npy --topk-values values.npy"
BOTH = "--topk-ids ids.npy ids2.npy --topk-values values.npy values2.npy"
REFUSED = {
    "": "P: must be given, or --topk-ids and --topk-values",
    "q.npy --topk-ids ids.npy": (
        "--topk-ids, --topk-values and --topk-tail: must have one FILE each, or two; a tail may be left out"
    ),
    TOP.removeprefix("q.npy "): "Q: must be given beside --topk-ids",
    f"q.npy {BOTH}": "P and Q: must be left out beside --topk-ids",
    TOP.replace("ids.npy", "values.npy"): "values.npy has dtype float64: indices must be of an integer dtype",
    TOP.replace("ids.npy", "ids2.npy"): (
        "ids2.npy has shape (500, 5) and values.npy has shape (500, 3): indices and values must have the same"
    ),
    f"{BOTH} --columns 5": "columns=5: must be left out where all rows are top-k rows, which have no columns",
    f"{TOP} --columns 13": "columns=13: q.npy has shape (500, 12), and fewer columns",
    f"{TOP} --columns 5": "ids.npy with values.npy: p[0, 0] has the index 9: indices must be in 0..4",
    f"{TOP} --topk-tail values.npy": "values.npy has shape (500, 3): must have a tail for each row, (500,)",
    f"{TOP} --measure chi2_divergence": (
        "chi2_divergence takes no TopK: only kl_divergence, cross_entropy, js_divergence and total_variation do"
    ),
}


WIDE = "p.indices with p.values: has rows of 12884901888 bytes: must have at most 2147483647"


@pytest.mark.parametrize(
    ("shape", "message"),
    [((0, 0), "p.values has shape (0, 0): must have at least one category in the last axis"), ((0, 1 << 30), WIDE)],
)
def test_impossible_widths_are_refused(shape, message):
    refused(f"^{re.escape(message)}$", TopKFiles(np.zeros(shape, "i4"), np.zeros(shape)), Q[:0])


@pytest.mark.parametrize("arguments", REFUSED)
def test_what_makes_no_sense_is_refused(arguments, capsys):
    assert main(["score", *arguments.split()]) == 1
    assert capsys.readouterr().err == f"fastkl: {REFUSED[arguments]}\n"


def test_several_models_and_their_worst_rows(capsys):
    """Each model has the values of a run of its own; an argmax of top-k rows is the index of the largest value."""
    npy(other=Q[::-1])
    arguments = ["score", "q.npy", "other.npy", *TOP.split()[1:]]
    assert main([*arguments, "--top", "2", "--json"]) == 0
    models = json.loads(capsys.readouterr().out)["models"]
    values = [fastkl.kl_divergence(fastkl.TopK(IDS, VALUES), q) for q in (Q, Q[::-1])]
    for model, expected, q in zip(models, values, (Q, Q[::-1]), strict=True):
        assert model["mean"] == pytest.approx(expected.mean(), rel=1e-14)
        rows = [at["row"] for at in model["top"]]
        assert rows == [*np.argsort(-expected)[:2]]
        assert [(at["argmax_p"], at["argmax_q"]) for at in model["top"]] == [(IDS[i][0], q[i].argmax()) for i in rows]


MANY = {
    "tail": f"{TOP} --topk-tail tail.npy",
    "both": BOTH,
    "archive": "q.npy --topk-ids all.npz:ids --topk-values all.npz:logs --topk-log-probs",
    "models": "q.npy other.npy --topk-ids ids.npy --topk-values values.npy --measure js",
}
each_run = pytest.mark.parametrize("arguments", [x.split() for x in MANY.values()], ids=MANY)


def summary(capsys, *arguments):
    """The exit status, and the summary without the speed."""
    status = main(["score", *arguments, "--json"])
    result = json.loads(capsys.readouterr().out or "{}")
    models = [without_speed(model) for model in result.get("models", ())]
    return status, without_speed(result) | ({"models": models} if models else {})


@each_run
def test_a_stopped_run_resumes(arguments, capsys, monkeypatch):
    """Values and summary are those of a run that was not stopped, and no part is computed again."""
    npy(other=Q[::-1])
    expected = summary(capsys, *arguments, "--out", "whole.npy")
    for resume, parts in ([], 1), (["--resume"], 3):
        with monkeypatch.context() as patch:
            call_after(parts, interrupt, patch.setattr)
            assert summary(capsys, *arguments, "--out", "out.npy", *resume) == (130, {})
    read, call = [], workers.Worker.__call__
    monkeypatch.setattr(workers.Worker, "__call__", lambda *args: (read.append(args[1].start), call(*args))[1])
    assert summary(capsys, *arguments, "--out", "out.npy", "--resume") == expected
    assert min(read) > 0
    assert Path("out.npy").read_bytes() == Path("whole.npy").read_bytes()


def test_a_run_of_other_top_k_files_is_not_resumed(capsys):
    with pytest.MonkeyPatch.context() as patch:
        call_after(1, interrupt, patch.setattr)
        assert main(["score", *TOP.split(), "--out", "out.npy"]) == 130
    assert "21 of 500 rows are safe" in capsys.readouterr().err
    for other in f"{TOP} --topk-tail tail.npy", TOP.replace("values.npy", "logs.npy --topk-log-probs"):
        assert main(["score", *other.split(), "--out", "out.npy", "--resume"]) == 1
        assert "is of another job: " in capsys.readouterr().err
    rewrite(Path("ids.npy"), lambda data: data)
    assert main(["score", *TOP.split(), "--out", "out.npy", "--resume"]) == 1
    assert re.search(r"is of another job: files of indices of p of the job was", capsys.readouterr().err)


CHANGES = {
    "truncated": lambda path: rewrite(path, lambda data: data[: len(data) // 2]),
    "emptied": lambda path: rewrite(path, lambda _: b""),
    "grown": grow,
    "made invalid": lambda path: rewrite(path, lambda data: data[:-99] + b"\xff" * 99),
    "replaced": lambda path: Path(shutil.copy(path, "copy")).replace(path),
}


@pytest.mark.parametrize("part", ["ids", "values", "tail"])
@pytest.mark.parametrize("do", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("invalid", ["nan", "raise"])
def test_files_that_change_end_the_run(part, do, invalid, monkeypatch):
    """The rows before are safe, and belong to the files as they were."""
    call_after(2, lambda: do(Path(f"{part}.npy")), monkeypatch.setattr)
    options = {"out": "out.npy", "threads": 1, "invalid": invalid}
    p = TopKFiles("ids.npy", "values.npy", "tail.npy")
    error = refused(rf"^{part}\.npy: {part}\.npy was changed while it was read, at row \d+: ", p, "q.npy", **options)
    assert 20 <= int(re.search(r"row (\d+)", str(error))[1]) <= 500
    assert not Path("out.npy").exists()
    assert json.loads(Path("out.npy.checkpoint").read_text().splitlines()[0])["rows"] >= 20
    field = "indices" if part == "ids" else part
    refused(rf"^{part}\.npy: |is of another job: files of {field} of p", p, "q.npy", resume=True, **options)


@each_run
def test_cluster_gives_the_same_result(arguments, capsys):
    pytest.importorskip("distributed")
    npy(other=Q[::-1])
    expected = summary(capsys, *arguments, "--out", "a.npy")
    with local_cluster() as local:
        assert summary(capsys, *arguments, "--out", "b.npy", "--dask", local.scheduler_address) == expected
    assert Path("a.npy").read_bytes() == Path("b.npy").read_bytes()


def test_new_cluster_gives_the_same_values():
    """Its workers are other processes, which get the names of all files."""
    pytest.importorskip("distributed")
    expected = scored(*MANY["tail"].split())
    assert_same(scored(*MANY["tail"].split(), "--threads", "1", "--dask"), expected)


def test_errors_of_cluster_workers_are_raised():
    pytest.importorskip("distributed")
    wrong = IDS.copy()
    wrong[321, 1] = 12
    npy(wrong=wrong)
    with local_cluster() as local:
        options = {"dask": local.scheduler_address}
        message = r"wrong\.npy with .*values\.npy: p\[321, 1\] has the index 12"
        refused(message, TopKFiles("wrong.npy", "values.npy"), "q.npy", error=fastkl.InvalidRowError, **options)
        for p in fastkl.TopK(IDS, VALUES), TopKFiles(IDS, "values.npy"):
            refused(r"p\.indices is an array: workers read files", p, "q.npy", error=TypeError, **options)
        message = r"p\.tail is an array: workers read files"
        refused(message, TopKFiles("ids.npy", "values.npy", TAIL), "q.npy", error=TypeError, **options)
