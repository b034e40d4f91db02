"""What the tests of fastkl.compat share: the functions that it replaces, comparisons with them, and operands."""

import importlib
import warnings

import numpy as np
import pytest

from fastkl.compat.scipy import entropy, jensenshannon, kl_div_sum, rel_entr_sum
from fastkl.compat.sklearn import log_loss, mean_poisson_deviance
from fastkl.compat.torch import kl_div

EPS = {np.dtype(t): float(np.finfo(t).eps) for t in (np.float64, np.float32, np.float16)}

ORIGINALS = {
    entropy: ("scipy.stats", "entropy"),
    jensenshannon: ("scipy.spatial.distance", "jensenshannon"),
    log_loss: ("sklearn.metrics", "log_loss"),
    mean_poisson_deviance: ("sklearn.metrics", "mean_poisson_deviance"),
    kl_div: ("torch.nn.functional", "kl_div"),
}
# Sums of SciPy's elementwise functions.
SUMS = {rel_entr_sum: "rel_entr", kl_div_sum: "kl_div"}
# The first versions with the signatures and dtypes of the functions here.
VERSIONS = {"scipy": "1.17", "sklearn": "1.9", "torch": "2.4"}

kinds = pytest.mark.parametrize("kind", ["random", "zero-rich", "near-equal", "unnormalised"])


def peer(module):
    """The module, or a skip of the test."""
    library = module.partition(".")[0]
    pytest.importorskip(library, VERSIONS[library])
    return importlib.import_module(module)


def original(ours):
    if ours in SUMS:
        return lambda p, q, axis=None, **keywords: getattr(peer("scipy.special"), SUMS[ours])(p, q).sum(axis, **keywords)
    module, name = ORIGINALS[ours]
    return getattr(peer(module), name)


def difference(row):
    """Mark a test as that of the difference with this first cell in a how-to page; test_compat.py looks for the marks."""
    assert row
    return lambda test: test


def quietly(function, *args, **keywords):
    """The function's value, without its warnings, for tests that are not about warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return function(*args, **keywords)


def both(ours, *args, **keywords):
    """Our value, and the original's without its warnings."""
    return ours(*args, **keywords), quietly(original(ours), *args, **keywords)


def assert_same(ours, theirs):
    """Equal in type, dtype and shape, and in value except for the last bits."""
    assert type(ours) is type(theirs)
    np.testing.assert_allclose(ours, theirs, rtol=8 * EPS[np.asarray(theirs).dtype], atol=0, strict=True)


def both_raise(ours, *args, **keywords):
    """Code that catches the original's error catches ours, too. Returns our message, which is not empty."""
    with pytest.raises(Exception) as theirs:  # noqa: PT011
        quietly(original(ours), *args, **keywords)
    with pytest.raises(Exception) as caught:  # noqa: PT011
        quietly(ours, *args, **keywords)
    builtins = {t for t in type(theirs.value).__mro__ if t.__module__ == "builtins"}
    assert builtins <= set(type(caught.value).__mro__)
    assert str(caught.value)
    return str(caught.value)


def weights(kind, shape, dtype=float):
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
