"""The parts of a population by themselves: graphs, pairings, rows, memory without a name, latencies."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from domain.errors.population import EdgeFileError, NotEnoughMemoryError, PopulationFullError
from domain.models.archetype import Archetype
from domain.models.population import MAX_AGENTS
from infrastructure.population import memory_plan
from infrastructure.population.adjacency import Adjacency
from infrastructure.population.arena import Arena, Layout
from infrastructure.population.edge_file import read_edges
from infrastructure.population.graphs import graph_of
from infrastructure.population.memory_plan import plan_memory
from infrastructure.population.randomness import Purpose, draw, key_of, mixed, pairing_of, partners_of
from infrastructure.population.rings import bucket_of, percentile_us
from tests.population.towns import specification, town


def _graph(name: str, **given: object) -> Adjacency:
    found = graph_of(specification(graph=name, **given))
    assert found is not None
    return found


def _edges(graph: Adjacency) -> list[tuple[int, int]]:
    ends = np.repeat(np.arange(graph.offsets.size - 1), np.diff(graph.offsets))
    return sorted(zip(ends.tolist(), graph.targets.tolist(), strict=True))


@pytest.mark.parametrize("name", ["random", "small_world", "scale_free", "communities"])
@pytest.mark.parametrize("agents", [10, 301, 1_000])
def test_edges_lead_both_ways_and_nobody_knows_itself(name: str, agents: int) -> None:
    edges = _edges(_graph(name, agents=agents, degree=6))
    assert edges == sorted((b, a) for a, b in edges)
    assert all(a != b for a, b in edges)


@pytest.mark.parametrize("degree", [1, 2, 7, 8])
def test_everybody_in_a_random_graph_knows_as_many(degree: int) -> None:
    assert set(np.diff(_graph("random", degree=degree).offsets)) == {degree}


def test_a_scale_free_graph_has_hubs_and_a_small_world_has_none() -> None:
    hub = _graph("scale_free", agents=5_000).most_heard
    assert hub > 100
    assert _graph("small_world", agents=5_000).most_heard < 25


def test_most_edges_of_a_community_stay_inside() -> None:
    edges = _edges(_graph("communities", agents=2_000))
    inside = sum(a // 100 == b // 100 for a, b in edges) / len(edges)
    assert 0.87 < inside < 0.93


@pytest.mark.parametrize("size", [1, 2, 3, 10, 101, 256])
def test_partners_are_each_others_and_only_an_odd_one_is_alone(size: int) -> None:
    partners = partners_of(pairing_of(key_of(1, 2, Purpose.PAIRING), size), np.arange(size, dtype=np.uint64))
    numbers = np.arange(size)
    assert np.array_equal(partners[partners.astype(int)], numbers)
    assert np.count_nonzero(partners == numbers) == size % 2


def test_every_pair_meets_as_often_as_any_other() -> None:
    size, rounds = 8, 4_000
    met = np.zeros((size, size))
    for tick in range(rounds):
        partners = partners_of(pairing_of(key_of(5, tick, Purpose.PAIRING), size), np.arange(size, dtype=np.uint64))
        met[np.arange(size), partners.astype(int)] += 1
    expected = rounds / (size - 1)
    apart = met[~np.eye(size, dtype=bool)]
    # 28 pairs: chi-squared with 21 degrees of freedom stays below 46.8 in 999 of 1,000 cases.
    assert ((apart - expected) ** 2 / expected).sum() / 2 < 46.8


def test_the_numbers_drawn_are_those_of_the_scalar_hash() -> None:
    key = key_of(9, 3, Purpose.RECIPIENT)
    found = draw(key, np.arange(5, dtype=np.uint64))
    assert [int(word) for word in found] == [mixed((key + n * 0x9E3779B97F4A7C15) % 2**64) for n in range(5)]


def test_mixing_is_that_of_splitmix64() -> None:
    # The first outputs of the reference implementation with the seed 0.
    golden = 0x9E3779B97F4A7C15
    assert [mixed(golden * n % 2**64) for n in (1, 2, 3)] == [
        0xE220A8397B1DCDAF,
        0x6E789E6AA1B965F4,
        0x06C45D188009454F,
    ]


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ("0 1\n1 9\n", 2, "names agent 9"),
        ("0 1\n-1 2\n", 2, "names agent -1"),
        ("0 1 2\n", 1, "has 3 numbers"),
        ("a b\n", 1, "is no pair of numbers"),
        ("# 0 and 1\n0 1\n\n1 2 # 3\n1\n", 3, "is no pair of numbers"),
        ("# nothing\n", 0, "holds no edge"),
        ("0 0.5\n", 1, "is no pair of numbers"),
    ],
)
def test_an_edge_file_that_cannot_be_used_is_refused_by_its_line(
    tmp_path: Path, text: str, line: int, problem: str
) -> None:
    file = tmp_path / "edges"
    file.write_text(text)
    with pytest.raises(EdgeFileError, match=problem) as caught:
        read_edges(file, 9)
    assert caught.value.line == line


@pytest.mark.parametrize("text", ["0,1\n1, 2 # friends\n", "# who knows whom\n\n0,1\n1,2\n", "# from, to\n0 1\n1\t2\n"])
def test_an_edge_file_may_have_commas_and_comments(tmp_path: Path, text: str) -> None:
    file = tmp_path / "edges"
    file.write_text(text)
    ends, others = read_edges(file, 3)
    assert (ends.tolist(), others.tolist()) == ([0, 1], [1, 2])


def test_a_full_population_takes_nobody_more(tmp_path: Path) -> None:
    with town(tmp_path, specification()) as engine:
        engine.slab.retire(np.array([5, 7], np.uint32))
        with pytest.raises(PopulationFullError):
            engine.slab.spawn(3)
        assert engine.columns.free_count[0] == 2


def test_the_row_given_back_last_is_given_out_first_under_a_new_generation(tmp_path: Path) -> None:
    with town(tmp_path, specification()) as engine:
        slab = engine.slab
        slab.retire(np.array([5, 7], np.uint32))
        assert slab.spawn(1).tolist() == [7]
        assert not slab.living(7, 1)
        assert slab.living(7, 2)
        assert not slab.living(5, 1)


def test_shared_memory_has_no_name_and_is_seen_through_its_descriptor() -> None:
    layout = Layout()
    layout.add("numbers", np.int64, 3)
    layout.add("more", np.uint8, 100)
    arena = Arena(layout)
    other = Arena(Layout.from_document(layout.document()), file=os.dup(arena.file))
    arena["numbers"][:] = [1, 2, 3]
    other["more"][99] = 7

    assert other["numbers"].tolist() == [1, 2, 3]
    assert arena["more"][99] == 7
    assert arena["numbers"].ctypes.data % 64 == 0
    assert os.fstat(arena.file).st_nlink == 0
    arena.close()
    other.close()


def test_what_does_not_fit_is_refused_before_anything_is_taken() -> None:
    huge = specification(agents=10_000_000, state_bytes=16_384)
    plan = plan_memory(huge, shards=2, workers=2, batch=4_000)
    assert plan.needed_bytes > 10_000_000 * 16_384
    with pytest.raises(NotEnoughMemoryError) as caught:
        plan.require()
    assert 0 < caught.value.fits_agents < 10_000_000


def test_no_more_agents_fit_than_there_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_plan, "available_bytes", lambda: 1 << 50)
    assert plan_memory(specification(), shards=2, workers=2, batch=100).fits_agents == MAX_AGENTS


def test_percentiles_are_no_more_than_an_eighth_above_what_was_measured() -> None:
    measured = np.array([1_000] * 98 + [50_000, 80_000])
    buckets = np.bincount(bucket_of(measured), minlength=512)
    median, last = percentile_us(buckets, 0.5), percentile_us(buckets, 0.99)
    assert median is not None
    assert last is not None
    assert 1.0 <= median <= 1.125
    assert 50.0 <= last <= 56.3
    assert percentile_us(np.zeros(512, np.int64), 0.5) is None


def test_each_archetype_seeds_the_rows_of_its_own_community(tmp_path: Path) -> None:
    archetypes = (
        Archetype("archon-1", "no", 0.0, confidence=1.0),
        Archetype("archon-2", "yes", 1.0, confidence=0.6, quota=3),
        Archetype("archon-3", "perhaps", 0.5, confidence=0.0),
    )
    with town(tmp_path, specification(agents=2_000, archetypes=archetypes)) as engine:
        columns = engine.columns
        communities = [columns.type == kind for kind in (1, 2, 3)]
        opinions = [columns.opinion[0][rows] for rows in communities]
        found = engine.opinions().communities

    assert [int(rows.sum()) for rows in communities] == [400, 1_200, 400]
    assert np.all(opinions[0] == 0.0)
    assert 0.8 <= opinions[1].min() < 0.82
    assert opinions[1].max() == 1.0
    assert opinions[2].min() < 0.01
    assert opinions[2].max() > 0.99
    assert [(one.name, one.answer, one.agents) for one in found] == [
        ("archon-1", "no", 400),
        ("archon-2", "yes", 1_200),
        ("archon-3", "perhaps", 400),
    ]
    assert found[0].mean == 0.0
    assert np.all(columns.susceptibility[communities[0]] == 0.0)
    assert np.all(columns.susceptibility[communities[2]] == 1.0)
