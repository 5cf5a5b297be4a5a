"""Computes the outcome of a deliberation again from what its entries say was asked and answered."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from typing import Any

from application.services.verification.reading import shown
from domain.errors.witness import VerificationRefusedError
from domain.models.agent import Agent, Persona, Roster
from domain.models.budget import Quorum
from domain.models.deliberation import Deliberation, Specification
from domain.models.outcome import Claim, Cluster, Outcome, Synthesis
from domain.models.protocol import Protocol, ProtocolKind
from domain.models.question import AnswerFormat, AnswerKind, Question
from domain.models.roll_call import AgentState
from domain.protocols.round_format import answers_in, counted_answers
from domain.voting.ballot import Answer, Ballot
from domain.voting.rule import Rule, RuleKind, apply_rule, rules_for
from domain.voting.synthesis import label_of
from domain.witness.result_documents import recorded_outcome

__all__ = [
    "Terms",
    "compare_outcome",
    "differing",
    "read_ballot_answer",
    "read_rule",
    "read_synthesis",
    "read_terms",
    "recompute",
]

_RULE_TEXTS = ("tie_break", "strength", "weighted_by")
_RULE_FIELDS = frozenset({"kind", "fraction", "weights", *_RULE_TEXTS})
# What outcomes of an earlier version do not have.
_SINCE = frozenset({"places", "outliers"})


@dataclass(frozen=True, slots=True)
class Terms:
    """What was agreed before anyone was asked. `rule` is None when this version cannot apply it; `not_recomputed` says why."""

    answer: AnswerFormat
    quorum: Quorum
    members: Mapping[str, int]
    rule: Rule | None
    not_recomputed: str | None
    seed: int | None = None
    protocol: Protocol | None = None

    def answers_in(self, round_number: int) -> AnswerFormat:
        """The format in which that round's answers are recorded."""
        if self.protocol is None:
            return self.answer
        return answers_in(self.protocol, self.answer, len(self.members), round_number)

    def deliberation(self, deliberation_id: str) -> Deliberation | None:
        """What was accepted, as far as the log tells; None for one of a single round, or that this version cannot follow."""
        if self.protocol is None or self.rule is None or not self.protocol.has_several_rounds:
            return None
        agents = tuple(Agent(agent_id, Persona("")) for agent_id in self.members)
        specification = Specification(
            Question("", None, self.answer),
            Roster("", agents),
            self.rule,
            protocol=self.protocol,
            quorum=self.quorum,
            seed=self.seed,
        )
        return Deliberation(deliberation_id, specification, datetime.min.replace(tzinfo=UTC))


def read_terms(entry: Mapping[str, Any], index: int) -> Terms:
    """The terms in a `deliberation.accepted` that was read. Raises `VerificationRefusedError`."""
    answer = _answer_format(entry["answer"], index)
    members = {member["agent_id"]: place for place, member in enumerate(entry["members"])}
    if len(members) < len(entry["members"]):
        raise VerificationRefusedError("an agent is a member twice", index=index)
    quorum = Quorum(float(entry["quorum"]["min_answered_fraction"]))
    if quorum.problems():
        raise VerificationRefusedError("the quorum is not from 0 to 1", index=index)
    protocol = _protocol(entry["protocol"])
    why_not: str | None = f"this version knows no protocol {entry['protocol']['kind']!r}"
    rule = None
    if protocol is not None:
        rule, why_not = read_rule(entry["rule"], counted_answers(protocol, answer, len(members)), tuple(members))
    return Terms(answer, quorum, members, rule, why_not, _seed(entry.get("seed"), index), protocol)


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


def _protocol(document: Mapping[str, Any]) -> Protocol | None:
    """The protocol with its settings; None where this version has none like it."""
    settings = {name: value for name, value in document.items() if name != "kind" and value is not None}
    known = {field.name for field in fields(Protocol)}
    if document["kind"] not in set(ProtocolKind) or any(
        name not in known or type(value) is not int for name, value in settings.items()
    ):
        return None
    protocol = Protocol(ProtocolKind(document["kind"]), **settings)
    return None if protocol.problems() else protocol


def read_rule(
    document: Mapping[str, Any], answer: AnswerFormat, members: Sequence[str]
) -> tuple[Rule | None, str | None]:
    """The rule for such answers, or None and why this version cannot apply it; learned weights stand in the order of the members."""
    kind = document["kind"]
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
    texts = {name: document.get(name) for name in _RULE_TEXTS}
    if any(value is not None and type(value) is not str for value in texts.values()):
        return None, f"the rule {kind!r} has a setting that is no text"
    weights = document.get("weights") or []
    if weights and (
        type(weights) is not list
        or len(weights) != len(members)
        or any(type(weight) is not int or weight < 0 for weight in weights)
    ):
        return None, f"the rule {kind!r} has weights that are not one for each member"
    rule = Rule(
        RuleKind(kind),
        None if fraction is None else float(fraction),
        **texts,
        weights=dict(zip(members, weights, strict=True)) if weights else {},
    )
    if problems := rule.problems(answer):
        return None, f"the rule {kind!r} has a setting that it cannot have: {problems[0].pointer} {problems[0]}"
    return rule, None


def _seed(recorded: object, index: int) -> int | None:
    """The seed, which stands in digits where a reader of JSON would round it."""
    if recorded is None or type(recorded) is int:
        return recorded
    if type(recorded) is str and recorded.removeprefix("-").isdecimal() and recorded.isascii():
        return int(recorded)
    raise VerificationRefusedError("the seed is no whole number", index=index, evidence={"found": shown(recorded)})


def _place(value: object) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r} is no place")
    return value


def _is_place(value: object, options: Sequence[str]) -> bool:
    return type(value) is int and 0 <= value < len(options)


def _is_in_range(number: float, answer: AnswerFormat) -> bool:
    low, high = (0.0, 1.0) if answer.kind is AnswerKind.PROBABILITY else (answer.minimum, answer.maximum)
    return math.isfinite(number) and (low is None or number >= low) and (high is None or number <= high)
