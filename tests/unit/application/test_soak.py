"""The parts of a soak, in virtual time: what becomes of each message, who is started again, and what is written down."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any

import pytest

from application.ports.soak_agents import Load
from application.services.soak.cycle import Cycle
from application.services.soak.disturbance import disturbed_s
from application.services.soak.membership import Membership
from application.services.soak.message_book import MessageBook
from application.services.soak.run_soak import Continuation
from application.services.soak.summary import summarise
from application.services.stop_signal import StopReason
from domain.models.deliberation import DeliberationStatus
from domain.models.soak import SoakPlan, parse_scale
from tests.unit.application.soak_bench import MIB, Bench, FakeAgents, plan_of
from tests.virtual_time import pass_time, time_passed


async def test_a_run_of_eight_hours_passes() -> None:
    bench = Bench(SoakPlan())
    report = await bench.run()
    assert (report["status"], report["passed"]) == (DeliberationStatus.COMPLETED, True)
    assert (report["cycles_completed"], report["messages_sent"], report["lost"]) == (96, 4_800, 0)
    assert time_passed() == pytest.approx(95 * 300, abs=60)
    assert report["cycle_ms"]["p50"] == pytest.approx(10)
    assert bench.agents.closed


async def test_cycles_begin_at_their_interval_and_not_after_it() -> None:
    bench = Bench(plan_of(4))
    bench.agents.answer_s = lambda _order: 3.0
    await bench.run()
    assert time_passed() == pytest.approx(3 * 5 + 3, abs=1)


async def test_growth_fails_the_run() -> None:
    bench = Bench(plan_of(24))
    bench.agents.bytes_of = lambda _pid: 10 * MIB + len(bench.agents.puts) * 50_000
    report = await bench.run()
    assert report["criteria"]["memory_growth"]["passed"] is False
    assert report["status"] is DeliberationStatus.FAILED


async def test_a_slow_cycle_fails_the_run() -> None:
    bench = Bench(plan_of(24))
    bench.agents.answer_s = lambda order: 0.5 if (order.cycle, order.agent) == (20, "2") else 0.01
    report = await bench.run()
    assert report["criteria"]["cycle_variance"]["passed"] is False
    assert report["criteria"]["complete_metrics"]["passed"] is True


async def test_an_unanswered_message_is_lost_at_the_timeout_and_the_run_goes_on() -> None:
    bench = Bench(plan_of(3, response_timeout_s=2.0, messages_per_cycle=3))
    bench.agents.answer_s = lambda order: None if (order.cycle, order.agent) == (2, "2") else 0.01
    report = await bench.run()
    # What was to follow the unanswered message is lost with it.
    assert (report["messages_sent"], report["responses_received"], report["lost"]) == (27, 24, 3)
    assert bench.record.written[1]["duration"] == pytest.approx(2_000, abs=300)
    assert ("ERROR", "cycle 2 of 3: 6 of 9 answered in 2000.0 ms, 3 lost by 2") in bench.record.said


async def test_a_response_after_the_timeout_is_late_and_its_message_stays_lost() -> None:
    bench = Bench(plan_of(3, response_timeout_s=2.0))
    bench.agents.answer_s = lambda order: 3.0 if (order.cycle, order.agent) == (2, "2") else 0.01
    report = await bench.run()
    assert (report["late"], report["lost"], report["responses_received"]) == (1, 1, 8)


async def test_a_response_to_no_message_of_the_run_is_corrupt() -> None:
    bench = Bench(plan_of(2))
    running = asyncio.create_task(bench.run())
    await pass_time(1)
    for message_id in ("x-1", "s-999", "s-0", "s-x", ""):
        bench.agents.on_response("1", message_id, {})
    bench.agents.on_response("1", "s-1", {})
    report = await running
    assert (report["corrupt"], report["duplicates"]) == (5, 1)


async def test_messages_of_a_cycle_go_by_priority_and_one_at_a_time() -> None:
    bench = Bench(plan_of(1, agents=1, messages_per_cycle=5))
    await bench.run()
    assert [order.priority for order in bench.agents.puts] == [0, 0, 1, 1, 2]
    assert len({order.message_id for order in bench.agents.puts}) == 5


async def test_without_room_a_message_is_tried_again() -> None:
    bench = Bench(plan_of(1))
    bench.agents.refuses = 4
    report = await bench.run()
    assert (report["lost"], report["passed"]) == (0, True)
    assert "4 times no room for a message" in " ".join(text for _, text in bench.record.said)


async def test_every_kill_is_one_crash_and_one_restart() -> None:
    bench = Bench(plan_of(10, kill_every_s=12.0))
    report = await bench.run()
    assert (report["crashes"], report["restarts"], report["injected"]) == (3, 3, 3)
    assert (report["lost"], report["passed"]) == (0, True)


async def test_an_agent_that_dies_by_itself_fails_the_run_and_its_message_is_answered_by_its_successor() -> None:
    bench = Bench(plan_of(3))
    bench.agents.answer_s = lambda _order: 0.5
    running = asyncio.create_task(bench.run())
    await pass_time(5.2)
    bench.agents.kill("2")
    report = await running
    assert (report["crashes"], report["restarts"], report["injected"], report["lost"]) == (1, 1, 0, 0)
    assert report["criteria"]["crashes"]["passed"] is False
    assert [row["crashedAgents"] for row in bench.record.written] == [0, 1, 0]


async def test_an_agent_that_goes_on_dying_is_started_at_most_every_second() -> None:
    bench = Bench(plan_of(12, agents=1))
    running = asyncio.create_task(bench.run())
    killing = asyncio.create_task(_keep_killing(bench.agents))
    await running
    killing.cancel()
    times = [at for at, _ in bench.agents.starts]
    pauses = [after - before for before, after in pairwise(times)]
    assert max(pauses) == pytest.approx(1.0, abs=0.2)
    assert len(times) < 80


async def _keep_killing(agents: FakeAgents) -> None:
    while True:
        await pass_time(0.05)
        agents.kill("1")


async def test_the_number_of_agents_follows_the_scale() -> None:
    bench = Bench(plan_of(6, scale=parse_scale(["6@3", "1@5"])))
    report = await bench.run()
    assert [row["messagesSent"] for row in bench.record.written] == [3, 3, 6, 6, 1, 1]
    assert (report["crashes"], report["passed"]) == (0, True)


async def test_an_agent_that_is_never_ready_is_not_left_out() -> None:
    bench = Bench(plan_of(2, response_timeout_s=1.0))
    bench.agents.answer_s = lambda order: None if order.agent == "3" else 0.01
    bench.agents.ready_after_s = 60.0
    report = await bench.run()
    assert (report["messages_sent"], report["lost"], report["passed"]) == (6, 2, False)
    assert any(level == "ERROR" and "not ready" in text for level, text in bench.record.said)


async def test_a_stop_in_the_middle_of_a_cycle_counts_what_was_answered() -> None:
    bench = Bench(plan_of(100))
    bench.agents.answer_s = lambda order: None if (order.cycle, order.agent) == (3, "2") else 0.01
    running = asyncio.create_task(bench.run())
    await pass_time(11)
    bench.stop.set(StopReason.HALTED)
    report = await running
    assert report["status"] is DeliberationStatus.HALTED
    assert (report["cycles_completed"], report["messages_sent"], report["responses_received"]) == (2, 8, 8)
    assert (report["lost"], report["passed"]) == (0, False)
    assert bench.record.reports
    assert bench.agents.final_audits == 1


async def test_a_row_that_could_not_be_written_is_written_with_the_next() -> None:
    bench = Bench(plan_of(4))
    bench.record.fails = 2
    report = await bench.run()
    assert [row["cycle"] for row in bench.record.written] == [1, 2, 3, 4]
    assert report["passed"] is True


async def test_a_row_that_is_never_written_fails_the_run() -> None:
    bench = Bench(plan_of(4))
    bench.record.fails = 9
    report = await bench.run()
    assert report["criteria"]["complete_metrics"] == {"value": 0, "limit": 4, "passed": False}


async def test_a_continued_run_adds_up_with_what_was_counted_before() -> None:
    first = Bench(plan_of(10))
    running = asyncio.create_task(first.run())
    await pass_time(21)
    rows = list(first.record.written)
    running.cancel()
    second = Bench(plan_of(10), continuation=Continuation(rows, ["old"]))
    second.record.written = rows
    report = await second.run()
    assert [row["cycle"] for row in second.record.written] == list(range(1, 11))
    assert (report["messages_sent"], report["responses_received"], report["passed"]) == (30, 30, True)


async def test_everything_said_and_answered_is_kept_for_the_history() -> None:
    bench = Bench(plan_of(1))
    await bench.run()
    assert [next(iter({"to", "from"} & entry.keys())) for entry in bench.record.kept] == ["to"] * 3 + ["from"] * 3


async def test_whoever_is_not_the_runs_own_and_dies_loses_its_message_at_once() -> None:
    agents = FakeAgents()
    agents.answer_s = lambda _order: None
    agents.pids = {"x": 1}
    book = MessageBook("s")
    order = book.order("x", cycle=1)
    cycle = Cycle({"x": [order]}, post=agents, book=book, own=lambda _agent: False, clock=lambda: 0.0)
    asyncio.get_running_loop().call_later(1, agents.pids.clear)
    await cycle.run(timeout_s=100)
    assert (cycle.lost, cycle.received) == (1, 0)
    assert time_passed() < 2


@pytest.mark.parametrize(("lives", "taken", "crashes"), [(True, True, 0), (False, True, 1), (False, False, 0)])
def test_only_an_agent_of_somebody_else_that_is_dead_and_did_not_say_so_has_crashed(
    lives: bool, taken: bool, crashes: int
) -> None:
    agents = FakeAgents()
    ended: list[int] = []
    membership = Membership(agents, say=lambda _level, _text: None, ended=ended.append)
    agents.pids = {"x": 7}
    membership.look(own=())
    agents.pids = {}
    agents.alive = {"x"} if lives else set()
    agents.names = frozenset({"x"} if taken else ())
    for _ in range(2):
        membership.look(own=())
        assert (membership.crashes, ended) == (crashes, [7])


def test_a_response_under_another_agents_name_answers_nothing() -> None:
    book = MessageBook("s")
    book.sent(book.order("1", cycle=1), 0.0)
    assert book.answered("2", "s-1") is None
    assert book.strange == 1
    assert book.answered("1", "s-1") is not None


def test_what_comes_for_an_interrupted_session_is_late() -> None:
    book = MessageBook("new", earlier=["old"])
    assert book.answered("1", "old-7") is None
    assert (book.late, book.strange) == (1, 0)


def load(waited: float, worked: float, stolen: float = 0.0) -> Load:
    return Load({0: worked, 1: worked}, {0: waited, 1: waited}, stolen, cores=2)


def test_waiting_for_a_core_that_others_have_is_no_fault_of_the_agents() -> None:
    assert disturbed_s(load(1, 1), load(1.4, 1.1), path=[0, 1], every=[0, 1]) == pytest.approx(0.8 - 0.1)


def test_waiting_for_a_core_that_the_soak_itself_has_is_its_own_fault() -> None:
    assert disturbed_s(load(0, 0), load(0.5, 3), path=[0, 1], every=[0, 1]) == 0


def test_what_the_host_took_is_no_fault_either() -> None:
    assert disturbed_s(load(0, 0), load(0, 0.1, 0.3), path=[0, 1], every=[0, 1]) == pytest.approx(0.3)


def test_a_process_that_is_new_or_gone_disturbs_nothing() -> None:
    assert disturbed_s(load(0, 0), load(0, 0), path=[5], every=[5]) == 0


def test_a_summary_counts_rows_and_skips_the_rest() -> None:
    lines = [
        '{"type": "coordination_cycle", "cycle": 1, "duration": 10, "messagesSent": 2, "responsesReceived": 2, "responseRate": 1.0, '
        '"memoryStats": {"average": 5, "growthRate": 0}, "crashedAgents": 0}\n',
        '{"type": "coordination_cycle", "cycle": 3, "duration": 30, "messagesSent": 2, "responsesReceived": 1, "responseRate": 0.5, '
        '"memoryStats": {"average": 7, "growthRate": 2.5}, "crashedAgents": ["4"]}\n',
        "\n",
        '{"type": "something_else"}\n',
        "{torn\n",
        "[" * 100_000 + "\n",
        '{"type": "coordination_cycle", "cycle": 4, "duration": NaN, "messagesSent": 1e999}\n',
    ]
    found: dict[str, Any] = summarise(lines)
    assert (found["cycles"], found["skipped"], found["missing_cycles"], found["crashed_agents"]) == (3, 3, 1, 1)
    assert (found["messages_sent"], found["responses_received"]) == (4, 3)
    assert found["cycle_ms"] == {"p50": 10, "p95": 30, "max": 30}


def test_the_summary_of_nothing_is_empty() -> None:
    found: dict[str, Any] = summarise([])
    assert (found["cycles"], found["memory"]["first"], found["response_rate"]["min"]) == (0, None, None)
