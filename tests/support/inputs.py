"""Calls with every kind of input that users may have: numbered cases, and the judgement of what a call returns or raises.

A number gives the same case each time, with the same NumPy and the same optional packages. The memory between and around
the entries of an operand is poison: bytes of 0xFF, which are NaN in any floating dtype and -1 or the largest number in an
integer one.

    python -m support.inputs 1234                  describes case 1234, and judges it
    python -m support.inputs 1000 500 avx2         judges cases 1000 to 1499 on a tier; prints a report for test_inputs.py
"""

import array
import faulthandler
import json
import math
import random
import sys
import tempfile
import warnings
from typing import Any, NamedTuple

import numpy as np

import fastkl
from fastkl import _kernels
from fastkl.call import BFLOAT16
from support import reference
from support.measures import ONE_EACH, accepted, function

Array = np.ndarray[Any, Any]
Shape = tuple[int, ...]

try:
    from ml_dtypes import bfloat16
except ImportError:
    BFLOATS = [BFLOAT16, BFLOAT16]
else:
    BFLOATS = [BFLOAT16, np.dtype(bfloat16)]

FLOATS = [np.dtype(char) for char in "ddffe"]
INTEGERS = [np.dtype(char) for char in "?bBhHiIlLqQ"]
OUT = [np.dtype(kind) for kind in ("d", "f", "e", "g", ">f8", "<f8", ">f4", "<f4", ">f2", "<f2")]

POISON = b"\xff"
MARGIN = 256  # bytes of poison before and after an operand


class Layout(NamedTuple):
    """Where the entries of an array are in a buffer: enough to make a view of it."""

    shape: Shape
    dtype: np.dtype[Any]
    offset: int
    strides: Shape
    size: int  # of the buffer, in bytes

    def view(self, buffer):
        """The array in a buffer."""
        return np.ndarray(self.shape, self.dtype, buffer, self.offset, self.strides)

    def fill(self, buffer, byte):
        """Fill the entries in a buffer with a byte."""
        raw = np.dtype(f"V{self.dtype.itemsize}")
        self._replace(dtype=raw).view(buffer)[...] = np.void(byte * raw.itemsize)


def layout(pick, shape, dtype, repeated=(), margin=MARGIN):
    """A layout of any order of axes, steps, gaps, directions and alignment; a `repeated` axis has stride 0.

    An axis of length 1 may have a stride with which addresses would overflow.
    """
    plain = pick.random() < 0.25
    order = list(range(len(shape)))[::-1]
    step = dtype.itemsize
    strides = [0] * len(shape)
    first, last = 0, step
    if not plain:
        pick.choice([order.reverse, lambda: pick.shuffle(order), lambda: None])()
        step += pick.choice([0] * 14 + [1, 2, 3, 4, 8, 12])  # a field of records, packed or aligned
    for axis in order:
        if axis in repeated:
            continue
        strides[axis] = step if plain else step * pick.choice([1, 1, 1, 1, 2, 3]) * pick.choice([1, 1, -1])
        reach = strides[axis] * max(shape[axis] - 1, 0)
        first, last = first + min(reach, 0), last + max(reach, 0)
        step = abs(strides[axis]) * max(shape[axis], 1)
        if not plain and pick.random() < 0.2:
            step += pick.choice([1, 4, dtype.itemsize, 64])
    for axis, length in enumerate(shape):
        if length == 1 and pick.random() < 0.3:  # NumPy accepts any stride, because no other entry stands there
            strides[axis] = pick.choice([1, 0, 2**60, -(2**60), 2**62])
    at = margin + (0 if pick.random() < 0.6 else pick.randrange(1, 8))
    return Layout(shape, dtype, at - first, tuple(strides), at - first + last + margin)


def without(shape, axis):
    """The shape without an axis, which is counted from the end."""
    return shape[: len(shape) + axis] + shape[len(shape) + axis + 1 :]


def weights(pick, shape, dtype, normalize):
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
        rows = decoded(encoded(rows, dtype))
    if pick.random() < 0.15:
        bad = source.random(shape[:-1]) < pick.choice([0.05, 0.3, 1])
        entry = hot & bad[..., np.newaxis]
        if dtype in INTEGERS:
            rows = np.where(entry, pick.choice([0, -3]) if dtype.kind == "i" else 0, rows).astype(dtype)
        else:
            rows = np.where(entry, pick.choice([-0.5, np.nan, np.inf, -np.inf, 0, 3]), rows)
    return rows.astype(float)


