"""The bus within one process and one event loop: messages are handed over by reference, as fast as Python can."""

from __future__ import annotations

import asyncio
import logging
import time
from asyncio import AbstractEventLoop, Future, TimerHandle
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, count, repeat
from operator import add
from types import TracebackType
from typing import Self, TypeAlias, TypeVar
from uuid import uuid4

from domain.errors.bus import (
    BusClosedError,
    BusError,
    InboxFullError,
    InvalidMessageError,
    NameTakenError,
    ReceiveTimeoutError,
    RequestTimeoutError,
    UnknownAgentError,
)
from domain.models.message import (
    Acknowledgement,
    BusStats,
    DeadLetter,
    DeadLetterReason,
    Message,
    MessageHeader,
    Overflow,
    Payload,
    Priority,
)
from infrastructure.buses.bus_limits import MAX_DEAD_LETTERS, BusLimits, checked_message, checked_name
from infrastructure.buses.bus_statistics import LatencyHistogram, RateMeter
from infrastructure.buses.inbox import Blocked, Entry, Inbox
from infrastructure.buses.message_history import HISTORY_LIMIT, MessageHistory
from infrastructure.buses.payloads import fits

__all__ = ["MemoryMessageBus"]

_logger = logging.getLogger(__name__)

_Tap: TypeAlias = Callable[[str, Message], None]

_Result = TypeVar("_Result")

_TRANSPORT = "memory"
# Payloads of these kinds have no size of their own, so they pass unmeasured.
_UNMEASURED = frozenset({dict, list, type(None), int, float, bool})
_CARRIED = (dict, list, int, float, str, bytes)
# A sender stops for breath when an inbox that is filling up has a multiple of this, plus one, of places left: a mask.
_BREATH = 511
_REMEMBERED_SENDERS = 10_000
# Latencies are sorted into buckets when this many messages went by, less one: a mask.
_FOLD_EVERY = 1_023
# How long after a message was sent its payload may be kept for the history that will not have it.
_TIDY_S = 0.1
_NORMAL = Priority.NORMAL
_ENDINGS = tuple(f"{number:x}" for number in range(4_096))
_perf_counter = time.perf_counter


