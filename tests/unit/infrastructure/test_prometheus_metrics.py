"""Holds the metrics to the contract's names and to one promise: whatever moment they are scraped at, they add up."""

import random
import threading
from collections.abc import Callable
from importlib import metadata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from application.ports.agent_orchestrator import AgentOutput, AgentRequest, ContextBundle
from application.ports.metrics import Metrics
from application.services.concurrent_deliberation_service import ConcurrentDeliberationService
from domain.models.agent_pool import AgentPool
from domain.models.budget import Usage
from domain.models.deliberation import DeliberationStatus
from domain.models.roll_call import AgentState
from infrastructure.stubs.agent_orchestrator_stub import AgentOrchestratorStub
from infrastructure.stubs.halt_checker_stub import HaltCheckerStub
from infrastructure.stubs.virtual_time import run_in_virtual_time
from infrastructure.telemetry.prometheus_metrics import PrometheusMetrics

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]

OPENMETRICS = "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
TERMINAL = [status for status in DeliberationStatus if status.is_terminal]


def metrics() -> PrometheusMetrics:
    return PrometheusMetrics(version="1.2.3")


def watched(pool: AgentPool | None = None) -> PrometheusMetrics:
    counted = metrics()
    counted.watch_pool(pool or AgentPool(), lambda: 3)
    counted.watch_deliberations(lambda: 2, lambda: 5)
    counted.watch_halt(lambda: False)
    return counted


def scrape(counted: PrometheusMetrics) -> Samples:
    text = counted.render()[0].decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in parse_text(text)
        for sample in family.samples
    }


def value(counted: PrometheusMetrics, name: str, **labels: str) -> float:
    return scrape(counted)[name, tuple(sorted(labels.items()))]


def outcomes(samples: Samples) -> float:
    return sum(number for (name, _), number in samples.items() if name == "conclave_agent_outcomes_total")


def test_every_metric_of_the_contract_is_there_from_the_first_scrape() -> None:
    names = {name for name, _ in scrape(watched())}
    assert names >= {
        "conclave_pool_capacity_agents",
        "conclave_pool_active_agents",
        "conclave_pool_waiting_agents",
        "conclave_pool_exhausted_total",
        "conclave_deliberations_total",
        "conclave_deliberations_running",
        "conclave_deliberations_queued",
        "conclave_agent_invocations_total",
        "conclave_agent_outcomes_total",
        "conclave_llm_tokens_total",
        "conclave_llm_cost_usd_total",
        "conclave_llm_throttled_total",
        "conclave_llm_over_budget_total",
        "conclave_halted",
        "conclave_build_info",
        "process_resident_memory_bytes",
        "process_cpu_seconds_total",
    }
    for histogram in ("pool_wait", "agent_duration", "batch_duration", "deliberation_duration"):
        assert names >= {f"conclave_{histogram}_seconds_{part}" for part in ("bucket", "count", "sum")}
    assert names >= {f"conclave_batch_failed_agents_{part}" for part in ("bucket", "count", "sum")}


@pytest.mark.parametrize(
    ("name", "label", "values"),
    [
        ("conclave_agent_outcomes_total", "state", [state.value for state in AgentState]),
        ("conclave_deliberations_total", "status", [status.value for status in TERMINAL]),
        ("conclave_llm_tokens_total", "direction", ["input", "output"]),
    ],
)
def test_every_label_value_starts_at_zero(name: str, label: str, values: list[str]) -> None:
    samples = scrape(metrics())
    assert {labels: number for (found, labels), number in samples.items() if found == name} == {
        ((label, value),): 0 for value in values
    }


def test_there_is_no_noise_about_when_series_were_created() -> None:
    assert b"_created" not in metrics().render()[0]
    assert b"_created" not in metrics().render(OPENMETRICS)[0]


