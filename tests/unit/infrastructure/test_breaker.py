"""Holds the breaker to opening when it should, to one probe at a time, and to hearing no stragglers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.errors.agent import AgentInvocationError
from domain.models.roll_call import AgentState
from infrastructure.orchestrators.breaker import Breaker, BreakerState, Passage


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def pass_(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    return Breaker("p/m", clock=clock, draw=lambda: 0.5)


def enter(breaker: Breaker) -> Passage:
    passage = breaker.try_enter()
    assert passage is not None
    return passage


def fail(breaker: Breaker, times: int = 1, *, kind: str = "server_error", wait_s: float | None = None) -> None:
    for _ in range(times):
        enter(breaker).failed(kind, retry_after_s=wait_s)


def opened(breaker: Breaker) -> Breaker:
    fail(breaker, 5)
    assert breaker.state is BreakerState.OPEN
    return breaker


def test_four_failures_leave_it_closed_and_the_fifth_opens_it(breaker: Breaker) -> None:
    fail(breaker, 4)
    assert breaker.state is BreakerState.CLOSED
    fail(breaker)
    assert (breaker.state, breaker.is_open, breaker.try_enter()) == (BreakerState.OPEN, True, None)
    assert breaker.view().cause == "server_error"


def test_an_answer_between_failures_begins_the_count_anew(breaker: Breaker) -> None:
    fail(breaker, 4)
    enter(breaker).succeeded()
    fail(breaker, 4)
    assert breaker.state is BreakerState.CLOSED


def test_calls_that_fail_together_are_one_failure(breaker: Breaker) -> None:
    for wave in range(1, 6):
        assert breaker.state is BreakerState.CLOSED, wave
        for passage in [enter(breaker) for _ in range(72)]:
            passage.failed("server_error")
    assert breaker.state is BreakerState.OPEN


def test_a_moment_of_weakness_that_all_calls_meet_lets_their_second_attempts_through(breaker: Breaker) -> None:
    for passage in [enter(breaker) for _ in range(72)]:
        passage.failed("server_error")
    for passage in [enter(breaker) for _ in range(72)]:
        passage.succeeded()
    assert breaker.view().failures == 0


def test_nothing_but_failures_for_five_seconds_opens_it_whenever_their_calls_began(
    breaker: Breaker, clock: Clock
) -> None:
    passages = [enter(breaker) for _ in range(72)]
    for passage in passages[:60]:
        passage.failed("timed_out")
    clock.pass_(4.9)
    passages[60].failed("timed_out")
    assert breaker.view().state is BreakerState.CLOSED
    clock.pass_(0.1)
    passages[61].failed("timed_out")
    assert breaker.view().state is BreakerState.OPEN


def test_four_failures_leave_it_closed_however_long_they_take(breaker: Breaker, clock: Clock) -> None:
    passages = [enter(breaker) for _ in range(4)]
    for passage in passages:
        passage.failed("timed_out")
        clock.pass_(60)
    assert breaker.state is BreakerState.CLOSED


def test_it_stays_open_for_fifteen_seconds(breaker: Breaker, clock: Clock) -> None:
    opened(breaker)
    assert breaker.view().opens_in_s == 15.0
    clock.pass_(14.999)
    assert not breaker.would_let_pass()
    clock.pass_(0.001)
    assert breaker.state is BreakerState.HALF_OPEN
    assert breaker.would_let_pass()


@pytest.mark.parametrize(("drawn", "seconds"), [(0.0, 13.5), (0.5, 15.0), (1.0, 16.5)])
def test_chance_moves_the_time_by_a_tenth(clock: Clock, drawn: float, seconds: float) -> None:
    breaker = Breaker("p/m", clock=clock, draw=lambda: drawn)
    fail(breaker, 5)
    assert breaker.view().opens_in_s == pytest.approx(seconds)


def test_half_open_lets_one_call_through_however_many_ask(breaker: Breaker, clock: Clock) -> None:
    opened(breaker)
    clock.pass_(15)
    passages = [breaker.try_enter() for _ in range(72)]
    assert sum(passage is not None for passage in passages) == 1
    assert breaker.is_open


def test_a_probe_that_is_answered_closes_it(breaker: Breaker, clock: Clock) -> None:
    opened(breaker)
    clock.pass_(15)
    enter(breaker).succeeded()
    assert (breaker.state, breaker.view().failures, breaker.view().cause) == (BreakerState.CLOSED, 0, None)
    assert all(breaker.try_enter() for _ in range(72))


def test_each_failed_probe_doubles_the_time_up_to_two_minutes(breaker: Breaker, clock: Clock) -> None:
    opened(breaker)
    stays = []
    for _ in range(1100):
        stays.append(breaker.view().opens_in_s)
        clock.pass_(stays[-1])
        fail(breaker)
    assert [round(stay) for stay in stays[:5]] == [15, 30, 60, 120, 120]
    assert stays[-1] == pytest.approx(120.0)


def test_after_it_closed_it_begins_with_fifteen_seconds_again(breaker: Breaker, clock: Clock) -> None:
    opened(breaker)
    clock.pass_(15)
    fail(breaker)
    clock.pass_(30)
    enter(breaker).succeeded()
    assert opened(breaker).view().opens_in_s == pytest.approx(15.0)


def test_a_probe_that_was_withdrawn_makes_way_for_the_next(breaker: Breaker, clock: Clock) -> None:
    opened(breaker)
    clock.pass_(15)
    enter(breaker).withdrawn()
    assert breaker.view().state is BreakerState.HALF_OPEN
    enter(breaker).succeeded()
    assert breaker.view().state is BreakerState.CLOSED


def test_a_probe_that_is_throttled_leaves_it_open_as_long_as_before(breaker: Breaker, clock: Clock) -> None:
    opened(breaker)
    clock.pass_(15)
    enter(breaker).throttled()
    assert breaker.view().opens_in_s == pytest.approx(15.0)
    clock.pass_(15)
    enter(breaker).throttled(retry_after_s=40)
    assert breaker.view().opens_in_s == pytest.approx(40.0)


@pytest.mark.parametrize(("asked", "seconds"), [(None, 15.0), (3.0, 15.0), (60.0, 60.0), (1e12, 3600.0)])
def test_the_wait_that_a_provider_asks_for_is_honoured_up_to_an_hour(
    breaker: Breaker, asked: float | None, seconds: float
) -> None:
    fail(breaker, 5, wait_s=asked)
    assert breaker.view().opens_in_s == pytest.approx(seconds)


@pytest.mark.parametrize("kind", ["unauthorised", "quota_exhausted", "unknown_model"])
def test_what_no_further_call_mends_opens_it_at_once(breaker: Breaker, kind: str) -> None:
    fail(breaker, kind=kind)
    assert (breaker.state, breaker.view().cause) == (BreakerState.OPEN, kind)


def test_stragglers_of_before_the_opening_have_no_say(breaker: Breaker, clock: Clock) -> None:
    good, bad, late = enter(breaker), enter(breaker), enter(breaker)
    opened(breaker)
    good.succeeded()
    bad.failed("server_error", retry_after_s=600)
    assert breaker.view().opens_in_s == 15.0
    clock.pass_(15)
    probe = enter(breaker)
    late.failed("server_error")
    assert breaker.try_enter() is None
    probe.succeeded()
    assert breaker.state is BreakerState.CLOSED


def test_a_probe_of_an_earlier_opening_has_no_say(breaker: Breaker, clock: Clock) -> None:
    opened(breaker)
    clock.pass_(15)
    probe = enter(breaker)
    probe.failed("server_error")
    probe.succeeded()
    assert breaker.state is BreakerState.OPEN


def test_ending_twice_counts_once(breaker: Breaker) -> None:
    passage = enter(breaker)
    for _ in range(5):
        passage.failed("server_error")
    assert breaker.view().failures == 1


FAILED, INVALID, THROTTLED, TIMED_OUT = (
    AgentState.FAILED,
    AgentState.INVALID,
    AgentState.THROTTLED,
    AgentState.TIMED_OUT,
)


@pytest.mark.parametrize(
    ("kind", "state", "retryable", "failures"),
    [
        ("server_error", FAILED, True, 1),
        ("connect_failed", FAILED, True, 1),
        ("connection_lost", FAILED, True, 1),
        ("provider_error", FAILED, True, 1),
        ("certificate_refused", FAILED, False, 1),
        ("redirect_refused", FAILED, False, 1),
        ("timed_out", TIMED_OUT, False, 1),
        ("provider_error", FAILED, False, 0),
        ("refused_by_provider", FAILED, False, 0),
        ("unsupported_parameter", FAILED, True, 0),
        ("reply_too_large", FAILED, False, 0),
        ("empty_reply", INVALID, False, 0),
        ("unreadable_reply", INVALID, False, 0),
    ],
)
def test_an_error_is_judged_by_its_kind_and_state(
    breaker: Breaker, kind: str, state: AgentState, retryable: bool, failures: int
) -> None:
    fail(breaker, 1)
    enter(breaker).ended(AgentInvocationError("x", kind=kind, state=state, retryable=retryable))
    assert breaker.view().failures == (2 if failures else 0)


@pytest.mark.parametrize(("kind", "state"), [("rate_limited", THROTTLED), ("throttled", THROTTLED), ("closed", FAILED)])
def test_an_error_that_says_nothing_of_the_far_end_leaves_the_count(
    breaker: Breaker, kind: str, state: AgentState
) -> None:
    fail(breaker, 4)
    for _ in range(10):
        enter(breaker).ended(AgentInvocationError("x", kind=kind, state=state, retryable=True))
    assert (breaker.state, breaker.view().failures) == (BreakerState.CLOSED, 4)


def test_an_answer_is_an_ending_without_an_error(breaker: Breaker) -> None:
    fail(breaker, 4)
    enter(breaker).ended(None)
    assert breaker.view().failures == 0


@given(st.lists(st.tuples(st.sampled_from(["enter", "good", "bad", "gone", "busy", "wait"]), st.integers(0, 9))))
def test_never_more_than_one_probe_is_in_flight(steps: list[tuple[str, int]]) -> None:
    clock = Clock()
    breaker = Breaker("p/m", clock=clock, draw=lambda: 0.5)
    under_way: list[tuple[Passage, bool]] = []
    for step, which in steps:
        if step == "enter":
            is_probe = breaker.is_open
            passage = breaker.try_enter()
            if passage is not None:
                under_way.append((passage, is_probe))
        elif step == "wait":
            clock.pass_(which * 10)
        elif under_way:
            passage, _ = under_way.pop(which % len(under_way))
            {"good": passage.succeeded, "gone": passage.withdrawn, "busy": passage.throttled}.get(
                step, lambda ended=passage: ended.failed("server_error")
            )()
        assert sum(is_probe for _, is_probe in under_way) <= 1
