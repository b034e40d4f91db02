"""The worked example: it runs, its logits are the network's, and its values are right. Knows nothing of training."""

from __future__ import annotations

import re
from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "quantised_digits.py"
BITS = (8, 4)

Array = np.ndarray[Any, Any]


@pytest.fixture(scope="module")
def example() -> Any:
    pytest.importorskip("sklearn")
    spec = spec_from_file_location("quantised_digits", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    module.trained = cache(module.trained)  # trains once for all tests
    return module


@pytest.fixture(scope="module")
def found(example: Any) -> Any:
    return example.comparisons()


def log_softmax(x: Array) -> Array:
    x = x - x.max(axis=1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=1, keepdims=True))


def test_the_logits_are_those_of_the_network(example: Any) -> None:
    network, images, _ = example.trained()
    logits = example.logits(network.coefs_, network.intercepts_, images)
    # Sums of at most 64 products are added in another order, in three layers that multiply errors by at most ten each. A
    # missing layer changes far more than that.
    np.testing.assert_allclose(np.exp(log_softmax(logits)), network.predict_proba(images), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("bits", BITS)
def test_rounded_weights(example: Any, bits: int) -> None:
    weights = np.random.default_rng(bits).standard_normal((100, 20))
    rounded = example.rounded(weights, bits)
    step = np.abs(weights).max() / (2 ** (bits - 1) - 1)
    assert len(np.unique(rounded)) <= 2**bits - 1
    assert np.abs(rounded - weights).max() <= step / 2 * (1 + 1e-12)  # a product and a quotient, rounded
    assert np.abs(rounded).max() == pytest.approx(np.abs(weights).max())


@pytest.mark.parametrize("bits", BITS)
def test_the_values_are_those_of_the_definitions(found: Any, bits: int) -> None:
    full, quantised, labels, result = found[bits]
    a, b = log_softmax(full), log_softmax(quantised)
    p, q = np.exp(a), np.exp(b)
    m = np.log((p + q) / 2)
    rows = np.arange(len(labels))
    expected = {
        "entropy_p": -(p * a).sum(axis=1),
        "entropy_q": -(q * b).sum(axis=1),
        "cross_entropy": -(p * b).sum(axis=1),
        "kl": (p * (a - b)).sum(axis=1),
        "reverse_kl": (q * (b - a)).sum(axis=1),
        "js": ((p * (a - m)).sum(axis=1) + (q * (b - m)).sum(axis=1)) / 2,
        "nll_p": -a[rows, labels],
        "nll_q": -b[rows, labels],
    }
    # No logarithm is larger than `most`. Its error is at most 4 eps most (a subtraction, and the logarithm of a sum of
    # weights with such errors), that of a weight is the same and its rounding, and a sum of ten terms adds ten roundings.
    most = max(float(np.abs(x).max()) for x in (full, quantised, a, b, m))
    tolerance = float(np.finfo(float).eps) * most * (4 * most + 20)
    assert tolerance < 1e-9
    for name, values in expected.items():
        np.testing.assert_allclose(getattr(result, name), values, rtol=0, atol=tolerance, err_msg=name)
    assert np.array_equal(result.same_argmax, full.argmax(axis=1) == quantised.argmax(axis=1))


def test_fewer_bits_are_a_larger_divergence(found: Any) -> None:
    fine, coarse = (found[bits][3] for bits in BITS)
    assert 0 < fine.kl.mean() < coarse.kl.mean()
    assert 0 < coarse.same_argmax.mean() <= fine.same_argmax.mean() <= 1
    for result in fine, coarse:
        assert all(np.all(getattr(result, name) >= 0) for name in result._fields)
        assert np.all(result.js <= np.log(2))
    assert np.array_equal(fine.nll_p, coarse.nll_p)


def test_the_network_has_learned(found: Any) -> None:
    full, _, labels, result = found[BITS[0]]
    assert np.mean(full.argmax(axis=1) == labels) > 0.9
    assert np.exp(result.nll_p.mean()) < 1.5


def test_the_page_quotes_what_is_printed(example: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Except its numbers, which depend on the scikit-learn and the machine."""

    def words(text: str) -> str:
        return re.sub(r"\s+", " ", re.sub(r"\d[\d.e+-]*", "#", text)).strip()

    example.main()
    printed = capsys.readouterr().out
    assert all(f"weights of {bits} bits" in printed for bits in BITS)
    assert words(printed) in words((ROOT / "docs/models.md").read_text(encoding="utf-8"))
