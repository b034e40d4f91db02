"""The result of a run as text: for a terminal, and as the Markdown table of a model card. The report has the same table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .chart import number
from .results import main_of, models_of

Result = dict[str, Any]


def fields_of(model: Result) -> dict[str, Result]:
    """The summaries of the fields of a comparison; of another measure, there are none."""
    return {name: x for name, x in model.items() if isinstance(x, dict) and "mean" in x}


def comparison(models: Mapping[str, Result], measured: str) -> list[list[str]]:
    """The most important numbers of models, a row each below a row of names; `measured` is the measure with its unit."""
    table: list[list[str]] = []
    mains = {name: main_of(model) for name, model in models.items()}
    rare = [kind for kind in ("infinite", "invalid") if any(main[kind] for main in mains.values())]
    for name, model in models.items():
        main = mains[name]
        mean = f"{'kl' + measured.removeprefix('compare') if 'kl' in model else measured}, mean"
        cells = {"": name, mean: _with_error(main["mean"], main["stderr"])}
        cells |= {f"{100 * float(q):g} %": number(main["quantiles"][q], 4) for q in ("0.5", "0.99", "0.999")}
        cells |= {"worst 5 %, mean": number(main["cvar95"], 4), "max": number(main["max"], 4)}
        if "top1_agreement" in model:
            cells["same argmax"] = _percent(model["top1_agreement"])
        if "delta_p" in model:
            ratio = _with_error(model["perplexity_ratio"], model["perplexity_ratio_stderr"])
            cells |= {"perplexity": number(model["perplexity_q"], 5), "ratio to p": ratio}
            cells |= {f"Δp, {key}": _percent(model["delta_p"][key]) for key in ("mean", "rms")}
        cells |= {f"{kind} rows": f"{main[kind]:,}" for kind in rare}
        table = [*(table or [[*cells]]), [*cells.values()]]
    return table


def differences(result: Result) -> list[list[str]]:
    """The paired differences of models, as a row each below a row of names: the means and their standard errors."""
    table: list[list[str]] = []
    for pair in result.get("paired", ()):
        fields = {name: pair[name] for name in ("kl", "same_argmax", "nll_q") if name in pair} or {"mean": pair}
        cells = {"": " - ".join(pair["q"])} | {name: _with_error(x["mean"], x["stderr"]) for name, x in fields.items()}
        table = [*(table or [[*cells]]), [*cells.values()]]
    return table


def top_rows(models: Mapping[str, Result]) -> list[list[str]]:
    """The rows of each model that diverge most, a row each below a row of names; nothing if they were not described."""
    names = {"row": "row", "value": "value", "label": "label", "argmax_p": "argmax p", "argmax_q": "argmax q"}
    table: list[list[str]] = []
    for model, result in models.items():
        for at in result.get("top", ()):
            cells = {"": model} | {name: str(at[key]) for key, name in names.items() if key in at}
            cells["value"] = number(at["value"], 4)
            table = [*(table or [[*cells]]), [*cells.values()]]
    return table


def to_markdown(models: Mapping[str, Result], measured: str) -> str:
    """The comparison as a Markdown table, and what its numbers are."""
    some = next(iter(models.values()))
    summary = main_of(some)
    by = f"{summary['clusters']:,} clusters of rows" if "clusters" in summary else "rows"
    note = f"{some['rows']:,} rows; ± is one standard error, by {by}."
    top = top_rows(models)
    return "\n".join([*_markdown(comparison(models, measured)), "", note, *(["", *_markdown(top)] if top else [])])


def _markdown(table: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a Markdown table, of numbers except for the first column."""
    head, *rows = ([cell.replace("|", "\\|") for cell in row] for row in table)
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return ["| " + " | ".join(line) + " |" for line in lines]


def to_text(result: Result, measured: str, unit: str) -> str:
    """The result as lines of text. An empty unit is not shown."""
    models = models_of(result)
    if "models" in result:
        lines = [*_aligned(comparison(models, measured)), *_below(differences(result))]
        pairs = [(kind, f"{text} ({name})") for name, x in models.items() for kind, text in _rare_of(x)]
        pairs += [*notes(models), *speed(next(iter(models.values())))]
    else:
        fields = fields_of(result)
        lines = _aligned(_table(fields)) if fields else []
        pairs = [*([] if fields else _field(result)), *_rare_of(result), *joint(result), *notes(models), *speed(result)]
    pairs += [("values in", unit)] if unit else []
    pairs += [
        ("fails", f"{text}{f' ({name})' if name else ''}") for name, x in models.items() for text in x.get("failed", ())
    ]
    return "\n".join([*lines, *(f"  {label:<15} {text}" for label, text in pairs), *_below(top_rows(models))])


