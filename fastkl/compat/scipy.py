"""SciPy's measures of distributions, with SciPy's signatures. Needs no SciPy.

Rows are taken from the operands as SciPy takes them, and fastkl computes them. What is no distribution gets SciPy's answer.
The sums of `rel_entr` are not of distributions, and are computed here.
"""

from __future__ import annotations

import math
import operator
from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_tuple

import fastkl

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import ArrayLike, NDArray

    Array = NDArray[Any]
    Axis = int | Sequence[int] | None

__all__ = ["entropy", "jensenshannon", "rel_entr_sum"]

_BLOCK = 1 << 13  # entries worked on together: enough for NumPy to be quick, few enough for the caches


def entropy(
    pk: ArrayLike,
    qk: ArrayLike | None = None,
    base: float | None = None,
    axis: Axis = 0,
    *,
    nan_policy: str = "propagate",
    keepdims: bool = False,
) -> Any:
    """Entropy of pk, or relative entropy of pk and qk: `scipy.stats.entropy`.

    `fastkl.entropy` and `fastkl.kl_divergence` of the rows along `axis`, normalised: never negative, right to the last
    digits.

    Parameters
    ----------
    pk, qk : array_like
        Weights of any sum: floating numbers of at most 64 bits, bfloat16 too, or integers. All axes broadcast.
        A masked entry of one is left out of both.
    base : float, optional
        Base of the logarithm, positive. None gives nats.
    axis : int, tuple of ints or None, default 0
        The axis or axes that hold a distribution; None takes all entries as one.
    nan_policy : {"propagate", "omit", "raise"}, default "propagate"
        A NaN makes its row's result NaN; is left out, with its counterpart; or is a ValueError.
    keepdims : bool, default False
        Keep the axes in the result, with length 1.

    Returns
    -------
    ndarray or NumPy scalar
        Float32 if NumPy promotes the operands to it, or to less, else float64. -inf for an entropy, inf for a relative
        one, where a row has entries of both signs; NaN for a row with NaN or an infinity, or of zeros; 0 for one without
        entries.

    Raises
    ------
    ValueError
        For shapes that do not broadcast, a base that is not positive, an axis out of range, an unknown `nan_policy`, and
        NaN, if it says so.
    TypeError
        For other dtypes.

    Notes
    -----
    Accuracy: as `fastkl.entropy` and `fastkl.kl_divergence`.

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
        # What is masked in one operand is left out of both; but a NaN of the other counts before.
        masked: Any = reduce(operator.or_, arrays[len(given) :], np.False_)
        left_out = masked | nan if nan_policy == "omit" else masked & ~nan
    any_left_out = np.any(left_out)
    if any_left_out:  # zeros in both operands add nothing to any sum
        rows = [np.where(left_out, x.dtype.type(0), x) for x in rows]

    # SciPy promotes the operands, and then divides, which makes integers float64; its functions make float16 float32.
    common = np.result_type(*(x if type(x) in (int, float) else row for x, row in zip(given, rows, strict=True)))
    dtype = np.float32 if _is_narrow(common) else np.float64
    plain = base is None or (base != 1 and base < math.inf)
    measure, of_both_signs = (fastkl.entropy, -math.inf) if qk is None else (fastkl.kl_divergence, math.inf)
    values = _evaluate(measure, rows, base if plain else None, dtype, of_both_signs)
    if any_left_out:
        values[left_out.all(axis=-1)] = 0
    if base is not None and not plain:
        values = values / np.float64(math.log(base))
    return _shaped(values, axes, keepdims)


def jensenshannon(p: ArrayLike, q: ArrayLike, base: float | None = None, *, axis: Axis = 0, keepdims: bool = False) -> Any:
    """Jensen-Shannon distance of p and q: `scipy.spatial.distance.jensenshannon`.

    `fastkl.js_distance` of the rows along `axis`, normalised: never NaN for distributions, and right to the last digits.

    Parameters
    ----------
    p, q : array_like
        Weights of any sum, dtypes as in `entropy`; as many in a row of p as in one of q. Other axes broadcast.
    base : float, optional
        Base of the logarithm. None gives nats; no real distance has a base below 1.
    axis : int, tuple of ints or None, default 0
        The axis or axes that hold a distribution; None takes all entries as one.
    keepdims : bool, default False
        Keep the axes in the result, with length 1.

    Returns
    -------
    ndarray or NumPy scalar
        Float32 if both are float32 or narrower floats (but for a scalar with a `base`), else float64. inf where a row has
        entries of both signs; NaN for a row with NaN or an infinity, or of zeros; 0 for one without entries.

    Raises
    ------
    ValueError
        For shapes that do not fit, and an axis out of range.
    TypeError
        For other dtypes, and masked entries.

    Notes
    -----
    Accuracy: as `fastkl.js_distance`.

    Examples
    --------
    >>> from fastkl.compat.scipy import jensenshannon
    >>> jensenshannon([1, 0, 0], [0, 1, 0], base=2)
    np.float64(1.0)
    >>> jensenshannon([[1, 2], [3, 4]], [3, 7], axis=-1)
    array([0.02533913, 0.09464696])
    """
    _refuse_masks(p=p, q=q)
    rows, axes = _rows([p, q], axis, same_length=True)
    narrow = all(_is_narrow(x.dtype) for x in rows)
    leading = rows[0].shape[:-1]
    # SciPy divides in place by a float64 logarithm, which makes another scalar but the same array.
    dtype = np.float32 if narrow and (base is None or leading or keepdims) else np.float64
    plain = base is None or 1 < base < math.inf
    values = _evaluate(fastkl.js_distance, rows, base if plain else None, dtype, math.inf)
    if base is not None and not plain:
        values = np.sqrt(np.square(values) / np.log(base)).astype(dtype)
    return _shaped(values, axes, keepdims)


def rel_entr_sum(p: ArrayLike, q: ArrayLike, axis: Axis = None, *, keepdims: bool = False) -> Any:
    """Sum of p log(p/q) as it stands: `scipy.special.rel_entr(p, q).sum(axis)`.

    Nothing is normalised, so the sum can be negative. `entropy(p, q)` is that of distributions.

    Parameters
    ----------
    p, q : array_like
        Numbers, dtypes as in `entropy`. All axes broadcast.
    axis : int, tuple of ints or None, default None
        What to add along, as in `numpy.sum`; None adds all entries.
    keepdims : bool, default False
        Keep the axes in the result, with length 1.

    Returns
    -------
    ndarray or NumPy scalar
        Float32 if float32 holds all values of both dtypes, else float64. An entry with p = 0 <= q adds 0; a negative one,
        and p > 0 = q, give inf; NaN gives NaN.

    Raises
    ------
    ValueError
        For shapes that do not broadcast, and an axis out of range.
    TypeError
        For other dtypes, and masked entries.

    Notes
    -----
    Accuracy: an entry is right to a few ε of itself, ε being float64's, and is added in float64, in pairs of pairs. It is
    NumPy that does this, in blocks that stay in the cache.

    Examples
    --------
    >>> from fastkl.compat.scipy import rel_entr_sum
    >>> rel_entr_sum([[1.0, 2.0], [0.0, 3.0]], [[1.0, 1.0], [5.0, 0.0]], axis=1)
    array([1.38629436,        inf])
    """
    _refuse_masks(p=p, q=q)
    rows, axes = _rows([p, q], axis)
    for name, row in ("p", rows[0]), ("q", rows[1]):
        if not np.can_cast(row.dtype, np.float64) and row.dtype.kind not in "iu":
            raise TypeError(
                f"{name} has dtype {row.dtype}: must be float64, float32, float16, bfloat16, bool or an integer dtype"
            )
    # A Python number takes the dtype that the other operand has, or makes its integers floats.
    numbers = [x for x in (p, q) if type(x) in (int, float)]
    dtypes = [
        np.result_type(row.dtype, *numbers) for row, x in zip(rows, (p, q), strict=True) if type(x) not in (int, float)
    ]
    small = dtypes and all(np.can_cast(dtype, np.float32) for dtype in dtypes)
    return _shaped(_add_rel_entr(*rows).astype(np.float32 if small else np.float64), axes, keepdims)


def _refuse_masks(**operands: ArrayLike) -> None:
    for name, operand in operands.items():
        if np.ma.is_masked(operand):
            raise TypeError(f"{name} has masked entries: fill them, or leave them out, before the call")


def _rows(operands: Sequence[Any], axis: Axis, same_length: bool = False) -> tuple[list[Array], tuple[int, ...]]:
    """The operands, broadcast, with the entries along `axis` in one axis, the last; and the axes that these were.

    No copy for one axis.
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
    views = [np.moveaxis(np.broadcast_to(x, shape), moved, range(-len(moved), 0)) for x in arrays]
    return [x.reshape(*leading, length) for x in views], axes


