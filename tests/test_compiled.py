"""Compiled callers: the functions, called through ctypes, the header, and the programs of docs/howto/compiled.md.

Those in Cython and C are compiled against the installed package; test_docs.py runs the page's sections on Numba and ctypes.
"""

import ctypes
import ctypes.util
import functools
import itertools
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest
from numpy.lib.stride_tricks import as_strided
from support import reference, rows
from support.measures import accepted, assert_same_bits
from support.processes import INSTALLED

import fastkl
from fastkl import _kernels, capi

ROOT = Path(__file__).parents[1]
HEADER = Path(fastkl.get_include(), "fastkl_c.h")
VERSION = _kernels.INTERFACE_VERSION

# These are part of the contract; others come after them.
CONTRACT = {"entropy": 0, "cross_entropy": 1, "kl_divergence": 2, "js_divergence": 3}
MEASURES = {measure.name.lower(): measure.value for measure in capi.Measure}
DTYPES = {"f64": np.dtype("f8"), "f32": np.dtype("f4")}
PARAMETER = 2.0  # the alpha of those that have one

every_type = pytest.mark.parametrize("t", DTYPES)

name_of = ctypes.PYFUNCTYPE(ctypes.c_char_p, ctypes.py_object)(("PyCapsule_GetName", ctypes.pythonapi))
to_address = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)
address_in = to_address(("PyCapsule_GetPointer", ctypes.pythonapi))

# The C types that the contract gives the functions.
SIGNATURES = {
    "row": "{0} (int, {0} const *, ptrdiff_t, {0} const *, ptrdiff_t, ptrdiff_t, double)",
    "rows": "ptrdiff_t (int, {0} const *, ptrdiff_t, ptrdiff_t, {0} const *, ptrdiff_t, ptrdiff_t, ptrdiff_t, ptrdiff_t, "
    "{0} *, ptrdiff_t, double)",
}


def signature(name):
    kind, t = name.split("_")
    return SIGNATURES[kind].format({"f64": "double", "f32": "float"}[t])


@functools.cache
def function(name):
    result, arguments = signature(name).split(" ", 1)
    types = {"int": ctypes.c_int, "ptrdiff_t": ctypes.c_ssize_t, "double": ctypes.c_double, "float": ctypes.c_float}
    to = [types.get(argument.strip("() "), ctypes.c_void_p) for argument in arguments.split(",")]
    return ctypes.CFUNCTYPE(types[result], *to)(capi.address(name))


def row(measure, t, p, q):
    """The value of one row, by the function of one row."""
    operands = [argument for x in (p, q) for argument in (x.ctypes.data, x.strides[0])]
    if measure == "entropy":
        operands[2:] = [None, 0]
    return np.array(function(f"row_{t}")(MEASURES[measure], *operands, len(p), PARAMETER), DTYPES[t])


def fill(measure, t, p, q, out):
    """The values of all rows, by the function of rows, which has to count the invalid ones."""
    operands = [argument for x in (p, q) for argument in (x.ctypes.data, *x.strides)]
    if measure == "entropy":
        operands[3:] = [None, 0, 0]
    invalid = function(f"rows_{t}")(MEASURES[measure], *operands, *p.shape, out.ctypes.data, out.strides[0], PARAMETER)
    assert invalid == np.isnan(out).sum()
    return out


def expected(measure, p, q):
    operands, compute = (p,) if measure == "entropy" else (p, q), getattr(fastkl, measure)
    keywords = accepted(compute, normalize=True, alpha=PARAMETER)
    return np.asarray(compute(*operands, **keywords, invalid="nan", threads=1))


def assert_pythons_values(measure, t, p, q, source=""):
    """Both functions have the bits of the Python function: that of rows for all, that of one row for one of them."""
    i, source = min(3, len(p) - 1), f"{measure} {source}"
    assert_same_bits(fill(measure, t, p, q, np.empty(len(p), p.dtype)), expected(measure, p, q), source)
    assert_same_bits(row(measure, t, p[i], q[i]), expected(measure, p[i], q[i]), source)


