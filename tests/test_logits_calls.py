"""Calls of every function that takes logits: layouts, places, threads, invalid rows, axes, `out` and dtypes.

Values are compared with those of plain calls; test_logits, test_labels and test_compare test that these are right.
"""

import itertools

import numpy as np
import pytest
from support.inputs import BFLOATS, decoded, encoded
from support.logits import DTYPES, MASK, MEASURES, assert_near, call, drawn, normal, operands, right
from support.logits_reference import OF_LOGITS
from support.measures import assert_same_bits

import fastkl

FUNCTIONS = [*MEASURES, "nll", "compare"]
WITHOUT_BASE = ["hellinger_distance", "total_variation", "chi2_divergence"]
# With the values of from_logits that make a row of each function one of logits, and a comparison of probabilities.
CALLS = [(f, x) for f in FUNCTIONS for x in (True, "p", "q") if f not in ("entropy", "nll") or x is True]
CALLS += [("compare", False)]

each_function = pytest.mark.parametrize("function", FUNCTIONS)
each_call = pytest.mark.parametrize(("function", "from_logits"), CALLS)
each_dtype = pytest.mark.parametrize("dtype", DTYPES)
on_every_tier = pytest.mark.usefixtures("tier")


def values(function, p, q, labels, from_logits=True, **keywords):
    """The results of a call: one, or the ten of `compare`."""
    if function == "nll":
        return (fastkl.nll(labels, q, from_logits=OF_LOGITS[from_logits][1], **keywords),)
    if function == "compare":
        return fastkl.compare(p, q, labels, from_logits=from_logits, **keywords)
    return (call(function, p, q, from_logits, **keywords),)


def takes(function):
    """The names of the operands that hold rows."""
    return {"entropy": "p", "nll": "q"}.get(function, "pq")


def strided(a, *steps):
    """The same entries in memory that holds others between them; a negative step stands backwards."""
    index = tuple(slice(None, None, step) for step in steps)
    around = np.empty([length * abs(step) for length, step in zip(a.shape, steps, strict=True)], a.dtype)
    around.view(np.uint8)[...] = 0xFF  # of all floats, a NaN
    around[index] = a
    return around[index]


LAYOUTS = {
    "Fortran order": np.asfortranarray,
    "reversed columns": lambda a: strided(a, 1, -1),
    "reversed rows": lambda a: strided(a, -1, 1),
    "every third column": lambda a: strided(a, 1, 3),
    "every second row, backwards both ways": lambda a: strided(a, -2, -1),
    "misaligned": lambda a: np.frombuffer(b"\xff" + a.tobytes(), a.dtype, offset=1).reshape(a.shape),
    "foreign byte order": lambda a: a.astype(a.dtype.newbyteorder("S")),
}


@on_every_tier
@each_dtype
@pytest.mark.parametrize(("function", "from_logits"), CALLS[:-1])
def test_layout_does_not_change_a_bit(function, dtype, from_logits):
    """Rows in lanes, of more than a tier's; widths of less than a group, of chunks, and of chunks and a rest."""
    for n, rows, temperature in (2, 37, 1.0), (5, 37, 3.0), (64, 37, 1.0), (100, 7, 1.0), (1024, 7, 3.0), (2500, 7, 1.0):
        plain, labels = operands(n, (rows, n), dtype, from_logits), drawn(n, n, (rows,))
        keywords = {"from_logits": from_logits, "temperature": temperature}
        expected = values(function, *plain, labels, **keywords)
        for name, layout in LAYOUTS.items():
            p, q = map(layout, plain)
            for pair in (p, q), (p, plain[1]), (plain[0], q):
                assert_same_bits(values(function, *pair, labels, **keywords), expected, (name, n))


@on_every_tier
@pytest.mark.parametrize(
    ("shape", "threads"),
    [((1001, 37), 3), ((70, 2), 2), ((70, 3), 2), ((13, 2500), 7), pytest.param((2, 70_000), 2, marks=pytest.mark.slow)],
)
@each_call
def test_place_and_threads_do_not_change_a_bit(function, from_logits, shape, threads):
    for dtype in DTYPES:
        p, q = operands(shape[1], shape, dtype, from_logits)
        rows, keywords = (p, q, drawn(0, shape[1], shape[:1])), {"from_logits": from_logits, "threads": 1}
        expected = values(function, *rows, **keywords)
        assert_same_bits(values(function, *rows, **{**keywords, "threads": threads}), expected)
        order = np.random.default_rng(0).permutation(shape[0])
        moved = tuple(x[order] for x in expected)
        assert_same_bits(values(function, *(x[order] for x in rows), **keywords), moved)
        for i in range(min(40, shape[0])):
            assert_same_bits(values(function, *(x[i] for x in rows), **keywords), tuple(x[i] for x in expected), i)


