"""No input makes the server answer 5xx, repeat what it was sent, accept a part of it, or hold on to its memory."""

from __future__ import annotations

import json
import select
import socket
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from tests.conclave_fixture import Answer, RunningServer, read_all, running_server, server_process

MARKER = "xyzzy-marker-4711"
LIMIT = 1024 * 1024
MIB = 1024 * 1024


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with running_server() as running:
        yield running


def post_refused(server: RunningServer, body: bytes, *, content_type: str = "application/json") -> Answer:
    """The refusal of `body`: a problem document that repeats nothing and leaves nothing behind."""
    before = server.ask("GET", "/v1/deliberations").body
    answer = server.post(body, headers={"Content-Type": content_type})
    assert answer.problem
    assert 400 <= answer.status < 500
    assert MARKER not in answer.body.decode()
    assert len(answer.body) < 16 * 1024
    assert server.ask("GET", "/v1/deliberations").body == before
    return answer


def with_fields(**fields: Any) -> bytes:
    return json.dumps({"question": f"{MARKER}?", **fields}).encode()


MALFORMED = {
    "nothing": b"",
    "blanks": b" \n\t ",
    "a word": MARKER.encode(),
    "an open object": f'{{"question": "{MARKER}"'.encode(),
    "a comma too many": f'{{"question": "{MARKER}",}}'.encode(),
    "two documents": f'{{"question": "{MARKER}"}} {{}}'.encode(),
    "NaN": f'{{"question": "{MARKER}", "seed": NaN}}'.encode(),
    "Infinity": f'{{"question": "{MARKER}", "seed": Infinity}}'.encode(),
    "minus Infinity": f'{{"question": "{MARKER}", "limits": {{"deadline_s": -Infinity}}}}'.encode(),
    "the same name twice": f'{{"question": "a", "question": "{MARKER}"}}'.encode(),
    "the same name twice, once escaped": f'{{"question": "a", "qu\\u0065stion": "{MARKER}"}}'.encode(),
    "the same name twice, deep inside": f'{{"question": "{MARKER}", "metadata": {{"a": "b", "a": "c"}}}}'.encode(),
    "no UTF-8": f'{{"question": "{MARKER} \xff"}}'.encode("latin-1"),
    "a surrogate in UTF-8": f'{{"question": "{MARKER} '.encode() + b'\xed\xa0\x80"}',
    "a byte order mark": b"\xef\xbb\xbf" + with_fields(),
    "UTF-16": json.dumps({"question": MARKER}).encode("utf-16"),
    "UTF-32": json.dumps({"question": MARKER}).encode("utf-32"),
    "a raw NUL": f'{{"question": "{MARKER} \x00"}}'.encode(),
    "a raw line feed": f'{{"question": "{MARKER} \n"}}'.encode(),
    "33 levels": with_fields(metadata=json.loads('{"a":' * 32 + "1" + "}" * 32)),
    "a hundred thousand open lists": b"[" * 100_000,
    "a hundred thousand open objects": b'{"question":' * 80_000,
    "half a million lists in lists": b"[" * 500_000 + b"]" * 500_000,
}


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED.keys())
def test_what_is_not_json_is_400(server: RunningServer, body: bytes) -> None:
    answer = post_refused(server, body)
    assert (answer.status, answer.problem) == (400, "malformed-json")


