"""The distances of all topics of two runs of examples/topic_models.py, with partners on the diagonal."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import style
from matplotlib.figure import Figure

sys.path.append(str(Path(__file__).parents[2] / "examples"))

import topic_models

DARK = 0.62  # where the cells below are dark, and their numbers white


def draw(folder: Path) -> None:
    """Draw tutorial_topic_models.svg."""
    counts, words = topic_models.counted()
    first, second = (topic_models.model(counts, seed).topics for seed in (0, 1))
    distances, partners = topic_models.matched(first, second)
    order = np.argsort(distances[range(len(partners)), partners])
    cells = distances[np.ix_(order, partners[order])]
    figure = Figure((8, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.imshow(cells, cmap="cividis", vmin=0.4, vmax=0.9, aspect="auto")
    for (row, column), distance in np.ndenumerate(cells):
        weight = "bold" if row == column else "normal"
        colour = "white" if distance < DARK else "black"
        axes.text(column, row, f"{distance:.2f}", ha="center", va="center", color=colour, weight=weight, fontsize=8)
    for ticks, topics in (axes.set_yticks, first[order]), (axes.set_xticks, second[partners[order]]):
        ticks(range(len(cells)), [", ".join(words[np.argsort(topic)[:-3:-1]]) for topic in topics])
    axes.tick_params(axis="x", rotation=30)
    for label in axes.get_xticklabels():
        label.set_horizontalalignment("right")
    axes.set(xlabel="topics of the second run", ylabel="topics of the first run")
    axes.grid(visible=False)
    style.save(figure, folder / "tutorial_topic_models.svg")
