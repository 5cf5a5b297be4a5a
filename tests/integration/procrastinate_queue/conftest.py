"""A queue on a Postgres database of each test's own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from infrastructure.queues.procrastinate_queue import ProcrastinateQueue
from tests.queue_hands import database
from tests.servers.postgres import PostgresServer


@pytest.fixture(scope="module")
def template(postgres_server: PostgresServer) -> Iterator[str]:
    """A Postgres database with the tables of this version, to copy from."""
    with database(postgres_server) as name:
        yield name


@pytest.fixture
def url(postgres_server: PostgresServer, template: str) -> Iterator[str]:
    """The address of a Postgres database of this test's own."""
    with database(postgres_server, template) as name:
        yield postgres_server.url(name)


@pytest.fixture
async def queue(url: str) -> AsyncIterator[ProcrastinateQueue]:
    """An empty queue in it."""
    opened = ProcrastinateQueue(url, count_age_s=0.0)
    yield opened
    await opened.close()
