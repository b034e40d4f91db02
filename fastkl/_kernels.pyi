from collections.abc import Callable
from enum import EnumMeta, IntEnum
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

_T = TypeVar("_T")

MEASURES: Final[dict[str, int]]
FIELDS: Final[list[str]]
P_ENTRY: Final[int]
Q_ENTRY: Final[int]
P_SUM: Final[int]
Q_SUM: Final[int]
LABEL: Final[int]
INDEX: Final[int]
REFUSED: Final[int]
MOST_THREADS: Final[int]
INTERFACE_VERSION: Final[int]
BFLOAT16_KIND: Final[Kind]
c_interface: Final[object]
__pyx_capi__: Final[dict[str, object]]

class _Names(EnumMeta):
    def __getattr__(cls, name: str) -> Measure: ...

class Measure(IntEnum, metaclass=_Names):
    ENTROPY = 0  # _kernels.pxd has the others

class Kind:
    code: Final[int]
    tolerance: Final[float]
    result: Final[np.dtype[Any]]

class Stop:
    def set(self) -> None: ...
    def is_set(self) -> bool: ...

class Request:
    measure: Final[str]
    p: Final[Any]
    q: Final[Any]
    labels: Final[Any]
    axis: Final[Any]
    normalize: Final[Any]
    invalid: Final[Any]
    base: Final[Any]
    eps: Final[Any]
    threads: Final[Any]
    from_logits: Final[Any]
    temperature: Final[Any]
    ignore_index: Final[Any]
    label_smoothing: Final[Any]
    out: Final[Any]
    keepdims: Final[Any]
    alpha: Final[Any]
    plain: Final[bool]
    any_sum: bool
    p_logits: bool
    q_logits: bool
    ignores: bool
    log_base: float
    clip: float
    scale: float
    scale_low: float
    smoothing: float
    ignored: int
    most_threads: int
    stop: Stop | None
    def __init__(self, measure: str, p: Any = None, q: Any = None, labels: Any = None) -> None: ...
    def set_rows(self, axis: Any, normalize: Any, invalid: Any) -> None: ...
    def set_numbers(self, base: Any, eps: Any, threads: Any) -> None: ...
    def set_logits(self, from_logits: Any, temperature: Any) -> None: ...
    def set_alpha(self, alpha: Any) -> None: ...
    def set_labels(self, ignore_index: Any, label_smoothing: Any) -> None: ...
    def set_result(self, out: Any, keepdims: Any) -> None: ...
    def align(self, rows: dict[str, tuple[NDArray[Any], Kind]]) -> None: ...
    def only_numpy(self) -> bool: ...
    def replace(self, **changes: Any) -> Request: ...

def tiers() -> list[str]: ...
def use_tier(name: str) -> None: ...
def tier_in_use() -> str: ...
def limit_threads(quota: Callable[[], float | None] | None) -> None: ...
def call_before_threads(function: Callable[[int], None] | None) -> None: ...
def default_threads() -> int: ...
def openmp() -> bool: ...
def compiler() -> str: ...
def in_default_mode(function: Callable[..., _T], *arguments: Any) -> _T: ...
def kind_of(array: NDArray[Any]) -> Kind | None: ...
def evaluate(request: Request, out: NDArray[Any]) -> tuple[int, int] | None: ...
def coarsen(
    request: Request,
    q: NDArray[Any],
    kind: Kind,
    at: NDArray[np.int64],
    ordered: NDArray[np.int64],
    entries: NDArray[np.float64],
    status: NDArray[np.uint8],
    exact: bool,
) -> None: ...
def evaluate_files(request: Request, out: NDArray[Any], reads: list[tuple[NDArray[Any], int, int]]) -> int: ...
def decode(records: NDArray[Any], floor_scale: float, values: NDArray[Any], floored: NDArray[Any]) -> int: ...
def evaluate_plain(request: Request) -> tuple[Any, tuple[int, int] | None]: ...
def sum_plain(measure: str, p: Any, q: Any, axis: Any) -> Any: ...
