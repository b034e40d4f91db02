"""Arrays of every shape, layout and dtype: the same rows give the same values, and nothing else is changed or copied.

Values are compared with those of other layouts of the same rows; test_accuracy.py tests that these are right. A row of WIDE
entries has chunks that the kernels read in place and a rest that they copy.
"""

from __future__ import annotations

import array
import tracemalloc
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from measures import EPS_MEASURES, MEASURES, PAIR_MEASURES, entropy

import fastkl
from fastkl.call import BFLOAT16

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Array = np.ndarray[Any, Any]

pytestmark = pytest.mark.usefixtures("tier")

WIDE = 1100


def rows(seed: int, shape: tuple[int, ...], dtype: Any = float, axis: int = -1) -> Array:
    """Distributions along the axis."""
    weights = np.random.default_rng(seed).random(shape)
    return (weights / weights.sum(axis=axis, keepdims=True)).astype(dtype)


def one_by_one(measure: Callable[..., Any], p: Array, q: Array, axis: int = -1, **keywords: Any) -> Array:
    """The measure's values for broadcast operands, each from its own call with contiguous 1-D copies."""
    ndim = max(p.ndim, q.ndim)
    p, q = (np.moveaxis(x.reshape((1,) * (ndim - x.ndim) + x.shape), axis, -1) for x in (p, q))
    if measure is entropy:
        q = p
    p, q = np.broadcast_arrays(p, q)
    pairs = [(p[index].copy(), q[index].copy()) for index in np.ndindex(p.shape[:-1])]
    return np.array([measure(*pair, **keywords) for pair in pairs]).reshape(p.shape[:-1])


def assert_same(result: Array, expected: Array) -> None:
    """Equal in dtype, shape and bits. No result in this file is NaN or -0.0."""
    np.testing.assert_array_equal(result, expected, strict=True)


def assert_close(result: Array, expected: Array) -> None:
    """Equal in dtype and shape, and both right: strides may change the order of addition, and with it the last bits.

    The bounds are 4 eps D for a D and 4 eps H + 2 eps for an H, and every H here is above 1/2: at most 16 eps apart.
    """
    np.testing.assert_allclose(result, expected, rtol=16 * np.finfo(expected.dtype).eps, atol=0, strict=True)


# ---- layouts ----


def every_third_column(a: Array) -> Array:
    wide = np.full((*a.shape[:-1], 3 * a.shape[-1]), np.nan, a.dtype)
    wide[..., 1::3] = a
    return wide[..., 1::3]


def inner_block(a: Array) -> Array:
    frame = np.full([length + 2 for length in a.shape], np.nan, a.dtype)
    inner = frame[(slice(1, -1),) * a.ndim]
    inner[...] = a
    return inner


def field(a: Array, align: bool) -> Array:
    records = np.full(a.shape, np.nan, np.dtype([("before", "f2"), ("own", a.dtype), ("after", "f4")], align=align))
    records["own"] = a
    return records["own"]


def misaligned(a: Array) -> Array:
    return np.frombuffer(b"\xff" + a.tobytes(), dtype=a.dtype, offset=1).reshape(a.shape)


def read_only(a: Array) -> Array:
    copy = a.copy()
    copy.flags.writeable = False
    return copy


LAYOUTS: dict[str, Callable[[Array], Array]] = {
    "contiguous": lambda a: a,
    "reversed columns": lambda a: a[..., ::-1].copy()[..., ::-1],
    "reversed rows": lambda a: a[::-1].copy()[::-1],
    "every third column": every_third_column,
    "inner block": inner_block,
    "Fortran order": np.asfortranarray,
    "field of packed records": lambda a: field(a, align=False),
    "field of aligned records": lambda a: field(a, align=True),
    "misaligned": misaligned,
    "read-only": read_only,
    "foreign byte order": lambda a: a.astype(a.dtype.newbyteorder("S")),
    "subclass": lambda a: np.ma.array(a),
}


