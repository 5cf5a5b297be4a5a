"""Computes the outcome of a deliberation again from what its entries say was asked and answered."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from application.services.verification.reading import shown
from application.services.verification.terms import Terms
from domain.errors.witness import VerificationRefusedError
from domain.models.outcome import Claim, Cluster, Outcome, Synthesis
from domain.models.question import AnswerFormat, AnswerKind
from domain.models.roll_call import AgentState
from domain.voting.ballot import Answer, Ballot
from domain.voting.rule import Rule, apply_rule, rules_for
from domain.voting.synthesis import label_of
from domain.witness.result_documents import recorded_outcome

__all__ = [
    "compare_outcome",
    "differing",
    "read_ballot_answer",
    "read_synthesis",
    "recompute",
]

# What outcomes of an earlier version do not have.
_SINCE = frozenset({"places", "outliers"})


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


def recompute(
    terms: Terms, ballots: Sequence[Ballot], *, asked: int, synthesis: Synthesis | None = None
) -> Outcome | None:
    """The outcome of a poll with these ballots, in the order of the members; None where this version cannot tell.

    Of texts the log holds commitments only, so they are counted by the clusters that were recorded, which need no text. Raises
    `ValueError` when these are not of those who answered.
    """
    if terms.rule is None or (terms.answer.kind is AnswerKind.TEXT and synthesis is None):
        return None

    def counted(rule: Rule) -> Outcome:
        return apply_rule(rule, terms.answer, ballots, asked=asked, seed=terms.seed, synthesis=synthesis)

    outcome = counted(terms.rule)
    decided = label_of(outcome)
    agreeing = [
        kind.value
        for kind in rules_for(terms.answer.kind)
        if decided is not None and (kind is terms.rule.kind or label_of(counted(Rule(kind))) == decided)
    ]
    return replace(outcome, blind_tally=outcome.tally, rules_agreeing=tuple(agreeing))


def read_synthesis(outcome: Mapping[str, Any], index: int) -> Synthesis | None:
    """The clusters and claims of a recorded outcome, without their texts; None where it has none.

    Raises `VerificationRefusedError` for claims that cite nobody, or somebody of another cluster.
    """
    document = outcome.get("synthesis")
    if document is None:
        return None
    try:
        clusters = tuple(
            Cluster(tuple(map(str, each["agents"])), str(each["agents"][_place(each["representative"])]))
            for each in document["clusters"]
        )
        claims = tuple(
            Claim(
                place := _place(each["cluster"]),
                clusters[place].agents[_place(each["source"])],
                _place(each["sentence"]),
                tuple(clusters[place].agents[_place(agent)] for agent in each["agents"]),
            )
            for each in document["claims"]
        )
        return Synthesis(str(document["method"]), clusters, claims)
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        raise VerificationRefusedError("the clusters of the outcome cannot be read", index=index) from error


def compare_outcome(recorded: Mapping[str, Any], computed: Outcome, answers: AnswerFormat, index: int) -> None:
    """Raise `VerificationRefusedError` naming the first field of the recorded outcome that the ballots do not give."""
    expected = recorded_outcome(computed, answers)
    for name in recorded:
        if name not in expected:
            raise VerificationRefusedError(f"the outcome has an unknown field {shown(name)}", index=index)
    for name, value in expected.items():
        if name not in recorded and (value is None or name in _SINCE):
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


def _place(value: object) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r} is no place")
    return value


def _is_place(value: object, options: Sequence[str]) -> bool:
    return type(value) is int and 0 <= value < len(options)


def _is_in_range(number: float, answer: AnswerFormat) -> bool:
    low, high = (0.0, 1.0) if answer.kind is AnswerKind.PROBABILITY else (answer.minimum, answer.maximum)
    return math.isfinite(number) and (low is None or number >= low) and (high is None or number <= high)
