"""Requests over a file bus that wait for their reply: a file for each while it waits, and one for each reply on its way."""

from __future__ import annotations

import asyncio
import logging
from hashlib import blake2b

from domain.errors.bus import (
    BusClosedError,
    InvalidMessageError,
    RequestTimeoutError,
    UnknownAgentError,
    UnreadableMessageError,
)
from domain.models.message import Message
from infrastructure.buses.file_folder import TRANSPORT
from infrastructure.buses.file_frames import read_frame
from infrastructure.buses.file_registry import Agent
from infrastructure.buses.file_session import FileSession
from infrastructure.buses.file_words import State

__all__ = ["Requests"]

_logger = logging.getLogger(__name__)


class Requests:
    """The requests of one object. Each gets at most one reply; a reply that nobody waits for any more is counted as late."""

    def __init__(self, session: FileSession) -> None:
        self._session = session
        # By correlation id: who asked, and where the reply goes.
        self._waiting: dict[str, tuple[str, asyncio.Future[Message]]] = {}

    def open(self, message: Message, reply: asyncio.Future[Message]) -> None:
        """Wait for the reply to this message from now on; in a step. Raises `InvalidMessageError` when its correlation id is in flight."""
        session, correlation_id = self._session, message.correlation_id or ""
        name = _name(correlation_id)
        if correlation_id in self._waiting or self._requester(name) is not None:
            raise InvalidMessageError(field="correlation_id", problem=f"is {correlation_id!r}, which is in flight")
        session.folder.clear("requests", name)
        session.folder.create("requests", name, b"%x-%x" % (session.places.place, session.places.number))
        self._waiting[correlation_id] = (message.sender, reply)

    def drop(self, message: Message, reply: asyncio.Future[Message]) -> None:
        """Wait no longer."""
        correlation_id = message.correlation_id or ""
        known = self._waiting.get(correlation_id)
        if known is not None and known[1] is reply:
            del self._waiting[correlation_id]
            if self._session.is_open:
                self._session.folder.remove("requests", _name(correlation_id))
        # Failed while the message itself still waited for room: that failure is the one raised.
        if reply.done() and not reply.cancelled():
            reply.exception()

    async def outcome(self, message: Message, reply: asyncio.Future[Message], timeout: float) -> Message:
        """The reply, which whoever times the request cancels at its deadline. Raises `RequestTimeoutError` then."""
        try:
            return await reply
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise RequestTimeoutError(
                agent_id=message.recipient, correlation_id=message.correlation_id or "", timeout_s=timeout
            ) from None

    def answer(self, correlation_id: str, content: bytes) -> bool:
        """Whether the reply is on its way; in a step. It is counted as late when nobody waits for it."""
        session = self._session
        pending = _name(correlation_id)
        place = self._requester(pending)
        if place is not None:
            name = session.places.next_reply(place)
            session.folder.clear("replies", name)
            session.folder.create("replies", name, content)
            if session.folder.remove("requests", pending):
                session.places.add_reply(place)
                session.ring_for_reply(place)
                return True
            # Its time ran out meanwhile.
            session.folder.remove("replies", name)
        session.state[State.LATE_REPLIES] += 1
        return False

    def read(self) -> None:
        """Hand on the replies that have come."""
        session = self._session
        for name in session.places.new_replies():
            try:
                answer, _ = read_frame(session.folder, "replies", name)
            except (FileNotFoundError, UnreadableMessageError) as error:
                session.state[State.CORRUPT] += 1
                _logger.warning("a reply is dropped: %s", error)
                continue
            finally:
                session.folder.clear("replies", name)
            waiting = self._waiting.get(answer.correlation_id or "")
            if waiting is None or waiting[1].done():
                session.state[State.LATE_REPLIES] += 1
            else:
                waiting[1].set_result(answer)

    def let_go(self, agent: Agent) -> None:
        """The inbox of a requester was closed."""
        for requester, reply in self._waiting.values():
            if requester == agent.name and not reply.done():
                reply.set_exception(UnknownAgentError(agent_id=requester))

    def close(self) -> None:
        """Nobody hears a reply any more."""
        for correlation_id, (_, reply) in self._waiting.items():
            if not reply.done():
                reply.set_exception(BusClosedError(transport=TRANSPORT))
            if self._session.is_open:
                self._session.folder.remove("requests", _name(correlation_id))

    def _requester(self, name: str) -> int | None:
        """The place of the living object that waits for the reply."""
        try:
            text = self._session.folder.read("requests", name, len)
            place, number = (int(part, 16) for part in text.split(b"-"))
        except (FileNotFoundError, UnreadableMessageError, ValueError):
            return None
        return place if self._session.places.is_alive(place, number) else None


def _name(correlation_id: str) -> str:
    return blake2b(correlation_id.encode(), digest_size=16).hexdigest()
