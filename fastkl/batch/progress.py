"""A progress bar on standard error."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_FORM = "{percentage:3.0f}% |{bar}| {n_fmt}/{total_fmt} rows, {rate_fmt}{postfix}, {remaining} left"


@contextmanager
def bar(total: int, done: int, row_bytes: int) -> Iterator[Callable[[int], None]]:
    """A function that adds rows to the bar, which begins at `done`. tqdm draws it; without tqdm, one line says so."""
    try:
        from tqdm import tqdm
    except ImportError:
        print("fastkl: install fastkl[score] for a progress bar", file=sys.stderr)
        yield lambda rows: None
        return
    with tqdm(total=total, initial=done, unit=" rows", unit_scale=True, bar_format=_FORM, leave=False) as drawn:

        def tell(rows: int) -> None:
            rate = drawn.format_dict["rate"] or 0.0
            drawn.set_postfix_str(f"{rate * row_bytes / 1e9:.2f} GB/s", refresh=False)
            drawn.update(rows)

        yield tell
