"""A jury with a known truth and a known correlation: what measured effective votes are compared with."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from domain.analysis.past import PastBallots, Voice
from domain.models.question import AnswerFormat, AnswerKind

__all__ = ["VERDICT", "hear", "jurors"]

VERDICT = AnswerFormat(AnswerKind.VERDICT)
_BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


def jurors(count: int, *, models: Sequence[str] = ("m",)) -> tuple[Voice, ...]:
    """So many voices, their models in turn."""
    return tuple((f"juror-{number}", models[number % len(models)]) for number in range(count))


def hear(
    voices: Sequence[Voice],
    *,
    questions: int,
    correlation: float,
    competence: float = 0.7,
    always_true: bool = False,
    resolved: bool = False,
    seed: int = 1,
) -> list[PastBallots]:
    """Verdicts in which each juror is right with probability `competence`, and any two with that correlation.

    For each question a share of right ones is drawn from the beta distribution with that mean and correlation, and then each juror
    by itself (the beta-binomial of Skellam, 1948). The truth is `yes` always, or as often as `no`.
    """
    draw = random.Random(seed)
    heard = []
    for number in range(questions):
        share = competence
        if correlation > 0:
            weight = 1 / correlation - 1
            share = draw.betavariate(competence * weight, (1 - competence) * weight)
        truth, lie = ("yes", "no") if always_true or draw.random() < 0.5 else ("no", "yes")
        blind = {voice: truth if draw.random() < share else lie for voice in voices}
        at = _BEGIN + timedelta(hours=number)
        heard.append(PastBallots(f"q-{number}", at, VERDICT, blind, None, truth if resolved else None))
    return heard
