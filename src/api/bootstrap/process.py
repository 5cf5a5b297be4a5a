"""What a process starts with: its purpose, its settings, its event loop, its log, and what is to kill it in a test."""

from __future__ import annotations

from collections.abc import Coroutine
from contextlib import AsyncExitStack
from enum import Enum
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from infrastructure.queues.process_locks import ProcessLocks
    from infrastructure.settings import Settings
    from infrastructure.stubs.crash_points import CrashPlan

__all__ = ["Purpose", "configure_logging", "crash_plan", "load_settings", "open_registry", "run"]

_T = TypeVar("_T")


class Purpose(Enum):
    """What the service is opened for."""

    SERVE = "serve"
    WORK = "work"
    ASK = "ask"
    READ = "read"


def load_settings() -> Settings:
    """The settings of this process. Raises `ConfigurationError` naming the variable."""
    from infrastructure.settings import load_settings as load

    return load()


def run(main: Coroutine[Any, Any, _T]) -> _T:
    """The result of `main`, run in the one event loop of this process."""
    from infrastructure.event_loop import run as run_in_loop

    return run_in_loop(main)


def configure_logging(settings: Settings) -> None:
    """Send the log to stderr as the settings say, without any of their secrets."""
    from infrastructure.telemetry.logs import configure_logging as configure

    configure(settings.log_format, settings.log_level, secrets=settings.secret_values())


def open_registry(settings: Settings, stack: AsyncExitStack) -> ProcessLocks:
    """What tells which processes are alive, with this one among them until `stack` is closed."""
    from infrastructure.queues.process_locks import ProcessLocks

    locks = ProcessLocks(settings.data_dir / "processes")
    stack.callback(locks.close)
    return locks


def crash_plan(settings: Settings) -> CrashPlan | None:
    """What kills this process at a named point, where a test asks for it."""
    if settings.crash_at is None:
        return None
    from infrastructure.stubs.crash_points import CrashAt, CrashPlan

    return CrashPlan(CrashAt.parse(settings.crash_at))
