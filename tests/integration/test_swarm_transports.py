"""128 agents on each transport: everyone counted once, and a seed fixes every flip."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from domain.models.deliberation import DeliberationStatus
from domain.models.swarm import ROLES, TRANSPORTS, Coin
from tests.servers.redis import RedisServer
from tests.swarm.runs import Notes, left_by, swarm

SEEDS = range(10)


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """An empty Redis that does not sync every write: durability is not what is looked at here."""
    if not redis_server.running:
        redis_server.start()
    redis_server.flush()
    redis_server.command("CONFIG", "SET", "appendfsync", "no")
    return redis_server.url()


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_ten_seeds_count_128_of_128_and_fix_each_flip(transport: str, tmp_path: Path, redis_url: str) -> None:
    for seed in SEEDS:
        ending = await swarm(tmp_path, transport=transport, seed=seed, redis_url=redis_url)
        assert ending.status is DeliberationStatus.COMPLETED
        left = left_by(ending)
        metrics, flips = left.metrics, left.vault["flips"]
        assert (metrics["received"], metrics["lost"], metrics["duplicates"]) == (128, 0, 0)
        assert metrics["heads"] + metrics["tails"] == 128
        assert len({flip["agent_id"] for flip in flips}) == len(flips) == 128
        assert Counter(flip["result"] for flip in flips) == {"heads": metrics["heads"], "tails": metrics["tails"]}
        expected = [{"agent_id": f"coin-agent-{n}", "result": Coin(seed, n).flip()} for n in range(1, 129)]
        assert flips == expected


async def test_the_documents_are_those_of_the_contract(tmp_path: Path) -> None:
    observer = Notes()
    ending = await swarm(tmp_path, seed=7, session="abc", observer=observer)
    left = left_by(ending)
    metrics = left.metrics
    assert metrics == ending.result
    assert metrics["session_dir"] == str(tmp_path / "logs" / "session_abc")
    assert (metrics["task"], metrics["transport"], metrics["seed"]) == ("coin-flip", "memory", 7)
    assert metrics["roles"] == list(ROLES)
    assert (metrics["agents"], metrics["flips"], metrics["handoffs"], metrics["batches"]) == (128, 128, 128, 32)
    assert (metrics["parallelism"], metrics["success_rate"]) == (128, 1.0)
    assert set(metrics["phases_ms"]) == {"load", "flips", "aggregate", "backup"}
    assert set(metrics["latency_us"]) == {"min", "p50", "p95", "p99", "max", "mean", "std_dev"}
    assert 0 < metrics["latency_us"]["p50"] <= metrics["wall_ms"] * 1000
    for name in ("messages_per_second", "cpu_fraction", "transport_bytes", "queue_max", "peak_rss_bytes"):
        assert metrics[name] > 0, name
    assert 0 < metrics["split_p_value"] <= 1
    vault = tmp_path / "logs" / "session_abc" / "vault" / "coin_flips.json"
    assert metrics["backup_bytes"] == vault.stat().st_size
    assert set(left.vault) == {"flips", "heads", "tails"}
    assert sum("coin-agent-" in line and ("heads" in line or "tails" in line) for line in left.log.splitlines()) == 128
    results = [trace for trace in left.traces if trace["type"] == "coin_result"]
    assert len(results) == 128
    assert {trace["to"] for trace in results} == {"coin_group"}
    assert all(trace["latency_us"] > 0 and trace["batch"] for trace in results)
    assert observer.events[-1][0] == "swarm.ended"
    assert observer.stats[-1].sent >= 128 * 4


async def test_agents_do_not_change_when_their_number_does(tmp_path: Path) -> None:
    few = left_by(await swarm(tmp_path, seed=3, agents=10)).vault["flips"]
    many = left_by(await swarm(tmp_path, seed=3, agents=128)).vault["flips"]
    assert many[:10] == few


async def test_a_thousand_agents_are_counted_as_well(tmp_path: Path) -> None:
    metrics = left_by(await swarm(tmp_path, seed=1, agents=1_024)).metrics
    assert (metrics["received"], metrics["batches"], metrics["lost"]) == (1_024, 256, 0)


async def test_one_agent_is_a_swarm(tmp_path: Path) -> None:
    metrics = left_by(await swarm(tmp_path, agents=1)).metrics
    assert (metrics["received"], metrics["batches"], metrics["split_p_value"]) == (1, 1, 1.0)


async def test_a_seed_that_is_drawn_is_told_and_repeats_the_run(tmp_path: Path) -> None:
    first = left_by(await swarm(tmp_path, agents=64))
    again = left_by(await swarm(tmp_path, agents=64, seed=first.metrics["seed"]))
    assert again.vault == first.vault
