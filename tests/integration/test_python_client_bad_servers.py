"""The Python client against servers that are busy, silent, broken or hostile: both flavours, over real connections."""

from __future__ import annotations

import gzip
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest

from api.rest.examples import EXAMPLES
from conclave_client import (
    ClosedClientError,
    ConclaveClientError,
    ConnectionLostError,
    OversizedAnswerError,
    ProtocolViolationError,
    RedirectRefusedError,
    TooManyError,
)
from tests.integration.python_client_flavours import FLAVOURS, Clock, Flavour, opened
from tests.servers.keeper import free_port
from tests.unit.api.cli.scripted_server import Reply, ScriptedServer, events, hang_up, problem, scripted_server
from tests.unit.api.cli.scripted_server import answer as plain_answer

pytestmark = pytest.mark.parametrize("flavour", FLAVOURS)

SECRET = "secret-of-nobody-else"
POOL = {"capacity": 72, "active": 0, "available": 72, "waiting": 0}


def answer(document: Any, *, status: int = 200, **headers: str) -> Reply:
    return plain_answer(document, status=status, **{"Content_Type": "application/json", **headers})


def refused(status: int, slug: str, **headers: str) -> Reply:
    document = {"type": f"urn:conclave:problem:{slug}", "title": "No", "status": status}
    return answer(document, status=status, **{**headers, "Content_Type": "application/problem+json"})


@contextmanager
def facing(flavour: str, *replies: Reply, **options: Any) -> Iterator[tuple[Flavour, ScriptedServer, Clock]]:
    clock = Clock()
    with scripted_server(*replies) as server, opened(flavour, server.url, clock=clock, **options) as client:
        yield client, server, clock


def test_a_busy_server_is_asked_again_when_it_says(flavour: str) -> None:
    busy = refused(429, "queue-full", Retry_After="5")
    away = refused(503, "dependency-unavailable", Retry_After="2")
    queued = answer(EXAMPLES["Deliberation"], status=202)
    with facing(flavour, busy, away, hang_up, queued) as (client, server, clock):
        assert client.call("deliberate", "Why?").id == EXAMPLES["Deliberation"]["id"]
    assert len({asked.headers["Idempotency-Key"] for asked in server.asked}) == 1
    for pause, at_least in zip(clock.pauses, (5.0, 2.0, 1.0), strict=True):
        assert at_least <= pause <= 1.25 * at_least


def test_a_server_that_stays_busy_is_left_in_time(flavour: str) -> None:
    with facing(flavour, refused(429, "queue-full", Retry_After="7")) as (client, _server, clock):
        with pytest.raises(TooManyError) as raised:
            client.call("deliberate", "Why?")
        assert raised.value.retry_after_s == 7.0
        assert clock.now <= 30 * 1.25


def test_a_stream_that_is_refused_cut_and_refused_goes_on(flavour: str) -> None:
    busy = refused(429, "too-many-streams", Retry_After="5")
    with facing(flavour, busy, whole_events(1, 2), busy, whole_events(3, terminal=True)) as (client, server, clock):
        assert [event.sequence for event in client.each("events", "d-1")] == [1, 2, 3]
    assert [asked.headers.get("Last-Event-ID") for asked in server.asked] == [None, None, "2", "2"]
    assert min(clock.pauses) >= 1.0


