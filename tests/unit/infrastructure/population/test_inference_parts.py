"""The parts of inference: networks in whole numbers, features, what is known already, vectors of notes and how they are found."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from application.ports.inference import FULL_PULL, NO_PULL, NoteIndex
from domain.errors.population import InvalidPopulationError
from infrastructure.population.adjacency import Adjacency
from infrastructure.population.attachment import Host
from infrastructure.population.columns import on_grid
from infrastructure.population.inference.answer_cache import AnswerCache, keys_of
from infrastructure.population.inference.exact_notes import ExactNotes
from infrastructure.population.inference.features import LEVELS, FeatureReader
from infrastructure.population.inference.hashed_embedder import HashedEmbedder
from infrastructure.population.inference.network import Network, seeded_network, stored_network
from infrastructure.population.inference.policy import PolicyModel
from infrastructure.population.inference.usearch_notes import UsearchNotes
from infrastructure.population.local_engine import LocalEngine
from infrastructure.population.mover import Mover
from infrastructure.population.thinking.notebook import Notebook
from tests.population.towns import specification, ticked, town

INDEXES = [ExactNotes, *([UsearchNotes] if find_spec("usearch") else [])]


def _rows(count: int) -> NDArray[np.int8]:
    return np.random.default_rng(2).integers(-64, 65, (count, 8)).astype(np.int8)


def _in_whole_numbers(network: Network, row: list[int]) -> int:
    """The pull of a row by Python's integers, which never round."""
    signal = row
    for number, layer in enumerate(network.layers):
        weights, biases = layer.weights.astype(int).tolist(), layer.biases.astype(int).tolist()
        sums = [
            sum(one * weights[source][target] for source, one in enumerate(signal)) + biases[target]
            for target in range(len(biases))
        ]
        signal = sums if number == len(network.layers) - 1 else [min(127, max(0, one // 64)) for one in sums]
    return min(FULL_PULL, max(-FULL_PULL, signal[0]))


def test_a_network_computes_what_whole_numbers_do() -> None:
    rows, network = _rows(40), seeded_network(3)
    found = np.asarray(PolicyModel(network).infer(rows.data, tick=1))
    assert found.tolist() == [_in_whole_numbers(network, row) for row in rows.tolist()]


def test_the_largest_sums_that_a_file_may_bring_about_are_exact(tmp_path: Path) -> None:
    path = tmp_path / "wide.npz"
    ends = np.where(np.arange(1_024) % 2, 127 / 64, 126 / 64).reshape(-1, 1)
    np.savez(
        path,
        w1=np.full((8, 1_024), 127 / 64),
        b1=np.full(1_024, 16.0),
        w2=np.full((1_024, 1_024), 127 / 64) - np.eye(1_024) / 64,
        b2=np.full(1_024, 16.0),
        w3=-ends,
        b3=np.array([15.999]),
    )
    network = stored_network(path)
    row = [127] * 8
    wanted = _in_whole_numbers(network, row)
    assert np.asarray(PolicyModel(network).infer(np.array([row], np.int8).data, tick=1)).tolist() == [wanted]


def test_seeds_make_different_networks_and_each_the_same_again() -> None:
    rows = _rows(200)
    first, again, other = (np.asarray(PolicyModel(seeded_network(seed)).infer(rows.data, tick=1)) for seed in (3, 3, 4))
    assert first.tolist() == again.tolist()
    assert first.tolist() != other.tolist()


def test_weights_of_a_file_are_rounded_and_used(tmp_path: Path) -> None:
    path = tmp_path / "linear.npz"
    weights = np.zeros((8, 1))
    weights[2] = 1.004
    np.savez(path, w1=weights, b1=np.array([0.5]))
    row = np.zeros((1, 8), np.int8)
    row[0, 2] = -10
    assert np.asarray(PolicyModel(stored_network(path)).infer(row.data, tick=1)).tolist() == [-10 * 64 + 2_048]


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"w1": np.zeros((7, 1)), "b1": np.zeros(1)}, "shape"),
        ({"w1": np.zeros((8, 2)), "b1": np.zeros(2)}, "end with one"),
        ({"w1": np.zeros((8, 1)), "b1": np.zeros(2)}, "b1"),
        ({"w1": np.full((8, 1), np.nan), "b1": np.zeros(1)}, "none"),
        ({"w1": np.full((8, 1), 2.5), "b1": np.zeros(1)}, "beyond 2"),
        ({"w1": np.zeros((8, 1)), "b1": np.full(1, 17.0)}, "beyond 16"),
        ({"w1": np.zeros((8, 1))}, "w1, b1"),
        ({"w1": np.zeros((8, 1)), "c1": np.zeros(1)}, "w1, b1"),
        ({"w1": np.array([["a"]]), "b1": np.zeros(1)}, "numbers"),
    ],
)
def test_a_file_that_is_no_network_is_refused(tmp_path: Path, arrays: dict[str, Any], said: str) -> None:
    path = tmp_path / "weights.npz"
    np.savez(path, **arrays)
    with pytest.raises(InvalidPopulationError, match=said):
        stored_network(path)


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 broken"])
def test_a_file_of_something_else_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "weights.npz"
    path.write_bytes(content)
    with pytest.raises(InvalidPopulationError, match=r"weights\.npz"):
        stored_network(path)
    with pytest.raises(InvalidPopulationError, match="cannot be read"):
        stored_network(tmp_path / "nowhere.npz")


