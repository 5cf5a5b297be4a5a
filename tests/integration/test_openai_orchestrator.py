"""Proves the OpenAI-compatible orchestrator over real sockets: every fault named, every byte bounded, no key astray."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gzip
import json
import logging
import os
import socket
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest

from application.ports.agent_orchestrator import AgentRequest, ContextBundle
from application.services.concurrent_deliberation_service import ConcurrentDeliberationService
from application.services.retry_policy import RetryPolicy
from domain.errors.agent import AgentInvocationError
from domain.errors.deliberation import UnreadableBallotError
from domain.errors.dependency import DependencyUnavailableError
from domain.models.agent_output import AgentFailure
from domain.models.question import AnswerFormat, AnswerKind
from domain.models.roll_call import AgentState
from domain.voting.ballot_reader import read_ballot
from infrastructure.orchestrators.openai_orchestrator import OpenAIOrchestrator
from infrastructure.orchestrators.prompts import build_prompt
from infrastructure.orchestrators.provider_client import ProviderClient
from infrastructure.stubs.halt_checker_stub import HaltCheckerStub
from tests.llm_server.handle import LlmServer
from tests.llm_server.journal import key_fingerprint

KEY = "sk-test-0123456789abcdef"
CONTEXT = ContextBundle("t-1", "Should the city centre be closed to private cars?")
VERDICT = AnswerFormat(AnswerKind.VERDICT)
FAILED, INVALID, THROTTLED = AgentState.FAILED, AgentState.INVALID, AgentState.THROTTLED


@pytest.fixture
def server(llm_server: LlmServer) -> LlmServer:
    return llm_server


def asking(
    agent_id: str = "archon-1", *, model: str | None = None, expected: AnswerFormat | None = VERDICT
) -> AgentRequest:
    return AgentRequest(agent_id, CONTEXT, persona=f"You are {agent_id}, nobody else.", model=model, expected=expected)


def orchestrator_at(
    base_url: str, *, model: str | None = "m-1", max_reply_bytes: int = 1024 * 1024
) -> OpenAIOrchestrator:
    return OpenAIOrchestrator(
        base_url=base_url, api_key=KEY, model=model, max_connections=72, max_reply_bytes=max_reply_bytes
    )


@pytest.fixture
async def orchestrator(server: LlmServer) -> AsyncIterator[OpenAIOrchestrator]:
    async with orchestrator_at(server.base_url) as opened:
        yield opened


def service_over(orchestrator: OpenAIOrchestrator) -> ConcurrentDeliberationService:
    return ConcurrentDeliberationService(
        orchestrator=orchestrator, halt_checker=HaltCheckerStub(), retries=RetryPolicy(base_s=0.001)
    )


async def failure_of(orchestrator: OpenAIOrchestrator, request: AgentRequest | None = None) -> AgentInvocationError:
    with pytest.raises(AgentInvocationError) as caught:
        await orchestrator.invoke(request or asking())
    return caught.value


async def ending_of(orchestrator: OpenAIOrchestrator, *, agent_timeout_s: float = 0.2) -> AgentFailure:
    result = await service_over(orchestrator).invoke_concurrent([asking()], agent_timeout_s=agent_timeout_s)
    assert result.outputs == ()
    return result.failures[0]


@asynccontextmanager
async def answering(reply: bytes) -> AsyncIterator[str]:
    """The address of a server that answers every request with exactly these bytes and closes the connection."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            length = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
            await reader.readexactly(int(length[0].partition(b":")[2]) if length else 0)
            writer.write(reply)
            await writer.drain()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with listener:
        yield f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/v1"


@asynccontextmanager
async def hanging(begin: bytes = b"") -> AsyncIterator[tuple[str, asyncio.Event, asyncio.Event]]:
    """An address that never ends its answer, with events for the arrival of a request and for its being given up."""
    arrived, left = asyncio.Event(), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        arrived.set()
        writer.write(begin)
        with contextlib.suppress(ConnectionError):
            await reader.read()
        left.set()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as listener:
        yield f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/v1", arrived, left


