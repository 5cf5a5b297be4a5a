"""The one event loop of a process."""

from __future__ import annotations

import asyncio

import pytest
import uvloop

from infrastructure.event_loop import run


def test_the_result_comes_from_a_loop_of_its_own_that_is_closed_afterwards() -> None:
    async def main() -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    loop = run(main())
    assert isinstance(loop, uvloop.Loop)
    assert loop.is_closed()


def test_what_the_work_raises_comes_out() -> None:
    async def main() -> None:
        raise LookupError("nothing there")

    with pytest.raises(LookupError, match="nothing there"):
        run(main())
