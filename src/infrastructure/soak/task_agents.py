"""The agents of a soak as tasks of this process, for the memory transport, which reaches no other."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Callable, Mapping, Sequence

from application.ports.message_bus import MessageBus
from infrastructure.soak.bus_agent import serve_over_bus
from infrastructure.soak.process_gauge import OwnMemory

__all__ = ["TaskAgents"]

_KILLED = -9


class TaskAgents:
    """An `AgentHost` of tasks, all with the pid of this process; a number in their address tells incarnations apart."""

    def __init__(self, bus: MessageBus) -> None:
        self.on_exit: Callable[[str, int, int], None] = lambda _agent, _pid, _code: None
        self._bus = bus
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._incarnations = itertools.count(1)
        self._own_memory = OwnMemory()

    async def open(self) -> None:
        """Nothing to get ready."""

    async def start(self, agents: Sequence[str]) -> Mapping[str, int]:
        """One task each."""
        for agent in agents:
            serving = serve_over_bus(
                self._bus,
                agent,
                pid=os.getpid(),
                incarnation=next(self._incarnations),
                own_memory=self._own_memory,
            )
            task = asyncio.get_running_loop().create_task(serving, name=f"agent-worker-{agent}")
            self._tasks[agent] = task
            task.add_done_callback(lambda done, agent=agent: self._ended(agent, done))  # type: ignore[misc]
        return dict.fromkeys(agents, os.getpid())

    async def stop(self, agents: Sequence[str], *, within_s: float) -> None:
        """Cancel, and wait for it."""
        tasks = {task for agent in agents if (task := self._tasks.get(agent)) is not None}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=within_s)

    def kill(self, agent: str) -> int | None:
        """Cancel without waiting."""
        task = self._tasks.get(agent)
        if task is None or task.done():
            return None
        task.cancel()
        return os.getpid()

    def helpers(self) -> Sequence[int]:
        """None."""
        return []

    async def close(self) -> None:
        """Cancel all."""
        await self.stop(list(self._tasks), within_s=1.0)

    def _ended(self, agent: str, task: asyncio.Task[None]) -> None:
        if self._tasks.get(agent) is task:
            del self._tasks[agent]
        failed = not task.cancelled() and task.exception() is not None
        self.on_exit(agent, os.getpid(), 1 if failed else _KILLED)
