"""Event streams: their frames, their pings, their end, and how many there may be."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from datetime import UTC, datetime

import pytest
from starlette.requests import Request
from starlette.types import Message

from api.rest.event_stream import EventStream, StreamPlaces, last_event_id
from api.rest.problems import RequestRefusedError
from domain.errors.dependency import DependencyUnavailableError
from domain.models.event import Event
from tests.virtual_time import pass_time

AT = datetime(2026, 1, 2, tzinfo=UTC)
SCOPE = {"type": "http", "method": "GET", "path": "/", "headers": []}


def event(sequence: int, type_: str = "agent.ended") -> Event:
    return Event("d", sequence, type_, AT, {"agent_id": "a\nb", "state": "answered"})


class Reader:
    """The far end of a stream: keeps what it was sent, and leaves when told."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.left = asyncio.Event()

    async def receive(self) -> Message:
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        self.messages.append(message)

    @property
    def text(self) -> str:
        return b"".join(message.get("body", b"") for message in self.messages).decode()


async def stream(events: AsyncGenerator[Event | None, None], reader: Reader) -> StreamPlaces:
    places = StreamPlaces()
    await EventStream(events, places=places)(SCOPE, reader.receive, reader.send)
    return places


async def test_it_ends_with_the_session_of_its_reader_and_says_so() -> None:
    signed_out = asyncio.Event()

    async def events() -> AsyncGenerator[Event | None, None]:
        yield event(1)
        signed_out.set()
        while True:
            await asyncio.sleep(0)
            yield None

    reader, places = Reader(), StreamPlaces()

    async def until() -> None:
        await signed_out.wait()

    await EventStream(events(), places=places, until=until)(SCOPE, reader.receive, reader.send)
    assert reader.text.endswith("event: signed-out\ndata: {}\n\n")
    assert ": not the end" not in reader.text
    assert reader.messages[-1] == {"type": "http.response.body", "body": b"", "more_body": False}
    assert places.taken == 0


async def test_an_event_is_framed_by_id_type_and_one_line_of_data() -> None:
    async def events() -> AsyncGenerator[Event | None, None]:
        yield event(7)

    reader = Reader()
    await stream(events(), reader)
    hint, frame, notice, rest = reader.text.split("\n\n")
    assert hint.startswith("retry: ")
    assert notice.startswith(": not the end")
    assert rest == ""
    identity, type_, data = frame.split("\n")
    assert (identity, type_) == ("id: 7", "event: agent.ended")
    assert json.loads(data.removeprefix("data: ")) == {
        "sequence": 7,
        "type": "agent.ended",
        "at": "2026-01-02T00:00:00Z",
        "deliberation_id": "d",
        "agent_id": "a\nb",
        "state": "answered",
    }


async def test_a_stream_that_ends_with_the_terminal_event_says_nothing_more() -> None:
    async def events() -> AsyncGenerator[Event | None, None]:
        yield event(8, "deliberation.completed")

    reader = Reader()
    await stream(events(), reader)
    assert "not the end" not in reader.text


async def test_a_stream_of_what_had_ended_before_says_nothing_more_after_all_that_there_was() -> None:
    async def events() -> AsyncGenerator[Event | None, None]:
        yield None

    reader = Reader()
    await EventStream(events(), places=StreamPlaces(), had_ended=True)(SCOPE, reader.receive, reader.send)
    assert "not the end" not in reader.text


async def test_a_stream_of_what_had_ended_before_is_to_be_continued_where_the_store_went_away() -> None:
    async def events() -> AsyncGenerator[Event | None, None]:
        yield event(1)
        raise DependencyUnavailableError(dependency="the database", problem="gone")

    reader = Reader()
    await EventStream(events(), places=StreamPlaces(), had_ended=True)(SCOPE, reader.receive, reader.send)
    assert "not the end" in reader.text


async def test_silence_is_broken_by_pings_at_their_interval() -> None:
    async def events() -> AsyncGenerator[Event | None, None]:
        for _ in range(50):
            await pass_time(1)
            yield None

    reader = Reader()
    await stream(events(), reader)
    assert reader.text.count(": ping\n\n") == 3


async def test_events_put_the_ping_off() -> None:
    async def events() -> AsyncGenerator[Event | None, None]:
        for number in range(1, 30):
            await pass_time(1)
            yield event(number) if number % 10 == 0 else None

    reader = Reader()
    await stream(events(), reader)
    assert "ping" not in reader.text


async def test_a_reader_that_leaves_gives_its_place_back() -> None:
    reader = Reader()
    closed: list[bool] = []

    async def events() -> AsyncGenerator[Event | None, None]:
        try:
            yield event(1)
            reader.left.set()
            while True:
                await pass_time(1)
                yield None
        finally:
            closed.append(True)

    places = await stream(events(), reader)
    assert closed == [True]
    assert places.taken == 0


async def test_a_stream_ends_cleanly_when_the_store_goes_away() -> None:
    async def events() -> AsyncGenerator[Event | None, None]:
        yield event(1)
        raise DependencyUnavailableError(dependency="the database", problem="gone")

    reader = Reader()
    await stream(events(), reader)
    assert reader.messages[-1] == {"type": "http.response.body", "body": b"", "more_body": False}


async def test_one_stream_too_many_is_refused_before_it_begins() -> None:
    async def events() -> AsyncGenerator[Event | None, None]:
        yield event(1)

    places = StreamPlaces(1)
    reader = Reader()
    with places.place(), pytest.raises(RequestRefusedError) as caught:
        await EventStream(events(), places=places)(SCOPE, reader.receive, reader.send)
    assert caught.value.slug == "too-many-streams"
    assert reader.messages == []
    assert places.taken == 0


def resuming(value: str | None) -> Request:
    headers = [] if value is None else [(b"last-event-id", value.encode("latin-1"))]
    return Request({**SCOPE, "headers": headers})


@pytest.mark.parametrize(("value", "after"), [(None, 0), ("", 0), ("0", 0), ("17", 17), ("2147483647", 2147483647)])
def test_a_stream_resumes_after_the_sequence_it_is_told(value: str | None, after: int) -> None:
    assert last_event_id(resuming(value)) == after


@pytest.mark.parametrize("value", ["-1", "x", "1.5", "1e3", "²", "2147483648", "9" * 5000, "1_0", "+1", "0x1", "1 2"])
def test_what_is_no_sequence_is_refused(value: str) -> None:
    with pytest.raises(RequestRefusedError) as caught:
        last_event_id(resuming(value))
    assert caught.value.errors[0].pointer == "/header/last-event-id"
