"""The inside of a memory bus: how messages get into inboxes, are taken out, come again and end as dead letters.

It is one file, because every step changes the room of an inbox and the counts together, and at this rate each call between two objects
would be felt.
"""

from __future__ import annotations

import asyncio
import time
from asyncio import AbstractEventLoop, Future, InvalidStateError
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, count, repeat
from operator import add
from typing import TypeVar
from uuid import uuid4

from domain.errors.bus import BusClosedError, BusError, InboxFullError, InvalidMessageError, UnknownAgentError
from domain.models.message import DeadLetterReason, Message, Overflow, Payload, Priority
from infrastructure.buses.bus_limits import BusLimits, checked_message
from infrastructure.buses.inbox import Blocked, Entry, Inbox
from infrastructure.buses.memory_records import FOLD_EVERY, TIDY_S, Records
from infrastructure.buses.payloads import fits

__all__ = ["BREATH", "TRANSPORT", "Post"]

_Result = TypeVar("_Result")

TRANSPORT = "memory"
# A sender stops for breath when an inbox that is filling up has a multiple of this, plus one, of places left: a mask.
BREATH = 511
# Payloads of these kinds have no size of their own, so they pass unmeasured.
_UNMEASURED = frozenset({dict, list, type(None), int, float, bool})
_MEASURED = frozenset({str, bytes})
_CARRIED = (dict, list, int, float, str, bytes)
_REMEMBERED_NAMES = 10_000
_NORMAL = Priority.NORMAL
_ENDINGS = tuple(f"{number:x}" for number in range(4_096))
_perf_counter = time.perf_counter
_new = object.__new__


