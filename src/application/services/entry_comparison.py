"""What comparisons of a stored deliberation with its entries are made of: two documents side by side, and the first part that differs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from itertools import islice
from typing import Any, NoReturn

from application.ports.witness_log import LoggedEntry
from domain.errors.deliberation import RecordMismatchError
from domain.models.deliberation import Deliberation
from domain.models.outcome import Outcome
from domain.voting.synthesis import decision_of, sentences_of
from domain.voting.tally import MAX_REASONS
from domain.witness.entry import accepted, time_text

__all__ = ["Document", "EntryComparison", "document_of", "drawn_from", "text_of_time"]

Document = Mapping[str, Any]
"""An entry, read."""

_MAX_EVIDENCE = 200
# Their commitments cannot be made again without the texts, so they are left out where these are erased.
_ACCEPTED_TEXTS = frozenset({"question", "context", "key_name", "members", "origin"})


class EntryComparison:
    """Compares one deliberation, as it is `shown`, with its entries. Raises `RecordMismatchError` naming the first part that differs."""

    def __init__(self, shown: Deliberation) -> None:
        self._shown = shown
        self._told: list[tuple[LoggedEntry, Document]] = []

    def _compare_accepted(self, salts: bytes | None, first_index: int | None) -> bool:
        """What it was accepted as, where that stands in the log, and whether its texts are erased, which is given back."""
        entry, recorded = self._only("deliberation.accepted") or self._refuse("acceptance", None, "stored", None)
        erased = bool(self._of("erased"))
        self._equal("erased", self._shown.erased, erased)
        self._equal("erased", salts is None, erased)
        self._equal("witness span", first_index, entry.index, entry)
        made = self._made(lambda: accepted(self._shown, salts=drawn_from(salts)).document)
        skipped: frozenset[str] = frozenset()
        if salts is None:
            skipped = _ACCEPTED_TEXTS
            self._equal("members", _voiceless(made), _voiceless(recorded), entry)
            if _has_texts(self._shown):
                self._refuse("erased texts", entry, "none", "some")
        self._compare(entry, recorded, made, skipped)
        return erased

    def _compare_start(self) -> Sequence[tuple[LoggedEntry, Document]]:
        """When it began; the entries with which its rounds did."""
        starts = self._of("round.started")
        entry, recorded = starts[0] if starts else (None, {})
        self._equal("started_at", text_of_time(self._shown.started_at), recorded.get("at"), entry)
        return starts

    def _compare_quotes(
        self, outcome: Outcome, reason_of: Callable[[str], str | None], answer_of: Callable[[str], str | None]
    ) -> None:
        """The words of agents in the outcome: reasons, claims, and the decision that is made of these.

        The two tell what an agent, by id, said with the ballot that counted of it, None for nothing.
        """
        for position in outcome.dissent.positions:
            # No more are looked at than are shown.
            given = filter(None, map(reason_of, position.agents))
            if tuple(islice(given, MAX_REASONS)) != position.reasons:
                self._refuse("outcome reasons", None, "", "")
        synthesis = outcome.synthesis
        if synthesis is None:
            return
        for claim in synthesis.claims:
            answer = answer_of(claim.source)
            said = [] if answer is None else sentences_of(answer)
            found = said[claim.sentence] if claim.sentence < len(said) else None
            if claim.text != found:
                self._refuse("outcome claims", None, found, claim.text)
        chosen = synthesis.chosen
        self._equal("outcome decision", outcome.decision, None if chosen is None else decision_of(synthesis, chosen))

    def _compare_span(self, ended: LoggedEntry, first_index: int | None, root_hash: str | None) -> None:
        """Where in the log it stands, and the root of the tree that its end was shown with."""
        witness = self._shown.witness
        if witness is None:
            self._refuse("witness span", ended, "", None)
        self._equal("witness span", witness.first_index, first_index, ended)
        self._equal("witness span", witness.last_index, ended.index, ended)
        if witness.tree_size <= ended.index:
            self._refuse("witness span", ended, f"more than {ended.index}", witness.tree_size)
        self._equal("witness span", witness.root_hash, root_hash, ended)

    def _made(self, make: Callable[[], Document]) -> Document:
        try:
            return make()
        except (ValueError, TypeError, LookupError, AttributeError):
            self._refuse("form", None, "", "unreadable")

    def _compare(self, entry: LoggedEntry, recorded: Document, made: Document, skipped: frozenset[str]) -> None:
        for name in {**made, **recorded}:
            if name not in skipped and (
                name not in recorded or name not in made or not _same(recorded[name], made[name])
            ):
                self._refuse(name, entry, recorded.get(name), made.get(name))

    def _equal(self, part: str, found: object, recorded: object, entry: LoggedEntry | None = None) -> None:
        if found != recorded:
            self._refuse(part, entry, recorded, found)

    def _refuse(self, part: str, entry: LoggedEntry | None, recorded: object, found: object) -> NoReturn:
        raise RecordMismatchError(
            deliberation_id=self._shown.id,
            part=part,
            recorded=_evidence(recorded),
            found=_evidence(found),
            index=None if entry is None else entry.index,
        )

    def _of(self, kind: str) -> list[tuple[LoggedEntry, Document]]:
        return [told for told in self._told if told[1].get("type") == kind]

    def _only(self, kind: str) -> tuple[LoggedEntry, Document] | None:
        found = self._of(kind)
        if len(found) > 1:
            self._refuse("entry", found[1][0], f"one {kind}", len(found))
        return found[0] if found else None


def document_of(entry: bytes, read_json: Callable[[bytes], Any]) -> Document | None:
    """The entry as a document; None where it is none."""
    try:
        document = read_json(entry)
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


def drawn_from(salts: bytes | None) -> Callable[[int], bytes]:
    """What draws these salts again, zeros where they are too short."""
    return lambda size: (salts or b"").ljust(size, b"\x00")


def text_of_time(at: datetime | None) -> str | None:
    """The moment as entries have it, None for none."""
    return None if at is None else time_text(at)


def _voiceless(document: Document) -> list[tuple[Any, Any]]:
    """The members of an accepted deliberation without what they speak from."""
    members = document.get("members")
    return [(each.get("agent_id"), each.get("model")) for each in members or () if isinstance(each, dict)]


def _has_texts(deliberation: Deliberation) -> bool:
    specification = deliberation.specification
    question = specification.question
    personas = (agent.persona.text for agent in specification.roster.agents)
    return bool(question.text or question.context or specification.metadata or specification.origin or any(personas))


def _same(recorded: object, made: object) -> bool:
    # JSON tells true from 1, and so does what is shown.
    return recorded == made and isinstance(recorded, bool) is isinstance(made, bool)


def _evidence(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= _MAX_EVIDENCE else f"{text[:_MAX_EVIDENCE]}…"
