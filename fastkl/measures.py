"""What users read: one documented function a measure, each ending in one call."""

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
    """Shannon entropy H(p) = -Σ p log p of every row.

    A row is the 1-D slice along `axis`. It stands for the distribution p/Σp; 0 log 0 is 0. The result is never negative
    and exactly 0.0 for a row with one positive entry of 1.

    Parameters
    ----------
    p : array_like, shape (..., n, ...)
        Probabilities: float64, float32, float16, bfloat16 (of ml_dtypes), bool or an integer dtype, any strides, at least
        one axis. Besides what NumPy makes an array of: containers of torch, JAX, pandas, polars, pyarrow, xarray, dask, or
        with DLPack, read without a copy (the README's section "Inputs" has them all).
    axis : int, default -1
        The axis of length n >= 1 that holds the distributions.
    base : float, optional
        Base of the logarithm, positive, finite and not 1. None gives nats, 2 gives bits.
    normalize : bool, default False
        False refuses a row whose sum is further from 1 than √ε of its dtype (float64 and integers 1.5e-8, float32 and bool
        3.5e-4, float16 3.1e-2, bfloat16 8.8e-2). True accepts any non-negative weights with a positive sum: counts,
        histograms, scores.
    invalid : {"raise", "nan", "ignore"}, default "raise"
        What happens to a row that is not a distribution: the ValueError below; NaN for this row; or no check of the sum,
        when the caller vouches for the rows (a negative or non-finite entry then makes some result, no error).
    out : ndarray, optional
        Array of the result's shape and a floating dtype, to be filled and returned. It may overlap `p`. With torch
        tensors, it may be a tensor.
    keepdims : bool, default False
        Keep `axis` in the result, with length 1.
    threads : int, optional
        Most threads to use. None asks OpenMP (`OMP_NUM_THREADS`, `threadpoolctl`, affinity) and the CPU quota of the
        process's control group. The result has the same bits for any number.

    Returns
    -------
    ndarray or NumPy scalar, shape of `p` without `axis`
        Float64 for float64 and integer input, else float32. A scalar for 1-D input. For another library's container, one of
        the same library.

    Raises
    ------
    ValueError
        For the first row, in row order, with a negative, NaN or infinite entry, or with a wrong sum; for an argument out of
        its range; for an empty distribution axis.
    TypeError
        For a dtype other than the above, masked entries, or a container that cannot be read where it is.

    Notes
    -----
    Accuracy: at most 4 ε |H| + 2 ε from the exact value, ε of the result's dtype (float64 2.2e-16, float32 1.2e-7).
    `python benchmarks/accuracy.py` prints the worst rows found. H(p/Σp) = log Σp - (Σ p log p)/Σp, in one pass.

    The definition: C. E. Shannon, A Mathematical Theory of Communication, 1948, section 6.

    Examples
    --------
    >>> import numpy as np, fastkl
    >>> fastkl.entropy([0.5, 0.25, 0.25, 0.0], base=2)
    np.float64(1.5)
    >>> fastkl.entropy(np.array([[2, 2, 0, 0], [1, 1, 1, 1]]), base=2, normalize=True)
    array([1., 2.])
    """
    return evaluate("entropy", (p,), axis, base, normalize, 0.0, invalid, out, keepdims, threads)


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
    """Cross-entropy H(p, q) = -Σ p log q of every pair of rows.

    `p` is the reference ("true") distribution, `q` the one that it is coded with. Rows stand for p/Σp and q/Σq. Where p is
    0 an entry contributes 0, whatever q is; where p > 0 and q = 0 the row's result is +inf, which is the answer, not an
    error.

    Parameters
    ----------
    p, q : array_like
        Probabilities with the same length n >= 1 along `axis`; their other axes broadcast. Dtypes as in `entropy`, mixed at
        will.
    axis : int, default -1
        The axis that holds the distributions, read after the operands have been given the same number of axes by leading
        ones.
    base, normalize, invalid, keepdims, threads
        As in `entropy`.
    eps : float, default 0.0
        Entries of `q` below `eps` are raised to it before q is normalised; 0 <= eps < 1. Nothing is ever raised unasked.
    out : ndarray, optional
        As in `entropy`; it may overlap `p` and `q`.

    Returns
    -------
    ndarray or NumPy scalar, the broadcast shape without `axis`
        Float64 if an operand is float64 or integer, else float32.

    Raises
    ------
    ValueError, TypeError
        As `entropy`; ValueError for shapes that do not fit.

    Notes
    -----
    Accuracy: at most 4 ε |H| + 2 ε from the exact value, as for `entropy`, in which H(p, p) = H(p).
    H(p/Σp, q/Σq) = log Σq - (Σ p log q)/Σp, in one pass.

    Examples
    --------
    >>> import fastkl
    >>> fastkl.cross_entropy([0.5, 0.5, 0.0], [0.25, 0.5, 0.25], base=2)
    np.float64(1.5)
    >>> fastkl.cross_entropy([0.5, 0.5], [1.0, 0.0])
    np.float64(inf)
    """
    return evaluate("cross_entropy", (p, q), axis, base, normalize, eps, invalid, out, keepdims, threads)


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
    """Kullback-Leibler divergence D(p‖q) = Σ p log(p/q) of every pair of rows.

    `p` is the reference ("true") distribution, `q` the one compared with it: D(p‖q) = H(p, q) - H(p). It is never negative,
    exactly 0.0 where the two rows hold equal values, and right to the last digits where they nearly agree. Zeros as in
    `cross_entropy`.

    Parameters
    ----------
    p, q, axis, base, normalize, eps, invalid, out, keepdims, threads
        As in `cross_entropy`.

    Returns
    -------
    ndarray or NumPy scalar
        As `cross_entropy`.

    Raises
    ------
    ValueError, TypeError
        As `cross_entropy`.

    Notes
    -----
    Accuracy: relative error at most 4 ε, however small D is (float64 8.9e-16, float32 4.8e-7).

    With φ(a, b) = a log(a/b) - (a - b), which is never negative, D(p/Σp ‖ q/Σq) = (Σ φ(p, q) - φ(Σp, Σq)) / Σp: sums of
    non-negative terms, and a correction of second order in Σp - Σq. This is the log-sum inequality with its difference
    (T. M. Cover and J. A. Thomas, Elements of Information Theory, theorem 2.7.1).

    Examples
    --------
    >>> import numpy as np, fastkl
    >>> fastkl.kl_divergence([0.5, 0.5], [0.25, 0.75])
    np.float64(0.143841036225890...)
    >>> p = np.array([[0.5, 0.5, 0.0], [0.1, 0.2, 0.7]])
    >>> fastkl.kl_divergence(p, p[1])
    array([1.2628..., 0.        ])
    """
    return evaluate("kl_divergence", (p, q), axis, base, normalize, eps, invalid, out, keepdims, threads)


