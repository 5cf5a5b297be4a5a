"""Work that goes on beside the service for as long as it is open."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

__all__ = ["running_beside"]

_logger = logging.getLogger(__name__)


@asynccontextmanager
async def running_beside(work: Coroutine[Any, Any, None], *, name: str, without: str) -> AsyncIterator[None]:
    """Within it `work` goes on, and nobody waits for it. A fault of it is logged at once, as `without`: what there is none of then."""

    def say_why(task: asyncio.Task[None]) -> None:
        # Else nobody would know of it until the service closes.
        if not task.cancelled() and (error := task.exception()) is not None:
            _logger.error("%s", without, exc_info=error)

    task = asyncio.create_task(work, name=name)
    task.add_done_callback(say_why)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
