"""Time, memory and error of calls: the one place that knows how they are measured, for every command in this folder.

Times are medians of calls in turn, so that a machine whose speed drifts slows all equally, and only ratios of times from
the same turns are compared. Errors are against the double-double references in tests/support/, on the same data.
"""

from __future__ import annotations

import ctypes
import statistics
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import reading
from cases import LOGITS, Array, Case, operands
from machine import cycles
from peers import PEERS, Peer

sys.path.append(str(Path(__file__).parents[1] / "tests"))

from support import logits_reference, reference
from support.double_double import LN2, DoubleDouble

Call = Callable[[], Any]

TURNS = 7
# A turn repeats a short call for at least that long: the cost of the clock and the loop is then negligible.
TURN_SECONDS = 0.005
# Threads of an OpenMP library spin for about that long after their work, on cores that the next contender needs.
PAUSE_SECONDS = 0.005
READING = "reading"

# Some contenders divide by zeros. np.errstate around each call would make a short one half as slow again.
np.seterr(all="ignore")

# The reference takes a second for a million entries.
SAMPLE_ROWS = 200
SAMPLE_ENTRIES = 1_000_000


def seconds(calls: dict[str, Call], turns: int = TURNS) -> dict[str, float]:
    """Return the median time of each call, made in turn. The first turn, which warms caches and threads, does not count."""
    repeats: dict[str, int] = {}
    for name, call in calls.items():
        call()
        start = time.perf_counter()
        call()
        repeats[name] = max(1, round(TURN_SECONDS / (time.perf_counter() - start)))
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(turns):
        for name, call in calls.items():
            time.sleep(PAUSE_SECONDS)
            start = time.perf_counter()
            for _ in range(repeats[name]):
                call()
            times[name].append((time.perf_counter() - start) / repeats[name])
    return {name: statistics.median(values) for name, values in times.items()}


def _status(field: str) -> int:
    """Return a field of /proc/self/status in bytes."""
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(field))
    return int(line.split()[1]) * 1024


def peak_memory(call: Call) -> int | None:
    """Return the bytes that a call needs beyond its result, at its peak; None where they cannot be measured.

    They are the larger of two counts. The resident set includes the memory that any library touches, in units of some
    100 kB; tracemalloc counts every byte, but only of NumPy's and Python's.
    """
    result = call()
    size = sum(int(getattr(x, "nbytes", 0)) for x in (result if isinstance(result, tuple) else (result,)))
    del result
    try:
        ctypes.CDLL(None).malloc_trim(0)  # freed memory that is kept and used again would not count as new
        Path("/proc/self/clear_refs").write_text("5")
        before = _status("VmRSS")
        result = call()
        resident = _status("VmHWM") - before - size
    except (OSError, AttributeError, StopIteration, TypeError):  # not Linux, or not glibc
        return None
    del result
    tracemalloc.start()
    try:
        _ = call()
        traced = tracemalloc.get_traced_memory()[1] - size
    finally:
        tracemalloc.stop()
    return max(resident, traced, 0)


def _exact(measure: str, sample: list[Array], labels: list[Array]) -> DoubleDouble:
    """Return the measure of every row, by its name in cases.py; of a comparison, D(p‖q)."""
    if measure == "labels_from_logits":
        return logits_reference.losses(*sample, *labels)
    if measure in LOGITS:
        return logits_reference.evaluate("entropy" if len(sample) == 1 else "kl_divergence", *sample)
    return reference.evaluate(measure, *sample)


@dataclass(frozen=True)
class Answers:
    """The errors of a contender's values, on rows taken evenly from all; negative and NaN are counted in all."""

    error: float  # the worst relative error
    error_eps: float  # the same in eps of the operands' dtype, whatever dtype the contender answers in
    negative: int
    nan: int


@dataclass(frozen=True)
class Entry:
    """The figures of a contender in a case. None means not known, and `note` may say why."""

    contender: str
    version: str
    case: str
    threads: int
    gelem_per_s: float | None = None
    cycles_per_entry: float | None = None
    gb_per_s: float | None = None
    share_of_reading: float | None = None
    seconds: float | None = None
    peak_bytes: int | None = None
    error: float | None = None
    error_eps: float | None = None
    negative: int | None = None
    nan: int | None = None
    note: str = ""


