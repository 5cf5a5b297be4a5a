"""The tables of the queue as Postgres has them, past the queue."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg

__all__ = ["connected", "rows"]


@contextmanager
def connected(url: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection that finds the tables by their own names."""
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(b"SET search_path TO public, procrastinate")
        yield connection


def rows(url: str, query: str) -> list[tuple[Any, ...]]:
    """What the query finds."""
    with connected(url) as connection:
        return connection.execute(query.encode()).fetchall()
