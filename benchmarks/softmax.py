"""The measures of logits by definition, in double-double: what the errors of the benchmarks are against.

Right to 2^-80 for the cases' data, whose D is not small: the definitions cancel then, by no more than a few bits. Owns the
exponential; the rest of the arithmetic is tests/double_double.py. Knows nothing of contenders.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from double_double import DoubleDouble, log_ratio

Array = np.ndarray[Any, Any]

# Entries worked on together: enough for NumPy to be quick, few enough for the caches.
BLOCK = 1 << 13


def _exp(x: DoubleDouble) -> DoubleDouble:
    """e^x, by a Newton step on that of the high parts: y + y (x - log y)."""
    y = DoubleDouble.of(np.exp(x.high))
    return y + y * (x - log_ratio(y, DoubleDouble.of(np.ones_like(y.high))))


def _log_softmax(x: Array) -> tuple[DoubleDouble, DoubleDouble]:
    """The logarithms of the rows' softmax, and the softmax."""
    centred = DoubleDouble.of(x) - DoubleDouble.of(np.broadcast_to(x.max(axis=1, keepdims=True), x.shape))
    weights = _exp(centred)
    total = weights.sum()[:, np.newaxis]
    return centred - log_ratio(total, DoubleDouble.of(np.ones_like(total.high))), weights / total


def _measure(measure: str, *operands: Array) -> DoubleDouble:
    if measure == "labels_from_logits":
        labels, q = operands
        return -_log_softmax(q)[0][np.arange(len(q)), labels]
    logs, p = _log_softmax(operands[0])
    if measure == "entropy_from_logits":
        return -(p * logs).sum()
    return (p * (logs - _log_softmax(operands[1])[0])).sum()


def evaluate(measure: str, *operands: Array) -> DoubleDouble:
    """The measure of every row, as cases.py names it; of a comparison, D(p‖q)."""
    step = max(1, BLOCK // operands[-1].shape[1])
    high, low = np.empty(len(operands[0])), np.empty(len(operands[0]))
    for start in range(0, len(high), step):
        block = slice(start, start + step)
        value = _measure(measure, *(x[block].astype(float) if x.ndim == 2 else x[block] for x in operands))
        high[block], low[block] = value.high, value.low
    return DoubleDouble(high, low)
