"""Bugs that are planted, to see that the simulation catches them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from application.ports.agent_orchestrator import AgentRequest
from application.ports.deliberation_repository import Commit
from application.ports.idempotency import IdempotencyKey
from application.ports.model_desk import Forecast
from application.services import deliberation_run
from application.services.batch import AttemptEnd, CallEnd, StopCause
from application.services.batch_run import BatchRun
from application.services.concurrent_deliberation_service import ConcurrentDeliberationService
from application.services.continuation import Course, course_of
from application.services.deliberation_record import DeliberationRecord
from application.services.deliberation_run import DeliberationRun
from application.services.deliberation_worker import DeliberationWorker
from application.services.round_recorder import RoundRecorder
from application.services.shared_purse import SharedPurse
from application.services.slot_queue import SlotQueue
from domain.errors.budget import BudgetExceededError
from domain.models.agent_pool import AgentPool
from domain.models.budget import Usage
from domain.models.deliberation import Deliberation, WitnessSpan
from domain.models.event import Event
from domain.models.money import Charge, Hold
from domain.protocols.proceedings import Proceedings
from domain.witness.entry import Entry
from infrastructure.stubs import in_memory_repository, kept_deliberation
from infrastructure.stubs.in_memory_repository import InMemoryRepository
from tests.simulation.store import StoreLink, immediately
from tests.virtual_time import pass_time

__all__ = ["PLANTED_BUGS"]

Plant = Callable[[pytest.MonkeyPatch], None]


def slot_not_returned(patch: pytest.MonkeyPatch) -> None:
    """One agent keeps its slot."""
    release = AgentPool.release

    def keep(pool: AgentPool, agent_id: str, batch_id: str = "") -> bool:
        return agent_id == "voice-0" or release(pool, agent_id, batch_id)

    patch.setattr(AgentPool, "release", keep)


def slot_given_twice(patch: pytest.MonkeyPatch) -> None:
    """The pool believes that it has one more slot than there are."""
    patch.setattr(AgentPool, "is_exhausted", property(lambda pool: pool.active_count > pool.max_concurrent))
    acquire = AgentPool.acquire

    def take(pool: AgentPool, agent_id: str, batch_id: str = "") -> None:
        pool.max_concurrent += 1
        try:
            acquire(pool, agent_id, batch_id)
        finally:
            pool.max_concurrent -= 1

    patch.setattr(AgentPool, "acquire", take)


def outcome_recorded_twice(patch: pytest.MonkeyPatch) -> None:
    """The store takes the end of an agent again where it has it already, and so it is told."""
    append = InMemoryRepository.append
    agent_ended = RoundRecorder.agent_ended

    async def take(repository: InMemoryRepository, commit: Commit) -> WitnessSpan | None:
        kept = repository._kept.get(commit.deliberation_id)
        for entry in commit.entries:
            if kept is not None and entry.record is not None:
                kept.records.pop((entry.record.round_number, entry.record.agent_id), None)
        return await append(repository, commit)

    async def tell(recorder: RoundRecorder, request: AgentRequest, ending: Any, last: Any = None) -> Any:
        if request.agent_id == "voice-1":
            await agent_ended(recorder, request, ending, last)
            recorder.records.pop()
        return await agent_ended(recorder, request, ending, last)

    patch.setattr(InMemoryRepository, "append", take)
    patch.setattr(RoundRecorder, "agent_ended", tell)


def halt_ignored(patch: pytest.MonkeyPatch) -> None:
    """Nobody asks before a call whether it is halted."""

    async def go(run: BatchRun) -> bool:
        return run._batch.cause is None

    patch.setattr(BatchRun, "_may_call", go)


def halt_ends_nothing(patch: pytest.MonkeyPatch) -> None:
    """Calls in flight go on when it is halted."""

    async def forget(service: ConcurrentDeliberationService, batch: object) -> None:
        await asyncio.Event().wait()

    patch.setattr(ConcurrentDeliberationService, "_stop_when_halted", forget)


def doubt_taken_for_a_halt(patch: pytest.MonkeyPatch) -> None:
    """A channel that cannot be read ends what runs."""

    async def stop(run: BatchRun) -> bool:
        if await run._halt.is_halted():
            run._batch.stop(StopCause.HALTED)
        return run._batch.cause is None

    patch.setattr(BatchRun, "_may_call", stop)


def fence_not_checked(patch: pytest.MonkeyPatch) -> None:
    """Whoever held a deliberation before goes on recording."""
    append = InMemoryRepository.append

    async def take(repository: InMemoryRepository, commit: Commit) -> WitnessSpan | None:
        return await append(repository, replace(commit, lease=None))

    patch.setattr(InMemoryRepository, "append", take)


def intent_after_the_call(patch: pytest.MonkeyPatch) -> None:
    """The call does not wait until its intent is stored."""
    agent_starting = RoundRecorder.agent_starting

    async def hurry(
        recorder: RoundRecorder, request: AgentRequest, forecast: Forecast, previous: AttemptEnd | None = None
    ) -> None:
        recorder._commits.add(asyncio.create_task(agent_starting(recorder, request, forecast, previous)))

    patch.setattr(RoundRecorder, "agent_starting", hurry)


def key_in_a_step_of_its_own(patch: pytest.MonkeyPatch) -> None:
    """The key is stored after the deliberation that it stands for."""
    add = StoreLink.add

    async def twice(
        link: StoreLink,
        deliberation: Deliberation,
        accepted: Entry,
        *,
        lease: str | None = None,
        lease_s: float = 0.0,
        idempotency: IdempotencyKey | None = None,
    ) -> None:
        await add(link, deliberation, accepted, lease=lease, lease_s=lease_s)
        await pass_time(0.01)
        if idempotency is not None and immediately(link._within.remembered("", idempotency.key)) is None:
            link._within._remember(idempotency, deliberation.id)

    patch.setattr(StoreLink, "add", twice)


def gap_in_the_events(patch: pytest.MonkeyPatch) -> None:
    """A number is left out."""
    events = kept_deliberation.events_in

    def skip(entry: bytes, *, after: int) -> list[Event]:
        return events(entry, after=after + (after == 4))

    patch.setattr(in_memory_repository, "events_in", skip)


def deadline_begun_anew(patch: pytest.MonkeyPatch) -> None:
    """Whoever goes on has all of the time again."""
    patch.setattr(DeliberationRun, "_seconds_left", lambda run: run.deliberation.specification.limits.deadline_s)


def _course(patch: pytest.MonkeyPatch, change: Callable[[Course], Course]) -> None:
    patch.setattr(deliberation_run, "course_of", lambda claim: change(course_of(claim)))


def finished_calls_repeated(patch: pytest.MonkeyPatch) -> None:
    """Whoever goes on asks everybody again."""
    _course(patch, lambda course: replace(course, records={}))


def attempts_counted_anew(patch: pytest.MonkeyPatch) -> None:
    """Whoever goes on makes a call again under the number that it had."""
    _course(patch, lambda course: replace(course, calls={}))


def round_begun_again(patch: pytest.MonkeyPatch) -> None:
    """Whoever goes on begins the round anew that the dead had begun."""
    _course(patch, lambda course: replace(course, rounds=frozenset()))


def later_rounds_forgotten(patch: pytest.MonkeyPatch) -> None:
    """Whoever goes on knows of the blind round alone."""
    _course(
        patch, lambda course: replace(course, records={turn: r for turn, r in course.records.items() if not turn[0]})
    )


def lots_drawn_anew(patch: pytest.MonkeyPatch) -> None:
    """Lots come from a generator, so that each reader of the record draws others."""

    def draw(proceedings: Proceedings, names: Iterable[str], *purpose: str) -> list[str]:
        return sorted(names, key=lambda _: random.random())

    patch.setattr(Proceedings, "draw", draw)


def nobody_goes_on(patch: pytest.MonkeyPatch) -> None:
    """What a dead process held is left."""

    async def look_away(worker: DeliberationWorker) -> None:
        return None

    patch.setattr(DeliberationWorker, "_sweep", look_away)


def cancellation_not_heard(patch: pytest.MonkeyPatch) -> None:
    """A request to cancel that another process took is not heard."""

    async def deaf(worker: DeliberationWorker) -> None:
        held = worker._held()
        if held:
            await worker._leases.renew(held, lease_s=5.0)

    patch.setattr(DeliberationWorker, "_renew", deaf)


def uncommitted_shown(patch: pytest.MonkeyPatch) -> None:
    """A reader is told what is on its way to the store."""
    append = StoreLink.append
    get = StoreLink.get
    on_their_way: dict[str, Deliberation] = {}

    async def note(link: StoreLink, commit: Commit) -> WitnessSpan | None:
        if commit.deliberation is not None:
            on_their_way[commit.deliberation_id] = commit.deliberation
        return await append(link, commit)

    async def tell(link: StoreLink, deliberation_id: str) -> Deliberation | None:
        return on_their_way.get(deliberation_id) or await get(link, deliberation_id)

    patch.setattr(StoreLink, "append", note)
    patch.setattr(StoreLink, "get", tell)


def agents_not_counted(patch: pytest.MonkeyPatch) -> None:
    """An agent that waited for its slot is not counted as invoked."""
    grant = SlotQueue._grant

    def take(queue: SlotQueue, agent_id: str, batch_id: str) -> None:
        counted, queue._granted = queue._granted, None if queue.waiting_count else queue._granted
        grant(queue, agent_id, batch_id)
        queue._granted = counted

    patch.setattr(SlotQueue, "_grant", take)


def start_overtaken(patch: pytest.MonkeyPatch) -> None:
    """What follows the start of a deliberation does not wait for it."""

    async def hurry(
        record: DeliberationRecord,
        entries: Sequence[Entry],
        deadline: float,
        *,
        deliberation: Deliberation | None = None,
    ) -> WitnessSpan | None:
        return await record._append(entries, deadline, deliberation=deliberation)

    patch.setattr(DeliberationRecord, "store", hurry)


def frozen_one_calls(patch: pytest.MonkeyPatch) -> None:
    """A process that was frozen calls without asking whether another has taken over."""
    patch.setattr(DeliberationWorker, "is_certain", lambda worker, lease: True)


def intent_after_the_end(patch: pytest.MonkeyPatch) -> None:
    """An agent that was stopped ends before the intent of its next attempt is stored."""
    record = RoundRecorder._record

    async def forget(recorder: RoundRecorder, entry: Entry, intent: object = None) -> None:
        await record(recorder, entry)

    patch.setattr(RoundRecorder, "_record", forget)


def money_not_held(patch: pytest.MonkeyPatch) -> None:
    """A call is made whatever the others in flight may still take."""

    async def hold(shared: SharedPurse, hold: Hold) -> None:
        purse = shared._purse
        if purse.lacks(hold, at_best=True) is not None:
            raise BudgetExceededError(budget="max_cost_usd", limit=0, used=0, wanted=0)
        purse._tokens_held += hold.tokens
        purse._cost_held += hold.cost or 0
        purse.calls_held += 1

    patch.setattr(SharedPurse, "hold", hold)


def budget_begun_anew(patch: pytest.MonkeyPatch) -> None:
    """Whoever goes on with a deliberation does not know what it has spent."""
    patch.setattr(Course, "spent", lambda course: Usage())


def charge_forgotten(patch: pytest.MonkeyPatch) -> None:
    """A call whose end nobody knows is taken for one that took nothing."""
    make = RoundRecorder._charge

    def forget(recorder: RoundRecorder, request: AgentRequest, call: CallEnd | None) -> Charge | None:
        charge = make(recorder, request, call)
        return charge if charge is None or charge.is_certain else replace(charge, cost=0, is_certain=True)

    patch.setattr(RoundRecorder, "_charge", forget)


def key_budget_ignored(patch: pytest.MonkeyPatch) -> None:
    """What other deliberations of the key have spent is not looked at."""
    patch.setattr(InMemoryRepository, "_spend", lambda repository, entries: None)


def _all(*plants: Plant) -> Mapping[str, Plant]:
    return {plant.__name__: plant for plant in plants}


PLANTED_BUGS = _all(
    slot_not_returned,
    slot_given_twice,
    outcome_recorded_twice,
    halt_ignored,
    halt_ends_nothing,
    doubt_taken_for_a_halt,
    fence_not_checked,
    intent_after_the_call,
    key_in_a_step_of_its_own,
    gap_in_the_events,
    deadline_begun_anew,
    finished_calls_repeated,
    attempts_counted_anew,
    round_begun_again,
    later_rounds_forgotten,
    lots_drawn_anew,
    nobody_goes_on,
    cancellation_not_heard,
    uncommitted_shown,
    agents_not_counted,
    start_overtaken,
    frozen_one_calls,
    money_not_held,
    budget_begun_anew,
    charge_forgotten,
    key_budget_ignored,
    intent_after_the_end,
)
"""By name."""
