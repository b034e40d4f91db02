"""Fuzzes the documented functions with atheris, which turns bytes into calls with odd arrays, lists and keywords.

    python tests/hardening/fuzz_facade.py [CALLS]      1,000,000 by default

A call may return a result of the right shape and dtype, without a NaN or a negative value where rows are checked; or raise
a ValueError or TypeError whose message begins with the argument's name (an AxisError is a ValueError). Anything else ends
the run and prints the call: another exception, a warning, a crash, a message that names no argument. Needs atheris.
"""

from __future__ import annotations

import re
import sys
import warnings
from typing import Any

import atheris
import numpy as np
from numpy.lib.stride_tricks import as_strided

with atheris.instrument_imports(include=["fastkl"]):
    import fastkl

CALLS = 1_000_000
NAMES = (
    "p|q|out|axis|base|normalize|from_logits|temperature|eps|ignore_index|label_smoothing|invalid|keepdims|threads|labels"
)
BEGINS = re.compile(rf"(logits )?({NAMES})\b")
FLOATS, INTEGERS, OTHERS = "dfe", "bBhHiIqQ?", ["g", "F", "D", "M8[s]", "m8[s]", "S3", "U2", "O", "V4", "i4,f8"]
SINGLE = "fe"
NUMBERS = [
    0,
    1,
    -1,
    2,
    0.5,
    1e-3,
    1e-300,
    5e-324,
    1e300,
    1e999,
    -1e999,
    float("nan"),
    3,
    10**400,
    -(10**30),
    0.1,
    1e-8,
    1 + 1e-9,
]
ODD = [
    None,
    "x",
    b"x",
    "",
    [],
    [1],
    (),
    {},
    1j,
    object,
    np.float32(2),
    np.int8(1),
    np.array(2),
    np.array([1, 2]),
    True,
    False,
    ...,
]
MEASURES = [name for name in fastkl.measures.__all__ if name != "Comparison"]


def shape(data: atheris.FuzzedDataProvider) -> tuple[int, ...]:
    """Return a shape of no, one or a few axes, seldom empty."""
    ndim = data.PickValueInList([2, 2, 2, 1, 1, 3, 0, 4])
    return tuple(data.PickValueInList([1, 2, 3, 4, 5, 0, 9, 17, 2, 3]) for _ in range(ndim))


def array(data: atheris.FuzzedDataProvider, of: tuple[int, ...], labels: bool = False) -> Any:
    """Return an array of any dtype, byte order, layout and class, or a list, or an odd object."""
    kind = data.ConsumeIntInRange(0, 31)
    if kind == 0:
        return data.PickValueInList(
            [*ODD, *NUMBERS, [[1, 2], [3]], "text", [["a"]], [None], range(3), [[10**30]], memoryview(b"ab")]
        )
    if labels and kind < 28:
        char = INTEGERS[data.ConsumeIntInRange(0, 7)]
    elif kind == 1:
        char = data.PickValueInList(OTHERS)
    else:
        char = (FLOATS * 4 + INTEGERS)[data.ConsumeIntInRange(0, 20)]
    dtype = np.dtype(char)
    if kind in (2, 3):
        dtype = dtype.newbyteorder(">")
    count = int(np.prod(of))
    style = data.ConsumeIntInRange(0, 7)
    seed = np.frombuffer((data.ConsumeBytes(data.ConsumeIntInRange(1, 24)) or b"\1") * 8, "u1")
    if labels:
        values = np.resize(seed % 4, of).astype(char)
        if style == 0:
            values = np.resize(seed, of).astype(char)
    elif char in OTHERS:
        values = np.zeros(of, dtype)
    elif style == 0:
        raw = np.resize(seed, count * dtype.itemsize).tobytes()
        values = np.frombuffer(raw, dtype).reshape(of) if char != "?" else np.zeros(of, "?")
    elif style == 1:
        with np.errstate(all="ignore"):
            numbers = np.array([0, 1, 0.5, -1, np.nan, np.inf, -np.inf, 1e300, 5e-324, 1e-40, 7, 0.25])
            numbers = numbers if char in FLOATS else np.array([0, 1, 2, 3, 100])
            values = numbers[np.resize(seed, of) % len(numbers)].astype(dtype)
    elif style == 2 or char not in FLOATS:
        values = np.resize(seed % 2 if char == "?" else seed % 100, of).astype(dtype)
    else:
        values = np.resize(seed, of) + 1.0
        along = values.ndim - 1 if style < 7 else 0
        values = (values / values.sum(axis=along, keepdims=True) if values.ndim else values).astype(dtype)
    layout = data.ConsumeIntInRange(0, 15)
    if layout == 0:
        values = values[..., ::-1] if values.ndim else values
    elif layout == 1:
        values = np.asfortranarray(values)
    elif layout == 2 and char not in OTHERS:
        values = np.ndarray(of, dtype, b"\0" + values.tobytes() + b"\0", 1)
    elif layout == 3 and values.ndim:
        values = np.repeat(values, 2, axis=-1)[..., ::2]
    elif layout == 4 and values.ndim == 2 and count:
        values = as_strided(values, of, (0, values.strides[1]))
    elif layout == 5:
        values = np.ma.array(values, mask=seed[0] % 3 == 0 and char not in OTHERS)
    elif layout == 6 and values.ndim == 2:
        values = values.view(np.matrix)
    elif layout == 7 and char not in OTHERS:
        values = values.tolist()
    elif layout == 8 and char not in OTHERS and values.dtype.byteorder != ">":
        values = memoryview(np.ascontiguousarray(values))
    return values


def number(data: atheris.FuzzedDataProvider) -> Any:
    """Return a number, or seldom an odd object."""
    return data.PickValueInList(NUMBERS) if data.ConsumeIntInRange(0, 3) else data.PickValueInList(ODD)


