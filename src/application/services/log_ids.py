"""What a line of log belongs to: ids that hold for everything that is logged within them, by whomever."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import Context, ContextVar, Token
from types import TracebackType

__all__ = ["log_ids", "present_log_ids", "unbound_context"]

# Never changed, only replaced: plain dictionaries are merged ten times as fast as guarded ones, and this is done for each call.
_present: ContextVar[Mapping[str, str]] = ContextVar("log_ids", default={})  # noqa: B039


def present_log_ids() -> Mapping[str, str]:
    """The ids that hold here, the outermost first."""
    return _present.get()


def unbound_context() -> Context:
    """A context for a task that works for many: one made in passing would log under the ids of whoever came first."""
    return Context()


class log_ids:  # noqa: N801 - used as a statement
    """`with log_ids(deliberation_id=...)`: lines logged within, by tasks begun within too, carry these besides those of around it."""

    __slots__ = ("_ids", "_token")

    def __init__(self, **ids: str) -> None:
        self._ids = ids

    def __enter__(self) -> None:
        self._token: Token[Mapping[str, str]] = _present.set({**_present.get(), **self._ids})

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _present.reset(self._token)
