"""Signals within calls: they are handled before the call ends, in every way through the kernels.

How soon is measured by benchmarks/interrupts.py. With HYPOTHESIS_PROFILE=night there are 50 interruptions of each call.
"""

from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from measures import MEASURES
from numpy.lib.stride_tricks import as_strided
from processes import NIGHT, posix

import fastkl
from fastkl import _kernels

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

INTERRUPTIONS = 50 if NIGHT else 1
ENTRIES = 80_000_000_000  # a call of a minute or more
HALVES = np.zeros(ENTRIES // 1000, "f2")  # Memory is only reserved until it is written to.


def rows(n: int, scale: float = 1) -> Any:
    """So many rows of n entries that a call takes a minute: they are one row, again and again."""
    return np.broadcast_to(scale * np.random.default_rng(n).random(n), (ENTRIES // n, n))


def interleaved(n: int, count: int = 2_000_000) -> Any:
    """Rows that are neighbours in memory, along the first axis; each repeats one entry."""
    return as_strided(np.ones(count), (n, count), (0, 8))


def calls() -> dict[str, Callable[[], Any]]:
    """Long calls, for every way through the kernels."""
    p, q, wide_p, wide_q = rows(1000), rows(1000)[:, ::-1], rows(100_000), rows(100_000)[:, ::-1]
    keywords = {"normalize": True, "threads": 2}
    logits = {"from_logits": True, "threads": 2}
    labels = np.broadcast_to(0, p.shape[:1])
    columns, long_columns = interleaved(4000), interleaved(100_000)
    return {
        "rows": lambda: fastkl.kl_divergence(p, q, **keywords),
        "rows, one thread": lambda: fastkl.entropy(p, normalize=True, threads=1),
        "rows into halves": lambda: fastkl.kl_divergence(p, q, out=HALVES, **keywords),
        "rows of 100,000": lambda: fastkl.js_divergence(wide_p, wide_q, **keywords),
        "rescaled rows": lambda: fastkl.kl_divergence(p, rows(1000, 3), **keywords),
        "rows in fallback": lambda: fastkl.js_divergence(rows(1000, 1e-310), q, **keywords),
        "logits": lambda: fastkl.kl_divergence(p, q, **logits),
        "logits, one thread": lambda: fastkl.kl_divergence(p, q, from_logits=True, threads=1),
        "logits of 100,000": lambda: fastkl.kl_divergence(wide_p, wide_q, **logits),
        "logits in fallback": lambda: fastkl.kl_divergence(rows(1000, 1e-300), q, temperature=1e-300, **logits),
        "labels": lambda: fastkl.nll(labels, p, **keywords),
        "labels from logits": lambda: fastkl.nll(labels, p, **logits),
        "a comparison": lambda: fastkl.compare(p[:10_000_000], q[:10_000_000], **keywords),
        "a comparison of logits": lambda: fastkl.compare(p[:10_000_000], q[:10_000_000], **logits),
        "one wide row": lambda: fastkl.entropy(np.broadcast_to(1.0, (1, ENTRIES)), **keywords),
        "wide rows": lambda: fastkl.entropy(np.broadcast_to(1.0, (80_000, 1_000_000)), normalize=True, threads=1),
        "interleaved rows": lambda: fastkl.js_divergence(columns, columns, axis=0, **keywords),
        "interleaved rows, one thread": lambda: fastkl.entropy(columns, axis=0, normalize=True, threads=1),
        "interleaved rows of 100,000": lambda: fastkl.entropy(long_columns, axis=0, **keywords),
    }


class Interrupted(Exception):  # noqa: N818
    """What a signal's handler raises; pytest keeps KeyboardInterrupt to itself."""


@pytest.fixture
def interrupting() -> Iterator[None]:
    """SIGALRM raises, as SIGINT does."""

    def handle(number: int, frame: Any) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGALRM, handle)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@posix
@pytest.mark.usefixtures("interrupting")
@pytest.mark.parametrize("name", calls())
def test_a_signal_is_handled_within_a_call(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last row has no value then, and the next call is as if nothing had been."""
    p, q = np.random.default_rng(2).random((2, 2000, 300))
    expected = [measure(p, q, normalize=True, threads=2).tobytes() for measure in MEASURES]
    call = calls()[name]
    evaluate, results = _kernels.evaluate, []

    def spy(request: Any, out: Any) -> Any:
        results.append(out)
        out[..., -1:] = -1
        return evaluate(request, out)

    for _ in range(INTERRUPTIONS):
        with monkeypatch.context() as patch:
            patch.setattr(_kernels, "evaluate", spy)
            with pytest.raises(Interrupted):  # noqa: PT012 - the timer must not ring before
                signal.setitimer(signal.ITIMER_REAL, 0.1)
                call()
        assert np.all(results[-1][..., -1:] == -1) or (name == "rows into halves" and not HALVES[-1])
        assert [measure(p, q, normalize=True, threads=2).tobytes() for measure in MEASURES] == expected
        results.clear()


@posix
def test_a_handler_that_does_not_raise_changes_nothing() -> None:
    """It may even compute."""
    p, q = np.random.default_rng(3).random((2, 20, 1000))
    expected = fastkl.kl_divergence(p, q, normalize=True)
    many = [np.broadcast_to(x, (20_000, *x.shape)) for x in (p, q)]
    results = []
    before = signal.signal(signal.SIGALRM, lambda *_: results.append(fastkl.kl_divergence(p, q, normalize=True).tobytes()))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.02)
        result = fastkl.kl_divergence(*many, normalize=True, threads=2)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert set(results) == {expected.tobytes()}
    assert result.tobytes() == np.broadcast_to(expected, result.shape).tobytes()


@posix
@pytest.mark.usefixtures("interrupting")
def test_a_call_in_another_thread_is_not_interrupted() -> None:
    """Python handles signals in its main thread alone, which waits meanwhile."""
    p, q = np.random.default_rng(4).random((2, 1000))
    many = [np.broadcast_to(x, (1_000_000, 1000)) for x in (p, q)]
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(fastkl.kl_divergence, *many, normalize=True, threads=2)
        with pytest.raises(Interrupted):  # noqa: PT012 - the timer must not ring before
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            done.result()
        result = done.result()
    assert set(result) == {fastkl.kl_divergence(p, q, normalize=True)}
