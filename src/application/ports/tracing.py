"""The port for traces, which show where the time of a deliberation went, and the adapter that draws none."""

from __future__ import annotations

from contextlib import AbstractContextManager
from types import TracebackType
from typing import Protocol

__all__ = ["NullTracer", "Span", "Tracer"]


class Span(Protocol):
    """A stretch of time in a trace."""

    def ended_as(self, state: str) -> None:
        """Say how that ended which the span stands for, in the words of its states."""
        ...


class Tracer(Protocol):
    """Draws a deliberation and its rounds as spans. Calls neither wait nor raise; nothing that anybody wrote is handed over.

    Everything that happens within a span's `with`, in tasks begun there too, belongs to it.
    """

    def accepted(self, deliberation_id: str) -> None:
        """Remember that whoever is being served now asked for that deliberation, which may begin later and elsewhere."""
        ...

    def deliberation(self, deliberation_id: str, *, agents: int) -> AbstractContextManager[Span]:
        """A deliberation at work here, within the trace of whoever asked for it where that is known, else in one of its own."""
        ...

    def round(self, deliberation_id: str, number: int, *, batch_id: str, agents: int) -> AbstractContextManager[Span]:
        """Agents asked at one time, within the deliberation around it."""
        ...


class _NoSpan:
    """The one span of a tracer that draws none: entered any number of times, also within itself."""

    __slots__ = ()

    def ended_as(self, state: str) -> None:
        """Ignored."""

    def __enter__(self) -> _NoSpan:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


_NO_SPAN = _NoSpan()


class NullTracer:
    """Draws nothing, and makes no object doing so."""

    def accepted(self, deliberation_id: str) -> None:
        """Ignored."""

    def deliberation(self, deliberation_id: str, *, agents: int) -> AbstractContextManager[Span]:  # noqa: ARG002 - the port's
        """The span that is none."""
        return _NO_SPAN

    def round(  # the port's names
        self,
        deliberation_id: str,  # noqa: ARG002
        number: int,  # noqa: ARG002
        *,
        batch_id: str,  # noqa: ARG002
        agents: int,  # noqa: ARG002
    ) -> AbstractContextManager[Span]:
        """The span that is none."""
        return _NO_SPAN
