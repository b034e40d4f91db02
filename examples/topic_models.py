"""Two topic models of Python's reference manual, compared: `python examples/topic_models.py`.

Latent Dirichlet allocation finds topics, which are distributions of words, in the paragraphs of the text, and describes
each paragraph as a mixture of topics. Two runs with different seeds find them in a different order, and not quite the same
ones. Their topics are matched so that the sum of the Jensen-Shannon distances is the smallest. What the two runs predict of
each paragraph's words is compared without matching. It needs scikit-learn.
"""

from __future__ import annotations

from pydoc_data.topics import topics
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment
from sklearn.decomposition import LatentDirichletAllocation
from sklearn.feature_extraction.text import CountVectorizer

import fastkl

if TYPE_CHECKING:
    Array = np.ndarray[Any, Any]

TOPICS = 8
SHORTEST = 20  # words of a paragraph
SHOWN = 4  # words of a topic


class Model(NamedTuple):
    """What a run has found."""

    topics: Array  # topics x words
    mixtures: Array  # paragraphs x topics

    def predicted(self) -> Array:
        """The distribution of words of each paragraph: paragraphs x words."""
        return self.mixtures @ self.topics


def counted() -> tuple[Array, Array]:
    """The counts of words in paragraphs, paragraphs x words, and the words."""
    texts = sorted(set(topics.values()))  # some topics share a text
    paragraphs = [part for text in texts for part in text.split("\n\n")]
    long = [part for part in paragraphs if len(part.split()) >= SHORTEST]
    options = {"stop_words": "english", "token_pattern": "[a-z]{3,}"}
    vectorizer = CountVectorizer(min_df=5, max_df=0.3, **options)
    counts = vectorizer.fit_transform(long).toarray()
    return counts[counts.any(axis=1)], vectorizer.get_feature_names_out()


def model(counts: Array, seed: int) -> Model:
    """The topics of a run with that seed."""
    allocation = LatentDirichletAllocation(TOPICS, random_state=seed)
    mixtures = allocation.fit_transform(counts)
    weights = allocation.components_
    return Model(weights / weights.sum(axis=1, keepdims=True), mixtures)


def matched(p: Array, q: Array) -> tuple[Array, Array]:
    """The distances of all topics of p from all of q, and for each topic of p the one of q that it is matched with."""
    distances = fastkl.js_distance(p[:, np.newaxis], q, base=2)
    return distances, linear_sum_assignment(distances)[1]


def main() -> None:
    """Print the topics, and how the runs describe the paragraphs."""
    counts, words = counted()
    first, second = (model(counts, seed) for seed in (0, 1))
    distances, partners = matched(first.topics, second.topics)
    hellinger = fastkl.hellinger_distance(first.topics, second.topics[partners])

    def frequent(topic: Array) -> str:
        return ", ".join(words[np.argsort(topic)[: -SHOWN - 1 : -1]])

    print(f"{len(counts):,} paragraphs, {len(words)} words, {TOPICS} topics\n")
    print("    JS  Hellinger  most frequent words of a topic, and of its partner")
    for topic in np.argsort(distances[range(TOPICS), partners]):
        partner = partners[topic]
        print(
            f"{distances[topic, partner]:6.3f}  {hellinger[topic]:9.3f}  "
            f"{frequent(first.topics[topic]):46}  {frequent(second.topics[partner])}"
        )
    same = distances[range(TOPICS), partners].mean()
    others = (distances.sum() - TOPICS * same) / (TOPICS * (TOPICS - 1))
    print(f"\nmean JS distance of partners {same:.3f}, of other topics {others:.3f}")
    print("\n        perplexity   topics of a paragraph, exp(entropy)")
    print("                       10 %    50 %    90 %")
    lengths = counts.sum(axis=1)
    for name, run in {"first": first, "second": second}.items():
        losses = fastkl.cross_entropy(counts, run.predicted(), normalize=True)
        effective = np.quantile(np.exp(fastkl.entropy(run.mixtures)), (0.1, 0.5, 0.9))
        perplexity = np.exp(np.average(losses, weights=lengths))
        print(f"{name:6}  {perplexity:10.1f}  " + "".join(f"  {number:6.2f}" for number in effective))
    p, q = first.predicted(), second.predicted()
    own, other = (np.median(fastkl.js_distance(p, rows, base=2)) for rows in (q, q[::-1]))
    print(f"\nJS distance of predicted words, median: of a paragraph {own:.3f}, of two different ones {other:.3f}")


if __name__ == "__main__":
    main()
