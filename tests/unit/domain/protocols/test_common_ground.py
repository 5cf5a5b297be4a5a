"""A search for common ground: statements are drafted, ranked, criticised and drafted anew, and the last ranking decides."""

from __future__ import annotations

from domain.analysis.decision import decide
from domain.models.protocol import ProtocolKind
from domain.models.question import AnswerKind
from domain.models.round import AgentRecord
from domain.protocols.common_ground import final_statement
from domain.protocols.next_round import next_round
from domain.protocols.proceedings import Proceedings
from domain.protocols.round_plan import ExhibitKind, Purpose, RoundPlan
from tests.protocol_fixture import KINDS
from tests.protocol_records import FAILED, answers, brief_of, deliberation, planned, said

AGENTS = 7
TEXT = KINDS["text"]


def _number(agent_id: str) -> int:
    return int(agent_id.rpartition("-")[2])


def _written(plan: RoundPlan) -> list[AgentRecord]:
    """Everybody who is asked for a text gives one, and everybody who ranks puts the labels in their order."""
    found = []
    for asked in plan.asked:
        agent = _number(asked.agent_id)
        by_number = sorted(asked.expected.options, key=lambda label: int(label.split()[1]))
        answer = f"text of {agent} in {plan.number}" if asked.expected.kind is AnswerKind.TEXT else tuple(by_number)
        found.append(said(plan.number, agent, answer))
    return found


def _until(number: int, *, in_text: bool = True) -> tuple[list[AgentRecord], RoundPlan]:
    """The records before that round, and the round."""
    held = deliberation(ProtocolKind.COMMON_GROUND, AGENTS, answer=TEXT if in_text else KINDS["verdict"])
    records: list[AgentRecord] = answers(0, *(["an opinion"] if in_text else ["yes"]) * AGENTS)
    while (plan := planned(held, records)).number < number:
        records += _written(plan)
    return records, plan


def test_a_few_who_are_drawn_by_lot_draft_after_reading_every_opinion() -> None:
    drafters = set()
    for seed in range(6):
        held = deliberation(ProtocolKind.COMMON_GROUND, AGENTS, answer=TEXT, seed=seed)
        plan = planned(held, answers(0, *[f"opinion {agent}" for agent in range(AGENTS)]))
        assert (plan.purpose, plan.answers.kind, len(plan.asked)) == (Purpose.DRAFT, AnswerKind.TEXT, 5)
        shown = plan.asked[0].brief
        assert shown is not None
        assert {each.words for each in shown.exhibits} == {f"opinion {agent}" for agent in range(AGENTS)}
        drafters.add(tuple(asked.agent_id for asked in plan.asked))
    assert len(drafters) > 1


def test_everybody_ranks_all_drafts_each_in_an_order_of_its_own() -> None:
    _, plan = _until(2)
    assert (plan.purpose, plan.answers.kind, len(plan.asked)) == (Purpose.RANK, AnswerKind.RANKING, AGENTS)
    orders = {asked.expected.options for asked in plan.asked}
    assert len(orders) > 1
    assert {frozenset(order) for order in orders} == {frozenset(f"statement {place}" for place in range(1, 6))}


def test_the_statement_that_is_ranked_first_is_criticised_by_all_and_drafted_anew_by_the_drafters() -> None:
    records, critique = _until(3)
    (statement,) = brief_of(critique, 0).exhibits
    assert (critique.purpose, statement.label, len(critique.asked)) == (Purpose.CRITIQUE, "statement 1", AGENTS)
    _, redraft = _until(4)
    kinds = [each.kind for each in brief_of(redraft, _number(redraft.asked[0].agent_id)).exhibits]
    assert kinds == [ExhibitKind.STATEMENT, *[ExhibitKind.CRITIQUE] * AGENTS]
    drafted = {record.agent_id for record in records if record.round_number == 1}
    assert {asked.agent_id for asked in redraft.asked} == drafted


def test_the_last_ranking_is_of_the_two_first_and_of_what_was_drafted_anew() -> None:
    _, plan = _until(5)
    labels = {"statement 1", "statement 2", *(f"statement {place}" for place in range(6, 11))}
    assert set(plan.asked[0].expected.options) == labels


def test_of_texts_the_last_ranking_decides() -> None:
    records, plan = _until(5)
    held = deliberation(ProtocolKind.COMMON_GROUND, AGENTS, answer=TEXT)
    best_first = ("statement 8", "statement 1", "statement 2")
    records += [said(5, _number(asked.agent_id), best_first) for asked in plan.asked]
    assert next_round(held, records) is None
    _, outcome = decide(held, records)
    assert (outcome.rule, outcome.decision) == ("schulze", "statement 8")
    found = final_statement(Proceedings(held, records))
    assert found is not None
    assert (found[0], found[1].answer) == ("statement 8", f"text of {_number(found[1].agent_id)} in 4")


def test_who_fails_in_the_last_ranking_keeps_its_earlier_one_without_what_was_dropped() -> None:
    records, plan = _until(5)
    held = deliberation(ProtocolKind.COMMON_GROUND, AGENTS, answer=TEXT)
    records += [said(5, agent, FAILED) for agent in range(AGENTS - 1)]
    records += [said(5, AGENTS - 1, ("statement 8",))]
    rounds, outcome = decide(held, records)
    assert (outcome.decision, set(outcome.tally)) == ("statement 1", set(plan.asked[0].expected.options))
    assert len(rounds[5].kept) == AGENTS - 1


def test_of_other_questions_there_is_a_vote_after_the_last_ranking() -> None:
    _, plan = _until(6, in_text=False)
    kinds = [each.kind for each in brief_of(plan, 0).exhibits]
    assert (plan.purpose, kinds) == (Purpose.VOTE, [ExhibitKind.STATEMENT, ExhibitKind.OWN])
    assert plan.answers == KINDS["verdict"]


def test_with_a_single_draft_there_is_nothing_to_rank_and_the_opinions_count() -> None:
    held = deliberation(ProtocolKind.COMMON_GROUND, 3, answer=KINDS["verdict"])
    records = answers(0, "yes", "yes", "no")
    drafting = planned(held, records)
    first, *others = (_number(asked.agent_id) for asked in drafting.asked)
    records += [said(1, first, "a statement"), *(said(1, agent, FAILED) for agent in others)]
    assert next_round(held, records) is None
    assert decide(held, records)[1].decision == "yes"


def test_statements_that_share_the_first_place_are_put_in_order_by_lot_and_not_by_their_number() -> None:
    first = set()
    for seed in range(12):
        held = deliberation(ProtocolKind.COMMON_GROUND, 2, answer=TEXT, seed=seed)
        records = answers(0, "one", "other")
        records += _written(planned(held, records))
        records += [said(2, 0, ("statement 1", "statement 2")), said(2, 1, ("statement 2", "statement 1"))]
        first.add(brief_of(planned(held, records), 0).exhibits[0].label)
    assert first == {"statement 1", "statement 2"}
