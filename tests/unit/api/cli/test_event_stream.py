"""The stream format of the HTML standard, as far as Conclave sends it and a hostile server may bend it."""

import pytest

from api.cli.event_stream import MAX_EVENT_CHARACTERS, OversizedEventError, StreamEvent, read_events


def test_an_event_has_its_type_its_data_and_its_id() -> None:
    lines = ["id: 3", "event: agent.ended", 'data: {"a": 1}', ""]
    assert list(read_events(lines)) == [StreamEvent("agent.ended", '{"a": 1}', "3")]


def test_data_lines_are_joined_and_one_leading_space_is_dropped() -> None:
    assert list(read_events(["data:  a", "data:b", ""])) == [StreamEvent("message", " a\nb", "")]


def test_a_comment_is_a_sign_of_life() -> None:
    assert list(read_events([": ping", ""])) == [None]


def test_what_the_end_cuts_off_is_no_event() -> None:
    assert list(read_events(["data: whole", "", "data: half"])) == [StreamEvent("message", "whole", "")]


def test_an_id_holds_until_the_next_one() -> None:
    events = list(read_events(["id: 7", "data: a", "", "data: b", ""]))
    assert [event.id for event in events if event] == ["7", "7"]


def test_a_retry_alone_is_no_event() -> None:
    assert list(read_events(["retry: 1000", ""])) == []


def test_an_endless_event_is_refused() -> None:
    with pytest.raises(OversizedEventError):
        list(read_events("data: " + "x" * 1000 for _ in range(MAX_EVENT_CHARACTERS)))
