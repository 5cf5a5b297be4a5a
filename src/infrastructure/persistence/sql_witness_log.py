"""The witness log in SQLite or Postgres: what auditors read, and what is added to it beside the work of deliberations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, update
from sqlalchemy.exc import DBAPIError

from application.ports.witness_log import Disclosure, Erasure, Head, LoggedEntry, Sequel
from domain.errors.deliberation import DeliberationNotFoundError, IllegalTransitionError
from domain.errors.witness import EntryRecordedError, VerificationRefusedError
from domain.models.deliberation import Deliberation
from domain.models.protocol import MAX_ROUNDS
from domain.models.question import AnswerKind
from domain.witness.entry import accepted_texts, record_texts
from domain.witness.merkle import CompactRange
from infrastructure.persistence.catalogue import forget_words
from infrastructure.persistence.database import Database
from infrastructure.persistence.disclosing import opened, without_specification_texts, without_texts
from infrastructure.persistence.documents import dump, from_document, is_storable, load, to_document
from infrastructure.persistence.idempotency import forget_body
from infrastructure.persistence.leases import UNFINISHED
from infrastructure.persistence.reads import read_one, read_records
from infrastructure.persistence.rows import ENTRY_COLUMNS, RosterTexts, entry_of, specification_values, stored_bytes
from infrastructure.persistence.sequencer import EncodedEntry, Sequencer
from infrastructure.persistence.standing import Result
from infrastructure.persistence.tables import (
    agent_records,
    deliberations,
    disclosures,
    erasures,
    resolutions,
    specifications,
    witness_checkpoints,
    witness_entries,
    witness_nodes,
)

__all__ = ["SqlWitnessLog"]

_MAX_INDEX = 2**62


class SqlWitnessLog:
    """`WitnessLog` over one database. What it adds stands in the same log as what deliberations add, whichever process writes.

    Raises `DependencyUnavailableError` when the database is away. Reads of one call are of one moment.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._sequencer = Sequencer(database.dialect)
        self._rosters = RosterTexts()
        # Written out, because a proof asks for several at a time and making a statement takes longer than running it.
        mark = "?" if database.dialect.paramstyle == "qmark" else "%s"
        self._head = "SELECT tree_size, frontier FROM witness_head WHERE id = 1"
        self._leaf_span = f"SELECT leaf_hash FROM witness_entries WHERE idx >= {mark} AND idx < {mark} ORDER BY idx"  # noqa: S608 - a parameter's mark
        self._node_span = (
            f"SELECT hash FROM witness_nodes WHERE tile_level = {mark} AND place >= {mark} AND place < {mark} "  # noqa: S608 - a parameter's mark
            "ORDER BY place"
        )

    async def head(self) -> Head:
        """As in `WitnessLogReader`."""
        return await self._database.read(self._read_head)

    async def entries(self, start: int, end: int) -> Sequence[LoggedEntry]:
        """As in `WitnessLogReader`."""
        index = witness_entries.c.idx
        question = select(*ENTRY_COLUMNS).where(index >= _bound(start), index < _bound(end)).order_by(index)
        return await self._database.read(lambda connection: [entry_of(row) for row in connection.execute(question)])

    async def leaf_hashes(self, start: int, end: int) -> Sequence[bytes]:
        """As in `WitnessLogReader`."""
        index = witness_entries.c.idx
        found = select(witness_entries.c.leaf_hash).where(index >= _bound(start), index < _bound(end)).order_by(index)
        return await self._database.read(lambda connection: [stored_bytes(row[0]) for row in connection.execute(found)])

    async def nodes(self, tile_level: int, start: int, end: int) -> Sequence[bytes]:
        """As in `WitnessLogReader`."""
        place = witness_nodes.c.place
        found = (
            select(witness_nodes.c.hash)
            .where(witness_nodes.c.tile_level == tile_level, place >= _bound(start), place < _bound(end))
            .order_by(place)
        )
        return await self._database.read(lambda connection: [stored_bytes(row[0]) for row in connection.execute(found)])

    async def spans(self, wanted: Sequence[tuple[int, int, int]]) -> tuple[Head, Sequence[Sequence[bytes]]]:
        """As in `WitnessLogReader`."""

        def read(connection: Connection) -> tuple[Head, list[list[bytes]]]:
            # The head first: Postgres takes a new snapshot for each statement, and what a head counts is there in all later ones.
            # On SQLite this statement begins the transaction of them all.
            head = self._read_head(connection)
            with _driver_cursor(connection) as cursor:
                return head, [self._read_span(cursor, *span) for span in wanted]

        return await self._database.read(read)

    async def entries_of(self, deliberation_id: str) -> Sequence[LoggedEntry]:
        """As in `WitnessLogReader`."""
        if not is_storable(deliberation_id):
            return []
        own = witness_entries.c.deliberation_id == deliberation_id
        question = select(*ENTRY_COLUMNS).where(own).order_by(witness_entries.c.sequence, witness_entries.c.idx)
        return await self._database.read(lambda connection: [entry_of(row) for row in connection.execute(question)])

    async def system_entries(self, after_index: int, limit: int) -> Sequence[LoggedEntry]:
        """As in `WitnessLogReader`."""
        index = witness_entries.c.idx
        # They have no sequence either: said here, it lets the index on both columns give them in their order.
        of_nobody = witness_entries.c.deliberation_id.is_(None), witness_entries.c.sequence.is_(None)
        question = select(*ENTRY_COLUMNS).where(*of_nobody, index > _bound(after_index)).order_by(index).limit(limit)
        return await self._database.read(lambda connection: [entry_of(row) for row in connection.execute(question)])

    async def disclosures_of(self, deliberation_id: str) -> Sequence[Disclosure]:
        """As in `WitnessLogReader`."""
        if not is_storable(deliberation_id):
            return []
        return await self._database.read(lambda connection: self._disclosures(connection, deliberation_id))

    async def latest_checkpoint(self) -> str | None:
        """As in `WitnessLogReader`."""
        newest = select(witness_checkpoints).order_by(witness_checkpoints.c.tree_size.desc()).limit(1)
        found = await self._database.read(lambda connection: connection.execute(newest).first())
        return None if found is None else _note_of(found.tree_size, found.note)

    async def checkpoints(self, after_size: int, limit: int) -> Sequence[str]:
        """As in `WitnessLogReader`."""
        size = witness_checkpoints.c.tree_size
        question = select(witness_checkpoints).where(size > _bound(after_size)).order_by(size).limit(limit)
        found = await self._database.read(lambda connection: connection.execute(question).all())
        return [_note_of(row.tree_size, row.note) for row in found]

    async def append(
        self, documents: Sequence[Mapping[str, Any]], *, disclosures: Sequence[Disclosure] = ()
    ) -> Sequence[LoggedEntry]:
        """As in `WitnessLog`."""
        encoded = [EncodedEntry.of(document) for document in documents]

        def write(connection: Connection) -> Sequence[LoggedEntry]:
            tail = self._sequencer.open(connection)
            # Under the lock of the head, so that of two attempts to record the same one sees the other.
            _refuse_recorded(connection, disclosures)
            owners = [entry.document.get("deliberation_id") for entry in encoded]
            sequences = {own: _last_sequence(connection, own) for own in set(owners) if own is not None}
            placed = [
                tail.place(entry, deliberation_id=own, sequence=sequences.get(own))
                for entry, own in zip(encoded, owners, strict=True)
            ]
            tail.close()
            _disclose(connection, None, disclosures)
            return [tail.placed(index) for index in placed]

        return await self._database.write(write)

    async def erase(self, erasure: Erasure) -> LoggedEntry:
        """As in `WitnessLog`: only what has ended can be erased, and only once."""
        entry = EncodedEntry.of(erasure.document)
        own = erasure.deliberation_id
        if not is_storable(own):
            raise DeliberationNotFoundError(deliberation_id=own)

        def write(connection: Connection) -> LoggedEntry:
            tail = self._sequencer.open(connection)
            found = read_one(connection, self._rosters, own)
            if found is None:
                raise DeliberationNotFoundError(deliberation_id=own)
            if found.status.value in UNFINISHED:
                raise IllegalTransitionError(present=found.status.value, wanted="erased")
            if found.erased:
                raise IllegalTransitionError(present="erased", wanted="erased")
            index = tail.place(entry, deliberation_id=own, sequence=_last_sequence(connection, own))
            tail.close()
            connection.execute(insert(erasures).values(deliberation_id=own, idx=index))
            connection.execute(delete(disclosures).where(disclosures.c.deliberation_id == own))
            _disclose(connection, own, erasure.disclosures)
            self._remove_texts(connection, found)
            forget_body(connection, own)
            return tail.placed(index)

        return await self._database.write(write)

    async def follow_up(self, sequel: Sequel) -> LoggedEntry:
        """As in `WitnessLog`."""
        entry = EncodedEntry.of(sequel.document)
        own = sequel.deliberation_id
        if not is_storable(own):
            raise DeliberationNotFoundError(deliberation_id=own)

        def write(connection: Connection) -> LoggedEntry:
            tail = self._sequencer.open(connection)
            status = connection.execute(select(deliberations.c.status).where(deliberations.c.id == own)).scalar()
            if status is None:
                raise DeliberationNotFoundError(deliberation_id=own)
            if status in UNFINISHED:
                raise IllegalTransitionError(present=status, wanted="followed up")
            index = tail.place(entry, deliberation_id=own, sequence=_last_sequence(connection, own))
            tail.close()
            _disclose(connection, own, sequel.disclosures)
            if sequel.resolves:
                connection.execute(insert(resolutions).values(deliberation_id=own, idx=index))
            return tail.placed(index)

        return await self._database.write(write)

    async def add_checkpoint(self, tree_size: int, note: str) -> None:
        """As in `WitnessLog`."""

        def write(connection: Connection) -> None:
            kept = select(witness_checkpoints.c.tree_size).where(witness_checkpoints.c.tree_size == tree_size)
            # Under the lock of the head, so that two processes that sign the same head do not both find nothing.
            self._sequencer.open(connection)
            if connection.execute(kept).first() is None:
                connection.execute(insert(witness_checkpoints).values(tree_size=tree_size, note=note))

        await self._database.write(write)

    def _read_head(self, connection: Connection) -> Head:
        found = connection.exec_driver_sql(self._head).one_or_none()
        if found is None:
            raise VerificationRefusedError("the log's head is missing")
        size, frontier = found.tree_size, stored_bytes(found.frontier)
        try:
            return Head(size, CompactRange.from_bytes(size, frontier).root())
        except (TypeError, ValueError) as error:
            raise VerificationRefusedError(
                "the log's head is none of any tree", evidence={"head_size": repr(size), "frontier": frontier.hex()}
            ) from error

    def _read_span(self, cursor: Any, level: int, start: int, end: int) -> list[bytes]:
        span = (_bound(start), _bound(end))
        if level == 0:
            cursor.execute(self._leaf_span, span)
        else:
            cursor.execute(self._node_span, (level, *span))
        return [each if type(each) is bytes else stored_bytes(each) for (each,) in cursor.fetchall()]

    def _disclosures(self, connection: Connection, deliberation_id: str) -> list[Disclosure]:
        own = specifications.c.deliberation_id == deliberation_id
        salts = connection.execute(select(specifications.c.salts).where(own)).scalar()
        found = read_one(connection, self._rosters, deliberation_id)
        told: list[Disclosure] = []
        if found is not None and salts is not None:
            told += opened(bytes(salts), accepted_texts(found))
            specification = found.specification
            for stored in read_records(connection, deliberation_id):
                if stored.salts is not None:
                    by_text = specification.answers_in(stored.record.round_number).kind is AnswerKind.TEXT
                    told += opened(stored.salts, record_texts(stored.record, answers_by_text=by_text))
        theirs = select(disclosures).where(disclosures.c.deliberation_id == deliberation_id)
        for row in connection.execute(theirs):
            told.append(Disclosure(row.sha256, bytes(row.salt).hex(), row.text))
        return told

    def _remove_texts(self, connection: Connection, found: Deliberation) -> None:
        own = found.id
        gone: dict[str, Any] = dict.fromkeys(("content", "reasoning", "failure_message", "salts"))
        connection.execute(update(agent_records).where(agent_records.c.deliberation_id == own).values(gone))
        in_words = [
            number for number in range(MAX_ROUNDS) if found.specification.answers_in(number).kind is AnswerKind.TEXT
        ]
        if in_words:
            those = agent_records.c.deliberation_id == own, agent_records.c.round_number.in_(in_words)
            connection.execute(update(agent_records).where(*those).values(answer=None))
        forget_words(connection, own)
        values = specification_values(without_specification_texts(found), self._rosters, b"")
        values["salts"] = None
        connection.execute(update(specifications).where(specifications.c.deliberation_id == own).values(values))
        kept = connection.execute(select(deliberations.c.result).where(deliberations.c.id == own)).scalar_one()
        result = without_texts(from_document(Result, load(kept)))
        cleared = update(deliberations).where(deliberations.c.id == own)
        connection.execute(cleared.values(result=dump(to_document(result))))


