"""The .npy reader: values of every layout and dtype, damaged and truncated files, memory.

Damaged files are read by `fastkl score` in another process (tests/batch_runs.py), which may crash or run out of memory.
"""

from __future__ import annotations

import io
import json
import os
import random
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import settings
from inputs import BFLOATS
from test_batch_output import start

import fastkl
from fastkl.batch import operands, score, workers
from fastkl.batch.readers.npy import read_header

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    Array = np.ndarray[Any, Any]

NIGHT = settings.default.max_examples > 100


@pytest.fixture
def in_small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operands, "PART", 1000)
    monkeypatch.setattr(workers, "BLOCK", 300)


def weights(shape: tuple[int, ...], dtype: str, seed: int) -> Array:
    """Small positive numbers, which every dtype can hold."""
    return np.random.default_rng(seed).integers(1, 2 if dtype == "?" else 50, shape).astype(dtype)


def assert_values(folder: Path, p: Array, q: Array, order: Any = "C", **options: Any) -> None:
    """The written values of the files have the bits of those of the arrays."""
    for name, x in ("p", p), ("q", q):
        np.save(folder / f"{name}.npy", np.asarray(x, order=order))
    summary = score(folder / "p.npy", folder / "q.npy", out=folder / "out.npy", normalize=True, **options)
    expected = fastkl.kl_divergence(p, q, normalize=True)
    found = np.load(folder / "out.npy")
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    assert found.tobytes() == np.asarray(expected).tobytes()
    assert summary["rows"] == expected.size


# ---- values ----


@pytest.mark.usefixtures("in_small_parts")
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", [*"?bBhHiIqQefd", *(">" + x for x in "hHiIqQefd")])
def test_values_of_any_dtype(tmp_path: Path, dtype: str, order: str) -> None:
    assert_values(tmp_path, weights((333, 7), dtype, 1), weights((333, 7), "d", 2), order)
    assert_values(tmp_path, weights((333, 7), "f", 1), weights((333, 7), dtype, 2), order, threads=1)


@pytest.mark.usefixtures("in_small_parts")
@pytest.mark.parametrize(
    ("p", "q"),
    [
        ((7,), (7,)),
        ((100, 7), (7,)),
        ((7,), (100, 7)),
        ((100, 7), (1, 7)),
        ((1, 7), (1, 7)),
        ((100, 1), (100, 1)),
        ((1, 1), (1, 1)),
        ((5, 20, 7), (5, 20, 7)),
        ((2, 3, 4, 5), (5,)),
        ((1, 1, 7), (100, 7)),
        ((0, 7), (0, 7)),
        ((0, 7), (7,)),
        ((3, 0, 7), (3, 0, 7)),
        ((3, 1000), (3, 1000)),
    ],
)
def test_values_of_any_shape(tmp_path: Path, p: tuple[int, ...], q: tuple[int, ...]) -> None:
    if p == (1, 1, 7):
        np.save(tmp_path / "p.npy", weights(p, "d", 1))
        np.save(tmp_path / "q.npy", weights(q, "d", 2))
        score(tmp_path / "p.npy", tmp_path / "q.npy", out=tmp_path / "out.npy", normalize=True)
        expected = fastkl.kl_divergence(weights(p, "d", 1)[0], weights(q, "d", 2), normalize=True)
        assert np.load(tmp_path / "out.npy").tobytes() == expected.tobytes()
        return
    assert_values(tmp_path, weights(p, "d", 1), weights(q, "d", 2))


@pytest.mark.usefixtures("in_small_parts")
def test_labels(tmp_path: Path) -> None:
    q = weights((100, 7), "f", 1)
    labels = (np.arange(100) % 7).astype(">i2")
    np.save(tmp_path / "q.npy", q)
    np.save(tmp_path / "labels.npy", labels)
    options: dict[str, Any] = {"from_logits": True}
    score(tmp_path / "q.npy", labels=tmp_path / "labels.npy", measure="nll", out=tmp_path / "out.npy", **options)
    assert np.load(tmp_path / "out.npy").tobytes() == fastkl.nll(labels, q, **options).tobytes()


