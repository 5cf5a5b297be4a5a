"""The bus over a folder: messages are files, moved from one name to another, between any processes of one machine."""

from __future__ import annotations

import asyncio
import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Self

from application.ports.message_bus import Tap
from domain.errors.bus import BusError, InvalidMessageError, NameTakenError, ReceiveTimeoutError, UnknownAgentError
from domain.models.message import Acknowledgement, BusStats, DeadLetter, Message, MessageHeader, Payload
from infrastructure.buses.bus_limits import (
    MAX_DEAD_LETTERS,
    PATIENCE_S,
    BusLimits,
    checked_name,
    checked_number,
    checked_timeout,
)
from infrastructure.buses.bus_statistics import RateMeter
from infrastructure.buses.file_folder import TRANSPORT
from infrastructure.buses.file_foreign import count_foreign
from infrastructure.buses.file_frames import Draft, framed
from infrastructure.buses.file_latencies import latency_us, read_latencies
from infrastructure.buses.file_mending import make_due
from infrastructure.buses.file_registry import Agent, Waiter
from infrastructure.buses.file_requests import Requests
from infrastructure.buses.file_sending import Sending
from infrastructure.buses.file_session import FileSession, step_aside
from infrastructure.buses.file_words import Inbox, State
from infrastructure.buses.message_history import HISTORY_LIMIT, MessageHistory
from infrastructure.buses.payloads import encode_message, encode_payload

__all__ = ["FileMessageBus", "default_folder"]

_logger = logging.getLogger(__name__)
# Others are let in between so many inboxes or messages.
_AT_A_TIME = 128
_LETTERS_AT_A_TIME = 500


def default_folder() -> Path:
    """A folder of this user in memory where the machine has one, else in its folder for temporary files."""
    memory = Path("/dev/shm")  # noqa: S108 - the folder within is this user's alone
    return (memory if memory.is_dir() else Path(tempfile.gettempdir())) / f"conclave-bus-{os.geteuid()}"


