"""Everything between a user's arguments and the kernels: checks, shapes, dtypes, and every error message of the package.

Nothing is computed here, except to say what is wrong with a row.
"""

from __future__ import annotations

import math
import operator
from fractions import Fraction
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple, SupportsIndex

import numpy as np

from . import _kernels

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import ArrayLike, NDArray

    Array = NDArray[Any]
    Index = list[int | str]  # of a number, or of a row: then with ":"
    Locate = Callable[[str, Index], Index]  # from an index into the named operand to that into what the user passed

_in_usual_mode: Final = _kernels.in_usual_mode  # for all that compares or computes with numbers other than 0 and 1
_copysign: Final = math.copysign  # a mode of arithmetic may take any tiny number for 0, but not change its sign
_ARRAY: Final = np.ndarray
_FLOAT32: Final = np.dtype(np.float32)
_FLOAT64: Final = np.dtype(np.float64)


# NumPy has no bfloat16 of its own: this is its bits. That of ml_dtypes is known by its name.
BFLOAT16: Final = np.dtype([("bfloat16", np.uint16)])


class _Kind(NamedTuple):
    """What a dtype means for a row."""

    code: int  # the core's
    tolerance: float  # how far from 1 the row's sum may be
    result: np.dtype[Any]


# By NumPy's type number, of which one dtype can have two. Bools and integers have the tolerance of what they are summed in.
_KINDS: Final = {
    dtype.num: _Kind(
        _kernels.DTYPES[dtype.name],
        _in_usual_mode(math.sqrt, np.finfo(dtype if dtype.kind == "f" else result).eps),
        result,
    )
    for dtype, result in ((np.dtype(char), _FLOAT32 if char in "?ef" else _FLOAT64) for char in "?bBhHiIlLqQefd")
}
_BFLOAT16_KIND: Final = _Kind(_kernels.DTYPES["bfloat16"], _in_usual_mode(math.sqrt, 2.0**-7), _FLOAT32)


class Softmax(NamedTuple):
    """What is asked of logits, of labels, or of both operands at once."""

    from_logits: Any = False
    temperature: Any = 1.0
    ignore_index: Any = None
    label_smoothing: Any = 0.0
    labels: Any = None  # a comparison's; a cross-entropy has them as p
    compare: bool = False


_PROBABILITIES: Final = Softmax()
_MEASURES: Final = _kernels.MEASURES
_evaluate: Final = _kernels.evaluate
_SLICE: Final = 1 << 16  # entries looked at together when a bad one is searched for
_BLOCK: Final = 1 << 15  # values computed together for an `out` of a dtype that is not theirs


