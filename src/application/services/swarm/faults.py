"""Agents that die, fall silent or fail on purpose, to see what a swarm makes of it."""

from __future__ import annotations

import asyncio
from collections.abc import Container

from application.services.swarm.task import SwarmTask, TaskTerms
from domain.models.message import Payload

__all__ = ["FaultyTask"]


class FaultyTask:
    """Another task, but that some of its agents never come to a result, however often they are asked."""

    def __init__(
        self,
        task: SwarmTask,
        *,
        dead: Container[int] = (),
        silent: Container[int] = (),
        raising: Container[int] = (),
    ) -> None:
        """By numbers: whose task is killed while they act, who never says anything, and who raises."""
        self._task = task
        self._dead = dead
        self._silent = silent
        self._raising = raising

    @property
    def terms(self) -> TaskTerms:
        """Those of the other task."""
        return self._task.terms

    @property
    def slots(self) -> int:
        """Those of the other task."""
        return self._task.slots

    async def perform(self, number: int, item: str | None) -> Payload:
        """What the other task does, or the fault."""
        if number in self._dead and (acting := asyncio.current_task()) is not None:
            acting.cancel()
            await asyncio.sleep(0)
        if number in self._silent:
            await asyncio.Event().wait()
        if number in self._raising:
            raise RuntimeError(f"agent {number} was told to fail")
        return await self._task.perform(number, item)

    async def close(self) -> None:
        """Close the other task."""
        await self._task.close()
