"""Populations that are killed, stopped or lose a process in their middle, and go on to the same end."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest

from application.ports.population_engine import TickOutcome
from domain.errors.population import (
    PopulationDivergedError,
    ShardLostError,
)
from domain.models.population import PopulationSpecification
from infrastructure.population.local_engine import LocalEngine
from infrastructure.population.snapshots import Snapshots
from tests.population.endings import MINDS, EndedHereError, Ending, command, ended, ticks_in
from tests.population.runs import Listener, resumed, run_in
from tests.population.towns import specification, ticked, town


@pytest.mark.parametrize("killed_at", [3, 20, 21, 39])
async def test_a_population_ended_at_any_tick_comes_to_the_same_end(tmp_path: Path, killed_at: int) -> None:
    spec = specification(ticks=40, snapshot_ticks=10)
    whole = await run_in(tmp_path / "whole", spec)
    with pytest.raises(EndedHereError):
        await run_in(tmp_path / "cut", spec, wrap=lambda engine: Ending(engine, at=killed_at, by=ended))

    again = await resumed(tmp_path / "cut")

    assert again.result["state_hash"] == whole.result["state_hash"]
    assert again.result["messages_routed"] == whole.result["messages_routed"]
    assert again.result["opinions"] == whole.result["opinions"]
    assert ticks_in(tmp_path / "cut") == list(range(1, 41))


async def test_a_line_that_a_kill_cut_short_is_written_anew(tmp_path: Path) -> None:
    spec = specification(ticks=12, snapshot_ticks=5)
    with pytest.raises(EndedHereError):
        await run_in(tmp_path, spec, wrap=lambda engine: Ending(engine, at=9, by=ended))
    for name in ("ticks.jsonl", "events.jsonl"):
        with (tmp_path / name).open("a") as file:
            file.write('{"tick": 9, "ti')

    await resumed(tmp_path)

    assert ticks_in(tmp_path) == list(range(1, 13))


async def test_a_repeated_tick_that_comes_out_otherwise_is_not_taken(tmp_path: Path) -> None:
    spec = specification(ticks=20, snapshot_ticks=5)
    with pytest.raises(EndedHereError):
        await run_in(tmp_path, spec, wrap=lambda engine: Ending(engine, at=9, by=ended))
    about = json.loads((tmp_path / "population.json").read_text())
    about["specification"]["bound"] = 0.5
    (tmp_path / "population.json").write_text(json.dumps(about))

    with pytest.raises(PopulationDivergedError) as caught:
        await resumed(tmp_path)
    assert caught.value.tick == 6


async def test_a_lost_shard_process_is_replaced_from_the_last_snapshot(tmp_path: Path) -> None:
    spec = specification(ticks=20, snapshot_ticks=5, workers="processes")
    whole = await run_in(tmp_path / "whole", spec)
    lost = [1, 2]

    def killed(outcome: TickOutcome) -> TickOutcome:
        if lost:
            raise ShardLostError(worker=lost.pop(), problem="was killed")
        return outcome

    listener = Listener()
    ending = await run_in(
        tmp_path / "cut", spec, observer=listener, wrap=lambda engine: Ending(engine, at=13, by=killed)
    )

    assert ending.result["state_hash"] == whole.result["state_hash"]
    assert ending.result["messages_routed"] == whole.result["messages_routed"]
    assert ticks_in(tmp_path / "cut") == list(range(1, 21))
    assert [note for note, _ in listener.notes].count("population.shard_lost") == 2


def test_a_killed_shard_process_is_noticed_and_leaves_no_other_behind(tmp_path: Path) -> None:
    spec = specification(behaviour=f"{MINDS}:Average", workers="processes", shards=2)
    with town(tmp_path, spec) as engine:
        ticked(engine, 2)
        first, second = engine.processes
        os.kill(first, signal.SIGKILL)
        with pytest.raises(ShardLostError):
            ticked(engine, 1)
    for process in (first, second):
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)


async def test_bytes_that_agents_keep_outlive_a_kill(tmp_path: Path) -> None:
    spec = specification(behaviour=f"{MINDS}:Remembering", ticks=20, snapshot_ticks=6)
    whole = await run_in(tmp_path / "whole", spec)
    with pytest.raises(EndedHereError):
        await run_in(tmp_path / "cut", spec, wrap=lambda engine: Ending(engine, at=15, by=ended))
    assert (await resumed(tmp_path / "cut")).result["state_hash"] == whole.result["state_hash"]


def test_a_process_killed_in_the_middle_of_a_tick_is_resumed_to_the_same_end(tmp_path: Path) -> None:
    words = (
        "--agents=400",
        "--ticks=30",
        "--snapshot-every=10",
        "--kernel=numpy",
        f"--behaviour={MINDS}:Deadly",
        "--json",
    )
    spec = specification(agents=400, behaviour=f"{MINDS}:Deadly")
    with town(tmp_path, spec) as engine:
        ticked(engine, 30)
        whole = engine.state_hash()
    killed = command("population", "run", *words, "--out=cut", folder=tmp_path, DEADLY="17")
    assert killed.returncode == -signal.SIGKILL
    assert ticks_in(tmp_path / "cut") == list(range(1, 17))

    again = command("population", "resume", "cut", "--json", folder=tmp_path)

    assert again.returncode == 0
    assert json.loads(again.stdout)["state_hash"] == whole
    assert ticks_in(tmp_path / "cut") == list(range(1, 31))


def test_sigterm_ends_a_run_that_can_be_resumed_and_leaves_no_process(tmp_path: Path) -> None:
    words = ("--agents=400", "--ticks=1000000", "--kernel=numpy", f"--behaviour={MINDS}:Interrupted", "--json")
    ended = command("population", "run", *words, "--out=cut", folder=tmp_path, INTERRUPTED="1")

    assert ended.returncode == 128 + signal.SIGTERM
    counted = json.loads(ended.stdout)
    assert counted["ticks"] >= 7
    assert ticks_in(tmp_path / "cut") == list(range(1, counted["ticks"] + 1))
    assert Snapshots(tmp_path / "cut" / "snapshots").ticks()[-1] == counted["ticks"]


def test_an_engine_takes_over_a_snapshot_of_all_columns(tmp_path: Path) -> None:
    spec: PopulationSpecification = specification()
    with town(tmp_path, spec) as engine:
        ticked(engine, 3)
        engine.slab.retire(np.arange(40, dtype=np.uint32))
        engine.slab.spawn(10, tick=3, kind=2)
        engine.refresh()
        engine.save(3)
        engine.settle()
        ticked(engine, 2)
        expected = engine.state_hash()
    again = LocalEngine(spec, snapshots=Snapshots(tmp_path / "snapshots"), tick=3)
    try:
        ticked(again, 2)
        assert again.state_hash() == expected
        assert int(again.columns.type[:40].sum()) == 20
    finally:
        again.close()


@pytest.mark.parametrize("workers", ["threads", "processes"])
def test_sigterm_before_the_first_tick_ends_in_order_and_leaves_nothing(tmp_path: Path, workers: str) -> None:
    words = ("--agents=400", "--ticks=1000000", "--shards=2", "--kernel=numpy", f"--workers={workers}", "--json")

    ended = command(
        *("population", "run", *words, f"--behaviour={MINDS}:Eager", "--out=cut"),
        folder=tmp_path,
        EAGER=str(tmp_path / "eager"),
    )

    # A process that it left behind would still have its standard output, and nobody would have come back from waiting.
    assert ended.returncode == 128 + signal.SIGTERM, ended.stderr
    counted = json.loads(ended.stdout)
    assert counted["ticks"] <= 1
    assert len(counted["state_hash"]) == 64
    assert ticks_in(tmp_path / "cut") == list(range(1, counted["ticks"] + 1))
    assert list(Path("/dev/shm").glob("conclave-population*")) == []  # noqa: S108 - where shared memory has its names


async def test_what_was_sampled_outlives_a_kill_and_is_sampled_once(tmp_path: Path) -> None:
    spec = specification(ticks=40, snapshot_ticks=10)
    with pytest.raises(EndedHereError):
        await run_in(tmp_path, spec, wrap=lambda engine: Ending(engine, at=33, by=ended))
    path = tmp_path / "samples.jsonl"
    before = [json.loads(line) for line in path.read_text().splitlines()]
    # As it would have been left had a sample been taken after the last snapshot, and another one been cut short.
    forgotten = {**before[0], "tick": 33, "resident_bytes": 123}
    path.write_text("".join(json.dumps(one) + "\n" for one in [*before[:3], forgotten]) + '{"tick": 34, "hist')

    await resumed(tmp_path)

    after = [json.loads(line) for line in path.read_text().splitlines()]
    kept = [sample for sample in before[:3] if sample["tick"] <= 30]
    assert 123 not in {sample["resident_bytes"] for sample in after}
    assert after[: len(kept)] == kept
    assert before[0]["tick"] == 0
    assert after[-1]["tick"] == 40
    found = [sample["tick"] for sample in after]
    assert found == sorted(set(found))
