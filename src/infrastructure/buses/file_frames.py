"""How a file bus writes a message into a file, and knows it again: kind, length and checksum, then the message itself."""

from __future__ import annotations

import struct
import zlib

from domain.models.message import Message
from infrastructure.buses.file_folder import BusFolder, NotReadableError
from infrastructure.buses.file_words import NEVER
from infrastructure.buses.payloads import decode_message

__all__ = ["Draft", "framed", "microseconds", "numbers", "read_frame"]

# Its kind, length and checksum of what follows, and when it was sent (monotonic nanoseconds).
_FRAME = struct.Struct("<4sIIQ")
_KIND = b"CBM1"


class Draft:
    """A message written down whole, before any inbox has it, so that no reader sees half of one."""

    __slots__ = ("content", "given_id", "is_noted", "is_used", "message", "name")

    def __init__(self, message: Message, content: bytes, name: str, *, given_id: bool) -> None:
        self.message = message
        self.content = content
        self.name = name
        self.given_id = given_id
        # Moved to where it is meant to be.
        self.is_used = False
        # In the history of whoever sends it.
        self.is_noted = False

    def place(self, folder: BusFolder, target: tuple[str, str], *, keep: bool) -> None:
        """Put it where it is read, and with `keep` leave it for the next inbox."""
        if keep:
            folder.link(("drafts", self.name), target, self.content)
        else:
            folder.move(("drafts", self.name), target)
            self.is_used = True

    def discard(self, folder: BusFolder) -> None:
        """Remove what nobody took."""
        if not self.is_used:
            folder.remove("drafts", self.name)
            self.is_used = True


def framed(body: bytes, sent_ns: int) -> bytes:
    """An encoded message as it is stored, with what shows that it is whole."""
    return _FRAME.pack(_KIND, len(body), zlib.crc32(body), sent_ns) + body


def read_frame(folder: BusFolder, name: str, file: str) -> tuple[Message, int]:
    """A stored message and when it was sent. Raises `UnreadableMessageError` for anything else, and `FileNotFoundError`."""
    content = folder.read(name, file, _whole)
    if len(content) < _FRAME.size:
        raise NotReadableError(problem="is cut off")
    kind, length, checksum, sent = _FRAME.unpack_from(content)
    body = memoryview(content)[_FRAME.size :]
    if kind != _KIND or length != len(body) or checksum != zlib.crc32(body):
        raise NotReadableError(problem="is not whole")
    return decode_message(body), sent


def numbers(name: str, parts: int) -> tuple[int, ...] | None:
    """The numbers that a file's name consists of, None for a foreign one."""
    try:
        found = tuple(int(part, 16) for part in name.split("-"))
    except ValueError:
        return None
    return found if len(found) == parts and 0 <= found[1] <= 2 else None


def _whole(start: bytes) -> int:
    kind, length, _, _ = _FRAME.unpack_from(start)
    return _FRAME.size + length if kind == _KIND else 0


def microseconds(unix_s: float) -> int:
    return int(min(max(unix_s, 0.0) * 1e6, NEVER))
