"""The eight roles of one session, joined to one bus."""

from __future__ import annotations

from asyncio import TaskGroup
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from typing import Any

from application.ports.clock import Clock
from application.ports.message_bus import MessageBus
from application.ports.run_observer import RunObserver
from application.services.swarm.actor import Actor
from application.services.swarm.backup import Backup
from application.services.swarm.coordinator import Coordinator, Liveness
from application.services.swarm.log import Log
from application.services.swarm.memory import Memory
from application.services.swarm.observer import Observer
from application.services.swarm.safety import Safety
from application.services.swarm.session_store import SessionStore
from application.services.swarm.task import SwarmTask
from application.services.swarm.tool import Tool
from application.services.swarm.voice import Role, Voice, listen
from domain.models.swarm import COIN_FLIP, SwarmPlan

__all__ = ["Cast"]

_LEAST_CAPACITY = 20_000


class Cast:
    """The Coordinator leads and is run by whoever made this; the other seven listen while `at_work` is open."""

    def __init__(
        self,
        plan: SwarmPlan,
        task: SwarmTask,
        *,
        bus: MessageBus,
        store: SessionStore,
        run: RunObserver,
        clock: Clock,
        timer: Callable[[], float],
        liveness: Liveness | None,
    ) -> None:
        terms = task.terms
        self.voice = voice = Voice(bus)
        self.coordinator = Coordinator(voice, plan, terms, slots=task.slots, liveness=liveness, timer=timer)
        self.actor = Actor(voice, plan)
        self.memory = Memory(voice, terms, timer=timer)
        self.tool = Tool(voice, task, usage=dict)
        self._observer = Observer(voice, terms, run, agents=plan.agents, timer=timer)
        self._listeners: tuple[Role, ...] = (
            self._observer,
            self.actor,
            self.memory,
            self.tool,
            Safety(voice, terms, timer=timer),
            Log(voice, terms, store, clock=clock, timer=timer),
            Backup(voice, store, is_coin=terms.name == COIN_FLIP),
        )
        self._bus = bus
        # All results may lie in one inbox at once, and a full one would miss those sent to its group.
        self._capacity = max(_LEAST_CAPACITY, 4 * plan.agents)

    @property
    def names(self) -> list[str]:
        """The names of all eight on the bus."""
        return [self.coordinator.name, *(role.name for role in self._listeners)]

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[TaskGroup]:
        """All eight on the bus, and seven of them listening; the group of their tasks, which ends with the block.

        Raises an exception group with what a role raised.
        """
        await _all(self._bus.register(name, capacity=self._capacity) for name in self.names)
        await _all(self._bus.join(role.name, group) for role in self._listeners for group in role.groups)
        try:
            async with TaskGroup() as group:
                listening = [group.create_task(listen(self.voice, role), name=role.name) for role in self._listeners]
                listening.append(group.create_task(self.tool.speak(), name="tool speaks"))
                yield group
                for one in listening:
                    one.cancel()
        finally:
            await self.close()
        await _all(self._bus.unregister(name) for name in self.names)

    async def close(self) -> None:
        """Return once nobody acts any more."""
        self._observer.close()
        await self.tool.close()


async def _all(calls: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Make these calls at once, because each is a trip; where one raises, none goes on behind its back."""
    async with TaskGroup() as group:
        for call in calls:
            group.create_task(call)
