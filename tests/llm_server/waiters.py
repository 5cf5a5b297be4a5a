"""Lets a test wait for a count instead of sleeping: `GET /_wait` is answered when what it names has come."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tests.llm_server.connection import Connection, Exchange
from tests.llm_server.reply import Reply, json_reply, refusal

LONGEST_WAIT_SECONDS = 600.0


@dataclass(slots=True, eq=False)
class Waiter:
    """One client that waits, and the bounds it waits for."""

    connection: Connection
    exchange: Exchange
    bounds: Mapping[str, float]
    timer: asyncio.TimerHandle | None = None


class Waiters:
    """Answers each waiter once: as soon as all of its bounds hold at the same moment, or when its time is up.

    `reached` gives the present value of every bound that may be named; names end in `_at_least` or `_at_most`.
    """

    def __init__(self, *, reached: Callable[[], Mapping[str, float]], stats: Callable[[], Mapping[str, Any]]) -> None:
        self._reached = reached
        self._stats = stats
        self._waiters: list[Waiter] = []

    def add(self, connection: Connection, exchange: Exchange) -> None:
        """Answer now if the bounds of the query hold, refuse unknown ones, else keep the client waiting."""
        known = (*self._reached(), "timeout_seconds")
        bounds: dict[str, float] = {}
        for name, value in exchange.head.query.items():
            try:
                bounds[name] = float(value)
            except ValueError:
                connection.answer(exchange, refusal(f"{name} is {value!r}: give a number"))
                return
            if name not in known:
                connection.answer(exchange, refusal(f"{name!r} is no bound: choose from {', '.join(known)}"))
                return
        timeout = min(bounds.pop("timeout_seconds", 5.0), LONGEST_WAIT_SECONDS)
        waiter = Waiter(connection=connection, exchange=exchange, bounds=bounds)
        if self._holds(waiter):
            connection.answer(exchange, self._told(met=True))
            return
        waiter.timer = asyncio.get_running_loop().call_later(timeout, self._answer, waiter)
        self._waiters.append(waiter)
        connection.defer(when_lost=lambda: self._forget(waiter))

    def look(self) -> None:
        """Answer every waiter whose bounds hold by now."""
        for waiter in [each for each in self._waiters if self._holds(each)]:
            self._answer(waiter)

    def _holds(self, waiter: Waiter) -> bool:
        reached = self._reached()
        return all(
            reached[name] <= bound if name.endswith("_at_most") else reached[name] >= bound
            for name, bound in waiter.bounds.items()
        )

    def _answer(self, waiter: Waiter) -> None:
        met = self._holds(waiter)
        self._forget(waiter)
        waiter.connection.answer(waiter.exchange, self._told(met=met))

    def _forget(self, waiter: Waiter) -> None:
        if waiter in self._waiters:
            self._waiters.remove(waiter)
        if waiter.timer is not None:
            waiter.timer.cancel()

    def _told(self, *, met: bool) -> Reply:
        return json_reply({**self._stats(), "met": met})
