"""The built site in Chromium: pages fit every window, in light and dark, load nothing from elsewhere, and can be searched.

`nox -s docs` builds the site and names its folder in FASTKL_SITE.
"""

import itertools
import os
import threading
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote

import pytest
from support.browser import chromium, needs_chromium

SITE = Path(os.environ.get("FASTKL_SITE", ""))
BUILT = bool(SITE.name)
pytestmark = [pytest.mark.slow, needs_chromium, pytest.mark.skipif(not BUILT, reason="FASTKL_SITE names no built site")]
SCROLL = "pre, table, .highlight, .pst-scrollable-table-container"  # boxes that are as wide as the window, and scroll
WIDTHS = (400, 800, 1400)
BACKGROUNDS = {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 24, 30)"}
SEARCHES = {
    "kl_divergence": "reference/generated/fastkl.kl_divergence.html",
    "InvalidRowError": "reference/generated/fastkl.InvalidRowError.html",
    "PSI": "tutorials/drift.html",
}
SECONDS = 20


class Quiet(SimpleHTTPRequestHandler):
    """A server that says nothing."""

    def log_message(self, *_):
        """Say nothing."""


@pytest.fixture(scope="module")
def address():
    """The site's address at a server on this machine."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=SITE)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with chromium(tmp_path_factory.mktemp("browser")) as browser:
        yield browser


def pages():
    found = [path.relative_to(SITE).as_posix() for path in sorted(SITE.rglob("*.html"))] if BUILT else []
    return [name for name in found if not name.startswith("_static/")]


@pytest.mark.parametrize("scheme", BACKGROUNDS)
def test_pages_fit_the_window(browser, address, scheme):
    """They do so however wide it is while they are open."""
    names = pages()
    assert len(names) > 40
    wrong = []
    for name in names:
        browser.show(WIDTHS[0], scheme)
        browser.open(address + name)
        for width in WIDTHS:
            browser.show(width, scheme)
            window, whole, background, beyond = browser.layout(SCROLL)
            if whole > window or beyond or background != BACKGROUNDS[scheme]:
                wrong.append((name, width, whole, background, beyond))
            browser.picture(f"{name.replace('/', '-')}-{width}-{scheme}")
        wrong += [(name, url) for url in requested(browser) if not url.startswith((address, "data:"))]
        wrong += [(name, complaint) for complaint in browser.complaints()]
    assert not wrong, "\n".join(map(str, wrong))


def requested(browser):
    """The addresses of all files that the browser has asked for since the page was opened."""
    sent = [event["params"] for event in browser.events if event["method"] == "Network.requestWillBeSent"]
    return [event["request"]["url"] for event in sent]


@pytest.mark.parametrize(("word", "page"), SEARCHES.items())
def test_the_search_finds(browser, address, word, page):
    browser.show(1400, "light")
    browser.open(f"{address}search.html?q={quote(word)}")
    results = "[...document.querySelectorAll('#search-results ul.search li a')].map(x => x.href)"
    until = time.monotonic() + SECONDS
    while not any(link.startswith(address + page) for link in browser.evaluate(results)):
        assert time.monotonic() < until, browser.evaluate(results)
        time.sleep(0.1)
    assert not browser.complaints()


def test_pictures_and_links_of_the_menu_work_from_a_file(browser):
    """A copy of the site on a disk needs no server."""
    for name, scheme in itertools.product(("index.html", "reference/index.html"), BACKGROUNDS):
        browser.show(800, scheme)
        browser.open((SITE / name).resolve().as_uri())
        assert not browser.complaints()
        assert browser.layout(SCROLL)[2] == BACKGROUNDS[scheme]
