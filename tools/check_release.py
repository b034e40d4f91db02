"""Checks that what a release says of itself agrees: the version, the changelog, the citation, and a tag.

    python tools/check_release.py [TAG]      with a tag, also that all changes are in that release

The newest release in CHANGELOG.md has the version of fastkl/_version.py, and CITATION.cff has its version and its date. A
section "Unreleased" stands above it, and each section has a link at the end of the file.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

SECTION = re.compile(r"^## \[(?P<version>.+)\](?: - (?P<date>.+))?\n(?P<text>(?:(?!## |\[).*\n)*)", re.MULTILINE)
LINK = re.compile(r"^\[(.+)\]: https://\S+$", re.MULTILINE)
DATE = re.compile(r"\d{4}-\d\d-\d\d")


def field(text: str, pattern: str) -> str:
    """What the pattern's group matches in the text, or nothing."""
    found = re.search(pattern, text, re.MULTILINE)
    return found[1] if found else ""


def check(root: Path, tag: str | None = None) -> Iterator[str]:
    """What does not agree."""
    version = field((root / "fastkl/_version.py").read_text("utf-8"), r'^__version__ = "(.+)"$')
    citation = (root / "CITATION.cff").read_text("utf-8")
    cited, cited_date = field(citation, "^version: (.+)$"), field(citation, "^date-released: (.+)$")
    changelog = (root / "CHANGELOG.md").read_text("utf-8")
    unreleased, newest = [*SECTION.finditer(changelog), None, None][:2]
    if not (unreleased and newest and unreleased["version"] == "Unreleased" and DATE.fullmatch(newest["date"] or "")):
        yield 'CHANGELOG.md: "Unreleased" and a release with a date must come first'
        return
    if newest["version"] != version:
        yield f"CHANGELOG.md: the newest release is {newest['version']}, and fastkl/_version.py has {version}"
    if cited != version:
        yield f"CITATION.cff: the version is {cited}, and fastkl/_version.py has {version}"
    if cited_date != newest["date"]:
        yield f"CITATION.cff: the date is {cited_date}, and CHANGELOG.md has {newest['date']}"
    links = LINK.findall(changelog)
    for section in SECTION.finditer(changelog):
        if section["version"] not in links:
            yield f"CHANGELOG.md: [{section['version']}] has no link"
    if tag is not None:
        if tag != f"v{version}":
            yield f"the tag is {tag}, and fastkl/_version.py has {version}"
        if unreleased["text"].strip():
            yield 'CHANGELOG.md: "Unreleased" must be empty in a release'


if __name__ == "__main__":
    sys.exit("\n".join(check(Path(__file__).parents[1], *sys.argv[1:])) or None)
