"""Accuracy against labels for the strategies of examples/active_learning.py.

The lines are means of six splits, the bands standard errors of mean differences of pairs.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import style
from matplotlib.figure import Figure

sys.path.append(str(Path(__file__).parents[2] / "examples"))

import active_learning

LINES = {
    "random": {"color": style.TEXT, "marker": "s", "linestyle": "--"},
    "entropy": {"color": "#d55e00", "marker": "o"},
    "committee": {"color": "#0072b2", "marker": "^"},
}


def draw(folder: Path) -> None:
    """Draw tutorial_active_learning.svg."""
    found = active_learning.learned()
    labels = active_learning.BATCH * (1 + np.arange(active_learning.ROUNDS))
    figure = Figure((8, 3.6), layout="constrained")
    accuracy, difference = figure.subplots(1, 2)
    for name, line in LINES.items():
        accuracy.plot(labels, 100 * found[name].mean(axis=0), label=name, **line)
        gain = 100 * (found[name] - found["random"])
        error = gain.std(axis=0, ddof=1) / np.sqrt(len(gain))
        difference.plot(labels, gain.mean(axis=0), **line)
        difference.fill_between(
            labels, gain.mean(axis=0) - error, gain.mean(axis=0) + error, color=line["color"], alpha=0.25
        )
    accuracy.set(xlabel="labels", ylabel="accuracy in %", ylim=(60, 100))
    difference.set(xlabel="labels", ylabel="points above random")
    style.legend(figure, len(LINES))
    style.save(figure, folder / "tutorial_active_learning.svg")
