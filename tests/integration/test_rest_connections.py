"""Bare connections to the REST door: callers who stall, leave, never read or are too many, and bytes that are hardly HTTP."""

from __future__ import annotations

import json
import select
import socket

import pytest

from infrastructure.stubs import AgentOrchestratorStub
from tests.conclave_fixture import RunningServer, read_all, running_server
from tests.integration.rest_questions import QUESTION

MIB = 1024 * 1024
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
HALF_A_BODY = b"POST /v1/deliberations HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n{"


def test_a_half_sent_body_runs_out_of_time(server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.rest.bodies.BODY_TIMEOUT_S", 0.2)
    raw = server.send_raw(HALF_A_BODY)
    assert raw.startswith(b"HTTP/1.1 408 ")
    assert b"connection: close" in raw.lower()


def test_a_half_sent_head_runs_out_of_time(server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.rest.connection.HEADER_TIMEOUT_S", 0.2)
    assert server.send_raw(b"GET /healthz HTTP/1.1\r\nHost: loc") == b""


def test_a_connection_that_says_nothing_runs_out_of_time(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.rest.connection.HEADER_TIMEOUT_S", 0.2)
    assert server.send_raw(b"") == b""


def _is_served(connection: socket.socket) -> bool:
    connection.sendall(HEALTH)
    raw = b""
    while not raw.endswith(b"}"):
        if not (part := connection.recv(65536)):
            return False
        raw += part
    return raw.startswith(b"HTTP/1.1 200 ")


def test_a_connection_too_many_takes_the_place_of_that_which_owes_a_request_for_longest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with running_server() as server, server.connect() as first, server.connect() as second:
        for connection in (first, second):
            assert _is_served(connection)
        first.sendall(HALF_A_BODY)
        monkeypatch.setattr("api.rest.connection.MAX_CONNECTIONS", 2)
        with server.connect() as third:
            assert _is_served(third)
            assert read_all(first) == b""
            assert _is_served(second)


def test_a_connection_too_many_is_closed_where_all_others_are_being_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    with running_server(orchestrator=AgentOrchestratorStub(latency_seconds=3600.0)) as server:
        own = server.post(QUESTION).document["id"]
        with server.events(f"/v1/deliberations/{own}/events"):
            monkeypatch.setattr("api.rest.connection.MAX_CONNECTIONS", 1)
            with server.connect() as one_more:
                assert read_all(one_more) == b""


def test_a_request_that_is_still_arriving_when_the_server_stops_is_told_so(caplog: pytest.LogCaptureFixture) -> None:
    with running_server() as server, server.connect() as lengthy, server.connect() as chunked:
        lengthy.sendall(HALF_A_BODY)
        chunked.sendall(
            b"POST /v1/halt HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b'Transfer-Encoding: chunked\r\n\r\n5\r\n{"rea\r\n'
        )
        server.ask("GET", "/healthz")
        server.stop()
        for connection in (lengthy, chunked):
            head, _, body = read_all(connection).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
            assert b"retry-after: 5" in head
            assert json.loads(body)["type"].endswith(":service-stopping")
    assert [record for record in caplog.records if record.exc_info] == []


def test_a_caller_that_leaves_in_the_middle_leaves_nothing_behind(server: RunningServer) -> None:
    before = server.ask("GET", "/v1/deliberations").body
    for part in (b"POST", b"POST /v1/deliberations HTTP/1.1\r\nHost: localhost\r\n"):
        with server.connect() as connection:
            connection.sendall(part)
    with server.connect() as connection:
        connection.sendall(
            b"POST /v1/deliberations HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b'Content-Length: 21\r\n\r\n{"question": "Shall '
        )
    assert server.ask("GET", "/v1/deliberations").body == before


def test_a_reader_that_never_reads_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.rest.connection.STALL_TIMEOUT_S", 0.2)
    with running_server() as server:
        for _ in range(120):
            assert server.post({"question": "x" * 32_000, "agents": {"count": 1}}).status == 202
        with socket.socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect(("127.0.0.1", server.port))
            connection.sendall(b"GET /v1/deliberations?limit=200 HTTP/1.1\r\nHost: localhost\r\n\r\n")
            hung_up = select.poll()
            hung_up.register(connection, select.POLLHUP | select.POLLERR)
            assert hung_up.poll(30_000), "the server still waits for a reader that does not read"


RAW: dict[str, bytes] = {
    "garbage": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "no HTTP": b"hello\r\n\r\n",
    "an HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "no host": b"GET /healthz HTTP/1.1\r\n\r\n",
    "two hosts": b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nHost: example.org\r\n\r\n",
    "a blank in a header's name": b"GET /healthz HTTP/1.1\r\nHost : localhost\r\n\r\n",
    "a NUL in a header": b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: a\x00b\r\n\r\n",
    "a raw byte in the address": b"GET /\xff HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "an address with a blank": b"GET /a b HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a length that is no number": b"POST /v1/deliberations HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n",
    "a negative length": b"POST /v1/deliberations HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
    "two lengths": b"POST /v1/deliberations HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
    "a length of 30 digits": b"POST /v1/deliberations HTTP/1.1\r\nHost: localhost\r\nContent-Length: "
    + b"9" * 30
    + b"\r\n\r\n",
    "a broken chunk": b"POST /v1/deliberations HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Transfer-Encoding: chunked\r\n\r\nzz\r\nxx\r\n",
    "an unknown transfer encoding": b"POST /v1/deliberations HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip\r\n\r\n",
    "a head of a megabyte": b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 170_000 + b"\r\n",
    "one header of a megabyte": b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: " + b"y" * MIB + b"\r\n\r\n",
    "an address of a megabyte": b"GET /" + b"x" * MIB + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "garbage after a request": b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n\x00\x01\x02 garbage\r\n\r\n",
    "an absolute address": b"GET http://example.org/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    "an asterisk": b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    "a tunnel": b"CONNECT example.org:443 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    "a websocket": b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, close\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
    "HTTP/1.0 without a host": b"GET /healthz HTTP/1.0\r\n\r\n",
    "a body where none belongs": b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello",
}


@pytest.mark.parametrize("data", RAW.values(), ids=RAW.keys())
def test_no_bytes_make_the_server_fail(server: RunningServer, data: bytes) -> None:
    raw = server.send_raw(data)
    for line in raw.split(b"\r\n"):
        if line.startswith(b"HTTP/1.1 "):
            assert line.split()[1] < b"500"
    assert server.ask("GET", "/healthz").status == 200


def test_what_is_no_http_is_answered_as_a_problem(server: RunningServer) -> None:
    head, _, body = server.send_raw(RAW["no HTTP"]).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"application/problem+json" in head
    assert json.loads(body)["type"].endswith(":malformed-request")


def test_requests_in_a_row_on_one_connection_are_answered_in_their_order(server: RunningServer) -> None:
    paths = ["/healthz", "/v1/pool", "/nothing", "/v1/rosters"]
    requests = [f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n" for path in paths]
    requests[-1] = requests[-1].replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n")
    raw = server.send_raw("".join(requests).encode())
    statuses = [int(part[:3]) for part in raw.split(b"HTTP/1.1 ")[1:]]
    assert statuses == [200, 200, 404, 200]


def test_a_request_hidden_in_a_refused_body_is_never_served(server: RunningServer) -> None:
    hidden = b"GET /v1/rosters HTTP/1.1\r\nHost: localhost\r\n\r\n"
    head = f"POST /v1/deliberations HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\nContent-Length: {len(hidden)}\r\n\r\n"
    raw = server.send_raw(head.encode() + hidden)
    assert raw.count(b"HTTP/1.1 ") == 1
    assert raw.startswith(b"HTTP/1.1 415 ")


QUESTION_BODY = b'{"question": "Why?"}'
TWO_FRAMES = (
    b"POST /v1/deliberations HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 4\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n14\r\n" + QUESTION_BODY + b"\r\n0\r\n\r\n"
)
AMBIGUOUS = {
    "a length and chunks": TWO_FRAMES,
    "chunks in HTTP/1.0": TWO_FRAMES.replace(b"HTTP/1.1", b"HTTP/1.0").replace(b"Content-Length: 4\r\n", b""),
    "two origins": b"POST /v1/deliberations HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Origin: http://example.org\r\nOrigin: http://localhost\r\nContent-Length: 20\r\n\r\n" + QUESTION_BODY,
    "two sites": b"POST /v1/deliberations HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Sec-Fetch-Site: cross-site\r\nSec-Fetch-Site: same-origin\r\nContent-Length: 20\r\n\r\n" + QUESTION_BODY,
    "another server's address": b"GET http://example.org/v1/pool HTTP/1.1\r\nHost: localhost\r\n\r\n",
}


@pytest.mark.parametrize("data", AMBIGUOUS.values(), ids=AMBIGUOUS.keys())
def test_what_a_proxy_could_read_in_another_way_is_refused_and_the_connection_closed(
    server: RunningServer, data: bytes
) -> None:
    before = server.ask("GET", "/v1/deliberations").body
    raw = server.send_raw(data + HEALTH)
    assert raw.startswith(b"HTTP/1.1 400 ")
    assert raw.count(b"HTTP/1.1 ") == 1
    assert b":malformed-request" in raw
    assert server.ask("GET", "/v1/deliberations").body == before


def test_its_whole_address_is_read_as_its_path(server: RunningServer) -> None:
    raw = server.send_raw(b"GET http://LOCALHOST/v1/pool HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    assert raw.startswith(b"HTTP/1.1 200 ")
    assert b"capacity" in raw


@pytest.mark.parametrize("slash", ["%2F", "%2f"])
def test_an_encoded_slash_divides_no_path(server: RunningServer, slash: str) -> None:
    own = server.post(QUESTION).document["id"]
    assert server.ask("GET", f"/v1/deliberations/{own}/outputs").status == 200
    refused = server.ask("GET", f"/v1/deliberations/{own}{slash}outputs")
    assert (refused.status, refused.problem) == (404, "not-found")


def test_the_slashes_in_the_name_of_a_tile_may_be_encoded(server: RunningServer) -> None:
    server.post(QUESTION)
    plain, encoded = (server.ask("GET", f"/v1/witness/tile/{name}") for name in ("0/000.p/1", "0%2F000.p%2F1"))
    assert (plain.status, plain.body) == (200, encoded.body)