def extremes(p, q):
    """Pairs of rows that need other forms of the terms than most do, or have no value."""
    one, masked = np.eye(len(p), dtype=bool)[0], np.eye(len(p), dtype=bool)[-1]
    yield from ((p, p + np.asarray(apart, p.dtype)) for apart in (0, 1e-6 * q, 30, 60 * one, -90 * one))
    yield from ((p * np.asarray(by, p.dtype), q) for by in (60, 1e4, 1e30))
    yield from ((p, np.where(masked, x, q)) for x in (MASK, np.nan, np.inf, -1e30))
    yield from (
        (np.where(masked, x, p), np.where(masked, y, q)) for x, y in ((MASK, MASK), (MASK, 0), (-1e30, 0), (-1e4, -1e4))
    )
    yield np.full_like(p, MASK), q


@on_every_tier
@each_dtype
@each_function
@pytest.mark.parametrize("n", [2, 9, 64, 65, 128, 129])
def test_extreme_neighbours_do_not_change_a_bit(function, n, dtype):
    """Short rows share vectors with their neighbours, and each has the form of terms that it needs."""
    p, q = operands(n, (33, n), dtype)
    labels, keywords = drawn(n, n, (33,)), {"invalid": "nan", "temperature": 1.0 if n % 3 else 3.0}
    expected = values(function, p, q, labels, **keywords)
    for kind, pair in enumerate(extremes(*(x[1].astype(dtype) for x in (p, q)))):
        alone = values(function, *pair, 0, **keywords)
        beside = [np.stack([x, np.broadcast_to(y, x.shape)], 1).reshape(-1, n) for x, y in zip((p, q), pair, strict=True)]
        found = values(function, *beside, np.stack([labels, 0 * labels], 1).ravel(), **keywords)
        assert_same_bits(tuple(x[::2] for x in found), expected, (kind, n))
        assert_same_bits(tuple(x[1::2] for x in found), tuple(np.broadcast_to(x, 33) for x in alone), (kind, n))


@on_every_tier
@each_dtype
@each_function
def test_alignment_does_not_change_a_bit(function, dtype):
    for n, offset in itertools.product([37, 1300], range(64)):
        pair, labels, moved = operands(n, (2, n), dtype), drawn(n, n, (2,)), []
        for x, start in zip(pair, (offset, (7 * offset) % 64), strict=True):
            memory = np.empty(x.nbytes + 128, np.uint8)
            moved.append(np.ndarray(x.shape, x.dtype, memory, start + -memory.ctypes.data % 64))
            moved[-1][...] = x
        assert_same_bits(values(function, *moved, labels), values(function, *pair, labels), offset)


