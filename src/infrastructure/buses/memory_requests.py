"""The requests of a memory bus that wait for their replies, each until its deadline."""

from __future__ import annotations

from asyncio import AbstractEventLoop, Future, TimerHandle

from domain.errors.bus import BusError, InvalidMessageError
from domain.models.message import Message

__all__ = ["Requests"]


class Requests:
    """Each gets at most one reply; at its deadline it gets None. One timer serves all of them."""

    def __init__(self) -> None:
        # Who asked, what gets the reply, and until when (the event loop's time).
        self._waiting: dict[str, tuple[str, Future[Message | None], float]] = {}
        self._timer: TimerHandle | None = None

    def open(
        self, correlation_id: str, requester: str, timeout: float, loop: AbstractEventLoop
    ) -> Future[Message | None]:
        """Wait for the reply from now on. Raises `InvalidMessageError` when that correlation id is in flight."""
        if correlation_id in self._waiting:
            raise InvalidMessageError(field="correlation_id", problem=f"is {correlation_id!r}, which is in flight")
        reply: Future[Message | None] = loop.create_future()
        deadline = loop.time() + timeout
        self._waiting[correlation_id] = (requester, reply, deadline)
        if self._timer is None or deadline < self._timer.when():
            self._look_at(deadline, loop)
        return reply

    def drop(self, correlation_id: str) -> None:
        """Wait no longer."""
        _, reply, _ = self._waiting.pop(correlation_id)
        # Failed while the message itself still waited for room: that failure is the one raised.
        if reply.done() and not reply.cancelled():
            reply.exception()

    def waits(self, correlation_id: str) -> Future[Message | None] | None:
        """What gets the reply, unless it is too late for one."""
        waiting = self._waiting.get(correlation_id)
        return None if waiting is None or waiting[1].done() else waiting[1]

    def fail(self, error: BusError, requester: str | None = None) -> None:
        """End those of one requester, or all, with an error."""
        for asked_by, reply, _ in list(self._waiting.values()):
            if not reply.done() and requester in (None, asked_by):
                reply.set_exception(error)

    def close(self) -> None:
        """No deadline is looked at any more."""
        if self._timer is not None:
            self._timer.cancel()

    def _look_at(self, deadline: float, loop: AbstractEventLoop) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = loop.call_at(deadline, self._end_late_ones, loop)

    def _end_late_ones(self, loop: AbstractEventLoop) -> None:
        """End the requests whose deadline has come. Those that were answered have gone already."""
        self._timer = None
        # The loop calls timers up to one tick of its clock early.
        now = loop.time() + 1e-6
        deadlines = []
        for _, reply, deadline in self._waiting.values():
            if deadline > now:
                deadlines.append(deadline)
            elif not reply.done():
                reply.set_result(None)
        if deadlines:
            self._look_at(min(deadlines), loop)
