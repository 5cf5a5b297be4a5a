"""The line in which calls wait for leave: fair between groups, then between batches, first come first served within one."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping, Sequence

from infrastructure.orchestrators.rate_window import Call

__all__ = ["FairLine", "Waiter"]


class Waiter:
    """Somebody who wants to make a call, since `since` and until `until` at most. `future` is the call that got leave, or None."""

    __slots__ = ("batch", "future", "group", "reply_bytes", "since", "tokens", "until")

    def __init__(
        self,
        future: asyncio.Future[Call | None],
        tokens: int,
        reply_bytes: int,
        *,
        group: str,
        batch: str,
        until: float | None,
        since: float,
    ) -> None:
        self.future = future
        self.tokens = tokens
        self.reply_bytes = reply_bytes
        self.group = group
        self.batch = batch
        self.until = until
        self.since = since

    def refuse(self) -> None:
        """It gets no leave, unless it has it already or waits no more."""
        if not self.future.done():
            self.future.set_result(None)


class FairLine:
    """Gives each group a turn, in it each batch a turn, so that a small batch waits for one turn of each other at most.

    The head stays the head until it goes or leaves: nobody behind it overtakes, so that a large call is not starved by small
    ones. Keeps nothing of groups and batches of which nobody waits.
    """

    def __init__(self) -> None:
        self._groups: OrderedDict[str, OrderedDict[str, deque[Waiter]]] = OrderedDict()
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Waiter]:
        for batches in self._groups.values():
            for queue in batches.values():
                yield from queue

    def put(self, waiter: Waiter) -> None:
        """Stand at the end of its batch."""
        batches = self._groups.get(waiter.group)
        if batches is None:
            batches = self._groups[waiter.group] = OrderedDict()
        queue = batches.get(waiter.batch)
        if queue is None:
            queue = batches[waiter.batch] = deque()
        queue.append(waiter)
        self._length += 1

    def head(self) -> Waiter | None:
        """Whose turn it is; None when nobody waits."""
        for batches in self._groups.values():
            for queue in batches.values():
                return queue[0]
        return None

    def pop(self) -> Waiter:
        """Take the head out, and with it the turn of its group and batch. Raises `StopIteration` when nobody waits."""
        group, batches = next(iter(self._groups.items()))
        batch, queue = next(iter(batches.items()))
        waiter = queue.popleft()
        self._length -= 1
        if queue:
            batches.move_to_end(batch)
        else:
            del batches[batch]
        if batches:
            self._groups.move_to_end(group)
        else:
            del self._groups[group]
        return waiter

    def put_back(self, waiters: Sequence[Waiter]) -> None:
        """Let those go on waiting who were taken out in this order and could not go: it is their turn again."""
        for waiter in reversed(waiters):
            batches = self._groups.setdefault(waiter.group, OrderedDict())
            batches.setdefault(waiter.batch, deque()).appendleft(waiter)
            batches.move_to_end(waiter.batch, last=False)
            self._groups.move_to_end(waiter.group, last=False)
            self._length += 1

    def remove(self, waiter: Waiter) -> bool:
        """Take somebody out who will not go; whether it was there."""
        batches = self._groups.get(waiter.group)
        queue = None if batches is None else batches.get(waiter.batch)
        if batches is None or queue is None or waiter not in queue:
            return False
        queue.remove(waiter)
        self._length -= 1
        if not queue:
            del batches[waiter.batch]
            if not batches:
                del self._groups[waiter.group]
        return True

    def ahead_of(self, group: str, batch: str) -> int:
        """How many will have gone before somebody who joins now, if nobody joins or leaves afterwards."""
        batches: Mapping[str, deque[Waiter]] = self._groups.get(group, {})
        ahead = own = len(batches.get(batch, ()))
        # Those whose turn comes first have one turn more.
        turns = own + 1
        for name, queue in batches.items():
            if name == batch:
                turns = own
            else:
                ahead += min(len(queue), turns)
        turns = ahead + 1
        in_group = ahead
        for name, others in self._groups.items():
            if name == group:
                turns = in_group
            else:
                ahead += min(sum(map(len, others.values())), turns)
        return ahead
