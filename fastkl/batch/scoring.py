"""The options of a run, and the values that they give for a block of rows. Knows nothing of files."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from inspect import signature
from typing import Any, Final, Literal, NamedTuple

import numpy as np

from .. import _kernels, call, coarse_rows, measures
from .._kernels import Stop
from ..call import Array, InvalidRowError, Request
from ..measures import Comparison
from ..topk import TopK


class Measure(NamedTuple):
    """A measure as `score` offers it."""

    function: str
    arguments: frozenset[str]  # what the function takes, operands and options

    @property
    def q(self) -> bool:
        """Whether it has two matrices."""
        return {"p", "q"} <= self.arguments


def _measure(name: str) -> Measure:
    return Measure(name, frozenset(signature(getattr(measures, name)).parameters))


# By the command's names, which are the functions' for all but three.
_NAMES: Final = {"kl_divergence": "kl", "cross_entropy": "ce", "js_divergence": "js"}
_ORDER: Final = (*_NAMES, "entropy", "nll", "compare", *_kernels.MEASURES)
MEASURES: Final = {_NAMES.get(name, name): _measure(name) for name in _ORDER}
WITH_LABELS: Final = tuple(name for name, x in MEASURES.items() if "labels" in x.arguments)


@dataclass(frozen=True)
class Options:
    """The arguments of the measures that hold for every row; they can be pickled."""

    measure: str = "kl"
    from_logits: bool | Literal["p", "q"] = False
    temperature: float = 1.0
    normalize: bool = False
    base: float | None = None
    eps: float = 0.0
    alpha: float | None = None
    invalid: str = "raise"
    ignore_index: int | None = None
    labels: bool = False  # whether there are labels
    columns: int | None = None  # how many entries of each row are used, of the first; None: all
    models: tuple[str, ...] = ()  # the names of several q; a single one has none

    def __post_init__(self) -> None:
        """Check what the measures do not, because their arguments are others."""
        if self.measure not in MEASURES:
            raise ValueError(f"measure={self.measure!r}: must be one of {', '.join(MEASURES)}")
        taken = MEASURES[self.measure].arguments
        for name, value in self._changed().items():
            if name not in taken:
                raise ValueError(f"{name}={value!r}: only for measure {_takers(name)}")
        if self.columns is not None and (isinstance(self.columns, bool) or operator.index(self.columns) < 1):
            raise ValueError(f"columns={self.columns!r}: must be a positive integer")
        for name in self.models:
            if not isinstance(name, str) or not name.isprintable() or name[:1] in ("", ".") or set(name) & {"/", "\\"}:
                raise ValueError(f"q has the name {name!r}: must be text, without / or \\, that begins with no dot")
        if self.labels and "labels" not in taken:
            raise ValueError(f"labels: only for measure {_takers('labels')}")
        if self.measure == "nll" and not self.labels:
            raise ValueError("labels: must be given for nll")
        if "alpha" in taken and self.alpha is None:
            raise ValueError(f"alpha: must be given for {self.measure}")

    def _changed(self) -> dict[str, Any]:
        """The options that differ from the defaults."""
        options = (x for x in fields(self) if x.name not in ("measure", "labels", "columns", "models"))
        return {x.name: value for x in options if (value := getattr(self, x.name)) != x.default}

    def with_logits(self, name: Literal["p", "q"]) -> Options:
        """The options with that operand among those that hold logits."""
        alone = MEASURES[self.measure].q and self.from_logits in (False, name)
        return replace(self, from_logits=name if alone else True)

    def facts(self) -> dict[str, str]:
        """The measure, and the options that differ from the defaults, as a report lists them."""
        changed = self._changed() | ({} if self.columns is None else {"columns": f"the first {self.columns}"})
        return {"measure": self.measure} | {name.replace("_", " "): str(x) for name, x in changed.items()}

    @property
    def q_names(self) -> dict[str, str]:
        """The name of each model's operand; a single model has no name."""
        return {model: f"q[{model!r}]" for model in self.models} or {"": "q"}

    def dtype(self, operands: Mapping[str, np.dtype[Any]]) -> np.dtype[Any]:
        """The dtype of a row's value, for operands of those dtypes: of several models, a field each."""
        if not self.models:
            return self._dtype(*operands.values())
        return np.dtype([(model, self._dtype(operands["p"], operands[q])) for model, q in self.q_names.items()])

    def _dtype(self, *operands: np.dtype[Any]) -> np.dtype[Any]:
        """The dtype of a value of one model: a number, or a field for each of a comparison's."""
        real = np.result_type(*(call.read_operand("", np.empty(0, x))[1].result for x in operands))
        if self.measure != "compare":
            return real
        names = [name for name in Comparison._fields if self.labels or not name.startswith("nll")]
        return np.dtype([(name, np.bool if name == "same_argmax" else real) for name in names])


def _takers(argument: str) -> str:
    """The measures that take an argument, as words."""
    *names, last = (name for name, x in MEASURES.items() if argument in x.arguments)
    return f"{', '.join(names)} or {last}" if names else last


def operands_of(q: str, rows: Mapping[str, Any]) -> dict[str, Any]:
    """The operands of a measure by its own names, from those of a run in which the model's is named `q`."""
    return {"q" if name == q else name: x for name, x in rows.items() if name in ("p", "labels", q)}


def _operand(rows: Any) -> Any:
    """The rows themselves, or the TopK of fields that a reader of top-k rows gives."""
    names = (isinstance(rows, np.ndarray) and rows.dtype.names) or ()
    if "indices" not in names:
        return rows
    values = "log_probs" if "log_probs" in names else "values"
    tail = rows["tail"][:, 0, 0] if "tail" in names else None
    return TopK(rows["indices"][:, 0], rows[values][:, 0], tail, values == "log_probs")


def request_of(options: Options, rows: Mapping[str, Array], out: Array | None = None) -> Request:
    """The request for the values of the rows."""
    p, q, labels = (_operand(rows.get(name)) for name in ("p", "q", "labels"))
    operands = (None, p, labels) if options.measure == "nll" else (p, q, labels)
    function, taken = MEASURES[options.measure]
    values = {x.name: getattr(options, x.name) for x in fields(options) if x.name in taken and x.name != "labels"}
    # A function without `normalize` takes rows as they are, of any sum.
    return Request(function, *operands).replace(threads=1, out=out, **{"normalize": True} | values)


def evaluate(options: Options, rows: Mapping[str, Array], out: Array, stop: Stop | None = None) -> None:
    """Fill `out`, of the options' dtype, with the values of the rows. Raises as the measures do."""
    loss, comparison = (options.measure == name for name in ("nll", "compare"))
    try:
        request = request_of(options, rows, None if comparison else out)
        request.stop = stop
        has_topk = isinstance(request.p, TopK) or isinstance(request.q, TopK)
        result = coarse_rows.run(request) if has_topk else call.run(request)
    except InvalidRowError as error:
        if loss and error.operand == "q":  # the rows, which are p here
            error.operand = "p"
        raise
    for name in out.dtype.names or ():
        column = result[Comparison._fields.index(name)]
        out[name] = column == 1 if name == "same_argmax" else column  # of an invalid row, it is NaN


def unit(name: str, base: float | None) -> str:
    """The unit of the values of a measure, or of a field of a comparison; nothing where no logarithm is in them."""
    has_base = name not in MEASURES or "base" in MEASURES[name].arguments
    if name in ("same_argmax", "delta_p") or not (
        has_base or name == "generalized_kl"
    ):  # whose logarithm is the natural one
        return ""
    return "nats" if base is None else "bits" if base == 2 else f"units of log {base:g}"
