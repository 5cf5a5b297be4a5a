"""The report of a population, put together from what its ticks came to and what its engine measured."""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping, Sequence
from typing import Any

from application.ports.population_engine import EngineFacts, EngineMeasures, OpinionSummary, TickOutcome
from application.services.population.intervals import replicates_document
from application.services.population.subgroups import decision_document, groups_in, subgroups_of
from domain.models.population import PopulationSpecification
from domain.models.run import JsonValue

__all__ = ["TickBook", "report_of", "with_replicates"]


class TickBook:
    """What the ticks of one run came to; after a resume, those since. Times are in seconds."""

    def __init__(self, *, messages_before: int = 0) -> None:
        self._times = array("d")
        self._coordination = array("d")
        self._before = messages_before
        self.sent = 0
        self.delivered = 0
        self.lost = 0

    def add(self, outcome: TickOutcome, tick_s: float) -> None:
        """One more tick."""
        self._times.append(tick_s)
        self._coordination.append(outcome.coordination_s)
        self.sent += outcome.sent
        self.delivered += outcome.delivered
        self.lost += outcome.sent - outcome.delivered - outcome.expired - outcome.refused

    @property
    def messages_routed(self) -> int:
        """Of the whole run."""
        return self._before + self.delivered

    @property
    def messages_per_second(self) -> float:
        """Of the ticks counted here, over the sum of their times."""
        total = math.fsum(self._times)
        return self.delivered / total if total else 0.0

    @property
    def coordination_ms(self) -> float | None:
        """The mean from the root's question to its answer."""
        return math.fsum(self._coordination) / len(self._coordination) * 1e3 if self._coordination else None

    @property
    def mean_tick_ms(self) -> float | None:
        """None before the first tick."""
        return math.fsum(self._times) / len(self._times) * 1e3 if self._times else None

    def tick_ms(self) -> dict[str, JsonValue]:
        """The mean, percentiles (nearest rank) and the longest, in ms; nulls before the first tick."""
        ordered = sorted(self._times)
        if not ordered:
            return dict.fromkeys(("mean", "p50", "p95", "p99", "max"))
        ranks = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "max": 1.0}
        found: dict[str, JsonValue] = {"mean": self.mean_tick_ms}
        for name, share in ranks.items():
            found[name] = ordered[max(0, math.ceil(share * len(ordered)) - 1)] * 1e3
        return found


def report_of(
    spec: PopulationSpecification,
    *,
    ticks: int,
    book: TickBook,
    facts: EngineFacts,
    measures: EngineMeasures,
    cpu_fraction: float,
    state_hash: str | None,
    initial: Mapping[str, Any],
    final: OpinionSummary,
) -> dict[str, JsonValue]:
    """The document of contract section 7, with `simulated` and a few fields more. What was not measured is null.

    What is attached to the population stands under its own name.
    """
    access = measures.access
    ended = final.document()
    subgroups = subgroups_of(spec.archetypes, initial, ended)
    report: dict[str, JsonValue] = {
        "simulated": True,
        "agents": spec.agents,
        "shards": facts.shards,
        "ticks": ticks,
        "engine": facts.engine,
        "kernel": facts.kernel,
        "seed": spec.seed,
        "tick_ms": book.tick_ms(),
        "messages_routed": book.messages_routed,
        "messages_lost": book.lost,
        "messages_per_second": book.messages_per_second,
        "spawn_us_per_agent": facts.spawn_us_per_agent,
        "coordination_ms": book.coordination_ms,
        "delivery_us": {"same_shard": measures.same_shard.document(), "cross_shard": measures.cross_shard.document()},
        "state_access_us": {
            "hot": access.hot.document(),
            "warm": access.warm.document(),
            "cold": access.cold.document(),
        },
        "hot_hit_rate": {"zipf_1.2": access.hot_hits_zipf, "uniform": access.hot_hits_uniform},
        "peak_rss_bytes": measures.peak_rss_bytes,
        "cpu_fraction": cpu_fraction,
        "state_hash": state_hash,
        "opinions": {"initial": dict(initial), "final": ended},
        "groups": {"initial": groups_in(initial["histogram"]), "final": groups_in(final.histogram)},
        "subgroups": list(subgroups),
        "deliberation_id": spec.deliberation,
        "decision": decision_document(spec.decision, subgroups, final.mean),
        "replicates": None,
        "behaviour": spec.behaviour,
        "graph": "edge file" if spec.edge_file else spec.graph,
        "state_bytes": spec.state_bytes,
        "migrated_agents": measures.migrated_agents,
        "workers": {"kind": facts.workers, "count": facts.worker_count},
        **measures.attached,
    }
    return with_replicates(report, [report] if ticks >= spec.ticks else [], planned=spec.seeds)


def with_replicates(
    report: Mapping[str, JsonValue], reports: Sequence[Mapping[str, JsonValue]], *, planned: int
) -> dict[str, JsonValue]:
    """That report with the intervals over `reports`, of which it is the first where it has ended; none where one seed is planned."""
    return {**report, "replicates": replicates_document(reports, planned=planned) if planned > 1 else None}
