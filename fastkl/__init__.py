"""Exact information measures for rows of probability matrices.

    measures.py   documented functions, the whole public surface
    _rows.py      checks, shapes, dtypes, messages
                  (beside it, for what is no NumPy array: _containers.py, other libraries' containers; _pieces.py, operands
                  that are in no array as a whole)
    _kernels.pyx  typed loops over blocks of rows, in parallel, without the GIL
    _core/        plain C: one row's sums, what they say, and the element maths, compiled for each SIMD tier
    _build.py     the tier and the number of threads, chosen at import

Data flows down this list and results come back up; nothing below knows what is above it. compat/, imported when it is asked
for, stands on top: other libraries' functions, computed by these.
"""

from ._build import build_info, choose_tier, limit_threads
from ._version import __version__
from .measures import Comparison, compare, cross_entropy, entropy, js_distance, js_divergence, kl_divergence

__all__ = [
    "Comparison",
    "__version__",
    "build_info",
    "compare",
    "cross_entropy",
    "entropy",
    "js_distance",
    "js_divergence",
    "kl_divergence",
]

choose_tier()
limit_threads()
del choose_tier, limit_threads
