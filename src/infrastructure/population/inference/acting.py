"""Agents that act by inference: each tick their features go through a model, and its pulls move their opinions."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from application.ports.inference import (
    FULL_PULL,
    MAX_BATCH,
    NO_PULL,
    InferenceModel,
    InferenceRequest,
    Priority,
    Table,
)
from application.ports.population_engine import Access
from domain.models.run import JsonValue
from infrastructure.population.attachment import Host
from infrastructure.population.inference.batches import BatchedInference
from infrastructure.population.inference.features import FeatureReader
from infrastructure.population.mover import Mover
from infrastructure.population.randomness import Purpose, key_of, number_at, pairing_of

__all__ = ["ActingByInference"]

_PIECE = 4 * MAX_BATCH


class ActingByInference:
    """See `Attachment`. An opinion moves by pull x susceptibility x bound, so never further than an agent's bound in a tick.

    All agents ask in each tick, or so many as the specification says, drawn anew each tick. Between paced ticks it infers what the
    next one is likely to ask.
    """

    name = "inference"
    access: Access | None = None

    def __init__(self, host: Host, mover: Mover, model: InferenceModel, *, foresees: bool) -> None:
        """`foresees` says that asking in vain costs nothing but time that nobody needs. The model is closed with it."""
        self._spec, self._columns, self._mover = host.spec, host.columns, mover
        self._reader = FeatureReader(host)
        self._model = model
        self._batches = BatchedInference(model)
        self._everybody = np.arange(host.columns.rows, dtype=np.int64)
        self._ahead = ThreadPoolExecutor(1, thread_name_prefix="foresight") if foresees else None
        self._foreseeing: Future[None] | None = None
        self._guesses: list[Future[Table]] = []
        self._leaving = False
        self._ticks = 0
        self._took_s = 0.0

    def after_tick(self, tick: int) -> bool:
        """See `Attachment`."""
        began = time.perf_counter()
        self._end_foresight()
        scene = self._reader.scene(tick)
        rows = self._asking(tick)
        pending: list[tuple[NDArray[np.int64], Future[Table]]] = []
        for start in range(0, rows.size, _PIECE):
            these = rows[start : start + _PIECE]
            features = self._reader.of(scene, these)
            # The model works on one piece while the next one is read.
            pending.append((these, self._batches.submit(InferenceRequest(features.data, tick))))
        for these, answer in pending:
            self._act(tick, these, np.asarray(answer.result()))
        self._ticks += 1
        self._took_s += time.perf_counter() - began
        if self._ahead is not None and tick < self._spec.ticks:
            self._foreseeing = self._ahead.submit(self._foresee, tick + 1)
        return False

    def columns(self) -> Iterator[tuple[str, NDArray[Any]]]:
        """None: what was inferred stands in the opinions."""
        return iter(())

    def restore(self, found: Mapping[str, NDArray[Any]], tick: int) -> None:
        """There is nothing to restore."""

    def document(self) -> Mapping[str, JsonValue]:
        """See `Attachment`."""
        counts = self._batches.counts()
        return {
            "engine": self._model.name,
            **self._model.document(),
            "ticks": self._ticks,
            "tick_ms": self._took_s / self._ticks * 1e3 if self._ticks else 0.0,
            "rows": counts.rows,
            "cached": counts.cached,
            "twice": counts.twice,
            "inferred": counts.inferred,
            "batches": counts.batches,
            "batch_ms": counts.model_s / counts.batches * 1e3 if counts.batches else 0.0,
            "prefetched": counts.prefetched,
            "foreseen": counts.foreseen,
            "cache_bytes": self._batches.cache_bytes,
        }

    def close(self) -> None:
        """See `Attachment`."""
        self._end_foresight()
        if self._ahead is not None:
            self._ahead.shutdown()
            self._ahead = None
        self._batches.close()

    def _asking(self, tick: int) -> NDArray[np.int64]:
        """The rows of those who ask in that tick, in their order."""
        most = self._spec.asking_agents
        rows = self._everybody
        if most and most < rows.size:
            pairing = pairing_of(key_of(self._spec.seed, tick, Purpose.ASKING), rows.size)
            rows = np.sort(number_at(pairing, np.arange(most, dtype=np.uint64))).astype(np.int64)
        if self._columns.free_count[0]:
            rows = rows[self._columns.alive[rows] == 1]
        return rows

    def _act(self, tick: int, rows: NDArray[np.int64], pulls: NDArray[np.int16]) -> None:
        if bool(np.any(pulls == NO_PULL)):
            answered = pulls != NO_PULL
            rows, pulls = rows[answered], pulls[answered]
        columns = self._columns
        opinions = pulls.astype(np.float64) * (1.0 / FULL_PULL)
        opinions *= columns.susceptibility[rows]
        opinions *= columns.bound[rows]
        opinions += columns.opinion[tick % 2][rows]
        self._mover.move(tick, rows, np.clip(opinions, 0.0, 1.0))

    def _foresee(self, tick: int) -> None:
        """Put into the cache what that tick is likely to ask: who asks, whom each listens to and what it hears is known already."""
        scene = self._reader.scene_ahead(tick)
        rows = self._asking(tick)
        for start in range(0, rows.size, MAX_BATCH):
            if self._leaving:
                return
            features = self._reader.of(scene, rows[start : start + MAX_BATCH])
            self._guesses.append(self._batches.submit(InferenceRequest(features.data, tick, Priority.SPECULATIVE)))

    def _end_foresight(self) -> None:
        foreseeing, self._foreseeing = self._foreseeing, None
        if foreseeing is not None:
            self._leaving = True
            foreseeing.result()
            self._leaving = False
            for guess in self._guesses:
                guess.cancel()
            self._guesses = []
