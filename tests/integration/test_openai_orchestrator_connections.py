"""Proves that connections of the OpenAI-compatible orchestrator are given up, ended and shared, and its replies read up to a bound."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gzip
import json
import os
import socket
from collections.abc import AsyncIterator

import pytest

from infrastructure.orchestrators.openai_orchestrator import OpenAIOrchestrator
from tests.integration.openai_calls import (
    FAILED,
    answering,
    asking,
    failure_of,
    hanging,
    orchestrator_at,
    service_over,
    whole,
)
from tests.llm_server.handle import LlmServer


@pytest.fixture
def server(llm_server: LlmServer) -> LlmServer:
    return llm_server


@pytest.fixture
async def orchestrator(server: LlmServer) -> AsyncIterator[OpenAIOrchestrator]:
    async with orchestrator_at(server.base_url) as opened:
        yield opened


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
    result = await service_over(orchestrator).invoke_concurrent(requests, agent_timeout_s=4.0)
    assert result.success_count == 72 - len(faults)
    assert set(result.failed_agents) == {f"archon-{n}" for n in range(len(faults))}


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


def test_a_pool_without_connections_is_refused() -> None:
    with pytest.raises(ValueError, match="max_connections is 0"):
        OpenAIOrchestrator(base_url="http://models.example/v1", max_connections=0)
