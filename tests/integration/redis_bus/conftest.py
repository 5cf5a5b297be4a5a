"""What tests of the Redis transport share: objects on one empty Redis, and a word of where a test hangs."""

from __future__ import annotations

import faulthandler
from collections.abc import AsyncIterator, Iterator

import pytest

from infrastructure.buses.redis_bus import RedisMessageBus
from tests.patience import PATIENCE_S


@pytest.fixture(autouse=True)
def told_where_it_hangs() -> Iterator[None]:
    """What hangs says where."""
    faulthandler.dump_traceback_later(4 * PATIENCE_S)
    yield
    faulthandler.cancel_dump_traceback_later()


@pytest.fixture
async def bus(redis_url: str) -> AsyncIterator[RedisMessageBus]:
    """An object of the transport."""
    async with RedisMessageBus(redis_url, patience_s=PATIENCE_S) as one:
        yield one


@pytest.fixture
async def other(redis_url: str) -> AsyncIterator[RedisMessageBus]:
    """A second object on the same place, as another process has it."""
    async with RedisMessageBus(redis_url, patience_s=PATIENCE_S) as one:
        yield one
