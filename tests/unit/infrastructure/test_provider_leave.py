"""Leave to call a model or its provider: asked for, waited for, given back, told of, and refused."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from domain.errors.agent import AgentInvocationError
from domain.models.budget import Usage
from domain.models.roll_call import AgentState
from infrastructure.orchestrators.breaker import Breaker, BreakerState
from infrastructure.orchestrators.provider_client import ReplyFacts
from infrastructure.orchestrators.provider_settings import ModelLimits
from tests.unit.infrastructure.faked_desk import (
    LOCAL,
    NAMELESS,
    OPENAI,
    Desk,
    asking,
)


async def test_a_call_in_flight_holds_a_place_of_its_model_and_of_its_provider() -> None:
    desk = Desk(replace(OPENAI, requests_per_minute=100))
    request = asking()
    permit = await desk.desk.admit(request, desk.desk.foresee(request), until=None)
    assert {name: limiter.state.in_flight for name, limiter in desk.limiters.items()} == {
        "openai": 1,
        "openai/small": 1,
    }
    permit.end(Usage(1, 10, 1))
    permit.end(Usage(1, 10, 1))
    assert {limiter.state.in_flight for limiter in desk.limiters.values()} == {0}
    assert desk.limiters["openai"].state.tokens == 11


async def test_a_provider_that_binds_nothing_more_than_the_slots_has_no_limiter_of_its_own() -> None:
    desk = Desk(OPENAI, slots=72)
    await desk.call(asking())
    assert set(desk.limiters) == {"openai/small"}


async def test_the_limits_of_one_model_bind_that_model_alone() -> None:
    desk = Desk(limits={"openai/small": ModelLimits(requests_per_minute=1)})
    await desk.call(asking())
    soon = asyncio.get_running_loop().time() + 1
    with pytest.raises(AgentInvocationError) as caught:
        await desk.call(asking(), until=soon)
    assert (caught.value.kind, caught.value.state) == ("throttled", AgentState.THROTTLED)
    await desk.call(asking("openai/team/large"), until=soon)


async def test_who_waits_for_the_provider_in_vain_gives_the_models_place_back() -> None:
    desk = Desk(replace(OPENAI, requests_per_minute=1))
    await desk.call(asking())
    with pytest.raises(AgentInvocationError):
        await desk.call(asking(), until=asyncio.get_running_loop().time() + 1)
    assert desk.limiters["openai/small"].state.in_flight == 0


async def test_a_cancelled_wait_leaves_nothing_behind() -> None:
    desk = Desk(replace(OPENAI, max_concurrency=1))
    request = asking()
    permit = await desk.desk.admit(request, desk.desk.foresee(request), until=None)
    waiting = asyncio.create_task(desk.call(asking("openai/team/large")))
    for _ in range(3):
        await asyncio.sleep(0)
    assert desk.limiters["openai"].state.waiting == 1
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert (desk.limiters["openai"].state.waiting, desk.limiters["openai/team/large"].state.in_flight) == (0, 0)
    permit.end(Usage(1, 1, 1))
    await desk.call(asking("openai/team/large"))


async def test_a_refusal_as_too_fast_slows_its_model_down_for_everybody() -> None:
    desk = Desk()
    desk.clients["openai"].error = AgentInvocationError(
        "slower", kind="rate_limited", state=AgentState.THROTTLED, retryable=True, retry_after_s=30.0, usage=Usage()
    )
    with pytest.raises(AgentInvocationError):
        await desk.call(asking())
    state = desk.limiters["openai/small"].state
    assert state.pace < 1
    assert 25 < state.paused_s <= 30
    assert desk.breakers["openai/small"].state is BreakerState.CLOSED


async def test_what_a_reply_says_of_the_pace_reaches_the_limiter_with_its_own_call() -> None:
    desk = Desk()
    desk.clients["openai"].facts = ReplyFacts(
        200, None, {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "40s"}
    )
    await desk.call(asking())
    with pytest.raises(AgentInvocationError, match="may not be asked"):
        await desk.call(asking(), until=asyncio.get_running_loop().time() + 20)
    await desk.call(asking("openai/team/large"), until=asyncio.get_running_loop().time() + 20)


async def test_a_model_that_keeps_failing_is_not_asked_for_a_while() -> None:
    desk = Desk()
    desk.clients["openai"].error = AgentInvocationError("gone", kind="connect_failed", retryable=True, usage=Usage())
    for _ in range(5):
        with pytest.raises(AgentInvocationError, match="gone"):
            await desk.call(asking())
    with pytest.raises(AgentInvocationError, match="connect_failed") as caught:
        await desk.call(asking())
    assert (caught.value.kind, caught.value.state, caught.value.usage) == ("breaker_open", AgentState.FAILED, Usage())
    assert len(desk.clients["openai"].asked) == 5
    assert desk.limiters["openai/small"].state.in_flight == 0
    views = {view.name: view for view in desk.desk.views()}
    assert views["openai/small"].breaker.state is BreakerState.OPEN


async def test_who_waited_while_the_breaker_opened_is_not_let_through() -> None:
    desk = Desk(replace(OPENAI, max_concurrency=1))
    request = asking()
    permit = await desk.desk.admit(request, desk.desk.foresee(request), until=None)
    waiting = asyncio.create_task(desk.call(asking()))
    for _ in range(3):
        await asyncio.sleep(0)
    permit.end(Usage(), AgentInvocationError("no", kind="unauthorised", usage=Usage()))
    with pytest.raises(AgentInvocationError) as caught:
        await waiting
    assert caught.value.kind == "breaker_open"
    assert {limiter.state.in_flight for limiter in desk.limiters.values()} == {0}


async def test_a_call_that_was_never_made_proves_nothing() -> None:
    now = 0.0
    desk = Desk(LOCAL)
    breaker = desk.breakers["local/x"] = Breaker("local/x", clock=lambda: now)
    request = asking("local/x")
    permit = await desk.desk.admit(request, desk.desk.foresee(request), until=None)
    permit.end(Usage(), AgentInvocationError("no", kind="unauthorised", usage=Usage()))
    now = 1000.0
    probe = await desk.desk.admit(request, desk.desk.foresee(request), until=None)
    probe.end(Usage())
    assert breaker.is_open
    probe = await desk.desk.admit(request, desk.desk.foresee(request), until=None)
    probe.end(None)
    assert breaker.is_open
    await desk.call(request)
    assert not breaker.is_open


async def test_models_named_by_callers_do_not_fill_the_memory() -> None:
    desk = Desk(NAMELESS, slots=72)
    for number in range(1200):
        await desk.call(asking(f"model-{number}"))
    assert sum(1 for _ in desk.desk.views()) <= 512


async def test_a_closed_desk_refuses_who_waits_and_drops_the_connections() -> None:
    desk = Desk(replace(OPENAI, max_concurrency=1))
    request = asking()
    await desk.desk.admit(request, desk.desk.foresee(request), until=None)
    waiting = asyncio.create_task(desk.call(asking()))
    for _ in range(3):
        await asyncio.sleep(0)
    await desk.desk.close()
    with pytest.raises(AgentInvocationError) as caught:
        await waiting
    assert caught.value.kind == "closed"
    assert desk.clients["openai"].closed
    await desk.desk.close()


async def test_without_leave_a_call_is_made_all_the_same() -> None:
    assert (await Desk().desk.invoke(asking())).content == "yes"
