"""What users call: one documented function a measure, which fills a Request and ends in one call.

Knows nothing of how a measure is computed. Shared parts of the docstrings are in docstrings.py.
"""

# Two lists of floats are two array_likes, too: the first overload that fits is the one that counts.
# mypy: disable-error-code="overload-overlap"

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, NamedTuple, overload

from . import coarse_rows
from ._kernels import Request
from .call import InvalidRowError, run
from .docstrings import documented
from .topk import TopK

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Generic, Literal, SupportsIndex

    import numpy as np
    from numpy.typing import ArrayLike, NDArray
    from typing_extensions import TypedDict, TypeVar, Unpack

    Row = Sequence[float]
    Label = int | np.integer
    Labels = Label | NDArray[np.integer] | Sequence[int] | Sequence[Sequence[int]]
    Rows = NDArray[Any] | Sequence[float] | Sequence[Sequence[float]] | Sequence[Sequence[Sequence[float]]]
    Value = np.floating
    Values = NDArray[np.floating]
    Out = TypeVar("Out", default=Any)
    Invalid = Literal["raise", "nan", "ignore"]
    FromLogits = bool | Literal["p", "q"]
    Flag = TypeVar("Flag")

    class _Common(TypedDict, Generic[Flag], total=False):  # what overloads take, whatever they return
        axis: SupportsIndex
        normalize: bool
        from_logits: Flag
        temperature: float
        invalid: Invalid
        threads: int | None

    _Metric = _Common[FromLogits]

    class _MetricEps(_Metric, total=False):
        eps: float

    class _Sums(TypedDict, total=False):
        axis: SupportsIndex
        eps: float
        invalid: Invalid
        threads: int | None

    class _Options(_Common[Flag], total=False):
        base: float | None

    _One = _Options[bool]
    _Two = _Options[FromLogits]

    class _Eps(_Options[FromLogits], total=False):
        eps: float

    class _Nll(_Options[bool], total=False):
        eps: float
        ignore_index: int | None
        label_smoothing: float


def _run(request: Request) -> Any:
    try:
        if request.only_numpy():
            return run(request)
        if isinstance(request.p, TopK) or isinstance(request.q, TopK):
            return coarse_rows.run(request)
        from . import containers  # which most programs never need

        return containers.run(request)
    except InvalidRowError:
        if "dask" in sys.modules and request.invalid == "raise":
            from .containers import dask

            if dask.infers_dtype():
                return _run(request.replace(invalid="nan"))
        raise


