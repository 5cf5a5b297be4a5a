"""Holds the limiter to its limits as the far end would count them, and to being fair, whatever comes and in whatever order."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.errors.agent import AgentInvocationError
from domain.errors.dependency import DependencyUnavailableError
from domain.models.budget import Usage
from domain.models.roll_call import AgentState
from infrastructure.orchestrators.pace import SLOWEST
from infrastructure.orchestrators.provider_limiter import WAIT_BOUNDS_S, Allowance, LimiterState, Place, ProviderLimiter
from infrastructure.orchestrators.rate_window import MARGIN_S, WINDOW_S
from infrastructure.orchestrators.shared_pacing import Asking, Leave
from infrastructure.stubs.virtual_time import VirtualClock, run_in_virtual_time

MODEL = "openai/small"


def limiter(
    *,
    concurrency: int = 72,
    requests: int | None = None,
    tokens: int | None = None,
    memory: int | None = None,
    share: float = 1.0,
    shared: Others | None = None,
) -> ProviderLimiter:
    allowance = Allowance(concurrency, requests, tokens, memory, share)
    return ProviderLimiter(MODEL, allowance, clock=VirtualClock(), shared=shared)


def time() -> float:
    return asyncio.get_running_loop().time()


async def enter(one: ProviderLimiter, tokens: int = 1, *, group: str = "key", batch: str = "batch") -> Place:
    return await one.enter(tokens, group=group, batch=batch)


def waits(one: ProviderLimiter, number: int, *, group: str = "key", batch: str = "batch") -> list[asyncio.Task[Place]]:
    return [asyncio.create_task(enter(one, group=group, batch=batch)) for _ in range(number)]


async def given_up(tasks: Sequence[asyncio.Task[Place]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


class FarEnd:
    """A provider that counts what is in flight."""

    def __init__(self) -> None:
        self.in_flight = 0
        self.peak = 0

    async def call(self, seconds: float) -> None:
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)
        try:
            await asyncio.sleep(seconds)
        finally:
            self.in_flight -= 1


def most_in_a_minute(arrivals: Sequence[tuple[float, int]]) -> int:
    """The most that arrived in any window of a minute, of `(time, amount)`."""
    return max(
        (sum(amount for at, amount in arrivals if begin <= at < begin + WINDOW_S) for begin, _ in arrivals), default=0
    )


# Limits.


async def test_no_more_calls_are_in_flight_than_allowed_and_the_next_goes_when_one_ends() -> None:
    one = limiter(concurrency=2)
    first, _ = await enter(one), await enter(one)
    (third,) = waits(one, 1)
    await asyncio.sleep(1)
    assert not third.done()
    first.leave(1)
    await third
    assert time() == 1
    assert one.state.in_flight == 2


async def test_a_minutes_requests_may_go_at_once_and_then_none_for_a_minute() -> None:
    one = limiter(requests=10)
    for _ in range(10):
        (await enter(one)).leave(1)
    assert time() == 0
    (await enter(one)).leave(1)
    assert time() == pytest.approx(WINDOW_S + MARGIN_S)


async def test_the_minute_counts_from_when_the_request_went_out() -> None:
    one = limiter(requests=1)
    place = await enter(one)
    await asyncio.sleep(20)
    place.sent()
    place.leave(1)
    await enter(one)
    assert time() == pytest.approx(20 + WINDOW_S + MARGIN_S)


async def test_tokens_are_reserved_by_estimate_and_what_was_not_used_is_given_back() -> None:
    one = limiter(tokens=1000)
    place = await enter(one, 900)
    wait = asyncio.create_task(enter(one, 500))
    await asyncio.sleep(2)
    assert not wait.done()
    place.leave(400)
    await wait
    assert time() == 2
    assert one.state.tokens == 900


async def test_tokens_of_which_nobody_knows_stay_reserved() -> None:
    one = limiter(tokens=1000)
    (await enter(one, 900)).leave(None)
    await enter(one, 500)
    assert time() == pytest.approx(WINDOW_S + MARGIN_S)


async def test_more_tokens_than_estimated_count_against_those_who_follow() -> None:
    one = limiter(tokens=1000)
    (await enter(one, 100)).leave(1000)
    await enter(one, 1)
    assert time() == pytest.approx(WINDOW_S + MARGIN_S)


async def test_a_call_larger_than_a_whole_minute_goes_alone_and_not_never() -> None:
    one = limiter(tokens=1000)
    (await enter(one, 1)).leave(1)
    (await enter(one, 5000)).leave(5000)
    assert time() == pytest.approx(WINDOW_S + MARGIN_S)


async def test_replies_take_no_more_memory_than_allowed_but_one_always_has_room() -> None:
    one = limiter(memory=1000)
    large = await one.enter(1, group="key", batch="batch", reply_bytes=5000)
    wait = asyncio.create_task(one.enter(1, group="key", batch="batch", reply_bytes=600))
    await asyncio.sleep(1)
    assert not wait.done()
    large.leave(1)
    await wait
    third = asyncio.create_task(one.enter(1, group="key", batch="batch", reply_bytes=600))
    await asyncio.sleep(1)
    assert not third.done()
    await given_up([third])


async def test_a_process_that_shares_nothing_keeps_to_its_declared_share() -> None:
    one = limiter(requests=10, share=0.3)
    tasks = waits(one, 5)
    await asyncio.sleep(1)
    assert sum(task.done() for task in tasks) == 3
    await given_up(tasks)


async def test_a_call_that_is_not_made_after_all_counts_nowhere() -> None:
    one = limiter(concurrency=1, requests=1, tokens=10)
    place = await enter(one, 10)
    (wait,) = waits(one, 1)
    await asyncio.sleep(1)
    place.withdraw()
    place.leave(10)
    await wait
    assert time() == 1
    assert (one.state.in_flight, one.state.requests, one.state.tokens) == (1, 1, 1)


async def test_leaving_twice_frees_one_place() -> None:
    one = limiter(concurrency=2)
    place, _ = await enter(one), await enter(one)
    place.leave(1)
    place.leave(1)
    assert one.state.in_flight == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_concurrency": 0},
        {"max_concurrency": 1, "requests_per_minute": 0},
        {"max_concurrency": 1, "tokens_per_minute": -1},
        {"max_concurrency": 1, "bytes_in_memory": 0},
        {"max_concurrency": 1, "share": 0},
        {"max_concurrency": 1, "share": 1.5},
    ],
)
def test_an_allowance_that_lets_nobody_through_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=list(wrong)[-1]):
        Allowance(**wrong)


# What the provider says.


async def test_nobody_is_sent_before_the_time_that_the_provider_names() -> None:
    one = limiter()
    first, second = await enter(one), await enter(one)
    first.leave(0, throttled=True, retry_after_s=7)
    second.leave(0, throttled=True, retry_after_s=3)
    assert one.state.paused_s == 7
    await asyncio.gather(*waits(one, 5))
    assert time() == 7
    assert one.state.paused_until_s is None


async def test_a_refusal_without_a_time_holds_all_back_for_a_second_and_longer_each_time() -> None:
    one = limiter()
    went = []
    for _ in range(7):
        place = await enter(one)
        went.append(time())
        place.leave(0, throttled=True)
    assert [after - before for before, after in pairwise(went)] == [1, 2, 4, 8, 16, 30]


async def test_the_pace_falls_once_for_all_refusals_of_one_flight() -> None:
    one = limiter()
    flight = [await enter(one) for _ in range(20)]
    for place in flight:
        place.leave(0, throttled=True, retry_after_s=1)
    assert one.state.pace == pytest.approx(0.7)
    (await enter(one)).leave(0, throttled=True, retry_after_s=1)
    assert one.state.pace == pytest.approx(0.49)


async def test_a_slower_pace_means_fewer_in_flight() -> None:
    one = limiter(concurrency=10)
    (await enter(one)).leave(0, throttled=True, retry_after_s=1)
    tasks = waits(one, 10)
    await asyncio.sleep(2)
    assert one.state.in_flight == 7
    await given_up(tasks)


async def test_a_provider_that_goes_on_refusing_is_asked_less_by_the_minute_too() -> None:
    one = limiter(requests=100)
    for _ in range(4):
        (await enter(one)).leave(0, throttled=True, retry_after_s=61)
    assert one.state.pace == pytest.approx(0.7**4)
    await asyncio.sleep(61)
    tasks = waits(one, 100)
    for _ in range(20):
        await asyncio.sleep(0)
        for task in tasks:
            if task.done():
                task.result().leave(None)
    assert one.state.requests == 48
    await given_up(tasks)


async def test_however_often_it_is_refused_it_recovers_by_successes() -> None:
    one = limiter(concurrency=72, requests=1000)
    for _ in range(50):
        (await enter(one)).leave(0, throttled=True, retry_after_s=1)
    assert one.state.pace == SLOWEST
    for _ in range(60):
        (await enter(one)).leave(10)
    assert one.state.pace == 1
    assert math.isinf(one.state.paused_until_s or math.inf)


async def test_answers_of_the_flight_that_was_refused_do_not_raise_the_pace() -> None:
    one = limiter()
    refused, *answered = [await enter(one) for _ in range(20)]
    refused.leave(0, throttled=True, retry_after_s=1)
    for place in answered:
        place.leave(10)
    assert one.state.pace == pytest.approx(0.7)


async def test_a_server_error_that_names_a_time_holds_back_but_does_not_slow_down() -> None:
    one = limiter()
    (await enter(one)).leave(0, retry_after_s=5)
    assert one.state.pace == 1
    await enter(one)
    assert time() == 5


@pytest.mark.parametrize("seconds", [math.nan, -1.0, 1e300, math.inf])
async def test_no_time_that_a_provider_names_holds_back_for_longer_than_a_day(seconds: float) -> None:
    one = limiter()
    (await enter(one)).leave(0, throttled=True, retry_after_s=seconds)
    await enter(one)
    assert time() <= 86_400


@pytest.mark.parametrize(
    ("headers", "opens_at"),
    [
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "6.5s"}, 6.5),
        ({"X-RateLimit-Remaining-Requests": "0", "X-RateLimit-Reset-Requests": "120ms"}, 0.12),
        ({"x-ratelimit-remaining-tokens": "99", "x-ratelimit-reset-tokens": "0m40s"}, 40),
        ({"x-ratelimit-remaining-tokens": "100", "x-ratelimit-reset-tokens": "40s"}, 0),
        (
            {
                "anthropic-ratelimit-requests-remaining": "0",
                "anthropic-ratelimit-requests-reset": "2026-01-01T00:00:09Z",
            },
            9,
        ),
        ({"ratelimit-remaining": "0", "ratelimit-reset": "3"}, 3),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "1767225605"}, 5),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "1767225605000"}, 5),
        # What tells when all is renewed is believed for a minute.
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "23h59m"}, 60),
        ({"x-ratelimit-remaining-requests": "0"}, 0),
        ({"x-ratelimit-remaining-requests": "-5", "x-ratelimit-reset-requests": "5s"}, 0),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "soon"}, 0),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "9" * 500}, 0),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "1990-01-01T00:00:00"}, 0),
    ],
)
async def test_what_the_provider_says_is_left_binds_everyone_until_it_is_renewed(
    headers: dict[str, str], opens_at: float
) -> None:
    one = limiter()
    (await enter(one)).leave(10, headers=headers)
    await enter(one, 100)
    assert time() == pytest.approx(opens_at)


async def test_calls_sent_since_count_against_what_a_reply_says_is_left() -> None:
    one = limiter()
    asked = await enter(one)
    later = [await enter(one) for _ in range(3)]
    asked.leave(1, headers={"x-ratelimit-remaining-requests": "5", "x-ratelimit-reset-requests": "30s"})
    tasks = waits(one, 4)
    await asyncio.sleep(1)
    assert sum(task.done() for task in tasks) == 2
    later[-1].leave(1, headers={"x-ratelimit-remaining-requests": "4", "x-ratelimit-reset-requests": "30s"})
    await asyncio.sleep(1)
    assert sum(task.done() for task in tasks) == 4
    later[0].leave(1, headers={"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "30s"})
    await enter(one)  # older news than that of the call sent last
    assert time() == 31


# Fairness.


async def test_within_a_batch_it_is_first_come_first_served() -> None:
    one = limiter(concurrency=1)
    place = await enter(one)
    order: list[int] = []

    async def agent(number: int) -> None:
        mine = await enter(one)
        order.append(number)
        mine.leave(1)

    tasks = [asyncio.create_task(agent(number)) for number in range(10)]
    await asyncio.sleep(1)
    place.leave(1)
    await asyncio.gather(*tasks)
    assert order == list(range(10))


async def served(one: ProviderLimiter, sizes: dict[tuple[str, str], int]) -> list[tuple[str, str]]:
    """Whose calls got leave, in order, when all wait and one goes at a time."""
    place = await enter(one, group="first", batch="first")
    order: list[tuple[str, str]] = []

    async def agent(group: str, batch: str) -> None:
        mine = await enter(one, group=group, batch=batch)
        order.append((group, batch))
        mine.leave(1)

    tasks = [asyncio.create_task(agent(*whose)) for whose, size in sizes.items() for _ in range(size)]
    await asyncio.sleep(1)
    place.leave(1)
    await asyncio.gather(*tasks)
    return order


async def test_a_batch_of_three_is_not_stuck_behind_ten_of_72() -> None:
    sizes = {("key", f"large {n}"): 72 for n in range(10)} | {("key", "small"): 3}
    order = await served(limiter(concurrency=1), sizes)
    assert max(at for at, whose in enumerate(order) if whose[1] == "small") < 3 * 11


async def test_an_api_key_with_many_batches_gets_no_more_than_one_with_a_single_batch() -> None:
    sizes = {("greedy", f"batch {n}"): 10 for n in range(10)} | {("modest", "only"): 10}
    order = await served(limiter(concurrency=1), sizes)
    assert Counter(group for group, _ in order[:20]) == {"greedy": 10, "modest": 10}


@given(st.dictionaries(st.tuples(st.sampled_from("xyz"), st.sampled_from("abcd")), st.integers(1, 12), min_size=1))
@settings(max_examples=50, deadline=None)
def test_nobody_waits_for_more_than_one_turn_of_each_other_key_and_batch(sizes: dict[tuple[str, str], int]) -> None:
    order = run_in_virtual_time(served(limiter(concurrency=1), sizes))
    assert Counter(order) == sizes
    groups = len({group for group, _ in sizes})
    for group in {group for group, _ in sizes}:
        places = [at for at, (whose, _) in enumerate(order) if whose == group]
        assert all(after - before <= groups for before, after in pairwise(places))
        batches = sum(each == group for each, _ in sizes)
        turns = [batch for whose, batch in order if whose == group]
        for batch in set(turns):
            mine = [at for at, each in enumerate(turns) if each == batch]
            assert all(after - before <= batches for before, after in pairwise(mine))


# Deadlines.


async def refused(one: ProviderLimiter, until: float, tokens: int = 1, *, batch: str = "batch") -> AgentInvocationError:
    with pytest.raises(AgentInvocationError) as caught:
        await one.enter(tokens, group="key", batch=batch, until=until)
    return caught.value


async def test_leave_that_would_come_too_late_is_refused_at_once_and_costs_nothing() -> None:
    one = limiter(requests=1)
    (await enter(one)).leave(1)
    error = await refused(one, until=30)
    assert time() == 0
    assert (error.kind, error.state, error.usage) == ("throttled", AgentState.THROTTLED, Usage())
    assert MODEL in error.message
    await one.enter(1, group="key", batch="batch", until=61)


async def test_a_pause_refuses_those_at_once_whom_it_makes_too_late() -> None:
    one = limiter(concurrency=1)
    place = await enter(one)
    hopeless = asyncio.create_task(refused(one, until=30))
    patient = asyncio.create_task(one.enter(1, group="key", batch="batch", until=90))
    await asyncio.sleep(1)
    place.leave(0, throttled=True, retry_after_s=60)
    assert (await hopeless).kind == "throttled"
    assert time() == 1
    await patient
    assert time() == 61


async def test_those_at_the_end_of_a_long_line_are_refused_when_they_join_it() -> None:
    one = limiter(requests=10)
    for _ in range(10):
        (await enter(one)).leave(1)
    tasks = [asyncio.create_task(one.enter(1, group="key", batch="batch", until=100)) for _ in range(12)]
    await asyncio.sleep(0.001)
    assert [task.done() for task in tasks] == [False] * 10 + [True] * 2
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [isinstance(each, Place) for each in results] == [True] * 10 + [False] * 2


async def test_at_the_deadline_a_wait_ends_when_nothing_told_before() -> None:
    one = limiter(concurrency=1)
    await enter(one)
    error = await refused(one, until=12)
    assert time() == 12
    assert error.kind == "throttled"
    assert one.state.waiting == 0


async def test_a_deadline_that_has_passed_gets_no_leave_though_there_is_room() -> None:
    one = limiter()
    await asyncio.sleep(5)
    assert (await refused(one, until=4)).kind == "throttled"
    assert one.state.in_flight == 0


async def test_tokens_that_may_be_given_back_in_time_are_waited_for() -> None:
    one = limiter(tokens=1000)
    place = await enter(one, 1000)
    wait = asyncio.create_task(one.enter(500, group="key", batch="batch", until=10))
    await asyncio.sleep(5)
    place.leave(100)
    await wait
    assert time() == 5


@given(
    st.lists(st.tuples(st.floats(0, 90), st.sampled_from("xy"), st.sampled_from("abc")), min_size=1, max_size=60),
    st.integers(1, 8),
)
@settings(max_examples=50, deadline=None)
def test_nobody_is_refused_who_would_have_had_leave_in_time(calls: list[tuple[float, str, str]], requests: int) -> None:
    async def leaves(patience: Sequence[float | None]) -> list[float]:
        one = limiter(requests=requests)

        async def agent(comes: float, group: str, batch: str, until: float | None) -> float:
            await asyncio.sleep(comes)
            place = await one.enter(1, group=group, batch=batch, until=until)
            place.leave(1)
            return time()

        return await asyncio.gather(*(agent(*call, until) for call, until in zip(calls, patience, strict=True)))

    # Timers of the same moment ring in no order that is told.
    calls = [(comes + number / 1000, group, batch) for number, (comes, group, batch) in enumerate(sorted(calls))]
    undisturbed = run_in_virtual_time(leaves([None] * len(calls)))
    assert run_in_virtual_time(leaves([leave + 0.001 for leave in undisturbed])) == pytest.approx(undisturbed)


# Cancellation and the end.


async def test_a_cancelled_wait_leaves_nothing_behind() -> None:
    one = limiter(concurrency=1, requests=5, tokens=100, memory=100)
    place = await one.enter(1, group="key", batch="batch", reply_bytes=100)
    tasks = waits(one, 3)
    await asyncio.sleep(1)
    await given_up(tasks)
    assert one.state.waiting == 0
    place.leave(1)
    assert (one.state.in_flight, one.state.requests, one.state.tokens) == (0, 1, 1)


async def test_a_wait_that_is_cancelled_in_the_moment_of_its_leave_hands_the_place_on() -> None:
    one = limiter(concurrency=1, requests=2)
    place = await enter(one)
    first, second = waits(one, 2)
    await asyncio.sleep(1)
    place.leave(1)
    first.cancel()
    await second
    assert time() == 1
    assert first.cancelled()
    assert one.state.requests == 2


async def test_leave_passes_over_whoever_was_cancelled_in_the_same_moment() -> None:
    one = limiter(concurrency=1)
    place = await enter(one)
    first, second = waits(one, 2)
    await asyncio.sleep(1)
    first.cancel()
    place.leave(1)
    await second
    assert time() == 1
    assert first.cancelled()


async def test_a_head_that_leaves_the_line_makes_way_at_once() -> None:
    one = limiter(tokens=100)
    (await enter(one, 50)).leave(50)
    large = asyncio.create_task(enter(one, 90))
    small = asyncio.create_task(enter(one, 10))
    await asyncio.sleep(1)
    assert not small.done()
    large.cancel()
    await small
    assert time() == 1


async def test_closing_refuses_those_who_wait_and_those_who_come() -> None:
    one = limiter(concurrency=1)
    place = await enter(one)
    (wait,) = waits(one, 1)
    await asyncio.sleep(1)
    await one.close()
    await one.close()
    for late in (wait, asyncio.create_task(enter(one))):
        with pytest.raises(AgentInvocationError) as caught:
            await late
        assert caught.value.kind == "closed"
    place.leave(1)
    assert one.state.in_flight == 0


async def test_nothing_wakes_up_while_nobody_can_go() -> None:
    one = limiter(requests=1)
    (await enter(one)).leave(1)
    looks = 0

    def counted(now: float) -> None:
        nonlocal looks
        looks += 1
        return real(now)  # type: ignore[return-value]

    real = one._next
    one._next = counted  # type: ignore[method-assign]
    await enter(one)
    assert time() > 60
    assert looks <= 4


def test_a_limiter_that_nobody_asked_has_a_state_outside_of_any_loop() -> None:
    assert limiter(requests=1).state == LimiterState(pace=1.0, in_flight=0, waiting=0)


async def test_waits_are_counted_by_how_long_they_were() -> None:
    one = limiter(concurrency=1)
    place = await enter(one)
    (wait,) = waits(one, 1)
    await asyncio.sleep(7)
    place.leave(1)
    await wait
    state = one.state
    assert state.waited_s == 7
    assert {bound for bound, count in zip(WAIT_BOUNDS_S, state.waits, strict=False) if count} == {0.001, 10.0}


async def _complained_in_the_turn_of_a_leave(one: ProviderLimiter) -> None:
    """One call ends well, which gives leave to who waits, and another is refused for 5 s before who waits has its turn."""
    well, refused = await enter(one), await enter(one)
    await asyncio.sleep(0)

    def end() -> None:
        well.leave(1)
        refused.leave(0, throttled=True, retry_after_s=5)

    asyncio.get_running_loop().call_later(1, end)


async def test_leave_that_was_not_used_before_the_provider_complained_is_taken_back_and_the_turn_kept() -> None:
    one = limiter(concurrency=2)
    await _complained_in_the_turn_of_a_leave(one)
    went: list[tuple[str, float]] = []

    async def go(name: str) -> None:
        place = await enter(one)
        went.append((name, time()))
        place.leave(1)

    await asyncio.gather(go("first"), go("second"))
    assert went == [("first", 6.0), ("second", 6.0)]
    assert one.state.in_flight == one.state.waiting == 0


async def test_leave_that_a_complaint_takes_back_for_longer_than_there_is_time_is_refused() -> None:
    one = limiter(concurrency=2)
    await _complained_in_the_turn_of_a_leave(one)
    with pytest.raises(AgentInvocationError) as refused:
        await one.enter(1, group="key", batch="batch", until=time() + 3)
    assert (refused.value.kind, time()) == ("throttled", 1.0)
    assert one.state.in_flight == one.state.waiting == 0


async def test_leave_that_a_complaint_takes_back_while_the_limiter_closes_is_refused() -> None:
    one = limiter(concurrency=2)
    closing: list[asyncio.Task[None]] = []
    asyncio.get_running_loop().call_later(1, lambda: closing.append(asyncio.create_task(one.close())))
    await _complained_in_the_turn_of_a_leave(one)
    with pytest.raises(AgentInvocationError) as refused:
        await enter(one)
    assert refused.value.kind == "closed"
    await asyncio.gather(*closing)


# Whatever comes.

CALL = st.tuples(
    st.floats(0, 100),  # when it comes
    st.floats(0, 30),  # how long it takes
    st.integers(0, 120),  # tokens by estimate
    st.one_of(st.none(), st.integers(0, 150)),  # and in truth
    st.sampled_from(["ok", "ok", "ok", "ok", "refused", "refused without a time", "cancelled", "told"]),
    st.sampled_from("xy"),
    st.sampled_from("abc"),
    st.one_of(st.none(), st.floats(0, 200)),
)


@given(
    calls=st.lists(CALL, min_size=1, max_size=60),
    concurrency=st.integers(1, 8),
    requests=st.one_of(st.none(), st.integers(1, 20)),
    tokens=st.one_of(st.none(), st.integers(1, 300)),
)
@settings(max_examples=150, deadline=None)
def test_whatever_comes_no_limit_is_passed_and_everyone_ends(
    calls: list[tuple[float, float, int, int | None, str, str, str, float | None]],
    concurrency: int,
    requests: int | None,
    tokens: int | None,
) -> None:
    far_end = FarEnd()
    paused_until = [-1.0]
    counted: list[tuple[float, int]] = []

    async def agent(
        one: ProviderLimiter, call: tuple[float, float, int, int | None, str, str, str, float | None]
    ) -> str:
        comes, takes, estimate, used, fate, group, batch, patience = call
        await asyncio.sleep(comes)
        until = None if patience is None else time() + patience
        try:
            place = await one.enter(estimate, group=group, batch=batch, until=until)
        except AgentInvocationError as error:
            assert until is not None
            assert time() <= until + 1e-6
            return error.kind
        assert until is None or time() <= until + 1e-6
        assert time() >= paused_until[0] - 1e-5
        is_refused = fate.startswith("refused")
        counted.append((time(), 0 if is_refused else estimate))
        try:
            await far_end.call(takes)
        except asyncio.CancelledError:
            place.leave(None)
            raise
        match fate:
            case "refused":
                place.leave(0, throttled=True, retry_after_s=5)
                paused_until[0] = max(paused_until[0], time() + 5)
            case "refused without a time":
                place.leave(0, throttled=True)
            case "told":
                place.leave(None, headers={"x-ratelimit-remaining-requests": "1", "x-ratelimit-reset-requests": "2s"})
            case _:
                # No less than was reserved, so that what is reserved is what counts at the far end.
                place.leave(None if used is None else max(used, estimate))
        return "went"

    async def main() -> None:
        one = limiter(concurrency=concurrency, requests=requests, tokens=tokens)
        tasks = [asyncio.create_task(agent(one, call)) for call in calls]
        for task, call in zip(tasks, calls, strict=True):
            if call[4] == "cancelled":
                asyncio.get_running_loop().call_later(call[0] + call[1] / 2, task.cancel)
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        wrong = [end for end in ends if not isinstance(end, str | asyncio.CancelledError)]
        assert wrong == []
        assert one.state.waiting == 0
        assert one.state.in_flight == 0

    run_in_virtual_time(main())
    assert far_end.peak <= concurrency
    if requests is not None:
        assert most_in_a_minute([(at, 1) for at, _ in counted]) <= requests
    if tokens is not None:
        # One that is larger than a minute goes alone.
        assert most_in_a_minute(counted) <= max(tokens, *(size for _, size in counted), 0)


# Sharing, with a stand-in for what is shared.


class Others:
    """As a Redis would answer: `room` calls may go, and it may be away or slow."""

    def __init__(self, room: int = 1000, *, seconds: float = 0.001) -> None:
        self.room = room
        self.seconds = seconds
        self.is_away = False
        self.pause_s = 0.0
        self.wait_s = 10.0
        self.heard: list[Asking] = []

    async def ask(self, name: str, asking: Asking) -> Leave:
        await asyncio.sleep(self.seconds)
        if self.is_away:
            raise DependencyUnavailableError(dependency="Redis", problem="it is away")
        self.heard.append(asking)
        granted = 0 if self.pause_s else min(self.room, len(asking.calls))
        self.room -= granted
        return Leave(granted, wait_s=self.wait_s, pause_s=self.pause_s)


async def test_calls_that_come_together_are_asked_for_together() -> None:
    others = Others()
    one = limiter(requests=1000, shared=others)
    await asyncio.gather(*waits(one, 72))
    assert len(others.heard) <= 4
    assert sum(len(asking.calls) for asking in others.heard) == 72


async def test_those_whom_the_others_refuse_go_on_waiting_in_their_order() -> None:
    others = Others(room=2)
    one = limiter(requests=1000, shared=others)
    tasks = waits(one, 5)
    await asyncio.sleep(1)
    assert [task.done() for task in tasks] == [True, True, False, False, False]
    assert (one.state.in_flight, one.state.waiting, one.state.requests) == (2, 3, 2)
    others.room = 100
    await asyncio.gather(*tasks)
    assert time() == pytest.approx(10, abs=0.01)


async def test_leave_of_the_others_that_nobody_uses_is_told_them() -> None:
    others = Others(seconds=1)
    one = limiter(requests=1000, shared=others)
    tasks = waits(one, 2)
    await asyncio.sleep(0.5)
    tasks[0].cancel()
    await tasks[1]
    await asyncio.sleep(2)
    assert [asking.corrections for asking in others.heard] == [{}, {1: None}]


async def test_a_refusal_that_arrives_while_the_others_are_asked_holds_for_their_leave_too() -> None:
    others = Others(seconds=0.001)
    one = limiter(requests=1000, shared=others)
    place = await enter(one)
    others.seconds = 1
    (wait,) = waits(one, 1)
    await asyncio.sleep(0.5)
    place.leave(0, throttled=True, retry_after_s=20)
    told = time()
    await wait
    assert time() >= told + 20
    assert [asking.pause_s for asking in others.heard if asking.pause_s] == [pytest.approx(19.5, abs=0.1)]


async def test_while_the_others_are_away_the_share_holds_and_they_are_told_when_they_are_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    others = Others()
    others.is_away = True
    one = limiter(requests=10, share=0.5, shared=others)
    tasks = waits(one, 8)
    await asyncio.sleep(30)
    assert sum(task.done() for task in tasks) == 5
    assert len(caplog.records) == 1
    states = [one.state.shared]
    others.is_away = False
    await asyncio.gather(*tasks)
    states.append(one.state.shared)
    assert states == [False, True]
    assert time() < 32
    assert len(others.heard[0].sent) == 5
    assert others.heard[0].sent[0][2] == pytest.approx(30, abs=2)


async def test_a_deadline_that_passes_while_the_others_are_asked_is_kept() -> None:
    others = Others(seconds=100)
    one = limiter(requests=10, shared=others)
    error = await refused(one, until=3)
    assert time() == 3
    assert error.kind == "throttled"
    await asyncio.sleep(200)
    assert (one.state.in_flight, one.state.requests) == (0, 0)
    assert others.heard[-1].corrections == {1: None}


async def test_closing_breaks_off_what_is_asked_and_refuses_those_who_wait_for_it() -> None:
    others = Others(seconds=1000)
    one = limiter(requests=10, shared=others)
    (wait,) = waits(one, 1)
    await asyncio.sleep(1)
    await one.close()
    with pytest.raises(AgentInvocationError) as caught:
        await wait
    assert caught.value.kind == "closed"
    assert time() == 1


@given(
    st.lists(st.tuples(st.floats(0, 5), st.sampled_from(["ok", "cancelled", "refused", "late"])), max_size=40),
    st.data(),
)
@settings(max_examples=60, deadline=None)
def test_whatever_the_others_do_everyone_ends_and_nothing_stays_behind(
    calls: list[tuple[float, str]], data: st.DataObject
) -> None:
    others = Others(room=data.draw(st.integers(0, 10)), seconds=data.draw(st.floats(0.001, 2)))
    others.wait_s = 3.0

    async def agent(one: ProviderLimiter, comes: float, fate: str) -> None:
        await asyncio.sleep(comes)
        until = time() + 1 if fate == "late" else None
        place = await one.enter(7, group="key", batch=fate, until=until)
        try:
            await asyncio.sleep(0.5)
        finally:
            place.leave(3, throttled=fate == "refused", retry_after_s=1 if fate == "refused" else None)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        one = limiter(concurrency=5, requests=100, tokens=1000, shared=others)
        tasks = [asyncio.create_task(agent(one, *call)) for call in calls]
        for task, (comes, fate) in zip(tasks, calls, strict=True):
            if fate == "cancelled":
                loop.call_later(comes + 0.3, task.cancel)
        loop.call_later(2, setattr, others, "is_away", True)
        loop.call_later(6, setattr, others, "is_away", False)
        loop.call_later(10, setattr, others, "room", 1000)
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        expected = AgentInvocationError | asyncio.CancelledError
        assert [end for end in ends if isinstance(end, BaseException) and not isinstance(end, expected)] == []
        await asyncio.sleep(5)
        assert (one.state.waiting, one.state.in_flight) == (0, 0)
        await one.close()

    run_in_virtual_time(main())
