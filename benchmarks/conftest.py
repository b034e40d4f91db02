"""What the benchmarks share: the cases, each with its data made once, and who did not take part, named at the end."""

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
    parser.addoption("--full", action="store_true", help="all cases: gigabytes of data, and the better part of an hour")


def pytest_configure(config: pytest.Config) -> None:
    """Keep what is measured for the summary, and what the build is: torch changes OpenMP's number of threads later."""
    config.stash[BUILD] = str(fastkl.build_info())
    config.stash[ENTRIES] = []


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every case, and within a case every contender."""
    if "bench" in metafunc.fixturenames:
        cases = FULL if metafunc.config.getoption("--full") else SHORT

        metafunc.parametrize("bench", cases, ids=map(str, cases), indirect=True, scope="session")
        metafunc.parametrize("peer", PEERS, ids=[peer.name.replace(" ", "_") for peer in PEERS])


@pytest.fixture(scope="session")
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    """A case with its data, which are gone before the next are made."""
    made = Bench(request.param)
    yield made
    made.operands = ()


@pytest.fixture
def entries(request: pytest.FixtureRequest) -> list[Entry]:
    """What has been measured so far."""
    return request.config.stash[ENTRIES]


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Say what it was measured on, how much of a difference is noise, and who is missing."""
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
