"""What processes promise each other that share the limits of a model over Redis: held against a real one, killed and back."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, closing

import pytest

from domain.errors.agent import AgentInvocationError
from domain.errors.configuration import ConfigurationError
from domain.errors.dependency import DependencyUnavailableError
from infrastructure.orchestrators.provider_limiter import Allowance, Place, ProviderLimiter
from infrastructure.orchestrators.redis_pacing import RedisPacing
from infrastructure.orchestrators.shared_pacing import Asking
from tests.patience import eventually_in_loop
from tests.servers.redis import RedisServer

MODEL = "openai/small {x}"
# What takes part in a test is done in a fraction of this; a machine that is busy may need it.
PATIENCE_S = 5.0


def allowance(*, requests: int | None = 10, tokens: int | None = None, share: float = 0.5) -> Allowance:
    return Allowance(72, requests, tokens, share=share)


@asynccontextmanager
async def limiter(url: str, limits: Allowance, *, window_s: float = 60.75) -> AsyncIterator[ProviderLimiter]:
    """As a process has it, with connections of its own."""
    pacing = RedisPacing(url, patience_s=PATIENCE_S, window_s=window_s)
    one = ProviderLimiter(MODEL, limits, shared=pacing)
    try:
        yield one
    finally:
        await one.close()
        await pacing.close()


def calls(one: ProviderLimiter, number: int, *, tokens: int = 1) -> list[asyncio.Task[Place]]:
    return [asyncio.create_task(one.enter(tokens, group="key", batch="batch")) for _ in range(number)]


async def become(is_so: Callable[[], bool]) -> None:
    """Until something is so that no event tells of."""

    async def now() -> bool:
        return is_so()

    await eventually_in_loop(now)


async def settled(*limiters: ProviderLimiter, granted: int, waits: list[asyncio.Task[Place]]) -> int:
    """How many of those have leave, once at least `granted` have and all limiters know that the rest has to wait."""

    def done() -> int:
        return sum(task.done() for task in waits)

    await become(lambda: done() >= granted and done() + sum(one.state.waiting for one in limiters) == len(waits))
    return done()


async def given_up(waits: list[asyncio.Task[Place]]) -> None:
    for task in waits:
        task.cancel()
    await asyncio.gather(*waits, return_exceptions=True)


async def test_two_limiters_share_one_limit(redis_url: str) -> None:
    async with limiter(redis_url, allowance()) as one, limiter(redis_url, allowance()) as other:
        waits = calls(one, 8) + calls(other, 8)
        assert await settled(one, other, granted=10, waits=waits) == 10
        await given_up(waits)


async def test_no_window_holds_more_than_the_limit_over_both(redis_url: str) -> None:
    window_s, loop = 0.5, asyncio.get_running_loop()
    went: list[float] = []

    async def agent(one: ProviderLimiter) -> None:
        await one.enter(1, group="key", batch="batch")
        went.append(loop.time())

    async with AsyncExitStack() as stack:
        both = [await stack.enter_async_context(limiter(redis_url, allowance(), window_s=window_s)) for _ in range(2)]
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.gather(*(agent(one) for one in both for _ in range(10)))
    # By this clock calls may be closer together than by Redis', by what an answer takes.
    assert [late - early >= window_s / 2 for early, late in zip(went, went[10:], strict=False)] == [True] * 10


async def test_a_lone_process_may_use_the_whole_limit_whatever_its_share(redis_url: str) -> None:
    async with limiter(redis_url, allowance(share=0.1)) as one:
        waits = calls(one, 12)
        assert await settled(one, granted=10, waits=waits) == 10
        assert one.state.shared is True
        await given_up(waits)


async def test_tokens_are_shared_and_what_was_not_used_is_given_back_to_all(redis_url: str) -> None:
    limits = allowance(requests=None, tokens=1000)
    async with limiter(redis_url, limits) as one, limiter(redis_url, limits) as other:
        place = await one.enter(900, group="key", batch="batch")
        wait = calls(other, 1, tokens=500)
        assert await settled(other, granted=0, waits=wait) == 0
        place.leave(100)
        async with asyncio.timeout(PATIENCE_S):
            await wait[0]


async def test_a_pause_of_one_is_the_pause_of_all(redis_url: str) -> None:
    async with limiter(redis_url, allowance()) as one, limiter(redis_url, allowance()) as other:
        (await one.enter(1, group="key", batch="batch")).leave(0, throttled=True, retry_after_s=600)
        wait = calls(one, 1)
        await settled(one, granted=0, waits=wait)
        with pytest.raises(AgentInvocationError) as caught:
            await other.enter(1, group="key", batch="batch", until=asyncio.get_running_loop().time() + 60)
        assert caught.value.kind == "throttled"
        assert other.state.paused_s > 500
        await given_up(wait)


async def test_leave_that_nobody_used_is_returned(redis_url: str) -> None:
    async with limiter(redis_url, allowance(requests=1)) as one:
        task = asyncio.create_task(one.enter(1, group="key", batch="batch"))
        await asyncio.sleep(0)  # it has asked, and is gone before the answer
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with asyncio.timeout(PATIENCE_S):
            await one.enter(1, group="key", batch="batch")


async def test_an_open_socket_that_says_nothing_costs_a_quarter_of_a_second_and_no_more() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        pacing = RedisPacing(f"redis://127.0.0.1:{silent.getsockname()[1]}/0")
        loop = asyncio.get_running_loop()
        began = loop.time()
        with pytest.raises(DependencyUnavailableError):
            await pacing.ask(MODEL, Asking(1, None, calls=[(1, 1)]))
        assert loop.time() - began < 2
        await pacing.close()


async def test_without_redis_each_keeps_to_its_share_at_once_and_says_so_once(
    redis_server: RedisServer, redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    redis_server.kill()
    with caplog.at_level(logging.INFO):
        async with limiter(redis_url, allowance(share=0.5)) as one, limiter(redis_url, allowance(share=0.2)) as other:
            waits = calls(one, 8) + calls(other, 8)
            assert await settled(one, other, granted=7, waits=waits) == 7
            assert (one.state.shared, other.state.shared) == (False, False)
            await given_up(waits)
    assert len([record for record in caplog.records if record.levelno >= logging.WARNING]) == 2


async def test_redis_killed_and_back_is_told_what_went_out_meanwhile(redis_server: RedisServer, redis_url: str) -> None:
    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(limiter(redis_url, allowance(share=0.5)))
        other = await stack.enter_async_context(limiter(redis_url, allowance(share=0.5)))
        waits = calls(one, 2) + calls(other, 2)
        assert await settled(one, other, granted=4, waits=waits) == 4
        redis_server.kill()
        more = calls(one, 6)
        # Five are its share, and two of them it has used.
        assert await settled(one, granted=3, waits=more) == 3
        redis_server.start()
        redis_server.flush()  # as one that writes nothing down
        await become(lambda: one.state.shared is True)
        async with limiter(redis_url, allowance()) as newcomer:
            waits = calls(newcomer, 8)
            # The other asked nobody since, and so did not notice: its two calls are not known to this Redis.
            granted = await settled(newcomer, one, granted=4, waits=[*waits, *more])
            assert granted - 3 == 10 - 5
            await given_up([*waits, *more])


async def test_a_clock_that_was_set_back_holds_nobody_up_for_longer_than_a_window(
    redis_server: RedisServer, redis_url: str
) -> None:
    ahead = 4_000_000_000_000_000
    redis_server.command("ZADD", "conclave:pace:{openai%2Fsmall%20%7Bx%7D}:sent", str(ahead), "old:1")
    redis_server.command("HSET", "conclave:pace:{openai%2Fsmall%20%7Bx%7D}:facts", "=pause", str(ahead))
    async with asyncio.timeout(4 * PATIENCE_S):
        pacing = RedisPacing(redis_url, patience_s=PATIENCE_S)
        leave = await pacing.ask(MODEL, Asking(1, None))
        assert leave.pause_s <= 86_400
        redis_server.command("HDEL", "conclave:pace:{openai%2Fsmall%20%7Bx%7D}:facts", "=pause")
        leave = await pacing.ask(MODEL, Asking(1, None, calls=[(1, 1)]))
        assert leave.granted == 0
        assert leave.wait_s <= 61
        await pacing.close()


async def test_what_counts_is_gone_from_redis_two_windows_later(redis_server: RedisServer, redis_url: str) -> None:
    pacing = RedisPacing(redis_url, patience_s=PATIENCE_S)
    await pacing.ask(MODEL, Asking(10, 10, calls=[(1, 1)]))
    for key in ("sent", "facts"):
        left = int(redis_server.command("PTTL", f"conclave:pace:{{openai%2Fsmall%20%7Bx%7D}}:{key}")[1:])
        assert 0 < left <= 122_000
    await pacing.close()


@pytest.mark.parametrize("url", ["nonsense", "http://127.0.0.1/secret", "redis://127.0.0.1:port"])
def test_an_address_that_cannot_be_used_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        RedisPacing(url)
    assert url not in str(caught.value)


def _take(url: str, number: int) -> int:
    async def take() -> int:
        async with limiter(url, allowance(requests=40)) as one:
            waits = calls(one, number)
            granted = await settled(one, granted=0, waits=waits)
            await given_up(waits)
            return granted

    return asyncio.run(take())


def test_processes_of_their_own_share_one_limit_too(redis_url: str) -> None:
    with multiprocessing.get_context("spawn").Pool(2) as processes:
        granted = processes.starmap(_take, [(redis_url, 30), (redis_url, 30)])
    assert sum(granted) == 40
