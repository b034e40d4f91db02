"""Top-k rows: the TopK operand, and the messages about its fields and rows.

Knows nothing of measures: coarse_rows.py computes those of a TopK.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from . import call
from ._kernels import BFLOAT16_KIND, Kind
from .call import Array, InvalidRowError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

__all__ = ["TopK", "as_float64", "row_error"]


class TopK:
    """Rows of which k of n categories are known, and one bucket for all others, as servers return them.

    As `p` of `kl_divergence`, `cross_entropy`, `js_divergence` and `total_variation` it stands beside full rows `q`, or
    beside another TopK. The result is that of the coarser distributions: each of the k categories, and the bucket against
    the sum of all other entries of q. It is never more than that of the full distributions, and equal to it where the
    bucket is empty. Beside another TopK, categories that are not in both join the buckets.

    Parameters
    ----------
    indices : array_like of ints, shape (..., k)
        The categories, which are columns of q: each at least 0 and less than n, and no two of a row the same.
    values : array_like, shape (..., k)
        Their probabilities, or weights with ``normalize=True``; or logarithms of probabilities. The dtype may be any that
        `kl_divergence` takes.
    tail : array_like, shape (...), optional
        The bucket's probability or weight, which broadcasts to the rows. By default it is 1 - Σ values; and 0 where that
        is negative, or all categories of a full q are known, and it is within the tolerance of the dtype of `values`, which
        `normalize` of `kl_divergence` has.
    log_probs : bool, default False
        Whether `values` are natural logarithms of probabilities; `tail` is none in any case.

    Raises
    ------
    TypeError
        If indices are no integers, a dtype is none that is taken, or a container cannot be read where it is.
    ValueError
        If the shapes do not fit, or there is no category.

    See Also
    --------
    kl_divergence : One of the measures that take it, with the arguments that they share.

    Notes
    -----
    Values and tail are normalised together. The measure's argument `from_logits` says what a full q holds, ``"q"`` or True
    for logits, and must be False beside another TopK; `temperature` divides the logits of q alone; `axis` must be the last.
    A row is invalid if an index is out of range or there twice (the reason of the InvalidRowError is "index"), if a value
    or the tail is negative, NaN or infinite, and if the sum is wrong: without `tail`, if Σ values is above 1, also with
    ``normalize=True``. With ``invalid="ignore"``, sums are not checked, and the other invalid rows give NaN.

    The tail of q is the sum of its other entries, never 1 - Σ, and it is summed exactly, so that the error of a result is
    at most 32 ε of it (of 1e-20, if that is more, where the result is float32), where ε is that of its dtype, for which
    `values` and q count; of a cross-entropy 4 ε more; without `tail`, 4e-15 more. Where q holds logits or `log_probs` is
    true, 64 of float64's ε times the root of the result are added; of a total variation, 64 ε.

    Examples
    --------
    >>> import numpy as np, fastkl
    >>> q = np.array([[0.5, 0.25, 0.125, 0.125]])
    >>> top = fastkl.TopK([[0, 2]], [[0.5, 0.25]])
    >>> fastkl.kl_divergence(top, q)
    array([0.0719205...])
    >>> fastkl.kl_divergence([0.5, 0.25, 0.25], [0.5, 0.125, 0.375])
    np.float64(0.0719205...)
    """

    __slots__ = ("indices", "log_probs", "tail", "values")

    def __init__(
        self, indices: ArrayLike, values: ArrayLike, tail: ArrayLike | None = None, log_probs: bool = False
    ) -> None:
        columns, kind = _read("indices", indices)
        if columns.dtype.kind not in "iu" or kind is BFLOAT16_KIND:
            raise TypeError(f"indices has dtype {np.asarray(indices).dtype}: must be an integer dtype")
        rows, _ = _read("values", values)
        if columns.shape != rows.shape or not rows.ndim or not rows.shape[-1]:
            shapes = f"indices has shape {columns.shape} and values has shape {rows.shape}"
            raise ValueError(f"{shapes}: must be the same, with at least one category in the last axis")
        if not isinstance(log_probs, (bool, np.bool)):
            raise TypeError(f"log_probs={log_probs!r}: must be a bool")
        self.indices, self.values, self.tail, self.log_probs = columns, values, None, bool(log_probs)
        if tail is not None:
            self.tail = as_float64(*_read("tail", tail))
            try:
                np.broadcast_to(self.tail, rows.shape[:-1])
            except ValueError:
                wanted = f"must have the shape {rows.shape[:-1]} of the rows, or broadcast to it"
                raise ValueError(f"tail has shape {self.tail.shape}: {wanted}") from None

    def __repr__(self) -> str:
        return f"TopK of shape {self.indices.shape}{' with log_probs' if self.log_probs else ''}"


TopK.__module__ = "fastkl"  # where users find it


def _read(name: str, values: Any) -> tuple[Array, Kind]:
    """The values as an array of a dtype that the core reads, and what the dtype means."""
    if not isinstance(values, (np.ndarray, list, tuple, float, int)):
        from . import containers

        values = containers.array_of(name, values)
    return call.read_operand(name, values)


def as_float64(array: Array, kind: Kind) -> Array:
    """The numbers that the array stands for."""
    if kind is BFLOAT16_KIND:  # the upper halves of float32
        array = (array.astype(np.uint32) << 16).view(np.float32)
    return array.astype(np.float64)


def row_error(name: str, top: TopK, rows: tuple[Array, Kind], at: tuple[int, ...], n: int | None) -> InvalidRowError:
    """What is wrong with the row of a TopK at an index of the result. There are n categories, if that is known."""
    values, kind = rows
    own = call.own_index(values, at[len(at) + 1 - values.ndim :])
    row, tail = as_float64(values[own], kind), 0.0
    seen: set[int] = set()

    def error(place: int | slice, reason: str, detail: str) -> InvalidRowError:
        return InvalidRowError(name, (*own, place), reason, detail)

    for i, column in enumerate(top.indices[own].tolist()):
        if column < 0 or (n is not None and column >= n):
            wanted = "not be negative" if n is None else f"be in 0..{n - 1}"
            return error(i, "index", f" has the index {column}: indices must {wanted}")
        if column in seen:
            return error(i, "index", f" has the index {column} again: the indices of a row must differ")
        seen.add(column)
    bad = np.flatnonzero(~((row < np.inf) & (row >= (-np.inf if top.log_probs else 0))))
    if len(bad):
        entry = row[bad[0]]
        wanted = (
            "log-probabilities must be finite or -inf" if top.log_probs else "probabilities must be finite and non-negative"
        )
        return error(int(bad[0]), "negative" if np.isfinite(entry) else "not finite", f" = {entry}: {wanted}")
    if top.tail is not None:
        tail = float(np.broadcast_to(top.tail, values.shape[:-1])[own])
        if not 0 <= tail < np.inf:
            reason = "negative" if math.isfinite(tail) else "not finite"
            return error(slice(None), reason, f" has the tail {tail}: must be finite and non-negative")
    with np.errstate(over="ignore"):
        total = float((np.exp(row) if top.log_probs else row).sum()) + tail
    wanted = f"at most 1 within {kind.tolerance:.2g} where no tail is given"
    if total == 0:
        wanted = "positive"
    elif top.tail is not None:
        wanted = f"1 within {kind.tolerance:.2g} (normalize=True accepts counts and weights)"
    return error(slice(None), "sum", f" sums to {total:.10g} with its tail: must be {wanted}")
