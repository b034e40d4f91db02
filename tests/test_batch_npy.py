"""The .npy reader: values of every layout and dtype, damaged and truncated files.

Damaged files are read by `fastkl score` in another process (support/batch_runs.py), which may crash or run out of memory.
"""

import io
import os
import random
import sys
import time
import warnings
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from support.batch_files import refused, small_parts, sparse
from support.batch_runs import many
from support.inputs import BFLOATS
from support.measures import assert_same_bits

import fastkl
from fastkl import call
from fastkl._kernels import Request, Stop
from fastkl.batch import score, workers
from fastkl.batch.operands import open_operands
from fastkl.batch.readers.npy import NpySource, read_header
from fastkl.batch.scoring import Options
from fastkl.batch.workers import Worker

_in_small_parts = small_parts(1000, 300)  # a few rows


def weights(shape, dtype, seed):
    """Small positive numbers, which every dtype can hold."""
    return np.random.default_rng(seed).integers(1, 2 if dtype == "?" else 50, shape).astype(dtype)


def assert_values(p, q, expected=None, order="C", **options):
    """The written values of the files have the bits of those of the arrays."""
    np.save("p.npy", np.asarray(p, order=order))
    np.save("q.npy", np.asarray(q, order=order))
    summary = score("p.npy", "q.npy", out="out.npy", normalize=True, **options)
    expected = np.asarray(fastkl.kl_divergence(p, q, normalize=True) if expected is None else expected)
    assert_same_bits(np.load("out.npy"), expected)
    assert summary["rows"] == expected.size


@pytest.mark.parametrize("dtype", [*map(np.dtype, "?bBhHiIqQefd"), *(np.dtype(x).newbyteorder() for x in "hHiIqQefd")])
def test_values_of_any_dtype(dtype):
    for order in "C", "F":
        assert_values(weights((333, 7), dtype, 1), weights((333, 7), "d", 2), order=order)
        assert_values(weights((333, 7), "f", 1), weights((333, 7), dtype, 2), order=order, threads=1)


def test_short_reads_are_continued(monkeypatch):
    """The system may read fewer bytes than there is room for."""
    whole = NpySource._read
    monkeypatch.setattr(workers, "evaluate_files", lambda *_: 0)
    monkeypatch.setattr(NpySource, "_read", lambda self, view, position: whole(self, view[:100], position))
    for order in "C", "F":
        assert_values(weights((33, 50), "d", 1), weights((33, 50), "d", 2), order=order)


@pytest.mark.parametrize(("rows", "share"), [(0, 1), (5, 0.6), (13, 0.4), (None, 0.2)])
def test_kernels_and_python_read_in_turn(rows, share, monkeypatch):
    """Python reads a block that the kernels could not read, and then it is their turn again."""
    evaluate, read, by_python = workers.evaluate_files, NpySource.read, []
    monkeypatch.setattr(workers, "evaluate_files", lambda request, out, reads: evaluate(request, out[:rows], reads))
    monkeypatch.setattr(NpySource, "read", lambda self, *where: by_python.append(where) or read(self, *where))
    p, q = weights((333, 7), "d", 1), weights((333, 7), "d", 2)
    assert_values(p, q)
    if sys.platform == "linux":
        assert sum(stop - start for start, stop, _ in by_python) <= share * 2 * len(p)
    assert_values(p, weights((1, 7), "d", 2))
    p[200] = -1
    np.save("p.npy", p)
    refused(r"p.npy: p\[200, 0\] = -1.0", "p.npy", "q.npy", normalize=True)


SHAPES = [((7,), (7,)), ((100, 7), (7,)), ((7,), (100, 7))]
SHAPES += [((100, 7), (1, 7)), ((1, 7), (100, 7)), ((1, 7), (1, 7)), ((100, 1), (100, 1)), ((1, 1), (1, 1))]
SHAPES += [((5, 20, 7), (5, 20, 7)), ((2, 3, 4, 5), (5,)), ((0, 7), (0, 7)), ((0, 7), (7,)), ((3, 0, 7), (3, 0, 7))]
SHAPES += [((3, 1000), (3, 1000))]


@pytest.mark.parametrize(("p", "q"), SHAPES)
def test_values_of_any_shape(p, q):
    assert_values(weights(p, "d", 1), weights(q, "d", 2))


