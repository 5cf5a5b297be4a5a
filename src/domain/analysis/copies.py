"""Copies: agents that give the same answer more often than their questions explain, over earlier deliberations or word for word."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from domain.analysis.agreement import pair_agreement
from domain.analysis.past import PastBallots, Voice

__all__ = ["CopyGroup", "groups_of_copies", "same_words"]

FAMILY_ERROR = 0.01
"""So likely is it at most that any pair at all is named although all are independent given the questions."""


@dataclass(frozen=True, slots=True)
class CopyGroup:
    """Agents of whom each agrees with another of the group beyond chance; `agreement` is the share of pairs' answers that are equal."""

    agents: tuple[str, ...]
    agreement: float
    questions: int


def groups_of_copies(voices: Sequence[Voice], past: Sequence[PastBallots]) -> tuple[CopyGroup, ...]:
    """The agents that behave as copies of each other on the questions that both answered, largest group first.

    Two agents who are independent given a question agree on it as often as any pair that was asked it. The probability that a
    pair agrees so often or more is bounded by Hoeffding (1963, theorem 1), and a pair is named when the bound times the number
    of pairs (Bonferroni) is below `FAMILY_ERROR`. Pairs that share an agent make one group.
    """
    questions = [column for each in past if (column := _Column.of(each, voices)) is not None]
    if not questions or len(voices) < 2:
        return ()
    table = _BitTable(voices, questions)
    limit = math.log(FAMILY_ERROR / (len(voices) * (len(voices) - 1) / 2))
    links: dict[int, dict[int, tuple[int, int]]] = {}
    for one in range(len(voices)):
        for other in range(one + 1, len(voices)):
            same, common, chance = table.compare(one, other)
            if common and _log_tail(same, common, chance) < limit:
                links.setdefault(one, {})[other] = (same, common)
                links.setdefault(other, {})[one] = (same, common)
    found = []
    for members in _components(links):
        pairs = [links[one][other] for one in members for other in links[one] if other > one]
        same, common = sum(pair[0] for pair in pairs), sum(pair[1] for pair in pairs)
        names = tuple(voices[member][0] for member in members)
        found.append(CopyGroup(names, same / common, common // len(pairs)))
    return tuple(sorted(found, key=lambda group: (-len(group.agents), group.agents)))


def same_words(reasons: Mapping[str, str | None]) -> tuple[tuple[str, ...], ...]:
    """The agents of one round whose reasons are the same word for word, case and spaces apart: groups, the largest first."""
    held: dict[str, list[str]] = {}
    for agent_id, reason in reasons.items():
        words = " ".join(reason.casefold().split()) if reason else ""
        if words:
            held.setdefault(words, []).append(agent_id)
    groups = (tuple(sorted(agents)) for agents in held.values() if len(agents) > 1)
    return tuple(sorted(groups, key=lambda agents: (-len(agents), agents)))


@dataclass(frozen=True, slots=True)
class _Column:
    """One question: a number for the answer of each voice that gave one, and how often a pair agrees on it."""

    codes: Mapping[int, int]
    agreement: float

    @classmethod
    def of(cls, past: PastBallots, voices: Sequence[Voice]) -> _Column | None:
        categories = past.categories()
        codes: dict[str, int] = {}
        given = {
            place: codes.setdefault(categories[voice], len(codes))
            for place, voice in enumerate(voices)
            if voice in categories
        }
        agreement = pair_agreement(list(Counter(given.values()).values()))
        return None if agreement is None else cls(given, agreement)


class _BitTable:
    """The answers of each voice as whole numbers of one bit a question, so that a pair is compared in a few operations."""

    def __init__(self, voices: Sequence[Voice], questions: Sequence[_Column]) -> None:
        self._agreement = [question.agreement for question in questions]
        self._all = (1 << len(questions)) - 1
        self._total = math.fsum(self._agreement)
        largest = max(max(question.codes.values()) for question in questions)
        self._planes = [[0] * max(largest.bit_length(), 1) for _ in voices]
        self._answered = [0] * len(voices)
        for number, question in enumerate(questions):
            bit = 1 << number
            for place, code in question.codes.items():
                self._answered[place] |= bit
                for plane in range(code.bit_length()):
                    if code >> plane & 1:
                        self._planes[place][plane] |= bit

    def compare(self, one: int, other: int) -> tuple[int, int, float]:
        """How often both answered the same, how often both answered, and how often they would agree by chance (0 to 1)."""
        both = self._answered[one] & self._answered[other]
        differs = 0
        for mine, theirs in zip(self._planes[one], self._planes[other], strict=True):
            differs |= mine ^ theirs
        common = both.bit_count()
        chance = self._total
        if both != self._all:
            chance -= math.fsum(self._agreement[place] for place in _bits(self._all & ~both))
        return (both & ~differs).bit_count(), common, chance / common if common else 0.0


def _bits(number: int) -> Iterable[int]:
    while number:
        lowest = number & -number
        yield lowest.bit_length() - 1
        number ^= lowest


def _log_tail(same: int, common: int, chance: float) -> float:
    """The logarithm of a bound on the probability that at least `same` of `common` agree, at a mean chance of `chance`."""
    share = same / common
    if share <= chance or chance >= 1:
        return 0.0
    if chance <= 0:
        return -math.inf
    divergence = share * math.log(share / chance)
    if share < 1:
        divergence += (1 - share) * math.log((1 - share) / (1 - chance))
    return -common * divergence


def _components(links: Mapping[int, Mapping[int, object]]) -> Iterable[list[int]]:
    seen: set[int] = set()
    for start in links:
        if start in seen:
            continue
        members, waiting = [], [start]
        seen.add(start)
        while waiting:
            member = waiting.pop()
            members.append(member)
            fresh = [other for other in links[member] if other not in seen]
            seen.update(fresh)
            waiting += fresh
        yield sorted(members)
