"""Recounts: what other rules would have decided, and what the same rule would have decided without an agent, a model or a persona."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from domain.models.outcome import Outcome, OutcomeStatus
from domain.models.question import AnswerFormat
from domain.voting.ballot import Ballot
from domain.voting.median import quantile
from domain.voting.rule import Rule, RuleKind, applicable, apply_rule

__all__ = ["Count", "LeftOut", "Winner", "leave_out", "winners"]

_MOST_WORK_US = 100_000
"""What leaving one out may take at most, in microseconds of a slow processor by a rough model; else it is not looked for."""

_CONDORCET = frozenset({"copeland", "schulze", "minimax"})


@dataclass(frozen=True, slots=True)
class Winner:
    """What one rule decides on the same ballots."""

    rule: str
    status: OutcomeStatus
    decision: str | float | None


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Who decides alone: without one of `pivotal`, the status or the decision would be another.

    For estimates, where every agent moves the result a little, `low` and `high` are what it would be without one. `looked` is
    false where that would have taken too many recounts; then nothing is said.
    """

    pivotal: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None
    looked: bool = True


@dataclass(frozen=True, slots=True)
class Count:
    """One counting: the ballots with abstentions, how many were asked, by which rule and seed."""

    rule: Rule
    answer: AnswerFormat
    ballots: Sequence[Ballot]
    asked: int
    seed: int | None = None

    def outcome(self, rule: Rule | None = None) -> Outcome:
        """By `rule`, or the one that was agreed on."""
        return apply_rule(rule or self.rule, self.answer, self.ballots, asked=self.asked, seed=self.seed)

    def decision(self) -> tuple[OutcomeStatus, str | float | None]:
        """Status and decision of the outcome by the rule that was agreed on, without the rest of it where that is dear."""
        if self.rule.kind is not RuleKind.MEDIAN or self.rule.weighted_by is not None:
            outcome = self.outcome()
            return outcome.status, outcome.decision
        numbers = sorted(ballot.answer for ballot in self.ballots if isinstance(ballot.answer, float))
        if not numbers:
            return OutcomeStatus.NO_MAJORITY, None
        return OutcomeStatus.DECIDED, quantile(numbers, 0.5)

    def without(self, agents: frozenset[str]) -> Count:
        """The same as if these had never been asked."""
        ballots = [ballot for ballot in self.ballots if ballot.agent_id not in agents]
        return Count(self.rule, self.answer, ballots, self.asked - len(agents), self.seed)


def winners(count: Count) -> tuple[Winner, ...]:
    """What each rule that fits the answers decides, the one agreed on first and as it was agreed on, others as they are by default."""
    rules = [count.rule, *(rule for rule in applicable(count.answer) if rule.kind is not count.rule.kind)]
    outcomes = [count.outcome(rule) for rule in rules]
    return tuple(Winner(outcome.rule, outcome.status, outcome.decision) for outcome in outcomes)


def leave_out(count: Count, groups: Mapping[str, frozenset[str]], outcome: Outcome) -> LeftOut:
    """What leaving out each of these groups of agents in turn would change in `outcome`, that of the whole count.

    A group that is everyone is not left out. Groups whose ballots are the same are counted once, and those that the margin
    already says cannot change anything are not counted at all.
    """
    everyone = {ballot.agent_id for ballot in count.ballots}
    by_agent = {ballot.agent_id: ballot for ballot in count.ballots}
    changing: dict[object, list[str]] = {}
    for name, agents in _telling(count, groups).items():
        if everyone <= agents or len(agents) >= count.asked or _is_safe(count, len(agents), outcome):
            continue
        said = sorted(repr((by_agent[agent].answer, by_agent[agent].confidence)) for agent in agents & everyone)
        changing.setdefault((len(agents), tuple(said)), []).append(name)
    if len(changing) * _work_us(count) > _MOST_WORK_US:
        return LeftOut(looked=False)
    pivotal: list[str] = []
    numbers: list[float] = []
    for names in changing.values():
        status, decision = count.without(groups[names[0]]).decision()
        if isinstance(decision, float):
            numbers.append(decision)
        elif (status, decision) != (outcome.status, outcome.decision) and not count.answer.kind.is_estimate:
            pivotal += names
    return LeftOut(tuple(_in_order(groups, pivotal)), min(numbers, default=None), max(numbers, default=None))


def _in_order(groups: Iterable[str], names: Sequence[str]) -> Iterable[str]:
    wanted = set(names)
    return (name for name in groups if name in wanted)


def _is_safe(count: Count, size: int, outcome: Outcome) -> bool:
    """Whether the margin alone says that so many ballots less change nothing: a vote each, n - 1 points with Borda."""
    margin, rule = outcome.margin, outcome.rule
    if margin is None or outcome.status is not OutcomeStatus.DECIDED:
        return False
    if rule in _CONDORCET:
        # Whoever still beats everybody is elected by each of these; a Copeland margin counts wins and says nothing of votes.
        return rule != "copeland" and margin > size
    if rule == "borda":
        return margin > size * (len(count.answer.options) - 1)
    return rule in {"plurality", "approval"} and margin > size


def _telling(count: Count, groups: Mapping[str, frozenset[str]]) -> Mapping[str, frozenset[str]]:
    """Those of the groups that have to be counted: of single estimates of equal weight the least and the greatest.

    The rules for estimates never fall when a number rises, so no other agent moves the result further by being left out.
    """
    if (
        not count.answer.kind.is_estimate
        or count.rule.weighted_by
        or any(len(agents) != 1 for agents in groups.values())
    ):
        return groups
    given = {ballot.agent_id: ballot.answer for ballot in count.ballots if isinstance(ballot.answer, float)}
    numbers = {name: given[agent] for name, agents in groups.items() for agent in agents if agent in given}
    if not numbers:
        return {}
    ends = {min(numbers, key=numbers.__getitem__), max(numbers, key=numbers.__getitem__)}
    return {name: groups[name] for name in ends}


def _work_us(count: Count) -> int:
    """About how long one recount of 72 ballots takes, as measured with benchmarks/analysis.py."""
    options, rule = len(count.answer.options), count.rule.kind
    if count.answer.kind.is_estimate:
        return 800 if rule is RuleKind.MEDIAN else 12_000
    if rule is RuleKind.SCHULZE:
        return 200 + options**3 // 8
    return 200 + (15 if rule is RuleKind.IRV else 2) * options**2
