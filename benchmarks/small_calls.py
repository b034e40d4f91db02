"""The time of a small call against NumPy's expression: `python benchmarks/small_calls.py [TURNS]`, 200 turns by default.

Prints medians of calls on 1 x 10, made in turn, and their ratios to the time of `(p * np.log(p / q)).sum()`, which neither
checks its rows nor is right for zeros. With from_logits=True, fastkl gets the logits of the same rows.
"""

from __future__ import annotations

import sys

import numpy as np
from measuring import seconds

import fastkl

NUMPY, FASTKL, AGAIN, LOGITS = "NumPy", "fastkl", "fastkl again", "fastkl from_logits"
# The largest ratios that are accepted, in float64.
GOALS = {FASTKL: 0.8, LOGITS: 1.2}


def main() -> None:
    """Print the table."""
    turns = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    for dtype in "float64", "float32":
        x, y = np.random.default_rng(1).standard_normal((2, 1, 10)).astype(dtype)
        p, q = (np.exp(z) / np.exp(z).sum() for z in (x, y))
        times = seconds(
            {
                NUMPY: lambda p=p, q=q: (p * np.log(p / q)).sum(),
                FASTKL: lambda p=p, q=q: fastkl.kl_divergence(p, q),
                AGAIN: lambda p=p, q=q: fastkl.kl_divergence(p, q),
                LOGITS: lambda x=x, y=y: fastkl.kl_divergence(x, y, from_logits=True),
            },
            turns,
        )
        for name, time in times.items():
            goal = f", goal at most {GOALS[name]}" if name in GOALS and dtype == "float64" else ""
            print(f"{dtype} {name:19} {time * 1e6:6.2f} us, {time / times[NUMPY]:5.2f} of NumPy's{goal}")


if __name__ == "__main__":
    main()
