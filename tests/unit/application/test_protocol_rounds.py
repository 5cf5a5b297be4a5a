"""Every protocol is run by the one engine, and what is promised of one round holds for many."""

from __future__ import annotations

from collections import Counter

import pytest

from domain.models.budget import Limits, Quorum
from domain.models.deliberation import DeliberationStatus
from domain.models.protocol import Protocol, ProtocolKind
from domain.models.question import AnswerFormat
from domain.models.roll_call import AgentState
from tests.protocol_fixture import KINDS, SEVERAL, Troubled, asked_for, proven, said_in
from tests.service_fixture import build, finished, history, opened
from tests.virtual_time import pass_time

LAST_ROUND = {
    ProtocolKind.DELPHI: 3,
    ProtocolKind.PEER_REVIEW: 2,
    ProtocolKind.DEBATE: 3,
    ProtocolKind.COMMON_GROUND: 6,
}
EVERY_ROUND = [(kind, number) for kind, last in LAST_ROUND.items() for number in range(last + 1)]
# Some move in every revision of this seed, so that a delphi goes through all of them.
RESTLESS = 0


@pytest.mark.parametrize("kind", SEVERAL)
@pytest.mark.parametrize("answer", KINDS.values(), ids=KINDS)
async def test_any_question_goes_through_its_rounds_and_the_record_proves_itself(
    kind: ProtocolKind, answer: AnswerFormat
) -> None:
    async with opened(build(Troubled())) as house:
        ended = await finished(house, asked_for(kind, answer=answer))
        verified = await proven(house, ended.id)
    assert ended.status is DeliberationStatus.COMPLETED
    assert len(ended.rounds) >= (2 if kind is ProtocolKind.DELPHI else 3)
    assert (verified.status, verified.not_recomputed) == ("completed", None)


@pytest.mark.parametrize("kind", SEVERAL)
async def test_the_same_seed_twice_gives_identical_records(kind: ProtocolKind) -> None:
    found = []
    for _ in range(2):
        async with opened(build(Troubled())) as house:
            found.append(await finished(house, asked_for(kind)))
    assert said_in(found[0]) == said_in(found[1])
    assert found[0].outcome == found[1].outcome


@pytest.mark.parametrize("kind", SEVERAL)
async def test_every_agent_asked_in_a_round_has_exactly_one_end_in_it_and_failures_name_their_round(
    kind: ProtocolKind,
) -> None:
    failing = {(number, f"archon-{number}") for number in range(LAST_ROUND[kind] + 1)}
    agents = Troubled(failing=failing)
    async with opened(build(agents)) as house:
        ended = await finished(house, asked_for(kind, 9, seed=RESTLESS))
        verified = await proven(house, ended.id)
    assert (ended.status, verified.not_recomputed) == (DeliberationStatus.COMPLETED, None)
    for round_ in ended.rounds:
        assert [record.agent_id for record in round_.records] == sorted(set(agents.asked_in(round_.number)))
        assert round_.roll_call.asked == len(round_.records)
    assert ended.roll_call.asked == 9
    asked = {(request.round_number, request.agent_id) for request in agents.requests}
    assert {(each.round_number, each.agent_id) for each in ended.failures} == failing & asked
    assert ended.usage.calls == len(agents.requests)


async def test_who_fails_later_keeps_its_ballot_in_the_tally_marked_with_its_round_and_counts_as_failed() -> None:
    failing = {(1, "archon-0"), (2, "archon-0"), (2, "archon-1")}
    async with opened(build(Troubled(failing=failing))) as house:
        ended = await finished(house, asked_for(Protocol(ProtocolKind.DEBATE, rounds=1)))
    assert [dict(round_.kept) for round_ in ended.rounds] == [{}, {"archon-0": 0}, {"archon-0": 0, "archon-1": 1}]
    assert ended.outcome is not None
    assert sum(ended.outcome.tally.values()) == 6
    assert (ended.roll_call[AgentState.ANSWERED], ended.roll_call[AgentState.FAILED]) == (4, 2)


async def test_the_quorum_counts_how_everybody_ended_last() -> None:
    failing = {(2, f"archon-{number}") for number in range(4)}
    async with opened(build(Troubled(failing=failing))) as house:
        ended = await finished(
            house, asked_for(Protocol(ProtocolKind.DEBATE, rounds=1), quorum=Quorum(min_answered_fraction=0.5))
        )
        await proven(house, ended.id)
    assert (ended.status, ended.outcome) == (DeliberationStatus.INQUORATE, None)


@pytest.mark.parametrize("kind", SEVERAL)
async def test_the_blind_round_shows_nothing_and_later_ones_name_nobody(kind: ProtocolKind) -> None:
    agents = Troubled()
    async with opened(build(agents)) as house:
        await finished(house, asked_for(kind))
    shown = [request.brief for request in agents.requests if request.round_number]
    assert all(request.brief is None for request in agents.requests if request.round_number == 0)
    assert all(brief is not None for brief in shown)
    labels = [exhibit.label for brief in shown if brief is not None for exhibit in brief.exhibits]
    assert labels
    assert not [label for label in labels if "archon" in label]


