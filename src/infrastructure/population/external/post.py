"""Carries what is said to some rows to the processes that speak for them, and their answers back, without holding a tick up."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass

from application.ports.message_bus import Message, MessageBus
from domain.errors.bus import (
    BusClosedError,
    BusError,
    InboxFullError,
    InvalidMessageError,
    PayloadTooLargeError,
    UnknownAgentError,
)
from domain.models.run import JsonValue
from infrastructure.population.external.letters import HEARD, SAID, Heard, Said, heard_payload, said_in

__all__ = ["OWN_NAME", "Partner", "Post"]

_logger = logging.getLogger(__name__)

OWN_NAME = "population"
"""What the population is called on the bus."""

_MOST_WAITING = 1_024
_MISSED_TO_BE_AWAY = 3
_RETRY_S = 1.0
# Above its deadline, an exchange may take so much longer on a machine that is busy.
_GRACE_S = 0.05
_START_S = 30.0


@dataclass(slots=True)
class Partner:
    """A process that speaks for the rows from `first` on, up to but not with `last`, and what was exchanged with it.

    Messages out: `sent` = `delivered` (the bus took them) + `expired` (not within the deadline) + `refused` (no room). Opinions in:
    `received` = `applied` + `refused_in` (of rows that are not its own, of none from 0 to 1, or beyond what may wait).
    """

    name: str
    first: int
    last: int
    sent: int = 0
    delivered: int = 0
    expired: int = 0
    refused: int = 0
    received: int = 0
    applied: int = 0
    refused_in: int = 0
    # The last tick that it answered, ticks in a row that it did not, and since when it is not waited for.
    answered: int = 0
    missed: int = 0
    missed_in_all: int = 0
    away: bool = False
    next_try: float = 0.0
    problem: str | None = None

    def document(self) -> dict[str, JsonValue]:
        """For the report."""
        return {
            "name": self.name,
            "rows": self.last - self.first,
            "away": self.away,
            "ticks_unanswered": self.missed_in_all,
            "last_tick_answered": self.answered,
            "problem": self.problem,
            "messages": {
                "sent": self.sent,
                "delivered": self.delivered,
                "expired": self.expired,
                "refused": self.refused,
            },
            "opinions": {"received": self.received, "applied": self.applied, "refused": self.refused_in},
        }


class Post:
    """Talks to a bus in a thread and an event loop of its own. What it is given to send it never waits for longer than it is told.

    A partner that has not answered three ticks in a row is away: it is named in the log, tried again about once a second, and waited for
    anew once it says something.
    """

    def __init__(self, open_bus: Callable[[], MessageBus], partners: Sequence[Partner]) -> None:
        """Open the bus and register there. Raises `BusError` where that is not possible."""
        self.partners = {one.name: one for one in partners}
        self._open_bus = open_bus
        self._bus: MessageBus | None = None
        self._waiting: list[tuple[Partner, Said]] = []
        self._loop = asyncio.new_event_loop()
        self._news = asyncio.Event()
        self._reading: asyncio.Task[None] | None = None
        self._under_way: Future[list[tuple[Partner, Said]]] | None = None
        self._thread = threading.Thread(target=self._run, name="external-rows", daemon=True)
        self._thread.start()
        try:
            asyncio.run_coroutine_threadsafe(self._begin(), self._loop).result(_START_S)
        except BaseException:
            self.close()
            raise

    def exchange(
        self, tick: int, letters: Mapping[str, Sequence[Heard]], deadline_s: float
    ) -> list[tuple[Partner, Said]]:
        """Send each partner what was said to its rows in `tick`, and wait until all that are there have answered, for so long at most.

        What has come from anybody since it was last asked.
        """
        if self._under_way is not None and not self._under_way.done():
            # The bus itself holds it up.
            for name, parts in letters.items():
                self._count_expired(self.partners[name], parts)
            return []
        self._under_way = asyncio.run_coroutine_threadsafe(self._exchange(tick, letters, deadline_s), self._loop)
        try:
            return self._under_way.result(deadline_s + _GRACE_S)
        except TimeoutError:
            return []

    def close(self) -> None:
        """Leave the bus; may be called twice."""
        if not self._thread.is_alive():
            return
        with suppress(TimeoutError):
            asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(_START_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    async def _begin(self) -> None:
        self._bus = self._open_bus()
        await self._bus.register(OWN_NAME, capacity=_MOST_WAITING, overflow="reject")
        self._reading = asyncio.create_task(self._read(self._bus))

    async def _end(self) -> None:
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
        if self._bus is not None:
            with suppress(BusError):
                await self._bus.unregister(OWN_NAME)
            await self._bus.close()

    async def _exchange(
        self, tick: int, letters: Mapping[str, Sequence[Heard]], deadline_s: float
    ) -> list[tuple[Partner, Said]]:
        until = self._loop.time() + deadline_s
        await asyncio.gather(*(self._send_all(self.partners[name], parts, until) for name, parts in letters.items()))
        await self._answers(tick, until)
        for partner in self.partners.values():
            self._judge(partner, tick)
        found, self._waiting = self._waiting, []
        return found

    async def _send_all(self, partner: Partner, parts: Sequence[Heard], until: float) -> None:
        for number, part in enumerate(parts):
            if partner.away and self._loop.time() < partner.next_try:
                self._count_expired(partner, parts[number:])
                return
            partner.sent += part.rows.size
            problem = await self._send(partner, part, until)
            if problem:
                partner.problem, partner.next_try = problem, self._loop.time() + _RETRY_S

    async def _send(self, partner: Partner, part: Heard, until: float) -> str:
        """What was wrong, nothing where the bus took it."""
        message = Message(OWN_NAME, partner.name, HEARD, heard_payload(part))
        left = until - self._loop.time()
        if left <= 0 or self._bus is None:
            partner.expired += part.rows.size
            return "took no message within the deadline"
        try:
            async with asyncio.timeout_at(until):
                await self._bus.send(message, timeout=left)
        except (InboxFullError, PayloadTooLargeError, InvalidMessageError) as error:
            partner.refused += part.rows.size
            return str(error)
        except UnknownAgentError:
            partner.expired += part.rows.size
            return "is not on the bus"
        except (TimeoutError, BusError) as error:
            partner.expired += part.rows.size
            return str(error) or "took no message within the deadline"
        partner.delivered += part.rows.size
        return ""

    async def _answers(self, tick: int, until: float) -> None:
        """Wait for those who are there and have not answered."""
        with suppress(TimeoutError):
            async with asyncio.timeout_at(until):
                while any(not one.away and one.answered < tick for one in self.partners.values()):
                    self._news.clear()
                    await self._news.wait()

    def _judge(self, partner: Partner, tick: int) -> None:
        if partner.answered >= tick:
            partner.missed = 0
            return
        partner.missed += 1
        partner.missed_in_all += 1
        if partner.missed >= _MISSED_TO_BE_AWAY and not partner.away:
            partner.away = True
            partner.next_try = self._loop.time() + _RETRY_S
            partner.problem = partner.problem or "did not answer"
            _logger.warning(
                "an external partner is away", extra={"partner": partner.name, "tick": tick, "problem": partner.problem}
            )

    def _count_expired(self, partner: Partner, parts: Sequence[Heard]) -> None:
        amount = sum(part.rows.size for part in parts)
        partner.sent += amount
        partner.expired += amount

    async def _read(self, bus: MessageBus) -> None:
        while True:
            try:
                messages = await bus.receive_many(OWN_NAME, _MOST_WAITING)
            except BusClosedError:
                return
            except BusError as error:
                _logger.warning("the bus of external rows cannot be read", extra={"problem": str(error)})
                await asyncio.sleep(_RETRY_S)
                continue
            for message in messages:
                self._take(message)
            self._news.set()

    def _take(self, message: Message) -> None:
        partner = self.partners.get(message.sender)
        if partner is None or message.type != SAID:
            _logger.warning("an external message was refused", extra={"sender": message.sender, "type": message.type})
            return
        try:
            said = said_in(message.payload)
        except ValueError as error:
            partner.received += 1
            partner.refused_in += 1
            partner.problem = f"said what {error}"
            return
        partner.received += said.rows.size
        own = (said.rows >= partner.first) & (said.rows < partner.last)
        if not bool(own.all()):
            partner.problem = "spoke for rows that are not its own"
        if len(self._waiting) >= _MOST_WAITING:
            partner.refused_in += said.rows.size
            partner.problem = "said more than can wait"
            return
        partner.refused_in += int(said.rows.size - own.sum())
        partner.applied += int(own.sum())
        partner.answered = max(partner.answered, said.tick)
        if partner.away:
            partner.away, partner.missed, partner.problem = False, 0, None
            _logger.warning("an external partner is back", extra={"partner": partner.name})
        self._waiting.append((partner, Said(said.tick, said.rows[own], said.opinions[own])))
