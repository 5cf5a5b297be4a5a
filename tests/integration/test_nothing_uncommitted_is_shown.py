"""While the commit of what the agents said is held back, no path shows any of it; once it is released, all paths do."""

import asyncio
import json
import os
import re
import sqlite3
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import make_url

from api.bootstrap import verification_tools
from api.conclave import Conclave
from api.main import RestServer
from application.ports.agent_orchestrator import AgentOutput, AgentRequest
from application.services.witness_service import WitnessService
from domain.models.budget import Usage
from infrastructure.persistence.database import open_database
from infrastructure.persistence.migrate import upgrade
from infrastructure.persistence.sql_deliberation_repository import SqlDeliberationRepository
from infrastructure.persistence.sql_witness_log import SqlWitnessLog
from infrastructure.stubs.in_memory_repository import InMemoryRepository
from infrastructure.witness.ed25519 import SigningKey
from infrastructure.witness.signer import CheckpointSigner
from tests.conclave_fixture import Answer, Client, open_stub_conclave

AGENTS = 12
SAID = "what-an-agent-said"
QUESTION = {"question": "Shall we?", "answer": {"kind": "verdict"}, "agents": {"count": AGENTS}}
DEADLINE_S = 30.0


class Unanimous:
    """Every agent answers at the same moment: when all were asked and nothing can be committed any more."""

    def __init__(self, hold: Callable[[], Awaitable[None]]) -> None:
        self._hold = hold
        self._asked = 0
        self._may_answer = asyncio.Event()
        self._replies = 0
        self.all_replied = asyncio.Event()

    async def invoke(self, request: AgentRequest) -> AgentOutput:
        """A yes."""
        self._asked += 1
        if self._asked == AGENTS:
            await self._hold()
            self._may_answer.set()
        await self._may_answer.wait()
        self._replies += 1
        if self._replies == AGENTS:
            self.all_replied.set()
        content = json.dumps({"answer": "yes", "confidence": 0.5, "reasoning": f"{SAID} {request.agent_id}"})
        return AgentOutput(request.agent_id, request.request_id, content, model="small", usage=Usage(1, 10, 5))


@dataclass
class Stack:
    """A server whose store can be told to commit nothing."""

    client: Client
    orchestrator: Unanimous
    release: Callable[[], None]

    async def ask(self, path: str) -> Answer:
        """What REST answers to a GET."""
        return await asyncio.to_thread(self.client.ask, "GET", path)

    async def command(self, *arguments: str) -> str:
        """What the command line prints about this server."""
        server = f"http://127.0.0.1:{self.client.port}"
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "api.cli.main", *arguments, "--server", server),
            env={**os.environ, "COLUMNS": "200"},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        printed, complaints = await process.communicate()
        return (printed + complaints).decode()


@dataclass
class Held:
    """A store of one kind: what it is made of, and how its commits are held back and let go."""

    repository: Any
    log: Any
    hold: Callable[[], Awaitable[None]]
    release: Callable[[], None]


@pytest.fixture(params=["memory", "sqlite", "postgres"])
async def stack(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Stack]:
    """The server over each store in turn, which commits nothing from the moment that all agents were asked."""
    async with AsyncExitStack() as opened:
        if request.param == "memory":
            held = _in_memory()
        else:
            url = f"sqlite:///{tmp_path}/conclave.db"
            held = await _in_database(
                opened, request.getfixturevalue("postgres_url") if request.param == "postgres" else url
            )
        signer = CheckpointSigner(SigningKey.from_seed(bytes(range(32))), "conclave.test/witness")
        witness = WitnessService(log=held.log, signer=signer, tools=verification_tools())

        async def hold() -> None:
            # As the service does once a second: a checkpoint of what is committed, which can be shown without a further one.
            await witness.checkpoint()
            await held.hold()

        orchestrator = Unanimous(hold)
        conclave = await opened.enter_async_context(
            open_stub_conclave(orchestrator=orchestrator, repository=held.repository)
        )
        # Whatever fails, the store must be free before the Conclave is closed, because that too writes.
        opened.callback(held.release)
        client = await opened.enter_async_context(_serving(replace(conclave, witness=witness)))
        yield Stack(client, orchestrator, held.release)


def _in_memory() -> Held:
    gate = asyncio.Event()
    gate.set()

    async def wait_at_gate() -> None:
        await gate.wait()

    async def hold() -> None:
        gate.clear()

    repository = InMemoryRepository(before_commit=wait_at_gate)
    return Held(repository, repository.log, hold, gate.set)


async def _in_database(opened: AsyncExitStack, url: str) -> Held:
    await asyncio.to_thread(upgrade, url)
    database = await open_database(url)
    opened.push_async_callback(database.close)
    repository = SqlDeliberationRepository(database)
    opened.push_async_callback(repository.close)
    locks: list[Callable[[], None]] = []

    async def hold() -> None:
        locks.append(await asyncio.to_thread(_lock, url))

    def release() -> None:
        while locks:
            locks.pop()()

    return Held(repository, SqlWitnessLog(database), hold, release)


def _lock(url: str) -> Callable[[], None]:
    """Let nobody write an entry, while everybody may read; gives what ends it."""
    address = make_url(url)
    if address.get_backend_name() == "sqlite":
        file = sqlite3.connect(str(address.database), isolation_level=None, check_same_thread=False)
        file.execute("BEGIN IMMEDIATE")
        return file.close
    session = psycopg.connect(url.replace("postgresql+psycopg://", "postgresql://", 1))
    session.execute("LOCK TABLE witness_entries, agent_records IN SHARE ROW EXCLUSIVE MODE")
    return session.close


