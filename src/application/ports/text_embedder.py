"""The port to a model that turns texts into vectors, by which texts that mean much the same are found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from application.ports.model_desk import Forecast
from domain.models.budget import Usage

__all__ = ["CallRecord", "TextEmbedder"]


class CallRecord(Protocol):
    """Where an embedder announces each call to a provider before it makes it: what it takes is held, and it stands in the log."""

    @property
    def key_name(self) -> str | None:
        """The name of the API key that it is made for."""
        ...

    @property
    def batch_id(self) -> str:
        """What it is in line with others of."""
        ...

    @property
    def until(self) -> float | None:
        """The monotonic time (seconds) until which leave for it is waited for."""
        ...

    async def reserve(self, forecast: Forecast) -> None:
        """Hold what the call may take. Raises `BudgetExceededError`, and `DependencyUnavailableError` where it may not be made."""
        ...

    def give_back(self, forecast: Forecast) -> None:
        """The call is not made, and was not recorded."""
        ...

    async def starting(self, forecast: Forecast) -> None:
        """Commit the intent to make it. Raises as `reserve`; then nothing is held any more."""
        ...

    def ended(self, usage: Usage | None, *, failure: str | None = None) -> None:
        """It is over: what it took, `Usage()` where it took nothing, None where nobody knows; and of what kind its failure was."""
        ...


class TextEmbedder(Protocol):
    """Gives texts vectors whose angles say how alike the texts are. Nothing that it gives is needed to check an outcome."""

    @property
    def name(self) -> str:
        """What compared the texts, as the outcome names it."""
        ...

    @property
    def alike_from(self) -> float:
        """The cosine from which two texts say much the same."""
        ...

    def foresee(self, texts: Sequence[str]) -> Forecast | None:
        """The call that gives these vectors, None where no provider is asked. Raises `AgentInvocationError`; spends nothing."""
        ...

    async def embed(self, texts: Sequence[str], *, record: CallRecord | None = None) -> Sequence[Sequence[float]]:
        """A vector for each text, in their order, all of one length and finite; of no texts none, and nobody is asked.

        Each call to a provider is announced to `record` where one is given. May be called by several at once. Raises
        `DependencyUnavailableError`, and `BudgetExceededError` where `record` does.
        """
        ...
