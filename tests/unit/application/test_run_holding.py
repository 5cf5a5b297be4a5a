"""Doing the work of a run: what asks it to end, how long it may take to, and what is recorded however it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import pytest

from application.ports.run_observer import RunObserver
from application.ports.run_registry import Unwanted
from application.services.run_holding import HALT_GRACE_S, LEAVE_S, HeldRun, hold_run, public_reason
from application.services.stop_signal import StopReason, StopSignal
from domain.errors.configuration import ConfigurationError
from domain.errors.dependency import DependencyUnavailableError
from domain.errors.halt import SystemHaltedError
from domain.models.deliberation import DeliberationStatus
from domain.models.message import BusStats
from domain.models.run import Run, RunEnding, RunKind
from domain.models.run_event import new_run_id
from infrastructure.stubs.halt_checker_stub import HaltCheckerStub
from infrastructure.stubs.in_memory_run_registry import InMemoryRunRegistry
from tests.virtual_time import pass_time

AT = datetime(2026, 5, 1, tzinfo=UTC)
COMPLETED, CANCELLED, FAILED = DeliberationStatus.COMPLETED, DeliberationStatus.CANCELLED, DeliberationStatus.FAILED
HALTED = DeliberationStatus.HALTED

Work = Callable[[RunObserver, StopSignal], Awaitable[RunEnding]]


class Held:
    """A run under way, with everything that can end it."""

    def __init__(self) -> None:
        self.registry = InMemoryRunRegistry(now=lambda: AT)
        run = Run(new_run_id(AT), RunKind.SWARM, DeliberationStatus.RUNNING, {}, AT)
        self.record = self.registry.register(run)
        self.halt = HaltCheckerStub()
        self.stop = StopSignal()
        self.shown: list[tuple[str, Mapping[str, Any]]] = []

    async def hold(self, work: Work) -> HeldRun:
        return await hold_run(
            self.record,
            work,
            stop=self.stop,
            halt=self.halt,
            show=lambda type_, data: self.shown.append((type_, data)),
        )

    @property
    def recorded(self) -> Run:
        return self.registry.get(self.record.id)

    @property
    def types(self) -> list[str]:
        return [event.type for event in self.registry.events(self.record.id)]


@pytest.fixture
def held() -> Held:
    return Held()


def clock() -> float:
    return asyncio.get_running_loop().time()


async def winds_up(observer: RunObserver, stop: StopSignal) -> RunEnding:
    reason = await stop.wait()
    return RunEnding(reason.status, {"counted": 127})


async def never_ends(observer: RunObserver, stop: StopSignal) -> RunEnding:
    await asyncio.Event().wait()
    raise AssertionError


async def test_what_the_work_returns_is_recorded(held: Held) -> None:
    async def work(observer: RunObserver, stop: StopSignal) -> RunEnding:
        return RunEnding(COMPLETED, {"counted": 128})

    found = await held.hold(work)
    assert (found.ending.status, found.unrecorded, found.abandoned) == (COMPLETED, [], False)
    assert (held.recorded.status, held.recorded.result, held.recorded.reason) == (COMPLETED, {"counted": 128}, None)


async def test_what_the_work_notes_is_recorded_and_shown(held: Held) -> None:
    async def work(observer: RunObserver, stop: StopSignal) -> RunEnding:
        observer.note("fake.counted", {"number": 1})
        observer.count(BusStats("memory", sent=7))
        return RunEnding(COMPLETED, {})

    await held.hold(work)
    assert held.types == ["run.started", "fake.counted", "run.completed"]
    assert held.shown == [("fake.counted", {"number": 1})]
    assert held.registry.counts[held.record.id]["memory"].sent == 7


async def test_progress_that_cannot_be_shown_does_not_disturb_the_work(held: Held) -> None:
    async def work(observer: RunObserver, stop: StopSignal) -> RunEnding:
        observer.note("fake.counted", {})
        observer.note("fake.counted", {})
        return RunEnding(COMPLETED, {})

    def broken(_type: str, _data: Mapping[str, Any]) -> None:
        raise ZeroDivisionError

    found = await hold_run(held.record, work, stop=held.stop, halt=held.halt, show=broken)
    assert found.ending.status is COMPLETED
    assert held.types.count("fake.counted") == 2


async def test_a_halt_asks_the_work_to_wind_up_and_what_was_counted_is_kept(held: Held) -> None:
    async def halt() -> None:
        await pass_time(5)
        await held.halt.set_halted("a drill")

    halting = asyncio.create_task(halt())
    found = await held.hold(winds_up)
    await halting
    assert clock() == pytest.approx(5)
    assert found.ending == RunEnding(HALTED, {"counted": 127})
    assert (held.recorded.status, held.recorded.reason) == (HALTED, "the system was halted: a drill")
    assert held.recorded.result == {"counted": 127}


async def test_work_that_does_not_wind_up_after_a_halt_is_cancelled(held: Held) -> None:
    await held.halt.set_halted("a drill")
    found = await held.hold(never_ends)
    assert clock() == pytest.approx(HALT_GRACE_S)
    assert (found.ending.status, found.abandoned) == (HALTED, False)
    assert held.recorded.status is HALTED


async def test_work_that_resists_even_that_is_left_behind(held: Held) -> None:
    let_go = asyncio.Event()

    async def resists(observer: RunObserver, stop: StopSignal) -> RunEnding:
        while not let_go.is_set():
            try:
                await let_go.wait()
            except asyncio.CancelledError:
                continue
        return RunEnding(COMPLETED, {})

    await held.halt.set_halted("a drill")
    found = await held.hold(resists)
    assert clock() == pytest.approx(HALT_GRACE_S + LEAVE_S)
    assert found.abandoned
    assert (held.recorded.status, held.recorded.reason) == (
        HALTED,
        "the system was halted: a drill; its work did not wind up in time",
    )
    let_go.set()


async def test_a_halt_hurries_work_that_was_cancelled_before(held: Held) -> None:
    held.stop.set(StopReason.CANCELLED)

    async def halt() -> None:
        await pass_time(60)
        await held.halt.set_halted("a drill")

    halting = asyncio.create_task(halt())
    found = await held.hold(never_ends)
    await halting
    assert clock() == pytest.approx(60 + HALT_GRACE_S)
    assert found.ending.status is CANCELLED


async def test_a_cancellation_by_another_process_asks_the_work_to_wind_up(held: Held) -> None:
    async def cancel() -> None:
        await pass_time(3)
        held.registry.request_end(held.record.id)

    cancelling = asyncio.create_task(cancel())
    found = await held.hold(winds_up)
    await cancelling
    assert clock() == pytest.approx(3, abs=0.26)
    assert found.ending.status is CANCELLED
    assert (held.recorded.status, held.recorded.reason) == (CANCELLED, "it was cancelled")


async def test_a_halt_that_only_the_server_knows_of_halts_the_run(held: Held) -> None:
    held.registry.request_end(held.record.id, Unwanted.HALTED)
    found = await held.hold(winds_up)
    assert found.ending == RunEnding(HALTED, {"counted": 127})
    assert held.recorded.reason == "the system was halted"


async def test_an_interrupted_run_says_so(held: Held) -> None:
    held.stop.set(StopReason.CANCELLED)
    await held.hold(winds_up)
    assert held.recorded.reason == "it was interrupted"


@pytest.mark.parametrize(("said", "recorded"), [(FAILED, CANCELLED), (COMPLETED, COMPLETED), (CANCELLED, CANCELLED)])
async def test_work_that_was_told_to_end_ended_for_that_unless_it_was_complete(
    held: Held, said: DeliberationStatus, recorded: DeliberationStatus
) -> None:
    async def work(observer: RunObserver, stop: StopSignal) -> RunEnding:
        await stop.wait()
        return RunEnding(said, {"counted": 3})

    held.stop.set(StopReason.CANCELLED)
    found = await held.hold(work)
    assert (found.ending.status, held.recorded.status) == (recorded, recorded)


async def test_work_that_ends_without_an_end_has_failed(held: Held) -> None:
    async def work(observer: RunObserver, stop: StopSignal) -> RunEnding:
        return RunEnding(DeliberationStatus.RUNNING, {})

    assert (await held.hold(work)).ending.status is FAILED


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (DependencyUnavailableError(dependency="the bus", problem="host 10.0.0.7 is gone"), FAILED, "the bus is away"),
        (
            ConfigurationError(variable="CONCLAVE_REDIS_URL", problem="redis://:pw@h", remedy="Set it."),
            FAILED,
            "a setting stands in its way: CONCLAVE_REDIS_URL",
        ),
        (SystemHaltedError("a drill"), HALTED, str(SystemHaltedError("a drill"))),
        (ZeroDivisionError("/a/secret/place"), FAILED, "it broke (ZeroDivisionError)"),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_what_the_work_raises_is_recorded_without_hosts_and_places_and_raised(
    held: Held, error: Exception, status: DeliberationStatus, reason: str
) -> None:
    async def work(observer: RunObserver, stop: StopSignal) -> RunEnding:
        raise error

    with pytest.raises(type(error)):
        await held.hold(work)
    assert (held.recorded.status, held.recorded.reason) == (status, reason)
    assert held.types[-1] == f"run.{status.value}"


async def test_left_in_the_middle_the_work_is_cancelled_and_that_is_recorded(held: Held) -> None:
    holding = asyncio.create_task(held.hold(never_ends))
    await pass_time(1)
    holding.cancel()
    with pytest.raises(asyncio.CancelledError):
        await holding
    assert held.recorded.status is CANCELLED


def test_a_public_reason_is_short() -> None:
    assert len(public_reason(SystemHaltedError("x" * 5000))) == 1000
