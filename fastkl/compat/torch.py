"""torch's loss of the KL divergence, with torch's signature. Imports torch when it is called.

The operands are not normalised, which is why the sum is computed here, in float64.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from ..call import Array
from .arrays import add_terms

__all__ = ["kl_div"]


def kl_div(
    input: Any,  # noqa: A002  (torch calls it that)
    target: Any,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    log_target: bool = False,
) -> Any:
    """Sum or mean of target (log target - input), in place of `torch.nn.functional.kl_div`, without gradients.

    It is computed in float64 and rounded once to the tensors' dtype. 0 log 0 is 0, also with `log_target`.

    Parameters
    ----------
    input : Tensor
        Logarithms of probabilities, on the CPU, of any floating dtype that torch computes with. They are not normalised.
    target : Tensor
        Probabilities, or their logarithms. It broadcasts with `input`.
    size_average, reduce : bool, optional
        Deprecated by torch. Together they stand for a `reduction`: "mean" if both are true or None, "none" if `reduce` is
        false, else "sum".
    reduction : {"none", "mean", "sum", "batchmean"}, default "mean"
        "none" returns the terms, "sum" their sum, "mean" their sum divided by their number, and "batchmean" their sum
        divided by the length of the first axis of `input`, which is the mean divergence of the rows of a matrix.
    log_target : bool, default False
        Whether `target` holds logarithms.

    Returns
    -------
    Tensor
        A tensor of the dtype that torch promotes the operands to. It has no axes unless `reduction` is "none".

    Raises
    ------
    TypeError
        If an operand is not a tensor.
    RuntimeError
        If a tensor requires a gradient, is not on the CPU or has an integer or complex dtype, or if the shapes do not
        broadcast.
    ValueError
        If `reduction` is unknown.

    Warns
    -----
    UserWarning
        For reduction="mean", which is not the mean of the rows' divergences, and for deprecated arguments.

    See Also
    --------
    fastkl.kl_divergence : The divergence of normalised rows, also from logits.

    Notes
    -----
    A term is at most 4 ε target (|log target| + |input|) from its exact value before it is rounded, ε being float64's.

    Examples
    --------
    >>> import torch
    >>> from fastkl.compat.torch import kl_div
    >>> p, q = torch.tensor([[0.5, 0.5, 0.0]]), torch.tensor([[0.25, 0.75, 0.0]])
    >>> kl_div(q.log(), p, reduction="batchmean")
    tensor(0.1438)
    """
    import torch  # type: ignore[import-not-found, unused-ignore]  # it may be missing

    for name, tensor in ("input", input), ("target", target):
        if not isinstance(tensor, torch.Tensor):
            raise TypeError(f"{name} is a {type(tensor).__name__}: must be a torch.Tensor")
        if tensor.requires_grad:
            raise RuntimeError(f"{name} requires a gradient, which fastkl does not compute: pass {name}.detach()")
        if tensor.device.type != "cpu":
            raise RuntimeError(f"{name} is on device {tensor.device}: must be on the CPU")
        if not tensor.is_floating_point():
            raise RuntimeError(f"{name} has dtype {tensor.dtype}: must be a floating dtype")
    way = _way(size_average, reduce, reduction)

    dtype = torch.result_type(input, target)
    # NumPy has no bfloat16; float32 holds its values.
    tensors = [x.float() if x.dtype == torch.bfloat16 else x for x in (input, target)]
    tensors = torch.broadcast_tensors(*tensors)  # type: ignore[no-untyped-call, unused-ignore]  # torch gives it no types
    x, t = (tensor.numpy() for tensor in tensors)
    terms = _log_terms if log_target else _terms
    values = terms(x.astype(float), t.astype(float)) if way == "none" else add_terms(terms, x, t, None)
    result = torch.from_numpy(np.asarray(values))
    if way == "mean":
        result = result / x.size
    if reduction == "batchmean" and input.ndim:
        result = result / input.shape[0]
    return result.to(dtype)


def _way(size_average: bool | None, reduce: bool | None, reduction: str) -> str:
    """The reduction of the terms: "none", "mean" or "sum"."""
    if size_average is not None or reduce is not None:
        averaged, reduced = size_average is None or size_average, reduce is None or reduce
        way = ("mean" if averaged else "sum") if reduced else "none"
        warnings.warn(f"size_average and reduce are deprecated: they mean reduction={way!r} here", stacklevel=3)
        return way
    ways = {"none": "none", "mean": "mean", "sum": "sum", "batchmean": "sum", "elementwise_mean": "mean"}
    if reduction not in ways:
        raise ValueError(f"reduction={reduction!r}: must be 'none', 'mean', 'sum' or 'batchmean'")
    if reduction == "mean":
        warnings.warn("reduction='mean' divides by the number of entries; 'batchmean' by that of the rows", stacklevel=3)
    elif reduction == "elementwise_mean":
        warnings.warn("reduction='elementwise_mean' is deprecated: it means 'mean'", stacklevel=3)
    return ways[reduction]


@np.errstate(all="ignore")
def _terms(x: Array, t: Array) -> Array:
    """The terms t (log t - x), and 0 for t = 0 unless x is NaN."""
    return np.where((t == 0) & ~np.isnan(x), 0.0, t * (np.log(t) - x))


@np.errstate(all="ignore")
def _log_terms(x: Array, t: Array) -> Array:
    """The terms e^t (t - x): 0 for t = -inf unless x is NaN, and inf for x = -inf < t, however small e^t is."""
    zero, infinite = (t == -np.inf) & ~np.isnan(x), (x == -np.inf) & (t > -np.inf)
    return np.select([zero, infinite], [0.0, np.inf], np.exp(t) * (t - x))
