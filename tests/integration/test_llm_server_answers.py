"""Proves the good answers of the oracle: ballots as the schema says them, after the latency ordered, and refusals of what is no request."""

import json
import socket
import statistics
from typing import Any

import pytest

from tests.integration.llm_questions import (
    CHAT,
    CHOICE,
    OPTIONS,
    SOCKET_SECONDS,
    ask,
    request_body,
    response_format,
    send,
)
from tests.llm_server.behaviour import Latency
from tests.llm_server.handle import LlmServer


@pytest.fixture
def server(llm_server: LlmServer) -> LlmServer:
    return llm_server


@pytest.mark.parametrize(
    ("schema", "allowed"),
    [
        (CHOICE, OPTIONS),
        ({"type": ["string", "null"], "enum": [*OPTIONS, None]}, OPTIONS),
        ({"anyOf": [CHOICE, {"type": "null"}]}, OPTIONS),
        ({"anyOf": [{"type": "null"}, *({"const": option} for option in OPTIONS)]}, OPTIONS),
        ({"$ref": "#/$defs/vote"}, OPTIONS),
    ],
)
def test_a_choice_is_one_of_the_options_however_the_schema_says_it(
    server: LlmServer, schema: dict[str, Any], allowed: list[str]
) -> None:
    ordered = response_format(schema, **{"$defs": {"vote": CHOICE}})
    ballots = [ask(server, f"agent {n}", response_format=ordered).ballot for n in range(20)]
    assert {ballot["answer"] for ballot in ballots} == set(allowed)
    assert all(0 <= ballot["confidence"] <= 1 and 0 < len(ballot["reasoning"]) <= 60 for ballot in ballots)


def test_an_approval_is_some_of_the_options_each_once(server: LlmServer) -> None:
    wanted = response_format({"type": "array", "items": CHOICE, "uniqueItems": True})
    answers = [ask(server, f"agent {n}", response_format=wanted).ballot["answer"] for n in range(20)]
    assert all(set(answer) <= set(OPTIONS) and len(set(answer)) == len(answer) >= 1 for answer in answers)
    assert {len(answer) for answer in answers} == {1, 2, 3}


@pytest.mark.parametrize(("bounds", "prompt"), [({"minItems": 3, "maxItems": 3}, "Order them"), ({}, "Rank them")])
def test_a_ranking_has_every_option_once(server: LlmServer, bounds: dict[str, int], prompt: str) -> None:
    wanted = response_format({"type": "array", "items": CHOICE, **bounds})
    answers = [ask(server, f"{prompt}, agent {n}", response_format=wanted).ballot["answer"] for n in range(20)]
    assert all(sorted(answer) == sorted(OPTIONS) for answer in answers)
    assert len({tuple(answer) for answer in answers}) > 1


def test_a_number_stays_in_its_range(server: LlmServer) -> None:
    wanted = response_format({"anyOf": [{"type": "integer", "minimum": 3, "maximum": 5}, {"type": "null"}]})
    answers = {ask(server, f"agent {n}", response_format=wanted).ballot["answer"] for n in range(40)}
    assert answers == {3, 4, 5}


def test_a_confidence_may_be_an_enum(server: LlmServer) -> None:
    wanted = response_format(CHOICE)
    wanted["json_schema"]["schema"]["properties"]["confidence"] = {"enum": [0.2, 0.8]}
    assert {ask(server, f"agent {n}", response_format=wanted).ballot["confidence"] for n in range(20)} == {0.2, 0.8}


def test_a_text_is_a_sentence_within_its_length(server: LlmServer) -> None:
    answer = ask(server, response_format=response_format({"type": "string", "maxLength": 12})).ballot["answer"]
    assert 0 < len(answer) <= 12


@pytest.mark.parametrize(
    "prompt", ['Choose one of ["tea", "coffee"] for agent {n}.', "Agent {n}, your options:\n- tea\n- coffee\n"]
)
def test_without_a_schema_the_options_are_read_from_the_prompt(server: LlmServer, prompt: str) -> None:
    answers = {ask(server, prompt.format(n=n), response_format=None).ballot["answer"] for n in range(20)}
    assert answers == {"tea", "coffee"}


def test_a_prompt_gets_the_same_ballot_until_the_seed_changes(server: LlmServer) -> None:
    prompts = [f"agent {n}" for n in range(10)]
    first = [ask(server, prompt).ballot for prompt in prompts]
    server.reset()
    assert [ask(server, prompt).ballot for prompt in prompts] == first
    server.configure(seed=8)
    assert [ask(server, prompt).ballot for prompt in prompts] != first


def test_weights_decide_how_often_an_option_wins(server: LlmServer) -> None:
    server.configure(answer_weights={"yes": 9, "no": 1})
    answers = [ask(server, f"agent {n}").ballot["answer"] for n in range(60)]
    assert answers.count("yes") > answers.count("no") > 0 == answers.count("weekends only")


