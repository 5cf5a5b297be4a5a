"""Failures of databases: each is told as what it is, and a wrong statement is never taken for one."""

from __future__ import annotations

import sqlite3

import psycopg
import pytest
from sqlalchemy.exc import DBAPIError, DisconnectionError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from domain.errors.dependency import DependencyUnavailableError
from infrastructure.persistence.failures import is_conflict, translated_failures, unavailability


class ComplaintError(Exception):
    """What a driver raises, with the code of its database."""

    def __init__(
        self, *, sqlite_errorname: str | None = None, sqlstate: str | None = None, text: str = "s3cret"
    ) -> None:
        super().__init__(text)
        self.sqlite_errorname = sqlite_errorname
        self.sqlstate = sqlstate


def _error(**code: str) -> DBAPIError:
    return DBAPIError("SELECT", None, ComplaintError(**code))


_AWAY = {
    "BUSY",
    "LOCKED",
    "NOMEM",
    "READONLY",
    "IOERR",
    "CORRUPT",
    "FULL",
    "CANTOPEN",
    "PROTOCOL",
    "AUTH",
    "PERM",
    "NOTADB",
}
_WRONG = {"TOOBIG", "CONSTRAINT", "MISMATCH", "MISUSE", "RANGE", "ERROR"}


@pytest.mark.parametrize("code", sorted(_AWAY))
def test_what_sqlite_cannot_do_now_is_unavailability(code: str) -> None:
    for name in (f"SQLITE_{code}", f"SQLITE_{code}_EXTENDED"):
        found = unavailability(_error(sqlite_errorname=name))
        assert isinstance(found, DependencyUnavailableError)
        assert found.dependency == "database"
        assert "s3cret" not in str(found)


@pytest.mark.parametrize("code", sorted(_WRONG))
def test_what_a_statement_did_wrong_on_sqlite_is_not(code: str) -> None:
    assert unavailability(_error(sqlite_errorname=f"SQLITE_{code}")) is None


@pytest.mark.parametrize(
    ("state", "problem"),
    [
        ("08006", "lost"),
        ("28P01", "password"),
        ("3D000", "no database"),
        ("42P01", "tables"),
        ("42703", "tables"),
        ("42501", "may not"),
        ("25006", "read-only"),
        ("40001", "gave up"),
        ("40P01", "gave up"),
        ("53100", "the disk is full"),
        ("53300", "resource"),
        ("55P03", "locked"),
        ("57P01", "stopping"),
        ("57P03", "starting"),
        ("58030", "machine"),
        ("XX001", "internal"),
    ],
)
def test_what_postgres_cannot_do_now_is_unavailability(state: str, problem: str) -> None:
    found = unavailability(_error(sqlstate=state))
    assert found is not None
    assert problem in found.problem


def test_callers_are_told_of_a_full_disk_and_of_nothing_else() -> None:
    for error in (_error(sqlite_errorname="SQLITE_FULL"), _error(sqlstate="53100")):
        found = unavailability(error)
        assert found is not None
        assert found.told == "The database takes no writes, because the disk is full; nothing is lost."
    for other in (_error(sqlite_errorname="SQLITE_READONLY"), _error(sqlstate="28P01"), TimeoutError()):
        found = unavailability(other)
        assert found is not None
        assert found.told is None


@pytest.mark.parametrize("state", ["22021", "22003", "23505", "42601", "42804"])
def test_what_a_statement_did_wrong_on_postgres_is_not(state: str) -> None:
    assert unavailability(_error(sqlstate=state)) is None


def test_missing_tables_say_what_to_do() -> None:
    for error in (
        _error(sqlite_errorname="SQLITE_ERROR", text="no such table: events"),
        _error(sqlite_errorname="SQLITE_ERROR", text="table events has no column named data"),
        _error(sqlstate="42P01"),
    ):
        found = unavailability(error)
        assert found is not None
        assert "conclave db upgrade" in found.remedy


@pytest.mark.parametrize(
    "error",
    [
        PoolTimeoutError(),
        TimeoutError(),
        DisconnectionError(),
        DBAPIError.instance("", None, psycopg.OperationalError("refused"), psycopg.Error),
        DBAPIError.instance("", None, psycopg.errors.ConnectionTimeout("too late"), psycopg.Error),
        DBAPIError.instance("", None, sqlite3.OperationalError("no active connection"), sqlite3.Error),
        DBAPIError("", None, ComplaintError(), connection_invalidated=True),
    ],
    ids=lambda error: type(getattr(error, "orig", error)).__name__,
)
def test_a_database_that_cannot_be_asked_is_unavailable(error: BaseException) -> None:
    with pytest.raises(DependencyUnavailableError) as away, translated_failures():
        raise error
    assert away.value.__cause__ is error


def test_a_repeated_key_stays_what_it_is() -> None:
    error = IntegrityError("", None, ComplaintError(sqlite_errorname="SQLITE_CONSTRAINT_PRIMARYKEY"))
    with pytest.raises(IntegrityError), translated_failures():
        raise error
    assert is_conflict(error)


def test_only_conflicts_are_worth_a_second_try() -> None:
    assert is_conflict(_error(sqlstate="40P01"))
    assert not is_conflict(_error(sqlstate="57P01"))
    assert not is_conflict(None)


def test_an_error_of_somebody_else_passes_through() -> None:
    with pytest.raises(KeyError), translated_failures():
        raise KeyError("x")