@overload
def entropy(p: Row, *, out: None = ..., keepdims: Literal[False] = ..., **options: Unpack[_One]) -> Value: ...
@overload
def entropy(p: Rows, *, out: None = ..., keepdims: bool = ..., **options: Unpack[_One]) -> Values: ...
@overload
def entropy(p: Any, *, out: Out | None = ..., keepdims: bool = ..., **options: Unpack[_One]) -> Out: ...
@documented
def entropy(
    p: ArrayLike,
    *,
    axis: SupportsIndex = -1,
    base: float | None = None,
    normalize: bool = False,
    from_logits: bool = False,
    temperature: float = 1.0,
    invalid: Invalid = "raise",
    out: Any = None,
    keepdims: bool = False,
    threads: int | None = None,
) -> Any:
    """Shannon entropy H(p) = -Σ p log p of every row.

    A row is the 1-D slice along `axis`. It stands for the distribution p/Σp, and 0 log 0 is 0. The result is never
    negative, and it is exactly 0.0 for a row with one positive entry of 1.

    {sections}

    See Also
    --------
    cross_entropy : The same sum with the logarithms of another distribution.
    kl_divergence : What the cross-entropy has above the entropy.

    Notes
    -----
    The definition is in [1]_, section 6. The result is at most 4 ε H + 2 ε from the exact value, where ε is that of its
    dtype (2.2e-16 for float64, 1.2e-7 for float32); `python benchmarks/accuracy.py` prints the worst rows found. From
    logits it is at most 32 ε H + 4 ε from it.

    One pass computes H(p/Σp) = log Σp - (Σ p log p)/Σp. From logits x, H = log Σ w - (Σ w x)/Σ w with the weights w = e^x,
    where x counts from the largest.

    References
    ----------
    .. [1] C. E. Shannon, "A mathematical theory of communication", Bell System Technical Journal 27, 1948.

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
    request = Request("entropy", p)
    request.set_rows(axis, normalize, invalid)
    request.set_numbers(base, 0.0, threads)
    request.set_logits(from_logits, temperature)
    request.set_result(out, keepdims)
    return _run(request)


@overload
def cross_entropy(p: Row, q: Row, *, out: None = ..., keepdims: Literal[False] = ..., **options: Unpack[_Eps]) -> Value: ...
@overload
def cross_entropy(p: Rows, q: Rows, *, out: None = ..., keepdims: bool = ..., **options: Unpack[_Eps]) -> Values: ...
@overload
def cross_entropy(p: Any, q: Any, *, out: Out | None = ..., keepdims: bool = ..., **options: Unpack[_Eps]) -> Out: ...
@documented
def cross_entropy(
    p: ArrayLike,
    q: ArrayLike,
    *,
    axis: SupportsIndex = -1,
    base: float | None = None,
    normalize: bool = False,
    from_logits: FromLogits = False,
    temperature: float = 1.0,
    eps: float = 0.0,
    invalid: Invalid = "raise",
    out: Any = None,
    keepdims: bool = False,
    threads: int | None = None,
) -> Any:
    """Cross-entropy H(p, q) = -Σ p log q of every pair of rows.

    Rows stand for p/Σp and q/Σq. Integers in `p` are weights: class labels go to `nll`. An entry with p = 0 contributes 0,
    whatever q is. Where p > 0 and q = 0, the result of the row is +inf, which is the answer and not an error.

    {sections}

    See Also
    --------
    nll : The cross-entropy of class labels instead of a distribution p.
    entropy : H(p), which is the cross-entropy of p with itself.
    kl_divergence : D(p‖q) = H(p, q) - H(p).
    TopK : Rows `p` of which the largest entries are known, and beside which q may be full or a TopK.

    Notes
    -----
    H(p, q) is the mean length of a code that is made for q and used for p, see theorem 5.4.3 of [1]_. The result is at most
    4 ε H + 2 ε from the exact value, and at most 32 ε H + 4 ε from logits, where ε is that of its dtype.

    One pass computes H(p/Σp, q/Σq) = log Σq - (Σ p log q)/Σp.

    References
    ----------
    .. [1] T. M. Cover and J. A. Thomas, "Elements of information theory", 2nd edition, Wiley, 2006.

    Examples
    --------
    >>> import fastkl
    >>> fastkl.cross_entropy([0.5, 0.5, 0.0], [0.25, 0.5, 0.25], base=2)
    np.float64(1.5)
    >>> fastkl.cross_entropy([0.5, 0.5], [1.0, 0.0])
    np.float64(inf)
    >>> fastkl.cross_entropy([[2, 1, 1]], [[0.5, 0.25, 0.25]], normalize=True, base=2)
    array([1.5])
    """
    request = Request("cross_entropy", p, q)
    request.set_rows(axis, normalize, invalid)
    request.set_numbers(base, eps, threads)
    request.set_logits(from_logits, temperature)
    request.set_result(out, keepdims)
    return _run(request)


@overload
def kl_divergence(p: Row, q: Row, *, out: None = ..., keepdims: Literal[False] = ..., **options: Unpack[_Eps]) -> Value: ...
@overload
def kl_divergence(p: Rows, q: Rows, *, out: None = ..., keepdims: bool = ..., **options: Unpack[_Eps]) -> Values: ...
@overload
def kl_divergence(p: Any, q: Any, *, out: Out | None = ..., keepdims: bool = ..., **options: Unpack[_Eps]) -> Out: ...
@documented
def kl_divergence(
    p: ArrayLike,
    q: ArrayLike,
    *,
    axis: SupportsIndex = -1,
    base: float | None = None,
    normalize: bool = False,
    from_logits: FromLogits = False,
    temperature: float = 1.0,
    eps: float = 0.0,
    invalid: Invalid = "raise",
    out: Any = None,
    keepdims: bool = False,
    threads: int | None = None,
) -> Any:
    """Kullback-Leibler divergence D(p‖q) = Σ p log(p/q) of every pair of rows.

    Rows stand for p/Σp and q/Σq. The result is never negative, exactly 0.0 where the two rows hold equal values, and right
    to the last digits where they nearly agree. An entry with p = 0 contributes 0; where p > 0 and q = 0, the result is
    +inf.

    {sections}

    See Also
    --------
    cross_entropy : H(p, q) = D(p‖q) + H(p).
    js_divergence : A symmetric divergence, which is always finite.
    compare : The divergences in both directions, and more, from one read of p and q.
    TopK : Rows `p` of which the largest entries are known, and beside which q may be full or a TopK.

    Notes
    -----
    The definition is in [1]_. The relative error is at most 4 ε, however small D is, where ε is that of the result's dtype
    (4 ε is 8.9e-16 for float64, 4.8e-7 for float32). From logits the error is at most 32 ε of D, or of 1e-14 if that is
    more. Where one operand holds logits and the other probabilities, whose logarithms are rounded, 64 of float64's ε times
    √D are added to it.

    With φ(a, b) = a log(a/b) - (a - b), which is never negative, D(p/Σp ‖ q/Σq) = (Σ φ(p, q) - φ(Σp, Σq)) / Σp: a sum of
    non-negative terms and a correction of second order in Σp - Σq. This is the log-sum inequality, theorem 2.7.1 of [2]_,
    with the difference of its sides. From logits it is log E[e^x] of x = log(q/p) less its mean under p: with ψ(x) = e^x -
    1 - x, which is never negative, log1p(E[ψ(x)]).

    References
    ----------
    .. [1] S. Kullback and R. A. Leibler, "On information and sufficiency", Annals of Mathematical Statistics 22, 1951.
    .. [2] T. M. Cover and J. A. Thomas, "Elements of information theory", 2nd edition, Wiley, 2006.

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
    request = Request("kl_divergence", p, q)
    request.set_rows(axis, normalize, invalid)
    request.set_numbers(base, eps, threads)
    request.set_logits(from_logits, temperature)
    request.set_result(out, keepdims)
    return _run(request)


