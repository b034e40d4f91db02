"""fastkl.compat against the functions that it replaces, against their own tests, and against the definitions.

docs/compat.md lists every intended difference; the test of a difference names its row. A test that needs a library is
skipped where it is not installed.
"""

from __future__ import annotations

import importlib
import inspect
import json
import os
import re
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import reference
from mpmath import mp

import fastkl
from fastkl import _kernels
from fastkl.compat.scipy import entropy, jensenshannon, rel_entr_sum
from fastkl.compat.sklearn import log_loss
from fastkl.compat.torch import kl_div

if TYPE_CHECKING:
    from collections.abc import Callable

    Array = np.ndarray[Any, Any]
    Test = Callable[..., None]

HERE = Path(__file__).parent
EPS = {np.dtype(t): float(np.finfo(t).eps) for t in (np.float64, np.float32, np.float16)}
INF, NAN = np.inf, np.nan

ORIGINALS = {
    entropy: ("scipy.stats", "entropy"),
    jensenshannon: ("scipy.spatial.distance", "jensenshannon"),
    log_loss: ("sklearn.metrics", "log_loss"),
    kl_div: ("torch.nn.functional", "kl_div"),
}
DIFFERENCES: dict[str, Test] = {}

on_every_tier = pytest.mark.usefixtures("tier")


# The first versions with the signatures and dtypes of the functions here.
VERSIONS = {"scipy": "1.17", "sklearn": "1.9", "torch": "2.4"}


def peer(module: str) -> Any:
    """The module, or a skip of the test."""
    library = module.partition(".")[0]
    pytest.importorskip(library, VERSIONS[library])
    return importlib.import_module(module)


def original(ours: Callable[..., Any]) -> Callable[..., Any]:
    module, name = ORIGINALS[ours]
    found: Callable[..., Any] = getattr(peer(module), name)
    return found


def difference(row: str) -> Callable[[Test], Test]:
    """Mark a test as that of the row of the table with this first cell."""

    def mark(test: Test) -> Test:
        assert row not in DIFFERENCES
        DIFFERENCES[row] = test
        return test

    return mark


def quietly(function: Callable[..., Any], *args: Any, **keywords: Any) -> Any:
    """The function's value, without its warnings, for tests that are not about warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return function(*args, **keywords)


def assert_same(ours: Any, theirs: Any) -> None:
    """Equal in type, dtype and shape, and in value except for the last bits."""
    assert type(ours) is type(theirs)
    np.testing.assert_allclose(ours, theirs, rtol=8 * EPS[np.asarray(theirs).dtype], atol=0, strict=True)


def assert_same_error(ours: Callable[..., Any], *args: Any, **keywords: Any) -> None:
    """Both raise; code that catches the original's error catches ours too, and ours has a message."""
    with pytest.raises(Exception) as theirs:  # noqa: PT011
        quietly(original(ours), *args, **keywords)
    builtins = tuple(
        t for t in type(theirs.value).__mro__ if t.__module__ == "builtins" and t not in (Exception, BaseException, object)
    )
    with pytest.raises(builtins) as caught:
        quietly(ours, *args, **keywords)
    assert all(isinstance(caught.value, error) for error in builtins)
    assert str(caught.value)


def test_every_difference_is_tested() -> None:
    text = (HERE.parent / "docs" / "compat.md").read_text(encoding="utf-8").partition("## Differences")[2]
    tables = re.findall(r"^\| `compat\..*\n\|---.*\n((?:\|.*\n)+)", text, re.MULTILINE)
    rows = [line.split("|")[1].strip() for table in tables for line in table.splitlines()]
    assert len(tables) == 3
    assert sorted(rows) == sorted(DIFFERENCES)


@pytest.mark.parametrize("ours", ORIGINALS, ids=lambda ours: ours.__name__)
def test_signatures(ours: Callable[..., Any]) -> None:
    """Names, kinds and defaults are the same; annotations may differ."""
    theirs = inspect.signature(original(ours)).parameters.values()
    plain = [p.replace(annotation=inspect.Parameter.empty) for p in inspect.signature(ours).parameters.values()]
    assert plain == [p.replace(annotation=inspect.Parameter.empty) for p in theirs]


def test_imports_none_of_them() -> None:
    code = """
import sys
for name in "scipy", "sklearn", "torch":
    sys.modules[name] = None
import fastkl
assert "fastkl.compat" not in sys.modules
from fastkl import compat
assert compat.scipy.entropy([1, 1], base=2) == compat.scipy.entropy([[1, 1]], axis=1, base=2)[0] == 1
assert compat.scipy.rel_entr_sum([1.0], [2.0]) < 0 < compat.sklearn.log_loss([0, 1], [0.5, 0.5])
"""
    done = run(sys.executable, "-c", code)
    assert done.returncode == 0, done.stderr


def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run it with this process's modules and those of the tests, outside the checkout, which need not be built."""
    path = os.pathsep.join([str(HERE), *(str(Path(entry).resolve()) for entry in sys.path)])
    environment = {**os.environ, "PYTHONPATH": path, **environment}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=tempfile.gettempdir())


# ---- tests without another library ----


@on_every_tier
def test_values_have_the_bits_of_fastkls() -> None:
    """For every choice of the axes of a row. SciPy's bases of 1 or less are conversions from nats."""
    p, q = np.random.default_rng(8).random((2, 4, 3, 5))
    for axis, rows in (0, lambda a: a.transpose(1, 2, 0)), ((2, 0), lambda a: a.transpose(1, 2, 0).reshape(3, 20)):
        x, y = rows(p), rows(q)
        for base in None, 2:
            np.testing.assert_array_equal(entropy(p, None, base, axis), fastkl.entropy(x, base=base, normalize=True))
            np.testing.assert_array_equal(entropy(p, q, base, axis), fastkl.kl_divergence(x, y, base=base, normalize=True))
        for base in 0.5, 0.999, 5e-324:
            unit = np.log(base)
            np.testing.assert_array_equal(entropy(p, None, base, axis), fastkl.entropy(x, normalize=True) / unit)
            np.testing.assert_array_equal(entropy(p, q, base, axis), fastkl.kl_divergence(x, y, normalize=True) / unit)
        expected = fastkl.js_distance(x, y, base=2, normalize=True)
        np.testing.assert_array_equal(jensenshannon(p, q, 2, axis=axis), expected)
        np.testing.assert_array_equal(jensenshannon(p, q, 2, axis=axis, keepdims=True).squeeze(axis), expected)


