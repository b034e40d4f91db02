"""The time of a short row against its length, of probabilities, of logits, and of logits and labels.

Drawn from the part `short_rows` of measurements.json: float32 rows with one thread, in matrices of the same number of
entries.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import stored
import style
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from pathlib import Path

TITLES = {"kl_divergence": "KL", "kl_from_logits": "KL from logits", "labels_from_logits": "nll from logits"}


def draw(folder: Path) -> None:
    """Draw short-rows.svg."""
    measures = stored.figures("short_rows")
    figure = Figure((8, 3.8), layout="constrained")
    for axes, (measure, times) in zip(figure.subplots(1, len(measures), sharey=True), measures.items(), strict=True):
        style.lines(axes, times["columns"], times)
        axes.plot(times["columns"], times["reading"], label="reading", **style.LIMIT)
        axes.set(title=TITLES[measure], xscale="log", yscale="log", xlabel="entries in a row")
        for axis in axes.xaxis, axes.yaxis:
            axis.set_major_formatter(style.power_of_ten)
        axes.minorticks_off()
    figure.axes[0].set_ylabel("ns a row")
    style.legend(figure, 5)
    stored.note(figure, "short_rows")
    style.save(figure, folder / "short-rows.svg")
