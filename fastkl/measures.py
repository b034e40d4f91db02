"""What users read: one documented function a measure, each ending in one call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from ._rows import _PROBABILITIES, Softmax, evaluate

if TYPE_CHECKING:
    from typing import SupportsIndex

    from numpy.typing import ArrayLike, NDArray


def _asked(from_logits: Any, temperature: Any, ignore_index: Any = None, label_smoothing: Any = 0.0) -> Softmax:
    """What is asked of logits and labels; the defaults are told first, which is quick."""
    plain = from_logits is False and ignore_index is None and type(temperature) is type(label_smoothing) is float
    if plain and temperature == 1 and label_smoothing == 0:
        return _PROBABILITIES
    return Softmax(from_logits, temperature, ignore_index, label_smoothing)


def entropy(
    p: ArrayLike,
    *,
    axis: SupportsIndex = -1,
    base: float | None = None,
    normalize: bool = False,
    from_logits: bool = False,
    temperature: float = 1.0,
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
        histograms, scores. It does not apply to logits.
    from_logits : bool, default False
        True takes `p` as logits: a row x stands for softmax(x / temperature). Log-probabilities are logits, too. -inf is
        probability zero (a mask); any other finite number is a positive probability, and safe, however large.
    temperature : float, default 1.0
        Positive and finite: what logits are divided by. Only with logits.
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
        process's control group. More than four times the processors, or 16, are never used. The result has the same bits
        for any number.

    Returns
    -------
    ndarray or NumPy scalar, shape of `p` without `axis`
        Float64 for float64 and integer input, else float32. A scalar for 1-D input. For another library's container, one of
        the same library.

    Raises
    ------
    ValueError
        For the first row, in row order, with a negative, NaN or infinite entry, or with a wrong sum; of logits, with a NaN
        or +inf, or without a finite entry; for an argument out of its range; for an empty distribution axis.
    TypeError
        For a dtype other than the above, masked entries, or a container that cannot be read where it is.

    Notes
    -----
    Accuracy: at most 4 ε |H| + 2 ε from the exact value, ε of the result's dtype (float64 2.2e-16, float32 1.2e-7).
    `python benchmarks/accuracy.py` prints the worst rows found. H(p/Σp) = log Σp - (Σ p log p)/Σp, in one pass. From logits
    x, at most 32 ε |H| + 4 ε: H = log Σ w - (Σ w x)/Σ w with the weights w = e^x, x counted from the largest.

    The definition: C. E. Shannon, A Mathematical Theory of Communication, 1948, section 6.

    Examples
    --------
    >>> import numpy as np, fastkl
    >>> fastkl.entropy([0.5, 0.25, 0.25, 0.0], base=2)
    np.float64(1.5)
    >>> fastkl.entropy(np.array([[2, 2, 0, 0], [1, 1, 1, 1]]), base=2, normalize=True)
    array([1., 2.])
    >>> fastkl.entropy([1000.0, 1000.0, -np.inf], base=2, from_logits=True)
    np.float64(1.0...)
    """
    softmax = _asked(from_logits, temperature)
    return evaluate("entropy", (p,), axis, base, normalize, 0.0, invalid, out, keepdims, threads, softmax=softmax)


