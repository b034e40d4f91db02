"""Top-k rows in files: values of `fastkl score` are those of a TopK, in any format and any parts; what is refused."""

import json

import numpy as np
import pytest
from support.batch_files import npy, small_parts
from support.batch_runs import call_after, interrupt
from support.checks import assert_same

import fastkl
from fastkl.__main__ import main

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
    assert capsys.readouterr().err == "fastkl: values.npy: p[321, 1] has the index 12: indices must be in 0..11\n"
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
    f"{TOP} --topk-tail values.npy": "values.npy has shape (500, 3): must have a tail for each row, (500,)",
    f"{TOP} --measure chi2_divergence": (
        "chi2_divergence takes no TopK: only kl_divergence, cross_entropy, js_divergence and total_variation do"
    ),
}


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


def test_a_stopped_run_resumes():
    """Its values are those of a run that was not stopped."""
    expected = scored(*TOP.split())
    with pytest.MonkeyPatch.context() as patch:
        call_after(1, interrupt, patch.setattr)
        assert main(["score", *TOP.split(), "--out", "again.npy", "--threads", "1"]) == 130
    assert main(["score", *TOP.split(), "--out", "again.npy", "--resume"]) == 0
    assert_same(np.load("again.npy"), expected)
