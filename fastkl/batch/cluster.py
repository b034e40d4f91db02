"""Workers of a Dask cluster that compute the parts of a run. They read the files themselves, and must be able to see them.

The values return to this process, in row order; they are small beside the rows. Therefore the summary, the output and its
checkpoints are those of a run without a cluster. If a worker dies, another computes its parts again.
"""

from __future__ import annotations

import itertools
import logging
import socket
from collections import deque
from collections.abc import Generator, Iterable
from contextlib import ExitStack, closing
from typing import Any, Final

from .operands import Operands, open_operands
from .output import difference
from .scoring import Options
from .workers import Part, Run, Worker, results

TASK: Final = 8  # parts in one task, for which a worker opens the files once
_AHEAD: Final = 3  # tasks that are submitted for each of the cluster's threads

# A new cluster has no dashboard. Its server would still take the port of one, and warn where that is in use.
_ANY_PORT: Final = {"dashboard_address": None, "scheduler_kwargs": {"dashboard_address": "127.0.0.1:0"}}


def on_cluster(cluster: Any, threads: int) -> Run:
    """Compute parts on a cluster: a distributed.Client, an address, or "" for a new one here of that many threads."""
    try:
        import distributed
    except ImportError:
        raise ImportError("a Dask cluster needs dask and distributed: pip install 'fastkl[dask]'") from None

    def run(operands: Operands, options: Options, parts: Iterable[range]) -> Generator[Part]:
        given = {name: x.operand() for name, x in operands.items()}
        known = operands.identity(options)
        with ExitStack() as stack:
            client = cluster
            if not isinstance(cluster, distributed.Client):
                keywords = {"n_workers": threads, "threads_per_worker": 1, "silence_logs": logging.ERROR}
                address = cluster or stack.enter_context(distributed.LocalCluster(**keywords, **_ANY_PORT))
                client = stack.enter_context(distributed.Client(address))
            most = 1 + _AHEAD * max(1, sum(client.nthreads().values()))
            waiting: deque[Any] = deque()
            stack.callback(lambda: client.cancel(list(waiting)))
            remaining = iter(parts)
            tasks = iter(lambda: list(itertools.islice(remaining, TASK)), [])
            futures = (client.submit(_compute, given, options, known, task, pure=False) for task in tasks)
            for done in results(futures, most, waiting):
                yield from done

    return run


def _compute(given: dict[str, Any], options: Options, known: dict[str, Any], task: list[range]) -> list[Part]:
    """The parts, computed by a worker in the one thread that the cluster gave this task."""
    with closing(open_operands(options, given)) as operands:
        if different := difference(known, operands.identity(options)):
            raise ValueError(f"on {socket.gethostname()}, {different}")
        worker = Worker(operands, options)
        return [worker(rows, {}) for rows in task]
