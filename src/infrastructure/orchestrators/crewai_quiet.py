"""Keeps CrewAI, which it imports, from storing, locking, printing and logging, and from events that nobody hears."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from crewai import Agent, Crew
from crewai import task as task_module
from crewai.agent import core as agent_module
from crewai.events import event_context
from crewai.events.event_bus import crewai_event_bus
from crewai.events.types import agent_events, task_events
from crewai.utilities.file_store import clear_task_files
from crewai_core.lock_store import set_lock_backend

__all__ = ["keep_quiet"]

_EVENTS_OF_EACH_AGENT = (
    (task_module, "TaskStartedEvent", task_events.TaskStartedEvent),
    (task_module, "TaskCompletedEvent", task_events.TaskCompletedEvent),
    (agent_module, "AgentExecutionStartedEvent", agent_events.AgentExecutionStartedEvent),
    (agent_module, "AgentExecutionCompletedEvent", agent_events.AgentExecutionCompletedEvent),
)


def keep_quiet() -> None:
    """Have it store, lock, print and log nothing for as long as the process lives; may be called again."""
    set_lock_backend(_no_lock)
    tasks: Any = task_module
    tasks.clear_task_files = _clear_files_of_crews_alone
    Agent._use_trained_data = _untrained
    stored: Any = Crew.__private_attributes__["_task_output_handler"]
    stored.default_factory = _NoStoredOutputs
    # Its own listeners draw boxes on the terminal and gather traces; those of an operator's file are added later, and stay.
    bus: Any = crewai_event_bus
    with bus._rwlock.w_locked():
        for handlers in (bus._sync_handlers, bus._async_handlers, bus._handler_dependencies, bus._execution_plan_cache):
            handlers.clear()
    bus.emit = partial(_emit_where_heard, bus)
    for module, name, kind in _EVENTS_OF_EACH_AGENT:
        setattr(module, name, partial(_make_where_heard, bus, kind))
    settings: Any = event_context._default_config
    settings.mismatch_behavior = settings.empty_pop_behavior = event_context.MismatchBehavior.SILENT
    # What it would log are the texts of tasks and answers, with tracebacks.
    logging.getLogger("crewai").setLevel(logging.CRITICAL + 1)


class _NoStoredOutputs:
    """Stands in for the SQLite file in which CrewAI keeps every task with its answer."""

    def update(self, task_index: int, log: dict[str, Any]) -> None:
        """Kept nowhere."""

    def reset(self) -> None:
        """There is nothing."""

    def load(self) -> None:
        """There is nothing."""


@contextmanager
def _no_lock(name: str, *, timeout: float = 0.0) -> Iterator[None]:  # noqa: ARG001 - the vendor's signature
    yield


def _clear_files_of_crews_alone(task_id: Any) -> None:
    """Of a member there are no files to clear, and CrewAI starts a thread and a loop each time that it looks within a loop."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        clear_task_files(task_id)


def _is_anybody_listening(bus: Any) -> bool:
    return bool(bus._sync_handlers or bus._async_handlers)


def _emit_where_heard(bus: Any, source: Any, event: Any) -> Any:
    """As CrewAI's; but what nobody listens to is not chained to what was before, and kept for checkpoints that are never made."""
    return None if event is None or not _is_anybody_listening(bus) else type(bus).emit(bus, source, event)


def _make_where_heard(bus: Any, kind: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """An event of that kind. To make one takes a good part of all that an agent takes."""
    return kind(*arguments, **named) if _is_anybody_listening(bus) else None


def _untrained(_: Any, task_prompt: str) -> str:
    """The prompt alone: what agents learned in a training is a pickle in the working folder, and would be loaded for each."""
    return task_prompt