@every_type
def test_values_are_those_of_the_python_functions(tier, t):
    for name in rows.GENERATORS:
        for p, q, source in rows.batches(name, DTYPES[t].name, rows.FEW_WIDTHS):
            for measure in MEASURES:
                assert_pythons_values(measure, t, p, q, source)
    for name, n in itertools.product(rows.WIDE_GENERATORS, rows.WIDE):
        assert_pythons_values("kl_divergence", t, *rows.make(name, DTYPES[t].name, (1, n), seed=0))


# The same rows, in every layout.
LAYOUTS = {
    "C order": lambda p: p,
    "Fortran order": np.asfortranarray,
    "every third column, every second row": lambda p: np.repeat(np.repeat(p, 2, 0), 3, 1)[::2, ::3],
    "rows backwards": lambda p: p[::-1].copy()[::-1],
    "entries backwards": lambda p: p[:, ::-1].copy()[:, ::-1],
    "columns, both backwards": lambda p: np.asfortranarray(p[::-1, ::-1])[::-1, ::-1],
    "misaligned": lambda p: np.ndarray(p.shape, p.dtype, b"\0" + p.tobytes(), 1),
    "packed with a byte": lambda p: np.rec.fromarrays([p, np.ones(p.shape, "i1")], names="p,other").p,
}


@every_type
def test_strides_in_bytes(t):
    for shape in (700, 5), (40, 300):  # more rows than are computed at once; rows short enough to be interleaved
        p, q, source = rows.make("weights", DTYPES[t].name, shape, seed=7)
        for (layout, change), measure in itertools.product(LAYOUTS.items(), MEASURES):
            laid = change(p)
            for other in change(q), q:
                assert_pythons_values(measure, t, laid, other, f"{source}, {layout}")
                # No value of another row or column.
                np.testing.assert_allclose(expected(measure, laid, other), expected(measure, p, q), rtol=1e-4, atol=1e-4)
        for one in q[4], q[:, 4:5], q[4, 4]:  # a stride of zero repeats a row or an entry
            repeated = np.broadcast_to(one, shape)
            for measure in MEASURES:
                assert_pythons_values(measure, t, p, repeated)
                assert_pythons_values(measure, t, repeated, p)


@every_type
def test_out_has_a_stride_and_nothing_else_is_written(t):
    p, q, _ = rows.make("apart", DTYPES[t].name, (1100, 4), seed=5)
    for offset, step, measure in itertools.product((0, 3), (1, 3, -1, -2), MEASURES):  # misaligned at 3
        memory = np.full(offset + 3 * 1100 * p.itemsize + 64, 0xA5, "u1")
        untouched = memory.copy()
        out, wanted = (np.ndarray(3 * 1100, p.dtype, x.data, offset)[::step][:1100] for x in (memory, untouched))
        wanted[...] = expected(measure, p, q)
        fill(measure, t, p, q, out)
        np.testing.assert_array_equal(memory, untouched)


@every_type
def test_one_row_as_a_block_and_none(tier, t):
    p, q, _ = rows.make("apart", DTYPES[t].name, (1, 300), seed=1)

    def in_a_column(x):  # as if neighbours stood beside it
        return as_strided(np.repeat(x, 2), x.shape, (x.itemsize, 2 * x.itemsize))

    for measure in MEASURES:
        for a, b in itertools.product((p, in_a_column(p)), (q, in_a_column(q))):
            assert_same_bits(fill(measure, t, a, b, np.empty(1, p.dtype)), expected(measure, p, q))
        out = np.full(1, 7, p.dtype)
        for count in 0, -1:
            fill(measure, t, as_strided(p, (0, 300)), q, out)
            operands = [p.ctypes.data, 0, 0] * 2
            assert function(f"rows_{t}")(MEASURES[measure], *operands, count, 300, out.ctypes.data, 0, 0) == 0
        assert out == 7


