"""A standing: what a rule makes of a profile before ties are broken, and the outcome that follows from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from domain.models.outcome import Outcome, OutcomeStatus
from domain.voting.ballot import Ballot
from domain.voting.profile import Profile
from domain.voting.tally import report_dissent
from domain.voting.weights import amount

__all__ = ["Standing", "by_score", "by_votes"]


@dataclass(frozen=True, slots=True)
class Standing:
    """Who stands where: `groups` of places of options, the best first, in which those of one group are tied.

    `tally` and `margin` are in units of the profile. `votes_to_flip` is None where it is not defined. A standing that `is_short`
    is one whose best did not reach what the rule wants.
    """

    groups: tuple[tuple[int, ...], ...]
    tally: Sequence[int]
    margin: int
    votes_to_flip: int | None = None
    is_short: bool = False
    scale: int = 1

    @property
    def first(self) -> tuple[int, ...]:
        """The best, in the order of the options; several are tied."""
        return self.groups[0]

    def won_by(self, winner: int) -> Standing:
        """The same with a tie for the first place broken in favour of `winner`."""
        others = tuple(option for option in self.first if option != winner)
        return replace(self, groups=((winner,), others, *self.groups[1:]), margin=0)

    def outcome(
        self,
        rule: str,
        profile: Profile,
        ballots: Sequence[Ballot],
        *,
        position_of: Callable[[Ballot], str | None],
        shows_places: bool,
        tie_break: str | None = None,
    ) -> Outcome:
        """The outcome under the rule of that name; `no_majority` when nobody's ballot counts anything."""
        tally = {option: amount(units, self.scale) for option, units in zip(profile.options, self.tally, strict=True)}
        if not any(order and weight for order, weight in profile.orders):
            return Outcome(OutcomeStatus.NO_MAJORITY, rule, tally=tally, margin=0)
        status = OutcomeStatus.DECIDED if len(self.first) == 1 else OutcomeStatus.TIED
        if self.is_short:
            status = OutcomeStatus.NO_MAJORITY
        decision = profile.options[self.first[0]] if status is OutcomeStatus.DECIDED else None
        return Outcome(
            status,
            rule,
            decision=decision,
            tally=tally,
            margin=0 if len(self.first) > 1 else amount(self.margin, self.scale),
            votes_to_flip=self.votes_to_flip,
            dissent=report_dissent(ballots, position_of, decision),
            places=self._places(len(profile.options)) if shows_places else (),
            tie_break=tie_break,
        )

    def _places(self, size: int) -> tuple[int, ...]:
        places = [0] * size
        taken = 0
        for group in self.groups:
            for option in group:
                places[option] = taken + 1
            taken += len(group)
        return tuple(places)


def by_score(scores: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """The places of options in groups of equal score, the highest first."""
    grouped: dict[int, list[int]] = {}
    for option, score in enumerate(scores):
        grouped.setdefault(score, []).append(option)
    return tuple(tuple(grouped[score]) for score in sorted(grouped, reverse=True))


def by_votes(votes: Sequence[int], *, scale: int) -> Standing:
    """The standing by votes, of which a ballot gives each option one at most, in units of `scale`; the margin is in votes.

    `votes_to_flip` is exact, for whole votes.
    """
    groups = by_score(votes)
    margin = votes[groups[0][0]] - votes[groups[1][0]] if len(groups) > 1 else 0
    flips = None
    if scale == 1:
        # A ballot closes no gap by more than two, and at least as many as the margin name the winner without the runner-up: each of
        # them, replaced by one for the runner-up alone, does close it by two, and nobody else is ahead of the runner-up.
        flips = 1 if len(groups[0]) > 1 else margin // 2 + 1
    return Standing(groups, votes, margin, flips, scale=scale)
