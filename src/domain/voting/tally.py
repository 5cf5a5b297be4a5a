"""Counting first choices and reporting who holds which position: what the counting rules share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from domain.models.outcome import Dissent, Position
from domain.voting.ballot import Ballot

__all__ = ["MAX_REASONS", "first_choice", "leaders", "report_dissent", "tally_first_choices"]

MAX_REASONS = 72


def first_choice(ballot: Ballot) -> str | None:
    """The option a ballot puts first, or None when it abstains."""
    if isinstance(ballot.answer, tuple):
        return ballot.answer[0] if ballot.answer else None
    return ballot.answer if isinstance(ballot.answer, str) else None


def tally_first_choices(ballots: Iterable[Ballot], options: Sequence[str]) -> dict[str, int]:
    """Votes for each option, in the order of the options, zeros included."""
    tally = dict.fromkeys(options, 0)
    for ballot in ballots:
        choice = first_choice(ballot)
        if choice is not None:
            tally[choice] += 1
    return tally


def leaders(tally: Mapping[str, int]) -> tuple[list[str], int, int]:
    """The options with the most votes, how many votes that is, and the votes of the best of the others."""
    most = max(tally.values(), default=0)
    first = [option for option, votes in tally.items() if votes == most]
    return first, most, max((votes for votes in tally.values() if votes < most), default=0)


def report_dissent(
    ballots: Sequence[Ballot], position_of: Callable[[Ballot], str | None], decision: str | None
) -> Dissent:
    """Every position but `decision` with its holders and reasons, the largest first; positions of one size in order of appearance."""
    holders: dict[str, list[Ballot]] = {}
    answered = 0
    for ballot in ballots:
        if ballot.abstains:
            continue
        answered += 1
        position = position_of(ballot)
        if position is not None and position != decision:
            holders.setdefault(position, []).append(ballot)
    positions = tuple(
        Position(
            answer,
            tuple(ballot.agent_id for ballot in held),
            tuple(ballot.reasoning for ballot in held if ballot.reasoning)[:MAX_REASONS],
        )
        for answer, held in sorted(holders.items(), key=lambda item: -len(item[1]))
    )
    if decision is None or not answered:
        return Dissent(None, positions)
    return Dissent(round(100 * sum(position.count for position in positions) / answered, 1), positions)
