"""Typical calls with the types that a checker must infer: `mypy --strict` and `pyright` read this page, nothing runs it.

A call that must be refused has a `type: ignore`, which both checkers report if it is unnecessary.
"""

# pyright: strict, reportUnnecessaryTypeIgnoreComment=true

from typing import Any, assert_type

import numpy as np
from numpy.typing import NDArray

import fastkl


class Tensor:
    """A container of another library."""


def calls(p: NDArray[np.float32], q: NDArray[np.float64], labels: NDArray[np.int64], tensor: Tensor) -> None:
    # Lists of floats are one row each: a NumPy scalar.
    row = [0.5, 0.5]
    assert_type(fastkl.entropy(row), np.floating)
    assert_type(fastkl.entropy([1, 0], base=2, threads=1), np.floating)
    assert_type(fastkl.kl_divergence(row, (0.25, 0.75), eps=1e-9), np.floating)
    assert_type(fastkl.nll(1, row, label_smoothing=0.1), np.floating)
    assert_type(fastkl.js_distance(row, row, keepdims=True), NDArray[np.floating])
    assert_type(fastkl.hellinger_distance(row, row, threads=1), np.floating)
    assert_type(fastkl.total_variation(row, row), np.floating)
    assert_type(fastkl.chi2_divergence(row, row, eps=1e-9), np.floating)
    assert_type(fastkl.jeffreys_divergence(row, row, eps=1e-4), np.floating)
    assert_type(fastkl.renyi_divergence(row, row, 2), np.floating)
    assert_type(fastkl.renyi_divergence(row, row, alpha=float("inf"), base=2), np.floating)
    assert_type(fastkl.generalized_kl(row, [2, 1]), np.floating)
    assert_type(fastkl.generalized_kl(row, row, keepdims=True), NDArray[np.floating])

    # An array, or a list of rows.
    assert_type(fastkl.entropy(p), NDArray[np.floating])
    assert_type(fastkl.entropy([row, row], invalid="nan"), NDArray[np.floating])
    assert_type(fastkl.cross_entropy(p, q, axis=0, normalize=True), NDArray[np.floating])
    assert_type(fastkl.kl_divergence(row, q, base=2), NDArray[np.floating])
    assert_type(fastkl.js_divergence(p, [row, row], from_logits="p", temperature=2), NDArray[np.floating])
    assert_type(fastkl.nll(labels, q, from_logits=True, ignore_index=-100), NDArray[np.floating])
    assert_type(fastkl.nll([0, 1], q), NDArray[np.floating])
    assert_type(fastkl.hellinger_distance(p, q, from_logits="q"), NDArray[np.floating])
    assert_type(fastkl.total_variation(p, row, normalize=True), NDArray[np.floating])
    assert_type(fastkl.chi2_divergence([row, row], q), NDArray[np.floating])
    assert_type(fastkl.jeffreys_divergence(p, q, axis=0, normalize=True, eps=0.5), NDArray[np.floating])
    assert_type(fastkl.renyi_divergence(p, q, 0.5, temperature=2, from_logits=True), NDArray[np.floating])
    assert_type(fastkl.generalized_kl(p, q, axis=0), NDArray[np.floating])

    # `out` gives its own type.
    assert_type(fastkl.js_distance(p, q, out=p), NDArray[np.float32])
    assert_type(fastkl.nll(labels, tensor, out=tensor), Tensor)
    assert_type(fastkl.renyi_divergence(p, q, 2, out=p), NDArray[np.float32])
    assert_type(fastkl.generalized_kl(tensor, tensor, out=tensor), Tensor)

    # Another library's container gives one of its kind, which has no common name.
    assert_type(fastkl.cross_entropy(tensor, tensor), Any)
    assert_type(fastkl.cross_entropy(tensor, p, out=None), Any)
    assert_type(fastkl.entropy(tensor, keepdims=True), Any)
    assert_type(fastkl.jeffreys_divergence(tensor, p, eps=1e-4), Any)
    assert_type(fastkl.renyi_divergence(tensor, tensor, 2), Any)

    assert_type(fastkl.compare(p, q, labels, from_logits=True, ignore_index=-100), fastkl.Comparison)
    try:
        fastkl.entropy(p)
    except fastkl.InvalidRowError as error:
        assert_type((error.operand, error.index, error.reason), tuple[str, tuple[int | slice, ...], str])

    # A keyword that an overload lacks is an error here.
    fastkl.entropy(p, axis=0, base=2, normalize=True, from_logits=False, temperature=1, invalid="nan", out=None)
    fastkl.entropy(p, keepdims=True, threads=1)
    fastkl.cross_entropy(p, q, axis=0, base=2, normalize=True, from_logits="q", temperature=1, eps=0)
    fastkl.cross_entropy(p, q, invalid="nan", out=None, keepdims=True, threads=1)
    fastkl.kl_divergence(p, q, axis=0, base=2, normalize=True, from_logits="q", temperature=1, eps=0)
    fastkl.kl_divergence(p, q, invalid="nan", out=None, keepdims=True, threads=1)
    fastkl.js_divergence(p, q, axis=0, base=2, normalize=True, from_logits="q", temperature=1)
    fastkl.js_divergence(p, q, invalid="nan", out=None, keepdims=True, threads=1)
    fastkl.js_distance(p, q, axis=0, base=2, normalize=True, from_logits="q", temperature=1)
    fastkl.js_distance(p, q, invalid="nan", out=None, keepdims=True, threads=1)
    fastkl.nll(labels, q, axis=0, base=2, normalize=True, from_logits=True, temperature=2, eps=0, ignore_index=None)
    fastkl.nll(labels, q, label_smoothing=0, invalid="ignore", out=None, keepdims=True, threads=None)
    fastkl.hellinger_distance(p, q, axis=0, normalize=True, from_logits="q", temperature=1)
    fastkl.hellinger_distance(p, q, invalid="nan", out=None, keepdims=True, threads=1)
    fastkl.total_variation(p, q, axis=0, normalize=True, from_logits="q", temperature=1)
    fastkl.total_variation(p, q, invalid="nan", out=None, keepdims=True, threads=1)
    fastkl.chi2_divergence(p, q, axis=0, normalize=True, from_logits="q", temperature=1, eps=0)
    fastkl.chi2_divergence(p, q, invalid="nan", out=None, keepdims=True, threads=1)
    fastkl.jeffreys_divergence(p, q, axis=0, base=2, normalize=True, from_logits="q", temperature=1, eps=0)
    fastkl.jeffreys_divergence(p, q, invalid="nan", out=None, keepdims=True, threads=1)
    fastkl.renyi_divergence(p, q, 2, axis=0, base=2, normalize=True, from_logits="q", temperature=1, eps=0)
    fastkl.renyi_divergence(p, q, 2, invalid="nan", out=None, keepdims=True, threads=1)
    fastkl.generalized_kl(p, q, axis=0, eps=0, invalid="nan", out=None, keepdims=True, threads=1)

    # There is no such argument, or not with such a value.
    fastkl.entropy(p, invalid="warn")  # type: ignore[call-overload]
    fastkl.entropy(p, from_logits="p")  # type: ignore[call-overload]
    fastkl.entropy(p, eps=0.1)  # type: ignore[call-overload]
    fastkl.kl_divergence(p, q, from_logits=(True, False))  # type: ignore[call-overload]
    fastkl.kl_divergence(p, q, from_logits="both")  # type: ignore[call-overload]
    fastkl.js_divergence(p, q, eps=0.1)  # type: ignore[call-overload]
    fastkl.cross_entropy(p, q, ignore_index=0)  # type: ignore[call-overload]
    fastkl.nll(labels, q, from_logits="q")  # type: ignore[call-overload]
    fastkl.hellinger_distance(p, q, base=2)  # type: ignore[call-overload]
    fastkl.total_variation(p, q, eps=0.1)  # type: ignore[call-overload]
    fastkl.chi2_divergence(p, q, base=2)  # type: ignore[call-overload]
    fastkl.renyi_divergence(p, q)  # type: ignore[call-overload]
    fastkl.generalized_kl(p, q, normalize=True)  # type: ignore[call-overload]
    fastkl.generalized_kl(p, q, from_logits=True)  # type: ignore[call-overload]
    fastkl.compare(p, q, invalid="warn")  # type: ignore[arg-type]
