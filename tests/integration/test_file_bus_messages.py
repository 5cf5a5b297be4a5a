"""Messages of the bus in a folder: requests, redelivery, expiry, remembered ids, dead letters and history over several objects."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from application.ports.message_bus import Message, MessageHeader, Priority
from domain.errors.bus import BusClosedError, InvalidMessageError, RequestTimeoutError, UnknownAgentError
from infrastructure.buses.file_bus import FileMessageBus
from infrastructure.buses.file_folder import BusFolder
from infrastructure.buses.file_ids import KnownIds
from tests.integration.file_buses import FOREVER, message, opened_below
from tests.patience import PATIENCE_S


class Steady:
    """A clock that stands still until it is told to go on."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[Callable[..., FileMessageBus]]:
    async with opened_below(tmp_path) as another:
        yield another


async def test_a_jump_of_the_wall_clock_neither_redelivers_nor_reorders(opened: Callable[..., FileMessageBus]) -> None:
    wall, steady = Steady(), Steady()
    bus = opened(wall_clock=wall, steady_clock=steady)
    await bus.register("sink", acknowledge="manual")
    await bus.send(message(1))
    await bus.receive("sink")
    for jump in (86_400.0, -172_800.0):
        wall.now += jump
        await bus.send(message(jump))
    assert [each.payload for each in await bus.receive_many("sink", 10)] == [86_400.0, -172_800.0]
    assert (await bus.stats()).redelivered == 0


async def test_a_reply_to_a_requester_that_was_closed_is_late(opened: Callable[..., FileMessageBus]) -> None:
    bus, other = opened(), opened()
    await bus.register("sink")
    await other.register("asker")
    asking = asyncio.create_task(other.request(Message("asker", "sink", "q"), timeout=FOREVER))
    request = await bus.receive("sink", timeout=PATIENCE_S)
    await other.close()
    with pytest.raises(BusClosedError):
        await asking
    await bus.reply(request)
    assert (await bus.stats()).late_replies == 1


async def test_two_objects_cannot_have_one_correlation_id_in_flight(opened: Callable[..., FileMessageBus]) -> None:
    bus, other = opened(), opened()
    await bus.register("first")
    await other.register("second")
    await other.register("sink")
    asking = asyncio.create_task(bus.request(Message("first", "sink", "q", correlation_id="c"), timeout=FOREVER))
    await other.receive("sink", timeout=PATIENCE_S)
    with pytest.raises(InvalidMessageError):
        await other.request(Message("second", "sink", "q", correlation_id="c"))
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking


async def test_a_request_that_timed_out_leaves_nothing_behind(
    opened: Callable[..., FileMessageBus], tmp_path: Path
) -> None:
    bus = opened()
    await bus.register("asker")
    await bus.register("sink")
    with pytest.raises(RequestTimeoutError):
        await bus.request(Message("asker", "sink", "q"), timeout=0.01)
    assert list((tmp_path / "bus" / "requests").iterdir()) == []
    assert list((tmp_path / "bus" / "drafts").iterdir()) == []


async def test_the_next_owner_may_acknowledge_what_the_last_one_had_in_hand(
    opened: Callable[..., FileMessageBus],
) -> None:
    bus, other = opened(), opened()
    await bus.register("sink", acknowledge="manual")
    await bus.send_many([message(1, id="one"), message(2, id="two")])
    assert [each.id for each in await bus.receive_many("sink", 10)] == ["one", "two"]
    await bus.close()
    await other.register("sink", acknowledge="manual")
    assert await other.acknowledge("sink", "one", "unknown") == 1
    again = await other.receive_many("sink", 10, timeout=PATIENCE_S)
    assert [(each.id, each.attempt) for each in again] == [("two", 2)]


async def test_what_a_dead_owner_had_in_hand_for_the_last_time_is_buried(opened: Callable[..., FileMessageBus]) -> None:
    bus, other = opened(max_attempts=1), opened(max_attempts=1)
    await bus.register("sink", acknowledge="manual")
    await bus.send_many([message(1), message(2)])
    await bus.receive("sink")
    await bus.close()
    await other.register("sink", acknowledge="manual")
    assert [(each.message.payload, each.reason) for each in await other.dead_letters()] == [(1, "attempts")]
    assert (await other.receive("sink", timeout=PATIENCE_S)).payload == 2


