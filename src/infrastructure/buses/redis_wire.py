"""The connections of a Redis bus: scripts that are repeated without being done twice, and notes that arrive by themselves."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING

from domain.errors.bus import BusClosedError, BusUnavailableError
from domain.errors.configuration import ConfigurationError
from infrastructure.buses.redis_line import LineLostError, RedisLine, RefusedError, StrangeAnswerError, heard
from infrastructure.buses.redis_scripts import script
from infrastructure.redis_pool import REDIS_VARIABLE, pool_at

if TYPE_CHECKING:
    from redis.asyncio import ConnectionPool

__all__ = ["RedisWire"]

_log = logging.getLogger(__name__)

_ANSWER_S = 10.0
_FIRST_PAUSE_S = 0.02
_LONGEST_PAUSE_S = 0.5
_NOT_LET_IN = ("AuthenticationError", "AuthenticationWrongNumberOfArgsError", "AuthorizationError", "NoPermissionError")
# A server that starts, or waits for another to become the primary, answers so.
_COMING = ("LOADING", "MASTERDOWN", "TRYAGAIN")


class RedisWire:
    """Runs scripts for one bus object; one whose answer was lost is asked for again, and the server then repeats the answer.

    What cannot be reached is tried again for `patience_s`, then `BusUnavailableError` says what to do. Nothing is retried that the
    server refused.
    """

    def __init__(self, url: str, *, prefix: str, instance: str, patience_s: float) -> None:
        """Connects with the first call. Raises `ConfigurationError` for an address that cannot be used."""
        from redis.asyncio import ConnectionPool
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff

        # It only makes connections, of which an object has five: one for each script, and one that hears.
        pool = pool_at(
            url,
            ConnectionPool.from_url,
            # In the newer protocol a server may say things that nobody asked for.
            protocol=2,
            socket_timeout=_ANSWER_S,
            socket_connect_timeout=2.0,
            socket_keepalive=True,
            retry=Retry(NoBackoff(), 0),
        )
        if pool.connection_kwargs["protocol"] != 2:
            raise ConfigurationError(
                variable=REDIS_VARIABLE,
                problem="asks for another protocol than 2",
                remedy="Leave that out.",
            )
        self._pool: ConnectionPool = pool
        self._prefix = prefix
        self._instance = instance
        self._patience_s = patience_s
        self._lines: dict[str, RedisLine] = {}
        self._numbers: dict[str, int] = {}
        self._closing = False

    async def run(self, name: str, arguments: Sequence[bytes | str | int], now: str = "") -> bytes:
        """Run a script with its next number; none is run twice at once. Raises `BusUnavailableError` and `BusClosedError`."""
        from redis.exceptions import (
            AuthenticationError,
            AuthorizationError,
            ConnectionError,  # noqa: A004 - the vendor's
            RedisError,
            TimeoutError,  # noqa: A004 - the vendor's
        )

        line = self._lines.get(name)
        if line is None:
            line = self._lines[name] = RedisLine(self._pool, answer_s=_ANSWER_S)
        number = self._numbers[name] = self._numbers.get(name, 0) + 1
        loop = asyncio.get_running_loop()
        until, pause_s, again = loop.time() + self._patience_s, _FIRST_PAUSE_S, "0"
        while True:
            try:
                return await line.run(
                    script(name), self._prefix, (self._instance, name, number, again, now, *arguments)
                )
            except RefusedError as refused:
                if not str(refused).startswith(_COMING):
                    raise self._refused(refused, str(refused)) from None
                error: Exception = refused
            except StrangeAnswerError as strange:
                raise BusUnavailableError(
                    transport="redis",
                    problem="it answers in another way than Redis 7 or Valkey",
                    remedy="Use one of these.",
                ) from strange
            except (AuthenticationError, AuthorizationError) as refused:
                raise self._refused(refused, str(refused)) from refused
            except (LineLostError, ConnectionError, TimeoutError, OSError) as lost:
                error = lost
            except RedisError as refused:
                raise self._refused(refused, str(refused)) from refused
            again = "1"
            if self._closing or loop.time() + pause_s > until:
                raise self._away(error) from error
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    async def listen(self, told: Callable[[bytes], None], began: Callable[[], Awaitable[None]]) -> None:
        """Hand over what is published for this object, for ever; `began` is awaited each time that it can be heard (again)."""
        from redis.exceptions import RedisError

        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                async with aclosing(heard(self._pool, f"{self._prefix}to:{self._instance}")) as all_notes:
                    async for one in all_notes:
                        if one is None:
                            pause_s = _FIRST_PAUSE_S
                            await began()
                        else:
                            told(one)
            except (RedisError, OSError, LineLostError, RefusedError, StrangeAnswerError) as error:
                _log.info("the bus does not hear its Redis: %s", type(error).__name__)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def hurry(self) -> None:
        """From now on nothing is tried again."""
        self._closing = True

    async def close(self) -> None:
        """Drop the connections. May be called twice."""
        self._closing = True
        for line in self._lines.values():
            await line.hang_up()

    def _away(self, error: Exception) -> Exception:
        if self._closing:
            return BusClosedError(transport="redis")
        late = isinstance(error.__cause__, TimeoutError) or type(error).__name__ == "TimeoutError"
        problem = "Redis does not answer in time" if late else "Redis cannot be reached"
        return BusUnavailableError(
            transport="redis",
            problem=f"{problem} and was tried for {self._patience_s:g} s",
            remedy="Check that it runs, and what the address says.",
        )

    def _refused(self, error: Exception, text: str) -> BusUnavailableError:
        # Its own messages name hosts, ports and keys, which are not for everybody.
        if text.startswith("OOM") or "OOM" in text[:40] or "maxmemory" in text:
            problem, remedy = (
                "Redis is full and takes no more messages",
                "Raise its maxmemory, or let agents receive and acknowledge, which still works.",
            )
        elif text.startswith(("READONLY", "You can't write against a read only")):
            problem, remedy = "this Redis is a replica that takes no writes", "Use the address of the primary."
        elif type(error).__name__ in _NOT_LET_IN or text.startswith(("NOAUTH", "WRONGPASS", "NOPERM")):
            problem, remedy = "Redis refuses the user or the password", "Check both in the address."
        elif text.startswith("MISCONF"):
            problem, remedy = "Redis cannot write to its disk", "Make room there, or look at its log."
        else:
            problem, remedy = (
                f"Redis refuses the step ({text.partition(' ')[0] if isinstance(error, RefusedError) else type(error).__name__})",
                "It has to be Redis 7 or Valkey, with no keys of others under the bus' prefix.",
            )
        return BusUnavailableError(transport="redis", problem=problem, remedy=remedy)
