"""The sources of a run: opened together, checked against each other, and cut into parts.

Knows which operands a measure needs, and nothing of how the parts are computed.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict
from typing import Any, Final

import numpy as np

from .._build import build_info
from .._version import __version__
from ..containers import arrays_of
from ..topk import TopK
from .readers import Source, TopKFiles, open_source
from .scoring import MEASURES, Options, operands_of, request_of

# Bytes of an operand in a part that one thread computes; a quarter of it would make a run a tenth slower.
PART: Final = 1 << 26
_HELD: Final = 1 << 24  # for formats that are not read in small pieces, because the whole part is held in memory
MOST: Final = sys.maxsize  # bytes of a row: NumPy has no larger arrays


class Operands(dict[str, Source]):
    """The sources of a run by name, whose rows belong together; a source of a single row serves all rows."""

    @property
    def rows(self) -> int:
        """The number of rows of the result."""
        return math.prod(self.leading)

    @property
    def leading(self) -> tuple[int, ...]:
        """The shape of the result."""
        return max((x.leading for x in self.values()), key=lambda shape: (math.prod(shape) != 1, len(shape)))

    @property
    def row_bytes(self) -> int:
        """The number of bytes that are read for a row of the result."""
        return sum(x.row_bytes for x in self.values() if x.rows == self.rows)

    def dtype(self, options: Options) -> np.dtype[Any]:
        """The dtype of the result."""
        return options.dtype({name: x.entry_dtype for name, x in self.items() if not x.are_labels})

    def options(self, options: Options) -> Options:
        """The options with every operand of log-probabilities among the logits, which these are."""
        coded = [x for x in self.values() if x.log_probabilities]
        if coded and "from_logits" not in MEASURES[options.measure].arguments:
            raise ValueError(f"{coded[0].name} holds log-probabilities: must hold numbers for {options.measure}")
        if self["p"].log_probabilities:
            options = options.with_logits("p")
        of_models = [self[name] for name in options.q_names.values() if name in self]
        others = [x for x in of_models if not x.log_probabilities]
        if len(others) < len(of_models):
            if others and options.from_logits not in (True, "q"):
                raise ValueError(
                    f"{others[0].name} holds no log-probabilities, as another q does: must hold logits, with from_logits"
                )
            options = options.with_logits("q")
        return options

    def notes(self, q: str) -> dict[str, Any]:
        """What has to be known of how the rows of p, and of the model whose operand has that name, were read."""
        return {name: note for name, x in operands_of(q, self).items() if (note := x.note())}

    def identity(self, options: Options) -> dict[str, Any]:
        """What a checkpoint belongs to: inputs, options, and the code, as other versions or tiers may round otherwise.

        It is as JSON gives it back.
        """
        code = {"version": __version__, "simd": build_info()["simd"]}
        identity = {"fastkl": code, "options": asdict(options)} | {name: x.identity() for name, x in self.items()}
        plain: dict[str, Any] = json.loads(json.dumps(identity, default=np.generic.item))
        return plain

    def check(self, row: int, thorough: bool = False) -> None:
        """Raise ValueError if a file was changed since it was opened; reading has reached `row`."""
        for x in self.values():
            x.check(row, thorough)

    def ranges(self, start: int) -> Iterator[range]:
        """The rows from `start` on in parts, which end where chunks of the files do, for any number of threads."""
        together = max(x.chunk_rows for x in self.values())
        row_bytes = max((1, *(x.row_bytes for x in self.values() if x.rows == self.rows)))
        part = PART if all(x.small_reads for x in self.values()) else min(PART, _HELD)
        step = max(1, part // row_bytes // together) * together
        for first in range(start, self.rows, step):
            yield range(first, min(first + step, self.rows))

    def close(self) -> None:
        """Close all sources."""
        for x in self.values():
            x.close()


def open_clusters(given: Any, operands: Operands) -> Source:
    """The source of the numbers that name each row's cluster, opened and checked."""
    with ExitStack() as stack:
        x = open_source("cluster_by", given)
        stack.callback(x.close)
        if x.dtype.kind not in "iu":
            raise TypeError(f"{x.name} has dtype {x.dtype}: clusters must be of an integer dtype")
        x.set_labels(True)
        if x.leading != operands.leading:
            raise ValueError(f"{x.name} has shape {x.shape}: must have a cluster for each row, {operands.leading}")
        stack.pop_all()
    return x


