"""A page of HTML that shows summaries: a histogram, the statistics and the rows worth a look, of each field.

The page stands alone: no script, nothing fetched. It is well-formed XML, too. It is drawn for any window: horizontal places
are percentages, so that charts become narrower and their letters do not become smaller. Knows nothing of where the values
come from. Whatever text comes from outside goes through `_text`, once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .summary import Histogram, Summary

# Of a chart, in pixels from the top:
_UPPER: Final = 12  # the labels of median and mean
_LOWER: Final = 29
_TOP: Final = 42  # the plot
_FLOOR: Final = 222
_NUMBERS: Final = 240  # the numbers of the axis
_HEIGHT: Final = 246
# And in percent of its width:
_ZEROS: Final = 4.0  # the bar of zeros
_BESIDE_ZEROS: Final = 7.0  # where a logarithmic axis begins beside it
_SINGLE: Final = 8.0  # the bar of a single value

_STYLE: Final = """
:root {
  color-scheme: light dark;
  --page: #fdfdfc; --ink: #1c2126; --faint: #59636d; --rule: #d8dcdf; --bar: #4d82b8; --lit: #1f5488;
}
@media (prefers-color-scheme: dark) {
  :root { --page: #15181b; --ink: #e3e7ea; --faint: #9ba5ae; --rule: #343b42; --bar: #6c9fd2; --lit: #a9cff5; }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; max-width: 62rem; padding: clamp(1rem, 4vw, 3rem); background: var(--page); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; font-variant-numeric: tabular-nums; overflow-wrap: anywhere;
}
h1, h2 { font-family: ui-serif, "Iowan Old Style", Charter, Georgia, serif; font-weight: 500; line-height: 1.2; }
h1 { font-size: 2rem; margin: 0 0 1.5rem; }
h2 { font-size: 1.5rem; margin: 0 0 0.25rem; }
h2 small { font: 1rem system-ui, sans-serif; color: var(--faint); }
a { color: inherit; text-decoration-color: var(--bar); text-underline-offset: 0.2em; }
section { margin-top: 2.5rem; padding-top: 1.75rem; border-top: 1px solid var(--rule); }
nav { margin-top: 2rem; }
.none { color: var(--faint); }
.tables { display: grid; gap: 1.75rem 3rem; grid-template-columns: repeat(auto-fit, minmax(min(15rem, 100%), 1fr)); }
table { border-collapse: collapse; width: 100%; align-self: start; font-size: 0.875rem; }
caption { text-align: left; color: var(--faint); padding-bottom: 0.375rem; }
th, td { padding: 0.25rem 0; border-top: 1px solid var(--rule); text-align: right; vertical-align: baseline; }
th + td, th + th, td + td { padding-left: 1rem; }
th { font-weight: 400; }
th:first-child { text-align: left; }
thead th { color: var(--faint); }
td { white-space: nowrap; }
.rows { margin-top: 1.75rem; }
.rows td:last-child { white-space: normal; }
.facts td { text-align: left; white-space: pre-line; }
.facts { table-layout: fixed; }
.facts th { width: 9rem; color: var(--faint); }
figure { margin: 1rem 0 2rem; padding: 0 1.25rem 0 3.5rem; }
svg { display: block; overflow: visible; font: 0.75rem system-ui, sans-serif; fill: var(--ink); }
svg .faint { fill: var(--faint); }
svg .rule { stroke: var(--rule); }
svg .axis { stroke: var(--faint); }
svg .bar { fill: var(--bar); }
svg .hover { fill: transparent; }
svg g:hover .bar { fill: var(--lit); }
svg .mark { stroke: var(--ink); stroke-width: 1.5; }
svg .dashed { stroke-dasharray: 4 3; }
svg .mark, svg .label { pointer-events: none; }
@media (max-width: 36rem) {
  figure { padding: 0 0.75rem 0 2.75rem; }
  svg .odd { display: none; }
  .facts th { width: 30%; }
}
@media print {
  :root { color-scheme: light; --page: #fff; --ink: #000; --faint: #444; --rule: #bbb; --bar: #4d82b8; }
  body { max-width: none; padding: 0; font-size: 10pt; }
  .tables { grid-template-columns: repeat(3, 1fr); gap: 1rem 1.5rem; }
  figure, table, tr { break-inside: avoid; }
  h2, caption { break-after: avoid; }
  a { text-decoration: none; }
}
"""


def html(title: str, facts: Mapping[str, str], summaries: Mapping[str, Summary], unit: str | Mapping[str, str] = "") -> str:
    """A page of HTML about some summaries.

    Parameters
    ----------
    title : str
        What the page is called.
    facts : mapping of str to str
        What is to be said of the whole, as files, options, speed: a table of names and values. A value may have lines.
    summaries : mapping of str to Summary
        By the names of their fields: a section each, with a table of contents if there are several.
    unit : str or mapping of str to str, default ""
        What the values are measured in: all of them, or by field. An empty one, or none, is not named.

    Returns
    -------
    str
        The whole document. To be written as UTF-8.
    """
    units = unit if isinstance(unit, Mapping) else dict.fromkeys(summaries, unit)
    results = {name: summary.result() for name, summary in summaries.items()}
    body = [f"<header><h1>{_text(title)}</h1>"]
    if facts:
        body += [_table("The whole", [], [(_text(name), _text(value)) for name, value in facts.items()], "facts")]
    body += ["</header>"]
    if len(results) > 1:
        fields = [
            (
                f'<a href="#field-{i}">{_text(name)}</a>',
                *(_number(y, 4) for y in (x["mean"], x["quantiles"]["0.5"], x["max"])),
            )
            for i, (name, x) in enumerate(results.items())
        ]
        body += ["<nav>", _table("The fields", ["", "mean", "median", "max"], fields), "</nav>"]
    for i, (name, result) in enumerate(results.items()):
        measured = f" in {_text(units[name])}" if units.get(name) else ""
        body += [f'<section id="field-{i}">\n<h2>{_text(name)}<small>{measured}</small></h2>']
        body += [_figure(_text(name) + measured, result, summaries[name].histogram())]
        body += [_tables(result), "</section>"]
    return "\n".join(
        [
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8" />',
            '<meta name="viewport" content="width=device-width, initial-scale=1" />',
            f"<title>{_text(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>",
            *body,
            "</main>\n</body>\n</html>\n",
        ]
    )


def _tables(result: Mapping[str, Any]) -> str:
    """The tables of one summary."""
    finite = result["rows"] - result["infinite"] - result["invalid"]
    statistics = [
        ("rows", _count(result["rows"])),
        ("with a finite value", _count(finite)),
        ("mean", _number(result["mean"])),
        ("its standard error", _number(result["stderr"])),
        ("min", _number(result["min"])),
        ("max", _number(result["max"])),
    ]
    quantiles = [(f"{100 * float(level):g} %", _number(value)) for level, value in result["quantiles"].items()]
    worst = [(str(at["row"]), _number(at["value"])) for at in result["worst"]]
    apart = [
        (kind, _count(result[kind]), ", ".join(map(str, result[f"first_{kind}_rows"])) or "—")
        for kind in ("infinite", "invalid")
    ]
    return "\n".join(
        [
            '<div class="tables">\n<div>',
            _table("Statistics", [], statistics),
            _table("Rows without a finite value", ["", "rows", "the first of them"], apart, "rows"),
            "</div>",
            _table("Quantiles", [], quantiles),
            _table("Largest values; rows count from 0", ["row", "value"], worst),
            "</div>",
        ]
    )


def _table(caption: str, head: Sequence[str], rows: Iterable[Sequence[str]], kind: str = "") -> str:
    """A table; the first cell of each row is its header."""
    columns = "".join(f'<th scope="col">{cell}</th>' if cell else "<td></td>" for cell in head)
    return "\n".join(
        [
            f'<table class="{kind}">' if kind else "<table>",
            f"<caption>{caption}</caption>",
            *([f"<thead><tr>{columns}</tr></thead>"] if head else []),
            "<tbody>",
            *(f'<tr><th scope="row">{row[0]}</th>' + "".join(f"<td>{x}</td>" for x in row[1:]) + "</tr>" for row in rows),
            "</tbody>\n</table>",
        ]
    )


# ---- the chart ----


class _Axis(NamedTuple):
    """Where a value is drawn."""

    low: float
    high: float
    logarithmic: bool
    start: float  # percent of the width at which `low` is

    def at(self, value: float) -> float:
        """The place of the value in percent of the width."""
        if self.low == self.high:
            return 50.0
        if self.logarithmic:
            if value < self.low:  # a zero, or a mean of many of them
                return _ZEROS / 2 if value <= 0 else (_ZEROS + self.start) / 2
            low, high, value = math.log(self.low), math.log(self.high), math.log(value)
        else:
            size = max(abs(self.low), abs(self.high))  # so that no difference overflows
            low, high, value = self.low / size, self.high / size, value / size
        return self.start + (100 - self.start) * (value - low) / (high - low)

    def ticks(self) -> list[tuple[float, str]]:
        """Round values on the axis, seven at most or so, as numbers and in letters."""
        if self.logarithmic:
            first, last = math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9)
            step = next(n for n in (1, 2, 3, 5, 10, 20, 50, 100, 200) if last - first <= 6 * n)
            return [(10.0**k, _power(k)) for k in range(-(-first // step) * step, last + 1, step)]
        size = max(abs(self.low), abs(self.high))
        rough = self.high / 6 - self.low / 6
        if rough < 1e-12 * size or size < 1e-290:  # one value, or too many digits to be told apart at a glance
            return [(x, _tidy(repr(x))) for x in sorted({self.low, self.high})]
        digits, exponent = _round_step(rough)
        unit = digits * 10.0**exponent
        multiples = range(math.ceil(self.low / unit), math.floor(self.high / unit) + 1)
        numbers = [float(f"{k * digits}e{exponent}") for k in multiples]
        if 1e-4 <= size < 1e7:
            return [(x, f"{x:,.{max(0, -exponent)}f}") for x in numbers]
        return [(x, _number(x, max(1, math.ceil(math.log10(size)) - exponent + 1))) for x in numbers]


def _figure(what: str, result: Mapping[str, Any], histogram: Histogram) -> str:
    """The histogram of what is called so, which is escaped already."""
    edges, counts = histogram.edges.tolist(), histogram.counts.tolist()
    if not edges:
        return '<p class="none">no finite value</p>'
    axis = _Axis(edges[0], edges[-1], histogram.logarithmic, _BESIDE_ZEROS if histogram.zeros else 0.0)
    bars = []
    if histogram.zeros:
        bars += [(0.0, _ZEROS, histogram.zeros, "0")]
    for low, high, count in zip(edges, edges[1:], counts, strict=False):
        left, right = axis.at(low), axis.at(high)
        if low == high:
            bars += [(left - _SINGLE / 2, left + _SINGLE / 2, count, _number(low))]
        elif count:
            bars += [(left, right, count, f"{_number(low)} to {_number(high)}")]
    finite, most = sum(counts) + histogram.zeros, max(count for _, _, count, _ in bars)
    mean, median = result["mean"], result["quantiles"]["0.5"]
    least = 0.0 if histogram.zeros else edges[0]
    label = (
        f"Histogram of {_count(finite)} finite values of {what}, from {_number(least)} to {_number(edges[-1])}; "
        f"median {_number(median)}, mean {_number(mean)}"
    )
    parts = [f'<figure>\n<svg role="img" aria-label="{label}" width="100%" height="{_HEIGHT}">']
    for count in _count_ticks(most):
        y = _height(count, most)
        parts += [f'<line class="rule" x1="0" x2="100%" y1="{y:.2f}" y2="{y:.2f}" />']
        parts += [f'<text class="faint" x="-8" y="{y:.2f}" dy="0.32em" text-anchor="end">{_count(count)}</text>']
    for left, right, count, range_ in bars:
        start, width, y = f"{left:.3f}%", right - left, min(_height(count, most), _FLOOR - 1.0)  # a pixel is seen
        parts += [f"<g><title>{range_}: {_count(count)} {'row' if count == 1 else 'rows'}</title>"]
        parts += [f'<rect class="hover" x="{start}" y="{_TOP}" width="{width:.3f}%" height="{_FLOOR - _TOP}" />']
        parts += [f'<rect class="bar" x="{start}" y="{y:.2f}" width="{0.92 * width:.3f}%" height="{_FLOOR - y:.2f}" /></g>']
    parts += [f'<line class="axis" x1="0" x2="100%" y1="{_FLOOR}" y2="{_FLOOR}" />']
    ticks = [(axis.at(value), number) for value, number in axis.ticks()]
    if histogram.zeros:
        ticks = [(_ZEROS / 2, "0"), *((x, number) for x, number in ticks if x > 2 * _BESIDE_ZEROS - _ZEROS)]
    for i, (x, number) in enumerate(ticks):
        kind = ' class="odd"' if i % 2 and len(ticks) > 3 else ""
        parts += [f'<g{kind}><line class="axis" x1="{x:.3f}%" x2="{x:.3f}%" y1="{_FLOOR}" y2="{_FLOOR + 4}" />']
        side = "middle" if len(number) < 9 or 5 < x < 95 else "start" if x < 50 else "end"
        parts += [f'<text class="faint" x="{x:.3f}%" y="{_NUMBERS}" text-anchor="{side}">{number}</text></g>']
    marks = sorted([(axis.at(median), "median", median, "mark"), (axis.at(mean), "mean", mean, "mark dashed")])
    for (x, name, value, kind), (level, side) in zip(marks, _labels(marks[0][0], marks[1][0]), strict=True):
        dx = 6 if side == "start" else -6
        parts += [f'<line class="{kind}" x1="{x:.3f}%" x2="{x:.3f}%" y1="{level - 9}" y2="{_FLOOR}" />']
        parts += [
            f'<text class="label" x="{x:.3f}%" y="{level}" dx="{dx}" text-anchor="{side}">{name} {_number(value)}</text>'
        ]
    return "\n".join([*parts, "</svg>\n</figure>"])


def _labels(left: float, right: float) -> tuple[tuple[int, str], tuple[int, str]]:
    """The level and the anchor of the labels of two marks.

    Only the line of the mark with the upper label passes the other label, which therefore points away from it. In a
    narrow window a label takes a third of the width.
    """
    if right < 64:
        return (_UPPER, "start"), (_LOWER, "start")
    return (_LOWER, "end" if left > 36 else "start"), (_UPPER, "end")


def _height(count: int, most: int) -> float:
    """Where a bar of this count ends, in pixels from the top."""
    return _FLOOR - (_FLOOR - _TOP) * count / most


def _round_step(rough: float) -> tuple[int, int]:
    """The least of 1, 2 or 5 times a power of ten that is no less, as digit and exponent."""
    exponent = math.floor(math.log10(rough))
    digit = next((n for n in (1, 2, 5) if n * 10.0**exponent >= rough), 10)
    return (1, exponent + 1) if digit == 10 else (digit, exponent)


def _count_ticks(most: int) -> list[int]:
    """Round counts for the lines behind the bars, four at most."""
    digit, exponent = _round_step(max(most / 4, 1))
    step = digit * 10**exponent
    return [*range(step, most + 1, step)]


# ---- letters ----


def _text(text: str) -> str:
    """The text as HTML that shows it. What cannot be seen or written, but for ends of lines, is shown as in Python."""
    shown = (c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in str(text))
    return escape("".join(shown))


def _number(x: float, digits: int = 6) -> str:
    """The number with so many significant digits; a whole number that is not too long, with all."""
    if math.isnan(x):
        return "—"
    if math.isinf(x):
        return "∞" if x > 0 else "-∞"
    if x == math.floor(x) and abs(x) < 1e7:
        return _count(int(x))
    return _tidy(f"{x:,.{digits}g}")


def _tidy(number: str) -> str:
    """The number without a sign and zeros that its exponent does not need."""
    significand, _, exponent = number.partition("e")
    return f"{significand}e{int(exponent)}" if exponent else significand


def _power(k: int) -> str:
    """A power of ten."""
    return f"{10.0**k:,.{max(0, -k)}f}" if -4 <= k <= 6 else f"1e{k}"


def _count(n: int) -> str:
    return f"{n:,}"
