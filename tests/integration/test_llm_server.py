"""Proves the oracle: what the test LLM server counts is what happened, and each fault is what its name says."""

import asyncio
import contextlib
import http.client
import json
import os
import signal
import socket
import statistics
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

import pytest

from tests.llm_server.behaviour import Latency
from tests.llm_server.completion import prompt_sha256
from tests.llm_server.faults import FAULTS, UNSEEN_OPTION
from tests.llm_server.handle import REPOSITORY, LlmServer, LlmServerError
from tests.llm_server.journal import key_fingerprint

CHAT = "/v1/chat/completions"
OPTIONS = ["yes", "no", "weekends only"]
CHOICE: dict[str, Any] = {"type": "string", "enum": OPTIONS}
SOCKET_SECONDS = 10.0
STATUSES = {"429": 429, "500": 500, "503": 503, "401": 401, "404_model": 404}


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def document(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.body)
        return document

    @property
    def content(self) -> Any:
        return self.document["choices"][0]["message"]["content"]

    @property
    def ballot(self) -> dict[str, Any]:
        ballot: dict[str, Any] = json.loads(self.content)
        return ballot


def response_format(answer: Mapping[str, Any], **definitions: Any) -> dict[str, Any]:
    properties = {
        "answer": answer,
        "confidence": {"type": "number", "minimum": 0, "maximum": 1},
        "reasoning": {"type": "string", "maxLength": 60},
    }
    schema = {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
        **definitions,
    }
    return {"type": "json_schema", "json_schema": {"name": "ballot", "strict": True, "schema": schema}}


def request_body(prompt: str = "Should it be done?", **more: Any) -> bytes:
    document = {
        "model": "test-model",
        "messages": [{"role": "user", "content": prompt}],
        "response_format": response_format(CHOICE),
        **more,
    }
    return json.dumps({key: value for key, value in document.items() if value is not None}).encode()


def send(
    server: LlmServer, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
) -> Answer:
    connection = http.client.HTTPConnection(server.host, server.port, timeout=SOCKET_SECONDS)
    try:
        connection.request(method, path, body=body, headers=dict(headers or {}))
        response = connection.getresponse()
        return Answer(response.status, dict(response.getheaders()), response.read())
    finally:
        connection.close()


def ask(
    server: LlmServer, prompt: str = "Should it be done?", *, headers: Mapping[str, str] | None = None, **more: Any
) -> Answer:
    return send(server, "POST", CHAT, request_body(prompt, **more), headers)


@contextlib.contextmanager
def asking(server: LlmServer, prompt: str = "Should it be done?") -> Iterator[socket.socket]:
    """A bare socket on which one question has been asked and nothing has been read."""
    body = request_body(prompt)
    head = f"POST {CHAT} HTTP/1.1\r\nHost: here\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection((server.host, server.port), SOCKET_SECONDS) as connected:
        connected.sendall(head.encode() + body)
        yield connected


async def ask_concurrently(server: LlmServer, prompts: list[str]) -> list[Answer]:
    async def one(prompt: str) -> Answer:
        body = request_body(prompt)
        reader, writer = await asyncio.open_connection(server.host, server.port)
        try:
            head = f"POST {CHAT} HTTP/1.1\r\nHost: here\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            writer.write(head.encode() + body)
            answer = await reader.read()
        finally:
            writer.close()
            await writer.wait_closed()
        start, _, rest = answer.partition(b"\r\n\r\n")
        return Answer(int(start.split()[1]), {}, rest)

    return await asyncio.gather(*(one(prompt) for prompt in prompts))


@pytest.fixture
def server(llm_server: LlmServer) -> LlmServer:
    return llm_server


# The counts


