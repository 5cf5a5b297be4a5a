"""A search for common ground: a few draft statements, all rank and criticise them, and what is drafted anew is ranked again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from domain.models.question import AnswerKind
from domain.models.round import AgentRecord
from domain.protocols.proceedings import Proceedings, ballots_of, everybody_answers, words_for
from domain.protocols.round_format import MAX_DRAFTS, statement_label
from domain.protocols.round_plan import Asked, Brief, Exhibit, ExhibitKind, Purpose, RoundPlan
from domain.voting.rule import Rule, RuleKind, apply_rule

__all__ = ["final_statement", "next_in_common_ground", "purpose_in_common_ground", "statements_until"]

_PURPOSES = (
    Purpose.ANSWER,
    Purpose.DRAFT,
    Purpose.RANK,
    Purpose.CRITIQUE,
    Purpose.REDRAFT,
    Purpose.RANK,
    Purpose.VOTE,
)
_OPINION, _DRAFT, _RANK, _CRITIQUE, _REDRAFT, _LAST_RANK, _VOTE = range(7)


def next_in_common_ground(proceedings: Proceedings) -> RoundPlan | None:
    """Opinions, drafts, their ranking, critiques of the first, new drafts, the last ranking; then a vote, unless texts were asked for.

    Statements are ranked by Schulze's rule, whatever rule counts the votes in the end.
    """
    last = proceedings.last
    if last is None:
        return everybody_answers(proceedings)
    if last == _OPINION:
        return _drafting(proceedings)
    if last in {_DRAFT, _REDRAFT}:
        return _ranking(proceedings, last + 1)
    if last == _RANK:
        return _critique(proceedings)
    if last == _CRITIQUE:
        return _redrafting(proceedings)
    if last == _LAST_RANK and proceedings.question.kind is not AnswerKind.TEXT:
        return _voting(proceedings)
    return None


def purpose_in_common_ground(number: int) -> Purpose:
    """What that round is for."""
    return _PURPOSES[number]


def statements_until(proceedings: Proceedings, number: int) -> Mapping[str, AgentRecord]:
    """The statements that were last put to everybody until that round, by their labels."""
    ranked = [each for each in (_RANK, _LAST_RANK) if each <= number and each in proceedings.rounds]
    return _statements(proceedings, ranked[-1]) if ranked else {}


def final_statement(proceedings: Proceedings) -> tuple[str, AgentRecord] | None:
    """The label and the record of the statement that the last ranking put first, by lot where several share that place.

    None where none was ranked.
    """
    ranked = [each for each in (_RANK, _LAST_RANK) if each in proceedings.rounds]
    if not ranked:
        return None
    first = _order(proceedings, ranked[-1])[0]
    return first, _statements(proceedings, ranked[-1])[first]


def _statements(proceedings: Proceedings, number: int) -> Mapping[str, AgentRecord]:
    """What is ranked in that round: all drafts; then the two that were ranked first, and what was drafted anew."""
    drafts = _drafts(proceedings, _DRAFT)
    if number == _RANK:
        return drafts
    kept = _order(proceedings, _RANK)[:2]
    return {label: record for label, record in drafts.items() if label in kept} | _drafts(proceedings, _REDRAFT)


def _drafters(proceedings: Proceedings) -> Sequence[str]:
    return proceedings.draw(proceedings.answered_in(_OPINION), "drafters")[:MAX_DRAFTS]


def _drafts(proceedings: Proceedings, number: int) -> dict[str, AgentRecord]:
    written = proceedings.answered_in(number)
    first = 0 if number == _DRAFT else min(MAX_DRAFTS, len(proceedings.agents))
    places = enumerate(_drafters(proceedings), first)
    return {statement_label(place): written[agent_id] for place, agent_id in places if agent_id in written}


def _order(proceedings: Proceedings, number: int) -> Sequence[str]:
    """The labels of the statements in the order in which that round ranked them, by lot where they share a place."""
    labels = tuple(_statements(proceedings, number))
    form = replace(proceedings.answers_in(number), options=labels)
    outcome = apply_rule(
        Rule(RuleKind.SCHULZE), form, ballots_of(proceedings.took_part_in(number)), asked=len(proceedings.agents)
    )
    drawn = proceedings.draw(labels, "tie", str(number))
    place_of = dict(zip(labels, outcome.places or [1] * len(labels), strict=True))
    return sorted(drawn, key=place_of.__getitem__)


def _drafting(proceedings: Proceedings) -> RoundPlan:
    opinions = proceedings.answered_in(_OPINION)
    order = proceedings.draw(opinions, "opinions")
    most = words_for(len(order))
    exhibits = tuple(
        proceedings.exhibit(ExhibitKind.OPINION, f"opinion {place + 1}", opinions[agent_id], most=most)
        for place, agent_id in enumerate(order)
    )
    return _writing(proceedings, _DRAFT, Purpose.DRAFT, _drafters(proceedings), exhibits)


def _ranking(proceedings: Proceedings, number: int) -> RoundPlan | None:
    statements = _statements(proceedings, number)
    if len(statements) < 2:
        return None
    form, most = proceedings.answers_in(number), words_for(len(statements))
    shown = {
        label: proceedings.exhibit(ExhibitKind.STATEMENT, label, record, most=most)
        for label, record in statements.items()
    }
    asked = []
    for agent_id in proceedings.agents:
        order = proceedings.draw(shown, "order", str(number), agent_id)
        brief = Brief(Purpose.RANK, proceedings.mark, exhibits=tuple(shown[label] for label in order))
        asked.append(Asked(agent_id, replace(form, options=tuple(order)), brief))
    return RoundPlan(number, Purpose.RANK, form, tuple(asked))


def _critique(proceedings: Proceedings) -> RoundPlan:
    return _writing(proceedings, _CRITIQUE, Purpose.CRITIQUE, proceedings.agents, (_first(proceedings, _RANK),))


def _redrafting(proceedings: Proceedings) -> RoundPlan:
    critiques = proceedings.answered_in(_CRITIQUE)
    order = proceedings.draw(critiques, "critiques")
    most = words_for(len(order) + 1)
    exhibits = (
        _first(proceedings, _RANK),
        *(
            proceedings.exhibit(ExhibitKind.CRITIQUE, f"critique {place + 1}", critiques[agent_id], most=most)
            for place, agent_id in enumerate(order)
        ),
    )
    return _writing(proceedings, _REDRAFT, Purpose.REDRAFT, _drafters(proceedings), exhibits)


def _voting(proceedings: Proceedings) -> RoundPlan:
    statement = _first(proceedings, _LAST_RANK)
    asked = []
    for agent_id in proceedings.agents:
        own = proceedings.answered_in(_OPINION).get(agent_id)
        mine = (
            () if own is None else (proceedings.exhibit(ExhibitKind.OWN, "your answer so far", own, most=words_for(2)),)
        )
        brief = Brief(Purpose.VOTE, proceedings.mark, exhibits=(statement, *mine))
        asked.append(Asked(agent_id, proceedings.question, brief))
    return RoundPlan(_VOTE, Purpose.VOTE, proceedings.question, tuple(asked))


def _first(proceedings: Proceedings, number: int) -> Exhibit:
    label = _order(proceedings, number)[0]
    record = _statements(proceedings, number)[label]
    return proceedings.exhibit(ExhibitKind.STATEMENT, label, record, most=words_for(2))


def _writing(
    proceedings: Proceedings, number: int, purpose: Purpose, writers: Sequence[str], exhibits: tuple[Exhibit, ...]
) -> RoundPlan:
    form = proceedings.answers_in(number)
    brief = Brief(purpose, proceedings.mark, exhibits=exhibits)
    those = [agent_id for agent_id in proceedings.agents if agent_id in set(writers)]
    return RoundPlan(number, purpose, form, tuple(Asked(agent_id, form, brief) for agent_id in those))
