"""The command line and the demo: reading, counting, the reference, the printed page and the exit status."""

from __future__ import annotations

import math
import signal
import subprocess
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import mpmath
import numpy as np
import pytest

import fastkl
from fastkl import _demo
from fastkl.__main__ import main

INSTALLED = Path(fastkl.__file__).parents[1]
EXPRESSIONS = (_demo.OURS, *_demo.USUAL, _demo.SCIPY)


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """A library of three modules, one of them in a package, and files that do not count as modules."""
    files = {
        "plain.py": b"def f(x):\n    return x + 1\n" * 90,
        "package/numbers.py": b"".join(b"%d, %o\n" % (n, n * n) for n in range(300)),
        "bytes.py": bytes(range(256)) * 8,
        "short.py": b"x" * (_demo.SHORTEST - 1),
        "notes.txt": b"text " * 900,
        "package/test/test_it.py": b"assert 1\n" * 900,
        "site-packages/other.py": b"pass\n" * 900,
        "encodings/table.py": b"0x00\n" * 900,
    }
    folder = tmp_path / "library"
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "fastkl", *map(str, arguments)]


def table(page: str, heading: str) -> dict[str, list[str]]:
    """The cells beside each expression under a heading of the page."""
    lines = page[page.index(f"\n{heading}") :].splitlines()[2 : 2 + len(EXPRESSIONS)]
    assert [line[2:47].rstrip() for line in lines] == list(EXPRESSIONS)
    return {line[2:47].rstrip(): line[47:].split() for line in lines}


# Reading and counting


@pytest.mark.parametrize("data", [b"abab\x00\xff\xff\xff", b"", b"a", b"\xff\xff", bytes(range(256)) * 3])
def test_pairs_are_counted(data: bytes) -> None:
    counts = _demo.count_pairs(data)
    assert counts.shape == (_demo.PAIRS,)
    assert counts.sum() == max(0, len(data) - 1)
    assert {divmod(int(at), 256): counts[at] for at in np.flatnonzero(counts)} == Counter(pairwise(data))


def test_modules_are_selected(library: Path) -> None:
    modules = _demo.read_modules(library)
    assert list(modules) == ["package/numbers.py", "plain.py", "bytes.py"]
    assert all(modules[name] == (library / name).read_bytes() for name in modules)