@pytest.mark.usefixtures("in_small_parts")
@pytest.mark.parametrize("dtype", dict.fromkeys(BFLOATS), ids=str)
def test_bfloat16(tmp_path: Path, dtype: np.dtype[Any]) -> None:
    """NumPy writes that of ml_dtypes as V2. Of big-endian V2 it drops the byte order, so that is refused."""
    values = (weights((333, 7), "f", 1).view("u4") >> 16).astype("u2")
    np.save(tmp_path / "p.npy", values.view("V2"))
    np.save(tmp_path / "q.npy", weights((333, 7), "f", 2))
    score(tmp_path / "p.npy", tmp_path / "q.npy", out=tmp_path / "out.npy", normalize=True)
    p = values.view(dtype) if dtype.isnative else values.astype(">u2").view(dtype)
    expected = fastkl.kl_divergence(p, weights((333, 7), "f", 2), normalize=True)
    assert np.load(tmp_path / "out.npy").tobytes() == expected.tobytes()
    data = (tmp_path / "p.npy").read_bytes()
    (tmp_path / "p.npy").write_bytes(data.replace(b"'|V2'", b"'>V2'"))
    with pytest.raises(TypeError, match=r"p\.npy: is of big-endian bfloat16, which is never read"):
        score(tmp_path / "p.npy", tmp_path / "q.npy")


def test_header_of_version_2(tmp_path: Path) -> None:
    p = weights((333, 7), "d", 1)
    with (tmp_path / "p.npy").open("wb") as file:
        np.lib.format.write_array(file, p, (2, 0))
    score(tmp_path / "p.npy", measure="entropy", out=tmp_path / "out.npy", normalize=True)
    assert np.load(tmp_path / "out.npy").tobytes() == fastkl.entropy(p, normalize=True).tobytes()


# ---- damage ----

ROWS = np.full((9, 5), 0.2)


def npy(header: str | bytes, data: bytes = ROWS.tobytes(), version: bytes = b"\x01\x00") -> bytes:
    text = header if isinstance(header, bytes) else header.encode("latin1")
    return b"\x93NUMPY" + version + len(text).to_bytes(2 if version[0] == 1 else 4, "little") + text + data


def saved(x: Array) -> bytes:
    file = io.BytesIO()
    np.save(file, x, allow_pickle=True)
    return file.getvalue()


DESCRS = [
    "'<f8'",
    "'>f8'",
    "'<f4'",
    "'<f2'",
    "'|b1'",
    "'|u1'",
    "'<V2'",
    "'>V2'",
    "'|V8'",
    "'|V0'",
    "'|O'",
    "'|S8'",
    "'<U2'",
]
DESCRS += [
    "'<U0'",
    "'<M8[s]'",
    "'<m8'",
    "'<c8'",
    "'<c16'",
    "'<f16'",
    "[('a', '<f8')]",
    "[('a', '|O')]",
    "[('a', '<f4', (2,))]",
]
DESCRS += [
    "('<f8', (1,))",
    "('|i1', (2,))",
    "'(2,)i1'",
    "'(2,)<f4'",
    "'f8,f8'",
    "''",
    "None",
    "8",
    "{}",
    "[]",
    "()",
    "'nonsense'",
]
DESCRS += [
    "{'names': ['a'], 'formats': ['<f8']}",
    "[('a\\n', '<f8')]",
    "'<f9'",
    "'float64'",
    "'object'",
    "'f8' 'x'",
    "['<f8']",
]
SHAPES = [
    "(9, 5)",
    "(9L, 5L)",
    "(45,)",
    "(3, 3, 5)",
    "(0, 5)",
    "(5, 0)",
    "()",
    "(-9, -5)",
    "(-9, 5)",
    "(True, 45)",
    "(9.0, 5)",
]
SHAPES += [
    "(1000000000000000000, 5)",
    "(5, 1000000000000000000)",
    "(0, 1000000000000000000)",
    "(1000000000000000000, 0)",
    "9",
]
SHAPES += ["(0, 9223372036854775807)", "(0, 9223372036854775808)", "(4294967296, 4294967296)", "(9223372036854775807, 2)"]
SHAPES += [f"(1{'0' * 400}, 5)", f"(1{'0' * 4000}, 1{'0' * 4000})", f"(1{'0' * 4500}, 5)", f"(5, 1{'0' * 400})", "[9, 5]"]
SHAPES += [
    f"({'1, ' * 43}9, 5)",
    f"({'1, ' * 99}9, 5)",
    f"({'9' * 18 + ', ' * 1} {('9' * 18 + ', ') * 60})",
    "(9, '5')",
    "None",
]
SHAPES += [
    "(" * 150 + ")" * 150,
    "(" * 4000,
    "[" * 4000 + "]" * 4000,
    "-" * 4000 + "1",
    "(9, 5",
    "(9, 5))",
    "(9, 5, )",
    "9, 5",
]
SHAPES += [
    "1+" * 2000 + "1j",
    "'" + "\\" * 999,
    "(9, 5,\0)",
    "(9,\n5)",
    "(\xe9, 5)",
    "f'{9}'",
    "__import__('os')",
    "(9 if 1 else 2, 5)",
]
ORDERS = ["False", "True", "None", "0", "1", "'C'", "[]", "TRUE", "", "False,", "False, 'more': 1", "{}"]
HEADERS = [
    "",
    " ",
    "\n",
    "{",
    "}",
    "{}",
    "[]",
    "None",
    "0",
    "{1: 2}",
    "\xff" * 99,
    "{'descr': '<f8'}",
    " " * 20000,
    "#" * 9999,
]
# The dictionary twice, keys of other kinds, no end of line.
HEADERS += [
    "{'descr': '<f8', 'fortran_order': False, 'shape': (9, 5)}" * 2,
    "{'descr': '<f8', b'fortran_order': False, 'shape': 9}",
]


