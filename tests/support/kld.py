"""Writes .kld files of any vocabulary and context by llama.cpp's rules, as fastkl/batch/readers/kld.py describes them.

Knows nothing of how they are read.
"""

from pathlib import Path

import numpy as np

REACH = np.float32(16)  # below the largest logit, everything has code 0


def encoded(logits):
    """Scale, min_log_prob and codes of rows of logits, in float32 as llama.cpp computes them."""
    logits = np.asarray(logits, np.float32)
    largest = logits.max(axis=-1, keepdims=True)
    least = np.maximum(logits.min(axis=-1, keepdims=True), largest - REACH)
    total = np.exp(logits.astype(np.float64) - largest).sum(axis=-1, keepdims=True)
    scales = (largest - least) / np.float32(65535)
    steps = np.where(scales > 0, (np.maximum(logits, least) - least) / np.where(scales > 0, scales, 1), 0)
    return scales, (least - largest - np.log(total)).astype(np.float32), np.rint(steps).astype(np.uint16)


def header(context, width, chunks):
    return b"_logits_" + np.array([context, width, chunks], "<i4").tobytes()


def records(scales, least, codes):
    """The bytes of rows."""
    rows, width = codes.shape
    made = np.full((rows, 4 + width + width % 2), 0xFFFF, "<u2")  # with a code that means nothing if the width is odd
    made[:, :4] = np.concatenate([scales, least], axis=1).astype("<f4").view("<u2")
    made[:, 4 : 4 + width] = codes
    return made.tobytes()


def tokens_of(context, width, chunks, seed=0):
    return np.random.default_rng(seed).integers(0, width, (chunks, context)).astype("<i4")


def labels_of(tokens):
    """What follows in the text, for each row: by the definition of the rows, one at a time."""
    context = tokens.shape[1]
    rows = range(context - 1 - context // 2)
    return np.array([chunk[context // 2 + i + 1] for chunk in tokens for i in rows], int)


def save_kld(path, logits, context=None, tokens=None):
    """Write rows of logits, by default as one chunk, and return the path."""
    rows, width = np.shape(logits)
    context = 2 * rows + 1 if context is None else context
    each = context - 1 - context // 2
    chunks = rows // each if each else 1
    assert each * chunks == rows
    tokens = tokens_of(context, width, chunks) if tokens is None else tokens
    Path(path).write_bytes(header(context, width, chunks) + tokens.tobytes() + records(*encoded(logits)))
    return str(path)
