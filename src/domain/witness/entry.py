"""Entries: the facts of the record as documents, in which free text stands as a salted commitment only."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from domain.models.money import Charge, Hold, Reservation, usd
from domain.models.question import AnswerFormat, AnswerKind
from domain.models.round import AgentRecord

if TYPE_CHECKING:
    from domain.models.budget import Usage
    from domain.models.deliberation import Deliberation
    from domain.models.outcome import Outcome
    from domain.models.round import Round

__all__ = [
    "MAX_ENTRY_BYTES",
    "RECORD_TEXTS",
    "SALT_BYTES",
    "Entry",
    "accepted",
    "accepted_texts",
    "agent_ended",
    "call_intended",
    "commitment",
    "deliberation_ended",
    "outcome_document",
    "record_texts",
    "round_document",
    "round_started",
    "salt_at",
    "time_text",
    "usage_document",
]

MAX_ENTRY_BYTES = 60_000
"""The most that an entry may take; a tlog-tiles entry has room for 65,535."""

SALT_BYTES = 16
RECORD_TEXTS = ("content", "reasoning", "message", "answer")
"""The texts of an agent's record, in the order of their salts."""

_LARGEST_EXACT = 2**53 - 1
_NOTHING = Hold()

Salts = Callable[[int], bytes]
"""So many random bytes."""


@dataclass(slots=True)
class Entry:
    """One fact to be recorded. `salts` are those of its texts, which are kept beside it; `record` is what an agent ended with.

    An intended call has a `reservation`; the `charge` is that of the call before, which is over with this entry. `record_sha256` of
    `deliberation.ended` is filled in where the entry gets its place, because only there all entries before it are known.
    """

    document: dict[str, Any]
    salts: bytes = b""
    record: AgentRecord | None = None
    reservation: Reservation | None = None
    charge: Charge | None = None


def commitment(salt: bytes, text: str | None) -> dict[str, str] | None:
    """`{"sha256": hex}` of SHA-256(salt || UTF-8 text), or None for no text."""
    return None if text is None else {"sha256": hashlib.sha256(salt + text.encode()).hexdigest()}


def salt_at(salts: bytes, place: int) -> bytes:
    """The salt of the text at that place."""
    return salts[place * SALT_BYTES : (place + 1) * SALT_BYTES]


def time_text(at: datetime) -> str:
    """RFC 3339 in UTC, to the microsecond."""
    if at.tzinfo is not UTC:
        if at.tzinfo is None:
            raise ValueError(f"{at!r} has no time zone: times are recorded in UTC.")
        at = at.astimezone(UTC)
    return f"{at.isoformat(timespec='microseconds')[:26]}Z"


def accepted_texts(deliberation: Deliberation) -> list[str | None]:
    """The texts of `deliberation.accepted` in the order of their salts: question, context, key name, then the personas."""
    specification = deliberation.specification
    question = specification.question
    personas = [agent.persona.text for agent in specification.roster.agents]
    return [question.text, question.context, deliberation.key_name, *personas]


def accepted(deliberation: Deliberation, *, salts: Salts = os.urandom) -> Entry:
    """The deliberation as it was accepted."""
    specification = deliberation.specification
    texts = accepted_texts(deliberation)
    drawn = salts(SALT_BYTES * len(texts))
    committed = [commitment(salt_at(drawn, place), text) for place, text in enumerate(texts)]
    question, context, key_name, *personas = committed
    limits, sampling = specification.limits, specification.sampling
    document = {
        "type": "deliberation.accepted",
        "at": time_text(deliberation.created_at),
        "deliberation_id": deliberation.id,
        "question": question,
        "context": context,
        "answer": _answer_format(specification.question.answer),
        "protocol": {"kind": specification.protocol.kind.value, "wave_size": specification.protocol.wave_size},
        "rule": {"kind": specification.rule.kind.value, "fraction": specification.rule.fraction},
        "quorum": {"min_answered_fraction": specification.quorum.min_answered_fraction},
        "limits": {
            "agent_timeout_s": limits.agent_timeout_s,
            "deadline_s": limits.deadline_s,
            "max_attempts": limits.max_attempts,
            "max_total_tokens": limits.max_total_tokens,
            "max_cost_usd": limits.max_cost_usd,
        },
        "sampling": {"temperature": sampling.temperature, "max_output_tokens": sampling.max_output_tokens},
        "roster": specification.roster.name,
        "members": [
            {"agent_id": agent.id, "model": agent.model, "persona": persona}
            for agent, persona in zip(specification.roster.agents, personas, strict=True)
        ],
        "seed": _seed(specification.seed),
        "origin": specification.metadata.get("origin"),
        "key_name": key_name,
        "orchestrator": deliberation.orchestrator,
        "simulated": deliberation.simulated,
    }
    return Entry(document, drawn)


