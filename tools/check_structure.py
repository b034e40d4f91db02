"""Checks the rules of structure that no other linter sees, and prints FILE:LINE: WHAT for each breach of one.

    python tools/check_structure.py [FOLDER]

1. No module of fastkl/ uses an underscore name of another one: ruff's SLF rules do not see `from ._x import _y`.
2. No function, macro or function pointer of Cython or C takes more than eight parameters.
3. No line of Cython or C has more than 124 columns.

ruff checks 2 and 3 in Python, and tools/check_imports.py the directions of imports.
"""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from source_files import File, functions, imports, read

Breaches = Iterator[tuple[str, int, str]]  # path, line, what

FOLDERS = ("fastkl", "tests", "tools", "benchmarks", "examples")
PRIVATE = re.compile(r"_(?!.*__$|(asdict|field_defaults|fields|make|replace)$)")  # a NamedTuple's are public
MOST_PARAMETERS = 8
# Compiled callers have no arrays: addresses, strides and sizes are parameters of their own.
COMPILED_INTERFACE = re.compile(r"(fastkl_)?rows?_f(32|64)")
MOST_COLUMNS = 124


def private_names(files: list[File]) -> Breaches:
    """Yield the uses of other modules' underscore names: imports, and attributes of what is imported.

    A module of fastkl/ may have such a name itself.
    """
    modules = {file.module for file in files}
    for file in (file for file in files if file.module.partition(".")[0] == "fastkl"):
        stands_for = {item.local: item.stands_for for item in imports(file)}
        used = [(item.line, item.base, item.base, item.name) for item in imports(file)]
        for node in ast.walk(file.tree):
            if isinstance(node, ast.Attribute):
                owner = ast.unparse(node.value)
                first, dot, rest = owner.partition(".")
                if first in stands_for:
                    used.append((node.lineno, owner, stands_for[first] + dot + rest, node.attr))
        for line, owner, base, name in used:
            if PRIVATE.match(name) and f"{base}.{name}" not in modules:
                yield file.path, line, f"{name} is private to {owner}"


def long_lists_of_parameters(files: list[File]) -> Breaches:
    """Yield what takes too many parameters, except the compiled interface."""
    for file in (file for file in files if file.language != "Python"):
        for line, name, parameters in functions(file):
            if len(parameters) > MOST_PARAMETERS and not COMPILED_INTERFACE.fullmatch(name):
                yield file.path, line, f"{name} takes {len(parameters)} parameters, more than {MOST_PARAMETERS}"


def long_lines(files: list[File]) -> Breaches:
    """Yield the lines of Cython and C that are too long."""
    for file in (file for file in files if file.language != "Python"):
        for line, text in enumerate(file.source.splitlines(), 1):
            if len(text) > MOST_COLUMNS:
                yield file.path, line, f"{len(text)} columns, more than {MOST_COLUMNS}"


def check(root: Path) -> list[str]:
    """Return the breaches in the source files below a folder."""
    files = list(read(root, FOLDERS))
    breaches = [*private_names(files), *long_lists_of_parameters(files), *long_lines(files)]
    return [f"{path}:{line}: {what}" for path, line, what in sorted(breaches)]


if __name__ == "__main__":
    found = check(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1])
    print("\n".join(found), end="\n" * bool(found))
    sys.exit(bool(found))
