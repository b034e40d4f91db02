"""The verb `score` of the command: its arguments, and what is printed when a run has ended."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from . import results
from .job import score
from .scoring import MEASURES, unit

if TYPE_CHECKING:
    import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `fastkl score`."""
    parser.add_argument(
        "p", metavar="P", help="the reference: .npy, FILE.npz:NAME, FILE.parquet:COLUMN or a folder of such, .zarr"
    )
    parser.add_argument(
        "q", metavar="Q", nargs="?", help="what is compared with it, row by row; one row serves all; not for entropy"
    )
    what = parser.add_argument_group("what is computed")
    what.add_argument(
        "--measure", choices=list(MEASURES), help="kl unless there are labels: then compare, which is all of them"
    )
    what.add_argument("--from-logits", action="store_true", help="rows are logits, of which the softmax is taken")
    what.add_argument("--temperature", type=float, default=1.0, metavar="T", help="what logits are divided by (default: 1)")
    what.add_argument(
        "--labels", metavar="L", help="the right class of every row, for the losses and perplexities of P and Q"
    )
    what.add_argument("--normalize", action="store_true", help="rows are weights: counts, histograms, scores")
    what.add_argument(
        "--base", type=float, metavar="B", help="of the logarithm; 2 gives bits (default: e, which gives nats)"
    )
    what.add_argument("--eps", type=float, default=0.0, metavar="E", help="raise the entries of Q below it (default: 0)")
    what.add_argument(
        "--invalid",
        choices=["raise", "nan"],
        default="raise",
        help="an invalid row ends the run, or is nan (default: raise)",
    )
    where = parser.add_argument_group("what comes of it")
    where.add_argument("--out", metavar="FILE", help="a value a row: .npy, .parquet or .zarr")
    where.add_argument("--keys", metavar="COLUMNS", default="", help="columns of P, with commas, for a Parquet file FILE")
    where.add_argument("--resume", action="store_true", help="go on where a run with the same FILE was interrupted")
    where.add_argument("--report", metavar="FILE", help="an HTML page: histogram, quantiles, worst rows")
    where.add_argument("--json", action="store_true", help="print the summary as JSON")
    how = parser.add_argument_group("who computes")
    how.add_argument("--threads", type=int, metavar="N", help="most threads (default: what this process may use)")
    how.add_argument(
        "--dask",
        nargs="?",
        const="",
        metavar="ADDRESS",
        help="workers of the Dask cluster there, or of one on this machine",
    )


def run(arguments: argparse.Namespace) -> None:
    """Score, and print the summary."""
    try:
        result = score(
            arguments.p,
            arguments.q,
            arguments.labels,
            measure=arguments.measure,
            from_logits=arguments.from_logits,
            temperature=arguments.temperature,
            normalize=arguments.normalize,
            base=arguments.base,
            eps=arguments.eps,
            invalid=arguments.invalid,
            out=arguments.out,
            keys=[key for key in arguments.keys.split(",") if key],
            resume=arguments.resume,
            report=arguments.report,
            threads=arguments.threads,
            progress=sys.stderr.isatty(),
            dask=arguments.dask,
        )
    except KeyboardInterrupt as stop:
        stop.args = stop.args or ("interrupted",)
        raise
    print(results.to_json(result) if arguments.json else results.to_text(result, unit(arguments.base)))