UNUSABLE: dict[str, tuple[bytes, str]] = {
    "a list": (b'["' + MARKER.encode() + b'"]', ""),
    "a text": (f'"{MARKER}"'.encode(), ""),
    "a number": (b"1", ""),
    "null": (b"null", ""),
    "no question": (b"{}", "/question"),
    "an empty question": (b'{"question": ""}', "/question"),
    "a blank question": (b'{"question": " \\t\\n\\u2003"}', "/question"),
    "a question that is a number": (b'{"question": 1}', "/question"),
    "a question that is null": (b'{"question": null}', "/question"),
    "a question that is a list": (f'{{"question": ["{MARKER}"]}}'.encode(), "/question"),
    "a question of 32 KiB and a byte": (json.dumps({"question": MARKER + "x" * 32 * 1024}).encode(), "/question"),
    "an escaped NUL": (f'{{"question": "{MARKER}\\u0000"}}'.encode(), "/question"),
    "a lone high surrogate": (f'{{"question": "{MARKER}\\ud800"}}'.encode(), "/question"),
    "a lone low surrogate": (f'{{"question": "{MARKER}\\udc00 x"}}'.encode(), "/question"),
    "surrogates in the wrong order": (f'{{"question": "{MARKER}\\udc00\\ud800"}}'.encode(), "/question"),
    "a NUL in a name": (f'{{"question": "{MARKER}", "metadata": {{"\\u0000": "x"}}}}'.encode(), "/metadata"),
    "a lone surrogate in a name": (f'{{"question": "{MARKER}", "metadata": {{"\\ud800": "x"}}}}'.encode(), "/metadata"),
    "a lone surrogate in a value": (b'{"question": "?", "metadata": {"k": "\\ud800"}}', "/metadata/k"),
    "1e400": (f'{{"question": "{MARKER}", "seed": 1e400}}'.encode(), "/seed"),
    "minus 1e400": (f'{{"question": "{MARKER}", "limits": {{"deadline_s": -1e400}}}}'.encode(), "/limits/deadline_s"),
    "a whole number of 5,000 digits": (b'{"question": "?", "seed": ' + b"9" * 5000 + b"}", "/seed"),
    "a whole number of a million digits": (b'{"question": "?", "seed": ' + b"9" * 1_000_000 + b"}", "/seed"),
    "400 digits for seconds": (
        b'{"question": "?", "limits": {"deadline_s": ' + b"9" * 400 + b"}}",
        "/limits/deadline_s",
    ),
    "400 digits for attempts": (
        b'{"question": "?", "limits": {"max_attempts": ' + b"9" * 400 + b"}}",
        "/limits/max_attempts",
    ),
    "a float for a whole number": (with_fields(seed=1.5), "/seed"),
    "true for a number": (with_fields(limits={"deadline_s": True}), "/limits/deadline_s"),
    "a text for a number": (with_fields(limits={"max_attempts": "2"}), "/limits/max_attempts"),
    "no attempt": (with_fields(limits={"max_attempts": 0}), "/limits/max_attempts"),
    "negative money": (with_fields(limits={"max_cost_usd": -0.01}), "/limits/max_cost_usd"),
    "a temperature of 3": (with_fields(sampling={"temperature": 3}), "/sampling/temperature"),
    "a quorum of 1.5": (with_fields(quorum={"min_answered_fraction": 1.5}), "/quorum/min_answered_fraction"),
    "an unknown field": (with_fields(model="x"), "/model"),
    "an unknown field inside": (with_fields(limits={"timeout": 3}), "/limits/timeout"),
    "an unknown kind of answer": (with_fields(answer={"kind": MARKER}), "/answer/kind"),
    "an unknown protocol": (with_fields(protocol={"kind": MARKER}), "/protocol/kind"),
    "an unknown rule": (with_fields(rule={"kind": MARKER}), "/rule/kind"),
    "a rule that does not count such answers": (with_fields(rule={"kind": "median"}), "/rule/kind"),
    "a choice without options": (with_fields(answer={"kind": "choice"}), "/answer/options"),
    "one option": (with_fields(answer={"kind": "choice", "options": ["a"]}), "/answer/options"),
    "51 options": (with_fields(answer={"kind": "choice", "options": [str(n) for n in range(51)]}), "/answer/options"),
    "5,000 options": (with_fields(answer={"kind": "choice", "options": ["x"] * 5000}), "/answer/options"),
    "options that look alike": (
        with_fields(answer={"kind": "choice", "options": ["a", "Ａ\u200b"]}),
        "/answer/options/1",
    ),
    "an option that cannot be seen": (
        with_fields(answer={"kind": "choice", "options": ["a", "\u200b"]}),
        "/answer/options/1",
    ),
    "options on a verdict": (with_fields(answer={"kind": "verdict", "options": ["a", "b"]}), "/answer/options"),
    "no agents": (with_fields(agents={"count": 0}), "/agents/count"),
    "73 agents": (with_fields(agents={"count": 73}), "/agents/count"),
    "an unknown roster": (with_fields(agents={"roster": MARKER}), "/agents/roster"),
    "a roster that is a path": (with_fields(agents={"roster": "../../etc/passwd"}), "/agents/roster"),
    "members and a roster": (
        with_fields(agents={"roster": "archons", "members": [{"id": "a", "persona": "p"}]}),
        "/agents",
    ),
    "no members": (with_fields(agents={"members": []}), "/agents/members"),
    "73 members": (
        with_fields(agents={"members": [{"id": f"a{n}", "persona": "p"} for n in range(73)]}),
        "/agents/members",
    ),
    "the same member twice": (
        with_fields(agents={"members": [{"id": MARKER, "persona": "p"}] * 2}),
        "/agents/members/1/id",
    ),
    "a member without a persona": (with_fields(agents={"members": [{"id": MARKER}]}), "/agents/members/0/persona"),
    "a persona of 8 KiB and a byte": (
        with_fields(agents={"members": [{"id": "a", "persona": MARKER + "x" * 8192}]}),
        "/agents/members/0/persona",
    ),
    "an id with a control character": (
        with_fields(agents={"members": [{"id": f"{MARKER}\x1b[31m", "persona": "p"}]}),
        "/agents/members/0/id",
    ),
    "metadata that is no text": (with_fields(metadata={"a": 1}), "/metadata/a"),
    "33 entries of metadata": (with_fields(metadata={str(n): "x" for n in range(33)}), "/metadata"),
    "a seed of 65 bits": (with_fields(seed=2**64), "/seed"),
    "more values than anyone needs": (with_fields(metadata={"a": [0] * 30_000}), ""),
}


