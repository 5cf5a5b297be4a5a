"""Proves that the key of the OpenAI-compatible orchestrator goes to its far end alone: into no redirect, proxy, error, log or output."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import traceback
from collections.abc import AsyncIterator

import aiohttp
import pytest

from infrastructure.orchestrators.openai_orchestrator import OpenAIOrchestrator
from tests.integration.openai_calls import KEY, answering, asking, ending_of, failure_of, orchestrator_at, whole
from tests.llm_server.handle import LlmServer


@pytest.fixture
def server(llm_server: LlmServer) -> LlmServer:
    return llm_server


@pytest.fixture
async def orchestrator(server: LlmServer) -> AsyncIterator[OpenAIOrchestrator]:
    async with orchestrator_at(server.base_url) as opened:
        yield opened


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
