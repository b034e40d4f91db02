"""One call: a Request is checked, its operands are aligned, the kernels evaluate it, and the result gets its shape.

Owns every check of an argument and every message about one. Nothing is computed here, except what a message says of a row.
"""

from __future__ import annotations

import math
import operator
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Final, SupportsIndex, TypeAlias

import numpy as np

from . import _kernels
from ._kernels import BFLOAT16_KIND, Kind, Request, in_default_mode, kind_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import ArrayLike, NDArray

Array: TypeAlias = "NDArray[Any]"
Index: TypeAlias = "tuple[int | slice, ...]"
Operand: TypeAlias = "tuple[Array, Kind]"

__all__ = [
    "BFLOAT16",
    "InvalidRowError",
    "Kind",
    "Request",
    "align",
    "align_labels",
    "blocks",
    "check_axis",
    "check_options",
    "check_out",
    "check_threads",
    "invalid_row",
    "own_index",
    "prepare",
    "read_operand",
    "run",
]

# NumPy has no bfloat16 of its own: these are its bits. The dtype of ml_dtypes is known by its name.
BFLOAT16: Final = np.dtype([("bfloat16", np.uint16)])

_FLOAT32: Final = np.dtype(np.float32)
_FLOAT64: Final = np.dtype(np.float64)
_SLICE: Final = 1 << 16  # entries that are searched at a time for an invalid one
_BLOCK: Final = 1 << 15  # values computed at a time for an `out` of a dtype that the kernels do not write
_ALL: Final = slice(None)
_NLL: Final = "class labels go to fastkl.nll"


class InvalidRowError(ValueError):
    """A row that is not a distribution, or a label that is not one of its entries.

    Attributes
    ----------
    operand : {"p", "q", "labels"}
        The operand that the row is of.
    index : tuple of int and slice
        ``p[error.index]`` is the entry, or the row where no single entry is wrong. Positions, never labels, in the whole
        operand; 0 on axes that are broadcast; slices at the end are left out.
    reason : {"negative", "not finite", "sum", "no finite logit", "label", "index"}
        What is wrong with it.
    detail : str
        The message after the place.
    source : str
        What the message begins with: the name of a file, or nothing.

    See Also
    --------
    entropy : Its argument `invalid` says whether an invalid row raises.

    Examples
    --------
    >>> import fastkl
    >>> try:
    ...     fastkl.entropy([[0.5, 0.5], [1.5, -0.5]])
    ... except fastkl.InvalidRowError as error:
    ...     print(error.operand, error.index, error.reason)
    p (1, 1) negative
    """

    def __init__(self, operand: str, index: Index, reason: str, detail: str, source: str = "") -> None:
        while index and index[-1] == _ALL:
            index = index[:-1]
        super().__init__(operand, index, reason, detail, source)
        self.operand, self.index, self.reason, self.detail, self.source = operand, index, reason, detail, source

    def __str__(self) -> str:
        place = ", ".join(":" if i == _ALL else str(i) for i in self.index)
        return f"{self.source}{self.operand}{f'[{place}]' if place else ''}{self.detail}"

    def at(self, index: Index, source: str | None = None) -> InvalidRowError:
        """The same error for another index: of the array that an operand is a view or a part of.

        Parameters
        ----------
        index : tuple of int and slice
            The new index.
        source : str, optional
            The new source. None keeps the one of this error.

        Returns
        -------
        InvalidRowError
            The new error.
        """
        return type(self)(self.operand, index, self.reason, self.detail, self.source if source is None else source)


InvalidRowError.__module__ = "fastkl"  # where users find it


def run(request: Request) -> Any:
    """The values of the rows: an array, or a scalar if operands have one axis. A comparison has FIELDS as a first axis."""
    result, invalid = _kernels.evaluate_plain(request)
    if result is not None and invalid is None:
        return result
    operands = _read_operands(request)
    if not request.plain:
        in_default_mode(check_options, request)
    axis, leading, rows = _align_operands(request, operands)
    if result is None:
        result, invalid = _evaluate(request, operands, rows, axis, leading)
    if invalid is not None and request.invalid == "raise":
        at = tuple(int(i) for i in np.unravel_index(invalid[0], leading))
        if invalid[1] == _kernels.LABEL:
            raise _invalid_label(operands["labels"][0], rows, at)
        name = "p" if invalid[1] in (_kernels.P_ENTRY, _kernels.P_SUM) else "q"
        raise in_default_mode(invalid_row, request, name, operands[name], rows[name][0], at, axis)
    if request.out is not None:
        return request.out
    if request.keepdims:
        return np.expand_dims(result, axis)
    return result if result.ndim else result[()]


