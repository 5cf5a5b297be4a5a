"""What a channel of the halt promises, held against every adapter: memory, a file, a SQLite file, Postgres and Redis."""

from __future__ import annotations

import os
import socket
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from application.ports.halt_channel import HaltChannel
from domain.errors.halt import HaltChannelUnreachableError
from domain.models.halt import MAX_REASON_CHARACTERS, ChannelReading
from infrastructure.halt.file_channel import FileHaltChannel
from infrastructure.halt.redis_channel import RedisHaltChannel
from infrastructure.persistence.migrate import upgrade
from infrastructure.persistence.sql_halt_channel import SqlHaltChannel
from infrastructure.stubs.halt_channel_stub import HaltChannelStub
from tests.servers.postgres import PostgresServer
from tests.servers.redis import RedisServer

NOON = datetime(2026, 1, 1, 12, 0, 0, 123456, tzinfo=UTC)
REASONS = [
    "a drill",
    "Ölwechsel 🛑\nzweite Zeile",
    "x" * MAX_REASON_CHARACTERS,
    "'; DROP TABLE halt_state; --",
    '{"reason": 1}',
]


@dataclass(frozen=True)
class Place:
    """An adapter under test: how to open another over the same place, and how to take that place away and bring it back."""

    channel: HaltChannel
    another: Callable[[], HaltChannel]
    take_away: Callable[[], object]
    bring_back: Callable[[], object]


class _SharedStub(HaltChannelStub):
    """The stub is a place in memory, so that another over it is the same object."""


@pytest.fixture(scope="module")
def migrated(postgres_server: PostgresServer) -> Iterator[str]:
    if not postgres_server.running:
        postgres_server.start()
    name = "halt_contract"
    postgres_server.create_database(name)
    upgrade(postgres_server.url(name))
    yield name
    postgres_server.drop_database(name)


def _memory() -> Place:
    stub = _SharedStub()

    def away() -> None:
        stub.problem = "it is away"

    def back() -> None:
        stub.problem = None

    return Place(stub, lambda: stub, away, back)


def _file(folder: Path) -> Place:
    place = folder / "halting"
    place.mkdir()
    path = place / "HALT"
    elsewhere = folder / "moved"
    return Place(
        FileHaltChannel(path),
        lambda: FileHaltChannel(path),
        lambda: place.rename(elsewhere),
        lambda: elsewhere.rename(place),
    )


def _sqlite(folder: Path) -> Place:
    path, moved = folder / "conclave.db", folder / "moved.db"
    url = f"sqlite:///{path}"
    upgrade(url)
    return Place(
        SqlHaltChannel(url),
        lambda: SqlHaltChannel(url),
        lambda: path.rename(moved),
        lambda: moved.rename(path),
    )


def _postgres(server: PostgresServer, template: str) -> Place:
    name = "halt_contract_copy"
    server.create_database(name, template=template)
    url = server.url(name)

    def allow(*, connections: bool) -> None:
        with psycopg.connect(server.conninfo(), autocommit=True) as connection:
            allowed = sql.Literal(connections)
            connection.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS {}").format(sql.Identifier(name), allowed))
            if not connections:
                connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])

    return Place(
        SqlHaltChannel(url),
        lambda: SqlHaltChannel(url),
        lambda: allow(connections=False),
        lambda: allow(connections=True),
    )