async def test_seventy_two_in_flight_are_counted_as_seventy_two(server: LlmServer) -> None:
    server.configure(fault="hold")
    asked = asyncio.create_task(ask_concurrently(server, [f"agent {n}" for n in range(72)]))
    during = await server.until(held_at_least=72)
    released = await asyncio.to_thread(server.release)
    answers = await asked
    after = server.stats()
    assert (during["in_flight"], during["peak_in_flight"], released) == (72, 72, 72)
    assert [answer.status for answer in answers] == [200] * 72
    assert (after["in_flight"], after["peak_in_flight"], after["requests"], after["ended"]) == (0, 72, 72, 72)
    assert [entry["in_flight"] for entry in server.journal()] == list(range(1, 73))


async def test_requests_one_after_the_other_never_count_as_two(server: LlmServer) -> None:
    for n in range(5):
        await ask_concurrently(server, [f"agent {n}"])
    assert server.stats()["peak_in_flight"] == 1


async def test_seven_hundred_and_twenty_at_once_are_all_answered(server: LlmServer) -> None:
    server.configure(latency_seconds=0.05)
    answers = await ask_concurrently(server, [f"agent {n}" for n in range(720)])
    stats = server.stats()
    assert [answer.status for answer in answers] == [200] * 720
    assert {answer.ballot["answer"] for answer in answers} == set(OPTIONS)
    assert (stats["requests"], stats["ended"], stats["in_flight"], stats["disconnects"]) == (720, 720, 0, 0)


def test_a_question_without_its_body_is_in_flight_but_not_yet_asked(server: LlmServer) -> None:
    with socket.create_connection((server.host, server.port), SOCKET_SECONDS) as connected:
        connected.sendall(f"POST {CHAT} HTTP/1.1\r\nContent-Length: 10\r\n\r\n".encode())
        assert server.wait_until(begun_at_least=1)["in_flight"] == 1
        assert server.journal()[0]["body_complete"] is False
        with pytest.raises(LlmServerError, match="in_flight_at_least"):
            server.wait_until(in_flight_at_least=1, timeout_seconds=0.01)
    assert server.wait_until(disconnects_at_least=1)["in_flight"] == 0
    server.configure(fault="hang")
    with asking(server):
        assert server.wait_until(in_flight_at_least=1)["requests"] == 2


def test_a_client_that_leaves_is_seen_leaving(server: LlmServer) -> None:
    server.configure(fault="hang")
    with asking(server):
        server.wait_until(in_flight_at_least=1)
        left = time.monotonic()
    server.wait_until(disconnects_at_least=1, in_flight_at_most=0)
    [entry] = server.journal()
    assert entry["client_disconnected"] is True
    assert entry["status"] is None
    assert left <= entry["disconnected_monotonic"] <= time.monotonic()


def test_a_client_that_got_its_answer_has_not_disconnected(server: LlmServer) -> None:
    ask(server)
    [entry] = server.journal()
    assert entry["client_disconnected"] is False
    assert entry["ended_monotonic"] is not None


def test_a_reset_drops_what_hangs_and_counts_from_nothing(server: LlmServer) -> None:
    server.configure(fault="hang")
    with asking(server) as connected:
        server.wait_until(in_flight_at_least=1)
        server.reset()
        assert connected.recv(1) == b""
    assert ask(server).status == 200
    stats = server.stats()
    assert (stats["requests"], stats["peak_in_flight"], stats["disconnects"], stats["by_fault"]) == (1, 1, 0, {})
    assert server.journal()[0]["sequence"] == 1


def test_only_chat_completions_count_while_other_paths_are_written_down(server: LlmServer) -> None:
    assert send(server, "GET", "/v1/models").document["data"][0]["id"] == "test-model"
    assert send(server, "GET", "/v1/elsewhere").status == 404
    assert server.stats()["requests"] == 0
    assert [(entry["method"], entry["path"]) for entry in server.journal()] == [
        ("GET", "/v1/models"),
        ("GET", "/v1/elsewhere"),
    ]


