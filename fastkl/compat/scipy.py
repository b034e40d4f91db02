"""SciPy's measures of distributions, with SciPy's signatures, without SciPy.

Rows are taken from the operands as SciPy takes them, and fastkl computes them. A row that is not a distribution gets
SciPy's value. sums.py has what is not normalised.
"""

from __future__ import annotations

import math
import operator
from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_tuple

import fastkl

from .._kernels import evaluate_plain
from ..call import Array, Request
from .arrays import BLOCK, broadcast_small, rows_last, unmasked
from .sums import sum_of_terms

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import ArrayLike

    Axis = int | Sequence[int] | None

__all__ = ["entropy", "jensenshannon", "kl_div_sum", "rel_entr_sum"]


def entropy(
    pk: ArrayLike,
    qk: ArrayLike | None = None,
    base: float | None = None,
    axis: Axis = 0,
    *,
    nan_policy: str = "propagate",
    keepdims: bool = False,
) -> Any:
    """Entropy of pk, or relative entropy of pk and qk, in place of `scipy.stats.entropy`.

    It is `fastkl.entropy` or `fastkl.kl_divergence` of the normalised rows along `axis`: never negative, and right to the
    last digits.

    Parameters
    ----------
    pk, qk : array_like
        Weights with any sum: floats of at most 64 bits, bfloat16 or integers. All axes broadcast. An entry that is masked
        in one operand is left out of both.
    base : float, optional
        Base of the logarithm, positive. None gives nats.
    axis : int, tuple of ints or None, default 0
        The axis or axes that hold a distribution. None makes one distribution of all entries.
    nan_policy : {"propagate", "omit", "raise"}, default "propagate"
        A NaN makes the result of its row NaN ("propagate"), is left out of both operands ("omit"), or is a ValueError.
    keepdims : bool, default False
        Whether the result keeps the axes, with length 1.

    Returns
    -------
    ndarray or NumPy scalar
        Float32 if NumPy promotes the operands to float32 or to less, else float64. A row with entries of both signs gives
        -inf for an entropy and inf for a relative entropy. A row of zeros, and one with NaN or an infinity, gives NaN. A
        row without entries gives 0.

    Raises
    ------
    ValueError
        If shapes do not broadcast, if the base, the axis or `nan_policy` is invalid, and for NaN with `nan_policy="raise"`.
    TypeError
        If an operand has another dtype.

    See Also
    --------
    fastkl.entropy : The entropy of rows that are distributions.
    fastkl.kl_divergence : The relative entropy of rows that are distributions.

    Notes
    -----
    The accuracy is that of `fastkl.entropy` and `fastkl.kl_divergence`; a base of 1 or less adds one ε.

    Examples
    --------
    >>> from fastkl.compat.scipy import entropy
    >>> entropy([1, 1, 2], base=2)
    np.float64(1.5)
    >>> entropy([[0.5, 0.5], [0.9, float("nan")]], [0.25, 0.75], axis=1, nan_policy="omit")
    array([0.14384104, 0.        ])
    """
    if base is not None and base <= 0:
        raise ValueError(f"base={base!r}: `base` must be a positive number or None")
    if nan_policy not in ("propagate", "omit", "raise"):
        raise ValueError(f"nan_policy={nan_policy!r}: must be 'propagate', 'omit' or 'raise'")
    given: list[Any] = [pk] if qk is None else [pk, qk]
    masks = [np.ma.getmaskarray(x) for x in given if np.ma.is_masked(x)]
    arrays, axes = _rows([*(np.ma.filled(x, 0) if np.ma.is_masked(x) else x for x in given), *masks], axis)
    rows, left_out = arrays[: len(given)], np.False_
    if masks or nan_policy != "propagate":
        nan: Any = reduce(operator.or_, [np.isnan(x) for x in rows if x.dtype.kind not in "biu"], np.False_)
        if nan_policy == "raise" and np.any(nan):
            raise ValueError("The input contains nan values, and nan_policy is 'raise'")
        # An entry that is masked in one operand is left out of both, unless the other operand has a NaN there.
        masked: Any = reduce(operator.or_, arrays[len(given) :], np.False_)
        left_out = masked | nan if nan_policy == "omit" else masked & ~nan
    any_left_out = np.any(left_out)
    if any_left_out:  # zeros in both operands do not change a sum
        rows = [np.where(left_out, x.dtype.type(0), x) for x in rows]

    # SciPy promotes the operands and then divides, which makes integers float64. Its functions make float16 float32.
    common = np.result_type(*(x if type(x) in (int, float) else row for x, row in zip(given, rows, strict=True)))
    dtype = np.float32 if _is_narrow(common) else np.float64
    measure, of_both_signs = (fastkl.entropy, -math.inf) if qk is None else (fastkl.kl_divergence, math.inf)
    if base is None or 1 < base < math.inf:
        values = _evaluate(measure, rows, base, dtype, of_both_signs)
    else:  # of which fastkl has no logarithm
        values = (_evaluate(measure, rows, None, np.float64, of_both_signs) / np.float64(math.log(base))).astype(dtype)
    if any_left_out:
        values[left_out.all(axis=-1)] = 0
    return _shaped(values, axes, keepdims)


