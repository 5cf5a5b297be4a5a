"""The ports through which deliberations are stored, read and handed from one process to another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple, Protocol

from application.ports.idempotency import IdempotencyKey
from application.ports.witness_log import LoggedEntry
from domain.models.deliberation import Deliberation, DeliberationStatus, WitnessSpan
from domain.models.event import Event
from domain.models.round import AgentRecord
from domain.models.search import Search
from domain.witness.entry import Entry

__all__ = [
    "CallKey",
    "Claim",
    "Commit",
    "Commits",
    "DeliberationReader",
    "DeliberationRepository",
    "DeliberationStore",
    "Leases",
    "LedgerCall",
    "LedgerCharge",
    "Page",
    "RememberedKey",
    "Renewal",
    "StoredDeliberation",
    "StoredRecord",
    "Waiting",
]


@dataclass(frozen=True, slots=True)
class Commit:
    """What is stored in one step or not at all: entries in order, with their records, and the deliberation as it now is.

    With a `lease` it is stored only while the deliberation is held under it.
    """

    deliberation_id: str
    entries: Sequence[Entry] = ()
    deliberation: Deliberation | None = None
    lease: str | None = None


@dataclass(frozen=True, slots=True)
class RememberedKey:
    """Which deliberation an idempotency key stands for, and SHA-256 (hex) of the body that came with it, '' once that is erased."""

    deliberation_id: str
    body_sha256: str


class CallKey(NamedTuple):
    """What one call is known by within its deliberation: no two have the same."""

    round_number: int
    agent_id: str
    purpose: str
    attempt: int

    @classmethod
    def of(cls, intention: Mapping[str, Any]) -> CallKey:
        """That of the call that an entry `call.intended` tells of."""
        return cls(intention["round"], intention["agent_id"], intention["purpose"], intention["attempt"])


@dataclass(frozen=True, slots=True)
class LedgerCall:
    """A call that was intended, as the ledger has it; `prompt_sha256` (hex) commits to what was to be asked.

    `held_tokens` and `held_cost` (picodollars, None where the model has no known price) are what it takes at most, `day` (UTC,
    YYYY-MM-DD) is when it was intended.
    """

    round_number: int
    agent_id: str
    purpose: str
    attempt: int
    prompt_sha256: str | None
    leaf_index: int
    model: str | None = None
    day: str = ""
    held_tokens: int = 0
    held_cost: int | None = 0


@dataclass(frozen=True, slots=True)
class LedgerCharge:
    """What a call of the ledger took. Where nobody knows, it is not certain, and `cost` (picodollars) is all that it held."""

    round_number: int
    agent_id: str
    purpose: str
    attempt: int
    model: str | None
    input_tokens: int
    output_tokens: int
    cost: int | None
    is_certain: bool


@dataclass(frozen=True, slots=True)
class Claim:
    """A deliberation that is held from now on, as it stands, with everything that going on with it needs.

    `deliberation.rounds` are made of the `records` committed so far; `calls` is its ledger, `charges` are what those took that are over,
    and `entries` what the log says of it.
    """

    deliberation: Deliberation
    lease: str
    records: Sequence[StoredRecord] = ()
    calls: Sequence[LedgerCall] = ()
    entries: Sequence[LoggedEntry] = ()
    charges: Sequence[LedgerCharge] = ()


@dataclass(frozen=True, slots=True)
class Waiting:
    """An unfinished deliberation that nobody holds, and the name of the key that it was accepted from."""

    deliberation_id: str
    key_name: str | None


@dataclass(frozen=True, slots=True)
class Renewal:
    """Of the leases asked for: which deliberations are to be cancelled, and which are held no longer."""

    cancelled: Sequence[str] = ()
    lost: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class StoredRecord:
    """A record as it was read, beside the entry that witnesses it and the salts of its texts, None once they are erased."""

    record: AgentRecord
    witnessed: LoggedEntry
    salts: bytes | None


@dataclass(frozen=True, slots=True)
class StoredDeliberation:
    """All that is stored of a deliberation, as of one moment and compared with nothing yet.

    `at_a_glance` is what a page shows of it. `salts` are those of the texts it was accepted with, None once they are erased.
    `entries` are ascending by index, `records` in the order of their commit. `root_hash` is the root (hex) of the first
    `deliberation.witness.tree_size` leaves of the log, None where the log has none of that size. `calls` is its ledger in the order of
    the log, and `charges` what those took, in any order; None where that was not read.
    """

    position: int
    first_index: int | None
    deliberation: Deliberation
    at_a_glance: Deliberation
    salts: bytes | None
    records: Sequence[StoredRecord]
    entries: Sequence[LoggedEntry]
    root_hash: str | None = None
    calls: Sequence[LedgerCall] | None = None
    charges: Sequence[LedgerCharge] | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """Some deliberations, newest first, and the cursor of the next page, None on the last."""

    items: tuple[Deliberation, ...]
    next_cursor: str | None


class Commits(Protocol):
    """Takes what happens in deliberations: durable before it returns, so that it survives a crash of process and machine.

    Every entry becomes a leaf of the one witness log, in the same step. Appends to one deliberation keep their order, and the
    events that its entries make are numbered from 1 without gaps. Appends that end close together, of any deliberation, share one
    commit. Raises `DependencyUnavailableError` when the store is away; then nothing of that
    call is stored.
    """

    async def append(self, commit: Commit) -> WitnessSpan | None:
        """Store what happened; where the record of the deliberation stands, once this ended it.

        A record that is already there (same round and agent) is an error and stores nothing, and so is a call that is already in the
        ledger (`CallExistsError`), what another holder's lease covers by now (`LeaseLostError`), and a call that would take its API key
        past the budget of a day or a month (`BudgetExceededError`).
        """
        ...


class DeliberationRepository(Commits, Protocol):
    """Takes new deliberations too, in the same way."""

    async def add(
        self,
        deliberation: Deliberation,
        accepted: Entry,
        *,
        lease: str | None = None,
        lease_s: float = 0.0,
        idempotency: IdempotencyKey | None = None,
    ) -> None:
        """Store a new deliberation with its first entry, and what its caller calls it.

        It is held under `lease` for `lease_s` seconds from the start, or by nobody. Raises `IdempotencyKeyTakenError` when the key
        stands for another deliberation already; then nothing is stored.
        """
        ...


class DeliberationReader(Protocol):
    """Reads what is committed, and nothing else. Raises `DependencyUnavailableError` when the store is away.

    What `get` and `page` return has passed `require_recorded`; they raise `RecordMismatchError` where anything did not.
    """

    async def get(self, deliberation_id: str) -> Deliberation | None:
        """The deliberation as it stands, its rounds included once it ended, or None."""
        ...

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
        """Deliberations, newest first; `key_name` keeps only that caller's, `origin` those whose topic came from there.

        `search` keeps those that it matches. Pages that are read one after another miss none and repeat none of what was there when
        the first was read. Raises `InvalidSpecificationError` on a bad cursor.
        """
        ...

    async def count(
        self,
        *,
        status: DeliberationStatus | None,
        key_name: str | None,
        origin: str | None = None,
        search: Search | None = None,
    ) -> int:
        """How many deliberations all the pages together have now."""
        ...

    async def origins(self, *, since: datetime, key_name: str | None) -> Mapping[str, int]:
        """How many deliberations accepted since then came from where, of the last 10,000; those that do not say are left out."""
        ...

    async def stored(self, *, after: int, limit: int) -> Sequence[StoredDeliberation]:
        """The next deliberations after that position, ascending: what an audit compares, and nobody is shown.

        Raises `RecordMismatchError` for rows that cannot be read.
        """
        ...

    async def records(
        self, deliberation_id: str, *, round_number: int | None = None, after: int = -1
    ) -> Sequence[StoredRecord]:
        """The committed records in the order of their commit; only those whose leaf follows `after`."""
        ...

    async def events(self, deliberation_id: str, *, after: int, limit: int) -> Sequence[Event]:
        """The committed events with a sequence greater than `after`, in order."""
        ...

    async def remembered(self, scope: str, key: str) -> RememberedKey | None:
        """What an idempotency key stands for; None once it was forgotten, 24 h after it was used first."""
        ...


class Leases(Protocol):
    """Says which process works on a deliberation, one at a time. A lease that is not renewed runs out, and others may claim it.

    A lease is a text `PROCESS/NUMBER` that nobody uses twice: it fences off whoever held the deliberation before.
    """

    async def waiting(self, *, limit: int, begun_only: bool = False) -> Sequence[Waiting]:
        """Unfinished deliberations that nobody holds, oldest first; `begun_only` leaves out those that are still queued."""
        ...

    async def claim(self, deliberation_id: str, *, lease: str, lease_s: float) -> Claim | None:
        """Hold it under `lease` from now on; None when it ended, is held by another, or was never there. One claimant wins."""
        ...

    async def renew(self, leases: Mapping[str, str], *, lease_s: float) -> Renewal:
        """Hold these deliberations, each under its lease, for `lease_s` seconds more from now on."""
        ...

    async def release(self, leases: Mapping[str, str]) -> None:
        """Let go of these deliberations where they are held under these leases, so that another may claim them at once."""
        ...

    async def release_process(self, process: str) -> int:
        """Let go of everything that a process holds that is known to be dead; returns how much that was."""
        ...

    async def request_cancel(self, deliberation_id: str) -> None:
        """Ask whoever holds it to cancel it."""
        ...


class DeliberationStore(DeliberationRepository, DeliberationReader, Leases, Protocol):
    """All three over one store."""
