"""Nothing is shown of a deliberation that differs from its entries, and the first part that differs is named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest

from application.ports.deliberation_repository import StoredDeliberation, StoredRecord
from application.ports.witness_log import Erasure, LoggedEntry
from application.services.deliberation_output_service import DeliberationOutputService
from application.services.log_audit import AuditReport, audit
from application.services.record_check import require_recorded, require_witnessed
from domain.errors.deliberation import RecordMismatchError
from domain.errors.witness import VerificationRefusedError
from domain.models.deliberation import DeliberationStatus
from domain.models.question import AnswerFormat, AnswerKind
from domain.models.roll_call import AgentState, RollCall
from domain.models.round import FailureCause
from domain.witness.entry import accepted, time_text
from domain.witness.merkle import leaf_hash
from infrastructure.stubs.in_memory_repository import InMemoryRepository
from tests.deliberation_specimens import (
    NOON,
    committing,
    deliberation,
    ended,
    failed,
    opening,
    record,
    revised,
    started,
)
from tests.unit.application.fake_witness_log import Tools, key, signer

RECORDS = [record(0), record(1, answer="no"), failed(2)]
COMPLETED, FAILED, RUNNING, QUEUED = range(4)


@dataclass
class House:
    """A store with a deliberation of every standing, in the order of the constants above."""

    repository: InMemoryRepository
    ids: list[str]

    async def stored(self, which: int) -> StoredDeliberation:
        """All that is stored of one of them."""
        return (await self.repository.stored(after=which, limit=1))[0]

    async def erase(self, which: int) -> None:
        """Take its texts away."""
        document = {"type": "erased", "at": time_text(NOON), "deliberation_id": self.ids[which], "reason": None}
        await self.repository.log.erase(Erasure(self.ids[which], document))


@pytest.fixture
async def house() -> House:
    repository, ids = InMemoryRepository(), []
    for which in range(4):
        own = deliberation(key_name="mine")
        await repository.add(own, accepted(own), lease="me/1", lease_s=10.0)
        ids.append(own.id)
        if which == QUEUED:
            continue
        running = started(own)
        await repository.append(opening(running))
        await repository.append(committing(own.id, records=RECORDS))
        if which != RUNNING:
            over = ended(running, RECORDS) if which == COMPLETED else revised(running, [RECORDS])
            await repository.append(committing(own.id, deliberation=over))
    return House(repository, ids)


@pytest.mark.parametrize("which", [COMPLETED, FAILED, RUNNING, QUEUED])
async def test_what_nobody_changed_is_shown(house: House, which: int) -> None:
    require_recorded(await house.stored(which))
    assert await house.repository.get(house.ids[which]) is not None
    page = await house.repository.page(status=None, key_name=None, limit=10, cursor=None)
    assert [item.id for item in page.items] == house.ids[::-1]


@pytest.mark.parametrize("which", [COMPLETED, FAILED])
async def test_what_was_erased_is_shown_without_its_texts(house: House, which: int) -> None:
    await house.erase(which)
    require_recorded(await house.stored(which))
    shown = await house.repository.get(house.ids[which])
    assert shown is not None
    assert shown.erased
    assert shown.specification.question.text == ""


def _question(stored: StoredDeliberation, **changes: Any) -> StoredDeliberation:
    asked = stored.deliberation.specification
    return _asked(stored, question=replace(asked.question, **changes))


def _asked(stored: StoredDeliberation, **changes: Any) -> StoredDeliberation:
    return _shown(stored, specification=replace(stored.deliberation.specification, **changes))


def _shown(stored: StoredDeliberation, **changes: Any) -> StoredDeliberation:
    return replace(
        stored,
        deliberation=replace(stored.deliberation, **changes),
        at_a_glance=replace(stored.at_a_glance, **{name: new for name, new in changes.items() if name != "rounds"}),
    )


def _outcome(stored: StoredDeliberation, **changes: Any) -> StoredDeliberation:
    outcome = stored.deliberation.outcome
    assert outcome is not None
    return _shown(stored, outcome=replace(outcome, **changes))


def _reasons(stored: StoredDeliberation) -> StoredDeliberation:
    outcome = stored.deliberation.outcome
    assert outcome is not None
    positions = tuple(replace(each, reasons=("forged",)) for each in outcome.dissent.positions)
    return _outcome(stored, dissent=replace(outcome.dissent, positions=positions))


def _span(stored: StoredDeliberation, **changes: Any) -> StoredDeliberation:
    span = stored.deliberation.witness
    assert span is not None
    return _shown(stored, witness=replace(span, **changes))


def _failure(stored: StoredDeliberation) -> StoredDeliberation:
    lost = replace(stored.deliberation.failures[0], failure=FailureCause("agent_timeout", "forged"))
    return replace(stored, deliberation=replace(stored.deliberation, failures=(lost,)))


def _entry(stored: StoredDeliberation, at: int, **changes: Any) -> StoredDeliberation:
    entries = list(stored.entries)
    entries[at] = replace(entries[at], **changes)
    return replace(stored, entries=entries)


def _with_other_leaf(stored: StoredDeliberation, at: int, entry: bytes) -> StoredDeliberation:
    return _entry(stored, at, entry=entry, leaf_hash=leaf_hash(entry))


def _record(stored: StoredDeliberation, **changes: Any) -> StoredDeliberation:
    first, *others = stored.records
    return replace(stored, records=[replace(first, record=replace(first.record, **changes)), *others])


FORGERIES: list[tuple[str, Callable[[StoredDeliberation], StoredDeliberation]]] = [
    ("question", lambda each: _question(each, text="Shall we not?")),
    ("context", lambda each: _question(each, context=None)),
    ("answer", lambda each: _question(each, answer=AnswerFormat(AnswerKind.CHOICE, ("yes", "no", "never")))),
    ("seed", lambda each: _asked(each, seed=7)),
    ("origin", lambda each: _asked(each, metadata={"origin": "by hand"})),
    ("limits", lambda each: _asked(each, limits=replace(each.deliberation.specification.limits, deadline_s=1.0))),
    ("key_name", lambda each: _shown(each, key_name="yours")),
    ("at", lambda each: _shown(each, created_at=NOON + timedelta(seconds=1))),
    ("started_at", lambda each: _shown(each, started_at=NOON + timedelta(seconds=1))),
    ("finished_at", lambda each: _shown(each, finished_at=NOON)),
    ("simulated", lambda each: _shown(each, simulated=False)),
    ("orchestrator", lambda each: _shown(each, orchestrator="local")),
    ("status", lambda each: _shown(each, status=DeliberationStatus.RUNNING)),
    ("status", lambda each: _shown(each, status=DeliberationStatus.INQUORATE)),
    ("outcome", lambda each: _outcome(each, decision="no")),
    ("outcome", lambda each: _outcome(each, tally={"yes": 3})),
    ("outcome reasons", _reasons),
    ("roll_call", lambda each: _shown(each, roll_call=RollCall({AgentState.ANSWERED: 3}))),
    ("usage", lambda each: _shown(each, usage=replace(each.deliberation.usage, calls=0))),
    ("models", lambda each: _shown(each, models=("large",))),
    ("cause", lambda each: _shown(each, reason="because")),
    ("failures", _failure),
    ("failures", lambda each: _shown(each, failures=())),
    ("rounds", lambda each: _shown(each, rounds=())),
    ("what lists show", lambda each: replace(each, at_a_glance=replace(each.at_a_glance, models=("large",)))),
    ("witness span", lambda each: _shown(each, witness=None)),
    ("witness span", lambda each: _span(each, first_index=1)),
    ("witness span", lambda each: _span(each, last_index=1)),
    ("witness span", lambda each: _span(each, tree_size=2)),
    ("witness span", lambda each: _span(each, root_hash="00" * 32)),
    ("witness span", lambda each: replace(each, first_index=1)),
    ("erased", lambda each: _shown(each, erased=True)),
    ("erased", lambda each: replace(each, salts=None)),
    ("question", lambda each: replace(each, salts=bytes(16))),
    ("acceptance", lambda each: replace(each, entries=())),
    ("status", lambda each: replace(each, entries=each.entries[:-1])),
    ("sequence", lambda each: replace(each, entries=each.entries[1:])),
    ("sequence", lambda each: _entry(each, 2, sequence=7)),
    ("sequence", lambda each: _entry(each, 0, sequence=None)),
    ("entry", lambda each: _entry(each, 0, leaf_hash=bytes(32))),
    ("entry", lambda each: _with_other_leaf(each, 3, b"{}")),
    ("entry", lambda each: _with_other_leaf(each, 3, b"[]")),
    ("entry", lambda each: _with_other_leaf(each, 3, b"no JSON")),
    ("records", lambda each: replace(each, records=each.records[:-1])),
    ("records", lambda each: replace(each, records=each.records[::-1])),
    ("records", lambda each: replace(each, records=[*each.records, each.records[0]])),
]


@pytest.mark.parametrize(("part", "forge"), FORGERIES, ids=[f"{n} {part}" for n, (part, _) in enumerate(FORGERIES)])
async def test_the_part_that_differs_is_named(
    house: House, part: str, forge: Callable[[StoredDeliberation], StoredDeliberation]
) -> None:
    with pytest.raises(RecordMismatchError) as refusal:
        require_recorded(forge(await house.stored(COMPLETED)))
    assert refusal.value.part is not None
    assert (refusal.value.deliberation_id, refusal.value.part.split(" of ")[0]) == (house.ids[COMPLETED], part)


@pytest.mark.parametrize(
    "changes",
    [
        {"content": "forged"},
        {"reasoning": None},
        {"state": AgentState.ABSTAINED},
        {"answer": "none of the options"},
        {"model": "large"},
        {"truncated": True},
        {"started_at": NOON + timedelta(seconds=9)},
    ],
    ids=lambda changes: next(iter(changes)),
)
@pytest.mark.parametrize("which", [COMPLETED, RUNNING])
async def test_the_agent_whose_record_differs_is_named(house: House, which: int, changes: dict[str, Any]) -> None:
    with pytest.raises(RecordMismatchError, match="output of agent 'archon-0' in round 0") as refusal:
        require_recorded(_record(await house.stored(which), **changes))
    assert (refusal.value.agent_id, refusal.value.round_number) == ("archon-0", 0)


@pytest.mark.parametrize(
    ("which", "status"),
    [(RUNNING, DeliberationStatus.QUEUED), (QUEUED, DeliberationStatus.RUNNING), (RUNNING, DeliberationStatus.FAILED)],
)
async def test_no_other_state_is_shown_than_that_of_the_entries(
    house: House, which: int, status: DeliberationStatus
) -> None:
    with pytest.raises(RecordMismatchError, match=r"\(status\)"):
        require_recorded(_shown(await house.stored(which), status=status))


async def test_what_has_not_ended_shows_no_outcome(house: House) -> None:
    outcome = (await house.stored(COMPLETED)).deliberation.outcome
    with pytest.raises(RecordMismatchError, match=r"\(outcome\)"):
        require_recorded(_shown(await house.stored(RUNNING), outcome=outcome))


async def test_a_record_without_salts_is_shown_only_where_the_log_says_that_it_was_erased(house: House) -> None:
    stored = await house.stored(COMPLETED)
    hidden = StoredRecord(replace(stored.records[0].record, content="forged"), stored.records[0].witnessed, None)
    with pytest.raises(RecordMismatchError, match="archon-0"):
        require_recorded(replace(stored, records=[hidden, *stored.records[1:]]))
    with pytest.raises(RecordMismatchError, match="archon-0"):
        require_witnessed(house.ids[COMPLETED], hidden, stored.deliberation.specification.question.answer, erased=True)


@pytest.mark.parametrize(
    "forge",
    [
        lambda each: _question(each, text="forged"),
        lambda each: _question(each, context="forged"),
        lambda each: _asked(each, metadata={"origin": "forged"}),
        lambda each: _record(each, content="forged"),
        lambda each: _record(each, reasoning="forged"),
        lambda each: replace(each, salts=bytes(96)),
        lambda each: _shown(each, erased=False),
        _reasons,
    ],
    ids=["question", "context", "origin", "content", "reasoning", "salts", "not erased", "reasons"],
)
async def test_what_was_erased_takes_no_texts(
    house: House, forge: Callable[[StoredDeliberation], StoredDeliberation]
) -> None:
    await house.erase(COMPLETED)
    with pytest.raises(RecordMismatchError):
        require_recorded(forge(await house.stored(COMPLETED)))


async def test_the_error_names_no_text(house: House) -> None:
    forged = _question(await house.stored(COMPLETED), text="a secret question")
    with pytest.raises(RecordMismatchError) as refusal:
        require_recorded(forged)
    told = repr(vars(refusal.value)) + str(refusal.value)
    assert "a secret question" not in told
    assert "Innenstadt" not in told
    assert refusal.value.index == forged.entries[0].index


class Changed(InMemoryRepository):
    """A store in which one deliberation is not what it was."""

    forge: Callable[[StoredDeliberation], StoredDeliberation]

    def _stored(self, kept: Any) -> StoredDeliberation:
        return self.forge(super()._stored(kept))


async def _changed(house: House, forge: Callable[[StoredDeliberation], StoredDeliberation]) -> Changed:
    changed = Changed(log=house.repository.log)
    changed._kept = house.repository._kept
    changed.forge = lambda each: forge(each) if each.deliberation.id == house.ids[COMPLETED] else each
    return changed


async def test_outputs_of_a_deliberation_that_differs_are_not_shown(house: House) -> None:
    changed = await _changed(house, lambda each: _question(each, text="forged"))
    with pytest.raises(RecordMismatchError, match="question"):
        await DeliberationOutputService(changed).outputs(house.ids[COMPLETED])
    assert len(await DeliberationOutputService(changed).outputs(house.ids[FAILED])) == len(RECORDS)


async def _audited(repository: InMemoryRepository) -> AuditReport:
    return await audit(repository.log, key=key(), tools=Tools(), deliberations=repository)


async def test_an_audit_counts_the_deliberations_and_what_is_not_signed_yet(house: House) -> None:
    log = house.repository.log
    report = await _audited(house.repository)
    assert (report.deliberations, report.unsigned, report.unsigned_since) == (4, len(log.logged), time_text(NOON))
    root = log.root_at(3)
    assert root is not None
    await log.add_checkpoint(3, signer().sign(3, root))
    assert (await _audited(house.repository)).unsigned == len(log.logged) - 3
    head = await log.head()
    await log.add_checkpoint(head.tree_size, signer().sign(head.tree_size, head.root_hash))
    report = await _audited(house.repository)
    assert (report.unsigned, report.unsigned_since) == (0, None)


async def test_an_audit_names_the_deliberation_and_the_part_that_differs(house: House) -> None:
    changed = await _changed(house, lambda each: _outcome(each, decision="no"))
    with pytest.raises(VerificationRefusedError, match=f"outcome of deliberation '{house.ids[COMPLETED]}'") as refusal:
        await _audited(changed)
    assert refusal.value.index == (await house.stored(COMPLETED)).entries[-1].index


async def test_an_audit_names_the_entry_of_a_deliberation_that_is_gone(house: House) -> None:
    del house.repository._kept[house.ids[RUNNING]]
    with pytest.raises(VerificationRefusedError, match=f"'{house.ids[RUNNING]}', which is not stored"):
        await _audited(house.repository)


async def test_an_audit_names_an_entry_of_nobody_that_was_given_a_sequence(house: House) -> None:
    log = house.repository.log
    fact = (await log.append([{"type": "test.fact", "at": time_text(NOON)}]))[0]
    await _audited(house.repository)
    log.logged[-1] = LoggedEntry(fact.index, fact.leaf_hash, fact.entry, None, 3)
    with pytest.raises(VerificationRefusedError, match=f"entry {fact.index}: the entry is of no deliberation"):
        await _audited(house.repository)


async def test_an_audit_names_a_deliberation_that_is_listed_out_of_its_turn(house: House) -> None:
    class Reordered(InMemoryRepository):
        async def stored(self, *, after: int, limit: int) -> list[StoredDeliberation]:
            found = await house.repository.stored(after=after, limit=limit)
            return list(found)[::-1]

    reordered = Reordered(log=house.repository.log)
    with pytest.raises(VerificationRefusedError, match="is listed after one that was accepted later"):
        await _audited(reordered)
