"""Populations whose states lie in tiers: the same states whatever keeps them, and what a report says of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from domain.errors.population import InvalidPopulationError
from infrastructure.population.attachment import Attachment
from infrastructure.population.columns import on_grid
from infrastructure.population.local_engine import LocalEngine
from infrastructure.population.tiers.popularity import Popularity
from infrastructure.population.tiers.records import HEAD
from infrastructure.population.tiers.state_tiers import StateTiers
from tests.command_line import Ran, commands
from tests.population.runs import run_in
from tests.population.towns import specification, ticked, town

AGENTS = 3_000


def _tiers(engine: LocalEngine) -> StateTiers:
    (found,) = [one for one in engine._attached if one.name == "tiers"]
    attached: Attachment = found
    assert isinstance(attached, StateTiers)
    return attached


def _hash_after(folder: Path, **given: Any) -> str:
    with town(folder, specification(**{"agents": AGENTS, "tiers": True, **given})) as engine:
        ticked(engine, 6)
        return engine.state_hash()


def test_where_states_lie_does_not_matter(tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONCLAVE_REDIS_URL", redis_url)
    found = {
        _hash_after(tmp_path, **given)
        for given in (
            {},
            {"shards": 3, "workers": "processes"},
            {"warm": "redis"},
            {"cold": "lmdb"},
            {"hot_percent": 1, "warm_percent": 1},
            {"hot_percent": 60, "warm_percent": 30},
        )
    }
    assert len(found) == 1


def test_the_states_belong_to_what_is_hashed(tmp_path: Path) -> None:
    with town(tmp_path, specification(agents=AGENTS, tiers=True)) as engine:
        ticked(engine, 3)
        before = engine.state_hash()
        states = _tiers(engine).states
        row = int(np.flatnonzero(states.version)[0])
        record = states.read(row)
        states.write(row, record.state[:-1] + b"\x01", expected=record.version, tick=3)
        assert engine.state_hash() != before


def test_opinions_do_not_depend_on_tiers(tmp_path: Path) -> None:
    sums = []
    for tiers in (False, True):
        with town(tmp_path, specification(agents=AGENTS, tiers=tiers)) as engine:
            sums.append([outcome.opinion_sum for outcome in ticked(engine, 5)])
    assert sums[0] == sums[1]


def test_the_column_of_states_takes_no_memory_beside_the_tiers(tmp_path: Path) -> None:
    with town(tmp_path, specification(agents=AGENTS, tiers=True, state_bytes=4_096)) as engine:
        assert engine.columns.state.nbytes == 0


def test_each_state_tells_what_its_agent_thought_whenever_it_was_drawn(tmp_path: Path) -> None:
    spec = specification(agents=500, tiers=True, seed=6, hot_percent=2, warm_percent=3)
    popularity = Popularity(agents=500, seed=6)
    expected: dict[int, list[int]] = {}
    history: dict[int, list[int]] = {}
    with town(tmp_path, spec) as engine:
        for tick in range(1, 61):
            ticked(engine, 1)
            opinions = on_grid(engine.columns.opinion[tick % 2])
            rows, visits = np.unique(popularity.rows(popularity.ranks(tick, 5)), return_counts=True)
            for row, count in zip(rows.tolist(), visits.tolist(), strict=True):
                _, writes, visited, _, _, total = expected.get(row, [row, 0, 0, 0, 0, 0])
                opinion = int(opinions[row])
                expected[row] = [row, writes + 1, visited + count, tick, opinion, total + opinion]
                history.setdefault(row, []).append(opinion)
        states = _tiers(engine).states
        found = {}
        for row in np.flatnonzero(states.version).tolist():
            record = states.read(row)
            words = np.frombuffer(record.state, np.int64)
            assert record.version == words[1]
            found[row] = words[:HEAD].tolist()
            assert sorted(words[HEAD:][words[HEAD:] > 0].tolist()) == sorted(history[row][-26:])
    assert found == expected
    assert max(len(one) for one in history.values()) > 26


def test_who_has_left_is_not_visited_and_who_comes_begins_anew(tmp_path: Path) -> None:
    spec = specification(agents=300, tiers=True, seed=2)
    popular = int(Popularity(agents=300, seed=2).rows(np.zeros(1, np.int64))[0])
    with town(tmp_path, spec) as engine:
        ticked(engine, 8)
        states = _tiers(engine).states
        known = states.read(popular)
        assert known.version > 3
        engine.slab.retire(np.array([popular], np.uint32))
        engine.refresh()
        ticked(engine, 5)
        assert states.read(popular) == known

        engine.slab.spawn(1, tick=13)
        engine.refresh()
        ticked(engine, 8)
        record = states.read(popular)
        words = np.frombuffer(record.state, np.int64)
        assert record.version > known.version
        assert words[0] == 300
        assert np.count_nonzero(words[HEAD:]) == record.version - known.version


async def test_a_report_says_how_fast_states_are_reached_and_how_many_are_hot(tmp_path: Path) -> None:
    report = (await run_in(tmp_path, specification(agents=20_000, ticks=40, tiers=True))).result
    assert report == json.loads((tmp_path / "report.json").read_text())
    access: Any = report["state_access_us"]
    for tier in ("hot", "warm", "cold"):
        assert 0 < access[tier]["p50"] <= access[tier]["p99"]
    assert access["hot"]["p50"] < access["cold"]["p50"]
    rates: Any = report["hot_hit_rate"]
    assert 0.83 < rates["zipf_1.2"] < 0.96
    assert rates["uniform"] == pytest.approx(0.1, abs=0.01)
    tiers: Any = report["tiers"]
    assert (tiers["hot_agents"], tiers["warm_agents"], tiers["warm"], tiers["cold"]) == (2_000, 4_000, "lz4", "sqlite")
    assert tiers["visits"] == sum(tiers["visits_by_tier"].values()) == 40 * 200
    assert tiers["written_agents"] <= tiers["persisted"] <= tiers["visits"]
    assert 0 < tiers["persist_ms"]["p50"] <= tiers["persist_ms"]["p99"]
    assert tiers["cold_bytes"] > tiers["written_agents"] * 256


async def test_without_tiers_nothing_is_said_of_them(tmp_path: Path) -> None:
    report = (await run_in(tmp_path, specification())).result
    assert "tiers" not in report
    assert report["hot_hit_rate"] == {"zipf_1.2": None, "uniform": None}
    assert not [path for path in os.listdir(tmp_path) if path.startswith("states")]  # noqa: PTH208 - in a loop


@pytest.mark.parametrize("agents", [1, 2, 11, 99])
def test_a_handful_of_agents_has_tiers_too(tmp_path: Path, agents: int) -> None:
    with town(tmp_path, specification(agents=agents, graph="mixed", tiers=True)) as engine:
        ticked(engine, 30)
        access = engine.measures().access
        assert access.hot_hits_zipf is not None
        assert int(_tiers(engine).states.version.sum()) == 30


@pytest.fixture
def run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Ran]]:
    """Runs a population by the command line."""
    monkeypatch.setenv("CONCLAVE_DATA_DIR", str(tmp_path / "data"))
    with commands(capsys) as execute:
        yield lambda *words: execute("population", "run", f"--out={tmp_path / 'town'}", "--kernel=numpy", *words)


def test_the_commands_take_tiers_and_report_them(run: Callable[..., Ran]) -> None:
    ran = run("--agents=2000", "--ticks=5", "--tiers", "--cold=lmdb", "--hot-percent=5", "--json")
    assert ran.code == 0, ran.stderr
    report = ran.document
    assert (report["tiers"]["hot_agents"], report["tiers"]["cold"]) == (100, "lmdb")
    assert report["hot_hit_rate"]["zipf_1.2"] > 0.5


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--warm=bath",), 2, "--warm must be one of lz4, redis"),
        (("--cold=fridge",), 2, "--cold must be one of sqlite, lmdb"),
        (("--hot-percent=0",), 2, "--hot-percent"),
        (("--hot-percent=60", "--warm-percent=40"), 2, "leave nothing for the cold tier"),
        (("--tiers", "--behaviour=minds:Mine"), 2, "--tiers cannot be had with a behaviour of your own"),
        (("--tiers", "--engine=torch"), 2, "--tiers needs the engine 'local'"),
        (("--tiers", "--warm=redis"), 2, "CONCLAVE_REDIS_URL"),
        (("--tiers", "--agents=10000000", "--state-bytes=16384"), 2, "agents fit"),
    ],
)
def test_what_cannot_be_had_ends_with_one_line_and_its_exit_code(
    run: Callable[..., Ran], words: tuple[str, ...], code: int, said: str
) -> None:
    ran = run("--agents=100", "--ticks=1", *words)
    assert (ran.code, said in " ".join(ran.stderr.split())) == (code, True), ran.stderr
    assert "Traceback" not in ran.stderr


def test_a_redis_that_is_away_ends_a_run_before_its_first_tick_with_exit_code_4(
    run: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONCLAVE_REDIS_URL", "redis://:secret@127.0.0.1:1/0")
    ran = run("--agents=100", "--ticks=1", "--tiers", "--warm=redis")
    assert ran.code == 4
    assert "Redis of the warm tier" in ran.stderr
    assert "secret" not in ran.stderr
    assert "Traceback" not in ran.stderr


def test_a_cold_tier_whose_package_is_missing_is_named_with_its_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "lmdb", None)
    with pytest.raises(InvalidPopulationError) as caught, town(tmp_path, specification(tiers=True, cold="lmdb")):
        pass
    assert caught.value.problems[0].pointer == "/cold"
    assert "extra" in caught.value.problems[0].message


def test_lmdb_and_redis_are_not_imported_where_nobody_asks_for_them(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from tests.population.towns import specification, ticked, town\n"
        f"with town(Path({str(tmp_path)!r}), specification(tiers=True)) as engine: ticked(engine, 2)\n"
        "print([name for name in ('lmdb', 'redis') if name in sys.modules])"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONPATH": ":".join(sys.path)}, check=True
    )
    assert ended.stdout.strip() == "[]"
