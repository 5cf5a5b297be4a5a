"""What a channel of the halt promises, held against every adapter: memory, a file, a SQLite file, Postgres and Redis."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest

from application.ports.halt_channel import HaltChannel
from domain.errors.halt import HaltChannelUnreachableError
from domain.models.halt import MAX_REASON_CHARACTERS, ChannelReading
from infrastructure.halt.redis_channel import RedisHaltChannel
from infrastructure.persistence.migrate import upgrade
from tests.integration.contracts.halt_places import NOON, Place, file_place, memory_place, postgres_place, sqlite_place
from tests.servers.postgres import PostgresServer
from tests.servers.redis import RedisServer

REASONS = [
    "a drill",
    "Ölwechsel 🛑\nzweite Zeile",
    "x" * MAX_REASON_CHARACTERS,
    "'; DROP TABLE halt_state; --",
    '{"reason": 1}',
]


@pytest.fixture(scope="module")
def migrated(postgres_server: PostgresServer) -> Iterator[str]:
    if not postgres_server.running:
        postgres_server.start()
    name = "halt_contract"
    postgres_server.create_database(name)
    upgrade(postgres_server.url(name))
    yield name
    postgres_server.drop_database(name)


@pytest.fixture(params=["memory", "file", "sqlite", "postgres", "redis"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    if request.param == "memory":
        found = memory_place()
    elif request.param == "file":
        found = file_place(tmp_path)
    elif request.param == "sqlite":
        found = sqlite_place(tmp_path)
    elif request.param == "postgres":
        found = postgres_place(request.getfixturevalue("postgres_server"), request.getfixturevalue("migrated"))
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
