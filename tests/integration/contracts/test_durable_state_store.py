"""States that outlive the process, held against every adapter: reopened, rewound, tidied, damaged, and on a full disk."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from application.ports.state_store import DurableStateStore, StateBatch, StateRecord
from domain.errors.population import DamagedRecordError, PopulationFolderError
from infrastructure.population.tiers.lmdb_cold import LmdbCold
from infrastructure.population.tiers.sqlite_log import SqliteLog
from tests.population.state_stores import DURABLE, KEYS, SIZE, batch, state

Open = Callable[[], DurableStateStore]


@pytest.fixture(params=[(name, size) for name in DURABLE for size in (SIZE, 1_024)] + [("sqlite", 16_384)], ids=str)
def opener(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    """Opens one object on the same file after the other; neither begun nor rewound."""
    name, size = request.param

    def open_store() -> DurableStateStore:
        if name == "sqlite":
            return SqliteLog(tmp_path / "states.sqlite", keys=KEYS, size=size)
        return LmdbCold(tmp_path / "states.lmdb", keys=KEYS, size=size)

    return open_store


def _begun(opener: Open) -> DurableStateStore:
    store = opener()
    store.begin()
    return store


def _tidied(store: DurableStateStore) -> None:
    while store.tidy():
        pass


def _written(store: DurableStateStore, tick: int, versions: dict[int, int], keys: list[int]) -> None:
    """Write the next version of these keys, and count it."""
    store.write(batch(keys, expected=[versions.get(key, 0) for key in keys], tick=tick, size=store.size))
    for key in keys:
        versions[key] = versions.get(key, 0) + 1


def _all(store: DurableStateStore) -> dict[int, StateRecord]:
    found = store.read(range(KEYS))
    return {key: record for key, record in enumerate(found) if record is not None}


def _expected(versions: dict[int, int], size: int) -> dict[int, StateRecord]:
    return {key: StateRecord(version, state(key, version, size=size)) for key, version in versions.items()}


def test_what_was_written_is_there_when_it_is_opened_again(opener: Open) -> None:
    store = _begun(opener)
    versions: dict[int, int] = {}
    for tick in range(1, 6):
        _written(store, tick, versions, [tick, 100, 101, 200 + tick])
    store.sync()
    store.close()

    again = opener()
    again.rewind(5)
    assert _all(again) == _expected(versions, again.size)
    again.close()


def test_it_goes_back_to_a_kept_tick_and_on_from_there(opener: Open) -> None:
    store = _begun(opener)
    versions: dict[int, int] = {}
    _written(store, 1, versions, [1, 2, 3])
    _written(store, 2, versions, [2, 3])
    store.keep([2])
    then = dict(versions)
    _written(store, 3, versions, [3, 4])
    _written(store, 4, versions, [3, 1])
    store.close()

    again = opener()
    again.rewind(2)
    assert _all(again) == _expected(then, again.size)
    _written(again, 3, then, [1, 4])
    assert _all(again) == _expected(then, again.size)
    again.close()


def test_whatever_is_written_kept_and_tidied_each_kept_tick_can_be_gone_back_to(opener: Open, tmp_path: Path) -> None:
    drawn = random.Random(5)
    store = _begun(opener)
    versions: dict[int, int] = {}
    kept: dict[int, dict[int, int]] = {}
    popular = list(range(0, KEYS, 25))
    for tick in range(1, 61):
        # A few are written again and again, others once, so that records are left with little that is needed.
        keys = sorted({*drawn.sample(popular, 12), *drawn.sample(range(KEYS), 6)})
        _written(store, tick, versions, keys)
        if tick % 4 == 0:
            kept[tick] = dict(versions)
            for old in sorted(kept)[:-3]:
                del kept[old]
            store.keep(sorted(kept))
        if tick % 3 == 0:
            _tidied(store)
        assert _all(store) == _expected(versions, store.size)
    _tidied(store)
    store.close()

    for tick in sorted(kept, reverse=True):
        again = opener()
        again.rewind(tick)
        assert _all(again) == _expected(kept[tick], again.size)
        again.close()


def test_old_versions_are_let_go_of(opener: Open) -> None:
    store = _begun(opener)
    versions: dict[int, int] = {}
    _written(store, 1, versions, [900])
    for tick in range(2, 200):
        _written(store, tick, versions, [1, 2, 3, 100 + tick])
        if tick % 10 == 0:
            store.keep([tick - 10, tick])
    store.keep([199])
    _tidied(store)
    lying = [key for found in store.scan() for key in found.keys]
    assert sorted(lying) == sorted(versions)
    assert _all(store) == _expected(versions, store.size)
    store.close()


def test_a_scan_gives_every_version_with_its_tick(opener: Open) -> None:
    store = _begun(opener)
    versions: dict[int, int] = {}
    _written(store, 3, versions, [1, 2])
    store.keep([3])
    _written(store, 4, versions, [2])
    found = [
        (batch.tick, key, version, bytes(batch.states)[number * store.size : (number + 1) * store.size])
        for batch in store.scan()
        for number, (key, version) in enumerate(zip(batch.keys, batch.versions, strict=True))
    ]
    assert sorted(found) == [
        (tick, key, version, state(key, version, size=store.size))
        for tick, key, version in ((3, 1, 1), (3, 2, 1), (4, 2, 2))
    ]
    store.close()


def test_a_new_beginning_forgets_what_lies_there(opener: Open) -> None:
    store = _begun(opener)
    store.write(batch([1], size=store.size))
    store.close()
    store = _begun(opener)
    assert _all(store) == {}
    store.write(batch([1], size=store.size))
    store.close()


def test_what_is_not_there_is_not_gone_back_to(opener: Open) -> None:
    store = opener()
    with pytest.raises(DamagedRecordError, match="is not there"):
        store.rewind(1)
    assert store.close() is None  # type: ignore[func-returns-value]


def test_a_file_of_something_else_is_refused(opener: Open, tmp_path: Path) -> None:
    store = _begun(opener)
    store.write(batch([1], size=store.size))
    store.close()
    (file,) = [path for path in tmp_path.rglob("*") if path.name in {"states.sqlite", "data.mdb"}]
    file.write_bytes(b"a diary, and no states at all" * 1_000)

    again = opener()
    with pytest.raises(DamagedRecordError):
        again.rewind(1)
    again.close()


def test_a_file_that_was_cut_is_refused(opener: Open, tmp_path: Path) -> None:
    store = _begun(opener)
    for tick in range(1, 40):
        store.write(batch([10 * tick + number for number in range(10)], tick=tick, size=store.size))
    store.close()
    (file,) = [path for path in tmp_path.rglob("*") if path.name in {"states.sqlite", "data.mdb"}]
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])

    again = opener()
    with pytest.raises(DamagedRecordError):
        again.rewind(39)
    again.close()


def test_a_full_disk_is_said_and_what_was_written_before_is_kept(tmp_path: Path) -> None:
    store = SqliteLog(tmp_path / "states.sqlite", keys=KEYS, size=1_024)
    store.begin()
    # The message, the place and the moment are those of a disk without room.
    store._connected(existing=True).execute("PRAGMA max_page_count = 20")
    versions: dict[int, int] = {}

    def fill() -> None:
        for tick in range(1, 100):
            _written(store, tick, versions, [10 * (tick % 90) + number for number in range(10)])

    with pytest.raises(PopulationFolderError, match="full") as caught:
        fill()
    assert caught.value.folder == str(tmp_path)
    assert versions
    assert _all(store) == _expected(versions, 1_024)
    store.close()

    again = SqliteLog(tmp_path / "states.sqlite", keys=KEYS, size=1_024)
    again.rewind(max(versions.values(), default=0) + 100)
    assert _all(again) == _expected(versions, 1_024)
    again.close()


def test_records_have_at_most_8100_bytes_and_lie_two_on_a_page(tmp_path: Path) -> None:
    for size in (SIZE, 1_024, 8_092):
        path = tmp_path / f"{size}.sqlite"
        store = SqliteLog(path, keys=KEYS, size=size)
        store.begin()
        for start in range(0, 600, 100):
            keys = range(start, start + 100)
            store.write(StateBatch(1, keys, [0] * 100, [1] * 100, bytes(100 * size)))
        lengths = (
            store._connected(existing=True)
            .execute("SELECT max(length(body)), sum(length(body)) FROM record")
            .fetchone()
        )
        store.close()
        assert lengths[0] <= 8_100
        assert path.stat().st_size < 1.15 * lengths[1] + 65_536


def test_a_state_longer_than_a_record_lies_in_several(tmp_path: Path) -> None:
    store = SqliteLog(tmp_path / "states.sqlite", keys=KEYS, size=16_384)
    store.begin()
    store.write(batch([1, 2], size=16_384))
    rows = store._connected(existing=True).execute("SELECT length(body) FROM record").fetchall()
    assert [row[0] for row in rows] == [8_100, 8_100, 208] * 2
    assert _all(store) == _expected({1: 1, 2: 1}, 16_384)
    store.close()


def test_a_batch_of_lmdb_that_outgrows_its_map_is_written(tmp_path: Path) -> None:
    store = LmdbCold(tmp_path / "states.lmdb", keys=KEYS, size=16_384)
    store.begin()
    store._opened(existing=True).set_mapsize(1 << 20)
    keys = list(range(200))
    store.write(StateBatch(1, keys, [0] * 200, [1] * 200, bytes(200 * 16_384)))
    assert [record is not None and record.version for record in store.read(keys)] == [1] * 200
    store.close()
