"""A page of HTML that compares models, and shows a histogram, the statistics and the largest values of each field.

The page is complete: it has no script and loads nothing. It is well-formed XML, too. Every text that comes from outside is
escaped once, by `_text`. Knows nothing of where the values come from.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from itertools import zip_longest
from typing import Any, Final

from .chart import figure, number
from .results import models_of
from .summary import Summary
from .text import comparison, differences, fields_of, top_rows

_STYLE: Final = """
:root {
  color-scheme: light dark;
  --page: #fdfdfc; --ink: #1c2126; --faint: #59636d; --rule: #d8dcdf; --bar: #4d82b8; --lit: #1f5488;
}
@media (prefers-color-scheme: dark) {
  :root { --page: #15181b; --ink: #e3e7ea; --faint: #9ba5ae; --rule: #343b42; --bar: #6c9fd2; --lit: #a9cff5; }
}
* { box-sizing: border-box; } a { color: inherit; }
body {
  margin: 0 auto; max-width: 76rem; padding: clamp(1rem, 4vw, 3rem); background: var(--page); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; font-variant-numeric: tabular-nums; overflow-wrap: anywhere;
}
h1, h2 { font-family: ui-serif, "Iowan Old Style", Charter, Georgia, serif; font-weight: 500; line-height: 1.2; }
h1 { font-size: 2rem; margin: 0 0 1.5rem; } h2 { font-size: 1.5rem; margin: 0 0 0.25rem; }
h3 { font: 1rem system-ui, sans-serif; margin: 1.5rem 0 0; }
h2 small, h3 small { font: 1rem system-ui, sans-serif; color: var(--faint); } .none { color: var(--faint); }
section { margin-top: 2.5rem; padding-top: 1.75rem; border-top: 1px solid var(--rule); } nav { margin-top: 2rem; }
.tables { display: grid; gap: 1.75rem 3rem; grid-template-columns: repeat(auto-fit, minmax(min(15rem, 100%), 1fr)); }
table { border-collapse: collapse; width: 100%; align-self: start; font-size: 0.875rem; }
caption { text-align: left; color: var(--faint); padding-bottom: 0.375rem; }
th, td { padding: 0.25rem 0; border-top: 1px solid var(--rule); text-align: right; vertical-align: baseline; }
th + td, th + th, td + td { padding-left: 1rem; }
th { font-weight: 400; } th:first-child { text-align: left; } thead th { color: var(--faint); } td { white-space: nowrap; }
.charts { display: grid; gap: 0 2rem; grid-template-columns: repeat(auto-fit, minmax(min(26rem, 100%), 1fr)); }
.models { margin-top: 1.25rem; } .models td { padding-left: 0.5rem; } .models th:first-child { min-width: 6rem; }
.models thead th { vertical-align: bottom; overflow-wrap: normal; }
.worst + .worst { margin-top: 0; } .worst td { padding-left: 0.5rem; }
.rows { margin-top: 1.75rem; } .rows td:last-child { white-space: normal; }
.facts { table-layout: fixed; } .facts td { text-align: left; white-space: pre-line; }
.facts th { width: 9rem; color: var(--faint); }
figure { margin: 1rem 0 2rem; padding: 0 clamp(0.75rem, 2vw, 1.25rem) 0 clamp(2.75rem, 8vw, 3.5rem); }
svg { display: block; overflow: visible; font: 0.75rem system-ui, sans-serif; fill: var(--ink); }
svg .faint { fill: var(--faint); } svg .rule { stroke: var(--rule); } svg .axis { stroke: var(--faint); }
svg .bar { fill: var(--bar); } svg .hover { fill: transparent; } svg g:hover .bar { fill: var(--lit); }
svg .mark { stroke: var(--ink); stroke-width: 1.5; } svg .dashed { stroke-dasharray: 4 3; }
svg .mark, svg .label { pointer-events: none; }
@media (max-width: 80rem) {
  .models, .models tbody, .models th, .models td { display: block; } .models thead { display: none; }
  .models caption { display: block; } .models th, .models td { border: 0; padding: 0; text-align: left; }
  .models tr { display: grid; gap: 0.25rem 1rem; grid-template-columns: repeat(auto-fill, minmax(8.5rem, 1fr)); }
  .models tr { border-top: 1px solid var(--rule); padding: 0.5rem 0 0.75rem; } .models th { grid-column: 1 / -1; }
  .models td::before { content: attr(data-name); display: block; color: var(--faint); }
}
@media (max-width: 36rem) { svg .odd { display: none; } .facts th { width: 30%; } }
@media print {
  :root { color-scheme: light; --page: #fff; --ink: #000; --faint: #444; --rule: #bbb; --bar: #4d82b8; }
  body { max-width: none; padding: 0; font-size: 10pt; } a { text-decoration: none; }
  .tables { grid-template-columns: repeat(3, 1fr); gap: 1rem 1.5rem; }
  figure, table, tr { break-inside: avoid; } h2, caption { break-after: avoid; }
}
"""


def html(
    title: str,
    facts: Mapping[str, str],
    result: dict[str, Any],
    summaries: Mapping[str, Mapping[str, Summary]],
    units: Mapping[str, str],
) -> str:
    """A page of HTML, to be written as UTF-8: the facts as a table, a comparison of the models, a section for each field.

    `result` is that of the run, and `summaries` has the fields of each model, from which histograms are made. A run of one
    model names it "". A measure without fields is named like the only unit. A value of the facts may have several lines. An
    empty unit is not shown.
    """
    models = models_of(result)
    measure = next(iter(units), "")
    fields = {name: fields_of(model) or {measure: model} for name, model in models.items()}
    histograms = {name: {field or measure: x.histogram() for field, x in of.items()} for name, of in summaries.items()}
    body = [f"<header><h1>{_text(title)}</h1>"]
    if facts:
        body += [_table("The whole", [], [(_text(name), _text(value)) for name, value in facts.items()], "facts")]
    body += ["</header>"]

    def chart(model: str, field: str) -> str:
        shown = _text(f"{field} of {model}" if model else field) + _in_units(field, units)
        return figure(shown, fields[model][field], histograms[model][field])

    several = len(models) > 1 or any(len(x) > 1 for x in fields.values())
    body += _comparison(result, models, _text(measure) + _in_units(measure, units))
    for name in models if several else ():
        charts = [
            f"<div><h3>{_text(field)}<small>{_in_units(field, units)}{_text(f' of {name}' if name else '')}</small></h3>"
            + f"{chart(name, field)}</div>"
            for field in (measure if measure in fields[name] else "kl", "nll_q")
            if field in fields[name]
        ]
        body += ['<div class="charts">', *charts, "</div>"]
    body += [*_worst_rows(models), "</section>"]

    every = [(name, field) for name, of in fields.items() for field in of]
    names = [_text(f"{field} of {name}" if name else field) for name, field in every]
    if several:
        rows = []
        for i, (name, field) in enumerate(every):
            x = fields[name][field]
            numbers = (number(y, 4) for y in (x["mean"], x["quantiles"]["0.5"], x["max"]))
            rows += [(f'<a href="#field-{i}">{names[i]}</a>', *numbers)]
        body += ["<nav>", _table("The fields", ["", "mean", "median", "max"], rows), "</nav>"]
    for i, (name, field) in enumerate(every):
        body += [
            f'<section id="field-{i}">\n<h2>{names[i]}<small>{_in_units(field, units)}</small></h2>',
            chart(name, field),
        ]
        body += [*_tables(fields[name][field]), "</section>"]
    head = [
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8" />',
        '<meta name="viewport" content="width=device-width, initial-scale=1" />',
        f"<title>{_text(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>",
    ]
    return "\n".join([*head, *body, "</main>\n</body>\n</html>\n"])


def _in_units(field: str, units: Mapping[str, str]) -> str:
    return f" in {_text(units[field])}" if units.get(field) else ""


def _comparison(result: dict[str, Any], models: Mapping[str, dict[str, Any]], measured: str) -> list[str]:
    """The beginning of the section that compares models: a row for each, and for each two of them."""
    tables = {"Models; ± is one standard error": comparison(models, measured)}
    tables["Differences of models in the same row"] = differences(result)
    shown = ['<section id="comparison">\n<h2>Comparison</h2>']
    for caption, table in tables.items():
        if table:
            head, *rows = ([_text(cell) for cell in row] for row in table)
            shown += [_table(caption, head, rows, "models")]
    return shown


def _worst_rows(models: Mapping[str, dict[str, Any]]) -> list[str]:
    """The rows of each model that diverge most, with their labels."""
    tables = []
    for name, model in models.items():
        if table := top_rows({name: model}):
            head, *rows = ([_text(cell) for cell in row[1:]] for row in table)
            caption = f"Rows that diverge most{_text(f', {name}') if name else ''}; rows count from 0"
            tables += [_table(caption, head, rows, "worst")]
    return ['<div class="tables">', *tables, "</div>"] if tables else []


def _tables(result: Mapping[str, Any]) -> list[str]:
    """The tables of one summary."""
    finite = result["rows"] - result["infinite"] - result["invalid"] - result["ignored"]
    statistics = [("rows", f"{result['rows']:,}"), ("with a finite value", f"{finite:,}")]
    if result["ignored"]:
        statistics.append(("with an ignored label", f"{result['ignored']:,}"))
    numbers = {"mean": "mean", "its standard error": "stderr", "deviation": "std", "root mean square": "rms"}
    numbers |= {"mean of the worst 5 %": "cvar95", "min": "min", "max": "max", "clusters": "clusters"}
    statistics += [(name, number(result[key])) for name, key in numbers.items() if key in result]
    quantiles = [(f"{100 * float(level):g} %", number(value)) for level, value in result["quantiles"].items()]
    worst = [(str(at["row"]), number(at["value"])) for at in result["worst"]]
    apart = [
        (kind, f"{result[kind]:,}", ", ".join(map(str, result[f"first_{kind}_rows"])) or "—")
        for kind in ("infinite", "invalid")
    ]
    return [
        '<div class="tables">\n<div>',
        _table("Statistics", [], statistics),
        _table("Rows without a finite value", ["", "rows", "the first of them"], apart, "rows"),
        "</div>",
        _table("Quantiles", [], quantiles),
        _table("Largest values; rows count from 0", ["row", "value"], worst),
        "</div>",
    ]


def _table(caption: str, head: Sequence[str], rows: Iterable[Sequence[str]], kind: str = "") -> str:
    """A table; the first cell of each row is its header. In a narrow window, a row of models is a list with names."""
    lines = [f'<table class="{kind}">\n<caption>{caption}</caption>']
    if head:
        columns = "".join(f'<th scope="col">{cell}</th>' if cell else "<td></td>" for cell in head)
        lines += [f"<thead><tr>{columns}</tr></thead>"]
    lines += ["<tbody>"]
    names = [f' data-name="{cell}"' if kind == "models" else "" for cell in head]
    for first, *others in rows:
        cells = "".join(f"<td{name}>{cell}</td>" for name, cell in zip_longest(names[1:], others, fillvalue=""))
        lines += [f'<tr><th scope="row">{first}</th>{cells}</tr>']
    return "\n".join([*lines, "</tbody>\n</table>"])


def _text(content: str) -> str:
    """The text as HTML. Characters that cannot be printed, except ends of lines, appear as Python's escapes."""
    shown = (c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in str(content))
    return escape("".join(shown))
