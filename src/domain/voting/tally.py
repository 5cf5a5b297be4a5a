"""First choices, and who holds which position: what the counting rules share."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from domain.models.outcome import Dissent, Position
from domain.voting.ballot import Ballot

__all__ = ["MAX_REASONS", "first_choice", "report_dissent"]

MAX_REASONS = 72


def first_choice(ballot: Ballot) -> str | None:
    """The option a ballot puts first, or None when it abstains."""
    if isinstance(ballot.answer, tuple):
        return ballot.answer[0] if ballot.answer else None
    return ballot.answer if isinstance(ballot.answer, str) else None


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
