"""Shares requests and tokens a minute between processes and machines, in a Redis or Valkey, by one script and its clock."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote

from domain.errors.dependency import DependencyUnavailableError
from infrastructure.orchestrators.rate_window import MARGIN_S, WINDOW_S
from infrastructure.orchestrators.shared_pacing import Asking, Leave
from infrastructure.redis_pool import waiting_pool_at

if TYPE_CHECKING:
    from redis.asyncio import BlockingConnectionPool
    from redis.commands.core import AsyncScript

__all__ = ["RedisPacing"]

_CONNECTIONS = 8
_PATIENCE_S = 0.25
_US = 1_000_000

# KEYS: a sorted set of calls by the microsecond of their leave; a hash of their tokens, of which `=sum` is the sum and `=pause`
# the microsecond until which nobody goes. ARGV: span, requests and tokens a minute (-1 does not bind), pause, milliseconds to
# keep the keys, how many calls, sent and corrections follow, then these. Answers how many calls have leave, and microseconds
# until the next may ask and until the pause is over.
_SCRIPT = """
local sent, facts = KEYS[1], KEYS[2]
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local span, most_requests, most_tokens = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local text = function(number) return string.format('%.0f', number) end
local sum = tonumber(redis.call('HGET', facts, '=sum') or '0')

local drop = function(call)
  sum = sum - tonumber(redis.call('HGET', facts, call) or '0')
  redis.call('HDEL', facts, call)
  redis.call('ZREM', sent, call)
end
local add = function(call, tokens, at)
  redis.call('ZADD', sent, text(at), call)
  redis.call('HSET', facts, call, tokens)
  sum = sum + tokens
end
local correct = function(call, tokens)
  sum = sum + tokens - tonumber(redis.call('HGET', facts, call) or '0')
  redis.call('HSET', facts, call, tokens)
end

-- A clock that was set back would keep these for longer than a minute.
for _, call in ipairs(redis.call('ZRANGEBYSCORE', sent, '(' .. text(now), '+inf')) do
  redis.call('ZADD', sent, text(now), call)
end
for _, call in ipairs(redis.call('ZRANGEBYSCORE', sent, '-inf', text(now - span))) do drop(call) end

local paused = tonumber(redis.call('HGET', facts, '=pause') or '0')
local longest = now + 86400000000
if paused > longest then paused = longest end
if now + tonumber(ARGV[4]) > paused and tonumber(ARGV[4]) > 0 then paused = now + tonumber(ARGV[4]) end

local next = 9
local calls, others, corrections = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
local first_call = next
next = next + 2 * calls
for _ = 1, others do
  local call, tokens, at = ARGV[next], tonumber(ARGV[next + 1]), now - tonumber(ARGV[next + 2])
  if redis.call('ZSCORE', sent, call) then correct(call, tokens)
  elseif at > now - span then add(call, tokens, at) end
  next = next + 3
end
for _ = 1, corrections do
  local call, tokens = ARGV[next], tonumber(ARGV[next + 1])
  if tokens < 0 then drop(call)
  elseif redis.call('ZSCORE', sent, call) then correct(call, tokens) end
  next = next + 2
end
local count = redis.call('ZCARD', sent)
if count == 0 then sum = 0 end

local granted, wait = 0, 0
if paused > now then
  wait = paused - now
  calls = 0
end
while granted < calls do
  local call, tokens = ARGV[first_call + 2 * granted], tonumber(ARGV[first_call + 2 * granted + 1])
  if most_requests >= 0 and count >= most_requests then
    local oldest = redis.call('ZRANGE', sent, count - most_requests, count - most_requests, 'WITHSCORES')
    wait = oldest[2] + span - now
    break
  end
  -- What is larger than a whole minute goes when nothing else does.
  if most_tokens >= 0 and count > 0 and sum + tokens > most_tokens then
    local excess, oldest = sum + tokens - most_tokens, redis.call('ZRANGE', sent, 0, 255, 'WITHSCORES')
    for at = 1, #oldest, 2 do
      wait = oldest[at + 1] + span - now
      excess = excess - tonumber(redis.call('HGET', facts, oldest[at]) or '0')
      if excess <= 0 then break end
    end
    -- Others may give back what they estimated too high.
    if wait > 1000000 then wait = 1000000 end
    break
  end
  add(call, tokens, now)
  count = count + 1
  granted = granted + 1
