"""The event log of a population: one line a tick, each with a checksum over itself and all lines before it."""

from __future__ import annotations

import io
import json
import zlib
from dataclasses import dataclass
from typing import IO

from application.ports.population_engine import TickOutcome

__all__ = ["DamagedLogError", "EventLog", "LoggedTick", "read_events"]


class DamagedLogError(Exception):
    """A line in the middle is not what was written; `tick` is the last good one's."""

    def __init__(self, tick: int) -> None:
        super().__init__(tick)
        self.tick = tick


@dataclass(frozen=True, slots=True)
class LoggedTick:
    """One line: what a tick came to, and the checksum and the length of the log up to its end."""

    tick: int
    delivered: int
    opinion_sum: int
    checksum: int
    end: int


class EventLog:
    """Adds lines to a log, each flushed before the call returns."""

    def __init__(self, file: IO[bytes], *, checksum: int) -> None:
        self._file = file
        self._checksum = checksum

    def add(self, outcome: TickOutcome) -> None:
        """One tick. Raises `OSError`."""
        line = json.dumps(
            {
                "tick": outcome.tick,
                "sent": outcome.sent,
                "delivered": outcome.delivered,
                "expired": outcome.expired,
                "refused": outcome.refused,
                "alive": outcome.alive,
                "opinion_sum": outcome.opinion_sum,
            }
        )
        self._checksum = zlib.crc32(line.encode(), self._checksum)
        self._file.write(f'{line[:-1]}, "crc": {self._checksum}}}\n'.encode())
        self._file.flush()


def read_events(log: bytes) -> list[LoggedTick]:
    """All ticks of a log, without a last line that a kill cut short. Raises `DamagedLogError`."""
    found: list[LoggedTick] = []
    checksum, end = 0, 0
    for line in io.BytesIO(log):
        if not line.endswith(b"\n"):
            break
        end += len(line)
        body, mark, said = line.rstrip(b"\n").rpartition(b', "crc": ')
        checksum = zlib.crc32(body + b"}", checksum)
        tick = found[-1].tick if found else 0
        if not mark or said != b"%d}" % checksum:
            raise DamagedLogError(tick)
        fields = json.loads(body + b"}")
        if fields["tick"] != tick + 1:
            raise DamagedLogError(tick)
        found.append(
            LoggedTick(
                tick=fields["tick"],
                delivered=fields["delivered"],
                opinion_sum=fields["opinion_sum"],
                checksum=checksum,
                end=end,
            )
        )
    return found
