"""Who cannot have leave in time is refused as soon as that is known, and nobody else is."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.models.budget import Usage
from domain.models.roll_call import AgentState
from infrastructure.orchestrators.provider_limiter import Place
from infrastructure.stubs.virtual_time import run_in_virtual_time
from tests.unit.infrastructure.limited_calls import MODEL, enter, limiter, refused
from tests.virtual_time import pass_time, time_passed


async def test_leave_that_would_come_too_late_is_refused_at_once_and_costs_nothing() -> None:
    one = limiter(requests=1)
    (await enter(one)).leave(1)
    error = await refused(one, until=30)
    assert time_passed() == 0
    assert (error.kind, error.state, error.usage) == ("throttled", AgentState.THROTTLED, Usage())
    assert MODEL in error.message
    await one.enter(1, group="key", batch="batch", until=61)


async def test_a_pause_refuses_those_at_once_whom_it_makes_too_late() -> None:
    one = limiter(concurrency=1)
    place = await enter(one)
    hopeless = asyncio.create_task(refused(one, until=30))
    patient = asyncio.create_task(one.enter(1, group="key", batch="batch", until=90))
    await pass_time(1)
    place.leave(0, throttled=True, retry_after_s=60)
    assert (await hopeless).kind == "throttled"
    assert time_passed() == 1
    await patient
    assert time_passed() == 61


async def test_those_at_the_end_of_a_long_line_are_refused_when_they_join_it() -> None:
    one = limiter(requests=10)
    for _ in range(10):
        (await enter(one)).leave(1)
    tasks = [asyncio.create_task(one.enter(1, group="key", batch="batch", until=100)) for _ in range(12)]
    await pass_time(0.001)
    assert [task.done() for task in tasks] == [False] * 10 + [True] * 2
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [isinstance(each, Place) for each in results] == [True] * 10 + [False] * 2


async def test_at_the_deadline_a_wait_ends_when_nothing_told_before() -> None:
    one = limiter(concurrency=1)
    await enter(one)
    error = await refused(one, until=12)
    assert time_passed() == 12
    assert (error.kind, error.state, error.usage) == ("deadline", AgentState.TIMED_OUT, Usage())
    assert MODEL in error.message
    assert one.state.waiting == 0


@pytest.mark.parametrize("requests", [None, 1])
async def test_a_deadline_that_has_passed_gets_no_leave_and_no_limit_is_blamed_for_it(requests: int | None) -> None:
    one = limiter(requests=requests)
    if requests is not None:
        (await enter(one)).leave(1)
    await pass_time(5)
    error = await refused(one, until=4)
    assert (error.kind, error.state, error.usage) == ("deadline", AgentState.TIMED_OUT, Usage())
    assert "raise its requests" not in error.message
    assert one.state.in_flight == 0


async def test_tokens_that_may_be_given_back_in_time_are_waited_for() -> None:
    one = limiter(tokens=1000)
    place = await enter(one, 1000)
    wait = asyncio.create_task(one.enter(500, group="key", batch="batch", until=10))
    await pass_time(5)
    place.leave(100)
    await wait
    assert time_passed() == 5


@given(
    st.lists(st.tuples(st.floats(0, 90), st.sampled_from("xy"), st.sampled_from("abc")), min_size=1, max_size=60),
    st.integers(1, 8),
)
@settings(max_examples=50, deadline=None)
def test_nobody_is_refused_who_would_have_had_leave_in_time(calls: list[tuple[float, str, str]], requests: int) -> None:
    async def leaves(patience: Sequence[float | None]) -> list[float]:
        one = limiter(requests=requests)

        async def agent(comes: float, group: str, batch: str, until: float | None) -> float:
            await pass_time(comes)
            place = await one.enter(1, group=group, batch=batch, until=until)
            place.leave(1)
            return time_passed()

        return await asyncio.gather(*(agent(*call, until) for call, until in zip(calls, patience, strict=True)))

    # Timers of the same moment ring in no order that is told.
    calls = [(comes + number / 1000, group, batch) for number, (comes, group, batch) in enumerate(sorted(calls))]
    undisturbed = run_in_virtual_time(leaves([None] * len(calls)))
    assert run_in_virtual_time(leaves([leave + 0.001 for leave in undisturbed])) == pytest.approx(undisturbed)