def whole(status: str, body: bytes, *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


# The good way


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


async def test_seventy_two_are_in_flight_at_the_far_end(server: LlmServer, orchestrator: OpenAIOrchestrator) -> None:
    server.configure(fault="hold")
    requests = [asking(f"archon-{n}") for n in range(72)]
    asked = asyncio.create_task(service_over(orchestrator).invoke_concurrent(requests))
    await server.until(held_at_least=72)
    server.release()
    assert (await asked).success_count == 72
    assert server.stats()["peak_in_flight"] == 72


async def test_connections_are_used_again(server: LlmServer, orchestrator: OpenAIOrchestrator) -> None:
    for _ in range(5):
        await orchestrator.invoke(asking())
    # One for the calls, one for the question how many there are.
    assert server.stats()["connections"] <= 2


async def test_a_prompt_of_more_than_a_mebibyte_arrives_whole(
    server: LlmServer, orchestrator: OpenAIOrchestrator
) -> None:
    server.configure(record_bodies=True)
    text = "ø\n" * 500_000
    await orchestrator.invoke(AgentRequest("a", ContextBundle("t", "q", text), expected=VERDICT))
    assert text in server.journal()[0]["body"]["messages"][0]["content"]


# Every fault named as what it was


@pytest.mark.parametrize(
    ("fault", "state", "kind", "retryable"),
    [
        ("429", THROTTLED, "rate_limited", True),
        ("500", FAILED, "server_error", True),
        ("503", FAILED, "server_error", True),
        ("reset", FAILED, "connection_lost", True),
        ("truncated", FAILED, "connection_lost", True),
        ("bad_status_line", FAILED, "connection_lost", True),
        ("endless", FAILED, "reply_too_large", False),
        ("huge", FAILED, "reply_too_large", False),
        ("redirect", FAILED, "redirect_refused", False),
        ("401", FAILED, "unauthorised", False),
        ("404_model", FAILED, "unknown_model", False),
        ("400_response_format", FAILED, "unsupported_parameter", True),
        ("error_object", FAILED, "provider_error", True),
        ("empty", INVALID, "empty_reply", False),
        ("null_content", INVALID, "empty_reply", False),
        ("no_choices", INVALID, "empty_reply", False),
        ("empty_body", INVALID, "unreadable_reply", False),
        ("garbage", INVALID, "unreadable_reply", False),
        ("html", INVALID, "unreadable_reply", False),
    ],
)
async def test_each_fault_is_named_as_what_it_was(
    server: LlmServer, orchestrator: OpenAIOrchestrator, fault: str, state: AgentState, kind: str, retryable: bool
) -> None:
    server.configure(fault=fault)
    error = await failure_of(orchestrator)
    assert (error.state, error.kind, error.retryable) == (state, kind, retryable)
    assert error.agent_id == "archon-1"
    assert f"{server.host}:{server.port}" in str(error)
    assert len(str(error)) < 450
    assert server.stats()["requests"] == 1


@pytest.mark.parametrize("fault", ["hang", "drip", "slow_start"])
async def test_what_does_not_come_in_time_is_timed_out(
    server: LlmServer, orchestrator: OpenAIOrchestrator, fault: str
) -> None:
    server.configure(fault=fault)
    assert (await ending_of(orchestrator)).state is AgentState.TIMED_OUT
    await server.until(disconnects_at_least=1, in_flight_at_most=0)


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ("not_ballot", "unreadable_reply"),
        ("wrong_schema", "wrong_answer"),
        ("nul_content", "unreadable_reply"),
        ("cut_off", "unreadable_reply"),
    ],
)
async def test_a_reply_that_is_no_ballot_is_left_to_the_ballot_reader(
    server: LlmServer, orchestrator: OpenAIOrchestrator, fault: str, kind: str
) -> None:
    server.configure(fault=fault)
    output = (await service_over(orchestrator).invoke_concurrent([asking()])).outputs[0]
    with pytest.raises(UnreadableBallotError) as caught:
        read_ballot("archon-1", output.content, VERDICT)
    assert caught.value.kind == kind
    assert output.truncated is (fault == "cut_off")


@pytest.mark.parametrize("fault", ["prose", "nul"])
async def test_a_ballot_in_prose_or_with_nuls_is_read(
    server: LlmServer, orchestrator: OpenAIOrchestrator, fault: str
) -> None:
    server.configure(fault=fault)
    output = (await service_over(orchestrator).invoke_concurrent([asking()])).outputs[0]
    assert read_ballot("archon-1", output.content, VERDICT).answer in {"yes", "no", None}


