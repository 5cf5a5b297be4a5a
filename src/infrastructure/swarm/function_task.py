"""The task `module:function`: what an operator's own Python function does with one file, or with the agent's number."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import os
import sys
import threading
from asyncio import Future
from collections.abc import Callable
from pathlib import Path
from typing import Any

from application.services.swarm.task import AgentRefusedError, TaskTerms
from domain.errors.configuration import ConfigurationError
from domain.models.message import Payload

__all__ = ["FunctionTask", "load_function"]

# As many as the standard library's own pool of threads has.
_SLOTS = min(32, (os.cpu_count() or 1) + 4)
_ASYNC_SLOTS = 256


def load_function(name: str) -> Callable[..., Any]:
    """The function `module:function`, imported from where Python finds modules or from the working folder.

    Raises `ConfigurationError` saying what is wrong with it.
    """
    module_name, _, function_name = name.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        # Whatever the module does when it is imported, the operator named it.
        raise _unusable(
            name, f"the module {module_name!r} cannot be imported ({type(error).__name__}: {error})"
        ) from error
    function = getattr(module, function_name, None)
    if not callable(function):
        raise _unusable(name, f"the module {module_name!r} has no function {function_name!r}")
    return function  # type: ignore[no-any-return] # it was looked at


class FunctionTask:
    """Each agent is one call. A plain function runs in a thread, an `async` one in the loop.

    What it raises is that agent's failure. Nothing can end a thread: a function that never returns keeps its slot of this process.
    """

    def __init__(self, name: str, *, folder: Path | None) -> None:
        """`folder` is where the items lie: each agent is given the path of one, else its number. Raises `ConfigurationError`."""
        self._function = load_function(name)
        self._is_async = inspect.iscoroutinefunction(self._function)
        self._folder = folder
        self.slots = _ASYNC_SLOTS if self._is_async else _SLOTS
        self.terms = TaskTerms(name, agent="agent", group="result_group", result_type="result")

    async def perform(self, number: int, item: str | None) -> Payload:
        """What the function returns, which has to be a JSON value."""
        argument: Path | int = number
        if self._folder is not None:
            # Orders come over the bus: only a name within the folder is taken.
            if item is None or Path(item).name != item:
                raise AgentRefusedError(f"{item!r} names no file of the folder", kind="bad_item", final=True)
            argument = self._folder / item
        if self._is_async:
            found: Payload = await self._function(argument)
            return found
        return await _in_thread(self._function, argument)

    async def close(self) -> None:
        """Threads end with their functions, or with the process."""


async def _in_thread(function: Callable[..., Any], argument: Path | int) -> Payload:
    """As `asyncio.to_thread`, but in a thread that does not keep the process from ending."""
    loop = asyncio.get_running_loop()
    ended: Future[Any] = loop.create_future()

    def settle(result: Any, error: BaseException | None) -> None:
        if ended.done():
            return
        if error is None:
            ended.set_result(result)
        elif isinstance(error, StopIteration):
            # No future carries one.
            ended.set_exception(RuntimeError(f"StopIteration: {error}"))
        else:
            ended.set_exception(error)

    def call() -> None:
        result, error = None, None
        try:
            result = function(argument)
        except BaseException as raised:  # noqa: BLE001 - it is the agent's failure, whatever it is
            error = raised if isinstance(raised, Exception) else RuntimeError(f"{type(raised).__name__}: {raised}")
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=call, name=f"swarm {argument}", daemon=True).start()
    found: Payload = await ended
    return found


def _unusable(name: str, problem: str) -> ConfigurationError:
    return ConfigurationError(
        variable="--task",
        problem=f"{name!r}: {problem}",
        remedy="Give module:function, in a module that Python finds from the working folder.",
    )
