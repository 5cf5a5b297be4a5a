"""What the limiter costs a call: alone, and with 72 in flight while 720 wait, beside a semaphore and other limiters.

python -m benchmarks.limiter [--repetitions 15] [--out FILE]

`aiolimiter` (a leaky bucket) and `limits` (a moving window, with which one asks again until there is room) take part where they
are installed; neither keeps places in flight, counts tokens, hears the provider, or is fair.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Awaitable, Callable
from importlib.util import find_spec
from pathlib import Path

from benchmarks.measurement import Contender, alternate, report
from infrastructure.event_loop import run
from infrastructure.orchestrators.provider_limiter import Allowance, ProviderLimiter

IN_FLIGHT = 72
WAITING = 720
BATCHES = 11
ROUNDS = 10
HEADERS = {
    "x-ratelimit-remaining-requests": "999999",
    "x-ratelimit-reset-requests": "60ms",
    "x-ratelimit-remaining-tokens": "99999999",
    "x-ratelimit-reset-tokens": "60ms",
}

Call = Callable[[int], Awaitable[None]]


async def answer() -> None:
    """The far end: another turn of the loop."""
    await asyncio.sleep(0)


def ours(*, deadline: bool = True, headers: dict[str, str] | None = None) -> Call:
    """All limits kept, none of the minute's reached."""
    limiter = ProviderLimiter("model", Allowance(IN_FLIGHT, 1_000_000, 1_000_000_000, 1 << 40))

    async def call(number: int) -> None:
        until = asyncio.get_running_loop().time() + 1800 if deadline else None
        place = await limiter.enter(1500, group="key", batch=f"{number % BATCHES}", until=until, reply_bytes=1 << 20)
        await answer()
        place.leave(400, headers=headers)

    return call


def semaphore() -> Call:
    """Places in flight, and nothing else."""
    places = asyncio.Semaphore(IN_FLIGHT)

    async def call(_: int) -> None:
        async with places:
            await answer()

    return call


def aiolimiter() -> Call:
    """Requests a minute by a leaky bucket that never fills, and a semaphore for the places in flight."""
    from aiolimiter import AsyncLimiter

    places, bucket = asyncio.Semaphore(IN_FLIGHT), AsyncLimiter(1e9, 60)

    async def call(_: int) -> None:
        async with places, bucket:
            await answer()

    return call


def limits() -> Call:
    """Requests a minute by a moving window in memory, and a semaphore for the places in flight."""
    from limits import RateLimitItemPerMinute
    from limits.aio.storage import MemoryStorage
    from limits.aio.strategies import MovingWindowRateLimiter

    places, window = asyncio.Semaphore(IN_FLIGHT), MovingWindowRateLimiter(MemoryStorage())
    limit = RateLimitItemPerMinute(1_000_000)

    async def call(_: int) -> None:
        async with places:
            while not await window.hit(limit, "model"):  # noqa: ASYNC110 - as its manual has it
                await asyncio.sleep(0.05)
            await answer()

    return call


def crowd(make: Callable[[], Call]) -> Callable[[], Awaitable[object]]:
    """792 calls at once, so that 720 wait at first."""

    async def once() -> None:
        call = make()
        await asyncio.gather(*(call(number) for number in range(IN_FLIGHT + WAITING)))

    return once


def alone(make: Callable[[], Call]) -> Callable[[], Awaitable[object]]:
    """71 calls at once, ten times, so that nobody ever waits."""

    async def once() -> None:
        call = make()
        for _ in range(ROUNDS):
            await asyncio.gather(*(call(number) for number in range(IN_FLIGHT)))

    return once


async def main(repetitions: int, out: Path | None) -> None:
    """Alternate all of them, once without a crowd and once in it."""
    makers: dict[str, Callable[[], Call]] = {
        "asyncio.Semaphore": semaphore,
        "Conclave, no deadline": lambda: ours(deadline=False),
        "Conclave": ours,
        "Conclave, reading headers": lambda: ours(headers=HEADERS),
    }
    if find_spec("aiolimiter"):
        makers["aiolimiter and a semaphore"] = aiolimiter
    if find_spec("limits"):
        makers["limits and a semaphore"] = limits
    for title, way, calls in (
        (f"{IN_FLIGHT} in flight, nobody waits", alone, IN_FLIGHT * ROUNDS),
        (f"{IN_FLIGHT} in flight, {WAITING} wait", crowd, IN_FLIGHT + WAITING),
    ):
        contenders = [Contender(name, way(make)) for name, make in makers.items()]
        await alternate(contenders, repetitions=repetitions)
        report(title, contenders, agents=calls, ideal_ms=0, out=out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=15)
    parser.add_argument("--out", type=Path, help="append the results to this file, one JSON document a line")
    arguments = parser.parse_args()
    run(main(arguments.repetitions, arguments.out))
