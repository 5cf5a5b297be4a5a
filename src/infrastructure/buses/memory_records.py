"""What a memory bus knows of what went by: counts, latencies, the last headers and the dead letters, all in constant memory."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Mapping

from application.ports.message_bus import Tap
from domain.models.message import BusStats, DeadLetter, DeadLetterReason, Message, MessageHeader
from infrastructure.buses.bus_limits import MAX_DEAD_LETTERS
from infrastructure.buses.bus_statistics import LatencyHistogram, RateMeter
from infrastructure.buses.inbox import Entry
from infrastructure.buses.message_history import MessageHistory

__all__ = ["FOLD_EVERY", "TIDY_S", "Records"]

_logger = logging.getLogger(__name__)

# Latencies are sorted into buckets when this many messages went by, less one: a mask.
FOLD_EVERY = 1_023
# How long after a message was sent its payload may be kept for the history that will not have it.
TIDY_S = 0.1


class Records:
    """Counts are added to by whoever sees the event happen; `note` takes what was sent, and `tidy` is to follow within `TIDY_S`."""

    __slots__ = (
        "_dead",
        "_history",
        "_rate",
        "_recent",
        "_tap",
        "_wall_clock",
        "acknowledged_by_hand",
        "dead_letters",
        "delivered_by_hand",
        "dropped",
        "duplicates",
        "expired",
        "late_replies",
        "latencies",
        "note",
        "redelivered",
        "rejected",
        "sent",
    )

    def __init__(
        self, *, keep_payloads: bool, history_limit: int, tap: Tap | None, wall_clock: Callable[[], float]
    ) -> None:
        self._wall_clock = wall_clock
        self._tap = tap
        self._dead: deque[DeadLetter] = deque(maxlen=MAX_DEAD_LETTERS)
        self._history = MessageHistory(limit=history_limit, keep_payloads=keep_payloads)
        # What was sent since `tidy` last ran; it lets go of the payloads then.
        self._recent: deque[Entry] = deque(maxlen=history_limit)
        self.note = self._recent.append
        self.latencies = LatencyHistogram()
        self._rate = RateMeter(time.perf_counter())
        self.sent = 0
        self.acknowledged_by_hand = 0
        self.delivered_by_hand = 0
        self.redelivered = 0
        self.duplicates = 0
        self.rejected = 0
        self.dropped = 0
        self.expired = 0
        self.late_replies = 0
        self.dead_letters = 0

    def tidy(self) -> None:
        """What is done for many messages at a time, because for each it would cost more than sending it."""
        self._write_history()
        self.latencies.fold()
        self._rate.mark(time.perf_counter(), self.sent)

    def bury(self, message: Message, recipient: str, reason: DeadLetterReason, *, attempts: int) -> None:
        """One more dead letter."""
        self.dead_letters += 1
        self._dead.append(DeadLetter(message, recipient, reason, attempts, self._wall_clock()))
        if self._tap is not None:
            self.tell("dead_letter", message)

    def letters(self, agent_id: str | None) -> list[DeadLetter]:
        """The last dead letters, or those meant for one agent, oldest first."""
        return [letter for letter in self._dead if agent_id is None or letter.recipient == agent_id]

    def last(self, limit: int) -> list[MessageHeader]:
        """The last messages sent, newest last."""
        self._write_history()
        # Noted by the clock that latencies are taken with, which is the one that is read anyway.
        return self._history.last(limit, offset=self._wall_clock() - time.perf_counter())

    def forget_recent(self) -> None:
        """Let go of what `tidy` would have written down."""
        self._recent.clear()

    def stats(self, transport: str, queued: Mapping[str, int]) -> BusStats:
        """The counts as they are."""
        delivered = self.latencies.count
        return BusStats(
            transport=transport,
            sent=self.sent,
            delivered=delivered,
            acknowledged=delivered - self.delivered_by_hand + self.acknowledged_by_hand,
            redelivered=self.redelivered,
            duplicates=self.duplicates,
            rejected=self.rejected,
            dropped=self.dropped,
            expired=self.expired,
            late_replies=self.late_replies,
            dead_letters=self.dead_letters,
            queued=queued,
            messages_per_second=self._rate.per_second(time.perf_counter(), self.sent),
            latency_us=self.latencies.summary_us(),
            latency_histogram=self.latencies.cumulative(),
            latency_sum_s=self.latencies.total_s,
        )

    def tell(self, happened: str, message: Message) -> None:
        """Tell the tap, if there is one; one that raises is logged and never called again."""
        if self._tap is None:
            return
        try:
            self._tap(happened, message)
        except Exception:
            self._tap = None
            _logger.exception("a tap of the bus raised and is not called again")

    def _write_history(self) -> None:
        for _, sent_at, message in self._recent:
            self._history.record(message, message.id, sent_at)
        self._recent.clear()
