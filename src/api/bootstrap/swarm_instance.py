"""One instance of a swarm in a process of its own: told on standard input what it is to join, and ended when that is closed."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

__all__: list[str] = []

_STDIN = 0
_AT_A_TIME = 65_536


def main() -> int:
    """Work until the session ends; the exit code."""
    facts = json.loads(_first_line())
    from api.bootstrap.process import run
    from domain.errors.conclave_error import ConclaveError

    try:
        run(_work(facts))
    except ConclaveError as error:
        sys.stderr.write(f"conclave: {facts['name']}: {error}\n")
        return 1
    return 0


def _first_line() -> bytes:
    """Read without a buffer, because a thread that waits in one keeps the interpreter from ending."""
    line = b""
    while not line.endswith(b"\n") and (more := os.read(_STDIN, _AT_A_TIME)):
        line += more
    return line


async def _work(facts: dict[str, Any]) -> None:
    from api.bootstrap.swarm import Place, join_swarm
    from application.services.stop_signal import StopReason, StopSignal

    stop = StopSignal()
    loop = asyncio.get_running_loop()

    def watch() -> None:
        # Ends when whoever started this closes it, or dies.
        while os.read(_STDIN, _AT_A_TIME):
            pass
        if not loop.is_closed():
            loop.call_soon_threadsafe(stop.set, StopReason.CANCELLED)

    threading.Thread(target=watch, name="watch standard input", daemon=True).start()
    place = Place(facts["transport"], facts["session"], url=facts["url"], folder=facts["folder"])
    items = None if facts["items"] is None else Path(facts["items"])
    await join_swarm(place, stop, name=facts["name"], task=facts["task"], items=items)


if __name__ == "__main__":
    sys.exit(main())
