"""Who was asked and what each agent came to: counts every agent once, and knows which results break a rule."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from application.services.swarm.task import TaskTerms
from application.services.swarm.words import Delegated, Failed, Result, Say
from domain.models.message import Message, Payload

__all__ = ["Ledger", "Offence", "Rule", "Ruling"]


class Rule(StrEnum):
    """What no message to the group of results may do."""

    UNREADABLE = "unreadable"
    NOT_ASKED = "not_asked"
    FOREIGN_ID = "foreign_id"
    NOT_ALLOWED = "not_allowed"
    DIFFERS = "differs"


class Ruling(StrEnum):
    """What a message came to."""

    COUNTED = "counted"
    DUPLICATE = "duplicate"
    FAILED = "failed"
    OFFENCE = "offence"


@dataclass(frozen=True, slots=True)
class Offence:
    """A rule that was broken: by which sender, in whose name, and how."""

    rule: Rule
    sender: str
    agent_id: str
    detail: str

    def payload(self) -> dict[str, Payload]:
        """As it travels and as it is reported."""
        return {"rule": self.rule.value, "sender": self.sender, "agent_id": self.agent_id, "detail": self.detail}


@dataclass(slots=True)
class _Asked:
    """One agent that was asked, under one ticket for each attempt."""

    number: int
    batch: int
    tickets: dict[int, str] = field(default_factory=dict)
    # The attempt that counted, and when it was asked for.
    counted: int = 0
    at: float = 0.0
    result: Payload = None
    failure: Failed | None = None


class Ledger:
    """Judges messages to the group of results by the terms of the task, in the order in which they come."""

    def __init__(self, terms: TaskTerms) -> None:
        self._terms = terms
        self._asked: dict[str, _Asked] = {}
        self._open: dict[int, set[str]] = {}
        self._members: dict[int, list[str]] = {}
        self._ended: list[int] = []
        self.received = 0
        self.duplicates = 0
        self.offences: list[Offence] = []
        self.latencies: list[float] = []

    def ask(self, delegated: Delegated) -> None:
        """Note that the agents of a batch are asked, or asked once more."""
        waiting = self._open.setdefault(delegated.batch, set())
        for number, ticket in zip(delegated.numbers, delegated.tickets, strict=True):
            agent_id = self._terms.agent_id(number)
            one = self._asked.get(agent_id)
            if one is None:
                one = self._asked[agent_id] = _Asked(number, delegated.batch)
                self._members.setdefault(delegated.batch, []).append(agent_id)
            one.tickets[delegated.attempt] = ticket
            one.failure = None
            if not one.counted:
                one.at = delegated.at
                waiting.add(agent_id)

    def judge(self, message: Message, at: float) -> Ruling:
        """What a message comes to; `at` is when it was taken, by the timer that `Delegated.at` is from."""
        if message.type == Say.FAILED:
            return self._note_failure(message)
        result = Result.read(message) if message.type == self._terms.result_type else None
        if result is None:
            return self._offend(
                Rule.UNREADABLE, message, message.sender, f"a message {message.type!r} without a result"
            )
        one = self._asked.get(result.agent_id)
        if one is None:
            return self._offend(Rule.NOT_ASKED, message, result.agent_id, "nobody asked this agent")
        if message.sender != result.agent_id or one.tickets.get(result.attempt) != result.ticket:
            return self._offend(Rule.FOREIGN_ID, message, result.agent_id, "claims an id without having its ticket")
        allowed = self._terms.allowed
        if allowed is not None and not (isinstance(result.result, str) and result.result in allowed):
            detail = f"{_short(result.result)} is none of {', '.join(sorted(allowed))}"
            return self._offend(Rule.NOT_ALLOWED, message, result.agent_id, detail)
        if one.counted:
            # What was asked for again may come out differently, where the task does not promise otherwise.
            same_try = one.counted == result.attempt or self._terms.repeatable
            if same_try and one.result != result.result:
                detail = f"{_short(result.result)} after {_short(one.result)}"
                return self._offend(Rule.DIFFERS, message, result.agent_id, detail)
            self.duplicates += 1
            return Ruling.DUPLICATE
        one.counted = result.attempt
        one.result = result.result
        one.failure = None
        self.received += 1
        self.latencies.append(at - one.at)
        self._end(one.batch, result.agent_id)
        return Ruling.COUNTED

    def take_ended(self) -> list[int]:
        """The batches all of whose agents have ended since this was last asked."""
        ended, self._ended = self._ended, []
        return ended

    def failures_of(self, batch: int) -> list[tuple[int, Failed]]:
        """The numbers of those agents of a batch whose last attempt failed, and how."""
        members = (self._asked[agent_id] for agent_id in self._members.get(batch, ()))
        return [(one.number, one.failure) for one in members if one.failure is not None and not one.counted]

    def missing(self, batch: int) -> list[int]:
        """The numbers of the agents of a batch of whom nothing was heard."""
        return sorted(self._asked[agent_id].number for agent_id in self._open.get(batch, ()))

    def results(self) -> list[tuple[str, Payload]]:
        """Each counted agent and its result, in the order of the agents' numbers."""
        counted = sorted((one.number, name) for name, one in self._asked.items() if one.counted)
        return [(name, self._asked[name].result) for _, name in counted]

    def _note_failure(self, message: Message) -> Ruling:
        failed = Failed.read(message)
        if failed is None:
            return self._offend(Rule.UNREADABLE, message, message.sender, "a failure that does not say whose")
        one = self._asked.get(failed.agent_id)
        if one is None:
            return self._offend(Rule.NOT_ASKED, message, failed.agent_id, "nobody asked this agent")
        if one.tickets.get(failed.attempt) != failed.ticket:
            return self._offend(Rule.FOREIGN_ID, message, failed.agent_id, "claims an id without having its ticket")
        if not one.counted:
            one.failure = failed
            self._end(one.batch, failed.agent_id)
        return Ruling.FAILED

    def _end(self, batch: int, agent_id: str) -> None:
        waiting = self._open.get(batch)
        if waiting is None:
            return
        waiting.discard(agent_id)
        if not waiting:
            del self._open[batch]
            self._ended.append(batch)

    def _offend(self, rule: Rule, message: Message, agent_id: str, detail: str) -> Ruling:
        # Remembered as far as a report has room for.
        self.offences.append(Offence(rule, _cut(message.sender), _cut(agent_id), detail))
        del self.offences[_MAX_OFFENCES:]
        return Ruling.OFFENCE


_MAX_OFFENCES = 1_000
_SHOWN_CHARACTERS = 80


def _short(value: Payload) -> str:
    return _cut(repr(value))


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."
