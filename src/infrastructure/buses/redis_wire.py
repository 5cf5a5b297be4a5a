"""The connection of a Redis bus: scripts that are repeated without being done twice, and notes that arrive by themselves."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from hashlib import sha1
from typing import TYPE_CHECKING, Any, cast

from domain.errors.bus import BusClosedError, BusUnavailableError
from domain.errors.configuration import ConfigurationError

if TYPE_CHECKING:
    from redis.asyncio import BlockingConnectionPool, Redis

__all__ = ["RedisWire", "Script"]

_log = logging.getLogger(__name__)

_CONNECTIONS = 8
_ANSWER_S = 10.0
_FIRST_PAUSE_S = 0.02
_LONGEST_PAUSE_S = 0.5
_NOT_LET_IN = ("AuthenticationError", "AuthenticationWrongNumberOfArgsError", "AuthorizationError", "NoPermissionError")


class Script:
    """A Lua script and the name under which a server keeps it."""

    __slots__ = ("digest", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        # The server's own way to name scripts; it protects nothing.
        self.digest = sha1(text.encode(), usedforsecurity=False).hexdigest()


class RedisWire:
    """Runs scripts for one bus object; one whose answer was lost is asked for again, and the server then repeats the answer.

    What cannot be reached is tried again for `patience_s`, then `BusUnavailableError` says what to do. Nothing is retried that the
    server refused.
    """

    def __init__(self, url: str, *, prefix: str, instance: str, patience_s: float) -> None:
        """Connects with the first call. Raises `ConfigurationError` for an address that cannot be used."""
        from redis.asyncio import BlockingConnectionPool, Redis
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff

        try:
            # Waits for one of its few connections, where the usual pool would raise.
            pool = BlockingConnectionPool.from_url(
                url,
                max_connections=_CONNECTIONS,
                timeout=patience_s,
                socket_timeout=_ANSWER_S,
                socket_connect_timeout=2.0,
                socket_keepalive=True,
                retry=Retry(NoBackoff(), 0),
            )
        except (ValueError, TypeError):
            # The vendor's error repeats what was given, and that may hold a password.
            raise ConfigurationError(
                variable="CONCLAVE_REDIS_URL",
                problem="is no address of a Redis",
                remedy="Use redis://HOST:PORT/0.",
            ) from None
        self._pool: BlockingConnectionPool = pool
        self._redis: Redis = Redis(connection_pool=pool)
        self._prefix = prefix
        self._instance = instance
        self._patience_s = patience_s
        self._numbers: dict[str, int] = {}
        self._closing = False

    async def run(self, script: Script, lane: str, arguments: Sequence[bytes | str | int], now: str = "") -> bytes:
        """Run a script with the next number of a lane; no lane runs two at once. Raises `BusUnavailableError`."""
        from redis.exceptions import (
            AuthenticationError,
            AuthorizationError,
            ConnectionError,  # noqa: A004 - the vendor's
            NoScriptError,
            RedisError,
            TimeoutError,  # noqa: A004 - the vendor's
        )

        number = self._numbers[lane] = self._numbers.get(lane, 0) + 1
        loop = asyncio.get_running_loop()
        until, pause_s, again = loop.time() + self._patience_s, _FIRST_PAUSE_S, "0"
        while True:
            try:
                return await self._evaluate(script, (self._instance, lane, number, again, now, *arguments))
            except NoScriptError:
                try:
                    await cast("Awaitable[Any]", self._redis.script_load(script.text))
                except (RedisError, OSError) as error:
                    if isinstance(error, ConnectionError | TimeoutError | OSError):
                        continue
                    raise self._refused(error) from error
            except (AuthenticationError, AuthorizationError) as error:
                raise self._refused(error) from error
            except (ConnectionError, TimeoutError, OSError) as error:
                again = "1"
                if self._closing or loop.time() + pause_s > until:
                    raise self._away(error) from error
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
            except RedisError as error:
                raise self._refused(error) from error

    async def listen(self, told: Callable[[bytes], None], began: Callable[[], Awaitable[None]]) -> None:
        """Hand over what is published for this object, for ever; `began` is awaited each time that it can be heard (again)."""
        from redis.exceptions import RedisError

        pause_s = _FIRST_PAUSE_S
        while True:
            ear = self._redis.pubsub()
            try:
                await ear.subscribe(f"{self._prefix}to:{self._instance}")
                while True:
                    one = await ear.get_message(timeout=None)
                    if one is None:
                        continue
                    if one["type"] == "message":
                        told(one["data"])
                    elif one["type"] == "subscribe":
                        pause_s = _FIRST_PAUSE_S
                        await began()
            except (RedisError, OSError) as error:
                _log.info("the bus does not hear its Redis: %s", type(error).__name__)
            finally:
                await ear.aclose()  # type: ignore[no-untyped-call]
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def hurry(self) -> None:
        """From now on nothing is tried again."""
        self._closing = True

    async def close(self) -> None:
        """Drop the connections. May be called twice."""
        self._closing = True
        await self._pool.disconnect()

    async def _evaluate(self, script: Script, arguments: tuple[bytes | str | int, ...]) -> bytes:
        answer: Any = await cast(
            "Awaitable[Any]",
            self._redis.execute_command(  # type: ignore[no-untyped-call]
                "EVALSHA", script.digest, 1, self._prefix, *arguments
            ),
        )
        if not isinstance(answer, bytes):
            raise BusUnavailableError(
                transport="redis",
                problem="it answers in another way than Redis 7 or Valkey",
                remedy="Use one of these.",
            )
        return answer

    def _away(self, error: Exception) -> Exception:
        if self._closing:
            return BusClosedError(transport="redis")
        problem = "Redis does not answer in time" if isinstance(error, TimeoutError) else "Redis cannot be reached"
        return BusUnavailableError(
            transport="redis",
            problem=f"{problem} and was tried for {self._patience_s:g} s",
            remedy="Check that it runs, and what the address says.",
        )

    def _refused(self, error: Exception) -> BusUnavailableError:
        # Its own messages name hosts, ports and keys, which are not for everybody.
        text = str(error)
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
                f"Redis refuses the step ({type(error).__name__})",
                "It has to be Redis 7 or Valkey, with no keys of others under the bus' prefix.",
            )
        return BusUnavailableError(transport="redis", problem=problem, remedy=remedy)
