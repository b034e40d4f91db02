"""scikit-learn's log loss and mean Poisson deviance, with scikit-learn's signatures, without scikit-learn.

The loss of a row is the logarithm of one entry, or of a few, and is computed here in float64, because scikit-learn clips
and does not normalise. Most of the time goes into the checks that all rows are probabilities, which the kernel of
fastkl.nll makes. A deviance is twice a sum of fastkl.generalized_kl, or of one for each entry where these have weights.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..call import Array, Request, run
from .arrays import unmasked

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

__all__ = ["log_loss", "mean_poisson_deviance"]


_SPAN = 1 << 10  # Integers with a range of no more are counted, however few there are.
# Deviances with weights are computed before they are added: so many at the least, and in no more than so many parts.
_WEIGHTED = 1 << 18
_PARTS = 8


class InvalidParameterError(ValueError, TypeError):
    """An argument of a wrong type. Like scikit-learn's error of this name, it is a ValueError and a TypeError."""


def log_loss(
    y_true: ArrayLike,
    y_proba: ArrayLike | None = None,
    *,
    normalize: bool = True,
    sample_weight: ArrayLike | None = None,
    labels: ArrayLike | None = None,
    y_pred: Any = "deprecated",
) -> float:
    """Mean cross-entropy of true labels and predicted probabilities, in place of `sklearn.metrics.log_loss`.

    Probabilities are clipped to [ε, 1 - ε], ε being that of their dtype, as scikit-learn documents. Rows are not
    normalised.

    Parameters
    ----------
    y_true : array_like, shape (n,) or (n, classes)
        Labels, which are integers, bools, strings or floats with integer values, or a matrix with an indicator for each
        class.
    y_proba : array_like, shape (n, classes) or (n,)
        Probabilities with a column for each label in sorted order. A single column has those of the second of two labels.
        Float64, float32 and float16 are kept; other real numbers become float64.
    normalize : bool, default True
        Whether to return the mean of the rows' losses, or else their sum.
    sample_weight : array_like, shape (n,), optional
        Weights of the rows.
    labels : array_like, optional
        All labels, sorted. None takes those in `y_true`, which must have at least two.
    y_pred : array_like
        The name of `y_proba` before scikit-learn 1.9.

    Returns
    -------
    float
        The mean of the losses, or their sum.

    Raises
    ------
    ValueError
        If probabilities are NaN, infinite, above 1 or below 0; if lengths differ; if there are fewer than two labels, or
        another number of columns than of labels; if a label is not in `labels` or of none of the kinds above.
    TypeError
        If labels are bytes or cannot be sorted. For an argument of a wrong type, the error is a ValueError, too.
    ZeroDivisionError
        If the weights of a mean sum to 0.

    Warns
    -----
    UserWarning
        If the sum of a row is further from 1 than √ε + 1e-8, or `labels` is not sorted.
    FutureWarning
        If `y_pred` is used.

    See Also
    --------
    fastkl.nll : The loss of every row, not clipped and of normalised rows.

    Notes
    -----
    The relative error of a row's loss is at most 2 ε, where ε is that of float64 for every dtype.

    Examples
    --------
    >>> from fastkl.compat.sklearn import log_loss
    >>> log_loss(["spam", "ham", "ham", "spam"], [[0.1, 0.9], [0.9, 0.1], [0.8, 0.2], [0.35, 0.65]])
    0.2161618746805...
    """
    if not (isinstance(y_pred, str) and y_pred == "deprecated"):
        if y_proba is not None:
            raise ValueError("y_proba and y_pred are given: must be y_proba alone, its new name")
        warnings.warn("y_pred is called y_proba since scikit-learn 1.9", FutureWarning, stacklevel=2)
        y_proba = y_pred
    _check_array_like(y_true=y_true, y_proba=y_proba)
    _check_array_like(**{name: x for name, x in (("sample_weight", sample_weight), ("labels", labels)) if x is not None})
    if not isinstance(normalize, (bool, np.bool_)):
        raise InvalidParameterError(f"normalize={normalize!r}: must be True or False")

    q = _probabilities(y_proba)
    weights = None if sample_weight is None else _weights(sample_weight, len(q))
    rows, columns, multiples, classes = _true_classes(y_true, labels, len(q))
    predicted = max(2, q.shape[1])
    if classes != predicted:
        where = "y_true; labels can name more" if labels is None else "labels"
        raise ValueError(f"y_proba has {predicted} classes: must be as many as there are in {where}: {classes}")

    if not _have_sum_1(q, None if rows is not None else columns):
        warnings.warn("rows of y_proba do not sum to 1, which probabilities do", UserWarning, stacklevel=2)
    eps = np.finfo(q.dtype).eps
    single = q.shape[1] == 1
    every = np.arange(len(q)) if rows is None else rows
    taken = np.clip(q[every, 0 if single else columns], eps, 1 - eps).astype(float, copy=False)
    losses = -np.where(columns, np.log(taken), np.log1p(-taken)) if single else -np.log(taken)
    if rows is not None:
        losses = np.bincount(rows, multiples * losses, len(q))
    if normalize:
        return float(np.average(losses, weights=weights))
    return float(losses.sum() if weights is None else np.dot(losses, weights))


