"""Draws the pictures of the documentation: `python docs/plots/draw.py`, which the build of the site does, too.

A module of this folder that has a function `draw(folder)` draws a picture, and its docstring says what that shows and where
the numbers come from. What they have in common is in style.py and stored.py. The repository keeps one picture alone,
docs/pictures/report.png: report_screenshot.py makes it with a browser, which the build does without.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import matplotlib as mpl
import style

PLOTS = Path(__file__).parent
PICTURES = PLOTS.parent / "pictures"


def draw_all(folder: Path = PICTURES) -> None:
    """Draw every picture into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(PLOTS.glob("*.py")):
        draw = getattr(import_module(path.stem), "draw", None)
        if draw:
            with mpl.rc_context(style.SETTINGS):
                draw(folder)


if __name__ == "__main__":
    draw_all()