def _is_narrow(dtype: np.dtype[Any]) -> bool:
    """Whether it is float32, float16 or bfloat16: quotients of these are float32 at most, those of integers float64."""
    return dtype.kind not in "biu" and np.can_cast(dtype, np.float32)


def _shaped(values: Array, axes: tuple[int, ...], keepdims: bool) -> Any:
    return np.expand_dims(values, axes) if keepdims else values[()]


def _evaluate(
    measure: Callable[..., Any], operands: Sequence[Array], base: float | None, dtype: Any, of_both_signs: float
) -> Array:
    """The measure of each row.

    SciPy divides by a row's sum whatever it is: a row of negative entries is a distribution, and one with entries of both
    signs has an infinite value.
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
        value[negative & ~nan] = of_both_signs if base is None or base > 1 else -of_both_signs
        values[strange] = value
    return values


def _add_rel_entr(p: Array, q: Array) -> Array:
    """The sums along the last axis, of halves until they are small."""
    if p.size <= _BLOCK:
        terms = _rel_entr(p.astype(np.float64), q.astype(np.float64))
        with np.errstate(invalid="ignore"):  # infinities of both signs
            return np.asarray(terms.sum(axis=-1))
    axis = int(np.argmax(p.shape))
    half = [p.shape[axis] // 2]
    values = [_add_rel_entr(*parts) for parts in zip(np.split(p, half, axis), np.split(q, half, axis), strict=True)]
    with np.errstate(invalid="ignore"):
        return values[0] + values[1] if axis == p.ndim - 1 else np.concatenate(values, axis)


def _rel_entr(p: Array, q: Array) -> Array:
    """Each entry's p log(p/q), with full relative accuracy: p - q is exact where they are within a factor of two."""
    with np.errstate(all="ignore"):
        ratio = p / q
        near = (ratio >= 0.5) & (ratio <= 2)
        normal = (ratio >= np.finfo(float).tiny) & (ratio < np.inf)
        log = np.where(near, np.log1p((p - q) / q), np.where(normal, np.log(ratio), np.log(p) - np.log(q)))
        cases = [(p > 0) & (q > 0), (p == 0) & (q >= 0), np.isnan(p) | np.isnan(q)]
        return np.select(cases, [p * log, 0.0, np.nan], np.inf)
