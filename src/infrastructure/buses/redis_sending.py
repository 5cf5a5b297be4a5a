"""Messages on their way into inboxes of Redis: in the order in which they were sent, also past one that has no room."""

from __future__ import annotations

import asyncio
from asyncio import Future, TimerHandle
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

from application.ports.message_bus import Message
from domain.errors.bus import BusError, BusUnavailableError, InboxFullError, InvalidMessageError, UnknownAgentError
from infrastructure.buses.redis_lane import Lane
from infrastructure.buses.redis_parcels import Parcel

__all__ = ["Outbox", "Sending", "failure_of", "in_flight"]

_STEPS = 512
_SIZE = 4 * 1024 * 1024


class Sending:
    """A parcel on its way; `answer` is what became of what is left of it, unless there is an `error`, and `sent` messages are out of it."""

    __slots__ = (
        "_outbox",
        "answer",
        "batch",
        "capacity",
        "direct",
        "error",
        "held",
        "over",
        "parcel",
        "sent",
        "size",
        "to",
        "trying",
        "waits",
        "withdrawn",
    )

    def __init__(self, outbox: Outbox, parcel: Parcel, *, direct: bool) -> None:
        self._outbox = outbox
        self.to = parcel.recipient
        self.parcel = parcel
        self.size = parcel.size
        self.sent = 0
        # To one inbox, so that it may wait for room there; `waits` as long as its sender has patience.
        self.direct = self.waits = direct
        # Waits for room; is tried once more meanwhile.
        self.held = self.trying = False
        self.withdrawn = self.over = False
        self.answer = ""
        # Of the inbox, once it is known to be full.
        self.capacity = 0
        self.error: BusError | None = None
        self.batch: Batch | None = None

    def sets_out(self) -> bool:
        """As in `Step`: not when it was withdrawn, nor past one that was sent before it and waits for room."""
        return self._outbox.admits(self)

    def done(self, answer: bytes) -> None:
        """As in `Step`."""
        text = answer.decode()
        due_ms = -1
        if text[0] in "BR":
            capacity, due, sent = text[1:].split(":")
            self.capacity, due_ms = int(capacity), int(due)
            if number := int(sent):
                self.parcel.drop(number)
                self.sent += number
                self.size = self.parcel.size
        if text[0] == "B" and self.waits and not self.withdrawn:
            self._outbox.hold(self, due_ms)
        else:
            self.end(text)

    def failed(self, error: BusError) -> None:
        """As in `Step`."""
        self.error = error
        self.end("")

    def end(self, answer: str) -> None:
        """It is over: tell whoever waits for it, and let those behind it go on."""
        if self.over:
            return
        self.over = True
        self.answer = answer
        if self.held:
            self._outbox.release(self)
        if self.batch is not None:
            self.batch.ended()


class Batch:
    """Done when all of its sendings are over."""

    __slots__ = ("_left", "future")

    def __init__(self, number: int) -> None:
        self._left = number
        self.future: Future[None] = asyncio.get_running_loop().create_future()

    def ended(self) -> None:
        """One more is over."""
        self._left -= 1
        if self._left == 0 and not self.future.done():
            self.future.set_result(None)


class _Held:
    """What waits for room in one inbox, in order; the first of it may be on its way once more."""

    __slots__ = ("again", "sendings", "timer", "trying")

    def __init__(self) -> None:
        self.sendings: deque[Sending] = deque()
        self.trying = 0
        # There may be room since the last try began.
        self.again = False
        # When something dies that takes up room.
        self.timer: TimerHandle | None = None

    def add(self, sending: Sending) -> None:
        """Behind all of its priority, before those of a lower one that are not on their way."""
        sending.held = True
        at = len(self.sendings)
        while at and self._gives_way(self.sendings[at - 1], sending):
            at -= 1
        self.sendings.insert(at, sending)

    def _gives_way(self, one: Sending, other: Sending) -> bool:
        return one.parcel.priority > other.parcel.priority and not one.trying