@pytest.mark.parametrize("dtype", ["f8", "f4"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("measure", MEASURES)
def test_layout_does_not_change_values(measure: Callable[..., Any], layout: str, dtype: str) -> None:
    p, q = rows(1, (4, WIDE), dtype), rows(2, (4, WIDE), dtype)
    expected = one_by_one(measure, p, q)
    laid_p, laid_q = LAYOUTS[layout](p), LAYOUTS[layout](q)
    for pair in (laid_p, laid_q), (laid_p, q), (p, laid_q):
        result = measure(*pair)
        assert type(result) is np.ndarray
        assert_close(result, expected)


@pytest.mark.parametrize("dtype", ["f8", "f4"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("measure", MEASURES)
def test_layout_does_not_change_values_along_any_axis(measure: Callable[..., Any], layout: str, dtype: str) -> None:
    """Along axis 1, neighbours in memory are entries of 37 rows: more than the lanes of any tier, and less than twice."""
    for axis in range(3):
        p, q = rows(3, (3, 101, 37), dtype, axis), rows(4, (3, 101, 37), dtype, axis)
        expected = measure(np.moveaxis(p, axis, -1).copy(), np.moveaxis(q, axis, -1).copy())
        assert_close(measure(LAYOUTS[layout](p), LAYOUTS[layout](q), axis=axis), expected)


@pytest.mark.parametrize("measure", MEASURES)
def test_zero_strides(measure: Callable[..., Any]) -> None:
    one, other = rows(5, (WIDE,)), rows(6, (4, WIDE))
    repeated = np.broadcast_to(one, (4, WIDE))
    constant = np.broadcast_to(np.float64(2.0**-10), (4, 1024))
    assert_close(measure(repeated, other), one_by_one(measure, repeated, other))
    assert_close(measure(other, repeated), one_by_one(measure, other, repeated))
    expected = one_by_one(measure, constant, other[:, :1024], normalize=True)
    assert_close(measure(constant, other[:, :1024], normalize=True), expected)


@pytest.mark.parametrize("measure", MEASURES)
def test_memory_mapped(measure: Callable[..., Any], tmp_path: Path) -> None:
    p, q = rows(7, (4, WIDE)), rows(8, (4, WIDE))
    np.save(tmp_path / "p.npy", p)
    result = measure(np.load(tmp_path / "p.npy", mmap_mode="r"), q)
    assert type(result) is np.ndarray
    assert_close(result, measure(p, q))


@pytest.mark.parametrize("dtype", ["f8", "f4"])
def test_inputs_are_left_as_they_were(dtype: str) -> None:
    p, q = rows(9, (4, WIDE), dtype), rows(10, (4, WIDE), dtype)
    p_before, q_before = p.copy(), q.copy()
    for measure in EPS_MEASURES:
        measure(3 * p, q, normalize=True, eps=0.01)
        measure(p[:, ::-1], q, eps=0.01)
    fastkl.js_divergence(3 * p, q, normalize=True)
    assert_same(p, p_before)
    assert_same(q, q_before)


# ---- axes and broadcasting ----

SHAPES = [(7,), (4, 7), (3, 4, 7), (2, 3, 4, 7)]


@pytest.mark.parametrize("ndim", range(1, 5))
@pytest.mark.parametrize("measure", MEASURES)
def test_axis(measure: Callable[..., Any], ndim: int) -> None:
    for axis in range(-ndim, ndim):
        p, q = rows(11, SHAPES[ndim - 1], axis=axis), rows(12, SHAPES[ndim - 1], axis=axis)
        expected = measure(np.moveaxis(p, axis, -1).copy(), np.moveaxis(q, axis, -1).copy())
        assert_close(np.asarray(measure(p, q, axis=axis)), np.asarray(expected))
        assert_close(measure(p, q, axis=axis, keepdims=True), np.expand_dims(expected, axis))


@pytest.mark.parametrize(
    ("p_shape", "q_shape"),
    [
        ((5, 7), (7,)),
        ((7,), (5, 7)),
        ((5, 7), (1, 7)),
        ((1, 7), (5, 7)),
        ((4, 1, 7), (3, 7)),
        ((4, 1, 7), (1, 3, 7)),
        ((2, 1, 3, 7), (4, 1, 7)),
        ((2, 3, 4, 7), (3, 1, 7)),
        ((2, 1, 4, 7), (2, 3, 1, 7)),
        ((1, 1, 7), (7,)),
        ((0, 7), (7,)),
        ((1, 7), (0, 7)),
        ((3, 0, 7), (3, 1, 7)),
        ((0, 7), (0, 7)),
    ],
)
@pytest.mark.parametrize("measure", PAIR_MEASURES)
def test_leading_axes_broadcast(measure: Callable[..., Any], p_shape: tuple[int, ...], q_shape: tuple[int, ...]) -> None:
    p, q = rows(13, p_shape), rows(14, q_shape)
    expected = one_by_one(measure, p, q)
    assert expected.shape == np.broadcast_shapes(p_shape[:-1], q_shape[:-1])
    assert_close(measure(p, q), expected)
    assert_close(measure(p, q, keepdims=True), expected[..., np.newaxis])
    if p.ndim == q.ndim:
        moved = measure(np.moveaxis(p, -1, 0), np.moveaxis(q, -1, 0), axis=0)
        assert_close(moved, expected)


def test_axis_is_counted_after_leading_axes_are_added() -> None:
    p, q = rows(15, (6, 7), axis=0), rows(16, (5, 6, 7), axis=1)
    for measure in PAIR_MEASURES:
        assert_close(measure(p, q, axis=1), one_by_one(measure, p, q, axis=1))
        assert_close(measure(q, p, axis=-2), one_by_one(measure, q, p, axis=-2))


@pytest.mark.parametrize("shape", [(0, 7), (3, 0, 7), (0, 0, 1)])
@pytest.mark.parametrize("measure", MEASURES)
def test_no_rows_give_an_empty_result(measure: Callable[..., Any], shape: tuple[int, ...]) -> None:
    assert_same(measure(np.ones(shape), np.ones(shape)), np.empty(shape[:-1]))
    assert_same(measure(np.ones(shape, "f4"), np.ones(shape, "f4"), keepdims=True), np.empty((*shape[:-1], 1), "f4"))


@pytest.mark.parametrize("dtype", ["f8", "f4"])
@pytest.mark.parametrize("measure", MEASURES)
def test_one_row_gives_a_scalar(measure: Callable[..., Any], dtype: str) -> None:
    p, q = rows(17, (7,), dtype), rows(18, (7,), dtype)
    result = measure(p, q)
    assert type(result) is np.dtype(dtype).type
    kept = measure(p, q, keepdims=True)
    assert kept.shape == (1,)
    assert kept[0] == result
    assert measure(p[np.newaxis], q)[0] == result
    out = np.empty((), dtype)
    assert measure(p, q, out=out) is out
    assert out == result


# ---- dtypes and containers ----

SINGLE = ["f4", "f2", BFLOAT16]
INTEGERS = ["?", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "l", "L", "q", "Q"]


def given_as(dtype: Any, a: Array) -> Array:
    return bfloat16(a.astype("f4")) if dtype is BFLOAT16 else a.astype(dtype)


@pytest.mark.parametrize("p_dtype", ["f8", *SINGLE, *INTEGERS], ids=str)
def test_dtype_of_the_result(p_dtype: Any) -> None:
    p = given_as(p_dtype, np.eye(3))
    assert_same(fastkl.entropy(p), np.zeros(3, "f4" if p_dtype in SINGLE else "f8"))
    for q_dtype in ["f8", *SINGLE, *INTEGERS]:
        expected = np.zeros(3, "f4" if p_dtype in SINGLE and q_dtype in SINGLE else "f8")
        for measure in PAIR_MEASURES:
            assert_same(measure(p, given_as(q_dtype, np.eye(3))), expected)


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("measure", MEASURES)
def test_integers_are_their_values(measure: Callable[..., Any], dtype: str) -> None:
    """Bools too, also the largest, and with every mix of an integer and a float operand."""
    rng, most = np.random.default_rng(19), 1 if dtype == "?" else np.iinfo(dtype).max
    p, q = rng.integers(0, most, (2, 4, WIDE), dtype, endpoint=True)
    p[0, 0] = q[1, -1] = most
    expected = measure(p.astype(float), q.astype(float) + 1, normalize=True)
    for given in p, p.astype(p.dtype.newbyteorder("S")):
        assert_same(measure(given, q.astype(float) + 1, normalize=True), expected)
    expected = measure(p.astype(float) + 1, q.astype(float), normalize=True)
    assert_same(measure(p.astype(float) + 1, q, normalize=True), expected)


@pytest.mark.parametrize("dtype", ["f8", "f4"])
@pytest.mark.parametrize("measure", MEASURES)
def test_bools_are_zero_and_one(measure: Callable[..., Any], dtype: str) -> None:
    p, q = np.random.default_rng(20).random((4, WIDE)) < 0.5, rows(21, (4, WIDE), dtype)
    result = measure(p, q, normalize=True)
    assert result.dtype == np.float64
    assert_same(result, measure(p.astype("f8"), q, normalize=True))


@pytest.mark.parametrize("dtype", ["f8", "f4", "f2", BFLOAT16], ids=str)
@pytest.mark.parametrize("measure", PAIR_MEASURES)
def test_one_hot_rows_of_bools_need_no_normalising(measure: Callable[..., Any], dtype: Any) -> None:
    labels, predicted = np.eye(64, dtype=bool), given_as(dtype, rows(40, (64, 64)))
    same = np.eye(64)
    assert_same(measure(labels, predicted), measure(same, predicted))
    assert_same(measure(predicted, labels), measure(predicted, same))


def bfloat16(a: Array) -> Array:
    """The upper halves of float32."""
    return (a.view("u4") >> 16).astype("u2").view(BFLOAT16)


def every_half() -> tuple[Array, Array]:
    """All numbers that a row of float16, and one of bfloat16, may hold."""
    bits = np.arange(0x8000, dtype="u2")
    half = bits[bits < 0x7C00].view("f2")
    return half, bits[bits < 0x7F80].view(BFLOAT16)


@pytest.mark.parametrize("measure", MEASURES)
def test_half_precision_is_its_values(measure: Callable[..., Any]) -> None:
    """Every number, subnormal ones too, in rows of several lengths and beside every other dtype of floats."""
    for numbers, values in zip(every_half(), (every_half()[0].astype("f4"), None), strict=True):
        if values is None:
            values = (numbers.view("u2").astype("u4") << 16).view("f4")
        rng = np.random.default_rng(25)
        for n in 1, 3, 33, 100, WIDE:
            chosen = rng.permuted(np.arange(len(numbers)))[: len(numbers) // n * n].reshape(-1, n)
            chosen = chosen[(values[chosen] > 0).any(axis=1)]
            p, q = numbers[chosen], numbers[chosen[::-1]]
            same_p, same_q = values[chosen], values[chosen[::-1]]
            assert_same(measure(p, q, normalize=True), measure(same_p, same_q, normalize=True))
            assert_same(measure(p, same_q, normalize=True), measure(same_p, same_q, normalize=True))
            double = same_q.astype("f8")
            assert_same(
                measure(p, double, normalize=True),
                measure(same_p.astype("f8") if measure is not entropy else same_p, double, normalize=True),
            )


def test_bfloat16_of_ml_dtypes() -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    p, q = rows(31, (4, WIDE), ml_dtypes.bfloat16), rows(32, (4, WIDE), ml_dtypes.bfloat16)
    for measure in MEASURES:
        expected = measure(p.astype("f4"), q.astype("f4"), normalize=True)
        assert_same(measure(p, q), expected)
        for given in p.view(BFLOAT16), p.astype(p.dtype.newbyteorder("S")):
            assert_same(measure(given, q), expected)


@pytest.mark.parametrize("measure", PAIR_MEASURES)
def test_float32_and_float64_mix(measure: Callable[..., Any]) -> None:
    p, q = rows(22, (4, WIDE), "f4"), rows(23, (4, WIDE))
    assert_same(measure(p, q), measure(p.astype(float), q, normalize=True))
    assert_same(measure(q, p), measure(q, p.astype(float), normalize=True))


class Exporter:
    """An object of which NumPy can make an array."""

    def __init__(self, values: list[float]) -> None:
        self.values = values

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return np.array(self.values, dtype)


@pytest.mark.parametrize(
    "container",
    [
        list,
        tuple,
        Exporter,
        np.ma.array,
        lambda values: array.array("d", values),
        lambda values: memoryview(array.array("d", values)),
    ],
    ids=["list", "tuple", "__array__", "masked array without a mask", "array.array", "memoryview"],
)
@pytest.mark.parametrize("measure", MEASURES)
def test_containers(measure: Callable[..., Any], container: Callable[[list[float]], Any]) -> None:
    p, q = [0.5, 0.25, 0.25], [0.25, 0.25, 0.5]
    result = measure(container(p), container(q))
    assert type(result) is np.float64
    assert result == measure(np.array(p), np.array(q))


def test_nested_lists_and_integers() -> None:
    assert_same(fastkl.entropy([[1, 0], [0, 1]]), np.zeros(2))
    assert_same(fastkl.kl_divergence([[1, 3], [1, 1]], [1, 1], normalize=True)[1:], np.zeros(1))
    assert_same(fastkl.entropy([[True, False]]), np.zeros(1))


# ---- out ----


@pytest.mark.parametrize("dtype", ["f8", "f4", "f2", "g", ">f8", "<f8", ">f4", "<f4"])
@pytest.mark.parametrize("input_dtype", ["f8", "f4", "i8"])
@pytest.mark.parametrize("measure", MEASURES)
def test_out_is_filled_and_returned_rounded_once(measure: Callable[..., Any], input_dtype: str, dtype: str) -> None:
    """The result of float16 has so many rows that some would differ if they were rounded to float32 before."""
    count = 20_000 if dtype == "f2" else 100
    p, q = (1 + 99 * np.random.default_rng(24).random((2, count, 2))).astype(input_dtype)
    double = np.full(count, np.nan)
    assert measure(p, q, normalize=True, out=double) is double
    out = np.full(count, np.nan, dtype)
    assert measure(p, q, normalize=True, out=out) is out
    assert_same(out, double.astype(dtype))


@pytest.mark.parametrize("measure", MEASURES)
def test_an_out_without_axes_is_filled(measure: Callable[..., Any]) -> None:
    out = np.array(np.nan, "e")
    value = measure([0.25, 0.75], [0.5, 0.5], out=out)
    assert value == np.float16(measure([0.25, 0.75], [0.5, 0.5])) == out


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize(
    ("p_shape", "q_shape"),
    [((70_000, 2), (70_000, 2)), ((3, 40_000, 2), (2,)), ((50_000, 1, 2), (3, 2)), ((40_000, 2), (2, 1, 2))],
)
def test_many_rows_to_an_out_that_is_filled_in_blocks(p_shape: Any, q_shape: Any, order: Any) -> None:
    """The values have the same bits, and the first invalid row is the same."""
    rng = np.random.default_rng(33)
    p, q = (np.array(rng.random(shape), order=order) for shape in (p_shape, q_shape))
    for measure in MEASURES:
        expected = measure(p, q, normalize=True)
        out = np.empty(expected.shape, "g")
        measure(p, q, normalize=True, out=out)
        assert_same(out, expected.astype("g"))
    last = (-1,) * p.ndim
    p[last] = -1
    place = ", ".join(str(length - 1) for length in p.shape)
    with pytest.raises(ValueError, match=rf"^p\[{place}\] = -1.0"):
        fastkl.kl_divergence(p, q, normalize=True, out=out)
    measure(p, q, normalize=True, out=out, invalid="nan")
    assert np.isnan(out).sum() == expected.size // (p.size // 2)


def test_a_value_beyond_outs_dtype_is_infinite() -> None:
    """And there is no warning, which pytest would make an error."""
    out = np.zeros(1, "f2")
    assert np.isinf(fastkl.kl_divergence([[0.5, 0.5]], [1, 1e-300], normalize=True, base=1.0001, out=out)[0])


@pytest.mark.parametrize(
    "part",
    [np.s_[:6, :5], np.s_[3:9, 7:12], np.s_[::2, ::3], np.s_[::-2, 14:4:-2], np.s_[1:7, 2, 1:]],
    ids=["corner", "middle", "strided", "reversed", "steps of one"],
)
@pytest.mark.parametrize("dtype", ["f8", "f4", "f2", "g"])
def test_out_of_any_layout(dtype: str, part: Any) -> None:
    """What is around it in memory stays."""
    p, q = rows(27, (6, 5, 300)), rows(28, (6, 5, 300))
    for frame in np.full((12, 15, 6), -1, dtype), np.full((6, 15, 12), -1, dtype).T:
        out = frame[part] if len(part) == 3 else frame[(*part, 4)]
        for measure in MEASURES:
            assert measure(p, q, out=out) is out
            assert_same(out, measure(p, q).astype(dtype))
            kept = out[:, np.newaxis]
            assert measure(np.moveaxis(q, -1, 1), np.moveaxis(p, -1, 1), axis=1, out=kept, keepdims=True) is kept
            assert_same(out, measure(q, p).astype(dtype))
        out[...] = -1
        assert (frame == -1).all()


@pytest.mark.parametrize("dtype", ["f8", "f4"])
def test_misaligned_out(dtype: str) -> None:
    p, q = rows(29, (6, WIDE), dtype), rows(30, (6, WIDE), dtype)
    for measure in MEASURES:
        out = np.frombuffer(bytearray(1 + 6 * p.itemsize), dtype, offset=1)
        assert measure(p, q, out=out) is out
        assert_same(out, measure(p, q))


@pytest.mark.parametrize(
    "overlap",
    [
        pytest.param(lambda p, q: p[:, 0], id="first column of p"),
        pytest.param(lambda p, q: q[:, -1], id="last column of q"),
        pytest.param(lambda p, q: p[1], id="second row of p"),
        pytest.param(lambda p, q: q[-2], id="last row of q but one"),
        pytest.param(lambda p, q: p[::-1, 7], id="column backwards"),
        pytest.param(lambda p, q: p.ravel()[::65], id="diagonal"),
        pytest.param(lambda p, q: p.ravel()[100:164], id="across rows"),
        pytest.param(lambda p, q: p.view("f4")[:, 3], id="halves of p's entries"),
        pytest.param(lambda p, q: q.view("f2")[2, ::4], id="quarters of q's entries"),
    ],
)
@pytest.mark.parametrize("measure", MEASURES)
def test_out_overlapping_an_input(measure: Callable[..., Any], overlap: Callable[[Array, Array], Array]) -> None:
    p, q = rows(31, (64, 64)), rows(32, (64, 64))
    expected = measure(p, q)
    out = overlap(p, q)
    assert measure(p, q, out=out) is out
    assert_same(out, expected.astype(out.dtype))


def test_out_overlapping_a_single_row() -> None:
    p, q = rows(33, (7,)), rows(34, (7,))
    expected = fastkl.kl_divergence(p, q)
    out = p[3, ...]
    assert fastkl.kl_divergence(p, q, out=out) is out
    assert out == expected


# ---- memory ----

LITTLE = 1 << 16  # bytes for Python's own objects, a result of some hundred rows, and what is converted at a time


def allocated(call: Callable[[], Any]) -> int:
    """The largest number of bytes that Python and NumPy held during the call."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("measure", MEASURES)
def test_only_the_result_is_allocated(measure: Callable[..., Any], layout: str) -> None:
    p, q = LAYOUTS[layout](rows(35, (400, 400))), LAYOUTS[layout](rows(36, (400, 400)))
    for axis in 0, 1:
        assert allocated(lambda axis=axis: measure(p, q, axis=axis, normalize=True)) < LITTLE
    assert allocated(lambda: measure(p, q[3], normalize=True)) < LITTLE


@pytest.mark.parametrize("dtype", ["f4", "?", "u1", "i8"])
@pytest.mark.parametrize("measure", MEASURES)
def test_no_dtype_is_converted_as_a_whole(measure: Callable[..., Any], dtype: str) -> None:
    p, q = np.ones((400, 400), dtype), rows(37, (400,))
    assert allocated(lambda: measure(p, q, normalize=True)) < LITTLE
    assert allocated(lambda: measure(q, p, normalize=True)) < LITTLE


def test_broadcasting_allocates_only_the_result() -> None:
    p, q = rows(38, (100, 1, 500)), rows(39, (200, 500))
    for measure in PAIR_MEASURES:
        assert allocated(lambda measure=measure: measure(p, q)) < 100 * 200 * 8 + LITTLE
        out = np.empty((100, 200))
        assert allocated(lambda measure=measure, out=out: measure(p, q, out=out)) < LITTLE


def test_finding_the_bad_entry_of_a_wide_row_allocates_little() -> None:
    p = np.full(4_000_000, 1 / 4_000_000)
    p[-1] = np.nan

    def call() -> None:
        with pytest.raises(ValueError, match=r"p\[3999999\] = nan"):
            fastkl.entropy(p)

    assert allocated(call) < p.nbytes / 16
