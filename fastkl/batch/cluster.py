"""Parts of a run computed by the workers of a Dask cluster, which read the files themselves: they have to see them, too.

Values come back to this process, in row order, for they are few beside the rows they are of. So the summary, the output and
its checkpoints are those of a run without a cluster. A part whose worker died is computed again by another.
"""

from __future__ import annotations

import itertools
import json
import logging
import os
import socket
from collections import deque
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from .operands import open_operands
from .output import difference
from .workers import Worker

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator

    from .._rows import Array
    from .operands import Operands
    from .scoring import Options
    from .workers import Run

_TASK: Final = 8  # parts that a worker is sent together: it opens the files for each task
_AHEAD: Final = 3  # tasks that are on their way for each of the cluster's threads


def on_cluster(cluster: Any, threads: int) -> Run:
    """Parts computed by a cluster: a distributed.Client, an address, or "" for a new one here with so many threads."""
    try:
        import distributed
    except ImportError:
        raise ImportError("a Dask cluster needs dask and distributed: pip install 'fastkl[dask]'") from None

    def run(operands: Operands, options: Options, parts: Iterable[range]) -> Generator[Array]:
        for x in operands.all():
            if not any(x.files()):
                raise TypeError(f"{x.name} is an array: workers read files")
        paths = [None if x is None else os.path.abspath(x.name) for x in operands]
        known = operands.identity(options)
        with ExitStack() as stack:
            client = cluster
            if not isinstance(cluster, distributed.Client):
                address = cluster or stack.enter_context(_new(distributed, threads))
                client = stack.enter_context(distributed.Client(address))
            most = _AHEAD * max(1, sum(client.nthreads().values()))
            waiting: deque[tuple[list[range], Any]] = deque()
            stack.callback(lambda: client.cancel([future for _, future in waiting]))

            def first() -> Iterator[Array]:
                task, future = waiting[0]
                values = future.result()
                waiting.popleft()
                for rows in task:
                    yield values[rows.start - task[0].start : rows.stop - task[0].start]

            for task in _batched(parts, _TASK):
                waiting.append((task, client.submit(_compute, paths, options, known, task, pure=False)))
                if len(waiting) > most:
                    yield from first()
            while waiting:
                yield from first()

    return run


def _new(distributed: Any, threads: int) -> Any:
    """A cluster on this machine, with as many processes as there may be threads."""
    return distributed.LocalCluster(
        n_workers=threads, threads_per_worker=1, dashboard_address=None, silence_logs=logging.ERROR
    )


def _batched(parts: Iterable[range], count: int) -> Iterator[list[range]]:
    remaining = iter(parts)
    while task := list(itertools.islice(remaining, count)):
        yield task


def _compute(paths: list[str | None], options: Options, known: dict[str, Any], task: list[range]) -> Array:
    """Values of parts that follow each other, on a worker; in the one thread that the cluster gave this task."""
    with closing(open_operands(options, *paths)) as operands:
        found = json.loads(json.dumps(operands.identity(options)))
        wanted = json.loads(json.dumps(known))
        if found != wanted:
            raise ValueError(f"on {socket.gethostname()}, {difference(wanted, found)}")
        worker = Worker(operands, options)
        return np.concatenate([worker(rows, [None] * len(operands.all())) for rows in task])
