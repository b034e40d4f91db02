"""Draws the pictures of the documentation: `python docs/plots/draw.py`, which the build of the site does, too.

A module of this folder draws one picture, and its docstring says what that shows and where the numbers come from. What they
have in common is in style.py and stored.py. docs/pictures/report.png alone is kept in the repository, because it needs a
browser: report_screenshot.py makes it.
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib as mpl

sys.path.insert(0, str(Path(__file__).parent))

import call
import error
import row_length
import short_rows
import style
import throughput

PICTURES = Path(__file__).parents[1] / "pictures"


def draw_all(folder: Path = PICTURES) -> None:
    """Draw every picture into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with mpl.rc_context(style.SETTINGS):
        for module in call, error, row_length, short_rows, throughput:
            module.draw(folder)


if __name__ == "__main__":
    draw_all()
