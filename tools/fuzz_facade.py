"""Fuzzes the documented functions with atheris, which turns bytes into calls with odd arrays, lists and keywords.

    python tools/fuzz_facade.py [CALLS]      1,000,000 by default

A call may return a result of the right shape and dtype, without a NaN or a negative value where rows are checked; or raise
a ValueError or TypeError whose message begins with the argument's name (an AxisError is a ValueError). Anything else ends
the run and prints the call: another exception, a warning, a crash, a message that names no argument. Needs atheris.
"""

import re
import sys
import warnings
from typing import Any

import atheris  # type: ignore[import-untyped, unused-ignore]
import numpy as np
from atheris import FuzzedDataProvider as Data
from numpy.lib.stride_tricks import as_strided

with atheris.instrument_imports(include=["fastkl"]):
    import fastkl

NAMES = (
    "p|q|out|axis|base|normalize|from_logits|temperature|eps|ignore_index|label_smoothing|invalid|keepdims|threads|labels"
)
BEGINS = re.compile(rf"(logits )?({NAMES})\b")
FLOATS, INTEGERS, OTHERS = "dfe", "bBhHiIqQ?", ["g", "F", "D", "M8[s]", "m8[s]", "S3", "U2", "O", "V4", "i4,f8"]
FINITE = "0 1 -1 2 0.5 1e-3 1e-300 5e-324 1e300 3 0.1 1e-8 1.000000001"
SPECIAL = [0, 1, 0.5, -1, np.nan, np.inf, -np.inf, 1e300, 5e-324, 1e-40, 7, 0.25]
NUMBERS = [*map(float, FINITE.split()), 0, 1, -1, 2, 3, np.inf, -np.inf, np.nan, 10**400, -(10**30)]
ARRAYS = [[], [1], (), np.array(2), np.array([1, 2]), [[1, 2], [3]], [["a"]], [None], range(3), [[10**30]]]
ODD = [None, "x", b"x", "", {}, 1j, object, np.float32(2), np.int8(1), True, False, ..., memoryview(b"ab"), *ARRAYS]
# By the keyword, its values, and how often it is given: in one of so many calls.
KEYWORDS: dict[str, tuple[int, list[Any]]] = {
    "normalize": (2, [True]),
    "axis": (4, [0, 1, -1, -2, 2, np.int64(0), True, 10**30, *ODD]),
    "base": (4, [2, 10, 2.0, 0.5, np.float32(3), *NUMBERS, *ODD]),
    "invalid": (2, ["nan", "nan", "ignore", "raise", "x", None, 1, ["nan"], np.str_("nan")]),
    "from_logits": (2, [True, True, "p", "q", "q", (True, False), 1, "x", np.True_, None]),
    "temperature": (2, [*NUMBERS, *ODD]),
    "threads": (4, [1, 2, 3, np.int8(2), 0, -1, 2.0, "1", True]),
    "keepdims": (2, [True, False]),
    "eps": (2, [*NUMBERS, *ODD]),
    "ignore_index": (4, [0, 1, -100, 2**63, -(2**80), 1.0, "x", np.int8(1), True]),
    "label_smoothing": (4, [*NUMBERS, *ODD]),
}
WITH_EPS = ("cross_entropy", "kl_divergence", "nll")
OF_SOME = {"eps": WITH_EPS, "ignore_index": ("nll", "compare"), "label_smoothing": ("nll",)}
MEASURES = [name for name in fastkl.measures.__all__ if name != "Comparison"]


def shape(data: Data) -> tuple[int, ...]:
    """Return a shape of no, one or a few axes, seldom empty."""
    ndim = data.PickValueInList([2, 2, 2, 1, 1, 3, 0, 4])
    return tuple(data.PickValueInList([1, 2, 3, 4, 5, 0, 9, 17, 2, 3]) for _ in range(ndim))


def array(data: Data, of: tuple[int, ...], labels: bool = False) -> Any:
    """Return an array of any dtype, byte order, layout and class, or a list, or an odd object."""
    kind, style = data.ConsumeIntInRange(0, 31), data.ConsumeIntInRange(0, 7)
    if kind == 0:
        return data.PickValueInList([*ODD, *NUMBERS, "text"])
    char = data.PickValueInList(OTHERS if kind == 1 else [*INTEGERS[:8]] if labels else [*FLOATS * 4, *INTEGERS])
    dtype = np.dtype(char).newbyteorder(">" if kind in (2, 3) else "=")
    seed = np.frombuffer((data.ConsumeBytes(data.ConsumeIntInRange(1, 24)) or b"\1") * 8, "u1")
    if char in OTHERS:
        values = np.zeros(of, dtype)
    elif labels:
        values = np.resize(seed if style == 0 else seed % 4, of).astype(dtype)
    elif style == 0 and char != "?":
        values = np.frombuffer(np.resize(seed, int(np.prod(of)) * dtype.itemsize).tobytes(), dtype).reshape(of)
    elif style == 1:
        numbers = SPECIAL if char in FLOATS else [0, 1, 3, 100]
        with np.errstate(all="ignore"):
            values = np.array(numbers)[np.resize(seed, of) % len(numbers)].astype(dtype)
    elif style == 2 or char not in FLOATS:
        values = np.resize(seed % 2 if char == "?" else seed % 100, of).astype(dtype)
    else:
        values = np.resize(seed, of) + 1.0
        along = values.ndim - 1 if style < 7 else 0
        values = (values / values.sum(axis=along, keepdims=True) if values.ndim else values).astype(dtype)
    return laid_out(values, data.ConsumeIntInRange(0, 15), masked=seed[0] % 3 == 0)


