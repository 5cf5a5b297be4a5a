"""How those who answer for the agents stand: what they take at most, what is used of it now, and whether they are asked at all."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ProviderStanding"]


@dataclass(frozen=True, slots=True)
class ProviderStanding:
    """A provider, or with `provider` one of its models. What is None does not bind, is not known, or is not counted here.

    `in_flight` and `waiting` are calls now, `requests` and `tokens` those of the last 60 s. `pace` is 1 at full speed, `paused_s` how long
    nobody goes. `breaker` is `closed`, `open` or `half_open`; open, `opens_in_s` seconds are left and `cause` is what failed last.
    """

    name: str
    provider: str | None = None
    max_concurrency: int | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    in_flight: int | None = None
    waiting: int | None = None
    requests: int | None = None
    tokens: int | None = None
    pace: float = 1.0
    paused_s: float = 0.0
    shared: bool | None = None
    breaker: str | None = None
    failures: int = 0
    opens_in_s: float = 0.0
    cause: str | None = None
