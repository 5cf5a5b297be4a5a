"""Objects of the bus in a folder that come, wait, wake each other and go, as those of several processes do."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from application.ports.message_bus import Message
from domain.errors.bus import NameTakenError, UnknownAgentError
from infrastructure.buses.file_bell import Ropes
from infrastructure.buses.file_bus import FileMessageBus
from infrastructure.buses.file_folder import BusFolder
from tests.integration.file_buses import FOREVER, message, opened_below
from tests.patience import PATIENCE_S


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[Callable[..., FileMessageBus]]:
    async with opened_below(tmp_path) as another:
        yield another


def open_below(folder: Path) -> list[str]:
    """What this process has open there."""
    found = []
    for each in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.append(str(each.readlink()))
    return [each for each in found if each.startswith(str(folder))]


async def lined_up() -> None:
    """Lets calls just begun come to where they wait."""
    for _ in range(3):
        await asyncio.sleep(0)


async def test_what_is_queued_stays_for_the_next_object(opened: Callable[..., FileMessageBus]) -> None:
    first = opened()
    await first.register("sink")
    await first.send_many([message(n) for n in range(3)])
    await first.close()
    second = opened()
    await second.register("sink")
    taken = await second.receive_many("sink", 10)
    assert [each.payload for each in taken] == [0, 1, 2]


async def test_the_name_of_a_living_object_is_taken_and_that_of_a_closed_one_is_free(
    opened: Callable[..., FileMessageBus],
) -> None:
    first, second = opened(), opened()
    await first.register("sink")
    with pytest.raises(NameTakenError):
        await second.register("sink")
    await first.close()
    await second.register("sink")


async def test_calls_that_find_the_folder_busy_have_their_turns_in_order(
    opened: Callable[..., FileMessageBus], tmp_path: Path
) -> None:
    bus = opened()
    await bus.register("sink")
    other = BusFolder(tmp_path / "bus")
    other.open()
    try:
        assert other.try_lock()
        senders = [asyncio.create_task(bus.send(message(number))) for number in range(20)]
        await lined_up()
        assert not any(sender.done() for sender in senders)
        other.unlock()
        late = asyncio.create_task(bus.send(message(20)))
        await asyncio.wait_for(asyncio.gather(*senders, late), PATIENCE_S)
    finally:
        other.close()
    assert [each.payload for each in await bus.receive_many("sink", 100)] == list(range(21))


async def test_a_call_cancelled_while_the_folder_is_busy_leaves_the_others_their_turns(
    opened: Callable[..., FileMessageBus], tmp_path: Path
) -> None:
    bus = opened()
    await bus.register("sink")
    other = BusFolder(tmp_path / "bus")
    other.open()
    try:
        assert other.try_lock()
        senders = [asyncio.create_task(bus.send(message(number))) for number in range(3)]
        await lined_up()
        for cancelled in senders[:2]:
            cancelled.cancel()
        await lined_up()
        other.unlock()
        await asyncio.wait_for(senders[2], PATIENCE_S)
    finally:
        other.close()
    assert [each.payload for each in await bus.receive_many("sink", 100)] == [2]
    assert list((tmp_path / "bus" / "drafts").iterdir()) == []


async def test_a_bus_without_pipes_looks_for_itself(
    opened: Callable[..., FileMessageBus], monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    bus, other = opened(), opened()
    with monkeypatch.context() as patch:
        patch.setattr(os, "mkfifo", unknown)
        await bus.register("sink")
    waiting = asyncio.create_task(bus.receive("sink"))
    await asyncio.sleep(0)
    await other.register("asker")
    asking = asyncio.create_task(other.request(Message("asker", "sink", "q", 1), timeout=FOREVER))
    request = await asyncio.wait_for(waiting, PATIENCE_S)
    await bus.reply(request, 2)
    assert (await asyncio.wait_for(asking, PATIENCE_S)).payload == 2


async def test_closing_an_inbox_elsewhere_wakes_everybody_who_waits_for_it(
    opened: Callable[..., FileMessageBus],
) -> None:
    owner, bus, other = opened(), opened(), opened()
    await owner.register("sink", capacity=1)
    await owner.close()
    receivers = [asyncio.create_task(bus.receive("sink")) for _ in range(3)]
    await lined_up()
    await other.unregister("sink")
    for receiver in receivers:
        with pytest.raises(UnknownAgentError):
            await asyncio.wait_for(receiver, PATIENCE_S)


async def test_who_waits_at_an_inbox_without_an_owner_is_sent_away_by_the_next_owner(
    opened: Callable[..., FileMessageBus],
) -> None:
    owner, bus, other = opened(), opened(), opened()
    await owner.register("sink")
    await owner.close()
    waiting = asyncio.create_task(bus.receive("sink"))
    await lined_up()
    await other.register("sink")
    with pytest.raises(NameTakenError):
        await asyncio.wait_for(waiting, PATIENCE_S)


async def test_room_made_elsewhere_lets_blocked_senders_in_one_by_one_and_in_order(
    opened: Callable[..., FileMessageBus],
) -> None:
    bus, other = opened(), opened()
    await bus.register("sink", capacity=1)
    await other.send(message(0))
    senders = []
    for number in range(1, 5):
        senders.append(asyncio.create_task(other.send(message(number), timeout=FOREVER)))
        await asyncio.sleep(0)
    taken = [(await bus.receive("sink", timeout=PATIENCE_S)).payload for _ in range(5)]
    await asyncio.wait_for(asyncio.gather(*senders), PATIENCE_S)
    assert taken == [0, 1, 2, 3, 4]


async def test_names_come_and_go_and_the_journal_stays_small(
    opened: Callable[..., FileMessageBus], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("infrastructure.buses.file_registry._COMPACT_ABOVE", 2_048)
    bus, other = opened(), opened()
    await other.register("stays")
    await other.join("stays", "group")
    waiting = asyncio.create_task(other.receive("stays"))
    for number in range(100):
        await bus.register(f"agent-{number}")
        await bus.unregister(f"agent-{number}")
    journals = list((tmp_path / "bus").glob("registry.*"))
    assert len(journals) == 1
    assert journals[0].stat().st_size < 4_096
    # Whoever waited before the journal was written anew is woken all the same.
    await bus.send(message("found", to="group"))
    assert (await asyncio.wait_for(waiting, PATIENCE_S)).payload == "found"


async def test_a_full_pipe_loses_no_wake_up(
    opened: Callable[..., FileMessageBus], monkeypatch: pytest.MonkeyPatch
) -> None:
    bus, other = opened(), opened()
    await bus.register("sink")
    waiting = asyncio.create_task(bus.receive("sink"))
    # It lines up before anything is sent.
    await lined_up()
    with monkeypatch.context() as patch:
        patch.setattr(Ropes, "ring", lambda *_: False)
        await other.send(message(1))
    # The next ring that gets through has it look at everything.
    await bus.register("another")
    waiting_too = asyncio.create_task(bus.receive("another"))
    await lined_up()
    await other.send(message(2, to="another"))
    assert (await asyncio.wait_for(waiting, PATIENCE_S)).payload == 1
    assert (await asyncio.wait_for(waiting_too, PATIENCE_S)).payload == 2


async def test_whoever_takes_the_place_of_a_closed_object_is_woken_like_it(
    opened: Callable[..., FileMessageBus],
) -> None:
    # The first to close has the first place, which the next one takes.
    takers = [opened()]
    sender = opened()
    for _ in range(3):
        taker = takers.pop()
        await taker.register("sink")
        waiting = asyncio.create_task(taker.receive("sink"))
        await lined_up()
        await sender.send(message("heard"))
        assert (await asyncio.wait_for(waiting, PATIENCE_S)).payload == "heard"
        await taker.close()
        takers.append(opened())


async def test_nothing_is_open_after_close(tmp_path: Path) -> None:
    for _ in range(3):
        bus = FileMessageBus(tmp_path / "bus")
        await bus.register("sink", acknowledge="manual")
        await bus.send(message(1, id="same"))
        assert open_below(tmp_path) != []
        await bus.close()
    assert open_below(tmp_path) == []
