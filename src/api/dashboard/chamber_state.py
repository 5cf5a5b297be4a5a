"""What the chamber shows of one deliberation, made from what is committed: its seats, its tally, its roll call and what it took."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from api.dashboard.costs import cost_of_usage
from api.dashboard.positions import Positions, positions_of
from api.report.marks import letter_of
from api.report.reading import OF_THE_QUESTION, Reading
from api.report.tallies import OF_AGENTS, unit_of
from application.pages.visible_text import visible
from application.services.deliberation_output_service import WitnessedOutput
from domain.models.agent import Agent
from domain.models.budget import Limits, Usage
from domain.models.deliberation import Deliberation, DeliberationStatus
from domain.models.event import Event
from domain.models.protocol import ProtocolKind
from domain.models.question import AnswerKind
from domain.models.roll_call import AgentState, RollCall
from domain.models.round import AgentRecord
from domain.voting.ballot import Answer

__all__ = ["STATES", "ChamberState", "Change", "SeatMark"]

STATES = tuple(state.value for state in AgentState)
"""How an agent can end, in the order of the roll call."""

_AGENTS = "agents"
_MOST_OF_A_NAME, _SIZE_OF_A_NAME = 60, 100
_MOST_IN_THE_TALLY, _SIZE_IN_THE_TALLY = 120, 180
_WORDS: Mapping[str, str] = {
    "queued": "Waiting for its turn",
    "running": "In session",
    "completed": "Completed",
    "inquorate": "Ended without a quorum",
    "cancelled": "Cancelled",
    "halted": "Halted",
    "failed": "Failed",
}
_ROUNDS: Mapping[str, str] = {
    "answer": "everyone answers alone",
    "revise": "everyone may revise",
    "review": "answers are reviewed",
    "position": "everyone takes a position",
    "cross_examine": "positions are examined",
    "vote": "everyone votes",
    "draft": "statements are drafted",
    "rank": "statements are ranked",
    "critique": "statements are criticised",
    "redraft": "statements are drafted anew",
}


@dataclass(frozen=True, slots=True)
class SeatMark:
    """How one seat looks: a state, the place of its position, what is drawn in it, and what it is called."""

    kind: str
    place: int | None
    sign: str
    label: str

    @property
    def style(self) -> str:
        """Its classes."""
        return f"seat is-{self.kind}" + ("" if self.place is None else f" p{self.place % 8}")

    @property
    def symbol(self) -> str:
        """The id of the drawing that it uses."""
        return f"state-{self.kind}" if self.place is None else f"shape-{self.place % 8}"


@dataclass(frozen=True, slots=True)
class Change:
    """What is different since the last one: seats by their numbers, texts and lengths of bars by their names."""

    sequence: int
    seats: Mapping[int, SeatMark]
    texts: Mapping[str, str]
    bars: Mapping[str, float]

    @property
    def is_empty(self) -> bool:
        """Whether nothing looks different."""
        return not (self.seats or self.texts or self.bars)


@dataclass(slots=True)
class _Seat:
    """What is known of one agent: how it stands in the present round, and its last ballot."""

    agent: Agent
    state: str = "waiting"
    answer: Answer = None
    confidence: float | None = None
    is_counted: bool = False


class ChamberState:
    """One deliberation as it stood after the event `sequence`. It holds nothing that is not committed; feed it with `take` and `end`."""

    def __init__(self, deliberation: Deliberation, *, is_unpriced: bool = False) -> None:
        """Before anything has happened in it; `is_unpriced` where the price of a model of it is not known."""
        self.deliberation = deliberation
        self._is_unpriced = is_unpriced
        self.sequence = 0
        self.status = DeliberationStatus.QUEUED
        self.started_at: datetime | None = None
        self.finished_at: datetime | None = None
        self.place_in_queue: int | None = None
        self.reading: Reading | None = None
        self._seats = {agent.id: _Seat(agent) for agent in deliberation.specification.roster.agents}
        self._ended: dict[str, AgentState] = {}
        self._purposes: dict[int, str] = {}
        self._round: int | None = None
        self._usage = Usage()
        self._document: Mapping[str, Any] = {}
        self._positions = Positions((), {})
        # Committed while the events before were read: they are of the next ones.
        self._unheard: dict[tuple[int, str], AgentRecord] = {}
        self._marks: dict[int, tuple[tuple[object, ...], SeatMark]] = {}
        self._shown = Change(0, {}, {}, {})
        self._refresh()

    @property
    def has_ended(self) -> bool:
        """Whether nothing follows."""
        return self.status.is_terminal

    @property
    def document(self) -> Mapping[str, Any]:
        """The document of the deliberation once it ended, empty before."""
        return self._document

    @property
    def positions(self) -> Positions:
        """The positions and who holds them."""
        return self._positions

    @property
    def shown(self) -> Change:
        """Everything as it is to be shown now."""
        return self._shown

    @property
    def order(self) -> Sequence[int]:
        """The numbers of the seats from left to right: as in the roster, and once it ended those of a position side by side."""
        numbers = range(len(self._seats))
        if not self.has_ended:
            return list(numbers)
        marks = self._shown.seats

        def rank(number: int) -> tuple[int, int, int]:
            mark = marks[number]
            others = [*STATES, "asked", "waiting"].index(mark.kind)
            return (len(self._positions.names), others, number) if mark.place is None else (mark.place, 0, number)

        return sorted(numbers, key=rank)

    def agent(self, number: int) -> Agent | None:
        """Who sits there, None where there is no such seat."""
        agents = self.deliberation.specification.roster.agents
        return agents[number] if 0 <= number < len(agents) else None

    def number_of(self, agent_id: str) -> int | None:
        """On which seat that agent sits."""
        return next((number for number, own in enumerate(self._seats) if own == agent_id), None)

    def take(self, events: Sequence[Event], outputs: Sequence[WitnessedOutput]) -> None:
        """Go on with what happened next; `outputs` are those of the agents that ended in it, or have ended since."""
        self._unheard |= {(each.record.round_number, each.record.agent_id): each.record for each in outputs}
        for each in outputs:
            self._usage += each.record.usage
        for event in events:
            self.sequence = event.sequence
            data = event.data
            if event.type == "deliberation.started":
                self.status, self.started_at = DeliberationStatus.RUNNING, event.at
            elif event.type == "round.started":
                self._round = int(data["round"])
                self._purposes[self._round] = str(data.get("purpose", "answer"))
            elif event.type == "agent.started" and (seat := self._seats.get(data["agent_id"])) is not None:
                seat.state = "asked"
            elif event.type == "agent.ended" and (seat := self._seats.get(data["agent_id"])) is not None:
                seat.state = str(data["state"])
                self._ended[seat.agent.id] = AgentState(seat.state)
                record = self._unheard.pop((int(data["round"]), seat.agent.id), None)
                if record is not None and self._is_ballot(int(data["round"]), AgentState(seat.state)):
                    seat.answer, seat.confidence = record.answer, record.confidence
                    seat.is_counted = record.state is AgentState.ANSWERED
        self._refresh()

    def end(self, deliberation: Deliberation, reading: Reading) -> None:
        """It has ended, and this is what stands in its record."""
        self.deliberation, self.reading, self._document = deliberation, reading, reading.document
        self.status, self.finished_at = deliberation.status, deliberation.finished_at
        self.started_at = deliberation.started_at
        for agent_id, output in reading.last.items():
            if (seat := self._seats.get(agent_id)) is not None:
                seat.state = str(output.get("state"))
        for agent_id, seat in self._seats.items():
            ballot = reading.ballots.get(agent_id)
            seat.is_counted = ballot is not None
            if ballot is not None:
                seat.answer, seat.confidence = ballot.get("answer"), ballot.get("confidence")
            if seat.state == "asked":
                seat.state = "waiting"
        self._refresh()

    def note_place(self, place: int | None) -> bool:
        """It is that far from its turn, 1 being the next; whether that is news."""
        if place == self.place_in_queue:
            return False
        self.place_in_queue = place
        self._refresh()
        return True

    def change_since(self, before: Change) -> Change:
        """What looks different now."""
        now = self._shown
        return Change(
            self.sequence,
            {number: mark for number, mark in now.seats.items() if before.seats.get(number) != mark},
            {name: text for name, text in now.texts.items() if before.texts.get(name) != text},
            {name: length for name, length in now.bars.items() if before.bars.get(name) != length},
        )

    def _is_ballot(self, number: int, state: AgentState) -> bool:
        """Whether it says what the agent wants now: who fails keeps its last ballot, who abstains has none any more."""
        if not state.took_part:
            return False
        specification = self.deliberation.specification
        purpose = self._purposes.get(number)
        if (
            specification.protocol.kind is ProtocolKind.COMMON_GROUND
            and specification.question.answer.kind is AnswerKind.TEXT
        ):
            return False
        return purpose in OF_THE_QUESTION

    def _refresh(self) -> None:
        answers = {own: seat.answer for own, seat in self._seats.items() if seat.is_counted}
        self._positions = positions_of(self.deliberation.specification, answers, self.reading)
        seats = {number: self._mark(number, seat) for number, seat in enumerate(self._seats.values())}
        texts, bars = self._figures()
        self._shown = Change(self.sequence, seats, texts, bars)

    def _mark(self, number: int, seat: _Seat) -> SeatMark:
        place = self._positions.held.get(seat.agent.id)
        name = None if place is None else self._positions.names[place]
        look = (seat.state, place, name, self.has_ended)
        known = self._marks.get(number)
        if known is None or known[0] != look:
            # Most seats look as they did, and their words are the dearest part of them.
            known = self._marks[number] = look, self._drawn_mark(number, seat, place, name)
        return known[1]

    def _drawn_mark(self, number: int, seat: _Seat, place: int | None, position: str | None) -> SeatMark:
        kind = seat.state
        name = visible(seat.agent.persona.name or seat.agent.id, limit=_MOST_OF_A_NAME, size=_SIZE_OF_A_NAME)
        said = {"waiting": "not asked" if self.has_ended else "not asked yet", "asked": "thinking"}.get(kind)
        label = f"Seat {number + 1}, {name}: {said or kind.replace('_', ' ')}"
        if place is None or position is None:
            return SeatMark(kind, None, "", label)
        sign = letter_of(place)
        label += f", {sign}: {visible(position, limit=_MOST_OF_A_NAME, size=_SIZE_OF_A_NAME)}"
        if kind not in {"answered", "asked"}:
            label += " from an earlier round"
        return SeatMark(kind, place, sign, label)

    def _figures(self) -> tuple[dict[str, str], dict[str, float]]:
        """Every figure on the page, in words, and how long each bar is (0 to 100)."""
        specification = self.deliberation.specification
        limits = specification.limits
        roll = self.deliberation.roll_call if self.has_ended else RollCall.of(self._ended.values())
        usage = self.deliberation.usage if self.has_ended else self._usage
        thinking = sum(seat.state == "asked" for seat in self._seats.values())
        everybody = len(self._seats)
        ended = sum(seat.state in STATES for seat in self._seats.values())
        asked = roll.asked if self.has_ended else sum(seat.state != "waiting" for seat in self._seats.values())
        # A poll in waves may end before everybody was asked: then those who were are all that counts.
        expected = roll.asked if self.has_ended else everybody
        texts = {
            "status": _WORDS[self.status.value],
            "round": self._round_words(),
            "queue": ""
            if self.place_in_queue is None or self.status is not DeliberationStatus.QUEUED
            else _queued(self.place_in_queue),
            "asked": f"{asked}",
            "progress": _progress(ended, expected, thinking=thinking, not_asked=everybody - expected),
            "calls": f"{usage.calls:,}",
            "tokens": _tokens(usage, limits),
            "cost": cost_of_usage(usage, limits, is_unpriced=self._is_unpriced),
            "quorum": _quorum(specification.quorum.min_answered_fraction, roll, expected),
            "margin": self._margin(),
        }
        bars = {
            "progress": _share(ended, expected),
            "tokens": _share(usage.total_tokens, limits.max_total_tokens),
            "tokens-held": _share(usage.total_tokens + usage.uncertain_tokens, limits.max_total_tokens),
            "cost": _share(usage.cost_usd, limits.max_cost_usd),
            "cost-held": _share(usage.cost_usd + usage.uncertain_usd, limits.max_cost_usd),
        }
        for state in AgentState:
            texts[f"roll-{state.value}"] = f"{roll[state]}"
        tally = self._tally()
        most = max([*tally, 0.0])
        unit = self._unit()
        # Points and wins are no shares of those who were asked.
        is_share = self._positions.is_votes and (unit == _AGENTS or unit in OF_AGENTS)
        texts["unit"] = (
            "" if not tally else f"{unit}, in per cent of all who were asked" if is_share and asked else unit
        )
        for place, count in enumerate(tally):
            texts[f"name-{place}"] = visible(
                self._positions.names[place], limit=_MOST_IN_THE_TALLY, size=_SIZE_IN_THE_TALLY
            )
            texts[f"count-{place}"] = f"{count:,.10g}"
            texts[f"share-{place}"] = f"{_share(count, asked):.1f} %" if is_share and asked else ""
            bars[f"bar-{place}"] = _share(count, asked if is_share else most)
        return texts, bars

    def _tally(self) -> Sequence[float]:
        names = self._positions.names
        tally = self.reading.tally if self.reading is not None and self.reading.has_outcome else {}
        if tally and not self.reading.is_estimate and all(name in tally for name in names):  # type: ignore[union-attr]
            return [tally[name] for name in names]
        return self._positions.counts

    def _unit(self) -> str:
        """What the tally counts, in the plural."""
        if self.reading is not None and self.reading.has_outcome and not self.reading.is_estimate:
            return unit_of(self.reading)
        return _AGENTS

    def _margin(self) -> str:
        if self.reading is not None and self.reading.has_outcome:
            margin, spread = self.reading.outcome.get("margin"), self.reading.outcome.get("spread")
            if isinstance(margin, int | float):
                return f"{margin:,.10g}"
            told = "none" if not isinstance(spread, int | float) else self.reading.with_unit(f"{spread:,.6g}")
            return visible(told, limit=_MOST_OF_A_NAME, size=_SIZE_OF_A_NAME)
        if self.reading is None and self._positions.is_votes and len(self._positions.counts) > 1:
            first, second, *_ = sorted(self._positions.counts, reverse=True)
            return f"{first - second:,.10g}" if first else "none yet"
        return "none" if self.has_ended else "none yet"

    def _round_words(self) -> str:
        if self._round is None:
            return "not begun"
        purpose = _ROUNDS.get(self._purposes.get(self._round, "answer"), "")
        return f"{self._round}, blind: {purpose}" if self._round == 0 else f"{self._round}: {purpose}"


def _queued(place: int) -> str:
    return "Next in the queue" if place == 1 else f"Number {place:,} in the queue"


def _progress(ended: int, expected: int, *, thinking: int, not_asked: int) -> str:
    said = f"{ended} of {expected} have ended"
    if thinking:
        said += f", {thinking} {'is' if thinking == 1 else 'are'} thinking"
    return said + (f", {not_asked} {'was' if not_asked == 1 else 'were'} not asked" if not_asked else "")


def _tokens(usage: Usage, limits: Limits) -> str:
    """What was taken of what may be; what calls without a known end may have taken stands apart, and counts against it too."""
    said = f"{usage.total_tokens:,} of {limits.max_total_tokens:,}"
    return said + (f", + {usage.uncertain_tokens:,} uncertain" if usage.uncertain_tokens else "")


def _quorum(fraction: float, roll: RollCall, asked: int) -> str:
    needed = max(1, math.ceil(round(fraction * asked, 9)))
    return f"{roll.took_part} took part, {needed} needed"


def _share(part: float, whole: float) -> float:
    return round(min(100.0, max(0.0, 100 * part / whole)), 1) if whole > 0 else 0.0
