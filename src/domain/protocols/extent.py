"""How far a protocol goes: how often everybody is asked, expected and at most, and how often a few are besides."""

from __future__ import annotations

from dataclasses import dataclass

from domain.models.protocol import Protocol, ProtocolKind
from domain.models.question import AnswerFormat, AnswerKind
from domain.protocols.proceedings import MAX_SHOWN_CHARACTERS
from domain.protocols.round_format import MAX_DRAFTS
from domain.protocols.round_plan import Brief, Exhibit, ExhibitKind, Purpose

__all__ = ["Extent", "extent_of", "largest_brief", "typical_brief"]

_TYPICAL_PIECES = 5
_TYPICAL_WORDS = (
    "a reason that somebody gave in an earlier round, as long as such reasons mostly are, which is not very long. "
)
_MARK = "0" * 16


@dataclass(frozen=True, slots=True)
class Extent:
    """Rounds in which everybody is asked, the blind one among them, and how many agents are asked twice more to write statements."""

    expected_rounds: int
    most_rounds: int
    writers: int = 0


def extent_of(protocol: Protocol, question: AnswerFormat, agents: int) -> Extent:
    """How far it goes with so many agents when none of them fails."""
    if agents < 2:
        return Extent(1, 1)
    match protocol.kind:
        case ProtocolKind.DELPHI:
            most = 1 + protocol.setting("max_rounds")
            return Extent(min(most, 3), most)
        case ProtocolKind.PEER_REVIEW:
            return Extent(3, 3)
        case ProtocolKind.DEBATE:
            most = 2 + protocol.setting("rounds")
            return Extent(most, most)
        case ProtocolKind.COMMON_GROUND:
            rounds = 4 if question.kind is AnswerKind.TEXT else 5
            return Extent(rounds, rounds, min(MAX_DRAFTS, agents))
    return Extent(1, 1)


def largest_brief() -> Brief:
    """As much as an agent can be shown in a round, in characters that take most room."""
    words = "\N{ZERO WIDTH SPACE}" * MAX_SHOWN_CHARACTERS
    return Brief(Purpose.REVISE, _MARK, exhibits=(Exhibit(ExhibitKind.ARGUMENT, "", words=words),))


def typical_brief() -> Brief:
    """About as much as an agent is shown in a round."""
    exhibit = Exhibit(ExhibitKind.ARGUMENT, "neighbour 1", words=_TYPICAL_WORDS)
    return Brief(Purpose.REVISE, _MARK, exhibits=(exhibit,) * _TYPICAL_PIECES)
