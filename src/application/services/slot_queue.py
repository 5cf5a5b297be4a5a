"""The queue in which agents wait for their turn to be called, fair between batches and bounded by the slots of the pool."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable
from enum import Enum

from domain.errors.agent import AgentPoolExhaustedError
from domain.models.agent_pool import AgentPool

__all__ = ["MAX_WAITING_AGENTS", "SlotQueue", "Turn"]

MAX_WAITING_AGENTS = 7_200
_AHEAD_DIVISOR = 8


class _Stage(Enum):
    OUTSIDE = 0
    WAITING = 1
    NEAR = 2
    READY = 3
    CALLING = 4
    ENDED = 5


class Turn:
    """One agent on its way through the queue: it waits, comes near, is called, ends, and leaves its slot."""

    __slots__ = ("agent_id", "batch_id", "gate", "stage")

    def __init__(self, agent_id: str, batch_id: str) -> None:
        self.agent_id = agent_id
        self.batch_id = batch_id
        self.stage = _Stage.OUTSIDE
        self.gate: asyncio.Future[None] | None = None

    @property
    def was_called(self) -> bool:
        """Whether the agent's turn to be called has come."""
        return self.stage is _Stage.CALLING or self.stage is _Stage.ENDED


class SlotQueue:
    """Lets no more agents be called at once than the pool has slots, and batches take turns, so that none starves.

    Recording what an agent is about to do and what became of it takes time in which nobody is called. So a few agents come
    near ahead of their turn, to record their intent; and the turn to be called passes on when a call ends, while the slot
    that counts the agent is kept until its end is recorded. Whoever is called meanwhile is counted as soon as a slot is free:
    the pool never holds more than its capacity, and never fewer than are called while it is full.

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
        self._ahead = max(1, pool.max_concurrent // _AHEAD_DIVISOR)
        self._waiting: OrderedDict[str, deque[Turn]] = OrderedDict()
        self._waiting_count = 0
        self._near_count = 0
        self._ready: deque[Turn] = deque()
        self._calling_count = 0
        self._uncounted: OrderedDict[Turn, None] = OrderedDict()
        self._held: dict[Turn, None] = {}
        pool.on_release(self._slot_is_free)

    @property
    def waiting_count(self) -> int:
        """How many agents wait for their turn."""
        return self._waiting_count + self._near_count

    def admit(self, agents: int) -> None:
        """Raise `AgentPoolExhaustedError` when `agents` more could not even wait."""
        room = self.max_waiting - self.waiting_count
        if agents > self.pool.available_count + room:
            raise AgentPoolExhaustedError(
                requested=agents, available=room, capacity=self.max_waiting, what="places to wait for a slot"
            )

    async def come_near(self, turn: Turn) -> None:
        """Wait until the turn is close enough to get ready for it."""
        if not self._waiting_count and self._may_come_near():
            turn.stage = _Stage.NEAR
            self._near_count += 1
            return
        turn.stage = _Stage.WAITING
        turn.gate = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(turn.batch_id, deque()).append(turn)
        self._waiting_count += 1
        await turn.gate

    async def take(self, turn: Turn) -> None:
        """Wait for the turn to be called, in the order in which agents got ready."""
        if not self._ready and self._may_call():
            self._call(turn)
            return
        turn.stage = _Stage.READY
        turn.gate = asyncio.get_running_loop().create_future()
        self._ready.append(turn)
        await turn.gate

    def end_call(self, turn: Turn) -> None:
        """The call has ended: the next may be called. Calling it again changes nothing."""
        if turn.stage is _Stage.CALLING:
            turn.stage = _Stage.ENDED
            self._calling_count -= 1
            self._pass_on()

    async def be_counted(self, turn: Turn) -> None:
        """Wait until a slot counts this agent, which those before it may still hold for what they record."""
        if turn in self._uncounted:
            turn.gate = asyncio.get_running_loop().create_future()
            await turn.gate

    def leave(self, turn: Turn) -> None:
        """Give back whatever is held, at any stage."""
        self.end_call(turn)
        if turn.stage is _Stage.WAITING:
            queue = self._waiting[turn.batch_id]
            queue.remove(turn)
            self._waiting_count -= 1
            if not queue:
                del self._waiting[turn.batch_id]
        elif turn.stage in {_Stage.NEAR, _Stage.READY}:
            if turn.stage is _Stage.READY:
                self._ready.remove(turn)
            self._near_count -= 1
            self._pass_on()
        turn.stage = _Stage.OUTSIDE
        self._uncounted.pop(turn, None)
        if turn in self._held:
            del self._held[turn]
            self.pool.release(turn.agent_id, turn.batch_id)

    def is_counted(self, turn: Turn) -> bool:
        """Whether a slot counts this agent."""
        return turn in self._held

    def _free_calls(self) -> int:
        """How many more may be called: slots that somebody else holds on the same pool are not ours to use."""
        elsewhere = self.pool.active_count - len(self._held)
        return self.pool.max_concurrent - elsewhere - self._calling_count

    def _may_call(self) -> bool:
        return self._free_calls() > 0

    def _may_come_near(self) -> bool:
        return self._near_count < self._free_calls() + self._ahead

    def _call(self, turn: Turn) -> None:
        turn.stage = _Stage.CALLING
        self._near_count -= 1
        self._calling_count += 1
        if self._uncounted or self.pool.is_exhausted:
            self._uncounted[turn] = None
        else:
            self._count(turn)

    def _count(self, turn: Turn) -> None:
        self.pool.acquire(turn.agent_id, turn.batch_id)
        self._held[turn] = None
        if self._granted is not None:
            self._granted()

    def _slot_is_free(self) -> None:
        while self._uncounted and not self.pool.is_exhausted:
            turn, _ = self._uncounted.popitem(last=False)
            self._count(turn)
            if turn.stage is _Stage.ENDED:
                _open(turn)
        self._pass_on()

    def _pass_on(self) -> None:
        while self._ready and self._may_call():
            turn = self._ready.popleft()
            self._call(turn)
            _open(turn)
        while self._waiting and self._may_come_near():
            batch_id, queue = next(iter(self._waiting.items()))
            turn = queue.popleft()
            self._waiting_count -= 1
            if queue:
                self._waiting.move_to_end(batch_id)
            else:
                del self._waiting[batch_id]
            turn.stage = _Stage.NEAR
            self._near_count += 1
            _open(turn)


def _open(turn: Turn) -> None:
    if turn.gate is not None and not turn.gate.done():
        turn.gate.set_result(None)
