"""Reads what lists show of deliberations that ended, several at a time and within a transaction of the caller, and compares it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import chain, groupby
from operator import itemgetter
from typing import Any

from sqlalchemy import Connection, LargeBinary, Row, bindparam, case, func, null, select

from application.services.glance_check import END_OF_A_CALL_ENTRY, GlanceComparison, Place, Spoken, StoredGlance
from domain.models.deliberation import Deliberation
from infrastructure.persistence.documents import load
from infrastructure.persistence.roots import roots_at
from infrastructure.persistence.rows import RosterTexts, deliberation_of, stored_bytes
from infrastructure.persistence.tables import agent_records, witness_entries
from infrastructure.persistence.unreadable import readable
from infrastructure.witness.canonical_json import read_json

__all__ = ["Glances"]

_TOGETHER = 20
# So few at a time that their memory serves the next: the entries of 20 large deliberations are a megabyte.
_ROWS_AT_ONCE = 64
# Twice what is compared ahead, a few megabytes.
_MAX_COMPARED = 20_000
_MAX_READ = 256
_MAX_ROSTERS = 32

_ENTRY = witness_entries.c.entry
_END_OF_ENTRY = func.substr(_ENTRY, func.length(_ENTRY) - (len(END_OF_A_CALL_ENTRY) - 1), type_=LargeBinary)
# Made once, because making a statement takes longer than running it.
_THEIR_ENTRIES = (
    select(
        witness_entries.c.deliberation_id,
        witness_entries.c.idx,
        witness_entries.c.leaf_hash,
        witness_entries.c.sequence,
        case((_END_OF_ENTRY == END_OF_A_CALL_ENTRY, null()), else_=_ENTRY),
    )
    .where(witness_entries.c.deliberation_id.in_(bindparam("these", expanding=True)))
    .order_by(witness_entries.c.deliberation_id, witness_entries.c.sequence, witness_entries.c.idx)
)
_THEIR_WORDS = select(
    agent_records.c.deliberation_id,
    agent_records.c.round_number,
    agent_records.c.agent_id,
    agent_records.c.reasoning,
    agent_records.c.salts,
).where(agent_records.c.deliberation_id.in_(bindparam("these", expanding=True)))
_THEIR_TEXTS = _THEIR_WORDS.add_columns(agent_records.c.answer)


class Glances:
    """Shows no deliberation in a list of which something that lists show differs from its entries.

    Each is compared once a process, and again once its row is another. Belongs to one database; may be used by several threads.
    """

    def __init__(self, rosters: RosterTexts) -> None:
        self._rosters = rosters
        # By id, what the rows hashed to when they were compared: nothing that ended changes, and comparing is dear.
        self._compared: dict[str, bytes] = {}
        self._roster_digests: dict[Any, bytes] = {}
        # By that hash, the latest ones: reading a row is dear too.
        self._read: dict[bytes, Deliberation] = {}

    def read(self, connection: Connection, rows: Sequence[Row[Any]]) -> Mapping[str, Deliberation]:
        """What lists show of each of these rows of `DELIBERATION_COLUMNS`, all of them ended, by id. Raises `RecordMismatchError`."""
        found: dict[str, Deliberation] = {}
        doubtful: list[Row[Any]] = []
        digests = {row.id: self._digest_of(row) for row in rows}
        for row in rows:
            if self._compared.get(row.id) != digests[row.id]:
                doubtful.append(row)
                continue
            glance = self._read.get(digests[row.id])
            if glance is None:
                glance = readable(row.id, partial(self._at_a_glance, row))
                self._keep(digests[row.id], glance)
            found[row.id] = glance
        for start in range(0, len(doubtful), _TOGETHER):
            several = {row.id: row for row in doubtful[start : start + _TOGETHER]}
            for own, glance in self._checked(connection, several).items():
                if len(self._compared) >= _MAX_COMPARED:
                    self._compared.clear()
                self._compared[own] = digests[own]
                self._keep(digests[own], glance)
                found[own] = glance
        return found

    def _keep(self, digest: bytes, glance: Deliberation) -> None:
        if len(self._read) >= _MAX_READ:
            self._read.clear()
        self._read[digest] = glance

    def _digest_of(self, row: Row[Any]) -> bytes:
        """A hash of every value of the row, told apart by type and length."""
        digest = hashlib.blake2b(digest_size=32)
        for name, value in zip(row._fields, row, strict=True):
            data = self._roster_digest(value) if name == "roster" else _bytes_of(value)
            digest.update(b"%s %d " % (type(value).__name__.encode(), len(data)))
            digest.update(data)
        return digest.digest()

    def _roster_digest(self, text: Any) -> bytes:
        # Most rows have the same one, and it is longer than all the rest.
        found = self._roster_digests.get(text)
        if found is None:
            found = hashlib.blake2b(_bytes_of(text), digest_size=32).digest()
            if len(self._roster_digests) >= _MAX_ROSTERS:
                self._roster_digests.clear()
            self._roster_digests[text] = found
        return found

    def _at_a_glance(self, row: Row[Any]) -> Deliberation:
        return self._stored(row, {}).shown

    def _checked(self, connection: Connection, rows: Mapping[str, Row[Any]]) -> Mapping[str, Deliberation]:
        roots = roots_at(connection, [row.tree_size for row in rows.values()])
        stored = {own: readable(own, partial(self._stored, row, roots)) for own, row in rows.items()}
        comparisons = {own: GlanceComparison(each, read_json) for own, each in stored.items()}
        for own, entries in _entries(connection, list(rows)):
            readable(own, partial(comparisons[own].read, entries))
        places = {own: readable(own, each.compare) for own, each in comparisons.items()}
        spoken = _words(connection, [own for own, told in places.items() if told], stored)
        for own, comparison in comparisons.items():
            readable(own, partial(comparison.compare_words, spoken.get(own, {})))
        return {own: each.shown for own, each in stored.items()}

    def _stored(self, row: Row[Any], roots: Mapping[int, str]) -> StoredGlance:
        found, result = deliberation_of(row, self._rosters)
        if result is None:
            raise ValueError(f"the row of {row.id!r} has no result: compare it as one that has not ended.")
        return StoredGlance(
            shown=result.at_a_glance(found),
            rounds=result.rounds,
            first_index=row.first_index,
            salts=None if row.salts is None else bytes(row.salts),
            root_hash=None if row.tree_size is None else roots.get(row.tree_size),
        )


def _entries(
    connection: Connection, ids: Sequence[str]
) -> Iterator[tuple[str, Iterator[tuple[int, bytes, int | None, bytes | None]]]]:
    parts = connection.execute(_THEIR_ENTRIES, {"these": ids}).partitions(_ROWS_AT_ONCE)
    for own, rows in groupby(chain.from_iterable(parts), key=itemgetter(0)):
        yield (
            own,
            (
                (index, stored_bytes(leaf), sequence, None if entry is None else stored_bytes(entry))
                for _, index, leaf, sequence, entry in rows
            ),
        )


def _words(
    connection: Connection, ids: Sequence[str], stored: Mapping[str, StoredGlance]
) -> Mapping[str, Mapping[Place, Spoken]]:
    found: dict[str, dict[Place, Spoken]] = {own: {} for own in ids}
    in_texts = [own for own in ids if (outcome := stored[own].shown.outcome) is not None and outcome.synthesis]
    if len(in_texts) < len(ids):
        for own, number, agent_id, reasoning, salts in connection.execute(_THEIR_WORDS, {"these": ids}).all():
            found[own][number, agent_id] = Spoken(reasoning, None if salts is None else stored_bytes(salts))
    if in_texts:
        for own, number, agent_id, reasoning, salts, answer in connection.execute(_THEIR_TEXTS, {"these": in_texts}):
            found[own][number, agent_id] = readable(own, partial(_spoken, reasoning, salts, answer))
    return found


def _spoken(reasoning: str | None, salts: Any, answer: str | None) -> Spoken:
    given = None if answer is None else load(answer)
    return Spoken(reasoning, None if salts is None else stored_bytes(salts), given if isinstance(given, str) else None)


def _bytes_of(value: Any) -> bytes:
    return value.encode(errors="surrogatepass") if isinstance(value, str) else repr(value).encode()
