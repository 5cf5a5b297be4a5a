"""Which runs an object has in hand, so that all messages of one are acknowledged at once."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from infrastructure.buses.redis_records import Piece

__all__ = ["Receipts"]

_HEAD = struct.Struct(">Hd")
# What is forgotten is acknowledged message by message, which only takes longer.
_REMEMBERED = 256


class Receipts:
    """Writes down ids to be acknowledged, those of a run that was handed out as one in a few bytes."""

    def __init__(self) -> None:
        self._runs: dict[tuple[str, str], tuple[str, int, tuple[str, ...]]] = {}

    def note(self, agent_id: str, found: Sequence[Piece]) -> None:
        """These were handed to an agent that acknowledges by hand."""
        for piece in found:
            if piece.run is not None and len(piece.messages) > 1:
                ids = tuple([message.id for message in piece.messages])
                self._runs[agent_id, ids[0]] = (*piece.run, ids)
        while len(self._runs) > _REMEMBERED:
            del self._runs[next(iter(self._runs))]

    def packed(self, agent_id: str, ids: tuple[str, ...]) -> bytes:
        """Ids of at most 255 bytes as the server takes them; a longer one is nobody's."""
        parts = []
        at = 0
        while at < len(ids):
            run = self._runs.pop((agent_id, ids[at]), None)
            if run is not None and ids[at : at + len(run[2])] == run[2]:
                name = run[0].encode()
                parts.append(_HEAD.pack(len(run[2]), run[1]) + bytes((len(name),)) + name)
                at += len(run[2])
                continue
            name = ids[at].encode(errors="replace")
            if len(name) < 256:
                parts.append(_HEAD.pack(0, 0.0) + bytes((len(name),)) + name)
            at += 1
        return b"".join(parts)
