"""Bulk inserts: every row arrives in its order, by statements of few sizes."""

from __future__ import annotations

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, create_engine, event, select
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg

from infrastructure.persistence.bulk_insert import MOST_ROWS, BulkInsert

TABLE = Table("numbers", MetaData(), Column("number", Integer), Column("double", Integer))
MOST_KINDS = 19


def inserted(*sizes: int) -> tuple[list[list[int]], list[str]]:
    """What stands in the table after each batch of so many rows, and the statements that put it there."""
    engine = create_engine("sqlite://")
    statements: list[str] = []
    found: list[list[int]] = []
    with engine.begin() as connection:
        TABLE.create(connection)
        event.listen(connection, "before_cursor_execute", lambda _c, _k, text, *_: statements.append(text))
        insert = BulkInsert(TABLE, engine.dialect)
        for size in sizes:
            insert(connection, [(number, 2 * number) for number in range(size)])
            found.append(list(connection.scalars(select(TABLE.c.number).order_by(TABLE.c.number))))
            connection.execute(TABLE.delete())
    engine.dispose()
    return found, [text for text in statements if text.startswith("INSERT")]


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 63, 64, 65, 81, 200])
def test_every_row_of_a_batch_of_any_size_is_inserted(size: int) -> None:
    found, _ = inserted(size)
    assert found == [list(range(size))]


def test_batches_of_all_sizes_need_so_few_kinds_of_statement_that_a_connection_remembers_them() -> None:
    _, statements = inserted(*range(1, 2 * MOST_ROWS + 1))
    assert len(set(statements)) <= MOST_KINDS


def test_on_sqlite_a_batch_takes_at_most_one_statement_more_than_full_ones() -> None:
    for size in (5, 16, 40, 64, 100):
        _, statements = inserted(size)
        assert len(statements) <= size // MOST_ROWS + 2


class NotedStatements:
    """A connection that only notes what it is to run."""

    def __init__(self) -> None:
        self.statements: list[str] = []

    def exec_driver_sql(self, statement: str, values: tuple[int, ...]) -> None:
        self.statements.append(statement)


def test_on_postgres_up_to_sixty_four_rows_go_by_one_statement() -> None:
    connection = NotedStatements()
    insert = BulkInsert(TABLE, PGDialect_psycopg())  # type: ignore[no-untyped-call]
    for size in range(1, MOST_ROWS + 1):
        insert(connection, [(number, number) for number in range(size)])  # type: ignore[arg-type]
    assert len(connection.statements) == MOST_ROWS
