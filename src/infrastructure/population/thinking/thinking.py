"""Agents that think: some rows of a population have an object behind them, which is asked for its opinion every so many ticks."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from application.ports.population_engine import Access
from domain.errors.deliberation import FieldProblem
from domain.errors.population import InvalidPopulationError
from domain.models.agent import Agent, Persona
from domain.models.budget import Usage
from domain.models.roll_call import AgentState, RollCall
from domain.models.run import JsonValue
from infrastructure.population.attachment import Host
from infrastructure.population.inference.exact_notes import ExactNotes
from infrastructure.population.inference.hashed_embedder import DIMENSIONS, HashedEmbedder
from infrastructure.population.mover import Mover
from infrastructure.population.randomness import Purpose, draw, key_of
from infrastructure.population.thinking.answer_record import AnswerRecord
from infrastructure.population.thinking.functions import Functions, maker_of, thinker_named
from infrastructure.population.thinking.notebook import Notebook
from infrastructure.population.thinking.reply import Reply
from infrastructure.population.thinking.situation import Situation
from infrastructure.population.thinking.talk import Talk, Voice, together

__all__ = ["BY", "Thinking"]

BY = "thinking"
_MOST_NEIGHBOURS = 32
_MOST_NAMED = 20
_DEFAULT_ROSTER = "archons"


class _Asked(Protocol):
    async def ask(self, situation: Situation, *, until: float) -> Reply: ...
    def close(self) -> None: ...


class Thinking:
    """See `Attachment`. Thinker number n of N is the agent that began in row n x agents / N; one who has left is asked no more.

    Agents are those who are there in the beginning. All are asked beside each other, and the tick goes on after the deadline at the
    latest; each has exactly one outcome, which is recorded as it comes. An opinion that was answered goes into the agent's row.
    """

    name = "thinking"
    access: Access | None = None

    def __init__(self, host: Host, mover: Mover, talk: Talk, record: AnswerRecord) -> None:
        """`talk` and `record` are closed with it. Raises `InvalidPopulationError` where there is no such thinker."""
        spec = host.spec
        self._spec, self._host, self._mover = spec, host, mover
        self._talk, self._record = talk, record
        self._rows = np.arange(spec.thinkers, dtype=np.int64) * (spec.begin_with or spec.agents) // spec.thinkers
        self._asked = self._thinker()
        self._notebook = Notebook(HashedEmbedder(), _index_of(spec.notes))
        self._outcomes: Counter[AgentState] = Counter()
        self._usage = Usage()
        self._uncertain = 0
        self._named: list[Reply] = []
        self._turns = 0
        self._held_s = 0.0
        self._longest_s = 0.0

    def after_tick(self, tick: int) -> bool:
        """See `Attachment`."""
        if tick % self._spec.think_every:
            return False
        rows = self._living()
        began = time.perf_counter()
        replies = self._talk.run(self._replies(tick, rows))
        took = time.perf_counter() - began
        self._turns += 1
        self._held_s += took
        self._longest_s = max(self._longest_s, took)
        self._take_in(replies)
        answered = [place for place, reply in enumerate(replies) if reply.opinion is not None]
        opinions = np.array([replies[place].opinion for place in answered], np.float64)
        self._mover.move(tick, rows[answered], opinions)
        return False

    def columns(self) -> Iterator[tuple[str, NDArray[Any]]]:
        """None: what was answered stands in the rows and in the record."""
        return iter(())

    def restore(self, found: Mapping[str, NDArray[Any]], tick: int) -> None:  # noqa: ARG002 - it has no columns
        """Remember what was noted until then."""
        earlier = [reply for reply in self._record.found(BY) if reply.tick <= tick]
        for turn in sorted({reply.tick for reply in earlier}):
            noted = sorted((reply.who, reply.note) for reply in earlier if reply.tick == turn)
            self._notebook.add(noted)

    def document(self) -> Mapping[str, JsonValue]:
        """See `Attachment`."""
        return {
            "agents": self._spec.thinkers,
            "kind": self._spec.thinker,
            "every": self._spec.think_every,
            "turns": self._turns,
            "roll_call": dict(RollCall(self._outcomes).as_counts()),
            "failures": [
                {"tick": one.tick, "agent": one.who, "outcome": one.outcome.value, "problem": one.problem}
                for one in self._named
            ],
            "calls": self._usage.calls,
            "input_tokens": self._usage.input_tokens,
            "output_tokens": self._usage.output_tokens,
            "cost_usd": self._usage.cost_usd,
            "calls_of_unknown_cost": self._uncertain,
            "held_ms": {"total": self._held_s * 1e3, "longest": self._longest_s * 1e3},
            "notes": {"kept": len(self._notebook), "search": self._notebook.search},
        }

    def close(self) -> None:
        """See `Attachment`."""
        self._asked.close()
        self._talk.close()
        self._record.close()

    def _thinker(self) -> _Asked:
        kind, minds = self._spec.thinker, self._host.minds
        if kind == "model":
            return _Model(self._talk, self._record, [Agent("model", Persona(""))], self._rows, self._spec.seed)
        if kind == "roster" or kind.startswith("roster/"):
            if minds is None or minds.roster is None:
                raise InvalidPopulationError([FieldProblem("/thinker", "asks for a roster, and there are none here")])
            roster = minds.roster(kind.partition("/")[2] or _DEFAULT_ROSTER)
            return _Model(self._talk, self._record, list(roster.agents), self._rows, self._spec.seed)
        if kind == "callable":
            if minds is None or minds.think is None:
                problem = "is 'callable', which is given from Python: take module:Class on the command line"
                raise InvalidPopulationError([FieldProblem("/thinker", problem)])
            return Functions(getattr(minds.think, "__qualname__", "callable"), maker_of(minds.think, "callable"))
        return Functions(kind, thinker_named(kind))

    def _living(self) -> NDArray[np.int64]:
        columns = self._host.columns
        # An agent begins in the row of its own number.
        same = columns.id[self._rows] == self._rows.astype(np.uint64)
        rows: NDArray[np.int64] = self._rows[same & (columns.alive[self._rows] == 1)]
        return rows

    async def _replies(self, tick: int, rows: NDArray[np.int64]) -> list[Reply]:
        until = asyncio.get_running_loop().time() + self._spec.ask_deadline_s
        return await together(self._reply(tick, int(row), until) for row in rows)

    async def _reply(self, tick: int, row: int, until: float) -> Reply:
        recorded = self._record.take(BY, tick, row)
        if recorded is not None:
            return recorded
        reply = await self._asked.ask(self._situation(tick, row), until=until)
        self._record.add(reply)
        return reply

    def _situation(self, tick: int, row: int) -> Situation:
        columns, graph = self._host.columns, self._host.graph
        opinion = columns.opinion[tick % 2]
        known: NDArray[np.float64] = np.zeros(0)
        if graph is not None:
            known = opinion[graph.targets[graph.offsets[row] : graph.offsets[row + 1]][:_MOST_NEIGHBOURS]]
        agent = int(columns.id[row])
        bits = draw(key_of(self._spec.seed, tick, Purpose.THINKING), np.array([agent], np.uint64))
        return Situation(
            tick=tick,
            agent=agent,
            opinion=float(opinion[row]),
            neighbours=tuple(float(one) for one in known),
            susceptibility=float(columns.susceptibility[row]),
            bound=float(columns.bound[row]),
            activity=float(columns.activity[row]),
            topic=self._spec.topic,
            notes=self._notebook.given(agent),
            chance=float(bits[0] >> np.uint64(11)) * 2.0**-53,
            recall=lambda text: self._notebook.recall(agent, text),
        )

    def _take_in(self, replies: list[Reply]) -> None:
        self._notebook.add([(reply.who, reply.note) for reply in replies])
        for reply in replies:
            self._outcomes[reply.outcome] += 1
            if reply.usage is None:
                self._uncertain += 1
            else:
                self._usage += reply.usage
            if not reply.outcome.took_part and len(self._named) < _MOST_NAMED:
                self._named.append(reply)


class _Model:
    """Asks models for agents, each as one member of a roster, who take turns."""

    def __init__(
        self, talk: Talk, record: AnswerRecord, members: list[Agent], rows: NDArray[np.int64], seed: int
    ) -> None:
        self._talk, self._record, self._seed = talk, record, seed
        self._member = {int(row): members[number % len(members)] for number, row in enumerate(rows)}

    async def ask(self, situation: Situation, *, until: float) -> Reply:
        member = self._member[situation.agent]
        persona = "\n\n".join(text for text in (member.persona.text, situation.in_words()) if text)
        voice = Voice(BY, situation.tick, situation.agent, situation.topic, persona, self._seed, member.model)
        return await self._talk.ask(voice, until=until, sending=self._sending)

    def close(self) -> None:
        """There is nothing of its own."""

    def _sending(self, voice: Voice) -> None:
        self._record.asking(voice.by, voice.tick, voice.who)


def _index_of(search: str) -> Callable[[], Any]:
    if search == "usearch":
        from infrastructure.population.inference.usearch_notes import UsearchNotes

        try:
            UsearchNotes(DIMENSIONS)
        except ImportError as error:
            problem = "is usearch, which is not installed here: install the extra `notes`, or take exact"
            raise InvalidPopulationError([FieldProblem("/notes", problem)]) from error
        return lambda: UsearchNotes(DIMENSIONS)
    return lambda: ExactNotes(DIMENSIONS)
