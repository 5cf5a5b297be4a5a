"""Renders chat-completion requests, so that 72 members share the work on what they share."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

from application.ports.agent_orchestrator import AgentRequest, ContextBundle
from domain.models.question import AnswerFormat
from domain.protocols.round_plan import Purpose
from infrastructure.orchestrators.ballot_grammar import ballot_grammar
from infrastructure.orchestrators.ballot_schema import ballot_schema, response_format
from infrastructure.orchestrators.prompts import SharedPrompt, persona_message, shared_prompt

__all__ = ["ChatRequestWriter", "Dialect"]

_MAX_REMEMBERED = 64
_MAX_REMEMBERED_CHARACTERS = 4 * 1024 * 1024
# The largest that every known engine takes: llama.cpp reads 32 bits and gives all ones a meaning of its own.
_SEEDS = 2**31

# Made once: `json.dumps` with options makes one each time, which takes longer than to encode a persona.
_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)

_STRUCTURE_WORDS = ("response_format", "response format", "json_schema", "json schema", "structured output")
_REFUSAL_WORDS = (
    "support",
    "unknown",
    "unrecognized",
    "unrecognised",
    "unexpected",
    "not permitted",
    "extra",
    "invalid",
)


@dataclass(frozen=True, slots=True)
class Dialect:
    """Which of the optional parameters a model takes: what its provider's settings say, less what it refuses.

    `structured` is a JSON schema of the reply, `limit_name` what the bound of its length is called, `stream` an answer in pieces,
    `stream_usage` the counts at the end of those.
    """

    structured: bool = True
    limit_name: str = "max_tokens"
    temperature: bool = True
    seed: bool = True
    stream: bool = False
    stream_usage: bool = True

    def without_what_is_refused(self, complaint: str) -> Dialect | None:
        """The dialect to try next after a 400 with this text, or None when the text names nothing that can be left out."""
        complaint = complaint.lower()
        if self.structured and any(word in complaint for word in _STRUCTURE_WORDS):
            return replace(self, structured=False)
        if self.limit_name == "max_tokens" and "max_completion_tokens" in complaint:
            # Models that want the newer name are those that reason, and they refuse any temperature as well; learning that
            # from a second refusal would use up both attempts of every agent.
            return replace(self, limit_name="max_completion_tokens", temperature=False)
        if any(word in complaint for word in _REFUSAL_WORDS):
            if self.temperature and "temperature" in complaint:
                return replace(self, temperature=False)
            if self.seed and "seed" in complaint:
                return replace(self, seed=False)
            if self.stream and self.stream_usage and "stream_options" in complaint:
                return replace(self, stream_usage=False)
            if self.stream and "stream" in complaint:
                return replace(self, stream=False)
        return None


class ChatRequestWriter:
    """Request bodies as bytes of JSON; the part that all members share is rendered once and kept, within a bound."""

    def __init__(
        self,
        *,
        confidence_steps: bool = False,
        reason_max_chars: int | None = None,
        grammar: bool = False,
        max_output_tokens: int | None = None,
    ) -> None:
        """For small models: see `ballot_schema` and `ballot_grammar`. `max_output_tokens` bounds what a request asks for."""
        self._grammar = grammar
        self._max_output_tokens = max_output_tokens
        self._confidence_steps = confidence_steps
        self._reason_max_chars = reason_max_chars
        self._remembered: dict[tuple[str, str | None, AnswerFormat | None, Purpose], _SharedPart] = {}
        self._characters = 0

    def write(self, request: AgentRequest, *, model: str, dialect: Dialect) -> bytes:
        """The body of `POST /chat/completions` for that agent, in UTF-8."""
        expected, sampling = request.expected, request.sampling
        shared = self._shared(request)
        persona = persona_message(
            request.persona, shared.prompt, wants_ballot=expected is not None, brief=request.brief
        )
        longest = min(sampling.max_output_tokens, self._max_output_tokens or sampling.max_output_tokens)
        options: dict[str, object] = {dialect.limit_name: longest}
        if dialect.temperature:
            options["temperature"] = sampling.temperature
        if dialect.seed and request.seed is not None:
            options["seed"] = request.seed % _SEEDS
        if dialect.stream:
            options["stream"] = True
            if dialect.stream_usage:
                options["stream_options"] = {"include_usage": True}
        if request.messages is None:
            parts = [b'{"model":', _json(model), b',"messages":[{"role":"system","content":', shared.system]
            parts += [b'},{"role":"user","content":', _json(persona), b"}],", _json(options)[1:-1]]
        else:
            messages = [{"role": role, "content": text} for role, text in request.messages]
            parts = [b'{"model":', _json(model), b',"messages":', _json(messages), b",", _json(options)[1:-1]]
        if dialect.structured and shared.structure:
            parts += [b",", shared.structure]
        parts.append(b"}")
        return b"".join(parts)

    def prompt(self, request: AgentRequest) -> str:
        """What `write` tells the agent, as one text: the messages with a blank line between them, the shared one first."""
        if request.messages is not None:
            return "\n\n".join(text for _, text in request.messages)
        shared = self._shared(request)
        persona = persona_message(
            request.persona, shared.prompt, wants_ballot=request.expected is not None, brief=request.brief
        )
        return f"{shared.prompt.text}\n\n{persona}"

    def _shared(self, request: AgentRequest) -> _SharedPart:
        context, expected = request.context, request.expected
        purpose = Purpose.ANSWER if request.brief is None else request.brief.purpose
        # Keyed by the texts, not by the bundle's id: a bundle copied with another text keeps its id.
        key = (context.topic_content, context.background, expected, purpose)
        known = self._remembered.pop(key, None)
        if known is None:
            known = self._render(context, expected, purpose)
            self._characters += known.characters
        self._remembered[key] = known
        while len(self._remembered) > 1 and (
            len(self._remembered) > _MAX_REMEMBERED or self._characters > _MAX_REMEMBERED_CHARACTERS
        ):
            self._characters -= self._remembered.pop(next(iter(self._remembered))).characters
        return known

    def _render(self, context: ContextBundle, expected: AnswerFormat | None, purpose: Purpose) -> _SharedPart:
        prompt = shared_prompt(context, expected, reason_max_chars=self._reason_max_chars, purpose=purpose)
        return _SharedPart(prompt, _json(prompt.text), b"" if expected is None else self._structure(expected))

    def _structure(self, expected: AnswerFormat) -> bytes:
        steps, reason = self._confidence_steps, self._reason_max_chars
        if self._grammar:
            schema = ballot_schema(expected, confidence_steps=steps, reason_max_chars=reason)
            return b'"grammar":' + _json(ballot_grammar(schema))
        wanted = response_format(expected, confidence_steps=steps, reason_max_chars=reason)
        return b'"response_format":' + _json(wanted)


@dataclass(frozen=True, slots=True)
class _SharedPart:
    prompt: SharedPrompt
    system: bytes
    structure: bytes

    @property
    def characters(self) -> int:
        return len(self.prompt.text) + len(self.system) + len(self.structure)


def _json(value: object) -> bytes:
    # A lone surrogate from a caller in the same process has no UTF-8; it becomes a question mark rather than an error.
    return _ENCODER.encode(value).encode(errors="replace")
