"""Events: each once and in order, over as many connections as it takes, up to the terminal one, and never without bound."""

from __future__ import annotations

from typing import Any

import pytest

from api.rest.examples import EXAMPLES
from conclave_client import calls
from conclave_client.answer import Head
from conclave_client.errors import (
    ConnectionLostError,
    NotFoundError,
    OversizedAnswerError,
    ProtocolViolationError,
    RedirectRefusedError,
    UnavailableError,
)
from tests.unit.conclave_client.scripted import CUT, REFUSED, Answered, FarEnd, answered, event, refused, streamed

END = event(4, "deliberation.completed")
MORE = b": not the end: come back with the Last-Event-ID that you saw last\n\n"
ENDED, RUNNING = answered(EXAMPLES["Deliberation"]), answered({**EXAMPLES["Deliberation"], "status": "running"})


def follow(far: FarEnd, *, after: int = 0, **settings: Any) -> list[int]:
    far.carry_out(calls.events("d-1", after=after).plan(far.exchange(**settings)))
    return [found.sequence for found in far.emitted]


def resumed_after(far: FarEnd) -> list[str | None]:
    return [asked.headers.get("Last-Event-ID") for asked in far.asked if asked.url.endswith("/events")]


def test_a_stream_is_followed_to_its_terminal_event() -> None:
    far = FarEnd([streamed(b"retry: 1000\n\n", event(1), event(2) + event(3), END, event(5))])
    assert follow(far) == [1, 2, 3, 4]
    assert (resumed_after(far), far.pauses) == ([None], [])


def test_the_rest_of_an_event_stands_in_its_document() -> None:
    far = FarEnd([streamed(event(1, "deliberation.completed", outcome={"status": "tied"}))])
    follow(far)
    assert far.emitted[0].document["outcome"] == {"status": "tied"}


@pytest.mark.parametrize("cut", [CUT, b""])
def test_a_stream_that_is_cut_goes_on_after_the_last_whole_event(cut: Any) -> None:
    half = event(3)[:20]
    far = FarEnd([streamed(event(1), event(2), half, cut), RUNNING, streamed(event(3), END)])
    if cut is CUT:
        far = FarEnd([streamed(event(1), event(2), half, cut), streamed(event(3), END)])
    assert follow(far) == [1, 2, 3, 4]
    assert resumed_after(far) == [None, "2"]


def test_a_server_that_begins_again_repeats_nothing() -> None:
    far = FarEnd([streamed(event(1), event(2), CUT), streamed(event(1), event(2), event(3), END)])
    assert follow(far) == [1, 2, 3, 4]


def test_the_server_says_how_long_to_stay_away() -> None:
    far = FarEnd([streamed(b"retry: 3000\n\n", event(1), CUT), REFUSED, streamed(event(2), event(3), END)])
    assert follow(far) == [1, 2, 3, 4]
    assert far.pauses == [3.0, 3.0]


def test_a_pause_that_the_server_asks_for_is_bounded() -> None:
    far = FarEnd([streamed(b"retry: 999999999\n\n", event(1), CUT), streamed(event(2), event(3), END)])
    assert follow(far, patience_s=100.0) == [1, 2, 3, 4]
    assert far.pauses == [30.0]


def test_no_try_comes_sooner_than_a_refusal_asked() -> None:
    far = FarEnd([refused(429, "too-many-streams", retry_after="5"), streamed(event(1), event(2), event(3), END)])
    assert follow(far) == [1, 2, 3, 4]
    assert far.pauses == [5.0]


def test_a_server_that_stays_away_is_left_when_patience_ends() -> None:
    far = FarEnd([streamed(event(1), CUT), REFUSED])
    with pytest.raises(ConnectionLostError, match="cannot be reached"):
        follow(far, patience_s=10.0)
    assert sum(far.pauses) <= 10.0
    assert [found.sequence for found in far.emitted] == [1]


