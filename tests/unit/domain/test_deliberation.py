"""A deliberation moves along legal transitions only, and its sums are right by construction."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.errors.deliberation import IllegalTransitionError, InvalidSpecificationError
from domain.models.agent import Agent, Persona, Roster
from domain.models.budget import Limits, Quorum, Sampling, Usage
from domain.models.deliberation import Deliberation, DeliberationStatus, Specification
from domain.models.outcome import Outcome, OutcomeStatus
from domain.models.protocol import Protocol
from domain.models.question import AnswerFormat, AnswerKind, Question
from domain.models.roll_call import AgentState, RollCall
from domain.models.round import AgentRecord, FailureCause, Round
from domain.voting.rule import Rule, RuleKind

NOW = datetime(2026, 11, 21, tzinfo=UTC)
OUTCOME = Outcome(OutcomeStatus.DECIDED, "threshold", "yes")


def specification(**changes: object) -> Specification:
    agents = [Agent(f"archon-{n}", Persona("A viewpoint.")) for n in range(3)]
    made = Specification(
        Question("Should it be closed?"), Roster.assemble("test", agents), Rule(RuleKind.THRESHOLD, 0.5)
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def queued() -> Deliberation:
    return Deliberation.accept(specification(), at=NOW, orchestrator="stub", simulated=True, key_name=None)


def record(agent_id: str, state: AgentState, attempts: int = 1) -> AgentRecord:
    failure = None if state.took_part else FailureCause("kind", "message")
    return AgentRecord(0, agent_id, state, attempts, NOW, NOW, failure=failure, usage=Usage(attempts, 10, 2, 0.5))


def reached(status: DeliberationStatus) -> Deliberation:
    if status is DeliberationStatus.QUEUED:
        return queued()
    running = queued().start(at=NOW)
    if status is DeliberationStatus.RUNNING:
        return running
    outcome = OUTCOME if status is DeliberationStatus.COMPLETED else None
    return running.end(status, at=NOW, outcome=outcome)


def can_become(deliberation: Deliberation, wanted: DeliberationStatus) -> bool:
    try:
        if wanted is DeliberationStatus.RUNNING:
            deliberation.start(at=NOW)
        else:
            outcome = OUTCOME if wanted is DeliberationStatus.COMPLETED else None
            deliberation.end(wanted, at=NOW, outcome=outcome)
    except IllegalTransitionError:
        return False
    return True


def test_only_legal_moves_are_possible() -> None:
    legal = {
        (present.value, wanted.value)
        for present in DeliberationStatus
        for wanted in DeliberationStatus
        if can_become(reached(present), wanted)
    }
    assert legal == {
        ("queued", "running"),
        ("queued", "cancelled"),
        ("queued", "failed"),
        *(("running", ended) for ended in ("completed", "inquorate", "cancelled", "halted", "failed")),
    }


def test_an_outcome_stands_on_a_completed_deliberation_only() -> None:
    running = queued().start(at=NOW)
    with pytest.raises(IllegalTransitionError) as refused:
        running.end(DeliberationStatus.INQUORATE, at=NOW, outcome=OUTCOME)
    assert refused.value.present == "running"
    with pytest.raises(IllegalTransitionError):
        running.end(DeliberationStatus.COMPLETED, at=NOW)


def test_the_roll_call_counts_each_agent_once_by_its_last_round() -> None:
    first = Round(0, (record("a", AgentState.ANSWERED), record("b", AgentState.FAILED)))
    second = Round(1, (record("a", AgentState.TIMED_OUT), record("b", AgentState.ANSWERED)))
    ended = queued().start(at=NOW).end(DeliberationStatus.FAILED, at=NOW, rounds=(first, second))
    assert ended.roll_call.as_counts()["asked"] == 2
    assert (ended.roll_call[AgentState.TIMED_OUT], ended.roll_call[AgentState.ANSWERED]) == (1, 1)


def test_failures_and_usage_come_from_the_records() -> None:
    round_ = Round(0, (record("a", AgentState.ANSWERED), record("b", AgentState.THROTTLED, attempts=2)))
    ended = queued().start(at=NOW).end(DeliberationStatus.FAILED, at=NOW, rounds=(round_,))
    assert [failure.agent_id for failure in ended.failures] == ["b"]
    assert ended.usage == Usage(3, 20, 4, 1.0)


@given(st.lists(st.sampled_from(AgentState)))
def test_asked_is_the_sum_of_the_states(states: list[AgentState]) -> None:
    roll_call = RollCall.of(states)
    counts = roll_call.as_counts()
    assert counts.pop("asked") == sum(counts.values()) == len(states)
    assert roll_call.took_part + roll_call.failed == len(states)
    assert RollCall.from_counts(roll_call.as_counts()) == roll_call


@pytest.mark.parametrize(
    ("took_part", "asked", "fraction", "met"),
    [
        (1, 2, 0.5, True),
        (35, 72, 0.5, False),
        (36, 72, 0.5, True),
        (7, 10, 0.7, True),
        (0, 3, 0.0, True),
        (0, 0, 0.0, False),
    ],
)
def test_the_quorum_is_exact_at_its_boundary(took_part: int, asked: int, fraction: float, met: bool) -> None:
    states = [AgentState.ANSWERED] * took_part + [AgentState.FAILED] * (asked - took_part)
    assert Quorum(fraction).is_met(RollCall.of(states)) is met


@pytest.mark.parametrize(
    ("changes", "pointers"),
    [
        ({"question": Question("  ")}, ["/question"]),
        ({"question": Question("a\x00b")}, ["/question"]),
        ({"question": Question("a\ud800b")}, ["/question"]),
        ({"question": Question("x" * 32_769)}, ["/question"]),
        ({"question": Question("q", "c" * 600_000)}, ["/context"]),
        ({"question": Question("q", None, AnswerFormat(AnswerKind.VERDICT, ("a", "b")))}, ["/answer/options"]),
        ({"question": Question("q", None, AnswerFormat(AnswerKind.VERDICT, minimum=1))}, ["/answer/min"]),
        ({"question": Question("q", None, AnswerFormat(AnswerKind.VERDICT, unit="m"))}, ["/answer/unit"]),
        ({"protocol": Protocol(wave_size=0)}, ["/protocol/wave_size"]),
        ({"quorum": Quorum(1.1)}, ["/quorum/min_answered_fraction"]),
        ({"limits": Limits(agent_timeout_s=0, max_attempts=11)}, ["/limits/agent_timeout_s", "/limits/max_attempts"]),
        ({"limits": Limits(deadline_s=float("inf"))}, ["/limits/deadline_s"]),
        ({"sampling": Sampling(-1, 0)}, ["/sampling/temperature", "/sampling/max_output_tokens"]),
        ({"metadata": {"k": "\x00"}}, ["/metadata/k"]),
        ({"metadata": {"a/b~c": "", "\x1b": ""}}, ["/metadata/a~1b~0c", "/metadata", "/metadata"]),
        ({"metadata": {str(n): "v" for n in range(33)}}, ["/metadata"]),
        ({"seed": 2**63}, ["/seed"]),
    ],
)
def test_each_bad_part_of_a_specification_is_named_where_it_stands(
    changes: dict[str, object], pointers: list[str]
) -> None:
    with pytest.raises(InvalidSpecificationError) as refused:
        Deliberation.accept(specification(**changes), at=NOW, orchestrator="stub", simulated=True, key_name=None)
    assert [problem.pointer for problem in refused.value.problems] == pointers


@pytest.mark.parametrize(
    "options",
    [
        ("only one",),
        ("a", ""),
        ("a", "A"),
        ("a", " a "),
        ("a", "a\u200b"),
        ("fi", "\ufb01"),
        ("a", "x" * 1025),
        ("a", "\u200b"),
    ],
)
def test_options_that_a_reader_would_confuse_are_refused(options: tuple[str, ...]) -> None:
    assert AnswerFormat(AnswerKind.CHOICE, options).problems()


@pytest.mark.parametrize(("low", "high"), [(None, 1.0), (1.0, None), (1.0, 1.0), (2.0, 1.0), (float("nan"), 1.0)])
def test_a_score_needs_a_range(low: float | None, high: float | None) -> None:
    assert AnswerFormat(AnswerKind.SCORE, minimum=low, maximum=high).problems()


def test_a_roster_names_every_agent_that_cannot_stand_in_it() -> None:
    agents = [
        Agent("a", Persona("fine")),
        Agent("a", Persona("fine")),
        Agent("b\n", Persona("fine")),
        Agent("c", Persona("")),
        Agent("d", Persona("x" * 8193)),
        Agent("e", Persona("fine"), ""),
    ]
    with pytest.raises(InvalidSpecificationError) as refused:
        Roster.assemble("test", agents)
    assert [problem.pointer for problem in refused.value.problems] == [
        "/agents/1/id",
        "/agents/2/id",
        "/agents/3/persona",
        "/agents/4/persona",
        "/agents/5/model",
    ]


@pytest.mark.parametrize("count", [0, 73])
def test_a_roster_has_one_to_seventy_two_agents(count: int) -> None:
    with pytest.raises(InvalidSpecificationError):
        Roster.assemble("test", [Agent(str(n), Persona("fine")) for n in range(count)])


def test_agents_whose_ids_look_alike_are_two_agents() -> None:
    roster = Roster.assemble("test", [Agent("admin", Persona("x")), Agent("\u0430dmin", Persona("x"))])
    assert len(roster.agents) == 2


def test_waves_ask_everyone_in_order() -> None:
    agents = specification().roster.agents
    assert [len(wave) for wave in Protocol(wave_size=2).waves(agents)] == [2, 1]
    assert [agent for wave in Protocol(wave_size=2).waves(agents) for agent in wave] == list(agents)
    assert [len(wave) for wave in Protocol().waves(agents)] == [3]
