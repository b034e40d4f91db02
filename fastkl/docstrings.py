"""The parts that the docstrings of the public functions share: each text stands here once and is filled in at import.

Knows nothing of what the functions do. A text that is different for one function has that function's name before its own.
"""

from __future__ import annotations

import re
from inspect import cleandoc, signature
from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    Function = TypeVar("Function", bound=Callable[..., Any])

_ROWS: Final = """\
probabilities, weights (`normalize`) or logits (`from_logits`).
    An array with at least one axis and any strides, whose dtype is float64, float32, float16, bfloat16, bool or an
    integer dtype. Containers of torch, JAX, pandas, polars, Arrow, xarray and dask, and those with DLPack, are read
    without a copy."""
_UNNAMED: Final = _ROWS.replace("JAX, pandas, polars, Arrow, xarray and dask", "JAX and dask")
_LOGITS: Final = """\
    A row x of logits stands for softmax(x / temperature). Log-probabilities are logits. -inf is probability zero (a mask);
    any finite number is a positive probability, however large or small it is."""
_LIBRARY: Final = "Another library's container gives one of the same library."
_LABELS: Final = """\
    Classes in 0..n-1: any other label that is not `ignore_index` makes its row invalid. The shape is that of the rows,
    which is that of `q` without `axis`, or one that broadcasts with it."""

