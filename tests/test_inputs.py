"""Every kind of input: thousands of generated calls, an `out` that overlaps an operand, memory, and size.

support/inputs.py generates calls and judges their results; support/footprint.py measures the memory of calls. Both run in
processes of their own, so that a crash fails one test. With --slow there are several times more cases; with
HYPOTHESIS_PROFILE=night there are as many times more as hypothesis has more examples, and some calls take minutes.
"""

import json
import random
import subprocess
import sys

import numpy as np
import pytest
from support.checks import assert_same
from support.footprint import LAG, LITTLE
from support.inputs import OUT, layout
from support.measures import MEASURES, PAIR_MEASURES
from support.processes import NIGHT, program

import fastkl
from fastkl import _kernels

TIERS = _kernels.tiers()
SCALE = 200 if NIGHT else 1


def slow(*values):
    """A parameter of a test that only --slow runs."""
    return pytest.param(*values, marks=pytest.mark.slow)


def run(script, *arguments, **environment):
    """Run a program of tests/support with the fastkl that is tested here."""
    command, base = program(script)
    return subprocess.run([*command, *arguments], capture_output=True, text=True, check=False, env=base | environment)


BATCH, BATCHES = 500, 12 * SCALE


@pytest.mark.parametrize("batch", [batch if batch < len(TIERS) else slow(batch) for batch in range(BATCHES)])
def test_any_call_gives_the_values_of_doubles_or_an_error(batch):
    """Batches take turns in the tier that computes."""
    tier = TIERS[batch % len(TIERS)]
    done = run("inputs", str(batch * BATCH), str(BATCH), tier)
    *started, report = done.stdout.splitlines() or [""]
    assert done.returncode == 0, f"case {(started or [report])[-1]} on {tier} ended the process: {done.stderr}"
    report = json.loads(report)
    again = f"on {tier}, as `python -m support.inputs NUMBER 1 {tier}` does:\n"
    assert not report["failures"], again + "\n".join(report["failures"][:5])
    assert len(started) == BATCH
    assert report["raised"] > BATCH / 100


SIZE = 8192  # of the shared memory, in bytes: any of the shapes fits
PAIRS = 1000  # of operands and out in each share


def fitting(pick, shape, dtype, repeated=()):
    """A layout that fits into the shared memory."""
    while (where := layout(pick, shape, dtype, repeated, margin=0)).size > SIZE:
        pass
    return where


@pytest.mark.parametrize("share", [0, *map(slow, range(1, 10 * SCALE))])
def test_out_may_overlap_the_operands_in_any_way(share):
    """Operands and out are views of the same memory, of bytes from 0x30 to 0x3F, which are positive numbers in any dtype.

    The same call with views of a copy of that memory and a separate out gives the expected bits. All bytes beside out must
    be as before.
    """
    dtypes = [np.dtype(kind) for kind in ("f8", "f8", "f4", "f4", "f2", ">f8", ">f4", "i8", "u2", "i1")]
    weights = bytes(random.Random(0).choices(range(0x30, 0x40), k=SIZE))
    overlapping = 0
    for number in range(share * PAIRS, (share + 1) * PAIRS):
        pick = random.Random(number)
        measure, keepdims = pick.choice(MEASURES), pick.random() < 0.2
        shape = (*(pick.randint(1, 5) for _ in range(pick.choice([0, 1, 1, 1, 2]))), pick.choice([1, 2, 3, 7, 20]))
        other = tuple(1 if pick.random() < 0.1 else length for length in shape[:-1]) + shape[-1:]
        operands = (
            fitting(pick, own, pick.choice(dtypes), tuple(i for i in range(len(own)) if pick.random() < 0.05))
            for own in (shape, other)
        )
        result = (*shape[:-1], 1) if keepdims else shape[:-1]
        layouts = [*operands, fitting(pick, result, pick.choice(OUT))]
        room = max(where.size for where in layouts)
        *places, place = (x._replace(offset=x.offset + pick.randrange(room - x.size + 1)) for x in layouts)

        memory, before = bytearray(weights), bytearray(weights)
        p, q = (where.view(memory) for where in places)
        out = place.view(memory)
        overlapping += np.may_share_memory(out, p) or (measure in PAIR_MEASURES and np.may_share_memory(out, q))
        expected = np.zeros(result, place.dtype)
        keywords = {"normalize": True, "keepdims": keepdims}
        measure(*(where.view(before) for where in places), out=expected, **keywords)
        assert measure(p, q, out=out, **keywords) is out
        pair = f"pair {number}: {measure.__name__} of {places[0]} and {places[1]}, keepdims={keepdims}, into {place}"
        assert np.array_equal(out, expected), pair
        place.fill(memory, b"\0")
        place.fill(before, b"\0")
        assert memory == before, pair
    assert overlapping > PAIRS / 2


