"""Messages on their way out of inboxes of Redis: one trip at a time for each inbox, to whoever waited longest."""

from __future__ import annotations

import asyncio
import logging
import struct
from asyncio import Future, TimerHandle
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

from domain.errors.bus import BusError, NameTakenError, ReceiveTimeoutError, UnknownAgentError, UnreadableMessageError
from infrastructure.buses.redis_questions import Questions
from infrastructure.buses.redis_records import Piece, pieces

__all__ = ["Desk"]

_log = logging.getLogger(__name__)
_DUE = struct.Struct(">d")


class _Receiver:
    __slots__ = ("future", "impatient", "most", "timeout_s")

    def __init__(self, most: int, timeout_s: float | None) -> None:
        self.most = most
        self.timeout_s = timeout_s
        self.future: Future[list[Piece]] = asyncio.get_running_loop().create_future()
        # Its time is over, and it waits for nothing but the answer that is on its way.
        self.impatient = False


class _Counter:
    """Who waits at one inbox."""

    __slots__ = ("again", "busy", "name", "receivers", "timer")

    def __init__(self, name: str) -> None:
        self.name = name
        self.receivers: deque[_Receiver] = deque()
        # Trips that are on their way for it.
        self.busy = 0
        self.again = False
        # Asks again when something is due to be delivered again.
        self.timer: TimerHandle | None = None


