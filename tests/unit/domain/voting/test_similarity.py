"""How alike texts are by their words or by vectors, and which of them become one cluster."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.voting.similarity import MAX_WORDS, by_vectors, by_words, clusters_of, words_of


def test_texts_are_as_alike_as_the_rare_words_that_they_share() -> None:
    alike = by_words([words_of(text) for text in ("the tram line", "the tram stop", "the bus lane", "the tram line")])
    assert alike[0][3] == pytest.approx(1.0)
    assert alike[0][1] > alike[0][2] > 0
    assert all(alike[i][j] == alike[j][i] for i in range(4) for j in range(4))


def test_words_are_folded_and_bounded() -> None:
    assert words_of("The TRAM, the \uff54ram!") == ["the", "tram", "the", "tram"]
    assert len(words_of("word " * 10_000)) == MAX_WORDS


def test_texts_without_words_are_like_nothing() -> None:
    assert by_words([[], ["tram"]])[0] == [0.0, 0.0]


def test_vectors_are_alike_by_their_angle() -> None:
    alike = by_vectors([[1, 0], [7, 0], [0, 2], [0, 0]])
    assert (alike[0][1], alike[0][2], alike[0][3]) == (1.0, 0.0, 0.0)


def test_clusters_are_joined_by_their_average_and_not_by_their_nearest() -> None:
    # The third is like the second alone: on average with the first two it is not like enough.
    alike = [[1.0, 0.9, 0.1], [0.9, 1.0, 0.6], [0.1, 0.6, 1.0]]
    assert clusters_of(alike, at_least=0.5) == [[0, 1], [2]]
    assert clusters_of(alike, at_least=0.35) == [[0, 1, 2]]


def test_a_text_that_many_wrote_weighs_as_many() -> None:
    # Three who are unlike the last outweigh the one who is like it, only when they are counted as three.
    alike = [[1.0, 0.9, 0.1], [0.9, 1.0, 0.9], [0.1, 0.9, 1.0]]
    assert clusters_of(alike, at_least=0.45) == [[0, 1, 2]]
    assert clusters_of(alike, at_least=0.45, sizes=[3, 1, 1]) == [[0, 1], [2]]


@given(st.integers(0, 9), st.data())
def test_every_text_is_in_one_cluster(size: int, data: st.DataObject) -> None:
    numbers = st.floats(0, 1)
    alike = [[0.0] * size for _ in range(size)]
    for one in range(size):
        for other in range(one + 1, size):
            alike[one][other] = alike[other][one] = data.draw(numbers)
    found = clusters_of(alike, at_least=data.draw(numbers))
    assert sorted(place for cluster in found for place in cluster) == list(range(size))


@given(st.lists(st.lists(st.floats(0, 1), min_size=6, max_size=6), min_size=6, max_size=6), st.floats(0.05, 1))
def test_joining_by_what_was_nearest_is_joining_by_trying_all(rows: list[list[float]], at_least: float) -> None:
    alike = [[rows[min(i, j)][max(i, j)] for j in range(6)] for i in range(6)]
    clusters = [[place] for place in range(6)]
    while len(clusters) > 1:
        averages = {
            (i, j): sum(alike[a][b] for a in clusters[i] for b in clusters[j]) / (len(clusters[i]) * len(clusters[j]))
            for i in range(len(clusters))
            for j in range(i + 1, len(clusters))
        }
        (i, j), best = max(averages.items(), key=lambda item: (item[1], -item[0][0], -item[0][1]))
        if best < at_least - 1e-9:
            break
        if (
            any(abs(other - best) < 1e-9 for pair, other in averages.items() if pair != (i, j))
            or best < at_least + 1e-9
        ):
            # Sums in another order differ in their last digits, so a tie may fall either way.
            return
        clusters[i] += clusters.pop(j)
    assert clusters_of(alike, at_least=at_least) == [sorted(cluster) for cluster in clusters]
