"""Runs replies as the big providers and local servers send them, and garbage, through the client over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import cast

import pytest

from application.ports.agent_orchestrator import AgentOutput, AgentRequest, ContextBundle
from domain.errors.agent import AgentInvocationError
from domain.models.budget import Usage
from domain.models.question import AnswerFormat, AnswerKind
from domain.models.roll_call import AgentState
from domain.voting.ballot_reader import read_ballot
from infrastructure.orchestrators.chat_request import Dialect
from infrastructure.orchestrators.provider_client import ProviderClient, ReplyFacts
from tests.llm_server.handle import LlmServer

FIXTURES = Path(__file__).parents[1] / "fixtures" / "providers"
KEY = "sk-test-0123456789abcdef"
CONTEXT = ContextBundle("t-1", "Should the city centre be closed to private cars?")
VERDICT = AnswerFormat(AnswerKind.VERDICT)
FAILED, INVALID, THROTTLED, TIMED_OUT = (
    AgentState.FAILED,
    AgentState.INVALID,
    AgentState.THROTTLED,
    AgentState.TIMED_OUT,
)
NOTHING = Usage()


def asking(agent_id: str = "archon-1") -> AgentRequest:
    return AgentRequest(agent_id, CONTEXT, persona=f"You are {agent_id}.", expected=VERDICT)


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


def whole(status: int, body: bytes, **headers: str) -> bytes:
    reason = HTTPStatus(status).phrase if status in set(HTTPStatus) else "Odd"
    lines = [f"HTTP/1.1 {status} {reason}", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def saying(text: str) -> bytes:
    return whole(200, json.dumps({"choices": [{"message": {"content": text}}]}).encode())


class Wire:
    """A server that reads requests and writes whatever `answer` gives for the nth of a connection; counts connections."""

    def __init__(self, answer: Callable[[int, int], bytes]) -> None:
        self.answer = answer
        self.connections = 0
        self.heads: list[bytes] = []
        self.present: asyncio.StreamWriter | None = None
        self.handlers: list[asyncio.Task[None]] = []
        self.base_url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.handlers.append(cast("asyncio.Task[None]", asyncio.current_task()))
        connection, self.present = self.connections, writer
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            for turn in range(100):
                head = await reader.readuntil(b"\r\n\r\n")
                self.heads.append(head)
                length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
                await reader.readexactly(int(length.partition(b":")[2]))
                writer.write(self.answer(connection, turn))
                await writer.drain()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


@asynccontextmanager
async def wired(answer: Callable[[int, int], bytes]) -> AsyncIterator[Wire]:
    wire = Wire(answer)
    listener = await asyncio.start_server(wire.serve, "127.0.0.1", 0)
    async with listener:
        wire.base_url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/v1"
        yield wire
        await asyncio.gather(*wire.handlers)


@asynccontextmanager
async def client_at(
    base_url: str, *, stream: bool = False, heard: list[tuple[str, ReplyFacts]] | None = None, patience_s: float = 30.0
) -> AsyncIterator[ProviderClient]:
    client = ProviderClient(
        base_url=base_url,
        api_key=KEY,
        max_connections=8,
        dialect=Dialect(stream=stream),
        first_byte_timeout_s=patience_s,
        idle_timeout_s=patience_s,
        heard=None if heard is None else lambda model, facts: heard.append((model, facts)),
    )
    async with client:
        yield client


async def failure_of(client: ProviderClient) -> AgentInvocationError:
    with pytest.raises(AgentInvocationError) as caught:
        await client.complete(asking(), model="m-1")
    return caught.value


async def outcome_of(client: ProviderClient) -> AgentOutput | AgentInvocationError:
    try:
        return await client.complete(asking(), model="m-1")
    except AgentInvocationError as error:
        return error


# Each dialect


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


# The reply of another request


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


# Streams


async def test_a_streamed_answer_is_that_of_the_whole_and_frees_its_connection(llm_server: LlmServer) -> None:
    async with client_at(llm_server.base_url) as whole_client:
        expected = await whole_client.complete(asking(), model="m-1")
    before = llm_server.stats()["connections"]
    async with client_at(llm_server.base_url, stream=True) as client:
        outputs = [await client.complete(asking(), model="m-1") for _ in range(3)]
    assert {(output.content, output.model, output.usage) for output in outputs} == {
        (expected.content, expected.model, expected.usage)
    }
    assert [entry["stream"] for entry in llm_server.journal()] == [False, True, True, True]
    # One for the three calls, one for the question how many there are.
    assert llm_server.stats()["connections"] <= before + 2


async def test_only_where_the_settings_say_so_is_a_stream_asked_for(llm_server: LlmServer) -> None:
    async with client_at(llm_server.base_url) as client:
        await client.complete(asking(), model="m-1")
    assert [entry["stream"] for entry in llm_server.journal()] == [False]


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ("hang", "no_first_byte"),
        ("slow_start", "no_first_byte"),
        ("late_event", "no_first_byte"),
        ("idle_stream", "stalled"),
        ({"fault": "drip", "interval_seconds": 0.01}, "stalled"),
    ],
)
async def test_a_stream_that_does_not_go_on_is_timed_out(llm_server: LlmServer, fault: object, kind: str) -> None:
    llm_server.configure(fault=fault)
    async with client_at(llm_server.base_url, stream=True, patience_s=0.3) as client:
        error = await failure_of(client)
    assert (error.kind, error.state, error.retryable, error.usage) == (kind, TIMED_OUT, True, None)
    await llm_server.until(in_flight_at_most=0)


@pytest.mark.parametrize(
    ("fault", "kind", "state"),
    [
        ("reset", "connection_lost", FAILED),
        ("truncated", "connection_lost", FAILED),
        ("cut_stream", "stream_truncated", FAILED),
        ("garbage_event", "stream_unreadable", FAILED),
        ("error_event", "provider_error", FAILED),
        ("endless", "reply_too_large", FAILED),
        ("html", "unreadable_reply", INVALID),
        ("garbage", "unreadable_reply", INVALID),
    ],
)
async def test_a_stream_that_breaks_is_named_as_what_it_was_and_may_have_been_paid(
    llm_server: LlmServer, fault: str, kind: str, state: AgentState
) -> None:
    llm_server.configure(fault=fault)
    async with client_at(llm_server.base_url, stream=True) as client:
        error = await failure_of(client)
    assert (error.kind, error.state, error.usage) == (kind, state, None)
    await llm_server.until(in_flight_at_most=0)


async def test_a_cancelled_stream_closes_its_connection(llm_server: LlmServer) -> None:
    llm_server.configure(fault="idle_stream")
    async with client_at(llm_server.base_url, stream=True) as client:
        call = asyncio.create_task(client.complete(asking(), model="m-1"))
        await llm_server.until(in_flight_at_least=1)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await llm_server.until(disconnects_at_least=1, in_flight_at_most=0)


async def test_an_unstreamed_reply_has_the_time_of_its_agent(llm_server: LlmServer) -> None:
    llm_server.configure(latency_seconds=0.15)
    async with client_at(llm_server.base_url, patience_s=0.01) as client:
        assert (await client.complete(asking(), model="m-1")).content


async def test_stream_options_that_are_refused_are_left_out_then_the_stream_itself() -> None:
    replies = [
        whole(400, b'{"error": {"message": "Unknown parameter: stream_options"}}'),
        whole(400, b'{"error": {"message": "stream is not supported"}}'),
        saying("fine"),
    ]
    async with wired(lambda *_: replies.pop(0)) as wire, client_at(wire.base_url, stream=True) as client:
        assert [(await failure_of(client)).kind for _ in range(2)] == ["unsupported_parameter"] * 2
        assert (await client.complete(asking(), model="m-1")).content == "fine"
        assert b'"stream"' not in client.body_of(asking(), model="m-1")


async def test_a_key_that_comes_in_two_pieces_stands_in_no_output() -> None:
    pieces = [KEY[:9], KEY[9:]]
    events = [{"choices": [{"delta": {"content": text}}]} for text in pieces]
    text = "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"
    reply = whole(200, text.encode(), **{"content-type": "text/event-stream"})
    async with wired(lambda *_: reply) as wire, client_at(wire.base_url, stream=True) as client:
        assert KEY not in (await client.complete(asking(), model="m-1")).content


# What a call took where no reply says it


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
