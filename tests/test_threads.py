"""Threads, and a row's place in memory: neither changes a bit of a result, a message, or the caller's floating-point state.

A build without OpenMP passes trivially where threads are counted.
"""

from __future__ import annotations

import contextlib
import ctypes
import ctypes.util
import functools
import hashlib
import itertools
import platform
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import settings
from measures import MEASURES

import fastkl

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Array = np.ndarray[Any, Any]

pytestmark = pytest.mark.usefixtures("tier")

DTYPES = ["f8", "f4"]
THREADS = [1, 2, 3, 7]
PIECE = 65_536  # rows wider than this are shared out in pieces of it


def assert_same_bits(result: Array, expected: Array) -> None:
    unsigned = f"u{expected.itemsize}"
    assert result.dtype == expected.dtype
    np.testing.assert_array_equal(result.view(unsigned), expected.view(unsigned))


@functools.cache
def operands(dtype: str, rows: int, n: int, order: str = "C") -> tuple[Array, Array]:
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
    return np.array(p, dtype, order=order), np.array(q, dtype, order=order)


def doubles(measure: Callable[..., Any], p: Array, q: Array, **keywords: Any) -> Array:
    """The measure's values before they are rounded to float32: every bit of them counts."""
    out = np.empty(p.shape[:-1])
    return measure(p, q, normalize=True, invalid="nan", out=out, **keywords)


# ---- the number of threads ----


@pytest.mark.parametrize(
    ("rows", "n", "order"),
    [
        pytest.param(3000, 100, "C", id="many rows"),
        pytest.param(3000, 100, "F", id="many columns"),
        pytest.param(100_000, 3, "C", id="many narrow rows"),
        pytest.param(1, 5 * PIECE + 12_345, "C", id="one very wide row"),
        pytest.param(1, 4 * PIECE, "C", id="one row of whole pieces"),
        pytest.param(7, PIECE + 1, "C", id="few wide rows"),
        pytest.param(7, PIECE + 1, "F", id="few long columns"),
        pytest.param(17, PIECE + 77, "C", id="wide rows, enough for 2 threads"),
    ],
)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("measure", MEASURES)
def test_same_bits_for_every_number_of_threads(
    measure: Callable[..., Any], dtype: str, rows: int, n: int, order: str
) -> None:
    p, q = operands(dtype, rows, n, order)
    one, *others = [doubles(measure, p, q, threads=threads) for threads in THREADS]
    assert rows == 1 or np.isnan(one).any()
    for result in others:
        assert_same_bits(result, one)


@pytest.mark.parametrize("measure", MEASURES)
def test_same_bits_for_one_row_as_for_many(measure: Callable[..., Any]) -> None:
    p, q = operands("f8", 7, PIECE + 1)
    together = doubles(measure, p, q, threads=3)
    for i in range(7):
        assert_same_bits(doubles(measure, p[i], q[i], threads=2), together[i])


def test_strided_and_broadcast_rows_are_shared_out_alike() -> None:
    p, q = operands("f8", 3000, 100)
    for measure in MEASURES:
        for pair in (p[::-1, ::2], q[::-1, ::2]), (np.asfortranarray(p), q), (p[:, np.newaxis, :20], q[:40, :20]):
            one, *others = [measure(*pair, normalize=True, invalid="nan", threads=threads) for threads in THREADS]
            for result in others:
                assert_same_bits(result, one)


# ---- the row's place ----


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("n", [1, 2, 3, 31, 64, 65, 511, 512, 1025])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("measure", MEASURES)
def test_same_bits_at_every_position(measure: Callable[..., Any], dtype: str, n: int, order: str) -> None:
    """Whatever the neighbours are, in more rows than one block has."""
    p, q = operands(dtype, 600, n, order)
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


def at_byte(offset: int, a: Array) -> Array:
    """A copy of the array, in its order, that begins so many bytes behind the beginning of some allocated memory."""
    memory = np.empty(offset + a.nbytes, np.uint8)[offset:].view(a.dtype)
    copy = memory.reshape(a.shape, order="F" if a.flags.f_contiguous else "C")
    copy[...] = a
    return copy


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("n", [7, 512, 1100])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("measure", MEASURES)
def test_same_bits_for_every_alignment(measure: Callable[..., Any], dtype: str, n: int, order: str) -> None:
    p, q = operands(dtype, 40, n, order)
    expected = doubles(measure, p, q)
    for offset in range(65):
        there_p, there_q = at_byte(offset, p), at_byte((3 * offset) % 64, q)
        assert_same_bits(doubles(measure, there_p, there_q), expected)


REPEATS = 100 if settings.default.max_examples > 100 else 1  # HYPOTHESIS_PROFILE=night


