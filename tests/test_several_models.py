"""Several Q in one run of `score`: the values and results of a run each, from one read of P, and paired differences."""

import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
from support.batch_files import FORMATS, ROWS, WIDTH, npy, refused, rows, small_parts
from support.batch_runs import call_after, interrupt, local_cluster, without_speed

import fastkl
from fastkl.__main__ import main
from fastkl.batch import workers
from fastkl.batch.command import names_of
from fastkl.batch.results import models_of
from fastkl.batch.text import to_markdown

_in_small_parts = small_parts(21 * WIDTH * 8, 4 * WIDTH * 8)
NEEDS = {"parquet": "pyarrow", "zarr": "zarr"}
MODELS = ("small", "wide", "other")


def models():
    return {name: rows(seed) for seed, name in enumerate(MODELS, 2)}


def labels():
    return np.random.default_rng(9).integers(0, WIDTH, ROWS)


def results(result):
    """The results of the models, without names and speed."""
    return [without_speed({key: x for key, x in model.items() if key != "q"}) for model in result["models"]]


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize(("threads", "with_labels"), [(1, True), (3, False)])
def test_results_are_those_of_a_run_each(kind, threads, with_labels):
    pytest.importorskip(NEEDS.get(kind.split()[0], "numpy"))
    p = FORMATS[kind]("p", rows(1))
    q = {name: FORMATS[kind](name, x) for name, x in models().items()}
    right = labels() if with_labels else None
    result = fastkl.score(p, q, right, threads=threads, out="all.npy")
    assert [model["q"] for model in result["models"]] == [*MODELS]
    alone = [without_speed(fastkl.score(p, x, right, threads=threads, out=f"{name}.one.npy")) for name, x in q.items()]
    assert results(result) == alone
    values = np.load("all.npy")
    assert values.dtype.names == MODELS
    for name in MODELS:
        np.testing.assert_array_equal(values[name], np.load(f"{name}.one.npy"))


def test_operands_in_memory_and_of_other_dtypes():
    """A value has the dtype that it has alone; a single row serves all."""
    q = {"half": rows(2).astype("f2"), "one": rows(3, shape=(1, WIDTH)), "file": npy(f=rows(4).astype("f4"))[0]}
    p = rows(1).astype("f4")
    result = fastkl.score(p, q, out="all.npy")
    values = np.load("all.npy")
    for name, x in q.items():
        x = np.load(x) if name == "file" else x
        expected = fastkl.kl_divergence(p, x)
        np.testing.assert_array_equal(values[name], expected, strict=True)
    assert [model["rows"] for model in result["models"]] == [ROWS] * 3


@pytest.mark.parametrize("with_labels", [False, True])
def test_paired_differences(with_labels):
    q = models()
    q["wide"][5] = np.eye(WIDTH)[0]  # an infinite divergence
    result = fastkl.score(rows(1), q, labels() if with_labels else None, out="out.npy")
    values = np.load("out.npy")
    assert [pair["q"] for pair in result["paired"]] == [["small", "wide"], ["small", "other"], ["wide", "other"]]
    names = [name for name in values["small"].dtype.names or ("",) if not name.endswith("_p")]
    for pair in result["paired"]:
        assert set(pair) == {"q", *(names if with_labels else ("rows", "mean", "stderr"))}
        for name in names:
            one, other = (values[model][name] if name else values[model] for model in pair["q"])
            with np.errstate(invalid="ignore"):
                apart = one.astype(float) - other
            apart = apart[np.isfinite(apart)]
            found = pair[name] if name else pair
            assert found["rows"] == len(apart)
            assert found["mean"] == pytest.approx(apart.mean(), rel=1e-12, abs=1e-16)
            assert found["stderr"] == pytest.approx(apart.std(ddof=1) / math.sqrt(len(apart)), rel=1e-12)


def test_paired_differences_of_clusters_and_of_one_model():
    of, q = np.arange(ROWS) // 9, models()
    result = fastkl.score(rows(1), q, cluster_by=of, out="out.npy")
    values = np.load("out.npy")
    apart = values["small"] - values["other"]
    sums, n = np.bincount(of, apart - apart.mean()), of[-1] + 1
    found = result["paired"][1]
    assert (found["clusters"], found["rows"]) == (n, ROWS)
    assert found["stderr"] == pytest.approx(math.sqrt(n / (n - 1) * (sums**2).sum()) / ROWS, rel=1e-11)
    single = fastkl.score(rows(1), {"small": q["small"]})
    assert ([model["q"] for model in single["models"]], single["paired"]) == (["small"], [])


