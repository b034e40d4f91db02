"""A run: sources in, in row order through the measures, a summary and a file out. The one place where the parts meet."""

from __future__ import annotations

import time
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import _kernels, _rows
from . import output
from .operands import open_operands
from .progress import bar
from .report import html
from .results import Results
from .scoring import Options, unit
from .workers import Worker, in_threads

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence


def score(
    p: Any,
    q: Any = None,
    labels: Any = None,
    *,
    measure: str | None = None,
    from_logits: bool | tuple[bool, bool] = False,
    temperature: float = 1.0,
    normalize: bool = False,
    base: float | None = None,
    eps: float = 0.0,
    invalid: str = "raise",
    out: str | os.PathLike[str] | None = None,
    keys: Sequence[str] = (),
    resume: bool = False,
    report: str | os.PathLike[str] | None = None,
    threads: int | None = None,
    progress: bool = False,
    dask: Any = None,
) -> dict[str, Any]:
    """A value for every row of files, however large, with bounded memory; and a summary of the values.

    Parameters
    ----------
    p, q : path or array_like, of shape (..., n)
        The reference, and what is compared with it; the entropy takes `p` alone. A path of a `.npy` file, a member of an
        archive (``file.npz:name``), a column of a Parquet file or of a folder of such (``file.parquet:column``, lists of
        equal length), or a Zarr array (``store.zarr``, ``store.zarr:name``). A row is a slice along the last axis. An
        operand with one row serves all rows of the other. An integer `p` with one axis fewer than `q` holds labels, for
        measure ``"ce"``.
    labels : path or array_like, of an integer dtype, optional
        The right class of every row, for measure ``"compare"``.
    measure : {"kl", "ce", "js", "entropy", "compare"}, optional
        `kl_divergence`, `cross_entropy`, `js_divergence`, `entropy`, or all the fields of `fastkl.compare`. ``"kl"`` unless
        there are labels, else ``"compare"``.
    from_logits, temperature, normalize, base, eps, invalid
        As in `kl_divergence`. ``invalid="nan"`` counts invalid rows and goes on.
    out : path, optional
        Where the values go, in row order: `.npy` (of the rows' shape; structured for a comparison), `.parquet` (a column a
        field) or `.zarr`. Nothing stands there before all of it does. An existing file is replaced then, a link or an
        input never. Until then there are `out`.partial and `out`.checkpoint beside it.
    keys : sequence of str, default ()
        Columns of `p`, if that is Parquet, to be written beside the values, if `out` is.
    resume : bool, default False
        Go on from the checkpoint of an interrupted run with the same inputs and options, if there is one. The result is the
        same to the byte. If False, a checkpoint is an error, lest work is lost.
    report : path, optional
        Where an HTML page goes: histogram, quantiles, worst rows.
    threads : int, optional
        Most threads to use, as in `kl_divergence`.
    progress : bool, default False
        Draw a bar on standard error (with tqdm).
    dask : distributed.Client or str, optional
        Have the workers of this cluster compute, with the threads that it gave them; an address, or "" for a new cluster on
        this machine. Workers read the files themselves.

    Returns
    -------
    dict
        What `Summary.result` gives, and `seconds`, `rows_per_second`, `bytes_per_second` of this run. Of a comparison, such
        a dict for each field, and beside them `top1_agreement`, and with labels `perplexity_p` and `perplexity_q`; the mean
        of the field `nll_increase`, nll_q - nll_p, is the logarithm of their ratio.

    Raises
    ------
    OSError
        What the system says, with the file's name; `out` that is a link, an input, or being written by another run.
    ValueError
        For damaged files, and files that are changed while they are read, with the file's name and the row; for the first
        invalid row; for a checkpoint of another job; for arguments as in `kl_divergence`.
    TypeError
        For a dtype that fastkl does not compute.
    ImportError
        Where a format or the cluster needs a library that is missing.

    Notes
    -----
    Rows are read into buffers of 2 MB for each thread and operand (Parquet, Zarr, .npz: parts of 16 MB, or a chunk) while
    others are computed. Values are those of the measures, to the bit.

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
    options = Options(measure, from_logits, temperature, normalize, base, eps, invalid, labels=labels is not None)
    count = _kernels.default_threads() if threads is None else _rows._threads(threads)
    run = in_threads(count)
    if dask is not None:
        from .cluster import on_cluster

        run = on_cluster(dask, count)
    if out is None and (resume or keys):
        raise ValueError(f"{'resume' if resume else 'keys'}: only with out")

    with ExitStack() as stack:
        operands = open_operands(options, p, q, labels)
        stack.callback(operands.close)
        Worker(operands, options).check_options()
        inputs = [file for x in operands.all() for file in x.files()]
        if report is not None:
            output.check_place(Path(report), inputs)
            if out is not None:
                output.check_apart(Path(out), Path(report))
        dtype = operands.dtype(options)
        results = Results(dtype.names, base)
        draft = None
        if out is not None:
            write = output.writer(Path(out), inputs, operands.p, keys, dtype, operands.leading)
            job = operands.identity(options) | {"keys": list(keys)}
            draft = stack.enter_context(output.Draft(Path(out), dtype, operands.leading, job, inputs, resume))
            for rows in operands.ranges(0):  # the same updates as before: the summary is the same to the bit
                if rows.stop > draft.rows:
                    break
                results.update(draft.read(rows))
        done = 0 if draft is None else draft.rows
        tell = stack.enter_context(bar(operands.rows, done, operands.row_bytes)) if progress else None

        start = time.perf_counter()
        with closing(run(operands, options, operands.ranges(done))) as computed:
            for values in computed:
                if draft is not None:
                    draft.append(values)
                results.update(values)
                if tell is not None:
                    tell(len(values))
        operands.check(operands.rows, thorough=True)
        seconds = time.perf_counter() - start
        speed = (operands.rows - done) / seconds
        result = results.result(
            {"seconds": seconds, "rows_per_second": speed, "bytes_per_second": speed * operands.row_bytes}
        )
        if report is not None:
            facts = {name: x.name for name, x in operands.named()} | options.facts() | results.facts(result)
            summaries = {name or measure: summary for name, summary in results.summaries.items()}
            units = {name: unit(base) for name in summaries if name != "same_argmax"}
            output.replace(Path(report), html("fastkl score", facts, summaries, units).encode())
        if draft is not None:
            draft.finish(write)
    return result
