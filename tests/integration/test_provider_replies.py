"""Runs replies as the big providers and local servers send them, and garbage, through the client over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from application.ports.agent_orchestrator import AgentOutput, AgentRequest, ContextBundle
from domain.errors.agent import AgentInvocationError
from domain.models.budget import Usage
from domain.models.roll_call import AgentState
from domain.voting.ballot_reader import read_ballot
from infrastructure.orchestrators.provider_client import ProviderClient, ReplyFacts
from tests.integration.provider_wires import (
    FAILED,
    INVALID,
    KEY,
    THROTTLED,
    VERDICT,
    asking,
    client_at,
    failure_of,
    saying,
    whole,
    wired,
)

FIXTURES = Path(__file__).parents[1] / "fixtures" / "providers"
NOTHING = Usage()


@dataclass(frozen=True)
class Answered:
    """The reply is an answer, a ballot for "yes" unless said otherwise; None where usage is estimated."""

    usage: Usage | None
    ballot: str | None = "yes"


@dataclass(frozen=True)
class Refused:
    """The reply is a failure."""

    kind: str
    state: AgentState = FAILED
    retryable: bool = False
    usage: Usage | None = NOTHING
    retry_after_s: float | None = None


OUTCOMES: Mapping[str, Answered | Refused] = {
    "openai/answered": Answered(Usage(1, 180, 92)),
    "openai/refused_to_answer": Answered(Usage(1, 180, 92), ballot=None),
    "openai/filtered": Refused("empty_reply", INVALID, usage=Usage(1, 180, 0)),
    "openai/out_of_tokens_while_thinking": Refused("empty_reply", INVALID, usage=Usage(1, 180, 1024)),
    "openai/called_a_tool": Refused("empty_reply", INVALID, usage=Usage(1, 180, 92)),
    "openai/rate_limited": Refused("rate_limited", THROTTLED, True, retry_after_s=0.12),
    "openai/no_quota": Refused("quota_exhausted", THROTTLED),
    "openai/no_credit": Refused("quota_exhausted", THROTTLED),
    "openai/wrong_key": Refused("unauthorised"),
    "openai/unknown_model": Refused("unknown_model"),
    "openai/model_not_for_this_project": Refused("unknown_model"),
    "openai/max_tokens_refused": Refused("unsupported_parameter", retryable=True),
    "openai/temperature_refused": Refused("unsupported_parameter", retryable=True),
    "openai/context_too_long": Refused("refused_by_provider"),
    "openai/overloaded": Refused("server_error", retryable=True, retry_after_s=3.0),
    "openai/gateway_gave_up": Refused("server_error", retryable=True, usage=None),
    "openai/bad_gateway_page": Refused("server_error", retryable=True),
    "openai/error_in_200": Refused("provider_error", retryable=True, usage=Usage(1, 180, 40)),
    "anthropic/answered_in_a_fence": Answered(Usage(1, 201, 77)),
    "anthropic/refused_to_answer": Answered(Usage(1, 201, 77), ballot=None),
    "anthropic/rate_limited": Refused("rate_limited", THROTTLED, True, retry_after_s=7.0),
    "anthropic/spend_limit": Refused("quota_exhausted", THROTTLED),
    "anthropic/no_credit": Refused("quota_exhausted", THROTTLED),
    "anthropic/billing": Refused("quota_exhausted", THROTTLED),
    "anthropic/overloaded": Refused("server_error", retryable=True),
    "anthropic/internal": Refused("server_error", retryable=True),
    "anthropic/wrong_key": Refused("unauthorised"),
    "anthropic/not_permitted": Refused("unauthorised"),
    "anthropic/unknown_model": Refused("unknown_model"),
    "anthropic/request_too_large": Refused("refused_by_provider"),
    "anthropic/overloaded_in_200": Refused("provider_error", retryable=True, usage=None),
    "anthropic/stream_overloaded": Refused("provider_error", retryable=True, usage=None),
    "gemini/answered": Answered(Usage(1, 150, 271)),
    "gemini/out_of_tokens_while_thinking": Refused("empty_reply", INVALID, usage=Usage(1, 21, 60)),
    "gemini/filtered": Refused("empty_reply", INVALID, usage=Usage(1, 150, 0)),
    "gemini/rate_limited": Refused("rate_limited", THROTTLED, True, retry_after_s=37.0),
    "gemini/rate_limited_without_details": Refused("rate_limited", THROTTLED, True),
    "gemini/daily_quota": Refused("quota_exhausted", THROTTLED),
    "gemini/no_credit": Refused("quota_exhausted", THROTTLED),
    "gemini/wrong_key": Refused("unauthorised"),
    "gemini/unknown_model": Refused("unknown_model"),
    "gemini/bad_argument": Refused("refused_by_provider"),
    "gemini/overloaded": Refused("server_error", retryable=True),
    "gemini/error_in_200": Refused("rate_limited", THROTTLED, True),
    "gemini/stream_with_usage_in_each_chunk": Answered(Usage(1, 130, 98)),
    "local/llamacpp_answered": Answered(Usage(1, 130, 48)),
    "local/llamacpp_context_error_in_200": Refused("provider_error", usage=None),
    "local/llamacpp_loading": Refused("server_error", retryable=True),
    "local/ollama_unknown_model": Refused("unknown_model"),
    "local/ollama_only_thought": Refused("empty_reply", INVALID, usage=Usage(1, 130, 50)),
    "local/ollama_out_of_memory": Refused("server_error", retryable=True),
    "local/vllm_without_usage": Answered(None),
    "local/vllm_schema_refused": Refused("unsupported_parameter", retryable=True),
    "local/negative_usage": Answered(None),
    "local/absurd_usage": Answered(None),
    "local/sign_in_page": Refused("unreadable_reply", INVALID, usage=None),
    "local/fastapi_refused": Refused("refused_by_provider"),
    "local/streamed": Answered(Usage(1, 130, 48)),
    "local/stream_cut": Refused("stream_truncated", retryable=True, usage=None),
}


def recorded(name: str) -> bytes:
    """The reply in that fixture as it goes over the wire."""
    fixture = json.loads((FIXTURES / f"{name}.json").read_text(encoding="utf-8"))
    body = fixture["text"] if "text" in fixture else json.dumps(fixture["body"])
    headers = {"content-type": "application/json", **fixture["headers"]}
    return whole(fixture["status"], body.encode(), **headers)


async def outcome_of(client: ProviderClient) -> AgentOutput | AgentInvocationError:
    try:
        return await client.complete(asking(), model="m-1")
    except AgentInvocationError as error:
        return error


def test_every_fixture_has_its_outcome() -> None:
    found = {path.relative_to(FIXTURES).with_suffix("").as_posix() for path in FIXTURES.rglob("*.json")}
    assert found == set(OUTCOMES)


@pytest.mark.parametrize("name", [name for name, outcome in OUTCOMES.items() if isinstance(outcome, Refused)])
async def test_each_refusal_is_named_as_what_it_was_and_counted_as_what_it_took(name: str) -> None:
    heard: list[tuple[str, ReplyFacts]] = []
    async with (
        wired(lambda *_: recorded(name)) as wire,
        client_at(wire.base_url, stream="stream" in name, heard=heard) as client,
    ):
        error = await failure_of(client)
    expected = OUTCOMES[name]
    assert Refused(error.kind, error.state, error.retryable, error.usage, error.retry_after_s) == expected
    assert len(wire.heads) == len(heard) == 1
    assert KEY not in str(error)
    assert error.agent_id == "archon-1"


@pytest.mark.parametrize("name", [name for name, outcome in OUTCOMES.items() if isinstance(outcome, Answered)])
async def test_each_answer_is_read_with_what_it_took(name: str) -> None:
    async with wired(lambda *_: recorded(name)) as wire, client_at(wire.base_url, stream="stream" in name) as client:
        output = await client.complete(asking(), model="m-1")
    expected = OUTCOMES[name]
    assert isinstance(expected, Answered)
    if expected.usage is None:
        assert output.usage.calls == 1
        assert 0 < output.usage.output_tokens < 200 < output.usage.input_tokens < 10_000
    else:
        assert output.usage == expected.usage
    if expected.ballot is not None:
        assert read_ballot("archon-1", output.content, VERDICT).answer == expected.ballot


@pytest.mark.parametrize(
    ("name", "status", "retry_after_s", "headers"),
    [
        ("openai/rate_limited", 429, 0.12, {"x-ratelimit-reset-tokens": "6.2s", "retry-after-ms": "120"}),
        ("openai/answered", 200, None, {"x-ratelimit-remaining-requests": "499"}),
        ("anthropic/rate_limited", 429, 7.0, {"anthropic-ratelimit-requests-reset": "2026-11-21T10:00:07Z"}),
        ("gemini/rate_limited", 429, 37.0, {}),
    ],
)
async def test_what_a_reply_says_of_the_pace_is_told_once(
    name: str, status: int, retry_after_s: float | None, headers: Mapping[str, str]
) -> None:
    heard: list[tuple[str, ReplyFacts]] = []
    async with wired(lambda *_: recorded(name)) as wire, client_at(wire.base_url, heard=heard) as client:
        await outcome_of(client)
    ((model, facts),) = heard
    assert (model, facts.status, facts.retry_after_s) == ("m-1", status, retry_after_s)
    assert headers.items() <= facts.headers.items()
    assert not any("request-id" in name or name == "content-type" for name in facts.headers)


async def test_a_second_reply_behind_the_first_is_not_the_answer_to_the_next_request() -> None:
    async with (
        wired(lambda connection, turn: saying(f"{connection}.{turn}") + saying("stale")) as wire,
        client_at(wire.base_url) as client,
    ):
        contents = [(await client.complete(asking(), model="m-1")).content for _ in range(4)]
    assert contents == ["1.0", "2.0", "3.0", "4.0"]


async def test_a_reply_that_comes_while_nobody_asked_is_not_the_answer_to_the_next_request() -> None:
    async with (
        wired(lambda connection, turn: saying(f"{connection}.{turn}")) as wire,
        client_at(wire.base_url) as client,
    ):
        assert (await client.complete(asking(), model="m-1")).content == "1.0"
        assert wire.present is not None
        wire.present.write(saying("stale"))
        await wire.present.drain()
        assert (await client.complete(asking(), model="m-1")).content == "2.0"


async def test_a_connection_that_stays_quiet_is_used_again() -> None:
    async with (
        wired(lambda connection, turn: saying(f"{connection}.{turn}")) as wire,
        client_at(wire.base_url) as client,
    ):
        contents = [(await client.complete(asking(), model="m-1")).content for _ in range(3)]
    assert contents == ["1.0", "1.1", "1.2"]


@pytest.mark.parametrize("header", ["X-Request-Id", "X-Client-Request-Id"])
async def test_a_reply_that_names_another_request_of_ours_is_refused(header: str) -> None:
    def answer(connection: int, turn: int) -> bytes:
        sent = [line for line in wire.heads[0].split(b"\r\n") if line.lower().startswith(b"x-client-request-id:")]
        first = sent[0].partition(b":")[2].strip().decode()
        body = json.dumps({"choices": [{"message": {"content": f"{connection}.{turn}"}}]}).encode()
        return whole(200, body, **{header: first})

    async with wired(answer) as wire, client_at(wire.base_url) as client:
        assert (await client.complete(asking(), model="m-1")).content == "1.0"
        error = await failure_of(client)
    assert (error.kind, error.state, error.retryable, error.usage) == ("reply_of_another_request", FAILED, True, None)


async def test_a_providers_own_name_for_a_request_says_nothing() -> None:
    reply = whole(200, b'{"choices": [{"message": {"content": "fine"}}]}', **{"X-Request-Id": "req_123"})
    async with wired(lambda *_: reply) as wire, client_at(wire.base_url) as client:
        assert [(await client.complete(asking(), model="m-1")).content for _ in range(2)] == ["fine", "fine"]


async def test_a_reply_to_a_request_that_was_not_yet_sent_whole_is_refused() -> None:
    over = asyncio.Event()

    async def hasty(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(saying("before you asked"))
        with contextlib.suppress(ConnectionError):
            await reader.read()
        writer.close()
        over.set()

    long = AgentRequest("a", ContextBundle("t", "q", "long " * 2_000_000), expected=VERDICT)
    async with await asyncio.start_server(hasty, "127.0.0.1", 0, limit=2**16) as listener:
        base_url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/v1"
        async with client_at(base_url) as client:
            with pytest.raises(AgentInvocationError) as caught:
                await client.complete(long, model="m-1")
            await over.wait()
    assert caught.value.kind in {"reply_of_another_request", "connection_lost"}
    assert caught.value.usage is None


@pytest.mark.parametrize(
    ("reply", "usage"),
    [
        (b"", None),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", None),
        (b"HTTP/one.two OK\r\n\r\n", None),
        (whole(302, b"", Location="/elsewhere"), NOTHING),
    ],
)
async def test_a_broken_exchange_may_have_been_paid(reply: bytes, usage: Usage | None) -> None:
    over = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(reply)
        writer.write_eof()
        with contextlib.suppress(ConnectionError):
            await reader.read()
        writer.close()
        over.set()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as listener:
        base_url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/v1"
        async with client_at(base_url) as client:
            assert (await failure_of(client)).usage == usage
            await client.close()
            await over.wait()


async def test_what_was_never_sent_took_nothing() -> None:
    async with await asyncio.start_server(lambda *_: None, "127.0.0.1", 0) as listener:
        base_url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/v1"
    async with client_at(base_url) as client:
        assert (await failure_of(client)).usage == NOTHING
        await client.close()
        error = await failure_of(client)
    assert (error.kind, error.usage) == ("closed", NOTHING)
