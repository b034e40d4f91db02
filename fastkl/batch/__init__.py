"""Rows from files that are larger than memory, scored by threads here or by a cluster's workers.

    command.py    the verb `fastkl score`
    job.py        `score`, a run: where the parts below meet
    operands.py   sources, opened together and cut into parts
    sources.py    what a reader of a format promises; the formats: npy.py, parquet.py, zarr_arrays.py
                  (parquet_headers.py: what pyarrow must not be asked before it is checked)
    workers.py    threads that read and compute parts (cluster.py: a Dask cluster's workers)
    scoring.py    options, and the measures of a block of rows
    output.py     values on their way to a file; checkpoints
    summary.py    `Summary`; results.py has them for all fields of a run, report.py as a page, progress.py the bar

Stands above the measures, beside `compat`; nothing below knows of it. Libraries for formats and clusters are imported
where they are asked for.
"""

from .job import score
from .summary import Summary

__all__ = ["Summary", "score"]
