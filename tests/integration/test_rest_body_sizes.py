"""A body that is too large is refused at once and never held in memory."""

from __future__ import annotations

from contextlib import suppress

from tests.conclave_fixture import RunningServer, read_all, server_process
from tests.integration.rest_refusals import post_refused, with_fields

LIMIT = 1024 * 1024
MIB = 1024 * 1024


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


def test_whoever_asks_before_sending_is_refused_without_sending(server: RunningServer) -> None:
    with server.connect() as connection:
        connection.sendall(
            b"POST /v1/deliberations HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: 9999999\r\nExpect: 100-continue\r\n\r\n"
        )
        assert connection.recv(65536).startswith(b"HTTP/1.1 413 ")
