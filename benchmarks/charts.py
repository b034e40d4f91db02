"""The charts of docs/, from the figures of report.py. Measures nothing.

The same figures give the same files: they have no dates and no random ids.
"""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt

plt.switch_backend("Agg")
plt.rcParams.update(
    {
        "svg.hashsalt": "fastkl",
        "font.size": 9,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": "0.9",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "savefig.facecolor": "white",
    }
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    Figures = list[dict[str, Any]]

# Colours that colour-blind readers can tell apart (Okabe and Ito), and a marker each.
STYLES: dict[str, dict[str, Any]] = {
    "fastkl": {"color": "#D55E00", "marker": "o", "linewidth": 2.5, "zorder": 5},
    "numpy": {"color": "#0072B2", "marker": "s"},
    "numpy zero-safe": {"color": "#56B4E9", "marker": "D"},
    "scipy.special": {"color": "#009E73", "marker": "^"},
    "scipy.stats": {"color": "#66A61E", "marker": "v"},
    "numexpr": {"color": "#CC79A7", "marker": "<"},
    "numba": {"color": "#7A4FA3", "marker": ">"},
    "torch": {"color": "#8C6D31", "marker": "P"},
    "numkong": {"color": "#333333", "marker": "X"},
}
READING_STYLE: dict[str, Any] = {"color": "black", "linestyle": "--", "linewidth": 1.2}
# Drawn in place of an error of 0, which has no logarithm, and of an infinite one.
LEAST_ERROR, LARGEST_ERROR = 1e-18, 1e18


def _save(figure: Figure, name: str, machine: str, folder: Path) -> Iterator[Path]:
    figure.text(0.01, -0.01, "\n".join(textwrap.wrap(machine, 150)), fontsize=7, color="0.35", va="top")
    folder.mkdir(parents=True, exist_ok=True)
    for kind, metadata in (("svg", {"Date": None, "Creator": None}), ("png", {"Software": None})):
        path = folder / f"{name}.{kind}"
        figure.savefig(path, metadata=metadata, bbox_inches="tight", dpi=150)
        yield path
    plt.close(figure)


def _reading(entries: Figures) -> float | None:
    """Return the GB/s of reading in fastkl's turns."""
    first = next((x for x in entries if x["contender"] == "fastkl"), None)
    return first["gb_per_s"] / first["share_of_reading"] if first and first["share_of_reading"] else None


def _throughput(entries: Figures, *, logits: bool) -> Figure:
    """Draw bars of each large case, those of logits or the others, and reading as a line."""
    entries = [x for x in entries if ("logits" in x["case"]) == logits]
    cases = dict.fromkeys(x["case"] for x in entries if x["threads"] > 1)
    figure, grid = plt.subplots(2, (len(cases) + 1) // 2, figsize=(12, 6), layout="constrained", squeeze=False)
    for axes, case in zip(grid.T.flat if len(cases) % 2 else grid.flat, cases, strict=False):
        bars = [x for x in entries if x["case"] == case and x["contender"] in STYLES and x["gb_per_s"]][::-1]
        names = [f"{x['contender']} ({x['threads']})" for x in bars]
        drawn = axes.barh(names, [x["gb_per_s"] for x in bars], color=[STYLES[x["contender"]]["color"] for x in bars])
        texts = [f"{x['gb_per_s']:.1f}, error {x['error_eps']:.2g} ε" for x in bars]
        for label in axes.bar_label(drawn, texts, padding=2, fontsize=7):  # the line of reading may run through it
            label.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 0.5})
        axes.margins(x=0.35)
        if reading := _reading([x for x in entries if x["case"] == case]):
            axes.axvline(reading, **READING_STYLE)
            side = "right" if reading > axes.get_xlim()[1] / 2 else "left"
            axes.text(reading, len(bars) - 0.4, f"reading {reading:.1f}", ha=side, va="bottom", fontsize=7)
        measure, dtype, shape, *_ = case.split("-")
        axes.set_title(f"{measure} {dtype} {shape}", fontsize=9, pad=12)
        axes.set_xlabel("GB of operands per second")
        axes.grid(visible=False, axis="y")
    figure.suptitle(
        "Throughput against the speed of reading; threads used in parentheses, worst relative error in ε of the dtype"
    )
    return figure


