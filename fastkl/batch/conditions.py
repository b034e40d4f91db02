"""Conditions under which a model fails, such as kl.mean>0.06, and the number of a result that each of them names."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Final, NamedTuple

_COMPARES: Final = {">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le}
_FORM: Final = re.compile(r"\s*([\w.]+)\s*([<>]=?)\s*(\S+)\s*")


class ConditionError(ValueError):
    """A condition that is none, or that names no number of the result."""


class Condition(NamedTuple):
    """The model fails if this number of its result is beyond the limit, or is not finite."""

    text: str
    field: str  # the keys of the number, joined by dots
    comparison: str
    limit: float

    @classmethod
    def of(cls, text: str) -> Condition:
        """The condition that the text states; ConditionError if it states none."""
        try:
            if match := _FORM.fullmatch(text):
                limit = float(match[3])
                if math.isfinite(limit):
                    return cls(text, match[1], match[2], limit)
        except ValueError:
            pass
        raise ConditionError(f"fail_if={text!r}: must be a field, one of > >= < <=, and a number, such as kl.mean>0.06")

    def check(self, measure: str, model: dict[str, Any]) -> str:
        """Why the model fails; empty if it does not. ConditionError if its result has no such number."""
        numbers = dict(_numbers(model if measure == "compare" else {measure: model} | model))
        if self.field not in numbers:
            near = get_close_matches(self.field, numbers) or [*numbers][:20]
            raise ConditionError(f"fail_if={self.text!r}: must name a number of the result, such as {', '.join(near)}")
        value = math.nan if (number := numbers[self.field]) is None else number
        fails = not math.isfinite(value) or _COMPARES[self.comparison](value, self.limit)
        return f"{self.text}: {self.field} is {value:.6g}" if fails else ""


def failures(conditions: Sequence[Condition], measure: str, model: dict[str, Any]) -> list[str]:
    """Why the model fails, for each of the conditions by which it does."""
    return [reason for condition in conditions if (reason := condition.check(measure, model))]


def _numbers(result: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """The numbers of a result by their keys, joined by dots."""
    for key, value in result.items():
        if isinstance(value, dict):
            yield from _numbers(value, f"{before}{key}.")
        elif value is None or isinstance(value, (int, float)):
            yield before + key, value