def round_started(deliberation_id: str, number: int, agents: Sequence[str], *, at: datetime) -> Entry:
    """A round began, in which these agents are asked."""
    return Entry(
        {
            "type": "round.started",
            "at": time_text(at),
            "deliberation_id": deliberation_id,
            "round": number,
            "agents": list(agents),
        }
    )


def call_intended(
    deliberation_id: str,
    *,
    at: datetime,
    round_number: int,
    agent_id: str,
    attempt: int,
    model: str | None,
    prompt: str | None,
    prompt_salt: bytes,
    prompt_version: str | None = None,
    hold: Hold = _NOTHING,
    previous: tuple[str, str, Usage] | None = None,
) -> Entry:
    """An agent is about to be called. The prompt is not stored: its salt is that of the question.

    `hold` is what the call takes at most. `previous` is how the attempt before ended, state, kind and what it took, so that every
    attempt has one recorded end: the last one's is in `agent.ended`.
    """
    document: dict[str, Any] = {
        "type": "call.intended",
        "at": time_text(at),
        "deliberation_id": deliberation_id,
        "round": round_number,
        "agent_id": agent_id,
        "attempt": attempt,
        "purpose": "answer",
        "model": model,
        "prompt": commitment(prompt_salt, prompt),
        "previous": None,
    }
    # What says nothing is left out: there is one of these for every call.
    if prompt_version is not None:
        document["prompt_version"] = prompt_version
    if hold != _NOTHING:
        document["held"] = {"tokens": hold.tokens, "cost_usd": None if hold.cost is None else usd(hold.cost)}
    if previous is not None:
        state, kind, usage = previous
        document["previous"] = {"state": state, "kind": kind, "usage": usage_document(usage)}
    return Entry(document)


def record_texts(record: AgentRecord, *, answers_by_text: bool) -> tuple[str | None, ...]:
    """The texts of a record in the order of `RECORD_TEXTS`; an answer is one of them only where free text was asked for."""
    message = None if record.failure is None else record.failure.message
    answer = record.answer if answers_by_text and isinstance(record.answer, str) else None
    return record.content, record.reasoning, message, answer


def agent_ended(
    deliberation_id: str, record: AgentRecord, answers: AnswerFormat, *, salts: Salts = os.urandom
) -> Entry:
    """How an agent ended, with its texts as commitments."""
    drawn = salts(SALT_BYTES * len(RECORD_TEXTS))
    failure, started_at = record.failure, record.started_at
    document = {
        "type": "agent.ended",
        "at": time_text(record.finished_at),
        "deliberation_id": deliberation_id,
        "round": record.round_number,
        "agent_id": record.agent_id,
        "attempt": record.attempts,
        "state": record.state.value,
        "answer": _recorded_answer(record, answers, drawn[48:]),
        "confidence": record.confidence,
        "content": commitment(drawn[:16], record.content),
        "reasoning": commitment(drawn[16:32], record.reasoning),
        "model": record.model,
        "usage": usage_document(record.usage),
        "failure": None
        if failure is None
        else {"kind": failure.kind, "message": commitment(drawn[32:48], failure.message)},
        "started_at": None if started_at is None else time_text(started_at),
        "duration_s": record.duration_seconds,
        "truncated": record.truncated,
        "model_asked": record.model_asked,
    }
    if record.fell_back:
        document["fell_back"] = True
    return Entry(document, drawn, record)


