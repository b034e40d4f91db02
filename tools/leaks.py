"""Tests that a million calls, valid ones and every kind of error, leave no memory and no object behind.

    python tools/leaks.py [CALLS]            1,000,000 by default
    python tools/leaks.py control            succeeds if planted leaks are noticed

The calls are made in equal rounds, each of which makes every call of a list. The first rounds warm up: threads get their
stacks, allocators their pools, Python its caches. After that, the counts grow by less than they would if one call of each
round left something: an object (counted by the garbage collector), a block (by Python's allocator) or 16 bytes, the least
that malloc returns (by glibc, for NumPy and C). The process's resident memory may grow by less than a byte a call. Needs
Linux with glibc.
"""

import contextlib
import ctypes
import gc
import itertools
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import fastkl

Call = Callable[[], Any]

NOT_OF_PAIRS = ("Comparison", "compare", "entropy", "nll")
PAIRS = [getattr(fastkl, name) for name in fastkl.measures.__all__ if name not in NOT_OF_PAIRS]
LOGITS: dict[str, Any] = {"from_logits": True}
WEIGHTS: dict[str, Any] = {"normalize": True}


def into_a_column(measure: Callable[..., Any], p: Any) -> None:
    measure(p, p, out=p.copy()[:, 0])


def valid() -> Iterator[Call]:
    """Yield calls that return something."""
    rng = np.random.default_rng(0)
    p, q = rng.dirichlet(np.ones(9), (2, 30))
    x, y = rng.standard_normal((2, 30, 9))
    labels = rng.integers(9, size=30)
    out, half = np.empty(30), np.empty(30, "e")
    big = rng.random((300, 300))  # enough for two threads
    wide = np.full(70_000, 1 / 70_000)  # more than a piece: the sums of pieces are allocated
    empty = np.zeros((0, 3))
    for measure in PAIRS:
        yield partial(measure, p, q)
        yield partial(measure, p, q, base=2.0, keepdims=True)
        yield partial(measure, p, q, out=out)
        yield partial(measure, p, q, out=half)
        yield partial(measure, p, q, threads=2, axis=0, **WEIGHTS)
        yield partial(measure, p[:5, None], q)
        yield partial(measure, p[0].tolist(), q[:, ::-1])
        yield partial(measure, p.astype("f4"), q.astype(">f8"), **WEIGHTS)
        yield partial(measure, x, y, temperature=0.7, **LOGITS)
        yield partial(measure, p, y, from_logits="q")
        yield partial(measure, -p, q, invalid="nan")
        yield partial(measure, -p, q, invalid="ignore")
        yield partial(into_a_column, measure, p)
        yield partial(measure, empty, empty)
    for threads in 1, 2:
        yield partial(fastkl.entropy, big, threads=threads, **WEIGHTS)
        yield partial(fastkl.kl_divergence, big, big[0], threads=threads, **WEIGHTS)
        yield partial(fastkl.js_divergence, big, big[0], threads=threads, **LOGITS)
        yield partial(fastkl.entropy, wide, threads=threads)
    for dtype in "?bBhHiIqQefd":
        yield partial(fastkl.entropy, np.ones(3, dtype), **WEIGHTS)
    yield partial(fastkl.entropy, x, **LOGITS)
    yield partial(fastkl.cross_entropy, p, q, eps=1e-3)
    yield partial(fastkl.nll, labels, y, label_smoothing=0.1, **LOGITS)
    yield partial(fastkl.nll, labels, q, ignore_index=3, out=half)
    yield partial(fastkl.compare, p, q)
    yield partial(fastkl.compare, p, q, labels, base=2)
    yield partial(fastkl.compare, x, y, labels, temperature=2.0, ignore_index=0, **LOGITS)
    yield partial(fastkl.compare, x, q, from_logits="p", invalid="nan")
    yield fastkl.build_info