def cross_entropy(
    p: ArrayLike,
    q: ArrayLike,
    *,
    axis: SupportsIndex = -1,
    base: float | None = None,
    normalize: bool = False,
    from_logits: bool | tuple[bool, bool] = False,
    temperature: float = 1.0,
    eps: float = 0.0,
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
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
        will. A `p` of an integer dtype with one axis fewer than `q` holds labels 0 <= label < n: the result is -log
        q[label]. (Integer counts have as many axes as `q`.)
    axis : int, default -1
        The axis that holds the distributions, read after the operands have been given the same number of axes by leading
        ones.
    base, normalize, temperature, invalid, keepdims, threads
        As in `entropy`.
    from_logits : bool or pair of bools, default False
        Whether `p` and `q` hold logits, as in `entropy`; with labels, it speaks of `q`.
    eps : float, default 0.0
        Entries of `q` below `eps` are raised to it before q is normalised; 0 <= eps < 1. Nothing is ever raised unasked. Of
        logits, it is their softmax that is raised.
    ignore_index : int, optional
        The result for this label is 0.0, and its row is not looked at. Only with labels.
    label_smoothing : float, default 0.0
        The share, between 0 and 1, of the result that is the mean of -log q over all entries, as in
        `torch.nn.functional.cross_entropy`. Only with labels.
    out : ndarray, optional
        As in `entropy`; it may overlap `p` and `q`.

    Returns
    -------
    ndarray or NumPy scalar, the broadcast shape without `axis`
        Float64 if an operand is float64 or integer, else float32; with labels, by the dtype of `q` alone.

    Raises
    ------
    ValueError, TypeError
        As `entropy`; ValueError for shapes that do not fit, and for the first label outside of 0..n-1 that is not ignored.

    Notes
    -----
    Accuracy: at most 4 ε |H| + 2 ε from the exact value, as for `entropy`, in which H(p, p) = H(p); from logits, 32 ε |H| +
    4 ε. H(p/Σp, q/Σq) = log Σq - (Σ p log q)/Σp, in one pass.

    Examples
    --------
    >>> import fastkl
    >>> fastkl.cross_entropy([0.5, 0.5, 0.0], [0.25, 0.5, 0.25], base=2)
    np.float64(1.5)
    >>> fastkl.cross_entropy([0.5, 0.5], [1.0, 0.0])
    np.float64(inf)
    >>> fastkl.cross_entropy([0, 2], [[0.5, 0.25, 0.25], [0.25, 0.25, 0.5]], base=2)
    array([1., 1.])
    """
    softmax = _asked(from_logits, temperature, ignore_index, label_smoothing)
    return evaluate("cross_entropy", (p, q), axis, base, normalize, eps, invalid, out, keepdims, threads, softmax=softmax)


def kl_divergence(
    p: ArrayLike,
    q: ArrayLike,
    *,
    axis: SupportsIndex = -1,
    base: float | None = None,
    normalize: bool = False,
    from_logits: bool | tuple[bool, bool] = False,
    temperature: float = 1.0,
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
    p, q, axis, base, normalize, from_logits, temperature, eps, invalid, out, keepdims, threads
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
    Accuracy: relative error at most 4 ε, however small D is (float64 8.9e-16, float32 4.8e-7). From logits at most 32 ε of
    D, or of 1e-14 if that is more; where one operand holds logits and the other probabilities, whose logarithms are
    rounded, 32 ε and what 64 of float64's ε times √D are.

    With φ(a, b) = a log(a/b) - (a - b), which is never negative, D(p/Σp ‖ q/Σq) = (Σ φ(p, q) - φ(Σp, Σq)) / Σp: sums of
    non-negative terms, and a correction of second order in Σp - Σq. This is the log-sum inequality with its difference
    (T. M. Cover and J. A. Thomas, Elements of Information Theory, theorem 2.7.1). From logits it is log E[e^x] of x =
    log(q/p) less its mean under p: with ψ(x) = e^x - 1 - x, which is never negative, log1p(E[ψ(x)]).

    Examples
    --------
    >>> import numpy as np, fastkl
    >>> fastkl.kl_divergence([0.5, 0.5], [0.25, 0.75])
    np.float64(0.143841036225890...)
    >>> p = np.array([[0.5, 0.5, 0.0], [0.1, 0.2, 0.7]])
    >>> fastkl.kl_divergence(p, p[1])
    array([1.2628..., 0.        ])
    >>> fastkl.kl_divergence([2.0, 1.0, 0.0], [102.0, 101.0, 100.0], from_logits=True)
    np.float64(0.0)
    """
    softmax = _asked(from_logits, temperature)
    return evaluate("kl_divergence", (p, q), axis, base, normalize, eps, invalid, out, keepdims, threads, softmax=softmax)


def js_divergence(
    p: ArrayLike,
    q: ArrayLike,
    *,
    axis: SupportsIndex = -1,
    base: float | None = None,
    normalize: bool = False,
    from_logits: bool | tuple[bool, bool] = False,
    temperature: float = 1.0,
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
    p, q, axis, base, normalize, from_logits, temperature, invalid, out, keepdims, threads
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
    Accuracy: relative error at most 6 ε, however small the divergence is; from logits as for `kl_divergence`.

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
    softmax = _asked(from_logits, temperature)
    return evaluate("js_divergence", (p, q), axis, base, normalize, 0.0, invalid, out, keepdims, threads, softmax=softmax)


def js_distance(
    p: ArrayLike,
    q: ArrayLike,
    *,
    axis: SupportsIndex = -1,
    base: float | None = None,
    normalize: bool = False,
    from_logits: bool | tuple[bool, bool] = False,
    temperature: float = 1.0,
    invalid: str = "raise",
    out: NDArray[Any] | None = None,
    keepdims: bool = False,
    threads: int | None = None,
) -> Any:
    """Jensen-Shannon distance of every pair of rows: the square root of `js_divergence`, which is a metric.

    This is what SciPy calls `jensenshannon`.

    Parameters
    ----------
    p, q, axis, normalize, from_logits, temperature, invalid, out, keepdims, threads
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
    Accuracy: relative error at most 4 ε for distances above 1e-280; from logits, its square is off by what the divergence
    may be. The root is taken before the divergence is rounded to the result's dtype: no distance is lost because its square
    is too small for that.

    That it is a metric: D. M. Endres and J. E. Schindelin, A new metric for probability distributions, 2003.

    Examples
    --------
    >>> import fastkl
    >>> fastkl.js_distance([1.0, 0.0], [0.5, 0.5], base=2)
    np.float64(0.557923...)
    """
    softmax = _asked(from_logits, temperature)
    return evaluate(
        "js_divergence", (p, q), axis, base, normalize, 0.0, invalid, out, keepdims, threads, root=True, softmax=softmax
    )


class Comparison(NamedTuple):
    """What `compare` gives: an array of values a row in each field."""

    entropy_p: Any
    entropy_q: Any
    cross_entropy: Any
    kl: Any
    reverse_kl: Any
    js: Any
    same_argmax: Any
    nll_p: Any
    nll_q: Any


def compare(
    p: ArrayLike,
    q: ArrayLike,
    labels: ArrayLike | None = None,
    *,
    axis: SupportsIndex = -1,
    base: float | None = None,
    normalize: bool = False,
    from_logits: bool | tuple[bool, bool] = False,
    temperature: float = 1.0,
    ignore_index: int | None = None,
    invalid: str = "raise",
    keepdims: bool = False,
    threads: int | None = None,
) -> Comparison:
    """Everything that a comparison of two models needs, of every pair of rows, from one read of both.

    Parameters
    ----------
    p, q, axis, base, normalize, from_logits, temperature, invalid, keepdims, threads
        As in `cross_entropy`.
    labels : array_like of an integer dtype, optional
        The rows' shape without `axis`, or one that broadcasts with it.
    ignore_index : int, optional
        As in `cross_entropy`.

    Returns
    -------
    Comparison
        A named tuple of arrays, each of the broadcast shape without `axis`: `entropy_p` H(p), `entropy_q` H(q),
        `cross_entropy` H(p, q), `kl` D(p‖q), `reverse_kl` D(q‖p), `js` their Jensen-Shannon divergence; `same_argmax`,
        bool, whether the first of the largest entries is the same; `nll_p` and `nll_q`, -log p[label] and -log q[label],
        which are None without labels. The result's dtype is that of `kl_divergence`. In an invalid row, with
        `invalid="nan"`, all is NaN and `same_argmax` False. The arrays are of the library of `p` and `q`: NumPy, torch,
        JAX, one with DLPack, or dask, where fields that are computed together come from one read of each block.

    Raises
    ------
    ValueError, TypeError
        As `cross_entropy`.

    Notes
    -----
    Accuracy: that of the functions which give these alone. H(p, q) is H(p) + D(p‖q), both of which are non-negative.

    Examples
    --------
    >>> import numpy as np, fastkl
    >>> full = np.array([[2.0, 1.0, -1.0], [0.5, 3.0, 0.0]])
    >>> quantised = np.array([[2.0, 1.25, -1.0], [0.5, 3.0, 0.0]])
    >>> result = fastkl.compare(full, quantised, [0, 0], from_logits=True)
    >>> result.kl
    array([0.00623986, 0.        ])
    >>> result.same_argmax
    array([ True,  True])
    """
    softmax = Softmax(from_logits, temperature, ignore_index, 0.0, labels, compare=True)
    result = evaluate(
        "kl_divergence", (p, q), axis, base, normalize, 0.0, invalid, None, keepdims, threads, softmax=softmax
    )
    fields: dict[str, Any] = {name: result[i] for i, name in enumerate(Comparison._fields)}
    fields["same_argmax"] = fields["same_argmax"] == 1
    if labels is None:
        fields["nll_p"] = fields["nll_q"] = None
    return Comparison(**fields)