class MemoryMessageBus:
    """A bus for agents of one event loop; two objects are two buses.

    Order: HIGH before NORMAL before LOW; within a priority exactly as sent, whoever the senders are, so also per sender and recipient.
    Delivery: at most once (`auto`) or at least once (`manual`: again after `visibility_s`, dead after `max_attempts`).
    Durability and loss on crash: none and all; what is queued also ends with `close`.
    Bounds: every inbox by its `capacity`; dead letters, history, remembered ids and latencies by constants.
    Counts of `stats` are those of the whole bus. Payloads are handed over by reference and must not be changed any more; only `str` and
    `bytes` are measured. Not thread-safe: every call comes from the one event loop.
    """

    def __init__(
        self,
        *,
        capacity: int = 10_000,
        overflow: str = "block",
        visibility_s: float = 30.0,
        max_attempts: int = 5,
        max_payload_bytes: int = 1_048_576,
        keep_payloads: bool = False,
        history_limit: int = HISTORY_LIMIT,
        tap: _Tap | None = None,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._limits = BusLimits.checked(
            capacity=capacity,
            overflow=overflow,
            visibility_s=visibility_s,
            max_attempts=max_attempts,
            max_payload_bytes=max_payload_bytes,
        )
        self._keep_payloads = keep_payloads
        self._wall_clock = wall_clock
        self._tap = tap
        # Whose names were looked at; empty when each message has to be, for a tap.
        self._senders: set[str] = set()
        self._loop: AbstractEventLoop | None = None
        self._closed = False
        self._inboxes: dict[str, Inbox] = {}
        self._groups: dict[str, dict[str, None]] = {}
        # Who asked, what gets the reply, and until when (the event loop's time); one timer for all of them, at the first deadline.
        self._requests: dict[str, tuple[str, Future[Message | None], float]] = {}
        self._patience: TimerHandle | None = None
        self._dead: deque[DeadLetter] = deque(maxlen=MAX_DEAD_LETTERS)
        self._number = zip(count(1), _ids(), strict=True).__next__
        self._history = MessageHistory(limit=history_limit, keep_payloads=keep_payloads)
        # What was sent since `_tidy` last ran; it lets go of the payloads then.
        self._recent: deque[Entry] = deque(maxlen=history_limit)
        self._note = self._recent.append
        self._tidies = False
        self._latencies = LatencyHistogram()
        self._time_taken = self._latencies.add
        self._rate = RateMeter(_perf_counter())
        self._sent = 0
        self._acknowledged_by_hand = 0
        self._delivered_by_hand = 0
        self._redelivered = 0
        self._duplicates = 0
        self._rejected = 0
        self._dropped = 0
        self._expired = 0
        self._late_replies = 0
        self._dead_letters = 0

    async def register(
        self, agent_id: str, *, capacity: int | None = None, overflow: str | None = None, acknowledge: str = "auto"
    ) -> None:
        """Open an inbox of that name. Raises `NameTakenError`."""
        self._open()
        checked_name(agent_id, "agent_id")
        if agent_id in self._inboxes:
            raise NameTakenError(name=agent_id, holder="an agent of this bus")
        if agent_id in self._groups:
            raise NameTakenError(name=agent_id, holder="a group")
        room, policy, mode = self._limits.inbox(capacity=capacity, overflow=overflow, acknowledge=acknowledge)
        self._inboxes[agent_id] = Inbox(
            agent_id,
            capacity=room,
            overflow=policy,
            manual=mode is Acknowledgement.MANUAL,
            tapped=self._tap is not None,
        )

    async def unregister(self, agent_id: str) -> None:
        """Close an inbox; what it holds becomes dead letters. Raises `UnknownAgentError`."""
        inbox = self._inbox(agent_id)
        del self._inboxes[agent_id]
        for group in inbox.groups:
            self._remove_member(agent_id, group)
        if inbox.timer is not None:
            inbox.timer.cancel()
        held = [*(entry for _, entry in inbox.taken.values()), *inbox.waiting()]
        for entry in sorted(held, key=lambda entry: entry[0]):
            self._bury(entry[2], agent_id, DeadLetterReason.UNREGISTERED, attempts=_deliveries(entry, inbox))
        while (blocked := inbox.next_blocked()) is not None:
            self._bury(blocked.entry[2], agent_id, DeadLetterReason.UNREGISTERED, attempts=0)
            blocked.admitted.set_exception(UnknownAgentError(agent_id=agent_id))
        _fail(inbox.receivers, UnknownAgentError(agent_id=agent_id))
        _fail(
            [reply for requester, reply, _ in self._requests.values() if requester == agent_id],
            UnknownAgentError(agent_id=agent_id),
        )

    async def join(self, agent_id: str, group: str) -> None:
        """Make an agent a member of a group. Raises `UnknownAgentError` and `NameTakenError`."""
        inbox = self._inbox(agent_id)
        checked_name(group, "group")
        if group in self._inboxes:
            raise NameTakenError(name=group, holder="an agent of this bus")
        self._groups.setdefault(group, {})[agent_id] = None
        inbox.groups.add(group)

    async def leave(self, agent_id: str, group: str) -> None:
        """End a membership, if there is one. Raises `UnknownAgentError` and `NameTakenError`."""
        inbox = self._inbox(agent_id)
        if group in self._inboxes:
            raise NameTakenError(name=group, holder="an agent of this bus")
        if group in inbox.groups:
            inbox.groups.remove(group)
            self._remove_member(agent_id, group)

    async def send(self, message: Message, *, timeout: float = 30.0) -> str:
        """Put a message into the inbox of its recipient or of each other member of that group; returns its id."""
        message_id = self._send_plainly(message)
        if message_id is not None:
            return message_id
        ready, given = self._prepared(message)
        inbox = self._inboxes.get(ready.recipient)
        crowded = inbox is not None and not inbox.room & _BREATH and inbox.held > _BREATH
        await self._send(ready, timeout, given=given)
        if crowded:
            # Whoever floods lets the receivers run now and then: what they take then is still in the processor's cache.
            await asyncio.sleep(0)
        return ready.id

    def send_nowait(self, message: Message) -> str:
        """As `send`, but a full inbox of `block` raises `InboxFullError` at once."""
        message_id = self._send_plainly(message)
        if message_id is not None:
            return message_id
        ready, given = self._prepared(message)
        inbox = self._inboxes.get(ready.recipient)
        if inbox is None:
            self._send_to_group(ready, given=given)
        elif self._deliver(inbox, (self._number()[0], _perf_counter(), ready), given=given) is False:
            self._rejected += 1
            raise InboxFullError(agent_id=ready.recipient, capacity=inbox.capacity)
        return ready.id

    async def send_many(self, messages: Iterable[Message]) -> list[str]:
        """Send each, in order; returns their ids. The first failure is raised after the others were tried."""
        ids = []
        failure: BusError | None = None
        for message in messages:
            message_id = self._send_plainly(message)
            if message_id is None:
                try:
                    ready, given = self._prepared(message)
                    message_id = await self._send(ready, 30.0, given=given)
                except BusClosedError:
                    raise
                except BusError as error:
                    failure = failure or error
                    continue
            ids.append(message_id)
        if failure is not None:
            raise failure
        return ids

    async def broadcast(self, message: Message) -> int:
        """Put a message into every inbox but the sender's; returns how many took it. Never waits."""
        ready, given = self._prepared(message)
        return self._send_to_each([name for name in self._inboxes if name != ready.sender], ready, given=given)

    async def receive(self, agent_id: str, *, timeout: float | None = None) -> Message:
        """Take the next message. Raises `ReceiveTimeoutError` and `UnknownAgentError`."""
        inbox = self._inboxes.get(agent_id) or self._inbox(agent_id)
        deadline: float | None = None
        while True:
            lane = inbox.high or inbox.normal or inbox.low
            if lane:
                if inbox.careful:
                    message = self._take_with_care(inbox)
                    if message is None:
                        continue
                    return message
                sequence, sent_at, message = lane.popleft()
                self._time_taken(_perf_counter() - sent_at)
                if not sequence & _FOLD_EVERY:
                    self._latencies.fold()
                inbox.room += 1
                return message
            if timeout is None:
                arrived = self._loop.create_future() if self._loop is not None else self._running_loop().create_future()
                inbox.receivers.append(arrived)
                try:
                    await arrived
                except asyncio.CancelledError:
                    self._not_received(inbox, arrived)
                    raise
                continue
            if deadline is None:
                deadline = self._running_loop().time() + timeout
            if not await self._arrival(inbox, deadline):
                raise ReceiveTimeoutError(agent_id=agent_id, timeout_s=timeout)

    async def receive_many(self, agent_id: str, max_messages: int, *, timeout: float | None = None) -> list[Message]:
        """Wait for one message as `receive` does, then take what else is there, up to `max_messages` in all."""
        if max_messages < 1:
            raise ValueError(f"max_messages is {max_messages!r}: give at least 1.")
        messages = [await self.receive(agent_id, timeout=timeout)]
        inbox = self._inboxes.get(agent_id)
        while inbox is not None and len(messages) < max_messages:
            lane = inbox.high or inbox.normal or inbox.low
            if not lane:
                break
            if inbox.careful:
                message = self._take_with_care(inbox)
                if message is not None:
                    messages.append(message)
                continue
            now = _perf_counter()
            taken = min(len(lane), max_messages - len(messages))
            for _ in range(taken):
                _, sent_at, message = lane.popleft()
                self._time_taken(now - sent_at)
                messages.append(message)
            inbox.room += taken
            if len(self._latencies.pending) > _FOLD_EVERY:
                self._latencies.fold()
        return messages

    async def acknowledge(self, agent_id: str, *message_ids: str) -> int:
        """Say that these are dealt with; returns how many of them were unacknowledged."""
        inbox = self._inboxes.get(agent_id) or self._inbox(agent_id)
        known = 0
        for message_id in message_ids:
            taken = inbox.taken.pop(message_id, None)
            if taken is not None:
                known += 1
                if self._tap is not None:
                    self._tell("acknowledged", taken[1][2])
        self._acknowledged_by_hand += known
        inbox.room += known
        if known and inbox.blocked is not None:
            self._admit(inbox)
        return known

    async def request(self, message: Message, *, timeout: float = 30.0) -> Message:
        """Send a message and wait for its reply. Raises `RequestTimeoutError` and what `send` does."""
        if message.sender not in self._inboxes:
            self._inbox(message.sender)
        correlation_id = message.correlation_id or self._number()[1]
        if correlation_id in self._requests:
            raise InvalidMessageError(field="correlation_id", problem=f"is {correlation_id!r}, which is in flight")
        loop = self._running_loop()
        reply: Future[Message | None] = loop.create_future()
        deadline = loop.time() + timeout
        self._requests[correlation_id] = (message.sender, reply, deadline)
        if self._patience is None or deadline < self._patience.when():
            self._end_requests_at(deadline)
        try:
            if self._send_plainly(message, correlation_id) is None:
                ready, given = self._prepared(message)
                ready.correlation_id = correlation_id
                await self._send(ready, timeout, given=given)
            answer = await reply
        finally:
            del self._requests[correlation_id]
            # Failed while the message itself still waited for room: that failure is the one raised.
            if reply.done() and not reply.cancelled():
                reply.exception()
        if answer is None:
            raise RequestTimeoutError(agent_id=message.recipient, correlation_id=correlation_id, timeout_s=timeout)
        return answer

    async def reply(self, request: Message, payload: Payload = None, *, type: str = "reply") -> None:  # noqa: A002 - contract
        """Answer a request. Too late, or a second time, the answer is counted and delivered to nobody."""
        self._open()
        if request.correlation_id is None:
            raise InvalidMessageError(field="correlation_id", problem="is missing, so nobody waits for an answer")
        self._check_payload(payload)
        waiting = self._requests.get(request.correlation_id)
        if waiting is None or waiting[1].done():
            self._late_replies += 1
            return
        answer = Message(
            request.recipient,
            request.sender,
            checked_name(type, "type"),
            payload,
            request.priority,
            request.correlation_id,
            None,
            self._number()[1],
        )
        waiting[1].set_result(answer)
        if self._tap is not None:
            self._tell("reply", answer)

    async def dead_letters(self, agent_id: str | None = None) -> list[DeadLetter]:
        """The dead letters, or those meant for one agent; oldest first, the last 10,000."""
        self._open()
        self._bury_expired()
        return [letter for letter in self._dead if agent_id is None or letter.recipient == agent_id]

    async def stats(self) -> BusStats:
        """The counts since the bus was made."""
        self._open()
        self._bury_expired()
        delivered = self._latencies.count
        return BusStats(
            transport=_TRANSPORT,
            sent=self._sent,
            delivered=delivered,
            acknowledged=delivered - self._delivered_by_hand + self._acknowledged_by_hand,
            redelivered=self._redelivered,
            duplicates=self._duplicates,
            rejected=self._rejected,
            dropped=self._dropped,
            expired=self._expired,
            late_replies=self._late_replies,
            dead_letters=self._dead_letters,
            queued={name: inbox.held for name, inbox in self._inboxes.items()},
            messages_per_second=self._rate.per_second(_perf_counter(), self._sent),
            latency_us=self._latencies.summary_us(),
        )

    async def history(self, limit: int = 100) -> list[MessageHeader]:
        """The last messages sent, newest last; with payloads only where the bus was made with `keep_payloads=True`."""
        self._open()
        self._tidy_now()
        # Noted by the clock that latencies are taken with, which is the one that is read anyway.
        return self._history.last(limit, offset=self._wall_clock() - _perf_counter())

    async def close(self) -> None:
        """End everything that waits with `BusClosedError`, now and later; what is queued is gone."""
        self._closed = True
        for inbox in self._inboxes.values():
            if inbox.timer is not None:
                inbox.timer.cancel()
            while (blocked := inbox.next_blocked()) is not None:
                blocked.admitted.set_exception(BusClosedError(transport=_TRANSPORT))
            _fail(inbox.receivers, BusClosedError(transport=_TRANSPORT))
        if self._patience is not None:
            self._patience.cancel()
        _fail([reply for _, reply, _ in self._requests.values()], BusClosedError(transport=_TRANSPORT))
        self._inboxes.clear()
        self._groups.clear()
        self._recent.clear()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _send_plainly(self, message: Message, correlation_id: str | None = None) -> str | None:
        """The short way of what nearly every message is; None when something has to be looked at more closely.

        Written out in full, because at half a million messages a second each call of a function is felt.
        """
        recipient = message.recipient
        inbox = self._inboxes.get(recipient)
        sender = message.sender
        payload = message.payload
        kind = payload.__class__
        if (
            inbox is None
            or not inbox.room & _BREATH
            or message.id
            or message.priority is not _NORMAL
            or message.expires_at is not None
            or message.correlation_id is not None
            or (kind is not dict and kind not in _UNMEASURED)
            or sender not in self._senders
        ):
            return None
        now = _perf_counter()
        sequence, message_id = self._number()
        ready: Message = _new(Message)
        ready.sender = sender
        ready.recipient = recipient
        ready.type = message.type
        ready.payload = payload
        ready.priority = _NORMAL
        ready.correlation_id = correlation_id
        ready.expires_at = None
        ready.id = message_id
        ready.attempt = 1
        entry = (sequence, now, ready)
        inbox.normal.append(entry)
        inbox.room -= 1
        self._sent += 1
        self._note(entry)
        if not self._tidies:
            self._tidy_later()
        receivers = inbox.receivers
        if receivers:
            receiver = receivers.popleft()
            if receiver.done():
                inbox.wake()
            else:
                receiver.set_result(True)
        return message_id

    def _prepared(self, message: Message) -> tuple[Message, bool]:
        """A checked copy with an id, and whether the sender gave the id."""
        self._open()
        checked_message(message)
        if self._tap is None:
            if len(self._senders) >= _REMEMBERED_SENDERS:
                self._senders.clear()
            self._senders.add(message.sender)
        self._check_payload(message.payload)
        given = bool(message.id)
        return message.copy(id=message.id or self._number()[1], attempt=1), given

    def _check_payload(self, payload: Payload) -> None:
        if payload.__class__ not in _UNMEASURED:
            if not isinstance(payload, _CARRIED):
                raise InvalidMessageError(
                    field="payload", problem=f"is a {payload.__class__.__name__}, which no bus carries"
                )
            fits(payload, self._limits.max_payload_bytes)

    async def _send(self, ready: Message, timeout: float, *, given: bool) -> str:
        inbox = self._inboxes.get(ready.recipient)
        if inbox is None:
            self._send_to_group(ready, given=given)
            return ready.id
        entry = (self._number()[0], _perf_counter(), ready)
        if self._deliver(inbox, entry, given=given) is False:
            if inbox.overflow is Overflow.REJECT or timeout <= 0:
                self._rejected += 1
                raise InboxFullError(agent_id=ready.recipient, capacity=inbox.capacity)
            await self._wait_for_room(inbox, entry, timeout, given=given)
        return ready.id

    async def _wait_for_room(self, inbox: Inbox, entry: Entry, timeout: float, *, given: bool) -> None:
        loop = self._running_loop()
        blocked = Blocked(entry, given, loop.create_future())
        inbox.block(blocked)
        patience = loop.call_later(timeout, _end, blocked.admitted, False)
        try:
            admitted = await blocked.admitted
        finally:
            patience.cancel()
            inbox.unblock(blocked)
        if not admitted:
            self._rejected += 1
            raise InboxFullError(agent_id=inbox.agent_id, capacity=inbox.capacity, waited_s=timeout)

    def _send_to_group(self, ready: Message, *, given: bool) -> None:
        members = self._groups.get(ready.recipient)
        if members is None:
            self._bury(ready, ready.recipient, DeadLetterReason.UNKNOWN_AGENT, attempts=0)
            raise UnknownAgentError(agent_id=ready.recipient)
        self._send_to_each([member for member in members if member != ready.sender], ready, given=given)

    def _send_to_each(self, names: list[str], ready: Message, *, given: bool) -> int:
        """How many inboxes took it; one that has no room misses it."""
        entry = (self._number()[0], _perf_counter(), ready)
        if not names:
            self._record(entry)
        took = 0
        noted = False
        priority = ready.priority
        simple = not given and ready.expires_at is None
        for name in names:
            inbox = self._inboxes[name]
            if simple and noted and inbox.room:
                inbox.lanes[priority].append(entry)
                inbox.room -= 1
                self._sent += 1
                if inbox.receivers:
                    inbox.wake()
                took += 1
                continue
            outcome = self._deliver(inbox, entry, given=given, noted=noted)
            if outcome is False:
                self._rejected += 1
                self._bury(ready, name, DeadLetterReason.INBOX_FULL, attempts=0)
            elif outcome:
                took += 1
            noted = noted or outcome is True
        return took

    def _deliver(self, inbox: Inbox, entry: Entry, *, given: bool, noted: bool = False) -> bool | None:
        """Put a message into an inbox. True when it took it, None when it did not have to (a duplicate), False when it is full."""
        message = entry[2]
        if given and inbox.has_seen(message.id):
            self._duplicates += 1
            return None
        if not inbox.room:
            self._bury_expired_of(inbox)
        if not inbox.room:
            if inbox.overflow is not Overflow.DROP_OLDEST:
                return False
            dropped = inbox.drop_for(message.priority)
            self._dropped += 1
            victim = message if dropped is None else dropped[2]
            attempts = 0 if dropped is None else _deliveries(dropped, inbox)
            self._bury(victim, inbox.agent_id, DeadLetterReason.INBOX_FULL, attempts=attempts)
            if dropped is None:
                self._count_sent(inbox, entry, given=given, noted=noted)
                return None
        self._count_sent(inbox, entry, given=given, noted=noted)
        inbox.put(entry)
        return True

    def _count_sent(self, inbox: Inbox, entry: Entry, *, given: bool, noted: bool) -> None:
        self._sent += 1
        if given:
            inbox.remember(entry[2].id)
        if not noted:
            self._record(entry)

    def _record(self, entry: Entry) -> None:
        """Note a message once, however many inboxes it goes to."""
        self._note(entry)
        if not self._tidies:
            self._tidy_later()
        if self._tap is not None:
            self._tell("sent", entry[2])

    def _tidy_later(self) -> None:
        self._tidies = True
        self._running_loop().call_later(_TIDY_S, self._tidy)

    def _tidy(self) -> None:
        """What is done for many messages at a time, because for each it would cost more than sending it."""
        self._tidies = False
        self._tidy_now()
        self._latencies.fold()
        self._rate.mark(_perf_counter(), self._sent)

    def _tidy_now(self) -> None:
        for _, sent_at, message in self._recent:
            self._history.record(message, message.id, sent_at)
        self._recent.clear()

    def _admit(self, inbox: Inbox) -> None:
        """Let blocked senders in, as far as there is room."""
        while inbox.room and (blocked := inbox.next_blocked()) is not None:
            self._deliver(inbox, blocked.entry, given=blocked.given)
            blocked.admitted.set_result(True)

    async def _arrival(self, inbox: Inbox, deadline: float) -> bool:
        """Wait until there may be a message; False at the deadline (the event loop's time)."""
        loop = self._running_loop()
        arrived: Future[bool] = loop.create_future()
        inbox.receivers.append(arrived)
        patience = loop.call_at(deadline, _end, arrived, False)
        woken = False
        try:
            woken = await arrived
        except asyncio.CancelledError:
            self._not_received(inbox, arrived)
            raise
        finally:
            patience.cancel()
        if not woken:
            inbox.receivers.remove(arrived)
        return woken

    def _not_received(self, inbox: Inbox, arrived: Future[bool]) -> None:
        """A receiver gave up: if it was woken before, the message is somebody else's now."""
        if arrived in inbox.receivers:
            inbox.receivers.remove(arrived)
        elif not arrived.cancelled() and (inbox.high or inbox.normal or inbox.low):
            inbox.wake()

    def _take_with_care(self, inbox: Inbox) -> Message | None:
        """The next message of an inbox that has some, when there is more to it than taking; None when all of them had expired."""
        if inbox.next_expiry is not None:
            self._bury_expired_of(inbox)
        lane = inbox.high or inbox.normal or inbox.low
        if not lane:
            return None
        entry = lane.popleft()
        sequence, sent_at, message = entry
        attempt = message.attempt
        if attempt > 1:
            self._redelivered += 1
        else:
            self._time_taken(_perf_counter() - sent_at)
            if not sequence & _FOLD_EVERY:
                self._latencies.fold()
        if self._tap is not None:
            self._tell("delivered" if attempt == 1 else "redelivered", message)
        if not inbox.manual:
            inbox.room += 1
            if inbox.blocked is not None:
                self._admit(inbox)
            return message
        if attempt == 1:
            self._delivered_by_hand += 1
        loop = self._loop or self._running_loop()
        due = loop.time() + self._limits.visibility_s
        inbox.taken[message.id] = (due, entry)
        if inbox.timer is None:
            inbox.timer = loop.call_at(due, self._redeliver, inbox)
        return message

    def _redeliver(self, inbox: Inbox) -> None:
        """Have what was not acknowledged in time wait again, or bury it."""
        loop = self._running_loop()
        inbox.timer = None
        again: list[Entry] = []
        now = self._wall_clock()
        # The loop calls timers up to one tick of its clock early.
        for sequence, sent_at, message in inbox.due(loop.time() + 1e-6):
            if message.attempt >= self._limits.max_attempts:
                reason = DeadLetterReason.ATTEMPTS
            elif message.expires_at is not None and message.expires_at <= now:
                reason = DeadLetterReason.EXPIRED
                self._expired += 1
            else:
                again.append((sequence, sent_at, message.copy(attempt=message.attempt + 1)))
                continue
            inbox.room += 1
            self._bury(message, inbox.agent_id, reason, attempts=message.attempt)
        inbox.put_back(again)
        if inbox.taken:
            due, _ = next(iter(inbox.taken.values()))
            inbox.timer = loop.call_at(due, self._redeliver, inbox)
        if inbox.blocked is not None:
            self._admit(inbox)

    def _end_requests_at(self, deadline: float) -> None:
        if self._patience is not None:
            self._patience.cancel()
        self._patience = self._running_loop().call_at(deadline, self._end_requests)

    def _end_requests(self) -> None:
        """End the requests whose deadline has come. Those that were answered have gone already."""
        self._patience = None
        # The loop calls timers up to one tick of its clock early.
        now = self._running_loop().time() + 1e-6
        deadlines = []
        for _, reply, deadline in self._requests.values():
            if deadline <= now:
                _end(reply, None)
            else:
                deadlines.append(deadline)
        if deadlines:
            self._end_requests_at(min(deadlines))

    def _bury_expired(self) -> None:
        for inbox in self._inboxes.values():
            if inbox.next_expiry is not None:
                self._bury_expired_of(inbox)
                if inbox.blocked is not None:
                    self._admit(inbox)

    def _bury_expired_of(self, inbox: Inbox) -> None:
        if inbox.next_expiry is None:
            return
        for entry in inbox.take_expired(self._wall_clock()):
            self._expired += 1
            self._bury(entry[2], inbox.agent_id, DeadLetterReason.EXPIRED, attempts=_deliveries(entry, inbox))

    def _bury(self, message: Message, recipient: str, reason: DeadLetterReason, *, attempts: int) -> None:
        self._dead_letters += 1
        self._dead.append(DeadLetter(message, recipient, reason, attempts, self._wall_clock()))
        if self._tap is not None:
            self._tell("dead_letter", message)

    def _remove_member(self, agent_id: str, group: str) -> None:
        members = self._groups[group]
        del members[agent_id]
        if not members:
            del self._groups[group]

    def _tell(self, happened: str, message: Message) -> None:
        if self._tap is None:
            return
        try:
            self._tap(happened, message)
        except Exception:
            self._tap = None
            _logger.exception("a tap of the bus raised and is not called again")

    def _inbox(self, agent_id: str) -> Inbox:
        self._open()
        inbox = self._inboxes.get(agent_id)
        if inbox is None:
            raise UnknownAgentError(agent_id=agent_id)
        return inbox

    def _open(self) -> None:
        if self._closed:
            raise BusClosedError(transport=_TRANSPORT)

    def _running_loop(self) -> AbstractEventLoop:
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        return self._loop


_new = object.__new__


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