@overload
def js_divergence(p: Row, q: Row, *, out: None = ..., keepdims: Literal[False] = ..., **options: Unpack[_Two]) -> Value: ...
@overload
def js_divergence(p: Rows, q: Rows, *, out: None = ..., keepdims: bool = ..., **options: Unpack[_Two]) -> Values: ...
@overload
def js_divergence(p: Any, q: Any, *, out: Out | None = ..., keepdims: bool = ..., **options: Unpack[_Two]) -> Out: ...
@documented
def js_divergence(
    p: ArrayLike,
    q: ArrayLike,
    *,
    axis: SupportsIndex = -1,
    base: float | None = None,
    normalize: bool = False,
    from_logits: FromLogits = False,
    temperature: float = 1.0,
    invalid: Invalid = "raise",
    out: Any = None,
    keepdims: bool = False,
    threads: int | None = None,
) -> Any:
    """Jensen-Shannon divergence ½ D(p‖m) + ½ D(q‖m), m = (p + q)/2, of every pair of rows.

    Rows stand for p/Σp and q/Σq. The result is between 0 and log 2, finite wherever zeros are, and has the same bits for
    `p` and `q` exchanged. It is exactly 0.0 where the two rows hold equal values, and right to the last digits where they
    nearly agree.

    {sections}

    See Also
    --------
    js_distance : Its square root, a metric.
    kl_divergence : The divergence D(p‖q) that it is made of.
    TopK : Rows `p` of which the largest entries are known, and beside which q may be full or a TopK.

    Notes
    -----
    The definition is in [1]_, section IV. The relative error is at most 6 ε, however small the divergence is, where ε is
    that of the result's dtype. From logits the bound is that of `kl_divergence`.

    With the φ of `kl_divergence` and Σp = Σq, it is Σ (φ(p, (p + q)/2) + φ(q, (p + q)/2)) / 2Σp, a sum of non-negative
    terms. Rows whose sums differ are read a second time, with one of them scaled.

    References
    ----------
    .. [1] J. Lin, "Divergence measures based on the Shannon entropy", IEEE Transactions on Information Theory 37, 1991.

    Examples
    --------
    >>> import fastkl
    >>> fastkl.js_divergence([1.0, 0.0], [0.0, 1.0], base=2)
    np.float64(1.0)
    >>> fastkl.js_divergence([0.5, 0.5], [0.25, 0.75])
    np.float64(0.033822...)
    """
    request = Request("js_divergence", p, q)
    request.set_rows(axis, normalize, invalid)
    request.set_numbers(base, 0.0, threads)
    request.set_logits(from_logits, temperature)
    request.set_result(out, keepdims)
    return _run(request)


@overload
def js_distance(p: Row, q: Row, *, out: None = ..., keepdims: Literal[False] = ..., **options: Unpack[_Two]) -> Value: ...
@overload
def js_distance(p: Rows, q: Rows, *, out: None = ..., keepdims: bool = ..., **options: Unpack[_Two]) -> Values: ...
@overload
def js_distance(p: Any, q: Any, *, out: Out | None = ..., keepdims: bool = ..., **options: Unpack[_Two]) -> Out: ...
@documented
def js_distance(
    p: ArrayLike,
    q: ArrayLike,
    *,
    axis: SupportsIndex = -1,
    base: float | None = None,
    normalize: bool = False,
    from_logits: FromLogits = False,
    temperature: float = 1.0,
    invalid: Invalid = "raise",
    out: Any = None,
    keepdims: bool = False,
    threads: int | None = None,
) -> Any:
    """Jensen-Shannon distance, the square root of the Jensen-Shannon divergence, of every pair of rows.

    It is a metric, and SciPy's `jensenshannon`. Rows stand for p/Σp and q/Σq.

    {sections}

    See Also
    --------
    js_divergence : Its square.

    Notes
    -----
    That it is a metric is shown in [1]_. The relative error is at most 4 ε for distances above 1e-280, where ε is that of
    the result's dtype. From logits, the error of its square is at most that of the divergence.

    The root is taken before the divergence is rounded to the result's dtype, so that no distance is lost because its square
    is too small for it.

    References
    ----------
    .. [1] D. M. Endres and J. E. Schindelin, "A new metric for probability distributions", IEEE Transactions on Information
       Theory 49, 2003.

    Examples
    --------
    >>> import fastkl
    >>> fastkl.js_distance([1.0, 0.0], [0.5, 0.5], base=2)
    np.float64(0.557923...)
    """
    request = Request("js_distance", p, q)
    request.set_rows(axis, normalize, invalid)
    request.set_numbers(base, 0.0, threads)
    request.set_logits(from_logits, temperature)
    request.set_result(out, keepdims)
    return _run(request)


