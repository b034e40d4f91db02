"""The cases that are measured, a short and a full list of them, and the operands of each. Knows nothing of contenders."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

MEASURES = ("kl_divergence", "cross_entropy", "entropy")
# Other divergences, by their names in tests/support/reference.py: the order of Rényi's is in brackets.
DIVERGENCES = (
    "jeffreys_divergence",
    "renyi_divergence(2.0)",
    "renyi_divergence(0.3)",
    "chi2_divergence",
    "hellinger_distance",
    "total_variation",
    "generalized_kl",
)
# Measures of logits, as models return them: of two matrices, of one, or of one and a label a row.
LOGITS = ("kl_from_logits", "labels_from_logits", "entropy_from_logits", "compare_from_logits")
DTYPES = ("float64", "float32")
HALVES = ("float16", "bfloat16")
COUNTS = ("int64", "int32", "uint8")
# How NumPy arrays hold bfloat16 without ml_dtypes: fastkl reads this dtype, too.
BFLOAT16 = np.dtype([("bfloat16", np.uint16)])
LAYOUTS = {
    "C": "both in C order",
    "F": "both in Fortran order",
    "axis0": "rows along axis 0 of matrices in C order",
    "one_q": "one q for every row of p",
    "one_p": "one p for every row of q",
    "zeros": "half of p's entries zero, and a tenth of q's, among those",
}

# Entries made at a time, so that making a matrix of a gigabyte does not need a second one.
BLOCK = 1 << 20


@dataclass(frozen=True)
class Case:
    """One call that every contender makes. Its text is the benchmark's id."""

    measure: str = "kl_divergence"
    dtype: str = "float64"
    rows: int = 100_000
    columns: int = 1000
    layout: str = "C"
    threads: int = 2

    def __str__(self) -> str:
        return f"{self.measure}-{self.dtype}-{self.rows}x{self.columns}-{self.layout}-{self.threads}threads"

    @property
    def entries(self) -> int:
        """The number of terms of all sums."""
        return self.rows * self.columns

    @property
    def in_cache(self) -> bool:
        """Whether the operands fit in the cache that most CPUs have for one core."""
        return self.entries <= 200_000

    @property
    def repeats(self) -> int:
        """How often a row repeats its beginning, a power of two: one too long for the reference consists of equal parts."""
        repeats = 1
        while self.columns // repeats > BLOCK:
            repeats *= 2
        if self.columns % repeats:
            raise ValueError(f"{self}: rows longer than {BLOCK} must be a multiple of {repeats}")
        return repeats


def _block(rng: np.random.Generator, shape: tuple[int, int], case: Case) -> tuple[Array, Array]:
    """Return weights, floats below 1 or counts from 1 to 99; or normal logits, q's near p's, as two similar models have."""
    dtype: Any = np.float64 if case.dtype == "float64" else np.float32
    if case.measure in LOGITS:
        p, noise = (rng.standard_normal(shape, dtype) for _ in range(2))
        return 4 * p, 4 * p + noise / 4
    p, q = (rng.random(shape, dtype) + np.finfo(dtype).eps for _ in range(2))
    if case.dtype in COUNTS:
        return 1 + np.floor(p * 98), 1 + np.floor(q * 98)
    if case.layout == "zeros":
        gone = rng.random(shape, np.float32) < 0.5
        p[gone] = 0
        q[gone & (rng.random(shape, np.float32) < 0.2)] = 0  # elsewhere a zero would make the row's D infinite
    return p, q


def operands(case: Case, seed: int = 1) -> tuple[Array, ...]:
    """Return the operands of the case's measure: matrices of random rows along axis 1, always the same; labels come first.

    In the layouts `one_q` and `one_p`, the single row has the shape (1, columns).
    """
    names = "p" if case.measure in ("entropy", "entropy_from_logits", "labels_from_logits") else "pq"
    shapes = [(1 if case.layout == f"one_{name}" else case.rows, case.columns) for name in names]
    held = BFLOAT16 if case.dtype == "bfloat16" else case.dtype
    kind: Any = {"dtype": held, "order": "F" if case.layout in ("F", "axis0") else "C"}
    made = tuple(np.empty(shape, **kind) for shape in shapes)
    width = case.columns // case.repeats
    step = max(1, BLOCK // width)
    for start in range(0, case.rows, step):
        rng = np.random.default_rng([seed, start])
        rows = min(step, case.rows - start)
        for matrix, block in zip(made, _block(rng, (rows, width), case), strict=False):
            if case.dtype not in COUNTS and case.measure not in LOGITS:
                block /= block.sum(axis=1, keepdims=True) * case.repeats
            if held is BFLOAT16:
                block = ((block.view("u4") + 0x8000) >> 16).astype("u2").view(held)  # rounded
            target = matrix[start : start + rows]
            for i in range(0, case.columns, width):
                target[:, i : i + width] = block[: len(target)]
    if case.measure == "labels_from_logits":
        return np.random.default_rng(seed).integers(width, size=case.rows), *made
    return made


def _each(**axes: tuple[Any, ...]) -> list[Case]:
    """Return a case for every combination, in order."""
    combinations: list[dict[str, Any]] = [{}]
    for name, values in axes.items():
        combinations = [{**combination, name: value} for combination in combinations for value in values]
    return [Case(**combination) for combination in combinations]


# A few minutes on two cores. Out of cache: 160 and 80 MB a matrix.
SHORT = [
    *_each(dtype=DTYPES, measure=MEASURES, rows=(20_000,)),
    *_each(dtype=DTYPES, measure=("kl_divergence", "cross_entropy"), rows=(100,), threads=(1,)),
    *_each(dtype=("float32",), measure=LOGITS, rows=(20_000,)),
    *_each(measure=("kl_from_logits",), rows=(20_000,)),
    *_each(dtype=("float32",), measure=("kl_from_logits",), rows=(200,), columns=(131_072,)),
    *_each(dtype=DTYPES, measure=LOGITS, rows=(100,), threads=(1,)),
]

# The cases of the project's speed goals: gigabytes, and most of an hour.
FULL = [
    *_each(dtype=DTYPES, measure=MEASURES, threads=(1, 2)),
    *_each(dtype=DTYPES, measure=MEASURES, rows=(100,), threads=(1,)),
    *_each(dtype=DTYPES, rows=(5_000_000,), columns=(10,)),
    *_each(dtype=DTYPES, rows=(1_000_000,), columns=(50,)),
    *_each(dtype=DTYPES, rows=(1,), columns=(100_000_000,)),
    *_each(dtype=("float32",), measure=MEASURES, rows=(4_000,), columns=(131_072,)),
    *_each(dtype=DTYPES, layout=("F", "axis0", "one_q", "one_p", "zeros")),
    *_each(rows=(1,), columns=(10,), threads=(1,)),
    *_each(dtype=DTYPES, measure=LOGITS, rows=(200_000,)),
    *_each(dtype=("float32",), measure=LOGITS, rows=(2_000,), columns=(131_072,)),
    *_each(measure=("kl_from_logits", "labels_from_logits"), rows=(2_000,), columns=(131_072,)),  # others need 20 GB
    *_each(dtype=DTYPES, measure=LOGITS, rows=(100,), threads=(1,)),
]
