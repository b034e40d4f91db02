"""The examples of a language model: their data, their files, their memory, and the pages that quote what they print.

Knows nothing of training. The example of llama.cpp's files is here, too.
"""

import lzma
import shlex
import tracemalloc
from functools import cache
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from support.examples import ROOT, imported, page, quoted, words

import fastkl
from fastkl.__main__ import main

MODELS = ("8 bits", "4 bits")
EVERY = slice(None)
EPS = np.finfo("f4").eps


@pytest.fixture(scope="module")
def example():
    pytest.importorskip("safetensors")
    module = imported("stored_logits")
    module.trained = cache(module.trained)  # trains once for all tests
    # Products are small: where other processes compute, too, several threads of BLAS take twenty times as long.
    with import_module("threadpoolctl").threadpool_limits(1, user_api="blas"):  # it comes with scikit-learn
        yield module


@pytest.fixture(scope="module")
def files(example, tmp_path_factory):
    return example.stored(tmp_path_factory.mktemp("stored") / "logits")


@pytest.fixture(scope="module")
def tensors(files):
    load_file = pytest.importorskip("safetensors.numpy").load_file
    return {name: load_file(path) for name, path in files.items()}


def errors(weights, biases, seen, hidden):
    """Bounds of the errors of logits in float32.

    A sum of n products and a bias has an error of (n + 1) ε/2 of the sum of their absolute values, in any order. There
    are two layers. Terms of second order are left out: they are below 0.01 of the bound.
    """
    first, last = map(np.abs, weights)
    of_hidden = (len(first) + 1) * EPS / 2 * (seen @ first + np.abs(biases[0]))
    return of_hidden @ last + (len(last) + 1) * EPS / 2 * (hidden @ last + np.abs(biases[1]))


# Stored logits -----------------------------------------------------------------------------------------------------------


def test_labels_are_the_next_characters(example):
    characters, labels = example.sequences(1)
    known = labels != example.IGNORED
    lengths = known.sum(axis=1)
    assert (known == (np.arange(example.POSITIONS) < lengths[:, np.newaxis])).all()  # the padding is at the end
    assert lengths.min() < example.POSITIONS == lengths.max()
    assert np.array_equal(labels[:, :-1][known[:, 1:]], characters[:, 1:][known[:, 1:]])


def test_the_texts_are_others_than_those_of_the_training(example):
    learned, others = ({*map(tuple, example.sequences(first)[0].tolist())} for first in (0, 1))
    assert 0 <= len(learned) - len(others) <= 1
    assert learned.isdisjoint(others)


def test_inputs_are_the_last_characters(example):
    characters = np.array([[3, 1, 4, 1, 5, 9, 2, 6]])
    seen = example.inputs(characters).reshape(8, example.CONTEXT, -1)
    assert (seen.sum(axis=-1) == 1).all()
    assert seen.argmax(axis=-1)[[0, 7]].tolist() == [[0, 0, 0, 0, 0, 3], [4, 1, 5, 9, 2, 6]]


def test_the_model_predicts_texts_it_has_not_learned_from(example, tensors):
    """Better than the frequencies of characters, which are the best prediction that looks at no text."""
    labels, rows = tensors["labels"]["rows"], tensors["full"]["rows"]
    frequencies = np.bincount(labels) / len(labels)
    assert fastkl.nll(labels, rows, from_logits=True).mean() < fastkl.entropy(frequencies) / 1.3


def test_the_logits_are_those_of_the_network(example, tensors):
    network = example.trained()
    weights, biases = network.coefs_, network.intercepts_
    for characters, rows in zip(example.sequences(1)[0][:5, np.newaxis], tensors["full"]["padded"], strict=False):
        seen = example.inputs(characters)[0]
        exponentials = np.exp(rows.astype(float))
        found = exponentials / exponentials.sum(axis=1, keepdims=True)
        # Both have logits with these errors, and probabilities are rounded to float32, by exponentials and their sum, too.
        error = 2 * 1.01 * errors(weights, biases, seen, np.maximum(seen @ weights[0] + biases[0], 0)).max()
        np.testing.assert_allclose(network.predict_proba(seen), found, rtol=2 * error + 80 * EPS, atol=0)


@pytest.mark.parametrize("tensor", ["padded", "rows"])
def test_the_figures_are_those_of_the_tensors(example, files, tensors, tensor):
    result = example.scored(files, tensor)
    labels = tensors["labels"][tensor].ravel()
    known = labels != example.IGNORED
    assert [model["q"] for model in result["models"]] == [*MODELS]
    for model in result["models"]:
        p, q = (tensors[name][tensor].reshape(len(labels), -1) for name in ("full", model["q"]))
        values = fastkl.compare(p, q, labels, from_logits=True, ignore_index=example.IGNORED)
        assert model["kl"]["rows"] == len(labels)  # those of the padding, too
        assert model["kl"]["max"] == values.kl.max()
        # Figures are of float64 sums with errors of some ε; a row more or less changes them by 1 in 40,000.
        assert model["kl"]["mean"] == pytest.approx(values.kl.mean(dtype=float), rel=1e-12)
        for name in "perplexity_p", "perplexity_q":
            losses = getattr(values, name.replace("perplexity", "nll"))[known]
            assert model[name] == pytest.approx(np.exp(losses.mean(dtype=float)), rel=1e-12)
    report = Path(files["full"]).with_name(f"{tensor}.html").read_text(encoding="utf-8")
    assert all(model in report for model in MODELS)


