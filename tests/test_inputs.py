"""Every kind of input: thousands of generated calls, an `out` that overlaps an operand, memory, and size.

tests/inputs.py generates calls and judges their results; tests/footprint.py measures the memory that calls use. Both run in
processes of their own, so that a crash fails one test. With HYPOTHESIS_PROFILE=night there are as many times more cases as
hypothesis has more examples, and some calls take minutes.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import settings
from inputs import MARGIN, OUT, Layout, layout
from measures import MEASURES, PAIR_MEASURES

import fastkl
from fastkl import _kernels

if TYPE_CHECKING:
    from collections.abc import Callable

    Array = np.ndarray[Any, Any]

TESTS = Path(__file__).parent
TIERS = _kernels.tiers()
SCALE = settings.default.max_examples // 100  # 1, or 200 at night
NIGHT = SCALE > 1


def run(script: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a script of this folder with the fastkl that is tested here."""
    path = os.pathsep.join([str(Path(fastkl.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, str(TESTS / script), *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": path, **environment}
    )


# ---- generated calls ----

BATCH, BATCHES = 500, 12 * SCALE


@pytest.mark.parametrize("batch", range(BATCHES))
def test_any_call_gives_the_values_of_doubles_or_an_error(batch: int) -> None:
    """Batches take turns in the tier that computes."""
    tier = TIERS[batch % len(TIERS)]
    done = run("inputs.py", str(batch * BATCH), str(BATCH), tier)
    *started, report = done.stdout.splitlines() or [""]
    assert done.returncode == 0, f"case {(started or [report])[-1]} on {tier} ended the process: {done.stderr}"
    report = json.loads(report)
    assert not report["failures"], f"on {tier}, as `python tests/inputs.py NUMBER 1 {tier}` does:\n" + "\n".join(
        report["failures"][:5]
    )
    assert report["judged"] == BATCH
    assert min(report["refused"], report["raised"]) > BATCH / 100


# ---- out that overlaps ----

SIZE = 8192  # of the shared memory, in bytes: any of the shapes fits
PAIRS = 10_000 * SCALE


def fitting(pick: random.Random, shape: tuple[int, ...], dtype: np.dtype[Any], repeated: tuple[int, ...] = ()) -> Layout:
    """A layout that fits into the shared memory, from its start on."""
    while True:
        where = layout(pick, shape, dtype, repeated)
        if where.size - 2 * MARGIN <= SIZE:
            return where._replace(offset=where.offset - MARGIN, size=where.size - 2 * MARGIN)


def crowded(pick: random.Random, *places: Layout) -> list[Layout]:
    """The same layouts at random places in as much memory as the largest of them needs."""
    room = max(where.size for where in places)
    return [where._replace(offset=where.offset + pick.randrange(room - where.size + 1)) for where in places]


def whole(where: Layout, buffer: bytearray) -> Array:
    """The entries of the layout as raw bytes."""
    return where._replace(dtype=np.dtype(f"V{where.dtype.itemsize}")).view(buffer)


@pytest.mark.usefixtures("tier")
def test_out_may_overlap_the_operands_in_any_way() -> None:
    """Operands and out are views of the same memory, of bytes from 0x30 to 0x3F, which are positive numbers in any dtype.

    The same call with views of a copy of that memory and a separate out gives the expected bits. All bytes beside out must
    be as before.
    """
    dtypes = [np.dtype(kind) for kind in ("f8", "f8", "f4", "f4", "f2", ">f8", ">f4", "i8", "u2", "i1")]
    weights = bytes(random.Random(0).choices(range(0x30, 0x40), k=SIZE))
    overlapping = 0
    for number in range(PAIRS):
        pick = random.Random(number)
        measure, keepdims = pick.choice(MEASURES), pick.random() < 0.2
        shape = (*(pick.randint(1, 5) for _ in range(pick.choice([0, 1, 1, 1, 2]))), pick.choice([1, 2, 3, 7, 20]))
        other = tuple(1 if pick.random() < 0.1 else length for length in shape[:-1]) + shape[-1:]
        operands = (
            fitting(pick, own, pick.choice(dtypes), tuple(i for i in range(len(own)) if pick.random() < 0.05))
            for own in (shape, other)
        )
        result = (*shape[:-1], 1) if keepdims else shape[:-1]
        *places, place = crowded(pick, *operands, fitting(pick, result, pick.choice(OUT)))

        memory, before = bytearray(weights), bytearray(weights)
        p, q = (where.view(memory) for where in places)
        out = place.view(memory)
        overlapping += np.may_share_memory(out, p) or (measure in PAIR_MEASURES and np.may_share_memory(out, q))
        expected = np.zeros(result, place.dtype)
        keywords: dict[str, Any] = {"normalize": True, "keepdims": keepdims}
        measure(*(where.view(before) for where in places), out=expected, **keywords)
        assert measure(p, q, out=out, **keywords) is out
        pair = f"pair {number}: {measure.__name__} of {places[0]} and {places[1]}, keepdims={keepdims}, into {place}"
        assert np.array_equal(out, expected), pair
        whole(place, memory)[...] = whole(place, before)[...] = np.void(bytes(place.dtype.itemsize))
        assert memory == before, pair
    assert overlapping > PAIRS / 2


@pytest.mark.usefixtures("tier")
@pytest.mark.parametrize("measure", MEASURES)
def test_out_may_be_an_operand(measure: Callable[..., Any]) -> None:
    """With keepdims, p of one column has the result's shape; so has a row of a square, and a row that p repeats."""
    source = np.random.default_rng(1).random((64, 64)) + 0.1
    for p, keywords in (source[:, :1].copy(), {"axis": 1}), (source[:1].copy(), {"axis": 0}):
        operand = p.copy()
        assert measure(operand, p + 1, out=operand, keepdims=True, normalize=True, **keywords) is operand
        np.testing.assert_array_equal(operand, measure(p, p + 1, keepdims=True, normalize=True, **keywords))
    for i in range(64):
        p, q = source.copy(), source[::-1].copy()
        expected = measure(p, q, normalize=True)
        assert measure(p, q, out=p[i], normalize=True) is not p
        np.testing.assert_array_equal(p[i], expected)
    row = source[0].copy()
    same = np.broadcast_to(row, (64, 64))
    expected = measure(same, source, normalize=True)
    measure(same, source, out=row, normalize=True)
    np.testing.assert_array_equal(row, expected)


# ---- memory ----


def test_no_call_uses_more_than_a_megabyte_beside_its_result() -> None:
    """Operands have 16 MB in float64, so that a copy of one takes more than a megabyte in any dtype."""
    done = run("footprint.py", MALLOC_MMAP_THRESHOLD_="65536")
    assert done.returncode == 0, done.stderr
    footprints = json.loads(done.stdout)
    copied, mapped = footprints.pop("a copy"), footprints.pop("a mapping")
    assert copied[0] > 16_000_000
    if sys.platform == "linux":
        assert min(copied[1], mapped[1]) > 16_000_000
    assert len(footprints) > 200
    too_much = {name: of for name, of in footprints.items() if max(of[:2]) > 1_000_000 + of[2]}
    assert not too_much


# ---- size ----

BEYOND = 2**31 + 7


def nothing_but(value: float, *shape: int, dtype: str = "f4") -> Array:
    """An array of that shape in the memory of one value."""
    return np.broadcast_to(np.dtype(dtype).type(value), shape)


def test_a_row_of_more_than_2_to_the_31_entries() -> None:
    """The entropy of n equal entries is log n: the error is at most 4 eps H, and an eps is for the logarithm here."""
    for dtype in ["f4", "f8", "u1", "f2"] if NIGHT else ["f4"]:
        value = fastkl.entropy(nothing_but(1, BEYOND, dtype=dtype), normalize=True)
        assert abs(float(value) - np.log(BEYOND)) <= 5 * float(np.finfo(value.dtype).eps) * np.log(BEYOND)
    if NIGHT:
        ones = nothing_but(1, BEYOND)
        assert fastkl.kl_divergence(ones, ones, normalize=True) == 0
        assert fastkl.js_divergence(ones, ones, normalize=True) == 0
        with pytest.raises(fastkl.InvalidRowError, match=r"^p sums to 2147483655: rows must sum to 1 within") as caught:
            fastkl.entropy(ones)
        assert caught.value.index == ()


def test_a_matrix_of_more_than_2_to_the_31_entries() -> None:
    rows, n = 2**10, 2**21 + 1
    one = np.ones(n, "f4")
    one[-1] = 0
    values = fastkl.entropy(np.broadcast_to(one, (rows, n)), normalize=True)
    np.testing.assert_array_equal(values, nothing_but(fastkl.entropy(one, normalize=True), rows))


@pytest.mark.skipif(sys.platform == "win32", reason="files have no holes here")
def test_a_file_of_8_gigabytes(tmp_path: Path) -> None:
    """Almost all of the file is a hole: only the first rows of each gigabyte are written."""
    rows, n = 2**20 + 4, 1024
    file = np.memmap(tmp_path / "p.bin", "f8", "w+", shape=(rows, n))
    gigabyte = 2**17  # in rows
    near = np.concatenate([np.arange(4) + i * gigabyte for i in range(9)])
    small = np.random.default_rng(2).random((len(near), n))
    small /= small.sum(axis=1, keepdims=True)
    file[near] = small
    file.flush()
    p = np.memmap(tmp_path / "p.bin", "f8", "r", shape=(rows, n))
    q = small[::-1].copy()
    for measure in MEASURES:
        values = measure(small, q)
        np.testing.assert_array_equal(measure(p[-4:], q[-4:]), values[-4:])
        np.testing.assert_array_equal(measure(p[:: 4 * gigabyte], q[::16]), values[::16])
        np.testing.assert_array_equal(measure(p[-4 :: -4 * gigabyte], q[32::-16]), values[32::-16])
        np.testing.assert_array_equal(measure(p[near[0] :: gigabyte][:9], q[::4]), values[::4])
        # Columns: the three entries of each row are 4 GB apart, and may be added in another order.
        columns = measure(p[:: 4 * gigabyte], small[::16], axis=0, normalize=True)
        np.testing.assert_array_equal(columns, measure(small[::16], small[::16], axis=0, normalize=True))
    if NIGHT:
        out = np.empty(rows)
        for measure in MEASURES:
            assert measure(p, small[0], invalid="nan", out=out) is out
            np.testing.assert_array_equal(np.flatnonzero(~np.isnan(out)), near)
            np.testing.assert_array_equal(out[near], measure(small, small[0]))


if NIGHT:

    def test_more_than_2_to_the_31_rows() -> None:
        """All results go to the same place, an `out` whose strides are 0. Then the last row of p is invalid."""
        p, q = np.ones((2**16, 1, 1), "f4"), np.ones((2**15 + 1, 1), "f4")
        out = np.lib.stride_tricks.as_strided(np.full(1, np.nan, "f4"), (2**16, 2**15 + 1), (0, 0))
        fastkl.kl_divergence(p, q, out=out)
        assert out[0, 0] == 0
        p[-1] = 2
        with pytest.raises(fastkl.InvalidRowError, match=r"^p\[65535, 0\] sums to 2: ") as caught:
            fastkl.kl_divergence(p, q, out=out)
        assert caught.value.index == (65535, 0)
