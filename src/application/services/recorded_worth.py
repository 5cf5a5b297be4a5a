"""What a result is worth as far as its own entries tell, for a reader who has nothing but them and their disclosures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from application.services.verification.tally import read_ballot_answer
from application.services.verification.terms import Terms, read_terms
from domain.analysis.decision import decide
from domain.analysis.worth import Worth, assess
from domain.errors.witness import VerificationRefusedError
from domain.models.agent import Agent, Persona, Roster
from domain.models.deliberation import Deliberation, DeliberationStatus, Specification
from domain.models.protocol import Protocol
from domain.models.question import AnswerKind, Question
from domain.models.roll_call import AgentState
from domain.models.round import AgentRecord, FailureCause
from domain.voting.rule import Rule

__all__ = ["recorded_worth"]

_Entry = Mapping[str, Any]

# When anything happened changes nothing of what it is worth.
_WHENEVER = datetime.min.replace(tzinfo=UTC)


def recorded_worth(entries: Sequence[_Entry], texts: Mapping[str, str]) -> Worth | None:
    """What the entries of one deliberation, in their order, say of it; `texts` are the disclosed ones by their commitment (hex).

    Other deliberations are not looked at, so nothing is said of effective votes but bounds. None before its end, and where this
    version cannot count by its rule.
    """
    accepted = next((entry for entry in entries if entry["type"] == "deliberation.accepted"), None)
    ended = next((entry for entry in entries if entry["type"] == "deliberation.ended"), None)
    if accepted is None or ended is None:
        return None
    try:
        terms = read_terms(accepted, 0)
        records = [_record(entry, terms, texts) for entry in entries if entry["type"] == "agent.ended"]
    except (VerificationRefusedError, LookupError, ValueError, TypeError):
        # Entries that another version wrote: what they say is told, and nothing is derived from it.
        return None
    if terms.rule is None:
        return None
    return assess(_deliberation(accepted, ended, terms, terms.rule, records, texts))


def _deliberation(
    accepted: _Entry,
    ended: _Entry,
    terms: Terms,
    rule: Rule,
    records: Sequence[AgentRecord],
    texts: Mapping[str, str],
) -> Deliberation:
    agents = tuple(
        Agent(each["agent_id"], Persona(_text(each["persona"], texts) or ""), each["model"])
        for each in accepted["members"]
    )
    specification = Specification(
        Question("", None, terms.answer),
        Roster(str(accepted.get("roster", "")), agents),
        rule,
        protocol=terms.protocol if terms.protocol is not None else Protocol(),
        quorum=terms.quorum,
        seed=terms.seed,
    )
    running = Deliberation(str(ended["deliberation_id"]), specification, _WHENEVER, status=DeliberationStatus.RUNNING)
    status = DeliberationStatus(ended["status"])
    if not records:
        return running.end(status, at=_WHENEVER)
    if terms.answer.kind is AnswerKind.TEXT:
        # Of texts the log holds commitments, of which nothing can be counted; who was missing can be said.
        rounds, _ = decide(running, records)
        return running.end(DeliberationStatus.INQUORATE, at=_WHENEVER, rounds=rounds)
    rounds, outcome = decide(running, records)
    return running.end(
        status, at=_WHENEVER, rounds=rounds, outcome=outcome if status is DeliberationStatus.COMPLETED else None
    )


def _record(entry: _Entry, terms: Terms, texts: Mapping[str, str]) -> AgentRecord:
    state, number = AgentState(entry["state"]), int(entry["round"])
    failure = entry["failure"]
    return AgentRecord(
        number,
        entry["agent_id"],
        state,
        int(entry["attempt"]),
        None,
        _WHENEVER,
        answer=read_ballot_answer(entry, terms.answers_in(number), 0),
        confidence=entry.get("confidence"),
        reasoning=_text(entry.get("reasoning"), texts),
        failure=None if failure is None else FailureCause(failure["kind"], ""),
        model_asked=entry.get("model_asked"),
        model=entry.get("model"),
    )


def _text(committed: Mapping[str, str] | None, texts: Mapping[str, str]) -> str | None:
    return None if committed is None else texts.get(committed["sha256"])
