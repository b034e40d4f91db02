"""References for the measures: by definition for one row, and faster for many rows.

A measure is one piece of this file. The definition, which mpmath computes for rows of probabilities and of logits, is the
truth; beside it stand the documented bound of its error and, where there is one, the fast form in double-double arithmetic.
`evaluate` computes every row of matrices in the fast form, and by definition where that is not provably enough;
logits_reference.py does so for logits. `error` measures how far results are from it, in the unit of the documented bounds.
Knows nothing of fastkl.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from mpmath import mp, mpf

from support.double_double import HALF, LN2, ONE, TWO, Array, DoubleDouble, expanded_log, log_ratio, reduced_log

# Definitions -------------------------------------------------------------------------------------------------------------
#
# Logarithms have relative errors of 10^-digits, which add up to less than 10^-digits times three H and the value. A value
# above 10^(ENOUGH - digits) has at least ENOUGH - 3 digits; another is computed again with more. What is then below 10^-570
# is zero, as a D or JS below 10^-324 is to a double, and a distance below 10^-280 to `error`. What is computed from entries
# as they are is a sum of terms that are 0 or, as different doubles differ by 2^-53 of them, have a third of the digits.
DIGITS = (70, 160, 600)
ENOUGH = 30


class Entry(NamedTuple):
    """A probability or weight and its logarithm, which is -inf of zero."""

    value: mpf
    log: mpf


def weights_of(row, logits=False, temperature=1.0, eps=0.0):
    """What a row of weights or of logits stands for. Eps clips the softmax, or the weights as they are given."""
    weights = [x if isinstance(x, mpf) else mpf(float(x)) for x in row]
    if logits:
        most = max(weights)
        weights = [mp.exp((x - most) / temperature) for x in weights]
    if eps:
        total = mp.fsum(weights) if logits else 1
        weights = [max(x / total, mpf(eps)) for x in weights]
    return weights


def entries(weights):
    """Weights as they are."""
    return [Entry(x, mp.log(x) if x else mp.ninf) for x in weights]


def distribution(weights):
    """Weights divided by their sum."""
    total = mp.fsum(weights)
    return entries([x / total for x in weights])


@dataclass(eq=False)
class Measure:
    """A measure of rows: a call computes that of one row by definition.

    `of` is the definition for two rows, which are lists of Entry. A result may be off by `bound` eps (|x| + `offset`), and
    one of logits by `logits_bound` times the unit in logits_reference.py.
    """

    of: Callable[..., mpf]
    bound: float
    offset: float = 0.0
    logits_bound: float = 32
    # From p and q, how many eps |x| a row's result may be off if that is more than `bound`.
    row_bound: Callable[[Array, Array], Array] | None = None
    # Where rows are proportional but for rounding, so that the value is at most eps^near_from, an error of eps^near counts
    # as none. A total variation is of first order in that rounding.
    near: int | None = None
    near_from: int = 2
    # From where p and where q are positive, which pairs have an infinite value.
    infinite: Callable[[Array, Array], Array] | None = None
    # Whether the measure is the square root of what the definition and the fast form compute.
    root: bool = False
    # Whether p and q can be exchanged; which of them eps clips; whether they are divided by their sums.
    symmetric: bool = False
    clips: str = "q"
    normalized: bool = True
    # What the function takes in addition.
    keywords: dict[str, float] = field(default_factory=dict)
    # From x and q, DoubleDouble weights, the values of rows, and where these are right if they are finite.
    fast: Callable[..., Any] | None = None

    @property
    def function(self):
        """The name of fastkl's function."""
        return self.of.__name__

    @property
    def name(self):
        """The key in DEFINITIONS."""
        return "".join([self.function, *(f"({value})" for value in self.keywords.values())])

    def __call__(self, p, q=None, from_logits=(False, False), temperature=1.0, eps=0.0):
        """With as many digits as the value takes."""
        rows = distribution if self.normalized else entries
        for digits in DIGITS:
            with mp.workdps(digits):
                x = rows(weights_of(p, from_logits[0], temperature, eps if "p" in self.clips else 0))
                y = x if q is None else rows(weights_of(q, from_logits[1], temperature, eps))
                value = self.of(x, y, **self.keywords)
                if value > mpf(10) ** (ENOUGH - digits) or (value == 0 and x == y) or not self.normalized:
                    return mp.sqrt(value) if self.root else value
        return mpf(0)

    def bounds(self, p, q):
        """How many eps (|x| + offset) the result of each row may be off."""
        return self.bound if self.row_bound is None else np.maximum(self.bound, self.row_bound(p, q))

    def fast_form(self, fast):
        """Register the fast form."""
        self.fast = fast
        return fast


