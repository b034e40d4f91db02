"""scikit-learn's log loss, with scikit-learn's signature, without scikit-learn.

The loss of a row is the logarithm of one entry, or of a few, and is computed here in float64. Most of the time goes into
the checks that all rows are probabilities. fastkl.nll is not used because scikit-learn clips and does not normalise.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..call import Array
from .arrays import unmasked

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

__all__ = ["log_loss"]


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
    arguments = {"y_true": y_true, "y_proba": y_proba, "sample_weight": sample_weight, "labels": labels}
    for name, value in arguments.items():
        if not (_is_array_like(value) or (value is None and name in ("sample_weight", "labels"))):
            raise InvalidParameterError(f"{name} is a {type(value).__name__}: must be array_like")
    if not isinstance(normalize, (bool, np.bool_)):
        raise InvalidParameterError(f"normalize={normalize!r}: must be True or False")

    q = _probabilities(y_proba)
    weights = None if sample_weight is None else _weights(sample_weight, len(q))
    rows, columns, multiples, classes = _true_classes(y_true, labels, len(q))
    predicted = max(2, q.shape[1])
    if classes != predicted:
        where = "y_true; labels can name more" if labels is None else "labels"
        raise ValueError(f"y_proba has {predicted} classes: must be as many as there are in {where}: {classes}")

    totals = q.sum(axis=1, dtype=float)
    eps = np.finfo(q.dtype).eps
    if q.shape[1] > 1 and np.any(np.abs(totals - 1) > np.sqrt(float(eps)) + 1e-8):
        warnings.warn("rows of y_proba do not sum to 1, which probabilities do", UserWarning, stacklevel=2)
    single = q.shape[1] == 1
    taken = np.clip(q[rows, 0 if single else columns], eps, 1 - eps).astype(float)
    logs = np.where(columns, np.log(taken), np.log1p(-taken)) if single else np.log(taken)
    losses = np.bincount(rows, -multiples * logs, len(q))
    if normalize:
        return float(np.average(losses, weights=weights))
    return float(losses.sum() if weights is None else np.dot(losses, weights))


def _is_array_like(value: Any) -> bool:
    is_scalar = isinstance(value, (str, bytes)) or np.isscalar(value)
    return not is_scalar and any(hasattr(value, name) for name in ("__len__", "shape", "__array__"))


def _numbers(name: str, values: Any) -> Array:
    """The values, which must be finite, in a dtype that is kept or in float64."""
    array = unmasked(name, values)
    if array.dtype.kind == "c":
        raise ValueError(f"{name} has dtype {array.dtype}: must be real")
    if array.dtype.char not in "dfe":
        array = array.astype(float)
    if not np.all(np.isfinite(array)):
        raise ValueError(f"{name} has a NaN or infinite entry: must be finite")
    return array


def _probabilities(y_proba: Any) -> Array:
    """A matrix of probabilities: n rows, and one column or as many as there are classes."""
    q = _numbers("y_proba", y_proba)
    if q.ndim not in (1, 2) or not q.size:
        raise ValueError(f"y_proba has shape {q.shape}: must be (n,) or (n, classes), neither of them 0")
    for extreme in q.min(), q.max():
        if not 0 <= extreme <= 1:
            raise ValueError(f"y_proba has an entry {extreme}: must be between 0 and 1")
    return q[:, np.newaxis] if q.ndim == 1 else q


def _weights(sample_weight: Any, length: int) -> Array:
    weights = _numbers("sample_weight", sample_weight)
    if weights.shape != (length,):
        raise ValueError(f"sample_weight has shape {weights.shape}: must be {(length,)}")
    if not weights.any():
        raise ValueError("sample_weight has zeros alone: must have another entry")
    return weights


def _true_classes(y_true: Any, labels: Any, length: int) -> tuple[Array, Array, Array, int]:
    """Rows and columns of the true classes, how often each counts, and the number of classes."""
    true = _labels("y_true", y_true)
    if len(true) != length:
        raise ValueError(f"y_true has {len(true)} entries and y_proba {length}: must be as many")
    if true.ndim == 2:
        if labels is not None:
            raise ValueError("labels are given, and y_true is a matrix of indicators: must be one or the other")
        rows, columns = np.nonzero(true)
        return rows, columns, true[rows, columns].astype(int), true.shape[1]
    name, known = ("y_true", true) if labels is None else ("labels", _labels("labels", labels))
    if known.ndim != 1:
        raise ValueError(f"labels has shape {known.shape}: must have one axis")
    classes = np.unique(known)
    if labels is not None:
        if known.shape != classes.shape:
            raise ValueError("labels has repeated entries: must have each once")
        if np.any(known != classes):
            warnings.warn(f"labels are taken as sorted, like the columns of y_proba: {classes.tolist()}", stacklevel=3)
        numeric = {x.dtype.kind in "biuf" for x in (true, known)}
        strangers = true if len(numeric) > 1 else np.setdiff1d(true, classes)
        if len(strangers):
            raise ValueError(f"y_true has {strangers.tolist()[0]!r}, which is not one of the labels {classes.tolist()}")
    if len(classes) < 2:
        raise ValueError(
            f"{name} has one label, {classes.tolist()[0]!r}: must be two or more; labels can name those not in y_true"
        )
    return np.arange(length), np.searchsorted(classes, true), np.ones(length, int), len(classes)


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
