"""Takes one deliberation from its start through its rounds to its outcome, recording every step before it can be seen."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from application.ports.agent_orchestrator import AgentRequest, ContextBundle
from application.ports.clock import Clock
from application.ports.deliberation_repository import Claim, Commits
from application.ports.tracing import NullTracer, Tracer
from application.services.batch import Batch, Holding, StopCause
from application.services.concurrent_deliberation_service import ConcurrentDeliberationService
from application.services.continuation import Course, course_of
from application.services.deliberation_record import DeliberationRecord
from application.services.embedding_record import EmbeddingRecord
from application.services.event_feed import EventFeed
from application.services.key_turns import KeyTurns
from application.services.log_ids import log_ids
from application.services.round_recorder import RoundRecorder
from application.services.shared_purse import SharedPurse
from application.services.text_synthesis import TextSynthesis
from domain.analysis.decision import decide, last_round
from domain.errors.halt import SystemHaltedError
from domain.models.agent_output import AgentFailure
from domain.models.deliberation import Deliberation, DeliberationStatus
from domain.models.money import picodollars
from domain.models.outcome import Outcome, Synthesis
from domain.models.purse import Purse
from domain.models.roll_call import AgentState, RollCall
from domain.models.round import AgentRecord, Round
from domain.protocols.next_round import next_round
from domain.protocols.poll import is_settled
from domain.protocols.round_plan import Asked, RoundPlan
from domain.witness.entry import deliberation_ended, round_started

__all__ = ["DeliberationRun"]

# So many are counted by every rule in less than 5 ms, whatever the rules.
_FEW_OPTIONS = 8
_FEW_RECORDS = 12


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
        commits: Commits,
        feed: EventFeed,
        clock: Clock,
        tracer: Tracer | None = None,
        holding: Holding | None = None,
        turns: KeyTurns | None = None,
        texts: TextSynthesis | None = None,
    ) -> None:
        """`holding` knows whether the lease can have run out; without one it never does. `turns` are those of the whole process.

        `texts` finds out what free texts come to; without it they are compared by their words.
        """
        self._texts = texts if texts is not None else TextSynthesis()
        self._turns = turns if turns is not None else KeyTurns()
        self.deliberation = claim.deliberation
        self._holding = holding
        self.lease = claim.lease
        self._course = course_of(claim)
        self._fan_out = fan_out
        self._record = DeliberationRecord(
            claim, commits=commits, feed=feed, clock=clock, lost=lambda: self.stop(StopCause.SUSPENDED)
        )
        self._clock = clock
        self._tracer = tracer if tracer is not None else NullTracer()
        self._batch: Batch | None = None
        self._cause = _cause_on_record(self._course)
        self._agents = {agent.id: agent for agent in claim.deliberation.specification.roster.agents}
        self._reason: str | None = None
        self.is_decided = False
        """Whether its end is made and about to be stored: nothing that stops it now changes that."""
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
        deadline = self._clock.monotonic() + self._seconds_left()
        if self._cause is not None and self.deliberation.status is DeliberationStatus.QUEUED:
            return await self._end([], deadline)
        records: list[AgentRecord] = []
        async with asyncio.TaskGroup() as group:
            is_over = await self._hold_rounds(records, group, deadline)
        return await self._end(records, deadline, is_over=is_over)

    async def _hold_rounds(self, records: list[AgentRecord], group: asyncio.TaskGroup, deadline: float) -> bool:
        """Hold one round after the other, adding to `records`; whether nothing is left to do."""
        while (plan := next_round(self.deliberation, records)) is not None:
            is_started = plan.number in self._course.rounds or (plan.number == 0 and self._is_running)
            if not is_started:
                if plan.number and not self._may_begin(plan.number, deadline):
                    return False
                self._begin(plan, records, group, deadline)
            if not await self._hold(plan, records, deadline):
                return False
        return True

    @property
    def _is_running(self) -> bool:
        return self.deliberation.status is DeliberationStatus.RUNNING

    def _may_begin(self, number: int, deadline: float) -> bool:
        """Whether a round after the blind one is begun at all."""
        if self._cause is None and self._clock.monotonic() >= deadline:
            self._reason = f"the deadline came before round {number}"
            return False
        return self._cause is None

    def _begin(
        self, plan: RoundPlan, records: Sequence[AgentRecord], group: asyncio.TaskGroup, deadline: float
    ) -> None:
        now = self._clock.now()
        started: Deliberation | None = None
        if plan.number == 0:
            started = self.deliberation = self.deliberation.start(at=now)
        agents = [asked.agent_id for asked in plan.asked]
        entry = round_started(
            self.deliberation.id,
            plan.number,
            agents,
            at=now,
            purpose=plan.purpose.value,
            answers=plan.answers,
            previous=last_round(self.deliberation, records),
        )
        self._record.open(entry, deadline, started=started, group=group)

    async def _hold(self, plan: RoundPlan, records: list[AgentRecord], deadline: float) -> bool:
        """Ask everybody of the round, wave by wave, adding to `records`; whether nobody is left to ask.

        A later round that was begun is gone through by everybody, so that each has an end in it, whatever stops it.
        """
        size = plan.wave_size or len(plan.asked)
        for start in range(0, len(plan.asked), size):
            wave = plan.asked[start : start + size]
            agents = [asked.agent_id for asked in wave]
            if plan.number == 0 and self._cause is not None and not self._course.has_begun(0, agents):
                return False
            records += await self._ask(plan, wave, deadline)
            if len(wave) < len(plan.asked) and is_settled(self.deliberation.specification, records):
                everybody = len(plan.asked)
                self._reason = (
                    f"{len(records)} of {everybody} were asked, because the others could not have changed the decision"
                )
                return True
        ended = {record.agent_id for record in records if record.round_number == plan.number}
        return len(ended) == len(plan.asked)

    def _seconds_left(self) -> float:
        """Until the deadline, which runs from the recorded start; a clock that was set back gives no more than the whole."""
        limit = self.deliberation.specification.limits.deadline_s
        started_at = self.deliberation.started_at
        if started_at is None:
            return limit
        return limit - min(max((self._clock.now() - started_at).total_seconds(), 0.0), limit)

    async def _ask(self, plan: RoundPlan, wave: Sequence[Asked], deadline: float) -> list[AgentRecord]:
        """The records of these agents, of whom those are asked that have none yet."""
        specification, course, number = self.deliberation.specification, self._course, plan.number
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
            store=lambda entries: self._record.store(entries, deadline),
            is_suspended=lambda: self._cause is StopCause.SUSPENDED,
        )
        requests = []
        for asked in wave:
            agent = self._agents[asked.agent_id]
            known = course.records.get((number, agent.id))
            if known is not None:
                recorder.records.append(known)
                continue
            request = AgentRequest(
                agent.id,
                context,
                persona=agent.persona.text,
                model=agent.model,
                expected=asked.expected,
                sampling=specification.sampling,
                seed=specification.seed,
                round_number=number,
                attempt=course.attempts(number, agent.id) + 1,
                batch_id=batch.id,
                key_name=self.deliberation.key_name,
                earlier_models=course.models(number, agent.id),
                crew=agent.crew,
                brief=asked.brief,
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
                self._tracer.round(self.deliberation.id, number, batch_id=batch.id, agents=len(requests)),
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

    async def _end(self, records: Sequence[AgentRecord], deadline: float, *, is_over: bool = False) -> Deliberation:
        # First, because it takes its time: whatever stops the deliberation meanwhile is seen below.
        is_counted = bool(records) and (is_over or self._cause is None)
        calls = self._embedding_record(records, deadline) if records else None
        synthesis = await self._synthesis(records, calls) if is_counted else None
        counted = await self._counted(records, synthesis) if records else None
        if self._cause is StopCause.SUSPENDED:
            if not is_over:
                return self.deliberation
            # Everybody's end came in while it was winding down, so nothing is left for another to do.
            self._cause = None
        now = self._clock.now()
        rounds: tuple[Round, ...] = ()
        status, reason = _STATUS_OF_CAUSE.get(self._cause, (None, self._reason))
        outcome: Outcome | None = None
        if counted is not None:
            rounds, decided = counted
            if status is None:
                met = self._is_quorate(records)
                status = DeliberationStatus.COMPLETED if met else DeliberationStatus.INQUORATE
                outcome = decided if met else None
                reason = reason if met else "fewer agents took part than the quorum asks for"
        if status is None:
            raise RuntimeError("a deliberation that was not stopped has asked nobody")
        besides, closing = (None, []) if calls is None else (calls.usage, calls.closing())
        self.is_decided = True
        ended = self.deliberation.end(status, at=now, rounds=rounds, outcome=outcome, reason=reason, besides=besides)
        entries = [*closing, deliberation_ended(ended, cause=reason)]
        span = await self._record.store(entries, deadline, deliberation=ended)
        self.deliberation = replace(ended, witness=span)
        return self.deliberation

    def _is_quorate(self, records: Sequence[AgentRecord]) -> bool:
        last = {record.agent_id: record.state for record in records}
        return self.deliberation.specification.quorum.is_met(RollCall.of(last.values()))

    def _embedding_record(self, records: Sequence[AgentRecord], deadline: float) -> EmbeddingRecord:
        return EmbeddingRecord(
            self.deliberation,
            round_number=max(record.round_number for record in records),
            course=self._course,
            purse=self._purse,
            turns=self._turns,
            clock=self._clock,
            store=lambda entries: self._record.store(entries, deadline),
            may_call=self._may_compare,
            called=self._fan_out.note_call,
            needs_price=self._texts.needs_price(self.deliberation.specification, self.deliberation.key_name),
        )

    async def _may_compare(self) -> bool:
        holding = self._holding
        return self._cause is None and (holding is None or holding.is_certain()) and await self._fan_out.may_call()

    async def _synthesis(self, records: Sequence[AgentRecord], calls: EmbeddingRecord | None) -> Synthesis | None:
        """Nobody is asked for a comparison that decides nothing."""
        by_words = self._cause is not None or not self._is_quorate(records)
        return await self._texts.of(self.deliberation, records, record=calls, by_words=by_words)

    async def _counted(
        self, records: Sequence[AgentRecord], synthesis: Synthesis | None
    ) -> tuple[tuple[Round, ...], Outcome]:
        """The rounds and the outcome by every rule, beside the event loop where that may take more than 5 ms."""
        answer = self.deliberation.specification.counted_answers
        is_dear = answer.kind.is_estimate or len(answer.options) > _FEW_OPTIONS
        if is_dear and len(records) > _FEW_RECORDS:
            return await asyncio.to_thread(decide, self.deliberation, records, synthesis=synthesis)
        return decide(self.deliberation, records, synthesis=synthesis)


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


def _interrupted(request: AgentRequest) -> AgentFailure:
    made = request.attempt - 1
    message = "each attempt was cut off when the process that made it died"
    return AgentFailure(request.agent_id, "interrupted", message, made, 0.0, AgentState.FAILED)


def _stopped_before(request: AgentRequest, cause: StopCause) -> AgentFailure:
    """The end of an agent that was not asked in this process."""
    state, kind, message = cause.value
    made = request.attempt - 1
    return AgentFailure(request.agent_id, kind, message, made, 0.0, state)
