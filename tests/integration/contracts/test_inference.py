"""What every adapter of inference does: the same for the same features, in batches, by priority, and nothing twice at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from application.ports.inference import (
    FULL_PULL,
    MAX_BATCH,
    InferenceModel,
    InferenceRequest,
    Priority,
    Table,
)
from domain.models.run import JsonValue
from infrastructure.population.inference.batches import BatchedInference
from infrastructure.population.inference.network import seeded_network
from infrastructure.population.inference.policy import PolicyModel
from infrastructure.population.inference.text_model import TextModel
from infrastructure.population.inference.torch_policy import TorchModel
from infrastructure.population.thinking.answer_record import AnswerRecord
from infrastructure.population.thinking.talk import Talk
from tests.llm_server.handle import LlmServer
from tests.population.asking import minds_over

# PyTorch is in no lock file: where it is installed its adapter has to keep the contract as well.
ADAPTERS = ["policy", "openai", *(["torch"] if find_spec("torch") else [])]
PATIENCE_S = 60.0

Open = Callable[[], InferenceModel]


@pytest.fixture(params=ADAPTERS)
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    """What opens each adapter in turn."""
    models: list[InferenceModel] = []

    def open_model() -> InferenceModel:
        if request.param == "openai":
            server: LlmServer = request.getfixturevalue("llm_server")
            record = AnswerRecord(tmp_path / f"record-{len(models)}.jsonl")
            model: InferenceModel = TextModel(
                Talk(minds_over(server)), record, topic="How warm is it?", seed=1, deadline_s=PATIENCE_S
            )
        elif request.param == "torch":
            model = TorchModel(seeded_network(7))
        else:
            model = PolicyModel(seeded_network(7))
        models.append(model)
        return model

    yield open_model
    for model in models:
        model.close()
        model.close()


class Watched:
    """A model that remembers each batch that it was given, and waits where it is told to."""

    name = "watched"

    def __init__(self, model: InferenceModel | None = None) -> None:
        self.batches: list[NDArray[np.int8]] = []
        self.asked = threading.Event()
        self.gate = threading.Event()
        self.gate.set()
        self.error: Exception | None = None
        self._model = model

    def infer(self, features: Table, *, tick: int) -> Table:
        self.batches.append(np.array(features))
        self.asked.set()
        assert self.gate.wait(PATIENCE_S)
        if self.error is not None:
            raise self.error
        if self._model is not None:
            return self._model.infer(features, tick=tick)
        return np.asarray(features)[:, 0].astype(np.int16).data

    def document(self) -> dict[str, JsonValue]:
        return {}

    def close(self) -> None:
        self.gate.set()


@pytest.fixture
def watched() -> Watched:
    """A model of the test's own."""
    return Watched()


@pytest.fixture
def batches(watched: Watched) -> Iterator[BatchedInference]:
    """Inference over it."""
    inference = BatchedInference(watched)
    yield inference
    watched.gate.set()
    inference.close()


def some(count: int, *, seed: int = 0) -> NDArray[np.int8]:
    """So many rows of features, no two of them alike."""
    draws = np.random.default_rng(seed).integers(0, 33, (4 * count, 8)).astype(np.int8)
    rows: NDArray[np.int8] = np.unique(draws, axis=0)[:count]
    return np.ascontiguousarray(rows)


def pulls_of(inference: Any, rows: NDArray[np.int8], *, tick: int = 1) -> NDArray[np.int16]:
    found: NDArray[np.int16] = np.asarray(inference.submit(InferenceRequest(rows.data, tick)).result(PATIENCE_S))
    return found


def test_pulls_are_whole_numbers_within_their_bounds(opened: Open) -> None:
    found = np.asarray(opened().infer(some(20).data, tick=1))
    assert (found.dtype, found.shape) == (np.dtype(np.int16), (20,))
    assert bool(np.all(np.abs(found.astype(np.int64)) <= FULL_PULL))
    assert np.unique(found).size > 1


def test_a_row_is_answered_alike_in_every_batch(opened: Open) -> None:
    rows = some(12)
    whole = np.asarray(opened().infer(rows.data, tick=1))
    other = opened()
    parts = [np.asarray(other.infer(rows[[place]].data, tick=1)) for place in range(11, -1, -1)]
    assert np.concatenate(parts)[::-1].tolist() == whole.tolist()


def test_twenty_who_ask_at_once_are_answered_right_and_nothing_is_asked_twice(opened: Open) -> None:
    rows = some(10)
    wanted = np.asarray(opened().infer(rows.data, tick=1))
    watched = Watched(opened())
    inference = BatchedInference(watched)
    order = np.random.default_rng(5)
    choices = [order.integers(0, 10, 30) for _ in range(20)]
    begin = threading.Barrier(20)

    def ask(choice: NDArray[np.int64]) -> list[int]:
        begin.wait(PATIENCE_S)
        return [int(pull) for pull in pulls_of(inference, rows[choice])]

    with ThreadPoolExecutor(20) as threads:
        found = list(threads.map(ask, choices))
    counts = inference.counts()
    inference.close()

    assert found == [wanted[choice].tolist() for choice in choices]
    asked = np.concatenate(watched.batches)
    assert np.unique(asked, axis=0).shape == asked.shape
    assert (counts.rows, counts.inferred) == (600, 10)
    assert counts.cached + counts.twice == 590