def laid_out(values: Any, layout: int, masked: bool) -> Any:
    """Return the values in another layout or class, or as they are."""
    plain = values.dtype.kind in "fiub" and values.dtype.char != "g"
    if layout == 0 and values.ndim:
        return values[..., ::-1]
    if layout == 1:
        return np.asfortranarray(values)
    if layout == 2 and plain:
        return np.ndarray(values.shape, values.dtype, b"\0" + values.tobytes() + b"\0", 1)
    if layout == 3 and values.ndim:
        return np.repeat(values, 2, axis=-1)[..., ::2]
    if layout == 4 and values.ndim == 2 and values.size:
        return as_strided(values, values.shape, (0, values.strides[1]))
    if layout == 5:
        return np.ma.array(values, mask=masked and plain)
    if layout == 6 and values.ndim == 2:
        return values.view(np.matrix)
    if layout == 7 and plain:
        return values.tolist()
    return np.ascontiguousarray(values).data if layout == 8 and plain and values.dtype.isnative else values


def expected_shape(p: Any, q: Any, labelled: bool, labels: Any, axis: int, keepdims: bool) -> tuple[int, ...]:
    """Return the shape of a result, by the documentation of axes."""
    rows = [q] if labelled else [p] if q is None else [p, q]
    all_labels = [p] * labelled + ([] if labels is None else [labels])
    ndim = max([row.ndim for row in rows] + [each.ndim + 1 for each in all_labels])
    axis %= ndim
    shapes = [(1,) * (ndim - row.ndim) + row.shape for row in rows]
    shapes = [each[:axis] + each[axis + 1 :] for each in shapes]
    leading = np.broadcast_shapes(*shapes, *(each.shape for each in all_labels))
    return (*leading[:axis], 1, *leading[axis:]) if keepdims else leading


def check(measure: str, operands: tuple[Any, ...], given: dict[str, Any], result: Any) -> None:
    """Check that a result is as documented."""
    arrays: list[Any] = [np.asarray(operand) for operand in operands]
    p, *others = arrays
    q = others[0] if others else None
    labelled = measure == "nll"
    labels = np.asarray(given["labels"]) if given.get("labels") is not None else None
    wanted = expected_shape(p, q, labelled, labels, int(given.get("axis", -1)), bool(given.get("keepdims", False)))
    rows: list[Any] = [q] if labelled else [p] if q is None else [p, q]
    dtype = np.float32 if all(row.dtype.char in "fe" for row in rows) else np.float64
    if given.get("out") is not None:
        assert result is given["out"], "the result is not out"
        dtype = given["out"].dtype
    fields: dict[str, Any] = result._asdict() if measure == "compare" else {measure: result}
    for name, field in fields.items():
        if field is None:
            assert labels is None
            assert name.startswith("nll")
            continue
        assert issubclass(type(field), np.ndarray | np.generic), type(field)
        assert field.shape == wanted, f"{name} has shape {field.shape}, not {wanted}"
        assert field.dtype == (bool if name == "same_argmax" else dtype), f"{name} has dtype {field.dtype}"
        if given.get("invalid", "raise") == "raise" and name != "same_argmax":
            assert not np.isnan(field).any(), f"NaN in {name}"
        if given.get("invalid", "raise") != "ignore" and name != "same_argmax":
            assert not (field < 0).any(), f"negative {name}"


def one_call(source: bytes) -> None:
    """Make one call of the bytes: the function that atheris calls."""
    data = Data(source)
    measure, of = data.PickValueInList(MEASURES), shape(data)
    operands: tuple[Any, ...] = (array(data, of),)
    if measure != "entropy":
        other = data.ConsumeIntInRange(0, 7)
        q_shape = of if other < 5 else of[-1:] if other == 5 else shape(data)
        operands = (*operands, array(data, q_shape))
        if measure == "nll" and data.ConsumeIntInRange(0, 7):
            operands = (array(data, q_shape[:-1], labels=True), operands[1])
    possible = [name for name in KEYWORDS if measure in OF_SOME.get(name, MEASURES)]
    chosen = [name for name in possible if data.ConsumeIntInRange(1, KEYWORDS[name][0]) == 1]
    given = {name: data.PickValueInList(KEYWORDS[name][1]) for name in chosen}
    if measure == "compare" and data.ConsumeBool():
        given["labels"] = array(data, of[:-1] if data.ConsumeBool() else shape(data), labels=True)
    if measure != "compare" and data.ConsumeIntInRange(0, 7) == 0:
        out_shape = of[:-1] if data.ConsumeBool() else shape(data)
        dtype = data.PickValueInList(["d", "f", "e", "g", ">d", "i", "F", "O"])
        given["out"] = np.zeros(out_shape, dtype) if data.ConsumeIntInRange(0, 7) else data.PickValueInList(ODD)
    try:
        try:
            result = getattr(fastkl, measure)(*operands, **given)
        except (ValueError, TypeError) as error:
            if not BEGINS.match(str(error)):
                raise AssertionError(f"{type(error).__name__} names no argument: {error}") from error
        else:
            check(measure, operands, given, result)
    except BaseException:
        print(f"fastkl.{measure}(*{operands!r}, **{given!r})", *map(type, operands), file=sys.stderr)
        raise


if __name__ == "__main__":
    warnings.simplefilter("error")
    calls = sys.argv[1] if len(sys.argv) > 1 else "1000000"
    options = [f"-runs={calls}", "-max_len=120", "-len_control=0", "-entropic=0", "-seed=1", "-print_final_stats=1"]
    atheris.Setup([sys.argv[0], *options, "-exact_artifact_path=/dev/null"], one_call)
    atheris.Fuzz()
