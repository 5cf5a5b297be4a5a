"""A halt that lies in a file, which any content sets, and whatever else may lie there in its place."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from domain.errors.halt import HaltChannelUnreachableError
from domain.models.halt import MAX_REASON_CHARACTERS
from infrastructure.halt.file_channel import FileHaltChannel
from tests.integration.contracts.halt_places import NOON


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "HALT"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", None),
        (b" \n\t", None),
        (b"by hand\n", "by hand"),
        (b"\xff\xfe\x00garbage", "��\N{REPLACEMENT CHARACTER}garbage"),
        (b"y" * 50_000_000, "y" * MAX_REASON_CHARACTERS),
    ],
    ids=["empty", "blank", "plain", "garbage", "huge"],
)
def test_a_file_of_any_content_halts(path: Path, content: bytes, reason: str | None) -> None:
    path.write_bytes(content)
    found = FileHaltChannel(path).read()
    assert (found.halted, found.reason) == (True, reason)


def _folder(path: Path) -> None:
    path.mkdir()


def _full_folder(path: Path) -> None:
    path.mkdir()
    (path / "x").touch()


def _dangling(path: Path) -> None:
    path.symlink_to(path.with_name("nowhere"))


def _loop(path: Path) -> None:
    path.symlink_to(path)


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path) -> None:
    with closing(socket.socket(socket.AF_UNIX)) as bound:
        bound.bind(str(path))


@pytest.mark.parametrize("put", [_folder, _full_folder, _dangling, _loop, _pipe, _socket])
def test_what_is_no_file_in_its_place_is_a_channel_away_and_is_left_alone(
    path: Path, put: Callable[[Path], None]
) -> None:
    put(path)
    channel = FileHaltChannel(path)
    for call in (channel.read, channel.clear, lambda: channel.set("a drill", NOON)):
        with pytest.raises(HaltChannelUnreachableError):
            call()
    assert path.is_symlink() or path.exists()
    assert [each.name for each in path.parent.iterdir()] == ["HALT"]


def test_a_link_to_a_file_is_read_as_that_file(path: Path) -> None:
    path.with_name("mounted").write_text("by configuration")
    path.symlink_to("mounted")
    assert FileHaltChannel(path).read().reason == "by configuration"


def test_a_missing_folder_is_a_channel_away_and_is_not_made(tmp_path: Path) -> None:
    channel = FileHaltChannel(tmp_path / "not mounted" / "HALT")
    for call in (channel.read, channel.clear, lambda: channel.set("a drill", NOON)):
        with pytest.raises(HaltChannelUnreachableError):
            call()
    assert list(tmp_path.iterdir()) == []


def test_a_file_system_without_links_takes_a_halt_too(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("os.link", refuse)
    channel = FileHaltChannel(path)
    assert channel.set("a drill", NOON) is True
    assert channel.set("another", NOON) is False
    assert channel.read().reason == "a drill"


@pytest.fixture(params=[errno.ENOSPC, errno.EDQUOT, errno.EFBIG], ids=["disk", "quota", "limit"])
def full(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A disk on which files can be made, and nothing can be written into them."""
    written: set[int] = set()
    real = os.write

    def write(file: int, content: bytes) -> int:
        # A few bytes still fit, as on a real disk.
        if file in written:
            written.discard(file)
            raise OSError(request.param, "there is no room")
        written.add(file)
        return real(file, content[:3])

    monkeypatch.setattr("os.write", write)
    return monkeypatch


@pytest.mark.usefixtures("full")
def test_a_full_disk_takes_a_halt_as_an_empty_file_and_whoever_set_it_knows_why(path: Path) -> None:
    channel = FileHaltChannel(path)
    assert channel.set("the model answers nonsense", NOON) is True
    found = channel.read()
    assert (found.halted, found.reason) == (True, "the model answers nonsense")
    assert found.since is not None
    assert abs(found.since - NOON) < timedelta(milliseconds=1)
    assert FileHaltChannel(path).read().halted is True
    assert FileHaltChannel(path).read().reason is None
    assert channel.set("another", NOON) is False
    assert [(each.name, each.stat().st_size) for each in path.parent.iterdir()] == [("HALT", 0)]
    assert channel.clear() is True
    assert channel.read().halted is False


def test_a_full_disk_without_links_takes_a_halt_too(path: Path, full: pytest.MonkeyPatch) -> None:
    made: list[int] = []

    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    def write(file: int, content: bytes) -> int:
        # The draft fits, and after it nothing does.
        if made:
            raise OSError(errno.ENOSPC, "there is no room")
        made.append(file)
        return len(content)

    full.setattr("os.link", refuse)
    full.setattr("os.write", write)
    channel = FileHaltChannel(path)
    assert channel.set("a drill", NOON) is True
    assert (channel.read().reason, path.stat().st_size) == ("a drill", 0)


@pytest.mark.usefixtures("full")
def test_the_reason_of_a_full_disk_is_not_shown_for_a_file_that_came_later(path: Path) -> None:
    channel = FileHaltChannel(path)
    channel.set("the model answers nonsense", NOON)
    path.unlink()
    path.touch()
    assert (channel.read().halted, channel.read().reason) == (True, None)


def test_a_halt_that_stands_is_not_denied_by_a_folder_without_room_to_sync(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fsync

    def fsync(file: int) -> None:
        if Path(f"/proc/self/fd/{file}").readlink() == path.parent:
            raise OSError(errno.ENOSPC, "there is no room")
        real(file)

    monkeypatch.setattr("os.fsync", fsync)
    assert FileHaltChannel(path).set("a drill", NOON) is True
    assert FileHaltChannel(path).read().reason == "a drill"


def test_a_disk_without_room_for_a_name_is_a_channel_away(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open

    def no_room(name: str | Path, flags: int, *more: int) -> int:
        if flags & os.O_CREAT:
            raise OSError(errno.ENOSPC, "there is no room")
        return real(name, flags, *more)

    monkeypatch.setattr("os.open", no_room)
    with pytest.raises(HaltChannelUnreachableError, match="no room"):
        FileHaltChannel(path).set("a drill", NOON)
    assert FileHaltChannel(path).read().halted is False


def test_the_file_is_on_the_disk_before_it_is_told(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    real = os.fsync

    def fsync(file: int) -> None:
        synced.append("folder" if Path(f"/proc/self/fd/{file}").readlink() == path.parent else "file")
        real(file)

    monkeypatch.setattr("os.fsync", fsync)
    FileHaltChannel(path).set("a drill", NOON)
    assert synced == ["file", "folder"]
    FileHaltChannel(path).clear()
    assert synced == ["file", "folder", "folder"]
