"""The report in a real browser, Chromium without a window: nothing is wider than the window, fails or is loaded."""

import itertools

import numpy as np
import pytest
from support.browser import chromium, needs_chromium

import fastkl

pytestmark = [pytest.mark.slow, needs_chromium]


def pages(folder):
    """Reports of a measure, of a comparison, and of models with long names, infinite values and large row numbers."""
    random = np.random.default_rng(1)
    p = random.normal(size=(3000, 40))
    q = {f"a-model-with-a-rather-long-name-{i}-imatrix": p + i * random.normal(size=p.shape) / 4 for i in range(1, 4)}
    right = random.integers(0, 40, 3000)
    one, *_ = q.values()
    one[7, right[7]] = -np.inf
    fastkl.score(p, one, from_logits=True, report=folder / "measure.html")
    fastkl.score(p, one, right, from_logits=True, report=folder / "comparison.html", base=2)
    fastkl.score(p, q, right, from_logits=True, report=folder / "models.html", cluster_by=np.arange(3000) // 50)
    return [folder / f"{name}.html" for name in ("measure", "comparison", "models")]


def test_pages_fit_every_window(tmp_path):
    with chromium(tmp_path) as browser:
        for page, width, scheme in itertools.product(pages(tmp_path), (400, 800, 1300, 1400), ("light", "dark")):
            browser.show(width, scheme)
            events = browser.open(page.as_uri())
            window, whole, background, beyond = browser.layout()
            assert (whole, beyond) == (window, []), f"{page.name}, {width} pixels"
            assert background == ("rgb(253, 253, 252)" if scheme == "light" else "rgb(21, 24, 27)")
            assert events.count("Network.requestWillBeSent") == 1
            assert not browser.complaints()
            browser.picture(f"{page.stem}-{width}-{scheme}")