def damaged() -> Iterator[bytes]:
    """At least 500 files; a few are undamaged."""
    good, header = saved(ROWS), "{{'descr': {}, 'fortran_order': {}, 'shape': {}, }}"
    for descr in DESCRS:
        for shape in "(9, 5)", "(0, 5)", "(90,)", "(180, 1)":
            yield npy(header.format(descr, False, shape))
            yield npy(header.format(descr, True, shape), b"")
    for shape in SHAPES:
        yield npy(header.format("'<f8'", False, shape))
        yield npy(header.format("'<f8'", True, shape), version=b"\x02\x00")
        yield npy(header.format("'|u1'", True, shape), b"")
    for order in ORDERS:
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


def truncated() -> Iterator[bytes]:
    """Files truncated at every byte of the header, and at many of the data."""
    for x in ROWS, ROWS.T, ROWS[0], np.full((1000, 1000), 1e-3, "f2"):
        good = saved(x)
        yield from (good[:end] for end in range(129))
        yield from (good[: random.Random(end).randrange(128, len(good))] for end in range(40))
        yield good[:-1]


def outcomes(folder: Path, files: list[bytes]) -> Iterator[tuple[Path, int, list[str]]]:
    """Each file, with exit status and lines on standard error of a run that reads it as P or as Q in little memory."""
    np.save(folder / "whole.npy", ROWS)
    paths, runs = [], []
    for i, data in enumerate(files):
        paths.append(folder / f"{i}.npy")
        paths[-1].write_bytes(data)
        runs.append([str(paths[-1]), str(folder / "whole.npy")][:: 1 if i % 2 else -1])
    (folder / "runs.json").write_text(json.dumps(runs))
    child = start("many", folder)
    report, errors = child.communicate()
    assert child.returncode == 0, errors
    assert not errors
    report = json.loads(report)
    assert report["peak"] < 500_000_000
    assert len(report["results"]) == len(files)
    for path, (status, errors) in zip(paths, report["results"], strict=True):
        yield path, status, errors.splitlines()


@pytest.mark.filterwarnings("ignore:Reading .* created on Python 2:UserWarning")  # of np.load
def test_damaged_files_are_named_in_one_line(tmp_path: Path) -> None:
    files = list(damaged())
    assert len(files) > 500
    ends = {0: 0, 1: 0}
    for path, status, errors in outcomes(tmp_path, files):
        data = path.read_bytes()[:300]
        assert status in ends, (data, errors)
        ends[status] += 1
        if status == 0:
            assert not errors, data
            whole = np.load(path)  # NumPy reads the same
            assert whole.dtype.kind in "fbiu" or whole.dtype == "V2"
        else:
            assert len(errors) == 1, (data, errors)
            assert errors[0].startswith("fastkl: "), (data, errors)
            assert str(path) in errors[0], (data, errors)
            assert len(errors[0]) < 1000 + len(str(tmp_path)), data
    assert ends[1] > 500


def test_truncated_files_are_refused(tmp_path: Path) -> None:
    for path, status, errors in outcomes(tmp_path, list(truncated())):
        assert status == 1, path.read_bytes()[:300]
        assert len(errors) == 1
        assert errors[0].startswith(f"fastkl: {path}: is ")


