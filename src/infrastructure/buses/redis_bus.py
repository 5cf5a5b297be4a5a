"""The bus between processes and machines: Redis Streams with consumer groups, on Redis 7 or later or Valkey."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from asyncio import Future
from collections.abc import Callable, Coroutine, Iterable, Sequence
from itertools import count
from types import TracebackType
from typing import Self
from urllib.parse import quote

from application.ports.message_bus import BusStats, DeadLetter, Message, MessageHeader, Payload, Tap
from domain.errors.bus import (
    BusClosedError,
    BusError,
    BusUnavailableError,
    InboxFullError,
    InvalidMessageError,
    NameTakenError,
    RequestTimeoutError,
    UnknownAgentError,
    UnreadableMessageError,
)
from infrastructure.buses.bus_limits import MAX_DEAD_LETTERS, BusLimits, checked_message, checked_name
from infrastructure.buses.bus_statistics import LatencyHistogram, RateMeter
from infrastructure.buses.message_history import HISTORY_LIMIT, MessageHistory
from infrastructure.buses.payloads import encode_payload
from infrastructure.buses.redis_records import (
    BROADCAST,
    DIRECT,
    REPLY,
    REQUEST,
    Taken,
    dead_letters,
    notes,
    packed_ids,
    queued,
    record_of,
    records,
)
from infrastructure.buses.redis_scripts import CONTROL, SEND, TAKE
from infrastructure.buses.redis_sending import Outbox, Sending
from infrastructure.buses.redis_taking import Desk
from infrastructure.buses.redis_wire import RedisWire, Script

__all__ = ["RedisMessageBus"]

_log = logging.getLogger(__name__)

_TRANSPORT = "redis"
_LEASE_S = 8.0
_BEAT_S = 2.0
_PATIENCE_S = 10.0
_PAGE = 500
_CLOSE_S = 5.0
_SEND, _TAKE, _CONTROL = Script(SEND), Script(TAKE), Script(CONTROL)


class RedisMessageBus:
    """A bus for all processes and machines that use the same Redis and `namespace`.

    Order: HIGH before NORMAL before LOW; within a priority exactly as Redis was handed them, which for one object is exactly as sent:
    each message has the next number of its inbox. Who waits for room holds up only later messages of the same object to that inbox.
    Delivery: `auto` at most once, `manual` at least once (again after `visibility_s` by the server's clock, dead after `max_attempts`). A
    connection that is cut in the middle of a step neither loses nor repeats it: the step is asked for again by its number.
    Durability: what Redis has is as durable as it writes (AOF or not); closing an object, or its death, leaves inboxes as they are.
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
        self._instance = secrets.token_hex(8)
        self._wall_clock = wall_clock
        self._tap = tap
        self._wire = RedisWire(
            url,
            # One hash tag, so that all of it lies on one node of a cluster.
            prefix=f"conclave:bus:{{{quote(checked_name(namespace, 'namespace'), safe='')}}}:",
            instance=self._instance,
            patience_s=patience_s,
        )
        self._outbox = Outbox(self._carry)
        self._desk = Desk(self._fetch, lost=self._put_back, unreadable=self._count_unreadable)
        self._next = count(1).__next__
        self._own: dict[str, tuple[str | int, ...]] = {}
        self._joined: set[tuple[str, str]] = set()
        self._requests: dict[str, tuple[str, Future[Message]]] = {}
        self._born = self._instance
        self._history = MessageHistory(limit=history_limit, keep_payloads=keep_payloads)
        self._latencies = LatencyHistogram()
        self._rate = RateMeter(time.perf_counter())
        self._sent = 0
        self._opening: asyncio.Lock | None = None
        self._control: asyncio.Lock | None = None
        self._heard = asyncio.Event()
        self._is_open = self._closed = False
        self._fetching = self._more_replies = False
        self._ended: asyncio.Event | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def register(
        self, agent_id: str, *, capacity: int | None = None, overflow: str | None = None, acknowledge: str = "auto"
    ) -> None:
        """Open an inbox of that name, or take over the one of a dead or closed object. Raises `NameTakenError`."""
        checked_name(agent_id, "agent_id")
        room, policy, mode = self._limits.inbox(capacity=capacity, overflow=overflow, acknowledge=acknowledge)
        await self._open()
        settings = (room, policy.value, mode.value, int(self._limits.visibility_s * 1e3), self._limits.max_attempts)
        answer = await self._ask("register", agent_id, *settings, 0)
        if answer == b"G":
            raise NameTakenError(name=agent_id, holder="a group")
        if answer == b"N":
            raise self._taken(agent_id)
        self._own[agent_id] = settings

    async def unregister(self, agent_id: str) -> None:
        """Close an inbox; what it holds becomes dead letters. Raises `UnknownAgentError`."""
        await self._open()
        answer = await self._ask("unregister", agent_id)
        if answer == b"O":
            raise self._taken(agent_id)
        self._own.pop(agent_id, None)
        self._joined = {(name, group) for name, group in self._joined if name != agent_id}
        if answer == b"U":
            raise UnknownAgentError(agent_id=agent_id)
        for requester, future in self._requests.values():
            if requester == agent_id and not future.done():
                future.set_exception(UnknownAgentError(agent_id=agent_id))

    async def join(self, agent_id: str, group: str) -> None:
        """Make an agent a member of a group. Raises `UnknownAgentError` and `NameTakenError`."""
        await self._change("join", agent_id, group)
        if agent_id in self._own:
            self._joined.add((agent_id, group))

    async def leave(self, agent_id: str, group: str) -> None:
        """End a membership, if there is one. Raises `UnknownAgentError` and `NameTakenError`."""
        await self._change("leave", agent_id, group)
        self._joined.discard((agent_id, group))

    async def send(self, message: Message, *, timeout: float = 30.0) -> str:
        """Put a message into the inbox of its recipient or of each other member of that group; returns its id."""
        if not self._is_open or self._closed:
            await self._open()
        sending, message_id = self._sending(message, DIRECT)
        await self._outbox.send((sending,), timeout=timeout)
        if sending.answer[:1] == "B":
            await self._count("rejected", 1)
        self._settle(sending, message, message_id, timeout)
        return message_id

    async def send_many(self, messages: Iterable[Message]) -> list[str]:
        """Send each, in order and in as few trips as may be; returns their ids. The first failure is raised after all were tried."""
        await self._open()
        failures: dict[int, BusError] = {}
        prepared: list[tuple[int, Sending, Message, str]] = []
        for at, message in enumerate(messages):
            try:
                prepared.append((at, *self._prepared(message)))
            except BusError as error:
                failures[at] = error
        timeout = 30.0
        await self._outbox.send([sending for _, sending, _, _ in prepared], timeout=timeout)
        if blocked := sum(sending.answer[:1] == "B" for _, sending, _, _ in prepared):
            await self._count("rejected", blocked)
        for at, sending, message, message_id in prepared:
            try:
                self._settle(sending, message, message_id, timeout)
            except BusError as error:
                failures[at] = error
        if failures:
            raise failures[min(failures)]
        return [message_id for _, _, _, message_id in prepared]

    async def broadcast(self, message: Message) -> int:
        """Put a message into every inbox but the sender's; returns how many took it. Never waits."""
        await self._open()
        sending, message_id = self._sending(message, BROADCAST)
        await self._outbox.send((sending,), timeout=0.0)
        if sending.error is not None:
            raise sending.error
        took = int(sending.answer)
        self._note(message, message_id, took)
        return took

    async def receive(self, agent_id: str, *, timeout: float | None = None) -> Message:
        """Take the next message. Raises `ReceiveTimeoutError` and `UnknownAgentError`."""
        return (await self.receive_many(agent_id, 1, timeout=timeout))[0]

    async def receive_many(self, agent_id: str, max_messages: int, *, timeout: float | None = None) -> list[Message]:
        """Wait for one message as `receive` does, then take what else is there, up to `max_messages` in all."""
        if max_messages < 1:
            raise ValueError(f"max_messages is {max_messages!r}: give at least 1.")
        if not self._is_open or self._closed:
            await self._open()
        return self._delivered(await self._desk.receive(agent_id, max_messages, timeout))

    async def acknowledge(self, agent_id: str, *message_ids: str) -> int:
        """Say that these are dealt with; returns how many of them were unacknowledged."""
        await self._open()
        answer = await self._desk.ask("A", agent_id.encode(errors="replace"), packed_ids(message_ids))
        if answer == b"U":
            raise UnknownAgentError(agent_id=agent_id)
        if answer == b"O":
            raise self._taken(agent_id)
        return int(answer)

    async def request(self, message: Message, *, timeout: float = 30.0) -> Message:
        """Send a message and wait for its reply. Raises `RequestTimeoutError` and what `send` does."""
        await self._open()
        message_id = message.id or self._new_id()
        asked = message.copy()
        asked.correlation_id = correlation = message.correlation_id or message_id
        sending, _ = self._sending(asked, REQUEST, message_id)
        if correlation in self._requests:
            raise self._in_flight(correlation)
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout
        reply: Future[Message] = loop.create_future()
        self._requests[correlation] = (message.sender, reply)
        timer = loop.call_at(until, _end, reply)
        try:
            await self._outbox.send((sending,), timeout=timeout)
            if sending.answer[:1] == "B":
                await self._count("rejected", 1)
            self._settle(sending, asked, message_id, timeout)
            answer = await reply
        except TimeoutError as error:
            if isinstance(error, BusError):
                raise
            raise RequestTimeoutError(
                agent_id=message.recipient, correlation_id=correlation, timeout_s=timeout
            ) from None
        finally:
            timer.cancel()
            del self._requests[correlation]
            answered = reply.done() and not reply.cancelled() and reply.exception() is None
            if not answered and not self._closed:
                await self._forget(correlation)
        return answer

    async def reply(self, request: Message, payload: Payload = None, *, type: str = "reply") -> None:  # noqa: A002 - contract
        """Answer a request. Too late, or a second time, the answer is counted and delivered to nobody."""
        await self._open()
        if request.correlation_id is None:
            raise InvalidMessageError(field="correlation_id", problem="is missing, so nobody waits for an answer")
        answer = Message(
            request.recipient,
            request.sender,
            type,
            payload,
            request.priority,
            request.correlation_id,
            id=self._new_id(),
        )
        sending, _ = self._sending(answer, REPLY)
        await self._outbox.send((sending,), timeout=0.0)
        if sending.error is not None:
            raise sending.error
        if sending.answer == "K":
            self._tell("reply", answer)

    async def dead_letters(self, agent_id: str | None = None) -> list[DeadLetter]:
        """The dead letters, or those meant for one agent; oldest first, the last 10,000."""
        await self._open()
        await self._sweep()
        found: list[DeadLetter] = []
        for first in range(0, MAX_DEAD_LETTERS, _PAGE):
            page = await self._ask("dead", first, first + _PAGE - 1)
            if not page:
                break
            found += [letter for letter in dead_letters(page) if agent_id is None or letter.recipient == agent_id]
        return found

    async def stats(self) -> BusStats:
        """The counts of this place since its first message; rate and latencies are those of this object."""
        await self._open()
        await self._sweep()
        totals, _, boxes = (await self._ask("stats")).partition(b"\n")
        words = totals.decode().split()
        counts = {name: max(0, int(number)) for name, number in zip(words[::2], words[1::2], strict=True)}
        counts["dropped"] = counts.get("dropped", 0) + counts.pop("lost", 0)
        return BusStats(
            transport=_TRANSPORT,
            **counts,
            queued=dict(queued(boxes)),
            messages_per_second=self._rate.per_second(time.perf_counter(), self._sent),
            latency_us=self._latencies.summary_us(),
        )

    async def history(self, limit: int = 100) -> list[MessageHeader]:
        """The last messages that this object sent, newest last; with payloads only where it was made with `keep_payloads=True`."""
        await self._open()
        return self._history.last(limit)

    async def close(self) -> None:
        """End everything that waits with `BusClosedError`, now and later; what is queued stays for the next object."""
        if self._closed:
            if self._ended is not None:
                await self._ended.wait()
            return
        self._closed = True
        self._ended = asyncio.Event()
        self._heard.set()
        error = BusClosedError(transport=_TRANSPORT)
        for _, future in self._requests.values():
            if not future.done():
                future.set_exception(error)
        self._outbox.refuse(error)
        self._desk.refuse(error)
        self._wire.hurry()
        try:
            if self._is_open:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_CLOSE_S):
                        await self._outbox.idle()
                        await self._desk.idle()
                        await self._leave()
        finally:
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await self._wire.close()
            self._ended.set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _open(self) -> None:
        if self._closed:
            raise BusClosedError(transport=_TRANSPORT)
        if self._is_open:
            return
        if self._opening is None:
            self._opening, self._control = asyncio.Lock(), asyncio.Lock()
        async with self._opening:
            await self._begin()

    async def _begin(self) -> None:
        if not self._is_open:
            self._born = (await self._beat())[0]
            if not self._tasks:
                self._start(self._wire.listen(self._told, self._catch_up))
            try:
                async with asyncio.timeout(_PATIENCE_S):
                    await self._heard.wait()
            except TimeoutError:
                raise BusUnavailableError(
                    transport=_TRANSPORT,
                    problem="Redis does not let this object subscribe",
                    remedy="Check that it runs, and that the user may subscribe.",
                ) from None
            if self._closed:
                raise BusClosedError(transport=_TRANSPORT)
            self._start(self._live())
            self._is_open = True

    def _start(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _live(self) -> None:
        """Say again and again that this object lives, and notice a Redis that forgot it or does not reach it."""
        while True:
            await asyncio.sleep(_BEAT_S)
            try:
                born, heard = await self._beat()
                if born != self._born:
                    await self._restore()
                    self._born = born
                    await self._catch_up()
                if heard == "0":
                    await self._catch_up()
                # Room that expired messages give up is told by nobody.
                self._outbox.retry_all()
            except BusUnavailableError as error:
                _log.warning("%s", error)

    async def _beat(self) -> tuple[str, str]:
        born, _, heard = (await self._ask("beat", int(_LEASE_S * 1e3), secrets.token_hex(8))).decode().partition(" ")
        return born, heard

    async def _restore(self) -> None:
        for agent_id in list(self._own):
            await self._put_back(agent_id)

    async def _put_back(self, agent_id: str) -> bool:
        """Register an agent of this object again that the server does not know; False for one that is not ours (any more)."""
        settings = self._own.get(agent_id)
        if settings is None:
            return False
        _log.warning("the bus' Redis has lost the inbox of %r, which is put back", agent_id)
        if await self._ask("register", agent_id, *settings, 1) != b"K":
            self._own.pop(agent_id, None)
            return False
        for name, group in list(self._joined):
            if name == agent_id:
                await self._ask("join", name, group)
        return True

    async def _catch_up(self) -> None:
        """Notes may have been missed."""
        self._heard.set()
        self._desk.ask_all()
        self._outbox.retry_all()
        if self._requests:
            self._reply_came()

    def _told(self, data: bytes) -> None:
        for kind, name in notes(data):
            if kind == "w":
                self._desk.has_some(name)
            elif kind == "b":
                self._outbox.has_room(name)
            else:
                self._reply_came()

    def _reply_came(self) -> None:
        self._more_replies = True
        if not self._fetching:
            self._fetching = True
            self._start(self._fetch_replies())

    async def _fetch_replies(self) -> None:
        late = 0
        try:
            while self._more_replies:
                self._more_replies = False
                while answers := list(records(await self._desk.ask("P"))):
                    for answer in answers:
                        waiting = self._requests.get(answer.correlation_id or "")
                        if waiting is None or waiting[1].done():
                            late += 1
                        else:
                            waiting[1].set_result(answer)
        except BusClosedError:
            return
        except BusError as error:
            _log.warning("replies could not be fetched: %s", error)
        finally:
            self._fetching = False
        if late:
            await self._count("late_replies", late)

    async def _forget(self, correlation: str) -> None:
        try:
            await self._ask("forget", correlation)
        except BusError as error:
            _log.warning("a request could not be withdrawn: %s", error)

    async def _leave(self) -> None:
        try:
            await self._ask("bye")
        except BusError as error:
            _log.info("the bus was closed without its Redis: %s", error)

    async def _change(self, what: str, agent_id: str, group: str) -> None:
        checked_name(group, "group")
        await self._open()
        answer = await self._ask(what, agent_id, group)
        if answer == b"U":
            raise UnknownAgentError(agent_id=agent_id)
        if answer == b"O":
            raise self._taken(agent_id)
        if answer == b"N":
            raise NameTakenError(name=group, holder="an agent of this bus")

    async def _sweep(self) -> None:
        while await self._ask("sweep") == b"1":
            continue

    async def _carry(self, blob: bytes) -> bytes:
        return await self._wire.run(_SEND, "s", (blob,), self._now())

    async def _fetch(self, words: list[bytes | str | int]) -> bytes:
        return await self._wire.run(_TAKE, "t", words, self._now())

    async def _ask(self, *words: str | int) -> bytes:
        if self._control is None:
            raise BusClosedError(transport=_TRANSPORT)
        async with self._control:
            return await self._wire.run(_CONTROL, "c", words, self._now())

    def _now(self) -> str:
        return "" if self._wall_clock is None else str(int(self._wall_clock() * 1e3))

    def _new_id(self) -> str:
        return f"{self._instance}-{self._next()}"

    def _prepared(self, message: Message) -> tuple[Sending, Message, str]:
        sending, message_id = self._sending(message, DIRECT)
        return sending, message, message_id

    def _sending(self, message: Message, kind: int, message_id: str = "") -> tuple[Sending, str]:
        """The message ready to go, and its id. Raises `InvalidMessageError` and `PayloadTooLargeError`."""
        checked_message(message)
        payload = encode_payload(message.payload, limit=self._limits.max_payload_bytes)
        message_id = message.id or message_id or self._new_id()
        record = record_of(message, message_id, payload, kind=kind, sent_at=time.time())
        return Sending(self._outbox, message.recipient, record, direct=kind in (DIRECT, REQUEST)), message_id

    def _settle(self, sending: Sending, message: Message, message_id: str, waited_s: float) -> None:
        """Raise what became of a message, unless it was sent."""
        if sending.error is not None:
            raise sending.error
        code = sending.answer
        if code in ("K", "d"):
            self._note(message, message_id, 1)
        elif code == "U":
            raise UnknownAgentError(agent_id=message.recipient)
        elif code == "S":
            raise UnknownAgentError(agent_id=message.sender)
        elif code == "C":
            raise self._in_flight(message.correlation_id or "")
        elif code[0] in "BR":
            waited_s = waited_s if code[0] == "B" else 0.0
            raise InboxFullError(agent_id=message.recipient, capacity=sending.capacity, waited_s=waited_s)
        elif code == "X":
            raise BusUnavailableError(
                transport=_TRANSPORT,
                problem=f"the inbox of {message.recipient!r} lies where Redis holds something of others",
                remedy="Delete that key, or use another namespace.",
            )

    def _taken(self, agent_id: str) -> NameTakenError:
        return NameTakenError(name=agent_id, holder="an agent whose owner lives")

    def _in_flight(self, correlation: str) -> InvalidMessageError:
        return InvalidMessageError(field="correlation_id", problem=f"is {correlation!r}, which is in flight")

    def _note(self, message: Message, message_id: str, inboxes: int) -> None:
        self._sent += inboxes
        self._history.record(message, message_id, time.time())
        now = time.perf_counter()
        if now >= self._rate.next_mark:
            self._rate.mark(now, self._sent)
        if self._tap is not None:
            self._tell("sent", message.copy(id=message_id))

    def _delivered(self, found: Sequence[Taken]) -> list[Message]:
        now = time.time()
        self._latencies.record_many([max(0.0, now - one.sent_at) for one in found if one.message.attempt == 1])
        messages = [one.message for one in found]
        if self._tap is not None:
            for message in messages:
                self._tell("delivered" if message.attempt == 1 else "redelivered", message)
        return messages

    def _count_unreadable(self, agent_id: str, unreadable: list[UnreadableMessageError]) -> None:
        _log.warning("%d messages of %r could not be read: %s", len(unreadable), agent_id, unreadable[0])
        self._start(self._count("corrupt", len(unreadable)))

    async def _count(self, what: str, number: int) -> None:
        try:
            await self._ask("count", what, number)
        except BusError as error:
            _log.warning("%d of %s could not be counted: %s", number, what, error)

    def _tell(self, happened: str, message: Message) -> None:
        if self._tap is None:
            return
        try:
            self._tap(happened, message)
        except Exception:  # noqa: BLE001 - it is somebody else's code
            self._tap = None
            _log.exception("a tap of the bus raised and is not called again")


def _end(reply: Future[Message]) -> None:
    if not reply.done():
        reply.set_exception(TimeoutError())
