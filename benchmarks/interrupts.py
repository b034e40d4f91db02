"""How late a call answers Ctrl-C: `python benchmarks/interrupts.py [TRIES]`, 50 by default.

Every call would take 20 s or more, on rows of 1000 and of 100,000 entries. A thread sends SIGINT at various moments. Prints
the median, the 99th percentile and the largest delay of each call; exits with 1 if a 99th percentile is larger than 0.2 s.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from threading import Thread
from typing import Any

import numpy as np

import fastkl

MOST = 0.2  # seconds, of the 99th percentile
ENTRIES = 80_000_000_000  # of each operand: 20 s and more
NEIGHBOURS = 64  # rows across memory that are neighbours


def calls() -> dict[str, Callable[[], Any]]:
    """Return a call for each layout, kind of operand and number of threads; their rows are a few rows, again and again."""
    made: dict[str, Callable[[], Any]] = {}
    for n in 1000, 100_000:
        rows = ENTRIES // n
        drawn = np.random.default_rng(0).random((2, n, NEIGHBOURS))
        layouts = {
            "along": {"operands": [np.broadcast_to(x[:, 0].copy(), (rows, n)) for x in drawn], "axis": -1},
            "across": {"operands": [np.broadcast_to(x, (rows // NEIGHBOURS, n, NEIGHBOURS)) for x in drawn], "axis": 1},
        }
        for layout, given in layouts.items():
            for kind, keywords in {"probabilities": {"normalize": True}, "logits": {"from_logits": True}}.items():
                for threads in 2, 1:
                    function = partial(fastkl.kl_divergence, *given["operands"], axis=given["axis"], threads=threads)
                    made[f"{n} {layout} memory, {kind}, {threads} threads"] = partial(function, **keywords)
        slow = [np.broadcast_to(1e100 * x[:, 0], (rows // 100, n)) for x in drawn]
        made[f"{n} compared by the fallback, 2 threads"] = partial(fastkl.compare, *slow, from_logits=True, threads=2)
    return made


def delay(call: Callable[[], Any], wait: float) -> float:
    """Return the seconds from a SIGINT, sent after `wait`, to the KeyboardInterrupt."""
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
    """Print the delays of every call; return 1 if one is too late."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell makes its background processes ignore it
    tries = int(sys.argv[1]) if len(sys.argv) > 1 else 50
    worst = 0.0
    for name, call in calls().items():
        delays = [1e3 * delay(call, 0.1 + 0.013 * (i % 17)) for i in range(tries)]
        median, p99, most = np.percentile(delays, [50, 99, 100])
        worst = max(worst, float(p99))
        print(f"{name:45} median {median:3.0f} ms, 99 % within {p99:3.0f} ms, all within {most:3.0f} ms", flush=True)
    return int(worst > 1e3 * MOST)


if __name__ == "__main__":
    sys.exit(main())