def test_what_is_more_urgent_goes_first(watched: Watched, batches: BatchedInference) -> None:
    rows = some(40)
    watched.gate.clear()
    first = batches.submit(InferenceRequest(rows[:10].data, 1))
    assert watched.asked.wait(PATIENCE_S)
    waiting = [
        batches.submit(InferenceRequest(rows[start : start + 10].data, 1, priority))
        for start, priority in ((10, Priority.SPECULATIVE), (20, Priority.TICK), (30, Priority.URGENT))
    ]
    watched.gate.set()
    for answer in [first, *waiting]:
        answer.result(PATIENCE_S)
    assert [batch.tolist() for batch in watched.batches] == [
        rows[start : start + 10].tolist() for start in (0, 30, 20, 10)
    ]


def test_requests_that_wait_together_make_one_batch(watched: Watched, batches: BatchedInference) -> None:
    rows = some(40)
    watched.gate.clear()
    answers = [batches.submit(InferenceRequest(rows[:10].data, 1))]
    assert watched.asked.wait(PATIENCE_S)
    answers += [batches.submit(InferenceRequest(rows[start : start + 10].data, 1)) for start in (10, 20, 30)]
    watched.gate.set()
    for start, answer in zip((0, 10, 20, 30), answers, strict=True):
        assert np.asarray(answer.result(PATIENCE_S)).tolist() == rows[start : start + 10, 0].tolist()
    assert [len(batch) for batch in watched.batches] == [10, 30]


def test_no_batch_is_larger_than_allowed(watched: Watched, batches: BatchedInference) -> None:
    rows = some(2 * MAX_BATCH + 100)
    assert pulls_of(batches, rows).tolist() == rows[:, 0].tolist()
    assert [len(batch) for batch in watched.batches] == [MAX_BATCH, MAX_BATCH, 100]


def test_what_was_prefetched_is_not_asked_again(watched: Watched, batches: BatchedInference) -> None:
    rows = some(30)
    batches.submit(InferenceRequest(rows[:20].data, 1, Priority.SPECULATIVE)).result(PATIENCE_S)
    assert pulls_of(batches, rows).tolist() == rows[:, 0].tolist()
    counts = batches.counts()
    assert (counts.prefetched, counts.foreseen) == (20, 20)
    assert (counts.rows, counts.cached, counts.inferred) == (30, 20, 30)


def test_a_request_that_is_cancelled_in_time_is_not_worked_on(watched: Watched, batches: BatchedInference) -> None:
    rows = some(20)
    watched.gate.clear()
    first = batches.submit(InferenceRequest(rows[:10].data, 1))
    assert watched.asked.wait(PATIENCE_S)
    second = batches.submit(InferenceRequest(rows[10:].data, 1))
    assert second.cancel()
    watched.gate.set()
    first.result(PATIENCE_S)
    batches.close()
    assert [len(batch) for batch in watched.batches] == [10]


def test_who_waits_for_a_batch_that_failed_is_told_and_the_next_one_is_asked(
    watched: Watched, batches: BatchedInference
) -> None:
    rows = some(10)
    watched.error = OSError("of the test")
    with pytest.raises(OSError, match="of the test"):
        pulls_of(batches, rows)
    watched.error = None
    assert pulls_of(batches, rows).tolist() == rows[:, 0].tolist()


def test_closing_cancels_who_waits_and_takes_nobody_any_more(watched: Watched) -> None:
    inference = BatchedInference(watched)
    rows = some(20)
    watched.gate.clear()
    running = inference.submit(InferenceRequest(rows[:10].data, 1))
    assert watched.asked.wait(PATIENCE_S)
    waiting = inference.submit(InferenceRequest(rows[10:].data, 1))
    with ThreadPoolExecutor(1) as thread:
        closing = thread.submit(inference.close)
        with pytest.raises(CancelledError):
            waiting.result(PATIENCE_S)
        watched.gate.set()
        closing.result(PATIENCE_S)
    assert np.asarray(running.result(PATIENCE_S)).tolist() == rows[:10, 0].tolist()
    inference.close()
    with pytest.raises(RuntimeError, match="closed"):
        inference.submit(InferenceRequest(rows.data, 1))


def test_a_small_cache_forgets_and_never_answers_for_another(watched: Watched) -> None:
    inference = BatchedInference(watched, cache_bits=4)
    rows = some(500)
    for _ in range(3):
        assert pulls_of(inference, rows).tolist() == rows[:, 0].tolist()
    assert inference.counts().inferred > 500
    inference.close()
