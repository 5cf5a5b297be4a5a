"""A poll: everybody is asked once, at one time or in waves, until the others could not change the decision any more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil

from domain.models.deliberation import Deliberation, Specification
from domain.models.protocol import ProtocolKind
from domain.models.question import AnswerKind
from domain.models.round import AgentRecord
from domain.protocols.proceedings import Proceedings, everybody_answers
from domain.protocols.round_plan import RoundPlan
from domain.voting.profile import Profile
from domain.voting.rule import RuleKind

__all__ = ["Savings", "is_settled", "next_in_poll", "savings_of"]

_CONDORCET = {RuleKind.COPELAND, RuleKind.SCHULZE, RuleKind.MINIMAX}
_COUNTS_FIRST_PLACES = {RuleKind.PLURALITY, RuleKind.THRESHOLD, RuleKind.APPROVAL}


@dataclass(frozen=True, slots=True)
class Savings:
    """What was not spent because a poll stopped early: agents not asked, so many calls at least, and what those asked cost on average."""

    agents: int
    calls: int
    cost_usd: float


def next_in_poll(proceedings: Proceedings) -> RoundPlan | None:
    """The one round, and nothing after it."""
    return None if proceedings.rounds else everybody_answers(proceedings)


def is_settled(specification: Specification, records: Sequence[AgentRecord]) -> bool:
    """Whether the decision is the same whatever those not asked yet would say, or fail to say.

    It never is while the quorum could still be missed, under a rule that weighs ballots or estimates, or by Borda and runoffs, whose
    winner the last ballots may change. Exact: a lead counts only where it is larger than all that is missing.
    """
    everybody = len(specification.roster.agents)
    left = everybody - len(records)
    took_part = sum(record.state.took_part for record in records)
    quorum = Fraction(str(specification.quorum.min_answered_fraction))
    rule, answer = specification.rule, specification.question.answer
    if left <= 0 or Fraction(took_part, everybody) < quorum or rule.weighted_by is not None:
        return False
    if rule.kind not in _COUNTS_FIRST_PLACES | _CONDORCET:
        return False
    options = ("yes", "no") if answer.kind is AnswerKind.VERDICT else answer.options
    ballots = [ballot for record in records if (ballot := record.ballot()) is not None]
    profile = Profile.of(ballots, options, weighted=False)
    if rule.kind in _CONDORCET:
        return _has_safe_winner(profile.pairwise(), left)
    votes = sorted(profile.named() if rule.kind is RuleKind.APPROVAL else profile.first_places(), reverse=True)
    if rule.kind is not RuleKind.THRESHOLD:
        return votes[0] - votes[1] > left
    needed = max(1, ceil(Fraction(str(0.5 if rule.fraction is None else rule.fraction)) * everybody))
    # Either the leader has what it takes of all and nobody can catch up, or nobody can have that any more.
    return (votes[0] >= needed and votes[0] - votes[1] > left) or votes[0] + left < needed


def savings_of(deliberation: Deliberation) -> Savings | None:
    """What a poll that ended early saved; None for anything else."""
    specification, asked = deliberation.specification, deliberation.roll_call.asked
    ended_well = deliberation.status.value in {"completed", "inquorate"}
    left = len(specification.roster.agents) - asked
    if specification.protocol.kind is not ProtocolKind.POLL or not ended_well or not asked or left <= 0:
        return None
    return Savings(left, left, round(deliberation.usage.cost_usd / asked * left, 12))


def _has_safe_winner(preferred: Sequence[Sequence[int]], left: int) -> bool:
    """Whether one option beats each other by more than the ballots that are missing."""
    return any(
        all(mine - preferred[other][option] > left for other, mine in enumerate(preferred[option]) if other != option)
        for option in range(len(preferred))
    )