class Bench:
    """A case with its data: the calls of its contenders, and the speed, memory and error of each."""

    def __init__(self, case: Case, data: tuple[Array, ...] | None = None) -> None:
        self.case = case
        self.operands = operands(case) if data is None else data
        self.matrices = tuple(x for x in self.operands if x.ndim == 2)  # without labels
        self.bytes = sum(x.nbytes for x in self.matrices)

    @cached_property
    def exact(self) -> tuple[Array, DoubleDouble]:
        """Some rows' positions, and the measure of each by the reference."""
        case = self.case
        width = case.columns // case.repeats
        count = max(1, min(SAMPLE_ROWS, case.rows, SAMPLE_ENTRIES // width))
        rows = np.unique(np.linspace(0, case.rows - 1, count).astype(int))
        # Of a row that repeats its beginning, the beginning: D is the same, the others are larger by log(repeats).
        sample = [np.ascontiguousarray(np.broadcast_to(x, (case.rows, case.columns))[rows, :width]) for x in self.matrices]
        labels = [x[rows] for x in self.operands if x.ndim == 1]
        exact = _exact(case.measure, sample, labels)
        if case.repeats > 1 and case.measure not in ("kl_divergence", "kl_from_logits", "compare_from_logits"):
            exact += LN2 * DoubleDouble.of(np.full(len(rows), float(case.repeats.bit_length() - 1)))
        return rows, exact

    def call(self, peer: Peer) -> Call | None:
        """Return the contender's call, or None if it cannot compute this case."""
        function = peer.functions(self.case.threads).get(self.case.measure)
        if function is None or not (peer.whole or self.case.in_cache):
            return None
        if self.case.layout == "axis0" and peer.package == "fastkl":
            return partial(function, *(x.T for x in self.operands), axis=0)
        return partial(function, *self.operands)

    def reader(self) -> Call | None:
        """Return a call that reads the operands."""
        return reading.reader(self.matrices, self.case.threads)

    def answers(self, values: Any) -> Answers:
        """Return the errors of the values; of a comparison, those of D(p‖q)."""
        rows, exact = self.exact
        values = values.kl if isinstance(values, tuple) else values
        found = np.asarray(values)[rows].astype(float)
        errors = np.abs((found - exact.high) - exact.low) / exact.high
        special = (found == exact.high) & (np.isinf(found) | (found == 0))  # right, but inf - inf and 0 / 0 are NaN
        errors = np.where(special, 0, np.where(np.isnan(errors), np.inf, errors))
        worst = float(errors.max())
        eps = float(np.finfo(self.case.dtype).eps)
        return Answers(worst, worst / eps, int(np.sum(values < 0)), int(np.sum(np.isnan(values))))

    def entries(self, peers: Iterable[Peer] = PEERS, turns: int = TURNS) -> list[Entry]:
        """Measure the contenders and reading in turn. A contender that cannot compute this case has no entry."""
        calls: dict[str, Call] = {}
        values: dict[str, Array] = {}
        notes: dict[str, str] = {}
        taking_part = [(peer, call) for peer in peers if (call := self.call(peer))]
        for peer, call in taking_part:
            try:
                values[peer.name] = call()
                calls[peer.name] = call
            except Exception as error:  # each package has errors of its own
                notes[peer.name] = f"{type(error).__name__}: {error}"
        reader = self.reader()
        times = seconds(({READING: reader} if reader else {}) | calls, turns)
        return [
            Entry(*self._label(peer), note=notes[peer.name])
            if peer.name in notes
            else self._entry(peer, call, times, values[peer.name])
            for peer, call in taking_part
        ]

    def _label(self, peer: Peer) -> tuple[str, str, str, int]:
        return peer.name, peer.version or "", str(self.case), self.case.threads if peer.parallel else 1

    def _entry(self, peer: Peer, call: Call, times: dict[str, float], values: Array) -> Entry:
        took = times[peer.name]
        speed = Entry(
            *self._label(peer),
            seconds=took,
            gelem_per_s=self.case.entries / took / 1e9,
            cycles_per_entry=cycles(took, self.case.entries, self.case.threads if peer.parallel else 1),
            gb_per_s=self.bytes / took / 1e9,
            share_of_reading=times[READING] / took if READING in times else None,
            peak_bytes=peak_memory(call),
        )
        return Entry(**(vars(speed) | vars(self.answers(values)))) if peer.whole else speed
