"""How providers and models stand for those who look: their limits, what is used of them, and whether they are asked."""

from __future__ import annotations

import pytest

from application.ports.agent_orchestrator import AgentRequest, ContextBundle
from domain.errors.agent import AgentInvocationError
from domain.models.budget import Usage
from infrastructure.orchestrators.allowance import Allowance
from infrastructure.orchestrators.provider_settings import ModelLimits, ProviderSettings
from infrastructure.orchestrators.standings import standing_of
from tests.unit.infrastructure.faked_desk import Desk

OPENAI = ProviderSettings("openai", "https://api.openai.com/v1", max_concurrency=9, requests_per_minute=60)
LOCAL = ProviderSettings("local", "http://127.0.0.1:8080/v1")
LIMITS = {"openai/small": ModelLimits(max_concurrency=4, requests_per_minute=30, tokens_per_minute=20_000)}


def asking(model: str) -> AgentRequest:
    return AgentRequest("archon-1", ContextBundle("t", "Shall we?"), model=model, batch_id="b")


async def test_a_provider_that_nobody_asked_stands_with_its_limits() -> None:
    desk = Desk(OPENAI, LOCAL).desk
    openai, local = desk.standings()
    assert (openai.name, openai.provider, openai.max_concurrency, openai.requests_per_minute) == ("openai", None, 9, 60)
    assert (openai.in_flight, openai.requests, openai.tokens_per_minute, openai.breaker) == (0, 0, None, None)
    assert (local.name, local.max_concurrency) == ("local", 72)


async def test_a_model_stands_below_its_provider_with_what_is_used_of_it() -> None:
    site = Desk(OPENAI, LOCAL, limits=LIMITS)
    request = asking("openai/small")
    permit = await site.desk.admit(request, site.desk.foresee(request), until=None)
    names = [each.name for each in site.desk.standings()]
    assert names == ["openai", "openai/small", "local"]
    provider, model, _ = site.desk.standings()
    assert (model.provider, model.max_concurrency, model.requests_per_minute) == ("openai", 4, 30)
    assert (model.in_flight, model.requests, provider.in_flight, provider.requests) == (1, 1, 1, 1)
    assert (model.tokens_per_minute, model.breaker, model.failures) == (20_000, "closed", 0)
    assert model.tokens
    permit.end(Usage())
    assert [each.in_flight for each in site.desk.standings()][:2] == [0, 0]


async def test_a_model_that_refuses_the_key_stands_with_its_open_breaker_and_why() -> None:
    site = Desk(OPENAI, LOCAL)
    site.clients["openai"].error = AgentInvocationError("no", kind="unauthorised", usage=Usage())
    with pytest.raises(AgentInvocationError):
        await site.call(asking("openai/small"))
    _, model, _ = site.desk.standings()
    assert (model.breaker, model.failures, model.cause) == ("open", 1, "unauthorised")
    assert model.opens_in_s > 0


def test_without_a_limiter_nothing_is_counted() -> None:
    found = standing_of("openai", Allowance(3), None)
    assert (found.max_concurrency, found.in_flight, found.waiting, found.requests) == (3, None, None, None)
