"""What is computed of a block of rows: the options of a run, and the values and fields that come of them.

Stands between the measures' one checked call and runs over many blocks; knows nothing of files. Options can be pickled.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from .. import _rows
from ..measures import Comparison

if TYPE_CHECKING:
    from collections.abc import Callable

    from .._rows import Array, Index

# The command's names for what is computed, and the measure that does it.
MEASURES: Final = {
    "kl": "kl_divergence",
    "ce": "cross_entropy",
    "js": "js_divergence",
    "entropy": "entropy",
    "compare": "kl_divergence",
}
_OPERAND: Final = re.compile(r"(?:logits )?(p|q|labels)\b")


@dataclass(frozen=True)
class Options:
    """What is asked of every row; as the arguments of the measures."""

    measure: str = "kl"
    from_logits: Any = False
    temperature: float = 1.0
    normalize: bool = False
    base: float | None = None
    eps: float = 0.0
    invalid: str = "raise"
    labels: bool = False  # whether a third operand has some

    def __post_init__(self) -> None:
        """Check what the measures cannot, for they have other arguments."""
        if self.measure not in MEASURES:
            raise ValueError(f"measure={self.measure!r}: must be one of {', '.join(MEASURES)}")
        if self.eps and self.measure not in ("kl", "ce"):
            raise ValueError(f"eps={self.eps!r}: only for measure kl or ce")
        if self.labels and not self.comparison:
            raise ValueError("labels: only for measure compare (those of a cross-entropy are its p)")

    @property
    def comparison(self) -> bool:
        """Whether a row has a value a field."""
        return self.measure == "compare"

    def identity(self) -> dict[str, Any]:
        """All of it as JSON has it."""
        return {name: list(x) if isinstance(x, tuple) else x for name, x in asdict(self).items()}

    def facts(self) -> dict[str, str]:
        """Those that are not as by default, and the measure, for people."""
        changed = ((x.name, getattr(self, x.name)) for x in fields(self) if getattr(self, x.name) != x.default)
        return {"measure": self.measure} | {
            name.replace("_", " "): str(value) for name, value in changed if name != "labels"
        }

    def dtype(self, *operands: np.dtype[Any]) -> np.dtype[Any]:
        """What a row's value is, of operands that hold rows: a number, or one a field for a comparison."""
        real = np.result_type(*(_rows._operand("", np.empty(0, x))[1].result for x in operands))
        if not self.comparison:
            return real
        names = [name for name in Comparison._fields if self.labels or not name.startswith("nll")]
        return np.dtype([(name, np.bool if name == "same_argmax" else real) for name in names])


def evaluate(
    options: Options,
    p: Array,
    q: Array | None,
    labels: Array | None,
    out: Array,
    locate: Callable[[str, Index], Index] | None = None,
    threads: int | None = 1,
) -> None:
    """Fill `out`, of the options' dtype, with the values of the rows. Raises as the measures do."""
    softmax = _rows._PROBABILITIES
    if options.comparison or options.from_logits is not False or options.temperature != 1:
        softmax = _rows.Softmax(options.from_logits, options.temperature, labels=labels, compare=options.comparison)
    result = _rows.evaluate(
        MEASURES[options.measure],
        (p,) if q is None else (p, q),
        -1,
        options.base,
        options.normalize,
        options.eps,
        options.invalid,
        None if options.comparison else out,
        False,
        threads,
        locate=locate,
        softmax=softmax,
    )
    if options.comparison:
        for i, name in enumerate(Comparison._fields):
            if name in (out.dtype.names or ()):
                out[name] = result[i] == 1 if name == "same_argmax" else result[i]  # of an invalid row, it is NaN


def operand_of(message: str) -> str | None:
    """Which operand the message of an error about a row speaks of."""
    match = _OPERAND.match(message)
    return match[1] if match else None


def unit(base: float | None) -> str:
    """What values are in."""
    return "nats" if base is None else "bits" if base == 2 else f"units of log {base:g}"