@pytest.mark.parametrize("step", [11, slow(1)])
def test_calls_allocate_little_beside_their_result(step):
    """support/footprint.py says how much each case may allocate; a copy of an operand has at least 2 MB."""
    done = run("footprint", str(step), MALLOC_MMAP_THRESHOLD_="65536")
    assert done.returncode == 0, done.stderr
    footprints = json.loads(done.stdout)
    copied, mapped = footprints.pop("a copy"), footprints.pop("a mapping")
    assert copied[0] > 16_000_000
    if sys.platform == "linux":
        assert min(copied[1], mapped[1]) > 16_000_000
    assert len(footprints) > 20 + 200 / step
    too_much = [(name, *of) for name, of in footprints.items() if of[0] > LITTLE + of[2] or of[1] > LAG + of[2]]
    assert not too_much


BEYOND = 2**31 + 7


@pytest.mark.slow
def test_a_row_of_more_than_2_to_the_31_entries():
    """The entropy of n equal entries is log n: the error is at most 4 eps H, and an eps is for the logarithm here."""
    for dtype in ["f4", "f8", "u1", "f2"] if NIGHT else ["f4"]:
        value = fastkl.entropy(np.broadcast_to(np.ones(1, dtype), BEYOND), normalize=True)
        assert abs(float(value) - np.log(BEYOND)) <= 5 * float(np.finfo(value.dtype).eps) * np.log(BEYOND)
    if NIGHT:
        ones = np.broadcast_to(np.ones(1, "f4"), BEYOND)
        assert fastkl.kl_divergence(ones, ones, normalize=True) == 0
        assert fastkl.js_divergence(ones, ones, normalize=True) == 0
        with pytest.raises(fastkl.InvalidRowError, match=r"^p sums to 2147483655: rows must sum to 1 within") as caught:
            fastkl.entropy(ones)
        assert caught.value.index == ()


@pytest.mark.slow
def test_a_matrix_of_more_than_2_to_the_31_entries():
    rows, n = 2**10, 2**21 + 1
    one = np.ones(n, "f4")
    one[-1] = 0
    values = fastkl.entropy(np.broadcast_to(one, (rows, n)), normalize=True)
    assert_same(values, np.full(rows, fastkl.entropy(one, normalize=True)))


@pytest.mark.skipif(sys.platform == "win32", reason="files have no holes here")
def test_a_file_of_8_gigabytes(tmp_path):
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
        assert_same(measure(p[-4:], q[-4:]), values[-4:])
        assert_same(measure(p[:: 4 * gigabyte], q[::16]), values[::16])
        assert_same(measure(p[-4 :: -4 * gigabyte], q[32::-16]), values[32::-16])
        assert_same(measure(p[near[0] :: gigabyte][:9], q[::4]), values[::4])
        # Columns: the three entries of each row are 4 GB apart, and may be added in another order.
        columns = measure(p[:: 4 * gigabyte], small[::16], axis=0, normalize=True)
        assert_same(columns, measure(small[::16], small[::16], axis=0, normalize=True))
    if NIGHT:
        out = np.empty(rows)
        for measure in MEASURES:
            assert measure(p, small[0], invalid="nan", out=out) is out
            assert_same(np.flatnonzero(~np.isnan(out)), near)
            assert_same(out[near], measure(small, small[0]))


if NIGHT:

    def test_more_than_2_to_the_31_rows():
        """All results go to the same place, an `out` whose strides are 0. Then the last row of p is invalid."""
        p, q = np.ones((2**16, 1, 1), "f4"), np.ones((2**15 + 1, 1), "f4")
        out = np.lib.stride_tricks.as_strided(np.full(1, np.nan, "f4"), (2**16, 2**15 + 1), (0, 0))
        fastkl.kl_divergence(p, q, out=out)
        assert out[0, 0] == 0
        p[-1] = 2
        with pytest.raises(fastkl.InvalidRowError, match=r"^p\[65535, 0\] sums to 2: ") as caught:
            fastkl.kl_divergence(p, q, out=out)
        assert caught.value.index == (65535, 0)
