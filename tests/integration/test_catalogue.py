"""The catalogue that deliberations are searched by: filled for those of before, and believed in nothing that the record denies."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import select, text

from domain.errors.deliberation import RecordMismatchError
from domain.models.deliberation import Deliberation
from domain.models.outcome import OutcomeStatus
from domain.models.question import AnswerFormat, AnswerKind, Question
from domain.models.search import Search
from domain.voting.rule import Rule, RuleKind
from domain.witness.entry import accepted
from infrastructure.persistence.database import open_database
from infrastructure.persistence.engine import open_sync_engine
from infrastructure.persistence.migrate import downgrade, upgrade
from infrastructure.persistence.sql_deliberation_repository import SqlDeliberationRepository
from infrastructure.persistence.tables import catalogue
from tests.deliberation_specimens import OPTIONS, committing, deliberation, ended, opening, record, started

_TEXTS = (
    "Où est le Café Ångström? ﬁ ２４ ß \u200b\u202e \x1b[2J %_*[a]",
    "ΣΊΣΥΦΟΣ 한국어 日本 हिन्दी İstanbul Ǆ \u0345",
    "'; DROP TABLE catalogue; --",
)


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database of each kind in turn, with its tables."""
    found = (
        f"sqlite:///{tmp_path}/conclave.db" if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    )
    upgrade(found)
    return str(found)


@pytest.fixture
async def repository(url: str) -> AsyncIterator[SqlDeliberationRepository]:
    database = await open_database(url)
    opened = SqlDeliberationRepository(database)
    yield opened
    await opened.close()
    await database.close()


async def hold(
    repository: SqlDeliberationRepository, question: str, *, number: float | None = None, ends: bool = True
) -> Deliberation:
    """A deliberation about that; of a `number` where one is given."""
    fresh = deliberation()
    answer = AnswerFormat(AnswerKind.CHOICE, OPTIONS) if number is None else AnswerFormat(AnswerKind.NUMBER, unit="km")
    rule = Rule(RuleKind.PLURALITY if number is None else RuleKind.MEDIAN)
    asked = replace(fresh.specification, question=Question(question, f"About {question}", answer), rule=rule)
    fresh = replace(fresh, specification=asked)
    await repository.add(fresh, accepted(fresh))
    if not ends:
        return fresh
    running = started(fresh)
    await repository.append(opening(running))
    records = [record(each, answer="yes" if number is None else number) for each in range(3)]
    await repository.append(committing(running.id, records=records, answers=answer))
    over = ended(running, records)
    await repository.append(committing(running.id, deliberation=over))
    return over


async def test_the_migration_enters_what_was_there_as_it_would_be_entered_today(
    url: str, repository: SqlDeliberationRepository
) -> None:
    for question in _TEXTS:
        await hold(repository, question)
    await hold(repository, "How far?", number=1234.5)
    await hold(repository, "Not over yet?", ends=False)
    engine = open_sync_engine(url)
    every = select(catalogue).order_by(catalogue.c.position)
    with engine.connect() as connection:
        entered = connection.execute(every).all()
    downgrade(url, "0006")
    upgrade(url)
    with engine.connect() as connection:
        assert connection.execute(every).all() == entered
    engine.dispose()
    assert len(entered) == 5
    assert "1234.5" in entered[3].search_text


async def test_what_was_erased_before_stays_without_words(url: str, repository: SqlDeliberationRepository) -> None:
    await hold(repository, "Secret?")
    downgrade(url, "0006")
    engine = open_sync_engine(url).execution_options(conclave_writes=True)
    with engine.begin() as connection:
        connection.execute(text("UPDATE specifications SET salts = NULL"))
    upgrade(url)
    with engine.connect() as connection:
        assert connection.execute(select(catalogue.c.search_text)).scalars().all() == [""]
    engine.dispose()


@pytest.mark.parametrize(
    ("change", "search"),
    [
        ("search_text = 'another word'", Search(words=("another",))),
        ("outcome = 'tied'", Search(outcome=OutcomeStatus.TIED)),
        ("rule = 'borda'", Search(rule=RuleKind.BORDA)),
    ],
)
async def test_a_hit_that_the_record_denies_is_refused(
    url: str, repository: SqlDeliberationRepository, change: str, search: Search
) -> None:
    over = await hold(repository, "As it was asked?")
    engine = open_sync_engine(url).execution_options(conclave_writes=True)
    with engine.begin() as connection:
        connection.execute(text(f"UPDATE catalogue SET {change}"))  # noqa: S608 - ours
    engine.dispose()
    with pytest.raises(RecordMismatchError) as refused:
        await repository.page(status=None, key_name=None, limit=5, cursor=None, search=search)
    assert (refused.value.deliberation_id, refused.value.part) == (over.id, "catalogue")
