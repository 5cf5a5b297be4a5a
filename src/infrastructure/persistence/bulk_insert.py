"""Inserts many rows of one table by few statements, which is what a batch of records mostly costs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

from sqlalchemy import Connection, Dialect, Table

__all__ = ["MOST_ROWS", "BulkInsert"]

MOST_ROWS = 64
"""In one statement."""

# SQLite takes as long to prepare a statement of many rows as to run it, so there are no more kinds than a connection remembers:
# beyond so many rows, multiples of that and a rest. On Postgres a second statement costs more, which is another wait for the server.
_FEW_ROWS = 16


class BulkInsert:
    """Puts rows into a table in their order, up to 64 a statement, all in the transaction of the connection that it is given.

    A row is a tuple in the order of the table's columns, of values as the driver takes them. One statement of 64 rows takes a
    third of the time of 64 on SQLite, and every statement less is one wait less for the interpreter lock, which is what a
    small batch mostly costs while the event loop is busy.
    """

    def __init__(self, table: Table, dialect: Dialect) -> None:
        quote = dialect.identifier_preparer.quote
        columns = ", ".join(quote(column.name) for column in table.columns)
        mark = "?" if dialect.paramstyle == "qmark" else "%s"
        self._row = f"({', '.join([mark] * len(table.columns))})"
        self._head = f"INSERT INTO {quote(table.name)} ({columns}) VALUES "  # noqa: S608 - names of our own tables
        self._statements: dict[int, str] = {}
        self._step = _FEW_ROWS if dialect.name == "sqlite" else 1

    def __call__(
        self,
        connection: Connection,
        rows: Sequence[tuple[Any, ...]],
        *,
        together_with: tuple[str, tuple[Any, ...]] | None = None,
    ) -> None:
        """Insert them. Raises what SQLAlchemy raises, then the transaction is to be rolled back.

        `together_with` is another change and its values, made by the same statement as the first rows, of which there has to be one:
        one wait for the database less. Postgres only.
        """
        start = 0
        while start < len(rows):
            some = rows[start : start + self._at_once(len(rows) - start)]
            statement, values = self._statement(len(some)), tuple(chain.from_iterable(some))
            if together_with is not None and start == 0:
                change, given = together_with
                statement, values = f"WITH other AS ({change}) {statement}", (*given, *values)
            connection.exec_driver_sql(statement, values)
            start += len(some)

    def as_change(self, rows: Sequence[tuple[Any, ...]]) -> tuple[str, tuple[Any, ...]]:
        """The insertion of at most 64 rows, to be made together with another one."""
        return self._statement(len(rows)), tuple(chain.from_iterable(rows))

    def _statement(self, length: int) -> str:
        statement = self._statements.get(length)
        if statement is None:
            statement = self._statements[length] = self._head + ", ".join([self._row] * length)
        return statement

    def _at_once(self, rows: int) -> int:
        """How many of so many rows go into the next statement."""
        return rows if rows <= self._step else min(rows - rows % self._step, MOST_ROWS)
