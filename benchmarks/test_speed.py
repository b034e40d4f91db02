"""Every contender on every case: `pytest benchmarks --benchmark-only`, with `--full` for the large ones.

pytest-benchmark's table has its own times. `extra_info` (`--benchmark-json FILE`) has those measured in turn with reading,
as measuring.Entry describes.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import pytest
from peers import UNUSABLE

if TYPE_CHECKING:
    from measuring import Bench, Entry
    from peers import Peer

TURNS = 5


def test_speed(bench: Bench, peer: Peer, benchmark: Any, entries: list[Entry]) -> None:
    """Time one contender in one case, and record its speed, memory and error."""
    if peer.version is None:
        pytest.skip(f"{peer.name}: package {peer.package} is not installed")
    call = bench.call(peer)
    if peer.name in UNUSABLE:
        pytest.skip(f"{peer.name} does not work here: {UNUSABLE[peer.name]}")
    if call is None:
        pytest.skip(f"{peer.name} does not compute {bench.case.measure} {'in' if bench.case.in_cache else 'out of'} cache")
    (entry,) = bench.entries([peer], TURNS)
    entries.append(entry)
    benchmark.extra_info.update(asdict(entry))
    if entry.note:
        pytest.skip(f"{peer.name} refuses {bench.case.layout}: {entry.note}")
    benchmark.group = str(bench.case)
    benchmark(call)
