"""Calls with every kind of input that users may have: numbered cases, and the judgement of what a call returns or raises.

A number gives the same case each time, with the same NumPy and the same optional packages. The memory between and around
the entries of an operand is poison: bytes of 0xFF, which are NaN in any floating dtype and -1 or the largest number in an
integer one.

    python tests/inputs.py 1234                  describes case 1234, and judges it
    python tests/inputs.py 1000 500 avx2         judges cases 1000 to 1499 on a tier; prints a report for test_inputs.py
"""

from __future__ import annotations

import array
import faulthandler
import json
import math
import random
import sys
import tempfile
import warnings
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import reference

import fastkl
from fastkl import _kernels
from fastkl.call import BFLOAT16

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Array = np.ndarray[Any, Any]

try:
    from ml_dtypes import bfloat16
except ImportError:
    BFLOATS = [BFLOAT16, BFLOAT16]
else:
    BFLOATS = [BFLOAT16, np.dtype(bfloat16)]

FLOATS = [np.dtype(char) for char in "ddffe"]
INTEGERS = [np.dtype(char) for char in "?bBhHiIlLqQ"]
REFUSED = [np.dtype(kind) for kind in ("c8", "c16", "O", "U4", "S4", "M8[s]", "m8[s]", "V8", [("a", "f8")], [("a", "u2")])]
if np.dtype("g") != np.dtype("d"):
    REFUSED.append(np.dtype("g"))
OUT = [np.dtype(kind) for kind in ("d", "f", "e", "g", ">f8", "<f8", ">f4", "<f4", ">f2", "<f2")]
MEASURES = list(reference.DEFINITIONS)

POISON = b"\xff"
MARGIN = 256  # bytes of poison before and after an operand


# ---- memory ----


