"""The installed model itself: it needs no network, and finds paraphrases that share no words."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from domain.voting.ballot import Ballot
from domain.voting.similarity import by_vectors
from domain.voting.synthesis import synthesise
from infrastructure.embedders.packaged_embedder import MODEL, PackagedEmbedder

SCHOOL = [
    [
        "Pupils should start lessons later in the morning.",
        "Let the school day begin after nine so children get more sleep.",
    ],
    ["Feed every child a free lunch.", "Meals at school ought to cost families nothing."],
    ["Hire more teachers and make classes smaller.", "Fewer children per classroom, which needs additional staff."],
    ["Replace textbooks with tablets.", "Give each student a digital device instead of printed books."],
]
TOWN = [
    ["The library should stay open late at night.", "Keep the reading rooms accessible until midnight."],
    ["Plant trees along all main streets.", "Avenues need more greenery and shade."],
    ["Lower the taxes for small shops.", "Reduce what little stores have to pay the treasury."],
]
_REACHING_OUT = frozenset({"socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"})


@pytest.fixture(scope="module")
def reached() -> list[tuple[Any, ...]]:
    """Every address that this process looked up or connected to since, but sockets that are no network's."""
    found: list[tuple[Any, ...]] = []

    def note(event: str, arguments: tuple[Any, ...]) -> None:
        if event in _REACHING_OUT and not (
            isinstance(arguments[0], socket.socket) and arguments[0].family == socket.AF_UNIX
        ):
            found.append((event, *arguments[1:]))

    sys.addaudithook(note)
    return found


@pytest.fixture(scope="module")
def embedder(reached: list[tuple[Any, ...]]) -> PackagedEmbedder:
    del reached
    return PackagedEmbedder()


def grouped(texts: Sequence[str], synthesise_them: Callable[[list[Ballot]], Any]) -> list[set[str]]:
    ballots = [Ballot(text, text) for text in texts]
    return [set(cluster.agents) for cluster in synthesise_them(ballots).clusters]


async def test_the_model_is_loaded_and_asked_without_any_network(
    embedder: PackagedEmbedder, reached: list[tuple[Any, ...]]
) -> None:
    vectors = await embedder.embed(["A text.", "Another one."])
    assert [len(vector) for vector in vectors] == [384, 384]
    assert reached == []
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    # The hook does see what reaches out.
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.connect(("127.0.0.1", 9))
    assert reached.pop()[0] == "socket.connect"


@pytest.mark.parametrize("groups", [SCHOOL, TOWN], ids=["school", "town"])
async def test_it_finds_the_paraphrases_that_words_alone_miss(
    embedder: PackagedEmbedder, groups: list[list[str]]
) -> None:
    texts = sorted(text for group in groups for text in group)
    vectors = await embedder.embed(texts)

    def by_meaning(ballots: list[Ballot]) -> Any:
        return synthesise(ballots, alike=by_vectors(vectors), at_least=embedder.alike_from, method=MODEL)

    wanted = [set(group) for group in groups]
    assert [group for group in wanted if group in grouped(texts, synthesise)] == []
    assert sorted(map(sorted, grouped(texts, by_meaning))) == sorted(map(sorted, wanted))


async def test_the_same_texts_have_the_same_vectors_again(embedder: PackagedEmbedder) -> None:
    texts = [text for group in SCHOOL for text in group]
    assert await embedder.embed(texts) == await embedder.embed(texts)
