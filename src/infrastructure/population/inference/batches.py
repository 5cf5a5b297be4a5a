"""Asks a model in batches: who is more urgent first, what is known not at all, and what several want only once."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from heapq import heappop, heappush

import numpy as np
from numpy.typing import NDArray

from application.ports.inference import (
    MAX_BATCH,
    InferenceCounts,
    InferenceModel,
    InferenceRequest,
    Priority,
    Table,
)
from infrastructure.population.inference.answer_cache import CACHE_BITS, AnswerCache, keys_of

__all__ = ["BatchedInference"]

_CLOSED = "inference is closed: open the population again"


@dataclass(order=True, slots=True)
class _Wanted:
    """A request in the line: by priority, and within one in the order that they came."""

    priority: int
    serial: int
    features: NDArray[np.int8] = field(compare=False)
    tick: int = field(compare=False)
    answer: Future[Table] = field(compare=False)


class BatchedInference:
    """See `Inference`. One thread asks the model, so that nothing is asked twice at a time."""

    def __init__(self, model: InferenceModel, *, cache_bits: int = CACHE_BITS) -> None:
        """The model is closed with it."""
        self._model = model
        self._cache = AnswerCache(cache_bits)
        self._line: list[_Wanted] = []
        self._serial = 0
        self._changed = threading.Condition()
        self._closed = False
        self._counts = InferenceCounts()
        self._thread = threading.Thread(target=self._work, name="inference", daemon=True)
        self._thread.start()

    def submit(self, request: InferenceRequest) -> Future[Table]:
        """See `Inference`."""
        features: NDArray[np.int8] = np.asarray(request.features)
        answer: Future[Table] = Future()
        with self._changed:
            if self._closed:
                raise RuntimeError(_CLOSED)
            self._serial += 1
            heappush(self._line, _Wanted(request.priority, self._serial, features, request.tick, answer))
            self._changed.notify()
        return answer

    def counts(self) -> InferenceCounts:
        """See `Inference`."""
        return self._counts

    @property
    def cache_bytes(self) -> int:
        """The memory that its cache takes."""
        return self._cache.size_bytes

    def close(self) -> None:
        """See `Inference`."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            waiting, self._line = self._line, []
            self._changed.notify()
        for one in waiting:
            one.answer.cancel()
        self._thread.join()
        self._model.close()

    def _work(self) -> None:
        while (batch := self._next()) is not None:
            batch = [one for one in batch if one.answer.set_running_or_notify_cancel()]
            if not batch:
                continue
            try:
                pulls = self._answered(batch)
            except BaseException as error:  # noqa: BLE001 - whoever waits for the batch raises it
                for one in batch:
                    one.answer.set_exception(error)
                continue
            start = 0
            for one in batch:
                one.answer.set_result(pulls[start : start + len(one.features)].data)
                start += len(one.features)

    def _next(self) -> list[_Wanted] | None:
        """The most urgent requests of one tick, as many as fit into a batch; a larger one goes alone. None at the end."""
        with self._changed:
            while not self._line:
                if self._closed:
                    return None
                self._changed.wait()
            batch = [heappop(self._line)]
            first, rows = batch[0], len(batch[0].features)
            while self._line:
                other = self._line[0]
                rows += len(other.features)
                if rows > MAX_BATCH or (other.priority, other.tick) != (first.priority, first.tick):
                    break
                batch.append(heappop(self._line))
            return batch

    def _answered(self, batch: list[_Wanted]) -> NDArray[np.int16]:
        features = batch[0].features if len(batch) == 1 else np.concatenate([one.features for one in batch])
        wanted, tick = batch[0].priority != Priority.SPECULATIVE, batch[0].tick
        pulls = np.empty(len(features), np.int16)
        for start in range(0, len(features), MAX_BATCH):
            part = features[start : start + MAX_BATCH]
            pulls[start : start + MAX_BATCH] = self._pulls(part, tick, wanted=wanted)
        return pulls

    def _pulls(self, features: NDArray[np.int8], tick: int, *, wanted: bool) -> NDArray[np.int16]:
        keys = keys_of(features)
        pulls, known, foreseen = self._cache.find(keys, wanted=wanted)
        unknown = np.flatnonzero(~known)
        inferred = 0
        took = 0.0
        if unknown.size:
            firsts, places = self._cache.distinct(keys[unknown])
            inferred = int(firsts.size)
            began = time.perf_counter()
            found: NDArray[np.int16] = np.asarray(self._model.infer(features[unknown[firsts]].data, tick=tick))
            took = time.perf_counter() - began
            self._cache.put(keys[unknown[firsts]], found, wanted=wanted)
            pulls[unknown] = found[places]
        before = self._counts
        self._counts = replace(
            before,
            rows=before.rows + (len(features) if wanted else 0),
            cached=before.cached + (len(features) - int(unknown.size) if wanted else 0),
            twice=before.twice + int(unknown.size) - inferred,
            inferred=before.inferred + inferred,
            batches=before.batches + (1 if inferred else 0),
            model_s=before.model_s + took,
            prefetched=before.prefetched + (0 if wanted else inferred),
            foreseen=before.foreseen + foreseen,
        )
        return pulls