SPECIAL = [np.nan, np.inf, -np.inf, -0.5, -5e-324, 0.0, -0.0, 5e-324, 1e-310, 3e38, 1.7e308]


@pytest.mark.parametrize("n", [1, 2, 40, 1000])
@every_type
def test_special_entries(t, n):
    with np.errstate(all="ignore"):
        entries = np.array(SPECIAL).astype(DTYPES[t])
    # Rows of a special entry alone, with one such, and plain ones, each against each.
    hot = np.arange(n) == n - 1
    alone, among = np.repeat(entries, n).reshape(-1, n), np.where(hot, entries[:, np.newaxis], entries.dtype.type(1))
    given = np.concatenate([alone, among, np.ones((1, n), entries.dtype)])
    p, q = np.repeat(given, len(given), axis=0), np.tile(given, (len(given), 1))
    for measure in MEASURES:
        wanted = expected(measure, p, q)
        assert_same_bits(fill(measure, t, p, q, np.empty(len(p), p.dtype)), wanted)
        for i in range(len(p) if n <= 40 else 0):
            assert_same_bits(row(measure, t, p[i], q[i]), wanted[i : i + 1].reshape(()), f"{measure} of row {i}")


@every_type
def test_no_entries_or_no_measure_no_value(t):
    p, out = np.full((600, 5), 0.2, DTYPES[t]), np.empty(600, DTYPES[t])
    unknown = [(code, 5) for code in (-1, len(MEASURES), 2**31 - 1)]
    for code, n in [*unknown, *itertools.product(MEASURES.values(), (0, -1))]:
        out[:] = 0
        operands = [p.ctypes.data, *p.strides] * 2
        assert function(f"rows_{t}")(code, *operands, 600, n, out.ctypes.data, out.strides[0], 0) == 600
        assert np.isnan(out).all()
        assert np.isnan(function(f"row_{t}")(code, *[p.ctypes.data, p.itemsize] * 2, n, 0))


@every_type
def test_the_parameter_is_ignored_where_there_is_none(t):
    p, q, _ = rows.make("weights", DTYPES[t].name, (1, 9), seed=3)
    operands = [p.ctypes.data, p.itemsize, q.ctypes.data, q.itemsize]
    without = {measure: code for measure, code in MEASURES.items() if not accepted(getattr(fastkl, measure), alpha=1)}
    for measure, code in without.items():
        values = {function(f"row_{t}")(code, *operands, 9, parameter) for parameter in (0, -1, np.nan, np.inf)}
        assert values == {expected(measure, p[0], q[0])[()]}


# The word of glibc's fenv_t that has the mode of SSE, or of arm64; the bits in it that flush subnormal numbers and round
# upward; the flags of invalid, overflow and division by zero.
MODES = {"x86_64": (7, 0x8040 | 0x4000, 0xD), "aarch64": (0, 1 << 24 | 1 << 22, 0x7)}


@pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() not in MODES, reason="does not know this platform's <fenv.h>"
)
@every_type
def test_the_mode_of_the_caller_is_kept_and_ignored(tier, t):
    libm = ctypes.CDLL(ctypes.util.find_library("m"))
    word, bits, serious = MODES[platform.machine()]
    own, strange, after = ((ctypes.c_uint32 * 16)() for _ in range(3))
    p, q, _ = rows.make("subnormal_rows", DTYPES[t].name, (50, 20), seed=1)
    p[7, 3] = np.nan
    libm.fegetenv(own)
    libm.fegetenv(strange)
    strange[word] |= bits
    for measure in MEASURES:
        result, wanted, one = np.empty(50, p.dtype), expected(measure, p, q), expected(measure, p[1], q[1])
        libm.feclearexcept(serious)
        fill(measure, t, p, q, result)
        assert not libm.fetestexcept(serious), measure
        libm.fesetenv(strange)
        try:
            fill(measure, t, p, q, result)
            result_of_one = row(measure, t, p[1], q[1])
            libm.fegetenv(after)
        finally:
            libm.fesetenv(own)
        assert after[word] & bits == bits, measure
        assert_same_bits(result, wanted, measure)
        assert_same_bits(result_of_one, one, measure)