DEFINITIONS = {}


def _definition(**fields):
    """A definition as a Measure with these fields."""

    def define(of):
        measure = Measure(of, **fields)
        return DEFINITIONS.setdefault(measure.name, measure)

    return define


def _lacks(p, q):
    """Where q lacks an entry that p has."""
    return np.any(p & ~q, axis=-1)


# Many rows at once -------------------------------------------------------------------------------------------------------
#
# Everything below has relative errors of at most 2^-90, or 2^-90 of a nat for H near 0: at most some forty operations with
# errors of 15 u^2 = 2^-102 follow each other, and only the checked subtractions cancel, and Q - q in the logarithm of an
# entry near 1. That is 2^-38 eps. A row is computed by definition if double-double numbers could overflow or be subnormal
# in it (entries below SMALLEST times the largest one), or if a checked subtraction left less than 1/MOST_CANCELLATION.

SMALLEST = 2.0**-500
MOST_CANCELLATION = 2.0**20

# Entries in one NumPy operation: so many that its fixed cost is small, so few that they stay in cache.
BLOCK = 1 << 13


def exponents(rows):
    """The powers of two by which the rows are divided to bring their largest entries to [1/2, 1)."""
    return np.frexp(rows.max(axis=-1, keepdims=True))[1]


def scaled(rows, power=None):
    """The rows divided by these powers of two, or by their own."""
    return DoubleDouble.of(np.ldexp(rows, -(exponents(rows) if power is None else power)))


def column(x):
    """A number of each row, as a column."""
    return x[:, np.newaxis]


def phi(a, b, d):
    """For positive a and b, a log(a/b) - d, d = a - b. Where they are close, 2 a s - d is s d."""
    k, s, tail = reduced_log(a, b, d)
    return DoubleDouble.where(k == 0, s * d + a * tail, a * expanded_log(k, s, tail) - d)


def _nearly_equal_sums(x, q):
    """The rows c q, P, and the t in c Q = P (1 - t). As c is P/Q rounded, c q is exact for doubles q; |t| < 2^-50."""
    p_sum = x.sum()
    y = q * column(DoubleDouble.of(p_sum.high / q.sum().high))
    return y, p_sum, (x - y).sum() / p_sum


# The measures ------------------------------------------------------------------------------------------------------------
#
# In the bounds of entropies, 2 eps are for the logarithm of a sum near 1, which has the absolute error of the sum, however
# small H is.


@_definition(bound=4, offset=0.5)
def entropy(x, _):
    """H(x) = -sum of x log x."""
    return -mp.fsum(a.value * a.log for a in x if a.value)


@_definition(bound=4, offset=0.5, infinite=_lacks)
def cross_entropy(x, y):
    """H(x, y) = -sum of x log y."""
    return -mp.fsum(a.value * b.log for a, b in zip(x, y, strict=True) if a.value)


@entropy.fast_form
@cross_entropy.fast_form
def _fast_cross_entropy(x, q):
    """(Sum of p log(Q/q)) / P: every term is >= 0."""
    total = column(q.sum())
    y = DoubleDouble.where((x.high > 0) & (q.high > 0), q, total)
    return (x * log_ratio(total, y)).sum() / x.sum(), True


# All terms of D are >= 0.
@_definition(bound=4, infinite=_lacks)
def kl_divergence(x, y):
    """D(x || y) = sum of x log(x/y)."""
    return mp.fsum(a.value * (a.log - b.log) for a, b in zip(x, y, strict=True) if a.value)


@kl_divergence.fast_form
def _fast_kl_divergence(x, q):
    """(Sum of phi(p, c q) - phi(P, c Q)) / P."""
    y, p_sum, t = _nearly_equal_sums(x, q)
    both = (x.high > 0) & (q.high > 0)
    a, b = DoubleDouble.where(both, x, ONE), DoubleDouble.where(both, y, ONE)
    terms = DoubleDouble.where(both, phi(a, b, a - b), y).sum()
    # phi(P, P (1 - t)) = P (t^2/2 + t^3/3 + ...)
    left = terms - p_sum * t * t * (HALF + DoubleDouble.of(t.high / 3))
    return left / p_sum, terms.high <= MOST_CANCELLATION * left.high


