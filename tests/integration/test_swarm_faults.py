"""What a swarm makes of agents that die, fall silent or lie, of a bus that goes away, and of whoever wants it to end."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from application.services.stop_signal import StopReason, StopSignal
from application.services.swarm.faults import FaultyTask
from application.services.swarm.session_store import SessionStore
from application.services.swarm.swarm import ProcessUsage, Swarm
from application.services.swarm.task import CoinFlip, SwarmTask, TaskTerms
from domain.errors.configuration import ConfigurationError
from domain.errors.dependency import DependencyUnavailableError
from domain.models.deliberation import DeliberationStatus
from domain.models.message import Message, Payload
from domain.models.run import JsonValue, RunEnding
from domain.models.swarm import Coin, SwarmPlan
from infrastructure.buses.memory_bus import MemoryMessageBus
from infrastructure.swarm.session_folder import SessionFolder
from tests.servers.redis import RedisServer
from tests.swarm.runs import Notes, left_by, swarm

TENTH = frozenset(range(5, 128, 10))


def agents(numbers: frozenset[int]) -> list[str]:
    return [f"coin-agent-{number}" for number in sorted(numbers)]


def named(ending: RunEnding, kind: str) -> list[str]:
    failures: Any = ending.result["failures"]
    return [failure["agent_id"] for failure in failures if failure["kind"] == kind]


async def test_a_dead_agent_is_named_its_batch_retried_and_127_of_128_are_counted(tmp_path: Path) -> None:
    ending = await swarm(tmp_path, seed=1, wrap_task=lambda task: FaultyTask(task, dead={7}))
    assert ending.status is DeliberationStatus.COMPLETED
    assert (ending.result["received"], ending.result["lost"], ending.result["retried_batches"]) == (127, 1, 1)
    assert ending.result["missing"] == named(ending, "died") == ["coin-agent-7"]
    left = left_by(ending)
    assert len(left.vault["flips"]) == 127
    assert "batch 2 is retried: coin-agent-7" in left.log


async def test_a_silent_agent_is_named_and_its_batch_retried(tmp_path: Path) -> None:
    ending = await swarm(tmp_path, seed=1, timeout_s=0.5, wrap_task=lambda task: FaultyTask(task, silent={128}))
    assert (ending.result["received"], ending.result["missing"]) == (127, ["coin-agent-128"])
    failures: Any = ending.result["failures"]
    # On a machine that stands still others may be late as well, and are counted in the end.
    (failure,) = [each for each in failures if not each["counted"]]
    assert (failure["agent_id"], failure["kind"], failure["attempts"]) == ("coin-agent-128", "silent", 2)


async def test_a_tenth_of_the_agents_killed_is_named_and_retried(tmp_path: Path) -> None:
    ending = await swarm(tmp_path, seed=1, wrap_task=lambda task: FaultyTask(task, dead=TENTH))
    assert ending.result["missing"] == named(ending, "died") == agents(TENTH)
    assert ending.result["received"] == 128 - len(TENTH)
    assert ending.result["retried_batches"] == len({(number - 1) // 4 for number in TENTH})
    assert ending.result["handoffs"] == 128


async def test_an_agent_that_raises_fails_by_name_and_is_retried_once(tmp_path: Path) -> None:
    asked: list[int] = []

    class Counting(FaultyTask):
        async def perform(self, number: int, item: str | None) -> Payload:
            asked.append(number)
            return await super().perform(number, item)

    ending = await swarm(tmp_path, agents=8, wrap_task=lambda task: Counting(task, raising={3}))
    assert sorted(asked) == [1, 2, 3, 3, 4, 5, 6, 7, 8]
    failures: Any = ending.result["failures"]
    assert failures == [
        {
            "agent_id": "coin-agent-3",
            "batch": 1,
            "kind": "raised",
            "message": "RuntimeError: agent 3 was told to fail",
            "attempts": 2,
            "counted": False,
        }
    ]


async def test_an_agent_that_comes_to_itself_is_counted_in_the_end(tmp_path: Path) -> None:
    class Once(CoinAgain):
        async def perform(self, number: int, item: str | None) -> Payload:
            if number == 3 and self.first(number):
                raise RuntimeError("not yet")
            return await super().perform(number, item)

    ending = await swarm(tmp_path, seed=1, wrap_task=Once)
    assert (ending.result["received"], ending.result["lost"], ending.result["retried_batches"]) == (128, 0, 1)
    failures: Any = ending.result["failures"]
    assert [(failure["agent_id"], failure["counted"]) for failure in failures] == [("coin-agent-3", True)]


async def test_with_less_than_half_counted_a_swarm_has_failed(tmp_path: Path) -> None:
    ending = await swarm(tmp_path, agents=8, wrap_task=lambda task: FaultyTask(task, raising=range(1, 6)))
    assert (ending.status, ending.result["received"]) == (DeliberationStatus.FAILED, 3)
    ending = await swarm(tmp_path, agents=8, wrap_task=lambda task: FaultyTask(task, raising=range(1, 5)))
    assert (ending.status, ending.result["received"]) == (DeliberationStatus.COMPLETED, 4)


class CoinAgain:
    """The coin flip, which knows whom it has seen before."""

    def __init__(self, task: SwarmTask) -> None:
        self._task = task
        self._seen: set[int] = set()

    @property
    def terms(self) -> TaskTerms:
        return self._task.terms

    @property
    def slots(self) -> int:
        return self._task.slots

    def first(self, number: int) -> bool:
        first = number not in self._seen
        self._seen.add(number)
        return first

    async def perform(self, number: int, item: str | None) -> Payload:
        return await self._task.perform(number, item)

    async def close(self) -> None:
        await self._task.close()


class Meddler(CoinAgain):
    """An agent that says something over the bus that it has no business to say, and then flips its coin."""

    def __init__(self, task: SwarmTask, bus: MemoryMessageBus, message: Message) -> None:
        super().__init__(task)
        self._bus = bus
        self._message = message

    async def perform(self, number: int, item: str | None) -> Payload:
        if number == 1:
            await self._bus.send(self._message)
            # The others go on once everybody has had the time to hear it.
            for _ in range(20):
                await asyncio.sleep(0)
        elif number > 4:
            await asyncio.Event().wait()
        return await super().perform(number, item)


def claim(number: int, **other: Payload) -> dict[str, Payload]:
    return {
        "agent_id": f"coin-agent-{number}",
        "batch": 1,
        "attempt": 1,
        "ticket": "guessed",
        "result": "heads",
        **other,
    }


async def meddled_with(folder: Path, message: Message) -> RunEnding:
    bus = MemoryMessageBus()
    plan = SwarmPlan("meddled", "coin-flip", 8, 4, "memory", 7)
    return await Swarm(
        plan,
        Meddler(CoinFlip(plan), bus, message),
        bus=bus,
        store=SessionFolder(folder, plan.session),
        usage=lambda: ProcessUsage(0.0, 1),
    ).run(Notes(), StopSignal())


@pytest.mark.parametrize(
    ("message", "rule"),
    [
        (Message("coin-agent-9", "coin_group", "coin_result", claim(9)), "not_asked"),
        (Message("coin-agent-3", "coin_group", "coin_result", claim(3)), "foreign_id"),
        (Message("stranger", "coin_group", "coin_result", claim(3)), "foreign_id"),
        (Message("coin-agent-3", "coin_group", "coin_result", ["heads"]), "unreadable"),
        (Message("coin-agent-3", "coin_group", "coin_result", None), "unreadable"),
        (Message("coin-agent-3", "coin_group", "coin_result", b"\xff\x00"), "unreadable"),
        (Message("coin-agent-3", "coin_group", "\x1b[31m", {"result": "\x00"}), "unreadable"),
        (Message("stranger", "coin_group", "agent_failed", claim(3)), "unreadable"),
        (Message("stranger", "tool", "order", claim(3)), "foreign_order"),
    ],
)
async def test_safety_halts_the_swarm_on_a_poisoned_message(message: Message, rule: str, tmp_path: Path) -> None:
    ending = await meddled_with(tmp_path, message)
    assert ending.status is DeliberationStatus.FAILED
    vetoes: Any = ending.result["vetoes"]
    assert [veto["rule"] for veto in vetoes] == [rule]
    left = left_by(ending)
    # Nothing of it was counted, and those that had not acted by then never did.
    assert {flip["agent_id"] for flip in left.vault["flips"]} <= {f"coin-agent-{number}" for number in range(1, 5)}
    assert all(flip["result"] == Coin(7, int(flip["agent_id"][-1])).flip() for flip in left.vault["flips"])
    assert "Safety halts the swarm" in left.log
    assert "\x1b" not in left.log


@pytest.mark.parametrize("result", ["edge", 1, None, {"face": "heads"}, "x" * 10_000, ["heads"]])
async def test_safety_halts_the_swarm_on_a_result_that_the_task_does_not_allow(result: Any, tmp_path: Path) -> None:
    class Bent(CoinAgain):
        async def perform(self, number: int, item: str | None) -> Payload:
            return result if number == 2 else await super().perform(number, item)

    ending = await swarm(tmp_path, agents=4, wrap_task=Bent)
    vetoes: Any = ending.result["vetoes"]
    assert (ending.status, [veto["rule"] for veto in vetoes]) == (DeliberationStatus.FAILED, ["not_allowed"])
    assert "coin-agent-2" in str(ending.result["missing"])


@pytest.mark.parametrize("result", [float("nan"), object(), {1, 2}, b"bytes", "x" * 70_000])
async def test_a_result_that_no_message_can_carry_is_its_agents_failure(result: Any, tmp_path: Path) -> None:
    class Bent(CoinAgain):
        async def perform(self, number: int, item: str | None) -> Payload:
            return result if number == 2 else await super().perform(number, item)

    ending = await swarm(tmp_path, agents=4, wrap_task=Bent)
    assert (ending.status, ending.result["vetoes"]) == (DeliberationStatus.COMPLETED, [])
    assert ending.result["missing"] == named(ending, "bad_result") == ["coin-agent-2"]


@pytest.mark.parametrize("reason", list(StopReason))
async def test_who_wants_the_end_gets_what_was_counted(reason: StopReason, tmp_path: Path) -> None:
    stop = StopSignal()

    def end(type: str, data: Mapping[str, JsonValue]) -> None:  # noqa: A002
        if type == "swarm.progress" and data["received"] == 126:
            stop.set(reason)

    ending = await swarm(
        tmp_path, seed=1, stop=stop, observer=Notes(end), wrap_task=lambda task: FaultyTask(task, silent={9, 77})
    )
    assert ending.status is reason.status
    assert ending.result["missing"] == ["coin-agent-9", "coin-agent-77"]
    assert len(left_by(ending).vault["flips"]) == 126


async def test_a_folder_that_cannot_be_made_stops_the_swarm_before_it_begins(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("a file")
    with pytest.raises(ConfigurationError, match="--out"):
        await swarm(tmp_path)


async def test_a_session_is_never_written_over(tmp_path: Path) -> None:
    first = await swarm(tmp_path, session="same", agents=4)
    before = left_by(first)
    with pytest.raises(ConfigurationError, match="is there already"):
        await swarm(tmp_path, session="same", agents=4)
    assert left_by(first) == before


async def test_a_full_disk_is_said_and_leaves_no_half_document(tmp_path: Path) -> None:
    class FullStore(SessionFolder):
        def replace(self, name: str, document: Mapping[str, Payload]) -> int:
            raise OSError(28, "No space left on device", name)

    plan = SwarmPlan("full", "coin-flip", 4, 4, "memory", 7)
    store: SessionStore = FullStore(tmp_path, "full")
    run = Swarm(plan, CoinFlip(plan), bus=MemoryMessageBus(), store=store, usage=lambda: ProcessUsage(0.0, 1))
    with pytest.raises(OSError, match="No space left"):
        await run.run(Notes(), StopSignal())
    assert sorted(path.name for path in (tmp_path / "session_full").rglob("*.json")) == []


async def test_a_redis_that_is_away_is_a_dependency_that_is_away(tmp_path: Path) -> None:
    with pytest.raises(DependencyUnavailableError, match="redis"):
        await swarm(
            tmp_path, transport="redis", redis_url="redis://127.0.0.1:1/0", agents=4, bus_limits={"patience_s": 0.1}
        )


async def test_what_was_counted_when_redis_died_is_on_the_disk(tmp_path: Path) -> None:
    with RedisServer() as server:

        def kill(type: str, data: Mapping[str, JsonValue]) -> None:  # noqa: A002
            if type == "swarm.progress" and data["received"] == 127 and server.running:
                server.kill()

        ending = await swarm(
            tmp_path,
            transport="redis",
            redis_url=server.url(),
            seed=1,
            session="died",
            observer=Notes(kill),
            bus_limits={"patience_s": 0.2},
            wrap_task=lambda task: FaultyTask(task, silent={9}),
        )
    found = left_by(ending)
    failure: Any = ending.result["failure"]
    assert (ending.status, failure["kind"]) == (DeliberationStatus.FAILED, "bus-unavailable")
    assert "redis" in failure["message"]
    assert found.metrics == ending.result
    assert (found.metrics["received"], found.metrics["missing"]) == (127, ["coin-agent-9"])
    assert found.metrics["status"] == "failed"
    assert len(found.vault["flips"]) == 127


async def test_a_session_that_runs_already_is_not_run_a_second_time(tmp_path: Path, redis_url: str) -> None:
    second: list[BaseException] = []

    async def start_again() -> None:
        try:
            await swarm(tmp_path / "other", transport="redis", redis_url=redis_url, session="one", agents=4)
        except ConfigurationError as error:
            second.append(error)
        stop.set(StopReason.CANCELLED)

    stop = StopSignal()
    tasks: list[asyncio.Task[None]] = []

    def meddle(type: str, data: Mapping[str, JsonValue]) -> None:  # noqa: A002
        if type == "swarm.started":
            tasks.append(asyncio.create_task(start_again()))

    await swarm(
        tmp_path,
        transport="redis",
        redis_url=redis_url,
        session="one",
        agents=4,
        stop=stop,
        observer=Notes(meddle),
        wrap_task=lambda task: FaultyTask(task, silent={1}),
    )
    assert "'one' runs on that bus" in str(second[0])
