"""The sources of a run: opened together, fitted to each other, cut into parts.

Knows of options what operands they need, and nothing of who reads the parts.
"""

from __future__ import annotations

import math
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from .._build import build_info
from .._version import __version__
from .sources import OneRow, Source, open_source

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

    from .scoring import Options

# Bytes of an operand that a thread is handed at once: with a quarter of it, a run takes a tenth longer.
PART: Final = 1 << 26
_HELD: Final = 1 << 24  # of formats that are not read in blocks, for then all of it is held


class Operands(NamedTuple):
    """The sources of a run, rows of which belong together; one of a single row, read once, serves all rows."""

    p: Source
    q: Source | None
    labels: Source | None

    def all(self) -> list[Source]:
        """Those that there are, in that order."""
        return [x for _, x in self.named()]

    def named(self) -> Iterator[tuple[str, Source]]:
        """Those that there are."""
        return ((name, x) for name, x in zip(self._fields, self, strict=True) if x is not None)

    @property
    def rows(self) -> int:
        """Of the result."""
        return max((x.rows for x in self.all()), key=lambda n: n != 1)

    @property
    def leading(self) -> tuple[int, ...]:
        """The result's shape."""
        return max((x.leading for x in self.all()), key=lambda shape: (math.prod(shape) != 1, len(shape)))

    @property
    def row_bytes(self) -> int:
        """Bytes that are read for a row of the result."""
        return sum(x.row_bytes for x in self.all() if x.rows == self.rows)

    def dtype(self, options: Options) -> np.dtype[Any]:
        """Of the result."""
        return options.dtype(*(x.dtype for x in self.all() if not x.labels))

    def identity(self, options: Options) -> dict[str, Any]:
        """What a checkpoint is of: the inputs, what is asked of them, and who computes (others might round otherwise)."""
        who = {"version": __version__, "simd": build_info()["simd"]}
        return {"fastkl": who, "options": options.identity()} | {name: x.identity() for name, x in self.named()}

    def check(self, row: int, thorough: bool = False) -> None:
        """ValueError if a file is not as it was; `row` is where reading has come to."""
        for x in self.all():
            x.check(row, thorough)

    def ranges(self, start: int) -> Iterator[range]:
        """The rows from `start` on in parts, which end where the files' own pieces do, whoever computes them."""
        together = max(x.together for x in self.all())
        row_bytes = max(x.row_bytes for x in self.all() if x.rows == self.rows)
        part = PART if all(x.in_blocks for x in self.all()) else min(PART, _HELD)
        step = max(1, part // row_bytes // together) * together
        for first in range(start, self.rows, step):
            yield range(first, min(first + step, self.rows))

    def close(self) -> None:
        """Close all."""
        for x in self.all():
            x.close()


def open_operands(options: Options, p: Any, q: Any, labels: Any) -> Operands:
    """Open the sources and see that they fit each other and the measure."""
    if (q is None) != (options.measure == "entropy"):
        raise ValueError("q: must be left out for entropy" if q is not None else f"q: must be given for {options.measure}")
    with ExitStack() as stack:
        opened: list[Source | None] = []
        for name, source in (("p", p), ("q", q), ("labels", labels)):
            x = None if source is None else open_source(name, source)
            if x is not None:
                stack.callback(x.close)
            opened.append(x)
        p_source, q_source, label_source = opened
        assert p_source is not None
        if label_source is not None:
            _take_as_labels(label_source)
        if options.measure == "ce" and q_source is not None and len(p_source.shape) == len(q_source.shape) - 1:
            _take_as_labels(p_source)
        operands = Operands(p_source, q_source, label_source)
        _check_shapes(operands)
        p_source, *others = (OneRow(x) if x is not None and x.rows == 1 else x for x in operands)
        assert p_source is not None
        operands = Operands(p_source, *others)
        stack.pop_all()
    return operands


def _take_as_labels(source: Source) -> None:
    if source.dtype.kind not in "iu":
        raise TypeError(f"{source.name} has dtype {source.dtype}: labels must be of an integer dtype")
    source.labels = True


def _check_shapes(operands: Operands) -> None:
    matrices = [x for x in operands.all() if not x.labels]
    for x in matrices[1:]:
        if x.width != matrices[0].width:
            raise ValueError(
                f"{matrices[0].name} has shape {matrices[0].shape} and {x.name} has shape {x.shape}: "
                f"must have the same length along the last axis, not {matrices[0].width} and {x.width}"
            )
    for x in operands.all():
        if x.rows != 1 and x.leading != operands.leading:
            other = next(other for other in operands.all() if other.leading == operands.leading)
            raise ValueError(
                f"{x.name} has rows of shape {x.leading}, and {other.name} {other.leading}: must be the same, or one row"
            )
