"""The relative error of the KL divergence against its size, of fastkl and of what else a user could take.

Drawn from nothing stored: for sizes from 1 to 1e-16, 10 pairs of rows of 100 entries are computed by every library that is
installed, and by mpmath with 50 digits. The worst relative error of the 10 is drawn. The reference is D(p/Σp ‖ q/Σq) of the
entries as they are after rounding to the dtype.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
import style
from matplotlib.figure import Figure
from mpmath import mp, mpf

import fastkl

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Array = np.ndarray[Any, Any]

SIZES = np.logspace(0, -16, 17)
ROWS, ENTRIES = 10, 100
BOUND = 4  # in ε D: docs/guide/accuracy.md
LEAST = 1e-18  # drawn in place of an error of 0, which has no logarithm


def contenders() -> dict[str, Callable[[Array, Array], Array]]:
    """Return the installed libraries' functions of rows."""
    found: dict[str, Callable[[Array, Array], Array]] = {
        "fastkl": fastkl.kl_divergence,
        "numpy": lambda p, q: (p * np.log(p / q)).sum(axis=1),
    }
    if find_spec("scipy"):
        special, stats = import_module("scipy.special"), import_module("scipy.stats")
        found["scipy.special"] = lambda p, q: special.rel_entr(p, q).sum(axis=1)
        found["scipy.stats"] = lambda p, q: stats.entropy(p, q, axis=1)
    if find_spec("torch"):
        torch = import_module("torch")
        kl_div, tensor = torch.nn.functional.kl_div, torch.from_numpy
        found["torch"] = lambda p, q: kl_div(tensor(q).log(), tensor(p), reduction="none").sum(1).numpy()
    return found


def pair(rng: np.random.Generator, size: float, dtype: str) -> tuple[Array, Array]:
    """Return rows p, and q near p: D(p‖q) is about `size`. A pair that rounding makes equal is left out."""
    p = rng.random((ROWS, ENTRIES)) + 1e-3
    p = (p / p.sum(axis=1, keepdims=True)).astype(dtype)
    q = p * np.exp(np.sqrt(2 * size) * rng.standard_normal(p.shape))
    q = (q / q.sum(axis=1, keepdims=True)).astype(dtype)
    differ = (p != q).any(axis=1)
    return p[differ], q[differ]


def exact(p: Array, q: Array) -> mpf:
    """Return D(p/Σp ‖ q/Σq) of a row, to 50 digits less those that cancel, 16 at most."""
    x, y = ([mpf(float(value)) for value in row] for row in (p, q))
    return mp.fsum(a * mp.log(a / b) for a, b in zip(x, y, strict=True)) / mp.fsum(x) - mp.log(mp.fsum(x) / mp.fsum(y))


def errors(dtype: str) -> tuple[list[float], dict[str, list[float]], dict[str, list[bool]]]:
    """Return the median divergence of each size; the worst error of each contender, and whether a value was negative."""
    functions = contenders()
    sizes: list[float] = []
    worst: dict[str, list[float]] = {name: [] for name in functions}
    negative: dict[str, list[bool]] = {name: [] for name in functions}
    rng = np.random.default_rng(1)
    for size in SIZES:
        p, q = pair(rng, size, dtype)
        with mp.workdps(50):
            true = [exact(*rows) for rows in zip(p, q, strict=True)]
            sizes.append(float(np.median([float(value) for value in true])))
            for name, function in functions.items():
                values = function(p, q)
                error = max(abs(mpf(float(value)) / d - 1) for value, d in zip(values, true, strict=True))
                worst[name].append(max(float(error), LEAST))
                negative[name].append(bool((values < 0).any()))
    return sizes, worst, negative


def draw(folder: Path) -> None:
    """Draw error.svg."""
    figure = Figure((8, 3.9), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, dtype in zip(panels, ("float64", "float32"), strict=True):
        sizes, worst, negative = errors(dtype)
        style.lines(axes, sizes, worst)
        for name, flags in negative.items():
            marked = [(x, y) for x, y, below in zip(sizes, worst[name], flags, strict=True) if below]
            if marked:
                ring = {"s": 60, "facecolors": "none", "edgecolors": style.NEGATIVE, "linewidths": 1.2, "zorder": 6}
                axes.scatter(*zip(*marked, strict=True), label="a result is negative", **ring)
        axes.axhline(BOUND * np.finfo(dtype).eps, label=f"fastkl's bound, {BOUND} ε", **style.LIMIT)
        axes.axhline(1, color=style.TEXT, linewidth=0.8)
        axes.set(xscale="log", yscale="log", title=dtype, xlabel="D(p‖q) in nats: smaller to the right")
        axes.set_xticks(SIZES[::4])
        axes.set_yticks(np.logspace(-15, 9, 9))
        for axis in axes.xaxis, axes.yaxis:
            axis.set_major_formatter(style.power_of_ten)
        axes.minorticks_off()
        axes.invert_xaxis()
    panels[0].text(1, 1.7, "as large as D", va="bottom")
    panels[0].set_ylabel("worst relative error of D")
    style.legend(figure, 4)
    style.save(figure, folder / "error.svg")
