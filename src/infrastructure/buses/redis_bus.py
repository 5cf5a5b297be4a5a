"""The bus between processes and machines: Redis Streams with consumer groups, on Redis 7 or later or Valkey."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Self
from urllib.parse import quote

from application.ports.message_bus import BusStats, DeadLetter, Message, MessageHeader, Payload, Tap
from domain.errors.bus import (
    BusClosedError,
    BusError,
    InvalidMessageError,
    NameTakenError,
    UnknownAgentError,
    UnreadableMessageError,
)
from infrastructure.buses.bus_limits import (
    MAX_DEAD_LETTERS,
    PATIENCE_S,
    BusLimits,
    checked_name,
    checked_number,
    checked_timeout,
)
from infrastructure.buses.message_history import HISTORY_LIMIT, MessageHistory
from infrastructure.buses.redis_control import RedisControl
from infrastructure.buses.redis_observed import Observed
from infrastructure.buses.redis_parcels import Packer, Parcel
from infrastructure.buses.redis_presence import RedisPresence
from infrastructure.buses.redis_receipts import Receipts
from infrastructure.buses.redis_records import BROADCAST, DIRECT, REPLY, REQUEST, Piece, dead_letters, queued
from infrastructure.buses.redis_requests import RedisRequests
from infrastructure.buses.redis_sending import Outbox, Sending, failure_of
from infrastructure.buses.redis_taking import Desk
from infrastructure.buses.redis_wire import RedisWire

__all__ = ["RedisMessageBus"]

_log = logging.getLogger(__name__)

_TRANSPORT = "redis"
_PATIENCE_S = 10.0
_PAGE = 500
_CLOSE_S = 5.0


class RedisMessageBus:
    """A bus for all processes and machines that use the same Redis and `namespace`.

    Order: HIGH before NORMAL before LOW; within a priority exactly as Redis was handed them, which for one object is exactly as sent:
    each message has the next number of its inbox. Who waits for room holds up only later messages of the same object to that inbox.
    Delivery: `auto` at most once, `manual` at least once (again after `visibility_s` by the server's clock, dead after `max_attempts`). A
    connection that is cut in the middle of a step neither loses nor repeats it: the step is asked for again by its number.
    Durability: what Redis has is as durable as it writes (AOF or not); closing an object, or its death, leaves inboxes as they are.
    What is left where there is no inbox (counts) is forgotten an hour after the last object, dead letters a week after it.
    Loss on crash: of a process what it had taken in `auto`; of Redis what it had not yet written, which is counted in `dropped` where
    inboxes still know of it; names, groups and settings of living objects are put back by themselves.
    Bounds: each inbox by its `capacity`, 10,000 dead letters, 100,000 to 200,000 given ids an inbox, and the server's `maxmemory`: a full
    one refuses to send (`BusUnavailableError`, nothing of the trip is stored) and still hands out.
    Nobody but its owner takes, acknowledges, joins or leaves for an agent while the owner lives (`NameTakenError`); senders are not proven.
    A name is free 8 s after its owner died. Counts, `queued` and dead letters are those of the whole bus; latencies (by the clocks of
    sender's and receiver's machine), `messages_per_second` and `history` those of this object. Not thread-safe.
    """

    def __init__(
        self,
        url: str,
        namespace: str = "conclave",
        *,
        capacity: int = 10_000,
        overflow: str = "block",
        visibility_s: float = 30.0,
        max_attempts: int = 5,
        max_payload_bytes: int = 1_048_576,
        keep_payloads: bool = False,
        history_limit: int = HISTORY_LIMIT,
        tap: Tap | None = None,
        wall_clock: Callable[[], float] | None = None,
        patience_s: float = _PATIENCE_S,
    ) -> None:
        """Connects with the first call. Raises `ConfigurationError` for an address that cannot be used.

        Without a `wall_clock` (Unix seconds) the server's decides what is due or has expired, the same for all. A Redis that is away
        is tried again for `patience_s` before `BusUnavailableError`.
        """
        self._limits = BusLimits.checked(
            capacity=capacity,
            overflow=overflow,
            visibility_s=visibility_s,
            max_attempts=max_attempts,
            max_payload_bytes=max_payload_bytes,
        )
        instance = secrets.token_hex(8)
        self._wire = RedisWire(
            url,
            # One hash tag, so that all of it lies on one node of a cluster.
            prefix=f"conclave:bus:{{{quote(checked_name(namespace, 'namespace'), safe='')}}}:",
            instance=instance,
            patience_s=patience_s,
        )
        self._control = RedisControl(self._wire, wall_clock)
        self._packer = Packer(instance=instance, limit=self._limits.max_payload_bytes)
        self._outbox = Outbox(self._control.send)
        self._presence = RedisPresence(
            self._wire, self._control, told=self._told, missed=self._catch_up, looked=self._outbox.retry_all
        )
        self._desk = Desk(self._control.take, lost=self._presence.put_back, unreadable=self._count_unreadable)
        self._requests = RedisRequests(self._control, fetch=lambda: self._desk.ask("P"), start=self._presence.start)
        self._receipts = Receipts()
        self._observed = Observed(MessageHistory(limit=history_limit, keep_payloads=keep_payloads), tap)
        self._closed = False
        self._ended = asyncio.Event()

    async def register(
        self, agent_id: str, *, capacity: int | None = None, overflow: str | None = None, acknowledge: str = "auto"
    ) -> None:
        """Open an inbox of that name, or take over the one of a dead or closed object. Raises `NameTakenError`."""
        checked_name(agent_id, "agent_id")
        room, policy, mode = self._limits.inbox(capacity=capacity, overflow=overflow, acknowledge=acknowledge)
        await self._presence.open()
        settings = (room, policy.value, mode.value, int(self._limits.visibility_s * 1e3), self._limits.max_attempts)
        answer = await self._control.ask("register", agent_id, *settings, 0)
        if answer == b"G":
            raise NameTakenError(name=agent_id, holder="a group")
        if answer == b"N":
            raise _taken(agent_id)
        self._presence.own[agent_id] = settings

    async def unregister(self, agent_id: str) -> None:
        """Close an inbox; what it holds becomes dead letters. Raises `UnknownAgentError`."""
        await self._presence.open()
        answer = await self._control.ask("unregister", agent_id)
        if answer == b"O":
            raise _taken(agent_id)
        self._presence.own.pop(agent_id, None)
        self._presence.joined = {(name, group) for name, group in self._presence.joined if name != agent_id}
        if answer == b"U":
            raise UnknownAgentError(agent_id=agent_id)
        self._requests.forget(agent_id)

    async def join(self, agent_id: str, group: str) -> None:
        """Make an agent a member of a group. Raises `UnknownAgentError` and `NameTakenError`."""
        await self._change("join", agent_id, group)
        if agent_id in self._presence.own:
            self._presence.joined.add((agent_id, group))

    async def leave(self, agent_id: str, group: str) -> None:
        """End a membership, if there is one. Raises `UnknownAgentError` and `NameTakenError`."""
        await self._change("leave", agent_id, group)
        self._presence.joined.discard((agent_id, group))

    async def send(self, message: Message, *, timeout: float = PATIENCE_S) -> str:
        """Put a message into the inbox of its recipient or of each other member of that group; returns its id."""
        checked_timeout(timeout)
        if not self._presence.is_open or self._closed:
            await self._presence.open()
        message_id = message.id or self._packer.new_id()
        sending = Sending(self._outbox, self._packer.single(message, DIRECT, message_id), direct=True)
        await self._outbox.send((sending,), timeout=timeout)
        if sending.answer[:1] == "B":
            await self._control.count("rejected", 1)
        self._settle(sending, [message], [message_id], timeout)
        return message_id

    async def send_many(self, messages: Iterable[Message]) -> list[str]:
        """Send each, in order and in as few trips as may be; returns their ids. The first failure is raised after all were tried."""
        await self._presence.open()
        failure: BusError | None = None
        on_the_way: list[tuple[Sending | BusError, list[Message], list[str]]] = [
            (Sending(self._outbox, parcel, direct=True) if isinstance(parcel, Parcel) else parcel, some, ids)
            for parcel, some, ids in self._packer.runs(messages)
        ]
        sendings = [(sending, some) for sending, some, _ in on_the_way if isinstance(sending, Sending)]
        await self._outbox.send([sending for sending, _ in sendings], timeout=PATIENCE_S)
        if blocked := sum(len(some) - sending.sent for sending, some in sendings if sending.answer[:1] == "B"):
            await self._control.count("rejected", blocked)
        for sending, some, ids in on_the_way:
            try:
                if isinstance(sending, BusError):
                    raise sending
                self._settle(sending, some, ids, PATIENCE_S)
            except BusError as error:
                failure = failure or error
        if failure is not None:
            raise failure
        return [message_id for _, _, ids in on_the_way for message_id in ids]

    async def broadcast(self, message: Message) -> int:
        """Put a message into every inbox but the sender's; returns how many took it. Never waits."""
        await self._presence.open()
        message_id = message.id or self._packer.new_id()
        sending = Sending(self._outbox, self._packer.single(message, BROADCAST, message_id), direct=False)
        await self._outbox.send((sending,), timeout=0.0)
        if sending.error is not None:
            raise sending.error
        took = int(sending.answer)
        self._observed.sent([message], [message_id], inboxes=took)
        return took

    async def receive(self, agent_id: str, *, timeout: float | None = None) -> Message:
        """Take the next message. Raises `ReceiveTimeoutError` and `UnknownAgentError`."""
        return (await self.receive_many(agent_id, 1, timeout=timeout))[0]

    async def receive_many(self, agent_id: str, max_messages: int, *, timeout: float | None = None) -> list[Message]:
        """Wait for one message as `receive` does, then take what else is there, up to `max_messages` in all."""
        checked_number(max_messages, "max_messages")
        checked_timeout(timeout)
        if not self._presence.is_open or self._closed:
            await self._presence.open()
        return self._delivered(agent_id, await self._desk.receive(agent_id, max_messages, timeout))

    async def acknowledge(self, agent_id: str, *message_ids: str) -> int:
        """Say that these are dealt with; returns how many of them were unacknowledged."""
        await self._presence.open()
        packed = self._receipts.packed(agent_id, message_ids)
        answer = await self._desk.ask("A", agent_id.encode(errors="replace"), packed)
        if answer == b"U":
            raise UnknownAgentError(agent_id=agent_id)
        if answer == b"O":
            raise _taken(agent_id)
        return int(answer)

    async def request(self, message: Message, *, timeout: float = PATIENCE_S) -> Message:
        """Send a message and wait for its reply. Raises `RequestTimeoutError` and what `send` does."""
        checked_timeout(timeout)
        await self._presence.open()
        message_id = message.id or self._packer.new_id()
        asked = message.copy()
        asked.correlation_id = correlation = message.correlation_id or message_id
        sending = Sending(self._outbox, self._packer.single(asked, REQUEST, message_id), direct=True)

        async def send() -> None:
            await self._outbox.send((sending,), timeout=timeout)
            if sending.answer[:1] == "B":
                await self._control.count("rejected", 1)
            self._settle(sending, [asked], [message_id], timeout)

        return await self._requests.ask(message, correlation, send, timeout)

    async def reply(self, request: Message, payload: Payload = None, *, type: str = "reply") -> None:  # noqa: A002 - contract
        """Answer a request. Too late, or a second time, the answer is counted and delivered to nobody."""
        await self._presence.open()
        if request.correlation_id is None:
            raise InvalidMessageError(field="correlation_id", problem="is missing, so nobody waits for an answer")
        answer = Message(
            request.recipient,
            request.sender,
            type,
            payload,
            request.priority,
            request.correlation_id,
            id=self._packer.new_id(),
        )
        sending = Sending(self._outbox, self._packer.single(answer, REPLY, answer.id), direct=False)
        await self._outbox.send((sending,), timeout=0.0)
        if sending.error is not None:
            raise sending.error
        if sending.answer == "K":
            self._observed.tell("reply", answer)

    async def dead_letters(self, agent_id: str | None = None) -> list[DeadLetter]:
        """The dead letters, or those meant for one agent; oldest first, the last 10,000."""
        await self._presence.open()
        await self._control.sweep()
        found: list[DeadLetter] = []
        for first in range(0, MAX_DEAD_LETTERS, _PAGE):
            page = await self._control.look("dead", first, first + _PAGE - 1)
            if not page:
                break
            found += [letter for letter in dead_letters(page) if agent_id is None or letter.recipient == agent_id]
        return found

    async def stats(self) -> BusStats:
        """The counts of this place since its first message; rate and latencies are those of this object."""
        await self._presence.open()
        await self._control.sweep()
        totals, _, boxes = (await self._control.look("stats")).partition(b"\n")
        words = totals.decode().split()
        counts = {name: max(0, int(number)) for name, number in zip(words[::2], words[1::2], strict=True)}
        counts["dropped"] = counts.get("dropped", 0) + counts.pop("lost", 0)
        return BusStats(
            transport=_TRANSPORT,
            **counts,
            queued=dict(queued(boxes)),
            messages_per_second=self._observed.per_second(),
            latency_us=self._observed.latencies.summary_us(),
            latency_histogram=self._observed.latencies.cumulative(),
            latency_sum_s=self._observed.latencies.total_s,
        )

    async def history(self, limit: int = 100) -> list[MessageHeader]:
        """The last messages that this object sent, newest last; with payloads only where it was made with `keep_payloads=True`."""
        await self._presence.open()
        return self._observed.history.last(limit)

    async def close(self) -> None:
        """End everything that waits with `BusClosedError`, now and later; what is queued stays for the next object."""
        if self._closed:
            await self._ended.wait()
            return
        self._closed = True
        self._presence.refuse()
        error = BusClosedError(transport=_TRANSPORT)
        self._requests.refuse(error)
        self._outbox.refuse(error)
        self._desk.refuse(error)
        self._wire.hurry()
        try:
            if self._presence.is_open:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_CLOSE_S):
                        await self._outbox.idle()
                        await self._desk.idle()
                        await self._presence.leave()
        finally:
            await self._presence.end()
            await self._wire.close()
            await self._control.idle()
            self._ended.set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _change(self, what: str, agent_id: str, group: str) -> None:
        checked_name(group, "group")
        await self._presence.open()
        answer = await self._control.ask(what, agent_id, group)
        if answer == b"U":
            raise UnknownAgentError(agent_id=agent_id)
        if answer == b"O":
            raise _taken(agent_id)
        if answer == b"N":
            raise NameTakenError(name=group, holder="an agent of this bus")

    def _told(self, kind: str, name: str) -> None:
        if kind == "w":
            self._desk.has_some(name)
        elif kind == "b":
            self._outbox.has_room(name)
        else:
            self._requests.look()

    def _catch_up(self) -> None:
        self._desk.ask_all()
        self._outbox.retry_all()
        self._requests.look_again()

    def _settle(self, sending: Sending, messages: list[Message], ids: list[str], waited_s: float) -> None:
        """Note what was sent of a parcel, and raise what became of the rest."""
        if sending.answer == "D":
            return
        left = messages[sending.sent :]
        failure = failure_of(sending, left[0], waited_s)
        number = len(messages) if failure is None else sending.sent
        self._observed.sent(messages[:number], ids[:number], inboxes=number)
        if failure is not None:
            raise failure

    def _delivered(self, agent_id: str, found: Sequence[Piece]) -> list[Message]:
        settings = self._presence.own.get(agent_id)
        if settings is not None and settings[2] == "manual":
            self._receipts.note(agent_id, found)
        return self._observed.delivered(found)

    def _count_unreadable(self, agent_id: str, unreadable: list[UnreadableMessageError]) -> None:
        _log.warning("%d messages of %r could not be read: %s", len(unreadable), agent_id, unreadable[0])
        self._presence.start(self._control.count("corrupt", len(unreadable)))


def _taken(agent_id: str) -> NameTakenError:
    return NameTakenError(name=agent_id, holder="an agent whose owner lives")
