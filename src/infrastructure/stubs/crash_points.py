"""Kills the process at a named point, before or after a commit or a call: a tool for tests, armed by the environment alone."""

from __future__ import annotations

import inspect
import os
import signal
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from application.ports.agent_orchestrator import AgentOrchestratorProtocol
from application.ports.deliberation_repository import Commit, DeliberationStore
from application.ports.halt_channel import HaltChannel
from application.ports.witness_log import WitnessLog
from application.ports.work_queue import WorkQueue
from application.services.halt_service import EntryLog

__all__ = ["CRASH_POINTS", "CRASH_STEPS", "CrashAt", "CrashPlan"]

_T = TypeVar("_T")

_SIDES = ("before", "after")

CRASH_STEPS: Mapping[str, str] = {
    "accept": "a deliberation is accepted",
    "put": "its job is given to the queue",
    "claim": "it is taken from the queue",
    "start": "it starts",
    "intent": "the intents of some calls are recorded",
    "call": "an agent is called",
    "ended": "the ends of some agents are recorded",
    "end": "it ends",
    "renew": "leases are renewed",
    "release": "leases are let go",
    "cancel": "a cancellation is asked for",
    "checkpoint": "a signed checkpoint is kept",
    "log": "an entry of an operator is recorded",
    "halt": "a channel of the halt is set or cleared",
}
"""Every step that a process can die before or after, and what happens in it: each is one commit or one call."""

CRASH_POINTS = tuple(f"{step}.{side}" for step in CRASH_STEPS for side in _SIDES)
"""Every point that can be armed, `STEP.before` and `STEP.after`."""

_STEP_OF_ENTRY = {
    "round.started": "start",
    "call.intended": "intent",
    "agent.ended": "ended",
    "deliberation.ended": "end",
}


@dataclass(frozen=True, slots=True)
class CrashAt:
    """The `passage`th time, from 1, that the process passes `point`."""

    point: str
    passage: int = 1

    @classmethod
    def parse(cls, text: str) -> CrashAt:
        """Read `POINT` or `POINT:PASSAGE`, such as `intent.after:3`. Raises `ValueError` saying what it is not."""
        point, colon, passage = text.partition(":")
        if point not in CRASH_POINTS:
            raise ValueError(f"{point!r} is none of {', '.join(CRASH_POINTS)}")
        if not colon:
            return cls(point)
        if not (passage.isascii() and passage.isdecimal() and 0 < len(passage) <= 9 and int(passage)):
            raise ValueError(f"{passage!r} is no passage of {point!r}, which are counted from 1")
        return cls(point, int(passage))


class CrashPlan:
    """Kills this process, as the kernel would, when it passes one point for the given time. Passages are counted over all it watches.

    Each method gives its argument back, watched; everything but the steps of `CRASH_STEPS` goes through untouched.
    """

    def __init__(self, at: CrashAt, *, kill: Callable[[], None] | None = None) -> None:
        """`kill` ends the process; SIGKILL unless given."""
        self._at = at
        self._kill = _kill_this_process if kill is None else kill
        self._passed: Counter[str] = Counter()

    def store(self, store: DeliberationStore) -> DeliberationStore:
        """Watch its commits."""
        steps = {"add": "accept", "claim": "claim", "renew": "renew", "release": "release", "request_cancel": "cancel"}
        return self._watched(store, {**steps, "release_process": "release", "append": _steps_of_append})

    def orchestrator(self, orchestrator: AgentOrchestratorProtocol) -> AgentOrchestratorProtocol:
        """Watch its calls."""
        return self._watched(orchestrator, {"invoke": "call"})

    def queue(self, queue: WorkQueue) -> WorkQueue:
        """Watch what is put into it."""
        return self._watched(queue, {"put": "put"})

    def witness_log(self, log: WitnessLog) -> WitnessLog:
        """Watch what the log itself adds."""
        return self._watched(log, {"add_checkpoint": "checkpoint", "append": "log", "erase": "log", "follow_up": "log"})

    def entry_log(self, log: EntryLog) -> EntryLog:
        """Watch the entries of halts."""
        return self._watched(log, {"append": "log"})

    def halt_channel(self, channel: HaltChannel) -> HaltChannel:
        """Watch its changes."""
        return self._watched(channel, {"set": "halt", "clear": "halt"})

    def pass_(self, step: str, side: str) -> None:
        """Die here if it is time."""
        point = f"{step}.{side}"
        self._passed[point] += 1
        if point == self._at.point and self._passed[point] == self._at.passage:
            self._kill()

    def _watched(self, inner: _T, steps: Mapping[str, str | Callable[..., Sequence[str]]]) -> _T:
        return cast("_T", _Watched(inner, steps, self))


class _Watched:
    """Passes everything on, and its steps through the plan."""

    def __init__(self, inner: Any, steps: Mapping[str, str | Callable[..., Sequence[str]]], plan: CrashPlan) -> None:
        self._inner = inner
        self._steps = steps
        self._plan = plan

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        steps = self._steps.get(name)
        return found if steps is None else _between(found, steps, self._plan)


def _between(act: Callable[..., Any], steps: str | Callable[..., Sequence[str]], plan: CrashPlan) -> Callable[..., Any]:
    def taken(*arguments: Any, **named: Any) -> Sequence[str]:
        return [steps] if isinstance(steps, str) else steps(*arguments, **named)

    def pass_all(names: Sequence[str], side: str) -> None:
        for name in names:
            plan.pass_(name, side)

    async def awaited(*arguments: Any, **named: Any) -> Any:
        names = taken(*arguments, **named)
        pass_all(names, "before")
        result = await act(*arguments, **named)
        pass_all(names, "after")
        return result

    def called(*arguments: Any, **named: Any) -> Any:
        names = taken(*arguments, **named)
        pass_all(names, "before")
        result = act(*arguments, **named)
        pass_all(names, "after")
        return result

    return awaited if inspect.iscoroutinefunction(act) else called


def _steps_of_append(commit: Commit) -> Sequence[str]:
    types = dict.fromkeys(str(entry.document["type"]) for entry in commit.entries)
    return [_STEP_OF_ENTRY[type_] for type_ in types if type_ in _STEP_OF_ENTRY]


def _kill_this_process() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
    # From another thread than the one that the kernel chose first, the end may come a moment later.
    signal.pause()
