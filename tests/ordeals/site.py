"""A Conclave with what stands behind the channels of its halt."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import psycopg

from infrastructure.halt.redis_channel import HALT_KEY
from tests.ordeals.drill import By
from tests.ordeals.house import House
from tests.servers.postgres import PostgresServer
from tests.servers.redis import RedisServer


@dataclass
class Site:
    """A house with what stands behind its channels, each of which can be set by hand, taken away and brought back."""

    house: House
    halt_file: Path
    redis: RedisServer
    postgres: PostgresServer | None
    database: str

    def set_by_hand(self, by: By) -> None:
        """Halt at one channel, without Conclave."""
        if by is By.FILE:
            self.halt_file.touch()
        elif by is By.REDIS:
            assert self.redis.command("SET", HALT_KEY, "by hand") == "+OK"
        elif self.postgres is None:
            with closing(sqlite3.connect(self.database, isolation_level=None, timeout=10)) as connection:
                connection.execute("UPDATE halt_state SET halted = 1, reason = 'by hand'")
        else:
            with psycopg.connect(self.postgres.conninfo(self.database), autocommit=True) as connection:
                connection.execute("UPDATE halt_state SET halted = true, reason = 'by hand'")

    def break_channel(self, name: str | None) -> None:
        """Take it away."""
        if name == "file":
            self.halt_file.mkdir()
        elif name == "redis":
            self.redis.stop()
        elif name == "database" and self.postgres is not None:
            self.postgres.stop()

    def mend_channel(self, name: str | None) -> None:
        """Bring it back."""
        if name == "file":
            self.halt_file.rmdir()
        elif name == "redis":
            self.redis.start()
        elif name == "database" and self.postgres is not None:
            self.postgres.start()
