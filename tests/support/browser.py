"""Chromium without a window: pages are opened and measured through its DevTools protocol. Knows nothing of the pages."""

import base64
import itertools
import json
import os
import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_chromium = pytest.mark.skipif(CHROMIUM is None or os.name != "posix", reason="needs Chromium")
# What a page must not do: throw, write errors or warnings to the console, fail to load a file.
COMPLAINTS = {"Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded", "Network.loadingFailed"}
# The window's and the page's width, the background, and what is beyond an edge of the window, except in boxes that scroll.
LAYOUT = """(boxes => {
  const width = document.documentElement.clientWidth;
  const beyond = [...document.querySelectorAll("body *")].filter(x => {
    const box = x.getBoundingClientRect();
    return box.width && (box.left < -0.5 || box.right > width + 0.5) && !(boxes && x.parentElement.closest(boxes));
  });
  return [width, document.documentElement.scrollWidth, getComputedStyle(document.body).backgroundColor,
    beyond.map(x => x.outerHTML.slice(0, 200))];
})"""


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

    def open(self, address):
        """Open a page; the events until it was loaded, by name."""
        self.events.clear()
        self.call("Page.navigate", url=address)
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self.events.append(self._next())
        return [event["method"] for event in self.events]

    def complaints(self):
        """What has gone wrong since the page was opened."""
        events = (event for event in self.events if event["method"] in COMPLAINTS)
        return [str(event)[:600] for event in events if event["params"].get("type") != "log"]

    def show(self, width, scheme, height=900):
        """Give the window a width, and the pages a scheme of colours, "light" or "dark"."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def evaluate(self, expression):
        """The value of an expression of JavaScript."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def layout(self, boxes=""):
        """What LAYOUT says, where boxes is the selector of those that scroll."""
        return self.evaluate(f"{LAYOUT}({json.dumps(boxes)})")

    def picture(self, name):
        """Keep a picture of the page in the folder that the environment names."""
        if folder := os.environ.get("FASTKL_SCREENSHOTS"):
            picture = self.call("Page.captureScreenshot", captureBeyondViewport=True)["data"]
            Path(folder, f"{name}.png").write_bytes(base64.b64decode(picture))


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
