"""Connections of the Redis bus: one that runs scripts, one at a time, and one that hears what is published."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING

from infrastructure.buses.redis_scripts import Script

if TYPE_CHECKING:
    from redis.asyncio import ConnectionPool
    from redis.asyncio.connection import AbstractConnection

__all__ = ["LineLostError", "RedisLine", "RefusedError", "StrangeAnswerError", "heard"]


class LineLostError(Exception):
    """The connection ended, or nothing came over it in time: whether the script ran is not known."""


class RefusedError(Exception):
    """The server answered with an error, so the script did not run; the text is its own."""


class StrangeAnswerError(Exception):
    """What came is nothing that this script answers with."""


class RedisLine:
    """Opens again what was lost with the next call. What is cancelled in the middle is hung up, so no answer meets another's question.

    The client library connects (addresses, TLS, passwords); scripts and their answers pass it by, because its own way takes four times as
    long for each.
    """

    def __init__(self, pool: ConnectionPool, *, answer_s: float) -> None:
        self._pool = pool
        self._answer_s = answer_s
        self._connection: AbstractConnection | None = None

    async def run(self, script: Script, key: str, arguments: tuple[bytes | str | int, ...]) -> bytes:
        """The script's answer. Raises the three errors above, and what the client library does when it connects."""
        try:
            return await self._ask("EVALSHA", script.digest, 1, key, *arguments)
        except RefusedError as error:
            if not str(error).startswith("NOSCRIPT"):
                raise
        await self._ask("SCRIPT", "LOAD", script.text)
        return await self._ask("EVALSHA", script.digest, 1, key, *arguments)

    async def hang_up(self) -> None:
        """Drop the connection, if there is one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.disconnect(nowait=True)

    async def _ask(self, *words: bytes | str | int) -> bytes:
        if self._connection is None:
            self._connection = await _connected(self._pool)
        reader, writer = _streams(self._connection)
        whole = False
        try:
            async with asyncio.timeout(self._answer_s):
                writer.write(_packed(words))
                answer = await _answer(reader)
            whole = True
        except TimeoutError as error:
            raise LineLostError("no answer in time") from error
        except (OSError, EOFError) as error:
            raise LineLostError(str(error)) from error
        except RefusedError:
            whole = True
            raise
        finally:
            if not whole:
                await self.hang_up()
        return answer


async def heard(pool: ConnectionPool, channel: str) -> AsyncGenerator[bytes | None, None]:
    """What is published to a channel, after None when there is somebody to hear it. Raises as `RedisLine.run` does."""
    connection = await _connected(pool)
    try:
        reader, writer = _streams(connection)
        writer.write(_packed(("SUBSCRIBE", channel)))
        while True:
            line = await _line(reader)
            if line != b"*3":
                raise StrangeAnswerError(line[:40])
            kind, _, said = await _answer(reader), await _answer(reader), await _answer(reader)
            if kind == b"subscribe":
                yield None
            elif kind == b"message":
                yield said
    except (OSError, EOFError) as error:
        raise LineLostError(str(error)) from error
    finally:
        await connection.disconnect(nowait=True)


async def _connected(pool: ConnectionPool) -> AbstractConnection:
    connection: AbstractConnection = pool.make_connection()  # type: ignore[no-untyped-call]
    await connection.connect()  # type: ignore[no-untyped-call]
    return connection


def _streams(connection: AbstractConnection) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    # The library has no other name for them; which of its versions may be used is pinned.
    reader, writer = connection._reader, connection._writer
    if reader is None or writer is None:
        raise LineLostError("hung up")
    return reader, writer


def _packed(words: tuple[bytes | str | int, ...]) -> bytes:
    parts = [b"*%d\r\n" % len(words)]
    for word in words:
        raw = word if isinstance(word, bytes) else str(word).encode()
        parts.append(b"$%d\r\n%b\r\n" % (len(raw), raw))
    return b"".join(parts)


async def _answer(reader: asyncio.StreamReader) -> bytes:
    line = await _line(reader)
    kind = line[:1]
    if kind == b":":
        return line[1:]
    if kind != b"$" or line[1:2] == b"-":
        raise StrangeAnswerError(line[:40])
    return (await reader.readexactly(int(line[1:]) + 2))[:-2]


async def _line(reader: asyncio.StreamReader) -> bytes:
    line = await reader.readline()
    if not line.endswith(b"\r\n"):
        raise EOFError("closed")
    if line.startswith(b"-"):
        raise RefusedError(line[1:-2].decode(errors="replace"))
    return line[:-2]
