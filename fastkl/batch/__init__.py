"""Rows from files that are larger than memory, scored by threads of this process or by the workers of a cluster.

The modules meet in job.py, and each of them opens by saying what it owns. The package stands above the measures, beside
`compat`; nothing below imports it. Libraries are imported when a format or a cluster needs them.
"""

from .job import score
from .summary import Summary

__all__ = ["Summary", "score"]
