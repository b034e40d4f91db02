"""The options of a run, and the values that they give for a block of rows. Knows nothing of files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from inspect import signature
from typing import Any, Final, Literal, NamedTuple

import numpy as np

from .. import _kernels, call, measures
from .._kernels import Stop
from ..call import Array, InvalidRowError, Request
from ..measures import Comparison


class Measure(NamedTuple):
    """A measure as `score` offers it."""

    function: str
    q: bool  # whether it has two matrices
    labels: bool  # whether it can have labels
    eps: bool


def _measure(name: str) -> Measure:
    names = signature(getattr(measures, name)).parameters.keys()
    return Measure(name, {"p", "q"} <= names, "labels" in names, "eps" in names)


# By the command's names, which are the functions' for all but three.
_NAMES: Final = {"kl_divergence": "kl", "cross_entropy": "ce", "js_divergence": "js"}
_ORDER: Final = (*_NAMES, "entropy", "nll", "compare", *_kernels.MEASURES)
MEASURES: Final = {_NAMES.get(name, name): _measure(name) for name in _ORDER}


@dataclass(frozen=True)
class Options:
    """The arguments of the measures that hold for every row; they can be pickled."""

    measure: str = "kl"
    from_logits: bool | Literal["p", "q"] = False
    temperature: float = 1.0
    normalize: bool = False
    base: float | None = None
    eps: float = 0.0
    invalid: str = "raise"
    ignore_index: int | None = None
    labels: bool = False  # whether there are labels

    def __post_init__(self) -> None:
        """Check what the measures do not, because their arguments are others."""
        if self.measure not in MEASURES:
            raise ValueError(f"measure={self.measure!r}: must be one of {', '.join(MEASURES)}")
        if self.eps and not MEASURES[self.measure].eps:
            raise ValueError(f"eps={self.eps!r}: only for measure kl, ce or nll")
        if self.labels and not MEASURES[self.measure].labels:
            raise ValueError("labels: only for measure compare or nll")
        if self.measure == "nll" and not self.labels:
            raise ValueError("labels: must be given for nll")

    def facts(self) -> dict[str, str]:
        """The measure, and the options that differ from the defaults, as a report lists them."""
        values = ((x, getattr(self, x.name)) for x in fields(self) if x.name != "labels")
        changed = {x.name.replace("_", " "): str(value) for x, value in values if value != x.default}
        return {"measure": self.measure} | changed

    def dtype(self, *operands: np.dtype[Any]) -> np.dtype[Any]:
        """The dtype of a row's value, for operands of those dtypes: a number, or a field for each of a comparison's."""
        real = np.result_type(*(call.read_operand("", np.empty(0, x))[1].result for x in operands))
        if self.measure != "compare":
            return real
        names = [name for name in Comparison._fields if self.labels or not name.startswith("nll")]
        return np.dtype([(name, np.bool if name == "same_argmax" else real) for name in names])


def request_of(options: Options, rows: Mapping[str, Array], out: Array | None = None) -> Request:
    """The request for the values of the rows."""
    p, q, labels = (rows.get(name) for name in ("p", "q", "labels"))
    operands = (None, p, labels) if options.measure == "nll" else (p, q, labels)
    values = {x.name: getattr(options, x.name) for x in fields(options) if x.name not in ("measure", "labels")}
    return Request(MEASURES[options.measure].function, *operands).replace(threads=1, out=out, **values)


def evaluate(options: Options, rows: Mapping[str, Array], out: Array, stop: Stop | None = None) -> None:
    """Fill `out`, of the options' dtype, with the values of the rows. Raises as the measures do."""
    loss, comparison = (options.measure == name for name in ("nll", "compare"))
    try:
        request = request_of(options, rows, None if comparison else out)
        request.stop = stop
        result = call.run(request)
    except InvalidRowError as error:
        if loss and error.operand == "q":  # the rows, which are p here
            error.operand = "p"
        raise
    for name in out.dtype.names or ():
        column = result[Comparison._fields.index(name)]
        out[name] = column == 1 if name == "same_argmax" else column  # of an invalid row, it is NaN


def unit(base: float | None) -> str:
    """The unit of the values."""
    return "nats" if base is None else "bits" if base == 2 else f"units of log {base:g}"