@pytest.mark.parametrize(("body", "pointer"), UNUSABLE.values(), ids=UNUSABLE.keys())
def test_what_cannot_be_run_is_422_and_points_at_the_field(server: RunningServer, body: bytes, pointer: str) -> None:
    answer = post_refused(server, body)
    assert answer.status == 422
    assert pointer in {error["pointer"] for error in answer.document["errors"]}


def test_every_bad_field_is_pointed_at(server: RunningServer) -> None:
    answer = post_refused(server, with_fields(seed="x", limits={"max_attempts": "y"}, surprise=1))
    assert {error["pointer"] for error in answer.document["errors"]} == {"/seed", "/limits/max_attempts", "/surprise"}


def test_a_flood_of_unknown_fields_gets_a_short_answer(server: RunningServer) -> None:
    answer = post_refused(server, with_fields(**{f"f{number}": 0 for number in range(15_000)}))
    assert answer.document["further_errors"] > 10_000


@pytest.mark.parametrize(
    "content_type", ["", "text/plain", "application/xml", "multipart/form-data", "application/json; charset=utf-16"]
)
def test_what_is_not_sent_as_json_is_415(server: RunningServer, content_type: str) -> None:
    answer = post_refused(server, with_fields(), content_type=content_type)
    assert (answer.status, answer.problem) == (415, "unsupported-media-type")


HARMLESS = {
    "markup": "<script>alert(1)</script><img src=x onerror=alert(1)>",
    "SQL": "'; DROP TABLE deliberations; --",
    "controls": "bell \x07 escape \x1b[2J delete \x7f",
    "right to left": "\u202egnihtemos\u202c",
    "astral": "🏛️ 👩‍👩‍👧 𝔘𝔫𝔦𝔠𝔬𝔡𝔢",
    "a template": "{{7*7}} ${jndi:ldap://x} %s %n {0.__class__}",
    "a very long word": "x" * 32_000,
    "separators": "a\u2028b\u2029c\r\ndata: forged\n\nevent: forged",
    "noncharacters": "\ufffe\uffff\U0010ffff",
}


