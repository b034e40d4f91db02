"""The stored measurements, which the pictures of times are drawn from: a machine that builds the site has other work, too.

measurements.json holds what `python benchmarks/report.py --save` measured: each part with its command, date and machine.
"""

from __future__ import annotations

import json
import re
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MEASUREMENTS = Path(__file__).with_name("measurements.json")


def figures(part: str) -> dict[str, Any]:
    """Return the figures of a part."""
    found: dict[str, Any] = json.loads(MEASUREMENTS.read_text(encoding="utf-8"))[part]["figures"]
    return found


def note(figure: Figure, part: str, first: str = "") -> None:
    """Say below the figure, after other words, when and on what the part was measured."""
    kept = json.loads(MEASUREMENTS.read_text(encoding="utf-8"))[part]
    machine = re.sub(r" with [^,;]*", "", kept["machine"])  # the list of vector instructions
    lines = textwrap.wrap(f"{first}Measured on {kept['measured']}: {machine}", 125)
    figure.text(0.01, -0.01, "\n".join(lines), fontsize=8, va="top")
