"""How long a call goes on after Ctrl-C: `python benchmarks/interrupts.py [TRIES]`, 50 by default. Fails beyond 0.2 s.

Every call would take 20 s or more. A thread sends SIGINT, at various moments.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from threading import Thread
from typing import Any

import numpy as np

import fastkl

MOST = 0.2  # seconds, of the 99th percentile


def calls() -> dict[str, Callable[[], Any]]:
    """One for every way through the kernels; their rows are one row, again and again."""
    p, q = np.random.default_rng(0).random((2, 4000))
    rows = 20_000_000
    many = [np.broadcast_to(x, (rows, 4000)) for x in (p, q)]
    far = [np.broadcast_to(x * 1e100, (rows // 100, 4000)) for x in (p, q)]
    wide, other = np.broadcast_to(1.0, (1, 10**11)), np.broadcast_to(2.0, (1, 10**11))
    columns = [np.broadcast_to(x[:200], (10**9, 200)) for x in (p, q)]
    tiny = [np.broadcast_to(x, (1, 10**9)) for x in (1e-310, 3e-310)]
    tiny_columns = [np.broadcast_to(np.full(10**6, x), (8192, 10**6)) for x in (1e-310, 3e-310)]
    cold_columns = [np.broadcast_to(np.full(10**6, x), (8192, 10**6)) for x in (1e-300, 2e-300)]
    no_label = np.zeros(10**6, int)
    cold = [np.broadcast_to(x, (1, 10**9)) for x in (1e-300, 2e-300)]
    half = np.empty(rows, "f2")
    return {
        "rows, 2 threads": lambda: fastkl.kl_divergence(*many, normalize=True, threads=2),
        "rows, 1 thread": lambda: fastkl.kl_divergence(*many, normalize=True, threads=1),
        "rows, into float16": lambda: fastkl.kl_divergence(*many, normalize=True, threads=2, out=half),
        "one wide row": lambda: fastkl.entropy(wide, normalize=True, threads=2),
        "wide rows compared": lambda: fastkl.compare(wide, wide, normalize=True, threads=2),
        "long columns": lambda: fastkl.kl_divergence(*columns, axis=0, normalize=True, threads=2),
        "logits, the slowest": lambda: fastkl.compare(*far, from_logits=True, threads=2),
        "one wide row of logits": lambda: fastkl.kl_divergence(wide, other, from_logits=True, threads=2),
        "columns by entry": lambda: fastkl.compare(*tiny_columns, no_label, axis=0, normalize=True, threads=2),
        "columns of logits": lambda: fastkl.compare(*cold_columns, axis=0, from_logits=True, temperature=1e-300, threads=2),
        "entry by entry": lambda: fastkl.js_divergence(*tiny, normalize=True, threads=2),
        "logits by entry": lambda: fastkl.kl_divergence(*cold, from_logits=True, temperature=1e-300, threads=2),
    }


def lateness(call: Callable[[], Any], wait: float) -> float:
    """Seconds from a SIGINT, sent after `wait`, to the KeyboardInterrupt."""
    sent = 0.0

    def send() -> None:
        nonlocal sent
        time.sleep(wait)
        sent = time.perf_counter()
        os.kill(os.getpid(), signal.SIGINT)

    sender = Thread(target=send)
    sender.start()
    try:
        call()
    except KeyboardInterrupt:
        return time.perf_counter() - sent
    finally:
        sender.join()
    raise RuntimeError("the call ended before it was interrupted")


def main() -> int:
    """Print the median, the 99th percentile and the most of every call's tries; 1 if one is too late."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has it ignored by what it starts in the background
    tries = int(sys.argv[1]) if len(sys.argv) > 1 else 50
    worst = 0.0
    for name, call in calls().items():
        late = [lateness(call, 0.1 + 0.013 * (i % 17)) for i in range(tries)]
        median, p99, most = np.percentile(late, [50, 99, 100])
        worst = max(worst, float(p99))
        print(f"{name:22} median {median * 1e3:3.0f} ms, 99 % within {p99 * 1e3:3.0f} ms, all within {most * 1e3:3.0f} ms")
    return int(worst > MOST)


if __name__ == "__main__":
    sys.exit(main())
