"""How one object of a file bus sends: a message is written down whole, then moved into an inbox under the folder's lock."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import count
from uuid import uuid4

from domain.errors.bus import BusClosedError, BusError, InboxFullError, UnknownAgentError
from domain.models.message import DeadLetterReason, Message, Overflow
from infrastructure.buses.bus_limits import PATIENCE_S, checked_message
from infrastructure.buses.file_folder import away, unavailable
from infrastructure.buses.file_frames import Draft, framed
from infrastructure.buses.file_inboxes import Verdict
from infrastructure.buses.file_registry import Agent, Waiter
from infrastructure.buses.file_session import FileSession, step_aside
from infrastructure.buses.file_words import State
from infrastructure.buses.payloads import encode_message, encode_payload

__all__ = ["Sending"]


class Sending:
    """A draft is used by the inbox that took it, else removed by whoever made it; those who wait for room get it in turn."""

    def __init__(self, session: FileSession, *, max_payload_bytes: int, note: Callable[[Draft], None]) -> None:
        """`note` is told, inside the step, of each message that an inbox took."""
        self._session = session
        self._max_payload_bytes = max_payload_bytes
        self._note = note
        self._prefix = f"{uuid4().hex[:12]}-"
        self._next = count(1).__next__

    def new_id(self) -> str:
        """An id that nobody else makes."""
        return f"{self._prefix}{self._next()}"

    def drafted(self, message: Message, *, is_request: bool = False, to_all: bool = False) -> Draft:
        """The message written down, with an id, before anybody waits for the lock."""
        checked_message(message, to_all=to_all)
        encoded = encode_payload(message.payload, limit=self._max_payload_bytes)
        given = bool(message.id)
        number = self._next()
        ready = message.copy(id=message.id or f"{self._prefix}{number}", attempt=1)
        if is_request and ready.correlation_id is None:
            ready.correlation_id = ready.id
        content = framed(encode_message(ready, encoded), int(self._session.steady_clock() * 1e9))
        name = f"{self._session.places.place:x}-{self._session.places.number:x}-{number:x}"
        try:
            self._session.folder.create("drafts", name, content)
        except OSError as error:
            raise unavailable(self._session.folder.path, error) from error
        return Draft(ready, content, name, given_id=given)

    def discard(self, draft: Draft) -> None:
        """Remove a draft that no inbox took."""
        # A closed bus has cleared its drafts.
        if self._session.is_open and not draft.is_used:
            with away(self._session.folder.path):
                draft.discard(self._session.folder)

    async def deliver(self, draft: Draft, timeout: float) -> None:
        """Put a draft where it belongs, waiting for room if it has to."""
        async with self._session.step:
            full = self._try(draft, timeout)
            if full is None:
                return
            self._session.listen(full)
        await self._wait_for_room(full, draft, timeout)

    async def send_batch(self, batch: list[Message], ids: list[str]) -> dict[int, BusError]:
        """Send these under as few locks as the room allows; what failed, by its place among them."""
        drafts: list[Draft] = []
        places: list[int] = []
        failures: dict[int, BusError] = {}
        try:
            for place, message in enumerate(batch):
                try:
                    drafts.append(self.drafted(message))
                    places.append(place)
                except BusError as error:
                    failures[place] = error
            position = 0
            while position < len(drafts):
                full: Agent | None = None
                try:
                    async with self._session.step:
                        while position < len(drafts) and full is None:
                            try:
                                full = self._try(drafts[position], PATIENCE_S)
                                if full is not None:
                                    self._session.listen(full)
                                    break
                                ids.append(drafts[position].message.id)
                            except BusError as error:
                                failures[places[position]] = error
                            position += 1
                    if full is not None:
                        await self._wait_for_room(full, drafts[position], PATIENCE_S)
                        ids.append(drafts[position].message.id)
                        position += 1
                except BusClosedError:
                    raise
                except BusError as error:
                    failures[places[position]] = error
                    position += 1
            return failures
        finally:
            for draft in drafts:
                self.discard(draft)

    def put_into_each(self, agents: list[Agent], draft: Draft) -> int:
        """How many inboxes took it; one that has no room misses it."""
        took = 0
        for agent in agents:
            verdict = self._session.inboxes.put(agent, draft, keep=True)
            if verdict is not Verdict.DUPLICATE and not draft.is_noted:
                draft.is_noted = True
                self._note(draft)
            if verdict is Verdict.TAKEN:
                took += 1
            elif verdict is Verdict.FULL:
                self._session.state[State.REJECTED] += 1
                self._session.inboxes.bury_draft(agent.name, DeadLetterReason.INBOX_FULL, draft, keep=True)
        return took

    def _try(self, draft: Draft, timeout: float) -> Agent | None:
        """Put it where it belongs; the inbox that has to be waited for, if there is one."""
        message = draft.message
        agent = self._session.registry.agents.get(message.recipient)
        if agent is None:
            members = self._session.registry.members(message.recipient, but=message.sender)
            if members is None:
                self._session.inboxes.bury_draft(message.recipient, DeadLetterReason.UNKNOWN_AGENT, draft)
                raise UnknownAgentError(agent_id=message.recipient)
            if not members:
                self._note(draft)
            self.put_into_each(members, draft)
            return None
        # Whoever waits already goes first.
        if agent.senders and agent.overflow is Overflow.BLOCK and timeout > 0:
            return agent
        verdict = self._session.inboxes.put(agent, draft)
        if verdict is not Verdict.FULL:
            if verdict is not Verdict.DUPLICATE:
                self._note(draft)
            return None
        if agent.overflow is Overflow.REJECT or timeout <= 0:
            self._session.state[State.REJECTED] += 1
            raise InboxFullError(agent_id=agent.name, capacity=agent.capacity)
        return agent

    async def _wait_for_room(self, agent: Agent, draft: Draft, timeout: float) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        waiter = Waiter()
        agent.senders.append(waiter)
        try:
            while True:
                await waiter.woken(min(deadline, loop.time() + self._session.inboxes.room_in_s()))
                is_late = loop.time() >= deadline
                async with self._session.step:
                    if agent.is_gone:
                        self._session.inboxes.bury_draft(agent.name, DeadLetterReason.UNREGISTERED, draft)
                        raise UnknownAgentError(agent_id=agent.name)
                    if agent.senders[0] is waiter:
                        verdict = self._session.inboxes.put(agent, draft)
                        if verdict is not Verdict.FULL:
                            if verdict is not Verdict.DUPLICATE:
                                self._note(draft)
                            return
                    if is_late:
                        self._session.state[State.REJECTED] += 1
                        raise InboxFullError(agent_id=agent.name, capacity=agent.capacity, waited_s=timeout)
                    self._session.listen(agent)
        finally:
            step_aside(agent.senders, waiter)
