"""The measures under test, all called alike: measure(p, q, **keywords)."""

from __future__ import annotations

from typing import Any

import fastkl


def entropy(p: Any, _: Any, **keywords: Any) -> Any:
    """The entropy, as if it were a measure of pairs."""
    return fastkl.entropy(p, **keywords)


MEASURES = [entropy, fastkl.cross_entropy, fastkl.kl_divergence, fastkl.js_divergence, fastkl.js_distance]
PAIR_MEASURES = MEASURES[1:]
EPS_MEASURES = [fastkl.cross_entropy, fastkl.kl_divergence]  # also those that are infinite where q is zero and p is not
