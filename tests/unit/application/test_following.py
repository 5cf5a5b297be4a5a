"""Following a deliberation: news gathered into one look, and only the outcomes that are new."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from application.ports.deliberation_repository import StoredRecord
from application.ports.witness_log import LoggedEntry
from application.services.deliberation_output_service import DeliberationOutputService
from domain.errors.deliberation import RecordMismatchError
from infrastructure.stubs.in_memory_repository import InMemoryRepository
from infrastructure.stubs.virtual_time import VirtualClock
from tests.service_fixture import Canned, build, finished, history, opened, specification
from tests.virtual_time import pass_time


async def test_what_happens_while_it_is_gathered_is_found_at_one_look() -> None:
    async with opened(build(Canned({}))) as house:
        accepted = await house.service.submit(specification(5))

        async def gather() -> None:
            await pass_time(30)

        looks = [page async for page in house.service.gathered_events(accepted.id, gather=gather) if page]
        events = await history(house, accepted.id)
    assert [event for page in looks for event in page] == events
    assert len(looks) <= 2


async def test_without_anything_new_a_look_finds_nothing_and_says_so_each_heartbeat() -> None:
    async with opened(build(Canned({"archon-0": None}))) as house:
        accepted = await house.service.submit(specification(1))
        looks = house.service.gathered_events(accepted.id)
        found = [await anext(looks) for _ in range(8)]
        assert found[-3:] == [[], [], []]
        await looks.aclose()


async def test_more_events_than_a_page_has_come_at_one_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("application.services.following._EVENT_PAGE", 3)
    async with opened(build(Canned({}))) as house:
        ended = await finished(house, specification(5))
        looks = [page async for page in house.service.gathered_events(ended.id)]
    assert [len(page) for page in looks] == [len(await history(house, ended.id))]


async def test_later_outputs_are_those_after_a_leaf_in_the_order_of_their_commit() -> None:
    async with opened(build(Canned({}))) as house:
        ended = await finished(house, specification(4))
        outputs = DeliberationOutputService(house.repository)
        everything = await outputs.outputs(ended.id)
        later = await outputs.later_outputs(ended, after=everything[1].leaf_index)
        assert list(later) == list(everything[2:])
        assert list(await outputs.later_outputs(ended, after=-1)) == list(everything)
        assert list(await outputs.later_outputs(ended, after=everything[-1].leaf_index)) == []


async def test_a_later_output_that_is_not_what_was_recorded_is_not_shown() -> None:
    async with opened(build(Canned({}))) as house:
        ended = await finished(house, specification(2))

        class Forged(InMemoryRepository):
            async def records(
                self, deliberation_id: str, *, round_number: int | None = None, after: int = -1
            ) -> Sequence[StoredRecord]:
                stored = await house.repository.records(deliberation_id, round_number=round_number, after=after)
                forged = LoggedEntry(stored[0].witnessed.index, b"{}", stored[0].witnessed.leaf_hash)
                return [StoredRecord(stored[0].record, forged, stored[0].salts)]

        with pytest.raises(RecordMismatchError):
            await DeliberationOutputService(Forged(clock=VirtualClock())).later_outputs(ended, after=-1)