def _host(engine: LocalEngine) -> Host:
    return Host(engine._spec, engine.columns, engine.slab, None, "numpy", None)


def test_features_say_what_was_held_heard_and_given_way(tmp_path: Path) -> None:
    with town(tmp_path, specification(graph="mixed", susceptibility=0.25, bound=0.5, activity=0.75)) as engine:
        ticked(engine, 1)
        before, after = engine.columns.opinion
        rows = np.arange(300)
        reader = FeatureReader(_host(engine))
        found = reader.of(reader.scene(1), rows).astype(int)
        own, was = np.rint(after * LEVELS), np.rint(before * LEVELS)
    assert (found[:, 0] == own - 32).all()
    assert set(found[:, 1] + 32) <= set(was.astype(int).tolist())
    assert (found[:, 2] == found[:, 1] - found[:, 0]).all()
    assert (found[:, 3] == own - was).all()
    assert found[0, 4:].tolist() == [8, 16, 24, 0]


def test_who_knows_nobody_hears_nothing_new(tmp_path: Path) -> None:
    edges = tmp_path / "edges.txt"
    edges.write_text("0 1\n")
    with town(tmp_path, specification(agents=4, graph=str(edges), behaviour="degroot", susceptibility=0.0)) as engine:
        ticked(engine, 1)
        known = Adjacency(engine._arena["graph.offsets"], engine._arena["graph.targets"])
        reader = FeatureReader(Host(engine._spec, engine.columns, engine.slab, known, "numpy", None))
        found = reader.of(reader.scene(1), np.arange(4))
    assert found[0, 1] == found[1, 0]
    assert found[1, 1] == found[0, 0]
    assert found[2:, 2].tolist() == [0, 0]


def test_whom_an_agent_listens_to_is_drawn_anew_each_tick(tmp_path: Path) -> None:
    with town(tmp_path, specification(graph="mixed")) as engine:
        rows, reader = np.arange(300), FeatureReader(_host(engine))
        scene = reader.scene(1)
        found = [reader.of(replace(scene, tick=tick), rows)[:, 1] for tick in (1, 1, 2)]
    assert (found[0] == found[1]).all()
    assert np.count_nonzero(found[0] != found[2]) > 250


def test_what_will_be_heard_is_known_before_the_tick(tmp_path: Path) -> None:
    with town(tmp_path, specification(graph="mixed", behaviour="voter")) as engine:
        ticked(engine, 3)
        rows, reader = np.arange(300), FeatureReader(_host(engine))
        ahead = reader.of(reader.scene_ahead(4), rows)
        ticked(engine, 1)
        found = reader.of(reader.scene(4), rows)
    assert (ahead[:, 1] == found[:, 1]).all()
    same = (found[:, 3] == 0).nonzero()[0]
    assert 0 < same.size < 300
    assert (ahead[same] == found[same]).all()


