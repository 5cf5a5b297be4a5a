"""What a Redis bus object saw: headers of what it sent, how fast it was, and a tap that is told."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from application.ports.message_bus import Message, Tap
from infrastructure.buses.bus_statistics import LatencyHistogram, RateMeter
from infrastructure.buses.message_history import MessageHistory
from infrastructure.buses.redis_records import Piece

__all__ = ["Observed"]

_log = logging.getLogger(__name__)


class Observed:
    """Takes constant memory, whatever the number of messages. A tap that raises is logged and not called again."""

    def __init__(self, history: MessageHistory, tap: Tap | None) -> None:
        self.history = history
        self.latencies = LatencyHistogram()
        self._tap = tap
        self._rate = RateMeter(time.perf_counter())
        self._sent = 0

    def sent(self, messages: Sequence[Message], ids: Sequence[str], *, inboxes: int) -> None:
        """These went out, into so many inboxes in all."""
        self._sent += inboxes
        at = time.time()
        for message, message_id in zip(messages, ids, strict=True):
            self.history.record(message, message_id, at)
        now = time.perf_counter()
        if now >= self._rate.next_mark:
            self._rate.mark(now, self._sent)
        if self._tap is not None:
            for message, message_id in zip(messages, ids, strict=True):
                self.tell("sent", message.copy(id=message_id))

    def delivered(self, found: Sequence[Piece]) -> list[Message]:
        """The messages of pieces that came in."""
        now = time.time()
        messages: list[Message] = []
        for piece in found:
            messages += piece.messages
            if piece.messages[0].attempt == 1:
                self.latencies.record_many([max(0.0, now - piece.sent_at)] * len(piece.messages))
        if self._tap is not None:
            for message in messages:
                self.tell("delivered" if message.attempt == 1 else "redelivered", message)
        return messages

    def per_second(self) -> float:
        """Messages sent a second, over the last ten."""
        return self._rate.per_second(time.perf_counter(), self._sent)

    def tell(self, happened: str, message: Message) -> None:
        """Tell the tap, if there is one."""
        if self._tap is None:
            return
        try:
            self._tap(happened, message)
        except Exception:  # noqa: BLE001 - it is somebody else's code
            self._tap = None
            _log.exception("a tap of the bus raised and is not called again")
