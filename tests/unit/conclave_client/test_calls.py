"""What each call asks for, and what cannot be asked for."""

from __future__ import annotations

import pytest

from conclave_client import calls
from conclave_client.awaiting import AsyncConclave
from conclave_client.blocking import Conclave
from conclave_client.errors import UnusableArgumentError
from conclave_client.terms import request_body


def test_options_alone_make_a_choice() -> None:
    assert request_body("Why?", {"options": ("a", "b")})["answer"] == {"kind": "choice", "options": ["a", "b"]}


def test_options_go_with_another_kind_of_answer() -> None:
    body = request_body("Why?", {"answer": "ranking", "options": ["a", "b"]})
    assert body["answer"] == {"kind": "ranking", "options": ["a", "b"]}


def test_short_forms_stand_for_long_ones() -> None:
    assert request_body("Why?", {"protocol": "delphi", "rule": "borda", "agents": 9, "quorum": 0.5}) == {
        "question": "Why?",
        "protocol": {"kind": "delphi"},
        "rule": {"kind": "borda"},
        "agents": {"count": 9},
        "quorum": {"min_answered_fraction": 0.5},
    }


def test_agents_are_a_roster_or_its_members() -> None:
    assert request_body("Why?", {"agents": "archons"})["agents"] == {"roster": "archons"}
    member = {"id": "a", "persona": "A baker."}
    assert request_body("Why?", {"agents": [{"id": "a", "persona": "A baker."}]})["agents"] == {"members": [member]}


def test_long_forms_are_sent_as_they_are() -> None:
    protocol = {"kind": "debate", "rounds": 3}
    assert request_body("Why?", {"protocol": {"kind": "debate", "rounds": 3}})["protocol"] == protocol


def test_a_text_is_no_list_of_options() -> None:
    with pytest.raises(UnusableArgumentError, match="options"):
        request_body("Why?", {"options": "yes"})


def test_a_term_that_does_not_exist_is_refused_before_anything_is_sent() -> None:
    with pytest.raises(TypeError, match="agent_count"):
        calls.deliberate("Why?", agent_count=9)  # type: ignore[call-arg]


def test_a_time_that_is_none_is_refused_and_not_waited_for() -> None:
    with pytest.raises(UnusableArgumentError, match="timeout_s"):
        calls.wait("d-1", timeout_s=float("nan"))
    with pytest.raises(UnusableArgumentError):
        calls.ask("Why?", timeout_s=float("nan"))


@pytest.mark.parametrize("name", ["", ".", ".."])
def test_an_id_that_names_nothing_is_refused(name: str) -> None:
    with pytest.raises(UnusableArgumentError):
        calls.get(name)
    with pytest.raises(UnusableArgumentError):
        calls.roster(name)


def test_an_id_cannot_leave_its_place_in_the_path() -> None:
    assert calls.get("../halt?x=1#y").path == "/v1/deliberations/..%2Fhalt%3Fx%3D1%23y"
    with pytest.raises(UnusableArgumentError):
        calls.get("\ud800")


@pytest.mark.parametrize("path", ["", "../x", "0/000?x", "0/0", "9/000.p/1000", "entries", "0//000", "0/000\n"])
def test_what_is_no_path_of_a_tile_is_refused(path: str) -> None:
    with pytest.raises(UnusableArgumentError):
        calls.tile(path)


@pytest.mark.parametrize("path", ["0/000", "63/x001/234.p/5", "entries/000", "entries/x001/x234/067.p/255"])
def test_a_path_of_a_tile_is_asked_for(path: str) -> None:
    assert calls.tile(path).path == f"/v1/witness/tile/{path}"


@pytest.mark.parametrize("key", ["", " ", "a\r\nX: y", "ä", "x" * 256, " a", "a "])
def test_an_idempotency_key_that_no_header_can_carry_is_refused(key: str) -> None:
    with pytest.raises(UnusableArgumentError):
        calls.deliberate("Why?", idempotency_key=key)


@pytest.mark.parametrize("wait_s", [-1, 61, float("nan"), float("inf")])
def test_an_answer_is_held_for_a_minute_at_most(wait_s: float) -> None:
    with pytest.raises(UnusableArgumentError):
        calls.deliberate("Why?", wait_s=wait_s)


@pytest.mark.parametrize(
    ("wait_s", "sent"),
    [(0, "0"), (60, "60"), (0.5, "0.5"), (0.00002, "0.00002"), (1e-9, "0"), (12.3456789, "12.345679")],
)
def test_seconds_are_sent_in_plain_digits(wait_s: float, sent: str) -> None:
    assert calls.deliberate("Why?", wait_s=wait_s).path == f"/v1/deliberations?wait={sent}"


def test_places_in_the_log_and_in_a_stream_are_not_negative() -> None:
    with pytest.raises(UnusableArgumentError):
        calls.entry(-1)
    with pytest.raises(UnusableArgumentError):
        calls.events("d-1", after=-1)


def test_filters_that_are_not_given_are_not_sent() -> None:
    assert calls.list_deliberations(simulated=False, since="2026-11-21").query == {
        **dict.fromkeys(("search", "status", "origin", "answer", "protocol", "rule", "outcome", "to", "limit")),
        "simulated": "false",
        "from": "2026-11-21",
    }


def test_both_flavours_offer_every_call_under_the_same_names() -> None:
    flavours: list[dict[str, set[str]]] = []
    for flavour in (Conclave("http://127.0.0.1"), AsyncConclave("http://127.0.0.1")):
        offered = {"": {name for name in dir(flavour) if not name.startswith("_")} - {"close", "aclose"}}
        for group in ("runs", "halt", "witness"):
            offered[group] = {name for name in dir(getattr(flavour, group)) if not name.startswith("_")}
        flavours.append(offered)
    assert flavours[0] == flavours[1]
    assert len(calls.__all__) - 3 == sum(map(len, flavours[0].values())) - len({"url", "runs", "halt", "witness"})
