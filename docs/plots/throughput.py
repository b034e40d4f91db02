"""The throughput of every contender as a share of the speed of reading, in matrices that do not fit in caches.

Drawn from the part `throughput` of measurements.json: a panel for each measure and dtype, with each contender's threads,
gigabytes of operands a second, and worst relative error on the same data.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import stored
import style
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes

COLUMNS = 2


def panel(axes: Axes, title: str, figures: dict[str, dict[str, Any]]) -> None:
    """Draw the bars of a case, in the order of the styles from the top."""
    reading = figures["reading"]["gb_per_s"]
    names = [name for name in style.STYLES if name in figures][::-1]
    threads = [f"{name} ({figures[name]['threads']})" for name in names]
    shares = [figures[name]["gb_per_s"] / reading for name in names]
    axes.barh(threads, shares, color=[style.STYLES[name]["color"] for name in names])
    axes.axvline(1, **style.LIMIT)
    for place, name in enumerate(names):
        text = f"{figures[name]['gb_per_s']:.1f} GB/s, {figures[name]['error_eps']:.2g} ε"
        axes.text(1.04, place, text, va="center", fontsize=8)
    axes.text(1.04, len(names), f"{reading:.1f} GB/s: reading", va="center", fontsize=8)
    axes.set(title=title, xlim=(0, 1.85), ylim=(-0.6, len(names) + 0.4))
    axes.set_xticks([0, 0.5, 1], ["0 %", "50 %", "100 %"])
    axes.spines["bottom"].set_bounds(0, 1)
    axes.grid(visible=False, axis="y")


def draw(folder: Path) -> None:
    """Draw throughput.svg."""
    cases = stored.figures("throughput")
    rows = -(-len(cases) // COLUMNS)
    figure = Figure((8, 2.3 * rows), layout="constrained")
    grid = figure.subplots(rows, COLUMNS, squeeze=False)
    measures = [title.partition(",")[0] for title in cases]
    for axes, title in zip(grid.flat, sorted(cases, key=lambda x: measures.index(x.partition(",")[0])), strict=False):
        panel(axes, title, cases[title])
    for axes in grid.flat[len(cases) :]:
        axes.remove()
    stored.note(figure, "throughput", "In parentheses, the number of threads; errors in ε of the dtype. ")
    style.save(figure, folder / "throughput.svg")
