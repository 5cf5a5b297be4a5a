"""What a report reads out of the documents of a deliberation: who holds which position and why; nothing is required to be there."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

__all__ = [
    "OF_THE_QUESTION",
    "TOOK_PART",
    "Document",
    "Position",
    "Reading",
    "Seat",
    "first_choice",
    "items",
    "number",
    "part",
]

Document = Mapping[str, Any]
"""A JSON object of the public contract."""

TOOK_PART = ("answered", "abstained")
_ESTIMATES = frozenset({"score", "probability", "number"})
_MIDDLE = "middle half"
OF_THE_QUESTION = frozenset({None, "answer", "revise", "position", "cross_examine", "vote"})
"""The purposes of rounds in which agents answer what was asked; in the others they say something about it."""


def part(document: Document, name: str) -> Document:
    """The object of that name, an empty one where there is none."""
    found = document.get(name)
    return found if isinstance(found, Mapping) else {}


def items(document: Document, name: str) -> Sequence[Document]:
    """The objects in the list of that name."""
    found = document.get(name)
    return [each for each in found if isinstance(each, Mapping)] if isinstance(found, list | tuple) else []


def number(value: object) -> float | None:
    """A finite number, or None for anything else; an integer too large for a float among it."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if abs(value) <= sys.float_info.max else None


@dataclass(frozen=True, slots=True)
class Position:
    """An answer with those who hold it. A voice is an agent, empty where nobody is known for it, and its words.

    No two voices of a position have the same wording, so that an echo does not crowd out another reason.
    """

    name: str
    count: float
    agents: Sequence[str]
    voices: Sequence[tuple[str, str]]
    is_decision: bool = False


@dataclass(frozen=True, slots=True)
class Seat:
    """One agent: how it ended, and the place of its position among `Reading.positions`, None where it holds none."""

    agent_id: str | None
    state: str
    position: int | None = None


