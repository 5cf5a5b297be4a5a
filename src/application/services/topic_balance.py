"""Watches where topics come from: no one source should set most of the agenda."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

from application.ports.clock import Clock, SystemClock
from application.ports.metrics import Metrics, NullMetrics
from domain.errors.dependency import DependencyUnavailableError
from domain.models.topic import MOST_OF_ONE_SOURCE, WINDOW_DAYS, lopsided_source

__all__ = ["TopicBalance", "TopicReader", "TopicShares"]

_logger = logging.getLogger(__name__)
_LOOK_S = 60.0


class TopicReader(Protocol):
    """Counts topics by where they came from."""

    async def origins(self, *, since: datetime, key_name: str | None) -> Mapping[str, int]:
        """As in `DeliberationReader`."""
        ...


@dataclass(frozen=True, slots=True)
class TopicShares:
    """How many topics of the last `days` came from where; `source` gives more of them than one should, or is None."""

    counts: Mapping[str, int] = field(default_factory=dict)
    source: str | None = None
    days: int = WINDOW_DAYS

    @property
    def total(self) -> int:
        """All topics of that time."""
        return sum(self.counts.values())

    @property
    def warning(self) -> str | None:
        """What to think about, in one sentence."""
        if self.source is None:
            return None
        count = self.counts[self.source]
        return (
            f"{count} of {self.total} topics of the last {self.days} days came from {self.source!r}: "
            f"more than {MOST_OF_ONE_SOURCE:.0%} from one source"
        )


class TopicBalance:
    """Looks only where it is switched on, at most once a minute for each key; fewer than 20 topics are never lopsided."""

    def __init__(
        self, reader: TopicReader, *, is_on: bool, clock: Clock | None = None, metrics: Metrics | None = None
    ) -> None:
        self.is_on = is_on
        self._reader = reader
        self._clock = clock if clock is not None else SystemClock()
        self._metrics = metrics if metrics is not None else NullMetrics()
        self._looked_at: float | None = None

    async def look(self, *, key_name: str | None = None) -> TopicShares | None:
        """How it stands now, of one key or of all; None where it is switched off. Raises `DependencyUnavailableError`."""
        if not self.is_on:
            return None
        since = self._clock.now() - timedelta(days=WINDOW_DAYS)
        counts = await self._reader.origins(since=since, key_name=key_name)
        return TopicShares(dict(counts), lopsided_source(counts))

    async def note(self, origin: str | None) -> None:
        """A topic was accepted. Warns in the log, and in the metrics, once it is one source too often; stops nothing."""
        self._metrics.topic_accepted(origin)
        now = self._clock.monotonic()
        if not self.is_on or (self._looked_at is not None and now - self._looked_at < _LOOK_S):
            return
        self._looked_at = now
        try:
            shares = await self.look()
        except DependencyUnavailableError as error:
            _logger.warning("nobody could see where topics come from: %s", error)
            return
        if shares is not None:
            self._metrics.topics_weighed(shares.source is not None)
            if shares.warning is not None:
                _logger.warning("%s", shares.warning)
