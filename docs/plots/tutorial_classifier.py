"""The three digits that a new version of a classifier predicts worse than the old one, by the most.

The versions are those of docs/tutorials/classifier.md, which trains them in the same way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import style
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits  # it comes with scikit-learn

import fastkl

if TYPE_CHECKING:
    from pathlib import Path

SHOWN = 3  # images
VERSIONS = {"old version": (300, "#0072b2", -0.2), "new version": (900, "#d55e00", 0.2)}  # images learned, colour, place


def draw(folder: Path) -> None:
    """Draw tutorial_classifier.svg."""
    images, digits = load_digits(return_X_y=True)
    images = images / 16
    held_out, labels = images[900:], digits[900:]
    with threadpool_limits(1, user_api="blas"):  # products are small
        versions = {
            name: LogisticRegression(max_iter=1000, tol=1e-6).fit(images[:rows], digits[:rows])
            for name, (rows, _, _) in VERSIONS.items()
        }
    logits = [version.decision_function(held_out) for version in versions.values()]
    result = fastkl.compare(*logits, labels, from_logits=True)
    worse = np.argsort(result.nll_q - result.nll_p)[: -SHOWN - 1 : -1]
    figure = Figure((8, 3.6), layout="constrained")
    axes = figure.subplots(2, SHOWN, height_ratios=(1, 1.4))
    for row, image, bars in zip(worse, *axes, strict=True):
        image.imshow(held_out[row].reshape(8, 8), cmap="gray_r", vmin=0, vmax=1)
        image.set(title=f"row {row}, digit {labels[row]}", xticks=[], yticks=[])
        image.grid(visible=False)
        for name, (_, colour, place) in VERSIONS.items():
            shares = versions[name].predict_proba(held_out[[row]])[0]
            bars.bar(np.arange(10) + place, shares, 0.4, color=colour, label=name)
        bars.set(xticks=range(10), xlabel="predicted digit", ylim=(0, 1))
        bars.grid(visible=False, axis="x")
        bars.get_xticklabels()[labels[row]].set_fontweight("bold")
    axes[1, 0].set_ylabel("probability")
    style.legend(figure, 2)
    style.save(figure, folder / "tutorial_classifier.svg")
