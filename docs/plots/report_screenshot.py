"""A screenshot of a report of `fastkl score`, of two models: `python docs/plots/report_screenshot.py [CHROMIUM]`.

The models are those of examples/quantised_digits.py: a classifier of scikit-learn's digits with its weights rounded to 8
and to 4 bits, compared with itself. Needs Chromium and scikit-learn; the picture is kept in the repository, because the
build of the site needs no browser.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]
PICTURE = ROOT / "docs" / "pictures" / "report.png"
WIDTH, HEIGHT = 1000, 1750
OPTIONS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--window-size={WIDTH},{HEIGHT}"]


def report(folder: Path) -> Path:
    """Write the models' logits, and a report of them."""
    sys.path.insert(0, str(ROOT / "examples"))
    import quantised_digits

    names = []
    for bits, (full, quantised, labels, _) in quantised_digits.comparisons().items():
        np.save(folder / "full.npy", full)
        np.save(folder / "labels.npy", labels)
        np.save(folder / f"{bits}-bits.npy", quantised)
        names.append(f"{bits}-bits.npy")
    options = ["--labels", "labels.npy", "--from-logits", "--top", "3", "--report", "report.html"]
    subprocess.run([sys.executable, "-m", "fastkl", "score", "full.npy", *names, *options], cwd=folder, check=True)
    return folder / "report.html"


def main() -> None:
    """Run the command."""
    chromium = sys.argv[1] if len(sys.argv) > 1 else "chromium"
    with tempfile.TemporaryDirectory() as name:
        page = report(Path(name))
        profile = f"--user-data-dir={name}/profile"
        subprocess.run([chromium, *OPTIONS, profile, f"--screenshot={PICTURE}", page.as_uri()], check=True)
    print(f"{PICTURE}: {PICTURE.stat().st_size} bytes")


if __name__ == "__main__":
    main()