@asynccontextmanager
async def _serving(conclave: Conclave) -> AsyncIterator[Client]:
    server = RestServer(conclave, port=0, drain_s=0.2, hang_up_s=1)
    listening: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    running = asyncio.create_task(
        server.run(on_listening=lambda urls: listening.set_result(int(urls[0].rpartition(":")[2])))
    )
    try:
        yield Client(await listening)
    finally:
        server.stop()
        await running


@dataclass
class Follower:
    """Reads an event stream to its end, noting how much had been released when each event came."""

    client: Client
    path: str
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)
    released: bool = False
    seen: list[tuple[bool, str, str]] = field(default_factory=list)
    all_started: asyncio.Event = field(default_factory=asyncio.Event)

    def follow(self) -> None:
        """Blocks until the stream ends."""
        started, kind = 0, ""
        with self.client.events(self.path) as stream:
            for raw in stream:
                line = raw.decode().rstrip("\n")
                if line.startswith("event: "):
                    kind = line.removeprefix("event: ")
                elif line.startswith("data: "):
                    self.seen.append((self.released, kind, line))
                    started += kind == "agent.started"
                    if kind == "agent.started" and started == AGENTS:
                        self.loop.call_soon_threadsafe(self.all_started.set)


def samples(metrics: Answer) -> Mapping[str, float]:
    """The samples of a scrape by their name, those of one name added up."""
    found: dict[str, float] = {}
    for name, value in re.findall(r"^(conclave_\w+)(?:\{[^}]*\})? (\S+)", metrics.body.decode(), re.MULTILINE):
        found[name] = found.get(name, 0.0) + float(value)
    return found


async def test_an_output_is_shown_nowhere_before_it_is_committed_and_everywhere_after(stack: Stack) -> None:
    accepted = await asyncio.to_thread(stack.client.post, QUESTION)
    own = f"/v1/deliberations/{accepted.document['id']}"
    follower = Follower(stack.client, f"{own}/events")
    following = asyncio.create_task(asyncio.to_thread(follower.follow))
    async with asyncio.timeout(DEADLINE_S):
        await stack.orchestrator.all_replied.wait()
        await follower.all_started.wait()

        everything = [await stack.ask(path) for path in (own, f"{own}/outputs", f"{own}/bundle", f"{own}/minutes")]
        everything += [await stack.ask("/v1/deliberations"), await stack.ask("/v1/witness/checkpoint")]
        shown, outputs, bundle, minutes, page, checkpoint = everything
        assert [answer.status for answer in everything] == [200] * 6
        assert (shown.document["status"], shown.document["roll_call"]["asked"]) == ("running", 0)
        assert shown.document.get("outcome") is None
        assert outputs.document["items"] == []
        types = [json.loads(entry["entry"])["type"] for entry in bundle.document["entries"]]
        assert types == ["deliberation.accepted", "round.started", *["call.intended"] * AGENTS]
        tree_size = int(checkpoint.body.splitlines()[1])
        assert tree_size == len(types)
        assert (await stack.ask(f"/v1/witness/entries/{tree_size}")).status == 422
        assert (await stack.ask(f"/v1/witness/tile/entries/000.p/{tree_size + 1}")).status == 404
        printed = [await stack.command(name, accepted.document["id"]) for name in ("show", "minutes")]
        told = [*(answer.body.decode() for answer in (shown, outputs, bundle, minutes, page)), *printed]
        assert [text for text in told if SAID in text or "agent.ended" in text or "Decision" in text] == []
        assert all(accepted.document["id"] in text for text in printed)
        counted = samples(await stack.ask("/metrics"))
        assert counted["conclave_agent_outcomes_total"] == 0
        assert counted["conclave_agent_invocations_total"] == counted["conclave_pool_active_agents"] == AGENTS
        assert counted["conclave_deliberations_total"] == 0
        assert {kind for _, kind, _ in follower.seen} == {
            "deliberation.queued",
            "deliberation.started",
            "round.started",
            "agent.started",
        }

        follower.released = True
        stack.release()
        await following
        after = [kind for released, kind, _ in follower.seen if released]
        assert after == ["agent.ended"] * AGENTS + ["round.ended", "deliberation.completed"]
        shown, outputs = await stack.ask(own), await stack.ask(f"{own}/outputs")
        assert (shown.document["status"], shown.document["roll_call"]["answered"]) == ("completed", AGENTS)
        assert [SAID in item["content"] for item in outputs.document["items"]] == [True] * AGENTS
        bundle, minutes = await stack.ask(f"{own}/bundle"), await stack.ask(f"{own}/minutes")
        assert sum(SAID in each["text"] for each in bundle.document["disclosures"]) >= AGENTS
        assert SAID in minutes.body.decode()
        assert SAID in await stack.command("minutes", accepted.document["id"])
        assert "Decision: yes" in await stack.command("show", accepted.document["id"])
        counted = samples(await stack.ask("/metrics"))
        assert counted["conclave_agent_outcomes_total"] == counted["conclave_agent_invocations_total"] == AGENTS
        assert counted["conclave_pool_active_agents"] == 0
