"""Scores: how far each answer was from what turned out to be true, 0 for none the further and 1 for wholly wrong (Brier, 1950)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from domain.errors.deliberation import FieldProblem
from domain.models.deliberation import Specification
from domain.models.question import AnswerFormat, AnswerKind
from domain.models.roll_call import AgentState
from domain.models.round import AgentRecord
from domain.protocols.round_format import answers_in
from domain.voting.ballot import Answer
from domain.voting.weights import exactly

__all__ = [
    "Given",
    "Scores",
    "given_answers",
    "is_right",
    "loss_of",
    "loss_of_knowing_nothing",
    "read_truth",
    "recorded_truth",
    "score",
    "truth_of",
    "unanswerable",
]

_VERDICTS = ("yes", "no")
_SURE = Fraction(1)
_HALF = Fraction(1, 2)


@dataclass(frozen=True, slots=True)
class Given:
    """What an agent answered last to the question itself, which model answered for it, and how sure it was (0 to 1), if it said so."""

    agent_id: str
    model: str | None
    answer: Answer
    confidence: float | None = None


@dataclass(frozen=True, slots=True)
class Scores:
    """Each agent's score, None for whoever did not answer, and that of all answers taken together.

    `brier` is None where nobody answered, and for numbers, which have no range to be measured by; `error` is by how much the decision
    is greater than the truth, None where it is no number. `correct` says whether the decision is what turned out to be true.
    """

    agents: Mapping[str, float | None]
    brier: float | None
    correct: bool | None
    error: float | None = None


def read_truth(answer: AnswerFormat, told: object, pointer: str = "/answer") -> Answer | FieldProblem:
    """What a question of that kind is resolved as, or what keeps `told` from being that.

    A choice is an option; a verdict `yes`, `no` or a truth value; a probability 0 to 1, or as a verdict; a score and a number are
    numbers; an approval is a list of options or one; a ranking is a list of some of them, best first, or the best alone.
    """
    kind = answer.kind
    if kind is AnswerKind.TEXT:
        return FieldProblem(pointer, unanswerable(answer) or "")
    if kind is AnswerKind.CHOICE:
        return str(told) if _is_option(told, answer) else FieldProblem(pointer, "must be one of the options")
    if kind is AnswerKind.VERDICT:
        verdict = _VERDICTS[not told] if isinstance(told, bool) else told
        if isinstance(verdict, str) and verdict in _VERDICTS:
            return verdict
        return FieldProblem(pointer, "must be yes or no")
    if kind.is_estimate:
        return _number(answer, told, pointer)
    named = told if isinstance(told, list) else [told]
    if not all(_is_option(each, answer) for each in named) or len(set(named)) < len(named):
        return FieldProblem(pointer, "must be options, each at most once")
    if kind is AnswerKind.RANKING and not named:
        return FieldProblem(pointer, "must name at least the best option")
    return tuple(named)


def unanswerable(answer: AnswerFormat) -> str | None:
    """Why questions of that kind cannot be resolved, or None where they can."""
    return "answers in words cannot be held against a truth" if answer.kind is AnswerKind.TEXT else None


def recorded_truth(answer: AnswerFormat, truth: Answer) -> object:
    """The truth as an entry holds it: places of options, `yes` or `no`, or a number."""
    if isinstance(truth, tuple):
        return [answer.options.index(option) for option in truth]
    if answer.kind is AnswerKind.CHOICE and isinstance(truth, str):
        return answer.options.index(truth)
    return truth


def truth_of(answer: AnswerFormat, recorded: object) -> Answer:
    """The inverse of `recorded_truth`. Raises `ValueError` for what is no truth of that kind."""
    told = recorded
    if answer.kind.has_options:
        places: list[Any] = recorded if isinstance(recorded, list) else [recorded]
        if any(type(place) is not int or not 0 <= place < len(answer.options) for place in places):
            raise ValueError("the truth names no places of the options")
        told = [answer.options[place] for place in places] if isinstance(recorded, list) else answer.options[places[0]]
        if isinstance(recorded, list) is (answer.kind is AnswerKind.CHOICE):
            raise ValueError("the truth is a list where there is one, or none where there is a list")
    elif isinstance(recorded, bool):
        raise ValueError("a truth value is recorded as yes, no or a number")
    truth = read_truth(answer, told)
    if isinstance(truth, FieldProblem):
        raise ValueError(f"the truth {truth.message}")  # noqa: TRY004 - what was recorded has a wrong value
    return truth


def given_answers(specification: Specification, records: Iterable[AgentRecord]) -> list[Given]:
    """Each agent's last answer to the question itself, in the order of the roster; not what it said of the answers of others."""
    question, agents = specification.question.answer, [agent.id for agent in specification.roster.agents]
    last: dict[str, AgentRecord] = {}
    for record in sorted(records, key=lambda each: each.round_number):
        number = record.round_number
        if record.state is not AgentState.ANSWERED:
            continue
        if number == 0 or answers_in(specification.protocol, question, len(agents), number) == question:
            last[record.agent_id] = record
    return [
        Given(agent, last[agent].model, last[agent].answer, last[agent].confidence) for agent in agents if agent in last
    ]