def test_there_are_these_functions_and_no_others():
    types = {name: name_of(capsule).decode() for name, capsule in _kernels.__pyx_capi__.items()}
    assert types == {name: signature(name) for name in capi.FUNCTIONS}


def test_the_measures_are_the_same_in_every_list():
    functions = {measure.function for measure in reference.DEFINITIONS.values()} - {"js_distance"}
    assert set(MEASURES) == {name for name in functions if hasattr(fastkl, name)}
    assert list(MEASURES.values()) == list(range(len(MEASURES)))
    assert MEASURES == _kernels.MEASURES
    assert MEASURES.items() >= CONTRACT.items()


def test_the_capsule_holds_the_table_of_the_header():
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
    assert (table.version, table.size) == (VERSION, ctypes.sizeof(Table))
    assert {name: getattr(table, name) for name in members} == {name: capi.address(name) for name in members}


def test_the_address_of_another_name_is_refused():
    with pytest.raises(ValueError, match=r"^name='entropy': must be one of row_f64, row_f32, rows_f64, rows_f32$"):
        capi.address("entropy")


def test_the_version_is_the_same_in_every_place():
    places = {
        HEADER: r"^#define FASTKL_INTERFACE_VERSION (\d+)$",
        Path(fastkl.__file__).with_name("__init__.pxd"): r"^ {4}INTERFACE_VERSION = (\d+)\b",
        ROOT / "docs/howto/compiled.md": r'build_info\(\)\["interface"\]\n(\d+)$',
    }
    found = {file.name: re.findall(pattern, file.read_text("utf-8"), re.MULTILINE) for file, pattern in places.items()}
    assert found == {name: [str(VERSION)] for name in found}
    assert fastkl.build_info()["interface"] == VERSION


@pytest.fixture
def folder(tmp_path):
    """A folder with the page's files: blocks with a name before them."""
    text = (ROOT / "docs/howto/compiled.md").read_text(encoding="utf-8")
    block = r"^`([\w.]+)`:\n\n```[^\n]*\n(?::class: not-executed\n\n)?(.*?)^```"
    for name, content in re.findall(block, text, re.MULTILINE | re.DOTALL):
        (tmp_path / name).write_text(content)
    return tmp_path


def run(*command, folder, **environment):
    """With a Python that finds what this one finds."""
    path = os.pathsep.join([str(INSTALLED), *filter(None, sys.path)])
    environment = {**os.environ, "PYTHONPATH": path, **environment}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


EVERY_FUNCTION = f"""
from fastkl cimport Measure, {", ".join(capi.FUNCTIONS)}

ADDRESSES = {{{", ".join(f"'{name}': <size_t><void *>{name}" for name in capi.FUNCTIONS)}}}
MEASURES = {{{", ".join(f"'{name}': <int>Measure.{name.upper()}" for name in MEASURES)}}}
"""
USE = """
import ctypes, every, nearest, numpy as np
from fastkl import capi
assert every.ADDRESSES == {name: capi.address(name) for name in capi.FUNCTIONS}
assert every.MEASURES == {measure.name.lower(): measure.value for measure in capi.Measure}
p = np.array([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7], [0, 0, 0]])
result = np.zeros(3, np.intp)
nearest.nearest(p[:, ::-1], np.array([[0.6, 0.2, 0.2], [0.3, 0.3, 0.4]]), result)
print(*result)
"""
OTHER_VERSION = "from fastkl import _kernels; _kernels.INTERFACE_VERSION += 1; import nearest"
OTHER_TYPE = "from fastkl._kernels import __pyx_capi__ as c; c['row_f64'] = c['row_f32']; import nearest"


