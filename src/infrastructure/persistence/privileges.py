"""What the application's role may do on Postgres: read the record and add to it, without owning what would let it do more."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from domain.errors.configuration import ConfigurationError
from domain.errors.dependency import DependencyUnavailableError
from infrastructure.persistence.engine import open_sync_engine
from infrastructure.persistence.failures import translated_failures

__all__ = ["RIGHTS", "grant", "rights_beyond_appending", "runs_as_owner"]

_ADDED_TO = ("SELECT", "INSERT")
RIGHTS: Mapping[str, Sequence[str]] = {
    "witness_entries": _ADDED_TO,
    "witness_nodes": _ADDED_TO,
    "witness_checkpoints": _ADDED_TO,
    "erasures": _ADDED_TO,
    # Its one row is made by the migration.
    "witness_head": ("SELECT", "UPDATE (tree_size, frontier)"),
    # The columns that an erasure makes null.
    "agent_records": (*_ADDED_TO, "UPDATE (content, reasoning, failure_message, answer, salts)"),
    # Those of an erased deliberation go.
    "disclosures": (*_ADDED_TO, "DELETE"),
    "deliberations": (*_ADDED_TO, "UPDATE"),
    "specifications": (*_ADDED_TO, "UPDATE"),
    "calls": _ADDED_TO,
    "charges": _ADDED_TO,
    "topics": _ADDED_TO,
    # What an end adds, and an erasure empties.
    "catalogue": (*_ADDED_TO, "UPDATE (outcome, search_text)"),
    "resolutions": _ADDED_TO,
    "spending": (*_ADDED_TO, "UPDATE (amount)"),
    # Its one row is made by the migration.
    "halt_state": ("SELECT", "UPDATE (halted, reason, since)"),
    # Those of more than a day ago go.
    "idempotency_keys": (*_ADDED_TO, "DELETE"),
    # What was told more than a month ago goes.
    "webhook_deliveries": (*_ADDED_TO, "UPDATE", "DELETE"),
    "webhook_cursors": (*_ADDED_TO, "UPDATE (last_index)"),
    "alembic_version": ("SELECT",),
}
"""By table. A table that is missing here cannot be read by the application."""

# The work queue's tables are no part of the record: what they lose is found again in the deliberations.
_QUEUE_SCHEMA = "procrastinate"
_QUEUE_TABLES = ("procrastinate_jobs", "procrastinate_events", "procrastinate_workers", "procrastinate_periodic_defers")
_QUEUE_VERBS = ("SELECT", "INSERT", "UPDATE", "DELETE")

_OWNER_VARIABLE = "CONCLAVE_OWNER_DATABASE_URL"
_APPLICATION_VARIABLE = "CONCLAVE_DATABASE_URL"
_INSUFFICIENT_PRIVILEGE = "42501"
_NEVER = ("DELETE", "TRUNCATE", "TRIGGER", "REFERENCES")

# Who owns the schema, or the database, can drop tables of another owner.
_OWNS = text(
    "SELECT DISTINCT who.rolname FROM pg_roles who, pg_class c "
    "JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_database d ON d.datname = current_database() "
    "WHERE c.oid = to_regclass('witness_entries') AND who.rolname = ANY (:roles) AND (who.rolsuper "
    "OR pg_has_role(who.oid, c.relowner, 'MEMBER') OR pg_has_role(who.oid, n.nspowner, 'MEMBER') "
    "OR pg_has_role(who.oid, d.datdba, 'MEMBER'))"
)
_WANTED = text(
    "SELECT t, p, has_table_privilege(:role, to_regclass(t), p), "
    "CASE WHEN p IN ('SELECT', 'INSERT', 'UPDATE', 'REFERENCES') "
    "THEN has_any_column_privilege(:role, to_regclass(t), p) ELSE false END "
    "FROM unnest(CAST(:tables AS text[]), CAST(:verbs AS text[])) AS wanted (t, p)"
)
_SURROUNDINGS = text(
    "SELECT has_database_privilege(:role, current_database(), 'CONNECT'), has_schema_privilege(:role, n.oid, 'USAGE'), "
    "has_schema_privilege(:role, n.oid, 'CREATE'), n.nspname, current_database() "
    "FROM pg_namespace n JOIN pg_class c ON c.relnamespace = n.oid WHERE c.oid = to_regclass('witness_entries')"
)


def grant(connection: Connection, role: str, password: str | None = None) -> None:
    """Give `role` the `RIGHTS` and take every other right on the tables away; a role that is missing is made, able to log in.

    Belongs into the transaction of the migration, as the owner. An existing role keeps its password. Raises `ConfigurationError`
    when the owner may not do it, or when the role could change the record by other ways.
    """
    if not connection.execute(text("SELECT 1 FROM pg_roles WHERE rolname = :role"), {"role": role}).scalar():
        with _refusal(
            f"names a role that may not make the role {role!r}",
            f"Make it as a superuser by CREATE ROLE {_quoted(connection, role)} LOGIN PASSWORD '...', then run this again.",
        ):
            _create(connection, role, password)
    _refuse_owner(connection, role)
    with _refusal(
        f"names a role that may not grant the role {role!r} its rights", "Use the role that owns Conclave's tables."
    ):
        for statement in _statements(connection, role):
            connection.exec_driver_sql(statement)
    lacking = _lacking(connection, role)
    if lacking:
        # Where the owner may grant a part only, Postgres warns and goes on.
        raise ConfigurationError(
            variable=_OWNER_VARIABLE,
            problem=f"names a role that could not grant the role {role!r} {', '.join(lacking)}",
            remedy="Use the role that owns Conclave's tables and its database.",
        )
    excess = _excess(connection, role)
    if excess:
        raise ConfigurationError(
            variable=_APPLICATION_VARIABLE,
            problem=f"names the role {role!r}, which has more rights than to add to the record: {', '.join(excess)}",
            remedy="Take them away from it, from its groups and from PUBLIC.",
        )


def runs_as_owner(connection: Connection) -> bool:
    """Whether the user of `connection` could remove what guards the record.

    That is a superuser, and whoever owns the table of entries, its schema or its database, or can become such a role. On SQLite
    it is everybody who may write to the file.
    """
    if connection.dialect.name != "postgresql":
        return True
    return bool(_owners(connection, _users(connection)))


def rights_beyond_appending(url: str) -> list[str]:
    """What the user of `url` may do to the record but should not, in words; empty when all is well. Blocks.

    Raises `DependencyUnavailableError` when the database is away or has no tables.
    """
    engine = open_sync_engine(url)
    with translated_failures(), engine.connect() as connection:
        if not connection.dialect.has_table(connection, "witness_entries"):
            raise DependencyUnavailableError(
                dependency="database", problem="its tables are missing", remedy="Run `conclave db upgrade`."
            )
        if runs_as_owner(connection):
            return ["own the tables"]
        return _excess(connection, _users(connection)[0])


def _users(connection: Connection) -> list[str]:
    # They differ in a session that took on another role, which it can give up again.
    return list(connection.execute(text("SELECT session_user, current_user")).one())


def _owners(connection: Connection, roles: Sequence[str]) -> list[str]:
    return list(connection.execute(_OWNS, {"roles": list(roles)}).scalars())


def _refuse_owner(connection: Connection, role: str) -> None:
    if _owners(connection, [role]):
        raise ConfigurationError(
            variable=_APPLICATION_VARIABLE,
            problem=f"names the role {role!r}, which owns the record or can become its owner",
            remedy=f"Name a role of its own there, and the owner in {_OWNER_VARIABLE} only.",
        )


def _create(connection: Connection, role: str, password: str | None) -> None:
    secret = ""
    if password is not None:
        # Sent as its verifier, so that the server's log of statements never holds it.
        driver: Any = connection.connection.driver_connection
        verifier = driver.pgconn.encrypt_password(password.encode(), role.encode(), b"scram-sha-256")
        secret = f" PASSWORD '{verifier.decode('ascii')}'"
    connection.exec_driver_sql(f"CREATE ROLE {_quoted(connection, role)} LOGIN{secret}")


def _statements(connection: Connection, role: str) -> Iterator[str]:
    to = _quoted(connection, role)
    *_, schema, database = connection.execute(_SURROUNDINGS, {"role": role}).one()
    within, whole = _quoted(connection, schema), _quoted(connection, database)
    yield f"REVOKE ALL ON DATABASE {whole} FROM {to}"
    yield f"GRANT CONNECT ON DATABASE {whole} TO {to}"
    yield f"REVOKE ALL ON SCHEMA {within} FROM {to}"
    yield f"GRANT USAGE ON SCHEMA {within} TO {to}"
    for table, rights in RIGHTS.items():
        yield f"REVOKE ALL ON {within}.{table} FROM {to}"
        yield f"GRANT {', '.join(rights)} ON {within}.{table} TO {to}"
    yield f"REVOKE ALL ON SCHEMA {_QUEUE_SCHEMA} FROM {to}"
    yield f"GRANT USAGE ON SCHEMA {_QUEUE_SCHEMA} TO {to}"
    for kind, verbs in (("TABLES", _QUEUE_VERBS), ("SEQUENCES", ("USAGE",))):
        yield f"REVOKE ALL ON ALL {kind} IN SCHEMA {_QUEUE_SCHEMA} FROM {to}"
        yield f"GRANT {', '.join(verbs)} ON ALL {kind} IN SCHEMA {_QUEUE_SCHEMA} TO {to}"


def _lacking(connection: Connection, role: str) -> list[str]:
    connects, uses, *_ = connection.execute(_SURROUNDINGS, {"role": role}).one()
    wanted = [
        *((table, right.partition(" (")[0]) for table, rights in RIGHTS.items() for right in rights),
        *((f"{_QUEUE_SCHEMA}.{table}", verb) for table in _QUEUE_TABLES for verb in _QUEUE_VERBS),
    ]
    return [
        *([] if connects else ["CONNECT"]),
        *([] if uses else ["USAGE"]),
        *(f"{verb} on {table}" for table, verb, whole, some in _held(connection, role, wanted) if not (whole or some)),
    ]


def _excess(connection: Connection, role: str) -> list[str]:
    _, _, creates, schema, _ = connection.execute(_SURROUNDINGS, {"role": role}).one()
    # Without any, no right on some of its columns either; with one that names columns, none on the whole table.
    columns = {table: any(right.startswith("UPDATE (") for right in rights) for table, rights in RIGHTS.items()}
    unwanted = [
        (table, verb)
        for table, rights in RIGHTS.items()
        for verb in ("INSERT", "UPDATE", *_NEVER)
        if verb not in rights
    ]
    return [
        *([f"CREATE in schema {schema}"] if creates else []),
        *(
            f"{verb} on {table}"
            for table, verb, whole, some in _held(connection, role, unwanted)
            if whole or (some and not (verb == "UPDATE" and columns[table]))
        ),
    ]


def _held(
    connection: Connection, role: str, wanted: Sequence[tuple[str, str]]
) -> Iterator[tuple[str, str, bool | None, bool | None]]:
    """Each table and verb, whether the role has it on the whole table, and whether on a column; None without the table."""
    values = {"role": role, "tables": [table for table, _ in wanted], "verbs": [verb for _, verb in wanted]}
    return (tuple(row) for row in connection.execute(_WANTED, values))


def _quoted(connection: Connection, name: str) -> str:
    return connection.dialect.identifier_preparer.quote_identifier(name)


@contextmanager
def _refusal(problem: str, remedy: str) -> Iterator[None]:
    """Within it the database's refusal is that of the owner's address."""
    try:
        yield
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) != _INSUFFICIENT_PRIVILEGE:
            raise
        raise ConfigurationError(variable=_OWNER_VARIABLE, problem=problem, remedy=remedy) from error
