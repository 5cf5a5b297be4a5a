"""Holds the limiter to its limits as the far end would count them, whatever comes and in whatever order."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.errors.agent import AgentInvocationError
from infrastructure.orchestrators.provider_limiter import WAIT_BOUNDS_S, Allowance, LimiterState, ProviderLimiter
from infrastructure.orchestrators.rate_window import MARGIN_S, WINDOW_S
from infrastructure.stubs.virtual_time import run_in_virtual_time
from tests.unit.infrastructure.limited_calls import enter, given_up, limiter, waits
from tests.virtual_time import pass_time, time_passed


class FarEnd:
    """A provider that counts what is in flight."""

    def __init__(self) -> None:
        self.in_flight = 0
        self.peak = 0

    async def call(self, seconds: float) -> None:
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)
        try:
            await pass_time(seconds)
        finally:
            self.in_flight -= 1


def most_in_a_minute(arrivals: Sequence[tuple[float, int]]) -> int:
    """The most that arrived in any window of a minute, of `(time, amount)`."""
    return max(
        (sum(amount for at, amount in arrivals if begin <= at < begin + WINDOW_S) for begin, _ in arrivals), default=0
    )


async def test_no_more_calls_are_in_flight_than_allowed_and_the_next_goes_when_one_ends() -> None:
    one = limiter(concurrency=2)
    first, _ = await enter(one), await enter(one)
    (third,) = waits(one, 1)
    await pass_time(1)
    assert not third.done()
    first.leave(1)
    await third
    assert time_passed() == 1
    assert one.state.in_flight == 2


async def test_a_minutes_requests_may_go_at_once_and_then_none_for_a_minute() -> None:
    one = limiter(requests=10)
    for _ in range(10):
        (await enter(one)).leave(1)
    assert time_passed() == 0
    (await enter(one)).leave(1)
    assert time_passed() == pytest.approx(WINDOW_S + MARGIN_S)


async def test_the_minute_counts_from_when_the_request_went_out() -> None:
    one = limiter(requests=1)
    place = await enter(one)
    await pass_time(20)
    place.sent()
    place.leave(1)
    await enter(one)
    assert time_passed() == pytest.approx(20 + WINDOW_S + MARGIN_S)


async def test_tokens_are_reserved_by_estimate_and_what_was_not_used_is_given_back() -> None:
    one = limiter(tokens=1000)
    place = await enter(one, 900)
    wait = asyncio.create_task(enter(one, 500))
    await pass_time(2)
    assert not wait.done()
    place.leave(400)
    await wait
    assert time_passed() == 2
    assert one.state.tokens == 900


async def test_tokens_of_which_nobody_knows_stay_reserved() -> None:
    one = limiter(tokens=1000)
    (await enter(one, 900)).leave(None)
    await enter(one, 500)
    assert time_passed() == pytest.approx(WINDOW_S + MARGIN_S)


async def test_more_tokens_than_estimated_count_against_those_who_follow() -> None:
    one = limiter(tokens=1000)
    (await enter(one, 100)).leave(1000)
    await enter(one, 1)
    assert time_passed() == pytest.approx(WINDOW_S + MARGIN_S)


async def test_a_call_larger_than_a_whole_minute_goes_alone_and_not_never() -> None:
    one = limiter(tokens=1000)
    (await enter(one, 1)).leave(1)
    (await enter(one, 5000)).leave(5000)
    assert time_passed() == pytest.approx(WINDOW_S + MARGIN_S)


async def test_replies_take_no_more_memory_than_allowed_but_one_always_has_room() -> None:
    one = limiter(memory=1000)
    large = await one.enter(1, group="key", batch="batch", reply_bytes=5000)
    wait = asyncio.create_task(one.enter(1, group="key", batch="batch", reply_bytes=600))
    await pass_time(1)
    assert not wait.done()
    large.leave(1)
    await wait
    third = asyncio.create_task(one.enter(1, group="key", batch="batch", reply_bytes=600))
    await pass_time(1)
    assert not third.done()
    await given_up([third])


async def test_a_process_that_shares_nothing_keeps_to_its_declared_share() -> None:
    one = limiter(requests=10, share=0.3)
    tasks = waits(one, 5)
    await pass_time(1)
    assert sum(task.done() for task in tasks) == 3
    await given_up(tasks)


async def test_a_call_that_is_not_made_after_all_counts_nowhere() -> None:
    one = limiter(concurrency=1, requests=1, tokens=10)
    place = await enter(one, 10)
    (wait,) = waits(one, 1)
    await pass_time(1)
    place.withdraw()
    place.leave(10)
    await wait
    assert time_passed() == 1
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
    assert time_passed() > 60
    assert looks <= 4


def test_a_limiter_that_nobody_asked_has_a_state_outside_of_any_loop() -> None:
    assert limiter(requests=1).state == LimiterState(pace=1.0, in_flight=0, waiting=0)


async def test_waits_are_counted_by_how_long_they_were() -> None:
    one = limiter(concurrency=1)
    place = await enter(one)
    (wait,) = waits(one, 1)
    await pass_time(7)
    place.leave(1)
    await wait
    state = one.state
    assert state.waited_s == 7
    assert {bound for bound, count in zip(WAIT_BOUNDS_S, state.waits, strict=False) if count} == {0.001, 10.0}


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
        await pass_time(comes)
        until = None if patience is None else time_passed() + patience
        try:
            place = await one.enter(estimate, group=group, batch=batch, until=until)
        except AgentInvocationError as error:
            assert until is not None
            assert time_passed() <= until + 1e-6
            return error.kind
        assert until is None or time_passed() <= until + 1e-6
        assert time_passed() >= paused_until[0] - 1e-5
        is_refused = fate.startswith("refused")
        counted.append((time_passed(), 0 if is_refused else estimate))
        try:
            await far_end.call(takes)
        except asyncio.CancelledError:
            place.leave(None)
            raise
        match fate:
            case "refused":
                place.leave(0, throttled=True, retry_after_s=5)
                paused_until[0] = max(paused_until[0], time_passed() + 5)
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