def score(
    answer: AnswerFormat,
    given: Sequence[Given],
    truth: Answer,
    *,
    members: Iterable[str],
    completed: bool,
    decision: str | float | None,
) -> Scores:
    """Everybody's score on this question, and that of its outcome, where it was completed."""
    by_agent = {each.agent_id: float(loss_of(answer, truth, each, given)) for each in given}
    agents = {agent_id: by_agent.get(agent_id) for agent_id in members}
    # What common ground is found on has a name of its own, which is none of the answers.
    if isinstance(decision, str) and decision not in (answer.options or _VERDICTS):
        decision = None
    brier: Fraction | None = None
    if completed and given:
        brier = _together(answer, truth, given, decision)
    right = None if decision is None else is_right(answer, truth, decision)
    error = None
    if isinstance(decision, int | float) and isinstance(truth, int | float):
        error = float(exactly(float(decision)) - exactly(float(truth)))
    return Scores(agents, None if brier is None else float(brier), right, error)


def loss_of(answer: AnswerFormat, truth: Answer, given: Given, everybody: Sequence[Given]) -> Fraction:
    """The score of one answer, exactly, from 0 to 1.

    Of a choice or verdict half the squared distance of the agent's forecast from the truth: its confidence, all of it where it said
    none, lies on what it named and the rest evenly on the others. Of a probability the squared error; of a score that in parts of the
    range. Of an approval the share of options that it has wrong, of a ranking the share of pairs, half of each where it names neither.
    Of a number the error beside that of the median of `everybody`: a half where they are the same.
    """
    said, kind = given.answer, answer.kind
    if kind in {AnswerKind.CHOICE, AnswerKind.VERDICT}:
        sure = _SURE if given.confidence is None else exactly(given.confidence)
        others = max(_size(answer) - 1, 1)
        rest = (1 - sure) / others
        if said == truth:
            return ((1 - sure) ** 2 + others * rest**2) / 2
        return (sure**2 + (1 - rest) ** 2 + (others - 1) * rest**2) / 2
    if kind is AnswerKind.APPROVAL:
        named, right = set(_named(said)), set(_named(truth))
        return Fraction(len(named ^ right), len(answer.options))
    if kind is AnswerKind.RANKING:
        pairs = _pairs(answer, truth)
        return sum((_against(said, better, worse) for better, worse in pairs), Fraction(0)) / len(pairs)
    off = abs(_exact(said) - _exact(truth))
    if kind is AnswerKind.NUMBER:
        usual = _median([abs(_exact(each.answer) - _exact(truth)) for each in everybody])
        return off / (off + usual) if off else Fraction(0)
    return (off / _range(answer)) ** 2


def loss_of_knowing_nothing(answer: AnswerFormat, truth: Answer) -> Fraction:
    """The score of whoever knows nothing: who names every option as likely as any other, or any number of the range."""
    if answer.kind in {AnswerKind.CHOICE, AnswerKind.VERDICT}:
        return (1 - Fraction(1, _size(answer))) / 2
    if answer.kind is AnswerKind.PROBABILITY:
        return (_HALF - _exact(truth)) ** 2
    if answer.kind is AnswerKind.SCORE:
        low = _exact(answer.minimum if answer.minimum is not None else 0.0)
        return Fraction(1, 12) + ((_exact(truth) - low) / _range(answer) - _HALF) ** 2
    return _HALF


