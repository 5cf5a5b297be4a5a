"""Finds out which model to ask when nobody named one: looked up once, however many wait for it."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Callable

from application.services.log_ids import unbound_context
from domain.errors.agent import AgentInvocationError
from domain.models.budget import Usage

__all__ = ["FirstModel"]


class FirstModel:
    """One look-up at a time, shared by all who wait, and kept once it succeeded.

    It outlives any single waiter, because 71 others may still need it, but not the last one. A failed look-up is not kept.
    """

    def __init__(self, look_up: Callable[[], Awaitable[str]]) -> None:
        self._look_up = look_up
        self._found: str | None = None
        self._task: asyncio.Task[str] | None = None
        self._waiters = 0
        self._closed = False

    async def get(self) -> str:
        """The name of the model. Raises the `AgentInvocationError` of the look-up, each waiter its own copy."""
        if self._found is not None:
            return self._found
        task = self._task
        if task is None:
            task = self._task = asyncio.create_task(self._run(), context=unbound_context())
        self._waiters += 1
        try:
            self._found = await asyncio.shield(task)
        except AgentInvocationError as error:
            # It will carry the agent that it happened to.
            raise copy.copy(error) from None
        except asyncio.CancelledError:
            if self._closed and not _is_being_cancelled():
                raise AgentInvocationError("the models are no longer asked", kind="closed", usage=Usage()) from None
            raise
        finally:
            self._waiters -= 1
            if self._task is task and (task.done() or not self._waiters):
                self._task = None
                task.cancel()
        return self._found

    async def close(self) -> None:
        """Give up a look-up under way; who waits for it gets an error of kind `closed`."""
        self._closed = True
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    async def _run(self) -> str:
        return await self._look_up()


def _is_being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