_TEXTS: Final = f"""\
p : array_like
    The reference ("true") distributions: {_ROWS}
compare.p : array_like
    The reference ("true") distributions: {_UNNAMED}
entropy.p : array_like
    The distributions: {_ROWS}
q : array_like
    The distributions that `p` is compared with. Its dtype and its container may be any of those of `p`. `p` and `q` have
    the same length along `axis`; their other axes broadcast.
nll.q : array_like
    The predicted distributions: {_UNNAMED}
labels : array_like of ints, optional
{_LABELS}
nll.labels : array_like of ints
{_LABELS}
alpha : float
    The order, a positive number or inf. That of order 1 is `kl_divergence`.
generalized_kl.p : array_like
    The reference numbers, non-negative and finite, in rows.
    An array with at least one axis and any strides, whose dtype is float64, float32, float16, bfloat16, bool or an
    integer dtype. Containers of torch, JAX, pandas, polars, Arrow, xarray and dask, and those with DLPack, are read
    without a copy.
generalized_kl.q : array_like
    The numbers that `p` is compared with. Its dtype and its container may be any of those of `p`. `p` and `q` have the same
    length along `axis`; their other axes broadcast.
axis : int, default -1
    The axis, of length n >= 1, that holds a distribution. It is counted after an operand with fewer axes than the other has
    been given leading axes of length 1.
base : float, optional
    Base of the logarithm, finite and greater than 1. None gives nats, 2 gives bits.
normalize : bool, default False
    False demands that every row sums to 1 within √ε of its own dtype: 1.5e-8 for float64, bool and integers, 3.5e-4 for
    float32, 3.1e-2 for float16, 8.8e-2 for bfloat16. True accepts any non-negative weights with a positive sum, such as
    counts. It does not apply to logits.
from_logits : {{False, True, "p", "q"}}, default False
    Which operands hold logits: none, both, or the one that is named.
{_LOGITS}
entropy.from_logits : bool, default False
    Whether `p` holds logits.
{_LOGITS}
nll.from_logits : bool, default False
    Whether `q` holds logits.
{_LOGITS}
temperature : float, default 1.0
    What logits are divided by, a positive finite number. It must be 1 where no operand holds logits.
eps : float, default 0.0
    Entries of `q` below `eps` are clipped to it before q is normalised, 0 <= eps < 1. Of logits, the softmax is clipped.
    The default changes nothing.
jeffreys_divergence.eps : float, default 0.0
    Entries of `p` and of `q` below `eps` are clipped to it before rows are normalised, 0 <= eps < 1. Of logits, the softmax
    is clipped. The default changes nothing.
generalized_kl.eps : float, default 0.0
    Entries of `q` below `eps` are clipped to it, 0 <= eps < 1. The default changes nothing.
ignore_index : int, optional
    A row with this label gives 0.0 and is not examined.
compare.ignore_index : int, optional
    `nll_p` and `nll_q` are 0.0 in a row with this label. Only with labels.
label_smoothing : float, default 0.0
    The weight, between 0 and 1, of the mean of -log q over all n entries in the result, as in
    `torch.nn.functional.cross_entropy`.
invalid : {{"raise", "nan", "ignore"}}, default "raise"
    What happens to an invalid row. "raise" raises InvalidRowError for the first one in row order, whatever the number of
    threads. "nan" makes the result of that row NaN. "ignore" leaves out the check of the sum; a negative or non-finite
    entry then gives some result and no error.
generalized_kl.invalid : {{"raise", "nan", "ignore"}}, default "raise"
    What happens to a row that has a negative, NaN or infinite entry. "raise" raises InvalidRowError for the first one in
    row order, whatever the number of threads. "nan" and "ignore" make the result of that row NaN.
out : ndarray, optional
    An array of the result's shape and a floating dtype, which is filled and returned. If it overlaps an operand, the result
    is as if it did not. It may be a torch tensor if an operand is one.
keepdims : bool, default False
    Whether the result keeps `axis`, with length 1.
threads : int, optional
    The largest number of threads to use. None uses what OpenMP would (`OMP_NUM_THREADS`, `threadpoolctl`, affinity) within
    the CPU quota of the process's control group. The result has the same bits for every number of threads. A forked child
    computes with one thread.
Returns : ndarray or NumPy scalar
    One value for every pair of rows, in the broadcast shape without `axis`. 1-D operands give a scalar. The dtype is
    float64 if an operand is float64, integer or bool, else float32. {_LIBRARY}
entropy.Returns : ndarray or NumPy scalar
    One value for every row, in the shape of `p` without `axis`. A 1-D operand gives a scalar. The dtype is float64 if `p`
    is float64, integer or bool, else float32. {_LIBRARY}
nll.Returns : ndarray or NumPy scalar
    One value for every label, in the shape that the labels and the rows broadcast to. A 1-D `q` gives a scalar. The dtype
    is float64 if `q` is float64, integer or bool, else float32. {_LIBRARY}
compare.Returns : Comparison
    A named tuple of arrays, each of the broadcast shape without `axis`: `entropy_p` is H(p), `entropy_q` H(q),
    `cross_entropy` H(p, q), `kl` D(p‖q), `reverse_kl` D(q‖p), `js` the Jensen-Shannon divergence, `total_variation` the
    total variation distance, which `base` does not touch, `same_argmax` (bool)
    whether the first of the largest entries is the same, `nll_p` -log p[label] and `nll_q` -log q[label], which are None
    without labels. The dtype of the others is that of `kl_divergence`. In an invalid row, with `invalid="nan"`,
    `same_argmax` is False and all the others are NaN. The arrays are of the library of `p` and `q`: NumPy, torch, JAX, one
    with DLPack, or dask, where fields that are computed together come from one read of each block.
InvalidRowError
    If `invalid` is "raise" and a row is invalid: it has a negative, NaN or infinite entry, or its sum is wrong. Of logits,
    a row with a NaN or +inf and a row without a finite entry are invalid. The fields `operand`, `index` and `reason` of the
    error say where and why.
ValueError
    If an argument is out of its range, the shapes do not fit, or the distribution axis is empty. InvalidRowError is a
    ValueError, too.
TypeError
    If an argument or a dtype is none of the above, entries are masked, or a container cannot be read where it is.
"""
_ENTRIES: Final = {re.split(r" : |\n", entry)[0]: entry for entry in re.split(r"\n(?=\S)", _TEXTS.strip())}


def documented(function: Function) -> Function:
    """The function itself, with Parameters, Returns and Raises in place of its docstring's {sections}; not under -OO."""
    if function.__doc__ is None:
        return function

    def entries(*names: str) -> str:
        own = f"{function.__name__}."
        return "\n".join((_ENTRIES.get(own + name) or _ENTRIES[name]).removeprefix(own) for name in names)

    sections = {
        "Parameters": entries(*signature(function).parameters),
        "Returns": entries("Returns").removeprefix("Returns : "),
        "Raises": entries("InvalidRowError", "ValueError", "TypeError"),
    }
    text = "\n\n".join(f"{title}\n{'-' * len(title)}\n{body}" for title, body in sections.items())
    function.__doc__ = cleandoc(function.__doc__).replace("{sections}", text) + "\n"
    return function
