"""Hands for a work queue's jobs: what tests serve a queue with, and the databases that they do it on."""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

from application.ports.work_queue import Job, WorkQueue
from infrastructure.persistence.migrate import upgrade
from tests.servers.postgres import PostgresServer

BOUND_S = 30.0
"""How long anything may take before a test gives up."""


class Hands:
    """A handler that writes down what it is given, and holds each job until it may go on."""

    def __init__(self, *, holds: bool = False) -> None:
        self.begun: list[str] = []
        self.ended: list[str] = []
        self.most_at_once = 0
        self.may_end = asyncio.Event()
        if not holds:
            self.may_end.set()
        self._changed = asyncio.Condition()

    @property
    def in_hand(self) -> list[str]:
        return list((Counter(self.begun) - Counter(self.ended)).elements())

    async def __call__(self, job: Job) -> None:
        self.begun.append(job.deliberation_id)
        self.most_at_once = max(self.most_at_once, len(self.in_hand))
        try:
            await self._tell()
            await self.may_end.wait()
        finally:
            self.ended.append(job.deliberation_id)
            await self._tell()

    async def until(self, *, begun: int = 0, ended: int = 0) -> None:
        async with asyncio.timeout(BOUND_S), self._changed:
            await self._changed.wait_for(lambda: len(self.begun) >= begun and len(self.ended) >= ended)

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()


@asynccontextmanager
async def serving(
    queue: WorkQueue, handle: Callable[[Job], Awaitable[None]], *, at_a_time: int = 1
) -> AsyncIterator[asyncio.Task[None]]:
    """Within it the queue is served; at its end the consumer is told to stop, and is waited for."""
    stopping = asyncio.Event()
    consumer = asyncio.create_task(queue.serve(handle, at_a_time=at_a_time, stopping=stopping))
    try:
        yield consumer
    finally:
        stopping.set()
        async with asyncio.timeout(BOUND_S):
            await asyncio.gather(consumer, return_exceptions=consumer.cancelled() or consumer.cancelling() > 0)


@contextmanager
def database(server: PostgresServer, template: str | None = None) -> Iterator[str]:
    """The name of a Postgres database for as long as it is needed: a copy of `template`, else with the tables of this version."""
    if not server.running:
        server.start()
    name = f"queue_{secrets.token_hex(6)}"
    if template is None:
        server.create_database(name)
        upgrade(server.url(name))
    else:
        server.create_database(name, template=template)
    yield name
    if not server.running:
        server.start()
    server.drop_database(name)