# JS is nearly a sum of squares of differences. Where a row has been scaled, these are rounded twice, each time by half an
# eps, which the square doubles; 2 eps more come from the rest of a term, 1.5 from sums and quotient.
@_definition(bound=6, symmetric=True)
def js_divergence(x, y):
    """Half of D(x || m) + D(y || m), m = (x + y) / 2."""
    means = [mp.log((a.value + b.value) / 2) if a.value or b.value else mp.ninf for a, b in zip(x, y, strict=True)]
    return mp.fsum(a.value * (a.log - m) for a, m in zip([*x, *y], means * 2, strict=True) if a.value) / 2


@js_divergence.fast_form
def _fast_js_divergence(x, q):
    """(Sum of phi(p, m) + phi(c q, m) - phi(P, M) - phi(c Q, M)) / (P + c Q), m and M the means of p and c q, P and c Q.

    So x and y weigh P / (P + c Q) = 1/2 + t/4 + ... and 1/2 - t/4 - ..., which is t/4 (D(x || m) - D(y || m)) too much.
    """
    y, p_sum, t = _nearly_equal_sums(x, q)
    both = (x.high > 0) & (q.high > 0)
    a, b = DoubleDouble.where(both, x, ONE), DoubleDouble.where(both, y, ONE)
    mean, e, alone = (a + b) * HALF, (a - b) * HALF, (x + y) * HALF
    # Where one of them is zero, m is half of the other: phi(z, z/2) = z (ln 2 - 1/2), phi(0, z/2) = z/2.
    single = [DoubleDouble.where(z.high > 0, z * (LN2 - HALF), alone) for z in (x, y)]
    of_x = DoubleDouble.where(both, phi(a, mean, e), single[0]).sum()
    of_y = DoubleDouble.where(both, phi(b, mean, -e), single[1]).sum()
    # phi(P, M) + phi(Q, M) = M (u^2 + u^4/6 + ...), with u = (P - Q) / (P + Q) and M = (P + Q) / 2 for the Q here.
    u, both_sums = t / (TWO - t), p_sum * (TWO - t)
    terms = of_x + of_y
    left = terms - both_sums * HALF * u * u * (ONE + u * u / DoubleDouble.of(np.float64(6)))
    too_much = t * (of_x - of_y) / (p_sum * DoubleDouble.of(np.float64(4)))
    return left / both_sums - too_much, terms.high <= MOST_CANCELLATION * left.high


@_definition(bound=4, root=True, symmetric=True)
def js_distance(x, y):
    """JS, of which the distance is the square root."""
    return js_divergence.of(x, y)


js_distance.fast_form(_fast_js_divergence)


def _differences(x, q):
    """A and b, which are P (1 - t) times the two distributions; their differences; P (1 - t); and where these are right.

    The errors of p - c q and p t are 2^-98 of them, and of p times the mean |p - c q| / P. The check of the sum of |a - b|
    leaves 2^-78 of it. Sums of (a - b)^2 w, where w is 1/b or about 1/(a + b), are as right. By the Cauchy-Schwarz
    inequality, their roots are no less than the sum of |a - b| over the root of the sum of 1/w, and the root of the sum of
    (p t)^2 w is |t| times that of p^2 w.
    """
    b, p_sum, t = _nearly_equal_sums(x, q)
    off, moved = x - b, x * column(t)
    d = off - moved
    held = (abs(off) + abs(moved)).sum().high <= MOST_CANCELLATION * abs(d).sum().high
    return x - moved, b, d, p_sum * (ONE - t), held


# The square is a sum of squares, whose root halves their relative errors.
@_definition(bound=8, logits_bound=64, near=1, root=True, symmetric=True)
def hellinger_distance(x, y):
    """Half of the sum of (sqrt x - sqrt y)^2, of which the distance is the square root."""
    return mp.fsum((mp.sqrt(a.value) - mp.sqrt(b.value)) ** 2 for a, b in zip(x, y, strict=True)) / 2


@hellinger_distance.fast_form
def _fast_squared_hellinger_distance(x, q):
    """Half of the sum of ((a - b) / (sqrt a + sqrt b))^2 / (P (1 - t))."""
    a, b, d, total, held = _differences(x, q)
    roots = a.sqrt() + b.sqrt()
    ratio = DoubleDouble.where(roots.high > 0, d / roots, d)
    return (ratio * ratio).sum() * HALF / total, held


