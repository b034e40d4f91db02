"""The worked example: it runs, its logits are the network's, and its values those of compare. Knows nothing of training."""

import re
from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest

import fastkl

ROOT = Path(__file__).parents[1]
BITS = (8, 4)


@pytest.fixture(scope="module")
def example():
    pytest.importorskip("sklearn")
    spec = spec_from_file_location("quantised_digits", ROOT / "examples" / "quantised_digits.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
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
    """Except its numbers, which depend on the scikit-learn and the machine."""

    def words(text):
        return re.sub(r"\s+", " ", re.sub(r"\d[\d.e+-]*", "#", text)).strip()

    example.main()
    printed = capsys.readouterr().out
    assert all(f"weights of {bits} bits" in printed for bits in BITS)
    assert words(printed) in words((ROOT / "docs/models.md").read_text(encoding="utf-8"))
