"""The way of a call through fastkl: a box for each layer, from the documented functions to the maths of a pair of entries.

Drawn from the lists below. Beside an arrow downwards stands what a layer passes on, beside one upwards what comes back. The
boxes on the left are what calls a layer besides the layer above it.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, NamedTuple

import style

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Layer(NamedTuple):
    """A box: its files; what it does, in two lines; what it passes on, and what comes back."""

    name: str
    does: tuple[str, str]
    down: str = ""
    back: str = ""


class Caller(NamedTuple):
    """A box on the left: its files, what it does, the layer that it stands beside and the layer that it calls."""

    name: str
    does: tuple[str, str]
    beside: int
    calls: int


LAYERS = [
    Layer(
        "measures.py",
        ("a documented function for each measure,", "which fills a Request with its arguments"),
        "Request with the given operands",
        "result of the operands' kind",
    ),
    Layer(
        "containers/",
        ("views operands of other libraries as arrays;", "plain NumPy arrays do not come here"),
        "Request with NumPy arrays",
        "NumPy array",
    ),
    Layer(
        "call.py",
        ("checks arguments and dtypes, aligns rows;", "raises InvalidRowError, which names the row"),
        "Request, checked and aligned",
        "values; first invalid row",
    ),
    Layer(
        "_kernels.pyx",
        ("cuts the call into blocks of rows for threads,", "without the GIL; polls signals between regions"),
        "some rows: addresses, strides, dtypes",
        "values and status of rows",
    ),
    Layer(
        "_core/rows",
        ("makes a pass over each row, with the SIMD tier", "in use; a rescaled pass or the fallback, if needed"),
        "pairs of entries, one in each lane",
        "sums of rows",
    ),
    Layer(
        "_core/measures",
        ("what a pair of entries adds to the sums;", "finish: the value that the sums stand for"),
        "p and q",
        "log(p/q), p log(p/q) - (p - q)",
    ),
    Layer(
        "_core/logratio", ("the logarithm of one ratio, in full accuracy,", "as scalar code that the compiler vectorises")
    ),
]
CALLERS = [
    Caller("batch/", ("score of files, and what", "the fastkl command does"), 1, 2),
    Caller("compat/", ("functions of SciPy,", "scikit-learn and torch"), 2, 2),
    Caller("capi.py, .pxd, C header", ("rows of compiled callers,", "without Python"), 3, 3),
]

WIDTH, BOX, SIDE, HEIGHT, GAP = 770, (232, 346), (2, 186), 62, 34
STEP = HEIGHT + GAP
CSS = f"""
text {{ font: 13px sans-serif; fill: {style.TEXT}; }}
.name {{ font-weight: bold; }}
.passed {{ font-style: italic; }}
rect, path {{ fill: none; stroke: {style.TEXT}; stroke-width: 1.3; }}
.core {{ stroke: {style.STYLES["fastkl"]["color"]}; }}
.python {{ stroke: {style.STYLES["numpy"]["color"]}; }}
"""


def text(x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> str:
    """Return a line of text."""
    return f'<text x="{x}" y="{y}" class="{kind}" text-anchor="{anchor}">{escape(words)}</text>'


def box(left: int, width: int, top: int, lines: tuple[str, ...], kind: str) -> Iterator[str]:
    """Return a box with its name and what it does."""
    yield f'<rect x="{left}" y="{top}" width="{width}" height="{HEIGHT}" rx="6" class="{kind}"/>'
    for i, line in enumerate(lines):
        yield text(left + width / 2, top + 19 + 17 * i, line, "name" if i == 0 else "", "middle")


def arrow(path: str, dashes: str = "none") -> str:
    """Return a line with a head at its end."""
    return f'<path d="{path}" marker-end="url(#head)" stroke-dasharray="{dashes}"/>'


def elements() -> Iterator[str]:
    """Return the elements of the picture."""
    left, width = BOX
    tops = [6 + i * STEP for i in range(len(LAYERS))]
    for top, layer in zip(tops, LAYERS, strict=True):
        yield from box(left, width, top, (layer.name, *layer.does), "core" if "_core" in layer.name else "python")
    for top, layer in zip(tops, LAYERS[:-1], strict=False):
        bottom, end = top + HEIGHT, top + STEP
        yield arrow(f"M {left + 70} {bottom + 2} V {end - 3}")
        yield text(left + 78, bottom + GAP / 2 + 5, layer.down, "passed")
        yield arrow(f"M {left + width - 10} {end - 2} V {bottom + 3}")
        yield text(left + width, bottom + GAP / 2 + 5, layer.back, "passed")
    for caller in CALLERS:
        yield from box(*SIDE, tops[caller.beside], (caller.name, *caller.does), "")
        start, end = (tops[i] + HEIGHT / 2 for i in (caller.beside, caller.calls))
        yield arrow(f"M {sum(SIDE)} {start} h 12 V {end} H {left - 3}")
    # A call with NumPy arrays goes past the containers.
    yield arrow(f"M {left} {tops[0] + HEIGHT * 0.8} h -16 V {tops[2] + HEIGHT * 0.2} H {left - 3}", "5 3")


def draw(folder: Path) -> None:
    """Draw call.svg."""
    height = len(LAYERS) * STEP - GAP + 12
    head = '<marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}">',
        f"<style>{CSS}</style>",
        f'<defs>{head}<path d="M 1 1 L 7 4 L 1 7" style="stroke-dasharray: none"/></marker></defs>',
        *elements(),
        "</svg>",
    ]
    (folder / "call.svg").write_text("\n".join(lines) + "\n", encoding="utf-8")
