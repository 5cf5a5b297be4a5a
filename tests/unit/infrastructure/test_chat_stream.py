"""Holds the reader of streams to one document however the bytes were cut, and to naming each stream that breaks."""

from __future__ import annotations

import json
from contextlib import suppress
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.errors.agent import AgentInvocationError
from domain.models.budget import Usage
from domain.models.roll_call import AgentState
from infrastructure.orchestrators.chat_completion import ChatCompletion, completion_of
from infrastructure.orchestrators.chat_stream import ChatStream, looks_like_events

HOST = "models.example"
USAGE = {"prompt_tokens": 12, "completion_tokens": 5, "total_tokens": 17}
DONE = b"data: [DONE]\n\n"


def piece(text: str | None = None, *, finish_reason: str | None = None, **fields: Any) -> bytes:
    delta = {} if text is None else {"content": text}
    choices = [{"index": 0, "delta": delta, "finish_reason": finish_reason}]
    return event({"model": "m-1", "choices": choices, **fields})


def event(document: object) -> bytes:
    return b"data: " + json.dumps(document, ensure_ascii=False).encode() + b"\n\n"


GOOD = (
    b": keep-alive\n\n"
    + event({"model": "m-1", "choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]})
    + piece('{"answer": ')
    + piece('"øst"}')
    + piece(finish_reason="stop")
    + event({"model": "m-1", "choices": [], "usage": USAGE})
    + DONE
)


def read(*chunks: bytes, most: int = 10_000) -> ChatStream:
    stream = ChatStream(host=HOST, most=most)
    for chunk in chunks:
        stream.feed(chunk)
    stream.end()
    return stream


def completion(stream: ChatStream) -> ChatCompletion:
    return completion_of(stream.document(), host=HOST, request_body=b"asked")


def refused(*chunks: bytes, most: int = 10_000) -> AgentInvocationError:
    with pytest.raises(AgentInvocationError) as caught:
        read(*chunks, most=most)
    return caught.value


def test_pieces_usage_and_model_are_put_together() -> None:
    assert completion(read(GOOD)) == ChatCompletion('{"answer": "øst"}', "m-1", False, 12, 5)


@given(st.lists(st.integers(0, len(GOOD)), max_size=12))
def test_it_reads_the_same_however_the_bytes_were_cut(cuts: list[int]) -> None:
    at = [0, *sorted(cuts), len(GOOD)]
    chunks = [GOOD[start:end] for start, end in pairwise(at)]
    assert read(*chunks).document() == read(GOOD).document()


def test_lines_may_end_in_cr_lf_and_the_blank_after_the_colon_may_be_missing() -> None:
    odd = GOOD.replace(b"data: ", b"data:").replace(b"\n", b"\r\n")
    assert read(*(odd[at : at + 1] for at in range(len(odd)))).document() == read(GOOD).document()


def test_an_event_may_have_several_lines_and_fields_that_are_not_needed() -> None:
    first, second = (
        json.dumps({"choices": [{"delta": {"content": "x"}, "finish_reason": "stop"}]}).encode().split(b" ", 1)
    )
    reply = b"event: message\nid: 7\nretry: 10\ndata: " + first + b"\ndata: " + second + b"\n\n" + DONE
    assert completion(read(reply)).content == "x"


def test_a_line_that_is_not_whole_is_no_progress() -> None:
    stream = ChatStream(host=HOST, most=1000)
    assert [stream.feed(part) for part in (b"data", b": [DO", b"NE]", b"\n", b"\n")] == [
        False,
        False,
        False,
        True,
        True,
    ]
    assert stream.is_done


def test_nothing_after_the_end_is_part_of_it() -> None:
    stream = ChatStream(host=HOST, most=1000)
    stream.feed(piece("x", finish_reason="stop") + DONE + piece("y"))
    stream.feed(b"data: {garbage\n\n")
    stream.end()
    assert completion(stream).content == "x"


@pytest.mark.parametrize(
    "reply",
    [
        piece("x", finish_reason="stop"),
        piece("x", finish_reason="stop").rstrip(b"\n"),
        piece("x") + DONE,
        piece("x") + b"data: [DONE]",
        piece("x", finish_reason="stop", usage=USAGE) + event({"choices": [], "usage": None}),
    ],
)
def test_a_stream_whose_model_had_finished_is_whole(reply: bytes) -> None:
    assert completion(read(reply)).content == "x"


def test_what_is_told_of_usage_last_counts_and_none_is_estimated() -> None:
    early = piece("x", usage={**USAGE, "completion_tokens": 1, "total_tokens": 13})
    assert completion(read(early, piece(finish_reason="stop", usage=USAGE))).output_tokens == 5
    assert completion(read(piece("x", finish_reason="stop"))).output_tokens > 0


@pytest.mark.parametrize(
    "reply", [b"", b"\n\n", b": nothing but comments\n\n" * 3, piece("half an"), GOOD[: len(GOOD) // 2], piece()]
)
def test_a_stream_that_ends_early_is_a_failure_that_may_have_been_paid(reply: bytes) -> None:
    error = refused(reply)
    assert (error.kind, error.state, error.usage) == ("stream_truncated", AgentState.FAILED, None)


def test_a_truncated_stream_says_nothing_of_what_it_took_even_where_it_told_a_part() -> None:
    error = refused(piece("half", usage=USAGE))
    assert (error.kind, error.retryable, error.usage) == ("stream_truncated", True, None)


@pytest.mark.parametrize(
    "reply",
    [
        b"data: {not json\n\n",
        b'data: "a string"\n\n',
        b"data: [1, 2]\n\n",
        b"data: \xff\xfe\n\n",
        b"data: 7\n\n",
        b"data: " + b"[" * 5000 + b"\n\n",
    ],
)
def test_an_event_that_is_no_object_is_unreadable(reply: bytes) -> None:
    error = refused(piece("x"), reply)
    assert (error.kind, error.state, error.retryable, error.usage) == (
        "stream_unreadable",
        AgentState.FAILED,
        False,
        None,
    )


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"choices": None},
        {"choices": []},
        {"choices": [7]},
        {"choices": [{}]},
        {"choices": [{"delta": None}]},
        {"choices": [{"delta": {"content": 7}}]},
        {"choices": [{"delta": {"content": None, "refusal": None}}]},
        {"usage": "many"},
    ],
)
def test_an_event_without_a_text_adds_none(document: object) -> None:
    assert completion(read(piece("x"), event(document), piece(finish_reason="length"), DONE)).content == "x"


def test_a_refusal_in_pieces_is_kept_as_the_content() -> None:
    delta = [{"choices": [{"delta": {"refusal": text}}]} for text in ("I would ", "rather not.")]
    assert completion(read(*map(event, delta), piece(finish_reason="stop"))).content == "I would rather not."


def test_an_empty_stream_is_an_empty_reply_that_was_paid_for() -> None:
    with pytest.raises(AgentInvocationError) as caught:
        completion(read(piece(finish_reason="length", usage=USAGE), DONE))
    assert (caught.value.kind, caught.value.usage) == ("empty_reply", Usage(1, 12, 5))


@pytest.mark.parametrize(
    ("before", "error", "kind", "usage"),
    [
        (b"", {"message": "Slow down", "type": "rate_limit_error"}, "rate_limited", Usage()),
        (piece("x"), {"message": "Slow down", "type": "rate_limit_error"}, "rate_limited", None),
        (piece("x"), {"message": "Overloaded", "type": "overloaded_error"}, "provider_error", None),
        (b"", "broken", "provider_error", None),
    ],
)
def test_an_error_event_is_the_providers_failure(before: bytes, error: object, kind: str, usage: Usage | None) -> None:
    raised = refused(before, b"event: error\n" + event({"type": "error", "error": error}))
    assert (raised.kind, raised.usage) == (kind, usage)


def test_an_error_in_a_list_as_gemini_sends_it_is_read() -> None:
    assert refused(event([{"error": {"code": 429, "status": "RESOURCE_EXHAUSTED"}}])).kind == "rate_limited"


@pytest.mark.parametrize(
    "chunks",
    [
        [b"data: " + b"x" * 2000],
        [b"data: x\n"] * 600,
        [piece("y" * 99)] * 20,
        [b":\n"] * 40_000,
        [piece()] * 1000,
    ],
)
def test_a_stream_without_an_end_is_given_up_at_its_bound(chunks: list[bytes]) -> None:
    assert refused(*chunks, most=1000).kind == "reply_too_large"


def test_each_line_is_redacted_before_anything_of_it_is_kept() -> None:
    stream = ChatStream(host=HOST, most=1000, redact=lambda line: line.replace(b"secret", b"[key]"))
    with pytest.raises(AgentInvocationError) as caught:
        stream.feed(event({"error": {"message": "wrong key: secret"}}))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("content_type", "begin", "is_stream"),
    [
        ("text/event-stream", b"{", True),
        ("application/json", b"data: {", True),
        ("text/plain", b": comment", True),
        ("application/json", b'{"choices"', False),
        ("text/html", b"<html>", False),
    ],
)
def test_a_stream_is_known_by_its_type_or_by_its_beginning(content_type: str, begin: bytes, is_stream: bool) -> None:
    assert looks_like_events(content_type, begin) is is_stream


@given(st.binary(max_size=400))
def test_no_bytes_whatever_make_it_raise_anything_else(received: bytes) -> None:
    stream = ChatStream(host=HOST, most=200)
    with suppress(AgentInvocationError):
        stream.feed(received)
        stream.end()
        assert completion(stream).content
