"""The columns of a comparison: one verdict each, and its tally as bars that have one scale and one lettering on all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from api.report.reading import Position, Reading, number, part
from api.report.tallies import OF_AGENTS, unit_of
from api.report.verdict import headline
from domain.models.question import AnswerKind

__all__ = ["Bar", "Side", "is_comparable", "names_of", "side_of"]

_MOST_BARS = 50
_ALWAYS_BARS = 12


@dataclass(frozen=True, slots=True)
class Bar:
    """One answer of a tally: its place among the answers of all sides, its amount, and its share of the whole in percent."""

    place: int
    name: str
    amount: float
    share: float
    wins: bool


@dataclass(frozen=True, slots=True)
class Side:
    """One column: a deliberation, or what one rule makes of it.

    `verdict` is HTML already, escaped; `note` says how it differs from the first. What the bars count is `unit`, in the plural, and
    `base` says what their shares are of.
    """

    title: str
    document: Mapping[str, Any]
    reading: Reading
    verdict: str
    decision: Position | None
    against: Sequence[Position]
    bars: Sequence[Bar]
    more_bars: int
    unit: str
    base: str
    dissent: str
    note: str = ""
    leaf_index: int | None = None


def names_of(readings: Sequence[Reading]) -> list[str]:
    """Every answer of every side, in one order, so that a letter means the same on all of them, and in the chamber."""
    asked = [name for reading in readings for name in _asked_for(part(reading.document, "answer"))]
    return list(dict.fromkeys([*asked, *(name for reading in readings for name in reading.names)]))


def is_comparable(one: Reading, other: Reading) -> bool:
    """Whether the same answer could be given to both."""
    same = [set(_asked_for(part(each.document, "answer"))) for each in (one, other)]
    return one.answer_kind == other.answer_kind and same[0] == same[1]


def _asked_for(answer: Mapping[str, Any]) -> Sequence[str]:
    if answer.get("kind") == AnswerKind.VERDICT:
        return ("yes", "no")
    return answer.get("options") or ()


def side_of(
    reading: Reading, names: Sequence[str], *, title: str, note: str = "", leaf_index: int | None = None
) -> Side:
    """The column of one outcome; `names` are the answers of all columns."""
    every = _bars(reading, names)
    # Where there are many, those that somebody gave.
    bars = [bar for place, bar in enumerate(every) if bar.share or place < _ALWAYS_BARS][:_MOST_BARS]
    positions = reading.positions
    percentage = number(part(reading.outcome, "dissent").get("percentage"))
    return Side(
        title=title,
        document=reading.document,
        reading=reading,
        verdict=headline(reading),
        decision=next((each for each in positions if each.is_decision), None),
        against=[each for each in positions if not each.is_decision],
        bars=bars,
        more_bars=len(every) - len(bars),
        unit="agents" if reading.is_estimate else unit_of(reading),
        base=_base(reading, sum(bar.amount for bar in every)),
        dissent="" if percentage is None else f"{percentage:g} %",
        note=note,
        leaf_index=leaf_index,
    )


def _base(reading: Reading, whole: float) -> str:
    """Of what the shares are, so that nobody takes them for those of the chamber, which are of all who were asked."""
    if reading.answer_kind == "approval":
        whole = reading.roll_call.get("answered", 0)
        told = f"of the {whole:,} who answered"
    elif reading.is_estimate:
        told = f"of the {whole:,.6g} who gave a number"
    else:
        told = f"of the {whole:,.6g} {unit_of(reading)} counted"
    is_of_agents = reading.is_estimate or reading.answer_kind == "approval" or unit_of(reading) in OF_AGENTS
    return f"{told}; {reading.asked:,} were asked" if is_of_agents and whole != reading.asked else told


def _bars(reading: Reading, names: Sequence[str]) -> list[Bar]:
    """Shares of the whole, so that one scale holds for every side, whatever it counts."""
    tally = reading.tally
    if reading.is_estimate:
        tally = {each.name: each.count for each in reading.positions}
    whole = float(reading.roll_call.get("answered", 0)) if reading.answer_kind == "approval" else sum(tally.values())
    chosen = next((each.name for each in reading.positions if each.is_decision), None)
    places = {name: place for place, name in enumerate(names)}
    return [
        Bar(
            places.get(name, len(names)),
            reading.with_unit(name) if name.startswith(("below ", "above ")) else name,
            count,
            100 * max(0.0, count) / whole if whole else 0.0,
            wins=name == chosen,
        )
        for name, count in sorted(tally.items(), key=lambda item: -item[1])
    ]
