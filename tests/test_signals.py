"""Signals within calls: they are handled before the call ends, in every way through the kernels.

How soon is measured by benchmarks/interrupts.py. With HYPOTHESIS_PROFILE=night there are 50 interruptions of each call.
"""

import signal
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numpy.lib.stride_tricks import as_strided
from support.measures import MEASURES
from support.processes import NIGHT, posix

import fastkl
from fastkl import _kernels

ENTRIES = 80_000_000_000  # a call of a minute or more
HALVES = np.zeros(ENTRIES // 1000, "f2")  # Memory is only reserved until it is written to.


def rows(n, scale=1):
    """So many rows of n entries that a call takes a minute: they are one row, again and again."""
    return np.broadcast_to(scale * np.random.default_rng(n).random(n), (ENTRIES // n, n))


def interleaved(n, count=2_000_000):
    """Rows that are neighbours in memory, along the first axis; each repeats one entry."""
    return as_strided(np.ones(count), (n, count), (0, 8))


def kl(p, q, **keywords):
    return fastkl.kl_divergence(p, q, **{"normalize": True, "threads": 2} | keywords)


def entropy(p, **keywords):
    return fastkl.entropy(p, **{"normalize": True, "threads": 2} | keywords)


P, WIDE = rows(1000), rows(100_000)
Q, WIDE_Q = P[:, ::-1], WIDE[:, ::-1]
LABELS, MANY = np.broadcast_to(0, P.shape[:1]), slice(10_000_000)
LOGITS = {"from_logits": True, "threads": 2}
# Long calls, for every way through the kernels. The first seven are in each run.
CALLS = {
    "rows": lambda: kl(P, Q),
    "rows into halves": lambda: kl(P, Q, out=HALVES),
    "one wide row": lambda: entropy(np.broadcast_to(1.0, (1, ENTRIES))),
    "interleaved rows, one thread": lambda: entropy(interleaved(4000), axis=0, threads=1),
    "one wide row of logits": lambda: kl(np.broadcast_to(1.0, (1, ENTRIES)), np.broadcast_to(2.0, (1, ENTRIES)), **LOGITS),
    "labels from logits": lambda: fastkl.nll(LABELS, P, **LOGITS),
    "a comparison": lambda: fastkl.compare(P[MANY], Q[MANY], normalize=True, threads=2),
    "rows, one thread": lambda: entropy(P, threads=1),
    "rows of 100,000": lambda: fastkl.js_divergence(WIDE, WIDE_Q, normalize=True, threads=2),
    "rescaled rows": lambda: kl(P, rows(1000, 3)),
    "rows in fallback": lambda: fastkl.js_divergence(rows(1000, 1e-310), Q, normalize=True, threads=2),
    "logits": lambda: kl(P, Q, **LOGITS),
    "logits, one thread": lambda: kl(P, Q, from_logits=True, threads=1),
    "logits of 100,000": lambda: kl(WIDE, WIDE_Q, **LOGITS),
    "logits in fallback": lambda: kl(rows(1000, 1e-300), Q, temperature=1e-300, **LOGITS),
    "labels": lambda: fastkl.nll(LABELS, P, normalize=True, threads=2),
    "a comparison of logits": lambda: fastkl.compare(P[MANY], Q[MANY], **LOGITS),
    "wide rows": lambda: entropy(np.broadcast_to(1.0, (80_000, 1_000_000)), threads=1),
    "interleaved rows": lambda: fastkl.js_divergence(*[interleaved(4000)] * 2, axis=0, normalize=True, threads=2),
    "interleaved rows of 100,000": lambda: entropy(interleaved(100_000), axis=0),
}


class Interrupted(Exception):  # noqa: N818
    """What a signal's handler raises; pytest keeps KeyboardInterrupt to itself."""


@pytest.fixture
def interrupting():
    """SIGALRM raises, as SIGINT does."""

    def handle(number, frame):
        raise Interrupted

    before = signal.signal(signal.SIGALRM, handle)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@posix
@pytest.mark.usefixtures("interrupting")
@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (i > 6)) for i, name in enumerate(CALLS)])
def test_a_signal_is_handled_within_a_call(name, monkeypatch):
    """The last row has no value then, and the next call is as if nothing had been."""
    p, q = np.random.default_rng(2).random((2, 2000, 300))
    expected = [measure(p, q, normalize=True, threads=2).tobytes() for measure in MEASURES]
    evaluate, results = _kernels.evaluate, []

    def spy(request, out):
        if not results:
            signal.setitimer(signal.ITIMER_REAL, 0.1)
        results.append(out)
        out[..., -1:] = -1
        return evaluate(request, out)

    for _ in range(50 if NIGHT else 1):
        with monkeypatch.context() as patch:
            patch.setattr(_kernels, "evaluate", spy)
            with pytest.raises(Interrupted):
                CALLS[name]()
        assert np.all(results[-1][..., -1:] == -1) or (name == "rows into halves" and not HALVES[-1])
        assert [measure(p, q, normalize=True, threads=2).tobytes() for measure in MEASURES] == expected
        results.clear()


@posix
def test_a_handler_that_does_not_raise_changes_nothing():
    """It may even compute."""
    p, q = np.random.default_rng(3).random((2, 20, 1000))
    expected, results = kl(p, q), []
    before = signal.signal(signal.SIGALRM, lambda *_: results.append(kl(p, q, threads=None).tobytes()))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.02)
        result = kl(*(np.broadcast_to(x, (20_000, *x.shape)) for x in (p, q)))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert set(results) == {expected.tobytes()}
    assert result.tobytes() == np.broadcast_to(expected, result.shape).tobytes()


@posix
@pytest.mark.usefixtures("interrupting")
def test_a_call_in_another_thread_is_not_interrupted():
    """Python handles signals in its main thread alone, which waits meanwhile."""
    p, q = np.random.default_rng(4).random((2, 1000))
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(kl, *(np.broadcast_to(x, (600_000, 1000)) for x in (p, q)))
        with pytest.raises(Interrupted):  # noqa: PT012 - the timer must not ring before
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            done.result()
        result = done.result()
    assert set(result) == {kl(p, q)}
