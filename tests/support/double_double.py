"""Double-double arithmetic on NumPy arrays, logarithms of ratios, exponentials. Knows nothing of rows and measures."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from mpmath import mp, mpf

Array = np.ndarray[Any, Any]


def _two_sum(a, b):
    """Knuth: a + b and what rounding took from it, exactly."""
    total = a + b
    b_part = total - a
    return total, (a - (total - b_part)) + (b - b_part)


def _quick_two_sum(a, b):
    """Dekker: the same for |a| >= |b|."""
    total = a + b
    return total, b - (total - a)


def _halves(a):
    """Veltkamp: a as a sum of two numbers of 26 bits."""
    scaled = a * (2.0**27 + 1)
    upper = scaled - (scaled - a)
    return upper, a - upper


def _two_product(a, b):
    """Dekker: a b and what rounding took from it, exactly, while 2^-900 < |a b| < 2^900."""
    product = a * b
    (a_upper, a_lower), (b_upper, b_lower) = _halves(a), _halves(b)
    return product, ((a_upper * b_upper - product) + a_upper * b_lower + a_lower * b_upper) + a_lower * b_lower


@dataclass(frozen=True)
class DoubleDouble:
    """Numbers high + low, |low| being at most half a unit of high.

    Relative errors, u = 2^-53: + and - 3 u^2, also where they cancel, * 7 u^2, / 15 u^2 (Joldes, Muller, Popescu: Tight and
    rigorous error bounds for basic building blocks of double-word arithmetic, 2017: algorithms 6, 10 and 17).
    """

    high: Array
    low: Array

    @classmethod
    def of(cls, value):
        """The numbers themselves."""
        return cls(value, np.zeros_like(value))

    @classmethod
    def product(cls, a, b):
        """The product a b, exactly."""
        return cls(*_two_product(a, b))

    @classmethod
    def rounded(cls, value):
        """The nearest to a number of higher precision."""
        high = float(value)
        return cls(np.float64(high), np.float64(value - high if mp.isfinite(value) else 0))

    @classmethod
    def where(cls, condition, a, b):
        """As np.where."""
        return cls(np.where(condition, a.high, b.high), np.where(condition, a.low, b.low))

    def __neg__(self):
        return DoubleDouble(-self.high, -self.low)

    def __abs__(self):
        return DoubleDouble.where(self.high < 0, -self, self)

    def __add__(self, other):
        high, high_low = _two_sum(self.high, other.high)
        low, low_low = _two_sum(self.low, other.low)
        high, low = _quick_two_sum(high, high_low + low)
        return DoubleDouble(*_quick_two_sum(high, low + low_low))

    def __sub__(self, other):
        return self + -other

    def __mul__(self, other):
        high, low = _two_product(self.high, other.high)
        return DoubleDouble(*_quick_two_sum(high, low + (self.high * other.low + self.low * other.high)))

    def __truediv__(self, other):
        quotient = self.high / other.high
        rest = self - other * DoubleDouble.of(quotient)
        return DoubleDouble(*_quick_two_sum(quotient, rest.high / other.high))

    def sqrt(self):
        """The square roots, by a Newton step on those of the high parts."""
        root = np.sqrt(self.high)
        rest = self - DoubleDouble.product(root, root)
        return DoubleDouble(*_quick_two_sum(root, np.where(root > 0, rest.high / (2 * root), 0)))

    def __getitem__(self, index):
        return DoubleDouble(self.high[index], self.low[index])

    def scaled(self, exponent):
        """The numbers times 2^exponent."""
        return DoubleDouble(np.ldexp(self.high, exponent), np.ldexp(self.low, exponent))

    def sum(self):
        """The sums along the last axis, by halving: 3 u^2 for every doubling of the length."""
        terms = self
        while (n := terms.high.shape[-1]) > 1:
            both, rest = terms[..., : n // 2] + terms[..., n // 2 : n // 2 * 2], terms[..., n // 2 * 2 :]
            pairs = (both.high, rest.high), (both.low, rest.low)
            terms = DoubleDouble(*(np.concatenate(pair, axis=-1) for pair in pairs)) if n % 2 else both
        return terms[..., 0]


ZERO, HALF, ONE, TWO = (DoubleDouble.of(np.float64(x)) for x in (0, 0.5, 1, 2))

with mp.workdps(60):
    LN2 = DoubleDouble.rounded(mp.log(2))
    # 2 atanh(s) = 2 s + s z (2/3 + 2 z/5 + 2 z^2/7 + ...), z = s^2
    SERIES = [DoubleDouble.rounded(mpf(2) / j) for j in range(3, 45, 2)]


def reduced_log(a, b, difference):
    """k, s and a tail, so that log(a/b) = k ln 2 + 2 s + tail, for positive a and b and a - b.

    a/b lies in 2^k [2^-1/2, 2^1/2], so |s| < 0.1716, and what SERIES leaves out is below z^21/45 < 2^-112 of the tail.
    """
    k = np.rint(np.log2(a.high / b.high)).astype(np.int32)
    near = b.scaled(k)
    s = DoubleDouble.where(k == 0, difference, a - near) / (a + near)
    z = s * s
    series = SERIES[-1]
    for coefficient in SERIES[-2::-1]:
        series = series * z + coefficient
    return k, s, s * z * series


def expanded_log(k, s, tail):
    """log(a/b) from what reduced_log says of it."""
    return LN2 * DoubleDouble.of(k.astype(float)) + (s + s + tail)


def log_ratio(a, b):
    """log(a/b) for positive a and b."""
    return expanded_log(*reduced_log(a, b, a - b))


# e^r - 1 - r = r^2 (1/2 + r/6 + ...). As |r| < 0.3467, the terms from the 12th on are below 2^-52 of it: a double's digits
# are enough for them; those left out are below 2^-112 of it.
with mp.workdps(60):
    EXP_SERIES = [DoubleDouble.rounded(1 / mp.factorial(j)) for j in range(2, 14)]
    EXP_TAIL = [float(1 / mp.factorial(j)) for j in range(14, 25)]


def exp(x):
    """e^x = 2^k e^r, of errors |x| 2^-103 for |x| < 600; 0 below -1000."""
    x = DoubleDouble.where(x.high > -1000, x, DoubleDouble.of(np.float64(-1000)))
    k = np.rint(x.high / LN2.high)
    r = x - LN2 * DoubleDouble.of(k)
    tail = np.zeros_like(k)
    for coefficient in EXP_TAIL[::-1]:
        tail = tail * r.high + coefficient
    series = DoubleDouble.of(tail)
    for term in EXP_SERIES[::-1]:
        series = series * r + term
    return (ONE + (r + r * r * series)).scaled(k.astype(np.int32))
