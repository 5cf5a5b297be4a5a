"""The folder of the bus: foreign files and links in it, a full disk, a removed or refused folder, and who may read it."""

from __future__ import annotations

import errno
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from domain.errors.bus import BusUnavailableError
from infrastructure.buses.file_bus import FileMessageBus, default_folder
from infrastructure.buses.file_folder import unavailable
from tests.integration.file_buses import files, message, opened_below
from tests.patience import PATIENCE_S


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[Callable[..., FileMessageBus]]:
    async with opened_below(tmp_path) as another:
        yield another


def test_the_default_folder_is_one_of_this_user_alone() -> None:
    assert default_folder().parent.is_dir()
    assert str(os.geteuid()) in default_folder().name


async def test_a_full_file_system_says_what_to_do_and_loses_nothing(
    opened: Callable[..., FileMessageBus], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bus = opened()
    await bus.register("sink")
    await bus.send(message(1))

    def full(file: int, data: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(BusUnavailableError) as caught:
            await bus.send(message(2))
    assert "is full" in caught.value.problem
    assert "Free space" in caught.value.remedy
    assert list((tmp_path / "bus" / "drafts").iterdir()) == []
    await bus.send(message(3))
    assert [each.payload for each in await bus.receive_many("sink", 10)] == [1, 3]


@pytest.mark.parametrize(
    "content",
    [b"", b"CBM1", b"\xff\xfe\x00 no text", b'{"type": "foreign"}', b"CBM1" + b"\0" * 200_000, b"x" * 200_000],
    ids=["empty", "cut off", "no UTF-8", "foreign", "wrong length", "huge"],
)
async def test_an_unreadable_file_in_place_of_a_message_is_counted_and_the_next_one_delivered(
    opened: Callable[..., FileMessageBus], tmp_path: Path, content: bytes
) -> None:
    bus = opened()
    await bus.register("sink")
    await bus.send_many([message(1), message(2)])
    files(tmp_path)[0].write_bytes(content)
    assert (await bus.receive("sink", timeout=PATIENCE_S)).payload == 2
    stats = await bus.stats()
    assert stats.corrupt == 1
    assert stats.queued == {"sink": 0}


async def test_a_message_changed_by_one_byte_is_not_delivered(
    opened: Callable[..., FileMessageBus], tmp_path: Path
) -> None:
    bus = opened()
    await bus.register("sink")
    await bus.send_many([message("true"), message("next")])
    path = files(tmp_path)[0]
    path.write_bytes(path.read_bytes().replace(b"true", b"trui"))
    assert (await bus.receive("sink", timeout=PATIENCE_S)).payload == "next"
    assert (await bus.stats()).corrupt == 1


async def test_a_link_or_a_folder_in_place_of_a_message_is_never_followed(
    opened: Callable[..., FileMessageBus], tmp_path: Path
) -> None:
    bus = opened()
    await bus.register("sink")
    await bus.send_many([message(n) for n in range(3)])
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(files(tmp_path)[0].read_bytes())
    first, second, _ = files(tmp_path)
    first.unlink()
    first.symlink_to(elsewhere)
    second.unlink()
    second.mkdir()
    assert (await bus.receive("sink", timeout=PATIENCE_S)).payload == 2
    assert elsewhere.exists()
    # The folder was moved aside, where it is found as foreign once more.
    assert (await bus.stats()).corrupt == 3


async def test_messages_that_somebody_removed_are_counted(
    opened: Callable[..., FileMessageBus], tmp_path: Path
) -> None:
    bus = opened()
    await bus.register("sink")
    await bus.send_many([message(n) for n in range(3)])
    for path in files(tmp_path)[:2]:
        path.unlink()
    assert (await bus.receive("sink", timeout=PATIENCE_S)).payload == 2
    await bus.send(message("after"))
    assert (await bus.receive("sink", timeout=PATIENCE_S)).payload == "after"
    stats = await bus.stats()
    assert stats.corrupt == 2
    assert stats.queued == {"sink": 0}


async def test_foreign_files_are_counted_and_left_where_they_are(
    opened: Callable[..., FileMessageBus], tmp_path: Path
) -> None:
    bus = opened()
    await bus.register("sink")
    folder = tmp_path / "bus"
    planted = [folder / "notes.txt", folder / "messages" / "coordination-7.json", folder / "replies" / "\udcff"]
    for path in planted:
        path.write_bytes(b"\xff")
    (folder / "messages" / "link").symlink_to("/")
    await bus.send(message(1))
    assert (await bus.receive("sink", timeout=PATIENCE_S)).payload == 1
    assert (await bus.stats()).corrupt == 4
    assert all(path.exists() for path in planted)


async def test_a_link_planted_where_the_next_message_goes_is_replaced_and_not_written_through(
    opened: Callable[..., FileMessageBus], tmp_path: Path
) -> None:
    bus = opened()
    await bus.register("sink")
    await bus.send(message(1))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(b"mine")
    place = files(tmp_path)[0]
    next_place = place.with_name(place.name[:-1] + "1")
    next_place.symlink_to(elsewhere)
    await bus.send(message(2))
    assert elsewhere.read_bytes() == b"mine"
    assert [each.payload for each in await bus.receive_many("sink", 10)] == [1, 2]


@pytest.mark.parametrize("name", ["", "messages", "state", "lock"])
async def test_a_link_in_place_of_the_folder_or_a_part_of_it_is_refused(tmp_path: Path, name: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    if name in ("", "messages"):
        elsewhere.mkdir()
    else:
        elsewhere.write_bytes(b"")
    if name:
        (tmp_path / "bus").mkdir()
    (tmp_path / "bus" / name).symlink_to(elsewhere)
    bus = FileMessageBus(tmp_path / "bus")
    with pytest.raises(BusUnavailableError) as caught:
        await bus.register("sink")
    assert str(tmp_path / "bus") in str(caught.value)
    await bus.close()


async def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bus").mkdir()
    (tmp_path / "bus" / "state").write_text("a state of another kind")
    bus = FileMessageBus(tmp_path / "bus")
    with pytest.raises(BusUnavailableError):
        await bus.register("sink")
    await bus.close()


async def test_a_removed_folder_ends_the_bus_with_an_answer(
    opened: Callable[..., FileMessageBus], tmp_path: Path
) -> None:
    bus = opened()
    await bus.register("sink")
    (tmp_path / "bus" / "lock").unlink()
    with pytest.raises(BusUnavailableError) as caught:
        await bus.send(message(1))
    assert "removed" in caught.value.problem


async def test_everything_in_the_folder_is_for_this_user_alone(
    opened: Callable[..., FileMessageBus], tmp_path: Path
) -> None:
    bus = opened()
    await bus.register("sink")
    await bus.send(message(1, id="given"))
    found = [tmp_path / "bus", *(tmp_path / "bus").rglob("*")]
    assert [path for path in found if path.stat().st_mode & 0o077] == []


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "Free space there"),
        (errno.EDQUOT, "Free space there"),
        (errno.EACCES, "Give this user the rights"),
        (errno.EMFILE, "ulimit -n"),
        (errno.ESTALE, "still there"),
    ],
)
def test_whatever_fails_in_the_folder_is_told_with_a_remedy(number: int, remedy: str, tmp_path: Path) -> None:
    told_as = unavailable(tmp_path, OSError(number, os.strerror(number)))
    assert remedy in told_as.remedy
    assert str(tmp_path) in told_as.problem
