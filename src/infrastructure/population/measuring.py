"""Measures what the table of targets asks for, each population in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from domain.errors.population import PopulationError
from domain.models.population import PopulationSpecification

__all__ = ["Measuring"]

_DEADLINE_S = 3_600
_AFTER = 10
# Ticks of a population that is measured by its size: so many for each agent, within bounds.
_AGENT_TICKS = 60_000_000
_FEWEST_TICKS, _MOST_TICKS = 12, 300


@dataclass(frozen=True, slots=True)
class Measuring:
    """Runs populations with one kernel; what they write goes to a folder that is gone afterwards. `say` hears what goes on."""

    kernel: str
    cache: Path
    say: Callable[[str], None]

    def figures(self, *, ticks: int, kill_at: int) -> dict[str, float | None]:
        """What was measured, by the names of the targets: over `ticks` ticks, and killed after tick `kill_at` (0: not at all)."""
        return {
            **self._million(ticks),
            **self._tiers(ticks),
            **self._inferences(),
            **self._small(ticks),
            **self._middle(ticks),
            **self._resumed(kill_at),
        }

    def grown(self, agents: int) -> dict[str, float]:
        """A population of that size: tick times, messages delivered in M/s, memory in GiB and seconds to spawn it."""
        ticks = max(_FEWEST_TICKS, min(_MOST_TICKS, _AGENT_TICKS // agents))
        report = self._run(f"{agents:,} agents, {ticks} ticks", agents=agents, ticks=ticks)
        took = report["tick_ms"]
        return {
            "median_ms": took["p50"],
            "mean_ms": took["mean"],
            "per_agent_ns": took["p50"] / agents * 1e6,
            "messages": report["messages_per_second"] / 1e6,
            "memory": report["peak_rss_bytes"] / 2**30,
            "spawn_s": report["spawn_us_per_agent"] * agents / 1e6,
        }

    def _million(self, ticks: int) -> dict[str, float | None]:
        report = self._run("1,000,000 agents", agents=1_000_000, ticks=ticks, state_bytes=1_024)
        delivery = report["delivery_us"]
        return {
            "tick_ms": report["tick_ms"]["mean"],
            "messages": report["messages_per_second"] / 1e6,
            "memory": report["peak_rss_bytes"] / 2**30,
            "spawn": report["spawn_us_per_agent"],
            "same_shard": _ms(delivery["same_shard"]["p99"]),
            "cross_shard": _ms(delivery["cross_shard"]["p99"]),
            "coordination": report["coordination_ms"],
        }

    def _tiers(self, ticks: int) -> dict[str, float | None]:
        report = self._run("1,000,000 agents with tiers", agents=1_000_000, ticks=ticks, state_bytes=1_024, tiers=True)
        access, hits = report["state_access_us"], report["hot_hit_rate"]["zipf_1.2"]
        return {
            **{tier: access[tier]["p99"] for tier in ("hot", "warm", "cold")},
            "hot_hits": None if hits is None else hits * 100,
        }

    def _inferences(self) -> dict[str, float | None]:
        from infrastructure.population.inference.measured_inference import inference_figures

        self.say("1,000,000 inferences, no two of them alike")
        return inference_figures()

    def _small(self, ticks: int) -> dict[str, float | None]:
        report = self._run("10,000 agents on one core", agents=10_000, ticks=ticks, shards=1)
        return {
            "small_tick_ms": report["tick_ms"]["mean"],
            "small_memory": report["peak_rss_bytes"] / 1e6,
            "small_delivery": _ms(report["delivery_us"]["same_shard"]["p99"]),
        }

    def _middle(self, ticks: int) -> dict[str, float | None]:
        report = self._run("100,000 agents in 24 shards", agents=100_000, ticks=ticks, shards=24)
        return {"middle_tick_ms": report["tick_ms"]["mean"], "middle_memory": report["peak_rss_bytes"] / 1e6}

    def _resumed(self, kill_at: int) -> dict[str, float | None]:
        if not kill_at:
            return {}
        self.say(f"1,000,000 agents, killed at tick {kill_at:,} and resumed")
        spec = PopulationSpecification(agents=1_000_000, ticks=kill_at + _AFTER, kernel=self.kernel)
        with tempfile.TemporaryDirectory() as folder:
            task = {"folder": folder, "cache": str(self.cache)}
            killed = self._ended({**task, "specification": spec.document(), "kill_at": kill_at})
            if killed.returncode >= 0:
                raise PopulationError(f"the population that was to be killed ended by itself: {killed.stderr[-500:]}")
            return {"resume": _answer(self._ended({**task, "note_at": kill_at}))["back_s"]}

    def _run(self, what: str, **given: Any) -> Mapping[str, Any]:
        self.say(what)
        spec = PopulationSpecification(kernel=self.kernel, **given)
        with tempfile.TemporaryDirectory() as folder:
            task = {"folder": folder, "cache": str(self.cache), "specification": spec.document()}
            return _answer(self._ended(task))

    def _ended(self, task: Mapping[str, Any]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(  # noqa: S603 - this interpreter and a module of ours
            [sys.executable, "-P", "-m", "infrastructure.population.bench_process", json.dumps(task)],
            capture_output=True,
            text=True,
            check=False,
            timeout=_DEADLINE_S,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )


def _answer(ended: subprocess.CompletedProcess[str]) -> Mapping[str, Any]:
    if ended.returncode:
        raise PopulationError(f"a population that was measured ended with {ended.returncode}: {ended.stderr[-500:]}")
    found: Mapping[str, Any] = json.loads(ended.stdout)
    return found


def _ms(microseconds: float | None) -> float | None:
    return None if microseconds is None else microseconds / 1_000
