"""One worker's part in a tick: it sends for its shards, receives for its shards, and steps them when all have sent."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domain.errors.population import BehaviourError, PopulationError
from domain.models.population import GRID, LOCALITY
from infrastructure.population.agent_ledger import AgentLedger
from infrastructure.population.columns import on_grid
from infrastructure.population.field import BATCH_TIMES, STILL, Behaviour, Count, Field, TickKeys
from infrastructure.population.kernel import Kernel, Taken
from infrastructure.population.own_behaviour import ShardView, checked_opinions, inbox_of
from infrastructure.population.schedule import Schedule

__all__ = ["AbortedError", "ShardWorker"]

_PATIENT_AFTER = 64
_NAP_S = 20e-6
# Pairs of shards that are worth looking at after each micro-batch.
_PAIRS_PER_LOOK = 4_096
# Nobody waits for a step, so that its pieces only have to stay in the cache.
_STEPPED_AT_A_TIME = 10_000


class AbortedError(Exception):
    """Another worker failed, so that this tick cannot end."""


class ShardWorker:
    """Takes one tick after the other. A full ring makes it wait, and while it waits it receives, so that nobody waits for ever."""

    def __init__(
        self,
        field: Field,
        kernel: Kernel,
        *,
        batch: int,
        own: Any = None,
        orphaned: Callable[[], bool] = lambda: False,
        beside: Callable[[], None] | None = None,
    ) -> None:
        """`batch` messages at most are sent at a time; `own` is a user's behaviour; `orphaned` tells that nobody waits for it.

        `beside` is done whenever it receives: it takes what was sent to shards that no worker of this arena carries.
        """
        self._field = field
        self._kernel = kernel
        self._own = own
        self._orphaned = orphaned
        self._beside = beside
        self._keys = TickKeys.of(field.spec, 0)
        self._busy_ns = 0
        messages = field.spec.messages
        rows = max(LOCALITY, batch // messages // LOCALITY * LOCALITY)
        self._schedule = Schedule(field, sent_at_a_time=rows, stepped_at_a_time=max(rows, _STEPPED_AT_A_TIME))
        # Only where an agent's own columns are written: whom it heard in this tick.
        noted = field.columns.metrics.shape[1] or field.columns.peers.shape[1]
        self._ledger = AgentLedger(field) if noted else None
        self._look_every = max(1, field.own.size * field.shards // _PAIRS_PER_LOOK)
        self._position = np.zeros((field.lanes, field.shards), np.int64)
        self._taken: list[Taken] = []
        # Micro-batches are numbered by each shard for itself.
        self._numbers = {int(shard): int(field.pair_batch[shard].max(initial=0)) for shard in field.own}

    def refresh(self, tick: int) -> None:
        """Begin with the columns after `tick`."""
        self._taken.clear()
        self._kernel.refresh(tick)

    def tick(self, number: int) -> None:
        """Take tick `number`. Raises `BehaviourError`, and `AbortedError` where another worker did not get through it."""
        self.send(number)
        self._await_others(number)
        self.step()

    def send(self, number: int) -> None:
        """Send all messages of the own shards in tick `number`."""
        field = self._field
        counts = field.counts[field.worker]
        counts[: Count.EMITTED] = 0
        self._keys = TickKeys.of(field.spec, number)
        self._kernel.begin(self._keys)
        began = time.thread_time_ns()
        schedule = self._schedule
        if schedule.rests:
            self._kernel.forget(schedule.look(), number - 1)
            self._kernel.attend(schedule.sending.rows)
        for turn, (shard, start, stop) in enumerate(schedule.sending.batches):
            self._send(shard, start, stop)
            if turn % self._look_every == 0:
                self.receive()
        self._busy_ns = time.thread_time_ns() - began
        counts[Count.EMITTED] = number

    def receive(self) -> int:
        """Take what has come for the own shards; how many messages that were."""
        if self._beside is not None:
            self._beside()
        built_in = self._field.behaviour is not Behaviour.OWN
        if built_in and self._ledger is None:
            return self._kernel.drain()
        taken = self._kernel.take()
        if taken[0].size:
            if built_in:
                self._kernel.hear(taken)
            self._taken.append(taken)
        return int(taken[0].size)

    def step(self) -> None:
        """Step the own shards by what they have received. Raises `BehaviourError`."""
        began = time.thread_time_ns()
        if self._field.behaviour is Behaviour.OWN:
            self._step_own(self._keys)
        else:
            if self._schedule.rests:
                self._kernel.attend(self._schedule.stepping.rows)
            for _, start, stop in self._schedule.stepping.batches:
                self._kernel.step(start, stop)
            if self._ledger is not None:
                self._ledger.note_heard(self._living([who for who, _, _ in self._taken]))
                self._taken.clear()
        if self._ledger is not None:
            self._ledger.note_moves(self._field.rows, self._keys.tick)
        busy = self._busy_ns + time.thread_time_ns() - began
        self._field.counts[self._field.worker, Count.BUSY] += busy // 1_000

    def _await_others(self, number: int) -> None:
        """Receive until every worker has sent and all of it is here. Raises `AbortedError`."""
        idle = 0
        while True:
            # Asked before looking, so that whatever was sent until then is found.
            all_sent = bool(np.all(self._field.counts[:, Count.EMITTED] >= number))
            began = time.thread_time_ns()
            if self.receive():
                self._busy_ns += time.thread_time_ns() - began
                idle = 0
            elif all_sent:
                return
            else:
                idle = self._wait(idle)

    def _send(self, shard: int, start: int, stop: int) -> None:
        field, messages = self._field, self._field.spec.messages
        start, stop = start * messages, stop * messages
        idle = 0
        while start < stop:
            number = self._numbers[shard] + 1
            field.batch_times[shard, number % BATCH_TIMES] = time.perf_counter_ns()
            place, sent = self._kernel.emit(shard, start, stop, self._position)
            if sent:
                field.heads[:, shard, :] = self._position
                field.pair_batch[shard] = number
                self._numbers[shard] = number
                field.counts[field.worker, Count.SENT] += sent
            stuck = place < stop and not self.receive() and place == start
            idle = self._wait(idle) if stuck else 0
            start = place

    def _wait(self, idle: int) -> int:
        if self._field.aborted[0] or (idle % _PATIENT_AFTER == 0 and self._orphaned()):
            raise AbortedError
        time.sleep(_NAP_S if idle > _PATIENT_AFTER else 0)
        return idle + 1

    def _step_own(self, keys: TickKeys) -> None:
        field, spec = self._field, self._field.spec
        counts = field.counts[field.worker]
        who, values, priorities = self._delivered()
        shards = field.block_shard[(who >> np.uint64(32)).astype(np.int64) // LOCALITY]
        columns = field.columns
        now, then = columns.opinion[(keys.tick - 1) % 2], columns.opinion[keys.tick % 2]
        turns = self._schedule.stepping
        if field.block_rest is not None:
            # What is sent to who is not stepped is delivered, and heard by nobody.
            shards = np.where(field.block_rest[(who >> np.uint64(32)).astype(np.int64) // LOCALITY] & STILL, -1, shards)
        for place, shard in enumerate(field.own):
            rows = turns.rows[turns.starts[place] : turns.starts[place + 1]].astype(np.int64)
            if not rows.size:
                continue
            mine = shards == shard
            inbox, refused = inbox_of(
                who[mine], values[mine] * (1.0 / GRID), priorities[mine], rows, limit=spec.inbox_limit
            )
            counts[Count.REFUSED] += refused
            counts[Count.DELIVERED] -= refused
            view = ShardView(field, keys, shard=int(shard), rows=rows, inbox=inbox)
            opinions = on_grid(checked_opinions(self._answer(view), view, spec.behaviour))
            found = np.where(view.alive, opinions, on_grid(now[rows]))
            then[rows] = found * (1.0 / GRID)
            if self._ledger is not None:
                recipients = np.repeat(rows, np.diff(inbox.offsets)).astype(np.uint64)
                self._ledger.note_heard(recipients << np.uint64(32) | inbox.senders)
            blocks = rows // LOCALITY
            begins = np.flatnonzero(np.diff(blocks, prepend=-1))
            field.block_sums[blocks[begins]] = np.add.reduceat(np.where(view.alive, found, 0), begins)

    def _answer(self, view: ShardView) -> Any:
        try:
            return self._own.step(view)
        except PopulationError:
            raise
        except (Exception, SystemExit) as error:
            # A behaviour that leaves would end the run with an exit code that means something else.
            raise BehaviourError(
                behaviour=self._field.spec.behaviour,
                shard=view.shard,
                agent=int(view.id[0]),
                tick=view.tick,
                problem=f"step raised {type(error).__name__}: {error}",
            ) from error

    def _living(self, parts: list[NDArray[np.uint64]]) -> NDArray[np.uint64]:
        """The messages to agents who live."""
        who: NDArray[np.uint64] = np.concatenate(parts) if parts else np.zeros(0, np.uint64)
        if not self._field.has_free_rows:
            return who
        living: NDArray[np.bool_] = self._field.columns.alive[(who >> np.uint64(32)).astype(np.int64)] == 1
        return who[living]

    def _delivered(self) -> Taken:
        """All that came in this tick for agents who live; the rest has expired."""
        field = self._field
        counts = field.counts[field.worker]
        if not self._taken:
            return np.zeros(0, np.uint64), np.zeros(0, np.int64), np.zeros(0, np.uint8)
        who, values, priorities = (np.concatenate(parts) for parts in zip(*self._taken, strict=True))
        self._taken.clear()
        arrived = who.size
        if field.has_free_rows:
            living: NDArray[np.bool_] = field.columns.alive[(who >> np.uint64(32)).astype(np.int64)] == 1
            who, values, priorities = who[living], values[living], priorities[living]
        counts[Count.EXPIRED] += arrived - who.size
        counts[Count.DELIVERED] += who.size
        return who, values, priorities
