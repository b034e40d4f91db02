"""fastkl beside the tools that a user could take instead: `python benchmarks/report.py`, five minutes on two cores at most.

Prints one table, and the time of a row of each length. `--save` keeps, in docs/plots/measurements.json, what the site's
pictures show of it. `--part` measures one part alone.
"""

from __future__ import annotations

import argparse
import datetime
import json
import re
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import reading
from cases import SHORT, Case
from machine import machine
from measuring import READING, Bench, Entry
from peers import AGAIN, FASTKL, PEERS, Peer, missing, without

MEASUREMENTS = Path(__file__).parents[1] / "docs" / "plots" / "measurements.json"
TURNS = 5

# The time of a row against its length, in matrices that do not fit in caches: of all lengths, and of frequent ones.
LENGTH_TURNS = 3
LONG_ENTRIES = 1 << 23
LONG_COLUMNS = [2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000]
SHORT_ENTRIES = 1 << 22
SHORT_COLUMNS = [2, 3, 5, 10, 20, 50, 100, 200, 500, 1024]
SHORT_MEASURES = ("kl_divergence", "kl_from_logits", "labels_from_logits")

COLUMNS = "{:16} {:>11} {:>4} {:>9} {:>9} {:>8} {:>8} {:>10} {:>10} {:>10} {:>8} {:>5}"
HEAD = (
    "contender",
    "version",
    "thr.",
    "Gelem/s",
    "cyc/entry",
    "GB/s",
    "reading",
    "peak MB",
    "error eps",
    "error",
    "negative",
    "NaN",
)


def whole() -> list[Peer]:
    """Return the contenders that compute a measure, each once."""
    return [peer for peer in PEERS if peer.whole and peer.name != AGAIN]


def _cell(value: Any, form: str) -> str:
    return "-" if value is None else format(value, form)


def row(entry: Entry) -> str:
    """Return a line of the table."""
    return COLUMNS.format(
        entry.contender,
        entry.version.partition("+")[0],
        entry.threads,
        _cell(entry.gelem_per_s, ".3f"),
        _cell(entry.cycles_per_entry, ".2f"),
        _cell(entry.gb_per_s, ".2f"),
        _cell(entry.share_of_reading, ".1%"),
        _cell(None if entry.peak_bytes is None else entry.peak_bytes / 1e6, ".3f"),
        _cell(entry.error_eps, ".3g"),
        _cell(entry.error, ".2g"),
        _cell(entry.negative, "d"),
        _cell(entry.nan, "d"),
    )


def measure(cases: Iterable[Case]) -> Iterator[Entry]:
    """Measure every case, and print its part of the table; return the figures."""
    print(COLUMNS.format(*HEAD))
    for case in cases:
        print(f"\n{case}")
        entries = Bench(case).entries(turns=TURNS)
        for entry in entries:
            print(f"{entry.contender:16} refuses: {entry.note}" if entry.note else row(entry))
        took = {entry.contender: entry.seconds for entry in entries}
        first, again = took[FASTKL], took[AGAIN]
        if first and again:
            absent = "; ".join(_absent(case)) or "none"
            print(f"noise floor: {AGAIN} took {again / first:.3f} of the time. Absent: {absent}")
        sys.stdout.flush()
        yield from entries


def _absent(case: Case) -> list[str]:
    return [*without(case.measure), *missing()]


def rounded(value: float) -> float:
    """Return the value with four significant digits: the noise is larger."""
    return float(f"{value:.4g}")


def throughput() -> dict[str, Any]:
    """Return the throughput of reading and of each contender, and its error, in the cases that do not fit in caches."""
    found: dict[str, Any] = {}
    for entry in measure(SHORT):
        case = next(case for case in SHORT if str(case) == entry.case)
        if case.in_cache or entry.contender == AGAIN or not (entry.seconds and entry.gb_per_s):
            continue
        figures = found.setdefault(f"{case.measure}, {case.dtype}, {case.rows} x {case.columns}", {})
        if entry.contender == FASTKL and entry.share_of_reading:
            figures[READING] = {"gb_per_s": rounded(entry.gb_per_s / entry.share_of_reading)}
        gb_per_s, error_eps = rounded(entry.gb_per_s), float(f"{entry.error_eps:.2g}")
        figures[entry.contender] = {"threads": entry.threads, "gb_per_s": gb_per_s, "error_eps": error_eps}
    return found


def times_of_rows(case: Case, entries: int, columns: list[int]) -> dict[str, list[Any]]:
    """Print and return the nanoseconds of a row of each length, of reading and of each contender, with as many entries."""
    times: dict[str, list[Any]] = {"columns": columns}
    for length in columns:
        here = replace(case, rows=entries // length, columns=length)
        for entry in Bench(here).entries(whole(), LENGTH_TURNS):
            of_row = entry.seconds / here.rows * 1e9 if entry.seconds else None
            if of_row and entry.contender == FASTKL and entry.share_of_reading:
                times.setdefault(READING, []).append(rounded(of_row * entry.share_of_reading))
            times.setdefault(entry.contender, []).append(rounded(of_row) if of_row else None)
    print(f"\nns a row, {case.measure}, {case.dtype}, {case.threads} threads at most")
    for name, values in times.items():
        print(f"{name:16}", *(f"{value or '-':>9}" for value in values))
    return times


def row_length() -> dict[str, Any]:
    """Return the time of a row of each length, in float64 with two threads."""
    return {"kl_divergence": times_of_rows(Case(), LONG_ENTRIES, LONG_COLUMNS)}


def short_rows() -> dict[str, Any]:
    """Return the time of a short row of each length and measure, in float32 with one thread."""
    cases = (Case(measure, "float32", threads=1) for measure in SHORT_MEASURES)
    return {case.measure: times_of_rows(case, SHORT_ENTRIES, SHORT_COLUMNS) for case in cases}


PARTS = {"throughput": throughput, "row_length": row_length, "short_rows": short_rows}


def save(name: str, found: dict[str, Any], path: Path) -> None:
    """Write a part's figures, with the date and the machine; the file keeps those of other parts."""
    kept = json.loads(path.read_text()) if path.exists() else {}
    command = f"python benchmarks/report.py --part {name} --save"
    kept[name] = {"command": command, "measured": str(datetime.date.today()), "machine": machine(), "figures": found}
    text = json.dumps({part: kept[part] for part in PARTS if part in kept}, indent=1)
    # A line each for what has no more in it.
    path.write_text(re.sub(r"[\[{][^\[\]{}]*[\]}]", lambda group: " ".join(group[0].split()), text) + "\n")


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", action="append", choices=PARTS, help="measure this part; all parts if none is named")
    parser.add_argument("--save", action="store_true", help="keep the figures for the pictures of docs/")
    arguments = parser.parse_args()
    start = time.perf_counter()
    print(machine(), *(f"missing: {line}" for line in missing()), reading.PROBLEM, sep="\n")
    for name in arguments.part or PARTS:
        found = PARTS[name]()
        if arguments.save:
            save(name, found, MEASUREMENTS)
    print(f"\n{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
