"""The port for sharing a provider's limits between processes: one window that all of them ask, wherever it is kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

__all__ = ["Asking", "Leave", "SharedPacing"]


@dataclass(frozen=True, slots=True)
class Asking:
    """What a limiter asks and tells in one go. Calls are named by numbers that it never uses twice.

    `calls` want leave in this order, each `(call, tokens)`. `sent` went out without leave of the window, each `(call, tokens,
    seconds ago)`; those that it knows are not counted twice. `corrections` is what calls took after all, None where one was never
    made. For `pause_s` from now nobody may go. A limit that is None does not bind.
    """

    requests_per_minute: int | None
    tokens_per_minute: int | None
    calls: Sequence[tuple[int, int]] = ()
    sent: Sequence[tuple[int, int, float]] = ()
    corrections: Mapping[int, int | None] = field(default_factory=dict)
    pause_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Leave:
    """The first `granted` of the calls may go; the next not before `wait_s`, and nobody while it is paused for `pause_s`."""

    granted: int
    wait_s: float = 0.0
    pause_s: float = 0.0


class SharedPacing(Protocol):
    """One strict window of a minute for each name, by one clock that is none of the askers'."""

    async def ask(self, name: str, asking: Asking) -> Leave:
        """Ask and tell in one step, which happens whole or not at all, within a fraction of a second.

        Raises `DependencyUnavailableError`; whether it happened is then unknown.
        """
        ...
