"""The examples of the documentation, in docstrings and on pages, run on every tier, and the docstrings' completeness.

In expected output, `...` stands for the last digit, which may differ between tiers.
"""

from __future__ import annotations

import doctest
import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import fastkl
from fastkl import compat

ROOT = Path(__file__).parents[1]
PAGES = ["README.md", "docs/batch.md", "docs/compat.md"]
NO_EXAMPLES = {"__version__", "Comparison"}  # the latter is the result of compare
FUNCTIONS = {name: getattr(fastkl, name) for name in fastkl.__all__ if name not in NO_EXAMPLES} | {
    f"compat.{library}.{name}": getattr(getattr(compat, library), name)
    for library in compat.__all__
    for name in getattr(compat, library).__all__
}

pytestmark = pytest.mark.usefixtures("tier")


# Sections of pages that are run on their own, with the modules they need. The others need a cluster or a compiler.
SECTIONS = {
    ("docs/pipelines.md", "dask"): ["dask.array"],
    ("docs/pipelines.md", "xarray"): ["xarray", "dask.array"],
    ("docs/compiled.md", "Numba"): ["numba"],
    ("docs/compiled.md", "ctypes"): [],
}


def run_examples(text: str, name: str, names: dict[str, Any]) -> int:
    """The number of examples in the text, which run with the given names and add theirs."""
    test = doctest.DocTestParser().get_doctest(text, names, name, None, 0)
    report: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    failed, attempted = runner.run(test, out=report.append, clear_globs=False)
    assert not failed, "".join(report)
    names.update(test.globs)
    return attempted


def run_blocks(text: str, name: str) -> None:
    """Run the text's Python blocks in order, with common names. A block without prompts is run as a program."""
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert blocks, f"{name} has no Python block"
    names: dict[str, Any] = {}
    for i, block in enumerate(blocks):
        if not run_examples(block, f"{name}, Python block {i}", names):
            exec(compile(block, f"{name}, Python block {i}", "exec"), names)


def test_the_public_functions_are_found() -> None:
    assert set(FUNCTIONS) >= {"build_info", "cross_entropy", "entropy", "kl_divergence", "compat.torch.kl_div"}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_docstring(name: str) -> None:
    if name.startswith("compat.torch."):
        pytest.importorskip("torch")
    assert run_examples(inspect.getdoc(FUNCTIONS[name]) or "", name, {}), f"{name} has no example"


@pytest.mark.parametrize("name", [name for name in FUNCTIONS if name not in ("Summary", "InvalidRowError")])
def test_a_docstring_has_every_parameter(name: str) -> None:
    text = inspect.getdoc(FUNCTIONS[name]) or ""
    parameters, _, _ = text.partition("\nReturns\n")
    written = {word for names in re.findall(r"^(\w+(?:, \w+)*) : ", parameters, re.MULTILINE) for word in names.split(", ")}
    assert written == set(inspect.signature(FUNCTIONS[name]).parameters)
    assert "{sections}" not in text


def test_without_docstrings() -> None:
    """Under -OO, nothing is filled in."""
    code = "import fastkl; print(fastkl.entropy.__doc__, fastkl.nll([0], [[1.0, 0.0]]))"
    installed = Path(fastkl.__file__).parents[1]  # Python looks for modules in the current folder first.
    done = subprocess.run([sys.executable, "-OO", "-c", code], cwd=installed, capture_output=True, text=True, check=True)
    assert done.stdout == "None [0.]\n"


@pytest.mark.parametrize("page", PAGES)
def test_page(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run_blocks((ROOT / page).read_text(encoding="utf-8"), page)


@pytest.mark.parametrize(("page", "title"), SECTIONS)
def test_section(page: str, title: str) -> None:
    for module in SECTIONS[page, title]:
        pytest.importorskip(module)
    _, *sections = (ROOT / page).read_text(encoding="utf-8").split("\n## ")
    (section,) = (text for text in sections if text.startswith(f"{title}\n"))
    run_blocks(section, title)