@pytest.mark.parametrize("shape", [(50, 7), (5, 6, 7), (2, 3, 4, 5), (1, 6, 7), (6, 1, 7), (2, 50, 3), (0, 3, 4)], ids=str)
def test_fortran_order(shape):
    """A member of an archive is unpacked first. Labels have the axes of the rows."""
    p, labels = weights(shape, "d", 1), np.random.default_rng(3).integers(0, shape[-1], shape[:-1])
    np.save("p.npy", np.asfortranarray(p))
    np.savez("a.npz", p=np.asfortranarray(p), labels=np.asfortranarray(labels))
    np.savez_compressed("b.npz", labels=labels, p=np.asfortranarray(p))
    np.save("labels.npy", np.asfortranarray(labels))
    expected = fastkl.nll(labels, p, normalize=True)
    for i, (file, right) in enumerate([("p.npy", "labels.npy"), ("a.npz:p", "a.npz:labels"), ("b.npz:p", "b.npz:labels")]):
        score(file, labels=right, measure="nll", normalize=True, out=f"{i}.npy", threads=2)
        assert_same_bits(np.load(f"{i}.npy"), expected)


def test_version_3():
    """NumPy writes it for names of fields that are not Latin-1."""
    text = b"{'descr': '<f8', 'fortran_order': False, 'shape': (2, 2), }".ljust(115) + b"\n"
    Path("p.npy").write_bytes(b"\x93NUMPY\x03\0" + len(text).to_bytes(4, "little") + text + np.full(4, 0.5).tobytes())
    assert score("p.npy", measure="entropy")["mean"] == pytest.approx(np.log(2), rel=1e-15)
    with warnings.catch_warnings(action="ignore"):
        np.save("named.npy", np.zeros(3, [("µ\u4e00", float)]))
    refused("named.npy has dtype", "named.npy", error=TypeError)


def test_one_row_adds_no_axes():
    p, q = weights((1, 1, 7), "d", 1), weights((100, 7), "d", 2)
    assert_values(p, q, fastkl.kl_divergence(p[0], q, normalize=True))


@pytest.mark.parametrize("dtype", dict.fromkeys(BFLOATS), ids=str)
def test_bfloat16(dtype):
    """NumPy writes that of ml_dtypes as V2. Of big-endian V2 it drops the byte order, so that is refused."""
    values = (weights((333, 7), "f", 1).view("u4") >> 16).astype("u2")
    q = weights((333, 7), "f", 2)
    p = (values if dtype.isnative else values.byteswap()).view(dtype)
    assert_values(values.view("V2"), q, fastkl.kl_divergence(p, q, normalize=True))
    Path("p.npy").write_bytes(Path("p.npy").read_bytes().replace(b"'|V2'", b"'>V2'"))
    refused(r"p\.npy: is of big-endian bfloat16, which is never read", "p.npy", "q.npy", error=TypeError)


ROWS = np.full((9, 5), 0.2, "<f8")
RAW = ROWS.tobytes()


def npy(header, data=RAW, version=b"\x01\x00"):
    text = header if isinstance(header, bytes) else header.encode("latin1")
    return b"\x93NUMPY" + version + len(text).to_bytes(2 if version[0] == 1 else 4, "little") + text + data


def saved(x):
    file = io.BytesIO()
    np.save(file, x, allow_pickle=True)
    return file.getvalue()


# Lines of entries with " | " between them: one table for each of the three items of a header.
DESCRS = """
'<f8' | '>f8' | '<f4' | '<f2' | '|b1' | '|u1' | '<V2' | '>V2' | '|V8' | '|V0' | '|O' | '|S8' | '<U2' | '<U0' | '<M8[s]'
'<m8' | '<c8' | '<c16' | '<f16' | [('a', '<f8')] | [('a', '|O')] | [('a', '<f4', (2,))] | ('<f8', (1,)) | ('|i1', (2,))
'(2,)i1' | '(2,)<f4' | 'f8,f8' | '' | None | 8 | {} | [] | () | 'nonsense' | {'names': ['a'], 'formats': ['<f8']}
[('a\\n', '<f8')] | '<f9' | 'float64' | 'object' | 'f8' 'x' | ['<f8']
"""
LENGTHS = """
(9, 5) | (9L, 5L) | (45,) | (3, 3, 5) | (0, 5) | (5, 0) | () | (-9, -5) | (-9, 5) | (True, 45) | (9.0, 5) | 9 | [9, 5]
None | (1000000000000000000, 5) | (5, 1000000000000000000) | (0, 1000000000000000000) | (1000000000000000000, 0) | (9, '5')
(0, 9223372036854775807) | (0, 9223372036854775808) | (4294967296, 4294967296) | (9223372036854775807, 2)
(9, 5 | (9, 5)) | (9, 5, ) | 9, 5 | (\xe9, 5) | (9, 5,\0) | f'{9}' | __import__('os') | (9 if 1 else 2, 5)
"""
HUGE = [f"(1{'0' * 400}, 5)", f"(1{'0' * 4000}, 1{'0' * 4000})", f"(1{'0' * 4500}, 5)", f"(5, 1{'0' * 400})", "(9,\n5)"]
HUGE += [f"({'1, ' * 43}9, 5)", f"({'1, ' * 99}9, 5)", f"({('9' * 18 + ', ') * 61})", "1+" * 2000 + "1j"]
HUGE += ["(" * 150 + ")" * 150, "(" * 4000, "[" * 4000 + "]" * 4000, "-" * 4000 + "1", "'" + "\\" * 999]
ORDERS = "False | True | None | 0 | 1 | 'C' | [] | TRUE |  | False, | False, 'more': 1 | {}"
HEADERS = ["", " ", "\n", "{", "}", "{}", "[]", "None", "0", "{1: 2}", "\xff" * 99, "{'descr': '<f8'}"]
# Too long, the dictionary twice, keys of other kinds; no end of line.
HEADERS += [" " * 20000, "#" * 9999, "{'descr': '<f8', 'fortran_order': False, 'shape': (9, 5)}" * 2]
HEADERS += ["{'descr': '<f8', b'fortran_order': False, 'shape': 9}"]