def encoded(numbers, dtype):
    """An array of the dtype with these numbers, which it can hold, except for integers that float64 rounded up."""
    if dtype in BFLOATS:
        return (numbers.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16).view(dtype)
    most = np.nextafter(float(np.iinfo(dtype).max), 0) if dtype.kind in "iu" else np.inf
    return np.where(numbers > most, most, numbers).astype(dtype)


def decoded(plain):
    """The numbers of an array, in float64."""
    if plain.dtype not in BFLOATS:
        return plain.astype(float)
    return (plain.view(np.uint16).astype(np.uint32) << 16).view(np.float32).astype(float)


class Exporter:
    """An object that makes an array of itself."""

    def __init__(self, values):
        self.values = values

    def __array__(self, dtype=None, copy=None):
        return self.values if dtype is None else self.values.astype(dtype)


class Interface:
    """An object that names the memory of an array."""

    def __init__(self, values):
        self.values, self.__array_interface__ = values, values.__array_interface__


class Subclass(np.ndarray):
    """An array whose methods and indices do not behave as NumPy's."""

    def __getitem__(self, index):
        raise AssertionError("an element was read")

    __array_priority__ = 1000.0

    def __array_ufunc__(self, *_, **__):
        return NotImplemented


def mapped(values):
    """The same values in a file that exists as long as the map."""
    pick = random.Random(values.size)
    with tempfile.TemporaryFile() as file:
        offset = pick.choice([0, 64, 3])
        file.write(POISON * offset + values.tobytes("A") + POISON * MARGIN)
        file.flush()
        order = "F" if values.flags.f_contiguous and not values.flags.c_contiguous else "C"
        return np.memmap(file, values.dtype, pick.choice(["r", "c"]), offset, values.shape, order)


# By name: a function from an array to the container, and one that says which arrays it can hold. A list loses all dtypes
# except those of Python's numbers.
CONTAINERS = {
    "array": (lambda a: a, lambda a: True),
    "list": (np.ndarray.tolist, lambda a: a.size > 0 and a.dtype.char in "d?q"),
    "tuple": (lambda a: tuple(map(tuple, a.tolist())), lambda a: a.size > 0 and a.dtype.char in "d?q" and a.ndim == 2),
    "list of arrays": (list, lambda a: a.size > 0 and a.ndim > 1 and a.dtype.isbuiltin == 1),
    "array.array": (lambda a: array.array(a.dtype.char, a), lambda a: a.ndim == 1 and a.dtype.char in "dfbBhHiIqQ"),
    "memoryview": (memoryview, lambda a: a.size > 0 and a.dtype.isbuiltin == 1),
    "__array__": (Exporter, lambda a: True),
    "__array_interface__": (Interface, lambda a: a.dtype.kind != "V"),
    "subclass": (lambda a: a.view(Subclass), lambda a: True),
    "matrix": (lambda a: a.view(np.matrix), lambda a: a.ndim == 2),
    "masked array without a mask": (lambda a: np.ma.array(a, copy=False), lambda a: a.dtype.kind != "V"),
    "masked array with an empty mask": (lambda a: np.ma.array(a, mask=False, copy=False), lambda a: a.dtype.kind != "V"),
    "memmap": (mapped, lambda a: a.size > 0),
}


class Operand(NamedTuple):
    """An operand as the user passes it, and its numbers."""

    passed: Any
    numbers: Array  # in float64
    dtype: np.dtype[Any]
    plain: Array  # the same numbers in the same dtype, in C order
    like_plain: bool  # whether `passed` has its entries in the same order and byte order as `plain`
    buffer: bytearray
    how: str

    def faults(self, axis, any_sum, clip, zeros):
        """For every row "", "entry" or "sum", as an array without `axis`. With `zeros`, a row of these is valid."""
        rows = np.moveaxis(self.numbers, axis, -1)
        entries = np.all((rows >= 0) & (rows < np.inf), axis=-1)
        eps = 2.0**-7 if self.dtype in BFLOATS else np.finfo(self.dtype if self.dtype.kind == "f" else float).eps
        with np.errstate(invalid="ignore"):
            far = np.zeros_like(entries) if any_sum else ~(np.abs(rows.sum(axis=-1) - 1) <= math.sqrt(eps))
        empty = ~np.any(np.maximum(rows, clip) > 0, axis=-1) & (not zeros)
        return np.where(~entries, "entry", np.where(far | empty, "sum", ""))


