"""The embedder over a provider's `/embeddings`: one request, and nothing but a vector for each text is taken for an answer."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest

from application.ports.agent_orchestrator import AgentOutput, AgentRequest
from application.ports.model_desk import Forecast
from domain.errors.agent import AgentInvocationError
from domain.errors.budget import BudgetExceededError
from domain.errors.configuration import ConfigurationError
from domain.errors.dependency import DependencyUnavailableError
from domain.models.budget import Usage
from domain.models.money import Price
from infrastructure.embedders.provider_embedder import ProviderEmbedder
from infrastructure.orchestrators.exchange import Heard, Reply
from infrastructure.orchestrators.prices import PriceList
from infrastructure.orchestrators.provider_desk import ProviderDesk
from infrastructure.orchestrators.provider_settings import ProviderSettings


class Provider:
    """An exchange that gives one answer, or fails."""

    host = "provider.test"

    def __init__(self, answer: object, *, status: int = 200) -> None:
        self.answer = answer
        self.status = status
        self.sent: list[tuple[str, Any]] = []
        self.is_closed = False

    def open(self) -> None:
        """Nothing to do."""

    async def close(self) -> None:
        self.is_closed = True

    async def post(self, path: str, body: bytes, *, most: int, streams: bool, heard: Heard) -> Reply:
        del most, streams
        self.sent.append((path, json.loads(body)))
        if isinstance(self.answer, Exception):
            raise self.answer
        heard(self.status, {}, b"")
        content = self.answer if isinstance(self.answer, bytes) else json.dumps(self.answer).encode()
        return Reply(self.status, {}, content)

    async def get(self, path: str, *, most: int) -> Reply:
        raise NotImplementedError


PROVIDER = ProviderSettings("near", "http://provider.test/v1")


class NoClient:
    """A provider that no agent is asked of."""

    host = "provider.test"

    def prompt_of(self, request: AgentRequest) -> str:
        raise NotImplementedError

    def body_of(self, request: AgentRequest, *, model: str) -> bytes:
        raise NotImplementedError

    async def complete(self, request: AgentRequest, *, model: str) -> AgentOutput:
        raise NotImplementedError

    async def find_models(self) -> list[str]:
        raise NotImplementedError

    async def close(self) -> None:
        """Nothing is open."""


class Announced:
    """A record that keeps what it was told, and refuses what it is to refuse."""

    key_name = "town"
    batch_id = "b-1"
    until: float | None = None

    def __init__(self, *, refuses: str = "") -> None:
        self.refuses = refuses
        self.told: list[object] = []

    async def reserve(self, forecast: Forecast) -> None:
        self._note("reserve")

    def give_back(self, forecast: Forecast) -> None:
        self.told.append("give back")

    async def starting(self, forecast: Forecast) -> None:
        self._note("starting")

    def ended(self, usage: Usage | None, *, failure: str | None = None) -> None:
        self.told.append((usage, failure))

    def _note(self, step: str) -> None:
        self.told.append(step)
        if step == self.refuses:
            raise BudgetExceededError(budget="max_total_tokens", limit=1, used=0, wanted=2)


def desk_of(*, price: Price | None = None, requests_per_minute: int | None = None) -> ProviderDesk:
    settings = replace(PROVIDER, requests_per_minute=requests_per_minute)
    prices = PriceList({} if price is None else {"near/e-1": price}, look_up=lambda *_: None)
    return ProviderDesk([settings], client_of=lambda *_: NoClient(), prices=prices)


def embedder_at(provider: Provider, desk: ProviderDesk | None = None) -> ProviderEmbedder:
    embedder = ProviderEmbedder(
        base_url=PROVIDER.base_url, api_key=None, model="e-1", full_name="near/e-1", desk=desk or desk_of()
    )
    embedder.wrap_exchange(lambda _: provider)
    return embedder


def answered(*vectors: object) -> dict[str, object]:
    return {"data": [{"index": place, "embedding": vector} for place, vector in enumerate(vectors)]}


async def test_all_texts_are_sent_in_one_request_each_cut() -> None:
    provider = Provider(answered([1, 0], [0.5, 2]))
    vectors = await embedder_at(provider).embed(["one", "x" * 9_000])
    assert vectors == [[1.0, 0.0], [0.5, 2.0]]
    assert provider.sent == [
        ("/embeddings", {"model": "e-1", "input": ["one", "x" * 8_000], "encoding_format": "float"})
    ]


async def test_vectors_are_put_in_order_by_their_index() -> None:
    document = {"data": [{"index": 1, "embedding": [2]}, {"index": 0, "embedding": [1]}]}
    assert await embedder_at(Provider(document)).embed(["a", "b"]) == [[1.0], [2.0]]


@pytest.mark.parametrize(
    "answer",
    [
        b"not json",
        b"[" * 100_000,
        [],
        {},
        {"data": None},
        {"data": [1, 2]},
        answered([1]),
        answered([1], [1], [1]),
        answered([1], [1, 2]),
        answered([], []),
        answered([1], None),
        answered([1], "1"),
        answered([1], ["1"]),
        answered([1], [True]),
        answered([1], [1e200]),
        answered([1], [10**400]),
        b'{"data": [{"index": 0, "embedding": [NaN]}, {"index": 1, "embedding": [1]}]}',
        answered([0.0] * 20_000, [0.0] * 20_000),
        {"data": [{"index": 0, "embedding": [1]}, {"index": 0, "embedding": [1]}]},
        {"data": [{"index": [], "embedding": [1]}, {"index": 1, "embedding": [1]}]},
    ],
    ids=range(20),
)
async def test_anything_but_a_vector_for_each_text_is_refused(answer: object) -> None:
    with pytest.raises(DependencyUnavailableError):
        await embedder_at(Provider(answer)).embed(["a", "b"])


@pytest.mark.parametrize("status", [301, 401, 404, 429, 500])
async def test_a_refusal_is_a_model_that_is_away(status: int) -> None:
    with pytest.raises(DependencyUnavailableError, match=str(status)):
        await embedder_at(Provider(answered([1]), status=status)).embed(["a"])


async def test_a_broken_exchange_is_a_model_that_is_away() -> None:
    provider = Provider(AgentInvocationError("the connection was lost", kind="connection_lost"))
    with pytest.raises(DependencyUnavailableError, match="connection was lost"):
        await embedder_at(provider).embed(["a"])


async def test_closing_it_closes_the_connection() -> None:
    provider = Provider(answered())
    await embedder_at(provider).close()
    assert provider.is_closed


def test_an_address_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigurationError):
        ProviderEmbedder(base_url="provider", api_key=None, model="e-1", desk=desk_of())


async def test_no_texts_ask_nobody() -> None:
    provider, record = Provider(answered()), Announced()
    assert (await embedder_at(provider).embed([], record=record), provider.sent, record.told) == ([], [], [])


async def test_a_call_is_held_and_recorded_before_it_is_made_and_charged_by_what_the_reply_tells() -> None:
    provider, record = Provider({**answered([1]), "usage": {"prompt_tokens": 7, "total_tokens": 7}}), Announced()
    price = Price.per_million(input_usd=2, output_usd=0)
    await embedder_at(provider, desk_of(price=price)).embed(["one"], record=record)
    assert record.told == ["reserve", "starting", (Usage(1, 7, 0, 14e-6), None)]


async def test_a_reply_that_counts_nothing_took_the_most_that_was_held() -> None:
    record, desk = Announced(), desk_of()
    await embedder_at(Provider(answered([1])), desk).embed(["one"], record=record)
    most = desk.foresee_embedding("near/e-1", ["one"]).hold.tokens
    assert record.told[-1] == (Usage(1, most, 0), None)


@pytest.mark.parametrize(
    ("answer", "status", "ended"),
    [
        (answered([1]), 500, (Usage(1), "server_error")),
        (answered([1]), 429, (Usage(1), "rate_limited")),
        (AgentInvocationError("lost", kind="connection_lost"), 200, (None, "connection_lost")),
    ],
)
async def test_the_end_of_a_call_that_failed_is_told_with_what_it_took(
    answer: object, status: int, ended: object
) -> None:
    record = Announced()
    with pytest.raises(DependencyUnavailableError):
        await embedder_at(Provider(answer, status=status)).embed(["one"], record=record)
    assert record.told[-1] == ended


@pytest.mark.parametrize("step", ["reserve", "starting"])
async def test_what_the_record_refuses_is_not_sent_and_leaves_the_line(step: str) -> None:
    provider, desk = Provider(answered([1])), desk_of(requests_per_minute=10)
    with pytest.raises(BudgetExceededError):
        await embedder_at(provider, desk).embed(["one"], record=Announced(refuses=step))
    assert provider.sent == []
    assert {state.in_flight + state.requests for state in desk.limiters().values()} == {0}


async def test_it_stands_in_one_line_with_the_calls_of_agents_and_heeds_its_limits() -> None:
    provider, desk = Provider(answered([1])), desk_of(requests_per_minute=1)
    embedder, record = embedder_at(provider, desk), Announced()
    await embedder.embed(["one"], record=record)
    record.until = asyncio.get_running_loop().time() + 1
    with pytest.raises(DependencyUnavailableError, match="may not be asked within"):
        await embedder.embed(["one"], record=record)
    assert len(provider.sent) == 1
    assert record.told[-1] == "give back"


async def test_an_unknown_provider_is_a_model_that_is_away() -> None:
    embedder = ProviderEmbedder(base_url=PROVIDER.base_url, api_key=None, model="far/e-1", desk=desk_of())
    with pytest.raises(DependencyUnavailableError, match="neither"):
        await embedder.embed(["one"])
