"""Computes the outcome of a deliberation again from what its entries say was asked and answered."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from application.services.verification.reading import shown
from domain.errors.witness import VerificationRefusedError
from domain.models.budget import Quorum
from domain.models.outcome import Outcome
from domain.models.protocol import ProtocolKind
from domain.models.question import AnswerFormat, AnswerKind
from domain.models.roll_call import AgentState
from domain.voting.ballot import Answer, Ballot
from domain.voting.rule import Rule, RuleKind, apply_rule, rules_for

__all__ = ["Terms", "compare_outcome", "differing", "read_ballot_answer", "read_terms", "recompute"]

_RULE_FIELDS = frozenset({"kind", "fraction"})


@dataclass(frozen=True, slots=True)
class Terms:
    """What was agreed before anyone was asked. `rule` is None when this version cannot apply it; `not_recomputed` says why."""

    answer: AnswerFormat
    quorum: Quorum
    members: Mapping[str, int]
    rule: Rule | None
    not_recomputed: str | None


def read_terms(entry: Mapping[str, Any], index: int) -> Terms:
    """The terms in a `deliberation.accepted` that was read. Raises `VerificationRefusedError`."""
    answer = _answer_format(entry["answer"], index)
    members = {member["agent_id"]: place for place, member in enumerate(entry["members"])}
    if len(members) < len(entry["members"]):
        raise VerificationRefusedError("an agent is a member twice", index=index)
    quorum = Quorum(float(entry["quorum"]["min_answered_fraction"]))
    if quorum.problems():
        raise VerificationRefusedError("the quorum is not from 0 to 1", index=index)
    rule, why_not = _rule(entry["rule"], answer, str(entry["protocol"]["kind"]))
    return Terms(answer, quorum, members, rule, why_not)


def read_ballot_answer(entry: Mapping[str, Any], answer: AnswerFormat, index: int) -> Answer:
    """The answer in an `agent.ended` that was read, as the rule takes it; a text stands as its commitment.

    Raises `VerificationRefusedError` for an answer of another kind, and for one of an agent that did not answer.
    """
    value, state = entry["answer"], AgentState(entry["state"])
    if (value is not None) != (state is AgentState.ANSWERED):
        raise VerificationRefusedError(
            f"an agent that ended as {state.value!r} has {'an' if value is not None else 'no'} answer", index=index
        )
    if (entry["failure"] is None) != state.took_part:
        raise VerificationRefusedError(
            f"an agent that ended as {state.value!r} has {'a' if state.took_part else 'no'} failure", index=index
        )
    if value is None:
        return None
    kind = answer.kind
    if kind is AnswerKind.CHOICE and _is_place(value, answer.options):
        return answer.options[int(value)]
    if kind in {AnswerKind.APPROVAL, AnswerKind.RANKING} and type(value) is list:
        several = len(set(value)) == len(value) and all(_is_place(place, answer.options) for place in value)
        if several and (value or kind is AnswerKind.APPROVAL):
            return tuple(answer.options[place] for place in value)
    if kind is AnswerKind.VERDICT and value in ("yes", "no"):
        return str(value)
    if kind.is_estimate and type(value) in {int, float} and _is_in_range(float(value), answer):
        return float(value)
    if kind is AnswerKind.TEXT and type(value) is dict:
        return str(value["sha256"])
    raise VerificationRefusedError(
        f"the answer is no answer of kind {kind.value!r}", index=index, evidence={"found": shown(value)}
    )


def recompute(terms: Terms, ballots: Sequence[Ballot], *, asked: int) -> Outcome | None:
    """The outcome of a poll with these ballots, in the order of the members; None where this version cannot tell."""
    if terms.rule is None:
        return None
    outcome = apply_rule(terms.rule, terms.answer, ballots, asked=asked)
    agreeing = [
        kind.value
        for kind in rules_for(terms.answer.kind)
        if outcome.decision is not None
        and apply_rule(Rule(kind), terms.answer, ballots, asked=asked).decision == outcome.decision
    ]
    return replace(outcome, blind_tally=outcome.tally, rules_agreeing=tuple(agreeing))


def compare_outcome(recorded: Mapping[str, Any], computed: Outcome, index: int) -> None:
    """Raise `VerificationRefusedError` naming the first field of the recorded outcome that the ballots do not give."""
    expected = _as_recorded(computed)
    for name in recorded:
        if name not in expected:
            raise VerificationRefusedError(f"the outcome has an unknown field {shown(name)}", index=index)
    for name, value in expected.items():
        if name not in recorded and value is None:
            continue
        if name not in recorded:
            raise VerificationRefusedError(f"the outcome lacks the field {name!r}", index=index)
        if differing(recorded[name], value):
            raise VerificationRefusedError(
                f"the outcome's {name!r} is not what the ballots give",
                index=index,
                evidence={"recorded": shown(recorded[name]), "computed": shown(value)},
            )


def differing(recorded: Any, computed: Any) -> bool:
    """Whether two JSON values differ; 1 and 1.0 are one number, and 1 is not true."""
    if type(computed) is dict:
        return (
            type(recorded) is not dict
            or recorded.keys() != computed.keys()
            or any(differing(recorded[name], value) for name, value in computed.items())
        )
    if type(computed) is list:
        return (
            type(recorded) is not list
            or len(recorded) != len(computed)
            or any(differing(mine, other) for mine, other in zip(recorded, computed, strict=True))
        )
    if type(computed) in {int, float}:
        return type(recorded) not in {int, float} or bool(recorded != computed)
    return type(recorded) is not type(computed) or bool(recorded != computed)


def _as_recorded(outcome: Outcome) -> dict[str, Any]:
    positions = [
        {"answer": position.answer, "count": len(position.agents), "agents": list(position.agents)}
        for position in outcome.dissent.positions
    ]
    return {
        "status": outcome.status.value,
        "decision": outcome.decision,
        "rule": outcome.rule,
        "tally": dict(outcome.tally),
        "margin": outcome.margin,
        "spread": outcome.spread,
        "dissent": {"percentage": outcome.dissent.percentage, "positions": positions},
        "blind_tally": dict(outcome.blind_tally),
        "changed": [
            {"agent_id": change.agent_id, "from": change.before, "to": change.after} for change in outcome.changed
        ],
        "effective_votes": outcome.effective_votes,
        "robustness": {"rules_agreeing": list(outcome.rules_agreeing), "votes_to_flip": outcome.votes_to_flip},
    }


def _answer_format(document: Mapping[str, Any], index: int) -> AnswerFormat:
    if document["kind"] not in set(AnswerKind):
        raise VerificationRefusedError(
            "the kind of answer is not known", index=index, evidence={"kind": shown(document["kind"])}
        )
    options = document.get("options") or []
    if type(options) is not list or any(type(option) is not str for option in options):
        raise VerificationRefusedError("the options are no list of texts", index=index)
    bounds = [document.get("min"), document.get("max")]
    if any(bound is not None and type(bound) not in {int, float} for bound in bounds):
        raise VerificationRefusedError("the range of the answer is no pair of numbers", index=index)
    low, high = (None if bound is None else float(bound) for bound in bounds)
    answer = AnswerFormat(AnswerKind(document["kind"]), tuple(options), low, high)
    if problems := answer.problems():
        raise VerificationRefusedError(
            "such an answer cannot be asked for",
            index=index,
            evidence={"problem": f"{problems[0].pointer} {problems[0]}"},
        )
    return answer


def _rule(document: Mapping[str, Any], answer: AnswerFormat, protocol: str) -> tuple[Rule | None, str | None]:
    kind = document["kind"]
    if protocol != ProtocolKind.POLL.value:
        return None, f"this version knows no protocol {protocol!r}"
    if answer.kind is AnswerKind.TEXT:
        return None, "its answers are texts, of which the log holds commitments only"
    if kind not in {rule.value for rule in rules_for(answer.kind)}:
        return None, f"this version has no rule {kind!r} for answers of kind {answer.kind.value!r}"
    unknown = sorted(
        name for name, value in document.items() if name not in _RULE_FIELDS and value not in (None, "none")
    )
    if unknown:
        return None, f"this version knows no {unknown[0]!r} of a rule"
    fraction = document.get("fraction")
    if fraction is not None and type(fraction) not in {int, float}:
        return None, f"the rule {kind!r} has a fraction that is no number"
    rule = Rule(RuleKind(kind), None if fraction is None else float(fraction))
    if rule.problems(answer):
        return None, f"the rule {kind!r} has a fraction that it cannot have"
    return rule, None


def _is_place(value: object, options: Sequence[str]) -> bool:
    return type(value) is int and 0 <= value < len(options)


def _is_in_range(number: float, answer: AnswerFormat) -> bool:
    low, high = (0.0, 1.0) if answer.kind is AnswerKind.PROBABILITY else (answer.minimum, answer.maximum)
    return math.isfinite(number) and (low is None or number >= low) and (high is None or number <= high)
