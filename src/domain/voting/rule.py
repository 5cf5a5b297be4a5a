"""Rules: which ones turn ballots of a kind into an outcome, and the one call that does it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from domain.errors.deliberation import FieldProblem
from domain.models.outcome import Outcome, Synthesis
from domain.models.question import AnswerFormat, AnswerKind
from domain.voting.approval import approval
from domain.voting.ballot import Ballot
from domain.voting.condorcet import Strength, copeland, minimax, schulze
from domain.voting.lottery import drawn
from domain.voting.means import mean_odds_outcome, trimmed_mean_outcome
from domain.voting.median import median_outcome
from domain.voting.plurality import plurality
from domain.voting.positional import borda
from domain.voting.profile import Profile, named_options
from domain.voting.runoff import instant_runoff
from domain.voting.standing import Standing
from domain.voting.synthesis import synthesis_outcome
from domain.voting.tally import first_choice
from domain.voting.threshold import threshold
from domain.voting.weights import UNITS_OF_A_WEIGHTED_VOTE

__all__ = [
    "FRACTION_BOUNDS",
    "LOTTERY",
    "NO_TIE_BREAK",
    "WEIGHTED_BY_CONFIDENCE",
    "WEIGHTED_BY_RECORD",
    "Rule",
    "RuleKind",
    "applicable",
    "apply_rule",
    "default_rule",
    "rules_for",
]

LOTTERY = "lottery"
"""A tie break: the seed of the deliberation draws."""

WEIGHTED_BY_CONFIDENCE = "confidence"
"""A ballot counts as much as its agent said it was sure."""

WEIGHTED_BY_RECORD = "record"
"""A ballot counts as much as its agent was right before, where questions were resolved."""

FRACTION_BOUNDS = (0, 1)
"""A fraction is more than the first and at most the second; that of a trimmed mean is less than a half."""

NO_TIE_BREAK = "none"
"""The same as no tie break: a tie stays one."""


class RuleKind(StrEnum):
    """The rules that can be applied."""

    PLURALITY = "plurality"
    THRESHOLD = "threshold"
    APPROVAL = "approval"
    BORDA = "borda"
    COPELAND = "copeland"
    SCHULZE = "schulze"
    MINIMAX = "minimax"
    IRV = "irv"
    MEDIAN = "median"
    TRIMMED_MEAN = "trimmed_mean"
    MEAN_ODDS = "mean_odds"
    SYNTHESIS = "synthesis"

    @property
    def compares_strengths(self) -> bool:
        """Whether it matters how strong a pairwise win is."""
        return self in {RuleKind.SCHULZE, RuleKind.MINIMAX}


_RANKING_RULES = (
    RuleKind.SCHULZE,
    RuleKind.BORDA,
    RuleKind.COPELAND,
    RuleKind.MINIMAX,
    RuleKind.IRV,
    RuleKind.PLURALITY,
)
_RULES: Mapping[AnswerKind, tuple[RuleKind, ...]] = {
    AnswerKind.CHOICE: (RuleKind.PLURALITY, RuleKind.THRESHOLD),
    AnswerKind.VERDICT: (RuleKind.THRESHOLD, RuleKind.PLURALITY),
    AnswerKind.APPROVAL: (RuleKind.APPROVAL,),
    AnswerKind.RANKING: _RANKING_RULES,
    AnswerKind.SCORE: (RuleKind.MEDIAN, RuleKind.TRIMMED_MEAN),
    AnswerKind.PROBABILITY: (RuleKind.MEDIAN, RuleKind.TRIMMED_MEAN, RuleKind.MEAN_ODDS),
    AnswerKind.NUMBER: (RuleKind.MEDIAN, RuleKind.TRIMMED_MEAN),
    AnswerKind.TEXT: (RuleKind.SYNTHESIS,),
}
_DEFAULT_FRACTIONS: Mapping[RuleKind, float] = {RuleKind.THRESHOLD: 0.5, RuleKind.TRIMMED_MEAN: 0.1}


@dataclass(frozen=True, slots=True)
class Rule:
    """How ballots become an outcome.

    `fraction` is the share of all asked that a threshold wants, or the share of the numbers that a trimmed mean drops at each end.
    `tie_break` is what breaks a tie: nothing when None or `none`, the `lottery`, or the kind of another rule, which is applied to
    the tied options alone. `strength` is of pairwise wins, for schulze and minimax: `winning_votes` or `margins`. `weighted_by` is
    None, `confidence` or `record`; then `weights` has the hundredths of a vote of each agent, a whole one for whoever is not in it.
    """

    kind: RuleKind
    fraction: float | None = None
    tie_break: str | None = None
    strength: str | None = None
    weighted_by: str | None = None
    weights: Mapping[str, int] = field(default_factory=dict, hash=False)

    def problems(self, answer: AnswerFormat, pointer: str = "/rule") -> list[FieldProblem]:
        """What keeps this rule from being applied to answers of that format."""
        found = {
            "kind": self._kind_problem(answer),
            "fraction": self._fraction_problem(),
            "tie_break": self._tie_break_problem(answer),
            "strength": self._strength_problem(),
            "weighted_by": self._weight_problem(),
        }
        return [FieldProblem(f"{pointer}/{name}", problem) for name, problem in found.items() if problem]

    @property
    def breaks_ties_by(self) -> str | None:
        """What breaks a tie, or None where it stays one."""
        return None if self.tie_break == NO_TIE_BREAK else self.tie_break

    @property
    def needs_seed(self) -> bool:
        """Whether it can come to a lottery, which draws from the seed of the deliberation."""
        return self.tie_break == LOTTERY

    def settings(self) -> dict[str, str | float]:
        """What is set besides the kind and the fraction, by its name."""
        named = {"tie_break": self.breaks_ties_by, "strength": self.strength, "weighted_by": self.weighted_by}
        return {name: value for name, value in named.items() if value is not None}

    def _kind_problem(self, answer: AnswerFormat) -> str | None:
        allowed = rules_for(answer.kind)
        if self.kind in allowed:
            return None
        return f"answers of kind {answer.kind.value} are counted by {', '.join(rule.value for rule in allowed)}"

    def _fraction_problem(self) -> str | None:
        if self.fraction is None:
            return None
        if self.kind not in _DEFAULT_FRACTIONS:
            return f"the rule {self.kind.value} takes no fraction"
        if self.kind is RuleKind.TRIMMED_MEAN:
            return None if 0 < self.fraction < 0.5 else "must be more than 0 and less than 0.5"
        none, most = FRACTION_BOUNDS
        return None if none < self.fraction <= most else f"must be more than {none} and at most {most}"

    def _tie_break_problem(self, answer: AnswerFormat) -> str | None:
        if self.tie_break is None or self.tie_break == NO_TIE_BREAK:
            return None
        if answer.kind.is_estimate:
            return "an estimate is never tied, so no tie is broken"
        others = [kind.value for kind in rules_for(answer.kind) if kind is not self.kind]
        if self.tie_break == LOTTERY or self.tie_break in others:
            return None
        return f"must be one of {', '.join([NO_TIE_BREAK, LOTTERY, *others])}"

    def _strength_problem(self) -> str | None:
        if self.strength is None:
            return None
        if not self.kind.compares_strengths:
            return f"the rule {self.kind.value} takes no strength"
        names = [strength.value for strength in Strength]
        return None if self.strength in names else f"must be one of {', '.join(names)}"

    def _weight_problem(self) -> str | None:
        if self.weighted_by is None:
            return None
        if self.kind is RuleKind.SYNTHESIS:
            return f"the rule {self.kind.value} takes no weights"
        if self.weighted_by not in {WEIGHTED_BY_CONFIDENCE, WEIGHTED_BY_RECORD}:
            return f"must be {WEIGHTED_BY_CONFIDENCE} or {WEIGHTED_BY_RECORD}"
        return None


def rules_for(kind: AnswerKind) -> tuple[RuleKind, ...]:
    """The rules that answers of that kind can be counted by, the default first."""
    return _RULES[kind]


def default_rule(kind: AnswerKind) -> Rule:
    """The rule that is used when none is named."""
    return _by_default(rules_for(kind)[0])


def applicable(answer: AnswerFormat) -> tuple[Rule, ...]:
    """Every rule that fits these answers, as it is by default, the default one first."""
    return tuple(_by_default(kind) for kind in rules_for(answer.kind))


def apply_rule(
    rule: Rule,
    answer: AnswerFormat,
    ballots: Sequence[Ballot],
    *,
    asked: int,
    seed: int | None = None,
    synthesis: Synthesis | None = None,
) -> Outcome:
    """The outcome of these ballots, abstentions included, when `asked` agents were asked. Pure and exact.

    A lottery draws from `seed`; without one a tie stays a tie. Texts are clustered by what `synthesis` says where it is given, and
    by their words where it is not.
    """
    weighted = rule.weighted_by is not None
    if rule.weighted_by == WEIGHTED_BY_RECORD:
        # What was learned of an agent stands where its confidence would: both are counted in hundredths of a vote.
        ballots = [replace(each, confidence=_learned(rule, each.agent_id)) for each in ballots]
    fraction = rule.fraction if rule.fraction is not None else _DEFAULT_FRACTIONS.get(rule.kind, 0.0)
    if rule.kind is RuleKind.MEDIAN:
        return median_outcome(ballots, weighted=weighted)
    if rule.kind is RuleKind.TRIMMED_MEAN:
        return trimmed_mean_outcome(ballots, fraction=fraction, weighted=weighted)
    if rule.kind is RuleKind.MEAN_ODDS:
        return mean_odds_outcome(ballots, weighted=weighted)
    if rule.kind is RuleKind.SYNTHESIS:
        return synthesis_outcome(ballots, synthesis, lottery_seed=seed if rule.needs_seed else None)
    options = ("yes", "no") if answer.kind is AnswerKind.VERDICT else answer.options
    profile = Profile.of(ballots, options, weighted=weighted)
    draw = None
    if rule.needs_seed and seed is not None:
        place = {option: number for number, option in enumerate(options)}
        draw = [place[option] for option in drawn(options, seed)]
    standing = _standing(rule, profile, asked=asked, fraction=fraction, draw=draw)
    broken_by = None
    if len(standing.first) > 1 and not standing.is_short and rule.breaks_ties_by is not None:
        winner = (
            _by_another_rule(rule, answer, profile, ballots, standing, asked=asked)
            if not rule.needs_seed
            else None
            if draw is None
            else next(option for option in draw if option in standing.first)
        )
        if winner is not None:
            standing, broken_by = standing.won_by(winner), rule.breaks_ties_by
    return standing.outcome(
        rule.kind.value,
        profile,
        ballots,
        position_of=_position_of(answer, standing, profile),
        shows_places=answer.kind in {AnswerKind.APPROVAL, AnswerKind.RANKING},
        tie_break=broken_by,
    )


def _learned(rule: Rule, agent_id: str) -> float:
    return rule.weights.get(agent_id, UNITS_OF_A_WEIGHTED_VOTE) / UNITS_OF_A_WEIGHTED_VOTE


def _by_default(kind: RuleKind) -> Rule:
    return Rule(kind, _DEFAULT_FRACTIONS.get(kind))


def _standing(rule: Rule, profile: Profile, *, asked: int, fraction: float, draw: Sequence[int] | None) -> Standing:
    strength = Strength(rule.strength) if rule.strength is not None else Strength.WINNING_VOTES
    by_kind: Mapping[RuleKind, Callable[[], Standing]] = {
        RuleKind.PLURALITY: lambda: plurality(profile),
        RuleKind.THRESHOLD: lambda: threshold(profile, asked=asked, fraction=fraction),
        RuleKind.APPROVAL: lambda: approval(profile),
        RuleKind.BORDA: lambda: borda(profile),
        RuleKind.COPELAND: lambda: copeland(profile),
        RuleKind.SCHULZE: lambda: schulze(profile, strength),
        RuleKind.MINIMAX: lambda: minimax(profile, strength),
        RuleKind.IRV: lambda: instant_runoff(profile, draw=draw),
    }
    return by_kind[rule.kind]()


def _by_another_rule(
    rule: Rule, answer: AnswerFormat, profile: Profile, ballots: Sequence[Ballot], standing: Standing, *, asked: int
) -> int | None:
    """The place of the option that another rule prefers among the tied ones; None where they are tied under that rule too."""
    tied = tuple(profile.options[option] for option in standing.first)
    among = replace(answer, options=tied if answer.kind.has_options else ())
    second = Rule(RuleKind(str(rule.tie_break)), weighted_by=rule.weighted_by, weights=rule.weights)
    found = apply_rule(second, among, [_only(ballot, tied) for ballot in ballots], asked=asked)
    return profile.options.index(found.decision) if isinstance(found.decision, str) else None


def _only(ballot: Ballot, options: tuple[str, ...]) -> Ballot:
    """The ballot as far as it names these options; one that names none of them abstains."""
    named = tuple(option for option in named_options(ballot.answer) if option in options)
    if isinstance(ballot.answer, tuple):
        return replace(ballot, answer=named or None)
    return replace(ballot, answer=named[0] if named else None)


def _position_of(answer: AnswerFormat, standing: Standing, profile: Profile) -> Callable[[Ballot], str | None]:
    if answer.kind is not AnswerKind.APPROVAL:
        return first_choice
    votes = dict(zip(profile.options, standing.tally, strict=True))
    winner = profile.options[standing.first[0]] if len(standing.first) == 1 else None

    def leading(ballot: Ballot) -> str:
        """Of what the ballot approves, what won, else what most approve; of several by the order of their names."""
        named = named_options(ballot.answer)
        if not named:
            return "none of the options"
        return winner if winner in named else min(named, key=lambda option: (-votes[option], option))

    return leading
