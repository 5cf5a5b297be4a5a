"""The states of agents, held against every adapter: what was written is read, and nobody overwrites what he has not seen."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from application.ports.state_store import StateBatch, StateCache, StateRecord, StateStore
from domain.errors.population import StateConflictError, StateStoreFullError
from tests.population.state_stores import (
    BOUNDED,
    CACHES,
    KEYS,
    ROOM,
    SIZE,
    STORES,
    StorePlace,
    batch,
    opened_place,
    state,
)


@pytest.fixture(params=sorted(STORES))
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StorePlace]:
    """Each adapter in turn, empty."""
    with opened_place(STORES[request.param](request, tmp_path)) as empty:
        yield empty


@pytest.fixture
def store(place: StorePlace) -> StateStore:
    """One object on it."""
    return place.open()


@pytest.fixture(params=CACHES)
def cache(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StateCache]:
    """Each adapter that may forget, empty."""
    with opened_place(STORES[request.param](request, tmp_path)) as empty:
        yield empty.open()  # type: ignore[misc]


def test_what_was_written_is_read_in_the_order_that_was_asked_for(store: StateStore) -> None:
    store.write(batch([5, 3, KEYS - 1]))
    assert list(store.read([3, KEYS - 1, 5])) == [StateRecord(1, state(key, 1)) for key in (3, KEYS - 1, 5)]


def test_what_nobody_wrote_is_none(store: StateStore) -> None:
    store.write(batch([1]))
    assert list(store.read([0, 1, 2])) == [None, StateRecord(1, state(1, 1)), None]
    assert list(store.read([])) == []


def test_a_next_version_takes_the_place_of_the_last_one(store: StateStore) -> None:
    store.write(batch([1, 2]))
    store.write(batch([2], expected=1, tick=2))
    store.write(batch([2, 1], expected=[2, 1], tick=3))
    assert list(store.read([1, 2])) == [StateRecord(2, state(1, 2)), StateRecord(3, state(2, 3))]


def test_versions_may_skip_some(store: StateStore) -> None:
    store.write(batch([1], by=7))
    store.write(batch([1], expected=7, by=3, tick=2))
    assert list(store.read([1])) == [StateRecord(10, state(1, 10))]


@pytest.mark.parametrize("expected", [0, 1, 3])
def test_a_writer_that_expects_another_version_is_told_and_writes_nothing(store: StateStore, expected: int) -> None:
    store.write(batch([1, 2]))
    store.write(batch([2], expected=1, tick=2))
    with pytest.raises(StateConflictError) as caught:
        store.write(batch([3, 2, 1], expected=[0, expected, 1], tick=3))
    assert (caught.value.agent, caught.value.expected, caught.value.found) == (2, expected, 2)
    assert list(store.read([1, 2, 3])) == [StateRecord(1, state(1, 1)), StateRecord(2, state(2, 2)), None]


def test_a_writer_that_expects_what_is_not_there_is_told(store: StateStore) -> None:
    with pytest.raises(StateConflictError) as caught:
        store.write(batch([9], expected=4))
    assert (caught.value.expected, caught.value.found) == (4, 0)
    assert list(store.read([9])) == [None]


def test_of_twenty_writers_of_one_version_one_wins(place: StorePlace) -> None:
    stores = [place.open() for _ in range(4)]
    stores[0].write(batch([7]))
    begin = threading.Barrier(20)

    lost: list[tuple[int, int, int]] = []

    def write(number: int) -> int | None:
        mine = StateBatch(2, [7, 100 + number], [1, 0], [2, 1], bytes([number]) * SIZE + state(100 + number, 1))
        begin.wait()
        try:
            stores[number % 4].write(mine)
        except StateConflictError as error:
            lost.append((error.agent, error.expected, error.found))
            return None
        return number

    with ThreadPoolExecutor(20) as threads:
        won = [number for number in threads.map(write, range(20)) if number is not None]

    assert len(won) == 1
    assert lost == [(7, 1, 2)] * 19
    assert list(stores[1].read([7])) == [StateRecord(2, bytes(won) * SIZE)]
    # What came in one batch with the loser's is not there either.
    others = list(stores[2].read(range(100, 120)))
    assert [number for number, record in enumerate(others) if record is not None] == won


def test_writers_that_read_again_after_a_conflict_lose_nothing(place: StorePlace) -> None:
    stores = [place.open() for _ in range(4)]
    stores[0].write(StateBatch(1, [3], [0], [1], bytes(SIZE)))

    def count(number: int) -> None:
        store = stores[number]
        for _ in range(10):
            while True:
                (record,) = store.read([3])
                assert record is not None
                value = int.from_bytes(record.state[:8], "little") + 1
                mine = value.to_bytes(8, "little") + bytes(SIZE - 8)
                try:
                    store.write(StateBatch(2, [3], [record.version], [record.version + 1], mine))
                except StateConflictError:
                    continue
                break

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(count, range(4)))

    (record,) = stores[0].read([3])
    assert record is not None
    assert (record.version, int.from_bytes(record.state[:8], "little")) == (41, 40)


def test_a_batch_whose_fields_do_not_go_together_is_refused(store: StateStore) -> None:
    for wrong in (
        StateBatch(1, [1, 2], [0, 0], [1, 1], bytes(SIZE)),
        StateBatch(1, [1], [0], [1, 1], bytes(SIZE)),
        StateBatch(1, [1], [0, 0], [1], bytes(SIZE)),
        StateBatch(1, [1], [2], [2], bytes(SIZE)),
    ):
        with pytest.raises(ValueError, match=r"a batch of|a version follows"):
            store.write(wrong)
    assert list(store.read([1, 2])) == [None, None]


def test_many_states_come_back_as_they_are(store: StateStore) -> None:
    keys = list(range(0, KEYS, 2))
    for start in range(0, len(keys), 100):
        store.write(batch(keys[start : start + 100]))
    for start in range(0, len(keys), 90):
        store.write(batch(keys[start : start + 90], expected=1, tick=2))
    assert list(store.read(keys)) == [StateRecord(2, state(key, 2)) for key in keys]


def test_states_that_cannot_be_compressed_and_empty_ones_come_back(store: StateStore) -> None:
    noise = bytes((number * number * 7 + number * 13 + (number >> 3) * 101) & 0xFF for number in range(SIZE))
    store.write(StateBatch(1, [1, 2], [0, 0], [1, 1], noise + bytes(SIZE)))
    store.write(StateBatch(2, [1, 2], [1, 1], [2, 2], bytes(SIZE) + noise))
    assert list(store.read([1, 2])) == [StateRecord(2, bytes(SIZE)), StateRecord(2, noise)]


def test_what_was_dropped_is_not_there_and_may_come_again(cache: StateCache) -> None:
    cache.write(batch([1, 2, 3]))
    cache.drop([1, 3, 4])
    assert [record is None for record in cache.read([1, 2, 3])] == [True, False, True]
    cache.write(batch([1], by=5))
    assert list(cache.read([1])) == [StateRecord(5, state(1, 5))]


@pytest.mark.parametrize("name", BOUNDED)
def test_one_state_too_many_is_refused_with_its_batch(
    name: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    with opened_place(STORES[name](request, tmp_path)) as empty:
        store: StateCache = empty.open()  # type: ignore[assignment]
        store.write(batch(range(ROOM)))
        with pytest.raises(StateStoreFullError) as caught:
            store.write(batch([0, ROOM], expected=[1, 0], tick=2))
        assert (caught.value.wanted, caught.value.free) == (1, 0)
        assert list(store.read([0, ROOM])) == [StateRecord(1, state(0, 1)), None]
        store.drop([5])
        store.write(batch([ROOM]))
        assert list(store.read([ROOM])) == [StateRecord(1, state(ROOM, 1))]


def test_a_store_may_be_closed_twice(place: StorePlace) -> None:
    store = place.open()
    store.close()
    store.close()
