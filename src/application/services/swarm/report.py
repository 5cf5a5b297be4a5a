"""The document of a swarm: what `metrics.json` holds and `--json` prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from application.services.swarm.coordinator import Trouble
from application.services.swarm.figures import split_p_value
from application.services.swarm.task import TaskTerms
from domain.models.deliberation import DeliberationStatus
from domain.models.message import Payload
from domain.models.swarm import COIN_FLIP, HEADS, ROLES, TAILS, SwarmPlan

__all__ = ["Findings", "report", "status_of", "whole"]

_LISTED = 1_000
_HALF = 2


@dataclass(slots=True)
class Findings:
    """What was found out about one swarm, in the order in which it becomes known."""

    phases_ms: dict[str, float] = field(default_factory=dict)
    handed_over: int = 0
    memory: Mapping[str, Payload] = field(default_factory=dict)
    safety: Mapping[str, Payload] = field(default_factory=dict)
    observer: Mapping[str, Payload] = field(default_factory=dict)
    vetoes: list[dict[str, Payload]] = field(default_factory=list)
    troubles: Mapping[int, Trouble] = field(default_factory=dict)
    missing: Sequence[str] = ()
    retried: int = 0
    gone: Sequence[str] = ()
    # Those that were started and had not become ready when the agents began.
    late: Sequence[str] = ()
    # What the swarm broke by, None where nothing did.
    failure: dict[str, Payload] | None = None
    instances: Mapping[str, Mapping[str, Payload]] = field(default_factory=dict)
    ended_by: str | None = None
    backup_bytes: int = 0
    messages: int = 0
    transport_bytes: int = 0
    queue_max: int = 0
    cpu_s: float = 0.0
    cores: int = 1
    peak_rss_bytes: int = 0
    extra: Mapping[str, Payload] = field(default_factory=dict)


def status_of(plan: SwarmPlan, findings: Findings) -> DeliberationStatus:
    """Completed when nothing was vetoed and at least half of the agents were counted."""
    if findings.ended_by in {DeliberationStatus.CANCELLED.value, DeliberationStatus.HALTED.value}:
        return DeliberationStatus(findings.ended_by)
    sound = not findings.vetoes and findings.ended_by is None
    enough = whole(findings.memory.get("received")) * _HALF >= plan.agents
    return DeliberationStatus.COMPLETED if sound and enough else DeliberationStatus.FAILED


def report(plan: SwarmPlan, terms: TaskTerms, findings: Findings, *, place: str) -> dict[str, Payload]:
    """The document of contract section 7, with what else there is to say."""
    memory = findings.memory
    received = whole(memory.get("received"))
    sums = memory.get("sums")
    counts = sums if isinstance(sums, dict) else {}
    is_coin = terms.name == COIN_FLIP
    heads, tails = whole(counts.get(HEADS)), whole(counts.get(TAILS))
    wall_ms = sum(findings.phases_ms.get(phase, 0.0) for phase in ("flips", "aggregate", "backup"))
    missing = list(findings.missing)
    lost = set(missing)
    ordered = [findings.troubles[number] for number in sorted(findings.troubles)]
    return {
        "session": plan.session,
        "status": status_of(plan, findings).value,
        "task": plan.task,
        "transport": plan.transport,
        "agents": plan.agents,
        "roles": [*ROLES],
        "flips": plan.agents,
        "received": received,
        "lost": plan.agents - received,
        "missing": [*missing],
        "duplicates": whole(memory.get("duplicates")),
        "heads": heads if is_coin else None,
        "tails": tails if is_coin else None,
        "batches": len(plan.batches),
        "batch_size": plan.batch_size,
        "retried_batches": findings.retried,
        "handoffs": findings.handed_over,
        "parallelism": whole(findings.observer.get("most_in_flight")),
        "success_rate": received / plan.agents,
        "wall_ms": round(wall_ms, 3),
        "phases_ms": {phase: round(took, 3) for phase, took in findings.phases_ms.items()},
        "latency_us": memory.get("latency_us") or {},
        "latency_histogram": memory.get("latency_histogram") or [],
        "messages": findings.messages,
        "messages_per_second": round(findings.messages / wall_ms * 1000, 1) if wall_ms else 0.0,
        "cpu_fraction": round(findings.cpu_s * 1000 / wall_ms / findings.cores, 4) if wall_ms else 0.0,
        "transport_bytes": findings.transport_bytes,
        "backup_bytes": findings.backup_bytes,
        "split_p_value": split_p_value(heads, tails) if is_coin else None,
        "queue_max": findings.queue_max,
        "peak_rss_bytes": findings.peak_rss_bytes,
        "seed": plan.seed,
        "instances": 1 + len(findings.instances),
        "joined": {name: {**facts} for name, facts in findings.instances.items()},
        "gone": [*findings.gone],
        "failures": [trouble.document(counted=trouble.agent_id not in lost) for trouble in ordered[:_LISTED]],
        "failures_omitted": max(0, len(ordered) - _LISTED),
        "vetoes": [{**veto} for veto in findings.vetoes],
        "failure": findings.failure,
        "session_dir": place,
        **findings.extra,
    }


def whole(value: Payload) -> int:
    """A count out of a reply; 0 where there is none."""
    return value if isinstance(value, int) else 0