class Outbox:
    """Sends what it is given in order; what finds no room holds up only what is meant for the same inbox."""

    def __init__(self, travel: Callable[[bytes], Awaitable[bytes]]) -> None:
        self._lane: Lane[Sending] = Lane(self._trip, steps=_STEPS, size=_SIZE)
        self._travel = travel
        self._held: dict[str, _Held] = {}
        # Inboxes of which it was heard during this trip that they have room: that may be known before the trip's answer is.
        self._roomy: set[str] = set()
        self._missed = False

    async def send(self, sendings: Sequence[Sending], *, timeout: float) -> None:
        """Until each has its answer or error. What has no room after `timeout` seconds gets the answer `B`."""
        if not sendings:
            return
        batch = Batch(len(sendings))
        for sending in sendings:
            sending.batch = batch
        self._lane.add(*sendings)
        timer: TimerHandle = asyncio.get_running_loop().call_later(max(0.0, timeout), self._give_up, sendings)
        try:
            await batch.future
        except asyncio.CancelledError:
            for sending in sendings:
                sending.withdrawn = True
                if sending.held and not sending.trying:
                    sending.end("B")
            raise
        finally:
            timer.cancel()

    def has_room(self, name: str) -> None:
        """An inbox may take something again, or is gone."""
        held = self._held.get(name)
        if held is None:
            self._roomy.add(name)
        else:
            held.again = True
            self._retry(name, held)

    def retry_all(self) -> None:
        """Nobody knows what was missed."""
        for name in list(self._held):
            self.has_room(name)
        self._missed = True

    def admits(self, sending: Sending) -> bool:
        """Whether this one goes along now."""
        if sending.withdrawn:
            sending.trying = sending.trying and self._tried(sending)
            sending.end("B")
            return False
        if not sending.direct or sending.trying:
            return True
        held = self._held.get(sending.to)
        if held is None:
            return True
        if sending.waits:
            held.add(sending)
        else:
            sending.end("B")
        return False

    def hold(self, sending: Sending, due_ms: int) -> None:
        """There was no room for this one; there may be in `due_ms` milliseconds, when that is not negative."""
        held = self._held.get(sending.to)
        if held is None:
            held = self._held[sending.to] = _Held()
        if sending.trying:
            sending.trying = self._tried(sending)
        else:
            sending.parcel.waited()
            held.add(sending)
            held.again = held.again or self._missed or sending.to in self._roomy
        if due_ms >= 0 and held.timer is None:
            loop = asyncio.get_running_loop()
            held.timer = loop.call_later(due_ms / 1e3 + 0.001, self._is_due, sending.to, held)
        self._retry(sending.to, held)

    def release(self, sending: Sending) -> None:
        """This one waits no longer."""
        sending.held = False
        held = self._held.get(sending.to)
        if held is None:
            return
        if sending.trying:
            sending.trying = self._tried(sending)
            # Where one found room another may, and those behind were perhaps never tried.
            held.again = True
        if held.sendings[0] is sending:
            held.sendings.popleft()
        else:
            held.sendings.remove(sending)
        self._retry(sending.to, held)

    def refuse(self, error: BusError) -> None:
        """Fail what waits and what has not set out."""
        for held in list(self._held.values()):
            for sending in list(held.sendings):
                if not sending.trying:
                    sending.failed(error)
        self._lane.refuse(error)

    async def idle(self) -> None:
        """Until nothing is on its way."""
        await self._lane.idle()

    def _tried(self, sending: Sending) -> bool:
        held = self._held.get(sending.to)
        if held is not None:
            held.trying -= 1
        return False

    def _is_due(self, name: str, held: _Held) -> None:
        held.timer = None
        if self._held.get(name) is held:
            self.has_room(name)

    def _retry(self, name: str, held: _Held) -> None:
        if held.trying:
            return
        if not held.sendings:
            self._held.pop(name, None)
            if held.timer is not None:
                held.timer.cancel()
        elif held.again:
            held.again = False
            trying = [held.sendings[at] for at in range(min(len(held.sendings), _STEPS))]
            held.trying = len(trying)
            for sending in trying:
                sending.trying = True
            self._lane.add(*trying)

    def _give_up(self, sendings: Sequence[Sending]) -> None:
        for sending in sendings:
            sending.waits = False
            if sending.held and not sending.trying:
                sending.end("B")

    async def _trip(self, sendings: Sequence[Sending]) -> list[bytes]:
        self._roomy.clear()
        self._missed = False
        return (await self._travel(b"".join([sending.parcel.data() for sending in sendings]))).split(b" ")


def failure_of(sending: Sending, message: Message, waited_s: float) -> BusError | None:
    """What became of the first message of a parcel that is left; None when all went out."""
    if sending.error is not None:
        return sending.error
    code = sending.answer
    if code in ("K", "d", "D"):
        return None
    if code == "U":
        return UnknownAgentError(agent_id=message.recipient)
    if code == "S":
        return UnknownAgentError(agent_id=message.sender)
    if code == "C":
        return in_flight(message.correlation_id or "")
    if code == "X":
        return BusUnavailableError(
            transport="redis",
            problem=f"the inbox of {message.recipient!r} lies where Redis holds something of others",
            remedy="Delete that key, or use another namespace.",
        )
    waited_s = waited_s if code[0] == "B" else 0.0
    return InboxFullError(agent_id=message.recipient, capacity=sending.capacity, waited_s=waited_s)


def in_flight(correlation: str) -> InvalidMessageError:
    """What is wrong with a request whose correlation id another one has."""
    return InvalidMessageError(field="correlation_id", problem=f"is {correlation!r}, which is in flight")
