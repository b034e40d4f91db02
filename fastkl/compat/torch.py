"""torch's loss of the KL divergence, with torch's signature. Imports torch when it is called.

The sum is not of distributions: neither operand is normalised. So it is computed here, in float64.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

__all__ = ["kl_div"]

_BLOCK = 1 << 13  # entries worked on together: enough for NumPy to be quick, few enough for the caches


def kl_div(
    input: Any,  # noqa: A002  (torch calls it that)
    target: Any,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    log_target: bool = False,
) -> Any:
    """Pointwise target (log target - input), reduced: `torch.nn.functional.kl_div`, without gradients.

    Computed in float64 whatever the tensors' dtype, and rounded once. 0 log 0 is 0 here, in either space.

    Parameters
    ----------
    input : Tensor
        Logarithms of probabilities, on the CPU: any floating dtype that torch computes with. Nothing is normalised.
    target : Tensor
        Probabilities, or their logarithms; input and target broadcast.
    size_average, reduce : bool, optional
        Deprecated by torch: together they stand for a `reduction`, "mean" if both are true or None, "none" if `reduce` is
        false, else "sum".
    reduction : {"none", "mean", "sum", "batchmean"}, default "mean"
        No reduction; the sum, divided by the number of entries; the sum; the sum, divided by the length of `input`'s first
        axis, which is the mean divergence of the rows of a matrix.
    log_target : bool, default False
        Whether `target` holds logarithms.

    Returns
    -------
    Tensor
        Of the dtype that torch promotes the two to; without axes, unless `reduction` is "none".

    Raises
    ------
    TypeError
        For operands that are no tensors.
    RuntimeError
        For a tensor that requires a gradient or is not on the CPU, for integer and complex dtypes, and shapes that do not
        broadcast.
    ValueError
        For an unknown `reduction`.

    Warns
    -----
    UserWarning
        For reduction="mean", which is no mean of divergences, and for deprecated arguments.

    Notes
    -----
    Accuracy: an entry is off by 4 ε target (|log target| + |input|) at most, ε being float64's, before it is rounded.

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
    shape = torch.broadcast_shapes(input.shape, target.shape)
    # NumPy has no bfloat16; float32 holds its values.
    arrays = [(x.float() if x.dtype == torch.bfloat16 else x).numpy() for x in (input, target)]
    terms = _log_terms if log_target else _terms
    if way == "none":
        result = torch.from_numpy(terms(*arrays))
    else:
        total = _total(terms, *arrays)
        count = np.float64(np.prod(shape) if way == "mean" else 1)
        with np.errstate(all="ignore"):
            result = torch.tensor(total / count, dtype=torch.float64)
    if reduction == "batchmean" and input.ndim:
        result = result / input.shape[0]
    return result.to(dtype)


def _way(size_average: bool | None, reduce: bool | None, reduction: str) -> str:
    """What is done to the terms: "none", "mean" or "sum"."""
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


def _total(terms: Any, x: Array, t: Array) -> np.float64:
    """The sum of all terms, from blocks that stay in the cache."""
    blocks = np.nditer(
        [x, t],
        flags=["external_loop", "buffered", "zerosize_ok"],
        op_dtypes=[np.float64, np.float64],
        buffersize=_BLOCK,
    )
    with np.errstate(all="ignore"):
        return np.sum([np.sum(terms(a, b)) for a, b in blocks], dtype=np.float64)


def _terms(x: Array, t: Array) -> Array:
    """The terms t (log t - x), and 0 for t = 0 whatever x is, but for NaN."""
    x, t = x.astype(np.float64, copy=False), t.astype(np.float64, copy=False)
    with np.errstate(all="ignore"):
        return np.where((t == 0) & ~np.isnan(x), 0.0, t * (np.log(t) - x))


def _log_terms(x: Array, t: Array) -> Array:
    """The terms e^t (t - x): 0 for t = -inf whatever x is, but for NaN; inf for x = -inf < t, however small e^t is."""
    x, t = x.astype(np.float64, copy=False), t.astype(np.float64, copy=False)
    with np.errstate(all="ignore"):
        zero, infinite = (t == -np.inf) & ~np.isnan(x), (x == -np.inf) & (t > -np.inf)
        return np.select([zero, infinite], [0.0, np.inf], np.exp(t) * (t - x))
