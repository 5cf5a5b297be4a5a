"""A list shows nothing of a deliberation that differs from its entries; what no list shows is left to a look at the deliberation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from application.ports.deliberation_repository import Commit, StoredDeliberation
from application.ports.witness_log import Erasure
from application.services.record_check import require_recorded
from domain.errors.deliberation import RecordMismatchError
from domain.models.budget import Usage
from domain.models.deliberation import Deliberation, DeliberationStatus
from domain.models.protocol import Protocol, ProtocolKind
from domain.models.question import AnswerFormat, AnswerKind
from domain.models.roll_call import AgentState, RollCall
from domain.models.round import AgentRecord, FailureCause
from domain.voting.rule import Rule, RuleKind
from domain.witness.entry import accepted, round_started, time_text
from domain.witness.merkle import leaf_hash
from infrastructure.stubs.in_memory_repository import InMemoryRepository
from tests.deliberation_specimens import (
    NOON,
    committing,
    deliberation,
    ended,
    failed,
    intent,
    opening,
    record,
    revised,
    started,
)
from tests.unit.application.listed import Listed

TEXT = AnswerFormat(AnswerKind.TEXT)
RECORDS = [record(0), record(1, answer="no"), record(2), record(3), failed(4)]
CLAIMED = [
    record(0, answer="Build trams. They carry most."),
    record(1, answer="Build trams."),
    record(2, answer="Ask again."),
]


async def _hold(
    records: Sequence[AgentRecord], end: Callable[[Deliberation, Sequence[AgentRecord]], Deliberation]
) -> tuple[InMemoryRepository, str]:
    repository = InMemoryRepository()
    own = deliberation(agents=5, key_name="mine")
    answers = own.specification.question.answer
    if records is CLAIMED:
        answers = TEXT
        asked = replace(own.specification.question, answer=TEXT)
        own = replace(own, specification=replace(own.specification, question=asked, rule=Rule(RuleKind.SYNTHESIS)))
    await repository.add(own, accepted(own), lease="me/1", lease_s=10.0)
    running = started(own)
    await repository.append(opening(running))
    intents = [intent(number) for number in range(3)]
    await repository.append(committing(own.id, intents=intents, records=records, answers=answers))
    await repository.append(committing(own.id, deliberation=end(running, records)))
    return repository, own.id


async def _stored(repository: InMemoryRepository) -> StoredDeliberation:
    return (await repository.stored(after=0, limit=1))[0]


async def _erased(repository: InMemoryRepository, own: str) -> StoredDeliberation:
    document = {"type": "erased", "at": time_text(NOON), "deliberation_id": own, "reason": None}
    await repository.log.erase(Erasure(own, document))
    return await _stored(repository)


@pytest.fixture
async def stored() -> StoredDeliberation:
    """A deliberation with a minority and somebody who failed."""
    repository, _ = await _hold(RECORDS, ended)
    return await _stored(repository)


@pytest.fixture
def listed(stored: StoredDeliberation) -> Listed:
    return Listed.of(stored)


@pytest.fixture
async def claimed() -> Listed:
    """A deliberation about texts."""
    repository, _ = await _hold(CLAIMED, ended)
    return Listed.of(await _stored(repository))


def _in_two_rounds(running: Deliberation, records: Sequence[AgentRecord]) -> Deliberation:
    return revised(running, [records])


@pytest.mark.parametrize(
    ("records", "end"),
    [(RECORDS, ended), (CLAIMED, ended), (RECORDS, _in_two_rounds)],
    ids=["votes", "texts", "failed"],
)
async def test_what_nobody_changed_is_listed_also_without_its_texts(
    records: Sequence[AgentRecord], end: Callable[[Deliberation, Sequence[AgentRecord]], Deliberation]
) -> None:
    repository, own = await _hold(records, end)
    Listed.of(await _stored(repository)).compare()
    bare = Listed.of(await _erased(repository, own))
    bare.compare()
    assert bare.glance.shown.erased


def _reasons(each: Listed) -> Listed:
    outcome = each.glance.shown.outcome
    assert outcome is not None
    positions = tuple(replace(position, reasons=("forged",)) for position in outcome.dissent.positions)
    return each.outcome(dissent=replace(outcome.dissent, positions=positions))


def _holders(each: Listed) -> Listed:
    outcome = each.glance.shown.outcome
    assert outcome is not None
    positions = tuple(replace(position, agents=("archon-0",)) for position in outcome.dissent.positions)
    return each.outcome(dissent=replace(outcome.dissent, positions=positions))


def _question(each: Listed, **changes: Any) -> Listed:
    return each.asked(question=replace(each.glance.shown.specification.question, **changes))


def _span(each: Listed, **changes: Any) -> Listed:
    span = each.glance.shown.witness
    assert span is not None
    return each.shown(witness=replace(span, **changes))


def _from_index(each: Listed, first: int) -> Listed:
    return replace(each, glance=replace(each.glance, first_index=first))


def _of_another(each: Listed, at: int) -> Listed:
    entry = each.entries[at].entry.replace(each.glance.shown.id.encode(), b"another")
    return each.with_entry(at, entry=entry, leaf_hash=leaf_hash(entry))


def _failure(each: Listed, **changes: Any) -> Listed:
    return each.shown(failures=(replace(each.glance.shown.failures[0], **changes),))


def _round(each: Listed, **changes: Any) -> Listed:
    first: Any = each.glance.rounds[0]
    return replace(each, glance=replace(each.glance, rounds=[replace(first, **changes)]))


FORGERIES: list[tuple[str, Callable[[Listed], Listed]]] = [
    ("question", lambda each: _question(each, text="Shall we not?")),
    ("context", lambda each: _question(each, context=None)),
    ("answer", lambda each: _question(each, answer=AnswerFormat(AnswerKind.CHOICE, ("yes", "no", "never")))),
    ("seed", lambda each: each.asked(seed=7)),
    ("origin", lambda each: each.asked(metadata={"origin": "by hand"})),
    ("key_name", lambda each: each.shown(key_name="yours")),
    ("at", lambda each: each.shown(created_at=NOON + timedelta(seconds=1))),
    ("started_at", lambda each: each.shown(started_at=NOON + timedelta(seconds=1))),
    ("finished_at", lambda each: each.shown(finished_at=NOON)),
    ("simulated", lambda each: each.shown(simulated=False)),
    ("orchestrator", lambda each: each.shown(orchestrator="local")),
    ("status", lambda each: each.shown(status=DeliberationStatus.INQUORATE)),
    ("status", lambda each: replace(each, entries=each.entries[:-1])),
    ("outcome", lambda each: each.outcome(decision="no")),
    ("outcome", lambda each: each.outcome(tally={"yes": 5})),
    ("outcome", _holders),
    ("outcome reasons", _reasons),
    ("roll_call", lambda each: each.shown(roll_call=RollCall({AgentState.ANSWERED: 5}))),
    ("usage", lambda each: each.shown(usage=Usage())),
    ("models", lambda each: each.shown(models=("large",))),
    ("models", lambda each: each.shown(models=())),
    ("cause", lambda each: each.shown(reason="because")),
    ("failures", lambda each: each.shown(failures=())),
    ("failures", lambda each: _failure(each, agent_id="archon-0")),
    ("failures", lambda each: _failure(each, state=AgentState.FAILED)),
    ("failures", lambda each: _failure(each, attempts=7)),
    ("failures", lambda each: _failure(each, duration_seconds=9.0)),
    ("failures", lambda each: _failure(each, failure=FailureCause("agent_timeout", "forged"))),
    ("rounds", lambda each: replace(each, glance=replace(each.glance, rounds=[]))),
    ("rounds", lambda each: _round(each, tally={"yes": 9})),
    ("rounds", lambda each: _round(each, agents=("archon-0",))),
    ("witness span", lambda each: each.shown(witness=None)),
    ("witness span", lambda each: _span(each, first_index=1)),
    ("witness span", lambda each: _from_index(_span(each, first_index=1), 1)),
    ("witness span", lambda each: _span(each, last_index=1)),
    ("witness span", lambda each: _span(each, tree_size=2)),
    ("witness span", lambda each: _span(each, root_hash="00" * 32)),
    ("witness span", lambda each: replace(each, glance=replace(each.glance, root_hash=None))),
    ("erased", lambda each: each.shown(erased=True)),
    ("erased", lambda each: replace(each, glance=replace(each.glance, salts=None))),
    ("question", lambda each: replace(each, glance=replace(each.glance, salts=bytes(16)))),
    ("acceptance", lambda each: replace(each, entries=())),
    ("sequence", lambda each: replace(each, entries=each.entries[1:])),
    ("sequence", lambda each: replace(each, entries=each.entries[::-1])),
    ("sequence", lambda each: replace(each, entries=[*each.entries[:1], *each.entries[2:0:-1], *each.entries[3:]])),
    ("sequence", lambda each: each.with_entry(2, sequence=None)),
    ("entry", lambda each: each.with_entry(0, leaf_hash=bytes(32))),
    ("entry", lambda each: _of_another(each, 0)),
    ("entry", lambda each: each.with_entry(0, entry=b"[]", leaf_hash=leaf_hash(b"[]"))),
    ("entry", lambda each: each.with_entry(0, entry=b"no JSON", leaf_hash=leaf_hash(b"no JSON"))),
    ("record_sha256", lambda each: replace(each, entries=[*each.entries[:2], *each.entries[3:]])),
    ("record_sha256", lambda each: each.with_entry(2, leaf_hash=bytes(32))),
    ("records", lambda each: each.with_entry(6, entry=each.entries[5].entry, leaf_hash=each.entries[5].leaf_hash)),
]


@pytest.mark.parametrize(("part", "forge"), FORGERIES, ids=[f"{n} {part}" for n, (part, _) in enumerate(FORGERIES)])
def test_the_part_that_a_list_would_show_and_that_differs_is_named(
    listed: Listed, part: str, forge: Callable[[Listed], Listed]
) -> None:
    with pytest.raises(RecordMismatchError) as refusal:
        forge(listed).compare()
    assert (refusal.value.deliberation_id, refusal.value.part) == (listed.glance.shown.id, part)


def test_no_entry_of_an_agent_can_be_left_out_or_hidden_as_a_call(listed: Listed) -> None:
    assert [b"call.intended" in each.entry for each in listed.entries][2:5] == [True] * 3
    hidden = b'{"type":"call.intended"}'
    for place in range(5, 10):
        assert b"agent.ended" in listed.entries[place].entry
        with pytest.raises(RecordMismatchError):
            listed.with_entry(place, entry=hidden).compare()


@pytest.mark.parametrize(
    "changes", [{"reasoning": "forged"}, {"reasoning": None}, {"salts": None}, {"salts": bytes(64)}], ids=str
)
def test_the_agent_whose_reason_differs_is_named(listed: Listed, changes: dict[str, Any]) -> None:
    with pytest.raises(RecordMismatchError, match="output of agent 'archon-1' in round 0"):
        listed.said((0, "archon-1"), **changes).compare()


def test_a_reason_that_is_no_longer_stored_is_not_listed(listed: Listed) -> None:
    kept = {place: said for place, said in listed.spoken.items() if place != (0, "archon-1")}
    with pytest.raises(RecordMismatchError, match="archon-1"):
        replace(listed, spoken=kept).compare()


def test_what_no_list_shows_is_refused_by_a_look_at_the_deliberation(stored: StoredDeliberation) -> None:
    # Whose reason is in no minority.
    first = stored.records[0].record
    for forged in (replace(first, content="forged"), replace(first, reasoning="forged"), replace(first, answer="no")):
        records = [replace(stored.records[0], record=forged), *stored.records[1:]]
        other = replace(stored, records=records)
        Listed.of(other).compare()
        with pytest.raises(RecordMismatchError, match="archon-0"):
            require_recorded(other)


def test_a_forged_intent_to_call_is_refused_by_a_look_at_the_deliberation(stored: StoredDeliberation) -> None:
    entries = list(stored.entries)
    entries[2] = replace(entries[2], entry=entries[2].entry.replace(b'"attempt":1', b'"attempt":2'))
    other = replace(stored, entries=entries)
    assert other.entries[2].entry != stored.entries[2].entry
    Listed.of(other).compare()
    with pytest.raises(RecordMismatchError, match=r"\(entry\)"):
        require_recorded(other)


@pytest.mark.parametrize(
    "forge",
    [
        lambda each, synthesis: each.outcome(decision="Build nothing."),
        lambda each, synthesis: _claim(each, synthesis, 0, text="Build nothing."),
        lambda each, synthesis: _claim(each, synthesis, -1, text="Ask nobody."),
        lambda each, synthesis: _claim(each, synthesis, 0, sentence=5),
        lambda each, synthesis: each.outcome(synthesis=replace(synthesis, claims=synthesis.claims[1:])),
        lambda each, synthesis: each.said((0, "archon-0"), answer="Build trams. They carry nobody."),
        lambda each, synthesis: each.said((0, "archon-0"), salts=None),
    ],
    ids=["decision", "text", "text of the others", "sentence", "left out", "answer", "salts"],
)
def test_a_claim_that_nobody_made_is_not_listed(claimed: Listed, forge: Callable[[Listed, Any], Listed]) -> None:
    outcome = claimed.glance.shown.outcome
    assert outcome is not None
    assert outcome.synthesis is not None
    assert outcome.synthesis.claims[0].source == "archon-0"
    with pytest.raises(RecordMismatchError):
        forge(claimed, outcome.synthesis).compare()


def _claim(each: Listed, synthesis: Any, at: int, **changes: Any) -> Listed:
    claims = list(synthesis.claims)
    claims[at] = replace(claims[at], **changes)
    return each.outcome(synthesis=replace(synthesis, claims=tuple(claims)))


@pytest.fixture
async def revised_once() -> Listed:
    """A deliberation of two rounds, in whose second the minority says nothing and keeps its ballot."""
    repository, own = InMemoryRepository(), deliberation(agents=3)
    asked = replace(own.specification, protocol=Protocol(ProtocolKind.DELPHI, max_rounds=2))
    own = replace(own, specification=asked)
    await repository.add(own, accepted(own), lease="me/1", lease_s=10.0)
    running = started(own)
    blind = [record(0), record(1, answer="no"), record(2)]
    later = [record(0, round_number=1), failed(1, round_number=1), record(2, round_number=1)]
    over = ended(running, [*blind, *later])
    await repository.append(opening(running))
    await repository.append(committing(own.id, records=blind))
    agents = [agent.id for agent in asked.roster.agents]
    begun = round_started(own.id, 1, agents, at=NOON, purpose="revise", previous=over.rounds[0])
    await repository.append(Commit(own.id, [begun]))
    await repository.append(committing(own.id, records=later))
    await repository.append(committing(own.id, deliberation=over))
    return Listed.of(await _stored(repository))


def test_a_reason_of_an_earlier_round_is_compared_with_what_was_said_then(revised_once: Listed) -> None:
    outcome = revised_once.glance.shown.outcome
    assert outcome is not None
    assert [each.reasons for each in outcome.dissent.positions] == [("because of 1 – ☂",)]
    revised_once.compare()
    with pytest.raises(RecordMismatchError, match="output of agent 'archon-1' in round 0"):
        revised_once.said((0, "archon-1"), reasoning="forged").compare()


def test_how_an_earlier_round_was_counted_is_what_the_next_one_began_with(revised_once: Listed) -> None:
    first, second = revised_once.glance.rounds
    forged: Any = replace(first, tally={"yes": 3})  # type: ignore[type-var]
    with pytest.raises(RecordMismatchError, match=r"\(rounds\)"):
        replace(revised_once, glance=replace(revised_once.glance, rounds=[forged, second])).compare()


@pytest.mark.parametrize(
    "forge",
    [
        lambda each: _question(each, text="forged"),
        lambda each: each.asked(metadata={"origin": "forged"}),
        lambda each: replace(each, glance=replace(each.glance, salts=bytes(96))),
        lambda each: each.shown(erased=False),
        lambda each: _failure(each, failure=FailureCause("agent_timeout", "forged")),
        lambda each: each.said((0, "archon-1"), reasoning="forged"),
        _reasons,
    ],
    ids=["question", "origin", "salts", "not erased", "failure", "said", "reasons"],
)
async def test_what_was_erased_is_listed_without_any_texts(forge: Callable[[Listed], Listed]) -> None:
    repository, own = await _hold(RECORDS, ended)
    bare = Listed.of(await _erased(repository, own))
    with pytest.raises(RecordMismatchError):
        forge(bare).compare()