def test_opinions_that_are_moved_keep_the_sums_of_their_communities(tmp_path: Path) -> None:
    with town(tmp_path, specification(agents=1_050)) as engine:
        ticked(engine, 1)
        columns, sums = engine.columns, engine._arena["block.sums"]
        mover = Mover(columns, sums)
        for rows in (np.array([7, 3, 1_049, 5]), np.arange(90, 1_020), np.arange(0)):
            mover.move(1, rows, np.linspace(0.0, 1.0, rows.size))
            moved = [int(on_grid(columns.opinion[1][start : start + 100]).sum()) for start in range(0, 1_050, 100)]
            assert sums.tolist() == moved
        assert columns.opinion[1][1_049] == pytest.approx(2 / 3)
        assert [mover.take_moved(), mover.take_moved()] == [True, False]


def test_a_cache_knows_what_was_put_in_and_not_what_had_no_answer() -> None:
    cache, keys = AnswerCache(10), keys_of(_rows(5))
    cache.put(keys, np.array([1, 2, NO_PULL, 4, 5], np.int16), wanted=True)
    pulls, known, foreseen = cache.find(keys, wanted=True)
    assert known.tolist() == [True, True, False, True, True]
    assert pulls[known].tolist() == [1, 2, 4, 5]
    assert foreseen == 0


@pytest.mark.parametrize("bits", [2, 6, 17])
def test_each_distinct_key_stands_for_all_of_its_kind(bits: int) -> None:
    keys = keys_of(_rows(300))[np.random.default_rng(1).integers(0, 300, 1_000)]
    standing, which = AnswerCache(bits).distinct(keys)
    assert np.unique(keys[standing]).size == standing.size
    assert (keys[standing][which] == keys).all()


def test_texts_are_alike_as_far_as_they_share_words() -> None:
    vectors = np.asarray(
        HashedEmbedder().embed(["the water tax rose", "a tax on water", "buses run at night", "...", ""])
    )
    likeness = vectors @ vectors.T
    assert likeness[0, 1] > 0.3 > likeness[0, 2]
    assert np.diag(likeness)[:3] == pytest.approx(1.0)
    assert not vectors[3:].any()


@pytest.mark.parametrize("index", INDEXES)
def test_an_index_finds_what_is_most_like_and_only_among_those_it_is_told(index: type) -> None:
    embedder = HashedEmbedder()
    notes: NoteIndex = index(embedder.dimensions)
    texts = [f"note {number} about {'water' if number % 3 else 'schools'} and {number * 7}" for number in range(1_500)]
    assert notes.add(embedder.embed(texts[:700])) == 0
    assert notes.add(embedder.embed(texts[700:])) == 700
    assert len(notes) == 1_500
    assert notes.nearest(embedder.embed([texts[900]]), 1)[0].number == 900
    found = notes.nearest(embedder.embed([texts[900]]), 2, among=[3, 30, 31])
    assert len(found) == 2
    assert {note.number for note in found} < {3, 30, 31}
    assert found[0].likeness >= found[1].likeness


def test_a_notebook_reminds_an_agent_of_its_own_notes_and_lets_go_of_the_oldest() -> None:
    embedder = HashedEmbedder()
    notebook = Notebook(embedder, lambda: ExactNotes(embedder.dimensions), most=6)
    notebook.add([(1, "the water is warm"), (2, "the water is cold"), (1, "buses are late"), (1, "")])
    assert notebook.recall(1, "warm water", 1) == ("the water is warm",)
    assert notebook.given(1) == ("buses are late", "the water is warm")
    assert notebook.given(3) == ()
    assert notebook.recall_all("cold water", 1) == ("the water is cold",)
    notebook.add([(4, f"note {number}") for number in range(4)])
    assert len(notebook) == 3
    assert notebook.given(1) == ()
