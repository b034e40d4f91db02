"""fastkl beside the tools that a user could take instead: `python benchmarks/report.py`, five minutes on two cores at most.

Prints one table and draws the charts of docs/charts. `--save FILE` keeps the figures, `--charts FILE` draws them again
without measuring.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import reading
from cases import DTYPES, SHORT, Array, Case
from machine import machine
from measuring import Bench, Entry
from peers import AGAIN, FASTKL, PEERS, Peer, missing, without

CHARTS = Path(__file__).parents[1] / "docs" / "charts"
TURNS = 5

LENGTH_TURNS = 3
LENGTH_ENTRIES = 1 << 23
LENGTHS = [*(2**i for i in range(1, 20, 2)), 1 << 20]

# The rows that most users have: nanoseconds of a row against its length, in one thread.
WIDTH_MEASURES = ("kl_divergence", "kl_from_logits", "labels_from_logits")
WIDTHS = [2, 3, 5, 10, 20, 50, 100, 200, 500, 1024]
WIDTH_ENTRIES = 1 << 22

DIVERGENCES = [10.0**-i for i in range(1, 16)]
DIVERGENCE_SHAPE = (20, 1000)

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


def lengths() -> Iterator[dict[str, Any]]:
    """Return the throughput of KL for each length of rows, with the same number of entries."""
    for columns in LENGTHS:
        case = Case(rows=LENGTH_ENTRIES // columns, columns=columns)
        for entry in Bench(case).entries(whole(), LENGTH_TURNS):
            yield asdict(entry) | {"columns": columns}


def widths() -> Iterator[dict[str, Any]]:
    """Return the time of a row of each length, with the same number of entries, of float32 in one thread."""
    for measure in WIDTH_MEASURES:
        for columns in WIDTHS:
            case = Case(measure, "float32", WIDTH_ENTRIES // columns, columns, threads=1)
            for entry in Bench(case).entries(whole(), LENGTH_TURNS):
                yield asdict(entry) | {"measure": measure, "columns": columns, "rows": case.rows}


def pairs(divergence: float, dtype: str) -> tuple[Array, Array]:
    """Return rows p and q with D(p || q) near the divergence: q is p times exp of small normal numbers."""
    rng = np.random.default_rng(round(-np.log10(divergence)))
    p = rng.random(DIVERGENCE_SHAPE) + 1e-3
    p /= p.sum(axis=1, keepdims=True)
    q = p * np.exp(np.sqrt(2 * divergence) * rng.standard_normal(DIVERGENCE_SHAPE))
    q /= q.sum(axis=1, keepdims=True)
    return p.astype(dtype), q.astype(dtype)


def errors() -> Iterator[dict[str, Any]]:
    """Return each contender's worst relative error of D beside D, which is that of the rows after rounding to the dtype."""
    rows, columns = DIVERGENCE_SHAPE
    for dtype in DTYPES:
        for divergence in DIVERGENCES:
            bench = Bench(Case(dtype=dtype, rows=rows, columns=columns, threads=1), pairs(divergence, dtype))
            true = float(np.median(bench.exact[1].high))
            for peer in whole():
                if call := bench.call(peer):
                    yield {"contender": peer.name, "dtype": dtype, "divergence": true} | vars(bench.answers(call()))


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--save", type=Path, metavar="FILE", help="keep the figures as JSON")
    parser.add_argument("--charts", type=Path, metavar="FILE", help="draw the charts of kept figures, and measure nothing")
    parser.add_argument("--no-charts", action="store_true", help="print the table only")
    arguments = parser.parse_args()
    if arguments.charts:
        report = json.loads(arguments.charts.read_text())
    else:
        start = time.perf_counter()
        print(machine(), *(f"missing: {line}" for line in missing()), reading.PROBLEM, sep="\n")
        report = {"machine": machine(), "entries": [asdict(entry) for entry in measure(SHORT)]}
        if not arguments.no_charts or arguments.save:
            report |= {"lengths": list(lengths()), "widths": list(widths()), "errors": list(errors())}
        print(f"\n{time.perf_counter() - start:.0f} s")
        if arguments.save:
            arguments.save.write_text(json.dumps(report, indent=1))
    if not arguments.no_charts:
        import charts  # matplotlib, which the table does without

        for path in charts.draw(report, CHARTS):
            print(path)


if __name__ == "__main__":
    main()