def _field(one: Result) -> Iterator[tuple[str, str]]:
    yield "mean", f"{one['mean']:.6g} ± {one['stderr']:.2g}"
    if "clusters" in one:
        yield "clusters", f"{one['clusters']:,}"
    yield "std", f"{one['std']:.6g}"
    yield "quantiles", "  ".join(f"{100 * float(q):g}% {value:.4g}" for q, value in one["quantiles"].items())
    yield "worst 5%, mean", f"{one['cvar95']:.6g}"
    yield "min, max", f"{one['min']:.6g}, {one['max']:.6g} in row {one['max_row']}"


def _table(fields: Mapping[str, Result]) -> list[list[str]]:
    """A line for each field."""
    shown = ("0.01", "0.5", "0.99", "0.999")
    cells = [["", "mean", "±", *(f"{100 * float(q):g}%" for q in shown), "max", "in row"]]
    for name, x in fields.items():
        numbers = [x["mean"], *(x["quantiles"][q] for q in shown), x["max"]]
        mean, *others = (f"{number:.5g}" for number in numbers)
        cells.append([name, mean, f"{x['stderr']:.2g}", *others, str(x["max_row"])])
    return cells


def _below(cells: Sequence[Sequence[str]]) -> list[str]:
    """An empty line and the cells, if there are any."""
    return ["", *_aligned(cells)] if cells else []


def _aligned(cells: Sequence[Sequence[str]]) -> list[str]:
    """The cells as lines, of columns with a right edge, except for the first."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(["", name.ljust(widths[0]), *map(str.rjust, line, widths[1:])]) for name, *line in cells]


def _rare_of(model: Result) -> list[tuple[str, str]]:
    """The rows of a model that are not in its means, each count once."""
    pairs = (pair for x in [*fields_of(model).values()] or [model] for pair in _rare(x))
    return [*dict.fromkeys(pairs)]


def _rare(one: Result) -> Iterator[tuple[str, str]]:
    if one["ignored"]:
        yield "ignored", f"{one['ignored']:,} rows"
    for kind in ("infinite", "invalid"):
        if one[kind]:
            first = one[f"first_{kind}_rows"]
            yield kind, f"{one[kind]:,} rows: {', '.join(map(str, first))}{', ...' if one[kind] > len(first) else ''}"


def joint(model: Result) -> Iterator[tuple[str, str]]:
    """The numbers of a comparison that do not belong to one field."""
    if "perplexity_ratio" in model:
        names = {"perplexity of p": "perplexity_p", "perplexity of q": "perplexity_q", "their ratio": "perplexity_ratio"}
        for label, name in names.items():
            yield label, f"{model[name]:.6g} ± {model[f'{name}_stderr']:.2g}"
        yield "correlation", f"{model['ln_ppl_correlation']:.4%} of the losses"
        change = model["delta_p"]
        yield "change of p", f"{change['mean']:.4%} ± {change['stderr']:.2%}, RMS {change['rms']:.4%}"
    if "top1_agreement" in model:
        yield "same argmax", f"{model['top1_agreement']:.4%}"
    if "clusters" in model.get("kl", {}):
        yield "clusters", f"{model['kl']['clusters']:,}"


def notes(models: Mapping[str, Result]) -> Iterator[tuple[str, str]]:
    """What has to be known of how rows were read: each text once, after the numbers of rows."""
    rows: dict[str, dict[str, None]] = {}
    for model, result in models.items():
        for name, note in result.get("notes", {}).items():
            if note["rows"]:
                operand = model or name if name == "q" else name
                rows.setdefault(note["text"], {})[f"{note['rows']:,} rows of {operand}"] = None
    for text, counts in rows.items():
        yield "note", f"{' and '.join(counts)}: {text}"


def speed(model: Result) -> Iterator[tuple[str, str]]:
    """How many rows there were, and how fast they were scored."""
    yield "rows", f"{model['rows']:,} in {model['seconds']:.3g} s"
    yield "speed", f"{model['rows_per_second']:.3g} rows/s, {model['bytes_per_second'] / 1e9:.3g} GB/s"


def _with_error(value: float, error: float) -> str:
    return f"{number(value, 4)} ± {number(error, 2)}"


def _percent(share: float) -> str:
    return f"{number(100 * share, 4)} %"