class Layout(NamedTuple):
    """Where the entries of an array are in a buffer: enough to make a view of it."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    offset: int
    strides: tuple[int, ...]
    size: int  # of the buffer, in bytes

    def view(self, buffer: Any) -> Array:
        """The array in a buffer."""
        return np.ndarray(self.shape, self.dtype, buffer, self.offset, self.strides)


def layout(pick: random.Random, shape: tuple[int, ...], dtype: np.dtype[Any], repeated: Sequence[int] = ()) -> Layout:
    """A layout of any order of axes, steps, gaps, directions and alignment; a `repeated` axis has stride 0."""
    plain = pick.random() < 0.25
    order = list(range(len(shape)))[::-1]
    if not plain:
        pick.choice([order.reverse, lambda: pick.shuffle(order), lambda: None])()
    step = dtype.itemsize
    strides = [0] * len(shape)
    first, last = 0, dtype.itemsize
    if not plain and pick.random() < 0.3:
        step += pick.choice([1, 2, 3, 4, 8, 12])  # a field of records, packed or aligned
    for axis in order:
        if axis in repeated:
            continue
        strides[axis] = step if plain else step * pick.choice([1, 1, 1, 1, 2, 3]) * pick.choice([1, 1, -1])
        reach = strides[axis] * max(shape[axis] - 1, 0)
        first, last = first + min(reach, 0), last + max(reach, 0)
        step = abs(strides[axis]) * max(shape[axis], 1)
        if not plain and pick.random() < 0.2:
            step += pick.choice([1, 4, dtype.itemsize, 64])
    at = MARGIN + (0 if pick.random() < 0.6 else pick.randrange(1, 8))
    return Layout(shape, dtype, at - first, tuple(strides), at - first + last + MARGIN)


# ---- numbers ----


def weights(pick: random.Random, shape: tuple[int, ...], dtype: np.dtype[Any], normalize: bool) -> Array:
    """Rows along the last axis, in float64 and exact in the dtype. In some cases a part of the rows is invalid."""
    source = np.random.default_rng(pick.getrandbits(32))
    n = shape[-1]
    hot = np.arange(n) == source.integers(n, size=(*shape[:-1], 1))
    if dtype in INTEGERS:
        most = 1 if dtype.kind == "b" else int(np.iinfo(dtype).max)
        rows = hot.astype(dtype)
        if normalize:
            drawn = source.integers(0, pick.choice([1, min(most, 20), most]), shape, np.uint64, endpoint=True)
            rows = np.where(hot, 1, drawn.astype(dtype)).astype(dtype)
    else:
        rows = source.random(shape) ** pick.choice([1, 1, 5, 40])
        rows[source.random(shape) < pick.choice([0, 0, 0.1, 0.9])] = pick.choice([0, 0, -0.0, 1e-310, 1e-40, 1e-7])
        rows = np.where(hot, rows + 0.1, rows)
        rows /= rows.sum(axis=-1, keepdims=True)
        if normalize:
            rows *= 10 ** source.uniform(-3, 3, (*shape[:-1], 1))
        rows = rounded(rows, dtype)
    if pick.random() < 0.15:
        bad = source.random(shape[:-1]) < pick.choice([0.05, 0.3, 1])
        entry = hot & bad[..., np.newaxis]
        if dtype in INTEGERS:
            rows = np.where(entry, pick.choice([0, -3]) if dtype.kind == "i" else 0, rows).astype(dtype)
        else:
            rows = np.where(entry, pick.choice([-0.5, np.nan, np.inf, -np.inf, 0, 3]), rows)
    return rows.astype(float)


def rounded(numbers: Array, dtype: np.dtype[Any]) -> Array:
    """The numbers rounded to the dtype, in float64."""
    if dtype not in BFLOATS:
        return numbers.astype(dtype).astype(float)
    return (numbers.astype(np.float32).view(np.uint32) & 0xFFFF0000).view(np.float32).astype(float)


def encoded(numbers: Array, dtype: np.dtype[Any]) -> Array:
    """An array of the dtype with these numbers, which the dtype can hold."""
    if dtype not in BFLOATS:
        with np.errstate(invalid="ignore"):  # the largest integers, which float64 rounds up
            return clipped(numbers, dtype).astype(dtype) if dtype.kind in "iu" else numbers.astype(dtype)
    return (numbers.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16).view(dtype)


def clipped(numbers: Array, dtype: np.dtype[Any]) -> Array:
    """The numbers, or the largest float64 that the dtype can hold where that is less."""
    return np.minimum(numbers, np.nextafter(float(np.iinfo(dtype).max), 0))


class Rows(NamedTuple):
    """The numbers of an operand, and what its dtype means for them."""

    numbers: Array
    tolerance: float
    single: bool

    @classmethod
    def of(cls, numbers: Array, dtype: np.dtype[Any]) -> Rows:
        """The rows of these numbers in that dtype."""
        eps = 2.0**-7 if dtype in BFLOATS else np.finfo(dtype if dtype.kind == "f" else float).eps
        return cls(numbers, math.sqrt(eps), dtype in BFLOATS or dtype.char in "fe")

    def faults(self, axis: int, any_sum: bool, eps: float) -> Array:
        """For every row "", "entry" or "sum", as an array without `axis`."""
        rows = np.moveaxis(self.numbers, axis, -1)
        entries = np.all((rows >= 0) & (rows < np.inf), axis=-1)
        with np.errstate(invalid="ignore"):
            sums = rows.sum(axis=-1)
        far = np.zeros_like(entries) if any_sum else ~(np.abs(sums - 1) <= self.tolerance)
        empty = ~np.any(np.maximum(rows, eps) > 0, axis=-1)
        return np.where(~entries, "entry", np.where(far | empty, "sum", ""))


# ---- containers ----


class Exporter:
    """An object that makes an array of itself."""

    def __init__(self, values: Array) -> None:
        self.values = values

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return self.values if dtype is None else self.values.astype(dtype)


class Interface:
    """An object that names the memory of an array."""

    def __init__(self, values: Array) -> None:
        self.values, self.__array_interface__ = values, values.__array_interface__


class Subclass(np.ndarray):
    """An array whose methods and indices do not behave as NumPy's."""

    def __getitem__(self, index: Any) -> Any:
        raise AssertionError("an element was read")

    __array_priority__ = 1000.0

    def __array_ufunc__(self, *_: Any, **__: Any) -> Any:
        return NotImplemented


def mapped(values: Array, pick: random.Random) -> Array:
    """The same values in a file that exists as long as the map."""
    with tempfile.TemporaryFile() as file:
        offset = pick.choice([0, 64, 3])
        file.write(POISON * offset + values.tobytes("A") + POISON * MARGIN)
        file.flush()
        order = "F" if values.flags.f_contiguous and not values.flags.c_contiguous else "C"
        return np.memmap(file, values.dtype, pick.choice(["r", "c"]), offset, values.shape, order)