@pytest.mark.parametrize("kind", ["parquet", "zarr"])
@pytest.mark.parametrize("with_labels", [False, True])
def test_columns_of_the_output(kind, with_labels):
    pytest.importorskip(NEEDS[kind])
    right = labels() if with_labels else None
    fastkl.score(rows(1), models(), right, out="out.npy")
    fastkl.score(rows(1), models(), right, out=f"out.{kind}")
    values = np.load("out.npy")
    if kind == "parquet":
        from pyarrow import parquet

        table = parquet.read_table("out.parquet")
        columns = {tuple(name.split(".")): table[name].to_numpy() for name in table.column_names}
    else:
        import zarr

        group = zarr.open_group("out.zarr", mode="r")
        names = values["small"].dtype.names
        columns = {(model, *rest): group["/".join((model, *rest))][:] for model in MODELS for rest in zip(names or ())}
        columns = columns or {(model,): group[model][:] for model in MODELS}
    assert len(columns) == 3 * len(values["small"].dtype.names or (0,))
    for names, column in columns.items():
        expected = values[names[0]]
        np.testing.assert_array_equal(column, expected[names[1]] if names[1:] else expected, err_msg=names)


@pytest.mark.parametrize("threads", [1, 3])
def test_the_first_invalid_row_of_all_models(threads):
    q = models()
    q["small"][[100, 180]] *= 3
    q["wide"][99, 2] = -1
    q["other"][98, 1] = math.nan
    p, *files = npy(p=rows(1), **q)
    q = dict(zip(MODELS, files, strict=True))
    error = refused(r"^other\.npy: q\[98, 1\] = nan", p, q, threads=threads, error=fastkl.InvalidRowError)
    assert error.index == (98, 1)
    result = fastkl.score(p, q, threads=threads, invalid="nan")
    assert [model["first_invalid_rows"] for model in result["models"]] == [[100, 180], [99], [98]]


@pytest.mark.parametrize("with_labels", [False, True])
def test_resume(with_labels, monkeypatch):
    p, *q = npy(p=rows(1), **models())
    q = dict(zip(MODELS, q, strict=True))
    right = labels() if with_labels else None
    if with_labels:
        (right,) = npy(right=right)
    expected = fastkl.score(p, q, right, out="whole.npy")
    with monkeypatch.context() as patch:
        call_after(5, interrupt, patch.setattr)
        with pytest.raises(KeyboardInterrupt):
            fastkl.score(p, q, right, out="out.npy")
    renamed = {f"{name}2": x for name, x in q.items()}
    refused(r"is of another job: .* of options of the job was", p, renamed, right, out="out.npy", resume=True)
    result = fastkl.score(p, q, right, out="out.npy", resume=True)
    assert Path("out.npy").read_bytes() == Path("whole.npy").read_bytes()
    assert without_speed(result) | {"models": results(result)} == without_speed(expected) | {"models": results(expected)}


def test_cluster_of_workers():
    pytest.importorskip("distributed")
    p, *q = npy(p=rows(1), **models())
    q = dict(zip(MODELS, q, strict=True))
    fastkl.score(p, q, out="threads.npy")
    with local_cluster() as local:
        fastkl.score(p, q, out="cluster.npy", dask=local.scheduler_address)
    assert Path("cluster.npy").read_bytes() == Path("threads.npy").read_bytes()


@pytest.mark.skipif(sys.platform != "linux", reason="counts the bytes that Linux has read for the process")
@pytest.mark.parametrize("with_labels", [False, True])
def test_p_is_read_once(with_labels):
    """The process reads as much as P and three Q have, and headers."""
    files = npy(**{name: rows(seed, shape=(5000, WIDTH)) for seed, name in enumerate("pabc", 1)})
    right = np.zeros(5000, int) if with_labels else None

    def read():
        return int(Path("/proc/self/io").read_text().split()[1])

    fastkl.score(*files[:2], right)  # imports
    before = read()
    fastkl.score(files[0], dict(zip("abc", files[1:], strict=True)), right, threads=2)
    size = 5000 * WIDTH * 8
    assert 4 * size <= read() - before < 4.1 * size


