"""Models compared from their hidden states, without logits in memory or in files: `python examples/lm_head.py`.

The last layer of a language model, `lm_head` in transformers, makes a row of logits, as wide as the vocabulary, from a
hidden state, which is much narrower in a large model. Here it multiplies a block of hidden states at a time, and the logits
of the block are compared at once. The models are those of stored_logits.py. It needs scikit-learn and safetensors.
"""

from __future__ import annotations

import tracemalloc
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from stored_logits import IGNORED, inputs, sequences, trained, weights

import fastkl

if TYPE_CHECKING:
    Array = np.ndarray[Any, Any]

BLOCK = 1_000  # rows
FIELDS = ("kl", "same_argmax", "nll_q")


class Model(NamedTuple):
    """What a model leaves to be multiplied."""

    hidden: Array  # rows x width
    head: Array  # width x vocabulary
    bias: Array

    def logits(self, rows: slice) -> Array:
        """The logits of these rows."""
        product = self.hidden[rows] @ self.head
        product += self.bias
        return product


def models() -> tuple[dict[str, Model], Array]:
    """The models by name, and a label for each row."""
    network = trained()
    characters, labels = sequences(1)
    known = labels != IGNORED
    seen = inputs(characters)[known]
    first_bias, bias = network.intercepts_
    found = {
        name: Model(np.maximum(seen @ first + first_bias, 0), head, bias)
        for name, (first, head) in weights(network).items()
    }
    return found, labels[known]


def summaries(
    full: Model, others: dict[str, Model], labels: Array, block: int = BLOCK
) -> dict[str, dict[str, fastkl.Summary]]:
    """For each of the other models, the summary of each field of its comparison with the full one."""
    found = {name: {field: fastkl.Summary() for field in FIELDS} for name in others}
    for first in range(0, len(labels), block):
        rows = slice(first, first + block)
        p = full.logits(rows)
        for name, model in others.items():
            result = fastkl.compare(p, model.logits(rows), labels[rows], from_logits=True)
            for field, summary in found[name].items():
                summary.update(getattr(result, field))
    return found


def peak(full: Model, others: dict[str, Model], labels: Array, block: int) -> int:
    """The most memory that the comparison takes at any time, in bytes."""
    tracemalloc.start()
    summaries(full, others, labels, block)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return most


def main() -> None:
    """Print the comparison, and the memory that it takes."""
    others, labels = models()
    full = others.pop("full")
    for name, fields in summaries(full, others, labels).items():
        kl, same, loss = (fields[field].result() for field in FIELDS)
        print(
            f"{name}  KL {kl['mean']:.3e} ± {kl['stderr']:.1e} nats, largest {kl['max']:.2e}, "
            f"same character {same['mean']:.2%}, perplexity {np.exp(loss['mean']):.4f}"
        )
    stored = (1 + len(others)) * len(labels) * full.head.shape[1] * full.head.itemsize
    print(f"\nlogits of all models  {stored / 1e6:5.1f} MB")
    for block in BLOCK, len(labels):
        print(f"blocks of {block:6,} rows {peak(full, others, labels, block) / 1e6:5.1f} MB")


if __name__ == "__main__":
    main()
