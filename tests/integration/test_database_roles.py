"""The owner of the tables and the application's role, which an upgrade makes, judges, and refuses where it could change the record."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import event

from api.bootstrap import examine, upgrade_database
from domain.errors.configuration import ConfigurationError
from domain.errors.dependency import DependencyUnavailableError
from infrastructure.persistence import tables
from infrastructure.persistence.engine import open_sync_engine
from infrastructure.persistence.migrate import current_revision, is_current, upgrade
from infrastructure.persistence.privileges import RIGHTS, grant, rights_beyond_appending, runs_as_owner
from infrastructure.settings import load_settings
from tests.integration.forbidden_statements import KEYS
from tests.integration.recorded_databases import Ground, opened_ground, text_of, write_record
from tests.servers.postgres import PostgresServer


@pytest.fixture
def sqlite_file(recorded_sqlite_file: Path, tmp_path: Path) -> Path:
    """A SQLite file with the record, of this test's own."""
    return Path(shutil.copy(recorded_sqlite_file, tmp_path / "conclave.db"))


@pytest.fixture
def ground(postgres_server: PostgresServer) -> Iterator[Ground]:
    """A database without tables, of this test's own."""
    with opened_ground(postgres_server) as opened:
        yield opened


def test_an_upgrade_makes_a_role_that_works_and_cannot_change_the_log(ground: Ground, tmp_path: Path) -> None:
    settings = load_settings(
        {
            "CONCLAVE_DATA_DIR": str(tmp_path),
            "CONCLAVE_DATABASE_URL": text_of(ground.application),
            "CONCLAVE_OWNER_DATABASE_URL": text_of(ground.owner),
        },
        None,
    )
    assert upgrade_database(settings) == current_revision(settings.database_url)
    engine = open_sync_engine(settings.database_url)
    with engine.begin() as connection:
        write_record(connection)
    with ground.connect("application") as session, pytest.raises(psycopg.errors.InsufficientPrivilege):
        session.execute("UPDATE witness_entries SET entry = ''")
    assert rights_beyond_appending(settings.database_url) == []


def test_an_upgrade_of_a_present_schema_lets_a_new_role_in(ground: Ground) -> None:
    upgrade(text_of(ground.owner))
    with pytest.raises(DependencyUnavailableError):
        current_revision(text_of(ground.application))
    upgrade(text_of(ground.owner), application_url=text_of(ground.application))
    assert is_current(text_of(ground.application))


def test_an_upgrade_takes_away_what_a_role_had_been_given_beyond_its_rights(ground: Ground) -> None:
    owner, application = text_of(ground.owner), text_of(ground.application)
    upgrade(owner, application_url=application)
    role = sql.Identifier(str(ground.application.username))
    with ground.connect("owner") as connection:
        for right in ("DELETE ON witness_entries", "UPDATE (entry) ON witness_entries", "CREATE ON SCHEMA public"):
            connection.execute(sql.SQL(f"GRANT {right} TO {{}}").format(role))
    excess = rights_beyond_appending(application)
    assert set(excess) == {"CREATE in schema public", "DELETE on witness_entries", "UPDATE on witness_entries"}
    upgrade(owner, application_url=application)
    assert rights_beyond_appending(application) == []


@pytest.mark.parametrize("right", ["DELETE ON witness_entries", "CREATE ON SCHEMA public", "INSERT ON witness_head"])
def test_an_upgrade_refuses_a_role_that_everybodys_rights_let_change_the_record(ground: Ground, right: str) -> None:
    upgrade(text_of(ground.owner))
    with ground.connect("owner") as connection:
        connection.execute(f"GRANT {right} TO PUBLIC".encode())
    with pytest.raises(ConfigurationError, match=right.partition(" ")[0]) as refused:
        upgrade(text_of(ground.owner), application_url=text_of(ground.application))
    assert refused.value.variable == "CONCLAVE_DATABASE_URL"
    assert "PUBLIC" in refused.value.remedy


def test_an_owner_that_may_not_make_roles_is_refused_and_nothing_is_left_behind(ground: Ground) -> None:
    with ground.connect("admin") as connection:
        connection.execute(f"ALTER ROLE {ground.owner.username} NOCREATEROLE".encode())
    with pytest.raises(ConfigurationError, match="may not make the role") as refused:
        upgrade(text_of(ground.owner), application_url=text_of(ground.application))
    assert refused.value.variable == "CONCLAVE_OWNER_DATABASE_URL"
    assert "CREATE ROLE" in refused.value.remedy
    assert str(ground.application.password) not in str(refused.value)
    assert current_revision(text_of(ground.owner)) is None


