"""What earlier deliberations know about the agents of this one: their blind ballots, question by question."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import cast

from domain.models.question import AnswerFormat, AnswerKind
from domain.voting.ballot import Answer

__all__ = ["PastAnswer", "PastBallots", "Voice", "category_of"]

_NAMED = frozenset({AnswerKind.CHOICE, AnswerKind.VERDICT})

Voice = tuple[str, str | None]
"""Who speaks: the id of an agent and the model that answered for it. Another model makes another voice of the same agent."""


@dataclass(frozen=True, slots=True)
class PastAnswer:
    """What an agent answered in one round of an earlier deliberation, and which model answered for it."""

    round_number: int
    agent_id: str
    model: str | None
    answer: Answer


@dataclass(frozen=True, slots=True)
class PastBallots:
    """The answers of one earlier deliberation: each voice's blind one, and how many held the largest position at its end.

    `truth` is what the question was resolved as, None while nobody knows. `final_agreement` is the share (0 to 1) of those who
    answered that held the largest position in the end, None where answers are not counted.
    """

    deliberation_id: str
    finished_at: datetime
    answer: AnswerFormat
    blind: Mapping[Voice, Answer] = field(default_factory=dict)
    final_agreement: float | None = None
    truth: Answer = None
    categories: Mapping[Voice, str] = field(init=False, repr=False, compare=False)
    """What each voice's answer counts as when agents are compared; without those whose answers are no categories."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "categories", self._categories())

    @classmethod
    def of(
        cls,
        deliberation_id: str,
        finished_at: datetime,
        answer: AnswerFormat,
        given: Iterable[PastAnswer],
        *,
        truth: Answer = None,
    ) -> PastBallots:
        """The ballots in these answers, of which round 0 is the blind one, and an agent's last one that fits is its final one."""
        blind: dict[Voice, Answer] = {}
        last: dict[str, str] = {}
        known = ("yes", "no") if answer.kind is AnswerKind.VERDICT else answer.options
        for each in sorted(given, key=lambda one: one.round_number):
            category = category_of(each.answer, answer.kind)
            # What is answered between the rounds that count, a review say, names something else.
            if category is not None and category in known:
                last[each.agent_id] = category
            if each.round_number == 0:
                blind[_voice(each.agent_id, each.model)] = _shared(each.answer)
        held = Counter(last.values())
        share = max(held.values()) / sum(held.values()) if held else None
        return cls(deliberation_id, finished_at, answer, blind, share, truth)

    def _categories(self) -> Mapping[Voice, str]:
        if self.answer.kind is AnswerKind.RANKING:
            return {voice: given[0] for voice, given in self.blind.items() if isinstance(given, tuple) and given}
        if self.answer.kind in _NAMED:
            named = {voice: given for voice, given in self.blind.items() if isinstance(given, str)}
            return named if len(named) < len(self.blind) else cast("Mapping[Voice, str]", self.blind)
        return {}


# Hundreds of earlier deliberations are kept in memory, and the same agents give the same few answers in most of them.
@lru_cache(maxsize=4096)
def _voice(agent_id: str, model: str | None) -> Voice:
    return agent_id, model


def _shared(answer: Answer) -> Answer:
    return sys.intern(answer) if type(answer) is str else answer


def category_of(answer: Answer, kind: AnswerKind) -> str | None:
    """What an answer counts as when agents are compared: the option, the verdict, or the first of a ranking; else None."""
    if kind is AnswerKind.RANKING and isinstance(answer, tuple) and answer:
        return answer[0]
    if kind in _NAMED and isinstance(answer, str):
        return answer
    return None
