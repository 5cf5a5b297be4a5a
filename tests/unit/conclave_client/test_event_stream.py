"""Server-sent events are read as HTML, section 9.2, says, however the bytes are cut, and never without bound."""

from __future__ import annotations

import random

import pytest

from conclave_client.event_stream import Comment, EventStreamReader, OversizedEventError, Retry, StreamEvent

Found = StreamEvent | Comment | Retry

STREAM = (
    "retry: 1000\n\n: ping\n\nid: 1\nevent: agent.ended\ndata: {\ndata: }\n\n"
    "data:no space\r\n\r\nid: 2\rdata: smörgås 🂡\r\rdata: never ended"
).encode()
EVENTS: list[Found] = [
    Retry(1.0),
    Comment("ping"),
    StreamEvent("agent.ended", "{\n}", "1"),
    StreamEvent("message", "no space", "1"),
    StreamEvent("message", "smörgås 🂡", "2"),
]


def read(*chunks: bytes, max_bytes: int = 1024) -> list[Found]:
    reader = EventStreamReader(max_bytes=max_bytes)
    return [found for chunk in chunks for found in reader.feed(chunk)]


def bytewise(content: bytes) -> list[bytes]:
    return [content[place : place + 1] for place in range(len(content))]


def test_a_stream_in_one_piece_is_read() -> None:
    assert read(STREAM) == EVENTS


def test_a_stream_byte_by_byte_is_read_alike() -> None:
    assert read(*bytewise(STREAM)) == EVENTS


@pytest.mark.parametrize("seed", range(20))
def test_a_stream_cut_anywhere_is_read_alike(seed: int) -> None:
    places = sorted(random.Random(seed).sample(range(len(STREAM)), 9))
    pieces = [STREAM[start:end] for start, end in zip([0, *places], [*places, len(STREAM)], strict=True)]
    assert read(*pieces) == EVENTS


def test_a_line_end_of_two_bytes_is_one_also_between_two_chunks() -> None:
    assert read(b"data: a\r", b"\n\r", b"\ndata: b\r", b"\r") == [
        StreamEvent("message", "a", ""),
        StreamEvent("message", "b", ""),
    ]


def test_a_byte_order_mark_is_passed_over_at_the_beginning_alone() -> None:
    assert read(b"\xef\xbb", b"\xbfdata: a\n\n\xef\xbb\xbfdata: b\n\n") == [StreamEvent("message", "a", "")]


def test_what_the_end_cuts_off_is_no_event() -> None:
    assert read(b"id: 1\ndata: a\n") == []


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x00\xff\xfe garbage\n\n",
        b"data\n",
        b"event: x\n\n",
        b"unknown: field\n\n",
        b"retry: -5\n\n",
        b"retry: 1e3\n\n",
        b"retry: \xd9\xa1\n\n",
        b"\n" * 1000,
    ],
)
def test_garbage_between_events_is_passed_over(garbage: bytes) -> None:
    found = read(garbage + b"\n", b"data: a\n\n")
    assert found[-1] == StreamEvent("message", "a", "")
    assert all(isinstance(each, StreamEvent) for each in found)


def test_an_id_with_a_nul_is_not_taken() -> None:
    assert read(b"id: 1\ndata: a\n\nid: 2\x00\ndata: b\n\n")[-1] == StreamEvent("message", "b", "1")


def test_bytes_that_are_no_utf_8_are_replaced() -> None:
    assert read(b"data: \xff\n\n") == [StreamEvent("message", "\ufffd", "")]


def test_a_pause_that_nobody_would_live_to_see_stays_a_number() -> None:
    (found,) = read(b"retry: " + b"9" * 500 + b"\n")
    assert isinstance(found, Retry)
    assert found.seconds < 1_000_001


@pytest.mark.parametrize(
    "chunks",
    [
        [b"data: " + b"x" * 2000],
        [b"data: " + b"x" * 2000 + b"\n\n"],
        [b":" + b"x" * 2000 + b"\n"],
        [b"x" * 600, b"x" * 600],
        [b"data: " + b"x" * 500 + b"\n"] * 3,
        [b"data:\n"] * 2000,
    ],
)
def test_a_line_or_an_event_without_end_is_refused(chunks: list[bytes]) -> None:
    with pytest.raises(OversizedEventError):
        read(*chunks)


def test_events_up_to_the_bound_are_taken_one_after_the_other() -> None:
    assert len(read(*[b"data: " + b"x" * 1000 + b"\n\n"] * 50)) == 50