class FileMessageBus:
    """A bus in a folder, for any processes of one machine and one user; every object with the same folder is the same bus.

    Order: HIGH before NORMAL before LOW; within a priority exactly as the inbox took them, whoever the senders are, so also as each of
    them sent. What is delivered again comes before the rest of its priority.
    Delivery: at most once (`auto`) or at least once (`manual`: again after `visibility_s`, dead after `max_attempts`).
    Durability: what `send` returned for stays until it is taken, also when every process is killed; on a disk also when the machine is
    restarted in good order. Nothing is synced, so a loss of power may cost the last seconds, and in memory (`/dev/shm`) everything.
    Loss on crash: a process killed inside `receive` with `auto` loses what it was handed just then; one killed inside `send` has sent
    the message or not. The next one at the folder counts anew; no lock outlives its process.
    Bounds: each inbox by `capacity`, dead letters 10,000 with their payloads, ids between 100,000 and 200,000 an inbox, 1,024 objects
    open at a time; space is that of the folder's file system, and a full one raises `BusUnavailableError` and loses nothing.
    A name whose process is dead, or whose object is closed, is free at once for the next to take over; what it held unacknowledged is due
    then. While its owner lives, no other object receives or acknowledges for it, joins, leaves or unregisters (`NameTakenError`).
    `stats` counts what all objects did since the folder was made, `history` what this one sent. Links are never followed; what is
    foreign, cut off or unreadable is counted in `corrupt` and never delivered. Not thread-safe.

    A step on the folder is made under one lock: a process that is stopped (SIGSTOP) in the middle of one holds up the others.
    `wall_clock` gives Unix seconds, `steady_clock` seconds on which all processes of the machine agree.
    """

    def __init__(
        self,
        folder: Path | None = None,
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
        steady_clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limits = BusLimits.checked(
            capacity=capacity,
            overflow=overflow,
            visibility_s=visibility_s,
            max_attempts=max_attempts,
            max_payload_bytes=max_payload_bytes,
        )
        self._tap = tap
        self._session = FileSession(
            default_folder() if folder is None else Path(folder),
            wall_clock=wall_clock,
            steady_clock=steady_clock,
            tell=None if tap is None else self._tell,
        )
        self._requests = Requests(self._session)
        self._sending = Sending(self._session, max_payload_bytes=max_payload_bytes, note=self._note)
        self._session.watch(on_gone=self._requests.let_go, on_replies=self._requests.read)
        self._step = self._session.step
        self._history = MessageHistory(limit=history_limit, keep_payloads=keep_payloads)
        self._rate: RateMeter | None = None
        self._sent_before = 0

    async def register(
        self, agent_id: str, *, capacity: int | None = None, overflow: str | None = None, acknowledge: str = "auto"
    ) -> None:
        """Open an inbox of that name, or take over that of a dead process. Raises `NameTakenError`."""
        checked_name(agent_id, "agent_id")
        room, policy, mode = self._limits.inbox(capacity=capacity, overflow=overflow, acknowledge=acknowledge)
        async with self._step:
            if agent_id in self._session.registry.groups:
                raise NameTakenError(name=agent_id, holder="a group")
            known = self._session.registry.agents.get(agent_id)
            if known is not None and self._session.places.is_alive(*known.holder):
                raise NameTakenError(name=agent_id, holder="a living agent of this bus")
            agent = self._session.registry.register(
                agent_id,
                (self._session.places.place, self._session.places.number),
                capacity=room,
                overflow=policy,
                acknowledges=mode is Acknowledgement.MANUAL,
                visibility_ns=int(self._limits.visibility_s * 1e9),
                max_attempts=self._limits.max_attempts,
            )
            if agent.words[Inbox.HELD]:
                make_due(self._session.folder, self._session.state, [agent])
            self._session.ring(agent)

    async def unregister(self, agent_id: str) -> None:
        """Close an inbox; what it holds becomes dead letters. Raises `UnknownAgentError` and `NameTakenError`."""
        async with self._step:
            agent = self._own(agent_id)
            self._session.inboxes.empty(agent)
            self._session.ring_others(agent)
            self._session.registry.unregister(agent)

    async def join(self, agent_id: str, group: str) -> None:
        """Make an agent a member of a group. Raises `UnknownAgentError` and `NameTakenError`."""
        checked_name(group, "group")
        async with self._step:
            agent = self._own(agent_id)
            self._require_no_agent(group)
            self._session.registry.join(agent, group)

    async def leave(self, agent_id: str, group: str) -> None:
        """End a membership, if there is one. Raises `UnknownAgentError` and `NameTakenError`."""
        async with self._step:
            agent = self._own(agent_id)
            self._require_no_agent(group)
            self._session.registry.leave(agent, group)

    async def send(self, message: Message, *, timeout: float = PATIENCE_S) -> str:
        """Put a message into the inbox of its recipient or of each other member of that group; returns its id."""
        checked_timeout(timeout)
        await self._session.opened()
        draft = self._sending.drafted(message)
        try:
            await self._sending.deliver(draft, timeout)
        finally:
            self._sending.discard(draft)
        return draft.message.id

    async def send_many(self, messages: Iterable[Message]) -> list[str]:
        """Send each, in order; returns their ids. The first failure is raised after the others were tried."""
        await self._session.opened()
        ids: list[str] = []
        failure: BusError | None = None
        messages = iter(messages)
        while batch := list(islice(messages, _AT_A_TIME)):
            failures = await self._sending.send_batch(batch, ids)
            failure = failure or next((failures[place] for place in sorted(failures)), None)
        if failure is not None:
            raise failure
        return ids

    async def broadcast(self, message: Message) -> int:
        """Put a message into every inbox but the sender's; returns how many took it. Never waits."""
        await self._session.opened()
        draft = self._sending.drafted(message, to_all=True)
        try:
            async with self._step:
                agents = [agent for agent in self._session.registry.agents.values() if agent.name != message.sender]
                if not agents:
                    self._note(draft)
                took = self._sending.put_into_each(agents[:_AT_A_TIME], draft)
            for start in range(_AT_A_TIME, len(agents), _AT_A_TIME):
                async with self._step:
                    some = [agent for agent in agents[start : start + _AT_A_TIME] if not agent.is_gone]
                    took += self._sending.put_into_each(some, draft)
            return took
        finally:
            self._sending.discard(draft)

    async def receive(self, agent_id: str, *, timeout: float | None = None) -> Message:
        """Take the next message. Raises `ReceiveTimeoutError`, `UnknownAgentError` and `NameTakenError`."""
        return (await self._receive(agent_id, 1, timeout))[0]

    async def receive_many(self, agent_id: str, max_messages: int, *, timeout: float | None = None) -> list[Message]:
        """Wait for one message as `receive` does, then take what else is there, up to `max_messages` in all."""
        checked_number(max_messages, "max_messages")
        return await self._receive(agent_id, max_messages, timeout)

    async def acknowledge(self, agent_id: str, *message_ids: str) -> int:
        """Say that these are dealt with; returns how many of them were unacknowledged."""
        async with self._step:
            return self._session.inboxes.acknowledge(self._own(agent_id), message_ids)

    async def request(self, message: Message, *, timeout: float = PATIENCE_S) -> Message:
        """Send a message and wait for its reply. Raises `RequestTimeoutError` and what `send` does."""
        checked_timeout(timeout)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        async with self._step:
            self._agent(message.sender)
        draft = self._sending.drafted(message, is_request=True)
        reply: asyncio.Future[Message] = loop.create_future()
        patience = loop.call_at(deadline, reply.cancel)
        try:
            async with self._step:
                self._requests.open(draft.message, reply)
            await self._sending.deliver(draft, timeout)
            return await self._requests.outcome(draft.message, reply, timeout)
        finally:
            patience.cancel()
            self._sending.discard(draft)
            self._requests.drop(draft.message, reply)

    async def reply(self, request: Message, payload: Payload = None, *, type: str = "reply") -> None:  # noqa: A002 - contract
        """Answer a request. Too late, or a second time, the answer is counted and delivered to nobody."""
        self._session.require_usable()
        if request.correlation_id is None:
            raise InvalidMessageError(field="correlation_id", problem="is missing, so nobody waits for an answer")
        checked_name(type, "type")
        encoded = encode_payload(payload, limit=self._limits.max_payload_bytes)
        answer = Message(
            request.recipient,
            request.sender,
            type,
            payload,
            request.priority,
            request.correlation_id,
            None,
            self._sending.new_id(),
        )
        content = framed(encode_message(answer, encoded), int(self._session.steady_clock() * 1e9))
        async with self._step:
            is_answered = self._requests.answer(request.correlation_id, content)
        if is_answered:
            self._tell("reply", answer)

    async def dead_letters(self, agent_id: str | None = None) -> list[DeadLetter]:
        """The dead letters, or those meant for one agent; oldest first, the last 10,000."""
        async with self._step:
            self._session.inboxes.sweep()
            last = self._session.state[State.DEAD_LETTERS]
        found: list[DeadLetter] = []
        for start in range(max(0, last - MAX_DEAD_LETTERS), last, _LETTERS_AT_A_TIME):
            async with self._step:
                found += self._session.inboxes.letters.read(start, min(start + _LETTERS_AT_A_TIME, last), agent_id)
        return found

    async def stats(self) -> BusStats:
        """The counts since the folder was made, of all objects together."""
        async with self._step:
            self._session.inboxes.sweep()
            state = self._session.state
            latencies = read_latencies(state)
            return BusStats(
                transport=TRANSPORT,
                sent=state[State.SENT],
                delivered=state[State.DELIVERED],
                acknowledged=state[State.ACKNOWLEDGED],
                redelivered=state[State.REDELIVERED],
                duplicates=state[State.DUPLICATES],
                rejected=state[State.REJECTED],
                dropped=state[State.DROPPED],
                expired=state[State.EXPIRED],
                late_replies=state[State.LATE_REPLIES],
                dead_letters=state[State.DEAD_LETTERS],
                queued={
                    agent.name: self._session.inboxes.size(agent) for agent in self._session.registry.agents.values()
                },
                messages_per_second=self._mark(),
                latency_us=latency_us(state, latencies),
                latency_histogram=latencies.cumulative(),
                latency_sum_s=latencies.total_s,
                corrupt=state[State.CORRUPT] + count_foreign(self._session.folder, self._session.registry.by_slot),
            )

    async def history(self, limit: int = 100) -> list[MessageHeader]:
        """The last messages that this object sent, newest last; with payloads only where it was made with `keep_payloads=True`."""
        self._session.require_usable()
        return self._history.last(limit)

    async def close(self) -> None:
        """End everything that waits with `BusClosedError`, now and later; what is queued stays for the next object."""
        self._requests.close()
        self._session.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _agent(self, agent_id: str) -> Agent:
        agent = self._session.registry.agents.get(agent_id)
        if agent is None:
            raise UnknownAgentError(agent_id=agent_id)
        return agent

    def _own(self, agent_id: str) -> Agent:
        """The agent, unless another living object owns it."""
        agent = self._agent(agent_id)
        places = self._session.places
        if agent.holder != (places.place, places.number) and places.is_alive(*agent.holder):
            raise NameTakenError(name=agent_id, holder="another object of this bus")
        return agent

    def _require_no_agent(self, group: str) -> None:
        if group in self._session.registry.agents:
            raise NameTakenError(name=group, holder="an agent of this bus")

    def _note(self, draft: Draft) -> None:
        message = draft.message
        self._history.record(message, message.id, self._session.wall_clock())
        self._mark()
        self._tell("sent", message)

    def _mark(self) -> float:
        """Messages a second, of which this object knows since it first sent or was asked."""
        now, sent = time.monotonic(), self._session.state[State.SENT]
        if self._rate is None:
            self._rate = RateMeter(now)
            self._sent_before = sent
        if now >= self._rate.next_mark:
            self._rate.mark(now, sent - self._sent_before)
        return self._rate.per_second(now, sent - self._sent_before)

    async def _receive(self, agent_id: str, limit: int, timeout: float | None) -> list[Message]:
        checked_timeout(timeout)
        loop = asyncio.get_running_loop()
        deadline = None if timeout is None else loop.time() + timeout
        agent: Agent | None = None
        waiter: Waiter | None = None
        try:
            while True:
                async with self._step:
                    if agent is not None and agent.is_gone:
                        raise UnknownAgentError(agent_id=agent_id)
                    agent = self._own(agent_id)
                    self._session.inboxes.sweep()
                    taken = self._session.inboxes.take(agent, limit)
                    if taken:
                        return taken
                    self._session.listen(agent)
                    until = deadline
                    due = self._session.inboxes.next_due(agent)
                    if due is not None:
                        again = loop.time() + max(0.0, due * 1e-9 - self._session.steady_clock())
                        until = again if deadline is None else min(again, deadline)
                if deadline is not None and loop.time() >= deadline:
                    raise ReceiveTimeoutError(agent_id=agent_id, timeout_s=timeout or 0.0)
                if waiter is None:
                    waiter = Waiter()
                    agent.receivers.append(waiter)
                await waiter.woken(until)
        finally:
            if agent is not None and waiter is not None:
                step_aside(agent.receivers, waiter)

    def _tell(self, happened: str, message: Message) -> None:
        if self._tap is None:
            return
        try:
            self._tap(happened, message)
        except Exception:
            self._tap = None
            _logger.exception("a tap of the bus raised and is not called again")