def test_waiting_for_what_does_not_come_tells_the_counts(server: LlmServer) -> None:
    with pytest.raises(LlmServerError, match=r"requests_at_least.*in_flight"):
        server.wait_until(requests_at_least=1, timeout_seconds=0.01)


# The journal


def test_the_journal_tells_who_asked_what_and_what_came_of_it(server: LlmServer) -> None:
    server.configure(
        agents={"archon-1": "a farmer", "archon-12": "a farmer of rice"}, faults=[{"fault": "500", "nth": 2}]
    )
    before = time.time()
    ask(server, "You are a farmer of rice.", model="small")
    ask(server, "You are a farmer of rice.", model="small", response_format=None)
    first, second = server.journal()
    assert (first["sequence"], first["model"], first["host"]) == (1, "small", f"127.0.0.1:{server.port}")
    assert (first["agent"], first["persona"]) == ("archon-12", "a farmer of rice")
    assert first["prompt_sha256"] == second["prompt_sha256"] == prompt_sha256("You are a farmer of rice.")
    assert (first["attempt"], second["attempt"], second["agent_requests"]) == (1, 2, 2)
    assert (first["response_format"], second["response_format"]) == (True, False)
    assert (first["fault"], first["status"], second["fault"], second["status"]) == (None, 200, "500", 500)
    assert before <= first["arrived_wall"] <= time.time()
    assert first["arrived_monotonic"] <= first["ended_monotonic"] <= second["arrived_monotonic"] <= time.monotonic()


@pytest.mark.parametrize(
    "prompt", ["Answer.\nPersona: A shy baker \nBe brief.", "Answer. <persona>\nA shy baker\n</persona>"]
)
def test_a_persona_is_found_where_prompts_put_it(server: LlmServer, prompt: str) -> None:
    ask(server, prompt)
    assert server.journal()[0]["persona"] == "A shy baker"


def test_an_agent_is_known_by_the_user_field_or_a_header(server: LlmServer) -> None:
    ask(server, user="archon-3")
    ask(server, headers={"X-Agent-Id": "archon-4"})
    ask(server)
    assert [entry["agent"] for entry in server.journal()] == ["archon-3", "archon-4", None]


def test_a_key_never_stands_in_the_journal(server: LlmServer) -> None:
    server.configure(record_bodies=True)
    ask(server, headers={"Authorization": "Bearer sk-not-to-be-seen"})
    ask(server)
    raw = send(server, "GET", "/_journal").body
    with_key, without = server.journal()
    assert b"not-to-be-seen" not in raw
    assert (with_key["authorization"], with_key["authorization_sha256"]) == (True, key_fingerprint("sk-not-to-be-seen"))
    assert (without["authorization"], without["authorization_sha256"]) == (False, None)


def test_bodies_are_kept_only_when_asked_for(server: LlmServer) -> None:
    ask(server, temperature=0.5)
    server.configure(record_bodies=True)
    ask(server, temperature=0.5)
    first, second = server.journal()
    assert first["body"] is None
    assert second["body"]["temperature"] == 0.5


def test_the_journal_is_read_on_from_a_sequence(server: LlmServer) -> None:
    for n in range(3):
        ask(server, f"agent {n}")
    assert [entry["sequence"] for entry in server.journal(since=1)] == [2, 3]


# Which request gets which fault


def test_a_rule_takes_the_prompts_that_contain_its_text(server: LlmServer) -> None:
    server.configure(faults=[{"fault": "500", "contains": ["a baker", "a miller"]}])
    assert [ask(server, f"You are a {who}").status for who in ("baker", "judge", "miller")] == [500, 200, 500]
    assert server.stats()["by_fault"] == {"500": 2}


def test_a_rule_lets_a_prompt_go_after_so_many_times(server: LlmServer) -> None:
    server.configure(faults=[{"fault": "429", "times": 1}, {"fault": "500", "times": 1}])
    assert [ask(server, "first").status for _ in range(3)] == [429, 500, 200]
    assert ask(server, "second").status == 429