def test_getting_on_makes_patience_whole_again() -> None:
    cuts: list[Answered] = [streamed(event(number), CUT) for number in range(1, 101)]
    far = FarEnd([*cuts, streamed(event(101, "deliberation.halted"))])
    assert follow(far, patience_s=1.0) == list(range(1, 102))
    assert set(far.pauses) == {0.2}


def test_a_connection_that_held_makes_patience_whole_again() -> None:
    quiet = [streamed(b": ping\n\n", b": ping\n\n", CUT)] * 50
    far = FarEnd([*quiet, streamed(event(1, "deliberation.failed"))])
    assert follow(far, patience_s=1.0) == [1]


def test_a_ping_with_each_connection_is_no_getting_on() -> None:
    far = FarEnd([streamed(b": ping\n\n", CUT)])
    with pytest.raises(ConnectionLostError):
        follow(far, patience_s=1.0)


def test_a_server_that_says_it_is_not_the_end_is_believed() -> None:
    far = FarEnd([streamed(event(1), MORE), streamed(event(2), event(3), END)])
    assert follow(far) == [1, 2, 3, 4]
    assert len(far.asked) == 2


def test_after_the_terminal_event_there_is_nothing_more() -> None:
    far = FarEnd([streamed(b"retry: 1000\n\n"), ENDED])
    assert follow(far, after=4) == []
    assert resumed_after(far) == ["4"]


def test_an_end_that_this_version_does_not_know_is_one_all_the_same() -> None:
    far = FarEnd([streamed(event(1), event(2, "deliberation.adjourned")), ENDED])
    assert follow(far) == [1, 2]


def test_an_event_that_is_missing_is_not_passed_over() -> None:
    far = FarEnd([streamed(event(1), event(3))])
    with pytest.raises(ProtocolViolationError, match="event 2 is missing"):
        follow(far)


@pytest.mark.parametrize(
    "data",
    [
        b"id: 1\ndata: {\n\n",
        b"id: 1\ndata: []\n\n",
        b"id: 1\ndata: " + b"[" * 100_000 + b"\n\n",
        b'id: 1\ndata: {"sequence": "1", "type": "x", "at": "", "deliberation_id": ""}\n\n',
        event(1).replace(b"id: 1", b"id: 2"),
        event(1).replace(b"id: 1\n", b""),
    ],
)
def test_what_is_no_event_of_conclave_is_refused(data: bytes) -> None:
    far = FarEnd([streamed(data)])
    with pytest.raises(ProtocolViolationError):
        follow(far)
    assert (far.emitted, len(far.asked)) == ([], 1)


def test_an_event_without_end_is_refused() -> None:
    far = FarEnd([streamed(*[b"x" * 65536] * 100)])
    with pytest.raises(OversizedAnswerError):
        follow(far)
    assert len(far.reading) >= 100 - 17


def test_a_page_in_place_of_the_stream_is_refused() -> None:
    with pytest.raises(ProtocolViolationError, match="event-stream"):
        follow(FarEnd([answered(b"<html>", media_type="text/html")]))


def test_a_stream_is_not_followed_elsewhere() -> None:
    moved = Answered(Head(307, {"location": "http://evil.example/"}))
    with pytest.raises(RedirectRefusedError):
        follow(FarEnd([moved]), key="secret-1")


def test_refusals_that_no_waiting_helps_end_it() -> None:
    with pytest.raises(NotFoundError):
        follow(FarEnd([streamed(event(1), CUT), refused(404, "deliberation-not-found")]))
    with pytest.raises(UnavailableError):
        follow(FarEnd([refused(503, "record-mismatch", retry_after="60")]))


def test_the_events_of_a_run_end_with_its_own_end() -> None:
    events = [event(1, "run.started", run_id="r"), event(2, "deliberation.completed", run_id="r")]
    far = FarEnd([streamed(*events, event(3, "run.completed", run_id="r"), event(4, run_id="r"))])
    far.carry_out(calls.run_events("r").plan(far.exchange()))
    assert [found.type for found in far.emitted] == ["run.started", "deliberation.completed", "run.completed"]