def evaluate(
    measure: str,
    operands: tuple[ArrayLike, ...],
    axis: SupportsIndex,
    base: float | None,
    normalize: bool,
    eps: float,
    invalid: str,
    out: Array | None,
    keepdims: bool,
    threads: int | None,
    root: bool = False,
    locate: Locate | None = None,
    softmax: Softmax = _PROBABILITIES,
) -> Any:
    """Check the arguments, have the rows' values or their roots computed, raise for an invalid row, shape the result.

    The defaults and equal shapes take short ways past the checks: for one small row, this is most of a call's time.
    Where operands are not what the user passed, but views of it, `locate` says what an index into them is there. A
    comparison's result has the kernels' FIELDS along a first axis.
    """
    if type(operands[0]) is not _ARRAY or type(operands[-1]) is not _ARRAY:
        from . import _containers  # here, for it stands above this module: it comes back with NumPy arrays

        adapter = _containers.find(operands)
        if adapter is not None:
            if softmax.compare:
                adapter = _containers.with_labels(adapter, operands, "compare")
            elif measure == "cross_entropy" and _containers.are_labels(*operands):
                adapter = _containers.with_labels(adapter, operands, "labels")
            keywords: Any = {"base": base, "normalize": normalize, "eps": eps, "invalid": invalid, "threads": threads}
            call = partial(evaluate, measure, **keywords, root=root, locate=locate, softmax=softmax)
            return adapter(call, operands, axis, out, keepdims)
    p, p_kind = _operand("p", operands[0])
    q, q_kind = _operand("q", operands[1]) if len(operands) == 2 else (None, p_kind)
    more: list[Any] | None = None
    labels: Array | None = None
    names = "pq"
    labelled = measure == "cross_entropy" and q is not None and p.ndim == q.ndim - 1 and _are_integers(p, p_kind)
    if labelled or softmax is not _PROBABILITIES:
        if labelled and q is not None:
            labels, p, p_kind, q, names = p, q, q_kind, None, "q"  # whose rows alone are looked at
        elif softmax.labels is not None:
            labels, kind = _operand("labels", softmax.labels)
            if not _are_integers(labels, kind):
                raise TypeError(f"labels has dtype {np.asarray(softmax.labels).dtype}: must be an integer dtype")
        more = _in_usual_mode(_softmax, softmax, len(operands), names, labels)
        if not (more[0] or more[1] or labelled or softmax.compare):
            more = None
    if not p.ndim or (q is not None and not q.ndim):
        name, number = (names[0], p) if q is None or not p.ndim else ("q", q)
        raise ValueError(f"{name} is the number {_in_usual_mode(str, number[()])}: must have at least one axis")
    ndim = p.ndim if q is None or q.ndim <= p.ndim else q.ndim
    last = ndim - 1 if type(axis) is int and axis == -1 else _axis(axis, ndim)
    shape = p.shape
    if last == ndim - 1 and (q is None or shape == q.shape) and shape[-1]:
        p_rows, q_rows, leading = p, q, shape[:-1]
    else:
        p_rows, q_rows, leading = _align(p, q, last, ndim, names[0])
    if more is not None and labels is not None:
        more[4], leading = _align_labels(labels, softmax.labels is None, last, ndim, leading)
    if type(invalid) is not str or invalid != "raise":
        _check_invalid(invalid)
    any_sum = normalize or invalid == "ignore"

    dtype = p_kind.result if p_kind.result is q_kind.result else _FLOAT64
    if softmax.compare:
        result = np.empty((len(_kernels.FIELDS), *leading), dtype)
    else:
        result = np.empty(leading, dtype) if out is None else _out(out, last, leading, keepdims)
    target = result if out is None or not _overlaps(result, p, q, labels) else np.empty(leading, result.dtype)
    found = (_evaluate if out is None or target.dtype in (_FLOAT32, _FLOAT64) else _evaluate_in_blocks)(
        _MEASURES[measure],
        root,
        p_rows,
        p_kind.code,
        q_rows,
        q_kind.code,
        target,
        eps if type(eps) is float and eps == 0 and _copysign(1, eps) > 0 else _in_usual_mode(_eps, eps),
        math.inf if any_sum else p_kind.tolerance,
        math.inf if any_sum else q_kind.tolerance,
        0.0 if base is None else _in_usual_mode(_base, base, root),
        invalid == "raise",
        0 if threads is None else _threads(threads),
        more,
    )
    if found is not None and invalid == "raise":
        row, status = found
        at = np.unravel_index(row, leading)
        if status == _kernels.LABEL and more is not None:
            raise ValueError(_label_complaint(more[4], at, p_rows.shape[-1], labels, locate))
        if q is not None and q_rows is not None and status in (_kernels.Q_ENTRY, _kernels.Q_SUM):
            blamed: tuple[Any, ...] = "q", q, q_kind, q_rows, more is not None and more[1]
        else:
            blamed = names[0], p, p_kind, p_rows, more is not None and more[0]
        raise ValueError(_in_usual_mode(_complaint, *blamed, at, last, any_sum, locate))

    if target is not result:
        np.copyto(result, target)
    if out is not None:
        return out
    if keepdims:
        return np.expand_dims(result, last + softmax.compare)
    return result if leading or softmax.compare else result[()]


def _are_integers(values: Array, kind: _Kind) -> bool:
    """bfloat16 is read as if it were integers."""
    return values.dtype.kind in "iu" and kind is not _BFLOAT16_KIND