def prepare(request: Request) -> Request:
    """The request, checked and aligned as `run` does it: for the kernels, if the values of its arrays change."""
    operands = _read_operands(request)
    in_default_mode(check_options, request)
    request.align(_align_operands(request, operands)[2])
    return request


# ---- operands ---------------------------------------------------------------------------------------------------------


def read_operand(name: str, values: ArrayLike) -> tuple[Array, Kind]:
    """The values as an array of a dtype that the core reads, without a copy if they are one, and what the dtype means."""
    if type(values) is np.ndarray:
        array = values
    else:
        if isinstance(values, np.ma.MaskedArray) and _has_masked(values):
            raise TypeError(f"{name} has masked entries: fill them, or leave them out, before the call")
        try:
            array = np.asarray(values)
        except ValueError as error:
            raise ValueError(f"{name} is not an array of numbers: {error}") from None
        except MemoryError:
            raise
        except Exception as error:  # whatever another library's object raises
            said = str(error) or type(error).__name__
            raise TypeError(f"{name} is a {type(values).__name__}, which is no array of numbers: {said}") from None
    kind = kind_of(array)
    if kind is None:
        if array.dtype != BFLOAT16 and array.dtype.name != "bfloat16":
            raise TypeError(
                f"{name} has dtype {array.dtype}: must be float64, float32, float16, bfloat16, bool or an integer dtype"
            )
        array, kind = array.view(np.dtype(np.uint16).newbyteorder(array.dtype.byteorder)), BFLOAT16_KIND
    return array, kind


def _has_masked(values: np.ma.MaskedArray[Any, Any]) -> bool:
    """NumPy's own function does not know dtypes with fields, such as the one of bfloat16's bits."""
    mask = np.ma.getmask(values)
    return b"\1" in mask.tobytes() if mask.dtype.names else bool(mask.any())


def _read_operands(request: Request) -> dict[str, Operand]:
    """The operands of the measure by their names."""
    operands = {}
    if request.measure != "nll":
        operands["p"] = read_operand("p", request.p)
    if request.measure != "entropy":
        operands["q"] = read_operand("q", request.q)
    if request.measure == "nll" or request.labels is not None:
        labels = operands["labels"] = read_operand("labels", request.labels)
        if not _are_integers(*labels):
            raise TypeError(f"labels has dtype {np.asarray(request.labels).dtype}: must be an integer dtype")
    return operands


def _are_integers(values: Array, kind: Kind) -> bool:
    """The bits of bfloat16 are integers, too."""
    return values.dtype.kind in "iu" and kind is not BFLOAT16_KIND


def check_axis(axis: SupportsIndex, ndim: int) -> int:
    """The axis, counted from the front."""
    try:
        index = operator.index(axis)
    except TypeError:
        raise TypeError(f"axis={axis!r}: must be an integer") from None
    if not -ndim <= index < ndim:
        raise np.exceptions.AxisError(f"axis={index}: must be in {-ndim}..{ndim - 1} for operands with {ndim} axes")
    return int(index % ndim)


def _align_operands(request: Request, operands: dict[str, Operand]) -> tuple[int, tuple[int, ...], dict[str, Operand]]:
    """The axis, counted from the end; the result's shape without it; the aligned operands."""
    names = [name for name in operands if name != "labels"]
    first, second = operands[names[0]][0], operands["q"][0] if names[1:] else None
    alike = "labels" not in operands and (second is None or first.shape == second.shape)
    if request.plain and alike and first.ndim and first.shape[-1]:
        return -1, first.shape[:-1], operands
    for name in names:
        if not operands[name][0].ndim:
            value = in_default_mode(str, operands[name][0][()])
            raise ValueError(f"{name} is the number {value}: must have at least one axis")
    ndim = max(x.ndim + (name == "labels") for name, (x, _) in operands.items())
    axis = check_axis(request.axis, ndim)
    hint = ""
    if request.measure == "cross_entropy" and second is not None and first.ndim < second.ndim:
        hint = f"; {_NLL}" if _are_integers(*operands["p"]) else ""
    first, second, leading = align(first, second, axis, ndim, names[0], hint)
    rows = {names[0]: (first, operands[names[0]][1])}
    if second is not None:
        rows["q"] = second, operands["q"][1]
    if "labels" in operands:
        labels, kind = operands["labels"]
        labels, leading = align_labels(labels, axis, ndim, leading)
        rows["labels"] = labels, kind
    return axis - ndim, leading, rows