def test_weights_may_make_agents_abstain(server: LlmServer) -> None:
    server.configure(answer_weights={"null": 1})
    wanted = response_format({"anyOf": [CHOICE, {"type": "null"}]})
    assert ask(server, response_format=wanted).ballot["answer"] is None


def test_an_ordered_answer_is_given_as_it_is(server: LlmServer) -> None:
    server.configure(answers={"a baker": "<b>not even JSON"})
    assert ask(server, "You are a baker").content == "<b>not even JSON"


def test_usage_is_a_quarter_of_the_characters(server: LlmServer) -> None:
    server.configure(answers={"aa": "b" * 8})
    assert ask(server, "a" * 401).document["usage"] == {
        "prompt_tokens": 101,
        "completion_tokens": 2,
        "total_tokens": 103,
    }


def test_latency_passes_before_the_answer(server: LlmServer) -> None:
    server.configure(latency_seconds=0.03, faults=[{"contains": "slower", "latency_seconds": 0.06}])
    ask(server, "usual")
    ask(server, "slower")
    usual, slower = (entry["ended_monotonic"] - entry["arrived_monotonic"] for entry in server.journal())
    assert usual >= 0.03
    assert slower >= 0.06


def test_log_normal_latency_has_its_median_and_repeats() -> None:
    latency = Latency.read({"lognormal": {"median": 2.0, "sigma": 0.5}}, place="latency_seconds")
    drawn = [latency.seconds(f"key {n}") for n in range(2001)]
    assert drawn == [latency.seconds(f"key {n}") for n in range(2001)]
    assert statistics.median(drawn) == pytest.approx(2.0, rel=0.1)
    assert statistics.quantiles(drawn, n=100)[97] > 4.0


def test_log_normal_latency_keeps_to_its_bounds() -> None:
    bounded = {"lognormal": {"median": 1.0, "sigma": 2.0, "least": 0.1, "most": 10.0}}
    drawn = [Latency.read(bounded, place="latency_seconds").seconds(f"key {n}") for n in range(1001)]
    assert (min(drawn), max(drawn)) == (0.1, 10.0)
    assert statistics.median(drawn) == pytest.approx(1.0, rel=0.2)


def test_a_stream_carries_the_same_content_in_events(server: LlmServer) -> None:
    whole = ask(server)
    streamed = ask(server, stream=True, stream_options={"include_usage": True})
    *events, done, rest = streamed.body.decode().split("\n\n")
    chunks = [json.loads(event.removeprefix("data: ")) for event in events]
    said = "".join(choice["delta"].get("content", "") for chunk in chunks for choice in chunk["choices"])
    assert streamed.headers["Content-Type"] == "text/event-stream"
    assert (said, done, rest) == (whole.content, "data: [DONE]", "")
    assert chunks[-2]["choices"][0]["finish_reason"] == "stop"
    assert (chunks[-1]["choices"], chunks[-1]["usage"]) == ([], whole.document["usage"])


def test_the_models_offered_can_be_changed(server: LlmServer) -> None:
    server.configure(models=["small", "large"])
    assert [model["id"] for model in send(server, "GET", "/v1/models").document["data"]] == ["small", "large"]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"model": "m"}', b'{"model": "m", "messages": [7]}', b"[" * 9999])
def test_a_body_that_is_no_chat_request_is_refused(server: LlmServer, body: bytes) -> None:
    answer = send(server, "POST", CHAT, body)
    assert answer.status == 400
    assert server.stats()["in_flight"] == 0


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"hello\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 411),
        (b"POST / HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n", 413),
    ],
)
def test_what_is_no_request_is_refused_and_hung_up_on(server: LlmServer, request_bytes: bytes, status: int) -> None:
    with socket.create_connection((server.host, server.port), SOCKET_SECONDS) as connected:
        connected.sendall(request_bytes)
        with connected.makefile("rb") as answer:
            assert answer.read().startswith(f"HTTP/1.1 {status} ".encode())


def test_two_requests_on_one_wire_are_answered_in_order(server: LlmServer) -> None:
    bodies = [request_body(f"agent {n}") for n in range(2)]
    heads = [
        f"POST {CHAT} HTTP/1.1\r\nContent-Length: {len(body)}\r\nConnection: {connection}\r\n\r\n".encode()
        for body, connection in zip(bodies, ("keep-alive", "close"), strict=True)
    ]
    with socket.create_connection((server.host, server.port), SOCKET_SECONDS) as connected:
        connected.sendall(b"".join(head + body for head, body in zip(heads, bodies, strict=True)))
        with connected.makefile("rb") as answers:
            text = answers.read()
    assert text.index(b'"chatcmpl-1"') < text.index(b'"chatcmpl-2"')
    assert server.stats()["peak_in_flight"] == 1
