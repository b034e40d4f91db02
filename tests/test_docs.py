"""The examples of the documentation, in docstrings and on pages, run on every tier, and the docstrings' completeness.

In expected output, `...` stands for the last digit, which may differ between tiers.
"""

import doctest
import inspect
import re
from pathlib import Path

import pytest
from support.processes import python

import fastkl
from fastkl import compat

ROOT = Path(__file__).parents[1]
NO_EXAMPLES = {"__version__", "Comparison"}  # the latter is the result of compare
FUNCTIONS = {name: getattr(fastkl, name) for name in fastkl.__all__ if name not in NO_EXAMPLES} | {
    f"compat.{library}.{name}": getattr(getattr(compat, library), name)
    for library in compat.__all__
    for name in getattr(compat, library).__all__
}

on_every_tier = pytest.mark.usefixtures("tier")

# Whole pages, and sections that are run on their own, with the modules they need. The others need a cluster or a compiler.
SECTIONS = {
    ("README.md", None): [],
    ("docs/batch.md", None): [],
    ("docs/compat.md", None): [],
    ("docs/drift.md", None): [],
    ("docs/inputs.md", None): [],
    ("docs/models.md", None): [],
    ("docs/pipelines.md", "dask"): ["dask.array"],
    ("docs/pipelines.md", "xarray"): ["xarray", "dask.array"],
    ("docs/compiled.md", "Numba"): ["numba"],
    ("docs/compiled.md", "ctypes"): [],
}


def run_examples(text, name, names):
    """The number of examples in the text, which run with the given names and add theirs."""
    test = doctest.DocTestParser().get_doctest(text, names, name, None, 0)
    failed, attempted = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test, clear_globs=False)
    assert not failed  # The differences are printed.
    names.update(test.globs)
    return attempted


def test_the_public_functions_are_found():
    assert set(FUNCTIONS) >= {"build_info", "cross_entropy", "entropy", "kl_divergence", "compat.torch.kl_div"}


@on_every_tier
@pytest.mark.parametrize("name", FUNCTIONS)
def test_docstring(name):
    if name.startswith("compat.torch."):
        pytest.importorskip("torch")
    assert run_examples(inspect.getdoc(FUNCTIONS[name]) or "", name, {}), f"{name} has no example"


@pytest.mark.parametrize("name", [name for name in FUNCTIONS if name not in ("Summary", "InvalidRowError")])
def test_a_docstring_has_every_parameter(name):
    text = inspect.getdoc(FUNCTIONS[name]) or ""
    parameters = re.split(r"\n(?:Returns|Raises)\n", text)[0]
    written = {word for names in re.findall(r"^(\w+(?:, \w+)*) : ", parameters, re.MULTILINE) for word in names.split(", ")}
    assert written == set(inspect.signature(FUNCTIONS[name]).parameters)
    assert "{sections}" not in text


def test_without_docstrings():
    """Under -OO, nothing is filled in."""
    code = "print(fastkl.entropy.__doc__, fastkl.nll([0], [[1.0, 0.0]]))"
    assert python(code, PYTHONOPTIMIZE="2") == "None [0.]\n"


@on_every_tier
@pytest.mark.parametrize(("page", "title"), SECTIONS)
def test_page(page, title, tmp_path, monkeypatch):
    """Its Python blocks run in order, with common names. A block without prompts is run as a program."""
    for module in SECTIONS[page, title]:
        pytest.importorskip(module)
    monkeypatch.chdir(tmp_path)
    text = (ROOT / page).read_text(encoding="utf-8")
    if title:
        (text,) = (section for section in text.split("\n## ") if section.startswith(f"{title}\n"))
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert blocks
    names = {}
    for i, block in enumerate(blocks):
        if not run_examples(block, f"{page}, Python block {i}", names):
            exec(compile(block, f"{page}, Python block {i}", "exec"), names)
