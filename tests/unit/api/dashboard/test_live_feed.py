"""The live feed: read once, told together, the same for everybody, and whole again after every absence."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Any

import pytest

from api.dashboard.live_feed import MOST_FRAMES, Viewer
from api.rest.event_stream import StreamPlaces
from api.rest.problems import RequestRefusedError
from application.ports.deliberation_repository import StoredRecord
from domain.errors.deliberation import DeliberationNotFoundError
from domain.errors.dependency import DependencyUnavailableError
from domain.models.budget import Limits
from domain.models.event import Event
from infrastructure.stubs.in_memory_repository import InMemoryRepository
from infrastructure.stubs.virtual_time import VirtualClock
from tests.service_fixture import Canned, build, opened, specification
from tests.unit.api.dashboard.feed_fixture import Reader, Staggered, live_feed
from tests.virtual_time import pass_time

NAMES = [f"archon-{number}" for number in range(8)]


class Watched(InMemoryRepository):
    """Counts what is read of it, and is away when told."""

    def __init__(self) -> None:
        super().__init__(clock=VirtualClock())
        self.is_away = False
        self.records_read = 0
        self.looks = 0

    async def records(
        self, deliberation_id: str, *, round_number: int | None = None, after: int = -1
    ) -> Sequence[StoredRecord]:
        found = await super().records(deliberation_id, round_number=round_number, after=after)
        self.records_read += len(found)
        return found

    async def events(self, deliberation_id: str, *, after: int, limit: int) -> Sequence[Event]:
        if self.is_away:
            raise DependencyUnavailableError(dependency="the database", problem="gone")
        self.looks += 1
        return await super().events(deliberation_id, after=after, limit=limit)


def changed_seats(frames: Sequence[tuple[str, dict[str, Any]]]) -> list[list[int]]:
    """The numbers of the seats of each change."""
    return [[seat[0] for seat in frame["seats"]] for name, frame in frames if name == "change" and frame["seats"]]


async def test_what_happens_within_a_tenth_of_a_second_is_told_in_one_frame() -> None:
    seconds = {name: 1 + 0.01 * number for number, name in enumerate(NAMES[:6])} | {NAMES[6]: 2.0, NAMES[7]: 2.05}
    async with opened(build(Staggered(seconds))) as house:
        accepted = await house.service.submit(specification(8))
        reader = Reader()
        await reader.read(live_feed(house), accepted.id)
    # What the last two said came with the end.
    assert changed_seats(reader.frames)[-1] == [0, 1, 2, 3, 4, 5]
    assert reader.frames[-1][0] == "ended"


async def test_a_reader_is_sent_the_whole_first_then_what_changes_and_the_whole_again_in_the_end() -> None:
    async with opened(build(Staggered(dict.fromkeys(NAMES[:3], 1.0) | {NAMES[3]: 3.0}))) as house:
        accepted = await house.service.submit(specification(4))
        reader = Reader()
        await reader.read(live_feed(house), accepted.id)
    names = [name for name, _ in reader.frames]
    assert (names[0], names[-1], set(names[1:-1])) == ("snapshot", "ended", {"change"})
    assert reader.frames[-1][1]["html"].startswith("completed")
    sequences = [frame["sequence"] for _, frame in reader.frames]
    assert sequences == sorted(set(sequences))
    assert "not the end" not in reader.text


async def test_who_comes_back_in_the_midst_is_sent_everything_as_it_stands() -> None:
    async with opened(build(Staggered({NAMES[0]: 1.0, NAMES[1]: 5.0}))) as house:
        accepted = await house.service.submit(specification(2))
        feed, reader, again = live_feed(house), Reader(), Reader()
        reading = asyncio.create_task(reader.read(feed, accepted.id))
        await pass_time(2)
        reader.left.set()
        await reading
        await pass_time(1)
        await again.read(feed, accepted.id)
    name, snapshot = again.frames[0]
    assert (name, snapshot["sequence"]) == ("snapshot", reader.frames[-1][1]["sequence"])
    assert snapshot["html"].endswith("answered asked")


async def test_fifty_viewers_are_sent_the_same_bytes_and_cost_one_reading() -> None:
    read, looks = [], []
    for viewers in (1, 50):
        store = Watched()
        async with opened(build(Staggered({name: 1 + n / 2 for n, name in enumerate(NAMES)}), store)) as house:
            accepted = await house.service.submit(specification(8))
            feed = live_feed(house)
            readers = [Reader() for _ in range(viewers)]
            await asyncio.gather(*(reader.read(feed, accepted.id) for reader in readers))
        read.append(store.records_read)
        looks.append(store.looks)
        assert len({reader.text for reader in readers}) == 1
        assert len({id(body) for reader in readers for _, body in reader.received if b"event: change" in body}) > 3
        for place in range(len(readers[0].received)):
            assert len({id(reader.received[place][1]) for reader in readers}) == 1
    assert read[0] == read[1]
    assert looks[0] == looks[1]


async def test_while_they_answer_each_outcome_is_read_once() -> None:
    store = Watched()
    seconds = {name: 1.0 + number for number, name in enumerate(NAMES[:7])}
    async with opened(build(Staggered(seconds), store)) as house:
        accepted = await house.service.submit(specification(8, limits=Limits(deadline_s=60)))
        reader = Reader()
        reading = asyncio.create_task(reader.read(live_feed(house), accepted.id))
        await pass_time(20)
        assert store.records_read == 7
        reader.left.set()
        await reading


async def test_a_slow_viewer_is_sent_the_whole_anew_instead_of_an_endless_queue() -> None:
    names = [f"archon-{number}" for number in range(40)]
    async with opened(build(Staggered({name: 1.0 + number for number, name in enumerate(names)}))) as house:
        accepted = await house.service.submit(specification(40, limits=Limits(deadline_s=300)))
        feed, slow = live_feed(house), Viewer()
        with feed.viewing(accepted.id, slow) as broadcaster:
            await broadcaster.begun()
            assert broadcaster.next_frame(slow) is not None
            longest = 0
            for _ in range(38):
                await pass_time(1)
                longest = max(longest, len(slow.frames))
            assert longest == MOST_FRAMES
            content = broadcaster.next_frame(slow)
            state = broadcaster.state
            assert content is not None
            assert state is not None
            assert b"event: snapshot" in content
            assert content.startswith(b"id: %d\n" % state.sequence)
            assert broadcaster.next_frame(slow) is None


async def test_a_viewer_that_does_not_read_holds_up_no_other() -> None:
    async with opened(build(Staggered({name: 1.0 + n for n, name in enumerate(NAMES)}))) as house:
        accepted = await house.service.submit(specification(8))
        feed, stuck, quick = live_feed(house), Reader(), Reader()
        stuck.may_read.clear()
        waiting = asyncio.create_task(stuck.read(feed, accepted.id))
        await quick.read(feed, accepted.id)
        assert stuck.received == []
        stuck.may_read.set()
        await waiting
    assert quick.frames[-1][0] == stuck.frames[-1][0] == "ended"


async def test_with_the_last_one_leaving_nothing_is_followed_any_more() -> None:
    store = Watched()
    async with opened(build(Staggered({}), store)) as house:
        accepted = await house.service.submit(specification(2))
        feed, readers = live_feed(house), [Reader(), Reader()]
        reading = [asyncio.create_task(reader.read(feed, accepted.id)) for reader in readers]
        await pass_time(1)
        broadcaster = feed.broadcasters[accepted.id]
        readers[0].left.set()
        await reading[0]
        assert not broadcaster.is_over
        readers[1].left.set()
        await reading[1]
        await asyncio.sleep(0)
        looks = store.looks
        await pass_time(5)
        assert (broadcaster.is_over, dict(feed.broadcasters), store.looks) == (True, {}, looks)


@pytest.mark.parametrize("seed", range(3))
async def test_many_who_join_and_leave_at_once_leave_nothing_behind_and_who_stays_misses_nothing(seed: int) -> None:
    draw = random.Random(seed)
    async with opened(build(Staggered({name: 1.0 + n / 3 for n, name in enumerate(NAMES)}))) as house:
        accepted = await house.service.submit(specification(8))
        feed, places, staying = live_feed(house), StreamPlaces(300), [Reader() for _ in range(5)]

        async def pass_by() -> None:
            reader = Reader()
            await pass_time(draw.uniform(0, 4))
            reading = asyncio.create_task(reader.read(feed, accepted.id, places=places))
            await pass_time(draw.choice([0, 0, 0.01, 0.5]))
            if draw.random() < 0.3:
                reading.cancel()
            reader.left.set()
            await asyncio.gather(reading, return_exceptions=True)

        async def stay(reader: Reader) -> None:
            await pass_time(draw.uniform(0, 3))
            await reader.read(feed, accepted.id, places=places)

        await asyncio.gather(*(pass_by() for _ in range(100)), *(stay(reader) for reader in staying))
    assert (dict(feed.broadcasters), places.taken) == ({}, 0)
    assert len({reader.frames[-1][1]["html"] for reader in staying}) == 1


async def test_where_the_store_goes_away_the_stream_is_closed_and_who_comes_back_is_sent_everything() -> None:
    store = Watched()
    async with opened(build(Staggered({NAMES[0]: 2.0}), store)) as house:
        accepted = await house.service.submit(specification(2))
        feed, reader, again = live_feed(house), Reader(), Reader()
        reading = asyncio.create_task(reader.read(feed, accepted.id))
        await pass_time(1)
        store.is_away = True
        await reading
        assert reader.text.endswith(": not the end: come back\n\n")
        store.is_away = False
        coming = asyncio.create_task(again.read(feed, accepted.id))
        await pass_time(3)
        again.left.set()
        await coming
    assert again.frames[0][0] == "snapshot"
    assert again.frames[-1][1]["sequence"] > reader.frames[-1][1]["sequence"]


async def test_the_end_of_the_service_ends_every_stream_within_a_second() -> None:
    async with opened(build(Staggered({}))) as house:
        accepted = await house.service.submit(specification(2))
        feed, readers = live_feed(house), [Reader(), Reader()]
        reading = [
            asyncio.create_task(readers[0].read(feed, accepted.id)),
            asyncio.create_task(readers[1].read(feed)),
        ]
        await pass_time(3)
        stopping = asyncio.create_task(house.service.stop(drain_s=0.1))
        async with asyncio.timeout(1.2):
            await asyncio.gather(*reading)
        await stopping
    assert all(": not the end" in reader.text for reader in readers)


async def test_who_follows_the_latest_is_led_to_the_next_one_while_the_first_goes_on() -> None:
    async with opened(build(Staggered({}))) as house:
        feed, reader = live_feed(house), Reader()
        reading = asyncio.create_task(reader.read(feed))
        await pass_time(3)
        first = await house.service.submit(specification(2), key_name="ada")
        await pass_time(3)
        second = await house.service.submit(specification(3), key_name="bob")
        await pass_time(3)
        reader.left.set()
        await reading
    told = [(name, frame["deliberation_id"]) for name, frame in reader.frames if "deliberation_id" in frame]
    assert [own for name, own in told if name == "snapshot"][:1] == [first.id]
    assert ("latest", second.id) in told
    assert told[-1] == ("snapshot", second.id)
    assert not feed.broadcasters
    assert not feed.watches


async def test_who_follows_the_latest_is_not_led_to_what_another_key_asked() -> None:
    async with opened(build(Staggered({}))) as house:
        feed, reader = live_feed(house), Reader()
        reading = asyncio.create_task(reader.read(feed, sees="ada"))
        first = await house.service.submit(specification(2), key_name="ada")
        await pass_time(3)
        await house.service.submit(specification(3), key_name="bob")
        await pass_time(3)
        reader.left.set()
        await reading
    assert {frame["deliberation_id"] for _, frame in reader.frames if "deliberation_id" in frame} == {first.id}


async def test_who_follows_the_latest_stays_after_its_end_and_hears_that_the_stream_is_alive() -> None:
    async with opened(build(Canned({}))) as house:
        accepted = await house.service.submit(specification(2))
        feed, reader = live_feed(house), Reader()
        reading = asyncio.create_task(reader.read(feed))
        await pass_time(50)
        assert not reading.done()
        reader.left.set()
        await reading
    sequence = next(frame["sequence"] for name, frame in reader.frames if name == "ended")
    alive = [frame["sequence"] for name, frame in reader.frames if name == "alive"]
    assert (len(alive) >= 2, set(alive)) == (True, {sequence})
    assert accepted.id in reader.text


async def test_a_queued_deliberation_tells_its_place() -> None:
    async with opened(build(Staggered({NAMES[0]: 4.0}), max_running=1)) as house:
        await house.service.submit(specification(1))
        await pass_time(1)
        before = await house.service.submit(specification(1), key_name="ada")
        waiting = await house.service.submit(specification(1), key_name="bob")
        feed, reader = live_feed(house), Reader()
        viewer = Viewer()
        with feed.viewing(waiting.id, viewer) as broadcaster:
            assert (await broadcaster.begun()).place_in_queue == 2
            assert broadcaster.state is not None
            await pass_time(6)
            assert broadcaster.state.place_in_queue == 1
            assert broadcaster.state.shown.texts["queue"] == "Next in the queue"
        await reader.read(feed, before.id)
    assert reader.frames[-1][0] == "ended"


async def test_what_was_erased_after_its_end_is_not_shown_from_what_others_still_view() -> None:
    async with opened(build(Canned({}))) as house:
        accepted = await house.service.submit(specification(2))
        feed, staying = live_feed(house), Reader()
        reading = asyncio.create_task(staying.read(feed))
        await pass_time(10)
        held = feed.broadcasters[accepted.id]
        with feed.viewing(accepted.id, Viewer()) as anew:
            await anew.begun()
        assert held.is_over
        assert anew is not held
        staying.left.set()
        await reading
    assert not feed.broadcasters


async def test_one_that_is_not_there_is_not_found() -> None:
    async with opened(build(Canned({}))) as house:
        feed = live_feed(house)
        with feed.viewing("nobody", Viewer()) as broadcaster, pytest.raises(DeliberationNotFoundError):
            await broadcaster.begun()


async def test_one_stream_too_many_is_refused_before_it_begins() -> None:
    async with opened(build(Canned({}))) as house:
        reader, places = Reader(), StreamPlaces(1)
        with places.place(), pytest.raises(RequestRefusedError):
            await reader.read(live_feed(house), places=places)
    assert reader.received == []


@pytest.mark.parametrize("latest", [False, True])
async def test_a_reader_whose_session_ends_is_told_that_last_and_nothing_more(latest: bool) -> None:
    async with opened(build(Staggered({}))) as house:
        accepted = await house.service.submit(specification(2))
        reader = Reader()

        async def until() -> None:
            await pass_time(30)

        feed = live_feed(house)
        await reader.read(feed, None if latest else accepted.id, until=until)
    assert reader.frames[-1] == ("signed-out", {})
    assert ": not the end" not in reader.text
    assert feed.broadcasters == {}
