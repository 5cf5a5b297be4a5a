"""Questions and the kinds of answer that they ask for."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import StrEnum

from domain.counted import counted
from domain.errors.deliberation import FieldProblem
from domain.models.look_alikes import look_alike_keys
from domain.models.text import MAX_CONTEXT_BYTES, MAX_OPTION_BYTES, MAX_QUESTION_BYTES, text_problem

__all__ = ["MAX_OPTIONS", "MAX_UNIT_BYTES", "MIN_OPTIONS", "AnswerFormat", "AnswerKind", "Question"]

MIN_OPTIONS = 2
MAX_OPTIONS = 50
MAX_UNIT_BYTES = 64


class AnswerKind(StrEnum):
    """What an answer looks like."""

    CHOICE = "choice"
    APPROVAL = "approval"
    RANKING = "ranking"
    VERDICT = "verdict"
    SCORE = "score"
    PROBABILITY = "probability"
    NUMBER = "number"
    TEXT = "text"

    @property
    def has_options(self) -> bool:
        """Whether the question lists the options to answer with."""
        return self in {AnswerKind.CHOICE, AnswerKind.APPROVAL, AnswerKind.RANKING}

    @property
    def is_estimate(self) -> bool:
        """Whether an answer is one number."""
        return self in {AnswerKind.SCORE, AnswerKind.PROBABILITY, AnswerKind.NUMBER}


@dataclass(frozen=True, slots=True)
class AnswerFormat:
    """The kind of answer with its options, range or unit."""

    kind: AnswerKind = AnswerKind.VERDICT
    options: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    unit: str | None = None

    def problems(self, pointer: str = "/answer") -> list[FieldProblem]:
        """What keeps this format from being asked for; fields of another kind are refused, not ignored."""
        found: list[FieldProblem] = []
        if self.kind.has_options:
            found += self._option_problems(f"{pointer}/options")
        elif self.options:
            found.append(FieldProblem(f"{pointer}/options", f"an answer of kind {self.kind.value} takes no options"))
        if self.kind is AnswerKind.SCORE:
            found += self._range_problems(pointer)
        else:
            found += [
                FieldProblem(f"{pointer}/{name}", f"an answer of kind {self.kind.value} takes no {name}")
                for name, bound in (("min", self.minimum), ("max", self.maximum))
                if bound is not None
            ]
        if self.unit is not None:
            if self.kind is not AnswerKind.NUMBER:
                found.append(FieldProblem(f"{pointer}/unit", f"an answer of kind {self.kind.value} takes no unit"))
            elif problem := text_problem(self.unit, max_bytes=MAX_UNIT_BYTES):
                found.append(FieldProblem(f"{pointer}/unit", problem))
        return found

    def _option_problems(self, pointer: str) -> list[FieldProblem]:
        found = []
        if not MIN_OPTIONS <= len(self.options) <= MAX_OPTIONS:
            found.append(
                FieldProblem(
                    pointer, f"has {counted(len(self.options), 'option')}, {MIN_OPTIONS} to {MAX_OPTIONS} are taken"
                )
            )
        seen: dict[tuple[int, str], int] = {}
        for number, option in enumerate(self.options[:MAX_OPTIONS]):
            keys = list(enumerate(look_alike_keys(option)))
            like = next((seen[key] for key in keys if key in seen), None)
            if problem := text_problem(option, max_bytes=MAX_OPTION_BYTES):
                found.append(FieldProblem(f"{pointer}/{number}", problem))
            elif like is not None:
                found.append(FieldProblem(f"{pointer}/{number}", f"reads the same as option number {like + 1}"))
            for key in keys:
                seen.setdefault(key, number)
        return found

    def _range_problems(self, pointer: str) -> list[FieldProblem]:
        found = []
        for name, bound in (("min", self.minimum), ("max", self.maximum)):
            if bound is None or not math.isfinite(bound):
                found.append(FieldProblem(f"{pointer}/{name}", "a score needs a finite number here"))
        if not found and self.minimum is not None and self.maximum is not None and self.minimum >= self.maximum:
            found.append(FieldProblem(f"{pointer}/max", "must be greater than min"))
        return found


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked: a text, an optional context, and the kind of answer."""

    text: str
    context: str | None = None
    answer: AnswerFormat = field(default_factory=AnswerFormat)

    def problems(self) -> list[FieldProblem]:
        """What keeps this question from being asked."""
        found = []
        if problem := text_problem(self.text, max_bytes=MAX_QUESTION_BYTES):
            found.append(FieldProblem("/question", problem))
        if self.context is not None and (problem := text_problem(self.context, max_bytes=MAX_CONTEXT_BYTES)):
            found.append(FieldProblem("/context", problem))
        return found + self.answer.problems()
