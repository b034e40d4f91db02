"""The command line and the demo: reading, counting, the reference, the printed page and the exit status."""

import math
import re
import signal
import subprocess
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path
from unittest.mock import Mock

import mpmath
import numpy as np
import pytest
from support import reference
from support.processes import INSTALLED, posix

import fastkl
from fastkl import _demo
from fastkl.__main__ import main

EXPRESSIONS = (_demo.OURS, *_demo.USUAL, _demo.SCIPY)

floats = pytest.mark.parametrize("dtype", [np.float64, np.float32])


@pytest.fixture
def library(tmp_path):
    """A library of three modules, one of them in a package, and files that do not count as modules."""
    for name, data in {
        "plain.py": b"def f(x):\n    return x + 1\n" * 90,
        "package/numbers.py": b"".join(b"%d, %o\n" % (n, n * n) for n in range(300)),
        "bytes.py": bytes(range(256)) * 8,
        "short.py": b"x" * (_demo.SHORTEST - 1),
        "notes.txt": b"text " * 900,
        "package/test/test_it.py": b"assert 1\n" * 900,
        "site-packages/other.py": b"pass\n" * 900,
        "encodings/table.py": b"0x00\n" * 900,
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    return tmp_path


def table(page, heading):
    """The cells beside each expression under a heading of the page."""
    lines = page[page.index(f"\n{heading}") :].splitlines()[2 : 2 + len(EXPRESSIONS)]
    assert [line[2:47].rstrip() for line in lines] == list(EXPRESSIONS)
    return {line[2:47].rstrip(): line[47:].split() for line in lines}


# Reading and counting


def test_pairs_are_counted():
    for data in b"abab\x00\xff\xff\xff", b"", b"a", b"\xff\xff", bytes(range(256)) * 3:
        counts = _demo.count_pairs(data)
        assert counts.shape == (_demo.PAIRS,)
        assert counts.sum() == max(0, len(data) - 1)
        assert {divmod(int(at), 256): counts[at] for at in np.flatnonzero(counts)} == Counter(pairwise(data))


def test_modules_are_selected(library, monkeypatch):
    """Without those that can't be read."""
    modules = _demo.read_modules(library)
    assert list(modules) == ["package/numbers.py", "plain.py", "bytes.py"]
    assert all(modules[name] == (library / name).read_bytes() for name in modules)
    read = Path.read_bytes

    def refuse(path):
        if path.name == "plain.py":
            raise PermissionError(path)
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert list(_demo.read_modules(library)) == ["package/numbers.py", "bytes.py"]


# The reference


def test_logarithm():
    random = np.random.default_rng(1)
    numbers = [*random.random(200), *random.random(50) ** 40, 1.0, 1.005, 0.995, 0.5, 5e-324, math.nextafter(1, 0)]
    with mpmath.workdps(70):
        for x in map(float, numbers):
            error = abs(mpmath.mpf(str(_demo.logarithm(x))) - mpmath.log(mpmath.mpf(x)))
            assert error <= mpmath.mpf("1e-48") * max(1, abs(mpmath.log(mpmath.mpf(x))))
    assert _demo.logarithm(0.0) == -math.inf


@floats
@pytest.mark.parametrize("distance", [1.0, 1e-3, 1e-6, 1e-15])
def test_true_divergence(dtype, distance):
    random = np.random.default_rng(2)
    p = random.random(400) * (random.random(400) < 0.5)
    q = p * (1 + distance * random.random(400)) + distance / 9 * (p == 0)
    p, q = p.astype(dtype), q.astype(dtype)
    assert _demo.true_divergence(p, q) == pytest.approx(float(reference.kl_divergence(p, q)), rel=1e-15, abs=0)


def test_true_divergence_at_its_ends():
    p = np.array([0.5, 0.0, 0.25, 0.25])
    for x, y in (p, p), (p, 2 * p), (p / 3, p / 3 * 1024):
        assert _demo.true_divergence(x, y) == 0
    assert _demo.true_divergence(np.array([1.0, 0.0]), np.array([0.5, 0.5])) == math.log(2)
    assert _demo.true_divergence(p, np.array([1.0, 0.0, 0.0, 0.0])) == math.inf


def test_values_are_judged():
    truth = np.array([1.0, 1.0, 1.0, 1.0, 2e-9, 0.0, 0.0, math.inf, math.inf, 1.0])
    answer = np.array([1.0, 1.0001, 1.002, math.nan, -1e-9, 0.0, 1e-17, math.inf, 5.0, math.inf])
    assert _demo.judge(answer, truth) == (1, 1, 4, math.inf)
    assert _demo.judge(answer[:2], truth[:2]) == (0, 0, 0, pytest.approx(1e-4))
    assert math.isnan(_demo.judge(answer[3:4], truth[3:4]).worst)


# The comparison


@floats
def test_numpy_gives_nan_for_rows_with_zeros(dtype):
    p = np.full((7, 64), 1 / 64, dtype)
    p[::3, 5:9] = [2 / 64, 2 / 64, 0, 0]
    q = np.full((1, 64), 1 / 64, dtype)
    results = _demo.evaluate(p, q, runs=1)
    naive, *safe = (results[expression][0] for expression in _demo.USUAL)
    np.testing.assert_array_equal(np.isnan(naive), (p == 0).any(axis=1))
    for answer in (results[_demo.OURS][0], *safe):
        np.testing.assert_allclose(answer, [4 / 64 * math.log(2), 0, 0] * 2 + [4 / 64 * math.log(2)], rtol=1e-5, atol=1e-9)
    assert all(seconds > 0 for _, seconds in results.values())


def test_page(library, monkeypatch, capsys):
    assert main(["demo", "--library", str(library)]) == 0
    page, errors = capsys.readouterr()
    assert not errors
    assert page.isascii()
    assert max(map(len, page.splitlines())) <= 100
    assert "The 3 largest of 3 modules" in page
    assert all(f"\n  {name} " in page for name in ("plain.py", "package/numbers.py", "bytes.py"))
    headings = {"float64: ": 7, "float32: ": 7, "float64, stored as float32: ": 4, "float32, stored as float16: ": 4}
    for heading, cells in headings.items():
        rows = table(page, heading)
        assert len(rows[_demo.OURS]) == cells
        assert rows[_demo.OURS][-4:-1] == ["0", "0", "0"]
        assert rows[_demo.USUAL[0]][-4:] == ["3", "0", "0", "-"]
        assert all(rows[expression][-4] == "0" for expression in _demo.USUAL[1:])
    monkeypatch.setitem(sys.modules, "scipy.stats", None)
    assert main(["demo", "--library", str(library), "--modules", "2"]) == 0
    page = capsys.readouterr().out
    assert "The 2 largest of 3 modules" in page
    assert table(page, "float64: ")[_demo.SCIPY] == ["not", "installed"]


def test_long_names_are_cut():
    assert _demo.fitted("short", 5) == "short"
    assert _demo.fitted("packages/module.py", 12) == "...module.py"
    assert _demo.fitted("caf\u00e9\udcff", 20) == "caf\\xe9\\udcff"


# The command


def test_version_info_and_help(capsys):
    with pytest.raises(SystemExit, match=r"^0$"):
        main(["--version"])
    assert capsys.readouterr().out == f"fastkl {fastkl.__version__}\n"
    assert main(["info"]) == 0
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines()] == list(fastkl.build_info())
    assert main([]) == 0
    assert "demo" in capsys.readouterr().out


