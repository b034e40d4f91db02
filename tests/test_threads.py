"""Threads, and a row's place in memory: neither changes a bit of a result, a message, or the caller's floating-point state.

A build without OpenMP passes trivially where threads are counted. test_process.py has Python's threads.
"""

import ctypes
import ctypes.util
import functools
import itertools
import platform
import sys

import numpy as np
import pytest
from support.measures import MEASURES, accepted, assert_same_bits, entropy
from support.processes import NIGHT

import fastkl

DTYPES = ["f8", "f4"]
THREADS = [1, 2, 3, 7]
PIECE = 65_536  # rows wider than this are shared out in pieces of it

slow = pytest.mark.slow
dtypes = pytest.mark.parametrize("dtype", DTYPES)
orders = pytest.mark.parametrize("order", ["C", "F"])
# A row's place and the threads have no part in what an entry adds to the sums.
every_measure = pytest.mark.parametrize(
    "measure", [fastkl.kl_divergence, *(pytest.param(x, marks=slow) for x in MEASURES if x is not fastkl.kl_divergence)]
)


@functools.cache
def operands(dtype, rows, n, order="C"):
    """Distributions, with rows among them that take every other way through the kernels."""
    p, q = np.random.default_rng(n).random((2, rows, n))
    p[0, -1] = q[0, -1] = 0
    if rows > 1:
        p[0::7, n // 4] = -0.0
        q[1::7, n // 2] = 0  # an infinite result
        q[2::7] *= 1000  # sums that differ widely
        q[3::7] = p[3::7]
        p[4::7, n // 3] = np.finfo(dtype).tiny / 4
        q[4::7, n // 3] = np.finfo(dtype).tiny / 8
        p[5::7, 0] = np.nan
        q[6::7] = -q[6::7]
        q[13::14, n // 3] = np.inf
    p, q = (np.array(x, dtype, order=order) for x in (p, q))
    p.flags.writeable = q.flags.writeable = False
    return p, q


def doubles(measure, p, q, **keywords):
    """The measure's values before they are rounded to float32: every bit of them counts."""
    out = np.empty(np.broadcast_shapes(p.shape, p.shape if measure is entropy else q.shape)[:-1])
    return measure(p, q, normalize=True, invalid="nan", out=out, **keywords)


@pytest.mark.parametrize(
    ("rows", "n", "order"),
    [
        *((2000, 100, "C"), (2000, 100, "F"), (66_000, 3, "C")),
        *((1, 5 * PIECE + 12_345, "C"), (1, 4 * PIECE, "C"), (7, PIECE + 1, "C"), (7, PIECE + 1, "F")),
        pytest.param(17, PIECE + 77, "C", marks=slow),  # enough rows for 2 threads
    ],
)
@pytest.mark.parametrize("dtype", ["f8", pytest.param("f4", marks=slow)])
@every_measure
def test_same_bits_for_any_number_of_threads(tier, measure, dtype, rows, n, order):
    """And for a wide row alone as for several, and for strided and for broadcast rows."""
    p, q = operands(dtype, rows, n, order)
    pairs = [(p, q)]
    if (rows, order) == (2000, "C"):
        pairs += [(p[::-1, ::2], q[::-1, ::2]), (np.asfortranarray(p), q), (p[:, np.newaxis, :20], q[:4, :20])]
    for pair in pairs:
        one, *others = [doubles(measure, *pair, threads=threads) for threads in THREADS]
        assert rows == 1 or np.isnan(one).any()
        for result in others:
            assert_same_bits(result, one)
    for i in range(7) if rows == 7 and order == "C" else ():
        assert_same_bits(doubles(measure, p[i], q[i], threads=2), one[i])


WIDE, ROWS_OF_WIDE = 2 * PIECE + 9, 10
ENDS = [0, PIECE - 1, PIECE, 2 * PIECE - 1, 2 * PIECE, WIDE - 1]  # of its pieces


def wide_logits(dtype):
    """Rows of logits whose pieces differ: by masks, by their size, or in whether a pass over them is accepted."""
    apart, near, both, one, small, none, soft, far, coarse, equal = range(ROWS_OF_WIDE)
    p, q = np.random.default_rng(3).normal(0, 3, (2, ROWS_OF_WIDE, WIDE))
    p[apart, 5] = q[apart, PIECE + 5] = 40
    q[near] = p[near] + q[near] / 1000
    for x in p, q:
        x[both, ENDS] = x[none, PIECE : 2 * PIECE] = -np.inf
        x[soft, PIECE:] -= 1e9
    q[one, [PIECE - 1, WIDE - 1]] = q[small, WIDE - 1] = -np.inf
    p[small, WIDE - 1] = -300
    p[far, PIECE:] += 3000
    q[far] -= 5000
    q[coarse, 2 * PIECE :] = -1e30
    q[equal] = p[equal]
    return p.astype(dtype), q.astype(dtype)


@functools.cache
def calls_of_wide_logits(dtype, temperature):
    """Calls with rows of logits, by name; each takes the number of threads."""
    p, q = wide_logits(dtype)
    labels, keywords = np.arange(ROWS_OF_WIDE) * PIECE // 5, {"from_logits": True, "temperature": temperature}
    probabilities = np.exp(np.clip(p, -30, 30))
    result = {
        measure.__name__: lambda threads, measure=measure: doubles(measure, p, q, threads=threads, **keywords)
        for measure in (fastkl.kl_divergence, fastkl.cross_entropy, fastkl.js_divergence, entropy)
    }
    result["eps"] = lambda threads: doubles(fastkl.cross_entropy, p, q, eps=1e-9, threads=threads, **keywords)
    result["from_logits='q'"] = lambda threads: doubles(
        fastkl.kl_divergence, probabilities[:6], q[:6], threads=threads, from_logits="q", temperature=temperature
    )
    result["nll"] = lambda threads: fastkl.nll(labels, q, label_smoothing=0.1, threads=threads, **keywords)
    result["compare"] = lambda threads: np.array(fastkl.compare(p, q, labels, threads=threads, **keywords))
    return result


@pytest.mark.parametrize(("dtype", "temperature"), [("f4", 1.0), pytest.param("f8", 0.7, marks=slow)])
def test_same_bits_of_wide_logits_for_any_number_of_threads(tier, dtype, temperature):
    """With one thread, these rows are no wider than a block and are not shared."""
    for name, call in calls_of_wide_logits(dtype, temperature).items():
        one, *others = [call(threads) for threads in THREADS]
        assert not np.isnan(one).any(), name
        for result in others:
            assert_same_bits(result, one, name)
        if name == "compare":
            p, q = wide_logits(dtype)
            fields = fastkl.Comparison(*one)
            np.testing.assert_array_equal(np.isinf(fields.kl), np.isin(np.arange(ROWS_OF_WIDE), [3, 4]))
            alone = fastkl.entropy(q, from_logits=True, temperature=temperature)
            np.testing.assert_allclose(fields.entropy_q, alone, rtol=1e-5)
            np.testing.assert_array_equal(fields.same_argmax, p.argmax(axis=1) == q.argmax(axis=1))
        if name == "nll":
            row = wide_logits(dtype)[1][0].astype(float) / temperature
            log_sum = np.log(np.exp(row).sum())
            assert one[0] == pytest.approx(log_sum - 0.9 * row[0] - 0.1 * row.mean(), rel=1e-6)


@orders
@pytest.mark.parametrize("n", [1, 3, 31, 65, 512, 1025, *(pytest.param(n, marks=slow) for n in (2, 64, 511))])
@dtypes
@every_measure
def test_same_bits_at_every_position(tier, measure, dtype, n, order):
    """Whatever the neighbours are, in more rows than one block has."""
    p, q = operands(dtype, 600 if n < 100 else 200, n, order)
    own_p, own_q = np.random.default_rng(n + 1).random((2, n)).astype(dtype)
    values = []
    for start, threads in itertools.product(range(3), (1, 3)):
        many_p, many_q = p.copy("K"), q.copy("K")
        many_p[start::3], many_q[start::3] = own_p, own_q
        values.append(doubles(measure, many_p, many_q, threads=threads)[start::3])
    if order == "C":
        values.append(doubles(measure, own_p, own_q)[np.newaxis])
    for value in values:
        assert_same_bits(value, np.full_like(value, values[0][0]))


def at_byte(offset, a):
    """A copy of the array, in its order, that begins so many bytes behind the beginning of some allocated memory."""
    memory = np.empty(offset + a.nbytes, np.uint8)[offset:].view(a.dtype)
    copy = memory.reshape(a.shape, order="F" if a.flags.f_contiguous else "C")
    copy[...] = a
    return copy


@orders
@pytest.mark.parametrize("n", [7, 512, 1100])
@dtypes
@every_measure
def test_same_bits_for_every_alignment(tier, measure, dtype, n, order):
    p, q = operands(dtype, 40, n, order)
    expected = doubles(measure, p, q)
    for offset in range(65):
        assert_same_bits(doubles(measure, at_byte(offset, p), at_byte((3 * offset) % 64, q)), expected)


@every_measure
def test_same_bits_for_all_threads_row_offsets_and_alignments(tier, measure):
    """All at once: rows of which each thread gets some, somewhere in more memory, at every byte of a cache line."""
    own_p, own_q = operands("f8", 900, 150)
    expected = doubles(measure, own_p, own_q)
    for offset in range(64) if NIGHT else range(0, 64, 9):
        own = slice(offset % 7, offset % 7 + 900)
        p, q = (at_byte(at, np.random.default_rng(at).random((907, 150))) for at in (offset, 63 - offset))
        p[own], q[own] = own_p, own_q
        for threads in THREADS * (100 if NIGHT else 1):
            assert_same_bits(doubles(measure, p, q, threads=threads)[own], expected)


@pytest.mark.parametrize("n", [1, 20, 200])
def test_every_row_of_every_block_is_written_and_counted(tier, n):
    """Blocks of rows that are neighbours begin where cache lines do, so the first of them and the last may be shorter."""
    p, q = (np.asfortranarray(x) for x in operands("f8", 1100, n))
    expected = doubles(fastkl.kl_divergence, p, q)
    invalid = np.flatnonzero(np.isnan(fastkl.entropy(p, normalize=True, invalid="nan")))
    for rows in (127, 128, 129, 255, 256, 257, 511, 512, 513, 1024, 1040):
        for start in range(9):
            out = np.full(rows, -1.0)
            some = slice(start, start + rows)
            fastkl.kl_divergence(p[some], q[some], normalize=True, invalid="nan", out=out)
            assert_same_bits(out, expected[some])
            with pytest.raises(fastkl.InvalidRowError) as caught:
                fastkl.entropy(p[some], normalize=True)
            assert caught.value.index[0] == invalid[invalid >= start][0] - start


ROWS = 300_000
BAD_ROWS = {
    "the last": {ROWS - 1: "p entry"},
    "the first": {0: "q sum", 1: "p sum", ROWS - 1: "p entry"},
    "several": {270_000: "p sum", 123_457: "q entry", 123_456: "q sum", 200_000: "p entry"},
    "many": dict.fromkeys(range(100_001, ROWS, 1000), "p sum"),
    "very many": dict.fromkeys(range(222_222, ROWS, 10), "q entry"),
}


def many_rows(bad):
    """Distributions, some of them made invalid: "p entry" puts a NaN into a row of p, "q sum" makes one of q sum to 2."""
    pair = np.random.default_rng(5).random((2, ROWS, 3), "f4")
    pair /= pair.sum(axis=-1, keepdims=True)
    for row, kind in bad.items():
        pair["pq".index(kind[0]), row] = [0.5, np.nan if kind.endswith("entry") else 1, 0.5]
    return pair


@pytest.mark.parametrize("bad", BAD_ROWS.values(), ids=BAD_ROWS)
def test_the_first_bad_row_is_named_by_every_number_of_threads(tier, bad):
    first, (p, q), messages = min(bad), many_rows(bad), set()
    for pair, threads in itertools.product([(p, q), (np.asfortranarray(p), np.asfortranarray(q))], THREADS):
        with pytest.raises(ValueError, match=" must ") as caught:
            fastkl.kl_divergence(*pair, threads=threads)
        messages.add(str(caught.value))
    assert len(messages) == 1
    operand, what = bad[first].split()
    start = f"{operand}[{first}, 1] = nan: " if what == "entry" else f"{operand}[{first}] sums to 2: "
    assert messages.pop().startswith(start)


def test_every_bad_row_is_nan_and_no_other(tier):
    bad = {**BAD_ROWS["several"], **BAD_ROWS["very many"]}
    expected, pair = fastkl.kl_divergence(*many_rows({}), threads=2), many_rows(bad)
    expected[list(bad)] = np.nan
    for threads in 1, 3:
        assert_same_bits(fastkl.kl_divergence(*pair, invalid="nan", threads=threads), expected)


@pytest.mark.parametrize("threads", [1, 3, *(pytest.param(threads, marks=slow) for threads in (2, 7))])
def test_a_bad_entry_in_any_piece_of_a_wide_row(tier, threads):
    n = 2 * PIECE + 9
    p = np.full((2, n), 1 / n)
    for row, column in itertools.product(range(2), (0, PIECE - 1, PIECE, PIECE + 5, n - 1)):
        p[row, column] = -1
        with pytest.raises(ValueError, match=rf"^q\[{row}, {column}\] = -1.0: "):
            fastkl.kl_divergence(np.abs(p), p, normalize=True, threads=threads)
        result = fastkl.entropy(p, invalid="nan", threads=threads)
        np.testing.assert_array_equal(np.isnan(result), np.arange(2) == row)
        assert result[1 - row] == pytest.approx(np.log(n), rel=1e-14)
        p[row, column] = 1 / n


@pytest.mark.parametrize("threads", [1, 3, *(pytest.param(threads, marks=slow) for threads in (2, 7))])
def test_the_first_invalid_row_of_wide_logits(tier, threads):
    """Rows before it want more passes than it does; rows behind it are invalid, too."""
    p, q = wide_logits("f4")
    p[8, 5] = np.inf
    for measure, row, column in (fastkl.js_divergence, 1, 0), (fastkl.compare, 6, PIECE), (fastkl.nll, 1, WIDE - 1):
        before, q[row, column] = q[row, column], np.nan
        with pytest.raises(ValueError, match=rf"^q\[{row}, {column}\] = nan: "):
            measure(np.zeros(ROWS_OF_WIDE, int) if measure is fastkl.nll else p, q, from_logits=True, threads=threads)
        q[row, column] = before
    q[3] = -np.inf
    with pytest.raises(ValueError, match=r"^q\[3\]"):
        fastkl.kl_divergence(p, q, from_logits=True, threads=threads)
    result = fastkl.kl_divergence(p, q, from_logits=True, threads=threads, invalid="nan")
    np.testing.assert_array_equal(np.flatnonzero(np.isnan(result)), [3, 8])


# <fenv.h> of glibc, musl and macOS: invalid, division by zero and overflow; all flags; rounding upward and downward.
FENV = {"x86_64": (0x01 | 0x04 | 0x08, 0x3D, 0x800, 0x400), "aarch64": (0x1 | 0x2 | 0x4, 0x1F, 0x400000, 0x800000)}
SERIOUS, ALL, UPWARD, DOWNWARD = FENV.get("aarch64" if platform.machine() == "arm64" else platform.machine(), [0] * 4)
if platform.machine() == "x86_64" and fastkl.build_info()["simd_available"] == ["baseline"]:
    ALL &= ~0x20  # without FMA, glibc's fma clears the x87 unit's inexact flag, which <fenv.h> takes together with MXCSR's
with_fenv = pytest.mark.skipif(sys.platform == "win32" or not ALL, reason="does not know this platform's <fenv.h>")


@pytest.fixture
def libm():
    """The library of <fenv.h>. The flags and modes that the test finds are restored at its end."""
    library, environment = ctypes.CDLL(ctypes.util.find_library("m")), (ctypes.c_uint32 * 16)()
    library.fegetenv(environment)
    yield library
    library.fesetenv(environment)


def calls(outs=("f4",)):
    """One for every way through the kernels, and into every `out`."""
    result = {}
    alone = (14, 300, "C", None, 1), (14, 300, "C", 2, 1), (28, 100, "F", 2, 1), (1, PIECE + 1, "C", None, 1)
    shared = (400, 100, "F", 2, 2), (1, PIECE + 1, "C", None, 2)
    for measure, dtype in itertools.product(MEASURES, DTYPES):
        for rows, n, order, base, threads in alone + shared if measure is fastkl.kl_divergence else alone:
            p, q = operands(dtype, rows, n, order)
            keywords = accepted(measure, base=base, threads=threads, invalid="nan", normalize=True)
            name = f"{measure.__name__}, {dtype}, {rows} x {n}, base {base}, {threads} threads"
            result[name] = functools.partial(measure, p, q, **keywords)
            for to in outs if n == 300 else ():
                result[f"{name}, to {to}"] = functools.partial(measure, p, q, out=np.empty(rows, to), **keywords)
            for number in (np.finfo(dtype).max, np.finfo(dtype).smallest_subnormal) if n == 300 else ():
                other = np.full_like(p, number)
                result[f"{name}, q = {number}"] = functools.partial(measure, p, other, **keywords)
                result[f"{name}, p = {number}"] = functools.partial(measure, other, q, **keywords)
    for dtype, temperature in itertools.product(DTYPES, (0.1, 0.7, 1.7, 3.0, 7.3)):
        p, q = np.random.default_rng(7).normal(0, 3, (2, 20, 50)).astype(dtype)
        keywords = {"from_logits": True, "temperature": temperature}
        for measure in fastkl.kl_divergence, fastkl.js_divergence, fastkl.cross_entropy:
            name = f"logits, {dtype}, temperature {temperature}, {measure.__name__}"
            result[name] = functools.partial(measure, p, q, **keywords)
    p, q = wide_logits("f4")
    result["wide logits"] = functools.partial(fastkl.kl_divergence, p[:4], q[:4], from_logits=True, threads=2)
    return result


@with_fenv
def test_no_serious_flag_is_raised_and_none_is_cleared(tier, libm):
    for name, call in calls().items():
        libm.feclearexcept(ALL)
        call()
        assert not libm.fetestexcept(SERIOUS), name
        libm.feraiseexcept(ALL)
        call()
        assert libm.fetestexcept(ALL) == ALL, name


@with_fenv
@pytest.mark.parametrize("mode", [pytest.param(UPWARD, id="upward"), pytest.param(DOWNWARD, id="downward", marks=slow)])
def test_the_rounding_mode_is_kept_and_does_not_matter(tier, libm, mode):
    nearest = libm.fegetround()
    for name, call in calls(("f4", ">f4", "f2")).items():
        expected = call().copy()
        assert libm.fesetround(mode) == 0
        try:
            result, after = call(), libm.fegetround()
        finally:
            libm.fesetround(nearest)
        assert after == mode, name
        np.testing.assert_array_equal(result, expected, err_msg=name)


def test_numpys_error_state_does_not_matter():
    before = np.geterr()
    with np.errstate(all="raise"):
        for call in calls().values():
            call()
        for row in [1e308, 1e308], [np.inf, np.nan], [0, 5e-324], [-np.inf, np.inf]:
            with pytest.raises(ValueError, match=r"^p"):
                fastkl.entropy(row)
    assert np.geterr() == before