def test_a_rule_takes_the_nth_of_the_requests_it_matches(server: LlmServer) -> None:
    server.configure(faults=[{"fault": "503", "contains": "baker", "nth": [2, 3]}])
    assert ask(server, "judge").status == 200
    assert [ask(server, "baker").status for _ in range(4)] == [200, 503, 503, 200]


def test_a_fraction_picks_the_same_prompts_each_time(server: LlmServer) -> None:
    prompts = [f"agent {n}" for n in range(60)]
    server.configure(faults=[{"fault": "500", "fraction": 0.25, "seed": 3}])
    first = [ask(server, prompt).status for prompt in prompts]
    assert first == [ask(server, prompt).status for prompt in prompts]
    assert 5 <= first.count(500) <= 25
    server.configure(faults=[{"fault": "500", "fraction": 0.25, "seed": 4}])
    assert first != [ask(server, prompt).status for prompt in prompts]


def test_a_rule_may_name_models_or_agents(server: LlmServer) -> None:
    server.configure(faults=[{"fault": "500", "model": "small"}, {"fault": "503", "agent": "archon-1"}])
    assert ask(server, model="small").status == 500
    assert ask(server, user="archon-1").status == 503
    assert ask(server, user="archon-12").status == 200


def test_the_default_fault_meets_those_that_no_rule_takes(server: LlmServer) -> None:
    server.configure(fault={"fault": "429", "retry_after": 9}, faults=[{"fault": None, "contains": "spared"}])
    assert ask(server, "spared").status == 200
    assert ask(server, "another").headers["Retry-After"] == "9"


@pytest.mark.parametrize(
    "configuration",
    [
        {"fault": "explode"},
        {"latency": 1},
        {"latency_seconds": -1},
        {"faults": [{"fault": "500", "contain": "baker"}]},
        {"faults": [{"fault": "drip", "interval_seconds": "often"}]},
        {"answer_weights": {"yes": "much"}},
    ],
)
def test_a_configuration_not_understood_is_refused_whole(server: LlmServer, configuration: dict[str, Any]) -> None:
    with pytest.raises(LlmServerError, match="refused"):
        server.configure(answers={"it": "changed"}, **configuration)
    assert ask(server).ballot["answer"] in OPTIONS


# What each fault does


@pytest.mark.parametrize(("fault", "status"), STATUSES.items())
def test_a_status_fault_answers_with_an_error_of_that_status(server: LlmServer, fault: str, status: int) -> None:
    server.configure(fault=fault)
    answer = ask(server)
    assert answer.status == status
    assert answer.document["error"]["message"]
    assert server.journal()[0]["status"] == status


def test_throttling_names_the_seconds_to_wait(server: LlmServer) -> None:
    server.configure(fault={"fault": "429", "retry_after": 0.5})
    assert ask(server).headers["Retry-After"] == "0.5"


def test_throttling_may_name_the_moment_to_come_back(server: LlmServer) -> None:
    server.configure(fault={"fault": "429", "retry_after_date": 30})
    moment = parsedate_to_datetime(ask(server).headers["Retry-After"])
    assert timedelta(seconds=15) < moment - datetime.now(UTC) <= timedelta(seconds=30)


def test_throttling_may_say_nothing_of_when(server: LlmServer) -> None:
    server.configure(fault={"fault": "429", "retry_after": None})
    assert "Retry-After" not in ask(server).headers


def test_a_refused_response_format_is_named_and_a_request_without_it_passes(server: LlmServer) -> None:
    server.configure(fault="400_response_format")
    refused = ask(server)
    assert refused.status == 400
    assert "response_format" in refused.document["error"]["message"]
    assert ask(server, response_format=None).status == 200


def test_reset_sends_a_reset(server: LlmServer) -> None:
    server.configure(fault="reset")
    with asking(server) as connected, pytest.raises(ConnectionResetError):
        connected.recv(1)
    [entry] = server.journal()
    assert (entry["fault"], entry["status"], entry["client_disconnected"]) == ("reset", None, False)