def matrix(values: Array) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return np.asmatrix(values)


# By name: a function from an array to the container, and one that says which arrays it can hold. A list loses all dtypes
# except those of Python's numbers.
CONTAINERS: dict[str, tuple[Callable[[Array, random.Random], Any], Callable[[Array], bool]]] = {
    "array": (lambda a, _: a, lambda a: True),
    "list": (lambda a, _: a.tolist(), lambda a: a.size > 0 and a.dtype.char in "d?q"),
    "tuple": (lambda a, _: tuple(map(tuple, a.tolist())), lambda a: a.size > 0 and a.dtype.char in "d?q" and a.ndim == 2),
    "list of arrays": (
        lambda a, _: list(a),
        lambda a: a.size > 0 and a.ndim > 1 and a.dtype.isnative and a.dtype.kind != "V",
    ),
    "array.array": (
        lambda a, _: array.array(a.dtype.char, a.tolist()),
        lambda a: a.ndim == 1 and a.dtype.char in "dfbBhHiIqQ",
    ),
    "memoryview": (lambda a, _: memoryview(a), lambda a: a.size > 0 and a.dtype.isbuiltin == 1),
    "__array__": (lambda a, _: Exporter(a), lambda a: True),
    "__array_interface__": (lambda a, _: Interface(a), lambda a: a.dtype.kind != "V"),
    "subclass": (lambda a, _: a.view(Subclass), lambda a: True),
    "matrix": (lambda a, _: matrix(a), lambda a: a.ndim == 2),
    "masked array without a mask": (lambda a, _: np.ma.array(a, copy=False), lambda a: a.dtype.kind != "V"),
    "masked array with an empty mask": (lambda a, _: np.ma.array(a, mask=False, copy=False), lambda a: a.dtype.kind != "V"),
    "memmap": (mapped, lambda a: a.size > 0),
}


class Operand(NamedTuple):
    """An operand as the user passes it, and its numbers."""

    passed: Any
    rows: Rows
    plain: Array  # the same numbers in the same dtype, in C order
    like_plain: bool  # whether `passed` has its entries in the same order and byte order as `plain`
    buffer: bytearray
    how: str


def operand(pick: random.Random, shape: tuple[int, ...], axis: int, normalize: bool) -> Operand:
    dtype = pick.choice(pick.choice([FLOATS, FLOATS, INTEGERS, BFLOATS]))
    repeated = [i for i in range(len(shape)) if pick.random() < 0.08]
    if axis in repeated and not normalize and dtype in INTEGERS:
        repeated.remove(axis)
    lengths = [1 if i in repeated and length else length for i, length in enumerate(shape)]
    front = [*lengths[:axis], *lengths[axis + 1 :]]
    numbers = np.moveaxis(weights(pick, (*front, lengths[axis]), dtype, normalize), -1, axis)
    if axis in repeated and not normalize:
        numbers = rounded(numbers / shape[axis], dtype)
    numbers = np.broadcast_to(numbers, shape)
    plain = np.ascontiguousarray(encoded(np.ascontiguousarray(numbers), dtype))
    numbers = decoded(plain)

    kept = dtype.newbyteorder("S") if pick.random() < 0.2 and dtype is not BFLOAT16 else dtype
    where = layout(pick, shape, kept, repeated)
    buffer = bytearray(POISON * where.size)
    view = where.view(buffer)
    if plain.size:
        view[tuple(slice(1) if i in repeated else slice(None) for i in range(len(shape)))] = plain[
            tuple(slice(1) if i in repeated else slice(None) for i in range(len(shape)))
        ]
    view.flags.writeable = pick.random() < 0.7
    name = "array" if pick.random() < 0.5 else pick.choice(list(CONTAINERS))
    if not CONTAINERS[name][1](view):
        name = "array"
    writeable = "writeable" if view.flags.writeable else "read-only"
    how = f"{name}, {kept.str if kept.names is None and kept.kind != 'V' else 'bfloat16 ' + kept.str} {shape}"
    how += f", strides {where.strides}, address % 16 = {view.__array_interface__['data'][0] % 16}, {writeable}"
    like = kept == dtype and (view.flags.c_contiguous or name in ("list", "tuple", "list of arrays", "array.array"))
    like = like and (name != "memmap" or view.flags.c_contiguous)
    return Operand(CONTAINERS[name][0](view, pick), Rows.of(numbers, dtype), plain, like, buffer, how)