def whole_events(*sequences: int, terminal: bool = False) -> Reply:
    """As of `scripted_server.events`, with all fields, and with what a server says where they are not the end."""

    def reply(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream")
        handler.end_headers()
        handler.wfile.write(b"retry: 1000\n\n")
        for sequence in sequences:
            kind = "deliberation.completed" if terminal and sequence == sequences[-1] else "agent.ended"
            document = {"sequence": sequence, "type": kind, "at": "2026-11-21T21:00:00Z", "deliberation_id": "d-1"}
            handler.wfile.write(f"id: {sequence}\nevent: {kind}\ndata: {json.dumps(document)}\n\n".encode())
        if not terminal:
            handler.wfile.write(b": not the end\n\n")

    return reply


def test_the_key_goes_to_no_other_server(flavour: str) -> None:
    with scripted_server(answer(POOL)) as elsewhere:
        for status in (301, 302, 303, 307, 308):
            moved = answer(b"", status=status, Location=f"{elsewhere.url}/v1/pool")
            with facing(flavour, moved, api_key=SECRET) as (client, server, _clock):
                with pytest.raises(RedirectRefusedError):
                    client.call("pool")
                with pytest.raises(RedirectRefusedError):
                    client.call("deliberate", "Why?")
                with pytest.raises(RedirectRefusedError):
                    list(client.each("events", "d-1"))
            assert {asked.headers["Authorization"] for asked in server.asked} == {f"Bearer {SECRET}"}
    assert elsewhere.asked == []


def test_a_cookie_is_not_kept(flavour: str) -> None:
    with facing(flavour, answer(POOL, Set_Cookie="conclave_session=stolen; Path=/")) as (client, server, _clock):
        client.call("pool")
        client.call("pool")
    assert "Cookie" not in server.asked[1].headers


def test_no_proxy_stands_between_a_caller_and_its_own_machine(flavour: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    with facing(flavour, answer(POOL)) as (client, _server, _clock):
        assert client.call("pool").capacity == 72


def raw(content: bytes, *, more: bytes = b"", times: int = 0) -> Reply:
    """These bytes as they are, then `more` that many times or until the client has had enough, and the end of the connection."""

    def reply(handler: BaseHTTPRequestHandler) -> None:
        handler.close_connection = True
        try:
            handler.wfile.write(content)
            for _ in range(times):
                handler.wfile.write(more)
        except OSError:
            return

    return reply


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
MANY = 100_000


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (answer(POOL, Content_Type="text/html"), ProtocolViolationError),
        (answer(POOL, Content_Encoding="gzip"), ProtocolViolationError),
        (answer(gzip.compress(b" " * 100_000_000, 1), Content_Encoding="gzip"), ProtocolViolationError),
        (answer(b"\xff" * 100), ProtocolViolationError),
        (raw(HEAD + b"Content-Length: 1000\r\n\r\n{}"), ConnectionLostError),
        (raw(HEAD + b"Content-Length: 2\r\n\r\n" + json.dumps(POOL).encode()), ProtocolViolationError),
        (raw(HEAD + b"Content-Length: 99999999999999999999\r\n\r\n{}"), OversizedAnswerError),
        (raw(HEAD + b"Content-Length: -5\r\n\r\n{}"), ConnectionLostError),
        (raw(HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}"), ConnectionLostError),
        (raw(HEAD + b"\r\n", more=b" " * 65536, times=MANY), OversizedAnswerError),
        (raw(HEAD, more=b"X-Filler: " + b"x" * 8000 + b"\r\n", times=MANY), ConnectionLostError),
        (raw(b"HTTP/1.1 200 " + b"O" * 200_000), ConnectionLostError),
        (raw(b"220 smtp.example ESMTP\r\n"), ConnectionLostError),
        (raw(b"\x16\x03\x01\x02\x00"), ConnectionLostError),
        (hang_up, ConnectionLostError),
    ],
)
def test_an_answer_that_is_none_is_an_error_and_nothing_worse(
    flavour: str, reply: Reply, error: type[ConclaveClientError]
) -> None:
    with facing(flavour, reply, api_key=SECRET, patience_s=0.0) as (client, _server, _clock):
        with pytest.raises(error) as raised:
            client.call("pool")
        assert type(raised.value) is error
        assert SECRET not in everything_about(raised.value)


def everything_about(error: BaseException) -> str:
    """What a log would hold of an error and of those it came from."""
    said = ""
    while True:
        said += f"{error} {error!r} {vars(error)}"
        following = error.__cause__ or error.__context__
        if following is None:
            return said
        error = following


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (answer(b"<html>", Content_Type="text/html"), ProtocolViolationError),
        (raw(STREAM, more=b"x" * 65536, times=MANY), OversizedAnswerError),
        (raw(STREAM, more=b"data: " + b"x" * 65536 + b"\n", times=MANY), OversizedAnswerError),
        (raw(STREAM + b"id: 1\ndata: \xff\n\n"), ProtocolViolationError),
        (events(2), ProtocolViolationError),
        (problem(404, "deliberation-not-found"), ConclaveClientError),
        (raw(STREAM.replace(b"\r\n\r\n", b"\r\nContent-Length: 50\r\n\r\n") + b": ping\n\n"), ConnectionLostError),
    ],
)
def test_a_stream_that_is_none_is_an_error_and_nothing_worse(
    flavour: str, reply: Reply, error: type[ConclaveClientError]
) -> None:
    with facing(flavour, reply, patience_s=0.0) as (client, _server, _clock), pytest.raises(error):
        list(client.each("events", "d-1"))