def test_batches_are_measured_against_the_bounds_that_the_alerts_ask_for() -> None:
    counted = metrics()
    for seconds, failed in ((29.9, 5), (30.0, 6), (59, 0), (61, 72)):
        counted.batch_ended(seconds, failed)
    assert value(counted, "conclave_batch_duration_seconds_bucket", le="30.0") == 2
    assert value(counted, "conclave_batch_duration_seconds_bucket", le="60.0") == 3
    assert value(counted, "conclave_batch_duration_seconds_bucket", le="+Inf") == 4
    assert value(counted, "conclave_batch_duration_seconds_count") == 4
    assert value(counted, "conclave_batch_duration_seconds_sum") == pytest.approx(179.9)
    assert value(counted, "conclave_batch_failed_agents_bucket", le="5.0") == 2
    assert value(counted, "conclave_batch_failed_agents_sum") == 83


def test_each_call_moves_exactly_what_it_is_about() -> None:
    calls: list[tuple[Callable[[PrometheusMetrics], None], dict[str, float]]] = [
        (lambda m: m.agent_invoked(), {"conclave_agent_invocations_total": 1}),
        (lambda m: m.pool_exhausted(), {"conclave_pool_exhausted_total": 1}),
        (lambda m: m.call_throttled(), {"conclave_llm_throttled_total": 1}),
        (lambda m: m.call_over_budget(), {"conclave_llm_over_budget_total": 1}),
        (
            lambda m: m.agent_ended(AgentState.TIMED_OUT, 400),
            {
                "conclave_agent_outcomes_total state=timed_out": 1,
                "conclave_agent_duration_seconds_count": 1,
                "conclave_agent_duration_seconds_sum": 400,
                "conclave_agent_duration_seconds_bucket le=+Inf": 1,
            },
        ),
        (
            lambda m: m.deliberation_ended(DeliberationStatus.INQUORATE, 4000),
            {
                "conclave_deliberations_total status=inquorate": 1,
                "conclave_deliberation_duration_seconds_count": 1,
                "conclave_deliberation_duration_seconds_sum": 4000,
                "conclave_deliberation_duration_seconds_bucket le=+Inf": 1,
            },
        ),
        (
            lambda m: m.slot_granted(700),
            {
                "conclave_pool_wait_seconds_count": 1,
                "conclave_pool_wait_seconds_sum": 700,
                "conclave_pool_wait_seconds_bucket le=+Inf": 1,
            },
        ),
        (
            lambda m: m.call_made(Usage(calls=1, input_tokens=70, output_tokens=9, cost_usd=0.25)),
            {
                "conclave_llm_tokens_total direction=input": 70,
                "conclave_llm_tokens_total direction=output": 9,
                "conclave_llm_cost_usd_total": 0.25,
            },
        ),
    ]
    for call, expected in calls:
        counted = metrics()
        call(counted)
        moved = {
            " ".join([name, *(f"{label}={text}" for label, text in labels)]): number
            for (name, labels), number in scrape(counted).items()
            if number and not name.startswith("process_") and name != "conclave_build_info"
        }
        assert moved == expected


@pytest.mark.parametrize("cost", [-1.0, float("nan"), float("inf")])
def test_what_a_provider_reports_wrongly_cannot_turn_a_counter_back_or_spoil_it(cost: float) -> None:
    counted = metrics()
    counted.call_made(Usage(input_tokens=5, output_tokens=6, cost_usd=0.5))
    counted.call_made(Usage(input_tokens=-100, output_tokens=-100, cost_usd=cost))
    assert value(counted, "conclave_llm_tokens_total", direction="input") == 5
    assert value(counted, "conclave_llm_tokens_total", direction="output") == 6
    assert value(counted, "conclave_llm_cost_usd_total") == 0.5


def test_the_money_of_many_calls_is_their_exact_sum() -> None:
    counted = metrics()
    for _ in range(20):
        counted.call_made(Usage(1, cost_usd=0.00105))
    assert value(counted, "conclave_llm_cost_usd_total") == 0.021


