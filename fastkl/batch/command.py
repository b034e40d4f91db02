"""The verb `score` of the command: its arguments, and the summary that it prints."""

from __future__ import annotations

import argparse
import sys
from typing import Any, Final

from . import results
from .job import score
from .readers import TopKFiles
from .scoring import MEASURES, unit

_TOPK: Final = {
    "ids": "the columns of Q that are known of each row, (..., k)",
    "values": "their probabilities, (..., k)",
    "tail": "the probability of all others, (...) (default: what the values leave of 1)",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `fastkl score`."""
    parser.add_argument(
        "p",
        metavar="P",
        nargs="?",
        help="the reference: .npy, FILE.npz:NAME, FILE.parquet:COLUMN or a folder of such, .zarr",
    )
    parser.add_argument(
        "q", metavar="Q", nargs="?", help="what is compared with it, row by row; one row serves all; not for entropy, nll"
    )
    top = parser.add_argument_group(
        "top-k rows in the place of P", "two FILEs are of P and Q, which are then both left out"
    )
    for name, text in _TOPK.items():
        top.add_argument(f"--topk-{name}", nargs="+", metavar="FILE", help=text)
    top.add_argument("--topk-log-probs", action="store_true", help="the values are natural logarithms of probabilities")
    what = parser.add_argument_group("what is computed")
    what.add_argument("--measure", choices=list(MEASURES), help="default: kl, or with labels compare, which is all of them")
    what.add_argument("--from-logits", action="store_true", help="rows are logits, of which the softmax is taken")
    what.add_argument("--temperature", type=float, default=1.0, metavar="T", help="what logits are divided by (default: 1)")
    what.add_argument("--labels", metavar="L", help="the right class of every row: adds losses and perplexities of P and Q")
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


def _operands_of(options: dict[str, Any]) -> list[Any]:
    """P and Q, of which one or both may be top-k rows, whose options are taken out."""
    given = {name: options.pop(f"topk_{name}") or [] for name in _TOPK}
    log_probs, full = options.pop("topk_log_probs"), [options.pop("p"), options.pop("q")]
    count = len(given["ids"])
    if any(given.values()) or log_probs:
        if not 1 <= count <= 2 or count != len(given["values"]) or len(given["tail"]) not in (0, count):
            raise ValueError(
                "--topk-ids, --topk-values and --topk-tail: must have one FILE each, or two; a tail may be left out"
            )
        if len([x for x in full if x]) != 2 - count:
            raise ValueError(f"{'P and Q' if count > 1 else 'P'}: must be left out, because --topk-ids is given")
        tails = given["tail"] or [None, None]
        tops = [TopKFiles(*fields, log_probs) for fields in zip(given["ids"], given["values"], tails, strict=False)]
        return [*tops, *full][:2]
    if full[0] is None:
        raise ValueError("P: must be given, or --topk-ids and --topk-values")
    return full


def run(arguments: argparse.Namespace) -> None:
    """Score, and print the summary."""
    options = {name: value for name, value in vars(arguments).items() if name not in ("run", "json")}
    p, q = _operands_of(options)
    try:
        result = score(p, q, **options, progress=sys.stderr.isatty())
    except KeyboardInterrupt as stop:
        stop.args = stop.args or ("interrupted",)
        raise
    measured = unit(arguments.measure or "compare", arguments.base)
    print(results.to_json(result) if arguments.json else results.to_text(result, measured))
