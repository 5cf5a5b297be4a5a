"""Opens the stores of the tiers that a population asks for, and says what they take."""

from __future__ import annotations

import contextlib
import secrets
from contextlib import ExitStack
from pathlib import Path

from application.ports.state_store import DurableStateStore, StateCache
from domain.errors.configuration import ConfigurationError
from domain.errors.deliberation import FieldProblem
from domain.errors.dependency import DependencyUnavailableError
from domain.errors.population import InvalidPopulationError
from domain.models.population import PopulationSpecification
from infrastructure.population.tiers.lz4_slab import Lz4Slab, slab_bytes
from infrastructure.population.tiers.places import Places
from infrastructure.population.tiers.shared_slots import SharedSlots
from infrastructure.population.tiers.tiered_states import Stores
from infrastructure.redis_pool import REDIS_VARIABLE

__all__ = ["MOST_WAITING", "open_stores", "slots_of", "tier_bytes", "warm_address"]

MOST_WAITING = 128
"""States that may wait to be written to the cold tier; whoever has more waits."""

_FILE, _FOLDER = "states.sqlite", "states.lmdb"
# Of each row: places in two tiers and in the slab of the second, where it is in the cold tier, versions twice, digest, popularity.
_EACH_ROW = 4 + 4 + 4 + 8 + 4 + 4 + 8 + 8
_EACH_PLACE = 4 + 1 + 1
# Of each record of the cold tier, as Python keeps its counts.
_EACH_RECORD = 150
_RECORD_BYTES = 8_100


def slots_of(spec: PopulationSpecification) -> tuple[int, int]:
    """How many agents' states fit into the hot tier and into the warm one."""
    return max(1, spec.agents * spec.hot_percent // 100), max(1, spec.agents * spec.warm_percent // 100)


def tier_bytes(spec: PopulationSpecification) -> int:
    """The most memory that the tiers of that population take."""
    hot, warm = slots_of(spec)
    records = spec.agents // max(1, _RECORD_BYTES // (spec.state_bytes + 8)) + 1
    slab = slab_bytes(keys=0, slots=warm, size=spec.state_bytes) if spec.warm == "lz4" else 0
    return (
        spec.agents * _EACH_ROW
        + hot * (spec.state_bytes + 8 + _EACH_PLACE)
        + warm * _EACH_PLACE
        + slab
        + records * _EACH_RECORD
        + 2 * MOST_WAITING * spec.state_bytes
    )


def open_stores(spec: PopulationSpecification, folder: Path, closing: ExitStack) -> Stores:
    """The stores, of which the cold one lies in `folder` and neither was begun nor rewound; `closing` closes them.

    Raises `NotEnoughMemoryError`, `InvalidPopulationError` where a package is missing, `ConfigurationError` where no Redis is named
    and `DependencyUnavailableError` where it is away.
    """
    hot, warm = slots_of(spec)
    slots = SharedSlots(keys=spec.agents, slots=hot, size=spec.state_bytes)
    closing.callback(slots.close)
    cold = _cold(spec, folder)
    closing.callback(cold.close)
    return Stores(slots, _warm(spec, warm, closing), Places(spec.agents, warm), cold)


def _cold(spec: PopulationSpecification, folder: Path) -> DurableStateStore:
    if spec.cold == "sqlite":
        from infrastructure.population.tiers.sqlite_log import SqliteLog

        return SqliteLog(folder / _FILE, keys=spec.agents, size=spec.state_bytes)
    from infrastructure.population.tiers.lmdb_cold import LmdbCold

    try:
        return LmdbCold(folder / _FOLDER, keys=spec.agents, size=spec.state_bytes)
    except ModuleNotFoundError as error:
        problem = "'lmdb' is not installed here: install the extra `lmdb`, or leave it to sqlite"
        raise InvalidPopulationError([FieldProblem("/cold", problem)]) from error


def _warm(spec: PopulationSpecification, slots: int, closing: ExitStack) -> StateCache:
    if spec.warm == "lz4":
        slab = Lz4Slab(keys=spec.agents, slots=slots, size=spec.state_bytes)
        closing.callback(slab.close)
        return slab
    from infrastructure.population.tiers.redis_warm import RedisWarm

    address = warm_address()
    # A name of its own, since what an ended run left there is older than the cold tier.
    warm = RedisWarm(address, f"conclave:states:{secrets.token_hex(8)}", size=spec.state_bytes)
    closing.callback(warm.close)

    def forget() -> None:
        # What stays in one that is away is gone there after a day.
        with contextlib.suppress(DependencyUnavailableError):
            warm.forget()

    closing.callback(forget)
    return warm


def warm_address() -> str:
    """Where the Redis of the warm tier lies. Raises `ConfigurationError` where none is named."""
    from infrastructure.settings import load_settings

    address = load_settings().redis_url
    if address is None:
        raise ConfigurationError(
            variable=REDIS_VARIABLE,
            problem="it is not set, and the warm tier redis needs a server",
            remedy="Set it to the redis:// address of a Redis or Valkey, or leave the warm tier to lz4.",
        )
    return address