def _softmax(asked: Softmax, operands: int, names: str, labels: Array | None) -> list[Any]:
    """What the kernels want to know of logits and labels; the latter are still to be aligned."""
    flags = asked.from_logits
    if isinstance(flags, (bool, np.bool)):
        p_logits = q_logits = bool(flags)
    elif operands == 2 and isinstance(flags, (tuple, list)) and [type(flag) for flag in flags] == [bool, bool]:
        p_logits, q_logits = flags
        if names == "q" and p_logits:
            raise ValueError(f"from_logits={flags!r}: p holds labels, which are no logits")
    else:
        raise TypeError(f"from_logits={flags!r}: must be a bool{' or a pair of bools' if operands == 2 else ''}")
    if names == "q":
        p_logits = q_logits
    temperature = _number("temperature", asked.temperature, "a positive finite number")
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature={asked.temperature!r}: must be a positive finite number")
    if temperature != 1 and not (p_logits or q_logits):
        raise ValueError(f"temperature={asked.temperature!r}: must be 1 where no operand holds logits")
    scale = 1 / temperature
    scale_low = float(1 / Fraction(temperature) - Fraction(scale)) if scale < math.inf else 0.0
    smoothing = _number("label_smoothing", asked.label_smoothing, "a number with 0 <= label_smoothing <= 1")
    if not 0 <= smoothing <= 1:
        raise ValueError(f"label_smoothing={asked.label_smoothing!r}: must be a number with 0 <= label_smoothing <= 1")
    ignored = asked.ignore_index
    if ignored is not None:
        try:
            ignored = operator.index(ignored)
        except TypeError:
            raise TypeError(f"ignore_index={ignored!r}: must be None or an integer") from None
        if not -(2**63) <= ignored < 2**63 - 1:
            ignored = None  # no label that the core tells from others
    if labels is None:
        for name, value in (("ignore_index", asked.ignore_index), ("label_smoothing", smoothing or None)):
            if value is not None:
                raise ValueError(f"{name}={value!r}: only for labels, an integer p with one axis fewer than q")
        return [p_logits, q_logits, scale, scale_low, None, 0, None, 0.0, asked.compare]
    return [p_logits, q_logits, scale, scale_low, labels, _KINDS[labels.dtype.num].code, ignored, smoothing, asked.compare]


def _align_labels(
    labels: Array, are_p: bool, axis: int, ndim: int, leading: tuple[int, ...]
) -> tuple[Array, tuple[int, ...]]:
    """The labels with an axis of length 1 where the distributions' is, that one last; the shape that all broadcast to."""
    name = "p" if are_p else "labels"
    rows = labels[(np.newaxis,) * (ndim - 1 - labels.ndim)][..., np.newaxis] if labels.ndim < ndim else labels
    try:
        if labels.ndim >= ndim:
            raise ValueError
        return rows, np.broadcast_shapes(rows.shape[:-1], leading)
    except ValueError:
        raise ValueError(
            f"{name} has shape {labels.shape}: labels must have the shape {leading} of the rows, or broadcast with it"
        ) from None


def _label_complaint(labels: Array, at: tuple[Any, ...], n: int, given: Array | None, locate: Locate | None) -> str:
    """What is wrong with the label, aligned, at index `at` of the result; `given` are the labels as they came."""
    own = [0 if length == 1 else int(i) for i, length in zip(at, labels.shape[:-1], strict=True)]
    value = labels[(*own, 0)]
    index: Index = list(own)
    index = index[labels.ndim - 1 - (given.ndim if given is not None else 0) :]
    if locate is not None:
        index = locate("labels", index)
    place = f"labels[{', '.join(map(str, index))}]" if index else "labels"
    return f"{place} = {value}: labels must be in 0..{n - 1}"


def _operand(name: str, values: ArrayLike) -> tuple[Array, _Kind]:
    """The values as an array of a dtype that the core reads, no copy if they are one, and the dtype's kind."""
    if type(values) is _ARRAY:
        array = values
    else:
        if isinstance(values, np.ma.MaskedArray) and _is_masked(values):
            raise TypeError(f"{name} has masked entries: fill them, or leave them out, before the call")
        try:
            array = np.asarray(values)
        except ValueError as error:
            raise ValueError(f"{name} is not an array of numbers: {error}") from None
    kind = _KINDS.get(array.dtype.num)
    if kind is None:
        if array.dtype != BFLOAT16 and array.dtype.name != "bfloat16":
            raise TypeError(
                f"{name} has dtype {array.dtype}: must be float64, float32, float16, bfloat16, bool or an integer dtype"
            )
        array, kind = array.view(np.dtype(np.uint16).newbyteorder(array.dtype.byteorder)), _BFLOAT16_KIND
    return array, kind


