"""The worked examples: they run, what they compute is what they say, and the pages quote it. Knows nothing of training.

Those of a language model are in test_example_language_model.py.
"""

import re
from functools import cache, partial
from importlib import import_module

import numpy as np
import pytest
from support.examples import imported, page, words

import fastkl

BITS = (8, 4)


# A classifier with rounded weights ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def example():
    module = imported("quantised_digits")
    module.trained = cache(module.trained)  # trains once for all tests
    return module


@pytest.fixture(scope="module")
def found(example):
    return example.comparisons()


def test_the_logits_are_those_of_the_network(example):
    network, images, _ = example.trained()
    exponentials = np.exp(example.logits(network.coefs_, network.intercepts_, images))
    probabilities = exponentials / exponentials.sum(axis=1, keepdims=True)
    # Sums of at most 64 products are added in another order, in three layers that multiply errors by at most ten each. A
    # missing layer changes far more than that.
    np.testing.assert_allclose(probabilities, network.predict_proba(images), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("bits", BITS)
def test_rounded_weights(example, bits):
    weights = np.random.default_rng(bits).standard_normal((100, 20))
    rounded = example.rounded(weights, bits)
    step = np.abs(weights).max() / (2 ** (bits - 1) - 1)
    assert len(np.unique(rounded)) <= 2**bits - 1
    assert np.abs(rounded - weights).max() <= step / 2 * (1 + 1e-12)  # a product and a quotient, rounded
    assert np.abs(rounded).max() == pytest.approx(np.abs(weights).max())


def test_the_values_are_those_of_compare(example, found):
    for full, quantised, labels, result in found.values():
        assert np.array_equal(labels, example.trained()[2])
        for ours, theirs in zip(result, fastkl.compare(full, quantised, labels, from_logits=True), strict=True):
            assert np.array_equal(ours, theirs)


def test_fewer_bits_are_a_larger_divergence(found):
    """The network, which has learned, is the same."""
    fine, coarse = (found[bits][3] for bits in BITS)
    assert 0 < fine.kl.mean() < coarse.kl.mean()
    assert 0 < coarse.same_argmax.mean() <= fine.same_argmax.mean() <= 1
    for result in fine, coarse:
        assert all(np.all(getattr(result, name) >= 0) for name in result._fields)
        assert np.all(result.js <= np.log(2))
    full, _, labels, _ = found[BITS[0]]
    assert np.mean(full.argmax(axis=1) == labels) > 0.9
    assert np.exp(fine.nll_p.mean()) < 1.5
    assert np.array_equal(fine.nll_p, coarse.nll_p)


def test_the_page_quotes_what_is_printed(example, capsys):
    example.main()
    printed = capsys.readouterr().out
    assert all(f"weights of {bits} bits" in printed for bits in BITS)
    assert words(printed) in words(page("classifier"))


# Features that drift -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def drift():
    return imported("drift")


@pytest.fixture(scope="module")
def drifted(drift):
    return drift.drift(50_000)


def test_counts_are_those_of_histograms(drift):
    rows = np.random.default_rng(1).integers(0, 20, (3, 100, 2)).astype(float)  # entries that are equal to an edge
    edges = np.arange(2 * (drift.BINS - 1)).reshape(2, -1)
    counts = drift.counted(rows, edges)
    for batch, feature in np.ndindex(3, 2):
        bins = [-np.inf, *edges[feature], np.inf]
        assert np.array_equal(counts[batch, feature], np.histogram(rows[batch, :, feature], bins)[0])


def test_drift_is_that_of_the_definitions(drift, drifted):
    def shares(counts):
        return counts / counts.sum(axis=-1, keepdims=True)

    def clipped(counts):
        return shares(np.maximum(counts, drift.HALF_A_ROW))

    def psi(p, q):
        return ((p - q) * np.log(p / q)).sum(axis=-1)

    before, whole = drifted.before, drifted.now.sum(axis=0)
    p, q = shares(before), shares(whole)
    m = (p + q) / 2
    js = (p * np.log(p / m) + q * np.log(q / m)).sum(axis=-1) / 2
    p, q = clipped(before), clipped(whole)
    expected = {"psi": psi(p, q), "js": js, "kl": (p * np.log(p / q)).sum(axis=-1)}
    expected["psi_of_batches"] = psi(p, clipped(drifted.now))
    for name, values in expected.items():
        # Shares have errors of an eps, their logarithms' ratios of four, which shares that sum to 2 or less multiply.
        np.testing.assert_allclose(getattr(drifted, name), values, rtol=1e-15, atol=8 * np.finfo(float).eps, err_msg=name)


def test_no_row_is_lost(drift, drifted):
    assert (drifted.before.sum(axis=-1) == 50_000).all()
    assert (drifted.now.sum(axis=-1) == drift.BATCH).all()
    assert drifted.psi_of_batches.shape == drifted.now.shape[:2] == (50, drift.FEATURES)


def test_the_size_drifts_and_the_symmetry_does_not(drifted):
    psi = dict(zip(drifted.names, drifted.psi, strict=True))
    assert psi["mean symmetry"] < 0.1 < 0.25 < psi["mean radius"]
    assert drifted.psi_of_batches[0, 0] < 0.1 < drifted.psi_of_batches[-1, 0]


def test_the_page_on_drift_quotes_what_is_printed(drift, capsys):
    """Of fewer rows, other batches are the first."""
    drift.main(50_000)
    batches = r"none|#,? the first is #"
    printed = re.sub(batches, "", words(capsys.readouterr().out))
    assert printed in re.sub(batches, "", words(page("drift")))


# Labels that a classifier asks for ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def active():
    module = imported("active_learning")
    module.fitted = partial(fitted_once, module.fitted, {})
    # Products are small: where other processes compute, too, several threads of BLAS take twenty times as long.
    with import_module("threadpoolctl").threadpool_limits(1, user_api="blas"):  # it comes with scikit-learn
        yield module


def fitted_once(fitted, known, images, labels):
    """The classifier of these labels, which several tests learn."""
    key = images.tobytes(), labels.tobytes()
    if key not in known:
        known[key] = fitted(images, labels)
    return known[key]


@pytest.fixture(scope="module")
def pools(active):
    """A classifier, images and labels that it has learned, and a pool of others."""
    images, labels = import_module("sklearn.datasets").load_digits(return_X_y=True)
    images = images / 16
    return active.fitted(images[:100], labels[:100]), images[:100], labels[:100], images[100:300]


def test_scores_are_those_of_the_definitions(active, pools):
    classifier, images, labels, pool = pools
    p = classifier.predict_proba(pool)
    # Probabilities are positive, and sums of ten terms have errors of some eps of the largest, which is below 1.
    found = active.entropies(*pools, np.random.default_rng(1))
    np.testing.assert_allclose(found, -(p * np.log(p)).sum(axis=1), rtol=1e-12, atol=1e-14)
    rng = np.random.default_rng(2)
    members = []
    for _ in range(active.MEMBERS):
        half = rng.permutation(64)[:32]
        members.append(active.fitted(images[:, half], labels).predict_proba(pool[:, half]))
    mean = sum(members) / len(members)
    expected = sum((p * np.log(p / mean)).sum(axis=1) for p in members) / len(members)
    found = active.disagreement(*pools, np.random.default_rng(2))
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-14)