# All terms are >= 0, and none is a difference of sums.
@_definition(bound=8, infinite=_lacks, normalized=False)
def generalized_kl(x, y):
    """The sum of p log(p/q) - p + q, of entries as they are."""
    return mp.fsum((a.value * (a.log - b.log) if a.value else 0) - a.value + b.value for a, b in zip(x, y, strict=True))


@generalized_kl.fast_form
def _fast_generalized_kl(p, q):
    """The sum of phi(p, q)."""
    both = (p.high > 0) & (q.high > 0)
    a, b = DoubleDouble.where(both, p, ONE), DoubleDouble.where(both, q, ONE)
    return DoubleDouble.where(both, phi(a, b, a - b), q).sum(), True


@_definition(bound=8, near=2, near_from=1, symmetric=True)
def total_variation(x, y):
    """Half of the sum of |x - y|."""
    return mp.fsum(abs(a.value - b.value) for a, b in zip(x, y, strict=True)) / 2


@total_variation.fast_form
def _fast_total_variation(x, q):
    """Half of the sum of |a - b| / (P (1 - t))."""
    _, _, d, total, held = _differences(x, q)
    return abs(d).sum() * HALF / total, held


@_definition(bound=8, near=2, infinite=_lacks)
def chi2_divergence(x, y):
    """The sum of (x - y)^2 / y."""
    if any(a.value and not b.value for a, b in zip(x, y, strict=True)):
        return mp.inf
    return mp.fsum((a.value - b.value) ** 2 / b.value for a, b in zip(x, y, strict=True) if b.value)


@chi2_divergence.fast_form
def _fast_chi2_divergence(x, q):
    """The sum of (a - b) ((a - b) / b) / (P (1 - t)): a square could be subnormal."""
    _, b, d, total, held = _differences(x, q)
    return DoubleDouble.where(b.high > 0, d * (d / b), d).sum() / total, held


def _differ(p, q):
    """Where one lacks an entry that the other has."""
    return np.any(p != q, axis=-1)


@_definition(bound=8, near=2, infinite=_differ, symmetric=True, clips="pq")
def jeffreys_divergence(x, y):
    """The sum of (x - y) log(x/y)."""
    if any((a.value > 0) != (b.value > 0) for a, b in zip(x, y, strict=True)):
        return mp.inf
    return mp.fsum((a.value - b.value) * (a.log - b.log) for a, b in zip(x, y, strict=True) if a.value)


@jeffreys_divergence.fast_form
def _fast_jeffreys_divergence(x, q):
    """The sum of both D, which are >= 0."""
    (one, one_held), (other, other_held) = _fast_kl_divergence(x, q), _fast_kl_divergence(q, x)
    return one + other, one_held & other_held


# The first is the one that tests of all functions take.
ALPHAS = (2.0, 0.01, 0.3, 0.5, 0.999999999, 1.000000001, 100.0)


def _largest_exponent(alpha, p, q):
    """The largest |(alpha - 1) log(x/y)| of each row."""
    powers = [exponents(rows) for rows in (p, q)]
    sums = [np.ldexp(rows, -power).sum(axis=-1, keepdims=True) for rows, power in zip((p, q), powers, strict=True)]
    of_sums = np.log(sums[0] / sums[1]) + (powers[0] - powers[1]) * np.log(2)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.log(p) - np.log(q) - of_sums
    return abs(alpha - 1) * np.abs(ratios).max(axis=-1, where=(p > 0) & (q > 0), initial=0)


def renyi_divergence(x, y, alpha):
    """log(sum of x^alpha y^(1 - alpha)) / (alpha - 1), of which a small alpha - 1 takes as many digits as it has."""
    both = [(a, b) for a, b in zip(x, y, strict=True) if a.value and b.value]
    if not both or (alpha >= 1 and any(a.value and not b.value for a, b in zip(x, y, strict=True))):
        return mp.inf
    if alpha in (1, mp.inf):
        return kl_divergence.of(x, y) if alpha == 1 else max(a.log - b.log for a, b in both)
    power = mpf(alpha)  # of which 1 is subtracted exactly
    return mp.log(mp.fsum(mp.exp(power * a.log + (1 - power) * b.log) for a, b in both)) / (power - 1)


def _fast_renyi_divergence(x, q, alpha):
    """Zeros, which are right of equal rows alone; the caller knows where logits are equal, and where the value is infinite.

    A sum of powers near 1, divided by alpha - 1, has no form that is right in double-double.
    """
    return DoubleDouble.of(np.zeros(len(x.high))), False


