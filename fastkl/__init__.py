"""Exact information measures for rows of probability matrices.

    measures.py   documented functions, the whole public surface
    _rows.py      checks, shapes, dtypes, messages
                  (beside it, for what is no NumPy array: _containers.py, other libraries' containers; _pieces.py, operands
                  that are in no array as a whole)
    _kernels.pyx  typed loops over blocks of rows, in parallel, without the GIL
    _core/        plain C: one row's sums, what they say, and the element maths, compiled for each SIMD tier
    _build.py     the tier and the number of threads, chosen at import

Data flows down this list and results come back up; nothing below knows what is above it. Two packages stand on top, and are
imported when they are asked for: compat/, other libraries' functions, computed by these; batch/, files of any size.

Compiled callers enter at the kernels: Cython's by __init__.pxd, C's by include/fastkl_c.h.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._build import build_info, choose_tier, get_include, limit_threads
from ._version import __version__
from .measures import Comparison, compare, cross_entropy, entropy, js_distance, js_divergence, kl_divergence

__all__ = [
    "Comparison",
    "Summary",
    "__version__",
    "build_info",
    "compare",
    "cross_entropy",
    "entropy",
    "get_include",
    "js_distance",
    "js_divergence",
    "kl_divergence",
    "score",
]

if TYPE_CHECKING:
    from .batch import Summary, score


def __getattr__(name: str) -> Any:
    """`score` and `Summary`, which most users never ask for, and which take longer to import than all the rest."""
    if name in ("Summary", "score"):
        from . import batch

        return getattr(batch, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), "Summary", "score"]


choose_tier()
limit_threads()
del choose_tier, limit_threads
