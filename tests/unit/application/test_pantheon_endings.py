"""However a run of the pantheon ends, it says which role or what stop ended it, and keeps what was executed."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from application.ports.run_observer import NullRunObserver
from application.services.pantheon.mind import Brief, Opinion
from application.services.pantheon.pantheon_run import PantheonRun
from application.services.stop_signal import StopReason, StopSignal
from domain.errors.halt import SystemHaltedError
from domain.models.deliberation import DeliberationStatus
from domain.models.pantheon import ROW, PantheonRequest, Role
from infrastructure.buses.memory_bus import MemoryMessageBus
from tests.unit.application.minded_pantheon import NAMES, TASK, Thinking, ended, raising, to_whom
from tests.virtual_time import time_passed


@pytest.mark.parametrize("role", ROW)
async def test_a_role_that_dies_is_named(role: Role) -> None:
    ending = await ended(minds={role: raising(ZeroDivisionError("by nothing"))})
    failure: Any = ending.result["failure"]
    assert (ending.status, ending.result["status"]) == (DeliberationStatus.FAILED, "failed")
    assert (failure["role"], failure["kind"]) == (role.value, "raised")
    assert "by nothing" in failure["message"]
    assert to_whom(ending) == NAMES[: ROW.index(role) + 1]
    assert bool(ending.result["executed"]) is (ROW.index(role) >= ROW.index(Role.EXECUTOR))


async def test_a_role_that_hangs_is_named_after_its_patience() -> None:
    async def hang(_: Brief) -> Opinion:
        await asyncio.Event().wait()
        return Opinion()

    ending = await ended(minds={Role.ACTOR: Thinking(hang, patience_s=7.0)})
    failure: Any = ending.result["failure"]
    assert (failure["role"], failure["kind"]) == ("actor", "timeout")
    assert time_passed() == pytest.approx(7.0)
    assert ending.result["executed"] == []


async def test_a_role_that_does_not_let_itself_be_cancelled_holds_nothing_up() -> None:
    free = asyncio.Event()

    async def cling(_: Brief) -> Opinion:
        while not free.is_set():
            try:
                await free.wait()
            except asyncio.CancelledError:
                continue
        return Opinion()

    ending = await ended(minds={Role.ACTOR: Thinking(cling, patience_s=1.0)})
    free.set()
    failure: Any = ending.result["failure"]
    assert (failure["role"], failure["kind"]) == ("actor", "timeout")


async def test_a_role_that_cancels_itself_is_named() -> None:
    ending = await ended(minds={Role.LEARNER: raising(asyncio.CancelledError())})
    failure: Any = ending.result["failure"]
    assert (failure["role"], failure["kind"]) == ("learner", "cancelled")


async def test_a_halt_that_a_mind_runs_into_ends_the_run_as_halted() -> None:
    ending = await ended(minds={Role.MEMORY: raising(SystemHaltedError("fire drill"))})
    assert ending.status is DeliberationStatus.HALTED
    assert ending.result["status"] == "failed"
    executed: Any = ending.result["executed"]
    assert len(executed) == 3


@pytest.mark.parametrize("reason", list(StopReason))
async def test_a_stop_ends_the_run_within_a_cycle_with_what_was_executed(reason: StopReason) -> None:
    stop = StopSignal()

    async def stopped(_: Brief) -> Opinion:
        stop.set(reason)
        await asyncio.Event().wait()
        return Opinion()

    async with MemoryMessageBus() as bus:
        run = PantheonRun(PantheonRequest(TASK, ("echo",)), bus=bus, minds={Role.MEMORY: Thinking(stopped, 1e6)})
        ending = await run.run(NullRunObserver(), stop)
    failure: Any = ending.result["failure"]
    assert ending.status is reason.status
    assert (ending.result["status"], failure["role"], failure["kind"]) == ("failed", None, reason.value)
    assert ending.result["executed"] == [{"step": "echo", "output": TASK}]
    assert (ending.result["cycles"], to_whom(ending)) == (0, NAMES[:6])


async def test_a_stop_that_was_there_before_lets_nothing_begin() -> None:
    stop = StopSignal()
    stop.set(StopReason.CANCELLED)
    async with MemoryMessageBus() as bus:
        ending = await PantheonRun(PantheonRequest(TASK), bus=bus).run(NullRunObserver(), stop)
    assert ending.status is DeliberationStatus.CANCELLED
    assert ending.result["executed"] == []
