"""The dead letters of a file bus: a ring of records in one file, and the messages themselves beside it."""

from __future__ import annotations

import logging
import os
import struct
from collections.abc import Callable

from domain.errors.bus import UnreadableMessageError
from domain.models.message import DeadLetter, DeadLetterReason
from infrastructure.buses.bus_limits import MAX_DEAD_LETTERS
from infrastructure.buses.file_folder import BusFolder
from infrastructure.buses.file_frames import read_frame
from infrastructure.buses.file_words import State

__all__ = ["Letters"]

_logger = logging.getLogger(__name__)
# Number, Unix seconds, attempts, reason, length of the name, name.
_LETTER = struct.Struct("<QdIBB138s")
_REASONS = tuple(DeadLetterReason)


class Letters:
    """Holds the last 10,000; the space of their records is set aside, so that on a full file system none is lost."""

    def __init__(self, folder: BusFolder, state: memoryview, *, wall_clock: Callable[[], float]) -> None:
        """Raises `OSError`."""
        self._folder = folder
        self._state = state
        self._wall_clock = wall_clock
        self._file = folder.record_file("dead", reserve=_LETTER.size * MAX_DEAD_LETTERS)

    def write(
        self, recipient: str, reason: DeadLetterReason, attempts: int, place: Callable[[tuple[str, str]], None]
    ) -> None:
        """Record one, in the place of the one that is older by the number of those kept; `place` puts its message where it is told."""
        number = self._state[State.DEAD_LETTERS]
        position = number % MAX_DEAD_LETTERS
        name = recipient.encode()
        record = _LETTER.pack(number, self._wall_clock(), attempts, _REASONS.index(reason), len(name), name)
        self._folder.clear("letters", f"{position:x}")
        os.pwrite(self._file, record, position * _LETTER.size)
        place(("letters", f"{position:x}"))
        self._state[State.DEAD_LETTERS] = number + 1

    def read(self, first: int, last: int, recipient: str | None) -> list[DeadLetter]:
        """Those with these numbers that are still there, or of them those meant for one agent."""
        found = []
        for number in range(first, last):
            place = number % MAX_DEAD_LETTERS
            record = os.pread(self._file, _LETTER.size, place * _LETTER.size)
            own, at, attempts, reason, length, name = _LETTER.unpack(record)
            if own != number:
                continue
            name = name[:length].decode()
            if recipient is not None and name != recipient:
                continue
            try:
                message, _ = read_frame(self._folder, "letters", f"{place:x}")
            except (FileNotFoundError, UnreadableMessageError) as error:
                _logger.warning("a dead letter of %r cannot be read: %s", name, error)
                continue
            found.append(DeadLetter(message, name, _REASONS[reason], attempts, at))
        return found
