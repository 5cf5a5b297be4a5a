"""A soak over agents and a record in memory, in which a test plants what goes wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from application.ports.run_observer import NullRunObserver
from application.ports.soak_agents import Load, Order, ProcessMemory, Resources, UndeliverableError
from application.services.soak.run_soak import Continuation, RunSoak
from application.services.stop_signal import StopSignal
from domain.errors.dependency import DependencyUnavailableError
from domain.models.run import JsonValue
from domain.models.soak import SoakPlan
from tests.virtual_time import pass_time, time_passed

__all__ = ["MIB", "Bench", "FakeAgents", "FakeRecord", "plan_of"]


MIB = 2**20


class FakeAgents:
    """Host, post and gauge in one: agents that answer after `answer_s`, as long as nothing is planted."""

    def __init__(self) -> None:
        self.on_exit: Callable[[str, int, int], None] = lambda _agent, _pid, _code: None
        self.on_response: Callable[[str, str, Mapping[str, JsonValue]], None] = lambda _agent, _id, _response: None
        self.pids: dict[str, int] = {}
        self.next_pid = 100
        self.answer_s: Callable[[Order], float | None] = lambda _order: 0.01
        self.bytes_of: Callable[[int], int] = lambda _pid: 10 * MIB
        self.corrupt = 0
        self.names: frozenset[str] = frozenset()
        self.alive: set[str] = set()
        self.final_audits = 0
        self.puts: list[Order] = []
        self.starts: list[tuple[float, str]] = []
        self.closed: list[str] = []
        self.ready_after_s = 0.0
        self.refuses = 0
        self.open_orders: dict[str, Order] = {}

    async def open(self) -> None: ...

    async def start(self, agents: Sequence[str]) -> Mapping[str, int]:
        for agent in agents:
            self.next_pid += 1
            self.pids[agent] = self.next_pid
            self.starts.append((time_passed(), agent))
            if agent in self.open_orders:
                self.answer(self.open_orders[agent])
        return {agent: self.pids[agent] for agent in agents}

    async def stop(self, agents: Sequence[str], *, within_s: float) -> None:
        for agent in agents:
            pid = self.pids.pop(agent, None)
            if pid is not None:
                self.on_exit(agent, pid, 0)

    def kill(self, agent: str) -> int | None:
        pid = self.pids.pop(agent, None)
        if pid is not None:
            asyncio.get_running_loop().call_soon(self.on_exit, agent, pid, -9)
        return pid

    def helpers(self) -> Sequence[int]:
        return []

    async def close(self) -> None:
        self.closed.append("closed")

    def expect(self, agent: str, pid: int | None) -> None: ...

    def ended(self, agent: str) -> None: ...

    def taken(self) -> frozenset[str]:
        return self.names

    async def ready(self, agents: Iterable[str], *, timeout_s: float) -> frozenset[str]:
        await pass_time(min(self.ready_after_s, timeout_s))
        return frozenset(agents if self.ready_after_s <= timeout_s else ())

    def members(self) -> Mapping[str, int]:
        return dict(self.pids)

    def lives(self, agent: str) -> bool:
        return agent in self.pids or agent in self.alive

    def begin_cycle(self) -> None: ...

    async def put(self, order: Order) -> None:
        if self.refuses:
            self.refuses -= 1
            raise UndeliverableError("full")
        self.puts.append(order)
        self.open_orders[order.agent] = order
        self.answer(order)

    def answer(self, order: Order) -> None:
        after_s = self.answer_s(order)
        if after_s is not None:
            asyncio.get_running_loop().call_later(after_s, self._respond, order, self.pids.get(order.agent))

    def _respond(self, order: Order, pid: int | None) -> None:
        if self.pids.get(order.agent) == pid:
            self.open_orders.pop(order.agent, None)
            self.on_response(order.agent, order.message_id, {})

    def withdraw(self, agent: str) -> None:
        self.open_orders.pop(agent, None)

    async def audit(self, *, final: bool = False) -> None:
        self.final_audits += final

    def size_bytes(self) -> int:
        return 0

    def memory(self, pids: Iterable[int]) -> Mapping[int, ProcessMemory]:
        found = {}
        for pid in pids:
            size = self.bytes_of(pid)
            found[pid] = ProcessMemory(rss=size, pss=size, uss=size, anonymous=size)
        return found

    def load(self, pids: Iterable[int]) -> Load:
        return Load({}, {}, 0.0)

    def resources(self) -> Resources:
        return Resources(descriptors=10)


class FakeRecord:
    """Keeps everything in lists; `fails` rows are refused first."""

    def __init__(self) -> None:
        self.written: list[Mapping[str, JsonValue]] = []
        self.waiting: list[Mapping[str, JsonValue]] = []
        self.said: list[tuple[str, str]] = []
        self.kept: list[Mapping[str, JsonValue]] = []
        self.reports: list[Mapping[str, JsonValue]] = []
        self.fails = 0

    def add_row(self, row: Mapping[str, JsonValue]) -> None:
        self.waiting.append(row)
        if self.fails:
            self.fails -= 1
            raise DependencyUnavailableError(dependency="the disk", problem="full")
        self.written += self.waiting
        self.waiting = []

    def rows(self) -> Sequence[Mapping[str, JsonValue]]:
        return self.written

    def say(self, level: str, text: str) -> None:
        self.said.append((level, text))

    def keep(self, entry: Mapping[str, JsonValue]) -> None:
        self.kept.append(entry)

    def write_report(self, report: Mapping[str, JsonValue]) -> None:
        self.reports.append(report)


class Bench:
    """A run over fakes."""

    def __init__(self, plan: SoakPlan, *, continuation: Continuation | None = None) -> None:
        self.agents = FakeAgents()
        self.record = FakeRecord()
        self.stop = StopSignal()
        self.use_case = RunSoak(
            plan,
            host=self.agents,
            post=self.agents,
            gauge=self.agents,
            record=self.record,
            session="s",
            continuation=continuation,
            clock=time_passed,
            now=lambda: datetime(2026, 1, 1, tzinfo=UTC),
            seed=1,
        )

    async def run(self) -> dict[str, Any]:
        ending = await self.use_case.execute(NullRunObserver(), self.stop)
        return {"status": ending.status, **ending.result}


def plan_of(cycles: int, **more: Any) -> SoakPlan:
    return SoakPlan(**{"agents": 3, "interval_s": 5.0, "duration_s": cycles * 5.0, **more})
