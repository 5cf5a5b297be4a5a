"""The proceedings: what the records of a deliberation say so far, as protocols read them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from statistics import median

from domain.models.deliberation import Deliberation
from domain.models.question import AnswerFormat, AnswerKind
from domain.models.roll_call import AgentState
from domain.models.round import AgentRecord
from domain.protocols.lots import draw_order, hashed
from domain.protocols.round_format import answers_in, answers_question, counted_answers
from domain.protocols.round_plan import Asked, Exhibit, ExhibitKind, Purpose, RoundPlan
from domain.voting.ballot import Ballot

__all__ = [
    "MAX_SHOWN_CHARACTERS",
    "MAX_WORDS",
    "Proceedings",
    "ballots_of",
    "best_of",
    "everybody_answers",
    "words_for",
]

MAX_WORDS = 1_000
"""Characters of one agent's words that another is shown at most."""

MAX_SHOWN_CHARACTERS = 24_000
"""Characters of others' words that one agent is shown in a round at most: where there are many, each is cut shorter."""

_MARK_DIGITS = 16
_UNSURE = 0.5
# Estimates that differ by less than this part of their scale are one and the same.
_TOLERANCE = 0.01


class Proceedings:
    """Everything is read in the order of the roster, never in that in which agents happened to end.

    `rounds` has the records of each round by agent. Nothing here depends on how a text reads, only on who answered what: the
    proceedings of texts that are erased, or withheld, take the same course.
    """

    def __init__(self, deliberation: Deliberation, records: Iterable[AgentRecord]) -> None:
        specification = deliberation.specification
        self.protocol = specification.protocol
        self.question = specification.question.answer
        self.agents: Sequence[str] = tuple(agent.id for agent in specification.roster.agents)
        seed = specification.seed
        self.lot = deliberation.id if seed is None else str(seed)
        order = {agent_id: place for place, agent_id in enumerate(self.agents)}
        by_round: dict[int, list[AgentRecord]] = {}
        for record in records:
            by_round.setdefault(record.round_number, []).append(record)
        self.rounds: Mapping[int, Mapping[str, AgentRecord]] = {
            number: {
                record.agent_id: record
                for record in sorted(by_round[number], key=lambda each: order.get(each.agent_id, len(order)))
            }
            for number in sorted(by_round)
        }

    @property
    def last(self) -> int | None:
        """The number of the last round in which anybody ended."""
        return max(self.rounds, default=None)

    @property
    def is_over(self) -> bool:
        """Whether no protocol has anything left to do: nobody took part in the last round, or hardly anybody has an answer."""
        if self.last is None:
            return False
        if not any(record.state.took_part for record in self.rounds[self.last].values()):
            return True
        return sum(record.state is AgentState.ANSWERED for record in self._of_the_question().values()) < 2

    def answers_in(self, number: int) -> AnswerFormat:
        """The format in which that round's answers are recorded."""
        return answers_in(self.protocol, self.question, len(self.agents), number)

    def is_counted(self, number: int) -> bool:
        """Whether that round's ballots are counted in the end."""
        return answers_question(self.protocol, self.question, number)

    @property
    def counted_answers(self) -> AnswerFormat:
        """The format of the ballots that are counted in the end."""
        return counted_answers(self.protocol, self.question, len(self.agents))

    def counted(self, until: int) -> dict[str, AgentRecord]:
        """Of everybody the last record up to that round that holds a ballot to be counted: whoever fails later keeps it."""
        found: dict[str, AgentRecord] = {}
        for number, records in self.rounds.items():
            if number <= until and self.is_counted(number):
                found.update((agent_id, record) for agent_id, record in records.items() if record.state.took_part)
        return {agent_id: found[agent_id] for agent_id in self.agents if agent_id in found}

    def took_part_in(self, number: int) -> dict[str, AgentRecord]:
        """The records of that round that hold an answer or an abstention."""
        records = self.rounds.get(number, {})
        return {agent_id: record for agent_id, record in records.items() if record.state.took_part}

    def answered_in(self, number: int) -> dict[str, AgentRecord]:
        """The records of that round that hold an answer."""
        records = self.rounds.get(number, {})
        return {agent_id: record for agent_id, record in records.items() if record.state is AgentState.ANSWERED}

    def moved(self, number: int) -> int:
        """How many answered otherwise in that round than they had before."""
        before = self.counted(number - 1)
        return sum(
            agent_id not in before or not self._is_same(before[agent_id], record)
            for agent_id, record in self.took_part_in(number).items()
        )

    def asked(self) -> int:
        """How many were asked in any round."""
        return len({agent_id for records in self.rounds.values() for agent_id in records})

    def draw(self, names: Iterable[str], *purpose: str) -> Sequence[str]:
        """The names in an order that is drawn by lot, for that purpose."""
        return draw_order(names, self.lot, self.protocol.kind.value, *purpose)

    @cached_property
    def mark(self) -> str:
        """Hex digits to fence what is shown next. They are hashed from everything that was said, so that no text can hold them."""
        said = [
            part
            for number, records in self.rounds.items()
            for agent_id, record in records.items()
            for part in (str(number), agent_id, repr(record.answer), record.reasoning)
        ]
        mark = hashed([self.lot, *said])
        while any(mark[:_MARK_DIGITS] in part for part in said if part is not None):
            mark = hashed([mark])
        return mark[:_MARK_DIGITS]

    def exhibit(
        self, kind: ExhibitKind, label: str, record: AgentRecord, *, most: int, has_answer: bool = True
    ) -> Exhibit:
        """What an agent said, its words cut to `most` characters; an answer in words is words as well."""
        answer, words = record.answer, record.reasoning
        if self.answers_in(record.round_number).kind is AnswerKind.TEXT:
            words, answer = answer if isinstance(answer, str) else None, None
        return Exhibit(kind, label, answer if has_answer else None, _cut(words, most))

    def _of_the_question(self) -> Mapping[str, AgentRecord]:
        """Of everybody the last ballot in the form that was asked for."""
        found: dict[str, AgentRecord] = {}
        for number in self.rounds:
            if number == 0 or self.answers_in(number) == self.question:
                found.update(self.took_part_in(number))
        return found

    def _is_same(self, one: AgentRecord, other: AgentRecord) -> bool:
        first, second = one.answer, other.answer
        if self.question.kind is AnswerKind.TEXT:
            # Whether two texts say the same cannot be told from the log, which does not hold them.
            return one.state is other.state is AgentState.ABSTAINED
        if isinstance(first, int | float) and isinstance(second, int | float):
            low, high = self.question.minimum, self.question.maximum
            scale = max(abs(first), abs(second))
            if self.question.kind is AnswerKind.PROBABILITY:
                scale = 1.0
            elif low is not None and high is not None:
                scale = high - low
            return abs(first - second) <= _TOLERANCE * scale
        return first == second


