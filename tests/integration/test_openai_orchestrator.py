"""Proves the OpenAI-compatible orchestrator over real sockets: what it sends, what it makes of good answers, and the model it asks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from application.ports.agent_orchestrator import AgentRequest, ContextBundle
from domain.errors.dependency import DependencyUnavailableError
from domain.models.question import AnswerFormat, AnswerKind
from domain.voting.ballot_reader import read_ballot
from infrastructure.orchestrators.openai_orchestrator import OpenAIOrchestrator
from infrastructure.orchestrators.prompts import build_prompt
from tests.integration.openai_calls import (
    FAILED,
    KEY,
    VERDICT,
    answering,
    asking,
    failure_of,
    hanging,
    orchestrator_at,
    service_over,
    whole,
)
from tests.llm_server.handle import LlmServer
from tests.llm_server.journal import key_fingerprint


@pytest.fixture
def server(llm_server: LlmServer) -> LlmServer:
    return llm_server


@pytest.fixture
async def orchestrator(server: LlmServer) -> AsyncIterator[OpenAIOrchestrator]:
    async with orchestrator_at(server.base_url) as opened:
        yield opened


async def test_an_answer_carries_content_model_and_usage(server: LlmServer, orchestrator: OpenAIOrchestrator) -> None:
    server.configure(answers={"archon-1": '{"answer": "yes", "confidence": 0.5, "reasoning": "r"}'})
    request = asking()
    output = await orchestrator.invoke(request)
    assert (output.agent_id, output.request_id) == ("archon-1", request.request_id)
    assert read_ballot("archon-1", output.content, VERDICT).answer == "yes"
    assert output.model == "m-1"
    assert output.usage.calls == 1
    assert output.usage.input_tokens > 50
    assert not output.truncated
    assert not output.simulated


async def test_the_far_end_gets_the_prompt_the_schema_the_key_and_no_more(
    server: LlmServer, orchestrator: OpenAIOrchestrator
) -> None:
    server.configure(record_bodies=True)
    request = asking()
    await orchestrator.invoke(request)
    (entry,) = server.journal()
    prompt = build_prompt(request)
    assert entry["body"]["messages"] == [
        {"role": "system", "content": prompt.system},
        {"role": "user", "content": prompt.user},
    ]
    assert entry["body"]["response_format"]["type"] == "json_schema"
    assert entry["authorization_sha256"] == key_fingerprint(KEY)
    assert entry["headers"]["accept-encoding"] == "identity"
    assert not entry["stream"]


async def test_without_a_key_no_authorization_is_sent(server: LlmServer) -> None:
    async with OpenAIOrchestrator(base_url=server.base_url, model="m-1", max_connections=1) as keyless:
        await keyless.invoke(asking())
    assert [entry["authorization"] for entry in server.journal()] == [False]


@pytest.mark.parametrize("kind", AnswerKind)
async def test_an_answer_by_schema_is_a_ballot_of_every_kind(
    orchestrator: OpenAIOrchestrator, kind: AnswerKind
) -> None:
    options = ("north", 'so"uth', "øst") if kind.has_options else ()
    bounds = (1.0, 10.0) if kind is AnswerKind.SCORE else (None, None)
    expected = AnswerFormat(kind, options, *bounds)
    output = await orchestrator.invoke(asking(expected=expected))
    assert read_ballot("archon-1", output.content, expected).confidence is not None


async def test_a_member_is_asked_of_its_own_model(server: LlmServer, orchestrator: OpenAIOrchestrator) -> None:
    assert (await orchestrator.invoke(asking(model="m-2"))).model == "m-2"
    assert [entry["model"] for entry in server.journal()] == ["m-2"]


async def test_a_prompt_of_more_than_a_mebibyte_arrives_whole(
    server: LlmServer, orchestrator: OpenAIOrchestrator
) -> None:
    server.configure(record_bodies=True)
    text = "ø\n" * 500_000
    await orchestrator.invoke(AgentRequest("a", ContextBundle("t", "q", text), expected=VERDICT))
    assert text in server.journal()[0]["body"]["messages"][0]["content"]


async def test_the_first_model_of_the_list_is_looked_up_once(server: LlmServer) -> None:
    server.configure(models=["first", "second"])
    requests = [asking(f"archon-{n}") for n in range(72)]
    async with orchestrator_at(server.base_url, model=None) as orchestrator:
        result = await service_over(orchestrator).invoke_concurrent(requests)
        await orchestrator.invoke(asking())
    assert {output.model for output in result.outputs} == {"first"}
    assert [entry["path"] for entry in server.journal()].count("/v1/models") == 1


async def test_a_failed_look_up_fails_each_agent_by_its_own_name_and_is_tried_again() -> None:
    replies = whole("503 Busy", b"busy", "Retry-After: 3")
    async with answering(replies) as base_url, orchestrator_at(base_url, model=None) as orchestrator:
        errors = await asyncio.gather(*(failure_of(orchestrator, asking(f"archon-{n}")) for n in range(3)))
        assert [error.agent_id for error in errors] == ["archon-0", "archon-1", "archon-2"]
        assert {(error.kind, error.retry_after_s) for error in errors} == {("server_error", 3.0)}
        assert (await failure_of(orchestrator)).kind == "server_error"


async def test_an_endpoint_without_models_says_which_setting_is_missing(server: LlmServer) -> None:
    server.configure(models=[])
    async with orchestrator_at(server.base_url, model=None) as orchestrator:
        error = await failure_of(orchestrator)
    assert (error.state, error.kind, error.retryable) == (FAILED, "no_model", False)
    assert "CONCLAVE_LLM_MODEL" in str(error)


async def test_a_look_up_that_nobody_waits_for_any_more_is_given_up() -> None:
    async with hanging() as (base_url, arrived, left), orchestrator_at(base_url, model=None) as orchestrator:
        calls = [asyncio.create_task(orchestrator.invoke(asking(f"archon-{n}"))) for n in range(3)]
        await arrived.wait()
        calls[0].cancel()
        await asyncio.wait(calls[:1])
        assert not left.is_set()
        for call in calls:
            call.cancel()
        await asyncio.wait(calls)
        await left.wait()
        assert all(call.cancelled() for call in calls)


async def test_closing_ends_a_look_up() -> None:
    async with hanging() as (base_url, arrived, left), orchestrator_at(base_url, model=None) as orchestrator:
        call = asyncio.create_task(failure_of(orchestrator))
        await arrived.wait()
        await orchestrator.close()
        assert (await call).kind == "closed"
        await left.wait()


async def test_models_are_listed_for_whoever_checks_the_endpoint(server: LlmServer) -> None:
    server.configure(models=["b", "a"])
    async with orchestrator_at(server.base_url) as orchestrator:
        assert await orchestrator.list_models() == ["b", "a"]


async def test_models_are_listed_while_all_connections_are_in_use(server: LlmServer) -> None:
    server.configure(fault="hang")
    async with OpenAIOrchestrator(base_url=server.base_url, model="m-1", max_connections=1) as orchestrator:
        call = asyncio.create_task(orchestrator.invoke(asking()))
        await server.until(in_flight_at_least=1)
        assert await orchestrator.list_models() == ["test-model"]
        call.cancel()
        await asyncio.wait([call])


async def test_an_endpoint_that_hangs_is_a_dependency_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infrastructure.orchestrators.provider_client._MODELS_TIMEOUT_S", 0.02)
    async with hanging() as (base_url, _, left), orchestrator_at(base_url) as orchestrator:
        with pytest.raises(DependencyUnavailableError, match=r"within 0\.02 s"):
            await orchestrator.list_models()
        await left.wait()


async def test_an_endpoint_that_cannot_be_checked_is_a_dependency_away() -> None:
    async with answering(whole("404 Not Found", b"")) as base_url, orchestrator_at(base_url) as orchestrator:
        with pytest.raises(DependencyUnavailableError, match="answered 404"):
            await orchestrator.list_models()
