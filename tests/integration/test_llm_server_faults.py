"""Proves the faults of the oracle: each meets the requests that it was ordered for, and is what its name says."""

import asyncio
import http.client
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

import pytest

from tests.integration.llm_questions import (
    CHAT,
    OPTIONS,
    SOCKET_SECONDS,
    Answer,
    ask,
    ask_concurrently,
    asking,
    request_body,
    send,
)
from tests.llm_server.completion import prompt_sha256
from tests.llm_server.faults import FAULTS, UNSEEN_OPTION
from tests.llm_server.handle import LlmServer, LlmServerError

STATUSES = {"429": 429, "500": 500, "503": 503, "401": 401, "404_model": 404}


@pytest.fixture
def server(llm_server: LlmServer) -> LlmServer:
    return llm_server


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
