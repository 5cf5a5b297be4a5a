"""One cycle of a soak: every member is sent its messages, one after the other, and every one is answered or lost."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from application.ports.soak_agents import Order, SoakPost, UndeliverableError
from application.services.soak.message_book import MessageBook

__all__ = ["Cycle"]

_RETRY_S = 0.05
_LOOK_S = 0.25


class Cycle:
    """Sends, hears and counts; `sent` = `received` + `lost` when `run` returns, also when it was abandoned.

    An agent is sent its next message when it has answered the last: its one file holds one message. `clock` measures in seconds.
    """

    def __init__(
        self,
        orders: Mapping[str, Sequence[Order]],
        *,
        post: SoakPost,
        book: MessageBook,
        own: Callable[[str], bool],
        clock: Callable[[], float],
    ) -> None:
        """`own` says whether an agent is the run's own, which is started again when it dies and then finds its message."""
        self._post = post
        self._book = book
        self._own = own
        self._clock = clock
        self._queues = {agent: deque(found) for agent, found in orders.items() if found}
        self._due: deque[Order] = deque()
        self._waiting: dict[str, Order] = {}
        self._turn = asyncio.Event()
        self._began = 0.0
        self.received = 0
        self.lost = 0
        self.abandoned = False
        self.seconds = 0.0
        self.response_s: list[float] = []
        # Who answered last, on whom the others waited.
        self.last: str | None = None
        self.undeliverable = 0
        self.unanswered: list[str] = []

    @property
    def sent(self) -> int:
        """How many were sent and ended."""
        return self.received + self.lost

    async def run(self, *, timeout_s: float) -> None:
        """Send everything and wait for it, `timeout_s` at most from now on."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        self._began = self._clock()
        for queue in self._queues.values():
            self._due.append(queue.popleft())
        while not self.abandoned:
            wait_s = await self._send_due()
            if not self._waiting and not self._due:
                break
            left = deadline - loop.time()
            if left <= 0:
                self._give_up()
                break
            try:
                async with asyncio.timeout(min(wait_s, left)):
                    await self._turn.wait()
            except TimeoutError:
                self._look_for_the_dead()
            self._turn.clear()
        self.seconds = self._clock() - self._began

    def hear(self, agent: str, message_id: str) -> float | None:
        """A response has come: the seconds that it took, None when nobody waited for it."""
        found = self._book.answered(agent, message_id)
        if found is None:
            return None
        now = self._clock()
        self._waiting.pop(agent, None)
        self.received += 1
        self.response_s.append(now - found[1])
        self.last = agent
        queue = self._queues.get(agent)
        if queue:
            self._due.append(queue.popleft())
        if self._due or not self._waiting:
            self._turn.set()
        return now - found[1]

    def abandon(self) -> None:
        """End early: what is not answered yet counts as not sent."""
        self.abandoned = True
        for agent, order in self._waiting.items():
            self._book.lose(order.message_id)
            self._post.withdraw(agent)
        self._waiting.clear()
        self._due.clear()
        self._turn.set()

    async def _send_due(self) -> float:
        """Send what may be sent; how long to wait at most before the next look."""
        failed: list[Order] = []
        while self._due and not self.abandoned:
            order = self._due.popleft()
            # Before it is there, because the answer may be here before this returns.
            self._book.sent(order, self._clock())
            self._waiting[order.agent] = order
            try:
                await self._post.put(order)
            except UndeliverableError:
                self._waiting.pop(order.agent, None)
                self.undeliverable += 1
                failed.append(order)
        self._due.extend(failed)
        return _RETRY_S if failed else _LOOK_S

    def _give_up(self) -> None:
        for order in (*self._waiting.values(), *self._due):
            self._lose(order)
        self._waiting.clear()
        self._due.clear()

    def _look_for_the_dead(self) -> None:
        for agent, order in list(self._waiting.items()):
            if not self._own(agent) and not self._post.lives(agent):
                del self._waiting[agent]
                self._lose(order)

    def _lose(self, order: Order) -> None:
        """It and what was to follow it: an agent that owes an answer is sent nothing more."""
        self._book.lose(order.message_id)
        self.unanswered.append(order.agent)
        self.lost += 1 + len(self._queues.pop(order.agent, ()))
