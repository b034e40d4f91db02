"""The time of a row against its length, and the share of the speed of reading that it amounts to.

Drawn from the part `row_length` of measurements.json: the KL divergence of float64 rows with two threads at most, in
matrices of the same number of entries. Reading takes the same time for rows of any length: what differs is noise, and
shares are of its median speed.
"""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

import stored
import style
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from pathlib import Path


def draw(folder: Path) -> None:
    """Draw row-length.svg."""
    times = stored.figures("row_length")["kl_divergence"]
    lengths = times["columns"]
    reading = median(time / length for time, length in zip(times["reading"], lengths, strict=True))  # of an entry
    shares = {
        name: [100 * reading * length / time for length, time in zip(lengths, times[name], strict=True)]
        for name in style.STYLES
        if name in times
    }
    figure = Figure((8, 3.9), layout="constrained")
    left, right = figure.subplots(1, 2)
    style.lines(left, lengths, times)
    left.plot(lengths, [reading * length for length in lengths], label="reading", **style.LIMIT)
    left.set(title="Time", ylabel="ns a row", yscale="log")
    left.yaxis.set_major_formatter(style.power_of_ten)
    style.lines(right, lengths, shares)
    right.axhline(100, **style.LIMIT)
    right.set(title="Share of the speed of reading", ylabel="%", ylim=(0, None))
    for axes in left, right:
        axes.set(xscale="log", xlabel="entries in a row")
        axes.xaxis.set_major_formatter(style.power_of_ten)
        axes.minorticks_off()
    style.legend(figure, 5)
    stored.note(figure, "row_length")
    style.save(figure, folder / "row-length.svg")
