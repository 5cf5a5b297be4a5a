"""Where topics come from: watched only where that is switched on, and a warning that stops nothing."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import datetime

import pytest

from application.ports.metrics import NullMetrics
from application.services.topic_balance import TopicBalance
from domain.errors.dependency import DependencyUnavailableError
from domain.models.topic import lopsided_source


class Reader:
    """Counts as it is told, or is away."""

    def __init__(self, counts: Mapping[str, int] | None) -> None:
        self.counts = counts
        self.looks: list[tuple[datetime, str | None]] = []

    async def origins(self, *, since: datetime, key_name: str | None) -> Mapping[str, int]:
        self.looks.append((since, key_name))
        if self.counts is None:
            raise DependencyUnavailableError(dependency="database", problem="away")
        return self.counts


class Gauges(NullMetrics):
    """Keeps what it was told."""

    def __init__(self) -> None:
        self.accepted: list[str | None] = []
        self.lopsided: list[bool] = []

    def topic_accepted(self, origin: str | None) -> None:
        self.accepted.append(origin)

    def topics_weighed(self, is_lopsided: bool) -> None:
        self.lopsided.append(is_lopsided)


class Clock:
    """Stands where it is put."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> datetime:
        return datetime.fromisoformat("2026-01-08T00:00:00Z")

    def monotonic(self) -> float:
        return self.seconds


@pytest.mark.parametrize(
    ("counts", "source"),
    [
        ({}, None),
        ({"api": 19}, None),
        ({"api": 20}, "api"),
        ({"api": 6, "petition": 6, "scheduled": 4, "autonomous": 4}, None),
        ({"api": 7, "petition": 6, "scheduled": 4, "autonomous": 3}, "api"),
        ({"petition": 10, "api": 10}, "api"),
    ],
)
def test_a_source_is_lopsided_beyond_three_tenths_of_at_least_twenty_topics(
    counts: dict[str, int], source: str | None
) -> None:
    assert lopsided_source(counts) == source


async def test_nothing_is_looked_at_where_it_is_switched_off() -> None:
    reader, gauges = Reader({"api": 50}), Gauges()
    balance = TopicBalance(reader, is_on=False, metrics=gauges)
    await balance.note("api")
    assert await balance.look() is None
    assert (reader.looks, gauges.accepted, gauges.lopsided) == ([], ["api"], [])


async def test_a_warning_is_logged_and_measured(caplog: pytest.LogCaptureFixture) -> None:
    gauges = Gauges()
    balance = TopicBalance(Reader({"api": 30, "petition": 10}), is_on=True, metrics=gauges, clock=Clock())
    with caplog.at_level(logging.WARNING):
        await balance.note("api")
    assert gauges.lopsided == [True]
    assert "30 of 40 topics of the last 7 days came from 'api'" in caplog.text


async def test_a_look_goes_back_seven_days_for_one_key() -> None:
    reader = Reader({"api": 1})
    shares = await TopicBalance(reader, is_on=True, clock=Clock()).look(key_name="council")
    assert shares is not None
    assert (shares.total, shares.warning) == (1, None)
    assert reader.looks == [(datetime.fromisoformat("2026-01-01T00:00:00Z"), "council")]


async def test_many_topics_are_looked_at_once_a_minute() -> None:
    reader, clock = Reader({"api": 1}), Clock()
    balance = TopicBalance(reader, is_on=True, clock=clock)
    for seconds in (0.0, 1.0, 59.0, 60.0):
        clock.seconds = seconds
        await balance.note("api")
    assert len(reader.looks) == 2


async def test_a_store_that_is_away_keeps_no_topic_from_being_accepted(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        await TopicBalance(Reader(None), is_on=True, clock=Clock()).note("api")
    assert "nobody could see where topics come from" in caplog.text
