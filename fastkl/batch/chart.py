"""The chart of a report: a histogram as SVG, with an axis of round numbers and the places of median and mean.

It is drawn for windows of any width: horizontal places are percentages, so that a narrow chart keeps the size of its text.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from .histogram import Histogram

# In pixels from the top:
UPPER, LOWER = 12, 29  # the labels of median and mean
TOP, FLOOR = 42, 222  # the bars
NUMBERS: Final = 240  # the numbers of the axis
_HEIGHT: Final = 246
# In percent of the width:
ZEROS: Final = 4.0  # the width of the bar of zeros
BESIDE_ZEROS: Final = 7.0  # where a logarithmic axis begins beside that bar
_SINGLE: Final = 8.0  # the width of the bar of a single value


class Axis(NamedTuple):
    """The horizontal axis: the places of values."""

    low: float
    high: float
    logarithmic: bool
    start: float  # percent of the width at which `low` is

    def at(self, value: float) -> float:
        """The place of the value, in percent of the width."""
        if self.low == self.high:
            return 50.0
        if self.logarithmic:
            if value < self.low:  # a zero, or a mean of many of them
                return ZEROS / 2 if value <= 0 else (ZEROS + self.start) / 2
            low, high, value = math.log(self.low), math.log(self.high), math.log(value)
        else:
            size = max(abs(self.low), abs(self.high))  # so that no difference overflows
            low, high, value = self.low / size, self.high / size, value / size
        return self.start + (100 - self.start) * (value - low) / (high - low)

    def ticks(self) -> list[tuple[float, str]]:
        """Round values on the axis, about seven at most, as numbers and as text."""
        if self.logarithmic:
            first, last = math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9)
            step = next(n for n in (1, 2, 3, 5, 10, 20, 50, 100, 200) if last - first <= 6 * n)
            powers = range(-(-first // step) * step, last + 1, step)
            return [(10.0**k, f"{10.0**k:,.{max(0, -k)}f}" if -4 <= k <= 6 else f"1e{k}") for k in powers]
        size = max(abs(self.low), abs(self.high))
        rough = self.high / 6 - self.low / 6
        if rough < 1e-12 * size or size < 1e-290:  # one value, or values with too many equal digits
            return [(x, _tidy(repr(x))) for x in sorted({self.low, self.high})]
        digits, exponent = _round_step(rough)
        unit = digits * 10.0**exponent
        multiples = range(math.ceil(self.low / unit), math.floor(self.high / unit) + 1)
        numbers = [float(f"{k * digits}e{exponent}") for k in multiples]
        if 1e-4 <= size < 1e7:
            return [(x, f"{x:,.{max(0, -exponent)}f}") for x in numbers]
        return [(x, number(x, max(1, math.ceil(math.log10(size)) - exponent + 1))) for x in numbers]


def figure(what: str, result: Mapping[str, Any], histogram: Histogram) -> str:
    """The histogram as SVG; its name `what` is already escaped."""
    edges, counts = histogram.edges.tolist(), histogram.counts.tolist()
    if not edges:
        return '<p class="none">no finite value</p>'
    axis = Axis(edges[0], edges[-1], histogram.logarithmic, BESIDE_ZEROS if histogram.zeros else 0.0)
    bars = [(0.0, ZEROS, histogram.zeros, "0")] if histogram.zeros else []
    for low, high, count in zip(edges, edges[1:], counts, strict=False):
        left, right = axis.at(low), axis.at(high)
        if low == high:
            bars += [(left - _SINGLE / 2, left + _SINGLE / 2, count, number(low))]
        elif count:
            bars += [(left, right, count, f"{number(low)} to {number(high)}")]
    finite, most = sum(counts) + histogram.zeros, max(count for _, _, count, _ in bars)
    mean, median = result["mean"], result["quantiles"]["0.5"]
    least = 0.0 if histogram.zeros else edges[0]
    label = (
        f"Histogram of {finite:,} finite values of {what}, from {number(least)} to "
        f"{number(edges[-1])}; median {number(median)}, mean {number(mean)}"
    )
    parts = [f'<figure>\n<svg role="img" aria-label="{label}" width="100%" height="{_HEIGHT}">']
    digit, exponent = _round_step(max(most / 4, 1))  # four lines at most
    step, pixels = digit * 10**exponent, (FLOOR - TOP) / most
    for count in range(step, most + 1, step):
        y = FLOOR - count * pixels
        parts += [f'<line class="rule" x1="0" x2="100%" y1="{y:.2f}" y2="{y:.2f}" />']
        parts += [f'<text class="faint" x="-8" y="{y:.2f}" dy="0.32em" text-anchor="end">{count:,}</text>']
    for left, right, count, range_ in bars:
        start, width, y = f"{left:.3f}%", right - left, FLOOR - max(count * pixels, 1)  # one pixel is visible
        parts += [f"<g><title>{range_}: {count:,} {'row' if count == 1 else 'rows'}</title>"]
        parts += [f'<rect class="hover" x="{start}" y="{TOP}" width="{width:.3f}%" height="{FLOOR - TOP}" />']
        parts += [f'<rect class="bar" x="{start}" y="{y:.2f}" width="{0.92 * width:.3f}%" height="{FLOOR - y:.2f}" /></g>']
    parts += [f'<line class="axis" x1="0" x2="100%" y1="{FLOOR}" y2="{FLOOR}" />']
    ticks = [(axis.at(value), shown) for value, shown in axis.ticks()]
    if histogram.zeros:
        ticks = [(ZEROS / 2, "0"), *((x, shown) for x, shown in ticks if x > 2 * BESIDE_ZEROS - ZEROS)]
    for i, (x, shown) in enumerate(ticks):
        kind = ' class="odd"' if i % 2 and len(ticks) > 3 else ""
        parts += [f'<g{kind}><line class="axis" x1="{x:.3f}%" x2="{x:.3f}%" y1="{FLOOR}" y2="{FLOOR + 4}" />']
        side = "middle" if len(shown) < 9 or 5 < x < 95 else "start" if x < 50 else "end"
        parts += [f'<text class="faint" x="{x:.3f}%" y="{NUMBERS}" text-anchor="{side}">{shown}</text></g>']
    marks = sorted([(axis.at(median), "median", median, "mark"), (axis.at(mean), "mean", mean, "mark dashed")])
    for (x, name, value, kind), (level, side) in zip(marks, place_labels(marks[0][0], marks[1][0]), strict=True):
        dx = 6 if side == "start" else -6
        parts += [f'<line class="{kind}" x1="{x:.3f}%" x2="{x:.3f}%" y1="{level - 9}" y2="{FLOOR}" />']
        text = f"{name} {number(value)}"
        parts += [f'<text class="label" x="{x:.3f}%" y="{level}" dx="{dx}" text-anchor="{side}">{text}</text>']
    return "\n".join([*parts, "</svg>\n</figure>"])


def place_labels(left: float, right: float) -> tuple[tuple[int, str], tuple[int, str]]:
    """The level and the anchor of the labels of two marks.

    Only the line of the mark with the upper label passes the other label, which therefore points away from it. In a
    narrow window a label takes a third of the width.
    """
    if right < 64:
        return (UPPER, "start"), (LOWER, "start")
    return (LOWER, "end" if left > 36 else "start"), (UPPER, "end")


def _round_step(rough: float) -> tuple[int, int]:
    """The smallest of 1, 2 or 5 times a power of ten that is not below `rough`, as digit and exponent."""
    exponent = math.floor(math.log10(rough))
    digit = next((n for n in (1, 2, 5) if n * 10.0**exponent >= rough), 10)
    return (1, exponent + 1) if digit == 10 else (digit, exponent)


def number(x: float, digits: int = 6) -> str:
    """The number with that many significant digits; an integer that is not too long has all its digits."""
    if math.isnan(x):
        return "—"
    if math.isinf(x):
        return "∞" if x > 0 else "-∞"
    if x == math.floor(x) and abs(x) < 1e7:
        return f"{int(x):,}"
    return _tidy(f"{x:,.{digits}g}")


def _tidy(decimal: str) -> str:
    """The number without the sign and the zeros that its exponent does not need."""
    significand, _, exponent = decimal.partition("e")
    return f"{significand}e{int(exponent)}" if exponent else significand
