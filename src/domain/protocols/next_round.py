"""What comes next in a deliberation: the one question that the engine asks of a protocol, and what it answers is a plan or nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from domain.models.deliberation import Deliberation
from domain.models.protocol import ProtocolKind
from domain.models.round import AgentRecord
from domain.protocols.common_ground import next_in_common_ground, purpose_in_common_ground, statements_until
from domain.protocols.debate import next_in_debate, purpose_in_debate
from domain.protocols.delphi import next_in_delphi
from domain.protocols.peer_review import labels_under_review, next_in_peer_review, purpose_in_peer_review
from domain.protocols.poll import next_in_poll
from domain.protocols.proceedings import Proceedings
from domain.protocols.round_plan import Purpose, RoundPlan

__all__ = ["next_round", "options_in", "purpose_of"]

_NEXT: Mapping[ProtocolKind, Callable[[Proceedings], RoundPlan | None]] = {
    ProtocolKind.POLL: next_in_poll,
    ProtocolKind.DELPHI: next_in_delphi,
    ProtocolKind.PEER_REVIEW: next_in_peer_review,
    ProtocolKind.DEBATE: next_in_debate,
    ProtocolKind.COMMON_GROUND: next_in_common_ground,
}


def next_round(deliberation: Deliberation, records: Iterable[AgentRecord]) -> RoundPlan | None:
    """The round that follows those that these are all records of; None when the protocol has come to its end.

    Pure, and the same for the same seed, or without one for the same deliberation, in whatever order the records come. Which round it
    is, who is asked in it and in what format does not depend on any text, so that it can be told from the log alone.
    """
    proceedings = Proceedings(deliberation, records)
    return None if proceedings.is_over else _NEXT[proceedings.protocol.kind](proceedings)


def purpose_of(proceedings: Proceedings, number: int) -> Purpose:
    """What a round was for that took place."""
    if number == 0:
        return Purpose.ANSWER
    match proceedings.protocol.kind:
        case ProtocolKind.PEER_REVIEW:
            return purpose_in_peer_review(number)
        case ProtocolKind.DEBATE:
            return purpose_in_debate(proceedings, number) or Purpose.VOTE
        case ProtocolKind.COMMON_GROUND:
            return purpose_in_common_ground(number)
    return Purpose.REVISE


def options_in(proceedings: Proceedings, number: int) -> tuple[str, ...]:
    """Of the labels that answers of that round are made of, those that were last put to anybody until then, in their order."""
    is_review = proceedings.protocol.kind is ProtocolKind.PEER_REVIEW
    labels = labels_under_review(proceedings) if is_review else set(statements_until(proceedings, number))
    known = proceedings.answers_in(number).options if number else proceedings.counted_answers.options
    return tuple(label for label in known if label in labels)
