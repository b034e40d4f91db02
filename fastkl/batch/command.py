"""The verb `score` of the command: its arguments, and the summary that it prints."""

from __future__ import annotations

import argparse
import sys

from . import results
from .job import score
from .scoring import MEASURES, unit


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `fastkl score`."""
    parser.add_argument(
        "p",
        metavar="P",
        help="the reference: .npy, .kld, .zarr, FILE.npz:NAME, FILE.safetensors:NAME, FILE.parquet:COLUMN or a folder",
    )
    parser.add_argument(
        "q", metavar="Q", nargs="?", help="what is compared with it, row by row; one row serves all; not for entropy, nll"
    )
    what = parser.add_argument_group("what is computed")
    what.add_argument("--measure", choices=list(MEASURES), help="default: kl, or with labels compare, which is all of them")
    what.add_argument("--from-logits", action="store_true", help="rows are logits, of which the softmax is taken")
    what.add_argument("--temperature", type=float, default=1.0, metavar="T", help="what logits are divided by (default: 1)")
    what.add_argument(
        "--labels",
        metavar="L",
        help="the right class of every row: adds losses and perplexities (default: those of a .kld file)",
    )
    what.add_argument("--ignore-index", type=int, metavar="N", help="a label whose rows have no loss, such as -100")
    what.add_argument("--normalize", action="store_true", help="rows are weights: counts, histograms, scores")
    what.add_argument("--base", type=float, metavar="B", help="base of the logarithm; 2 gives bits (default: e, nats)")
    what.add_argument("--eps", type=float, default=0.0, metavar="E", help="clip the entries of Q below it (default: 0)")
    what.add_argument("--alpha", type=float, metavar="A", help="order of renyi_divergence, a positive number or inf")
    what.add_argument(
        "--invalid", choices=["raise", "nan"], default="raise", help="end at an invalid row, or write nan (default: raise)"
    )
    where = parser.add_argument_group("results")
    where.add_argument("--out", metavar="FILE", help="the file of the values of all rows: .npy, .parquet or .zarr")
    keys = where.add_argument(
        "--keys", metavar="COLUMNS", default=(), help="columns of P, with commas, to write in Parquet"
    )
    keys.type = lambda text: [key for key in text.split(",") if key]
    where.add_argument("--resume", action="store_true", help="continue a run with the same FILE that was interrupted")
    where.add_argument("--report", metavar="FILE", help="an HTML page: histogram, quantiles, worst rows")
    where.add_argument("--json", action="store_true", help="print the summary as JSON")
    how = parser.add_argument_group("threads and workers")
    how.add_argument("--threads", type=int, metavar="N", help="most threads (default: what this process may use)")
    how.add_argument(
        "--dask", nargs="?", const="", metavar="ADDRESS", help="use a Dask cluster (default: a new one on this machine)"
    )


def run(arguments: argparse.Namespace) -> None:
    """Score, and print the summary."""
    options = {name: value for name, value in vars(arguments).items() if name not in ("run", "json")}
    try:
        result = score(**options, progress=sys.stderr.isatty())
    except KeyboardInterrupt as stop:
        stop.args = stop.args or ("interrupted",)
        raise
    measured = unit(arguments.measure or "compare", arguments.base)
    print(results.to_json(result) if arguments.json else results.to_text(result, measured))
