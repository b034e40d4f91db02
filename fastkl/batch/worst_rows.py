"""The rows with the largest values: their labels, and where P and Q have their largest entries. They are read once more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .._kernels import BFLOAT16_KIND
from ..call import Array, read_operand
from .operands import Operands
from .scoring import Options


def describe(operands: Operands, options: Options, worst: Sequence[Sequence[dict[str, Any]]]) -> list[list[dict[str, Any]]]:
    """The rows of each model, {"row", "value"}, with "label", "argmax_p" and "argmax_q" where there are such operands.

    An argmax is the number of the first entry that no other exceeds, of the columns that are compared.
    """
    facts: dict[tuple[str, int], int] = {}
    rows = sorted({at["row"] for one in worst for at in one})  # so that sources that are read in order begin only once
    for name, x in operands.items():
        for row in rows:
            entries = x.get(row, row + 1)[0]
            facts[name, row] = int(entries[0]) if name == "labels" else _argmax(name, entries[: options.columns])
    found = []
    for q, one in zip(options.q_names.values(), worst, strict=True):
        names = {"labels": "label", "p": "argmax_p", q: "argmax_q"}
        shown = {name: key for name, key in names.items() if name in operands}
        found += [[at | {key: facts[name, at["row"]] for name, key in shown.items()} for at in one]]
    return found


def _argmax(name: str, entries: Array) -> int:
    names = entries.dtype.names or ()
    if "indices" in names:  # top-k rows, of one entry with the few and their indices
        few = entries[0]["log_probs" if "log_probs" in names else "values"]
        return int(entries[0]["indices"][_argmax(name, few)])
    array, kind = read_operand(name, entries)
    if kind is BFLOAT16_KIND:  # the upper halves of float32
        array = (array.astype(np.uint32) << 16).view(np.float32)
    return int(array.argmax())
