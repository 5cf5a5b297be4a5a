"""The positions that agents hold, in an order that stays the same while they answer: each has its letter from the beginning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from api.report.reading import Reading
from domain.models.deliberation import Specification
from domain.models.question import AnswerFormat, AnswerKind
from domain.voting.ballot import Answer

__all__ = ["Positions", "positions_of"]

_BINS = 5


@dataclass(frozen=True, slots=True)
class Positions:
    """Names in order, who holds which by agent, and how much each has; `is_votes` where that is a share of those asked."""

    names: Sequence[str]
    held: Mapping[str, int]
    counts: Sequence[float] = ()
    is_votes: bool = True


def positions_of(specification: Specification, answers: Mapping[str, Answer], reading: Reading | None) -> Positions:
    """Those of the answers by agent; `reading` is what stands in the record once it ended.

    Options keep the order in which they were asked for. Numbers are told apart by fifths of their range, and texts only once they
    are compared.
    """
    answer = specification.question.answer
    if answer.kind.has_options:
        return _of_options(answer.options, answers, several=answer.kind is AnswerKind.APPROVAL)
    if answer.kind is AnswerKind.VERDICT:
        return _of_options(("yes", "no"), answers, several=False)
    if answer.kind.is_estimate:
        return _of_numbers(answer, answers)
    return Positions((), {}) if reading is None else _as_recorded(reading)


def _of_options(options: Sequence[str], answers: Mapping[str, Answer], *, several: bool) -> Positions:
    """By the first that each agent wants; of approvals each one counts."""
    known = {name: place for place, name in enumerate(options)}
    held: dict[str, int] = {}
    counts = [0.0] * len(options)
    for agent_id, said in answers.items():
        wanted = [known[each] for each in (said if isinstance(said, tuple | list) else (said,)) if each in known]
        if not wanted:
            continue
        held[agent_id] = wanted[0]
        for place in wanted if several else wanted[:1]:
            counts[place] += 1
    return Positions(tuple(options), held, counts)


def _of_numbers(answer: AnswerFormat, answers: Mapping[str, Answer]) -> Positions:
    said = {own: float(value) for own, value in answers.items() if isinstance(value, int | float)}
    low, high = answer.minimum, answer.maximum
    if answer.kind is AnswerKind.PROBABILITY:
        low, high = 0.0, 1.0
    if low is None or high is None:
        low, high = min(said.values(), default=0.0), max(said.values(), default=0.0)
    width = high / _BINS - low / _BINS
    if not said and answer.kind is AnswerKind.NUMBER:
        return Positions((), {})
    if width <= 0:
        return Positions((f"{low:.6g}",), dict.fromkeys(said, 0), [float(len(said))])
    held = {own: min(_BINS - 1, max(0, int((value - low) / width))) for own, value in said.items()}
    counts = [float(sum(place == each for place in held.values())) for each in range(_BINS)]
    unit = f" {answer.unit}" if answer.unit else ""
    names = [f"{low + place * width:.4g} to {low + (place + 1) * width:.4g}{unit}" for place in range(_BINS)]
    return Positions(names, held, counts)


def _as_recorded(reading: Reading) -> Positions:
    names = [each.name for each in reading.positions]
    held = {agent_id: place for place, each in enumerate(reading.positions) for agent_id in each.agents}
    return Positions(names, held, [float(each.count) for each in reading.positions])
