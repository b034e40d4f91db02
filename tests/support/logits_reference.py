"""The reference for rows of logits: many rows in double-double arithmetic, with reference.py for the others.

reference.py has the definitions. An operand holds logits, or probabilities, whose logarithms are taken. `error` counts
in the unit of the bounds that are documented for logits. Knows nothing of fastkl.
"""

import numpy as np

from support import reference
from support.double_double import ONE, ZERO, DoubleDouble, exp, log_ratio

BOTH = (True, True)

# Those of distributions: logits stand for these.
DEFINITIONS = {name: definition for name, definition in reference.DEFINITIONS.items() if definition.normalized}

# Which of p and q hold logits, for each value of from_logits.
OF_LOGITS = {True: BOTH, False: (False, False), "p": (True, False), "q": (False, True)}

# H is right to 2^-65 of a nat, other measures to 2^-65 of them and 2^-85 of their roots, and the total variation, which is
# not like a square, to 2^-97; the root of a measure is as right as its square. Differences of logits are exact, and their
# quotients by a temperature right to 2^-100 of themselves. So a weight e^x above FAINTEST is right to 2^-93, one near 1 to
# 2^-103, and H and D to about 2^-93 of the logarithms in them, or of 1. Where D is less than 2^-16 of these, it comes from
# the weights as in reference.py: errors of weights change D by their mean times its root. Weights below FAINTEST count as 0
# where they change no value by 10^-140. A row is left to the definition if they may, if logits are beyond LARGEST,
# probabilities below SMALLEST, or the value below LEAST.

LARGEST = 2.0**32
SMALLEST = 2.0**-500
FAINTEST = -340.0
LEAST = 1e-100


class _Operand:
    """Many rows: where there is probability; weights; their logarithms; which are too faint; and which rows are right."""

    def __init__(self, rows, logits, temperature):
        self.on = rows > (-np.inf if logits else 0)
        if logits:
            top = rows.max(axis=-1, keepdims=True)
            finite = np.where(self.on, rows, top)
            self.log = (DoubleDouble.of(finite) - DoubleDouble.of(top)) / DoubleDouble.of(np.float64(temperature))
            self.faint = self.on & (self.log.high <= FAINTEST)
            self.weight = _only(self.on & ~self.faint, exp(self.log))
            self.right = np.all(np.abs(finite) < LARGEST, axis=-1) & (LARGEST**-1 < temperature < LARGEST)
        else:
            self.faint = np.zeros_like(self.on)
            self.weight = reference.scaled(rows)
            self.log = log_ratio(DoubleDouble.where(self.on, self.weight, ONE), ONE)
            self.right = np.all((self.weight.high >= SMALLEST) | ~self.on, axis=-1)


def _only(where, x):
    return DoubleDouble.where(where, x, ZERO)


def _cross_entropy(p, q):
    """The logarithm of the sum of e^y, less E[y]: all terms are >= 0, up to log 2 of probabilities."""
    return log_ratio(q.weight.sum(), ONE) - (p.weight * _only(q.on, q.log)).sum() / p.weight.sum()


def _kl_divergence(p, q):
    """D, and where it is right."""
    cross_entropy, entropy = _cross_entropy(p, q), _cross_entropy(p, p)
    plain, (close, held) = cross_entropy - entropy, reference.kl_divergence.fast(p.weight, q.weight)
    is_plain = plain.high > 2.0**-16 * (1 + cross_entropy.high)
    held &= ~np.any((p.weight.high > 0) & (q.weight.high == 0), axis=-1)
    return DoubleDouble.where(is_plain, plain, close), is_plain | held


def _of_weights(measure, p, q):
    """The form for weights. An infinite measure may owe much to a weight that counts as 0."""
    value, held = measure.fast(p.weight, q.weight, **measure.keywords)
    if measure.infinite:
        held &= ~np.any(p.faint | q.faint, axis=-1)
    return value, held


def _fast(measure, p, q, from_logits, temperature=1.0, eps=0.0):
    """The measure of every row, and which of the values are right."""
    if eps:
        return DoubleDouble.of(np.zeros(len(p))), np.zeros(len(p), bool)
    x, y = (_Operand(rows, logits, temperature) for rows, logits in zip((p, q), from_logits, strict=True))
    right = x.right & y.right
    if measure.offset:
        value = _cross_entropy(x, y)
    else:
        value, held = _kl_divergence(x, y) if measure is reference.kl_divergence else _of_weights(measure, x, y)
        equal = np.all((x.log.high == y.log.high) & (x.log.low == y.log.low) & (x.on == y.on), axis=-1)
        right &= (held & (value.high > LEAST)) | equal
    right &= np.isfinite(value.high)
    return reference.or_infinite(measure, x.on, y.on, value, right)


def evaluate(measure, p, q=None, from_logits=BOTH, **keywords):
    """The measure of every row of the matrices, with a temperature and an eps as in reference.DEFINITIONS."""
    kinds = (from_logits[0],) * 2 if q is None else from_logits
    return reference.evaluate(measure, p, q, _fast, from_logits=kinds, **keywords)


def losses(q, labels, logits=True, temperature=1.0, smoothing=0.0):
    """-log q[label] of every row, from rows that are certain of their label. With smoothing, no logit may be -inf."""
    certain, kinds = np.arange(q.shape[-1]) == labels[:, np.newaxis], (False, logits)
    own = evaluate("cross_entropy", certain, q, kinds, temperature=temperature)
    if not smoothing:
        return own
    share, every = DoubleDouble.of(np.float64(smoothing)), np.ones_like(q, float)
    return own * (ONE - share) + evaluate("cross_entropy", every, q, kinds, temperature=temperature) * share


# The documented bounds: D and JS are off by at most 32 eps of them, or of 1e-14 if that is more, and by 64 of double's
# eps times the root more if the logarithms of one operand's probabilities are rounded; a total variation by 64 of them.
# The root of JS is off by what its square may be. H and the cross-entropy are off by at most 32 eps H + 4 eps. Measure has
# the factors as `logits_bound`.
LEAST_PROMISED = 1e-14


def error(name, values, exact, mixed=False):
    """As reference.error, to be compared with `logits_bound`; `mixed` says that logarithms of probabilities are rounded."""
    measure = reference.DEFINITIONS[name]
    if measure.offset:
        return reference.error(name, values, exact, np.abs(exact.high) + 4 / 32)
    divergence = exact.high**2 if measure.root else exact.high
    unit = np.maximum(divergence, LEAST_PROMISED)
    if measure.near_from == 1:  # of which nothing is promised below, but that it is next to nothing
        unit = np.where(divergence < LEAST_PROMISED, 1.0, divergence)
    if measure.infinite and measure.near:  # a value e^x has x times the error of x
        with np.errstate(over="ignore"):
            unit = unit * np.maximum(1, np.log(np.maximum(divergence, 1)) / 16)
    if mixed:
        share = 64 * float(np.finfo(float).eps) / float(np.finfo(values.dtype).eps) / 32
        unit = unit + share * (1 if measure.near_from == 1 else np.sqrt(divergence))
    if measure.root:  # (value + exact) (value - exact) is what the squares differ by
        unit = unit / np.maximum(values.astype(float) + exact.high, 1e-300)
    return reference.error(name, values, exact, unit)
