"""Arrays of every shape, layout and dtype: the same rows give the same values.

Here is one of each kind; test_inputs.py draws any mixture of them, lets `out` overlap, and finds copies and what is written
beside.

Values are compared with those of other layouts of the same rows; test_accuracy.py tests that these are right. A row of WIDE
entries has chunks that the kernels read in place and a rest that they copy.
"""

import math
from itertools import product

import numpy as np
import pytest
from support.checks import ENTRY, assert_close, assert_invalid, assert_same, distributions
from support.inputs import decoded, encoded, mapped
from support.measures import MEASURES, PAIR_MEASURES, entropy

import fastkl
from fastkl.call import BFLOAT16

# The kernels of a tier read rows of any strides, and convert their entries.
on_every_tier = pytest.mark.usefixtures("tier")

WIDE = 1100


def one_by_one(measure, p, q, axis=-1, **keywords):
    """The measure's values for broadcast operands, each from its own call with contiguous 1-D copies."""
    p, q = np.broadcast_arrays(*(np.moveaxis(x, axis, -1) for x in (p, p if measure is entropy else q)))
    pairs = [(p[index].copy(), q[index].copy()) for index in np.ndindex(p.shape[:-1])]
    return np.array([measure(*pair, **keywords) for pair in pairs]).reshape(p.shape[:-1])


def inner_block(a):
    return np.pad(a, 1, constant_values=np.nan)[(slice(1, -1),) * a.ndim]


def every_third_column(a):
    return np.pad(a[..., np.newaxis], [(0, 0)] * a.ndim + [(1, 1)], constant_values=np.nan)[..., 1]


def field(a, align):
    records = np.full(a.shape, np.nan, np.dtype([("before", "f2"), ("own", a.dtype), ("after", "f4")], align=align))
    records["own"] = a
    return records["own"]


LAYOUTS = {
    "contiguous": lambda a: a,
    "reversed columns": lambda a: a[..., ::-1].copy()[..., ::-1],
    "reversed rows": lambda a: a[::-1].copy()[::-1],
    "every third column": every_third_column,
    "inner block": inner_block,
    "Fortran order": np.asfortranarray,
    "field of packed records": lambda a: field(a, align=False),
    "field of aligned records": lambda a: field(a, align=True),
    "misaligned": lambda a: np.frombuffer(b"\xff" + a.tobytes(), dtype=a.dtype, offset=1).reshape(a.shape),
    "read-only": lambda a: np.broadcast_to(a, a.shape),
    "foreign byte order": lambda a: a.astype(a.dtype.newbyteorder("S")),
    "subclass": np.ma.array,
    "memory-mapped": mapped,
}


