"""A deliberation spends no more than it may: who finds nothing left ends over budget, and everybody else goes on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace

import pytest

from application.ports.agent_orchestrator import AgentOutput, AgentRequest
from application.ports.model_desk import Forecast, NullModelDesk
from application.services.record_check import require_recorded
from domain.errors.agent import AgentInvocationError
from domain.models.budget import Limits, Usage
from domain.models.deliberation import Deliberation, DeliberationStatus
from domain.models.money import Hold, KeyBudget, picodollars, usd
from domain.models.roll_call import AgentState
from infrastructure.stubs.in_memory_repository import InMemoryRepository
from infrastructure.stubs.virtual_time import VirtualClock
from tests.service_fixture import Canned, House, abandon, build, opened, specification
from tests.virtual_time import pass_time

WORST = Hold(100, picodollars(1.0))


class Priced(NullModelDesk):
    """Every call takes at most a hundred tokens and a dollar."""

    def foresee(self, request: AgentRequest) -> Forecast:
        return Forecast("one/small", "told", WORST, "1")


class Costly:
    """Answers after a second, and takes so many dollars and ten tokens; hangs for those named."""

    def __init__(self, dollars: float, *, hanging: Sequence[str] = ()) -> None:
        self.dollars = dollars
        self.hanging = hanging
        self.calls: list[str] = []

    async def invoke(self, request: AgentRequest) -> AgentOutput:
        self.calls.append(request.agent_id)
        await pass_time(1)
        if request.agent_id in self.hanging:
            await asyncio.Event().wait()
        usage = Usage(1, 6, 4, self.dollars)
        return AgentOutput(request.agent_id, request.request_id, '{"answer": "yes"}', usage=usage)


def _limited(agents: int, **limits: float) -> object:
    plain = specification(agents)
    return replace(plain, limits=replace(plain.limits, **limits))  # type: ignore[arg-type]


async def _ended(house: House, spec: object, *, key_name: str | None = None) -> Deliberation:
    accepted = await house.service.submit(spec, key_name=key_name)  # type: ignore[arg-type]
    return await house.service.wait(accepted.id, timeout_s=None)


def _states(ended: Deliberation) -> dict[str, int]:
    return {state.value: ended.roll_call[state] for state in AgentState if ended.roll_call[state]}


async def test_agents_beyond_the_budget_end_over_budget_and_the_others_finish() -> None:
    models = Costly(1.0)
    async with opened(build(models, desk=Priced())) as house:
        ended = await _ended(house, _limited(5, max_cost_usd=3.0))
    assert _states(ended) == {"answered": 3, "over_budget": 2}
    assert ended.status is DeliberationStatus.COMPLETED
    assert (len(models.calls), ended.usage.cost_usd) == (3, 3.0)
    kinds = {record.failure.kind for record in ended.failures if record.failure is not None}
    assert kinds == {"max_cost_usd"}
    assert all(record.attempts == 0 for record in ended.failures)


async def test_who_waits_for_calls_in_flight_is_asked_once_they_took_less_than_they_held() -> None:
    async with opened(build(Costly(0.25), desk=Priced())) as house:
        ended = await _ended(house, _limited(8, max_cost_usd=2.5))
    assert _states(ended) == {"answered": 7, "over_budget": 1}
    assert ended.usage.cost_usd == pytest.approx(1.75)


async def test_tokens_are_held_to_their_limit_as_money_is() -> None:
    async with opened(build(Costly(0.0), desk=Priced())) as house:
        ended = await _ended(house, _limited(4, max_total_tokens=120))
    assert _states(ended) == {"answered": 3, "over_budget": 1}
    assert ended.usage.total_tokens == 30
    (lost,) = ended.failures
    assert lost.failure is not None
    assert lost.failure.kind == "max_total_tokens"


async def test_a_call_that_timed_out_keeps_what_it_held() -> None:
    spec = _limited(3, max_cost_usd=2.0, agent_timeout_s=5.0)
    async with opened(build(Costly(0.5, hanging=["archon-0"]), desk=Priced())) as house:
        ended = await _ended(house, spec)
    assert _states(ended) == {"answered": 1, "timed_out": 1, "over_budget": 1}
    assert (ended.usage.cost_usd, ended.usage.uncertain_usd, ended.usage.uncertain_tokens) == (0.5, 1.0, 100)


async def test_a_further_attempt_does_not_wait_for_what_the_one_before_held() -> None:
    class Throttled(Costly):
        async def invoke(self, request: AgentRequest) -> AgentOutput:
            if request.attempt == 1:
                self.calls.append(request.agent_id)
                raise AgentInvocationError(
                    "429", kind="rate_limited", state=AgentState.THROTTLED, retryable=True, usage=Usage()
                )
            return await super().invoke(request)

    models = Throttled(1.0)
    async with opened(build(models, desk=Priced())) as house:
        ended = await _ended(house, _limited(1, max_cost_usd=1.5))
    assert _states(ended) == {"answered": 1}
    assert len(models.calls) == 2


async def test_an_attempt_that_leaves_too_little_for_the_next_is_charged_all_the_same() -> None:
    class Failing(Costly):
        async def invoke(self, request: AgentRequest) -> AgentOutput:
            await super().invoke(request)
            raise AgentInvocationError("no", kind="server_error", retryable=True, usage=Usage(1, 6, 4, 1.0))

    async with opened(build(Failing(1.0), desk=Priced())) as house:
        ended = await _ended(house, _limited(1, max_cost_usd=1.5))
        charges = list(house.repository._kept[ended.id].charges.values())
    assert _states(ended) == {"over_budget": 1}
    assert ended.usage.cost_usd == 1.0
    assert [(charge.attempt, charge.cost, charge.is_certain) for charge in charges] == [(1, picodollars(1.0), True)]


async def test_whoever_goes_on_counts_what_was_spent_and_what_nobody_knows() -> None:
    repository = InMemoryRepository(clock=VirtualClock())
    spec = _limited(4, max_cost_usd=4.0)
    first = build(Costly(0.5, hanging=["archon-2", "archon-3"]), repository, desk=Priced())
    await first.service.start()
    running = await first.service.submit(spec, key_name=None)  # type: ignore[arg-type]
    await pass_time(5)
    await abandon(first)
    following = Costly(0.5)
    async with opened(build(following, repository, desk=Priced())) as second:
        ended = await second.service.wait(running.id, timeout_s=None)
    # 1.00 was spent, and 2.00 may have been: one dollar is left, for one call after the other.
    assert following.calls == ["archon-2", "archon-3"] or following.calls == ["archon-2"]
    assert ended.usage.cost_usd + ended.usage.uncertain_usd <= 4.0
    assert ended.usage.uncertain_usd == 2.0
    charged = [(call.agent_id, call.attempt) for call in repository._kept[running.id].charges.values()]
    assert ("archon-2", 1) in charged


async def test_a_key_without_money_left_is_told_so_agent_by_agent() -> None:
    repository = InMemoryRepository(clock=VirtualClock(), budgets={"saver": KeyBudget(day=picodollars(2.5))})
    models = Costly(1.0)
    async with opened(build(models, repository, desk=Priced())) as house:
        ended = await _ended(house, specification(4), key_name="saver")
        again = await _ended(house, specification(4), key_name="saver")
        other = await _ended(house, specification(4), key_name="other")
    assert _states(ended) == {"answered": 2, "over_budget": 2}
    assert {record.failure.kind for record in ended.failures if record.failure} == {"key_day"}
    await _audited(repository)
    assert _states(again) == {"over_budget": 4}
    assert again.status is DeliberationStatus.INQUORATE
    assert _states(other) == {"answered": 4}
    assert len(models.calls) == 6


async def test_calls_of_a_key_wait_for_those_in_flight_that_take_less_than_they_hold() -> None:
    repository = InMemoryRepository(clock=VirtualClock(), budgets={"saver": KeyBudget(day=picodollars(2.0))})
    models = Costly(0.1)
    async with opened(build(models, repository, desk=Priced())) as house:
        both = [await house.service.submit(specification(6), key_name="saver") for _ in range(2)]
        ended = [await house.service.wait(each.id, timeout_s=None) for each in both]
    # Each of them holds a dollar and takes ten cents: the eleventh leaves 0.90, in which no other fits.
    assert sum(each.roll_call[AgentState.ANSWERED] for each in ended) == 11
    assert sum(each.roll_call[AgentState.OVER_BUDGET] for each in ended) == 1
    await _audited(repository)


async def test_a_further_attempt_that_the_key_cannot_pay_leaves_the_one_before_on_record() -> None:
    class Failing(Costly):
        async def invoke(self, request: AgentRequest) -> AgentOutput:
            await super().invoke(request)
            raise AgentInvocationError("no", kind="server_error", retryable=True, usage=Usage(1, 6, 4, 0.5))

    repository = InMemoryRepository(clock=VirtualClock(), budgets={"saver": KeyBudget(day=picodollars(1.2))})
    async with opened(build(Failing(0.5), repository, desk=Priced())) as house:
        ended = await _ended(house, specification(1), key_name="saver")
    assert _states(ended) == {"over_budget": 1}
    assert (ended.usage.calls, ended.usage.cost_usd) == (1, 0.5)
    await _audited(repository)


async def test_agents_whose_further_attempts_find_the_key_empty_do_not_wait_for_each_other() -> None:
    class Failing(Costly):
        async def invoke(self, request: AgentRequest) -> AgentOutput:
            await super().invoke(request)
            raise AgentInvocationError("no", kind="server_error", retryable=True, usage=Usage(1, 6, 4, 0.5))

    repository = InMemoryRepository(clock=VirtualClock(), budgets={"saver": KeyBudget(day=picodollars(2.2))})
    began = asyncio.get_running_loop().time()
    async with opened(build(Failing(0.5), repository, desk=Priced())) as house:
        ended = await _ended(house, specification(2), key_name="saver")
        took_s = asyncio.get_running_loop().time() - began
    # What the one that gives up had not taken is enough for the other.
    assert _states(ended) == {"over_budget": 1, "failed": 1}
    assert took_s < 60
    await _audited(repository)


async def test_an_agent_that_waits_for_its_purse_again_is_not_waited_for_by_who_waits_for_the_key() -> None:
    class FailingOnce(Costly):
        async def invoke(self, request: AgentRequest) -> AgentOutput:
            output = await super().invoke(request)
            if self.calls.count(request.agent_id) == 1:
                raise AgentInvocationError("no", kind="server_error", retryable=True, usage=Usage(1, 6, 4, 0.5))
            return output

    repository = InMemoryRepository(clock=VirtualClock(), budgets={"saver": KeyBudget(day=picodollars(1.7))})
    began = asyncio.get_running_loop().time()
    async with opened(build(FailingOnce(0.5), repository, desk=Priced())) as house:
        # The purse has room for two calls at a time, the key for one.
        ended = await _ended(house, _limited(3, max_cost_usd=2.0), key_name="saver")
        took_s = asyncio.get_running_loop().time() - began
    assert sum(_states(ended).values()) == 3
    assert took_s < 60
    await _audited(repository)


async def test_a_deliberation_that_is_cancelled_lets_others_of_its_key_go_on() -> None:
    repository = InMemoryRepository(clock=VirtualClock(), budgets={"saver": KeyBudget(day=picodollars(2.0))})
    async with opened(build(Costly(0.1, hanging=["archon-0", "archon-1"]), repository, desk=Priced())) as house:
        first = await house.service.submit(specification(2), key_name="saver")
        await pass_time(2)
        second = await house.service.submit(specification(3), key_name="saver")
        await pass_time(2)
        await house.service.cancel(first.id)
        ended = await house.service.wait(second.id, timeout_s=None)
    # What the cancelled calls took nobody knows, so their two dollars stay held.
    assert _states(ended) == {"over_budget": 3}
    await _audited(repository)


async def _audited(repository: InMemoryRepository) -> None:
    for stored in await repository.stored(after=0, limit=100):
        require_recorded(stored)


async def test_a_purse_is_free_again_where_the_key_has_nothing_left() -> None:
    repository = InMemoryRepository(clock=VirtualClock(), budgets={"saver": KeyBudget(day=picodollars(1.0))})
    async with opened(build(Costly(1.0), repository, desk=Priced())) as house:
        ended = await _ended(house, _limited(6, max_cost_usd=2.0), key_name="saver")
    assert _states(ended) == {"answered": 1, "over_budget": 5}


async def test_what_each_call_held_and_took_stands_in_its_entries() -> None:
    async with opened(build(Costly(0.5), desk=Priced())) as house:
        ended = await _ended(house, specification(1))
        told = [json.loads(entry.entry) for entry in house.repository.log.of(ended.id)]
    (intent,) = [entry for entry in told if entry["type"] == "call.intended"]
    assert intent["held"] == {"tokens": 100, "cost_usd": 1.0}
    assert (intent["model"], intent["prompt_version"]) == ("one/small", "1")
    (end,) = [entry for entry in told if entry["type"] == "agent.ended"]
    assert end["usage"]["cost_usd"] == 0.5
    assert "uncertain_usd" not in end["usage"]
    (charge,) = house.repository._kept[ended.id].charges.values()
    assert (charge.cost, charge.input_tokens, charge.output_tokens, charge.is_certain) == (picodollars(0.5), 6, 4, True)


async def test_an_agent_stopped_before_its_call_has_taken_nothing() -> None:
    async with opened(build(Canned({"archon-0": None}), desk=Priced())) as house:
        running = await house.service.submit(specification(2), key_name=None)
        await pass_time(3)
        await house.service.cancel(running.id)
        ended = await house.service.wait(running.id, timeout_s=None)
    assert ended.status is DeliberationStatus.CANCELLED
    assert ended.usage.uncertain_usd == usd(WORST.cost or 0)


def test_the_default_limit_is_nobodys_choice() -> None:
    assert not Limits().has_money_limit
    assert Limits(max_cost_usd=1.0).has_money_limit


async def test_the_cost_of_a_deliberation_is_shown_as_the_exact_sum_of_its_calls() -> None:
    async with opened(build(Costly(0.00105), desk=Priced())) as house:
        ended = await _ended(house, _limited(20, max_cost_usd=1_000))
        (told,) = [
            json.loads(each.entry)
            for each in await house.repository.log.entries_of(ended.id)
            if b'"deliberation.ended"' in each.entry
        ]
    assert repr(ended.usage.cost_usd) == "0.021"
    assert told["usage"]["cost_usd"] == 0.021
