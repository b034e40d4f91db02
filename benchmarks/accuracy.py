"""The accuracy of fastkl and others on hard rows: `python benchmarks/accuracy.py [--rows N] [--close N]`.

With fastkl installed. Prints, for every tier, dtype and measure, the worst error over N rows of every kind in
tests/support/rows.py, and the row that causes it; then how many of a million close rows have a negative divergence, and of
a million equal rows one that is not 0. The others get normalised rows. Errors are defined in tests/support/reference.py.
Rényi's divergence is computed with every alpha that stands there. Exits with 1 if fastkl misses a bound.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import warnings
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fastkl import _kernels

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support import reference, rows
from support.measures import DIVERGENCES, EVERY, accepted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Array = np.ndarray[Any, Any]
    Function = Callable[..., Array]

DTYPES = ("float64", "float32")
CLOSE_GENERATORS = ("close", "slack", "one_unit", "mismatched", "proportional")
CLOSE_WIDTHS = (2, 7, 32, 100)
CLOSE_BLOCK = 10_000


@dataclass
class Tally:
    """The counts and the worst error of a contender's results."""

    rows: int = 0
    held: int = 0
    negative: int = 0
    nan: int = 0
    worst: float = 0.0
    worst_row: str = ""

    def add(self, measure: str, values: Array, exact: reference.DoubleDouble, batch: rows.Rows) -> None:
        """Include these results."""
        errors = reference.error(measure, values, exact)
        self.rows += len(values)
        self.held += int(np.sum(errors <= reference.DEFINITIONS[measure].bounds(batch.p, batch.q)))
        self.negative += int(np.sum(values < 0))
        self.nan += int(np.sum(np.isnan(values)))
        errors[(values < 0) | np.isnan(values)] = 0
        i = int(np.argmax(errors))
        if errors[i] > self.worst:
            self.worst = float(errors[i])
            self.worst_row = f"{values[i]!s}, should be {exact.high[i]!s}: row {i} of {batch.source}"

    def __str__(self) -> str:
        return (
            f"worst {self.worst:8.3g}   within the bound {self.held / self.rows:8.3%}   "
            f"negative {self.negative:6}   NaN {self.nan:6}"
        )


def with_tier(tier: str, function: Function, *operands: Array) -> Array:
    """Return the function's results, computed with a tier."""
    _kernels.use_tier(tier)
    return function(*operands, **accepted(function, normalize=True))


def normalised(function: Function, *operands: Array) -> Array:
    """Return the function's results, in the operands' dtype, for rows that NumPy has normalised."""
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        values = function(*(x / x.sum(axis=1, keepdims=True) for x in operands))
    return np.asarray(values, operands[0].dtype)


def others() -> dict[str, dict[str, Function]]:
    """Return every contender's measures, as functions of operands; none of a contender that is not installed."""
    found: dict[str, dict[str, Function]] = {
        "numpy": {
            "entropy": lambda p: -(p * np.log(p)).sum(1),
            "cross_entropy": lambda p, q: -(p * np.log(q)).sum(1),
            "kl_divergence": lambda p, q: (p * np.log(p / q)).sum(1),
            "js_divergence": lambda p, q: (p * np.log(2 * p / (p + q)) + q * np.log(2 * q / (p + q))).sum(1) / 2,
            "jeffreys_divergence": lambda p, q: ((p - q) * np.log(p / q)).sum(1),
            "hellinger_distance": lambda p, q: np.sqrt(((np.sqrt(p) - np.sqrt(q)) ** 2).sum(1) / 2),
            "total_variation": lambda p, q: np.abs(p - q).sum(1) / 2,
            "chi2_divergence": lambda p, q: ((p - q) ** 2 / q).sum(1),
            "renyi_divergence(2.0)": lambda p, q: np.log((p**2 / q).sum(1)),
        },
        "scipy": {},
        "numkong": {},
    }
    if find_spec("scipy"):
        stats = import_module("scipy.stats")
        found["scipy"] = dict.fromkeys(("entropy", "kl_divergence"), partial(stats.entropy, axis=1))
        found["scipy"]["js_distance"] = partial(import_module("scipy.spatial.distance").jensenshannon, axis=1)
    if find_spec("numkong"):
        numkong = import_module("numkong")
        found["numkong"] = {"kl_divergence": numkong.kullbackleibler, "js_distance": numkong.jensenshannon}
    return found


