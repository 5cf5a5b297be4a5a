"""A halt in a database or in Redis where its row, its table, its file or its key is not what it should be."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from domain.errors.halt import HaltChannelUnreachableError
from infrastructure.halt.redis_channel import RedisHaltChannel
from infrastructure.persistence.sql_halt_channel import SqlHaltChannel
from tests.integration.contracts.halt_places import NOON, sqlite_place
from tests.servers.redis import RedisServer


def test_a_missing_row_is_a_channel_away_and_is_not_made(tmp_path: Path) -> None:
    place = sqlite_place(tmp_path)
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
    place, other = sqlite_place(first), sqlite_place(second)
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
