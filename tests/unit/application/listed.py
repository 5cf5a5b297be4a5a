"""What a list is about to show of a deliberation, with all that it is compared with, to be changed by tests."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from application.ports.deliberation_repository import StoredDeliberation, StoredRecord
from application.ports.witness_log import LoggedEntry
from application.services.glance_check import END_OF_A_CALL_ENTRY, GlanceComparison, Place, Spoken, StoredGlance
from infrastructure.persistence.standing import Result

__all__ = ["Listed"]


@dataclass(frozen=True)
class Listed:
    """What a list is about to show, with all that it is compared with."""

    glance: StoredGlance
    entries: Sequence[LoggedEntry]
    spoken: Mapping[Place, Spoken]

    @classmethod
    def of(cls, stored: StoredDeliberation) -> Listed:
        """What is stored, as a list reads it."""
        glance = StoredGlance(
            stored.at_a_glance,
            Result.of(stored.deliberation).rounds,
            stored.first_index,
            stored.salts,
            stored.root_hash,
        )
        return cls(glance, stored.entries, {_place(item): _spoken(item) for item in stored.records})

    def compare(self) -> None:
        """Show it, if it is what was recorded. Raises `RecordMismatchError`."""
        comparison = GlanceComparison(self.glance, json.loads)
        comparison.read(
            (
                each.index,
                each.leaf_hash,
                each.sequence,
                None if each.entry.endswith(END_OF_A_CALL_ENTRY) else each.entry,
            )
            for each in self.entries
        )
        places = comparison.compare()
        comparison.compare_words({place: self.spoken[place] for place in places if place in self.spoken})

    def shown(self, **changes: Any) -> Listed:
        """With other fields of the deliberation."""
        return replace(self, glance=replace(self.glance, shown=replace(self.glance.shown, **changes)))

    def asked(self, **changes: Any) -> Listed:
        """With other fields of what was asked."""
        return self.shown(specification=replace(self.glance.shown.specification, **changes))

    def outcome(self, **changes: Any) -> Listed:
        """With other fields of the outcome."""
        outcome = self.glance.shown.outcome
        assert outcome is not None
        return self.shown(outcome=replace(outcome, **changes))

    def with_entry(self, at: int, **changes: Any) -> Listed:
        """With another entry there."""
        entries = list(self.entries)
        entries[at] = replace(entries[at], **changes)
        return replace(self, entries=entries)

    def said(self, place: Place, **changes: Any) -> Listed:
        """With other words of that agent."""
        return replace(self, spoken={**self.spoken, place: self.spoken[place]._replace(**changes)})


def _place(item: StoredRecord) -> Place:
    return item.record.round_number, item.record.agent_id


def _spoken(item: StoredRecord) -> Spoken:
    answer = item.record.answer
    return Spoken(item.record.reasoning, item.salts, answer if isinstance(answer, str) else None)
