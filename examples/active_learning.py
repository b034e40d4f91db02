"""Which images should be labelled next? `python examples/active_learning.py [SPLITS]`, six splits by default.

A classifier of scikit-learn's digits begins with 20 labels. In each round it is given 20 more, and a strategy picks their
images: at random; those whose predicted probabilities have the largest entropy; or those that a committee of classifiers
disagrees about most. Its accuracy is that for images that are never picked. Every strategy begins with the same images of
the same splits, so their differences are means of pairs. It needs scikit-learn.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits  # it comes with scikit-learn

import fastkl

if TYPE_CHECKING:
    from collections.abc import Callable

    Array = np.ndarray[Any, Any]
    Strategy = Callable[[LogisticRegression, Array, Array, Array, np.random.Generator], Array]

SPLITS = 6
HELD_OUT = 800  # images of each split that measure the accuracy
BATCH, ROUNDS = 20, 10  # labels of a round, the first included
MEMBERS = 4
SHOWN = (20, 40, 60, 100, 140, 200)  # labels


def fitted(images: Array, labels: Array) -> LogisticRegression:
    """The classifier that has learned these labels."""
    return LogisticRegression(C=10, max_iter=1000).fit(images, labels)


def at_random(classifier: LogisticRegression, images: Array, labels: Array, pool: Array, rng: np.random.Generator) -> Array:
    """The same chance for each image of the pool."""
    return rng.random(len(pool))


def entropies(classifier: LogisticRegression, images: Array, labels: Array, pool: Array, rng: np.random.Generator) -> Array:
    """The entropy of the probabilities that the classifier predicts for each image of the pool."""
    return fastkl.entropy(classifier.predict_proba(pool))


def disagreement(
    classifier: LogisticRegression, images: Array, labels: Array, pool: Array, rng: np.random.Generator
) -> Array:
    """The mean divergence of a committee's members from their mean; each of them sees half of the pixels."""
    members = []
    for _ in range(MEMBERS):
        pixels = rng.permutation(images.shape[1])[: images.shape[1] // 2]
        members.append(fitted(images[:, pixels], labels).predict_proba(pool[:, pixels]))
    probabilities = np.stack(members)  # members x images x digits
    return fastkl.kl_divergence(probabilities, probabilities.mean(axis=0)).mean(axis=0)


STRATEGIES: dict[str, Strategy] = {"random": at_random, "entropy": entropies, "committee": disagreement}


def accuracies(strategy: Strategy, seed: int) -> Array:
    """The accuracy after each round, with the split of that seed."""
    images, labels = load_digits(return_X_y=True)
    images = images / 16
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(images))
    held_out, pool = order[:HELD_OUT], order[HELD_OUT:]
    picked, pool = pool[:BATCH], pool[BATCH:]
    found = []
    for _ in range(ROUNDS):
        classifier = fitted(images[picked], labels[picked])
        found.append(classifier.score(images[held_out], labels[held_out]))
        scores = strategy(classifier, images[picked], labels[picked], images[pool], rng)
        largest = np.argsort(scores)[-BATCH:]
        picked, pool = np.append(picked, pool[largest]), np.delete(pool, largest)
    return np.array(found)


def learned(splits: int = SPLITS) -> dict[str, Array]:
    """The accuracies of each strategy, splits x rounds."""
    # Products are small: where other processes compute, too, several threads of BLAS take twenty times as long.
    with threadpool_limits(1, user_api="blas"):
        return {
            name: np.stack([accuracies(strategy, seed) for seed in range(splits)]) for name, strategy in STRATEGIES.items()
        }


def main(splits: int = SPLITS) -> None:
    """Print the accuracies, and how far each strategy is from picks at random."""
    found = learned(splits)
    print(f"accuracy for {HELD_OUT} images, mean of {splits} splits; ± is one standard error of the mean difference\n")
    print("labels  random  entropy  and above random   committee  and above random")
    for labels in SHOWN:
        values = {name: values[:, labels // BATCH - 1] for name, values in found.items()}
        line = f"{labels:6}  {values['random'].mean():6.1%}"
        for name in "entropy", "committee":
            difference = 100 * (values[name] - values["random"])
            error = difference.std(ddof=1) / np.sqrt(splits)
            line += f"   {values[name].mean():6.1%}    {difference.mean():+5.1f} ± {error:3.1f}   "
        print(line.rstrip())


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
