"""Tests that a million calls, valid ones and every kind of error, leave no memory and no object behind.

    python tests/hardening/leaks.py [CALLS]            1,000,000 by default
    python tests/hardening/leaks.py control            succeeds if planted leaks are noticed

The calls are made in equal rounds, each of which makes every call of a list. The first rounds warm up: threads get their
stacks, allocators their pools, Python its caches. After that, the counts grow by less than they would if one call of each
round left something: an object (counted by the garbage collector), a block (by Python's allocator) or 16 bytes, the least
that malloc returns (by glibc, for NumPy and C). The process's resident memory may grow by less than a byte a call. Needs
Linux with glibc.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import itertools
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

import fastkl

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Call = Callable[[], Any]

NOT_OF_PAIRS = ("Comparison", "compare", "entropy", "nll")
PAIRS = [getattr(fastkl, name) for name in fastkl.measures.__all__ if name not in NOT_OF_PAIRS]


def valid() -> Iterator[Call]:
    """Return calls that return something."""
    rng = np.random.default_rng(0)
    p, q = rng.dirichlet(np.ones(9), (2, 30))
    x, y = rng.standard_normal((2, 30, 9))
    labels = rng.integers(9, size=30)
    out, half = np.empty(30), np.empty(30, "e")
    big = rng.random((300, 300))  # enough for two threads
    wide = np.full(70_000, 1 / 70_000)  # more than a piece: the sums of pieces are allocated
    for measure in PAIRS:
        for keywords in (
            {},
            {"base": 2.0, "keepdims": True},
            {"out": out},
            {"out": half},
            {"threads": 2, "axis": 0, "normalize": True},
        ):
            yield lambda m=measure, k=keywords: m(p, q, **k)
        yield lambda m=measure: m(p[:5, None], q)
        yield lambda m=measure: m(p[0].tolist(), q[:, ::-1])
        yield lambda m=measure: m(p.astype("f4"), q.astype(">f8"), normalize=True)
        yield lambda m=measure: m(x, y, from_logits=True, temperature=0.7)
        yield lambda m=measure: m(p, y, from_logits="q")
        yield lambda m=measure: m(-p, q, invalid="nan")
        yield lambda m=measure: m(-p, q, invalid="ignore")
        yield lambda m=measure: m(p, p, out=p.copy()[:, 0])
        yield lambda m=measure: m(np.zeros((0, 3)), np.zeros((0, 3)))
    for threads in 1, 2:
        yield lambda t=threads: fastkl.entropy(big, normalize=True, threads=t)
        yield lambda t=threads: fastkl.kl_divergence(big, big[0], normalize=True, threads=t)
        yield lambda t=threads: fastkl.js_divergence(big, big[0], from_logits=True, threads=t)
        yield lambda t=threads: fastkl.entropy(wide, threads=t)
    for dtype in "?bBhHiIqQefd":
        yield lambda d=dtype: fastkl.entropy(np.ones(3, d), normalize=True)
    yield lambda: fastkl.entropy(x, from_logits=True)
    yield lambda: fastkl.cross_entropy(p, q, eps=1e-3)
    yield lambda: fastkl.nll(labels, y, from_logits=True, label_smoothing=0.1)
    yield lambda: fastkl.nll(labels, q, ignore_index=3, out=half)
    yield lambda: fastkl.compare(p, q)
    yield lambda: fastkl.compare(p, q, labels, base=2)
    yield lambda: fastkl.compare(x, y, labels, from_logits=True, temperature=2.0, ignore_index=0)
    yield lambda: fastkl.compare(x, q, from_logits="p", invalid="nan")
    yield lambda: fastkl.build_info()


def errors() -> Iterator[Call]:
    """Return calls that raise."""
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
    for name, values in bad.items():
        for value in values:
            yield lambda n=name, v=value: fastkl.cross_entropy(p, q, **{n: v})
    for value in [1.5, "x"], [-0.5, 2, "x"]:
        yield lambda v=value: fastkl.nll([0, 1, 2, 3], q, ignore_index=v[0])
        yield lambda v=value: fastkl.nll([0, 1, 2, 3], q, label_smoothing=v[-1])
    negative, infinite, late = (p.copy() for _ in range(3))
    negative[2, 3], infinite[1, 0], late[3] = -1, np.inf, 0.3
    for measure, rows in itertools.product(
        PAIRS, (negative, infinite, late, np.zeros((4, 5)), p[:, :3], p[:3], np.float64(1))
    ):
        yield lambda m=measure, r=rows: m(r, q)
        yield lambda m=measure, r=rows: m(p, r, threads=2)
    for rows in (
        np.ones(3, "g"),
        np.array(["a"]),
        np.array([1j]),
        [[1, 2], [3]],
        "text",
        None,
        object(),
        np.ma.array(p, mask=p > 0),
        np.zeros((2, 0)),
    ):
        yield lambda r=rows: fastkl.entropy(r)
    yield lambda: fastkl.entropy(np.array([np.nan, 1]), from_logits=True)
    yield lambda: fastkl.kl_divergence(np.full(5, -np.inf), p, from_logits=True)
    yield lambda: fastkl.kl_divergence(np.full(70_000, -1.0), np.full(70_000, 1.0), threads=2)
    for labels in [0, 1, 2, 5], [-1] * 4, [0] * 3, np.array(7), [0.5] * 4:
        yield lambda y=labels: fastkl.nll(np.array(y), q)
        yield lambda y=labels: fastkl.compare(p, q, y)


class Mallinfo(ctypes.Structure):
    """The struct that glibc's mallinfo2 returns."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        )
    ]


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
                raise AssertionError("no error was raised")


