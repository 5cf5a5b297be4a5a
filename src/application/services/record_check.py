"""Compares what is stored of a deliberation with the entries that witness it: what differs in anything is not shown.

What no entry vouches for, and can therefore only be trusted: metadata but its origin, `cancel_requested`, the roster's description
and the names of its personas, the order of a tally, the name of the key once the texts are erased, and of a witness span that its
tree is the one right after the end and not a later one.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import astuple, replace
from itertools import zip_longest
from typing import Any

from application.ports.deliberation_repository import LedgerCall, StoredDeliberation, StoredRecord
from application.ports.witness_log import LoggedEntry
from application.services.continuation import intended_call
from application.services.entry_comparison import Document, EntryComparison, document_of, drawn_from, text_of_time
from domain.errors.deliberation import RecordMismatchError
from domain.models.budget import Usage
from domain.models.deliberation import DeliberationStatus
from domain.models.money import usd
from domain.models.question import AnswerFormat, AnswerKind
from domain.models.roll_call import RollCall
from domain.models.round import AgentRecord
from domain.protocols.proceedings import Proceedings
from domain.witness.entry import NOBODY, agent_ended, deliberation_ended, record_of
from domain.witness.happenings import event_count
from domain.witness.merkle import leaf_hash
from domain.witness.result_documents import round_document

__all__ = ["require_recorded", "require_witnessed"]

# Their commitments cannot be made again without the texts, so they are left out where these are erased.
_RECORD_TEXTS = frozenset({"content", "reasoning", "failure", "answer"})


def require_recorded(stored: StoredDeliberation, *, read_json: Callable[[bytes], Any] = json.loads) -> None:
    """Return if every part of it is what its entries make it. Raises `RecordMismatchError` naming the first part that is not.

    Entries have to hash to their leaves, to stand under the right deliberation and to be numbered by the events they make.
    `read_json` raises `ValueError` for what is no JSON.
    """
    _Comparison(stored, read_json).run()


def require_witnessed(deliberation_id: str, item: StoredRecord, answers: AnswerFormat, *, erased: bool) -> None:
    """Return if the record is what its entry says, and the entry hashes to its leaf. Raises `RecordMismatchError`.

    Where the texts are `erased`, the record must have none.
    """
    witnessed = item.witnessed
    found = leaf_hash(witnessed.entry)
    document = document_of(witnessed.entry, json.loads) if found == witnessed.leaf_hash else None
    if document is None or not _is_said(document, deliberation_id, item, answers, erased=erased):
        raise _unwitnessed(deliberation_id, item, found)


class _Comparison(EntryComparison):
    def __init__(self, stored: StoredDeliberation, read_json: Callable[[bytes], Any]) -> None:
        super().__init__(stored.deliberation)
        self._stored = stored
        self._read_json = read_json

    def run(self) -> None:
        self._read_entries()
        erased = self._compare_accepted(self._stored.salts, self._stored.first_index)
        self._compare_records(erased=erased)
        self._compare_calls()
        self._compare_charges()
        starts = self._compare_start()
        ended = self._only("deliberation.ended")
        if ended is None:
            self._compare_unfinished(begun=bool(starts))
        else:
            self._compare_ended(*ended, starts)
        glance = replace(
            self._shown, rounds=(), failures=tuple(_without_words(record) for record in self._shown.failures)
        )
        if glance != self._stored.at_a_glance:
            self._refuse("what lists show", None, "", "")

    def _read_entries(self) -> None:
        sequence = 0
        for entry in self._stored.entries:
            computed = leaf_hash(entry.entry)
            if computed != entry.leaf_hash:
                self._refuse("entry", entry, entry.leaf_hash.hex(), computed.hex())
            document = document_of(entry.entry, self._read_json)
            if document is None or document.get("deliberation_id") != self._shown.id:
                self._refuse("entry", entry, self._shown.id, None if document is None else "another")
            try:
                sequence += event_count(document)
            except (LookupError, TypeError):
                self._refuse("entry", entry, "", "")
            self._equal("sequence", entry.sequence, sequence, entry)
            self._told.append((entry, document))

    def _compare_records(self, *, erased: bool) -> None:
        specification = self._shown.specification
        nobody: tuple[LoggedEntry | None, Document] = (None, {})
        for item, told in zip_longest(self._stored.records, self._of("agent.ended")):
            ending, document = told or nobody
            if item is None:
                self._refuse("records", ending, "one", "none")
            if ending is None or item.witnessed.index != ending.index:
                self._refuse("records", ending, "another", f"{item.record.agent_id!r}, entry {item.witnessed.index}")
            answers = specification.answers_in(item.record.round_number)
            if not _is_said(document, self._shown.id, item, answers, erased=erased):
                raise _unwitnessed(self._shown.id, item, ending.leaf_hash)

    def _compare_calls(self) -> None:
        if self._stored.calls is None:
            return
        for call, told in zip_longest(self._stored.calls, self._of("call.intended")):
            entry, document = told or (None, {})
            intended = None if entry is None else astuple(self._call_of(document, entry))
            self._equal("calls", None if call is None else astuple(call), intended, entry)

    def _call_of(self, document: Document, entry: LoggedEntry) -> LedgerCall:
        try:
            return intended_call(document, entry.index)
        except (LookupError, TypeError, ValueError, ArithmeticError):
            self._refuse("calls", entry, "", "unreadable")

    def _compare_charges(self) -> None:
        """What each agent's calls took, added up, is what its record says; no call was charged that was not intended."""
        calls, charges = self._stored.calls, self._stored.charges
        if calls is None or charges is None:
            return
        held = {(call.round_number, call.agent_id, call.attempt): call for call in calls}
        turns = {(call.round_number, call.agent_id) for call in calls}
        taken: dict[tuple[int, str], Usage] = {}
        for charge in charges:
            call = held.get((charge.round_number, charge.agent_id, charge.attempt))
            if call is None or (not charge.is_certain and charge.cost != call.held_cost):
                self._refuse("charges", None, "none", f"{charge.agent_id!r}, attempt {charge.attempt}")
            turn = (charge.round_number, charge.agent_id)
            usage = Usage(1, charge.input_tokens, charge.output_tokens, usd(charge.cost or 0))
            if not charge.is_certain:
                usage = Usage(1, uncertain_tokens=call.held_tokens, uncertain_usd=usd(call.held_cost or 0))
            taken[turn] = taken.get(turn, Usage()) + usage
        for item in self._stored.records:
            record = item.record
            turn = (record.round_number, record.agent_id)
            found = taken.get(turn, Usage())
            if turn in turns and not _is_same_usage(found, record.usage):
                self._refuse("charges", item.witnessed, astuple(record.usage), astuple(found))
        for entry, told in self._of("texts.compared"):
            found = taken.get((told.get("round", 0), NOBODY), Usage())
            recorded = _usage_in(told)
            if recorded is None or not _is_same_usage(found, recorded):
                self._refuse("charges", entry, told.get("usage"), astuple(found))

    def _compare_unfinished(self, *, begun: bool) -> None:
        shown = self._shown
        status = DeliberationStatus.RUNNING if begun else DeliberationStatus.QUEUED
        self._equal("status", shown.status.value, status.value)
        for part, value in (
            ("finished_at", shown.finished_at),
            ("outcome", shown.outcome),
            ("reason", shown.reason),
            ("witness span", shown.witness),
        ):
            if value is not None:
                self._refuse(part, None, None, "stored")
        records = [item.record for item in self._stored.records]
        self._compare_derived(records)
        by_round: dict[int, list[AgentRecord]] = {}
        for record in records:
            by_round.setdefault(record.round_number, []).append(record)
        if [(each.number, list(each.records)) for each in shown.rounds] != sorted(by_round.items()):
            self._refuse("rounds", None, "", "")

    def _compare_ended(
        self, entry: LoggedEntry, recorded: Document, starts: Sequence[tuple[LoggedEntry, Document]]
    ) -> None:
        shown = self._shown
        # First, because without it the rest of an unfinished one could not even be made.
        self._equal("status", shown.status.value, recorded.get("status"), entry)
        self._equal("finished_at", text_of_time(shown.finished_at), recorded.get("at"), entry)
        before = [each.leaf_hash for each, _ in self._told if each.index < entry.index]
        self._equal("record_sha256", recorded.get("record_sha256"), hashlib.sha256(b"".join(before)).hexdigest(), entry)
        for start, told in starts:
            self._compare_round_before(start, told)
        made = self._made(lambda: deliberation_ended(shown, cause=shown.reason).document)
        self._compare(entry, recorded, made, frozenset({"record_sha256", "certificate"}))
        self._compare_certificate(entry, recorded, made, before)
        self._compare_derived([record for each in shown.rounds for record in each.records])
        self._compare_words()
        self._compare_span(entry, self._stored.first_index, self._stored.root_hash)

    def _compare_certificate(
        self, entry: LoggedEntry, recorded: Document, made: Document, leaves: Sequence[bytes]
    ) -> None:
        """`leaves` are those of all entries before the end. Ends of earlier versions have no certificate."""
        if "certificate" in recorded:
            whole = {**made["certificate"], "record": record_of(leaves)}
            self._compare(entry, {"certificate": recorded["certificate"]}, {"certificate": whole}, frozenset())

    def _compare_round_before(self, start: LoggedEntry, recorded: Document) -> None:
        """How a round ended stands in the entry with which the next one began."""
        previous = recorded.get("previous")
        if previous is not None:
            ended = [round_document(each) for each in self._shown.rounds if each.number + 1 == recorded.get("round")]
            self._equal("rounds", ended, [previous], start)

    def _compare_derived(self, records: Sequence[AgentRecord]) -> None:
        """What follows from records that were compared: roll call, failures, usage and models."""
        shown = self._shown
        last = {record.agent_id: record for record in records}
        stored = {(item.record.round_number, item.record.agent_id): item.record for item in self._stored.records}
        if any(stored.get((record.round_number, record.agent_id)) != record for record in records):
            self._refuse("rounds", None, "", "")
        self._equal("roll_call", shown.roll_call, RollCall.of(record.state for record in last.values()))
        if shown.failures != tuple(record for record in records if not record.state.took_part):
            self._refuse("failures", None, "", "")
        self._equal("models", list(shown.models), sorted({record.model for record in records if record.model}))

    def _compare_words(self) -> None:
        outcome = self._shown.outcome
        if outcome is None:
            return
        proceedings = Proceedings(self._shown, [record for each in self._shown.rounds for record in each.records])
        # Of each the ballot that counted: whoever failed later keeps the one of an earlier round.
        counted = proceedings.counted(proceedings.last or 0)

        def reason_of(agent_id: str) -> str | None:
            return counted[agent_id].reasoning if agent_id in counted else None

        def answer_of(agent_id: str) -> str | None:
            answer = counted[agent_id].answer if agent_id in counted else None
            return answer if isinstance(answer, str) else None

        self._compare_quotes(outcome, reason_of, answer_of)