@pytest.fixture(params=["memory", "file", "sqlite", "postgres", "redis"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    if request.param == "memory":
        found = _memory()
    elif request.param == "file":
        found = _file(tmp_path)
    elif request.param == "sqlite":
        found = _sqlite(tmp_path)
    elif request.param == "postgres":
        found = _postgres(request.getfixturevalue("postgres_server"), request.getfixturevalue("migrated"))
    else:
        url: str = request.getfixturevalue("redis_url")
        server: RedisServer = request.getfixturevalue("redis_server")
        found = Place(RedisHaltChannel(url), lambda: RedisHaltChannel(url), server.stop, server.start)
    opened: list[HaltChannel] = [found.channel]

    def another() -> HaltChannel:
        opened.append(found.another())
        return opened[-1]

    yield Place(found.channel, another, found.take_away, found.bring_back)
    for channel in opened:
        channel.close()
    if request.param == "postgres":
        request.getfixturevalue("postgres_server").drop_database("halt_contract_copy")


def test_it_begins_clear(place: Place) -> None:
    assert place.channel.read() == ChannelReading(halted=False)


@pytest.mark.parametrize("reason", REASONS, ids=["plain", "unicode", "long", "sql", "json"])
def test_what_was_set_is_read_by_others_until_it_is_cleared(place: Place, reason: str) -> None:
    assert place.channel.set(reason, NOON) is True
    found = place.another().read()
    assert (found.halted, found.reason) == (True, reason)
    assert found.since is not None
    assert abs(found.since - NOON) < timedelta(milliseconds=1)
    assert place.another().clear() is True
    assert place.channel.read() == ChannelReading(halted=False)


def test_one_that_is_set_stays_as_it_is(place: Place) -> None:
    place.channel.set("first", NOON)
    assert place.another().set("second", NOON + timedelta(hours=1)) is False
    assert place.channel.read().reason == "first"


def test_clearing_what_is_clear_changes_nothing(place: Place) -> None:
    assert place.channel.clear() is False
    assert place.channel.read().halted is False


def test_a_place_that_is_away_says_so_to_every_call_and_is_the_same_when_it_is_back(place: Place) -> None:
    place.channel.set("a drill", NOON)
    place.take_away()
    try:
        for call in (
            place.channel.read,
            place.channel.clear,
            lambda: place.channel.set("again", NOON),
            place.another().read,
        ):
            with pytest.raises(HaltChannelUnreachableError) as caught:
                call()
            assert caught.value.channel == place.channel.name
            assert "127.0.0.1" not in str(caught.value)
            assert "/" not in caught.value.problem
    finally:
        place.bring_back()
    assert place.channel.read().reason == "a drill"
    assert place.channel.clear() is True


def test_closed_it_is_opened_by_the_next_call(place: Place) -> None:
    place.channel.set("a drill", NOON)
    place.channel.close()
    place.channel.close()
    assert place.channel.read().reason == "a drill"


def test_of_twenty_that_set_it_one_does_and_all_see_that_one(place: Place) -> None:
    together = threading.Barrier(20)
    channels = [place.another() for _ in range(4)]

    def work(number: int) -> tuple[int, bool]:
        together.wait(10)
        return number, channels[number % 4].set(f"reason {number}", NOON)

    with ThreadPoolExecutor(20) as threads:
        found = list(threads.map(work, range(20)))
    winners = [number for number, won in found if won]
    assert len(winners) == 1
    assert place.channel.read().reason == f"reason {winners[0]}"


def test_whoever_reads_while_others_set_and_clear_sees_whole_halts_alone(place: Place) -> None:
    reasons = {f"{letter}" * 900 for letter in "abcd"}
    ending = threading.Event()
    channels = [place.another() for _ in range(3)]
    changes: list[bool] = []
    seen: list[ChannelReading] = []

    def change(letter: str, channel: HaltChannel) -> None:
        for _ in range(15):
            changes.append(channel.set(letter * 900, NOON))
            channel.clear()

    def look() -> None:
        while not ending.is_set():
            seen.append(channels[2].read())

    with ThreadPoolExecutor(6) as threads:
        looking = [threads.submit(look) for _ in range(2)]
        changing = [threads.submit(change, letter, channels[place]) for place, letter in enumerate("ab")]
        for each in changing:
            each.result(60)
        ending.set()
        for each in looking:
            each.result(60)
    assert any(changes)
    assert {found.reason for found in seen} <= {*reasons, None}
    assert all(found.reason is not None for found in seen if found.halted)
    assert place.channel.read().halted is False


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


def test_a_missing_row_is_a_channel_away_and_is_not_made(tmp_path: Path) -> None:
    place = _sqlite(tmp_path)
    with closing(sqlite3.connect(tmp_path / "conclave.db")) as connection:
        connection.execute("DELETE FROM halt_state")
        connection.commit()
    for call in (place.channel.read, place.channel.clear, lambda: place.channel.set("a drill", NOON)):
        with pytest.raises(HaltChannelUnreachableError, match="the row that says so is missing"):
            call()
    place.channel.close()


def test_a_database_without_the_table_is_a_channel_away(tmp_path: Path) -> None:
    sqlite3.connect(tmp_path / "conclave.db").close()
    (tmp_path / "conclave.db").touch()
    channel = SqlHaltChannel(f"sqlite:///{tmp_path}/conclave.db")
    with pytest.raises(HaltChannelUnreachableError, match="tables are missing"):
        channel.read()
    channel.close()


def test_a_missing_database_file_is_not_made(tmp_path: Path) -> None:
    channel = SqlHaltChannel(f"sqlite:///{tmp_path}/conclave.db")
    with pytest.raises(HaltChannelUnreachableError, match="its file cannot be looked at"):
        channel.read()
    assert list(tmp_path.iterdir()) == []


def test_a_database_that_was_replaced_is_read_anew(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    for folder in (first, second):
        folder.mkdir()
    place, other = _sqlite(first), _sqlite(second)
    place.channel.set("a drill", NOON)
    other.channel.close()
    for left in first.iterdir():
        left.unlink()
    (second / "conclave.db").rename(first / "conclave.db")
    assert place.channel.read().halted is False
    place.channel.close()


@pytest.mark.parametrize(
    "value", ["", "by hand", "[1]", '{"reason": 5}', '{"since": "soon"}', '{"since": "2026-01-01T12:00:00"}']
)
def test_a_key_of_any_content_halts(redis_url: str, redis_server: RedisServer, value: str) -> None:
    redis_server.command("SET", "conclave:halt", value)
    channel = RedisHaltChannel(redis_url)
    assert channel.read().halted is True
    assert channel.set("a drill", NOON) is False
    assert channel.clear() is True
    channel.close()


def test_a_key_of_another_kind_is_a_channel_away(redis_url: str, redis_server: RedisServer) -> None:
    redis_server.command("LPUSH", "conclave:halt", "x")
    channel = RedisHaltChannel(redis_url)
    with pytest.raises(HaltChannelUnreachableError, match="holds something else"):
        channel.read()
    channel.close()
