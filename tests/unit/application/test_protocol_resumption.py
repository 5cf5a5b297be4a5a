"""A deliberation of several rounds that is cut off goes on where it was, pays for nothing twice, and ends as it would have undisturbed."""

from __future__ import annotations

from collections import Counter

import pytest

from application.ports.agent_orchestrator import AgentOutput, AgentRequest
from application.ports.model_desk import Forecast, NullModelDesk
from domain.models.budget import Limits, Usage
from domain.models.deliberation import DeliberationStatus
from domain.models.money import Hold, picodollars
from domain.models.protocol import Protocol, ProtocolKind
from domain.models.roll_call import AgentState
from infrastructure.stubs.agent_orchestrator_stub import AgentOrchestratorStub
from tests.protocol_fixture import SEVERAL, Troubled, asked_for, proven, said_in
from tests.service_fixture import abandon, build, finished, opened
from tests.virtual_time import pass_time

RESTLESS = 0
PRICE_USD = 1.0
DEBATE = Protocol(ProtocolKind.DEBATE, rounds=1)


class Spread(Troubled):
    """As `Troubled`, but each call takes between 0 and 2 seconds, and those that came back are noted."""

    def __init__(self) -> None:
        super().__init__(agents=AgentOrchestratorStub(latency_seconds=lambda g: g.uniform(0, 2), abstaining_fraction=0))
        self.answered: list[tuple[int, str]] = []

    async def invoke(self, request: AgentRequest) -> AgentOutput:
        output = await super().invoke(request)
        self.answered.append((request.round_number, request.agent_id))
        return output


class Priced(NullModelDesk):
    """Every call takes at most a dollar."""

    def foresee(self, request: AgentRequest) -> Forecast:
        return Forecast("one/small", "told", Hold(100, picodollars(PRICE_USD)), "1")


class Costly(Troubled):
    """Simulated agents, each call of which takes a dollar."""

    async def invoke(self, request: AgentRequest) -> AgentOutput:
        output = await super().invoke(request)
        output.usage = Usage(1, 60, 40, PRICE_USD)
        return output


@pytest.mark.parametrize("kind", SEVERAL)
@pytest.mark.parametrize("killed_after", [[1.0], [3.1, 1.0], [5.3, 0.0, 0.7], [7.7], [9.2, 1.2, 1.2]])
async def test_what_was_killed_in_any_round_ends_as_it_would_have_undisturbed(
    kind: ProtocolKind, killed_after: list[float]
) -> None:
    spec = asked_for(kind, 8, seed=RESTLESS, limits=Limits(max_attempts=5))
    async with opened(build(Spread())) as undisturbed:
        expected = await finished(undisturbed, spec)
    house = build(Spread())
    repository, running, far_ends = house.repository, None, []
    for seconds in killed_after:
        far_ends.append(Spread())
        house = build(far_ends[-1], repository)
        await house.service.start()
        running = running or await house.service.submit(spec)
        await pass_time(seconds)
        await abandon(house)
        # Longer than the lease.
        await pass_time(6)
    assert running is not None
    far_ends.append(Spread())
    async with opened(build(far_ends[-1], repository)) as last:
        ended = await last.service.wait(running.id, timeout_s=None)
        verified = await proven(last, ended.id)
    assert (ended.status, verified.not_recomputed) == (DeliberationStatus.COMPLETED, None)
    assert said_in(ended) == said_in(expected)
    assert ended.outcome == expected.outcome
    calls = Counter(
        (request.round_number, request.agent_id, request.attempt) for each in far_ends for request in each.requests
    )
    assert set(calls.values()) == {1}
    # Whatever was answered and recorded is not asked for again.
    assert set(Counter(turn for each in far_ends for turn in each.answered).values()) == {1}


