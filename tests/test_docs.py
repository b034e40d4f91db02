"""The documentation's examples, run on every tier: those of each public function's docstring, and those of the pages.

Expected output may leave out with `...` what differs from tier to tier: the last digit.
"""

from __future__ import annotations

import doctest
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

import fastkl
from fastkl import compat

ROOT = Path(__file__).parents[1]
PAGES = ["README.md", "docs/batch.md", "docs/compat.md"]
NO_EXAMPLES = {"__version__", "Comparison"}  # the latter is compare's result
FUNCTIONS = {name: getattr(fastkl, name) for name in fastkl.__all__ if name not in NO_EXAMPLES} | {
    f"compat.{library}.{name}": getattr(getattr(compat, library), name)
    for library in compat.__all__
    for name in getattr(compat, library).__all__
}

pytestmark = pytest.mark.usefixtures("tier")


# The sections of pages that are tried by themselves, by what they need. The others want a cluster, or a compiler.
SECTIONS = {
    ("docs/pipelines.md", "dask"): ["dask.array"],
    ("docs/pipelines.md", "xarray"): ["xarray", "dask.array"],
    ("docs/compiled.md", "Numba"): ["numba"],
    ("docs/compiled.md", "ctypes"): [],
}


def run_examples(text: str, name: str, names: dict[str, Any]) -> int:
    """Run the examples in the text with the given names; answer how many there are, and leave their names in `names`."""
    test = doctest.DocTestParser().get_doctest(text, names, name, None, 0)
    report: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    failed, attempted = runner.run(test, out=report.append, clear_globs=False)
    assert not failed, "".join(report)
    names.update(test.globs)
    return attempted


def run_blocks(text: str, name: str) -> None:
    """The text's Python blocks, which build on each other, as one reads them. One without prompts is run as a program."""
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