def test_unreadable_modules_are_skipped(library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = Path.read_bytes

    def refuse(path: Path) -> bytes:
        if path.name == "plain.py":
            raise PermissionError(path)
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert list(_demo.read_modules(library)) == ["package/numbers.py", "bytes.py"]


# The reference


def test_logarithm() -> None:
    random = np.random.default_rng(1)
    numbers = [*random.random(200), *random.random(50) ** 40, 1.0, 1.005, 0.995, 0.5, 5e-324, math.nextafter(1, 0)]
    with mpmath.workdps(70):
        for x in map(float, numbers):
            error = abs(mpmath.mpf(str(_demo.logarithm(x))) - mpmath.log(mpmath.mpf(x)))
            assert error <= mpmath.mpf("1e-48") * max(1, abs(mpmath.log(mpmath.mpf(x))))
    assert _demo.logarithm(0.0) == -math.inf


def true_divergence(p: Any, q: Any) -> float:
    with mpmath.workdps(70):
        p, q = ([mpmath.mpf(float(x)) for x in row] for row in (p, q))
        ratio = mpmath.fsum(q) / mpmath.fsum(p)
        return float(mpmath.fsum(x * mpmath.log(x / y * ratio) for x, y in zip(p, q, strict=True) if x) / mpmath.fsum(p))


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("distance", [1.0, 1e-3, 1e-6, 1e-15])
def test_true_divergence(dtype: Any, distance: float) -> None:
    random = np.random.default_rng(2)
    p = random.random(400) * (random.random(400) < 0.5)
    q = p * (1 + distance * random.random(400)) + distance / 9 * (p == 0)
    p, q = p.astype(dtype), q.astype(dtype)
    assert _demo.true_divergence(p, q) == pytest.approx(true_divergence(p, q), rel=1e-15, abs=0)


def test_true_divergence_at_its_ends() -> None:
    p = np.array([0.5, 0.0, 0.25, 0.25])
    assert _demo.true_divergence(p, p) == 0
    assert _demo.true_divergence(p, 2 * p) == 0
    assert _demo.true_divergence(p / 3, p / 3 * 1024) == 0
    assert _demo.true_divergence(np.array([1.0, 0.0]), np.array([0.5, 0.5])) == math.log(2)
    assert _demo.true_divergence(p, np.array([1.0, 0.0, 0.0, 0.0])) == math.inf


def test_values_are_judged() -> None:
    truth = np.array([1.0, 1.0, 1.0, 1.0, 2e-9, 0.0, 0.0, math.inf, math.inf, 1.0])
    answer = np.array([1.0, 1.0001, 1.002, math.nan, -1e-9, 0.0, 1e-17, math.inf, 5.0, math.inf])
    assert _demo.judge(answer, truth) == (1, 1, 4, math.inf)
    *numbers, worst = _demo.judge(answer[:2], truth[:2])
    assert numbers == [0, 0, 0]
    assert worst == pytest.approx(1e-4)
    assert math.isnan(_demo.judge(answer[3:4], truth[3:4]).worst)


# The comparison


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_numpy_gives_nan_for_rows_with_zeros(dtype: Any) -> None:
    p = np.full((7, 64), 1 / 64, dtype)
    p[::3, 5:9] = [2 / 64, 2 / 64, 0, 0]
    q = np.full((1, 64), 1 / 64, dtype)
    results = _demo.evaluate(p, q, runs=1)
    naive, *safe = (results[expression][0] for expression in _demo.USUAL)
    np.testing.assert_array_equal(np.isnan(naive), (p == 0).any(axis=1))
    for answer in (results[_demo.OURS][0], *safe):
        np.testing.assert_allclose(answer, [4 / 64 * math.log(2), 0, 0] * 2 + [4 / 64 * math.log(2)], rtol=1e-5, atol=1e-9)
    assert all(seconds > 0 for _, seconds in results.values())


def test_page(library: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--library", str(library)]) == 0
    page, errors = capsys.readouterr()
    assert not errors
    assert page.isascii()
    assert max(map(len, page.splitlines())) <= 100
    assert "The 3 largest of 3 modules" in page
    assert all(f"\n  {name} " in page for name in ("plain.py", "package/numbers.py", "bytes.py"))
    for heading, cells in {
        "float64: ": 7,
        "float32: ": 7,
        "float64, stored as float32: ": 4,
        "float32, stored as float16: ": 4,
    }.items():
        rows = table(page, heading)
        assert len(rows[_demo.OURS]) == cells
        assert rows[_demo.OURS][-4:-1] == ["0", "0", "0"]
        assert rows[_demo.USUAL[0]][-4:] == ["3", "0", "0", "-"]
        assert all(rows[expression][-4] == "0" for expression in _demo.USUAL[1:])


def test_page_without_scipy(library: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "scipy.stats", None)
    assert main(["demo", "--library", str(library), "--modules", "2"]) == 0
    page = capsys.readouterr().out
    assert "The 2 largest of 3 modules" in page
    assert table(page, "float64: ")[_demo.SCIPY] == ["not", "installed"]


def test_long_names_are_cut() -> None:
    assert _demo.fitted("short", 5) == "short"
    assert _demo.fitted("packages/module.py", 12) == "...module.py"
    assert _demo.fitted("caf\u00e9\udcff", 20) == "caf\\xe9\\udcff"


# The command


def test_command_runs(library: Path) -> None:
    done = subprocess.run(command("demo", "--library", library), cwd=INSTALLED, capture_output=True, text=True, check=True)
    assert "\nMost typical" in done.stdout
    assert not done.stderr


def test_the_command_alone_prints_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert "demo" in capsys.readouterr().out


def test_version_and_info(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match=r"^0$"):
        main(["--version"])
    assert capsys.readouterr().out == f"fastkl {fastkl.__version__}\n"
    assert main(["info"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == list(fastkl.build_info())


@pytest.mark.parametrize("name", ["nowhere", "python.zip", "empty"])
def test_no_sources(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "python.zip").write_bytes(b"PK")
    (tmp_path / "empty").mkdir()
    assert main(["demo", "--library", str(tmp_path / name)]) == 1
    page, errors = capsys.readouterr()
    assert not page
    assert errors.startswith("fastkl: no Python sources to read in ")
    assert name in errors
    assert errors.count("\n") == 1


@pytest.mark.parametrize("number", ["0", "-1", "many"])
def test_number_of_modules_is_checked(number: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match=r"^2$"):
        main(["demo", "--modules", number])
    assert "--modules" in capsys.readouterr().err


def test_interruption(library: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(_demo, "count_pairs", interrupt)
    assert main(["demo", "--library", str(library)]) == 128 + signal.SIGINT
    assert not capsys.readouterr().err


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGPIPE and says EINVAL instead")
def test_reader_that_leaves(library: Path) -> None:
    with subprocess.Popen(
        command("demo", "--library", library), cwd=INSTALLED, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 128 + signal.SIGPIPE
