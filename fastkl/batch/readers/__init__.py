"""Rows from files and arrays: a module for each format, and `open_source`, which finds the one that a path needs."""

from __future__ import annotations

import os
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from ...topk import TopK
from .. import formats
from .source import ArraySource, Source
from .topk import TopKFiles, TopKSource

__all__ = ["Source", "TopKFiles", "open_source", "own_labels"]


def open_source(name: str, operand: Any) -> Source:
    """A reader of the operand `name`: of a path, which may have a member's name after a colon, or of an array."""
    if isinstance(operand, (TopK, TopKFiles)):
        with ExitStack() as stack:
            parts = [operand.indices, operand.values, *([] if operand.tail is None else [operand.tail])]
            named = zip(("indices", "values", "tail"), parts, strict=False)
            sources = [stack.enter_context(closing(open_source(f"{name}.{part}", x))) for part, x in named]
            top = TopKSource(sources[0], sources[1], sources[2] if sources[2:] else None, operand.log_probs)
            stack.pop_all()
            return top
    if not isinstance(operand, (str, os.PathLike)):
        return ArraySource(name, operand)
    text = os.fspath(operand)
    path, member = text, None
    if not os.path.exists(text):
        path, _, member = text.rpartition(":")
        if not os.path.exists(path):
            raise FileNotFoundError(2, os.strerror(2), text)
    kind = formats.of_path(Path(path))
    read = getattr(formats.load(__name__, kind), formats.FORMATS[kind].reader)
    source: Source = read(text, Path(path), member)
    return source


def own_labels(*operands: Any) -> str | None:
    """The operand with the labels that come with the rows of one of these, in its file; None if none come with any."""
    for operand in operands:
        is_file = isinstance(operand, (str, os.PathLike)) and os.path.isfile(operand)
        if is_file and (labels := formats.FORMATS[formats.of_path(Path(operand))].labels):
            return f"{os.fspath(operand)}:{labels}"
    return None
