"""Databases that a command cannot use: each is named as the setting that it is, and nothing is done to it."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from domain.errors.dependency import DependencyUnavailableError
from tests.command_line import Command, commands


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """Where the commands look for their database."""
    return tmp_path / "conclave.db"


@pytest.fixture
def conclave(database: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Command]:
    """Runs a command in this process, over that database."""
    monkeypatch.setenv("CONCLAVE_DATA_DIR", str(database.parent))
    monkeypatch.setenv("CONCLAVE_ORCHESTRATOR", "simulated")
    with commands(capsys) as run:
        yield run


def _written(database: Path, statement: str) -> None:
    with closing(sqlite3.connect(database)) as opened, opened:
        opened.execute(statement)


@pytest.mark.parametrize("command", [("db", "upgrade"), ("list",), ("serve",), ("deliberate", "Why?")], ids=" ".join)
def test_a_database_of_a_newer_conclave_is_a_usage_error_that_says_so(
    conclave: Command, database: Path, command: tuple[str, ...]
) -> None:
    assert conclave("db", "upgrade").code == 0
    _written(database, "UPDATE alembic_version SET version_num = '9999'")
    ran = conclave(*command)
    assert (ran.code, ran.stdout) == (2, "")
    assert "the database was made by a newer Conclave: revision 9999" in ran.stderr
    assert "Upgrade this program" in ran.stderr
    assert "fault" not in ran.stderr


def test_doctor_shows_a_newer_database_as_one_check_among_the_others(conclave: Command, database: Path) -> None:
    conclave("db", "upgrade")
    _written(database, "UPDATE alembic_version SET version_num = '9999'")
    ran = conclave("doctor", "--json")
    assert ran.code == 2
    found = {check["name"]: check for check in ran.document["checks"]}
    assert "a newer Conclave" in found["database"]["detail"]
    assert found["database"]["remedy"].startswith("CONCLAVE_DATABASE_URL: ")
    assert found["orchestrator"]["works"]
    assert found["rosters"]["works"]


def test_doctor_blames_no_database_for_the_key_of_the_record(
    conclave: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONCLAVE_WITNESS_KEY_FILE", "/dev/null")
    ran = conclave("doctor", "--json")
    assert ran.code == 2
    failed = {check["name"]: check["remedy"] for check in ran.document["checks"] if not check["works"]}
    assert set(failed) == {"record"}
    assert failed["record"].startswith("CONCLAVE_WITNESS_KEY_FILE: ")


@pytest.mark.parametrize("form", ["--json", "--seed=1"])
def test_a_store_that_stays_away_is_code_four_with_what_is_known_and_no_traceback(
    conclave: Command, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    from infrastructure.persistence.sql_deliberation_repository import SqlDeliberationRepository

    async def full(*_: object) -> None:
        raise DependencyUnavailableError(dependency="database", problem="the disk is full", remedy="Free some space.")

    monkeypatch.setattr(SqlDeliberationRepository, "append", full)
    ran = conclave("deliberate", "Why?", "--agents=5", "--deadline=0.2", form)
    assert ran.code == 4
    assert ("Roll call: 0 of 5 ended so far" in ran.stdout) or ran.document["status"] == "queued"
    told = ran.stderr.splitlines()
    assert told[-1].startswith("conclave: database cannot be used: the disk is full. Free some space. ")
    assert [line for line in told if "the store is away" in line] == told[:1]
    assert "Traceback" not in ran.stderr
    assert "Error" not in ran.stderr


def test_a_file_of_another_program_is_a_usage_error_that_says_so(conclave: Command, database: Path) -> None:
    _written(database, "CREATE TABLE deliberations (of TEXT)")
    ran = conclave("list")
    assert (ran.code, ran.stdout) == (2, "")
    assert "another program has made (table deliberations already exists)" in ran.stderr
    assert "fault" not in ran.stderr
