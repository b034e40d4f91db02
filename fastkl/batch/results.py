"""The result of a run as a dict: a summary of each field, numbers made of several fields, and differences of models."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from fractions import Fraction
from itertools import combinations
from typing import Any, Final

import numpy as np

from ..call import Array
from .standard_errors import Clusters, ClusterSums, Mean
from .summary import BLOCK, NAMED, Summary
from .totals import Floats, Integers, Moments, Products

SPEED: Final = ("seconds", "rows_per_second", "bytes_per_second")
# Fields made of both losses of a row. The mean of the first is the logarithm of the perplexities' ratio.
_NLL_INCREASE: Final = "nll_increase"  # nll_q - nll_p
_DELTA_P: Final = "delta_p"  # exp(-nll_q) - exp(-nll_p), the change of the label's probability


class Results:
    """The statistics of the values of a run: of its model, or of several models and the differences of each two."""

    def __init__(
        self, dtype: np.dtype[Any], base: float | None, models: tuple[str, ...], clustered: bool, top: int | None = None
    ) -> None:
        dtypes = {name: dtype[name] for name in models} or {"": dtype}
        self._several = bool(models)
        self._clusters = Clusters() if clustered else None
        self.models = {name: Model(x.names, base, clustered, NAMED if top is None else top) for name, x in dtypes.items()}
        self._pairs = {
            pair: {name: Mean(clustered) for name in _of_q(dtypes[pair[0]].names)} for pair in combinations(models, 2)
        }

    def update(self, values: Array, ignored: Array | None, clusters: Array | None = None) -> None:
        """Add the values of the next rows: which of them have an ignored label, and the names of their clusters."""
        numbers = None if clusters is None or self._clusters is None else self._clusters.number(clusters)
        for start in range(0, len(values), BLOCK):
            block = slice(start, start + BLOCK)
            here = [None if x is None else x[block] for x in (ignored, numbers)]
            columns = {}
            for name, model in self.models.items():
                columns[name] = model.update(values[block][name] if name else values[block], *here)
            for (one, other), means in self._pairs.items():
                for name, mean in means.items():
                    with np.errstate(invalid="ignore"):  # of two infinite values
                        mean.update(columns[one][name] - columns[other][name], here[1])

    def result(self, speed: dict[str, float]) -> dict[str, Any]:
        """The result of the model; of several, {"models": [results, with "q"], "paired": [differences, with "q"]}."""
        results = {name: model.result(speed) for name, model in self.models.items()}
        if not self._several:
            return results[""]
        paired: list[dict[str, Any]] = []
        for pair, means in self._pairs.items():
            differences = {name: mean.result() for name, mean in means.items()}
            paired += [{"q": list(pair)} | differences.pop("", {}) | differences]
        return {"models": [{"q": name} | result for name, result in results.items()], "paired": paired}


def _main(names: tuple[str, ...] | None) -> str:
    """The field that says how far a row diverges."""
    return "kl" if names else ""


def _of_q(names: tuple[str, ...] | None) -> list[str]:
    """The fields that depend on Q."""
    return [name for name in names or ("",) if not name.endswith("_p")]


class Model:
    """The statistics of the values of one Q."""

    def __init__(self, names: tuple[str, ...] | None, base: float | None, clustered: bool, top: int) -> None:
        self._log_base = math.log(math.e if base is None else base)
        self._losses: Products | None = None
        fields = list(names or ("",))
        if "nll_q" in fields:
            fields += [_NLL_INCREASE, _DELTA_P]
            nothing = Moments(0, Fraction(0), Fraction(0))
            self._losses = Products(nothing, nothing, Fraction(0))
        self.summaries = {name: Summary(top if name == _main(names) else NAMED) for name in fields}
        self._sums = {name: ClusterSums() for name in fields} if clustered else {}

    def update(self, values: Array, ignored: Array | None, clusters: Integers | None) -> dict[str, Floats]:
        """Add the values of the next rows, which have these fields, or none; the values as statistics count them.

        Losses of rows with an ignored label are left out: in what is returned, they are NaN.
        """
        columns = self._columns(values)
        for name, summary in self.summaries.items():
            of_labels = not name or name.startswith("nll") or name == _DELTA_P
            out = ignored if of_labels else None
            summary.update(columns[name], ignored=out)
            if out is not None:
                columns[name] = np.where(out, math.nan, columns[name])
            if clusters is not None:
                self._sums[name].update(columns[name], clusters)
        if self._losses is not None:
            p, q = columns["nll_p"], columns["nll_q"]
            both = np.isfinite(p) & np.isfinite(q)
            if both.any():
                self._losses = self._losses.plus(Products.of(p[both], q[both]))
        return columns

    def _columns(self, values: Array) -> dict[str, Floats]:
        """The fields of the values and those made of several, as float64."""
        if not values.dtype.names:
            return {"": values.astype(float)}
        columns = {name: values[name].astype(float) for name in values.dtype.names}
        # Of an invalid row, it is False in the file, and NaN for the statistics.
        columns["same_argmax"] = np.where(np.isnan(columns["kl"]), math.nan, columns["same_argmax"])
        if self._losses is not None:
            p, q = columns["nll_p"], columns["nll_q"]
            with np.errstate(invalid="ignore", over="ignore"):  # infinite losses of both
                columns[_NLL_INCREASE] = q - p
                columns[_DELTA_P] = np.exp(-self._log_base * q) - np.exp(-self._log_base * p)
        return columns

    def result(self, speed: dict[str, float]) -> dict[str, Any]:
        """The summary and the speed; of several fields, such a dict each, and the numbers made of several."""
        objects: dict[str, dict[str, Any]] = {name: summary.result() | speed for name, summary in self.summaries.items()}
        for name, sums in self._sums.items():
            objects[name] |= sums.result()
        if "" in objects:
            return objects[""]
        joint: dict[str, Any] = {"rows": objects["kl"]["rows"]} | speed
        joint["top1_agreement"] = objects["same_argmax"]["mean"]
        if self._losses is not None:
            joint |= self._perplexities(objects)
            change = objects[_DELTA_P]
            n = change["rows"] - change["ignored"] - change["invalid"]
            change["rms"] = (
                math.hypot(change["mean"], change["std"] * math.sqrt((n - 1) / n)) if n > 1 else abs(change["mean"])
            )
        return joint | objects

    def _perplexities(self, objects: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
        """The perplexities and their ratio, and the standard errors, by the first derivative (the delta method).

        The ratio is that of the geometric means over rows, so that the variance of its logarithm is that of the mean
        nll_q - nll_p, Var p + Var q - 2 Cov(p, q).
        """
        values: dict[str, float] = {}
        for name, field, losses in ("p", "nll_p", "p"), ("q", "nll_q", "q"), ("ratio", _NLL_INCREASE, "pq"):
            values[name] = self._power(objects[field]["mean"])
            error = values[name] * self._log_base * objects[field]["stderr"]
            if any(objects[f"nll_{loss}"]["infinite"] for loss in losses):
                values[name] = values["q"] / values["p"] if name == "ratio" else math.inf
                error = math.nan
            yield f"perplexity_{name}", values[name]
            yield f"perplexity_{name}_stderr", error
        assert self._losses is not None
        yield "ln_ppl_correlation", self._losses.correlation()

    def _power(self, exponent: float) -> float:
        """The power of the base, which may be beyond the largest float."""
        try:
            return math.exp(self._log_base * exponent)
        except OverflowError:
            return math.inf


def models_of(result: dict[str, Any], name: str = "") -> dict[str, dict[str, Any]]:
    """The result of each model by its name; that of a run with one model by the given name."""
    return {model["q"]: model for model in result["models"]} if "models" in result else {name: result}


def main_of(model: dict[str, Any]) -> dict[str, Any]:
    """The summary of the divergence of a model: its measure, or the field `kl` of a comparison."""
    main: dict[str, Any] = model.get("kl", model)
    return main


def to_json(result: Mapping[str, Any]) -> str:
    """The result as strict JSON: numbers that are not finite are null, and counted."""
    return json.dumps(json.loads(json.dumps(result), parse_constant=lambda _: None), allow_nan=False)
