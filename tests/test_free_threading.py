"""Python threads that compute at once get the bits of one thread, whether or not the interpreter has a global lock."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Barrier

import numpy as np
import pytest
from support.measures import EPS_MEASURES, MEASURES

import fastkl

CALLERS, ROUNDS, ROWS, N = 8, 5, 200, 70


def calls():
    """Every function, with operands that all threads share; each call takes `out`, and returns an array."""
    random = np.random.default_rng(0)
    p, q = random.random((2, ROWS, N))
    q[::9] *= 1000  # sums that differ widely need rescaled passes
    p[4::9, 1] = 1e-310
    p[5::9, 2] = np.nan
    narrow = p.astype("f4"), q.astype("f4")
    logits = random.normal(0, 5, (2, ROWS, N))
    labels = random.integers(0, N, ROWS)
    wide = random.random((2, 2, 200_000))  # the threads of a call share a row
    rows = {"normalize": True, "invalid": "nan", "threads": 2}

    def compare(out):
        return np.array(fastkl.compare(*logits, labels, from_logits=True, threads=2))

    def of_wide_rows(measure, out):
        return measure(*wide, normalize=True, threads=2, out=out[:2])

    def message(out):
        with pytest.raises(fastkl.InvalidRowError) as info:
            fastkl.entropy(p, normalize=True, threads=2)
        return np.array(str(info.value))

    found = {"compare": compare, "error": message, "nll": partial(fastkl.nll, labels, q, label_smoothing=0.1, **rows)}
    for measure in MEASURES:
        found[f"{measure.__name__} of rows"] = partial(measure, p, q, **rows)
        found[f"{measure.__name__} of columns"] = partial(measure, p.T, q.T, axis=0, **rows)
        found[f"{measure.__name__} of float32"] = partial(measure, *narrow, **rows)
        found[f"{measure.__name__} of wide rows"] = partial(of_wide_rows, measure)
        found[f"{measure.__name__} of logits"] = partial(measure, *logits, from_logits=True, threads=2)
    for measure in EPS_MEASURES:
        found[f"{measure.__name__} with eps"] = partial(measure, p, q, eps=1e-3, **rows)
    return found


def test_threads_at_once_get_the_bits_of_one():
    shared = calls()
    expected = {name: call(out=np.empty(ROWS)).tobytes() for name, call in shared.items()}
    start = Barrier(CALLERS)

    def differing(caller):
        names, out = np.random.default_rng(caller).permutation([*shared] * ROUNDS), np.empty(ROWS)
        start.wait()
        return [name for name in names if shared[name](out=out).tobytes() != expected[name]]

    with ThreadPoolExecutor(CALLERS) as pool:
        assert [*pool.map(differing, range(CALLERS))] == [[]] * CALLERS