class Desk:
    """Hands out what inboxes hold. A receiver that waits costs nothing until the server says that there is something for it."""

    def __init__(
        self,
        travel: Callable[[list[bytes | str | int]], Awaitable[bytes]],
        *,
        lost: Callable[[str], Awaitable[bool]],
        unreadable: Callable[[str, list[UnreadableMessageError]], None],
    ) -> None:
        """`lost` is awaited for an inbox that the server does not know: whether it is back now."""
        self._questions = Questions(travel)
        self._lost = lost
        self._unreadable = unreadable
        self._counters: dict[str, _Counter] = {}
        # Inboxes of which the last message was taken, and of whose next the server will tell.
        self._empty: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed: BusError | None = None

    async def receive(self, name: str, most: int, timeout: float | None) -> list[Piece]:
        """1 to `most` messages, in pieces. Raises `ReceiveTimeoutError`, `UnknownAgentError`, and what the trip raised."""
        receiver = _Receiver(most, timeout)
        counter = self._counters.get(name)
        if counter is None:
            counter = self._counters[name] = _Counter(name)
        counter.receivers.append(receiver)
        if name not in self._empty:
            self._ask(counter)
        timer = None
        if timeout is not None:
            timer = asyncio.get_running_loop().call_later(max(0.0, timeout), self._late, counter, receiver)
        future = receiver.future
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and future.exception() is None:
                self._give_back(counter, future.result())
            raise
        finally:
            if timer is not None:
                timer.cancel()
            if receiver in counter.receivers:
                counter.receivers.remove(receiver)
            self._forget(counter)

    async def ask(self, *words: bytes | str | int) -> bytes:
        """The answer to another question of the script."""
        return await self._questions.ask(*words)

    def has_some(self, name: str) -> None:
        """There may be something in an inbox, or it is gone."""
        self._empty.discard(name)
        counter = self._counters.get(name)
        if counter is not None:
            self._ask(counter)

    def ask_all(self) -> None:
        """Nobody knows what was missed."""
        self._empty.clear()
        for counter in list(self._counters.values()):
            self._ask(counter)

    def refuse(self, error: BusError) -> None:
        """From now on all who wait get this error; what was taken for them goes back."""
        self._closed = error
        for counter in list(self._counters.values()):
            self._fail(counter, error)

    async def idle(self) -> None:
        """Until nothing is on its way, also of what goes back."""
        await self._questions.idle()
        for task in list(self._tasks):
            task.cancel()

    def _ask(self, counter: _Counter) -> None:
        if counter.busy:
            counter.again = True
            return
        if not counter.receivers:
            return
        counter.busy += 1
        counter.again = False
        self._empty.discard(counter.name)
        words = ("T", counter.name.encode(), counter.receivers[0].most)
        self._questions.add(words, lambda answer: self._answered(counter, answer))

    def _answered(self, counter: _Counter, answer: bytes | BusError) -> None:
        counter.busy -= 1
        if isinstance(answer, BusError):
            self._fail(counter, answer)
        elif answer == b"U":
            counter.busy += 1
            task = asyncio.create_task(self._look_for(counter))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            return
        elif answer == b"O":
            self._fail(counter, NameTakenError(name=counter.name, holder="an agent whose owner lives"))
        elif len(answer) == 1 + _DUE.size:
            self._nothing(counter, _DUE.unpack_from(answer, 1)[0])
        else:
            if answer[:1] == b"E" and not counter.again:
                self._empty.add(counter.name)
            self._hand_out(counter, answer[1:])
        self._forget(counter)

    def _hand_out(self, counter: _Counter, data: bytes) -> None:
        unreadable: list[UnreadableMessageError] = []
        found = pieces(data, unreadable)
        if unreadable:
            self._unreadable(counter.name, unreadable)
        while found and counter.receivers:
            receiver = counter.receivers.popleft()
            if not receiver.future.done():
                dealt, found = _dealt(found, receiver.most)
                receiver.future.set_result(dealt)
        if found:
            self._give_back(counter, found)
        elif counter.receivers and counter.name not in self._empty:
            self._ask(counter)

    def _nothing(self, counter: _Counter, due_ms: float) -> None:
        for receiver in [each for each in counter.receivers if each.impatient]:
            self._time_out(counter, receiver)
        if counter.again:
            self._ask(counter)
        elif counter.receivers and due_ms >= 0:
            if counter.timer is not None:
                counter.timer.cancel()
            loop = asyncio.get_running_loop()
            counter.timer = loop.call_later(due_ms / 1e3 + 0.001, self._ask, counter)

    def _give_back(self, counter: _Counter, found: Sequence[Piece]) -> None:
        """Before anything else is taken from this inbox these are in their places again."""
        counter = self._counters.setdefault(counter.name, counter)

        def ended(answer: bytes | BusError) -> None:
            counter.busy -= 1
            if isinstance(answer, BusError):
                number = sum(len(piece.messages) for piece in found)
                _log.warning("%d messages of a cancelled receive could not be given back: %s", number, answer)
            if counter.receivers:
                self._ask(counter)
            self._forget(counter)

        counter.busy += 1
        self._empty.discard(counter.name)
        places = b"".join([piece.place for piece in found])
        self._questions.add(("G", counter.name.encode(), places), ended)

    async def _look_for(self, counter: _Counter) -> None:
        try:
            is_back = await self._lost(counter.name)
        except BusError as error:
            counter.busy -= 1
            self._fail(counter, error)
        else:
            counter.busy -= 1
            if is_back:
                self._ask(counter)
            else:
                self._fail(counter, UnknownAgentError(agent_id=counter.name))
        self._forget(counter)

    def _late(self, counter: _Counter, receiver: _Receiver) -> None:
        if receiver.future.done():
            return
        if counter.busy:
            receiver.impatient = True
        elif counter.name in self._empty:
            # What was sent a moment ago may not have been told of yet.
            receiver.impatient = True
            self._ask(counter)
        else:
            self._time_out(counter, receiver)

    def _time_out(self, counter: _Counter, receiver: _Receiver) -> None:
        if not receiver.future.done():
            receiver.future.set_exception(
                ReceiveTimeoutError(agent_id=counter.name, timeout_s=receiver.timeout_s or 0.0)
            )
        if receiver in counter.receivers:
            counter.receivers.remove(receiver)

    def _fail(self, counter: _Counter, error: BusError) -> None:
        receivers, counter.receivers = counter.receivers, deque()
        for receiver in receivers:
            if not receiver.future.done():
                receiver.future.set_exception(error)

    def _forget(self, counter: _Counter) -> None:
        """An inbox at which nobody waits costs nothing."""
        if counter.receivers or counter.busy:
            return
        if counter.timer is not None:
            counter.timer.cancel()
            counter.timer = None
        if self._counters.get(counter.name) is counter:
            del self._counters[counter.name]


def _dealt(found: list[Piece], most: int) -> tuple[list[Piece], list[Piece]]:
    """What one receiver gets, `most` messages or fewer, and what is left."""
    for at, piece in enumerate(found):
        number = len(piece.messages)
        if number > most:
            if most == 0:
                return found[:at], found[at:]
            first, rest = piece.split(most)
            return [*found[:at], first], [rest, *found[at + 1 :]]
        most -= number
    return found, []
