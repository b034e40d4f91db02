"""The verb `score` of the command: its arguments, and the summary that it prints."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence
from typing import Any, Final

from .conditions import ConditionError
from .job import score
from .readers import TopKFiles
from .results import models_of, to_json
from .scoring import MEASURES, unit
from .text import to_markdown, to_text

FAILED, USAGE = 3, 2  # the exit status if a model fails a condition, and if a condition is none

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
        help="the reference: .npy, .kld, .zarr, FILE.npz:NAME, FILE.safetensors:NAME, FILE.parquet:COLUMN or a folder",
    )
    parser.add_argument(
        "q", metavar="Q", nargs="*", help="what is compared with it, row by row, one or several; not for entropy, nll"
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
    what.add_argument(
        "--labels",
        metavar="L",
        help="the right class of every row: adds losses and perplexities (default: those of a .kld file)",
    )
    what.add_argument("--ignore-index", type=int, metavar="N", help="a label whose rows have no loss, such as -100")
    what.add_argument("--normalize", action="store_true", help="rows are weights: counts, histograms, scores")
    what.add_argument("--base", type=float, metavar="B", help="base of the logarithm; 2 gives bits (default: e, nats)")
    what.add_argument("--eps", type=float, default=0.0, metavar="E", help="clip the entries of Q below it (default: 0)")
    what.add_argument("--columns", type=int, metavar="N", help="use the first N columns of P and Q (default: all)")
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
    where.add_argument("--top", type=int, metavar="N", help="name the N rows that diverge most, with label and argmaxes")
    where.add_argument("--report", metavar="FILE", help="an HTML page: models compared, histograms, worst rows")
    form = where.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print the summary as JSON")
    form.add_argument("--markdown", action="store_true", help="print the table of a model card, in Markdown")
    where.add_argument(
        "--cluster-by", metavar="C", help="integers, the cluster of every row, such as its document, for standard errors"
    )
    condition = where.add_argument("--fail-if", metavar="CONDITION", action="append", default=[])
    condition.help = f"exit with status {FAILED} if it holds, such as 'kl.mean>0.06', or is not finite; may be repeated"
    how = parser.add_argument_group("threads and workers")
    how.add_argument("--threads", type=int, metavar="N", help="most threads (default: what this process may use)")
    how.add_argument(
        "--dask", nargs="?", const="", metavar="ADDRESS", help="use a Dask cluster (default: a new one on this machine)"
    )


def names_of(paths: Sequence[str]) -> list[str]:
    """A name for each Q: of its file or folder, and only if these are equal, the whole path without separators."""
    short = (_stem, os.path.basename, lambda path: os.path.basename(os.path.dirname(path)), _joined)
    for names in ([*map(name, paths)] for name in short):
        if all(names) and len(set(names)) == len(names):
            return names
    raise ValueError(f"Q: {', '.join(paths)}: must be different files")


def _stem(path: str) -> str:
    return os.path.splitext(os.path.basename(path))[0]


def _joined(path: str) -> str:
    return re.sub(r"[/\\]+", "_", os.path.normpath(path)).lstrip("._")


def _operands_of(options: dict[str, Any]) -> tuple[Any, list[Any]]:
    """P and each Q, which are taken out of the options; P, or both, may be top-k rows, which have options of their own."""
    given = {name: options.pop(f"topk_{name}") or [] for name in _TOPK}
    log_probs = options.pop("topk_log_probs")
    full = [x for x in (options.pop("p"), *options.pop("q")) if x is not None]
    count = len(given["ids"])
    if any(given.values()) or log_probs:
        if not 1 <= count <= 2 or count != len(given["values"]) or len(given["tail"]) not in (0, count):
            raise ValueError(
                "--topk-ids, --topk-values and --topk-tail: must have one FILE each, or two; a tail may be left out"
            )
        if bool(full) != (count == 1):
            raise ValueError(f"{'P and Q: must be left out' if count > 1 else 'Q: must be given'} beside --topk-ids")
        tails = given["tail"] or [None, None]
        tops = [TopKFiles(*fields, log_probs) for fields in zip(given["ids"], given["values"], tails, strict=False)]
        return tops[0], tops[1:] or full
    if not full:
        raise ValueError("P: must be given, or --topk-ids and --topk-values")
    return full[0], full[1:]


def run(arguments: argparse.Namespace) -> int:
    """Score, print the summary, and return the exit status."""
    options = {name: value for name, value in vars(arguments).items() if name not in ("run", "json", "markdown")}
    p, others = _operands_of(options)
    names = ["q"] if any(isinstance(q, TopKFiles) for q in others) else names_of(others)
    q = dict(zip(names, others, strict=True)) if len(others) > 1 else next(iter(others), None)
    try:
        result = score(p, q, **options, progress=sys.stderr.isatty())
    except KeyboardInterrupt as stop:
        stop.args = stop.args or ("interrupted",)
        raise
    except ConditionError as error:
        print(f"fastkl: {error}", file=sys.stderr)
        return USAGE
    models = models_of(result, "".join(names[:1]))
    measure = arguments.measure or ("compare" if any("kl" in model for model in models.values()) else "kl")
    measured = unit(measure, arguments.base)
    named = f"{measure} in {measured}" if measured else measure
    if arguments.json:
        print(to_json(result))
    else:
        print(to_markdown(models, named) if arguments.markdown else to_text(result, named, measured))
    failed = [f"{name} fails {reason}" for name, model in models.items() for reason in model.get("failed", ())]
    for line in failed:
        print(f"fastkl: {line}", file=sys.stderr)
    return FAILED if failed else 0