def everybody_answers(proceedings: Proceedings) -> RoundPlan:
    """The blind round: all are asked at one time, and shown nothing."""
    question = proceedings.question
    asked = tuple(Asked(agent_id, question) for agent_id in proceedings.agents)
    return RoundPlan(0, Purpose.ANSWER, question, asked, proceedings.protocol.wave_size)


def best_of(proceedings: Proceedings, records: Sequence[AgentRecord], *purpose: str) -> AgentRecord | None:
    """Whose words stand for all of these: drawn by lot among those who gave a reason and are no less sure than half of them are.

    Not simply the surest, for then whoever claims to be wholly sure is always heard.
    """
    speaking = [record for record in records if record.reasoning]
    if not speaking:
        return None
    middle = median(_sureness(record) for record in speaking)
    named = {record.agent_id: record for record in speaking if _sureness(record) >= middle}
    return named[proceedings.draw(named, *purpose)[0]]


def _sureness(record: AgentRecord) -> float:
    """How sure the agent says it is, 0 to 1."""
    return _UNSURE if record.confidence is None else record.confidence


def words_for(count: int) -> int:
    """How many characters each of so many pieces may have."""
    return min(MAX_WORDS, MAX_SHOWN_CHARACTERS // max(count, 1))


def _cut(text: str | None, most: int) -> str | None:
    """The text, or its beginning with an ellipsis."""
    return text if text is None or len(text) <= most else f"{text[: most - 1]}\N{HORIZONTAL ELLIPSIS}"


def ballots_of(records: Mapping[str, AgentRecord]) -> list[Ballot]:
    """Their ballots, abstentions included."""
    return [ballot for record in records.values() if (ballot := record.ballot()) is not None]
