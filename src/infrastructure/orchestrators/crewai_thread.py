"""A thread with an event loop and helpers of its own, so that what blocks or computes in it holds up nobody else's loop."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from infrastructure.orchestrators.crewai_crossing import Letterbox

__all__ = ["HELPERS", "CrewThread"]

_T = TypeVar("_T")
_Work = tuple["Future[Any]", Callable[..., Any], tuple[Any, ...], dict[str, Any]]

# More than the agents of one process: what an ended crew left behind may still sit in some.
HELPERS = 96
_HELPERS_GRACE_S = 1.0


class CrewThread:
    """Runs coroutines in a loop of its own, whose blocking steps have 96 helper threads.

    Its threads are daemons: a crew that never returns keeps no process from ending.
    """

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._letterbox: Letterbox | None = None
        self._thread: threading.Thread | None = None

    @property
    def letterbox(self) -> Letterbox:
        """Where to have functions called in the loop. Raises `RuntimeError` before `start`."""
        if self._letterbox is None:
            raise RuntimeError("the thread of CrewAI does not run")
        return self._letterbox

    def start(self, prepare: Callable[[], _T]) -> Future[_T]:
        """Start the thread with `prepare`; the future has its result once coroutines are taken. Where it raises, the thread ends."""
        opening: Future[_T] = Future()
        self._thread = threading.Thread(target=self._run, args=(prepare, opening), name="crewai", daemon=True)
        self._thread.start()
        return opening

    def submit(self, work: Coroutine[Any, Any, _T]) -> Future[_T]:
        """Run that coroutine in the loop; cancelling the future cancels it. Call it between `start` and `close`."""
        if self._loop is None:
            work.close()
            raise RuntimeError("the thread of CrewAI does not run")
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    async def close(self, *, grace_s: float) -> None:
        """Cancel what runs and wait so many seconds for the end of the thread; one that does not end is left to itself."""
        thread, loop = self._thread, self._loop
        if thread is None:
            return
        if loop is not None and thread.is_alive():
            loop.call_soon_threadsafe(loop.stop)
        await asyncio.to_thread(thread.join, grace_s)

    def _run(self, prepare: Callable[[], _T], opening: Future[_T]) -> None:
        try:
            prepared = prepare()
        except BaseException as error:  # noqa: BLE001 - handed over to whoever waits for the start
            opening.set_exception(error)
            return
        loop = asyncio.new_event_loop()
        helpers = _Helpers(HELPERS)
        loop.set_default_executor(helpers)
        self._loop, self._letterbox = loop, Letterbox(loop)
        opening.set_result(prepared)
        try:
            loop.run_forever()
        finally:
            self._loop = None
            left = asyncio.all_tasks(loop)
            for task in left:
                task.cancel()
            # One round each for cancelling and for what follows it; who waits longer than that is not waited for.
            loop.run_until_complete(_rounds(2))
            helpers.shutdown(wait=False)
            loop.close()
            helpers.join(_HELPERS_GRACE_S)


class _Helpers(ThreadPoolExecutor):
    """A pool of daemon threads, which the interpreter's end does not join."""

    def __init__(self, most: int) -> None:
        super().__init__(max_workers=most, thread_name_prefix="crewai-helper")
        self._most = most
        self._work: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._serving: list[threading.Thread] = []

    def submit(self, fn: Callable[..., _T], /, *args: Any, **kwargs: Any) -> Future[_T]:
        """As the standard library's."""
        future: Future[_T] = Future()
        self._work.put((future, fn, args, kwargs))
        if not self._idle.acquire(blocking=False) and len(self._serving) < self._most:
            helper = threading.Thread(target=self._serve, name=f"crewai-helper-{len(self._serving)}", daemon=True)
            self._serving.append(helper)
            helper.start()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, ARG002
        """Let the threads end when they have nothing to do any more; none is waited for."""
        for _ in self._serving:
            self._work.put(None)

    def join(self, seconds: float) -> None:
        """Wait at most so long for the end of them all."""
        until = time.monotonic() + seconds
        for helper in self._serving:
            helper.join(max(0.0, until - time.monotonic()))

    def _serve(self) -> None:
        while (work := self._work.get()) is not None:
            future, function, arguments, named = work
            if future.set_running_or_notify_cancel():
                try:
                    result = function(*arguments, **named)
                except BaseException as error:  # noqa: BLE001 - handed over to whoever waits for the result
                    future.set_exception(error)
                else:
                    future.set_result(result)
            del work, future, function, arguments, named
            self._idle.release()


async def _rounds(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)
