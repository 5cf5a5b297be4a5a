"""What holds for all protocols: the order of records does not matter, texts decide nothing, and shown words are fenced and cut."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from domain.models.protocol import Protocol, ProtocolKind
from domain.models.question import AnswerFormat
from domain.models.round import AgentRecord
from domain.protocols.next_round import next_round
from domain.protocols.proceedings import MAX_SHOWN_CHARACTERS, MAX_WORDS, Proceedings
from domain.protocols.round_plan import RoundPlan
from tests.protocol_fixture import KINDS, SEVERAL
from tests.protocol_records import answers, brief_of, deliberation, planned, said
from tests.service_fixture import CHOICE

AGENTS = 6


def _answer(form: AnswerFormat, draw: random.Random) -> object:
    if form.kind.value == "choice":
        return draw.choice(form.options)
    if form.kind.value == "text":
        return f"text {draw.random()}"
    if form.kind.has_options:
        return tuple(draw.sample(form.options, len(form.options)))
    return draw.choice(("yes", "no")) if form.kind.value == "verdict" else round(draw.random(), 2)


def _course(kind: ProtocolKind, *, answer: AnswerFormat = CHOICE) -> list[tuple[list[AgentRecord], RoundPlan]]:
    """Every round of one that goes well, each with the records before it."""
    held, draw, found = deliberation(kind, AGENTS, answer=answer), random.Random(1), []
    records: list[AgentRecord] = []
    while (plan := next_round(held, records)) is not None:
        found.append((list(records), plan))
        records += [
            said(plan.number, int(asked.agent_id[7:]), _answer(asked.expected, draw))  # type: ignore[arg-type]
            for asked in plan.asked
        ]
    return found


@pytest.mark.parametrize("kind", SEVERAL)
def test_the_order_in_which_agents_happened_to_end_changes_nothing(kind: ProtocolKind) -> None:
    held = deliberation(kind, AGENTS)
    for records, plan in _course(kind):
        random.Random(2).shuffle(records)
        assert next_round(held, records) == plan


@pytest.mark.parametrize("kind", SEVERAL)
@pytest.mark.parametrize("answer", [KINDS["text"], CHOICE], ids=["text", "choice"])
def test_without_the_texts_the_rounds_are_the_same_but_for_what_is_shown(
    kind: ProtocolKind, answer: AnswerFormat
) -> None:
    held = deliberation(kind, AGENTS, answer=answer)
    for records, plan in _course(kind, answer=answer):
        bare = [
            replace(
                record,
                content=None,
                reasoning=None,
                answer=None
                if held.specification.answers_in(record.round_number).kind.value == "text"
                else record.answer,
            )
            for record in records
        ]
        found = planned(held, bare)
        assert (found.number, found.purpose, found.answers) == (plan.number, plan.purpose, plan.answers)
        assert [(each.agent_id, each.expected) for each in found.asked] == [
            (each.agent_id, each.expected) for each in plan.asked
        ]


@pytest.mark.parametrize("kind", SEVERAL)
def test_without_a_seed_the_deliberation_itself_is_the_lot(kind: ProtocolKind) -> None:
    orders = set()
    for own in ("one", "other", "third"):
        held = deliberation(kind, AGENTS, seed=None, own=own)
        orders.add(repr(planned(held, answers(0, *["yes", "no"] * 3)).asked))
    assert len(orders) == 3


def test_the_mark_is_hashed_from_all_that_was_said_and_from_the_lot() -> None:
    records = answers(0, "yes", "no")
    marks = {
        Proceedings(deliberation(ProtocolKind.DELPHI, 2, seed=seed), [*records[:1], said(0, 1, "no", words=words)]).mark
        for seed in (1, 2)
        for words in ("a", "b")
    }
    assert len(marks) == 4
    assert all(len(mark) == 16 for mark in marks)


def test_who_has_seen_the_mark_of_a_round_does_not_know_that_of_the_next() -> None:
    held = deliberation(ProtocolKind.DEBATE, 2)
    first = Proceedings(held, answers(0, "yes", "no")).mark
    told = [*answers(0, "yes", "no"), said(1, 0, "yes", words=first), said(1, 1, "no")]
    assert Proceedings(held, told).mark != first


def test_words_are_cut_and_more_so_where_there_are_many() -> None:
    long = "x" * 5_000
    few = planned(deliberation(ProtocolKind.DEBATE, 2), [said(0, 0, "yes", words=long), said(0, 1, "no", words=long)])
    assert {len(exhibit.words or "") for exhibit in brief_of(few, 0).exhibits} == {MAX_WORDS}
    held = deliberation(Protocol(ProtocolKind.DEBATE, neighbours=71), 72)
    many = planned(held, [said(0, agent, "yes", words=long) for agent in range(72)])
    assert sum(len(exhibit.words or "") for exhibit in brief_of(many, 0).exhibits) <= MAX_SHOWN_CHARACTERS


@pytest.mark.parametrize("kind", SEVERAL)
def test_the_largest_deliberation_has_at_most_ten_rounds_and_720_calls(kind: ProtocolKind) -> None:
    largest = {ProtocolKind.DELPHI: {"max_rounds": 9}, ProtocolKind.DEBATE: {"rounds": 8}}
    held = deliberation(Protocol(kind, **largest.get(kind, {})), 72)
    records: list[AgentRecord] = []
    draw, rounds = random.Random(3), 0
    while (plan := next_round(held, records)) is not None:
        rounds += 1
        for asked in plan.asked:
            answer = _answer(asked.expected, draw)
            records.append(said(plan.number, int(asked.agent_id[7:]), answer))  # type: ignore[arg-type]
    assert rounds <= 10
    assert len(records) <= 720


def test_settings_of_another_kind_and_out_of_range_are_refused_by_name() -> None:
    protocol = Protocol(ProtocolKind.DEBATE, wave_size=3, rounds=9, neighbours=0)
    assert [problem.pointer for problem in protocol.problems()] == [
        "/protocol/wave_size",
        "/protocol/rounds",
        "/protocol/neighbours",
    ]
