"""Takes one deliberation from its start through its rounds to its outcome, recording every step before it can be seen."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import replace

from application.ports.agent_orchestrator import AgentRequest, ContextBundle
from application.ports.clock import Clock
from application.ports.deliberation_repository import Claim, Commit, DeliberationRepository
from application.ports.tracing import NullTracer, Tracer
from application.services.batch import Batch, Holding, StopCause
from application.services.concurrent_deliberation_service import ConcurrentDeliberationService
from application.services.continuation import Course, course_of
from application.services.event_feed import EventFeed
from application.services.key_turns import KeyTurns
from application.services.log_ids import log_ids
from application.services.round_recorder import RoundRecorder
from application.services.shared_purse import SharedPurse
from domain.errors.budget import BudgetExceededError
from domain.errors.deliberation import LeaseLostError
from domain.errors.dependency import DependencyUnavailableError
from domain.errors.halt import SystemHaltedError
from domain.models.agent import Agent
from domain.models.agent_output import AgentFailure
from domain.models.deliberation import Deliberation, DeliberationStatus, WitnessSpan
from domain.models.money import picodollars
from domain.models.outcome import Outcome
from domain.models.purse import Purse
from domain.models.roll_call import AgentState
from domain.models.round import AgentRecord, Round
from domain.voting.rule import Rule, apply_rule, rules_for
from domain.witness.entry import Entry, deliberation_ended, round_started

__all__ = ["DeliberationRun", "decide"]

_logger = logging.getLogger(__name__)
_TURNS_TO_FIRST_INTENTS = 4
_STORE_PAUSES_S = (0.05, 0.1, 0.25, 0.5, 1.0)


class DeliberationRun:
    """One deliberation at work, from where its record stands. Ends in exactly one terminal state, or is left for another to go on.

    Whoever has a recorded end is not asked again. A call that was intended and has no recorded end is made once more under the next
    attempt number, which may exceed the limit of attempts by one; after that the agent ends as interrupted.
    """

    def __init__(
        self,
        claim: Claim,
        *,
        fan_out: ConcurrentDeliberationService,
        repository: DeliberationRepository,
        feed: EventFeed,
        clock: Clock,
        tracer: Tracer | None = None,
        holding: Holding | None = None,
        turns: KeyTurns | None = None,
    ) -> None:
        """`holding` knows whether the lease can have run out; without one it never does. `turns` are those of the whole process."""
        self._turns = turns if turns is not None else KeyTurns()
        self.deliberation = claim.deliberation
        self._holding = holding
        self.lease = claim.lease
        self._course = course_of(claim)
        self._fan_out = fan_out
        self._repository = repository
        self._feed = feed
        self._clock = clock
        self._tracer = tracer if tracer is not None else NullTracer()
        self._batch: Batch | None = None
        self._cause = _cause_on_record(self._course)
        self._opening: asyncio.Task[bool] | None = None
        self._beside_opening: list[Entry] | None = None
        spent = self._course.spent()
        self._purse = SharedPurse(
            Purse(
                claim.deliberation.specification.limits,
                tokens_spent=spent.total_tokens + spent.uncertain_tokens,
                cost_spent=picodollars(spent.cost_usd) + picodollars(spent.uncertain_usd),
            )
        )

    def stop(self, cause: StopCause) -> None:
        """End it early: agents at work end with the cause, what was answered is kept. When suspended it does not end."""
        if self._batch is not None:
            self._batch.stop(cause)
        self._cause = self._cause or self._cause_of_batch() or cause

    def wind_down(self) -> None:
        """Begin no more calls, and let those in flight be finished; what is left then is for another to go on with."""
        if self._batch is not None:
            self._batch.wind_down(StopCause.SUSPENDED)
        self._cause = self._cause or self._cause_of_batch() or StopCause.SUSPENDED

    def _cause_of_batch(self) -> StopCause | None:
        """Why those at work end: a halt that is still to be recorded is not forgotten because the process stops meanwhile."""
        return None if self._batch is None else self._batch.cause

    async def run(self) -> Deliberation:
        """The deliberation as it ended, committed; or as it stands, when it was suspended.

        Raises `DependencyUnavailableError`, in an exception group, when the store stayed away past the deadline, and
        `LeaseLostError` when another works on it by now: nothing was shown that is not stored.
        """
        specification = self.deliberation.specification
        deadline = self._clock.monotonic() + self._seconds_left()
        if self._cause is not None and self.deliberation.status is DeliberationStatus.QUEUED:
            return await self._end([], deadline)
        agents = specification.roster.agents
        records: list[AgentRecord] = []
        async with asyncio.TaskGroup() as group:
            if self.deliberation.status is DeliberationStatus.QUEUED:
                now = self._clock.now()
                self.deliberation = self.deliberation.start(at=now)
                opening = [round_started(self.deliberation.id, 0, [agent.id for agent in agents], at=now)]
                # Not waited for here, so that it shares a commit with the first intents.
                self._beside_opening = []
                self._opening = group.create_task(self._open(opening, deadline))
            for wave in specification.protocol.waves(agents):
                if self._cause is None or self._course.has_begun(0, wave):
                    records += await self._ask(wave, deadline)
        return await self._end(records, deadline)

    def _seconds_left(self) -> float:
        """Until the deadline, which runs from the recorded start; a clock that was set back gives no more than the whole."""
        limit = self.deliberation.specification.limits.deadline_s
        started_at = self.deliberation.started_at
        if started_at is None:
            return limit
        return limit - min(max((self._clock.now() - started_at).total_seconds(), 0.0), limit)

    async def _ask(self, agents: Sequence[Agent], deadline: float) -> list[AgentRecord]:
        """The records of these agents, of whom those are asked that have none yet."""
        specification, course = self.deliberation.specification, self._course
        batch = Batch(
            self.deliberation.id,
            agent_timeout_s=specification.limits.agent_timeout_s,
            deadline=deadline,
            holding=self._holding,
        )
        question = specification.question
        context = ContextBundle(self.deliberation.id, question.text, question.context)
        recorder = RoundRecorder(
            self.deliberation,
            course=course,
            purse=self._purse,
            turns=self._turns,
            clock=self._clock,
            prompt_of=self._fan_out.prompt_of,
            store=lambda entries: self._store(entries, deadline),
            is_suspended=lambda: self._cause is StopCause.SUSPENDED,
        )
        requests = []
        for agent in agents:
            known = course.records.get((0, agent.id))
            if known is not None:
                recorder.records.append(known)
                continue
            request = AgentRequest(
                agent.id,
                context,
                persona=agent.persona.text,
                model=agent.model,
                expected=question.answer,
                sampling=specification.sampling,
                seed=specification.seed,
                attempt=course.attempts(0, agent.id) + 1,
                batch_id=batch.id,
                key_name=self.deliberation.key_name,
                earlier_models=course.models(0, agent.id),
                crew=agent.crew,
            )
            most = specification.limits.max_attempts * self._fan_out.models_for(agent.model) + 1
            if self._cause is None and request.attempt > most:
                await recorder.agent_ended(request, _interrupted(request))
            else:
                requests.append(request)
        if not requests:
            return recorder.records
        self._batch = batch
        if self._cause is not None:
            batch.stop(self._cause)
        try:
            with (
                log_ids(batch_id=batch.id),
                self._tracer.round(self.deliberation.id, 0, batch_id=batch.id, agents=len(requests)),
            ):
                await self._fan_out.run_batch(
                    batch, requests, max_attempts=specification.limits.max_attempts, observer=recorder
                )
        except SystemHaltedError:
            self._cause = self._cause or StopCause.HALTED
            stopped = [recorder.agent_ended(request, _stopped_before(request, self._cause)) for request in requests]
            await asyncio.gather(*stopped)
        finally:
            self._batch = None
            recorder.close()
        self._cause = self._cause or batch.cause
        return recorder.records

    async def _end(self, records: Sequence[AgentRecord], deadline: float) -> Deliberation:
        if self._cause is StopCause.SUSPENDED:
            if len(records) < len(self.deliberation.specification.roster.agents):
                return self.deliberation
            # Everybody's end came in while it was winding down, so nothing is left for another to do.
            self._cause = None
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
        """Commit, waiting for a store that is away until the deadline (at least for some seconds) before giving up.

        Nothing is recorded of a deliberation before it has started: what comes early goes with the start, or waits for it.
        """
        if self._opening is not None:
            beside = self._beside_opening
            if beside is not None:
                beside += entries
            await asyncio.wait([self._opening])
            if self._opening.result() and beside is not None:
                return None
        return await self._append(entries, deadline, deliberation=deliberation)

    async def _open(self, opening: Sequence[Entry], deadline: float) -> bool:
        """Commit the start, together with what comes within a few turns of the event loop; whether all of that could be."""
        for _ in range(_TURNS_TO_FIRST_INTENTS):
            await asyncio.sleep(0)
        beside, self._beside_opening = self._beside_opening or [], None
        try:
            await self._append([*opening, *beside], deadline, deliberation=self.deliberation)
        except BudgetExceededError:
            await self._append(opening, deadline, deliberation=self.deliberation)
            return False
        return True

    async def _append(
        self, entries: Sequence[Entry], deadline: float, *, deliberation: Deliberation | None
    ) -> WitnessSpan | None:
        commit = Commit(self.deliberation.id, entries, deliberation, self.lease)
        give_up = max(deadline, self._clock.monotonic() + sum(_STORE_PAUSES_S))
        pauses = iter(_STORE_PAUSES_S)
        while True:
            try:
                span = await self._repository.append(commit)
                break
            except LeaseLostError:
                self.stop(StopCause.SUSPENDED)
                raise
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
        self._feed.announce(self.deliberation.id)
        return span


def _cause_on_record(course: Course) -> StopCause | None:
    """Why it is to end early, as far as the record says so: a halt ends it although whoever saw it died before writing that down."""
    if not course.is_sound:
        return StopCause.MISTRUSTED
    was_halted = any(record.state is AgentState.HALTED for record in course.records.values())
    return StopCause.HALTED if was_halted else None


_STATUS_OF_CAUSE: dict[StopCause | None, tuple[DeliberationStatus, str]] = {
    StopCause.CANCELLED: (DeliberationStatus.CANCELLED, "cancelled on request"),
    StopCause.HALTED: (DeliberationStatus.HALTED, "the system was halted"),
    StopCause.MISTRUSTED: (DeliberationStatus.FAILED, "the ledger of its calls is not what the log says"),
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


def _interrupted(request: AgentRequest) -> AgentFailure:
    made = request.attempt - 1
    message = "each attempt was cut off when the process that made it died"
    return AgentFailure(request.agent_id, "interrupted", message, made, 0.0, AgentState.FAILED)


def _stopped_before(request: AgentRequest, cause: StopCause) -> AgentFailure:
    """The end of an agent that was not asked in this process."""
    state, kind, message = cause.value
    made = request.attempt - 1
    return AgentFailure(request.agent_id, kind, message, made, 0.0, state)
