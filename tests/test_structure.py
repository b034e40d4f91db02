"""The linter of the structure: each of its checks finds what breaks the rule, and nothing where the rule is kept.

What it finds in this tree is not tested here; the linters run it.
"""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    Breaches = Callable[[dict[str, str]], list[str]]

TOOLS = Path(__file__).parents[1] / "tools"

# What templates are filled with: parameters without and with types.
NAMES, TYPED = [*"abcdefghi"], [f"int {name}" for name in "abcdefghi"]


@pytest.fixture
def breaches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Breaches:
    """Return a function that gives what the linter finds in a tree of these files: their names and texts."""
    monkeypatch.syspath_prepend(TOOLS)

    def check(files: dict[str, str]) -> list[str]:
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
        found = import_module("check_structure").check(tmp_path)
        assert isinstance(found, list)
        return found

    return check


def filled(template: str, count: int) -> str:
    """The template with `count` parameters."""
    return template.replace("NAMES", ", ".join(NAMES[:count])).replace("TYPED", ", ".join(TYPED[:count]))


def test_breaches_are_printed_and_fail(tmp_path: Path) -> None:
    command = [sys.executable, str(TOOLS / "check_structure.py"), str(tmp_path)]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (ran.stdout, ran.stderr) == ("", "")
    (tmp_path / "fastkl").mkdir()
    (tmp_path / "fastkl" / "a.py").write_text("from b import _x\nfrom c import _y")
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (1, "")
    assert ran.stdout == "fastkl/a.py:1: _x is private to b\nfastkl/a.py:2: _y is private to c\n"


@pytest.mark.parametrize(
    ("text", "owner"),
    [
        ("from ._low import _name", "fastkl._low"),
        ("def f():\n    from fastkl._low import _name as name", "fastkl._low"),
        ("from . import _low\n_low._name()", "_low"),
        ("import fastkl._low as low\nlow._name()", "low"),
        ("import fastkl._low\nfastkl._low._name()", "fastkl._low"),
        ("import numpy as np\nnp.ma._name()", "np.ma"),
        ("from ._low import Public\nPublic._name()", "Public"),
    ],
)
def test_underscore_names_of_other_modules_are_found(text: str, owner: str, breaches: Breaches) -> None:
    line = len(text.splitlines())
    found = breaches({"fastkl/__init__.py": "", "fastkl/_low.py": "", "fastkl/high.py": text})
    assert found == [f"fastkl/high.py:{line}: _name is private to {owner}"]


def test_underscore_names_that_cython_imports_are_found(breaches: Breaches) -> None:
    text = '"""Words."""\n\nfrom fastkl._low cimport (\n    public,\n    _name,\n)\n'
    found = breaches({"fastkl/_low.pxd": "", "fastkl/high.pyx": text})
    assert found == ["fastkl/high.pyx:3: _name is private to fastkl._low"]


@pytest.mark.parametrize(
    "text",
    [
        "from . import __doc__, _low\n_low.name()",
        "import fastkl._low\nfastkl._low.name()",
        "from ._low import Row\nRow._make(())._replace(x=0)",
        "class A:\n    def f(self, other):\n        return self._x, other._x",
    ],
)
def test_private_modules_and_own_names_may_be_used(text: str, breaches: Breaches) -> None:
    files = {"fastkl/__init__.py": "", "fastkl/_low.pyx": "", "fastkl/high.py": text}
    assert breaches(files | {"tests/test_x.py": "from fastkl._low import _name"}) == []


@pytest.mark.parametrize(
    "back",
    [
        "from .high import x",
        "from fastkl import high",
        "def f():\n    from . import high",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .high import x",
        "from . import x",  # of the package, which imports high
    ],
)
def test_cycles_of_imports_are_found(back: str, breaches: Breaches) -> None:
    init = "from .high import x" if back == "from . import x" else ""
    (found,) = breaches({"fastkl/__init__.py": init, "fastkl/high.py": "from .low import x", "fastkl/low.py": back})
    assert ": a cycle of imports: fastkl" in found
    assert "fastkl.high -> fastkl.low" in found or "fastkl.low -> fastkl.high -> fastkl.low" in found


def test_every_cycle_of_imports_is_found(breaches: Breaches) -> None:
    files = {
        "fastkl/__init__.py": "from .a import x",
        "fastkl/a.py": "from .b import x",
        "fastkl/b.py": "from .parts import x",
        "fastkl/parts/__init__.py": "from .one import x\nfrom . import two",
        "fastkl/parts/one.py": "from ..a import x",
        "fastkl/parts/two.pyx": "cimport numpy\nimport fastkl",
    }
    assert len(breaches(files)) == 2


def test_imports_in_one_direction_are_no_cycle(breaches: Breaches) -> None:
    files = {
        "fastkl/__init__.py": "from . import a\nfrom .parts import x",
        "fastkl/a.py": "from .parts import x\nfrom .parts.one import x\nfrom . import low",
        "fastkl/parts/__init__.py": "from .one import x\nfrom . import two",
        "fastkl/parts/one.py": "from . import two\nfrom .. import low",
        "fastkl/parts/two.py": "import fastkl.low",
        "fastkl/low.pyx": "from math import x",
        "fastkl/low.pyi": "from math import x",
    }
    assert breaches(files) == []