@pytest.mark.parametrize("fault", ["negative_usage", "absurd_usage"])
async def test_impossible_usage_is_replaced_by_an_estimate(
    server: LlmServer, orchestrator: OpenAIOrchestrator, fault: str
) -> None:
    server.configure(fault=fault)
    usage = (await orchestrator.invoke(asking())).usage
    assert 0 < usage.input_tokens < 2000
    assert 0 < usage.output_tokens < 200


async def test_the_wait_that_a_provider_asks_for_is_passed_on(
    server: LlmServer, orchestrator: OpenAIOrchestrator
) -> None:
    server.configure(fault={"fault": "429", "retry_after": 7})
    assert (await failure_of(orchestrator)).retry_after_s == 7
    server.configure(fault={"fault": "429", "retry_after": None, "retry_after_date": 60})
    assert 55 < ((await failure_of(orchestrator)).retry_after_s or 0) <= 61


async def test_usage_counts_the_calls_of_all_attempts(server: LlmServer, orchestrator: OpenAIOrchestrator) -> None:
    server.configure(faults=[{"fault": "503", "nth": 1}])
    result = await service_over(orchestrator).invoke_concurrent([asking()])
    assert result.outputs[0].usage.calls == server.stats()["requests"] == 2


async def test_a_refused_schema_is_remembered_for_that_model(
    server: LlmServer, orchestrator: OpenAIOrchestrator, caplog: pytest.LogCaptureFixture
) -> None:
    server.configure(faults=[{"fault": "400_response_format", "model": "m-1"}])
    requests = [asking(f"archon-{n}") for n in range(20)]
    with caplog.at_level(logging.WARNING, logger="infrastructure"):
        assert (await service_over(orchestrator).invoke_concurrent(requests)).success_count == 20
    assert len(caplog.records) == 1
    await orchestrator.invoke(asking("archon-30"))
    await orchestrator.invoke(asking("archon-31", model="m-2"))
    assert [entry["response_format"] for entry in server.journal()[-2:]] == [False, True]


async def test_without_structured_output_none_is_asked_for(server: LlmServer) -> None:
    async with OpenAIOrchestrator(base_url=server.base_url, model="m-1", max_connections=1, structured=False) as plain:
        await plain.invoke(asking())
    assert [entry["response_format"] for entry in server.journal()] == [False]


async def test_a_model_that_wants_the_newer_limit_gets_it(caplog: pytest.LogCaptureFixture) -> None:
    message = "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
    refusal = whole("400 Bad Request", json.dumps({"error": {"message": message}}).encode())
    async with answering(refusal) as base_url, orchestrator_at(base_url) as orchestrator:
        assert (await failure_of(orchestrator)).retryable
        assert "max_completion_tokens" in caplog.text
        assert (await failure_of(orchestrator)).kind == "refused_by_provider"


# Connections


async def test_a_closed_port_is_a_failed_connection() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        async with orchestrator_at(f"http://127.0.0.1:{taken.getsockname()[1]}/v1") as orchestrator:
            error = await failure_of(orchestrator)
    assert (error.state, error.kind, error.retryable) == (FAILED, "connect_failed", True)
    assert os.strerror(errno.ECONNREFUSED) in str(error)


async def test_a_connection_that_nobody_takes_is_given_up() -> None:
    with socket.socket() as listener, contextlib.ExitStack() as stack:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        # Fills the queue of connections that wait to be accepted; the kernel then leaves further ones without an answer.
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        base_url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        async with OpenAIOrchestrator(
            base_url=base_url, model="m-1", max_connections=1, connect_timeout_s=0.1
        ) as orchestrator:
            error = await failure_of(orchestrator)
    assert (error.state, error.kind, error.retryable) == (FAILED, "connect_failed", True)
    assert "within 0.1 s" in str(error)


async def test_a_server_without_tls_cannot_prove_who_it_is() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 This port speaks no TLS\r\n\r\n")
        writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    base_url = f"https://127.0.0.1:{listener.sockets[0].getsockname()[1]}/v1"
    async with listener, orchestrator_at(base_url) as orchestrator:
        error = await failure_of(orchestrator)
    assert (error.state, error.kind, error.retryable) == (FAILED, "certificate_refused", False)


