"""What came of a run, in the few figures that people ask for first; whatever else lies in its result is passed over."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from api.dashboard.run_figures import said
from api.dashboard.run_measures import message_rate, number_at, quantiles
from application.ports.run_series import RunSeries
from domain.models.pantheon import ROW
from domain.models.run import Run, RunKind

__all__ = ["Bar", "Criterion", "Handed", "RunFacts", "facts_of"]

_MEBIBYTE = 1024 * 1024
_MAX_SHOWN = 100
_CRITERIA = {
    "memory_growth": ("Growth of memory", "%"),
    "cycle_variance": ("Variance of cycles", "%"),
    "crashes": ("Crashes that were not wanted", ""),
    "complete_metrics": ("Cycles with complete metrics", ""),
}
_PHASES = ("load", "flips", "aggregate", "backup")
_LATENCIES = ("min", "p50", "p95", "p99", "max", "mean", "std_dev")


@dataclass(frozen=True, slots=True)
class Criterion:
    """One of a soak's criteria; `value` and `limit` in words, `passed` None where it was not judged."""

    name: str
    value: str
    limit: str
    passed: bool


@dataclass(frozen=True, slots=True)
class Bar:
    """A part of a whole: `percent` of it, 0 to 100, and its value in words."""

    name: str
    percent: float
    value: str


@dataclass(frozen=True, slots=True)
class Handed:
    """What one role was handed over all cycles: how often, and the median and the longest latency in microseconds."""

    sender: str
    recipient: str
    count: int
    median_us: float
    longest_us: float


@dataclass(frozen=True, slots=True)
class RunFacts:
    """The figures of a run. Bars are shares of one whole each; `done` of `planned` says how far it is, where that is known."""

    tiles: Sequence[tuple[str, str]] = ()
    verdict: str = ""
    is_good: bool = True
    done: int | None = None
    planned: int | None = None
    unit: str = ""
    criteria: Sequence[Criterion] = ()
    split: Sequence[Bar] = ()
    split_note: str = ""
    phases: Sequence[Bar] = ()
    latencies: Sequence[tuple[str, str]] = ()
    handoffs: Sequence[Handed] = ()
    executed: Sequence[tuple[str, str]] = ()
    rejected: Sequence[tuple[str, str]] = ()

    @property
    def done_percent(self) -> float | None:
        """0 to 100, None where nobody knows."""
        if self.done is None or not self.planned:
            return None
        return min(100.0, 100.0 * self.done / self.planned)


def facts_of(run: Run, series: RunSeries) -> RunFacts:
    """The figures of that run as it stands."""
    made = {
        RunKind.POPULATION: _of_population,
        RunKind.SOAK: _of_soak,
        RunKind.SWARM: _of_swarm,
        RunKind.PANTHEON: _of_pantheon,
    }[run.kind]
    return made(run, run.result or {}, series)


def _of_population(run: Run, result: Mapping[str, Any], series: RunSeries) -> RunFacts:
    p50, p95 = quantiles(run, series, "tick_ms")
    memory, cpu = number_at(result, "peak_rss_bytes"), number_at(result, "cpu_fraction")
    done = _whole(result, "ticks")
    if done is None and series.positions:
        done = int(series.positions[-1])
    tiles = [
        ("Agents", _said_of(run.arguments, "agents")),
        ("Tick, p50", said(p50, "ms")),
        ("Tick, p95", said(p95, "ms")),
        ("Messages a second", said(message_rate(run, series))),
        ("Messages routed", _said_of(result, "messages_routed")),
        ("Messages lost", _said_of(result, "messages_lost")),
        ("Peak memory", said(None if memory is None else memory / _MEBIBYTE, "MiB")),
        ("Processor", said(None if cpu is None else cpu * 100, "%")),
        ("Kernel", _text(result, "kernel")),
    ]
    return RunFacts(_known(tiles), done=done, planned=_whole(run.arguments, "ticks"), unit="ticks")


def _of_soak(run: Run, result: Mapping[str, Any], series: RunSeries) -> RunFacts:
    (p50, p95), rate = quantiles(run, series, "duration_ms"), series.summaries.get("response_percent")
    planned = _whole(result, "cycles_planned")
    duration, interval = number_at(run.arguments, "duration"), number_at(run.arguments, "interval")
    if planned is None and duration and interval:
        planned = max(1, math.floor(duration * 60 / interval + 1e-6))
    done = _whole(result, "cycles_completed")
    if done is None and series.positions:
        done = int(series.positions[-1])
    tiles = [
        ("Agents", _said_of(result or run.arguments, "agents")),
        ("Cycle, p50", said(p50, "ms")),
        ("Cycle, p95", said(p95, "ms")),
        ("Answered", said(rate.mean if rate else None, "%")),
        ("Messages sent", _said_of(result, "messages_sent")),
        ("Lost", _said_of(result, "lost")),
        ("Crashes", _said_of(result, "crashes")),
        ("Kills wanted", _said_of(result, "injected")),
        ("Restarts", _said_of(result, "restarts")),
    ]
    criteria = list(_criteria(result))
    passed = result.get("passed")
    verdict = "" if not isinstance(passed, bool) else "All criteria are met." if passed else "Not all criteria are met."
    return RunFacts(
        _known(tiles), verdict, passed is not False, done=done, planned=planned, unit="cycles", criteria=criteria
    )


