"""How one object of a shared-memory bus sends: runs go into inboxes in one section each, or wait in line for room."""

from __future__ import annotations

import asyncio
from asyncio import Future
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby

from domain.errors.bus import InboxFullError, UnknownAgentError
from infrastructure.buses.shm_batches import Run
from infrastructure.buses.shm_layout import Dead, Head, Inbox
from infrastructure.buses.shm_post import BLOCK, REJECT, Post

__all__ = ["Sending"]


@dataclass(slots=True, eq=False)
class _Blocked:
    """A sender of this object that waits for room in an inbox."""

    lane: int
    woken: Future[None]


class Sending:
    """Nobody of this object overtakes who waits for room in the same inbox, but by priority."""

    def __init__(self, opened: Callable[[], Post], *, tell: Callable[[str, Run], None]) -> None:
        """`opened` gives the post or raises; `tell` is told what became of a run."""
        self._opened = opened
        self._tell = tell
        self.lines: dict[int, list[_Blocked]] = {}

    def wake(self, inbox: int) -> None:
        """Have the first in line at an inbox look for room."""
        line = self.lines.get(inbox)
        if line:
            _look(line[0].woken)

    def wake_all(self) -> None:
        """Have everybody look, and find the bus closed."""
        for line in self.lines.values():
            for blocked in line:
                _look(blocked.woken)

    async def deliver(self, run: Run, timeout: float) -> None:
        """Put a run where it belongs, waiting for room if it has to. Raises `UnknownAgentError` and `InboxFullError`."""
        post = self._opened()
        with post.segment:
            inbox = post.members.inbox(run.recipient)
            known = bool(inbox)
            policy = BLOCK
            serial = 0
            if inbox:
                words = post.segment.words
                policy, serial = words[inbox + Inbox.OVERFLOW], words[inbox]
                if not self.lines.get(inbox):
                    run.pending = post.offer(inbox, run, policy=policy, pending=run.pending)
                    if run.taken:
                        post.note(run, but=run.pending if policy == REJECT or timeout <= 0 else None)
            elif group := post.members.group(run.recipient):
                known = True
                self._spread(post, list(post.members.members(group)), run)
            else:
                post.bury(run, run.pending, Dead.UNKNOWN_AGENT)
        if not known:
            self._tell("dead_letter", run)
            raise UnknownAgentError(agent_id=run.recipient)
        if inbox and run.pending:
            if policy == REJECT or timeout <= 0:
                raise self._refusal(post, inbox, run, 0.0)
            await self._wait_for_room(run, inbox, serial, timeout)
        self._tell("sent", run)

    def _spread(self, post: Post, members: list[int], run: Run) -> None:
        """To each member but the sender of each message; senders of one run may differ."""
        everybody = run.pending
        words = post.segment.words
        senders = {message.sender for message in run.messages}
        names = {inbox: post.members.name(inbox) for inbox in members if words[inbox]}
        # Whole, because a receiver unpacks all of a run for each piece of it.
        post.spread([inbox for inbox in members if names.get(inbox) not in senders], run)
        if len(senders) > 1:
            for inbox in members:
                own = names.get(inbox)
                if own in senders:
                    run.pending = [
                        (start, end - start)
                        for start, end in _pieces(message.sender != own for message in run.messages)
                    ]
                    post.spread([inbox], run)
        run.pending = everybody
        post.note(run)
        run.pending = []

    async def _wait_for_room(self, run: Run, inbox: int, serial: int, timeout: float) -> None:
        """Stand in the line before an inbox, by priority and then as called, until the whole run is in it."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        line = self.lines.setdefault(inbox, [])
        place = _Blocked(run.lane, loop.create_future())
        line.insert(sum(each.lane <= run.lane for each in line), place)
        try:
            while True:
                post = self._opened()
                gone = False
                soon: float | None = None
                if line[0] is place:
                    with post.segment:
                        gone = post.segment.words[inbox] != serial
                        if gone:
                            post.bury(run, run.pending, Dead.UNREGISTERED)
                        else:
                            noted = run.taken > 0
                            left = post.offer(inbox, run, policy=BLOCK, pending=run.pending)
                            if run.taken and not noted:
                                post.note(run)
                            run.pending = left
                            if left:
                                post.slots.wait(post.senders(inbox))
                                soon = post.next_room_s(inbox)
                if gone:
                    raise UnknownAgentError(agent_id=run.recipient)
                if not run.pending:
                    return
                if loop.time() >= deadline:
                    raise self._refusal(post, inbox, run, timeout)
                place.woken = loop.create_future()
                until = deadline if soon is None else min(deadline, loop.time() + soon)
                timer = loop.call_at(until, _look, place.woken)
                try:
                    await place.woken
                finally:
                    timer.cancel()
        finally:
            first = line[0] is place
            line.remove(place)
            if not line:
                if self.lines.get(inbox) is line:
                    del self.lines[inbox]
            elif first:
                _look(line[0].woken)

    def _refusal(self, post: Post, inbox: int, run: Run, waited_s: float) -> InboxFullError:
        with post.segment:
            post.count(Head.REJECTED, sum(length for _, length in run.pending))
            capacity = post.segment.words[inbox + Inbox.CAPACITY]
        return InboxFullError(agent_id=run.recipient, capacity=capacity, waited_s=waited_s)


def _pieces(wanted: Iterable[bool]) -> Iterator[tuple[int, int]]:
    """Start and end of each stretch of what is wanted."""
    end = 0
    for is_wanted, stretch in groupby(wanted):
        start, end = end, end + sum(1 for _ in stretch)
        if is_wanted:
            yield start, end


def _look(waiting: Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)