@on_every_tier
def test_bases_below_1_of_narrow_floats() -> None:
    """The quotient is rounded to the dtype once, which adds at most one ε to fastkl's 4 ε."""
    p, q = np.random.default_rng(9).random((2, 40, 30)).astype(np.float32)
    for operands in (p,), (p, q):
        result = entropy(*operands, base=0.7, axis=1)
        exact = entropy(*(x.astype(float) for x in operands), axis=1) / np.log(0.7)
        assert result.dtype == np.float32
        np.testing.assert_allclose(result, exact, rtol=5 * EPS[result.dtype], atol=0)
        assert type(entropy(*(x[0] for x in operands), base=0.7)) is np.float32


def nearly_equal() -> list[tuple[Array, Array]]:
    p, d = np.random.default_rng(1).random((2, 50, 20))
    return [(p, p * (1 + 1e-13 * d)), (p.astype("f4"), (p * (1 + 1e-5 * d)).astype("f4"))]


@on_every_tier
def test_digits_of_nearly_equal_rows() -> None:
    for p, q in nearly_equal():
        for function, definition in (entropy, reference.kl_divergence), (jensenshannon, reference.js_distance):
            exact = [definition(*rows) for rows in zip(p, q, strict=True)]
            values = function(p, q, axis=1).tolist()
            assert max(abs(v - e) / e for v, e in zip(values, exact, strict=True)) <= 4 * EPS[p.dtype]
            assert not function(p, p, axis=1).any()


def test_nothing_is_changed() -> None:
    p, q = np.array([[1.0, NAN, 3.0]]), np.ma.array([[1.0, 2.0, 3.0]], mask=[[0, 0, 1]])
    before = p.copy(), q.data.copy()
    assert entropy(p, q, axis=1, nan_policy="omit").tolist() == [0]
    assert np.isnan(entropy(p, q, axis=1)).all()
    np.testing.assert_array_equal(p, before[0])
    np.testing.assert_array_equal(q.data, before[1])


def test_losses_by_hand() -> None:
    assert log_loss([1, 0, 1], [[0.5, 0.5], [0.25, 0.75], [0, 1]]) == pytest.approx(np.log(8) / 3, abs=0, rel=1e-15)
    assert log_loss(["b", "a"], [0.5, 0.75], normalize=False) == pytest.approx(np.log(8), abs=0, rel=1e-15)
    assert log_loss([1, 0], [0.5, 0.75], sample_weight=[3, 1]) == pytest.approx(np.log(2) * 5 / 4, abs=0, rel=1e-15)
    assert log_loss([2, 2], [[0.5, 0.25, 0.25]] * 2, labels=[0, 1, 2]) == pytest.approx(np.log(4), abs=0, rel=1e-15)


def test_bfloat16_of_ml_dtypes() -> None:
    bfloat16 = pytest.importorskip("ml_dtypes").bfloat16
    p, q = (np.array(row, bfloat16) for row in ([1, 2, 5], [1, 4, 3]))
    wide = p.astype(np.float32), q.astype(np.float32)
    assert_same(entropy(p), entropy(wide[0]))
    for function in entropy, jensenshannon, rel_entr_sum:
        assert_same(function(p, q), function(*wide))
    assert_same(entropy(np.array([1, NAN, 2, 5], bfloat16), nan_policy="omit"), entropy(p))


# ---- SciPy's own tests ----

# By the name of the test, without the numbers of its cases, which differ between releases of SciPy.
CANNOT_PASS = {
    r"test_distance.py::(test_Xdist_non_negative_weights|test_immutable_input)\[jensenshannon]": (
        "skipped: of weights, which jensenshannon does not take"
    ),
    r"test_axis_nan_policy.py::test_axis_nan_policy_(fast|full)\[mixed-.*-omit-entropy-2-1-True-<lambda>]": (
        "failed: one row has two entries left, with D = 0.0015. The test wants SciPy's value to 4e-15, and its own error "
        "is 4e-14"
    ),
}


@pytest.mark.parametrize("tier", _kernels.tiers())
def test_scipys_own_tests_pass(tier: str, tmp_path: Path) -> None:
    peer("scipy")
    names = ("stats.tests.test_entropy", "stats.tests.test_axis_nan_policy", "spatial.tests.test_distance")
    chosen = ["-k", "(entropy or jensenshannon) and not differential"]
    options = ["-p", "in_scipys_place", "-p", "no:cacheprovider", f"--rootdir={tmp_path}", "-c", os.devnull]
    modules = ["--pyargs", *(f"scipy.{name}" for name in names)]
    written = tmp_path / "outcomes.json"
    done = run(
        *(sys.executable, "-m", "pytest", *options, *chosen, *modules),
        OUTCOMES=str(written),
        SCIPY_XSLOW="1",
        FASTKL_SIMD=tier,
    )
    assert written.exists(), done.stdout + done.stderr
    outcomes = {re.sub(r"args\d+-kwds\d+-", "", name): how for name, how in json.loads(written.read_text()).items()}
    assert len(outcomes) >= 190
    reasons = {name: [why for like, why in CANNOT_PASS.items() if re.fullmatch(like, name)] for name in outcomes}
    other = {name: outcome for name, outcome in outcomes.items() if outcome != "passed" or reasons[name]}
    assert other == {name: why[0].partition(":")[0] for name, why in reasons.items() if why}, done.stdout
    for like in CANNOT_PASS:
        assert any(re.fullmatch(like, name) for name in outcomes)


# ---- SciPy ----


def weights(kind: str, shape: tuple[int, ...], dtype: Any = float) -> tuple[Array, Array]:
    """Two operands of weights."""
    rng = np.random.default_rng(len(kind))
    p, q = rng.random(shape), rng.random(shape)
    if kind == "zero-rich":
        p[rng.random(shape) < 0.6] = 0
        q[rng.random(shape) < 0.1] = 0
        for axis in range(p.ndim):  # no row of zeros, along any axis
            np.moveaxis(p, axis, 0)[0] += 1
            np.moveaxis(q, axis, 0)[0] += 1
    elif kind == "near-equal":
        q = p * (1 + 1e-6 * q)
    elif kind == "unnormalised":
        p, q = p * 10.0 ** rng.integers(-20, 20, (*shape[:-1], 1)), q * 1e3
    return p.astype(dtype), q.astype(dtype)


KINDS = ["random", "zero-rich", "near-equal", "unnormalised"]
SHAPE = (7, 5, 30)

kinds = pytest.mark.parametrize("kind", KINDS)
floats = pytest.mark.parametrize("dtype", ["f8", "f4"])
every_axis = pytest.mark.parametrize("axis", [0, 1, -1, (0, 2), (2, 0), (-1, 1), None], ids=str)


