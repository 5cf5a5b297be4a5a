"""What a provider allows, and how the limiter stands that keeps to it."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["WAIT_BOUNDS_S", "Allowance", "LimiterState"]

WAIT_BOUNDS_S = (0.001, 0.01, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
"""Upper bounds of `LimiterState.waits`, seconds; what waited longer is counted last."""


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a provider allows: calls in flight, requests and tokens in any 60 s, and bytes that replies may take in memory here.

    None does not bind. `share` of the minute's limits is what this process takes when it cannot ask the others: where
    nothing is shared, and while what is shared is away. The shares of all processes should make 1 together.
    """

    max_concurrency: int
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    bytes_in_memory: int | None = None
    share: float = 1.0

    def __post_init__(self) -> None:
        """Raises `ValueError` for what would let nobody through."""
        for name in ("max_concurrency", "requests_per_minute", "tokens_per_minute", "bytes_in_memory"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value!r}: at least one is needed, or nobody could ever be asked")
        if not 0 < self.share <= 1:
            raise ValueError(f"share is {self.share!r}: give a part of the limits, more than 0 and at most 1")

    def own(self, limit: int | None) -> int | None:
        """This process' part of a minute's limit, at least one."""
        return None if limit is None else max(1, int(limit * self.share))


@dataclass(frozen=True, slots=True)
class LimiterState:
    """How a limiter stands. `pace` is 1 at full speed, `paused_s` how long nobody goes, `paused_until_s` until when (monotonic).

    `requests` and `tokens` went out within the last minute. `shared` is whether other processes are asked too, None where they
    are not meant to be. `waits` counts calls by how long they waited, one more than `WAIT_BOUNDS_S`; `waited_s` is their sum.
    """

    pace: float
    in_flight: int
    waiting: int
    paused_s: float = 0.0
    paused_until_s: float | None = None
    requests: int = 0
    tokens: int = 0
    shared: bool | None = None
    waits: tuple[int, ...] = (0,) * (len(WAIT_BOUNDS_S) + 1)
    waited_s: float = 0.0
