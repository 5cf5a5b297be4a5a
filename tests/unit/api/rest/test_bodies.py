"""A body is counted while it comes in, has its time, and is taken as JSON only when it says so."""

from __future__ import annotations

import json
from collections.abc import Iterable

import pytest
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message

from api.rest.bodies import BODY_TIMEOUT_S, MAX_BODY_BYTES, discard_body, read_submission
from api.rest.problems import RequestRefusedError
from infrastructure.rosters.file_roster_source import FileRosterSource
from tests.virtual_time import pass_time

ROSTERS = FileRosterSource()
JSON = {"content-type": "application/json"}


class Sender:
    """Sends chunks as they are asked for, one every `pause_s` seconds, and counts those that were taken."""

    def __init__(self, chunks: Iterable[bytes], *, pause_s: float = 0, leaves: bool = False) -> None:
        self._chunks = iter(chunks)
        self._pause_s = pause_s
        self._leaves = leaves
        self.taken = 0

    async def receive(self) -> Message:
        await pass_time(self._pause_s)
        chunk = next(self._chunks, None)
        if chunk is None:
            return {"type": "http.disconnect"} if self._leaves else {"type": "http.request", "body": b""}
        self.taken += 1
        return {"type": "http.request", "body": chunk, "more_body": True}


def request(sender: Sender, headers: dict[str, str] | None = None) -> Request:
    raw = [(name.encode(), value.encode()) for name, value in (JSON if headers is None else headers).items()]
    return Request({"type": "http", "method": "POST", "path": "/", "headers": raw}, sender.receive)


async def refusal(sent: Request) -> RequestRefusedError:
    with pytest.raises(RequestRefusedError) as caught:
        await read_submission(sent, ROSTERS)
    return caught.value


def question_of(size: int) -> bytes:
    """A body of exactly `size` bytes."""
    empty = json.dumps({"question": "?", "context": ""}).encode()
    return empty.replace(b'""', b'"' + b"x" * (size - len(empty)) + b'"')


async def test_a_body_in_many_pieces_is_one_request() -> None:
    body = json.dumps({"question": "Shall we?"}).encode()
    read = await read_submission(request(Sender(body[i : i + 3] for i in range(0, len(body), 3))), ROSTERS)
    assert read.asked.question == "Shall we?"


async def test_the_largest_body_is_taken() -> None:
    body = question_of(MAX_BODY_BYTES)
    assert len(body) == MAX_BODY_BYTES
    sender = Sender([body])
    await discard_body(request(sender))
    assert sender.taken == 1


async def test_an_announced_byte_too_many_is_refused_before_anything_is_read() -> None:
    sender = Sender([b"x"])
    refused = await refusal(request(sender, {**JSON, "content-length": str(MAX_BODY_BYTES + 1)}))
    assert refused.slug == "body-too-large"
    assert sender.taken == 0


async def test_a_body_that_is_longer_than_announced_is_cut_off() -> None:
    sender = Sender(b"x" * 65536 for _ in range(1000))
    refused = await refusal(request(sender, {**JSON, "content-length": "10"}))
    assert refused.slug == "body-too-large"
    assert sender.taken == MAX_BODY_BYTES // 65536 + 1


async def test_a_body_that_drips_runs_out_of_time() -> None:
    sender = Sender((b" " for _ in range(1000)), pause_s=1)
    refused = await refusal(request(sender))
    assert refused.slug == "body-timeout"
    assert sender.taken <= BODY_TIMEOUT_S


async def test_a_caller_that_leaves_in_the_middle_gets_no_answer() -> None:
    with pytest.raises(ClientDisconnect):
        await read_submission(request(Sender([b'{"question"'], leaves=True)), ROSTERS)


@pytest.mark.parametrize(
    "media_type",
    ["application/json", "application/json; charset=utf-8", 'Application/JSON;charset="UTF-8"', "application/json;x=y"],
)
async def test_json_by_name_is_read(media_type: str) -> None:
    read = await read_submission(request(Sender([b'{"question": "?"}']), {"content-type": media_type}), ROSTERS)
    assert read.asked.question == "?"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"content-type": ""},
        {"content-type": "text/plain"},
        {"content-type": "text/json"},
        {"content-type": "application/jsonp"},
        {"content-type": "multipart/form-data; boundary=x"},
        {"content-type": "application/json; charset=utf-16"},
        {"content-type": "application/json; charset=latin-1"},
        {"content-type": "application/json", "content-encoding": "gzip"},
    ],
)
async def test_anything_else_is_not_even_read(headers: dict[str, str]) -> None:
    sender = Sender([b'{"question": "?"}'])
    refused = await refusal(request(sender, headers))
    assert refused.slug == "unsupported-media-type"
    assert sender.taken == 0
