"""Vectors of texts out of numpy alone: what words and parts of words occur, folded into a fixed number of places by a hash."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from application.ports.inference import Table

__all__ = ["DIMENSIONS", "HashedEmbedder"]

DIMENSIONS = 128
_PART = 3
_MOST_CHARACTERS = 4_096


class HashedEmbedder:
    """See `Embedder`. Feature hashing with signs (Weinberger and others, 2009) of words and of three letters in a row.

    Texts are alike as far as they share words or parts of words; it knows no meaning. A text without letters or digits is the zero
    vector, which is like nothing.
    """

    dimensions = DIMENSIONS

    def embed(self, texts: Sequence[str]) -> Table:
        """See `Embedder`."""
        found = np.zeros((len(texts), DIMENSIONS), np.float32)
        for row, text in enumerate(texts):
            for part, count in Counter(_parts(text[:_MOST_CHARACTERS].casefold())).items():
                word = zlib.crc32(part.encode(errors="replace"))
                # What occurs often says less each time; whole numbers, so that no library rounds it differently.
                found[row, word % DIMENSIONS] += np.float32(count.bit_length() * (1 if word >> 31 else -1))
        lengths = np.sqrt(np.square(found).sum(axis=1, keepdims=True))
        np.divide(found, lengths, out=found, where=lengths > 0)
        return found.data


def _parts(text: str) -> Iterator[str]:
    for word in "".join(letter if letter.isalnum() else " " for letter in text).split():
        yield word
        padded = f"^{word}$"
        for start in range(len(padded) - _PART + 1):
            yield padded[start : start + _PART]
