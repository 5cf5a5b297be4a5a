"""What usage sums up is what the deliberations themselves say that they took, call by call, certain and uncertain."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from api.conclave import Conclave
from api.requests import DeliberationRequest
from application.ports.agent_orchestrator import AgentOutput, AgentRequest
from application.ports.usage_reader import UsageBy
from domain.errors.agent import AgentInvocationError
from domain.models.budget import Usage
from domain.models.deliberation import Deliberation
from domain.models.money import Price
from infrastructure.persistence.database import open_database
from infrastructure.persistence.migrate import upgrade
from infrastructure.persistence.sql_deliberation_repository import SqlDeliberationRepository
from infrastructure.persistence.sql_usage_reader import SqlUsageReader
from tests.conclave_fixture import open_stub_conclave
from tests.model_desk_double import PricedDesk

_PRICE = Price.per_million(input_usd=1, output_usd=4)
_MODELS = ("openai/small", "gemini/flash")


class _Metered:
    """Every answer takes 500 tokens in and 50 out; of some calls nobody knows what they took, and some are refused for nothing."""

    async def invoke(self, request: AgentRequest) -> AgentOutput:
        number = int(request.agent_id.rpartition("-")[2])
        if number % 5 == 1 and request.attempt == 1:
            raise AgentInvocationError("lost", kind="connection_lost", retryable=True)
        if number % 5 == 2 and request.attempt == 1:
            raise AgentInvocationError("refused", kind="status_500", retryable=True, usage=Usage())
        if number % 5 == 3:
            raise AgentInvocationError("gone", kind="connection_lost")
        usage = Usage(1, 500, 50, 0.0007)
        content = '{"answer": "yes", "confidence": 0.5, "reasoning": "So."}'
        return AgentOutput(request.agent_id, request.request_id, content, model=request.model, usage=usage)


@asynccontextmanager
async def _opened(path: Path) -> AsyncIterator[Conclave]:
    url = f"sqlite:///{path}/conclave.db"
    upgrade(url)
    database = await open_database(url)
    repository = SqlDeliberationRepository(database)
    desk = PricedDesk(dict.fromkeys(_MODELS, _PRICE), prompt_tokens=900)
    reader = SqlUsageReader(database)
    async with open_stub_conclave(orchestrator=_Metered(), repository=repository, desk=desk, usage=reader) as conclave:
        yield conclave
    await repository.close()
    await database.close()


async def _deliberate(conclave: Conclave, agents: int, *, key_name: str | None) -> Deliberation:
    members = [
        {"id": f"archon-{number}", "persona": "Wise.", "model": _MODELS[number % 2]} for number in range(1, agents + 1)
    ]
    body = {"question": "Shall we?", "agents": {"members": members}, "sampling": {"max_output_tokens": 100}}
    specification = DeliberationRequest.read(body, conclave.rosters).specification(conclave.rosters)
    accepted = await conclave.deliberations.submit(specification, key_name=key_name)
    return await conclave.deliberations.wait(accepted.id, timeout_s=60)


@pytest.mark.parametrize("by", list(UsageBy))
async def test_all_items_together_are_what_the_deliberations_took(tmp_path: Path, by: UsageBy) -> None:
    async with _opened(tmp_path) as conclave:
        deliberations = await asyncio.gather(
            *(_deliberate(conclave, agents, key_name=key) for agents, key in ((10, "alice"), (7, "bob"), (5, None)))
        )
        items = await conclave.usage.usage(by, key_name=None)
        taken = sum((each.usage for each in deliberations), Usage())
        assert taken.uncertain_tokens > 0 < taken.cost_usd
        for name in ("calls", "input_tokens", "output_tokens", "uncertain_tokens"):
            assert sum(getattr(item, name) for item in items) == getattr(taken, name)
        for name in ("cost_usd", "uncertain_usd"):
            assert sum(getattr(item, name) for item in items) == pytest.approx(getattr(taken, name))


async def test_each_deliberation_has_its_own_item(tmp_path: Path) -> None:
    async with _opened(tmp_path) as conclave:
        first = await _deliberate(conclave, 10, key_name="alice")
        second = await _deliberate(conclave, 5, key_name="bob")
        items = await conclave.usage.usage(UsageBy.DELIBERATION, key_name=None)
        assert [item.key for item in items] == [second.id, first.id]
        for item, deliberation in zip(items, (second, first), strict=True):
            usage = deliberation.usage
            assert (item.calls, item.input_tokens, item.output_tokens) == (
                usage.calls,
                usage.input_tokens,
                usage.output_tokens,
            )
            assert item.cost_usd == pytest.approx(usage.cost_usd)
            assert item.uncertain_usd == pytest.approx(usage.uncertain_usd)


async def test_what_was_quoted_at_most_is_never_passed(tmp_path: Path) -> None:
    async with _opened(tmp_path) as conclave:
        ended = await _deliberate(conclave, 10, key_name=None)
        quote = conclave.quotes.quote(ended.specification)
        usage = ended.usage
        assert quote.calls.at_most is not None
        assert quote.tokens.at_most is not None
        assert quote.cost_usd.at_most is not None
        assert usage.calls <= quote.calls.at_most
        assert usage.total_tokens + usage.uncertain_tokens <= quote.tokens.at_most
        assert usage.cost_usd + usage.uncertain_usd <= quote.cost_usd.at_most + 1e-12