def jensenshannon(p: ArrayLike, q: ArrayLike, base: float | None = None, *, axis: Axis = 0, keepdims: bool = False) -> Any:
    """Jensen-Shannon distance of p and q, in place of `scipy.spatial.distance.jensenshannon`.

    It is `fastkl.js_distance` of the normalised rows along `axis`: never NaN for distributions, and right to the last
    digits.

    Parameters
    ----------
    p, q : array_like
        Weights with any sum: floats of at most 64 bits, bfloat16 or integers. Rows of p and q have the same length; other
        axes broadcast.
    base : float, optional
        Base of the logarithm. None gives nats. A base below 1 gives NaN, except for equal rows.
    axis : int, tuple of ints or None, default 0
        The axis or axes that hold a distribution. None makes one distribution of all entries.
    keepdims : bool, default False
        Whether the result keeps the axes, with length 1.

    Returns
    -------
    ndarray or NumPy scalar
        Float32 if both operands are float32 or narrower floats, else float64; a scalar with a `base` is float64. A row with
        entries of both signs gives inf. A row of zeros, and one with NaN or an infinity, gives NaN. A row without entries
        gives 0.

    Raises
    ------
    ValueError
        If the shapes do not fit, or the axis is out of range.
    TypeError
        If an operand has another dtype or masked entries.

    See Also
    --------
    fastkl.js_distance : The distance of rows that are distributions.

    Notes
    -----
    The accuracy is that of `fastkl.js_distance`.

    Examples
    --------
    >>> from fastkl.compat.scipy import jensenshannon
    >>> jensenshannon([1, 0, 0], [0, 1, 0], base=2)
    np.float64(1.0)
    >>> jensenshannon([[1, 2], [3, 4]], [3, 7], axis=-1)
    array([0.02533913, 0.09464696])
    """
    x, y = unmasked("p", p), unmasked("q", q)
    result = _small_distance(x, y, axis, base, keepdims)
    if result is not None:
        return result
    rows, axes = _rows([x, y], axis, same_length=True)
    narrow = all(_is_narrow(x.dtype) for x in rows)
    leading = rows[0].shape[:-1]
    # SciPy divides in place by a float64 logarithm: an array keeps its dtype, a scalar becomes float64.
    dtype = np.float32 if narrow and (base is None or leading or keepdims) else np.float64
    plain = base is None or 1 < base < math.inf
    values = _evaluate(fastkl.js_distance, rows, base if plain else None, dtype, math.inf)
    if base is not None and not plain:
        values = np.sqrt(np.square(values) / np.log(base)).astype(dtype)
    return _shaped(values, axes, keepdims)


