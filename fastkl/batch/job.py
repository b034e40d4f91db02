"""`score`: opens the sources, has their rows computed in order, and writes the summary and the file. All parts meet."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any, Literal

from .._build import default_workers
from ..call import check_threads
from . import writers
from .files import check_apart, check_place, replace
from .operands import open_operands
from .output import Draft
from .progress import bar
from .report import html
from .results import Results, joint
from .scoring import Options, unit
from .workers import Run, Worker, ignored_rows, in_threads


def score(
    p: Any,
    q: Any = None,
    labels: Any = None,
    *,
    measure: str | None = None,
    from_logits: bool | Literal["p", "q"] = False,
    temperature: float = 1.0,
    normalize: bool = False,
    base: float | None = None,
    eps: float = 0.0,
    alpha: float | None = None,
    invalid: str = "raise",
    ignore_index: int | None = None,
    out: str | os.PathLike[str] | None = None,
    keys: Sequence[str] = (),
    resume: bool = False,
    report: str | os.PathLike[str] | None = None,
    threads: int | None = None,
    progress: bool = False,
    dask: Any = None,
) -> dict[str, Any]:
    """A summary of the values of all rows of files, and the values in a file if `out` is given.

    Files may be larger than memory: rows are read in parts. The values have the same bits as those of the measures.

    Parameters
    ----------
    p : path or array_like
        The reference ("true") distributions, of shape (..., n): a row is a slice along the last axis. A path is that of a
        `.npy` file, of a member of an archive (``file.npz:name``), of a column of a Parquet file or of a folder of them
        (``file.parquet:column``, lists of equal length), or of a Zarr array (``store.zarr``, ``store.zarr:name``).
        Arrays in the place of a matrix may be a TopK.
    q : path or array_like, optional
        The distributions that `p` is compared with, of the same shape; measures ``"entropy"`` and ``"nll"`` take none. If
        one operand has a single row, that row serves all rows of the other.
    labels : path or array_like of int, optional
        The class of every row, for measures ``"compare"`` and ``"nll"``.
    measure : str, optional
        ``"kl"``, ``"ce"`` or ``"js"`` for `kl_divergence`, `cross_entropy` or `js_divergence`; ``"nll"`` for that of labels
        and the rows of `p`; ``"compare"`` for all fields of `compare`; the name of the function for `entropy`,
        `hellinger_distance`, `total_variation`, `chi2_divergence`, `renyi_divergence`, `jeffreys_divergence` and
        `generalized_kl`. None means ``"compare"`` with labels, else ``"kl"``. An option that the function of a measure does
        not take is an error.
    from_logits : {False, True, "p", "q"}, default False
        Which operands hold logits: none, both, or the one that is named.
    temperature : float, default 1.0
        What logits are divided by, a positive finite number.
    normalize : bool, default False
        Whether rows are weights with any sum, such as counts. False demands that every row sums to 1.
    base : float, optional
        Base of the logarithm, finite and greater than 1. None gives nats, 2 gives bits.
    eps : float, default 0.0
        Smaller entries of `q` are clipped to it, or of `p` for ``"nll"``, or of both for ``"jeffreys_divergence"``.
    alpha : float, optional
        The order of ``"renyi_divergence"``, which needs one and alone takes one: a positive number or inf.
    invalid : {"raise", "nan", "ignore"}, default "raise"
        What happens to an invalid row. ``"raise"`` raises InvalidRowError for the first one. ``"nan"`` makes its value NaN
        and counts it. ``"ignore"`` leaves out the check of the sum.
    ignore_index : int, optional
        The label of rows that have no loss: the file of values has 0.0 there, and the summaries of losses leave them out.
    out : path, optional
        The file of the values, in row order: `.npy` (in the shape of the rows; structured for a comparison), `.parquet` (a
        column for each field) or `.zarr`. Until it is complete, there are `out`.partial and `out`.checkpoint beside it.
        Then it replaces a file of its name, but never a link or an input.
    keys : sequence of str, default ()
        Columns of a Parquet `p` to write beside the values in a Parquet `out`.
    resume : bool, default False
        Whether to continue from the checkpoint of an interrupted run with the same inputs and options, if there is one. The
        result has the same bytes. If False, a checkpoint is an error, so that no work is lost.
    report : path, optional
        The file of an HTML page with a histogram, quantiles and the worst rows.
    threads : int, optional
        The largest number of threads to use. None uses what OpenMP would.
    progress : bool, default False
        Whether tqdm draws a progress bar on standard error.
    dask : distributed.Client or str, optional
        The cluster whose workers read the files and compute, or its address, or "" for a new one on this machine.

    Returns
    -------
    dict
        The result of `Summary.result`, and `seconds`, `rows_per_second`, `bytes_per_second`. For a comparison, there is
        such a dict for each field, and beside them `top1_agreement`, the share of valid rows that have their largest entry
        in the same place, and with labels `perplexity_p` and `perplexity_q`; the mean of the field `nll_increase`,
        nll_q - nll_p, is the logarithm of their ratio.

    Raises
    ------
    InvalidRowError
        For the first invalid row, if `invalid` is "raise". The message begins with the file's name, and `index` is the
        place in the whole operand.
    OSError
        For an error of the system, with the file's name; for an `out` that is a link, an input, or written by another run.
    ValueError
        For damaged files and files that are changed while they are read, with the file's name and the row; for a checkpoint
        of another job; for arguments out of their range and shapes that do not fit.
    TypeError
        For arguments and dtypes that are none of the above.
    ImportError
        If the library of a format or of the cluster is missing.

    See Also
    --------
    Summary : The summary of values from elsewhere.
    compare : The fields of a comparison.
    kl_divergence : The options of the measures in detail.

    Notes
    -----
    Rows are read, into buffers of 2 MB for each thread and operand, while others are computed. For Parquet, Zarr and .npz,
    these are parts of 16 MB, or a chunk.

    Examples
    --------
    >>> import fastkl, numpy as np, os, tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> p, q, out = (os.path.join(folder.name, name) for name in ("p.npy", "q.npy", "scores.npy"))
    >>> np.save(p, [[0.5, 0.5], [0.25, 0.75]])
    >>> np.save(q, [[0.5, 0.5]])
    >>> result = fastkl.score(p, q, base=2, out=out)
    >>> result["mean"], result["max_row"]
    (0.0943..., 1)
    >>> np.load(out)
    array([0.        , 0.18872188])
    >>> folder.cleanup()
    """
    measure = ("kl" if labels is None else "compare") if measure is None else measure
    options = Options(
        measure, from_logits, temperature, normalize, base, eps, alpha, invalid, ignore_index, labels=labels is not None
    )
    count = default_workers() if threads is None else check_threads(threads)
    run: Run = partial(in_threads, count)
    if dask is not None:
        from .cluster import on_cluster

        run = on_cluster(dask, count)
    if out is None and (resume or keys):
        raise ValueError(f"{'resume' if resume else 'keys'}: only with out")

    with ExitStack() as stack:
        others = {name: x for name, x in (("q", q), ("labels", labels)) if x is not None}
        operands = stack.enter_context(closing(open_operands(options, {"p": p} | others)))
        Worker(operands, options).check_options()
        inputs = [path for x in operands.values() for path in x.paths]
        if report is not None:
            check_place(Path(report), inputs)
            if out is not None:
                check_apart(Path(out), Path(report))
        dtype = operands.dtype(options)
        results = Results(dtype.names, base)
        draft = None
        if out is not None:
            check_place(Path(out), inputs, folder=Path(out).suffix == ".zarr")
            write = writers.find(Path(out), operands["p"], keys, dtype, operands.leading)
            job = operands.identity(options) | {"keys": list(keys)}
            draft = stack.enter_context(Draft(Path(out), dtype, operands.leading, job, resume))
            for rows in operands.ranges(0):  # the same updates as in the first run: the summary has the same bits
                if rows.stop > draft.rows:
                    break
                results.update(draft.read(rows), ignored_rows(operands, options, rows))
        done = 0 if draft is None else draft.rows
        tell = stack.enter_context(bar(operands.rows, done, operands.row_bytes)) if progress else None

        start = time.perf_counter()
        with closing(run(operands, options, operands.ranges(done))) as computed:
            for values, ignored in computed:
                if draft is not None:
                    draft.append(values)
                results.update(values, ignored)
                if tell is not None:
                    tell(len(values))
        operands.check(operands.rows, thorough=True)
        seconds = time.perf_counter() - start
        if draft is not None:
            draft.finish(write)  # first: nothing that fails later may take the values away
        speed = (operands.rows - done) / seconds if seconds else math.inf
        speeds = {"seconds": seconds, "rows_per_second": speed, "bytes_per_second": speed * operands.row_bytes}
        result = results.result(speeds)
        if report is not None:
            facts = {name: x.name for name, x in operands.items()} | options.facts() | dict(joint(result))
            summaries = {name or measure: summary for name, summary in results.summaries.items()}
            units = {name: unit(name, base) for name in summaries}
            replace(Path(report), html("fastkl score", facts, summaries, units).encode())
    return result
