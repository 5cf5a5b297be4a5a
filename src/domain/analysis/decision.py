"""The decision: from the records of all rounds to the rounds as they ended and to the outcome. There is no other way to one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from domain.models.deliberation import Deliberation, Specification
from domain.models.outcome import Change, Outcome, OutcomeStatus, Synthesis
from domain.models.question import AnswerFormat, AnswerKind
from domain.models.round import AgentRecord, Round
from domain.protocols.next_round import options_in, purpose_of
from domain.protocols.proceedings import Proceedings, ballots_of
from domain.voting.ballot import Answer, Ballot
from domain.voting.rule import Rule, RuleKind, apply_rule, rules_for
from domain.voting.synthesis import label_of

__all__ = ["counted_ballots", "decide", "last_round"]


def decide(
    deliberation: Deliberation, records: Sequence[AgentRecord], *, synthesis: Synthesis | None = None
) -> tuple[tuple[Round, ...], Outcome]:
    """The rounds that these records make, each in the order of the roster, and what the rule makes of their ballots. Pure.

    Of each agent the last ballot counts that it cast in a round about what is counted, so that whoever fails later keeps it.
    Texts are clustered as `synthesis` says where it is given.
    """
    proceedings = Proceedings(deliberation, records)
    specification, last = deliberation.specification, proceedings.last or 0
    form = _form(proceedings, last)
    ballots, asked = _ballots(proceedings, last, form), proceedings.asked()
    outcome = _outcome(specification, specification.rule, form, ballots, asked=asked, synthesis=synthesis)
    decided = label_of(outcome)
    agreeing = [
        kind.value
        for kind in rules_for(form.kind)
        if decided is not None
        # Texts have one rule only, and are not clustered twice.
        and (
            form.kind is AnswerKind.TEXT
            or kind is specification.rule.kind
            or label_of(_outcome(specification, Rule(kind), form, ballots, asked=asked)) == decided
        )
    ]
    rounds = tuple(_round(specification, proceedings, number, outcome) for number in proceedings.rounds)
    outcome = replace(
        outcome,
        blind_tally=outcome.tally if last == 0 else rounds[0].tally if proceedings.is_counted(0) else {},
        changed=_changes(proceedings, last) if last else (),
        rules_agreeing=tuple(agreeing),
    )
    return rounds, outcome


def counted_ballots(deliberation: Deliberation, records: Sequence[AgentRecord]) -> list[Ballot]:
    """The ballots that `decide` counts, abstentions included."""
    proceedings = Proceedings(deliberation, records)
    last = proceedings.last or 0
    return _ballots(proceedings, last, _form(proceedings, last))


def last_round(deliberation: Deliberation, records: Sequence[AgentRecord]) -> Round | None:
    """The last of the rounds that these records make, without an outcome; None when there are none."""
    proceedings = Proceedings(deliberation, records)
    last = proceedings.last
    return None if last is None else _round(deliberation.specification, proceedings, last, None)


def _form(proceedings: Proceedings, number: int) -> AnswerFormat:
    """What is counted after that round; of statements only those that were put to anybody."""
    form = proceedings.counted_answers
    return form if form == proceedings.question else replace(form, options=options_in(proceedings, number))


def _ballots(proceedings: Proceedings, number: int, form: AnswerFormat) -> list[Ballot]:
    """The ballots that count after that round. Of rankings of statements, what was dropped since falls out of those that are kept."""
    ballots = ballots_of(proceedings.counted(number))
    if form == proceedings.question:
        return ballots
    known = set(form.options)
    return [
        replace(ballot, answer=tuple(option for option in ballot.answer if option in known) or None)
        if isinstance(ballot.answer, tuple)
        else ballot
        for ballot in ballots
    ]


def _outcome(
    specification: Specification,
    rule: Rule,
    form: AnswerFormat,
    ballots: Sequence[Ballot],
    *,
    asked: int,
    synthesis: Synthesis | None = None,
) -> Outcome:
    if form.kind.has_options and len(form.options) < 2:
        return Outcome(OutcomeStatus.NO_MAJORITY, rule.kind.value, margin=0)
    return apply_rule(rule, form, ballots, asked=asked, seed=specification.seed, synthesis=synthesis)


def _round(specification: Specification, proceedings: Proceedings, number: int, outcome: Outcome | None) -> Round:
    records = proceedings.rounds[number]
    kept = {}
    if number and proceedings.is_counted(number):
        counted = proceedings.counted(number)
        kept = {
            agent_id: counted[agent_id].round_number
            for agent_id in records
            if agent_id in counted and counted[agent_id].round_number < number
        }
    tally = dict(_tally(specification, proceedings, number, outcome))
    return Round(number, tuple(records.values()), tally, purpose_of(proceedings, number).value, kept)


def _tally(
    specification: Specification, proceedings: Proceedings, number: int, outcome: Outcome | None
) -> dict[str, float]:
    """What the round came to: of ballots about what is counted with those that were kept, else of its own; texts have none."""
    form = proceedings.answers_in(number)
    if proceedings.is_counted(number):
        if outcome is not None and number == max(each for each in proceedings.rounds if proceedings.is_counted(each)):
            return dict(outcome.tally)
        if form.kind is AnswerKind.TEXT:
            # Clusters of texts have no names that would mean the same in the next round.
            return {}
        form = _form(proceedings, number)
        asked = len({each for before in range(number + 1) for each in proceedings.rounds.get(before, ())})
        ballots = _ballots(proceedings, number, form)
        return dict(_outcome(specification, specification.rule, form, ballots, asked=asked).tally)
    if form.kind is AnswerKind.TEXT:
        return {}
    rule = Rule(RuleKind.APPROVAL if form.kind is AnswerKind.APPROVAL else RuleKind.SCHULZE)
    own = proceedings.took_part_in(number)
    form = replace(form, options=options_in(proceedings, number))
    return dict(_outcome(specification, rule, form, ballots_of(own), asked=len(proceedings.rounds[number])).tally)


def _changes(proceedings: Proceedings, last: int) -> tuple[Change, ...]:
    """Who answered the question in the blind round and otherwise in the end; of texts nobody can say so."""
    if proceedings.question.kind is AnswerKind.TEXT:
        return ()
    blind = proceedings.answered_in(0)
    return tuple(
        Change(agent_id, _named(before.answer), _named(after.answer))
        for agent_id, after in proceedings.counted(last).items()
        if (before := blind.get(agent_id)) is not None and after.answer is not None and before.answer != after.answer
    )


def _named(answer: Answer) -> str:
    if isinstance(answer, tuple):
        return ", ".join(answer)
    return f"{answer:g}" if isinstance(answer, int | float) else str(answer)
