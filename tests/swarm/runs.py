"""Runs a swarm as the command line does, and reads what it left."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from api.bootstrap.swarm import Place, run_swarm
from application.services.stop_signal import StopSignal
from application.services.swarm.coordinator import Liveness
from application.services.swarm.task import SwarmTask
from domain.models.message import BusStats
from domain.models.population_counts import PopulationCounts
from domain.models.run import JsonValue, RunEnding
from domain.models.swarm import checked_arguments
from infrastructure.settings import load_settings

__all__ = ["Notes", "left_by", "swarm"]


@dataclass
class Notes:
    """An observer that remembers, and calls `on_note` in passing."""

    on_note: Callable[[str, Mapping[str, JsonValue]], None] = lambda _type, _data: None
    events: list[tuple[str, Mapping[str, JsonValue]]] = field(default_factory=list)
    stats: list[BusStats] = field(default_factory=list)

    def note(self, type: str, data: Mapping[str, JsonValue]) -> None:  # noqa: A002 - named as the field of an event
        self.events.append((type, data))
        self.on_note(type, data)

    def count(self, stats: BusStats) -> None:
        self.stats.append(stats)

    def tally(self, counts: PopulationCounts) -> None:
        raise AssertionError("no population is run here")


async def swarm(
    folder: Path,
    *,
    redis_url: str | None = None,
    observer: Notes | None = None,
    stop: StopSignal | None = None,
    session: str | None = None,
    items: Path | None = None,
    timeout_s: float | None = None,
    announce: Callable[[Place], None] | None = None,
    bus_limits: Mapping[str, Any] | None = None,
    liveness: Liveness | None = None,
    wrap_task: Callable[[SwarmTask], SwarmTask] | None = None,
    **arguments: Any,
) -> RunEnding:
    """How a swarm with these arguments ended; its documents are below `folder`/logs."""
    if timeout_s is not None:
        arguments["timeout"] = timeout_s
    checked, problems = checked_arguments(arguments, takes_functions=True)
    assert problems == []
    environment = {"CONCLAVE_DATA_DIR": str(folder / "data"), "CONCLAVE_ORCHESTRATOR": "simulated"}
    if redis_url is not None:
        environment["CONCLAVE_REDIS_URL"] = redis_url
    settings = load_settings(environment, env_file=None)
    return await run_swarm(
        settings,
        checked,
        observer or Notes(),
        stop or StopSignal(),
        session=session,
        out=folder / "logs",
        items=items,
        announce=announce,
        bus_limits=bus_limits,
        liveness=liveness,
        wrap_task=wrap_task,
    )


@dataclass(frozen=True)
class Left:
    """What lies in the folder of a session."""

    metrics: Mapping[str, Any]
    vault: Mapping[str, Any]
    log: str
    traces: list[Mapping[str, Any]]


def left_by(ending: RunEnding) -> Left:
    """The documents of a swarm, as anybody finds them."""
    place = Path(str(ending.result["session_dir"]))
    name = "coin_flips.json" if ending.result["task"] == "coin-flip" else "results.json"
    return Left(
        metrics=json.loads((place / "metrics.json").read_text()),
        vault=json.loads((place / "vault" / name).read_text()),
        log=(place / "session.log").read_text(),
        traces=[json.loads(line) for line in (place / "traces.jsonl").read_text().splitlines()],
    )
