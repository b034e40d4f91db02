"""Checks the built documentation, and prints FILE: FAULT for each fault.

    python tools/check_site.py FOLDER

A link inside the site leads to a page, and to an element of it that has the name after the #. A page loads nothing from
elsewhere: no script, style sheet, font or picture. Every picture has a text in its place. Every public name is in
objects.inv, which other sites' links use; functions and classes have a page each.
"""

import re
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from importlib import import_module
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

from check_docstrings import MODULES, public
from sphinx.util.inventory import InventoryFile

LOADED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href", "object": "data"}
NAMED_ONLY = {"canonical", "next", "prev", "index", "search"}  # relations of a <link> that loads nothing
LOADED_BY_STYLES = re.compile(r"(?:url\(|@import )\s*[\"']?(?:https?:)?//")
FEWEST = 40  # pages: a build of less is not that of the whole site


class Page(HTMLParser):
    """A page: where it links to, what it loads, the names of its elements."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.names = {"", "top"}
        self.undescribed: list[str] = []
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.names |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        if tag in LOADED and LOADED[tag] in given and not NAMED_ONLY & {*given.get("rel", "").split()}:
            self.loaded.append(given[LOADED[tag]])
        if tag == "img" and not given.get("alt"):
            self.undescribed.append(given.get("src", ""))


def faults(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield file and fault."""
    paths = (path for path in sorted(folder.rglob("*.html")) if "_static" not in path.parts)
    pages = {path.resolve(): Page(path) for path in paths}
    for path, page in pages.items():
        name = path.relative_to(folder.resolve()).as_posix()
        yield from ((name, f"{link} is loaded from elsewhere") for link in page.loaded if urlsplit(link).netloc)
        yield from ((name, f"{picture} has no text in its place") for picture in page.undescribed)
        for link in page.links + page.loaded:
            target, anchor = urldefrag(link)
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                continue
            file = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            file = file / "index.html" if file.is_dir() else file
            if not file.exists():
                yield name, f"{link} leads nowhere"
            elif file in pages and unquote(anchor) not in pages[file].names and page.links.count(link):
                yield name, f"{link}: no element has this name"
    for path in folder.rglob("*.css"):
        if LOADED_BY_STYLES.search(path.read_text("utf-8")):
            yield path.relative_to(folder).as_posix(), "something is loaded from elsewhere"
    if len(pages) < FEWEST:
        yield ".", f"{len(pages)} pages"

    with (folder / "objects.inv").open("rb") as inventory:
        described = {item for items in InventoryFile.load(inventory, "", lambda _, name: name).values() for item in items}
    names = {name for name, _ in public()}
    constants = {f"{module}.{name}" for module in MODULES for name in import_module(module).__all__} - names
    yield from ((name, "is not in objects.inv") for name in sorted((names | constants) - described))
    members = {name for name in names if name.rpartition(".")[0] in names}
    for name in sorted(names - members):
        if not (folder / f"reference/generated/{name}.html").exists():
            yield name, "has no page"


if __name__ == "__main__":
    found = list(dict.fromkeys(faults(Path(sys.argv[1]))))
    for where, fault in found:
        print(f"{where}: {fault}")
    sys.exit(bool(found))
