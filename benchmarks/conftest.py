"""Fixtures of the benchmarks: the cases, each with its data made once; and a summary that names the missing contenders."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import reading
from cases import FULL, SHORT
from measuring import Bench, Entry
from peers import AGAIN, FASTKL, PEERS, missing

import fastkl

if TYPE_CHECKING:
    from collections.abc import Iterator

BUILD = pytest.StashKey[str]()
ENTRIES = pytest.StashKey[list[Entry]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--full`."""
    parser.addoption("--full", action="store_true", help="all cases: gigabytes of data, and most of an hour")


def pytest_configure(config: pytest.Config) -> None:
    """Keep a place for the figures, and the description of the build: torch changes OpenMP's number of threads later."""
    config.stash[BUILD] = str(fastkl.build_info())
    config.stash[ENTRIES] = []


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make a test of every case and, within a case, of every contender."""
    if "bench" in metafunc.fixturenames:
        cases = FULL if metafunc.config.getoption("--full") else SHORT

        metafunc.parametrize("bench", cases, ids=map(str, cases), indirect=True, scope="session")
        metafunc.parametrize("peer", PEERS, ids=[peer.name.replace(" ", "_") for peer in PEERS])


@pytest.fixture(scope="session")
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    """Return a case with its data, which are freed before the next are made."""
    made = Bench(request.param)
    yield made
    made.operands = ()


@pytest.fixture
def entries(request: pytest.FixtureRequest) -> list[Entry]:
    """Return the figures measured so far."""
    return request.config.stash[ENTRIES]


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print the build, how large the noise is, and the missing contenders."""
    terminalreporter.section("fastkl's benchmarks")
    terminalreporter.line(config.stash[BUILD])
    found = config.stash[ENTRIES]
    speeds = {(entry.case, entry.contender): entry.share_of_reading or entry.gelem_per_s for entry in found}
    for (case, contender), speed in speeds.items():
        if contender == AGAIN and speed and (first := speeds.get((case, FASTKL))):
            terminalreporter.line(f"noise floor: the same function again {speed / first:.3f}  {case}")
    for line in (*missing(), *([reading.PROBLEM] if reading.PROBLEM else [])):
        terminalreporter.line(f"missing: {line}")
    for entry in found:
        if entry.note:
            terminalreporter.line(f"refused: {entry.contender}, {entry.case}: {entry.note}")
