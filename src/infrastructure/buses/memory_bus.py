"""The bus within one process and one event loop: messages are handed over by reference, as fast as Python can."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Self

from application.ports.message_bus import Tap
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
from domain.models.message import Acknowledgement, BusStats, DeadLetter, Message, MessageHeader, Payload
from infrastructure.buses.bus_limits import PATIENCE_S, BusLimits, checked_name, checked_number, checked_timeout
from infrastructure.buses.inbox import Inbox
from infrastructure.buses.memory_post import BREATH, TRANSPORT, Post
from infrastructure.buses.memory_records import FOLD_EVERY, Records
from infrastructure.buses.memory_requests import Requests
from infrastructure.buses.message_history import HISTORY_LIMIT

__all__ = ["MemoryMessageBus"]

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
        tap: Tap | None = None,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._limits = BusLimits.checked(
            capacity=capacity,
            overflow=overflow,
            visibility_s=visibility_s,
            max_attempts=max_attempts,
            max_payload_bytes=max_payload_bytes,
        )
        self._is_tapped = tap is not None
        self._closed = False
        self._records = Records(
            keep_payloads=keep_payloads, history_limit=history_limit, tap=tap, wall_clock=wall_clock
        )
        self._post = Post(limits=self._limits, records=self._records, is_tapped=self._is_tapped, wall_clock=wall_clock)
        self._requests = Requests()
        # At hand, because they are needed for each message.
        self._inboxes = self._post.inboxes
        self._send_plainly = self._post.send_plainly
        self._time_taken = self._records.latencies.add

    async def register(
        self, agent_id: str, *, capacity: int | None = None, overflow: str | None = None, acknowledge: str = "auto"
    ) -> None:
        """Open an inbox of that name. Raises `NameTakenError`."""
        self._open()
        checked_name(agent_id, "agent_id")
        if agent_id in self._inboxes:
            raise NameTakenError(name=agent_id, holder="an agent of this bus")
        if agent_id in self._post.groups:
            raise NameTakenError(name=agent_id, holder="a group")
        room, policy, mode = self._limits.inbox(capacity=capacity, overflow=overflow, acknowledge=acknowledge)
        self._inboxes[agent_id] = Inbox(
            agent_id,
            capacity=room,
            overflow=policy,
            manual=mode is Acknowledgement.MANUAL,
            tapped=self._is_tapped,
        )

    async def unregister(self, agent_id: str) -> None:
        """Close an inbox; what it holds becomes dead letters. Raises `UnknownAgentError`."""
        inbox = self._inbox(agent_id)
        del self._inboxes[agent_id]
        for group in inbox.groups:
            self._remove_member(agent_id, group)
        self._post.empty(inbox)
        self._requests.fail(UnknownAgentError(agent_id=agent_id), agent_id)

    async def join(self, agent_id: str, group: str) -> None:
        """Make an agent a member of a group. Raises `UnknownAgentError` and `NameTakenError`."""
        inbox = self._inbox(agent_id)
        checked_name(group, "group")
        if group in self._inboxes:
            raise NameTakenError(name=group, holder="an agent of this bus")
        self._post.groups.setdefault(group, {})[agent_id] = None
        inbox.groups.add(group)

    async def leave(self, agent_id: str, group: str) -> None:
        """End a membership, if there is one. Raises `UnknownAgentError` and `NameTakenError`."""
        inbox = self._inbox(agent_id)
        if group in self._inboxes:
            raise NameTakenError(name=group, holder="an agent of this bus")
        if group in inbox.groups:
            inbox.groups.remove(group)
            self._remove_member(agent_id, group)

    async def send(self, message: Message, *, timeout: float = PATIENCE_S) -> str:
        """Put a message into the inbox of its recipient or of each other member of that group; returns its id."""
        if timeout is not PATIENCE_S:
            checked_timeout(timeout)
        message_id = self._send_plainly(message)
        if message_id is not None:
            return message_id
        ready, given = self._prepared(message)
        inbox = self._inboxes.get(ready.recipient)
        crowded = inbox is not None and not inbox.room & BREATH and inbox.held > BREATH
        await self._post.send(ready, timeout, given=given)
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
            self._post.send_to_group(ready, given=given)
        elif self._post.deliver(inbox, (self._post.number()[0], _perf_counter(), ready), given=given) is False:
            self._records.rejected += 1
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
                    message_id = await self._post.send(ready, PATIENCE_S, given=given)
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
        ready, given = self._prepared(message, to_all=True)
        return self._post.send_to_each([name for name in self._inboxes if name != ready.sender], ready, given=given)

    async def receive(self, agent_id: str, *, timeout: float | None = None) -> Message:
        """Take the next message. Raises `ReceiveTimeoutError` and `UnknownAgentError`."""
        if timeout is not None:
            checked_timeout(timeout)
        inbox = self._inboxes.get(agent_id) or self._inbox(agent_id)
        deadline: float | None = None
        while True:
            lane = inbox.high or inbox.normal or inbox.low
            if lane:
                if inbox.careful:
                    message = self._post.take(inbox)
                    if message is None:
                        continue
                    return message
                sequence, sent_at, message = lane.popleft()
                self._time_taken(_perf_counter() - sent_at)
                if not sequence & FOLD_EVERY:
                    self._records.latencies.fold()
                inbox.room += 1
                return message
            if timeout is None:
                arrived = (self._post.loop or self._post.running_loop()).create_future()
                inbox.receivers.append(arrived)
                try:
                    await arrived
                except asyncio.CancelledError:
                    inbox.leave(arrived)
                    raise
                continue
            if deadline is None:
                deadline = self._post.running_loop().time() + timeout
            if not await self._post.arrival(inbox, deadline):
                raise ReceiveTimeoutError(agent_id=agent_id, timeout_s=timeout)

    async def receive_many(self, agent_id: str, max_messages: int, *, timeout: float | None = None) -> list[Message]:
        """Wait for one message as `receive` does, then take what else is there, up to `max_messages` in all."""
        checked_number(max_messages, "max_messages")
        messages = [await self.receive(agent_id, timeout=timeout)]
        inbox = self._inboxes.get(agent_id)
        while inbox is not None and len(messages) < max_messages:
            lane = inbox.high or inbox.normal or inbox.low
            if not lane:
                break
            if inbox.careful:
                message = self._post.take(inbox)
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
            if len(self._records.latencies.pending) > FOLD_EVERY:
                self._records.latencies.fold()
        return messages

    async def acknowledge(self, agent_id: str, *message_ids: str) -> int:
        """Say that these are dealt with; returns how many of them were unacknowledged."""
        inbox = self._inboxes.get(agent_id) or self._inbox(agent_id)
        known = 0
        for message_id in message_ids:
            taken = inbox.taken.pop(message_id, None)
            if taken is not None:
                known += 1
                if self._is_tapped:
                    self._records.tell("acknowledged", taken[1][2])
            elif inbox.overdue and (late := inbox.take_overdue(message_id)) is not None:
                known += 1
                if self._is_tapped:
                    # As it was delivered: it waits under the number of its next attempt.
                    self._records.tell("acknowledged", late[2].copy(attempt=late[2].attempt - 1))
        self._records.acknowledged_by_hand += known
        inbox.room += known
        if known and inbox.blocked is not None:
            self._post.admit(inbox)
        return known

    async def request(self, message: Message, *, timeout: float = PATIENCE_S) -> Message:
        """Send a message and wait for its reply. Raises `RequestTimeoutError` and what `send` does."""
        if timeout is not PATIENCE_S:
            checked_timeout(timeout)
        if message.sender not in self._inboxes:
            self._inbox(message.sender)
        correlation_id = message.correlation_id or self._post.number()[1]
        reply = self._requests.open(correlation_id, message.sender, timeout, self._post.running_loop())
        try:
            if self._send_plainly(message, correlation_id) is None:
                ready, given = self._prepared(message)
                ready.correlation_id = correlation_id
                await self._post.send(ready, timeout, given=given)
            answer = await reply
        finally:
            self._requests.drop(correlation_id)
        if answer is None:
            raise RequestTimeoutError(agent_id=message.recipient, correlation_id=correlation_id, timeout_s=timeout)
        return answer

    async def reply(self, request: Message, payload: Payload = None, *, type: str = "reply") -> None:  # noqa: A002 - contract
        """Answer a request. Too late, or a second time, the answer is counted and delivered to nobody."""
        self._open()
        if request.correlation_id is None:
            raise InvalidMessageError(field="correlation_id", problem="is missing, so nobody waits for an answer")
        self._post.check_payload(payload)
        waiting = self._requests.waits(request.correlation_id)
        if waiting is None:
            self._records.late_replies += 1
            return
        answer = Message(
            request.recipient,
            request.sender,
            checked_name(type, "type"),
            payload,
            request.priority,
            request.correlation_id,
            None,
            self._post.number()[1],
        )
        waiting.set_result(answer)
        if self._is_tapped:
            self._records.tell("reply", answer)

    async def dead_letters(self, agent_id: str | None = None) -> list[DeadLetter]:
        """The dead letters, or those meant for one agent; oldest first, the last 10,000."""
        self._open()
        self._post.bury_expired()
        return self._records.letters(agent_id)

    async def stats(self) -> BusStats:
        """The counts since the bus was made."""
        self._open()
        self._post.bury_expired()
        return self._records.stats(TRANSPORT, {name: inbox.held for name, inbox in self._inboxes.items()})

    async def history(self, limit: int = 100) -> list[MessageHeader]:
        """The last messages sent, newest last; with payloads only where the bus was made with `keep_payloads=True`."""
        self._open()
        return self._records.last(limit)

    async def close(self) -> None:
        """End everything that waits with `BusClosedError`, now and later; what is queued is gone."""
        self._closed = True
        self._post.close()
        self._requests.close()
        self._requests.fail(BusClosedError(transport=TRANSPORT))
        self._records.forget_recent()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _prepared(self, message: Message, *, to_all: bool = False) -> tuple[Message, bool]:
        self._open()
        return self._post.prepared(message, to_all=to_all)

    def _remove_member(self, agent_id: str, group: str) -> None:
        members = self._post.groups[group]
        del members[agent_id]
        if not members:
            del self._post.groups[group]

    def _inbox(self, agent_id: str) -> Inbox:
        self._open()
        inbox = self._inboxes.get(agent_id)
        if inbox is None:
            raise UnknownAgentError(agent_id=agent_id)
        return inbox

    def _open(self) -> None:
        if self._closed:
            raise BusClosedError(transport=TRANSPORT)
