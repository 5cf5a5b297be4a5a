"""Unit tests run in virtual time: a test that waits an hour takes none, and one that waits for ever fails at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from infrastructure.stubs.virtual_time import VirtualTimeLoop

if TYPE_CHECKING:
    import asyncio

    import pytest


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The loop of every asynchronous unit test."""
    return {"virtual": VirtualTimeLoop}