def test_a_round_picks_the_largest_scores(active):
    """The score is the brightness: no image that is left is brighter than one that was picked."""
    sizes = []

    def brightest(classifier, images, labels, pool, rng):
        brightness = pool.sum(axis=1)
        sizes.append((len(images), len(pool), images[active.BATCH :].sum(axis=1).min(initial=np.inf), brightness.max()))
        return brightness

    assert len(active.accuracies(brightest, 0)) == active.ROUNDS
    learned, left, dimmest, brightest_left = zip(*sizes, strict=True)
    assert learned == tuple(range(active.BATCH, active.BATCH * (active.ROUNDS + 1), active.BATCH))
    assert {a + b for a, b in zip(learned, left, strict=True)} == {1797 - active.HELD_OUT}
    assert all(a >= b for a, b in zip(dimmest, brightest_left, strict=True))


def test_strategies_begin_with_the_same_images(active, monkeypatch):
    monkeypatch.setattr(active, "ROUNDS", 1)
    first = {active.accuracies(strategy, 0)[0] for strategy in active.STRATEGIES.values()}
    assert len(first) == 1


def test_the_page_on_active_learning_quotes_what_is_printed(active, capsys):
    """Of fewer splits, other differences are positive."""
    active.main(2)
    assert words(capsys.readouterr().out).replace("+", "") in words(page("active_learning")).replace("+", "")


# Topics of two runs ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def topic_models():
    return imported("topic_models")


@pytest.fixture(scope="module")
def runs(topic_models):
    counts, words_of_counts = topic_models.counted()
    return counts, words_of_counts, [topic_models.model(counts, seed) for seed in (0, 1)]


def test_counts_are_those_of_the_paragraphs(topic_models, runs):
    counts, vocabulary, _ = runs
    assert counts.shape[1] == len(vocabulary)
    assert counts.any(axis=1).all()
    paragraphs = [
        part
        for text in set(topic_models.topics.values())
        for part in text.split("\n\n")
        if len(part.split()) >= topic_models.SHORTEST
    ]
    column = vocabulary.tolist().index("dictionary")
    expected = sum(len(re.findall(r"(?<![a-z])dictionary(?![a-z])", part.lower())) for part in paragraphs)
    assert counts[:, column].sum() == expected


def test_topics_and_mixtures_are_distributions(topic_models, runs):
    for run in runs[2]:
        assert run.topics.shape == (topic_models.TOPICS, len(runs[1]))
        for rows in run:
            assert (rows >= 0).all()
            np.testing.assert_allclose(rows.sum(axis=1), 1, rtol=1e-12)
        np.testing.assert_allclose(run.predicted().sum(axis=1), 1, rtol=1e-12)


def test_partners_are_the_nearest_topics(topic_models, runs):
    """No exchange of two partners makes the sum of the distances smaller; topics in another order are found again."""
    first, second = (run.topics for run in runs[2])
    distances, partners = topic_models.matched(first, second)
    assert sorted(partners) == [*range(topic_models.TOPICS)]
    own = distances[range(topic_models.TOPICS), partners]
    for a, b in np.ndindex(distances.shape):
        assert own[a] + own[b] <= distances[a, partners[b]] + distances[b, partners[a]] + 1e-12
    order = np.random.default_rng(1).permutation(topic_models.TOPICS)
    distances, partners = topic_models.matched(first, first[order])
    assert np.array_equal(order[partners], range(topic_models.TOPICS))
    assert (distances[range(topic_models.TOPICS), partners] == 0).all()


def test_the_page_on_topics_quotes_what_is_printed(topic_models, runs, monkeypatch, capsys):
    """Other versions of Python have other texts, and other words in the topics."""
    monkeypatch.setattr(topic_models, "model", lambda counts, seed: runs[2][seed])
    topic_models.main()

    def form(text):
        return words(re.sub(r"\w+(?:, \w+){3}", "@", text))

    assert form(capsys.readouterr().out) in form(page("topic_models"))
