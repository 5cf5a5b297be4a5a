"""A delphi: after the blind round everybody sees an anonymous digest of it and may revise, until hardly anybody does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction

from domain.models.question import AnswerKind
from domain.models.round import AgentRecord
from domain.protocols.proceedings import Proceedings, best_of, everybody_answers, words_for
from domain.protocols.round_plan import Asked, Brief, ExhibitKind, Purpose, RoundPlan
from domain.voting.median import quantile
from domain.voting.profile import named_options

__all__ = ["STABLE_SHARE", "next_in_delphi"]

STABLE_SHARE = Fraction(1, 20)
"""Where no larger share of those who took part in a revision moved, the answers are stable and it was the last."""

_MAX_TEXTS = 12

_Held = Mapping[str, Sequence[AgentRecord]]
_Figures = tuple[tuple[str, str], ...]


def next_in_delphi(proceedings: Proceedings) -> RoundPlan | None:
    """The blind round, then revisions: at most `max_rounds`, and none after one in which the answers were stable.

    Each sees the figures, one argument for each position that anybody holds, however few they are, and its own answer so far.
    """
    last = proceedings.last
    if last is None:
        return everybody_answers(proceedings)
    if last >= proceedings.protocol.setting("max_rounds") or (last and _is_stable(proceedings, last)):
        return None
    before = proceedings.counted(last)
    answered = {agent_id: record for agent_id, record in before.items() if record.answer is not None}
    figures, chosen = _digest(proceedings, answered, abstained=len(before) - len(answered))
    most = words_for(len(chosen) + 1)
    digest = tuple(
        proceedings.exhibit(ExhibitKind.ARGUMENT, label, record, most=most, has_answer=False)
        for label, record in chosen
    )
    asked = []
    for agent_id in proceedings.agents:
        own = before.get(agent_id)
        mine = () if own is None else (proceedings.exhibit(ExhibitKind.OWN, "your answer so far", own, most=most),)
        brief = Brief(Purpose.REVISE, proceedings.mark, figures, (*digest, *mine))
        asked.append(Asked(agent_id, proceedings.question, brief))
    return RoundPlan(last + 1, Purpose.REVISE, proceedings.question, tuple(asked))


def _is_stable(proceedings: Proceedings, number: int) -> bool:
    took_part = len(proceedings.took_part_in(number))
    return Fraction(proceedings.moved(number), max(took_part, 1)) <= STABLE_SHARE


def _digest(
    proceedings: Proceedings, answered: Mapping[str, AgentRecord], *, abstained: int
) -> tuple[_Figures, Sequence[tuple[str, AgentRecord]]]:
    """Counts or spread, and for each position whose words stand for it."""
    question = proceedings.question
    if question.kind is AnswerKind.TEXT:
        drawn = proceedings.draw(answered, "texts", str(proceedings.last))[:_MAX_TEXTS]
        figures: _Figures = (("answers", str(len(answered))),)
        return figures, [(f"text {place + 1}", answered[agent_id]) for place, agent_id in enumerate(drawn)]
    if question.kind.is_estimate:
        figures, held = _spread(list(answered.values()))
    else:
        held = _holders(proceedings, answered)
        figures = tuple((option, str(len(records))) for option, records in held.items())
    chosen = [
        (position if question.kind.is_estimate else f"for {position}", record)
        for position, records in held.items()
        if (record := best_of(proceedings, records, str(proceedings.last), position)) is not None
    ]
    return (*figures, ("abstained", str(abstained))), chosen


def _holders(proceedings: Proceedings, answered: Mapping[str, AgentRecord]) -> _Held:
    """Who is for each option, zeros included: by the first place of a ranking, and by all that an approval names."""
    question = proceedings.question
    ranked = question.kind is AnswerKind.RANKING
    held: dict[str, list[AgentRecord]] = {option: [] for option in question.options or ("yes", "no")}
    for record in answered.values():
        for option in named_options(record.answer)[: 1 if ranked else None]:
            held[option].append(record)
    return held


def _spread(answered: Sequence[AgentRecord]) -> tuple[_Figures, _Held]:
    """The quartiles and ends of estimates, and who is below, within and above the middle half."""
    numbers = [(float(record.answer), record) for record in answered if isinstance(record.answer, int | float)]
    ordered = sorted(number for number, _ in numbers)
    low, middle, high = (quantile(ordered, part) for part in (0.25, 0.5, 0.75))
    figures = (
        ("estimates", str(len(ordered))),
        ("least", f"{ordered[0]:g}"),
        ("lower quartile", f"{low:g}"),
        ("median", f"{middle:g}"),
        ("upper quartile", f"{high:g}"),
        ("greatest", f"{ordered[-1]:g}"),
    )
    return figures, {
        "below the middle half": [record for number, record in numbers if number < low],
        "within the middle half": [record for number, record in numbers if low <= number <= high],
        "above the middle half": [record for number, record in numbers if number > high],
    }