@overload
def nll(labels: Label, q: Row, *, out: None = ..., keepdims: Literal[False] = ..., **options: Unpack[_Nll]) -> Value: ...
@overload
def nll(labels: Labels, q: Rows, *, out: None = ..., keepdims: bool = ..., **options: Unpack[_Nll]) -> Values: ...
@overload
def nll(labels: Any, q: Any, *, out: Out | None = ..., keepdims: bool = ..., **options: Unpack[_Nll]) -> Out: ...
@documented
def nll(
    labels: ArrayLike,
    q: ArrayLike,
    *,
    axis: SupportsIndex = -1,
    base: float | None = None,
    normalize: bool = False,
    from_logits: bool = False,
    temperature: float = 1.0,
    eps: float = 0.0,
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    invalid: Invalid = "raise",
    out: Any = None,
    keepdims: bool = False,
    threads: int | None = None,
) -> Any:
    """Negative log-likelihood -log q[label] of every row.

    It is the cross-entropy of the distribution that has all its weight on the label, with q. Rows stand for q/Σq. Where
    q[label] is 0 the result is +inf.

    {sections}

    See Also
    --------
    cross_entropy : The same for a distribution in the place of a label.
    compare : It has the values for two models, and more, from one read.

    Notes
    -----
    The result is at most 32 ε |x| + 4 ε from its exact value x, where ε is that of its dtype. It is log Σq - log q[label],
    with w = e^x in the place of q for logits x. With smoothing s it is (1 - s) times that, and s times the mean of -log q
    over all n entries, section 7 of [1]_.

    References
    ----------
    .. [1] C. Szegedy, V. Vanhoucke, S. Ioffe, J. Shlens and Z. Wojna, "Rethinking the Inception architecture for computer
       vision", IEEE Conference on Computer Vision and Pattern Recognition, 2016.

    Examples
    --------
    >>> import fastkl
    >>> fastkl.nll([0, 2], [[0.5, 0.25, 0.25], [0.25, 0.25, 0.5]], base=2)
    array([1., 1.])
    >>> fastkl.nll([1, -100], [[0.0, 0.0], [2.0, 1.0]], base=2, from_logits=True, ignore_index=-100)
    array([1., 0.])

    The mean of the losses is that of the kept labels:

    >>> import numpy as np
    >>> labels = np.array([1, -100])
    >>> fastkl.nll(labels, [[0.0, 0.0], [2.0, 1.0]], base=2, from_logits=True, ignore_index=-100)[labels != -100].mean()
    np.float64(1.0)
    """
    request = Request("nll", q=q, labels=labels)
    request.set_rows(axis, normalize, invalid)
    request.set_numbers(base, eps, threads)
    request.set_logits(from_logits, temperature)
    request.set_labels(ignore_index, label_smoothing)
    request.set_result(out, keepdims)
    return _run(request)


