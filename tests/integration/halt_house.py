"""A halt service with everything that it stands on, for the tests that take some of it away."""

from __future__ import annotations

from dataclasses import dataclass

from application.services.halt_service import HaltService
from domain.models.halt import HaltCondition
from infrastructure.halt.dual_channel_halt_checker import DualChannelHaltChecker
from infrastructure.stubs.halt_channel_stub import HaltChannelStub
from infrastructure.stubs.halt_notes_stub import HaltNotesStub
from tests.integration.away_logs import AwayLog

__all__ = ["House", "open_house"]


@dataclass
class House:
    """The service of the halt over two channels, a log and notes that can each be taken away."""

    database: HaltChannelStub
    file: HaltChannelStub
    watch: DualChannelHaltChecker
    log: AwayLog
    notes: HaltNotesStub
    service: HaltService

    def condition(self) -> HaltCondition:
        return self.watch.state.condition

    def holding(self) -> list[str]:
        """The channels that hold a halt, asked themselves."""
        return [channel.name for channel in (self.database, self.file) if channel._reading.halted]


async def open_house() -> House:
    """One whose halt is open, and was looked at."""
    database, file, log, notes = HaltChannelStub("database"), HaltChannelStub("file"), AwayLog(), HaltNotesStub()
    watch = DualChannelHaltChecker(channels=[database, file], stale_s=float("inf"))
    service = HaltService(channels=[database, file], watch=watch, log=log, notes=notes, record_s=0.05, channel_s=0.2)
    await service.look()
    return House(database, file, watch, log, notes, service)
