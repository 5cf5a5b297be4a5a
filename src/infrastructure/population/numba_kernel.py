"""The kernel that numba compiles for this machine: the extra `population`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from domain.models.population import GRID
from infrastructure.population.field import Behaviour, Count, Field, TickKeys
from infrastructure.population.kernel import Taken
from infrastructure.population.rings import RingReader

__all__ = ["NumbaKernel", "keep_compiled_in"]


def keep_compiled_in(folder: Path | None) -> None:
    """Where compiled loops are kept between runs, None to keep none. Takes effect once, before the first kernel is made."""
    import numba

    config: Any = numba.config
    if folder is None or config.CACHE_DIR:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        # Compiled anew by each process then.
        return
    config.CACHE_DIR = str(folder)


class NumbaKernel:
    """See `Kernel`. Compiles what it needs when it is made, so that no tick waits for it."""

    name = "numba"

    def __init__(self, field: Field) -> None:
        from infrastructure.population import numba_loops

        self._loops = numba_loops
        self._field = field
        self._reader = RingReader(field)
        columns, own = field.columns, field.behaviour is Behaviour.OWN
        self._packed = field.packs
        words = 2 if self._packed or field.behaviour is Behaviour.VOTER else 4
        self._heard = np.zeros((0 if own else columns.rows, words), np.int64)
        none = np.zeros(0, np.int64)
        self._offsets = field.graph.offsets if field.graph else none
        self._targets = field.graph.targets if field.graph else np.zeros(0, np.uint32)
        self._degree = field.graph.degree if field.graph else -1
        self._rows = field.rows
        self._taken = np.zeros((field.own.size, field.shards), np.int64)
        self._presents = np.zeros(numba_loops.AHEAD, np.int64)
        self._everyone = self._numbered = False
        self._bound, self._share = np.int64(-1), -1.0
        self._keys = TickKeys.of(field.spec, 0)
        self._pairing: tuple[Any, ...] = ()
        self.begin(self._keys)
        self._warm()

    def refresh(self, tick: int) -> None:
        """See `Kernel`."""
        field, columns = self._field, self._field.columns
        self._everyone = bool(np.all(columns.activity >= 1.0))
        self._numbered = bool(np.array_equal(columns.id, np.arange(columns.rows, dtype=np.uint64)))
        bound, share = columns.bound[0], columns.susceptibility[0]
        self._bound = np.int64(bound * GRID) if bool(np.all(columns.bound == bound)) else np.int64(-1)
        self._share = float(share) if bool(np.all(columns.susceptibility == share)) else -1.0
        if len(self._heard):
            self._loops.begin_heard(int(field.behaviour), field.rows, columns.opinion[tick % 2], self._heard)

    def attend(self, rows: NDArray[np.uint32]) -> None:
        """See `Kernel`."""
        self._rows = rows

    def forget(self, rows: NDArray[np.uint32], tick: int) -> None:
        """See `Kernel`."""
        if len(self._heard) and rows.size:
            now = self._field.columns.opinion[tick % 2]
            self._loops.begin_heard(int(self._field.behaviour), rows, now, self._heard)

    def begin(self, keys: TickKeys) -> None:
        """See `Kernel`."""
        self._keys = keys
        pairings = keys.pairings
        nothing = np.zeros((0, 0), np.uint64)
        self._pairing = (
            np.uint64(pairings[0].size if pairings else 0),
            np.uint64(pairings[0].mask if pairings else 0),
            np.uint64(pairings[0].shift if pairings else 0),
            np.array([pairing.factors for pairing in pairings]) if pairings else nothing,
            np.array([pairing.inverses for pairing in pairings]) if pairings else nothing,
            np.array([pairing.terms for pairing in pairings]) if pairings else nothing,
        )

    def emit(self, source: int, start: int, stop: int, position: NDArray[np.int64]) -> tuple[int, int]:
        """See `Kernel`."""
        field, keys, columns = self._field, self._keys, self._field.columns
        place, sent = self._loops.emit(
            source,
            start,
            stop,
            self._rows,
            field.spec.messages,
            np.uint64(keys.recipient),
            np.uint64(keys.activity),
            self._everyone,
            not field.has_free_rows,
            self._numbered,
            self._degree,
            columns.id,
            columns.alive,
            columns.activity,
            columns.priority,
            columns.opinion[(keys.tick - 1) % 2],
            self._offsets,
            self._targets,
            *self._pairing,
            field.block_shard,
            field.heads,
            field.tails,
            field.capacity,
            field.who,
            field.values,
            position,
        )
        return int(place), int(sent)

    def drain(self) -> int:
        """See `Kernel`."""
        field = self._field
        moved = self._drain(field.own, field.counts[field.worker])
        if moved:
            self._tally(time.perf_counter_ns(), field.own)
        return moved

    def take(self) -> Taken:
        """See `Kernel`."""
        taken = self._reader.take()
        if taken[0].size:
            self._reader.tally(time.perf_counter_ns())
        return taken

    def hear(self, taken: Taken) -> None:
        """See `Kernel`. What was taken is one ring more, which nobody else reads."""
        field = self._field
        who, values, _ = taken
        nobody = np.zeros((1, 1), np.int64)
        heads, tails = np.full((1, 1, 1), who.size, np.int64), np.zeros((1, 1, 1), np.int64)
        self._loops.drain(
            int(field.behaviour),
            self._packed,
            self._bound,
            np.zeros(1, np.int64),
            heads,
            tails,
            1 << max(1, who.size - 1).bit_length(),
            who,
            values,
            field.columns.alive,
            not field.has_free_rows,
            self._heard,
            field.columns.bound,
            np.uint64(self._keys.choice),
            nobody,
            nobody.copy(),
            field.counts[field.worker],
            self._presents,
        )

    def step(self, start: int, stop: int) -> None:
        """See `Kernel`."""
        field, columns, tick = self._field, self._field.columns, self._keys.tick
        self._loops.step(
            int(field.behaviour),
            self._packed,
            self._share,
            start,
            stop,
            self._rows,
            self._heard,
            columns.opinion[(tick - 1) % 2],
            columns.opinion[tick % 2],
            not field.has_free_rows,
            columns.alive,
            columns.id,
            columns.bound,
            columns.susceptibility,
            np.uint64(self._keys.adoption),
            self._offsets,
            self._targets,
            field.block_sums,
        )

    def _drain(self, own: NDArray[np.int64], counts: NDArray[np.int64]) -> int:
        field = self._field
        moved = self._loops.drain(
            int(field.behaviour),
            self._packed,
            self._bound,
            own,
            field.heads,
            field.tails,
            field.capacity,
            field.who,
            field.values,
            field.columns.alive,
            not field.has_free_rows,
            self._heard,
            field.columns.bound,
            np.uint64(self._keys.choice),
            field.pair_batch,
            self._taken,
            counts,
            self._presents,
        )
        return int(moved)

    def _tally(self, now: int, own: NDArray[np.int64]) -> None:
        field = self._field
        self._loops.tally(now, own, self._taken, field.pair_seen, field.batch_times, field.latencies[field.worker])

    def _warm(self) -> None:
        position = np.zeros((self._field.lanes, self._field.shards), np.int64)
        self.emit(int(self._field.own[0]) if self._field.own.size else 0, 0, 0, position)
        if self._field.behaviour is not Behaviour.OWN:
            nobody = np.zeros(0, np.int64)
            self._drain(nobody, np.zeros(len(Count), np.int64))
            self._tally(0, nobody)
            self.step(0, 0)