@pytest.mark.parametrize("kind", SEVERAL)
async def test_events_tell_of_the_start_and_the_end_of_each_round_in_turn(kind: ProtocolKind) -> None:
    async with opened(build(Troubled())) as house:
        ended = await finished(house, asked_for(kind, seed=RESTLESS))
        told = await history(house, ended.id)
    assert [event.sequence for event in told] == list(range(1, len(told) + 1))
    rounds = [(event.type, event.data["round"]) for event in told if event.type.startswith("round.")]
    numbers = range(len(ended.rounds))
    assert rounds == [(kind_, number) for number in numbers for kind_ in ("round.started", "round.ended")]
    for event in told:
        if event.type == "round.ended":
            asked = ended.rounds[event.data["round"]]
            assert event.data["roll_call"]["asked"] == asked.roll_call.asked
            assert event.data["tally"] == dict(asked.tally)
    assert told[-1].type == "deliberation.completed"


@pytest.mark.parametrize(("kind", "number"), EVERY_ROUND)
async def test_it_can_be_cancelled_in_any_round_and_nobody_is_asked_after_that(kind: ProtocolKind, number: int) -> None:
    agents = Troubled()
    async with opened(build(agents)) as house:
        accepted = await house.service.submit(asked_for(kind, seed=RESTLESS))
        await pass_time(number + 0.5)
        await house.service.cancel(accepted.id)
        ended = await house.service.wait(accepted.id, timeout_s=None)
        await proven(house, ended.id)
        told = [event.type for event in await history(house, ended.id)]
    assert (ended.status, ended.outcome) == (DeliberationStatus.CANCELLED, None)
    assert {record.state for record in ended.rounds[-1].records} == {AgentState.CANCELLED}
    assert [round_.number for round_ in ended.rounds] == list(range(number + 1))
    assert max(request.round_number for request in agents.requests) == number
    assert told.count("round.started") == told.count("round.ended") == number + 1


@pytest.mark.parametrize(("kind", "number"), EVERY_ROUND)
async def test_a_halt_in_any_round_ends_it_and_stops_the_calls_in_flight(kind: ProtocolKind, number: int) -> None:
    agents = Troubled()
    async with opened(build(agents)) as house:
        accepted = await house.service.submit(asked_for(kind, seed=RESTLESS))
        await pass_time(number + 0.5)
        await house.halt.set_halted("drill")
        ended = await house.service.wait(accepted.id, timeout_s=None)
        await proven(house, ended.id)
    assert (ended.status, ended.outcome) == (DeliberationStatus.HALTED, None)
    assert {record.state for record in ended.rounds[-1].records} == {AgentState.HALTED}
    assert len(ended.rounds) == number + 1


async def test_the_deadline_runs_over_all_rounds_and_then_the_last_positions_count() -> None:
    hanging = {(2, "archon-0"), (2, "archon-1")}
    async with opened(build(Troubled(hanging=hanging))) as house:
        ended = await finished(house, asked_for(ProtocolKind.DEBATE, limits=Limits(deadline_s=10)))
        await proven(house, ended.id)
    assert ended.status is DeliberationStatus.COMPLETED
    assert ended.reason == "the deadline came before round 3"
    assert len(ended.rounds) == 3
    assert dict(ended.rounds[-1].kept) == {"archon-0": 1, "archon-1": 1}
    assert ended.roll_call[AgentState.TIMED_OUT] == 2
    assert ended.started_at is not None
    assert ended.finished_at is not None
    assert (ended.finished_at - ended.started_at).total_seconds() == pytest.approx(10, abs=0.1)


async def test_each_agent_has_its_own_time_in_each_round() -> None:
    hanging = {(0, "archon-0"), (1, "archon-0")}
    async with opened(build(Troubled(hanging=hanging))) as house:
        ended = await finished(
            house, asked_for(Protocol(ProtocolKind.DEBATE, rounds=1), limits=Limits(agent_timeout_s=3))
        )
    states = [round_.records[0].state for round_ in ended.rounds]
    assert states == [AgentState.TIMED_OUT, AgentState.TIMED_OUT, AgentState.ANSWERED]


@pytest.mark.parametrize("kind", SEVERAL)
async def test_where_hardly_anybody_answers_the_blind_round_is_the_last(kind: ProtocolKind) -> None:
    failing = {(0, f"archon-{number}") for number in range(5)}
    async with opened(build(Troubled(failing=failing))) as house:
        ended = await finished(house, asked_for(kind, quorum=Quorum(0)))
        await proven(house, ended.id)
    assert len(ended.rounds) == 1


@pytest.mark.parametrize("kind", SEVERAL)
async def test_a_round_in_which_nobody_took_part_is_the_last(kind: ProtocolKind) -> None:
    failing = {(1, f"archon-{number}") for number in range(6)}
    async with opened(build(Troubled(failing=failing))) as house:
        ended = await finished(house, asked_for(kind, quorum=Quorum(0)))
        verified = await proven(house, ended.id)
    assert len(ended.rounds) == 2
    assert ended.outcome is not None
    assert ended.outcome.tally == ended.outcome.blind_tally
    assert verified.not_recomputed is None


@pytest.mark.parametrize("kind", ProtocolKind)
async def test_one_agent_alone_has_nobody_to_deliberate_with(kind: ProtocolKind) -> None:
    async with opened(build(Troubled())) as house:
        ended = await finished(house, asked_for(kind, 1))
        await proven(house, ended.id)
    assert (ended.status, len(ended.rounds)) == (DeliberationStatus.COMPLETED, 1)


async def test_each_round_asks_everybody_once_even_where_slots_are_few() -> None:
    agents = Troubled()
    async with opened(build(agents, slots=2)) as house:
        ended = await finished(house, asked_for(ProtocolKind.PEER_REVIEW, 7))
    turns = Counter((request.round_number, request.agent_id) for request in agents.requests)
    assert (len(turns), set(turns.values())) == (21, {1})
    assert ended.status is DeliberationStatus.COMPLETED
