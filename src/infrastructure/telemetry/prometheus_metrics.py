"""Metrics for Prometheus: counts in plain numbers while the work runs, and turns them into samples only when scraped.

It is one file, because all counters are read under one lock, and nothing else knows the package for them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import metadata
from threading import Lock

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from domain.models.agent_pool import AgentPool
from domain.models.budget import Usage
from domain.models.deliberation import DeliberationStatus
from domain.models.money import added
from domain.models.roll_call import AgentState
from domain.models.topic import TopicOrigin
from infrastructure.orchestrators.allowance import LimiterState
from infrastructure.telemetry.bus_metrics import BusSample
from infrastructure.telemetry.histogram import Histogram
from infrastructure.telemetry.limiter_metrics import limiter_gauges, limiter_waits
from infrastructure.telemetry.population_metrics import PopulationSample

__all__ = ["PrometheusMetrics"]

_WAIT_S = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_AGENT_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 90, 120, 300)
_BATCH_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 45, 60, 90, 120, 300, 600, 1800)
_DELIBERATION_S = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1200, 1800, 3600)
_APPEND_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_OTHER = "other"
_WEBHOOK_OUTCOMES = ("delivered", "failed", "gone", "given_up")
_FAILED_AGENTS = (0, 1, 2, 5, 10, 20, 36, 72)

_VERSION_ASKED = re.compile(r"version=([^;,]*)")
_VERSION = re.compile(r"[0-9]{1,3}(\.[0-9]{1,3}){0,2}")


class PrometheusMetrics:
    """Tells the truth at every scrape: all counters are read in one step, and gauges are asked for when they are read.

    Has a registry of its own, so that two of them in a process do not meet. Callable from any thread; since the pool belongs
    to the event loop, `render` belongs there too, or invoked = outcomes + active may be seen between two of the three.
    Gauges stand in a scrape from the moment on that something is watched for them. `version` is what `conclave_build_info`
    says, that of the installed distribution unless given.
    """

    def __init__(self, *, version: str | None = None) -> None:
        self._version = version if version is not None else _installed_version()
        self._lock = Lock()
        self._invoked = 0
        self._outcomes = dict.fromkeys(AgentState, 0)
        self._ended = dict.fromkeys((status for status in DeliberationStatus if status.is_terminal), 0)
        self._exhausted = 0
        self._throttled = 0
        self._over_budget = 0
        self._input_tokens = 0
        self._output_tokens = 0
        self._cost_usd = 0.0
        self._agent_seconds = Histogram(_AGENT_S)
        self._wait_seconds = Histogram(_WAIT_S)
        self._batch_seconds = Histogram(_BATCH_S)
        self._failed_agents = Histogram(_FAILED_AGENTS)
        self._deliberation_seconds = Histogram(_DELIBERATION_S)
        self._append_seconds = Histogram(_APPEND_S)
        self._mismatches = 0
        self._groupthink = 0
        self._recounts = 0
        self._resolutions = 0
        self._topics = dict.fromkeys((*(origin.value for origin in TopicOrigin), _OTHER), 0)
        self._is_lopsided: bool | None = None
        self._webhooks = dict.fromkeys(_WEBHOOK_OUTCOMES, 0)
        self._channels: Callable[[], Mapping[str, bool]] | None = None
        self._breakers: Callable[[], Mapping[str, bool]] | None = None
        self._limiters: Callable[[], Mapping[str, LimiterState]] | None = None
        self._buses: Callable[[], Mapping[str, BusSample]] | None = None
        self._populations: Callable[[], PopulationSample] | None = None
        self._gauges: dict[str, tuple[str, Callable[[], float]]] = {}
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_Snapshot(self._families))
        ProcessCollector(registry=self._registry)

    def agent_invoked(self) -> None:
        """An agent got its slot, or ended without one."""
        with self._lock:
            self._invoked += 1

    def agent_ended(self, state: AgentState, duration_seconds: float) -> None:
        """An agent ended as `state`; `duration_seconds` is 0 when it was never called."""
        with self._lock:
            self._outcomes[state] += 1
            self._agent_seconds.observe(duration_seconds)

    def slot_granted(self, waited_seconds: float) -> None:
        """An agent waited that long for its slot."""
        with self._lock:
            self._wait_seconds.observe(waited_seconds)

    def pool_exhausted(self) -> None:
        """More was asked for than the pool or the queue takes."""
        with self._lock:
            self._exhausted += 1

    def call_made(self, usage: Usage) -> None:
        """A call used tokens and money; what a provider reports below zero is not counted, so that counters only grow."""
        with self._lock:
            self._input_tokens += max(0, usage.input_tokens)
            self._output_tokens += max(0, usage.output_tokens)
            if 0 < usage.cost_usd < math.inf:
                self._cost_usd = added(self._cost_usd, usage.cost_usd)

    def call_throttled(self) -> None:
        """A provider answered that it is asked too fast."""
        with self._lock:
            self._throttled += 1

    def call_over_budget(self) -> None:
        """A call was not made, because it could have taken more than may be spent."""
        with self._lock:
            self._over_budget += 1

    def batch_ended(self, duration_seconds: float, failed_agents: int) -> None:
        """A round ended; failed agents neither answered nor abstained."""
        with self._lock:
            self._batch_seconds.observe(duration_seconds)
            self._failed_agents.observe(failed_agents)

    def deliberation_ended(self, status: DeliberationStatus, duration_seconds: float) -> None:
        """A deliberation reached the terminal state `status`."""
        with self._lock:
            self._ended[status] += 1
            self._deliberation_seconds.observe(duration_seconds)

    def record_mismatched(self) -> None:
        """Something stored did not match its leaf in the log, and was not shown."""
        with self._lock:
            self._mismatches += 1

    def groupthink_warned(self) -> None:
        """A deliberation ended with the warning of groupthink."""
        with self._lock:
            self._groupthink += 1

    def recounted(self) -> None:
        """Ballots were counted again by another rule."""
        with self._lock:
            self._recounts += 1

    def resolved(self) -> None:
        """It was recorded how a question turned out."""
        with self._lock:
            self._resolutions += 1

    def topic_accepted(self, origin: str | None) -> None:
        """A topic came from there; sources that callers have named themselves are counted together."""
        with self._lock:
            self._topics[origin if origin in self._topics else _OTHER] += 1

    def topics_weighed(self, is_lopsided: bool) -> None:  # noqa: FBT001 - the one thing that is measured
        """Whether one source gives too many of the topics, where that is looked at."""
        with self._lock:
            self._is_lopsided = is_lopsided

    def webhook_attempted(self, outcome: str) -> None:
        """An attempt to tell a webhook ended so."""
        with self._lock:
            self._webhooks[outcome] += 1

    def log_appended(self, duration_seconds: float) -> None:
        """Entries were made durable; from the moment that they were handed over."""
        with self._lock:
            self._append_seconds.observe(duration_seconds)

    def watch_log(self, tree_size: Callable[[], int], verified: Callable[[], bool]) -> None:
        """Show from now on how many entries the log has, as last seen, and whether it stood up to its last check."""
        self._gauges |= {
            "conclave_witness_tree_size": ("Entries of the witness log.", tree_size),
            "conclave_witness_verified": ("1 while the witness log verifies, else 0.", verified),
        }

    def watch_pool(self, pool: AgentPool, waiting: Callable[[], int]) -> None:
        """Show that pool from now on; `waiting` says how many agents wait for a slot of it."""
        self._gauges |= {
            "conclave_pool_capacity_agents": ("Slots of the agent pool.", lambda: pool.max_concurrent),
            "conclave_pool_active_agents": ("Slots held by agents.", lambda: pool.active_count),
            "conclave_pool_waiting_agents": ("Agents waiting for a slot.", waiting),
        }

    def watch_deliberations(self, running: Callable[[], int], queued: Callable[[], int]) -> None:
        """Show from now on how many deliberations run and wait in this process."""
        self._gauges |= {
            "conclave_deliberations_running": ("Deliberations running now.", running),
            "conclave_deliberations_queued": ("Deliberations waiting to run.", queued),
        }

    def watch_webhooks(self, pending: Callable[[], int]) -> None:
        """Show from now on how many deliveries to webhooks wait or are under way."""
        self._gauges["conclave_webhook_pending"] = ("Deliveries to webhooks that wait or are under way.", pending)

    def watch_anchors(self, failing: Callable[[], int]) -> None:
        """Show from now on how many anchors did not take the newest checkpoint."""
        self._gauges["conclave_witness_anchors_failing"] = ("Anchors that did not take the newest checkpoint.", failing)

    def watch_halt(self, halted: Callable[[], bool], channels: Callable[[], Mapping[str, bool]] | None = None) -> None:
        """Show from now on whether the system is halted and, where `channels` says so by name, which channels can be read."""
        self._gauges["conclave_halted"] = ("1 while the system is halted, else 0.", halted)
        self._channels = channels

    def watch_breakers(self, open_by_model: Callable[[], Mapping[str, bool]]) -> None:
        """Show from now on which models are not asked, or by one call at a time only, because they keep failing."""
        self._breakers = open_by_model

    def watch_limiters(self, state_by_model: Callable[[], Mapping[str, LimiterState]]) -> None:
        """Show from now on how the limiter of each model stands; of more than 100 models the rest together, as `other`."""
        self._limiters = state_by_model

    def watch_buses(self, by_transport: Callable[[], Mapping[str, BusSample]]) -> None:
        """Show from now on what went over the buses of runs, by transport. What is told may only grow, but for what is queued."""
        self._buses = by_transport

    def watch_populations(self, sums: Callable[[], PopulationSample]) -> None:
        """Show from now on what the populations of runs counted. What is told may only grow, but for who is under way."""
        self._populations = sums

    def render(self, accept: str | None = None) -> tuple[bytes, str]:
        """A scrape and its content type: OpenMetrics or the Prometheus text format, as the Accept header `accept` asks."""
        encoder, content_type = choose_encoder(_safe(accept))
        return encoder(self._registry), content_type

    def _families(self) -> Iterable[Metric]:
        # Read from files, for which nobody who counts should wait.
        buses = {} if self._buses is None else self._buses()
        populations = None if self._populations is None else self._populations()
        with self._lock:
            outcomes = {state.value: float(count) for state, count in self._outcomes.items()}
            ended = {status.value: float(count) for status, count in self._ended.items()}
            tokens = {"input": float(self._input_tokens), "output": float(self._output_tokens)}
            counters = (
                ("conclave_agent_invocations", "Agents that got a slot, or ended without one.", self._invoked),
                (
                    "conclave_pool_exhausted",
                    "Requests refused for want of slots or of places in a queue.",
                    self._exhausted,
                ),
                ("conclave_llm_throttled", "Calls that a provider refused as too many.", self._throttled),
                (
                    "conclave_llm_over_budget",
                    "Calls not made, as they could take more than may be spent.",
                    self._over_budget,
                ),
                ("conclave_witness_mismatches", "Stored outputs that did not match their leaf.", self._mismatches),
                (
                    "conclave_groupthink_warnings",
                    "Deliberations that ended as another of many in a row in which nearly all agreed.",
                    self._groupthink,
                ),
                ("conclave_recounts", "Recounts that were recorded.", self._recounts),
                ("conclave_resolutions", "Resolutions that were recorded.", self._resolutions),
                ("conclave_llm_cost_usd", "Money that calls cost, in US dollars.", self._cost_usd),
            )
            histograms = (
                (
                    "conclave_agent_duration_seconds",
                    "From an agent's first call to its end.",
                    self._agent_seconds.sample(),
                ),
                ("conclave_pool_wait_seconds", "From asking for a slot to getting it.", self._wait_seconds.sample()),
                (
                    "conclave_batch_duration_seconds",
                    "From the start of a round to its end.",
                    self._batch_seconds.sample(),
                ),
                (
                    "conclave_batch_failed_agents",
                    "Agents of a round without answer or abstention.",
                    self._failed_agents.sample(),
                ),
                (
                    "conclave_deliberation_duration_seconds",
                    "From the start of a deliberation to its end.",
                    self._deliberation_seconds.sample(),
                ),
                (
                    "conclave_witness_append_seconds",
                    "From handing entries over to their being durable.",
                    self._append_seconds.sample(),
                ),
            )
            topics = {origin: float(count) for origin, count in self._topics.items()}
            webhooks = {outcome: float(count) for outcome, count in self._webhooks.items()}
            is_lopsided = self._is_lopsided
            gauges = [(name, text, float(read())) for name, (text, read) in self._gauges.items()]
            channels = {} if self._channels is None else self._channels()
            breakers = {} if self._breakers is None else self._breakers()
            limiters = {} if self._limiters is None else self._limiters()
        yield InfoMetricFamily("conclave_build", "What runs here.", value={"version": self._version})
        yield _labelled("conclave_agent_outcomes", "Agents that ended, by how.", "state", outcomes)
        yield _labelled("conclave_deliberations", "Deliberations that ended, by how.", "status", ended)
        yield _labelled("conclave_llm_tokens", "Tokens sent to and received from models.", "direction", tokens)
        yield _labelled(
            "conclave_topics", "Deliberations that were accepted, by where their topic came from.", "origin", topics
        )
        yield _labelled(
            "conclave_webhook_deliveries", "Attempts to tell a webhook, by what became of them.", "outcome", webhooks
        )
        if is_lopsided is not None:
            text = "1 while one source gives more than 30 % of the topics of 7 days, else 0."
            yield GaugeMetricFamily("conclave_topics_lopsided", text, value=float(is_lopsided))
        for name, text, count in counters:
            yield CounterMetricFamily(name, text, value=count)
        for name, text, (buckets, total) in histograms:
            yield HistogramMetricFamily(name, text, buckets=buckets, sum_value=total)
        for name, text, value in gauges:
            yield GaugeMetricFamily(name, text, value=value)
        if channels:
            yield _reachable(channels)
        if breakers:
            text = "1 while the model is not asked, or by one call at a time, because it kept failing, else 0."
            yield _labelled_gauge("conclave_breaker_open", text, "model", breakers)
        for name, text, by_model in limiter_gauges(limiters):
            yield _labelled_gauge(name, text, "model", by_model)
        if limiters:
            yield _labelled_histogram(
                "conclave_limiter_wait_seconds",
                "From asking a limiter for leave to getting it.",
                "model",
                limiter_waits(limiters),
            )
        if buses:
            yield from _bus_families(buses)
        if populations is not None:
            yield from _population_families(populations)


def _population_families(found: PopulationSample) -> Iterable[Metric]:
    yield GaugeMetricFamily("conclave_population_running", "Populations of runs under way.", value=found.running)
    yield GaugeMetricFamily("conclave_population_agents", "Simulated agents of them that live.", value=found.agents)
    yield CounterMetricFamily("conclave_population_ticks", "Ticks that populations of runs took.", value=found.ticks)
    yield _labelled(
        "conclave_population_messages",
        "Messages between simulated agents, by what became of them.",
        "outcome",
        {outcome: float(count) for outcome, count in found.messages.items()},
    )
    yield HistogramMetricFamily(
        "conclave_population_tick_seconds",
        "Times of whole ticks.",
        buckets=found.buckets(),
        sum_value=found.tick_sum_s,
    )


def _bus_families(buses: Mapping[str, BusSample]) -> Iterable[Metric]:
    label = "transport"
    yield _labelled(
        "conclave_bus_messages",
        "Messages sent over the buses of runs.",
        label,
        {t: b.messages for t, b in buses.items()},
    )
    yield _labelled(
        "conclave_bus_dead_letters",
        "Messages that nobody will get.",
        label,
        {t: b.dead_letters for t, b in buses.items()},
    )
    yield _labelled_gauge(
        "conclave_bus_queued_messages",
        "Messages that wait or are unacknowledged, in runs under way.",
        label,
        {t: b.queued for t, b in buses.items()},
    )
    yield _labelled_histogram(
        "conclave_bus_latency_seconds",
        "From sending a message to its being received.",
        label,
        {t: (b.buckets(), b.latency_sum_s) for t, b in buses.items()},
    )


def _installed_version() -> str:
    try:
        return metadata.version("archon-conclave")
    except metadata.PackageNotFoundError:
        return "unknown"


class _Snapshot(Collector):
    def __init__(self, families: Callable[[], Iterable[Metric]]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families()


def _labelled(name: str, text: str, label: str, counts: Mapping[str, float]) -> CounterMetricFamily:
    family = CounterMetricFamily(name, text, labels=[label])
    for value, count in counts.items():
        family.add_metric([value], count)
    return family


def _reachable(channels: Mapping[str, bool]) -> GaugeMetricFamily:
    text = "1 while the channel can be read, else 0."
    return _labelled_gauge("conclave_halt_channel_reachable", text, "channel", channels)


def _labelled_gauge(name: str, text: str, label: str, values: Mapping[str, float]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=[label])
    for value, measured in values.items():
        family.add_metric([value], float(measured))
    return family


def _labelled_histogram(
    name: str, text: str, label: str, samples: Mapping[str, tuple[Sequence[tuple[str, float]], float]]
) -> HistogramMetricFamily:
    family = HistogramMetricFamily(name, text, labels=[label])
    for value, (buckets, total) in samples.items():
        family.add_metric([value], buckets, sum_value=total)
    return family


def _safe(accept: str | None) -> str:
    """The Accept header, or nothing when it asks for a version that the vendor's negotiation would fail on or repeat."""
    asked = _VERSION_ASKED.findall(accept or "")
    return accept or "" if all(_VERSION.fullmatch(version.strip(" \t")) for version in asked) else ""
