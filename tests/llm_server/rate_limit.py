"""Refuses what comes faster than a provider allows: so many requests, or so many tokens, in any window of time."""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from tests.llm_server.completion import ChatRequest
from tests.llm_server.dialects import Standing

__all__ = ["RateLimit", "admit", "most_in_window"]


@dataclass(slots=True)
class RateLimit:
    """At most `requests`, and at most `tokens` (read and written), admitted in any window of `seconds`.

    It concerns the models named, or all. With `counts_refused` a refused request takes its place in the window as well.
    """

    requests: int | None = None
    tokens: int | None = None
    seconds: float = 60.0
    model: tuple[str, ...] = ()
    counts_refused: bool = False
    taken: deque[tuple[float, int]] = field(default_factory=deque)

    def concerns(self, request: ChatRequest) -> bool:
        """Whether the request counts here."""
        return not self.model or request.model in self.model

    def wait_s(self, now: float, tokens: int) -> float:
        """Seconds until a request of so many tokens would be admitted; 0 where it is now, at `now` of a monotonic clock."""
        self._forget(now)
        over_requests = 0 if self.requests is None else len(self.taken) + 1 - self.requests
        over_tokens = 0 if self.tokens is None else sum(each for _, each in self.taken) + tokens - self.tokens
        for moment, each in self.taken:
            if over_requests <= 0 and over_tokens <= 0:
                break
            over_requests -= 1
            over_tokens -= each
            wait = moment + self.seconds - now
            if over_requests <= 0 and over_tokens <= 0:
                return wait
        return 0.0 if over_requests <= 0 and over_tokens <= 0 else self.seconds

    def take(self, now: float, tokens: int) -> None:
        """Count a request."""
        self.taken.append((now, tokens))

    def standings(self, now: float) -> list[Standing]:
        """How it stands: one for the requests, one for the tokens, as far as they are limited."""
        self._forget(now)
        reset_s = self.taken[-1][0] + self.seconds - now if self.taken else 0.0
        found = []
        for unit, limit, used in (
            ("requests", self.requests, len(self.taken)),
            ("tokens", self.tokens, sum(each for _, each in self.taken)),
        ):
            if limit is not None:
                found.append(Standing(unit, limit, max(0, limit - used), reset_s))
        return found

    def _forget(self, now: float) -> None:
        while self.taken and self.taken[0][0] <= now - self.seconds:
            self.taken.popleft()


def admit(limits: Sequence[RateLimit], *, now: float, tokens: int) -> float:
    """Admit a request to all of them (0), or refuse it and return the seconds after which it may come again."""
    wait = max((limit.wait_s(now, tokens) for limit in limits), default=0.0)
    for limit in limits:
        if wait <= 0:
            limit.take(now, tokens)
        elif limit.counts_refused:
            limit.take(now, 0)
    return wait


def most_in_window(moments: Iterable[float], *, seconds: float) -> int:
    """The most of them that lie in any window of that length, open at its beginning."""
    window: deque[float] = deque()
    most = 0
    for moment in sorted(moments):
        window.append(moment)
        while window[0] <= moment - seconds:
            window.popleft()
        most = max(most, len(window))
    return most
