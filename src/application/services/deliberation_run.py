"""Takes one deliberation from its start through its rounds to its outcome, recording every step before it can be seen."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from application.ports.agent_orchestrator import AgentOutput, AgentRequest, ContextBundle
from application.ports.clock import Clock
from application.ports.deliberation_repository import Commit, DeliberationRepository
from application.services.batch import Batch, StopCause
from application.services.concurrent_deliberation_service import ConcurrentDeliberationService
from application.services.event_feed import EventFeed
from domain.errors.deliberation import UnreadableBallotError
from domain.errors.dependency import DependencyUnavailableError
from domain.errors.halt import SystemHaltedError
from domain.models.agent import Agent
from domain.models.agent_output import AgentFailure
from domain.models.deliberation import Deliberation, DeliberationStatus, WitnessSpan
from domain.models.outcome import Outcome
from domain.models.question import AnswerFormat, AnswerKind
from domain.models.roll_call import AgentState
from domain.models.round import AgentRecord, FailureCause, Round
from domain.models.text import clean
from domain.voting.ballot import Ballot
from domain.voting.ballot_reader import read_ballot
from domain.voting.rule import Rule, apply_rule, rules_for
from domain.witness.entry import Entry, agent_ended, call_intended, deliberation_ended, round_started

__all__ = ["DeliberationRun", "decide", "end_interrupted"]

_logger = logging.getLogger(__name__)
# What a provider or an orchestrator of somebody else's names itself may be of any length; an entry may not.
_MAX_MODEL = 256
_MAX_KIND = 128
_STORE_PAUSES_S = (0.05, 0.1, 0.25, 0.5, 1.0)


class DeliberationRun:
    """One deliberation at work. Ends in exactly one terminal state, however it is stopped."""

    def __init__(
        self,
        deliberation: Deliberation,
        *,
        fan_out: ConcurrentDeliberationService,
        repository: DeliberationRepository,
        feed: EventFeed,
        clock: Clock,
    ) -> None:
        self.deliberation = deliberation
        self._fan_out = fan_out
        self._repository = repository
        self._feed = feed
        self._clock = clock
        self._batch: Batch | None = None
        self._cause: StopCause | None = None
        self._opening: asyncio.Task[WitnessSpan | None] | None = None

    def stop(self, cause: StopCause) -> None:
        """End it early: agents at work end with the cause, what was answered is kept."""
        self._cause = self._cause or cause
        if self._batch is not None:
            self._batch.stop(cause)

    async def run(self) -> Deliberation:
        """The deliberation as it ended, committed.

        Raises `DependencyUnavailableError`, in an exception group, when the store stayed away past the deadline: nothing was
        shown that is not stored.
        """
        specification = self.deliberation.specification
        deadline = self._clock.monotonic() + specification.limits.deadline_s
        if self._cause is not None:
            return await self._end([], deadline)
        now = self._clock.now()
        self.deliberation = self.deliberation.start(at=now)
        agents = specification.roster.agents
        opening = [round_started(self.deliberation.id, 0, [agent.id for agent in agents], at=now)]
        records: list[AgentRecord] = []
        async with asyncio.TaskGroup() as group:
            # Not waited for here, so that it shares a commit with the first intents: appends keep their order, so nobody is
            # called before both are durable.
            self._opening = group.create_task(self._store(opening, deadline, deliberation=self.deliberation))
            await asyncio.sleep(0)
            for wave in specification.protocol.waves(agents):
                if self._cause is None:
                    records += await self._ask(wave, deadline)
        return await self._end(records, deadline)

    async def _ask(self, agents: Sequence[Agent], deadline: float) -> list[AgentRecord]:
        specification = self.deliberation.specification
        batch = Batch(self.deliberation.id, agent_timeout_s=specification.limits.agent_timeout_s, deadline=deadline)
        question = specification.question
        context = ContextBundle(self.deliberation.id, question.text, question.context)
        requests = [
            AgentRequest(
                agent.id,
                context,
                persona=agent.persona.text,
                model=agent.model,
                expected=question.answer,
                sampling=specification.sampling,
                seed=specification.seed,
                batch_id=batch.id,
            )
            for agent in agents
        ]
        recorder = _RoundRecorder(self, deadline)
        self._batch = batch
        try:
            await self._fan_out.run_batch(
                batch, requests, max_attempts=specification.limits.max_attempts, observer=recorder
            )
        except SystemHaltedError:
            self._cause = self._cause or StopCause.HALTED
            for request in requests:
                halted = AgentFailure(request.agent_id, "halted", "the system was halted", 0, 0.0, AgentState.HALTED)
                await recorder.agent_ended(request, halted)
        finally:
            self._batch = None
        self._cause = self._cause or batch.cause
        return recorder.records

    async def _end(self, records: Sequence[AgentRecord], deadline: float) -> Deliberation:
        now = self._clock.now()
        rounds: tuple[Round, ...] = ()
        status, reason = _STATUS_OF_CAUSE.get(self._cause, (None, None))
        outcome: Outcome | None = None
        if records:
            whole, decided = decide(self.deliberation, records)
            rounds = (whole,)
            if status is None:
                met = self.deliberation.specification.quorum.is_met(whole.roll_call)
                status = DeliberationStatus.COMPLETED if met else DeliberationStatus.INQUORATE
                outcome = decided if met else None
                reason = None if met else "fewer agents took part than the quorum asks for"
        if status is None:
            raise RuntimeError("a deliberation that was not stopped has asked nobody")
        ended = self.deliberation.end(status, at=now, rounds=rounds, outcome=outcome, reason=reason)
        span = await self._store([deliberation_ended(ended, cause=reason)], deadline, deliberation=ended)
        self.deliberation = replace(ended, witness=span)
        return self.deliberation

    async def _store(
        self,
        entries: Sequence[Entry],
        deadline: float,
        *,
        deliberation: Deliberation | None = None,
    ) -> WitnessSpan | None:
        """Commit, waiting for a store that is away until the deadline (at least for some seconds) before giving up."""
        commit = Commit(self.deliberation.id, entries, deliberation)
        give_up = max(deadline, self._clock.monotonic() + sum(_STORE_PAUSES_S))
        pauses = iter(_STORE_PAUSES_S)
        while True:
            try:
                span = await self._repository.append(commit)
                break
            except DependencyUnavailableError as error:
                pause = next(pauses, _STORE_PAUSES_S[-1])
                if self._clock.monotonic() + pause > give_up:
                    raise
                _logger.warning(
                    "the store is away, deliberation %s waits: %s",
                    self.deliberation.id,
                    error,
                    extra={"deliberation_id": self.deliberation.id},
                )
                await asyncio.sleep(pause)
                if self._opening is not None and self._opening is not asyncio.current_task():
                    await asyncio.wait([self._opening])
        self._feed.announce(self.deliberation.id)
        return span


class _Gathering:
    """What is committed together: those who come in one turn of the event loop; they all wait for the same commit."""

    __slots__ = ("committed", "entries", "error")

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.committed = asyncio.Event()
        self.error: Exception | None = None


class _RoundRecorder:
    """Records each agent of a round as it starts and as it ends; what it returns is already committed.

    The store shares commits as well, but a commit of 72 records costs the loop a third of 72 commits of one.
    """

    def __init__(self, run: DeliberationRun, deadline: float) -> None:
        self._run = run
        self._deadline = deadline
        self._started: dict[str, datetime] = {}
        self._gathering: _Gathering | None = None
        self._commits: set[asyncio.Task[None]] = set()
        self.records: list[AgentRecord] = []

    async def agent_starting(self, request: AgentRequest) -> None:
        """Commit the intent to call before the call, for each attempt anew."""
        run = self._run
        now = run._clock.now()
        self._started.setdefault(request.agent_id, now)
        intent = call_intended(
            run.deliberation.id,
            at=now,
            round_number=request.round_number,
            agent_id=request.agent_id,
            attempt=request.attempt,
            model=request.model,
            prompt=run._fan_out.prompt_of(request),
            prompt_salt=run.deliberation.question_salt,
        )
        await self._record(intent)

    async def agent_ended(self, request: AgentRequest, ending: AgentOutput | AgentFailure) -> AgentState:
        """Read the ballot, commit the record, and say how the roll call counts the agent."""
        now = self._run._clock.now()
        record = _record(request, ending, started_at=self._started.get(request.agent_id), finished_at=now)
        deliberation = self._run.deliberation
        await self._record(agent_ended(deliberation.id, record, deliberation.specification.question.answer))
        self.records.append(record)
        if isinstance(ending, AgentOutput) and record.failure is not None:
            _logger.warning(
                "agent %r ended as %s (%s): %s",
                record.agent_id,
                record.state.value,
                record.failure.kind,
                record.failure.message,
                extra={"batch_id": request.batch_id, "agent_id": record.agent_id, "kind": record.failure.kind},
            )
        return record.state

    async def _record(self, entry: Entry) -> None:
        gathering = self._gathering
        if gathering is None:
            gathering = self._gathering = _Gathering()
            commit = asyncio.create_task(self._commit(gathering), name="record-agents")
            self._commits.add(commit)
            commit.add_done_callback(self._commits.discard)
        gathering.entries.append(entry)
        await gathering.committed.wait()
        if gathering.error is not None:
            raise gathering.error

    async def _commit(self, gathering: _Gathering) -> None:
        # A task takes its first step in the next turn of the loop, so whoever comes in this one is in.
        self._gathering = None
        try:
            await self._run._store(gathering.entries, self._deadline)
        except Exception as error:  # noqa: BLE001 - it is not swallowed: everyone who waits raises it
            gathering.error = error
        finally:
            gathering.committed.set()


_STATUS_OF_CAUSE: dict[StopCause | None, tuple[DeliberationStatus, str]] = {
    StopCause.CANCELLED: (DeliberationStatus.CANCELLED, "cancelled on request"),
    StopCause.HALTED: (DeliberationStatus.HALTED, "the system was halted"),
    StopCause.SHUTDOWN: (DeliberationStatus.FAILED, "interrupted: the service was shut down"),
}


def decide(deliberation: Deliberation, records: Sequence[AgentRecord]) -> tuple[Round, Outcome]:
    """The round that these records make, in the order of the roster, and what the rule makes of its ballots."""
    specification = deliberation.specification
    answer = specification.question.answer
    order = {agent.id: place for place, agent in enumerate(specification.roster.agents)}
    ordered = tuple(sorted(records, key=lambda record: order.get(record.agent_id, len(order))))
    ballots = [ballot for record in ordered if (ballot := record.ballot()) is not None]
    outcome = apply_rule(specification.rule, answer, ballots, asked=len(ordered))
    agreeing = [
        kind.value
        for kind in rules_for(answer.kind)
        if outcome.decision is not None
        and apply_rule(Rule(kind), answer, ballots, asked=len(ordered)).decision == outcome.decision
    ]
    outcome = replace(outcome, blind_tally=outcome.tally, rules_agreeing=tuple(agreeing))
    return Round(0, ordered, outcome.tally), outcome


def end_interrupted(deliberation: Deliberation, *, at: datetime) -> Commit:
    """What ends a deliberation whose process died: everyone without a record failed, named as interrupted."""
    recorded = [record for round_ in deliberation.rounds for record in round_.records]
    known = {record.agent_id for record in recorded}
    cause = FailureCause("interrupted", "the process that asked this agent died before the answer was recorded")
    lost = [
        AgentRecord(0, agent.id, AgentState.FAILED, 0, None, at, failure=cause, model_asked=agent.model)
        for agent in deliberation.specification.roster.agents
        if agent.id not in known
    ]
    whole, _ = decide(deliberation, [*recorded, *lost])
    reason = "interrupted: the process that ran it died"
    ended = deliberation.end(DeliberationStatus.FAILED, at=at, rounds=(whole,), reason=reason)
    answers = deliberation.specification.question.answer
    entries = [agent_ended(deliberation.id, record, answers) for record in lost]
    return Commit(deliberation.id, [*entries, deliberation_ended(ended, cause=reason)], ended)


def _record(
    request: AgentRequest, ending: AgentOutput | AgentFailure, *, started_at: datetime | None, finished_at: datetime
) -> AgentRecord:
    if isinstance(ending, AgentFailure):
        return AgentRecord(
            request.round_number,
            request.agent_id,
            ending.state,
            ending.attempts,
            started_at,
            finished_at,
            failure=FailureCause(clean(ending.kind)[:_MAX_KIND], ending.message),
            model_asked=request.model,
            usage=ending.usage,
            duration_seconds=ending.duration_seconds,
        )
    expected = request.expected or AnswerFormat(AnswerKind.TEXT)
    failure, ballot = None, Ballot(request.agent_id, None)
    try:
        ballot = read_ballot(request.agent_id, ending.content, expected)
        state = AgentState.ABSTAINED if ballot.abstains else AgentState.ANSWERED
    except UnreadableBallotError as error:
        state, failure = AgentState.INVALID, FailureCause(error.kind, str(error))
    return AgentRecord(
        request.round_number,
        request.agent_id,
        state,
        ending.attempt,
        started_at,
        finished_at,
        content=ending.content,
        answer=ballot.answer,
        confidence=ballot.confidence,
        reasoning=ballot.reasoning,
        failure=failure,
        model_asked=request.model,
        model=None if ending.model is None else clean(ending.model)[:_MAX_MODEL],
        usage=ending.usage,
        truncated=ending.truncated,
        duration_seconds=ending.duration_seconds,
    )
