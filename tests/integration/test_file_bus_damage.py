"""What a file bus makes of tables that somebody cut off or wrote over: words with a remedy, and never the end of the process."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from random import Random

import pytest

from domain.errors.bus import BusError, BusUnavailableError
from infrastructure.buses.file_bus import FileMessageBus
from tests.integration.contracts.bus_talk import settle
from tests.integration.contracts.buses import PATIENCE_S
from tests.integration.file_buses import message, opened_below

TABLES = ("state", "inboxes.0", "registry.0", "dead")
_WORD = 8


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[Callable[..., FileMessageBus]]:
    async with opened_below(tmp_path) as another:
        yield another


@pytest.fixture
async def used(opened: Callable[..., FileMessageBus]) -> FileMessageBus:
    """A bus with an inbox of five messages, one of them in hand, another inbox, a group and a dead letter."""
    bus = opened()
    await bus.register("sink", acknowledge="manual")
    await bus.register("other")
    await bus.join("other", "group")
    for number in range(5):
        await bus.send(message(number, id=f"id-{number}"))
    await bus.receive("sink", timeout=0)
    with pytest.raises(BusError):
        await bus.send(message("lost", to="nobody"))
    return bus


def cut_off(table: Path) -> None:
    os.truncate(table, 0)


def halve(table: Path) -> None:
    os.truncate(table, table.stat().st_size // 2)


def write_over(seed: int) -> Callable[[Path], None]:
    def write(table: Path) -> None:
        size = min(table.stat().st_size, 4_096)
        with table.open("r+b") as file:
            file.write(Random(seed).randbytes(size))

    write.__name__ = f"write_over_{seed}"
    return write


def write_large(table: Path) -> None:
    """Numbers that could be counts, all but those by which a table is known."""
    size = min(table.stat().st_size, 4_096)
    with table.open("r+b") as file:
        file.seek(3 * _WORD)
        file.write(Random(1).randbytes(5).ljust(_WORD, b"\0") * (size // _WORD - 3))


HARMS = (cut_off, halve, write_over(1), write_over(2), write_over(3), write_large)


async def outcomes(bus: FileMessageBus) -> list[object]:
    """What came of each kind of call: what it returned, or the error of the bus that it raised."""
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: bus.register("new", acknowledge="manual"),
        lambda: bus.register("sink", acknowledge="manual"),
        lambda: bus.send(message(99), timeout=0),
        lambda: bus.send(message(99, to="group", id="given"), timeout=0),
        lambda: bus.send_many([message(1), message(2, to="other")]),
        lambda: bus.receive_many("sink", 10, timeout=0),
        lambda: bus.acknowledge("sink", "id-0", "id-1"),
        lambda: bus.send(message("lost", to="nobody")),
        lambda: bus.broadcast(message(1)),
        lambda: bus.request(message(1), timeout=0),
        lambda: bus.leave("other", "group"),
        bus.stats,
        bus.dead_letters,
        lambda: bus.unregister("sink"),
    ]
    found: list[object] = []
    for call in calls:
        try:
            found.append(await asyncio.wait_for(call(), PATIENCE_S))
        except BusError as error:
            found.append(error)
    return found


@pytest.mark.parametrize("harm", HARMS, ids=lambda harm: harm.__name__)
@pytest.mark.parametrize("table", TABLES)
async def test_an_open_bus_whose_table_is_damaged_says_so_and_nothing_worse(
    used: FileMessageBus, tmp_path: Path, table: str, harm: Callable[[Path], None]
) -> None:
    harm(tmp_path / "bus" / table)
    assert await outcomes(used)
    await used.close()


@pytest.mark.parametrize("harm", HARMS, ids=lambda harm: harm.__name__)
@pytest.mark.parametrize("table", TABLES)
async def test_a_bus_opened_on_a_damaged_table_says_so_and_nothing_worse(
    used: FileMessageBus,
    opened: Callable[..., FileMessageBus],
    tmp_path: Path,
    table: str,
    harm: Callable[[Path], None],
) -> None:
    await used.close()
    harm(tmp_path / "bus" / table)
    assert await outcomes(opened())


@pytest.mark.parametrize("table", ["state", "inboxes.0"])
@pytest.mark.parametrize("harm", [cut_off, halve], ids=lambda harm: harm.__name__)
async def test_every_call_on_a_table_that_was_cut_off_names_the_folder_and_a_remedy(
    used: FileMessageBus,
    opened: Callable[..., FileMessageBus],
    tmp_path: Path,
    table: str,
    harm: Callable[[Path], None],
) -> None:
    harm(tmp_path / "bus" / table)
    for bus in (used, opened()):
        for outcome in await outcomes(bus):
            assert isinstance(outcome, BusUnavailableError)
            assert str(tmp_path / "bus") in outcome.problem
            assert "is damaged" in outcome.problem
            assert outcome.remedy


@pytest.mark.parametrize("table", ["inboxes.0", "registry.0"])
async def test_a_table_of_other_numbers_and_texts_is_called_damaged(
    used: FileMessageBus, opened: Callable[..., FileMessageBus], tmp_path: Path, table: str
) -> None:
    await used.close()
    write_over(1)(tmp_path / "bus" / table)
    with pytest.raises(BusUnavailableError, match="is damaged"):
        await opened().receive("sink", timeout=0)


async def test_no_message_is_removed_by_a_count_that_is_none(
    used: FileMessageBus, opened: Callable[..., FileMessageBus], tmp_path: Path
) -> None:
    before = sorted(path.name for path in (tmp_path / "bus" / "messages").iterdir())
    assert before
    write_over(1)(tmp_path / "bus" / "inboxes.0")
    await outcomes(used)
    await outcomes(opened())
    after = {path.name for path in (tmp_path / "bus" / "messages").iterdir()}
    assert after >= set(before)


async def test_a_cut_off_registry_names_nobody_gone(
    used: FileMessageBus, opened: Callable[..., FileMessageBus], tmp_path: Path
) -> None:
    await used.close()
    cut_off(tmp_path / "bus" / "registry.0")
    with pytest.raises(BusUnavailableError, match="is damaged"):
        await opened().receive("sink", timeout=0)


async def test_who_waits_for_a_message_is_told_once_somebody_rings(used: FileMessageBus, tmp_path: Path) -> None:
    waiting = asyncio.create_task(used.receive("other"))
    await settle(used, waiting)
    cut_off(tmp_path / "bus" / "state")
    bell = os.open(tmp_path / "bus" / "objects" / "0.bell", os.O_WRONLY | os.O_NONBLOCK)
    os.write(bell, b"\xff\xff\xff\xff")
    os.close(bell)
    with pytest.raises(BusUnavailableError, match="is damaged"):
        await asyncio.wait_for(waiting, PATIENCE_S)


async def test_a_step_that_finds_damage_lets_the_next_object_in(
    used: FileMessageBus, opened: Callable[..., FileMessageBus], tmp_path: Path
) -> None:
    write_over(1)(tmp_path / "bus" / "inboxes.0")
    with pytest.raises(BusUnavailableError):
        await used.send(message(1), timeout=0)
    with pytest.raises(BusUnavailableError):
        await asyncio.wait_for(opened().send(message(1), timeout=0), PATIENCE_S)


async def test_many_missing_messages_are_stepped_over_at_once(used: FileMessageBus, tmp_path: Path) -> None:
    """As when an inbox that nobody reads was sent what expires for years."""
    words = used._session.registry.agents["other"].words
    await used.send(message("before", to="other"))
    words[4] += 1 << 40
    words[7] += 1
    await used.send(message("after", to="other"))
    assert [each.payload for each in await used.receive_many("other", 10, timeout=0)] == ["before", "after"]
    assert (await used.stats()).queued["other"] == 0
