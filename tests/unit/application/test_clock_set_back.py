"""A clock of the day that is set back or forward while deliberations run: what is measured and recorded stays in order."""

from __future__ import annotations

import pytest

from application.ports.metrics import NullMetrics
from application.services.record_check import require_recorded
from domain.models.deliberation import Deliberation, DeliberationStatus
from infrastructure.stubs.in_memory_repository import InMemoryRepository
from infrastructure.stubs.virtual_time import VirtualClock
from tests.service_fixture import Canned, abandon, build, opened, specification
from tests.unit.application.abandoned_work import JumpingClock
from tests.virtual_time import pass_time

DAYS_S = 4 * 86_400.0


class Durations(NullMetrics):
    """How long deliberations took, as they are counted."""

    def __init__(self) -> None:
        self.taken: list[float] = []

    def deliberation_ended(self, status: DeliberationStatus, duration_seconds: float) -> None:
        self.taken.append(duration_seconds)


async def _ended_over(change: float, counted: Durations) -> Deliberation:
    clock = JumpingClock()
    repository = InMemoryRepository(clock=VirtualClock())
    async with opened(build(Canned({}), repository, clock=clock, metrics=counted)) as house:
        accepted = await house.service.submit(specification(3))
        await pass_time(0.5)
        clock.off_s = change
        ended = await house.service.wait(accepted.id, timeout_s=None)
    for each in await repository.stored(after=0, limit=10):
        require_recorded(each)
    return ended


@pytest.mark.parametrize("change", [-DAYS_S, DAYS_S, 0.0])
async def test_how_long_a_deliberation_took_is_measured_whatever_the_clock_of_the_day_says(change: float) -> None:
    counted = Durations()
    await _ended_over(change, counted)
    assert counted.taken == [pytest.approx(1)]


async def test_nothing_is_recorded_to_have_ended_before_it_began() -> None:
    ended = await _ended_over(-DAYS_S, Durations())
    assert ended.status is DeliberationStatus.COMPLETED
    assert ended.started_at == ended.finished_at
    records = [record for each in ended.rounds for record in each.records]
    assert len(records) == 3
    assert all(record.started_at == record.finished_at for record in records)


async def test_what_is_gone_on_with_under_a_clock_that_went_back_took_no_time_rather_than_less() -> None:
    first = build(Canned({"archon-0": None}))
    await first.service.start()
    running = await first.service.submit(specification(2))
    await pass_time(5)
    await abandon(first)
    counted, clock = Durations(), JumpingClock()
    clock.off_s = -DAYS_S
    async with opened(build(Canned({}), first.repository, clock=clock, metrics=counted)) as second:
        ended = await second.service.wait(running.id, timeout_s=None)
    assert ended.status is DeliberationStatus.COMPLETED
    assert counted.taken == [0.0]


async def test_what_is_cancelled_before_its_start_did_not_end_before_it_was_accepted() -> None:
    clock = JumpingClock()
    house = build(Canned({}), clock=clock)
    accepted = await house.service.submit(specification(2))
    clock.off_s = -DAYS_S
    ended = await house.service.cancel(accepted.id)
    assert ended.status is DeliberationStatus.CANCELLED
    assert ended.finished_at == accepted.created_at
