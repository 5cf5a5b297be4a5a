"""The use case of a soak: agents are started, asked in cycles, measured and judged, and all of them are gone when it ends."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from application.ports.run_observer import RunObserver
from application.ports.soak_agents import AgentHost, Load, Order, ProcessGauge, SoakPost, SoakRecord
from application.services.soak.cycle import Cycle
from application.services.soak.disturbance import disturbed_s
from application.services.soak.membership import Membership
from application.services.soak.message_book import MessageBook
from application.services.soak.supervision import Supervision
from application.services.soak.tally import Counts, Tally
from application.services.stop_signal import StopSignal
from domain.errors.dependency import DependencyUnavailableError
from domain.models.deliberation import DeliberationStatus
from domain.models.message import BusStats
from domain.models.run import JsonValue, RunEnding
from domain.models.soak import SoakPlan

__all__ = ["Continuation", "RunSoak"]

_NOTE_EVERY_S = 0.1
_WIND_UP_S = 1.0
_MOST_NAMED = 10
_PRIORITIES = 3


@dataclass(frozen=True, slots=True)
class Continuation:
    """What an interrupted run had done: its rows, and the sessions in which it gave ids to messages."""

    rows: Sequence[Mapping[str, JsonValue]] = ()
    sessions: Sequence[str] = ()


class RunSoak:
    """Runs one plan to its end, or until it is asked to stop; then agents are ended and the report says what was counted by then."""

    def __init__(
        self,
        plan: SoakPlan,
        *,
        host: AgentHost,
        post: SoakPost,
        gauge: ProcessGauge,
        record: SoakRecord,
        session: str,
        continuation: Continuation | None = None,
        bus_stats: Callable[[], Awaitable[BusStats]] | None = None,
        clock: Callable[[], float] = time.perf_counter,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        seed: int | None = None,
    ) -> None:
        """`session` begins the ids of this process's messages; `clock` measures in seconds, `now` tells the time of day."""
        self._plan = plan
        self._host = host
        self._post = post
        self._gauge = gauge
        self._record = record
        self._clock = clock
        self._now = now
        self._bus_stats = bus_stats
        self._random = random.Random(seed)  # noqa: S311 - whom to kill is no secret
        earlier = continuation or Continuation()
        self._tally = Tally(plan)
        self._tally.resume(earlier.rows)
        self._book = MessageBook(session, earlier=earlier.sessions)
        self._supervision = Supervision(
            host=host, post=post, say=record.say, before_restart=self._before_restart, on_end=self._process_ended
        )
        self._cycle: Cycle | None = None
        self._kills: asyncio.Task[None] | None = None
        self._membership = Membership(post, say=record.say, ended=self._tally.forget)
        self._crashes_told = 0
        self._noted_at = float("-inf")
        post.on_response = self._hear

    async def execute(self, observer: RunObserver, stop: StopSignal) -> RunEnding:
        """Run the plan. Raises `DependencyUnavailableError` where agents or files cannot be had at all."""
        watch = asyncio.create_task(self._abandon_on(stop))
        every_s = self._plan.kill_every_s
        if every_s is not None:
            self._kills = asyncio.create_task(self._inject(every_s))
        try:
            return await self._run(observer, stop)
        finally:
            tasks = {watch, *(() if self._kills is None else (self._kills,))}
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            await self._supervision.close()
            await self._host.close()
            await self._post.close()

    async def _run(self, observer: RunObserver, stop: StopSignal) -> RunEnding:
        plan, record = self._plan, self._record
        record.say(
            "INFO",
            f"{plan.agents} agents, {plan.cycles} cycles of {plan.interval_s:g} s, response timeout {plan.response_timeout_s:g} s, "
            f"transport {plan.transport}"
            + (f", from cycle {self._tally.completed + 1} on" if self._tally.completed else ""),
        )
        began = self._clock()
        await self._post.open()
        await self._host.open()
        all_ready = await self._scale_to(plan.agents_in(self._tally.completed + 1))
        if self._tally.ready_ms is None:
            self._tally.ready_ms = (self._clock() - began) * 1e3
        record.say(
            "INFO" if all_ready else "ERROR",
            f"{len(self._post.members())} agents ready after {(self._clock() - began) * 1e3:.0f} ms",
        )
        observer.note("soak.ready", {"agents": len(self._post.members()), "ready_ms": self._tally.ready_ms})
        start = asyncio.get_running_loop().time()
        first = self._tally.completed + 1
        for cycle in range(first, plan.cycles + 1):
            if not await self._until(start + (cycle - first) * plan.interval_s, stop):
                break
            await self._run_cycle(cycle)
            if stop.is_set:
                break
            await self._tell(observer, cycle)
        return await self._finish(observer, stop)

    async def _run_cycle(self, cycle: int) -> None:
        await self._supervision.settle()
        await self._scale_to(self._plan.agents_in(cycle))
        await self._post.audit()
        members = self._membership.look(self._supervision.own)
        # Whoever should be there and is not is asked all the same, so that nobody's absence goes uncounted.
        agents = [*members, *(agent for agent in self._supervision.own if agent not in members)]
        self._post.begin_cycle()
        orders = {agent: self._orders_for(agent, cycle) for agent in agents}
        for order in (order for found in orders.values() for order in found):
            self._record.keep({"at": self._ms(), "to": order.agent, "message": _message_document(order)})
        done = Cycle(
            orders, post=self._post, book=self._book, own=self._supervision.own.__contains__, clock=self._clock
        )
        watched = [*members.values(), *self._host.helpers()]
        before = self._gauge.load(watched)
        self._cycle = done
        try:
            await done.run(timeout_s=self._plan.response_timeout_s)
        finally:
            self._cycle = None
        if done.abandoned:
            self._tally.count_withdrawn(done)
            return
        after = self._gauge.load([*watched, *self._supervision.own.values()])
        self._measure(cycle, members)
        judged_s = done.seconds - (0.0 if done.lost else self._disturbance(done, members, before, after))
        self._write(cycle, done, judged_ms=max(0.0, judged_s) * 1e3, agents=len(agents))

    def _orders_for(self, agent: str, cycle: int) -> list[Order]:
        """The messages of a cycle, the most urgent first; where there is one only, it is of the middle priority."""
        count = self._plan.messages_per_cycle
        priorities = [1] if count == 1 else sorted(place % _PRIORITIES for place in range(count))
        return [self._book.order(agent, cycle=cycle, priority=priority) for priority in priorities]

    def _disturbance(self, done: Cycle, members: Mapping[str, int], before: Load, after: Load) -> float:
        last = self._supervision.own.get(done.last or "", members.get(done.last or "", 0))
        # The run's own process is 0 in a load.
        path = [0, last, *self._host.helpers()]
        return min(done.seconds, disturbed_s(before, after, path=path, every=[0, *before.worked]))

    def _measure(self, cycle: int, members: Mapping[str, int]) -> None:
        pids = dict.fromkeys(members.values())
        measured = self._gauge.memory(pids)
        self._tally.measure(cycle, measured, constellation=self._membership.constellation, wanted=len(pids))
        self._tally.note_own(descriptors=self._gauge.resources().descriptors, folder_bytes=self._post.size_bytes())

    def _write(self, cycle: int, done: Cycle, *, judged_ms: float, agents: int) -> None:
        counts = self._counts()
        crashed = counts.crashes - self._crashes_told
        self._crashes_told = counts.crashes
        row = self._tally.row(
            cycle, done, counts=counts, judged_ms=judged_ms, at=self._now(), agents=agents, crashed=crashed
        )
        with contextlib.suppress(DependencyUnavailableError):
            # Said in the log by the record itself, kept, and tried again with the next row.
            self._record.add_row(row)
        missing = f", {done.lost} lost by {_names(done.unanswered)}" if done.lost else ""
        late = f", {done.undeliverable} times no room for a message" if done.undeliverable else ""
        self._record.say(
            "ERROR" if done.lost else "INFO",
            f"cycle {cycle} of {self._plan.cycles}: {done.received} of {done.sent} answered in {done.seconds * 1e3:.1f} ms{missing}{late}",
        )

    async def _tell(self, observer: RunObserver, cycle: int) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._noted_at < _NOTE_EVERY_S and cycle < self._plan.cycles:
            return
        self._noted_at = now
        total = self._tally.base + self._counts()
        observer.note(
            "soak.cycle_ended",
            {
                "cycle": cycle,
                "cycles": self._plan.cycles,
                "duration_ms": round(self._tally.durations_ms[-1], 3),
                "agents": len(self._membership.present),
                **total.document(),
            },
        )
        if self._bus_stats is not None:
            observer.count(await self._bus_stats())

    async def _finish(self, observer: RunObserver, stop: StopSignal) -> RunEnding:
        if self._kills is not None:
            self._kills.cancel()
        if stop.is_set:
            self._record.say("WARN", f"asked to stop ({stop.reason})")
        else:
            await self._supervision.settle()
        # What is young may be half written now and whole in a moment.
        await self._post.audit(final=True)
        await self._supervision.stop(list(self._supervision.own), within_s=_WIND_UP_S)
        if self._bus_stats is not None:
            observer.count(await self._bus_stats())
        report = self._tally.report(
            counts=self._counts(), rows=len(self._record.rows()), joined=len(self._membership.joined)
        )
        report["restart_ms"] = [round(took * 1e3, 1) for _, _, took in self._supervision.restart_times[-1_000:]]
        passed = report["passed"] is True
        failed = [name for name, found in _criteria(report) if not found]
        self._record.say("INFO" if passed else "ERROR", "passed" if passed else f"not passed: {', '.join(failed)}")
        self._record.write_report(report)
        if stop.reason is not None:
            return RunEnding(stop.reason.status, report)
        return RunEnding(DeliberationStatus.COMPLETED if passed else DeliberationStatus.FAILED, report)

    async def _scale_to(self, wanted: int) -> bool:
        own = self._supervision.own
        if len(own) == wanted:
            return True
        before = len(own)
        if before > wanted:
            leaving = list(own)[wanted:]
            await self._supervision.stop(leaving)
            all_ready = True
        else:
            names = self._free_names(wanted - before)
            for name in names:
                # Whoever had the name before may have left an answered message there.
                self._post.withdraw(name)
            all_ready = await self._supervision.start(names)
        if before:
            self._record.say("INFO", f"scaled from {before} to {wanted} agents")
        return all_ready

    def _free_names(self, count: int) -> list[str]:
        taken = {*self._supervision.own, *self._post.taken()}
        names: list[str] = []
        number = 1
        while len(names) < count:
            if str(number) not in taken:
                names.append(str(number))
            number += 1
        return names

    def _hear(self, agent: str, message_id: str, response: Mapping[str, JsonValue]) -> None:
        took = self._cycle.hear(agent, message_id) if self._cycle is not None else None
        if self._cycle is None:
            self._book.answered(agent, message_id)
        waited = "nobody waited for it" if took is None else f"after {took * 1e3:.1f} ms"
        self._record.say("DEBUG", f"agent {agent} answered {message_id}, {waited}")
        self._record.keep(
            {
                "at": self._ms(),
                "from": agent,
                "response_ms": None if took is None else round(took * 1e3, 3),
                "response": dict(response),
            }
        )

    def _process_ended(self, pid: int) -> None:
        # Agents that are tasks share a process, which has not ended with one of them.
        if list(self._supervision.own.values()).count(pid) < 2:
            self._tally.forget(pid)

    def _before_restart(self, agent: str) -> None:
        if not self._book.waits_for(agent):
            self._post.withdraw(agent)

    def _counts(self) -> Counts:
        supervision = self._supervision
        return Counts(
            late=self._book.late,
            duplicates=self._book.duplicates,
            corrupt=self._post.corrupt + self._book.strange,
            crashes=supervision.crashes + self._membership.crashes,
            restarts=supervision.restarts,
            injected=supervision.injected,
        )

    def _ms(self) -> int:
        return round(self._now().timestamp() * 1e3)

    async def _until(self, at: float, stop: StopSignal) -> bool:
        """Wait for that time of the loop; whether nobody asked to stop."""
        left = at - asyncio.get_running_loop().time()
        if left > 0 and not stop.is_set:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await stop.wait()
        return not stop.is_set

    async def _abandon_on(self, stop: StopSignal) -> None:
        await stop.wait()
        if self._cycle is not None:
            self._cycle.abandon()

    async def _inject(self, every_s: float) -> None:
        while True:
            await asyncio.sleep(every_s)
            own = list(self._supervision.own)
            if own:
                self._supervision.inject(self._random.choice(own))


def _message_document(order: Order) -> dict[str, JsonValue]:
    return {
        "messageId": order.message_id,
        "type": order.kind,
        "cycle": order.cycle,
        "priority": order.priority,
        "data": dict(order.data),
    }


def _names(agents: Sequence[str]) -> str:
    shown = ", ".join(agents[:_MOST_NAMED])
    return shown if len(agents) <= _MOST_NAMED else f"{shown} and {len(agents) - _MOST_NAMED} more"


def _criteria(report: Mapping[str, JsonValue]) -> list[tuple[str, bool]]:
    criteria = report["criteria"]
    found = criteria.items() if isinstance(criteria, dict) else ()
    return [(name, isinstance(criterion, dict) and criterion["passed"] is True) for name, criterion in found]
