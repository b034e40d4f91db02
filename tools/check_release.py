"""Checks that what a release says of itself agrees: the version, the changelog, the citation, and a tag.

    python tools/check_release.py [TAG]      with a tag, also that all changes are in that release

The newest release in CHANGELOG.md has the version of fastkl/_version.py, and CITATION.cff has its version and its date. A section
"Unreleased" stands above it, and each section has a link at the end of the file.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

HEADING = r"^## \[(?P<version>[^]]+)\](?: - (?P<date>\d{4}-\d\d-\d\d))?\n"
SECTION = re.compile(HEADING + r"(?P<text>.*?)(?=^## |^\[|\Z)", re.M | re.S)
LINK = re.compile(r"^\[(.+)\]: https://\S+$", re.M)


def field(text: str, pattern: str) -> str:
    """What the pattern's group matches in the text, or nothing."""
    found = re.search(pattern, text, re.M)
    return found[1] if found else ""


def check(root: Path, tag: str | None = None) -> Iterator[str]:
    """What does not agree."""
    version = field((root / "fastkl/_version.py").read_text("utf-8"), r'^__version__ = "(.+)"$')
    citation = (root / "CITATION.cff").read_text("utf-8")
    cited = field(citation, r"^version: (\S+)$"), field(citation, r'^date-released: "?([\d-]+)"?$')
    changelog = (root / "CHANGELOG.md").read_text("utf-8")
    sections = list(SECTION.finditer(changelog))
    versions = [section["version"] for section in sections]
    if len(sections) < 2 or versions[0] != "Unreleased":
        yield f'CHANGELOG.md: "Unreleased" and a release must come first, not {versions[:2]}'
        return
    unreleased, newest = sections[:2]
    if newest["version"] != version:
        yield f"CHANGELOG.md: the newest release is {newest['version']}, and fastkl/_version.py has {version}"
    if cited != (version, newest["date"]):
        yield f"CITATION.cff: {' of '.join(cited)}, and CHANGELOG.md has {newest['version']} of {newest['date']}"
    for missing in sorted(set(versions) - set(LINK.findall(changelog))):
        yield f"CHANGELOG.md: [{missing}] has no link"
    if tag is not None:
        if tag != f"v{version}":
            yield f"the tag is {tag}, and fastkl/_version.py has {version}"
        if unreleased["text"].strip():
            yield 'CHANGELOG.md: "Unreleased" must be empty in a release'


if __name__ == "__main__":
    sys.exit("\n".join(check(Path(__file__).parents[1], *sys.argv[1:])) or None)
