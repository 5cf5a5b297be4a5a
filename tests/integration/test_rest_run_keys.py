"""`Idempotency-Key` where a run is started: the same request starts one run, and its caller is told so in every state of the service."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from domain.errors.dependency import DependencyUnavailableError
from domain.models.run import Run
from infrastructure.stubs.halt_checker_stub import HaltCheckerStub
from tests.conclave_fixture import CLIENT_TIMEOUT_S, Answer
from tests.integration.test_rest_runs import KEYS, Launcher, Process, Site, a_site

SMALL: dict[str, Any] = {"kind": "swarm", "arguments": {"number": 2}}


@pytest.fixture
def site() -> Iterator[Site]:
    with a_site() as opened:
        yield opened


def start(site: Site, key: str, body: Any = SMALL, *, who: str | None = None) -> Answer:
    return site.ask("POST", "", body, who=who, Idempotency_Key=key)


def identity(answer: Answer) -> str:
    assert answer.status == 202, answer
    own = str(answer.document["id"])
    assert answer.headers["location"] == f"/v1/runs/{own}"
    return own


def stored(site: Site) -> list[str]:
    return [each["id"] for each in site.ask("GET", "").document["items"]]


def test_the_same_key_and_body_is_answered_with_the_same_run(site: Site) -> None:
    bodies: Sequence[Any] = (SMALL, dict(reversed(SMALL.items())), b'{"kind":  "swarm", "arguments": {"number": 2}}')
    headers = {"Content_Type": "application/json"}
    answers = [site.ask("POST", "", body, Idempotency_Key="same", **headers) for body in (*bodies, *bodies)]
    assert stored(site) == [identity(answers[0])]
    assert {identity(answer) for answer in answers} == {stored(site)[0]}
    assert len(site.launcher.command_lines) == 1


def test_a_replay_says_how_the_run_is_by_now(site: Site) -> None:
    run_id = identity(start(site, "k"))
    site.work(run_id)
    answer = start(site, "k")
    assert (identity(answer), answer.document["status"]) == (run_id, "completed")


def test_the_same_key_with_another_body_is_refused(site: Site) -> None:
    run_id = identity(start(site, "k"))
    refusal = start(site, "k", {"kind": "swarm", "arguments": {"number": 3}})
    assert (refusal.status, refusal.problem) == (422, "idempotency-key-reused")
    assert run_id in refusal.document["detail"]
    assert stored(site) == [run_id]


def test_without_a_key_the_same_body_is_a_new_run(site: Site) -> None:
    assert site.start() != site.start()


@pytest.mark.parametrize("key", ["", "x" * 256, "ké"])
def test_what_cannot_name_a_request_is_pointed_at(site: Site, key: str) -> None:
    answer = start(site, key)
    assert (answer.status, answer.problem) == (422, "invalid-request")
    assert [error["pointer"] for error in answer.document["errors"]] == ["/header/idempotency-key"]
    assert stored(site) == []


def test_a_request_that_was_refused_leaves_its_key_free(site: Site) -> None:
    assert start(site, "k", {"kind": "swarm", "arguments": {"number": "x"}}).status == 422
    identity(start(site, "k"))


def test_keys_belong_to_the_caller_s_own_name() -> None:
    with a_site(keys=KEYS) as site:
        first = [identity(start(site, "k", who=who)) for who in ("ann", "ben")]
        assert len(set(first)) == 2
        assert [identity(start(site, "k", who=who)) for who in ("ann", "ben")] == first


def test_a_replay_is_answered_while_halted_and_while_there_is_no_place() -> None:
    halt = HaltCheckerStub()
    with a_site(halt=halt) as site:
        first = identity(start(site, "first"))
        identity(start(site, "second"))
        assert start(site, "third").problem == "too-many-runs"
        assert identity(start(site, "first")) == first
        for run_id in stored(site):
            site.work(run_id)
        site.server.call(halt.set_halted("drill"))
        assert identity(start(site, "first")) == first
        assert start(site, "third").problem == "system-halted"
        site.server.call(halt.clear())
        identity(start(site, "third"))


class Slow(Launcher):
    """Starts nothing until it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.reached = threading.Event()
        self.open = asyncio.Event()

    async def launch(self, run: Run, command_line: Sequence[str]) -> Process:
        self.reached.set()
        await self.open.wait()
        return await super().launch(run, command_line)


def test_while_the_first_is_still_being_started_the_second_gets_its_run() -> None:
    with a_site(launcher=Slow()) as site:
        slow = site.launcher
        assert isinstance(slow, Slow)
        answers: list[Answer] = []
        first = threading.Thread(target=lambda: answers.append(start(site, "slow")))
        first.start()
        assert slow.reached.wait(CLIENT_TIMEOUT_S)
        # It is stored by then, and only its process has not begun.
        early = identity(start(site, "slow"))
        site.server.loop.call_soon_threadsafe(slow.open.set)
        first.join()
        assert identity(answers[0]) == early
        assert len(slow.command_lines) == 1


class Broken(Launcher):
    """Can start nothing, the first time."""

    def __init__(self) -> None:
        super().__init__()
        self.tries = 0

    async def launch(self, run: Run, command_line: Sequence[str]) -> Process:
        self.tries += 1
        if self.tries == 1:
            raise DependencyUnavailableError(dependency="the process of the run", problem="it cannot be started")
        return await super().launch(run, command_line)


def test_a_run_whose_process_never_began_leaves_its_key_free() -> None:
    with a_site(launcher=Broken()) as site:
        assert start(site, "k").problem == "dependency-unavailable"
        again = start(site, "k")
        assert (again.status, again.document["status"]) == (202, "queued")


def test_the_key_is_described(site: Site) -> None:
    operation = site.server.ask("GET", "/openapi.json").document["paths"]["/v1/runs"]["post"]
    header = next(each for each in operation["parameters"] if each["in"] == "header")
    assert (header["name"], header["required"]) == ("Idempotency-Key", False)
    assert "the same run" in header["description"]
    assert {"202", "409", "422"} <= set(operation["responses"])