def test_an_owner_that_does_not_own_the_tables_cannot_let_anybody_in(ground: Ground) -> None:
    upgrade(text_of(ground.admin))
    with ground.connect("admin") as connection:
        connection.execute(f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {ground.owner.username}".encode())
    with pytest.raises(ConfigurationError) as refused:
        upgrade(text_of(ground.owner), application_url=text_of(ground.application))
    assert refused.value.variable == "CONCLAVE_OWNER_DATABASE_URL"


def test_a_password_reaches_the_server_as_its_verifier_only(ground: Ground) -> None:
    upgrade(text_of(ground.owner))
    sent: list[str] = []
    engine = open_sync_engine(ground.owner)
    with engine.begin() as connection:
        event.listen(connection, "before_cursor_execute", lambda *given: sent.append(given[2]))
        grant(connection, str(ground.application.username), ground.application.password)
    created = next(statement for statement in sent if statement.startswith("CREATE ROLE"))
    assert "SCRAM-SHA-256$" in created
    assert not any(str(ground.application.password) in statement for statement in sent)
    assert is_current(text_of(ground.application))


@pytest.mark.parametrize("way", ["superuser", "member of the owner", "owner of the database", "owner of the schema"])
def test_whoever_could_become_the_owner_is_told_from_the_application(ground: Ground, way: str) -> None:
    owner, application = text_of(ground.owner), text_of(ground.application)
    upgrade(owner, application_url=application)
    role = sql.Identifier(str(ground.application.username))
    names = {
        "role": role,
        "owner": sql.Identifier(str(ground.owner.username)),
        "database": sql.Identifier(str(ground.owner.database)),
    }
    statement = {
        "superuser": sql.SQL("ALTER ROLE {role} SUPERUSER"),
        "member of the owner": sql.SQL("REVOKE {role} FROM {owner}; GRANT {owner} TO {role} WITH INHERIT FALSE"),
        "owner of the database": sql.SQL("ALTER DATABASE {database} OWNER TO {role}"),
        "owner of the schema": sql.SQL("ALTER SCHEMA public OWNER TO {role}"),
    }[way]
    engine = open_sync_engine(application)
    with engine.connect() as connection:
        assert not runs_as_owner(connection)
    with ground.connect("admin") as connection_of_admin:
        connection_of_admin.execute(statement.format(**names))
    with engine.connect() as connection:
        assert runs_as_owner(connection)
    assert rights_beyond_appending(application) == ["own the tables"]
    with pytest.raises(ConfigurationError, match="can become its owner"):
        upgrade(text_of(ground.admin), application_url=application)


def test_the_owner_runs_as_owner_even_as_another_role(ground: Ground) -> None:
    upgrade(text_of(ground.owner), application_url=text_of(ground.application))
    engine = open_sync_engine(ground.admin)
    with engine.connect() as connection:
        assert runs_as_owner(connection)
        role = connection.dialect.identifier_preparer.quote_identifier(str(ground.application.username))
        connection.exec_driver_sql(f"SET ROLE {role}")
        assert runs_as_owner(connection)


def test_whoever_has_the_file_of_sqlite_owns_it(sqlite_file: Path) -> None:
    with open_sync_engine(f"sqlite:///{sqlite_file}").connect() as connection:
        assert runs_as_owner(connection)


def test_an_upgrade_for_the_owners_own_role_grants_nothing(ground: Ground) -> None:
    upgrade(text_of(ground.owner), application_url=text_of(ground.owner))
    assert rights_beyond_appending(text_of(ground.owner)) == ["own the tables"]


def test_an_owner_of_another_kind_of_database_is_refused(ground: Ground, sqlite_file: Path) -> None:
    with pytest.raises(ConfigurationError, match="another kind of database"):
        upgrade(text_of(ground.owner), application_url=f"sqlite:///{sqlite_file}")
    assert current_revision(text_of(ground.owner)) is None


def test_an_application_without_a_user_is_refused(ground: Ground) -> None:
    nobody = f"postgresql://{ground.owner.host}:{ground.owner.port}/{ground.owner.database}"
    with pytest.raises(ConfigurationError, match="names no user"):
        upgrade(text_of(ground.owner), application_url=nobody)


def test_a_database_without_tables_has_no_rights_to_judge(ground: Ground) -> None:
    with pytest.raises(DependencyUnavailableError, match="tables are missing"):
        rights_beyond_appending(text_of(ground.owner))


def test_every_table_has_its_rights_written_down() -> None:
    assert set(RIGHTS) == {*tables.metadata.tables, "alembic_version"}
    assert set(KEYS) <= set(RIGHTS)
    assert [table for table, rights in RIGHTS.items() if "DELETE" in rights] == [
        "disclosures",
        "idempotency_keys",
        "webhook_deliveries",
    ]


@pytest.mark.parametrize(("who", "works"), [("application", True), ("owner", False)])
async def test_doctor_says_whether_the_application_runs_as_owner(
    ground: Ground, tmp_path: Path, who: str, works: bool
) -> None:
    upgrade(text_of(ground.owner), application_url=text_of(ground.application))
    address = text_of(getattr(ground, who))
    given = {"CONCLAVE_DATA_DIR": str(tmp_path), "CONCLAVE_DATABASE_URL": address, "CONCLAVE_ORCHESTRATOR": "simulated"}
    settings = load_settings(given, None)
    check = next(check for check in await examine(settings) if check.name == "database role")
    assert check.works is works
    assert ("CONCLAVE_OWNER_DATABASE_URL" in check.remedy) is not works
    assert str(getattr(ground, who).password) not in f"{check}"