def _length(entries: Figures) -> Figure:
    """Draw lines of throughput over the length of rows."""
    figure, axes = plt.subplots(figsize=(9, 5), layout="constrained")
    columns = sorted({x["columns"] for x in entries})
    for name, style in STYLES.items():
        points = [(x["columns"], x["gelem_per_s"]) for x in entries if x["contender"] == name and x["gelem_per_s"]]
        if points:
            axes.plot(*zip(*points, strict=True), label=name, markersize=4, **style)
    reading = [(n, _reading([x for x in entries if x["columns"] == n])) for n in columns]
    if all(speed for _, speed in reading):
        # Converts bytes a second to entries a second, by fastkl's two figures.
        scale = next(x["gelem_per_s"] / x["gb_per_s"] for x in entries if x["contender"] == "fastkl")
        axes.plot(columns, [speed * scale for _, speed in reading if speed], label="reading", **READING_STYLE)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xlabel("entries in a row (the matrices have the same number of entries)")
    axes.set_ylabel("10⁹ entries per second")
    measure, dtype, *_, threads = entries[0]["case"].split("-")
    axes.set_title(f"Throughput against row length: {measure}, {dtype}, {threads.replace('threads', ' threads')} at most")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return figure


def _widths(entries: Figures) -> Figure:
    """Draw lines of the nanoseconds of a row over its length, one panel a measure."""
    measures = dict.fromkeys(x["measure"] for x in entries)
    figure, grid = plt.subplots(1, len(measures), figsize=(13, 4.5), layout="constrained", sharey=True, squeeze=False)
    for axes, measure in zip(grid.flat, measures, strict=True):
        for name, style in STYLES.items():
            here = [x for x in entries if (x["contender"], x["measure"]) == (name, measure) and x["seconds"]]
            if here:
                points = [(x["columns"], x["seconds"] / x["rows"] * 1e9) for x in here]
                axes.plot(*zip(*points, strict=True), label=name, markersize=4, **style)
        axes.set(xscale="log", yscale="log", xlabel="entries in a row", title=measure)
    grid[0, 0].set_ylabel("ns a row")
    # The measures of logits have fewer contenders.
    lines, names = max((axes.get_legend_handles_labels() for axes in grid.flat), key=lambda pair: len(pair[0]))
    grid[0, -1].legend(lines, names, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    figure.suptitle("Time of a row against its length: float32, one thread")
    return figure


def _error_panel(axes: Axes, entries: Figures) -> None:
    for name, style in STYLES.items():
        points = [x for x in entries if x["contender"] == name]
        if not points:
            continue
        x = [point["divergence"] for point in points]
        y = [min(max(point["error"], LEAST_ERROR), LARGEST_ERROR) for point in points]
        axes.plot(x, y, label=name, markersize=4, **style)
        below = [i for i, point in enumerate(points) if point["negative"]]
        axes.scatter([x[i] for i in below], [y[i] for i in below], s=90, facecolors="none", edgecolors="red", zorder=6)
    axes.axhline(1, color="0.4", linewidth=0.8)
    axes.text(axes.get_xlim()[1], 1.3, "an error as large as D ", ha="left", va="bottom", fontsize=7, color="0.4")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.invert_xaxis()
    axes.set_xlabel("D(p‖q) in nats: further right, p and q agree more nearly")


def _error(entries: Figures) -> Figure:
    """Draw lines of error over divergence, one panel a dtype."""
    dtypes = dict.fromkeys(x["dtype"] for x in entries)
    figure, grid = plt.subplots(1, len(dtypes), figsize=(12, 5), layout="constrained", sharey=True, squeeze=False)
    for axes, dtype in zip(grid.flat, dtypes, strict=True):
        _error_panel(axes, [x for x in entries if x["dtype"] == dtype])
        axes.set_title(dtype)
    grid[0, 0].set_ylabel("worst relative error of D")
    grid[0, -1].scatter([], [], s=90, facecolors="none", edgecolors="red", label="some results negative")
    grid[0, -1].legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    figure.suptitle("Error of the KL divergence of rows of 1000 against a double-double reference")
    return figure


def draw(report: dict[str, Any], folder: Path) -> Iterator[Path]:
    """Draw all charts; return the files."""
    for name, figure in (
        ("throughput", _throughput(report["entries"], logits=False)),
        ("logits", _throughput(report["entries"], logits=True)),
        ("row-length", _length(report["lengths"])),
        ("short-rows", _widths(report["widths"])),
        ("error", _error(report["errors"])),
    ):
        yield from _save(figure, name, report["machine"], folder)