def operand(pick, shape, axis, normalize):
    dtype = pick.choice(pick.choice([FLOATS, FLOATS, INTEGERS, BFLOATS]))
    repeated = [i for i in range(len(shape)) if pick.random() < 0.08]
    if axis in repeated and not normalize and dtype in INTEGERS:
        repeated.remove(axis)
    lengths = tuple(1 if i in repeated and length else length for i, length in enumerate(shape))
    rows = weights(pick, (*without(lengths, axis - len(shape)), lengths[axis]), dtype, normalize)
    numbers = np.moveaxis(rows, -1, axis)
    if axis in repeated and not normalize:
        numbers = decoded(encoded(numbers / shape[axis], dtype))
    plain = np.ascontiguousarray(encoded(np.broadcast_to(numbers, shape), dtype))
    kept = dtype.newbyteorder("S") if pick.random() < 0.2 and dtype is not BFLOAT16 else dtype
    where = layout(pick, shape, kept, repeated)
    buffer = bytearray(POISON * where.size)
    view = where.view(buffer)
    once = tuple(slice(1) if i in repeated else slice(None) for i in range(len(shape)))
    view[once] = plain[once]
    view.flags.writeable = pick.random() < 0.7
    name = pick.choice([name for name, (_, holds) in CONTAINERS.items() if holds(view)] + ["array"] * 8)
    writeable = "writeable" if view.flags.writeable else "read-only"
    how = f"{name}, {kept.str if kept.names is None and kept.kind != 'V' else 'bfloat16 ' + kept.str} {shape}"
    how += f", strides {where.strides}, address % 16 = {view.__array_interface__['data'][0] % 16}, {writeable}"
    like = kept == dtype and (view.flags.c_contiguous or name in ("list", "tuple", "list of arrays", "array.array"))
    return Operand(CONTAINERS[name][0](view), decoded(plain), dtype, plain, like, buffer, how)


class Case(NamedTuple):
    """A call, and what must hold for its result."""

    number: int
    measure: str
    operands: tuple[Operand, ...]
    keywords: dict[str, Any]
    axis: int  # counted from the end
    front: Shape  # the shape of the rows
    result: Shape  # the shape of the result, in which keepdims may keep the axis
    out: tuple[Layout, bytearray] | None

    def call(self, *operands, **other):
        """The result of the call, in which a warning is an error."""
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return self.function(*operands, **{**self.keywords, **other})

    @property
    def definition(self):
        """Of the measure."""
        return reference.DEFINITIONS[self.measure]

    @property
    def function(self):
        """What is called."""
        return fastkl.entropy if self.measure == "entropy" else function(self.measure)

    def __str__(self):
        shown = {**self.keywords, "out": self.out and self.out[0]}
        lines = [f"{name}: {each.how}" for name, each in zip("pq", self.operands, strict=False)]
        return "\n    ".join([f"case {self.number}: fastkl.{self.measure} with {shown}", *lines])