@overload
def hellinger_distance(
    p: Row, q: Row, *, out: None = ..., keepdims: Literal[False] = ..., **o: Unpack[_Metric]
) -> Value: ...
@overload
def hellinger_distance(p: Rows, q: Rows, *, out: None = ..., keepdims: bool = ..., **o: Unpack[_Metric]) -> Values: ...
@overload
def hellinger_distance(p: Any, q: Any, *, out: Out | None = ..., keepdims: bool = ..., **o: Unpack[_Metric]) -> Out: ...
@documented
def hellinger_distance(
    p: ArrayLike,
    q: ArrayLike,
    *,
    axis: SupportsIndex = -1,
    normalize: bool = False,
    from_logits: FromLogits = False,
    temperature: float = 1.0,
    invalid: Invalid = "raise",
    out: Any = None,
    keepdims: bool = False,
    threads: int | None = None,
) -> Any:
    """Hellinger distance √(½ Σ (√p - √q)²) of every pair of rows.

    It is a metric between 0 and 1: 0.0 for rows that hold equal values, 1.0 for rows that have no positive entry in the
    same place. Rows stand for p/Σp and q/Σq. The result has the same bits for `p` and `q` exchanged.

    {sections}

    See Also
    --------
    total_variation : Another metric between 0 and 1, which lies between H² and √2 H.
    js_distance : A metric of the same kind, which is made of logarithms.

    Notes
    -----
    The definition and what relates it to other distances are in [1]_, section 2.4. The relative error is at most 8 ε,
    however near the rows are, where ε is that of the result's dtype; of rows that are proportional but not equal, the
    result is at most ε. From logits the relative error is at most 32 ε where the square is above 1e-14.

    One pass computes H² = (Σ (√p - √q)² - (√Σp - √Σq)²) / 2√(Σp Σq), of which each term is ((p - q) / (√p + √q))²:
    nothing cancels where p and q nearly agree, and the correction is of second order in Σp - Σq. From logits it is ½ E[(1
    - √(q/p))²] under p.

    References
    ----------
    .. [1] A. B. Tsybakov, "Introduction to nonparametric estimation", Springer, 2009.

    Examples
    --------
    >>> import fastkl
    >>> fastkl.hellinger_distance([1.0, 0.0], [0.0, 1.0])
    np.float64(1.0)
    >>> fastkl.hellinger_distance([0.5, 0.5], [0.25, 0.75])
    np.float64(0.184591911...)
    """
    request = Request("hellinger_distance", p, q)
    request.set_rows(axis, normalize, invalid)
    request.set_numbers(None, 0.0, threads)
    request.set_logits(from_logits, temperature)
    request.set_result(out, keepdims)
    return _run(request)


@overload
def total_variation(p: Row, q: Row, *, out: None = ..., keepdims: Literal[False] = ..., **o: Unpack[_Metric]) -> Value: ...
@overload
def total_variation(p: Rows, q: Rows, *, out: None = ..., keepdims: bool = ..., **o: Unpack[_Metric]) -> Values: ...
@overload
def total_variation(p: Any, q: Any, *, out: Out | None = ..., keepdims: bool = ..., **o: Unpack[_Metric]) -> Out: ...
@documented
def total_variation(
    p: ArrayLike,
    q: ArrayLike,
    *,
    axis: SupportsIndex = -1,
    normalize: bool = False,
    from_logits: FromLogits = False,
    temperature: float = 1.0,
    invalid: Invalid = "raise",
    out: Any = None,
    keepdims: bool = False,
    threads: int | None = None,
) -> Any:
    """Total variation distance ½ Σ |p - q| of every pair of rows.

    It is the largest difference between the probabilities that `p` and `q` give to an event, a metric between 0 and 1: 0.0
    for rows that hold equal values, 1.0 for rows that have no positive entry in the same place. In speculative decoding, a
    draft token is accepted with the probability 1 - TV. Rows stand for p/Σp and q/Σq. The result has the same bits for `p`
    and `q` exchanged.

    {sections}

    See Also
    --------
    hellinger_distance : Another metric between 0 and 1.
    kl_divergence : At least twice the square of the total variation (Pinsker's inequality).
    compare : It has the total variation, and more, from one read.
    TopK : Rows `p` of which the largest entries are known, and beside which q may be full or a TopK.

    Notes
    -----
    The definition is in [1]_, section 2.4; the acceptance of draft tokens in [2]_. The relative error is at most 8 ε,
    however near the rows are, where ε is that of the result's dtype; a value up to ε² of rows that are proportional may
    be off by as much. From logits the relative error is at most 32 ε for values above 1e-14.

    Even a difference of the sums by rounding shows in the first order. Therefore a second pass over the row, while it is in
    cache, adds (p + q) (Σq - Σp)/(Σp + Σq) to each difference p - q, where Σq - Σp is summed as the differences q - p.

    References
    ----------
    .. [1] A. B. Tsybakov, "Introduction to nonparametric estimation", Springer, 2009.
    .. [2] Y. Leviathan, M. Kalman and Y. Matias, "Fast inference from transformers via speculative decoding", International
       Conference on Machine Learning, 2023.

    Examples
    --------
    >>> import fastkl
    >>> fastkl.total_variation([1.0, 0.0], [0.0, 1.0])
    np.float64(1.0)
    >>> fastkl.total_variation([[0.5, 0.5], [0.25, 0.75]], [0.25, 0.75])
    array([0.25, 0.  ])
    """
    request = Request("total_variation", p, q)
    request.set_rows(axis, normalize, invalid)
    request.set_numbers(None, 0.0, threads)
    request.set_logits(from_logits, temperature)
    request.set_result(out, keepdims)
    return _run(request)