def test_a_bad_status_line_is_no_http(server: LlmServer) -> None:
    server.configure(fault="bad_status_line")
    with pytest.raises(http.client.BadStatusLine):
        ask(server)


@pytest.mark.parametrize("stream", [None, True])
def test_a_truncated_answer_ends_before_its_length(server: LlmServer, stream: bool | None) -> None:
    server.configure(fault="truncated")
    with pytest.raises(http.client.IncompleteRead):
        ask(server, stream=stream)


def test_hang_sends_no_byte_and_stays_in_flight(server: LlmServer) -> None:
    server.configure(fault="hang")
    with asking(server) as connected:
        server.wait_until(in_flight_at_least=1)
        connected.setblocking(False)
        with pytest.raises(BlockingIOError):
            connected.recv(1)
        assert server.journal()[0]["bytes_sent"] == 0


def test_drip_sends_the_head_and_then_one_byte(server: LlmServer) -> None:
    server.configure(fault={"fault": "drip", "interval_seconds": 3600})
    with asking(server) as connected:
        received = bytearray()
        while not received.partition(b"\r\n\r\n")[2]:
            received += connected.recv(4096)
        assert received.endswith(b"\r\n\r\n{")
        assert server.journal()[0]["bytes_sent"] == len(received)
        assert server.stats()["in_flight"] == 1


def test_drip_comes_to_its_end_when_the_client_waits(server: LlmServer) -> None:
    server.configure(fault={"fault": "drip", "interval_seconds": 0})
    assert ask(server).ballot["answer"] in OPTIONS


def test_slow_start_sends_nothing_before_its_time(server: LlmServer) -> None:
    server.configure(
        faults=[{"fault": "slow_start", "contains": "soon", "delay_seconds": 0.05}, {"fault": "slow_start"}]
    )
    with asking(server, "late"):
        assert ask(server, "soon").status == 200
        server.wait_until(in_flight_at_least=1)
        entries = {entry["prompt_sha256"]: entry for entry in server.journal()}
    late, soon = entries[prompt_sha256("late")], entries[prompt_sha256("soon")]
    assert (late["bytes_sent"], late["status"]) == (0, None)
    assert soon["ended_monotonic"] - soon["arrived_monotonic"] >= 0.05


@pytest.mark.parametrize("stream", [None, True])
def test_endless_outlasts_any_reader(server: LlmServer, stream: bool | None) -> None:
    server.configure(fault="endless")
    connection = http.client.HTTPConnection(server.host, server.port, timeout=SOCKET_SECONDS)
    try:
        connection.request("POST", CHAT, body=request_body(stream=stream))
        with connection.getresponse() as response:
            assert response.getheader("Transfer-Encoding") == "chunked"
            assert len(response.read(8 * 1024 * 1024)) == 8 * 1024 * 1024
    finally:
        connection.close()
    server.wait_until(disconnects_at_least=1)
    assert server.journal()[0]["bytes_sent"] > 8 * 1024 * 1024


