"""Working memory, metrics and peers: columns that are there only where they are asked for, and say what happened."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from domain.models.population import BEHAVIOURS
from infrastructure.population.adjacency import Adjacency
from infrastructure.population.columns import NOBODY
from infrastructure.population.external.speech import Speech
from infrastructure.population.field import layout_of
from infrastructure.population.memory_plan import plan_memory
from tests.population.towns import opinions_of, specification, ticked, town

WAYS = (("numpy", 1), ("numba", 2), ("numpy", 7), ("numba", 24))
ALL = {"memory_bytes": 16, "metrics": 5, "peers": 3}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"agents": 1_250, "seed": 11}, "ac386e5dc9852a5136aee7e2f6c0128eb5be7ee28c18bf295795f98684217c96"),
        (
            {
                "agents": 730,
                "seed": 3,
                "behaviour": "voter",
                "graph": "communities",
                "messages": 2,
                "high_priority": 20,
            },
            "540f4fa85a93a1e152626c595bb0a30825403425229681de965f06943cc69771",
        ),
    ],
)
def test_without_them_a_population_is_what_it_always_was(tmp_path: Path, given: dict[str, Any], expected: str) -> None:
    with town(tmp_path, specification(**given)) as engine:
        ticked(engine, 5)
        assert engine.state_hash() == expected
        assert not any(name in engine._arena for name in ("column.memory", "column.metrics", "column.peers"))


@pytest.mark.parametrize("graph", ["communities", "mixed"])
@pytest.mark.parametrize("behaviour", [*BEHAVIOURS, "tests.population.minds:Bookkeeping"])
def test_they_do_not_depend_on_shards_and_kernels(tmp_path: Path, behaviour: str, graph: str, compiled: Path) -> None:
    hashes = set()
    for kernel, shards in WAYS:
        spec = specification(
            **ALL,
            agents=620,
            behaviour=behaviour,
            graph=graph,
            kernel=kernel,
            shards=shards,
            messages=2,
            departures=0.02,
        )
        with town(tmp_path, spec, cache=compiled) as engine:
            ticked(engine, 5)
            hashes.add(engine.state_hash())
    assert len(hashes) == 1


@pytest.mark.parametrize("kernel", ["numpy", "numba"])
@pytest.mark.parametrize("graph", ["scale_free", "mixed"])
def test_they_say_who_was_heard_and_how_everybody_moved(
    tmp_path: Path, kernel: str, graph: str, compiled: Path
) -> None:
    spec = specification(**ALL, agents=251, kernel=kernel, graph=graph, messages=2, activity=0.7)
    with town(tmp_path, spec, cache=compiled) as engine:
        columns = engine.columns
        known = Adjacency(engine._arena["graph.offsets"], engine._arena["graph.targets"]) if graph != "mixed" else None
        speech = Speech(spec, columns, known, None, rows=spec.agents)
        heard: dict[int, list[int]] = defaultdict(list)
        moves, way, quiet = (np.zeros(251, np.int64) for _ in range(3))
        for tick in range(1, 7):
            before = opinions_of(engine)
            (outcome,) = ticked(engine, 1)
            rows, senders = speech.of(tick)
            assert rows.size == outcome.delivered
            for row, sender in zip(rows.tolist(), senders.tolist(), strict=True):
                heard[row].append(sender)
            step = np.abs(opinions_of(engine) - before)
            moves += step > 0
            way += (step * 2**39).astype(np.int64)
            quiet = np.where(step > 0, 0, quiet + 1)
        expected = np.array([[*reversed(heard[row][-3:]), *[NOBODY] * 3][:3] for row in range(251)])
        assert np.array_equal(columns.peers, expected)
        assert columns.metrics[:, 0].tolist() == [len(heard[row]) for row in range(251)]
        assert np.array_equal(columns.metrics[:, 1:4], np.stack([moves, way, quiet], axis=1))
        assert not columns.metrics[:, 4].any()


def test_a_behaviour_of_ones_own_reads_all_of_them_and_writes_what_is_its_own(tmp_path: Path) -> None:
    spec = specification(**ALL, agents=200, behaviour="tests.population.minds:Bookkeeping")
    with town(tmp_path, spec) as engine:
        ticked(engine, 3)
        peers = engine.columns.peers.copy()
        ticked(engine, 1)
        columns = engine.columns
        assert set(columns.metrics[:, 4]) == {4}
        assert int(columns.metrics[:, 0].sum()) == 4 * 200
        remembered = columns.memory[:, :4].copy().view("<u4")[:, 0]
        known = peers[:, 0] != NOBODY
        assert np.array_equal(remembered[known], peers[known, 0])


def test_they_go_on_while_a_locality_sleeps_and_come_to_the_same(tmp_path: Path) -> None:
    hashes = set()
    for dormancy in (False, True):
        spec = specification(
            **ALL, agents=600, behaviour="threshold", bound=0.9, graph="communities", dormancy=dormancy
        )
        with town(tmp_path, spec) as engine:
            outcomes = ticked(engine, 6)
            hashes.add(engine.state_hash())
        # What is heard is counted, so everybody goes on speaking.
        assert outcomes[-1].sent == 600
    assert len(hashes) == 1


def test_who_takes_a_row_over_begins_with_nothing(tmp_path: Path) -> None:
    with town(tmp_path, specification(**ALL, agents=300)) as engine:
        engine.columns.memory[:] = 7
        ticked(engine, 3)
        engine.slab.retire(np.array([5, 6], np.uint32))
        (row,) = engine.slab.spawn(1, tick=3)
        columns = engine.columns
        assert not columns.memory[row].any()
        assert not columns.metrics[row].any()
        assert set(columns.peers[row]) == {NOBODY}


def test_they_are_counted_before_they_are_taken() -> None:
    plain = specification(agents=1_000)
    wide = specification(agents=1_000, memory_bytes=60_000, metrics=1_000, peers=1_000)
    sizes = [layout_of(spec, shards=2, workers=2, batch=4_000, edges=8_000).size for spec in (plain, wide)]
    assert sizes[1] - sizes[0] == pytest.approx(1_000 * (60_000 + 8_000 + 4_000), abs=300)
    needed = [plan_memory(spec, shards=2, workers=2, batch=4_000).needed_bytes for spec in (plain, wide)]
    assert needed[1] - needed[0] >= 1_000 * 72_000
