"""The Memory of a swarm: remembers each agent's result once, and says which batches have ended."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from application.services.swarm.figures import latency_histogram, latency_summary
from application.services.swarm.ledger import Ledger
from application.services.swarm.task import TaskTerms
from application.services.swarm.voice import Voice
from application.services.swarm.words import BACKUP, COORDINATOR, DELEGATIONS, MEMORY, Delegated, Say
from domain.models.message import Message, Payload

__all__ = ["Memory"]

_FAILURES_AT_A_TIME = 1_000
# A part has room beside it in a message of the bus's own limit, 1 MiB.
_PART_BYTES = 400_000


class Memory:
    """Counts exactly once per agent; what breaks a rule is not remembered."""

    name = MEMORY

    def __init__(self, voice: Voice, terms: TaskTerms, *, timer: Callable[[], float] = time.perf_counter) -> None:
        self.groups = (DELEGATIONS, terms.group)
        self.ledger = Ledger(terms)
        self._voice = voice
        self._terms = terms
        self._timer = timer

    async def take(self, messages: list[Message]) -> None:
        """Remember, and tell the Coordinator what has ended."""
        ledger, now = self.ledger, self._timer()
        for message in messages:
            if message.recipient == self._terms.group:
                ledger.judge(message, now)
            elif message.sender != COORDINATOR:
                continue
            elif message.type == Say.DELEGATE:
                for delegated in Delegated.read(message.payload):
                    ledger.ask(delegated)
            elif message.type == Say.MISSING:
                await self._answer_missing(message)
            elif message.type == Say.HAND_OVER:
                await self._hand_over(message)
        await self._report(ledger.take_ended())

    async def _report(self, ended: list[int]) -> None:
        if not ended:
            return
        failures = self._failures(ended)
        reports: list[Payload] = [
            {"batches": [], "failures": failures[first : first + _FAILURES_AT_A_TIME]}
            for first in range(0, len(failures), _FAILURES_AT_A_TIME)
        ]
        reports.append({"batches": [*ended], "failures": []})
        await self._voice.say([Message(MEMORY, COORDINATOR, Say.REMEMBERED, report) for report in reports])

    def _failures(self, batches: list[int]) -> list[Payload]:
        return [
            {"number": number, "batch": batch, "kind": one.kind, "message": one.message, "final": one.final}
            for batch in batches
            for number, one in self.ledger.failures_of(batch)
        ]

    async def _answer_missing(self, request: Message) -> None:
        asked = request.payload.get("batches") if isinstance(request.payload, dict) else None
        batches = [batch for batch in asked if isinstance(batch, int)] if isinstance(asked, list) else []
        missing: Payload = {str(batch): [*self.ledger.missing(batch)] for batch in batches}
        await self._voice.answer(
            request, {"missing": missing, "failures": self._failures(batches)[:_FAILURES_AT_A_TIME]}
        )

    async def _hand_over(self, request: Message) -> None:
        """Give Backup all results, and the Coordinator their sums."""
        results = self.ledger.results()
        parts = list(_parts(results))
        await self._voice.say([Message(MEMORY, BACKUP, Say.RESULTS, {"results": part}) for part in parts])
        sums: dict[str, int] = {}
        for name in sorted(self._terms.allowed or ()):
            sums[name] = sum(result == name for _, result in results)
        await self._voice.answer(
            request,
            {
                "parts": len(parts),
                "received": self.ledger.received,
                "duplicates": self.ledger.duplicates,
                "sums": {**sums},
                "latency_us": {**latency_summary(self.ledger.latencies)},
                "latency_histogram": [{**each} for each in latency_histogram(self.ledger.latencies)],
            },
        )


def _parts(results: list[tuple[str, Payload]]) -> Iterator[list[Payload]]:
    part: list[Payload] = []
    size = 0
    for agent_id, result in results:
        part.append({"agent_id": agent_id, "result": result})
        # Close enough: what is not a text was measured by the Tool, and is seldom.
        size += 100 + (len(result) * 6 if isinstance(result, str) else len(repr(result)) * 2)
        if size >= _PART_BYTES:
            yield part
            part, size = [], 0
    if part:
        yield part
