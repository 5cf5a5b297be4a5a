"""The ledger: every agent is counted once, and what breaks a rule is no result."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from application.services.swarm.ledger import Ledger, Ruling
from application.services.swarm.task import CoinFlip, TaskTerms
from application.services.swarm.words import Delegated, Say
from domain.models.message import Message, Payload

TERMS = CoinFlip.terms
ANY = TaskTerms("m:f", agent="coin-agent", group="coin_group", result_type="coin_result")


def ledger(terms: TaskTerms = TERMS, *numbers: int) -> Ledger:
    one = Ledger(terms)
    one.ask(delegated(*(numbers or (1, 2))))
    return one


def delegated(*numbers: int, attempt: int = 1, at: float = 10.0) -> Delegated:
    return Delegated(1, attempt, "tool", numbers, tuple(f"t{number}-{attempt}" for number in numbers), at)


def said(number: int, result: Payload = "heads", *, attempt: int = 1, **other: Payload) -> Message:
    payload: dict[str, Payload] = {
        "agent_id": f"coin-agent-{number}",
        "batch": 1,
        "attempt": attempt,
        "ticket": f"t{number}-{attempt}",
        "result": result,
        **other,
    }
    return Message(f"coin-agent-{number}", "coin_group", "coin_result", payload)


def failed(number: int, *, attempt: int = 1, ticket: str | None = None) -> Message:
    payload: dict[str, Payload] = {
        "agent_id": f"coin-agent-{number}",
        "batch": 1,
        "attempt": attempt,
        "ticket": ticket or f"t{number}-{attempt}",
        "kind": "raised",
        "message": "no",
        "final": False,
    }
    return Message("tool", "coin_group", Say.FAILED, payload)


def test_each_agent_is_counted_once_however_often_it_speaks() -> None:
    one = ledger()
    assert [one.judge(said(1), 11.0) for _ in range(3)] == [Ruling.COUNTED, Ruling.DUPLICATE, Ruling.DUPLICATE]
    assert (one.received, one.duplicates) == (1, 2)


def test_a_batch_has_ended_when_all_of_its_agents_were_heard() -> None:
    one = ledger()
    one.judge(said(1), 11.0)
    assert (one.take_ended(), one.missing(1)) == ([], [2])
    one.judge(failed(2), 11.0)
    assert (one.take_ended(), one.take_ended(), one.missing(1)) == ([1], [], [])


def test_a_failure_is_forgotten_when_its_agent_is_counted_after_all() -> None:
    one = ledger()
    one.judge(failed(1), 11.0)
    assert [number for number, _ in one.failures_of(1)] == [1]
    one.ask(delegated(1, attempt=2))
    one.judge(said(1, attempt=2), 12.0)
    assert one.failures_of(1) == []
    assert one.results() == [("coin-agent-1", "heads")]


def test_who_was_counted_is_not_waited_for_again() -> None:
    one = ledger()
    one.judge(said(1), 11.0)
    one.ask(delegated(1, 2, attempt=2))
    assert one.missing(1) == [2]


def test_a_late_answer_to_the_first_attempt_counts() -> None:
    one = ledger()
    one.ask(delegated(1, attempt=2))
    assert one.judge(said(1, attempt=1), 12.0) is Ruling.COUNTED
    assert one.judge(said(1, attempt=2), 12.0) is Ruling.DUPLICATE


def test_latency_runs_from_the_delegation_to_the_count() -> None:
    one = ledger()
    one.judge(said(1), 10.5)
    assert one.latencies == [0.5]


def test_results_stand_in_the_order_of_numbers() -> None:
    one = ledger(TERMS, 10, 9, 2)
    for number in (10, 2, 9):
        one.judge(said(number), 11.0)
    assert [name for name, _ in one.results()] == ["coin-agent-2", "coin-agent-9", "coin-agent-10"]


@pytest.mark.parametrize(
    ("message", "rule"),
    [
        (said(1, "edge"), "not_allowed"),
        (said(1, 1), "not_allowed"),
        (said(1, None), "not_allowed"),
        (said(3), "not_asked"),
        (said(1, ticket="t2-1"), "foreign_id"),
        (said(1, attempt=2), "foreign_id"),
        (said(1, agent_id="coin-agent-2", ticket="t2-1"), "foreign_id"),
        (said(1, batch="one"), "unreadable"),
        (Message("coin-agent-1", "coin_group", "coin_result", "heads"), "unreadable"),
        (Message("coin-agent-1", "coin_group", "coin_result", {"agent_id": "coin-agent-1"}), "unreadable"),
        (Message("coin-agent-1", "coin_group", "gossip", {"result": "heads"}), "unreadable"),
        (failed(3), "not_asked"),
        (failed(1, ticket="guess"), "foreign_id"),
        (Message("tool", "coin_group", Say.FAILED, {"agent_id": "coin-agent-1"}), "unreadable"),
    ],
)
def test_what_breaks_a_rule_is_an_offence_and_not_counted(message: Message, rule: str) -> None:
    one = ledger()
    assert one.judge(message, 11.0) is Ruling.OFFENCE
    assert [offence.rule for offence in one.offences] == [rule]
    assert (one.received, one.missing(1)) == (0, [1, 2])


def test_a_second_result_that_differs_is_an_offence_and_the_first_stays() -> None:
    one = ledger()
    one.judge(said(1, "heads"), 11.0)
    assert one.judge(said(1, "tails"), 11.0) is Ruling.OFFENCE
    assert one.offences[0].rule == "differs"
    assert one.results() == [("coin-agent-1", "heads")]


def test_what_is_done_anew_may_differ_where_the_task_does_not_promise_otherwise() -> None:
    one = ledger(ANY)
    one.ask(delegated(1, attempt=2))
    one.judge(said(1, {"seen": 1}), 11.0)
    assert one.judge(said(1, {"seen": 2}, attempt=2), 11.0) is Ruling.DUPLICATE
    assert one.judge(said(1, {"seen": 3}), 11.0) is Ruling.OFFENCE


def test_a_lie_about_the_batch_ends_no_other_batch() -> None:
    one = ledger()
    one.ask(Delegated(2, 1, "tool", (5,), ("t5-1",), 10.0))
    one.judge(said(5, batch=1), 11.0)
    assert (one.take_ended(), one.missing(1)) == ([2], [1, 2])


def test_offences_are_remembered_only_so_far() -> None:
    one = ledger()
    message = Message("x" * 100_000, "coin_group", "gossip", {"result": "y"})
    for _ in range(1_500):
        one.judge(message, 11.0)
    assert len(one.offences) == 1_000
    assert len(one.offences[0].sender) < 100


def test_a_delegation_survives_its_travel() -> None:
    sent = delegated(1, 2)
    assert Delegated.read({"batches": [sent.payload()]}) == [sent]


@pytest.mark.parametrize(
    "change",
    [{"tickets": ["one"]}, {"numbers": ["1", "2"]}, {"batch": "1"}, {"numbers": []}, {"at": None}],
)
def test_a_delegation_that_cannot_be_read_is_none(change: Mapping[str, Payload]) -> None:
    payload = delegated(1, 2).payload()
    assert isinstance(payload, dict)
    assert Delegated.read({"batches": [{**payload, **change}]}) == []
