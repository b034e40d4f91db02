"""Reads source files of Python, Cython and C: what they import, and which parameters their functions take.

Python is parsed. In Cython and C, regular expressions find imports, and names with a list of parameters that stand behind a
type or a keyword, in the text without comments and strings.
"""

import ast
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

LANGUAGES = {".py": "Python", ".pyi": "Python", ".pyx": "Cython", ".pxd": "Cython", ".pxi": "Cython", ".c": "C", ".h": "C"}
GENERATED = "_kernels.c"
STRING = r"""\"{3}[\s\S]*?\"{3}|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'"""
# What is left out of the code. In C, this joins the lines and the names of macros, too.
IGNORED = {"Cython": re.compile(rf"{STRING}|#[^\n]*"), "C": re.compile(rf"{STRING}|//[^\n]*|/\*[\s\S]*?\*/|\\(?=\n)|##")}
NAME_OF_MACRO = re.compile(r"(?<!#define )\b[A-Z][A-Z_]+\((\w+)\)")  # NAME(x), where x has a suffix for each type
CYTHON_IMPORT = re.compile(r"^[ \t]*((?:from\s+[\w.]+\s+)?c?import\s+(?:\([^)]*\)|[^\n]*))", re.MULTILINE)
# What has a word before a name and a parenthesis, but is a statement.
STATEMENT = r"(?:return|else|case|goto|if|elif|while|for|not|raise|yield|assert|del|with|import|from)\b"
NO_PARAMETER = {"", "self", "cls", "*", "/", "void"}


def declaration(space: str) -> re.Pattern[str]:
    """Return what matches a type and a name, or the name of a pointer, and the parenthesis that opens its parameters."""
    typed_name = rf"(?:^|[{{}};)])[ \t]*#?(?!\s*{STATEMENT})(?:\w[\w.]*(?:\[[^\]\n]*\])?[{space}*&]+)+(\w+)\s*\("
    pointer = r"\(\s*\*\s*(?:const\s+)?(\w*)\s*\)\s*\("
    return re.compile(rf"{typed_name}(?!\s*\*[^,()]*\)\s*\()|{pointer}", re.MULTILINE)


DECLARATION = {"Cython": declaration(r" \t"), "C": declaration(r"\s")}


class File(NamedTuple):
    """A source file."""

    path: str  # from the root on
    module: str  # that it is, or belongs to
    package: str
    language: str
    source: str
    code: str  # without comments and strings, unless it is Python
    tree: ast.Module  # of Python, and of Cython's imports


class Import(NamedTuple):
    """An imported name: `import base as local`, or `from base import name as local`."""

    line: int
    base: str
    name: str
    local: str

    @property
    def stands_for(self) -> str:
        """What the local name means: the first part alone after `import a.b`."""
        if self.name:
            return f"{self.base}.{self.name}"
        return self.local if self.base.partition(".")[0] == self.local else self.base


def read(root: Path, folders: Iterable[str]) -> Iterator[File]:
    """Yield the source files in these folders, except what Cython makes."""
    for path in sorted(path.relative_to(root) for folder in folders for path in (root / folder).rglob("*.*")):
        if path.suffix in LANGUAGES and path.name != GENERATED:
            package = ".".join(path.parent.parts)
            module = package if path.stem == "__init__" else f"{package}.{path.name.partition('.')[0]}"
            language, source = LANGUAGES[path.suffix], (root / path).read_text("utf-8")
            code = python = source
            if language != "Python":
                code, python = IGNORED[language].sub(lambda match: "\n" * match[0].count("\n"), source), ""
            if language == "C":
                code = NAME_OF_MACRO.sub(r"\1", code)
            if language == "Cython":
                python = python_imports(code)
            yield File(path.as_posix(), module, package, language, source, code, ast.parse(python, str(path)))


def python_imports(code: str) -> str:
    """Return Cython's imports as Python's, each on its line, and nothing else."""
    python = ""
    for match in CYTHON_IMPORT.finditer(code):
        python += "\n" * (code.count("\n", 0, match.start(1)) - python.count("\n"))
        python += match[1].replace("cimport", "import")
    return python


def imports(file: File) -> Iterator[Import]:
    """Yield what a file imports, wherever in it."""
    for node in ast.walk(file.tree):
        if isinstance(node, ast.Import):
            for name in node.names:
                yield Import(node.lineno, name.name, "", name.asname or name.name.partition(".")[0])
        elif isinstance(node, ast.ImportFrom):
            above = file.package.rsplit(".", node.level - 1)[0] if node.level else ""
            base = ".".join(filter(None, [above, node.module]))
            for name in node.names:
                yield Import(node.lineno, base, name.name, name.asname or name.name)


def functions(file: File) -> Iterator[tuple[int, str, list[str]]]:
    """Yield line, name and parameters of whatever can be called in Cython or C; of self and cls, it says nothing."""
    for match in DECLARATION[file.language].finditer(file.code):
        listed = (each.strip() for each in in_parentheses(file.code, match.end()).split(","))
        line = file.code.count("\n", 0, match.end()) + 1
        yield line, match[1] or match[2], [each for each in listed if each not in NO_PARAMETER]


def in_parentheses(code: str, start: int) -> str:
    """Return the text up to the partner of the parenthesis before `start`, without what is in brackets of its own."""
    text, depth = "", 1
    for character in code[start:]:
        depth += (character in "([{") - (character in ")]}")
        if depth == 0:
            break
        text += character if depth == 1 else ""
    return text