def is_right(answer: AnswerFormat, truth: Answer, said: Answer) -> bool | None:
    """Whether that is what turned out to be true; None for numbers, which are nearer to it or further."""
    if answer.kind.is_estimate:
        return None
    if answer.kind is AnswerKind.RANKING:
        return _named(said)[:1] == _named(truth)[:1]
    if answer.kind is AnswerKind.APPROVAL:
        return set(_named(said)) <= set(_named(truth))
    return said == truth


def _together(
    answer: AnswerFormat, truth: Answer, given: Sequence[Given], decision: str | float | None
) -> Fraction | None:
    """The score of the shares in which everybody answered, as a forecast; of an estimate that of the decision."""
    if answer.kind.is_estimate:
        if not isinstance(decision, int | float) or answer.kind is AnswerKind.NUMBER:
            return None
        return ((_exact(decision) - _exact(truth)) / _range(answer)) ** 2
    count = len(given)
    if answer.kind is AnswerKind.RANKING:
        pairs = _pairs(answer, truth)
        shares = [
            sum((_against(each.answer, better, worse) for each in given), Fraction(0)) / count
            for better, worse in pairs
        ]
        return sum((share**2 for share in shares), Fraction(0)) / len(pairs)
    options = answer.options or _VERDICTS
    right = set(_named(truth))
    named = {option: sum(option in _named(each.answer) for each in given) for option in options}
    off = sum((Fraction(named[option], count) - (option in right)) ** 2 for option in options)
    return Fraction(off) / (len(options) if answer.kind is AnswerKind.APPROVAL else 2)


def _number(answer: AnswerFormat, told: object, pointer: str) -> float | FieldProblem:
    if answer.kind is AnswerKind.PROBABILITY and (isinstance(told, bool) or told in _VERDICTS):
        told = 1.0 if told in (True, "yes") else 0.0
    if isinstance(told, bool) or not isinstance(told, int | float):
        return FieldProblem(pointer, "must be a number")
    try:
        number = float(told)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        return FieldProblem(pointer, "must be a finite number")
    low, high = (0.0, 1.0) if answer.kind is AnswerKind.PROBABILITY else (answer.minimum, answer.maximum)
    if (low is not None and number < low) or (high is not None and number > high):
        return FieldProblem(
            pointer, f"must be {low:g} to {high:g}" if low is not None and high is not None else "is out of range"
        )
    return number


def _is_option(told: object, answer: AnswerFormat) -> bool:
    return isinstance(told, str) and told in answer.options


def _size(answer: AnswerFormat) -> int:
    return len(answer.options or _VERDICTS)


def _named(said: Answer) -> tuple[str, ...]:
    if isinstance(said, tuple):
        return said
    return (said,) if isinstance(said, str) else ()


def _pairs(answer: AnswerFormat, truth: Answer) -> list[tuple[str, str]]:
    """Each two options of which the truth says which is the better one: whoever it names is better than whoever it does not."""
    named = _named(truth)
    rest = [option for option in answer.options if option not in named]
    return [
        (better, worse)
        for place, better in enumerate(named)
        for worse in (*named[place + 1 :], *rest)
        if better != worse
    ]


def _against(said: Answer, better: str, worse: str) -> Fraction:
    """1 where that ballot has the pair the wrong way round, a half where it names neither."""
    named = _named(said)
    if better not in named and worse not in named:
        return _HALF
    ranks = [named.index(each) if each in named else len(named) for each in (better, worse)]
    return Fraction(int(ranks[0] > ranks[1]))


def _range(answer: AnswerFormat) -> Fraction:
    if answer.kind is AnswerKind.SCORE and answer.minimum is not None and answer.maximum is not None:
        return _exact(answer.maximum) - _exact(answer.minimum)
    return Fraction(1)


def _exact(number: Answer) -> Fraction:
    return exactly(float(number)) if isinstance(number, int | float) else Fraction(0)


def _median(numbers: Sequence[Fraction]) -> Fraction:
    ordered = sorted(numbers)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
