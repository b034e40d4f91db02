"""Stored logits of a language model, before and after its weights are rounded: `python examples/stored_logits.py [FOLDER]`.

It trains scikit-learn's MLPClassifier to predict the next character of Python's own reference manual, rounds the weights to
8 and to 4 bits, and writes the logits of each model for other texts to the folder ("logits" unless one is named), in both
forms that are common: padded sequences, as `model(...).logits` of transformers has them, with labels that are -100 where
there is none; and a row for each token, as vLLM has them. Then it scores the files. It needs scikit-learn and safetensors.
"""

from __future__ import annotations

import string
import sys
from pathlib import Path
from pydoc_data.topics import topics
from typing import TYPE_CHECKING, Any

import numpy as np
from quantised_digits import logits, rounded
from safetensors.numpy import save_file
from sklearn.neural_network import MLPClassifier

import fastkl

if TYPE_CHECKING:
    Array = np.ndarray[Any, Any]

VOCABULARY = " " + string.ascii_lowercase + string.digits + string.punctuation
POSITIONS = 1024  # of a sequence: longer texts are cut, shorter ones are padded
CONTEXT = 6  # characters that the network sees
HIDDEN, EPOCHS = 48, 8
IGNORED = -100  # the label where there is no next character, as in torch and transformers
BITS = (8, 4)


def sequences(first: int) -> tuple[Array, Array]:
    """Characters and labels of every second text, both (sequences, positions); a label is the next character."""
    texts = sorted({" ".join(text.lower().split()) for text in topics.values()})[first::2]  # some topics share a text
    characters, labels = np.zeros((len(texts), POSITIONS), int), np.full((len(texts), POSITIONS), IGNORED)
    for row, text in enumerate(texts):
        numbers = [VOCABULARY.index(character) for character in text if character in VOCABULARY][: POSITIONS + 1]
        characters[row, : len(numbers) - 1], labels[row, : len(numbers) - 1] = numbers[:-1], numbers[1:]
    return characters, labels


def inputs(characters: Array) -> Array:
    """For each position its character and those before it, as zeros and ones: (sequences, positions, inputs)."""
    padded = np.pad(characters, ((0, 0), (CONTEXT - 1, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, CONTEXT, axis=1)
    return np.eye(len(VOCABULARY), dtype=np.float32)[windows].reshape(*characters.shape, -1)


def trained() -> MLPClassifier:
    """A network that has learned from half of the texts."""
    characters, labels = sequences(0)
    known = labels != IGNORED
    network = MLPClassifier(HIDDEN, random_state=0)
    for _ in range(EPOCHS):
        network.partial_fit(inputs(characters)[known], labels[known], classes=range(len(VOCABULARY)))
    return network


def weights(network: MLPClassifier) -> dict[str, list[Array]]:
    """The weights of each layer, by the names of the models."""
    return {"full": network.coefs_} | {f"{n} bits": [rounded(layer, n) for layer in network.coefs_] for n in BITS}


def stored(folder: Path) -> dict[str, str]:
    """The file of each model, and that of the labels, with a tensor `padded` and a tensor `rows` in it."""
    network = trained()
    characters, labels = sequences(1)
    tensors = {"labels": labels}
    for model, layers in weights(network).items():
        tensors[model] = logits(layers, network.intercepts_, inputs(characters))  # (sequences, positions, vocabulary)
    folder.mkdir(exist_ok=True)
    files = {name: f"{folder}/{name.replace(' ', '-')}.safetensors" for name in tensors}
    for name, values in tensors.items():
        save_file({"padded": values, "rows": values[labels != IGNORED]}, files[name])
    return files


def scored(files: dict[str, str], tensor: str) -> dict[str, Any]:
    """The comparison of the rounded models with the full one, from tensors of that name; a report stands beside them."""
    paths = {name: f"{path}:{tensor}" for name, path in files.items()}
    p, labels = paths.pop("full"), paths.pop("labels")
    report = Path(files["full"]).with_name(f"{tensor}.html")
    return fastkl.score(p, paths, labels, from_logits=True, ignore_index=IGNORED, report=report)


def main(folder: str = "logits") -> None:
    """Print the comparison."""
    files = stored(Path(folder))
    for tensor in "padded", "rows":
        result = scored(files, tensor)
        first = result["models"][0]
        counted = first["rows"] - first["nll_p"]["ignored"]
        print(f"{tensor}: {first['rows']:,} rows, {counted:,} with a label, perplexity {first['perplexity_p']:.4f}")
        for model in result["models"]:
            kl, ratio, error = (model[key] for key in ("kl", "perplexity_ratio", "perplexity_ratio_stderr"))
            print(
                f"  {model['q']}  KL {kl['mean']:.3e} ± {kl['stderr']:.1e} nats, largest {kl['max']:.2e}, same character "
                f"{model['top1_agreement']:.2%}, perplexity {model['perplexity_q']:.4f}, ratio {ratio:.5f} ± {error:.5f}"
            )


if __name__ == "__main__":
    main(*sys.argv[1:2])
