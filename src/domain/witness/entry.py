"""Entries: the facts of the record as documents, in which free text stands as a salted commitment only.

Every kind of entry is made here, because whoever verifies the record has to know all of them.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from domain.models.money import Charge, Hold, Reservation, usd
from domain.models.question import AnswerFormat, AnswerKind
from domain.models.round import AgentRecord
from domain.voting.synthesis import label_of
from domain.voting.weights import UNITS_OF_A_WEIGHTED_VOTE
from domain.witness.merkle import CompactRange
from domain.witness.result_documents import recorded_outcome, round_document, usage_document

if TYPE_CHECKING:
    from domain.models.budget import Usage
    from domain.models.deliberation import Deliberation
    from domain.models.round import Round
    from domain.voting.rule import Rule

__all__ = [
    "COMPARISON",
    "MAX_ENTRY_BYTES",
    "NOBODY",
    "RECORD_TEXTS",
    "SALT_BYTES",
    "Entry",
    "accepted",
    "accepted_texts",
    "agent_ended",
    "call_intended",
    "certificate",
    "commitment",
    "deliberation_ended",
    "record_of",
    "record_texts",
    "recorded_rule",
    "round_started",
    "salt_at",
    "sealed",
    "texts_compared",
    "time_text",
]

MAX_ENTRY_BYTES = 60_000
"""The most that an entry may take; a tlog-tiles entry has room for 65,535."""

SALT_BYTES = 16
RECORD_TEXTS = ("content", "reasoning", "message", "answer")
"""The texts of an agent's record, in the order of their salts."""

_LARGEST_EXACT = 2**53 - 1
_NOTHING = Hold()

COMPARISON = "comparison"
"""What a call is for that compares texts, as the log and the ledger name it."""

NOBODY = ""
"""Whose call it is then: no agent's."""

Salts = Callable[[int], bytes]
"""So many random bytes."""


