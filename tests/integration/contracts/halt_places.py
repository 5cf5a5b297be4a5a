"""The places where a channel of the halt is kept: how to open it there, take the place away and bring it back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import psycopg
from psycopg import sql

from application.ports.halt_channel import HaltChannel
from infrastructure.halt.file_channel import FileHaltChannel
from infrastructure.persistence.migrate import upgrade
from infrastructure.persistence.sql_halt_channel import SqlHaltChannel
from infrastructure.stubs.halt_channel_stub import HaltChannelStub
from tests.servers.postgres import PostgresServer

__all__ = ["NOON", "Place", "file_place", "memory_place", "postgres_place", "sqlite_place"]

NOON = datetime(2026, 1, 1, 12, 0, 0, 123456, tzinfo=UTC)


@dataclass(frozen=True)
class Place:
    """An adapter under test: how to open another over the same place, and how to take that place away and bring it back."""

    channel: HaltChannel
    another: Callable[[], HaltChannel]
    take_away: Callable[[], object]
    bring_back: Callable[[], object]


def memory_place() -> Place:
    """Memory: another over the same place is the same object."""
    stub = HaltChannelStub()

    def away() -> None:
        stub.problem = "it is away"

    def back() -> None:
        stub.problem = None

    return Place(stub, lambda: stub, away, back)


def file_place(folder: Path) -> Place:
    """A file, whose folder goes away."""
    place = folder / "halting"
    place.mkdir()
    path = place / "HALT"
    elsewhere = folder / "moved"
    return Place(
        FileHaltChannel(path),
        lambda: FileHaltChannel(path),
        lambda: place.rename(elsewhere),
        lambda: elsewhere.rename(place),
    )


def sqlite_place(folder: Path) -> Place:
    """A SQLite file with the tables of this version."""
    path, moved = folder / "conclave.db", folder / "moved.db"
    url = f"sqlite:///{path}"
    upgrade(url)
    return Place(
        SqlHaltChannel(url),
        lambda: SqlHaltChannel(url),
        lambda: path.rename(moved),
        lambda: moved.rename(path),
    )


def postgres_place(server: PostgresServer, template: str) -> Place:
    """A database `halt_contract_copy`, which whoever calls drops; away, it lets nobody connect."""
    name = "halt_contract_copy"
    server.create_database(name, template=template)
    url = server.url(name)

    def allow(*, connections: bool) -> None:
        with psycopg.connect(server.conninfo(), autocommit=True) as connection:
            allowed = sql.Literal(connections)
            connection.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS {}").format(sql.Identifier(name), allowed))
            if not connections:
                connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])

    return Place(
        SqlHaltChannel(url),
        lambda: SqlHaltChannel(url),
        lambda: allow(connections=False),
        lambda: allow(connections=True),
    )
