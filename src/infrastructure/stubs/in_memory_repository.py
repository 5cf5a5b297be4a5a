"""Deliberations kept in memory: for tests, and for callers in one process that want nothing to survive it.

It is one file, because every write looks at everything that is kept before it changes any of it, as a transaction does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from application.ports.clock import Clock, SystemClock
from application.ports.deliberation_repository import (
    CallKey,
    Claim,
    Commit,
    LedgerCharge,
    Page,
    RememberedKey,
    Renewal,
    StoredDeliberation,
    StoredRecord,
    Waiting,
)
from application.ports.idempotency import REMEMBERED_FOR, IdempotencyKey
from application.services.continuation import intended_call
from application.services.record_check import require_recorded
from domain.errors.deliberation import (
    DeliberationEndedError,
    DeliberationExistsError,
    DeliberationNotFoundError,
    IllegalTransitionError,
    LeaseLostError,
    RecordExistsError,
)
from domain.errors.idempotency import IdempotencyKeyTakenError
from domain.models.deliberation import Deliberation, DeliberationStatus, WitnessSpan
from domain.models.event import Event
from domain.models.money import KeyBudget
from domain.models.round import AgentRecord
from domain.models.search import Search
from domain.models.spending import Movement, spend
from domain.page_cursor import cursor_of, position_of
from domain.witness.entry import Entry, accepted_texts, record_texts, salt_at
from infrastructure.persistence.disclosing import opened
from infrastructure.persistence.documents import is_storable
from infrastructure.persistence.ledger import charge_values
from infrastructure.persistence.sequencer import encode
from infrastructure.stubs.in_memory_usage_reader import SpentCall
from infrastructure.stubs.in_memory_witness_log import InMemoryWitnessLog
from infrastructure.stubs.kept_deliberation import KeptDeliberation, events_in
from infrastructure.witness.canonical_json import read_json

__all__ = ["InMemoryRepository"]

_COUNTED_TOPICS = 10_000


class InMemoryRepository:
    """`DeliberationRepository`, `DeliberationReader` and `Leases` as the databases fulfil them, durability apart, over a `log`.

    `before_commit` is awaited before each write takes effect: a test holds writes back with it, or fails them by raising
    `DependencyUnavailableError`. Keeps everything until it is dropped. Belongs to one event loop.
    """

    def __init__(
        self,
        *,
        clock: Clock | None = None,
        before_commit: Callable[[], Awaitable[None]] | None = None,
        log: InMemoryWitnessLog | None = None,
        budgets: Mapping[str, KeyBudget] | None = None,
    ) -> None:
        """`budgets` are those of the API keys by their names, "*" for everybody without one."""
        self.log = log if log is not None else InMemoryWitnessLog()
        self.log.may_erase = self._may_erase
        self.log.may_follow_up = self._may_follow_up
        self._clock = clock if clock is not None else SystemClock()
        self._before_commit = before_commit
        self._kept: dict[str, KeptDeliberation] = {}
        self._budgets = dict(budgets or {})
        self._spent: dict[tuple[str, str], int] = {}
        self._keys: dict[tuple[str, str], tuple[RememberedKey, datetime]] = {}

    async def close(self) -> None:
        """Nothing is open."""

    async def check(self) -> None:
        """Memory is always there."""

    async def add(
        self,
        deliberation: Deliberation,
        accepted: Entry,
        *,
        lease: str | None = None,
        lease_s: float = 0.0,
        idempotency: IdempotencyKey | None = None,
    ) -> None:
        """As in `DeliberationRepository`. Raises `DeliberationExistsError` for an id that is already there."""
        encode(accepted.document)
        await self._commit()
        if deliberation.id in self._kept:
            raise DeliberationExistsError(deliberation_id=deliberation.id)
        if idempotency is not None:
            self._remember(idempotency, deliberation.id)
        texts = opened(accepted.salts, accepted_texts(deliberation))
        entry = self.log.place(accepted.document, texts)
        kept = KeptDeliberation(
            replace(deliberation, question_salt=salt_at(accepted.salts, 0)),
            len(self._kept) + 1,
            deliberation.cancel_requested,
            lease,
            self._clock.now() + timedelta(seconds=lease_s),
            entry.index,
            accepted.salts,
            deliberation.specification.topic_origin,
        )
        kept.events += events_in(entry.entry, after=0)
        self._kept[deliberation.id] = kept

    async def append(self, commit: Commit) -> WitnessSpan | None:
        """As in `DeliberationRepository`. Raises `RecordExistsError`, `CallExistsError`, `LeaseLostError`, `DeliberationEndedError`,
        `DeliberationNotFoundError` and `BudgetExceededError`.
        """
        for entry in commit.entries:
            encode({**entry.document, "record_sha256": ""})
            if entry.record is not None:
                _check(entry.record)
        await self._commit()
        kept = self._unfinished(commit.deliberation_id)
        if commit.lease is not None and commit.lease != kept.lease:
            raise LeaseLostError(deliberation_id=commit.deliberation_id, lease=commit.lease)
        kept.require_new_calls(commit)
        places: set[tuple[int, str]] = set()
        for record in (entry.record for entry in commit.entries if entry.record is not None):
            place = (record.round_number, record.agent_id)
            if place in kept.records or place in places:
                raise RecordExistsError(
                    deliberation_id=commit.deliberation_id, round_number=place[0], agent_id=place[1]
                )
            places.add(place)
        self._spend(commit.entries)
        last = -1
        for entry in commit.entries:
            ended_record = entry.record
            told: tuple[str | None, ...] = ()
            if ended_record is not None:
                by_text = kept.answers_by_text(ended_record.round_number)
                told = record_texts(ended_record, answers_by_text=by_text)
            logged = self.log.place(entry.document, opened(entry.salts, told))
            kept.events += events_in(logged.entry, after=len(kept.events))
            last = logged.index
            if entry.document["type"] == "call.intended":
                kept.calls[CallKey.of(entry.document)] = intended_call(entry.document, last)
            if entry.charge is not None:
                charge = LedgerCharge(*charge_values(entry.charge, entry.document))
                call = CallKey(charge.round_number, charge.agent_id, charge.purpose, charge.attempt)
                kept.charges[call] = charge
            if ended_record is not None:
                place = (ended_record.round_number, ended_record.agent_id)
                kept.records[place] = StoredRecord(ended_record, logged, entry.salts)
        if commit.deliberation is not None:
            ended = replace(commit.deliberation, question_salt=kept.deliberation.question_salt)
            if ended.status.is_terminal:
                kept.lease = None
                head = await self.log.head()
                ended = replace(
                    ended, witness=WitnessSpan(kept.first_index, last, head.tree_size, head.root_hash.hex())
                )
            kept.deliberation = ended
            return ended.witness
        return None

    def _spend(self, entries: Sequence[Entry]) -> None:
        """Move what the keys have spent, all of it or nothing."""

        def used(key_name: str, first: str, last: str) -> int:
            theirs = ((day, amount) for (key, day), amount in self._spent.items() if key == key_name)
            return sum(amount for day, amount in theirs if first <= day <= last)

        movements = [move for entry in entries for move in Movement.of(entry.reservation, entry.charge)]
        for place, amount in spend(movements, self._budgets, used).items():
            self._spent[place] = self._spent.get(place, 0) + amount

    async def get(self, deliberation_id: str) -> Deliberation | None:
        """As in `DeliberationReader`."""
        kept = self._kept.get(deliberation_id)
        return None if kept is None else self._compared(kept).deliberation

    async def page(
        self,
        *,
        status: DeliberationStatus | None,
        key_name: str | None,
        limit: int,
        cursor: str | None,
        origin: str | None = None,
        search: Search | None = None,
    ) -> Page:
        """As in `DeliberationReader`; without rounds, and failures without the agents' texts."""
        before = len(self._kept) + 1 if cursor is None else position_of(cursor)
        found = [kept for kept in self._found(status, key_name, origin=origin, search=search) if kept.position < before]
        items = tuple(self._compared(kept).at_a_glance for kept in found[:limit])
        return Page(items, cursor_of(found[limit - 1].position) if len(found) > limit else None)

    async def count(
        self,
        *,
        status: DeliberationStatus | None,
        key_name: str | None,
        origin: str | None = None,
        search: Search | None = None,
    ) -> int:
        """As in `DeliberationReader`."""
        return len(self._found(status, key_name, origin=origin, search=search))

    def _found(
        self, status: DeliberationStatus | None, key_name: str | None, *, origin: str | None, search: Search | None
    ) -> list[KeptDeliberation]:
        return [
            kept
            for kept in reversed(self._kept.values())
            if (status is None or kept.deliberation.status is status)
            and (key_name is None or kept.deliberation.key_name == key_name)
            and (origin is None or kept.origin == origin)
            and (search is None or search.matches(kept.deliberation))
        ]

    async def origins(self, *, since: datetime, key_name: str | None) -> Mapping[str, int]:
        """As in `DeliberationReader`."""
        return Counter(
            kept.origin
            for kept in list(self._kept.values())[-_COUNTED_TOPICS:]
            if kept.origin is not None
            and kept.deliberation.created_at >= since
            and (key_name is None or kept.deliberation.key_name == key_name)
        )

    async def stored(self, *, after: int, limit: int) -> Sequence[StoredDeliberation]:
        """As in `DeliberationReader`."""
        found = [kept for kept in self._kept.values() if kept.position > after][:limit]
        return [
            replace(self._stored(kept), calls=list(kept.calls.values()), charges=list(kept.charges.values()))
            for kept in found
        ]

    async def records(
        self, deliberation_id: str, *, round_number: int | None = None, after: int = -1
    ) -> Sequence[StoredRecord]:
        """As in `DeliberationReader`."""
        kept = self._kept.get(deliberation_id)
        stored = () if kept is None else kept.records.values()
        return [
            item
            for item in stored
            if (round_number is None or item.record.round_number == round_number) and item.witnessed.index > after
        ]

    def spent_calls(self) -> Iterator[SpentCall]:
        """Every call of the ledger, for an `InMemoryUsageReader`."""
        for kept in self._kept.values():
            yield from kept.spent_calls()

    async def events(self, deliberation_id: str, *, after: int, limit: int) -> Sequence[Event]:
        """As in `DeliberationReader`."""
        kept = self._kept.get(deliberation_id)
        start = max(after, 0)
        return [] if kept is None else kept.events[start : start + limit]

    async def remembered(self, scope: str, key: str) -> RememberedKey | None:
        """As in `DeliberationReader`."""
        found, until = self._keys.get((scope, key), (None, datetime.max.replace(tzinfo=UTC)))
        return found if until > self._clock.now() else None

    async def waiting(self, *, limit: int, begun_only: bool = False) -> Sequence[Waiting]:
        """As in `Leases`."""
        statuses = (
            {DeliberationStatus.RUNNING} if begun_only else {DeliberationStatus.QUEUED, DeliberationStatus.RUNNING}
        )
        free = [kept for kept in self._kept.values() if kept.deliberation.status in statuses and self._is_free(kept)]
        return [Waiting(kept.deliberation.id, kept.deliberation.key_name) for kept in free[:limit]]

    async def claim(self, deliberation_id: str, *, lease: str, lease_s: float) -> Claim | None:
        """As in `Leases`. Raises `RecordMismatchError` where what is kept is not what was recorded; it is held all the same."""
        await self._commit()
        kept = self._kept.get(deliberation_id)
        if kept is None or not self._is_free(kept):
            return None
        kept.lease, kept.lease_until = lease, self._clock.now() + timedelta(seconds=lease_s)
        stored = self._compared(kept)
        return Claim(
            stored.deliberation,
            lease,
            stored.records,
            list(kept.calls.values()),
            stored.entries,
            list(kept.charges.values()),
        )

    async def renew(self, held: Mapping[str, str], *, lease_s: float) -> Renewal:
        """As in `Leases`; what another has claimed meanwhile stays with the other."""
        await self._commit()
        kept = self._held(held)
        for each in kept:
            each.lease_until = self._clock.now() + timedelta(seconds=lease_s)
        found = {each.deliberation.id for each in kept}
        return Renewal(
            cancelled=[each.deliberation.id for each in kept if each.cancel_requested],
            lost=[own for own in held if own not in found],
        )

    async def release(self, held: Mapping[str, str]) -> None:
        """As in `Leases`."""
        await self._commit()
        for kept in self._held(held):
            kept.lease = None

    async def release_process(self, process: str) -> int:
        """As in `Leases`."""
        await self._commit()
        theirs = [kept for kept in self._kept.values() if (kept.lease or "").startswith(f"{process}/")]
        for kept in theirs:
            kept.lease = None
        return len(theirs)

    async def request_cancel(self, deliberation_id: str) -> None:
        """As in `Leases`. Raises `DeliberationNotFoundError`, and `DeliberationEndedError` when it is too late."""
        await self._commit()
        self._unfinished(deliberation_id).cancel_requested = True

    def _may_erase(self, deliberation_id: str) -> None:
        kept = self._kept.get(deliberation_id)
        if kept is None:
            raise DeliberationNotFoundError(deliberation_id=deliberation_id)
        if not kept.deliberation.status.is_terminal:
            raise IllegalTransitionError(present=kept.deliberation.status.value, wanted="erased")
        if not kept.deliberation.erased:
            kept.erase()
            for place, (found, until) in self._keys.items():
                if found.deliberation_id == deliberation_id:
                    self._keys[place] = RememberedKey(deliberation_id, ""), until

    def _may_follow_up(self, deliberation_id: str) -> None:
        kept = self._kept.get(deliberation_id)
        if kept is None:
            raise DeliberationNotFoundError(deliberation_id=deliberation_id)
        if not kept.deliberation.status.is_terminal:
            raise IllegalTransitionError(present=kept.deliberation.status.value, wanted="followed up")

    def _compared(self, kept: KeptDeliberation) -> StoredDeliberation:
        stored = self._stored(kept)
        require_recorded(stored, read_json=read_json)
        return stored

    def _stored(self, kept: KeptDeliberation) -> StoredDeliberation:
        deliberation = kept.in_full()
        root = None if deliberation.witness is None else self.log.root_at(deliberation.witness.tree_size)
        return StoredDeliberation(
            position=kept.position,
            first_index=kept.first_index,
            deliberation=deliberation,
            at_a_glance=kept.at_a_glance(),
            salts=kept.salts,
            records=list(kept.records.values()),
            entries=self.log.of(deliberation.id),
            root_hash=None if root is None else root.hex(),
        )

    async def _commit(self) -> None:
        if self._before_commit is not None:
            await self._before_commit()

    def _held(self, held: Mapping[str, str]) -> list[KeptDeliberation]:
        return [
            kept for own, lease in held.items() if (kept := self._kept.get(own)) is not None and kept.lease == lease
        ]

    def _is_free(self, kept: KeptDeliberation) -> bool:
        ended = kept.deliberation.status.is_terminal
        return not ended and (kept.lease is None or kept.lease_until < self._clock.now())

    def _remember(self, idempotency: IdempotencyKey, deliberation_id: str) -> None:
        place, now = (idempotency.scope, idempotency.key), self._clock.now()
        found, until = self._keys.get(place, (None, now))
        if found is not None and until > now:
            raise IdempotencyKeyTakenError(deliberation_id=found.deliberation_id, body_sha256=found.body_sha256)
        self._keys[place] = RememberedKey(deliberation_id, idempotency.body_sha256), now + REMEMBERED_FOR

    def _unfinished(self, deliberation_id: str) -> KeptDeliberation:
        kept = self._kept.get(deliberation_id)
        if kept is None:
            raise DeliberationNotFoundError(deliberation_id=deliberation_id)
        if kept.deliberation.status.is_terminal:
            raise DeliberationEndedError(deliberation_id=deliberation_id, status=kept.deliberation.status.value)
        return kept


def _check(record: AgentRecord) -> None:
    failure = record.failure
    texts = (record.content, record.reasoning, record.model_asked, record.model)
    for text in texts if failure is None else (*texts, failure.kind, failure.message):
        if text is not None and not is_storable(text):
            raise ValueError("a text holds a NUL or a lone surrogate: clean texts before they are recorded.")