def _is_masked(values: np.ma.MaskedArray[Any, Any]) -> bool:
    """NumPy's own function knows no dtype with fields, such as that of bfloat16's bits."""
    mask = np.ma.getmask(values)
    return b"\1" in mask.tobytes() if mask.dtype.names else bool(mask.any())


def _axis(axis: SupportsIndex, ndim: int) -> int:
    """The axis, counted from the front."""
    try:
        index = operator.index(axis)
    except TypeError:
        raise TypeError(f"axis={axis!r}: must be an integer") from None
    if not -ndim <= index < ndim:
        raise np.exceptions.AxisError(f"axis={index}: must be in {-ndim}..{ndim - 1} for operands with {ndim} axes")
    return int(index % ndim)


def _align(p: Array, q: Array | None, axis: int, ndim: int, name: str = "p") -> tuple[Array, Array | None, tuple[int, ...]]:
    """Views of the operands with the distribution axis last, and the shape that their leading axes broadcast to."""
    p_rows = _rows_last(p, axis, ndim)
    if q is None:
        q_rows, leading = None, p_rows.shape[:-1]
    else:
        q_rows = _rows_last(q, axis, ndim)
        leading = p_rows.shape[:-1]
        if p_rows.shape != q_rows.shape:
            if p_rows.shape[-1] != q_rows.shape[-1]:
                raise ValueError(
                    f"p has shape {p.shape} and q has shape {q.shape}: must have the same length along axis {axis - ndim}, "
                    f"not {p_rows.shape[-1]} and {q_rows.shape[-1]}"
                )
            try:
                leading = np.broadcast_shapes(leading, q_rows.shape[:-1])
            except ValueError:
                raise ValueError(
                    f"p has shape {p.shape} and q has shape {q.shape}: all axes but axis {axis - ndim} must broadcast"
                ) from None
    if p_rows.shape[-1] == 0:
        raise ValueError(f"{name} has shape {p.shape}: the distribution axis, axis {axis - ndim}, must not be empty")
    return p_rows, q_rows, leading


def _rows_last(operand: Array, axis: int, ndim: int) -> Array:
    if operand.ndim < ndim:
        operand = operand[(np.newaxis,) * (ndim - operand.ndim)]
    return operand if axis == ndim - 1 else np.moveaxis(operand, axis, -1)


def _number(name: str, value: Any, wanted: str) -> float:
    try:
        if isinstance(value, (str, bytes)):
            raise TypeError
        return float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name}={value!r}: must be {wanted}") from None
    except OverflowError:
        return math.inf


def _base(base: Any, root: bool) -> float:
    """The base; there is no root of the values that a base below 1 makes negative."""
    wanted = "None or a finite number above 1" if root else "None or a positive finite number other than 1"
    number = _number("base", base, wanted)
    if not root < number < math.inf or number == 1:
        raise ValueError(f"base={base!r}: must be {wanted}")
    return number


def _eps(eps: Any) -> float:
    wanted = "a number with 0 <= eps < 1"
    number = _number("eps", eps, wanted)
    if not 0 <= number < 1:
        raise ValueError(f"eps={eps!r}: must be {wanted}")
    return number


def _check_invalid(invalid: Any) -> None:
    if not (isinstance(invalid, str) and invalid in ("raise", "nan", "ignore")):
        raise ValueError(f"invalid={invalid!r}: must be 'raise', 'nan' or 'ignore'")


def _threads(threads: Any) -> int:
    try:
        number = operator.index(threads)
    except TypeError:
        raise TypeError(f"threads={threads!r}: must be None or a positive integer") from None
    if number < 1 or isinstance(threads, bool):
        raise ValueError(f"threads={threads!r}: must be None or a positive integer")
    return min(number, _kernels.MOST_THREADS)


def _out(out: Any, axis: int, leading: tuple[int, ...], keepdims: bool) -> Array:
    """A view of `out` without the axis that keepdims keeps."""
    if not isinstance(out, np.ndarray) or isinstance(out, np.ma.MaskedArray):  # what is masked would hide values
        raise TypeError(f"out is a {type(out).__name__}: must be an array")
    if out.dtype.kind != "f":
        raise TypeError(f"out has dtype {out.dtype}: must be a floating dtype")
    shape = (*leading[:axis], 1, *leading[axis:]) if keepdims else leading
    if out.shape != shape:
        raise ValueError(f"out has shape {out.shape}: must be {shape}")
    if not out.flags.writeable:
        raise ValueError("out is read-only: must be writeable")
    return out.squeeze(axis) if keepdims else out