def align(
    p: Array, q: Array | None, axis: int, ndim: int, name: str = "p", hint: str = ""
) -> tuple[Array, Array | None, tuple[int, ...]]:
    """Views of the operands with the distribution axis last, and the shape to which their leading axes broadcast."""
    p_rows, q_rows = _rows_last(p, axis, ndim), None
    leading = p_rows.shape[:-1]
    if q is not None:
        q_rows = _rows_last(q, axis, ndim)
        shapes = f"p has shape {p.shape} and q has shape {q.shape}"
        if p_rows.shape[-1] != q_rows.shape[-1]:
            raise ValueError(
                f"{shapes}: must have the same length along axis {axis - ndim}, not {p_rows.shape[-1]} and "
                f"{q_rows.shape[-1]}{hint}"
            )
        try:
            if leading != q_rows.shape[:-1]:  # NumPy broadcasts at most 32 axes, even of equal shapes.
                leading = np.broadcast_shapes(leading, q_rows.shape[:-1])
        except ValueError:
            raise ValueError(f"{shapes}: all axes except axis {axis - ndim} must broadcast{hint}") from None
    if p_rows.shape[-1] == 0 and 0 not in leading:
        raise ValueError(f"{name} has shape {p.shape}: the distribution axis, axis {axis - ndim}, must not be empty")
    return p_rows, q_rows, leading


def _rows_last(operand: Array, axis: int, ndim: int) -> Array:
    if operand.ndim < ndim:
        operand = operand[(np.newaxis,) * (ndim - operand.ndim)]
    return operand if axis == ndim - 1 else np.moveaxis(operand, axis, -1)


def align_labels(labels: Array, axis: int, ndim: int, leading: tuple[int, ...]) -> tuple[Array, tuple[int, ...]]:
    """A view of the labels with a last axis of length 1 for the distributions', and the shape to which all broadcast."""
    rows = labels[(np.newaxis,) * (ndim - 1 - labels.ndim)][..., np.newaxis]
    try:
        return rows, np.broadcast_shapes(rows.shape[:-1], leading)
    except ValueError:
        raise ValueError(
            f"labels has shape {labels.shape}: must have the shape {leading} of the rows, or broadcast with it"
        ) from None


# ---- options ----------------------------------------------------------------------------------------------------------


def check_options(request: Request) -> None:
    """Check the options, and give the request the numbers that the kernels compute with."""
    invalid = request.invalid
    if not (isinstance(invalid, str) and invalid in ("raise", "nan", "ignore")):
        raise ValueError(f"invalid={invalid!r}: must be 'raise', 'nan' or 'ignore'")
    request.any_sum = bool(request.normalize) or invalid == "ignore"
    request.clip = _number("eps", request.eps, lambda x: 0 <= x < 1, "a number with 0 <= eps < 1")
    if request.base is not None:
        request.log_base = _number("base", request.base, lambda x: 1 < x < math.inf, "None or a finite number above 1")
    if request.threads is not None:
        request.most_threads = check_threads(request.threads)
    if request.measure == "renyi_divergence":
        request.set_alpha(_number("alpha", request.alpha, lambda x: x > 0, "a positive number or inf"))
    _check_logits(request)
    _check_label_options(request)


def _number(name: str, value: Any, accepts: Callable[[float], bool], wanted: str) -> float:
    """The value as a float, if it is one that is accepted."""
    try:
        if isinstance(value, (str, bytes)):
            raise TypeError
        number = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name}={value!r}: must be {wanted}") from None
    except OverflowError:
        number = math.inf
    if not accepts(number):
        raise ValueError(f"{name}={value!r}: must be {wanted}")
    return number


