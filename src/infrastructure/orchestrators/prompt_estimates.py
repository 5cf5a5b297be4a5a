"""What prompts take at most in tokens, with the part that members share estimated once."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

from application.ports.agent_orchestrator import AgentRequest
from domain.protocols.round_plan import Brief
from infrastructure.orchestrators.asked_model import AskedProvider
from infrastructure.orchestrators.prompts import brief_text
from infrastructure.orchestrators.token_estimate import TOKENS_A_CALL, most_tokens

__all__ = ["PromptEstimates"]

_MAX_REMEMBERED = 1024
_MAX_REMEMBERED_CHARACTERS = 16_384
# The fence around a persona and the sentence after it, which stand in no message without one.
_TOKENS_A_PERSONA = 64

_Key = TypeVar("_Key")


class PromptEstimates:
    """Estimates by `most_tokens`; keeps numbers and personas, within a bound, and no questions."""

    def __init__(self) -> None:
        self._shared: dict[tuple[object, ...], int] = {}
        self._personas: dict[str, int] = {}

    def tokens(self, provider: AskedProvider, request: AgentRequest) -> int:
        """What that provider reads at most for this request, the form of the answer included."""
        read = self._of_shared(provider, request) + self._of_persona(request.persona) + _TOKENS_A_PERSONA
        return read if request.brief is None else read + most_tokens(brief_text(request.brief)) + _TOKENS_A_PERSONA

    def _of_shared(self, provider: AskedProvider, request: AgentRequest) -> int:
        """What all members asked the same are told, and the form of the answer."""
        context = request.context
        topic, background = context.topic_content, context.background
        # Their hashes, which texts know of themselves, so that no text of megabytes is kept here.
        purpose = None if request.brief is None else request.brief.purpose
        key = (provider.settings.name, hash(topic), len(topic), hash(background), request.expected, purpose)
        known = self._shared.get(key)
        if known is None:
            brief = None if purpose is None else Brief(purpose, "")
            body = provider.client.body_of(replace(request, persona="", brief=brief), model="")
            known = most_tokens(body) + TOKENS_A_CALL
            _remember(self._shared, key, known)
        return known

    def _of_persona(self, persona: str) -> int:
        known = self._personas.get(persona)
        if known is None:
            known = most_tokens(persona)
            if len(persona) <= _MAX_REMEMBERED_CHARACTERS:
                _remember(self._personas, persona, known)
        return known


def _remember(known: dict[_Key, int], key: _Key, tokens: int) -> None:
    if len(known) >= _MAX_REMEMBERED:
        del known[next(iter(known))]
    known[key] = tokens
