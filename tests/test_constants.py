"""The constants of fastkl/_core/real.inc.h, sums.h and finish.inc.h are those that their comments describe."""

import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from mpmath import mp, mpf

# The headers are not installed: they are read where they stand beside the tests.
CORE = Path(__file__).parents[1] / "fastkl" / "_core"
HEX = r"-?0x[0-9a-f.]+(?:p[-+]?\d+)?"


class Lane(NamedTuple):
    """A lane type: NumPy's name for it, and the header's text about it."""

    type: Any
    text: str

    def definition(self, name):
        """What a macro is defined as."""
        definition = re.search(rf"#define {name}\b((?:.*\\\n)*.*)", self.text)
        assert definition, f"{name} is not defined"
        return definition[1]

    def numbers(self, name):
        """The hexadecimal numbers in a definition."""
        return [float.fromhex(number) for number in re.findall(HEX, self.definition(name))]

    def number(self, name):
        """The only one."""
        (number,) = self.numbers(name)
        return number

    def stated(self, what):
        """The largest error that the header states."""
        (error,) = re.findall(rf"largest error of {re.escape(what)}: (\S+)", self.text)
        return float(error)

    def rounds(self, exact, constant):
        """Whether the constant is the type's number nearest to the exact one."""
        return constant == self.type(constant) and abs(constant - exact) <= abs(float(np.spacing(self.type(constant)))) / 2


def lanes():
    text = (CORE / "real.inc.h").read_text()
    for name, value in re.findall(r"#define (FASTKL_LN2\w*) (\S+)", (CORE / "sums.h").read_text()):
        text = re.sub(rf"\b{name}\b", value, text)
    lanes = []
    for lane_type, bits, place in (np.float64, 64, 1), (np.float32, 32, 2):
        own = re.sub(r"\bPICK\((\S+), (\S+)\)$", rf"\{place}", text, flags=re.MULTILINE)
        own = re.sub(r": (\S+) in double, (\S+) in float", rf": \{place}", own)
        lanes.append(Lane(lane_type, re.sub(rf"_{bits}\b", "", own)))
    return lanes


@pytest.fixture(params=lanes(), ids=lambda lane: lane.type.__name__)
def lane(request):
    with mp.workdps(60):
        yield request.param


def assert_interpolates(lane, coefficients, exact, nodes):
    """The coefficients, highest power first, are those of the polynomial through the nodes."""
    powers = mp.matrix([[x**i for i in reversed(range(len(nodes)))] for x in nodes])
    assert all(map(lane.rounds, mp.lu_solve(powers, mp.matrix([exact(x) for x in nodes])), coefficients))


@pytest.mark.parametrize(
    ("name", "interval", "most", "what"),
    [
        ("T", "0.0401", mpf(1) / 5, "s T(s^2) on [0, 0.2]"),
        ("WIDE_T", "0.1113", mpf(1) / 3, "s WIDE_T(s^2) on [0, 1/3]"),
    ],
)
def test_polynomial_of_the_logarithm(lane, name, interval, most, what):
    def exact(z):
        s = mp.sqrt(z)
        return (2 * mp.atanh(s) - 2 * s) / (s * z) if z else mpf(2) / 3

    coefficients = lane.numbers(f"{name}_HIGHEST") + lane.numbers(f"{name}_COEFFICIENTS")
    n, stated = len(coefficients), lane.stated(what)
    nodes = [mpf(interval) * mp.cos(mp.pi * (2 * i + 1) / (4 * n + 2)) ** 2 for i in range(n)]
    assert_interpolates(lane, coefficients, exact, nodes)
    # By Markov's inequality a polynomial of degree 20 (its own is 19 at most, the rest of atanh's is hardly more) on an
    # interval [-x, x] moves by at most 20^2/x x/8000 = 5 % of its largest value to the nearest of these points.
    s = np.arange(4001, dtype=object) * most / 4000
    largest = max(s * abs(np.polyval(coefficients, s * s) - [exact(z) for z in s * s]))
    assert largest <= stated <= 1.3 * largest, f"stated {stated}, found {mp.nstr(largest, 3)}"


def test_series_of_near_sums():
    near = float.fromhex(re.findall(rf"#define NEAR_SUMS ({HEX})", (CORE / "finish.inc.h").read_text())[0])
    with mp.workdps(60):
        for t in (mpf(-near), mpf(near)):
            mismatch, series = t - mp.log1p(t), sum((-t) ** k / k for k in range(2, 7))
            assert abs(series - mismatch) <= min(mpf(2) ** -51 * mismatch, mpf(2) ** -62 * abs(mp.log1p(t)))
            of_both = (1 + t) * mp.log1p(t) + (1 - t) * mp.log1p(-t)
            assert abs(t**2 + t**4 / 6 + t**6 / 15 - of_both) <= mpf(2) ** -62 * of_both


def test_polynomial_of_the_exponential(lane):
    def exact(r):
        return (mp.expm1(r) - r) / r**2 if abs(r) > 1e-20 else mpf(1) / 2 + r / 6

    coefficients = lane.numbers("E_COEFFICIENTS")[::-1]
    n, stated = len(coefficients), lane.stated("E on [-0.3477, 0.3477]")
    interval = mpf("0.3477")
    nodes = [interval * mp.cos(mp.pi * (2 * i + 1) / (2 * n)) for i in range(n)]
    assert_interpolates(lane, coefficients, exact, nodes)
    # Markov's inequality for degree 10, as above: 10^2/0.3477 0.3477/4000 = 2.5 % from the nearest of these points.
    r = np.arange(-2000, 2001, dtype=object) * interval / 2000
    largest = max(abs(np.polyval(coefficients, r) - [exact(x) for x in r]))
    assert largest <= stated <= 1.3 * largest, f"stated {stated}, found {mp.nstr(largest, 3)}"


