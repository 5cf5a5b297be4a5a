"""What is added and appended, as rows that lack only their numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from application.ports.deliberation_repository import CallKey
from application.ports.idempotency import IdempotencyKey
from domain.models.deliberation import WitnessSpan
from domain.models.spending import Movement
from infrastructure.persistence.sequencer import EncodedEntry

__all__ = ["Addition", "AppendedEntry", "Appending"]


@dataclass(frozen=True, slots=True)
class Addition:
    """A deliberation to be added: its columns but for position and lease, those of its specification, who holds it, its key, where its
    topic came from, and the columns of `catalogue` but for the position.
    """

    deliberation: Mapping[str, Any]
    specification: Mapping[str, Any]
    lease: str | None
    lease_s: float
    idempotency: IdempotencyKey | None = None
    origin: str | None = None
    catalogued: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class AppendedEntry:
    """An entry beside the number of events that it makes, and the row of the agent that it is the end of, if it is one.

    `record` is round, agent, and the values of `agent_records` from `state` on but leaf index and salts. `call` is
    what the ledger knows an intended call by, `prompt_sha256` (hex) what it commits to, and `foreseen` the values of `calls` from `model`
    on. `charge` is the row of a call that is over, from `round_number` on, and `movements` are what both do to the budget of the key.
    """

    entry: EncodedEntry
    events: int
    record: tuple[int, str, tuple[Any, ...]] | None = None
    salts: bytes | None = None
    call: CallKey | None = None
    prompt_sha256: str | None = None
    foreseen: tuple[Any, ...] = ()
    charge: tuple[Any, ...] | None = None
    movements: Sequence[Movement] = ()


@dataclass(slots=True)
class Appending:
    """One call of `add` or `append` as rows that lack only their numbers.

    `standing` holds the columns of `deliberations` that change. `lease` is the one under which it has to be held. `doubtful` says
    that an earlier try of the same call may have been committed after all. `span` is set where the deliberation ends with it, and
    `came_out` is then how, as the catalogue has it: the outcome's status, and what the decision adds to the texts.
    """

    deliberation_id: str
    entries: Sequence[AppendedEntry]
    lease: str | None = None
    addition: Addition | None = None
    standing: Mapping[str, Any] | None = None
    doubtful: bool = False
    span: WitnessSpan | None = None
    came_out: tuple[str, str] | None = None

    def places(self) -> list[tuple[int, str]]:
        """The rounds and agents whose ends are among the entries."""
        return [(entry.record[0], entry.record[1]) for entry in self.entries if entry.record is not None]

    def calls(self) -> list[CallKey]:
        """The calls that are intended in the entries."""
        return [entry.call for entry in self.entries if entry.call is not None]