def decoded(plain: Array) -> Array:
    """The numbers of an array, in float64."""
    if plain.dtype not in BFLOATS:
        return plain.astype(float)
    return (plain.view(np.uint16).astype(np.uint32) << 16).view(np.float32).astype(float)


# ---- cases ----


class Case(NamedTuple):
    """A call, and what must hold for its result."""

    number: int
    measure: str
    operands: tuple[Operand, ...]
    keywords: dict[str, Any]
    axis: int  # counted from the end
    result: tuple[int, ...]  # its shape
    out: tuple[Layout, bytearray] | None
    refused: str | None  # the start of the message, if something else than a row is invalid

    def call(self, *operands: Any, **other: Any) -> Any:
        """The result of the call, in which a warning is an error."""
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return getattr(fastkl, self.measure)(*operands, **{**self.keywords, **other})

    def __str__(self) -> str:
        keywords = ", ".join(
            f"{name}={value if name != 'out' else '...'!r}" for name, value in self.keywords.items() if value is not None
        )
        lines = [f"case {self.number}: fastkl.{self.measure}({', '.join('pq'[: len(self.operands)])}, {keywords})"]
        lines += [f"    {name}: {each.how}" for name, each in zip("pq", self.operands, strict=False)]
        if self.out is not None:
            lines.append(f"    out: {self.out[0]}")
        if self.refused is not None:
            lines.append(f"    to be refused: {self.refused}")
        return "\n".join(lines)


LENGTHS = [1, 2, 3, 5, 8, 17, 31, 33, 64, 65, 100, 257, 300]
ROWS = [1, 1, 2, 3, 3, 4, 5, 7]


def case(number: int) -> Case:
    """The case of this number."""
    pick = random.Random(number)
    measure = pick.choice(MEASURES)
    ndim = pick.choice([1, 2, 2, 2, 3, 3, 4])
    shape = [pick.choice(ROWS) for _ in range(ndim)]
    axis = pick.randrange(ndim) - ndim
    shape[axis] = pick.choice(LENGTHS)
    kind = pick.random()
    if kind < 0.02:  # wider than a chunk or a piece
        shape = [min(length, 2) for length in shape]
        shape[axis] = pick.choice([1025, 2100, 65_537, 66_000])
    elif kind < 0.1 and ndim > 1:  # more rows than any tile
        shape = [min(length, 3) for length in shape]
        shape[axis] = pick.choice([1, 2, 3, 9, 20])
        shape[(axis + 1) % -ndim] = pick.choice([40, 130, 600])
        if (axis + 1) % -ndim == axis:
            shape[axis] = 3
    elif kind < 0.13 and ndim > 1:
        shape[pick.choice([i for i in range(-ndim, 0) if i != axis])] = 0
    normalize = pick.random() < 0.5
    keywords: dict[str, Any] = {"axis": axis + (ndim if pick.random() < 0.5 else 0), "normalize": normalize}
    keywords["invalid"] = pick.choice(["raise", "raise", "nan", "ignore"])
    keywords["keepdims"] = pick.random() < 0.3
    keywords["base"] = pick.choice([None, None, 2, 10.0, math.pi, 1.5])
    if measure in ("cross_entropy", "kl_divergence"):
        keywords["eps"] = pick.choice([0.0, 0.0, 1e-6, 0.01])
    keywords["threads"] = pick.choice([None, 1, 2, 3])

    shapes = [tuple(shape)] * (1 if measure == "entropy" else 2)
    if len(shapes) == 2 and pick.random() < 0.4:
        narrow = [1 if i != axis and pick.random() < 0.6 else shape[i] for i in range(-ndim, 0)]
        while len(narrow) > -axis and narrow[0] == 1 and pick.random() < 0.5:
            del narrow[0]
        shapes[pick.randrange(2)] = tuple(narrow)
    if any(len(s) < ndim for s in shapes):
        keywords["axis"] = axis + (ndim if keywords["axis"] >= 0 else 0)
    operands = [operand(pick, s, len(s) + axis, normalize) for s in shapes]
    if len(operands) == 2 and shapes[0] == shapes[1] and pick.random() < 0.1:
        operands[1] = operands[0]
    if pick.random() < 0.2 and len(operands) == 2:  # the divergence of equal rows is exactly 0
        keywords["eps" if "eps" in keywords else "base"] = 0.0 if "eps" in keywords else None

    front = np.broadcast_shapes(*((*s[:axis], *(s[len(s) + axis + 1 :])) if axis != -1 else s[:-1] for s in shapes))
    at = len(front) + axis + 1
    result = (*front[:at], 1, *front[at:]) if keywords["keepdims"] else front
    out = None
    if pick.random() < 0.4:
        where = layout(pick, result, pick.choice(OUT))
        out = where, bytearray(POISON * where.size)
        keywords["out"] = where.view(out[1])
    made = Case(number, measure, tuple(operands), keywords, axis, result, out, None)
    return spoiled(made, pick) if pick.random() < 0.08 else made