@on_every_tier
@pytest.mark.parametrize("n", [1, 2, 33, 1025, pytest.param(3001, marks=pytest.mark.slow)])
@each_dtype
@each_function
def test_an_invalid_logit_in_any_place(function, dtype, n):
    """Also among masks, in rows that are read a step at a time, and where no value depends on it."""
    for bad, filler in itertools.product([np.nan, -np.nan, np.inf], [0.0, MASK, 1e30]):
        for at in {0, n // 2, n - 1, max(n - 2, 0)}:
            good, row = np.arange(n).astype(dtype) % 7, np.full(n, filler, dtype)
            row[0 if at else n - 1], row[at] = 1, bad
            spread = np.full((n, 2), 1, dtype)
            spread[:, 0] = row
            for invalid, pair in itertools.product("pq", [(row, good), (spread[:, 0], good), (row, row)]):
                p, q = pair if invalid == "p" else pair[::-1]
                if invalid not in takes(function):
                    continue
                for label in {0, n // 2, n - 1} if function == "nll" else {n // 2}:
                    found = values(function, p, q, label, invalid="nan")
                    assert all(np.isnan(x) for x in found if x.dtype != bool), (bad, at, filler)
                    name = takes(function)[0] if p is q else invalid
                    message = rf"^{name}\[{at}\] = {'nan' if np.isnan(bad) else 'inf'}: logits must be finite or -inf$"
                    with pytest.raises(ValueError, match=message):
                        values(function, p, q, label)


@on_every_tier
@pytest.mark.parametrize("n", [1, 2, 33, 1025, 3001])
@each_dtype
@each_function
def test_a_row_of_masks_alone(function, dtype, n):
    masks, good = np.full(n, MASK, dtype), np.zeros(n, dtype)
    for p, q, name in (masks, good, "p"), (good, masks, "q"), (masks, masks, takes(function)[0]):
        if name in takes(function):
            assert all(np.isnan(x) for x in values(function, p, q, 0, invalid="nan") if x.dtype != bool)
            with pytest.raises(ValueError, match=rf"^{name} has no finite entry: a row of logits must have one$"):
                values(function, p, q, 0)


@on_every_tier
@each_dtype
@each_call
def test_invalid_rows_leave_the_others_alone(function, dtype, from_logits):
    for n in 5, 40, 1100:
        p, q = operands(8, (30, n), dtype, from_logits)
        labels = drawn(n, n, (30,))
        expected = values(function, p, q, labels, from_logits)
        assert_same_bits(values(function, p, q, labels, from_logits, invalid="ignore"), expected)
        p[3, 1], p[12], p[29, n - 1], q[3], q[20, 0] = np.nan, MASK, np.inf, MASK, np.inf
        labels[6], labels[7] = n, -1
        bad = {3} | ({12, 29} if "p" in takes(function) else set()) | ({20} if "q" in takes(function) else set())
        bad |= {6, 7} if function in ("nll", "compare") else set()
        good = np.setdiff1d(np.arange(30), list(bad))
        for invalid in "nan", "ignore":
            found = values(function, p, q, labels, from_logits, invalid=invalid)
            for value, wanted in zip(found, expected, strict=True):
                assert_same_bits(value[good], wanted[good], (n, invalid))
                if invalid == "nan":
                    assert not value[list(bad)].any() if value.dtype == bool else np.isnan(value[list(bad)]).all()
        if function == "nll":
            assert np.isnan(values(function, p, q, labels, from_logits, invalid="ignore")[0][[6, 7]]).all()


@each_dtype
@each_function
def test_axis_keepdims_and_base(function, dtype):
    p, q = operands(9, (3, 40, 5), dtype, masks=False)
    for axis in 0, 1, 2, -1, -2, -3:
        rows = [np.moveaxis(x, axis, -1).copy() for x in (p, q)]
        labels = drawn(0, p.shape[axis], rows[0].shape[:-1])
        expected = values(function, *rows, labels)
        assert_same_bits(values(function, p, q, labels, axis=axis), expected)
        assert_same_bits(values(function, *map(np.asfortranarray, (p, q, labels)), axis=axis), expected)
        kept = tuple(np.expand_dims(x, axis) for x in expected)
        assert_same_bits(values(function, p, q, labels, axis=axis, keepdims=True), kept)
        if function in WITHOUT_BASE:
            continue
        for i, (bits, nats) in enumerate(zip(values(function, p, q, labels, axis=axis, base=2), expected, strict=True)):
            has_none = function == "compare" and fastkl.Comparison._fields[i] in ("total_variation", "same_argmax")
            unit = 1 if has_none else np.log(2) ** (0.5 if function == "js_distance" else 1)
            np.testing.assert_allclose(bits, nats / unit, rtol=4 * np.finfo(dtype).eps, atol=0)
    one = values(function, p[0, 0], q[0, 0], 2)
    assert all(isinstance(x, np.generic) for x in one)
    assert_same_bits(one, tuple(x[0] for x in values(function, p[0, :1], q[0, :1], [2])))
    assert all(x.shape == (1,) for x in values(function, p[0, 0], q[0, 0], 2, keepdims=True))
    lists = values(function, p[0, 0].tolist(), q[0, 0].tolist(), 2)
    assert_same_bits(lists, values(function, p[0, 0].astype("f8"), q[0, 0].astype("f8"), 2))


@pytest.mark.parametrize("function", FUNCTIONS[1:])
def test_broadcasting(function):
    p, q = operands(12, (4, 5, 70), "f8")
    labels = drawn(70, 70, (4, 5))
    for other, few in (q[0], labels), (q[:, :1], labels[:1]), (q[0, 0], labels[0, 0]), (q[:1, :1], labels[:, :1]):
        whole = np.broadcast_to(other, p.shape)
        for each in (p, other, labels), (other, p, few), (p, whole, few), (whole, p, np.broadcast_to(few, (4, 5))):
            full = [np.broadcast_to(x, shape).copy() for x, shape in zip(each, (p.shape, p.shape, (4, 5)), strict=True)]
            assert_same_bits(values(function, *each), values(function, *full))
    constant = np.broadcast_to(np.float64(3), p.shape)
    assert_same_bits(values(function, p, constant, labels), values(function, p, constant.copy(), labels))
    assert all(x.shape == (0, 5) for x in values(function, p[:0], q[:0], labels[:0]))


@pytest.mark.parametrize("function", FUNCTIONS[:-1])
def test_out(function):
    p, q = normal(10, (2, 50, 30))
    labels = drawn(30, 30, (50,))
    expected = values(function, p, q, labels)[0]
    for dtype in "d", "f", "e", "g", ">f8", ">f4":
        filled = np.full((50, 3), 7.0).astype(dtype)
        view = filled[::-1, 1]
        assert values(function, p, q, labels, out=view)[0] is view
        with np.errstate(over="ignore"):
            np.testing.assert_array_equal(view, expected.astype(dtype))
        assert np.all(filled[:, ::2] == 7)
    single = p.astype("f4"), q.astype("f4"), labels
    wide = values(function, *single, out=np.empty(50))[0]
    assert_same_bits(wide.astype("f4"), *values(function, *single))


@pytest.mark.parametrize("function", FUNCTIONS[:-1])
def test_out_may_overlap(function):
    source, labels = normal(11, (30, 30)), drawn(30, 30, (30,))
    expected = values(function, source, source[::-1], labels)
    for i, which in itertools.product([0, 17, 29], takes(function)):
        for part in (i, slice(None)), (slice(None), i):
            rows = {"p": source.copy(), "q": source[::-1].copy()}
            out = rows[which][part]
            values(function, rows["p"], rows["q"], labels, out=out)
            assert_same_bits((out.copy(),), expected)
    shared = np.empty(30)
    shared.view("i8")[...] = labels
    assert_same_bits(values(function, source, source[::-1], shared.view("i8"), out=shared), expected)


@on_every_tier
@each_function
def test_integers_bools_and_mixed_dtypes_are_like_float64(function):
    for dtype in map(np.dtype, "bBhHiIqQ?"):
        p, q = (np.random.default_rng(seed).integers(0, 2 if dtype.char == "?" else 9, (4, 33)) for seed in (30, 31))
        labels = drawn(33, 33, (4,))
        expected = values(function, p.astype("f8"), q.astype("f8"), labels)
        for order in "=", "S":
            form = dtype.newbyteorder(order)
            assert_same_bits(values(function, p.astype(form), q.astype(form), labels), expected, dtype)
        for other in dtype, np.dtype("f8"):
            forms = (other, "f4")[:: -1 if function == "nll" else 1]
            mixed = values(function, *(x.astype(form) for x, form in zip((p, q), forms, strict=True)), labels)
            assert_same_bits(mixed, expected, f"{other} and f4")


@on_every_tier
@pytest.mark.parametrize("dtype", [np.dtype("e"), BFLOATS[-1]], ids=str)
@each_function
def test_small_floats(function, dtype):
    """Their numbers are float32's, and so is the result."""
    for n, temperature in itertools.product([5, 128, 2500], [1.0, 2.0]):
        p, q, labels = normal(n, (3, n), dtype), normal(n + 1, (3, n), dtype), drawn(n, n, (3,))
        p[1, :3] = encoded(np.full(3, MASK), dtype)
        wide = [decoded(x).astype("f4") for x in (p, q)]
        expected = values(function, *wide, labels, temperature=temperature)
        for x in p, strided(p, -2, 1):
            assert_same_bits(values(function, x, q, labels, temperature=temperature), expected, n)
        if function in MEASURES:
            exact = right(function, decoded(p), decoded(q), temperature=temperature)
            assert_near(function, expected[0], exact, source=n)
