"""llama.cpp's .kld files, of `llama-perplexity --kl-divergence-base FILE`: log-probabilities and the tokens of the text.

A file is, in little-endian order (verified byte by byte with files of llama.cpp, commit 0c1e570):

    8 bytes                     "_logits_"
    3 int32                     n_ctx, the tokens of a chunk; n_vocab; n_chunk
    n_chunk x n_ctx int32       the tokens
    n_chunk x R rows            R = n_ctx - 1 - n_ctx // 2: those of the second half of each chunk. Their labels are its
                                tokens from n_ctx // 2 + 1 on. Each row has
        2 float32               scale, min_log_prob
        n_vocab uint16          codes: log p = scale * code + min_log_prob; if n_vocab is odd, one more that means nothing

Where scale is float32(16 / 65535), code 0 is a floor: it stands for every entry at least 16 below the largest. Stored as if
they were just 16 below, these entries would have too much probability: in files of a model with 49,152 tokens, the rows'
sums were up to 1.0037. They share evenly what the other entries leave of 1, up to what is stored. Of the readings that were
compared with the model's own logits, this is the closest one (docs/guide/files.md).
"""

from __future__ import annotations

import struct
from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Final

import numpy as np

from ..._kernels import decode
from ...call import Array
from .flat import FileSource
from .source import Source

_MAGIC: Final = b"_logits_"
_HEADER: Final = struct.Struct("<8s3i")
_TOKEN: Final = np.dtype("<i4")
_CODE: Final = np.dtype("<u2")
_BEFORE: Final = 4  # codes' places before a row's codes: of its scale and min_log_prob
_FLOOR_SCALE: Final = float(np.float32(16 / 65535))
_READ: Final = 1 << 20  # bytes that are read and decoded at once: those of a block that is computed; less costs a tenth
_NOTE: Final = (
    "llama.cpp stored entries from 16 below the largest down as one code, and they share what the others leave of 1. "
    "llama.cpp itself leaves them out, and takes Q from uncoded logits: its figures differ in the fourth digit"
)


def open_kld(name: str, path: Path, member: str | None) -> Source:
    """The rows of a file, or the labels of the rows."""
    if member not in (None, "labels"):
        raise ValueError(f"{name}: a .kld file has the member 'labels' and no other")
    return KldSource(name, path) if member is None else KldLabels(name, path)


class _KldFile(FileSource):
    """What rows and labels have in common: the header and the tokens."""

    def read_header(self, name: str, file: IO[bytes], size: int) -> tuple[tuple[int, ...], np.dtype[Any]]:
        start = file.read(_HEADER.size)
        if not start.startswith(_MAGIC):
            raise ValueError(f"{name}: is no .kld file: it does not begin as one")
        if len(start) < _HEADER.size:
            few = "llama.cpp leaves such a file for a text of fewer than 2 n_ctx tokens"
            raise ValueError(f"{name}: ends in its header, at byte {size}: {few}")
        _, context, width, chunks = _HEADER.unpack(start)
        if context < 1 or width < 1 or chunks < 0:
            raise ValueError(
                f"{name}: its header is damaged: n_ctx = {context} and n_vocab = {width} must be positive, "
                f"n_chunk = {chunks} not negative"
            )
        self.chunks, self.context = chunks, context
        self._each = context - 1 - context // 2  # rows of a chunk
        self._record = _CODE.itemsize * (_BEFORE + width + width % 2)  # bytes of a row
        self._begin = _HEADER.size + _TOKEN.itemsize * context * chunks
        rows = chunks * self._each
        end = self._begin + rows * self._record
        if size != end:
            whole = max(0, size - self._begin) // self._record
            what = (
                f"has {size - end} bytes after its rows" if size > end else f"is truncated: it has {whole} of {rows} rows"
            )
            raise ValueError(
                f"{name}: {what}: {chunks} chunks of {context} tokens with a vocabulary of {width} take {end} bytes, the "
                f"file has {size}: was the run that wrote it interrupted?"
            )
        return self.array_of(rows, width)

    @abstractmethod
    def array_of(self, rows: int, width: int) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """Shape and dtype of the array that is read from the file."""

    def chunk_tokens(self, start: int, stop: int, row: int) -> Array:
        """The tokens of some chunks, of shape (stop - start, n_ctx); `row` is one of theirs."""
        tokens = np.empty((stop - start, self.context), _TOKEN)
        self.fill(tokens, _HEADER.size + start * self.context * _TOKEN.itemsize, row)
        return tokens


class KldLabels(_KldFile):
    """The token that follows in the text, for each row."""

    def array_of(self, rows: int, width: int) -> tuple[tuple[int, ...], np.dtype[Any]]:
        return (rows,), _TOKEN

    def read(self, start: int, stop: int, buffer: Array | None = None) -> Array:
        begin, end = start * self.width, stop * self.width  # the width is 1, unless all labels are read as one row
        if begin == end:
            return np.empty((stop - start, self.width), _TOKEN)
        first = begin // self._each
        tokens = self.chunk_tokens(first, -(-end // self._each), begin)
        labels = tokens[:, self.context // 2 + 1 :].reshape(-1)
        return labels[begin - first * self._each : end - first * self._each].reshape(-1, self.width)


class KldSource(_KldFile):
    """The rows, as float32: its rounding is a hundredth of the codes' own, and they are computed as fast as from .npy."""

    small_reads = True
    log_probabilities = True

    def array_of(self, rows: int, width: int) -> tuple[tuple[int, ...], np.dtype[Any]]:
        self._floored = np.full(rows, -1, np.int8)  # whether a row's scale is that of a floor; -1: it was not read here
        return (rows, width), np.dtype(np.float32)

    def read(self, start: int, stop: int, buffer: Array | None = None) -> Array:
        values = np.empty((stop - start, self.width), self.dtype) if buffer is None else buffer[: stop - start]
        step = min(max(1, _READ // self._record), stop - start)
        records = np.empty((step, self._record // _CODE.itemsize), _CODE)
        for first in range(start, stop, step or 1):
            read = records[: min(step, stop - first)]
            self.fill(read, self._begin + first * self._record, first)
            filled, floored = (x[: len(read)] for x in (values[first - start :], self._floored[first:]))
            at = decode(read.astype(np.uint16, copy=False), _FLOOR_SCALE, filled, floored)
            if at >= 0:
                scale, least = read[at, :_BEFORE].copy().view("<f4")
                raise ValueError(
                    f"{self.name}: is damaged in row {first + at}: its scale {scale} must not be negative, and its "
                    f"min_log_prob {least} not positive"
                )
        return values

    def tokens(self) -> Iterator[Array]:
        step = max(1, _READ // (self.context * _TOKEN.itemsize))
        for start in range(0, self.chunks, step):
            yield self.chunk_tokens(start, min(start + step, self.chunks), start * self._each)

    def note(self) -> dict[str, Any]:
        record = np.empty((1, _BEFORE), _CODE)
        self.stop = None  # it was set when the last row was computed
        for row in np.flatnonzero(self._floored < 0).tolist():  # another process read it
            self.fill(record, self._begin + row * self._record, row)
            self._floored[row] = record[0, :2].view("<f4")[0] == _FLOOR_SCALE
        return {"rows": int(np.count_nonzero(self._floored)), "text": _NOTE}
