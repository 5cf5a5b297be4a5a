"""Waiting for what only another process or the machine brings: looked for again and again, and a failure when patience ends.

No test's outcome hangs on how long one look waits for the next.
"""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

__all__ = ["PATIENCE_S", "eventually", "eventually_in_loop"]

_Found = TypeVar("_Found")

PATIENCE_S = 60.0
_BETWEEN_LOOKS_S = 0.005


def eventually(look: Callable[[], _Found], *, patience_s: float = PATIENCE_S) -> _Found:
    """The first thing that `look` finds, which is the first that counts as true."""
    until = time.monotonic() + patience_s
    while not (found := look()):
        assert time.monotonic() < until, f"nothing came within {patience_s:g} s: {found!r}"
        threading.Event().wait(_BETWEEN_LOOKS_S)
    return found


async def eventually_in_loop(look: Callable[[], Awaitable[_Found]], *, patience_s: float = PATIENCE_S) -> _Found:
    """The same, without holding up the event loop."""
    until = time.monotonic() + patience_s
    while not (found := await look()):
        assert time.monotonic() < until, f"nothing came within {patience_s:g} s: {found!r}"
        await asyncio.sleep(_BETWEEN_LOOKS_S)
    return found