class Post:
    """Keeps every message in exactly one place: an inbox, its agent's hands, a sender's that waits for room, or the dead letters.

    All calls come from one event loop. Nothing is checked again that the bus has checked.
    """

    def __init__(
        self, *, limits: BusLimits, records: Records, is_tapped: bool, wall_clock: Callable[[], float]
    ) -> None:
        self._limits = limits
        self._records = records
        self._note = records.note
        self._is_tapped = is_tapped
        self._wall_clock = wall_clock
        # Senders and types that were looked at; empty when each message has to be, for a tap.
        self._names: set[str] = set()
        # No character takes more than four bytes, so texts of so few need no measuring.
        self._short = limits.max_payload_bytes // 4
        self._tidies = False
        self.loop: AbstractEventLoop | None = None
        self.inboxes: dict[str, Inbox] = {}
        self.groups: dict[str, dict[str, None]] = {}
        # The place of the next message in the order of all, and an id for it.
        self.number = zip(count(1), _ids(), strict=True).__next__

    def running_loop(self) -> AbstractEventLoop:
        """The loop that this bus belongs to from its first call on."""
        if self.loop is None:
            self.loop = asyncio.get_running_loop()
        return self.loop

    def send_plainly(self, message: Message, correlation_id: str | None = None) -> str | None:
        """The short way of what nearly every message is; None when something has to be looked at more closely.

        Written out in full, because at half a million messages a second each call of a function is felt.
        """
        recipient = message.recipient
        inbox = self.inboxes.get(recipient)
        sender = message.sender
        kind = message.type
        payload = message.payload
        form = payload.__class__
        if (
            inbox is None
            or not inbox.room & BREATH
            or message.id
            or message.priority is not _NORMAL
            or message.expires_at is not None
            or message.correlation_id is not None
            or (
                form is not dict and form not in _UNMEASURED and (form not in _MEASURED or len(payload) > self._short)  # type: ignore[arg-type]
            )
            or sender not in self._names
            or kind not in self._names
        ):
            return None
        now = _perf_counter()
        sequence, message_id = self.number()
        ready: Message = _new(Message)
        ready.sender = sender
        ready.recipient = recipient
        ready.type = kind
        ready.payload = payload
        ready.priority = _NORMAL
        ready.correlation_id = correlation_id
        ready.expires_at = None
        ready.id = message_id
        ready.attempt = 1
        entry = (sequence, now, ready)
        inbox.normal.append(entry)
        inbox.room -= 1
        self._records.sent += 1
        self._note(entry)
        if not self._tidies:
            self._tidy_later()
        receivers = inbox.receivers
        if receivers:
            try:
                receivers.popleft().set_result(True)
            except InvalidStateError:
                # It gave up, and its task has not run since.
                inbox.wake()
        return message_id

    def prepared(self, message: Message, *, to_all: bool = False) -> tuple[Message, bool]:
        """A checked copy with an id, and whether the sender gave the id."""
        checked_message(message, to_all=to_all)
        if not self._is_tapped:
            if len(self._names) >= _REMEMBERED_NAMES:
                self._names.clear()
            self._names.update((message.sender, message.type))
        self.check_payload(message.payload)
        given = bool(message.id)
        ready = message.copy(id=message.id or self.number()[1], attempt=1)
        if ready.priority.__class__ is not Priority:
            ready.priority = Priority(ready.priority)
        return ready, given

    def check_payload(self, payload: Payload) -> None:
        """Raises `InvalidMessageError` and `PayloadTooLargeError`."""
        if payload.__class__ not in _UNMEASURED:
            if not isinstance(payload, _CARRIED):
                raise InvalidMessageError(
                    field="payload", problem=f"is a {payload.__class__.__name__}, which no bus carries"
                )
            fits(payload, self._limits.max_payload_bytes)

    async def send(self, ready: Message, timeout: float, *, given: bool) -> str:
        """Put a prepared message where it belongs, waiting for room if it has to."""
        inbox = self.inboxes.get(ready.recipient)
        if inbox is None:
            self.send_to_group(ready, given=given)
            return ready.id
        entry = (self.number()[0], _perf_counter(), ready)
        if self.deliver(inbox, entry, given=given) is False:
            if inbox.overflow is Overflow.REJECT or timeout <= 0:
                self._records.rejected += 1
                raise InboxFullError(agent_id=ready.recipient, capacity=inbox.capacity)
            await self._wait_for_room(inbox, entry, timeout, given=given)
        return ready.id

    def send_to_group(self, ready: Message, *, given: bool) -> None:
        """To each member but the sender. Raises `UnknownAgentError`."""
        members = self.groups.get(ready.recipient)
        if members is None:
            self._records.bury(ready, ready.recipient, DeadLetterReason.UNKNOWN_AGENT, attempts=0)
            raise UnknownAgentError(agent_id=ready.recipient)
        self.send_to_each([member for member in members if member != ready.sender], ready, given=given)

    def send_to_each(self, names: list[str], ready: Message, *, given: bool) -> int:
        """How many inboxes took it; one that has no room misses it."""
        entry = (self.number()[0], _perf_counter(), ready)
        if not names:
            self._record(entry)
        took = 0
        noted = False
        priority = ready.priority
        simple = not given and ready.expires_at is None
        for name in names:
            inbox = self.inboxes[name]
            if simple and noted and inbox.room:
                inbox.lanes[priority].append(entry)
                inbox.room -= 1
                self._records.sent += 1
                if inbox.receivers:
                    inbox.wake()
                took += 1
                continue
            outcome = self.deliver(inbox, entry, given=given, noted=noted)
            if outcome is False:
                self._records.rejected += 1
                self._records.bury(ready, name, DeadLetterReason.INBOX_FULL, attempts=0)
            elif outcome:
                took += 1
            noted = noted or outcome is True
        return took

    def deliver(self, inbox: Inbox, entry: Entry, *, given: bool, noted: bool = False) -> bool | None:
        """Put a message into an inbox. True when it took it, None when it did not have to (a duplicate), False when it is full."""
        message = entry[2]
        if given and inbox.has_seen(message.id):
            self._records.duplicates += 1
            return None
        if not inbox.room:
            self._bury_expired_of(inbox)
        if not inbox.room:
            if inbox.overflow is not Overflow.DROP_OLDEST:
                return False
            dropped = inbox.drop_for(message.priority)
            self._records.dropped += 1
            victim = message if dropped is None else dropped[2]
            attempts = 0 if dropped is None else _deliveries(dropped, inbox)
            self._records.bury(victim, inbox.agent_id, DeadLetterReason.INBOX_FULL, attempts=attempts)
            if dropped is None:
                self._count_sent(inbox, entry, given=given, noted=noted)
                return None
        self._count_sent(inbox, entry, given=given, noted=noted)
        inbox.put(entry)
        return True

    def take(self, inbox: Inbox) -> Message | None:
        """The next message of an inbox that has some, when there is more to it than taking; None when all of them had expired."""
        if inbox.next_expiry is not None:
            self._bury_expired_of(inbox)
        lane = inbox.high or inbox.normal or inbox.low
        if not lane:
            return None
        entry = lane.popleft()
        sequence, sent_at, message = entry
        attempt = message.attempt
        records = self._records
        if attempt > 1:
            records.redelivered += 1
            inbox.overdue.pop(message.id, None)
        else:
            records.latencies.add(_perf_counter() - sent_at)
            if not sequence & FOLD_EVERY:
                records.latencies.fold()
        if self._is_tapped:
            records.tell("delivered" if attempt == 1 else "redelivered", message)
        if not inbox.manual:
            inbox.room += 1
            if inbox.blocked is not None:
                self.admit(inbox)
            return message
        if attempt == 1:
            records.delivered_by_hand += 1
        loop = self.loop or self.running_loop()
        due = loop.time() + self._limits.visibility_s
        inbox.taken[message.id] = (due, entry)
        if inbox.timer is None:
            inbox.timer = loop.call_at(due, self._redeliver, inbox)
        return message

    async def arrival(self, inbox: Inbox, deadline: float) -> bool:
        """Wait until there may be a message; False at the deadline (the event loop's time)."""
        loop = self.running_loop()
        arrived: Future[bool] = loop.create_future()
        inbox.receivers.append(arrived)
        patience = loop.call_at(deadline, _end, arrived, False)
        woken = False
        try:
            woken = await arrived
        except asyncio.CancelledError:
            inbox.leave(arrived)
            raise
        finally:
            patience.cancel()
        if not woken:
            inbox.receivers.remove(arrived)
        return woken

    def admit(self, inbox: Inbox) -> None:
        """Let blocked senders in, as far as there is room."""
        while inbox.room and (blocked := inbox.next_blocked()) is not None:
            self.deliver(inbox, blocked.entry, given=blocked.given)
            blocked.admitted.set_result(True)

    def empty(self, inbox: Inbox) -> None:
        """An inbox is closed: bury what it holds and what its senders wait with."""
        if inbox.timer is not None:
            inbox.timer.cancel()
        gone = UnknownAgentError(agent_id=inbox.agent_id)
        held = [*(entry for _, entry in inbox.taken.values()), *inbox.waiting()]
        for entry in sorted(held, key=lambda entry: entry[0]):
            attempts = _deliveries(entry, inbox)
            self._records.bury(entry[2], inbox.agent_id, DeadLetterReason.UNREGISTERED, attempts=attempts)
        while (blocked := inbox.next_blocked()) is not None:
            self._records.bury(blocked.entry[2], inbox.agent_id, DeadLetterReason.UNREGISTERED, attempts=0)
            blocked.admitted.set_exception(gone)
        _fail(inbox.receivers, gone)

    def bury_expired(self) -> None:
        """Bury whatever has expired, in whichever inbox it waits."""
        for inbox in self.inboxes.values():
            if inbox.next_expiry is not None:
                self._bury_expired_of(inbox)
                if inbox.blocked is not None:
                    self.admit(inbox)

    def close(self) -> None:
        """End whatever waits; everything is gone."""
        for inbox in self.inboxes.values():
            if inbox.timer is not None:
                inbox.timer.cancel()
            while (blocked := inbox.next_blocked()) is not None:
                blocked.admitted.set_exception(BusClosedError(transport=TRANSPORT))
            _fail(inbox.receivers, BusClosedError(transport=TRANSPORT))
        self.inboxes.clear()
        self.groups.clear()

    async def _wait_for_room(self, inbox: Inbox, entry: Entry, timeout: float, *, given: bool) -> None:
        loop = self.running_loop()
        blocked = Blocked(entry, given, loop.create_future())
        inbox.block(blocked)
        patience = loop.call_later(timeout, _end, blocked.admitted, False)
        try:
            admitted = await blocked.admitted
        finally:
            patience.cancel()
            inbox.unblock(blocked)
        if not admitted:
            self._records.rejected += 1
            raise InboxFullError(agent_id=inbox.agent_id, capacity=inbox.capacity, waited_s=timeout)

    def _count_sent(self, inbox: Inbox, entry: Entry, *, given: bool, noted: bool) -> None:
        self._records.sent += 1
        if given:
            inbox.remember(entry[2].id)
        if not noted:
            self._record(entry)

    def _record(self, entry: Entry) -> None:
        """Note a message once, however many inboxes it goes to."""
        self._note(entry)
        if not self._tidies:
            self._tidy_later()
        if self._is_tapped:
            self._records.tell("sent", entry[2])

    def _tidy_later(self) -> None:
        self._tidies = True
        self.running_loop().call_later(TIDY_S, self._tidy)

    def _tidy(self) -> None:
        self._tidies = False
        self._records.tidy()

    def _redeliver(self, inbox: Inbox) -> None:
        """Have what was not acknowledged in time wait again, or bury it."""
        loop = self.running_loop()
        inbox.timer = None
        again: list[Entry] = []
        now = self._wall_clock()
        # The loop calls timers up to one tick of its clock early.
        for sequence, sent_at, message in inbox.due(loop.time() + 1e-6):
            if message.attempt >= self._limits.max_attempts:
                reason = DeadLetterReason.ATTEMPTS
            elif message.expires_at is not None and message.expires_at <= now:
                reason = DeadLetterReason.EXPIRED
                self._records.expired += 1
            else:
                again.append((sequence, sent_at, message.copy(attempt=message.attempt + 1)))
                continue
            inbox.room += 1
            self._records.bury(message, inbox.agent_id, reason, attempts=message.attempt)
        inbox.put_back(again)
        if inbox.taken:
            due, _ = next(iter(inbox.taken.values()))
            inbox.timer = loop.call_at(due, self._redeliver, inbox)
        if inbox.blocked is not None:
            self.admit(inbox)

    def _bury_expired_of(self, inbox: Inbox) -> None:
        if inbox.next_expiry is None:
            return
        for entry in inbox.take_expired(self._wall_clock()):
            self._records.expired += 1
            attempts = _deliveries(entry, inbox)
            self._records.bury(entry[2], inbox.agent_id, DeadLetterReason.EXPIRED, attempts=attempts)


def _ids() -> Iterator[str]:
    """Ids that nobody else makes. Most of each is made beforehand, because writing a number takes as long as the rest of a `send`."""
    prefix = uuid4().hex[:16]
    return chain.from_iterable(map(add, repeat(f"{prefix}-{block:x}-"), _ENDINGS) for block in count())


def _end(waiting: Future[_Result], result: _Result) -> None:
    if not waiting.done():
        waiting.set_result(result)


def _fail(waiting: Iterable[Future[_Result]], error: BusError) -> None:
    for each in list(waiting):
        if not each.done():
            each.set_exception(error)


def _deliveries(entry: Entry, inbox: Inbox) -> int:
    """How often a message was delivered: one that waits was not yet delivered under its present number."""
    message = entry[2]
    return message.attempt if message.id in inbox.taken else message.attempt - 1