def rel_entr_sum(p: ArrayLike, q: ArrayLike, axis: Axis = None, *, keepdims: bool = False) -> Any:
    """Sum of p log(p/q) without normalisation, in place of `scipy.special.rel_entr(p, q).sum(axis)`.

    As p and q are not normalised, the sum can be negative. `entropy(p, q)` is that of distributions.

    Parameters
    ----------
    p, q : array_like
        Floats of at most 64 bits, bfloat16 or integers. All axes broadcast.
    axis : int, tuple of ints or None, default None
        The axis or axes to add along, as in `numpy.sum`. None adds all entries.
    keepdims : bool, default False
        Whether the result keeps the axes, with length 1.

    Returns
    -------
    ndarray or NumPy scalar
        Float32 if float32 holds all values of both dtypes, else float64. An entry with p = 0 <= q adds 0. A negative entry,
        and one with p > 0 = q, makes the sum inf; NaN makes it NaN.

    Raises
    ------
    ValueError
        If the shapes do not broadcast, or the axis is out of range.
    TypeError
        If an operand has another dtype or masked entries.

    See Also
    --------
    entropy : The sum for the normalised rows.
    kl_div_sum : The sum that is never negative.

    Notes
    -----
    One pass in parallel computes Σ φ - Σ (q - p) with φ = p log(p/q) - p + q, as `fastkl.generalized_kl` does. A row is
    summed entry by entry in float64 if this difference would lose digits, because Σ φ is more than four times as large, or
    if an entry is negative, NaN or infinite. The error is at most 16 ε of the sum of the terms' absolute values, where ε is
    that of the result's dtype.

    Examples
    --------
    >>> from fastkl.compat.scipy import rel_entr_sum
    >>> rel_entr_sum([[1.0, 2.0], [0.0, 3.0]], [[1.0, 1.0], [5.0, 0.0]], axis=1)
    array([1.38629436,        inf])
    """
    return sum_of_terms("rel_entr_sum", p, q, axis, keepdims)


def kl_div_sum(p: ArrayLike, q: ArrayLike, axis: Axis = None, *, keepdims: bool = False) -> Any:
    """Sum of p log(p/q) - p + q without normalisation, in place of `scipy.special.kl_div(p, q).sum(axis)`.

    It is `fastkl.generalized_kl` with SciPy's axes, dtypes and values for entries that are not valid: never negative, and
    right to the last digits however near the operands are.

    Parameters
    ----------
    p, q : array_like
        Floats of at most 64 bits, bfloat16 or integers. All axes broadcast.
    axis : int, tuple of ints or None, default None
        The axis or axes to add along, as in `numpy.sum`. None adds all entries.
    keepdims : bool, default False
        Whether the result keeps the axes, with length 1.

    Returns
    -------
    ndarray or NumPy scalar
        Float32 if float32 holds all values of both dtypes, else float64. An entry with p = 0 <= q adds q. A negative entry,
        and one with p > 0 = q, makes the sum inf; NaN makes it NaN.

    Raises
    ------
    ValueError
        If the shapes do not broadcast, or the axis is out of range.
    TypeError
        If an operand has another dtype or masked entries.

    See Also
    --------
    fastkl.generalized_kl : The sum for rows along one axis.
    rel_entr_sum : The sum without - p + q.

    Notes
    -----
    The accuracy is that of `fastkl.generalized_kl`.

    Examples
    --------
    >>> from fastkl.compat.scipy import kl_div_sum
    >>> kl_div_sum([[1.0, 2.0], [0.0, 3.0]], [[1.0, 1.0], [5.0, 0.0]], axis=1)
    array([0.38629436,        inf])
    """
    return sum_of_terms("kl_div_sum", p, q, axis, keepdims)


