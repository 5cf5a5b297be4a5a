"""One deliberation as it is kept in memory: its state and lease, its events, its records, and the ledger of its calls."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime

from application.ports.deliberation_repository import CallKey, Commit, LedgerCall, LedgerCharge, StoredRecord
from domain.errors.deliberation import CallExistsError
from domain.models.deliberation import Deliberation
from domain.models.event import Event
from domain.models.question import AnswerKind
from domain.witness.happenings import events_of
from infrastructure.persistence.disclosing import without_record_texts, without_specification_texts
from infrastructure.persistence.disclosing import without_texts as without_words
from infrastructure.persistence.documents import load, time_from_text
from infrastructure.persistence.standing import Result, as_it_stands, without_texts
from infrastructure.stubs.in_memory_usage_reader import SpentCall

__all__ = ["KeptDeliberation", "events_in"]


@dataclass(slots=True)
class KeptDeliberation:
    """What is kept of one deliberation; `position` is its number among all, `lease` and `lease_until` say who has it and until when."""

    deliberation: Deliberation
    position: int
    cancel_requested: bool
    lease: str | None
    lease_until: datetime
    first_index: int
    salts: bytes | None
    origin: str | None = None
    events: list[Event] = field(default_factory=list)
    calls: dict[CallKey, LedgerCall] = field(default_factory=dict)
    charges: dict[CallKey, LedgerCharge] = field(default_factory=dict)
    records: dict[tuple[int, str], StoredRecord] = field(default_factory=dict)

    def standing(self) -> Deliberation:
        """The deliberation, without rounds and what follows from them while it is at work."""
        return replace(self.deliberation, cancel_requested=self.cancel_requested)

    def in_full(self) -> Deliberation:
        """The deliberation as `get` shows it."""
        if self.deliberation.status.is_terminal:
            return self.standing()
        return as_it_stands(self.standing(), [stored.record for stored in self.records.values()])

    def answers_by_text(self, round_number: int) -> bool:
        """Whether an answer of that round is free text."""
        return self.deliberation.specification.answers_in(round_number).kind is AnswerKind.TEXT

    def erase(self) -> None:
        """Forget every text."""
        self.salts = None
        for place, stored in self.records.items():
            by_text = self.answers_by_text(stored.record.round_number)
            bare = without_record_texts(stored.record, answers_by_text=by_text)
            self.records[place] = StoredRecord(bare, stored.witnessed, None)
        records = [stored.record for stored in self.records.values()]
        told = without_words(Result.of(self.deliberation))
        bare_deliberation = without_specification_texts(replace(self.deliberation, erased=True))
        self.deliberation = told.in_full(bare_deliberation, records)

    def at_a_glance(self) -> Deliberation:
        """The deliberation as `page` shows it."""
        if self.deliberation.status.is_terminal:
            return Result.of(self.deliberation).at_a_glance(self.standing())
        glances = [without_texts(stored.record) for stored in self.records.values()]
        return replace(as_it_stands(self.standing(), glances), rounds=())

    def require_new_calls(self, commit: Commit) -> None:
        """Returns if no call of it was intended before. Raises `CallExistsError` for the first that was."""
        intended: set[CallKey] = set()
        for entry in commit.entries:
            if entry.document["type"] == "call.intended":
                key = CallKey.of(entry.document)
                if key in self.calls or key in intended:
                    number, agent_id, _, attempt = key
                    raise CallExistsError(
                        deliberation_id=commit.deliberation_id, round_number=number, agent_id=agent_id, attempt=attempt
                    )
                intended.add(key)

    def spent_calls(self) -> Iterator[SpentCall]:
        """Every call of its ledger, with what is known of what it took."""
        for key, call in self.calls.items():
            spent = SpentCall(
                self.deliberation.id,
                self.position,
                self.deliberation.key_name,
                call.model,
                call.day,
                call.held_tokens,
                call.held_cost,
            )
            charge = self.charges.get(key)
            if charge is not None and charge.is_certain:
                spent = replace(
                    spent,
                    model=charge.model if charge.model is not None else call.model,
                    is_certain=True,
                    input_tokens=charge.input_tokens,
                    output_tokens=charge.output_tokens,
                    cost=charge.cost,
                )
            yield spent


def events_in(entry: bytes, *, after: int) -> list[Event]:
    """The events that an entry makes, numbered on from `after`."""
    document = load(entry.decode())
    at = time_from_text(document["at"])
    return [
        Event(document["deliberation_id"], sequence, kind, at, data)
        for sequence, (kind, data) in enumerate(events_of(document), after + 1)
    ]
