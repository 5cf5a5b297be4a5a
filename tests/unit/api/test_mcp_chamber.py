"""What becomes of a question whose asker, or whose server, goes away; and that an answer that was cut says so."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from types import SimpleNamespace
from typing import Any, cast

import pytest

from api.mcp import chamber as module
from api.mcp.chamber import Chamber, Report
from api.mcp.results import outcome_of
from domain.errors.conclave_error import ConclaveError
from domain.errors.dependency import DependencyUnavailableError
from domain.witness.checkpoint import VerifierKey

AWAY = DependencyUnavailableError(dependency="server", problem="it cannot be reached")


async def silent(done: int, total: int | None, words: str) -> None:
    pass


async def broken(done: int, total: int | None, words: str) -> None:
    raise BrokenPipeError


class Server:
    """Deliberations behind a connection that can be held up or cut at each call; notes what was cancelled."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.goes_on = asyncio.Event()
        self.held: set[str] = set()
        self.cut: set[str] = set()
        self.cancelled: list[str] = []

    async def _call(self, name: str) -> None:
        if name in self.held:
            self.reached.set()
            await self.goes_on.wait()
        if name in self.cut:
            raise AWAY

    async def submit(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        await self._call("submit")
        return {"id": "d-1", "status": "queued", "question": body.get("question")}

    async def get(self, deliberation_id: str) -> Mapping[str, Any]:
        await self._call("get")
        return {"id": deliberation_id, "status": "running"}

    async def cancel(self, deliberation_id: str) -> Mapping[str, Any]:
        self.cancelled.append(deliberation_id)
        return {"id": deliberation_id, "status": "running"}

    async def events(self, deliberation_id: str) -> AsyncGenerator[Mapping[str, Any] | None, None]:
        yield {"type": "round.started", "round": 0, "deliberation_id": deliberation_id}
        if deliberation_id not in self.cancelled:
            await self._call("events")

    async def bundle(self, deliberation_id: str) -> Mapping[str, Any]:
        return {"deliberation_id": deliberation_id}


@pytest.fixture
def server() -> Server:
    return Server()


def asking(chamber: Chamber, report: Report = silent) -> asyncio.Task[Any]:
    return asyncio.create_task(
        chamber.deliberate({"question": "Why?"}, max_cost_usd=None, wait_s=None, report=report), name="asking"
    )


async def ask_and_go_away(server: Server) -> None:
    """Ask, be cancelled while the server is held up at a call, and close while that call goes on."""
    chamber = Chamber(server)
    question = asking(chamber)
    await server.reached.wait()
    question.cancel()
    with pytest.raises(asyncio.CancelledError):
        await question
    server.goes_on.set()
    await chamber.close()


@pytest.mark.parametrize("call", ["submit", "events", "get"])
async def test_whoever_is_cancelled_at_any_call_leaves_nothing_running(server: Server, call: str) -> None:
    server.held = {call}
    await ask_and_go_away(server)
    assert server.cancelled == ["d-1"]


async def test_what_was_refused_after_its_asker_went_away_is_not_cancelled(server: Server) -> None:
    server.held = server.cut = {"submit"}
    await ask_and_go_away(server)
    assert server.cancelled == []


async def test_an_asker_who_can_be_told_nothing_more_leaves_nothing_running(server: Server) -> None:
    chamber = Chamber(server)
    with pytest.raises(BrokenPipeError):
        await asking(chamber, broken)
    await chamber.close()
    assert server.cancelled == ["d-1"]


@pytest.mark.parametrize("cut", [{"events"}, {"get"}, {"events", "get"}])
async def test_a_server_that_goes_away_once_it_was_asked_costs_nobody_the_id(server: Server, cut: set[str]) -> None:
    server.cut = cut
    chamber = Chamber(server)
    found = await asking(chamber)
    assert (found.deliberation_id, found.has_ended, found.question) == ("d-1", False, "Why?")
    assert "could not be followed" in found.next_step
    await chamber.close()
    assert server.cancelled == []


async def test_a_server_that_cannot_be_asked_is_an_error(server: Server) -> None:
    server.cut = {"submit"}
    with pytest.raises(ConclaveError, match="cannot be reached"):
        await asking(Chamber(server))


async def test_a_decision_in_a_bundle_is_bounded(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    report = SimpleNamespace(tree_size=1, root_hash=b"", entries_checked=1, withheld_count=0, erased_count=0)
    found = SimpleNamespace(
        status="completed", outcome_status="decided", decision="x" * 90_000, roll_call={}, not_recomputed=None
    )
    monkeypatch.setattr(module, "_verified", lambda *_: (report, found))
    answer = await Chamber(server, pinned=VerifierKey("log.example", 1, bytes(32))).verify("d-1")
    assert answer.verified
    assert len(cast("str", answer.decision)) <= 2_010


LONG = "x" * 5_000


@pytest.mark.parametrize(
    "part",
    [
        {"reason": LONG},
        {"failures": [{"agent_id": "a", "round": 0, "state": "failed", "message": LONG}]},
        {"failures": [{"agent_id": LONG, "round": 0, "state": "failed", "message": ""}]},
        {"outcome": {"decision": LONG}},
        {"outcome": {"tally": {LONG: 1}}},
        {"outcome": {"dissent": {"positions": [{"answer": LONG, "count": 1}]}}},
        {"outcome": {"dissent": {"positions": [{"answer": "a", "count": 1, "agents": ["a"] * 100}]}}},
    ],
)
def test_an_outcome_of_which_anything_was_cut_says_so(part: Mapping[str, Any]) -> None:
    whole = {"id": "d-1", "status": "completed", "question": "Why?"}
    assert not outcome_of(whole).was_cut
    found = outcome_of({**whole, **part})
    assert found.was_cut
    assert len(found.model_dump_json()) < 4_000
