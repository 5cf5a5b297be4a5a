"""Says which words prompts are made of, so that a record can tell what an agent was told around the texts of others."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from functools import cache

from application.ports.agent_orchestrator import AgentRequest, ContextBundle
from domain.models.question import AnswerFormat, AnswerKind
from domain.protocols.round_plan import Brief, Exhibit, ExhibitKind, Purpose
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
    for purpose in Purpose:
        expected = _INSTEAD.get(purpose, _ANSWERS["choice"])
        for name, brief in (("", _BRIEF), ("-with-nothing-to-show", Brief(_BRIEF.purpose, _BRIEF.mark))):
            found[f"later-round-{purpose.value}{name}"] = _specimen(
                expected, context=_CONTEXT, persona=_PERSONA, brief=replace(brief, purpose=purpose)
            )
    return found


_LABELS = ("statement 1", "statement 2")
_INSTEAD: Mapping[Purpose, AnswerFormat] = {
    Purpose.REVIEW: AnswerFormat(AnswerKind.APPROVAL, _LABELS),
    Purpose.RANK: AnswerFormat(AnswerKind.RANKING, _LABELS),
    **dict.fromkeys((Purpose.DRAFT, Purpose.CRITIQUE, Purpose.REDRAFT), AnswerFormat(AnswerKind.TEXT)),
}
_BRIEF = Brief(
    Purpose.ANSWER,
    "0123456789abcdef",
    (("yes", "2"), ("no", "1")),
    tuple(Exhibit(kind, f"the label of {kind.value}", "yes", "Trams\nare <slow>.") for kind in ExhibitKind),
)


@cache
def prompt_version() -> str:
    """`PROMPT_VERSION`, a colon, and the SHA-256 (hex) over all specimens: another word or another fence makes it another one."""
    digest = hashlib.sha256()
    for name, prompt in sorted(specimens().items()):
        digest.update(f"{name}\0{prompt.sha256}\n".encode())
    return f"{PROMPT_VERSION}:{digest.hexdigest()}"


def _specimen(
    expected: AnswerFormat | None,
    *,
    context: str | None,
    persona: str,
    reason_max_chars: int | None = None,
    brief: Brief | None = None,
) -> Prompt:
    bundle = ContextBundle("t", _QUESTION, context)
    request = AgentRequest("archon-1", bundle, persona=persona, expected=expected, brief=brief)
    return build_prompt(request, reason_max_chars=reason_max_chars)
