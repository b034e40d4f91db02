"""Exact information measures for rows of probability matrices.

The one way of a call, from the documented function down to the element maths:

    measures.py ──► containers/ ──► call.py ──► _kernels.pyx ──► _core/rows ──► _core/measures ──► _core/logratio
    documented      NumPy arrays    checks,     typed Cython:    C: rows of     what an entry      element maths
    functions       from, and       shapes,     blocks of rows   one SIMD       adds, what the
                    results for,    dtypes,     under prange,    tier           sums say
                    other           messages    without the
                    libraries                   GIL

Each arrow is an import and a call, and no module imports one to its left. Results come back as return values, and an
invalid row comes back as an InvalidRowError. A call with NumPy arrays alone goes from measures.py to call.py at once.

topk.py has the operand TopK, and coarse_rows.py its measures. docstrings.py has the texts that the documented functions
share. _build.py chooses the SIMD tier and the number of threads at import. Two packages stand on top and are imported on
demand: compat/ has other libraries' functions, computed by these, and batch/ scores files of any size. Compiled callers
enter at the kernels: Cython by __init__.pxd, C by include/fastkl_c.h.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

try:
    from . import _kernels as _kernels
except ImportError:
    from importlib.util import find_spec
    from pathlib import Path

    if find_spec(f"{__name__}._kernels"):
        raise  # It is there, and the error says why it does not load.
    _folder = Path(__file__).parent
    _others = ", ".join(path.name for path in _folder.glob("_kernels.*") if path.suffix in (".so", ".pyd"))
    raise ImportError(
        f"{_folder} has no compiled module fastkl._kernels for this Python{_others and f' (it has {_others})'}: "
        "install fastkl with `pip install .`, or compile it in place with `python setup.py build_ext --inplace` to work on "
        "it, in the folder of setup.py; where fastkl is installed already, run Python in another folder"
    ) from None

from . import measures
from ._build import build_info, choose_tier, get_include, limit_threads
from ._version import __version__
from .call import InvalidRowError
from .measures import *  # noqa: F403 - its __all__ lists the documented functions, so that a new one is exported
from .topk import TopK

__all__ = ["InvalidRowError", "Summary", "TopK", "__version__", "build_info", "get_include", "score"]
__all__ += measures.__all__

if TYPE_CHECKING:
    from .batch import Summary, score


def __getattr__(name: str) -> Any:
    """`score` and `Summary`, which take longer to import than all the rest and which most programs never use."""
    if name in ("Summary", "score"):
        from . import batch

        return getattr(batch, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), "Summary", "score"]


choose_tier()
limit_threads()
del choose_tier, limit_threads