def _unwitnessed(deliberation_id: str, item: StoredRecord, found: bytes) -> RecordMismatchError:
    return RecordMismatchError(
        deliberation_id=deliberation_id,
        agent_id=item.record.agent_id,
        round_number=item.record.round_number,
        recorded=item.witnessed.leaf_hash.hex(),
        found=found.hex(),
        index=item.witnessed.index,
    )


def _is_said(
    document: Document, deliberation_id: str, item: StoredRecord, answers: AnswerFormat, *, erased: bool
) -> bool:
    """Whether the entry is the one that this record makes with these salts."""
    record, salts = item.record, item.salts
    if erased is not (salts is None):
        return False
    try:
        made = agent_ended(deliberation_id, record, answers, salts=drawn_from(salts)).document
    except (ValueError, TypeError, AttributeError):
        # An answer that is none of the options, or a time without a zone, can only come from a changed row.
        return False
    if not erased:
        return document == made
    failure = record.failure
    if record.content is not None or record.reasoning is not None or (failure is not None and failure.message):
        return False
    if answers.kind is AnswerKind.TEXT and record.answer is not None:
        return False
    return _without_texts(document) == _without_texts(made)


def _without_texts(document: Document) -> Document:
    failure, answer = document.get("failure"), document.get("answer")
    kind = failure.get("kind") if isinstance(failure, dict) else failure
    rest = {name: value for name, value in document.items() if name not in _RECORD_TEXTS}
    return {**rest, "failure": kind, "answer": None if isinstance(answer, dict) else answer}


def _without_words(record: AgentRecord) -> AgentRecord:
    return replace(record, content=None, answer=None, reasoning=None)


def _usage_in(document: Document) -> Usage | None:
    try:
        return Usage(**document["usage"])
    except (LookupError, TypeError):
        return None


def _is_same_usage(one: Usage, other: Usage) -> bool:
    """Whether they are the same but for the last digits of sums of floats, and for calls that were intended and not made."""
    pairs = zip(astuple(one)[1:], astuple(other)[1:], strict=True)
    return all(math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-12) for a, b in pairs)