async def test_a_round_that_was_begun_by_the_dead_is_not_begun_again() -> None:
    first = build(Troubled(hanging={(1, "archon-0")}))
    await first.service.start()
    running = await first.service.submit(asked_for(DEBATE))
    await pass_time(3)
    await abandon(first)
    following = Troubled()
    async with opened(build(following, first.repository)) as second:
        ended = await second.service.wait(running.id, timeout_s=None)
        await proven(second, ended.id)
    assert following.asked_in(0) == []
    assert following.asked_in(1) == ["archon-0"]
    assert ended.status is DeliberationStatus.COMPLETED


async def test_one_that_is_cancelled_while_nobody_works_on_its_later_round_asks_nobody_any_more() -> None:
    first = build(Troubled(hanging={(1, "archon-0")}))
    await first.service.start()
    running = await first.service.submit(asked_for(DEBATE))
    await pass_time(3)
    await abandon(first)
    await first.repository.request_cancel(running.id)
    following = Troubled()
    async with opened(build(following, first.repository)) as second:
        ended = await second.service.wait(running.id, timeout_s=None)
        await proven(second, ended.id)
    assert (ended.status, following.requests) == (DeliberationStatus.CANCELLED, [])
    assert ended.rounds[1].records[0].state is AgentState.CANCELLED


async def test_a_process_that_stops_between_rounds_leaves_the_next_one_to_another() -> None:
    first = build(Troubled())
    await first.service.start()
    running = await first.service.submit(asked_for(DEBATE))
    await pass_time(1.5)
    await first.service.stop(drain_s=5)
    assert (await first.repository.get(running.id)).status is DeliberationStatus.RUNNING  # type: ignore[union-attr]
    following = Troubled()
    async with opened(build(following, first.repository)) as second:
        ended = await second.service.wait(running.id, timeout_s=None)
    assert (following.asked_in(1), len(following.asked_in(2))) == ([], 6)
    assert ended.status is DeliberationStatus.COMPLETED


async def test_the_budget_is_one_over_all_rounds_and_over_all_processes() -> None:
    spec = asked_for(DEBATE, limits=Limits(max_cost_usd=14.0))
    first = build(Costly(hanging={(1, "archon-0")}), desk=Priced())
    await first.service.start()
    running = await first.service.submit(spec)
    await pass_time(3)
    await abandon(first)
    following = Costly()
    async with opened(build(following, first.repository, desk=Priced())) as second:
        ended = await second.service.wait(running.id, timeout_s=None)
        await proven(second, ended.id)
    # Six and five that are known, one of which nobody knows, and its second attempt: one is left for the vote.
    assert (ended.usage.cost_usd, ended.usage.uncertain_usd) == (13.0, 1.0)
    assert ended.rounds[2].roll_call[AgentState.OVER_BUDGET] == 5
    assert dict(ended.rounds[2].kept) != {}


async def test_where_the_budget_is_used_up_no_further_round_is_begun() -> None:
    agents = Costly()
    async with opened(build(agents, desk=Priced())) as house:
        ended = await finished(house, asked_for(ProtocolKind.DEBATE, limits=Limits(max_cost_usd=6.0)))
        await proven(house, ended.id)
    assert len(agents.requests) == 6
    assert [round_.roll_call[AgentState.OVER_BUDGET] for round_ in ended.rounds] == [0, 6]
    assert ended.status is DeliberationStatus.INQUORATE


@pytest.mark.parametrize("killed_after", [0.5, 1.5, 2.5, 3.2])
async def test_a_poll_that_may_stop_early_stops_where_it_would_have_after_it_was_killed(killed_after: float) -> None:
    spec = asked_for(Protocol(wave_size=2), 9, seed=0)
    async with opened(build(Troubled())) as undisturbed:
        expected = await finished(undisturbed, spec)
    first = build(Troubled())
    await first.service.start()
    running = await first.service.submit(spec)
    await pass_time(killed_after)
    await abandon(first)
    async with opened(build(Troubled(), first.repository)) as second:
        ended = await second.service.wait(running.id, timeout_s=None)
        await proven(second, ended.id)
    assert expected.roll_call.asked < 9
    assert (ended.roll_call, ended.outcome, ended.reason) == (expected.roll_call, expected.outcome, expected.reason)