@overload
def chi2_divergence(
    p: Row, q: Row, *, out: None = ..., keepdims: Literal[False] = ..., **o: Unpack[_MetricEps]
) -> Value: ...
@overload
def chi2_divergence(p: Rows, q: Rows, *, out: None = ..., keepdims: bool = ..., **o: Unpack[_MetricEps]) -> Values: ...
@overload
def chi2_divergence(p: Any, q: Any, *, out: Out | None = ..., keepdims: bool = ..., **o: Unpack[_MetricEps]) -> Out: ...
@documented
def chi2_divergence(
    p: ArrayLike,
    q: ArrayLike,
    *,
    axis: SupportsIndex = -1,
    normalize: bool = False,
    from_logits: FromLogits = False,
    temperature: float = 1.0,
    eps: float = 0.0,
    invalid: Invalid = "raise",
    out: Any = None,
    keepdims: bool = False,
    threads: int | None = None,
) -> Any:
    """The χ² divergence Σ (p - q)²/q of every pair of rows, which is Pearson's.

    Rows stand for p/Σp and q/Σq. The result is never negative, and exactly 0.0 where the two rows hold equal values. Where
    p > 0 and q = 0 it is +inf; an entry that is 0 in both adds 0.

    {sections}

    See Also
    --------
    kl_divergence : D(p‖q), which is at most log(1 + χ²).
    renyi_divergence : With alpha=2 it is log(1 + χ²).

    Notes
    -----
    The definition is in [1]_, section 2.4. Of counts, the statistic of Pearson's test is Σp times it. The relative error is
    at most 8 ε, however near the rows are, where ε is that of the result's dtype; of rows that are proportional but not
    equal, the result is at most ε². From logits the relative error is at most 32 ε for values above 1e-14.

    One pass computes χ² = (Σq Σ (p - q)²/q - (Σp - Σq)²) / (Σp)²: nothing cancels where p and q nearly agree, and the
    correction is of second order in Σp - Σq. From logits it is E[(q/p - 1)² p/q] under p.

    References
    ----------
    .. [1] A. B. Tsybakov, "Introduction to nonparametric estimation", Springer, 2009.

    Examples
    --------
    >>> import fastkl
    >>> fastkl.chi2_divergence([0.5, 0.5], [0.25, 0.75])
    np.float64(0.3333333333333333)
    >>> fastkl.chi2_divergence([3, 1], [1, 1], normalize=True)
    np.float64(0.25)
    """
    request = Request("chi2_divergence", p, q)
    request.set_rows(axis, normalize, invalid)
    request.set_numbers(None, eps, threads)
    request.set_logits(from_logits, temperature)
    request.set_result(out, keepdims)
    return _run(request)


@overload
def jeffreys_divergence(p: Row, q: Row, *, out: None = ..., keepdims: Literal[False] = ..., **o: Unpack[_Eps]) -> Value: ...
@overload
def jeffreys_divergence(p: Rows, q: Rows, *, out: None = ..., keepdims: bool = ..., **o: Unpack[_Eps]) -> Values: ...
@overload
def jeffreys_divergence(p: Any, q: Any, *, out: Out | None = ..., keepdims: bool = ..., **o: Unpack[_Eps]) -> Out: ...
@documented
def jeffreys_divergence(
    p: ArrayLike,
    q: ArrayLike,
    *,
    axis: SupportsIndex = -1,
    base: float | None = None,
    normalize: bool = False,
    from_logits: FromLogits = False,
    temperature: float = 1.0,
    eps: float = 0.0,
    invalid: Invalid = "raise",
    out: Any = None,
    keepdims: bool = False,
    threads: int | None = None,
) -> Any:
    """The Jeffreys divergence D(p‖q) + D(q‖p) = Σ (p - q) log(p/q) of every pair of rows.

    Drift monitoring calls it the population stability index (PSI) of binned shares. Rows stand for p/Σp and q/Σq. The
    result is never negative, exactly 0.0 where the two rows hold equal values, and has the same bits for `p` and `q`
    exchanged. Where one of p and q is 0 and the other is not, it is +inf, unless `eps` clips both.

    {sections}

    See Also
    --------
    kl_divergence : One of its two parts.
    js_divergence : A symmetric divergence that is always finite.

    Notes
    -----
    The definition is in [1]_. PSI is `jeffreys_divergence` with `eps`, and shares of bins as rows, or their counts with
    ``normalize=True``. In credit scoring a PSI below 0.1 counts as no change and one above 0.25 as a major one, a rule of
    thumb of [2]_ whose significance depends on the numbers of rows and of bins, see [3]_.

    The relative error is at most 8 ε, however near the rows are, where ε is that of the result's dtype; of rows that are
    proportional but not equal, the result is at most ε². From logits it is the sum of `kl_divergence` in both directions,
    with the error of these.

    Every term (p - q) log(p/q) is non-negative, and the difference and the logarithm are exact to a rounding where p and q
    nearly agree. Rows whose sums differ are read a second time, with one of them scaled.

    References
    ----------
    .. [1] H. Jeffreys, "An invariant form for the prior probability in estimation problems", Proceedings of the Royal
       Society A 186, 1946.
    .. [2] N. Siddiqi, "Credit risk scorecards", Wiley, 2006.
    .. [3] B. Yurdakul and J. Naranjo, "Statistical properties of the population stability index", Journal of Risk Model
       Validation 14, 2020.

    Examples
    --------
    >>> import fastkl
    >>> fastkl.jeffreys_divergence([0.5, 0.5], [0.25, 0.75])
    np.float64(0.27465307...)

    The PSI of counts in bins, of which one is empty:

    >>> fastkl.jeffreys_divergence([120, 80, 0], [100, 90, 10], normalize=True, eps=0.01)
    np.float64(0.3...)
    """
    request = Request("jeffreys_divergence", p, q)
    request.set_rows(axis, normalize, invalid)
    request.set_numbers(base, eps, threads)
    request.set_logits(from_logits, temperature)
    request.set_result(out, keepdims)
    return _run(request)


