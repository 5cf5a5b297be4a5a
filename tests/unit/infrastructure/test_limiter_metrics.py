"""How limiters stand, as it is scraped."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from infrastructure.orchestrators.allowance import WAIT_BOUNDS_S, LimiterState
from infrastructure.telemetry.limiter_metrics import MAX_MODELS
from infrastructure.telemetry.prometheus_metrics import PrometheusMetrics

WAITS = (2, 0, 0, 0, 0, 0, 0, 1) + (0,) * (len(WAIT_BOUNDS_S) - 7)


def scrape(states: dict[str, LimiterState]) -> dict[tuple[str, str, str], float]:
    """By name, model and upper bound."""
    metrics = PrometheusMetrics(version="1")
    metrics.watch_limiters(lambda: states)
    return {
        (sample.name, sample.labels.get("model", ""), sample.labels.get("le", "")): sample.value
        for family in text_string_to_metric_families(metrics.render()[0].decode())
        for sample in family.samples
        if sample.name.startswith("conclave_limiter_")
    }


def test_each_model_shows_its_pace_its_calls_and_whether_it_is_paused_and_shared() -> None:
    samples = scrape({"openai/small": LimiterState(0.49, 7, 30, paused_s=2.5, shared=False)})
    assert {name: value for (name, model, _), value in samples.items() if model and "wait_seconds" not in name} == {
        "conclave_limiter_pace_ratio": 0.49,
        "conclave_limiter_in_flight_calls": 7,
        "conclave_limiter_waiting_calls": 30,
        "conclave_limiter_paused": 1,
        "conclave_limiter_shared": 0,
    }


def test_a_limiter_that_is_not_meant_to_be_shared_says_nothing_of_it() -> None:
    samples = scrape({"small": LimiterState(1, 0, 0)})
    assert not [name for name, _, _ in samples if name == "conclave_limiter_shared"]
    assert samples["conclave_limiter_paused", "small", ""] == 0


def test_waits_are_a_histogram() -> None:
    samples = scrape({"small": LimiterState(1, 0, 0, waits=WAITS, waited_s=7.5)})
    assert samples["conclave_limiter_wait_seconds_bucket", "small", "0.001"] == 2
    assert samples["conclave_limiter_wait_seconds_bucket", "small", "5.0"] == 2
    assert samples["conclave_limiter_wait_seconds_bucket", "small", "10.0"] == 3
    assert samples["conclave_limiter_wait_seconds_count", "small", ""] == 3
    assert samples["conclave_limiter_wait_seconds_sum", "small", ""] == 7.5


def test_however_many_models_are_named_the_labels_are_bounded_and_nothing_is_lost() -> None:
    states = {f"model {n}": LimiterState(1 / (n + 1), 1, 2, waits=WAITS, waited_s=1) for n in range(1000)}
    samples = scrape(states)
    assert len({model for _, model, _ in samples}) == MAX_MODELS
    assert sum(value for (name, _, _), value in samples.items() if name == "conclave_limiter_in_flight_calls") == 1000
    assert (
        sum(value for (name, _, _), value in samples.items() if name == "conclave_limiter_wait_seconds_count") == 3000
    )
    assert samples["conclave_limiter_pace_ratio", "other", ""] == pytest.approx(0.001)


def test_without_limiters_nothing_is_claimed() -> None:
    assert scrape({}) == {}