@pytest.mark.parametrize(
    ("name", "template"),
    [
        ("a.py", "def f(*, NAMES): ..."),
        ("a.py", "async def f(NAMES, /): ..."),
        ("a.py", "class A:\n    def f(self, NAMES): ..."),
        ("a.py", "f = lambda NAMES: g(lambda: 0)"),
        ("a.pyi", "def f(NAMES) -> None: ..."),
        ("a.pyx", "def f(NAMES):\n    pass"),
        ("a.pyx", "cdef inline double f(TYPED) noexcept nogil:\n    pass"),
        ("a.pyx", "cdef class A:\n    cpdef int[:, ::1] f(self, TYPED):\n        pass"),
        ("a.pyx", "cdef int (*f)(TYPED) noexcept nogil"),
        ("a.pxi", "ctypedef void f(TYPED) noexcept"),
        ("a.pxd", 'cdef extern from "a.h" nogil:\n    const char *f(\n        TYPED,\n    ) noexcept'),
        ("a.c", "static inline int f(TYPED) {\n}"),
        ("a.c", "const struct s *\nf(TYPED)\n{\n}"),
        ("a.h", "double f(TYPED);"),
        ("a.h", "typedef int f(TYPED);"),
        ("a.h", "typedef const int (*f)(TYPED);"),
        ("a.h", "struct s {\n    int x;\n    int (*f)(TYPED);\n};"),
        ("a.h", "int x; int f(void (*const g)(TYPED));"),
        ("a.h", "#define f(NAMES) 0"),
        ("a.h", "#define M(x) \\\n    static void f_##x(TYPED) { }"),
        ("a.h", "#define M(x) static void f(TYPED) { }"),
        ("a.inc.h", "static NAME(row) NAME(f)(TYPED) { }"),
    ],
)
def test_more_than_eight_parameters_are_found(name: str, template: str, breaches: Breaches) -> None:
    (found,) = breaches({f"fastkl/{name}": filled(template, 9)})
    assert found.startswith(f"fastkl/{name}:")
    assert found.endswith(" takes 9 parameters, more than 8")
    assert breaches({f"fastkl/{name}": filled(template, 8)}) == []


def test_parameters_of_parameters_are_not_added(breaches: Breaches) -> None:
    text = filled("int f(TYPED, int (*each)(int, int, int));\n", 7) + filled("void g(int x /* NAMES */, int a[9]);", 9)
    assert breaches({"fastkl/a.h": text, "fastkl/a.py": "def f(a=(1, 2, 3, 4, 5, 6, 7, 8, 9), *b, **c): ..."}) == []


@pytest.mark.parametrize(
    ("name", "template"),
    [
        ("a.py", "f(NAMES)\nx = [NAMES]"),
        ("a.pyx", "def g():\n    cdef int x\n    f(NAMES)\n    return f(NAMES)\n"),
        ("a.pyx", '"""\n    cdef int f(TYPED)\n"""\n# cdef int f(TYPED)\n'),
        ("a.c", "int g(void) {\n    int x = f(NAMES);\n    if (x)\n        f(NAMES);\n    return f(NAMES);\n}"),
        ("a.h", "#define ROWS(X) \\\n    X(NAMES) \\\n    X(NAMES)\nenum { ROWS(ROW) };"),
        ("a.h", '/* int f(TYPED); */\n// int f(TYPED);\nchar *x = "int f(TYPED);";'),
    ],
)  # fmt: skip
def test_calls_and_words_are_no_functions(name: str, template: str, breaches: Breaches) -> None:
    assert breaches({f"fastkl/{name}": filled(template, 9)}) == []


def test_documented_functions_may_take_more(breaches: Breaches) -> None:
    function = filled("def entropy(NAMES): ...\n", 9)
    files = {
        "fastkl/__init__.py": 'from .measures import entropy\n__all__ = ["entropy"]',
        "fastkl/measures.py": f"from typing import overload\n@overload\n{function}{function}",
        "fastkl/compat/__init__.py": 'from . import torch\n__all__ = ["torch"]',
        "fastkl/compat/torch.py": f'{function}__all__ = ["entropy"]',
        "fastkl/rows.pyx": filled("cdef int rows_f64(TYPED) noexcept nogil\n", 9),
        "fastkl/rows.h": filled("int (*fastkl_row_f32)(TYPED);\n", 9),
    }
    assert breaches(files) == []
    assert breaches({"fastkl/call.py": function}) == ["fastkl/call.py:1: entropy takes 9 parameters, more than 8"]


@pytest.mark.parametrize("name", ["fastkl/_core/a.c", "fastkl/a.h", "fastkl/a.pyx", "fastkl/a.pxd", "tests/a.c"])
def test_long_lines_of_cython_and_c_are_found(name: str, breaches: Breaches) -> None:
    mark = "//" if name.endswith(("c", "h")) else "##"
    text = f"\n{mark}{'φ' * 123}\n{mark}{'φ' * 122}\n"
    assert breaches({name: text, "fastkl/_kernels.c": text}) == [f"{name}:2: 125 columns, more than 124"]