def _criteria(result: Mapping[str, Any]) -> list[Criterion]:
    given = result.get("criteria")
    found = []
    for key, (name, unit) in _CRITERIA.items():
        one = given.get(key) if isinstance(given, Mapping) else None
        if isinstance(one, Mapping) and isinstance(one.get("passed"), bool):
            value = number_at(one, "value")
            words = "not judged: fewer than 12 cycles" if value is None else said(value, unit)
            compared = "at least" if key == "complete_metrics" else "at most"
            found.append(Criterion(name, words, f"{compared} {said(number_at(one, 'limit'), unit)}", one["passed"]))
    return found


def _of_swarm(run: Run, result: Mapping[str, Any], _series: RunSeries) -> RunFacts:
    tiles = [
        ("Agents", _said_of(result or run.arguments, "agents")),
        ("Flips", _said_of(result, "flips")),
        ("Received", _said_of(result, "received")),
        ("Lost", _said_of(result, "lost")),
        ("Duplicates", _said_of(result, "duplicates")),
        ("Handoffs", _said_of(result, "handoffs")),
        ("In flight at most", _said_of(result, "parallelism")),
        ("Messages a second", said(number_at(result, "messages_per_second"))),
        ("Whole time", said(number_at(result, "wall_ms"), "ms")),
    ]
    heads, tails = number_at(result, "heads"), number_at(result, "tails")
    split: list[Bar] = []
    if heads is not None and tails is not None and heads + tails > 0:
        whole = heads + tails
        split = [
            Bar(name, 100 * n / whole, f"{n:,.0f} ({100 * n / whole:.1f} %)")
            for name, n in (("heads", heads), ("tails", tails))
        ]
    p_value = number_at(result, "split_p_value")
    phases = {name: number_at(result, "phases_ms", name) for name in _PHASES}
    total = math.fsum(value for value in phases.values() if value is not None)
    latencies = [(name, said(number_at(result, "latency_us", name), "µs")) for name in _LATENCIES]
    return RunFacts(
        _known(tiles),
        split=split,
        split_note="" if p_value is None or not split else _split_words(p_value),
        phases=[
            Bar(name, 100 * value / total if total else 0.0, said(value, "ms"))
            for name, value in phases.items()
            if value is not None
        ],
        latencies=_known(latencies),
    )


def _split_words(p_value: float) -> str:
    usual = "That is what a fair coin does" if p_value >= 0.05 else "A fair coin does that seldom"
    return f"{usual}: a split at least as uneven has a chance of {100 * p_value:.3g} % (p = {p_value:.3g})."


def _of_pantheon(run: Run, result: Mapping[str, Any], series: RunSeries) -> RunFacts:
    status = _text(result, "status")
    verdict = {
        "executed": "The plan was carried out.",
        "rejected": "The validator rejected the plan, and nothing was carried out.",
        "failed": "The plan failed.",
    }.get(status, "")
    done = _whole(result, "cycles")
    if done is None and series.positions:
        done = int(series.positions[-1])
    tiles = [("Transport", _text(run.arguments, "transport"))]
    return RunFacts(
        _known(tiles),
        verdict,
        status == "executed",
        done=done,
        planned=_whole(run.arguments, "cycles"),
        unit="cycles",
        handoffs=_handoffs(result.get("handoffs")),
        executed=_pairs(result.get("executed"), "step", "output"),
        rejected=_pairs(result.get("rejected"), "step", "reason"),
    )


def _handoffs(given: object) -> list[Handed]:
    """By recipient, in the order of the row; a role that was handed nothing is left out."""
    found: dict[tuple[str, str], list[float]] = {}
    for one in given if isinstance(given, list) else ():
        latency = number_at(one, "latency_us") if isinstance(one, Mapping) else None
        if latency is not None:
            found.setdefault((str(one.get("from")), str(one.get("to"))), []).append(latency)
    order = {role.value: place for place, role in enumerate(ROW)}
    pairs = sorted(found, key=lambda pair: (order.get(pair[1], len(order)), pair))[:_MAX_SHOWN]
    return [
        Handed(sender, recipient, len(times := sorted(found[sender, recipient])), times[len(times) // 2], times[-1])
        for sender, recipient in pairs
    ]


def _pairs(given: object, first: str, second: str) -> list[tuple[str, str]]:
    rows = given if isinstance(given, list) else []
    return [(str(row.get(first)), str(row.get(second))) for row in rows[:_MAX_SHOWN] if isinstance(row, Mapping)]


def _known(tiles: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(name, value) for name, value in tiles if value not in {"", "–"}]


def _whole(found: Mapping[str, Any], name: str) -> int | None:
    value = number_at(found, name)
    return None if value is None else int(value)


def _said_of(found: Mapping[str, Any], name: str) -> str:
    return said(number_at(found, name))


def _text(found: Mapping[str, Any], name: str) -> str:
    value = found.get(name)
    return value[:64] if isinstance(value, str) else ""
