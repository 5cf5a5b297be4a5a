"""Keeps texts what they are on their way through CrewAI, which fills in placeholders and reads steps out of answers."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

from crewai.agents.constants import ACTION_INPUT_REGEX, FINAL_ANSWER_ACTION

__all__ = ["Shield"]

_PRIVATE_USE = (range(0xE001, 0xF900), range(0xF0000, 0xFFFFE))
_NO_ACTION = "\u2060\u2063\u2060"


class Shield:
    """Keeps CrewAI from reading placeholders into texts that hold braces, and actions into answers that only speak of some."""

    def __init__(self, texts: Sequence[str]) -> None:
        everything = "".join(texts)
        self._brace = next(chr(code) for code in chain(*_PRIVATE_USE) if chr(code) not in everything)

    def hide(self, text: str) -> str:
        """The text with nothing in it that CrewAI would fill in."""
        return text.replace("{", self._brace)

    def show(self, text: str) -> str:
        """The text as it was."""
        return text.replace(self._brace, "{").replace(_NO_ACTION, "")

    def without_actions(self, answer: str, usable: set[str]) -> str:
        """The answer, in which an action stays one only where its tool may be used."""
        found = ACTION_INPUT_REGEX.search(answer)
        if found is None and (usable or FINAL_ANSWER_ACTION not in answer):
            return answer
        if found is not None and found.group(1).strip().strip("*`'\"") in usable:
            return answer
        answer = answer.replace("Action", f"Action{_NO_ACTION}")
        return answer if usable else answer.replace("Final Answer", f"Final{_NO_ACTION} Answer")
