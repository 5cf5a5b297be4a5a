"""Similarity of texts: how alike they are by their words (TF-IDF) or by vectors, and the clusters that they fall into."""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence

from domain.models.text import fold

__all__ = ["MAX_WORDS", "by_vectors", "by_words", "clusters_of", "words_of"]

MAX_WORDS = 500
"""How many words of a text are compared; what follows does not count."""

_MAX_CHARACTERS = 16 * MAX_WORDS
_WORD = re.compile(r"\w+")
Vector = Mapping[str, float]


def words_of(text: str) -> list[str]:
    """The words of a text as they are compared: folded; of scripts that put no spaces between words, each two characters."""
    words: list[str] = []
    for match in _WORD.finditer(fold(text[:_MAX_CHARACTERS])):
        word = match.group()
        if not word.isascii() and len(word) > 2 and any(unicodedata.category(letter) == "Lo" for letter in word):
            words += [word[at : at + 2] for at in range(len(word) - 1)]
        else:
            words.append(word)
        if len(words) >= MAX_WORDS:
            break
    return words


def by_words(texts: Sequence[Sequence[str]]) -> list[list[float]]:
    """How alike each two of these lists of words are, from 0 to 1: the cosine of their TF-IDF vectors.

    A word weighs (1 + ln f) * ln(1 + n / d) when it stands f times in a text and in d of n texts (Salton and Buckley, 1988).
    """
    vectors = _weighted(texts)
    holders: dict[str, list[int]] = {}
    for place, vector in enumerate(vectors):
        for word in vector:
            holders.setdefault(word, []).append(place)
    alike = [[0.0] * len(vectors) for _ in vectors]
    for word in sorted(holders):
        places = holders[word]
        for at, one in enumerate(places):
            weight, row = vectors[one][word], alike[one]
            for other in places[at:]:
                row[other] += weight * vectors[other][word]
    for one, row in enumerate(alike):
        for other in range(one):
            row[other] = alike[other][one]
    return alike


def by_vectors(vectors: Sequence[Sequence[float]]) -> list[list[float]]:
    """How alike each two of these vectors are: their cosine. A vector of nothing is like no other."""
    lengths = [math.sqrt(math.fsum(number * number for number in vector)) for vector in vectors]
    units = [
        [number / length for number in vector] if length else list(vector)
        for vector, length in zip(vectors, lengths, strict=True)
    ]
    return [[math.fsum(a * b for a, b in zip(one, other, strict=True)) for other in units] for one in units]


def clusters_of(
    alike: Sequence[Sequence[float]], *, at_least: float, sizes: Sequence[int] | None = None
) -> list[list[int]]:
    """The places of texts in clusters: the two that are most alike on average become one, as long as they are `at_least` so alike.

    Average linkage (Sokal and Michener, 1958). Of pairs that are as alike the earlier one is joined first. A text counts as many
    times as `sizes` says, else once.
    """
    clusters = {place: [place] for place in range(len(alike))}
    weights = [1] * len(alike) if sizes is None else list(sizes)
    sums = [
        [alike[one][other] * weights[one] * weights[other] for other in range(len(alike))] for one in range(len(alike))
    ]

    def likeness(one: int, other: int) -> tuple[float, int, int]:
        average = sums[one][other] / (weights[one] * weights[other])
        return average, -min(one, other), -max(one, other)

    def nearest_to(one: int) -> tuple[float, int, int]:
        return max((likeness(one, other) for other in clusters if other != one), default=(-math.inf, 0, 0))

    nearest = {one: nearest_to(one) for one in clusters}
    while len(clusters) > 1:
        best, lower, higher = max(nearest.values())
        if best < at_least:
            break
        kept, gone = -lower, -higher
        clusters[kept] += clusters.pop(gone)
        weights[kept] += weights[gone]
        del nearest[gone]
        for other in clusters:
            if other != kept:
                sums[kept][other] += sums[gone][other]
                sums[other][kept] = sums[kept][other]
        for other in clusters:
            # Only who was nearest to one of the two can have lost its nearest: joined, they are no nearer than the nearer was.
            if other == kept or not {kept, gone}.isdisjoint((-nearest[other][1], -nearest[other][2])):
                nearest[other] = nearest_to(other)
    return [sorted(places) for places in clusters.values()]


def _weighted(texts: Sequence[Sequence[str]]) -> list[Vector]:
    found_in = Counter(word for words in texts for word in set(words))
    vectors: list[Vector] = []
    for words in texts:
        counts = Counter(words)
        vector = {
            word: (1 + math.log(counts[word])) * math.log(1 + len(texts) / found_in[word]) for word in sorted(counts)
        }
        length = math.sqrt(math.fsum(weight * weight for weight in vector.values()))
        vectors.append({word: weight / length for word, weight in vector.items()} if length else {})
    return vectors
