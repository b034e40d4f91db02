"""The check of what a release says of itself finds each thing that does not agree. The linters run it on this tree."""

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[1] / "tools"
CHANGELOG = """# Changelog

## [Unreleased]

## [1.2.0] - 2026-12-24

### Fixed

- A word.

## [1.1.0] - 2026-11-30

[Unreleased]: https://example.org/v1.2.0...HEAD
[1.2.0]: https://example.org/v1.2.0
[1.1.0]: https://example.org/v1.1.0
"""
CITATION = "cff-version: 1.2.0\nversion: 1.2.0\ndate-released: 2026-12-24\n"
VERSION = '"""The version."""\n\n__version__ = "1.2.0"\n'


@pytest.fixture
def found(tmp_path, monkeypatch):
    """Return a function that gives what the check finds with these texts."""
    monkeypatch.syspath_prepend(TOOLS)

    def check(tag=None, version=VERSION, changelog=CHANGELOG, citation=CITATION):
        (tmp_path / "fastkl").mkdir(exist_ok=True)
        (tmp_path / "fastkl/_version.py").write_text(version, "utf-8")
        (tmp_path / "CHANGELOG.md").write_text(changelog, "utf-8")
        (tmp_path / "CITATION.cff").write_text(citation, "utf-8")
        return list(import_module("check_release").check(tmp_path, tag))

    return check


def test_a_release_that_agrees(found):
    assert found() == found(tag="v1.2.0") == []


def test_another_version(found):
    assert found(version=VERSION.replace("1.2.0", "1.3.0")) == [
        "CHANGELOG.md: the newest release is 1.2.0, and fastkl/_version.py has 1.3.0",
        "CITATION.cff: the version is 1.2.0, and fastkl/_version.py has 1.3.0",
    ]


@pytest.mark.parametrize("changed", [("\nversion: 1.2.0", "\nversion: 1.1.0"), ("12-24", "11-30"), ("12-24", "12-24T12")])
def test_another_citation(found, changed):
    (message,) = found(citation=CITATION.replace(*changed))
    assert message.startswith("CITATION.cff: ")


@pytest.mark.parametrize("tag", ["1.2.0", "v1.2", "v1.2.0-1", "v1.1.0"])
def test_another_tag(found, tag):
    assert found(tag) == [f"the tag is {tag}, and fastkl/_version.py has 1.2.0"]


def test_what_is_unreleased_may_wait_but_not_in_a_release(found):
    changelog = CHANGELOG.replace("[Unreleased]\n\n", "[Unreleased]\n\n### Added\n\n- A word.\n\n", 1)
    assert found(changelog=changelog) == []
    assert found(tag="v1.2.0", changelog=changelog) == ['CHANGELOG.md: "Unreleased" must be empty in a release']


def test_a_link_is_missing(found):
    changelog = CHANGELOG.replace("[1.1.0]: https", "1.1.0: https")
    assert found(changelog=changelog) == ["CHANGELOG.md: [1.1.0] has no link"]


@pytest.mark.parametrize("changed", [("## [Unreleased]\n", ""), ("2026-12-24", "soon"), ("## [1", "### [1")])
def test_a_heading_is_missing(found, changed):
    (message,) = found(changelog=CHANGELOG.replace(*changed))
    assert message.startswith('CHANGELOG.md: "Unreleased" and a release with a date must come first')


def test_the_command_says_what_does_not_agree_from_source():
    command = [sys.executable, str(TOOLS / "check_release.py"), "v0"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert "the tag is v0" in ran.stderr
