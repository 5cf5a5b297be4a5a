"""A run of the pantheon over the memory bus, whose minds say what a test has them say."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from application.ports.run_observer import NullRunObserver
from application.services.pantheon.mind import Brief, Opinion
from application.services.pantheon.pantheon_run import PantheonRun
from application.services.stop_signal import StopSignal
from domain.models.pantheon import ROW, PantheonRequest, Role
from domain.models.run import RunEnding
from infrastructure.buses.memory_bus import MemoryMessageBus

__all__ = ["NAMES", "TASK", "Thinking", "ended", "raising", "saying", "to_whom"]


TASK = "count these four words"
NAMES = [role.value for role in ROW]


class Thinking:
    """A mind that says what the test has it say."""

    def __init__(self, think: Callable[[Brief], Awaitable[Opinion]], patience_s: float = 30.0) -> None:
        self.think = think
        self.patience_s = patience_s
        self.briefs: list[Brief] = []

    async def consult(self, role: Role, brief: Brief) -> Opinion:
        self.briefs.append(brief)
        return await self.think(brief)


def saying(opinion: Opinion) -> Thinking:
    async def think(_: Brief) -> Opinion:
        return opinion

    return Thinking(think)


def raising(error: BaseException) -> Thinking:
    async def think(_: Brief) -> Opinion:
        raise error

    return Thinking(think)


async def ended(
    plan: tuple[str, ...] | None = None,
    *,
    cycles: int = 1,
    minds: Mapping[Role, Any] | None = None,
    task: str = TASK,
    **more: Any,
) -> RunEnding:
    async with MemoryMessageBus() as bus:
        run = PantheonRun(PantheonRequest(task, plan, cycles), bus=bus, minds=minds or {}, **more)
        return await run.run(NullRunObserver(), StopSignal())


def to_whom(ending: RunEnding) -> list[Any]:
    handoffs: Any = ending.result["handoffs"]
    return [handoff["to"] for handoff in handoffs]
