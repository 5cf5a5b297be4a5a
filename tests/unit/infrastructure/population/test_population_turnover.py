"""Agents that come and go while a population runs, and the localities and regions that they open and close."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from domain.models.population import PopulationSpecification
from tests.population.towns import specification, ticked, town

WAYS = (("numpy", 1, "threads"), ("numba", 2, "threads"), ("numpy", 7, "processes"), ("numba", 24, "threads"))


def _end(spec: PopulationSpecification, cache: Path, ticks: int) -> tuple[str, list[Any], dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder, town(Path(folder), spec, cache=cache) as engine:
        outcomes = ticked(engine, ticks)
        tree: Any = engine.measures().attached["tree"]
        counts = [(one.sent, one.expired, one.alive, one.opinion_sum) for one in outcomes]
        return engine.state_hash(), counts, {name: tree[name] for name in ("turnover", "regions", "localities")}


@pytest.mark.parametrize("graph", ["communities", "mixed"])
def test_whoever_comes_and_goes_is_the_same_on_any_number_of_shards(graph: str, compiled: Path) -> None:
    given = {"agents": 1_250, "graph": graph, "begin_with": 700, "arrivals": 0.05, "departures": 0.06, "seed": 2}
    found = [
        _end(specification(**given, kernel=kernel, shards=shards, workers=workers), compiled, 8)
        for kernel, shards, workers in WAYS
    ]
    assert all(one == found[0] for one in found)
    assert found[0][2]["turnover"]["arrived"] > 100
    assert found[0][2]["turnover"]["departed"] > 100


def test_no_message_is_lost_on_those_who_left(tmp_path: Path) -> None:
    with town(tmp_path, specification(agents=2_000, departures=0.2, arrivals=0.1)) as engine:
        outcomes = ticked(engine, 6)
        for outcome in outcomes:
            assert outcome.sent == outcome.delivered + outcome.expired + outcome.refused
        columns = engine.columns
        living = columns.alive == 1
        assert outcomes[-1].alive == int(living.sum())
        # What the root says is of those who live after the tick, newcomers included.
        assert outcomes[-1].opinion_sum == int((columns.opinion[0][living] * 2**39).sum())
    assert any(outcome.expired for outcome in outcomes)


def test_as_many_leave_and_come_as_was_said(tmp_path: Path) -> None:
    with town(tmp_path, specification(agents=10_000, begin_with=9_000, departures=0.1)) as engine:
        (after,) = ticked(engine, 1)
    # Of 9,000 a tenth, four standard deviations either way.
    assert 8_100 - 114 < after.alive < 8_100 + 114
    with town(tmp_path, specification(agents=10_000, begin_with=2_000, arrivals=0.01015)) as engine:
        counts = [outcome.alive for outcome in ticked(engine, 20)]
    came = np.diff([2_000, *counts])
    # Half a one is one or none.
    assert set(came) == {101, 102}


def test_localities_and_regions_open_with_their_first_agent_and_close_with_their_last(tmp_path: Path) -> None:
    spec = specification(agents=20_150, begin_with=150, arrivals=0.3, workers="threads")
    with town(tmp_path, spec) as engine:
        ticked(engine, 2)
        grown: Any = engine.measures().attached["tree"]
    assert grown["localities"] == {"all": 202, "living": 123, "spawned": 121, "retired": 0}
    assert (grown["regions"]["living"], grown["regions"]["spawned"]) == (2, 1)
    with town(tmp_path, specification(agents=20_150, departures=0.9, workers="threads")) as engine:
        outcomes = ticked(engine, 6)
        shrunk: Any = engine.measures().attached["tree"]
    assert outcomes[-1].alive < 50
    assert shrunk["localities"]["retired"] == 202 - shrunk["localities"]["living"] > 150
    assert shrunk["regions"]["retired"] == 3 - shrunk["regions"]["living"]


def test_nobody_comes_where_every_row_is_taken_and_all_who_wanted_are_counted(tmp_path: Path) -> None:
    with town(tmp_path, specification(agents=1_000, arrivals=0.1)) as engine:
        (outcome,) = ticked(engine, 1)
        tree: Any = engine.measures().attached["tree"]
    assert outcome.alive == 1_000
    assert tree["turnover"] == {"arrived": 0, "departed": 0, "turned_away": 100}


def test_everybody_may_have_left(tmp_path: Path, compiled: Path) -> None:
    for kernel in ("numpy", "numba"):
        with town(tmp_path, specification(agents=300, departures=1.0, kernel=kernel), cache=compiled) as engine:
            first, second = ticked(engine, 2)
            assert (first.sent, first.alive) == (300, 0)
            assert (second.sent, second.alive, second.opinion_sum) == (0, 0, 0)
            assert engine.opinions().mean == 0.0
