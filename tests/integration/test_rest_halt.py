"""`/v1/halt` as its callers see it, and what a halt does to everything else that they may ask for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest

from infrastructure.stubs.agent_orchestrator_stub import AgentOrchestratorStub
from infrastructure.stubs.halt_channel_stub import HaltChannelStub
from tests.conclave_fixture import Answer, RunningServer, running_server

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
QUESTION: dict[str, Any] = {"question": "Shall we?", "agents": {"count": 3}}
KEYS = "ann:observer:ann-secret-1,bob:operator:bob-secret-1,root:admin:root-secret-1"
REASON = {"reason": "a drill"}


@dataclass
class House:
    server: RunningServer
    database: HaltChannelStub
    file: HaltChannelStub

    def halt(self, body: object = None, **options: Any) -> Answer:
        return self.server.ask("POST", "/v1/halt", REASON if body is None else body, **options)

    def clear(self, body: object = None, **options: Any) -> Answer:
        return self.server.ask("DELETE", "/v1/halt", REASON if body is None else body, **options)

    def looked(self) -> dict[str, Any]:
        """What the server shows once it has looked at every channel."""
        self.server.call(self.server.conclave.halt.look())
        document: dict[str, Any] = self.server.ask("GET", "/v1/halt").document
        return document

    def entries(self) -> list[dict[str, Any]]:
        log = self.server.conclave.witness
        head = self.server.call(log._log.head())
        return [json.loads(self.server.call(log.entry(index)).entry) for index in range(head.tree_size)]


@pytest.fixture
def house() -> Iterator[House]:
    channels = HaltChannelStub("database"), HaltChannelStub("file")
    with running_server(channels=channels) as server:
        yield House(server, *channels)


@pytest.fixture
def keyed() -> Iterator[House]:
    channels = HaltChannelStub("database"), HaltChannelStub("file")
    with running_server(channels=channels, keys=KEYS) as server:
        yield House(server, *channels)


def key(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {name}-secret-1"}


def test_open_it_says_so_and_names_its_channels(house: House) -> None:
    clear = {"halted": False, "reachable": True}
    assert house.server.ask("GET", "/v1/halt").document == {
        "halted": False,
        "reason": None,
        "since": None,
        "channels": {"database": clear, "file": clear},
    }


def test_halted_it_says_why_and_since_when_and_so_does_every_channel(house: House) -> None:
    answer = house.halt()
    assert answer.status == 200
    assert answer.document["halted"] is True
    assert answer.document["reason"] == "a drill"
    assert datetime.fromisoformat(answer.document["since"]).tzinfo is not None
    assert answer.document["channels"] == {name: {"halted": True, "reachable": True} for name in ("database", "file")}
    assert house.server.ask("GET", "/v1/halt").document == answer.document


def test_halted_no_deliberation_is_accepted_and_the_system_is_ready_and_says_so(house: House) -> None:
    house.halt()
    refused = house.server.post(QUESTION)
    assert (refused.status, refused.problem) == (503, "system-halted")
    assert int(refused.headers["retry-after"]) >= 1
    assert "Shall we" not in refused.body.decode()
    ready = house.server.ask("GET", "/readyz")
    assert (ready.status, ready.document["halted"]) == (200, True)


def test_cleared_deliberations_are_accepted_again(house: House) -> None:
    house.halt()
    answer = house.clear({"reason": "it is over"})
    assert (answer.status, answer.document["halted"]) == (200, False)
    assert house.server.post(QUESTION, query="?wait=30").document["status"] == "completed"
    assert [entry["type"] for entry in house.entries()][:2] == ["halt.set", "halt.cleared"]


def test_halted_everything_can_be_read(house: House) -> None:
    ended = house.server.post(QUESTION, query="?wait=30").document
    house.halt()
    own = f"/v1/deliberations/{ended['id']}"
    paths = ["/v1/deliberations", own, f"{own}/outputs", f"{own}/events", f"{own}/bundle", f"{own}/minutes"]
    paths += ["/v1/pool", "/v1/rosters", "/v1/halt", "/v1/witness/checkpoint", "/healthz", "/readyz", "/metrics"]
    assert {path: house.server.ask("GET", path).status for path in paths} == dict.fromkeys(paths, 200)


def test_a_halt_ends_what_runs_and_keeps_what_was_answered() -> None:
    channels = HaltChannelStub("database"), HaltChannelStub("file")
    hanging = AgentOrchestratorStub(hanging=["archon-3"])
    with running_server(channels=channels, orchestrator=hanging) as server:
        accepted = server.post(QUESTION).document
        with server.events(f"/v1/deliberations/{accepted['id']}/events") as stream:
            ended = 0
            while ended < 2:
                ended += b"event: agent.ended" in stream.readline()
        assert server.ask("POST", "/v1/halt", REASON).status == 200
        found = server.ask("GET", f"/v1/deliberations/{accepted['id']}/events").body
        assert b"deliberation.halted" in found
        shown = server.ask("GET", f"/v1/deliberations/{accepted['id']}").document
    assert (shown["status"], shown["roll_call"]["answered"], shown["roll_call"]["halted"]) == ("halted", 2, 1)


@pytest.mark.parametrize("which", ["database", "file"])
def test_a_channel_that_is_away_shuts_the_door_and_opens_it_by_itself(house: House, which: str) -> None:
    channel = house.database if which == "database" else house.file
    channel.problem = "it is gone"
    shown = house.looked()
    assert (shown["halted"], shown["channels"][which]) == (True, {"halted": True, "reachable": False})
    assert house.server.post(QUESTION).problem == "system-halted"
    assert house.clear().problem == "halt-not-clearable"
    channel.problem = None
    assert house.looked()["halted"] is False
    assert house.server.post(QUESTION).status == 202


def test_a_halt_set_by_hand_is_shown(house: House) -> None:
    house.file.set("by hand", NOON)
    shown = house.looked()
    assert (shown["reason"], shown["since"]) == ("by hand", "2026-01-01T12:00:00Z")
    assert shown["channels"]["database"] == {"halted": False, "reachable": True}


def test_where_no_channel_can_be_set_it_says_so(house: House) -> None:
    house.database.problem = house.file.problem = "it is gone"
    house.looked()
    answer = house.halt()
    assert (answer.status, answer.problem) == (503, "dependency-unavailable")
    assert "the system is NOT halted" in answer.document["detail"]
    assert b"nothing is lost" not in answer.body
    assert b"it is gone" not in answer.body


def test_clearing_what_is_not_halted_is_409(house: House) -> None:
    answer = house.clear()
    assert (answer.status, answer.problem) == (409, "not-halted")


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        ({}, ["/reason"]),
        ({"reason": None}, ["/reason"]),
        ({"reason": 5}, ["/reason"]),
        ({"reason": ""}, ["/reason"]),
        ({"reason": " "}, ["/reason"]),
        ({"reason": "\u200b"}, ["/reason"]),
        ({"reason": "x" * 1001}, ["/reason"]),
        ({"reason": "a\x00b"}, ["/reason"]),
        (b'{"reason": "\\ud800"}', ["/reason"]),
        ({"reason": "x", "force": True}, ["/force"]),
        ({"reason": "x", "a b": True}, [""]),
        ([], [""]),
        ("reason", [""]),
    ],
)
def test_a_change_without_a_reason_is_refused_and_says_where(house: House, body: object, pointers: list[str]) -> None:
    for change in (house.halt, house.clear):
        sent = body if isinstance(body, bytes) else json.dumps(body).encode()
        answer = change(sent, headers={"Content-Type": "application/json"})
        assert answer.status == 422
        assert [error["pointer"] for error in answer.document["errors"]] == pointers
    assert house.looked()["halted"] is False


@pytest.mark.parametrize(
    ("sent", "media_type", "status"),
    [
        (b"", "application/json", 400),
        (b"{", "application/json", 400),
        (b'{"reason": "a", "reason": "b"}', "application/json", 400),
        (b'{"reason": NaN}', "application/json", 400),
        (b"reason=x", "application/x-www-form-urlencoded", 415),
        (b'{"reason": "' + b"x" * 20_000 + b'"}', "application/json", 413),
    ],
)
def test_a_body_that_cannot_be_read_is_refused(house: House, sent: bytes, media_type: str, status: int) -> None:
    for change in (house.halt, house.clear):
        assert change(sent, headers={"Content-Type": media_type}).status == status
    assert house.looked()["halted"] is False


def test_only_admins_halt_and_observers_may_look(keyed: House) -> None:
    for name in ("ann", "bob"):
        assert keyed.server.ask("GET", "/v1/halt", headers=key(name)).status == 200
        assert keyed.halt(headers=key(name)).problem == "forbidden"
        assert keyed.clear(headers=key(name)).problem == "forbidden"
    assert keyed.server.ask("GET", "/v1/halt").problem == "unauthenticated"
    assert keyed.halt().problem == "unauthenticated"
    assert keyed.halt(headers=key("root")).status == 200
    assert keyed.clear(headers=key("root")).status == 200
    assert [entry["key_name"] is not None for entry in keyed.entries()] == [True, True]


def test_a_halted_server_still_verifies(house: House) -> None:
    house.server.post(QUESTION, query="?wait=30")
    house.halt()
    house.clear()
    checkpoint = house.server.ask("GET", "/v1/witness/checkpoint").body.decode()
    assert int(checkpoint.split("\n")[1]) == len(house.entries())
