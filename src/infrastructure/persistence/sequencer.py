"""Gives entries their places in the log: one locked row says where the next one goes, whatever number of processes write."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Dialect

from application.ports.witness_log import LoggedEntry
from domain.errors.witness import LogUnverifiedError
from domain.witness.entry import MAX_ENTRY_BYTES, sealed
from domain.witness.merkle import CompactRange, leaf_hash
from infrastructure.persistence.bulk_insert import BulkInsert
from infrastructure.persistence.tables import witness_entries, witness_nodes
from infrastructure.witness.canonical_json import canonical_json

__all__ = ["EncodedEntry", "LogTail", "Sequencer", "encode"]


_REMEDY = "Nothing more is added to it: run `conclave witness fsck`, and bring the database back from a backup."


@dataclass(slots=True)
class EncodedEntry:
    """An entry on its way to its place: `data` is canonical JSON, None where that is only known at its place."""

    document: Mapping[str, Any]
    data: bytes | None
    leaf: bytes

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> EncodedEntry:
        """The entry as bytes. Raises `ValueError` for what has no canonical JSON, and for more than 60,000 bytes."""
        if "record_sha256" in document:
            encode(sealed(document, [bytes(32)]))
            return cls(document, None, b"")
        data = encode(document)
        return cls(document, data, leaf_hash(data))


class LogTail:
    """The end of the log within one transaction that holds its lock: entries get their indexes here, and are written at once."""

    def __init__(self, sequencer: Sequencer, connection: Connection, tree: CompactRange) -> None:
        self._sequencer = sequencer
        self._connection = connection
        self._size = tree.size
        self._rows: list[tuple[int, bytes, str | None, int | None, bytes]] = []
        self.tree = tree

    def place(self, entry: EncodedEntry, *, deliberation_id: str | None, sequence: int | None) -> int:
        """The index that the entry has from now on; `sequence` is the number of the deliberation's last event."""
        index = self._size + len(self._rows)
        data, leaf = entry.data, entry.leaf
        if data is None:
            data = encode(sealed(entry.document, self._leaves_of(deliberation_id)))
            leaf = leaf_hash(data)
        self._rows.append((index, leaf, deliberation_id, sequence, data))
        return index

    def close(self) -> None:
        """Take what was placed into the tree; `tree` is then the log as it will be."""
        nodes = self.tree.extend([row[1] for row in self._rows])
        if self._rows:
            self._sequencer.insert(self._connection, self._rows, nodes, self.tree)

    def placed(self, index: int) -> LoggedEntry:
        """An entry that was placed here."""
        _, leaf, deliberation_id, sequence, data = self._rows[index - self._size]
        return LoggedEntry(index, leaf, data, deliberation_id, sequence)

    def _leaves_of(self, deliberation_id: str | None) -> list[bytes]:
        """The leaf hashes of all entries of a deliberation so far, in their order."""
        leaves = self._sequencer.leaves_of(self._connection, deliberation_id)
        leaves += [leaf for _, leaf, owner, _, _ in self._rows if owner == deliberation_id]
        return leaves


class Sequencer:
    """Opens the end of the log for one transaction at a time, in this process and all others, so that nobody can fork it."""

    def __init__(self, dialect: Dialect) -> None:
        mark = "?" if dialect.paramstyle == "qmark" else "%s"
        lock = " FOR UPDATE" if dialect.name == "postgresql" else ""
        self._head = f"SELECT tree_size, frontier FROM witness_head WHERE id = 1{lock}"  # noqa: S608 - no value in it
        self._move = f"UPDATE witness_head SET tree_size = {mark}, frontier = {mark} WHERE id = 1"  # noqa: S608 - a parameter's mark
        self._leaves = f"SELECT leaf_hash FROM witness_entries WHERE deliberation_id = {mark} ORDER BY idx"  # noqa: S608 - a parameter's mark
        self._is_postgres = dialect.name == "postgresql"
        self._insert_entries = BulkInsert(witness_entries, dialect)
        self._insert_nodes = BulkInsert(witness_nodes, dialect)

    def open(self, connection: Connection) -> LogTail:
        """The end of the log, nobody else's until the transaction ends. Lock nothing else of the database before.

        Raises `LogUnverifiedError` for a head that somebody has damaged.
        """
        found = connection.exec_driver_sql(self._head).first()
        try:
            if found is None:
                raise LogUnverifiedError(problem="its head is missing", remedy=_REMEDY)
            tree = CompactRange.from_bytes(found[0], bytes(found[1]))
        except (TypeError, ValueError) as error:
            raise LogUnverifiedError(problem="its head is none of any tree", remedy=_REMEDY) from error
        return LogTail(self, connection, tree)

    def insert(
        self,
        connection: Connection,
        rows: list[tuple[int, bytes, str | None, int | None, bytes]],
        nodes: list[tuple[int, int, bytes]],
        tree: CompactRange,
    ) -> None:
        """Write entries and nodes, and move the head to `tree`."""
        edge = (tree.size, tree.to_bytes())
        self._insert_entries(connection, rows, together_with=(self._move, edge) if self._is_postgres else None)
        self._insert_nodes(connection, nodes)
        if not self._is_postgres:
            connection.exec_driver_sql(self._move, edge)

    def leaves_of(self, connection: Connection, deliberation_id: str | None) -> list[bytes]:
        """The leaf hashes of what is stored of a deliberation, in their order."""
        return [bytes(row[0]) for row in connection.exec_driver_sql(self._leaves, (deliberation_id,))]


def encode(document: Mapping[str, Any]) -> bytes:
    """The entry as canonical JSON. Raises `ValueError` for what has none, and for more than 60,000 bytes."""
    data = canonical_json(document)
    if len(data) > MAX_ENTRY_BYTES:
        raise ValueError(
            f"an entry of type {document['type']!r} has {len(data)} bytes, at most {MAX_ENTRY_BYTES} are recorded."
        )
    return data