def case(number):
    """The case of this number."""
    pick = random.Random(number)
    measure = pick.choice(ONE_EACH)
    ndim = pick.choice([1, 2, 2, 2, 3, 3, 4])
    shape = [pick.choice([1, 1, 2, 3, 3, 4, 5, 7]) for _ in range(ndim)]
    axis = pick.randrange(ndim) - ndim
    shape[axis] = pick.choice([1, 2, 3, 5, 8, 17, 31, 33, 64, 65, 100, 257, 300])
    kind = pick.random()
    if kind < 0.02:  # wider than a chunk or a piece
        shape = [min(length, 2) for length in shape]
        shape[axis] = pick.choice([1025, 2100, 65_537, 66_000])
    elif kind < 0.1 and ndim > 1:  # more rows than any tile
        shape = [min(length, 3) for length in shape]
        shape[axis] = pick.choice([1, 2, 3, 9, 20])
        shape[(axis + 1) % -ndim] = pick.choice([40, 130, 600])
    elif kind < 0.13 and ndim > 1:
        shape[pick.choice([i for i in range(-ndim, 0) if i != axis])] = 0
    normalize = pick.random() < 0.5
    keywords = {"axis": axis + (ndim if pick.random() < 0.5 else 0), "normalize": normalize}
    keywords["invalid"] = pick.choice(["raise", "raise", "nan", "ignore"])
    keywords["keepdims"] = pick.random() < 0.3
    keywords["base"] = pick.choice([None, None, 2, 10.0, math.pi, 1.5])
    keywords["eps"] = pick.choice([0.0, 0.0, 1e-6, 0.01])
    keywords["threads"] = pick.choice([None, 1, 2, 3])
    keywords, measure = accepted(measure, **keywords), measure.__name__

    shapes = [tuple(shape)] * (1 if measure == "entropy" else 2)
    if len(shapes) == 2 and pick.random() < 0.4:
        narrow = [1 if i != axis and pick.random() < 0.6 else shape[i] for i in range(-ndim, 0)]
        while len(narrow) > -axis and narrow[0] == 1 and pick.random() < 0.5:
            del narrow[0]
        shapes[pick.randrange(2)] = tuple(narrow)
    operands = [operand(pick, s, len(s) + axis, normalize) for s in shapes]
    if len(operands) == 2 and shapes[0] == shapes[1] and pick.random() < 0.1:
        operands[1] = operands[0]

    front = np.broadcast_shapes(*(without(s, axis) for s in shapes))
    at = len(front) + axis + 1
    result = (*front[:at], 1, *front[at:]) if keywords["keepdims"] else front
    out = None
    if pick.random() < 0.4:
        where = layout(pick, result, pick.choice(OUT))
        out = where, bytearray(POISON * where.size)
        keywords["out"] = where.view(out[1])
    return Case(number, measure, tuple(operands), keywords, axis, front, result, out)


def agree(definition, values, exact, dtype, unit, bounds):
    """Whether two results can both be right, one of them exact to the eps of `dtype`, the other to that of float64.

    Each has an error of at most its bound times eps (|x| + `offset`) in nats. One more eps is for the division by the unit,
    and because x is a computed value. The smallest numbers of a dtype have few digits, as have distances whose squares
    float64 cannot hold. What reference.Measure allows where rows are nearly proportional is allowed to both.
    """
    kind = np.finfo(dtype)
    eps = max(float(kind.eps), 2.0**-52) + 2.0**-52
    free = float(kind.smallest_subnormal) + (1e-279 if definition.root else 0)
    with np.errstate(invalid="ignore"):
        size = np.abs(exact) + definition.offset / abs(unit)
        if definition.near is not None:
            most = 2 * eps ** min(definition.near, definition.near_from)
            free = free + np.where(exact <= most, eps**definition.near, 0)
        near = np.abs(values - exact) <= (bounds + 1) * eps * size + free
        beyond = np.isinf(values) & (exact >= float(kind.max))
    return bool(np.all(near | beyond | (values == exact) | (np.isnan(values) & np.isnan(exact))))


def outcome(call):
    """The result or the error of a call."""
    try:
        return call()
    except (TypeError, ValueError) as error:
        return error


def judge(this):
    """What is wrong with the result or the error of a case; "" if all is right."""
    passed = [each.passed for each in this.operands]
    before = [bytes(each.buffer) for each in this.operands]
    got = outcome(lambda: this.call(*passed))
    if [bytes(each.buffer) for each in this.operands] != before:
        return "an operand was written to"
    wrong = wrong_error if isinstance(got, Exception) else wrong_result
    return wrong(this, faults(this), got)


def faults(this):
    """For every row of the result "", or an operand and "entry" or "sum": entries before sums, p before q."""
    any_sum = this.keywords.get("normalize", True) or this.keywords["invalid"] == "ignore"
    clips = [this.keywords.get("eps", 0.0) if name in this.definition.clips else 0.0 for name in "pq"]
    problems, zeros = np.array(""), not this.definition.normalized
    own = [each.faults(this.axis, any_sum, clip, zeros) for each, clip in zip(this.operands, clips, strict=False)]
    for fault in "sum", "entry":
        for name, faulty in reversed(list(zip("pq", own, strict=False))):
            problems = np.where(faulty == fault, f"{name} {fault}", problems)
    return np.broadcast_to(problems, this.front)


