"""Populations with tiers that were ended in their middle: the same end, nothing lost, and nothing damaged taken for whole."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from api.cli.exit_codes import ExitCode, code_of_error
from application.ports.population_engine import TickOutcome
from domain.errors.dependency import DependencyUnavailableError
from domain.errors.population import DamagedRecordError, PopulationFolderError, ShardLostError
from domain.models.population import PopulationSpecification
from infrastructure.population.tiers.sqlite_log import SqliteLog
from tests.population.endings import EndedHereError, Ending, command, ended, ticks_in
from tests.population.runs import Listener, resumed, run_in
from tests.population.towns import specification
from tests.servers.redis import RedisServer


def _spec(**given: Any) -> PopulationSpecification:
    return specification(
        **{
            "agents": 2_000,
            "ticks": 40,
            "snapshot_ticks": 10,
            "tiers": True,
            "hot_percent": 1,
            "warm_percent": 1,
            **given,
        }
    )


async def _cut(out: Path, spec: PopulationSpecification, *, at: int) -> None:
    with pytest.raises(EndedHereError):
        await run_in(out, spec, wrap=lambda engine: Ending(engine, at=at, by=ended))


@pytest.mark.parametrize("cold", ["sqlite", "lmdb"])
@pytest.mark.parametrize("at", [3, 20, 21, 39])
async def test_a_population_ended_at_any_tick_comes_to_the_same_states(tmp_path: Path, at: int, cold: str) -> None:
    spec = _spec(cold=cold)
    whole = await run_in(tmp_path / "whole", spec)
    await _cut(tmp_path / "cut", spec, at=at)
    again = await resumed(tmp_path / "cut")
    assert again.result["state_hash"] == whole.result["state_hash"]
    assert ticks_in(tmp_path / "cut") == list(range(1, 41))


@pytest.mark.parametrize("cold", ["sqlite", "lmdb"])
async def test_a_killed_process_is_resumed_to_the_same_states(tmp_path: Path, cold: str) -> None:
    spec = _spec(cold=cold, agents=5_000, state_bytes=1_024)
    whole = await run_in(tmp_path / "whole", spec)
    task = {
        "folder": str(tmp_path / "cut"),
        "cache": str(tmp_path / "cache"),
        "specification": spec.document(),
        "kill_at": 27,
    }
    killed = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "infrastructure.population.bench_process", json.dumps(task)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert ticks_in(tmp_path / "cut")[-1] < 27

    again = await asyncio.to_thread(command, "population", "resume", "cut", "--json", folder=tmp_path)

    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["state_hash"] == whole.result["state_hash"]
    assert ticks_in(tmp_path / "cut") == list(range(1, 41))


async def test_an_older_snapshot_and_the_very_beginning_can_be_gone_back_to(tmp_path: Path) -> None:
    spec = _spec(ticks=48)
    whole = await run_in(tmp_path / "whole", spec)
    for tick in (20, 30, 0):
        out = tmp_path / f"from-{tick}"
        await _cut(out, spec, at=46)
        again = await resumed(out, from_tick=tick)
        assert again.result["state_hash"] == whole.result["state_hash"]


async def test_a_population_may_be_ended_and_resumed_again_and_again(tmp_path: Path) -> None:
    spec = _spec()
    whole = await run_in(tmp_path / "whole", spec)
    out = tmp_path / "cut"
    await _cut(out, spec, at=13)
    for at in (18, 25, 33):
        with pytest.raises(EndedHereError):
            await resumed(out, wrap=partial(Ending, at=at, by=ended))
    assert (await resumed(out)).result["state_hash"] == whole.result["state_hash"]


async def test_a_lost_shard_process_is_replaced_with_the_states_as_they_were(tmp_path: Path) -> None:
    spec = _spec(workers="processes")
    whole = await run_in(tmp_path / "whole", spec)
    lost = [1]

    def killed(outcome: TickOutcome) -> TickOutcome:
        if lost:
            raise ShardLostError(worker=lost.pop(), problem="was killed")
        return outcome

    listener = Listener()
    ending = await run_in(
        tmp_path / "cut", spec, observer=listener, wrap=lambda engine: Ending(engine, at=25, by=killed)
    )
    assert ending.result["state_hash"] == whole.result["state_hash"]
    assert [note for note, _ in listener.notes].count("population.shard_lost") == 1


def _spoiled(out: Path, *, tick: int) -> None:
    """Change a byte in a record of that tick."""
    database = sqlite3.connect(out / "states.sqlite", isolation_level=None)
    number, body = database.execute(
        "SELECT number, body FROM record WHERE tick = ? ORDER BY number DESC", (tick,)
    ).fetchone()
    database.execute("UPDATE record SET body = ? WHERE number = ?", (body[:-1] + bytes([body[-1] ^ 1]), number))
    database.close()


async def test_a_damaged_state_is_refused_and_the_last_good_snapshot_offered(tmp_path: Path) -> None:
    spec = _spec()
    whole = await run_in(tmp_path / "whole", spec)
    out = tmp_path / "cut"
    await _cut(out, spec, at=38)
    _spoiled(out, tick=30)
    with pytest.raises(DamagedRecordError) as caught:
        await resumed(out)
    assert caught.value.last_good_tick == 20
    again = await resumed(out, from_tick=20)
    assert again.result["state_hash"] == whole.result["state_hash"]


@pytest.mark.parametrize("how", ["gone", "another file", "another population"])
async def test_a_cold_tier_that_is_not_that_of_the_population_is_refused(tmp_path: Path, how: str) -> None:
    spec = _spec()
    whole = await run_in(tmp_path / "whole", spec)
    out = tmp_path / "cut"
    await _cut(out, spec, at=27)
    file = out / "states.sqlite"
    if how == "gone":
        file.unlink()
    elif how == "another file":
        file.write_bytes(b"a diary" * 10_000)
    else:
        await _cut(tmp_path / "other", _spec(seed=77), at=27)
        file.write_bytes((tmp_path / "other" / "states.sqlite").read_bytes())
    with pytest.raises(DamagedRecordError) as caught:
        await resumed(out)
    assert caught.value.last_good_tick == 0
    again = await resumed(out, from_tick=0)
    assert again.result["state_hash"] == whole.result["state_hash"]


async def test_a_full_disk_ends_the_run_and_it_goes_on_once_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = _spec(state_bytes=2_048)
    whole = await run_in(tmp_path / "whole", spec)
    connected = SqliteLog._connected

    def full(self: SqliteLog, *, existing: bool) -> sqlite3.Connection:
        found = connected(self, existing=existing)
        found.execute("PRAGMA max_page_count = 40")
        return found

    with monkeypatch.context() as patch:
        patch.setattr(SqliteLog, "_connected", full)
        with pytest.raises(PopulationFolderError, match="full"):
            await run_in(tmp_path / "cut", spec)
    assert ticks_in(tmp_path / "cut")[-1] >= 10

    again = await resumed(tmp_path / "cut")
    assert again.result["state_hash"] == whole.result["state_hash"]


async def test_a_redis_that_dies_ends_the_run_and_nothing_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = _spec(warm="redis")
    with RedisServer() as server:
        monkeypatch.setenv("CONCLAVE_REDIS_URL", server.url())
        whole = await run_in(tmp_path / "whole", spec)

        def kill(outcome: TickOutcome) -> TickOutcome:
            server.kill()
            return outcome

        with pytest.raises(DependencyUnavailableError, match="Redis of the warm tier") as caught:
            await run_in(tmp_path / "cut", spec, wrap=lambda engine: Ending(engine, at=23, by=kill))
        assert code_of_error(caught.value) is ExitCode.DEPENDENCY_AWAY
        assert ticks_in(tmp_path / "cut")[-1] >= 23
        with pytest.raises(DependencyUnavailableError):
            await resumed(tmp_path / "cut")

        server.start()
        again = await resumed(tmp_path / "cut")
        assert again.result["state_hash"] == whole.result["state_hash"]
        # What ended well left nothing there; what was killed is gone after a day.
        assert server.command("DBSIZE") in {":0", ":1"}
        assert whole.result["state_hash"] == (await run_in(tmp_path / "plain", _spec())).result["state_hash"]
