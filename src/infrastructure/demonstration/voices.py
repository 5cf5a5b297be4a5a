"""What the demonstration asks and what its agents reply, as it was written down once and lies in the package."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from domain.models.agent import Roster

__all__ = ["RecordedVoice", "RecordedVoices", "questions"]


@dataclass(frozen=True, slots=True)
class RecordedVoice:
    """One reply: an HTTP status, what a model would have written, and its place between the first and the last, 0 to 1.

    With `hangs` none comes at all.
    """

    status: int
    text: str
    share: float
    hangs: bool = False


class RecordedVoices:
    """Finds the reply to a request by the question and the persona, which every prompt holds word for word.

    An agent that is asked the same question again (after a refusal, or in a later round) gives its next reply, and its last one from then
    on. Whoever is asked anything else abstains and says why.
    """

    def __init__(self, roster: Roster) -> None:
        self._agents = {agent.persona.text: agent.id for agent in roster.agents}
        self._replies = {each["request"]["question"]: each["replies"] for each in _document()}
        self._asked: Counter[tuple[str, str]] = Counter()

    def reply_to(self, prompt: str) -> RecordedVoice:
        """What comes back for that prompt, all its messages in one."""
        question = next((text for text in self._replies if text in prompt), None)
        agent = next((name for text, name in self._agents.items() if text in prompt), None)
        if question is None or agent is None or agent not in self._replies[question]:
            return RecordedVoice(
                200, _ballot(None, None, "I was recorded for two questions, and this is neither."), 0.0
            )
        replies = self._replies[question][agent]
        turn = self._asked[question, agent]
        self._asked[question, agent] += 1
        found = replies[min(turn, len(replies) - 1)]
        # Spread evenly over the time, and always in the same order.
        share = (int(agent.rpartition("-")[2]) * 47 + turn * 13) % 72 / 71
        if turn and "status" in replies[turn - 1 if turn < len(replies) else -1]:
            # Both attempts have to fit into the time of one.
            share /= 4
        if found.get("hangs"):
            return RecordedVoice(200, "", share, hangs=True)
        if "status" in found:
            return RecordedVoice(int(found["status"]), "", 0.0)
        text = found["text"] if "text" in found else _ballot(found["answer"], found["confidence"], found["reasoning"])
        return RecordedVoice(200, text, share)


def questions(*, seconds: float) -> Sequence[Mapping[str, Any]]:
    """The requests of the demonstration, in the form of `POST /v1/deliberations`, for agents that take up to `seconds`."""
    return [{**each["request"], "limits": {"agent_timeout_s": seconds + 2.0}} for each in _document()]


def _ballot(answer: str | None, confidence: float | None, reasoning: str) -> str:
    return json.dumps({"answer": answer, "confidence": confidence, "reasoning": reasoning}, ensure_ascii=False)


def _document() -> Sequence[Mapping[str, Any]]:
    text = files("infrastructure.demonstration").joinpath("voices.json").read_text(encoding="utf-8")
    found: Sequence[Mapping[str, Any]] = json.loads(text)
    return found