def _overlaps(result: Array, *operands: Array | None) -> bool:
    """Whether values must be computed elsewhere first, lest they replace entries that are yet to be read."""
    return any(operand is not None and np.may_share_memory(result, operand) for operand in operands)


def _evaluate_in_blocks(
    measure: int, root: bool, p: Array, p_code: int, q: Array | None, q_code: int, result: Array, *task: Any
) -> tuple[int, int] | None:
    """As the kernels' `evaluate`, for a result of a dtype that they do not write: in doubles, some rows at a time."""
    n = p.shape[-1:]
    p = np.broadcast_to(p, result.shape + n)
    q = None if q is None else np.broadcast_to(q, result.shape + n)
    more: list[Any] | None = task[-1]
    labels = None if more is None or more[4] is None else np.broadcast_to(more[4], (*result.shape, 1))
    first: tuple[int, int] | None = None
    row = 0
    for block in _blocks(result.shape):
        values = np.empty(result[block].shape)
        if more is not None and labels is not None:
            task = (*task[:-1], [*more[:4], labels[block], *more[5:]])
        found = _evaluate(measure, root, p[block], p_code, None if q is None else q[block], q_code, values, *task)
        if found is not None and first is None:
            first = row + found[0], found[1]
        row += values.size
        with np.errstate(all="ignore"):  # a value that the dtype of `out` cannot hold is infinite or zero there
            _in_usual_mode(np.copyto, result[block], values)
    return first


def _blocks(shape: tuple[int, ...]) -> Iterator[tuple[Any, ...]]:
    """Indices that make a shape up, in order, of no more than _BLOCK entries each."""
    if not shape:
        yield (...,)
        return
    cut = next(i for i in range(len(shape)) if math.prod(shape[i + 1 :]) <= _BLOCK)
    count = -(-shape[cut] // (_BLOCK // max(1, math.prod(shape[cut + 1 :]))))
    for outer in np.ndindex(shape[:cut]):
        for i in range(count):
            yield (*outer, slice(i * shape[cut] // count, (i + 1) * shape[cut] // count))


def _complaint(
    name: str,
    operand: Array,
    kind: _Kind,
    rows: Array,
    logits: bool,
    at: tuple[Any, ...],
    axis: int,
    any_sum: bool,
    locate: Locate | None,
) -> str:
    """What is wrong with the row of `operand` at index `at` of the result."""
    own = [0 if length == 1 else int(i) for i, length in zip(at, rows.shape[:-1], strict=True)]
    row = rows[tuple(own)]

    def place(column: int | str) -> str:
        index = [*own[:axis], column, *own[axis:]][rows.ndim - operand.ndim :]
        if locate is not None:
            index = locate(name, index)
        while index and index[-1] == ":":
            index.pop()
        return f"{name}[{', '.join(map(str, index))}]" if index else name

    total = 0.0
    for start in range(0, len(row), _SLICE):
        part = row[start : start + _SLICE]
        if kind is _BFLOAT16_KIND:  # the upper halves of float32
            part = (part.astype(np.uint32) << 16).view(np.float32)
        bad = np.flatnonzero(~((logits | (part >= 0)) & (part < np.inf)))
        if len(bad) and logits:
            return f"logits {place(start + int(bad[0]))} = {part[bad[0]]!s}: logits must be finite or -inf"
        if len(bad):
            return f"{place(start + int(bad[0]))} = {part[bad[0]]!s}: probabilities must be finite and non-negative"
        with np.errstate(over="ignore"):
            total += 0 if logits else part.sum(dtype=float)
    if logits:
        return f"logits {place(':')} has no finite entry"
    wanted = "have a positive sum"
    if not any_sum:
        wanted = f"sum to 1 within {kind.tolerance:.2g} (normalize=True accepts counts and weights)"
    return f"{place(':')} sums to {total:.10g}: rows must {wanted}"