class Reading:
    """The documents of one deliberation, read once.

    `positions` has the decision first, then the largest; `names` all positions and every other answer of the tally after them, so
    that each keeps one place on the whole page. `ballots` are the outputs that are counted in the end, by agent, `blind` those of
    the blind round.
    """

    def __init__(self, document: Document, outputs: Sequence[Document]) -> None:
        self.document = document
        self.outcome = part(document, "outcome")
        self.answer_kind = str(part(document, "answer").get("kind") or "")
        self.roll_call = {name: int(number(count) or 0) for name, count in part(document, "roll_call").items()}
        self.rounds = items(document, "rounds")
        self.last = _last(outputs)
        counted = _last(each for each in outputs if self._is_counted(each))
        self.ballots = {agent: each for agent, each in counted.items() if each.get("state") == "answered"}
        self.blind = _last(each for each in outputs if each.get("round") == 0 and each.get("state") == "answered")
        self.statements = {str(each.get("label")): each for each in items(document, "statements")}
        self.positions = self._positions()
        self.names = list(dict.fromkeys([*(each.name for each in self.positions), *map(str, self.tally)]))
        if self.is_estimate:
            self.names = [each.name for each in self.positions]

    @property
    def is_estimate(self) -> bool:
        """Whether each answer is one number."""
        return self.answer_kind in _ESTIMATES

    @property
    def has_outcome(self) -> bool:
        """Whether a rule was applied."""
        return bool(self.outcome)

    @property
    def is_decided(self) -> bool:
        """Whether there is a decision."""
        return self.outcome.get("status") == "decided"

    @property
    def tally(self) -> Mapping[str, float]:
        """What was counted last: of the outcome, or of the last round where there is none."""
        found = part(self.outcome, "tally")
        if not self.has_outcome and self.rounds:
            found = part(self.rounds[-1], "tally")
        return {str(name): amount for name, count in found.items() if (amount := number(count)) is not None}

    @property
    def asked(self) -> int:
        """How many agents were asked."""
        return self.roll_call.get("asked", 0)

    @property
    def missing(self) -> int:
        """How many of those asked neither answered nor abstained."""
        return max(0, self.asked - sum(self.roll_call.get(state, 0) for state in TOOK_PART))

    @property
    def warnings(self) -> Sequence[str]:
        """What is said against the result by what it is worth."""
        found = part(self.document, "worth").get("warnings")
        return [str(each) for each in found] if isinstance(found, list) else []

    def with_unit(self, figure: str) -> str:
        """A figure of numbers that were asked for, with their unit where they have one."""
        unit = part(self.document, "answer").get("unit") if self.is_estimate else None
        return f"{figure} {unit}" if unit else figure

    def name_of(self, position: Position) -> str:
        """What it is called on a page: of numbers with their unit."""
        return self.with_unit(position.name) if self.is_estimate and position.name != _MIDDLE else position.name

    def statement_of(self, position: Position) -> Document | None:
        """The statement that a position is the label of, where texts were ranked."""
        return self.statements.get(position.name) if self.answer_kind == "text" else None

    @property
    def unheld_statements(self) -> Sequence[Document]:
        """Those that were put to everybody, and that nobody wanted first."""
        held = {each.name for each in self.positions}
        return [each for label, each in self.statements.items() if self.answer_kind == "text" and label not in held]

    def place_of(self, name: object) -> int | None:
        """The place of that answer among `names`."""
        return self.names.index(str(name)) if str(name) in self.names else None

    def _is_counted(self, output: Document) -> bool:
        # Whoever fails keeps an earlier ballot; whoever abstains has none any more.
        if output.get("state") not in TOOK_PART:
            return False
        purposes = {each.get("round"): each.get("purpose") for each in self.rounds}
        purpose = purposes.get(output.get("round"))
        if part(self.document, "protocol").get("kind") == "common_ground" and self.answer_kind == "text":
            # Texts that are ranked: the rule counts the last rankings.
            return purpose == "rank"
        return purpose in OF_THE_QUESTION

    def _positions(self) -> list[Position]:
        if not self.has_outcome:
            return [] if self.is_estimate or self.answer_kind == "text" else self._held_so_far()
        against = [
            Position(
                str(each.get("answer")),
                number(each.get("count")) or 0,
                [str(agent) for agent in each.get("agents") or ()],
                self._voices([str(agent) for agent in each.get("agents") or ()], each.get("reasons") or ()),
            )
            for each in items(part(self.outcome, "dissent"), "positions")
        ]
        if not self.is_decided:
            return against
        dissenting = {agent for each in against for agent in each.agents}
        holders = [agent for agent in self.ballots if agent not in dissenting]
        votes: float = len(holders)
        if not self.ballots:
            votes = max(0, self.roll_call.get("answered", 0) - sum(each.count for each in against))
        return [Position(self._decision_name(), votes, holders, self._voices(holders, ()), is_decision=True), *against]

    def _decision_name(self) -> str:
        """By which name the decision stands in the tally."""
        if self.is_estimate:
            return _MIDDLE
        chosen = part(self.outcome, "synthesis").get("chosen")
        return str(self.outcome.get("decision") if chosen is None else chosen)

    def _held_so_far(self) -> list[Position]:
        held: dict[str, list[str]] = {}
        for agent, output in self.ballots.items():
            name = first_choice(output)
            if name is not None:
                held.setdefault(name, []).append(agent)
        ordered = sorted(held.items(), key=lambda item: -len(item[1]))
        return [Position(name, len(agents), agents, self._voices(agents, ())) for name, agents in ordered]

    def _voices(self, agents: Sequence[str], reasons: Sequence[object]) -> list[tuple[str, str]]:
        said = [(agent, words) for agent in agents if (words := self._words_of(agent))]
        distinct: dict[str, tuple[str, str]] = {}
        for who, words in said or [("", str(reason)) for reason in reasons if reason]:
            distinct.setdefault(" ".join(words.casefold().split()), (who, words))
        return list(distinct.values())

    def _words_of(self, agent: str) -> str:
        """Why it answered so; of a text the text itself."""
        output = self.ballots.get(agent, {})
        answer = output.get("answer")
        if self.answer_kind == "text" and isinstance(answer, str):
            return answer
        return str(output.get("reasoning") or "")

    @cached_property
    def seats(self) -> list[Seat]:
        """Everyone of the roster: in the order of the positions, then who holds none, then who was not asked."""
        held = {agent: place for place, each in enumerate(self.positions) for agent in each.agents}
        states = {agent: str(output.get("state")) for agent, output in self.last.items()}
        seats = [Seat(agent, states.get(agent, "answered"), place) for agent, place in held.items()]
        # Who is not known by name has a seat all the same.
        for place, each in enumerate(self.positions):
            seats += [Seat(None, "answered", place)] * max(0, int(each.count) - len(each.agents))
        if self.last:
            seats += [Seat(agent, state) for agent, state in states.items() if agent not in held]
        else:
            for state, count in self.roll_call.items():
                if state not in {"asked", "answered"}:
                    seats += [Seat(None, state)] * count
        wanted = int(number(part(self.document, "agents").get("count")) or 0)
        state = "not asked" if self.document.get("finished_at") else "not yet"
        seats += [Seat(None, state)] * max(0, wanted - len(seats))
        return sorted(seats, key=self._rank)

    def _rank(self, seat: Seat) -> tuple[int, str]:
        if seat.position is None:
            return len(self.positions), {"answered": "0", "abstained": "1", "not asked": "~", "not yet": "~"}.get(
                seat.state, seat.state
            )
        if self.is_estimate and self.is_decided:
            # From the lowest to the highest, whoever is in the middle between the others.
            name = self.positions[seat.position].name
            return {"below": -2, "above": 0}.get(name.partition(" ")[0], -1), ""
        return seat.position, ""


def first_choice(output: Document) -> str | None:
    """What that agent wants first, None for numbers and for nothing."""
    answer = output.get("answer")
    if isinstance(answer, list | tuple):
        return str(answer[0]) if answer else None
    return answer if isinstance(answer, str) else None


def _last(outputs: Any) -> dict[str, Document]:
    """The output of the latest round by agent, agents in the order in which they come first."""
    found: dict[str, Document] = {}
    for output in outputs:
        agent = str(output.get("agent_id"))
        known = found.get(agent)
        if known is None or (number(output.get("round")) or 0) >= (number(known.get("round")) or 0):
            found[agent] = output
    return found
