"""What the queue on Postgres needs of its database: its tables, which belong to it alone, and the rights on them."""

from __future__ import annotations

from pathlib import Path

import pytest
from procrastinate.schema import SchemaManager
from sqlalchemy import make_url

from application.ports.work_queue import Job
from domain.errors.configuration import ConfigurationError
from domain.errors.dependency import DependencyUnavailableError
from infrastructure.persistence.engine import open_sync_engine
from infrastructure.persistence.migrate import downgrade, upgrade
from infrastructure.persistence.privileges import rights_beyond_appending
from infrastructure.queues.procrastinate_queue import ProcrastinateQueue
from infrastructure.queues.procrastinate_schema import make_schema
from tests.integration.procrastinate_queue.queue_tables import connected, rows
from tests.queue_hands import Hands, serving
from tests.servers.postgres import PostgresServer


async def test_without_its_tables_it_says_what_to_do(postgres_url: str) -> None:
    queue = ProcrastinateQueue(postgres_url)
    with pytest.raises(DependencyUnavailableError, match="conclave db upgrade"):
        await queue.put(Job("early"))
    await queue.close()


def test_a_database_that_is_no_postgres_is_refused() -> None:
    with pytest.raises(ConfigurationError) as refused:
        ProcrastinateQueue("sqlite:////somewhere/conclave.db")
    assert refused.value.variable == "CONCLAVE_DATABASE_URL"


async def test_the_applications_role_can_use_the_queue_and_has_no_more_rights_on_the_record(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    name = f"app_{make_url(postgres_url).database}"
    application = make_url(postgres_url).set(username=name, password="secret").render_as_string(hide_password=False)
    upgrade(postgres_url, application_url=application)
    queue = ProcrastinateQueue(application)
    hands = Hands()
    try:
        async with serving(queue, hands):
            for job in ("one", "two"):
                await queue.put(Job(job))
            await queue.withdraw("two")
            await queue.waiting_count()
            await hands.until(ended=1)
        assert rights_beyond_appending(application) == []
    finally:
        await queue.close()
        with connected(postgres_url) as connection:
            connection.execute(f"DROP OWNED BY {name}".encode())
            connection.execute(f"DROP ROLE {name}".encode())


def test_making_the_tables_again_changes_nothing(url: str) -> None:
    query = "SELECT relname FROM pg_class WHERE relnamespace = 'procrastinate'::regnamespace ORDER BY 1"
    before = rows(url, query)
    engine = open_sync_engine(url)
    with engine.begin() as connection:
        make_schema(connection)
        assert connection.exec_driver_sql("SHOW search_path").scalar() == '"$user", public'
    engine.dispose()
    assert rows(url, query) == before
    assert ("procrastinate_jobs",) in before


def test_what_a_later_procrastinate_adds_is_added_once(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "00.00.00_01_initial.sql").write_text("THIS WAS DONE LONG AGO")
    (tmp_path / "99.00.00_01_more.sql").write_text("CREATE TABLE more (percent TEXT DEFAULT '100 %'); SELECT 1")
    monkeypatch.setattr(SchemaManager, "get_migrations_path", lambda: str(tmp_path))
    engine = open_sync_engine(url)
    for _ in range(2):
        with engine.begin() as connection:
            make_schema(connection)
    engine.dispose()
    assert rows(url, "SELECT to_regclass('procrastinate.more') IS NULL, to_regclass('public.more') IS NULL") == [
        (False, True)
    ]


def test_tables_that_somebody_else_made_are_left_alone(postgres_url: str) -> None:
    with connected(postgres_url) as connection:
        connection.execute(b"CREATE SCHEMA procrastinate")
    with pytest.raises(ConfigurationError, match="did not make"):
        upgrade(postgres_url)
    assert rows(postgres_url, "SELECT to_regclass('public.deliberations')") == [(None,)]


def test_going_down_takes_the_tables_of_the_queue_along(postgres_url: str) -> None:
    upgrade(postgres_url)
    downgrade(postgres_url, "0003")
    assert rows(postgres_url, "SELECT to_regnamespace('procrastinate')") == [(None,)]
    upgrade(postgres_url)
    assert rows(postgres_url, "SELECT to_regclass('procrastinate.procrastinate_jobs') IS NULL") == [(False,)]
