"""The ids of runs, which are in order of their time, and the types of events."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from domain.models.deliberation import DeliberationStatus
from domain.models.run_event import RunEvent, is_run_id, may_be_noted, new_run_id, run_event_type

AT = datetime(2026, 5, 1, tzinfo=UTC)
ID = "019de0d5-c800-7000-8a1f-a25167b5d86a"
MOMENTS = st.datetimes(datetime(2000, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - bounds have none


@given(MOMENTS)
def test_an_id_is_a_uuid_of_version_seven_that_holds_its_time(at: datetime) -> None:
    run_id = new_run_id(at)
    assert is_run_id(run_id)
    found = uuid.UUID(run_id)
    assert (str(found), found.version, found.variant) == (run_id, 7, uuid.RFC_4122)
    assert abs((found.int >> 80) / 1000 - at.timestamp()) < 0.002


@given(MOMENTS, st.integers(1, 10**9))
@example(datetime(2106, 3, 1, 0, 0, 0, 67, tzinfo=UTC), 1)
def test_ids_are_in_order_of_their_time_to_the_microsecond(at: datetime, later_us: int) -> None:
    assert new_run_id(at) < new_run_id(at + timedelta(microseconds=later_us))


def test_ids_of_one_moment_differ() -> None:
    assert len({new_run_id(AT) for _ in range(1000)}) == 1000


@pytest.mark.parametrize(
    "text",
    ["", "x", "..", ID.upper(), f"{ID}\n", ID[:-1], "f8773058-388b-44c9-aaa7-6953ce3ac2ac", "a/b"],
)
def test_nothing_else_is_an_id(text: str) -> None:
    assert not is_run_id(text)


def test_the_types_of_a_run_are_its_own() -> None:
    assert run_event_type(DeliberationStatus.RUNNING) == "run.started"
    for status in DeliberationStatus:
        assert not may_be_noted(run_event_type(status))
        event = RunEvent("r", 1, run_event_type(status), AT)
        assert event.is_terminal == status.is_terminal
    assert may_be_noted("swarm.batch_ended")
