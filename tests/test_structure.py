"""The linter of the structure: each of its checks finds what breaks the rule, and nothing where the rule is kept.

What it finds in this tree is not tested here; the linters run it.
"""

import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[1] / "tools"

# What templates are filled with: parameters without and with types.
NAMES, TYPED = [*"abcdefghi"], [f"int {name}" for name in "abcdefghi"]


@pytest.fixture
def breaches(tmp_path, monkeypatch):
    """Return a function that gives what the linter finds in a tree of these files: their names and texts."""
    monkeypatch.syspath_prepend(TOOLS)

    def check(files):
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
        return import_module("check_structure").check(tmp_path)

    return check


def filled(template, count):
    """The template with `count` parameters."""
    return template.replace("NAMES", ", ".join(NAMES[:count])).replace("TYPED", ", ".join(TYPED[:count]))


def test_breaches_are_printed_and_fail(tmp_path):
    command = [sys.executable, str(TOOLS / "check_structure.py"), str(tmp_path)]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (ran.stdout, ran.stderr) == ("", "")
    (tmp_path / "fastkl").mkdir()
    (tmp_path / "fastkl" / "a.py").write_text("from b import _x\nfrom c import _y")
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (1, "")
    assert ran.stdout == "fastkl/a.py:1: _x is private to b\nfastkl/a.py:2: _y is private to c\n"


PRIVATE = {
    "from ._low import _name": "fastkl._low",
    "def f():\n    from fastkl._low import _name as name": "fastkl._low",
    "from . import _low\n_low._name()": "_low",
    "import fastkl._low as low\nlow._name()": "low",
    "import fastkl._low\nfastkl._low._name()": "fastkl._low",
    "import numpy as np\nnp.ma._name()": "np.ma",
    "from ._low import Public\nPublic._name()": "Public",
}


CYTHON = '"""Words."""\n\nfrom fastkl._low cimport (\n    public,\n    _name,\n)\n'
USABLE = [
    "from . import __doc__, _low\n_low.name()",
    "import fastkl._low\nfastkl._low.name()",
    "from ._low import Row\nRow._make(())._replace(x=0)",
    "class A:\n    def f(self, other):\n        return self._x, other._x",
]


def test_underscore_names_of_other_modules_are_found(breaches):
    """Private modules and a module's own names may be used."""
    files = {"fastkl/__init__.py": "", "fastkl/_low.py": "", "tests/test_x.py": "from fastkl._low import _name"}
    for text, owner in PRIVATE.items():
        found = breaches(files | {"fastkl/high.py": text})
        assert found == [f"fastkl/high.py:{len(text.splitlines())}: _name is private to {owner}"]
    for text in USABLE:
        assert breaches(files | {"fastkl/high.py": text}) == []
    assert breaches({"fastkl/high.pyx": CYTHON}) == ["fastkl/high.pyx:3: _name is private to fastkl._low"]


LISTS = [
    ("a.pyx", "def f(NAMES):\n    pass"),
    ("a.pyx", "cdef inline double f(TYPED) noexcept nogil:\n    pass"),
    ("a.pyx", "cdef class A:\n    cpdef int[:, ::1] f(self, TYPED):\n        pass"),
    ("a.pyx", "cdef int (*f)(TYPED) noexcept nogil"),
    ("a.pxi", "ctypedef void f(TYPED) noexcept"),
    ("a.pxd", 'cdef extern from "a.h" nogil:\n    const char *f(\n        TYPED,\n    ) noexcept'),
    *(("a.c", text) for text in ("static inline int f(TYPED) {\n}", "const struct s *\nf(TYPED)\n{\n}")),
    *(("a.h", text) for text in ("double f(TYPED);", "typedef int f(TYPED);", "typedef const int (*f)(TYPED);")),
    ("a.h", "struct s {\n    int x;\n    int (*f)(TYPED);\n};"),
    ("a.h", "int x; int f(void (*const g)(TYPED));"),
    *(("a.h", f"#define {text}") for text in ("f(NAMES) 0", "M(x) \\\n    static void f_##x(TYPED) { }")),
    ("a.h", "#define M(x) static void f(TYPED) { }"),
    ("a.inc.h", "static NAME(row) NAME(f)(TYPED) { }"),
]


@pytest.mark.parametrize(("name", "template"), LISTS)
def test_more_than_eight_parameters_are_found(name, template, breaches):
    (found,) = breaches({f"fastkl/{name}": filled(template, 9)})
    assert re.fullmatch(rf"fastkl/{name}:.* takes 9 parameters, more than 8", found)
    assert breaches({f"fastkl/{name}": filled(template, 8)}) == []


def test_parameters_of_parameters_are_not_added(breaches):
    text = filled("int f(TYPED, int (*each)(int, int, int));\n", 7) + filled("void g(int x /* NAMES */, int a[9]);", 9)
    assert breaches({"fastkl/a.h": text}) == []


def test_calls_and_words_are_no_functions(breaches):
    files = {
        "a.pyx": "def g():\n    cdef int x\n    f(NAMES)\n    return f(NAMES)\n",
        "b.pyx": '"""\n    cdef int f(TYPED)\n"""\n# cdef int f(TYPED)\n',
        "a.c": "int g(void) {\n    int x = f(NAMES);\n    if (x)\n        f(NAMES);\n    return f(NAMES);\n}",
        "a.h": "#define ROWS(X) \\\n    X(NAMES) \\\n    X(NAMES)\nenum { ROWS(ROW) };",
        "b.h": '/* int f(TYPED); */\n// int f(TYPED);\nchar *x = "int f(TYPED);";',
    }
    assert breaches({f"fastkl/{name}": filled(template, 9) for name, template in files.items()}) == []


def test_the_compiled_interface_may_take_more(breaches):
    text = filled("cdef int rows_f64(TYPED) noexcept nogil\n", 9)
    assert breaches({"fastkl/rows.pyx": text, "fastkl/rows.h": filled("int (*fastkl_row_f32)(TYPED);\n", 9)}) == []


def test_long_lines_of_cython_and_c_are_found(breaches):
    texts = {mark: f"\n{mark}{'φ' * 123}\n{mark}{'φ' * 122}\n" for mark in ("//", "##")}
    files = dict.fromkeys(("fastkl/_core/a.c", "fastkl/a.h", "tests/a.c"), texts["//"])
    files |= dict.fromkeys(("fastkl/a.pyx", "fastkl/a.pxd"), texts["##"])
    found = breaches(files | {"fastkl/_kernels.c": texts["//"]})
    assert sorted(found) == sorted(f"{name}:2: 125 columns, more than 124" for name in files)
