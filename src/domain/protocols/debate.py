"""A debate: each hears a few neighbours, states a position, is cross-examined, and votes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain

from domain.models.round import AgentRecord
from domain.protocols.proceedings import Proceedings, everybody_answers, words_for
from domain.protocols.round_plan import Asked, Brief, ExhibitKind, Purpose, RoundPlan

__all__ = ["next_in_debate", "purpose_in_debate"]

_FIRST_EXAMINATION = 2


def next_in_debate(proceedings: Proceedings) -> RoundPlan | None:
    """The blind assessment, `rounds` exchanges, the vote. A cross-examination that moves nobody is a deadlock, after which is voted."""
    last = proceedings.last
    if last is None:
        return everybody_answers(proceedings)
    purpose = purpose_in_debate(proceedings, last + 1)
    if purpose is None:
        return None
    before = proceedings.counted(last)
    answered = {agent_id: record for agent_id, record in before.items() if record.answer is not None}
    ring = proceedings.draw(proceedings.agents, "ring")
    places = {agent_id: place for place, agent_id in enumerate(ring)}
    kind = ExhibitKind.OBJECTION if purpose is Purpose.VOTE else ExhibitKind.NEIGHBOUR
    asked = []
    for agent_id in proceedings.agents:
        near = _neighbours(proceedings, ring, places[agent_id], answered)
        most = words_for(len(near) + 1)
        # The labels stay with the neighbours for the whole debate, so that who answers whom can be followed.
        exhibits = [
            proceedings.exhibit(kind, f"neighbour {place + 1}", answered[each], most=most)
            for place, each in enumerate(near)
        ]
        if agent_id in before:
            own = before[agent_id]
            exhibits.append(proceedings.exhibit(ExhibitKind.OWN, "your answer so far", own, most=most))
        asked.append(Asked(agent_id, proceedings.question, Brief(purpose, proceedings.mark, exhibits=tuple(exhibits))))
    return RoundPlan(last + 1, purpose, proceedings.question, tuple(asked))


def purpose_in_debate(proceedings: Proceedings, number: int) -> Purpose | None:
    """What that round is for, as those before it went; None after the vote."""
    exchanges = proceedings.protocol.setting("rounds")
    for each in range(1, number + 1):
        is_deadlock = each > _FIRST_EXAMINATION and not proceedings.moved(each - 1)
        if each > exchanges or is_deadlock:
            return Purpose.VOTE if each == number else None
    return Purpose.POSITION if number < _FIRST_EXAMINATION else Purpose.CROSS_EXAMINE


def _neighbours(
    proceedings: Proceedings, ring: Sequence[str], place: int, answered: Mapping[str, AgentRecord]
) -> Sequence[str]:
    """The nearest on both sides of a ring that is drawn by lot, those left out who have nothing to show."""
    wanted = proceedings.protocol.setting("neighbours")
    steps = chain.from_iterable((step, -step) for step in range(1, len(ring) // 2 + 1))
    near = dict.fromkeys(ring[(place + step) % len(ring)] for step in steps)
    near.pop(ring[place], None)
    return [each for each in near if each in answered][:wanted]
