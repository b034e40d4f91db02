"""What the plots have in common: colours, markers, fonts, and how a figure is saved. Knows nothing of figures and data.

A picture has no background, and stands on the site's white and on its dark page, so every colour has a contrast of 3 to
both, that of text 4. The colours are near those of Okabe and Ito, which colour-blind readers can tell apart, and contenders
differ by their markers, too. Text stays text, in a font of the reader's. The same figures give the same file: it has no
date and no random names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TEXT = "#7a7a7a"
NEGATIVE = "#e03c31"
STYLES: dict[str, dict[str, Any]] = {
    "fastkl": {"color": "#d55e00", "marker": "o", "linewidth": 2.5, "zorder": 5},
    "numpy": {"color": "#0072b2", "marker": "s"},
    "numpy zero-safe": {"color": "#3e93c4", "marker": "D"},
    "scipy.special": {"color": "#009e73", "marker": "^"},
    "scipy.stats": {"color": "#5e9a1c", "marker": "v"},
    "numexpr": {"color": "#c56f9f", "marker": "<"},
    "numba": {"color": "#8a5fb5", "marker": ">"},
    "torch": {"color": "#9a7836", "marker": "P"},
    "numkong": {"color": "#808080", "marker": "X"},
}
# What is no contender: the speed of reading, a bound.
LIMIT: dict[str, Any] = {"color": TEXT, "linestyle": "--", "linewidth": 1.2}

SETTINGS = {
    "svg.hashsalt": "fastkl",
    "svg.fonttype": "none",
    "savefig.transparent": True,
    "font.sans-serif": ["DejaVu Sans"],  # what measures the text; a reader without it sees another
    "font.size": 9,
    "text.color": TEXT,
    "axes.labelcolor": TEXT,
    "axes.edgecolor": TEXT,
    "axes.titlesize": 10,
    "xtick.color": TEXT,
    "ytick.color": TEXT,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": TEXT,
    "grid.alpha": 0.25,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "lines.markersize": 4,
    "legend.frameon": False,
}
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def power_of_ten(value: float, _position: int = 0) -> str:
    """Return a tick's label as plain text, such as 10⁻³: mathematical text would be placed letter by letter."""
    exponent = f"{value:e}".partition("e")[2]
    return "10" + str(int(exponent)).translate(SUPERSCRIPTS)


def lines(axes: Axes, x: list[float], values: dict[str, list[float]]) -> None:
    """Draw the contenders' values over x, in the order of STYLES."""
    for name, style in STYLES.items():
        if name in values:
            axes.plot(x, values[name], label=name, **style)


def legend(figure: Figure, columns: int) -> None:
    """Put one legend for all axes above them: every label once."""
    found = {label: handle for axes in figure.axes for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(found.values(), found.keys(), loc="lower center", bbox_to_anchor=(0.5, 1), ncols=columns)


def save(figure: Figure, path: Path) -> None:
    """Write the figure, and what stands above and below it, as SVG."""
    figure.savefig(path, metadata={"Date": None, "Creator": None}, bbox_inches="tight", pad_inches=0.06)
