"""The one event loop of a process: uvloop where there is one, and garbage looked for as seldom as suits short-lived work."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

__all__ = ["run"]

_T = TypeVar("_T")

# A deliberation makes thousands of objects that are dropped again without a cycle among them; looking for cycles at the
# interpreter's default pace takes a tenth of the processor.
_GARBAGE_THRESHOLDS = (20_000, 10, 50)


def run(main: Coroutine[Any, Any, _T]) -> _T:
    """The result of `main`, run to its end in a loop of its own, which is closed afterwards."""
    gc.freeze()
    gc.set_threshold(*_GARBAGE_THRESHOLDS)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(main)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory
