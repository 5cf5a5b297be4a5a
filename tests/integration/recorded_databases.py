"""A database of each kind that holds a small record, with its owner and the application's role."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql
from sqlalchemy import URL, Connection, make_url

from infrastructure.persistence import tables
from infrastructure.persistence.engine import open_sync_engine
from infrastructure.persistence.migrate import upgrade
from tests.servers.postgres import PostgresServer

__all__ = [
    "CHARGE",
    "ERASED",
    "KEPT",
    "MOMENT",
    "Ground",
    "opened_ground",
    "recorded_file_below",
    "text_of",
    "write_record",
]

KEPT, ERASED = "0197-kept", "0197-erased"
MOMENT = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Ground:
    """One Postgres database, its owner and the application's role, which is another."""

    admin: URL
    owner: URL
    application: URL

    def connect(self, who: str) -> psycopg.Connection[Any]:
        """A session of `admin`, `owner` or `application` in which each statement stands for itself."""
        url: URL = getattr(self, who)
        parts = url.translate_connect_args(username="user", database="dbname")
        return psycopg.connect(psycopg.conninfo.make_conninfo(**parts), autocommit=True)


def text_of(url: URL) -> str:
    return url.render_as_string(hide_password=False)


CHARGE = {
    "round_number": 1,
    "agent_id": "archon-1",
    "purpose": "answer",
    "input_tokens": 3,
    "output_tokens": 2,
    "cost": 9,
    "is_certain": True,
}


def _record(*, ordinal: int, deliberation_id: str, agent_id: str) -> dict[str, Any]:
    return {
        "deliberation_id": deliberation_id,
        "round_number": 1,
        "agent_id": agent_id,
        "ordinal": ordinal,
        "state": "completed",
        "attempts": 1,
        "finished_at": MOMENT,
        "content": "what it said",
        "answer": "0",
        "reasoning": "why",
        "calls": 1,
        "input_tokens": 10,
        "output_tokens": 5,
        "cost_usd": 0.0,
        "uncertain_tokens": 0,
        "uncertain_usd": 0.0,
        "fell_back": False,
        "truncated": False,
        "duration_seconds": 0.5,
        "leaf_index": ordinal,
        "salts": b"s" * 64,
    }


def write_record(connection: Connection) -> None:
    """Two deliberations of two agents, recorded; the second may be erased and is not yet."""
    for position, name in enumerate((KEPT, ERASED)):
        deliberation = {
            "id": name,
            "position": position,
            "status": "completed",
            "created_at": MOMENT,
            "orchestrator": "simulated",
            "simulated": True,
            "cancel_requested": False,
        }
        connection.execute(tables.deliberations.insert(), deliberation)
        specification = {"deliberation_id": name, "specification": "{}", "roster": "{}", "salts": b"s" * 16}
        connection.execute(tables.specifications.insert(), specification)
        for ordinal, agent in enumerate(("archon-1", "archon-2"), start=1):
            connection.execute(
                tables.agent_records.insert(), _record(ordinal=ordinal, deliberation_id=name, agent_id=agent)
            )
        call = {
            "deliberation_id": name,
            "round_number": 1,
            "agent_id": "archon-1",
            "purpose": "answer",
            "leaf_index": 0,
        }
        for attempt in (1, 2):
            foreseen = {"day": "2026-11-20", "held_tokens": 9, "held_cost": 9}
            intended = {**call, **foreseen, "attempt": attempt, "prompt_sha256": "p" * 64}
            connection.execute(tables.calls.insert(), intended)
            connection.execute(tables.charges.insert(), {**CHARGE, "deliberation_id": name, "attempt": attempt})
    for index, (name, entry) in enumerate(((KEPT, b"{}"), (ERASED, b"{}"), (ERASED, b'{"type":"erased"}'))):
        values = {"idx": index, "leaf_hash": b"h" * 32, "deliberation_id": name, "sequence": index, "entry": entry}
        connection.execute(tables.witness_entries.insert(), values)
    for digit, owner in (("0", None), ("1", KEPT), ("2", ERASED)):
        disclosure = {"sha256": digit * 64, "deliberation_id": owner, "salt": b"s" * 16, "text": "why"}
        connection.execute(tables.disclosures.insert(), disclosure)
    for place in (0, 1):
        connection.execute(tables.witness_nodes.insert(), {"tile_level": 1, "place": place, "hash": b"n" * 32})
    connection.execute(
        tables.witness_checkpoints.insert(), [{"tree_size": 1, "note": "1"}, {"tree_size": 3, "note": "3"}]
    )
    connection.execute(tables.erasures.insert(), {"deliberation_id": ERASED, "idx": 2})
    connection.execute(tables.witness_head.update().values(tree_size=3, frontier=b"f" * 64))


def recorded_file_below(folder: Path) -> Path:
    """A new SQLite file with the record."""
    path = folder / "recorded.db"
    upgrade(f"sqlite:///{path}")
    engine = open_sync_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        write_record(connection)
    engine.dispose()
    return path


@contextmanager
def opened_ground(server: PostgresServer) -> Iterator[Ground]:
    """A database without tables, whose owner is no superuser but may make roles; the application's role is still to be made."""
    if not server.running:
        server.start()
    mark = secrets.token_hex(6)
    admin = make_url(server.url(f"append_only_{mark}"))
    owner = admin.set(username=f"owner_{mark}", password=secrets.token_hex(12))
    # Whatever a name holds, it is a name.
    application = admin.set(username=f'app "{mark}" 100%', password="p@ss'word % \\ ü")
    with psycopg.connect(server.conninfo(), autocommit=True) as connection:
        name = sql.Identifier(str(owner.username))
        secret = sql.Literal(owner.password)
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN CREATEROLE PASSWORD {}").format(name, secret))
        connection.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(sql.Identifier(str(owner.database)), name))
    yield Ground(admin=admin, owner=owner, application=application)
    if not server.running:
        server.start()
    server.drop_database(str(owner.database))
    with psycopg.connect(server.conninfo(), autocommit=True) as connection:
        for url in (application, owner):
            connection.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(str(url.username))))
