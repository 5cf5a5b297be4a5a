"""A run of the pantheon tells what its bus did to it, takes no name that is another's, and leaves none behind."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from application.ports.run_observer import NullRunObserver
from application.services.pantheon.mind import Brief, Opinion
from application.services.pantheon.pantheon_run import PantheonRun
from application.services.stop_signal import StopSignal
from domain.errors.bus import BusUnavailableError, NameTakenError
from domain.models.deliberation import DeliberationStatus
from domain.models.message import BusStats, Message
from domain.models.pantheon import CONDUCTOR, PantheonRequest, Role
from infrastructure.buses.memory_bus import MemoryMessageBus
from tests.unit.application.minded_pantheon import NAMES, TASK, Thinking
from tests.virtual_time import time_passed


async def test_a_letter_that_is_lost_is_missed_by_the_role_it_was_for() -> None:
    class Losing(MemoryMessageBus):
        async def send(self, message: Message, *, timeout: float = 30.0) -> str:
            return "lost" if message.recipient == "analyzer" else await super().send(message, timeout=timeout)

    async with Losing() as bus:
        run = PantheonRun(PantheonRequest(TASK), bus=bus, handoff_patience_s=10.0)
        ending = await run.run(NullRunObserver(), StopSignal())
    failure: Any = ending.result["failure"]
    assert (failure["role"], failure["kind"]) == ("analyzer", "handoff_lost")
    assert 10.0 <= time_passed() <= 15.0


class Leaving(MemoryMessageBus):
    """Is away from the letter to the analyzer on, and keeps who asked it for anything after that."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.away = BusUnavailableError(transport="redis", problem="it does not answer", remedy="Start it.")

    async def send(self, message: Message, *, timeout: float = 30.0) -> str:
        if message.recipient == "analyzer":
            raise self.away
        return await super().send(message, timeout=timeout)

    async def stats(self) -> BusStats:
        self.asked.append("stats")
        raise self.away

    async def unregister(self, agent_id: str) -> None:
        self.asked.append(agent_id)
        raise self.away


async def test_a_bus_that_went_away_is_the_failure_and_is_asked_for_nothing_more(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bus = Leaving()
    ending = await PantheonRun(PantheonRequest(TASK), bus=bus).run(NullRunObserver(), StopSignal())
    await bus.close()
    failure: Any = ending.result["failure"]
    executed: Any = ending.result["executed"]
    assert (failure["role"], failure["kind"]) == ("memory", "bus-unavailable")
    assert len(executed) == 3
    assert bus.asked == []
    assert "no name on it is given up" in caplog.text


async def test_a_bus_that_goes_away_before_the_run_has_its_places_is_asked_for_nothing_more() -> None:
    class Full(Leaving):
        async def register(self, agent_id: str, **more: Any) -> None:
            if agent_id == "validator":
                raise self.away
            await super().register(agent_id, **more)

    bus = Full()
    with pytest.raises(BusUnavailableError):
        await PantheonRun(PantheonRequest(TASK), bus=bus).run(NullRunObserver(), StopSignal())
    await bus.close()
    assert bus.asked == []


async def test_a_bus_that_goes_away_at_the_end_is_asked_once_and_takes_nothing_from_the_result(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class LeavingLast(Leaving):
        async def send(self, message: Message, *, timeout: float = 30.0) -> str:
            return await MemoryMessageBus.send(self, message, timeout=timeout)

    bus = LeavingLast()
    ending = await PantheonRun(PantheonRequest(TASK), bus=bus).run(NullRunObserver(), StopSignal())
    await bus.close()
    assert ending.status is DeliberationStatus.COMPLETED
    assert bus.asked == ["stats"]
    assert "left as it is" in caplog.text


async def test_a_bus_that_hangs_at_the_end_is_left_after_two_seconds(caplog: pytest.LogCaptureFixture) -> None:
    class Hanging(MemoryMessageBus):
        async def unregister(self, agent_id: str) -> None:
            await asyncio.Event().wait()

    async with Hanging() as bus:
        ending = await PantheonRun(PantheonRequest(TASK), bus=bus).run(NullRunObserver(), StopSignal())
    assert ending.result["status"] == "executed"
    assert time_passed() == pytest.approx(2.0)
    assert "did not answer within 2 s" in caplog.text


async def test_a_role_that_somebody_takes_off_the_bus_is_named() -> None:
    async with MemoryMessageBus() as bus:

        async def evict(_: Brief) -> Opinion:
            await bus.unregister("learner")
            return Opinion()

        run = PantheonRun(PantheonRequest(TASK), bus=bus, minds={Role.OBSERVER: Thinking(evict)})
        ending = await run.run(NullRunObserver(), StopSignal())
    failure: Any = ending.result["failure"]
    assert (failure["role"], failure["kind"]) == ("learner", "unknown-agent")


async def test_a_name_that_is_taken_keeps_the_run_from_beginning_and_gives_the_others_back() -> None:
    async with MemoryMessageBus() as bus:
        await bus.register("improver")
        with pytest.raises(NameTakenError):
            await PantheonRun(PantheonRequest(TASK), bus=bus).run(NullRunObserver(), StopSignal())
        for name in [CONDUCTOR, *NAMES[:-1]]:
            await bus.register(name)


async def test_a_run_leaves_no_agent_on_the_bus_and_no_task() -> None:
    async with MemoryMessageBus() as bus:
        await PantheonRun(PantheonRequest(TASK), bus=bus).run(NullRunObserver(), StopSignal())
        for name in [CONDUCTOR, *NAMES]:
            await bus.register(name)
    assert len(asyncio.all_tasks()) == 1
