"""The halt of this process: its channels, what watches them, what changes them, and how each is doing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from api.conclave import Health

if TYPE_CHECKING:
    from application.ports.halt_channel import HaltChannel
    from application.services.halt_service import HaltService
    from domain.errors.witness import LogUnverifiedError
    from infrastructure.halt.dual_channel_halt_checker import DualChannelHaltChecker
    from infrastructure.persistence.own_log import OwnLog
    from infrastructure.settings import Settings
    from infrastructure.stubs.crash_points import CrashPlan

__all__ = ["Halting", "halt_channels", "looks_at_channels", "open_halting", "settled_halts"]


@dataclass(frozen=True, slots=True)
class Halting:
    """The halt as this process has it: what watches it, what changes it, and where that is recorded."""

    checker: DualChannelHaltChecker
    service: HaltService
    log: OwnLog


@asynccontextmanager
async def open_halting(
    settings: Settings,
    log_problem: Callable[[], LogUnverifiedError | None],
    *,
    stale_s: float = 1.0,
    crash: CrashPlan | None = None,
) -> AsyncIterator[Halting]:
    """Needs no channel to be there, and watches none of them before it is asked."""
    from application.services.halt_service import HaltService
    from infrastructure.halt.dual_channel_halt_checker import DualChannelHaltChecker
    from infrastructure.halt.note_files import HaltNoteFiles
    from infrastructure.persistence.own_log import OwnLog

    channels = halt_channels(settings)
    if crash is not None:
        channels = [crash.halt_channel(channel) for channel in channels]
    checker = DualChannelHaltChecker(channels=channels, stale_s=stale_s)
    log = OwnLog(settings.database_url)
    notes = HaltNoteFiles(settings.halt_file)
    entries = log if crash is None else crash.entry_log(log)
    service = HaltService(channels=channels, watch=checker, log=entries, notes=notes, log_problem=log_problem)
    try:
        yield Halting(checker, service, log)
    finally:
        checker.close()
        for channel in channels:
            channel.close()
        await log.close()


def halt_channels(settings: Settings) -> list[HaltChannel]:
    """The one that reaches every process first: it is cleared last."""
    from infrastructure.halt.file_channel import FileHaltChannel
    from infrastructure.persistence.sql_halt_channel import SqlHaltChannel

    channels: list[HaltChannel] = [SqlHaltChannel(settings.database_url), FileHaltChannel(settings.halt_file)]
    if settings.halt_redis_url is not None:
        from infrastructure.halt.redis_channel import RedisHaltChannel

        channels.append(RedisHaltChannel(settings.halt_redis_url))
    return channels


@asynccontextmanager
async def settled_halts(service: HaltService) -> AsyncIterator[None]:
    """Within it halts that took effect without the log are recorded once it is back."""
    task = asyncio.create_task(service.settle_for_ever())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def looks_at_channels(halt: DualChannelHaltChecker) -> dict[str, Callable[[], Awaitable[Health]]]:
    """By name of the check, what says of each channel of the halt whether it is reached."""

    def look_at(name: str) -> Callable[[], Awaitable[Health]]:
        async def look() -> Health:
            channel = halt.state.channels[name]
            return Health(works=channel.reachable, detail=channel.problem)

        return look

    return {f"halt.{name}": look_at(name) for name in halt.state.channels}
