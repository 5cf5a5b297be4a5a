"""The archive is compared ahead, newest first, when nothing is at work; what cannot be read is said or tried again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from application.ports.deliberation_repository import Page
from application.services.archive_comparison import ArchiveComparison
from domain.errors.deliberation import RecordMismatchError
from domain.errors.dependency import DependencyUnavailableError
from domain.witness.entry import accepted
from infrastructure.stubs.in_memory_repository import InMemoryRepository
from tests.deliberation_specimens import deliberation
from tests.virtual_time import pass_time


class Watched(InMemoryRepository):
    """A store that notes which it showed, and raises what a test gave it first."""

    def __init__(self, *faults: Exception) -> None:
        super().__init__()
        self.faults = list(faults)
        self.shown: list[str] = []

    async def page(self, **asked: object) -> Page:
        if self.faults:
            raise self.faults.pop(0)
        found = await super().page(**asked)  # type: ignore[arg-type]
        self.shown += [each.id for each in found.items]
        return found


async def filled(store: Watched, count: int) -> list[str]:
    ids: list[str] = []
    for _ in range(count):
        each = deliberation()
        await store.add(each, accepted(each))
        ids.insert(0, each.id)
    return ids


@asynccontextmanager
async def comparing(comparison: ArchiveComparison) -> AsyncIterator[None]:
    task = asyncio.create_task(comparison.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_every_deliberation_is_read_once_and_the_newest_first() -> None:
    store = Watched()
    newest_first = await filled(store, 12)
    async with comparing(ArchiveComparison(store, is_busy=lambda: False)):
        await pass_time(3600)
    assert store.shown == newest_first


async def test_it_begins_some_time_after_the_start() -> None:
    store = Watched()
    await filled(store, 1)
    async with comparing(ArchiveComparison(store, is_busy=lambda: False)):
        await pass_time(9)
        assert store.shown == []
        await pass_time(2)
        assert len(store.shown) == 1


async def test_it_waits_while_agents_are_at_work() -> None:
    store, busy = Watched(), [True]
    await filled(store, 3)
    async with comparing(ArchiveComparison(store, is_busy=lambda: busy[0])):
        await pass_time(3600)
        assert store.shown == []
        busy[0] = False
        await pass_time(1)
    assert len(store.shown) == 3


async def test_it_stops_at_its_limit() -> None:
    store = Watched()
    await filled(store, 12)
    async with comparing(ArchiveComparison(store, is_busy=lambda: False, most=10)):
        await pass_time(3600)
    assert len(store.shown) == 10


async def test_a_store_that_is_away_is_tried_again() -> None:
    store = Watched(*[DependencyUnavailableError(dependency="database", problem="is away")] * 2)
    newest_first = await filled(store, 7)
    async with comparing(ArchiveComparison(store, is_busy=lambda: False)):
        await pass_time(3600)
    assert store.shown == newest_first


async def test_what_differs_from_its_record_is_said_and_ends_it(caplog: pytest.LogCaptureFixture) -> None:
    store = Watched(RecordMismatchError(deliberation_id="d-1", recorded="a", found="b", part="outcome"))
    await filled(store, 3)
    with caplog.at_level(logging.ERROR):
        async with comparing(ArchiveComparison(store, is_busy=lambda: False)):
            await pass_time(3600)
    assert store.shown == []
    assert "'d-1'" in caplog.text
