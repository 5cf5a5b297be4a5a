"""What each agent's own columns say after a tick: counts of what it heard and how it moved, and whom it heard last."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from domain.models.population import GRID
from infrastructure.population.field import Field

__all__ = ["KEPT_METRICS", "AgentLedger"]

KEPT_METRICS = ("heard", "moves", "way", "quiet")
"""The first metrics, in this order: messages delivered to the agent, ticks in which its opinion changed, the sum of these changes in
units of 1 / GRID, and ticks since the last one. Those behind them belong to a behaviour of one's own."""

_PEERS_AT_A_TIME = 1 << 18
_32 = np.uint64(32)
_SENDER = np.uint64(0xFFFFFFFF)


class AgentLedger:
    """Writes the metrics and peers of one worker's rows. What it writes depends on the tick's messages alone, not on their order."""

    def __init__(self, field: Field) -> None:
        self._field = field
        self._columns = field.columns

    def note_heard(self, who: NDArray[np.uint64]) -> None:
        """All messages of a tick to living agents in own rows: recipient << 32 | sender. Of one tick the highest row counts as the last."""
        if not who.size:
            return
        columns = self._columns
        who = np.sort(who)
        recipients = (who >> _32).view(np.int64)
        ends = np.append(np.flatnonzero(recipients[1:] != recipients[:-1]), recipients.size - 1)
        rows, amounts = recipients.take(ends), np.diff(ends, prepend=-1)
        if columns.metrics.shape[1]:
            columns.metrics[rows, 0] += amounts
        width = columns.peers.shape[1]
        senders = (who & _SENDER).astype(np.uint32)
        at_a_time = _PEERS_AT_A_TIME // width + 1 if width else rows.size
        for start in range(0, rows.size if width else 0, at_a_time):
            part = slice(start, start + at_a_time)
            self._note_peers(rows[part], senders, ends[part], amounts[part])

    def note_moves(self, rows: NDArray[np.uint32], tick: int) -> None:
        """How the living agents in these rows moved in `tick`."""
        columns = self._columns
        metrics, kept = columns.metrics, columns.metrics.shape[1]
        if kept < 2 or not rows.size:
            return
        where: Any = rows
        if self._field.has_free_rows:
            where = rows[columns.alive.take(rows) == 1]
        elif int(rows.max()) - int(rows.min()) == rows.size - 1:
            # Shards that lie side by side, in whatever order.
            where = slice(int(rows.min()), int(rows.max()) + 1)
        now, before = columns.opinion[tick % 2][where], columns.opinion[(tick - 1) % 2][where]
        way = (np.abs(now - before) * GRID).astype(np.int64)
        moved = way > 0
        metrics[where, 1] += moved
        if kept > 2:
            metrics[where, 2] += way
        if kept > 3:
            metrics[where, 3] = np.where(moved, 0, metrics[where, 3] + 1)

    def _note_peers(
        self, rows: NDArray[np.int64], senders: NDArray[np.uint32], ends: NDArray[np.int64], amounts: NDArray[np.int64]
    ) -> None:
        """Put those who were heard, the last one first, before the ones of earlier ticks."""
        peers = self._columns.peers
        places = np.arange(peers.shape[1])
        earlier = places - amounts[:, None]
        kept = np.take_along_axis(peers.take(rows, axis=0), np.maximum(earlier, 0), axis=1)
        fresh = senders.take(np.maximum(ends[:, None] - places, 0))
        peers[rows] = np.where(earlier >= 0, kept, fresh)
