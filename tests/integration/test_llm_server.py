"""Proves the oracle: what the test LLM server counts and writes down is what happened, and it ends with whoever started it."""

import asyncio
import contextlib
import os
import signal
import socket
import struct
import subprocess
import sys
import time

import pytest

from tests.integration.llm_questions import CHAT, OPTIONS, SOCKET_SECONDS, ask, ask_concurrently, asking, send
from tests.llm_server.completion import prompt_sha256
from tests.llm_server.handle import REPOSITORY, LlmServer, LlmServerError
from tests.llm_server.journal import key_fingerprint


@pytest.fixture
def server(llm_server: LlmServer) -> LlmServer:
    return llm_server


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
