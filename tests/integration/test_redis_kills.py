"""SIGKILL of a sender, of a receiver and of the server in the middle of many messages over Redis: what was promised is counted."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import multiprocessing
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from typing import Any

import pytest

from application.ports.message_bus import Message
from domain.errors.bus import NameTakenError
from infrastructure.buses.redis_bus import RedisMessageBus
from tests.patience import eventually_in_loop
from tests.servers.redis import RedisServer

_log = logging.getLogger(__name__)

# However busy the machine: what takes longer than this never happens.
PATIENCE_S = 120.0
BATCH = 100
ROOM = 1_000_000


@pytest.fixture
async def bus(redis_url: str) -> AsyncIterator[RedisMessageBus]:
    async with RedisMessageBus(redis_url, patience_s=PATIENCE_S) as one:
        yield one


def numbers(first: int, name: str) -> list[Message]:
    return [Message("s", name, "number", at) for at in range(first, first + BATCH)]


async def take_over(bus: RedisMessageBus, name: str, mode: str) -> None:
    """Register a name as soon as its dead owner's time is over."""

    async def is_free() -> bool:
        try:
            await bus.register(name, acknowledge=mode)
        except NameTakenError:
            return False
        return True

    await eventually_in_loop(is_free)


async def rest_of(bus: RedisMessageBus, name: str) -> list[Message]:
    left = (await bus.stats()).queued[name]
    found: list[Message] = []
    async with asyncio.timeout(PATIENCE_S):
        while len(found) < left:
            found += await bus.receive_many(name, BATCH)
    return found


@contextmanager
def started(target: Callable[..., None], *arguments: Any) -> Iterator[BaseProcess]:
    process = multiprocessing.get_context("spawn").Process(target=target, args=arguments, daemon=True)
    process.start()
    try:
        yield process
    finally:
        process.kill()
        process.join()


def counter() -> Any:
    """A number that outlives the process that counts."""
    return multiprocessing.get_context("spawn").Value(ctypes.c_longlong, 0)


def _send(url: str, number: int, sent: Any) -> None:
    async def send() -> None:
        async with RedisMessageBus(url) as bus:
            for first in range(0, number, BATCH):
                await bus.send_many(numbers(first, "a"))
                sent.value = first + BATCH

    asyncio.run(send())


async def test_a_sender_killed_in_the_middle_has_sent_what_it_was_told_of_and_leaves_no_gap(
    bus: RedisMessageBus, redis_url: str, sized: Callable[[int, int], int]
) -> None:
    number, sent = sized(10_000, 100_000), counter()
    await bus.register("a", capacity=ROOM)
    with started(_send, redis_url, number, sent) as process:

        async def is_halfway() -> bool:
            return int(sent.value) >= number // 2

        await eventually_in_loop(is_halfway)
        process.kill()
        process.join()
        told = int(sent.value)
    found = [one.payload for one in await rest_of(bus, "a")]
    _log.info(f"{number} messages, sender killed when told of {told}: {len(found)} received")
    assert found == list(range(len(found)))
    assert len(found) in (told, told + BATCH)
    assert (await bus.stats()).sent == len(found)


def _take(url: str, ready: Any, by_hand: Any, at_once: Any) -> None:
    """Two agents of one process: one acknowledges by hand, the other by taking, and each counts what it has dealt with."""

    async def take() -> None:
        bus = RedisMessageBus(url)

        async def acknowledging() -> None:
            while True:
                some = await bus.receive_many("m", BATCH)
                by_hand.value += await bus.acknowledge("m", *(one.id for one in some))

        async def taking() -> None:
            while True:
                at_once.value += len(await bus.receive_many("a", BATCH))

        await bus.register("m", capacity=ROOM, acknowledge="manual")
        await bus.register("a", capacity=ROOM)
        ready.set()
        await asyncio.gather(acknowledging(), taking())

    asyncio.run(take())


