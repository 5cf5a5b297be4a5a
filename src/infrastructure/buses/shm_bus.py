"""The bus between processes of one machine: messages lie in shared memory, and no server moves them.

It is one file, because it has every call of the contract, each a section under the segment's mutex beside what then waits in this object;
how messages lie in the segment, go in and are read is in the modules around it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import time
from asyncio import AbstractEventLoop, Future
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from application.ports.message_bus import Tap
from domain.errors.bus import (
    BusClosedError,
    BusError,
    BusUnavailableError,
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
from infrastructure.buses.bus_limits import PATIENCE_S, BusLimits, checked_name, checked_number, checked_timeout
from infrastructure.buses.message_history import HISTORY_LIMIT
from infrastructure.buses.shm_batches import LARGEST_RUN, Run
from infrastructure.buses.shm_layout import Head
from infrastructure.buses.shm_packer import Packer
from infrastructure.buses.shm_post import BLOCK, DROP_OLDEST, REJECT, Post
from infrastructure.buses.shm_reading import Reading
from infrastructure.buses.shm_sending import Sending

__all__ = ["SharedMemoryMessageBus"]

_logger = logging.getLogger(__name__)

_TRANSPORT = "shm"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - the place is the point
_POLICIES = {Overflow.BLOCK: BLOCK, Overflow.REJECT: REJECT, Overflow.DROP_OLDEST: DROP_OLDEST}


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
        self._requests: dict[str, tuple[str, Future[Message | None]]] = {}
        self._sending = Sending(self._opened, tell=self._tell_all)
        self._reading = Reading(tell=self._tell_all)

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
                wall=post.wall_us(),
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

    async def send(self, message: Message, *, timeout: float = PATIENCE_S) -> str:
        """Put a message into the inbox of its recipient or of each other member of that group; returns its id."""
        checked_timeout(timeout)
        self._opened()
        run = self._packer.run([message])
        await self._sending.deliver(run, timeout)
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
                    await self._sending.deliver(run, PATIENCE_S)
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
        run = self._packer.run([message], to_all=True)
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
        checked_number(max_messages, "max_messages")
        checked_timeout(timeout)
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
                return self._reading.read(inbox, taken)
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
            return post.acknowledge(post.own(agent_id), message_ids, self._reading.flights)

    async def request(self, message: Message, *, timeout: float = PATIENCE_S) -> Message:
        """Send a message and wait for its reply. Raises `RequestTimeoutError` and what `send` does."""
        checked_timeout(timeout)
        post = self._opened()
        loop = self._running_loop()
        if message.correlation_id is None:
            message = message.copy(id=message.id or self._packer.new_id())
            message.correlation_id = message.id
        run = self._packer.run([message])
        correlation_id = checked_name(message.correlation_id, "correlation_id")
        with post.segment:
            post.members.existing(message.sender)
            fresh = post.replies.expect(correlation_id)
        if not fresh:
            raise InvalidMessageError(field="correlation_id", problem=f"is {correlation_id!r}, which is in flight")
        reply: Future[Message | None] = loop.create_future()
        self._requests[correlation_id] = (message.sender, reply)
        patience = loop.call_later(timeout, _end, reply, None)
        try:
            await self._sending.deliver(run, timeout)
            answer = await reply
        finally:
            patience.cancel()
            if not self._closed:
                with post.segment:
                    post.replies.give_up(correlation_id)
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
            reached = post.replies.answer(request.correlation_id, run)
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
        self._sending.wake_all()
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
        self._sending.wake(code)

    def _woken(self) -> None:
        if self._post is None:
            return
        codes, missed = self._post.slots.read()
        for code in {*self._receivers, *self._sending.lines, 0} if missed else codes:
            self._wake(code)

    def _collect_replies(self) -> None:
        if self._post is None:
            return
        with self._post.segment:
            replies = self._post.replies.take(self._post.slots.index)
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
        messages = run.accepted() if isinstance(run, Run) else run
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
