"""Threads of this process that compute the parts of a run: each reads a part, computes it, and reads the next."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from itertools import islice
from operator import itemgetter
from typing import Any, Final

import numpy as np

from .._kernels import Request, Stop, evaluate_files
from ..call import Array, InvalidRowError, prepare
from .operands import Operands
from .readers import Source
from .scoring import Options, evaluate, operands_of, request_of

# The values of a range of rows, and which rows have an ignored label, if any can have it.
Part = tuple["Array", "Array | None"]
# Yields the parts in their order.
Run = Callable[[Operands, Options, Iterable[range]], Generator[Part]]

# Bytes of an operand that are read at once, so that they are still in cache when they are computed: by the kernels, and by
# Python, where a block costs as long as the reading of some 500 kB.
BLOCK: Final = 1 << 19
PYTHON_BLOCK: Final = 1 << 21
_SHARED: Final = ("p", "labels")  # the operands that all models have


class Worker:
    """Computes parts, one at a time, with its own buffers. Once `stop` is set, it ends with CancelledError."""

    def __init__(self, operands: Operands, options: Options, stop: Stop | None = None) -> None:
        self._operands, self._options, self._stop = operands, options, stop
        self._dtype = operands.dtype(options)
        row_bytes = max((1, *(x.row_bytes for x in operands.values())))
        self._step = min(max(1, PYTHON_BLOCK // row_bytes), operands.rows)
        # Those of several models are computed one after the other, and use the same buffers.
        small = {name: (name in _SHARED and name, x.width, x.dtype) for name, x in operands.items() if x.small_reads}
        rooms = {room: np.empty((self._step, room[1]), room[2]) for room in {*small.values()}}
        self._buffers = {name: rooms[room] for name, room in small.items()}
        # For the kernels that read files: of each model, the request, and the arrays that are filled with rows before. What
        # models share is read for the first of them.
        self._reads: dict[str, tuple[Request, dict[str, Array]]] = {}
        self._block = min(BLOCK // row_bytes, self._step)
        outs = [self._dtype[model] if model else self._dtype for model in options.q_names]
        from_files = all(
            x.is_plain and (x.place(0) is not None if x.rows > 1 else not options.models) for x in operands.values()
        )
        if from_files and not any(x.names for x in outs) and operands.rows > 1 and self._block:
            arrays = {name: self._buffers[name][: self._block] for name, x in operands.items() if x.rows > 1}
            rows = {name: arrays[name] if name in arrays else x.get(0, 1) for name, x in operands.items()}
            for model, q in options.q_names.items():
                request = prepare(request_of(options, self._entries(operands_of(q, rows))))
                request.stop = stop
                first = not self._reads
                here = {name: x for name, x in arrays.items() if name == q or (first and name in _SHARED)}
                self._reads[model] = request, here

    def __call__(self, rows: range, read: dict[str, Array]) -> Part:
        """The part of the rows. Operands that were not read yet are read here."""
        values = np.empty(len(rows), self._dtype)
        whole = [name for name, x in self._operands.items() if name not in read and not x.small_reads]
        parts = read | {name: self._operands[name].get(rows.start, rows.stop) for name in whole}
        start = self._evaluate_files(rows.start, values)
        while start < len(rows):
            block = slice(start, min(start + self._step, len(rows)))
            first, last = rows.start + block.start, rows.start + block.stop

            def get(name: str, first: int = first, last: int = last, block: slice = block) -> Array:
                if name in parts:
                    return parts[name][block]
                return self._operands[name].get(first, last, self._buffers[name])

            self._evaluate(first, get, values[block])
            start = block.stop + self._evaluate_files(last, values[block.stop :])
            if self._stop is not None and self._stop.is_set():
                raise CancelledError
        ignored = ignored_rows(self._operands, self._options, rows, parts.get("labels"))
        self._operands.check(rows.stop)
        return values, ignored

    def _evaluate_files(self, first: int, values: Array) -> int:
        """Fill `values` with those of the rows from `first` on, as far as the kernels can read them from files."""
        done = 0
        step = self._block if self._options.models else len(values)  # several models share the rows of a block
        while self._reads and step <= len(values) - done:
            counts = []
            for model, (request, arrays) in self._reads.items():
                out = (values[model] if model else values)[done : done + step]
                places = [(array, *(self._operands[name].place(first + done) or ())) for name, array in arrays.items()]
                counts += [evaluate_files(request, out, places)]
            done += min(counts)
            if min(counts) < step or not self._options.models:
                break
        return done

    def check_options(self) -> None:
        """Raise the error of an option that does not fit these operands, before a row is read."""
        none = {name: np.empty((0, x.width), x.dtype) for name, x in self._operands.items()}
        self._evaluate(0, none.__getitem__, np.empty(0, self._dtype))

    def _evaluate(self, first: int, get: Callable[[str], Array], values: Array) -> None:
        """Fill `values` with those of all models. `get` has the rows of an operand, until it is called for another q."""
        shared = {name: get(name) for name in _SHARED if name in self._operands}
        errors: list[tuple[Any, Source, InvalidRowError]] = []
        for model, q in self._options.q_names.items():
            rows = shared | ({"q": get(q)} if q in self._operands else {})
            out = values[model] if model else values
            try:
                evaluate(self._options, self._entries(rows), out, self._stop)
            except InvalidRowError as error:
                errors += [(error.index[0], self._operands[q if error.operand == "q" else error.operand], error)]
        if errors:
            self._operands.check(first, thorough=True)  # a file that is written to while it is read can hold anything
            row, x, found = min(errors, key=itemgetter(0))  # the first row of those of several models
            raise found.at((*x.index(first + row), *found.index[1:]), f"{x.name}: ") from None

    def _entries(self, blocks: dict[str, Array]) -> dict[str, Array]:
        """The entries of the blocks that are used; the block of labels has no axis for them."""
        return {name: x[:, 0] if name == "labels" else x[:, : self._options.columns] for name, x in blocks.items()}


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
        for x in operands.values():
            x.stop = None


def results(futures: Iterable[Any], most: int, waiting: deque[Any]) -> Generator[Any]:
    """The results of the futures in their order, of which at most that many are waiting at once."""
    remaining = iter(futures)
    waiting.extend(islice(remaining, most))
    while waiting:
        result = waiting[0].result()  # it stays among those that the caller can cancel
        waiting.popleft()
        yield result
        waiting.extend(islice(remaining, 1))