def absolute_terms(p: Array, q: Array, axis: Any) -> Array:
    """The sum of |x log(x/y)| and |x log x| over every row, and 2: the number that rounding errors are relative to.

    A relative error of d in each x and y changes x log x by at most d (|x log x| + x), and x log(x/y) by at most
    d (|x log(x/y)| + 2x).
    """
    x, y = (a.astype(float) / a.sum(axis=axis, keepdims=True, dtype=float) for a in (p, q))
    with np.errstate(all="ignore"):
        each = np.where(x > 0, np.abs(x * np.log(x)) + np.where(y > 0, np.abs(x * np.log(x / y)), 0), 0)
    return each.sum(axis=axis) + 2


@on_every_tier
@every_axis
@floats
@kinds
def test_values_are_scipys(kind: str, dtype: str, axis: Any) -> None:
    """To SciPy's error, which is n ε for each of three sums of n entries and 4 ε for an entry, and fastkl's own 4 ε."""
    p, q = weights(kind, SHAPE, dtype)
    n = np.size(p) // np.size(p.sum(axis=axis))
    atol = (3 * n + 8) * EPS[p.dtype] * absolute_terms(p, q, axis)
    base = 2
    for operands in (p,), (p, q):
        ours = entropy(*operands, base=base, axis=axis)
        theirs = original(entropy)(*operands, base=base, axis=axis)
        assert (type(ours), ours.dtype, np.shape(ours)) == (type(theirs), theirs.dtype, np.shape(theirs))
        with np.errstate(invalid="ignore"):
            assert np.all((np.abs(ours - theirs) <= atol / np.log(base)) | (ours == theirs))
    assert entropy(p, q, axis=axis, keepdims=True).shape == original(entropy)(p, q, axis=axis, keepdims=True).shape
    ours, theirs = jensenshannon(p, q, axis=axis), quietly(original(jensenshannon), p, q, axis=axis)
    assert (type(ours), ours.dtype, np.shape(ours)) == (type(theirs), theirs.dtype, np.shape(theirs))
    # SciPy's m is half a sum, so that no |x log(x/m)| exceeds x log 2 + |x log x|. For a negative divergence it gives NaN.
    assert np.all(np.abs(ours**2 - np.nan_to_num(theirs) ** 2) <= 2 * atol)
    ours, theirs = rel_entr_sum(p, q, axis), original_sum(p, q, axis)
    assert (type(ours), ours.dtype, np.shape(ours)) == (type(theirs), theirs.dtype, np.shape(theirs))
    terms = np.abs(peer("scipy.special").rel_entr(p.astype(float), q)).sum(axis)
    with np.errstate(invalid="ignore"):
        assert np.all((np.abs(ours - theirs) <= (n + 8) * EPS[p.dtype] * terms) | (ours == theirs))


def original_sum(p: Any, q: Any, axis: Any = None, **keywords: Any) -> Any:
    return quietly(lambda: peer("scipy.special").rel_entr(p, q).sum(axis, **keywords))


@difference("nearly equal distributions")
def test_nearly_equal_distributions() -> None:
    for p, q in nearly_equal():
        exact = entropy(p, q, axis=1)
        theirs = original(entropy)(p, q, axis=1)
        assert np.any(theirs < 0) | np.any(np.abs(theirs - exact) > exact / 2)
        assert np.isnan(quietly(original(jensenshannon), p, q, axis=1)).any()


@difference("float32 and float16")
@on_every_tier
def test_narrow_floats_are_rounded_once() -> None:
    for dtype in np.float32, np.float16:
        p, q = (x.astype(dtype) for x in weights("random", (50, 30)))
        wide = p.astype(float), q.astype(float)
        for ours, theirs, exact in (
            (entropy(p, axis=1), original(entropy)(p, axis=1), entropy(wide[0], axis=1)),
            (entropy(p, q, axis=1), original(entropy)(p, q, axis=1), entropy(*wide, axis=1)),
            (jensenshannon(p, q, axis=1), original(jensenshannon)(p, q, axis=1), jensenshannon(*wide, axis=1)),
            (rel_entr_sum(p, q, axis=1), original_sum(p, q, axis=1), rel_entr_sum(*wide, axis=1)),
        ):
            assert ours.dtype == theirs.dtype == np.float32
            # 4 eps is fastkl's bound of a divergence; terms of both signs are added in float64.
            np.testing.assert_allclose(ours, exact, rtol=4 * EPS[ours.dtype], atol=0)
            assert np.abs(theirs - exact).max() > np.abs(ours - exact).max()
    assert entropy(np.array([-4e4, -4e4], np.float16)) == np.float32(np.log(2))  # their sum is no float16


@difference("weights whose sum overflows")
def test_sums_that_overflow() -> None:
    huge = [1.5e308, 0.5e308, 1e308]
    assert_same(entropy(huge), entropy([3, 1, 2]))
    assert_same(entropy(huge, [1, 1, 1]), entropy([3, 1, 2], [1, 1, 1]))
    with pytest.warns(RuntimeWarning, match="overflow"):
        assert original(entropy)(huge) == 0


@difference("rows that have no answer")
@on_every_tier
@pytest.mark.parametrize(
    "other", [[1.0, 2.0, 4.0], [0.0, 0.0, 0.0], [1.0, -1.0, 3.0], [NAN, 1.0, 2.0], [1.0, INF, 2.0]], ids=str
)
@pytest.mark.parametrize(
    "row",
    [
        [1, 2, 4],
        [0, 0, 0],
        [-1, -2, -4],
        [1, -2, 4],
        [-1, 1, 0],
        [NAN, 1, 2],
        [NAN, -1, 2],
        [1, INF, 2],
        [-INF, 1, 2],
        [1, -0.0, 1],
    ],
    ids=str,
)
def test_rows_without_an_answer(row: list[float], other: list[float]) -> None:
    row, good = np.array(row, float), [0.5, 0.25, 0.25]
    for base in None, 2, 0.5:
        keywords: dict[str, Any] = {"base": base}
        assert_same(entropy(row, **keywords), quietly(original(entropy), row, **keywords))
        for p, q in (row, other), (other, row), (row, good):
            assert_same(entropy(p, q, **keywords), quietly(original(entropy), p, q, **keywords))
            # Where the two rows are equal, SciPy's sum rounds to another value than 0.
            if not (base == 0.5 or np.array_equal(np.abs(p), np.abs(q))):
                assert_same(jensenshannon(p, q, **keywords), quietly(original(jensenshannon), p, q, **keywords))
    # The other row has its usual value.
    both = entropy([good, row], [good, other], axis=1)
    assert both[0] == 0
    assert_same(both[1], entropy(row, other))