def check_threads(threads: Any) -> int:
    """The number of threads."""
    try:
        number = operator.index(threads)
    except TypeError:
        raise TypeError(f"threads={threads!r}: must be None or a positive integer") from None
    if number < 1 or isinstance(threads, bool):
        raise ValueError(f"threads={threads!r}: must be None or a positive integer")
    return min(number, _kernels.MOST_THREADS)


def _check_logits(request: Request) -> None:
    flag = request.from_logits
    one = request.measure in ("entropy", "nll")
    if isinstance(flag, (bool, np.bool)):
        request.p_logits = request.q_logits = bool(flag)
    elif isinstance(flag, str) and flag in ("p", "q") and not one:
        request.p_logits, request.q_logits = flag == "p", flag == "q"
    else:
        error = ValueError if isinstance(flag, str) else TypeError
        raise error(
            f"from_logits={flag!r}: must be {'a bool' if one else 'False, True, ' + repr('p') + ' or ' + repr('q')}"
        )
    temperature = _number("temperature", request.temperature, lambda x: 0 < x < math.inf, "a positive finite number")
    if temperature == 1:
        return
    if not (request.p_logits or request.q_logits):
        raise ValueError(f"temperature={request.temperature!r}: must be 1 where no operand holds logits")
    request.scale = 1 / temperature
    if request.scale < math.inf:
        request.scale_low = float(1 / Fraction(temperature) - Fraction(request.scale))


def _check_label_options(request: Request) -> None:
    ignored = request.ignore_index
    if ignored is not None:
        if request.labels is None:
            raise ValueError(f"ignore_index={ignored!r}: only with labels")
        try:
            ignored = operator.index(ignored)
        except TypeError:
            raise TypeError(f"ignore_index={ignored!r}: must be None or an integer") from None
        if -(2**63) <= ignored < 2**63 - 1:  # The core reads labels beyond as 2^63 - 1, which is never a valid one.
            request.ignores, request.ignored = True, ignored
    wanted = "a number with 0 <= label_smoothing <= 1"
    request.smoothing = _number("label_smoothing", request.label_smoothing, lambda x: 0 <= x <= 1, wanted)


# ---- the result -------------------------------------------------------------------------------------------------------


def _evaluate(
    request: Request, operands: dict[str, Operand], rows: dict[str, Operand], axis: int, leading: tuple[int, ...]
) -> tuple[Array, tuple[int, int] | None]:
    """The result, without the axis that keepdims keeps, and the first invalid row with what is wrong with it."""
    out = request.out
    if out is None:
        results = [kind.result for name, (_, kind) in operands.items() if name != "labels"]
        dtype = results[0] if results[0] is results[-1] else _FLOAT64
        result = np.empty((len(_kernels.FIELDS), *leading) if request.measure == "compare" else leading, dtype)
        request.align(rows)
        return result, _kernels.evaluate(request, result)
    result = target = check_out(out, axis, leading, request.keepdims)
    if any(np.may_share_memory(result, x) for x, _ in operands.values()):
        target = np.empty(leading, result.dtype)  # A value must not replace an entry that is still to be read.
    if target.dtype in (_FLOAT32, _FLOAT64):
        request.align(rows)
        invalid = _kernels.evaluate(request, target)
    else:
        invalid = _evaluate_in_blocks(request, rows, target)
    if target is not result and not (invalid and request.invalid == "raise"):
        np.copyto(result, target)
    return result, invalid


def check_out(out: Any, axis: int, leading: tuple[int, ...], keepdims: bool) -> Array:
    """A view of `out` without the axis, counted from the end of the operands' axes, that keepdims keeps."""
    if not isinstance(out, np.ndarray) or isinstance(out, np.ma.MaskedArray):  # a mask would hide values
        raise TypeError(f"out is a {type(out).__name__}: must be an array")
    if out.dtype.kind != "f":
        raise TypeError(f"out has dtype {out.dtype}: must be a floating dtype")
    at = len(leading) + 1 + axis
    shape = (*leading[:at], 1, *leading[at:]) if keepdims else leading
    if out.shape != shape:
        raise ValueError(f"out has shape {out.shape}: must be {shape}")
    if not out.flags.writeable:
        raise ValueError("out is read-only: must be writeable")
    return out.squeeze(axis) if keepdims else out


