"""Proves that the OpenAI-compatible orchestrator names every fault of its far end as what it was."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator

import aiohttp
import pytest

from domain.errors.deliberation import UnreadableBallotError
from domain.models.roll_call import AgentState
from domain.voting.ballot_reader import read_ballot
from infrastructure.orchestrators.openai_orchestrator import OpenAIOrchestrator
from infrastructure.orchestrators.provider_client import ProviderClient
from tests.integration.openai_calls import (
    FAILED,
    INVALID,
    THROTTLED,
    VERDICT,
    answering,
    asking,
    ending_of,
    failure_of,
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
