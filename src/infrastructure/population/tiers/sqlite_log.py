"""The cold tier in SQLite: a log of records of at most 8,100 bytes, each with as many states as fit, two on a page."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import struct
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from application.ports.state_store import StateBatch, StateRecord
from domain.errors.population import DamagedRecordError, PopulationFolderError
from infrastructure.population.tiers.batches import Opened, matched, opened
from infrastructure.population.tiers.log_index import POSITIONS, LogIndex

__all__ = ["SqliteLog"]

_RECORD_BYTES = 8_100
# Before the states: their keys and their versions.
_EACH = 8
_PRAGMAS = (
    "journal_mode = WAL",
    "synchronous = NORMAL",
    "wal_autocheckpoint = 0",
    "journal_size_limit = 33554432",
    "mmap_size = 268435456",
)
_ROWS_AT_ONCE = 16
_BURIED_AT_ONCE = 256
_MOVED_AT_ONCE = 16
_MOST_DEAD = 65_536
_LOG_BYTES = 16 << 20
_MOST_LOG_BYTES = 256 << 20
_TRIES = 100
_NUMBER = struct.Struct("<I")
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}

Row = tuple[int, int, bytes]


class _NotFoundError(Exception):
    """The state does not stand where the index has it."""

    def __init__(self, key: int) -> None:
        super().__init__(key)
        self.key = key


class SqliteLog:
    """A `DurableStateStore` for keys below `keys`, of one object at a time. Nothing is written over: a new version is a new record.

    A loss of power may lose what was written since the last `sync`; a killed process loses nothing that `write` came back from.
    """

    def __init__(self, path: Path, *, keys: int, size: int) -> None:
        self.size = size
        self._path = path
        self._index = LogIndex(keys)
        # How many states fit into a record, or how many records one state takes.
        self._states = max(1, min(_RECORD_BYTES // (_EACH + size), POSITIONS))
        self._parts = -(-size // (_RECORD_BYTES - _EACH))
        self._next = 0
        self._in_log = 0
        self._turn = threading.RLock()
        self._reading = threading.Lock()
        self._writer: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | None = None
        self._keeper: sqlite3.Connection | None = None

    def begin(self) -> None:
        """See `DurableStateStore`."""
        with self._turn, self._translated():
            self.close()
            for name in (self._path.name, f"{self._path.name}-wal", f"{self._path.name}-shm"):
                self._path.with_name(name).unlink(missing_ok=True)
            self._index = LogIndex(self._index.place_of.size)
            self._next = self._in_log = 0
            writer = self._connected(existing=False)
            writer.execute(
                "CREATE TABLE record (number INTEGER PRIMARY KEY, tick INTEGER NOT NULL, body BLOB NOT NULL)"
            )

    def rewind(self, tick: int) -> None:
        """See `DurableStateStore`."""
        with self._turn, self._translated():
            writer = self._connected(existing=True)
            writer.execute("DELETE FROM record WHERE tick > ?", (tick,))
            found: list[tuple[NDArray[np.int64], ...]] = []
            for number, record_tick, new in self._records():
                places = number * POSITIONS + np.arange(new.keys.size)
                found.append((new.keys, new.versions, places, np.full(new.keys.size, record_tick)))
                self._next = number + self._parts
            self._index = LogIndex(self._index.place_of.size)
            if found:
                self._index.rebuild(*(np.concatenate(parts) for parts in zip(*found, strict=True)))

    def scan(self) -> Iterator[StateBatch]:
        """See `DurableStateStore`."""
        with self._translated():
            for _, tick, new in self._records():
                states = np.ascontiguousarray(new.states).reshape(-1)
                yield StateBatch(tick, new.keys.data, new.expected.data, new.versions.data, states.data)

    def read(self, keys: Sequence[int]) -> list[StateRecord | None]:
        """See `StateStore`."""
        try:
            with self._reading, self._translated():
                return [self._read(int(key)) for key in keys]
        except _NotFoundError:
            # Whoever moved it may be kept by a busy machine from saying where to. In its turn nothing moves.
            with self._turn, self._reading, self._translated():
                try:
                    return [self._read(int(key)) for key in keys]
                except _NotFoundError as error:
                    raise self._damaged(f"has not got the state of agent row {error.key}") from error

    def write(self, batch: StateBatch) -> None:
        """See `StateStore`."""
        new = opened(batch, self.size)
        with self._turn, self._translated():
            matched(new.keys, new.expected, self._index.versions[new.keys].astype(np.int64))
            if new.keys.size:
                rows, places = self._laid_out(new)
                self._commit(rows)
                self._index.add(new.keys, new.versions, places, tick=new.tick)
            if len(self._index.dead) > _MOST_DEAD:
                self._bury()
            if self._in_log > _MOST_LOG_BYTES:
                self._fold_in(self._connected(existing=True))

    def keep(self, ticks: Sequence[int]) -> None:
        """See `DurableStateStore`."""
        with self._turn:
            self._index.keep(ticks)

    def tidy(self) -> bool:
        """See `DurableStateStore`."""
        with self._turn, self._translated():
            if self._bury() or self._move():
                return True
            keeper = self._keeper
            due = self._in_log > _LOG_BYTES and keeper is not None
        # Beside whoever writes, whom SQLite does not have wait for it.
        if due and keeper is not None:
            with self._translated():
                self._fold_in(keeper)
        return due

    def sync(self) -> None:
        """See `DurableStateStore`."""
        with self._turn, self._translated():
            for name in (f"{self._path.name}-wal", self._path.name):
                with contextlib.suppress(FileNotFoundError), self._path.with_name(name).open("rb") as file:
                    os.fsync(file.fileno())

    def close(self) -> None:
        """See `StateStore`."""
        with self._turn, self._reading:
            for connection in (self._reader, self._keeper, self._writer):
                if connection is not None:
                    # The last one folds its log into the file; what a full disk has no room for stays in the log.
                    with contextlib.suppress(sqlite3.Error):
                        connection.close()
            self._reader = self._keeper = self._writer = None

    def _connected(self, *, existing: bool) -> sqlite3.Connection:
        if self._writer is not None:
            return self._writer
        if existing and not self._path.is_file():
            raise DamagedRecordError(path=str(self._path), problem="is not there", last_good_tick=0)
        found = []
        for _ in range(3):
            connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False, timeout=0.0)
            found.append(connection)
            if not existing:
                # Two records of the greatest length on a page; read before the first table is made.
                connection.execute("PRAGMA page_size = 16384")
            for pragma in _PRAGMAS:
                connection.execute(f"PRAGMA {pragma}")
        self._writer, self._reader, self._keeper = found
        return self._writer

    def _records(self) -> Iterator[tuple[int, int, Opened]]:
        """All records whole, by number, with their ticks."""
        parts: list[bytes] = []
        first = 0
        for number, tick, body in self._connected(existing=True).execute(
            "SELECT number, tick, body FROM record ORDER BY number"
        ):
            if self._parts == 1:
                yield number, tick, self._taken_apart(tick, body)
                continue
            if parts and number != first + len(parts):
                raise self._damaged(f"lacks a part of record {first}")
            first = first if parts else number
            parts.append(body[_EACH:] if parts else body)
            if len(parts) == self._parts:
                yield first, tick, self._taken_apart(tick, b"".join(parts))
                parts = []
        if parts:
            raise self._damaged(f"lacks a part of record {first}")

    def _taken_apart(self, tick: int, body: bytes) -> Opened:
        count, rest = divmod(len(body), _EACH + self.size)
        if rest or not 0 < count <= POSITIONS:
            raise self._damaged("holds a record of another length")
        head = np.frombuffer(body, "<u4", 2 * count).astype(np.int64)
        keys, versions = head[:count], head[count:]
        if np.any(keys >= self._index.place_of.size):
            raise self._damaged("holds states of agents that there are not")
        states = np.frombuffer(body, np.uint8, offset=_EACH * count).reshape(count, self.size)
        return Opened(tick, keys, np.zeros_like(keys), versions, states)

    def _laid_out(self, new: Opened) -> tuple[list[Row], NDArray[np.int64]]:
        """The records of these states, and where each state will stand."""
        rows: list[Row] = []
        places = np.empty(new.keys.size, np.int64)
        keys, versions = new.keys.astype("<u4"), new.versions.astype("<u4")
        number = self._next
        for start in range(0, new.keys.size, self._states):
            part = slice(start, start + self._states)
            places[part] = number * POSITIONS + np.arange(keys[part].size)
            head, body = keys[part].tobytes() + versions[part].tobytes(), new.states[part].tobytes()
            for begin in range(0, len(body), _RECORD_BYTES - _EACH):
                rows.append((number, new.tick, head + body[begin : begin + _RECORD_BYTES - _EACH]))
                number += 1
        return rows, places

    def _commit(self, rows: list[Row], *, gone: Sequence[int] = ()) -> None:
        writer = self._connected(existing=True)
        writer.execute("BEGIN IMMEDIATE")
        try:
            for start in range(0, len(rows), _ROWS_AT_ONCE):
                some = rows[start : start + _ROWS_AT_ONCE]
                # One statement for many, since the interpreter's lock is waited for after each.
                places = ", ".join(["(?, ?, ?)"] * len(some))
                writer.execute(
                    f"INSERT INTO record VALUES {places}",  # noqa: S608 - question marks alone
                    [value for row in some for value in row],
                )
            if gone:
                numbers = ", ".join(str(number + part) for number in gone for part in range(self._parts))
                writer.execute(f"DELETE FROM record WHERE number IN ({numbers})")  # noqa: S608 - numbers alone
            writer.execute("COMMIT")
        except BaseException:
            if writer.in_transaction:
                with contextlib.suppress(sqlite3.Error):
                    writer.execute("ROLLBACK")
            raise
        self._next += len(rows)
        self._in_log += sum(len(row[2]) for row in rows)

    def _read(self, key: int) -> StateRecord | None:
        for _ in range(_TRIES):
            place, version = int(self._index.place_of[key]), int(self._index.versions[key])
            if place < 0:
                return None
            number, position = divmod(place, POSITIONS)
            body = self._body(number)
            if body is None:
                # Moved to another record since its place was looked up.
                continue
            count = len(body) // (_EACH + self.size)
            begin = _EACH * count + position * self.size
            if position < count and _NUMBER.unpack_from(body, 4 * position)[0] == key:
                found = _NUMBER.unpack_from(body, 4 * (count + position))[0]
                if found >= version:
                    return StateRecord(found, body[begin : begin + self.size])
        raise _NotFoundError(key)

    def _body(self, number: int) -> bytes | None:
        reader = self._reader
        if reader is None:
            raise RuntimeError("the cold tier is not open")
        if self._parts == 1:
            row: tuple[bytes] | None = reader.execute("SELECT body FROM record WHERE number = ?", (number,)).fetchone()
            return None if row is None else row[0]
        last = number + self._parts - 1
        rows: list[tuple[bytes]] = reader.execute(
            "SELECT body FROM record WHERE number BETWEEN ? AND ? ORDER BY number", (number, last)
        ).fetchall()
        if len(rows) < self._parts:
            return None
        return rows[0][0] + b"".join(row[0][_EACH:] for row in rows[1:])

    def _bury(self) -> bool:
        """Delete some records that nobody needs."""
        dead = self._index.dead
        gone = [dead.popleft() for _ in range(min(len(dead), _BURIED_AT_ONCE))]
        if gone:
            self._commit([], gone=gone)
            self._index.bury(gone)
        return bool(gone)

    def _move(self) -> bool:
        """Put what is needed of some records into new ones, so that those can go."""
        index, movable = self._index, self._index.movable
        found: list[Opened] = []
        gone: list[int] = []
        while movable and len(gone) < _MOVED_AT_ONCE:
            number = movable.popleft()
            if number not in index or not index.needed_of(number):
                continue
            body = self._body(number)
            if body is None:
                raise self._damaged(f"has not got record {number}")
            new = self._taken_apart(index.tick_of(number), body)
            newest = index.place_of[new.keys] == number * POSITIONS + np.arange(new.keys.size)
            if np.count_nonzero(newest) != index.needed_of(number):
                index.later(number)
                continue
            gone.append(number)
            found.append(
                Opened(new.tick, new.keys[newest], new.expected[newest], new.versions[newest], new.states[newest])
            )
        if gone:
            moved = Opened(
                max(new.tick for new in found),
                *(
                    np.concatenate([getattr(new, name) for new in found])
                    for name in ("keys", "expected", "versions", "states")
                ),
            )
            rows, places = self._laid_out(moved)
            self._commit(rows, gone=gone)
            index.move(moved.keys, places, gone, tick=moved.tick)
        return bool(gone)

    def _fold_in(self, connection: sqlite3.Connection) -> None:
        """Write what stands in SQLite's own log into the file."""
        self._in_log = 0
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGED or "no such table" in str(error):
                raise self._damaged(f"is damaged ({error})") from error
            raise self._unwritten(str(error)) from error
        except OSError as error:
            raise self._unwritten(str(error.strerror)) from error

    def _damaged(self, problem: str) -> DamagedRecordError:
        return DamagedRecordError(path=str(self._path), problem=problem, last_good_tick=0)

    def _unwritten(self, problem: str) -> PopulationFolderError:
        return PopulationFolderError(
            folder=str(self._path.parent),
            problem=f"cannot take the cold states ({problem})",
            remedy="Make room there or mend it, then resume: what was snapshotted before is kept.",
        )
