"""The examples of the documentation, in docstrings and on pages, run on every tier; the docstrings' completeness; links.

In expected output, `...` stands for the last digits, which may differ between tiers. A page's blocks of Python run as a
reader would run them in a clone of the repository: in a folder that has `examples` and `tests/data`.
"""

import doctest
import inspect
import re
import shutil
from pathlib import Path

import pytest
from support.processes import python

import fastkl
from fastkl import capi, compat

ROOT = Path(__file__).parents[1]
NO_EXAMPLES = {"__version__", "Comparison"}  # the latter is the result of compare
FUNCTIONS = {name: getattr(fastkl, name) for name in fastkl.__all__ if name not in NO_EXAMPLES} | {
    f"compat.{library}.{name}": getattr(getattr(compat, library), name)
    for library in compat.__all__
    for name in getattr(compat, library).__all__
}
FUNCTIONS["capi.address"] = capi.address
PAGES = ["README.md", *sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md"))]
FRONT_MATTER = re.compile(r"\A---\n(.*?)^---\n", re.MULTILINE | re.DOTALL)
NEEDS = re.compile(r"^needs: \[(.*)\]$", re.MULTILINE)  # what a page has to import besides NumPy
FENCE = re.compile(r"^( *)```(\S*)[^\n]*\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
# A block of another language, or one that starts with a directive of Sphinx, is not run.
LANGUAGES = {"", "bibtex", "c", "console", "cython", "html", "json", "python", "sql", "text", "toml", "yaml"}
# Where files are named, and how.
SUFFIXES = {".c", ".cff", ".h", ".md", ".pxd", ".pxi", ".py", ".pyi", ".pyx", ".sh", ".toml", ".yml"}
FOLDERS = (".", ".ci", ".github", "benchmarks", "docs", "examples", "fastkl", "tests", "tools")
LINK = re.compile(r"\]\((?!\w+:|#)([^)\s#]+)(?:#[^)]*)?\)")
SITE = re.compile(r"https://fastkl\.github\.io/fastkl/([\w./-]*)")
BLOB = re.compile(r"https://github\.com/fastkl/fastkl/(?:blob|tree)/main/([\w./-]+)")
NAME_OF_PAGE = re.compile(r"\bdocs/[\w./-]+\.md\b")

on_every_tier = pytest.mark.usefixtures("tier")


def run_examples(text, name, names, line=0):
    """The number of examples in the text, which run with the given names and add theirs."""
    test = doctest.DocTestParser().get_doctest(text, names, name, name, line)
    failed, attempted = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test, clear_globs=False)
    assert not failed  # The differences are printed.
    names.update(test.globs)
    return attempted


def blocks(page):
    """The language, the first line's number and the text of each fenced block of a page, and the modules that it needs."""
    text = (ROOT / page).read_text(encoding="utf-8")
    front = FRONT_MATTER.match(text)
    needs = NEEDS.search(front[1]) if front else None
    found = [
        (match[2], text.count("\n", 0, match.start(3)), re.sub(f"^{match[1]}", "", match[3], flags=re.MULTILINE))
        for match in FENCE.finditer(text)
    ]
    return found, re.findall(r"[\w.]+", needs[1]) if needs else []


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
@pytest.mark.parametrize("page", PAGES)
def test_page(page, tmp_path, monkeypatch):
    """Its Python blocks run in order, with common names. A block without prompts is run as a program."""
    found, needs = blocks(page)
    for module in needs:
        pytest.importorskip(module)
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "__main__"}
    for language, line, text in found:
        if language != "python":
            continue
        for folder in "examples", "tests/data":
            if f"{folder}/" in text:
                shutil.copytree(ROOT / folder, folder, dirs_exist_ok=True)
        if not run_examples(text, page, names, line):
            exec(compile("\n" * line + text, str(ROOT / page), "exec"), names)


@pytest.mark.parametrize("page", PAGES)
def test_blocks_have_a_known_language(page):
    """Another name of Python's would leave a block out, and front matter that is not understood its needs."""
    found, _ = blocks(page)
    assert {language for language, *_ in found if not language.startswith("{")} <= LANGUAGES
    front = FRONT_MATTER.match((ROOT / page).read_text(encoding="utf-8"))
    assert not front or front[1].count("needs") == len(NEEDS.findall(front[1]))


def files_named(path, text):
    """The files that a text names: by links of Markdown, by addresses of the site and of the repository, as docs/….md."""
    if path.suffix == ".md":
        for link in LINK.findall(FENCE.sub("", text)):
            yield (path.parent / link.removeprefix("<").removesuffix(">")).resolve()
    for name in BLOB.findall(text):
        yield ROOT / name.rstrip(".")
    yield from (ROOT / name for name in NAME_OF_PAGE.findall(text))
    for name in SITE.findall(text):
        page = (name + "index.html" if name.endswith("/") or not name else name).rstrip(".")
        if page.endswith(".html") and not page.startswith(("reference/generated/", "search.", "genindex.")):
            yield ROOT / "docs" / page.replace(".html", ".md")


def texts():
    """The texts of the repository, without what is built in it."""
    for folder in FOLDERS:
        for path in (ROOT / folder).glob("*" if folder == "." else "**/*"):
            built = {"_build", "generated"} & {*path.parts}
            if path.is_file() and not built and (path.suffix in SUFFIXES or folder == ".ci") and path != Path(__file__):
                yield path, path.read_text("utf-8")


def test_named_files_exist_from_source():
    named = {(path.name, name) for path, text in texts() for name in files_named(path, text)}
    missing = sorted((path, name.relative_to(ROOT).as_posix()) for path, name in named if not name.exists())
    assert len(named) > 10
    # An sdist has no hidden folders. The site's build draws the pictures, which test_pictures.py compares with the pages.
    assert not [pair for pair in missing if not pair[1].startswith((".github", "docs/pictures/"))]