def errors() -> Iterator[Call]:
    """Yield calls that raise."""
    p, q = np.full((4, 5), 0.2), np.full((4, 5), 0.2)
    bad: dict[str, list[Any]] = {
        "axis": [2, -3, 1.5, "x"],
        "base": [1, 0.5, 0, -1, np.nan, "2", [2]],
        "eps": [-1, 1, np.nan, "x", [1]],
        "invalid": ["no", None, 3],
        "out": [np.empty(3), np.empty(4, int), [0.0] * 4, p, np.broadcast_to(0.0, 4)],
        "threads": [0, -1, 1.5, True, "2"],
        "from_logits": ["x", (True,), 1],
        "temperature": [0, -1, np.inf, 2, "x"],
    }
    for name, value in ((name, value) for name, values in bad.items() for value in values):
        yield partial(fastkl.cross_entropy, p, q, **{name: value})
    for name, value in ("ignore_index", 1.5), ("ignore_index", "x"), *(("label_smoothing", x) for x in (-0.5, 2, "x")):
        yield partial(fastkl.nll, [0, 1, 2, 3], q, **{name: value})
    negative, infinite, late = (p.copy() for _ in range(3))
    negative[2, 3], infinite[1, 0], late[3] = -1, np.inf, 0.3
    refused = (negative, infinite, late, np.zeros((4, 5)), p[:, :3], p[:3], np.float64(1))
    for measure, rows in itertools.product(PAIRS, refused):
        yield partial(measure, rows, q)
        yield partial(measure, p, rows, threads=2)
    odd = [np.ones(3, "g"), np.array(["a"]), np.array([1j]), [[1, 2], [3]], "text", None, object()]
    for rows in *odd, np.ma.array(p, mask=p > 0), np.zeros((2, 0)):
        yield partial(fastkl.entropy, rows)
    yield partial(fastkl.entropy, np.array([np.nan, 1]), **LOGITS)
    yield partial(fastkl.kl_divergence, np.full(5, -np.inf), p, **LOGITS)
    yield partial(fastkl.kl_divergence, np.full(70_000, -1.0), np.full(70_000, 1.0), threads=2)
    for labels in [0, 1, 2, 5], [-1] * 4, [0] * 3, np.array(7), [0.5] * 4:
        yield partial(fastkl.nll, np.array(labels), q)
        yield partial(fastkl.compare, p, q, labels)


class Mallinfo(ctypes.Structure):
    """The struct that glibc's mallinfo2 returns."""

    _names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_ = [(name, ctypes.c_size_t) for name in _names.split()]


mallinfo = ctypes.CDLL(None).mallinfo2
mallinfo.restype = Mallinfo


class Held(NamedTuple):
    """The counts of everything that a call could leave behind."""

    objects: int
    blocks: int
    malloced: int
    resident: int


def held() -> Held:
    """Return the counts of the process now."""
    gc.collect()
    status = Path("/proc/self/status").read_text().splitlines()
    resident = int(next(line for line in status if line.startswith("VmRSS")).split()[1]) * 1024
    info = mallinfo()
    return Held(len(gc.get_objects()), sys.getallocatedblocks(), info.uordblks + info.hblkhd, resident)


def rounds(calls: list[Call], raising: list[Call], number: int) -> None:
    """Make every call so many times, and check that those raise that must."""
    for _ in range(number):
        for call in calls:
            call()
        for call in raising:
            with contextlib.suppress(ValueError, TypeError):
                call()
                raise AssertionError(f"no error was raised: {call}")


def grown(calls: list[Call], raising: list[Call], number: int) -> list[str]:
    """Return a text for each count that has grown too much after so many rounds."""
    rounds(calls, raising, max(100, number // 20))
    before = held()
    rounds(calls, raising, number)
    made = number * (len(calls) + len(raising))
    more = Held(*(b - a for a, b in zip(before, held(), strict=True)))
    print(f"{made} calls: {more}")
    # Half of a leak by one call of a round: caches may be filled up, now and then.
    most = Held(number // 2, number // 2, 16 * number // 2, made)
    return [f"{m} more {name}" for name, m, limit in zip(Held._fields, more, most, strict=True) if m > limit]


def planted() -> dict[str, Call]:
    """Return a leak each, in one call of a round: of a missing free, a reference too many or an endless cache."""
    kept: list[Any] = []
    entropy = partial(fastkl.entropy, np.ones((64, 3)), **WEIGHTS)
    return {
        "an object": lambda: kept.append([fastkl.entropy(np.full(5, 0.2))]),
        "an array": lambda: kept.append(entropy()),
        "a reference": lambda: ctypes.pythonapi.Py_IncRef(ctypes.py_object(entropy())),
        "malloc'ed memory": lambda: ctypes.CDLL(None).malloc(ctypes.c_size_t(16)),
    }


def main(argument: str = "1000000") -> None:
    """Make the calls, or check that planted leaks are noticed."""
    calls, raising = list(valid()), list(errors())
    print(f"{len(calls)} valid calls and {len(raising)} errors a round")
    if argument != "control":
        sys.exit("; ".join(grown(calls, raising, -(-int(argument) // (len(calls) + len(raising))))) or None)
    for name, leak in planted().items():
        found = grown([*calls, leak], raising, 500)
        print(f"{name}: {'; '.join(found) or 'not noticed'}")
        if not found:
            sys.exit(f"a planted leak went unnoticed: {name}")


if __name__ == "__main__":
    main(*sys.argv[1:])
