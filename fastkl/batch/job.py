"""`score`: opens the sources, has their rows computed in order, and writes the summary and the file. All parts meet."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any, Literal

from .._build import default_workers
from ..call import check_threads
from ..topk import TopK
from . import writers
from .conditions import Condition, failures
from .files import check_apart, check_place, replace
from .operands import open_clusters, open_operands
from .output import Draft
from .progress import bar
from .readers import TopKFiles, own_labels
from .report import html
from .results import SPEED, Results, main_of, models_of
from .scoring import WITH_LABELS, Options, unit
from .text import joint, notes, speed
from .workers import Run, Worker, ignored_rows, in_threads
from .worst_rows import describe


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
    columns: int | None = None,
    invalid: str = "raise",
    ignore_index: int | None = None,
    out: str | os.PathLike[str] | None = None,
    keys: Sequence[str] = (),
    resume: bool = False,
    report: str | os.PathLike[str] | None = None,
    cluster_by: Any = None,
    fail_if: Sequence[str] = (),
    top: int | None = None,
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
        (``file.parquet:column``, lists of equal length), of a Zarr array (``store.zarr``, ``store.zarr:name``), of a tensor
        (``file.safetensors:name``, or ``model.safetensors.index.json:name``, which says in which file it is), or of a file
        that llama.cpp wrote (``file.kld``): its rows are log-probabilities, whatever `from_logits` says. Arrays may be
        a TopK.
    q : path or array_like, or a dict of them, optional
        The distributions that `p` is compared with, of the same shape; measures ``"entropy"`` and ``"nll"`` take none. If
        one operand has a single row, that row serves all rows of the other. A dict has several, of as many models, by their
        names; `p` is read once for all.
    labels : path or array_like of int, optional
        The class of every row, for measures ``"compare"`` and ``"nll"``. None means those of a ``.kld`` file, if `p` or `q`
        is one; ``file.kld:labels`` is their own path.
    measure : str, optional
        ``"kl"``, ``"ce"`` or ``"js"`` for `kl_divergence`, `cross_entropy` or `js_divergence`; ``"nll"`` for that of labels
        and the rows of `p`; ``"compare"`` for all fields of `compare`; the name of the function for `entropy`,
        `hellinger_distance`, `total_variation`, `chi2_divergence`, `renyi_divergence`, `jeffreys_divergence` and
        `generalized_kl`. None means ``"compare"`` with labels, else ``"kl"``. An option that the function of a measure does
        not take is an error.
    from_logits : {False, True, "p", "q"}, default False
        Which operands hold logits: none, both, or the one that is named. Those of ``.kld`` files always do.
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
    columns : int, optional
        How many columns to use, of the first of `p` and of `q`: a vocabulary can be padded to two different widths.
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
        The file of an HTML page: a table of the models, histograms, the rows that diverge most, and all statistics.
    cluster_by : path or array_like of int, optional
        The cluster of every row, such as the number of its document: any integers. Standard errors then allow for the
        correlation of rows in a cluster; each field has the number of `clusters`. Memory: 16 bytes a cluster and field.
    fail_if : sequence of str, default ()
        Conditions under which the model fails, such as ``"kl.mean>0.06"`` or ``"top1_agreement<0.9"``: the keys of a number
        in the result, joined by dots, then >, >=, < or <=, and a number. A number that is not finite fails, too.
    top : int, optional
        How many of the rows with the largest values (in a comparison, of `kl`) to describe: `top` in the result is a list
        of dicts with `row`, `value`, the `label`, and the places of the largest entries, `argmax_p` and `argmax_q`. A
        report has ten of them where this does not say otherwise.
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
        in the same place, and with labels `perplexity_p`, `perplexity_q` and `perplexity_ratio` (q's divided by p's), each
        with its standard error (`perplexity_p_stderr`, ...), and `ln_ppl_correlation`, Pearson's correlation of the losses.
        Then there are two more fields: `nll_increase`, nll_q - nll_p, whose mean is the logarithm of the ratio, and
        `delta_p`, exp(-nll_q) - exp(-nll_p), by how much q raises the label's probability, with its root mean square `rms`.
        With a dict `q` the result is ``{"models": [...], "paired": [...]}``: for each model such a dict, with its name `q`,
        and for each two models a dict with their names `q` and the `mean` of the differences of their values in each row,
        first minus second, its `stderr`, and the number of `rows` where it is finite; of a comparison, for each field.
        With `fail_if`, `failed` lists the conditions that are met, with the number. `notes`, where a ``.kld`` file is read,
        has a dict for ``"p"`` or ``"q"`` or both: `rows`, how many have entries 16 or more below the largest, of which only
        that is stored, and a `text` that says how these are read.

    Raises
    ------
    InvalidRowError
        For the first invalid row, if `invalid` is "raise". The message begins with the file's name, and `index` is the
        place in the whole operand.
    OSError
        For an error of the system, with the file's name; for an `out` that is a link, an input, or written by another run.
    ValueError
        For damaged files and files that are changed while they are read, with the file's name and the row; for a checkpoint
        of another job; for a condition that names no number of the result, before a row is read; for arguments out of their
        range and shapes that do not fit.
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
    >>> result = fastkl.score(p, {"same": p, "other": q}, base=2, fail_if=["kl.mean>0.05"])
    >>> [(model["q"], model["mean"], model["failed"]) for model in result["models"]]
    [('same', 0.0, []), ('other', 0.0943..., ['kl.mean>0.05: kl.mean is 0.0943609'])]
    >>> result["paired"]
    [{'q': ['same', 'other'], 'rows': 2, 'mean': -0.0943..., 'stderr': 0.0943...}]
    >>> folder.cleanup()
    """
    if labels is None and measure in (None, *WITH_LABELS) and not isinstance(p, (TopK, TopKFiles)):
        labels = own_labels(p, *(q.values() if isinstance(q, Mapping) else [q]))
    measure = ("kl" if labels is None else "compare") if measure is None else measure
    options = Options(
        measure,
        from_logits,
        temperature,
        normalize,
        base,
        eps,
        alpha,
        invalid,
        ignore_index,
        labels is not None,
        columns,
        tuple(q) if isinstance(q, Mapping) else (),
    )
    conditions = [Condition.of(text) for text in fail_if]
    if isinstance(q, Mapping) and not q:
        raise ValueError("q: must name at least one model")
    count = default_workers() if threads is None else check_threads(threads)
    run: Run = partial(in_threads, count)
    if dask is not None:
        from .cluster import on_cluster

        run = on_cluster(dask, count)
    if out is None and (resume or keys):
        raise ValueError(f"{'resume' if resume else 'keys'}: only with out")

    with ExitStack() as stack:
        of_models = zip(options.q_names.values(), q.values() if options.models else [q], strict=True)
        given = {name: x for name, x in (("p", p), *of_models, ("labels", labels)) if x is not None}
        operands = stack.enter_context(closing(open_operands(options, given)))
        options = operands.options(options)
        Worker(operands, options).check_options()
        clusters = None if cluster_by is None else stack.enter_context(closing(open_clusters(cluster_by, operands)))
        inputs = [path for x in (*operands.values(), *([clusters] if clusters else [])) for path in x.paths]
        if report is not None:
            check_place(Path(report), inputs)
            if out is not None:
                check_apart(Path(out), Path(report))
        dtype = operands.dtype(options)
        results = Results(dtype, base, options.models, clusters is not None, top)
        for model in models_of(results.result(dict.fromkeys(SPEED, math.nan))).values():
            failures(conditions, measure, model)  # raises for fields that no result has

        def add(rows: range, values: Any, ignored: Any) -> None:
            of = None if clusters is None else clusters.get(rows.start, rows.stop)[:, 0]
            results.update(values, ignored, of)

        draft = None
        if out is not None:
            check_place(Path(out), inputs, folder=Path(out).suffix == ".zarr")
            write = writers.find(Path(out), operands["p"], keys, dtype, operands.leading)
            job = operands.identity(options) | {"keys": list(keys)}
            draft = stack.enter_context(Draft(Path(out), dtype, operands.leading, job, resume))
            for rows in operands.ranges(0):  # the same updates as in the first run: the summary has the same bits
                if rows.stop > draft.rows:
                    break
                add(rows, draft.read(rows), ignored_rows(operands, options, rows))
        done = 0 if draft is None else draft.rows
        tell = stack.enter_context(bar(operands.rows, done, operands.row_bytes)) if progress else None

        start = time.perf_counter()
        with closing(run(operands, options, operands.ranges(done))) as computed:
            at = done
            for values, ignored in computed:
                if draft is not None:
                    draft.append(values)
                add(range(at, at + len(values)), values, ignored)
                at += len(values)
                if tell is not None:
                    tell(len(values))
        operands.check(operands.rows, thorough=True)
        if clusters is not None:
            clusters.check(operands.rows, thorough=True)
        seconds = time.perf_counter() - start
        if draft is not None:
            draft.finish(write)  # first: nothing that fails later may take the values away
        rate = (operands.rows - done) / seconds if seconds else math.inf
        result = results.result(dict(zip(SPEED, (seconds, rate, rate * operands.row_bytes), strict=True)))
        models = models_of(result)
        for model, of in zip(models.values(), options.q_names.values(), strict=True):
            if found := operands.notes(of):
                model["notes"] = found
        if top is not None or report is not None:
            worst = [main_of(model)["worst"] for model in models.values()]
            for model, described in zip(models.values(), describe(operands, options, worst), strict=True):
                model["top"] = described
        for model in models.values() if conditions else ():
            model["failed"] = failures(conditions, measure, model)
        if report is not None:
            facts = {name: x.name for name, x in operands.items()} | options.facts()
            facts |= {} if clusters is None else {"clusters": clusters.name}
            replace(Path(report), _page(facts, options, results, result).encode())
            for model in models.values() if top is None else ():
                del model["top"]  # which only the report has
    return result


def _page(facts: dict[str, str], options: Options, results: Results, result: dict[str, Any]) -> str:
    """The report of the result, after the facts of the run."""
    facts |= dict([*joint(result), *notes(models_of(result)), *speed(next(iter(models_of(result).values())))])
    summaries = {name: model.summaries for name, model in results.models.items()}
    fields = {field for of in summaries.values() for field in of if field}
    units = {field: unit(field, options.base) for field in (options.measure, *sorted(fields))}
    return html("fastkl score", facts, result, summaries, units)