async def test_others_are_answered_beside_an_endless_answer(server: LlmServer) -> None:
    server.configure(faults=[{"fault": "endless", "contains": "endless"}])
    reader, writer = await asyncio.open_connection(server.host, server.port)
    body = request_body("endless")
    writer.write(f"POST {CHAT} HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
    await reader.readexactly(1024 * 1024)
    answers = await ask_concurrently(server, [f"agent {n}" for n in range(20)])
    writer.transport.abort()
    assert [answer.status for answer in answers] == [200] * 20


def test_huge_is_one_complete_completion_of_the_size_asked_for(server: LlmServer) -> None:
    server.configure(fault={"fault": "huge", "size_bytes": 2_000_000})
    assert ask(server).content == "a" * 2_000_000


def test_huge_is_sixty_four_mebibytes_unless_told_otherwise(server: LlmServer) -> None:
    server.configure(fault="huge")
    connection = http.client.HTTPConnection(server.host, server.port, timeout=SOCKET_SECONDS)
    try:
        connection.request("POST", CHAT, body=request_body())
        with connection.getresponse() as response:
            assert int(response.getheader("Content-Length", "0")) > 64 * 1024 * 1024
    finally:
        connection.close()
    server.wait_until(disconnects_at_least=1)
    assert server.journal()[0]["bytes_sent"] < 64 * 1024 * 1024


def test_a_redirect_shows_whether_it_was_followed_with_the_key(server: LlmServer) -> None:
    server.configure(fault="redirect")
    answer = ask(server)
    assert answer.status == 302
    followed = send(server, "GET", answer.headers["Location"], headers={"Authorization": "Bearer secret"})
    _, landing = server.journal()
    assert followed.status == 200
    assert (landing["method"], landing["path"], landing["authorization"]) == ("GET", answer.headers["Location"], True)


def test_a_redirect_may_lead_elsewhere(server: LlmServer) -> None:
    server.configure(fault={"fault": "redirect", "location": "http://localhost:9/v1", "redirect_status": 307})
    answer = ask(server)
    assert (answer.status, answer.headers["Location"]) == (307, "http://localhost:9/v1")


def test_empty_has_no_content_and_empty_body_no_body(server: LlmServer) -> None:
    server.configure(fault="empty")
    assert ask(server).content == ""
    server.configure(fault="null_content")
    assert ask(server).content is None
    server.configure(fault="no_choices")
    assert ask(server).document["choices"] == []
    server.configure(fault="empty_body")
    assert ask(server) == Answer(200, {"Content-Type": "application/json", "Content-Length": "0"}, b"")


def test_garbage_is_no_json_though_it_says_so(server: LlmServer) -> None:
    server.configure(fault="garbage")
    answer = ask(server)
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/json")
    with pytest.raises(UnicodeDecodeError):
        answer.body.decode()


def test_html_is_a_page(server: LlmServer) -> None:
    server.configure(fault="html")
    answer = ask(server)
    assert answer.status == 200
    assert answer.headers["Content-Type"].startswith("text/html")
    assert answer.body.startswith(b"<!DOCTYPE html>")


def test_an_error_object_comes_with_a_200_and_no_choices(server: LlmServer) -> None:
    server.configure(fault="error_object")
    answer = ask(server)
    assert answer.status == 200
    assert set(answer.document) == {"error"}


def test_not_ballot_is_prose_without_json(server: LlmServer) -> None:
    server.configure(fault="not_ballot")
    assert "{" not in ask(server).content


def test_wrong_schema_is_json_of_another_shape(server: LlmServer) -> None:
    server.configure(fault="wrong_schema")
    ballot = ask(server).ballot
    assert isinstance(ballot["answer"], dict)
    assert isinstance(ballot["confidence"], str)


def test_unknown_option_is_a_ballot_for_what_nobody_offered(server: LlmServer) -> None:
    server.configure(fault="unknown_option")
    assert ask(server).ballot["answer"] == UNSEEN_OPTION


def test_prose_keeps_the_good_ballot_in_a_fence(server: LlmServer) -> None:
    good = ask(server).content
    server.configure(fault="prose")
    before, ballot, after = ask(server).content.split("```")
    assert ballot == f"json\n{good}\n"
    assert before.strip()
    assert after.strip()


def test_cut_off_stops_in_the_middle_of_the_ballot(server: LlmServer) -> None:
    good = ask(server).content
    server.configure(fault="cut_off")
    answer = ask(server)
    assert good.startswith(answer.content)
    assert len(answer.content) < len(good)
    assert answer.document["choices"][0]["finish_reason"] == "length"


def test_nul_is_a_valid_ballot_with_unspeakable_reasoning(server: LlmServer) -> None:
    server.configure(fault="nul")
    answer = ask(server)
    assert b"\x00" not in answer.body
    assert answer.ballot["answer"] in OPTIONS
    assert set("\x00\ud800\udfff") <= set(answer.ballot["reasoning"])


def test_nul_content_holds_nothing_that_can_be_shown(server: LlmServer) -> None:
    server.configure(fault="nul_content")
    assert set(ask(server).content) == set("\x00\ud800\udfff")


def test_negative_and_absurd_usage_come_with_a_good_ballot(server: LlmServer) -> None:
    server.configure(fault="negative_usage")
    negative = ask(server)
    server.configure(fault="absurd_usage")
    absurd = ask(server)
    assert max(negative.document["usage"].values()) < 0
    assert min(absurd.document["usage"].values()) > 2**64
    assert negative.ballot == absurd.ballot


def test_a_connection_lives_through_the_faults_that_do_not_end_it(server: LlmServer) -> None:
    ending = {"bad_status_line", "cut_stream", "endless", "hang", "hold", "reset", "truncated"}
    lasting = sorted(set(FAULTS) - ending)
    quick = {"interval_seconds": 0, "delay_seconds": 0, "size_bytes": 1000}
    server.configure(faults=[{"fault": fault, "contains": f"<{fault}>", **quick} for fault in lasting])
    connection = http.client.HTTPConnection(server.host, server.port, timeout=SOCKET_SECONDS)
    try:
        for fault in lasting:
            connection.request("POST", CHAT, body=request_body(f"<{fault}>"))
            with connection.getresponse() as response:
                response.read()
    finally:
        connection.close()
    assert [entry["fault"] for entry in server.journal()] == lasting
    assert server.stats()["by_fault"] == dict.fromkeys(lasting, 1)


# Good answers


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


# The process


def test_a_stopped_server_is_gone_and_can_be_stopped_again() -> None:
    server = LlmServer(models=["small"]).start()
    models = send(server, "GET", "/v1/models").document["data"]
    os.kill(server.pid, 0)
    server.stop()
    server.stop()
    assert [model["id"] for model in models] == ["small"]
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((server.host, server.port), SOCKET_SECONDS)
    with pytest.raises(LlmServerError, match="start"):
        _ = server.pid


WITH_LEASH = """
import sys
from tests.llm_server.handle import LlmServer
server = LlmServer().start()
print(server.port, flush=True)
sys.stdin.read()
"""
WITHOUT_LEASH = """
import json, subprocess, sys
server = subprocess.Popen([sys.executable, "-m", "tests.llm_server", "--port", "0"], stdout=subprocess.PIPE)
print(json.loads(server.stdout.readline())["port"], flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("program", [WITH_LEASH, WITHOUT_LEASH], ids=["by its handle", "by hand"])
def test_a_server_dies_with_a_parent_that_was_killed(program: str) -> None:
    command = [sys.executable, "-c", program]
    with subprocess.Popen(
        command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    ) as parent:
        assert parent.stdout is not None
        port = int(parent.stdout.readline())
        try:
            with socket.create_connection(("127.0.0.1", port), SOCKET_SECONDS) as connected:
                # Only a connection that was accepted ends without a reset, so it is used once before.
                connected.sendall(b"GET /v1/models HTTP/1.1\r\n\r\n")
                assert connected.recv(65536).startswith(b"HTTP/1.1 200 ")
                os.kill(parent.pid, signal.SIGKILL)
                parent.wait()
                # The server is seen from outside to end: by the end of its connection, and below by its closed port.
                assert connected.recv(1) == b""
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(parent.pid, signal.SIGKILL)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), SOCKET_SECONDS)


def test_a_client_that_resets_is_a_client_that_left(server: LlmServer) -> None:
    server.configure(fault="hang")
    with asking(server) as connected:
        server.wait_until(in_flight_at_least=1)
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert server.wait_until(disconnects_at_least=1)["in_flight"] == 0
