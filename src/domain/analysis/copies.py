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
    table = _BitTable(questions)
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
    """One question: a number from 1 for the answer of each voice, 0 for those that gave none, and how often a pair agrees on it."""

    codes: bytes
    agreement: float

    @classmethod
    def of(cls, past: PastBallots, voices: Sequence[Voice]) -> _Column | None:
        given = list(map(past.categories.get, voices))
        counts = Counter(given)
        del counts[None]
        agreement = pair_agreement(list(counts.values()))
        if agreement is None:
            return None
        codes: dict[str | None, int] = {category: code for code, category in enumerate(counts, start=1)}
        codes[None] = 0
        return cls(bytes(map(codes.__getitem__, given)), agreement)


class _BitTable:
    """The answers of each voice as whole numbers of one bit a question, so that a pair is compared in a few operations."""

    def __init__(self, questions: Sequence[_Column]) -> None:
        self._agreement = [question.agreement for question in questions]
        self._all = (1 << len(questions)) - 1
        self._total = math.fsum(self._agreement)
        largest = max(max(question.codes) for question in questions)
        digits = [_digits(code >> plane & 1 for code in range(256)) for plane in range(largest.bit_length())]
        has_answered = _digits(code > 0 for code in range(256))
        # A voice's codes question by question, the last first, as the digits of a whole number are written.
        rows = [bytes(row) for row in zip(*(question.codes for question in reversed(questions)), strict=True)]
        self._planes = [[int(row.translate(each), 2) for each in digits] for row in rows]
        self._answered = [int(row.translate(has_answered), 2) for row in rows]

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


def _digits(is_one: Iterable[object]) -> bytes:
    """A table that makes of each byte the digit 1 or 0."""
    return bytes(ord("1") if each else ord("0") for each in is_one)


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
