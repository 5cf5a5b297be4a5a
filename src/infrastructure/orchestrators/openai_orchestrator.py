"""Asks agents of one OpenAI-compatible provider, each of its own model or of the one for all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self

from application.ports.agent_orchestrator import AgentOutput, AgentRequest
from domain.errors.agent import AgentInvocationError
from domain.models.budget import Usage
from infrastructure.orchestrators.chat_request import ChatRequestWriter, Dialect
from infrastructure.orchestrators.first_model import FirstModel
from infrastructure.orchestrators.provider_client import MAX_REPLY_BYTES, ProviderClient

__all__ = ["MAX_REPLY_BYTES", "ClientOrchestrator", "OpenAIOrchestrator"]


class ClientOrchestrator:
    """One request of its client for each `invoke`, whatever becomes of it; see `ProviderClient` for what it promises."""

    def __init__(self, client: ProviderClient, *, model: str | None = None) -> None:
        """Without a `model` the first that the provider lists is asked. The client is closed with it."""
        self._client = client
        self._model = model or None
        self._first_model = FirstModel(self._look_up_model)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def start(self) -> None:
        """Get ready to ask; connects nowhere. `invoke` does it by itself when it has not been done."""
        await self._client.start()

    async def close(self) -> None:
        """Drop all connections; calls in flight fail, and later ones too. May be called twice."""
        await self._first_model.close()
        await self._client.close()

    def prompt_of(self, request: AgentRequest) -> str:
        """What the agent is told, as one text, so that it can be committed to before the call."""
        return self._client.prompt_of(request)

    async def invoke(self, request: AgentRequest) -> AgentOutput:
        """The output of that agent, its text as the model wrote it. Raises `AgentInvocationError`."""
        try:
            model = request.model or self._model or await self._first_model.get()
        except AgentInvocationError as error:
            error.agent_id = request.agent_id
            raise
        return await self._client.complete(request, model=model)

    async def list_models(self) -> list[str]:
        """The models that the endpoint offers, within five seconds. Raises `DependencyUnavailableError`."""
        return await self._client.list_models()

    async def _look_up_model(self) -> str:
        # A closed client is told apart from an endpoint that cannot be reached.
        await self._client.start()
        models = await self._client.find_models()
        if not models:
            raise AgentInvocationError(
                f"{self._client.host} lists no models: set CONCLAVE_LLM_MODEL to the one to ask",
                kind="no_model",
                usage=Usage(),
            )
        return models[0]


class OpenAIOrchestrator(ClientOrchestrator):
    """Asks the models behind one address."""

    def __init__(
        self,
        *,
        base_url: str,
        api_key: str | None = None,
        model: str | None = None,
        max_connections: int,
        connect_timeout_s: float = 5.0,
        max_reply_bytes: int = MAX_REPLY_BYTES,
        confidence_steps: bool = False,
        reason_max_chars: int | None = None,
        structured: bool = True,
        grammar: bool = False,
        max_output_tokens: int | None = None,
        call_headers: Callable[[], Mapping[str, str]] | None = None,
    ) -> None:
        """Without a `model` the first that the endpoint lists is asked. Raises `ConfigurationError`; nothing is connected yet.

        `call_headers` says which headers a call carries besides, asked anew for each.

        `confidence_steps`, `reason_max_chars`, `grammar` and `max_output_tokens` are for small models: see `ChatRequestWriter`.
        """
        client = ProviderClient(
            base_url=base_url,
            api_key=api_key,
            max_connections=max_connections,
            dialect=Dialect(structured=structured),
            writer=ChatRequestWriter(
                confidence_steps=confidence_steps,
                reason_max_chars=reason_max_chars,
                grammar=grammar,
                max_output_tokens=max_output_tokens,
            ),
            connect_timeout_s=connect_timeout_s,
            max_reply_bytes=max_reply_bytes,
            call_headers=call_headers,
        )
        super().__init__(client, model=model)
