"""Both flavours of the Python client behind one face, so that every promise is asked of both, and a clock that pauses move."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, Protocol

from conclave_client import AsyncConclave, Conclave

__all__ = ["FLAVOURS", "Clock", "Flavour", "opened"]

FLAVOURS = ("blocking", "awaiting")


@dataclass
class Clock:
    """Seconds that pass when somebody pauses, and only then."""

    now: float = 0.0
    pauses: list[float] = field(default_factory=list)

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds

    async def sleep_in_loop(self, seconds: float) -> None:
        self.sleep(seconds)


class Flavour(Protocol):
    """A client, whose calls are named as in `runs.start`."""

    def call(self, name: str, *args: Any, **more: Any) -> Any:
        """What the call comes to."""
        ...

    def each(self, name: str, *args: Any, **more: Any) -> Iterator[Any]:
        """What the call brings, one after the other; left early, it is closed."""
        ...


@dataclass
class _Blocking:
    client: Conclave

    def call(self, name: str, *args: Any, **more: Any) -> Any:
        return attrgetter(name)(self.client)(*args, **more)

    def each(self, name: str, *args: Any, **more: Any) -> Iterator[Any]:
        found: Iterator[Any] = attrgetter(name)(self.client)(*args, **more)
        return found


@dataclass
class _Awaiting:
    client: AsyncConclave
    runner: asyncio.Runner

    def call(self, name: str, *args: Any, **more: Any) -> Any:
        return self.runner.run(attrgetter(name)(self.client)(*args, **more))

    def each(self, name: str, *args: Any, **more: Any) -> Iterator[Any]:
        found = attrgetter(name)(self.client)(*args, **more)

        async def following() -> Any:
            return await anext(found)

        try:
            while True:
                yield self.runner.run(following())
        except StopAsyncIteration:
            return
        finally:
            self.runner.run(found.aclose())


@contextmanager
def opened(flavour: str, url: str, *, clock: Clock | None = None, **options: Any) -> Iterator[Flavour]:
    """A client of that flavour, on `clock` or on the real one."""
    if flavour == "blocking":
        if clock is not None:
            options |= {"sleep": clock.sleep, "monotonic": clock.monotonic}
        with Conclave(url, **options) as blocking:
            yield _Blocking(blocking)
        return
    if clock is not None:
        options |= {"sleep": clock.sleep_in_loop, "monotonic": clock.monotonic}
    with asyncio.Runner() as runner:
        awaiting = AsyncConclave(url, **options)
        try:
            yield _Awaiting(awaiting, runner)
        finally:
            runner.run(awaiting.aclose())
