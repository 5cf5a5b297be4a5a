"""Time of a virtual loop: it passes where a test says so, at no cost, and never on the wall's clock."""

from __future__ import annotations

import asyncio

from infrastructure.stubs.virtual_time import VirtualTimeLoop

__all__ = ["pass_time", "time_passed"]


async def pass_time(seconds: float) -> None:
    """Let so many virtual seconds pass, and everything happen that is due by then. Fails in a loop that would really wait."""
    _virtual_loop()
    await asyncio.sleep(seconds)


def time_passed() -> float:
    """Virtual seconds since the running loop was made."""
    return _virtual_loop().time()


def _virtual_loop() -> VirtualTimeLoop:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop), f"{loop!r} would really wait: run this in a VirtualTimeLoop"
    return loop
