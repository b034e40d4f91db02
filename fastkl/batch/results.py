"""What a run tells: a summary a field, what follows from several fields, the speed; as a dict, as JSON and as text."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from .summary import Summary

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .._rows import Array

_NLL_INCREASE = "nll_increase"  # nll_q - nll_p, row by row: its mean is the logarithm of the perplexities' ratio


class Results:
    """Summaries of the values of a run."""

    def __init__(self, names: tuple[str, ...] | None, base: float | None) -> None:
        self._base = math.e if base is None else base
        self.summaries = {name: Summary() for name in names or ("",)}
        if names is not None and "nll_q" in names:
            self.summaries[_NLL_INCREASE] = Summary()

    def update(self, values: Array) -> None:
        """Take in the next rows' values, with a field a summary or none."""
        for name, summary in self.summaries.items():
            if name == _NLL_INCREASE:
                with np.errstate(invalid="ignore"):  # of two infinite losses
                    summary.update(values["nll_q"].astype(float) - values["nll_p"])
            else:
                summary.update(values[name] if name else values)

    def result(self, speed: dict[str, Any]) -> dict[str, Any]:
        """Of one field, its summary and the speed; of several, such an object each, and what they say together."""
        objects = {name: summary.result() | speed for name, summary in self.summaries.items()}
        if "" in objects:
            return objects[""]
        together: dict[str, Any] = {"rows": objects["kl"]["rows"]} | speed
        together["top1_agreement"] = objects["same_argmax"]["mean"]
        for name in ("p", "q") if _NLL_INCREASE in objects else ():
            loss = objects[f"nll_{name}"]
            perplexity = math.inf if loss["infinite"] else self._base ** loss["mean"]
            together[f"perplexity_{name}"] = perplexity
        return together | objects

    @staticmethod
    def facts(result: dict[str, Any]) -> dict[str, str]:
        """Of a result, for people: what is not of one field."""
        return dict(_together(result))


def to_json(result: dict[str, Any]) -> str:
    """Strict JSON: null for what is no finite number, of which the counts tell."""

    def plain(x: Any) -> Any:
        if isinstance(x, dict):
            return {key: plain(value) for key, value in x.items()}
        if isinstance(x, list):
            return [plain(value) for value in x]
        return None if isinstance(x, float) and not math.isfinite(x) else x

    return json.dumps(plain(result), allow_nan=False)


def to_text(result: dict[str, Any], unit: str) -> str:
    """The same for people."""
    fields = {name: x for name, x in result.items() if isinstance(x, dict) and "mean" in x}
    lines = _table(fields) if fields else [_line(label, text) for label, text in _field(result)]
    rare = list(_rare(result)) if not fields else [pair for x in fields.values() for pair in _rare(x)]
    lines += [_line(label, text) for label, text in [*dict.fromkeys(rare), *_together(result)]]
    return "\n".join([*lines, _line("values in", unit)])


def _line(label: str, text: str) -> str:
    return f"  {label:<15} {text}"


def _field(one: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield "mean", f"{one['mean']:.6g} ± {one['stderr']:.2g}"
    yield "quantiles", "  ".join(f"{float(q):.0%} {value:.4g}" for q, value in one["quantiles"].items())
    yield "min, max", f"{one['min']:.6g}, {one['max']:.6g} in row {one['max_row']}"


def _table(fields: dict[str, dict[str, Any]]) -> list[str]:
    """A line a field."""
    shown = ("0.01", "0.5", "0.99")
    cells = [["", "mean", "±", *(f"{float(q):.0%}" for q in shown), "max", "in row"]]
    for name, x in fields.items():
        numbers = [x["mean"], *(x["quantiles"][q] for q in shown), x["max"]]
        mean, *others = (f"{number:.5g}" for number in numbers)
        cells.append([name, mean, f"{x['stderr']:.2g}", *others, str(x["max_row"])])
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    texts = [[text.rjust(width) for text, width in zip(line, widths, strict=True)] for line in cells]
    return ["  ".join(["", name.strip().ljust(widths[0]), *line]) for name, *line in texts]


def _rare(one: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for kind in ("infinite", "invalid"):
        if one[kind]:
            first = one[f"first_{kind}_rows"]
            yield kind, f"{one[kind]:,} rows: {', '.join(map(str, first))}{', ...' if one[kind] > len(first) else ''}"


def _together(result: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for name in "pq":
        if f"perplexity_{name}" in result:
            yield f"perplexity of {name}", f"{result[f'perplexity_{name}']:.6g}"
    if "top1_agreement" in result:
        yield "same argmax", f"{result['top1_agreement']:.4%}"
    yield "rows", f"{result['rows']:,} in {result['seconds']:.3g} s"
    yield "speed", f"{result['rows_per_second']:.3g} rows/s, {result['bytes_per_second'] / 1e9:.3g} GB/s"
