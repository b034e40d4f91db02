"""The worked examples: they run, what they compute is what they say, and the pages quote it. Knows nothing of training.

Those of a language model are in test_example_language_model.py.
"""

import re
from functools import cache

import numpy as np
import pytest
from support.examples import imported, page, words

import fastkl

BITS = (8, 4)


# A classifier with rounded weights ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def example():
    module = imported("quantised_digits")
    module.trained = cache(module.trained)  # trains once for all tests
    return module


@pytest.fixture(scope="module")
def found(example):
    return example.comparisons()


def test_the_logits_are_those_of_the_network(example):
    network, images, _ = example.trained()
    exponentials = np.exp(example.logits(network.coefs_, network.intercepts_, images))
    probabilities = exponentials / exponentials.sum(axis=1, keepdims=True)
    # Sums of at most 64 products are added in another order, in three layers that multiply errors by at most ten each. A
    # missing layer changes far more than that.
    np.testing.assert_allclose(probabilities, network.predict_proba(images), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("bits", BITS)
def test_rounded_weights(example, bits):
    weights = np.random.default_rng(bits).standard_normal((100, 20))
    rounded = example.rounded(weights, bits)
    step = np.abs(weights).max() / (2 ** (bits - 1) - 1)
    assert len(np.unique(rounded)) <= 2**bits - 1
    assert np.abs(rounded - weights).max() <= step / 2 * (1 + 1e-12)  # a product and a quotient, rounded
    assert np.abs(rounded).max() == pytest.approx(np.abs(weights).max())


def test_the_values_are_those_of_compare(example, found):
    for full, quantised, labels, result in found.values():
        assert np.array_equal(labels, example.trained()[2])
        for ours, theirs in zip(result, fastkl.compare(full, quantised, labels, from_logits=True), strict=True):
            assert np.array_equal(ours, theirs)


def test_fewer_bits_are_a_larger_divergence(found):
    """The network, which has learned, is the same."""
    fine, coarse = (found[bits][3] for bits in BITS)
    assert 0 < fine.kl.mean() < coarse.kl.mean()
    assert 0 < coarse.same_argmax.mean() <= fine.same_argmax.mean() <= 1
    for result in fine, coarse:
        assert all(np.all(getattr(result, name) >= 0) for name in result._fields)
        assert np.all(result.js <= np.log(2))
    full, _, labels, _ = found[BITS[0]]
    assert np.mean(full.argmax(axis=1) == labels) > 0.9
    assert np.exp(fine.nll_p.mean()) < 1.5
    assert np.array_equal(fine.nll_p, coarse.nll_p)


def test_the_page_quotes_what_is_printed(example, capsys):
    example.main()
    printed = capsys.readouterr().out
    assert all(f"weights of {bits} bits" in printed for bits in BITS)
    assert words(printed) in words(page("classifier"))


# Features that drift -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def drift():
    return imported("drift")


@pytest.fixture(scope="module")
def drifted(drift):
    return drift.drift(50_000)


def test_counts_are_those_of_histograms(drift):
    rows = np.random.default_rng(1).integers(0, 20, (3, 100, 2)).astype(float)  # entries that are equal to an edge
    edges = np.arange(2 * (drift.BINS - 1)).reshape(2, -1)
    counts = drift.counted(rows, edges)
    for batch, feature in np.ndindex(3, 2):
        bins = [-np.inf, *edges[feature], np.inf]
        assert np.array_equal(counts[batch, feature], np.histogram(rows[batch, :, feature], bins)[0])


def test_drift_is_that_of_the_definitions(drift, drifted):
    def shares(counts):
        return counts / counts.sum(axis=-1, keepdims=True)

    def clipped(counts):
        return shares(np.maximum(counts, drift.HALF_A_ROW))

    def psi(p, q):
        return ((p - q) * np.log(p / q)).sum(axis=-1)

    before, whole = drifted.before, drifted.now.sum(axis=0)
    p, q = shares(before), shares(whole)
    m = (p + q) / 2
    js = (p * np.log(p / m) + q * np.log(q / m)).sum(axis=-1) / 2
    p, q = clipped(before), clipped(whole)
    expected = {"psi": psi(p, q), "js": js, "kl": (p * np.log(p / q)).sum(axis=-1)}
    expected["psi_of_batches"] = psi(p, clipped(drifted.now))
    for name, values in expected.items():
        # Shares have errors of an eps, their logarithms' ratios of four, which shares that sum to 2 or less multiply.
        np.testing.assert_allclose(getattr(drifted, name), values, rtol=1e-15, atol=8 * np.finfo(float).eps, err_msg=name)


def test_no_row_is_lost(drift, drifted):
    assert (drifted.before.sum(axis=-1) == 50_000).all()
    assert (drifted.now.sum(axis=-1) == drift.BATCH).all()
    assert drifted.psi_of_batches.shape == drifted.now.shape[:2] == (50, drift.FEATURES)


def test_the_size_drifts_and_the_symmetry_does_not(drifted):
    psi = dict(zip(drifted.names, drifted.psi, strict=True))
    assert psi["mean symmetry"] < 0.1 < 0.25 < psi["mean radius"]
    assert drifted.psi_of_batches[0, 0] < 0.1 < drifted.psi_of_batches[-1, 0]


def test_the_page_on_drift_quotes_what_is_printed(drift, capsys):
    """Of fewer rows, other batches are the first."""
    drift.main(50_000)
    batches = r"none|#,? the first is #"
    printed = re.sub(batches, "", words(capsys.readouterr().out))
    assert printed in re.sub(batches, "", words(page("drift")))
