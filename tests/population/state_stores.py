"""The stores of states, each as a place on which tests open as many objects as they like, and batches to write to them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest

from application.ports.state_store import StateBatch, StateStore
from infrastructure.population.tiers.lmdb_cold import LmdbCold
from infrastructure.population.tiers.lz4_slab import Lz4Slab
from infrastructure.population.tiers.redis_warm import RedisWarm
from infrastructure.population.tiers.shared_slots import SharedSlots
from infrastructure.population.tiers.sqlite_log import SqliteLog
from infrastructure.stubs.in_memory_state_store import InMemoryStateStore

__all__ = [
    "BOUNDED",
    "CACHES",
    "DURABLE",
    "KEYS",
    "ROOM",
    "SIZE",
    "STORES",
    "StorePlace",
    "batch",
    "opened_place",
    "state",
]

SIZE = 256
KEYS = 1_000
ROOM = 600
"""How many states those take that are bounded."""


@dataclass
class StorePlace:
    """Where one store lives: `open` gives one more object on it, or the only one where there can be no other."""

    name: str
    open: Callable[[], StateStore]
    # Whether two objects on it are two, as another process would have them.
    shared: bool = False


Factory = Callable[[pytest.FixtureRequest, Path], StorePlace]


def _once(store: StateStore, name: str) -> StorePlace:
    return StorePlace(name, lambda: store)


def _memory(_request: pytest.FixtureRequest, _folder: Path) -> StorePlace:
    return _once(InMemoryStateStore(size=SIZE, most=ROOM), "memory")


def _shared(_request: pytest.FixtureRequest, _folder: Path) -> StorePlace:
    return _once(SharedSlots(keys=KEYS, slots=ROOM, size=SIZE), "shared")


def _lz4(_request: pytest.FixtureRequest, _folder: Path) -> StorePlace:
    return _once(Lz4Slab(keys=KEYS, slots=ROOM, size=SIZE), "lz4")


def _redis(request: pytest.FixtureRequest, folder: Path) -> StorePlace:
    url: str = request.getfixturevalue("redis_url")
    return StorePlace("redis", lambda: RedisWarm(url, f"states-{folder.name}", size=SIZE), shared=True)


def _sqlite(_request: pytest.FixtureRequest, folder: Path) -> StorePlace:
    store = SqliteLog(folder / "states.sqlite", keys=KEYS, size=SIZE)
    store.begin()
    return _once(store, "sqlite")


def _lmdb(_request: pytest.FixtureRequest, folder: Path) -> StorePlace:
    store = LmdbCold(folder / "states.lmdb", keys=KEYS, size=SIZE)
    store.begin()
    return _once(store, "lmdb")


# Each adapter adds its line.
STORES: dict[str, Factory] = {
    "memory": _memory,
    "shared": _shared,
    "lz4": _lz4,
    "redis": _redis,
    "sqlite": _sqlite,
    "lmdb": _lmdb,
}
CACHES = ("memory", "shared", "lz4", "redis")
BOUNDED = ("memory", "shared", "lz4")
DURABLE = ("sqlite", "lmdb")


@contextmanager
def opened_place(place: StorePlace) -> Iterator[StorePlace]:
    """That place, all of whose objects are closed at its end."""
    opened: list[StateStore] = []

    def another() -> StateStore:
        opened.append(place.open())
        return opened[-1]

    try:
        yield StorePlace(place.name, another, shared=place.shared)
    finally:
        for store in opened:
            store.close()


def state(key: int, version: int, *, size: int = SIZE) -> bytes:
    """A state that no other key and version has; half of it cannot be compressed."""
    return Random(key * 1_000_003 + version).randbytes(size // 2) + bytes(size - size // 2)


def batch(
    keys: Sequence[int], *, expected: int | Sequence[int] = 0, tick: int = 1, size: int = SIZE, by: int = 1
) -> StateBatch:
    """The versions that follow the expected ones for these keys."""
    before = [expected] * len(keys) if isinstance(expected, int) else list(expected)
    versions = [version + by for version in before]
    states = b"".join(state(key, version, size=size) for key, version in zip(keys, versions, strict=True))
    return StateBatch(tick, list(keys), before, versions, states)
