"""Processes within one event loop of virtual time: each can be frozen, and can die at any step with all that it was doing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from typing import Any, TypeVar, TypeVarTuple

from infrastructure.stubs.virtual_time import VirtualTimeLoop

__all__ = ["ProcessGoneError", "SimulatedLoop", "SimulatedProcess", "in_no_process", "is_among_the_dead"]

_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")
_HOME: ContextVar[SimulatedProcess | None] = ContextVar("home", default=None)
_BURIAL_TURNS = 200


class ProcessGoneError(Exception):
    """The process died before it answered: whoever asked knows nothing of what became of it."""


class SimulatedProcess:
    """Everything that began within it, and whatever that began in turn, stops when it is frozen and ends when it dies."""

    def __init__(self, name: str, loop: asyncio.AbstractEventLoop) -> None:
        self.name = name
        self.is_gone = False
        self.is_frozen = False
        self.dies_in: int | None = None
        self.on_death: Callable[[], None] = lambda: None
        self._loop = loop
        self._tasks: list[asyncio.Task[Any]] = []
        self._held: list[tuple[_Step, tuple[Any, ...]]] = []

    def begin(self, work: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
        """Do it in this process."""
        return self._context().run(self._loop.create_task, work)

    def call_later(self, seconds: float, call: Callable[[], None]) -> None:
        """Call it in this process, at the earliest when so many seconds have passed."""
        self._loop.call_later(seconds, call, context=self._context())

    async def ask(self, work: Coroutine[Any, Any, _T]) -> _T:
        """What comes of it in this process. Raises `ProcessGoneError` where that died first."""
        if self.is_gone:
            work.close()
            raise ProcessGoneError
        task = self.begin(work)
        await asyncio.wait([task])
        if task.cancelled():
            raise ProcessGoneError
        return task.result()

    def note(self, task: asyncio.Task[Any]) -> None:
        """This task belongs to it."""
        self._tasks.append(task)

    def hold(self, step: _Step, arguments: tuple[Any, ...]) -> None:
        """Keep that step until it goes on."""
        self._held.append((step, arguments))

    def freeze(self) -> None:
        """As SIGSTOP does: nothing of it runs, and what it asked of others goes on."""
        self.is_frozen = True

    def thaw(self) -> None:
        """As SIGCONT does: whatever fell due meanwhile runs now, in its order."""
        if self.is_frozen:
            self.is_frozen = False
            held, self._held = self._held, []
            for step, arguments in held:
                asyncio.BaseEventLoop.call_soon(self._loop, step, *arguments, context=step.context)  # type: ignore[arg-type]

    def count_step(self) -> None:
        """One more step begins; it may be the last."""
        if self.dies_in is not None:
            self.dies_in -= 1
            if self.dies_in <= 0:
                self.die()

    def die(self) -> None:
        """As SIGKILL does: from here on nothing that it does reaches anybody, and all of its tasks are taken away."""
        if self.is_gone:
            return
        self.is_gone = True
        self.dies_in = None
        self.on_death()
        self.thaw()
        for task in self._tasks:
            task.cancel()

    async def bury(self) -> None:
        """Return once nothing of a dead process is left."""
        for _ in range(_BURIAL_TURNS):
            self._tasks = [task for task in self._tasks if not task.done()]
            if not self._tasks:
                return
            for task in self._tasks:
                task.cancel()
            await asyncio.sleep(0)
        raise AssertionError(f"these tasks of {self.name!r} cannot be cancelled: {self._tasks!r}")

    def _context(self) -> Context:
        context = copy_context()
        context.run(_HOME.set, self)
        return context


class SimulatedLoop(VirtualTimeLoop):
    """Knows of each step whose process it belongs to."""

    def call_soon(
        self, callback: Callable[[*_Ts], object], *args: *_Ts, context: Context | None = None
    ) -> asyncio.Handle:
        """As ever, but a step of a process that is frozen waits."""
        if context is None:
            context = copy_context()
        home = context.get(_HOME)
        if home is None:
            return super().call_soon(callback, *args, context=context)
        step = _Step(home, callback, context)
        held_back: Any = step
        step.handle = handle = super().call_soon(held_back, *args, context=context)
        return handle

    def call_at(
        self, when: float, callback: Callable[[*_Ts], object], *args: *_Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """As ever, but a timer of a process that is frozen waits."""
        if context is None:
            context = copy_context()
        home = context.get(_HOME)
        if home is None:
            return super().call_at(when, callback, *args, context=context)
        step = _Step(home, callback, context)
        held_back: Any = step
        step.handle = handle = super().call_at(when, held_back, *args, context=context)
        return handle

    def create_task(self, coro: Any, **options: Any) -> asyncio.Task[Any]:
        """As ever, but in a context of its own it stays in its process."""
        home = _HOME.get()
        context = options.get("context")
        if context is not None and home is not None and context.get(_HOME) is None:
            context.run(_HOME.set, home)
        task: asyncio.Task[Any] = super().create_task(coro, **options)
        owner = home if context is None else context.get(_HOME)
        if owner is not None:
            owner.note(task)
        return task


class _Step:
    """One callback of one process."""

    __slots__ = ("_callback", "_home", "context", "handle")

    def __init__(self, home: SimulatedProcess, callback: Any, context: Context) -> None:
        self._home = home
        self._callback = callback
        self.context = context
        self.handle: asyncio.Handle | None = None

    def __call__(self, *arguments: Any) -> None:
        home = self._home
        if home.is_frozen:
            home.hold(self, arguments)
            return
        handle, self.handle = self.handle, None
        # Cancelled while it was held, when the loop took it for done.
        if handle is not None and handle.cancelled():
            return
        home.count_step()
        self._callback(*arguments)


def is_among_the_dead() -> bool:
    """Whether what asks belongs to a process that is gone."""
    home = _HOME.get()
    return home is not None and home.is_gone


def in_no_process(work: Callable[..., _T], *arguments: Any) -> _T:
    """Call it as what goes on outside of every process: what it begins outlives whoever asked for it."""
    context = copy_context()
    context.run(_HOME.set, None)
    return context.run(work, *arguments)