@pytest.fixture
def silent() -> Iterator[Callable[[], str]]:
    """Makes servers that take a connection and say nothing."""
    sockets: list[socket.socket] = []

    def start() -> str:
        listening = socket.create_server(("127.0.0.1", 0))
        sockets.append(listening)
        return f"http://127.0.0.1:{listening.getsockname()[1]}"

    yield start
    for each in sockets:
        each.close()


def test_a_server_that_says_nothing_is_given_up(flavour: str, silent: Callable[[], str]) -> None:
    with opened(flavour, silent(), patience_s=0.0, answer_timeout_s=0.2) as client:
        with pytest.raises(ConnectionLostError, match="in time") as raised:
            client.call("pool")
        assert raised.value.sent


def test_a_server_that_is_not_there_is_said_to_be_away(flavour: str) -> None:
    clock = Clock()
    with opened(flavour, f"http://127.0.0.1:{free_port()}", clock=clock) as client:
        with pytest.raises(ConnectionLostError, match="cannot be reached") as raised:
            client.call("recount", "d-1", "threshold")
        assert not raised.value.sent
        assert 20 < clock.now < 30 * 1.25


def test_a_list_that_is_left_early_asks_for_no_further_page(flavour: str) -> None:
    page = answer({"items": [EXAMPLES["Run"]], "next_cursor": "c"})
    with facing(flavour, page) as (client, server, _clock):
        runs = client.each("runs.list")
        next(runs)
        runs.close()  # type: ignore[attr-defined]
    assert len(server.asked) == 1


def test_an_iterator_that_is_left_holds_no_connection(flavour: str) -> None:
    released = threading.Event()

    def endless(handler: BaseHTTPRequestHandler) -> None:
        whole_events(1)(handler)
        try:
            while True:
                handler.wfile.write(b": ping\n\n" * 1000)
        except OSError:
            released.set()

    with facing(flavour, endless) as (client, _server, _clock):
        stream = client.each("events", "d-1")
        next(stream)
        stream.close()  # type: ignore[attr-defined]
        assert released.wait(30.0)


def test_nothing_is_sent_for_what_cannot_be_sent(flavour: str) -> None:
    with facing(flavour, answer(POOL)) as (client, server, _clock):
        with pytest.raises(ConclaveClientError):
            client.call("get", "..")
        with pytest.raises(ConclaveClientError, match="metadata"):
            client.call("deliberate", "Why?", metadata={"a": object()})
    assert server.asked == []


def test_a_closed_client_says_so_and_sends_nothing(flavour: str) -> None:
    with facing(flavour, answer(POOL)) as (client, server, _clock):
        client.call("close" if flavour == "blocking" else "aclose")
        with pytest.raises(ClosedClientError, match="closed"):
            client.call("pool")
        with pytest.raises(ClosedClientError):
            client.call("ask", "Why?")
        with pytest.raises(ClosedClientError):
            next(client.each("events", "d-1"))
    assert server.asked == []


def test_a_client_closed_while_events_are_followed_ends_them_with_an_error_of_its_own(flavour: str) -> None:
    with facing(flavour, whole_events(1)) as (client, _server, _clock):
        following = client.each("events", "d-1")
        assert next(following).sequence == 1
        client.call("close" if flavour == "blocking" else "aclose")
        with pytest.raises(ConclaveClientError):
            list(following)
