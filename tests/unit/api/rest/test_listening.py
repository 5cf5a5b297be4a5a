"""A server within a block: it answers in there, stops with it, and says why where it never began."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from api.bootstrap.demonstration import open_demonstration
from api.rest.server import HttpServer, listening


def server() -> HttpServer:
    async def hello(_request: Request) -> PlainTextResponse:
        return PlainTextResponse("here")

    return HttpServer(Starlette(routes=[Route("/", hello)]), host="127.0.0.1", port=0, local_only=True, hang_up_s=1)


async def test_within_it_the_server_answers_and_afterwards_nobody_does() -> None:
    async with listening(server()) as address:
        port = int(address.rpartition(":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n")
        assert (await reader.read()).endswith(b"here")
        writer.close()
        await writer.wait_closed()
    with socket.socket() as other:
        assert other.connect_ex(("127.0.0.1", port)) != 0


async def test_what_is_raised_within_it_comes_out_once_the_server_has_stopped() -> None:
    other = server()
    with pytest.raises(KeyError, match="odd"):
        async with listening(other):
            raise KeyError("odd")
    with pytest.raises(OSError, match=r"closed|descriptor"):
        _ = other.urls


async def broken(self: HttpServer, *, on_listening: Callable[[tuple[str, ...]], None] | None = None) -> None:
    self.close()
    raise OSError("too many open files")


async def test_a_server_that_never_answers_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HttpServer, "run", broken)
    with pytest.raises(OSError, match="too many open files"):
        async with listening(server()):
            raise AssertionError


async def test_a_demonstration_whose_far_end_never_answers_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(HttpServer, "run", broken)
    with pytest.raises(OSError, match="too many open files"):
        async with open_demonstration(tmp_path, seconds=0.0):
            raise AssertionError
