"""Lets writes that end close together share one commit, so that an fsync is paid once for all of them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from application.services.log_ids import unbound_context
from domain.errors.dependency import DependencyUnavailableError

__all__ = ["GroupCommit"]

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

_MAX_WAITING = 10_000
_MAX_BATCH = 1_000
# Where many submit one by one, waiting a little halves the number of commits and takes a quarter of the processor time off;
# a single writer gains nothing from waiting.
_SEVERAL = 3
_GATHER_S = 0.002


class GroupCommit(Generic[_Item, _Result]):
    """Hands items to `write` in the order of their submission, one batch at a time; while one is written the next gathers.

    `write` makes a whole batch durable and returns, for each item, its result or the error that is this item's alone. When it
    raises instead, nothing of the batch is stored, and everyone in it is told. Items submitted in one turn of the event loop go
    together. At most 10,000 items are held: who comes then waits. Belongs to one event loop.
    """

    def __init__(
        self,
        write: Callable[[Sequence[_Item]], Awaitable[Sequence[_Result | Exception]]],
        *,
        max_waiting: int = _MAX_WAITING,
    ) -> None:
        self._write = write
        self._waiting: deque[tuple[_Item, asyncio.Future[_Result]]] = deque()
        self._room = asyncio.Semaphore(max_waiting)
        self._writer: asyncio.Task[None] | None = None
        self._closed = False
        self._written = 0

    async def submit(self, item: _Item) -> _Result:
        """The item's result, once it is durable. Raises the item's own error, or what became of its whole batch.

        A caller that is cancelled while its item waits takes it back; once the item is being written it may be stored or not.
        Raises `DependencyUnavailableError` after `close`.
        """
        async with self._room:
            if self._closed:
                raise DependencyUnavailableError(
                    dependency="database", problem="this process takes no more writes", remedy="Ask another process."
                )
            written: asyncio.Future[_Result] = asyncio.get_running_loop().create_future()
            self._waiting.append((item, written))
            if self._writer is None:
                # A task takes its first step in the next turn of the loop, so whoever submits in this one joins the batch.
                self._writer = asyncio.create_task(self._write_all(), name="group-commit", context=unbound_context())
            return await written

    async def close(self) -> None:
        """Take no more items, and return once those that wait are written."""
        self._closed = True
        while self._writer is not None:
            await asyncio.wait([self._writer])

    async def _write_all(self) -> None:
        try:
            while self._waiting:
                await self._gather()
                batch = self._next_batch()
                if batch:
                    await self._write_batch(batch)
        finally:
            self._writer = None
            self._written = 0
            for _, written in self._waiting:
                written.cancel()
            self._waiting.clear()

    async def _gather(self) -> None:
        """Wait for those who are about to submit: for a turn of the loop, or 2 ms where several submit without end."""
        await asyncio.sleep(_GATHER_S if self._written >= _SEVERAL else 0)

    def _next_batch(self) -> list[tuple[_Item, asyncio.Future[_Result]]]:
        batch: list[tuple[_Item, asyncio.Future[_Result]]] = []
        while self._waiting and len(batch) < _MAX_BATCH:
            item, written = self._waiting.popleft()
            if not written.done():
                batch.append((item, written))
        return batch

    async def _write_batch(self, batch: Sequence[tuple[_Item, asyncio.Future[_Result]]]) -> None:
        self._written = len(batch)
        try:
            results = await self._write([item for item, _ in batch])
            outcomes = list(zip(batch, results, strict=True))
        except Exception as error:  # noqa: BLE001 - it is not swallowed: every caller of the batch raises it
            for _, written in batch:
                if not written.done():
                    written.set_exception(error)
            return
        except BaseException:
            for _, written in batch:
                written.cancel()
            raise
        for (_, written), result in outcomes:
            if written.done():
                continue
            if isinstance(result, Exception):
                written.set_exception(result)
            else:
                written.set_result(result)
