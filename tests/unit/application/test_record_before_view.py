"""Nothing is seen before the store has it, nothing is read that is not what the store was given, and a store that is away is waited for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from application.ports.deliberation_repository import Commit, StoredRecord
from application.ports.witness_log import LoggedEntry
from application.services.deliberation_output_service import DeliberationOutputService
from domain.errors.deliberation import (
    RecordMismatchError,
)
from domain.errors.dependency import DependencyUnavailableError
from domain.models.budget import Limits
from domain.models.deliberation import Deliberation, DeliberationStatus, WitnessSpan
from domain.models.roll_call import AgentState
from infrastructure.stubs.in_memory_repository import InMemoryRepository
from infrastructure.stubs.virtual_time import VirtualClock
from tests.service_fixture import Canned, build, finished, opened, specification
from tests.virtual_time import pass_time


class Flaky(InMemoryRepository):
    """A store that is away between two moments."""

    away_from = 1e9
    away_until = 0.0

    async def append(self, commit: Commit) -> None:
        if self.away_from <= asyncio.get_running_loop().time() < self.away_until:
            raise DependencyUnavailableError(dependency="database", problem="it is away")
        await super().append(commit)


async def test_a_store_that_goes_away_makes_a_deliberation_wait_and_loses_nothing() -> None:
    repository = Flaky(clock=VirtualClock())
    repository.away_from, repository.away_until = 0.5, 20.0
    async with opened(build(Canned({}), repository)) as house:
        ended = await finished(house, specification(5))
    assert ended.status is DeliberationStatus.COMPLETED
    assert ended.roll_call[AgentState.ANSWERED] == 5
    assert asyncio.get_running_loop().time() == pytest.approx(21, abs=2)


async def test_a_store_that_stays_away_past_the_deadline_leaves_a_deliberation_to_be_ended_when_it_is_back() -> None:
    repository = Flaky(clock=VirtualClock())
    repository.away_from, repository.away_until = 0.5, 100.0
    async with opened(build(Canned({}), repository)) as house:
        ended = await finished(house, specification(5, limits=Limits(deadline_s=5)))
        after = await finished(house, specification(5))
    assert (ended.status, ended.roll_call[AgentState.TIMED_OUT]) == (DeliberationStatus.INQUORATE, 5)
    assert {f.failure and f.failure.kind for f in ended.failures} == {"deadline"}
    assert after.status is DeliberationStatus.COMPLETED


class HeldBack(InMemoryRepository):
    """A store whose commits of records wait until they are let through."""

    def __init__(self) -> None:
        super().__init__(clock=VirtualClock())
        self.gate = asyncio.Event()

    async def append(self, commit: Commit) -> WitnessSpan | None:
        if any(entry.record is not None for entry in commit.entries):
            await self.gate.wait()
        return await super().append(commit)


async def test_nothing_that_is_not_committed_can_be_seen_anywhere() -> None:
    repository = HeldBack()
    async with opened(build(Canned({}), repository)) as house:
        accepted = await house.service.submit(specification(3))
        await pass_time(30)
        assert await repository.records(accepted.id) == []
        assert (await house.service.get(accepted.id)).roll_call.asked == 0
        seen = [event.type for event in await repository.events(accepted.id, after=0, limit=500)]
        assert "agent.ended" not in seen
        assert house.pool.active_count == 3
        repository.gate.set()
        ended = await house.service.wait(accepted.id, timeout_s=None)
    assert ended.roll_call[AgentState.ANSWERED] == 3


@pytest.mark.parametrize(
    "forged",
    [
        lambda item: replace(item, record=replace(item.record, content="forged")),
        lambda item: replace(item, record=replace(item.record, state=AgentState.ABSTAINED, answer=None)),
        lambda item: replace(item, record=replace(item.record, answer="none of the options")),
        lambda item: replace(item, record=replace(item.record, reasoning="because")),
        lambda item: replace(item, record=replace(item.record, model="a better one")),
        lambda item: replace(item, salts=bytes(64)),
        lambda item: replace(item, witnessed=replace(item.witnessed, leaf_hash=bytes(32))),
        lambda item: replace(item, witnessed=replace(item.witnessed, entry=item.witnessed.entry + b" ")),
        lambda item: replace(item, witnessed=LoggedEntry(-1, b"", b"")),
    ],
    ids=["content", "state", "answer", "reasoning", "model", "salts", "leaf hash", "entry", "no entry"],
)
async def test_outputs_are_read_only_while_they_match_what_was_committed(
    forged: Callable[[StoredRecord], StoredRecord],
) -> None:
    async with opened(build(Canned({}))) as house:
        ended = await finished(house, specification(2))
    outputs = DeliberationOutputService(house.repository)
    assert {output.record.content for output in await outputs.outputs(ended.id)} == {'{"answer": "yes"}'}

    class Forged(InMemoryRepository):
        async def records(
            self, deliberation_id: str, *, round_number: int | None = None, after: int = -1
        ) -> Sequence[StoredRecord]:
            stored = await house.repository.records(deliberation_id, round_number=round_number, after=after)
            return [forged(item) for item in stored]

        async def get(self, deliberation_id: str) -> Deliberation | None:
            return await house.repository.get(deliberation_id)

    with pytest.raises(RecordMismatchError):
        await DeliberationOutputService(Forged(clock=VirtualClock())).outputs(ended.id)