async def test_a_receiver_killed_in_the_middle_loses_no_more_than_it_had_taken_at_once_and_nothing_by_hand(
    bus: RedisMessageBus, redis_url: str, sized: Callable[[int, int], int]
) -> None:
    number, by_hand, at_once = sized(5_000, 100_000), counter(), counter()
    ready = multiprocessing.get_context("spawn").Event()
    with started(_take, redis_url, ready, by_hand, at_once) as process:
        assert await asyncio.to_thread(ready.wait, PATIENCE_S)

        async def send_all() -> None:
            for first in range(0, number, BATCH):
                await bus.send_many([*numbers(first, "m"), *numbers(first, "a")])

        async def is_halfway() -> bool:
            return min(int(by_hand.value), int(at_once.value)) >= number // 3

        sending = asyncio.create_task(send_all())
        await eventually_in_loop(is_halfway)
        with pytest.raises(NameTakenError):
            await bus.register("m")
        process.kill()
        process.join()
        await sending
        dealt_with, taken = int(by_hand.value), int(at_once.value)
    await take_over(bus, "m", "manual")
    await take_over(bus, "a", "auto")
    again = await rest_of(bus, "m")
    assert await bus.acknowledge("m", *(one.id for one in again)) == len(again)
    left = [one.payload for one in await rest_of(bus, "a")]
    attempts = Counter(one.attempt for one in again)
    _log.info(
        f"{number} messages each, receiver killed when told of {dealt_with} acknowledged and {taken} taken: by hand {len(again)} "
        f"came to the next owner, {attempts[2]} of them again, none lost; at once {number - taken - len(left)} lost"
    )
    # Acknowledged and not told of at most one batch; all else is here, in order, and once.
    assert [one.payload for one in again] == list(range(number - len(again), number))
    assert dealt_with <= number - len(again) <= dealt_with + BATCH
    assert [one.attempt for one in again] == [2] * attempts[2] + [1] * (len(again) - attempts[2])
    assert attempts[2] <= BATCH
    assert left == list(range(number - len(left), number))
    assert 0 <= number - taken - len(left) <= BATCH
    stats = await bus.stats()
    assert (stats.sent, stats.acknowledged, stats.redelivered) == (2 * number, 2 * number, attempts[2])
    assert stats.queued == {"a": 0, "m": 0}


@pytest.mark.parametrize("mode", ["auto", "manual"])
async def test_a_server_killed_in_the_middle_of_a_flood_loses_nothing_and_repeats_nothing(
    bus: RedisMessageBus, redis_server: RedisServer, redis_url: str, mode: str, sized: Callable[[int, int], int]
) -> None:
    number, sent = sized(4_000, 100_000), 0
    await bus.register("a", acknowledge=mode)

    async def send_all(other: RedisMessageBus) -> None:
        nonlocal sent
        for first in range(0, number, BATCH):
            await other.send_many(numbers(first, "a"))
            sent = first + BATCH

    async def take_all() -> list[Any]:
        found: list[Any] = []
        while len(found) < number:
            some = await bus.receive_many("a", BATCH)
            found += [one.payload for one in some]
            if mode == "manual":
                assert await bus.acknowledge("a", *(one.id for one in some)) == len(some)
        return found

    async with RedisMessageBus(redis_url, patience_s=PATIENCE_S) as other:
        sending, taking = asyncio.create_task(send_all(other)), asyncio.create_task(take_all())

        async def is_halfway() -> bool:
            return sent >= number // 3

        await eventually_in_loop(is_halfway)
        redis_server.kill()
        at = sent
        redis_server.start()
        async with asyncio.timeout(PATIENCE_S):
            await sending
            found = await taking
    stats = await bus.stats()
    _log.info(
        f"{number} messages, {mode}, server killed when {at} were sent: {len(found)} received, {stats.redelivered} again"
    )
    assert found == list(range(number))
    assert (stats.sent, stats.delivered, stats.acknowledged, stats.redelivered) == (number, number, number, 0)
    assert (stats.queued, stats.dropped, stats.dead_letters) == ({"a": 0}, 0, 0)
