"""A Redis that is away, refuses, restarts, is full or has forgotten, and connections to it that are cut."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit

import pytest

from application.ports.message_bus import Priority
from domain.errors.bus import BusUnavailableError, UnknownAgentError
from domain.errors.configuration import ConfigurationError
from infrastructure.buses.redis_bus import RedisMessageBus
from tests.integration.redis_buses import message, received
from tests.patience import PATIENCE_S, eventually_in_loop
from tests.servers.redis import RedisServer


async def test_a_redis_that_is_away_is_said_so_and_what_to_do(redis_server: RedisServer, redis_url: str) -> None:
    redis_server.kill()
    bus = RedisMessageBus(redis_url, patience_s=0.2)
    with pytest.raises(BusUnavailableError, match="Check that it runs") as caught:
        await bus.register("a")
    assert (urlsplit(redis_url).password or redis_url) not in str(caught.value)
    await bus.close()


async def test_a_wrong_password_is_not_tried_again_and_not_repeated(redis_server: RedisServer, redis_url: str) -> None:
    bus = RedisMessageBus(f"redis://:wrong-one@127.0.0.1:{redis_server.port}/0", patience_s=10 * PATIENCE_S)
    with pytest.raises(BusUnavailableError, match="password") as caught:
        await asyncio.wait_for(bus.register("a"), PATIENCE_S)
    assert "wrong-one" not in str(caught.value)
    await bus.close()


@pytest.mark.parametrize(
    "url", ["nonsense", "http://127.0.0.1/secret", "redis://127.0.0.1:port", "redis://127.0.0.1/0?protocol=3"]
)
def test_an_address_that_cannot_be_used_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        RedisMessageBus(url)
    assert url not in str(caught.value)


async def test_what_is_queued_outlives_a_restart_and_who_waits_goes_on_waiting(
    bus: RedisMessageBus, other: RedisMessageBus, redis_server: RedisServer
) -> None:
    await bus.register("a")
    await bus.register("b")
    await other.send(message(1))
    waiting = asyncio.create_task(bus.receive("b"))
    redis_server.restart()
    await other.send(message(2, to="b"))
    assert (await asyncio.wait_for(waiting, PATIENCE_S)).payload == 2
    assert await received(bus, 1) == [1]


async def test_names_groups_and_receivers_come_back_to_a_redis_that_forgot_everything(
    bus: RedisMessageBus, other: RedisMessageBus, redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    await bus.register("a", acknowledge="manual")
    await bus.join("a", "group")
    waiting = asyncio.create_task(bus.receive("a"))
    await asyncio.sleep(0)
    redis_server.flush()

    async def is_back() -> bool:
        try:
            await other.send(message(3, to="group"))
        except UnknownAgentError:
            return False
        return True

    with caplog.at_level(logging.WARNING):
        await eventually_in_loop(is_back)
    assert (await asyncio.wait_for(waiting, PATIENCE_S)).payload == 3
    assert "put back" in caplog.text


async def test_a_full_redis_takes_no_messages_says_so_and_still_hands_out(
    bus: RedisMessageBus, redis_server: RedisServer
) -> None:
    await bus.register("a")
    await bus.register("m", acknowledge="manual")
    await bus.send_many([message(number, to=name) for name in ("a", "m") for number in range(3)])
    redis_server.command("CONFIG", "SET", "maxmemory", "1")
    try:
        with pytest.raises(BusUnavailableError, match="full"):
            await bus.send(message(99))
        assert await received(bus, 3) == [0, 1, 2]
        taken = await bus.receive_many("m", 3, timeout=PATIENCE_S)
        assert await bus.acknowledge("m", *(one.id for one in taken)) == 3
    finally:
        redis_server.command("CONFIG", "SET", "maxmemory", "0")
    await bus.send(message(4))
    assert await received(bus, 1) == [4]
    assert (await bus.stats()).sent == 7


class Cutter:
    """A way to the server that swallows the next answers it is told to swallow, and hangs up instead."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.swallow = 0
        self.swallowed = 0

    async def start(self) -> int:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        there, back = await asyncio.open_connection("127.0.0.1", self._port)
        asking = asyncio.create_task(self._pass(reader, back))
        try:
            while data := await there.read(65_536):
                if self.swallow and data.startswith(b"$"):
                    self.swallow -= 1
                    self.swallowed += 1
                    break
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            asking.cancel()
            back.close()
            writer.close()
            self._tasks.discard(task)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()


@asynccontextmanager
async def cut_off(server: RedisServer) -> AsyncIterator[tuple[RedisMessageBus, Cutter]]:
    """A bus whose way to the server can be cut."""
    cutter = Cutter(server.port)
    port = await cutter.start()
    url = server.url().replace(f":{server.port}/", f":{port}/")
    try:
        async with RedisMessageBus(url, patience_s=PATIENCE_S) as bus:
            yield bus, cutter
    finally:
        await cutter.close()


async def test_a_send_whose_answer_was_lost_is_not_sent_twice(
    bus: RedisMessageBus, redis_server: RedisServer, redis_url: str
) -> None:
    await bus.register("a")
    async with cut_off(redis_server) as (unlucky, cutter):
        await unlucky.stats()
        for number in range(20):
            cutter.swallow = 1
            await unlucky.send(message(number, priority=Priority.HIGH))
        assert cutter.swallowed >= 15
    assert await received(bus, 20) == list(range(20))
    assert (await bus.stats()).queued == {"a": 0}


async def test_what_was_taken_when_the_answer_was_lost_is_handed_out_all_the_same(
    bus: RedisMessageBus, redis_server: RedisServer, redis_url: str
) -> None:
    async with cut_off(redis_server) as (unlucky, cutter):
        await unlucky.register("a")
        await bus.send_many([message(number) for number in range(20)])
        found = []
        for _ in range(20):
            cutter.swallow = 1
            found.append((await unlucky.receive("a")).payload)
        assert found == list(range(20))
        assert cutter.swallowed >= 15
        cutter.swallow = 0


async def test_a_subscription_that_was_cut_costs_no_wake_up(
    bus: RedisMessageBus, other: RedisMessageBus, redis_server: RedisServer
) -> None:
    await bus.register("a")
    waiting = asyncio.create_task(bus.receive("a"))
    await other.stats()
    for number in range(5):
        redis_server.command("CLIENT", "KILL", "TYPE", "pubsub")
        await other.send(message(number))
        assert (await asyncio.wait_for(waiting, PATIENCE_S)).payload == number
        waiting = asyncio.create_task(bus.receive("a"))
    waiting.cancel()