def keywords(data: atheris.FuzzedDataProvider, measure: str) -> dict[str, Any]:
    """Return some keywords of the measure, mostly valid ones."""
    found: dict[str, Any] = {}
    flags = data.ConsumeIntInRange(0, (1 << 12) - 1)
    if flags & 1:
        found["normalize"] = True
    if flags & 6 == 6:
        found["axis"] = data.PickValueInList([0, 1, -1, -2, 2, np.int64(0), True, 10**30, *ODD])
    if flags & 0x18 == 0x18:
        found["base"] = data.PickValueInList([2, 10, 2.0, 0.5, np.float32(3)]) if data.ConsumeBool() else number(data)
    if flags & 0x20:
        found["invalid"] = data.PickValueInList(["nan", "nan", "ignore", "raise", "x", None, 1, ["nan"], np.str_("nan")])
    if flags & 0x40:
        found["from_logits"] = data.PickValueInList([True, True, "p", "q", "q", (True, False), 1, "x", np.True_, None])
    if flags & 0x80:
        found["temperature"] = number(data)
    if flags & 0x300 == 0x300:
        found["threads"] = data.PickValueInList([1, 2, 3, np.int8(2), 0, -1, 2.0, "1", True])
    if flags & 0x400:
        found["keepdims"] = data.ConsumeBool()
    if measure in ("cross_entropy", "kl_divergence", "nll") and flags & 0x800:
        found["eps"] = number(data)
    if measure in ("nll", "compare") and data.ConsumeIntInRange(0, 3) == 0:
        found["ignore_index"] = data.PickValueInList([0, 1, -100, 2**63, -(2**80), 1.0, "x", np.int8(1), True])
    if measure == "nll" and data.ConsumeIntInRange(0, 3) == 0:
        found["label_smoothing"] = number(data)
    return found


def expected_shape(p: Any, q: Any, labelled: bool, labels: Any, axis: int, keepdims: bool) -> tuple[int, ...]:
    """Return the shape of a result, by the documentation of axes."""
    rows = [q] if labelled else [p] if q is None else [p, q]
    ndim = max(row.ndim for row in rows)
    axis %= ndim
    shapes = [list((1,) * (ndim - row.ndim) + row.shape) for row in rows]
    for found in shapes:
        del found[axis]
    if labelled:
        shapes.append(list(p.shape))
    if labels is not None:
        shapes.append(list(labels.shape))
    leading = list(np.broadcast_shapes(*map(tuple, shapes)))
    if keepdims:
        leading.insert(axis, 1)
    return tuple(leading)


def check(measure: str, operands: tuple[Any, ...], given: dict[str, Any], result: Any) -> None:
    """Check that a result is as documented."""
    p, *others = (np.asarray(operand) for operand in operands)
    q = others[0] if others else None
    labelled = measure == "nll"
    labels = np.asarray(given["labels"]) if given.get("labels") is not None else None
    wanted = expected_shape(p, q, labelled, labels, int(given.get("axis", -1)), bool(given.get("keepdims", False)))
    rows = [q] if labelled else [p] if q is None else [p, q]
    dtype = np.float32 if all(row.dtype.char in SINGLE for row in rows) else np.float64
    if given.get("out") is not None:
        assert result is given["out"], "the result is not out"
        dtype = given["out"].dtype
    fields = result._asdict() if measure == "compare" else {measure: result}
    for name, field in fields.items():
        if field is None:
            assert labels is None
            assert name.startswith("nll")
            continue
        assert isinstance(field, (np.ndarray, np.generic)), type(field)
        assert field.shape == wanted, f"{name} has shape {field.shape}, not {wanted}"
        assert field.dtype == (bool if name == "same_argmax" else dtype), f"{name} has dtype {field.dtype}"
        if given.get("invalid", "raise") == "raise" and name != "same_argmax":
            assert not np.isnan(field).any(), f"NaN in {name}"
        if given.get("invalid", "raise") != "ignore" and name != "same_argmax":
            assert not (field < 0).any(), f"negative {name}"


def one_call(data: bytes) -> None:
    """Make one call of the bytes: the function that atheris calls."""
    source = atheris.FuzzedDataProvider(data)
    measure = source.PickValueInList(MEASURES)
    of = shape(source)
    p = array(source, of)
    operands: tuple[Any, ...] = (p,)
    if measure != "entropy":
        other = source.ConsumeIntInRange(0, 7)
        q_shape = of if other < 5 else of[-1:] if other == 5 else shape(source)
        operands = (p, array(source, q_shape))
        if measure == "nll" and source.ConsumeIntInRange(0, 7):
            operands = (array(source, q_shape[:-1], labels=True), operands[1])
    given = keywords(source, measure)
    if measure == "compare" and source.ConsumeBool():
        given["labels"] = array(source, of[:-1] if source.ConsumeBool() else shape(source), labels=True)
    if measure != "compare" and source.ConsumeIntInRange(0, 7) == 0:
        out_shape = of[:-1] if source.ConsumeBool() else shape(source)
        dtype = source.PickValueInList(["d", "f", "e", "g", ">d", "i", "F", "O"])
        given["out"] = np.zeros(out_shape, dtype) if source.ConsumeIntInRange(0, 7) else source.PickValueInList(ODD)
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


def main() -> None:
    """Run the fuzzer, without inputs to start from."""
    warnings.simplefilter("error")
    calls = int(sys.argv[1]) if len(sys.argv) > 1 else CALLS
    options = [f"-runs={calls}", "-max_len=120", "-len_control=0", "-entropic=0", "-seed=1", "-print_final_stats=1"]
    atheris.Setup([sys.argv[0], *options, "-exact_artifact_path=/dev/null"], one_call)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
