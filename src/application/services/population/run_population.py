"""The use case of running a population: tick after tick, each counted and written down, until the last one or a wish to end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import TypeAlias, TypeVar

from application.ports.population_engine import OpinionSummary, PopulationEngine, TickOutcome
from application.ports.population_record import PopulationRecord, Resumption
from application.ports.run_observer import RunObserver
from application.services.population.history import OpinionHistory
from application.services.population.report import TickBook, report_of
from application.services.stop_signal import StopReason, StopSignal
from domain.errors.population import (
    BehaviourError,
    MessagesLostError,
    PopulationDivergedError,
    ShardLostError,
)
from domain.models.deliberation import DeliberationStatus
from domain.models.population import PopulationSpecification
from domain.models.population_counts import PopulationCounts
from domain.models.run import JsonValue, RunEnding

__all__ = ["OpenEngine", "RunPopulation"]

_T = TypeVar("_T")

OpenEngine: TypeAlias = Callable[[int], PopulationEngine]
"""Opens the engine with the columns after that tick."""

_TURN_S = 0.1
_NOTE_S = 0.5
_SNAPSHOT_S = 1.0
# A snapshot takes at most this share of the time.
_SNAPSHOT_SHARE = 0.05
_MAX_LOST = 3


class RunPopulation:
    """Runs one population once. Whatever ends it, what the folder holds can be resumed to the same end."""

    def __init__(
        self,
        spec: PopulationSpecification,
        *,
        open_engine: OpenEngine,
        record: PopulationRecord,
        cores: int,
        counts: PopulationCounts | None = None,
        memory: Callable[[], int] = int,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """`counts` goes on over several populations of one run; `memory` says how many bytes its processes hold now."""
        self._spec = spec
        self._open = open_engine
        self._record = record
        self._cores = cores
        self._counts = counts if counts is not None else PopulationCounts()
        self._memory = memory
        self._clock = clock
        self._book = TickBook()
        self._history = OpinionHistory()
        self._tick = 0
        self._logged: Mapping[int, int] = {}
        self._initial: Mapping[str, JsonValue] = {}
        self._saved_tick = 0
        self._saved_at = 0.0
        self._save_s = 0.0
        self._leaving = False

    async def run(self, observer: RunObserver, stop: StopSignal, *, resumption: Resumption | None = None) -> RunEnding:
        """Take all ticks that are left, and report. A lost shard process is replaced from the last snapshot, three times at most.

        Raises `PopulationError`; the last snapshot is kept then.
        """
        lost = 0
        while True:
            try:
                return await self._run_from(resumption, observer, stop)
            except ShardLostError as error:
                lost += 1
                if lost > _MAX_LOST:
                    raise
                observer.note(
                    "population.shard_lost", {"worker": error.worker, "tick": self._tick, "problem": error.problem}
                )
                resumption = await asyncio.to_thread(self._record.rewind)

    async def _run_from(self, resumption: Resumption | None, observer: RunObserver, stop: StopSignal) -> RunEnding:
        self._tick = self._saved_tick = resumption.tick if resumption else 0
        # What other processes say is not said again, so that nothing has to come out as it did before.
        self._logged = resumption.logged if resumption and not self._spec.external else {}
        self._book = TickBook(messages_before=resumption.messages_routed if resumption else 0)
        self._history = OpinionHistory(resumption.samples if resumption else ())
        engine = await asyncio.to_thread(self._open, self._tick)
        try:
            await asyncio.to_thread(self._begin, engine, resumption)
            facts = engine.facts
            self._counts.agents = self._spec.begin_with or self._spec.agents
            observer.tally(self._counts)
            observer.note(
                "population.started",
                {
                    "agents": self._spec.agents,
                    "tick": self._tick,
                    "shards": facts.shards,
                    "kernel": facts.kernel,
                    "seed": self._spec.seed,
                    "simulated": True,
                },
            )
            cpu, began = engine.measures().cpu_s, self._clock()
            await self._take_all(engine, observer, stop)
            wall, spent = self._clock() - began, engine.measures().cpu_s - cpu
            share = spent / (wall * self._cores) if wall else 0.0
            report = await self._in_thread(self._finish, engine, share, stop)
        finally:
            observer.tally(self._counts)
            await asyncio.shield(asyncio.to_thread(engine.close))
        done = self._tick >= self._spec.ticks
        status = DeliberationStatus.COMPLETED if done or stop.reason is None else stop.reason.status
        return RunEnding(status=status, result=report)

    async def _in_thread(self, work: Callable[..., _T], *arguments: object) -> _T:
        """What `work` returns. Cancelled, it asks the work to end and waits for it, since the engine must not be closed under it."""
        task = asyncio.ensure_future(asyncio.to_thread(work, *arguments))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            self._leaving = True
            await asyncio.wait({task})
            raise

    def _begin(self, engine: PopulationEngine, resumption: Resumption | None) -> None:
        initial = resumption.initial if resumption else None
        if initial is None:
            initial = engine.opinions().document()
            self._record.begin(initial)
        self._initial = initial
        if self._history.due(self._tick, self._clock()):
            self._sample(engine)
        self._saved_at = self._clock()

    async def _take_all(self, engine: PopulationEngine, observer: RunObserver, stop: StopSignal) -> None:
        noted = self._clock()
        interval = self._spec.tick_interval_s
        due = noted
        while self._tick < self._spec.ticks and not stop.is_set:
            if interval:
                if (wait := due - self._clock()) > 0:
                    await _pause(wait, stop)
                    continue
                # A tick that took longer than its interval is not made up for.
                due = max(due + interval, self._clock())
            await self._in_thread(self._take_some, engine, stop)
            if self._clock() - noted >= _NOTE_S:
                noted = self._clock()
                self._note_progress(observer)

    def _take_some(self, engine: PopulationEngine, stop: StopSignal) -> None:
        """One tick where ticks are paced, and otherwise so many that the event loop is asked ten times a second."""
        until = self._clock() + _TURN_S
        while self._tick < self._spec.ticks and not stop.is_set and not self._leaving:
            began = self._clock()
            if self._snapshot_due(began):
                self._save(engine, began)
            self._take(engine, began)
            if self._history.due(self._tick, self._clock()):
                self._sample(engine)
            if self._spec.tick_interval_s or self._clock() >= until:
                return

    def _take(self, engine: PopulationEngine, began: float) -> None:
        number = self._tick + 1
        try:
            outcome = engine.tick(number)
            self._check(outcome)
        except (BehaviourError, MessagesLostError):
            engine.save(self._tick)
            engine.settle()
            raise
        tick_s = self._clock() - began
        self._record.note(outcome, tick_s)
        self._book.add(outcome, tick_s)
        self._counts.add(
            delivered=outcome.delivered,
            expired=outcome.expired,
            refused=outcome.refused,
            alive=outcome.alive,
            tick_s=tick_s,
        )
        self._tick = number

    def _sample(self, engine: PopulationEngine) -> OpinionSummary:
        """How the opinions lie now, kept."""
        began = self._clock()
        found = engine.opinions()
        memory = self._memory()
        if self._history.add(self._tick, found, resident_bytes=memory, began=began, ended=self._clock()):
            self._record.replace_samples(self._history.samples)
        else:
            self._record.note_sample(self._history.samples[-1])
        return found

    def _check(self, outcome: TickOutcome) -> None:
        """Nothing may be lost, and what was taken before must come out as it did before."""
        if outcome.sent != outcome.delivered + outcome.expired + outcome.refused:
            raise MessagesLostError(
                tick=outcome.tick,
                sent=outcome.sent,
                delivered=outcome.delivered,
                expired=outcome.expired,
                refused=outcome.refused,
            )
        if self._logged.get(outcome.tick, outcome.opinion_sum) != outcome.opinion_sum:
            raise PopulationDivergedError(tick=outcome.tick)

    def _snapshot_due(self, now: float) -> bool:
        if self._tick == self._saved_tick:
            return False
        if self._spec.snapshot_ticks:
            return self._tick % self._spec.snapshot_ticks == 0
        return now - self._saved_at >= max(_SNAPSHOT_S, self._save_s / _SNAPSHOT_SHARE)

    def _save(self, engine: PopulationEngine, began: float) -> None:
        engine.save(self._tick)
        self._saved_tick, self._saved_at = self._tick, self._clock()
        self._save_s = self._saved_at - began

    def _finish(self, engine: PopulationEngine, cpu_fraction: float, stop: StopSignal) -> dict[str, JsonValue]:
        if self._tick != self._saved_tick:
            self._save(engine, self._clock())
        final = engine.opinions() if self._history.last_tick == self._tick else self._sample(engine)
        engine.settle()
        report = report_of(
            self._spec,
            ticks=self._tick,
            book=self._book,
            facts=engine.facts,
            measures=engine.measures(),
            cpu_fraction=cpu_fraction,
            # Hashing gigabytes takes longer than a halted system waits.
            state_hash=None if stop.reason is StopReason.HALTED else engine.state_hash(),
            initial=self._initial,
            final=final,
        )
        if self._tick >= self._spec.ticks:
            self._record.finish(report)
        return report

    def _note_progress(self, observer: RunObserver) -> None:
        observer.tally(self._counts)
        observer.note(
            "population.progress",
            {
                "tick": self._tick,
                "ticks": self._spec.ticks,
                "seed": self._spec.seed,
                "tick_ms": self._book.mean_tick_ms,
                "messages_per_second": round(self._book.messages_per_second),
            },
        )


async def _pause(seconds: float, stop: StopSignal) -> None:
    """Wait so long, or until somebody wants the run to end."""
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        return
