"""Reads what was agreed before anyone was asked: the form of the answers, members, quorum, protocol and rule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any

from application.services.verification.reading import shown
from domain.errors.witness import VerificationRefusedError
from domain.models.agent import Agent, Persona, Roster
from domain.models.budget import Quorum
from domain.models.deliberation import Deliberation, Specification
from domain.models.protocol import Protocol, ProtocolKind
from domain.models.question import AnswerFormat, AnswerKind, Question
from domain.protocols.round_format import answers_in, counted_answers
from domain.voting.condorcet import Strength
from domain.voting.rule import (
    LOTTERY,
    NO_TIE_BREAK,
    WEIGHTED_BY_CONFIDENCE,
    WEIGHTED_BY_RECORD,
    Rule,
    RuleKind,
    rules_for,
)

__all__ = ["NEVER", "Terms", "read_rule", "read_terms"]

NEVER = datetime.min.replace(tzinfo=UTC)
"""The time of what is computed again, of which no time is told."""

_RULE_TEXTS = ("tie_break", "strength", "weighted_by")
_RULE_FIELDS = frozenset({"kind", "fraction", "weights", *_RULE_TEXTS})
# The names that settings of a rule have in this version: where one does not fit its rule, it is none of a later version's.
_KNOWN_NAMES = frozenset(
    {NO_TIE_BREAK, LOTTERY, WEIGHTED_BY_CONFIDENCE, WEIGHTED_BY_RECORD, *RuleKind, *(each.value for each in Strength)}
)


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

    @property
    def is_poll(self) -> bool:
        """Whether everybody is asked once, and nobody again."""
        return self.protocol is not None and not self.protocol.has_several_rounds

    def deliberation(self, deliberation_id: str) -> Deliberation | None:
        """What was accepted, as far as the log tells; None for one of a single round, or that this version cannot follow."""
        specification = self.specification()
        return None if specification is None or self.is_poll else Deliberation(deliberation_id, specification, NEVER)

    def specification(self) -> Specification | None:
        """What was agreed, without the texts; None where this version knows no such protocol or rule."""
        if self.protocol is None or self.rule is None:
            return None
        agents = tuple(Agent(agent_id, Persona("")) for agent_id in self.members)
        return Specification(
            Question("", None, self.answer),
            Roster("", agents),
            self.rule,
            protocol=self.protocol,
            quorum=self.quorum,
            seed=self.seed,
        )


def read_terms(entry: Mapping[str, Any], index: int) -> Terms:
    """The terms in a `deliberation.accepted` that was read. Raises `VerificationRefusedError`."""
    answer = _answer_format(entry["answer"], index)
    members = {member["agent_id"]: place for place, member in enumerate(entry["members"])}
    if len(members) < len(entry["members"]):
        raise VerificationRefusedError("an agent is a member twice", index=index)
    if not members:
        raise VerificationRefusedError("it has no members", index=index)
    quorum = Quorum(float(entry["quorum"]["min_answered_fraction"]))
    if quorum.problems():
        raise VerificationRefusedError("the quorum is not from 0 to 1", index=index)
    protocol = _protocol(entry["protocol"], index)
    why_not: str | None = f"this version knows no protocol {entry['protocol']['kind']!r}"
    rule = None
    if protocol is not None:
        counted = counted_answers(protocol, answer, len(members))
        rule, why_not = read_rule(entry["rule"], counted, tuple(members), index)
    return Terms(answer, quorum, members, rule, why_not, _seed(entry.get("seed"), index), protocol)


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


def _protocol(document: Mapping[str, Any], index: int) -> Protocol | None:
    """The protocol with its settings; None where this version has none like it, as a later one may have.

    Raises `VerificationRefusedError` for a setting that is no whole number, as that of no version is.
    """
    settings = {name: value for name, value in document.items() if name != "kind" and value is not None}
    known = {field.name for field in fields(Protocol)}
    if document["kind"] not in set(ProtocolKind) or not known.issuperset(settings):
        return None
    for name, value in settings.items():
        if type(value) is not int:
            raise VerificationRefusedError(
                f"the protocol's {name!r} is no whole number", index=index, evidence={"found": shown(value)}
            )
    protocol = Protocol(ProtocolKind(document["kind"]), **settings)
    return None if protocol.problems() else protocol


def read_rule(
    document: Mapping[str, Any], answer: AnswerFormat, members: Sequence[str], index: int
) -> tuple[Rule | None, str | None]:
    """The rule for such answers; learned weights stand in the order of the members.

    Or None, and why this version cannot apply it: its name, or that of a setting, is one that a later version may have. Raises
    `VerificationRefusedError` for a rule that no version agrees to: one for other answers, or with a setting that it cannot have.
    """
    kind = document["kind"]
    if kind not in set(RuleKind):
        return None, f"this version has no rule {kind!r} for answers of kind {answer.kind.value!r}"
    if RuleKind(kind) not in rules_for(answer.kind):
        allowed = ", ".join(rule.value for rule in rules_for(answer.kind))
        raise VerificationRefusedError(
            f"answers of kind {answer.kind.value!r} cannot be counted by the rule {kind!r}",
            index=index,
            evidence={"allowed": allowed},
        )
    unknown = sorted(
        name for name, value in document.items() if name not in _RULE_FIELDS and value not in (None, "none")
    )
    if unknown:
        return None, f"this version knows no {unknown[0]!r} of a rule"
    fraction = document.get("fraction")
    if fraction is not None and type(fraction) not in {int, float}:
        raise _wrong_setting(kind, "a fraction that is no number", fraction, index)
    texts = {name: document.get(name) for name in _RULE_TEXTS}
    for name, value in texts.items():
        if value is not None and type(value) is not str:
            raise _wrong_setting(kind, f"a {name!r} that is no name", value, index)
    weights = document.get("weights") or []
    if weights and (
        type(weights) is not list
        or len(weights) != len(members)
        or any(type(weight) is not int or weight < 0 for weight in weights)
    ):
        raise _wrong_setting(kind, "weights that are not one for each member", weights, index)
    rule = Rule(
        RuleKind(kind),
        None if fraction is None else float(fraction),
        **texts,
        weights=dict(zip(members, weights, strict=True)) if weights else {},
    )
    problems = rule.problems(answer)
    for problem in problems:
        setting = problem.pointer.rsplit("/", 1)[-1]
        if setting not in texts or texts[setting] in _KNOWN_NAMES:
            raise _wrong_setting(kind, f"a {setting!r} that it cannot have", document.get(setting), index)
    if problems:
        return None, f"the rule {kind!r} has a setting that it cannot have: {problems[0].pointer} {problems[0]}"
    return rule, None


def _wrong_setting(kind: str, what: str, found: object, index: int) -> VerificationRefusedError:
    return VerificationRefusedError(f"the rule {kind!r} has {what}", index=index, evidence={"found": shown(found)})


def _seed(recorded: object, index: int) -> int | None:
    """The seed, which stands in digits where a reader of JSON would round it."""
    if recorded is None or type(recorded) is int:
        return recorded
    if type(recorded) is str and recorded.removeprefix("-").isdecimal() and recorded.isascii():
        return int(recorded)
    raise VerificationRefusedError("the seed is no whole number", index=index, evidence={"found": shown(recorded)})