async def test_a_cancelled_call_closes_its_connection(server: LlmServer, orchestrator: OpenAIOrchestrator) -> None:
    server.configure(fault="hang")
    calls = [asyncio.create_task(orchestrator.invoke(asking(f"archon-{n}"))) for n in range(72)]
    await server.until(in_flight_at_least=72)
    for call in calls:
        call.cancel()
    endings = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(ending, asyncio.CancelledError) for ending in endings)
    await server.until(disconnects_at_least=72, in_flight_at_most=0)


async def test_closing_ends_the_calls_in_flight_and_refuses_later_ones(
    server: LlmServer, orchestrator: OpenAIOrchestrator
) -> None:
    server.configure(fault="hang")
    call = asyncio.create_task(failure_of(orchestrator))
    await server.until(in_flight_at_least=1)
    await orchestrator.close()
    await orchestrator.close()
    assert (await call).kind == "closed"
    assert (await failure_of(orchestrator)).kind == "closed"
    await server.until(in_flight_at_most=0)


async def test_one_agents_fault_is_no_other_agents(server: LlmServer, orchestrator: OpenAIOrchestrator) -> None:
    faults = ["429", "500", "reset", "empty", "garbage", "endless", "truncated", "hang"]
    server.configure(
        faults=[{"fault": fault, "contains": f"archon-{n}, "} for n, fault in enumerate(faults)],
    )
    requests = [asking(f"archon-{n}") for n in range(72)]
    result = await service_over(orchestrator).invoke_concurrent(requests, agent_timeout_s=1.0)
    assert result.success_count == 72 - len(faults)
    assert set(result.failed_agents) == {f"archon-{n}" for n in range(len(faults))}


# Bounds


async def test_a_reply_is_read_up_to_its_bound_and_no_further(
    server: LlmServer, orchestrator: OpenAIOrchestrator
) -> None:
    server.configure(fault="endless")
    await failure_of(orchestrator)
    await server.until(in_flight_at_most=0)
    # What the kernel and aiohttp hold on top of what was read; an endless reply would go on for as long as it is taken.
    assert server.journal()[0]["bytes_sent"] < 32 * 1024 * 1024


async def test_a_reply_of_exactly_the_bound_is_read() -> None:
    reply = json.dumps({"choices": [{"message": {"content": "x" * 1000}}]}).encode()
    async with answering(whole("200 OK", reply)) as base_url:
        async with orchestrator_at(base_url, max_reply_bytes=len(reply)) as orchestrator:
            assert len((await orchestrator.invoke(asking())).content) == 1000
        async with orchestrator_at(base_url, max_reply_bytes=len(reply) - 1) as orchestrator:
            assert (await failure_of(orchestrator)).kind == "reply_too_large"


async def test_a_packed_reply_is_bounded_by_what_it_unpacks_to() -> None:
    bomb = gzip.compress(b" " * 16 * 1024 * 1024)
    reply = whole("200 OK", bomb, "Content-Encoding: gzip")
    async with answering(reply) as base_url, orchestrator_at(base_url) as orchestrator:
        assert (await failure_of(orchestrator)).kind == "reply_too_large"


async def test_an_error_without_an_end_is_still_that_error() -> None:
    async with (
        answering(b"HTTP/1.1 503 Busy\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 500_000) as base_url,
        orchestrator_at(base_url) as orchestrator,
    ):
        assert (await failure_of(orchestrator)).kind == "server_error"


async def test_an_error_whose_text_does_not_come_is_still_that_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infrastructure.orchestrators.provider_exchange._REFUSAL_BODY_TIMEOUT_S", 0.02)
    head = b"HTTP/1.1 429 Slow down\r\nContent-Length: 9\r\nRetry-After: 4\r\n\r\nhalf"
    async with hanging(head) as (base_url, _, left), orchestrator_at(base_url) as orchestrator:
        error = await failure_of(orchestrator)
        await left.wait()
    assert (error.kind, error.retry_after_s) == ("rate_limited", 4.0)


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nContent-Length: 10\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nabcd",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\x00\xff" * 100,
    ],
)
async def test_what_is_no_http_is_a_lost_connection(reply: bytes) -> None:
    async with answering(reply) as base_url, orchestrator_at(base_url) as orchestrator:
        error = await failure_of(orchestrator)
    assert (error.state, error.kind, error.retryable) == (FAILED, "connection_lost", True)


