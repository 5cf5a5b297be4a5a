"""A limit that processes share holds over a stand-in for what they share it by, which may be slow or away."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.errors.agent import AgentInvocationError
from domain.errors.dependency import DependencyUnavailableError
from domain.models.roll_call import AgentState
from infrastructure.orchestrators.provider_limiter import ProviderLimiter
from infrastructure.orchestrators.shared_pacing import Asking, Leave
from infrastructure.stubs.virtual_time import run_in_virtual_time
from tests.unit.infrastructure.limited_calls import enter, limiter, refused, waits
from tests.virtual_time import pass_time, time_passed


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
        await pass_time(self.seconds)
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
    await pass_time(1)
    assert [task.done() for task in tasks] == [True, True, False, False, False]
    assert (one.state.in_flight, one.state.waiting, one.state.requests) == (2, 3, 2)
    others.room = 100
    await asyncio.gather(*tasks)
    assert time_passed() == pytest.approx(10, abs=0.01)


async def test_leave_of_the_others_that_nobody_uses_is_told_them() -> None:
    others = Others(seconds=1)
    one = limiter(requests=1000, shared=others)
    tasks = waits(one, 2)
    await pass_time(0.5)
    tasks[0].cancel()
    await tasks[1]
    await pass_time(2)
    assert [asking.corrections for asking in others.heard] == [{}, {1: None}]


async def test_a_refusal_that_arrives_while_the_others_are_asked_holds_for_their_leave_too() -> None:
    others = Others(seconds=0.001)
    one = limiter(requests=1000, shared=others)
    place = await enter(one)
    others.seconds = 1
    (wait,) = waits(one, 1)
    await pass_time(0.5)
    place.leave(0, throttled=True, retry_after_s=20)
    told = time_passed()
    await wait
    assert time_passed() >= told + 20
    assert [asking.pause_s for asking in others.heard if asking.pause_s] == [pytest.approx(19.5, abs=0.1)]


async def test_while_the_others_are_away_the_share_holds_and_they_are_told_when_they_are_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    others = Others()
    others.is_away = True
    one = limiter(requests=10, share=0.5, shared=others)
    tasks = waits(one, 8)
    await pass_time(30)
    assert sum(task.done() for task in tasks) == 5
    assert len(caplog.records) == 1
    states = [one.state.shared]
    others.is_away = False
    await asyncio.gather(*tasks)
    states.append(one.state.shared)
    assert states == [False, True]
    assert time_passed() < 32
    assert len(others.heard[0].sent) == 5
    assert others.heard[0].sent[0][2] == pytest.approx(30, abs=2)


async def test_a_deadline_that_passes_while_the_others_are_asked_is_kept() -> None:
    others = Others(seconds=100)
    one = limiter(requests=10, shared=others)
    error = await refused(one, until=3)
    assert time_passed() == 3
    assert (error.kind, error.state) == ("deadline", AgentState.TIMED_OUT)
    await pass_time(200)
    assert (one.state.in_flight, one.state.requests) == (0, 0)
    assert others.heard[-1].corrections == {1: None}


async def test_closing_breaks_off_what_is_asked_and_refuses_those_who_wait_for_it() -> None:
    others = Others(seconds=1000)
    one = limiter(requests=10, shared=others)
    (wait,) = waits(one, 1)
    await pass_time(1)
    await one.close()
    with pytest.raises(AgentInvocationError) as caught:
        await wait
    assert caught.value.kind == "closed"
    assert time_passed() == 1


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
        await pass_time(comes)
        until = time_passed() + 1 if fate == "late" else None
        place = await one.enter(7, group="key", batch=fate, until=until)
        try:
            await pass_time(0.5)
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
        await pass_time(5)
        assert (one.state.waiting, one.state.in_flight) == (0, 0)
        await one.close()

    run_in_virtual_time(main())