def test_gauges_show_what_is_so_at_the_moment_of_the_scrape() -> None:
    pool = AgentPool(9)
    counted = watched(pool)
    pool.acquire("a")
    pool.acquire("b")
    assert value(counted, "conclave_pool_capacity_agents") == 9
    assert value(counted, "conclave_pool_active_agents") == 2
    assert value(counted, "conclave_pool_waiting_agents") == 3
    assert value(counted, "conclave_deliberations_running") == 2
    assert value(counted, "conclave_deliberations_queued") == 5
    pool.release("a")
    assert value(counted, "conclave_pool_active_agents") == 1


def test_the_halt_shows_as_one_while_it_lasts() -> None:
    halted = [False]
    counted = metrics()
    counted.watch_halt(lambda: halted[0])
    assert value(counted, "conclave_halted") == 0
    halted[0] = True
    assert value(counted, "conclave_halted") == 1


def test_nothing_is_claimed_about_what_is_not_watched() -> None:
    assert not {name for name, _ in scrape(metrics())} & {"conclave_pool_active_agents", "conclave_halted"}


def test_two_instances_in_one_process_do_not_meet() -> None:
    one, other = metrics(), metrics()
    one.agent_invoked()
    assert value(one, "conclave_agent_invocations_total") == 1
    assert value(other, "conclave_agent_invocations_total") == 0


def test_the_build_says_its_version() -> None:
    assert value(metrics(), "conclave_build_info", version="1.2.3") == 1