def test_the_kernels_read_files_of_several_models(monkeypatch):
    """Without Python between the rows, where each operand can be read so."""
    files = npy(p=rows(1), **models())
    monkeypatch.setattr(workers, "evaluate", lambda options, rows, out, stop=None: assert_no_rows(out))
    fastkl.score(files[0], dict(zip(MODELS, files[1:], strict=True)), threads=1)


def assert_no_rows(out):
    """Rows at the end of a part that fill no block are Python's."""
    assert len(out) < 4


def test_command(capsys):
    p, *q, right = npy(p=rows(1), **models(), right=labels())
    assert main(["score", p, *q, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert [model["q"] for model in result["models"]] == [*MODELS]
    assert main(["score", p, *q]) == 0
    text = capsys.readouterr().out.splitlines()
    assert text[0].split()[:3] == ["kl", "in", "nats,"]
    assert [line.split()[0] for line in text[1:4]] == [*MODELS]
    assert [line.split()[:3] for line in text[6:9]] == [
        [*pair] for pair in (("small", "-", "wide"), ("small", "-", "other"), ("wide", "-", "other"))
    ]
    assert main(["score", p, *q, "--labels", right, "--markdown"]) == 0
    table = capsys.readouterr().out.splitlines()
    assert [line.split(" | ")[0] for line in table[2:5]] == [f"| {name}" for name in MODELS]
    means = [model["mean"] for model in result["models"]]
    worst = MODELS[np.argmax(means)]
    assert main(["score", p, *q, "--fail-if", f"kl.mean>={max(means)}"]) == 3
    printed = capsys.readouterr()
    assert printed.err.startswith(f"fastkl: {worst} fails kl.mean>=")
    assert printed.out.endswith(f"({worst})\n")


NAMES = {
    ("a/q4.npy", "b/q8.npy"): ["q4", "q8"],
    ("x.npz:q4", "x.npz:q8"): ["x.npz:q4", "x.npz:q8"],
    ("q4/logits.npy", "q8/logits.npy"): ["q4", "q8"],
    ("a/q/x.npy", "b/q/x.npy", "/c/q/x.npy"): ["a_q_x.npy", "b_q_x.npy", "c_q_x.npy"],
    ("../x.npy", "x.npy", "y/x.npy"): ["x.npy", "x.npy", "y_x.npy"],
    ("q.zarr",): ["q"],
    (): [],
}


@pytest.mark.parametrize("paths", NAMES)
def test_names_of_files(paths, capsys):
    if paths[:1] == ("../x.npy",):
        with pytest.raises(ValueError, match=r"^Q: \.\./x\.npy, x\.npy, y/x\.npy: must"):
            names_of(paths)
    else:
        assert names_of(paths) == NAMES[paths]
    assert main(["score", "p.npy", "q.npy", "q.npy"]) == 1
    assert capsys.readouterr().err == "fastkl: Q: q.npy, q.npy: must be different files\n"


@pytest.mark.parametrize("name", ["", "a/b", "a\\b", "..", ".a", "a\n", 7, None])
def test_names_that_no_column_can_have(name):
    refused(r"^q has the name .*: must be text, without / or", rows(1), {"a": rows(2), name: rows(3)})


def test_wrong_models():
    q = models()
    refused(r"^q: must name at least one model", rows(1), {})
    refused(r"^q: must be left out for entropy", rows(1), q, measure="entropy")
    q["wide"] = q["wide"][:, :5]
    refused(r"^p has shape \(211, 7\) and q\['wide'\] has shape \(211, 5\): must have the same", rows(1), q)
    q["wide"] = np.full((ROWS, WIDTH), "x")
    refused(r"^q\['wide'\] has dtype <U1", rows(1), q, error=TypeError)


def test_names_in_every_script():
    result = fastkl.score(rows(1), {"a|b": rows(2)})
    assert to_markdown(models_of(result), "kl").splitlines()[2].startswith("| a\\|b | ")
    fastkl.score(rows(1), {"模型": rows(2), "ü": rows(3)}, out="out.npy")
    assert np.load("out.npy").dtype.names == ("模型", "ü")
