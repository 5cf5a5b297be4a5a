"""Dormancy: what is passed over would not have changed anything, and nothing else depends on it."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.models.population import BEHAVIOURS, PopulationSpecification
from infrastructure.population.adjacency import Adjacency
from infrastructure.population.dormancy import Dormancy, movable
from infrastructure.population.making import behaviour_of
from tests.population.towns import opinions_of, specification, ticked, town

WAYS = (("numpy", 1), ("numba", 2), ("numpy", 7), ("numba", 24))


def _end(spec: PopulationSpecification, cache: Path, ticks: int) -> tuple[str, tuple[int, ...], dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder, town(Path(folder), spec, cache=cache) as engine:
        outcomes = ticked(engine, ticks)
        tree: Any = engine.measures().attached["tree"]
        return engine.state_hash(), tuple(outcome.sent for outcome in outcomes), tree.get("dormancy", {})


@pytest.mark.parametrize(
    ("given", "ticks"),
    [
        ({"behaviour": "threshold", "bound": 0.2, "graph": "small_world"}, 40),
        ({"behaviour": "degroot", "degree": 20, "agents": 250}, 300),
        ({"bound": 0.05, "graph": "communities", "degree": 4, "agents": 450}, 300),
        ({"behaviour": "voter", "susceptibility": 1.0, "graph": "communities", "agents": 310, "degree": 4}, 60),
    ],
)
def test_the_end_is_the_same_with_and_without_dormancy(given: dict[str, Any], ticks: int, compiled: Path) -> None:
    given = {"agents": 1_250, "seed": 5, **given}
    awake, _, _ = _end(specification(**given, kernel="numba"), compiled, ticks)
    found = [
        _end(specification(**given, kernel=kernel, shards=shards, dormancy=True), compiled, ticks)
        for kernel, shards in WAYS
    ]
    assert {one[0] for one in found} == {awake}
    assert len({one[1] for one in found}) == 1
    assert found[0][2] == found[1][2]
    if given.get("behaviour") != "voter":
        assert found[0][2]["passed_over"] > 0


specifications: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {
        "agents": st.integers(10, 700),
        "behaviour": st.sampled_from(BEHAVIOURS),
        "graph": st.sampled_from(("random", "communities", "scale_free", "mixed")),
        "degree": st.integers(1, 5),
        "messages": st.integers(1, 3),
        "activity": st.sampled_from((0.1, 1.0)),
        "bound": st.sampled_from((0.0, 0.01, 0.2, 1.0)),
        "susceptibility": st.sampled_from((0.0, 0.5, 1.0)),
        "arrivals": st.sampled_from((0.0, 0.002)),
        "departures": st.sampled_from((0.0, 0.002, 0.1)),
        "seed": st.integers(0, 2**63 - 1),
    }
)


@settings(max_examples=8, deadline=None, derandomize=True)
@given(specifications)
def test_whatever_the_population_it_may_sleep(compiled: Path, found: dict[str, Any]) -> None:
    ends = {
        _end(specification(**found, kernel=kernel, shards=shards, dormancy=dormancy), compiled, 25)[0]
        for (kernel, shards), dormancy in zip(WAYS, (False, True, True, True), strict=True)
    }
    assert len(ends) == 1


def test_where_nothing_can_change_nobody_is_stepped_nor_sent_for(tmp_path: Path, compiled: Path) -> None:
    for kernel in ("numpy", "numba"):
        spec = specification(agents=1_000, behaviour="threshold", bound=0.9, graph="communities", dormancy=True)
        with town(tmp_path, replace(spec, kernel=kernel), cache=compiled) as engine:
            outcomes = ticked(engine, 4)
            tree: Any = engine.measures().attached["tree"]
        assert outcomes[0].sent == 1_000
        assert outcomes[-1].sent == 0
        assert tree["dormancy"]["asleep"] == tree["dormancy"]["silent"] == 10
        assert tree["opinions"]["count"] == 1_000


def test_only_who_was_predicted_to_move_does(tmp_path: Path) -> None:
    # One who has adopted wakes its neighbours, and they theirs, round the ring.
    spec = specification(agents=3_000, behaviour="threshold", bound=0.3, graph="small_world", degree=4, dormancy=True)
    with town(tmp_path, spec) as engine:
        engine.columns.opinion[0][:] = 0.0
        engine.columns.opinion[0][700:703] = 1.0
        engine.refresh()
        asleep = []
        for _ in range(20):
            before = engine._tree._dormancy
            assert isinstance(before, Dormancy)
            was_asleep = before.asleep.copy()
            ticked(engine, 1)
            changed = (engine.columns.opinion[0] != engine.columns.opinion[1]).reshape(-1, 100).any(axis=1)
            assert not np.any(changed & was_asleep)
            asleep.append(int(np.count_nonzero(before.asleep)))
        tree: Any = engine.measures().attached["tree"]
    assert max(asleep) > 20
    assert tree["dormancy"]["moved_by_others"] == 0
    assert tree["dormancy"]["evaluated"] < 20 * 30


def test_whoever_is_moved_by_somebody_else_wakes_its_neighbours(tmp_path: Path) -> None:
    spec = specification(agents=1_000, behaviour="threshold", bound=0.1, graph="communities", dormancy=True)
    with (
        town(tmp_path / "one", spec) as sleeping,
        town(tmp_path / "two", replace(spec, dormancy=False)) as awake,
    ):
        for engine in (sleeping, awake):
            engine.columns.opinion[:] = 0.0
            engine.refresh()
            ticked(engine, 3)
            for row in (17, 433):
                engine._mover.move(3, np.array([row]), np.array([1.0]))
                engine.refresh()
            ticked(engine, 6)
        assert sleeping.state_hash() == awake.state_hash()
        assert int((sleeping.columns.opinion[1] == 1.0).sum()) > 2


@pytest.mark.parametrize("behaviour", ["bounded_confidence", "voter"])
def test_who_cannot_be_moved_goes_on_moving_others(tmp_path: Path, behaviour: str, compiled: Path) -> None:
    hashes = set()
    for kernel, dormancy in (("numpy", False), ("numpy", True), ("numba", True)):
        spec = specification(
            agents=1_000,
            behaviour=behaviour,
            bound=1.0,
            graph="communities",
            degree=4,
            kernel=kernel,
            dormancy=dormancy,
        )
        with town(tmp_path, spec, cache=compiled) as engine:
            engine.columns.susceptibility[:300] = 0.0
            engine.columns.opinion[:, :300] = 0.0
            engine.refresh()
            ticked(engine, 12)
            hashes.add(engine.state_hash())
            tree: Any = engine.measures().attached["tree"]
            if dormancy:
                # Three localities of people who have made up their minds, and know others.
                assert (tree["dormancy"]["asleep"], tree["dormancy"]["silent"]) == (3, 0)
    assert len(hashes) == 1


def test_a_locality_is_woken_by_whom_one_of_its_agents_alone_knows(tmp_path: Path) -> None:
    file = tmp_path / "edges"
    file.write_text("\n".join(f"{one} {one + 1}" for one in range(100)) + "\n50 299\n")
    when = []
    for dormancy in (False, True):
        spec = specification(behaviour="threshold", bound=0.3, graph=str(file), shards=1, dormancy=dormancy)
        with town(tmp_path, spec) as engine:
            engine.columns.opinion[:] = 0.0
            engine.columns.opinion[:, 43] = 1.0
            engine.refresh()
            adopted = []
            for _ in range(14):
                ticked(engine, 1)
                adopted.append(bool(opinions_of(engine)[299]))
            when.append(adopted.index(True))
            tree: Any = engine.measures().attached["tree"]
    # Seven steps down the line, and one to who knows nobody else.
    assert when == [7, 7]
    assert tree["dormancy"]["passed_over"] > 14


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_what_was_heard_asleep_is_forgotten(tmp_path: Path, seed: int, compiled: Path) -> None:
    # Along a hundred lines an opinion wanders through localities that slept until then, and heard their neighbours agree.
    file = tmp_path / "edges"
    file.write_text("\n".join(f"{one} {one + 100}" for one in range(900)))
    hashes = set()
    for kernel, dormancy in (("numpy", False), ("numpy", True), ("numba", True)):
        spec = specification(
            agents=1_000,
            behaviour="voter",
            susceptibility=1.0,
            graph=str(file),
            seed=seed,
            kernel=kernel,
            dormancy=dormancy,
        )
        with town(tmp_path, spec, cache=compiled) as engine:
            engine.columns.opinion[:] = 0.0
            engine.columns.opinion[:, 900:] = 1.0
            engine.refresh()
            ticked(engine, 60)
            hashes.add(engine.state_hash())
    assert len(hashes) == 1


@pytest.mark.parametrize("behaviour", BEHAVIOURS)
def test_who_cannot_be_moved_is_not_moved_whatever_it_hears(tmp_path: Path, behaviour: str) -> None:
    spec = specification(agents=400, behaviour=behaviour, degree=3, bound=0.1, messages=3)
    with town(tmp_path, spec) as engine:
        for tick in range(12):
            columns = engine.columns
            known = Adjacency(engine._arena["graph.offsets"], engine._arena["graph.targets"])
            rows = np.arange(400)
            free = movable(behaviour_of(spec), columns, known, rows, tick)
            before = columns.opinion[tick % 2].copy()
            ticked(engine, 1)
            after = columns.opinion[(tick + 1) % 2]
            assert not np.any((before != after) & ~free)


def test_partners_afresh_and_rules_of_ones_own_never_sleep(tmp_path: Path) -> None:
    for restless in ({"graph": "mixed"}, {"behaviour": "tests.population.minds:Exact"}):
        spec = specification(agents=500, susceptibility=0.0, dormancy=True, **restless)
        with town(tmp_path, spec) as engine:
            outcomes = ticked(engine, 4)
        assert outcomes[-1].sent == 500
