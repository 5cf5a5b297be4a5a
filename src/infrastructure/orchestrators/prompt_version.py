"""Says which words prompts are made of, so that a record can tell what an agent was told around the texts of others."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache

from application.ports.agent_orchestrator import AgentRequest, ContextBundle
from domain.models.question import AnswerFormat, AnswerKind
from infrastructure.orchestrators.prompts import PROMPT_VERSION, Prompt, build_prompt

__all__ = ["prompt_version", "specimens"]

_QUESTION = "Should the city centre be closed to private cars?"
_CONTEXT = "Trams run every ten minutes."
_PERSONA = "A baker who opens at four."
_OPTIONS = ("yes", "no", "weekends only")
_SHORT_REASON = 60

_ANSWERS: Mapping[str, AnswerFormat | None] = {
    "choice": AnswerFormat(AnswerKind.CHOICE, _OPTIONS),
    "approval": AnswerFormat(AnswerKind.APPROVAL, _OPTIONS),
    "ranking": AnswerFormat(AnswerKind.RANKING, _OPTIONS),
    "verdict": AnswerFormat(AnswerKind.VERDICT),
    "score": AnswerFormat(AnswerKind.SCORE, minimum=-2.5, maximum=10),
    "probability": AnswerFormat(AnswerKind.PROBABILITY),
    "number": AnswerFormat(AnswerKind.NUMBER),
    "number-with-unit": AnswerFormat(AnswerKind.NUMBER, unit="euros a day"),
    "text": AnswerFormat(AnswerKind.TEXT),
    "free-reply": None,
}


def specimens() -> dict[str, Prompt]:
    """By name one prompt of each kind of answer and of each way to leave something out: every word that a prompt can have."""
    found = {}
    for name, expected in _ANSWERS.items():
        found[name] = _specimen(expected, context=_CONTEXT, persona=_PERSONA)
        found[f"{name}-without-context"] = _specimen(expected, context=None, persona=_PERSONA)
        found[f"{name}-without-persona"] = _specimen(expected, context=_CONTEXT, persona="")
    found["choice-of-a-small-model"] = _specimen(
        _ANSWERS["choice"], context=_CONTEXT, persona=_PERSONA, reason_max_chars=_SHORT_REASON
    )
    return found


@cache
def prompt_version() -> str:
    """`PROMPT_VERSION`, a colon, and the SHA-256 (hex) over all specimens: another word or another fence makes it another one."""
    digest = hashlib.sha256()
    for name, prompt in sorted(specimens().items()):
        digest.update(f"{name}\0{prompt.sha256}\n".encode())
    return f"{PROMPT_VERSION}:{digest.hexdigest()}"


def _specimen(
    expected: AnswerFormat | None, *, context: str | None, persona: str, reason_max_chars: int | None = None
) -> Prompt:
    request = AgentRequest("archon-1", ContextBundle("t", _QUESTION, context), persona=persona, expected=expected)
    return build_prompt(request, reason_max_chars=reason_max_chars)
