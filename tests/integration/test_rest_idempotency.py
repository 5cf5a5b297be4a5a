"""`Idempotency-Key` at the REST door: the same request is accepted once, and its caller is told so in every state of the service."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

from api.cli.remote import RemoteDeliberations
from application.ports.deliberation_repository import RememberedKey
from domain.errors.dependency import DependencyUnavailableError
from infrastructure.stubs.agent_orchestrator_stub import AgentOrchestratorStub
from infrastructure.stubs.halt_checker_stub import HaltCheckerStub
from infrastructure.stubs.in_memory_repository import InMemoryRepository
from tests.conclave_fixture import CLIENT_TIMEOUT_S, Answer, RunningServer, read_all, running_server

SMALL: dict[str, Any] = {"question": "Shall we?", "agents": {"count": 2}, "metadata": {"origin": "Köln", "run": "7"}}
KEYS = "bob:operator:bob-secret-1,bea:operator:bea-secret-1,root:admin:root-secret-1"


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with running_server(max_queued=1000) as running:
        yield running


def named(key: str, **others: str) -> dict[str, str]:
    return {"Idempotency-Key": key, **{name.replace("_", "-"): value for name, value in others.items()}}


def stored(server: RunningServer, headers: Mapping[str, str] | None = None) -> list[str]:
    page = server.ask("GET", "/v1/deliberations?limit=200", headers=headers).document
    return [item["id"] for item in page["items"]]


def identity(answer: Answer) -> str:
    """The id of what was accepted, which the answer also says where to find."""
    assert answer.status in {200, 202}, answer
    own = str(answer.document["id"])
    assert answer.headers["location"] == f"/v1/deliberations/{own}"
    return own


def test_the_same_key_and_body_is_answered_with_the_same_deliberation(server: RunningServer) -> None:
    before = len(stored(server))
    answers = [server.post(SMALL, headers=named("same")) for _ in range(5)]
    assert {answer.status for answer in answers} == {202}
    assert len({identity(answer) for answer in answers}) == 1
    assert len(stored(server)) == before + 1


def test_a_body_is_the_same_however_it_is_spaced_ordered_and_escaped(server: RunningServer) -> None:
    bodies = [
        json.dumps(SMALL),
        json.dumps(SMALL, indent=3),
        json.dumps(dict(reversed(SMALL.items()))),
        json.dumps(SMALL, ensure_ascii=False),
        json.dumps(SMALL).replace("run", "r\\u0075n"),
    ]
    answers = [server.post(body.encode(), headers=named("spelling")) for body in bodies]
    assert len({identity(answer) for answer in answers}) == 1


@pytest.mark.parametrize(
    "other",
    [
        {**SMALL, "question": "Shall we not?"},
        {**SMALL, "seed": 1},
        {**SMALL, "metadata": {"origin": "köln", "run": "7"}},
        {**SMALL, "agents": {"count": 3}},
    ],
)
def test_the_same_key_with_another_body_is_refused(server: RunningServer, other: dict[str, Any]) -> None:
    first = identity(server.post(SMALL, headers=named("reused")))
    before = stored(server)
    refusal = server.post(other, headers=named("reused"))
    assert (refusal.status, refusal.problem) == (422, "idempotency-key-reused")
    assert first in refusal.document["detail"]
    assert "Köln" not in refusal.body.decode()
    assert stored(server) == before


def test_without_a_key_the_same_body_is_a_new_deliberation(server: RunningServer) -> None:
    assert identity(server.post(SMALL)) != identity(server.post(SMALL))


def test_a_replay_may_wait_for_the_end_and_is_then_answered_with_it(server: RunningServer) -> None:
    first = identity(server.post(SMALL, headers=named("wait")))
    replay = server.post(SMALL, query="?wait=30", headers=named("wait"))
    assert (replay.status, replay.document["status"], identity(replay)) == (200, "completed", first)


def test_a_replay_that_does_not_wait_says_how_it_is_by_now(server: RunningServer) -> None:
    first = server.post(SMALL, query="?wait=30", headers=named("ended"))
    replay = server.post(SMALL, headers=named("ended"))
    assert (replay.status, replay.document) == (202, first.document)


@pytest.mark.parametrize("key", ["x", "x" * 255, '"quoted"', "quoted", "a b", "a, b", "~!#$%&'*+-.^_`|", "X", "%78"])
def test_a_key_is_taken_as_it_stands(server: RunningServer, key: str) -> None:
    first = identity(server.post({**SMALL, "metadata": {"key": key}}, headers=named(key)))
    assert identity(server.post({**SMALL, "metadata": {"key": key}}, headers=named(key))) == first


@pytest.mark.parametrize("key", ["", "x" * 256, "ké", "a\tb", "\x80"])
def test_what_cannot_name_a_request_is_pointed_at(server: RunningServer, key: str) -> None:
    before = stored(server)
    answer = server.post(SMALL, headers=named(key))
    assert (answer.status, answer.problem) == (422, "invalid-request")
    assert [error["pointer"] for error in answer.document["errors"]] == ["/header/idempotency-key"]
    assert stored(server) == before


def test_two_keys_on_one_request_are_refused(server: RunningServer) -> None:
    body = json.dumps(SMALL).encode()
    head = (
        b"POST /v1/deliberations HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n"
    )
    keys = b"Idempotency-Key: one\r\nIdempotency-Key: two\r\nContent-Length: %d\r\n\r\n" % len(body)
    before = stored(server)
    assert server.send_raw(head + keys + body).startswith(b"HTTP/1.1 422 ")
    assert stored(server) == before


def test_a_request_that_was_refused_leaves_its_key_free(server: RunningServer) -> None:
    for refused in (b"{", {"question": ""}, {**SMALL, "agents": {"roster": "nobody"}}):
        assert server.post(refused, headers=named("refused")).status in {400, 422}
    identity(server.post(SMALL, headers=named("refused")))


def test_keys_belong_to_the_caller_s_own_name() -> None:
    with running_server(keys=KEYS) as server:
        callers = [f"Bearer {name}-secret-1" for name in ("bob", "bea", "root")]
        first = [identity(server.post(SMALL, headers=named("k", Authorization=caller))) for caller in callers]
        assert len(set(first)) == 3
        other = {**SMALL, "seed": 1}
        assert [server.post(other, headers=named("k", Authorization=caller)).status for caller in callers] == [422] * 3
        again = [identity(server.post(SMALL, headers=named("k", Authorization=caller))) for caller in callers]
        assert again == first


def test_a_replay_is_answered_while_halted() -> None:
    halt = HaltCheckerStub()
    with running_server(halt=halt) as server:
        first = identity(server.post(SMALL, query="?wait=30", headers=named("before")))
        server.call(halt.set_halted("drill"))
        assert identity(server.post(SMALL, headers=named("before"))) == first
        assert server.post({**SMALL, "seed": 1}, headers=named("before")).problem == "idempotency-key-reused"
        assert server.post(SMALL, headers=named("after")).problem == "system-halted"
        server.call(halt.clear())
        assert identity(server.post(SMALL, headers=named("after"))) != first


def test_a_replay_is_answered_while_the_queue_is_full() -> None:
    hanging = AgentOrchestratorStub(hanging=[f"archon-{number}" for number in range(1, 73)])
    with running_server(orchestrator=hanging, max_running=1, max_queued=1) as server:
        first = identity(server.post(SMALL, headers=named("first")))
        number = 0
        while (refusal := server.post(SMALL, headers=named(f"filling-{number}"))).status == 202:
            number += 1
        assert refusal.problem == "queue-full"
        assert identity(server.post(SMALL, headers=named("first"))) == first


class Slow(InMemoryRepository):
    """Takes no deliberation in until it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.reached = threading.Event()
        self.open = asyncio.Event()

    async def add(self, *arguments: Any, **options: Any) -> None:
        self.reached.set()
        await self.open.wait()
        await super().add(*arguments, **options)


