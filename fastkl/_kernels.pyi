from collections.abc import Callable
from typing import Any, Final, TypeVar

from numpy.typing import NDArray

_T = TypeVar("_T")

MEASURES: Final[dict[str, int]]
DTYPES: Final[dict[str, int]]
P_ENTRY: Final[int]
Q_ENTRY: Final[int]
P_SUM: Final[int]
Q_SUM: Final[int]
LABEL: Final[int]
FIELDS: Final[list[str]]
MOST_THREADS: Final[int]
INTERFACE_VERSION: Final[int]
c_interface: Final[object]

def tiers() -> list[str]: ...
def use_tier(name: str) -> None: ...
def tier_in_use() -> str: ...
def limit_threads(quota: Callable[[], float | None] | None) -> None: ...
def default_threads() -> int: ...
def openmp() -> bool: ...
def compiler() -> str: ...
def in_usual_mode(function: Callable[..., _T], *arguments: Any) -> _T: ...
def evaluate(
    measure: int,
    root: bool,
    p: NDArray[Any],
    p_dtype: int,
    q: NDArray[Any] | None,
    q_dtype: int,
    out: NDArray[Any],
    eps: float,
    p_tolerance: float,
    q_tolerance: float,
    base: float,
    stop_at_invalid: bool,
    threads: int,
    softmax: list[Any] | None = None,
) -> tuple[int, int] | None: ...
