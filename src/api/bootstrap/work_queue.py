"""Which queue holds the deliberations to work on: that of all workers, or one of this process alone."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from api.bootstrap.process import Purpose
from domain.errors.configuration import ConfigurationError

if TYPE_CHECKING:
    from application.ports.work_queue import WorkQueue
    from infrastructure.settings import Settings

__all__ = ["open_queue", "shares_queue"]


def shares_queue(settings: Settings, purpose: Purpose) -> bool:
    """Whether the deliberations are passed on through the queue of all workers."""
    from infrastructure.settings import QueueKind

    return settings.queue is QueueKind.PROCRASTINATE and purpose in {Purpose.SERVE, Purpose.WORK}


def open_queue(settings: Settings, purpose: Purpose, stack: AsyncExitStack) -> WorkQueue:
    """The queue of all workers where it is shared, else one of this process alone. Raises `ConfigurationError`."""
    if shares_queue(settings, purpose):
        from infrastructure.queues.procrastinate_queue import ProcrastinateQueue

        shared = ProcrastinateQueue(settings.database_url)
        stack.push_async_callback(shared.close)
        return shared
    if purpose is Purpose.WORK:
        raise ConfigurationError(
            variable="CONCLAVE_QUEUE",
            problem="the server works on its deliberations itself, so there is nothing for a worker to do",
            remedy="Set it to procrastinate, here and for the server, with a postgresql:// address of the database.",
        )
    from infrastructure.queues.embedded_queue import EmbeddedQueue

    return EmbeddedQueue()