end

redis.call('HSET', facts, '=sum', text(sum), '=pause', text(paused))
local keep = math.max(tonumber(ARGV[5]), (paused - now) / 1000 + 1000)
redis.call('PEXPIRE', sent, text(keep))
redis.call('PEXPIRE', facts, text(keep))
return {granted, wait, math.max(0, paused - now)}
"""


class RedisPacing:
    """`SharedPacing` over the keys `conclave:pace:{NAME}:*`: a sliding window by Redis' own time, exact to the microsecond.

    An exchange takes 250 ms at most. What a Redis forgets in a restart is told it again by those who come back to it. One for
    all limiters of a process, and of one event loop.
    """

    def __init__(
        self, url: str, *, patience_s: float = _PATIENCE_S, window_s: float = WINDOW_S + MARGIN_S + _PATIENCE_S
    ) -> None:
        """Connects with the first exchange. Raises `ConfigurationError` for an address that cannot be used.

        `window_s` is a minute and a margin: for transit, and because leave is heard of up to `patience_s` after it was given.
        """
        from redis.asyncio import BlockingConnectionPool, Redis
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff

        self._patience_s = patience_s
        self._window_us = int(window_s * _US)
        self._process = secrets.token_hex(6)
        self._pool: BlockingConnectionPool = waiting_pool_at(
            url,
            BlockingConnectionPool.from_url,
            connections=_CONNECTIONS,
            patience_s=patience_s,
            # On a connection that was cut.
            retry=Retry(NoBackoff(), 1),
        )
        self._script: AsyncScript = Redis(connection_pool=self._pool).register_script(_SCRIPT)

    async def ask(self, name: str, asking: Asking) -> Leave:
        """As in `SharedPacing`."""
        from redis.exceptions import RedisError

        place = f"conclave:pace:{{{quote(name, safe='')}}}"
        try:
            async with asyncio.timeout(self._patience_s):
                answer = await cast(
                    "Awaitable[Any]",
                    self._script(keys=[f"{place}:sent", f"{place}:facts"], args=self._arguments(asking)),
                )
            granted, wait_us, pause_us = (int(number) for number in answer)
        except (RedisError, OSError, ValueError, TypeError) as error:
            raise DependencyUnavailableError(
                dependency="the Redis in which processes share the limits of models",
                problem="it does not answer in time" if isinstance(error, TimeoutError) else "it cannot be asked",
                remedy="Check that it runs, and what CONCLAVE_REDIS_URL says.",
            ) from error
        return Leave(granted, max(0, wait_us) / _US, pause_us / _US)

    async def close(self) -> None:
        """Drop the connections. May be called twice."""
        await self._pool.disconnect()

    def _arguments(self, asking: Asking) -> list[str | int]:
        arguments: list[str | int] = [
            self._window_us,
            *(-1 if limit is None else limit for limit in (asking.requests_per_minute, asking.tokens_per_minute)),
            int(asking.pause_s * _US),
            2 * self._window_us // 1000,
            len(asking.calls),
            len(asking.sent),
            len(asking.corrections),
        ]
        for call, tokens in asking.calls:
            arguments += (self._id(call), tokens)
        for call, tokens, ago_s in asking.sent:
            arguments += (self._id(call), tokens, max(0, int(ago_s * _US)))
        for call, took in asking.corrections.items():
            arguments += (self._id(call), -1 if took is None else took)
        return arguments

    def _id(self, call: int) -> str:
        return f"{self._process}:{call}"
