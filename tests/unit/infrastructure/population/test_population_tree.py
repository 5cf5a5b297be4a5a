"""The tree at work: what goes up it is exact, what goes down it reaches everybody, and a region that fails is named and left behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from domain.models.population import GRID, PopulationSpecification
from infrastructure.population.local_engine import LocalEngine
from infrastructure.population.region_folds import RegionFolds, RegionValue, fold_region
from infrastructure.population.tree import Tree
from tests.population.towns import opinions_of, specification, ticked, town

KERNELS = ("numba", "numpy")
THREE = 20_150


def _three(**given: Any) -> PopulationSpecification:
    """Three regions, the last one of a few rows."""
    return specification(**{"agents": THREE, "workers": "threads", **given})


def _tree_of(engine: LocalEngine) -> Tree:
    return engine._tree


def test_what_the_root_knows_is_what_all_agents_think(tmp_path: Path) -> None:
    with town(tmp_path, _three(departures=0.05, fold_ticks=2)) as engine:
        outcomes = ticked(engine, 4)
        known: Any = engine.measures().attached["tree"]
        opinions = opinions_of(engine)[engine.columns.alive == 1]
    units = (opinions * GRID).astype(np.int64)
    found = known["opinions"]
    assert found["count"] == opinions.size == outcomes[-1].alive
    assert found["sum_in_units"] == int(units.sum()) == outcomes[-1].opinion_sum
    assert (found["least"], found["most"]) == (opinions.min(), opinions.max())
    assert found["histogram"] == np.bincount(np.minimum(units * 100 >> 39, 99), minlength=100).tolist()
    assert not outcomes[-1].stale_regions


def test_a_hundredth_begins_exactly_where_it_says() -> None:
    first = -(-29 * GRID // 100)
    value = fold_region(np.array([0, first - 1, first, GRID]) / GRID, np.ones(4, np.uint8))
    assert np.flatnonzero(value.histogram).tolist() == [0, 28, 29, 99]


@pytest.mark.parametrize("bad", [float("nan"), 1.5, -0.1])
def test_a_region_that_holds_no_opinions_is_named_and_its_last_value_stands(tmp_path: Path, bad: float) -> None:
    with town(tmp_path, _three(kernel="numpy", activity=0.0, fold_ticks=1)) as engine:
        (before,) = ticked(engine, 1)
        sane = _tree_of(engine)._folds.histograms.copy()
        engine.columns.opinion[1][10_007] = bad
        tree = _tree_of(engine)
        tree.after_tick(2, changed=False)
        # As after a tick that wrote to the buffer of odd ticks.
        engine.columns.opinion[0][:] = engine.columns.opinion[1]
        fold = tree.fold()
        known: Any = tree.document()["regions"]
    assert not before.stale_regions
    assert fold.stale == (1,)
    (stale,) = known["stale"]
    assert (stale["region"], stale["value_of_tick"]) == (1, 1)
    assert "none from 0 to 1" in stale["problem"]
    assert np.array_equal(tree._folds.histograms[1], sane[1])
    assert tree._folds.of_tick.tolist() == [2, 1, 2]


def test_a_sum_that_agents_cannot_have_is_replaced_by_the_last_one_and_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with town(tmp_path, _three()) as engine:
        (outcome,) = ticked(engine, 1)
        tree = _tree_of(engine)
        engine._arena["block.sums"][150] = -5
        broken = tree.fold()
        again = tree.fold()
        engine._arena["block.sums"][150] = 3
        mended = tree.fold()
    assert broken.stale == (1,)
    assert broken.total == again.total == outcome.opinion_sum
    assert [record.message for record in caplog.records] == ["a region is stale"]
    assert mended.stale == ()


def test_a_region_that_raises_keeps_nobody_else_from_answering(tmp_path: Path) -> None:
    with town(tmp_path, _three()) as engine:
        columns = engine.columns
        asked: list[int] = []

        def fold(opinions: NDArray[np.float64], alive: NDArray[np.uint8]) -> RegionValue:
            asked.append(opinions.size)
            if opinions.size == 150:
                raise ZeroDivisionError("of the test")
            return fold_region(opinions, alive)

        folds = RegionFolds(columns, 3, fold=fold)
        folds.ask(0)
    assert asked == [10_000, 10_000, 150]
    assert folds.stale() == [{"region": 2, "value_of_tick": None, "problem": "ZeroDivisionError: of the test"}]
    assert folds.root()["count"] == 20_000


def test_regions_that_miss_the_deadline_are_named_and_asked_first_next_time(tmp_path: Path) -> None:
    now = [0.0]

    def fold(opinions: NDArray[np.float64], alive: NDArray[np.uint8]) -> RegionValue:
        now[0] += 0.04
        return fold_region(opinions, alive)

    with town(tmp_path, _three()) as engine:
        folds = RegionFolds(engine.columns, 3, fold=fold, clock=lambda: now[0])
        folds.ask(1, deadline_s=0.05)
        first = folds.of_tick.tolist()
        late = folds.stale()
        folds.ask(2, deadline_s=0.05)
    assert first == [1, 1, -1]
    assert late == [{"region": 2, "value_of_tick": None, "problem": "was not reached within 0.05 s"}]
    assert folds.of_tick.tolist() == [2, 1, 2]


def test_provinces_join_what_more_than_a_hundred_regions_say(tmp_path: Path) -> None:
    with town(tmp_path, specification()) as engine:
        folds = RegionFolds(engine.columns, 250)
    numbers = np.arange(250, dtype=np.int64)
    folds.counts[:], folds.totals[:], folds.least[:], folds.most[:] = 10, numbers * GRID, numbers[::-1] + 5, numbers
    folds.histograms[:, 7] = 10
    root = folds.root()
    assert (root["count"], root["sum"]) == (2_500, float(numbers.sum()))
    assert (root["least"], root["most"]) == (5 / GRID, 249 / GRID)
    assert root["histogram"] == [0] * 7 + [2_500] + [0] * 92


def test_only_regions_in_which_something_changed_are_asked(tmp_path: Path) -> None:
    asked = []

    def fold(opinions: NDArray[np.float64], alive: NDArray[np.uint8]) -> RegionValue:
        asked.append(opinions.size)
        return fold_region(opinions, alive)

    with town(tmp_path, _three()) as engine:
        folds = RegionFolds(engine.columns, 3, fold=fold)
        folds.ask(1)
        asked.clear()
        folds.ask(2, dirty=np.array([False, False, True]))
    assert asked == [150]
    assert folds.of_tick.tolist() == [2, 2, 2]


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_command_reaches_every_worker_of_its_regions_before_the_next_tick(
    tmp_path: Path, compiled: Path, kernel: str
) -> None:
    spec = _three(kernel=kernel, commands=("2:bound=0.7:1-2", "3:susceptibility=0.0"))
    with town(tmp_path, spec, cache=compiled) as engine:
        ticked(engine, 1)
        bounds = engine.columns.bound.copy()
        ticked(engine, 1)
        before = opinions_of(engine)
        (stood,) = ticked(engine, 1)
        after = opinions_of(engine)
        tree: Any = engine.measures().attached["tree"]
    assert set(bounds[:10_000]) == {0.2}
    assert set(bounds[10_000:]) == {0.7}
    # Who goes no part of the way stays where it is, from the very tick that the command was for.
    assert np.array_equal(before, after)
    assert stood.sent == THREE
    assert tree["commands"]["carried_out"] == 2
    # To 2 regions of 102 localities and 10,150 workers, then to 3 of 202 and 20,150.
    assert tree["commands"]["messages"] == 2 + 102 + 10_150 + 3 + 202 + 20_150


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("behaviour", ["bounded_confidence", "threshold", "tests.population.minds:Average"])
def test_a_paused_region_neither_speaks_nor_moves_until_it_is_woken(
    tmp_path: Path, compiled: Path, kernel: str, behaviour: str
) -> None:
    spec = _three(kernel=kernel, behaviour=behaviour, commands=("2:pause:0", "4:wake:0"))
    with town(tmp_path, spec, cache=compiled) as engine:
        ticked(engine, 1)
        before = opinions_of(engine)
        paused = ticked(engine, 1)
        early = opinions_of(engine)
        paused += ticked(engine, 1)
        during = opinions_of(engine)
        (woken,) = ticked(engine, 1)
        after = opinions_of(engine)
    assert np.array_equal(before[:10_000], early[:10_000])
    assert np.array_equal(before[:10_000], during[:10_000])
    assert [outcome.sent for outcome in paused] == [THREE - 10_000] * 2
    assert all(outcome.sent == outcome.delivered for outcome in paused)
    assert woken.sent == THREE
    if behaviour != "threshold":
        assert not np.array_equal(before[10_000:], during[10_000:])
        assert not np.array_equal(during[:10_000], after[:10_000])


def test_who_comes_into_a_region_goes_by_what_was_commanded_there(tmp_path: Path) -> None:
    spec = _three(begin_with=5_000, arrivals=0.5, commands=("1:activity=0.25:1",))
    with town(tmp_path, spec) as engine:
        ticked(engine, 1)
        columns = engine.columns
        newcomers = columns.alive[10_000:] == 1
        assert newcomers.any()
        assert set(columns.activity[10_000:20_000][newcomers[:10_000]]) == {0.25}
        assert set(columns.activity[:10_000]) == {1.0}


def test_commands_do_not_see_kernels_nor_how_agents_are_sharded(tmp_path: Path, compiled: Path) -> None:
    given = {
        "graph": "communities",
        "commands": ("2:bound=0.4:1", "3:pause:0", "4:activity=0.5", "5:wake", "6:susceptibility=1:2"),
    }
    hashes = set()
    for kernel, shards, workers in (
        ("numpy", 1, "threads"),
        ("numba", 2, "threads"),
        ("numpy", 7, "processes"),
        ("numba", 24, "threads"),
    ):
        spec = _three(**given, kernel=kernel, shards=shards, workers=workers)
        with town(tmp_path, spec, cache=compiled) as engine:
            ticked(engine, 7)
            hashes.add(engine.state_hash())
    assert len(hashes) == 1


def test_coordination_is_timed_and_stands_beside_a_flat_sum(tmp_path: Path) -> None:
    with town(tmp_path, _three()) as engine:
        (outcome,) = ticked(engine, 1)
        known: Any = engine.measures().attached["tree"]
    assert 0 < outcome.coordination_s < 1
    measured = known["measured"]
    assert measured["flat_over_tree"] == pytest.approx(measured["flat_ms"] / measured["tree_ms"])
