"""What a provider says of its limits holds everyone back for as long as it says, and slows down who comes after."""

from __future__ import annotations

import asyncio
import math
from itertools import pairwise

import pytest

from domain.errors.agent import AgentInvocationError
from infrastructure.orchestrators.pace import SLOWEST
from infrastructure.orchestrators.provider_limiter import ProviderLimiter
from tests.unit.infrastructure.limited_calls import enter, given_up, limiter, waits
from tests.virtual_time import pass_time, time_passed


async def test_nobody_is_sent_before_the_time_that_the_provider_names() -> None:
    one = limiter()
    first, second = await enter(one), await enter(one)
    first.leave(0, throttled=True, retry_after_s=7)
    second.leave(0, throttled=True, retry_after_s=3)
    assert one.state.paused_s == 7
    await asyncio.gather(*waits(one, 5))
    assert time_passed() == 7
    assert one.state.paused_until_s is None


async def test_a_refusal_without_a_time_holds_all_back_for_a_second_and_longer_each_time() -> None:
    one = limiter()
    went = []
    for _ in range(7):
        place = await enter(one)
        went.append(time_passed())
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
    await pass_time(2)
    assert one.state.in_flight == 7
    await given_up(tasks)


async def test_a_provider_that_goes_on_refusing_is_asked_less_by_the_minute_too() -> None:
    one = limiter(requests=100)
    for _ in range(4):
        (await enter(one)).leave(0, throttled=True, retry_after_s=61)
    assert one.state.pace == pytest.approx(0.7**4)
    await pass_time(61)
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
    assert time_passed() == 5


@pytest.mark.parametrize("seconds", [math.nan, -1.0, 1e300, math.inf])
async def test_no_time_that_a_provider_names_holds_back_for_longer_than_a_day(seconds: float) -> None:
    one = limiter()
    (await enter(one)).leave(0, throttled=True, retry_after_s=seconds)
    await enter(one)
    assert time_passed() <= 86_400


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
    assert time_passed() == pytest.approx(opens_at)


async def test_calls_sent_since_count_against_what_a_reply_says_is_left() -> None:
    one = limiter()
    asked = await enter(one)
    later = [await enter(one) for _ in range(3)]
    asked.leave(1, headers={"x-ratelimit-remaining-requests": "5", "x-ratelimit-reset-requests": "30s"})
    tasks = waits(one, 4)
    await pass_time(1)
    assert sum(task.done() for task in tasks) == 2
    later[-1].leave(1, headers={"x-ratelimit-remaining-requests": "4", "x-ratelimit-reset-requests": "30s"})
    await pass_time(1)
    assert sum(task.done() for task in tasks) == 4
    later[0].leave(1, headers={"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "30s"})
    await enter(one)  # older news than that of the call sent last
    assert time_passed() == 31


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
        went.append((name, time_passed()))
        place.leave(1)

    await asyncio.gather(go("first"), go("second"))
    assert went == [("first", 6.0), ("second", 6.0)]
    assert one.state.in_flight == one.state.waiting == 0


async def test_leave_that_a_complaint_takes_back_for_longer_than_there_is_time_is_refused() -> None:
    one = limiter(concurrency=2)
    await _complained_in_the_turn_of_a_leave(one)
    with pytest.raises(AgentInvocationError) as refused:
        await one.enter(1, group="key", batch="batch", until=time_passed() + 3)
    assert (refused.value.kind, time_passed()) == ("throttled", 1.0)
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
