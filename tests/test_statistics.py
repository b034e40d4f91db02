"""The statistics of `score`: against NumPy on the values of the rows, and standard errors against resampling."""

import json
import math

import numpy as np
import pytest
from support.batch_files import npy, refused, small_parts
from support.batch_runs import without_speed

import fastkl
from fastkl.__main__ import main
from fastkl.batch.standard_errors import Clusters, ClusterSums, Mean
from fastkl.batch.totals import Products

ROWS, WIDTH = 600, 12
EPS = 2.0**-52
_in_small_parts = small_parts(21 * WIDTH * 8, 4 * WIDTH * 8)
LOSSES = ("nll_p", "nll_q", "nll_increase", "delta_p")


def logits(seed, rows=ROWS):
    return np.random.default_rng(seed).normal(size=(rows, WIDTH))


def documents(rows=ROWS):
    """Names of clusters of 1 to 40 rows, out of order and apart."""
    random = np.random.default_rng(7)
    names = np.repeat(random.permutation(1 - rows // 2 + np.arange(rows)), random.integers(1, 40, rows))[:rows]
    return random.permutation(names)


def compared(base=None, **options):
    """The files of two models whose losses are correlated, the result, and the values of the rows."""
    p = logits(1)
    right = np.random.default_rng(9).integers(0, WIDTH, ROWS)
    files = npy(p=p, q=p + logits(2) / 2, right=right)
    result = fastkl.score(*files, from_logits=True, base=base, out="out.npy", **options)
    return result, np.load("out.npy")


@pytest.mark.parametrize("base", [None, 2])
def test_statistics_of_two_models(base):
    """Both perplexities and the change of probabilities do not depend on the base."""
    result, values = compared(base)
    scale = math.log(base or math.e)
    p, q = values["nll_p"] * scale, values["nll_q"] * scale
    n = len(p)
    ratio = math.exp((q - p).mean())
    # Var(q - p) by the covariance, as the standard error of a ratio is stated.
    variance = q.var(ddof=1) + p.var(ddof=1) - 2 * np.cov(p, q)[0, 1]
    expected = {
        "perplexity_p": math.exp(p.mean()),
        "perplexity_p_stderr": math.exp(p.mean()) * p.std(ddof=1) / math.sqrt(n),
        "perplexity_q": math.exp(q.mean()),
        "perplexity_q_stderr": math.exp(q.mean()) * q.std(ddof=1) / math.sqrt(n),
        "perplexity_ratio": ratio,
        "perplexity_ratio_stderr": ratio * math.sqrt(variance / n),
        "ln_ppl_correlation": np.corrcoef(p, q)[0, 1],
    }
    assert {name: result[name] for name in expected} == pytest.approx(expected, rel=1e-12)
    change = np.exp(-q) - np.exp(-p)
    found = result["delta_p"]
    expected = {"mean": change.mean(), "rms": np.sqrt((change**2).mean()), "std": change.std(ddof=1)}
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-12)
    levels = [float(level) for level in found["quantiles"]]
    np.testing.assert_allclose([*found["quantiles"].values()], np.quantile(change, levels), rtol=1e-12)
    assert found["max_row"] == change.argmax()


def test_statistics_of_every_field_are_numpys():
    result, values = compared()
    for name in values.dtype.names:
        found, column = result[name], values[name].astype(float)
        levels = [float(level) for level in found["quantiles"]]
        assert levels == [0.001, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 0.999]
        np.testing.assert_allclose([*found["quantiles"].values()], np.quantile(column, levels), rtol=4 * EPS, err_msg=name)
        largest = np.sort(column)[-30:]  # 5 % of 600
        assert found["cvar95"] == pytest.approx(largest.mean(), rel=1e-14)
        if name != "same_argmax":  # whose values are often equal
            assert found["cvar95"] == pytest.approx(column[column >= np.quantile(column, 0.95)].mean(), rel=1e-14)
        assert found["std"] == pytest.approx(column.std(ddof=1), rel=1e-13)


def test_infinite_losses():
    """They make perplexities and their ratio infinite, or 0; the change of probabilities stays finite."""
    p = logits(1)
    q, right = p + logits(2), np.arange(ROWS) % WIDTH
    for lower, ratio in ((q,), math.inf), ((p,), 0.0), ((p, q), math.nan):
        changed = [x.copy() if any(x is y for y in lower) else x for x in (p, q)]
        for x in changed:
            if x is not p and x is not q:
                x[3, right[3]] = -np.inf
        result = fastkl.score(*npy(p=changed[0], q=changed[1], right=right), from_logits=True)
        assert result["perplexity_ratio"] == pytest.approx(ratio, nan_ok=True)
        assert math.isnan(result["perplexity_ratio_stderr"])
        for name, x in ("p", p), ("q", q):
            infinite = any(x is y for y in lower)
            assert math.isinf(result[f"perplexity_{name}"]) == infinite
            assert math.isnan(result[f"perplexity_{name}_stderr"]) == infinite
        assert (result["delta_p"]["infinite"], result["delta_p"]["invalid"]) == (0, 0)
        both = [np.delete(fastkl.nll(right, x, from_logits=True), 3) for x in (p, q)]
        assert result["ln_ppl_correlation"] == pytest.approx(np.corrcoef(*both)[0, 1])


def test_ignored_rows_are_in_no_statistic_of_losses():
    right = np.random.default_rng(9).integers(0, WIDTH, ROWS)
    kept = np.arange(ROWS) % 3 > 0
    p, q = logits(1), logits(1) + logits(2)
    of_documents = documents()
    options = {"from_logits": True, "ignore_index": -1}
    npy(p=p, q=q, right=np.where(kept, right, -1), of=of_documents)
    found = fastkl.score("p.npy", "q.npy", "right.npy", cluster_by="of.npy", **options)
    npy(p=p[kept], q=q[kept], right=right[kept], of=of_documents[kept])
    expected = fastkl.score("p.npy", "q.npy", "right.npy", cluster_by="of.npy", **options)
    numbers = [name for name in expected if name.startswith(("perplexity", "ln_"))]
    assert len(numbers) == 7
    assert [found[name] for name in numbers] == pytest.approx([expected[name] for name in numbers], rel=1e-12)
    for field, name in (
        ("delta_p", "rms"),
        *((field, name) for field in LOSSES for name in ("mean", "stderr", "clusters")),
    ):
        assert found[field][name] == pytest.approx(expected[field][name], rel=1e-12)
    assert found["delta_p"]["ignored"] == 200


@pytest.mark.parametrize("clustered", [False, True])
def test_standard_errors_are_those_of_resampling(clustered):
    """2,000 samples of rows or of whole clusters, with replacement. Their own error is 1.6 %, and 10 % the bound."""
    random = np.random.default_rng(4)
    rows, of = 4000, np.arange(4000) // random.integers(5, 21)
    shared = np.repeat(random.normal(size=(rows, WIDTH)), 1, axis=0)[of]  # what the rows of a cluster have in common
    p = logits(1, rows) + shared
    q = p + 0.4 * logits(2, rows) * (1 + np.abs(shared[:, :1]))
    right = np.argmax(p + random.gumbel(size=p.shape), axis=1)
    result = fastkl.score(p, q, right, from_logits=True, out="out.npy", cluster_by=of if clustered else None)
    values = np.load("out.npy")
    columns = np.stack(
        [values["kl"], values["nll_p"], values["nll_q"], np.exp(-values["nll_q"]) - np.exp(-values["nll_p"])]
    )
    units = of if clustered else np.arange(rows)
    sums = np.stack([np.bincount(units, x) for x in (*columns, np.ones(rows))])
    means = np.empty((2000, 4))
    for mean in means:
        drawn = sums[:, random.integers(0, sums.shape[1], sums.shape[1])].sum(axis=1)
        mean[:] = drawn[:4] / drawn[4]
    kl, nll_p, nll_q, change = means.T
    expected = {
        "kl": (kl, result["kl"]["stderr"]),
        "delta_p": (change, result["delta_p"]["stderr"]),
        "perplexity_p": (np.exp(nll_p), result["perplexity_p_stderr"]),
        "perplexity_q": (np.exp(nll_q), result["perplexity_q_stderr"]),
        "perplexity_ratio": (np.exp(nll_q - nll_p), result["perplexity_ratio_stderr"]),
    }
    for name, (samples, error) in expected.items():
        assert error == pytest.approx(samples.std(ddof=1), rel=0.1), name


def test_clusters_by_the_definition():
    of = documents()
    result, values = compared(cluster_by=of)
    assert not np.array_equal(of, np.sort(of))
    for name in "kl", "nll_q":
        x, mean = values[name], values[name].mean()
        sums = [(x[of == name] - mean).sum() for name in np.unique(of)]
        n = len(sums)
        assert result[name]["clusters"] == n
        assert result[name]["stderr"] == pytest.approx(math.sqrt(n / (n - 1) * np.sum(np.square(sums))) / ROWS, rel=1e-11)
    each, _ = compared(cluster_by=np.arange(ROWS)[::-1])
    plain, _ = compared()
    for name in "kl", "nll_q", "delta_p":
        assert each[name]["stderr"] == pytest.approx(plain[name]["stderr"], rel=1e-12)
    assert math.isnan(compared(cluster_by=np.zeros(ROWS, "u1"))[0]["kl"]["stderr"])
    for x in (result, *(x for x in result.values() if isinstance(x, dict))):  # plain Python, as JSON has it
        assert {type(number) for number in x.values()} <= {int, float, dict, list, type(None)}


def test_clusters_after_an_interruption(monkeypatch):
    """The parts that are safe have their clusters, too; the clusters are no part of the job."""
    from support.batch_runs import call_after, interrupt

    p, q, of = npy(p=logits(1), q=logits(2), of=documents())
    expected = fastkl.score(p, q, from_logits=True, cluster_by=of)
    with monkeypatch.context() as patch:
        call_after(12, interrupt, patch.setattr)
        with pytest.raises(KeyboardInterrupt):
            fastkl.score(p, q, from_logits=True, out="out.npy")
    result = fastkl.score(p, q, from_logits=True, out="out.npy", cluster_by=of, resume=True)
    assert without_speed(result) == without_speed(expected)


def test_sums_of_clusters_and_means_of_any_size():
    numbers, sums, mean = Clusters(), ClusterSums(), Mean(True)
    values, names = np.array([1e308, -1e308, math.inf, math.nan, 1e308, 3.0]), np.array([2**63, 5, 5, 6, 5, 2**63], "u8")
    for part in slice(0, 1), slice(1, 4), slice(4, 6):
        of = numbers.number(names[part])
        sums.update(values[part], of)
        mean.update(values[part], of)
    assert sums.result()["clusters"] == 2
    assert 0 < sums.result()["stderr"] < math.inf
    assert mean.result() == {"rows": 4, "mean": 2.5e307} | sums.result()
    assert repr(Mean(False).result()) == "{'rows': 0, 'mean': nan, 'stderr': nan}"


@pytest.mark.parametrize("scale", [1e-300, 1.0, 1e150])
def test_correlation(scale):
    """Against 60 eps of NumPy's in long double, for values far from their deviation, too."""
    random = np.random.default_rng(3)
    x = random.normal(size=5000)
    for y, centre in (x + random.normal(size=5000), 0), (random.normal(size=5000), 1e6), (-3 * x, 1.0), (x, 0):
        a, b = (x + centre) * scale, y + centre
        halves = [Products.of(a[half], b[half]) for half in (slice(0, 1700), slice(1700, None))]
        exact = [z.astype(np.longdouble) - z.astype(np.longdouble).mean() for z in (a / scale, b)]
        expected = float((exact[0] * exact[1]).sum() / np.sqrt((exact[0] ** 2).sum() * (exact[1] ** 2).sum()))
        assert halves[0].plus(halves[1]).correlation() == pytest.approx(expected, abs=60 * EPS + 4e-16 * centre)
    assert math.isnan(Products.of(x, np.ones(5000)).correlation())


def test_conditions(capsys):
    """One that holds, or names a number that is not finite, is the exit status 3."""
    p, q = logits(1), logits(1) + logits(2) / 9
    right = np.random.default_rng(9).integers(0, WIDTH, ROWS)
    p_file, q_file, r_file = npy(p=p, q=q, right=right)
    plain = ["score", p_file, q_file, "--from-logits", "--json"]
    mean = fastkl.kl_divergence(p, q, from_logits=True).mean()
    for condition, fails in (
        (f"kl.mean>{mean * 1.01}", False),
        (f"mean > {mean * 0.99}", True),
        ("kl.quantiles.0.999<=9", True),
    ):
        assert main([*plain, "--fail-if", "kl.max>=1e9", "--fail-if", condition]) == (3 if fails else 0)
        printed = capsys.readouterr()
        assert [x.partition(":")[0] for x in json.loads(printed.out)["failed"]] == ([condition] if fails else [])
        assert printed.err.startswith(f"fastkl: q fails {condition}: ") if fails else not printed.err
    q[5, right[5]] = -np.inf
    npy(q=q)
    compare = [*plain[:-1], "--labels", r_file]
    for condition in "perplexity_q<1", "perplexity_ratio_stderr<0", "kl.max<0":  # inf, NaN, inf
        assert main([*compare, "--fail-if", condition]) == 3
        assert f"fails           {condition}: {condition[:-2]} is " in capsys.readouterr().out
    assert main([*compare, "--fail-if", "top1_agreement<0.5", "--fail-if", "nll_p.mean>99"]) == 0


UNKNOWN = ["kl.men>1", "nll_q.mean>1", "kl>1", "kl.worst>1", "kl.first_infinite_rows>1", "kl.mean=1", "kl.mean>", ">1"]
UNKNOWN += ["kl.mean>x", "kl.mean>nan", "kl.mean>inf", "kl.mean > 1 or 2", ""]


@pytest.mark.parametrize("condition", UNKNOWN)
def test_unknown_conditions_are_refused(condition, capsys, tmp_path):
    """Before a row is read: the first one here is invalid."""
    npy(p=-np.ones((5, 3)), q=np.ones((5, 3)))
    before = sorted(tmp_path.iterdir())
    assert main(["score", "p.npy", "q.npy", "--out", "out.npy", "--fail-if", condition]) == 2
    printed = capsys.readouterr()
    assert (printed.out, printed.err.count("\n")) == ("", 1)
    assert printed.err.startswith(f"fastkl: fail_if={condition!r}: must ")
    assert sorted(tmp_path.iterdir()) == before
    refused("^fail_if=", "p.npy", "q.npy", fail_if=[condition])


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("in_memory", [False, True])
def test_first_columns(threads, in_memory):
    """Two paddings of one vocabulary, from files and from memory."""
    p, q = logits(1), logits(2)
    right = np.random.default_rng(9).integers(0, 10, ROWS)
    wide = [np.concatenate([x, np.full((ROWS, n), 7.0)], axis=1) for x, n in ((p, 3), (q, 5))]
    operands = wide if in_memory else npy(p=wide[0], q=wide[1])
    for width in 10, 12:
        options = {"columns": width, "from_logits": True, "threads": threads, "out": "out.npy"}
        fastkl.score(*operands, **options)
        expected = fastkl.kl_divergence(p[:, :width], q[:, :width], from_logits=True)
        np.testing.assert_array_equal(np.load("out.npy"), expected)
        fastkl.score(*operands, right, **options)
        expected = fastkl.compare(p[:, :width], q[:, :width], right, from_logits=True)
        np.testing.assert_array_equal(np.load("out.npy")["nll_q"], expected.nll_q)


def test_wrong_columns_and_clusters():
    p, q, of, short, real = npy(p=logits(1), q=logits(2)[:, :9], of=documents(), short=documents(9), real=np.ones(ROWS))
    refused(r"^columns=10: q\.npy has shape \(600, 9\), and fewer columns", p, q, columns=10)
    for columns in 0, -1, True:
        refused(rf"^columns={columns}: must be a positive integer", p, q, columns=columns)
    refused(r"^p\.npy has shape \(600, 12\) and q\.npy has shape \(600, 9\)", p, q)
    options = {"columns": 9, "from_logits": True}
    assert fastkl.score(p, q, cluster_by=of, **options)["clusters"] == len(np.unique(documents()))
    refused(r"^short\.npy has shape \(9,\): must have a cluster for each row, \(600,\)", p, q, cluster_by=short, **options)
    refused(r"^real\.npy has dtype float64: clusters must be", p, q, cluster_by=real, error=TypeError, **options)
    refused(r"^out\.npy: is an input", p, q, cluster_by=npy(out=documents())[0], out="out.npy", error=OSError, **options)


ML_DTYPES = pytest.importorskip("ml_dtypes")


@pytest.mark.parametrize("dtype", ["f8", "f4", "f2", "bfloat16"])
@pytest.mark.parametrize("kind", ["npy", "npz", "array"])
def test_rows_that_diverge_most(dtype, kind):
    """Their labels, and the first of the largest entries of the columns that are compared, of either sign."""
    cast = np.dtype(ML_DTYPES.bfloat16 if dtype == "bfloat16" else dtype)
    p, q = (np.round(logits(seed) * 2).astype(cast) - cast.type(9) for seed in (1, 2))  # many are equal
    p[:, 10:] = q[:, 10:] = 99
    right = np.random.default_rng(9).integers(0, 10, ROWS)
    operands = [p, q]
    if kind == "npy":
        operands = npy(p=p, q=q)
    elif kind == "npz":
        for name, x in ("p", p), ("q", q):
            np.savez_compressed(f"{name}.npz", x)
        operands = ["p.npz", "q.npz"]
    options = {"from_logits": True, "columns": 10, "out": "out.npy"}
    for threads, top in (1, 3), (2, 25):
        result = fastkl.score(*operands, right, top=top, threads=threads, **options)
        values = np.load("out.npy")["kl"]
        worst = np.lexsort([np.arange(ROWS), -values])[:top]
        expected = [
            {
                "row": int(row),
                "value": values[row],
                "label": right[row],
                "argmax_p": p[row, :10].astype(float).argmax(),
                "argmax_q": q[row, :10].astype(float).argmax(),
            }
            for row in worst
        ]
        assert result["top"] == expected
        assert [len(result[name]["worst"]) for name in ("kl", "js")] == [top, 10]
        agree = np.array([at["argmax_p"] == at["argmax_q"] for at in result["top"]])
        np.testing.assert_array_equal(np.load("out.npy")["same_argmax"][worst], agree)
    assert [*fastkl.score(*operands, top=1, **options)["top"][0]] == ["row", "value", "argmax_p", "argmax_q"]
    alone = fastkl.score(operands[0], measure="entropy", from_logits=True, top=600)["top"]
    assert (len(alone), [*alone[0]]) == (600, ["row", "value", "argmax_p"])


def test_rows_that_diverge_most_are_described_when_wanted(capsys):
    p, q, one = npy(p=logits(1), q=logits(2), one=logits(3)[:1])
    assert "top" not in fastkl.score(p, q, from_logits=True, report="report.html")
    assert main(["score", p, q, one, "--from-logits", "--top", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()[-5:]
    assert lines[0].split() == ["row", "value", "argmax", "p", "argmax", "q"]
    assert [line.split()[0] for line in lines[1:]] == ["q", "q", "one", "one"]
    assert main(["score", p, one, "--from-logits", "--top", "2", "--markdown"]) == 0
    table = capsys.readouterr().out.splitlines()[-4:]
    assert table[0] == "|  | row | value | argmax p | argmax q |"
    assert [line.split(" | ")[-1] for line in table[2:]] == [f"{np.argmax(logits(3)[0])} |"] * 2
    refused(r"^worst=0: a positive number is wanted", p, q, from_logits=True, top=0)


def test_markdown(capsys):
    p, q, right, of = npy(p=logits(1), q=logits(2), right=np.zeros(ROWS, int), of=documents())
    assert main(["score", p, q, "--from-logits", "--labels", right, "--markdown", "--cluster-by", of]) == 0
    head, rule, line, empty, note = capsys.readouterr().out.splitlines()
    assert {row.count("|") for row in (head, rule, line)} == {head.count("|")}
    assert head.startswith(
        "|  | kl in nats, mean | 50 % | 99 % | 99.9 % | worst 5 %, mean | max | same argmax | perplexity | "
    )
    assert set(rule) <= set("| -:")
    assert (empty, note[:34]) == ("", "600 rows; ± is one standard error,")