@dataclass(slots=True)
class Entry:
    """One fact to be recorded. `salts` are those of its texts, which are kept beside it; `record` is what an agent ended with.

    An intended call has a `reservation`; the `charge` is that of the call before, which is over with this entry. `record_sha256` of
    `deliberation.ended` and the record in its certificate are filled in where the entry gets its place, because only there all entries
    before it are known.
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
    # Written out rather than by `commitment`: there is one for every persona, and lists make them again for every hit.
    committed = [
        None
        if text is None
        else {"sha256": hashlib.sha256(drawn[start : start + SALT_BYTES] + text.encode()).hexdigest()}
        for start, text in zip(range(0, SALT_BYTES * len(texts), SALT_BYTES), texts, strict=True)
    ]
    question, context, key_name, *personas = committed
    limits, sampling = specification.limits, specification.sampling
    document: dict[str, Any] = {
        "type": "deliberation.accepted",
        "at": time_text(deliberation.created_at),
        "deliberation_id": deliberation.id,
        "question": question,
        "context": context,
        "answer": _answer_format(specification.question.answer),
        "protocol": {"kind": specification.protocol.kind.value, **specification.protocol.settings()},
        "rule": recorded_rule(specification.rule, [agent.id for agent in specification.roster.agents]),
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
        "origin": specification.topic_origin,
        "key_name": key_name,
        "orchestrator": deliberation.orchestrator,
        "simulated": deliberation.simulated,
    }
    if specification.control is not None:
        document["control"] = {"model": specification.control.model}
    return Entry(document, drawn)


def recorded_rule(rule: Rule, members: Sequence[str]) -> dict[str, Any]:
    """The rule in full; learned weights stand in the order of the members, in hundredths of a vote, so that none is needed to count."""
    document: dict[str, Any] = {"kind": rule.kind.value, "fraction": rule.fraction, **rule.settings()}
    if rule.weights:
        document["weights"] = [rule.weights.get(agent_id, UNITS_OF_A_WEIGHTED_VOTE) for agent_id in members]
    return document


def round_started(
    deliberation_id: str,
    number: int,
    agents: Sequence[str],
    *,
    at: datetime,
    purpose: str = "answer",
    answers: AnswerFormat | None = None,
    previous: Round | None = None,
) -> Entry:
    """A round began, in which these agents are asked.

    After the blind round it says for what purpose, in what format its `answers` are recorded, and how the `previous` one ended.
    """
    document: dict[str, Any] = {
        "type": "round.started",
        "at": time_text(at),
        "deliberation_id": deliberation_id,
        "round": number,
        "agents": list(agents),
    }
    if previous is not None:
        document["purpose"] = purpose
        document["answer"] = None if answers is None else _answer_format(answers)
        document["previous"] = round_document(previous)
    return Entry(document)


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
    purpose: str = "answer",
) -> Entry:
    """An agent is about to be called. The prompt is not stored: its salt is that of the question.

    `hold` is what the call takes at most. `previous` is how the attempt before ended, state, kind and what it took, so that every
    attempt has one recorded end: the last one's is in `agent.ended`. A call for the `purpose` of `COMPARISON` is nobody's: its agent is
    the empty text, and its last end is in `texts.compared`.
    """
    document: dict[str, Any] = {
        "type": "call.intended",
        "at": time_text(at),
        "deliberation_id": deliberation_id,
        "round": round_number,
        "agent_id": agent_id,
        "attempt": attempt,
        "purpose": purpose,
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


def texts_compared(
    deliberation_id: str,
    *,
    at: datetime,
    round_number: int,
    attempt: int,
    model: str | None,
    usage: Usage,
    failure: str | None = None,
) -> Entry:
    """The calls that were to compare the texts of a round are over: what all of them took, and how the last one failed where it did."""
    return Entry(
        {
            "type": "texts.compared",
            "at": time_text(at),
            "deliberation_id": deliberation_id,
            "round": round_number,
            "agent_id": NOBODY,
            "attempt": attempt,
            "purpose": COMPARISON,
            "model": model,
            "usage": usage_document(usage),
            "failure": failure,
        }
    )


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
            "outcome": None
            if deliberation.outcome is None
            else recorded_outcome(deliberation.outcome, deliberation.specification.question.answer),
            "roll_call": deliberation.roll_call.as_counts(),
            "rounds": [
                # Those before the last have their tallies in the entries of the rounds after them.
                round_document(round_ if round_ is deliberation.rounds[-1] else replace(round_, tally={}, kept={}))
                for round_ in deliberation.rounds
            ],
            "usage": usage_document(deliberation.usage),
            "record_sha256": None,
            "certificate": certificate(deliberation),
        }
    )


def certificate(deliberation: Deliberation) -> dict[str, Any]:
    """What the end certifies at a glance: the decision, who dissents, who took part, and the record that it follows from.

    The `record` is filled in by `sealed`: how many entries there were before the end, and the Merkle root (RFC 6962) of their leaves.
    """
    outcome, roll_call = deliberation.outcome, deliberation.roll_call
    return {
        "decision": None if outcome is None else label_of(outcome),
        "dissent": None
        if outcome is None
        else {
            "percentage": outcome.dissent.percentage,
            "positions": len(outcome.dissent.positions),
            "agents": sum(position.count for position in outcome.dissent.positions),
        },
        "participation": {
            "asked": roll_call.asked,
            "took_part": roll_call.took_part,
            "quorum": deliberation.specification.quorum.min_answered_fraction,
            "quorate": deliberation.specification.quorum.is_met(roll_call),
        },
        "record": None,
    }


def sealed(document: Mapping[str, Any], leaves: Sequence[bytes]) -> dict[str, Any]:
    """The end of a deliberation over the leaf hashes (32 bytes each) of all its entries before, in their order."""
    whole = {**document, "record_sha256": hashlib.sha256(b"".join(leaves)).hexdigest()}
    if document.get("certificate") is not None:
        whole["certificate"] = {**document["certificate"], "record": record_of(leaves)}
    return whole


def record_of(leaves: Sequence[bytes]) -> dict[str, Any]:
    """How many leaves there are, and the Merkle root (hex) of them alone."""
    tree = CompactRange()
    tree.extend(leaves)
    return {"entries": len(leaves), "root_hash": tree.root().hex()}


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