def test_the_build_is_that_of_the_installed_distribution_unless_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert value(PrometheusMetrics(), "conclave_build_info", version=metadata.version("archon-conclave")) == 1

    def away(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", away)
    assert value(PrometheusMetrics(), "conclave_build_info", version="unknown") == 1


def test_openmetrics_is_spoken_to_whoever_asks_for_it() -> None:
    counted = watched()
    counted.agent_ended(AgentState.ANSWERED, 1)
    content, content_type = counted.render(OPENMETRICS)
    assert content_type.startswith("application/openmetrics-text; version=1.0.0; charset=utf-8")
    families = {family.name: family for family in parse_openmetrics(content.decode())}  # type: ignore[no-untyped-call]
    assert families["conclave_agent_outcomes"].type == "counter"


@pytest.mark.parametrize("accept", [None, "", "*/*", "text/html", "text/plain;version=0.0.4"])
def test_everyone_else_gets_the_text_format(accept: str | None) -> None:
    assert metrics().render(accept)[1] == "text/plain; version=0.0.4; charset=utf-8"


@settings(deadline=None)
@given(
    st.text()
    | st.builds(
        "{};version={};escaping={}".format,
        st.sampled_from(["application/openmetrics-text", "text/plain"]),
        st.text(alphabet='0123456789.a"; \r\n', max_size=12) | st.just("9" * 5000),
        st.text(max_size=8),
    )
)
def test_no_accept_header_can_break_a_scrape_or_write_a_header_line(accept: str) -> None:
    content, content_type = metrics().render(accept)
    assert content
    assert content_type.isascii()
    assert content_type.isprintable()


def test_invoked_is_outcomes_plus_active_after_every_step_of_many_agents() -> None:
    pool = AgentPool(20)
    counted = watched(pool)
    step = threading.Lock()  # a step of the event loop: what one thread does in it, no other sees half done
    unequal: list[Samples] = []
    scrapes = 0

    def agent(number: int) -> None:
        draw = random.Random(number)
        for turn in range(15):
            agent_id = f"{number}-{turn}"
            with step:
                if pool.is_exhausted:
                    counted.agent_invoked()
                    counted.agent_ended(AgentState.CANCELLED, 0)
                    continue
                pool.acquire(agent_id)
                counted.agent_invoked()
            with step:
                counted.agent_ended(draw.choice(list(AgentState)), draw.random())
                pool.release(agent_id)

    agents = [threading.Thread(target=agent, args=(number,)) for number in range(30)]
    for thread in agents:
        thread.start()
    while any(thread.is_alive() for thread in agents) or not scrapes:
        with step:
            samples = scrape(counted)
        scrapes += 1
        active = samples["conclave_pool_active_agents", ()]
        if samples["conclave_agent_invocations_total", ()] != outcomes(samples) + active:
            unequal.append(samples)
    for thread in agents:
        thread.join()
    assert unequal == []
    assert outcomes(scrape(counted)) == value(counted, "conclave_agent_invocations_total") == 30 * 15


def test_a_scrape_from_another_thread_never_sees_more_outcomes_than_invocations() -> None:
    counted = metrics()
    done = threading.Event()

    def agent() -> None:
        while not done.is_set():
            counted.agent_invoked()
            counted.agent_ended(AgentState.ANSWERED, 0.1)

    thread = threading.Thread(target=agent)
    thread.start()
    try:
        for _ in range(25):
            samples = scrape(counted)
            ended = outcomes(samples)
            assert 0 <= samples["conclave_agent_invocations_total", ()] - ended <= 1
            assert samples["conclave_agent_duration_seconds_count", ()] == ended
    finally:
        done.set()
        thread.join()


def test_each_channel_of_the_halt_is_shown_by_name_as_it_is_now() -> None:
    counted = metrics()
    reachable = {"database": True, "file": True}
    counted.watch_halt(lambda: False, lambda: reachable)
    assert scrape(counted)["conclave_halt_channel_reachable", (("channel", "database"),)] == 1
    reachable["database"] = False
    samples = scrape(counted)
    assert samples["conclave_halt_channel_reachable", (("channel", "database"),)] == 0
    assert samples["conclave_halt_channel_reachable", (("channel", "file"),)] == 1


def test_anchors_that_fail_are_counted_and_not_named() -> None:
    counted = metrics()
    failing = ["webhook:https://hooks.example/secret"]
    counted.watch_anchors(lambda: len(failing))
    assert scrape(counted)["conclave_witness_anchors_failing", ()] == 1
    assert b"secret" not in counted.render()[0]


class Scraping:
    """An orchestrator that scrapes whenever an agent is called."""

    def __init__(self, look: Callable[[], None]) -> None:
        self._look = look
        self._stub = AgentOrchestratorStub(failing={"archon-3"})

    async def invoke(self, request: AgentRequest) -> AgentOutput:
        self._look()
        return await self._stub.invoke(request)


def test_the_fan_out_keeps_the_balance_at_every_call_of_an_agent() -> None:
    counted = metrics()
    balance: list[tuple[float, float]] = []

    def look() -> None:
        samples = scrape(counted)
        active = samples["conclave_pool_active_agents", ()]
        balance.append((samples["conclave_agent_invocations_total", ()], outcomes(samples) + active))

    async def main() -> None:
        service = ConcurrentDeliberationService(
            orchestrator=Scraping(look), halt_checker=HaltCheckerStub(), metrics=counted
        )
        counted.watch_pool(service.pool, lambda: service.waiting_count)
        context = ContextBundle(topic_id="t", topic_content="q")
        await service.invoke_concurrent([AgentRequest(agent_id=f"archon-{n}", context=context) for n in range(72)])
        look()

    run_in_virtual_time(main())
    assert len(balance) > 72
    assert [one for one in balance if one[0] != one[1]] == []


def test_it_is_an_adapter_of_the_port() -> None:
    port: Metrics = metrics()
    port.agent_invoked()


def test_a_model_that_keeps_failing_is_shown_as_long_as_it_does() -> None:
    standing = {"openai/small": True, "gemini/flash": False}
    counted = metrics()
    assert "conclave_breaker_open" not in {name for name, _ in scrape(counted)}
    counted.watch_breakers(lambda: standing)
    assert value(counted, "conclave_breaker_open", model="openai/small") == 1
    assert value(counted, "conclave_breaker_open", model="gemini/flash") == 0
    standing["openai/small"] = False
    assert value(counted, "conclave_breaker_open", model="openai/small") == 0