@overload
def generalized_kl(p: Row, q: Row, *, out: None = ..., keepdims: Literal[False] = ..., **o: Unpack[_Sums]) -> Value: ...
@overload
def generalized_kl(p: Rows, q: Rows, *, out: None = ..., keepdims: bool = ..., **o: Unpack[_Sums]) -> Values: ...
@overload
def generalized_kl(p: Any, q: Any, *, out: Out | None = ..., keepdims: bool = ..., **o: Unpack[_Sums]) -> Out: ...
@documented
def generalized_kl(
    p: ArrayLike,
    q: ArrayLike,
    *,
    axis: SupportsIndex = -1,
    eps: float = 0.0,
    invalid: Invalid = "raise",
    out: Any = None,
    keepdims: bool = False,
    threads: int | None = None,
) -> Any:
    """Generalised Kullback-Leibler divergence Σ p log(p/q) - p + q of every pair of rows, as they are.

    Nothing is normalised: it is the divergence of non-negative numbers, such as counts and what a model predicts for
    them, the loss of non-negative matrix factorisation, and half of a Poisson deviance. The result is never negative, and
    exactly 0.0 where the two rows hold equal values. An entry with p = 0 adds q; where p > 0 and q = 0, the result is
    +inf. A row of zeros is valid.

    {sections}

    See Also
    --------
    kl_divergence : The divergence of the distributions that the rows stand for.
    fastkl.compat.scipy.kl_div_sum : The same with SciPy's axes and results.

    Notes
    -----
    The definition is in [1]_. The relative error is at most 8 ε, however near the rows are, where ε is that of the result's
    dtype: every term φ(p, q) = p log(p/q) - (p - q) is non-negative, and right to a few ε.

    References
    ----------
    .. [1] D. D. Lee and H. S. Seung, "Algorithms for non-negative matrix factorization", Neural Information Processing
       Systems, 2000.

    Examples
    --------
    >>> import fastkl
    >>> fastkl.generalized_kl([1, 2, 0], [1.0, 1.5, 0.5])
    np.float64(0.575364...)
    >>> fastkl.generalized_kl([[0.0, 0.0]], [[0.0, 0.0]])
    array([0.])
    """
    request = Request("generalized_kl", p, q)
    request.set_rows(axis, True, invalid)
    request.set_numbers(None, eps, threads)
    request.set_result(out, keepdims)
    return _run(request)