def batches(dtype: str, least: int) -> Iterator[rows.Rows]:
    """Return rows of every kind and width: wide ones of one seed, the others of as many seeds as it takes."""
    for generator in rows.WIDE_GENERATORS:
        yield from rows.batches(generator, dtype, dict.fromkeys(rows.WIDE, 1))
    count = 0
    for seed in itertools.count():
        for generator in rows.GENERATORS:
            for batch in rows.batches(generator, dtype, rows.WIDTHS, seed):
                count += len(batch.p)
                yield batch
        if count >= least:
            return


def compare(dtype: str, least: int) -> bool:
    """Print every contender's tallies; return whether fastkl has kept its bound."""
    names = [measure.__name__ for measure in EVERY]
    contenders = {f"fastkl {tier}": {m.__name__: partial(with_tier, tier, m) for m in EVERY} for tier in _kernels.tiers()}
    contenders |= {name: {m: partial(normalised, f) for m, f in functions.items()} for name, functions in others().items()}
    tallies = {(name, measure): Tally() for name, functions in contenders.items() for measure in functions}
    for batch in batches(dtype, least):
        for measure in names:
            operands = reference.operands(measure, batch.p, batch.q)
            exact = reference.evaluate(measure, *operands)
            for name, functions in contenders.items():
                if measure in functions:
                    given = (batch.p, batch.q) if name.startswith("fastkl") else operands
                    tallies[name, measure].add(measure, functions[measure](*given), exact, batch)
    for measure in names:
        definition = reference.DEFINITIONS[measure]
        print(f"\n{dtype} {measure}, {tallies[next(iter(contenders)), measure].rows} rows, bound {definition.bound}")
        for name, functions in contenders.items():
            if measure in functions:
                print(f"  {name:16} {tallies[name, measure]}\n{'':19}{tallies[name, measure].worst_row}")
            elif not functions:
                print(f"  {name:16} not installed")
    return all(tally.held == tally.rows for (name, _), tally in tallies.items() if name.startswith("fastkl"))


def count_signs(dtype: str, least: int) -> bool:
    """Print how many divergences of close rows are negative or NaN and of equal rows are not 0; return whether none is."""
    found = {tier: [0, 0, 0] for tier in _kernels.tiers()}
    kinds = itertools.cycle(itertools.product(CLOSE_GENERATORS, CLOSE_WIDTHS))
    for seed, (generator, n) in zip(range(least // CLOSE_BLOCK), kinds, strict=False):
        batch = rows.make(generator, dtype, (CLOSE_BLOCK, n), seed)
        for tier, counts in found.items():
            for divergence in DIVERGENCES:
                close = with_tier(tier, divergence, batch.p, batch.q)
                equal = with_tier(tier, divergence, batch.q, batch.q.copy())
                for i, bad in enumerate((np.signbit(close), np.isnan(close), equal != 0)):
                    counts[i] += int(bad.sum())
    print(f"\n{dtype}, {least} close rows and as many equal ones")
    for tier, (negative, nan, unequal) in found.items():
        print(f"  fastkl {tier:9} negative {negative}   NaN {nan}   equal but not 0 {unequal}")
    return not any(map(any, found.values()))


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description="The accuracy of fastkl, NumPy, SciPy and NumKong on hard rows.")
    parser.add_argument("--rows", type=int, default=20_000, help="rows for every tier, dtype and measure, at least")
    parser.add_argument("--close", type=int, default=1_000_000, help=f"close rows, a multiple of {CLOSE_BLOCK}")
    options = parser.parse_args()
    kept = [check for dtype in DTYPES for check in (compare(dtype, options.rows), count_signs(dtype, options.close))]
    return 0 if all(kept) else 1


if __name__ == "__main__":
    sys.exit(main())
