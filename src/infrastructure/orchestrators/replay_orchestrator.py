"""Deliberations that repeat without a provider: one orchestrator that records what was answered, one that answers from it."""

from __future__ import annotations

from pathlib import Path

from infrastructure.orchestrators.chat_request import ChatRequestWriter, Dialect
from infrastructure.orchestrators.openai_orchestrator import ClientOrchestrator
from infrastructure.orchestrators.provider_client import ProviderClient
from infrastructure.orchestrators.recorded_replies import RecordingExchange, ReplayExchange

__all__ = ["RecordingOrchestrator", "ReplayOrchestrator"]

# Never connected to: the name is reserved for what does not exist (RFC 6761, 6.4).
_NOWHERE = "http://recording.invalid/v1"


class RecordingOrchestrator(ClientOrchestrator):
    """Asks through a client and keeps each reply in a folder, so that `ReplayOrchestrator` can give it again."""

    def __init__(self, client: ProviderClient, folder: Path, *, model: str | None = None) -> None:
        """The client records from now on, whoever else uses it. Raises `ConfigurationError`."""
        client.wrap_exchange(lambda exchange: RecordingExchange(exchange, folder))
        super().__init__(client, model=model)


class ReplayOrchestrator(ClientOrchestrator):
    """Answers from a folder of recorded replies, without a network; what was not recorded fails with kind `not_recorded`.

    A reply is found by the exact bytes of the request: question, persona, model, settings and dialect have to be those of the
    recording. What the provider refused then it refuses again, and what was learnt from it is learnt again.
    """

    def __init__(
        self,
        folder: Path,
        *,
        model: str | None = None,
        dialect: Dialect | None = None,
        writer: ChatRequestWriter | None = None,
    ) -> None:
        """Raises `ConfigurationError` where there is no such folder."""
        client = ProviderClient(base_url=_NOWHERE, max_connections=1, dialect=dialect, writer=writer)
        client.wrap_exchange(lambda _: ReplayExchange(folder))
        super().__init__(client, model=model)
