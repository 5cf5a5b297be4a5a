"""What a soak counted so far, cycle by cycle, and the rows and the report made of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from application.ports.soak_agents import ProcessMemory
from application.services.soak.cycle import Cycle
from domain.models.run import JsonValue
from domain.models.soak import MessageKind, SoakPlan
from domain.models.soak_criteria import (
    GrowthWatch,
    judge_completeness,
    judge_crashes,
    judge_growth,
    judge_variance,
    percentile,
)

__all__ = ["ROW_TYPE", "Counts", "Tally"]

ROW_TYPE = "coordination_cycle"
_LEAST_WARM_UP = 3
_MOST_WARM_UP = 30
# Less memory than this is too little for percents of it to mean anything.
_FLOOR_BYTES = 2 * 1024 * 1024


@dataclass(slots=True)
class Counts:
    """Totals of the whole run, also over restarts of the orchestrator."""

    messages_sent: int = 0
    responses_received: int = 0
    lost: int = 0
    late: int = 0
    duplicates: int = 0
    corrupt: int = 0
    crashes: int = 0
    restarts: int = 0
    injected: int = 0

    def document(self) -> dict[str, JsonValue]:
        """By name."""
        return {name: getattr(self, name) for name in self.__slots__}

    def __add__(self, other: Counts) -> Counts:
        return Counts(*(getattr(self, name) + getattr(other, name) for name in self.__slots__))


@dataclass(slots=True)
class _Range:
    """First, last and most of something that must not grow."""

    first: int = 0
    last: int = 0
    most: int = 0
    seen: bool = False

    def add(self, value: int) -> None:
        if not self.seen:
            self.first, self.seen = value, True
        self.last = value
        self.most = max(self.most, value)

    def document(self) -> dict[str, JsonValue]:
        return {"first": self.first, "last": self.last, "max": self.most}


@dataclass(slots=True)
class _Memory:
    """Growth by two measures, and the means for the report."""

    warm_up: int
    rss: GrowthWatch = field(init=False)
    pss: GrowthWatch = field(init=False)
    means: dict[str, _Range] = field(default_factory=lambda: {name: _Range() for name in ("rss", "pss", "uss")})
    most_pss: int = 0
    earlier_worst: float | None = None

    def __post_init__(self) -> None:
        self.rss = GrowthWatch(self.warm_up, _FLOOR_BYTES)
        self.pss = GrowthWatch(self.warm_up, _FLOOR_BYTES)


class Tally:
    """Adds up what cycles bring. Rows carry the totals, so that a run that was interrupted goes on from its last row."""

    def __init__(self, plan: SoakPlan) -> None:
        self._plan = plan
        self.completed = 0
        self.base = Counts()
        self.ready_ms: float | None = None
        self.durations_ms: list[float] = []
        self.judged_ms: list[float] = []
        self._memory = _Memory(min(_MOST_WARM_UP, max(_LEAST_WARM_UP, plan.cycles // 10)))
        self._descriptors = _Range()
        self._agent_descriptors = _Range()
        self._folder = _Range()
        self._restart_counts = 0
        self._unmeasured = 0

    def resume(self, rows: Sequence[Mapping[str, JsonValue]]) -> None:
        """Take over what an interrupted run had counted."""
        for row in rows:
            self.completed += 1
            duration = _number(row.get("duration"))
            self.durations_ms.append(duration)
            self.judged_ms.append(_number(row.get("judgedDuration", duration)))
        if rows:
            totals = rows[-1].get("totals")
            if isinstance(totals, dict):
                known = Counts().document()
                self.base = Counts(**{name: int(_number(totals.get(name))) for name in known})
            ready = rows[-1].get("readyMs")
            self.ready_ms = _number(ready) if ready is not None else None
            worst = rows[-1].get("worstGrowth")
            self._memory.earlier_worst = None if worst is None else _number(worst)

    @property
    def growth(self) -> float:
        """The common growth so far in percent, 0 while there is none to tell."""
        return round(max(0.0, self._memory.rss.common or 0.0, self._memory.pss.common or 0.0), 3)

    def forget(self, pid: int) -> None:
        """That process has ended."""
        self._memory.rss.forget(pid)
        self._memory.pss.forget(pid)

    def measure(self, cycle: int, measured: Mapping[int, ProcessMemory], *, constellation: int, wanted: int) -> None:
        """What the agents took after a cycle; `constellation` changes whenever the number of agents does."""
        self._unmeasured = max(0, wanted - len(measured))
        for pid, memory in measured.items():
            self._memory.rss.add(cycle, pid, constellation, memory.rss)
            # Of what is shared with other programs only the anonymous part: their coming and going is not growth.
            self._memory.pss.add(cycle, pid, constellation, memory.anonymous)
            self._memory.most_pss = max(self._memory.most_pss, memory.pss)
        for name, mean in self._memory.means.items():
            mean.add(round(_mean([getattr(memory, name) for memory in measured.values()])))
        self._agent_descriptors.add(max((memory.descriptors for memory in measured.values()), default=0))

    def note_own(self, *, descriptors: int, folder_bytes: int) -> None:
        """What the run itself holds open, and what its messages take."""
        self._descriptors.add(descriptors)
        self._folder.add(folder_bytes)

    def row(
        self, cycle: int, done: Cycle, *, counts: Counts, judged_ms: float, at: datetime, agents: int, crashed: int
    ) -> dict[str, JsonValue]:
        """The line of a cycle that was completed; `counts` are those since this process began, without its messages."""
        self.completed += 1
        duration = done.seconds * 1e3
        self.durations_ms.append(duration)
        self.judged_ms.append(judged_ms)
        self.base += Counts(messages_sent=done.sent, responses_received=done.received, lost=done.lost)
        means = self._memory.means
        return {
            "timestamp": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "type": ROW_TYPE,
            "cycle": cycle,
            "messageType": MessageKind.of_cycle(cycle).value,
            "duration": round(duration, 3),
            "judgedDuration": round(judged_ms, 3),
            "agents": agents,
            "messagesSent": done.sent,
            "responsesReceived": done.received,
            "lost": done.lost,
            "responseRate": round(done.received / done.sent, 6) if done.sent else 0.0,
            "averageResponseTime": round(_mean(done.response_s) * 1e3, 3),
            "memoryStats": {
                "average": means["rss"].last,
                "growthRate": self.growth,
                "averagePss": means["pss"].last,
                "averageUss": means["uss"].last,
                "unmeasured": self._unmeasured,
            },
            "crashedAgents": crashed,
            "descriptors": {"run": self._descriptors.last, "agents": self._agent_descriptors.last},
            "folderBytes": self._folder.last,
            "readyMs": None if self.ready_ms is None else round(self.ready_ms, 3),
            "worstGrowth": self._worst_growth(),
            "totals": (self.base + counts).document(),
        }

    def count_withdrawn(self, done: Cycle) -> None:
        """Of a cycle that was abandoned, what was answered."""
        self.base += Counts(messages_sent=done.sent, responses_received=done.received, lost=done.lost)

    def report(self, *, counts: Counts, rows: int, joined: int) -> dict[str, JsonValue]:
        """The document of the run; `rows` are those in the file now, `counts` those since this process began."""
        total = self.base + counts
        memory = self._memory
        criteria = {
            "memory_growth": judge_growth(self.completed, memory.rss.value, memory.pss.value, memory.earlier_worst),
            "cycle_variance": judge_variance(self.judged_ms),
            "crashes": judge_crashes(total.crashes, total.injected),
            "complete_metrics": judge_completeness(
                rows=rows, completed=self.completed, planned=self._plan.cycles, lost=total.lost
            ),
        }
        return {
            "passed": all(criterion.passed for criterion in criteria.values()),
            "criteria": {name: criterion.document() for name, criterion in criteria.items()},
            "agents": self._plan.agents,
            "joined": joined,
            "transport": self._plan.transport,
            "cycles_planned": self._plan.cycles,
            "cycles_completed": self.completed,
            **total.document(),
            "ready_ms": None if self.ready_ms is None else round(self.ready_ms, 3),
            "cycle_ms": {
                "p50": round(percentile(self.durations_ms, 0.5), 3),
                "p95": round(percentile(self.durations_ms, 0.95), 3),
                "max": round(max(self.durations_ms, default=0.0), 3),
            },
            "memory": {
                **{name: mean.document() for name, mean in memory.means.items()},
                "max_pss": memory.most_pss,
                "growth_percent": {
                    "rss": _rounded(memory.rss.value),
                    "pss": _rounded(memory.pss.value),
                    "rss_common": _rounded(memory.rss.common),
                    "pss_common": _rounded(memory.pss.common),
                },
                "warm_up_cycles": memory.warm_up,
                "unmeasured": self._unmeasured,
            },
            "descriptors": {"run": self._descriptors.document(), "agents": self._agent_descriptors.document()},
            "folder_bytes": self._folder.document(),
        }

    def _worst_growth(self) -> float | None:
        found = (self._memory.rss.value, self._memory.pss.value, self._memory.earlier_worst)
        return _rounded(max((value for value in found if value is not None), default=None))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else 0.0