def test_polynomial_of_weights(lane):
    coefficients = lane.numbers("EXP_HIGHEST") + lane.numbers("EXP_COEFFICIENTS")
    n, stated, factor = len(coefficients), lane.stated("e^r, by e^r, on [-0.3477, 0.3477]"), lane.number("EXP_FACTOR")
    interval = mpf("0.3477")
    nodes = [interval * mp.cos(mp.pi * (2 * i + 1) / (2 * n + 2)) for i in range(n + 1)]
    powers = mp.matrix([[x**i for i in reversed(range(n + 1))] for x in nodes])
    *higher, constant = mp.lu_solve(powers, mp.matrix([mp.exp(x) for x in nodes]))
    assert abs(constant - factor) <= float(np.spacing(factor)) / 2
    assert all(lane.rounds(exact / constant, found) for exact, found in zip(higher, coefficients, strict=True))
    # Markov's inequality for degree 12, as above: 12^2/0.3477 0.3477/4000 = 3.6 % from the nearest of these points.
    r = np.arange(-2000, 2001, dtype=object) * interval / 2000
    largest = max(abs(np.polyval([*coefficients, 1], r) * factor / [mp.exp(x) for x in r] - 1))
    assert largest <= stated <= 1.3 * largest, f"stated {stated}, found {mp.nstr(largest, 3)}"


def test_polynomial_of_js(lane):
    def exact(z):
        x = mp.sqrt(z)
        return (x * mp.tanh(x / 2) - 2 * mp.log(mp.cosh(x / 2))) / z if z else mpf(1) / 4

    coefficients = lane.numbers("K_HIGHEST") + lane.numbers("K_COEFFICIENTS")
    n, stated, end = len(coefficients), lane.stated("K(z), by K(z), on [0, 4]"), lane.number("NEAR_RATIO") ** 2
    nodes = [mpf("4.01") / 2 * (1 + mp.cos(mp.pi * (2 * i + 1) / (2 * n))) for i in range(n)]
    assert_interpolates(lane, coefficients, exact, nodes)
    # Between neighbours of these points, nearer to the ends, a Chebyshev polynomial of degree 16 moves by 2 %.
    points = [mpf(end) * mp.sin(mp.pi * i / 1000) ** 2 for i in range(501)]
    largest = max(abs(np.polyval(coefficients, z) / exact(z) - 1) for z in points)
    assert largest <= stated <= 1.3 * largest, f"stated {stated}, found {mp.nstr(largest, 3)}"


def test_reduction_of_the_exponential(lane):
    """The nearest integer lies in the lowest bits, and the rest of x within the polynomial's interval."""
    digits = np.finfo(lane.type).nmant + 1
    rounder, largest = lane.number("ROUNDER"), 2 ** (digits - 3)
    for k in (-largest, -3, 0, 1, largest):
        total = lane.type(rounder) + lane.type(k)
        unsigned = f"u{total.itemsize}"
        assert float(total) == rounder + k
        assert int(total.view(unsigned)) - int(lane.type(rounder).view(unsigned)) == k
    assert lane.type(rounder) + lane.type(0.75) == rounder + 1
    assert lane.rounds(1 / mp.log(2), lane.number("LOG2E"))
    # x LOG2E is rounded, by 2^-digits of it at most, and so is LOG2E, before the nearest integer is taken; |x| < 2^11.
    assert (mpf(1) / 2 + 2**12 * mpf(2) ** (1 - digits)) * mp.log(2) <= mpf("0.3477")


def test_lost_weights_leave_finite_quotients(lane):
    lost, apart = int(lane.definition("LOST")), int(lane.definition("APART"))
    smallest, largest = (mp.log(mpf(float(x)), 2) for x in (np.finfo(lane.type).tiny, np.finfo(lane.type).max))
    # The polynomial's coefficients are normal by the least weight, too.
    assert lane.number("LEAST_WEIGHT") == 2.0**-lost
    assert mp.log(lane.number("EXP_HIGHEST"), 2) - lost > smallest
    # Weights lack a factor of e^(k LN2_LOW) in float, of which only the difference of k from the exponent shows.
    above = 2 ** int(lane.definition("WINDOW_BITS")) - 1 - lost
    assert lane.type is np.float64 or above * abs(lane.number("LN2_LOW")) < float(np.finfo(lane.type).eps) / 2
    # The least weight is normal. By it, terms of a chunk's 1024 entries are finite, and so are those of psi at APART.
    assert smallest < -lost
    assert 10 + lost + mp.log(apart, 2) < largest
    assert 10 + apart / mp.log(2) < largest


def test_parts_of_ln2(lane):
    assert lane.rounds(mp.log(2), lane.number("LN2_HIGH"))
    assert lane.rounds(mp.log(2) - lane.number("LN2_HIGH"), lane.number("LN2_LOW"))
    assert lane.rounds(mp.log(2) - lane.number("LN2_HEAD"), lane.number("LN2_REST"))


def test_head_of_ln2_is_short_enough(lane):
    digits = np.finfo(lane.type).nmant + 1
    numerator, _ = lane.number("LN2_HEAD").as_integer_ratio()
    mask = int(lane.number("UPPER_HALF"))
    cleared = (mask & -mask).bit_length() - 1
    # k takes a number of [TINY, largest] to another, and to a neighbour twice its size.
    largest_k = np.finfo(lane.type).maxexp - int(np.log2(lane.number("TINY"))) + 1
    assert numerator.bit_length() + largest_k.bit_length() + (digits - cleared) <= digits
