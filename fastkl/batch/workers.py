"""Threads of this process that compute the parts of a run: each reads a part, computes it, and reads the next."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any, Final

import numpy as np

from ..call import Array, InvalidRowError
from .operands import Operands
from .scoring import Options, evaluate

# Yields the values of ranges of rows, in their order.
Run = Callable[[Operands, Options, Iterable[range]], Generator[Array]]

BLOCK: Final = 1 << 21  # bytes of an operand that are read at once: they are still in cache when they are computed


class Worker:
    """Computes parts, one at a time, with its own buffers."""

    def __init__(self, operands: Operands, options: Options) -> None:
        self._operands, self._options = operands, options
        self._dtype = operands.dtype(options)
        self._step = min(max(1, BLOCK // max(x.row_bytes for x in operands.values())), operands.rows)
        small = ((name, x) for name, x in operands.items() if x.small_reads)
        self._buffers = {name: np.empty((self._step, x.width), x.dtype) for name, x in small}

    def __call__(self, rows: range, read: dict[str, Array]) -> Array:
        """The values of the rows. Operands that were not read yet are read here."""
        values = np.empty(len(rows), self._dtype)
        whole = [name for name, x in self._operands.items() if name not in read and not x.small_reads]
        parts = read | {name: self._operands[name].get(rows.start, rows.stop) for name in whole}
        for start in range(0, len(rows), self._step):
            block = slice(start, min(start + self._step, len(rows)))
            first, last = rows.start + block.start, rows.start + block.stop
            blocks = {
                name: parts[name][block] if name in parts else x.get(first, last, self._buffers[name])
                for name, x in self._operands.items()
            }
            self._evaluate(first, blocks, values[block])
        self._operands.check(rows.stop)
        return values

    def check_options(self) -> None:
        """Raise the error of an option that does not fit these operands, before a row is read."""
        none = {name: np.empty((0, x.width), x.dtype) for name, x in self._operands.items()}
        self._evaluate(0, none, np.empty(0, self._dtype))

    def _evaluate(self, first: int, blocks: dict[str, Array], values: Array) -> None:
        rows = {name: x[:, 0] if name == "labels" else x for name, x in blocks.items()}
        try:
            evaluate(self._options, rows, values)
        except InvalidRowError as error:
            self._operands.check(first, thorough=True)  # a file that is written to while it is read can hold anything
            x, (row, *entry) = self._operands[error.operand], error.index
            assert isinstance(row, int)  # a slice comes only with another axis than the last
            raise error.at((*x.index(first + row), *entry), f"{x.name}: ") from None


def in_threads(count: int, operands: Operands, options: Options, parts: Iterable[range]) -> Generator[Array]:
    """Compute parts in that many threads, which also read them, except from sources that this thread reads in order."""
    local = threading.local()

    def compute(rows: range, read: dict[str, Array]) -> Array:
        if not hasattr(local, "worker"):
            local.worker = Worker(operands, options)
        values: Array = local.worker(rows, read)
        return values

    def submit(rows: range) -> Future[Array]:
        read = {name: x.get(rows.start, rows.stop) for name, x in operands.items() if x.sequential}
        return pool.submit(compute, rows, read)

    pool = ThreadPoolExecutor(count, "fastkl")
    try:
        yield from results(map(submit, parts), count + 2, deque())
    finally:
        pool.shutdown(cancel_futures=True)


def results(futures: Iterable[Any], most: int, waiting: deque[Any]) -> Generator[Any]:
    """The results of the futures in their order, of which at most that many are waiting at once."""
    remaining = iter(futures)
    waiting.extend(islice(remaining, most))
    while waiting:
        result = waiting[0].result()  # it stays among those that the caller can cancel
        waiting.popleft()
        yield result
        waiting.extend(islice(remaining, 1))
