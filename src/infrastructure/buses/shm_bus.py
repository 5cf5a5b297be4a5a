"""The bus between processes of one machine: messages lie in shared memory, and no server moves them."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import time
from asyncio import AbstractEventLoop, Future
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from application.ports.message_bus import Tap
from domain.errors.bus import (
    BusClosedError,
    BusError,
    BusUnavailableError,
    InboxFullError,
    InvalidMessageError,
    ReceiveTimeoutError,
    RequestTimeoutError,
    UnknownAgentError,
)
from domain.models.message import (
    Acknowledgement,
    BusStats,
    DeadLetter,
    Message,
    MessageHeader,
    Overflow,
    Payload,
)
from infrastructure.buses.bus_limits import BusLimits, checked_name
from infrastructure.buses.message_history import HISTORY_LIMIT
from infrastructure.buses.shm_batches import LARGEST_RUN, Run, unpack
from infrastructure.buses.shm_lanes import Taken
from infrastructure.buses.shm_layout import Dead, Head, Inbox
from infrastructure.buses.shm_packer import Packer
from infrastructure.buses.shm_post import BLOCK, DROP_OLDEST, REJECT, Post

__all__ = ["SharedMemoryMessageBus"]

_logger = logging.getLogger(__name__)

_TRANSPORT = "shm"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - the place is the point
_POLICIES = {Overflow.BLOCK: BLOCK, Overflow.REJECT: REJECT, Overflow.DROP_OLDEST: DROP_OLDEST}
_PARTLY_READ = 32
_KNOWN_FLIGHTS = 100_000


@dataclass(slots=True, eq=False)
class _Blocked:
    """A sender of this object that waits for room in an inbox."""

    lane: int
    woken: Future[bool]


class SharedMemoryMessageBus:
    """A bus for processes of one machine and one user; objects of one name and folder are one bus, wherever they run.

    Order: HIGH before NORMAL before LOW; within a priority exactly as put into the inbox, so also per sender and recipient.
    Delivery: at most once (`auto`) or at least once (`manual`: again after `visibility_s`, dead after `max_attempts`).
    Durability: as long as one object is open, and past a crash of all of them until the next object opens; nothing past a reboot, nor
    past the `close` of the last object, which removes the segment. A closed or killed owner's inbox stays for who registers the name next.
    Loss on crash: a SIGKILL at any instant leaves a step whole or undone, and no lock behind. What a killed process had taken is lost in
    `auto` and comes back in `manual`; a `send` or `broadcast` that did not return may have reached some inboxes, in order.
    Bounds: every inbox by its `capacity`, all together by `segment_bytes` of the first object; then the oldest dead letters go early, and
    `BusUnavailableError` is raised after that. 1,023 objects at a time. Memory once used is used again, and given back by the last `close`.
    Counts of `stats` are those of the whole bus; a `tap` sees what its own object does. Linux only (robust mutexes), in one pid namespace.
    Not thread-safe: every call comes from the one event loop.
    """

    def __init__(
        self,
        name: str,
        *,
        capacity: int = 10_000,
        overflow: str = "block",
        visibility_s: float = 30.0,
        max_attempts: int = 5,
        max_payload_bytes: int = 1_048_576,
        keep_payloads: bool = False,
        history_limit: int = HISTORY_LIMIT,
        tap: Tap | None = None,
        wall_clock: Callable[[], float] = time.time,
        folder: Path = _SHARED_MEMORY,
        segment_bytes: int = 1 << 30,
    ) -> None:
        """`name` has letters, digits, `.`, `_` and `-`; the segment lies in `folder` and grows as needed up to `segment_bytes`."""
        if not _NAME.fullmatch(name):
            raise ValueError(
                f"name is {name!r}: give up to 100 letters, digits, '.', '_' or '-', the first a letter or a digit."
            )
        self._limits = BusLimits.checked(
            capacity=capacity,
            overflow=overflow,
            visibility_s=visibility_s,
            max_attempts=max_attempts,
            max_payload_bytes=max_payload_bytes,
        )
        self._folder = folder / f"conclave-{os.geteuid()}-{name}"
        self._segment_bytes = segment_bytes
        self._keep_payloads = keep_payloads
        self._history_limit = history_limit
        self._tap = tap
        self._wall_clock = wall_clock
        self._post: Post | None = None
        self._pid = 0
        self._loop: AbstractEventLoop | None = None
        self._closed = False
        self._packer = Packer(limit=max_payload_bytes, wall_clock=wall_clock)
        self._receivers: dict[int, list[Future[bool]]] = {}
        self._lines: dict[int, list[_Blocked]] = {}
        self._requests: dict[str, tuple[str, Future[Message | None]]] = {}
        self._flights: dict[tuple[int, str], tuple[int, int]] = {}
        self._partly_read: dict[int, list[Message]] = {}

    async def register(
        self, agent_id: str, *, capacity: int | None = None, overflow: str | None = None, acknowledge: str = "auto"
    ) -> None:
        """Open an inbox of that name, or take over that of a dead or closed owner. Raises `NameTakenError`."""
        post = self._opened()
        checked_name(agent_id, "agent_id")
        room, policy, mode = self._limits.inbox(capacity=capacity, overflow=overflow, acknowledge=acknowledge)
        with post.segment:
            post.members.register(
                agent_id,
                capacity=room,
                overflow=_POLICIES[policy],
                manual=mode is Acknowledgement.MANUAL,
                visibility_ns=min(int(self._limits.visibility_s * 1e9), 1 << 62),
                max_attempts=self._limits.max_attempts,
            )

    async def unregister(self, agent_id: str) -> None:
        """Close an inbox; what it holds becomes dead letters. Raises `UnknownAgentError`."""
        post = self._opened()
        with post.segment:
            post.own(agent_id)
            post.members.unregister(agent_id, wall=post.wall_us())
        for requester, reply in self._requests.values():
            if requester == agent_id and not reply.done():
                reply.set_exception(UnknownAgentError(agent_id=agent_id))

    async def join(self, agent_id: str, group: str) -> None:
        """Make an agent a member of a group. Raises `UnknownAgentError` and `NameTakenError`."""
        post = self._opened()
        checked_name(group, "group")
        with post.segment:
            post.own(agent_id)
            post.members.join(agent_id, group)

    async def leave(self, agent_id: str, group: str) -> None:
        """End a membership, if there is one. Raises `UnknownAgentError` and `NameTakenError`."""
        post = self._opened()
        with post.segment:
            post.own(agent_id)
            post.members.leave(agent_id, group)

    async def send(self, message: Message, *, timeout: float = 30.0) -> str:
        """Put a message into the inbox of its recipient or of each other member of that group; returns its id."""
        self._opened()
        run = self._packer.run([message])
        await self._deliver(run, timeout)
        return run.ids[0]

    async def send_many(self, messages: Iterable[Message]) -> list[str]:
        """Send each, in order, in one step for each run to one recipient; returns their ids.

        The first failure is raised after the others were tried.
        """
        self._opened()
        wanted = list(messages)
        ids: list[str] = []
        failure: BusError | None = None
        for start in range(0, len(wanted), LARGEST_RUN):
            for run in self._packer.runs(wanted[start : start + LARGEST_RUN]):
                if isinstance(run, BusError):
                    failure = failure or run
                    continue
                try:
                    await self._deliver(run, 30.0)
                except BusClosedError:
                    raise
                except BusError as error:
                    failure = failure or error
                ids += run.ids
        if failure is not None:
            raise failure
        return ids

    async def broadcast(self, message: Message) -> int:
        """Put a message into every inbox but the sender's; returns how many took it. Never waits."""
        post = self._opened()
        run = self._packer.run([message])
        with post.segment:
            own = post.members.inbox(message.sender)
            took = post.spread([inbox for inbox in reversed(post.members.inboxes()) if inbox != own], run)
            post.note(run)
        self._tell_all("sent", run)
        return took

    async def receive(self, agent_id: str, *, timeout: float | None = None) -> Message:
        """Take the next message. Raises `ReceiveTimeoutError` and `UnknownAgentError`."""
        return (await self.receive_many(agent_id, 1, timeout=timeout))[0]

    async def receive_many(self, agent_id: str, max_messages: int, *, timeout: float | None = None) -> list[Message]:
        """Wait for one message as `receive` does, then take what else is there, up to `max_messages` in all."""
        if max_messages < 1:
            raise ValueError(f"max_messages is {max_messages!r}: give at least 1.")
        serial = 0
        deadline: float | None = None
        while True:
            post = self._opened()
            with post.segment:
                inbox = post.own(agent_id, serial)
                taken = post.take(inbox, max_messages)
                if not taken:
                    serial = post.segment.words[inbox]
                    post.slots.wait(post.receivers(inbox))
                    due = post.next_due_s(inbox)
            if taken:
                return self._read(inbox, taken)
            now = self._running_loop().time()
            if deadline is None and timeout is not None:
                deadline = now + timeout
            if deadline is not None and now >= deadline:
                raise ReceiveTimeoutError(agent_id=agent_id, timeout_s=timeout or 0.0)
            until = deadline if due is None else now + due if deadline is None else min(deadline, now + due)
            await self._arrival(inbox, until)

    async def acknowledge(self, agent_id: str, *message_ids: str) -> int:
        """Say that these are dealt with; returns how many of them were unacknowledged."""
        post = self._opened()
        with post.segment:
            return post.acknowledge(post.own(agent_id), message_ids, self._flights)

    async def request(self, message: Message, *, timeout: float = 30.0) -> Message:
        """Send a message and wait for its reply. Raises `RequestTimeoutError` and what `send` does."""
        post = self._opened()
        loop = self._running_loop()
        if message.correlation_id is None:
            message = message.copy(id=message.id or self._packer.new_id())
            message.correlation_id = message.id
        run = self._packer.run([message])
        correlation_id = checked_name(message.correlation_id, "correlation_id")
        with post.segment:
            post.members.existing(message.sender)
            fresh = post.expect(correlation_id)
        if not fresh:
            raise InvalidMessageError(field="correlation_id", problem=f"is {correlation_id!r}, which is in flight")
        reply: Future[Message | None] = loop.create_future()
        self._requests[correlation_id] = (message.sender, reply)
        patience = loop.call_later(timeout, _end, reply, None)
        try:
            await self._deliver(run, timeout)
            answer = await reply
        finally:
            patience.cancel()
            if not self._closed:
                with post.segment:
                    post.give_up(correlation_id)
                self._collect_replies()
            del self._requests[correlation_id]
            if reply.done() and not reply.cancelled():
                reply.exception()
        if answer is None:
            raise RequestTimeoutError(agent_id=message.recipient, correlation_id=correlation_id, timeout_s=timeout)
        return answer

    async def reply(self, request: Message, payload: Payload = None, *, type: str = "reply") -> None:  # noqa: A002 - contract
        """Answer a request. Too late, or a second time, the answer is counted and delivered to nobody."""
        post = self._opened()
        if request.correlation_id is None:
            raise InvalidMessageError(field="correlation_id", problem="is missing, so nobody waits for an answer")
        run = self._packer.run(
            [Message(request.recipient, request.sender, type, payload, request.priority, request.correlation_id, None)]
        )
        with post.segment:
            reached = post.answer(request.correlation_id, run)
        if reached:
            self._tell_all("reply", run)

    async def dead_letters(self, agent_id: str | None = None) -> list[DeadLetter]:
        """The dead letters, or those meant for one agent; oldest first, the last 10,000."""
        post = self._opened()
        with post.segment:
            letters = post.dead_letters(agent_id)
        return letters()

    async def stats(self) -> BusStats:
        """The counts of all objects since the segment was created."""
        post = self._opened()
        with post.segment:
            return post.stats(_TRANSPORT)

    async def history(self, limit: int = 100) -> list[MessageHeader]:
        """The last messages sent by anybody, newest last; with payloads only from objects made with `keep_payloads=True`."""
        post = self._opened()
        with post.segment:
            return post.last(min(limit, self._history_limit))

    async def close(self) -> None:
        """End everything that waits with `BusClosedError`, now and later; the last living object removes the segment."""
        self._closed = True
        for waiting in self._receivers.values():
            for each in waiting:
                _end(each, True)
        for line in self._lines.values():
            for blocked in line:
                _end(blocked.woken, True)
        for _, reply in self._requests.values():
            if not reply.done():
                reply.set_exception(BusClosedError(transport=_TRANSPORT))
        post, self._post = self._post, None
        if post is not None and self._pid == os.getpid():
            if self._loop is not None:
                self._loop.remove_reader(post.slots.file)
            post.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _opened(self) -> Post:
        post = self._post
        if self._closed:
            raise BusClosedError(transport=_TRANSPORT)
        if post is None:
            loop = self._running_loop()
            post = self._post = Post(
                self._folder,
                size=self._segment_bytes,
                keep_payloads=self._keep_payloads,
                woken=self._wake,
                wall=self._wall_clock,
            )
            self._pid = os.getpid()
            loop.add_reader(post.slots.file, self._woken)
        elif self._pid != os.getpid():
            raise BusUnavailableError(
                transport=_TRANSPORT,
                problem="this object was opened before a fork",
                remedy="Make a new object in the new process.",
            )
        return post

    async def _deliver(self, run: Run, timeout: float) -> None:
        post = self._opened()
        with post.segment:
            inbox = post.members.inbox(run.recipient)
            known = bool(inbox)
            policy = BLOCK
            serial = 0
            if inbox:
                words = post.segment.words
                policy, serial = words[inbox + Inbox.OVERFLOW], words[inbox]
                if not self._lines.get(inbox):
                    before = len(run.messages)
                    run.pending = post.offer(inbox, run, policy=policy, pending=run.pending)
                    if not run.pending or sum(length for _, length in run.pending) < before:
                        post.note(run)
            elif group := post.members.group(run.recipient):
                known = True
                self._spread(post, list(post.members.members(group)), run)
            else:
                post.bury(run, run.pending, Dead.UNKNOWN_AGENT)
        if not known:
            self._tell_all("dead_letter", run)
            raise UnknownAgentError(agent_id=run.recipient)
        if inbox and run.pending:
            if policy == REJECT or timeout <= 0:
                raise self._refusal(post, inbox, run, 0.0)
            await self._wait_for_room(run, inbox, serial, timeout)
        self._tell_all("sent", run)

    def _spread(self, post: Post, members: list[int], run: Run) -> None:
        """To each member but the sender of each message; senders of one run may differ."""
        if len({message.sender for message in run.messages}) == 1:
            sender = post.members.inbox(run.messages[0].sender)
            post.spread([inbox for inbox in members if inbox != sender], run)
        else:
            everybody = run.pending
            words = post.segment.words
            for inbox in members:
                own = post.members.name(inbox) if words[inbox] else ""
                run.pending = [(index, 1) for index, message in enumerate(run.messages) if message.sender != own]
                post.spread([inbox], run)
            run.pending = everybody
        post.note(run)
        run.pending = []

    async def _wait_for_room(self, run: Run, inbox: int, serial: int, timeout: float) -> None:
        """Stand in the line before an inbox, by priority and then as called, until the whole run is in it."""
        loop = self._running_loop()
        deadline = loop.time() + timeout
        line = self._lines.setdefault(inbox, [])
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
                            noted = len(run.pending) == 1 and run.pending[0] == (0, len(run.messages))
                            left = post.offer(inbox, run, policy=BLOCK, pending=run.pending)
                            if noted and left != run.pending:
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
                timer = loop.call_at(until, _end, place.woken, False)
                try:
                    await place.woken
                finally:
                    timer.cancel()
        finally:
            first = line[0] is place
            line.remove(place)
            if not line:
                if self._lines.get(inbox) is line:
                    del self._lines[inbox]
            elif first:
                _end(line[0].woken, True)

    def _refusal(self, post: Post, inbox: int, run: Run, waited_s: float) -> InboxFullError:
        with post.segment:
            post.count(Head.REJECTED, sum(length for _, length in run.pending))
            capacity = post.segment.words[inbox + Inbox.CAPACITY]
        return InboxFullError(agent_id=run.recipient, capacity=capacity, waited_s=waited_s)

    def _read(self, inbox: int, taken: list[Taken]) -> list[Message]:
        found: list[Message] = []
        for part in taken:
            messages = self._partly_read.pop(part.record, None)
            if messages is None:
                messages = unpack(part.header, part.payloads)
            if not part.whole:
                if len(self._partly_read) >= _PARTLY_READ:
                    del self._partly_read[next(iter(self._partly_read))]
                self._partly_read[part.record] = messages
            if part.count != len(messages):
                messages = messages[part.first : part.first + part.count]
            if part.attempt > 1:
                for message in messages:
                    message.attempt = part.attempt
            if part.flight is not None:
                for message, flight in zip(messages, part.flight, strict=True):
                    self._flights[inbox, message.id] = flight
                while len(self._flights) > _KNOWN_FLIGHTS:
                    del self._flights[next(iter(self._flights))]
            found += messages
            if self._tap is not None:
                self._tell_all("delivered" if part.attempt == 1 else "redelivered", messages)
        return found

    async def _arrival(self, inbox: int, until: float | None) -> None:
        """Wait until there may be a message, or until that time of the loop."""
        loop = self._running_loop()
        arrived: Future[bool] = loop.create_future()
        waiting = self._receivers.setdefault(inbox, [])
        waiting.append(arrived)
        timer = None if until is None else loop.call_at(until, _end, arrived, False)
        try:
            await arrived
        finally:
            if timer is not None:
                timer.cancel()
            waiting.remove(arrived)
            if not waiting and self._receivers.get(inbox) is waiting:
                del self._receivers[inbox]

    def _wake(self, code: int) -> None:
        if not code:
            self._running_loop().call_soon(self._collect_replies)
            return
        # All of them: which one is cancelled in the meantime is not known.
        for arrived in self._receivers.get(code, ()):
            _end(arrived, True)
        line = self._lines.get(code)
        if line:
            _end(line[0].woken, True)

    def _woken(self) -> None:
        if self._post is None:
            return
        codes, missed = self._post.slots.read()
        for code in {*self._receivers, *self._lines, 0} if missed else codes:
            self._wake(code)

    def _collect_replies(self) -> None:
        if self._post is None:
            return
        with self._post.segment:
            replies = self._post.replies()
            for answer in replies:
                waiting = self._requests.get(answer.correlation_id or "")
                if waiting is None or waiting[1].done():
                    self._post.count(Head.LATE_REPLIES)
        for answer in replies:
            waiting = self._requests.get(answer.correlation_id or "")
            if waiting is not None and not waiting[1].done():
                waiting[1].set_result(answer)

    def _tell_all(self, happened: str, run: Run | list[Message]) -> None:
        if self._tap is None:
            return
        messages = unpack(run.header, run.payloads) if isinstance(run, Run) else run
        try:
            for message in messages:
                self._tap(happened, message)
        except Exception:
            self._tap = None
            _logger.exception("a tap of the bus raised and is not called again")

    def _running_loop(self) -> AbstractEventLoop:
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        return self._loop


def _end(waiting: Future[Any], result: object) -> None:
    if not waiting.done():
        waiting.set_result(result)
