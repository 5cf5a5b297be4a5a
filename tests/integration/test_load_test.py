"""The load test itself, with tiny numbers: it offers, scrapes and judges as it does with large ones."""

from __future__ import annotations

import pytest

from benchmarks.load_test import Criterion, Load, measure

TINY = Load(
    deliberations=4,
    agents=10,
    rate_per_s=5.0,
    # Long enough for a slot to be seen in use between two scrapes, however crowded the machine.
    median_s=0.4,
    least_s=0.3,
    most_s=0.6,
    throttled=0.0,
    broken=0.0,
    unreadable=0.2,
    silent=0.0,
    scrape_s=0.01,
)


def test_a_load_is_offered_to_a_real_server_and_what_is_missed_is_found_out() -> None:
    document = measure(TINY)
    missed = {name for name, criterion in document["criteria"].items() if not criterion["passed"]}
    unreadable = document["calls"]["by_fault"]["not_ballot"]
    assert (missed, document["passed"]) == ({"failed_agents"}, False)
    assert document["criteria"]["failed_agents"]["value"] == pytest.approx(unreadable / 40, abs=0.001)
    assert document["criteria"]["completed"] == {"value": 4, "limit": 4, "passed": True}
    assert (document["agents"]["asked"], document["calls"]["requests"]) == (40, 40)
    # Whether the first calls had arrived before the last deliberation was offered, is the machine's affair.
    assert 0 <= document["criteria"]["pool_use"]["value"] < 0.9
    assert document["rate_at_90_percent_per_s"] > 0
    assert len(document["lines"]) == len(document["criteria"])


def test_a_criterion_is_missed_at_its_limit_and_says_so() -> None:
    assert str(Criterion("pool_use", 0.9, 0.9)).startswith("FAILED  pool_use")
    assert str(Criterion("completed", 50, 50, least=True)).startswith("passed  completed")
