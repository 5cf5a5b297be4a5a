"""Safety: holds every message to the rules of the task, and halts the swarm on one that is broken."""

from __future__ import annotations

import time
from collections.abc import Callable

from application.services.swarm.ledger import Ledger
from application.services.swarm.task import TaskTerms
from application.services.swarm.voice import Voice
from application.services.swarm.words import COORDINATOR, DELEGATIONS, SAFETY, Delegated, Say
from domain.models.message import Message, Payload

__all__ = ["Safety"]

_SHOWN = 100


class Safety:
    """Keeps a ledger of its own, so that what Memory remembers is what a second reader found sound."""

    name = SAFETY

    def __init__(self, voice: Voice, terms: TaskTerms, *, timer: Callable[[], float] = time.perf_counter) -> None:
        self.groups = (DELEGATIONS, terms.group)
        self._ledger = Ledger(terms)
        self._voice = voice
        self._group = terms.group
        self._timer = timer
        self._offences: list[Payload] = []

    async def take(self, messages: list[Message]) -> None:
        """Check, and veto."""
        ledger, now = self._ledger, self._timer()
        for message in messages:
            if message.recipient == self._group:
                before = len(ledger.offences)
                ledger.judge(message, now)
                for offence in ledger.offences[before:]:
                    await self._veto({**offence.payload()})
            elif message.type == Say.SUSPECT and isinstance(message.payload, dict):
                await self._veto({**message.payload, "agent_id": message.sender})
            elif message.sender != COORDINATOR:
                continue
            elif message.type == Say.DELEGATE:
                for delegated in Delegated.read(message.payload):
                    ledger.ask(delegated)
            elif message.type == Say.VERDICT:
                verdict: Payload = {"cleared": ledger.received, "vetoes": self._offences[:_SHOWN]}
                await self._voice.answer(message, verdict)

    async def _veto(self, offence: dict[str, Payload]) -> None:
        self._offences.append(offence)
        # One is enough to halt; the others are for the report.
        if len(self._offences) == 1:
            await self._voice.say([self._voice.tell(SAFETY, COORDINATOR, Say.VETO, offence, urgent=True)])