def test_wrong_options(tmp_path, capsys):
    (tmp_path / "python.zip").write_bytes(b"PK")
    (tmp_path / "empty").mkdir()
    for name in "nowhere", "python.zip", "empty":
        assert main(["demo", "--library", str(tmp_path / name)]) == 1
        page, errors = capsys.readouterr()
        assert not page
        assert re.fullmatch(f"fastkl: no Python sources to read in .*{name}.*\n", errors)
    for number in "0", "-1", "many":
        with pytest.raises(SystemExit, match=r"^2$"):
            main(["demo", "--modules", number])
        assert "--modules" in capsys.readouterr().err


def test_interruption(library, monkeypatch, capsys):
    monkeypatch.setattr(_demo, "count_pairs", Mock(side_effect=KeyboardInterrupt))
    assert main(["demo", "--library", str(library)]) == 128 + signal.SIGINT
    assert not capsys.readouterr().err


@pytest.mark.parametrize("leaves", [False, pytest.param(True, marks=posix)])
def test_command_runs_until_its_reader_leaves(leaves, library):
    command = [sys.executable, "-m", "fastkl", "demo", "--library", str(library)]
    with subprocess.Popen(command, cwd=INSTALLED, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        if leaves:
            process.stdout.close()
        else:
            assert b"\nMost typical" in process.stdout.read()
        assert process.stderr.read() == b""
    assert process.returncode == (128 + signal.SIGPIPE if leaves else 0)