REFUSED = [
    ("'<f8'", "(True, 45)", 0, r"has the shape \(True, 45\): must be of non-negative integers"),
    ("'<f8'", "(-9, -5)", 0, r"has the shape \(-9, -5\): must be of non-negative integers"),
    ("'<f8'", "(9, 1" + "0" * 4000 + ")", 0, r"has the shape \(9, a huge number\): NumPy has no such arrays"),
    ("'<f8'", "(9, 5)", 1, "has 1 bytes after its 4.. of shape"),
    ("'|O'", "(9, 5)", 0, "holds pickled objects, which are never read"),
    ("'<f8'", "(9, 5)" + " " * 10000, 0, r"its header is damaged: it has 100.. bytes"),
]


@pytest.mark.parametrize(("descr", "shape", "more", "message"), REFUSED, ids=range(len(REFUSED)))
def test_messages_about_damaged_headers(tmp_path: Path, descr: str, shape: str, more: int, message: str) -> None:
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}"
    (tmp_path / "p.npy").write_bytes(npy(header, ROWS.tobytes() + bytes(more)))
    with pytest.raises((ValueError, TypeError), match=rf"p\.npy: .*{message}"):
        score(tmp_path / "p.npy", measure="entropy")


def test_truncated_file_names_the_row(tmp_path: Path) -> None:
    path = tmp_path / "p.npy"
    np.save(path, ROWS)
    os.truncate(path, 128 + 40 * 3 + 39)
    with pytest.raises(ValueError, match=r"p\.npy: is truncated in row 3: shape \(9, 5\) of float64 takes 488 bytes"):
        score(path, measure="entropy")


@pytest.mark.skipif(not os.path.exists("/proc/self/mem"), reason="only Linux has this file")
def test_unreadable_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "p.npy").symlink_to("/proc/self/mem")
    with pytest.raises(OSError, match="Input/output error") as caught:
        score(tmp_path / "p.npy", measure="entropy")
    assert caught.value.filename == str(tmp_path / "p.npy")


def test_header_is_read_without_the_data() -> None:
    """The header of a large array is checked against the size alone."""
    header = npy("{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000, 5)}", b"")
    shape, fortran, dtype, offset = read_header("p.npy", io.BytesIO(header), len(header) + 40 * 10**12)
    assert (shape, fortran, dtype, offset) == ((10**12, 5), False, np.dtype("d"), len(header))


def test_rows_too_wide_for_memory_are_an_error(tmp_path: Path) -> None:
    """No rows need no memory; each of three rows takes 8 GB."""
    header = "{'descr': '<f8', 'fortran_order': False, 'shape': (%d, %d), }"
    (tmp_path / "0.npy").write_bytes(npy(header % (0, 10**17), b""))
    assert score(tmp_path / "0.npy", measure="entropy")["rows"] == 0
    if sys.platform == "linux":  # memory is limited there, and files are sparse
        data = npy(header % (3, 10**9), b"")
        (tmp_path / "3.npy").write_bytes(data)
        os.truncate(tmp_path / "3.npy", len(data) + 3 * 8 * 10**9)
        (tmp_path / "runs.json").write_text(json.dumps([[str(tmp_path / "3.npy"), "--measure=entropy"]]))
        report, errors = start("many", tmp_path).communicate()
        assert not errors
        [[status, message]] = json.loads(report)["results"]
        assert status == 1
        assert message.startswith("fastkl: Unable to allocate 7.45 GiB")
        assert message.count("\n") == 1


# ---- memory ----


def peak_of(folder: Path, size: int) -> int:
    """The peak resident bytes while two sparse files of that size are scored."""
    width = 32768
    for name in "p", "q":
        header = io.BytesIO()
        shape = (size // (4 * width), width)
        np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": shape})
        with (folder / f"{name}.npy").open("wb") as file:
            file.write(header.getvalue())
            file.truncate(len(header.getvalue()) + size)
    files = [folder / "p.npy", folder / "q.npy", "--out", folder / "out.npy"]
    child = start("run", '{"large": true, "peak": true}', *files, "--from-logits", "--json", "--threads=2")
    said, errors = child.communicate()
    assert (child.returncode, errors) == (0, "")
    *_, summary, peak = said.splitlines()
    assert json.loads(summary)["rows"] == shape[0]
    assert json.loads(summary)["max"] == 0
    return int(peak)


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="no sparse files here, or another measure of the peak")
def test_memory_does_not_grow_with_the_files(tmp_path: Path) -> None:
    small = peak_of(tmp_path, 1 << 28)
    large = peak_of(tmp_path, 1 << (33 if NIGHT else 30))
    assert large <= 400_000_000
    assert large - small <= 16_000_000, "the size of one part of an operand"
