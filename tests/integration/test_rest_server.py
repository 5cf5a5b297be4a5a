"""The server as a process: where it binds, how it stops on a signal, and what it weighs."""

from __future__ import annotations

import asyncio
import signal
import socket
import statistics
import time
from typing import Any

import pytest

from api.main import RestServer, serve
from application.ports.deliberation_repository import Page
from domain.errors.configuration import ConfigurationError
from domain.errors.dependency import DependencyUnavailableError
from tests.conclave_fixture import open_stub_conclave, read_events, server_process

KEYS = "root:admin:root-secret-1"
EXIT_S = 20.0


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
async def test_without_keys_it_binds_to_loopback_only(host: str) -> None:
    async with open_stub_conclave() as conclave:
        with pytest.raises(ConfigurationError) as caught:
            RestServer(conclave, host=host, port=0)
        assert "CONCLAVE_API_KEYS" in str(caught.value)


async def test_with_keys_it_binds_where_it_is_told() -> None:
    async with open_stub_conclave(keys=KEYS) as conclave:
        server = RestServer(conclave, host="0.0.0.0", port=0)
        server.close()


async def test_a_port_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        async with open_stub_conclave() as conclave:
            with pytest.raises(ConfigurationError, match=str(port)):
                RestServer(conclave, port=port)


async def test_a_host_that_does_not_exist_is_named() -> None:
    async with open_stub_conclave() as conclave:
        with pytest.raises(ConfigurationError, match="--host"):
            RestServer(conclave, host="256.256.256.256", port=0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_it_and_leaves_the_conclave_to_its_owner(number: signal.Signals) -> None:
    async with open_stub_conclave() as conclave:

        def interrupt(_urls: tuple[str, ...]) -> None:
            asyncio.get_running_loop().call_soon(signal.raise_signal, number)

        before = signal.getsignal(number)
        assert await serve(conclave, port=0, on_listening=interrupt) is number
        assert signal.getsignal(number) is before
        assert conclave.deliberations.is_stopping


@pytest.mark.parametrize("away", [False, True])
async def test_the_newest_deliberation_is_read_before_anybody_can_ask_and_a_store_that_is_away_is_no_obstacle(
    away: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[object] = []
    async with open_stub_conclave() as conclave:
        page = conclave.deliberations.page

        async def read(**asked: Any) -> Page:
            seen.append(asked["limit"])
            if away:
                raise DependencyUnavailableError(dependency="database", problem="it is gone")
            return await page(**asked)

        def listens(urls: tuple[str, ...]) -> None:
            seen.append(len(urls))
            asyncio.get_running_loop().call_soon(signal.raise_signal, signal.SIGTERM)

        monkeypatch.setattr(conclave.deliberations, "page", read)
        await serve(conclave, port=0, on_listening=listens)
    assert seen == [1, 1]


def test_sigterm_with_open_streams_and_hanging_agents_exits_in_time() -> None:
    with server_process("--hanging", "72", "--drain", "1") as server:
        deliberation = server.post({"question": "Shall we?"}).document
        path = f"/v1/deliberations/{deliberation['id']}/events"
        with server.events(path) as first, server.events(path) as second, server.connect() as idle:
            idle.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert idle.recv(65536).startswith(b"HTTP/1.1 200 ")
            began = time.monotonic()
            server.process.send_signal(signal.SIGTERM)
            events = [read_events(stream) for stream in (first, second)]
            assert server.process.wait(EXIT_S) == 0
            assert time.monotonic() - began < EXIT_S
        assert all(event[0]["event"] == "deliberation.queued" for event in events)
        assert server.process.stdout is not None
        assert server.process.stdout.read().strip() == "15"


def test_a_second_signal_does_not_wait() -> None:
    with server_process("--hanging", "72", "--drain", "1") as server:
        server.post({"question": "Shall we?"})
        with server.connect() as half:
            half.sendall(b"POST /v1/deliberations HTTP/1.1\r\nHost: localhost\r\n")
            server.process.send_signal(signal.SIGTERM)
            server.process.send_signal(signal.SIGTERM)
            assert server.process.wait(EXIT_S) == 0


def test_small_answers_are_not_held_back_to_be_sent_with_more() -> None:
    with server_process() as server, server.connect() as connection:
        took = []
        for _ in range(21):
            began = time.monotonic()
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            received = b""
            while not received.endswith(b'{"status":"ok"}'):
                received += connection.recv(65536)
            took.append(time.monotonic() - began)
        # Nagle's algorithm against a delayed acknowledgement costs 40 ms at the least.
        assert statistics.median(took) < 0.03


def test_a_hundred_deliberations_of_72_stay_small() -> None:
    with server_process() as server:
        body = {"question": "Should the city centre be closed to private cars?"}
        for _ in range(20):
            assert server.post(body, query="?wait=30").status == 200
        early = server.rss_bytes
        for _ in range(80):
            assert server.post(body, query="?wait=30").status == 200
        assert server.rss_bytes < 150 * 1024 * 1024
        assert server.rss_bytes - early < 60 * 1024 * 1024