# The key


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_never_followed(server: LlmServer, orchestrator: OpenAIOrchestrator, status: int) -> None:
    with LlmServer() as elsewhere:
        location = f"{elsewhere.base_url}/chat/completions"
        server.configure(fault={"fault": "redirect", "location": location, "redirect_status": status})
        assert (await failure_of(orchestrator)).kind == "redirect_refused"
        assert elsewhere.journal() == []
    assert [entry["path"] for entry in server.journal()] == ["/v1/chat/completions"]


async def test_proxies_of_the_environment_are_not_used(server: LlmServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    async with orchestrator_at(server.base_url) as orchestrator:
        assert (await orchestrator.invoke(asking())).content


async def test_cookies_are_not_kept() -> None:
    seen: list[bytes] = []
    reply = whole("200 OK", b'{"choices": [{"message": {"content": "x"}}]}', "Set-Cookie: session=1")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(reply)
        writer.close()

    listener = await asyncio.start_server(serve, "localhost", 0, family=socket.AF_INET)
    base_url = f"http://localhost:{listener.sockets[0].getsockname()[1]}/v1"
    async with listener, orchestrator_at(base_url) as orchestrator:
        await orchestrator.invoke(asking())
        await orchestrator.invoke(asking())
    assert len(seen) == 2
    assert not any(b"cookie" in head.lower() for head in seen)


@pytest.mark.parametrize("lead", [0, 190])
@pytest.mark.parametrize(
    "status", ["400 Bad Request", "401 Unauthorized", "404 Gone", "429 Slow", "500 Broken", "200 OK"]
)
async def test_a_key_that_the_provider_repeats_stands_in_no_error_and_no_log(
    status: str, lead: int, caplog: pytest.LogCaptureFixture
) -> None:
    error = {"error": {"message": f"{'x' * lead} Incorrect API key provided: {KEY}"}}
    reply = whole(status, json.dumps(error).encode(), f"X-Echo: {KEY}")
    with caplog.at_level(logging.DEBUG):
        async with answering(reply) as base_url, orchestrator_at(base_url) as orchestrator:
            failure = await ending_of(orchestrator, agent_timeout_s=5)
            raised = await failure_of(orchestrator)
    told = (
        f"{failure!r} {raised!r} {raised} {vars(raised)!r} {''.join(traceback.format_exception(raised))} {caplog.text}"
    )
    assert "sk-test" not in told


async def test_a_key_that_the_provider_repeats_stands_in_no_output() -> None:
    message = {"content": f"Your key is {KEY}."}
    reply = json.dumps({"model": KEY, "choices": [{"message": message}]}).encode()
    async with answering(whole("200 OK", reply)) as base_url, orchestrator_at(base_url) as orchestrator:
        assert KEY not in repr(await orchestrator.invoke(asking()))


@pytest.mark.parametrize("reply", [b"", b"HTTP/one.two OK\r\n\r\n"])
async def test_no_chain_of_errors_leads_to_the_headers_of_the_request(reply: bytes) -> None:
    async with answering(reply) as base_url, orchestrator_at(base_url) as orchestrator:
        error: BaseException | None = await failure_of(orchestrator)
        assert KEY not in repr(orchestrator)
    while error is not None:
        assert not isinstance(error, aiohttp.ClientError)
        assert KEY not in repr(error)
        error = error.__cause__ or error.__context__


# The model that is asked when none is named


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


# What aiohttp may raise


def every_error_of_aiohttp() -> set[type[aiohttp.ClientError]]:
    found: set[type[aiohttp.ClientError]] = set()
    unseen: list[type[aiohttp.ClientError]] = [aiohttp.ClientError]
    while unseen:
        kind = unseen.pop()
        found.add(kind)
        unseen += kind.__subclasses__()
    return found


@pytest.mark.parametrize("kind", sorted(every_error_of_aiohttp(), key=str))
def test_no_error_of_aiohttp_is_unmapped(kind: type[Exception]) -> None:
    error = kind.__new__(kind)
    if isinstance(error, aiohttp.ClientConnectorError):
        error._os_error = OSError(5, "broken")
    failure = ProviderClient(base_url="http://models.example/v1", max_connections=1)._exchange._broken(error)  # type: ignore[attr-defined]
    assert failure.kind in {"certificate_refused", "connect_failed", "connection_lost"}
    assert failure.state is FAILED


def test_a_pool_without_connections_is_refused() -> None:
    with pytest.raises(ValueError, match="max_connections is 0"):
        OpenAIOrchestrator(base_url="http://models.example/v1", max_connections=0)