@overload
def renyi_divergence(
    p: Row, q: Row, alpha: float, *, out: None = ..., keepdims: Literal[False] = ..., **o: Unpack[_Eps]
) -> Value: ...
@overload
def renyi_divergence(
    p: Rows, q: Rows, alpha: float, *, out: None = ..., keepdims: bool = ..., **o: Unpack[_Eps]
) -> Values: ...
@overload
def renyi_divergence(
    p: Any, q: Any, alpha: float, *, out: Out | None = ..., keepdims: bool = ..., **o: Unpack[_Eps]
) -> Out: ...
@documented
def renyi_divergence(
    p: ArrayLike,
    q: ArrayLike,
    alpha: float,
    *,
    axis: SupportsIndex = -1,
    base: float | None = None,
    normalize: bool = False,
    from_logits: FromLogits = False,
    temperature: float = 1.0,
    eps: float = 0.0,
    invalid: Invalid = "raise",
    out: Any = None,
    keepdims: bool = False,
    threads: int | None = None,
) -> Any:
    """Rényi divergence log(Σ p^α q^(1-α)) / (α - 1) of order α of every pair of rows.

    Rows stand for p/Σp and q/Σq. The result is never negative, exactly 0.0 where the two rows hold equal values, and does
    not decrease with α. It is +inf for rows that have no positive entry in the same place, and for α >= 1 where p > 0 and
    q = 0.

    {sections}

    See Also
    --------
    kl_divergence : The divergence of order 1.
    chi2_divergence : The divergence of order 2 is log(1 + χ²).
    hellinger_distance : The divergence of order ½ is -2 log(1 - H²).

    Notes
    -----
    The definition is in [1]_; [2]_ has its properties. With w = (α - 1) log(p/q), the relative error is at most 16 ε where
    |w| <= 16 for every entry, else ε times the largest |w|, for 0.01 <= α <= 100, also where α is near 1; ε is that of the
    result's dtype. From logits it is at most 32 max(1, α) ε for values above 1e-14.

    One pass adds up what p^α q^(1-α) differs by from its tangent, which never changes its sign: with ψ(x) = e^x - 1 - x,
    the φ of `kl_divergence` and β = 1 - α, that is -β (φ(p, q) - p ψ(β log(q/p))/β), whose part in brackets goes over to
    φ as α goes to 1. With z = Σ p^α q^(1-α) - 1, the result is log1p(z) / (α - 1).

    References
    ----------
    .. [1] A. Rényi, "On measures of entropy and information", Fourth Berkeley Symposium on Mathematical Statistics and
       Probability, 1961.
    .. [2] T. van Erven and P. Harremoës, "Rényi divergence and Kullback-Leibler divergence", IEEE Transactions on
       Information Theory 60, 2014.

    Examples
    --------
    >>> import fastkl
    >>> fastkl.renyi_divergence([0.5, 0.5], [0.25, 0.75], 2)
    np.float64(0.28768207...)
    >>> fastkl.renyi_divergence([0.5, 0.5], [0.25, 0.75], float("inf"))
    np.float64(0.69314718...)
    """
    request = Request("renyi_divergence", p, q)
    request.set_rows(axis, normalize, invalid)
    request.set_numbers(base, eps, threads)
    request.set_alpha(alpha)
    request.set_logits(from_logits, temperature)
    request.set_result(out, keepdims)
    return _run(request)


class Comparison(NamedTuple):
    """What `compare` returns: an array with one value for every pair of rows in each field.

    See Also
    --------
    compare : Its section "Returns" describes the fields.
    """

    entropy_p: Any
    entropy_q: Any
    cross_entropy: Any
    kl: Any
    reverse_kl: Any
    js: Any
    total_variation: Any
    same_argmax: Any
    nll_p: Any
    nll_q: Any


@documented
def compare(
    p: ArrayLike,
    q: ArrayLike,
    labels: ArrayLike | None = None,
    *,
    axis: SupportsIndex = -1,
    base: float | None = None,
    normalize: bool = False,
    from_logits: FromLogits = False,
    temperature: float = 1.0,
    ignore_index: int | None = None,
    invalid: Invalid = "raise",
    keepdims: bool = False,
    threads: int | None = None,
) -> Comparison:
    """Entropies, divergences and agreement of every pair of rows of two models.

    One call reads `p` and `q` once and computes everything that the other functions would. Rows stand for p/Σp and q/Σq.

    {sections}

    See Also
    --------
    kl_divergence : D(p‖q) alone, which has `eps` and `out`, too.
    nll : The negative log-likelihood of labels alone.

    Notes
    -----
    Each value is as accurate as that of the function which gives it alone. H(p, q) is the sum of H(p) and D(p‖q), which are
    non-negative; see [1]_ for the definitions and for what relates them.

    References
    ----------
    .. [1] T. M. Cover and J. A. Thomas, "Elements of information theory", 2nd edition, Wiley, 2006, chapter 2.

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
    request = Request("compare", p, q, labels)
    request.set_rows(axis, normalize, invalid)
    request.set_numbers(base, 0.0, threads)
    request.set_logits(from_logits, temperature)
    request.set_labels(ignore_index, 0.0)
    request.set_result(None, keepdims)
    result = _run(request)
    fields = Comparison._make(result[i] for i in range(len(Comparison._fields)))
    fields = fields._replace(same_argmax=fields.same_argmax == 1)
    return fields if labels is not None else fields._replace(nll_p=None, nll_q=None)


__all__ = [
    "Comparison",
    "chi2_divergence",
    "compare",
    "cross_entropy",
    "entropy",
    "generalized_kl",
    "hellinger_distance",
    "jeffreys_divergence",
    "js_distance",
    "js_divergence",
    "kl_divergence",
    "nll",
    "renyi_divergence",
    "total_variation",
]