def grown(calls: list[Call], raising: list[Call], number: int) -> list[str]:
    """Return a text for each count that has grown too much after so many rounds."""
    rounds(calls, raising, max(100, number // 20))
    before = held()
    rounds(calls, raising, number)
    after = held()
    made = number * (len(calls) + len(raising))
    more = Held(*(b - a for a, b in zip(before, after, strict=True)))
    print(f"{made} calls: {more}")
    # Half of a leak by one call of a round: caches may be filled up, now and then.
    most = Held(number // 2, number // 2, 16 * number // 2, made)
    return [f"{m} more {name}" for name, m, limit in zip(Held._fields, more, most, strict=True) if m > limit]


def planted() -> dict[str, Call]:
    """Return a leak each, in one call of a round: of a missing free, a reference too many or an endless cache."""
    kept: list[Any] = []
    malloc = ctypes.CDLL(None).malloc
    p = np.full(5, 0.2)
    return {
        "an object": lambda: kept.append([fastkl.entropy(p)]),
        "an array": lambda: kept.append(fastkl.entropy(np.ones((64, 3)), normalize=True)),
        "a reference": lambda: ctypes.pythonapi.Py_IncRef(
            ctypes.py_object(fastkl.entropy(np.ones((9, 3)), normalize=True))
        ),
        "malloc'ed memory": lambda: malloc(ctypes.c_size_t(16)),
    }


def main() -> None:
    """Make the calls, or check that planted leaks are noticed."""
    argument = sys.argv[1] if len(sys.argv) > 1 else "1000000"
    calls, raising = list(valid()), list(errors())
    print(f"{len(calls)} valid calls and {len(raising)} errors a round")
    if argument == "control":
        for name, leak in planted().items():
            found = grown([*calls, leak], raising, 500)
            print(f"{name}: {'; '.join(found) or 'not noticed'}")
            if not found:
                sys.exit(f"a planted leak went unnoticed: {name}")
        return
    found = grown(calls, raising, -(-int(argument) // (len(calls) + len(raising))))
    if found:
        sys.exit("; ".join(found))


if __name__ == "__main__":
    main()
