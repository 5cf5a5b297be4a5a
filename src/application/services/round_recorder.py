"""Records each agent of a round as it starts and as it ends: what it intends, what it holds and takes, and what it said."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType

from application.ports.agent_orchestrator import AgentOutput, AgentRequest
from application.ports.clock import Clock
from application.ports.model_desk import Forecast
from application.services.batch import AttemptEnd, CallEnd, StopCause
from application.services.continuation import Course
from application.services.key_turns import KeyTurns
from application.services.shared_purse import SharedPurse
from domain.errors.budget import BudgetExceededError
from domain.errors.deliberation import UnreadableBallotError
from domain.models.agent_output import AgentFailure
from domain.models.budget import Usage
from domain.models.deliberation import Deliberation
from domain.models.money import Charge, Reservation, picodollars
from domain.models.question import AnswerFormat, AnswerKind
from domain.models.roll_call import AgentState
from domain.models.round import AgentRecord, FailureCause
from domain.models.text import clean
from domain.voting.ballot import Ballot
from domain.voting.ballot_reader import read_ballot
from domain.witness.entry import Entry, agent_ended, call_intended

__all__ = ["RoundRecorder"]

_logger = logging.getLogger(__name__)
# What a provider or an orchestrator of somebody else's names itself may be of any length; an entry may not.
_MAX_MODEL = 256
_MAX_KIND = 128
_SUSPENDED = StopCause.SUSPENDED.value[1]
_UNKNOWN_END = AttemptEnd(AgentState.FAILED, "interrupted")


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
    """The last call that an agent intended here, open until it is settled.

    `charge` is still to be written down: that of the call before until the intent is on record, its own once it is settled.
    """

    attempt: int
    forecast: Forecast
    reservation: Reservation
    is_open: bool = True
    is_in_flight: bool = False
    charge: Charge | None = None
    gathering: _Gathering | None = None
    place: int = 0

    @property
    def was_refused(self) -> bool:
        """Whether it is not known to be on record: the key has not enough left, or the store stayed away."""
        gathering = self.gathering
        return gathering is None or gathering.error is not None or self.place in gathering.refused


class RoundRecorder:
    """Records each agent of a round as it starts and as it ends; what it returns is already committed.

    The store shares commits as well, but a commit of 72 records costs the loop a third of 72 commits of one.
    """

    def __init__(
        self,
        deliberation: Deliberation,
        *,
        course: Course,
        purse: SharedPurse,
        turns: KeyTurns,
        clock: Clock,
        prompt_of: Callable[[AgentRequest], str | None],
        store: Callable[[Sequence[Entry]], Awaitable[object]],
        is_suspended: Callable[[], bool],
    ) -> None:
        """`course` is how far others have come. `store` commits, and `is_suspended` says whether the rest is for another to do."""
        self._deliberation = deliberation
        self._course = course
        self._purse = purse
        self._turns = turns
        self._clock = clock
        self._prompt_of = prompt_of
        self._commit_entries = store
        self._is_suspended = is_suspended
        self._started: dict[str, datetime] = {}
        self._intended: dict[str, _Intent] = {}
        self._gathering: _Gathering | None = None
        self._commits: set[asyncio.Task[None]] = set()
        self.records: list[AgentRecord] = []

    async def reserve(self, request: AgentRequest, forecast: Forecast, previous: AttemptEnd | None = None) -> None:
        """Hold what the call may take, once the calls in flight leave enough. Raises `BudgetExceededError`."""
        if previous is not None:
            # Or the agent would wait for what it holds itself, and others for a call that is over: they may be who it waits for.
            self._settle(request, previous.call)
            before = self._intended.get(request.agent_id)
            if before is not None:
                self._land(before)
        purse = self._purse
        if not purse.try_hold(forecast.hold):
            await purse.hold(forecast.hold)

    def give_back(self, forecast: Forecast) -> None:
        """The call is not made."""
        self._purse.settle(forecast.hold, tokens=0, cost=0)

    async def agent_starting(
        self, request: AgentRequest, forecast: Forecast, previous: AttemptEnd | None = None
    ) -> None:
        """Commit the intent to call before the call, for each attempt anew, and how the one before ended.

        Raises `BudgetExceededError` where the API key has not enough left.
        """
        now = self._clock.now()
        if request.attempt > 1 and previous is None:
            previous = _UNKNOWN_END
        self._started.setdefault(request.agent_id, self._began(request) or now)
        prompt = forecast.prompt
        entry = call_intended(
            self._deliberation.id,
            at=now,
            round_number=request.round_number,
            agent_id=request.agent_id,
            attempt=request.attempt,
            model=forecast.model if forecast.model is not None else request.model,
            prompt=prompt if prompt is not None else self._prompt_of(request),
            prompt_salt=self._deliberation.question_salt,
            prompt_version=forecast.prompt_version,
            hold=forecast.hold,
            previous=None if previous is None else self._told(request, previous),
        )
        day: str = entry.document["at"][:10]
        reservation = entry.reservation = Reservation(self._deliberation.key_name or "", day, forecast.hold)
        if previous is not None:
            entry.charge = self._charge(request, previous.call)
        intent = self._intended[request.agent_id] = _Intent(request.attempt, forecast, reservation, charge=entry.charge)
        try:
            await self._turns.take(reservation.key_name, lambda: self._record(entry, intent))
        except BudgetExceededError:
            self._note_refusal(intent)
            raise
        intent.charge = None
        intent.is_in_flight = True

    async def agent_ended(
        self, request: AgentRequest, ending: AgentOutput | AgentFailure, last: CallEnd | None = None
    ) -> AgentState:
        """Read the ballot, commit the record, and say how the roll call counts the agent.

        One that was stopped only because this process stops is not recorded: it ends elsewhere.
        """
        intent = self._intended.get(request.agent_id)
        if isinstance(ending, AgentFailure) and ending.kind == _SUSPENDED and self._is_suspended():
            if intent is not None:
                self._note_refusal(intent)
                self._land(intent)
            return ending.state
        now = self._clock.now()
        started_at = self._started.get(request.agent_id, self._began(request))
        if intent is not None and intent.is_open:
            # It may have been stopped while its intent was on its way, and no intent is recorded after the end.
            if intent.gathering is not None:
                await intent.gathering.committed.wait()
            if intent.was_refused:
                self._note_refusal(intent)
            else:
                intent.charge = None
        usage = ending.usage
        if request.attempt > 1:
            usage = self._course.usage(request.round_number, request.agent_id) + usage
        # The clock of the day may have been set back meanwhile.
        finished_at = now if started_at is None else max(now, started_at)
        record = _record(request, ending, usage, started_at=started_at, finished_at=finished_at)
        deliberation = self._deliberation
        entry = agent_ended(deliberation.id, record, deliberation.specification.answers_in(record.round_number))
        entry.charge = self._charge(request, last)
        await self._record(entry)
        if intent is not None:
            self._land(intent)
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

    def close(self) -> None:
        """Nobody waits any more for calls of this round, however it was left."""
        for intent in self._intended.values():
            self._land(intent)

    def _land(self, intent: _Intent) -> None:
        if intent.is_in_flight:
            intent.is_in_flight = False
            self._turns.land(intent.reservation.key_name)

    def _note_refusal(self, intent: _Intent) -> None:
        """It is not on record, or not for this process to go on with: what it held is free again."""
        if intent.is_open:
            intent.is_open = False
            self.give_back(intent.forecast)

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
        self._purse.settle(hold, tokens=tokens, cost=cost or 0)
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
            return self._course.open_charge(request.round_number, request.agent_id)
        self._settle(request, call)
        charge, intent.charge = intent.charge, None
        return charge

    def _told(self, request: AgentRequest, previous: AttemptEnd) -> tuple[str, str, Usage]:
        """How the attempt before ended, and what it took."""
        call = previous.call
        usage = self._course.last_usage(request.round_number, request.agent_id) if call is None else call.counted
        return previous.state.value, previous.kind, usage

    def _began(self, request: AgentRequest) -> datetime | None:
        return self._course.began_at(request.round_number, request.agent_id)

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
            await self._commit_entries(gathering.entries)
        except BudgetExceededError:
            # Together they would take more than the key has left: each by itself now, until it is used up.
            for place, entry in enumerate(gathering.entries):
                try:
                    await self._commit_entries([entry])
                except BudgetExceededError as error:
                    gathering.refused[place] = error


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