def _evaluate_in_blocks(request: Request, rows: dict[str, Operand], result: Array) -> tuple[int, int] | None:
    """As `evaluate` of the kernels, into a dtype that they do not write: by way of float64, some rows at a time."""
    rows = {name: (np.broadcast_to(x, result.shape + x.shape[-1:]), kind) for name, (x, kind) in rows.items()}
    first = None
    row = 0
    for block in blocks(result.shape, _BLOCK):
        values = np.empty(result[block].shape)
        request.align({name: (x[block], kind) for name, (x, kind) in rows.items()})
        invalid = _kernels.evaluate(request, values)
        if invalid is not None and first is None:
            first = row + invalid[0], invalid[1]
        row += values.size
        with np.errstate(all="ignore"):  # A value that the dtype of `out` cannot hold is infinite or zero there.
            in_default_mode(np.copyto, result[block], values)
    return first


def blocks(shape: tuple[int, ...], most: int) -> Iterator[tuple[Any, ...]]:
    """Indices that make up a shape, in order, of at most so many entries each."""
    if not shape:
        yield (...,)
        return
    cut = next(i for i in range(len(shape)) if math.prod(shape[i + 1 :]) <= most)
    count = -(-shape[cut] // (most // max(1, math.prod(shape[cut + 1 :]))))
    for outer in np.ndindex(shape[:cut]):
        for i in range(count):
            yield (*outer, slice(i * shape[cut] // count, (i + 1) * shape[cut] // count))


# ---- invalid rows -----------------------------------------------------------------------------------------------------


def own_index(rows: Array, at: tuple[int, ...]) -> tuple[int, ...]:
    """The index of a row of the result in an aligned operand, which repeats its axes of length 1."""
    return tuple(0 if length == 1 else i for i, length in zip(at, rows.shape[:-1], strict=True))


def _invalid_label(labels: Array, rows: dict[str, Operand], at: tuple[int, ...]) -> InvalidRowError:
    own = own_index(rows["labels"][0], at)
    detail = f" = {rows['labels'][0][(*own, 0)]}: labels must be in 0..{rows['q'][0].shape[-1] - 1}"
    return InvalidRowError("labels", own[len(own) - labels.ndim :], "label", detail)


def invalid_row(
    request: Request, name: str, operand: Operand, rows: Array, at: tuple[int, ...], axis: int
) -> InvalidRowError:
    """What is wrong with the row of an operand, and of its aligned view, at the index `at` of the result."""
    array, kind = operand
    own = own_index(rows, at)
    row = rows[own]
    logits = request.p_logits if name == "p" else request.q_logits

    def error(column: int | slice, reason: str, detail: str) -> InvalidRowError:
        cut = len(own) + 1 + axis
        return InvalidRowError(name, (*own[:cut], column, *own[cut:])[rows.ndim - array.ndim :], reason, detail)

    total = 0.0
    for start in range(0, len(row), _SLICE):
        part = row[start : start + _SLICE]
        if kind is BFLOAT16_KIND:  # the upper halves of float32
            part = (part.astype(np.uint32) << 16).view(np.float32)
        bad = np.flatnonzero(~((logits | (part >= 0)) & (part < np.inf)))
        if len(bad):
            entry = part[bad[0]]
            numbers = "entries" if request.measure == "generalized_kl" else "probabilities"
            wanted = "logits must be finite or -inf" if logits else f"{numbers} must be finite and non-negative"
            reason = "negative" if np.isfinite(entry) else "not finite"
            return error(start + int(bad[0]), reason, f" = {entry!s}: {wanted}")
        with np.errstate(over="ignore"):
            total += 0 if logits else part.sum(dtype=float)
    if logits:
        return error(_ALL, "no finite logit", " has no finite entry: a row of logits must have one")
    hint = _NLL if request.measure == "cross_entropy" and name == "p" and _are_integers(array, kind) else ""
    wanted = f"have a positive sum{hint and f' ({hint})'}"
    if not request.any_sum:
        accepted = "normalize=True accepts counts and weights" + (hint and f"; {hint}")
        wanted = f"sum to 1 within {kind.tolerance:.2g} ({accepted})"
    return error(_ALL, "sum", f" sums to {total:.10g}: rows must {wanted}")
