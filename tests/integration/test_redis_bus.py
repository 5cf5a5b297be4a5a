"""What only the Redis transport can meet: a server that dies, is full, forgets or holds foreign things, and connections that are cut."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any, cast
from urllib.parse import urlsplit

import pytest

from application.ports.message_bus import Message, Priority
from domain.errors.bus import BusClosedError, BusUnavailableError, InboxFullError, NameTakenError, UnknownAgentError
from domain.errors.configuration import ConfigurationError
from infrastructure.buses import redis_presence
from infrastructure.buses.redis_bus import RedisMessageBus
from infrastructure.buses.redis_control import RedisControl
from infrastructure.buses.redis_presence import RedisPresence
from infrastructure.buses.redis_wire import RedisWire
from tests.patience import eventually_in_loop
from tests.servers.redis import RedisServer

# However busy the machine: what takes longer than this never happens.
PATIENCE_S = 60.0
PLACE = "conclave:bus:{conclave}:"


@pytest.fixture(autouse=True)
def enough_time() -> Iterator[None]:
    """A run that hangs says where."""
    import faulthandler

    faulthandler.dump_traceback_later(4 * PATIENCE_S)
    yield
    faulthandler.cancel_dump_traceback_later()


@pytest.fixture
async def bus(redis_url: str) -> AsyncIterator[RedisMessageBus]:
    async with RedisMessageBus(redis_url, patience_s=PATIENCE_S) as one:
        yield one


@pytest.fixture
async def other(redis_url: str) -> AsyncIterator[RedisMessageBus]:
    """A second object on the same place, as another process has it."""
    async with RedisMessageBus(redis_url, patience_s=PATIENCE_S) as one:
        yield one


def message(number: int = 0, *, to: str = "a", sender: str = "s", **more: Any) -> Message:
    return Message(sender, to, "number", number, **more)


async def received(bus: RedisMessageBus, number: int, *, name: str = "a") -> list[Any]:
    found: list[Any] = []
    async with asyncio.timeout(PATIENCE_S):
        while len(found) < number:
            found += [each.payload for each in await bus.receive_many(name, number - len(found))]
    return found


async def test_a_message_from_another_object_wakes_the_receiver(bus: RedisMessageBus, other: RedisMessageBus) -> None:
    await bus.register("a")
    waiting = asyncio.create_task(bus.receive("a", timeout=PATIENCE_S))
    await other.send(message(7))
    assert (await waiting).payload == 7


async def test_sends_that_were_begun_together_arrive_in_the_order_of_their_calls(
    bus: RedisMessageBus, other: RedisMessageBus
) -> None:
    await bus.register("a")
    await asyncio.gather(*(other.send(message(number)) for number in range(1_000)))
    assert await received(bus, 1_000) == list(range(1_000))


async def test_senders_that_wait_for_room_are_let_in_by_another_object_and_keep_their_order(
    bus: RedisMessageBus, other: RedisMessageBus
) -> None:
    await bus.register("a", capacity=3)
    sending = [asyncio.create_task(other.send(message(number), timeout=PATIENCE_S)) for number in range(50)]
    assert await received(bus, 50) == list(range(50))
    await asyncio.gather(*sending)


async def test_one_full_inbox_holds_up_nobody_else(bus: RedisMessageBus) -> None:
    await bus.register("full", capacity=1)
    await bus.register("a")
    await bus.send(message(0, to="full"))
    stuck = asyncio.create_task(bus.send(message(1, to="full"), timeout=PATIENCE_S))
    assert await asyncio.wait_for(bus.send(message(2)), PATIENCE_S)
    assert not stuck.done()
    assert await received(bus, 2, name="full") == [0, 1]
    await stuck


async def test_of_those_that_wait_for_room_the_more_urgent_come_in_first(
    bus: RedisMessageBus, other: RedisMessageBus
) -> None:
    await bus.register("a", capacity=1)
    await bus.send(message(0))
    waiting = []
    for number, priority in ((1, Priority.LOW), (2, Priority.HIGH), (3, Priority.LOW), (4, Priority.HIGH)):
        waiting.append(asyncio.create_task(other.send(message(number, priority=priority), timeout=PATIENCE_S)))
        await asyncio.sleep(0)
    with pytest.raises(InboxFullError):
        await other.send(message(5), timeout=0)
    assert await received(bus, 5) == [0, 2, 4, 1, 3]
    await asyncio.gather(*waiting)


async def test_nobody_acts_for_an_agent_of_another_living_object(bus: RedisMessageBus, other: RedisMessageBus) -> None:
    await bus.register("a", acknowledge="manual")
    for act in (
        other.receive("a", timeout=PATIENCE_S),
        other.acknowledge("a", "id"),
        other.join("a", "group"),
        other.leave("a", "group"),
        other.unregister("a"),
        other.register("a"),
    ):
        with pytest.raises(NameTakenError):
            await act


async def test_hundreds_of_calls_at_once_need_no_more_than_a_few_connections(
    bus: RedisMessageBus, redis_server: RedisServer
) -> None:
    for number in range(300):
        await bus.register(f"a{number}")
    waits = [asyncio.create_task(bus.receive(f"a{number}")) for number in range(300)]
    await asyncio.gather(*(bus.send(message(number, to=f"a{number}")) for number in range(300)))
    assert [one.payload for one in await asyncio.gather(*waits)] == list(range(300))


async def test_a_message_to_all_need_not_say_to_whom(bus: RedisMessageBus, other: RedisMessageBus) -> None:
    await bus.register("a")
    await other.register("b")
    assert await bus.broadcast(Message("a", "", "news", 1)) == 1
    found = await other.receive("b", timeout=PATIENCE_S)
    assert (found.sender, found.recipient, found.payload) == ("a", "", 1)


async def test_two_namespaces_are_two_buses(bus: RedisMessageBus, redis_url: str) -> None:
    async with RedisMessageBus(redis_url, "elsewhere") as elsewhere:
        await bus.register("a")
        with pytest.raises(UnknownAgentError):
            await elsewhere.send(message())
        assert await bus.dead_letters() == []


@pytest.mark.parametrize("mode", ["auto", "manual"])
async def test_what_cancelled_receivers_had_taken_is_delivered_once_and_in_its_place(
    bus: RedisMessageBus, other: RedisMessageBus, mode: str
) -> None:
    await bus.register("a", acknowledge=mode)
    choice = random.Random(6)
    found: list[Message] = []

    async def sends() -> None:
        for first in range(0, 400, 10):
            await other.send_many([message(number) for number in range(first, first + 10)])

    sending = asyncio.create_task(sends())
    async with asyncio.timeout(PATIENCE_S):
        while len(found) < 400:
            task = asyncio.create_task(bus.receive_many("a", choice.randint(1, 15)))
            for _ in range(choice.randint(0, 12)):
                await asyncio.sleep(0)
            if choice.random() < 0.7:
                task.cancel()
            with suppress(asyncio.CancelledError):
                found += await task
    await sending
    assert [(one.payload, one.attempt) for one in found] == [(number, 1) for number in range(400)]
    if mode == "manual":
        assert await bus.acknowledge("a", *(one.id for one in found)) == 400
    stats = await bus.stats()
    assert (stats.delivered, stats.redelivered, stats.acknowledged, stats.queued) == (400, 0, 400, {"a": 0})


async def test_what_is_queued_when_an_object_closes_waits_for_the_next_one(
    bus: RedisMessageBus, redis_url: str
) -> None:
    first = RedisMessageBus(redis_url)
    await first.register("a")
    await bus.send(message(1))
    await first.close()
    await bus.send(message(2))
    await bus.register("a")
    assert await received(bus, 2) == [1, 2]


async def test_what_was_on_its_way_to_a_receiver_when_the_bus_closed_is_not_lost(
    bus: RedisMessageBus, redis_url: str
) -> None:
    first = RedisMessageBus(redis_url)
    await first.register("a")
    for number in range(20):
        await bus.send(message(number))
    waiting = asyncio.create_task(first.receive_many("a", 20))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await first.close()
    with pytest.raises(BusClosedError):
        await waiting
    await bus.register("a")
    assert await received(bus, 20) == list(range(20))


# A server that is away, dies or was told to forget


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


# Streams and groups that others took away or wrote to


async def test_a_group_that_was_destroyed_is_made_again_and_what_was_unacknowledged_comes_again(
    bus: RedisMessageBus, redis_server: RedisServer
) -> None:
    await bus.register("a", acknowledge="manual")
    for number in range(4):
        await bus.send(message(number))
    assert [one.payload for one in await bus.receive_many("a", 2)] == [0, 1]
    assert redis_server.command("XGROUP", "DESTROY", f"{PLACE}s:a:1", "g") == ":1"
    taken = await bus.receive_many("a", 10, timeout=PATIENCE_S)
    assert [one.payload for one in taken] == [0, 1, 2, 3]
    assert await bus.acknowledge("a", *(one.id for one in taken)) == 4
    stats = await bus.stats()
    assert (stats.queued, stats.dropped) == ({"a": 0}, 0)


async def test_a_run_that_was_unacknowledged_when_the_group_was_destroyed_comes_again(
    bus: RedisMessageBus, redis_server: RedisServer
) -> None:
    await bus.register("a", acknowledge="manual")
    await bus.send_many([message(number) for number in range(4)])
    assert len(await bus.receive_many("a", 10)) == 4
    redis_server.command("XGROUP", "DESTROY", f"{PLACE}s:a:1", "g")
    await bus.send_many([message(number) for number in range(4, 6)])
    taken = await bus.receive_many("a", 10, timeout=PATIENCE_S)
    assert [one.payload for one in taken] == list(range(6))
    assert await bus.acknowledge("a", *(one.id for one in taken)) == 6
    stats = await bus.stats()
    assert (stats.queued, stats.dropped) == ({"a": 0}, 0)


async def test_an_opened_run_does_not_miss_the_group_that_was_destroyed(
    bus: RedisMessageBus, redis_server: RedisServer
) -> None:
    await bus.register("a", acknowledge="manual")
    await bus.send_many([message(number) for number in range(4)])
    first = await bus.receive_many("a", 2)
    redis_server.command("XGROUP", "DESTROY", f"{PLACE}s:a:1", "g")
    await bus.send(message(4))
    taken = await bus.receive_many("a", 10, timeout=PATIENCE_S)
    assert [one.payload for one in [*first, *taken]] == list(range(5))
    assert await bus.acknowledge("a", *(one.id for one in [*first, *taken])) == 5
    stats = await bus.stats()
    assert (stats.queued, stats.dropped) == ({"a": 0}, 0)


async def test_a_stream_that_was_deleted_is_counted_and_the_inbox_goes_on(
    bus: RedisMessageBus, redis_server: RedisServer
) -> None:
    await bus.register("a")
    await bus.send_many([message(number) for number in range(5)])
    assert redis_server.command("DEL", f"{PLACE}s:a:1") == ":1"
    await bus.send(message(6))
    assert await received(bus, 1) == [6]
    stats = await bus.stats()
    assert (stats.dropped, stats.queued) == (5, {"a": 0})


async def test_an_inbox_that_was_full_when_its_stream_was_deleted_has_room_again(
    bus: RedisMessageBus, redis_server: RedisServer
) -> None:
    await bus.register("a", capacity=2)
    await bus.send_many([message(number) for number in range(2)])
    redis_server.command("DEL", f"{PLACE}s:a:1")
    waiting = asyncio.create_task(bus.receive("a"))
    await bus.send(message(3), timeout=PATIENCE_S)
    assert (await asyncio.wait_for(waiting, PATIENCE_S)).payload == 3


async def test_an_inbox_whose_record_was_deleted_is_put_back_with_what_its_stream_holds(
    bus: RedisMessageBus, redis_server: RedisServer
) -> None:
    await bus.register("a")
    await bus.send_many([message(number) for number in range(3)])
    redis_server.command("DEL", f"{PLACE}a:a")
    assert await received(bus, 3) == [0, 1, 2]
    await bus.send(message(3))
    assert await received(bus, 1) == [3]


async def test_foreign_entries_in_a_stream_are_counted_and_hold_nobody_up(
    bus: RedisMessageBus, redis_server: RedisServer
) -> None:
    await bus.register("a")
    await bus.send(message(1))
    redis_server.command("XADD", f"{PLACE}s:a:1", "*", "d", "poison")
    redis_server.command("XADD", f"{PLACE}s:a:1", "*", "who", "knows")
    await bus.send(message(2))
    assert await received(bus, 2) == [1, 2]
    stats = await bus.stats()
    assert (stats.corrupt, stats.queued) == (2, {"a": 0})


async def test_a_foreign_key_where_a_stream_should_be_stops_that_inbox_and_no_other(
    bus: RedisMessageBus, redis_server: RedisServer
) -> None:
    await bus.register("a")
    await bus.register("b")
    redis_server.command("SET", f"{PLACE}s:a:1", "mine")
    with pytest.raises(BusUnavailableError, match="Delete that key"):
        await bus.send(message(1))
    await bus.send(message(2, to="b"))
    assert await received(bus, 1, name="b") == [2]
    redis_server.command("DEL", f"{PLACE}s:a:1")
    await bus.send(message(3))
    assert await received(bus, 1) == [3]


async def test_a_clock_that_is_set_back_delays_a_redelivery_by_no_more_than_its_time(redis_url: str) -> None:
    now = 2_000_000.0
    async with RedisMessageBus(redis_url, visibility_s=30.0, wall_clock=lambda: now) as bus:
        await bus.register("a", acknowledge="manual")
        await bus.send(message(1))
        await bus.receive("a")
        now = 1_000_000.0
        await bus.send(message(2))
        assert (await bus.receive("a")).payload == 2
        now += 31.0
        again = await bus.receive_many("a", 2, timeout=PATIENCE_S)
        assert [(one.payload, one.attempt) for one in again] == [(1, 2), (2, 2)]


# Connections that are cut


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


# What is left of a bus that nobody uses any more

FADING = """
local found, shortest, longest = {}, 1e15, -1
for _, one in ipairs(redis.call('KEYS', ARGV[1] .. '*')) do
  local left = redis.call('PTTL', one)
  if left == -1 then found[#found + 1] = string.sub(one, #ARGV[1] + 1)
  else shortest, longest = math.min(shortest, left), math.max(longest, left) end
end
table.sort(found)
return {ok = shortest / 1000 .. ' ' .. longest / 1000 .. ' ' .. table.concat(found, ' ')}
"""
HOUR_S, WEEK_S = 3_600.0, 604_800.0


def fading(server: RedisServer) -> tuple[float, float, list[str]]:
    """Seconds that the keys have which go soonest and last, and the keys that stay."""
    shortest, longest, *staying = server.command("EVAL", FADING, "0", PLACE).removeprefix("+").split()
    return float(shortest), float(longest), staying


async def test_a_bus_without_inboxes_is_gone_an_hour_after_its_last_object_closed(
    redis_server: RedisServer, redis_url: str
) -> None:
    async with RedisMessageBus(redis_url) as bus:
        await bus.register("a", acknowledge="manual")
        await bus.join("a", "group")
        await bus.send_many([message(number) for number in range(3)])
        await bus.acknowledge("a", *(one.id for one in await bus.receive_many("a", 3)))
        await bus.unregister("a")
    shortest, longest, staying = fading(redis_server)
    assert staying == []
    assert HOUR_S - PATIENCE_S < shortest <= longest <= HOUR_S


async def test_dead_letters_without_an_inbox_can_be_read_for_a_week(redis_server: RedisServer, redis_url: str) -> None:
    async with RedisMessageBus(redis_url) as bus:
        await bus.register("a")
        await bus.send(message(1))
        await bus.unregister("a")
    shortest, longest, staying = fading(redis_server)
    assert staying == []
    assert WEEK_S - PATIENCE_S < shortest <= longest <= WEEK_S


async def test_nothing_of_a_bus_with_an_inbox_fades_when_its_last_object_closes(
    redis_server: RedisServer, redis_url: str
) -> None:
    async with RedisMessageBus(redis_url) as bus:
        await bus.register("a")
        await bus.send(message(1))
        with pytest.raises(UnknownAgentError):
            await bus.send(message(2, to="ghost"))
    assert fading(redis_server)[2] == ["a:a", "agents", "born", "dead", "s:a:1", "stats"]


async def test_nothing_fades_of_a_bus_that_has_an_inbox_again(redis_server: RedisServer, redis_url: str) -> None:
    async with RedisMessageBus(redis_url) as first:
        await first.register("a")
        await first.send(message(1))
        await first.unregister("a")
    async with RedisMessageBus(redis_url) as second:
        await second.register("b")
        assert fading(redis_server)[2] == ["a:b", "agents", "born", "dead", "stats"]
        assert (await second.stats()).sent == 1


async def test_an_object_that_closes_takes_nothing_from_one_that_lives(
    bus: RedisMessageBus, redis_server: RedisServer, redis_url: str
) -> None:
    await bus.register("a")
    async with RedisMessageBus(redis_url) as visitor:
        await visitor.register("b")
        await visitor.unregister("b")
        await visitor.send(message(1))
    assert fading(redis_server)[2] == ["a:a", "agents", "born", "s:a:1", "stats"]


async def test_an_object_that_only_looks_leaves_nothing_for_ever_even_if_it_is_killed(
    bus: RedisMessageBus, redis_server: RedisServer
) -> None:
    assert (await bus.stats()).queued == {}
    assert fading(redis_server)[2] == []


async def test_what_would_fade_soon_has_its_whole_time_again_when_an_object_opens(
    redis_server: RedisServer, redis_url: str
) -> None:
    async with RedisMessageBus(redis_url) as first:
        await first.stats()
    redis_server.command("EXPIRE", f"{PLACE}born", "600")
    async with RedisMessageBus(redis_url) as second:
        await second.stats()
        left_ms = int(redis_server.command("PTTL", f"{PLACE}born").removeprefix(":"))
    assert left_ms / 1e3 > HOUR_S - PATIENCE_S


async def test_a_beat_that_meets_the_end_of_its_bus_ends_quietly(monkeypatch: pytest.MonkeyPatch) -> None:
    class Ending:
        beats = 0

        async def listen(self, told: Callable[[bytes], None], began: Callable[[], Awaitable[None]]) -> None:
            await began()

        async def ask(self, *words: str | int) -> bytes:
            self.beats += 1
            if self.beats > 1:
                raise BusClosedError(transport="redis")
            return b"born 1"

    monkeypatch.setattr(redis_presence, "_BEAT_S", 0.0)
    ending = Ending()
    presence = RedisPresence(
        cast("RedisWire", ending),
        cast("RedisControl", ending),
        told=lambda kind, name: None,
        missed=lambda: None,
        looked=lambda: None,
    )
    await presence.open()
    async with asyncio.timeout(PATIENCE_S):
        await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()})
    assert ending.beats == 2