def _rows(operands: Sequence[Any], axis: Axis, same_length: bool = False) -> tuple[list[Array], tuple[int, ...]]:
    """The broadcast operands, the axes of a distribution joined into one last axis; and the numbers of those axes.

    One axis is moved without a copy.
    """
    arrays = [np.atleast_1d(np.asarray(x)) for x in operands]
    ndim = max(x.ndim for x in arrays)
    moved = axes = tuple(range(ndim)) if axis is None else normalize_axis_tuple(axis, ndim, "axis")
    if axis is None:
        arrays, moved = [x.reshape(-1) for x in arrays], (0,)
    shapes = [x.shape for x in arrays]
    padded = [(1,) * (max(map(len, shapes)) - len(shape)) + shape for shape in shapes]
    lengths = [tuple(shape[i] for i in moved) for shape in padded]
    if same_length and len(set(lengths)) > 1:
        raise ValueError(
            f"p has shape {shapes[0]} and q has shape {shapes[1]}: must have the same lengths along axis {axis}"
        )
    try:
        shape = np.broadcast_shapes(*shapes)
    except ValueError:
        raise ValueError(f"Array shapes are incompatible for broadcasting: {', '.join(map(str, shapes))}") from None
    leading = [length for i, length in enumerate(shape) if i not in moved]
    length = math.prod(shape[i] for i in moved)
    views = [x if x.shape == shape else np.broadcast_to(x, shape) for x in arrays]
    if moved != (len(shape) - 1,):
        views = [np.moveaxis(x, moved, range(-len(moved), 0)) for x in views]
    return [x.reshape(*leading, length) for x in views], axes


def _is_narrow(dtype: np.dtype[Any]) -> bool:
    """Whether it is float32, float16 or bfloat16. Quotients of these are float32 or less, those of integers float64."""
    return dtype.kind not in "biu" and np.can_cast(dtype, np.float32)


def _shaped(values: Array, axes: tuple[int, ...], keepdims: bool) -> Any:
    return np.expand_dims(values, axes) if keepdims else values[()]


def _small_distance(x: Array, y: Array, axis: Axis, base: float | None, keepdims: bool) -> Any:
    """The distances of valid rows of arrays that are alike; None if there is more to do.

    It is for speed alone: the steps of the other way take longer than SciPy takes for a few rows.
    """
    if x.shape != y.shape and isinstance(axis, int):
        along = axis if axis < 0 else axis - max(x.ndim, y.ndim)
        if -min(x.ndim, y.ndim) <= along < 0 and x.shape[along] == y.shape[along]:
            x, y = broadcast_small(x, y)
    is_scalar = (axis is None or x.ndim == 1) and not keepdims
    if base is not None and is_scalar and _is_narrow(x.dtype) and _is_narrow(y.dtype):
        if x.size > BLOCK:
            return None
        x, y = x.astype(float), y.astype(float)  # The result is float64.
    x_rows, y_rows = rows_last(x, axis), rows_last(y, axis)
    if x.shape != y.shape or x_rows is None or y_rows is None:
        return None
    request = Request("js_distance", x_rows, y_rows)
    request.set_rows(-1, True, "raise")
    request.set_numbers(base, 0.0, None)
    result, invalid = evaluate_plain(request)
    if result is None or invalid is not None:
        return None
    return _shaped(result, (axis,) if isinstance(axis, int) else tuple(range(x.ndim)), True) if keepdims else result


def _evaluate(
    measure: Callable[..., Any], operands: Sequence[Array], base: float | None, dtype: Any, of_both_signs: float
) -> Array:
    """The measure of each row.

    SciPy divides by a row's sum even where it is negative: a row of negative entries is a distribution, and one with
    entries of both signs has an infinite value.
    """
    values = np.zeros(operands[0].shape[:-1], dtype)
    if not operands[0].size:
        return values
    keywords = {"base": base, "normalize": True, "invalid": "nan"}
    measure(*operands, out=values, **keywords)
    strange = np.isnan(values)
    if strange.any():
        with np.errstate(all="ignore"):
            divided = [x / x.sum(axis=-1, keepdims=True) for x in (rows[strange].astype(float) for rows in operands)]
        value = measure(*divided, **keywords)
        negative, nan = (np.any([f(x).any(axis=-1) for x in divided], axis=0) for f in (lambda x: x < 0, np.isnan))
        value[negative & ~nan] = of_both_signs
        values[strange] = value
    return values
