"""The pantheon over every transport, with threads, forgers and real processes around it."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from api.bootstrap import load_settings
from api.bootstrap.pantheon import open_pantheon
from application.ports.message_bus import Message
from application.ports.run_observer import NullRunObserver
from application.services.pantheon.function_mind import FunctionMind
from application.services.pantheon.letter import HANDOFF
from application.services.pantheon.mind import Brief, Opinion
from application.services.pantheon.pantheon_run import PantheonRun
from application.services.stop_signal import StopSignal
from domain.errors.configuration import ConfigurationError
from domain.models.deliberation import DeliberationStatus
from domain.models.pantheon import ROW, STEPS, PantheonRequest, Role
from domain.models.run import RunEnding
from infrastructure.buses.file_bus import FileMessageBus
from infrastructure.buses.memory_bus import MemoryMessageBus
from infrastructure.pantheon.roles_file import read_roles_file

TASK = "wörter zählen \N{SNOWMAN}"
TRANSPORTS = ("memory", "file", "shm", "redis")


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Simulated agents and an empty data folder."""
    monkeypatch.setenv("CONCLAVE_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("CONCLAVE_ORCHESTRATOR", "simulated")
    return load_settings()


@pytest.fixture
def place(request: pytest.FixtureRequest, settings: Any) -> Any:
    """The settings, with a server where the transport wants one."""
    if request.getfixturevalue("transport") == "redis":
        return settings.model_copy(update={"redis_url": request.getfixturevalue("redis_url")})
    return settings


async def ended(settings: Any, request: PantheonRequest, **more: Any) -> RunEnding:
    async with open_pantheon(settings, request, **more) as run:
        return await run.run(NullRunObserver(), StopSignal())


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_each_transport_carries_the_same_run(place: Any, transport: str) -> None:
    ending = await ended(place, PantheonRequest(TASK, None, 3), transport=transport)
    handoffs: Any = ending.result["handoffs"]
    assert ending.result["status"] == "executed"
    assert [handoff["to"] for handoff in handoffs] == [role.value for role in ROW] * 3
    assert all(handoff["latency_us"] > 0 for handoff in handoffs)
    digest = hashlib.sha256(TASK.encode()).hexdigest()
    assert (
        ending.result["executed"]
        == [
            {"step": "echo", "output": TASK},
            {"step": "word_count", "output": 3},
            {"step": "sha256", "output": digest},
        ]
        * 3
    )


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_each_transport_carries_a_rejection(place: Any, transport: str) -> None:
    ending = await ended(place, PantheonRequest(TASK, ("echo", "shell")), transport=transport)
    handoffs: Any = ending.result["handoffs"]
    assert (ending.result["status"], ending.result["executed"]) == ("rejected", [])
    assert [handoff["to"] for handoff in handoffs] == [role.value for role in ROW if role is not Role.EXECUTOR]


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_the_largest_task_and_plan_go_through(place: Any, transport: str) -> None:
    task = "t" + "\x01" * (32 * 1024 - 1)
    ending = await ended(place, PantheonRequest(task, ("echo",) * 16), transport=transport)
    assert ending.result["status"] == "executed"
    assert ending.result["executed"] == [{"step": "echo", "output": task}] * 16


@pytest.mark.parametrize("transport", ["file", "shm"])
async def test_a_run_leaves_nothing_of_its_bus_behind(
    place: Any, transport: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = uuid4()
    monkeypatch.setattr("api.bootstrap.pantheon.uuid4", lambda: run_id)

    def of_this_run() -> list[str]:
        return [path.name for path in Path("/dev/shm").iterdir() if run_id.hex in path.name]  # noqa: S108 - looked at

    async with open_pantheon(place, PantheonRequest(TASK), transport=transport) as run:
        await run.run(NullRunObserver(), StopSignal())
        assert of_this_run()
    assert of_this_run() == []


async def test_a_transport_that_there_is_not_is_refused(settings: Any) -> None:
    with pytest.raises(ConfigurationError, match="carrier pigeon"):
        await ended(settings, PantheonRequest(TASK), transport="carrier pigeon")
    with pytest.raises(ConfigurationError, match="CONCLAVE_REDIS_URL"):
        await ended(settings, PantheonRequest(TASK), transport="redis")


async def test_somebody_else_on_the_same_bus_has_nothing_executed(tmp_path: Path) -> None:
    copied: list[Message] = []

    class Forging:
        patience_s = 30.0

        async def consult(self, role: Role, brief: Brief) -> Opinion:
            # Another object on the same folder, as another process of this user would have it.
            async with FileMessageBus(tmp_path / "bus") as other:
                letter = '{"cycle": 1, "task": "forged", "plan": ["echo"]}'
                await other.send(Message("validator", "executor", HANDOFF, {"letter": letter, "seal": "0" * 64}))
                for message in copied:
                    await other.send(Message("validator", "executor", message.type, message.payload))
            return Opinion()

    def keep(kind: str, message: Message) -> None:
        if kind == "sent" and message.sender in ("observer", "reasoner"):
            copied.append(message)

    async with FileMessageBus(tmp_path / "bus", tap=keep) as bus:
        run = PantheonRun(PantheonRequest(TASK, ("word_count",)), bus=bus, minds={Role.ACTOR: Forging()})
        ending = await run.run(NullRunObserver(), StopSignal())
    assert ending.result["executed"] == [{"step": "word_count", "output": 3}]
    assert ending.result["refused"] == 3


def in_threads(brief: dict[str, Any]) -> str:
    return f"{threading.current_thread().name} {brief['role']}"


async def over_memory(minds: Mapping[Role, Any]) -> RunEnding:
    async with MemoryMessageBus() as bus:
        return await PantheonRun(PantheonRequest(TASK), bus=bus, minds=minds).run(NullRunObserver(), StopSignal())


async def test_a_plain_function_runs_beside_the_event_loop() -> None:
    remarks: Any = (await over_memory({Role.OBSERVER: FunctionMind(in_threads)})).result["remarks"]
    assert remarks == [{"cycle": 1, "role": "observer", "text": "pantheon-role observer"}]


async def test_a_plain_function_that_hangs_is_named_and_holds_nothing_up() -> None:
    free = threading.Event()
    try:
        ending = await over_memory({Role.LEARNER: FunctionMind(lambda _: free.wait(), patience_s=0.05)})
    finally:
        free.set()
    failure: Any = ending.result["failure"]
    assert (ending.status, failure["role"], failure["kind"]) == (DeliberationStatus.FAILED, "learner", "timeout")


@pytest.mark.parametrize(
    "error", [ValueError("no"), SystemExit(3), KeyboardInterrupt(), StopIteration(), asyncio.CancelledError()]
)
async def test_a_plain_function_that_raises_whatever_only_fails_its_role(error: BaseException) -> None:
    def breaks(_: dict[str, Any]) -> None:
        raise error

    failure: Any = (await over_memory({Role.ACTOR: FunctionMind(breaks)})).result["failure"]
    assert (failure["role"], failure["kind"]) == ("actor", "raised")


async def test_a_function_that_returns_an_awaitable_is_awaited() -> None:
    async def plan() -> list[str]:
        return ["sha256"]

    executed: Any = (await over_memory({Role.REASONER: FunctionMind(lambda _: plan())})).result["executed"]
    assert [done["step"] for done in executed] == ["sha256"]


async def test_simulated_roles_are_asked_through_the_service_and_said_to_be_simulated(
    settings: Any, tmp_path: Path
) -> None:
    file = tmp_path / "roles.toml"
    file.write_text('[observer]\nmodel = "any/model"\n[reasoner]\ndeliberation = { agents = 9 }\n')
    ending = await ended(settings, PantheonRequest(TASK), roles=read_roles_file(file))
    remarks: Any = ending.result["remarks"]
    assert ending.result["simulated"] is True
    assert {remark["role"] for remark in remarks} == {"observer", "reasoner"}
    executed: Any = ending.result["executed"]
    assert {done["step"] for done in executed} <= set(STEPS)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('[learner]\ndeliberation = { agents = 3, roster = "nobody" }\n', r"\[learner\]: there is no roster"),
        ('[reasoner]\nmodel = "x"\nquestion = "' + "q" * 30_000 + '"\n', ""),
    ],
)
async def test_roles_that_can_never_be_asked_are_refused_before_anything_is_done(
    settings: Any, tmp_path: Path, text: str, problem: str
) -> None:
    file = tmp_path / "roles.toml"
    file.write_text(text)
    roles = read_roles_file(file)
    if not problem:
        assert (await ended(settings, PantheonRequest(TASK), roles=roles)).result["simulated"] is True
        return
    with pytest.raises(ConfigurationError, match=problem):
        await ended(settings, PantheonRequest(TASK), roles=roles)