@pytest.mark.slow
def test_a_foreign_cython_package(folder):
    pytest.importorskip("Cython")
    pytest.importorskip("setuptools")
    (folder / "every.pyx").write_text(EVERY_FUNCTION)
    setup = folder / "setup.py"
    setup.write_text(setup.read_text().replace('cythonize("nearest.pyx"', 'cythonize(["nearest.pyx", "every.pyx"]'))
    built = run(sys.executable, "setup.py", "build_ext", "--inplace", folder=folder)
    assert built.returncode == 0, built.stdout + built.stderr
    assert "fastkl.h" not in (folder / "nearest.c").read_text()  # nothing of fastkl but what is installed
    codes = USE, OTHER_VERSION, OTHER_TYPE
    done, other_version, other_type = (run(sys.executable, "-c", code, folder=folder) for code in codes)
    assert (done.returncode, done.stdout) == (0, "1 0 -1\n"), done.stderr
    assert other_version.stderr.splitlines()[-1] == (
        f"ImportError: the installed fastkl has version {VERSION + 1} of its compiled interface: "
        f"this was compiled for version {VERSION}"
    )
    assert "TypeError: C function fastkl._kernels.row_f64 has wrong signature" in other_type.stderr


def embedding():
    """What `python3-config --embed --cflags --ldflags` says, which not every environment has."""
    value = sysconfig.get_config_var
    folders = dict.fromkeys([f"{sys.base_prefix}/lib", value("LIBDIR"), value("LIBPL")])
    libraries = " ".join(value(name) or "" for name in ("LIBS", "SYSLIBS", "LINKFORSHARED")).split()
    search = [flag for folder in folders if folder for flag in (f"-L{folder}", f"-Wl,-rpath,{folder}")]
    return [f"-I{sysconfig.get_path('include')}", *search, f"-lpython{value('LDVERSION')}", *libraries]


def run_program(folder, include):
    """What the page's C program, compiled without a warning, says."""
    compiler = (os.environ.get("CC") or sysconfig.get_config_var("CC")).split()
    options = ["-std=c11", "-Wall", "-Wextra", "-Werror", f"-I{include}", *embedding()]
    built = run(*compiler, "program.c", "-o", "program", *options, folder=folder)
    assert built.returncode == 0, built.stderr
    return run(str(folder / "program"), folder=folder, PYTHONHOME=f"{sys.base_prefix}:{sys.base_exec_prefix}")


without_cc = pytest.mark.skipif(os.name == "nt", reason="Windows has no such compiler command")


@without_cc
def test_a_c_program(folder):
    done = run_program(folder, Path(fastkl.get_include()))
    assert done.returncode == 0, done.stderr
    wanted = fastkl.kl_divergence([[0.5, 0.25, 0.25, 0], [1, 2, 3, 4]], [0.25] * 4, normalize=True)
    assert done.stdout == "{:.15f} {:.15f}\n".format(*wanted)


@without_cc
@pytest.mark.parametrize(
    ("text", "other"),
    [
        (f"INTERFACE_VERSION {VERSION}", f"INTERFACE_VERSION {VERSION + 1}"),
        ("\n} fastkl_interface;", "\n    void (*newer)(void);\n} fastkl_interface;"),
    ],
    ids=["another version", "more functions"],
)
def test_a_c_program_of_another_interface_is_refused(folder, text, other):
    shutil.copy(HEADER.with_name("fastkl_measures.h"), folder)
    (folder / "fastkl_c.h").write_text(HEADER.read_text().replace(text, other))
    done = run_program(folder, folder)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"ImportError: the installed fastkl has version {VERSION} of its compiled interface, of ")


@without_cc
def test_the_header_is_cpp_too(folder):
    compiler = shutil.which(os.environ.get("CXX", "c++"))
    if compiler is None:
        pytest.skip("could not import 'c++'")
    include = [f"-I{fastkl.get_include()}", f"-I{sysconfig.get_path('include')}"]
    done = run(compiler, "-xc++", "-std=c++11", "-fsyntax-only", *include, "program.c", folder=folder)
    assert done.returncode == 0, done.stderr
