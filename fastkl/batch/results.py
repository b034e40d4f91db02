"""The result of a run: a summary of each field, numbers made of several fields, and the speed; as a dict, JSON and text."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..call import Array
from .summary import Summary

_NLL_INCREASE = "nll_increase"  # nll_q - nll_p of each row: its mean is the logarithm of the perplexities' ratio


class Results:
    """Summaries of the values of a run."""

    def __init__(self, names: tuple[str, ...] | None, base: float | None) -> None:
        self._base = math.e if base is None else base
        self.summaries = {name: Summary() for name in names or ("",)}
        if names is not None and "nll_q" in names:
            self.summaries[_NLL_INCREASE] = Summary()

    def update(self, values: Array, ignored: Array | None) -> None:
        """Add the values of the next rows, which have a field for each summary, or none.

        Losses of rows with an ignored label are left out.
        """
        for name, summary in self.summaries.items():
            losses = not name or name.startswith("nll")
            if name == _NLL_INCREASE:
                with np.errstate(invalid="ignore"):  # infinite losses of both
                    column = values["nll_q"].astype(float) - values["nll_p"]
            elif name == "same_argmax":  # of an invalid row, it is False in the file, and NaN for the statistics
                column = np.where(np.isnan(values["kl"]), math.nan, values[name])
            else:
                column = values[name] if name else values
            summary.update(column, ignored=ignored if losses else None)

    def result(self, speed: dict[str, Any]) -> dict[str, Any]:
        """The summary and the speed; of several fields, such a dict each, and the numbers made of several."""
        objects = {name: summary.result() | speed for name, summary in self.summaries.items()}
        if "" in objects:
            return objects[""]
        joint: dict[str, Any] = {"rows": objects["kl"]["rows"]} | speed
        joint["top1_agreement"] = objects["same_argmax"]["mean"]
        for name in ("p", "q") if _NLL_INCREASE in objects else ():
            loss = objects[f"nll_{name}"]
            joint[f"perplexity_{name}"] = math.inf if loss["infinite"] else _power(self._base, loss["mean"])
        return joint | objects


def _power(base: float, exponent: float) -> float:
    """The power of a base above 1, which may be beyond the largest float."""
    try:
        return float(base**exponent)
    except OverflowError:
        return math.inf


def to_json(result: dict[str, Any]) -> str:
    """The result as strict JSON: numbers that are not finite are null, and counted."""
    return json.dumps(json.loads(json.dumps(result), parse_constant=lambda _: None), allow_nan=False)


def to_text(result: dict[str, Any], unit: str) -> str:
    """The result as lines of text. An empty unit is not shown."""
    fields = {name: x for name, x in result.items() if isinstance(x, dict) and "mean" in x}
    lines = _table(fields) if fields else []
    pairs = [] if fields else [*_field(result)]
    rare = [pair for x in fields.values() or [result] for pair in _rare(x)]
    pairs += [*dict.fromkeys(rare), *joint(result), *([("values in", unit)] if unit else [])]
    return "\n".join([*lines, *(f"  {label:<15} {text}" for label, text in pairs)])


def _field(one: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield "mean", f"{one['mean']:.6g} ± {one['stderr']:.2g}"
    yield "quantiles", "  ".join(f"{float(q):.0%} {value:.4g}" for q, value in one["quantiles"].items())
    yield "min, max", f"{one['min']:.6g}, {one['max']:.6g} in row {one['max_row']}"


def _table(fields: dict[str, dict[str, Any]]) -> list[str]:
    """A line for each field."""
    shown = ("0.01", "0.5", "0.99")
    cells = [["", "mean", "±", *(f"{float(q):.0%}" for q in shown), "max", "in row"]]
    for name, x in fields.items():
        numbers = [x["mean"], *(x["quantiles"][q] for q in shown), x["max"]]
        mean, *others = (f"{number:.5g}" for number in numbers)
        cells.append([name, mean, f"{x['stderr']:.2g}", *others, str(x["max_row"])])
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(["", name.ljust(widths[0]), *map(str.rjust, line, widths[1:])]) for name, *line in cells]


def _rare(one: dict[str, Any]) -> Iterator[tuple[str, str]]:
    if one["ignored"]:
        yield "ignored", f"{one['ignored']:,} rows"
    for kind in ("infinite", "invalid"):
        if one[kind]:
            first = one[f"first_{kind}_rows"]
            yield kind, f"{one[kind]:,} rows: {', '.join(map(str, first))}{', ...' if one[kind] > len(first) else ''}"


def joint(result: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The numbers of a result that do not belong to one field."""
    for name in "pq":
        if f"perplexity_{name}" in result:
            yield f"perplexity of {name}", f"{result[f'perplexity_{name}']:.6g}"
    if "top1_agreement" in result:
        yield "same argmax", f"{result['top1_agreement']:.4%}"
    notes = {name: note for name, note in result.get("notes", {}).items() if note["rows"]}
    for text in dict.fromkeys(note["text"] for note in notes.values()):
        rows = (f"{note['rows']:,} rows of {name}" for name, note in notes.items() if note["text"] == text)
        yield "note", f"{' and '.join(rows)}: {text}"
    yield "rows", f"{result['rows']:,} in {result['seconds']:.3g} s"
    yield "speed", f"{result['rows_per_second']:.3g} rows/s, {result['bytes_per_second'] / 1e9:.3g} GB/s"
