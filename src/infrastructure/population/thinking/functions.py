"""Functions that think for agents: found by name, run in threads that nobody has to wait for."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import math
import queue
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from domain.errors.deliberation import FieldProblem
from domain.errors.population import InvalidPopulationError
from domain.models.roll_call import AgentState
from infrastructure.population.thinking.reply import Reply
from infrastructure.population.thinking.situation import Situation, Thought

__all__ = ["Functions", "maker_of", "thinker_named"]

_MOST_THREADS = 128
_NOTE_CHARACTERS = 1_000

Maker = Callable[[], Callable[[Situation], Any]]
_Work = Future[Any] | asyncio.Future[Any]


def thinker_named(name: str) -> Maker:
    """What makes the function of one agent: a class `module:Class` is made anew for each, and its `think` is called.

    Looked for in the working folder too. Raises `InvalidPopulationError`.
    """
    module, _, attribute = name.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        # After the libraries, so that a file there is not taken for one of them.
        sys.path.append(here)
    try:
        found = getattr(importlib.import_module(module), attribute)
    except Exception as error:
        problem = f"{name!r} cannot be found: {type(error).__name__}: {error}"
        raise InvalidPopulationError([FieldProblem("/thinker", problem)]) from error
    return maker_of(found, name)


def maker_of(found: Any, name: str) -> Maker:
    """What makes the function of one agent out of a class or a function. Raises `InvalidPopulationError`."""
    if inspect.isclass(found):
        if not callable(getattr(found, "think", None)):
            raise InvalidPopulationError([FieldProblem("/thinker", f"{name!r} has no method think")])

        def make() -> Callable[[Situation], Any]:
            try:
                made: Any = found()
                think: Callable[[Situation], Any] = made.think
            except Exception as error:
                problem = f"{name!r} cannot be made: {type(error).__name__}: {error}"
                raise InvalidPopulationError([FieldProblem("/thinker", problem)]) from error
            return think

        return make
    if not callable(found):
        raise InvalidPopulationError([FieldProblem("/thinker", f"{name!r} is neither a class nor a function")])
    return lambda: found


class Functions:
    """Asks functions, each with exactly one outcome. One that does not come back keeps its thread, and nobody waits for that."""

    def __init__(self, name: str, make: Maker) -> None:
        """`name` is how messages name them."""
        self._name = name
        self._make = make
        self._of_agent: dict[int, Callable[[Situation], Any]] = {}
        self._late: dict[int, _Work] = {}
        self._lock = threading.Lock()
        self._unanswered = 0
        self._line: queue.SimpleQueue[tuple[Future[Any], Callable[[Situation], Any], Situation] | None] = (
            queue.SimpleQueue()
        )
        self._threads = 0

    async def ask(self, situation: Situation, *, until: float) -> Reply:
        """What the function of that agent answers until then (of the loop's clock)."""
        late = self._late.pop(situation.agent, None)
        if late is not None and not late.done():
            self._late[situation.agent] = late
            return self._ended(situation, AgentState.TIMED_OUT, "has not come back from an earlier tick")
        try:
            answer, work = self._called(situation)
        except Exception as error:  # noqa: BLE001 - as below
            return self._raised(situation, error)
        await asyncio.wait({answer}, timeout=max(0.0, until - asyncio.get_running_loop().time()))
        if not answer.done():
            # Neither a thread nor a coroutine can be made to end: whoever does not, is not asked again before.
            answer.cancel()
            self._late[situation.agent] = work
            return self._ended(situation, AgentState.TIMED_OUT, "did not answer in time")
        try:
            return self._read(situation, answer.result())
        except asyncio.CancelledError as error:
            return self._raised(situation, error)
        except Exception as error:  # noqa: BLE001 - a function of somebody else's may raise anything, and is named for it
            return self._raised(situation, error)

    def close(self) -> None:
        """Let the threads end that come back. May be called twice."""
        for _ in range(self._threads):
            self._line.put(None)
        self._threads = 0

    def _called(self, situation: Situation) -> tuple[asyncio.Future[Any], _Work]:
        """Its answer, and what is done only once the function has come back."""
        think = self._of_agent.get(situation.agent)
        if think is None:
            think = self._of_agent[situation.agent] = self._make()
        if inspect.iscoroutinefunction(think):
            task = asyncio.ensure_future(think(situation))
            return task, task
        with self._lock:
            self._unanswered += 1
            needs_another = self._threads < min(self._unanswered, _MOST_THREADS)
            self._threads += needs_another
        if needs_another:
            threading.Thread(target=self._serve, name="thinker", daemon=True).start()
        answer: Future[Any] = Future()
        answer.add_done_callback(self._answered)
        self._line.put((answer, think, situation))
        return asyncio.wrap_future(answer), answer

    def _answered(self, _: Future[Any]) -> None:
        with self._lock:
            self._unanswered -= 1

    def _serve(self) -> None:
        while (work := self._line.get()) is not None:
            answer, think, situation = work
            if not answer.set_running_or_notify_cancel():
                continue
            try:
                answer.set_result(think(situation))
            except BaseException as error:  # noqa: BLE001 - told to whoever waits for the answer
                answer.set_exception(_plain(error))

    def _read(self, situation: Situation, found: Any) -> Reply:
        thought = found if isinstance(found, Thought) else Thought(found)
        opinion, note = thought.opinion, str(thought.note)[:_NOTE_CHARACTERS]
        if opinion is None:
            return self._ended(situation, AgentState.ABSTAINED, "", note=note)
        try:
            # A text that reads like a number is none.
            value = math.nan if isinstance(opinion, str | bytes | bool) else float(opinion)
        except (TypeError, ValueError):
            value = math.nan
        if not 0.0 <= value <= 1.0:
            problem = f"answered {str(opinion)[:80]}, which is no opinion from 0 to 1"
            return self._ended(situation, AgentState.INVALID, problem)
        return Reply("thinking", situation.tick, situation.agent, AgentState.ANSWERED, opinion=value, note=note)

    def _raised(self, situation: Situation, error: BaseException) -> Reply:
        return self._ended(situation, AgentState.FAILED, f"raised {type(error).__name__}: {error}"[:500])

    def _ended(self, situation: Situation, outcome: AgentState, problem: str, *, note: str = "") -> Reply:
        problem = f"{self._name} {problem}" if problem else ""
        return Reply("thinking", situation.tick, situation.agent, outcome, problem=problem, note=note)


def _plain(error: BaseException) -> Exception:
    """What may cross into an event loop: neither an end of the process nor of a generator may."""
    if isinstance(error, Exception) and not isinstance(error, StopIteration):
        return error
    return RuntimeError(f"{type(error).__name__}: {error}")
