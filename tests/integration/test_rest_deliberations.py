"""The REST door over a real port: deliberations submitted, waited for, listed, read and cancelled as the contract says."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conclave_fixture import RunningServer, running_server
from tests.integration.rest_questions import QUESTION, SMALL, ask_events


def test_a_submission_is_accepted_with_its_place(slow_server: RunningServer) -> None:
    answer = slow_server.post(SMALL)
    assert answer.status == 202
    assert answer.headers["location"] == f"/v1/deliberations/{answer.document['id']}"
    assert answer.document["status"] in {"queued", "running"}
    assert slow_server.ask("GET", answer.headers["location"]).status == 200


def test_waiting_for_the_end_answers_with_it(server: RunningServer) -> None:
    answer = server.post(QUESTION, query="?wait=30")
    assert answer.status == 200
    assert answer.headers["location"] == f"/v1/deliberations/{answer.document['id']}"
    roll_call = answer.document["roll_call"]
    assert roll_call["asked"] == 72 == sum(count for state, count in roll_call.items() if state != "asked")
    assert answer.document["outcome"]["status"] == "decided"


def test_waiting_in_vain_answers_with_the_present_state(slow_server: RunningServer) -> None:
    answer = slow_server.post(SMALL, query="?wait=0.05")
    assert answer.status == 202
    assert answer.document["status"] in {"queued", "running"}


@pytest.mark.parametrize("wait", ["-1", "60.1", "nan", "inf", "soon", "1e400", "%00", "0x1"])
def test_an_impossible_wait_is_pointed_at(server: RunningServer, wait: str) -> None:
    answer = server.post(QUESTION, query=f"?wait={wait}")
    assert answer.status == 422
    assert answer.problem == "invalid-request"
    assert [error["pointer"] for error in answer.document["errors"]] == ["/query/wait"]


def test_outputs_are_never_cut(server: RunningServer, ended: dict[str, Any]) -> None:
    page = server.ask("GET", f"/v1/deliberations/{ended['id']}/outputs").document
    assert page["next_cursor"] is None
    assert {item["agent_id"] for item in page["items"]} == {f"archon-{number}" for number in range(1, 73)}


def test_outputs_of_one_round_are_that_round_s(server: RunningServer, ended: dict[str, Any]) -> None:
    path = f"/v1/deliberations/{ended['id']}/outputs"
    assert len(server.ask("GET", f"{path}?round=0").document["items"]) == 72
    assert server.ask("GET", f"{path}?round=1").document["items"] == []


def test_a_deliberation_that_is_cancelled_ends_as_cancelled(slow_server: RunningServer) -> None:
    deliberation = slow_server.post(SMALL).document
    answer = slow_server.ask("POST", f"/v1/deliberations/{deliberation['id']}/cancel", b"")
    assert answer.status == 202
    assert answer.document["id"] == deliberation["id"]
    assert ask_events(slow_server, deliberation["id"])[-1]["event"] == "deliberation.cancelled"


def test_a_body_on_a_cancellation_changes_nothing(slow_server: RunningServer) -> None:
    deliberation = slow_server.post(SMALL).document
    assert slow_server.ask("POST", f"/v1/deliberations/{deliberation['id']}/cancel", b"\x00{[").status == 202


def test_what_has_ended_cannot_be_cancelled_and_says_how_it_ended(server: RunningServer, ended: dict[str, Any]) -> None:
    answer = server.ask("POST", f"/v1/deliberations/{ended['id']}/cancel")
    assert answer.status == 409
    assert answer.problem == "deliberation-ended"
    assert answer.document["state"] == "completed"


def test_the_list_is_newest_first_in_pages_that_neither_miss_nor_repeat() -> None:
    with running_server() as server:
        posted = [server.post(SMALL).document["id"] for _ in range(5)]
        found: list[str] = []
        cursor: str | None = ""
        while cursor is not None:
            page = server.ask("GET", f"/v1/deliberations?limit=2&cursor={cursor}").document
            assert len(page["items"]) <= 2
            found += [item["id"] for item in page["items"]]
            cursor = page["next_cursor"]
        assert found == posted[::-1]


def test_the_list_can_be_of_one_state(server: RunningServer, ended: dict[str, Any]) -> None:
    page = server.ask("GET", "/v1/deliberations?status=completed").document
    assert ended["id"] in {item["id"] for item in page["items"]}
    assert server.ask("GET", "/v1/deliberations?status=halted").document == {"items": [], "next_cursor": None}


def test_parameters_left_empty_are_as_good_as_absent(server: RunningServer, ended: dict[str, Any]) -> None:
    assert server.ask("GET", "/v1/deliberations?status=&limit=&cursor=").status == 200
    assert server.ask("GET", f"/v1/deliberations/{ended['id']}/outputs?round=").status == 200


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("limit=0", "/query/limit"),
        ("limit=201", "/query/limit"),
        ("limit=-1", "/query/limit"),
        ("limit=ten", "/query/limit"),
        ("limit=1e3", "/query/limit"),
        (f"limit={'9' * 5000}", "/query/limit"),
        ("limit=%FF", "/query/limit"),
        ("status=done", "/query/status"),
        ("status=%00", "/query/status"),
        ("cursor=nonsense", "/query/cursor"),
        ("cursor=%00", "/query/cursor"),
        ("cursor=%FF%FE", "/query/cursor"),
        ("cursor=%ED%A0%80", "/query/cursor"),
        (f"cursor={'x' * 5000}", "/query/cursor"),
    ],
)
def test_a_bad_parameter_is_pointed_at(server: RunningServer, query: str, pointer: str) -> None:
    answer = server.ask("GET", f"/v1/deliberations?{query}")
    assert answer.status == 422
    assert [error["pointer"] for error in answer.document["errors"]] == [pointer]


@pytest.mark.parametrize("round_", ["-1", "x", "1.5", "99999999999999999999"])
def test_a_bad_round_is_pointed_at(server: RunningServer, ended: dict[str, Any], round_: str) -> None:
    answer = server.ask("GET", f"/v1/deliberations/{ended['id']}/outputs?round={round_}")
    assert [error["pointer"] for error in answer.document["errors"]] == ["/query/round"]


@pytest.mark.parametrize(
    "identity",
    [
        "nobody",
        "%00",
        "%FF",
        "..",
        "%2e%2e%2fetc",
        "%F0%9F%8F%9B",
        "a" * 5000,
        "1;DROP",
        "%0A",
        "00000000-0000-0000-0000-000000000000",
    ],
)
@pytest.mark.parametrize("part", ["", "/outputs", "/events"])
def test_what_is_no_deliberation_is_not_found(server: RunningServer, identity: str, part: str) -> None:
    answer = server.ask("GET", f"/v1/deliberations/{identity}{part}")
    assert answer.status == 404
    assert answer.problem in {"deliberation-not-found", "not-found"}


def test_what_is_no_deliberation_cannot_be_cancelled(server: RunningServer) -> None:
    assert server.ask("POST", "/v1/deliberations/%00/cancel").problem == "deliberation-not-found"