def test_entries_of_rel_entr() -> None:
    values = [0.0, -0.0, 1.0, -1.0, INF, -INF, NAN, 5e-324, 1e-310, 1e-200, 1e200, 1.7e308, 1.5, 2.0, 0.7, 1 + 2.0**-52]
    for p in values:
        for q in values:
            assert_same(rel_entr_sum([p], [q]), original_sum([p], [q]))
    assert_same(rel_entr_sum([1, 1], [INF, 0]), original_sum([1, 1], [INF, 0]))  # inf - inf


def test_long_sums_of_rel_entr() -> None:
    """Blocks, along the rows and along one row, change rounding errors alone. log2 n is below 20."""
    p, q = weights("random", (3, 40_001))
    each = peer("scipy.special").rel_entr(p, q)
    for axis in 0, 1, None:
        np.testing.assert_allclose(
            rel_entr_sum(p, q, axis), each.sum(axis), rtol=0, atol=28 * EPS[p.dtype] * np.abs(each).sum(axis).max()
        )
    np.testing.assert_array_equal(
        rel_entr_sum(p[:, :1], q[0], axis=0), rel_entr_sum(*np.broadcast_arrays(p[:, :1], q[0]), 0)
    )


DTYPES = ["?", "i1", "u1", "i2", "u2", "i4", "u8", "f2", "f4", "f8", ">f4", ">f8", "number"]


@pytest.mark.parametrize("second", DTYPES)
@pytest.mark.parametrize("first", DTYPES)
def test_dtypes_are_scipys(first: str, second: str) -> None:
    p, q = (3.0 if d == "number" else np.array([1, 1, 1], d) for d in (first, second))
    assert entropy(p, q).dtype == original(entropy)(p, q).dtype
    assert entropy(p).dtype == original(entropy)(p).dtype
    assert rel_entr_sum(p, q).dtype == original_sum(p, q).dtype
    arrays = np.asarray(p), np.asarray(q)
    if arrays[0].shape == arrays[1].shape:
        for base in None, 2:
            for x, y in arrays, [np.atleast_1d(a)[np.newaxis] for a in arrays]:
                for keepdims in False, True:
                    ours, theirs = (
                        quietly(f, x, y, base, keepdims=keepdims) for f in (jensenshannon, original(jensenshannon))
                    )
                    assert ours.dtype == theirs.dtype