def entries(text):
    return [entry for line in text.strip("\n").split("\n") for entry in line.split(" | ")]


def damaged():
    """At least 500 files; a few are undamaged."""
    good, header = saved(ROWS), "{{'descr': {}, 'fortran_order': {}, 'shape': {}, }}"
    for descr in entries(DESCRS):
        for shape in "(9, 5)", "(0, 5)", "(90,)", "(180, 1)":
            yield npy(header.format(descr, False, shape))
            yield npy(header.format(descr, True, shape), b"")
    for shape in [*entries(LENGTHS), *HUGE]:
        yield npy(header.format("'<f8'", False, shape))
        yield npy(header.format("'<f8'", True, shape), version=b"\x02\x00")
        yield npy(header.format("'|u1'", True, shape), b"")
    for order in entries(ORDERS):
        yield npy(header.format("'<f8'", order, "(9, 5)"))
    for text in HEADERS:
        yield npy(text)
        yield npy(text, b"", b"\x02\x00")
    for version in b"\x00\x00", b"\x01\x01", b"\x02\x00", b"\x03\x00", b"\x04\x00", b"\xff\xff":
        yield good[:6] + version + good[8:]
        yield npy(header.format("'<f8'", False, "(9, 5)"), version=version)
    for length in 0, 1, 10, 117, 119, 9999, 10001, 65535:
        yield good[:8] + length.to_bytes(2, "little") + good[10:]
        yield good[:6] + b"\x02\x00" + (length << 16 | 65535).to_bytes(4, "little") + good[10:]
    for x in np.array([{}, None]), np.zeros(3, "O"), np.zeros((2, 2), "M8[s]"), np.array(["text"]), np.zeros(2, "f4,f4"):
        yield saved(x)
    yield good + b"\0"
    yield good + good
    pick = random.Random(1)
    for _ in range(200):
        place = pick.randrange(128)
        yield good[:place] + bytes([pick.choice([pick.randrange(256), *b"0129(,)'<>"])]) + good[place + 1 :]


def truncated():
    """Files truncated at every byte of the header, and at many of the data."""
    for x in ROWS, ROWS.T, ROWS[0], np.full((1000, 1000), 1e-3, "f2"):
        good = saved(x)
        yield from (good[:end] for end in range(129))
        yield from (good[: random.Random(end).randrange(128, len(good))] for end in range(40))
        yield good[:-1]


@pytest.mark.parametrize("step", [pytest.param(1, marks=pytest.mark.slow), 7])  # every file, or every seventh
@pytest.mark.parametrize("make", [damaged, truncated])
@pytest.mark.filterwarnings("ignore:Reading .* created on Python 2:UserWarning")  # of np.load
def test_damaged_files_are_named_in_one_line(make, step):
    """Files are read as P or as Q, in little memory. Truncated ones are always refused."""
    np.save("whole.npy", ROWS)
    files = {f"{i}.npy": data for i, data in enumerate(make()) if i % step == 0}
    assert len(files) > 500 // step
    for name, data in files.items():
        Path(name).write_bytes(data)
    report = many([[name, "whole.npy"][:: 1 if i % 2 else -1] for i, name in enumerate(files)])
    assert report["peak"] < 500_000_000
    refused = 0
    for (name, data), (status, errors) in zip(files.items(), report["results"], strict=True):
        case = data[:300], errors
        assert status == 1 or (status == 0 and make is damaged), case
        refused += status
        if status == 0:
            assert not errors, case
            whole = np.load(name)  # NumPy reads the same
            assert whole.dtype.kind in "fbiu" or whole.dtype == "V2"
        else:
            assert errors.startswith("fastkl: " if make is damaged else f"fastkl: {name}: is "), case
            assert name in errors, case
            assert errors.splitlines(keepends=True) == [errors], case
            assert len(errors) < 1000, case
    assert refused > 500 // step