def deliberation_ended(deliberation: Deliberation, *, cause: str | None = None) -> Entry:
    """The end of a deliberation; its outcome stands without the reasons, which are texts of agents."""
    finished_at = deliberation.finished_at
    if finished_at is None:
        raise ValueError("a deliberation that has not ended has no outcome to record")
    return Entry(
        {
            "type": "deliberation.ended",
            "at": time_text(finished_at),
            "deliberation_id": deliberation.id,
            "status": deliberation.status.value,
            "cause": cause,
            "outcome": None if deliberation.outcome is None else outcome_document(deliberation.outcome),
            "roll_call": deliberation.roll_call.as_counts(),
            "rounds": [round_document(round_) for round_ in deliberation.rounds],
            "usage": usage_document(deliberation.usage),
            "record_sha256": None,
        }
    )


def usage_document(usage: Usage) -> dict[str, Any]:
    """Calls, tokens and US dollars, and where there are calls whose end nobody knows, what those may have taken at most."""
    document: dict[str, Any] = {
        "calls": usage.calls,
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cost_usd": usage.cost_usd,
    }
    if usage.uncertain_tokens or usage.uncertain_usd:
        document["uncertain_tokens"] = usage.uncertain_tokens
        document["uncertain_usd"] = usage.uncertain_usd
    return document


def outcome_document(outcome: Outcome) -> dict[str, Any]:
    """The outcome as the contract shows it, without the reasons of its positions."""
    return {
        "status": outcome.status.value,
        "decision": outcome.decision,
        "rule": outcome.rule,
        "tally": dict(outcome.tally),
        "margin": outcome.margin,
        "spread": outcome.spread,
        "dissent": {
            "percentage": outcome.dissent.percentage,
            "positions": [
                {"answer": position.answer, "count": position.count, "agents": list(position.agents)}
                for position in outcome.dissent.positions
            ],
        },
        "blind_tally": dict(outcome.blind_tally),
        "changed": [
            {"agent_id": change.agent_id, "from": change.before, "to": change.after} for change in outcome.changed
        ],
        "effective_votes": outcome.effective_votes,
        "robustness": {"rules_agreeing": list(outcome.rules_agreeing), "votes_to_flip": outcome.votes_to_flip},
    }


def round_document(round_: Round) -> dict[str, Any]:
    """Number, roll call and tally of a finished round."""
    return {"round": round_.number, "roll_call": round_.roll_call.as_counts(), "tally": dict(round_.tally)}


def _answer_format(answer: AnswerFormat) -> dict[str, Any]:
    document: dict[str, Any] = {"kind": answer.kind.value}
    if answer.kind.has_options:
        document["options"] = list(answer.options)
    bounds = {"min": answer.minimum, "max": answer.maximum, "unit": answer.unit}
    return document | {name: value for name, value in bounds.items() if value is not None}


def _seed(seed: int | None) -> int | str | None:
    """The seed as a number, or in digits where a reader of JSON would round it (RFC 8785 section 3.2.2.3)."""
    return str(seed) if seed is not None and abs(seed) > _LARGEST_EXACT else seed


def _recorded_answer(record: AgentRecord, answers: AnswerFormat, salt: bytes) -> Any:
    answer = record.answer
    if answer is None or isinstance(answer, int | float):
        return answer
    if answers.kind.has_options:
        place = answers.options.index
        return place(answer) if isinstance(answer, str) else [place(option) for option in answer]
    if answers.kind is AnswerKind.TEXT and isinstance(answer, str):
        return commitment(salt, answer)
    return answer
