"""Features that drift, and when they do: `python examples/drift.py [ROWS]`, a million rows by default.

Rows are drawn from scikit-learn's measurements of breast tumours: before, all alike; now, batch by batch, large tumours
more often. Each feature is cut into ten bins at the deciles of the rows before. The counts of its bins before and now are
compared by the population stability index (PSI), the Jensen-Shannon and the Kullback-Leibler divergence. It needs
scikit-learn.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from sklearn.datasets import load_breast_cancer

import fastkl

if TYPE_CHECKING:
    Array = np.ndarray[Any, Any]

ROWS, BATCH, BINS = 1_000_000, 1_000, 10
FEATURES = 10  # the means of a tumour's cells, of which the first is that of the radius
HALF_A_ROW = 0.5  # what an empty bin counts as: PSI and KL would be infinite otherwise
THRESHOLDS, VERDICTS = (0.1, 0.25), ("stable", "moderate drift", "major drift")


class Drift(NamedTuple):
    """The counts, and the measures of each feature: over all rows, and PSI of every batch."""

    names: list[str]
    before: Array  # features x bins
    now: Array  # batches x features x bins
    psi: Array
    js: Array
    kl: Array
    psi_of_batches: Array  # batches x features
    seconds: dict[str, float]


def drawn(tumours: Array, batches: int, most: float, seed: int) -> Array:
    """Batches of tumours, with replacement; `most` says how much the last batch prefers large ones."""
    rng = np.random.default_rng(seed)
    rows = np.empty((batches, BATCH, FEATURES))
    sizes = (tumours[:, 0] - tumours[:, 0].mean()) / tumours[:, 0].std()
    for i, preference in enumerate(np.linspace(0, most, batches)):
        weights = np.exp(preference * sizes)
        rows[i] = tumours[rng.choice(len(tumours), BATCH, p=weights / weights.sum())]
    return rows


def counted(rows: Array, edges: Array) -> Array:
    """The number of rows in each bin: batches x features x bins."""
    batches = len(rows)
    counts = np.empty((batches, len(edges), BINS), int)
    first_bins = BINS * np.arange(batches)[:, np.newaxis]
    for feature, cuts in enumerate(edges):
        bins = first_bins + np.searchsorted(cuts, rows[..., feature], side="right")
        counts[:, feature] = np.bincount(bins.ravel(), minlength=batches * BINS).reshape(batches, BINS)
    return counts


def drift(rows: int = ROWS) -> Drift:
    """Draw that many rows before and now, and compare them."""
    data = load_breast_cancer()
    names, tumours = data.feature_names[:FEATURES].tolist(), data.data[:, :FEATURES]
    before, now = (drawn(tumours, max(1, rows // BATCH), most, seed) for seed, most in enumerate((0, 1)))
    times = [time.perf_counter()]
    edges = np.quantile(before, np.arange(1, BINS) / BINS, axis=(0, 1)).T
    before, now = counted(before, edges).sum(0), counted(now, edges)
    times.append(time.perf_counter())
    whole = now.sum(0)
    psi = fastkl.jeffreys_divergence(before, whole, normalize=True, eps=HALF_A_ROW)
    js = fastkl.js_divergence(before, whole, normalize=True)
    kl = fastkl.kl_divergence(before, whole, normalize=True, eps=HALF_A_ROW)
    times.append(time.perf_counter())
    psi_of_batches = fastkl.jeffreys_divergence(before, now, normalize=True, eps=HALF_A_ROW)
    times.append(time.perf_counter())
    seconds = dict(zip(("binning", "all rows", "batches"), np.diff(times).tolist(), strict=True))
    return Drift(names, before, now, psi, js, kl, psi_of_batches, seconds)


def main(rows: int = ROWS) -> None:
    """Print the table."""
    found = drift(rows)
    print(f"{found.before[0].sum():,} rows before, and as many now in {len(found.now):,} batches\n")
    print("feature                    PSI       JS       KL  verdict         batches of major drift")
    above = found.psi_of_batches > THRESHOLDS[-1]
    for i, name in enumerate(found.names):
        verdict = VERDICTS[np.digitize(found.psi[i], THRESHOLDS)]
        since = f"{above[:, i].sum():,}, the first is {above[:, i].argmax():,}" if above[:, i].any() else "none"
        print(f"{name:22} {found.psi[i]:7.4f}  {found.js[i]:7.5f}  {found.kl[i]:7.5f}  {verdict:14}  {since}")
    took = {name: f"{1000 * seconds:,.2f} ms" for name, seconds in found.seconds.items()}
    print(f"\nbinning {took['binning']}; three measures of all rows {took['all rows']}; PSI of batches {took['batches']}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
