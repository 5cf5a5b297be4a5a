"""Takes one deliberation from its start through its rounds to its outcome, recording every step before it can be seen."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from types import TracebackType

from application.ports.agent_orchestrator import AgentOutput, AgentRequest, ContextBundle
from application.ports.clock import Clock
from application.ports.deliberation_repository import Claim, Commit, DeliberationRepository
from application.ports.model_desk import Forecast
from application.ports.tracing import NullTracer, Tracer
from application.services.batch import AttemptEnd, Batch, CallEnd, Holding, StopCause
from application.services.concurrent_deliberation_service import ConcurrentDeliberationService
from application.services.continuation import Course, course_of
from application.services.event_feed import EventFeed
from application.services.log_ids import log_ids
from application.services.shared_purse import SharedPurse
from domain.errors.budget import BudgetExceededError
from domain.errors.deliberation import LeaseLostError, UnreadableBallotError
from domain.errors.dependency import DependencyUnavailableError
from domain.errors.halt import SystemHaltedError
from domain.models.agent import Agent
from domain.models.agent_output import AgentFailure
from domain.models.budget import Usage
from domain.models.deliberation import Deliberation, DeliberationStatus, WitnessSpan
from domain.models.money import Charge, Reservation, picodollars
from domain.models.outcome import Outcome
from domain.models.purse import Purse
from domain.models.question import AnswerFormat, AnswerKind
from domain.models.roll_call import AgentState
from domain.models.round import AgentRecord, FailureCause, Round
from domain.models.text import clean
from domain.voting.ballot import Ballot
from domain.voting.ballot_reader import read_ballot
from domain.voting.rule import Rule, apply_rule, rules_for
from domain.witness.entry import Entry, agent_ended, call_intended, deliberation_ended, round_started

__all__ = ["DeliberationRun", "decide"]

_logger = logging.getLogger(__name__)
# What a provider or an orchestrator of somebody else's names itself may be of any length; an entry may not.
_MAX_MODEL = 256
_MAX_KIND = 128
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
    ) -> None:
        """`holding` knows whether the lease can have run out; without one it never does."""
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
        recorder = _RoundRecorder(self, deadline)
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


class _Gathering:
    """What is committed together: those who come in one turn of the event loop; they all wait for the same commit."""

    __slots__ = ("committed", "entries", "error", "origin", "refused")

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.refused: dict[int, BudgetExceededError] = {}
        self.committed = asyncio.Event()
        self.error: Exception | None = None
        self.origin: TracebackType | None = None


@dataclass(slots=True)
class _Intent:
    """The last call that an agent intended here, open until it is settled."""

    attempt: int
    forecast: Forecast
    reservation: Reservation
    is_open: bool = True
    charge: Charge | None = None
    gathering: _Gathering | None = None
    place: int = 0

    @property
    def was_refused(self) -> bool:
        """Whether it is not on record, because the key has not enough left."""
        return self.gathering is not None and self.place in self.gathering.refused


class _RoundRecorder:
    """Records each agent of a round as it starts and as it ends; what it returns is already committed.

    The store shares commits as well, but a commit of 72 records costs the loop a third of 72 commits of one.
    """

    def __init__(self, run: DeliberationRun, deadline: float) -> None:
        self._run = run
        self._deadline = deadline
        self._started: dict[str, datetime] = {}
        self._intended: dict[str, _Intent] = {}
        self._gathering: _Gathering | None = None
        self._commits: set[asyncio.Task[None]] = set()
        self.records: list[AgentRecord] = []

    async def reserve(self, request: AgentRequest, forecast: Forecast, previous: AttemptEnd | None = None) -> None:
        """Hold what the call may take, once the calls in flight leave enough. Raises `BudgetExceededError`."""
        if previous is not None:
            # Or the agent would wait for what it holds itself.
            self._settle(request, previous.call)
        purse = self._run._purse
        if not purse.try_hold(forecast.hold):
            await purse.hold(forecast.hold)

    def give_back(self, forecast: Forecast) -> None:
        """The call is not made."""
        self._run._purse.settle(forecast.hold, tokens=0, cost=0)

    async def agent_starting(
        self, request: AgentRequest, forecast: Forecast, previous: AttemptEnd | None = None
    ) -> None:
        """Commit the intent to call before the call, for each attempt anew, and how the one before ended.

        Raises `BudgetExceededError` where the API key has not enough left.
        """
        run = self._run
        now = run._clock.now()
        if request.attempt > 1 and previous is None:
            previous = _UNKNOWN_END
        self._started.setdefault(request.agent_id, self._began(request) or now)
        prompt = forecast.prompt
        entry = call_intended(
            run.deliberation.id,
            at=now,
            round_number=request.round_number,
            agent_id=request.agent_id,
            attempt=request.attempt,
            model=forecast.model if forecast.model is not None else request.model,
            prompt=prompt if prompt is not None else run._fan_out.prompt_of(request),
            prompt_salt=run.deliberation.question_salt,
            prompt_version=forecast.prompt_version,
            hold=forecast.hold,
            previous=None if previous is None else self._told(request, previous),
        )
        day: str = entry.document["at"][:10]
        reservation = entry.reservation = Reservation(run.deliberation.key_name or "", day, forecast.hold)
        if previous is not None:
            entry.charge = self._charge(request, previous.call)
        intent = self._intended[request.agent_id] = _Intent(request.attempt, forecast, reservation)
        try:
            await self._record(entry, intent)
        except BudgetExceededError:
            if intent.is_open:
                intent.is_open = False
                self.give_back(forecast)
            raise

    async def agent_ended(
        self, request: AgentRequest, ending: AgentOutput | AgentFailure, last: CallEnd | None = None
    ) -> AgentState:
        """Read the ballot, commit the record, and say how the roll call counts the agent.

        One that was stopped only because this process stops is not recorded: it ends elsewhere.
        """
        intent = self._intended.get(request.agent_id)
        if isinstance(ending, AgentFailure) and ending.kind == _SUSPENDED and self._run._cause is StopCause.SUSPENDED:
            if intent is not None and intent.is_open:
                intent.is_open = False
                self.give_back(intent.forecast)
            return ending.state
        now = self._run._clock.now()
        started_at = self._started.get(request.agent_id, self._began(request))
        if intent is not None and intent.gathering is not None:
            # It may have been stopped while its intent was on its way, and no intent is recorded after the end.
            await intent.gathering.committed.wait()
            if intent.was_refused and intent.is_open:
                intent.is_open = False
                self.give_back(intent.forecast)
        usage = ending.usage
        if request.attempt > 1:
            usage = self._run._course.usage(request.round_number, request.agent_id) + usage
        record = _record(request, ending, usage, started_at=started_at, finished_at=now)
        deliberation = self._run.deliberation
        entry = agent_ended(deliberation.id, record, deliberation.specification.question.answer)
        entry.charge = self._charge(request, last)
        await self._record(entry)
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

    def _settle(self, request: AgentRequest, call: CallEnd | None) -> None:
        """The call that this agent intended last is over. One that was intended and then not made took nothing."""
        intent = self._intended.get(request.agent_id)
        if intent is None or not intent.is_open:
            return
        intent.is_open = False
        usage = call.usage if call is not None and call.attempt == intent.attempt else Usage()
        hold = intent.reservation.hold
        tokens, cost = hold.tokens, hold.cost
        if usage is not None:
            tokens, cost = usage.total_tokens, None if hold.cost is None else picodollars(usage.cost_usd)
        self._run._purse.settle(hold, tokens=tokens, cost=cost or 0)
        intent.charge = Charge(
            intent.attempt,
            intent.forecast.model,
            0 if usage is None else usage.input_tokens,
            0 if usage is None else usage.output_tokens,
            cost,
            usage is not None,
            intent.reservation,
        )

    def _charge(self, request: AgentRequest, call: CallEnd | None) -> Charge | None:
        """What is to be written down of the call before, once. One that another process intended is not known to be over."""
        intent = self._intended.get(request.agent_id)
        if intent is None:
            return self._run._course.open_charge(request.round_number, request.agent_id)
        self._settle(request, call)
        charge, intent.charge = intent.charge, None
        return charge

    def _told(self, request: AgentRequest, previous: AttemptEnd) -> tuple[str, str, Usage]:
        """How the attempt before ended, and what it took."""
        call = previous.call
        usage = self._run._course.last_usage(request.round_number, request.agent_id) if call is None else call.counted
        return previous.state.value, previous.kind, usage

    def _began(self, request: AgentRequest) -> datetime | None:
        return self._run._course.began_at(request.round_number, request.agent_id)

    async def _record(self, entry: Entry, intent: _Intent | None = None) -> None:
        gathering = self._gathering
        if gathering is None:
            gathering = self._gathering = _Gathering()
            commit = asyncio.create_task(self._commit(gathering), name="record-agents")
            self._commits.add(commit)
            commit.add_done_callback(self._commits.discard)
        place = len(gathering.entries)
        gathering.entries.append(entry)
        if intent is not None:
            intent.gathering, intent.place = gathering, place
        await gathering.committed.wait()
        if place in gathering.refused:
            raise gathering.refused[place]
        if gathering.error is not None:
            # From where it was raised first: each of those who wait would else add its own steps to everybody's.
            raise gathering.error.with_traceback(gathering.origin)

    async def _commit(self, gathering: _Gathering) -> None:
        # A task takes its first step in the next turn of the loop, so whoever comes in this one is in.
        self._gathering = None
        try:
            await self._store(gathering)
        except Exception as error:  # noqa: BLE001 - it is not swallowed: everyone who waits raises it
            gathering.error, gathering.origin = error, error.__traceback__
        finally:
            gathering.committed.set()

    async def _store(self, gathering: _Gathering) -> None:
        try:
            await self._run._store(gathering.entries, self._deadline)
        except BudgetExceededError:
            # Together they would take more than the key has left: each by itself now, until it is used up.
            for place, entry in enumerate(gathering.entries):
                try:
                    await self._run._store([entry], self._deadline)
                except BudgetExceededError as error:
                    gathering.refused[place] = error


def _cause_on_record(course: Course) -> StopCause | None:
    """Why it is to end early, as far as the record says so: a halt ends it although whoever saw it died before writing that down."""
    if not course.is_sound:
        return StopCause.MISTRUSTED
    was_halted = any(record.state is AgentState.HALTED for record in course.records.values())
    return StopCause.HALTED if was_halted else None


_SUSPENDED = StopCause.SUSPENDED.value[1]
_STATUS_OF_CAUSE: dict[StopCause | None, tuple[DeliberationStatus, str]] = {
    StopCause.CANCELLED: (DeliberationStatus.CANCELLED, "cancelled on request"),
    StopCause.HALTED: (DeliberationStatus.HALTED, "the system was halted"),
    StopCause.MISTRUSTED: (DeliberationStatus.FAILED, "the ledger of its calls is not what the log says"),
}
_UNKNOWN_END = AttemptEnd(AgentState.FAILED, "interrupted")


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


def _record(
    request: AgentRequest,
    ending: AgentOutput | AgentFailure,
    usage: Usage,
    *,
    started_at: datetime | None,
    finished_at: datetime,
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
            usage=usage,
            duration_seconds=ending.duration_seconds,
            fell_back=ending.fell_back,
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
        usage=usage,
        truncated=ending.truncated,
        duration_seconds=ending.duration_seconds,
        fell_back=ending.fell_back,
    )
