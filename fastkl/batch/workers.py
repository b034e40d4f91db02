"""Who computes the parts of a run here: threads, each of which reads, computes, and reads again.

Another way to have them computed is cluster.py.
"""

from __future__ import annotations

import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

import numpy as np

from . import scoring

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Sequence

    from .._rows import Array, Index
    from .operands import Operands
    from .scoring import Options

    # Gives the values of ranges of rows, in their order, whoever computes them and however many at a time.
    Run = Callable[[Operands, Options, Iterable[range]], Generator[Array]]

_BLOCK: Final = 1 << 21  # bytes of an operand that are read at once: they are still in cache when they are computed


class Worker:
    """Computes parts, one at a time, with buffers of its own."""

    def __init__(self, operands: Operands, options: Options) -> None:
        self._operands, self._options = operands, options
        self._dtype = operands.dtype(options)
        self._step = min(max(1, _BLOCK // max(x.row_bytes for x in operands.all())), operands.rows)
        self._buffers = [np.empty((self._step, x.width), x.dtype) if x.in_blocks else None for x in operands.all()]

    def __call__(self, rows: range, given: Sequence[Array | None]) -> Array:
        """The rows' values. What of the operands is not given is read here."""
        sources = self._operands.all()
        values = np.empty(len(rows), self._dtype)
        parts = [
            x.read(rows.start, rows.stop) if part is None and not x.in_blocks else part
            for x, part in zip(sources, given, strict=True)
        ]
        for start in range(0, len(rows), self._step):
            block = slice(start, min(start + self._step, len(rows)))
            first, last = rows.start + block.start, rows.start + block.stop
            blocks = [
                x.read(first, last, buffer) if part is None else part[block]
                for x, part, buffer in zip(sources, parts, self._buffers, strict=True)
            ]
            self._evaluate(first, blocks, values[block])
        self._operands.check(rows.stop)
        return values

    def check_options(self) -> None:
        """Raises what an option that is wrong with these operands will raise, before a row is read."""
        none = [np.empty((0, x.width), x.dtype) for x in self._operands.all()]
        self._evaluate(0, none, np.empty(0, self._dtype))

    def _evaluate(self, first: int, blocks: Sequence[Array], values: Array) -> None:
        sources = dict(self._operands.named())
        given = {name: block[:, 0] if x.labels else block for (name, x), block in zip(sources.items(), blocks, strict=True)}
        sources.setdefault("labels", sources["p"])  # messages call those of a cross-entropy so

        def locate(name: str, index: Index) -> Index:
            return [*sources[name].index(first + int(index[0])), *index[1:]]

        try:
            scoring.evaluate(self._options, given["p"], given.get("q"), given.get("labels"), values, locate)
        except ValueError as error:
            self._operands.check(first, thorough=True)  # rows that are read while they are written can be wrong in any way
            name = scoring.operand_of(str(error))
            if name is None:
                raise
            raise ValueError(f"{sources[name].name}: {error}") from None


def in_threads(count: int) -> Run:
    """Parts computed by so many threads of this process, and read by them, or by this one where that has to be in order."""

    def run(operands: Operands, options: Options, parts: Iterable[range]) -> Generator[Array]:
        local = threading.local()

        def compute(rows: range, given: Sequence[Array | None]) -> Array:
            if not hasattr(local, "worker"):
                local.worker = Worker(operands, options)
            values: Array = local.worker(rows, given)
            return values

        waiting: deque[Future[Array]] = deque()
        pool = ThreadPoolExecutor(count, "fastkl")
        try:
            for rows in parts:
                given = [x.read(rows.start, rows.stop) if x.ordered else None for x in operands.all()]
                waiting.append(pool.submit(compute, rows, given))
                if len(waiting) > count + 1:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)

    return run
