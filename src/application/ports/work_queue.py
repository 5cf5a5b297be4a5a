"""The port that says who works on what."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

__all__ = ["JOB_VERSION", "Job", "WorkQueue"]

JOB_VERSION = 1
"""What a job means in this version. A worker leaves jobs of a later one to workers that know it."""


@dataclass(frozen=True, slots=True)
class Job:
    """A deliberation to be worked on. `key_name` is the caller that jobs are shared out between."""

    deliberation_id: str
    key_name: str | None = None
    version: int = JOB_VERSION


class WorkQueue(Protocol):
    """Hands each job to one worker at a time, in turn between callers, and first come, first served for each.

    At least once: a job whose worker died is handed out again, and the same job may be handed out twice, so whoever handles it asks
    the ledger what is already done. A job of a later version waits for workers that know it. A queue is no record: a crash may
    empty it, and a worker puts again what it finds unfinished and held by nobody. Raises `DependencyUnavailableError` when
    the queue is away.
    """

    async def put(self, job: Job) -> None:
        """Let it wait for a worker. While a job for the same deliberation waits already, nothing changes.

        One for a deliberation that is in hand waits until that is over, so that no put is lost and no two are in hand at once.
        """
        ...

    async def withdraw(self, deliberation_id: str) -> bool:
        """Take a job back that nobody has begun; whether there was one."""
        ...

    async def waiting_count(self) -> int:
        """How many jobs wait, over all workers; what others did may show a quarter of a second late."""
        ...

    async def serve(self, handle: Callable[[Job], Awaitable[None]], *, at_a_time: int, stopping: asyncio.Event) -> None:
        """Handle jobs, at most so many at a time, until `stopping` is set: then take no more, and return once those begun ended.

        What `handle` raises is logged, and the job is over. A queue that is away is waited for. Cancelled, it cancels what is in
        hand, which then waits again.
        """
        ...
