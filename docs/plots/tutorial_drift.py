"""PSI of every batch of examples/drift.py, and the usual thresholds: when features begin to drift, and which do not.

The lines are means of 20 batches, the dots every fifth batch.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import style
from matplotlib.figure import Figure

sys.path.append(str(Path(__file__).parents[2] / "examples"))

import drift

FEATURES = {"mean radius": "#d55e00", "mean concavity": "#0072b2", "mean texture": "#009e73", "mean symmetry": "#c56f9f"}
TOGETHER = 20  # batches


def draw(folder: Path) -> None:
    """Draw tutorial_drift.svg."""
    found = drift.drift()
    figure = Figure((8, 3.6), layout="constrained")
    axes = figure.subplots()
    for name, colour in FEATURES.items():
        psi = found.psi_of_batches[:, found.names.index(name)]
        axes.plot(np.arange(len(psi))[::5], psi[::5], ".", color=colour, markersize=2.5, alpha=0.6)
        means = psi.reshape(-1, TOGETHER).mean(axis=1)
        axes.plot((np.arange(len(means)) + 0.5) * TOGETHER, means, color=colour, linewidth=2, label=name)
    for threshold in drift.THRESHOLDS:
        axes.axhline(threshold, **style.LIMIT)
        axes.annotate(f"{threshold}", (1005, threshold), va="center", annotation_clip=False)
    axes.set(xlabel="batch", ylabel="PSI", xlim=(0, 1000), ylim=(0, 1.5))
    style.legend(figure, len(FEATURES))
    style.save(figure, folder / "tutorial_drift.svg")
