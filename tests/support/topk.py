"""References for top-k rows: coarser rows by definition, and rows to compare.

The sums of other entries have errors below 2^-95; all else has the digits of reference.py.
"""

from math import fsum

import numpy as np
from mpmath import mp, mpf

from support import reference
from support.double_double import DoubleDouble, exp

MEASURES = ["kl_divergence", "cross_entropy", "js_divergence", "total_variation"]


@mp.workdps(60)
def exact_sum(numbers):
    """The sum of doubles, right to 2^-100."""
    total = fsum(numbers)
    return mpf(total) + mpf(fsum([*numbers, -total]))


@mp.workdps(60)
def of_full(row, columns, logits=False, temperature=1.0):
    """Weights of the columns of a full row, and of all others together."""
    row = np.asarray(row, float)
    few, others = row[columns], np.delete(row, columns)
    if not logits:
        return [*map(mpf, few.tolist()), exact_sum(others.tolist())]
    largest = row.max()

    def weight(x):
        return mp.exp((mpf(float(x)) - mpf(float(largest))) / mpf(temperature))

    if others.size < 50:
        return [*map(weight, few), mp.fsum(map(weight, others))]
    x = DoubleDouble.of(others) - DoubleDouble.of(np.full_like(others, largest))
    total = exp(x / DoubleDouble.of(np.full_like(others, temperature))).sum()
    return [*map(weight, few), mpf(float(total.high)) + mpf(float(total.low))]


@mp.workdps(60)
def of_top(values, tail=None, log_probs=False):
    """Weights of the values of a TopK's row and of its bucket."""
    values = np.asarray(values, float).tolist()
    weights = [mp.exp(mpf(x)) if log_probs else mpf(x) for x in values]
    return [*weights, max(1 - mp.fsum(weights), mpf(0)) if tail is None else mpf(float(tail))]


@mp.workdps(60)
def of_both(p_columns, p, q_columns, q):
    """The weights of two TopKs' rows, in both of which are the same categories, and the buckets."""
    p_at, q_at = (
        {int(c): w for c, w in zip(columns, x[:-1], strict=True)} for columns, x in [(p_columns, p), (q_columns, q)]
    )
    both = p_at.keys() & q_at.keys()
    return [
        [*(of[c] for c in both), mp.fsum([tail, *(w for c, w in of.items() if c not in both)])]
        for of, tail in [(p_at, p[-1]), (q_at, q[-1])]
    ]


def right(measure, p, q):
    """The value of a measure of two coarser rows."""
    with mp.workdps(60):
        return reference.DEFINITIONS[measure](p, q)


def bound(measure, value, dtype, logarithms=False, tail_is_left=False):
    """What a result may be off, as the docstring of TopK says it."""
    eps, rounding = float(np.finfo(dtype).eps), float(np.finfo(float).eps)
    size = abs(float(value))
    result = 32 * eps * max(size, 1e-20 if dtype == np.float32 else 0) + 4e-15 * tail_is_left
    if measure == "cross_entropy":
        result += 4 * eps
    elif logarithms:
        result += 64 * rounding * (1 if measure == "total_variation" else np.sqrt(size))
    return result


def drawn(rng, n, k, rows=5, dtype="f8"):
    """Logits of two models for so many rows, more or less near each other, and k columns, whose others may be light."""
    p = rng.normal(size=(rows, n)) * rng.choice([0.5, 2, 5])
    q = p + rng.normal(size=p.shape) * 10.0 ** rng.choice([0, -1, -2, -4, -7, -10])
    columns = np.argsort(rng.random(p.shape) if rng.random() < 0.4 else -p)[:, :k]
    others = np.ones(p.shape, bool)
    np.put_along_axis(others, columns, False, -1)
    lighter = rng.choice([0, 10, 27])
    return (p - lighter * others).astype(dtype), (q - lighter * others).astype(dtype), columns


def softmax(x):
    """Probabilities, in the dtype of the logits."""
    weights = np.exp(x.astype(float) - x.max(-1, keepdims=True))
    return (weights / weights.sum(-1, keepdims=True)).astype(x.dtype)


def others(rows, columns):
    """The sums of the entries that are not at the columns, rounded."""
    return np.array([fsum(np.delete(row, at).astype(float)) for row, at in zip(rows, columns, strict=True)])
