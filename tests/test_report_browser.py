"""The report in a real browser, Chromium without a window: nothing is wider than the window, fails or is loaded."""

import base64
import itertools
import json
import os
import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

import fastkl

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None or os.name != "posix", reason="needs Chromium")]
# The window's and the page's width, the background, and what is beyond an edge of the window.
MEASURED = """(() => {
  const width = document.documentElement.clientWidth;
  const beyond = [...document.querySelectorAll("body *")].filter(x => {
    const box = x.getBoundingClientRect();
    return box.width && (box.left < -0.5 || box.right > width + 0.5);
  });
  return JSON.stringify([width, document.documentElement.scrollWidth, getComputedStyle(document.body).backgroundColor,
    beyond.map(x => x.outerHTML.slice(0, 200))]);
})()"""


class Browser:
    """A page of Chromium, which answers the calls of its DevTools protocol over two pipes."""

    def __init__(self, to, answers):
        self._to, self._answers, self._read, self._numbers = to, answers, b"", itertools.count(1)
        self.session, self.events = {}, []

    def call(self, method, **parameters):
        """The result of a call; events before it are kept."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters} | self.session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != number:
            self.events.append(answer)
        return answer["result"]

    def _next(self):
        while b"\0" not in self._read:
            data = os.read(self._answers, 1 << 20)
            assert data, "the browser has ended"
            self._read += data
        message, _, self._read = self._read.partition(b"\0")
        return json.loads(message)

    def open(self, path):
        """Open a page; the events until it was loaded, by name."""
        self.events.clear()
        self.call("Page.navigate", url=path.as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self.events.append(self._next())
        return [event["method"] for event in self.events]


@contextmanager
def chromium(folder):
    """A browser with an empty profile in the folder."""
    (read_calls, write_calls), (read_answers, write_answers) = os.pipe(), os.pipe()
    flags = f"--headless=new --no-sandbox --disable-gpu --remote-debugging-pipe --user-data-dir={folder}/profile"
    # The browser reads from descriptor 3 and writes to 4.
    command = f'exec "$0" {flags} about:blank 3<&{read_calls} 4>&{write_answers} >{folder}/log 2>&1'
    process = subprocess.Popen(["bash", "-c", command, CHROMIUM], pass_fds=(read_calls, write_answers))
    os.close(read_calls)
    os.close(write_answers)
    browser = Browser(write_calls, read_answers)
    try:
        target = browser.call("Target.createTarget", url="about:blank")["targetId"]
        session = browser.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        browser.session = {"sessionId": session}
        for domain in "Page", "Runtime", "Log", "Network":
            browser.call(f"{domain}.enable")
        yield browser
    finally:
        process.kill()
        process.wait()
        os.close(write_calls)
        os.close(read_answers)


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
            browser.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
            browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
            events = browser.open(page)
            window, whole, background, beyond = json.loads(
                browser.call("Runtime.evaluate", expression=MEASURED)["result"]["value"]
            )
            assert (whole, beyond) == (window, []), f"{page.name}, {width} pixels"
            assert background == ("rgb(253, 253, 252)" if scheme == "light" else "rgb(21, 24, 27)")
            assert events.count("Network.requestWillBeSent") == 1
            assert not {"Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded"} & {*events}
            if folder := os.environ.get("FASTKL_SCREENSHOTS"):
                picture = browser.call("Page.captureScreenshot", captureBeyondViewport=True)["data"]
                Path(folder, f"{page.stem}-{width}-{scheme}.png").write_bytes(base64.b64decode(picture))
