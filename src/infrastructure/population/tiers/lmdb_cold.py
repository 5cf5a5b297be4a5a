"""The cold tier in LMDB, the extra `lmdb`: each version of a state under its key and number, on pages that are never written over."""

from __future__ import annotations

import contextlib
import shutil
import struct
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from application.ports.state_store import StateBatch, StateRecord
from domain.errors.population import DamagedRecordError, PopulationFolderError
from infrastructure.population.tiers.batches import matched, opened

__all__ = ["LmdbCold"]

# Big-endian, so that all versions of a key stand beside each other and in order.
_KEY = struct.Struct(">II")
_TICK = struct.Struct("<q")
_FIRST_BYTES = 1 << 28
_LOOKED_AT_ONCE = 512


class LmdbCold:
    """A `DurableStateStore` for keys below `keys`, of one object at a time.

    A loss of power may lose what was written since the last `sync`; a killed process loses nothing that `write` came back from.
    """

    def __init__(self, folder: Path, *, keys: int, size: int) -> None:
        import lmdb

        self._lmdb: Any = lmdb
        self.size = size
        self._folder = folder
        self._keys = keys
        self._turn = threading.RLock()
        self._environment: Any = None
        self._ticks: tuple[int, ...] = ()
        # Where `tidy` looks next; None once it has looked at all since the last `keep`.
        self._look: bytes | None = None

    def begin(self) -> None:
        """See `DurableStateStore`."""
        with self._turn, self._translated():
            self.close()
            shutil.rmtree(self._folder, ignore_errors=True)
            self._ticks, self._look = (), None
            self._opened(existing=False)

    def rewind(self, tick: int) -> None:
        """See `DurableStateStore`."""
        with self._turn, self._translated(), self._opened(existing=True).begin(write=True) as change:
            self._ticks, self._look = (tick,), None
            cursor = change.cursor()
            cursor.first()
            while cursor.key():
                if len(cursor.value()) != _TICK.size + self.size:
                    raise self._damaged("holds a record of another length")
                # The one that follows takes the place of the one that is deleted.
                forget = _TICK.unpack_from(cursor.value())[0] > tick
                cursor.delete() if forget else cursor.next()

    def scan(self) -> Iterator[StateBatch]:
        """See `DurableStateStore`."""
        with self._turn, self._translated(), self._opened(existing=True).begin() as view:
            for name, value in view.cursor():
                if len(name) != _KEY.size or len(value) != _TICK.size + self.size:
                    raise self._damaged("holds a record of another length")
                key, version = _KEY.unpack(name)
                if key >= self._keys:
                    raise self._damaged("holds states of agents that there are not")
                yield StateBatch(_TICK.unpack_from(value)[0], (key,), (0,), (version,), value[_TICK.size :])

    def read(self, keys: Sequence[int]) -> list[StateRecord | None]:
        """See `StateStore`."""
        with self._translated(), self._opened(existing=True).begin() as view:
            cursor = view.cursor()
            return [self._newest(cursor, int(key)) for key in keys]

    def write(self, batch: StateBatch) -> None:
        """See `StateStore`."""
        new = opened(batch, self.size)
        with self._turn, self._translated():
            while True:
                environment = self._opened(existing=True)
                try:
                    with environment.begin(write=True) as change:
                        cursor = change.cursor()
                        found = [self._version(cursor, key) for key in new.keys.tolist()]
                        matched(new.keys, new.expected, np.array(found, np.int64))
                        tick = _TICK.pack(new.tick)
                        for key, version, state in zip(
                            new.keys.tolist(), new.versions.tolist(), new.states, strict=True
                        ):
                            change.put(_KEY.pack(key, version), tick + state.tobytes())
                    return
                except self._lmdb.MapFullError:
                    # Nothing of it was written; the file grows by what is used of it alone.
                    environment.set_mapsize(2 * environment.info()["map_size"])

    def keep(self, ticks: Sequence[int]) -> None:
        """See `DurableStateStore`."""
        with self._turn:
            self._ticks, self._look = tuple(ticks), b""

    def tidy(self) -> bool:
        """See `DurableStateStore`."""
        with self._turn, self._translated():
            if self._look is None:
                return False
            with self._opened(existing=True).begin(write=True) as change:
                self._look = self._deleted(change.cursor(), self._look)
            return True

    def sync(self) -> None:
        """See `DurableStateStore`."""
        with self._turn, self._translated():
            self._opened(existing=True).sync(True)

    def close(self) -> None:
        """See `StateStore`."""
        with self._turn:
            if self._environment is not None:
                self._environment.close()
                self._environment = None

    def _opened(self, *, existing: bool) -> Any:
        if self._environment is None:
            if existing and not (self._folder / "data.mdb").is_file():
                raise self._damaged("is not there")
            self._folder.mkdir(parents=True, exist_ok=True)
            environment = self._lmdb.open(
                str(self._folder), map_size=_FIRST_BYTES, sync=False, metasync=False, readahead=False
            )
            # A page that the file has not got would end this process when it is looked at.
            pages = environment.info()["last_pgno"] + 1
            if existing and (self._folder / "data.mdb").stat().st_size < pages * environment.stat()["psize"]:
                environment.close()
                raise self._damaged("was cut short")
            self._environment = environment
        return self._environment

    def _deleted(self, cursor: Any, begin: bytes) -> bytes | None:
        """Delete those of the next versions that no kept tick needs; where to look next, None at the end."""
        cursor.set_range(begin) if begin else cursor.first()
        for _ in range(_LOOKED_AT_ONCE):
            name = cursor.key()
            if not name:
                return None
            first = _TICK.unpack_from(cursor.value())[0]
            if cursor.next() and cursor.key()[:4] == name[:4]:
                until = _TICK.unpack_from(cursor.value())[0]
                if not any(first <= tick < until for tick in self._ticks):
                    cursor.prev()
                    # The one that follows takes its place.
                    cursor.delete()
        return bytes(cursor.key()) or None

    def _newest(self, cursor: Any, key: int) -> StateRecord | None:
        version = self._version(cursor, key)
        return StateRecord(version, cursor.value()[_TICK.size :]) if version else None

    def _version(self, cursor: Any, key: int) -> int:
        """The newest version of that key, at which the cursor stands then; 0 where there is none."""
        found = cursor.prev() if cursor.set_range(_KEY.pack(key + 1, 0)) else cursor.last()
        if not found:
            return 0
        known, version = _KEY.unpack(cursor.key())
        return int(version) if known == key else 0

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        lmdb = self._lmdb
        try:
            yield
        except (lmdb.CorruptedError, lmdb.InvalidError, lmdb.PageNotFoundError, lmdb.VersionMismatchError) as error:
            raise self._damaged(f"is damaged ({error})") from error
        except (lmdb.Error, OSError) as error:
            raise PopulationFolderError(
                folder=str(self._folder.parent),
                problem=f"cannot take the cold states ({error})",
                remedy="Make room there or mend it, then resume: what was snapshotted before is kept.",
            ) from error

    def _damaged(self, problem: str) -> DamagedRecordError:
        return DamagedRecordError(path=str(self._folder), problem=problem, last_good_tick=0)