@pytest.mark.parametrize("measure", MEASURES)
def test_one_digest_for_all_threads_row_offsets_and_alignments(measure: Callable[..., Any]) -> None:
    """All at once: rows of which each thread gets some, somewhere in more memory, at every byte of a cache line."""
    own_p, own_q = operands("f8", 900, 150)
    digests = set()
    for offset in range(64):
        start = offset % 7
        p, q = (np.random.default_rng(offset).random((907, 150)) for _ in "pq")
        p, q = at_byte(offset, p), at_byte(63 - offset, q)
        p[start : start + 900], q[start : start + 900] = own_p, own_q
        for threads, _ in itertools.product(THREADS, range(REPEATS)):
            values = doubles(measure, p, q, threads=threads)[start : start + 900]
            digests.add(hashlib.sha256(values.tobytes()).hexdigest())
    assert len(digests) == 1


@pytest.mark.parametrize("n", [1, 20, 200])
def test_every_row_of_every_block_is_written(n: int) -> None:
    """Blocks of rows that are neighbours begin where cache lines do, so the first of them and the last may be shorter."""
    p, q = (np.asfortranarray(x) for x in operands("f8", 1100, n))
    expected = doubles(fastkl.kl_divergence, p, q)
    for rows in (127, 128, 129, 255, 256, 257, 511, 512, 513, 1024, 1040):
        for start in range(17):
            out = np.full(rows, -1.0)
            some = slice(start, start + rows)
            fastkl.kl_divergence(p[some], q[some], normalize=True, invalid="nan", out=out)
            assert_same_bits(out, expected[some])


# ---- invalid rows ----

ROWS = 1_000_000


@functools.cache
def many_rows() -> tuple[Array, Array]:
    p, q = np.random.default_rng(5).random((2, ROWS, 3), "f4")
    p /= p.sum(axis=-1, keepdims=True)
    q /= q.sum(axis=-1, keepdims=True)
    return p, q


@contextlib.contextmanager
def spoilt(bad: dict[int, str]) -> Iterator[tuple[Array, Array]]:
    """The many rows, with some made invalid: "p entry" puts a NaN into a row of p, "q sum" makes one of q sum to 2."""
    p, q = many_rows()
    rows = list(bad)
    before = p[rows], q[rows]
    for row, kind in bad.items():
        (p if kind[0] == "p" else q)[row] = [0.5, np.nan, 0.5] if kind.endswith("entry") else [0.5, 1, 0.5]
    try:
        yield p, q
    finally:
        p[rows], q[rows] = before


BAD_ROWS = {
    "the last": {ROWS - 1: "p entry"},
    "the first": {0: "q sum", 1: "p sum", ROWS - 1: "p entry"},
    "several": {900_000: "p sum", 123_457: "q entry", 123_456: "q sum", 500_000: "p entry"},
    "many": dict.fromkeys(range(100_001, ROWS, 1000), "p sum"),
    "very many": dict.fromkeys(range(222_222, ROWS, 10), "q entry"),
}


@pytest.mark.parametrize("bad", BAD_ROWS.values(), ids=BAD_ROWS)
def test_the_first_bad_row_is_named_by_every_number_of_threads(bad: dict[int, str]) -> None:
    first = min(bad)
    operand, what = bad[first].split()
    start = f"{operand}[{first}, 1] = nan: " if what == "entry" else f"{operand}[{first}] sums to 2: "
    with spoilt(bad) as (p, q):
        messages = set()
        for threads in THREADS:
            with pytest.raises(ValueError, match=" must ") as caught:
                fastkl.kl_divergence(p, q, threads=threads)
            messages.add(str(caught.value))
        assert len(messages) == 1
        assert messages.pop().startswith(start)


@pytest.mark.parametrize("threads", [1, 3])
def test_every_bad_row_is_nan_and_no_other(threads: int) -> None:
    bad = {**BAD_ROWS["several"], **BAD_ROWS["very many"]}
    expected = fastkl.kl_divergence(*many_rows(), threads=2)
    expected[list(bad)] = np.nan
    with spoilt(bad) as (p, q):
        assert_same_bits(fastkl.kl_divergence(p, q, invalid="nan", threads=threads), expected)


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("row", range(3))
def test_a_bad_entry_in_any_piece_of_a_wide_row(row: int, threads: int) -> None:
    p = np.full((3, 4 * PIECE + 9), 1 / (4 * PIECE + 9))
    for column in 0, PIECE - 1, PIECE, 3 * PIECE + 5, 4 * PIECE + 8:
        p[row, column] = -1
        with pytest.raises(ValueError, match=rf"^q\[{row}, {column}\] = -1.0: "):
            fastkl.kl_divergence(np.abs(p), p, normalize=True, threads=threads)
        result = fastkl.entropy(p, invalid="nan", threads=threads)
        np.testing.assert_array_equal(np.isnan(result), np.arange(3) == row)
        p[row, column] = p[row - 1, column]


# ---- Python's threads ----


