"""The watcher of the halt: shut until it knows better, quick, and obeyed from whatever event loop asks."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest

from application.ports.agent_orchestrator import AgentRequest, ContextBundle
from application.services.concurrent_deliberation_service import ConcurrentDeliberationService
from domain.errors.halt import SystemHaltedError
from domain.models.halt import ChannelReading, HaltCondition
from infrastructure.halt.dual_channel_halt_checker import DualChannelHaltChecker
from infrastructure.stubs.agent_orchestrator_stub import AgentOrchestratorStub
from infrastructure.stubs.halt_channel_stub import HaltChannelStub
from tests.patience import eventually, eventually_in_loop

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
PATIENCE_S = 10.0


@pytest.fixture
def channels() -> tuple[HaltChannelStub, HaltChannelStub]:
    return HaltChannelStub("database"), HaltChannelStub("file")


@pytest.fixture
def checker(channels: tuple[HaltChannelStub, HaltChannelStub]) -> Iterator[DualChannelHaltChecker]:
    checker = DualChannelHaltChecker(channels=channels, poll_s=0.005, stale_s=0.3)
    yield checker
    for channel in channels:
        channel.answers.set()
    checker.close()


class HeldClock:
    """Monotonic seconds that pass only when told."""

    def __init__(self) -> None:
        self.at = 100.0

    def __call__(self) -> float:
        return self.at


def unwatched(*channels: HaltChannelStub, clock: Callable[[], float] = time.monotonic) -> DualChannelHaltChecker:
    return DualChannelHaltChecker(channels=channels, stale_s=1.0, monotonic=clock, now=lambda: NOON)


async def shut(checker: DualChannelHaltChecker) -> None:
    """Return once the door is shut. Nobody is told of a doubt, so that this has to ask."""
    await eventually_in_loop(checker.is_halted)


def condition_of(checker: DualChannelHaltChecker) -> HaltCondition:
    return checker.state.condition


def test_before_a_channel_was_read_the_door_is_shut() -> None:
    database, file = HaltChannelStub("database"), HaltChannelStub("file")
    checker = unwatched(database, file)
    assert condition_of(checker) is HaltCondition.IN_DOUBT
    checker.look(database)
    assert condition_of(checker) is HaltCondition.IN_DOUBT
    checker.look(file)
    assert condition_of(checker) is HaltCondition.OPEN


async def test_it_opens_once_every_channel_has_answered(checker: DualChannelHaltChecker) -> None:
    async with asyncio.timeout(PATIENCE_S):
        assert await checker.first_look()
        assert await checker.wait_until_open()
    assert not await checker.is_halted()
    assert await checker.get_halt_reason() is None


async def test_it_drops_into_the_fan_out_without_being_started(
    checker: DualChannelHaltChecker, channels: tuple[HaltChannelStub, HaltChannelStub]
) -> None:
    service = ConcurrentDeliberationService(orchestrator=AgentOrchestratorStub(), halt_checker=checker)
    context = ContextBundle(topic_id="t-1", topic_content="Shall we?")
    requests = [AgentRequest(agent_id=f"archon-{number}", context=context) for number in range(3)]
    assert (await service.invoke_concurrent(requests)).success_count == 3
    channels[0].set("a drill", NOON)
    async with asyncio.timeout(PATIENCE_S):
        await checker.wait_until_halted()
    with pytest.raises(SystemHaltedError, match="a drill"):
        await service.invoke_concurrent(requests)


async def test_who_asks_first_does_not_wait_long_for_a_channel_that_hangs(
    checker: DualChannelHaltChecker, channels: tuple[HaltChannelStub, HaltChannelStub]
) -> None:
    channels[0].answers.clear()
    async with asyncio.timeout(PATIENCE_S):
        assert await checker.is_halted()


@pytest.mark.parametrize("which", [0, 1])
async def test_either_channel_alone_halts(
    checker: DualChannelHaltChecker, channels: tuple[HaltChannelStub, HaltChannelStub], which: int
) -> None:
    async with asyncio.timeout(PATIENCE_S):
        assert await checker.wait_until_open()
        channels[which].set("a drill", NOON)
        await checker.wait_until_halted()
    assert await checker.is_halted()
    assert await checker.get_halt_reason() == "a drill"


async def test_a_channel_away_shuts_the_door_ends_nothing_and_opens_it_again(
    checker: DualChannelHaltChecker, channels: tuple[HaltChannelStub, HaltChannelStub]
) -> None:
    async with asyncio.timeout(PATIENCE_S):
        assert await checker.wait_until_open()
        told_to_end = asyncio.create_task(checker.wait_until_halted())
        channels[0].problem = "it is gone"
        await shut(checker)
        paused = asyncio.create_task(checker.wait_until_open())
        channels[0].problem = None
        assert await paused
    assert not told_to_end.done()
    told_to_end.cancel()


async def test_who_waits_in_doubt_is_told_when_it_is_a_halt(
    checker: DualChannelHaltChecker, channels: tuple[HaltChannelStub, HaltChannelStub]
) -> None:
    channels[0].problem = "it is gone"
    async with asyncio.timeout(PATIENCE_S):
        assert await checker.first_look()
        paused = asyncio.create_task(checker.wait_until_open())
        channels[1].set("a drill", NOON)
        assert await paused is False


async def test_a_channel_that_hangs_shuts_the_door_until_it_answers(
    checker: DualChannelHaltChecker, channels: tuple[HaltChannelStub, HaltChannelStub]
) -> None:
    async with asyncio.timeout(PATIENCE_S):
        assert await checker.wait_until_open()
        channels[0].answers.clear()
        await shut(checker)
        assert checker.state.unreachable == ("database",)
        paused = asyncio.create_task(checker.wait_until_open())
        channels[0].answers.set()
        assert await paused


def test_a_reading_that_is_too_old_counts_no_more() -> None:
    clock = HeldClock()
    database, file = HaltChannelStub("database"), HaltChannelStub("file")
    checker = unwatched(database, file, clock=clock)
    for channel in (database, file):
        checker.look(channel)
    clock.at += 0.9
    checker.look(file)
    assert condition_of(checker) is HaltCondition.OPEN
    clock.at += 0.2
    assert checker.state.unreachable == ("database",)
    assert "has not answered for 1 s" in str(checker.state.reason)


def test_a_halt_is_not_forgotten_because_its_channel_falls_silent() -> None:
    clock = HeldClock()
    database, file = HaltChannelStub("database"), HaltChannelStub("file")
    checker = unwatched(database, file, clock=clock)
    database.set("a drill", NOON)
    for channel in (database, file):
        checker.look(channel)
    clock.at += 60
    checker.look(file)
    assert (condition_of(checker), checker.state.reason) == (HaltCondition.HALTED, "a drill")


def test_a_channel_that_breaks_is_a_channel_that_is_away(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(HaltChannelStub):
        def read(self) -> ChannelReading:
            raise RuntimeError("oh")

    broken = Broken("database")
    checker = unwatched(broken)
    checker.look(broken)
    assert checker.state.channels["database"].problem == "reading it broke (RuntimeError)"
    assert "reading the halt channel 'database' broke" in caplog.text


def test_what_was_told_is_believed_above_a_look_that_began_before() -> None:
    class Slow(HaltChannelStub):
        during: Callable[[], None] = staticmethod(lambda: None)

        def read(self) -> ChannelReading:
            found = super().read()
            self.during()
            return found

    file = Slow("file")
    checker = unwatched(file)
    file.during = lambda: checker.tell("file", ChannelReading(halted=True, reason="just set", since=NOON))
    checker.look(file)
    assert checker.state.reason == "just set"


def test_a_process_that_holds_itself_is_halted_until_it_lets_go() -> None:
    file = HaltChannelStub("file")
    checker = unwatched(file)
    checker.look(file)
    checker.hold("the log does not verify")
    assert (condition_of(checker), checker.state.held) == (HaltCondition.HALTED, "the log does not verify")
    checker.let_go()
    assert condition_of(checker) is HaltCondition.OPEN


def test_while_a_halt_is_being_set_no_call_begins_and_nothing_is_ended() -> None:
    file = HaltChannelStub("file")
    checker = unwatched(file)
    checker.look(file)
    with checker.shut():
        assert condition_of(checker) is HaltCondition.IN_DOUBT
    assert condition_of(checker) is HaltCondition.OPEN


def test_nothing_is_ended_before_a_halt_that_is_being_set_can_be_acknowledged() -> None:
    clock = HeldClock()
    file = HaltChannelStub("file")
    checker = unwatched(file, clock=clock)

    async def set_it() -> tuple[bool, bool]:
        waiting = asyncio.create_task(checker.wait_until_halted())
        await asyncio.sleep(0)
        with checker.shut():
            file.set("a drill", NOON)
            checker.tell("file", ChannelReading(halted=True, reason="a drill", since=NOON))
        for _ in range(100):
            await asyncio.sleep(0)
        early = waiting.done()
        clock.at += 0.1
        async with asyncio.timeout(PATIENCE_S):
            await waiting
        return early, await checker.is_halted()

    checker.look(file)
    try:
        assert asyncio.run(set_it()) == (False, True)
    finally:
        checker.close()


async def test_the_door_shuts_while_the_event_loop_is_stuck(
    checker: DualChannelHaltChecker, channels: tuple[HaltChannelStub, HaltChannelStub]
) -> None:
    async with asyncio.timeout(PATIENCE_S):
        assert await checker.wait_until_open()
    told = asyncio.create_task(checker.wait_until_halted())
    await asyncio.sleep(0)
    shut = threading.Event()

    def watch_the_door() -> None:
        eventually(lambda: checker.state.condition is HaltCondition.HALTED)
        shut.set()

    watching = threading.Thread(target=watch_the_door)
    watching.start()
    channels[1].set("a drill", NOON)
    # The loop stands still here, until the door is seen to be shut from outside it.
    assert shut.wait(PATIENCE_S)
    assert not told.done()
    watching.join()
    async with asyncio.timeout(PATIENCE_S):
        await told


async def test_several_event_loops_are_woken(
    checker: DualChannelHaltChecker, channels: tuple[HaltChannelStub, HaltChannelStub]
) -> None:
    async with asyncio.timeout(PATIENCE_S):
        assert await checker.wait_until_open()

    async def wait_there() -> bool:
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.gather(*(checker.wait_until_halted() for _ in range(10)))
        return True

    elsewhere = [asyncio.create_task(asyncio.to_thread(lambda: asyncio.run(wait_there()))) for _ in range(3)]
    here = asyncio.create_task(wait_there())
    channels[0].set("a drill", NOON)
    assert await asyncio.gather(here, *elsewhere) == [True] * 4


async def test_a_halt_that_was_cleared_at_once_is_not_missed(
    checker: DualChannelHaltChecker, channels: tuple[HaltChannelStub, HaltChannelStub]
) -> None:
    async with asyncio.timeout(PATIENCE_S):
        assert await checker.wait_until_open()
        waiting = asyncio.create_task(checker.wait_until_halted())
        await asyncio.sleep(0)
        checker.tell("file", ChannelReading(halted=True, reason="a moment", since=NOON))
        checker.tell("file", ChannelReading(halted=False))
        await waiting


def test_asking_looks_at_no_channel() -> None:
    looks = 0

    class Counted(HaltChannelStub):
        def read(self) -> ChannelReading:
            nonlocal looks
            looks += 1
            return super().read()

    # Polled once a day: what is counted is what the asking does.
    checker = DualChannelHaltChecker(channels=[Counted("file")], poll_s=86_400)

    async def ask() -> int:
        await checker.wait_until_open()
        before = looks
        for _ in range(10_000):
            await checker.is_halted()
        return looks - before

    with checker:
        assert (asyncio.run(ask()), looks) == (0, 1)


def test_a_checker_that_nobody_holds_any_more_ends_its_threads() -> None:
    checker = DualChannelHaltChecker(channels=[HaltChannelStub("file")], poll_s=0.005)
    checker.start()
    threads = list(checker._threads)
    gone = weakref.ref(checker)
    del checker
    gc.collect()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert [thread.is_alive() for thread in threads] == [False]
    assert gone() is None


def test_closed_it_is_shut() -> None:
    checker = DualChannelHaltChecker(channels=[HaltChannelStub("file")], poll_s=0.005)
    with checker:
        asyncio.run(checker.wait_until_open())
    assert condition_of(checker) is HaltCondition.IN_DOUBT


@pytest.mark.parametrize("channels", [[], [HaltChannelStub("file"), HaltChannelStub("file")]])
def test_it_wants_channels_with_names_of_their_own(channels: list[HaltChannelStub]) -> None:
    with pytest.raises(ValueError, match="a name of its own"):
        DualChannelHaltChecker(channels=channels)
