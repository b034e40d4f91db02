"""The worked examples as modules, and the pages that quote what they print."""

import re
import sys
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def imported(name):
    """The module of an example, which may import others."""
    pytest.importorskip("sklearn")
    folder = str(ROOT / "examples")
    if folder not in sys.path:
        sys.path.append(folder)
    return import_module(name)


def page(name):
    """The text of a tutorial."""
    return (ROOT / "docs" / "tutorials" / f"{name}.md").read_text(encoding="utf-8")


def quoted(text, beginning):
    """The first command of the text's consoles that begins so, and the lines that are quoted below it."""
    block = re.search(rf"^\$ ({re.escape(beginning)}.*)\n((?:(?!```).*\n)*)", text, re.MULTILINE)
    return block[1], block[2].strip()


def words(text):
    """The text except its numbers, which depend on the libraries and the machine."""
    return re.sub(r"\s+", " ", re.sub(r"-?\d[\d.,e+-]*", "#", text)).strip()