def test_while_the_first_is_still_being_accepted_the_second_is_told_to_come_back() -> None:
    slow = Slow()
    with running_server(repository=slow) as server:
        answers: list[Answer] = []
        first = threading.Thread(target=lambda: answers.append(server.post(SMALL, headers=named("slow"))))
        first.start()
        assert slow.reached.wait(CLIENT_TIMEOUT_S)
        early = server.post(SMALL, headers=named("slow"))
        assert (early.status, early.problem, early.headers["retry-after"]) == (409, "idempotency-in-progress", "1")
        server.loop.call_soon_threadsafe(slow.open.set)
        first.join()
        assert identity(server.post(SMALL, headers=named("slow"))) == identity(answers[0])


class Away(InMemoryRepository):
    """Cannot say what any key stands for."""

    async def remembered(self, scope: str, key: str) -> RememberedKey | None:
        raise DependencyUnavailableError(dependency="database", problem="it cannot be reached")


def test_while_the_store_is_away_nothing_is_accepted_twice_by_mistake() -> None:
    with running_server(repository=Away()) as server:
        answer = server.post(SMALL, headers=named("away"))
        assert (answer.status, answer.problem) == (503, "dependency-unavailable")
        assert int(answer.headers["retry-after"]) >= 1
        assert stored(server) == []


def test_a_caller_that_hung_up_before_its_answer_finds_the_same_deliberation() -> None:
    slow = Slow()
    with running_server(repository=slow) as server:
        body = json.dumps(SMALL).encode()
        head = "POST /v1/deliberations HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        with server.connect() as connection:
            connection.sendall(f"{head}Idempotency-Key: cut\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
            assert slow.reached.wait(CLIENT_TIMEOUT_S)
        server.loop.call_soon_threadsafe(slow.open.set)
        while (again := server.post(SMALL, headers=named("cut"))).status == 409:
            continue
        assert stored(server) == [identity(again)]


@contextmanager
def losing_the_first_answer(port: int) -> Iterator[str]:
    """The address of a relay that keeps the first answer to itself and hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def relay() -> None:
            for lost in (True, False):
                caller, _ = listening.accept()
                with caller, socket.create_connection(("127.0.0.1", port)) as onwards:
                    asked = b""
                    while b"\r\n\r\n" not in asked or not asked.endswith(b"}"):
                        asked += caller.recv(65536)
                    onwards.sendall(asked.replace(b"\r\n", b"\r\nConnection: close\r\n", 1))
                    answer = read_all(onwards)
                    if not lost:
                        caller.sendall(answer)

        thread = threading.Thread(target=relay)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        thread.join()


async def test_the_command_line_submits_once_although_the_first_answer_is_lost(server: RunningServer) -> None:
    async def no_pause(_seconds: float) -> None:
        return

    before = await asyncio.to_thread(stored, server)
    with losing_the_first_answer(server.port) as url:
        accepted = await RemoteDeliberations(url, pause=no_pause).submit(SMALL)
    after = await asyncio.to_thread(stored, server)
    assert after == [accepted["id"], *before]


def test_the_key_is_described(server: RunningServer) -> None:
    operation = server.ask("GET", "/openapi.json").document["paths"]["/v1/deliberations"]["post"]
    header = next(each for each in operation["parameters"] if each["in"] == "header")
    assert (header["name"], header["required"]) == ("Idempotency-Key", False)
    assert {"202", "409", "422"} <= set(operation["responses"])
