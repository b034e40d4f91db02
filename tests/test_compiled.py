"""Compiled callers: the functions, called through ctypes, the header, and the programs of docs/compiled.md.

Those in Cython and C are compiled against the installed package; test_docs.py runs the page's sections on Numba and ctypes.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import functools
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import reference
import rows
from numpy.lib.stride_tricks import as_strided

import fastkl
from fastkl import _kernels, capi

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Array = np.ndarray[Any, Any]

ROOT = Path(__file__).parents[1]
INSTALLED = Path(fastkl.__file__).parents[1]
HEADER = Path(fastkl.get_include(), "fastkl_c.h")

# These are part of the contract; others come after them.
CONTRACT = {"entropy": 0, "cross_entropy": 1, "kl_divergence": 2, "js_divergence": 3}
MEASURES = {measure.name.lower(): measure.value for measure in capi.Measure}
DTYPES = {"f64": np.dtype("f8"), "f32": np.dtype("f4")}
C_TYPES = {"f64": ctypes.c_double, "f32": ctypes.c_float}

every_measure = pytest.mark.parametrize("measure", MEASURES)
every_type = pytest.mark.parametrize("t", DTYPES)

name_of = ctypes.PYFUNCTYPE(ctypes.c_char_p, ctypes.py_object)(("PyCapsule_GetName", ctypes.pythonapi))
address_in = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)


def signature(name: str) -> str:
    """The C type that the contract gives a function of that name."""
    kind, t = name.split("_")
    real = C_TYPES[t].__name__.removeprefix("c_")
    operand = [f"{real} const *", *["ptrdiff_t"] * (1 if kind == "row" else 2)]
    if kind == "row":
        return f"{real} ({', '.join(['int', *operand, *operand, 'ptrdiff_t', 'double'])})"
    arguments = ["int", *operand, *operand, "ptrdiff_t", "ptrdiff_t", f"{real} *", "ptrdiff_t", "double"]
    return f"ptrdiff_t ({', '.join(arguments)})"


@functools.cache
def function(name: str) -> Callable[..., Any]:
    result, arguments = signature(name).split(" ", 1)
    types = {"int": ctypes.c_int, "ptrdiff_t": ctypes.c_ssize_t, "double": ctypes.c_double, "float": ctypes.c_float}
    to = [types.get(argument.strip("() "), ctypes.c_void_p) for argument in arguments.split(",")]
    return ctypes.CFUNCTYPE(types[result], *to)(capi.address(name))


def row(measure: str, t: str, p: Array, q: Array) -> Array:
    """The value of one row, by the function of one row."""
    operands = [argument for x in (p, q) for argument in (x.ctypes.data, x.strides[0])]
    if measure == "entropy":
        operands[2:] = [None, 0]
    return np.array(function(f"row_{t}")(MEASURES[measure], *operands, len(p), 0), DTYPES[t])


def fill(measure: str, t: str, p: Array, q: Array, out: Array) -> Array:
    """The values of all rows, by the function of rows, which has to count the invalid ones."""
    operands = [argument for x in (p, q) for argument in (x.ctypes.data, *x.strides)]
    if measure == "entropy":
        operands[3:] = [None, 0, 0]
    invalid = function(f"rows_{t}")(MEASURES[measure], *operands, *p.shape, out.ctypes.data, out.strides[0], 0)
    assert invalid == np.isnan(out).sum()
    return out


def expected(measure: str, p: Array, q: Array) -> Array:
    operands = (p,) if measure == "entropy" else (p, q)
    return np.asarray(getattr(fastkl, measure)(*operands, normalize=True, invalid="nan", threads=1))


def assert_same_bits(result: Array, wanted: Array, source: str = "") -> None:
    assert result.dtype == wanted.dtype
    unsigned = f"u{wanted.itemsize}"
    np.testing.assert_array_equal(np.array(result).view(unsigned), np.array(wanted).view(unsigned), err_msg=source)


# ---- values ----


@every_measure
@every_type
def test_values_are_those_of_the_python_functions(tier: str, measure: str, t: str) -> None:
    for name in rows.GENERATORS:
        for p, q, source in rows.batches(name, DTYPES[t].name, rows.WIDTHS):
            wanted = expected(measure, p, q)
            assert_same_bits(fill(measure, t, p, q, np.empty(len(p), p.dtype)), wanted, source)
            assert_same_bits(row(measure, t, p[0], q[0]), expected(measure, p[0], q[0]), source)


def test_rows_wider_than_a_piece(tier: str) -> None:
    for name in rows.WIDE_GENERATORS:
        for t in DTYPES:
            for p, q, source in rows.batches(name, DTYPES[t].name, rows.WIDE):
                assert_same_bits(row("kl_divergence", t, p[0], q[0]), expected("kl_divergence", p[0], q[0]), source)


def layouts(p: Array) -> Iterator[tuple[str, Array]]:
    """The same rows, in every layout."""
    yield "C order", p
    yield "Fortran order", np.asfortranarray(p)
    yield "every third column, every second row", np.repeat(np.repeat(p, 2, 0), 3, 1)[::2, ::3]
    yield "rows backwards", p[::-1].copy()[::-1]
    yield "entries backwards", p[:, ::-1].copy()[:, ::-1]
    yield "columns, both backwards", np.asfortranarray(p[::-1, ::-1])[::-1, ::-1]
    yield "misaligned", np.ndarray(p.shape, p.dtype, b"\0" + p.tobytes(), 1)
    yield "packed with a byte", np.rec.fromarrays([p, np.ones(p.shape, "i1")], names="p,other").p


LAYOUTS = [name for name, _ in layouts(np.ones((2, 2)))]


@every_measure
@every_type
@pytest.mark.parametrize("layout", LAYOUTS)
def test_strides_in_bytes(tier: str, measure: str, t: str, layout: str) -> None:
    for shape in (700, 5), (40, 300):  # more rows than are computed at once; rows short enough to be interleaved
        p, q, source = rows.make("weights", DTYPES[t].name, shape, seed=7)
        wanted = expected(measure, p, q)
        for other in (dict(layouts(q))[layout], q):
            laid = dict(layouts(p))[layout]
            result = fill(measure, t, laid, other, np.empty(len(p), p.dtype))
            assert_same_bits(result, expected(measure, laid, other), f"{source}, {layout}")
            assert_same_bits(
                row(measure, t, laid[3], other[3]), expected(measure, laid[3], other[3]), f"{source}, {layout}"
            )
            np.testing.assert_allclose(result, wanted, rtol=0, atol=1e-4)  # no value of another row or column


@every_measure
@every_type
def test_a_stride_of_zero_repeats_a_row_or_an_entry(tier: str, measure: str, t: str) -> None:
    p, q, _ = rows.make("weights", DTYPES[t].name, (600, 9), seed=3)
    for one in (np.broadcast_to(q[4], p.shape), np.broadcast_to(q[:, 4:5], p.shape), np.broadcast_to(q[4, 4], p.shape)):
        for a, b in (p, one), (one, p):
            assert_same_bits(fill(measure, t, a, b, np.empty(len(p), p.dtype)), expected(measure, a, b))


@every_measure
@every_type
@pytest.mark.parametrize("step", [1, 3, -1, -2])
def test_out_has_a_stride_and_nothing_else_is_written(measure: str, t: str, step: int) -> None:
    p, q, _ = rows.make("apart", DTYPES[t].name, (1100, 4), seed=5)
    for offset in 0, 3:  # the latter misaligned
        memory = np.full(offset + 3 * 1100 * p.itemsize + 64, 0xA5, "u1")
        all_of_it = np.ndarray(3 * 1100, p.dtype, memory.data, offset)
        out = all_of_it[::step][:1100]
        untouched = memory.copy()
        wanted = np.ndarray(3 * 1100, p.dtype, untouched.data, offset)
        wanted[::step][:1100] = expected(measure, p, q)
        fill(measure, t, p, q, out)
        np.testing.assert_array_equal(memory, untouched)


@every_measure
@every_type
def test_one_row_as_a_block_and_none(tier: str, measure: str, t: str) -> None:
    p, q, _ = rows.make("apart", DTYPES[t].name, (1, 300), seed=1)
    wanted = expected(measure, p, q)

    def in_a_column(x: Array) -> Array:  # as if neighbours stood beside it
        return as_strided(np.repeat(x, 2), x.shape, (x.itemsize, 2 * x.itemsize))

    for a, b in (p, q), (in_a_column(p), q), (p, in_a_column(q)), (in_a_column(p), in_a_column(q)):
        assert_same_bits(fill(measure, t, a, b, np.empty(1, p.dtype)), wanted)
    out = np.full(1, 7, p.dtype)
    for count in 0, -1:
        fill(measure, t, as_strided(p, (0, 300)), q, out)
        operands = [p.ctypes.data, 0, 0] * 2
        assert function(f"rows_{t}")(MEASURES[measure], *operands, count, 300, out.ctypes.data, 0, 0) == 0
    assert out == 7


# ---- invalid and extreme rows ----


SPECIAL = [np.nan, np.inf, -np.inf, -0.5, -5e-324, 0.0, -0.0, 5e-324, 1e-310, 3e38, 1.7e308]


@every_measure
@every_type
@pytest.mark.parametrize("n", [1, 2, 40, 1000])
def test_special_entries(tier: str, measure: str, t: str, n: int) -> None:
    with np.errstate(all="ignore"):
        entries = np.array(SPECIAL).astype(DTYPES[t])
    # Rows of a special entry alone, with one such, and plain ones, each against each.
    hot = np.arange(n) == n - 1
    given = np.concatenate(
        [np.repeat(entries, n).reshape(-1, n), np.where(hot, entries[:, np.newaxis], entries.dtype.type(1))]
    )
    given = np.concatenate([given, np.ones((1, n), given.dtype)])
    p, q = np.repeat(given, len(given), axis=0), np.tile(given, (len(given), 1))
    wanted = expected(measure, p, q)
    assert_same_bits(fill(measure, t, p, q, np.empty(len(p), p.dtype)), wanted)
    if n <= 40:
        for i in range(len(p)):
            assert_same_bits(row(measure, t, p[i], q[i]), wanted[i : i + 1].reshape(()), f"{p[i]}, {q[i]}")


@every_measure
@every_type
def test_no_entries_no_value(tier: str, measure: str, t: str) -> None:
    nothing = np.ones((600, 0), DTYPES[t])
    assert np.isnan(row(measure, t, nothing[0], nothing[0]))
    assert np.isnan(fill(measure, t, nothing, nothing, np.zeros(600, DTYPES[t]))).all()
    operands = [nothing.ctypes.data, 8] * 2
    assert np.isnan(function(f"row_{t}")(MEASURES[measure], *operands, -1, 0))


@every_type
@pytest.mark.parametrize("measure", [-1, len(MEASURES), 2**31 - 1])
def test_an_unknown_measure_gives_nan(t: str, measure: int) -> None:
    p, out = np.full((600, 5), 0.2, DTYPES[t]), np.zeros(600, DTYPES[t])
    operands = [argument for _ in range(2) for argument in (p.ctypes.data, *p.strides)]
    assert function(f"rows_{t}")(measure, *operands, 600, 5, out.ctypes.data, out.strides[0], 0) == 600
    assert np.isnan(out).all()
    assert np.isnan(function(f"row_{t}")(measure, p.ctypes.data, p.itemsize, p.ctypes.data, p.itemsize, 5, 0))


@every_measure
@every_type
def test_the_parameter_is_ignored_where_there_is_none(t: str, measure: str) -> None:
    p, q, _ = rows.make("weights", DTYPES[t].name, (1, 9), seed=3)
    operands = [p.ctypes.data, p.itemsize, q.ctypes.data, q.itemsize]
    values = {function(f"row_{t}")(MEASURES[measure], *operands, 9, parameter) for parameter in (0, -1, np.nan, np.inf)}
    assert values == {expected(measure, p[0], q[0])[()]}


def test_a_float_is_the_double_rounded_once(tier: str) -> None:
    p, q, _ = rows.make("close", "float32", (50, 100), seed=2)
    doubles = np.empty(50)
    fastkl.kl_divergence(p, q, normalize=True, out=doubles)
    result = fill("kl_divergence", "f32", p, q, np.empty(50, "f4"))
    assert (result != doubles).any()
    assert_same_bits(result, doubles.astype("f4"))


# ---- the caller's floating-point mode ----

# The word of glibc's fenv_t that has the mode of SSE, or of arm64; the bits in it that flush subnormal numbers and round
# upward; the flags of invalid, overflow and division by zero.
MODES = {"x86_64": (7, 0x8040 | 0x4000, 0xD), "aarch64": (0, 1 << 24 | 1 << 22, 0x7)}


@pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() not in MODES, reason="does not know this platform's <fenv.h>"
)
@every_measure
@every_type
def test_the_mode_of_the_caller_is_kept_and_ignored(tier: str, measure: str, t: str) -> None:
    libm = ctypes.CDLL(ctypes.util.find_library("m"))
    word, bits, serious = MODES[platform.machine()]
    own, strange, after = (ctypes.c_uint32 * 16)(), (ctypes.c_uint32 * 16)(), (ctypes.c_uint32 * 16)()
    p, q, _ = rows.make("subnormal_rows", DTYPES[t].name, (50, 20), seed=1)
    p[7, 3] = np.nan
    wanted, one = expected(measure, p, q), expected(measure, p[1], q[1])
    result = np.empty_like(wanted)
    libm.feclearexcept(serious)
    fill(measure, t, p, q, result)
    assert not libm.fetestexcept(serious)
    libm.fegetenv(own)
    libm.fegetenv(strange)
    strange[word] |= bits
    libm.fesetenv(strange)
    try:
        fill(measure, t, p, q, result)
        result_of_one = row(measure, t, p[1], q[1])
        libm.fegetenv(after)
    finally:
        libm.fesetenv(own)
    assert after[word] & bits == bits
    assert_same_bits(result, wanted)
    assert_same_bits(result_of_one, one)


# ---- what C, Cython and Numba find ----


def test_there_are_these_functions_and_no_others() -> None:
    types = {name: name_of(capsule).decode() for name, capsule in _kernels.__pyx_capi__.items()}
    assert types == {name: signature(name) for name in capi.FUNCTIONS}


def test_the_measures_are_the_same_in_every_list() -> None:
    assert list(MEASURES) == [name for name in reference.DEFINITIONS if name != "js_distance"]
    assert list(MEASURES.values()) == list(range(len(MEASURES)))
    assert MEASURES == _kernels.MEASURES
    assert MEASURES.items() >= CONTRACT.items()


def test_the_capsule_holds_the_table_of_the_header() -> None:
    text = HEADER.read_text()
    (struct,) = re.findall(r"^typedef struct \{\n(.*?)^\} fastkl_interface;", text, re.MULTILINE | re.DOTALL)
    assert re.findall(r"^ {4}\w+ (\w+);", struct, re.MULTILINE) == ["version", "size"]
    members = re.findall(r"^ {4}\w+ \(\*(\w+)\)\(", struct, re.MULTILINE)
    assert sorted(members) == sorted(capi.FUNCTIONS)
    assert re.findall(r"^#define fastkl_(\w+) \(fastkl_imported->(\w+)\)$", text, re.MULTILINE) == [
        (name, name) for name in members
    ]

    class Table(ctypes.Structure):
        _fields_ = (("version", ctypes.c_int), ("size", ctypes.c_size_t), *((name, ctypes.c_void_p) for name in members))

    table = Table.from_address(address_in(_kernels.c_interface, b"fastkl._kernels.c_interface"))
    assert (table.version, table.size) == (_kernels.INTERFACE_VERSION, ctypes.sizeof(Table))
    assert {name: getattr(table, name) for name in members} == {name: capi.address(name) for name in members}


def test_the_address_of_another_name_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^name='entropy': must be one of row_f64, row_f32, rows_f64, rows_f32$"):
        capi.address("entropy")


def test_the_version_is_the_same_in_every_place() -> None:
    places = {
        HEADER: r"^#define FASTKL_INTERFACE_VERSION (\d+)$",
        Path(fastkl.__file__).with_name("__init__.pxd"): r"^ {4}INTERFACE_VERSION = (\d+)\b",
        ROOT / "docs/compiled.md": r'build_info\(\)\["interface"\]\n(\d+)$',
    }
    found = {file.name: re.findall(pattern, file.read_text("utf-8"), re.MULTILINE) for file, pattern in places.items()}
    assert found == {name: [str(_kernels.INTERFACE_VERSION)] for name in found}
    assert fastkl.build_info()["interface"] == _kernels.INTERFACE_VERSION


# ---- the programs of docs/compiled.md ----


def write_programs(folder: Path) -> None:
    """The page's files: blocks with a name before them."""
    text = (ROOT / "docs/compiled.md").read_text(encoding="utf-8")
    for name, content in re.findall(r"^`([\w.]+)`:\n\n```\w+\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        (folder / name).write_text(content)


def run(*command: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """With a Python that finds what this one finds."""
    path = os.pathsep.join([str(INSTALLED), *filter(None, sys.path)])
    return subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


EVERY_FUNCTION = f"""
from fastkl cimport Measure, {", ".join(capi.FUNCTIONS)}

ADDRESSES = {{{", ".join(f"'{name}': <size_t><void *>{name}" for name in capi.FUNCTIONS)}}}
MEASURES = {{{", ".join(f"'{name}': <int>Measure.{name.upper()}" for name in MEASURES)}}}
"""
USE = """
import ctypes, every, nearest, numpy as np
from fastkl import _kernels
from fastkl import capi
assert every.ADDRESSES == {name: capi.address(name) for name in capi.FUNCTIONS}
assert every.MEASURES == {measure.name.lower(): measure.value for measure in capi.Measure}
p = np.array([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7], [0, 0, 0]])
result = np.zeros(3, np.intp)
nearest.nearest(p[:, ::-1], np.array([[0.6, 0.2, 0.2], [0.3, 0.3, 0.4]]), result)
print(*result)
"""
OTHER_VERSION = "from fastkl import _kernels; _kernels.INTERFACE_VERSION += 1; import nearest"
OTHER_TYPE = """
from fastkl import _kernels
_kernels.__pyx_capi__["row_f64"] = _kernels.__pyx_capi__["row_f32"]
import nearest
"""


def test_a_foreign_cython_package(tmp_path: Path) -> None:
    pytest.importorskip("Cython")
    pytest.importorskip("setuptools")
    write_programs(tmp_path)
    (tmp_path / "every.pyx").write_text(EVERY_FUNCTION)
    setup = tmp_path / "setup.py"
    setup.write_text(setup.read_text().replace('cythonize("nearest.pyx"', 'cythonize(["nearest.pyx", "every.pyx"]'))
    built = run(sys.executable, "setup.py", "build_ext", "--inplace", folder=tmp_path)
    assert built.returncode == 0, built.stdout + built.stderr
    assert "fastkl.h" not in (tmp_path / "nearest.c").read_text()  # nothing of fastkl but what is installed

    def use(code: str) -> subprocess.CompletedProcess[str]:
        return run(sys.executable, "-c", code, folder=tmp_path)

    done = use(USE)
    assert (done.returncode, done.stdout) == (0, "1 0 -1\n"), done.stderr
    version = _kernels.INTERFACE_VERSION
    assert use(OTHER_VERSION).stderr.splitlines()[-1] == (
        f"ImportError: the installed fastkl has version {version + 1} of its compiled interface: "
        f"this was compiled for version {version}"
    )
    assert "TypeError: C function fastkl._kernels.row_f64 has wrong signature" in use(OTHER_TYPE).stderr


def embedding() -> list[str]:
    """What `python3-config --embed --cflags --ldflags` says, which not every environment has."""
    value = sysconfig.get_config_var
    folders = dict.fromkeys([f"{sys.base_prefix}/lib", value("LIBDIR"), value("LIBPL")])
    libraries = " ".join(value(name) or "" for name in ("LIBS", "SYSLIBS", "LINKFORSHARED")).split()
    search = [flag for folder in folders if folder for flag in (f"-L{folder}", f"-Wl,-rpath,{folder}")]
    return [f"-I{sysconfig.get_path('include')}", *search, f"-lpython{value('LDVERSION')}", *libraries]


def compile_program(folder: Path, include: Path) -> None:
    compiler = (os.environ.get("CC") or sysconfig.get_config_var("CC")).split()
    warnings = ["-std=c11", "-Wall", "-Wextra", "-Werror"]
    done = run(*compiler, *warnings, "program.c", "-o", "program", f"-I{include}", *embedding(), folder=folder)
    assert done.returncode == 0, done.stderr


def start_program(folder: Path) -> subprocess.CompletedProcess[str]:
    return run(str(folder / "program"), folder=folder, PYTHONHOME=f"{sys.base_prefix}:{sys.base_exec_prefix}")


without_cc = pytest.mark.skipif(os.name == "nt", reason="Windows has no such compiler command")


@without_cc
def test_a_c_program(tmp_path: Path) -> None:
    write_programs(tmp_path)
    compile_program(tmp_path, Path(fastkl.get_include()))
    done = start_program(tmp_path)
    assert done.returncode == 0, done.stderr
    wanted = fastkl.kl_divergence([[0.5, 0.25, 0.25, 0], [1, 2, 3, 4]], [0.25] * 4, normalize=True)
    assert done.stdout == "{:.15f} {:.15f}\n".format(*wanted)


@without_cc
@pytest.mark.parametrize("change", ["another version", "more functions"])
def test_a_c_program_of_another_interface_is_refused(tmp_path: Path, change: str) -> None:
    write_programs(tmp_path)
    text, version = HEADER.read_text(), _kernels.INTERFACE_VERSION
    if change == "another version":
        text = text.replace(f"FASTKL_INTERFACE_VERSION {version}", f"FASTKL_INTERFACE_VERSION {version + 1}")
    else:
        text = text.replace("\n} fastkl_interface;", "\n    void (*newer)(void);\n} fastkl_interface;")
    shutil.copy(HEADER.with_name("fastkl_measures.h"), tmp_path)
    (tmp_path / "fastkl_c.h").write_text(text)
    compile_program(tmp_path, tmp_path)
    done = start_program(tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"ImportError: the installed fastkl has version {version} of its compiled interface, of ")


@without_cc
def test_the_header_is_cpp_too(tmp_path: Path) -> None:
    compiler = shutil.which(os.environ.get("CXX", "c++"))
    if compiler is None:
        pytest.skip("could not import 'c++'")
    write_programs(tmp_path)
    include = [f"-I{fastkl.get_include()}", f"-I{sysconfig.get_path('include')}"]
    done = run(compiler, "-xc++", "-std=c++11", "-fsyntax-only", *include, "program.c", folder=tmp_path)
    assert done.returncode == 0, done.stderr
