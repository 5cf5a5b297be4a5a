"""The witness log over connections of its own, opened when first needed: for entries that may not wait behind the service's work."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from application.ports.witness_log import Disclosure, LoggedEntry
from domain.errors.dependency import DependencyUnavailableError
from infrastructure.persistence.database import Database, open_database
from infrastructure.persistence.engine import database_url
from infrastructure.persistence.failures import is_locked
from infrastructure.persistence.same_file import file_identity
from infrastructure.persistence.sql_witness_log import SqlWitnessLog

__all__ = ["OwnLog"]

# SQLite itself tries for the lock at ever longer intervals, so that among busy writers a late one waits for long: this tries
# all the time, as far as its few transactions go.
_TRY_S = 0.004
_PATIENCE_S = 2.0


class OwnLog:
    """Adds to the log at that address, whoever else does. A database that is away when this is made is no hindrance."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._address = database_url(url)
        self._file: tuple[int, int] | None = None
        self._opening = asyncio.Lock()
        self._database: Database | None = None
        self._log: SqlWitnessLog | None = None

    async def append(
        self, documents: Sequence[Mapping[str, Any]], *, disclosures: Sequence[Disclosure] = ()
    ) -> Sequence[LoggedEntry]:
        """As in `WitnessLog`. Raises `ConfigurationError` for a database that would lose it."""
        loop = asyncio.get_running_loop()
        end = loop.time() + _PATIENCE_S
        while True:
            try:
                return await (await self.open()).append(documents, disclosures=disclosures)
            except DependencyUnavailableError as error:
                if not is_locked(error.__cause__) or loop.time() >= end:
                    raise

    async def open(self) -> SqlWitnessLog:
        """Connect, unless that is done. Raises `DependencyUnavailableError` and `ConfigurationError`."""
        async with self._opening:
            present = file_identity(self._address)
            if self._log is None or present != self._file:
                await self._let_go()
                self._database = await open_database(self._url, busy_timeout_s=_TRY_S)
                self._log, self._file = SqlWitnessLog(self._database), present
            return self._log

    async def close(self) -> None:
        """Let the connections go."""
        async with self._opening:
            await self._let_go()

    async def _let_go(self) -> None:
        database, self._database, self._log = self._database, None, None
        if database is not None:
            await database.close()