def test_fewer_bits_are_a_larger_divergence(example, files):
    fine, coarse = example.scored(files, "rows")["models"]
    assert 0 < fine["kl"]["mean"] < coarse["kl"]["mean"]
    assert coarse["top1_agreement"] < fine["top1_agreement"] < 1
    assert abs(np.log(fine["perplexity_ratio"])) < np.log(coarse["perplexity_ratio"])


def test_the_page_quotes_what_is_printed(example, tmp_path, capsys):
    example.main(str(tmp_path / "logits"))
    assert words(capsys.readouterr().out) in words(page("language_model"))


def test_the_page_quotes_the_command(files, monkeypatch, capsys):
    monkeypatch.chdir(Path(files["full"]).parent)
    command, lines = quoted(page("language_model"), "fastkl score full.safetensors:rows")
    assert main(shlex.split(command)[1:]) == 0
    assert words(capsys.readouterr().out) == words(lines)


# Hidden states and the last layer ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def head(example):
    return imported("lm_head")


@pytest.fixture(scope="module")
def models(head):
    """The full model, the others, and labels."""
    found, labels = head.models()
    return found.pop("full"), found, labels


def test_logits_are_those_that_are_stored(example, models, tensors):
    full, others, labels = models
    assert np.array_equal(labels, tensors["labels"]["rows"])
    weights, biases = example.weights(example.trained()), example.trained().intercepts_
    characters, positions = example.sequences(1)
    seen = example.inputs(characters)[positions != example.IGNORED]
    for name, model in {"full": full, **others}.items():
        bound = 2 * 1.01 * errors(weights[name], biases, seen, model.hidden)  # both have such errors
        assert (np.abs(model.logits(EVERY) - tensors[name]["rows"]) <= bound).all()


@pytest.mark.parametrize("block", [999, 100_000])
def test_summaries_are_those_of_stored_logits(head, models, block):
    full, others, labels = models

    def stored(model):
        return np.concatenate([model.logits(slice(i, i + block)) for i in range(0, len(labels), block)])

    found = head.summaries(full, others, labels, block)
    result = fastkl.score(stored(full), {name: stored(q) for name, q in others.items()}, labels, from_logits=True)
    for model in result["models"]:
        for field, summary in found[model["q"]].items():
            mine = summary.result()
            assert mine == {key: model[field][key] for key in mine}


def test_memory_is_that_of_two_blocks_and_the_summaries(head, models):
    full, others, labels = models
    values = [fastkl.compare(full.logits(EVERY), q.logits(EVERY), labels, from_logits=True) for q in others.values()]

    def alone(block):
        """The most memory of the summaries of values that are there already."""
        tracemalloc.start()
        kept = [[fastkl.Summary() for _ in head.FIELDS] for _ in others]
        for first in range(0, len(labels), block):
            for summaries, result in zip(kept, values, strict=True):
                for summary, field in zip(summaries, head.FIELDS, strict=True):
                    summary.update(getattr(result, field)[first : first + block])
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    head.peak(full, others, labels, len(labels))  # what is made once only
    logits = 2 * full.head.shape[1] * full.head.itemsize  # of a row
    for block in 1000, len(labels):
        rest = head.peak(full, others, labels, block) - alone(block)
        # Nine values of 4 bytes a row, twice until a result replaces the last one, and labels; 2^16 is for small objects.
        assert block * logits <= rest <= block * (logits + 2 * 9 * 4 + 2 * 8) + 2**16


def test_the_page_quotes_the_blocks(head, capsys):
    head.main()
    assert words(capsys.readouterr().out) in words(page("language_model"))


# llama.cpp's files -------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("tier")
def test_the_page_quotes_the_real_files(tmp_path, monkeypatch, capsys):
    """Digit by digit: the files are the same everywhere, and a last digit is far from what is shown."""
    monkeypatch.chdir(tmp_path)
    for name in "base.kld", "worse.kld":
        Path(name).write_bytes(lzma.decompress((ROOT / f"tests/data/kld/{name}.xz").read_bytes()))
    command, lines = quoted(page("language_model"), "fastkl score base.kld worse.kld")
    assert main(shlex.split(command)[1:]) == 3
    printed = capsys.readouterr()
    assert printed.out + printed.err == f"{lines}\n"