def wrong_error(this, problems, error):
    """What is wrong with an error."""
    invalid = np.argwhere(problems != "")
    if not len(invalid) or this.keywords["invalid"] != "raise" or not isinstance(error, fastkl.InvalidRowError):
        return f"refused: {error!r}"
    name, what = str(problems[tuple(invalid[0])]).split()
    fields, expected = (error.operand, error.index, error.reason), (name, *place(this, name, what, invalid[0]))
    if fields != expected:
        return f"has the fields {fields}, not {expected}"
    plain = outcome(lambda: this.call(*(each.plain for each in this.operands), out=None))
    same = type(plain) is type(error) and plain.args == error.args
    return "" if same else f"refused with {error!r}, as plain arrays with {plain!r}"


def place(this, name, what, row):
    """The index and the reason of the error for a row of the result."""
    numbers = this.operands["pq".index(name)].numbers
    cut, lengths = numbers.ndim + this.axis, without(numbers.shape, this.axis)
    own = tuple(0 if n == 1 else int(i) for n, i in zip(lengths, row[len(row) - len(lengths) :], strict=True))
    row_of = (*own[:cut], slice(None), *own[cut:])
    if what == "sum":
        return own[:cut] if cut == len(own) else row_of, "sum"
    entries = numbers[row_of]
    column = int(np.flatnonzero(~((entries >= 0) & (entries < np.inf)))[0])
    return (*own[:cut], column, *own[cut:]), "negative" if np.isfinite(entries[column]) else "not finite"


def wrong_result(this, problems, got):
    """What is wrong with a result."""
    invalid = this.keywords["invalid"]
    if invalid == "raise" and (problems != "").any():
        return f"gave {got!r} where {problems[problems != ''][0]} is invalid"
    single = all(each.dtype in BFLOATS or each.dtype.char in "fe" for each in this.operands)
    own = dtype = np.dtype("f4" if single else "f8")
    if this.out is not None:
        where, buffer = this.out
        if got is not this.keywords["out"]:
            return "returned something else than out"
        dtype = where.dtype.newbyteorder("=")
        got = got.astype(dtype)
        where.fill(buffer, POISON)
        if buffer != POISON * where.size:
            return "wrote beside out"
    elif type(got) is not (np.ndarray if this.result else dtype.type):
        return f"is a {type(got)}"
    if got.shape != this.result or got.dtype != dtype:
        return f"has dtype {got.dtype} and shape {got.shape}, not {dtype} and {this.result}"

    unit, eps = math.log(this.keywords.get("base") or math.e), this.keywords.get("eps", 0.0)
    with np.errstate(all="ignore"):
        got = np.asarray(got).reshape(this.front)
        rows = [np.moveaxis(each.numbers, this.axis, -1).copy() for each in this.operands]
        keywords = accepted(this.function, normalize=True, eps=eps, invalid="nan")
        bounds = this.definition.bounds(rows[0], np.maximum(rows[-1], eps))
        exact = np.asarray(this.function(*rows, **keywords))
        exact = np.where(problems != "", np.nan, exact / (math.sqrt(unit) if this.measure == "js_distance" else unit))
        wide = got.astype(float)
        if invalid == "ignore":  # an invalid row gives any value
            wide = np.where(problems != "", np.nan, wide)
    if not agree(this.definition, wide, exact, max(own, dtype, key=lambda kind: np.finfo(kind).eps), unit, bounds):
        return f"is {wide}, from float64 copies {exact}"
    if all(each.like_plain for each in this.operands):
        out = None if this.out is None else np.zeros(this.result, dtype)
        plain = this.call(*(each.plain for each in this.operands), out=out)
        plain = np.where(problems != "", np.nan, np.asarray(plain).reshape(this.front).astype(float))
        if not np.array_equal(wide, plain, equal_nan=True):
            return f"is {wide}, of plain arrays {plain}"
    return ""


def main(first, count=1, tier=""):
    """Judge the cases. Each is printed on a line of its own before it runs: after a crash, the last one is the cause."""
    faulthandler.enable()
    if tier:
        _kernels.use_tier(tier)
    raised, failures = 0, []
    for number in range(first, first + count):
        print(number, flush=True)
        this = case(number)
        if count == 1:
            print(this)
        wrong = judge(this)
        raised += this.keywords["invalid"] == "raise" and bool((faults(this) != "").any())
        if wrong:
            failures.append(f"{this}\n    {wrong}")
    print(json.dumps({"raised": raised, "failures": failures}))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:3]), *sys.argv[3:4])