def spoiled(good: Case, pick: random.Random) -> Case:
    """The same case with an argument that is wrong, other than a row."""
    i = pick.randrange(len(good.operands))
    own, name = good.operands[i], "pq"[i]
    how = pick.choice(
        ["dtype", "mask", "ragged", "number", "length", "axis", "empty", "shape", "out's shape", "out's dtype"]
    )
    keywords, passed = dict(good.keywords), own.passed
    message = f"{name} "
    if how == "dtype":
        passed = np.zeros(own.plain.shape, pick.choice(REFUSED))
        message = f"{name} has dtype {passed.dtype}: must be float64"
    elif how == "mask" and own.plain.size and own.plain.dtype.kind != "V":
        passed = np.ma.array(own.plain, mask=np.arange(own.plain.size).reshape(own.plain.shape) == own.plain.size - 1)
        message = f"{name} has masked entries: fill them, or leave them out"
    elif how == "ragged":
        passed = [[0.5, 0.5], [1.0]]
        message = f"{name} is not an array of numbers: "
    elif how == "number":
        passed = pick.choice([0.5, np.array(1), np.float32(1), True])
        message = f"{name} is the number "
    elif how == "length" and len(good.operands) == 2:
        passed = np.ones([length + 1 for length in own.plain.shape])
        message = "p has shape "
    elif how == "shape" and len(good.operands) == 2 and own.plain.ndim > 1:
        passed = np.ones([n if i == own.plain.ndim + good.axis else n + 9 for i, n in enumerate(own.plain.shape)])
        other = np.ones([n if i == own.plain.ndim + good.axis else n + 2 for i, n in enumerate(own.plain.shape)])
        pair = [own._replace(passed=passed), own._replace(passed=other)]
        return good._replace(operands=tuple(pair), keywords={**keywords, "axis": good.axis}, refused="p has shape ")
    elif how == "empty" and len(good.operands) == 1:
        passed = own.plain[..., :0].reshape((0,) * own.plain.ndim)
        message = f"p has shape {passed.shape}: the distribution axis"
    elif how == "out's dtype":
        keywords["out"] = np.zeros(good.result, pick.choice(["i8", "c16", "?", "O", "U3"]))
        message = f"out has dtype {keywords['out'].dtype}: must be a floating dtype"
    elif how == "out":
        keywords["out"] = np.zeros(good.result)
        keywords["out"].flags.writeable = False
        message = "out is read-only: must be writeable"
    elif how == "out's shape":
        keywords["out"] = np.zeros((*good.result, 1))
        message = f"out has shape {(*good.result, 1)}: must be "
    else:
        keywords["axis"] = pick.choice([9, -9, None, 1.0, "0"])
        message = f"axis={keywords['axis']!r}: must be "
    changed = list(good.operands)
    changed[i] = own._replace(passed=passed)
    return good._replace(operands=tuple(changed), keywords=keywords, refused=message)


# ---- judgements ----


def allowed(measure: str, exact: Array, dtype: np.dtype[Any], unit: float) -> Array:
    """The largest difference of two right results, one of them exact to the eps of `dtype`, the other to that of float64.

    Each has an error of at most BOUND eps (|x| + OFFSET) in nats. One more eps is for the division by the unit, and because
    x is a computed value. The smallest numbers of a dtype have few digits, as have distances whose squares float64 cannot
    hold.
    """
    kind = np.finfo(dtype)
    eps = max(float(kind.eps), 2.0**-52) + 2.0**-52
    free = float(kind.smallest_subnormal) + (1e-279 if measure == "js_distance" else 0)
    return (reference.BOUND[measure] + 1) * eps * (np.abs(exact) + reference.OFFSET[measure] / abs(unit)) + free