async def test_what_is_due_again_comes_before_the_rest_of_its_priority_and_dies_after_its_attempts(
    opened: Callable[..., FileMessageBus],
) -> None:
    clock = Steady()
    bus = opened(steady_clock=clock, max_attempts=2)
    await bus.register("sink", acknowledge="manual")
    await bus.send(message("low", priority=Priority.LOW))
    await bus.receive("sink")
    await bus.send_many([message("later", priority=Priority.LOW), message("high", priority=Priority.HIGH)])
    clock.now += 31.0
    taken = await bus.receive_many("sink", 10)
    assert [(each.payload, each.attempt) for each in taken] == [("high", 1), ("low", 2), ("later", 1)]
    clock.now += 31.0
    assert [each.message.payload for each in await bus.dead_letters()] == ["low"]
    assert (await bus.dead_letters())[0].attempts == 2
    assert (await bus.stats()).queued == {"sink": 2}


async def test_after_a_restart_of_the_machine_what_was_unacknowledged_is_due_at_once(
    opened: Callable[..., FileMessageBus], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = opened()
    await first.register("sink", acknowledge="manual")
    await first.send(message(1))
    await first.receive("sink")
    await first.close()
    monkeypatch.setattr("infrastructure.buses.file_session.machine_boot", lambda: 7)
    second = opened(steady_clock=lambda: 1.0)
    await second.register("sink", acknowledge="manual")
    again = await second.receive("sink", timeout=PATIENCE_S)
    assert (again.payload, again.attempt) == (1, 2)


async def test_an_expired_message_in_the_middle_of_a_line_is_buried_when_somebody_asks(
    opened: Callable[..., FileMessageBus],
) -> None:
    wall = Steady()
    bus = opened(wall_clock=wall)
    await bus.register("sink")
    await bus.send_many([message(1), message(2, expires_at=wall.now + 5), message(3)])
    wall.now += 6
    stats = await bus.stats()
    assert (stats.expired, stats.queued) == (1, {"sink": 2})
    wall.now -= 1_000
    assert [each.payload for each in await bus.receive_many("sink", 10)] == [1, 3]
    assert [each.reason for each in await bus.dead_letters("sink")] == ["expired"]


async def test_an_id_is_known_to_every_object_and_after_a_restart(opened: Callable[..., FileMessageBus]) -> None:
    bus, other = opened(), opened()
    await bus.register("sink")
    await bus.send(message(1, id="same"))
    await other.send(message(2, id="same"))
    await bus.close()
    await opened().send(message(3, id="same"))
    stats = await other.stats()
    assert (stats.sent, stats.duplicates, stats.queued) == (1, 2, {"sink": 1})


async def test_ids_are_forgotten_by_generations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infrastructure.buses.file_ids.REMEMBERED_IDS", 3)
    folder = BusFolder(tmp_path / "bus")
    folder.open()
    try:
        words = folder.words("inboxes.0", 32, is_known=False)
        writer, reader = KnownIds(0), KnownIds(0)
        for number in range(7):
            assert not writer.knows(folder, words, str(number))
            writer.write(folder, str(number))
            writer.commit(folder, words, str(number))
            assert reader.knows(folder, words, str(number))
        known = [number for number in range(7) if KnownIds(0).knows(folder, words, str(number))]
        assert known == [3, 4, 5, 6]
        assert [number for number in range(7) if reader.knows(folder, words, str(number))] == known
        words.release()
    finally:
        folder.close()


async def test_the_oldest_dead_letter_makes_room_for_the_newest(
    opened: Callable[..., FileMessageBus], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("infrastructure.buses.file_letters.MAX_DEAD_LETTERS", 3)
    monkeypatch.setattr("infrastructure.buses.file_bus.MAX_DEAD_LETTERS", 3)
    bus = opened()
    for number in range(5):
        with pytest.raises(UnknownAgentError):
            await bus.send(message(number, to="nobody"))
    assert [each.message.payload for each in await bus.dead_letters()] == [2, 3, 4]
    assert len(list((tmp_path / "bus" / "letters").iterdir())) == 3
    assert (await bus.stats()).dead_letters == 5


async def test_a_duplicate_to_everybody_is_no_history(opened: Callable[..., FileMessageBus]) -> None:
    bus = opened()
    for name in ("b", "c"):
        await bus.register(name)
        await bus.join(name, "group")
    for _ in range(2):
        await bus.broadcast(Message("a", "", "note", id="same"))
    await bus.send(Message("a", "group", "note", id="same"))
    await bus.send(Message("b", "group", "note", id="news"))
    assert [header.id for header in await bus.history()] == ["same", "news"]


async def test_history_holds_what_this_object_sent(opened: Callable[..., FileMessageBus]) -> None:
    bus = opened(keep_payloads=True)
    await bus.register("sink")
    sent = await bus.send(message("text"))
    found = await bus.history()
    assert [(each.id, each.payload) for each in found] == [(sent, "text")]
    assert isinstance(found[0], MessageHeader)
