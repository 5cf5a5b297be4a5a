"""A store that goes away under a deliberation is said once, and once when it is back, however many agents meet it."""

from __future__ import annotations

import pytest

from application.ports.deliberation_repository import Commit
from domain.errors.dependency import DependencyUnavailableError
from domain.models.budget import Limits
from domain.models.deliberation import DeliberationStatus, WitnessSpan
from infrastructure.stubs.in_memory_repository import InMemoryRepository
from infrastructure.stubs.virtual_time import VirtualClock
from tests.service_fixture import Canned, build, opened, specification
from tests.virtual_time import pass_time

_HERE = ("application.services.deliberation_record", "application.services.deliberation_worker")


class Store(InMemoryRepository):
    """One that takes no commits while a test says so."""

    def __init__(self) -> None:
        super().__init__(clock=VirtualClock())
        self.is_away = False

    async def append(self, commit: Commit) -> WitnessSpan | None:
        if self.is_away:
            raise DependencyUnavailableError(dependency="database", problem="a test took it away")
        return await super().append(commit)


def _said(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    assert [record for record in caplog.records if record.exc_info] == []
    return [
        (record.levelname, record.getMessage().partition(":")[0]) for record in caplog.records if record.name in _HERE
    ]


async def test_an_outage_is_two_lines_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    store = Store()
    async with opened(build(Canned({}), store)) as house:
        accepted = await house.service.submit(specification(30))
        await pass_time(0.5)
        store.is_away = True
        await pass_time(20)
        store.is_away = False
        await pass_time(5)
        ended = await house.service.get(accepted.id)
    assert ended.status is DeliberationStatus.COMPLETED
    assert house.service.last_outage is None
    assert _said(caplog) == [
        ("WARNING", f"the store is away, deliberation {accepted.id} waits"),
        ("WARNING", f"the store is back, deliberation {accepted.id} goes on"),
    ]


async def test_what_is_left_at_its_deadline_is_a_line_without_a_traceback_and_remembered(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = Store()
    async with opened(build(Canned({}), store)) as house:
        accepted = await house.service.submit(specification(30, limits=Limits(deadline_s=10.0)))
        await pass_time(0.5)
        store.is_away = True
        await pass_time(13)
        outage = house.service.last_outage
    assert outage is not None
    assert outage.problem == "a test took it away"
    left = ("WARNING", f"deliberation {accepted.id} is left until the store is back")
    assert _said(caplog)[:2] == [("WARNING", f"the store is away, deliberation {accepted.id} waits"), left]
