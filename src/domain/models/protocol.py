"""Protocols: how many rounds a deliberation has, who is asked at one time, and who sees what of the others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from domain.errors.deliberation import FieldProblem
from domain.models.agent import Agent
from domain.models.agent_pool import MAX_CONCURRENT_AGENTS

__all__ = ["MAX_ROUNDS", "SETTING_BOUNDS", "Protocol", "ProtocolKind"]

MAX_ROUNDS = 10
"""The most rounds that a deliberation has, the blind one among them."""


class ProtocolKind(StrEnum):
    """The protocols that can be run."""

    POLL = "poll"
    DELPHI = "delphi"
    PEER_REVIEW = "peer_review"
    DEBATE = "debate"
    COMMON_GROUND = "common_ground"


# Of each setting: the least and the most that it may be, and what it is where it is not given. No two kinds share a name.
_SETTINGS: Mapping[ProtocolKind, Mapping[str, tuple[int, int, int | None]]] = {
    ProtocolKind.POLL: {"wave_size": (1, MAX_CONCURRENT_AGENTS, None)},
    ProtocolKind.DELPHI: {"max_rounds": (1, MAX_ROUNDS - 1, 3)},
    ProtocolKind.PEER_REVIEW: {"reviewers_per_answer": (1, MAX_CONCURRENT_AGENTS - 1, 3)},
    ProtocolKind.DEBATE: {"rounds": (1, MAX_ROUNDS - 2, 2), "neighbours": (1, MAX_CONCURRENT_AGENTS - 1, 4)},
    ProtocolKind.COMMON_GROUND: {},
}
SETTING_BOUNDS: Mapping[str, tuple[int, int]] = {
    name: (least, most) for settings in _SETTINGS.values() for name, (least, most, _) in settings.items()
}
"""Of each setting by its name: the least and the most that it may be."""


@dataclass(frozen=True, slots=True)
class Protocol:
    """How a deliberation goes on from its blind round, and the settings of that kind; those of other kinds are refused.

    `wave_size` agents of a poll are asked at one time. `max_rounds` counts the revisions of a delphi after its blind round,
    `reviewers_per_answer` those who review an answer, `rounds` the exchanges of a debate between its blind round and its vote, in
    which each agent sees `neighbours` others. None takes the default, which for a wave is everybody.
    """

    kind: ProtocolKind = ProtocolKind.POLL
    wave_size: int | None = None
    max_rounds: int | None = None
    reviewers_per_answer: int | None = None
    rounds: int | None = None
    neighbours: int | None = None

    @property
    def has_several_rounds(self) -> bool:
        """Whether anything can follow the blind round."""
        return self.kind is not ProtocolKind.POLL

    def settings(self) -> dict[str, int | None]:
        """The settings of its kind by their names, defaults filled in."""
        given = {name: getattr(self, name) for name in _SETTINGS[self.kind]}
        return {
            name: default if given[name] is None else given[name]
            for name, (_, _, default) in _SETTINGS[self.kind].items()
        }

    def setting(self, name: str) -> int:
        """The setting of that name. Raises `KeyError` for one that this kind has not, or that has no value."""
        value = self.settings()[name]
        if value is None:
            raise KeyError(name)
        return value

    def problems(self, pointer: str = "/protocol") -> list[FieldProblem]:
        """What keeps this protocol from being run."""
        found = []
        own = _SETTINGS[self.kind]
        for name in SETTING_BOUNDS:
            value = getattr(self, name)
            if value is None:
                continue
            if name not in own:
                found.append(FieldProblem(f"{pointer}/{name}", f"a protocol of kind {self.kind.value} takes no {name}"))
            elif not own[name][0] <= value <= own[name][1]:
                found.append(FieldProblem(f"{pointer}/{name}", f"must be {own[name][0]} to {own[name][1]}"))
        return found

    def waves(self, agents: Sequence[Agent]) -> Iterator[Sequence[Agent]]:
        """The agents in the groups in which they are asked, in order."""
        size = self.wave_size or len(agents) or 1
        for start in range(0, len(agents), size):
            yield agents[start : start + size]
