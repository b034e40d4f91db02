"""A classifier compared with itself after its weights are rounded: `python examples/quantised_digits.py`.

It trains scikit-learn's MLPClassifier on its digits, rounds the weights of every layer to 8 and to 4 bits, and compares the
logits of the networks for digits that were not used in training, with `fastkl.compare`. It needs scikit-learn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

import fastkl

if TYPE_CHECKING:
    Array = np.ndarray[Any, Any]

BITS = (8, 4)
WORST = 3  # rows shown


def trained() -> tuple[MLPClassifier, Array, Array]:
    """A network, and images and labels that were not used in its training."""
    images, labels = load_digits(return_X_y=True)
    seen, held_out, seen_labels, held_out_labels = train_test_split(images / 16, labels, test_size=0.5, random_state=0)
    network = MLPClassifier((64, 32), max_iter=400, random_state=0).fit(seen, seen_labels)
    return network, held_out, held_out_labels


def logits(weights: list[Array], biases: list[Array], images: Array) -> Array:
    """The outputs of the last layer, before the softmax of scikit-learn's predict_proba."""
    outputs = images
    for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        outputs = (outputs if layer == 0 else np.maximum(outputs, 0)) @ weight + bias
    return outputs


def rounded(weights: Array, bits: int) -> Array:
    """The nearest of 2^bits - 1 equidistant numbers that are symmetric about 0 and end at the largest weight."""
    step = np.abs(weights).max() / (2 ** (bits - 1) - 1)
    return step * np.rint(weights / step)


def comparisons() -> dict[int, tuple[Array, Array, Array, fastkl.Comparison]]:
    """For each number of bits: logits of the full weights, logits of the rounded ones, labels, and how the two compare."""
    network, images, labels = trained()
    weights, biases = network.coefs_, network.intercepts_
    full = logits(weights, biases, images)
    found = {}
    for bits in BITS:
        quantised = logits([rounded(weight, bits) for weight in weights], biases, images)
        found[bits] = full, quantised, labels, fastkl.compare(full, quantised, labels, from_logits=True)
    return found


def main() -> None:
    """Print the comparison."""
    found = comparisons()
    _, _, labels, same = found[BITS[0]]
    print(f"{len(labels)} digits held out, perplexity of the full weights {np.exp(same.nll_p.mean()):.4f}")
    for bits, (full, quantised, _, result) in found.items():
        print(f"\nweights of {bits} bits")
        print(f"  mean KL      {result.kl.mean():.2e} nats, largest {result.kl.max():.2e}")
        print(f"  perplexity   {np.exp(result.nll_q.mean()):.4f}")
        print(f"  same digit   {result.same_argmax.mean():.2%}")
        for row in np.argsort(result.kl)[: -WORST - 1 : -1]:
            print(
                f"  row {row:3}, digit {labels[row]}: full {full[row].argmax()}, rounded {quantised[row].argmax()}, "
                f"KL {result.kl[row]:.2e}, Jensen-Shannon {result.js[row]:.2e}"
            )


if __name__ == "__main__":
    main()