def mean_poisson_deviance(y_true: ArrayLike, y_pred: ArrayLike, *, sample_weight: ArrayLike | None = None) -> float:
    """Mean Poisson deviance of true and predicted numbers, in place of `sklearn.metrics.mean_poisson_deviance`.

    It is the mean of 2 (y log(y/m) - y + m), twice `fastkl.generalized_kl` of `y_true` and `y_pred` divided by their
    number: never negative, and right to the last digits however near they are.

    Parameters
    ----------
    y_true : array_like, shape (n,) or (n, 1)
        True numbers, at least 0.
    y_pred : array_like, shape (n,) or (n, 1)
        Predicted numbers, above 0.
    sample_weight : array_like, shape (n,), optional
        Weights of the numbers.

    Returns
    -------
    float
        The mean of the deviances, of which each counts as often as its weight says.

    Raises
    ------
    ValueError
        If a number is NaN, infinite or out of its range, or the shapes do not fit.
    TypeError
        If an operand is a number alone or has masked entries. For an argument of a wrong type, the error is a ValueError,
        too.
    ZeroDivisionError
        If the weights sum to 0.

    See Also
    --------
    fastkl.generalized_kl : Half of the sum of the deviances.

    Notes
    -----
    The relative error is at most 8 ε, ε being that of float64, or of float32 where no operand is float64 or of integers.
    With weights there is another rounding for each product.

    Examples
    --------
    >>> from fastkl.compat.sklearn import mean_poisson_deviance
    >>> mean_poisson_deviance([2, 0, 1, 4], [0.5, 0.5, 2.0, 2.0])
    1.4260151319598...
    """
    _check_array_like(y_true=y_true, y_pred=y_pred)
    if sample_weight is not None:
        _check_array_like(sample_weight=sample_weight)
    y, m = _column("y_true", y_true), _column("y_pred", y_pred)
    if y.shape != m.shape:
        raise ValueError(f"y_true has {len(y)} entries and y_pred {len(m)}: must be as many")
    if sample_weight is None:
        total = float(_divergences(y, m, False)[0])
    else:
        weights = _weights(sample_weight, len(y))
        if weights.dtype.char == "e":
            weights = weights.astype(float)
        total = 0.0
        step = max(_WEIGHTED, len(y) // _PARTS)
        for start in range(0, len(y), step):
            part = slice(start, start + step)
            total += float(np.dot(_divergences(y[part], m[part], True), weights[part]))
    least = m.min()
    if not (least > 0 and math.isfinite(total)):
        _check_counts(y, m)
    if sample_weight is None:
        return 2 * total / len(y)
    of_weights = weights.sum(dtype=float)
    if of_weights == 0:
        raise ZeroDivisionError("sample_weight sums to 0: must have another sum")
    return 2 * total / float(of_weights)


def _column(name: str, values: Any) -> Array:
    """Numbers of any real dtype in one column."""
    array = unmasked(name, values)
    if not array.ndim:
        raise TypeError(f"{name} is the number {array[()]}: must have an axis")
    if array.ndim > 2 or array.shape[1:] not in ((), (1,)) or not array.size:
        raise ValueError(f"{name} has shape {array.shape}: must be (n,) or (n, 1), and not be empty")
    if array.dtype.kind == "c":
        raise InvalidParameterError(f"{name} has dtype {array.dtype}: must be real")
    return (array if array.dtype.kind in "iu" or array.dtype.char in "dfe?" else array.astype(float)).reshape(-1)


def _divergences(y: Array, m: Array, each: bool) -> Array:
    """The generalised divergence of the two, or of each entry, in float64; NaN if an entry is not valid."""
    if each:
        y, m = y[:, np.newaxis], m[:, np.newaxis]
    else:
        y, m = y[np.newaxis], m[np.newaxis]
    out = np.empty(len(y))
    request = Request("generalized_kl", y, m)
    request.set_rows(-1, True, "nan")
    request.set_result(out, False)
    run(request)
    return out


def _check_counts(y: Array, m: Array) -> None:
    """Raise an error about the first entry that has no deviance."""
    for name, values, wanted in ("y_true", y, "at least 0"), ("y_pred", m, "above 0"):
        valid = np.isfinite(values) & (values >= 0 if name == "y_true" else values > 0)
        if not valid.all():
            i = int(np.argmin(valid))
            raise ValueError(f"{name} has an entry {values[i]}, at {i}: must be finite and {wanted}")


def _check_array_like(**arguments: Any) -> None:
    for name, value in arguments.items():
        if not _is_array_like(value):
            raise InvalidParameterError(f"{name} is a {type(value).__name__}: must be array_like")


def _is_array_like(value: Any) -> bool:
    is_scalar = isinstance(value, (str, bytes)) or np.isscalar(value)
    return not is_scalar and any(hasattr(value, name) for name in ("__len__", "shape", "__array__"))


def _numbers(name: str, values: Any) -> Array:
    """The values in a dtype that is kept or in float64."""
    array = unmasked(name, values)
    if array.dtype.kind == "c":
        raise InvalidParameterError(f"{name} has dtype {array.dtype}: must be real")
    return array if array.dtype.char in "dfe" else array.astype(float)


def _probabilities(y_proba: Any) -> Array:
    """A matrix of n rows, and one column or as many as there are classes. Its entries are still to be checked."""
    q = _numbers("y_proba", y_proba)
    if q.ndim not in (1, 2) or not q.size:
        raise ValueError(f"y_proba has shape {q.shape}: must be (n,) or (n, classes), neither of them 0")
    return q[:, np.newaxis] if q.ndim == 1 else q


def _have_sum_1(q: Array, labels: Array | None) -> bool:
    """Whether all rows sum to 1 if they have several columns. An entry that is no probability is an error.

    The labels, if there is one for each row, let the kernel of fastkl.nll find the rows with a negative, NaN or infinite
    entry, or another sum, in one pass.
    """
    largest = q.max()  # NaN if there is one
    if labels is not None and q.shape[1] > 1 and largest <= 1:
        request = Request("nll", q=q, labels=labels)
        request.set_rows(-1, False, "nan")
        if not np.isnan(run(request)).any():
            return True
    for extreme in q.min(), largest:
        if not np.isfinite(extreme):
            raise ValueError("y_proba has a NaN or infinite entry: must be finite")
        if not 0 <= extreme <= 1:
            raise ValueError(f"y_proba has an entry {extreme}: must be between 0 and 1")
    if q.shape[1] == 1:
        return True
    most = np.sqrt(float(np.finfo(q.dtype).eps)) + 1e-8
    return not np.any(np.abs(q.sum(axis=1, dtype=float) - 1) > most)


def _weights(sample_weight: Any, length: int) -> Array:
    weights = _numbers("sample_weight", sample_weight)
    if not np.all(np.isfinite(weights)):
        raise ValueError("sample_weight has a NaN or infinite entry: must be finite")
    if weights.shape != (length,):
        raise ValueError(f"sample_weight has shape {weights.shape}: must be {(length,)}")
    if not weights.any():
        raise ValueError("sample_weight has zeros alone: must have another entry")
    return weights


def _true_classes(y_true: Any, labels: Any, length: int) -> tuple[Array | None, Array, Array | None, int]:
    """Rows and columns of the true classes, how often each counts, and the number of classes.

    Without rows, each row has one class, which counts once.
    """
    true = _labels("y_true", y_true)
    if len(true) != length:
        raise ValueError(f"y_true has {len(true)} entries and y_proba {length}: must be as many")
    if true.ndim == 2:
        if labels is not None:
            raise ValueError("labels are given, and y_true is a matrix of indicators: must be one or the other")
        rows, columns = np.nonzero(true)
        return rows, columns, true[rows, columns].astype(int), true.shape[1]
    present, columns = _numbered(true)
    name, known, classes = "y_true", true, present
    if labels is not None:
        name, known = "labels", _labels("labels", labels)
        if known.ndim != 1:
            raise ValueError(f"labels has shape {known.shape}: must have one axis")
        classes = np.unique(known)
        if known.shape != classes.shape:
            raise ValueError("labels has repeated entries: must have each once")
        if np.any(known != classes):
            warnings.warn(f"labels are taken as sorted, like the columns of y_proba: {classes.tolist()}", stacklevel=3)
        numeric = {x.dtype.kind in "biuf" for x in (true, known)}
        strangers = present if len(numeric) > 1 else np.setdiff1d(present, classes)
        if len(strangers):
            raise ValueError(f"y_true has {strangers.tolist()[0]!r}, which is not one of the labels {classes.tolist()}")
        places = np.searchsorted(classes, present)
        if np.any(places != np.arange(len(present))):
            columns = places[columns]
    if len(classes) < 2:
        raise ValueError(
            f"{name} has one label, {classes.tolist()[0]!r}: must be two or more; labels can name those not in y_true"
        )
    return None, columns, None, len(classes)


def _numbered(labels: Array) -> tuple[Array, Array]:
    """The different labels, sorted, and the number of each label among these."""
    if labels.dtype.kind in "biu":
        low, high = int(labels.min()), int(labels.max())
        if high - low <= len(labels) + _SPAN and high < 1 << 63:
            labels_64 = labels.astype(np.int64, copy=False)
            shifted = labels_64 - low if low else labels_64
            counted = np.bincount(shifted) > 0
            present = np.flatnonzero(counted)
            columns = shifted if len(present) == len(counted) else (np.cumsum(counted) - 1)[shifted]
            return (present + low).astype(labels.dtype), columns
    present = np.unique(labels)
    return present, np.searchsorted(present, labels)


def _labels(name: str, values: Any) -> Array:
    """Labels, or a matrix of indicators: integers, of which there are two at most, in several columns."""
    array = np.asarray(values)
    if array.ndim not in (1, 2) or not array.size:
        raise ValueError(f"{name} has shape {array.shape}: must have one or two axes and not be empty")
    if array.dtype.kind == "S" or isinstance(array.flat[0], bytes):
        raise TypeError(f"{name} has bytes: must be strings or integers")
    if isinstance(values, Sequence) and len({isinstance(value, str) for value in values}) > 1:
        raise ValueError(f"{name} has strings and others: must be of one kind")
    kind = array.dtype.kind
    if kind not in "biufOUT" or (kind == "O" and not isinstance(array.flat[0], str)):
        raise ValueError(f"{name} has dtype {array.dtype}: must be integers, bools or strings")
    if kind == "f" and not np.all(np.isfinite(array) & (array == np.floor(array))):
        raise ValueError(f"{name} has floats that are no integers: must be labels")
    if array.ndim == 2 and array.shape[1] > 1:
        if kind in "OUT" or len(np.unique(array)) > 2:
            raise ValueError(f"{name} has shape {array.shape}: must have one column, or be a matrix of indicators")
        return array
    return array.reshape(-1)
