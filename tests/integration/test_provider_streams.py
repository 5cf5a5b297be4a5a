"""Streams of a provider through the client over real sockets: whole, stalled, broken, refused or cancelled."""

from __future__ import annotations

import asyncio
import json

import pytest

from domain.models.roll_call import AgentState
from tests.integration.provider_wires import (
    FAILED,
    INVALID,
    KEY,
    TIMED_OUT,
    asking,
    client_at,
    failure_of,
    saying,
    whole,
    wired,
)
from tests.llm_server.handle import LlmServer


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