def test_two_python_threads_at_the_same_time() -> None:
    """One computes, the other is refused, again and again."""
    p, q = operands("f8", 3000, 100)
    expected = fastkl.kl_divergence(p, q, normalize=True, invalid="nan")
    start = Barrier(2)

    def compute() -> None:
        start.wait()
        for threads in THREADS * 5:
            assert_same_bits(fastkl.kl_divergence(p, q, normalize=True, invalid="nan", threads=threads), expected)

    def be_refused() -> None:
        start.wait()
        for threads in THREADS * 5:
            with pytest.raises(ValueError, match=r"^p\[5, 0\] = nan: "):
                fastkl.entropy(p, normalize=True, threads=threads)

    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(compute), pool.submit(be_refused)]:
            done.result()


# ---- the floating-point environment of the caller ----

# <fenv.h> of glibc, musl and macOS: invalid, division by zero and overflow; all flags; rounding upward and downward.
FENV = {"x86_64": (0x01 | 0x04 | 0x08, 0x3D, 0x800, 0x400), "aarch64": (0x1 | 0x2 | 0x4, 0x1F, 0x400000, 0x800000)}
SERIOUS, ALL, UPWARD, DOWNWARD = FENV.get("aarch64" if platform.machine() == "arm64" else platform.machine(), [0] * 4)
if platform.machine() == "x86_64" and fastkl.build_info()["simd_available"] == ["baseline"]:
    ALL &= ~0x20  # without FMA, glibc's fma clears the x87 unit's inexact flag, which <fenv.h> takes together with MXCSR's
with_fenv = pytest.mark.skipif(sys.platform == "win32" or not ALL, reason="does not know this platform's <fenv.h>")


@functools.cache
def libm() -> ctypes.CDLL:
    return ctypes.CDLL(ctypes.util.find_library("m"))


def calls(outs: tuple[str, ...] = ("f4",)) -> dict[str, Callable[[], Any]]:
    """One for every way through the kernels, and into every `out`."""
    result: dict[str, Callable[[], Any]] = {}
    for measure, dtype, base in itertools.product(MEASURES, DTYPES, (None, 2)):
        for rows, n, threads, order in (60, 300, 1, "C"), (400, 100, 2, "F"), (1, PIECE + 1, 2, "C"):
            p, q = operands(dtype, rows, n, order)
            keywords = {"base": base, "threads": threads, "invalid": "nan", "normalize": True}
            name = f"{measure.__name__}, {dtype}, {rows} x {n}, base {base}"
            result[name] = functools.partial(measure, p, q, **keywords)
            for to in outs:
                result[f"{name}, to {to}"] = functools.partial(measure, p, q, out=np.empty(rows, to), **keywords)
            if n == 300:
                large, small = np.full_like(p, np.finfo(dtype).max), np.full_like(p, np.finfo(dtype).smallest_subnormal)
                for other in large, small:
                    result[f"{name}, q = {other[0, 0]}"] = functools.partial(measure, p, other, **keywords)
                    result[f"{name}, p = {other[0, 0]}"] = functools.partial(measure, other, q, **keywords)
    for dtype, temperature in itertools.product(DTYPES, (0.1, 0.7, 1.7, 3.0, 7.3)):
        p, q = np.random.default_rng(7).normal(0, 3, (2, 100, 50)).astype(dtype)
        name = f"logits, {dtype}, temperature {temperature}"
        for measure in fastkl.kl_divergence, fastkl.js_divergence, fastkl.cross_entropy:
            result[f"{name}, {measure.__name__}"] = functools.partial(
                measure, p, q, from_logits=True, temperature=temperature
            )
    return result


@with_fenv
def test_no_serious_flag_is_raised_and_none_is_cleared() -> None:
    for name, call in calls().items():
        libm().feclearexcept(ALL)
        call()
        assert not libm().fetestexcept(SERIOUS), name
        libm().feraiseexcept(ALL)
        call()
        assert libm().fetestexcept(ALL) == ALL, name
    libm().feclearexcept(ALL)


@with_fenv
@pytest.mark.parametrize("mode", [UPWARD, DOWNWARD], ids=["upward", "downward"])
def test_the_rounding_mode_is_kept_and_does_not_matter(mode: int) -> None:
    nearest = libm().fegetround()
    for name, call in calls(("f4", ">f4", "f2")).items():
        expected = call().copy()
        assert libm().fesetround(mode) == 0
        try:
            result, after = call(), libm().fegetround()
        finally:
            libm().fesetround(nearest)
        assert after == mode, name
        np.testing.assert_array_equal(result, expected, err_msg=name)


def test_numpys_error_state_does_not_matter() -> None:
    before = np.geterr()
    with np.errstate(all="raise"):
        for call in calls().values():
            call()
        for row in [1e308, 1e308], [np.inf, np.nan], [0, 5e-324], [-np.inf, np.inf]:
            with pytest.raises(ValueError, match=r"^p"):
                fastkl.entropy(row)
    assert np.geterr() == before
