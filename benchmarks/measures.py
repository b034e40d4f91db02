"""The measures beside D and beside what users write: `python benchmarks/measures.py [MEASURE ...]`, all by default.

Prints, for rows of 1000 and of ten entries in both dtypes, the time of each measure relative to that of kl_divergence on
the same data, how many times as fast it is as NumPy's expression and other packages, and the worst relative error of each
in eps of the dtype. Times are medians of calls in turn. `again` is the noise: the same call, measured twice. Needs 2 GB,
and 8 GB with --full.
"""

from __future__ import annotations

import argparse
import textwrap
from dataclasses import replace

from bars import call as call_of
from cases import DIVERGENCES, DTYPES, Array, Case, operands
from machine import cycles, machine
from measuring import Bench, Call, seconds
from peers import AGAIN, FASTKL, PEERS, missing

SHAPES = ((20_000, 1000), (1_000_000, 10))
FULL_SHAPES = ((100_000, 1000), (5_000_000, 10))
KL = "kl_divergence"


def line(case: Case, data: tuple[Array, ...], turns: int) -> str:
    """Return the figures of a measure."""
    bench, kl = Bench(case, data), Bench(replace(case, measure=KL), data)
    contenders = {peer.name: call for peer in PEERS if peer.whole and (call := bench.call(peer))}
    calls: dict[str, Call] = {}
    figures, refused = {}, []
    for name, call in contenders.items():
        try:
            figures[name] = bench.answers(call())
            calls[name] = call
        except Exception as error:  # each package has errors of its own
            refused.append(f"{name} refuses: {str(error).partition('.')[0]}")
    times = seconds(calls | {KL: call_of(kl)}, turns)
    took = times[FASTKL]
    spent = cycles(took, case.entries, case.threads)
    ours = [f"{took / times[KL]:.2f} of KL's time", f"again {times[AGAIN] / took:.2f}"]
    ours += [f"{spent:.2f} cycles an entry"] if spent else []
    ours += [f"{figures[FASTKL].error_eps:.2g} eps"]
    others = [f"{x} {times[x] / took:.3g}x, {figures[x].error_eps:.2g} eps" for x in calls if x not in (FASTKL, AGAIN)]
    text = "; ".join([", ".join(ours), *others, *refused])
    return textwrap.fill(
        text, 124, initial_indent=f"  {case.measure:23}", subsequent_indent=25 * " ", break_on_hyphens=False
    )


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description="The time and the error of measures beside kl_divergence and others.")
    parser.add_argument("measures", nargs="*", metavar="MEASURE", help=", ".join(DIVERGENCES))
    parser.add_argument(
        "--full", action="store_true", help="100,000 x 1000 and 5,000,000 x 10: 8 GB, and a quarter of an hour"
    )
    parser.add_argument("--turns", type=int, default=5, metavar="N", help="times that each call is measured (default: 5)")
    parser.add_argument("--threads", type=int, default=2, metavar="N", help="threads of those that take some (default: 2)")
    options = parser.parse_args()
    if unknown := set(options.measures) - set(DIVERGENCES):
        parser.error(f"no measure {', '.join(sorted(unknown))}; there are {', '.join(DIVERGENCES)}")
    print(textwrap.fill(machine(), 124), *(f"missing: {x}" for x in missing()), sep="\n")
    for rows, columns in FULL_SHAPES if options.full else SHAPES:
        for dtype in DTYPES:
            case = Case(dtype=dtype, rows=rows, columns=columns, threads=options.threads)
            data = operands(case)
            print(f"\n{rows:,} x {columns} {dtype}, {options.threads} threads")
            for measure in options.measures or DIVERGENCES:
                print(line(replace(case, measure=measure), data, options.turns), flush=True)


if __name__ == "__main__":
    main()
