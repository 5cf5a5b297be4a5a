"""The Python client against a real server whose agents are at the test LLM server: both flavours, every call, and a kill -9."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, aclosing, contextmanager
from pathlib import Path

import pytest

from conclave_client import (
    AsyncConclave,
    Conclave,
    ConflictError,
    Event,
    ForbiddenError,
    InvalidError,
    NotFoundError,
    UnauthenticatedError,
    WaitTimeoutError,
)
from tests.integration.python_client_flavours import FLAVOURS, Flavour, opened
from tests.llm_server.handle import LlmServer
from tests.servers.keeper import free_port

ADMIN, OPERATOR, OTHER, OBSERVER = (f"secret-of-the-{role}" for role in ("admin", "operator", "other", "observer"))
KEYS = f"root:admin:{ADMIN},alice:operator:{OPERATOR},carol:operator:{OTHER},bob:observer:{OBSERVER}"
PATIENCE_S = 60.0


@contextmanager
def serving(folder: Path, llm: LlmServer, *, port: int, keys: str = "") -> Iterator[subprocess.Popen[str]]:
    """A server process on that port, which is killed in the end."""
    settings = {
        "CONCLAVE_DATA_DIR": str(folder),
        "CONCLAVE_ORCHESTRATOR": "openai",
        "CONCLAVE_LLM_BASE_URL": llm.base_url,
        "CONCLAVE_PORT": str(port),
        **({"CONCLAVE_API_KEYS": keys} if keys else {}),
    }
    command = [sys.executable, "-m", "api.cli.main", "serve"]
    process = subprocess.Popen(command, env={**os.environ, **settings}, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        assert any("listening on" in line for line in process.stderr)
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory, llm_server_process: LlmServer) -> Iterator[str]:
    """The address of a server that wants keys."""
    port = free_port()
    with serving(tmp_path_factory.mktemp("served"), llm_server_process, port=port, keys=KEYS):
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(params=FLAVOURS)
def alice(request: pytest.FixtureRequest, url: str, llm_server: LlmServer) -> Iterator[Flavour]:
    with opened(request.param, url, api_key=OPERATOR) as client:
        yield client


@pytest.fixture(params=FLAVOURS)
def root(request: pytest.FixtureRequest, url: str, llm_server: LlmServer) -> Iterator[Flavour]:
    with opened(request.param, url, api_key=ADMIN) as client:
        yield client


def test_a_question_is_asked_and_everything_about_it_is_read(alice: Flavour, tmp_path: Path) -> None:
    found = alice.call("ask", "Should the harbour be dredged?", options=["yes", "no"], agents=5, seed=7)
    assert (found.status, found.roll_call.asked, found.simulated) == ("completed", 5, False)
    assert found.decision == found.outcome.decision
    assert {found.outcome.decision} <= {"yes", "no", None}
    events = list(alice.each("events", found.id))
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert (events[-1].type, events[-1].is_terminal) == ("deliberation.completed", True)
    assert list(alice.each("events", found.id, after=events[-2].sequence)) == events[-1:]
    assert list(alice.each("events", found.id, after=events[-1].sequence)) == []
    outputs = alice.call("outputs", found.id, round_number=0)
    assert sorted(output.agent_id for output in outputs) == [f"archon-{number}" for number in range(1, 6)]
    assert alice.call("get", found.id) == alice.call("wait", found.id)
    assert "dredged" in alice.call("report", found.id)
    assert alice.call("minutes", found.id).startswith("#")
    entry = alice.call("witness.entry", outputs[0].leaf_index)
    assert entry.leaf_hash == outputs[0].leaf_hash
    proof = alice.call("witness.inclusion_proof", outputs[0].leaf_index, tree_size=found.witness.tree_size)
    assert (proof.leaf_hash, proof.root_hash) == (entry.leaf_hash, found.witness.root_hash)
    verify_as_a_stranger(alice.call("bundle", found.id).document, tmp_path)


def verify_as_a_stranger(bundle: object, folder: Path) -> None:
    file = folder / "bundle.json"
    file.write_text(json.dumps(bundle), encoding="utf-8")
    key = json.loads(file.read_text(encoding="utf-8"))["public_key"]
    command = [sys.executable, "-m", "api.cli.main", "witness", "verify", str(file), "--key", key]
    assert subprocess.run(command, capture_output=True, timeout=PATIENCE_S).returncode == 0


def test_ballots_are_counted_again_and_the_truth_is_said(alice: Flavour) -> None:
    found = alice.call("ask", "Why?", options=["a", "b"], agents=3, seed=1)
    recount = alice.call("recount", found.id, {"kind": "threshold", "fraction": 0.9})
    assert (recount.outcome.rule, recount.rule.fraction) == ("threshold", 0.9)
    resolution = alice.call("resolve", found.id, "a")
    assert len(resolution.agents) == 3
    assert alice.call("track_record").questions >= 1


def test_lists_are_gone_through_page_by_page(alice: Flavour) -> None:
    words = f"tides {id(alice)}"
    ids = [alice.call("deliberate", f"What of the {words}?", agents=1, wait_s=30).id for _ in range(3)]
    found = list(alice.each("list", search=words, page_size=2))
    assert [each.id for each in found] == ids[::-1]
    assert list(alice.each("list", search=words, status="halted")) == []


def test_a_quote_costs_nothing_and_use_is_summed_up(alice: Flavour, llm_server: LlmServer) -> None:
    assert alice.call("quote", "Why?", agents=9).calls.expected == 9
    assert llm_server.stats()["requests"] == 0
    alice.call("ask", "Why?", agents=2)
    (used,) = alice.call("usage", "key")
    assert used.key == "alice"


def test_who_can_be_asked_and_how_the_server_does_is_read(alice: Flavour) -> None:
    assert "archons" in {roster.name for roster in alice.call("rosters")}
    assert len(alice.call("roster", "archons").agents) == 72
    assert alice.call("pool").capacity == 72
    assert alice.call("alive").status == "ok"
    assert alice.call("readiness").is_ready
    assert "conclave_pool_capacity_agents 72" in alice.call("metrics")
    assert alice.call("webhook_keys").keys == {}


def test_the_log_is_read(alice: Flavour) -> None:
    alice.call("ask", "Why?", agents=1)
    size = int(alice.call("witness.checkpoint").splitlines()[1])
    proof = alice.call("witness.consistency_proof", 1, size)
    assert (proof.first, proof.second) == (1, size)
    width = min(size, 256)
    path = "0/000" if width == 256 else f"0/000.p/{width}"
    assert alice.call("witness.tile", path)[:32].hex() == alice.call("witness.entry", 0).leaf_hash


def test_a_deliberation_is_stopped(alice: Flavour, llm_server: LlmServer) -> None:
    llm_server.configure(faults=[{"fault": "hold"}])
    accepted = alice.call("deliberate", "Why?", agents=2)
    llm_server.wait_until(held_at_least=2)
    with pytest.raises(WaitTimeoutError) as raised:
        alice.call("wait", accepted.id, timeout_s=0.3)
    assert raised.value.deliberation_id == accepted.id
    alice.call("cancel", accepted.id)
    assert alice.call("wait", accepted.id).status == "cancelled"
    with pytest.raises(ConflictError) as refused:
        alice.call("cancel", accepted.id)
    assert refused.value.problem.state == "cancelled"


def test_a_run_is_started_and_followed(alice: Flavour) -> None:
    started = alice.call("runs.start", "pantheon", {"task": "Say hello"}, idempotency_key="hello")
    assert alice.call("runs.start", "pantheon", {"task": "Say hello"}, idempotency_key="hello").id == started.id
    events = list(alice.each("runs.events", started.id))
    assert events[-1].type == "run.completed"
    found = alice.call("runs.get", started.id)
    assert (found.has_ended, found.result["status"]) == (True, "executed")
    assert started.id in {run.id for run in alice.each("runs.list")}
    with pytest.raises(ConflictError):
        alice.call("runs.cancel", started.id)


def test_an_admin_halts_and_ends_the_halt(root: Flavour) -> None:
    assert root.call("halt.set", "Looks wrong.").halted
    try:
        assert root.call("halt.get").reason == "Looks wrong."
    finally:
        assert not root.call("halt.clear", "Looked into.").halted


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_keys_decide_what_may_be_done_and_seen(flavour: str, url: str, llm_server: LlmServer) -> None:
    with opened(flavour, url, api_key=OPERATOR) as alice:
        accepted = alice.call("deliberate", "Why?", agents=1)
        with pytest.raises(ForbiddenError):
            alice.call("halt.set", "no")
        with pytest.raises(InvalidError) as refused:
            alice.call("deliberate", "Why?", options=["one"])
        assert [found.pointer for found in refused.value.errors] == ["/answer/options"]
    with opened(flavour, url, api_key=OTHER) as carol, pytest.raises(NotFoundError):
        carol.call("get", accepted.id)
    with opened(flavour, url, api_key=OBSERVER) as bob, pytest.raises(ForbiddenError):
        bob.call("deliberate", "Why?")
    for key in (None, "secret-of-nobody"):
        with opened(flavour, url, api_key=key) as stranger, pytest.raises(UnauthenticatedError) as unknown:
            list(stranger.each("events", accepted.id))
        assert "secret-of-nobody" not in f"{unknown.value} {unknown.value.problem}"


def test_events_go_on_exactly_over_a_kill_and_a_restart_and_nothing_is_done_twice(
    tmp_path: Path, llm_server: LlmServer
) -> None:
    llm_server.configure(faults=[{"nth": 3, "fault": "hold"}])
    port = free_port()
    question = {"question": "Why?", "agents": 3, "idempotency_key": "once"}
    with ExitStack() as stack:
        clients = [stack.enter_context(opened(flavour, f"http://127.0.0.1:{port}")) for flavour in FLAVOURS]
        with serving(tmp_path, llm_server, port=port) as process:
            accepted = clients[0].call("deliberate", **question)
            streams = [client.each("events", accepted.id) for client in clients]
            seen = [list(until_two_have_ended(stream)) for stream in streams]
            process.send_signal(signal.SIGKILL)
            process.wait()
        with serving(tmp_path, llm_server, port=port):
            for client, stream, events in zip(clients, streams, seen, strict=True):
                events.extend(stream)
                assert [event.sequence for event in events] == list(range(1, len(events) + 1))
                assert events[-1].type == "deliberation.completed"
                assert client.call("ask", **question).id == accepted.id
            assert seen[0] == seen[1] == list(clients[0].each("events", accepted.id))
            assert [found.id for found in clients[1].each("list")] == [accepted.id]


def until_two_have_ended(stream: Iterator[Event]) -> Iterator[Event]:
    ended = 0
    while ended < 2:
        event = next(stream)
        ended += event.type == "agent.ended"
        yield event


async def test_a_cancelled_wait_gives_its_connection_back(url: str, llm_server: LlmServer) -> None:
    llm_server.configure(faults=[{"fault": "hold"}])
    async with AsyncConclave(url, api_key=OPERATOR) as conclave:
        accepted = await conclave.deliberate("Why?", agents=1)
        await llm_server.until(held_at_least=1)
        waiting = asyncio.create_task(conclave.ask("Why too?", agents=1))
        await llm_server.until(held_at_least=2)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        async with aclosing(conclave.events(accepted.id)) as events:
            assert (await anext(events)).sequence == 1
        await conclave.cancel(accepted.id)
        assert (await conclave.wait(accepted.id)).status == "cancelled"


def test_threads_share_one_client(url: str, llm_server: LlmServer) -> None:
    async def asked() -> set[str]:
        with Conclave(url, api_key=OPERATOR) as conclave:
            questions = [asyncio.to_thread(conclave.ask, f"Why {number}?", agents=1) for number in range(8)]
            return {found.status for found in await asyncio.gather(*questions)}

    assert asyncio.run(asked()) == {"completed"}