def agree(measure: str, values: Array, exact: Array, dtype: np.dtype[Any], unit: float) -> bool:
    with np.errstate(invalid="ignore"):
        near = np.abs(values - exact) <= allowed(measure, exact, dtype, unit)
    return bool(np.all(near | (values == exact) | (np.isnan(values) & np.isnan(exact))))


def outcome(call: Callable[[], Any]) -> Any:
    """The result or the error of a call."""
    try:
        return call()
    except (TypeError, ValueError) as error:
        return error


def judge(this: Case) -> str:
    """What is wrong with the result or the error of a case; "" if all is right."""
    passed = [each.passed for each in this.operands]
    before = [bytes(each.buffer) for each in this.operands]
    got = outcome(lambda: this.call(*passed))
    if [bytes(each.buffer) for each in this.operands] != before:
        return "an operand was written to"
    if this.refused is not None:
        right = isinstance(got, Exception) and str(got).startswith(this.refused)
        return "" if right else f"gave {got!r}"
    return wrong_error(this, got) if isinstance(got, Exception) else wrong_result(this, got)


def faults(this: Case) -> Array:
    """For every row of the result "", or an operand and "entry" or "sum": entries before sums, p before q."""
    any_sum = this.keywords["normalize"] or this.keywords["invalid"] == "ignore"
    eps = [0.0, this.keywords.get("eps", 0.0)]
    problems: Any = np.array("")
    own = [each.rows.faults(this.axis, any_sum, own_eps) for each, own_eps in zip(this.operands, eps, strict=False)]
    for fault in "sum", "entry":
        for name, faulty in reversed(list(zip("pq", own, strict=False))):
            problems = np.where(faulty == fault, f"{name} {fault}", problems)
    return np.broadcast_to(problems, front_of(this))


def front_of(this: Case) -> tuple[int, ...]:
    """The shape of the result without the axis that keepdims keeps."""
    at = len(this.result) + this.axis
    return (*this.result[:at], *this.result[at + 1 :]) if this.keywords["keepdims"] else this.result


def wrong_error(this: Case, error: Exception) -> str:
    """What is wrong with an error."""
    problems = faults(this)
    invalid = np.argwhere(problems != "")
    if not len(invalid) or this.keywords["invalid"] != "raise" or not isinstance(error, fastkl.InvalidRowError):
        return f"refused: {error!r}"
    first = str(problems[tuple(invalid[0])])
    name, what = first.split()
    begins = str(error).startswith((f"{name}[", f"{name} "))
    if not begins or ("must be finite" in str(error)) != (what == "entry"):
        return f"refused for another reason than {first}: {error}"
    fields, expected = (error.operand, error.index, error.reason), (name, *place(this, name, what, invalid[0]))
    if fields != expected:
        return f"has the fields {fields}, not {expected}"
    plain = outcome(lambda: this.call(*(each.plain for each in this.operands), out=None))
    same = type(plain) is type(error) and plain.args == error.args
    return "" if same else f"refused with {error!r}, as plain arrays with {plain!r}"


def place(this: Case, name: str, what: str, row: Array) -> tuple[tuple[Any, ...], str]:
    """The index and the reason of the error for a row of the result."""
    numbers = this.operands["pq".index(name)].rows.numbers
    cut = numbers.ndim + this.axis
    lengths = [*numbers.shape[:cut], *numbers.shape[cut + 1 :]]
    own = [0 if n == 1 else int(i) for n, i in zip(lengths, row[len(row) - len(lengths) :], strict=True)]
    column: Any = slice(None)
    reason = "sum"
    if what == "entry":
        entries = numbers[(*own[:cut], column, *own[cut:])]
        column = int(np.flatnonzero(~((entries >= 0) & (entries < np.inf)))[0])
        reason = "negative" if np.isfinite(entries[column]) else "not finite"
    index = (*own[:cut], column, *own[cut:])
    return index[:cut] if cut == len(own) and what == "sum" else index, reason


