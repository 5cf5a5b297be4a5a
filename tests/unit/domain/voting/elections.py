"""Elections as the tests write them: counts of ballots, cast and counted by a rule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from domain.models.outcome import Outcome
from domain.models.question import AnswerFormat, AnswerKind
from domain.voting.ballot import Answer, Ballot
from domain.voting.rule import Rule, RuleKind, apply_rule

__all__ = ["RANKING_RULES", "ballots", "cast", "count", "decision", "letters", "ranked"]

RANKING_RULES = ("schulze", "borda", "copeland", "minimax", "irv", "plurality")


def ballots(*answers: Answer) -> list[Ballot]:
    """One ballot for each answer, with a reason."""
    return [Ballot(f"archon-{n}", answer, None, f"reason {n}") for n, answer in enumerate(answers, 1)]


def cast(counts: Mapping[tuple[str, ...], int]) -> list[Ballot]:
    """So many ballots of each kind."""
    return ballots(*[answer for answer, number in counts.items() for _ in range(number)])


def letters(text: str) -> list[Ballot]:
    """`5 ACB, 3 BA`: five ballots that rank A, C, B, and three that rank B, A."""
    counted = (part.split() for part in text.split(","))
    return ballots(*[tuple(order) for number, order in counted for _ in range(int(number))])


def count(
    rule: Rule | str, options: Sequence[str], given: Sequence[Ballot], *, kind: str = "ranking", seed: int | None = None
) -> Outcome:
    """The outcome when everyone who was asked cast one of these."""
    answer = AnswerFormat(AnswerKind(kind), tuple(options) if AnswerKind(kind).has_options else ())
    chosen = rule if isinstance(rule, Rule) else Rule(RuleKind(rule))
    return apply_rule(chosen, answer, given, asked=len(given), seed=seed)


def decision(rule: Rule | str, options: Sequence[str], given: Sequence[Ballot]) -> object:
    """What is decided, or the status where nothing is."""
    outcome = count(rule, options, given)
    return outcome.status.value if outcome.decision is None else outcome.decision


def ranked(outcome: Outcome) -> list[set[str]]:
    """The options by place, those that share one together; nothing where no ballot counted."""
    by_place: dict[int, set[str]] = {}
    if not outcome.places:
        return []
    for option, place in zip(outcome.tally, outcome.places, strict=True):
        by_place.setdefault(place, set()).add(option)
    return [by_place[place] for place in sorted(by_place)]
