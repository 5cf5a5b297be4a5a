"""SIGTERM on real processes: nobody is left hanging, no finished call is made again, and all that is left is gone on with."""

from __future__ import annotations

import re
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.conclave_fixture import Client, read_all
from tests.llm_server.handle import LlmServer
from tests.nursery import Nursery, RunningProcess

_UNREADY_S = 1.0
_EXIT_S = 20.0
_PATIENCE_S = 30.0
_AGENTS = 6
_PORT = re.compile(r"http://127\.0\.0\.1:(\d+)")


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    """Where the servers come from."""
    with Nursery() as opened:
        yield opened


@contextmanager
def _serving(nursery: Nursery, folder: Path, llm: LlmServer) -> Iterator[tuple[Client, RunningProcess]]:
    settings = {
        "CONCLAVE_DATA_DIR": str(folder / "data"),
        "CONCLAVE_LLM_BASE_URL": llm.base_url,
        "CONCLAVE_LLM_API_KEY": "k",
        "CONCLAVE_LLM_MODEL": "test-model",
    }
    process = nursery.start("serve", "--port", "0", "--json", settings=settings, folder=folder, log=folder / "log")
    try:
        while (found := _PORT.search(process.line())) is None:
            continue
        yield Client(int(found[1])), process
    finally:
        process.kill()


def _ask(client: Client, number: int = 0) -> str:
    members = [{"id": f"voice-{place}", "persona": f"You are voice {place} of {number}."} for place in range(_AGENTS)]
    body = {
        "question": "Is it over?",
        "answer": {"kind": "choice", "options": ["yes", "no"]},
        "agents": {"members": members},
    }
    answer = client.post(body)
    assert answer.status == 202, answer
    return str(answer.document["id"])


def _calls(llm: LlmServer) -> Counter[str]:
    return Counter(str(entry["prompt_sha256"]) for entry in llm.journal() if entry["counted"])


def _ended(client: Client, deliberation_id: str) -> Mapping[str, Any]:
    until = time.monotonic() + _PATIENCE_S
    while time.monotonic() < until:
        document: Mapping[str, Any] = client.ask("GET", f"/v1/deliberations/{deliberation_id}").document
        if document["finished_at"] is not None:
            return document
        threading.Event().wait(0.02)
    raise AssertionError(f"deliberation {deliberation_id!r} did not end within {_PATIENCE_S!r} s")


def test_a_server_that_is_told_to_stop_says_so_within_a_second_and_is_gone_within_twenty_although_agents_hang(
    nursery: Nursery, llm_server: LlmServer, tmp_path: Path
) -> None:
    llm_server.configure(fault="hang")
    with _serving(nursery, tmp_path, llm_server) as (client, process):
        deliberation_id = _ask(client)
        llm_server.wait_until(in_flight_at_least=_AGENTS)
        assert client.ask("GET", "/readyz").status == 200
        with client.connect() as stream:
            path = f"/v1/deliberations/{deliberation_id}/events"
            stream.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
            assert stream.recv(12) == b"HTTP/1.1 200"
            told = time.monotonic()
            process.terminate()
            while (status := client.ask("GET", "/readyz").status) == 200:
                threading.Event().wait(0.01)
            assert (status, time.monotonic() - told < _UNREADY_S) == (503, True)
            assert client.post({"question": "One more?"}).status == 503
            events = read_all(stream)
        assert time.monotonic() - told < _EXIT_S
        assert b": not the end: come back with the Last-Event-ID" in events
        assert b"event: deliberation.failed" not in events
        assert process.wait() == 0
        assert time.monotonic() - told < _EXIT_S
    llm_server.reset()
    with _serving(nursery, tmp_path, llm_server) as (client, _):
        document = _ended(client, deliberation_id)
    assert (document["status"], document["roll_call"]["answered"]) == ("completed", _AGENTS)
    assert set(_calls(llm_server).values()) == {1}


def test_calls_that_end_while_a_server_winds_down_are_recorded_and_never_made_again(
    nursery: Nursery, llm_server: LlmServer, tmp_path: Path
) -> None:
    llm_server.configure(fault="hold")
    with _serving(nursery, tmp_path, llm_server) as (client, process):
        deliberations = [_ask(client, number) for number in range(3)]
        llm_server.wait_until(held_at_least=3 * _AGENTS)
        process.terminate()
        while client.ask("GET", "/readyz").status == 200:
            threading.Event().wait(0.01)
        # The first to come in are those of the first deliberations, so that one ends whole and one is left in its midst.
        assert llm_server.release(count=2 * _AGENTS - 2) == 2 * _AGENTS - 2
        assert process.wait() == 0
    finished = {str(entry["prompt_sha256"]) for entry in llm_server.journal() if entry["status"] == 200}
    assert len(finished) == 2 * _AGENTS - 2
    llm_server.configure(fault=None)
    with _serving(nursery, tmp_path, llm_server) as (client, _):
        documents = [_ended(client, own) for own in deliberations]
    assert [document["roll_call"]["answered"] for document in documents] == [_AGENTS] * 3
    calls = _calls(llm_server)
    assert {prompt: calls[prompt] for prompt in finished} == dict.fromkeys(finished, 1)
    assert set(calls.values()) == {1, 2}