@pytest.mark.parametrize("text", HARMLESS.values(), ids=HARMLESS.keys())
def test_text_is_data_and_comes_back_as_it_was(server: RunningServer, text: str) -> None:
    body = {
        "question": text,
        "answer": {"kind": "choice", "options": [text[:200], "another"]},
        "agents": {"members": [{"id": "a", "persona": text[:2000]}]},
        "metadata": {text[:200]: text[:200]},
    }
    answer = server.post(body, query="?wait=30")
    assert answer.status == 200
    assert answer.document["question"] == text
    assert answer.document["answer"]["options"][0] == text[:200]
    assert answer.document["metadata"] == {text[:200]: text[:200]}
    with server.events(f"{answer.headers['location']}/events") as stream:
        assert b"\nevent: forged" not in stream.read()


def test_a_body_of_exactly_a_mebibyte_is_read(server: RunningServer) -> None:
    body = with_fields(agents={"count": 1})
    assert server.post(body + b" " * (LIMIT - len(body)), query="?wait=30").status == 200


def test_a_byte_more_is_413(server: RunningServer) -> None:
    answer = post_refused(server, b" " * (LIMIT + 1))
    assert (answer.status, answer.problem) == (413, "body-too-large")


def test_a_chunked_byte_more_is_413(server: RunningServer) -> None:
    head = b"POST /v1/deliberations HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    chunk = b"10000\r\n" + b" " * 65536 + b"\r\n"
    raw = server.send_raw(head + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk * 17 + b"0\r\n\r\n")
    assert raw.startswith(b"HTTP/1.1 413 ")


def test_200_megabytes_are_refused_at_once_and_never_held() -> None:
    with server_process() as server:
        assert server.ask("GET", "/healthz").status == 200
        before = server.rss_bytes
        size = 200 * MIB
        head = f"POST /v1/deliberations HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {size}\r\n\r\n"
        with server.connect() as connection:
            connection.sendall(head.encode())
            assert connection.recv(65536).startswith(b"HTTP/1.1 413 ")
            with suppress(BrokenPipeError, ConnectionResetError):
                for _ in range(size // MIB):
                    connection.sendall(b"x" * MIB)
                assert server.ask("GET", "/healthz").status == 200
        assert server.rss_bytes - before < 8 * MIB


def test_200_megabytes_of_unknown_length_are_cut_off_and_never_held() -> None:
    with server_process() as server:
        assert server.ask("GET", "/healthz").status == 200
        before = server.rss_bytes
        head = b"POST /v1/deliberations HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        received = b""
        with server.connect() as connection:
            connection.sendall(head)
            with suppress(BrokenPipeError, ConnectionResetError):
                for _ in range(200):
                    connection.sendall(b"100000\r\n" + b"x" * MIB + b"\r\n")
                connection.sendall(b"0\r\n\r\n")
            received = read_all(connection)
        assert received.startswith(b"HTTP/1.1 413 ")
        assert server.rss_bytes - before < 16 * MIB


def test_an_ordinary_client_that_sends_too_much_still_reads_why(server: RunningServer) -> None:
    assert server.post(b"x" * (20 * MIB)).problem == "body-too-large"


def test_a_half_sent_body_runs_out_of_time(server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.rest.bodies.BODY_TIMEOUT_S", 0.2)
    raw = server.send_raw(
        b"POST /v1/deliberations HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n{"
    )
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


def test_a_connection_too_many_is_closed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with running_server() as server, server.connect() as first, server.connect() as second:
        for connection in (first, second):
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
        monkeypatch.setattr("api.rest.connection.MAX_CONNECTIONS", 2)
        assert server.send_raw(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n") == b""


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


def test_whoever_asks_before_sending_is_refused_without_sending(server: RunningServer) -> None:
    with server.connect() as connection:
        connection.sendall(
            b"POST /v1/deliberations HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: 9999999\r\nExpect: 100-continue\r\n\r\n"
        )
        assert connection.recv(65536).startswith(b"HTTP/1.1 413 ")
