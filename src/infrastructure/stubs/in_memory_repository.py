"""Deliberations kept in memory: for tests, and for callers in one process that want nothing to survive it."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from application.ports.clock import Clock, SystemClock
from application.ports.deliberation_repository import Commit, Page, StoredRecord
from domain.errors.deliberation import (
    DeliberationEndedError,
    DeliberationExistsError,
    DeliberationNotFoundError,
    InvalidSpecificationError,
    RecordExistsError,
)
from domain.models.deliberation import Deliberation, DeliberationStatus
from domain.models.event import Event, Happening
from domain.models.round import AgentRecord
from infrastructure.persistence.documents import dump, is_storable, load
from infrastructure.persistence.standing import Result, as_it_stands, without_texts

__all__ = ["InMemoryRepository"]

_MAX_POSITION_DIGITS = 18


@dataclass(slots=True)
class _Kept:
    deliberation: Deliberation
    position: int
    cancel_requested: bool
    lease_owner: str | None
    lease_until: datetime
    events: list[Event] = field(default_factory=list)
    records: dict[tuple[int, str], StoredRecord] = field(default_factory=dict)

    def standing(self) -> Deliberation:
        """The deliberation, without rounds and what follows from them while it is at work."""
        return replace(self.deliberation, cancel_requested=self.cancel_requested)

    def in_full(self) -> Deliberation:
        """The deliberation as `get` shows it."""
        if self.deliberation.status.is_terminal:
            return self.standing()
        return as_it_stands(self.standing(), [stored.record for stored in self.records.values()])

    def at_a_glance(self) -> Deliberation:
        """The deliberation as `page` shows it."""
        if self.deliberation.status.is_terminal:
            return Result.of(self.deliberation).at_a_glance(self.standing())
        glances = [without_texts(stored.record) for stored in self.records.values()]
        return replace(as_it_stands(self.standing(), glances), rounds=())


class InMemoryRepository:
    """`DeliberationRepository`, `DeliberationReader` and `Leases` as the databases fulfil them, durability apart.

    `before_commit` is awaited before each write takes effect: a test holds writes back with it, or fails them by raising
    `DependencyUnavailableError`. Keeps everything until it is dropped. Belongs to one event loop.
    """

    def __init__(
        self, *, clock: Clock | None = None, before_commit: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        self._clock = clock if clock is not None else SystemClock()
        self._before_commit = before_commit
        self._kept: dict[str, _Kept] = {}

    async def close(self) -> None:
        """Nothing is open."""

    async def check(self) -> None:
        """Memory is always there."""

    async def add(
        self, deliberation: Deliberation, happenings: Sequence[Happening], *, owner: str, lease_s: float
    ) -> None:
        """As in `DeliberationRepository`. Raises `DeliberationExistsError` for an id that is already there."""
        data = [_copied_data(happening) for happening in happenings]
        await self._commit()
        if deliberation.id in self._kept:
            raise DeliberationExistsError(deliberation_id=deliberation.id)
        self._kept[deliberation.id] = _Kept(
            deliberation,
            len(self._kept) + 1,
            deliberation.cancel_requested,
            owner,
            self._clock.now() + timedelta(seconds=lease_s),
            _events(deliberation.id, happenings, data, after=0),
        )

    async def append(self, commit: Commit) -> None:
        """As in `DeliberationRepository`. Raises `RecordExistsError`, `DeliberationEndedError` and `DeliberationNotFoundError`."""
        records = [_stored(record) for record in commit.records]
        data = [_copied_data(happening) for happening in commit.happenings]
        await self._commit()
        kept = self._unfinished(commit.deliberation_id)
        places = {}
        for stored in records:
            place = (stored.record.round_number, stored.record.agent_id)
            if place in kept.records or place in places:
                raise RecordExistsError(
                    deliberation_id=commit.deliberation_id, round_number=place[0], agent_id=place[1]
                )
            places[place] = stored
        kept.events += _events(commit.deliberation_id, commit.happenings, data, after=len(kept.events))
        kept.records |= places
        if commit.deliberation is not None:
            kept.deliberation = commit.deliberation
            if commit.deliberation.status.is_terminal:
                kept.lease_owner = None

    async def get(self, deliberation_id: str) -> Deliberation | None:
        """As in `DeliberationReader`."""
        kept = self._kept.get(deliberation_id)
        return None if kept is None else kept.in_full()

    async def page(
        self, *, status: DeliberationStatus | None, key_name: str | None, limit: int, cursor: str | None
    ) -> Page:
        """As in `DeliberationReader`; without rounds, and failures without the agents' texts."""
        before = len(self._kept) + 1 if cursor is None else _position_of(cursor)
        found = [
            kept
            for kept in reversed(self._kept.values())
            if kept.position < before
            and (status is None or kept.deliberation.status is status)
            and (key_name is None or kept.deliberation.key_name == key_name)
        ]
        items = tuple(kept.at_a_glance() for kept in found[:limit])
        return Page(items, str(found[limit - 1].position) if len(found) > limit else None)

    async def records(self, deliberation_id: str, *, round_number: int | None = None) -> Sequence[StoredRecord]:
        """As in `DeliberationReader`."""
        kept = self._kept.get(deliberation_id)
        stored = () if kept is None else kept.records.values()
        return [item for item in stored if round_number is None or item.record.round_number == round_number]

    async def events(self, deliberation_id: str, *, after: int, limit: int) -> Sequence[Event]:
        """As in `DeliberationReader`."""
        kept = self._kept.get(deliberation_id)
        start = max(after, 0)
        return [] if kept is None else kept.events[start : start + limit]

    async def claim(self, *, owner: str, lease_s: float, limit: int) -> Sequence[Deliberation]:
        """As in `Leases`; those at work come with the rounds that are committed so far."""
        await self._commit()
        now = self._clock.now()
        free = [
            kept
            for kept in self._kept.values()
            if not kept.deliberation.status.is_terminal and (kept.lease_owner is None or kept.lease_until < now)
        ][:limit]
        for kept in free:
            kept.lease_owner, kept.lease_until = owner, now + timedelta(seconds=lease_s)
        return [kept.in_full() for kept in free]

    async def renew(self, deliberation_ids: Sequence[str], *, owner: str, lease_s: float) -> Sequence[str]:
        """As in `Leases`; what another has claimed meanwhile stays with the other."""
        await self._commit()
        held = self._held(deliberation_ids, owner)
        for kept in held:
            kept.lease_until = self._clock.now() + timedelta(seconds=lease_s)
        return [kept.deliberation.id for kept in held if kept.cancel_requested]

    async def release(self, deliberation_ids: Sequence[str], *, owner: str) -> None:
        """As in `Leases`."""
        await self._commit()
        for kept in self._held(deliberation_ids, owner):
            kept.lease_owner = None

    async def request_cancel(self, deliberation_id: str) -> None:
        """As in `Leases`. Raises `DeliberationNotFoundError`, and `DeliberationEndedError` when it is too late."""
        await self._commit()
        self._unfinished(deliberation_id).cancel_requested = True

    async def _commit(self) -> None:
        if self._before_commit is not None:
            await self._before_commit()

    def _held(self, deliberation_ids: Sequence[str], owner: str) -> list[_Kept]:
        wanted = frozenset(deliberation_ids)
        return [kept for own, kept in self._kept.items() if own in wanted and kept.lease_owner == owner]

    def _unfinished(self, deliberation_id: str) -> _Kept:
        kept = self._kept.get(deliberation_id)
        if kept is None:
            raise DeliberationNotFoundError(deliberation_id=deliberation_id)
        if kept.deliberation.status.is_terminal:
            raise DeliberationEndedError(deliberation_id=deliberation_id, status=kept.deliberation.status.value)
        return kept