@on_every_tier
@pytest.mark.parametrize("dtype", ["f8", "f4"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layout_does_not_change_values(layout, dtype):
    """Neighbours in memory are entries of 37 rows, too: more than the lanes of any tier, and less than twice."""
    for shape, axis in ((4, WIDE), 1), *(((3, 101, 37), axis) for axis in range(3)):
        p, q = (distributions(seed, shape, dtype, axis) for seed in (1, 2))
        laid_p, laid_q = LAYOUTS[layout](p), LAYOUTS[layout](q)
        for measure in MEASURES:
            expected = measure(np.moveaxis(p, axis, -1).copy(), np.moveaxis(q, axis, -1).copy())
            for pair in (laid_p, laid_q), (laid_p, q), (p, laid_q):
                result = measure(*pair, axis=axis)
                assert type(result) is np.ndarray
                assert_close(result, expected, f"{measure.__name__}, axis {axis}")


SLICES = {
    "first rows": np.s_[:5], "middle rows": np.s_[9:30], "last two": np.s_[-2:], "one": np.s_[7:8], "one by number": 7,
    "every second": np.s_[::2], "backwards": np.s_[::-1],
}  # fmt: skip
KEEP_NEIGHBOURS = "first rows", "middle rows", "last two"


@on_every_tier
@pytest.mark.parametrize("dtype", ["f8", "f4"])
@pytest.mark.parametrize("n", [2, 30, 128, 129, 200, WIDE])
def test_slices_have_the_bits_of_the_whole(n, dtype):
    """Long rows that are neighbours in memory may have other bits: in both operands, or in one beside a single row."""
    p, q = (distributions(seed, (37, n), dtype) for seed in (21, 22))
    across_p, across_q = map(np.asfortranarray, (p, q))
    for measure in [*MEASURES, lambda *pair: np.stack(fastkl.compare(*pair)[:6], axis=-1)]:
        for pair in (across_p, across_q), (across_p, q[0]), (p, across_q):
            whole = measure(*pair)
            differs = n > 128 and pair[0] is across_p
            if not differs:
                assert_same(whole, measure(*map(np.ascontiguousarray, pair)))
            for name, rows in SLICES.items():
                cut = tuple(x[rows] if x.ndim > 1 else x for x in pair)
                alone = measure(*(np.ascontiguousarray(x) for x in cut))
                assert_same(measure(*cut), whole[rows] if name in KEEP_NEIGHBOURS or not differs else alone, name)


@on_every_tier
def test_zero_strides():
    one, other = distributions(5, (WIDE,)), distributions(6, (4, WIDE))
    repeated = np.broadcast_to(one, (4, WIDE))
    constant = np.broadcast_to(np.float64(2.0**-10), (4, 1024))
    for measure in MEASURES:
        assert_close(measure(repeated, other), one_by_one(measure, repeated, other))
        assert_close(measure(other, repeated), one_by_one(measure, other, repeated))
        expected = one_by_one(measure, constant, other[:, :1024], normalize=True)
        assert_close(measure(constant, other[:, :1024], normalize=True), expected)


@on_every_tier
@pytest.mark.parametrize("measure", MEASURES)
def test_axis(measure):
    for shape, dtype in product([(7,), (4, 7), (4, WIDE), (3, 4, 7), (2, 3, 4, 7)], ["f8", "f4"]):
        for axis in range(-len(shape), len(shape)):
            p, q = distributions(11, shape, dtype, axis), distributions(12, shape, dtype, axis)
            expected = one_by_one(measure, p, q, axis)
            assert_close(measure(p, q, axis=axis), expected)
            assert_close(measure(p, q, axis=axis, keepdims=True), np.expand_dims(expected, axis))


SHAPES = [
    ((5, 7), (7,)), ((7,), (5, 7)), ((5, 7), (1, 7)), ((1, 7), (5, 7)), ((4, 1, 7), (3, 7)), ((4, 1, 7), (1, 3, 7)),
    ((2, 1, 3, 7), (4, 1, 7)), ((2, 3, 4, 7), (3, 1, 7)), ((2, 1, 4, 7), (2, 3, 1, 7)), ((1, 1, 7), (7,)), ((0, 7), (7,)),
    ((1, 7), (0, 7)), ((3, 0, 7), (3, 1, 7)), ((0, 7), (0, 7)),
]  # fmt: skip


@pytest.mark.parametrize(("p_shape", "q_shape"), SHAPES)
def test_leading_axes_broadcast(p_shape, q_shape):
    p, q = distributions(13, p_shape), distributions(14, q_shape)
    for measure in PAIR_MEASURES:
        expected = one_by_one(measure, p, q)
        assert expected.shape == np.broadcast_shapes(p_shape[:-1], q_shape[:-1])
        assert_close(measure(p, q), expected)
        assert_close(measure(p, q, keepdims=True), expected[..., np.newaxis])
        if p.ndim == q.ndim:
            assert_close(measure(np.moveaxis(p, -1, 0), np.moveaxis(q, -1, 0), axis=0), expected)


@pytest.mark.parametrize("measure", MEASURES)
def test_one_row_gives_a_scalar(measure):
    for dtype in "f8", "f4":
        p, q = distributions(17, (7,), dtype), distributions(18, (7,), dtype)
        result = measure(p, q)
        assert type(result) is np.dtype(dtype).type
        assert_same(measure(p, q, keepdims=True), np.array([result]))
        assert measure(p[np.newaxis], q)[0] == result
        for out in np.array(np.nan, dtype), np.array(np.nan, "e"):
            assert measure(p, q, out=out) is out
            assert out == result.astype(out.dtype)


SINGLE = ["f4", "f2", BFLOAT16]
INTEGERS = ["?", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "l", "L", "q", "Q"]


@pytest.mark.parametrize("p_dtype", ["f8", *SINGLE, *INTEGERS], ids=str)
def test_dtype_of_the_result(p_dtype):
    p = encoded(np.eye(3), np.dtype(p_dtype))
    assert_same(fastkl.entropy(p), np.zeros(3, "f4" if p_dtype in SINGLE else "f8"))
    for q_dtype in ["f8", *SINGLE, *INTEGERS]:
        expected = np.zeros(3, "f4" if p_dtype in SINGLE and q_dtype in SINGLE else "f8")
        for measure in PAIR_MEASURES:
            assert_same(measure(p, encoded(np.eye(3), np.dtype(q_dtype))), expected)


@on_every_tier
@pytest.mark.parametrize("dtype", INTEGERS)
def test_integers_are_their_values(dtype):
    """Bools too, also the largest, in either byte order, and with every mix of an integer and a float operand."""
    rng, most = np.random.default_rng(19), 1 if dtype == "?" else np.iinfo(dtype).max
    p, q = rng.integers(0, most, (2, 4, WIDE), dtype, endpoint=True)
    p[0, 0] = q[1, -1] = most
    for measure in MEASURES:
        for other in q.astype(float) + 1, distributions(21, (4, WIDE), "f4"):
            expected = measure(p.astype(float), other, normalize=True)
            for given in p, p.astype(p.dtype.newbyteorder("S")):
                assert_same(measure(given, other, normalize=True), expected)
        expected = measure(p.astype(float) + 1, q.astype(float), normalize=True)
        assert_same(measure(p.astype(float) + 1, q, normalize=True), expected)


@on_every_tier
@pytest.mark.parametrize("n", [33, WIDE, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 3, 100))])
@pytest.mark.parametrize("dtype", ["f2", BFLOAT16], ids=str)
def test_half_and_single_precision_are_their_values(dtype, n):
    """Every number, subnormal ones too, in rows of n entries and beside every other dtype of floats."""
    numbers = np.arange(0x7C00 if dtype == "f2" else 0x7F80, dtype="u2").view(dtype)
    values = decoded(numbers).astype("f4")
    chosen = np.random.default_rng(25).permuted(np.arange(len(numbers)))[: len(numbers) // n * n].reshape(-1, n)
    chosen = chosen[(values[chosen] > 0).any(axis=1)]
    p, q = numbers[chosen], numbers[chosen[::-1]]
    same_p, same_q = values[chosen], values[chosen[::-1]]
    double_p, double_q = same_p.astype("f8"), same_q.astype("f8")
    for measure in MEASURES:
        expected = measure(same_p, same_q, normalize=True)
        assert_same(measure(p, q, normalize=True), expected)
        assert_same(measure(p, same_q, normalize=True), expected)
    for measure, given in product(PAIR_MEASURES, (p, same_p)):
        assert_same(measure(given, double_q, normalize=True), measure(double_p, double_q, normalize=True))
        assert_same(measure(double_q, given, normalize=True), measure(double_q, double_p, normalize=True))


@pytest.mark.parametrize("dtype", ["f8", "f4", "f2", "g", ">f8", "<f8", ">f4", "<f4"])
@pytest.mark.parametrize("input_dtype", ["f8", "f4", "i8"])
def test_out_is_filled_and_returned_rounded_once(input_dtype, dtype):
    """The result of float16 has so many rows that some would differ if they were rounded to float32 before."""
    count = 20_000 if dtype == "f2" else 100
    p, q = (1 + 99 * np.random.default_rng(24).random((2, count, 2))).astype(input_dtype)
    for measure in MEASURES:
        double = np.full(count, np.nan)
        assert measure(p, q, normalize=True, out=double) is double
        out = np.full(count, np.nan, dtype)
        assert measure(p, q, normalize=True, out=out) is out
        assert_same(out, double.astype(dtype), measure.__name__)


MANY = [((70_000, 2), (70_000, 2)), ((3, 40_000, 2), (2,)), ((30_000, 1, 2), (3, 2)), ((40_000, 2), (2, 1, 2))]


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize(("p_shape", "q_shape"), MANY)
def test_many_rows_to_an_out_filled_in_blocks(p_shape, q_shape, order):
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
    place = f"p[{', '.join(str(length - 1) for length in p.shape)}]"
    assert_invalid(place, f" = -1.0: {ENTRY}", fastkl.kl_divergence, p, q, normalize=True, out=out)
    measure(p, q, normalize=True, out=out, invalid="nan")
    assert np.isnan(out).sum() == expected.size // (p.size // 2)


def test_a_value_beyond_outs_dtype_is_infinite():
    """And there is no warning, which pytest would make an error."""
    out = np.zeros(1, "f2")
    assert np.isinf(fastkl.kl_divergence([[0.5, 0.5]], [1, 1e-300], normalize=True, base=1.0001, out=out)[0])


@pytest.mark.parametrize("stride", [2**60, -(2**60), 2**62, 1, 0, -7])
@pytest.mark.parametrize("shape", [(5, 1), (1, 4), (1, 1), (1, 5, 1, 3)])
def test_any_stride_of_an_axis_of_length_1(shape, stride):
    """NumPy accepts any, because it adds none."""
    memory = np.random.default_rng(1).random(math.prod(shape)).reshape(shape)
    strides = [stride if n == 1 else own for n, own in zip(shape, memory.strides, strict=True)]
    wild = np.ndarray(shape, float, memory, 0, strides)
    for call in PAIR_MEASURES:
        assert_same(call(wild, wild[::-1], normalize=True), call(memory, memory[::-1], normalize=True))
    assert_same(fastkl.entropy(wild, from_logits=True), fastkl.entropy(memory, from_logits=True))


@pytest.mark.parametrize(("measure", "name"), [("nll", "q"), ("compare", "p")])
def test_rows_that_would_take_minutes_without_a_signal_are_refused(measure, name):
    """They are not cut into pieces, between which signals are polled. A row that repeats one entry can have any length."""
    row = np.broadcast_to(np.float32(1), 10**17)
    message = f"^{name} has {10**17} columns: {measure} of probabilities takes at most 8589934592$"
    with pytest.raises(ValueError, match=message):
        getattr(fastkl, measure)(0 if measure == "nll" else row, row, normalize=True)
