"""The queue in which agents wait for a slot of the pool, fair between batches."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable

from domain.errors.agent import AgentPoolExhaustedError
from domain.models.agent_pool import AgentPool

__all__ = ["MAX_WAITING_AGENTS", "SlotQueue"]

MAX_WAITING_AGENTS = 7_200


class SlotQueue:
    """Hands free slots to waiting agents, one batch after the other in turn, so that no batch starves.

    Within a batch, first come, first served. Bounded: a batch that would make more than `max_waiting` agents wait is refused
    whole, before any of it begins.
    """

    def __init__(
        self,
        pool: AgentPool,
        *,
        max_waiting: int = MAX_WAITING_AGENTS,
        granted: Callable[[], None] | None = None,
    ) -> None:
        """`granted` is called in the same step in which a slot is taken, so that whoever counts never sees one uncounted."""
        self.pool = pool
        self.max_waiting = max_waiting
        self._granted = granted
        self._waiting: OrderedDict[str, deque[tuple[str, asyncio.Future[None]]]] = OrderedDict()
        self._waiting_count = 0
        pool.on_release(self._hand_out)

    @property
    def waiting_count(self) -> int:
        """How many agents wait for a slot."""
        return self._waiting_count

    def admit(self, agents: int) -> None:
        """Raise `AgentPoolExhaustedError` when `agents` more could not even wait."""
        room = self.max_waiting - self._waiting_count
        if agents > self.pool.available_count + room:
            raise AgentPoolExhaustedError(
                requested=agents, available=room, capacity=self.max_waiting, what="places to wait for a slot"
            )

    def try_acquire(self, agent_id: str, batch_id: str) -> bool:
        """Take a slot at once if one is free and nobody waits for it."""
        if self._waiting_count or self.pool.is_exhausted:
            return False
        self._grant(agent_id, batch_id)
        return True

    async def acquire(self, agent_id: str, batch_id: str) -> None:
        """Wait for a slot and take it.

        A wait that is cancelled in the very moment in which its slot is granted holds the slot: `pool.is_active` tells, and
        the caller releases it.
        """
        if self.try_acquire(agent_id, batch_id):
            return
        slot: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(batch_id, deque()).append((agent_id, slot))
        self._waiting_count += 1
        # Slots given back before this agent queued were announced to nobody.
        self._hand_out()
        try:
            await slot
        except asyncio.CancelledError:
            if slot.cancelled():
                self._forget(agent_id, batch_id, slot)
            raise

    def _forget(self, agent_id: str, batch_id: str, slot: asyncio.Future[None]) -> None:
        queue = self._waiting.get(batch_id)
        if queue is not None and (agent_id, slot) in queue:
            queue.remove((agent_id, slot))
            self._waiting_count -= 1
            if not queue:
                del self._waiting[batch_id]

    def _hand_out(self) -> None:
        while self._waiting and not self.pool.is_exhausted:
            batch_id, queue = next(iter(self._waiting.items()))
            agent_id, slot = queue.popleft()
            self._waiting_count -= 1
            if queue:
                self._waiting.move_to_end(batch_id)
            else:
                del self._waiting[batch_id]
            if not slot.done():
                self._grant(agent_id, batch_id)
                slot.set_result(None)

    def _grant(self, agent_id: str, batch_id: str) -> None:
        self.pool.acquire(agent_id, batch_id)
        if self._granted is not None:
            self._granted()
