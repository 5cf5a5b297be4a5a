"""When a call is made again, and after how long."""

from __future__ import annotations

from collections.abc import Callable

from conclave_client.errors import ConnectionLostError, HaltedError, RefusedError, TooManyError, UnavailableError

__all__ = ["Patience", "may_try_again"]

_PAUSES_S = (0.2, 0.5, 1.0, 2.0, 4.0, 8.0)
_MOST_SERVER_PAUSE_S = 30.0


def may_try_again(error: ConnectionLostError | RefusedError, *, repeatable: bool) -> bool:
    """Whether the same request can be sent again without anything being done twice.

    A refusal for being too many was not carried out, nor was what never reached the server. A halt is ended by a person, whom no
    caller should wait for without being told.
    """
    if isinstance(error, HaltedError):
        return False
    if isinstance(error, TooManyError):
        return True
    if isinstance(error, ConnectionLostError):
        return repeatable or not error.sent
    return repeatable and (isinstance(error, UnavailableError) or error.slug == "idempotency-in-progress")


class Patience:
    """How long to wait before the next try: longer each time, never sooner than the server asked, and in all no more than `total_s`.

    `server_pause_s` is what an event stream asked its reader to wait before coming back.
    """

    def __init__(self, total_s: float, *, draw: Callable[[], float]) -> None:
        self._total_s = total_s
        self._draw = draw
        self._left_s = total_s
        self._tries = 0
        self.server_pause_s = 0.0

    def take(self, error: ConnectionLostError | RefusedError) -> float | None:
        """Seconds until the next try, or None when that would be later than patience lasts."""
        usual = _PAUSES_S[min(self._tries, len(_PAUSES_S) - 1)]
        asked = error.retry_after_s if isinstance(error, RefusedError) else None
        wanted = max(usual, asked or 0.0, min(self.server_pause_s, _MOST_SERVER_PAUSE_S))
        if wanted > self._left_s:
            return None
        # A little more, by chance, so that those who were turned away together do not come back together.
        pause = wanted * (1 + 0.25 * self._draw())
        self._tries += 1
        self._left_s -= wanted
        return pause

    def restore(self) -> None:
        """It got on: patience is whole again."""
        self._left_s = self._total_s
        self._tries = 0