def renyi(alpha):
    """The measure of this order."""
    return Measure(
        renyi_divergence,
        bound=16,
        logits_bound=32 * max(1, alpha),
        row_bound=functools.partial(_largest_exponent, alpha),
        near=2,
        infinite=_lacks if alpha >= 1 else lambda p, q: ~np.any(p & q, axis=-1),
        keywords={"alpha": alpha},
        fast=_fast_renyi_divergence,
    )


DEFINITIONS.update({measure.name: measure for measure in map(renyi, ALPHAS)})


# Calls -------------------------------------------------------------------------------------------------------------------


def loss(q, label, smoothing=0.0, **of_logits):
    """-log q[label], and `smoothing` times the mean of all -log q in place of as much of that."""
    with mp.workdps(DIGITS[0]):
        share = mpf(float(smoothing))
        weights = [(i == label) * (1 - share) + share / len(q) for i in range(len(q))]
    return cross_entropy(weights, q, **of_logits)


def operands(measure, p, q):
    """Those of p and q that the measure takes."""
    return (p,) if measure == "entropy" else (p, q)


def or_infinite(measure, p_on, q_on, value, right):
    """The values and where they are right, after those that are infinite."""
    if not measure.infinite:
        return value, right
    infinite = measure.infinite(p_on, q_on)
    return DoubleDouble.where(infinite, DoubleDouble.of(np.float64(np.inf)), value), right | infinite


def _fast(measure, p, q):
    """The measure of every row, and whether its value is right."""
    powers = [exponents(p), exponents(q)]
    if not measure.normalized:
        powers = [np.maximum(*powers)] * 2
    x, y = (scaled(rows, power) for rows, power in zip((p, q), powers, strict=True))
    normal = np.all(((x.high >= SMALLEST) | (p == 0)) & ((y.high >= SMALLEST) | (q == 0)), axis=-1)
    value, held = measure.fast(x, y, **measure.keywords)
    if not measure.normalized:
        value = value.scaled(powers[0][:, 0])
    return or_infinite(measure, p > 0, q > 0, value, normal & held)


def evaluate(name, p, q=None, fast=_fast, **of_logits):
    """The measure of every row of the matrices, of which `fast` computes what it can; of logits, as in DEFINITIONS."""
    measure = DEFINITIONS[name]
    p, q = p.astype(float), (p if q is None else q).astype(float)
    step = max(1, BLOCK // p.shape[-1])
    high, low, wrong = np.empty(len(p)), np.empty(len(p)), np.ones(len(p), bool)
    for start in range(0, len(p) if measure.fast else 0, step):
        block = slice(start, start + step)
        with np.errstate(all="ignore"):  # for rows that double-double cannot compute
            value, right = fast(measure, p[block], q[block], **of_logits)
            value = value.sqrt() if measure.root else value
        high[block], low[block], wrong[block] = value.high, value.low, ~right
    for i in np.flatnonzero(wrong):
        exact = DoubleDouble.rounded(measure(*operands(name, p[i], q[i]), **of_logits))
        high[i], low[i] = exact.high, exact.low
    return DoubleDouble(high, low)


def error(name, values, exact, unit=None):
    """The errors of the values, in eps (|exact| + offset), eps being that of their dtype; inf for one that is NaN or < 0.

    Another `unit` takes the place of |exact| + offset. An error of half the smallest number of the dtype counts as none,
    because the value has to be rounded to it, and so does that of `exact`. So do errors of distances whose squares
    double-double cannot hold with all digits, if the rows are scaled to a largest entry of 1; and those that Measure allows
    where rows are nearly proportional.
    """
    dtype, measure = np.finfo(values.dtype), DEFINITIONS[name]
    with np.errstate(all="ignore"):
        off = np.abs((values - exact.high) - exact.low)
        errors = off / (np.abs(exact.high) + measure.offset if unit is None else unit) / float(dtype.eps)
    free = max(float(dtype.smallest_subnormal) / 2, 1e-280 if measure.root else 2.0**-1074)
    if measure.near is not None:
        least = float(dtype.eps) ** measure.near * (4 if measure.near_from == 1 else 1)  # sums have two roundings more
        free = np.where(exact.high <= float(dtype.eps) ** min(measure.near, measure.near_from), least, free)
    right = (off <= free) | (np.isinf(values) & (exact.high >= float(dtype.max)))
    return np.where(values < 0, np.inf, np.where(right, 0, np.nan_to_num(errors, nan=np.inf, posinf=np.inf)))
