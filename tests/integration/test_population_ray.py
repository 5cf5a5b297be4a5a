"""Populations on a cluster: two Ray nodes on one machine, real actors in processes of their own."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

from application.ports.population_engine import PopulationEngine, TickOutcome
from domain.errors.dependency import DependencyUnavailableError
from domain.errors.population import BehaviourError
from domain.models.population import PopulationSpecification
from infrastructure.population.ray_engine import RayEngine
from infrastructure.population.snapshots import Snapshots
from tests.population.ray_cluster import two_nodes
from tests.population.runs import Listener, resumed, run_in
from tests.population.towns import specification

_TICKS = 12


@pytest.fixture(scope="module", autouse=True)
def _cluster() -> Iterator[None]:
    with two_nodes():
        yield


def _on_ray(**given: Any) -> PopulationSpecification:
    return specification(engine="ray", ticks=_TICKS, agents=1_200, seed=11, **given)


def _on_this_machine(**given: Any) -> PopulationSpecification:
    return specification(ticks=_TICKS, agents=1_200, seed=11, **given)


async def _hash_of(out: Path, spec: PopulationSpecification) -> object:
    return (await run_in(out, spec)).result["state_hash"]


@pytest.mark.parametrize(
    "given",
    [
        {"behaviour": "bounded_confidence", "shards": 24, "messages": 3, "high_priority": 10, "low_priority": 20},
        {"behaviour": "degroot", "shards": 7, "graph": "scale_free"},
        {"behaviour": "voter", "shards": 2, "graph": "mixed"},
        {"behaviour": "tests.population.minds:Average", "shards": 5},
    ],
    ids=lambda given: str(given["behaviour"]).rpartition(":")[2] + "-" + str(given.get("graph", "random")),
)
async def test_a_cluster_comes_to_what_this_machine_comes_to(tmp_path: Path, given: dict[str, Any]) -> None:
    there = await run_in(tmp_path / "there", _on_ray(**given))
    assert there.result["state_hash"] == await _hash_of(tmp_path / "here", _on_this_machine(**given))
    assert there.result["engine"] == "ray"
    assert there.result["messages_lost"] == 0


async def test_each_group_of_shards_has_one_actor_and_the_nodes_share_them(tmp_path: Path) -> None:
    engine = await asyncio.to_thread(_opened, tmp_path, _on_ray(shards=24))
    try:
        assert len(set(engine.processes)) == engine.facts.worker_count == 2
        assert len({_parent_of(process) for process in engine.processes}) == 2
    finally:
        engine.close()


async def test_a_killed_actor_is_restored_from_its_snapshot(tmp_path: Path) -> None:
    spec = _on_ray(snapshot_ticks=4, behaviour="tests.population.minds:Remembering")
    listener = Listener()
    lost: list[int] = []

    def deadly(engine: PopulationEngine) -> PopulationEngine:
        return engine if lost else _KilledAt(engine, 7, lost)

    ended = await run_in(tmp_path / "there", spec, observer=listener, wrap=deadly)
    here = _on_this_machine(behaviour="tests.population.minds:Remembering")
    assert ended.result["state_hash"] == await _hash_of(tmp_path / "here", here)
    assert [data["worker"] for kind, data in listener.notes if kind == "population.shard_lost"] == lost
    assert (tmp_path / "there" / "ticks.jsonl").read_bytes().count(b"\n") == _TICKS


async def test_what_a_cluster_left_in_the_middle_another_engine_ends(tmp_path: Path) -> None:
    spec = _on_ray(snapshot_ticks=5, behaviour="degroot")

    with pytest.raises(ConnectionResetError):
        await run_in(tmp_path / "there", spec, wrap=lambda engine: _Broken(engine, at=9))
    there = tmp_path / "there" / "population.json"
    there.write_text(there.read_text().replace('"engine": "ray"', '"engine": "local"'))
    ended = await resumed(tmp_path / "there")
    assert ended.result["engine"] == "local"
    assert ended.result["state_hash"] == await _hash_of(tmp_path / "here", _on_this_machine(behaviour="degroot"))


async def test_a_behaviour_that_fails_on_another_node_is_named_as_here(tmp_path: Path) -> None:
    with pytest.raises(BehaviourError) as caught:
        await run_in(tmp_path, _on_ray(behaviour="tests.population.minds:Raising"))
    assert (caught.value.tick, caught.value.shard) == (7, 1)
    assert "ZeroDivisionError: of the test" in str(caught.value)


async def test_a_cluster_that_is_not_there_is_a_dependency_that_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await asyncio.to_thread(ray.shutdown)
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(DependencyUnavailableError, match="Check RAY_ADDRESS"):
        await asyncio.to_thread(_opened, tmp_path, _on_ray())


def _opened(out: Path, spec: PopulationSpecification) -> RayEngine:
    """Where Ray does not take over the signals of this process: beside its main thread."""
    return RayEngine(spec, snapshots=Snapshots(out / "snapshots"), batch=4_000)


def _parent_of(process: int) -> int:
    """The one that begins the actors of a node."""
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])


class _Wrapped:
    """Gives through to an engine."""

    def __init__(self, engine: PopulationEngine) -> None:
        self._engine = engine

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)


class _KilledAt(_Wrapped):
    """Kills an actor's process before one tick."""

    def __init__(self, engine: PopulationEngine, tick: int, lost: list[int]) -> None:
        super().__init__(engine)
        self._tick = tick
        self._lost = lost

    def tick(self, number: int) -> TickOutcome:
        """See `PopulationEngine`."""
        if number == self._tick:
            os.kill(self._engine.processes[0], signal.SIGKILL)  # type: ignore[attr-defined]
            self._lost.append(0)
        return self._engine.tick(number)


class _Broken(_Wrapped):
    """Breaks at one tick, as a process does that ends."""

    def __init__(self, engine: PopulationEngine, *, at: int) -> None:
        super().__init__(engine)
        self._at = at

    def tick(self, number: int) -> TickOutcome:
        """See `PopulationEngine`."""
        if number == self._at:
            raise ConnectionResetError("of the test")
        return self._engine.tick(number)
