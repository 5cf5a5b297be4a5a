"""What every adapter promises that keeps what follows the end of deliberations, and reads how questions turned out."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from application.ports.deliberation_repository import DeliberationStore
from application.ports.resolution_history import ResolutionHistory
from application.ports.witness_log import Erasure, LoggedEntry, Sequel, WitnessLog
from application.services.administration import operators_statement
from domain.errors.deliberation import DeliberationNotFoundError, IllegalTransitionError
from domain.models.deliberation import Deliberation
from domain.witness.entry import accepted
from infrastructure.persistence.database import open_database
from infrastructure.persistence.migrate import upgrade
from infrastructure.persistence.sql_deliberation_repository import SqlDeliberationRepository
from infrastructure.persistence.sql_resolution_history import SqlResolutionHistory
from infrastructure.persistence.sql_witness_log import SqlWitnessLog
from infrastructure.stubs.in_memory_repository import InMemoryRepository
from infrastructure.stubs.in_memory_resolution_history import InMemoryResolutionHistory
from tests.deliberation_specimens import NOON, OPTIONS, committing, deliberation, ended, opening, record, started


@dataclass(frozen=True)
class Archive:
    """An adapter under test, over a store and a log that deliberations are put into."""

    history: ResolutionHistory
    store: DeliberationStore
    log: WitnessLog

    async def hold(
        self, *, key_name: str | None = None, orchestrator: str = "openai", origin: str | None = None
    ) -> Deliberation:
        """One deliberation of three agents, whole and ended."""
        running = await self.begin(key_name=key_name, orchestrator=orchestrator, origin=origin)
        records = [record(number, answer=OPTIONS[number % 2]) for number in range(3)]
        await self.store.append(committing(running.id, records=records))
        over = ended(running, records)
        await self.store.append(committing(running.id, deliberation=over))
        return over

    async def begin(
        self, *, key_name: str | None = None, orchestrator: str = "openai", origin: str | None = None
    ) -> Deliberation:
        """One that runs."""
        fresh = replace(deliberation(key_name=key_name), orchestrator=orchestrator)
        metadata = {} if origin is None else {"origin": origin}
        fresh = replace(fresh, specification=replace(fresh.specification, metadata=metadata))
        await self.store.add(fresh, accepted(fresh))
        running = started(fresh)
        await self.store.append(opening(running))
        return running

    async def resolve(self, own: str, answer: int, *, seconds: float = 0) -> LoggedEntry:
        """Record that it turned out so."""
        return await self.log.follow_up(_sequel(own, "resolved", seconds, answer=answer))

    async def resolved(self, **wanted: Any) -> list[str]:
        """The deliberations whose truth is known."""
        asked: dict[str, Any] = {"key_name": None, "orchestrator": "openai", "limit": 100, **wanted}
        return [each.deliberation_id for each in await self.history.resolved(**asked)]


def _sequel(own: str, kind: str, seconds: float = 0, **facts: Any) -> Sequel:
    at = NOON + timedelta(seconds=seconds)
    document, texts = operators_statement(
        kind, at=at, reason=None, key_name="council", facts={"deliberation_id": own, **facts}
    )
    return Sequel(own, document, texts, resolves=kind == "resolved")


@pytest.fixture(params=["memory", "sqlite", "postgres"])
async def archive(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Archive]:
    """Each adapter in turn, empty."""
    if request.param == "memory":
        kept = InMemoryRepository()
        yield Archive(InMemoryResolutionHistory(kept, kept.log), kept, kept.log)
        return
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/conclave.db"
        upgrade(url)
    else:
        url = request.getfixturevalue("empty_postgres")
    database = await open_database(url)
    repository = SqlDeliberationRepository(database)
    yield Archive(SqlResolutionHistory(database), repository, SqlWitnessLog(database))
    await repository.close()
    await database.close()


def said(entry: LoggedEntry) -> Mapping[str, Any]:
    document: Mapping[str, Any] = json.loads(entry.entry)
    return document


async def test_what_follows_an_end_stands_in_the_log_of_its_deliberation_and_changes_nothing_of_it(
    archive: Archive,
) -> None:
    over = await archive.hold()
    before = await archive.store.get(over.id)
    entry = await archive.log.follow_up(_sequel(over.id, "recounted", outcome=None))
    entries = await archive.log.entries_of(over.id)
    assert (entries[-1], said(entries[-1])["type"]) == (entry, "recounted")
    assert entries[-1].sequence == entries[-2].sequence
    assert await archive.store.get(over.id) == before


async def test_its_texts_are_disclosed_and_go_when_those_of_the_deliberation_do(archive: Archive) -> None:
    over = await archive.hold()
    await archive.log.follow_up(_sequel(over.id, "recounted"))
    assert "council" in [each.text for each in await archive.log.disclosures_of(over.id)]
    document, texts = operators_statement(
        "erased", at=NOON, reason="asked for", key_name=None, facts={"deliberation_id": over.id}
    )
    await archive.log.erase(Erasure(over.id, document, texts))
    assert [each.text for each in await archive.log.disclosures_of(over.id)] == ["asked for"]


async def test_nothing_follows_what_has_not_ended_or_is_not_there(archive: Archive) -> None:
    running = await archive.begin()
    size = (await archive.log.head()).tree_size
    with pytest.raises(IllegalTransitionError, match="running"):
        await archive.resolve(running.id, 0)
    for own in ("unknown", "\x00", ""):
        with pytest.raises(DeliberationNotFoundError):
            await archive.resolve(own, 0)
    assert (await archive.log.head()).tree_size == size
    assert await archive.history.latest(running.id) is None


async def test_the_last_resolution_stands(archive: Archive) -> None:
    over = await archive.hold()
    assert await archive.history.latest(over.id) is None
    await archive.resolve(over.id, 0)
    second = await archive.resolve(over.id, 1)
    await archive.log.follow_up(_sequel(over.id, "recounted"))
    assert await archive.history.latest(over.id) == second
    (found,) = await archive.history.resolved(key_name=None, orchestrator="openai", limit=10)
    assert found.truth == OPTIONS[1]


async def test_resolved_questions_come_with_what_was_answered(archive: Archive) -> None:
    over = await archive.hold()
    await archive.resolve(over.id, 0)
    (found,) = await archive.history.resolved(key_name=None, orchestrator="openai", limit=10)
    assert (found.deliberation_id, found.answer, found.truth) == (
        over.id,
        over.specification.question.answer,
        OPTIONS[0],
    )
    assert [(each.agent_id, each.model, each.answer) for each in found.given] == [
        ("archon-0", "small", OPTIONS[0]),
        ("archon-1", "small", OPTIONS[1]),
        ("archon-2", "small", OPTIONS[0]),
    ]
    assert [each.confidence for each in found.given] == [0.0, 0.1, 0.2]


async def test_the_latest_resolutions_come_first_and_no_more_than_wanted(archive: Archive) -> None:
    held = [await archive.hold() for _ in range(3)]
    for each in (held[1], held[2], held[0]):
        await archive.resolve(each.id, 0)
    assert await archive.resolved() == [held[0].id, held[2].id, held[1].id]
    assert await archive.resolved(limit=2) == [held[0].id, held[2].id]


async def test_those_of_another_key_or_orchestrator_are_not_found(archive: Archive) -> None:
    own, other = await archive.hold(key_name="council"), await archive.hold(orchestrator="simulated")
    for each in (own, other):
        await archive.resolve(each.id, 0)
    assert await archive.resolved(key_name="council") == [own.id]
    assert await archive.resolved(orchestrator="simulated") == [other.id]
    assert await archive.resolved() == []


async def test_a_truth_is_known_from_the_moment_at_which_it_was_told(archive: Archive) -> None:
    over, open_one = await archive.hold(), await archive.hold()
    await archive.resolve(over.id, 0)
    await archive.resolve(over.id, 1, seconds=60)
    ids = [over.id, open_one.id, "unknown", "\x00"]
    assert await archive.history.truths(ids, until=NOON - timedelta(seconds=1)) == {}
    assert await archive.history.truths(ids, until=NOON) == {over.id: OPTIONS[0]}
    assert await archive.history.truths(ids, until=NOON + timedelta(seconds=60)) == {over.id: OPTIONS[1]}


async def test_deliberations_are_listed_and_counted_by_the_origin_of_their_topics(archive: Archive) -> None:
    petitions = [(await archive.hold(origin="petition")).id for _ in range(2)]
    await archive.hold(origin="scheduled", key_name="council")
    await archive.hold()
    page = await archive.store.page(status=None, key_name=None, limit=10, cursor=None, origin="petition")
    assert [item.id for item in page.items] == petitions[::-1]
    assert (
        await archive.store.page(status=None, key_name="council", limit=10, cursor=None, origin="petition")
    ).items == ()
    assert (await archive.store.page(status=None, key_name=None, limit=10, cursor=None, origin="\x00")).items == ()
    assert await archive.store.origins(since=NOON, key_name=None) == {"petition": 2, "scheduled": 1}
    assert await archive.store.origins(since=NOON, key_name="council") == {"scheduled": 1}
    assert await archive.store.origins(since=NOON + timedelta(days=1), key_name=None) == {}


async def test_a_page_by_origin_goes_on_where_it_was_cut(archive: Archive) -> None:
    held = [(await archive.hold(origin=("petition", "scheduled")[number % 2])).id for number in range(5)]
    first = await archive.store.page(status=None, key_name=None, limit=2, cursor=None, origin="petition")
    assert first.next_cursor is not None
    rest = await archive.store.page(status=None, key_name=None, limit=2, cursor=first.next_cursor, origin="petition")
    assert [item.id for item in (*first.items, *rest.items)] == [held[4], held[2], held[0]]


async def test_an_erased_deliberation_is_still_listed_by_its_origin(archive: Archive) -> None:
    over = await archive.hold(origin="petition")
    document, texts = operators_statement(
        "erased", at=NOON, reason="r", key_name=None, facts={"deliberation_id": over.id}
    )
    await archive.log.erase(Erasure(over.id, document, texts))
    page = await archive.store.page(status=None, key_name=None, limit=2, cursor=None, origin="petition")
    assert [item.id for item in page.items] == [over.id]