def js_divergence(
    p: ArrayLike,
    q: ArrayLike,
    *,
    axis: SupportsIndex = -1,
    base: float | None = None,
    normalize: bool = False,
    invalid: str = "raise",
    out: NDArray[Any] | None = None,
    keepdims: bool = False,
    threads: int | None = None,
) -> Any:
    """Jensen-Shannon divergence ½ D(p‖m) + ½ D(q‖m), m = (p + q)/2, of every pair of rows.

    It is between 0 and log 2, finite whatever is zero, and the same to the bit for `p` and `q` exchanged. It is exactly 0.0
    where the two rows hold equal values, and right to the last digits where they nearly agree.

    Parameters
    ----------
    p, q, axis, base, normalize, invalid, out, keepdims, threads
        As in `cross_entropy`.

    Returns
    -------
    ndarray or NumPy scalar
        As `cross_entropy`.

    Raises
    ------
    ValueError, TypeError
        As `cross_entropy`.

    Notes
    -----
    Accuracy: relative error at most 6 ε, however small the divergence is.

    With the φ of `kl_divergence` and Σp = Σq, it is Σ (φ(p, (p + q)/2) + φ(q, (p + q)/2)) / 2Σp: again a sum of
    non-negative terms. Rows whose sums differ are looked at twice, the second time with one of them scaled.

    The definition: J. Lin, Divergence measures based on the Shannon entropy, 1991, section IV.

    Examples
    --------
    >>> import fastkl
    >>> fastkl.js_divergence([1.0, 0.0], [0.0, 1.0], base=2)
    np.float64(1.0)
    >>> fastkl.js_divergence([0.5, 0.5], [0.25, 0.75])
    np.float64(0.033822...)
    """
    return evaluate("js_divergence", (p, q), axis, base, normalize, 0.0, invalid, out, keepdims, threads)


def js_distance(
    p: ArrayLike,
    q: ArrayLike,
    *,
    axis: SupportsIndex = -1,
    base: float | None = None,
    normalize: bool = False,
    invalid: str = "raise",
    out: NDArray[Any] | None = None,
    keepdims: bool = False,
    threads: int | None = None,
) -> Any:
    """Jensen-Shannon distance of every pair of rows: the square root of `js_divergence`, which is a metric.

    This is what SciPy calls `jensenshannon`.

    Parameters
    ----------
    p, q, axis, normalize, invalid, out, keepdims, threads
        As in `cross_entropy`.
    base : float, optional
        As in `cross_entropy`, but above 1: below, the divergence is negative and has no root.

    Returns
    -------
    ndarray or NumPy scalar
        As `cross_entropy`.

    Raises
    ------
    ValueError, TypeError
        As `cross_entropy`.

    Notes
    -----
    Accuracy: relative error at most 4 ε for distances above 1e-280. The root is taken before the divergence is rounded to
    the result's dtype: no distance is lost because its square is too small for that.

    That it is a metric: D. M. Endres and J. E. Schindelin, A new metric for probability distributions, 2003.

    Examples
    --------
    >>> import fastkl
    >>> fastkl.js_distance([1.0, 0.0], [0.5, 0.5], base=2)
    np.float64(0.557923...)
    """
    return evaluate("js_divergence", (p, q), axis, base, normalize, 0.0, invalid, out, keepdims, threads, root=True)
