"""The rosters that the REST door shows."""

from __future__ import annotations

import pytest

from tests.conclave_fixture import RunningServer


def test_the_rosters_are_listed_with_what_they_are_for(server: RunningServer) -> None:
    page = server.ask("GET", "/v1/rosters").document
    archons = next(item for item in page["items"] if item["name"] == "archons")
    assert archons["count"] == 72
    assert archons["description"]
    assert page["next_cursor"] is None


def test_a_roster_shows_every_agent(server: RunningServer) -> None:
    roster = server.ask("GET", "/v1/rosters/archons").document
    assert roster["name"] == "archons"
    assert len({agent["id"] for agent in roster["agents"]}) == 72
    assert all(agent["persona"] for agent in roster["agents"])


@pytest.mark.parametrize("name", ["nobody", "%00", "..", "%2e%2e", "ARCHONS", "a" * 3000, "%FF"])
def test_what_is_no_roster_is_not_found(server: RunningServer, name: str) -> None:
    assert server.ask("GET", f"/v1/rosters/{name}").problem == "roster-not-found"
