"""Threads of this process that compute the parts of a run: each reads a part, computes it, and reads the next."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from itertools import islice
from typing import Any, Final

import numpy as np

from .._kernels import Stop, evaluate_files
from ..call import Array, InvalidRowError, prepare
from .operands import Operands
from .scoring import Options, evaluate, request_of

# The values of a range of rows, and which rows have an ignored label, if any can have it.
Part = tuple["Array", "Array | None"]
# Yields the parts in their order.
Run = Callable[[Operands, Options, Iterable[range]], Generator[Part]]

# Bytes of an operand that are read at once, so that they are still in cache when they are computed: by the kernels, and by
# Python, where a block costs as long as the reading of some 500 kB.
BLOCK: Final = 1 << 19
PYTHON_BLOCK: Final = 1 << 21


class Worker:
    """Computes parts, one at a time, with its own buffers. Once `stop` is set, it ends with CancelledError."""

    def __init__(self, operands: Operands, options: Options, stop: Stop | None = None) -> None:
        self._operands, self._options, self._stop = operands, options, stop
        self._dtype = operands.dtype(options)
        row_bytes = max((1, *(x.row_bytes for x in operands.values())))
        self._step = min(max(1, PYTHON_BLOCK // row_bytes), operands.rows)
        small = ((name, x) for name, x in operands.items() if x.small_reads)
        self._buffers = {name: np.empty((self._step, x.width), x.dtype) for name, x in small}
        self._reads: dict[str, Array] = {}
        from_files = all(x.is_plain and (x.rows == 1 or x.place(0) is not None) for x in operands.values())
        if from_files and self._dtype.names is None and operands.rows > 1 and row_bytes <= BLOCK:
            step = min(BLOCK // row_bytes, self._step)
            self._reads = {name: self._buffers[name][:step] for name, x in operands.items() if x.rows > 1}
            rows = {name: self._reads[name] if name in self._reads else x.get(0, 1) for name, x in operands.items()}
            self._request = prepare(request_of(options, _labels_flat(rows)))
            self._request.stop = stop

    def __call__(self, rows: range, read: dict[str, Array]) -> Part:
        """The part of the rows. Operands that were not read yet are read here."""
        values = np.empty(len(rows), self._dtype)
        whole = [name for name, x in self._operands.items() if name not in read and not x.small_reads]
        parts = read | {name: self._operands[name].get(rows.start, rows.stop) for name in whole}
        start = self._evaluate_files(rows.start, values)
        while start < len(rows):
            block = slice(start, min(start + self._step, len(rows)))
            first, last = rows.start + block.start, rows.start + block.stop
            blocks = {
                name: parts[name][block] if name in parts else x.get(first, last, self._buffers[name])
                for name, x in self._operands.items()
            }
            self._evaluate(first, blocks, values[block])
            start = block.stop + self._evaluate_files(last, values[block.stop :])
            if self._stop is not None and self._stop.is_set():
                raise CancelledError
        ignored = ignored_rows(self._operands, self._options, rows, parts.get("labels"))
        self._operands.check(rows.stop)
        return values, ignored

    def _evaluate_files(self, first: int, values: Array) -> int:
        """Fill `values` with those of the rows from `first` on, as far as the kernels can read them from files."""
        places = [(array, *(self._operands[name].place(first) or ())) for name, array in self._reads.items()]
        return evaluate_files(self._request, values, places) if places else 0

    def check_options(self) -> None:
        """Raise the error of an option that does not fit these operands, before a row is read."""
        none = {name: np.empty((0, x.width), x.dtype) for name, x in self._operands.items()}
        self._evaluate(0, none, np.empty(0, self._dtype))

    def _evaluate(self, first: int, blocks: dict[str, Array], values: Array) -> None:
        try:
            evaluate(self._options, _labels_flat(blocks), values, self._stop)
        except InvalidRowError as error:
            self._operands.check(first, thorough=True)  # a file that is written to while it is read can hold anything
            x, (row, *entry) = self._operands[error.operand], error.index
            assert isinstance(row, int)  # a slice comes only with another axis than the last
            raise error.at((*x.index(first + row), *entry), f"{x.name}: ") from None


def _labels_flat(blocks: dict[str, Array]) -> dict[str, Array]:
    """The blocks, of which that of labels has no axis for entries."""
    return {name: x[:, 0] if name == "labels" else x for name, x in blocks.items()}


def ignored_rows(operands: Operands, options: Options, rows: range, labels: Array | None = None) -> Array | None:
    """Which of the rows have the ignored label; None if there is none. The labels are read if they were not."""
    if options.ignore_index is None:
        return None
    labels = operands["labels"].get(rows.start, rows.stop) if labels is None else labels
    return np.broadcast_to(labels[:, 0] == options.ignore_index, len(rows))


def in_threads(count: int, operands: Operands, options: Options, parts: Iterable[range]) -> Generator[Part]:
    """Compute parts in that many threads, which also read them, except from sources that this thread reads in order."""
    local, stop = threading.local(), Stop()
    for x in operands.values():
        x.stop = stop

    def compute(rows: range, read: dict[str, Array]) -> Part:
        if not hasattr(local, "worker"):
            local.worker = Worker(operands, options, stop)
        part: Part = local.worker(rows, read)
        return part

    def submit(rows: range) -> Future[Part]:
        read = {name: x.get(rows.start, rows.stop) for name, x in operands.items() if x.sequential}
        return pool.submit(compute, rows, read)

    pool = ThreadPoolExecutor(count, "fastkl")
    try:
        yield from results(map(submit, parts), count + 2, deque())
    finally:
        stop.set()
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