@pytest.mark.parametrize("policy", ["propagate", "omit", "raise"])
def test_nan_and_masks(policy: str) -> None:
    rng = np.random.default_rng(3)
    p, q = rng.random((2, 6, 40, 5))
    p[rng.random(p.shape) < 0.1] = NAN
    q[rng.random(q.shape) < 0.1] = NAN
    p[0, :, 0] = NAN
    p[1, :, 0] = 0
    p_mask, q_mask = rng.random((2, *p.shape)) < 0.2
    p_mask[2, :, 0] = True
    masked_p, masked_q = np.ma.array(p, mask=p_mask), np.ma.array(q, mask=q_mask)
    clean = np.ma.array(p, mask=p_mask | np.isnan(p))
    cases: list[tuple[Any, ...]] = [
        (p,),
        (masked_p,),
        (clean,),
        (p, q),
        (p, masked_q),
        (masked_p, masked_q),
        (clean, q[0, :, :1]),
    ]
    cases += [tuple(x[5, :, 1] for x in case if x.ndim == 3) for case in cases]
    for case in cases:
        for axis in (1, None) if case[-1].size == p.size else (case[0].ndim // 2,):
            keywords = {"axis": axis, "nan_policy": policy, "keepdims": True}
            try:
                theirs = quietly(original(entropy), *case, **keywords)
            except ValueError:
                with pytest.raises(ValueError, match="nan values"):
                    entropy(*case, **keywords)
            else:
                ours = entropy(*case, **keywords)
                assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
                # SciPy's error, as above: rows have at most 200 entries, and their terms sum to at most 8.
                np.testing.assert_allclose(ours, theirs, rtol=0, atol=608 * EPS[p.dtype] * 10)


def test_an_operand_of_other_shape() -> None:
    for p, q, axis in (
        ((3,), (2, 1), -1),
        ((3,), (2, 1), 0),
        ((4, 1, 3), (5, 1), 1),
        ((3, 2), (6,), None),
        ((3,), (1, 1), None),
        ((), (3,), 0),
        ((0,), (0,), 0),
        ((3, 0), (3, 0), 1),
        ((3, 0), (3, 0), 0),
        ((3, 0), (1, 0), None),
    ):
        x, y = np.random.default_rng(4).random(p), np.random.default_rng(5).random(q)
        np.testing.assert_allclose(
            entropy(x, y, axis=axis), original(entropy)(x, y, axis=axis), rtol=1e-13, atol=1e-15, strict=True
        )
        np.testing.assert_allclose(entropy(x), original(entropy)(x), rtol=1e-13, atol=1e-15, strict=True)
        if axis is not None:
            np.testing.assert_allclose(
                rel_entr_sum(x, y, axis), original_sum(x, y, axis), rtol=1e-13, atol=1e-15, strict=True
            )
    for x in 3.0, [], np.zeros((0, 3)):
        for keepdims in False, True:
            assert np.shape(entropy(x, keepdims=keepdims)) == np.shape(original(entropy)(x, keepdims=keepdims))


@pytest.mark.parametrize("base", [1, 0.3, INF, NAN, 3, 10.0, True])
def test_bases(base: Any) -> None:
    p, q = [[1, 2, 0], [2, 1, 3]], [[1, 1, 1], [1, 5, 3]]
    for x, y in (p, q), (p[0], q[0]):
        assert_same(quietly(entropy, x, base=base), quietly(original(entropy), x, base=base))
        assert_same(quietly(entropy, x, y, base), quietly(original(entropy), x, y, base))
        np.testing.assert_allclose(
            quietly(jensenshannon, x, y, base), quietly(original(jensenshannon), x, y, base), rtol=1e-14, strict=True
        )


@difference("masked entries, in `jensenshannon` and `rel_entr`")
def test_masked_operands_are_refused() -> None:
    masked, plain = np.ma.array([1.0, 2.0, 3.0], mask=[0, 0, 1]), [1.0, 2.0, 3.0]
    for function in jensenshannon, rel_entr_sum:
        for name, p, q in ("p", masked, plain), ("q", plain, masked):
            with pytest.raises(TypeError, match=rf"^{name} has masked entries"):
                function(p, q)
        assert function(np.ma.array(plain), [3, 2, 1]) == function(plain, [3, 2, 1])
    assert original(jensenshannon)(masked, plain) == 0 == original_sum(masked, plain)
    assert_same(entropy(masked, [2, 1, 5]), original(entropy)(masked, [2, 1, 5]))


@difference("`jensenshannon` of rows of different lengths")
def test_rows_of_different_lengths() -> None:
    for p, q, keywords in (
        ([1.0, 2.0, 3.0], [1.0], {}),
        (np.ones((2, 3)), np.ones((2, 1)), {"axis": 1}),
        (np.ones((2, 3)), np.ones(3), {"axis": 0}),
        (np.ones((2, 3)), np.ones((1, 3)), {"axis": None}),
    ):
        with pytest.raises(ValueError, match="must have the same lengths"):
            jensenshannon(p, q, **keywords)
        assert np.all(np.isfinite(original(jensenshannon)(p, q, **keywords)))


@difference("`entropy(…, axis=())`")
def test_no_axis() -> None:
    p = [[1.0, 2.0], [3.0, 4.0]]
    np.testing.assert_array_equal(entropy(p, axis=()), np.zeros((2, 2)))
    np.testing.assert_array_equal(rel_entr_sum(p, 1.0, axis=()), original_sum(p, 1.0, axis=()))
    assert original(entropy)(p, axis=()) == original(entropy)(p, axis=None)


@difference("messages")
def test_errors() -> None:
    p = np.ones((2, 3))
    for arguments, keywords in (
        ((p, np.ones((3, 3))), {}),
        ((p, np.ones((4, 2))), {"axis": None}),
        ((p,), {"axis": 2}),
        ((p,), {"axis": (0, 0)}),
        ((p,), {"axis": 1.0}),
        ((p,), {"base": 0}),
        ((p,), {"base": -2}),
        ((p,), {"base": "2"}),
        ((p,), {"nan_policy": "drop"}),
        ((p * NAN,), {"nan_policy": "raise"}),
        ((p.astype(complex),), {}),
        ((p.astype(np.clongdouble),), {}),
        ((p.astype(object),), {}),
        ((p.astype(str),), {}),
        ((), {}),
        ((p, p, 2, 0, "omit"), {}),
    ):
        assert_same_error(entropy, *arguments, **keywords)
    for arguments, keywords in (
        ((p, np.ones((3, 3))), {}),
        ((p, p), {"axis": 2}),
        ((p, p, "2"), {}),
        ((p.astype(object), p), {}),
        ((p, p.astype(complex)), {}),
        ((p, p, 2, 0), {}),
    ):
        assert_same_error(jensenshannon, *arguments, **keywords)
    for p_like, q_like, axis, error in (
        (p, np.ones((3, 3)), 0, ValueError),
        (p, p, 2, ValueError),
        (p.astype(object), p, 0, TypeError),
        (p, p.astype(complex), 0, TypeError),
    ):
        with pytest.raises(error):
            original_sum(p_like, q_like, axis)
        with pytest.raises(error, match=r"p has|q has|axis|broadcast"):
            rel_entr_sum(p_like, q_like, axis)


# ---- scikit-learn ----

LABELS = [1, 0, 0, 1]
ROWS = [[0.1, 0.9], [0.9, 0.1], [0.8, 0.2], [0.35, 0.65]]
FIRST = [1.0, 2.0, 0.5, 3.0]

TARGETS: dict[str, Any] = {
    "lists": LABELS,
    "tuple": tuple(LABELS),
    "bools": [True, False, False, True],
    "floats": [1.0, 0.0, 0.0, 1.0],
    "large integers": [2**60, 0, 0, 2**60],
    "bytes that count": np.array(LABELS, "u1"),
    "strings": ["b", "a", "a", "b"],
    "array of strings": np.array(["yes", "no", "no", "yes"]),
    "objects": np.array(["b", "a", "a", "b"], object),
    "column": np.array(LABELS)[:, np.newaxis],
    "one-hot": [[0, 1], [1, 0], [1, 0], [0, 1]],
    "indicators": [[1, 1], [1, 0], [0, 0], [0, 1]],
    "indicators of bools": np.array([[1, 1], [1, 0], [0, 0], [0, 1]], bool),
    "indicators of floats": [[0.0, 1.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]],
    "other indicators": [[-1, 2], [2, -1], [-1, -1], [2, 2]],
}


@pytest.mark.parametrize("true", TARGETS.values(), ids=TARGETS)
@pytest.mark.parametrize("predicted", ["matrix", "column", "vector", "integers", "strings"])
def test_losses_are_scikit_learns(true: Any, predicted: str) -> None:
    matrix = np.array(ROWS)
    q: Any = {
        "matrix": ROWS,
        "column": matrix[:, 1:],
        "vector": matrix[:, 1],
        "integers": [[0, 1], [1, 0], [0, 1], [1, 0]],
        "strings": matrix.astype(str),
    }[predicted]
    for keywords in {}, {"normalize": False}, {"sample_weight": FIRST}, {"sample_weight": FIRST, "normalize": np.False_}:
        ours, theirs = log_loss(true, q, **keywords), original(log_loss)(true, q, **keywords)
        assert type(ours) is float
        # Four rows, of at most two logarithms, two roundings each, and the complement of a column.
        np.testing.assert_allclose(ours, theirs, rtol=16 * EPS[np.dtype(float)], atol=16 * EPS[np.dtype(float)])


@pytest.mark.parametrize("classes", [2, 3, 50])
def test_losses_of_many_rows(classes: int) -> None:
    rng = np.random.default_rng(classes)
    q = rng.random((1000, classes)) ** 20
    q[rng.random(q.shape) < 0.2] = 0
    q[:, 0] += 1e-9
    q /= q.sum(axis=1, keepdims=True)
    true = rng.integers(0, classes, len(q))
    labels = np.arange(classes)
    # Means of 1000 losses, summed pairwise, each of which has an error of 2 eps in both.
    np.testing.assert_allclose(log_loss(true, q), original(log_loss)(true, q), rtol=14 * EPS[q.dtype])
    np.testing.assert_allclose(
        log_loss(true % 2, q, labels=labels), original(log_loss)(true % 2, q, labels=labels), rtol=14 * EPS[q.dtype]
    )


def test_warnings_of_log_loss() -> None:
    for true, q, keywords, category in (
        (LABELS, [[0.1, 0.8], *ROWS[1:]], {}, UserWarning),
        (LABELS, np.array(ROWS, "f2") * np.float16(0.75), {}, UserWarning),
        (LABELS, ROWS, {"labels": [1, 0]}, UserWarning),
        (LABELS, None, {"y_pred": ROWS}, FutureWarning),
    ):
        values = []
        for function in log_loss, original(log_loss):
            with pytest.warns(category) as caught:
                values.append(function(true, *([] if q is None else [q]), **keywords))
            assert [warning.category for warning in caught] == [category]
        np.testing.assert_allclose(*values, rtol=16 * EPS[np.asarray(ROWS if q is None else q).dtype])


@pytest.mark.parametrize("dtype", ["f8", "f4", "f2"])
def test_sums_within_the_tolerance(dtype: str) -> None:
    """The sum of a row may differ from 1 by the root of its dtype's eps and 1e-8: both warn of the same rows."""
    off = float(np.sqrt(EPS[np.dtype(dtype)])) + 1e-8
    for factor in 0.9, 1.2:
        q = np.array([[0.5, 0.5 - factor * off], [0.5, 0.5]], dtype)
        for function in log_loss, original(log_loss):
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                function([0, 1], q)
            assert len(caught) == (factor > 1)


ARGUMENTS: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    "no probabilities": ((LABELS,), {}),
    "both names": ((LABELS, ROWS), {"y_pred": ROWS}),
    "None by its old name": ((LABELS,), {"y_pred": None}),
    "a number": ((LABELS, 0.5), {}),
    "a string": ((LABELS, "abc"), {}),
    "a string by its old name": ((LABELS,), {"y_pred": "abc"}),
    "labels in a string": (("abcd", ROWS), {}),
    "one label as a number": ((1, ROWS), {}),
    "labels that are None": ((None, ROWS), {}),
    "a set": (({0, 1}, ROWS[:2]), {}),
    "normalize": ((LABELS, ROWS), {"normalize": 1}),
    "one weight": ((LABELS, ROWS), {"sample_weight": 2.0}),
    "too few weights": ((LABELS, ROWS), {"sample_weight": [1, 2]}),
    "a matrix of weights": ((LABELS, ROWS), {"sample_weight": [[1]] * 4}),
    "weights of zero": ((LABELS, ROWS), {"sample_weight": [0] * 4}),
    "weights that cancel": ((LABELS, ROWS), {"sample_weight": [1, -1, 1, -1]}),
    "NaN weight": ((LABELS, ROWS), {"sample_weight": [1, NAN, 1, 1]}),
    "complex weights": ((LABELS, ROWS), {"sample_weight": [1j] * 4}),
    "NaN": ((LABELS, [[NAN, 1], *ROWS[1:]]), {}),
    "infinity": ((LABELS, [[INF, 1], *ROWS[1:]]), {}),
    "below 0": ((LABELS, [[-0.1, 0.9], *ROWS[1:]]), {}),
    "above 1": ((LABELS, [[0.1, 1.1], *ROWS[1:]]), {}),
    "three axes": ((LABELS, [ROWS]), {}),
    "nothing": (([], []), {}),
    "no rows": (([], np.ones((0, 2))), {}),
    "no columns": ((LABELS, np.ones((4, 0))), {}),
    "ragged": ((LABELS, [[1], [0.5, 0.5], [1], [1]]), {}),
    "complex": ((LABELS, np.array(ROWS) + 0j), {}),
    "too few labels": ((LABELS[:3], ROWS), {}),
    "fractions": (([0.5, 1, 0, 1], ROWS), {}),
    "two fractions": (([0.5, 1, 1, 0.5], ROWS), {}),
    "NaN label": (([NAN, 1, 0, 1], ROWS), {}),
    "None label": (([None, 1, 0, 1], ROWS), {}),
    "complex label": (([1j, 1, 0, 1], ROWS), {}),
    "mixed labels": (([1, "a", "a", 1], ROWS), {}),
    "bytes": (([b"a", b"b", b"b", b"a"], ROWS), {}),
    "labels with three axes": (([[[1]], [[0]], [[0]], [[1]]], ROWS), {}),
    "columns of labels": (([[0, 1], [2, 0], [1, 0], [0, 3]], ROWS), {}),
    "columns of strings": ((np.array([["a", "b"]] * 4), ROWS), {}),
    "too many indicators": (([[0, 1, 0]] * 4, ROWS), {}),
    "indicators and labels": (([[0, 1]] * 4, ROWS), {"labels": [0, 1]}),
    "too many classes": (([0, 1, 2, 1], ROWS), {}),
    "too many for one column": (([0, 1, 2, 1], [0.5] * 4), {}),
    "one class": (([1] * 4, ROWS), {}),
    "one label": (([1] * 4, ROWS), {"labels": [1]}),
    "repeated labels": ((LABELS, ROWS), {"labels": [0, 1, 1]}),
    "unknown label": ((LABELS, ROWS), {"labels": [0, 2]}),
    "labels of another kind": ((LABELS, ROWS), {"labels": ["a", "b"]}),
    "labels that print alike": (([0, 1], ROWS[:2]), {"labels": ["0", "1"]}),
    "strings that print alike": ((["0", "1"], ROWS[:2]), {"labels": [0, 1]}),
    "too many labels": ((LABELS, ROWS), {"labels": [0, 1, 2]}),
    "no labels": ((LABELS, ROWS), {"labels": []}),
    "labels as a number": ((LABELS, ROWS), {"labels": 3}),
    "labels that are fractions": ((LABELS, ROWS), {"labels": [0, 0.5, 1]}),
    "too many arguments": ((LABELS, ROWS, True), {}),
}


