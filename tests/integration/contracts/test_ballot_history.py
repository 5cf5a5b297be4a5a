"""What every adapter promises that reads earlier ballots: those of the same agents and the same caller, oldest first, and no text."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import pytest

from application.ports.ballot_history import BallotHistory, Earlier
from application.ports.deliberation_repository import DeliberationStore
from domain.models.deliberation import Deliberation, DeliberationStatus
from domain.models.question import AnswerFormat, AnswerKind
from domain.models.round import AgentRecord
from domain.voting.rule import default_rule
from domain.witness.entry import accepted
from infrastructure.persistence.database import open_database
from infrastructure.persistence.migrate import upgrade
from infrastructure.persistence.sql_ballot_history import SqlBallotHistory
from infrastructure.persistence.sql_deliberation_repository import SqlDeliberationRepository
from infrastructure.stubs.in_memory_ballot_history import InMemoryBallotHistory
from infrastructure.stubs.in_memory_repository import InMemoryRepository
from tests.deliberation_specimens import (
    NOON,
    OPTIONS,
    committing,
    deliberation,
    ended,
    failed,
    opening,
    record,
    started,
)

_LATER = NOON + timedelta(days=1)
_RANKING = AnswerFormat(AnswerKind.RANKING, OPTIONS)


@dataclass(frozen=True)
class Archive:
    """An adapter under test, over a store that deliberations are put into."""

    history: BallotHistory
    store: DeliberationStore

    async def hold(
        self,
        records: Sequence[AgentRecord],
        *,
        key_name: str | None = None,
        orchestrator: str = "openai",
        seconds: float = 0,
        status: DeliberationStatus = DeliberationStatus.COMPLETED,
        answers: AnswerFormat | None = None,
    ) -> Deliberation:
        """One deliberation, whole and ended so many seconds after the first could have."""
        fresh = replace(deliberation(key_name=key_name), orchestrator=orchestrator)
        if answers is not None:
            asked = fresh.specification
            question = replace(asked.question, answer=answers)
            fresh = replace(fresh, specification=replace(asked, question=question, rule=default_rule(answers.kind)))
        await self.store.add(fresh, accepted(fresh))
        running = started(fresh)
        await self.store.append(opening(running))
        await self.store.append(committing(running.id, records=records, answers=answers))
        over = ended(running, records)
        over = replace(over, finished_at=NOON + timedelta(seconds=2 + seconds), status=status)
        if status is not DeliberationStatus.COMPLETED:
            over = replace(over, outcome=None)
        await self.store.append(committing(running.id, deliberation=over))
        return over

    async def earlier(self, agent: int = 0, **wanted: object) -> list[str]:
        """What is found before tomorrow, unless something else is asked for."""
        asked = Earlier(f"archon-{agent}", None, "openai", _LATER, "", 100)
        return list(await self.history.earlier(replace(asked, **wanted)))  # type: ignore[arg-type]


@pytest.fixture(params=["memory", "sqlite", "postgres"])
async def archive(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Archive]:
    """Each adapter in turn, empty."""
    if request.param == "memory":
        kept = InMemoryRepository()
        yield Archive(InMemoryBallotHistory(kept), kept)
        return
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/conclave.db"
        upgrade(url)
    else:
        url = request.getfixturevalue("empty_postgres")
    database = await open_database(url)
    repository = SqlDeliberationRepository(database)
    yield Archive(SqlBallotHistory(database), repository)
    await repository.close()
    await database.close()


async def test_nothing_is_found_where_nothing_was_held(archive: Archive) -> None:
    assert await archive.earlier() == []
    assert await archive.history.ballots(["unknown"]) == []


async def test_deliberations_are_found_oldest_first(archive: Archive) -> None:
    held = [(await archive.hold([record(0), record(1)])).id for _ in range(3)]
    assert await archive.earlier() == held


async def test_no_more_are_found_than_wanted_and_those_are_the_latest(archive: Archive) -> None:
    held = [(await archive.hold([record(0)])).id for _ in range(3)]
    assert await archive.earlier(limit=2) == held[1:]


async def test_what_ended_later_is_not_found(archive: Archive) -> None:
    first = await archive.hold([record(0)])
    await archive.hold([record(0)], seconds=60)
    assert await archive.earlier(until=first.finished_at) == [first.id]


async def test_the_one_that_asks_is_not_found(archive: Archive) -> None:
    one, other = await archive.hold([record(0)]), await archive.hold([record(0)])
    assert await archive.earlier(besides=one.id) == [other.id]


async def test_those_of_another_key_are_not_found(archive: Archive) -> None:
    own = await archive.hold([record(0)], key_name="council")
    none = await archive.hold([record(0)])
    assert await archive.earlier(key_name="council") == [own.id]
    assert await archive.earlier(key_name=None) == [none.id]


async def test_those_of_another_orchestrator_are_not_found(archive: Archive) -> None:
    await archive.hold([record(0)], orchestrator="simulated")
    assert await archive.earlier() == []


async def test_those_without_the_agent_are_not_found(archive: Archive) -> None:
    await archive.hold([record(1), record(2)])
    assert await archive.earlier(0) == []


async def test_those_without_an_outcome_are_not_found(archive: Archive) -> None:
    await archive.hold([record(0)], status=DeliberationStatus.INQUORATE)
    assert await archive.earlier() == []


@pytest.mark.parametrize("agent_id", ["", "\x00", "a\ud800", "'; DROP TABLE agent_records; --", "%"])
async def test_no_agent_of_a_strange_name_is_found(archive: Archive, agent_id: str) -> None:
    await archive.hold([record(0)])
    assert await archive.earlier(agent_id=agent_id) == []


async def test_ballots_name_the_agent_and_the_model_that_answered(archive: Archive) -> None:
    held = await archive.hold([record(0, answer="yes"), record(1, answer="no"), record(2, answer=None)])
    (found,) = await archive.history.ballots([held.id])
    assert found.blind == {("archon-0", "small"): "yes", ("archon-1", "small"): "no"}
    assert (found.deliberation_id, found.finished_at, found.answer.options) == (held.id, held.finished_at, OPTIONS)
    assert found.final_agreement == 0.5


async def test_whoever_failed_has_no_ballot(archive: Archive) -> None:
    held = await archive.hold([record(0), failed(1)])
    (found,) = await archive.history.ballots([held.id])
    assert list(found.blind) == [("archon-0", "small")]


async def test_rankings_come_back_as_rankings(archive: Archive) -> None:
    given = ("weekends only", "yes", "no")
    held = await archive.hold([record(0, answer=given)], answers=_RANKING)
    (found,) = await archive.history.ballots([held.id])
    assert found.blind == {("archon-0", "small"): given}


async def test_a_later_round_is_no_blind_ballot_but_the_final_one(archive: Archive) -> None:
    first = [record(0, answer="yes"), record(1, answer="no")]
    held = await archive.hold([*first, record(1, answer="yes", round_number=1)])
    (found,) = await archive.history.ballots([held.id])
    assert found.blind["archon-1", "small"] == "no"
    assert found.final_agreement == 1


async def test_many_are_read_at_once(archive: Archive) -> None:
    held = {(await archive.hold([record(0)])).id for _ in range(60)}
    assert {each.deliberation_id for each in await archive.history.ballots(held)} == held