REFUSED = [
    ("'<f8'", "(True, 45)", 360, r"has the shape \(True, 45\): must be of non-negative integers"),
    ("'<f8'", "(-9, -5)", 360, r"has the shape \(-9, -5\): must be of non-negative integers"),
    ("'<f8'", f"(9, 1{'0' * 4000})", 360, r"has the shape \(9, a huge number\): NumPy has no such arrays"),
    ("'<f8'", "(9, 5)", 361, "has 1 bytes after its 488 of shape"),
    ("'<f8'", "(9, 5)", 40 * 3 + 39, r"is truncated in row 3: shape \(9, 5\) of (float64|<f8) takes 488 bytes"),
    ("'|O'", "(9, 5)", 360, "holds pickled objects, which are never read"),
    ("'<f8'", "(9, 5)" + " " * 10000, 360, r"its header is damaged: it has 100.. bytes"),
]


@pytest.mark.parametrize(("descr", "shape", "size", "message"), REFUSED, ids=range(len(REFUSED)))
def test_messages_about_damaged_files(descr, shape, size, message):
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}".ljust(118)
    Path("p.npy").write_bytes(npy(header, bytes(size)))
    refused(rf"p\.npy: .*{message}", "p.npy", error=(ValueError, TypeError))


@pytest.mark.skipif(not os.path.exists("/proc/self/mem"), reason="only Linux has this file")
def test_unreadable_file_is_named():
    os.symlink("/proc/self/mem", "p.npy")
    with pytest.raises(OSError, match="Input/output error") as caught:
        score("p.npy", measure="entropy")
    assert caught.value.filename == "p.npy"


def test_threads_that_open_files_keep_the_filters(monkeypatch):
    """Of two threads that ignore the parser's warnings, the second must not restore what the first one set."""
    before, ignore = warnings.filters[:], warnings.simplefilter
    waits, data = iter([0.01, 0.03]), saved(ROWS)
    with monkeypatch.context() as patch:
        patch.setattr(warnings, "simplefilter", lambda action: (ignore(action), time.sleep(next(waits))))
        with ThreadPoolExecutor(2) as pool:
            [*pool.map(lambda _: read_header("p.npy", io.BytesIO(data), len(data)), range(2))]
    after, warnings.filters[:] = warnings.filters[:], before
    assert after == before


def test_rows_too_wide_for_memory_are_an_error():
    """No rows need no memory; each of three rows takes 8 GB."""
    header = "{'descr': '<f8', 'fortran_order': False, 'shape': (%d, %d), }"
    Path("0.npy").write_bytes(npy(header % (0, sys.maxsize // 16), b""))
    assert score("0.npy", measure="entropy")["rows"] == 0
    if sys.platform == "linux" and sys.maxsize > 2**32:  # memory is limited there, and files are sparse
        sparse("3.npy", npy(header % (3, 10**9), b""), 3 * 8 * 10**9)
        [[status, message]] = many([["3.npy", "--measure=entropy"]])["results"]
        assert status == 1
        assert message.startswith("fastkl: Unable to allocate 7.45 GiB")
        assert message.count("\n") == 1


@pytest.mark.parametrize("width", [7, 200])
def test_nothing_is_done_after_a_stop(width):
    """An interruption sets the switch of all threads of a run: rows may be larger than what is computed in 0.2 s."""
    np.save("p.npy", weights((333, width), "d", 1))
    options, stop = Options("entropy", normalize=True), Stop()
    with closing(open_operands(options, {"p": "p.npy"})) as opened:
        worker = Worker(opened, options, stop)
        assert worker(range(10), {})[0].all()
        stop.set()
        with pytest.raises(CancelledError):
            worker(range(333), {})
        opened["p"].stop = stop
        with pytest.raises(CancelledError):
            opened["p"].get(0, 3)
    request = Request("entropy", np.ones((2000, 300))).replace(normalize=True)
    request.stop = stop
    assert call.run(request)[-1] != np.log(300)