def _check_columns(columns: int | None, p: Source, others: list[Source]) -> None:
    """Raise ValueError where rows do not have as many columns as are used; top-k rows have none."""
    full = [x for x in (p, *others) if x.is_plain]
    if columns is not None and not full:
        raise ValueError(f"columns={columns}: must be left out where all rows are top-k rows, which have no columns")
    for x in full:
        if columns is not None and x.width < columns:
            raise ValueError(f"columns={columns}: {x.name} has shape {x.shape}, and fewer columns")
        if columns is None and p.is_plain and x.width != p.width:
            raise ValueError(
                f"{p.name} has shape {p.shape} and {x.name} has shape {x.shape}: "
                f"must have the same length along the last axis, not {p.width} and {x.width}"
            )


def _check_coordinates(p: Source, q: Source) -> None:
    """Raise ValueError where p and q name the indices along an axis otherwise."""
    for axis in range(-1, -1 - min(len(p.shape), len(q.shape)), -1):
        one, other = p.coordinate(axis), q.coordinate(axis)
        if one is not None and other is not None and p.shape[axis] == q.shape[axis] and not np.array_equal(one, other):
            at = int(np.flatnonzero(one != other)[0])
            differ = f"{one[at]!s} and {other[at]!s} at position {at}"
            raise ValueError(
                f"{p.name} and {q.name} have different coordinates along axis {axis}, {differ}: "
                "bring them into one order before the run"
            )


def _check_tokens(p: Source, q: Source) -> None:
    """Raise ValueError where the rows of p and q belong to different texts, if both files have them."""
    at = 0
    for one, other in zip(p.tokens(), q.tokens(), strict=False):
        same = one.shape == other.shape
        if not same or not np.array_equal(one, other):
            place = int(np.flatnonzero(one != other)[0]) if same else 0
            differ = f"{one.flat[place]} and {other.flat[place]} at position {at + place}" if same else "of other lengths"
            raise ValueError(f"{p.name} and {q.name} have different tokens, {differ}: both must be of one text")
        at += one.size


def _views(options: Options, in_memory: Mapping[str, Any]) -> dict[str, Any]:
    """The operands in memory as arrays, if the measure itself would take them; its errors if not."""
    arrays: dict[str, Any] = {}
    for q in options.q_names.values():
        name = "p" if options.measure == "nll" else q  # of the measure's q
        try:
            views = arrays_of(request_of(options, operands_of(q, in_memory)))
        except (TypeError, ValueError) as error:
            if name == "q" or not str(error).startswith("q"):
                raise
            raise type(error)(name + str(error)[1:]) from None
        arrays |= {name if x == "q" else x: view for x, view in views.items()}
    return arrays


def open_operands(options: Options, given: Mapping[str, Any]) -> Operands:
    """The sources, opened, and checked against each other and the measure."""
    has_q = all(q in given for q in options.q_names.values())
    if has_q != MEASURES[options.measure].q:
        raise ValueError(f"q: must be {'left out' if has_q else 'given'} for {options.measure}")
    in_memory = {name: x for name, x in given.items() if not isinstance(x, (str, os.PathLike, TopK, TopKFiles))}
    if in_memory.keys() - {"labels"}:
        given = dict(given) | _views(options, in_memory)
    with ExitStack() as stack:
        operands = Operands()
        for name, operand in given.items():
            operands[name] = x = open_source(name, operand)
            stack.callback(x.close)
        if labels := operands.get("labels"):
            if labels.dtype.kind not in "iu":
                raise TypeError(f"{labels.name} has dtype {labels.dtype}: labels must be of an integer dtype")
            labels.set_labels(True)
        for x in operands.values():
            if x.rows and not x.width:
                empty = "its last axis, that of the distributions, must not be empty"
                raise ValueError(f"{x.name} has shape {x.shape}: {empty}")
        p, others = operands["p"], [operands[name] for name in options.q_names.values() if name in operands]
        _check_columns(options.columns, p, others)
        for q in others:
            _check_coordinates(p, q)
            _check_tokens(p, q)
        for x in operands.values():
            if x.rows != 1 and x.leading != operands.leading:
                other = next(other for other in operands.values() if other.leading == operands.leading)
                raise ValueError(
                    f"{x.name} has rows of shape {x.leading}, and {other.name} {other.leading}: "
                    "must be the same, or one row"
                )
        for x in operands.values():
            if x.row_bytes > MOST:
                raise ValueError(f"{x.name}: has rows of {x.row_bytes} bytes: must have at most {MOST} on this machine")
            x.hold_single_row()
        stack.pop_all()
    return operands