def _copied_data(happening: Happening) -> dict[str, Any]:
    """Its data as it reads after a visit to JSON, which nobody else can change."""
    _zoned(happening.at)
    copy: dict[str, Any] = load(dump(dict(happening.data)))
    return copy


def _zoned(moment: datetime) -> None:
    if moment.tzinfo is None:
        raise ValueError(f"{moment!r} has no time zone: times are stored in UTC.")


def _events(
    deliberation_id: str, happenings: Sequence[Happening], data: Sequence[dict[str, Any]], *, after: int
) -> list[Event]:
    return [
        Event(deliberation_id, sequence, happening.type, happening.at, copy)
        for sequence, (happening, copy) in enumerate(zip(happenings, data, strict=True), after + 1)
    ]


def _stored(record: AgentRecord) -> StoredRecord:
    _zoned(record.finished_at)
    failure = record.failure
    texts = (record.content, record.reasoning, record.model_asked, record.model)
    for text in texts if failure is None else (*texts, failure.kind, failure.message):
        if text is not None and not is_storable(text):
            raise ValueError("a text holds a NUL or a lone surrogate: clean texts before they are recorded.")
    content = record.content
    return StoredRecord(record, None if content is None else hashlib.sha256(content.encode()).hexdigest())


def _position_of(cursor: str) -> int:
    if not (cursor.isascii() and cursor.isdecimal() and len(cursor) <= _MAX_POSITION_DIGITS):
        raise InvalidSpecificationError.at("/cursor", "is none that a page came with: begin without one")
    return int(cursor)
