"""The measures, all with the same call: measure(p, q, **keywords)."""

from __future__ import annotations

from inspect import signature
from typing import Any

import reference

import fastkl


def entropy(p: Any, _: Any, **keywords: Any) -> Any:
    """The entropy of p, in the form of a measure of pairs."""
    return fastkl.entropy(p, **keywords)


PAIR_MEASURES = [getattr(fastkl, name) for name in reference.DEFINITIONS if name != "entropy"]
MEASURES = [entropy, *PAIR_MEASURES]
EPS_MEASURES = [x for x in PAIR_MEASURES if "eps" in signature(x).parameters]  # which are also infinite where q = 0 < p
