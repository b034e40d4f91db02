"""The measures, one documented function each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._rows import evaluate

if TYPE_CHECKING:
    from typing import SupportsIndex

    from numpy.typing import ArrayLike, NDArray


def entropy(
    p: ArrayLike,
    *,
    axis: SupportsIndex = -1,
    base: float | None = None,
    normalize: bool = False,
    invalid: str = "raise",
    out: NDArray[Any] | None = None,
    keepdims: bool = False,
    threads: int | None = None,
) -> Any:
    return evaluate("entropy", p, None, axis, base, normalize, 0.0, invalid, out, keepdims, threads)


def cross_entropy(
    p: ArrayLike,
    q: ArrayLike,
    *,
    axis: SupportsIndex = -1,
    base: float | None = None,
    normalize: bool = False,
    eps: float = 0.0,
    invalid: str = "raise",
    out: NDArray[Any] | None = None,
    keepdims: bool = False,
    threads: int | None = None,
) -> Any:
    return evaluate("cross_entropy", p, q, axis, base, normalize, eps, invalid, out, keepdims, threads)


def kl_divergence(
    p: ArrayLike,
    q: ArrayLike,
    *,
    axis: SupportsIndex = -1,
    base: float | None = None,
    normalize: bool = False,
    eps: float = 0.0,
    invalid: str = "raise",
    out: NDArray[Any] | None = None,
    keepdims: bool = False,
    threads: int | None = None,
) -> Any:
    return evaluate("kl_divergence", p, q, axis, base, normalize, eps, invalid, out, keepdims, threads)
