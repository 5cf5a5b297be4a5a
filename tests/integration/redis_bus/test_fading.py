"""What is left in Redis of a bus that nobody uses any more, and for how long."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import cast

import pytest

from domain.errors.bus import BusClosedError, UnknownAgentError
from infrastructure.buses import redis_presence
from infrastructure.buses.redis_bus import RedisMessageBus
from infrastructure.buses.redis_control import RedisControl
from infrastructure.buses.redis_presence import RedisPresence
from infrastructure.buses.redis_wire import RedisWire
from tests.integration.redis_buses import PLACE, message
from tests.patience import PATIENCE_S
from tests.servers.redis import RedisServer

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