def test_many_labels_that_print_alike() -> None:
    names = sorted(map(str, range(50)))
    with pytest.raises(ValueError, match=r"^y_true has 0, which is not one of the labels"):
        log_loss(range(50), np.full((50, 50), 0.02), labels=names)


@pytest.mark.parametrize(("arguments", "keywords"), ARGUMENTS.values(), ids=ARGUMENTS)
def test_errors_of_log_loss(arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
    assert_same_error(log_loss, *arguments, **keywords)


@difference("clipping to [ε, 1 - ε]")
@pytest.mark.parametrize("dtype", ["f8", "f4", "f2"])
def test_clipping(dtype: str) -> None:
    eps = EPS[np.dtype(dtype)]
    q = np.array([[0, 1], [1, 0]], dtype)
    for rows in q, q[:, 1]:
        assert log_loss([0, 1], rows) == pytest.approx(-np.log(eps), abs=0, rel=4 * EPS[np.dtype(float)])
        assert log_loss([1, 0], rows) == pytest.approx(-np.log1p(-eps), abs=0, rel=4 * EPS[np.dtype(float)])
        # scikit-learn computes in the dtype, in which a logarithm near 0 has an error of eps.
        assert log_loss([0, 1], rows) == pytest.approx(original(log_loss)([0, 1], rows), abs=0, rel=4 * eps)
        assert log_loss([1, 0], rows) == pytest.approx(original(log_loss)([1, 0], rows), abs=eps)
    if dtype == "f8":
        assert np.isinf(fastkl.nll([0, 1], q)).all()
        assert np.isinf(fastkl.cross_entropy([[1.0, 0], [0, 1]], q)).all()


def exact_loss(taken: list[mp.mpf]) -> float:
    """The mean of -log x, with mpmath, without clipping."""
    return float(-mp.fsum(map(mp.log, taken)) / len(taken))


@difference("probabilities in float32 and float16")
def test_narrow_probabilities() -> None:
    rng = np.random.default_rng(6)
    for dtype in "f4", "f2":
        q = rng.dirichlet(np.ones(10), 3000).astype(dtype).clip(EPS[np.dtype(dtype)], 1)
        true = np.arange(len(q)) % 10
        exact = exact_loss([mp.mpf(float(x)) for x in q[np.arange(len(q)), true]])
        assert log_loss(true, q) == pytest.approx(exact, abs=0, rel=16 * EPS[np.dtype(float)])
        assert original(log_loss)(true, q) != pytest.approx(exact, abs=0, rel=1e-9)


@difference("one column of probabilities")
def test_one_column() -> None:
    tiny = [1e-10, 3e-9]
    assert log_loss([0, 0], tiny, labels=[0, 1]) == pytest.approx(-np.log1p(-np.array(tiny)).mean(), abs=0, rel=1e-15)
    for dtype in "f4", "f2":
        q = (np.random.default_rng(7).random(1000) / 100).astype(dtype).clip(EPS[np.dtype(dtype)], 1)
        true = np.arange(len(q)) == 0
        exact = exact_loss([mp.mpf(float(q[0])), *(1 - mp.mpf(float(x)) for x in q[1:])])
        assert log_loss(true, q) == pytest.approx(exact, abs=0, rel=16 * EPS[np.dtype(float)])
        assert original(log_loss)(true, q) != pytest.approx(exact, abs=0, rel=1e-9)


@difference("masked probabilities or weights")
def test_masked_probabilities() -> None:
    masked = np.ma.array(ROWS, mask=np.eye(4, 2))
    with pytest.raises(TypeError, match=r"^y_proba has masked entries"):
        log_loss(LABELS, masked)
    with pytest.raises(TypeError, match=r"^sample_weight has masked entries"):
        log_loss(LABELS, ROWS, sample_weight=masked[:, 0])
    assert original(log_loss)(LABELS, masked) == original(log_loss)(LABELS, ROWS)


@difference("a list of lists of one label each")
def test_a_list_of_lists() -> None:
    true = [[label] for label in LABELS]
    assert log_loss(true, ROWS) == log_loss(np.array(true), ROWS) == log_loss(LABELS, ROWS)
    with pytest.raises(TypeError):
        original(log_loss)(true, ROWS)


@difference("`labels` as a matrix")
def test_labels_as_a_matrix() -> None:
    with pytest.raises(ValueError, match=r"^labels has shape \(1, 2\)"):
        log_loss(LABELS, ROWS, labels=[[0, 1]])
    assert original(log_loss)(LABELS, ROWS, labels=[[0, 1]]) > 0


# ---- torch ----


@pytest.fixture
def torch() -> Any:
    return peer("torch")


REDUCTIONS = ["none", "mean", "sum", "batchmean"]


def losses(torch: Any, kind: str, dtype: str = "float64") -> tuple[Any, Any]:
    """Logarithms of positive weights, and weights."""
    p, q = weights(kind, (7, 5, 30))
    return torch.from_numpy(np.log(q + 1e-300)).to(getattr(torch, dtype)), torch.from_numpy(p).to(getattr(torch, dtype))


def pointwise(torch: Any, x: Any, t: Any, log_target: bool) -> Any:
    """The number that the rounding error of a term is relative to."""
    return t.exp() * (t.abs() + x.abs()) if log_target else t * (torch.where(t > 0, t.log().abs(), 0) + x.abs())


@pytest.mark.parametrize("log_target", [False, True])
@pytest.mark.parametrize("reduction", REDUCTIONS)
@kinds
def test_values_are_torchs(torch: Any, kind: str, reduction: str, log_target: bool) -> None:
    x, t = losses(torch, kind)
    x = x.clip(-1e3)
    t = t.log().clip(-1e3, 100) if log_target else t
    for a, b in (x, t), (x[0, 0], t), (x, t[:, :1]), (x.transpose(0, 2), t.transpose(0, 2)), (x[0, 0, 0], t[0, 0, 0]):
        ours, theirs = (quietly(f, a, b, reduction=reduction, log_target=log_target) for f in (kl_div, original(kl_div)))
        assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
        # Four roundings in a term, and those of a sum in any order.
        terms = EPS[np.dtype(float)] * pointwise(torch, a, b, log_target)
        divisor = {"sum": 1, "mean": terms.numel(), "batchmean": a.shape[0] if a.ndim else 1}
        atol = 4 * terms if reduction == "none" else (4 + terms.numel()) * terms.sum() / divisor[reduction]
        assert torch.all((ours - theirs).abs() <= atol)


@difference("float32, float16 and bfloat16")
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_narrow_tensors(torch: Any, dtype: str, reduction: str) -> None:
    x, t = losses(torch, "random", dtype)
    for a, b, log_target in (x, t, False), (x, t.log(), True):
        ours = quietly(kl_div, a, b, reduction=reduction, log_target=log_target)
        theirs = quietly(original(kl_div), a, b, reduction=reduction, log_target=log_target)
        assert ours.dtype == theirs.dtype == a.dtype
        exact = quietly(original(kl_div), a.double(), b.double(), reduction=reduction, log_target=log_target)
        # One rounding, which is at most eps/2, and float64's errors.
        half = torch.finfo(a.dtype).eps / 2 * (1 + 1e-3)
        assert torch.all((ours.double() - exact).abs() <= half * exact.abs())
        if reduction == "none":
            assert torch.any((theirs.double() - exact).abs() > half * exact.abs())


def test_mixed_dtypes(torch: Any) -> None:
    names = ["float64", "float32", "float16", "bfloat16"]
    for first in names:
        for second in names:
            x, t = losses(torch, "random", first)[0], losses(torch, "random", second)[1]
            for a, b in (x, t), (x, t[0, 0, 0]), (x[0, 0, 0], t):
                assert kl_div(a, b, reduction="sum").dtype == original(kl_div)(a, b, reduction="sum").dtype


@pytest.mark.parametrize(
    "keywords",
    [
        {"size_average": True},
        {"size_average": False},
        {"reduce": False},
        {"reduce": True},
        {"reduce": True, "size_average": False},
        {"size_average": True, "reduction": "batchmean"},
        {"reduce": False, "reduction": "batchmean"},
        {"reduction": "mean"},
        {"reduction": "elementwise_mean"},
        {},
    ],
    ids=str,
)
def test_deprecated_arguments(torch: Any, keywords: dict[str, Any]) -> None:
    x, t = losses(torch, "random")
    values = []
    for function in kl_div, original(kl_div):
        with pytest.warns(UserWarning, match="reduction") as caught:
            values.append(function(x, t, **keywords))
        assert len(caught) == 1
    assert torch.allclose(*values, rtol=1e-12, atol=0)


def test_empty_tensors(torch: Any) -> None:
    for shape in (0,), (0, 3), (3, 0):
        empty = torch.zeros(shape)
        for reduction in REDUCTIONS:
            ours, theirs = (quietly(f, empty, empty, reduction=reduction) for f in (kl_div, original(kl_div)))
            assert torch.equal(ours, theirs) or (ours.isnan() and theirs.isnan())


def test_errors_of_kl_div(torch: Any) -> None:
    x = torch.zeros(2, 3)
    for arguments, keywords in (
        ((x.numpy(), x), {}),
        ((x, [0.5, 0.5]), {}),
        ((x, x.int()), {}),
        ((x.bool(), x), {}),
        ((x + 0j, x), {}),
        ((x, torch.zeros(2)), {}),
        ((x, x), {"reduction": "average"}),
        ((x,), {}),
    ):
        assert_same_error(kl_div, *arguments, **keywords)


def both(torch: Any, x: float, t: float, log_target: bool = False) -> tuple[float, float]:
    """Our value and torch's, each the same for every reduction and dtype."""
    ours, theirs = [], []
    for reduction in REDUCTIONS:
        for dtype in torch.float64, torch.float32, torch.bfloat16:
            keywords = {"reduction": reduction, "log_target": log_target}
            operands = torch.tensor([x], dtype=dtype), torch.tensor([t], dtype=dtype)
            ours.append(quietly(kl_div, *operands, **keywords).item())
            theirs.append(quietly(original(kl_div), *operands, **keywords).item())
    np.testing.assert_array_equal(ours, ours[0])
    np.testing.assert_array_equal(theirs, theirs[0])
    return ours[0], theirs[0]


@difference("target = 0, input = -inf")
def test_zero_target(torch: Any) -> None:
    for x in -INF, INF:
        ours, theirs = both(torch, x, 0.0)
        assert ours == 0
        assert np.isnan(theirs)
    for x, t in (-INF, 0.5), (-1.0, 0.0), (INF, 0.5), (NAN, 0.0), (0.5, NAN), (-1.0, -1.0):
        ours, theirs = both(torch, x, t)
        np.testing.assert_array_equal(ours, theirs)


@difference("log target = -inf")
def test_zero_log_target(torch: Any) -> None:
    for x in -INF, INF, -1.0:
        ours, theirs = both(torch, x, -INF, log_target=True)
        assert ours == 0
        assert np.isnan(theirs)
    for x, t in (-INF, -1.0), (INF, -1.0), (NAN, -INF), (-1.0, NAN):
        ours, theirs = both(torch, x, t, log_target=True)
        np.testing.assert_array_equal(ours, theirs)


@difference("input = -inf, log target too small for its exponential")
def test_tiny_log_target(torch: Any) -> None:
    ours, theirs = both(torch, -INF, -800.0, log_target=True)
    assert ours == INF
    assert np.isnan(theirs)


@difference("target = inf, 0 <= input < inf")
def test_infinite_target(torch: Any) -> None:
    ours, theirs = both(torch, 1.0, INF)
    assert ours == INF
    assert np.isnan(theirs)


def test_replacements_of_torchs_cross_entropy(torch: Any) -> None:
    """The table of docs/compat.md."""
    theirs = torch.nn.functional
    rng = np.random.default_rng(1)
    logits, weight = (torch.from_numpy(rng.standard_normal(shape)) for shape in ((7, 5, 4), (5,)))
    labels = torch.from_numpy(rng.integers(5, size=(7, 4)))
    labels[2, 1] = -100
    kept = (labels != -100).sum()
    every = torch.from_numpy(rng.dirichlet(np.ones(5), 7))
    one, other = logits[:, :, 0], logits[:, :, 1]

    def ours(**keywords: Any) -> Any:
        return fastkl.nll(labels, logits, axis=1, from_logits=True, ignore_index=-100, **keywords)

    pairs = [
        (
            fastkl.nll(labels[:, 0], one, from_logits=True),
            theirs.cross_entropy(one, labels[:, 0], reduction="none"),
        ),
        (ours(), theirs.cross_entropy(logits, labels, reduction="none")),
        (
            ours(label_smoothing=0.3),
            theirs.cross_entropy(logits, labels, reduction="none", label_smoothing=0.3),
        ),
        (ours().sum(), theirs.cross_entropy(logits, labels, reduction="sum")),
        (ours().sum() / kept, theirs.cross_entropy(logits, labels)),
        (fastkl.cross_entropy(every, one, from_logits="q"), theirs.cross_entropy(one, every, reduction="none")),
        (ours() * weight[labels.clip(0)], theirs.cross_entropy(logits, labels, weight, reduction="none")),
        (
            fastkl.kl_divergence(other, one, from_logits=True),
            theirs.kl_div(one.log_softmax(1), other.log_softmax(1), log_target=True, reduction="none").sum(1),
        ),
    ]
    # Logits are below 4 and values below 10: logarithms have errors of some eps of that, and at most 28 values are added.
    for a, b in pairs:
        assert a.dtype == b.dtype == torch.float64
        assert a.shape == b.shape
        assert torch.all((a - b).abs() <= 28 * 10 * 8 * EPS[np.dtype(float)])
    for dtype in torch.float32, torch.float16, torch.bfloat16:
        assert fastkl.nll(labels[:, 0], one.to(dtype), from_logits=True).dtype == torch.float32


@difference("gradients")
def test_gradients(torch: Any) -> None:
    x, t = losses(torch, "random")
    for name, a, b in ("input", x.clone().requires_grad_(), t), ("target", x, t.clone().requires_grad_()):
        with pytest.raises(RuntimeError, match=rf"^{name} requires a gradient.* pass {name}.detach\(\)"):
            kl_div(a, b, reduction="sum")
        assert original(kl_div)(a, b, reduction="sum").requires_grad
        assert kl_div(a.detach(), b.detach(), reduction="sum") == kl_div(x, t, reduction="sum")


@difference("tensors elsewhere than on the CPU")
def test_devices(torch: Any) -> None:
    x = torch.zeros(2, device="meta")
    for name, a, b in ("input", x, torch.zeros(2)), ("target", torch.zeros(2), x):
        with pytest.raises(RuntimeError, match=f"^{name} is on device meta"):
            kl_div(a, b, reduction="sum")
    assert original(kl_div)(x, x, reduction="sum").device.type == "meta"