@contextmanager
def _driver_cursor(connection: Connection) -> Iterator[Any]:
    """A cursor of the driver's own, within the connection's transaction; raises what the connection would.

    A proof reads several hundred rows, for which making rows of SQLAlchemy takes longer than reading them.
    """
    cursor = connection.connection.cursor()
    try:
        yield cursor
    except connection.dialect.loaded_dbapi.Error as error:
        base = connection.dialect.loaded_dbapi.Error
        raise DBAPIError.instance(None, None, error, base, hide_parameters=True, dialect=connection.dialect) from error
    finally:
        cursor.close()


def _note_of(tree_size: int, note: str) -> str:
    """The checkpoint that is kept under that size. Raises `VerificationRefusedError` when it is one of another size."""
    lines = note.split("\n", 2)
    if len(lines) < 2 or lines[1] != str(tree_size):
        evidence = {"kept_under": str(tree_size), "signed_size": lines[1] if len(lines) > 1 else ""}
        raise VerificationRefusedError("a stored checkpoint is kept under the size of another", evidence=evidence)
    return note


def _bound(index: int) -> int:
    return max(-_MAX_INDEX, min(index, _MAX_INDEX))


def _last_sequence(connection: Connection, deliberation_id: str) -> int | None:
    sequence = select(func.max(witness_entries.c.sequence))
    return connection.execute(sequence.where(witness_entries.c.deliberation_id == deliberation_id)).scalar()


def _refuse_recorded(connection: Connection, told: Sequence[Disclosure]) -> None:
    if not told:
        return
    known = select(disclosures.c.sha256).where(disclosures.c.sha256.in_([each.sha256 for each in told])).limit(1)
    found = connection.execute(known).scalar()
    if found is not None:
        raise EntryRecordedError(sha256=found)


def _disclose(connection: Connection, deliberation_id: str | None, told: Sequence[Disclosure]) -> None:
    rows = [
        {
            "sha256": each.sha256,
            "deliberation_id": deliberation_id,
            "salt": bytes.fromhex(each.salt),
            "text": each.text,
        }
        for each in told
    ]
    if rows:
        connection.execute(insert(disclosures), rows)