def wrong_result(this: Case, got: Any) -> str:
    """What is wrong with a result."""
    problems = faults(this)
    invalid = this.keywords["invalid"]
    if invalid == "raise" and (problems != "").any():
        return f"gave {got!r} where {problems[problems != ''][0]} is invalid"
    single = all(each.rows.single for each in this.operands)
    own = dtype = np.dtype("f4" if single else "f8")
    if this.out is not None:
        where, buffer = this.out
        if got is not this.keywords["out"]:
            return "returned something else than out"
        dtype = where.dtype.newbyteorder("=")
        got = got.astype(dtype)
        whole = where._replace(dtype=np.dtype(f"V{where.dtype.itemsize}")).view(buffer)
        whole[...] = np.void(POISON * where.dtype.itemsize)
        if buffer != POISON * where.size:
            return "wrote beside out"
    elif type(got) is not (np.ndarray if this.result else dtype.type):
        return f"is a {type(got)}"
    if got.shape != this.result or got.dtype != dtype:
        return f"has dtype {got.dtype} and shape {got.shape}, not {dtype} and {this.result}"

    with np.errstate(all="ignore"):
        got = np.asarray(got).reshape(front_of(this))
        rows = [np.moveaxis(each.rows.numbers, this.axis, -1).copy() for each in this.operands]
        doubles = {name: this.keywords.get(name) for name in ("base", "eps") if this.keywords.get(name)}
        exact = np.asarray(getattr(fastkl, this.measure)(*rows, normalize=True, invalid="nan", **doubles))
        exact = np.where(problems != "", np.nan, exact)
        wide = got.astype(float)
        if invalid == "ignore":  # an invalid row gives any value
            wide = np.where(problems != "", np.nan, wide)
    base = this.keywords["base"]
    unit = 1.0 if base is None else math.log(base)
    coarser = max(own, dtype, key=lambda kind: np.finfo(kind).eps)
    if not agree(this.measure, wide, exact, coarser, unit):
        return f"is {wide}, from float64 copies {exact}"
    if all(each.like_plain for each in this.operands):
        plain = this.call(
            *(each.plain for each in this.operands), out=None if this.out is None else np.zeros(this.result, dtype)
        )
        plain = np.where(problems != "", np.nan, np.asarray(plain).reshape(front_of(this)).astype(float))
        if not np.array_equal(wide, plain, equal_nan=True):
            return f"is {wide}, of plain arrays {plain}"
    return "" if this.number % 8 else unlike_the_definition(this, wide, coarser, unit)


def unlike_the_definition(this: Case, values: Array, dtype: np.dtype[Any], unit: float) -> str:
    """What is wrong with the first valid rows, by the definitions of tests/reference.py."""
    rows = [np.moveaxis(each.rows.numbers, this.axis, -1) for each in this.operands]
    if len(rows) == 2:
        rows[1] = np.maximum(rows[1], this.keywords.get("eps", 0))
    rows = [each.reshape(-1, each.shape[-1]) for each in np.broadcast_arrays(*rows)]
    some = np.flatnonzero(~np.isnan(values.ravel()))[:4]
    if not len(some):
        return ""
    exact = reference.evaluate(this.measure, *(each[some] for each in rows)).high
    exact = exact / (math.sqrt(unit) if this.measure == "js_distance" else unit)
    right = agree(this.measure, values.ravel()[some], exact, dtype, unit)
    return "" if right else f"is {values.ravel()[some]}, by definition {exact}"


def main(first: int, count: int = 1, tier: str = "") -> None:
    """Judge the cases. Each is printed on a line of its own before it runs: after a crash, the last one is the cause."""
    faulthandler.enable()
    if tier:
        _kernels.use_tier(tier)
    judged, refused, raised = 0, 0, 0
    failures = []
    for number in range(first, first + count):
        print(number, flush=True)
        this = case(number)
        if count == 1:
            print(this)
        wrong = judge(this)
        judged += 1
        refused += this.refused is not None
        raised += this.refused is None and this.keywords["invalid"] == "raise" and bool((faults(this) != "").any())
        if wrong:
            failures.append(f"{this}\n    {wrong}")
    print(json.dumps({"judged": judged, "refused": refused, "raised": raised, "failures": failures}))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:3]), *sys.argv[3:4])
